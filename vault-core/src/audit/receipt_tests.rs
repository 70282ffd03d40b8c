use pollster::block_on;

use super::*;
use crate::audit::test_support::{Place, decision, permit};
use crate::audit::{Finding, Intent, Log, Pseudonyms, Recorded, VerifyOptions, verify};
use crate::fs::OsFs;
use crate::policy::{Decrypt, Permit};

fn record(log: &Log, count: u8) -> Vec<Audited> {
    let intent =
        |n| Intent { permit: permit(decision("acme", n)), key: None, pseudonyms: Pseudonyms::default(), items: 1 };
    let all: Vec<Recorded<Permit<Decrypt>>> = block_on(log.record_all((0..count).map(intent).collect())).unwrap();
    let audited = |recorded: Recorded<Permit<Decrypt>>| {
        let audited = recorded.audited();
        assert_eq!(recorded.complete(), audited.entry());
        audited
    };
    all.into_iter().map(audited).collect()
}

fn sound(place: &Place, receipt: &AuditReceipt) -> Option<Finding> {
    let mut options = VerifyOptions::default();
    options.keep(receipt, &place.verifier()).unwrap();
    let report = verify(&OsFs, &place.dir, &place.verifier(), &options).unwrap();
    assert_eq!(report.anchored.is_some(), report.finding.is_none());
    report.finding
}

#[test]
fn what_callers_get_verifies_with_the_public_key_alone_and_against_the_log() {
    let place = Place::new();
    let (log, _) = place.open();
    let mut receipts = Vec::new();
    for count in [1, 3, 20] {
        let all = record(&log, count);
        let one = AuditReceipt::of([&all[0]]).unwrap();
        assert_eq!(one.len(), 1);
        assert_eq!(one[0].entries, [all[0].entry()]);
        receipts.extend(one);
        // A batch was submitted at once, so it is one group, and one receipt.
        let batch = AuditReceipt::of(&all).unwrap();
        assert_eq!(batch.len(), 1);
        assert_eq!(batch[0].entries.len(), usize::from(count));
        receipts.extend(batch);
    }
    let (first, second) = (record(&log, 2), record(&log, 2));
    let both = AuditReceipt::of(second.iter().chain(&first)).unwrap();
    assert_eq!(both.iter().map(|receipt| receipt.entries[0].index).collect::<Vec<_>>(), [25, 27], "a group each");
    receipts.extend(both);
    log.close().unwrap();
    for receipt in receipts {
        let text = receipt.text();
        assert_eq!(AuditReceipt::parse(&text).unwrap(), receipt);
        let head = receipt.verify(&place.verifier()).unwrap();
        assert!(receipt.entries.iter().all(|entry| entry.index < head.size));
        assert_eq!(sound(&place, &receipt), None);
    }
}

#[test]
fn an_altered_receipt_is_refused_whatever_was_altered() {
    let place = Place::new();
    let (log, _) = place.open();
    let receipt = AuditReceipt::of(&record(&log, 5)).unwrap().remove(0);
    log.close().unwrap();
    let verifier = place.verifier();
    receipt.verify(&verifier).unwrap();
    let text = receipt.text();
    let mut refused = 0;
    for at in 0..text.len() {
        let mut bytes = text.clone().into_bytes();
        bytes[at] ^= 1;
        let Ok(altered) = String::from_utf8(bytes) else { continue };
        let read = AuditReceipt::parse(&altered).and_then(|receipt| receipt.verify(&verifier));
        assert!(read.is_err(), "byte {at}");
        refused += 1;
    }
    assert!(refused > 300);
    let mut without = receipt.clone();
    without.entries.clear();
    assert!(without.verify(&verifier).is_err());
    let mut twice = receipt.clone();
    twice.entries.push(twice.entries[4]);
    assert!(twice.verify(&verifier).is_err());
    let stranger = Place::new().verifier();
    assert!(receipt.verify(&stranger).is_err(), "another key of the same origin");
}

#[test]
fn a_log_that_lost_what_a_receipt_shows_is_caught_and_so_is_a_fork() {
    let place = Place::new();
    let (log, _) = place.open();
    drop(record(&log, 1));
    log.close().unwrap();
    let early = place.snapshot();
    let (log, _) = place.open();
    let receipt = AuditReceipt::of(&record(&log, 3)).unwrap().remove(0);
    log.close().unwrap();
    assert_eq!(sound(&place, &receipt), None);
    // Rolled back to a state that was sound by itself.
    std::fs::remove_dir_all(&place.dir).unwrap();
    for (path, bytes) in &early {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    assert!(verify(&OsFs, &place.dir, &place.verifier(), &VerifyOptions::default()).unwrap().is_sound());
    assert!(matches!(sound(&place, &receipt), Some(Finding::Outside { .. } | Finding::Receipt { .. })));
    // And grown again, longer than it was: a fork.
    let (log, _) = place.open();
    drop(record(&log, 20));
    log.close().unwrap();
    let first = receipt.entries[0].index;
    assert_eq!(sound(&place, &receipt), Some(Finding::Receipt { index: first }));
}

#[test]
fn a_receipt_of_a_group_that_no_checkpoint_covers_yet_verifies() {
    let place = Place::new();
    let (log, _) = place.open();
    let receipt = AuditReceipt::of(&record(&log, 2)).unwrap().remove(0);
    // As a crash leaves it.
    drop(log);
    assert_eq!(sound(&place, &receipt), None);
    let (log, _) = place.open();
    log.close().unwrap();
    assert_eq!(sound(&place, &receipt), None);
}

#[test]
fn the_example_of_the_specification() {
    // Made by another implementation, in Python.
    let verifier =
        LogVerifier::parse("vault.example/audit/0+3f3177d8+AQOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4").unwrap();
    let specification = include_str!("../../../docs/audit.md");
    let from = specification.find("blindvault/audit-receipt/v1\nentry").unwrap();
    let text = specification[from..].split("```").next().unwrap();
    let receipt = AuditReceipt::parse(text).unwrap();
    let head = receipt.verify(&verifier).unwrap();
    assert_eq!((head.size, receipt.entries[0].index, receipt.entries[1].index), (5, 2, 4));
    assert_eq!(receipt.entries[1].leaf_hash, crate::audit::merkle::leaf_hash(b"e"));
}
