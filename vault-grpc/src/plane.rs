//! The two planes as the transport sees them: which principal a listener proves, and against which bundle.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use http::HeaderMap;
use rustls_pki_types::CertificateDer;
use tonic::Status;
use vault_core::principal::{IdentityError, Operator, Operators, Plane, TrustBundle, Workload, Workloads};
use vault_core::time::Timestamp;
use vault_core::vault::new_request_id;
use vault_core::{Error, Vault};

/// The reason for which the data plane refuses who shows an operator's certificate, and the control plane who shows a
/// workload's: told apart from other strangers, so that they can be counted.
pub const OPERATOR_CERTIFICATE: &str = "operator_certificate";
/// The same for the control plane.
pub const WORKLOAD_CERTIFICATE: &str = "workload_certificate";

/// What is awaited before an answer.
type Recording<'a> = Pin<Box<dyn Future<Output = Result<(), Error>> + Send + 'a>>;

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

    /// Why a certificate that proves the other kind of caller is refused here.
    const OTHERS_CERTIFICATE: &'static str;

    /// Records that such a caller made a call of the other plane, before it is told that there is none here.
    fn strayed<'a>(&'a self, vault: &'a Vault, call: &'static str) -> Recording<'a>;
}

impl Principal for Workload {
    type Plane = Workloads;
    const PLANE: &'static str = "data";
    const OTHERS_CERTIFICATE: &'static str = OPERATOR_CERTIFICATE;

    fn strayed<'a>(&'a self, vault: &'a Vault, call: &'static str) -> Recording<'a> {
        Box::pin(async move { vault.workload_strayed(self, call, new_request_id()?).await })
    }

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
    const OTHERS_CERTIFICATE: &'static str = WORKLOAD_CERTIFICATE;

    fn strayed<'a>(&'a self, vault: &'a Vault, call: &'static str) -> Recording<'a> {
        Box::pin(async move { vault.operator_strayed(self, call, new_request_id()?).await })
    }

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
    fn admit<'a>(&'a self, caller: &'a Caller<P>, headers: &'a HeaderMap) -> BoxFuture<'a, Result<Caller<P>, Status>>;
}

impl<P> Clone for Caller<P> {
    fn clone(&self) -> Self {
        Self { principal: Arc::clone(&self.principal), address: self.address }
    }
}
