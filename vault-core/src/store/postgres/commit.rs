//! Committing batches of rows.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::timeout;
use tokio::try_join;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Transaction};

use super::Shared;
use super::cache::tenant_of;
use super::chain::{Change, Head, Total, link, open_tenant, seal_tenant};
use super::fault::{Fault, of_commit};
use super::rows::Parameter;
use crate::error::Error;
use crate::failpoint::{Step, around};
use crate::store::{Expect, Table, Write};

/// How often a batch starts over when another transaction is in the way.
const ATTEMPTS: u32 = 4;

/// Locks what is there, always in the same order, so that two batches cannot wait for each other.
const LOCK: &str = "SELECT r.kind, r.key, r.version, r.value FROM blindvault_rows r \
    JOIN UNNEST($1::TEXT[], $2::BYTEA[]) AS w (kind, key) ON r.kind = w.kind AND r.key = w.key \
    ORDER BY r.kind, r.key FOR UPDATE OF r";
const INSERT: &str = "INSERT INTO blindvault_rows (kind, key, version, value, tenant, changed) \
    SELECT w.kind, w.key, 1, w.value, w.tenant, 0 \
    FROM UNNEST($1::TEXT[], $2::BYTEA[], $3::BYTEA[], $4::BYTEA[]) AS w (kind, key, value, tenant) \
    ON CONFLICT (kind, key) DO NOTHING RETURNING kind, key";
const UPDATE: &str = "UPDATE blindvault_rows r SET version = w.version + 1, value = w.value, changed = $5 \
    FROM UNNEST($1::TEXT[], $2::BYTEA[], $3::BIGINT[], $4::BYTEA[]) AS w (kind, key, version, value) \
    WHERE r.kind = w.kind AND r.key = w.key AND r.version = w.version";
/// Its row's lock is held until the commit, so epochs become visible in their order.
const EPOCH: &str = "SELECT epoch, sealed FROM blindvault_epoch WHERE id = 1 FOR UPDATE";
const HEADS: &str = "SELECT tenant, rows_epoch, sealed FROM blindvault_changes WHERE tenant = ANY($1)";
const ADVANCE: &str = "UPDATE blindvault_epoch SET epoch = $1, sealed = $2 WHERE id = 1";
const CHANGE: &str = "INSERT INTO blindvault_changes (tenant, rows_epoch, sealed) \
    SELECT w.tenant, $1, w.sealed FROM UNNEST($2::BYTEA[], $3::BYTEA[]) AS w (tenant, sealed) \
    ON CONFLICT (tenant) DO UPDATE SET rows_epoch = EXCLUDED.rows_epoch, sealed = EXCLUDED.sealed";
const LINK: &str = "INSERT INTO blindvault_chain (epoch, digest) VALUES ($1, $2)";
const NOTIFY: &str = "SELECT pg_notify('blindvault_epoch', '')";
/// Instead of it, where there is none.
const NOTHING: &str = "SELECT 1";

const SLOW: Fault = Fault::Lost("the database did not answer in time; nothing was changed");

/// Why a batch was not written.
enum Stop {
    Fault(Fault),
    Error(Error),
}

impl From<tokio_postgres::Error> for Stop {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Fault(error.into())
    }
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// A write, and its key in the database.
struct Stored {
    write: Write,
    key: Vec<u8>,
}

/// A row to be replaced: its version so far, and what takes its place.
struct Replaced<'a> {
    stored: &'a Stored,
    version: i64,
    value: Vec<u8>,
}

impl Shared {
    /// Writes a batch whose bounds were checked.
    pub(super) async fn commit(&self, writes: Vec<Write>) -> Result<(), Error> {
        let mut batch = Vec::with_capacity(writes.len());
        for write in writes {
            batch.push(Stored { key: self.sealer.stored_key(write.table, &write.key)?, write });
        }
        batch.sort_by(|a, b| (a.write.table.name(), &a.key).cmp(&(b.write.table.name(), &b.key)));
        let result = self.commit_sorted(&batch).await;
        // Whatever became of it: what is in memory may be older now, or was the reason of a conflict.
        let tenants: BTreeSet<&[u8]> = batch.iter().map(|stored| tenant_of(&stored.write.key)).collect();
        for tenant in tenants {
            self.cache.drop_tenant(tenant);
        }
        result
    }

