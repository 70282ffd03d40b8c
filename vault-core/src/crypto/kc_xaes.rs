//! KC-XAES-256-GCM: XAES-256-GCM (`c2sp.org/XAES-256-GCM`) with the key commitment of ePrint 2025/758.
//!
//! With K the key, N the 24 byte nonce, and `E(x)` = AES-256_K(x) of one block:
//!
//! ```text
//! L  = E(0^16);  K1 = L<<1, last byte ^ 0x87 if the top bit of L was 1          (RFC 4493 subkey)
//! Kx = E((00 01 58 00 ‖ N[0..12]) ⊕ K1) ‖ E((00 02 58 00 ‖ N[0..12]) ⊕ K1)      (SP 800-108r1 over CMAC)
//! X  = E("XCMT" ‖ N[0..12])
//! C  = E(X ⊕ K1 ⊕ (N[12..24] ‖ 00 01 00 01)) ‖ E(X ⊕ K1 ⊕ (N[12..24] ‖ 00 01 00 02))
//! ciphertext ‖ tag = AES-256-GCM(Kx, nonce N[12..24], aad, plaintext)
//! ```
//!
//! [`KcKey`] holds K's round keys and K1. [`Run`] holds what one prefix N[0..12] gives: Kx as a ring key, and X ⊕ K1.

use aes::Aes256Enc;
use aes::cipher::{Array, BlockCipherEncrypt as _, KeyInit as _};
use aes_gcm::aead::AeadInOut as _;
use aes_gcm::{Aes256Gcm, Tag};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use subtle::{Choice, ConstantTimeEq as _};
use zeroize::Zeroize as _;

use crate::error::{Dependency, Error};
use crate::secret::{Key32, Locked, scrub_deep_stack, scrub_stack, scrub_wide_stack};

/// Bytes of a nonce.
pub(crate) const NONCE: usize = 24;
/// Bytes of the part of a nonce that chooses the record key.
pub(crate) const PREFIX: usize = 12;
/// Bytes of the part of a nonce that AES-GCM sees.
pub(crate) const SUFFIX: usize = 12;
/// Bytes of a commitment.
pub(crate) const COMMITMENT: usize = 32;
/// Bytes of an AES-GCM tag.
pub(crate) const TAG: usize = 16;

/// Commitments computed in one go: enough to keep the AES units busy, few enough to waste little when a run ends early.
const LANES: usize = 8;

type Block = Array<u8, aes::cipher::consts::U16>;

/// A key of the construction, expanded. Private to one thread at a time or guarded by its owner.
pub(crate) struct KcKey(Locked<Expanded>);

struct Expanded {
    cipher: Aes256Enc,
    k1: [u8; 16],
}

impl Expanded {
    /// AES-256_K of each block.
    ///
    /// Block by block: the functions of crate `aes` for many blocks keep the round keys in registers and spill those for
    /// which there is none to the stack, where they would stay (`tests/memory_scan`). The processor overlaps the blocks
    /// anyway.
    #[inline]
    fn encrypt(&self, blocks: &mut [Block]) {
        for block in blocks {
            self.cipher.encrypt_block(block);
        }
        scrub_wide_stack();
    }
}

/// What one nonce prefix gives under one key.
pub(crate) struct Run(Locked<RunKeys>);

struct RunKeys {
    gcm: LessSafeKey,
    /// X ⊕ K1.
    mask: [u8; 16],
    prefix: [u8; PREFIX],
}

fn no_key<E>(_: E) -> Error {
    Error::unavailable(Dependency::Memory, "a key could not be expanded")
}

impl KcKey {
    /// Expands `key`.
    ///
    /// # Errors
    /// [`Error::Unavailable`] without locked memory.
    pub(crate) fn new(key: &Key32) -> Result<Self, Error> {
        let expanded = Self::expand(key);
        scrub_stack();
        expanded
    }

    #[inline(never)]
    fn expand(key: &Key32) -> Result<Self, Error> {
        let cipher = Aes256Enc::new_from_slice(key.expose()?).map_err(no_key)?;
        let mut l = Block::default();
        cipher.encrypt_block(&mut l);
        let mut wide = u128::from_be_bytes(l.into());
        // In constant time: the mask is all ones if the top bit is set.
        let carry = (wide >> 127).wrapping_neg() & 0x87;
        wide = (wide << 1) ^ carry;
        let key = Locked::new(Expanded { cipher, k1: wide.to_be_bytes() });
        l.as_mut_slice().zeroize();
        wide.zeroize();
        Ok(Self(key?))
    }

    /// Derives Kx and X ⊕ K1 for a nonce prefix. Three AES blocks and a ring key.
    ///
    /// # Errors
    /// [`Error::Unavailable`] without locked memory.
    pub(crate) fn run(&self, prefix: &[u8; PREFIX]) -> Result<Run, Error> {
        let run = self.derive_run(prefix);
        scrub_stack();
        run
    }

