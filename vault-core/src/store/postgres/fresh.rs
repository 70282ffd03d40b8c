//! Whether a row is the newest: its version against the verified list of its tenant's replaced rows.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::timeout;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, IsolationLevel};

use super::Shared;
use super::chain::{Sum, Total, open_tenant};
use super::fault::Fault;
use super::seal::Sealer;
use crate::error::Error;

/// Replaced rows that are remembered, of all tenants together, some 40 bytes each; then all are forgotten, and read and
/// verified anew where they are needed.
const MOST: usize = 2_000_000;

const HEAD: &str = "SELECT rows_epoch, sealed FROM blindvault_changes WHERE tenant = $1";
const CHANGED: &str = "SELECT kind, key, version FROM blindvault_rows WHERE tenant = $1 AND changed > $2";

/// What is known of a tenant's replaced rows.
#[derive(Default)]
struct Known {
    /// As of this epoch; 0 for nothing.
    epoch: i64,
    sum: Sum,
    /// By 16 bytes that stand for table and key.
    versions: HashMap<[u8; 16], i64>,
}

/// What is known of all tenants.
pub(super) struct Freshness {
    /// The newest verified state of all.
    total: Mutex<Total>,
    /// The epoch of each tenant that has replaced rows, in that state.
    epochs: Mutex<HashMap<Vec<u8>, i64>>,
    tenants: Mutex<HashMap<Vec<u8>, Arc<tokio::sync::Mutex<Known>>>>,
    remembered: AtomicUsize,
    /// The database was seen in a state that does not continue this one, and in no good one since.
    astray: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const OLD: Fault = Fault::Damaged("an older state of a row or a tenant stands in the database");

/// A row as it was found: where, and at which version; 0 for none.
pub(super) struct Seen<'a> {
    pub(super) kind: &'a str,
    pub(super) key: &'a [u8],
    pub(super) version: i64,
}

impl Freshness {
    pub(super) fn new(total: Total, epochs: HashMap<Vec<u8>, i64>) -> Self {
        Self {
            total: Mutex::new(total),
            epochs: Mutex::new(epochs),
            tenants: Mutex::default(),
            remembered: AtomicUsize::new(0),
            astray: AtomicBool::new(false),
        }
    }

    /// Notes whether the database continues what is known.
    pub(super) fn set_astray(&self, astray: bool) {
        self.astray.store(astray, Ordering::Release);
    }

    /// Refuses a database that went astray.
    pub(super) fn check(&self) -> Result<(), Fault> {
        let why = "the database stands in a state that does not continue what is known";
        if self.astray.load(Ordering::Acquire) { Err(Fault::Damaged(why)) } else { Ok(()) }
    }

    /// The newest verified state.
    pub(super) fn total(&self) -> Total {
        *lock(&self.total)
    }

    /// The epoch of a tenant in that state.
    pub(super) fn epoch_of(&self, tenant: &[u8]) -> Option<i64> {
        lock(&self.epochs).get(tenant).copied()
    }

    /// Takes over a newer verified state, and the tenants that differ in it.
    pub(super) fn advance<'a>(&self, to: Total, changed: impl Iterator<Item = (&'a [u8], i64)>) {
        let mut epochs = lock(&self.epochs);
        for (tenant, epoch) in changed {
            epochs.insert(tenant.to_vec(), epoch);
        }
        *lock(&self.total) = to;
    }

    fn tenant(&self, tenant: &[u8]) -> Arc<tokio::sync::Mutex<Known>> {
        let mut tenants = lock(&self.tenants);
        if self.remembered.load(Ordering::Relaxed) > MOST {
            tenants.clear();
            self.remembered.store(0, Ordering::Relaxed);
        }
        Arc::clone(tenants.entry(tenant.to_vec()).or_default())
    }
}

/// Whether a head is behind what is known because the tenant changed, and that was confirmed, after it was read.
///
/// # Errors
/// [`OLD`] if what is known was known before.
fn is_behind(head: i64, known: i64, before: i64) -> Result<bool, Fault> {
    match head < known {
        true if known <= before => Err(OLD),
        behind => Ok(behind),
    }
}

/// Stands for a row, whatever its version.
fn name(sealer: &Sealer, kind: &str, key: &[u8]) -> Result<[u8; 16], Error> {
    let whole = sealer.element(&[kind.as_bytes(), key], 0)?;
    Ok(whole.first_chunk().copied().unwrap_or_default())
}