    async fn commit_sorted(&self, batch: &[Stored]) -> Result<(), Error> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let mut loan = self.pool.take().await?;
            let stop = match self.attempt(&mut loan.connection.client, batch).await {
                Ok(()) => {
                    self.pool.give_back(loan);
                    return Ok(());
                }
                // Dropping the transaction has sent its ROLLBACK ahead of what comes next.
                Err(Stop::Error(error @ Error::Conflict(_))) => {
                    self.pool.give_back(loan);
                    return Err(error);
                }
                // Else the transaction ends with its connection; it never came to its COMMIT, or that said how it ended.
                Err(stop) => stop,
            };
            match stop {
                Stop::Error(error) => return Err(error),
                Stop::Fault(Fault::Again) if attempts < ATTEMPTS => {}
                Stop::Fault(Fault::Lost(_)) if loan.reused && attempts < ATTEMPTS => self.pool.forget_idle(),
                Stop::Fault(fault) => return Err(fault.into()),
            }
        }
    }

    /// One transaction. Unless it commits it is rolled back; after a fault its connection is of no use.
    async fn attempt(&self, client: &mut Client, batch: &[Stored]) -> Result<(), Stop> {
        let begun = timeout(self.limit, async {
            let work = client.transaction().await?;
            self.write(&work, batch).await?;
            // A statement that is cut short on the server while it waits for a standby reports success. So COMMIT has
            // no limit there, only here.
            work.batch_execute("SET LOCAL statement_timeout = 0").await?;
            Ok::<_, Stop>(work)
        });
        let work = begun.await.map_err(|_| SLOW)??;
        match timeout(self.limit, around(Step::StoreCommit, work.commit())).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(of_commit(Some(&error)).into()),
            Err(_) => Err(of_commit(None).into()),
        }
    }

    /// Everything but the COMMIT.
    async fn write(&self, work: &Transaction<'_>, batch: &[Stored]) -> Result<(), Stop> {
        self.lock(work, batch).await?;
        self.insert(work, batch).await?;
        let mut replaced = Vec::new();
        for stored in batch {
            if let Expect::Version(version) = stored.write.expect {
                // It was found at this version, so it is one.
                let next = i64::try_from(version).ok().and_then(|version| version.checked_add(1));
                let next = next.ok_or(Error::Conflict(stored.write.table.name()))?;
                replaced.push(Replaced { stored, version: next - 1, value: self.sealed(stored, version + 1)? });
            }
        }
        if replaced.is_empty() { Ok(()) } else { self.replace(work, &replaced).await }
    }

    /// Locks the batch's rows that are there, and compares each with what is expected.
    async fn lock(&self, work: &Transaction<'_>, batch: &[Stored]) -> Result<(), Stop> {
        let kinds: Vec<&str> = batch.iter().map(|stored| stored.write.table.name()).collect();
        let keys: Vec<&[u8]> = batch.iter().map(|stored| stored.key.as_slice()).collect();
        let found = work.query_typed(LOCK, &[(&kinds, Type::TEXT_ARRAY), (&keys, Type::BYTEA_ARRAY)]).await?;
        let mut there = BTreeMap::new();
        for row in &found {
            let place: (&str, &[u8]) = (row.try_get(0)?, row.try_get(1)?);
            there.insert(place, (row.try_get::<_, i64>(2)?, row.try_get::<_, &[u8]>(3)?));
        }
        for stored in batch {
            let table = stored.write.table;
            match (stored.write.expect, there.get(&(table.name(), stored.key.as_slice()))) {
                (Expect::Absent, None) => {}
                (Expect::Version(expected), Some((version, value))) => {
                    // What is to be replaced must be what was written, else nobody would hear of it again.
                    if self.sealer.open(table, &stored.key, *version, value)?.row.version != expected {
                        return Err(Error::Conflict(table.name()).into());
                    }
                }
                _ => return Err(Error::Conflict(table.name()).into()),
            }
        }
        Ok(())
    }

    async fn insert(&self, work: &Transaction<'_>, batch: &[Stored]) -> Result<(), Stop> {
        let new: Vec<&Stored> = batch.iter().filter(|stored| stored.write.expect == Expect::Absent).collect();
        if new.is_empty() {
            return Ok(());
        }
        let kinds: Vec<&str> = new.iter().map(|stored| stored.write.table.name()).collect();
        let keys: Vec<&[u8]> = new.iter().map(|stored| stored.key.as_slice()).collect();
        let tenants: Vec<&[u8]> = new.iter().map(|stored| tenant_of(&stored.write.key)).collect();
        let values = new.iter().map(|stored| self.sealed(stored, 1)).collect::<Result<Vec<_>, _>>()?;
        let parameters: &[Parameter<'_>] = &[
            (&kinds, Type::TEXT_ARRAY),
            (&keys, Type::BYTEA_ARRAY),
            (&values, Type::BYTEA_ARRAY),
            (&tenants, Type::BYTEA_ARRAY),
        ];
        let made = work.query_typed(INSERT, parameters).await?;
        if made.len() == new.len() {
            return Ok(());
        }
        // Another batch made one of them since they were looked at.
        let mut rows = BTreeSet::new();
        for row in &made {
            rows.insert((row.try_get::<_, &str>(0)?, row.try_get::<_, &[u8]>(1)?));
        }
        let lost = new.iter().find(|stored| !rows.contains(&(stored.write.table.name(), stored.key.as_slice())));
        Err(Error::Conflict(lost.map_or("rows", |stored| stored.write.table.name())).into())
    }

    /// Replaces rows: moves the epoch on, links the change to the chain, says whose rows changed and whose keys must go.
    async fn replace(&self, work: &Transaction<'_>, replaced: &[Replaced<'_>]) -> Result<(), Stop> {
        let mut by_tenant: BTreeMap<&[u8], Vec<&Replaced<'_>>> = BTreeMap::new();
        for row in replaced {
            by_tenant.entry(tenant_of(&row.stored.write.key)).or_default().push(row);
        }
        let tenants: Vec<&[u8]> = by_tenant.keys().copied().collect();
        let wanted: &[Parameter<'_>] = &[(&tenants, Type::BYTEA_ARRAY)];
        // In this order: the second sees what the lock of the first has waited for.
        let (total, heads) = try_join!(biased; work.query_typed_one(EPOCH, &[]), work.query_typed(HEADS, wanted))?;
        self.fresh.check()?;
        let mut total = Total::open(&self.sealer, total.try_get(0)?, total.try_get(1)?)?;
        if total.epoch < self.fresh.total().epoch {
            return Err(Fault::Damaged("the database stands as it was before a change that is known").into());
        }
        let mut before = BTreeMap::new();
        for head in &heads {
            let (tenant, epoch, sealed): (&[u8], i64, &[u8]) = (head.try_get(0)?, head.try_get(1)?, head.try_get(2)?);
            before.insert(tenant, (epoch, open_tenant(&self.sealer, tenant, epoch, sealed)?));
        }
        let epoch = total.epoch.checked_add(1).ok_or(Fault::Refused("the revocation epoch is used up"))?;
        let (mut change, mut sealed) = (Change::new(), Vec::new());
        for (tenant, rows) in &by_tenant {
            let (last, mut head) = before.get(tenant).map_or((None, Head::default()), |(at, head)| (Some(*at), *head));
            for row in rows {
                let kind = row.stored.write.table.name();
                let place = [kind.as_bytes(), row.stored.key.as_slice()];
                if row.version > 1 {
                    head.sum.remove(self.sealer.element(&place, row.version)?);
                }
                head.sum.add(self.sealer.element(&place, row.version + 1)?);
                change.row(kind, &row.stored.key, row.version + 1, &row.value);
            }
            total.advance(&self.sealer, tenant, last, epoch)?;
            if rows.iter().map(|row| &row.stored.write).any(|row| row.revokes || row.table == Table::Tenants) {
                head.keys = epoch;
            }
            sealed.push(seal_tenant(&self.sealer, tenant, epoch, head)?);
        }
        let digest = change.digest();
        total = Total { epoch, chain: link(&total.chain, epoch, &digest), ..total };
        let total = total.seal(&self.sealer)?;
        let digest = digest.as_slice();
        let kinds: Vec<&str> = replaced.iter().map(|row| row.stored.write.table.name()).collect();
        let places: Vec<&[u8]> = replaced.iter().map(|row| row.stored.key.as_slice()).collect();
        let versions: Vec<i64> = replaced.iter().map(|row| row.version).collect();
        let values: Vec<&[u8]> = replaced.iter().map(|row| row.value.as_slice()).collect();
        let update: &[Parameter<'_>] = &[
            (&kinds, Type::TEXT_ARRAY),
            (&places, Type::BYTEA_ARRAY),
            (&versions, Type::INT8_ARRAY),
            (&values, Type::BYTEA_ARRAY),
            (&epoch, Type::INT8),
        ];
        let advance: &[Parameter<'_>] = &[(&epoch, Type::INT8), (&total, Type::BYTEA)];
        let changes: &[Parameter<'_>] =
            &[(&epoch, Type::INT8), (&tenants, Type::BYTEA_ARRAY), (&sealed, Type::BYTEA_ARRAY)];
        let linked: &[Parameter<'_>] = &[(&epoch, Type::INT8), (&digest, Type::BYTEA)];
        // One way to the database and back for all of them.
        let (updated, ..) = try_join!(
            biased;
            work.execute_typed(UPDATE, update),
            work.execute_typed(ADVANCE, advance),
            work.execute_typed(CHANGE, changes),
            work.execute_typed(LINK, linked),
            work.query_typed(if self.notifies { NOTIFY } else { NOTHING }, &[]),
        )?;
        // They are locked at these versions, so anything else is no work of ours.
        if usize::try_from(updated) == Ok(replaced.len()) { Ok(()) } else { Err(Stop::Fault(Fault::Again)) }
    }

    fn sealed(&self, stored: &Stored, version: u64) -> Result<Vec<u8>, Error> {
        let Stored { write, key } = stored;
        self.sealer.seal(write.table, (&write.key, key), version, &write.value)
    }
}
