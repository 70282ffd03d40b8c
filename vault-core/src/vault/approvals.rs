//! What takes two operators: shredding, and granting roles for a while. One asks, another one approves, and that carries
//! it out. `policies` has the third such thing.

use std::time::Duration;

use super::control::{About, Ask, ControlCall};
use super::{LifecycleSettings, Vault};
use crate::audit::{Recorded, SystemEvent};
use crate::error::Error;
use crate::failpoint::{Step, around};
use crate::id::{ApprovalId, Reason, Subject, TenantId};
use crate::keys::receipt::{self, ReceiptText};
use crate::keys::{Approval, ApprovalState, BUSY, Everywhere, NewApproval, Ordered, Seen, Shredded, Turn};
use crate::policy::{Approve, ControlAction, GetApproval, ListApprovals, Permit, Reject, ShredSubject, ShredTenant};

/// How long an approval waits for the other gateways: far longer than they take if they are there. One that is cut off
/// takes as long as its lease, and no operator's call waits for that.
const PATIENCE: Duration = Duration::from_secs(2);

impl Vault {
    /// Asks for the destruction of all data keys of a subject of a tenant. Nothing happens until another operator
    /// approves it.
    ///
    /// # Errors
    /// [`Error::Denied`]; [`Error::NotFound`] for an unknown tenant; [`Error::FailedPrecondition`] if tenant or subject is
    /// shredded already; [`Error::Invalid`] naming `reason` if the call has none; [`Error::Unavailable`].
    pub async fn shred_subject(
        &self,
        call: &ControlCall<'_>,
        tenant: &TenantId,
        subject: &Subject,
    ) -> Result<Approval, Error> {
        self.ask_for::<ShredSubject>(call, &Ordered::ShredSubject(tenant.clone(), subject.clone())).await
    }

    /// Asks for the destruction of all keys of a tenant. Nothing happens until another operator approves it.
    ///
    /// # Errors
    /// As [`Self::shred_subject`].
    pub async fn shred_tenant(&self, call: &ControlCall<'_>, tenant: &TenantId) -> Result<Approval, Error> {
        self.ask_for::<ShredTenant>(call, &Ordered::ShredTenant(tenant.clone())).await
    }

    pub(super) async fn ask_for<A: ControlAction>(
        &self,
        call: &ControlCall<'_>,
        ordered: &Ordered,
    ) -> Result<Approval, Error> {
        let reason = call.reason.ok_or_else(|| Error::invalid("reason", "is required"))?;
        let ask = Ask { tenant: ordered.tenant(), subject: ordered.subject(), ..Ask::default() };
        self.operate_about::<A, _>(call, ask, async |recorded| self.pend(recorded, ordered, reason).await).await
    }

    /// Writes down what waits for another operator.
    pub(super) async fn pend<A: ControlAction>(
        &self,
        recorded: &Recorded<Permit<A>>,
        ordered: &Ordered,
        reason: &Reason,
    ) -> Result<(Approval, About), Error> {
        let new = NewApproval {
            ordered,
            reason,
            requester: &recorded.permit().decision().principal,
            lifetime_millis: self.lifecycle.approval_millis,
        };
        let asked = self.keys.ask_approval(new).await?;
        let about = About { detail: "asked for", approval: Some((asked.id, asked.request_sha256)) };
        Ok((asked, about))
    }

    /// Lists up to `limit` approvals after one, oldest first, whatever became of them; without their receipts.
    ///
    /// # Errors
    /// [`Error::Denied`], [`Error::Unavailable`].
    pub async fn list_approvals(
        &self,
        call: &ControlCall<'_>,
        after: Option<ApprovalId>,
        limit: usize,
    ) -> Result<Vec<Approval>, Error> {
        let list = async |_: &Recorded<Permit<ListApprovals>>| {
            Ok((self.keys.approvals(after, limit).await?, About::executed()))
        };
        self.operate_about(call, Ask::default(), list).await
    }

    /// Reads an approval, with the erasure receipt once it is carried out.
    ///
    /// # Errors
    /// [`Error::Denied`]; [`Error::NotFound`] if the tenant has no such approval; [`Error::Unavailable`].
    pub async fn get_approval(
        &self,
        call: &ControlCall<'_>,
        tenant: &TenantId,
        id: ApprovalId,
    ) -> Result<Approval, Error> {
        let ask = Ask { tenant: Some(tenant), ..Ask::default() };
        let get = async |_: &Recorded<Permit<GetApproval>>| {
            Ok((self.keys.approval(Some(tenant), id).await?, About::executed()))
        };
        self.operate_about(call, ask, get).await
    }

    /// Rejects what is pending, for ever. The one who asked may, too.
    ///
    /// # Errors
    /// [`Error::Denied`]; [`Error::NotFound`]; [`Error::FailedPrecondition`] if it was decided or has expired;
    /// [`Error::Unavailable`].
    pub async fn reject(&self, call: &ControlCall<'_>, tenant: &TenantId, id: ApprovalId) -> Result<Approval, Error> {
        let ask = Ask { tenant: Some(tenant), ..Ask::default() };
        self.operate_about(call, ask, async |recorded: &Recorded<Permit<Reject>>| {
            let who = &recorded.permit().decision().principal;
            let (write, _, request) = self.keys.decide((Some(tenant), id), None, who, ApprovalState::Rejected).await?;
            self.keys.commit_decision(write).await?;
            let about = About { detail: "rejected", approval: Some((id, request)) };
            Ok((self.keys.approval(Some(tenant), id).await?, about))
        })
        .await
    }