    #[inline(never)]
    fn derive_run(&self, prefix: &[u8; PREFIX]) -> Result<Run, Error> {
        let mut derived = self.derive(prefix)?;
        let run = UnboundKey::new(&AES_256_GCM, derived.kx.as_flattened())
            .map_err(no_key)
            .and_then(|key| Locked::new(RunKeys { gcm: LessSafeKey::new(key), mask: derived.mask, prefix: *prefix }));
        derived.wipe();
        Ok(Run(run?))
    }

    #[inline(always)]
    fn derive(&self, prefix: &[u8; PREFIX]) -> Result<Derived, Error> {
        let own = self.0.get()?;
        let mut blocks = [
            xor(block(&[0, 1, 0x58, 0], prefix), own.k1),
            xor(block(&[0, 2, 0x58, 0], prefix), own.k1),
            block(b"XCMT", prefix),
        ]
        .map(Block::from);
        own.encrypt(&mut blocks);
        let [a, b, x] = blocks.map(<[u8; 16]>::from);
        Ok(Derived { kx: [a, b], mask: xor(x, own.k1) })
    }

    /// Seals `buffer` in place with RustCrypto's AES-GCM, whose key schedule wipes itself: for wrapping keys, where
    /// a ring key would not pay. Returns the commitment and the tag.
    ///
    /// # Errors
    /// [`Error::Unavailable`] in a forked child.
    pub(crate) fn seal_once(
        &self,
        nonce: &[u8; NONCE],
        aad: &[u8],
        buffer: &mut [u8],
    ) -> Result<([u8; COMMITMENT], [u8; TAG]), Error> {
        let (prefix, suffix) = split_nonce(nonce);
        let sealed = self.once(&prefix, &suffix, |gcm| {
            gcm.encrypt_inout_detached(&suffix.into(), aad, buffer.into()).map(<[u8; TAG]>::from).map_err(no_key)
        });
        scrub_deep_stack();
        let (commitment, tag) = sealed?;
        Ok((commitment, tag?))
    }

    /// Opens in place what [`Self::seal_once`] sealed. On failure `buffer` holds the ciphertext or zeros, never
    /// plaintext.
    ///
    /// # Errors
    /// [`Error::Unopenable`], whatever is wrong.
    pub(crate) fn open_once(
        &self,
        nonce: &[u8; NONCE],
        commitment: &[u8; COMMITMENT],
        aad: &[u8],
        buffer: &mut [u8],
        tag: &[u8; TAG],
    ) -> Result<(), Error> {
        let (prefix, suffix) = split_nonce(nonce);
        let opened = self.once(&prefix, &suffix, |gcm| {
            gcm.decrypt_inout_detached(&suffix.into(), aad, (&mut *buffer).into(), &Tag::from(*tag))
        });
        scrub_deep_stack();
        let (expected, opened) = opened?;
        // RustCrypto checks the tag before it decrypts, so nothing unauthenticated stands in the buffer by now, but
        // for what opened under an uncommitted key.
        let good = bool::from(same(&expected, commitment)) & opened.is_ok();
        if !good {
            buffer.zeroize();
            return Err(Error::Unopenable);
        }
        Ok(())
    }

    #[inline(never)]
    fn once<T>(
        &self,
        prefix: &[u8; PREFIX],
        suffix: &[u8; SUFFIX],
        work: impl FnOnce(&Aes256Gcm) -> T,
    ) -> Result<([u8; COMMITMENT], T), Error> {
        let mut derived = self.derive(prefix)?;
        let commitment = self.commit(&derived.mask, suffix)?;
        let gcm = Aes256Gcm::new_from_slice(derived.kx.as_flattened());
        derived.wipe();
        Ok((commitment, work(&gcm.map_err(no_key)?)))
    }

    #[inline]
    fn commit(&self, mask: &[u8; 16], suffix: &[u8; SUFFIX]) -> Result<[u8; COMMITMENT], Error> {
        let mut blocks = commitment_inputs(mask, suffix).map(Block::from);
        self.0.get()?.encrypt(&mut blocks);
        Ok(join(blocks))
    }

    /// The commitments of several nonces of one run.
    ///
    /// # Errors
    /// [`Error::Unavailable`] in a forked child.
    #[inline]
    pub(crate) fn commit_all(
        &self,
        run: &Run,
        suffixes: &[[u8; SUFFIX]; LANES],
        out: &mut [[u8; COMMITMENT]; LANES],
    ) -> Result<(), Error> {
        let mask = &run.0.get()?.mask;
        let mut blocks = [[Block::default(); 2]; LANES];
        for (pair, suffix) in blocks.iter_mut().zip(suffixes) {
            *pair = commitment_inputs(mask, suffix).map(Block::from);
        }
        self.0.get()?.encrypt(blocks.as_flattened_mut());
        for (commitment, pair) in out.iter_mut().zip(blocks) {
            *commitment = join(pair);
        }
        Ok(())
    }

