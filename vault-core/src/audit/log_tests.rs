use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use pollster::block_on;

use super::frame::{Reader, Step};
use super::merkle::{inclusion_proof, verify_inclusion};
use super::test_support::{ORIGIN, Place, decision, permit, refusal, with_subject};
use super::*;
use crate::error::{Dependency, Error};
use crate::fs::{Fs, Open, OsFs};
use crate::id::{KeyId, KeyVersion};
use crate::policy::{CreateTenant, Decrypt, Permit};

const HOUR: Duration = Duration::from_secs(3600);

fn entries(place: &Place) -> Vec<Entry> {
    let file = OsFs.open(&place.file("entries.log"), Open::Read).unwrap();
    let mut reader = Reader::new(file, ORIGIN).unwrap();
    let mut all = Vec::new();
    while let Step::Frame = reader.step().unwrap() {
        all.extend(reader.entries().map(|(bytes, _)| Entry::decode(bytes).unwrap()));
    }
    all
}

fn sound(place: &Place) -> Report {
    let report = verify(&OsFs, &place.dir, &place.verifier(), &VerifyOptions::default()).unwrap();
    assert!(report.is_sound(), "{report}");
    report
}

fn until(mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(20), "it never happened");
        std::thread::yield_now();
    }
}

fn is_unavailable<T: std::fmt::Debug>(result: Result<T, Error>) -> bool {
    matches!(result, Err(Error::Unavailable { dependency: Dependency::Audit, .. }))
}

#[test]
fn a_new_log_records_and_is_found_again() {
    let place = Place::new();
    let (log, recovery) = place.open();
    let nothing =
        Recovery { created: true, entries: 0, signed: 0, cut: None, anchor: None, policy: None, operators: None };
    assert_eq!(recovery, nothing);
    let key = KeyRef::new(KeyId([3; 16]), KeyVersion(2)).under(KeyVersion(1));
    let recorded =
        block_on(log.record::<Decrypt>(permit(decision("acme", 1)), Some(key), Some(Pseudonym([9; 16])).into()))
            .unwrap();
    assert_eq!(recorded.receipt().index, 1);
    assert_eq!(recorded.permit().resource().tenant.as_ref().unwrap().as_str(), "acme");
    let outcome = block_on(log.outcome(&recorded, Outcome::failed("tag"))).unwrap();
    assert_eq!(outcome.index, 2);
    drop(recorded);
    block_on(log.refused(&refusal("acme", 2), Pseudonyms::default())).unwrap();
    let control =
        block_on(log.record::<CreateTenant>(permit(decision("new", 3)), None, Pseudonyms::default())).unwrap();
    block_on(log.control(&control, "created", Some(key))).unwrap();
    block_on(log.system(SystemEvent::PolicyEpoch(8))).unwrap();
    log.close().unwrap();

    let all = entries(&place);
    let names: Vec<&str> = all
        .iter()
        .map(|entry| match &entry.body {
            Body::Intent { .. } => "intent",
            Body::Outcome { intent: 1, status: Status::Failed, .. } => "failed 1",
            Body::Refused { .. } => "refused",
            Body::Control { intent: 4, .. } => "control 4",
            Body::System { event, .. } => event,
            _ => "?",
        })
        .collect();
    assert_eq!(names, ["started", "intent", "failed 1", "refused", "intent", "control 4", "policy_epoch", "stopped"]);
    let Body::Intent { decided, key: Some(found), items: 1 } = &all[1].body else { panic!() };
    assert_eq!((decided.principal.as_str(), decided.action.as_str()), ("spiffe://prod.example/billing", "Decrypt"));
    assert_eq!((decided.pseudonym, decided.epoch, *found), (Some(Pseudonym([9; 16])), 7, key));
    assert_eq!(decided.policies.listed, ["allow-billing"]);
    let sequences: Vec<u64> = all
        .iter()
        .filter_map(|e| e.link.as_ref().filter(|l| l.tenant.as_str() == "acme").map(|l| l.sequence))
        .collect();
    assert_eq!(sequences, [1, 2, 3]);
    assert_ne!(all[1].salt, all[2].salt);
    let report = sound(&place);
    assert_eq!((report.entries, report.tenants, report.last.unwrap().size), (8, 2, 8));
    assert!(report.to_string().contains("not rolled back was not shown"), "{report}");

    let (log, recovery) = place.open();
    assert_eq!(recovery, Recovery { created: false, entries: 8, signed: 8, ..nothing });
    block_on(log.refused(&refusal("acme", 9), Pseudonyms::default())).unwrap();
    log.close().unwrap();
    assert_eq!(sound(&place).entries, 11);
    assert_eq!(entries(&place)[9].link.as_ref().unwrap().sequence, 4);
}

