//! Asking, voting, rejecting, cancelling; and what is due without anybody asking.
//!
//! Each of these reads a row and writes it again if it is still at the version that was read, so of two who decide at the
//! same time one starts over, and what is approved is carried out once.

use super::row::{ApprovalRow, VERSION, VoteRow};
use super::{Approval, ApprovalFilter, ApprovalState, Demand, NewApproval, Ordered, Seen, Voter};
use crate::error::Error;
use crate::failpoint::{Step, around};
use crate::id::{ApprovalId, Fingerprint, Subject, TenantId};
use crate::keys::access::fresh_id;
use crate::keys::keyring::Keyring;
use crate::keys::receipt::hex;
use crate::keys::rows;
use crate::store::{Expect, Scanned, Table, Write};
use crate::time::Timestamp;

/// Rows of one read.
const PAGE: usize = 256;
/// Reads of one filtered list: a list that finds little goes on where it ended.
const MOST_PAGES: usize = 32;
/// How far the clocks of gateways on one store may be apart, in milliseconds: approvals are named by the time, so an older
/// name may still come until then.
const APART: u64 = 3_600_000;

const DECIDED: Error = Error::FailedPrecondition("the approval has been decided");

/// What a vote comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// Others have to approve it, too.
    Wait,
    /// It is carried out at an instant, unless it is cancelled.
    Schedule(Timestamp),
    /// It is carried out now.
    Carry,
}

/// A vote that is ready to be written, with what it leads to.
#[derive(Debug)]
pub(crate) struct Voted {
    /// The row with the vote in it.
    pub write: Write,
    pub ordered: Ordered,
    pub request: Fingerprint,
    pub then: Then,
}

/// What is due for an approval without anybody asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Chore {
    /// Too few have approved it in time.
    Expire,
    /// Its delay is over.
    Carry,
}

/// One page of what is due.
#[derive(Debug, Default)]
pub(crate) struct Chores {
    pub due: Vec<(Option<TenantId>, ApprovalId, Chore)>,
    /// Up to here nothing is open, and nothing will be.
    pub settled: Option<ApprovalId>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<ApprovalId>,
}

impl Keyring {
    /// Writes down what is to be approved.
    pub(crate) async fn ask_approval(&self, new: NewApproval<'_>) -> Result<Approval, Error> {
        match new.ordered {
            Ordered::Grant(order) => self.can_be_granted(order).await?,
            Ordered::ShredSubject(tenant, subject) => self.can_be_shredded(tenant, Some(subject)).await?,
            Ordered::ShredTenant(tenant) => self.can_be_shredded(tenant, None).await?,
            Ordered::ResumeTenant(tenant, revision) => self.can_be_resumed(tenant, *revision).await?,
            Ordered::ChangeCustody(tenant, custody, revision) => {
                self.can_change_custody(tenant, custody, *revision).await?;
            }
            Ordered::ActivatePolicy(_) | Ordered::ChangeCharter { .. } => {}
        }
        let now = self.parts.clock.now();
        let id = ApprovalId(fresh_id(now)?);
        let pseudonym = match (new.ordered.tenant(), new.ordered.subject()) {
            (Some(tenant), Some(subject)) => Some(hex(&self.pseudonym(tenant, subject).await?.0)),
            _ => None,
        };
        let row = ApprovalRow {
            v: VERSION,
            tenant: String::new(),
            bundle: None,
            grant: None,
            subject: None,
            pseudonym,
            change: None,
            reason: new.reason.as_str().to_owned(),
            requester: new.requester.principal.to_owned(),
            person: new.requester.person.to_owned(),
            requested: now.0,
            expires: now.0.saturating_add(new.lifetime_millis),
            required: Some(new.demand.required.max(1)),
            delay: Some(new.demand.delay_millis).filter(|delay| *delay > 0),
            summary: self.summary(&new).await?,
            request_sha256: Fingerprint([0; 32]),
            votes: Vec::new(),
            state: ApprovalState::Pending,
            scheduled: None,
            decided_by: None,
            decided: None,
        };
        let mut row = row.with(new.ordered);
        row.request_sha256 = row.fingerprint(id)?;
        let write = rows::write(Table::Approvals, id.0.to_vec(), Expect::Absent, &row)?;
        around(Step::ShredAsk, self.parts.store.commit(vec![write])).await?;
        row.view(id, now, None)
    }

