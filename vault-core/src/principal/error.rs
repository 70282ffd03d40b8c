//! Which rule a certificate breaks.

use std::fmt;

use super::spiffe::SpiffeIdError;
use crate::error::{Check, Error};

macro_rules! rules {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal, $message:literal;)+) => {
        /// The first rule that a certificate chain breaks. It holds nothing of the certificate, so it may be logged;
        /// callers outside get [`Error::Denied`] with [`Check::Identity`], whichever rule it was.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum IdentityError {
            $($(#[doc = $doc])+ $variant,)+
            /// The one URI SAN is not a SPIFFE ID.
            SpiffeId(SpiffeIdError),
        }

        impl IdentityError {
            /// A stable name for audit entries and counters.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                    Self::SpiffeId(rule) => rule.name(),
                }
            }

            /// The rule, as a sentence that holds no data.
            pub const fn message(self) -> &'static str {
                match self {
                    $(Self::$variant => $message,)+
                    Self::SpiffeId(rule) => rule.message(),
                }
            }
        }

        /// Every rule but those of the SPIFFE ID itself.
        #[cfg(test)]
        pub(super) const ALL: &[IdentityError] = &[$(IdentityError::$variant),+];
    };
}

rules! {
    /// The peer presented no certificate.
    NoCertificate = "no_certificate", "no certificate was presented";
    /// The leaf was issued for longer than the bundle allows.
    IssuedForTooLong = "issued_for_too_long", "the certificate was issued for longer than is allowed here";
    /// More certificates than a chain may have.
    ChainTooLong = "chain_too_long", "the chain has more certificates than are accepted";
    /// A certificate is larger than one may be.
    CertificateTooLarge = "certificate_too_large", "a certificate is larger than is accepted";
    /// Not one DER-encoded X.509 version 3 certificate, from the first byte to the last.
    Malformed = "malformed_certificate", "a certificate is not exactly one DER-encoded X.509 version 3 certificate";
    /// An extension that matters here does not parse, or has bytes left over.
    MalformedExtension = "malformed_extension", "an extension of the certificate does not parse";
    /// An extension appears twice (RFC 5280 section 4.2 forbids it).
    DuplicateExtension = "duplicate_extension", "an extension of the certificate appears twice";
    /// A critical extension that is not processed here (RFC 5280 section 4.2).
    UnknownCriticalExtension = "unknown_critical_extension", "the certificate has a critical extension that is not known";
    /// The leaf's key is none of RSA 2048–8192, ECDSA P-256 or P-384, Ed25519.
    WeakKey = "weak_key", "the key must be RSA of 2048 to 8192 bits, ECDSA P-256 or P-384, or Ed25519";
    /// The leaf is a CA certificate (X509-SVID section 5.2).
    LeafIsCa = "leaf_is_ca", "the certificate is a CA certificate and cannot identify a caller";
    /// The leaf has no key usage (X509-SVID section 4.3).
    NoKeyUsage = "no_key_usage", "the certificate has no key usage extension";
    /// The leaf's key usage is not marked critical (X509-SVID section 4.3).
    KeyUsageNotCritical = "key_usage_not_critical", "the key usage extension of the certificate is not critical";
    /// The leaf's key usage lacks digitalSignature (X509-SVID section 4.3).
    NoDigitalSignature = "no_digital_signature", "the key usage of the certificate lacks digitalSignature";
    /// The leaf's key usage has keyCertSign or cRLSign (X509-SVID section 5.2).
    LeafSigns = "leaf_signs", "the key usage of the certificate has keyCertSign or cRLSign";
    /// Extended key usage is present and lacks clientAuth, in the leaf or in a CA above it.
    WrongEku = "wrong_eku", "the extended key usage of the chain does not include clientAuth";
    /// An email address in the SAN or the subject: the certificate names a person's mailbox.
    EmailAddress = "email_address", "the certificate carries an email address";
    /// No URI SAN; a CN, a DNS name or an address is no identity here.
    NoUriSan = "no_uri_san", "the certificate has no URI SAN";
    /// More than one URI SAN, whatever it holds (X509-SVID section 2).
    TwoUriSans = "two_uri_sans", "the certificate has more than one URI SAN";
    /// The subject is empty and the SAN is not critical (X509-SVID section 3.1).
    SanNotCritical = "san_not_critical", "the subject is empty and the SAN extension is not critical";
    /// The SPIFFE ID has no path (X509-SVID section 5.2).
    RootPath = "root_path", "the SPIFFE ID has no path";
    /// The SPIFFE ID lies in another trust domain than this bundle's.
    WrongTrustDomain = "wrong_trust_domain", "the SPIFFE ID is not in the trust domain of this listener";
    /// A workload's ID looks like an operator's: its first segment is `operator` in any case.
    OperatorPath = "operator_path", "the SPIFFE ID of a workload must not begin with /operator";
    /// An operator's path is not exactly `/operator/<name>`.
    NotOperatorPath = "not_operator_path", "the path of an operator's SPIFFE ID must be /operator/<name>";
    /// A certificate of the chain has expired.
    Expired = "expired", "a certificate of the chain has expired";
    /// A certificate of the chain is not valid yet.
    NotYetValid = "not_yet_valid", "a certificate of the chain is not valid yet";
    /// The chain does not end at a root of the bundle.
    UnknownIssuer = "unknown_issuer", "the chain does not lead to a root of the trust bundle";
    /// No root of the bundle is within its validity.
    NoValidRoot = "no_valid_root", "no root of the trust bundle is valid now";
    /// A signature of the chain does not verify, or its RSA key has fewer than 2048 bits.
    BadSignature = "bad_signature", "a signature of the chain does not verify";
    /// A signature of the chain uses an algorithm that is not allowed, for example SHA-1.
    WeakSignature = "weak_signature", "a signature of the chain uses an algorithm that is not allowed";
    /// More CA certificates below a CA than its path length allows, or than are accepted at all.
    PathLength = "path_length", "the chain is longer than a CA of it allows";
    /// A name constraint of a CA excludes the leaf.
    NameConstraint = "name_constraint", "a name constraint of a CA excludes the certificate";
    /// A certificate that is no CA was used as one.
    NotACa = "not_a_ca", "the certificate is not a CA certificate";
    /// A CA certificate of the chain lacks key usage keyCertSign (X509-SVID section 3.2).
    CaCannotSign = "ca_cannot_sign", "the key usage of the CA certificate lacks keyCertSign";
    /// A CA certificate has a URI SAN that is not the root ID of the bundle's trust domain (X509-SVID section 3.2).
    CaSpiffeId = "ca_spiffe_id", "a URI SAN of a CA certificate must be the trust domain's SPIFFE ID without a path";
    /// A certificate of the chain is revoked.
    Revoked = "revoked", "a certificate of the chain is revoked";
    /// CRLs are configured, and none covers an issuer of the chain.
    UnknownRevocation = "unknown_revocation", "no CRL covers a certificate of the chain";
    /// The CRL of an issuer of the chain is past its next update.
    StaleCrl = "stale_crl", "the CRL of an issuer of the chain is stale";
    /// The CRL of an issuer of the chain is not signed by that issuer, or the issuer may not sign CRLs.
    BadCrl = "bad_crl", "the CRL of an issuer of the chain is not validly signed by it";
    /// Finding a path took more work than is spent on an unauthenticated peer.
    TooComplex = "too_complex", "the chain takes too much work to verify";
}

