//! The gateway is killed with SIGKILL while clients write, again and again: everything acknowledged is there after the
//! next start, what was shredded is not, and the audit log verifies.
//!
//! `BLINDVAULT_KILL_CYCLES` sets how often (20), `BLINDVAULT_SEED` the moments. A killed process leaves the page cache
//! in place; what is not synced is the business of the tests on the simulated disk in `vault-core`.
#![cfg(feature = "dev")]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
#![expect(clippy::print_stdout, clippy::disallowed_macros, reason = "says what was done")]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use vault_client::{BatchItem, ClientError, Code, Endpoint, OperatorClient, Origin, Target, VaultClient};
use vault_grpc::init::{Made, OPERATOR_DOMAIN, init};
use vault_grpc::pki::Leaf;
use vault_proto::v1::{Approval, ApprovalState};

const DATASETS: [&str; 2] = ["customers", "rotated"];
/// The two workloads that `init` makes, each with its tenant.
const WORKLOADS: [(&str, &str); 2] = [("billing", "acme"), ("storefront", "globex")];
/// Of what earlier cycles acknowledged, so many envelopes are opened after each kill; all of them after the last.
const SAMPLE: usize = 300;
/// The gateway is killed after at most so many answers, and at most so many microseconds later.
const CALLS: usize = 120;
const MICROSECONDS: usize = 30_000;

/// SplitMix64: which moments is decided by the seed alone.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Less than `most`.
    fn below(&mut self, most: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(most).unwrap()).unwrap()
    }
}

/// A running `vault-grpc serve`. Killed when dropped.
struct Served {
    child: Child,
    data: String,
    control: String,
    /// Entries that the audit log had at the start.
    entries: u64,
}

impl Drop for Served {
    fn drop(&mut self) {
        // SIGKILL; it fails only for a child that has ended.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn serve(config: &Path) -> Served {
    let mut child = Command::new(env!("CARGO_BIN_EXE_vault-grpc"))
        .args(["serve", "--config"])
        .arg(config)
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
            drop(child.wait());
            panic_with(&seen);
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
    Served { child, data: data.unwrap(), control: control.unwrap(), entries: entries.unwrap() }
}

#[expect(clippy::panic, reason = "tests")]
fn panic_with(lines: &[String]) -> ! {
    panic!("the gateway did not start:\n{}", lines.join("\n"))
}

/// An acknowledged envelope, and what it holds.
#[derive(Clone)]
struct Write {
    workload: usize,
    dataset: &'static str,
    subject: String,
    envelope: Bytes,
}

/// A subject that one operator asked to have shredded, and whether another one's approval was answered as executed.
#[derive(Clone)]
struct Shred {
    subject: String,
    envelope: Bytes,
    asked: Approval,
    executed: bool,
}

/// What the gateway acknowledged.
#[derive(Default)]
struct Acknowledged {
    shreds: Mutex<Vec<Shred>>,
    writes: Mutex<Vec<Write>>,
    /// Tenants, and the dataset in each once that is acknowledged too.
    tenants: Mutex<Vec<(String, bool)>>,
    /// Versions of the tenant keys of [`WORKLOADS`].
    tenant_keys: Mutex<[u32; 2]>,
    calls: Mutex<u64>,
    called: Notify,
}

impl Acknowledged {
    fn call(&self) {
        *self.calls.lock().unwrap() += 1;
        self.called.notify_one();
    }

    fn calls(&self) -> u64 {
        *self.calls.lock().unwrap()
    }

    /// Waits until so many calls are answered.
    async fn reaches(&self, calls: u64) {
        while self.calls() < calls {
            self.called.notified().await;
        }
    }
}

struct Site {
    dir: PathBuf,
}

impl Site {
    fn endpoint(&self, address: &str, who: &str) -> Endpoint {
        let read = |name: &str| fs::read(self.dir.join("certs").join(name)).unwrap();
        let (certificate, key) = (read(&format!("{who}.pem")), read(&format!("{who}.key")));
        Endpoint::new(address, "localhost", read("server-ca.pem"), certificate, key)
    }

    async fn workloads(&self, served: &Served) -> Vec<VaultClient> {
        let mut clients = Vec::new();
        for (who, _) in WORKLOADS {
            clients.push(VaultClient::connect(&self.endpoint(&served.data, who)).await.unwrap());
        }
        clients
    }

