//! Whatever the disk forgets in a crash, an acknowledged commit is there, one that was not is there as a whole or not
//! at all, and the store opens. And with any kind of sync left out the same tests find the loss, so each is needed and
//! the tests see it.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use pollster::block_on;
use simfs::{Fault, Rng, SimFs, SyncCall, SyncKind};
use vault_core::Error;
use vault_core::error::Dependency;
use vault_core::fs::Fs;
use vault_core::store::{EmbeddedStore, Expect, Row, Store, Table, Write};

#[path = "common/simfs.rs"]
mod simfs;

const PATH: &str = "/data/rows";
const COMMITS: usize = 10;

type Rows = BTreeMap<(Table, Vec<u8>), Row>;

fn open(fs: &SimFs) -> Result<EmbeddedStore, Error> {
    EmbeddedStore::open(Arc::new(fs.clone()), Path::new(PATH))
}

fn commit(store: &EmbeddedStore, writes: Vec<Write>) -> Result<(), Error> {
    block_on(store.commit(writes))
}

fn rows(store: &EmbeddedStore) -> Result<Rows, Error> {
    let mut all = Rows::new();
    for table in Table::ALL {
        for scanned in block_on(store.scan(table, b"", None, usize::MAX))? {
            all.insert((table, scanned.key), scanned.row);
        }
    }
    Ok(all)
}

/// The batches of the workload, each with the rows as it leaves them; before them, the empty store.
fn workload() -> Vec<(Vec<Write>, Rows)> {
    let mut rng = Rng::new(7);
    let mut states = vec![(Vec::new(), Rows::new())];
    for n in 0..COMMITS {
        let mut after = states[n].1.clone();
        let mut writes = Vec::new();
        for key in [b"counter".to_vec(), vec![n as u8], vec![rng.below(n + 1) as u8], vec![b'x', n as u8]] {
            let table = Table::ALL[rng.below(2)];
            if writes.iter().any(|write: &Write| write.key == key) {
                continue;
            }
            let value = vec![n as u8 + 1; rng.below(3000)];
            let row = after.entry((table, key.clone())).or_insert(Row { version: 0, value: Vec::new() });
            let expect = if row.version == 0 { Expect::Absent } else { Expect::Version(row.version) };
            *row = Row { version: row.version + 1, value: value.clone() };
            writes.push(Write { table, key, expect, value, revokes: false });
        }
        states.push((writes, after));
    }
    states
}

/// Runs the workload, with a restart in the middle, until the disk dies. Answers how many commits were acknowledged.
fn run(fs: &SimFs, work: &[(Vec<Write>, Rows)]) -> usize {
    let mut acknowledged = 0;
    for half in [&work[1..=COMMITS / 2], &work[COMMITS / 2 + 1..]] {
        let Ok(store) = open(fs) else { return acknowledged };
        for (writes, _) in half {
            if commit(&store, writes.clone()).is_err() {
                return acknowledged;
            }
            acknowledged += 1;
        }
    }
    acknowledged
}

/// How many commits the store on this disk holds, once another was added (but not past the last), or what is wrong with
/// it: it must hold the first `acknowledged` and may hold one more.
fn verdict(fs: &SimFs, work: &[(Vec<Write>, Rows)], acknowledged: usize) -> Result<usize, String> {
    let store = open(fs).map_err(|error| format!("does not open: {error}"))?;
    let found = rows(&store).map_err(|error| format!("does not read: {error}"))?;
    let at = (acknowledged..=acknowledged + 1).find(|n| work.get(*n).is_some_and(|(_, rows)| *rows == found));
    let Some(at) = at else {
        return Err(match work.iter().position(|(_, rows)| *rows == found) {
            Some(n) => format!("{acknowledged} commits were acknowledged, {n} are there"),
            None => "rows of a commit in part".into(),
        });
    };
    // And it goes on from there.
    if let Some((writes, rows_after)) = work.get(at + 1) {
        commit(&store, writes.clone()).map_err(|error| format!("does not go on: {error}"))?;
        drop(store);
        let store = open(fs).map_err(|error| format!("does not open again: {error}"))?;
        if rows(&store).as_ref() != Ok(rows_after) {
            return Err("lost the first commit after the crash".into());
        }
        return Ok(at + 1);
    }
    Ok(at)
}

