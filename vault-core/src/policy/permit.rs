//! The proof that policy allowed one action on one resource.

use std::marker::PhantomData;

use super::{Action, Decision, Resource};
use crate::time::Timestamp;

/// Proof that the policy set of one epoch allowed the action `A` on one resource, until an instant.
///
/// Only [`super`] mints one. It cannot be made or copied elsewhere, and carries its resource: keys are looked up from
/// the permit, never from the request again.
///
/// ```compile_fail,E0599
/// use vault_core::policy::{Decrypt, Permit};
/// fn twice(permit: Permit<Decrypt>) -> (Permit<Decrypt>, Permit<Decrypt>) { (permit.clone(), permit) }
/// ```
/// ```compile_fail,E0451
/// use vault_core::policy::{Decision, Decrypt, Permit};
/// fn forge(decision: Decision) -> Permit<Decrypt> {
///     Permit { decision, valid_until: Default::default(), action: std::marker::PhantomData }
/// }
/// ```
#[derive(Debug)]
#[must_use = "a permit that is not used was decided for nothing"]
pub struct Permit<A: Action> {
    decision: Decision,
    valid_until: Timestamp,
    action: PhantomData<fn() -> A>,
}

impl<A: Action> Permit<A> {
    pub(super) const fn mint(decision: Decision, valid_until: Timestamp) -> Self {
        Self { decision, valid_until, action: PhantomData }
    }

    /// A permit for the tests of the floors above.
    #[cfg(test)]
    pub(crate) const fn for_test(decision: Decision, valid_until: Timestamp) -> Self {
        Self::mint(decision, valid_until)
    }

    /// What was decided.
    pub const fn decision(&self) -> &Decision {
        &self.decision
    }

    /// What the action may touch.
    pub const fn resource(&self) -> &Resource {
        &self.decision.resource
    }

    /// The first instant at which this permit no longer holds.
    pub const fn valid_until(&self) -> Timestamp {
        self.valid_until
    }
}
