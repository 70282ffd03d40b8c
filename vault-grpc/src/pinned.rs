//! HTTP/1.1 calls over TLS 1.3 to a host that proves its name under pinned roots. No redirect, no proxy, no
//! compression, a bounded answer.

use std::sync::Arc;

use bytes::Bytes;
use http::request::Builder;
use http::{Response, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::config::{ConfigError, NamedFile, PinnedUrl};
use crate::tls::ClientTls;

/// Longest answer in bytes.
const MAX_ANSWER: usize = 64 * 1024;
const NO_HTTP: &str = "the host does not speak HTTP/1.1";

/// Where and how.
pub(crate) struct Pinned {
    url: PinnedUrl,
    tls: Option<(ClientTls, ServerName<'static>)>,
}

impl std::fmt::Debug for Pinned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pinned").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Pinned {
    /// Reads the roots.
    pub(crate) fn new(url: &PinnedUrl) -> Result<Self, ConfigError> {
        Self::with(url, None)
    }

    /// The same for a host that asks for a certificate: ours, and its private key.
    pub(crate) fn with(url: &PinnedUrl, client: Option<&(NamedFile, NamedFile)>) -> Result<Self, ConfigError> {
        let tls = match &url.roots {
            None => None,
            Some(file) => {
                let tls = ClientTls::load(file, client)?;
                let name = ServerName::try_from(url.host.clone())
                    .map_err(|_| file.error("is for a host whose name no certificate can have"))?;
                Some((tls, name))
            }
        };
        Ok(Self { url: url.clone(), tls })
    }

    /// The answer to a request, to which the URL's path and host are added, within the timeout; or why there is none,
    /// without anything that the other side said.
    pub(crate) async fn call(&self, request: Builder, body: String) -> Result<Response<Bytes>, &'static str> {
        let exchange = async {
            let mut connected = self.connect().await?;
            self.ask(&mut connected, request, body.into()).await
        };
        timeout(self.url.timeout, exchange).await.unwrap_or(Err("no answer within the timeout"))
    }

    /// A connection for calls one after the other.
    pub(crate) async fn connect(&self) -> Result<Connected, &'static str> {
        let tcp = TcpStream::connect((self.url.host.as_str(), self.url.port)).await;
        let tcp = tcp.map_err(|_| "the host cannot be reached")?;
        tcp.set_nodelay(true).map_err(|_| "the host cannot be reached")?;
        match &self.tls {
            None => Connected::over(tcp).await,
            Some((tls, name)) => {
                let config = tls.config().map_err(|_| "our certificate for the host, or its key, cannot be used")?;
                let tls = TlsConnector::from(Arc::new(config)).connect(name.clone(), tcp).await;
                Connected::over(tls.map_err(|_| "the host does not prove its name under the configured roots")?).await
            }
        }
    }

    /// One call, with no timeout of its own.
    pub(crate) async fn ask(
        &self,
        connected: &mut Connected,
        request: Builder,
        body: Bytes,
    ) -> Result<Response<Bytes>, &'static str> {
        let host = if self.url.host.contains(':') { format!("[{}]", self.url.host) } else { self.url.host.clone() };
        let request = request
            .uri(&self.url.path)
            .header(header::HOST, format!("{host}:{}", self.url.port))
            .body(Full::from(body))
            .map_err(|_| "the URL cannot be asked")?;
        let (head, body) = connected.sender.send_request(request).await.map_err(|_| NO_HTTP)?.into_parts();
        if head.headers.contains_key(header::CONTENT_ENCODING) {
            return Err("the answer is compressed");
        }
        let body = Limited::new(body, MAX_ANSWER).collect().await;
        let body = body.map_err(|_| "the answer is longer than 64 KiB, or broke off")?.to_bytes();
        Ok(Response::from_parts(head, body))
    }
}

/// A connection. It ends when this is dropped: a `JoinSet` that is dropped aborts what is in it.
pub(crate) struct Connected {
    sender: SendRequest<Full<Bytes>>,
    _tasks: JoinSet<hyper::Result<()>>,
}

impl Connected {
    async fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Result<Self, &'static str> {
        let connection = http1::Builder::new().max_buf_size(16 * 1024).handshake(TokioIo::new(stream)).await;
        let (sender, connection) = connection.map_err(|_| NO_HTTP)?;
        let mut tasks = JoinSet::new();
        tasks.spawn(connection);
        Ok(Self { sender, _tasks: tasks })
    }

    /// Whether another call may be made on it, as far as is known.
    pub(crate) fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }
}
