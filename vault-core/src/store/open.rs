//! From a path to a database that is known to be whole.

use std::io;
use std::path::{Path, PathBuf};

use redb::{
    Builder, Database, Durability, ReadTransaction, ReadableDatabase, ReadableTable, StorageBackend, TableHandle,
    WriteTransaction,
};

use super::Table;
use super::backend::FileBackend;
use super::engine::{Bytes, Fault, bytes_of, close, decode, fenced};
use super::header::{self, FLAGS_AT, HEADER_LEN, Header};
use super::overlay::Overlay;
use crate::error::{Dependency, Error};
use crate::fs::{File, Fs, Open};

/// The version of what stands in the tables, in the table [`META`].
const FORMAT: u32 = 3;
/// The versions before, each with how many of the tables it had, the first ones. A store of such a version is brought to
/// this one when it is opened.
const BEFORE: [(u32, usize); 2] = [(1, 6), (2, 10)];
const FORMAT_KEY: &[u8] = b"format";
const META: Bytes = Bytes::new("blindvault");

/// redb's page cache for a store in use, and while checking.
const CACHE: usize = 64 << 20;
const CHECK_CACHE: usize = 8 << 20;
/// Bytes rewritten at a time.
const REWRITE: usize = 1 << 20;

const fn unavailable(why: &'static str) -> Error {
    Error::unavailable(Dependency::Store, why)
}

/// A path with something behind its file name.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn builder(cache: usize) -> Builder {
    let mut builder = Builder::new();
    // Nothing in the file is taken on trust: page checksums are all checked, and the free pages found anew.
    builder.set_cache_size(cache).set_check_integrity_on_open(true);
    builder
}

/// Makes an empty store under another name and renames it when it is whole and durable: the name never stands for
/// half a store. The rename is made durable by [`open`].
pub(super) fn create(fs: &dyn Fs, path: &Path) -> Result<(), Error> {
    const FAILED: Error = unavailable("its file could not be created");
    let aside = beside(path, ".new");
    if fs.exists(&aside) {
        // Left by a process that died right here; nothing in it was ever acknowledged.
        fs.remove(&aside).map_err(|_| FAILED)?;
    }
    let file = fs.open(&aside, Open::CreateNew).map_err(|_| FAILED)?;
    let db = fenced(|| Ok(builder(CHECK_CACHE).create_with_backend(FileBackend::new(file, None))?));
    let db = db.map_err(|_| FAILED)?;
    let filled = fenced(|| {
        let mut txn = db.begin_write()?;
        txn.set_durability(Durability::Immediate)?;
        txn.set_two_phase_commit(true);
        fill(&txn)?;
        Ok(txn.commit()?)
    });
    // The close syncs what it writes.
    filled.and(close(db)).map_err(|_| FAILED)?;
    fs.rename(&aside, path).map_err(|_| FAILED)
}

/// Checks the whole file without changing a byte of it, and only then opens it.
pub(super) fn open(fs: &dyn Fs, path: &Path, dir: &Path) -> Result<Database, Error> {
    const FAILED: Error = unavailable("its file could not be read");
    const UNWRITABLE: Error = unavailable("its file could not be written; is the disk full?");
    let what = path.display().to_string();
    let damaged = |fault| match fault {
        Fault::Damage(at) => Error::corrupt(&what, at),
        Fault::Panic => Error::corrupt(&what, "its pages contradict each other"),
        Fault::Io => FAILED,
    };
    let read = || fs.open(path, Open::Read).map_err(|_| FAILED);
    let header = inspect(&*read()?).map_err(damaged)?;
    check(read()?, header.show).map_err(damaged)?;
    // Of this process or of one that died before it got so far: what is acknowledged below this name needs the name.
    fs.sync_dir(dir).map_err(|_| unavailable("its directory could not be synced"))?;
    let file = fs.open(path, Open::ReadWrite).map_err(|_| unavailable("its file could not be opened for writing"))?;
    if header.unclosed {
        rewrite(&*file).map_err(|_| UNWRITABLE)?;
    }
    let opened = fenced(|| {
        let db = builder(CACHE).create_with_backend(FileBackend::new(file, header.show))?;
        bring_forward(&db)?;
        Ok(db)
    });
    opened.map_err(|fault| match fault {
        Fault::Io => UNWRITABLE,
        other => damaged(other),
    })
}

/// Adds the tables that a store of a version before does not have, and says so in its format, in one commit.
fn bring_forward(db: &Database) -> Result<(), Fault> {
    if format(&db.begin_read()?)? == Some(FORMAT) {
        return Ok(());
    }
    let mut txn = db.begin_write()?;
    txn.set_durability(Durability::Immediate)?;
    txn.set_two_phase_commit(true);
    fill(&txn)?;
    Ok(txn.commit()?)
}

/// Makes the tables that are not there, and writes the format.
fn fill(txn: &WriteTransaction) -> Result<(), Fault> {
    for table in Table::ALL {
        txn.open_table(bytes_of(table))?;
    }
    txn.open_table(META)?.insert(FORMAT_KEY, FORMAT.to_be_bytes().as_slice())?;
    Ok(())
}

fn format(txn: &ReadTransaction) -> Result<Option<u32>, Fault> {
    Ok(match txn.open_table(META)?.get(FORMAT_KEY)? {
        Some(bytes) => bytes.value().first_chunk::<4>().copied().map(u32::from_be_bytes),
        None => None,
    })
}

