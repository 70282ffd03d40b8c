//! Revocations made through other gateways: heard of by NOTIFY, confirmed at least every 250 ms, trusted for a lease.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, IsolationLevel};

use super::Shared;
use super::chain::{Sum, Total, link, open_tenant};
use super::connection::{Connection, Connector};
use super::fault::Fault;
use super::fresh::Freshness;
use super::gateways::DIRECTORY;
use super::seal::Sealer;
use crate::error::{Dependency, Error};
use crate::store::Anchor;

/// From the end of one confirmation to the next, if nothing is heard: with the time that one takes, below 250 ms.
const EVERY: Duration = Duration::from_millis(200);
/// Between two that were asked for by notifications, so that a storm of them is answered by few.
const AT_LEAST: Duration = Duration::from_millis(5);
/// How long an answer may take before the connection is given up.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long following the chain may take, after a long time without the database.
const LONG: Duration = Duration::from_secs(60);
/// After a failure.
const PAUSE: Duration = Duration::from_millis(100);
/// Changed tenants that are told one by one; with more, everything is dropped.
const MANY: usize = 10_000;

const EPOCH: &str = "SELECT epoch, sealed FROM blindvault_epoch WHERE id = 1";
const CHANGES: &str = "SELECT tenant, rows_epoch, sealed FROM blindvault_changes WHERE rows_epoch > $1";
/// The same for who has nothing in memory.
const EPOCHS: &str = "SELECT tenant, rows_epoch, NULL::BYTEA FROM blindvault_changes WHERE rows_epoch > $1";
const LINKS: &str = "SELECT epoch, digest FROM blindvault_chain WHERE epoch > $1 AND epoch <= $2 ORDER BY epoch";
/// Links read at once.
const LINKS_STEP: i64 = 100_000;

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
}

/// A tenant whose rows changed, at which epoch, and its head, sealed.
type Changed = (Vec<u8>, i64, Option<Vec<u8>>);

/// What is newer than `known`, of one moment; `None` if nothing is.
async fn newer(
    client: &mut Client,
    sealer: &Sealer,
    known: &Total,
    changes: &str,
) -> Result<Option<(Total, Vec<Changed>)>, Error> {
    let failed = Fault::from;
    let work = client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(true);
    let work = work.start().await.map_err(failed)?;
    let rows = work.query_typed(EPOCH, &[]).await.map_err(failed)?;
    let row = rows.first().ok_or(Fault::Damaged("table blindvault_epoch: its row is missing"))?;
    let (epoch, sealed): (i64, Option<&[u8]>) = (row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?);
    let total = Total::open(sealer, epoch, sealed)?;
    if total == *known {
        work.commit().await.map_err(failed)?;
        return Ok(None);
    }
    // Older, or of the same epoch and another history.
    if epoch <= known.epoch {
        return Err(Fault::Damaged("the database stands as it was before a change that is known").into());
    }
    let rows = work.query_typed(changes, &[(&known.epoch, Type::INT8)]).await.map_err(failed)?;
    work.commit().await.map_err(failed)?;
    let changed = rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?)));
    let changed = changed.collect::<Result<_, tokio_postgres::Error>>().map_err(failed)?;
    Ok(Some((total, changed)))
}

/// Refuses a state that does not continue the chain from one that is known.
async fn continues(client: &Client, from: i64, mut chain: [u8; 32], to: &Total) -> Result<(), Error> {
    let broken = || Error::from(Fault::Damaged("the chain of changes does not continue what is known"));
    let mut at = from;
    while at < to.epoch {
        let until = to.epoch.min(at.saturating_add(LINKS_STEP));
        let rows = client.query_typed(LINKS, &[(&at, Type::INT8), (&until, Type::INT8)]).await.map_err(Fault::from)?;
        for row in rows {
            let (epoch, digest): (i64, &[u8]) =
                (row.try_get(0).map_err(Fault::from)?, row.try_get(1).map_err(Fault::from)?);
            at += 1;
            if epoch != at {
                return Err(broken());
            }
            chain = link(&chain, epoch, digest);
        }
        if at != until {
            return Err(broken());
        }
    }
    if from > to.epoch || chain != to.chain { Err(broken()) } else { Ok(()) }
}

