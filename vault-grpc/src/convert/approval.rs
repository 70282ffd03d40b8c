//! Approvals as answers, and what lists of them ask for.

use vault_core::Error;
use vault_core::keys::{Approval, ApprovalState, Vote};
use vault_core::vault::Wanted;
use vault_proto::v1;

use super::{consent, timestamp};

/// An approval as an answer.
pub fn show(approval: &Approval) -> v1::Approval {
    let ordered = &approval.ordered;
    v1::Approval {
        approval: approval.id.to_string(),
        action: ordered.action().to_owned(),
        tenant: ordered.tenant().map(ToString::to_string).unwrap_or_default(),
        subject_pseudonym: approval.pseudonym.clone().unwrap_or_default(),
        reason: approval.reason.clone(),
        requester: approval.requester.clone(),
        create_time: Some(timestamp(approval.requested)),
        expire_time: Some(timestamp(approval.expires)),
        request_sha256: approval.request_sha256.to_string(),
        state: state(approval.state).into(),
        decider: approval.decided_by.clone().unwrap_or_default(),
        decide_time: approval.decided.map(timestamp),
        receipt: approval.receipt.clone().unwrap_or_default(),
        policy_version: ordered.bundle().map_or(0, |bundle| bundle.version),
        policy_sha256: ordered.bundle().map(|bundle| bundle.digest.to_string()).unwrap_or_default(),
        grant: ordered.grant().map(consent::grant_order),
        summary: approval.summary.clone(),
        requester_person: approval.requester_person.clone(),
        required_approvals: u32::from(approval.required),
        votes: approval.votes.iter().map(vote).collect(),
        delay_ms: approval.delay_millis,
        schedule_time: approval.scheduled.map(timestamp),
        custody: ordered.custody().map(ToString::to_string).unwrap_or_default(),
        tenant_etag: ordered.revision().map(|revision| revision.to_string()).unwrap_or_default(),
    }
}

fn vote(vote: &Vote) -> v1::ApprovalVote {
    v1::ApprovalVote {
        approver: vote.principal.clone(),
        person: vote.person.clone(),
        vote_time: Some(timestamp(vote.at)),
        request_sha256: vote.request_sha256.to_string(),
    }
}

const fn state(state: ApprovalState) -> v1::ApprovalState {
    match state {
        ApprovalState::Pending => v1::ApprovalState::Pending,
        ApprovalState::Scheduled => v1::ApprovalState::Scheduled,
        ApprovalState::Approved => v1::ApprovalState::Approved,
        ApprovalState::Executed => v1::ApprovalState::Executed,
        ApprovalState::Rejected => v1::ApprovalState::Rejected,
        ApprovalState::Cancelled => v1::ApprovalState::Cancelled,
        ApprovalState::Expired => v1::ApprovalState::Expired,
    }
}

/// What a list is to hold.
///
/// # Errors
/// [`Error::Invalid`] naming `state`.
pub fn wanted(request: &v1::ListApprovalsRequest) -> Result<Wanted, Error> {
    let unknown = |_| Error::invalid("state", "is no state of an approval");
    let state = match v1::ApprovalState::try_from(request.state).map_err(unknown)? {
        v1::ApprovalState::Unspecified => None,
        v1::ApprovalState::Pending => Some(ApprovalState::Pending),
        v1::ApprovalState::Scheduled => Some(ApprovalState::Scheduled),
        v1::ApprovalState::Approved => Some(ApprovalState::Approved),
        v1::ApprovalState::Executed => Some(ApprovalState::Executed),
        v1::ApprovalState::Rejected => Some(ApprovalState::Rejected),
        v1::ApprovalState::Cancelled => Some(ApprovalState::Cancelled),
        v1::ApprovalState::Expired => Some(ApprovalState::Expired),
    };
    Ok(Wanted { state, for_me: request.waiting_for_me })
}
