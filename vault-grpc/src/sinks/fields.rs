//! Entries in the fields of OCSF and ECS. Every field is taken from the entry; nothing is looked up.

use serde_json::{Map, Value, json};
use vault_core::audit::{Body, Decided, Entry, KeyRef, Status};
use vault_core::time::Timestamp;

/// What an entry says beyond its place in the log, by field name; what it does not say is absent.
pub fn facts(entry: &Entry) -> Map<String, Value> {
    let mut facts = Map::new();
    let mut put = |name: &str, value: Value| {
        if !value.is_null() {
            facts.insert(name.to_owned(), value);
        }
    };
    match &entry.body {
        Body::Intent { decided, key, items } => {
            put("kind", json!("intent"));
            decision(decided, &mut put);
            put("key", named(*key));
            put("items", json!(items));
        }
        Body::Outcome { intent, status, reason, key, items } => {
            put("kind", json!("outcome"));
            put("intent", json!(intent));
            put("status", json!(status_name(*status)));
            put("reason", json!(reason));
            put("key", named(*key));
            put("items", json!(items));
        }
        Body::Refused { decided, check, reason } => {
            put("kind", json!("refused"));
            decision(decided, &mut put);
            put("check", json!(check));
            put("reason", json!(reason));
        }
        Body::Control { intent, principal, action, detail, key } => {
            put("kind", json!("control"));
            put("intent", json!(intent));
            put("principal", json!(principal));
            put("action", json!(action));
            put("detail", json!(detail));
            put("key", named(*key));
        }
        Body::System { event, detail, first, second } => {
            put("kind", json!("system"));
            put("action", json!(event));
            put("detail", json!(detail));
            put("first", json!(first));
            put("second", json!(second));
        }
    }
    facts
}

fn decision(decided: &Decided, put: &mut dyn FnMut(&str, Value)) {
    put("principal", json!(decided.principal));
    put("action", json!(decided.action));
    put("dataset", json!(decided.dataset.as_ref().map(|dataset| dataset.as_str())));
    put("subject_pseudonym", json!(decided.pseudonym.map(|pseudonym| hexadecimal(&pseudonym.0))));
    put("purpose", json!(decided.purpose.as_ref().map(|purpose| purpose.as_str())));
    put("operator_reason", json!(decided.reason.as_ref().map(|reason| reason.as_str())));
    put("custody", json!(decided.custody.as_ref().map(ToString::to_string)));
    put("consent", json!(decided.consent.map(|consent| consent.to_string())));
    if let Some(user) = &decided.end_user {
        put("end_user_issuer", json!(user.issuer));
        put("end_user_pseudonym", json!(user.pseudonym.map(|pseudonym| hexadecimal(&pseudonym.0))));
    }
    if !decided.grants.is_empty() {
        put("grants", json!(decided.grants.iter().map(ToString::to_string).collect::<Vec<_>>()));
    }
    put("decided_at", json!(decided.at.0));
    put("policy_epoch", json!(decided.epoch));
    put("policies", json!(decided.policies.listed));
    put("policies_total", json!(decided.policies.total));
}

fn named(key: Option<KeyRef>) -> Value {
    key.map_or(Value::Null, |key| {
        json!({
            "id": key.key_id.to_string(),
            "version": key.version.0,
            "tenant_key_version": key.tenant_key_version.map(|version| version.0),
        })
    })
}

const fn status_name(status: Status) -> &'static str {
    match status {
        Status::Done => "done",
        Status::Failed => "failed",
        Status::Cancelled => "cancelled",
        Status::Partial => "partial",
    }
}

/// Success, failure, or something else.
const fn outcome(body: &Body) -> Option<bool> {
    match body {
        Body::Intent { .. } | Body::Control { .. } | Body::Outcome { status: Status::Done, .. } => Some(true),
        Body::Refused { .. } | Body::Outcome { status: Status::Failed, .. } => Some(false),
        Body::Outcome { .. } | Body::System { .. } => None,
    }
}

/// The OCSF activity of an action: 1 create, 2 read, 3 update, 4 delete, 99 another.
fn activity(action: Option<&str>) -> (u64, &'static str) {
    let action = action.unwrap_or_default();
    let begins = |names: &[&str]| names.iter().any(|name| action.starts_with(name));
    if begins(&["Encrypt", "Create", "Grant", "Propose"]) {
        (1, "Create")
    } else if begins(&["Decrypt", "Get", "List", "Read"]) {
        (2, "Read")
    } else if begins(&["Rewrap", "Rotate", "Update", "Set", "Suspend", "Resume", "Approve", "Reject", "Cancel"]) {
        (3, "Update")
    } else if begins(&["Shred", "Delete", "Destroy", "Withdraw", "Revoke"]) {
        (4, "Delete")
    } else {
        (99, "Other")
    }
}

