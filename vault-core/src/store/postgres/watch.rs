//! Revocations made through other gateways: heard of by NOTIFY, confirmed at least every 250 ms, trusted for a lease.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::Shared;
use super::connection::{Connection, Connector};
use super::fault::Fault;
use crate::error::{Dependency, Error};

/// From the end of one confirmation to the next, if nothing is heard: with the time that one takes, below 250 ms.
const EVERY: Duration = Duration::from_millis(200);
/// Between two that were asked for by notifications, so that a storm of them is answered by few.
const AT_LEAST: Duration = Duration::from_millis(5);
/// How long one may take before the connection is given up.
const PATIENCE: Duration = Duration::from_secs(1);
/// After a failure.
const PAUSE: Duration = Duration::from_millis(100);
/// Changed tenants that are looked at one by one; with more, everything is dropped.
const MANY: usize = 10_000;

/// Changes after an epoch, all of one moment; a single row without a tenant if there are none.
const CHANGES: &str = "SELECT e.epoch, c.tenant, c.keys_epoch > $1 FROM blindvault_epoch e \
    LEFT JOIN blindvault_changes c ON c.rows_epoch > $1 WHERE e.id = 1 LIMIT 10001";

/// How long what is in memory may be trusted.
pub(super) struct Lease {
    start: Instant,
    length: Duration,
    /// When the last good confirmation was asked for, in milliseconds after `start`, and one more; 0 for never.
    confirmed: AtomicU64,
}

impl Lease {
    pub(super) fn new(length: Duration) -> Self {
        Self { start: Instant::now(), length, confirmed: AtomicU64::new(0) }
    }

    /// Renews it as of an instant at which nothing of the answer can have been old.
    fn confirm(&self, asked: Instant) {
        let millis = asked.saturating_duration_since(self.start).as_millis();
        self.confirmed.store(u64::try_from(millis).unwrap_or(u64::MAX - 1) + 1, Ordering::Release);
    }

    /// Whether it holds.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub(super) fn check(&self) -> Result<(), Error> {
        let confirmed = self.confirmed.load(Ordering::Acquire);
        let until = confirmed.checked_sub(1).map(|millis| self.start + Duration::from_millis(millis) + self.length);
        if until.is_some_and(|until| Instant::now() < until) {
            return Ok(());
        }
        Err(Error::unavailable(
            Dependency::Store,
            "the database has not confirmed for longer than the revocation lease that nothing was revoked",
        ))
    }
}

/// The watching side's own connection.
pub(super) struct Watch {
    connector: Arc<Connector>,
    heard: Arc<Notify>,
    /// The epoch up to which all changes were carried out.
    seen: i64,
}

impl Watch {
    /// Starts at the present epoch: nothing is in memory yet.
    pub(super) async fn begin(connector: Arc<Connector>, client: &Client, lease: &Lease) -> Result<Self, Fault> {
        let asked = Instant::now();
        let rows = client.query_typed(CHANGES, &[(&i64::MAX, Type::INT8)]).await?;
        let row = rows.first().ok_or(Fault::Damaged("table blindvault_epoch: its row is missing"))?;
        let seen = row.try_get(0)?;
        lease.confirm(asked);
        Ok(Self { connector, heard: Arc::new(Notify::new()), seen })
    }

    /// Confirms for as long as the store lives.
    pub(super) async fn run(mut self, shared: Arc<Shared>) {
        loop {
            let mut confirmed = false;
            if let Ok(connection) = self.connect(&shared).await {
                while let Ok(Ok(())) = timeout(PATIENCE, self.confirm(&shared, &connection.client)).await {
                    confirmed = true;
                    if timeout(EVERY, self.heard.notified()).await.is_ok() {
                        sleep(AT_LEAST).await;
                    }
                }
            }
            // One that was good a moment ago is made again at once.
            if !confirmed {
                sleep(PAUSE).await;
            }
        }
    }

    async fn connect(&self, shared: &Shared) -> Result<Connection, Fault> {
        let connection = self.connector.connect(Some(&self.heard)).await?;
        if shared.notifies {
            let listen = connection.client.batch_execute("LISTEN blindvault_epoch");
            timeout(PATIENCE, listen).await.map_err(|_| Fault::Lost("no answer"))??;
        }
        Ok(connection)
    }

    /// Carries out what changed, then renews the lease.
    async fn confirm(&mut self, shared: &Shared, client: &Client) -> Result<(), Fault> {
        let asked = Instant::now();
        let rows = client.query_typed(CHANGES, &[(&self.seen, Type::INT8)]).await?;
        let first = rows.first().ok_or(Fault::Damaged("table blindvault_epoch: its row is missing"))?;
        let epoch: i64 = first.try_get(0)?;
        if epoch < self.seen {
            // An older state of the database. What it says of revocations is worth nothing, so the lease runs out.
            shared.changed(None);
            return Err(Fault::Damaged("the revocation epoch went back"));
        }
        if rows.len() > MANY {
            shared.changed(None);
        } else {
            for row in &rows {
                if let (Some(tenant), Some(keys)) = (row.try_get(1)?, row.try_get(2)?) {
                    shared.cache.drop_tenant(tenant);
                    if keys {
                        shared.changed(Some(tenant));
                    }
                }
            }
        }
        self.seen = epoch;
        shared.lease.confirm(asked);
        Ok(())
    }
}

impl Shared {
    /// Drops rows, and has keys wiped; returns when both are gone.
    fn changed(&self, tenant: Option<&[u8]>) {
        match tenant {
            Some(tenant) => self.cache.drop_tenant(tenant),
            None => self.cache.clear(),
        }
        let mut watchers = self.watchers.lock().unwrap_or_else(PoisonError::into_inner);
        watchers.retain(|watcher| match watcher.upgrade() {
            Some(watcher) => {
                watcher.changed(tenant);
                true
            }
            None => false,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_holds_from_the_question_on_and_not_longer() {
        let lease = Lease::new(Duration::from_millis(200));
        assert!(matches!(lease.check(), Err(Error::Unavailable { dependency: Dependency::Store, .. })));
        lease.confirm(Instant::now());
        assert!(lease.check().is_ok());
        // An answer that was long under way is as old as its question.
        std::thread::sleep(Duration::from_millis(10));
        let lease = Lease::new(Duration::from_millis(5));
        let asked = Instant::now();
        std::thread::sleep(Duration::from_millis(10));
        lease.confirm(asked);
        assert!(lease.check().is_err());
    }
}
