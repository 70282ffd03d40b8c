//! Rotation of the log's key.

use std::path::PathBuf;
use std::time::Duration;

use pollster::block_on;

use super::test_support::{ORIGIN, Place, refusal};
use super::*;
use crate::error::Error;
use crate::fs::OsFs;

fn key(place: &Place, name: &str) -> LogSigner {
    LogSigner::load_or_create(&OsFs, &place.temp.path().join(name), ORIGIN).unwrap()
}

fn open_as(place: &Place, signer: LogSigner) -> Result<Log, Error> {
    let clock = std::sync::Arc::new(crate::time::SystemClock);
    let options = Options { checkpoint_every: Duration::from_secs(3600), ..Options::default() };
    Log::open_with(std::sync::Arc::new(OsFs), &place.dir, signer, clock, options).map(|(log, _)| log)
}

fn append(log: &Log, n: u8) -> Receipt {
    block_on(log.refused(&refusal("acme", n), Pseudonyms::default())).unwrap()
}

fn check(place: &Place, key: &LogVerifier) -> Report {
    verify(&OsFs, &place.dir, key, &VerifyOptions::default()).unwrap()
}

/// A log under three keys, one after the other, some entries each.
fn rotated() -> (Place, [LogVerifier; 3]) {
    let place = Place::new();
    for (name, next) in [("a", Some("b")), ("b", Some("c")), ("c", None)] {
        let log = open_as(&place, key(&place, name)).unwrap();
        append(&log, 1);
        match next {
            Some(next) => drop(log.hand_over(key(&place, next)).unwrap()),
            None => log.close().unwrap(),
        }
    }
    let keys = ["a", "b", "c"].map(|name| key(&place, name).verifier().clone());
    (place, keys)
}

#[test]
fn each_key_proves_the_log_and_retired_ones_do_not_go_on() {
    let (place, keys) = rotated();
    for key in &keys {
        let report = check(&place, key);
        assert!(report.is_sound(), "{report}");
        assert_eq!(report.keys.iter().map(|key| key.verifier.clone()).collect::<Vec<_>>(), keys);
    }
    let listed = listed_keys(&std::fs::read_to_string(place.file("log.pub")).unwrap()).unwrap();
    let from: Vec<u64> = listed.iter().map(|key| key.from).collect();
    assert_eq!(from, [0, 3, 6], "started, an entry, and the entry that names the key: each time");
    // Neither a retired key nor a stranger's opens the log.
    for name in ["a", "b"] {
        let error = open_as(&place, key(&place, name)).unwrap_err();
        assert!(matches!(&error, Error::FailedPrecondition(why) if why.contains("retired")), "{error}");
    }
    let before = place.snapshot();
    assert!(matches!(open_as(&place, key(&place, "d")), Err(Error::Corrupt { .. })));
    assert_eq!(place.snapshot(), before);
    let stranger = check(&place, key(&place, "d").verifier());
    assert!(!stranger.is_sound(), "{stranger}");
    // The checkpoint of each hand-over is signed by both.
    let (_, note) = kept_checkpoint(&OsFs, &place.dir, &keys[2], Some(3)).unwrap();
    assert!(keys[0].has_signed(&note).unwrap() && keys[1].has_signed(&note).unwrap());
    assert!(kept_checkpoint(&OsFs, &place.dir, &keys[0], None).is_ok());
    open_as(&place, key(&place, "c")).unwrap().close().unwrap();
    assert!(check(&place, &keys[0]).is_sound());
}

/// The notes of `checkpoints`.
fn notes(place: &Place) -> Vec<String> {
    let text = std::fs::read_to_string(place.file("checkpoints")).unwrap();
    let parts: Vec<&str> = text.split("\n\n").collect();
    parts.chunks_exact(2).map(|note| format!("{}\n\n{}\n", note[0], note[1])).collect()
}