    /// Approves what another operator asked for, if it is what `seen` says, and carries it out. The answer's state is
    /// [`ApprovalState::Executed`], with the receipt if keys were destroyed; or [`ApprovalState::Approved`] if the call's permit ran out first, or
    /// another gateway does not confirm within two seconds that it has wiped the keys: then [`Vault::tend`] goes on, and
    /// [`Self::get_approval`] gives the receipt later.
    ///
    /// # Errors
    /// [`Error::Denied`]; [`Error::NotFound`]; [`Error::Invalid`] naming `request_sha256` or `subject`;
    /// [`Error::FailedPrecondition`] if the caller asked for it, it was decided, has expired, or can no longer be
    /// done; [`Error::Unavailable`].
    pub async fn approve(
        &self,
        call: &ControlCall<'_>,
        (tenant, id): (&TenantId, ApprovalId),
        seen: Seen<'_>,
    ) -> Result<Approval, Error> {
        let ask = Ask { tenant: Some(tenant), subject: seen.subject, ..Ask::default() };
        self.operate_about(call, ask, async |recorded: &Recorded<Permit<Approve>>| {
            let who = &recorded.permit().decision().principal;
            let delay = self.lifecycle.destroy_after_millis.max(LifecycleSettings::SHORTEST_DESTRUCTION);
            let request = loop {
                if !self.has_time(recorded) {
                    return Err(BUSY);
                }
                let (write, ordered, request) =
                    self.keys.decide((Some(tenant), id), Some(seen), who, ApprovalState::Approved).await?;
                // In the log before it happens, and in whatever state this call ends.
                let approving = SystemEvent::Approving { approval: id, request };
                around(Step::ShredApproving, self.audit.system_of(tenant, approving)).await?;
                let begun = match &ordered {
                    Ordered::Grant(order) => self.keys.make_grant(order, (id, write)).await,
                    Ordered::ShredSubject(..) | Ordered::ShredTenant(_) | Ordered::ActivatePolicy(_) => {
                        self.keys.begin_shred(&ordered, (id, write), delay).await
                    }
                };
                match begun {
                    Ok(()) if ordered.grant().is_some() => {
                        let about = About { detail: "approved", approval: Some((id, request)) };
                        return Ok((self.keys.approval(Some(tenant), id).await?, about));
                    }
                    Ok(()) => break request,
                    // The one before first, then this one.
                    Err(error) if error == BUSY => {
                        let _: Turn<()> = self.shred_turn(tenant, PATIENCE).await?;
                    }
                    // Read again: the tenant may be another by now, or this approval decided.
                    Err(Error::Conflict(_)) => {}
                    Err(error) => return Err(error),
                }
            };
            while self.has_time(recorded) {
                match self.shred_turn(tenant, PATIENCE).await? {
                    Turn::More => {}
                    Turn::Ready(()) | Turn::Idle => break,
                }
            }
            let about = About { detail: "approved", approval: Some((id, request)) };
            Ok((self.keys.approval(Some(tenant), id).await?, about))
        })
        .await
    }

    /// One step of a shred; its end is in the audit log before its receipt is signed and written down. The last waits up
    /// to `patience` for other gateways, and is idle while there is one to wait for.
    pub(super) async fn shred_turn(&self, tenant: &TenantId, patience: Duration) -> Result<Turn<()>, Error> {
        Ok(match self.keys.shred_turn(tenant).await? {
            Turn::More => Turn::More,
            Turn::Idle => Turn::Idle,
            Turn::Ready(done) => {
                let Some(everywhere) = self.keys.evicted_everywhere(tenant, done.approval, patience).await? else {
                    return Ok(Turn::Idle);
                };
                let event =
                    SystemEvent::Shredded { approval: done.approval, data_keys: done.keys, version: done.under };
                let entry = around(Step::ShredEntry, self.audit.system_of(tenant, event)).await?;
                let receipt = self.audit.sign_note(&self.receipt(tenant, &done, everywhere, entry.index).text())?;
                self.keys.end_shred(tenant, &done, &receipt).await?;
                Turn::Ready(())
            }
        })
    }

    fn receipt(&self, tenant: &TenantId, done: &Shredded, everywhere: Everywhere, audit_entry: u64) -> ReceiptText {
        ReceiptText {
            approval: done.approval,
            tenant: tenant.clone(),
            subject: done.pseudonym.map(|pseudonym| receipt::hex(&pseudonym.0)),
            decided: receipt::time(done.decided),
            data_keys: done.keys,
            digest: receipt::hex(&done.digest),
            listed: done.listed.iter().map(receipt::listed).collect(),
            tenant_key_version: done.under.0,
            due: done.due.map(receipt::time),
            evicted: everywhere.evicted,
            lease_ended: everywhere.lease_ended,
            audit_entry,
            instance: self.keys.instance().to_owned(),
        }
    }
}
