//! Many callers of the data plane at once, and what they got.
#![expect(clippy::indexing_slicing, reason = "what is not there fails the test")]

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::sleep;
use vault_client::{AuditReceipt, ClientError, Code, Limits, Target};
use vault_core::audit::{self, LogVerifier, VerifyOptions, verify};
use vault_core::fs::OsFs;

use super::support::{Fixture, PATIENCE};

const CALLERS: usize = 32;
const CONNECTIONS: usize = 4;

/// Callers at work.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    refused: Arc<AtomicU64>,
    callers: JoinSet<Vec<AuditReceipt>>,
}

/// Whether a call was refused because of a sink, and says so without naming anything of the call.
pub(crate) fn is_of_sink(error: &ClientError) -> bool {
    error.code() == Code::Unavailable && error.to_string().contains("audit sink")
}

impl Load {
    /// Encrypts as `billing` until it is ended. A call may be answered, or refused because of a sink, and nothing else.
    pub(crate) async fn start(fixture: &Fixture) -> Self {
        let (stop, answered, refused) = Default::default();
        let mut load = Self { stop, answered, refused, callers: JoinSet::new() };
        for _ in 0..CONNECTIONS {
            let client = fixture.workload("billing").await;
            let client = client.with_limits(Limits { deadline: Duration::from_secs(30), ..Limits::default() });
            for _ in 0..CALLERS / CONNECTIONS {
                let (stop, client) = (Arc::clone(&load.stop), client.clone());
                let (answered, refused) = (Arc::clone(&load.answered), Arc::clone(&load.refused));
                load.callers.spawn(async move {
                    let target = Target::new("acme", "customers", "billing");
                    let mut receipts = Vec::new();
                    while !stop.load(Ordering::SeqCst) {
                        match client.encrypt(&target, b"4111").await {
                            Ok(sealed) => {
                                receipts.push(sealed.audit_receipt.unwrap());
                                answered.fetch_add(1, Ordering::SeqCst);
                            }
                            Err(error) => {
                                assert!(is_of_sink(&error), "{error}");
                                refused.fetch_add(1, Ordering::SeqCst);
                                sleep(Duration::from_millis(5)).await;
                            }
                        }
                    }
                    receipts
                });
            }
        }
        load
    }

    pub(crate) fn answered(&self) -> u64 {
        self.answered.load(Ordering::SeqCst)
    }

    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::SeqCst)
    }

    /// Waits until so many more calls are answered.
    pub(crate) async fn goes_on(&self, more: u64) {
        let before = self.answered();
        until("answers", || self.answered() >= before + more).await;
    }

    /// Ends it, and answers what the callers got.
    pub(crate) async fn end(mut self) -> Vec<AuditReceipt> {
        self.stop.store(true, Ordering::SeqCst);
        let mut receipts = Vec::new();
        while let Some(caller) = self.callers.join_next().await {
            receipts.extend(caller.unwrap());
        }
        receipts
    }
}

pub(crate) async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < PATIENCE * 3, "{what}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// Shuts the gateway down and holds every receipt against its log.
pub(crate) async fn hold(fixture: Fixture, receipts: &[AuditReceipt]) -> tempfile::TempDir {
    let root = fixture.root().to_owned();
    let Fixture { dir, gateway, .. } = fixture;
    gateway.shutdown().await.unwrap();
    let key = LogVerifier::parse(&fs::read_to_string(root.join("audit.vkey")).unwrap()).unwrap();
    let mut options = VerifyOptions::default();
    for receipt in receipts {
        options.keep(&audit::AuditReceipt::parse(&receipt.text()).unwrap(), &key).unwrap();
    }
    let report = verify(&OsFs, &root.join("data/audit"), &key, &options).unwrap();
    assert!(report.is_sound(), "{report}");
    dir
}

/// Each receipt's entries are among those that a sink got: leaf hashes in hexadecimal by index.
pub(crate) fn among(receipts: &[AuditReceipt], got: &HashMap<u64, String>) {
    for (index, leaf) in receipts.iter().flat_map(AuditReceipt::entries) {
        assert_eq!(got.get(&index), Some(&hex::encode(leaf)), "entry {index}");
    }
}

/// The entries in a file of OCSF lines, which may hold some twice.
pub(crate) fn lines(file: &Path) -> HashMap<u64, String> {
    let text = fs::read_to_string(file).unwrap();
    let one = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let leaf = line["unmapped"]["leaf_hash"].as_str().unwrap().to_owned();
        (line["metadata"]["sequence"].as_u64().unwrap(), leaf)
    };
    text.lines().map(one).collect()
}
