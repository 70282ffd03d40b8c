//! Each kind of tampering is found, and named where it is.

use std::time::Duration;

use pollster::block_on;

use super::frame::{Builder, Reader, Step, header};
use super::merkle::{Edge, Hash};
use super::test_support::{ORIGIN, Place, decision, permit, refusal};
use super::*;
use crate::error::Error;
use crate::fs::{Fs, Open, OsFs};
use crate::policy::{Decrypt, Permit};

/// Eleven frames: the start (0), a batch of ten (1..=10), eight single ones (11..=18), the end (19). Two checkpoints
/// beside the empty one: size 1 and size 20.
fn log() -> Place {
    let place = Place::new();
    let (log, _) = place.open();
    let intent =
        |n| Intent { permit: permit(decision("acme", n)), key: None, pseudonyms: Pseudonyms::default(), items: 1 };
    let all: Vec<Recorded<Permit<Decrypt>>> = block_on(log.record_all((0..10).map(intent).collect())).unwrap();
    for recorded in all {
        recorded.complete();
    }
    for n in 0..8 {
        block_on(log.refused(&refusal(if n % 2 == 0 { "acme" } else { "other" }, n), Pseudonyms::default())).unwrap();
    }
    log.close().unwrap();
    assert!(check(&place, &VerifyOptions::default()).is_sound());
    place
}

fn check(place: &Place, options: &VerifyOptions) -> Report {
    let vkey = std::fs::read_to_string(place.file("log.pub")).unwrap();
    verify(&OsFs, &place.dir, &LogVerifier::parse(&vkey).unwrap(), options).unwrap()
}

/// What verification finds; and opening must refuse the same, changing nothing.
fn found(place: &Place) -> Finding {
    let finding = check(place, &VerifyOptions::default()).finding.expect("found nothing");
    let before = place.snapshot();
    let error = place.try_open(Duration::from_secs(3600)).unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    assert_eq!(place.snapshot(), before);
    finding
}

/// The frames: where each starts and ends, and its entries.
fn frames(place: &Place) -> Vec<(usize, usize, Vec<Vec<u8>>)> {
    let file = OsFs.open(&place.file("entries.log"), Open::Read).unwrap();
    let mut reader = Reader::new(file, ORIGIN).unwrap();
    let mut all = Vec::new();
    loop {
        let from = reader.position();
        let Step::Frame = reader.step().unwrap() else { break };
        let entries = reader.entries().map(|(bytes, _)| bytes.to_vec()).collect();
        all.push((usize::try_from(from).unwrap(), usize::try_from(reader.position()).unwrap(), entries));
    }
    all
}

/// Writes a file that is consistent in itself, as one would who can write the disk but not sign.
fn forge(place: &Place, groups: &[Vec<Vec<u8>>]) {
    let (mut file, mut chain) = header(ORIGIN);
    let mut index = 0;
    let mut builder = Builder::default();
    for group in groups {
        builder.clear();
        for entry in group {
            builder.push(|out| out.extend_from_slice(entry)).unwrap();
        }
        let (bytes, hash) = builder.finish(index, &chain);
        file.extend_from_slice(bytes);
        chain = hash;
        index += group.len() as u64;
    }
    std::fs::write(place.file("entries.log"), file).unwrap();
}

fn groups(place: &Place) -> Vec<Vec<Vec<u8>>> {
    frames(place).into_iter().map(|(.., entries)| entries).collect()
}

/// Numbers the entries anew and makes the tenants' chains fit again.
fn renumber(groups: &mut [Vec<Vec<u8>>]) {
    let mut tenants: std::collections::HashMap<String, (u64, Hash)> = std::collections::HashMap::new();
    for (index, bytes) in groups.iter_mut().flatten().enumerate() {
        let mut entry = Entry::decode(bytes).unwrap();
        entry.index = index as u64;
        if let Some(link) = &mut entry.link {
            let last = tenants.entry(link.tenant.to_string()).or_insert((0, first_previous(&link.tenant)));
            (link.sequence, link.previous) = (last.0 + 1, last.1);
            *last = (last.0 + 1, merkle::leaf_hash(&entry.encode()));
        }
        let again = entry.encode();
        if let Some(link) = &entry.link {
            tenants.get_mut(link.tenant.as_str()).unwrap().1 = merkle::leaf_hash(&again);
        }
        *bytes = again;
    }
}

