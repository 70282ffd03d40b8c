//! Whatever the disk forgets in a crash, the log opens, every acknowledged entry is in it unchanged, and it extends
//! every checkpoint that was published. And with any kind of sync left out the same test finds the loss.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use futures_util::future::join_all;
use pollster::block_on;
use simfs::{Fault, Rng, SimFs, SyncCall, SyncKind};
use vault_core::Error;
use vault_core::audit::{
    Checkpoint, Health, Log, LogSigner, LogVerifier, Options, Receipt, Recovery, SystemEvent, VerifyOptions,
    has_signed_last, verify,
};
use vault_core::fs::{Fs, OsFs};
use vault_core::secret::{LockPolicy, set_lock_policy};
use vault_core::time::SystemClock;

#[path = "common/simfs.rs"]
mod simfs;

const DIR: &str = "/data/audit";
const ROUNDS: usize = 2;
const APPENDS: u64 = 4;
/// Segment sizes: all in one; a group or two in each.
const WHOLE: u64 = u64::MAX;
const CUT: u64 = 500;

static KEY: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().unwrap());

fn signer() -> LogSigner {
    static MADE: LazyLock<()> = LazyLock::new(|| {
        set_lock_policy(LockPolicy::Allow);
        LogSigner::create(&OsFs, &KEY.path().join("key"), "vault.example/audit/0").unwrap();
    });
    LazyLock::force(&MADE);
    LogSigner::load(&OsFs, &KEY.path().join("key"), "vault.example/audit/0").unwrap()
}

fn verifier() -> LogVerifier {
    signer().verifier().clone()
}

fn open(fs: &SimFs) -> Result<Log, Error> {
    open_recovering(fs).map(|(log, _)| log)
}

fn open_recovering(fs: &SimFs) -> Result<(Log, Recovery), Error> {
    open_sized(fs, WHOLE)
}

fn open_sized(fs: &SimFs, segment_size: u64) -> Result<(Log, Recovery), Error> {
    let archive_retry = Duration::from_millis(1);
    let options = Options { checkpoint_every: Duration::ZERO, segment_size, archive_retry, ..Options::default() };
    let fs: Arc<dyn Fs> = Arc::new(fs.clone());
    Log::open_with(fs, Path::new(DIR), signer(), Arc::new(SystemClock), options)
}

fn append(log: &Log, count: u64) -> Result<Receipt, Error> {
    block_on(log.system(SystemEvent::Refusals { reason: "no certificate", second: 1, count }))
}

/// Opens, appends, and stops by closing or by dropping, until the disk dies. Answers what was acknowledged.
fn run(fs: &SimFs, size: u64) -> Vec<Receipt> {
    let mut acknowledged = Vec::new();
    for round in 0..ROUNDS {
        let Ok((log, _)) = open_sized(fs, size) else { break };
        for n in 0..APPENDS {
            match append(&log, n) {
                Ok(receipt) => acknowledged.push(receipt),
                Err(_) => return acknowledged,
            }
        }
        archived(&log);
        if round == 0 {
            drop(log);
        } else if log.close().is_err() {
            break;
        }
    }
    acknowledged
}

/// Waits until what was sealed is archived, or cannot be.
fn archived(log: &Log) {
    loop {
        let segments = log.segments();
        if segments.archived == segments.open || segments.behind.is_some() || log.health() != Health::Good {
            return;
        }
        std::thread::yield_now();
    }
}

/// What the process showed to the world.
fn published(fs: &SimFs) -> Vec<Checkpoint> {
    let note = fs.contents(&Path::new(DIR).join("checkpoint"));
    let note = note.and_then(|bytes| String::from_utf8(bytes).ok());
    note.and_then(|note| Checkpoint::verify(&note, &verifier()).ok()).into_iter().collect()
}

/// What is wrong with the log that a crash left.
fn verdict(fs: &SimFs, receipts: &[Receipt], outside: &[Checkpoint]) -> Result<(), String> {
    verdict_sized(fs, WHOLE, receipts, outside)
}

