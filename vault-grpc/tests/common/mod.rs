//! A gateway in this process on free loopback ports, with a fresh development PKI, and clients of it.

use std::fs;
use std::net::SocketAddr;

use tempfile::TempDir;
use vault_client::{Endpoint, OperatorClient};
use vault_grpc::Gateway;
use vault_grpc::config::Config;
use vault_grpc::init::{Made, init};
use vault_grpc::pki::Issued;

/// The tenant and the dataset that [`Site::start`] makes; the workload `billing` may use them.
pub const TENANT: &str = "acme";
pub const DATASET: &str = "customers";

pub struct Site {
    pub dir: TempDir,
    pub made: Made,
    pub gateway: Gateway,
}

impl Site {
    /// Starts a gateway, and makes [`TENANT`] and [`DATASET`] over the control plane.
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let made = init(&dir.path().join("site"), 0, 0).unwrap();
        let gateway = Gateway::start(Config::load(&made.config).unwrap()).await.unwrap();
        let site = Self { dir, made, gateway };
        let operator = OperatorClient::connect(&site.operator(site.gateway.control_addr())).await.unwrap();
        operator.create_tenant(TENANT, None, "test").await.unwrap();
        operator.create_dataset(TENANT, DATASET, "pii", "eu", "test").await.unwrap();
        site
    }

    /// The text of a file that `init` made.
    pub fn file(&self, name: &str) -> String {
        fs::read_to_string(self.dir.path().join("site").join(name)).unwrap()
    }

    /// A listener, called with a certificate.
    pub fn endpoint(&self, at: SocketAddr, certificate: &str, key: &str) -> Endpoint {
        Endpoint::new(at.to_string(), "localhost", self.file("certs/server-ca.pem"), certificate, key)
    }

    /// A listener, called with a certificate made for it.
    pub fn endpoint_as(&self, at: SocketAddr, issued: &Issued) -> Endpoint {
        self.endpoint(at, &issued.certificate, &issued.key)
    }

    /// A listener, called as the workload `billing`.
    pub fn workload(&self, at: SocketAddr) -> Endpoint {
        self.endpoint(at, &self.file("certs/billing.pem"), &self.file("certs/billing.key"))
    }

    /// A listener, called as the operator `alice`.
    pub fn operator(&self, at: SocketAddr) -> Endpoint {
        self.endpoint(at, &self.file("certs/operator-alice.pem"), &self.file("certs/operator-alice.key"))
    }
}
