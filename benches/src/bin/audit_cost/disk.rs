//! The operating system's disk, with its syncs counted, and left out if one wants to know what they cost.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vault_core::fs::{File, Fs, Lock, Open, OsFs};

/// What the files of one log did.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Calls of `fdatasync`.
    pub(crate) syncs: AtomicU64,
    /// Bytes written.
    pub(crate) bytes: AtomicU64,
}

/// [`OsFs`], counting. Without `durable` nothing is synced: what was acknowledged may then be lost, so no product offers
/// it.
#[derive(Debug)]
pub(crate) struct Disk {
    pub(crate) durable: bool,
    pub(crate) counts: Arc<Counts>,
}

impl Fs for Disk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn File>> {
        let file = OsFs.open(path, how)?;
        Ok(Box::new(Counted { file, durable: self.durable, counts: Arc::clone(&self.counts) }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        OsFs.create_dir_all(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        OsFs.list(dir)
    }

    fn exists(&self, path: &Path) -> bool {
        OsFs.exists(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        OsFs.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        OsFs.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        if self.durable { OsFs.sync_dir(dir) } else { Ok(()) }
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        OsFs.lock(path)
    }

    fn share(&self) -> Arc<dyn Fs> {
        Arc::new(Self { durable: self.durable, counts: Arc::clone(&self.counts) })
    }
}

#[derive(Debug)]
struct Counted {
    file: Box<dyn File>,
    durable: bool,
    counts: Arc<Counts>,
}

impl File for Counted {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(offset, buf)
    }

    fn write_all_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.counts.bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
        self.file.write_all_at(offset, data)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        if !self.durable {
            return Ok(());
        }
        self.counts.syncs.fetch_add(1, Ordering::Relaxed);
        self.file.sync_data()
    }

    fn links(&self) -> io::Result<u64> {
        self.file.links()
    }

    fn mode(&self) -> io::Result<u32> {
        self.file.mode()
    }
}
