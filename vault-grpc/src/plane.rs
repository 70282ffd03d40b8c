//! The two planes as the transport sees them: which principal a listener proves, and against which bundle.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use http::HeaderMap;
use rustls_pki_types::CertificateDer;
use tonic::Status;
use vault_core::principal::{IdentityError, Operator, Operators, Plane, TrustBundle, Workload, Workloads};
use vault_core::time::Timestamp;

mod sealed {
    pub trait Sealed {}
    impl Sealed for vault_core::principal::Workload {}
    impl Sealed for vault_core::principal::Operator {}
}

/// A kind of caller: [`Workload`] on the data plane, [`Operator`] on the control plane, and no other.
pub trait Principal: sealed::Sealed + fmt::Debug + Send + Sync + Sized + 'static {
    /// The plane whose bundles prove it.
    type Plane: Plane;
    /// The plane's name in logs and configuration.
    const PLANE: &'static str;

    /// Proves a chain, leaf first.
    ///
    /// # Errors
    /// The first rule that the chain breaks.
    fn prove(
        chain: &[CertificateDer<'_>],
        bundle: &TrustBundle<Self::Plane>,
        now: Timestamp,
    ) -> Result<Self, IdentityError>;

    /// The last second at which the proof holds.
    fn proven_until(&self) -> Timestamp;
}

impl Principal for Workload {
    type Plane = Workloads;
    const PLANE: &'static str = "data";

    fn prove(
        chain: &[CertificateDer<'_>],
        bundle: &TrustBundle<Workloads>,
        now: Timestamp,
    ) -> Result<Self, IdentityError> {
        Self::verify(chain, bundle, now)
    }

    fn proven_until(&self) -> Timestamp {
        self.not_after()
    }
}

impl Principal for Operator {
    type Plane = Operators;
    const PLANE: &'static str = "control";

    fn prove(
        chain: &[CertificateDer<'_>],
        bundle: &TrustBundle<Operators>,
        now: Timestamp,
    ) -> Result<Self, IdentityError> {
        Self::verify(chain, bundle, now)
    }

    fn proven_until(&self) -> Timestamp {
        self.not_after()
    }
}

/// Who is at the other end of a connection. In the extensions of every request of it: `Caller<Workload>` on the data
/// plane, `Caller<Operator>` on the control plane, so a service cannot find the other kind.
#[derive(Debug)]
pub struct Caller<P> {
    /// Proven by the handshake of this connection. Ask `valid_at` again for each request.
    pub principal: Arc<P>,
    /// The peer's address; says nothing about who it is.
    pub address: SocketAddr,
}

/// Says who a call of a connection is from, by what it brings beside the certificate.
pub(crate) trait Admission<P>: Send + Sync {
    /// The caller whom the service sees.
    ///
    /// # Errors
    /// The answer to a call that is not taken for one of theirs.
    fn admit<'a>(
        &'a self,
        caller: &'a Caller<P>,
        headers: &'a HeaderMap,
    ) -> BoxFuture<'a, Result<Caller<P>, Status>>;
}

impl<P> Clone for Caller<P> {
    fn clone(&self) -> Self {
        Self { principal: Arc::clone(&self.principal), address: self.address }
    }
}
