//! [`Recorded`]: the proof that an intent is durable, and the ways to it.

use std::sync::Arc;

use futures_channel::oneshot;

use super::decided::Decided;
use super::entry::{Body, Draft, KeyRef, Status};
use super::group::Audited;
use super::log::Log;
use super::pseudonym::Pseudonyms;
use super::queue::{Armed, Pending, Receipt, Reply};
use crate::error::Error;
use crate::id::{ApprovalId, ConsentId, Fingerprint};
use crate::policy::{Action, ConsentAction, ControlAction, Permit, Refusal};

/// Proof that the intent to use `P` is durable in the audit log. Whatever releases or changes anything demands one.
///
/// Only [`Log::record`] and [`Log::record_all`] make one, from a permit that they consume. It ends in one of three
/// ways: [`Recorded::complete`] (it went well; the intent says it all), [`Log::outcome`] (it did not, or only in
/// part), or by being dropped, as when the call's future is cancelled: then the outcome "cancelled" is written. So an
/// intent without an outcome was carried out, and the log may over-report, but never under-report.
///
/// ```compile_fail,E0451
/// use vault_core::audit::Recorded;
/// use vault_core::policy::{Decrypt, Permit};
/// fn forge(permit: Permit<Decrypt>) -> Recorded<Permit<Decrypt>> { Recorded { what: permit, armed: panic!() } }
/// ```
/// ```compile_fail,E0599
/// use vault_core::audit::Recorded;
/// use vault_core::policy::{Decrypt, Permit};
/// fn twice(recorded: &Recorded<Permit<Decrypt>>) -> Recorded<Permit<Decrypt>> { recorded.clone() }
/// ```
#[must_use = "dropped, it writes that the action was cancelled"]
pub struct Recorded<P> {
    what: P,
    armed: Armed,
}

impl<P> std::fmt::Debug for Recorded<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorded").field("receipt", &self.armed.receipt).finish_non_exhaustive()
    }
}

impl<A: Action> Recorded<Permit<A>> {
    /// The permit: what may be touched.
    pub const fn permit(&self) -> &Permit<A> {
        &self.what
    }

    /// The intent's entry.
    pub const fn receipt(&self) -> Receipt {
        self.armed.receipt
    }

    /// Goes on with a newer permit for the very same: a long action was decided again, and nothing about the decision that
    /// an entry would tell has changed, but its time.
    ///
    /// # Errors
    /// [`Error::FailedPrecondition`] for a permit of another decision, which needs an intent of its own.
    pub fn renew(&mut self, permit: Permit<A>) -> Result<(), Error> {
        if !self.what.decision().tells_the_same(permit.decision()) {
            return Err(Error::FailedPrecondition("another decision needs an entry of its own"));
        }
        self.what = permit;
        Ok(())
    }

    /// The intent's entry, and what its receipt can be made of.
    pub fn audited(&self) -> Audited {
        Audited::new(self.armed.receipt, Arc::clone(&self.armed.group))
    }

    /// The action went well, all of it: the intent stands for it and no outcome is written.
    pub fn complete(self) -> Receipt {
        self.armed.settle();
        self.armed.receipt
    }
}

/// One intent to record.
#[derive(Debug)]
pub struct Intent<A: Action> {
    /// What was permitted.
    pub permit: Permit<A>,
    /// The key it will use, from metadata.
    pub key: Option<KeyRef>,
    /// What stands for the people that the permit names; each of them needs one.
    pub pseudonyms: Pseudonyms,
    /// How many items it is about.
    pub items: u32,
}

impl<A: Action> Intent<A> {
    fn draft(&self) -> Result<Draft, Error> {
        let decision = self.permit.decision();
        if decision.resource.subject.is_some() && self.pseudonyms.subject.is_none() {
            return Err(Error::invalid("pseudonym", "is required where a subject is named"));
        }
        if decision.end_user.is_some() && self.pseudonyms.end_user.is_none() {
            return Err(Error::invalid("pseudonym", "is required where an end user is named"));
        }
        let decided = Decided::of(decision, self.pseudonyms)?;
        let body = Body::Intent { decided, key: self.key, items: self.items };
        Ok(Draft::new(Some(decision.request), decision.resource.tenant.clone(), &body))
    }
}

/// How a recorded action ended, if not plainly well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// How.
    pub status: Status,
    /// Why: decided at compile time, so it cannot carry data. At most 255 bytes.
    pub reason: &'static str,
    /// The key, if it became known only now.
    pub key: Option<KeyRef>,
    /// How many items were done.
    pub items: u32,
}

impl Outcome {
    /// Nothing was released.
    pub const fn failed(reason: &'static str) -> Self {
        Self { status: Status::Failed, reason, key: None, items: 0 }
    }

    /// Only so many items were.
    pub const fn partial(reason: &'static str, items: u32) -> Self {
        Self { status: Status::Partial, reason, key: None, items }
    }

    /// It ended as asked; for a stream, whose length was not known before.
    pub const fn done(items: u32) -> Self {
        Self { status: Status::Done, reason: "", key: None, items }
    }
}

