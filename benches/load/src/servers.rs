//! The servers that are measured, each a process of its own, so that its processor time is its own.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::process::{Child, Command};

/// How long a server may take to listen.
const START: Duration = Duration::from_secs(30);

/// The gateway's program beside this one.
pub(crate) fn beside() -> PathBuf {
    std::env::current_exe().unwrap().with_file_name("vault-grpc")
}

/// A port that was free when asked.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A server that ends with this value.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Server {
    async fn start(mut command: Command, address: SocketAddr) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let begun = Instant::now();
        while TcpStream::connect(address).await.is_err() {
            assert!(child.try_wait().unwrap().is_none(), "a server ended before it listened");
            assert!(begun.elapsed() < START, "a server did not listen");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Self { child, address }
    }

    /// The yardstick.
    pub(crate) async fn echo(certs: &Path) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["echo", "--address", &address.to_string(), "--certs"]).arg(certs);
        Self::start(command, address).await
    }

    /// The gateway.
    pub(crate) async fn gateway(program: &Path, config: &Path, address: SocketAddr) -> Self {
        let mut command = Command::new(program);
        command.args(["serve", "--config"]).arg(config);
        Self::start(command, address).await
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id().unwrap()
    }
}
