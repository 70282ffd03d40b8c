//! Which charter is in force, and whether this gateway's own is it.

use super::Vault;
use crate::audit::SystemEvent;
use crate::bundle::{CharterInForce, Charters};
use crate::charter::Charter;
use crate::error::Error;
use crate::id::Fingerprint;

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

    /// Whether this is the charter in force.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Corrupt`].
    pub async fn is_charter(&self, own: Fingerprint) -> Result<bool, Error> {
        Ok(self.charters().digest().await? == Some(own))
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
                Some(now) if now.charter == *own => return Ok(CharterStanding::InForce),
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

    async fn tell_charter(&self, number: u64, charter: &Charter) -> Result<(), Error> {
        self.audit.system(SystemEvent::Charter { number, digest: charter.digest() }).await.map(drop)
    }
}
