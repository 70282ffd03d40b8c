//! Reading rows, and committing batches of them.

use std::collections::BTreeSet;

use tokio::time::timeout;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row as SqlRow, Transaction};

use super::Shared;
use super::cache::tenant_of;
use super::fault::{Fault, of_commit};
use crate::error::Error;
use crate::store::{Expect, Row, Scanned, Table, Write};

/// How often a batch starts over when another transaction is in the way.
const ATTEMPTS: u32 = 4;

const GET: &str = "SELECT key, version, value FROM blindvault_rows WHERE kind = $1 AND key = $2";
/// Locks what is there, always in the same order, so that two batches cannot wait for each other.
const LOCK: &str = "SELECT r.kind, r.key, r.version, r.value FROM blindvault_rows r \
    JOIN UNNEST($1::TEXT[], $2::BYTEA[]) AS w (kind, key) ON r.kind = w.kind AND r.key = w.key \
    ORDER BY r.kind, r.key FOR UPDATE OF r";
const INSERT: &str = "INSERT INTO blindvault_rows (kind, key, version, value) \
    SELECT w.kind, w.key, 1, w.value FROM UNNEST($1::TEXT[], $2::BYTEA[], $3::BYTEA[]) AS w (kind, key, value) \
    ON CONFLICT (kind, key) DO NOTHING RETURNING kind, key";
const UPDATE: &str = "UPDATE blindvault_rows r SET version = w.version + 1, value = w.value \
    FROM UNNEST($1::TEXT[], $2::BYTEA[], $3::BIGINT[], $4::BYTEA[]) AS w (kind, key, version, value) \
    WHERE r.kind = w.kind AND r.key = w.key AND r.version = w.version";
/// Its row's lock is held until the commit, so epochs become visible in their order.
const EPOCH: &str = "UPDATE blindvault_epoch SET epoch = epoch + 1 WHERE id = 1 RETURNING epoch";
const CHANGE: &str = "INSERT INTO blindvault_changes (tenant, rows_epoch, keys_epoch) \
    SELECT w.tenant, $2, CASE WHEN w.keys THEN $2 ELSE 0 END FROM UNNEST($1::BYTEA[], $3::BOOLEAN[]) AS w (tenant, keys) \
    ON CONFLICT (tenant) DO UPDATE SET rows_epoch = EXCLUDED.rows_epoch, \
    keys_epoch = CASE WHEN EXCLUDED.keys_epoch > 0 THEN EXCLUDED.keys_epoch ELSE blindvault_changes.keys_epoch END";
const NOTIFY: &str = "SELECT pg_notify('blindvault_epoch', '')";

type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

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

/// The first key behind all that start with `prefix`; `None` if there is none.
fn behind(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut key = prefix.get(..=last)?.to_vec();
    *key.last_mut()? += 1;
    Some(key)
}

impl Shared {
    /// Runs one statement that reads. A connection that had died while it was idle is no reason to fail.
    async fn read(&self, sql: &str, parameters: &[Parameter<'_>]) -> Result<Vec<SqlRow>, Error> {
        loop {
            let loan = self.pool.take().await?;
            let fault = match timeout(self.limit, loan.connection.client.query_typed(sql, parameters)).await {
                Ok(Ok(rows)) => {
                    self.pool.give_back(loan);
                    return Ok(rows);
                }
                Ok(Err(error)) => Fault::from(error),
                Err(_) => return Err(Fault::Lost("the database did not answer in time").into()),
            };
            if !(loan.reused && matches!(fault, Fault::Lost(_))) {
                return Err(fault.into());
            }
            // The others of its age are dead too.
            self.pool.forget_idle();
        }
    }

    pub(super) async fn get(&self, table: Table, key: &[u8]) -> Result<Option<Row>, Error> {
        let stored_key = self.sealer.stored_key(table, key)?;
        let found = self.read(GET, &[(&table.name(), Type::TEXT), (&stored_key, Type::BYTEA)]).await?;
        let Some(found) = found.first() else { return Ok(None) };
        let scanned = self.open(table, found, 0)?;
        if scanned.key != key {
            return Err(Fault::Damaged("a row holds the key of another").into());
        }
        Ok(Some(scanned.row))
    }

    fn open(&self, table: Table, row: &SqlRow, first: usize) -> Result<Scanned, Error> {
        let (key, version, sealed): (&[u8], i64, &[u8]) = columns(row, first).map_err(Fault::from)?;
        self.sealer.open(table, key, version, sealed)
    }

    pub(super) async fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Scanned>, Error> {
        let prefix = self.sealer.stored_prefix(table, prefix)?;
        let after = after.map(|key| self.sealer.stored_key(table, key)).transpose()?;
        let (from, starts) = match &after {
            Some(after) if after.as_slice() >= prefix => (after.as_slice(), ">"),
            _ => (prefix, ">="),
        };
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let behind = behind(prefix);
        let name = table.name();
        let mut parameters: Vec<Parameter<'_>> = vec![(&name, Type::TEXT), (&from, Type::BYTEA), (&limit, Type::INT8)];
        let ends = match &behind {
            Some(behind) => {
                parameters.push((behind, Type::BYTEA));
                "AND key < $4 "
            }
            None => "",
        };
        let sql = format!(
            "SELECT key, version, value FROM blindvault_rows WHERE kind = $1 AND key {starts} $2 {ends}\
             ORDER BY key LIMIT $3"
        );
        self.read(&sql, &parameters).await?.iter().map(|row| self.open(table, row, 0)).collect()
    }

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
        match timeout(self.limit, work.commit()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(of_commit(Some(&error)).into()),
            Err(_) => Err(of_commit(None).into()),
        }
    }

