//! What a decision is asked about, and what the store knows about it.

use std::sync::Arc;

use crate::custody::Custody;
use crate::id::{ConsentId, DatasetId, GrantId, Purpose, Reason, RequestId, Subject, TenantId};
use crate::principal::EndUser;
use crate::time::Timestamp;

/// What a workload asks for; [`super::Authorizer::authorize_data`] says with which action.
#[derive(Debug, Clone)]
pub struct DataRequest {
    /// Whose data.
    pub tenant: TenantId,
    /// Which body of data.
    pub dataset: DatasetId,
    /// The person the data is about, if the data key is theirs.
    pub subject: Option<Subject>,
    /// Why.
    pub purpose: Purpose,
    /// The end user for whom the workload asks, if there is one.
    pub end_user: Option<Arc<EndUser>>,
    /// The call this belongs to.
    pub request: RequestId,
    /// How many records the call is about: 1, or the size of the batch.
    pub items: u32,
}

/// What an end user asks for, through a workload; [`super::Authorizer::authorize_consent`] says with which action.
#[derive(Debug, Clone)]
pub struct ConsentRequest {
    /// The tenant whose consents they are.
    pub tenant: TenantId,
    /// The end user.
    pub end_user: Arc<EndUser>,
    /// The call this belongs to.
    pub request: RequestId,
}

/// What a workload asks to read of a tenant's history; [`super::Authorizer::authorize_history`] says with which action.
#[derive(Debug, Clone)]
pub struct HistoryRequest {
    /// The tenant whose history it is.
    pub tenant: TenantId,
    /// The end user for whom the workload asks, if there is one.
    pub end_user: Option<Arc<EndUser>>,
    /// The person whose data the accesses were to, if only those are asked for: for the audit entry as a pseudonym, no
    /// policy reads it.
    pub subject: Option<Subject>,
    /// The call this belongs to.
    pub request: RequestId,
}

/// What an operator asks for; [`super::Authorizer::authorize_control`] says with which action.
#[derive(Debug, Clone)]
pub struct ControlRequest {
    /// The tenant, existing or not; `None` for listing tenants.
    pub tenant: Option<TenantId>,
    /// The dataset, if the action is about one; only together with its tenant.
    pub dataset: Option<DatasetId>,
    /// The person that it is about, if it is: for the audit entry as a pseudonym, no policy reads it.
    pub subject: Option<Subject>,
    /// Why, in the operator's own words: for the audit entry, no policy reads it.
    pub reason: Option<Reason>,
    /// The root keys that a tenant key is to be put under; only for the actions that make one.
    pub custody: Option<Custody>,
    /// The call this belongs to.
    pub request: RequestId,
}

/// What the store says about a tenant that exists.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// Whether its data actions are stopped.
    pub suspended: bool,
    /// The dataset asked for, if the tenant has it.
    pub dataset: Option<DatasetFacts>,
}

/// What the store says about a dataset that exists.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DatasetFacts {
    /// How sensitive it is, in the deployment's own words; the baseline knows `confidential` and `restricted`.
    pub classification: Option<String>,
    /// Where it has to stay, in the deployment's own words.
    pub residency: Option<String>,
    /// Whether its plaintext is released only for purposes that the tenant consented to.
    pub consent_required: bool,
    /// The consents that name it, withdrawn ones left out.
    pub consents: Arc<[ConsentFacts]>,
    /// The time-bound grants that name it, revoked ones left out.
    pub grants: Arc<[GrantFacts]>,
}

/// A consent that a tenant's own end user gave for a dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsentFacts {
    /// Its name, for the audit entry.
    pub id: ConsentId,
    /// What for, compared by exact bytes.
    pub purposes: Vec<Purpose>,
    /// From when on.
    pub from: Timestamp,
    /// The first instant at which it no longer holds; `None` until it is withdrawn.
    pub until: Option<Timestamp>,
}

impl ConsentFacts {
    /// Whether it covers a purpose at an instant.
    pub fn covers(&self, purpose: &Purpose, now: Timestamp) -> bool {
        self.from <= now && self.until.is_none_or(|until| now < until) && self.purposes.contains(purpose)
    }
}

/// Roles that a workload has on a dataset until an instant, beyond those of its registry entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantFacts {
    /// Its name, for the audit entry.
    pub id: GrantId,
    /// The workload's SPIFFE ID, compared by exact bytes.
    pub workload: String,
    /// The roles.
    pub roles: Vec<String>,
    /// The first instant at which it no longer holds.
    pub until: Timestamp,
}

impl GrantFacts {
    /// Whether it gives a workload anything at an instant.
    pub fn holds(&self, spiffe_id: &str, now: Timestamp) -> bool {
        now < self.until && self.workload == spiffe_id
    }
}