/// Writes the file's bytes over themselves. After a sync that failed, the kernel may show bytes that it will never
/// write: the file reads as whole, and is not once the power goes. So what the last process left unclosed is written
/// once more, for redb's next sync to carry; it syncs once before it changes which commit is current.
fn rewrite(file: &dyn File) -> io::Result<()> {
    let len = file.len()?;
    file.set_len(len)?;
    let mut bytes = vec![0; REWRITE];
    let mut at = 0;
    while at < len {
        let take = usize::try_from(len - at).unwrap_or(REWRITE).min(REWRITE);
        let Some(piece) = bytes.get_mut(..take) else { break };
        file.read_exact_at(at, piece)?;
        file.write_all_at(at, piece)?;
        at += take as u64;
    }
    Ok(())
}

fn inspect(file: &dyn File) -> Result<Header, Fault> {
    let len = file.len().map_err(|_| Fault::Io)?;
    if len < HEADER_LEN as u64 {
        return Err(Fault::Damage(format!("it has {len} bytes, and a store is never shorter than its header")));
    }
    let mut bytes = [0; HEADER_LEN];
    file.read_exact_at(0, &mut bytes).map_err(|_| Fault::Io)?;
    header::inspect(&bytes).map_err(|why| Fault::Damage(why.into()))
}

/// Opens the file in memory, repairs and all, and reads every row.
fn check(file: Box<dyn File>, flags: Option<u8>) -> Result<(), Fault> {
    let overlay = Overlay::over(file).map_err(|_| Fault::Io)?;
    if let Some(flags) = flags {
        overlay.write(FLAGS_AT as u64, &[flags]).map_err(|_| Fault::Io)?;
    }
    let db = fenced(|| Ok(builder(CHECK_CACHE).create_with_backend(overlay)?))?;
    let walked = fenced(|| walk(&db));
    // Writes to memory only, so its failure is a fault found late.
    walked.and(close(db))
}

fn walk(db: &Database) -> Result<(), Fault> {
    let txn = db.begin_read()?;
    // First, as a newer format may have other tables.
    let found = format(&txn)?;
    let tables = match found {
        Some(FORMAT) => Some(Table::ALL.len()),
        Some(newer) if newer > FORMAT => {
            return Err(Fault::Damage(format!(
                "row format {newer} is newer than {FORMAT}, which this program reads; use the program that wrote it"
            )));
        }
        _ => BEFORE.iter().find(|(before, _)| Some(*before) == found).map(|(_, tables)| *tables),
    };
    let tables = tables.ok_or_else(|| Fault::Damage("the row format's version is missing".into()))?;
    let known = |name: &str| name == META.name() || Table::ALL.iter().take(tables).any(|table| table.name() == name);
    if !txn.list_tables()?.all(|table| known(table.name())) || txn.list_multimap_tables()?.next().is_some() {
        return Err(Fault::Damage("a table that does not belong to a store".into()));
    }
    for table in Table::ALL.into_iter().take(tables) {
        for (n, entry) in txn.open_table(bytes_of(table))?.iter()?.enumerate() {
            let (key, bytes) = entry?;
            decode(table, key.value(), bytes.value()).map_err(|fault| match fault {
                Fault::Damage(at) => Fault::Damage(format!("{at} (the table's row {n})")),
                other => other,
            })?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use pollster::block_on;

    use super::*;
    use crate::fs::OsFs;
    use crate::store::{EmbeddedStore, Expect, Store as _, Write, row};

    /// A store as another version of this program made it.
    fn made(path: &Path, format: u32, tables: usize) {
        let db = Builder::new().create(path).unwrap();
        let mut txn = db.begin_write().unwrap();
        txn.set_two_phase_commit(true);
        for table in Table::ALL.into_iter().take(tables) {
            txn.open_table(bytes_of(table)).unwrap();
        }
        let row = row::encode(Table::Tenants, b"acme", 1, b"v");
        txn.open_table(bytes_of(Table::Tenants)).unwrap().insert(b"acme".as_slice(), row.as_slice()).unwrap();
        txn.open_table(META).unwrap().insert(FORMAT_KEY, format.to_be_bytes().as_slice()).unwrap();
        txn.commit().unwrap();
    }

    #[test]
    fn a_store_of_each_version_before_is_brought_forward_and_one_that_lacks_a_table_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for (format, tables) in BEFORE {
            let path = dir.path().join(format!("before-{format}"));
            made(&path, format, tables);
            for version in 1..=2 {
                let store = EmbeddedStore::open(Arc::new(OsFs), &path).unwrap();
                assert_eq!(block_on(store.get(Table::Tenants, b"acme")).unwrap().unwrap().value, b"v");
                let expect = if version == 1 { Expect::Absent } else { Expect::Version(1) };
                let write =
                    Write { table: Table::Access, key: b"acme".to_vec(), expect, value: b"w".to_vec(), revokes: false };
                block_on(store.commit(vec![write])).unwrap();
            }
        }
        let lacking = BEFORE.map(|(format, tables)| (format, tables - 1));
        let newest = [(FORMAT, Table::ALL.len() - 1), (FORMAT + 1, Table::ALL.len()), (0, Table::ALL.len())];
        for (format, tables) in lacking.into_iter().chain(newest) {
            let path = dir.path().join(format!("{format}-{tables}"));
            made(&path, format, tables);
            let before = std::fs::read(&path).unwrap();
            let refused = EmbeddedStore::open(Arc::new(OsFs), &path);
            assert!(matches!(refused, Err(Error::Corrupt { .. })), "{format} {tables}");
            assert_eq!(std::fs::read(&path).unwrap(), before);
        }
    }
}
