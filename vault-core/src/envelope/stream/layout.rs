//! Where the chunks of a stream lie, from its length. Arithmetic only: a length says nothing true before the last chunk
//! has opened.

use super::{MAX_CHUNKS, SEALED_CHUNK, STREAM_CHUNK, STREAM_FRONT};
use crate::crypto::TAG;
use crate::error::Error;

const FRONT: u64 = STREAM_FRONT as u64;
const SEALED: u64 = SEALED_CHUNK as u64;
const PLAIN: u64 = STREAM_CHUNK as u64;

/// The chunks of a stream of a certain length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// The index of the last chunk.
    last: u64,
    /// Bytes of it, sealed.
    last_len: usize,
}

/// A part of the plaintext.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlainRange {
    /// Its first byte; at most the plaintext's length.
    pub offset: u64,
    /// How many bytes at most; what lies behind the end is left out.
    pub length: u64,
}

impl Layout {
    /// The layout of an envelope of so many bytes, front included.
    ///
    /// # Errors
    /// [`Error::Unopenable`] for a length that no stream has.
    pub fn of_envelope(len: u64) -> Result<Self, Error> {
        let chunks = len.checked_sub(FRONT).ok_or(Error::Unopenable)?;
        let (last, last_len) = (chunks / SEALED, chunks % SEALED);
        let last_len = usize::try_from(last_len).map_err(|_| Error::Unopenable)?;
        if last >= MAX_CHUNKS || last_len < TAG {
            return Err(Error::Unopenable);
        }
        Ok(Self { last, last_len })
    }

    /// The layout of the envelope of a plaintext of so many bytes.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming `plaintext` for more than a stream can hold.
    pub fn of_plaintext(len: u64) -> Result<Self, Error> {
        let (last, rest) = (len / PLAIN, len % PLAIN);
        match usize::try_from(rest) {
            Ok(rest) if last < MAX_CHUNKS => Ok(Self { last, last_len: rest + TAG }),
            _ => Err(Error::invalid("plaintext", "must be less than 4 PiB")),
        }
    }

    /// Bytes of the envelope.
    pub const fn envelope_len(&self) -> u64 {
        FRONT + self.last * SEALED + self.last_len as u64
    }

    /// Bytes of the plaintext.
    pub const fn plaintext_len(&self) -> u64 {
        self.last * PLAIN + (self.last_len - TAG) as u64
    }

    /// The index of the last chunk; there are that many others.
    pub const fn last(&self) -> u64 {
        self.last
    }

    /// Where chunk `k` begins in the envelope, and how many bytes it has; `None` if there is none such.
    pub const fn chunk(&self, k: u64) -> Option<(u64, usize)> {
        if k > self.last {
            return None;
        }
        Some((FRONT + k * SEALED, if k == self.last { self.last_len } else { SEALED_CHUNK }))
    }

    /// The chunks before the last one that hold a part of the plaintext: first, and the one behind the last of them.
    /// Behind these, the last chunk may hold the rest.
    pub fn covering(&self, range: PlainRange) -> (u64, u64) {
        let end = range.offset.saturating_add(range.length).min(self.plaintext_len());
        if range.offset >= end {
            return (0, 0);
        }
        let first = range.offset / PLAIN;
        (first, end.div_ceil(PLAIN).clamp(first, self.last.max(first)))
    }

    /// The pieces of an envelope that [`super::RangeOpener`] takes, in its order, as offset and length: the front, the
    /// last chunk, and those that hold the range.
    pub fn pieces(&self, range: PlainRange) -> impl Iterator<Item = (u64, u64)> + use<> {
        let own = *self;
        let (first, behind) = own.covering(range);
        let middle = (first < behind).then(|| (FRONT + first * SEALED, (behind - first) * SEALED));
        [(0, FRONT), (FRONT + own.last * SEALED, own.last_len as u64)].into_iter().chain(middle)
    }
}
