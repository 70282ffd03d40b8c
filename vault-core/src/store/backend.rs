//! Our files as redb's storage.

use std::fmt;
use std::io;
use std::sync::{Mutex, PoisonError};

use redb::StorageBackend;

use super::header::FLAGS_AT;
use crate::fs::File;

/// A file for redb to read and write.
pub(super) struct FileBackend {
    file: Box<dyn File>,
    /// Shown in place of the file's flags until redb has written them.
    flags: Mutex<Option<u8>>,
}

impl FileBackend {
    /// `flags` is what [`super::header::inspect`] has shown in this file.
    pub(super) fn new(file: Box<dyn File>, flags: Option<u8>) -> Self {
        Self { file, flags: Mutex::new(flags) }
    }
}

impl fmt::Debug for FileBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FileBackend")
    }
}

/// Where the flags stand among `len` bytes from `offset`.
fn flags_in(offset: u64, len: usize) -> Option<usize> {
    FLAGS_AT.checked_sub(usize::try_from(offset).ok()?).filter(|at| *at < len)
}

impl StorageBackend for FileBackend {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(offset, out)?;
        if let Some(at) = flags_in(offset, out.len())
            && let Some(flags) = *self.flags.lock().unwrap_or_else(PoisonError::into_inner)
            && let Some(byte) = out.get_mut(at)
        {
            *byte = flags;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(offset, data)?;
        if flags_in(offset, data.len()).is_some() {
            *self.flags.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        Ok(())
    }
}
