//! Identifiers, parsed once at the edge and compared by exact bytes ever after.
//!
//! Nothing is folded, trimmed or normalized: `Acme`, `acme ` and `аcme` (with a Cyrillic а) are refused, not repaired.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// Longest tenant, dataset or purpose, in bytes.
pub const MAX_NAME: usize = 63;
/// Longest subject, in bytes.
pub const MAX_SUBJECT: usize = 256;

const NAME_RULE: &str = "must match [a-z0-9][a-z0-9._-]{0,62}";
const SUBJECT_RULE: &str = "must be 1 to 256 bytes of printable ASCII without spaces (0x21-0x7e)";

fn is_name(s: &str) -> bool {
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let mut bytes = s.bytes();
    s.len() <= MAX_NAME && bytes.next().is_some_and(alnum) && bytes.all(|b| alnum(b) || matches!(b, b'.' | b'_' | b'-'))
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $field:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(Arc<str>);

        impl $type {
            #[doc = concat!("Accepts exactly `[a-z0-9][a-z0-9._-]{0,62}`.\n\n# Errors\n[`Error::Invalid`] naming `", $field, "`.")]
            pub fn parse(s: &str) -> Result<Self, Error> {
                if is_name(s) { Ok(Self(s.into())) } else { Err(Error::invalid($field, NAME_RULE)) }
            }

            /// The identifier's text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// A customer: the unit of isolation. Each has its own tenant key.
    TenantId,
    "tenant"
);
name!(
    /// A named body of one tenant's data, with its own data keys.
    DatasetId,
    "dataset"
);
name!(
    /// Why data is used; every data call names one, and it is in the audit entry.
    Purpose,
    "purpose"
);

/// The person the data is about. Case is kept. Never logged: audit entries carry a pseudonym.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subject(Arc<str>);

impl Subject {
    /// Accepts 1 to 256 bytes of 0x21–0x7e. Absent is absent: an empty subject is refused.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming `subject`.
    pub fn parse(s: &str) -> Result<Self, Error> {
        if (1..=MAX_SUBJECT).contains(&s.len()) && s.bytes().all(|b| (0x21..=0x7e).contains(&b)) {
            Ok(Self(s.into()))
        } else {
            Err(Error::invalid("subject", SUBJECT_RULE))
        }
    }

    /// The raw identifier; keep it out of logs.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Shows nothing of the person.
impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Subject(…)")
    }
}

/// Why an operator does something, in their own words; kept in the audit entry.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reason(Arc<str>);

impl Reason {
    /// Accepts 1 to 512 bytes of text without control characters.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming `reason`.
    pub fn parse(s: &str) -> Result<Self, Error> {
        if (1..=512).contains(&s.len()) && !s.chars().any(char::is_control) {
            Ok(Self(s.into()))
        } else {
            Err(Error::invalid("reason", "must be 1 to 512 bytes of text without control characters"))
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Names one version of one data key; 16 random bytes, carried in every envelope header.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub [u8; 16]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The version of a tenant key or data key; the first is 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyVersion(pub u32);

impl KeyVersion {
    /// The first version of any key.
    pub const FIRST: Self = Self(1);

    /// Refuses version 0, which no key has (`docs/format.md` §2.4-1).
    ///
    /// # Errors
    /// [`Error::Invalid`] naming `key_version`.
    pub fn check(self) -> Result<(), Error> {
        if self < Self::FIRST { Err(Error::invalid("key_version", "must be 1 or more")) } else { Ok(()) }
    }

    /// The version after this one, or `None` when the counter is used up.
    pub fn next(self) -> Option<Self> {
        self.0.checked_add(1).map(Self)
    }
}

impl fmt::Display for KeyVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Names one call from the edge to the audit entry; 16 random bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId(pub [u8; 16]);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An approval's name: 16 bytes, the first six of them the time in milliseconds, so that names are in the order in which
/// they were made. As text 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ApprovalId(pub [u8; 16]);

/// Names one consent of a tenant. As text 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ConsentId(pub [u8; 16]);

/// Names one time-bound grant of access. As text 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GrantId(pub [u8; 16]);

/// SHA-256 over the canonical form of what is to be approved. As text 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fingerprint(pub [u8; 32]);

fn hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|b| write!(f, "{b:02x}"))
}

/// Bytes as exactly so many lower-case hexadecimal digits.
pub(crate) fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let lower = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    if text.len() != 2 * N || !text.bytes().all(lower) {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}

macro_rules! hexadecimal {
    ($type:ident, $field:literal, $rule:literal) => {
        impl $type {
            #[doc = concat!("Reads the text.\n\n# Errors\n[`Error::Invalid`] naming `", $field, "`.")]
            pub fn parse(text: &str) -> Result<Self, Error> {
                from_hex(text).map(Self).ok_or_else(|| Error::invalid($field, $rule))
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                hex(&self.0, f)
            }
        }

        impl TryFrom<String> for $type {
            type Error = &'static str;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                from_hex(&text).map(Self).ok_or($rule)
            }
        }

        impl From<$type> for String {
            fn from(this: $type) -> Self {
                this.to_string()
            }
        }
    };
}

hexadecimal!(ApprovalId, "approval", "must be 32 digits of lower-case hexadecimal, as an answer gave it");
hexadecimal!(ConsentId, "consent", "must be 32 digits of lower-case hexadecimal, as an answer gave it");
hexadecimal!(GrantId, "grant", "must be 32 digits of lower-case hexadecimal, as an answer gave it");
hexadecimal!(Fingerprint, "request_sha256", "must be 64 digits of lower-case hexadecimal, as an answer gave it");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_exact() {
        let longest = "a".repeat(63);
        for good in ["a", "0", "acme", "a.b_c-d", longest.as_str()] {
            assert_eq!(TenantId::parse(good).unwrap().as_str(), good);
        }
        let too_long = "a".repeat(64);
        let bad = [
            "",
            ".a",
            "-a",
            "_a",
            "Acme",
            "acme ",
            " acme",
            "ac me",
            "acme\n",
            "acme\0",
            "а",
            "acme\u{200b}",
            "é",
            "e\u{301}",
            "a/b",
            "a:b",
            too_long.as_str(),
        ];
        for bad in bad {
            assert!(
                matches!(TenantId::parse(bad), Err(Error::Invalid { field, .. }) if field == "tenant"),
                "{bad:?} must be refused"
            );
        }
    }

    #[test]
    fn subjects_keep_case_and_refuse_empty() {
        assert_eq!(Subject::parse("User|42@Example.com").unwrap().as_str(), "User|42@Example.com");
        assert_ne!(Subject::parse("A").unwrap(), Subject::parse("a").unwrap());
        assert!(Subject::parse(&"s".repeat(256)).is_ok());
        for bad in [String::new(), "s".repeat(257), "a b".into(), "a\u{7f}".into(), "ü".into()] {
            assert!(Subject::parse(&bad).is_err());
        }
    }

    #[test]
    fn a_subject_does_not_print_itself() {
        assert!(!format!("{:?}", Subject::parse("alice@example.com").unwrap()).contains("alice"));
    }
}
