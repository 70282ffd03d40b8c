//! Suite 0x02: streams (`docs/format.md`, "Streams"). C2SP chunked encryption, Cobblestone-256, unmodified: the input key
//! is the suite key, the context is A.
//!
//! ```text
//! H(22) ‖ salt(24) ‖ commitment(32) ‖ chunk 0 ‖ chunk 1 ‖ … ‖ last chunk
//! chunk: 16,384 bytes of plaintext and a tag(16); the last one has fewer, perhaps none
//! ```
//!
//! [`StreamSealer`], [`StreamOpener`] and [`RangeOpener`] work on one chunk at a time, in place, in the caller's buffer,
//! so memory does not grow with the stream. What opens is authentic chunk by chunk; that nothing is missing at the end is
//! known only when the last one has opened.

mod keys;
mod layout;
mod open;
mod range;
mod seal;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod vectors;

pub use layout::{Layout, PlainRange};
pub use open::StreamOpener;
pub use range::RangeOpener;
pub use seal::StreamSealer;

pub(super) use keys::StreamKeys;

use super::{HEADER, Header};
use crate::crypto::{CHUNK, COMMITMENT, SALT, TAG};

/// Bytes before the first chunk: header, salt, commitment.
pub const STREAM_FRONT: usize = HEADER + SALT + COMMITMENT;
/// Bytes of plaintext in every chunk but the last, which has fewer.
pub const STREAM_CHUNK: usize = CHUNK;
/// Bytes of a sealed chunk; the last one has fewer, and at least 16.
pub const SEALED_CHUNK: usize = CHUNK + TAG;
/// Chunks that a stream has at most: 4 PiB.
pub const MAX_CHUNKS: u64 = crate::crypto::MAX_CHUNKS;

/// The front of a stream.
fn front(header: &Header, salt: &[u8; SALT], commitment: &[u8; COMMITMENT]) -> [u8; STREAM_FRONT] {
    let mut front = [0; STREAM_FRONT];
    let (h, rest) = front.split_at_mut(HEADER);
    let (s, c) = rest.split_at_mut(SALT);
    h.copy_from_slice(&header.encode());
    s.copy_from_slice(salt);
    c.copy_from_slice(commitment);
    front
}

/// Salt and commitment of a front.
fn salt_and_commitment(front: &[u8; STREAM_FRONT]) -> Option<(&[u8; SALT], &[u8; COMMITMENT])> {
    Some((front.get(HEADER..HEADER + SALT)?.first_chunk()?, front.last_chunk()?))
}