/// OCSF 1.3, category Application Activity (6), class API Activity (6003). What has no field there is under `unmapped`.
pub fn ocsf(origin: &str, entry: &Entry, leaf_hash: &[u8; 32]) -> Value {
    let facts = facts(entry);
    let fact = |name: &str| facts.get(name).cloned().unwrap_or(Value::Null);
    let (activity_id, activity_name) = activity(facts.get("action").and_then(Value::as_str));
    let (status_id, status) = match outcome(&entry.body) {
        Some(true) => (1, "Success"),
        Some(false) => (2, "Failure"),
        None => (99, "Other"),
    };
    let principal = facts.get("principal").cloned().unwrap_or_else(|| json!(origin));
    let mut resources = Vec::new();
    if let Some(link) = &entry.link {
        resources.push(json!({ "type": "tenant", "uid": link.tenant.as_str() }));
    }
    for (kind, name) in [("dataset", "dataset"), ("subject pseudonym", "subject_pseudonym")] {
        if let Some(uid) = facts.get(name) {
            resources.push(json!({ "type": kind, "uid": uid }));
        }
    }
    let request = entry.request.map(|request| request.to_string());
    without_nulls(json!({
        "metadata": {
            "version": "1.3.0",
            "product": { "name": "Blindvault", "vendor_name": "Blindvault" },
            "log_name": origin,
            "sequence": entry.index,
            "uid": format!("{origin}/{}", entry.index),
            "correlation_uid": request,
            "tenant_uid": entry.link.as_ref().map(|link| link.tenant.as_str()),
        },
        "time": entry.time.0,
        "category_uid": 6,
        "category_name": "Application Activity",
        "class_uid": 6003,
        "class_name": "API Activity",
        "activity_id": activity_id,
        "activity_name": activity_name,
        "type_uid": 600_300 + activity_id,
        "severity_id": if status_id == 2 { 2 } else { 1 },
        "status_id": status_id,
        "status": status,
        "status_detail": fact("reason"),
        "actor": { "user": { "uid": principal } },
        "src_endpoint": { "svc_name": principal },
        "api": { "operation": fact("action"), "service": { "name": "vault.v1" }, "request": { "uid": request } },
        "resources": resources,
        "unmapped": unmapped(entry, leaf_hash, facts),
    }))
}

/// Elastic Common Schema 8. What has no field there is under `blindvault`.
pub fn ecs(origin: &str, entry: &Entry, leaf_hash: &[u8; 32]) -> Value {
    let facts = facts(entry);
    let fact = |name: &str| facts.get(name).cloned().unwrap_or(Value::Null);
    let event_type = match (&entry.body, activity(facts.get("action").and_then(Value::as_str)).0) {
        (Body::Refused { .. }, _) => "denied",
        (_, 1) => "creation",
        (_, 3) => "change",
        (_, 4) => "deletion",
        (_, 2) => "access",
        _ => "info",
    };
    without_nulls(json!({
        "@timestamp": rfc3339(entry.time.0),
        "ecs": { "version": "8.11.0" },
        "event": {
            "kind": "event",
            "category": ["api"],
            "type": [event_type],
            "action": fact("action"),
            "outcome": outcome(&entry.body).map_or("unknown", |good| if good { "success" } else { "failure" }),
            "reason": fact("reason"),
            "sequence": entry.index,
            "id": format!("{origin}/{}", entry.index),
            "provider": origin,
        },
        "service": { "type": "blindvault" },
        "organization": { "id": entry.link.as_ref().map(|link| link.tenant.as_str()) },
        "user": { "id": fact("principal") },
        "trace": { "id": entry.request.map(|request| request.to_string()) },
        "blindvault": unmapped(entry, leaf_hash, facts),
    }))
}

fn unmapped(entry: &Entry, leaf_hash: &[u8; 32], mut facts: Map<String, Value>) -> Value {
    facts.insert("leaf_hash".to_owned(), json!(hexadecimal(leaf_hash)));
    if let Some(link) = &entry.link {
        facts.insert("tenant_sequence".to_owned(), json!(link.sequence));
        facts.insert("tenant_previous".to_owned(), json!(hexadecimal(&link.previous)));
    }
    Value::Object(facts)
}

/// Drops fields without a value, and objects that are empty then.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.into_iter().map(|(name, value)| (name, without_nulls(value)));
            Value::Object(fields.filter(|(_, value)| !value.is_null() && value != &json!({})).collect())
        }
        other => other,
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An instant (ms since 1970) as RFC 3339 writes it, in UTC.
pub fn rfc3339(millis: u64) -> String {
    Timestamp(millis).rfc3339()
}

#[cfg(test)]
mod tests {
    use super::rfc3339;

    #[test]
    fn instants_are_written_as_the_calendar_has_them() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_700_000_000_123, "2023-11-14T22:13:20.123Z"),
            (4_107_542_399_999, "2100-02-28T23:59:59.999Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(rfc3339(millis), text);
        }
    }
}
