//! C2SP chunked encryption (`c2sp.org/chunked-encryption`), instantiated as Cobblestone-256: SHA-512 and AES-256-GCM.
//!
//! ```text
//! key(32) ‖ base nonce(12) ‖ commitment(32) = HKDF-Expand-SHA512(input key, info)
//! info = "c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM" ‖ 00 ‖ salt(24) ‖ context
//! chunk k = AES-256-GCM(key, nonce = base nonce ⊕ k as a 96 bit number, no additional data)
//! ```
//!
//! This floor knows single chunks only; that they come in order, and that the last one is short, is the business of
//! `envelope::stream`.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA512, KeyType, Prk};
use zeroize::Zeroize as _;

use super::{COMMITMENT, TAG};
use crate::error::{Dependency, Error};
use crate::secret::{Key32, Locked, scrub_stack};

/// Bytes of a salt.
pub(crate) const SALT: usize = 24;
/// Bytes of plaintext in every chunk but the last, which has fewer.
pub(crate) const CHUNK: usize = 16 * 1024;
/// A message has at most so many chunks.
pub(crate) const MAX_CHUNKS: u64 = 1 << 38;

const INFO: &[u8] = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\0";

/// Bytes that are derived for a message: key, base nonce, commitment.
const DERIVED: usize = 32 + NONCE + COMMITMENT;
const NONCE: usize = 12;

/// What one salt and context give under one input key.
pub(crate) struct ChunkKeys(Locked<Keys>);

struct Keys {
    gcm: LessSafeKey,
    base_nonce: [u8; NONCE],
}

struct Derived;

impl KeyType for Derived {
    fn len(&self) -> usize {
        DERIVED
    }
}

fn failed<E>(_: E) -> Error {
    Error::unavailable(Dependency::Memory, "the keys of a stream could not be derived")
}

impl ChunkKeys {
    /// Derives the keys of a message, and the commitment that stands in front of it.
    ///
    /// # Errors
    /// [`Error::Unavailable`] without locked memory.
    pub(crate) fn derive(input: &Key32, salt: &[u8; SALT], context: &[u8]) -> Result<(Self, [u8; COMMITMENT]), Error> {
        let derived = Self::expand(input, salt, context);
        scrub_stack();
        derived
    }

    #[inline(never)]
    fn expand(input: &Key32, salt: &[u8; SALT], context: &[u8]) -> Result<(Self, [u8; COMMITMENT]), Error> {
        let mut okm = Locked::new([0u8; DERIVED])?;
        let okm = okm.get_mut()?;
        let prk = Prk::new_less_safe(HKDF_SHA512, input.expose()?);
        prk.expand(&[INFO, salt, context], Derived).and_then(|expanded| expanded.fill(okm)).map_err(failed)?;
        let (key, rest) = okm.split_at(32);
        let base_nonce = *rest.first_chunk().ok_or(Error::Unopenable)?;
        let commitment = *rest.last_chunk().ok_or(Error::Unopenable)?;
        let gcm = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).map_err(failed)?);
        Ok((Self(Locked::new(Keys { gcm, base_nonce })?), commitment))
    }

    /// Seals chunk `k` in place and returns its tag. Never twice with one `k`.
    ///
    /// # Errors
    /// [`Error::Unavailable`] in a forked child.
    #[inline]
    pub(crate) fn seal(&self, k: u64, chunk: &mut [u8]) -> Result<[u8; TAG], Error> {
        let keys = self.0.get()?;
        let tag = keys.gcm.seal_in_place_separate_tag(keys.nonce(k), Aad::empty(), chunk).map_err(failed)?;
        let mut bytes = [0; TAG];
        bytes.copy_from_slice(tag.as_ref());
        Ok(bytes)
    }

    /// Opens chunk `k` in place. On failure `chunk` is wiped.
    ///
    /// # Errors
    /// [`Error::Unopenable`]; [`Error::Unavailable`] in a forked child.
    #[inline]
    pub(crate) fn open(&self, k: u64, chunk: &mut [u8], tag: [u8; TAG]) -> Result<(), Error> {
        let keys = self.0.get()?;
        let opened = keys.gcm.open_in_place_separate_tag(keys.nonce(k), Aad::empty(), tag.into(), chunk, 0..);
        if opened.is_err() {
            chunk.zeroize();
            return Err(Error::Unopenable);
        }
        Ok(())
    }
}

impl Keys {
    /// The base nonce ⊕ k, as a number of 96 bits in network order.
    #[inline]
    fn nonce(&self, k: u64) -> Nonce {
        let mut nonce = self.base_nonce;
        if let Some(low) = nonce.last_chunk_mut::<8>() {
            *low = (u64::from_be_bytes(*low) ^ k).to_be_bytes();
        }
        Nonce::assume_unique_for_key(nonce)
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.base_nonce.zeroize();
    }
}
