//! Approvals as answers.

use vault_core::keys::{Approval, ApprovalState};
use vault_proto::v1;

use super::{consent, timestamp};

/// An approval as an answer.
pub fn show(approval: &Approval) -> v1::Approval {
    let state = match approval.state {
        ApprovalState::Pending => v1::ApprovalState::Pending,
        ApprovalState::Approved => v1::ApprovalState::Approved,
        ApprovalState::Executed => v1::ApprovalState::Executed,
        ApprovalState::Rejected => v1::ApprovalState::Rejected,
        ApprovalState::Expired => v1::ApprovalState::Expired,
    };
    v1::Approval {
        approval: approval.id.to_string(),
        action: approval.ordered.action().to_owned(),
        tenant: approval.ordered.tenant().map(ToString::to_string).unwrap_or_default(),
        subject_pseudonym: approval.pseudonym.clone().unwrap_or_default(),
        reason: approval.reason.clone(),
        requester: approval.requester.clone(),
        create_time: Some(timestamp(approval.requested)),
        expire_time: Some(timestamp(approval.expires)),
        request_sha256: approval.request_sha256.to_string(),
        state: state.into(),
        decider: approval.decided_by.clone().unwrap_or_default(),
        decide_time: approval.decided.map(timestamp),
        receipt: approval.receipt.clone().unwrap_or_default(),
        policy_version: approval.ordered.bundle().map_or(0, |bundle| bundle.version),
        policy_sha256: approval.ordered.bundle().map(|bundle| bundle.digest.to_string()).unwrap_or_default(),
        grant: approval.ordered.grant().map(consent::grant_order),
    }
}