    /// An approval of a tenant, or of what is about none; with its receipt once there is one.
    pub(crate) async fn approval(&self, tenant: Option<&TenantId>, id: ApprovalId) -> Result<Approval, Error> {
        let (row, _) = self.approval_row(tenant, id).await?;
        let receipt = self.parts.store.get(Table::Receipts, &id.0).await?;
        let receipt = receipt.map(|row| String::from_utf8(row.value)).transpose();
        let receipt = receipt.map_err(|_| Error::corrupt("store", "table receipts: a row is not text"))?;
        row.view(id, self.parts.clock.now(), receipt)
    }

    async fn approval_row(&self, tenant: Option<&TenantId>, id: ApprovalId) -> Result<(ApprovalRow, u64), Error> {
        match self.row::<ApprovalRow>(Table::Approvals, &id.0).await? {
            Some((row, stored)) if row.tenant == tenant.map_or("", TenantId::as_str) => Ok((row, stored.version)),
            _ => Err(Error::NotFound("approval")),
        }
    }

    async fn approvals_page(&self, after: Option<ApprovalId>, limit: usize) -> Result<Vec<Scanned>, Error> {
        let after = after.map(|id| id.0);
        self.parts.store.scan(Table::Approvals, b"", after.as_ref().map(|id| &id[..]), limit).await
    }

    /// Up to `limit` approvals after one, oldest first, without their receipts: those that a filter takes. And after which
    /// one to go on; `None` at the end of all. A list may hold less than `limit` and not be the last.
    pub(crate) async fn approvals(
        &self,
        filter: ApprovalFilter<'_>,
        after: Option<ApprovalId>,
        limit: usize,
    ) -> Result<(Vec<Approval>, Option<ApprovalId>), Error> {
        let now = self.parts.clock.now();
        let (mut found, mut place) = (Vec::new(), after);
        for _ in 0..MOST_PAGES {
            let page = self.approvals_page(place, PAGE).await?;
            for scanned in &page {
                if found.len() == limit {
                    return Ok((found, place));
                }
                let id = id_of(scanned)?;
                let approval = rows::decode::<ApprovalRow>(Table::Approvals, &scanned.row)?.view(id, now, None)?;
                if filter.takes(&approval) {
                    found.push(approval);
                }
                place = Some(id);
            }
            if page.len() < PAGE {
                return Ok((found, None));
            }
        }
        Ok((found, place))
    }

    /// A row that can still be decided, as it was read.
    async fn undecided(
        &self,
        tenant: Option<&TenantId>,
        id: ApprovalId,
    ) -> Result<(ApprovalRow, u64, Timestamp), Error> {
        let (row, version) = self.approval_row(tenant, id).await?;
        row.is_whole(id)?;
        Ok((row, version, self.parts.clock.now()))
    }

