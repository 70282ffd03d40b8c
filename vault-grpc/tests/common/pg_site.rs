//! Gateways on one PostgreSQL, configured by `init` and called over the network.

#![expect(clippy::unwrap_used, reason = "a gateway that does not start is a failure")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use vault_client::{Endpoint, OperatorClient, VaultClient};
use vault_grpc::Gateway;
use vault_grpc::config::Config;
use vault_grpc::init::{Made, OPERATOR_DOMAIN, init};
use vault_grpc::pki::Leaf;

use crate::postgres::{PASSWORD, Server, USER};

/// A configuration by `init`, on a database instead of a file.
pub(crate) fn configure(server: &Server) -> (tempfile::TempDir, Made) {
    configure_on(server, &server.database())
}

pub(crate) fn configure_on(server: &Server, database: &str) -> (tempfile::TempDir, Made) {
    let dir = tempfile::tempdir().unwrap();
    let made = init(&dir.path().join("site"), 0, 0).unwrap();
    let beside = |name: &str, text: &str| {
        let path = made.config.with_file_name(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    };
    beside("db.password", &format!("{PASSWORD}\n"));
    beside("db-ca.pem", &server.ca_pem);
    let store = format!(
        "[store]\nkind = \"postgres\"\nhosts = [\"localhost:{}\"]\nca = \"db-ca.pem\"\ndatabase = \"{database}\"\n\
         user = \"{USER}\"\npassword_file = \"db.password\"\nrevocation_lease_ms = 2000\n",
        server.port,
    );
    let text = fs::read_to_string(&made.config).unwrap();
    let text = text.replacen("[store]\npath = \"data/vault.redb\"\n", &store, 1);
    assert!(text.contains("kind = \"postgres\""));
    fs::write(&made.config, text).unwrap();
    (dir, made)
}

/// Longer than a busy machine takes to answer; what short bounds do is another test's.
pub(crate) fn patient(made: &Made) {
    let text = fs::read_to_string(&made.config).unwrap();
    let long = "revocation_lease_ms = 60000\nstatement_timeout_ms = 25000\nwait_timeout_ms = 25000\nconnect_timeout_ms = 25000\n";
    fs::write(&made.config, text.replace("revocation_lease_ms = 2000\n", long)).unwrap();
}

/// The configuration of a gateway whose audit log lies in a directory of its own.
pub(crate) fn configured(made: &Made, name: &str) -> PathBuf {
    let text = fs::read_to_string(&made.config).unwrap().replacen(
        "dir = \"data/audit\"\n",
        &format!("dir = \"{name}/audit\"\nshard = \"{name}\"\n"),
        1,
    );
    let text = text.replacen("kind = \"postgres\"\n", &format!("kind = \"postgres\"\ngateway = \"{name}\"\n"), 1);
    let config = made.config.with_file_name(format!("{name}.toml"));
    fs::write(&config, text).unwrap();
    config
}

pub(crate) async fn start(made: &Made, name: &str) -> Gateway {
    Gateway::start(Config::load(&configured(made, name)).unwrap()).await.unwrap()
}

pub(crate) fn endpoint(made: &Made, at: impl ToString, who: &str) -> Endpoint {
    let part = |ending: &str| fs::read_to_string(made.config.with_file_name(format!("certs/{who}.{ending}"))).unwrap();
    Endpoint::new(at.to_string(), "localhost", made.server_ca.pem(), part("pem"), part("key"))
}

/// The operator that `init` makes.
pub(crate) async fn alice<A: ToString>(made: &Made, control: A) -> OperatorClient {
    OperatorClient::connect(&endpoint(made, control, "operator-alice")).await.unwrap()
}

/// Another one.
pub(crate) async fn bob<A: ToString>(made: &Made, control: A) -> OperatorClient {
    let leaf = Leaf::client("bob", &format!("spiffe://{OPERATOR_DOMAIN}/operator/bob"));
    let bob = made.operator_ca.issue(&leaf).unwrap();
    let server_ca = made.server_ca.pem();
    let at = Endpoint::new(control.to_string(), "localhost", server_ca, bob.certificate.as_str(), bob.key.as_str());
    OperatorClient::connect(&at).await.unwrap()
}

/// A workload that `init` makes.
pub(crate) async fn billing<A: ToString>(made: &Made, data: A) -> VaultClient {
    VaultClient::connect(&endpoint(made, data, "billing")).await.unwrap()
}

// A test file uses a part of this; naming all of it here keeps the rest from being reported as dead.
const _: () = {
    let _ = (configure, configure_on, patient, start, bob::<String>, billing::<String>, alice::<String>);
};
