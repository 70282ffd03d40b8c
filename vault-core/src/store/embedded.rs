//! The embedded store: one redb file for one process on one machine.
//!
//! A commit is acknowledged after two syncs (redb's two-phase commit) that it shares with whatever waited beside it.
//! Opening reads the whole file, checks every checksum and changes nothing before all of it was found right, so its time
//! grows with the file; the rows are metadata and wrapped keys, a few hundred bytes each. `docs/adr/0003-embedded-store.md`
//! says why redb, and what is not left to it.

use std::path::Path;
use std::sync::Arc;

use super::engine::Engine;
use super::open::{self, beside};
use super::writer::Writer;
use super::{BoxFuture, Row, Scanned, Store, Table, Write, check_batch};
use crate::error::{Dependency, Error};
use crate::fs::Fs;

/// Rows in one file.
#[derive(Debug)]
pub struct EmbeddedStore {
    writer: Writer,
    engine: Arc<Engine>,
}

impl EmbeddedStore {
    /// Opens the store in this file, or creates an empty one if there is no such name. The directory must exist and be
    /// durable (see `create_dir_durable` of `dyn Fs`). Beside the file stand `….lock`, which holds the process id of the
    /// owner, and now and then `….new`, a store being created.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the file is damaged, cut, empty, of a newer format or no store at all: not a byte of it was
    /// changed. [`Error::Unavailable`] if another process has it open, or the disk fails.
    pub fn open(fs: Arc<dyn Fs>, path: &Path) -> Result<Self, Error> {
        let dir = match path.parent() {
            Some(dir) if dir.as_os_str().is_empty() => Path::new("."),
            Some(dir) => dir,
            None => return Err(Error::invalid("store path", "must name a file")),
        };
        let lock = fs.lock(&beside(path, ".lock")).map_err(|error| {
            Error::unavailable(
                Dependency::Store,
                if error.kind() == std::io::ErrorKind::WouldBlock {
                    "it is open already; the .lock file beside it holds the owner's process id"
                } else {
                    "the .lock file beside it could not be locked; its directory must exist and be writable"
                },
            )
        })?;
        if !fs.exists(path) {
            open::create(&*fs, path)?;
        }
        let db = open::open(&*fs, path, dir)?;
        let engine = Arc::new(Engine::new(db, path.display().to_string(), lock));
        Ok(Self { writer: Writer::start(Arc::clone(&engine))?, engine })
    }
}

impl Store for EmbeddedStore {
    fn get<'a>(&'a self, table: Table, key: &'a [u8]) -> BoxFuture<'a, Result<Option<Row>, Error>> {
        Box::pin(async move { self.engine.get(table, key) })
    }

    fn get_cached<'a>(&'a self, table: Table, key: &'a [u8]) -> BoxFuture<'a, Result<Option<Row>, Error>> {
        Box::pin(async move { self.engine.get_cached(table, key) })
    }

    fn scan<'a>(
        &'a self,
        table: Table,
        prefix: &'a [u8],
        after: Option<&'a [u8]>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Scanned>, Error>> {
        Box::pin(async move { self.engine.scan(table, prefix, after, limit) })
    }

    fn commit(&self, writes: Vec<Write>) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            check_batch(&writes)?;
            if writes.is_empty() {
                return Ok(());
            }
            let answer = self.writer.submit(writes)?;
            answer.await.unwrap_or(Err(Error::unavailable(Dependency::Store, "its writing thread has ended")))
        })
    }
}
