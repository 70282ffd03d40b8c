//! A gateway on a development configuration, and clients that say what the wire says.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tempfile::TempDir;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use vault_client::{Endpoint, OperatorClient, VaultClient};
use vault_grpc::Gateway;
use vault_grpc::config::Config;
use vault_grpc::init::{Made, OPERATOR_DOMAIN, WORKLOAD_DOMAIN, init};
use vault_grpc::pki::{Issued, Leaf};

/// Longer than anything here takes; a test that waits so long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Fixture {
    pub(crate) dir: TempDir,
    pub(crate) made: Made,
    pub(crate) gateway: Gateway,
}

/// What `init` makes, in a directory of its own.
pub(crate) fn made() -> (TempDir, Made) {
    let dir = tempfile::tempdir().unwrap();
    let made = init(&dir.path().join("vault"), 0, 0).unwrap();
    (dir, made)
}

impl Fixture {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_, text| text).await
    }

    /// Starts on a configuration that `edit` has changed.
    pub(crate) async fn start_with(edit: impl FnOnce(&Made, String) -> String) -> Self {
        let (dir, made) = made();
        let text = edit(&made, fs::read_to_string(&made.config).unwrap());
        fs::write(&made.config, text).unwrap();
        let gateway = Gateway::start(Config::load(&made.config).unwrap()).await.unwrap();
        Self { dir, made, gateway }
    }

    pub(crate) fn root(&self) -> &Path {
        self.made.config.parent().unwrap()
    }

    fn file(&self, name: &str) -> String {
        fs::read_to_string(self.root().join(name)).unwrap()
    }

    pub(crate) fn endpoint(&self, address: SocketAddr, name: &str) -> Endpoint {
        let part = |ending: &str| self.file(&format!("certs/{name}.{ending}"));
        Endpoint::new(address.to_string(), "localhost", self.made.server_ca.pem(), part("pem"), part("key"))
    }

    /// Another of the operators that `init` names.
    pub(crate) async fn operator_as(&self, name: &str) -> OperatorClient {
        let endpoint = self.endpoint(self.gateway.control_addr(), &format!("operator-{name}"));
        OperatorClient::connect(&endpoint).await.unwrap()
    }

    pub(crate) async fn operator(&self) -> OperatorClient {
        OperatorClient::connect(&self.endpoint(self.gateway.control_addr(), "operator-alice")).await.unwrap()
    }

    pub(crate) async fn workload(&self, name: &str) -> VaultClient {
        VaultClient::connect(&self.endpoint(self.gateway.data_addr(), name)).await.unwrap()
    }

    /// The tenants of the example workloads, with a dataset each.
    pub(crate) async fn tenants(&self) {
        let operator = self.operator().await;
        for tenant in ["acme", "globex"] {
            operator.create_tenant(tenant, None, "test").await.unwrap();
            operator.create_dataset(tenant, "customers", "", "", "test").await.unwrap();
        }
    }

    /// A certificate of the workload CA.
    pub(crate) fn issue_workload(&self, path: &str) -> Issued {
        self.made.workload_ca.issue(&Leaf::client("test", &workload_id(path))).unwrap()
    }

    pub(crate) fn tls(&self, identity: Option<&Issued>) -> ClientConfig {
        client(self.made.server_ca.pem(), identity)
    }
}

pub(crate) fn workload_id(path: &str) -> String {
    format!("spiffe://{WORKLOAD_DOMAIN}{path}")
}

pub(crate) fn operator_id(name: &str) -> String {
    format!("spiffe://{OPERATOR_DOMAIN}/operator/{name}")
}

pub(crate) fn client(server_ca: &str, identity: Option<&Issued>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(server_ca.as_bytes()).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match identity {
        None => config.with_no_client_auth(),
        Some(issued) => config
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap(),
            )
            .unwrap(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    config
}

/// Connects and waits for the gateway's first byte, which a refused client never gets: in TLS 1.3 the client's side of
/// the handshake ends before the server has judged the certificate.
pub(crate) async fn connect(
    address: SocketAddr,
    config: &Arc<ClientConfig>,
) -> Result<TlsStream<TcpStream>, std::io::Error> {
    let judged = async {
        let tcp = TcpStream::connect(address).await?;
        let name = ServerName::try_from("localhost").unwrap();
        let mut tls = TlsConnector::from(Arc::clone(config)).connect(name, tcp).await?;
        // The SETTINGS frame's header: a length, type 4.
        let mut header = [0; 9];
        tls.read_exact(&mut header).await?;
        assert_eq!(header[3], 4, "the first frame is SETTINGS");
        let length = usize::from(header[1]) << 8 | usize::from(header[2]);
        tls.read_exact(&mut vec![0; length]).await?;
        Ok(tls)
    };
    timeout(PATIENCE, judged).await.unwrap()
}

/// What TLS says about a refusal.
pub(crate) fn tls_error(error: &std::io::Error) -> Option<rustls::Error> {
    error.get_ref()?.downcast_ref::<rustls::Error>().cloned()
}