    async fn operator(&self, served: &Served) -> OperatorClient {
        OperatorClient::connect(&self.endpoint(&served.control, "operator-alice")).await.unwrap()
    }

    /// Another operator.
    async fn bob(&self, served: &Served, made: &Made) -> OperatorClient {
        let id = format!("spiffe://{OPERATOR_DOMAIN}/operator/bob");
        let issued = made.operator_ca.issue(&Leaf::client("bob", &id)).unwrap();
        let server_ca = fs::read(self.dir.join("certs/server-ca.pem")).unwrap();
        let endpoint =
            Endpoint::new(&served.control, "localhost", server_ca, issued.certificate.as_str(), issued.key.as_str());
        OperatorClient::connect(&endpoint).await.unwrap()
    }

    fn audit_verifies(&self) {
        let output = Command::new(env!("CARGO_BIN_EXE_vault-grpc"))
            .args(["audit", "verify", "--dir"])
            .arg(self.dir.join("data/audit"))
            .arg("--key")
            .arg(self.dir.join("audit.vkey"))
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "audit verify: {}{}", text(&output.stdout), text(&output.stderr));
    }
}

/// An error while the gateway lives is a failure; once it is killed, the end of the writer.
fn is_end(error: &ClientError, killed: &AtomicBool) -> bool {
    assert!(killed.load(Ordering::SeqCst), "refused before the kill: {error}");
    assert_eq!(error.origin(), Origin::Transport, "{error}");
    true
}

async fn encrypt(client: VaultClient, workload: usize, run: String, done: Arc<Acknowledged>, killed: Arc<AtomicBool>) {
    for n in 0.. {
        // New subjects make new rows of keys; ten that come again have keys that are rotated meanwhile.
        let (dataset, subject) = if n % 4 == 3 {
            (DATASETS[1], format!("s-{}", n / 4 % 10))
        } else {
            (DATASETS[0], format!("s-{run}-{workload}-{n}"))
        };
        let target = Target::new(WORKLOADS[workload].1, dataset, "test").subject(&subject);
        match client.encrypt(&target, subject.as_bytes()).await {
            Ok(sealed) => {
                done.call();
                done.writes.lock().unwrap().push(Write { workload, dataset, subject, envelope: sealed.envelope });
            }
            Err(error) if is_end(&error, &killed) => return,
            Err(_) => {}
        }
    }
}

async fn create(operator: OperatorClient, run: String, done: Arc<Acknowledged>, killed: Arc<AtomicBool>) {
    for n in 0.. {
        let tenant = format!("t-{run}-{n}");
        let steps = async {
            operator.create_tenant(&tenant, None, "test").await?;
            done.call();
            done.tenants.lock().unwrap().push((tenant.clone(), false));
            operator.create_dataset(&tenant, DATASETS[0], "pii", "eu", "test").await?;
            done.call();
            done.tenants.lock().unwrap().last_mut().unwrap().1 = true;
            Ok(())
        };
        if steps.await.is_err_and(|error| is_end(&error, &killed)) {
            return;
        }
    }
}

async fn rotate(operator: OperatorClient, first: usize, done: Arc<Acknowledged>, killed: Arc<AtomicBool>) {
    for n in first.. {
        let workload = n % 2;
        let tenant = WORKLOADS[workload].1;
        let steps = async {
            operator.rotate_data_keys(tenant, Some(DATASETS[1]), "test").await?;
            done.call();
            let rotated = operator.rotate_tenant_key(tenant, "test").await?;
            done.call();
            done.tenant_keys.lock().unwrap()[workload] = rotated.tenant.unwrap().active_key_version;
            Ok(())
        };
        if steps.await.is_err_and(|error| is_end(&error, &killed)) {
            return;
        }
    }
}

