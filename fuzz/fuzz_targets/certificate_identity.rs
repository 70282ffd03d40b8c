//! A certificate gives an identity only if it keeps the rules of X509-SVID, as a second parser reads them, and no bytes
//! make it panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vault_core::principal::{MAX_CERTIFICATE, leaf_identity};
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

fn is_workload_id(id: &str) -> bool {
    let allowed = |c: char, upper: bool| c.is_ascii_digit() || ".-_".contains(c) || c.is_ascii_lowercase() || upper && c.is_ascii_uppercase();
    let Some((domain, path)) = id.strip_prefix("spiffe://").and_then(|rest| rest.split_once('/')) else { return false };
    let good = |segment: &str| !["", ".", ".."].contains(&segment) && segment.chars().all(|c| allowed(c, true));
    id.len() <= 2048 && (1..=255).contains(&domain.len()) && domain.chars().all(|c| allowed(c, false)) && path.split('/').all(good)
}

fuzz_target!(|der: &[u8]| {
    let Ok(identity) = leaf_identity(der) else { return };
    assert!(der.len() <= MAX_CERTIFICATE && is_workload_id(identity.as_str()));
    // The second parser refuses some encodings that the first takes (odd dates, say); there it has no opinion.
    let Ok((rest, certificate)) = X509Certificate::from_der(der) else { return };
    assert!(rest.is_empty(), "bytes after the certificate");
    let (mut uris, mut signs, mut san_critical) = (Vec::new(), false, false);
    for extension in certificate.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(names) => {
                san_critical = extension.critical;
                uris.extend(names.general_names.iter().filter_map(|name| match name {
                    GeneralName::URI(uri) => Some(*uri),
                    GeneralName::RFC822Name(_) => panic!("an email address"),
                    _ => None,
                }));
            }
            ParsedExtension::BasicConstraints(basic) => assert!(!basic.ca, "a CA"),
            ParsedExtension::KeyUsage(usage) => {
                assert!(extension.critical && !usage.key_cert_sign() && !usage.crl_sign());
                signs = usage.digital_signature();
            }
            ParsedExtension::ExtendedKeyUsage(usage) => assert!(usage.client_auth, "not for clients"),
            ParsedExtension::UnsupportedExtension { .. } => assert!(!extension.critical, "critical and unknown"),
            _ => {}
        }
    }
    assert_eq!(uris, [identity.as_str()], "exactly one URI, and it is the identity");
    assert!(signs, "no digitalSignature");
    assert!(san_critical || certificate.subject().iter().next().is_some(), "nothing names the subject");
    assert_eq!(certificate.subject().iter_email().count(), 0, "an email address");
});