impl Log {
    /// Makes the intent durable, and with it the permit usable.
    ///
    /// If the future is dropped meanwhile, the intent may be written all the same; then its outcome is "cancelled".
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the log does not take entries; [`Error::Invalid`] naming `pseudonym` if the permit
    /// names somebody for whom none is given, or `principal` if it is too long.
    pub async fn record<A: Action>(
        &self,
        permit: Permit<A>,
        key: Option<KeyRef>,
        pseudonyms: Pseudonyms,
    ) -> Result<Recorded<Permit<A>>, Error> {
        let intent = Intent { permit, key, pseudonyms, items: 1 };
        let mut all = self.record_all(vec![intent]).await?;
        all.pop().ok_or_else(|| self.shared.unavailable())
    }

    /// Makes all the intents durable and waits once: all are recorded, in order, or none can be used.
    ///
    /// # Errors
    /// As [`Self::record`]; nothing is submitted if one of them is invalid.
    pub async fn record_all<A: Action>(&self, intents: Vec<Intent<A>>) -> Result<Vec<Recorded<Permit<A>>>, Error> {
        let mut pending = Vec::with_capacity(intents.len());
        let mut waiting = Vec::with_capacity(intents.len());
        for intent in intents {
            let (sender, receiver) = oneshot::channel();
            pending.push(Pending { draft: intent.draft()?, reply: Reply::Intent(sender) });
            waiting.push((intent.permit, receiver));
        }
        self.shared.submit(pending)?;
        let mut recorded = Vec::with_capacity(waiting.len());
        for (what, receiver) in waiting {
            let armed = self.shared.answer(receiver).await?;
            recorded.push(Recorded { what, armed });
        }
        Ok(recorded)
    }

    /// Records how a recorded action ended, durably, before that answer is given. Even if this fails or is dropped
    /// half-way, "cancelled" is not written any more once the entry was submitted.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the log does not take entries.
    pub async fn outcome<A: Action>(&self, recorded: &Recorded<Permit<A>>, outcome: Outcome) -> Result<Receipt, Error> {
        let body = Body::Outcome {
            intent: recorded.armed.receipt.index,
            status: outcome.status,
            reason: outcome.reason.to_owned(),
            key: outcome.key,
            items: outcome.items,
        };
        self.settle(recorded, &body).await
    }

    /// Records that an operator's action was executed. `detail` is a code of the source, `key` what it made or changed.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the log does not take entries.
    pub async fn control<A: ControlAction>(
        &self,
        recorded: &Recorded<Permit<A>>,
        detail: &'static str,
        key: Option<KeyRef>,
    ) -> Result<Receipt, Error> {
        let decision = recorded.permit().decision();
        let body = Body::Control {
            intent: recorded.armed.receipt.index,
            principal: decision.principal.clone(),
            action: decision.action.to_owned(),
            detail: detail.to_owned(),
            key,
        };
        self.settle(recorded, &body).await
    }

    /// The same for what is about an approval: which one, and what it is bound to.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the log does not take entries.
    pub async fn control_of<A: ControlAction>(
        &self,
        recorded: &Recorded<Permit<A>>,
        detail: &'static str,
        (approval, request): (ApprovalId, Fingerprint),
    ) -> Result<Receipt, Error> {
        let decision = recorded.permit().decision();
        let body = Body::Control {
            intent: recorded.armed.receipt.index,
            principal: decision.principal.clone(),
            action: decision.action.to_owned(),
            detail: format!("{detail} {approval} sha256:{request}"),
            key: None,
        };
        self.settle(recorded, &body).await
    }

    /// Records what became of a consent, by which name, and the hash of what was consented to; or that consents were
    /// listed.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the log does not take entries.
    pub async fn consent_of<A: ConsentAction>(
        &self,
        recorded: &Recorded<Permit<A>>,
        detail: &'static str,
        consent: Option<(ConsentId, Fingerprint)>,
    ) -> Result<Receipt, Error> {
        let decision = recorded.permit().decision();
        let body = Body::Control {
            intent: recorded.armed.receipt.index,
            principal: decision.principal.clone(),
            action: decision.action.to_owned(),
            detail: match consent {
                Some((id, sha256)) => format!("{detail} {id} sha256:{sha256}"),
                None => detail.to_owned(),
            },
            key: None,
        };
        self.settle(recorded, &body).await
    }

    async fn settle<A: Action>(&self, recorded: &Recorded<Permit<A>>, body: &Body) -> Result<Receipt, Error> {
        let decision = recorded.permit().decision();
        let draft = Draft::new(Some(decision.request), decision.resource.tenant.clone(), body);
        let (sender, receiver) = oneshot::channel();
        self.shared.submit(vec![Pending { draft, reply: Reply::End(sender) }])?;
        recorded.armed.settle();
        self.shared.answer(receiver).await
    }

    /// Records a refusal, durably, before it is answered.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the log does not take entries; [`Error::Invalid`] naming `principal` if it is longer
    /// than a SPIFFE ID may be.
    pub async fn refused(&self, refusal: &Refusal, pseudonyms: Pseudonyms) -> Result<Receipt, Error> {
        let decision = &refusal.decision;
        let body = Body::Refused {
            decided: Decided::of(decision, pseudonyms)?,
            check: refusal.check.name().to_owned(),
            reason: refusal.reason.to_owned(),
        };
        let draft = Draft::new(Some(decision.request), decision.resource.tenant.clone(), &body);
        let (sender, receiver) = oneshot::channel();
        self.shared.submit(vec![Pending { draft, reply: Reply::Refusal(sender) }])?;
        self.shared.answer(receiver).await
    }
}