#[test]
fn the_files_say_who_signs_and_are_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = Place::new();
    place.open().0.close().unwrap();
    let vkey = std::fs::read_to_string(place.file("log.pub")).unwrap();
    assert_eq!(LogVerifier::parse(&vkey).unwrap(), place.verifier());
    for path in [place.file("entries.log"), place.file("checkpoints"), place.temp.path().join("signing.key")] {
        assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    // Another key may not go on with this log.
    std::fs::remove_file(place.temp.path().join("signing.key")).unwrap();
    let before = place.snapshot();
    let error = place.try_open(HOUR).unwrap_err();
    assert!(matches!(&error, Error::Corrupt { at, .. } if at.contains("log.pub")), "{error}");
    assert_eq!(place.snapshot(), before);
}

#[test]
fn dropping_without_closing_loses_nothing_acknowledged() {
    let place = Place::new();
    let (log, _) = place.open();
    for n in 0..20 {
        block_on(log.refused(&refusal("acme", n), Pseudonyms::default())).unwrap();
    }
    drop(log);
    let report = sound(&place);
    assert_eq!((report.entries, report.last.unwrap().size), (21, 1));
    let (log, recovery) = place.open();
    assert_eq!((recovery.entries, recovery.signed, recovery.cut), (21, 1, None));
    log.close().unwrap();
    assert_eq!(sound(&place).last.unwrap().size, 23);
}

#[test]
fn an_incomplete_last_frame_is_cut_and_reported() {
    let place = Place::new();
    let (log, _) = place.open();
    block_on(log.refused(&refusal("acme", 1), Pseudonyms::default())).unwrap();
    let whole = std::fs::read(place.file("entries.log")).unwrap();
    block_on(log.refused(&refusal("acme", 2), Pseudonyms::default())).unwrap();
    drop(log);
    let longer = std::fs::read(place.file("entries.log")).unwrap();
    // Every prefix of the frame, and every prefix followed by zeros where the length reached the disk before the bytes.
    for kept in (whole.len() + 1..longer.len()).step_by(23).chain([longer.len() - 1]) {
        for zeros in [false, true] {
            let mut torn = longer[..kept].to_vec();
            if zeros {
                torn.resize(longer.len(), 0);
            }
            std::fs::write(place.file("entries.log"), &torn).unwrap();
            std::fs::remove_dir_all(place.dir.join("tile")).ok();
            std::fs::remove_file(place.file("checkpoint")).ok();
            let checkpoints = std::fs::read(place.file("checkpoints")).unwrap();
            let report = sound(&place);
            assert_eq!((report.entries, report.incomplete), (2, (torn.len() - whole.len()) as u64));
            let (log, recovery) = place.try_open(HOUR).unwrap();
            let cut = Cut { position: whole.len() as u64, bytes: (torn.len() - whole.len()) as u64 };
            assert_eq!((recovery.entries, recovery.cut), (2, Some(cut)));
            drop(log);
            assert!(matches!(&entries(&place)[2].body, Body::System { event, first, second, .. }
                if event == "recovery_cut" && *first == cut.position && *second == cut.bytes));
            sound(&place);
            std::fs::write(place.file("checkpoints"), checkpoints).unwrap();
        }
    }
}

#[test]
fn a_crash_between_the_first_files_is_gone_on_with() {
    let place = Place::new();
    place.open().0.close().unwrap();
    let first = std::fs::read_to_string(place.file("checkpoints")).unwrap();
    let end = first.match_indices("\n\n").nth(1).unwrap().0 + 2;
    for path in OsFs.list(&place.dir).unwrap() {
        if path.is_dir() {
            std::fs::remove_dir_all(path).unwrap();
        } else {
            std::fs::remove_file(path).unwrap();
        }
    }
    std::fs::write(place.file("checkpoints"), &first[..end]).unwrap();
    let (log, recovery) = place.open();
    assert!(recovery.created);
    log.close().unwrap();
    // But with more than the first checkpoint, the entries are lost, and that is said.
    std::fs::remove_file(place.file("entries.log")).unwrap();
    let before = place.snapshot();
    assert!(matches!(place.try_open(HOUR), Err(Error::Corrupt { .. })));
    assert_eq!(place.snapshot(), before);
}

