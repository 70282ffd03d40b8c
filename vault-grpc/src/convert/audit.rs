//! Entries of the audit log as operators are answered.

use vault_core::audit::merkle::Hash;
use vault_core::audit::{Body, Decided, Entry, KeyRef, Status};
use vault_proto::v1;
use vault_proto::v1::audit_entry;

use super::timestamp;

/// An entry with its leaf hash.
pub fn entry(entry: &Entry, leaf_hash: &Hash) -> v1::AuditEntry {
    let link = entry.link.as_ref();
    v1::AuditEntry {
        index: entry.index,
        leaf_hash: leaf_hash.to_vec().into(),
        time: Some(timestamp(entry.time)),
        request_id: entry.request.map(|request| request.to_string()).unwrap_or_default(),
        tenant: link.map(|link| link.tenant.to_string()).unwrap_or_default(),
        tenant_sequence: link.map_or(0, |link| link.sequence),
        body: Some(body(&entry.body)),
    }
}

fn body(body: &Body) -> audit_entry::Body {
    match body {
        Body::Intent { decided, key, items } => {
            audit_entry::Body::Intent(v1::AuditDecision { key: key.map(key_ref), items: *items, ..decision(decided) })
        }
        Body::Refused { decided, check, reason } => audit_entry::Body::Refused(v1::AuditDecision {
            check: check.clone(),
            rule: reason.clone(),
            ..decision(decided)
        }),
        Body::Outcome { intent, status, reason, key, items } => audit_entry::Body::Outcome(v1::AuditOutcome {
            intent: *intent,
            status: match status {
                Status::Done => "done",
                Status::Failed => "failed",
                Status::Cancelled => "cancelled",
                Status::Partial => "partial",
            }
            .to_owned(),
            why: reason.clone(),
            items: *items,
            key: key.map(key_ref),
        }),
        Body::Control { intent, principal, action, detail, key } => audit_entry::Body::Executed(v1::AuditExecution {
            intent: *intent,
            principal: principal.clone(),
            action: action.clone(),
            detail: detail.clone(),
            key: key.map(key_ref),
        }),
        Body::System { event, detail, first, second } => audit_entry::Body::Event(v1::AuditEvent {
            event: event.clone(),
            detail: detail.clone(),
            first: *first,
            second: *second,
        }),
    }
}

fn decision(decided: &Decided) -> v1::AuditDecision {
    let user = decided.end_user.as_ref();
    v1::AuditDecision {
        principal: decided.principal.clone(),
        action: decided.action.clone(),
        dataset: decided.dataset.as_ref().map(ToString::to_string).unwrap_or_default(),
        subject_pseudonym: decided.pseudonym.map(|of| of.to_string()).unwrap_or_default(),
        purpose: decided.purpose.as_ref().map(ToString::to_string).unwrap_or_default(),
        reason: decided.reason.as_ref().map(|reason| reason.as_str().to_owned()).unwrap_or_default(),
        policy_epoch: decided.epoch,
        policies: decided.policies.listed.clone(),
        end_user_issuer: user.map(|user| user.issuer.clone()).unwrap_or_default(),
        end_user_pseudonym: user.and_then(|user| user.pseudonym).map(|of| of.to_string()).unwrap_or_default(),
        consent: decided.consent.map(|consent| consent.to_string()).unwrap_or_default(),
        custody: decided.custody.as_ref().map(ToString::to_string).unwrap_or_default(),
        grants: decided.grants.iter().map(ToString::to_string).collect(),
        ..Default::default()
    }
}

fn key_ref(key: KeyRef) -> v1::AuditKey {
    v1::AuditKey {
        key_id: key.key_id.to_string(),
        version: key.version.0,
        tenant_key_version: key.tenant_key_version.map_or(0, |version| version.0),
    }
}
