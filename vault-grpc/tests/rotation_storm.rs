//! Two gateways, one database, clients on both with many calls in flight, and operators on both who rotate all the
//! while: no call fails. `BLINDVAULT_ROTATIONS` sets how often (40).
#![cfg(all(feature = "dev", feature = "postgres"))]
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "tests, which say what they measured")]
#![expect(clippy::disallowed_macros, reason = "a test says that it is skipped")]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use pg_site::{alice, billing, bob, configure, patient, start};
use postgres::Server;
use tokio::task::JoinSet;
use vault_client::{Code, OperatorClient, Target, VaultClient};

#[path = "common/pg_site.rs"]
mod pg_site;
#[path = "../../vault-core/tests/common/postgres.rs"]
mod postgres;

/// Callers on each gateway: each has a call in flight at any time.
const CALLERS: usize = 12;
/// Envelopes that are opened again and again: the first of each scope, and the newest.
const KEPT: usize = 400;
const SUBJECTS: [Option<&str>; 3] = [None, Some("mia"), Some("noa")];
/// A storm that takes so long hangs.
const PATIENCE: Duration = Duration::from_secs(600);

type Kept = (usize, String, Bytes);

#[derive(Default)]
struct Storm {
    over: AtomicBool,
    encrypted: AtomicU64,
    decrypted: AtomicU64,
    /// Of envelopes that were made under a version that is not the newest any more, as far as one caller knows.
    kept: Mutex<Vec<Kept>>,
    failures: Mutex<Vec<String>>,
}

fn target(subject: usize) -> Target {
    let target = Target::new("acme", "customers", "billing");
    match SUBJECTS.get(subject).copied().flatten() {
        Some(subject) => target.subject(subject),
        None => target,
    }
}

impl Storm {
    fn failed(&self, what: &str, error: &dyn std::fmt::Display) {
        let mut failures = self.failures.lock().unwrap();
        if failures.len() < 20 {
            failures.push(format!("{what}: {error}"));
        }
    }

    /// Encrypts, opens that, and opens an older one.
    async fn call(&self, client: &VaultClient, turn: usize) {
        let (subject, text) = (turn % SUBJECTS.len(), format!("plain {turn}"));
        match client.encrypt(&target(subject), text.as_bytes()).await {
            Ok(sealed) => {
                self.encrypted.fetch_add(1, Ordering::Relaxed);
                self.open(client, &(subject, text.clone(), sealed.envelope.clone())).await;
                let mut kept = self.kept.lock().unwrap();
                if kept.len() >= KEPT {
                    let at = SUBJECTS.len() + turn % (KEPT - SUBJECTS.len());
                    kept.swap_remove(at);
                }
                kept.push((subject, text, sealed.envelope));
            }
            Err(error) => self.failed("encrypt", &error),
        }
        let old = {
            let kept = self.kept.lock().unwrap();
            kept.get(turn % kept.len().max(1)).cloned()
        };
        if let Some(old) = old {
            self.open(client, &old).await;
        }
    }

    async fn open(&self, client: &VaultClient, (subject, text, envelope): &Kept) {
        match client.decrypt(&target(*subject), envelope.clone()).await {
            Ok(opened) if opened.plaintext.as_bytes() == text.as_bytes() => {
                self.decrypted.fetch_add(1, Ordering::Relaxed);
            }
            Ok(_) => self.failed("decrypt", &"another plaintext"),
            Err(error) => self.failed("decrypt", &error),
        }
    }
}

/// Rotations that were carried out, and those that met another and were told so.
#[derive(Default)]
struct Rotated {
    tenant_key: u64,
    data_keys: u64,
    conflicts: u64,
}

async fn rotate(operator: OperatorClient, storm: Arc<Storm>, rotations: usize) -> Rotated {
    let mut rotated = Rotated::default();
    for turn in 0..rotations {
        let result = if turn % 2 == 0 {
            operator.rotate_tenant_key("acme", "storm").await.map(|_| &mut rotated.tenant_key)
        } else {
            operator.rotate_data_keys("acme", None, "storm").await.map(|_| &mut rotated.data_keys)
        };
        match result {
            Ok(count) => *count += 1,
            Err(error) if error.code() == Code::Aborted => rotated.conflicts += 1,
            // It ends well or in a conflict.
            Err(error) => storm.failed("rotate", &error),
        }
    }
    rotated
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_call_fails_while_operators_on_both_gateways_rotate() {
    let Some(server) = Server::shared() else { return };
    let rotations = std::env::var("BLINDVAULT_ROTATIONS").map_or(40, |n| n.parse::<usize>().unwrap());
    let (_dir, made) = configure(server);
    patient(&made);
    let (a, b) = (start(&made, "a").await, start(&made, "b").await);
    let operators = [alice(&made, a.control_addr()).await, bob(&made, b.control_addr()).await];
    let [alice, _] = &operators;
    alice.create_tenant("acme", None, "test").await.unwrap();
    alice.create_dataset("acme", "customers", "", "", "test").await.unwrap();
    let storm = Arc::new(Storm::default());
    let mut callers = JoinSet::new();
    for address in [a.data_addr(), b.data_addr()] {
        for caller in 0..CALLERS {
            let (client, storm) = (billing(&made, address).await, Arc::clone(&storm));
            callers.spawn(async move {
                let mut turn = caller * 1_000_003;
                while !storm.over.load(Ordering::Relaxed) {
                    storm.call(&client, turn).await;
                    turn += 1;
                }
            });
        }
    }
    let begun = Instant::now();
    let mut rotating = JoinSet::new();
    for operator in operators {
        rotating.spawn(rotate(operator, Arc::clone(&storm), rotations / 2));
    }
    let mut rotated = Rotated::default();
    let both = async {
        while let Some(one) = rotating.join_next().await {
            let one = one.unwrap();
            rotated.tenant_key += one.tenant_key;
            rotated.data_keys += one.data_keys;
            rotated.conflicts += one.conflicts;
        }
    };
    let ended = tokio::time::timeout(PATIENCE, both).await;
    storm.over.store(true, Ordering::Relaxed);
    ended.unwrap();
    while let Some(caller) = callers.join_next().await {
        caller.unwrap();
    }
    let failures = storm.failures.lock().unwrap().clone();
    let (encrypted, decrypted) = (storm.encrypted.load(Ordering::Relaxed), storm.decrypted.load(Ordering::Relaxed));
    println!(
        "measured: {} rotations of the tenant key and {} of all data keys in {:?}, {} conflicts; {} callers, {encrypted} \
         encrypted, {decrypted} decrypted, {} failures",
        rotated.tenant_key,
        rotated.data_keys,
        begun.elapsed(),
        rotated.conflicts,
        2 * CALLERS,
        failures.len(),
    );
    assert_eq!(failures, Vec::<String>::new());
    assert!(rotated.tenant_key > 0 && rotated.data_keys > 0 && encrypted > 100 && decrypted > 100);
    // Whatever was kept opens on both, with nothing in memory.
    for (gateway, address) in [(&a, a.data_addr()), (&b, b.data_addr())] {
        gateway.vault().keys().evict_all();
        let client = billing(&made, address).await;
        let kept = storm.kept.lock().unwrap().clone();
        for one in kept.iter().take(50).chain(kept.iter().rev().take(50)) {
            storm.open(&client, one).await;
        }
    }
    assert_eq!(storm.failures.lock().unwrap().len(), 0);
    a.shutdown().await.unwrap();
    b.shutdown().await.unwrap();
}
