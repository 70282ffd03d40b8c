//! What takes more than one: shredding, granting roles for a while, lifting a suspension, another custody. One asks, others
//! approve, and the last of them carries it out (docs/approvals.md). `policies` has one more such thing, `shredding` the
//! steps of a shred, `chores` what is due without anybody asking.

use std::time::Duration;

use super::control::{About, Ask, ControlCall};
use super::{LifecycleSettings, Vault};
use crate::audit::{Recorded, SystemEvent};
use crate::error::Error;
use crate::failpoint::{Step, around};
use crate::id::{ApprovalId, Reason, Subject, TenantId};
use crate::keys::{
    Approval, ApprovalFilter, ApprovalState, BUSY, Lines, NewApproval, Ordered, Seen, Then, Turn, Voted, Voter,
};
use crate::policy::{
    Approve, CancelApproval, ControlAction, GetApproval, ListApprovals, Permit, Reject, ShredSubject, ShredTenant,
};
use crate::store::Write;

/// How long an approval waits for the other gateways: far longer than they take if they are there. One that is cut off
/// takes as long as its lease, and no operator's call waits for that.
const PATIENCE: Duration = Duration::from_secs(2);

/// Which approvals to find.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wanted {
    /// Only those in this state.
    pub state: Option<ApprovalState>,
    /// Only those that wait for the caller: pending, asked for by somebody else, and not yet approved by the caller.
    pub for_me: bool,
}

/// How an operator ends an approval without its being carried out.
struct Closing {
    to: ApprovalState,
    /// Of the entry before.
    event: &'static str,
    /// Of the entry after.
    detail: &'static str,
}

impl Closing {
    const REJECT: Self = Self { to: ApprovalState::Rejected, event: "approval_rejecting", detail: "rejected" };
    const CANCEL: Self = Self { to: ApprovalState::Cancelled, event: "approval_cancelling", detail: "cancelled" };
}

impl Vault {
    /// Asks for the destruction of all data keys of a subject of a tenant. Nothing happens until others approve it.
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

