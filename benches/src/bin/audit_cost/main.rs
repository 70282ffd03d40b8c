//! What a durable audit log costs: single Encrypt calls of 256 bytes by 1 to 256 callers at once, with the log synced
//! before each answer (as it is), with the log written but never synced (which is not offered), and without any log: a
//! decision and a sealing, which the library cannot be made to do for a caller.
//!
//! `audit_cost [SECONDS]`: for each line, shared by its rounds; 6 if not given. The three take turns within each line,
//! on one disk, so that their ratios mean something on a machine with neighbours.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a tool for the terminal, which must stop when it cannot work"
)]

mod disk;

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use vault_benches::bed::{Bed, DATASET, target};
use vault_benches::{context, data_key};
use vault_core::envelope::{Context, DataKey};
use vault_core::id::TenantId;
use vault_core::policy::{Authorizer, DataRequest, DatasetFacts, Encrypt, Facts};
use vault_core::principal::Workload;
use vault_core::time::{Clock as _, SystemClock};
use vault_core::vault::{EncryptRequest, Target, new_request_id};

use disk::{Counts, Disk};

/// How many wait for an answer at once.
const CALLERS: [usize; 4] = [1, 16, 64, 256];
/// Turns of each kind within a line.
const ROUNDS: u32 = 6;
/// Bytes of plaintext.
const SIZE: usize = 256;

/// A vault on a disk of its own kind.
struct Logged {
    bed: Bed,
    counts: Arc<Counts>,
    who: Workload,
    target: Target,
    context: Context,
}

impl Logged {
    fn new(dir: &Path, durable: bool) -> Self {
        let counts = Arc::new(Counts::default());
        let tenant = TenantId::parse("acme").unwrap();
        let fs = Arc::new(Disk { durable, counts: Arc::clone(&counts) });
        let bed = Bed::logging_to(fs, dir, std::slice::from_ref(&tenant));
        bed.make_tenant(&tenant);
        let who = bed.workload(0);
        Self { bed, counts, who, target: target(&tenant, None), context: context() }
    }

    async fn call(&self) {
        let target = Target { request: new_request_id().unwrap(), ..self.target.clone() };
        let request = EncryptRequest { target: &target, context: &self.context, plaintext: &[0x55; SIZE] };
        black_box(self.bed.vault.encrypt(&self.who, request).await.unwrap());
    }
}

/// The same without a log: who decides, and the key.
struct Bare {
    authorizer: Authorizer,
    who: Workload,
    facts: Facts,
    target: Target,
    key: DataKey,
    context: Context,
}

impl Bare {
    fn call(&self) {
        let Target { tenant, dataset, subject, purpose, end_user, .. } = self.target.clone();
        let request =
            DataRequest { tenant, dataset, subject, purpose, end_user, request: new_request_id().unwrap(), items: 1 };
        let now = SystemClock.now();
        let permit = self.authorizer.authorize_data::<Encrypt>(&self.who, request, Some(&self.facts), now).unwrap();
        black_box(permit.valid_until());
        black_box(self.key.seal(&self.context, &[0x55; SIZE]).unwrap());
    }
}

/// Calls, time on the clock and processor time of one kind, over all its turns.
#[derive(Clone, Copy, Default)]
struct Spent {
    calls: u64,
    wall: f64,
    cpu: f64,
    bytes: u64,
    syncs: u64,
}

impl Spent {
    fn rate(&self) -> f64 {
        self.calls as f64 / self.wall
    }

    fn cpu_each(&self) -> f64 {
        self.cpu * 1e6 / self.calls as f64
    }
}

/// Processor time of this process so far, in seconds.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/schedstat").unwrap();
    let own: f64 = stat.split(' ').next().unwrap().parse().unwrap();
    // The process's file gives the first thread only.
    let threads = std::fs::read_dir("/proc/self/task").unwrap().filter_map(|task| {
        let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<f64>().ok()
    });
    threads.sum::<f64>().max(own) / 1e9
}