    /// The write that counts a vote for a pending approval, and what it leads to. Nobody approves what they asked for, or
    /// twice, what has expired, or anything but what they saw. The settings of now can only raise what was demanded when it
    /// was asked for.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Invalid`] naming `request_sha256` or `subject`; [`Error::FailedPrecondition`];
    /// [`Error::Unavailable`], [`Error::Corrupt`].
    pub(crate) async fn vote(
        &self,
        (tenant, id): (Option<&TenantId>, ApprovalId),
        seen: Seen<'_>,
        voter: Voter<'_>,
        demand: impl Fn(&Ordered) -> Demand,
    ) -> Result<Voted, Error> {
        let (mut row, version, now) = self.undecided(tenant, id).await?;
        match row.state_at(now) {
            ApprovalState::Pending => {}
            ApprovalState::Expired => {
                return Err(Error::FailedPrecondition("the approval has expired; ask again"));
            }
            _ => return Err(DECIDED),
        }
        if row.v != VERSION {
            let why = "the approval was asked for under an earlier version of the vault; reject it, and ask again";
            return Err(Error::FailedPrecondition(why));
        }
        if voter.is(&row.person, &row.requester) {
            return Err(Error::FailedPrecondition("nobody approves what they asked for; another operator must"));
        }
        if row.votes.iter().any(|vote| voter.is(&vote.person, &vote.principal)) {
            return Err(Error::FailedPrecondition(
                "the same person has approved it already; another operator must, too",
            ));
        }
        if seen.request_sha256 != row.request_sha256 {
            return Err(Error::invalid("request_sha256", "is not the hash of what is to be approved; read it again"));
        }
        if seen.subject.map(Subject::as_str) != row.subject.as_deref() {
            return Err(Error::invalid("subject", "is not whom it is about"));
        }
        let ordered = row.ordered()?;
        let demand = demand(&ordered);
        row.votes.push(VoteRow {
            person: voter.person.to_owned(),
            principal: voter.principal.to_owned(),
            at: now.0,
            request_sha256: seen.request_sha256,
        });
        let delay = row.delay.unwrap_or(0).max(demand.delay_millis);
        let enough = row.votes.len() >= usize::from(row.required().max(demand.required));
        let then = match (enough, ordered.destroys() && delay > 0) {
            (false, _) => Then::Wait,
            (true, true) => Then::Schedule(now.plus_millis(delay)),
            (true, false) => Then::Carry,
        };
        if then != Then::Wait {
            row.decided_by = Some(voter.principal.to_owned());
            row.decided = Some(now.0);
        }
        match then {
            Then::Wait => {}
            Then::Schedule(at) => {
                row.state = ApprovalState::Scheduled;
                row.scheduled = Some(at.0);
            }
            Then::Carry => row.state = carried(&ordered),
        }
        let write = rows::write(Table::Approvals, id.0.to_vec(), Expect::Version(version), &row)?;
        Ok(Voted { write, ordered, request: row.request_sha256, then })
    }

    /// The write that ends an approval without its being carried out: rejected while it is pending, or cancelled also while
    /// it waits for its time. The one who asked may, too. `who` is empty for the vault itself.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::FailedPrecondition`] if it was decided or has expired; [`Error::Unavailable`],
    /// [`Error::Corrupt`].
    pub(crate) async fn close_approval(
        &self,
        (tenant, id): (Option<&TenantId>, ApprovalId),
        who: &str,
        to: ApprovalState,
    ) -> Result<(Write, Fingerprint), Error> {
        let (mut row, version, now) = self.undecided(tenant, id).await?;
        let open = match (row.state_at(now), to) {
            (ApprovalState::Pending, _) => true,
            (ApprovalState::Scheduled, ApprovalState::Cancelled) => true,
            (ApprovalState::Expired, ApprovalState::Expired) => row.state == ApprovalState::Pending,
            (ApprovalState::Expired, _) => {
                return Err(Error::FailedPrecondition("the approval has expired; ask again"));
            }
            _ => false,
        };
        if !open {
            return Err(DECIDED);
        }
        row.state = to;
        if to != ApprovalState::Expired {
            row.decided_by = Some(who.to_owned()).filter(|who| !who.is_empty());
            row.decided = Some(now.0);
        }
        let write = rows::write(Table::Approvals, id.0.to_vec(), Expect::Version(version), &row)?;
        Ok((write, row.request_sha256))
    }

    /// Writes down a decision that has nothing else to be written with it.
    ///
    /// # Errors
    /// [`Error::Conflict`] if another came between; [`Error::Unavailable`].
    pub(crate) async fn commit_decision(&self, write: Write, step: Step) -> Result<(), Error> {
        around(step, self.parts.store.commit(vec![write])).await
    }

