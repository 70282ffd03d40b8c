//! Opening a stream, chunk by chunk.

use std::sync::Arc;

use subtle::ConstantTimeEq as _;

use super::keys::StreamKeys;
use super::{MAX_CHUNKS, SEALED_CHUNK, STREAM_FRONT, salt_and_commitment};
use crate::crypto::TAG;
use crate::envelope::{Context, DataKey, Header, Suite};
use crate::error::Error;

/// The keys of a stream whose front is in order.
pub(super) struct Front {
    keys: Arc<StreamKeys>,
    front: [u8; STREAM_FRONT],
    /// After the first failure nothing opens any more.
    failed: bool,
}

impl Front {
    /// Header, then commitment.
    pub(super) fn check(key: &DataKey, context: &Context, front: &[u8; STREAM_FRONT]) -> Result<Self, Error> {
        let a = context.canonical_for(Suite::Stream, key)?;
        if Header::parse_as(Suite::Stream, front)?.key_id != key.id() {
            return Err(Error::Unopenable);
        }
        let (salt, commitment) = salt_and_commitment(front).ok_or(Error::Unopenable)?;
        let (keys, expected) = key.stream_keys(salt, &a)?;
        if !bool::from(expected.ct_eq(commitment)) {
            return Err(Error::Unopenable);
        }
        Ok(Self { keys, front: *front, failed: false })
    }

    pub(super) fn is_wiped(&self) -> bool {
        self.keys.is_wiped()
    }

    pub(super) fn resume(&mut self, key: &DataKey, context: &Context) -> Result<(), Error> {
        self.keys = Self::check(key, context, &self.front)?.keys;
        Ok(())
    }

    /// Opens chunk `k`, sealed, in place; the plaintext is a part of `sealed`.
    #[inline]
    pub(super) fn open<'c>(&mut self, k: u64, sealed: &'c mut [u8]) -> Result<&'c mut [u8], Error> {
        let body = sealed.len().checked_sub(TAG).filter(|_| !self.failed).ok_or(Error::Unopenable)?;
        let (chunk, tag) = sealed.split_at_mut(body);
        let tag = *tag.first_chunk().ok_or(Error::Unopenable)?;
        let opened = self.keys.open(k, chunk, tag);
        self.failed = matches!(opened, Err(Error::Unopenable));
        opened.map(|()| chunk)
    }

    pub(super) const fn has_failed(&self) -> bool {
        self.failed
    }

    pub(super) const fn fail(&mut self) -> Error {
        self.failed = true;
        Error::Unopenable
    }
}

/// Opens one stream from its beginning, from [`DataKey::open_stream`]: each full chunk as soon as it is there, then the
/// last one, which shows that nothing is missing.
pub struct StreamOpener {
    front: Front,
    next: u64,
    ended: bool,
}

impl std::fmt::Debug for StreamOpener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamOpener").field("next", &self.next).finish_non_exhaustive()
    }
}

impl StreamOpener {
    pub(in crate::envelope) fn begin(
        key: &DataKey,
        context: &Context,
        front: &[u8; STREAM_FRONT],
    ) -> Result<Self, Error> {
        Ok(Self { front: Front::check(key, context, front)?, next: 0, ended: false })
    }

    /// With keys derived elsewhere, to compare with published vectors, which have no header.
    #[cfg(test)]
    pub(super) fn for_test(keys: crate::crypto::ChunkKeys) -> Self {
        let front = Front { keys: Arc::new(StreamKeys::new(keys)), front: [0; STREAM_FRONT], failed: false };
        Self { front, next: 0, ended: false }
    }

    /// Chunks opened so far.
    pub const fn chunks(&self) -> u64 {
        self.next
    }

    /// Whether the keys were wiped: [`Self::resume`] may bring them back.
    pub fn is_wiped(&self) -> bool {
        self.front.is_wiped()
    }

    /// Goes on with the same key, loaded anew, after it was wiped.
    ///
    /// # Errors
    /// As [`DataKey::open_stream`].
    pub fn resume(&mut self, key: &DataKey, context: &Context) -> Result<(), Error> {
        self.front.resume(key, context)
    }

    /// Opens a full chunk, 16,400 bytes, in place; returns its plaintext, a part of `sealed`. It is authentic and in its
    /// place; whether the stream is whole only [`Self::open_last`] tells.
    ///
    /// # Errors
    /// [`Error::Unopenable`] whatever is wrong, and from then on always; what stood in `sealed` is wiped.
    /// [`Error::Unavailable`] once the keys are wiped: the same call works after [`Self::resume`].
    #[inline]
    pub fn open_chunk<'c>(&mut self, sealed: &'c mut [u8]) -> Result<&'c mut [u8], Error> {
        if self.ended || sealed.len() != SEALED_CHUNK || self.next >= MAX_CHUNKS - 1 {
            return Err(self.front.fail());
        }
        let chunk = self.front.open(self.next, sealed)?;
        self.next += 1;
        Ok(chunk)
    }

    /// Opens the last chunk, 16 to 16,399 bytes, in place. If it opens, the stream was whole, and has ended.
    ///
    /// # Errors
    /// As [`Self::open_chunk`].
    pub fn open_last<'c>(&mut self, sealed: &'c mut [u8]) -> Result<&'c mut [u8], Error> {
        if self.ended || !(TAG..SEALED_CHUNK).contains(&sealed.len()) {
            return Err(self.front.fail());
        }
        let chunk = self.front.open(self.next, sealed)?;
        self.next += 1;
        self.ended = true;
        Ok(chunk)
    }
}