impl fmt::Display for IdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

impl std::error::Error for IdentityError {}

impl From<SpiffeIdError> for IdentityError {
    fn from(rule: SpiffeIdError) -> Self {
        Self::SpiffeId(rule)
    }
}

impl From<IdentityError> for Error {
    fn from(_: IdentityError) -> Self {
        Self::Denied(Check::Identity)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_distinct_and_outside_all_rules_look_the_same() {
        let names: BTreeSet<_> = ALL.iter().map(|rule| rule.name()).collect();
        assert_eq!(names.len(), ALL.len());
        assert!(ALL.iter().all(|rule| Error::from(*rule) == Error::Denied(Check::Identity)));
    }

    /// Of each rule, its row in the documentation names at least one test, and the tests exist.
    #[test]
    fn every_rule_is_documented_with_its_tests() {
        let doc = include_str!("../../../docs/identity.md");
        let tests = [
            include_str!("../../tests/identity/leaf.rs"),
            include_str!("../../tests/identity/planes.rs"),
            include_str!("../../tests/identity/chain.rs"),
            include_str!("../../tests/identity/revocation.rs"),
        ];
        let rows: Vec<(&str, Vec<&str>)> = doc
            .lines()
            .filter_map(|line| {
                let mut cells = line.strip_prefix("| ")?.rsplit(" | ");
                let (named, rule) = (cells.next()?, cells.next()?);
                let rule = rule.strip_prefix('`')?.strip_suffix('`')?;
                Some((rule, named.split('`').skip(1).step_by(2).filter(|name| !name.ends_with(".rs")).collect()))
            })
            .collect();
        let of_ids = [SpiffeIdError::TooLong, SpiffeIdError::Scheme, SpiffeIdError::TrustDomain, SpiffeIdError::Path];
        let rules = ALL.iter().copied().chain(of_ids.map(IdentityError::SpiffeId));
        for rule in rules {
            let named: Vec<_> = rows.iter().filter(|(name, _)| *name == rule.name()).collect();
            assert!(matches!(named.as_slice(), [(_, tests)] if !tests.is_empty()), "{} has one row", rule.name());
        }
        for test in rows.iter().flat_map(|(_, tests)| tests) {
            let (function, row) = (format!("fn {test}()"), format!("    {test}: "));
            assert!(tests.iter().any(|file| file.contains(&function) || file.contains(&row)), "no test {test}");
        }
    }
}