#[test]
fn a_checkpoint_signed_by_a_retired_key_is_refused_and_says_which() {
    let (place, keys) = rotated();
    let good = notes(&place);
    let text = std::fs::read_to_string(place.file("checkpoints")).unwrap();
    let note = good.last().unwrap().clone();
    let (head, _) = Checkpoint::verify_any(&note, &keys).unwrap();
    for (name, retired) in [("a", "3"), ("b", "6")] {
        let forged = head.sign(&key(&place, name)).unwrap();
        let bad = text.replace(&note, &forged);
        assert_ne!(bad, text);
        std::fs::write(place.file("checkpoints"), bad).unwrap();
        let report = check(&place, &keys[0]);
        let id = key(&place, name).verifier().short();
        assert!(
            matches!(&report.finding, Some(Finding::Checkpoint { why, .. })
                if why.contains(&id) && why.contains(&format!("retired at size {retired}"))),
            "{report}"
        );
    }
    // A key that nobody introduced.
    std::fs::write(place.file("checkpoints"), text.replace(&note, &head.sign(&key(&place, "d")).unwrap())).unwrap();
    assert!(matches!(check(&place, &keys[0]).finding, Some(Finding::Checkpoint { .. })));
    // A hand-over that only the old key, or only the new one, has signed is none: the new key's checkpoints do not count.
    for (signs, which) in [("a", 0), ("b", 1)] {
        let signed = |note: &String, key: usize| keys[key].has_signed(note).unwrap_or(false);
        let both = good.iter().find(|note| signed(note, 0) && signed(note, 1)).unwrap();
        let handed = Checkpoint::verify(both, &keys[which]).unwrap();
        let bad = text.replace(both, &handed.sign(&key(&place, signs)).unwrap());
        std::fs::write(place.file("checkpoints"), bad).unwrap();
        let report = check(&place, &keys[0]);
        assert!(matches!(report.finding, Some(Finding::Checkpoint { .. })), "{signs}: {report}");
    }
    std::fs::write(place.file("checkpoints"), &text).unwrap();
    assert!(check(&place, &keys[0]).is_sound());
}

#[test]
fn the_list_of_keys_is_checked_against_the_log() {
    let (place, keys) = rotated();
    let good = std::fs::read_to_string(place.file("log.pub")).unwrap();
    for bad in [good.replace("from 3", "from 4"), format!("{good}{} from 9\n", key(&place, "d").verifier().vkey())] {
        std::fs::write(place.file("log.pub"), bad).unwrap();
        let report = check(&place, &keys[0]);
        assert!(matches!(report.finding, Some(Finding::File { file: "log.pub", .. })), "{report}");
    }
    // Without the list, a log whose key was rotated is not shown to be sound.
    std::fs::remove_file(place.file("log.pub")).unwrap();
    assert!(!check(&place, &keys[0]).is_sound() && !check(&place, &keys[2]).is_sound());
    std::fs::write(place.file("log.pub"), &good).unwrap();
    assert!(check(&place, &keys[2]).is_sound());
    for bad in ["", "x\n", &good.replace(" from 3", ""), &good.replace("from 6", "from 3"), &good[1..]] {
        assert!(listed_keys(bad).is_err(), "{bad}");
    }
}