/// Lets so many callers call for a while.
fn load<C, F>(runtime: &Runtime, callers: usize, time: Duration, spent: &mut Spent, call: C)
where
    C: Fn() -> F + Clone + Send + 'static,
    F: Future<Output = ()> + Send,
{
    let (over, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (begun, cpu_before) = (Instant::now(), cpu());
    let tasks: Vec<_> = (0..callers)
        .map(|_| {
            let (over, calls, call) = (Arc::clone(&over), Arc::clone(&calls), call.clone());
            runtime.spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    call().await;
                    calls.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    std::thread::sleep(time);
    over.store(true, Ordering::Relaxed);
    runtime.block_on(async {
        for task in tasks {
            task.await.unwrap();
        }
    });
    spent.wall += begun.elapsed().as_secs_f64();
    spent.cpu += cpu() - cpu_before;
    spent.calls += calls.load(Ordering::Relaxed);
}

fn with_log(runtime: &Runtime, callers: usize, time: Duration, spent: &mut Spent, logged: &Arc<Logged>) {
    let read = || (logged.counts.bytes.load(Ordering::Relaxed), logged.counts.syncs.load(Ordering::Relaxed));
    let before = read();
    let shared = Arc::clone(logged);
    load(runtime, callers, time, spent, move || {
        let logged = Arc::clone(&shared);
        async move { logged.call().await }
    });
    let after = read();
    spent.bytes += after.0 - before.0;
    spent.syncs += after.1 - before.1;
}

fn main() {
    let seconds: f64 = std::env::args().nth(1).map_or(6.0, |text| text.parse().unwrap());
    let turn = Duration::from_secs_f64(seconds / f64::from(ROUNDS * 3));
    let kept = std::env::current_exe().unwrap().parent().unwrap().join("benches");
    std::fs::create_dir_all(&kept).unwrap();
    let dir = tempfile::tempdir_in(kept).unwrap();
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let durable = Arc::new(Logged::new(&dir.path().join("durable"), true));
    let buffered = Arc::new(Logged::new(&dir.path().join("buffered"), false));
    let tenant = TenantId::parse("acme").unwrap();
    let off = Arc::new(Bare {
        authorizer: Bed::authorizer(std::slice::from_ref(&tenant)),
        who: durable.bed.workload(0),
        facts: Facts { suspended: false, dataset: Some(DatasetFacts::default()) },
        target: target(&tenant, None),
        key: data_key(),
        context: context(),
    });
    println!("Encrypt of {SIZE} bytes in dataset {DATASET}; calls a second and processor time a call\n");
    println!(
        "| callers | durable | buffered | off | durable ÷ buffered | CPU: durable | buffered | off | entries a sync | syncs a second | bytes an entry |"
    );
    println!("|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
    for callers in CALLERS {
        let mut spent = [Spent::default(); 3];
        for _ in 0..ROUNDS {
            with_log(&runtime, callers, turn, &mut spent[0], &durable);
            with_log(&runtime, callers, turn, &mut spent[1], &buffered);
            let shared = Arc::clone(&off);
            load(&runtime, callers, turn, &mut spent[2], move || {
                let off = Arc::clone(&shared);
                async move {
                    off.call();
                    // As one that waits for its entry would let others work.
                    tokio::task::yield_now().await;
                }
            });
        }
        let [durable, buffered, off] = spent;
        println!(
            "| {callers} | {:.0} | {:.0} | {:.0} | {:.2} | {:.1} µs | {:.1} µs | {:.1} µs | {:.1} | {:.0} | {:.0} |",
            durable.rate(),
            buffered.rate(),
            off.rate(),
            durable.rate() / buffered.rate(),
            durable.cpu_each(),
            buffered.cpu_each(),
            off.cpu_each(),
            durable.calls as f64 / durable.syncs as f64,
            durable.syncs as f64 / durable.wall,
            durable.bytes as f64 / durable.calls as f64,
        );
    }
}
