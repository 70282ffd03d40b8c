//! The keys of one stream, where the evictor can reach them.

use std::sync::{Mutex, MutexGuard};

use super::super::data_key::gone;
use crate::crypto::{ChunkKeys, TAG};
use crate::error::Error;

/// Locked for each chunk, without contention, by the one who works on the stream; and by the evictor.
pub(in super::super) struct StreamKeys(Mutex<Option<ChunkKeys>>);

impl StreamKeys {
    pub(in super::super) const fn new(keys: ChunkKeys) -> Self {
        Self(Mutex::new(Some(keys)))
    }

    fn lock(&self) -> MutexGuard<'_, Option<ChunkKeys>> {
        self.0.lock().unwrap_or_else(|poisoned| {
            // After a panic in mid-chunk: nothing is trusted any more.
            let mut guard = poisoned.into_inner();
            *guard = None;
            guard
        })
    }

    /// Seals a chunk in place.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the keys are gone; the chunk is as it was then.
    #[inline]
    pub(super) fn seal(&self, k: u64, chunk: &mut [u8]) -> Result<[u8; TAG], Error> {
        self.lock().as_ref().ok_or_else(gone)?.seal(k, chunk)
    }

    /// Opens a chunk in place.
    ///
    /// # Errors
    /// [`Error::Unopenable`], and the chunk is wiped; [`Error::Unavailable`] if the keys are gone, and it is as it was.
    #[inline]
    pub(super) fn open(&self, k: u64, chunk: &mut [u8], tag: [u8; TAG]) -> Result<(), Error> {
        self.lock().as_ref().ok_or_else(gone)?.open(k, chunk, tag)
    }

    /// Whether the keys are gone.
    pub(super) fn is_wiped(&self) -> bool {
        self.lock().is_none()
    }

    /// Destroys the keys; waits for a chunk in progress.
    pub(in super::super) fn wipe(&self) {
        *self.lock() = None;
    }
}