    /// Asks for the destruction of all keys of a tenant. Nothing happens until others approve it.
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
        self.operate_about::<A, _>(call, ask, async |recorded| {
            self.pend(recorded, ordered, Lines::default(), reason).await
        })
        .await
    }

    /// Writes down what waits for others; `lines` say what it changes, as far as the rows of its tenant do not.
    pub(super) async fn pend<A: ControlAction>(
        &self,
        recorded: &Recorded<Permit<A>>,
        ordered: &Ordered,
        lines: Lines,
        reason: &Reason,
    ) -> Result<(Approval, About), Error> {
        let new = NewApproval {
            ordered,
            lines,
            reason,
            requester: Voter::of(recorded.permit().decision()),
            lifetime_millis: self.lifecycle.approval_millis,
            demand: self.approvals.demand(ordered),
            destroy_after_millis: self.destroy_after(),
        };
        let asked = self.keys.ask_approval(new).await?;
        let about = About { detail: "asked for", approval: Some((asked.id, asked.request_sha256)) };
        Ok((asked, about))
    }

    /// How long after a shred the tenant key versions above are destroyed, in milliseconds.
    const fn destroy_after(&self) -> u64 {
        let (set, least) = (self.lifecycle.destroy_after_millis, LifecycleSettings::SHORTEST_DESTRUCTION);
        if set > least { set } else { least }
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
        self.find_approvals(call, Wanted::default(), after, limit).await.map(|(found, _)| found)
    }

    /// The same, only those that are wanted; and after which one to go on, `None` at the end of all. It may find less than
    /// `limit` and not be at the end.
    ///
    /// # Errors
    /// [`Error::Denied`], [`Error::Unavailable`].
    pub async fn find_approvals(
        &self,
        call: &ControlCall<'_>,
        wanted: Wanted,
        after: Option<ApprovalId>,
        limit: usize,
    ) -> Result<(Vec<Approval>, Option<ApprovalId>), Error> {
        self.operate_about(call, Ask::default(), async |recorded: &Recorded<Permit<ListApprovals>>| {
            let waits_for = wanted.for_me.then(|| Voter::of(recorded.permit().decision()));
            let filter = ApprovalFilter { state: wanted.state, waits_for };
            Ok((self.keys.approvals(filter, after, limit).await?, About::executed()))
        })
        .await
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
        self.end_as_told::<Reject>(call, (Some(tenant), id), Closing::REJECT).await
    }

    /// The same for what is about no tenant.
    pub(super) async fn reject_of_instance(&self, call: &ControlCall<'_>, id: ApprovalId) -> Result<Approval, Error> {
        self.end_as_told::<Reject>(call, (None, id), Closing::REJECT).await
    }

    /// Takes back, for ever, what is pending, or what is approved and waits for its time. Any operator may who is allowed
    /// to, the one who asked and those who approved among them. The keys are as usable as ever.
    ///
    /// # Errors
    /// As [`Self::reject`].
    pub async fn cancel_approval(
        &self,
        call: &ControlCall<'_>,
        tenant: Option<&TenantId>,
        id: ApprovalId,
    ) -> Result<Approval, Error> {
        self.end_as_told::<CancelApproval>(call, (tenant, id), Closing::CANCEL).await
    }

    async fn end_as_told<A: ControlAction>(
        &self,
        call: &ControlCall<'_>,
        (tenant, id): (Option<&TenantId>, ApprovalId),
        Closing { to, event, detail }: Closing,
    ) -> Result<Approval, Error> {
        let ask = Ask { tenant, ..Ask::default() };
        self.operate_about(call, ask, async |recorded: &Recorded<Permit<A>>| {
            let who = &recorded.permit().decision().principal;
            loop {
                if !self.has_time(recorded) {
                    return Err(Error::Conflict("approval"));
                }
                let (write, request) = self.keys.close_approval((tenant, id), who, to).await?;
                // In the log before it happens, and in whatever state this call ends.
                self.log_of(tenant, SystemEvent::ApprovalClosing { approval: id, request, event }).await?;
                match self.keys.commit_decision(write, Step::ApprovalClose).await {
                    // Somebody voted, or decided: read again.
                    Err(Error::Conflict(_)) => {}
                    done => {
                        done?;
                        let about = About { detail, approval: Some((id, request)) };
                        return Ok((self.keys.approval(tenant, id).await?, about));
                    }
                }
            }
        })
        .await
    }

    /// Records an event among a tenant's entries, or among those of none.
    pub(super) async fn log_of(&self, tenant: Option<&TenantId>, event: SystemEvent) -> Result<(), Error> {
        match tenant {
            Some(tenant) => self.audit.system_of(tenant, event).await.map(drop),
            None => self.audit.system(event).await.map(drop),
        }
    }

    /// Approves what another person asked for, if it is what `seen` says, and carries it out if that was the last vote that
    /// was needed. The answer's state is [`ApprovalState::Pending`] if others have to approve it, too;
    /// [`ApprovalState::Scheduled`] if it waits for its time; [`ApprovalState::Executed`], with the receipt if keys were
    /// destroyed; or [`ApprovalState::Approved`] if the call's permit ran out first, or another gateway does not confirm
    /// within two seconds that it has wiped the keys: then [`Vault::tend`] goes on, and [`Self::get_approval`] gives the
    /// receipt later.
    ///
    /// # Errors
    /// [`Error::Denied`]; [`Error::NotFound`]; [`Error::Invalid`] naming `request_sha256` or `subject`;
    /// [`Error::FailedPrecondition`] if the caller asked for it or has approved it before, it was decided, has expired, or
    /// can no longer be done; [`Error::RootKey`] naming a root key that is needed; [`Error::Unavailable`].
    pub async fn approve(
        &self,
        call: &ControlCall<'_>,
        (tenant, id): (&TenantId, ApprovalId),
        seen: Seen<'_>,
    ) -> Result<Approval, Error> {
        let ask = Ask { tenant: Some(tenant), subject: seen.subject, ..Ask::default() };
        self.operate_about(call, ask, async |recorded: &Recorded<Permit<Approve>>| {
            let voter = Voter::of(recorded.permit().decision());
            let (request, ordered, then) = loop {
                if !self.has_time(recorded) {
                    return Err(BUSY);
                }
                let demand = |ordered: &Ordered| self.approvals.demand(ordered);
                let voted = self.keys.vote((Some(tenant), id), seen, voter, demand).await?;
                let (request, ordered, then) = (voted.request, voted.ordered.clone(), voted.then);
                match self.count((tenant, id), voted).await {
                    Ok(()) => break (request, ordered, then),
                    // The one before first, then this one.
                    Err(error) if error == BUSY => {
                        let _: Turn<()> = self.shred_turn(tenant, PATIENCE).await?;
                    }
                    // Read again: the tenant may be another by now, or this approval voted for or decided.
                    Err(Error::Conflict(_)) => {}
                    Err(error) => return Err(error),
                }
            };
            while then == Then::Carry && self.has_time(recorded) {
                let turn = match &ordered {
                    Ordered::ShredSubject(..) | Ordered::ShredTenant(_) => self.shred_turn(tenant, PATIENCE).await?,
                    Ordered::ChangeCustody(..) => self.rotation_turn(tenant).await?,
                    Ordered::Grant(_) | Ordered::ResumeTenant(..) => Turn::Idle,
                    Ordered::ActivatePolicy(_) | Ordered::ChangeCharter { .. } => Turn::Idle,
                };
                match turn {
                    Turn::More => {}
                    Turn::Ready(()) | Turn::Idle => break,
                }
            }
            let about = About { detail: said(then), approval: Some((id, request)) };
            Ok((self.keys.approval(Some(tenant), id).await?, about))
        })
        .await
    }

    /// Counts a vote, and carries out what was the last one's; in the log before it happens, and in whatever state the call
    /// ends.
    async fn count(&self, (tenant, id): (&TenantId, ApprovalId), voted: Voted) -> Result<(), Error> {
        let Voted { write, ordered, request, then } = voted;
        match then {
            Then::Wait => {
                self.audit.system_of(tenant, SystemEvent::Voting { approval: id, request }).await?;
                self.keys.commit_decision(write, Step::ApprovalVote).await
            }
            Then::Schedule(at) => {
                self.audit.system_of(tenant, SystemEvent::Scheduling { approval: id, request, at: at.0 }).await?;
                self.keys.commit_decision(write, Step::ApprovalSchedule).await
            }
            Then::Carry => {
                let approving = SystemEvent::Approving { approval: id, request };
                around(Step::ShredApproving, self.audit.system_of(tenant, approving)).await?;
                self.carry_out(&ordered, (id, write)).await
            }
        }
    }

    /// Begins what was approved, exactly as it was asked for, with the write that says so of its approval.
    pub(super) async fn carry_out(&self, ordered: &Ordered, (id, approved): (ApprovalId, Write)) -> Result<(), Error> {
        match ordered {
            Ordered::Grant(order) => self.keys.make_grant(order, (id, approved)).await,
            Ordered::ShredSubject(..) | Ordered::ShredTenant(_) => {
                self.keys.begin_shred(ordered, (id, approved), self.destroy_after()).await
            }
            Ordered::ResumeTenant(tenant, revision) => self.keys.resume_as_approved(tenant, *revision, approved).await,
            Ordered::ChangeCustody(tenant, custody, revision) => {
                self.keys.change_custody_as_approved((tenant, custody, *revision), approved).await
            }
            // They are about no tenant: `approve_activation`.
            Ordered::ActivatePolicy(_) | Ordered::ChangeCharter { .. } => Err(Error::NotFound("approval")),
        }
    }
}

/// What the entry at a vote's end says.
pub(super) const fn said(then: Then) -> &'static str {
    match then {
        Then::Wait => "voted for",
        Then::Schedule(_) => "scheduled",
        Then::Carry => "approved",
    }
}
