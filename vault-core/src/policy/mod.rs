//! Who may do what: sealed actions, the Cedar policy set, the workload registry, and [`Permit`], which only this module
//! mints.

mod action;
mod decision;
mod permit;

pub use action::{
    Action, ControlAction, CreateDataset, CreateTenant, DataAction, Decrypt, Encrypt, GetDataset, GetTenant,
    ListDatasets, ListTenants, ResumeTenant, Rewrap, RotateDataKeys, RotateTenantKey, SuspendTenant,
};
pub use decision::{Decision, Refusal, Resource};
pub use permit::Permit;
