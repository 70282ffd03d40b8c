//! Whatever the disk forgets in a crash, each answered call's entry is in the log and its line in the file that is a
//! mandatory sink; and with the sink's sync left out the same test finds the loss.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pollster::block_on;
use simfs::{Fault, Rng, SimFs, SyncCall, SyncKind};

use super::test_support::{Place, decision, permit};
use super::*;
use crate::error::Error;
use crate::fs::Fs;
use crate::policy::Decrypt;
use crate::time::SystemClock;

#[path = "../../tests/common/simfs.rs"]
mod simfs;

const DIR: &str = "/data/audit";
const FILE: &str = "/data/siem/audit.jsonl";
const CALLS: usize = 6;

fn line(entry: &Delivered) -> String {
    // Longer than a sector, so that a line can be torn.
    format!("{{\"index\":{},\"pad\":\"{}\"}}", entry.entry.index, "x".repeat(700))
}

fn open(fs: &SimFs, place: &Place) -> Result<Log, Error> {
    let fs: Arc<dyn Fs> = Arc::new(fs.clone());
    let (log, _) = Log::open(Arc::clone(&fs), Path::new(DIR), place.signer(), Arc::new(SystemClock))?;
    fs.create_dir_durable(Path::new("/data/siem")).map_err(|_| Error::NotFound("directory"))?;
    let sink = FileSink::new(Arc::clone(&fs), FILE.into(), Box::new(line));
    let settings = SinkSettings {
        name: "siem".into(),
        mandatory: true,
        deadline: Duration::from_millis(1500),
        queue: 100,
        history: true,
    };
    log.attach(&fs, vec![(settings, Box::new(sink))])?;
    Ok(log)
}

/// Whether calls are answered now: not if the disk has died meanwhile.
fn serves(fs: &SimFs, log: &Log) -> bool {
    let begun = Instant::now();
    while log.health() != Health::Good {
        if fs.list(Path::new("/data")).is_err() || matches!(log.health(), Health::Failed(_)) {
            return false;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", log.sinks());
        std::thread::sleep(Duration::from_millis(1));
    }
    true
}

/// Calls until the disk dies. Answers what was answered.
fn run(fs: &SimFs, place: &Place) -> Vec<Receipt> {
    let mut receipts = Vec::new();
    let Ok(log) = open(fs, place) else { return receipts };
    for _ in 0..CALLS {
        if !serves(fs, &log) {
            break;
        }
        match block_on(log.record::<Decrypt>(permit(decision("acme", 1)), None, Pseudonyms::default())) {
            Ok(recorded) => receipts.push(recorded.complete()),
            Err(_) => break,
        }
    }
    receipts
}

/// The indexes in the file. Each line that is not the last is whole.
fn indexes(fs: &SimFs) -> Vec<u64> {
    let text = String::from_utf8(fs.contents(Path::new(FILE)).unwrap_or_default()).unwrap();
    assert!(text.is_empty() || text.ends_with("x\"}\n"));
    text.lines()
        .map(|line| line.strip_prefix("{\"index\":").unwrap().split(',').next().unwrap().parse().unwrap())
        .collect()
}

/// What is wrong with what a crash left.
fn verdict(fs: &SimFs, place: &Place, receipts: &[Receipt]) -> Result<(), String> {
    // As it was found, before anything is delivered again.
    let found = fs.contents(Path::new(FILE)).unwrap_or_default();
    let has = |index: u64| {
        let line = format!("{{\"index\":{index},\"pad\":\"{}\"}}\n", "x".repeat(700));
        found.windows(line.len()).any(|window| window == line.as_bytes())
    };
    if let Some(receipt) = receipts.iter().find(|receipt| !has(receipt.index)) {
        return Err(format!("entry {} was answered and is not in the file", receipt.index));
    }
    let log = open(fs, place).map_err(|error| format!("does not open: {error}"))?;
    if !serves(fs, &log) {
        return Err(format!("does not serve: {:?}", log.sinks()));
    }
    let end = log.head().size;
    log.close().map_err(|error| format!("does not close: {error}"))?;
    let options = VerifyOptions { receipts: receipts.to_vec(), ..VerifyOptions::default() };
    let report = verify(fs, Path::new(DIR), &place.verifier(), &options).map_err(|error| error.to_string())?;
    if !report.is_sound() {
        return Err(report.to_string());
    }
    let mut lines = indexes(fs);
    lines.sort_unstable();
    lines.dedup();
    let missing = (0..end).find(|index| lines.binary_search(index).is_err());
    missing.map_or(Ok(()), |index| Err(format!("entry {index} never came to the file")))
}

fn hunt(stride: usize, seeds: u64, suppress: Option<fn(&SyncCall<'_>) -> bool>) -> (Vec<String>, usize) {
    let place = Place::new();
    let fresh = || {
        let fs = SimFs::new();
        if let Some(rule) = suppress {
            fs.suppress_sync(rule);
        }
        fs
    };
    let whole = fresh();
    assert_eq!(run(&whole, &place).len(), CALLS);
    let (mut losses, mut crashes) = (Vec::new(), 0);
    for op in (1..=whole.ops()).rev().step_by(stride) {
        let fs = fresh();
        fs.crash_at(op);
        let receipts = run(&fs, &place);
        for seed in 0..seeds {
            crashes += 1;
            if let Err(what) = verdict(&fs.crash(Rng::new(op * 1000 + seed).next()), &place, &receipts) {
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
fn every_answered_entry_is_in_log_and_file_after_every_crash() {
    let (losses, crashes) = hunt(1, 4, None);
    assert!(losses.is_empty(), "{losses:#?}");
    assert!(crashes > 200, "{crashes}");
}

#[test]
fn without_the_syncs_of_the_file_there_is_loss() {
    let of_file = |call: &SyncCall<'_>| call.kind == SyncKind::Data && call.path == Path::new(FILE);
    assert!(!hunt(2, 4, Some(of_file)).0.is_empty());
}

#[test]
fn after_a_sync_that_failed_what_is_confirmed_is_on_the_disk() {
    let place = Place::new();
    for nth in 0..12 {
        let fs = SimFs::new();
        let log = open(&fs, &place).unwrap();
        assert!(serves(&fs, &log));
        fs.fail_after(nth, Fault::SyncError { seed: nth });
        let mut receipts = Vec::new();
        for _ in 0..CALLS {
            if !serves(&fs, &log) {
                break;
            }
            let called = block_on(log.record::<Decrypt>(permit(decision("acme", 1)), None, Pseudonyms::default()));
            receipts.extend(called.map(Recorded::complete));
        }
        let crashed = fs.crash(nth);
        drop(log);
        crashed.heal();
        assert_eq!(verdict(&crashed, &place, &receipts), Ok(()), "sync {nth}");
    }
}