#[test]
fn a_torn_checkpoint_is_cut_and_signed_again() {
    let place = Place::new();
    let (log, _) = place.open();
    block_on(log.refused(&refusal("acme", 1), Pseudonyms::default())).unwrap();
    drop(log);
    let good = std::fs::read(place.file("checkpoints")).unwrap();
    std::fs::remove_file(place.file("checkpoint")).ok();
    for (kept, zeros) in [(good.len() - 1, 0), (good.len() - 30, 0), (good.len() - 30, 30), (good.len() - 99, 40)] {
        let mut torn = good[..kept].to_vec();
        torn.resize(kept + zeros, 0);
        std::fs::write(place.file("checkpoints"), torn).unwrap();
        std::fs::remove_file(place.file("checkpoint")).ok();
        let (log, recovery) = place.open();
        assert_eq!(recovery.signed, 0);
        drop(log);
        std::fs::remove_file(place.file("checkpoint")).ok();
        assert!(sound(&place).last.unwrap().size >= recovery.entries);
    }
}

#[test]
fn concurrent_appends_share_syncs() {
    let place = Place::new();
    let (log, _) = place.open();
    until(|| place.file("checkpoint").exists());
    let before = place.fs.0.syncs.load(Ordering::SeqCst);
    // The first group hangs in its sync while the others queue.
    place.fs.0.hang.store(true, Ordering::SeqCst);
    let log_ref = &log;
    let append = |n| Box::pin(async move { log_ref.refused(&refusal("acme", n), Pseudonyms::default()).await });
    let mut waiting: Vec<_> = (0..=255u8).map(append).collect();
    let mut context = Context::from_waker(Waker::noop());
    for future in &mut waiting {
        assert!(future.as_mut().poll(&mut context).is_pending());
    }
    place.fs.0.hang.store(false, Ordering::SeqCst);
    let mut indices: Vec<u64> = waiting.into_iter().map(|future| block_on(future).unwrap().index).collect();
    indices.sort_unstable();
    assert_eq!(indices, (1..=256).collect::<Vec<_>>());
    let syncs = place.fs.0.syncs.load(Ordering::SeqCst) - before;
    assert!(syncs <= 3, "{syncs} syncs for 256 entries");
    log.close().unwrap();
    sound(&place);
}

#[test]
fn a_batch_is_recorded_at_once() {
    let place = Place::new();
    let (log, _) = place.open();
    until(|| place.file("checkpoint").exists() && !place.file("checkpoint.new").exists());
    let before = place.fs.0.syncs.load(Ordering::SeqCst);
    let intent =
        |n| Intent { permit: permit(decision("acme", n)), key: None, pseudonyms: Pseudonyms::default(), items: 1 };
    let all: Vec<Recorded<Permit<Decrypt>>> = block_on(log.record_all((0..100).map(intent).collect())).unwrap();
    assert_eq!(place.fs.0.syncs.load(Ordering::SeqCst) - before, 1);
    for (n, recorded) in all.into_iter().enumerate() {
        assert_eq!(recorded.complete().index, n as u64 + 1);
    }
    log.close().unwrap();
    assert_eq!(sound(&place).entries, 102, "completed actions have no outcome entries");
}

#[test]
fn a_failed_sync_fails_the_log_for_good() {
    let place = Place::new();
    let (log, _) = place.open();
    place.fs.0.fail_sync.store(true, Ordering::SeqCst);
    assert!(is_unavailable(block_on(log.refused(&refusal("acme", 1), Pseudonyms::default()))));
    place.fs.0.fail_sync.store(false, Ordering::SeqCst);
    for _ in 0..3 {
        assert!(is_unavailable(block_on(log.refused(&refusal("acme", 2), Pseudonyms::default()))));
        assert!(is_unavailable(block_on(log.record::<Decrypt>(
            permit(decision("acme", 2)),
            None,
            Pseudonyms::default()
        ))));
    }
    assert!(matches!(log.health(), Health::Failed(_)));
    assert!(is_unavailable(log.close()));
    // The frame may be there or not; here it is, and opening takes it for what it is.
    let (log, recovery) = place.open();
    assert_eq!(recovery.entries, 2);
    block_on(log.refused(&refusal("acme", 3), Pseudonyms::default())).unwrap();
    log.close().unwrap();
    sound(&place);
}

#[test]
fn a_full_disk_fails_the_log_and_the_half_frame_is_cut() {
    let place = Place::new();
    let (log, _) = place.open();
    place.fs.0.fail_write.store(true, Ordering::SeqCst);
    assert!(is_unavailable(block_on(log.refused(&refusal("acme", 1), Pseudonyms::default()))));
    assert_eq!(log.health(), Health::Failed("the log's disk is full"));
    place.fs.0.fail_write.store(false, Ordering::SeqCst);
    drop(log);
    let (log, recovery) = place.open();
    assert_eq!(recovery.entries, 1);
    assert!(recovery.cut.is_some());
    log.close().unwrap();
    sound(&place);
}

