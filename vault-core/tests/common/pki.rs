//! A small PKI for tests: roots, intermediates, leaves and revocation lists, good unless an `edit` spoils them.
//!
//! A test file takes it in with `#[path = "common/pki.rs"] mod pki;`. It needs `rcgen` and `rustls-pki-types` alone, so
//! unit tests and other crates can do the same.

#![expect(clippy::unwrap_used, reason = "a fixture that cannot be built is a failed test")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevocationReason, RevokedCertParams,
    SanType, SerialNumber, date_time_ymd,
};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};

/// 2030-06-15T12:00:00Z in milliseconds since 1970. Certificates are valid from 2024 to 2044 unless edited, so the real
/// clock does as well.
pub(crate) const NOW_MILLIS: u64 = 1_907_755_200_000;

/// Serial numbers, unique in the process; they also keep the names of CAs apart.
static SERIAL: AtomicU64 = AtomicU64::new(1);

/// An edit that leaves everything as it is.
pub(crate) fn as_is(_: &mut CertificateParams) {}

/// A certificate authority with its key.
pub(crate) struct Ca {
    issuer: Issuer<'static, KeyPair>,
    trust_domain: String,
    /// Its certificate and those above it, without the root's; the same as PEM.
    sent: (Vec<CertificateDer<'static>>, String),
    pub(crate) pem: String,
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) serial: u64,
}

/// A leaf certificate with its key and the chain that its holder sends.
pub(crate) struct Leaf {
    /// The leaf, then the intermediates; the root is not sent.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) chain_pem: String,
    pub(crate) key: KeyPair,
    pub(crate) serial: u64,
}

impl Ca {
    /// A self-signed root whose URI SAN is the trust domain's SPIFFE ID.
    pub(crate) fn root(trust_domain: &str) -> Self {
        Self::root_with(trust_domain, as_is)
    }

    pub(crate) fn root_with<F: FnOnce(&mut CertificateParams)>(trust_domain: &str, edit: F) -> Self {
        let (mut params, serial) = ca_params(trust_domain, "root");
        edit(&mut params);
        let key = KeyPair::generate().unwrap();
        let made = params.self_signed(&key).unwrap();
        Self {
            issuer: Issuer::new(params, key),
            trust_domain: trust_domain.to_owned(),
            sent: (Vec::new(), String::new()),
            pem: made.pem(),
            certificate: made.der().clone(),
            serial,
        }
    }

    /// A CA below this one.
    pub(crate) fn intermediate(&self) -> Self {
        self.intermediate_with(as_is)
    }

    pub(crate) fn intermediate_with<F: FnOnce(&mut CertificateParams)>(&self, edit: F) -> Self {
        let (mut params, serial) = ca_params(&self.trust_domain, "intermediate");
        edit(&mut params);
        let key = KeyPair::generate().unwrap();
        let made = params.signed_by(&key, &self.issuer).unwrap();
        Self {
            issuer: Issuer::new(params, key),
            trust_domain: self.trust_domain.clone(),
            sent: self.sending(&made),
            pem: made.pem(),
            certificate: made.der().clone(),
            serial,
        }
    }

    /// An X.509-SVID for client and server authentication.
    pub(crate) fn leaf(&self, uri: &str) -> Leaf {
        self.leaf_with(uri, as_is)
    }

    pub(crate) fn leaf_with<F: FnOnce(&mut CertificateParams)>(&self, uri: &str, edit: F) -> Leaf {
        let (mut params, serial) = params("leaf");
        params.is_ca = IsCa::ExplicitNoCa;
        params.subject_alt_names = vec![uri_san(uri)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        edit(&mut params);
        let key = KeyPair::generate().unwrap();
        let made = params.signed_by(&key, &self.issuer).unwrap();
        let (chain, chain_pem) = self.sending(&made);
        Leaf { chain, chain_pem, key, serial }
    }

    fn sending(&self, first: &Certificate) -> (Vec<CertificateDer<'static>>, String) {
        let chain = std::iter::once(first.der()).chain(&self.sent.0).cloned().collect();
        (chain, first.pem() + &self.sent.1)
    }

    /// A complete revocation list, issued in 2024, that names these serial numbers; `next_update` in milliseconds.
    pub(crate) fn crl(&self, revoked: &[u64], next_update: u64) -> CertificateRevocationListDer<'static> {
        let revoked_certs = revoked.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: Some(RevocationReason::KeyCompromise),
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(1970, 1, 1) + Duration::from_millis(next_update),
            crl_number: SerialNumber::from(SERIAL.fetch_add(1, Ordering::Relaxed)),
            issuing_distribution_point: None,
            revoked_certs: revoked_certs.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().der().clone()
    }
}

impl Leaf {
    /// PKCS #8.
    pub(crate) fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }
}

pub(crate) fn uri_san(uri: &str) -> SanType {
    SanType::URI(uri.try_into().unwrap())
}

fn params(role: &str) -> (CertificateParams, u64) {
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    let mut params = CertificateParams::default();
    params.not_before = date_time_ymd(2024, 1, 1);
    params.not_after = date_time_ymd(2044, 1, 1);
    params.serial_number = Some(SerialNumber::from(serial));
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("{role} {serial}"));
    (params, serial)
}

fn ca_params(trust_domain: &str, role: &str) -> (CertificateParams, u64) {
    let (mut params, serial) = params(role);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.subject_alt_names = vec![uri_san(&format!("spiffe://{trust_domain}"))];
    (params, serial)
}

// A test file uses a part of this; naming all of it here keeps the rest from being reported as dead.
const _: () = {
    type Edit = fn(&mut CertificateParams);
    let _ = (Ca::root, Ca::root_with::<Edit>, Ca::intermediate, Ca::intermediate_with::<Edit>, Ca::leaf);
    let _ = (Ca::leaf_with::<Edit>, Ca::crl, Leaf::key_pem, NOW_MILLIS, as_is);
    let _ = |ca: &Ca| (ca.serial, ca.certificate.len(), ca.pem.len());
    let _ = |leaf: &Leaf| (leaf.serial, leaf.chain.len(), leaf.chain_pem.len());
};
