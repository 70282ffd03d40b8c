//! The end of a shred: every gateway has wiped the keys, or its lease has ended.
//!
//! A gateway that is cut off serves what it has in memory for its revocation lease, counted from its last question to the
//! store. So whoever has not confirmed by then, counted here from a moment at which the last key was destroyed, has asked
//! since and wiped, or serves nothing. Nothing is believed of a gateway that says nothing, least of all what stands in
//! the store about its lease: the time is taken by our own clock.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::keyring::Keyring;
use super::receipt::{Evicted, LeaseEnded, time};
use crate::error::Error;
use crate::id::{ApprovalId, TenantId};

/// Added to a lease, for clocks that do not run alike.
const MARGIN: Duration = Duration::from_secs(1);

/// Since when shreds wait for other gateways, in milliseconds of the monotonic clock; one for each tenant.
#[derive(Debug, Default)]
pub(super) struct Waiting(Mutex<HashMap<TenantId, (ApprovalId, u64)>>);

impl Waiting {
    /// Since when a shred waits: since the first time that this is asked.
    fn since(&self, tenant: &TenantId, approval: ApprovalId, now: u64) -> u64 {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let since = waiting.entry(tenant.clone()).or_insert((approval, now));
        if since.0 != approval {
            *since = (approval, now);
        }
        since.1
    }

    fn over(&self, tenant: &TenantId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(tenant);
    }
}

/// What became of the gateways that had the keys of a shred, or might have had them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Everywhere {
    pub evicted: Vec<Evicted>,
    pub lease_ended: Vec<LeaseEnded>,
}

impl Keyring {
    /// What became of all gateways, for a shred whose steps are all done; `None` while there is one to wait for. Waits up
    /// to `patience` for their words.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Corrupt`].
    pub(crate) async fn evicted_everywhere(
        &self,
        tenant: &TenantId,
        approval: ApprovalId,
        patience: Duration,
    ) -> Result<Option<Everywhere>, Error> {
        let clock = &self.parts.clock;
        // Before the question: a gateway that is entered later finds the keys gone.
        let since = self.waiting.since(tenant, approval, clock.monotonic_millis());
        let Some(found) = self.parts.store.evictions(tenant.as_str().as_bytes(), patience).await? else {
            self.waiting.over(tenant);
            let evicted = vec![Evicted { gateway: self.instance().to_owned(), confirmed: time(clock.now()) }];
            return Ok(Some(Everywhere { evicted, lease_ended: Vec::new() }));
        };
        let waited = Duration::from_millis(clock.monotonic_millis().saturating_sub(since));
        let mut all = Everywhere::default();
        for seen in found {
            match seen.evicted {
                Some(at) => all.evicted.push(Evicted { gateway: seen.gateway, confirmed: time(at) }),
                None if waited >= seen.lease.saturating_add(MARGIN) => {
                    all.lease_ended.push(LeaseEnded { gateway: seen.gateway, ended: time(clock.now()) });
                }
                None => return Ok(None),
            }
        }
        self.waiting.over(tenant);
        all.evicted.sort_by(|a, b| a.gateway.cmp(&b.gateway));
        all.lease_ended.sort_by(|a, b| a.gateway.cmp(&b.gateway));
        Ok(Some(all))
    }

    /// Whether this vault is the one that carries on work in steps: see [`Store::tends`](crate::store::Store).
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub(crate) async fn tends(&self) -> Result<bool, Error> {
        self.parts.store.tends().await
    }

    /// Wipes every key; leaves the others that share the store: see [`Store::leave`](crate::store::Store).
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Corrupt`]: the others do not know then; the keys are wiped.
    pub async fn leave(&self) -> Result<(), Error> {
        let left = self.parts.store.leave().await;
        self.evict_all();
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shred_waits_since_it_was_first_seen_and_the_next_begins_anew() {
        let waiting = Waiting::default();
        let (acme, globex) = (TenantId::parse("acme").unwrap(), TenantId::parse("globex").unwrap());
        assert_eq!(waiting.since(&acme, ApprovalId([1; 16]), 5), 5);
        assert_eq!(waiting.since(&acme, ApprovalId([1; 16]), 9), 5);
        assert_eq!(waiting.since(&globex, ApprovalId([1; 16]), 9), 9);
        assert_eq!(waiting.since(&acme, ApprovalId([2; 16]), 11), 11);
        waiting.over(&acme);
        assert_eq!(waiting.since(&acme, ApprovalId([2; 16]), 12), 12);
    }
}
