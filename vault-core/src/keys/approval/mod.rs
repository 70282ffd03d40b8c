//! What an operator asks for and others have to approve: bound to the hash of the request, carried out once
//! (docs/approvals.md).
//!
//! ```text
//! row      a request with its votes, as it is kept; the hash that it is bound to
//! decide   asking, voting, rejecting, cancelling, what is due
//! summary  what the vault says that a request changes
//! ```

mod decide;
mod row;
mod summary;

use serde::{Deserialize, Serialize};

use super::access::GrantOrder;
use super::work::Cursor;
use crate::bundle::BundleRef;
use crate::id::{ApprovalId, Fingerprint, Reason, Subject, TenantId};
use crate::kms::Custody;
use crate::policy::Decision;
use crate::time::Timestamp;

pub(crate) use decide::{Chore, Then, Voted};
pub(super) use row::ApprovalRow;
pub(crate) use summary::Lines;

/// Most people that can be demanded for one request: their votes fit its row.
pub const MAX_REQUIRED: u8 = 7;

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ordered {
    /// Destroy all data keys of one subject of a tenant.
    ShredSubject(TenantId, Subject),
    /// Destroy all keys of a tenant.
    ShredTenant(TenantId),
    /// Give a workload roles on a dataset until an instant.
    Grant(GrantOrder),
    /// Put a policy bundle in force.
    ActivatePolicy(BundleRef),
    /// Lift a tenant's suspension, if the tenant is still at this revision.
    ResumeTenant(TenantId, u64),
    /// Put a new version of a tenant's key under other root keys, if the tenant is still at this revision.
    ChangeCustody(TenantId, Custody, u64),
    /// Put another charter in force in the place of this one: their digests.
    ChangeCharter {
        /// The one in force when it was asked for.
        from: Fingerprint,
        /// The one that was proposed.
        to: Fingerprint,
    },
}

impl Ordered {
    /// Whose keys or data, if it is about a tenant.
    pub const fn tenant(&self) -> Option<&TenantId> {
        match self {
            Self::ShredSubject(tenant, _)
            | Self::ShredTenant(tenant)
            | Self::ResumeTenant(tenant, _)
            | Self::ChangeCustody(tenant, ..) => Some(tenant),
            Self::Grant(order) => Some(&order.tenant),
            Self::ActivatePolicy(_) | Self::ChangeCharter { .. } => None,
        }
    }

    /// The grant, if it is about one.
    pub const fn grant(&self) -> Option<&GrantOrder> {
        if let Self::Grant(order) = self { Some(order) } else { None }
    }

    /// The policy bundle, if it is about one.
    pub const fn bundle(&self) -> Option<BundleRef> {
        if let Self::ActivatePolicy(bundle) = self { Some(*bundle) } else { None }
    }

    /// The person, if it is about one.
    pub const fn subject(&self) -> Option<&Subject> {
        if let Self::ShredSubject(_, subject) = self { Some(subject) } else { None }
    }

    /// The new custody, if it is about one.
    pub const fn custody(&self) -> Option<&Custody> {
        if let Self::ChangeCustody(_, custody, _) = self { Some(custody) } else { None }
    }

    /// The revision that the tenant must still have, if it must.
    pub const fn revision(&self) -> Option<u64> {
        match self {
            Self::ResumeTenant(_, revision) | Self::ChangeCustody(_, _, revision) => Some(*revision),
            Self::ShredSubject(..) | Self::ShredTenant(_) | Self::Grant(_) => None,
            Self::ActivatePolicy(_) | Self::ChangeCharter { .. } => None,
        }
    }

    /// Whether it destroys keys, so that it may have to wait once more after it is approved.
    pub const fn destroys(&self) -> bool {
        matches!(self, Self::ShredSubject(..) | Self::ShredTenant(_))
    }

    /// The name of the action that asked for it.
    pub const fn action(&self) -> &'static str {
        match self {
            Self::ShredSubject(..) => "ShredSubject",
            Self::ShredTenant(_) => "ShredTenant",
            Self::Grant(_) => "RequestGrant",
            Self::ActivatePolicy(_) => "ActivatePolicy",
            Self::ResumeTenant(..) => "ResumeTenant",
            Self::ChangeCustody(..) => "RotateTenantKey",
            Self::ChangeCharter { .. } => "ProposeCharter",
        }
    }

    /// What it says besides action and tenant, as the hash takes it: fixed in number and order for each action, but for
    /// the roles of a grant, which come last.
    fn parameters(&self) -> Vec<String> {
        match self {
            Self::ShredSubject(_, subject) => vec![subject.as_str().to_owned()],
            Self::ShredTenant(_) => Vec::new(),
            Self::Grant(order) => {
                let fixed = [order.dataset.to_string(), order.workload.clone(), order.until.0.to_string()];
                fixed.into_iter().chain(order.roles.iter().cloned()).collect()
            }
            Self::ActivatePolicy(bundle) => vec![bundle.to_string()],
            Self::ResumeTenant(_, revision) => vec![revision.to_string()],
            Self::ChangeCustody(_, custody, revision) => vec![custody.to_string(), revision.to_string()],
            Self::ChangeCharter { from, to } => vec![from.to_string(), to.to_string()],
        }
    }
}

