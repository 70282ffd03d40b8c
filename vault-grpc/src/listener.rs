//! One listener: accepts, bounds, proves who calls, and hands the connection to [`connection`].

mod connection;
mod stream;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tonic::service::Routes;
use vault_core::Vault;

use crate::config::Limits;
use crate::metrics::Metrics;
use crate::plane::{Admission, Caller, Principal};
use crate::refusals::Refusals;
use crate::tls::{Current, reason_of};

/// How far a listener has come in stopping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Accepts.
    Open,
    /// Accepts no more; connections got a GOAWAY and finish their calls.
    Draining,
    /// Connections are cut.
    Cut,
}

impl Phase {
    /// Waits until the listener has come as far as this; also if whoever moves it on is gone.
    pub(crate) async fn reached(self, phase: &mut watch::Receiver<Self>) {
        drop(phase.wait_for(|phase| *phase >= self).await);
    }
}

/// After an error of `accept`, such as no free file descriptor: long enough for connections to end, short enough not
/// to be noticed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What all connections of a listener share.
pub(crate) struct Shared<P: Principal> {
    pub(crate) current: Arc<Current<P>>,
    pub(crate) limits: Limits,
    pub(crate) routes: Routes,
    /// What a call has to bring beside the connection's certificate; `None` for nothing.
    pub(crate) admission: Option<Arc<dyn Admission<P>>>,
    pub(crate) refusals: Arc<Refusals>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) vault: Arc<Vault>,
    pub(crate) phase: watch::Receiver<Phase>,
}

/// Serves until the phase says stop and the last connection has ended.
pub(crate) async fn run<P: Principal>(tcp: TcpListener, shared: Arc<Shared<P>>) {
    let mut phase = shared.phase.clone();
    let handshakes = Arc::new(Semaphore::new(shared.limits.max_handshakes));
    let connections = Arc::new(Semaphore::new(shared.limits.max_connections));
    let mut tasks = JoinSet::new();
    let refused = |reason| shared.refusals.count(P::PLANE, reason);
    loop {
        // What has to wait for a handshake to end waits in the kernel's queue, not here.
        let accepted = async {
            let handshake = Arc::clone(&handshakes).acquire_owned().await;
            (handshake, tcp.accept().await)
        };
        let (handshake, accepted) = tokio::select! {
            () = Phase::Draining.reached(&mut phase) => break,
            Some(_) = tasks.join_next() => continue,
            accepted = accepted => accepted,
        };
        let Ok(handshake) = handshake else { break };
        match accepted {
            Err(_) => {
                refused("accept_failed");
                sleep(ACCEPT_PAUSE).await;
            }
            Ok((tcp, _)) => match Arc::clone(&connections).try_acquire_owned() {
                Err(_) => refused("too_many_connections"),
                Ok(connection) => {
                    tasks.spawn(one(tcp, Arc::clone(&shared), handshake, connection));
                }
            },
        }
    }
    drop(tcp);
    while tasks.join_next().await.is_some() {}
}

async fn one<P: Principal>(
    tcp: TcpStream,
    shared: Arc<Shared<P>>,
    handshake: OwnedSemaphorePermit,
    _connection: OwnedSemaphorePermit,
) {
    let mut phase = shared.phase.clone();
    let proven = tokio::select! {
        // A handshake that is still running when the gateway stops has no call to finish.
        () = Phase::Draining.reached(&mut phase) => return,
        proven = timeout(shared.limits.handshake_timeout, prove(tcp, &shared.current)) => {
            proven.unwrap_or(Err("handshake_timeout"))
        }
    };
    drop(handshake);
    match proven {
        Ok(proven) => {
            let _open = shared.metrics.connection(P::PLANE);
            connection::serve(proven, &shared).await;
        }
        Err(reason) => shared.refusals.count(P::PLANE, reason),
    }
}

/// A connection and who is at its other end.
struct Proven<P> {
    tls: tokio_rustls::server::TlsStream<TcpStream>,
    caller: Caller<P>,
}

async fn prove<P: Principal>(tcp: TcpStream, current: &Current<P>) -> Result<Proven<P>, &'static str> {
    let closed = |_: io::Error| "closed_by_peer";
    tcp.set_nodelay(true).map_err(closed)?;
    let address = tcp.peer_addr().map_err(closed)?;
    let material = current.load();
    let tls = TlsAcceptor::from(material.server_config()).accept(tcp).await.map_err(|error| reason_of(&error))?;
    let (_, session) = tls.get_ref();
    if session.alpn_protocol() != Some(b"h2") {
        return Err("no_http2");
    }
    // The verifier of the handshake can only say yes or no; the principal itself is made here, by the same bundle.
    let chain = session.peer_certificates().unwrap_or_default();
    let principal = material.prove(chain).map_err(|rule| rule.name())?;
    Ok(Proven { tls, caller: Caller { principal: Arc::new(principal), address } })
}
