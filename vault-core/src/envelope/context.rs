//! The canonical context A, which AES-GCM authenticates with every envelope (`docs/format.md`, "Context").
//!
//! ```text
//! A = "blindvault/ctx/v1" ‖ 00 ‖ H ‖ LP(tenant) ‖ LP(dataset) ‖ LP(subject or "") ‖ u32 key_version ‖ u16 n ‖ n×(LP(key) ‖ LP(value))
//! ```

use super::{DataKey, HEADER, Header, MAX_CONTEXT, Scope, Suite};
use crate::error::Error;
use crate::id::KeyVersion;

const LABEL: &[u8] = b"blindvault/ctx/v1\0";

const TOO_LARGE: &str = "all identifiers, keys and values together must stay within 8 KiB";

/// The caller's pairs, in canonical form: strictly ascending by the bytes of their keys.
///
/// They are authenticated but not stored in the envelope: the same pairs must be given again to open it. Their values
/// may be sensitive, so a context does not print them.
#[derive(Clone, PartialEq, Eq)]
pub struct Context {
    /// `u16 n ‖ n×(LP(key) ‖ LP(value))`.
    encoded: Vec<u8>,
}

impl Default for Context {
    fn default() -> Self {
        Self::empty()
    }
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Context({} bytes)", self.encoded.len())
    }
}

impl Context {
    /// No pairs.
    pub fn empty() -> Self {
        Self { encoded: vec![0, 0] }
    }

    /// Takes pairs in any order, as from a map.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming `context` for a key given twice or more than 8 KiB.
    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, Error> {
        let mut pairs: Vec<_> = pairs.into_iter().collect();
        pairs.sort_unstable_by(|a, b| a.0.as_bytes().cmp(b.0.as_bytes()));
        Self::from_ascending(pairs)
    }

    /// Takes pairs that are already in canonical order.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming `context` if keys do not strictly ascend by their bytes, or for more than 8 KiB.
    pub fn from_ascending<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, Error> {
        let mut encoded = vec![0, 0];
        let mut count = 0u16;
        let mut last: Option<&[u8]> = None;
        for (key, value) in pairs {
            if last.is_some_and(|last| last >= key.as_bytes()) {
                return Err(Error::invalid("context", "each key may appear once only"));
            }
            last = Some(key.as_bytes());
            count = count.checked_add(1).ok_or_else(|| Error::invalid("context", TOO_LARGE))?;
            put_lp(&mut encoded, key.as_bytes())?;
            put_lp(&mut encoded, value.as_bytes())?;
            if encoded.len() > MAX_CONTEXT {
                return Err(Error::invalid("context", TOO_LARGE));
            }
        }
        if let Some(front) = encoded.first_chunk_mut() {
            *front = count.to_be_bytes();
        }
        Ok(Self { encoded })
    }

    /// Bytes that [`Self::append_to`] appends.
    #[inline]
    pub(super) const fn encoded_len(&self) -> usize {
        self.encoded.len()
    }

    /// Appends the pairs to the part of A that a data key fixes.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming `context` for more than 8 KiB in all.
    #[inline]
    pub(super) fn append_to(&self, a: &mut Vec<u8>) -> Result<(), Error> {
        if a.len() + self.encoded.len() > MAX_CONTEXT {
            return Err(Error::invalid("context", TOO_LARGE));
        }
        a.extend_from_slice(&self.encoded);
        Ok(())
    }

    /// The whole of A for an envelope of `key` in suite 0x01, for tests and tools that compare it.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming `context` for more than 8 KiB in all.
    pub fn canonical(&self, key: &DataKey) -> Result<Vec<u8>, Error> {
        self.canonical_for(Suite::Record, key)
    }

    /// The whole of A for an envelope of `key` in a suite.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming `context` for more than 8 KiB in all.
    pub fn canonical_for(&self, suite: Suite, key: &DataKey) -> Result<Vec<u8>, Error> {
        let mut a = prefix(&Header::new(suite, key.id()), key.scope(), key.version())?;
        a.reserve_exact(self.encoded.len());
        self.append_to(&mut a)?;
        Ok(a)
    }
}

/// The part of A that a data key fixes: everything before the pairs.
///
/// # Errors
/// None in practice: identifiers are far shorter than a length prefix can say.
pub(super) fn prefix(header: &Header, scope: &Scope, version: KeyVersion) -> Result<Vec<u8>, Error> {
    let subject = scope.subject.as_ref().map_or("", |s| s.as_str());
    let mut a = Vec::with_capacity(LABEL.len() + HEADER + 140 + subject.len());
    a.extend_from_slice(LABEL);
    a.extend_from_slice(&header.encode());
    put_lp(&mut a, scope.tenant.as_str().as_bytes())?;
    put_lp(&mut a, scope.dataset.as_str().as_bytes())?;
    put_lp(&mut a, subject.as_bytes())?;
    a.extend_from_slice(&version.0.to_be_bytes());
    Ok(a)
}

/// LP(x): u16 length ‖ bytes.
fn put_lp(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), Error> {
    let len = u16::try_from(bytes.len()).map_err(|_| Error::invalid("context", TOO_LARGE))?;
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(bytes);
    Ok(())
}
