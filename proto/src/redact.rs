//! What the generated `Debug` of a message shows.
//!
//! The build writes one implementation a message from the classes of its fields: identifiers and metadata are shown,
//! numbers, states and times too, everything else as `…`. A request is printed before it is validated, so even an
//! identifier is shown only if it has the form of one: whatever a confused caller put there instead stays hidden.

use std::fmt;

use prost::DecodeError;

const MAX_IDENTIFIER: usize = 63;
const MAX_METADATA: usize = 512;

/// Stands for a value that is not shown; tells neither its content nor its length.
#[derive(Clone, Copy)]
pub struct Hidden;

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// Shows a value of class `IDENTIFIER` if it is empty or matches `[a-z0-9][a-z0-9._-]{0,62}`, and `…` otherwise.
#[derive(Clone, Copy)]
pub struct Identifier<'a>(pub &'a str);

impl fmt::Debug for Identifier<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let alnum = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let plain = self.0.len() <= MAX_IDENTIFIER
            && self.0.as_bytes().first().is_none_or(alnum)
            && self.0.bytes().all(|b| alnum(&b) || matches!(b, b'.' | b'_' | b'-'));
        if plain { fmt::Debug::fmt(self.0, f) } else { Hidden.fmt(f) }
    }
}

/// Shows a value of class `METADATA` if it is at most 512 bytes of printable ASCII without spaces, and `…` otherwise.
#[derive(Clone, Copy)]
pub struct Metadata<'a>(pub &'a str);

impl fmt::Debug for Metadata<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = self.0.len() <= MAX_METADATA && self.0.bytes().all(|b| b.is_ascii_graphic());
        if plain { fmt::Debug::fmt(self.0, f) } else { Hidden.fmt(f) }
    }
}

/// The redacted form of an encoded message, given its full name, for example `vault.v1.EncryptRequest`; `None` if the
/// protocol has no such message. For tools that print traffic, and for the test that every message redacts itself.
pub fn redacted(name: &str, encoded: &[u8]) -> Option<Result<String, DecodeError>> {
    crate::v1::redacted(name, encoded)
}
