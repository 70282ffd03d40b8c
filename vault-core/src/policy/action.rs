//! The actions, split in two worlds that never meet: data actions for workloads, control actions for operators.
//!
//! The traits are sealed, so no crate can add an action, or turn a control action into a data action:
//!
//! ```compile_fail,E0277
//! use vault_core::policy::{DataAction, SuspendTenant};
//! fn wants_data<A: DataAction>() {}
//! wants_data::<SuspendTenant>();
//! ```
//! ```compile_fail,E0277
//! struct Peek;
//! impl vault_core::policy::Action for Peek {
//!     const NAME: &'static str = "Peek";
//! }
//! ```

mod sealed {
    pub trait Sealed {}
}

/// Something a principal may ask for.
pub trait Action: sealed::Sealed + Send + Sync + 'static {
    /// The action's name in policies and audit entries.
    const NAME: &'static str;
}

/// An action on customers' data: only a [`crate::principal::Workload`] can be permitted one.
pub trait DataAction: Action {
    /// Whether plaintext leaves the vault. Such actions are in the group `Release` of the schema, and need the tenant's
    /// consent where the dataset asks for it.
    const RELEASES: bool;
}

/// An action of a tenant's own end user on the tenant's consents, through a workload. None of them returns plaintext or
/// key material.
pub trait ConsentAction: Action {
    /// Whether it widens what may be done, so that the end user must have signed in with a second factor.
    const WIDENS: bool;
}

/// An action on tenants, datasets and keys as objects: only an [`crate::principal::Operator`] can be permitted one.
/// None of them returns plaintext or key material.
pub trait ControlAction: Action {}

/// A data action that seals under the active key: [`Encrypt`] and [`Rewrap`].
pub trait Seals: DataAction {}

/// A data action that opens an envelope: [`Decrypt`] and [`Rewrap`].
pub trait Opens: DataAction {}

impl Seals for Encrypt {}
impl Seals for Rewrap {}
impl Opens for Decrypt {}
impl Opens for Rewrap {}

macro_rules! actions {
    ($world:ident, $all:ident: $($(#[$doc:meta])* $name:ident $({ $flag:ident: $value:expr })?),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub enum $name {}
        impl sealed::Sealed for $name {}
        impl Action for $name {
            const NAME: &'static str = stringify!($name);
        }
        impl $world for $name { $(const $flag: bool = $value;)? }
    )+
        /// The names of all of them: the schema must know each.
        pub(super) const $all: &[&str] = &[$($name::NAME),+];
    };
}

/// The data actions that release plaintext.
pub(super) const RELEASING_ACTIONS: &[&str] = &[Decrypt::NAME];

/// The control actions that make a tenant key, and so may name its custody.
pub(super) const CUSTODY_ACTIONS: [&str; 2] = [CreateTenant::NAME, RotateTenantKey::NAME];

/// Whether a name is that of an action that only workloads are permitted: one on data or consents.
pub fn is_workloads_action(name: &str) -> bool {
    DATA_ACTIONS.contains(&name) || CONSENT_ACTIONS.contains(&name)
}

/// Whether a name is that of an action that gives out plaintext.
pub fn is_release(name: &str) -> bool {
    RELEASING_ACTIONS.contains(&name)
}

actions! { DataAction, DATA_ACTIONS:
    /// Seal plaintext into an envelope.
    Encrypt { RELEASES: false },
    /// Open an envelope and release its plaintext to the workload.
    Decrypt { RELEASES: true },
    /// Seal an envelope's plaintext again under the active key version, inside the vault.
    Rewrap { RELEASES: false },
}

actions! { ConsentAction, CONSENT_ACTIONS:
    /// Consent to purposes, for datasets of the tenant.
    GrantConsent { WIDENS: true },
    /// Take a consent back.
    WithdrawConsent { WIDENS: false },
    /// List the tenant's consents.
    ListConsents { WIDENS: false },
}

actions! { ControlAction, CONTROL_ACTIONS:
    /// Make a tenant and its first tenant key.
    CreateTenant,
    /// Read a tenant's state and key versions.
    GetTenant,
    /// List tenants.
    ListTenants,
    /// Stop all data actions of a tenant.
    SuspendTenant,
    /// Ask for a suspension to be lifted; another operator has to approve it.
    ResumeTenant,
    /// Make a new tenant key version and rewrap the data keys under it; under other root keys another operator has to
    /// approve it.
    RotateTenantKey,
    /// Make new data key versions.
    RotateDataKeys,
    /// Declare a dataset of a tenant.
    CreateDataset,
    /// Read a dataset's declaration.
    GetDataset,
    /// List a tenant's datasets.
    ListDatasets,
    /// Ask for the destruction of all data keys of a subject; another operator has to approve it.
    ShredSubject,
    /// Ask for the destruction of all keys of a tenant; another operator has to approve it.
    ShredTenant,
    /// List what is to be approved, or was.
    ListApprovals,
    /// Approve what another operator asked for, which carries it out.
    Approve,
    /// Reject what an operator asked for.
    Reject,
    /// Take back what an operator asked for, also when it is approved and waits for its time.
    CancelApproval,
    /// Read an approval and the erasure receipt that it led to.
    GetApproval,
    /// Ask for roles of a workload beyond its registry entry until an instant; another operator has to approve it.
    RequestGrant,
    /// End such a grant early.
    RevokeGrant,
    /// List such grants.
    ListGrants,
    /// Have a policy bundle judged; nothing is kept.
    ValidatePolicy,
    /// Put a policy bundle into the store, where it waits.
    ProposePolicy,
    /// Ask for a bundle to be put in force; another operator has to approve it.
    ActivatePolicy,
    /// Read the charter in force: what of the configuration nobody changes alone.
    GetCharter,
    /// Ask for another charter to come into force; others have to approve it.
    ProposeCharter,
    /// Read a policy bundle.
    GetPolicy,
    /// List policy bundles.
    ListPolicies,
    /// Read the scorecard: figures about the whole vault, without data or subjects.
    GetScorecard,
}
