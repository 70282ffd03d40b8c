//! Policy bundles, for operators: one proposes, one asks for a bundle to come into force, another one approves that.

use super::Vault;
use super::approvals::said;
use super::control::{About, Ask, ControlCall};
use super::in_force::InForce;
use crate::audit::{Recorded, SystemEvent};
use crate::bundle::{Act, Active, Before, BundleRef, Judged, Shelf, SignedBundle, StoredBundle, differences};
use crate::error::{Dependency, Error};
use crate::failpoint::Step;
use crate::id::ApprovalId;
use crate::keys::{Approval, Lines, Ordered, Seen, Then, Voted, Voter};
use crate::policy::{
    ActivatePolicy, Approve, GetApproval, GetPolicy, ListPolicies, Permit, ProposePolicy, ValidatePolicy,
};

/// What was found of a bundle that holds everything that is demanded of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidPolicy {
    /// Which bundle.
    pub reference: BundleRef,
    /// Which policy signers have signed it.
    pub signers: Vec<String>,
    /// The ids of its policies, sorted.
    pub policies: Vec<String>,
    /// Entries in its registry.
    pub workloads: usize,
}

const NO_BUNDLES: Error =
    Error::FailedPrecondition("no policy signers are configured: policies come from files, not from bundles");
/// How often an approval starts over when another one came between.
const RETRIES: usize = 16;

