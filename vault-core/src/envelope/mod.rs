//! The envelope: header, context, and sealing and opening with one data key. Specified in `docs/format.md`.
//!
//! ```text
//! H: "BLV" 01 · suite · flags 00 · key_id(16)   (22 bytes)
//! N(24) · C(32) · ciphertext · tag(16)             (suite 0x01: 94 bytes more than the plaintext in all)
//! salt(24) · commitment(32) · chunks               (suite 0x02: see the types of streams)
//! ```

mod context;
mod data_key;
mod header;
mod slot;
mod stream;
mod suites;

pub use context::Context;
pub use data_key::{DataKey, Scope};
pub use header::{Header, Suite};
pub use stream::{
    Layout, MAX_CHUNKS, PlainRange, RangeOpener, SEALED_CHUNK, STREAM_CHUNK, STREAM_FRONT, StreamOpener, StreamSealer,
};

use crate::crypto::{COMMITMENT, NONCE, TAG};

/// Bytes of the header H.
pub const HEADER: usize = 22;
/// Bytes before the ciphertext in a suite 0x01 envelope: header, nonce, commitment.
pub const FRONT: usize = HEADER + NONCE + COMMITMENT;
/// Bytes after the ciphertext: the tag.
pub const BACK: usize = TAG;
/// Bytes an envelope is longer than its plaintext.
pub const OVERHEAD: usize = FRONT + BACK;
/// Largest plaintext of suite 0x01, in bytes.
pub const MAX_PLAINTEXT: usize = 1024 * 1024;
/// Largest canonical context A, in bytes.
pub const MAX_CONTEXT: usize = 8 * 1024;

#[cfg(test)]
mod sealing_vectors;
#[cfg(test)]
mod tests;
