//! What was decided, for whom, about what: the part that permits, refusals and audit entries share.

use std::sync::Arc;

use crate::custody::Custody;
use crate::error::{Check, Error};
use crate::id::{ConsentId, DatasetId, GrantId, Purpose, Reason, RequestId, Subject, TenantId};
use crate::principal::EndUser;
use crate::time::Timestamp;

/// What an action is about. A permit carries it, and keys are looked up from there alone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Resource {
    /// The tenant, absent only for listing tenants.
    pub tenant: Option<TenantId>,
    /// The dataset, if the action is about one.
    pub dataset: Option<DatasetId>,
    /// The person the data is about, if the data key is theirs.
    pub subject: Option<Subject>,
    /// Why; always present for data actions.
    pub purpose: Option<Purpose>,
}

/// One decision of the authorizer, allowed or not.
#[derive(Debug, Clone)]
pub struct Decision {
    /// The principal's SPIFFE ID.
    pub principal: String,
    /// Which person of the list of operators it is.
    pub person: Option<String>,
    /// [`super::Action::NAME`].
    pub action: &'static str,
    /// What it is about.
    pub resource: Resource,
    /// The operator's own words, for a control action that they gave some for.
    pub reason: Option<Reason>,
    /// The root keys that a tenant key is to be put under, for a control action that names them.
    pub custody: Option<Custody>,
    /// The end user for whom the workload asked.
    pub end_user: Option<Arc<EndUser>>,
    /// The consent that covers the purpose, if one does.
    pub consent: Option<ConsentId>,
    /// The time-bound grants that gave the workload roles here.
    pub grants: Vec<GrantId>,
    /// The call this belongs to.
    pub request: RequestId,
    /// When it was decided.
    pub at: Timestamp,
    /// The epoch of the policy set that decided.
    pub epoch: u64,
    /// The ids of the policies that determined the decision, sorted.
    pub policies: Vec<String>,
}

impl Decision {
    /// Whoever has to differ where two people have to agree: the person of the list of operators, whichever of their
    /// certificates they use. For a workload, the principal.
    pub fn person(&self) -> &str {
        self.person.as_deref().unwrap_or(&self.principal)
    }

    /// Whether an audit entry of `other` would say the same as one of this decision, but for the time.
    pub fn tells_the_same(&self, other: &Self) -> bool {
        // Taken apart, so that what is added has to be thought of here.
        let Self {
            principal,
            person,
            action,
            resource,
            reason,
            custody,
            end_user,
            consent,
            grants,
            request,
            epoch,
            policies,
            at: _,
        } = self;
        let same_user = match (end_user, &other.end_user) {
            (None, None) => true,
            (Some(one), Some(two)) => Arc::ptr_eq(one, two),
            _ => false,
        };
        same_user
            && (principal, person) == (&other.principal, &other.person)
            && (action, resource, reason) == (&other.action, &other.resource, &other.reason)
            && (custody, consent, grants) == (&other.custody, &other.consent, &other.grants)
            && (request, epoch, policies) == (&other.request, &other.epoch, &other.policies)
    }
}

/// A denied decision. Outside it is only [`Error::Denied`]; the reason goes to the audit entry.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// What was asked.
    pub decision: Box<Decision>,
    /// The check that refused.
    pub check: Check,
    /// Which rule of that check, for the audit entry; decided at compile time, so it cannot carry data.
    pub reason: &'static str,
}

impl From<&Refusal> for Error {
    fn from(refusal: &Refusal) -> Self {
        Self::Denied(refusal.check)
    }
}
