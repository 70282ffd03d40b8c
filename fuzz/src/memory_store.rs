//! Rows in memory, which whoever runs the database may change as they like.

use std::collections::BTreeMap;
use std::future::ready;
use std::sync::{Arc, Mutex, MutexGuard};

use vault_core::Error;
use vault_core::store::{BoxFuture, Expect, Row, Scanned, Store, Table, Write};

/// All rows.
pub type Rows = BTreeMap<(Table, Vec<u8>), Row>;

/// A store without a checksum or a chain: nothing but the vault's own checks stands between its rows and a key.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore(Arc<Mutex<Rows>>);

impl MemoryStore {
    /// The rows, to read or to change.
    pub fn rows(&self) -> MutexGuard<'_, Rows> {
        self.0.lock().unwrap()
    }
}

impl Store for MemoryStore {
    fn get<'a>(&'a self, table: Table, key: &'a [u8]) -> BoxFuture<'a, Result<Option<Row>, Error>> {
        Box::pin(ready(Ok(self.rows().get(&(table, key.to_vec())).cloned())))
    }

    fn scan<'a>(
        &'a self,
        table: Table,
        prefix: &'a [u8],
        after: Option<&'a [u8]>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Scanned>, Error>> {
        let rows = self.rows();
        let found = rows.iter().filter(|((of, key), _)| {
            *of == table && key.starts_with(prefix) && after.is_none_or(|after| key.as_slice() > after)
        });
        let found = found.take(limit).map(|((_, key), row)| Scanned { key: key.clone(), row: row.clone() });
        Box::pin(ready(Ok(found.collect())))
    }

    fn commit(&self, writes: Vec<Write>) -> BoxFuture<'_, Result<(), Error>> {
        let mut rows = self.rows();
        for write in &writes {
            let found = rows.get(&(write.table, write.key.clone())).map(|row| row.version);
            let wanted = match write.expect {
                Expect::Absent => None,
                Expect::Version(version) => Some(version),
            };
            if found != wanted {
                return Box::pin(ready(Err(Error::Conflict(write.table.name()))));
            }
        }
        for write in writes {
            let row = rows.entry((write.table, write.key)).or_insert(Row { version: 0, value: Vec::new() });
            *row = Row { version: row.version + 1, value: write.value };
        }
        Box::pin(ready(Ok(())))
    }
}
