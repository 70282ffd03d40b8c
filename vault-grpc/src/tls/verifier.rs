//! The client certificate verifier: hands the chain to `vault_core::principal`, and the signature of the handshake to
//! the TLS provider. There is no second implementation of the identity rules.

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};
use vault_core::principal::{IdentityError, TrustBundle};
use vault_core::time::Timestamp;

use crate::plane::Principal;

/// Whether a chain proves a caller of the other plane.
pub(crate) type OfTheOther = Arc<dyn Fn(&[CertificateDer<'_>], Timestamp) -> bool + Send + Sync>;

/// The reason for which a chain of the other plane is refused.
#[derive(Debug)]
struct Stray(&'static str);

impl fmt::Display for Stray {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Stray {}

pub(super) struct PrincipalVerifier<P: Principal> {
    bundle: Arc<TrustBundle<P::Plane>>,
    other: OfTheOther,
    algorithms: WebPkiSupportedAlgorithms,
}

impl<P: Principal> PrincipalVerifier<P> {
    pub(super) fn new(
        bundle: Arc<TrustBundle<P::Plane>>,
        other: OfTheOther,
        algorithms: WebPkiSupportedAlgorithms,
    ) -> Self {
        Self { bundle, other, algorithms }
    }
}

impl<P: Principal> fmt::Debug for PrincipalVerifier<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrincipalVerifier").field("plane", &P::PLANE).finish_non_exhaustive()
    }
}

impl<P: Principal> ClientCertVerifier for PrincipalVerifier<P> {
    /// Empty: whom we trust is nobody's business before they have shown a certificate.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        true
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let chain: Vec<CertificateDer<'_>> = std::iter::once(end_entity).chain(intermediates).map(borrowed).collect();
        let now = Timestamp(now.as_secs().saturating_mul(1000));
        match P::prove(&chain, &self.bundle, now) {
            Ok(_) => Ok(ClientCertVerified::assertion()),
            // Refused all the same, and with the same alert; only counted under a name of its own. The two planes have
            // different trust domains, so a chain of the other one breaks this rule.
            Err(IdentityError::WrongTrustDomain) if (self.other)(&chain, now) => {
                let stray = OtherError(Arc::new(Stray(P::OTHERS_CERTIFICATE)));
                Err(Error::InvalidCertificate(CertificateError::Other(stray)))
            }
            Err(rule) => Err(Error::InvalidCertificate(alert_for(rule))),
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken here".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn borrowed<'a>(certificate: &'a CertificateDer<'_>) -> CertificateDer<'a> {
    CertificateDer::from(certificate.as_ref())
}

/// What a client can act on gets its own alert; every other rule looks alike from outside.
fn alert_for(rule: IdentityError) -> CertificateError {
    match rule {
        IdentityError::Expired => CertificateError::Expired,
        IdentityError::NotYetValid => CertificateError::NotValidYet,
        IdentityError::UnknownIssuer => CertificateError::UnknownIssuer,
        IdentityError::Revoked => CertificateError::Revoked,
        other => CertificateError::Other(OtherError(Arc::new(other))),
    }
}

/// Why a handshake failed, as a name that is decided at compile time.
pub(crate) fn reason_of(error: &io::Error) -> &'static str {
    let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else {
        return "closed_by_peer";
    };
    match tls {
        Error::NoCertificatesPresented => IdentityError::NoCertificate.name(),
        Error::InvalidCertificate(certificate) => match certificate {
            CertificateError::Expired => IdentityError::Expired.name(),
            CertificateError::NotValidYet => IdentityError::NotYetValid.name(),
            CertificateError::UnknownIssuer => IdentityError::UnknownIssuer.name(),
            CertificateError::Revoked => IdentityError::Revoked.name(),
            CertificateError::Other(OtherError(rule)) => match rule.downcast_ref::<Stray>() {
                Some(stray) => stray.0,
                None => rule.downcast_ref::<IdentityError>().map_or("bad_certificate", |rule| rule.name()),
            },
            _ => "bad_certificate",
        },
        Error::PeerIncompatible(_) => "tls_incompatible",
        Error::InvalidMessage(_) => "not_tls",
        Error::AlertReceived(_) => "refused_by_peer",
        Error::NoApplicationProtocol => "no_http2",
        _ => "tls_protocol",
    }
}
