//! How often calls were denied, and why; and calls of the other plane, which nobody answers.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::Vault;
use crate::error::{Check, Error};
use crate::id::RequestId;
use crate::policy::{Decision, Refusal, Resource, is_workloads_action};
use crate::principal::{Operator, SpiffeId, Workload};

/// The reason in the audit entry of a call that belongs to the other plane.
pub const STRAYED: &str = "the call belongs to the other plane";

/// A reason for which calls were denied; all decided at compile time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Denied {
    /// `data` or `control`: whose action it was.
    pub plane: &'static str,
    /// The check that refused.
    pub check: &'static str,
    /// Which rule of it.
    pub reason: &'static str,
}

/// Counts since the vault was opened.
#[derive(Debug, Default)]
pub(super) struct Denials(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    denied: BTreeMap<Denied, u64>,
    /// Data calls that operators made, by the name of the call.
    strayed: BTreeMap<&'static str, u64>,
}

impl Denials {
    fn with<T>(&self, work: impl FnOnce(&mut Counts) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn count(&self, refusal: &Refusal) {
        let plane = if is_workloads_action(refusal.decision.action) { "data" } else { "control" };
        let denied = Denied { plane, check: refusal.check.name(), reason: refusal.reason };
        self.with(|counts| *counts.denied.entry(denied).or_default() += 1);
    }
}

impl Vault {
    /// How often calls were denied since the vault was opened, by reason.
    pub fn denied(&self) -> BTreeMap<Denied, u64> {
        self.denials.with(|counts| counts.denied.clone())
    }

    /// How often operators made calls of the data plane since the vault was opened, by the name of the call. None of them
    /// was answered: there is nothing on the control plane that could.
    pub fn strayed_operators(&self) -> BTreeMap<&'static str, u64> {
        self.denials.with(|counts| counts.strayed.clone())
    }

    /// Records that an operator made a call of the data plane, before it is told that there is none.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the log does not take entries.
    pub async fn operator_strayed(&self, who: &Operator, call: &'static str, request: RequestId) -> Result<(), Error> {
        self.denials.with(|counts| *counts.strayed.entry(call).or_default() += 1);
        self.strayed(who.id(), ("control", call), request).await
    }

    /// Records that a workload made a call of the control plane, before it is told that there is none.
    ///
    /// # Errors
    /// As [`Self::operator_strayed`].
    pub async fn workload_strayed(&self, who: &Workload, call: &'static str, request: RequestId) -> Result<(), Error> {
        self.strayed(who.id(), ("data", call), request).await
    }

    async fn strayed(
        &self,
        who: &SpiffeId,
        (plane, call): (&'static str, &'static str),
        request: RequestId,
    ) -> Result<(), Error> {
        let decision = Decision {
            principal: who.to_string(),
            person: None,
            action: call,
            resource: Resource::default(),
            reason: None,
            custody: None,
            end_user: None,
            consent: None,
            grants: Vec::new(),
            request,
            at: self.clock.now(),
            epoch: self.authorizer.epoch(),
            policies: Vec::new(),
        };
        let refusal = Refusal { decision: Box::new(decision), check: Check::Identity, reason: STRAYED };
        let denied = Denied { plane, check: refusal.check.name(), reason: STRAYED };
        self.denials.with(|counts| *counts.denied.entry(denied).or_default() += 1);
        self.audit.refused(&refusal, crate::audit::Pseudonyms::default()).await.map(drop)
    }
}