#[test]
fn every_flipped_byte_of_the_entries_is_found_at_its_entry() {
    let place = log();
    let good = std::fs::read(place.file("entries.log")).unwrap();
    let mut first_of_frame = 0;
    for (from, to, entries) in frames(&place) {
        // Which entry each byte of the frame belongs to; the frame's own bytes count as its first.
        let mut plain = vec![first_of_frame; 60];
        for (n, entry) in entries.iter().enumerate() {
            plain.resize(plain.len() + entry.len() + 10, first_of_frame + n as u64);
        }
        plain.resize(plain.len() + 36, first_of_frame);
        // A mask byte counts as the byte behind it, the first that it changes; past the entries, as the frame's.
        let owners: Vec<u64> = plain.chunks(254).flat_map(|block| [&block[..1], block].concat()).collect();
        assert_eq!(owners.len(), to - from);
        for (offset, owner) in owners.iter().enumerate().step_by(5) {
            let mut bad = good.clone();
            bad[from + offset] ^= 0x41;
            if bad[from + offset] == 0 {
                continue;
            }
            std::fs::write(place.file("entries.log"), bad).unwrap();
            let finding = check(&place, &VerifyOptions::default()).finding;
            assert!(
                matches!(&finding, Some(Finding::Entry { index, position, .. })
                    if index == owner && *position == from as u64),
                "byte {offset} of the frame at {from}, entry {owner}: {finding:?}"
            );
        }
        first_of_frame += entries.len() as u64;
    }
    for at in 0..frames_start() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        std::fs::write(place.file("entries.log"), bad).unwrap();
        assert!(matches!(found(&place), Finding::File { file: "entries.log", .. }));
    }
}

fn frames_start() -> usize {
    header(ORIGIN).0.len()
}

#[test]
fn opening_refuses_damage_and_changes_nothing() {
    let place = log();
    let good = std::fs::read(place.file("entries.log")).unwrap();
    for at in [3, frames_start() + 2, frames_start() + 70, good.len() / 2, good.len() - 40, good.len() - 1] {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        std::fs::write(place.file("entries.log"), bad).unwrap();
        found(&place);
    }
    for cut in [1, 30, 400, good.len() - 10] {
        std::fs::write(place.file("entries.log"), &good[..good.len() - cut]).unwrap();
        found(&place);
    }
}

#[test]
fn damage_after_the_last_checkpoint_is_not_taken_for_an_incomplete_frame() {
    let place = Place::new();
    let (log, _) = place.open();
    for n in 0..3 {
        block_on(log.refused(&refusal("acme", n), Pseudonyms::default())).unwrap();
    }
    drop(log);
    let good = std::fs::read(place.file("entries.log")).unwrap();
    let frames = frames(&place);
    for (n, (from, to, _)) in frames.iter().enumerate().skip(1) {
        for at in (from + 1..to - 1).step_by(11) {
            let mut bad = good.clone();
            bad[at] ^= 0x20;
            if bad[at] == 0 {
                bad[at] = 0x21;
            }
            std::fs::write(place.file("entries.log"), bad).unwrap();
            assert!(matches!(found(&place), Finding::Entry { index, .. } if index == n as u64));
        }
        // A frame of zeros with whole ones behind it is damage too; as the last it never reached the disk.
        let mut bad = good.clone();
        bad[*from..*to].fill(0);
        std::fs::write(place.file("entries.log"), bad).unwrap();
        if n + 1 < frames.len() {
            assert!(matches!(found(&place), Finding::Entry { index, .. } if index == n as u64));
        } else {
            assert!(check(&place, &VerifyOptions::default()).is_sound());
        }
    }
    // Bytes that no write of ours could have left.
    let mut longer = good;
    longer.extend_from_slice(b"junk");
    std::fs::write(place.file("entries.log"), longer).unwrap();
    assert!(matches!(found(&place), Finding::Entry { index: 4, .. }));
}

#[test]
fn removed_inserted_and_moved_entries_are_found() {
    let place = log();
    let good = groups(&place);

    let mut removed = good.clone();
    removed[1].remove(4);
    forge(&place, &removed);
    assert!(matches!(found(&place), Finding::Entry { index: 5, .. }));

    let mut inserted = good.clone();
    let copy = inserted[1][2].clone();
    inserted[1].insert(3, copy);
    forge(&place, &inserted);
    assert!(matches!(found(&place), Finding::Entry { index: 4, .. }));

    let mut moved = good.clone();
    moved[1].swap(6, 7);
    forge(&place, &moved);
    assert!(matches!(found(&place), Finding::Entry { index: 7, .. }));

    // A whole frame taken out of the file as it is.
    forge(&place, &good);
    let bytes = std::fs::read(place.file("entries.log")).unwrap();
    let (from, to, _) = frames(&place)[5];
    std::fs::write(place.file("entries.log"), [&bytes[..from], &bytes[to..]].concat()).unwrap();
    assert!(matches!(found(&place), Finding::Entry { index: 14, .. }));

    // One tenant's entry replaced by another's text, with everything but the tenant's chain made to fit.
    let mut replaced = good.clone();
    let mut entry = Entry::decode(&replaced[3][0]).unwrap();
    entry.time.0 += 1;
    replaced[3][0] = entry.encode();
    forge(&place, &replaced);
    assert!(matches!(found(&place), Finding::Entry { index: 14, .. } | Finding::Entry { index: 13, .. }));
}

