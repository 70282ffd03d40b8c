//! Where the gateway is, whom to trust there, and who we are: the TLS connection under every call.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::AsyncBufReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tonic::Code;
use tonic::transport::Channel;
use zeroize::{Zeroize, Zeroizing};

use crate::error::ClientError;

/// How long TCP and TLS may take together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the peer may take to judge our certificate before we speak first.
const VERDICT_TIMEOUT: Duration = Duration::from_secs(2);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// One listener of a gateway, and the identity with which to call it.
#[derive(Clone)]
pub struct Endpoint {
    address: String,
    server_name: String,
    ca_pem: Vec<u8>,
    cert_pem: Vec<u8>,
    key_pem: Zeroizing<Vec<u8>>,
}

impl Endpoint {
    /// - `address`: `host:port` to connect to;
    /// - `server_name`: the DNS name or IP address that the gateway's certificate must carry as a SAN;
    /// - `ca_pem`: the certificates trusted to issue the gateway's, and no others;
    /// - `cert_pem`: our certificate and its intermediates, leaf first;
    /// - `key_pem`: its private key (PKCS #8, SEC 1 or PKCS #1). Wiped when the endpoint is dropped.
    pub fn new(
        address: impl Into<String>,
        server_name: impl Into<String>,
        ca_pem: impl Into<Vec<u8>>,
        cert_pem: impl Into<Vec<u8>>,
        key_pem: impl Into<Vec<u8>>,
    ) -> Self {
        Self {
            address: address.into(),
            server_name: server_name.into(),
            ca_pem: ca_pem.into(),
            cert_pem: cert_pem.into(),
            key_pem: Zeroizing::new(key_pem.into()),
        }
    }

    /// Connects. The channel connects again by itself when the connection is lost; it carries any service's client,
    /// but sets neither deadlines nor limits.
    ///
    /// In TLS 1.3 the client's side of the handshake ends before the gateway has judged our certificate. So this waits
    /// for the first bytes of the gateway, which a refused client never gets, before it sends anything: a refusal shows
    /// here, and its alert cannot be lost. A peer that stays silent for 2 s is taken to wait for us.
    ///
    /// # Errors
    /// `Local` if an address, name, certificate or key is not usable; `Transport` if the gateway cannot be reached,
    /// its certificate is not trusted for `server_name`, or 5 s have passed.
    pub async fn channel(&self) -> Result<Channel, ClientError> {
        let tls = TlsConnector::from(Arc::new(self.tls_config()?));
        let name = ServerName::try_from(self.server_name.clone())
            .map_err(|_| config("the server name is neither a DNS name nor an IP address"))?;
        let uri = Uri::builder().scheme("https").authority(self.address.as_str()).path_and_query("/").build();
        let uri = uri.map_err(|_| config("the address is not of the form host:port"))?;
        if uri.port().is_none() {
            return Err(config("the address is not of the form host:port"));
        }
        let address = self.address.clone();
        let connector = tower::service_fn(move |_: Uri| {
            let (tls, name, address) = (tls.clone(), name.clone(), address.clone());
            async move {
                let tcp = TcpStream::connect(address).await?;
                tcp.set_nodelay(true)?;
                let mut stream = tls.connect(name, tcp).await?;
                // The client offers nothing but h2, but a peer may answer without ALPN.
                if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
                    return Err(io::Error::other("the peer does not speak HTTP/2"));
                }
                // Data that a refusing peer has not read makes its TCP reset the connection, alert and all.
                if let Ok(first) = timeout(VERDICT_TIMEOUT, stream.fill_buf()).await
                    && first?.is_empty()
                {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                Ok(TokioIo::new(stream))
            }
        });
        let endpoint = Channel::builder(uri)
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT);
        endpoint.connect_with_connector(connector).await.map_err(|e| ClientError::transport(&e))
    }

    /// TLS 1.3 only, X25519MLKEM768 first, nothing resumed, nothing trusted but `ca_pem`.
    fn tls_config(&self) -> Result<ClientConfig, ClientError> {
        let mut roots = RootCertStore::empty();
        for ca in certificates(&self.ca_pem, "a trusted CA certificate is not valid PEM")? {
            roots.add(ca).map_err(|_| config("a trusted CA certificate cannot be used as a trust anchor"))?;
        }
        if roots.is_empty() {
            return Err(config("no trusted CA certificate is given"));
        }
        let mut tls = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|_| config("the TLS provider does not support TLS 1.3"))?
            .with_root_certificates(roots)
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(self.identity()?)));
        tls.alpn_protocols = vec![b"h2".to_vec()];
        tls.resumption = Resumption::disabled();
        tls.enable_early_data = false;
        Ok(tls)
    }

    fn identity(&self) -> Result<CertifiedKey, ClientError> {
        let chain = certificates(&self.cert_pem, "our certificate is not valid PEM")?;
        if chain.is_empty() {
            return Err(config("no certificate of our own is given; the gateway requires one"));
        }
        let mut key = PrivateKeyDer::from_pem_slice(&self.key_pem).map_err(|_| config("our key is not valid PEM"))?;
        let signer = aws_lc_rs::sign::any_supported_type(&key);
        key.zeroize();
        let identity =
            CertifiedKey::new(chain, signer.map_err(|_| config("our key is of a kind that is not supported"))?);
        match identity.keys_match() {
            Ok(()) => Ok(identity),
            Err(_) => Err(config("our key does not belong to our certificate")),
        }
    }
}

/// Shows neither key nor certificates.
impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("address", &self.address)
            .field("server_name", &self.server_name)
            .finish_non_exhaustive()
    }
}

fn certificates(pem: &[u8], why: &'static str) -> Result<Vec<CertificateDer<'static>>, ClientError> {
    CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|_| config(why))
}

fn config(message: &'static str) -> ClientError {
    ClientError::local(Code::InvalidArgument, "CONFIGURATION", message)
}