    /// One page of approvals after one: what is due of them.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Corrupt`].
    pub(crate) async fn approval_chores(&self, after: Option<ApprovalId>) -> Result<Chores, Error> {
        let now = self.parts.clock.now();
        let page = self.approvals_page(after, PAGE).await?;
        let mut chores = Chores::default();
        let mut all_closed = true;
        for scanned in &page {
            let id = id_of(scanned)?;
            let row: ApprovalRow = rows::decode(Table::Approvals, &scanned.row)?;
            let chore = match row.state {
                ApprovalState::Pending if now.0 >= row.expires => Some(Chore::Expire),
                ApprovalState::Scheduled if row.scheduled.is_none_or(|at| now.0 >= at) => Some(Chore::Carry),
                _ => None,
            };
            if let Some(chore) = chore {
                let tenant = Some(row.tenant.as_str()).filter(|tenant| !tenant.is_empty());
                let tenant = tenant.map(TenantId::parse).transpose();
                chores.due.push((tenant.map_err(|_| damaged())?, id, chore));
            }
            let open = matches!(row.state, ApprovalState::Pending | ApprovalState::Scheduled);
            all_closed = all_closed && !open && row.requested.saturating_add(APART) < now.0;
            if all_closed {
                chores.settled = Some(id);
            }
            chores.next = Some(id);
        }
        chores.next = chores.next.filter(|_| page.len() == PAGE);
        Ok(chores)
    }

    /// The write that takes a scheduled approval on, once its time has come; `None` if it has not, or it was cancelled, or
    /// another gateway was faster. All that its votes were for is looked at once more.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Unavailable`], [`Error::Corrupt`].
    pub(crate) async fn ripe(
        &self,
        tenant: Option<&TenantId>,
        id: ApprovalId,
    ) -> Result<Option<(Write, Ordered, Fingerprint)>, Error> {
        let (mut row, version, now) = self.undecided(tenant, id).await?;
        if row.state != ApprovalState::Scheduled || row.scheduled.is_some_and(|at| now.0 < at) {
            return Ok(None);
        }
        if !row.is_backed() {
            return Err(Error::corrupt("store", "table approvals: a row is scheduled without the votes for it"));
        }
        let ordered = row.ordered()?;
        row.state = carried(&ordered);
        let write = rows::write(Table::Approvals, id.0.to_vec(), Expect::Version(version), &row)?;
        Ok(Some((write, ordered, row.request_sha256)))
    }

    /// The writes that close an approved one with its receipt.
    pub(in crate::keys) async fn executed(
        &self,
        tenant: &TenantId,
        id: ApprovalId,
        receipt: &str,
    ) -> Result<Option<[Write; 2]>, Error> {
        let (mut row, version) = self.approval_row(Some(tenant), id).await?;
        if row.state != ApprovalState::Approved {
            return Ok(None);
        }
        row.state = ApprovalState::Executed;
        let value = receipt.as_bytes().to_vec();
        Ok(Some([
            rows::write(Table::Approvals, id.0.to_vec(), Expect::Version(version), &row)?,
            Write { table: Table::Receipts, key: id.0.to_vec(), expect: Expect::Absent, value, revokes: false },
        ]))
    }
}

impl ApprovalRow {
    /// Whether enough different people, none of them the one who asked, have approved just this.
    fn is_backed(&self) -> bool {
        let other = |at: usize, vote: &VoteRow| {
            let voter = Voter { person: &vote.person, principal: &vote.principal };
            let twice = self.votes.iter().take(at).any(|before| voter.is(&before.person, &before.principal));
            !twice && !voter.is(&self.person, &self.requester) && vote.request_sha256 == self.request_sha256
        };
        let counted = self.votes.iter().enumerate().filter(|(at, vote)| other(*at, vote)).count();
        counted >= usize::from(self.required())
    }
}

/// What an approval is in when the commit that carries it out is done: only shreds have more steps to come.
const fn carried(ordered: &Ordered) -> ApprovalState {
    if ordered.destroys() { ApprovalState::Approved } else { ApprovalState::Executed }
}

fn damaged() -> Error {
    Error::corrupt("store", "table approvals: a row's key is not as it was written")
}

fn id_of(scanned: &Scanned) -> Result<ApprovalId, Error> {
    scanned.key.as_slice().try_into().map(ApprovalId).map_err(|_| damaged())
}