#[test]
fn truncation_is_found_where_a_checkpoint_covers_it() {
    let place = log();
    let good = groups(&place);
    forge(&place, &good[..6]);
    let finding = found(&place);
    assert!(matches!(finding, Finding::Missing { entries: 15, checkpoint } if checkpoint.size == 20), "{finding}");
}

#[test]
fn a_recomputed_tree_is_found_between_checkpoints() {
    let place = Place::new();
    let (log, _) = place.try_open(Duration::ZERO).unwrap();
    for n in 0..12 {
        block_on(log.refused(&refusal("acme", n), Pseudonyms::default())).unwrap();
    }
    log.close().unwrap();
    let mut sizes = Vec::new();
    let mut reader = checkpoint::Reader::open(&OsFs, &place.file("checkpoints")).unwrap();
    while let checkpoint::Step::Checkpoint(checkpoint) = reader.step([&place.verifier()]).unwrap() {
        sizes.push(checkpoint.size);
    }
    let good = groups(&place);
    for victim in 1..13u64 {
        let mut forged = good.clone();
        let bytes = forged.iter_mut().flatten().nth(usize::try_from(victim).unwrap()).unwrap();
        let mut entry = Entry::decode(bytes).unwrap();
        let Body::Refused { reason, .. } = &mut entry.body else { panic!() };
        *reason = "nothing happened".to_owned();
        *bytes = entry.encode();
        renumber(&mut forged);
        forge(&place, &forged);
        let last_good = *sizes.iter().filter(|size| **size <= victim).max().unwrap();
        let first_bad = *sizes.iter().filter(|size| **size > victim).min().unwrap();
        let finding = found(&place);
        assert!(
            matches!(finding, Finding::Tree { last_good: Some(good), first_bad: bad }
                if good.size == last_good && bad.size == first_bad),
            "entry {victim}, checkpoints {sizes:?}: {finding}"
        );
    }
}

#[test]
fn checkpoints_are_checked_each() {
    let place = log();
    let good = std::fs::read(place.file("checkpoints")).unwrap();
    let notes: Vec<usize> = [0].into_iter().chain(ends(&good)).collect();
    for at in (0..good.len()).step_by(5) {
        let mut bad = good.clone();
        bad[at] ^= 1;
        std::fs::write(place.file("checkpoints"), bad).unwrap();
        // A note without its end is an incomplete write, but then the published checkpoint is missing.
        assert!(
            matches!(found(&place), Finding::Checkpoint { position, .. } if notes.contains(&(position as usize)))
                || matches!(found(&place), Finding::File { file: "checkpoints", .. }),
            "byte {at}"
        );
    }
    // The same log signed by another key.
    std::fs::write(place.file("checkpoints"), good).unwrap();
    std::fs::remove_file(place.temp.path().join("signing.key")).unwrap();
    let other = place.verifier();
    assert!(!verify(&OsFs, &place.dir, &other, &VerifyOptions::default()).unwrap().is_sound());
}

fn ends(bytes: &[u8]) -> Vec<usize> {
    let empty: Vec<usize> = bytes.windows(2).enumerate().filter(|(_, w)| *w == b"\n\n").map(|(at, _)| at + 2).collect();
    empty.into_iter().skip(1).step_by(2).collect()
}

