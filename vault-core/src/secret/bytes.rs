//! Plaintext on the heap.

use subtle::ConstantTimeEq as _;
use zeroize::Zeroize as _;

/// Bytes that are wiped when they go: plaintext coming in or out.
///
/// The allocation never grows, so no copy is left behind by a reallocation. Equality takes the same time for any two
/// values of one length.
pub struct SecretBytes(Vec<u8>);

impl SecretBytes {
    /// Takes over a buffer; all of it, spare capacity included, is wiped on drop.
    pub const fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// A copy of `bytes`, which the caller still has to wipe.
    pub fn copy_of(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    /// The bytes. Copy them only into something that is wiped too.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The bytes, writable; the length is fixed.
    pub fn expose_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }

    /// The buffer, no longer wiped: for what has been encrypted in place and is secret no more.
    pub(crate) fn into_sealed(mut self) -> Vec<u8> {
        std::mem::take(&mut self.0)
    }

    /// Number of bytes.
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// True if there are none.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Keeps the first `len` bytes and wipes the rest.
    pub fn truncate(&mut self, len: usize) {
        if let Some(rest) = self.0.get_mut(len..) {
            rest.zeroize();
        }
        self.0.truncate(len);
    }
}

impl Drop for SecretBytes {
    fn drop(&mut self) {
        // Slice by slice, each of which is one fill; `Vec::zeroize` goes byte by byte.
        self.0.spare_capacity_mut().zeroize();
        self.0.as_mut_slice().zeroize();
    }
}

impl PartialEq for SecretBytes {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for SecretBytes {}

impl From<&[u8]> for SecretBytes {
    fn from(bytes: &[u8]) -> Self {
        Self::copy_of(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equality_is_by_content_and_length() {
        assert!(SecretBytes::copy_of(b"abc") == SecretBytes::copy_of(b"abc"));
        assert!(SecretBytes::copy_of(b"abc") != SecretBytes::copy_of(b"abd"));
        assert!(SecretBytes::copy_of(b"abc") != SecretBytes::copy_of(b"ab"));
    }

    #[test]
    fn truncation_keeps_the_front() {
        let mut bytes = SecretBytes::copy_of(b"secret");
        bytes.truncate(3);
        assert_eq!(bytes.expose(), b"sec");
        bytes.truncate(9);
        assert_eq!(bytes.len(), 3);
    }
}
