//! Work in steps: what a call begins and what it, the next call or [`Vault::tend`] finishes.

use std::sync::PoisonError;
use std::time::Duration;

use super::{LifecycleSettings, Vault};
use crate::audit::{Recorded, SystemEvent};
use crate::error::Error;
use crate::failpoint::{Step, around};
use crate::id::TenantId;
use crate::keys::{Due, Turn};
use crate::policy::{Action, Permit};

/// Tenants looked at in one go.
const PAGE: usize = 256;

/// Where the search for keys that are due goes on.
#[derive(Debug, Default)]
pub(super) struct DuePlaces {
    data_keys: Option<Vec<u8>>,
    tenant_keys: Option<Vec<u8>>,
}

/// What [`Vault::tend`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tended {
    /// Steps carried out.
    pub steps: u64,
    /// Rotations, shreds and scheduled destructions finished.
    pub finished: u64,
    /// Keys whose rotation began because they were due.
    pub due: u64,
    /// Tenants whose work could not go on: their error is the last one of these. They are tried again next time.
    pub failed: u64,
}

/// Before a permit runs out: when a call in steps answers how far it is, rather than be cut off by its own deadline.
const MARGIN_MILLIS: u64 = 5000;

impl Vault {
    /// Whether a call in steps may begin another one.
    pub(super) fn has_time<A: Action>(&self, recorded: &Recorded<Permit<A>>) -> bool {
        self.clock.now().0.saturating_add(MARGIN_MILLIS) < recorded.permit().valid_until().0
    }

    /// Looks whether some of the keys are due for rotation, and whether approvals have expired or their delay is over,
    /// another part each time; then carries on what is under way for any tenant, until nothing is left or `keep_going` says no, which is asked before each step. Call it when the vault
    /// has been opened, and from time to time; more than one may at the same time. Of several gateways on one store, one
    /// does it, and the others nothing, until that one has not asked for some seconds.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Corrupt`] if the tenants with work cannot be read, or who tends them.
    pub async fn tend(&self, keep_going: impl Fn() -> bool) -> Result<Tended, Error> {
        if !self.keys.tends().await? {
            return Ok(Tended::default());
        }
        let mut tended = Tended { due: self.rotate_due().await?, ..Tended::default() };
        // A row that cannot be read keeps nothing else from going on.
        if self.tend_approvals(&mut tended).await.is_err() {
            tended.failed += 1;
        }
        let mut after: Option<TenantId> = None;
        loop {
            let (open, next) = self.keys.tenants_with_work(after.as_ref(), PAGE).await?;
            for tenant in &open {
                if !keep_going() {
                    return Ok(tended);
                }
                if self.tend_tenant(tenant, &keep_going, &mut tended).await.is_err() {
                    tended.failed += 1;
                }
            }
            match next {
                Some(next) => after = Some(next),
                None => return Ok(tended),
            }
        }
    }

    /// One page of data keys and one of tenants.
    async fn rotate_due(&self) -> Result<u64, Error> {
        let settings = self.lifecycle;
        let due = Due {
            data_key_age: settings.data_key_age_millis,
            data_key_uses: settings.data_key_uses.min(LifecycleSettings::MOST_USES),
        };
        let place = std::mem::take(&mut *self.due.lock().unwrap_or_else(PoisonError::into_inner));
        let (data_keys, next_data_key) = self.keys.rotate_due_data_keys(due, place.data_keys.as_deref()).await?;
        for (tenant, key) in &data_keys {
            self.audit.system_of(tenant, SystemEvent::DataKeyDue { key: *key }).await?;
        }
        let (tenants, next_tenant) = match settings.tenant_key_age_millis {
            Some(age) => self.keys.rotate_due_tenant_keys(age, place.tenant_keys.as_deref()).await?,
            None => (Vec::new(), None),
        };
        for tenant in &tenants {
            self.audit.system_of(tenant, SystemEvent::TenantKeyDue).await?;
        }
        let place = DuePlaces { data_keys: next_data_key, tenant_keys: next_tenant };
        *self.due.lock().unwrap_or_else(PoisonError::into_inner) = place;
        Ok((data_keys.len() + tenants.len()) as u64)
    }

    async fn tend_tenant(
        &self,
        tenant: &TenantId,
        keep_going: &impl Fn() -> bool,
        tended: &mut Tended,
    ) -> Result<(), Error> {
        while keep_going() && self.keys.tends().await? {
            let mut turn = self.shred_turn(tenant, Duration::ZERO).await?;
            if turn == Turn::Idle {
                turn = self.rotation_turn(tenant).await?;
            }
            if turn == Turn::Idle {
                turn = self.destruction_turn(tenant).await?;
            }
            match turn {
                Turn::More => tended.steps += 1,
                Turn::Ready(()) => tended.finished += 1,
                Turn::Idle => break,
            }
        }
        Ok(())
    }

    /// One step towards the destruction of tenant key versions; it is in the audit log before it is done.
    async fn destruction_turn(&self, tenant: &TenantId) -> Result<Turn<()>, Error> {
        Ok(match self.keys.destruction_turn(tenant).await? {
            Turn::More => Turn::More,
            Turn::Idle => Turn::Idle,
            Turn::Ready(ripe) => {
                let event = SystemEvent::TenantKeyDestroyed { version: ripe.version };
                around(Step::DestroyEntry, self.audit.system_of(tenant, event)).await?;
                self.keys.end_destruction(tenant, &ripe).await?;
                Turn::Ready(())
            }
        })
    }

    /// One step of a rotation; its end is in the audit log before it is written down.
    pub(super) async fn rotation_turn(&self, tenant: &TenantId) -> Result<Turn<()>, Error> {
        Ok(match self.keys.rotation_turn(tenant).await? {
            Turn::More => Turn::More,
            Turn::Idle => Turn::Idle,
            Turn::Ready(rotation) => {
                let event = SystemEvent::TenantKeyRotated { version: rotation.to, data_keys: rotation.data_keys };
                around(Step::RotateEntry, self.audit.system_of(tenant, event)).await?;
                self.keys.end_rotation(tenant, &rotation).await?;
                Turn::Ready(())
            }
        })
    }
}
