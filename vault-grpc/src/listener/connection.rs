//! One connection: its HTTP/2 server, and when it ends. It ends gracefully (GOAWAY, calls finish) at its age, when it
//! is idle, at its certificate's end and when the gateway drains; at once when a reload leaves its certificate refused.

use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::header::AUTHORIZATION;
use http::{Request, Response};
use rustls_pki_types::CertificateDer;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tonic::Status;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::transport::Server;
use tower::Service;
use vault_core::Vault;
use vault_core::time::{Clock, SystemClock};

use super::stream::TlsConn;
use super::{Phase, Proven, Shared};
use crate::config::Limits;
use crate::metrics::{Call, Metrics};
use crate::plane::{Admission, Caller, Principal};
use crate::service::undecodable;
use crate::status;
use crate::telemetry::{Event, log};

/// How long the tasks of a connection that was cut may take to notice.
const CUT: Duration = Duration::from_secs(1);

/// Where the standard health service is.
const HEALTH: &str = "/grpc.health.v1.Health/";

/// After a GOAWAY: how long no call may run before a peer that does not hang up is cut.
const QUIET: Duration = Duration::from_millis(500);

pub(super) async fn serve<P: Principal>(proven: Proven<P>, shared: &Shared<P>) {
    let Proven { tls, caller } = proven;
    let chain: Vec<CertificateDer<'static>> =
        tls.get_ref().1.peer_certificates().unwrap_or_default().iter().map(|c| c.clone().into_owned()).collect();
    let until = end_of_life(&shared.limits, &*caller.principal);
    let (cut, cutting) = oneshot::channel::<()>();
    let (closing, closed) = oneshot::channel::<()>();
    let (goaway, going) = oneshot::channel::<()>();
    let connection = TlsConn { tls, cut: cutting, _closed: closing };
    let activity = Arc::new(Activity::default());
    let metrics = Arc::clone(&shared.metrics);
    let (vault, admission) = (Arc::clone(&shared.vault), shared.admission.clone());
    let routes = shared.routes.clone();
    let service = Answering { routes, caller, admission, activity: Arc::clone(&activity), metrics, vault };
    // The server takes a stream of connections; this one has one.
    let incoming = stream::once(async { Ok::<_, Infallible>(connection) }).chain(stream::pending());
    let mut serving = pin!(server(&shared.limits).serve_with_incoming_shutdown(service, incoming, async {
        drop(going.await);
    }));
    let mut closed = pin!(closed);
    let mut refused = pin!(refused(&chain, shared));
    let mut phase = shared.phase.clone();
    tokio::select! {
        _ = &mut serving => return,
        _ = &mut closed => {}
        reason = &mut refused => return cut_now::<P>(cut, goaway, serving, Some(reason)).await,
        () = sleep_until(until) => {}
        () = activity.idle_for(shared.limits.idle_timeout) => {}
        () = Phase::Draining.reached(&mut phase) => {}
    }
    // The receiver is gone only if the server is.
    let _ = goaway.send(());
    let reason = tokio::select! {
        _ = &mut serving => return,
        reason = &mut refused => Some(reason),
        () = sleep(shared.limits.connection_grace) => None,
        () = async { sleep(QUIET).await; activity.idle_for(QUIET).await } => None,
        () = Phase::Cut.reached(&mut phase) => None,
    };
    let (goaway, _) = oneshot::channel();
    cut_now::<P>(cut, goaway, serving, reason).await;
}

async fn cut_now<P: Principal>(
    cut: oneshot::Sender<()>,
    goaway: oneshot::Sender<()>,
    serving: Pin<&mut impl Future>,
    reason: Option<&'static str>,
) {
    if let Some(reason) = reason {
        log(&Event::Cut { plane: P::PLANE, reason });
    }
    drop(cut);
    drop(goaway);
    drop(timeout(CUT, serving).await);
}

