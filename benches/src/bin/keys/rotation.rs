//! Rotating a tenant key above 1,000,000 data keys while calls go on, then shredding two of the tenant's subjects.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use vault_benches::bed::{Bed, target};
use vault_benches::lookup::Many;
use vault_benches::{context, fill};
use vault_core::Vault;
use vault_core::id::{Reason, Subject, TenantId};
use vault_core::keys::{ApprovalState, CacheSettings, Seen};
use vault_core::principal::{Operator, Workload};
use vault_core::vault::{ControlCall, DecryptRequest, EncryptRequest, Target, new_request_id};

const KEYS: u64 = 1_000_000;
/// Phases without and with the rotation take turns, as a machine with neighbours is not the same from minute to minute.
const SLICE: Duration = Duration::from_secs(5);
/// Subjects of the rotating tenant that calls are about.
const SUBJECTS: u64 = 32;
/// Between two calls of a client.
const PAUSE: Duration = Duration::from_millis(2);

/// Latencies of one client's calls, in microseconds.
type Latencies = Vec<u64>;

fn acme() -> TenantId {
    TenantId::parse("acme").unwrap()
}

fn initech() -> TenantId {
    TenantId::parse("initech").unwrap()
}

/// One after the other, an Encrypt and a Decrypt of what it gave, until `stop`.
async fn client(vault: Arc<Vault>, who: Arc<Workload>, targets: Vec<Target>, stop: Arc<AtomicBool>) -> Latencies {
    let (mut latencies, context) = (Vec::new(), context());
    for target in targets.iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let begun = Instant::now();
        let request = EncryptRequest { target, context: &context, plaintext: b"DE89 3704" };
        let sealed = vault.encrypt(&who, request).await.unwrap();
        latencies.push(micros(begun.elapsed()));
        let begun = Instant::now();
        let request = DecryptRequest { target, context: &context, envelope: &sealed.envelope };
        vault.decrypt(&who, request).await.unwrap();
        latencies.push(micros(begun.elapsed()));
        tokio::time::sleep(PAUSE).await;
    }
    latencies
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap()
}

/// Two clients of each tenant while `work` runs; what they saw.
async fn phase<T>(bed: &Bed, who: &Arc<Workload>, work: impl Future<Output = T>) -> ([Latencies; 2], T) {
    let stop = Arc::new(AtomicBool::new(false));
    let of_acme = |at: u64| target(&acme(), Some(fill::subject_of(fill::key_id(at))));
    let targets = [vec![target(&initech(), None)], (0..SUBJECTS).map(of_acme).collect()];
    let clients = targets.map(|targets| {
        [(); 2]
            .map(|()| tokio::spawn(client(Arc::clone(&bed.vault), Arc::clone(who), targets.clone(), Arc::clone(&stop))))
    });
    let done = work.await;
    stop.store(true, Ordering::Relaxed);
    let mut seen = [Vec::new(), Vec::new()];
    for (seen, clients) in seen.iter_mut().zip(clients) {
        for client in clients {
            seen.extend(client.await.unwrap());
        }
    }
    (seen, done)
}

fn add(all: &mut [Latencies; 2], seen: [Latencies; 2]) {
    all.iter_mut().zip(seen).for_each(|(all, seen)| all.extend(seen));
}

fn line(what: &str, seen: &mut [Latencies; 2]) {
    for (tenant, seen) in ["another tenant", "the tenant"].iter().zip(seen) {
        seen.sort_unstable();
        let at = |share: f64| seen[((seen.len() - 1) as f64 * share) as usize] as f64 / 1000.0;
        println!("| {what} | {tenant} | {} | {:.1} | {:.1} | {:.1} |", seen.len(), at(0.5), at(0.99), at(1.0));
    }
}

fn call<'a>(who: &'a Operator, reason: &'a Reason) -> ControlCall<'a> {
    ControlCall { who, request: new_request_id().unwrap(), reason: Some(reason) }
}