/// Where an approval stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApprovalState {
    /// Too few have approved it yet.
    Pending,
    /// Approved by enough; carried out from [`Approval::scheduled`] on, and until then it can be cancelled.
    Scheduled,
    /// Approved, and being carried out.
    Approved,
    /// Carried out: there is a receipt if keys were destroyed.
    Executed,
    /// Refused, for ever.
    Rejected,
    /// Taken back, for ever: by an operator, or by the vault because it could not be carried out any more.
    Cancelled,
    /// Too few approved it in time.
    Expired,
}

/// One person's approval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vote {
    /// The person, as [`Decision::person`] names them.
    pub person: String,
    /// The SPIFFE ID with which they came.
    pub principal: String,
    /// When.
    pub at: Timestamp,
    /// The hash that they saw.
    pub request_sha256: Fingerprint,
}

/// An approval as operators see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    /// Its name.
    pub id: ApprovalId,
    /// What is to be done.
    pub ordered: Ordered,
    /// What stands for the subject in the audit log, in hexadecimal digits.
    pub pseudonym: Option<String>,
    /// Why, in the words of the one who asked.
    pub reason: String,
    /// What the vault says that it changes, line by line. Empty in requests of earlier versions.
    pub summary: Vec<String>,
    /// The SPIFFE ID of the one who asked.
    pub requester: String,
    /// The person who asked, as [`Decision::person`] names them.
    pub requester_person: String,
    /// When it was asked for.
    pub requested: Timestamp,
    /// From when on it can no longer be approved.
    pub expires: Timestamp,
    /// How many others have to approve it: at least so many, and more if the settings say so by then.
    pub required: u8,
    /// Who has approved it.
    pub votes: Vec<Vote>,
    /// How long it waits once they have, in milliseconds, so that it can be cancelled.
    pub delay_millis: u64,
    /// What an approval is bound to.
    pub request_sha256: Fingerprint,
    /// Where it stands.
    pub state: ApprovalState,
    /// When it is, or was, to be carried out, if it had to wait.
    pub scheduled: Option<Timestamp>,
    /// The SPIFFE ID of the last one who approved, or of the one who rejected or cancelled it.
    pub decided_by: Option<String>,
    /// When.
    pub decided: Option<Timestamp>,
    /// The signed erasure receipt, once keys were destroyed.
    pub receipt: Option<String>,
}

/// Who asks, approves, rejects or cancels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Voter<'a> {
    /// The person: one counts once, however many certificates they have.
    pub person: &'a str,
    /// The SPIFFE ID with which they come.
    pub principal: &'a str,
}

impl<'a> Voter<'a> {
    /// Whoever a decision was made for.
    pub fn of(decision: &'a Decision) -> Self {
        Self { person: decision.person(), principal: &decision.principal }
    }

    /// Whether it is the same person, or the same certificate's name: either is too much alike.
    fn is(&self, person: &str, principal: &str) -> bool {
        self.person == person || self.principal == principal
    }
}

/// What the one who approves saw and knows.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// [`Approval::request_sha256`].
    pub request_sha256: Fingerprint,
    /// The person, if it is about one: from elsewhere, as an approval does not say.
    pub subject: Option<&'a Subject>,
}

/// What the settings demand of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demand {
    /// How many others have to approve it.
    pub required: u8,
    /// How long it waits then, in milliseconds.
    pub delay_millis: u64,
}

/// Which approvals a list is to hold.
#[derive(Debug, Clone, Copy, Default)]
pub struct ApprovalFilter<'a> {
    /// Only those in this state.
    pub state: Option<ApprovalState>,
    /// Only those that this one could approve now.
    pub waits_for: Option<Voter<'a>>,
}

impl ApprovalFilter<'_> {
    fn takes(&self, approval: &Approval) -> bool {
        self.state.is_none_or(|state| state == approval.state)
            && self.waits_for.is_none_or(|voter| approval.waits_for(voter))
    }
}

impl Approval {
    /// Whether somebody could approve it now.
    fn waits_for(&self, voter: Voter<'_>) -> bool {
        self.state == ApprovalState::Pending
            && !voter.is(&self.requester_person, &self.requester)
            && !self.votes.iter().any(|vote| voter.is(&vote.person, &vote.principal))
    }
}

/// What is asked for, by whom, and for how long.
#[derive(Debug)]
pub(crate) struct NewApproval<'a> {
    pub ordered: &'a Ordered,
    /// What it changes, as far as the rows of the tenant do not say.
    pub lines: Lines,
    pub reason: &'a Reason,
    pub requester: Voter<'a>,
    pub lifetime_millis: u64,
    pub demand: Demand,
    /// For the summary: how long after a shred the tenant key versions above are destroyed.
    pub destroy_after_millis: u64,
}

/// Ids and digests as the work row keeps them.
pub(super) fn kept(bytes: &[u8]) -> Cursor {
    Cursor(bytes.to_vec())
}