    /// Everything but the COMMIT.
    async fn write(&self, work: &Transaction<'_>, batch: &[Stored]) -> Result<(), Stop> {
        self.lock(work, batch).await?;
        self.insert(work, batch).await?;
        let replaced: Vec<(&Stored, u64)> = batch
            .iter()
            .filter_map(|stored| match stored.write.expect {
                Expect::Version(version) => Some((stored, version)),
                Expect::Absent => None,
            })
            .collect();
        if replaced.is_empty() {
            return Ok(());
        }
        self.update(work, &replaced).await?;
        self.announce(work, &replaced).await
    }

    /// Locks the batch's rows that are there, and compares each with what is expected.
    async fn lock(&self, work: &Transaction<'_>, batch: &[Stored]) -> Result<(), Stop> {
        let kinds: Vec<&str> = batch.iter().map(|stored| stored.write.table.name()).collect();
        let keys: Vec<&[u8]> = batch.iter().map(|stored| stored.key.as_slice()).collect();
        let found = work.query_typed(LOCK, &[(&kinds, Type::TEXT_ARRAY), (&keys, Type::BYTEA_ARRAY)]).await?;
        let mut there = std::collections::BTreeMap::new();
        for row in &found {
            there.insert((row.try_get::<_, &str>(0)?, row.try_get::<_, &[u8]>(1)?), row);
        }
        for stored in batch {
            let table = stored.write.table;
            match (stored.write.expect, there.get(&(table.name(), stored.key.as_slice()))) {
                (Expect::Absent, None) => {}
                (Expect::Version(expected), Some(row)) => {
                    // What is to be replaced must be what was written, else nobody would hear of it again.
                    if self.open(table, row, 1)?.row.version != expected {
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
        let values = new.iter().map(|stored| self.sealed(stored, 1)).collect::<Result<Vec<_>, _>>()?;
        let parameters: &[Parameter<'_>] =
            &[(&kinds, Type::TEXT_ARRAY), (&keys, Type::BYTEA_ARRAY), (&values, Type::BYTEA_ARRAY)];
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

    async fn update(&self, work: &Transaction<'_>, replaced: &[(&Stored, u64)]) -> Result<(), Stop> {
        let kinds: Vec<&str> = replaced.iter().map(|(stored, _)| stored.write.table.name()).collect();
        let keys: Vec<&[u8]> = replaced.iter().map(|(stored, _)| stored.key.as_slice()).collect();
        let (mut versions, mut values) = (Vec::new(), Vec::new());
        for (stored, version) in replaced {
            let next = version.checked_add(1).filter(|next| i64::try_from(*next).is_ok());
            let next = next.ok_or(Error::Conflict(stored.write.table.name()))?;
            versions.push(i64::try_from(*version).unwrap_or(i64::MAX));
            values.push(self.sealed(stored, next)?);
        }
        let parameters: &[Parameter<'_>] = &[
            (&kinds, Type::TEXT_ARRAY),
            (&keys, Type::BYTEA_ARRAY),
            (&versions, Type::INT8_ARRAY),
            (&values, Type::BYTEA_ARRAY),
        ];
        let done = work.execute_typed(UPDATE, parameters).await?;
        // They are locked at these versions, so anything else is no work of ours.
        if usize::try_from(done) == Ok(replaced.len()) { Ok(()) } else { Err(Stop::Fault(Fault::Again)) }
    }

    /// Moves the revocation epoch on, and says whose rows changed and whose keys must go.
    async fn announce(&self, work: &Transaction<'_>, replaced: &[(&Stored, u64)]) -> Result<(), Stop> {
        let mut tenants = std::collections::BTreeMap::new();
        for (stored, _) in replaced {
            *tenants.entry(tenant_of(&stored.write.key)).or_insert(false) |= stored.write.table == Table::Tenants;
        }
        let (tenants, keys): (Vec<&[u8]>, Vec<bool>) = tenants.into_iter().unzip();
        let epoch: i64 = work.query_typed_one(EPOCH, &[]).await?.try_get(0)?;
        let parameters: &[Parameter<'_>] =
            &[(&tenants, Type::BYTEA_ARRAY), (&epoch, Type::INT8), (&keys, Type::BOOL_ARRAY)];
        work.execute_typed(CHANGE, parameters).await?;
        if self.notifies {
            work.query_typed(NOTIFY, &[]).await?;
        }
        Ok(())
    }

    fn sealed(&self, stored: &Stored, version: u64) -> Result<Vec<u8>, Error> {
        let Stored { write, key } = stored;
        self.sealer.seal(write.table, (&write.key, key), version, &write.value)
    }
}

const SLOW: Fault = Fault::Lost("the database did not answer in time; nothing was changed");

fn columns(row: &SqlRow, first: usize) -> Result<(&[u8], i64, &[u8]), tokio_postgres::Error> {
    Ok((row.try_get(first)?, row.try_get(first + 1)?, row.try_get(first + 2)?))
}

#[cfg(test)]
mod tests {
    use super::behind;

    #[test]
    fn the_end_of_a_prefix_is_behind_all_its_keys_and_before_the_next() {
        assert_eq!(behind(b"ab").as_deref(), Some(&b"ac"[..]));
        assert_eq!(behind(b"a\xff\xff").as_deref(), Some(&b"b"[..]));
        assert_eq!(behind(b"acme\0").as_deref(), Some(&b"acme\x01"[..]));
        assert_eq!(behind(b""), None);
        assert_eq!(behind(b"\xff\xff"), None);
    }
}
