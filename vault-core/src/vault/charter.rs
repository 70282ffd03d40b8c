//! Which charter is in force, and whether this gateway's own is it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::Vault;
use super::control::{About, Ask, ControlCall};
use crate::audit::{Recorded, SystemEvent};
use crate::bundle::{CharterInForce, Charters};
use crate::charter::Charter;
use crate::error::Error;
use crate::id::{ApprovalId, Fingerprint};
use crate::keys::{Approval, Lines, Ordered};
use crate::policy::{GetCharter, Permit, ProposeCharter};
use crate::store::Write;

/// How often the first gateways of a store try to agree.
const RETRIES: usize = 16;

/// How a gateway's own charter stands to the one in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CharterStanding {
    /// It is in force.
    InForce,
    /// Another one is: these are the lines of it that this gateway's settings lack, behind `- `, and theirs that it lacks,
    /// behind `+ `.
    Differs(Vec<String>),
}

/// This process's own charter, as far as it has adopted one.
#[derive(Debug, Default)]
pub(super) struct Own {
    digest: Mutex<Option<Fingerprint>>,
    /// Another one was in force at the last look.
    superseded: AtomicBool,
}

impl Vault {
    fn charters(&self) -> Charters<'_> {
        Charters(&**self.keys.store())
    }

    /// The charter in force; `None` where no gateway ever adopted one.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Corrupt`].
    pub async fn charter_in_force(&self) -> Result<Option<CharterInForce>, Error> {
        self.charters().in_force().await
    }

    /// Looks whether the charter that this process adopted is still the one in force. It serves on if not: it is what was
    /// agreed on when it began, and ends with its next start.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Corrupt`].
    pub async fn watch_charter(&self) -> Result<(), Error> {
        let own = *self.charter.digest.lock().unwrap_or_else(PoisonError::into_inner);
        let superseded = own.is_some() && self.charters().digest().await? != own;
        self.charter.superseded.store(superseded, Ordering::Relaxed);
        Ok(())
    }

    /// Whether another charter was in force when [`Self::watch_charter`] last looked.
    pub fn charter_superseded(&self) -> bool {
        self.charter.superseded.load(Ordering::Relaxed)
    }

    /// To be called before anything is served: puts `own` in force where none ever was, and says how it stands to the one
    /// in force otherwise. With `take_over`, `own` takes that one's place without anybody's approval, which is for
    /// development only. What comes into force here is in the audit log before.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Corrupt`].
    pub async fn adopt_charter(&self, own: &Charter, take_over: bool) -> Result<CharterStanding, Error> {
        for _ in 0..RETRIES {
            let writes = match self.charters().in_force().await? {
                None => {
                    self.tell_charter(1, own).await?;
                    Charters::first(own, self.clock.now())?
                }
                Some(now) if now.charter == *own => {
                    *self.charter.digest.lock().unwrap_or_else(PoisonError::into_inner) = Some(own.digest());
                    self.charter.superseded.store(false, Ordering::Relaxed);
                    return Ok(CharterStanding::InForce);
                }
                Some(now) if !take_over => return Ok(CharterStanding::Differs(now.charter.changes(own))),
                Some(now) => {
                    self.charters().keep(own).await?;
                    self.tell_charter(now.number.saturating_add(1), own).await?;
                    vec![Charters::next(&now, own.digest(), None, self.clock.now())?]
                }
            };
            match self.keys.store().commit(writes).await {
                // Read again: another gateway was first, or this text waits already.
                Ok(()) | Err(Error::Conflict(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::Conflict("charter"))
    }

    /// Reads the charter in force, for operators.
    ///
    /// # Errors
    /// [`Error::Denied`]; [`Error::NotFound`] if none is; [`Error::Unavailable`], [`Error::Corrupt`].
    pub async fn get_charter(&self, call: &ControlCall<'_>) -> Result<CharterInForce, Error> {
        self.operate_about(call, Ask::default(), async |_: &Recorded<Permit<GetCharter>>| {
            let found = self.charters().in_force().await?.ok_or(Error::NotFound("charter"))?;
            Ok((found, About::executed()))
        })
        .await
    }

    /// Asks for another charter to come into force. Nothing happens until others approve it; the request's summary shows
    /// each line that would be gone, and each that would be new, and the charter that it would take the place of is part
    /// of what they approve.
    ///
    /// # Errors
    /// [`Error::Denied`]; [`Error::NotFound`] if none is in force; [`Error::FailedPrecondition`] if this one is;
    /// [`Error::Invalid`] naming `reason` if the call has none; [`Error::Unavailable`], [`Error::Corrupt`].
    pub async fn propose_charter(&self, call: &ControlCall<'_>, charter: &Charter) -> Result<Approval, Error> {
        let reason = call.reason.ok_or_else(|| Error::invalid("reason", "is required"))?;
        self.operate_about(call, Ask::default(), async |recorded: &Recorded<Permit<ProposeCharter>>| {
            let now = self.charters().in_force().await?.ok_or(Error::NotFound("charter"))?;
            if now.charter == *charter {
                return Err(Error::FailedPrecondition("the charter is in force"));
            }
            self.charters().keep(charter).await?;
            let mut lines = Lines::default();
            lines.push(format!("puts charter {} in force in the place of charter {}", now.number + 1, now.number));
            now.charter.changes(charter).into_iter().for_each(|line| lines.push(line));
            let ordered = Ordered::ChangeCharter { from: now.charter.digest(), to: charter.digest() };
            self.pend(recorded, &ordered, lines, reason).await
        })
        .await
    }

    /// The write that puts an approved charter in force, if the one that it was to follow still is.
    pub(super) async fn next_charter(
        &self,
        from: Fingerprint,
        to: Fingerprint,
        approval: ApprovalId,
    ) -> Result<Write, Error> {
        let now = self.charters().in_force().await?.ok_or(Error::NotFound("charter"))?;
        if now.charter.digest() != from {
            return Err(Error::FailedPrecondition("another charter came into force since; propose it again"));
        }
        // Whole, and what its digest says.
        self.charters().text(to).await?.ok_or_else(|| Error::corrupt("store", "a proposed charter is gone"))?;
        Charters::next(&now, to, Some(approval), self.clock.now())
    }

    async fn tell_charter(&self, number: u64, charter: &Charter) -> Result<(), Error> {
        self.audit.system(SystemEvent::Charter { number, digest: charter.digest() }).await.map(drop)
    }
}
