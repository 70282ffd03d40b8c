//! Certificates and revocation lists from PEM files (RFC 7468).

use rustls_pki_types::pem::{PemObject, SectionKind};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};

use crate::error::Error;

const BEGIN: &[u8] = b"-----BEGIN ";

/// The certificates of a PEM file, in the file's order.
///
/// A file that holds anything else between PEM markers is refused, a private key above all: a bundle file is copied and
/// read widely, and a key in it is a mistake to be told about. Text outside the markers is ignored.
///
/// # Errors
/// [`Error::Invalid`] naming `pem`.
pub fn certificates_from_pem(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let sections = sections(pem, SectionKind::Certificate, "holds a section that is not a certificate")?;
    if sections.is_empty() {
        return Err(Error::invalid("pem", "holds no certificate"));
    }
    Ok(sections.into_iter().map(CertificateDer::from).collect())
}

/// The revocation lists of a PEM file, in the file's order, as strictly as [`certificates_from_pem`].
///
/// # Errors
/// [`Error::Invalid`] naming `pem`.
pub fn crls_from_pem(pem: &[u8]) -> Result<Vec<CertificateRevocationListDer<'static>>, Error> {
    let sections = sections(pem, SectionKind::Crl, "holds a section that is not an X509 CRL")?;
    if sections.is_empty() {
        return Err(Error::invalid("pem", "holds no revocation list"));
    }
    Ok(sections.into_iter().map(CertificateRevocationListDer::from).collect())
}

fn sections(pem: &[u8], wanted: SectionKind, stranger: &'static str) -> Result<Vec<Vec<u8>>, Error> {
    // Looked for in the text, before anything is decoded: the reader below skips kinds it does not know, and would put
    // a key it does know into memory that nobody wipes.
    let markers: Vec<&[u8]> = pem.split(|b| matches!(b, b'\n' | b'\r')).filter(|l| l.starts_with(BEGIN)).collect();
    if markers.iter().any(|line| line.windows(11).any(|part| part == b"PRIVATE KEY")) {
        return Err(Error::invalid("pem", "holds a private key; keep keys in files of their own"));
    }
    let mut found = Vec::new();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem) {
        let (kind, der) = section.map_err(|_| Error::invalid("pem", "is not well-formed PEM"))?;
        if kind != wanted {
            return Err(Error::invalid("pem", stranger));
        }
        found.push(der);
    }
    if found.len() == markers.len() { Ok(found) } else { Err(Error::invalid("pem", stranger)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";

    fn why(pem: &str) -> &'static str {
        match certificates_from_pem(pem.as_bytes()) {
            Err(Error::Invalid { field, why }) if field == "pem" => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn certificates_come_in_order_and_comments_do_not_matter() {
        let two = CERTIFICATE.replace("MAA=", "BQA=");
        let read = certificates_from_pem(format!("# roots\r\n{CERTIFICATE}text\n{two}").as_bytes()).unwrap();
        assert_eq!(read, [CertificateDer::from(vec![0x30, 0]), CertificateDer::from(vec![5, 0])]);
    }

    #[test]
    fn anything_but_certificates_is_refused() {
        assert_eq!(why(""), "holds no certificate");
        assert_eq!(why("no PEM here"), "holds no certificate");
        for kind in ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "ENCRYPTED PRIVATE KEY", "OPENSSH PRIVATE KEY"]
        {
            let key = format!("-----BEGIN {kind}-----\nMAA=\n-----END {kind}-----\n");
            assert!(why(&format!("{CERTIFICATE}{key}")).starts_with("holds a private key"), "{kind}");
            assert!(why(&format!("{key}{CERTIFICATE}")).starts_with("holds a private key"), "{kind}");
        }
        for kind in ["X509 CRL", "PUBLIC KEY", "TRUSTED CERTIFICATE", "DH PARAMETERS"] {
            let other = format!("-----BEGIN {kind}-----\nMAA=\n-----END {kind}-----\n");
            assert_eq!(why(&format!("{CERTIFICATE}{other}")), "holds a section that is not a certificate", "{kind}");
        }
        assert_eq!(why("-----BEGIN CERTIFICATE-----\nMAA=\n"), "is not well-formed PEM");
        assert_eq!(why("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"), "is not well-formed PEM");
        assert!(why(&format!("-----BEGIN CERTIFICATE-----\n{CERTIFICATE}")).contains("not a certificate"));
    }

    #[test]
    fn revocation_lists_are_read_alike() {
        let crl = CERTIFICATE.replace("CERTIFICATE", "X509 CRL");
        assert_eq!(crls_from_pem(crl.as_bytes()).unwrap(), [CertificateRevocationListDer::from(vec![0x30, 0])]);
        assert!(crls_from_pem(CERTIFICATE.as_bytes()).is_err());
        assert!(crls_from_pem(b"").is_err());
    }
}
