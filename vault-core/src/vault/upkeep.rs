//! Work in steps: what a call begins and what it, the next call or [`Vault::tend`] finishes.

use super::Vault;
use crate::audit::SystemEvent;
use crate::error::Error;
use crate::id::TenantId;
use crate::keys::Turn;

/// Tenants looked at in one go.
const PAGE: usize = 256;

/// What [`Vault::tend`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tended {
    /// Steps carried out.
    pub steps: u64,
    /// Rotations, shreds and scheduled destructions finished.
    pub finished: u64,
    /// Tenants whose work could not go on: their error is the last one of these. They are tried again next time.
    pub failed: u64,
}

impl Vault {
    /// Carries on what is under way or due for any tenant, until nothing is left or `keep_going` says no, which is asked
    /// before each step. Call it when the vault has been opened, and from time to time; more than one may at the same
    /// time.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Corrupt`] if the tenants with work cannot be read.
    pub async fn tend(&self, keep_going: impl Fn() -> bool) -> Result<Tended, Error> {
        let mut tended = Tended::default();
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

    async fn tend_tenant(
        &self,
        tenant: &TenantId,
        keep_going: &impl Fn() -> bool,
        tended: &mut Tended,
    ) -> Result<(), Error> {
        while keep_going() {
            let mut turn = self.shred_turn(tenant).await?;
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
                self.audit.system_of(tenant, SystemEvent::TenantKeyDestroyed { version: ripe.version }).await?;
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
                self.audit.system_of(tenant, event).await?;
                self.keys.end_rotation(tenant, &rotation).await?;
                Turn::Ready(())
            }
        })
    }
}
