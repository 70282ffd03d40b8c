//! What the gateway counts: calls, connections, refusals, keys in memory, the audit log. Names and labels are decided at
//! compile time and the rest are numbers, so a metric can carry no data and names no tenant.

pub(crate) mod inventory;
mod render;
mod server;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

pub(crate) use render::render;
pub(crate) use server::serve;
use vault_proto::v1::Plane;
use vault_proto::{Rpc, rpcs};

/// Upper bounds of the buckets of durations, in microseconds.
const BUCKETS: [u64; 14] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000,
];
/// gRPC status codes are 0 to 16.
const CODES: usize = 17;
const CANCELLED: usize = 1;
const UNKNOWN: usize = 2;

/// The calls of one method.
#[derive(Debug, Default)]
struct Method {
    codes: [AtomicU64; CODES],
    /// Calls in each bucket alone; the last is what took longer than all bounds.
    buckets: [AtomicU64; BUCKETS.len() + 1],
    micros: AtomicU64,
    running: AtomicU64,
}

/// The counters of a gateway.
#[derive(Debug)]
pub(crate) struct Metrics {
    methods: Vec<Method>,
    /// Connections open on the data plane and on the control plane.
    connections: [AtomicU64; 2],
}

impl Default for Metrics {
    fn default() -> Self {
        Self { methods: rpcs().iter().map(|_| Method::default()).collect(), connections: Default::default() }
    }
}

impl Metrics {
    /// A call begins. Calls of no method of ours, such as health, are not counted.
    pub(crate) fn begin(self: &Arc<Self>, path: &str) -> Option<Call> {
        let index = rpcs().iter().position(|rpc| rpc.path == path)?;
        self.methods.get(index)?.running.fetch_add(1, Ordering::Relaxed);
        Some(Call { metrics: Arc::clone(self), index, begun: Instant::now(), code: None })
    }

    fn methods(&self) -> impl Iterator<Item = (&'static Rpc, &Method)> {
        rpcs().iter().zip(&self.methods)
    }

    /// A connection is open until the answer is dropped.
    pub(crate) fn connection(self: &Arc<Self>, plane: &'static str) -> Open {
        let index = usize::from(plane != "data");
        if let Some(count) = self.connections.get(index) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        Open { metrics: Arc::clone(self), index }
    }
}

/// An open connection.
#[derive(Debug)]
pub(crate) struct Open {
    metrics: Arc<Metrics>,
    index: usize,
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(count) = self.metrics.connections.get(self.index) {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// A running call. Counted when it is dropped: as cancelled, if no answer came of it.
#[derive(Debug)]
pub(crate) struct Call {
    metrics: Arc<Metrics>,
    index: usize,
    begun: Instant,
    code: Option<usize>,
}

impl Call {
    fn rpc(&self) -> Option<&'static Rpc> {
        rpcs().get(self.index)
    }

    /// The plane that answers it.
    pub(crate) fn plane(&self) -> &'static str {
        self.rpc().map_or("none", |rpc| plane_name(rpc.plane))
    }

    /// Its name.
    pub(crate) fn method(&self) -> &'static str {
        self.rpc().map_or("none", |rpc| rpc.method)
    }

    /// Takes the status from the headers of an answer, or from its trailers.
    pub(crate) fn answered(&mut self, headers: &http::HeaderMap) {
        if let Some(status) = headers.get("grpc-status") {
            let code = status.to_str().ok().and_then(|code| code.parse().ok());
            self.code = Some(code.filter(|code| *code < CODES).unwrap_or(UNKNOWN));
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let Some(method) = self.metrics.methods.get(self.index) else { return };
        let micros = u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKETS.iter().position(|bound| micros <= *bound).unwrap_or(BUCKETS.len());
        let add = |counter: Option<&AtomicU64>| {
            if let Some(counter) = counter {
                counter.fetch_add(1, Ordering::Relaxed);
            }
        };
        add(method.codes.get(self.code.unwrap_or(CANCELLED)));
        add(method.buckets.get(bucket));
        method.micros.fetch_add(micros, Ordering::Relaxed);
        method.running.fetch_sub(1, Ordering::Relaxed);
    }
}

const fn plane_name(plane: Plane) -> &'static str {
    match plane {
        Plane::Data => "data",
        Plane::Control => "control",
        Plane::Unspecified => "none",
    }
}
