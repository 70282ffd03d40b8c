//! Restoring a backup into a store.

use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};

use super::read::Reader;
use super::{READ_ORDER, Report, verify};
use crate::error::{Dependency, Error};
use crate::keys::is_tombstone;
use crate::kms::Roots;
use crate::store::{Expect, Store, Table, Write};

/// Rows written in one commit.
const STEP: usize = 256;

/// What a restore did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// What the backup holds.
    pub backup: Report,
    /// Rows written; the others were there already, from a restore that was interrupted.
    pub written: u64,
    /// Tombstones of newer backups that took the place of a row, or were added.
    pub tombstones: u64,
}

/// A backup file, read more than once.
pub trait Source: Read + Seek + Send {}
impl<T: Read + Seek + Send> Source for T {}

fn rewound(from: &mut dyn Source) -> Result<&mut dyn Source, Error> {
    from.seek(SeekFrom::Start(0)).map_err(|_| Error::unavailable(Dependency::Store, "the backup cannot be read"))?;
    Ok(from)
}

type Tombstones = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

/// Restores a backup into a store that is empty, or that holds a part of the same restore: one that was interrupted is
/// called again and goes on. The rows of `tenants` come last: until they are there no call finds its tenant, so nothing
/// works on half a store.
///
/// `newer` are backups made after this one. Of each only the tombstones count, and they win: what was shredded between
/// the two stays shredded. What was shredded after the newest of them comes back; shred it again.
///
/// Everything is verified before the first row is written.
///
/// # Errors
/// Those of [`verify`]; [`Error::FailedPrecondition`] for a store that holds anything else, and for a `newer` backup
/// that is not newer.
pub async fn restore(
    from: &mut dyn Source,
    newer: &mut [&mut dyn Source],
    store: &dyn Store,
    roots: &Roots,
    instance: &str,
) -> Result<Restored, Error> {
    let backup = verify(&mut rewound(from)?, roots, instance).await?;
    let mut tombstones = Tombstones::new();
    for later in newer {
        if verify(&mut rewound(*later)?, roots, instance).await?.created < backup.created {
            return Err(Error::FailedPrecondition("a backup to take tombstones from is older than the one restored"));
        }
        let mut from = rewound(*later)?;
        let mut reader = Reader::open(&mut from, roots, instance).await?;
        while let Some((table, key, value)) = reader.row()? {
            if is_tombstone(table, &value) {
                tombstones.insert((table, key), value);
            }
        }
    }
    check_target(from, &tombstones, store, roots, instance).await?;
    let mut restoring = Restoring { store, written: 0 };
    let mut applied = 0;
    // What the table `tenants` refers to is there before it.
    for table in READ_ORDER.into_iter().filter(|table| *table != Table::Tenants).chain([Table::Tenants]) {
        let mut left: BTreeMap<&[u8], &[u8]> = tombstones
            .iter()
            .filter(|((of, _), _)| *of == table)
            .map(|((_, key), value)| (key.as_slice(), value.as_slice()))
            .collect();
        let mut from = rewound(from)?;
        let mut reader = Reader::open(&mut from, roots, instance).await?;
        let mut rows = Vec::with_capacity(STEP);
        while let Some((of, key, value)) = reader.row()? {
            if of != table {
                continue;
            }
            let value = left.remove(key.as_slice()).map_or(value, |tombstone| {
                applied += 1;
                tombstone.to_vec()
            });
            rows.push((key, value));
            if rows.len() == STEP {
                restoring.put(table, std::mem::take(&mut rows)).await?;
            }
        }
        for (key, value) in left {
            applied += 1;
            rows.push((key.to_vec(), value.to_vec()));
        }
        for step in rows.chunks(STEP) {
            restoring.put(table, step.to_vec()).await?;
        }
    }
    Ok(Restored { backup, written: restoring.written, tombstones: applied })
}

/// Refuses a store with rows that this restore would not write.
async fn check_target(
    from: &mut dyn Source,
    tombstones: &Tombstones,
    store: &dyn Store,
    roots: &Roots,
    instance: &str,
) -> Result<(), Error> {
    let mut there: BTreeMap<(Table, Vec<u8>), Vec<u8>> = BTreeMap::new();
    for table in Table::ALL {
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = store.scan(table, b"", after.as_deref(), STEP).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.key.clone());
            there.extend(page.into_iter().map(|scanned| ((table, scanned.key), scanned.row.value)));
        }
    }
    if there.is_empty() {
        return Ok(());
    }
    there.retain(|row, value| tombstones.get(row) != Some(value));
    let mut from = rewound(from)?;
    let mut reader = Reader::open(&mut from, roots, instance).await?;
    while let Some((table, key, value)) = reader.row()? {
        let row = (table, key);
        if !tombstones.contains_key(&row) && there.get(&row) == Some(&value) {
            there.remove(&row);
        }
    }
    if there.is_empty() {
        Ok(())
    } else {
        Err(Error::FailedPrecondition("the store holds rows that are not of this backup; restore into an empty one"))
    }
}

struct Restoring<'a> {
    store: &'a dyn Store,
    written: u64,
}

impl Restoring<'_> {
    /// Writes rows that are not there yet.
    async fn put(&mut self, table: Table, rows: Vec<(Vec<u8>, Vec<u8>)>) -> Result<(), Error> {
        let mut writes = Vec::with_capacity(rows.len());
        for (key, value) in rows {
            if self.store.get(table, &key).await?.is_none() {
                writes.push(Write { table, key, expect: Expect::Absent, value, revokes: false });
            }
        }
        self.written += writes.len() as u64;
        if writes.is_empty() { Ok(()) } else { self.store.commit(writes).await }
    }
}
