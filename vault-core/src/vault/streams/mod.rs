//! Streams: values of any size, encrypted and decrypted a chunk at a time.
//!
//! A stream is authorized like a call, and its intent is durable before its first byte. It may run for a long time, so
//! it is decided again while it does: whenever the policies' epoch has moved, and every [`AGAIN_MILLIS`] for everything
//! else (suspension, consents, grants, shreds, the end user's token, certificates, the lease). A decision is so cheap
//! beside a chunk that no source of changes has to be listened to, and none can be forgotten. An idle stream is decided
//! again by [`EncryptStream::tick`] and [`DecryptStream::tick`], which whoever drives it calls several times a second.

mod decrypt;
mod encrypt;
mod standing;

pub use decrypt::{DecryptStream, DecryptStreamRequest, StreamPart};
pub use encrypt::{EncryptStream, EncryptStreamRequest};

/// How long a decision holds for the next chunk, in milliseconds: a change is heard of by a gateway within 250, so both
/// together stay well below a second.
const AGAIN_MILLIS: u64 = 100;

/// How often a chunk is tried again because the key was evicted under it.
const ATTEMPTS: u32 = 4;