fn verdict_sized(fs: &SimFs, size: u64, receipts: &[Receipt], outside: &[Checkpoint]) -> Result<(), String> {
    let (log, _) = open_sized(fs, size).map_err(|error| format!("does not open: {error}"))?;
    append(&log, 9).map_err(|error| format!("does not go on: {error}"))?;
    archived(&log);
    log.close().map_err(|error| format!("does not close: {error}"))?;
    let options = VerifyOptions { outside: outside.to_vec(), receipts: receipts.to_vec(), ..VerifyOptions::default() };
    let report = verify(fs, Path::new(DIR), &verifier(), &options).map_err(|error| error.to_string())?;
    if report.is_sound() { Ok(()) } else { Err(report.to_string()) }
}

fn hunt(stride: usize, seeds: u64, suppress: Option<fn(&SyncCall<'_>) -> bool>) -> (Vec<String>, usize) {
    hunt_sized(WHOLE, stride, seeds, suppress)
}

fn hunt_sized(
    size: u64,
    stride: usize,
    seeds: u64,
    suppress: Option<fn(&SyncCall<'_>) -> bool>,
) -> (Vec<String>, usize) {
    let fresh = || {
        let fs = SimFs::new();
        if let Some(rule) = suppress {
            fs.suppress_sync(rule);
        }
        fs
    };
    let whole = fresh();
    assert_eq!(run(&whole, size).len() as u64, ROUNDS as u64 * APPENDS);
    assert_eq!(whole.suppressed() > 0, suppress.is_some());
    let archived = Path::new(DIR).join("archive/entries.000001.log.gz");
    assert_eq!(whole.contents(&archived).is_some(), size == CUT);
    let mut losses = Vec::new();
    let mut crashes = 0;
    for op in (1..=whole.ops()).rev().step_by(stride) {
        let fs = fresh();
        fs.crash_at(op);
        let receipts = run(&fs, size);
        let outside = published(&fs);
        for seed in 0..seeds {
            crashes += 1;
            let left = fs.crash(Rng::new(op * 1000 + seed).next());
            if let Err(what) = verdict_sized(&left, size, &receipts, &outside) {
                losses.push(format!("operation {op}, seed {seed}: {what}"));
            }
        }
        if !losses.is_empty() {
            break;
        }
    }
    (losses, crashes)
}

#[test]
fn every_acknowledged_entry_survives_every_crash() {
    let (losses, crashes) = hunt(1, 12, None);
    assert!(losses.is_empty(), "{losses:#?}");
    assert!(crashes > 500, "{crashes}");
}

/// The same with segments of a group or two each, sealed, archived and removed as fast as they come.
#[test]
fn nothing_is_lost_by_a_crash_while_segments_are_sealed_and_archived() {
    let (losses, crashes) = hunt_sized(CUT, 1, 4, None);
    assert!(losses.is_empty(), "{losses:#?}");
    assert!(crashes > 500, "{crashes}");
}

#[test]
fn without_the_syncs_of_archives_there_is_loss() {
    let archive = |call: &SyncCall<'_>| call.path.to_string_lossy().ends_with(".gz.new");
    assert!(!hunt_sized(CUT, 1, 6, Some(archive)).0.is_empty());
}

#[test]
fn without_the_sync_of_a_new_segment_there_is_loss() {
    assert!(!hunt_sized(CUT, 1, 6, Some(|call| on(call, "entries.log.next"))).0.is_empty());
}

fn on(call: &SyncCall<'_>, name: &str) -> bool {
    call.kind == SyncKind::Data && call.path == Path::new(DIR).join(name)
}

#[test]
fn without_the_syncs_of_frames_there_is_loss() {
    assert!(!hunt(1, 4, Some(|call| on(call, "entries.log"))).0.is_empty());
}

#[test]
fn without_the_sync_of_the_new_log_there_is_loss() {
    assert!(!hunt(1, 4, Some(|call| on(call, "entries.log.new"))).0.is_empty());
}

#[test]
fn without_the_syncs_of_checkpoints_there_is_loss() {
    assert!(!hunt(1, 4, Some(|call| on(call, "checkpoints"))).0.is_empty());
}

#[test]
fn without_the_sync_of_the_first_checkpoint_there_is_loss() {
    assert!(!hunt(1, 4, Some(|call| on(call, "checkpoints.new"))).0.is_empty());
}

#[test]
fn without_the_sync_of_the_published_checkpoint_there_is_loss() {
    assert!(!hunt(1, 8, Some(|call| on(call, "checkpoint.new"))).0.is_empty());
}

#[test]
fn without_the_sync_of_the_verifier_key_there_is_loss() {
    assert!(!hunt(1, 8, Some(|call| on(call, "log.pub.new"))).0.is_empty());
}

#[test]
fn without_directory_syncs_there_is_loss() {
    assert!(!hunt(1, 4, Some(|call| call.kind == SyncKind::Dir)).0.is_empty());
}

/// After a failed sync the process still reads what the disk has not got. The log must not acknowledge it, and the
/// next opening must make durable what it finds before it builds on it.
#[test]
fn a_failed_sync_acknowledges_nothing_and_the_next_opening_writes_again() {
    let mut failed = 0;
    for seed in 0..40 {
        let fs = SimFs::new();
        let log = open(&fs).unwrap();
        let mut receipts = vec![append(&log, 1).unwrap()];
        fs.fail_after(seed % 4, Fault::SyncError { seed });
        // The fault hits the sync of a frame, a checkpoint or a tile, as the threads happen to run. The first two fail
        // the log. A tile, which is derived, does not, so the number of appends is bounded.
        for _ in 0..32 {
            match append(&log, 2) {
                Ok(receipt) => receipts.push(receipt),
                Err(_) => {
                    failed += 1;
                    break;
                }
            }
        }
        drop(log);
        fs.heal();
        let log = open(&fs).unwrap();
        receipts.push(append(&log, 3).unwrap());
        log.close().unwrap();
        let outside = published(&fs);
        verdict(&fs.crash(seed), &receipts, &outside).unwrap();
    }
    assert!(failed > 0, "no fault hit a frame or a checkpoint");
}

/// Crashes while a crash is being repaired. What the first one left of a frame or a checkpoint is cut; were the cut not
/// durable before something is written in its place, a second crash could leave a mixture of both.
#[test]
fn recovery_survives_crashes_of_its_own() {
    // Many entries at once, so that frames are longer than the one that recovery writes.
    let together = |fs: &SimFs| {
        let mut acknowledged = Vec::new();
        let Ok(log) = open(fs) else { return acknowledged };
        for _ in 0..2 {
            let events =
                (0..24).map(|n| log.system(SystemEvent::Refusals { reason: "no certificate", second: 1, count: n }));
            acknowledged.extend(block_on(join_all(events)).into_iter().flatten());
        }
        acknowledged
    };
    let name = |name: &str| Path::new(DIR).join(name);
    // A crash that left a part of a frame, or of a checkpoint: those end in an empty line.
    let torn = |left: &SimFs| {
        let cut = open_recovering(&left.kill()).is_ok_and(|(_, recovery)| recovery.cut.is_some());
        cut || left.contents(&name("checkpoints")).is_some_and(|notes| !notes.ends_with(b"\n\n"))
    };
    let whole = SimFs::new();
    assert_eq!(together(&whole).len(), 48);
    let mut repaired = 0;
    for op in 1..=whole.ops() {
        let fs = SimFs::new();
        fs.crash_at(op);
        let receipts = together(&fs);
        let outside = published(&fs);
        for seed in (0..40).map(|seed| op * 100 + seed).filter(|seed| torn(&fs.crash(*seed))).take(3) {
            repaired += 1;
            for dies_at in 1..10 {
                let repairing = fs.crash(seed);
                repairing.crash_at(dies_at);
                drop(open(&repairing));
                let outside: Vec<_> = outside.iter().copied().chain(published(&repairing)).collect();
                for again in 0..12 {
                    verdict(&repairing.crash(seed * 1000 + dies_at * 20 + again), &receipts, &outside)
                        .unwrap_or_else(|what| panic!("operation {op}, seed {seed}, died at {dies_at}: {what}"));
                }
            }
        }
    }
    assert!(repaired > 1, "{repaired}");
}

/// A checkpoint of which a crash left out the middle is cut and written anew. Were the cut not durable first, a crash
/// could leave a mixture of the old one and the new, which is no incomplete checkpoint but a wrong one.
#[test]
fn a_torn_checkpoint_never_mixes_with_the_next() {
    let name = |name: &str| Path::new(DIR).join(name);
    let fs = SimFs::new();
    let log = open(&fs).unwrap();
    let receipts = [append(&log, 1).unwrap()];
    log.close().unwrap();
    let notes = String::from_utf8(fs.contents(&name("checkpoints")).unwrap()).unwrap();
    // A note has one empty line in it, and one behind it.
    let ends: Vec<usize> = notes.match_indices("\n\n").map(|(at, _)| at + 2).collect();
    let last = ends[ends.len() - 3];
    let mut torn = notes.clone().into_bytes();
    let middle = last + (torn.len() - last) / 2;
    torn[middle..middle + 24].fill(0);
    fs.put(&name("checkpoints"), torn);
    fs.put(&name("checkpoint"), notes.as_bytes()[ends[ends.len() - 5]..last - 1].to_vec());
    let outside = published(&fs);
    assert_eq!(outside.len(), 1, "the one before");
    verdict(&fs.kill(), &receipts, &outside).unwrap();
    for dies_at in 1..12 {
        for seed in 0..60 {
            let repairing = fs.kill();
            repairing.crash_at(dies_at);
            drop(open(&repairing));
            verdict(&repairing.crash(dies_at * 1000 + seed), &receipts, &outside)
                .unwrap_or_else(|what| panic!("died at {dies_at}, seed {seed}: {what}"));
        }
    }
}

#[test]
fn a_full_disk_and_a_write_error_lose_nothing() {
    for fault in [Fault::NoSpace, Fault::WriteError] {
        for after in 0..6 {
            let fs = SimFs::new();
            let log = open(&fs).unwrap();
            let mut receipts = vec![append(&log, 1).unwrap()];
            fs.fail_after(after, fault);
            while let Ok(receipt) = append(&log, 2) {
                receipts.push(receipt);
            }
            assert!(append(&log, 2).is_err());
            drop(log);
            fs.heal();
            verdict(&fs.kill(), &receipts, &published(&fs)).unwrap();
            verdict(&fs.crash(after), &receipts, &published(&fs)).unwrap();
        }
    }
}

/// Whatever the disk forgets while the log is handed over to another key, exactly one of the two goes on with it, and it
/// is the one that a gateway takes that finds both.
#[test]
fn a_rotation_that_crashes_leaves_the_old_key_in_force_or_the_new_one() {
    let next = || LogSigner::load_or_create(&OsFs, &KEY.path().join("next"), "vault.example/audit/0").unwrap();
    let open_as = |fs: &SimFs, signer: LogSigner| {
        let fs: Arc<dyn Fs> = Arc::new(fs.clone());
        let options = Options { checkpoint_every: Duration::ZERO, ..Options::default() };
        Log::open_with(fs, Path::new(DIR), signer, Arc::new(SystemClock), options).map(|(log, _)| log)
    };
    let base = SimFs::new();
    let log = open(&base).unwrap();
    let receipts = [append(&log, 1).unwrap()];
    log.close().unwrap();
    let whole = base.kill();
    open_as(&whole, signer()).unwrap().hand_over(next()).unwrap();
    let mut in_force = [0, 0];
    for op in 1..=whole.ops() + 1 {
        let fs = base.kill();
        fs.crash_at(op);
        let done = open_as(&fs, signer()).is_ok_and(|log| log.hand_over(next()).is_ok());
        for seed in 0..6 {
            let left = fs.crash(op * 100 + seed);
            let says = has_signed_last(&left, Path::new(DIR), next().verifier()).unwrap();
            let [old, new] = [signer(), next()].map(|key| open_as(&left.kill(), key).is_ok());
            assert!(old != new && new == says, "operation {op}, seed {seed}: old {old}, new {new}, says {says}");
            assert!(new || !done, "operation {op}, seed {seed}: it was told that it was done");
            in_force[usize::from(new)] += 1;
            let log = open_as(&left, if new { next() } else { signer() }).unwrap();
            append(&log, 2).unwrap();
            log.close().unwrap();
            let options = VerifyOptions { receipts: receipts.to_vec(), ..VerifyOptions::default() };
            let report = verify(&left, Path::new(DIR), &verifier(), &options).unwrap();
            assert!(report.is_sound(), "operation {op}, seed {seed}: {report}");
        }
    }
    assert!(in_force.iter().all(|times| *times > 10), "{in_force:?}");
}
