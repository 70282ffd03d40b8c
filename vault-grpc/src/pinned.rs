//! One HTTP/1.1 call over TLS 1.3 to a host that proves its name under pinned roots. No redirect, no proxy, no
//! compression, a bounded answer.

use std::sync::Arc;

use bytes::Bytes;
use http::request::Builder;
use http::{Response, header};
use http_body_util::{BodyExt as _, Full, Limited};
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
use vault_core::principal::certificates_from_pem;

use crate::config::{ConfigError, PinnedUrl};
use crate::tls::files::{MAX_PEM, read};

/// Longest answer in bytes.
const MAX_ANSWER: usize = 64 * 1024;

/// Where and how.
pub(crate) struct Pinned {
    url: PinnedUrl,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl std::fmt::Debug for Pinned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pinned").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Pinned {
    /// Reads the roots.
    pub(crate) fn new(url: &PinnedUrl) -> Result<Self, ConfigError> {
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

    /// The answer to a request, to which the URL's path and host are added, within the timeout; or why there is none,
    /// without anything that the other side said.
    pub(crate) async fn call(&self, request: Builder, body: String) -> Result<Response<Bytes>, &'static str> {
        timeout(self.url.timeout, self.exchange(request, body)).await.unwrap_or(Err("no answer within the timeout"))
    }

    async fn exchange(&self, request: Builder, body: String) -> Result<Response<Bytes>, &'static str> {
        let tcp = TcpStream::connect((self.url.host.as_str(), self.url.port)).await;
        let tcp = tcp.map_err(|_| "the host cannot be reached")?;
        match &self.tls {
            None => self.ask(tcp, request, body).await,
            Some((connector, name)) => {
                let tls = connector.connect(name.clone(), tcp).await;
                let tls = tls.map_err(|_| "the host does not prove its name under the configured roots")?;
                self.ask(tls, request, body).await
            }
        }
    }

    async fn ask(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        request: Builder,
        body: String,
    ) -> Result<Response<Bytes>, &'static str> {
        const NO_HTTP: &str = "the host does not speak HTTP/1.1";
        let connection = http1::Builder::new().max_buf_size(16 * 1024).handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = connection.map_err(|_| NO_HTTP)?;
        // Ends with this call: a `JoinSet` that is dropped aborts what is in it.
        let mut tasks = JoinSet::new();
        tasks.spawn(connection);
        let host = if self.url.host.contains(':') { format!("[{}]", self.url.host) } else { self.url.host.clone() };
        let request = request
            .uri(&self.url.path)
            .header(header::HOST, format!("{host}:{}", self.url.port))
            .body(Full::<Bytes>::from(body))
            .map_err(|_| "the URL cannot be asked")?;
        let (head, body) = sender.send_request(request).await.map_err(|_| NO_HTTP)?.into_parts();
        if head.headers.contains_key(header::CONTENT_ENCODING) {
            return Err("the answer is compressed");
        }
        let body = Limited::new(body, MAX_ANSWER).collect().await;
        let body = body.map_err(|_| "the answer is longer than 64 KiB, or broke off")?.to_bytes();
        Ok(Response::from_parts(head, body))
    }
}
