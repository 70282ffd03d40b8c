//! The rules of X509-SVID that one certificate can break by itself, without its chain.

use x509_cert::der::asn1::ObjectIdentifier;

use super::error::IdentityError;
use super::spiffe::{SpiffeId, TrustDomain};
use super::x509::{Facts, Uris};

/// Largest certificate read, in bytes. A leaf with the longest SPIFFE ID and an 8192-bit RSA key takes some 5 KiB.
pub const MAX_CERTIFICATE: usize = 16 * 1024;

const CLIENT_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.2");

/// A leaf that keeps the rules by itself; whether anyone trusts its issuer is still open.
pub(super) struct Leaf {
    pub(super) id: SpiffeId,
    pub(super) facts: Facts,
}

/// The SPIFFE ID that a leaf certificate claims, if it keeps every rule that concerns the leaf alone.
///
/// A claim and no proof: the chain, its validity in time and the trust domain are not looked at.
/// [`super::Workload::verify`] does all of it.
///
/// # Errors
/// The first broken rule. It never panics, whatever the bytes.
pub fn leaf_identity(der: &[u8]) -> Result<SpiffeId, IdentityError> {
    read_leaf(der).map(|leaf| leaf.id)
}

pub(super) fn read_facts(der: &[u8]) -> Result<Facts, IdentityError> {
    if der.len() > MAX_CERTIFICATE {
        return Err(IdentityError::CertificateTooLarge);
    }
    Facts::read(der)
}

pub(super) fn read_leaf(der: &[u8]) -> Result<Leaf, IdentityError> {
    let facts = read_facts(der)?;
    if facts.has_unknown_critical {
        return Err(IdentityError::UnknownCriticalExtension);
    }
    check_usage(&facts)?;
    let id = subject_of(&facts)?;
    Ok(Leaf { id, facts })
}

/// What the key may be used for: X509-SVID sections 4.1, 4.3, 4.4 and 5.2.
fn check_usage(facts: &Facts) -> Result<(), IdentityError> {
    if facts.is_ca {
        return Err(IdentityError::LeafIsCa);
    }
    let (usage, critical) = facts.key_usage.ok_or(IdentityError::NoKeyUsage)?;
    if usage.key_cert_sign() || usage.crl_sign() {
        return Err(IdentityError::LeafSigns);
    }
    if !usage.digital_signature() {
        return Err(IdentityError::NoDigitalSignature);
    }
    if !critical {
        return Err(IdentityError::KeyUsageNotCritical);
    }
    if facts.extended_key_usage.as_ref().is_some_and(|purposes| !purposes.contains(&CLIENT_AUTH)) {
        return Err(IdentityError::WrongEku);
    }
    if facts.key_is_strong { Ok(()) } else { Err(IdentityError::WeakKey) }
}

/// Whom the certificate names: X509-SVID sections 2, 3.1 and 5.2.
fn subject_of(facts: &Facts) -> Result<SpiffeId, IdentityError> {
    if facts.has_email {
        return Err(IdentityError::EmailAddress);
    }
    let uri = match &facts.uris {
        Uris::None => return Err(IdentityError::NoUriSan),
        Uris::One(uri) => uri,
        Uris::Many => return Err(IdentityError::TwoUriSans),
    };
    if facts.subject_is_empty && !facts.san_is_critical {
        return Err(IdentityError::SanNotCritical);
    }
    let id = SpiffeId::parse(uri)?;
    if id.path().is_empty() { Err(IdentityError::RootPath) } else { Ok(id) }
}

/// The rules for a signing certificate, root or intermediate: X509-SVID section 3.2.
///
/// Path validation checks cA and pathLenConstraint of intermediates too, but not keyCertSign, and nothing of a root.
pub(super) fn check_ca(facts: &Facts, domain: &TrustDomain) -> Result<(), IdentityError> {
    if !facts.is_ca {
        return Err(IdentityError::NotACa);
    }
    if !facts.key_usage.is_some_and(|(usage, _)| usage.key_cert_sign()) {
        return Err(IdentityError::CaCannotSign);
    }
    let id = match &facts.uris {
        Uris::None => return Ok(()),
        Uris::One(uri) => SpiffeId::parse(uri).map_err(|_| IdentityError::CaSpiffeId)?,
        Uris::Many => return Err(IdentityError::CaSpiffeId),
    };
    if id.path().is_empty() && id.is_in(domain) { Ok(()) } else { Err(IdentityError::CaSpiffeId) }
}
