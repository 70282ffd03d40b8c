//! Sealing a stream, chunk by chunk.

use std::sync::Arc;

use super::keys::StreamKeys;
use super::{MAX_CHUNKS, SEALED_CHUNK, STREAM_FRONT, front, salt_and_commitment};
use crate::crypto::{SALT, TAG, random_bytes};
use crate::envelope::{Context, DataKey, Header, Suite};
use crate::error::Error;

const ENDED: Error = Error::FailedPrecondition("the stream has ended");

/// Seals one stream, from [`DataKey::seal_stream`]: first its [`Self::front`], then each full chunk, then the last one.
pub struct StreamSealer {
    keys: Arc<StreamKeys>,
    front: [u8; STREAM_FRONT],
    /// The number of the next chunk. It only grows, so no nonce is used twice.
    next: u64,
    ended: bool,
}

impl std::fmt::Debug for StreamSealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamSealer").field("next", &self.next).finish_non_exhaustive()
    }
}

impl StreamSealer {
    pub(in crate::envelope) fn begin(key: &DataKey, context: &Context) -> Result<Self, Error> {
        let mut salt = [0; SALT];
        random_bytes(&mut salt)?;
        Self::with_salt(key, context, &salt)
    }

    /// Under a given salt, to compare with vectors. No public way leads here.
    pub(super) fn with_salt(key: &DataKey, context: &Context, salt: &[u8; SALT]) -> Result<Self, Error> {
        let (keys, commitment) = key.stream_keys(salt, &context.canonical_for(Suite::Stream, key)?)?;
        let front = front(&Header::new(Suite::Stream, key.id()), salt, &commitment);
        Ok(Self { keys, front, next: 0, ended: false })
    }

    /// With keys derived elsewhere, to compare with published vectors, which have no header.
    #[cfg(test)]
    pub(super) fn for_test(keys: crate::crypto::ChunkKeys) -> Self {
        Self { keys: Arc::new(StreamKeys::new(keys)), front: [0; STREAM_FRONT], next: 0, ended: false }
    }

    /// The first 78 bytes of the envelope.
    pub const fn front(&self) -> &[u8; STREAM_FRONT] {
        &self.front
    }

    /// Chunks sealed so far.
    pub const fn chunks(&self) -> u64 {
        self.next
    }

    /// Whether the keys were wiped: [`Self::resume`] may bring them back.
    pub fn is_wiped(&self) -> bool {
        self.keys.is_wiped()
    }

    /// Goes on with the same key, loaded anew, after it was wiped: the same salt, and the next chunk.
    ///
    /// # Errors
    /// [`Error::Unopenable`] if it is another key or context; [`Error::Unavailable`] if it is wiped, too.
    pub fn resume(&mut self, key: &DataKey, context: &Context) -> Result<(), Error> {
        let (salt, _) = salt_and_commitment(&self.front).ok_or(Error::Unopenable)?;
        let again = Self::with_salt(key, context, salt)?;
        if again.front != self.front {
            return Err(Error::Unopenable);
        }
        self.keys = again.keys;
        Ok(())
    }

    /// Seals a full chunk in place: `buffer` is 16,384 bytes of plaintext and 16 bytes of room.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming `plaintext` for another length, or if the stream is longer than 4 PiB;
    /// [`Error::FailedPrecondition`] after the last chunk; [`Error::Unavailable`] once the keys are wiped: then nothing
    /// was sealed, `buffer` still holds plaintext, and the same call works after [`Self::resume`].
    #[inline]
    pub fn seal_chunk(&mut self, buffer: &mut [u8]) -> Result<(), Error> {
        if buffer.len() != SEALED_CHUNK {
            return Err(Error::invalid("plaintext", "a chunk that is not the last has 16,384 bytes"));
        }
        if self.next >= MAX_CHUNKS - 1 {
            return Err(Error::invalid("plaintext", "must be less than 4 PiB"));
        }
        self.seal(buffer)
    }

    /// Seals the last chunk in place: `buffer` is less than 16,384 bytes of plaintext, perhaps none, and 16 bytes of
    /// room. The stream has ended then.
    ///
    /// # Errors
    /// As [`Self::seal_chunk`].
    pub fn seal_last(&mut self, buffer: &mut [u8]) -> Result<(), Error> {
        if !(TAG..SEALED_CHUNK).contains(&buffer.len()) {
            return Err(Error::invalid("plaintext", "the last chunk has less than 16,384 bytes"));
        }
        self.seal(buffer)?;
        self.ended = true;
        Ok(())
    }

    #[inline]
    fn seal(&mut self, buffer: &mut [u8]) -> Result<(), Error> {
        if self.ended {
            return Err(ENDED);
        }
        let (chunk, room) = buffer.split_at_mut(buffer.len() - TAG);
        let tag = self.keys.seal(self.next, chunk)?;
        self.next += 1;
        room.copy_from_slice(&tag);
        Ok(())
    }
}
