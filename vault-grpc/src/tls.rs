//! The listeners' TLS: 1.3 only, X25519MLKEM768 first, a client certificate required and judged by the rules of
//! `vault_core::principal`, nothing resumed, no early data, no key log.

mod client;
mod load;
mod verifier;

/// Files with certificates and keys, for other parts that speak TLS.
pub(crate) mod files {
    #[cfg(feature = "postgres")]
    pub(crate) use super::load::private_key;
    pub(crate) use super::load::{MAX_PEM, read};
}

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls_pki_types::CertificateDer;
use tokio::sync::watch;
use vault_core::principal::{
    IdentityError, Operator, OperatorBundle, TrustBundle, Workload, WorkloadBundle, certificate_end, check_planes_apart,
};
use vault_core::time::{Clock, SystemClock, Timestamp};

use crate::config::{Config, ConfigError};
use crate::plane::Principal;
use verifier::{OfTheOther, PrincipalVerifier};

pub(crate) use client::ClientTls;
pub(crate) use verifier::reason_of;

/// Certificate, key and trust bundle of one listener, as they stood at one moment.
pub struct Material<P: Principal> {
    config: Arc<ServerConfig>,
    bundle: Arc<TrustBundle<P::Plane>>,
    own_end: Option<Timestamp>,
}

impl<P: Principal> fmt::Debug for Material<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Material").field("bundle", &self.bundle).finish_non_exhaustive()
    }
}

impl<P: Principal> Material<P> {
    /// A listener's TLS of a certificate with its key and a trust bundle; `other` tells callers of the other plane.
    ///
    /// # Errors
    /// If the provider cannot do TLS 1.3.
    pub(crate) fn new(
        identity: CertifiedKey,
        bundle: Arc<TrustBundle<P::Plane>>,
        other: OfTheOther,
    ) -> Result<Self, rustls::Error> {
        let provider = Arc::new(provider());
        let own_end = identity.end_entity_cert().ok().and_then(|leaf| certificate_end(leaf).ok());
        let algorithms = provider.signature_verification_algorithms;
        let verifier = PrincipalVerifier::<P>::new(Arc::clone(&bundle), other, algorithms);
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(identity)));
        config.alpn_protocols = vec![b"h2".to_vec()];
        // A resumed session would not present its certificate again: revocation could not reach it.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        Ok(Self { config: Arc::new(config), bundle, own_end })
    }

    pub(crate) fn server_config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    /// The bundle that callers are judged by.
    pub fn bundle(&self) -> &TrustBundle<P::Plane> {
        &self.bundle
    }

    /// The last second at which the listener's own certificate is valid.
    pub const fn own_end(&self) -> Option<Timestamp> {
        self.own_end
    }

    pub(crate) fn prove(&self, chain: &[CertificateDer<'_>]) -> Result<P, IdentityError> {
        P::prove(chain, &self.bundle, SystemClock.now())
    }
}

/// aws-lc-rs; the key exchanges of its default, the hybrid of X25519 and ML-KEM-768 first.
fn provider() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = vec![
        aws_lc_rs::kx_group::X25519MLKEM768,
        aws_lc_rs::kx_group::X25519,
        aws_lc_rs::kx_group::SECP256R1,
        aws_lc_rs::kx_group::SECP384R1,
    ];
    provider
}

/// The material in force on one listener. Replacing it touches new handshakes at once; open connections notice
/// it and are judged again by the new bundle.
#[derive(Debug)]
pub struct Current<P: Principal> {
    material: ArcSwap<Material<P>>,
    generation: watch::Sender<u64>,
}

impl<P: Principal> Current<P> {
    /// Starts with this material.
    pub fn new(material: Material<P>) -> Self {
        Self { material: ArcSwap::from_pointee(material), generation: watch::Sender::new(0) }
    }

    /// Replaces the material.
    pub fn replace(&self, material: Material<P>) {
        self.material.store(Arc::new(material));
        self.generation.send_modify(|generation| *generation += 1);
    }

    pub(crate) fn load(&self) -> Arc<Material<P>> {
        self.material.load_full()
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }
}

/// The material of both listeners, loaded from the files that a configuration names.
#[derive(Debug)]
pub struct Materials {
    /// Of the data plane.
    pub data: Material<Workload>,
    /// Of the control plane.
    pub control: Material<Operator>,
}

impl Materials {
    /// Loads and checks everything: nothing is in force until both planes are right.
    ///
    /// # Errors
    /// The first file that is not acceptable, with the line of the configuration that names it.
    pub fn load(config: &Config) -> Result<Self, ConfigError> {
        let workloads: WorkloadBundle = load::bundle(&config.data)?;
        let operators: OperatorBundle = load::bundle(&config.control)?;
        let operators = operators.with_max_lifetime(config.operators.max_certificate_lifetime);
        check_planes_apart(&workloads, &operators).map_err(|error| config.control.client_ca.error(error))?;
        let (workloads, operators) = (Arc::new(workloads), Arc::new(operators));
        let (known_workloads, known_operators) = (Arc::clone(&workloads), Arc::clone(&operators));
        let is_workload: OfTheOther =
            Arc::new(move |chain, now| Workload::verify(chain, &known_workloads, now).is_ok());
        let is_operator: OfTheOther =
            Arc::new(move |chain, now| Operator::verify(chain, &known_operators, now).is_ok());
        Ok(Self {
            data: load::material(&config.data, workloads, is_operator)?,
            control: load::material(&config.control, operators, is_workload)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use rustls::NamedGroup;

    use super::*;

    #[test]
    fn the_hybrid_key_exchange_comes_first() {
        assert_eq!(provider().kx_groups.first().map(|group| group.name()), Some(NamedGroup::X25519MLKEM768));
    }
}
