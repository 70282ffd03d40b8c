//! Decisions by Cedar alone: the whole set, unsliced, with entities and context made from JSON for each request. Shares
//! nothing with the authorizer but the text of policies and the way an instant is written.

use std::collections::HashMap;
use std::str::FromStr as _;

use cedar_policy::{
    AuthorizationError, Authorizer as Engine, Context, Decision, Entities, EntityUid, PolicyId, Request,
};
use serde_json::{Value, json};

use super::*;
use crate::principal::EndUser;

/// A workload, as the registry in force describes it.
#[derive(Debug, Clone)]
pub(super) struct Described {
    pub(super) id: String,
    pub(super) service: &'static str,
    pub(super) environment: &'static str,
    pub(super) tenants: Vec<&'static str>,
    pub(super) roles: Vec<&'static str>,
}

/// What Cedar says: whether it allows, and the policies that decided; all that failed, if any did.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) failed: bool,
    pub(super) allows: bool,
    pub(super) policies: Vec<String>,
}

pub(super) struct Naive(cedar_policy::PolicySet);

impl Naive {
    pub(super) fn new(text: &str) -> Self {
        let parsed = cedar_policy::PolicySet::from_str(text).unwrap();
        let named = parsed.policies().map(|policy| policy.new_id(PolicyId::new(policy.annotation("id").unwrap())));
        Self(cedar_policy::PolicySet::from_policies(named).unwrap())
    }

    pub(super) fn says(
        &self,
        action: &str,
        who: &Described,
        request: &DataRequest,
        dataset: &DatasetFacts,
        now: Timestamp,
    ) -> Said {
        let tenant = request.tenant.as_str();
        let uid = |kind: &str, id: &str| json!({ "type": format!("Vault::{kind}"), "id": id });
        let entity = |kind: &str, id: &str| json!({ "__entity": uid(kind, id) });
        let mut about = json!({ "tenant": entity("Tenant", tenant), "consentRequired": dataset.consent_required });
        for (name, label) in [("classification", &dataset.classification), ("residency", &dataset.residency)] {
            if let Some(label) = label {
                about[name] = json!(label);
            }
        }
        let id = format!("{tenant}/{}", request.dataset);
        let tenants: Vec<_> = who.tenants.iter().map(|tenant| entity("Tenant", tenant)).collect();
        let principal = json!({
            "service": who.service, "environment": who.environment, "tenants": tenants, "roles": who.roles,
        });
        let parents = |of: &str| -> Value {
            match of {
                "Decrypt" => json!([uid("Action", "Release")]),
                "Data" => json!([]),
                _ => json!([uid("Action", "Data")]),
            }
        };
        let actions = ["Encrypt", "Rewrap", "Decrypt", "Release", "Data"];
        let actions = actions.map(|of| json!({ "uid": uid("Action", of), "attrs": {}, "parents": parents(of) }));
        let mut entities = vec![
            json!({ "uid": uid("Tenant", tenant), "attrs": { "suspended": false }, "parents": [] }),
            json!({ "uid": uid("Dataset", &id), "attrs": about, "parents": [] }),
            json!({ "uid": uid("Workload", &who.id), "attrs": principal, "parents": [] }),
        ];
        entities.extend(actions);
        let entities = Entities::from_json_value(Value::Array(entities), None).unwrap();
        let roles: Vec<_> =
            dataset.grants.iter().filter(|g| g.workload == who.id && now < g.until).flat_map(|g| &g.roles).collect();
        let mut context = json!({
            "now": { "__extn": { "fn": "datetime", "arg": rfc3339(now).unwrap() } },
            "purpose": request.purpose.as_str(),
            "hasSubject": request.subject.is_some(),
            "items": request.items,
            "consent": dataset.consents.iter().any(|consent| consent.covers(&request.purpose, now)),
            "grantedRoles": roles,
        });
        if let Some(user) = &request.end_user {
            context["endUser"] = claims(user, now, &entity);
        }
        let context = Context::from_json_value(context, None).unwrap();
        let parsed = |kind: &str, id: &str| EntityUid::from_json(uid(kind, id)).unwrap();
        let (principal, resource) = (parsed("Workload", &who.id), parsed("Dataset", &id));
        let asked = Request::new(principal, parsed("Action", action), resource, context, None).unwrap();
        let response = Engine::new().is_authorized(&asked, &self.0, &entities);
        let diagnostics = response.diagnostics();
        let failed: Vec<_> = diagnostics
            .errors()
            .map(|AuthorizationError::PolicyEvaluationError(error)| error.policy_id().to_string())
            .collect();
        let (failed, mut policies) = if failed.is_empty() {
            (false, diagnostics.reason().map(ToString::to_string).collect())
        } else {
            (true, failed)
        };
        policies.sort_unstable();
        Said { failed, allows: !failed && response.decision() == Decision::Allow, policies }
    }
}

fn claims(user: &EndUser, now: Timestamp, entity: &dyn Fn(&str, &str) -> Value) -> Value {
    let mut claims: HashMap<&str, Value> = HashMap::from([
        ("issuer", json!(user.issuer())),
        ("subject", json!(user.subject().as_str())),
        ("tenant", entity("Tenant", user.tenant().as_str())),
        ("roles", json!(user.roles())),
        ("amr", json!(user.amr())),
        ("mfa", json!(user.mfa())),
        ("mfaFresh", json!(user.mfa() && user.fresh_until().is_some_and(|until| now < until))),
    ]);
    if let Some(acr) = user.acr() {
        claims.insert("acr", json!(acr));
    }
    if let Some(at) = user.auth_time() {
        claims.insert("authAge", json!(now.secs().saturating_sub(at.secs())));
    }
    json!(claims)
}
