//! redb behind a fence: its errors sorted, its panics caught.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

use redb::{Database, ReadableDatabase, TableDefinition, TableError};

use super::cache::RowCache;
use super::row;
use super::{Row, Scanned, Table, Write};
use crate::error::{Dependency, Error};
use crate::fs::Lock;

/// What redb stores, under a table's name.
pub(super) type Bytes = TableDefinition<'static, &'static [u8], &'static [u8]>;

/// The redb table of a [`Table`].
pub(super) const fn bytes_of(table: Table) -> Bytes {
    TableDefinition::new(table.name())
}

/// How redb failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// The file is not what was written; where.
    Damage(String),
    /// The disk did not do its part.
    Io,
    /// redb found its own state impossible.
    Panic,
}

impl<E: Into<redb::Error>> From<E> for Fault {
    fn from(error: E) -> Self {
        use std::io::ErrorKind;
        match error.into() {
            redb::Error::Corrupted(at) => Self::Damage(at),
            redb::Error::UpgradeRequired(version) => Self::Damage(format!("file format {version} is not supported")),
            redb::Error::Io(error) => match error.kind() {
                ErrorKind::UnexpectedEof => Self::Damage("the file ends before a page that belongs to it".into()),
                ErrorKind::InvalidData => Self::Damage("the header is not that of a store".into()),
                _ => Self::Io,
            },
            // What is stored under a table's name is not the table; its text may hold what stands there.
            redb::Error::TableTypeMismatch { .. }
            | redb::Error::TableIsMultimap(_)
            | redb::Error::TypeDefinitionChanged { .. } => Self::Damage("a table has another type".into()),
            redb::Error::TableDoesNotExist(_) => Self::Damage("a table is missing".into()),
            _ => Self::Io,
        }
    }
}

/// Runs what calls redb. redb may panic on a damaged file, and must not take the process along.
pub(super) fn fenced<T>(f: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    // Whatever a panic leaves behind in redb is not used again: every caller fails closed.
    catch_unwind(AssertUnwindSafe(f)).unwrap_or(Err(Fault::Panic))
}

/// Gives up a database; the close may write, fail and panic.
pub(super) fn close(db: Database) -> Result<(), Fault> {
    fenced(|| Ok(db.close()?))
}

/// Rows in memory at most; some 50 MB.
const CACHED: usize = 100_000;

/// The open database with all that its users on several threads share.
#[derive(Debug)]
pub(super) struct Engine {
    /// Gone only while dropping.
    db: Option<Database>,
    /// For messages.
    file: String,
    failed: AtomicBool,
    /// What data calls read again and again. Nobody else writes this file, so a row in here is the newest until the
    /// writing thread drops it, which it does before it says that a newer one is durable.
    rows: RowCache,
    /// Given up after the database is closed.
    _lock: Box<dyn Lock>,
}

impl Engine {
    pub(super) fn new(db: Database, file: String, lock: Box<dyn Lock>) -> Self {
        Self { db: Some(db), file, failed: AtomicBool::new(false), rows: RowCache::new(CACHED), _lock: lock }
    }

    /// The database, unless it has failed before.
    pub(super) fn db(&self) -> Result<&Database, Error> {
        match &self.db {
            Some(db) if !self.failed.load(Ordering::Acquire) => Ok(db),
            _ => Err(Error::unavailable(Dependency::Store, "it failed before; see the disk to rights and restart")),
        }
    }

    /// From here on every call is refused.
    pub(super) fn fail(&self) {
        self.failed.store(true, Ordering::Release);
    }

    /// The error for a caller. After anything but damage found by reading, the store is closed for good.
    pub(super) fn error(&self, fault: Fault) -> Error {
        match fault {
            Fault::Damage(at) => Error::corrupt(&self.file, at),
            Fault::Io => {
                self.fail();
                Error::unavailable(Dependency::Store, "reading or writing its file failed")
            }
            Fault::Panic => {
                self.fail();
                Error::unavailable(Dependency::Store, "its file or its state is not as it should be")
            }
        }
    }

    pub(super) fn get(&self, table: Table, key: &[u8]) -> Result<Option<Row>, Error> {
        let db = self.db()?;
        fenced(|| {
            let txn = db.begin_read()?;
            match txn.open_table(bytes_of(table)) {
                Ok(rows) => rows.get(key)?.map(|bytes| decode(table, key, bytes.value())).transpose(),
                Err(TableError::TableDoesNotExist(_)) => Ok(None),
                Err(error) => Err(error.into()),
            }
        })
        .map_err(|fault| self.error(fault))
    }

    /// The same, perhaps from memory.
    pub(super) fn get_cached(&self, table: Table, key: &[u8]) -> Result<Option<Row>, Error> {
        // What has failed serves nothing, from memory neither.
        self.db()?;
        let ticket = match self.rows.get(table, key) {
            Ok(row) => return Ok(Some(row)),
            Err(ticket) => ticket,
        };
        let row = self.get(table, key)?;
        if let Some(row) = &row {
            self.rows.put(table, key, row, ticket);
        }
        Ok(row)
    }

    /// Forgets rows that were written, or may have been.
    pub(super) fn forget(&self, writes: &[Write]) {
        for write in writes {
            self.rows.drop_row(write.table, &write.key);
        }
    }

    pub(super) fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Scanned>, Error> {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        let db = self.db()?;
        let from = match after {
            Some(after) if after >= prefix => Excluded(after),
            _ => Included(prefix),
        };
        fenced(|| {
            let txn = db.begin_read()?;
            let rows = match txn.open_table(bytes_of(table)) {
                Ok(rows) => rows,
                Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
                Err(error) => return Err(error.into()),
            };
            let mut found = Vec::new();
            for entry in rows.range::<&[u8]>((from, Unbounded))?.take(limit) {
                let (key, bytes) = entry?;
                let key = key.value();
                if !key.starts_with(prefix) {
                    break;
                }
                found.push(Scanned { key: key.to_vec(), row: decode(table, key, bytes.value())? });
            }
            Ok(found)
        })
        .map_err(|fault| self.error(fault))
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(db) = self.db.take() {
            // Nothing hangs on a clean close: every commit is durable, and the next open checks the file anyway.
            let _ = close(db);
        }
    }
}

/// The row in a table's bytes; says which table and how far into it by the key's length only, as keys are not ours to
/// print.
pub(super) fn decode(table: Table, key: &[u8], bytes: &[u8]) -> Result<Row, Fault> {
    row::decode(table, key, bytes)
        .map_err(|damage| Fault::Damage(format!("a row of table {}: {}", table.name(), damage.text())))
}