async fn shred(
    (alice, bob): (OperatorClient, OperatorClient),
    client: VaultClient,
    run: String,
    done: Arc<Acknowledged>,
    killed: Arc<AtomicBool>,
) {
    let tenant = WORKLOADS[0].1;
    for n in 0.. {
        let subject = format!("gone-{run}-{n}");
        let steps = async {
            let target = Target::new(tenant, DATASETS[0], "test").subject(&subject);
            let envelope = client.encrypt(&target, subject.as_bytes()).await?.envelope;
            done.call();
            let asked = alice.shred_subject(tenant, &subject, "test").await?;
            done.call();
            let shred = Shred { subject: subject.clone(), envelope, asked: asked.clone(), executed: false };
            done.shreds.lock().unwrap().push(shred);
            let executed = bob.approve(&asked, Some(&subject), "test").await?.state() == ApprovalState::Executed;
            done.call();
            done.shreds.lock().unwrap().last_mut().unwrap().executed = executed;
            Ok(())
        };
        if steps.await.is_err_and(|error| is_end(&error, &killed)) {
            return;
        }
    }
}

/// What was shredded is gone, also if the gateway was killed in the middle; what nobody approved is there.
async fn shreds_are_whole(operator: &OperatorClient, client: &VaultClient, shreds: &[Shred], done: &Acknowledged) {
    let tenant = WORKLOADS[0].1;
    for shred in shreds {
        let mut state = ApprovalState::Approved;
        for _ in 0..200 {
            state = operator.get_approval(tenant, &shred.asked.approval).await.unwrap().state();
            done.call();
            if state != ApprovalState::Approved {
                break;
            }
            // The gateway finishes it by itself.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let target = Target::new(tenant, DATASETS[0], "test").subject(&shred.subject);
        let opened = client.decrypt(&target, shred.envelope.clone()).await;
        done.call();
        match state {
            ApprovalState::Executed => {
                assert_eq!(opened.unwrap_err().code(), Code::InvalidArgument, "{}", shred.subject);
                let sealed = client.encrypt(&target, b"again").await;
                assert_eq!(sealed.unwrap_err().code(), Code::FailedPrecondition, "{}", shred.subject);
            }
            ApprovalState::Pending => {
                assert!(!shred.executed, "{} came back", shred.subject);
                assert_eq!(opened.unwrap().plaintext.as_bytes(), shred.subject.as_bytes());
            }
            other => panic_with(&[format!("{}: {other:?}", shred.subject)]),
        }
    }
}

/// Opens acknowledged envelopes, in batches.
async fn all_open(clients: &[VaultClient], writes: &[Write], done: &Acknowledged) {
    for (workload, (_, tenant)) in WORKLOADS.iter().enumerate() {
        let mine: Vec<_> = writes.iter().filter(|write| write.workload == workload).collect();
        for batch in mine.chunks(500) {
            let items =
                batch.iter().map(|w| BatchItem::envelope(w.dataset, w.envelope.clone()).subject(&w.subject)).collect();
            let opened = clients[workload].batch_decrypt(*tenant, "test", items).await.unwrap();
            done.call();
            assert_eq!(opened.len(), batch.len());
            for (write, opened) in batch.iter().zip(opened) {
                let opened = opened.unwrap_or_else(|error| panic_with(&[format!("{}: {error}", write.subject)]));
                assert_eq!(opened.plaintext.as_bytes(), write.subject.as_bytes());
            }
        }
    }
}

async fn check(site: &Site, served: &Served, done: &Acknowledged, random: &mut Random, since: (usize, usize, usize)) {
    // Each call left at least one entry before it was answered.
    let calls = done.calls();
    assert!(served.entries >= calls, "{calls} calls were answered, but {} entries are there", served.entries);
    let clients = site.workloads(served).await;
    let writes = done.writes.lock().unwrap().clone();
    let (old, new) = writes.split_at(since.0);
    all_open(&clients, new, done).await;
    let sample: Vec<_> = (0..SAMPLE.min(old.len())).map(|_| old[random.below(old.len())].clone()).collect();
    all_open(&clients, &sample, done).await;
    let operator = site.operator(served).await;
    let tenants = done.tenants.lock().unwrap()[since.1..].to_vec();
    for (tenant, has_dataset) in tenants {
        assert_eq!(operator.get_tenant(&tenant).await.unwrap().tenant, tenant);
        done.call();
        if has_dataset {
            assert_eq!(operator.get_dataset(&tenant, DATASETS[0]).await.unwrap().dataset, DATASETS[0]);
            done.call();
        }
    }
    let shreds = done.shreds.lock().unwrap()[since.2..].to_vec();
    shreds_are_whole(&operator, &clients[0], &shreds, done).await;
    let versions = *done.tenant_keys.lock().unwrap();
    for ((_, tenant), version) in WORKLOADS.iter().zip(versions) {
        assert!(operator.get_tenant(tenant).await.unwrap().active_key_version >= version);
        done.call();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_was_acknowledged_survives_sigkill() {
    let cycles: usize = std::env::var("BLINDVAULT_KILL_CYCLES").map_or(20, |n| n.parse().expect("a number"));
    let seed = std::env::var("BLINDVAULT_SEED").map_or_else(
        |_| u64::from_le_bytes(vault_core::vault::new_request_id().unwrap().0[..8].try_into().unwrap()),
        |seed| seed.parse().expect("a number"),
    );
    println!("BLINDVAULT_SEED={seed}");
    let mut random = Random(seed);
    let dir = tempfile::tempdir().unwrap();
    let site = Site { dir: dir.path().join("site") };
    let made = init(&site.dir, 0, 0).unwrap();
    let config = made.config.clone();
    let done = Arc::new(Acknowledged::default());
    let mut served = serve(&config);
    let operator = site.operator(&served).await;
    for (_, tenant) in WORKLOADS {
        operator.create_tenant(tenant, None, "test").await.unwrap();
        for dataset in DATASETS {
            operator.create_dataset(tenant, dataset, "pii", "eu", "test").await.unwrap();
        }
    }
    for cycle in 0..cycles {
        let before = done.calls();
        let written = (done.writes.lock().unwrap().len(), done.tenants.lock().unwrap().len());
        let since = (written.0, written.1, done.shreds.lock().unwrap().len());
        let killed = Arc::new(AtomicBool::new(false));
        let mut writers = tokio::task::JoinSet::new();
        for (workload, client) in site.workloads(&served).await.into_iter().enumerate() {
            for lane in 0..4 {
                let (done, killed) = (Arc::clone(&done), Arc::clone(&killed));
                writers.spawn(encrypt(client.clone(), workload, format!("{cycle}-{lane}"), done, killed));
            }
        }
        let operator = site.operator(&served).await;
        writers.spawn(create(operator.clone(), cycle.to_string(), Arc::clone(&done), Arc::clone(&killed)));
        let operators = (operator.clone(), site.bob(&served, &made).await);
        let client = site.workloads(&served).await.swap_remove(0);
        writers.spawn(shred(operators, client, cycle.to_string(), Arc::clone(&done), Arc::clone(&killed)));
        writers.spawn(rotate(operator, cycle, Arc::clone(&done), Arc::clone(&killed)));
        // After some answers, and then at any moment of whatever is under way.
        done.reaches(before + 1 + u64::try_from(random.below(CALLS)).unwrap()).await;
        tokio::time::sleep(Duration::from_micros(u64::try_from(random.below(MICROSECONDS)).unwrap())).await;
        killed.store(true, Ordering::SeqCst);
        drop(served);
        while let Some(writer) = writers.join_next().await {
            writer.unwrap();
        }
        served = serve(&config);
        check(&site, &served, &done, &mut random, since).await;
        site.audit_verifies();
    }
    let writes = done.writes.lock().unwrap().clone();
    let clients = site.workloads(&served).await;
    all_open(&clients, &writes, &done).await;
    let shreds = done.shreds.lock().unwrap().clone();
    shreds_are_whole(&site.operator(&served).await, &clients[0], &shreds, &done).await;
    drop(clients);
    drop(served);
    site.audit_verifies();
    let tenants = done.tenants.lock().unwrap().len();
    let versions = *done.tenant_keys.lock().unwrap();
    assert!(
        writes.len() >= cycles && tenants > 0 && versions.iter().any(|version| *version > 1),
        "hardly anything ran"
    );
    println!(
        "measured: {cycles} kills: {} envelopes, {tenants} tenants acknowledged and all there; rotations acknowledged up to tenant key versions {versions:?}; \
         {} of {} subjects shredded, none came back",
        writes.len(),
        shreds.iter().filter(|shred| shred.executed).count(),
        shreds.len()
    );
}