#[test]
fn an_unlinked_or_foreign_written_file_fails_the_log() {
    for remove in [true, false] {
        let place = Place::new();
        let (log, _) = place.open();
        block_on(log.refused(&refusal("acme", 1), Pseudonyms::default())).unwrap();
        let path = place.file("entries.log");
        if remove {
            std::fs::remove_file(path).unwrap();
        } else {
            let mut bytes = std::fs::read(&path).unwrap();
            bytes.push(1);
            OsFs.open(&path, Open::ReadWrite).unwrap().write_all_at(0, &bytes).unwrap();
        }
        assert!(is_unavailable(block_on(log.refused(&refusal("acme", 2), Pseudonyms::default()))));
        assert!(matches!(log.health(), Health::Failed(_)));
    }
}

#[test]
fn a_failing_checkpoint_fails_the_log() {
    let place = Place::new();
    let (log, _) = place.try_open(Duration::ZERO).unwrap();
    std::fs::remove_file(place.file("checkpoints")).unwrap();
    // This one may still be acknowledged; no later one once the checkpoint over it could not be kept.
    drop(block_on(log.refused(&refusal("acme", 1), Pseudonyms::default())));
    until(|| matches!(log.health(), Health::Failed(_)));
    assert!(is_unavailable(block_on(log.refused(&refusal("acme", 2), Pseudonyms::default()))));
}

#[test]
fn a_hanging_disk_refuses_and_recovers() {
    let place = Place::new();
    let (log, _) = place.open();
    place.fs.0.hang.store(true, Ordering::SeqCst);
    let refused = refusal("acme", 1);
    let mut first = pin!(log.refused(&refused, Pseudonyms::default()));
    assert!(matches!(first.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Pending));
    until(|| log.health() == Health::Stalled);
    assert!(is_unavailable(block_on(log.refused(&refusal("acme", 2), Pseudonyms::default()))));
    place.fs.0.hang.store(false, Ordering::SeqCst);
    assert_eq!(block_on(first).unwrap().index, 1);
    until(|| log.health() == Health::Good);
    block_on(log.refused(&refusal("acme", 3), Pseudonyms::default())).unwrap();
}

#[test]
fn a_held_log_refuses_until_it_is_let_go_and_still_closes() {
    let place = Place::new();
    let (log, _) = place.open();
    let refused = || block_on(log.refused(&refusal("acme", 1), Pseudonyms::default()));
    refused().unwrap();
    log.hold(Some("a witness is behind"));
    assert_eq!(log.health(), Health::Held("a witness is behind"));
    let size = log.head().size;
    assert!(matches!(refused(), Err(Error::Unavailable { why: "a witness is behind", .. })));
    log.hold(None);
    assert_eq!(log.health(), Health::Good);
    refused().unwrap();
    assert_eq!(log.head().size, size + 1);
    log.hold(Some("a witness is behind"));
    log.close().unwrap();
    let (_, recovery) = place.open();
    assert_eq!(recovery.signed, size + 2, "the end was recorded and signed");
}

#[test]
fn the_queue_is_bounded() {
    let place = Place::new();
    let (log, _) = place.open();
    place.fs.0.hang.store(true, Ordering::SeqCst);
    let intent = |n: usize| Intent::<Decrypt> {
        permit: permit(decision("acme", u8::try_from(n % 256).unwrap())),
        key: None,
        pseudonyms: Pseudonyms::default(),
        items: 1,
    };
    let mut batch = pin!(log.record_all((0..8193).map(intent).collect()));
    let Poll::Ready(result) = batch.as_mut().poll(&mut Context::from_waker(Waker::noop())) else { panic!() };
    assert!(is_unavailable(result));
    place.fs.0.hang.store(false, Ordering::SeqCst);
}

