//! Counterexamples: a request with its entities, asked again of the code that decides, and written for people.

use std::collections::BTreeMap;

use cedar_policy::{Entities, Entity, PolicySet, Request, Schema};
use cedar_policy_symcc::Env;
use serde::Serialize;
use serde_json::Value;

use super::widen::Environment;
use crate::policy::authorizer::{self, Verdict};
use crate::policy::cedar::Slice;
use crate::policy::entities::NotExpressible;

/// A request that shows something, as the solver found it and the authorizer confirmed it.
///
/// Names and instants are the solver's, so they may be odd: it looks for any request at all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Counterexample {
    /// Who asks, for example `Vault::Operator::"A"`.
    pub principal: String,
    /// For what.
    pub action: String,
    /// Of what.
    pub resource: String,
    /// The request's context, by name.
    pub context: BTreeMap<String, String>,
    /// Everything that the request refers to, by id, with its attributes.
    pub entities: BTreeMap<String, BTreeMap<String, String>>,
    /// The policies that decided, or that failed.
    pub policies: Vec<String>,
}

/// A request in the engine's terms.
pub(super) struct Replay<'a> {
    schema: &'a Schema,
    environment: &'a Environment,
    env: Env,
}

impl<'a> Replay<'a> {
    pub(super) const fn new(schema: &'a Schema, environment: &'a Environment, env: Env) -> Self {
        Self { schema, environment, env }
    }

    /// What the authorizer says to it under a policy set. The request must be one that the schema allows.
    pub(super) fn ask(&self, policies: &PolicySet) -> Result<Verdict, NotExpressible> {
        let request = &self.env.request;
        let (Some(principal), Some(resource), Some(context)) =
            (request.principal(), request.resource(), request.context())
        else {
            return Err(NotExpressible);
        };
        let uid = self.environment.request.action();
        let (principal, resource) = (principal.clone(), resource.clone());
        if request.action() != Some(uid)
            || principal.type_name() != self.environment.request.principal()
            || resource.type_name() != self.environment.request.resource()
        {
            return Err(NotExpressible);
        }
        Request::new(principal.clone(), uid.clone(), resource.clone(), context.clone(), Some(self.schema))
            .map_err(|_| NotExpressible)?;
        let actions = self.schema.action_entities().map_err(|_| NotExpressible)?;
        let action = actions.get(uid).ok_or(NotExpressible)?.clone();
        let entities: Vec<Entity> = self.entities().cloned().collect();
        Entities::from_entities(entities.iter().cloned(), Some(self.schema)).map_err(|_| NotExpressible)?;
        let slice = Slice { policies: policies.clone(), action };
        authorizer::decide(&slice, principal, resource, context.clone(), Entities::empty(), entities)
    }

    /// All but actions, which come with the schema.
    fn entities(&self) -> impl Iterator<Item = &Entity> {
        let actions = self.environment.request.action().type_name().clone();
        self.env.entities.iter().filter(move |entity| *entity.uid().type_name() != actions)
    }

    /// For the report.
    pub(super) fn render(&self, policies: Vec<String>) -> Result<Counterexample, NotExpressible> {
        let request = &self.env.request;
        let name = |uid: Option<&cedar_policy::EntityUid>| uid.map(ToString::to_string).ok_or(NotExpressible);
        let context = request.context().ok_or(NotExpressible)?.to_json_value().map_err(|_| NotExpressible)?;
        let mut entities = BTreeMap::new();
        for entity in self.entities() {
            let json = entity.to_json_value().map_err(|_| NotExpressible)?;
            entities.insert(entity.uid().to_string(), fields(json.get("attrs").unwrap_or(&Value::Null)));
        }
        Ok(Counterexample {
            principal: name(request.principal())?,
            action: name(request.action())?,
            resource: name(request.resource())?,
            context: fields(&context),
            entities,
            policies,
        })
    }
}

fn fields(record: &Value) -> BTreeMap<String, String> {
    let fields = record.as_object().into_iter().flatten();
    fields.map(|(name, value)| (name.clone(), text(value))).collect()
}

/// A value as Cedar writes it; members of sets and fields of records sorted.
fn text(value: &Value) -> String {
    let sorted = |mut parts: Vec<String>| {
        parts.sort_unstable();
        parts.join(", ")
    };
    match value {
        Value::Array(members) => format!("[{}]", sorted(members.iter().map(text).collect())),
        Value::Object(record) => {
            let inner = |key, first: &str, second: &str| {
                let of = record.get(key)?;
                Some((of.get(first)?.as_str()?.to_owned(), of.get(second)?.clone()))
            };
            if let Some((kind, id)) = inner("__entity", "type", "id") {
                format!("{kind}::{}", text(&id))
            } else if let Some((function, argument)) = inner("__extn", "fn", "arg") {
                format!("{function}({})", text(&argument))
            } else if let Some((function, Value::Array(arguments))) = inner("__extn", "fn", "args") {
                // A method: its first argument is what it is called on.
                let mut arguments = arguments.iter().map(text);
                let of = arguments.next().unwrap_or_default();
                format!("{of}.{function}({})", arguments.collect::<Vec<_>>().join(", "))
            } else {
                format!("{{{}}}", sorted(record.iter().map(|(k, v)| format!("{k}: {}", text(v))).collect()))
            }
        }
        // All that could look like something else is escaped: the solver takes any character.
        Value::String(string) => format!("\"{}\"", string.escape_default()),
        plain => plain.to_string(),
    }
}

impl std::fmt::Display for Counterexample {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let braced = |of: &BTreeMap<String, String>| {
            let fields: Vec<_> = of.iter().map(|(name, value)| format!("{name}: {value}")).collect();
            format!("{{ {} }}", fields.join(", "))
        };
        writeln!(f, "principal  {}", self.principal)?;
        writeln!(f, "action     {}", self.action)?;
        writeln!(f, "resource   {}", self.resource)?;
        writeln!(f, "context    {}", braced(&self.context))?;
        for (id, attributes) in &self.entities {
            writeln!(f, "where      {id} is {}", braced(attributes))?;
        }
        if !self.policies.is_empty() {
            writeln!(f, "decided by {}", self.policies.join(", "))?;
        }
        Ok(())
    }
}
