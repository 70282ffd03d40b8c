//! What is due for approvals without anybody asking: too few votes in time, and delays that are over.

use std::sync::PoisonError;

use super::{Tended, Vault};
use crate::audit::SystemEvent;
use crate::error::Error;
use crate::failpoint::{Step, around};
use crate::id::{ApprovalId, TenantId};
use crate::keys::{ApprovalState, BUSY, Chore};

/// How often one that is due is read again when another writer came between.
const RETRIES: usize = 16;

/// Where the search for approvals that are due goes on.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ApprovalPlaces {
    /// Up to here nothing is open.
    settled: Option<ApprovalId>,
    /// Where the next page begins.
    next: Option<ApprovalId>,
}

impl Vault {
    /// Looks at one page of approvals, another one each time.
    pub(super) async fn tend_approvals(&self, tended: &mut Tended) -> Result<(), Error> {
        let places = || self.approvals_seen.lock().unwrap_or_else(PoisonError::into_inner);
        let place = *places();
        let chores = self.keys.approval_chores(place.next.or(place.settled)).await?;
        // A page in the middle says nothing about those before it.
        let settled = if place.next.is_none() { chores.settled.or(place.settled) } else { place.settled };
        *places() = ApprovalPlaces { settled, next: chores.next };
        for (tenant, id, chore) in &chores.due {
            let done = match chore {
                Chore::Expire => self.expire(tenant.as_ref(), *id).await,
                Chore::Carry => self.carry_out_due(tenant.as_ref(), *id).await,
            };
            match done {
                Ok(()) => tended.steps += 1,
                Err(_) => tended.failed += 1,
            }
        }
        Ok(())
    }

    /// Notes that too few approved something in time.
    async fn expire(&self, tenant: Option<&TenantId>, id: ApprovalId) -> Result<(), Error> {
        self.end(tenant, id, ApprovalState::Expired, "approval_expired").await
    }

    /// Ends what another did not end first.
    async fn end(
        &self,
        tenant: Option<&TenantId>,
        id: ApprovalId,
        to: ApprovalState,
        event: &'static str,
    ) -> Result<(), Error> {
        let (write, request) = match self.keys.close_approval((tenant, id), "", to).await {
            // Decided meanwhile.
            Err(Error::FailedPrecondition(_)) => return Ok(()),
            found => found?,
        };
        self.log_of(tenant, SystemEvent::ApprovalClosing { approval: id, request, event }).await?;
        match self.keys.commit_decision(write, Step::ApprovalClose).await {
            Err(Error::Conflict(_)) => Ok(()),
            done => done,
        }
    }

    /// Begins what was approved and has waited for its time; [`Vault::tend`] goes on with it like with any shred. What can
    /// no longer be done, because the keys are gone already, is cancelled.
    async fn carry_out_due(&self, tenant: Option<&TenantId>, id: ApprovalId) -> Result<(), Error> {
        for _ in 0..RETRIES {
            let Some((write, ordered, request)) = self.keys.ripe(tenant, id).await? else { return Ok(()) };
            let approving = SystemEvent::Approving { approval: id, request };
            around(Step::ShredApproving, self.log_of(tenant, approving)).await?;
            match self.carry_out(&ordered, (id, write)).await {
                Ok(()) => return Ok(()),
                Err(Error::Conflict(_)) => {}
                // It is the turn of the one before.
                Err(error) if error == BUSY => return Ok(()),
                Err(Error::FailedPrecondition(_)) => {
                    return self.end(tenant, id, ApprovalState::Cancelled, "approval_cancelling").await;
                }
                Err(error) => return Err(error),
            }
        }
        Err(Error::Conflict("approval"))
    }
}