/// Crashes the workload at every operation, a few seeds each. Answers what went wrong.
fn hunt(stride: usize, seeds: u64, suppress: Option<fn(&SyncCall<'_>) -> bool>, enough: usize) -> (Vec<String>, usize) {
    let work = workload();
    let fresh = || {
        let fs = SimFs::new();
        if let Some(rule) = suppress {
            fs.suppress_sync(rule);
        }
        fs
    };
    let whole = fresh();
    assert_eq!(run(&whole, &work), COMMITS);
    assert_eq!(whole.suppressed() > 0, suppress.is_some());
    let mut losses = Vec::new();
    let mut crashes = 0;
    for op in (1..=whole.ops()).rev().step_by(stride) {
        let fs = fresh();
        fs.crash_at(op);
        let acknowledged = run(&fs, &work);
        for seed in 0..seeds {
            crashes += 1;
            let seed = op * 1000 + seed;
            if let Err(what) = verdict(&fs.crash(seed), &work, acknowledged) {
                losses.push(format!("operation {op}, seed {seed}: {what}"));
            }
        }
        if losses.len() >= enough {
            break;
        }
    }
    (losses, crashes)
}

#[test]
fn every_acknowledged_commit_survives_every_crash() {
    let (losses, crashes) = hunt(1, 3, None, 1);
    assert!(losses.is_empty(), "{losses:#?}");
    assert!(crashes > 300, "{crashes}");
}

fn on(call: &SyncCall<'_>, path: &str) -> bool {
    call.kind == SyncKind::Data && call.path == Path::new(path)
}

#[test]
fn without_the_syncs_of_commits_there_is_loss() {
    let (losses, _) = hunt(3, 4, Some(|call| on(call, PATH)), 1);
    assert!(!losses.is_empty());
}

#[test]
fn without_the_first_sync_of_commits_there_is_loss() {
    let (losses, _) = hunt(1, 8, Some(|call| on(call, PATH) && call.nth % 2 == 0), 1);
    assert!(!losses.is_empty());
}

#[test]
fn without_the_second_sync_of_commits_there_is_loss() {
    let (losses, _) = hunt(1, 8, Some(|call| on(call, PATH) && call.nth % 2 == 1), 1);
    assert!(!losses.is_empty());
}

#[test]
fn without_the_syncs_of_the_file_being_created_there_is_loss() {
    let (losses, _) = hunt(3, 4, Some(|call| on(call, "/data/rows.new")), 1);
    assert!(!losses.is_empty());
}

#[test]
fn without_the_directory_sync_there_is_loss() {
    let (losses, _) = hunt(3, 4, Some(|call| call.kind == SyncKind::Dir), 1);
    assert!(!losses.is_empty());
}

/// A process killed between the rename and its sync leaves a name that only the page cache knows. The next process
/// finds it and must make it durable before it acknowledges anything below it.
#[test]
fn a_name_left_unsynced_by_a_killed_process_is_synced_by_the_next() {
    let work = workload();
    let whole = SimFs::new();
    drop(open(&whole).unwrap());
    let mut killed = 0;
    for op in 1..=whole.ops() {
        for suppress in [false, true] {
            let first = SimFs::new();
            first.crash_at(op);
            let Err(_) = open(&first) else { continue };
            let second = first.kill();
            if !second.exists(Path::new(PATH)) {
                continue;
            }
            let third = second.clone();
            if suppress {
                third.suppress_sync(|call| call.kind == SyncKind::Dir);
            }
            killed += 1;
            assert_eq!(run(&third, &work), COMMITS);
            let lost = (0..16).filter(|seed| verdict(&third.crash(*seed), &work, COMMITS).is_err()).count();
            // Where the first process had got past its sync, nothing is lost either way.
            let synced = (0..16).all(|seed| first.crash(seed).exists(Path::new(PATH)));
            assert_eq!(lost > 0, suppress && !synced, "operation {op}");
        }
    }
    assert!(killed > 0);
}

/// A killed process leaves writes that only the page cache has, perhaps for ever if a sync failed. The next one syncs
/// them before it builds on them, or a crash while it opens leaves pages that point to nothing.
#[test]
fn what_a_killed_process_left_unsynced_is_synced_before_it_is_built_on() {
    let work = workload();
    let whole = SimFs::new();
    run(&whole, &work);
    let losses = |suppress: bool, stride: usize, deaths: std::ops::Range<u64>| {
        let mut losses = Vec::new();
        for op in (1..=whole.ops()).step_by(stride) {
            let first = SimFs::new();
            first.crash_at(op);
            let acknowledged = run(&first, &work);
            for dies_at in deaths.clone() {
                let second = first.kill();
                if suppress {
                    second.suppress_sync(|call| on(call, PATH) && call.nth < 2);
                }
                second.crash_at(dies_at);
                drop(open(&second));
                for seed in 0..if suppress { 4 } else { 1 } {
                    if let Err(what) = verdict(&second.crash(op * 8 + dies_at + seed), &work, acknowledged) {
                        losses.push(format!("killed at {op}, crashed at {dies_at}: {what}"));
                    }
                }
                if suppress && !losses.is_empty() {
                    return losses;
                }
            }
        }
        losses
    };
    assert_eq!(losses(false, 5, 1..10), Vec::<String>::new());
    // Directory, length and bytes; then redb writes its header and syncs, twice, before it makes a commit of what it
    // found. Without these two that commit names pages that only the cache has.
    assert!(!losses(true, 1, 8..10).is_empty());
}

/// Crashes while a crash is being repaired.
#[test]
fn recovery_survives_crashes_of_its_own() {
    let work = workload();
    let whole = SimFs::new();
    run(&whole, &work);
    let mut rng = Rng::new(11);
    for round in 0..60 {
        let mut fs = SimFs::new();
        fs.crash_at(1 + rng.next() % whole.ops());
        let acknowledged = run(&fs, &work);
        for _ in 0..3 {
            fs = fs.crash(rng.next());
            fs.crash_at(1 + rng.next() % 8);
            drop(open(&fs));
        }
        let last = fs.crash(rng.next());
        verdict(&last, &work, acknowledged).unwrap_or_else(|what| panic!("round {round}: {what}"));
    }
}

/// A failing disk: nothing is acknowledged after it fails, the store refuses to go on, and a reopening finds what was
/// acknowledged.
#[test]
fn faults_acknowledge_nothing_and_close_the_store() {
    let work = workload();
    let faults = [Fault::NoSpace, Fault::WriteError, Fault::SyncError { seed: 1 }, Fault::SyncError { seed: 2 }];
    for fault in faults {
        let mut failed = 0;
        for after in 0..40 {
            let fs = SimFs::new();
            let store = open(&fs).unwrap();
            fs.fail_after(after, fault);
            let mut acknowledged = 0;
            for (writes, _) in &work[1..] {
                match commit(&store, writes.clone()) {
                    Ok(()) => acknowledged += 1,
                    Err(error) => {
                        let unavailable =
                            |error: &Error| matches!(error, Error::Unavailable { dependency: Dependency::Store, .. });
                        assert!(unavailable(&error), "{error:?}");
                        failed += 1;
                        // The disk is well again, and the store does not believe it.
                        fs.heal();
                        let syncs = fs.syncs(SyncKind::Data);
                        assert!(unavailable(&commit(&store, writes.clone()).unwrap_err()));
                        assert!(unavailable(&rows(&store).unwrap_err()));
                        assert_eq!(fs.syncs(SyncKind::Data), syncs);
                        break;
                    }
                }
            }
            fs.heal();
            // Restart after a loss of power, and with the page cache as it is.
            let check = |fs: &SimFs, acknowledged| {
                verdict(fs, &work, acknowledged).unwrap_or_else(|what| panic!("{fault:?} after {after}: {what}"))
            };
            check(&fs.crash(after), acknowledged);
            drop(store);
            // The cache shows what a failed sync lost. Whoever builds on that must write it again first.
            let killed = fs.kill();
            let now = check(&killed, acknowledged);
            for seed in 0..3 {
                check(&killed.crash(seed), now);
            }
        }
        assert!(failed > 5, "{fault:?}: {failed}");
    }
}

#[test]
fn a_disk_too_full_to_create_a_store_says_so_and_heals() {
    let mut failed = 0;
    for after in 0..30 {
        let fs = SimFs::new();
        fs.fail_after(after, Fault::NoSpace);
        match open(&fs) {
            Ok(_) => continue,
            Err(Error::Unavailable { dependency: Dependency::Store, .. }) => failed += 1,
            Err(other) => panic!("{other:?}"),
        }
        fs.heal();
        assert_eq!(rows(&open(&fs).unwrap()), Ok(Rows::new()));
    }
    assert!(failed > 3);
}