#[test]
fn a_dropped_record_says_cancelled() {
    let place = Place::new();
    let (log, _) = place.open();
    // Dropped after it was recorded.
    drop(block_on(log.record::<Decrypt>(permit(decision("acme", 1)), None, Pseudonyms::default())).unwrap());
    until(|| log.head().size == 3);
    // Dropped while it waits for the disk.
    place.fs.0.hang.store(true, Ordering::SeqCst);
    let mut waiting = Box::pin(log.record::<Decrypt>(permit(decision("acme", 2)), None, Pseudonyms::default()));
    assert!(waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    drop(waiting);
    place.fs.0.hang.store(false, Ordering::SeqCst);
    until(|| log.head().size == 5);
    log.close().unwrap();
    let all = entries(&place);
    for intent in [1, 3] {
        assert!(matches!(&all[intent + 1].body, Body::Outcome { intent: named, status: Status::Cancelled, .. }
            if *named == intent as u64));
        assert_eq!(all[intent + 1].request, all[intent].request);
    }
    sound(&place);
}

#[test]
fn a_subject_needs_a_pseudonym_and_is_never_written() {
    let place = Place::new();
    let (log, _) = place.open();
    let refused =
        block_on(log.record::<Decrypt>(permit(with_subject(decision("acme", 1))), None, Pseudonyms::default()));
    assert!(matches!(refused, Err(Error::Invalid { field, .. }) if field == "pseudonym"));
    let pseudonym = Some(Pseudonym([5; 16]));
    block_on(log.record::<Decrypt>(permit(with_subject(decision("acme", 1))), None, pseudonym.into()))
        .unwrap()
        .complete();
    log.close().unwrap();
    for (path, bytes) in place.snapshot() {
        assert!(!bytes.windows(4).any(|w| w == b"ann@"), "{}", path.display());
    }
}

#[test]
fn checkpoints_follow_entries_and_proofs_come_from_tiles() {
    let place = Place::new();
    let (log, _) = place.try_open(Duration::ZERO).unwrap();
    let intent =
        |n| Intent { permit: permit(decision("acme", n)), key: None, pseudonyms: Pseudonyms::default(), items: 1 };
    let mut receipts = Vec::new();
    for _ in 0..3 {
        let all: Vec<Recorded<Permit<Decrypt>>> = block_on(log.record_all((0..=255).map(intent).collect())).unwrap();
        receipts.extend(all.into_iter().map(Recorded::complete));
        let size = log.head().size;
        until(|| {
            let note = std::fs::read_to_string(place.file("checkpoint")).unwrap_or_default();
            Checkpoint::verify(&note, &place.verifier()).is_ok_and(|checkpoint| checkpoint.size == size)
        });
        sound(&place);
    }
    log.close().unwrap();
    let report = sound(&place);
    assert!(report.checkpoints >= 5);
    let last = report.last.unwrap();
    let tiles = TileReader::new(&OsFs, &place.dir, last.size);
    for receipt in &receipts {
        let proof = inclusion_proof(&tiles, receipt.index, last.size).unwrap();
        assert!(verify_inclusion(&receipt.leaf_hash, receipt.index, last.size, &proof, &last.root));
    }
    let options = VerifyOptions { outside: vec![last], receipts, ..VerifyOptions::default() };
    let report = verify(&OsFs, &place.dir, &place.verifier(), &options).unwrap();
    assert!(report.is_sound());
    assert_eq!(report.anchored, Some(last.size));
}

#[test]
fn tiles_are_rebuilt_from_the_durable_file() {
    let place = Place::new();
    let (log, _) = place.open();
    let intent =
        |n| Intent { permit: permit(decision("acme", n)), key: None, pseudonyms: Pseudonyms::default(), items: 1 };
    let all: Vec<Recorded<Permit<Decrypt>>> = block_on(log.record_all((0..=255).map(intent).collect())).unwrap();
    for recorded in all {
        recorded.complete();
    }
    log.close().unwrap();
    let full = place.dir.join("tile/0/000");
    let good = std::fs::read(&full).unwrap();
    std::fs::write(&full, [0; 8192]).unwrap();
    std::fs::remove_file(place.dir.join("tile/entries/000")).unwrap();
    place.open().0.close().unwrap();
    assert_eq!(std::fs::read(&full).unwrap(), good);
    assert!(place.dir.join("tile/entries/000").exists());
    sound(&place);
}

#[test]
fn many_threads_append_and_their_chain_holds() {
    let place = Place::new();
    let (log, _) = place.open();
    let log = Arc::new(log);
    std::thread::scope(|scope| {
        for thread in 0..8u8 {
            let log = Arc::clone(&log);
            scope.spawn(move || {
                let tenant = format!("tenant-{}", thread % 3);
                for n in 0..50 {
                    block_on(log.refused(&refusal(&tenant, n), Pseudonyms::default())).unwrap();
                }
            });
        }
    });
    Arc::into_inner(log).unwrap().close().unwrap();
    let report = sound(&place);
    assert_eq!((report.entries, report.tenants), (402, 3));
}

#[test]
fn a_log_is_open_only_once() {
    let place = Place::new();
    let (log, _) = place.open();
    assert!(is_unavailable(place.try_open(HOUR)));
    log.close().unwrap();
    place.open().0.close().unwrap();
}
