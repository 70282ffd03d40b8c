//! The file system as the durable parts see it: a seam thin enough that a test can put a disk under it that drops,
//! tears and reorders whatever was not synced.
//!
//! Contract, the weakest that a POSIX disk gives:
//! - a write is durable only after [`File::sync_data`] on that file has returned;
//! - a created, renamed or removed name is durable only after [`Fs::sync_dir`] on its directory has returned;
//! - until then a crash may keep any subset of the writes, in any order, each possibly in part.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::Arc;

/// How to open a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Open {
    /// Read an existing file.
    Read,
    /// Read and write an existing file.
    ReadWrite,
    /// Create a file that must not exist, mode 0600, for reading and writing.
    CreateNew,
}

/// An open file, addressed by offset.
pub trait File: Send + Sync + fmt::Debug {
    /// Length in bytes.
    ///
    /// # Errors
    /// As the operating system reports.
    fn len(&self) -> io::Result<u64>;

    /// True if the file has no bytes.
    ///
    /// # Errors
    /// As the operating system reports.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Fills `buf` from `offset`.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] if the file ends earlier.
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;

    /// Writes all of `data` at `offset`, growing the file if needed.
    ///
    /// # Errors
    /// As the operating system reports, for example on a full disk; part of the data may have been written.
    fn write_all_at(&self, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Cuts or grows (with zeros) the file.
    ///
    /// # Errors
    /// As the operating system reports.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Makes everything written so far durable.
    ///
    /// # Errors
    /// As the operating system reports. After an error nothing is known of the unsynced writes: stop using the file.
    fn sync_data(&self) -> io::Result<()>;

    /// How many names the file still has: zero after it was unlinked.
    ///
    /// # Errors
    /// As the operating system reports.
    fn links(&self) -> io::Result<u64>;

    /// Which file it is, whatever it is called: the numbers of its device and its inode.
    ///
    /// # Errors
    /// As the operating system reports; [`io::ErrorKind::Unsupported`] where files have no numbers.
    fn identity(&self) -> io::Result<(u64, u64)> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// The permission bits, for example 0o600.
    ///
    /// # Errors
    /// As the operating system reports.
    fn mode(&self) -> io::Result<u32> {
        Ok(0o600)
    }
}

/// A lock on a name, held until it is dropped or the process ends.
pub trait Lock: Send + Sync + fmt::Debug {}

/// The operations on names.
pub trait Fs: Send + Sync + fmt::Debug + 'static {
    /// Opens a file.
    ///
    /// # Errors
    /// As the operating system reports.
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn File>>;

    /// Creates a directory (mode 0700) and those above it, where missing. Not durable until its parent is synced.
    ///
    /// # Errors
    /// As the operating system reports.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;

    /// The paths in a directory, sorted.
    ///
    /// # Errors
    /// As the operating system reports.
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>>;

    /// True if the name exists.
    fn exists(&self, path: &Path) -> bool;

    /// Renames a file over another in one step.
    ///
    /// # Errors
    /// As the operating system reports.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file's name.
    ///
    /// # Errors
    /// As the operating system reports.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes a directory's names durable.
    ///
    /// # Errors
    /// As the operating system reports.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Takes the exclusive lock of this name, creating the file (mode 0600) where missing. The file then holds the
    /// process id of the owner in decimal; it stays when the lock goes.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if another holds it, in this process or another; else as the operating system
    /// reports.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>>;

    /// The same file system, for one who opens files later.
    fn share(&self) -> Arc<dyn Fs>;
}

impl dyn Fs {
    /// Creates a directory (mode 0700) and those above it, where missing, and makes its name durable, also when an
    /// earlier process created it and died before it got so far.
    ///
    /// # Errors
    /// As the operating system reports.
    pub fn create_dir_durable(&self, dir: &Path) -> io::Result<()> {
        let parent = match dir.parent() {
            Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
            Some(parent) => parent,
            None => return Ok(()),
        };
        if !self.exists(parent) {
            self.create_dir_durable(parent)?;
        }
        self.create_dir_all(dir)?;
        self.sync_dir(parent)
    }

    /// Reads a whole file, refusing one longer than `max` bytes.
    ///
    /// # Errors
    /// As the operating system reports; [`io::ErrorKind::FileTooLarge`] over the limit.
    pub fn read(&self, path: &Path, max: u64) -> io::Result<Vec<u8>> {
        let file = self.open(path, Open::Read)?;
        let len = file.len()?;
        if len > max {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let mut bytes = vec![0; usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?];
        file.read_exact_at(0, &mut bytes)?;
        Ok(bytes)
    }

    /// Replaces a file as a whole: after a crash the name holds the old bytes or the new ones, and once this returns,
    /// the new ones. (Write aside, sync, rename, sync the directory.)
    ///
    /// # Errors
    /// As the operating system reports; the old file is then still in place, unless only the last sync failed.
    pub fn replace(&self, path: &Path, data: &[u8]) -> io::Result<()> {
        let dir = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        let mut aside = path.as_os_str().to_owned();
        aside.push(".new");
        let aside = PathBuf::from(aside);
        if self.exists(&aside) {
            self.remove(&aside)?;
        }
        let file = self.open(&aside, Open::CreateNew)?;
        file.write_all_at(0, data)?;
        file.sync_data()?;
        self.rename(&aside, path)?;
        self.sync_dir(dir)
    }
}

/// The operating system's file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsFs;

impl Fs for OsFs {
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn File>> {
        let mut options = fs::OpenOptions::new();
        options.read(true);
        match how {
            Open::Read => {}
            Open::ReadWrite => {
                options.write(true);
            }
            Open::CreateNew => {
                options.write(true).create_new(true).mode(0o600);
            }
        }
        Ok(Box::new(OsFile(options.open(path)?)))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let mut paths = fs::read_dir(dir)?.map(|entry| entry.map(|e| e.path())).collect::<io::Result<Vec<_>>>()?;
        paths.sort();
        Ok(paths)
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        fs::File::open(dir)?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        let file = fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        file.try_lock()?;
        file.set_len(0)?;
        FileExt::write_all_at(&file, format!("{}\n", process::id()).as_bytes(), 0)?;
        Ok(Box::new(OsLock { _file: file }))
    }

    fn share(&self) -> Arc<dyn Fs> {
        Arc::new(*self)
    }
}

/// The lock goes with the file descriptor (`flock`), so with the process too.
#[derive(Debug)]
struct OsLock {
    _file: fs::File,
}

impl Lock for OsLock {}

#[derive(Debug)]
struct OsFile(fs::File);

impl File for OsFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        FileExt::read_exact_at(&self.0, buf, offset)
    }

    fn write_all_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        FileExt::write_all_at(&self.0, data, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn links(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.nlink())
    }

    fn identity(&self) -> io::Result<(u64, u64)> {
        let metadata = self.0.metadata()?;
        Ok((metadata.dev(), metadata.ino()))
    }

    fn mode(&self) -> io::Result<u32> {
        Ok(self.0.metadata()?.mode() & 0o7777)
    }
}