/// An entry that names a key counts for nothing unless the next checkpoint is the one that both sign.
#[test]
fn a_rotation_that_was_cut_off_leaves_the_old_key_in_force() {
    let place = Place::new();
    let log = open_as(&place, key(&place, "a")).unwrap();
    append(&log, 1);
    log.close().unwrap();
    let before: Vec<(PathBuf, Vec<u8>)> = place.snapshot();
    let log = open_as(&place, key(&place, "a")).unwrap();
    log.hand_over(key(&place, "b")).unwrap();
    // The process died before the checkpoint was durable: the entry alone is there.
    let entries = std::fs::read(place.file("entries.log")).unwrap();
    let whole = place.snapshot();
    for (path, bytes) in &before {
        std::fs::write(path, bytes).unwrap();
    }
    std::fs::write(place.file("entries.log"), entries).unwrap();
    std::fs::remove_dir_all(place.file("tile")).unwrap();
    let error = open_as(&place, key(&place, "b")).unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    let log = open_as(&place, key(&place, "a")).unwrap();
    append(&log, 2);
    assert_eq!(log.keys().len(), 1);
    // And the rotation can be tried again.
    assert!(log.hand_over(key(&place, "b")).is_ok());
    let report = check(&place, key(&place, "a").verifier());
    assert!(report.is_sound() && report.keys.len() == 2, "{report}");
    // The checkpoint is there, the list is not: the new key is in force.
    for (path, bytes) in &whole {
        std::fs::write(path, bytes).unwrap();
    }
    std::fs::write(place.file("log.pub"), format!("{}\n", key(&place, "a").verifier().vkey())).unwrap();
    assert!(check(&place, key(&place, "a").verifier()).is_sound());
    assert!(has_signed_last(&OsFs, &place.dir, key(&place, "b").verifier()).unwrap());
    assert!(open_as(&place, key(&place, "a")).is_err());
    open_as(&place, key(&place, "b")).unwrap().close().unwrap();
    assert_eq!(std::fs::read_to_string(place.file("log.pub")).unwrap().lines().count(), 2);
    let report = check(&place, key(&place, "b").verifier());
    assert!(report.is_sound() && report.keys.len() == 2, "{report}");
}

#[test]
fn only_another_key_of_the_same_name_takes_over() {
    let place = Place::new();
    let log = open_as(&place, key(&place, "a")).unwrap();
    assert!(matches!(log.hand_over(key(&place, "a")), Err(Error::Invalid { field, .. }) if field == "next"));
    let log = open_as(&place, key(&place, "a")).unwrap();
    let named = LogSigner::create(&OsFs, &place.temp.path().join("n"), "vault.example/audit/1").unwrap();
    assert!(matches!(log.hand_over(named), Err(Error::Invalid { field, .. }) if field == "next"));
    assert!(check(&place, key(&place, "a").verifier()).is_sound());
    // Nor does a key come back that was retired.
    let log = open_as(&place, key(&place, "a")).unwrap();
    log.hand_over(key(&place, "b")).unwrap();
    let log = open_as(&place, key(&place, "b")).unwrap();
    assert!(matches!(log.hand_over(key(&place, "a")), Err(Error::Invalid { field, .. }) if field == "next"));
}

/// Receipts of each time verify by the key of that time; and a log that is sealed between rotations is one log.
#[test]
fn receipts_and_segments_go_over_rotations() {
    let place = Place::new();
    let options = |_| place.cutting();
    let mut receipts = Vec::new();
    for (name, next) in [("a", "b"), ("b", "c")] {
        let clock = std::sync::Arc::new(crate::time::SystemClock);
        let fs = std::sync::Arc::new(OsFs);
        let (log, _) = Log::open_with(fs, &place.dir, key(&place, name), clock, options(())).unwrap();
        for n in 0..8 {
            receipts.push(append(&log, n));
        }
        log.hand_over(key(&place, next)).unwrap();
    }
    let clock = std::sync::Arc::new(crate::time::SystemClock);
    let (log, _) = Log::open_with(std::sync::Arc::new(OsFs), &place.dir, key(&place, "c"), clock, options(())).unwrap();
    let begun = std::time::Instant::now();
    while log.segments().archived < log.segments().open {
        assert!(begun.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(2));
    }
    log.close().unwrap();
    let options = VerifyOptions { receipts, ..VerifyOptions::default() };
    for name in ["a", "b", "c"] {
        let report = verify(&OsFs, &place.dir, key(&place, name).verifier(), &options).unwrap();
        assert!(report.is_sound() && report.keys.len() == 3, "{report}");
    }
}
