//! TLS to hosts that the gateway asks: 1.3 only, under the roots that are pinned for the host, with a certificate of ours
//! if one is configured.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use vault_core::principal::certificates_from_pem;

use super::load::{MAX_PEM, private_key, read};
use crate::config::{ConfigError, NamedFile};

/// Reads the files, as they are now.
pub(crate) fn client_config(
    roots: &NamedFile,
    client: Option<&(NamedFile, NamedFile)>,
) -> Result<ClientConfig, ConfigError> {
    let mut trusted = RootCertStore::empty();
    let pem = read(roots, MAX_PEM, false)?;
    for root in certificates_from_pem(&pem).map_err(|error| roots.error(error))? {
        trusted.add(root).map_err(|_| roots.error("holds a certificate that is no root certificate"))?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|_| roots.error("cannot be used for TLS 1.3"))?
        .with_root_certificates(trusted);
    let Some((certificate, key)) = client else { return Ok(builder.with_no_client_auth()) };
    let chain = certificates_from_pem(&read(certificate, MAX_PEM, false)?).map_err(|error| certificate.error(error))?;
    builder
        .with_client_auth_cert(chain, private_key(key)?)
        .map_err(|_| key.error("is not the key of the certificate, or of a kind that is not supported"))
}
