//! TLS to hosts that the gateway asks: 1.3 only, under the roots that are pinned for the host, with a certificate of ours
//! if one is configured.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use vault_core::principal::certificates_from_pem;

use super::load::{MAX_PEM, private_key, read};
use crate::config::{ConfigError, NamedFile};

/// What a connection is made with. The roots are those of the start: they are pinned by the charter. A certificate of ours
/// is short-lived, so its files are read again for each connection.
pub(crate) struct ClientTls {
    file: NamedFile,
    roots: Arc<RootCertStore>,
    client: Option<(NamedFile, NamedFile)>,
}

impl std::fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientTls").field("file", &self.file).finish_non_exhaustive()
    }
}

impl ClientTls {
    /// Reads the files.
    pub(crate) fn load(file: &NamedFile, client: Option<&(NamedFile, NamedFile)>) -> Result<Self, ConfigError> {
        let mut roots = RootCertStore::empty();
        let pem = read(file, MAX_PEM, false)?;
        for root in certificates_from_pem(&pem).map_err(|error| file.error(error))? {
            roots.add(root).map_err(|_| file.error("holds a certificate that is no root certificate"))?;
        }
        let tls = Self { file: file.clone(), roots: Arc::new(roots), client: client.cloned() };
        tls.config()?;
        Ok(tls)
    }

    /// For one connection.
    pub(crate) fn config(&self) -> Result<ClientConfig, ConfigError> {
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|_| self.file.error("cannot be used for TLS 1.3"))?
            .with_root_certificates(Arc::clone(&self.roots));
        let Some((certificate, key)) = &self.client else { return Ok(builder.with_no_client_auth()) };
        let pem = read(certificate, MAX_PEM, false)?;
        let chain = certificates_from_pem(&pem).map_err(|error| certificate.error(error))?;
        builder
            .with_client_auth_cert(chain, private_key(key)?)
            .map_err(|_| key.error("is not the key of the certificate, or of a kind that is not supported"))
    }
}
