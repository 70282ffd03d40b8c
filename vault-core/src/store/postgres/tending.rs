//! One gateway of all carries on the work on keys: a row names it, and until when unless it says so again.
//!
//! Nothing hangs on it: two who work at the same time lose nothing, they only do things twice.

use std::time::{Duration, Instant};

use tokio_postgres::types::Type;

use super::Shared;
use super::gateways::lock;
use crate::error::Error;

/// How long a gateway holds the work without saying so again, as the database has it; and when it says so.
const TENDING: Duration = Duration::from_secs(5);
const RENEW: Duration = Duration::from_secs(2);

const TEND: &str = "UPDATE blindvault_tending SET holder = $1, until = CURRENT_TIMESTAMP + INTERVAL '5 seconds' \
    WHERE id = 1 AND (holder = $1 OR until < CURRENT_TIMESTAMP)";
const REST: &str = "UPDATE blindvault_tending SET until = CURRENT_TIMESTAMP WHERE id = 1 AND holder = $1";

impl Shared {
    /// Whether this gateway is the one that carries on the work on keys: the one that said so last, until it is silent.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub(super) async fn tends(&self) -> Result<bool, Error> {
        let own = &self.gateways;
        if own.is_in().is_err() {
            return Ok(false);
        }
        if lock(&own.tending).is_some_and(|since| since.elapsed() < RENEW) {
            return Ok(true);
        }
        let asked = Instant::now();
        let holds = self.execute(TEND, &[(&own.id.as_bytes(), Type::BYTEA)]).await? == 1;
        // Counted from before the question, so it never lasts longer here than there.
        let holds = holds && asked.elapsed() < TENDING;
        *lock(&own.tending) = holds.then_some(asked);
        Ok(holds)
    }

    /// Leaves the work to others.
    pub(super) async fn rest(&self) -> Result<(), Error> {
        if lock(&self.gateways.tending).take().is_some() {
            self.execute(REST, &[(&self.gateways.id.as_bytes(), Type::BYTEA)]).await?;
        }
        Ok(())
    }
}