/// Waits until a reload leaves the chain refused; the rule that does.
async fn refused<P: Principal>(chain: &[CertificateDer<'_>], shared: &Shared<P>) -> &'static str {
    let mut changes = shared.current.changes();
    // A reload between handshake and subscription is not missed: the first look needs no change.
    loop {
        if let Err(rule) = shared.current.load().prove(chain) {
            return rule.name();
        }
        if changes.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// The connection's age with its jitter, or the end of its proof if that is earlier.
fn end_of_life<P: Principal>(limits: &Limits, principal: &P) -> Instant {
    let left = Duration::from_millis(principal.proven_until().millis_since(SystemClock.now()));
    let tenth = limits.connection_age / 10;
    Instant::now() + left.min(limits.connection_age + tenth.mul_f64(spread()))
}

/// Somewhere in [0, 1): no secret hangs on it, it only keeps connections opened together from ending together.
fn spread() -> f64 {
    use std::hash::{BuildHasher as _, RandomState};
    let bits = u32::try_from(RandomState::new().hash_one(0u8) >> 32).unwrap_or(0);
    f64::from(bits) / (f64::from(u32::MAX) + 1.0)
}

fn server(limits: &Limits) -> Server {
    Server::builder()
        .timeout(limits.call_timeout)
        .max_concurrent_streams(limits.max_streams)
        .initial_stream_window_size(limits.stream_window_bytes)
        .initial_connection_window_size(limits.connection_window_bytes)
        .http2_max_header_list_size(limits.max_header_list_bytes)
        .max_frame_size(limits.max_frame_bytes)
        .http2_max_pending_accept_reset_streams(Some(limits.max_pending_resets))
        .http2_max_local_error_reset_streams(Some(limits.max_error_resets))
        .http2_keepalive_interval(Some(limits.keepalive_interval))
        .http2_keepalive_timeout(Some(limits.keepalive_timeout))
        .accept_http1(false)
}

/// The calls that run on a connection.
struct Activity {
    running: AtomicUsize,
    last: Mutex<Instant>,
}

impl Default for Activity {
    fn default() -> Self {
        Self { running: AtomicUsize::new(0), last: Mutex::new(Instant::now()) }
    }
}

impl Activity {
    fn begin(self: &Arc<Self>) -> Running {
        self.running.fetch_add(1, Ordering::SeqCst);
        Running(Arc::clone(self))
    }

    fn last(&self) -> Instant {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until no call has run for so long.
    async fn idle_for(&self, most: Duration) {
        loop {
            let busy = self.running.load(Ordering::SeqCst) > 0;
            let from = if busy { Instant::now() } else { self.last() };
            if !busy && from.elapsed() >= most {
                return;
            }
            sleep_until(from + most).await;
        }
    }
}

/// A running call, until it is dropped: with the last of its answer.
struct Running(Arc<Activity>);

impl Drop for Running {
    fn drop(&mut self) {
        *self.0.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The routes, with the connection's caller in every request.
struct Answering<P> {
    routes: Routes,
    caller: Caller<P>,
    admission: Option<Arc<dyn Admission<P>>>,
    activity: Arc<Activity>,
    metrics: Arc<Metrics>,
    vault: Arc<Vault>,
}

impl<P> Clone for Answering<P> {
    fn clone(&self) -> Self {
        Self {
            routes: self.routes.clone(),
            caller: self.caller.clone(),
            admission: self.admission.clone(),
            activity: Arc::clone(&self.activity),
            metrics: Arc::clone(&self.metrics),
            vault: Arc::clone(&self.vault),
        }
    }
}

impl<P: Principal> Service<Request<Body>> for Answering<P> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<Request<Body>>::poll_ready(&mut self.routes, cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let running = self.activity.begin();
        let mut counted = self.metrics.begin(request.uri().path());
        // A call of the other plane: nothing here answers it, and the log says who tried.
        let strayed = counted.as_ref().filter(|call| call.plane() != P::PLANE).map(Call::method);
        let strayed = strayed.map(|call| (Arc::clone(&self.caller.principal), Arc::clone(&self.vault), call));
        // Whether a gateway serves is told to every certificate of its plane, as it is to every load balancer.
        let path = request.uri().path();
        let admission = self.admission.clone().filter(|_| strayed.is_none() && !path.starts_with(HEALTH));
        let (caller, mut routes) = (self.caller.clone(), self.routes.clone());
        Box::pin(async move {
            let mut told = Ok(caller);
            if let Some((principal, vault, call)) = strayed
                && let Err(error) = principal.strayed(&vault, call).await
            {
                told = Err(status::status(&error));
            } else if let (Ok(caller), Some(admission)) = (&told, admission) {
                told = admission.admit(caller, request.headers()).await;
            }
            let answer = match told {
                Ok(caller) => {
                    // It has served its purpose.
                    request.headers_mut().remove(AUTHORIZATION);
                    request.extensions_mut().insert(caller);
                    undecodable::mend(routes.call(request).await?)
                }
                Err(status) => status.into_http(),
            };
            // A call that failed has its status here, any other behind its body.
            if let Some(call) = &mut counted {
                call.answered(answer.headers());
            }
            Ok(answer.map(|body| Body::new(Answer { body, counted, _running: running })))
        })
    }
}

/// The body of an answer; its call runs until the body has been handed over.
struct Answer {
    body: Body,
    counted: Option<Call>,
    _running: Running,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let (Some(trailers), Some(call)) = (frame.trailers_ref(), &mut this.counted)
        {
            call.answered(trailers);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}
