//! A second opinion: the same properties, looked for by trying out requests with Cedar's evaluator alone.

use std::collections::BTreeSet;
use std::str::FromStr as _;

use cedar_policy::{Authorizer, Context, Decision, Entities, EntityUid, PolicySet, Request, Schema};
use serde_json::{Value, json};

/// One request, and the property that allowing it would break.
pub(crate) struct Trial {
    request: Request,
    entities: Entities,
    breaks: Vec<&'static str>,
}

fn tenant(id: &str) -> Value {
    json!({ "__entity": { "type": "Vault::Tenant", "id": id } })
}

fn uid(text: &str) -> EntityUid {
    EntityUid::from_str(text).unwrap()
}

/// An end user of a tenant.
fn end_user(of: &str, mfa: bool, fresh: bool) -> Value {
    json!({ "issuer": "i", "subject": "s", "tenant": tenant(of), "roles": [], "amr": [], "mfa": mfa, "mfaFresh": fresh })
}

const WORKLOAD: &str = r#"Vault::Workload::"w""#;
const OPERATOR: &str = r#"Vault::Operator::"o""#;

fn trial(
    schema: &Schema,
    (who, action, resource): (&str, &str, &str),
    context: Value,
    dataset: &Value,
    suspended: bool,
) -> Trial {
    let of = if resource.contains("foreign") { "foreign" } else { "own" };
    let entities = json!([
        { "uid": { "type": "Vault::Workload", "id": "w" }, "parents": [], "attrs": {
            "service": "s", "environment": "e", "tenants": [tenant("own")],
            "roles": ["writer", "reader", "rewrapper", "consent"] } },
        { "uid": { "type": "Vault::Operator", "id": "o" }, "parents": [], "attrs": { "name": "o", "person": "o",
          "roles": ["approver", "auditor", "author", "custodian", "viewer"] } },
        { "uid": { "type": "Vault::Tenant", "id": of }, "parents": [], "attrs": { "suspended": suspended } },
        { "uid": { "type": "Vault::Dataset", "id": format!("{of}/d") }, "parents": [], "attrs": dataset },
    ]);
    let action = uid(&format!("Vault::Action::\"{action}\""));
    let context = Context::from_json_value(context, Some((schema, &action))).unwrap();
    let request = Request::new(uid(who), action, uid(resource), context, None).unwrap();
    // With the schema, so that the groups of actions are there.
    let entities = Entities::from_json_value(entities, Some(schema)).unwrap();
    Trial { request, entities, breaks: Vec::new() }
}

/// Requests of every kind that matters, each with what it would break.
pub(crate) fn trials() -> Vec<Trial> {
    let (schema, _) = Schema::from_cedarschema_str(vault_core::policy::BASELINE_SCHEMA.text).unwrap();
    let mut trials = Vec::new();
    let users = [
        None,
        Some(("own", false, false)),
        Some(("own", true, false)),
        Some(("own", true, true)),
        Some(("foreign", true, true)),
    ];
    for who in [WORKLOAD, OPERATOR] {
        let operator = who == OPERATOR;
        for of in ["own", "foreign"] {
            for (action, suspended, (required, consent), class, user) in data_requests(&users) {
                let mut dataset = json!({ "tenant": tenant(of), "consentRequired": required });
                let mut context = json!({ "now": "2026-11-24T12:00:00Z", "purpose": "p", "hasSubject": false, "items": 1,
                    "consent": consent, "grantedRoles": [] });
                if let Some(class) = class {
                    dataset["classification"] = class.into();
                }
                if let Some((of, mfa, fresh)) = user {
                    context["endUser"] = end_user(of, mfa, fresh);
                }
                let about = format!("Vault::Dataset::\"{of}/d\"");
                let mut trial = trial(&schema, (who, action, &about), context, &dataset, suspended);
                let present = user.is_some_and(|(tenant, ..)| tenant == of);
                let fresh = present && user.is_some_and(|(.., fresh)| fresh);
                let release = action == "Decrypt";
                let classified =
                    release && (class == Some("confidential") && !present || class == Some("restricted") && !fresh);
                let broken = [
                    (operator, "only-workloads"),
                    (!operator && of == "foreign", "own-tenants"),
                    (suspended, "active-tenants"),
                    (release && required && !consent, "consent"),
                    (classified, "classified"),
                ];
                trial.breaks = broken.into_iter().filter(|(breaks, _)| *breaks).map(|(_, property)| property).collect();
                trials.push(trial);
            }
            let resource = format!("Vault::Tenant::\"{of}\"");
            let dataset = json!({ "tenant": tenant(of) });
            for (action, user) in ["GrantConsent", "ListConsents"].into_iter().flat_map(|a| users.map(|u| (a, u))) {
                let Some((tenant, mfa, fresh)) = user else { continue };
                let context = json!({ "now": "2026-11-24T12:00:00Z", "endUser": end_user(tenant, mfa, fresh) });
                let mut trial = trial(&schema, (who, action, &resource), context, &dataset, false);
                if operator || of == "foreign" || tenant != of || (action == "GrantConsent" && !mfa) {
                    trial.breaks.push("own-consents");
                }
                trials.push(trial);
            }
            for action in ["SuspendTenant", "GetTenant", "ShredTenant"] {
                let context = json!({ "now": "2026-11-24T12:00:00Z" });
                let mut trial = trial(&schema, (who, action, &resource), context, &dataset, false);
                if !operator {
                    trial.breaks.push("only-operators");
                }
                trials.push(trial);
            }
        }
    }
    trials
}

type User = Option<(&'static str, bool, bool)>;
type Data = (&'static str, bool, (bool, bool), Option<&'static str>, User);

fn data_requests(users: &[User]) -> Vec<Data> {
    let mut all = Vec::new();
    for action in ["Encrypt", "Decrypt", "Rewrap"] {
        for suspended in [false, true] {
            for consent in [(false, false), (true, false), (true, true)] {
                for class in [None, Some("confidential"), Some("restricted")] {
                    all.extend(users.iter().map(|user| (action, suspended, consent, class, *user)));
                }
            }
        }
    }
    all
}

/// The properties that a set breaks for one of the requests.
pub(crate) fn broken(text: &str, trials: &[Trial]) -> BTreeSet<&'static str> {
    let set = PolicySet::from_str(text).unwrap();
    let authorizer = Authorizer::new();
    let mut broken = BTreeSet::new();
    for trial in trials.iter().filter(|trial| !trial.breaks.is_empty()) {
        if trial.breaks.iter().all(|property| broken.contains(property)) {
            continue;
        }
        let response = authorizer.is_authorized(&trial.request, &set, &trial.entities);
        let failed = response.diagnostics().errors().next().is_some();
        if response.decision() == Decision::Allow && !failed {
            broken.extend(trial.breaks.iter().copied());
        }
    }
    broken
}
