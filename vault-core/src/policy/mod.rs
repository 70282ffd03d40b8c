//! Who may do what: sealed actions, the Cedar policy set, the workload registry, and [`Permit`], which only this module
//! mints.

mod action;
mod authorizer;
mod cedar;
mod compile;
mod decision;
mod decisions;
mod diagnose;
mod entities;
mod guards;
mod index;
mod pattern;
mod permit;
mod plan;
#[cfg(feature = "prove")]
pub mod prove;
mod reads;
mod registry;
#[cfg(feature = "prove")]
pub mod rehearse;
mod request;
mod scan;
mod screen;
#[cfg(test)]
mod tests;

pub use action::{
    Action, ActivatePolicy, Approve, CancelApproval, ConsentAction, ControlAction, CreateDataset, CreateTenant,
    DataAction, Decrypt, Encrypt, GetApproval, GetCharter, GetDataset, GetPolicy, GetScorecard, GetTenant,
    GrantConsent, ListApprovals, ListConsents, ListDatasets, ListGrants, ListPolicies, ListTenants, Opens,
    ProposeCharter, ProposePolicy, Reject, RequestGrant, ResumeTenant, RevokeGrant, Rewrap, RotateDataKeys,
    RotateTenantKey, Seals, ShredSubject, ShredTenant, SuspendTenant, ValidatePolicy, WithdrawConsent, is_release,
    is_workloads_action,
};
pub use authorizer::{Authorizer, CACHED_DECISIONS, PERMIT_LIFETIME_MILLIS};
pub(crate) use cedar::texts;
pub use cedar::{BASELINE_POLICIES, BASELINE_SCHEMA, MAX_POLICIES, PolicySet, Source};
pub use decision::{Decision, Refusal, Resource};
pub use diagnose::{Diagnostic, diagnose};
pub(crate) use entities::rfc3339;
pub use guards::{GUARDS, GUARDS_REFUSE, Guard, NO_ERRORS, properties};
pub use permit::Permit;
pub use registry::{MAX_ENTRIES, MAX_REGISTRY, MAX_ROLES, MAX_TENANTS, Registry};
pub use request::{ConsentFacts, ConsentRequest, ControlRequest, DataRequest, DatasetFacts, Facts, GrantFacts};
