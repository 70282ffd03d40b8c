//! What stands for a person in the log.

use std::fmt;

use ring::hmac;

use crate::error::Error;
use crate::id::{Subject, TenantId};
use crate::principal::EndUser;
use crate::secret::{Key32, scrub_stack};

const LABEL: &[u8] = b"blindvault/pseudonym/v1\0";
const END_USER_LABEL: &[u8] = b"blindvault/pseudonym/end-user/v1\0";

/// What stands for the people whom an entry names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pseudonyms {
    /// Whom the data is about.
    pub subject: Option<Pseudonym>,
    /// For whom the workload asked.
    pub end_user: Option<Pseudonym>,
}

/// Of an entry that names no end user.
impl From<Option<Pseudonym>> for Pseudonyms {
    fn from(subject: Option<Pseudonym>) -> Self {
        Self { subject, end_user: None }
    }
}

/// Stands for a subject of one tenant in audit entries: 16 bytes that say nothing without the tenant's pseudonym key.
///
/// The same subject of the same tenant has the same pseudonym as long as that key lives, so a tenant can find all
/// accesses to one person's data; two tenants' pseudonyms of one person have nothing in common.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pseudonym(pub [u8; 16]);

impl Pseudonym {
    /// The first 16 bytes (RFC 2104 section 5 allows half) of HMAC-SHA256 under the tenant's pseudonym key over
    /// `"blindvault/pseudonym/v1" ‖ 00 ‖ LP(tenant) ‖ LP(subject)`.
    ///
    /// # Errors
    /// [`Error::Unavailable`] in a forked child, where the key no longer exists.
    pub fn of(key: &Key32, tenant: &TenantId, subject: &Subject) -> Result<Self, Error> {
        let made = compute(key, LABEL, &[tenant.as_str(), subject.as_str()]);
        scrub_stack();
        made
    }

    /// The same over `"blindvault/pseudonym/end-user/v1" ‖ 00 ‖ LP(tenant) ‖ LP(issuer) ‖ LP(subject)`: what stands for
    /// an end user. The same name as a subject and as an end user gives two pseudonyms that have nothing in common.
    ///
    /// # Errors
    /// As [`Self::of`].
    pub fn of_end_user(key: &Key32, tenant: &TenantId, user: &EndUser) -> Result<Self, Error> {
        let made = compute(key, END_USER_LABEL, &[tenant.as_str(), user.issuer(), user.subject().as_str()]);
        scrub_stack();
        made
    }
}

// ring builds its HMAC state on the stack and leaves it there.
#[inline(never)]
fn compute(key: &Key32, label: &[u8], parts: &[&str]) -> Result<Pseudonym, Error> {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key.expose()?));
    context.update(label);
    for part in parts {
        // Identifiers are at most 256 bytes long, issuers 512.
        let len = u16::try_from(part.len()).map_err(|_| Error::invalid("subject", "is too long"))?;
        context.update(&len.to_be_bytes());
        context.update(part.as_bytes());
    }
    let tag = context.sign();
    let (head, _) = tag.as_ref().split_first_chunk().ok_or(Error::Unopenable)?;
    Ok(Pseudonym(*head))
}

impl fmt::Display for Pseudonym {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for Pseudonym {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> Key32 {
        Key32::copy_of(&[byte; 32]).unwrap()
    }

    #[test]
    fn depends_on_key_tenant_and_subject_and_nothing_else() {
        let (acme, other) = (TenantId::parse("acme").unwrap(), TenantId::parse("other").unwrap());
        let (ann, bob) = (Subject::parse("ann").unwrap(), Subject::parse("bob").unwrap());
        let of = |k, t, s| Pseudonym::of(&key(k), t, s).unwrap();
        assert_eq!(of(1, &acme, &ann), of(1, &acme, &ann));
        assert_ne!(of(1, &acme, &ann), of(2, &acme, &ann));
        assert_ne!(of(1, &acme, &ann), of(1, &other, &ann));
        assert_ne!(of(1, &acme, &ann), of(1, &acme, &bob));
        // Lengths are part of the input: moving a letter from one field to the next changes it.
        let (acm, eann) = (TenantId::parse("acm").unwrap(), Subject::parse("eann").unwrap());
        assert_ne!(of(1, &acme, &ann), of(1, &acm, &eann));
    }

    #[test]
    fn an_end_user_is_told_from_a_subject_of_the_same_name() {
        let acme = TenantId::parse("acme").unwrap();
        let of = |name: &str| Pseudonym::of_end_user(&key(1), &acme, &EndUser::for_test(name, "acme", None)).unwrap();
        assert_eq!(of("ann"), of("ann"));
        assert_ne!(of("ann"), of("bob"));
        assert_ne!(of("ann"), Pseudonym::of(&key(1), &acme, &Subject::parse("ann").unwrap()).unwrap());
        // hmac.new(bytes([1])*32, b"blindvault/pseudonym/end-user/v1\0\0\4acme\0\x12https://id.example\0\3ann", "sha256")
        assert_eq!(of("ann").to_string(), "8d113b852564ab27b309204a4611e462");
    }

    #[test]
    fn known_answer() {
        // Made with Python: hmac.new(bytes([1])*32, b"blindvault/pseudonym/v1\0\0\4acme\0\3ann", "sha256").hexdigest()
        let made = Pseudonym::of(&key(1), &TenantId::parse("acme").unwrap(), &Subject::parse("ann").unwrap()).unwrap();
        assert_eq!(made.to_string(), "3a1cad022c0b8056d509798ca1b87e05");
    }
}
