//! A bounded number of connections, each used by one call at a time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::connection::{Connection, Connector};
use super::fault::Fault;
use super::settings::PostgresSettings;

pub(super) struct Pool {
    connector: Arc<Connector>,
    idle: Mutex<Vec<Connection>>,
    free: Arc<Semaphore>,
    wait: Duration,
}

/// A connection on loan. Dropped it is closed: what may be in the middle of something is not used again.
pub(super) struct Loan {
    pub(super) connection: Connection,
    /// It was used before, so it may have died since.
    pub(super) reused: bool,
    _permit: OwnedSemaphorePermit,
}

impl Pool {
    pub(super) fn new(connector: Arc<Connector>, settings: &PostgresSettings) -> Self {
        let free = Arc::new(Semaphore::new(settings.connections));
        Self { connector, idle: Mutex::new(Vec::new()), free, wait: settings.wait_timeout }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An idle connection, or a new one.
    pub(super) async fn take(&self) -> Result<Loan, Fault> {
        let busy = Fault::Lost("all connections to the database are busy");
        let waiting = Arc::clone(&self.free).acquire_owned();
        let permit = timeout(self.wait, waiting).await.map_err(|_| busy.clone())?.map_err(|_| busy)?;
        let idle = {
            let mut idle = self.idle();
            idle.retain(|connection| !connection.client.is_closed());
            idle.pop()
        };
        match idle {
            Some(connection) => Ok(Loan { connection, reused: true, _permit: permit }),
            None => {
                let connection = self.connector.connect(None).await?;
                Ok(Loan { connection, reused: false, _permit: permit })
            }
        }
    }

    /// Closes what is idle: one of them was found dead.
    pub(super) fn forget_idle(&self) {
        self.idle().clear();
    }

    /// Takes back a connection that has nothing open.
    pub(super) fn give_back(&self, loan: Loan) {
        let Loan { connection, _permit: permit, .. } = loan;
        self.idle().push(connection);
        drop(permit);
    }
}
