//! A development PKI: certificate authorities and certificates for `init`, the demo and tests. Real deployments bring
//! their own (SPIRE, a company CA).

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType,
    SerialNumber,
};
use vault_core::Error;
use vault_core::error::Dependency;
use zeroize::Zeroizing;

/// How far before now certificates begin, so that clocks may differ.
const BACKDATE: Duration = Duration::from_secs(60);
/// A day.
pub const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn failed<E>(_: E) -> Error {
    Error::unavailable(Dependency::Entropy, "a certificate could not be made")
}

/// A certificate authority with its key in memory.
pub struct Ca {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for Ca {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ca").finish_non_exhaustive()
    }
}

/// A certificate and its key.
pub struct Issued {
    /// The certificate (PEM).
    pub certificate: String,
    /// Its private key (PEM, PKCS #8), wiped when dropped.
    pub key: Zeroizing<String>,
    /// Its serial number, for [`Ca::revoke`].
    pub serial: [u8; 8],
}

impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issued").field("serial", &self.serial).finish_non_exhaustive()
    }
}

/// What a leaf certificate says.
#[derive(Debug, Clone)]
pub struct Leaf {
    /// The common name; no part of the vault reads it.
    pub common_name: String,
    /// The URI SAN, for example `spiffe://workloads.dev.example/ns/shop/sa/billing`.
    pub uri: Option<String>,
    /// DNS names.
    pub dns: Vec<String>,
    /// IP addresses.
    pub ips: Vec<IpAddr>,
    /// An email SAN, as certificates of people have.
    pub email: Option<String>,
    /// For a server instead of a client.
    pub server: bool,
    /// When it begins.
    pub not_before: SystemTime,
    /// When it ends.
    pub not_after: SystemTime,
}

impl Leaf {
    /// A client's certificate with this SPIFFE ID, valid for a week.
    pub fn client(common_name: &str, spiffe_id: &str) -> Self {
        Self {
            common_name: common_name.to_owned(),
            uri: Some(spiffe_id.to_owned()),
            dns: Vec::new(),
            ips: Vec::new(),
            email: None,
            server: false,
            not_before: SystemTime::now() - BACKDATE,
            not_after: SystemTime::now() + 7 * DAY,
        }
    }

    /// A server's certificate for `localhost` and 127.0.0.1, valid for 90 days.
    pub fn server(spiffe_id: &str) -> Self {
        let mut leaf = Self::client("blindvault gateway", spiffe_id);
        leaf.server = true;
        leaf.dns = vec!["localhost".to_owned()];
        leaf.ips = vec![IpAddr::from([127, 0, 0, 1])];
        leaf.not_after = SystemTime::now() + 90 * DAY;
        leaf
    }

    /// The same, but it ended an hour ago.
    #[must_use]
    pub fn expired(mut self) -> Self {
        self.not_before = SystemTime::now() - DAY;
        self.not_after = SystemTime::now() - Duration::from_secs(3600);
        self
    }
}

impl Ca {
    /// Makes a root that signs leaves only, valid for a year.
    ///
    /// # Errors
    /// [`Error::Unavailable`] without entropy.
    pub fn new(common_name: &str) -> Result<Self, Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name = name(common_name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = (SystemTime::now() - BACKDATE).into();
        params.not_after = (SystemTime::now() + 365 * DAY).into();
        let key = KeyPair::generate().map_err(failed)?;
        let pem = params.self_signed(&key).map_err(failed)?.pem();
        Ok(Self { pem, issuer: Issuer::new(params, key) })
    }

    /// Its certificate (PEM).
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Its private key (PEM, PKCS #8).
    pub fn key_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.issuer.key().serialize_pem())
    }

    /// Issues a certificate, with an ECDSA P-256 key made for it.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming a SAN that X.509 cannot express; [`Error::Unavailable`] without entropy.
    pub fn issue(&self, leaf: &Leaf) -> Result<Issued, Error> {
        let san = |text: &str| text.try_into().map_err(|_| Error::invalid("subject alternative name", "must be ASCII"));
        let mut params = CertificateParams::default();
        params.distinguished_name = name(&leaf.common_name);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![if leaf.server { ExtendedKeyUsagePurpose::ServerAuth } else { ExtendedKeyUsagePurpose::ClientAuth }];
        if let Some(uri) = &leaf.uri {
            params.subject_alt_names.push(SanType::URI(san(uri)?));
        }
        for dns in &leaf.dns {
            params.subject_alt_names.push(SanType::DnsName(san(dns)?));
        }
        if let Some(email) = &leaf.email {
            params.subject_alt_names.push(SanType::Rfc822Name(san(email)?));
        }
        params.subject_alt_names.extend(leaf.ips.iter().map(|ip| SanType::IpAddress(*ip)));
        params.not_before = leaf.not_before.into();
        params.not_after = leaf.not_after.into();
        params.use_authority_key_identifier_extension = true;
        let mut serial = vault_core::vault::new_request_id()?.0.first_chunk::<8>().copied().unwrap_or([1; 8]);
        // Positive and without a leading zero, as DER wants it.
        serial[0] = serial[0] & 0x3f | 0x40;
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        let key = KeyPair::generate().map_err(failed)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed)?.pem();
        Ok(Issued { certificate, key: Zeroizing::new(key.serialize_pem()), serial })
    }

    /// A revocation list of these serial numbers (PEM), fresh for a day.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if it cannot be signed.
    pub fn revoke(&self, serials: &[[u8; 8]]) -> Result<String, Error> {
        let now = SystemTime::now();
        let revoked = |serial: &[u8; 8]| RevokedCertParams {
            serial_number: SerialNumber::from_slice(serial),
            revocation_time: (now - BACKDATE).into(),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: (now - BACKDATE).into(),
            next_update: (now + DAY).into(),
            crl_number: SerialNumber::from(u64::try_from(serials.len()).unwrap_or(u64::MAX)),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).and_then(|list| list.pem()).map_err(failed)
    }
}

fn name(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}
