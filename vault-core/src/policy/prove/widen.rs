//! The widened schema: every type of principal may request every action, so that a proof about people is not a proof
//! about requests that cannot be made.

use std::collections::BTreeSet;

use cedar_policy::{EntityTypeName, RequestEnv, Schema, SchemaFragment};
use serde_json::Value;

use crate::error::Error;
use crate::policy::Source;

const UNUSABLE: &str = "the schema cannot be widened for a proof";

/// A schema in which every type of principal may request every action, and all kinds of requests that it knows.
pub(super) struct Widened {
    pub(super) schema: Schema,
    /// Sorted by action, principal, resource.
    pub(super) environments: Vec<Environment>,
}

/// One kind of request: a type of principal, an action and a type of resource.
pub(super) struct Environment {
    pub(super) request: RequestEnv,
    /// For people: `Operator, Decrypt, Dataset`.
    pub(super) name: String,
}

/// Derives it from the schema that a gateway loads, by a change of that schema's JSON form.
///
/// A type of principal is one that some action names as its principal, and any other that no action names as its
/// resource: a type which the schema has only so that it can be refused is asked about as well.
pub(super) fn widen(source: Source<'_>) -> Result<Widened, Error> {
    let refuse = || Error::invalid(source.name, UNUSABLE);
    let (given, _) = Schema::from_cedarschema_str(source.text).map_err(|_| refuse())?;
    let (fragment, _) = SchemaFragment::from_cedarschema_str(source.text).map_err(|_| refuse())?;
    let mut json = fragment.to_json_value().map_err(|_| refuse())?;
    let resources: BTreeSet<&EntityTypeName> = given.resources().collect();
    let others = given.entity_types().filter(|name| !resources.contains(name));
    let principals: BTreeSet<String> = given.principals().chain(others).map(ToString::to_string).collect();
    let principals: Value = principals.into_iter().collect::<Vec<_>>().into();
    for namespace in json.as_object_mut().ok_or_else(refuse)?.values_mut() {
        let Some(actions) = namespace.get_mut("actions").and_then(Value::as_object_mut) else { continue };
        // Without `appliesTo` an action is a group: nobody requests it.
        for applies in actions.values_mut().filter_map(|action| action.get_mut("appliesTo")) {
            let Some(applies) = applies.as_object_mut() else { continue };
            applies.insert("principalTypes".to_owned(), principals.clone());
        }
    }
    let schema = Schema::from_json_value(json).map_err(|_| refuse())?;
    let mut environments: Vec<_> =
        schema.request_envs().map(|request| Environment { name: name(&request), request }).collect();
    environments.sort_by_cached_key(|e| key(&e.request));
    environments.dedup_by_key(|e| key(&e.request));
    if environments.is_empty() { Err(refuse()) } else { Ok(Widened { schema, environments }) }
}

fn key(of: &RequestEnv) -> [String; 3] {
    [of.action().to_string(), of.principal().to_string(), of.resource().to_string()]
}

fn name(request: &RequestEnv) -> String {
    let action: &str = request.action().id().as_ref();
    format!("{}, {action}, {}", request.principal().basename(), request.resource().basename())
}