    /// The commitment of one nonce of a run.
    ///
    /// # Errors
    /// [`Error::Unavailable`] in a forked child.
    pub(crate) fn commitment(&self, run: &Run, suffix: &[u8; SUFFIX]) -> Result<[u8; COMMITMENT], Error> {
        self.commit(&run.0.get()?.mask, suffix)
    }

    /// True if `commitment` is what this key gives for the nonce of `run` and `suffix`; all 32 bytes are compared, in
    /// constant time.
    ///
    /// # Errors
    /// [`Error::Unavailable`] in a forked child.
    #[inline]
    pub(crate) fn committed(
        &self,
        run: &Run,
        suffix: &[u8; SUFFIX],
        commitment: &[u8; COMMITMENT],
    ) -> Result<bool, Error> {
        let expected = self.commitment(run, suffix)?;
        Ok(same(&expected, commitment).into())
    }
}

impl Run {
    /// Number of commitments that [`KcKey::commit_all`] computes.
    pub(crate) const LANES: usize = LANES;

    /// The nonce prefix of this run.
    ///
    /// # Errors
    /// [`Error::Unavailable`] in a forked child.
    #[inline]
    pub(crate) fn prefix(&self) -> Result<&[u8; PREFIX], Error> {
        Ok(&self.0.get()?.prefix)
    }

    /// AES-256-GCM (ring) in place under Kx; returns the tag.
    ///
    /// # Errors
    /// [`Error::Unavailable`] in a forked child.
    #[inline]
    pub(crate) fn seal(&self, suffix: [u8; SUFFIX], aad: &[u8], buffer: &mut [u8]) -> Result<[u8; TAG], Error> {
        let nonce = Nonce::assume_unique_for_key(suffix);
        let tag = self.0.get()?.gcm.seal_in_place_separate_tag(nonce, Aad::from(aad), buffer).map_err(no_key)?;
        let mut bytes = [0; TAG];
        bytes.copy_from_slice(tag.as_ref());
        Ok(bytes)
    }

    /// Opens in place under Kx. On failure ring leaves zeros in `buffer`.
    ///
    /// # Errors
    /// [`Error::Unopenable`].
    #[inline]
    pub(crate) fn open(
        &self,
        suffix: [u8; SUFFIX],
        aad: &[u8],
        buffer: &mut [u8],
        tag: [u8; TAG],
    ) -> Result<(), Error> {
        let nonce = Nonce::assume_unique_for_key(suffix);
        self.0
            .get()?
            .gcm
            .open_in_place_separate_tag(nonce, Aad::from(aad), tag.into(), buffer, 0..)
            .map(|_| ())
            .map_err(|_| Error::Unopenable)
    }
}

struct Derived {
    kx: [[u8; 16]; 2],
    mask: [u8; 16],
}

impl Derived {
    fn wipe(&mut self) {
        self.kx.zeroize();
        self.mask.zeroize();
    }
}

#[inline(always)]
const fn block(head: &[u8; 4], tail: &[u8; PREFIX]) -> [u8; 16] {
    let [a, b, c, d] = *head;
    let [e, f, g, h, i, j, k, l, m, n, o, p] = *tail;
    [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
}

#[inline(always)]
const fn xor(a: [u8; 16], b: [u8; 16]) -> [u8; 16] {
    (u128::from_ne_bytes(a) ^ u128::from_ne_bytes(b)).to_ne_bytes()
}

#[inline(always)]
fn commitment_inputs(mask: &[u8; 16], suffix: &[u8; SUFFIX]) -> [[u8; 16]; 2] {
    let [a, b, c, d, e, f, g, h, i, j, k, l] = *suffix;
    [
        xor(*mask, [a, b, c, d, e, f, g, h, i, j, k, l, 0, 1, 0, 1]),
        xor(*mask, [a, b, c, d, e, f, g, h, i, j, k, l, 0, 1, 0, 2]),
    ]
}

#[inline(always)]
fn join(pair: [Block; 2]) -> [u8; COMMITMENT] {
    let mut out = [0; COMMITMENT];
    let (front, back) = out.split_at_mut(16);
    let [a, b] = pair;
    front.copy_from_slice(&a);
    back.copy_from_slice(&b);
    out
}

/// Constant-time equality, in four words: `subtle` compares slices byte by byte, which takes as long as an AES block.
#[inline(always)]
fn same(a: &[u8; COMMITMENT], b: &[u8; COMMITMENT]) -> Choice {
    let words = a.as_chunks().0.iter().zip(b.as_chunks().0);
    words.fold(0, |differing, (a, b)| differing | (u64::from_ne_bytes(*a) ^ u64::from_ne_bytes(*b))).ct_eq(&0)
}

fn split_nonce(nonce: &[u8; NONCE]) -> ([u8; PREFIX], [u8; SUFFIX]) {
    let [a, b, c, d, e, f, g, h, i, j, k, l, rest @ ..] = *nonce;
    ([a, b, c, d, e, f, g, h, i, j, k, l], rest)
}

#[cfg(test)]
mod tests;
