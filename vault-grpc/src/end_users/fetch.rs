//! One fetch of a key set: GET over TLS 1.3 to a host that proves its name under pinned roots. No redirect, no proxy, no
//! compression, a bounded body.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use vault_core::principal::{KeySet, MAX_KEY_SET, certificates_from_pem};

use crate::config::{ConfigError, KeysUrl, NamedFile};
use crate::tls::files::{MAX_PEM, read};

/// Where and how.
pub(super) struct Fetch {
    url: KeysUrl,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl std::fmt::Debug for Fetch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fetch").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Fetch {
    /// Reads the roots.
    pub(super) fn new(url: &KeysUrl) -> Result<Self, ConfigError> {
        let tls = match &url.roots {
            None => None,
            Some(file) => {
                let mut roots = RootCertStore::empty();
                let pem = read(file, MAX_PEM, false)?;
                for root in certificates_from_pem(&pem).map_err(|error| file.error(error))? {
                    roots.add(root).map_err(|_| file.error("holds a certificate that is no root certificate"))?;
                }
                let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                    .with_protocol_versions(&[&rustls::version::TLS13])
                    .map_err(|_| file.error("cannot be used for TLS 1.3"))?
                    .with_root_certificates(roots)
                    .with_no_client_auth();
                let name = ServerName::try_from(url.host.clone())
                    .map_err(|_| file.error("is for a host whose name no certificate can have"))?;
                Some((TlsConnector::from(Arc::new(config)), name))
            }
        };
        Ok(Self { url: url.clone(), tls })
    }

    pub(super) const fn url(&self) -> &KeysUrl {
        &self.url
    }

    /// The keys, within the timeout; or why not, without anything that the other side said.
    pub(super) async fn get(&self) -> Result<KeySet, &'static str> {
        timeout(self.url.timeout, self.exchange()).await.unwrap_or(Err("no answer within the timeout"))
    }

    async fn exchange(&self) -> Result<KeySet, &'static str> {
        let tcp = TcpStream::connect((self.url.host.as_str(), self.url.port)).await;
        let tcp = tcp.map_err(|_| "the host cannot be reached")?;
        match &self.tls {
            None => self.ask(tcp).await,
            Some((connector, name)) => {
                let tls = connector.connect(name.clone(), tcp).await;
                self.ask(tls.map_err(|_| "the host does not prove its name under the configured roots")?).await
            }
        }
    }

    async fn ask(&self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Result<KeySet, &'static str> {
        const NO_HTTP: &str = "the host does not speak HTTP/1.1";
        let connection = http1::Builder::new().max_buf_size(16 * 1024).handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = connection.map_err(|_| NO_HTTP)?;
        // Ends with this call: a `JoinSet` that is dropped aborts what is in it.
        let mut tasks = JoinSet::new();
        tasks.spawn(connection);
        let host = if self.url.host.contains(':') { format!("[{}]", self.url.host) } else { self.url.host.clone() };
        let request = Request::get(&self.url.path)
            .header(header::HOST, format!("{host}:{}", self.url.port))
            .header(header::ACCEPT, "application/jwk-set+json, application/json")
            .body(Empty::<Bytes>::new())
            .map_err(|_| "the URL cannot be asked for")?;
        let answer = sender.send_request(request).await.map_err(|_| NO_HTTP)?;
        if answer.status() != StatusCode::OK {
            return Err("the answer is not 200");
        }
        if answer.headers().contains_key(header::CONTENT_ENCODING) {
            return Err("the answer is compressed");
        }
        let body = Limited::new(answer.into_body(), MAX_KEY_SET).collect().await;
        let body = body.map_err(|_| "the answer is longer than 64 KiB, or broke off")?.to_bytes();
        KeySet::parse(&body).map_err(|_| "the answer is not a key set that can be used")
    }
}

/// The keys in a file.
pub(super) fn from_file(file: &NamedFile) -> Result<KeySet, ConfigError> {
    let bytes = read(file, MAX_KEY_SET as u64, false)?;
    KeySet::parse(&bytes).map_err(|error| file.error(error))
}
