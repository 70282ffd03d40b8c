//! The primitives, each behind a name that says what it computes and where it is specified.
//!
//! Bulk AES-GCM is ring's; single AES blocks, and AES-GCM for keys that must wipe themselves, are RustCrypto's. Nothing
//! here chooses an algorithm at run time.

mod chunked;
mod hkdf;
mod kc_xaes;
mod random;
mod wrap;

pub(crate) use chunked::{CHUNK, ChunkKeys, MAX_CHUNKS, SALT};
pub(crate) use hkdf::expand_sha256;
pub(crate) use kc_xaes::{COMMITMENT, KcKey, NONCE, PREFIX, Run, SUFFIX, TAG};
pub use random::{Randomness, set_randomness};
pub(crate) use random::{fill as random_bytes, unbuffered};
pub(crate) use wrap::{open_bytes, seal_bytes, unwrap32, wrap32};

use ring::digest::{Context, SHA256};

/// SHA-256 (FIPS 180-4) of the parts, one after the other.
pub(crate) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(part);
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    out
}
