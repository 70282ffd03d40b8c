//! Who may do what: sealed actions, the Cedar policy set, the workload registry, and [`Permit`], which only this module
//! mints.

mod action;
mod authorizer;
mod cedar;
mod decision;
mod entities;
mod pattern;
mod permit;
mod registry;
mod scan;
#[cfg(test)]
mod tests;

pub use action::{
    Action, ActivatePolicy, Approve, ControlAction, CreateDataset, CreateTenant, DataAction, Decrypt, Encrypt,
    GetApproval, GetDataset, GetPolicy, GetTenant, ListApprovals, ListDatasets, ListPolicies, ListTenants, Opens,
    ProposePolicy, Reject, ResumeTenant, Rewrap, RotateDataKeys, RotateTenantKey, Seals, ShredSubject, ShredTenant,
    SuspendTenant, ValidatePolicy,
};
pub use authorizer::{Authorizer, ControlRequest, DataRequest, DatasetFacts, Facts, PERMIT_LIFETIME_MILLIS};
pub use cedar::{BASELINE_POLICIES, BASELINE_SCHEMA, MAX_POLICIES, PolicySet, Source};
pub use decision::{Decision, Refusal, Resource};
pub(crate) use entities::rfc3339;
pub use permit::Permit;
pub use registry::{MAX_ENTRIES, MAX_REGISTRY, MAX_ROLES, MAX_TENANTS, Registry};
