//! From PEM files to TLS material. Private keys are read into a buffer that is wiped.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::sign::CertifiedKey;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use vault_core::principal::{Plane, TrustBundle, TrustDomain, certificates_from_pem, crls_from_pem};
use vault_core::time::{Clock, SystemClock};
use zeroize::{Zeroize as _, Zeroizing};

use super::Material;
use super::verifier::OfTheOther;
use crate::config::{ConfigError, Listener, NamedFile, cannot_read};
use crate::plane::Principal;

/// Longest PEM file with certificates or revocation lists, in bytes.
pub(crate) const MAX_PEM: u64 = 16 * 1024 * 1024;
/// Longest PEM file with a private key, in bytes.
pub(crate) const MAX_KEY: u64 = 64 * 1024;

/// Reads a whole file into `into`, which is not reallocated: what it holds can be wiped.
pub(crate) fn read(file: &NamedFile, most: u64, private: bool) -> Result<Zeroizing<Vec<u8>>, ConfigError> {
    let mut open = File::open(&file.path).map_err(|e| file.error(cannot_read(&e)))?;
    let facts = open.metadata().map_err(|e| file.error(cannot_read(&e)))?;
    if !facts.is_file() {
        return Err(file.error("is not a regular file"));
    }
    if private && facts.mode() & 0o077 != 0 {
        return Err(file.error(format!("mode {:04o} lets others read it; it must be 0600", facts.mode() & 0o7777)));
    }
    if facts.len() > most {
        return Err(file.error(format!("is longer than {most} bytes")));
    }
    let len = usize::try_from(facts.len()).unwrap_or(usize::MAX);
    let mut bytes = Zeroizing::new(vec![0; len]);
    open.read_exact(&mut bytes).map_err(|e| file.error(cannot_read(&e)))?;
    Ok(bytes)
}

/// A plane's trust bundle, fresh enough to be used now.
pub(super) fn bundle<P: Plane>(listener: &Listener) -> Result<TrustBundle<P>, ConfigError> {
    let domain = TrustDomain::parse(&listener.trust_domain)
        .map_err(|e| ConfigError::new(&listener.trust_domain_place, e.to_string()))?;
    let roots =
        certificates_from_pem(&read(&listener.client_ca, MAX_PEM, false)?).map_err(|e| listener.client_ca.error(e))?;
    let mut bundle = TrustBundle::new(domain, &roots).map_err(|e| listener.client_ca.error(e))?;
    bundle.check(SystemClock.now()).map_err(|e| listener.client_ca.error(e))?;
    let mut lists = Vec::new();
    for file in &listener.crls {
        let found = crls_from_pem(&read(file, MAX_PEM, false)?).map_err(|e| file.error(e))?;
        lists.extend(found.into_iter().map(|list| (file, list)));
    }
    if let Some((last, _)) = lists.last() {
        let last: NamedFile = (*last).clone();
        let ders: Vec<_> = lists.into_iter().map(|(_, list)| list).collect();
        bundle = bundle.with_crls(&ders).map_err(|e| last.error(e))?;
        bundle.check(SystemClock.now()).map_err(|e| last.error(e))?;
    }
    Ok(bundle)
}

/// A private key, from a file that nobody else may read.
pub(crate) fn private_key(file: &NamedFile) -> Result<PrivateKeyDer<'static>, ConfigError> {
    let pem = read(file, MAX_KEY, true)?;
    PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|_| file.error("holds no private key in PEM (PKCS #8, SEC 1 or PKCS #1)"))
}

pub(super) fn material<P: Principal>(
    listener: &Listener,
    bundle: Arc<TrustBundle<P::Plane>>,
    other: OfTheOther,
) -> Result<Material<P>, ConfigError> {
    let chain = certificates_from_pem(&read(&listener.certificate, MAX_PEM, false)?)
        .map_err(|e| listener.certificate.error(e))?;
    let mut key = private_key(&listener.key)?;
    let signer = aws_lc_rs::sign::any_supported_type(&key);
    key.zeroize();
    let signer = signer.map_err(|_| listener.key.error("is a key of a kind that is not supported"))?;
    let identity = CertifiedKey::new(chain, signer);
    identity.keys_match().map_err(|_| listener.key.error("is not the key of the certificate"))?;
    check_own(&identity, listener)?;
    Material::new(identity, bundle, other).map_err(|_| listener.certificate.error("cannot be used for TLS 1.3"))
}

/// Our own certificate has to be one that a client can accept now.
fn check_own(identity: &CertifiedKey, listener: &Listener) -> Result<(), ConfigError> {
    let leaf = identity.end_entity_cert().map_err(|_| listener.certificate.error("holds no certificate"))?;
    rustls::server::ParsedCertificate::try_from(leaf)
        .map(drop)
        .map_err(|_| listener.certificate.error("the first certificate does not parse"))
}