impl Vault {
    fn shelf(&self) -> Shelf<'_> {
        Shelf(&**self.keys.store())
    }

    fn in_force(&self) -> Result<&InForce, Error> {
        self.in_force.as_deref().filter(|in_force| !in_force.trust.signers.is_empty()).ok_or(NO_BUNDLES)
    }

    async fn active(&self) -> Result<Active, Error> {
        self.shelf().active().await?.ok_or(NO_BUNDLES)
    }

    /// Everything that must be true of a bundle that is to come into force after the present one.
    async fn judge(&self, signed: &SignedBundle) -> Result<(Judged, Active), Error> {
        let in_force = self.in_force()?;
        let active = self.active().await?;
        active.admits(signed.reference(), signed.bundle().previous)?;
        let judged = in_force.trust.judge_aside(signed.clone(), self.keys.instance()).await?;
        Ok((judged, active))
    }

    /// Says whether a bundle could be put in force: its place behind the one that is, signatures, proof, schema, policies,
    /// registry. Nothing is kept.
    ///
    /// # Errors
    /// [`Error::Denied`]; [`Error::Invalid`] naming the field, or the file and line, of the first thing that is wrong;
    /// [`Error::FailedPrecondition`] if no signers are configured or it is in force; [`Error::Unavailable`].
    pub async fn validate_policy(&self, call: &ControlCall<'_>, signed: &SignedBundle) -> Result<ValidPolicy, Error> {
        self.operate_about(call, Ask::default(), async |_: &Recorded<Permit<ValidatePolicy>>| {
            let (judged, _) = self.judge(signed).await?;
            let Judged { reference, signers, set, registry } = judged;
            let valid = ValidPolicy { reference, signers, policies: set.ids().to_vec(), workloads: registry.len() };
            Ok((valid, About::executed()))
        })
        .await
    }

    /// Puts a bundle into the store, where it waits. It is judged as by [`Self::validate_policy`]. The same bundle may be
    /// proposed again; another one of its version may not.
    ///
    /// # Errors
    /// As [`Self::validate_policy`]; [`Error::Invalid`] naming `reason` if the call has none, or `version` if another
    /// bundle of this version was proposed.
    pub async fn propose_policy(&self, call: &ControlCall<'_>, signed: &SignedBundle) -> Result<StoredBundle, Error> {
        call.reason.ok_or_else(|| Error::invalid("reason", "is required"))?;
        self.operate_about(call, Ask::default(), async |recorded: &Recorded<Permit<ProposePolicy>>| {
            let (judged, _) = self.judge(signed).await?;
            // In the log before it happens.
            self.audit.system(SystemEvent::PolicyProposed(judged.reference.into())).await?;
            let who = &recorded.permit().decision().principal;
            let stored = self.shelf().put(signed, &judged, who, self.clock.now()).await?;
            Ok((stored, About { detail: "proposed", approval: None }))
        })
        .await
    }

    /// What a bundle changes against the one in force, or against the policies of the configuration's files.
    async fn changes(&self, now: Option<BundleRef>, then: BundleRef) -> Result<Lines, Error> {
        let shelf = self.shelf();
        let before = match now {
            Some(now) => Before::Bundle(Box::new(shelf.signed(now.version).await?)),
            None => {
                let (policies, workloads) = self.authorizer.in_force();
                Before::Files { policies, workloads }
            }
        };
        let mut lines = Lines::default();
        differences(before, shelf.signed(then.version).await?).await?.into_iter().for_each(|line| lines.push(line));
        Ok(lines)
    }

    /// Asks for a bundle to be put in force. Nothing happens until another operator approves it.
    ///
    /// # Errors
    /// [`Error::Denied`]; [`Error::NotFound`] if it was not proposed; [`Error::Invalid`] naming `digest` if the bundle of
    /// this version is another, `version` or `previous` if it does not follow the one in force, or `reason`;
    /// [`Error::FailedPrecondition`] if it is in force; [`Error::Unavailable`].
    pub async fn activate_policy(&self, call: &ControlCall<'_>, bundle: BundleRef) -> Result<Approval, Error> {
        let reason = call.reason.ok_or_else(|| Error::invalid("reason", "is required"))?;
        self.operate_about(call, Ask::default(), async |recorded: &Recorded<Permit<ActivatePolicy>>| {
            self.in_force()?;
            let stored = self.shelf().get(bundle.version).await?;
            if stored.reference != bundle {
                return Err(Error::invalid("digest", "is not that of the bundle of this version"));
            }
            let active = self.active().await?;
            active.admits(bundle, stored.previous)?;
            let lines = self.changes(active.reference, bundle).await?;
            self.pend(recorded, &Ordered::ActivatePolicy(bundle), lines, reason).await
        })
        .await
    }

    /// Approves that a bundle comes into force, if it is the one that `seen` says and another person asked for it. When
    /// this answers [`ApprovalState::Executed`](crate::keys::ApprovalState), it is in force; here it decides already, on
    /// every other gateway within a second. Otherwise others have to approve it, too.
    ///
    /// # Errors
    /// [`Error::Denied`]; [`Error::NotFound`]; [`Error::Invalid`] naming `request_sha256`, or what is wrong with the
    /// bundle by now; [`Error::FailedPrecondition`] if the caller asked for it, it was decided, has expired, or may not
    /// yet come into force; [`Error::Unavailable`].
    pub async fn approve_activation(
        &self,
        call: &ControlCall<'_>,
        id: ApprovalId,
        seen: Seen<'_>,
    ) -> Result<Approval, Error> {
        self.operate_about(call, Ask::default(), async |recorded: &Recorded<Permit<Approve>>| {
            let voter = Voter::of(recorded.permit().decision());
            for _ in 0..RETRIES {
                if !self.has_time(recorded) {
                    return Err(BUSY_POLICY);
                }
                let demand = |ordered: &Ordered| self.approvals.demand(ordered);
                let Voted { write, ordered, request, then } = self.keys.vote((None, id), seen, voter, demand).await?;
                if then != Then::Carry {
                    self.audit.system(SystemEvent::Voting { approval: id, request }).await?;
                    match self.keys.commit_decision(write, Step::ApprovalVote).await {
                        Err(Error::Conflict(_)) => continue,
                        done => done?,
                    }
                    let about = About { detail: said(then), approval: Some((id, request)) };
                    return Ok((self.keys.approval(None, id).await?, about));
                }
                if let Ordered::ChangeCharter { from, to } = ordered {
                    let next = self.next_charter(from, to, id).await?;
                    if !self.has_time(recorded) {
                        return Err(BUSY_POLICY);
                    }
                    self.audit.system(SystemEvent::Approving { approval: id, request }).await?;
                    match self.keys.store().commit(vec![write, next]).await {
                        // Read again: this approval was decided, or another charter came into force.
                        Err(Error::Conflict(_)) => continue,
                        done => done?,
                    }
                    let about = About { detail: "approved", approval: Some((id, request)) };
                    return Ok((self.keys.approval(None, id).await?, about));
                }
                let bundle = ordered.bundle().ok_or(Error::NotFound("approval"))?;
                let signed = self.shelf().signed(bundle.version).await?;
                if signed.reference() != bundle {
                    return Err(Error::corrupt(
                        "store",
                        "table policies: the bundle is not the one that was asked for",
                    ));
                }
                let (_, active) = self.judge(&signed).await?;
                if !self.has_time(recorded) {
                    return Err(TOO_LATE);
                }
                let now = self.clock.now();
                if now < signed.bundle().not_before {
                    return Err(NOT_YET);
                }
                // In the log before it happens, and in whatever state this call ends.
                self.audit.system(SystemEvent::Approving { approval: id, request }).await?;
                let writes = self.shelf().activation(&active, Act { bundle, approval: Some(id), now })?;
                let writes = [write].into_iter().chain(writes).collect();
                let done = self.keys.store().commit(writes).await;
                // Whatever became of it.
                self.in_force()?.hear();
                match done {
                    Ok(()) => {
                        // What could not be loaded ends all decisions, and is tried again; but the bundle is in force.
                        drop(self.refresh_policies().await);
                        let about = About { detail: "approved", approval: Some((id, request)) };
                        return Ok((self.keys.approval(None, id).await?, about));
                    }
                    // Read again: this approval was decided, or another bundle came into force.
                    Err(Error::Conflict(_)) => drop(self.refresh_policies().await),
                    Err(error) => return Err(error),
                }
            }
            Err(BUSY_POLICY)
        })
        .await
    }

    /// Rejects, for ever, that a bundle comes into force. The one who asked may, too.
    ///
    /// # Errors
    /// [`Error::Denied`]; [`Error::NotFound`]; [`Error::FailedPrecondition`] if it was decided or has expired;
    /// [`Error::Unavailable`].
    pub async fn reject_activation(&self, call: &ControlCall<'_>, id: ApprovalId) -> Result<Approval, Error> {
        self.reject_of_instance(call, id).await
    }

    /// Reads the approval of a bundle.
    ///
    /// # Errors
    /// [`Error::Denied`]; [`Error::NotFound`]; [`Error::Unavailable`].
    pub async fn get_activation(&self, call: &ControlCall<'_>, id: ApprovalId) -> Result<Approval, Error> {
        let get =
            async |_: &Recorded<Permit<GetApproval>>| Ok((self.keys.approval(None, id).await?, About::executed()));
        self.operate_about(call, Ask::default(), get).await
    }

    /// Reads a bundle with its texts; the one in force if no version is named.
    ///
    /// # Errors
    /// [`Error::Denied`]; [`Error::NotFound`]; [`Error::Corrupt`] if it is not as it was proposed;
    /// [`Error::Unavailable`].
    pub async fn get_policy(
        &self,
        call: &ControlCall<'_>,
        version: Option<u64>,
    ) -> Result<(StoredBundle, SignedBundle), Error> {
        self.operate_about(call, Ask::default(), async |_: &Recorded<Permit<GetPolicy>>| {
            let shelf = self.shelf();
            let in_force = shelf.active().await?.and_then(|active| active.reference);
            let version = version.or(in_force.map(|bundle| bundle.version)).ok_or(Error::NotFound("policy bundle"))?;
            Ok(((shelf.get(version).await?, shelf.signed(version).await?), About::executed()))
        })
        .await
    }

    /// Lists up to `limit` bundles after a version, ascending, whatever became of them.
    ///
    /// # Errors
    /// [`Error::Denied`], [`Error::Unavailable`].
    pub async fn list_policies(
        &self,
        call: &ControlCall<'_>,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<StoredBundle>, Error> {
        let list =
            async |_: &Recorded<Permit<ListPolicies>>| Ok((self.shelf().list(after, limit).await?, About::executed()));
        self.operate_about(call, Ask::default(), list).await
    }
}

pub(super) const NOT_YET: Error = Error::FailedPrecondition("the bundle says that it may not come into force yet");
const TOO_LATE: Error = Error::unavailable(
    Dependency::Policy,
    "judging the bundle took longer than this call may; what was proved is kept",
);
const BUSY_POLICY: Error = Error::Conflict("policy bundle");