impl Watch {
    /// Starts at the present state, which must continue `anchor`.
    pub(super) async fn begin(
        connector: Arc<Connector>,
        client: &mut Client,
        sealer: &Sealer,
        anchor: Option<&Anchor>,
        lease: &Lease,
    ) -> Result<(Self, Freshness), Error> {
        let asked = Instant::now();
        let nothing = Total { epoch: 0, ..Total::EMPTY };
        let (total, changed) = newer(client, sealer, &nothing, EPOCHS).await?.unwrap_or((nothing, Vec::new()));
        let mut sum = Sum::default();
        for (tenant, epoch, _) in &changed {
            sum.add(sealer.element(&[tenant], *epoch)?);
        }
        if sum != total.sum {
            return Err(Fault::Damaged("the record of changed tenants is not as it was written").into());
        }
        if let Some(Anchor { epoch, chain }) = anchor {
            continues(client, i64::try_from(*epoch).unwrap_or(i64::MAX), *chain, &total).await?;
        }
        let epochs = changed.into_iter().map(|(tenant, epoch, _)| (tenant, epoch)).collect();
        lease.confirm(asked);
        Ok((Self { connector, heard: Arc::new(Notify::new()) }, Freshness::new(total, epochs)))
    }

    /// Confirms for as long as the store lives.
    pub(super) async fn run(self, shared: Arc<Shared>) {
        loop {
            let mut confirmed = false;
            if let Ok(mut connection) = self.connect(&shared).await {
                loop {
                    match confirm(&shared, &mut connection.client).await {
                        Ok(()) => shared.fresh.set_astray(false),
                        Err(error) => {
                            if matches!(error, Error::Corrupt { .. }) {
                                // What is in memory may have been revoked, and nobody can tell.
                                shared.fresh.set_astray(true);
                                shared.changed(None);
                            }
                            break;
                        }
                    }
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
}

/// Verifies and carries out what changed, then renews the lease.
async fn confirm(shared: &Arc<Shared>, client: &mut Client) -> Result<(), Error> {
    let asked = Instant::now();
    let known = shared.fresh.total();
    let slow = |_| Error::from(Fault::Lost("the database did not answer in time"));
    let newer = timeout(PATIENCE, newer(client, &shared.sealer, &known, CHANGES)).await.map_err(slow)?;
    let Some((total, changed)) = newer? else {
        shared.tell_later(0);
        shared.gateways.is_certain()?;
        shared.lease.confirm(asked);
        return Ok(());
    };
    let mut expected = known;
    for (tenant, epoch, _) in &changed {
        expected.advance(&shared.sealer, tenant, shared.fresh.epoch_of(tenant), *epoch)?;
    }
    if expected.sum != total.sum {
        return Err(Fault::Damaged("the record of changed tenants is not as it was written").into());
    }
    let mut revoked = 0;
    if changed.len() > MANY {
        shared.changed(None);
        revoked = total.epoch;
    } else {
        for (tenant, epoch, sealed) in &changed {
            shared.cache.drop_tenant(tenant);
            // From what is sealed: whether keys must go is not for the database to say.
            let keys = open_tenant(&shared.sealer, tenant, *epoch, sealed.as_deref().unwrap_or_default())?.keys;
            if keys > known.epoch {
                shared.changed(Some(tenant));
                revoked = revoked.max(keys);
            }
        }
    }
    if changed.iter().any(|(tenant, ..)| tenant == DIRECTORY) {
        shared.gateways.doubt();
    }
    timeout(LONG, continues(client, known.epoch, known.chain, &total)).await.map_err(slow)??;
    shared.fresh.advance(total, changed.iter().map(|(tenant, epoch, _)| (tenant.as_slice(), *epoch)));
    // What this tells others is done.
    shared.tell_later(revoked);
    shared.gateways.is_certain()?;
    shared.lease.confirm(asked);
    Ok(())
}

impl Shared {
    /// Drops rows, and has keys wiped; returns when both are gone.
    pub(super) fn changed(&self, tenant: Option<&[u8]>) {
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
