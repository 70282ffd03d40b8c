//! The witness that anyone can run: HTTP/1.1, one call, `POST /add-checkpoint` (C2SP tlog-witness).

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use vault_core::audit::{MAX_REQUEST, NotCosigned, Witness};
use vault_core::time::{Clock as _, SystemClock};

use crate::telemetry::{Event, log};

/// How long a handshake may take, and a request.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a connection may stay.
const CONNECTION: Duration = Duration::from_secs(3600);
/// Connections at the same time; further ones wait.
const MOST: usize = 64;

/// Answers until it is aborted. Without `tls` it speaks plain HTTP: for loopback, or behind a proxy on this machine.
pub async fn serve(listener: TcpListener, tls: Option<Arc<ServerConfig>>, witness: Arc<Witness>) {
    let places = Arc::new(Semaphore::new(MOST));
    let acceptor = tls.map(TlsAcceptor::from);
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let Ok((tcp, _)) = listener.accept().await else {
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        let (acceptor, witness) = (acceptor.clone(), Arc::clone(&witness));
        tokio::spawn(async move {
            let _place = place;
            match acceptor {
                None => connection(tcp, witness).await,
                Some(acceptor) => {
                    // Whoever cannot greet is none of a witness's business.
                    if let Ok(Ok(stream)) = timeout(PATIENCE, acceptor.accept(tcp)).await {
                        connection(stream, witness).await;
                    }
                }
            }
        });
    }
}

async fn connection(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, witness: Arc<Witness>) {
    let service = service_fn(move |request| {
        let witness = Arc::clone(&witness);
        async move { Ok::<_, Infallible>(answer(request, witness).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .serve_connection(TokioIo::new(stream), service);
    drop(timeout(CONNECTION, connection).await);
}

async fn answer(request: Request<Incoming>, witness: Arc<Witness>) -> Response<Full<Bytes>> {
    if request.uri().path() != "/add-checkpoint" {
        return text(StatusCode::NOT_FOUND, "text/plain", "not found\n".into());
    }
    if request.method() != Method::POST {
        return text(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "must be a POST\n".into());
    }
    let read = timeout(PATIENCE, Limited::new(request.into_body(), MAX_REQUEST).collect()).await;
    let body = read.ok().and_then(Result::ok).and_then(|body| String::from_utf8(body.to_bytes().to_vec()).ok());
    let Some(body) = body else {
        return text(StatusCode::BAD_REQUEST, "text/plain", "the request is too long, too slow, or not UTF-8\n".into());
    };
    let asked = spawn_blocking(move || witness.add_checkpoint(&body, SystemClock.now())).await;
    match asked {
        Ok(Ok(line)) => text(StatusCode::OK, "text/plain; charset=utf-8", line),
        Ok(Err(why)) => refused(&why),
        Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", "the witness failed\n".into()),
    }
}

fn refused(why: &NotCosigned) -> Response<Full<Bytes>> {
    let status = StatusCode::from_u16(why.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    match why {
        NotCosigned::Conflict { size, forked } => {
            if *forked {
                log(&Event::Warning("a log shows another root of a size that was cosigned: two histories"));
            }
            text(status, "text/x.tlog.size", format!("{size}\n"))
        }
        NotCosigned::Inconsistent => {
            log(&Event::Warning("a log shows a checkpoint that does not extend the one that was cosigned"));
            text(status, "text/plain", "the proof does not lead to this checkpoint\n".into())
        }
        NotCosigned::Malformed(why) => text(status, "text/plain", format!("{why}\n")),
        NotCosigned::UnknownLog => text(status, "text/plain", "no log of that origin is known here\n".into()),
        NotCosigned::NotSigned => text(status, "text/plain", "not signed with the log's key\n".into()),
        NotCosigned::Unavailable(error) => {
            log(&Event::Failed { what: "cosign a checkpoint", error: error.clone() });
            text(status, "text/plain", "the witness cannot keep what it would cosign\n".into())
        }
    }
}

fn text(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}