#[test]
fn rollback_and_fork_are_found_only_with_what_was_kept_elsewhere() {
    let place = log();
    let kept = check(&place, &VerifyOptions::default()).last.unwrap();
    let leaf = merkle::leaf_hash(&groups(&place)[9][0]);
    let receipt = Receipt { index: 18, leaf_hash: leaf };
    let options = VerifyOptions { outside: vec![kept], receipts: vec![receipt], ..VerifyOptions::default() };
    assert_eq!(check(&place, &options).anchored, Some(20));

    // Back to the first checkpoint, everywhere in the directory.
    forge(&place, &groups(&place)[..1]);
    let checkpoints = std::fs::read(place.file("checkpoints")).unwrap();
    std::fs::write(place.file("checkpoints"), &checkpoints[..ends(&checkpoints)[1]]).unwrap();
    std::fs::remove_file(place.file("checkpoint")).unwrap();
    std::fs::remove_dir_all(place.dir.join("tile")).unwrap();
    let alone = check(&place, &VerifyOptions::default());
    assert!(alone.is_sound() && alone.anchored.is_none());
    assert!(alone.to_string().contains("was not shown"));
    let options = |outside, receipts| VerifyOptions { outside, receipts, ..VerifyOptions::default() };
    let only = |outside, receipts| check(&place, &options(outside, receipts)).finding;
    assert_eq!(only(vec![kept], vec![]), Some(Finding::Outside { checkpoint: kept, entries: 1 }));
    assert_eq!(only(vec![], vec![receipt]), Some(Finding::Receipt { index: 18 }));

    // Another history grown from there, signed with the real key.
    let (log, _) = place.open();
    for n in 0..30 {
        block_on(log.refused(&refusal("acme", n), Pseudonyms::default())).unwrap();
    }
    log.close().unwrap();
    assert!(check(&place, &VerifyOptions::default()).is_sound());
    assert!(matches!(only(vec![kept], vec![]), Some(Finding::Outside { entries: 20, .. })));
    assert_eq!(only(vec![], vec![receipt]), Some(Finding::Receipt { index: 18 }));
}

#[test]
fn tiles_and_bundles_are_compared() {
    let place = log();
    for name in ["tile/0/000.p/20", "tile/entries/000.p/20"] {
        let path = place.dir.join(name);
        let good = std::fs::read(&path).unwrap();
        let mut bad = good.clone();
        bad[good.len() / 2] ^= 1;
        std::fs::write(&path, bad).unwrap();
        let tile = |report: Report| report.finding;
        let expected = Some(Finding::Tile { path: name.to_owned(), index: 0 });
        assert_eq!(tile(check(&place, &VerifyOptions::default())), expected);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(tile(check(&place, &VerifyOptions::default())), expected);
        std::fs::write(&path, good).unwrap();
    }
    assert!(check(&place, &VerifyOptions::default()).is_sound());
}

#[test]
fn the_root_in_a_checkpoint_is_that_of_the_entry_bundles() {
    // Read with nothing but the tlog-tiles rules.
    let place = log();
    let bundle = std::fs::read(place.dir.join("tile/entries/000.p/20")).unwrap();
    let hashes = std::fs::read(place.dir.join("tile/0/000.p/20")).unwrap();
    let (mut at, mut edge, mut n) = (0, Edge::new(), 0);
    while at < bundle.len() {
        let len = usize::from(u16::from_be_bytes([bundle[at], bundle[at + 1]]));
        let leaf = merkle::leaf_hash(&bundle[at + 2..at + 2 + len]);
        assert_eq!(hashes[n * 32..n * 32 + 32], leaf);
        edge.push(leaf);
        (at, n) = (at + 2 + len, n + 1);
    }
    let note = std::fs::read_to_string(place.file("checkpoint")).unwrap();
    let checkpoint = Checkpoint::verify(&note, &place.verifier()).unwrap();
    assert_eq!((checkpoint.size, checkpoint.root), (20, edge.root()));
}

/// A publisher that is killed, or watched, between the full tile and the next checkpoint has removed the partial tiles
/// that the published one counts on. The full tile says the same; one that does not is found.
#[test]
fn a_full_tile_stands_for_the_partial_ones_it_replaced() {
    let place = Place::new();
    let append = |from: u32, to: u32| {
        let (log, _) = place.open();
        for n in from..to {
            block_on(log.refused(&refusal("acme", n as u8), Pseudonyms::default())).unwrap();
        }
        log.close().unwrap();
    };
    append(0, 200);
    let published = std::fs::read(place.file("checkpoint")).unwrap();
    append(200, 300);
    assert!(OsFs.list(&place.file("tile/0/000.p")).unwrap().is_empty(), "the partial tiles are gone");
    std::fs::write(place.file("checkpoint"), published).unwrap();
    assert!(check(&place, &VerifyOptions::default()).is_sound());
    let full = place.file("tile/0/000");
    let mut bytes = std::fs::read(&full).unwrap();
    bytes[5] ^= 1;
    std::fs::write(&full, bytes).unwrap();
    assert!(matches!(
        check(&place, &VerifyOptions::default()).finding,
        Some(Finding::File { .. } | Finding::Tile { .. })
    ));
}
