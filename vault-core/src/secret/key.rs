//! 32 bytes of key material.

use subtle::ConstantTimeEq as _;

use super::Locked;
use crate::error::{Dependency, Error};

/// A 256-bit key in locked memory; wiped on drop, never on the stack unless a primitive puts it there.
pub struct Key32(Locked<[u8; 32]>);

impl Key32 {
    /// A key whose bytes `fill` writes in place.
    ///
    /// # Errors
    /// What `fill` returns, or [`Error::Unavailable`] without locked memory.
    pub fn init_with(fill: impl FnOnce(&mut [u8; 32]) -> Result<(), Error>) -> Result<Self, Error> {
        let mut key = Locked::new([0u8; 32])?;
        fill(key.get_mut()?)?;
        Ok(Self(key))
    }

    /// A fresh random key from the operating system.
    ///
    /// # Errors
    /// [`Error::Unavailable`] without entropy or locked memory.
    pub fn generate() -> Result<Self, Error> {
        Self::init_with(|bytes| {
            getrandom::fill(bytes)
                .map_err(|_| Error::unavailable(Dependency::Entropy, "the operating system gave no random bytes"))
        })
    }

    /// A copy of `bytes`, which the caller still has to wipe.
    ///
    /// # Errors
    /// [`Error::Unavailable`] without locked memory.
    pub fn copy_of(bytes: &[u8; 32]) -> Result<Self, Error> {
        Self::init_with(|own| {
            own.copy_from_slice(bytes);
            Ok(())
        })
    }

    /// The key's bytes.
    ///
    /// # Errors
    /// [`Error::Unavailable`] in a forked child, where the key no longer exists.
    pub fn expose(&self) -> Result<&[u8; 32], Error> {
        self.0.get()
    }
}

/// In constant time; two keys in a forked child are unequal.
impl PartialEq for Key32 {
    fn eq(&self, other: &Self) -> bool {
        match (self.expose(), other.expose()) {
            (Ok(a), Ok(b)) => a.ct_eq(b).into(),
            _ => false,
        }
    }
}

impl Eq for Key32 {}
