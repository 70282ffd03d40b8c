//! What the rules need to know of one certificate, read from its DER.
//!
//! The SAN extension is read here name by name, by tag: a decoder that insists on valid strings could fail on, or skip,
//! a second URI, and the count of URIs is what the rule is about.

use std::collections::BTreeSet;

use x509_cert::der::asn1::{AnyRef, BitStringRef, ObjectIdentifier, UintRef};
use x509_cert::der::{self, Decode, Reader, SliceReader, Tag};
use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage};
use x509_cert::{Certificate, SubjectPublicKeyInfo, Version};

use super::error::IdentityError;
use crate::time::Timestamp;

const KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.15");
const SUBJECT_ALT_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.17");
const BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");
const NAME_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.30");
const CRL_DISTRIBUTION_POINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.31");
const EXTENDED_KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37");

/// PKCS #9 emailAddress, an attribute of distinguished names.
const EMAIL_ATTRIBUTE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.1");
/// Kinds of otherName that hold a mailbox: SmtpUTF8Mailbox (RFC 9598) and the user principal name of smart cards.
const MAILBOX_NAMES: [ObjectIdentifier; 2] =
    [ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.8.9"), ObjectIdentifier::new_unwrap("1.3.6.1.4.1.311.20.2.3")];

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const CURVES: [ObjectIdentifier; 2] =
    [ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7"), ObjectIdentifier::new_unwrap("1.3.132.0.34")];

/// How many URI SANs there are; the bytes of one are kept as they stand.
pub(super) enum Uris {
    None,
    One(Vec<u8>),
    Many,
}

/// One certificate as the rules see it.
pub(super) struct Facts {
    pub(super) uris: Uris,
    pub(super) has_email: bool,
    pub(super) subject_is_empty: bool,
    pub(super) san_is_critical: bool,
    /// An extension marked critical that neither the rules nor path validation process.
    pub(super) has_unknown_critical: bool,
    pub(super) is_ca: bool,
    pub(super) path_len: Option<u8>,
    /// The key usage, and whether it is critical.
    pub(super) key_usage: Option<(KeyUsage, bool)>,
    pub(super) extended_key_usage: Option<Vec<ObjectIdentifier>>,
    pub(super) key_is_strong: bool,
    pub(super) not_before: Timestamp,
    pub(super) not_after: Timestamp,
}

#[derive(Default)]
struct Names {
    first_uri: Option<Vec<u8>>,
    uris: usize,
    has_email: bool,
}

impl Facts {
    /// Reads exactly one certificate; bytes after it are refused.
    pub(super) fn read(der: &[u8]) -> Result<Self, IdentityError> {
        let certificate = Certificate::from_der(der).map_err(|_| IdentityError::Malformed)?;
        let tbs = certificate.tbs_certificate();
        if tbs.version() != Version::V3 {
            return Err(IdentityError::Malformed);
        }
        let mut facts = Self {
            uris: Uris::None,
            has_email: tbs.subject().iter().any(|attribute| attribute.oid == EMAIL_ATTRIBUTE),
            subject_is_empty: tbs.subject().is_empty(),
            san_is_critical: false,
            has_unknown_critical: false,
            is_ca: false,
            path_len: None,
            key_usage: None,
            extended_key_usage: None,
            key_is_strong: key_is_strong(tbs.subject_public_key_info()),
            not_before: timestamp(&tbs.validity().not_before),
            not_after: timestamp(&tbs.validity().not_after),
        };
        let mut seen = BTreeSet::new();
        for extension in tbs.extensions().map(Vec::as_slice).unwrap_or_default() {
            if !seen.insert(extension.extn_id) {
                return Err(IdentityError::DuplicateExtension);
            }
            facts
                .read_extension(extension.extn_id, extension.critical, extension.extn_value.as_bytes())
                .map_err(|_| IdentityError::MalformedExtension)?;
        }
        Ok(facts)
    }

    fn read_extension(&mut self, id: ObjectIdentifier, critical: bool, value: &[u8]) -> der::Result<()> {
        match id {
            SUBJECT_ALT_NAME => {
                let names = read_names(value)?;
                self.san_is_critical = critical;
                self.has_email |= names.has_email;
                self.uris = match (names.uris, names.first_uri) {
                    (0, _) => Uris::None,
                    (1, Some(uri)) => Uris::One(uri),
                    _ => Uris::Many,
                };
            }
            BASIC_CONSTRAINTS => {
                let constraints = BasicConstraints::from_der(value)?;
                self.is_ca = constraints.ca;
                self.path_len = constraints.path_len_constraint;
            }
            KEY_USAGE => self.key_usage = Some((read_key_usage(value)?, critical)),
            EXTENDED_KEY_USAGE => self.extended_key_usage = Some(ExtendedKeyUsage::from_der(value)?.0),
            // Path validation reads and enforces these two.
            NAME_CONSTRAINTS | CRL_DISTRIBUTION_POINTS => {}
            _ => self.has_unknown_critical |= critical,
        }
        Ok(())
    }
}

/// `KeyUsage ::= BIT STRING`, RFC 5280 section 4.2.1.3. Bits of the last byte that are not part of the string must be
/// zero (X.690 section 11.2.1); the decoder would pass over them.
fn read_key_usage(der: &[u8]) -> der::Result<KeyUsage> {
    let bits = BitStringRef::from_der(der)?;
    let unused = bits.raw_bytes().last().map_or(0, |last| last & ((1 << bits.unused_bits()) - 1));
    if unused != 0 {
        return Err(Tag::BitString.value_error().into());
    }
    KeyUsage::from_der(der)
}

/// `GeneralNames ::= SEQUENCE SIZE (1..MAX) OF GeneralName`, RFC 5280 section 4.2.1.6.
fn read_names(der: &[u8]) -> der::Result<Names> {
    let sequence = AnyRef::from_der(der)?;
    let outer = sequence.header().tag();
    if outer != Tag::Sequence || sequence.value().is_empty() {
        return Err(outer.value_error().into());
    }
    let mut names = Names::default();
    let mut reader = SliceReader::new(sequence.value())?;
    while !reader.is_finished() {
        let name = AnyRef::decode(&mut reader)?;
        let tag = name.header().tag();
        let Tag::ContextSpecific { number, constructed } = tag else { return Err(tag.value_error().into()) };
        match (number.value(), constructed) {
            (6, false) => {
                names.uris += 1;
                names.first_uri.get_or_insert_with(|| name.value().to_vec());
            }
            (1, false) => names.has_email = true,
            (0, true) => {
                let kind = ObjectIdentifier::decode(&mut SliceReader::new(name.value())?)?;
                names.has_email |= MAILBOX_NAMES.contains(&kind);
            }
            // dNSName, x400Address, directoryName, ediPartyName, iPAddress, registeredID: allowed beside the URI
            // (X509-SVID section 2) and never read.
            (2 | 7 | 8, false) | (3..=5, true) => {}
            _ => return Err(tag.value_error().into()),
        }
    }
    Ok(names)
}

fn key_is_strong(spki: &SubjectPublicKeyInfo) -> bool {
    match spki.algorithm.oid {
        ED25519 => true,
        EC => spki
            .algorithm
            .parameters
            .as_ref()
            .and_then(|parameters| parameters.decode_as::<ObjectIdentifier>().ok())
            .is_some_and(|curve| CURVES.contains(&curve)),
        RSA => spki
            .subject_public_key
            .as_bytes()
            .and_then(|key| rsa_bits(key).ok())
            .is_some_and(|bits| (2048..=8192).contains(&bits)),
        _ => false,
    }
}

/// The size of the modulus of an `RSAPublicKey` (RFC 8017 appendix A.1.1), in bits.
fn rsa_bits(key: &[u8]) -> der::Result<usize> {
    let mut reader = SliceReader::new(key)?;
    let modulus = reader.sequence(|reader| {
        let modulus = UintRef::decode(reader)?;
        UintRef::decode(reader)?;
        der::Result::Ok(modulus)
    })?;
    reader.finish()?;
    let bytes = modulus.as_bytes();
    let unused = bytes.first().map_or(0, |byte| byte.leading_zeros() as usize);
    Ok((bytes.len() * 8).saturating_sub(unused))
}

/// The last second at which a certificate is valid, of whatever kind it is.
///
/// # Errors
/// [`IdentityError::Malformed`] if it is not exactly one certificate.
pub fn certificate_end(der: &[u8]) -> Result<Timestamp, IdentityError> {
    let certificate = Certificate::from_der(der).map_err(|_| IdentityError::Malformed)?;
    Ok(timestamp(&certificate.tbs_certificate().validity().not_after))
}

pub(super) fn timestamp(time: &x509_cert::time::Time) -> Timestamp {
    Timestamp(u64::try_from(time.to_unix_duration().as_millis()).unwrap_or(u64::MAX))
}
