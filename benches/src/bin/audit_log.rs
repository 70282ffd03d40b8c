//! How fast a log of many entries is verified and opened, what an entry takes, and what archiving does to those who append
//! meanwhile. `audit_log [ENTRIES] [SEGMENT_MIB]`; without arguments 200,000 entries in segments of 16 MiB.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a tool that measures and tells"
)]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use vault_core::audit::{Log, LogSigner, Options, SegmentStatus, SystemEvent, VerifyOptions, verify};
use vault_core::fs::OsFs;
use vault_core::id::TenantId;
use vault_core::secret::{LockPolicy, set_lock_policy};
use vault_core::time::SystemClock;

/// Entries that wait at once, as those of so many callers.
const TOGETHER: u64 = 256;
/// Tenants among which they are.
const TENANTS: u64 = 100;

fn size_of(dir: &Path) -> u64 {
    let sizes = std::fs::read_dir(dir).unwrap().map(|entry| {
        let entry = entry.unwrap();
        let is_log = entry.file_name().to_string_lossy().starts_with("entries.");
        if is_log { entry.metadata().unwrap().len() } else { 0 }
    });
    sizes.sum()
}

fn main() {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<u64>().unwrap());
    let (entries, segment) = (arguments.next().unwrap_or(200_000), arguments.next().unwrap_or(16));
    set_lock_policy(LockPolicy::Allow);
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("audit");
    let key = temp.path().join("key");
    let signer = || LogSigner::load_or_create(&OsFs, &key, "vault.example/bench").unwrap();
    let options = Options { segment_size: segment << 20, ..Options::default() };
    let open = || {
        let begun = Instant::now();
        let fs = Arc::new(OsFs);
        let (log, _) = Log::open_with(fs, &dir, signer(), Arc::new(SystemClock), options.clone()).unwrap();
        (log, begun.elapsed())
    };
    let (log, _) = open();
    let tenants: Vec<TenantId> = (0..TENANTS).map(|n| TenantId::parse(&format!("tenant-{n}")).unwrap()).collect();
    let begun = Instant::now();
    let (mut slowest, mut over, mut groups) = (Duration::ZERO, 0, 0);
    for first in (0..entries).step_by(TOGETHER as usize) {
        let group = (first..entries.min(first + TOGETHER)).map(|n| {
            let tenant = &tenants[(n % TENANTS) as usize];
            log.system_of(tenant, SystemEvent::Refusals { reason: "a reason of some length", second: n, count: n })
        });
        let at = Instant::now();
        pollster::block_on(join_all(group)).into_iter().for_each(|receipt| {
            receipt.unwrap();
        });
        let took = at.elapsed();
        slowest = slowest.max(took);
        over += u32::from(took > Duration::from_millis(50));
        groups += 1;
    }
    let took = begun.elapsed();
    println!("appended {entries} entries in groups of {TOGETHER} in {took:.1?}");
    println!("slowest group {slowest:.1?}; above 50 ms: {over} of {groups}, with sealing and archiving meanwhile");
    while log.segments().archived < log.segments().open {
        std::thread::sleep(Duration::from_millis(20));
    }
    let SegmentStatus { open: segments, .. } = log.segments();
    println!("{segments} segments archived {:.1?} after the last entry", begun.elapsed() - took);
    log.close().unwrap();
    let (plain, packed) = (size_of(&dir), if segments > 0 { size_of(&dir.join("archive")) } else { 0 });
    println!("bytes: {plain} in the open segment, {packed} in {segments} archived ones");
    println!("bytes an entry, archived and open together: {:.0}", (plain + packed) as f64 / entries as f64);
    let begun = Instant::now();
    let report = verify(&OsFs, &dir, signer().verifier(), &VerifyOptions::default()).unwrap();
    let took = begun.elapsed();
    assert!(report.is_sound(), "{report}");
    println!(
        "verified {} entries in {took:.2?}: {:.0} a second",
        report.entries,
        report.entries as f64 / took.as_secs_f64()
    );
    let (log, took) = open();
    println!("opened from the state in {took:.1?}");
    log.close().unwrap();
    for file in std::fs::read_dir(&dir).unwrap().map(|file| file.unwrap()) {
        if file.file_name().to_string_lossy().starts_with("state.") {
            std::fs::remove_file(file.path()).unwrap();
        }
    }
    let (log, took) = open();
    println!("opened by reading everything in {took:.1?}: {:.0} entries a second", entries as f64 / took.as_secs_f64());
    log.close().unwrap();
}