impl Shared {
    /// Whether rows of a tenant, read together with `head`, the epoch of its last change (0 if there was none), are the
    /// newest. `before` is the epoch of all that was known before they were read. `false` if more is known by now than was
    /// read: read again.
    pub(super) async fn is_newest(
        &self,
        tenant: &[u8],
        (before, head): (i64, i64),
        rows: &[Seen<'_>],
    ) -> Result<bool, Error> {
        self.fresh.check()?;
        if is_behind(head, self.fresh.epoch_of(tenant).unwrap_or(0), before)? {
            return Ok(false);
        }
        if head == 0 {
            // Nothing of this tenant was ever replaced.
            return if rows.iter().all(|row| row.version <= 1) { Ok(true) } else { Err(OLD.into()) };
        }
        let known = self.fresh.tenant(tenant);
        let mut known = known.lock().await;
        if known.epoch < head {
            let remembered = known.versions.len();
            if let Err(error) = self.catch_up(tenant, &mut known).await {
                *known = Known::default();
                return Err(error);
            }
            let more = known.versions.len().saturating_sub(remembered);
            self.fresh.remembered.fetch_add(more, Ordering::Relaxed);
        }
        if known.epoch != head {
            return Ok(false);
        }
        for row in rows {
            let newest = known.versions.get(&name(&self.sealer, row.kind, row.key)?).copied();
            // One that was never replaced has version 1, or is not there.
            if newest.map_or(row.version > 1, |newest| newest != row.version) {
                return Err(OLD.into());
            }
        }
        Ok(true)
    }

    /// Reads what changed of a tenant since, and verifies the whole.
    async fn catch_up(&self, tenant: &[u8], known: &mut Known) -> Result<(), Error> {
        let (head, rows) = loop {
            let mut loan = self.pool.take().await?;
            match timeout(self.limit, read_changed(&mut loan.connection.client, tenant, known.epoch)).await {
                Ok(Ok(read)) => {
                    self.pool.give_back(loan);
                    break read;
                }
                // It had died while it was idle.
                Ok(Err(Fault::Lost(_))) if loan.reused => self.pool.forget_idle(),
                Ok(Err(fault)) => return Err(fault.into()),
                Err(_) => return Err(Fault::Lost("the database did not answer in time").into()),
            }
        };
        let (epoch, sealed): (i64, Vec<u8>) = head.ok_or(OLD)?;
        for (kind, key, version) in rows {
            let place = [kind.as_bytes(), key.as_slice()];
            if let Some(before) = known.versions.insert(name(&self.sealer, &kind, &key)?, version) {
                known.sum.remove(self.sealer.element(&place, before)?);
            }
            known.sum.add(self.sealer.element(&place, version)?);
        }
        if open_tenant(&self.sealer, tenant, epoch, &sealed)?.sum != known.sum {
            return Err(OLD.into());
        }
        known.epoch = epoch;
        Ok(())
    }
}

type Changed = (Option<(i64, Vec<u8>)>, Vec<(String, Vec<u8>, i64)>);

/// A tenant's head, and its rows that were replaced after an epoch, of one moment.
async fn read_changed(client: &mut Client, tenant: &[u8], after: i64) -> Result<Changed, Fault> {
    let work = client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(true);
    let work = work.start().await?;
    let heads = work.query_typed(HEAD, &[(&tenant, Type::BYTEA)]).await?;
    let rows = work.query_typed(CHANGED, &[(&tenant, Type::BYTEA), (&after, Type::INT8)]).await?;
    work.commit().await?;
    let head = heads.first().map(|row| Ok::<_, tokio_postgres::Error>((row.try_get(0)?, row.try_get(1)?)));
    let rows = rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?)));
    Ok((head.transpose()?, rows.collect::<Result<_, tokio_postgres::Error>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_that_was_read_before_a_change_is_not_an_old_one() {
        // Known when it was read: the database stands as it was before.
        assert_eq!(is_behind(10, 11, 11), Err(OLD));
        assert_eq!(is_behind(0, 11, 20), Err(OLD));
        // Confirmed since.
        assert_eq!(is_behind(10, 12, 11), Ok(true));
        // The newest, or newer than what is known.
        assert_eq!(is_behind(11, 11, 11), Ok(false));
        assert_eq!(is_behind(12, 11, 30), Ok(false));
    }
}
