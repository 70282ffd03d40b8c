//! What a running stream stands on: a permit that is renewed, and the intent that names it.

use super::AGAIN_MILLIS;
use crate::audit::{KeyRef, Outcome, Recorded, Status};
use crate::error::Error;
use crate::policy::{DataAction, Permit};
use crate::principal::Workload;
use crate::vault::{Target, Vault, reason};

/// The stream has ended, or a call on it was dropped half-way.
const ENDED: Error = Error::FailedPrecondition("the stream has ended");

pub(super) struct Standing<'v, A: DataAction> {
    pub(super) vault: &'v Vault,
    who: &'v Workload,
    target: &'v Target,
    /// `None` once the stream has ended. Dropped, it writes that the stream was cancelled.
    recorded: Option<Recorded<Permit<A>>>,
    pub(super) key: KeyRef,
    /// What the caller hears of a key that is no longer to be used.
    destroyed: Error,
    /// When the last decision began, by the monotonic clock.
    decided: u64,
    /// Chunks done.
    chunks: u64,
    /// A call is under way, or was dropped half-way.
    busy: bool,
}

impl<'v, A: DataAction> Standing<'v, A> {
    pub(super) fn new(
        (vault, who, target): (&'v Vault, &'v Workload, &'v Target),
        (recorded, decided): (Recorded<Permit<A>>, u64),
        key: KeyRef,
        destroyed: Error,
    ) -> Self {
        Self { vault, who, target, recorded: Some(recorded), key, destroyed, decided, chunks: 0, busy: false }
    }

    /// The intent.
    ///
    /// # Errors
    /// [`Error::FailedPrecondition`] once the stream has ended.
    pub(super) fn recorded(&self) -> Result<&Recorded<Permit<A>>, Error> {
        self.recorded.as_ref().ok_or(ENDED)
    }

    /// Begins a call on the stream.
    pub(super) fn begin(&mut self) -> Result<(), Error> {
        if self.busy || self.recorded.is_none() {
            return Err(ENDED);
        }
        self.busy = true;
        Ok(())
    }

    /// Ends a call on the stream. A failure ends the stream: its outcome is durable before the error is told.
    pub(super) async fn end<T>(&mut self, done: Result<T, Error>) -> Result<T, Error> {
        match done {
            Ok(done) => {
                self.busy = false;
                Ok(done)
            }
            Err(error) => {
                let outcome = match self.items() {
                    0 => Outcome::failed(reason(&error)),
                    items => Outcome::partial(reason(&error), items),
                };
                self.finish(outcome).await?;
                Err(error)
            }
        }
    }

    /// The stream has ended as asked, all of it.
    pub(super) async fn complete(&mut self) -> Result<(), Error> {
        self.finish(Outcome::done(self.items())).await
    }

    async fn finish(&mut self, outcome: Outcome) -> Result<(), Error> {
        if let Some(recorded) = self.recorded.take() {
            self.vault.audit.outcome(&recorded, outcome).await?;
        }
        Ok(())
    }

    /// A chunk was done.
    pub(super) const fn count(&mut self) {
        self.chunks += 1;
    }

    fn items(&self) -> u32 {
        u32::try_from(self.chunks).unwrap_or(u32::MAX)
    }

    /// Demands a decision that is fresh; cheap where it is.
    ///
    /// # Errors
    /// As [`Self::decide_again`].
    pub(super) async fn ready(&mut self) -> Result<(), Error> {
        let permit = self.recorded()?.permit();
        let vault = self.vault;
        let fresh = permit.decision().epoch == vault.authorizer.epoch()
            && vault.clock.monotonic_millis().saturating_sub(self.decided) < AGAIN_MILLIS
            && vault.clock.now() < permit.valid_until();
        if fresh { Ok(()) } else { self.decide_again().await }
    }

    /// Decides again, by the policies, the registry and the facts of now. Where anything changed that an entry tells, a new
    /// intent is durable before the stream goes on.
    ///
    /// # Errors
    /// What a call that begins now would be refused with.
    pub(super) async fn decide_again(&mut self) -> Result<(), Error> {
        let before = self.vault.clock.monotonic_millis();
        let permit = self.vault.permit::<A>(self.who, self.target, 1).await?;
        if self.vault.keys.plan_opening(permit.resource(), self.key.key_id).await?.is_none() {
            return Err(self.destroyed.clone());
        }
        let items = self.items();
        let recorded = self.recorded.as_mut().ok_or(ENDED)?;
        if recorded.permit().decision().tells_the_same(permit.decision()) {
            recorded.renew(permit)?;
        } else {
            let next = self.vault.intend(permit, Some(self.key)).await?;
            let last = std::mem::replace(recorded, next);
            let outcome = Outcome { status: Status::Done, reason: "decided again", key: None, items };
            self.vault.audit.outcome(&last, outcome).await?;
        }
        self.decided = before;
        Ok(())
    }
}
