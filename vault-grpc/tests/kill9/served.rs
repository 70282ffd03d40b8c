//! The process that serves an installation, and who calls it.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use vault_client::{OperatorClient, VaultClient};

pub(crate) const SIGKILL: i32 = 9;

/// A running `vault-grpc serve`. Killed when dropped.
pub(crate) struct Process {
    child: Child,
    pub(crate) data: String,
    pub(crate) control: String,
    /// Entries that the audit log had at the start.
    pub(crate) entries: u64,
}

/// One that is called: each caller has a connection, and all share it.
pub(crate) struct Served {
    pub(crate) process: Process,
    /// Two workloads, in the order of [`crate::acknowledged::WORKLOADS`].
    pub(crate) workloads: [VaultClient; 2],
    /// Three operators.
    pub(crate) alice: OperatorClient,
    pub(crate) bob: OperatorClient,
    pub(crate) carol: OperatorClient,
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Process {
    pub(crate) fn kill(&mut self) {
        // SIGKILL; it fails only for a child that has ended.
        drop(self.child.kill());
        drop(self.child.wait());
    }

    /// Waits until it has killed itself; false if it lives on.
    pub(crate) async fn dies(&mut self, within: Duration) -> bool {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                assert_eq!(status.signal(), Some(SIGKILL), "{status}");
                return true;
            }
            if begun.elapsed() > within {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// How a gateway ended that did not come to serve, and what it said.
pub(crate) type Ended = (ExitStatus, Vec<String>);

/// Starts one, which kills itself where a file says.
pub(crate) fn start(config: &Path, failpoint: &Path) -> Result<Process, Ended> {
    let mut child = Command::new(env!("CARGO_BIN_EXE_vault-grpc"))
        .args(["serve", "--config"])
        .arg(config)
        .arg("--failpoint")
        .arg(failpoint)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let (mut data, mut control, mut entries, mut seen) = (None, None, None, Vec::new());
    while data.is_none() || control.is_none() {
        let Some(Ok(line)) = lines.next() else {
            drop(child.kill());
            return Err((child.wait().unwrap(), seen));
        };
        let field = |name: &str| line.split(' ').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
        let address = field("address").map(|address| address.trim_matches('"').to_owned());
        match field("plane") {
            Some("\"data\"") => data = address,
            Some("\"control\"") => control = address,
            _ => {}
        }
        entries = entries.or_else(|| field("entries").and_then(|n| n.parse().ok()));
        seen.push(line);
    }
    // Read on, so that the gateway never waits for its log lines to be taken.
    std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
    Ok(Process { child, data: data.unwrap(), control: control.unwrap(), entries: entries.unwrap() })
}
