//! A gateway's directory for one run: what `init` makes, on free ports, with a tenant and its dataset.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tokio::process::Command;
use vault_client::{Endpoint, OperatorClient};

use crate::call::{About, PIECE};
use crate::servers::{Server, free_port};

/// The tenant of the workload `billing`.
const TENANT: &str = "acme";
const DATASET: &str = "customers";

pub(crate) struct Site {
    dir: TempDir,
    pub(crate) gateway: Server,
}

impl Site {
    /// Makes it beside this program, so that its log is on a disk and not in memory.
    pub(crate) async fn start(program: &Path) -> Self {
        let beside = std::env::current_exe().unwrap();
        let dir = tempfile::tempdir_in(beside.parent().unwrap()).unwrap();
        let root = dir.path().join("vault");
        let init = Command::new(program).args(["init", "--dir"]).arg(&root).output().await;
        let init = init.unwrap_or_else(|error| panic_with(program, &error.to_string()));
        if !init.status.success() {
            panic_with(program, &String::from_utf8_lossy(&init.stderr));
        }
        let config = root.join("vault.toml");
        let (data, control) = (free_port(), free_port());
        let text = std::fs::read_to_string(&config).unwrap();
        let text = text.replace("127.0.0.1:8443", &format!("127.0.0.1:{data}"));
        let text = text.replace("127.0.0.1:8444", &format!("127.0.0.1:{control}"));
        std::fs::write(&config, text).unwrap();
        let gateway = Server::gateway(program, &config, SocketAddr::from(([127, 0, 0, 1], data))).await;
        let site = Self { dir, gateway };
        let operator = site.endpoint(SocketAddr::from(([127, 0, 0, 1], control)), "operator-alice");
        let operator = OperatorClient::connect(&operator).await.unwrap();
        operator.create_tenant(TENANT, None, "to be measured").await.unwrap();
        operator.create_dataset(TENANT, DATASET, "", "", "to be measured").await.unwrap();
        site
    }

    pub(crate) fn certs(&self) -> PathBuf {
        self.dir.path().join("vault/certs")
    }

    /// One of the servers, called with a certificate of `init`.
    pub(crate) fn endpoint(&self, address: SocketAddr, name: &str) -> Endpoint {
        let read = |file: String| std::fs::read(self.certs().join(file)).unwrap();
        let (ca, certificate) = (read("server-ca.pem".to_owned()), read(format!("{name}.pem")));
        Endpoint::new(address.to_string(), "localhost", ca, certificate, read(format!("{name}.key")))
    }

    pub(crate) fn about(size: usize, stream_mib: usize) -> About {
        About {
            tenant: TENANT.to_owned(),
            dataset: DATASET.to_owned(),
            purpose: "billing".to_owned(),
            size,
            items: 100,
            pieces: stream_mib * 1024 * 1024 / PIECE,
        }
    }
}

fn panic_with(program: &Path, why: &str) -> ! {
    eprintln!("{} made no configuration (is it a development build?): {why}", program.display());
    std::process::exit(1)
}