/// Has a rotation begin. The call is given up at once, so that [`Vault::tend`] is what goes on with it.
async fn begin(bed: &Bed, who: &Operator, reason: &Reason) {
    let call = call(who, reason);
    let acme = acme();
    let rotating = bed.vault.rotate_tenant_key(&call, &acme, None);
    assert!(tokio::time::timeout(Duration::from_millis(500), rotating).await.is_err(), "it was over too soon");
}

/// Goes on for a while; how long it took.
async fn go_on(bed: &Bed) -> Duration {
    let begun = Instant::now();
    bed.vault.tend(|| begun.elapsed() < SLICE).await.unwrap();
    begun.elapsed()
}

/// The rotation's keys, and whether it is finished.
async fn progress(bed: &Bed, who: &Operator, reason: &Reason) -> (u64, bool) {
    let tenant = bed.vault.get_tenant(&call(who, reason), &acme()).await.unwrap();
    tenant.rotation.map_or((0, false), |rotation| (rotation.data_keys, rotation.finished.is_some()))
}

/// Asks, approves and waits until it is carried out.
async fn shred(bed: &Bed, subject: &Subject) -> Duration {
    let (alice, bob, reason) = (bed.operator("alice"), bed.operator("bob"), Reason::parse("to be measured").unwrap());
    let asked = bed.vault.shred_subject(&call(&alice, &reason), &acme(), subject).await.unwrap();
    let seen = Seen { request_sha256: asked.request_sha256, subject: Some(subject) };
    let begun = Instant::now();
    let mut approval = bed.vault.approve(&call(&bob, &reason), (&acme(), asked.id), seen).await.unwrap();
    while approval.state != ApprovalState::Executed {
        let steps = Cell::new(0);
        let some = || steps.replace(steps.get() + 1) < 64;
        bed.vault.tend(some).await.unwrap();
        approval = bed.vault.get_approval(&call(&bob, &reason), &acme(), asked.id).await.unwrap();
    }
    begun.elapsed()
}

pub(crate) fn run() {
    println!("\n## rotation of a tenant key above {KEYS} data keys\n");
    let dir = super::store_of(Many::Subjects, KEYS);
    let files = super::scratch();
    std::fs::copy(dir.join("vault.redb"), files.path().join("vault.redb")).unwrap();
    let bed = Bed::open(files.path(), files.path(), CacheSettings::default(), &[acme(), initech()]);
    bed.make_tenant(&initech());
    let (who, alice, reason) = (Arc::new(bed.workload(0)), bed.operator("alice"), Reason::parse("measured").unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let rss = super::process_bytes("VmRSS");
    println!("| phase | calls of | calls | p50 ms | p99 ms | max ms |\n|---|---|---:|---:|---:|---:|");
    let (keys, took) = runtime.block_on(async {
        let (mut idle, mut rotation) = (<[Latencies; 2]>::default(), <[Latencies; 2]>::default());
        let mut took = Duration::ZERO;
        begin(&bed, &alice, &reason).await;
        let before = progress(&bed, &alice, &reason).await.0;
        while !progress(&bed, &alice, &reason).await.1 {
            add(&mut idle, phase(&bed, &who, tokio::time::sleep(SLICE)).await.0);
            let (seen, time) = phase(&bed, &who, go_on(&bed)).await;
            add(&mut rotation, seen);
            took += time;
        }
        line("idle", &mut idle);
        line("rotation", &mut rotation);
        (progress(&bed, &alice, &reason).await.0 - before, took)
    });
    println!("\n{keys} data keys in {took:.1?} of rotating: {:.0} a second;", keys as f64 / took.as_secs_f64());
    let mib = |bytes: u64| bytes >> 20;
    println!("RSS before {} MiB, at most {} MiB", mib(rss), mib(super::process_bytes("VmHWM")));

    println!("\n## shredding one subject of {KEYS}, from approval to receipt\n");
    for (what, number) in [("its keys are listed in its row", 1), ("from before there were such lists", 0)] {
        let took = runtime.block_on(shred(&bed, &fill::subject_of(fill::key_id(number))));
        println!("- {what}: {took:.2?}");
    }
}
