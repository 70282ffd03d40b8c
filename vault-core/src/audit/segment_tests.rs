//! Segments: sealing, archiving, states; and tampering with what is sealed or archived.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use pollster::block_on;

use super::segments::Segments;
use super::snapshot::Snapshot;
use super::test_support::{ORIGIN, Place, refusal};
use super::*;
use crate::error::Error;
use crate::fs::OsFs;

fn until(mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(60), "it never happened");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn append(log: &Log, n: u8) {
    let tenant = if n.is_multiple_of(3) { "other" } else { "acme" };
    block_on(log.refused(&refusal(tenant, n), Pseudonyms::default())).unwrap();
}

fn archived(log: &Log) {
    let begun = Instant::now();
    while log.segments().archived != log.segments().open {
        let late = begun.elapsed() > Duration::from_secs(60);
        assert!(!late, "not archived: {:?}, {:?}, {:?}", log.segments(), log.health(), log.head());
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn check(place: &Place, options: &VerifyOptions) -> Report {
    verify(&OsFs, &place.dir, &place.verifier(), options).unwrap()
}

fn sound(place: &Place) -> Report {
    let report = check(place, &VerifyOptions::default());
    assert!(report.is_sound(), "{report}");
    report
}

fn found(place: &Place) -> Finding {
    check(place, &VerifyOptions::default()).finding.expect("found nothing")
}

fn segments(place: &Place) -> Segments {
    Segments::of(&OsFs, &place.dir, None, ORIGIN)
}

/// A log of several archived segments, and an open one.
fn cut() -> Place {
    let place = Place::new();
    let (log, _) = place.open_cutting();
    for n in 0..24 {
        append(&log, n);
    }
    assert!(log.segments().open >= 4, "{:?}", log.segments());
    archived(&log);
    log.close().unwrap();
    let report = sound(&place);
    assert_eq!((report.entries, report.skipped), (26, 0));
    place
}

fn open_start(place: &Place) -> frame::Start {
    let file = crate::fs::Fs::open(&OsFs, &place.file("entries.log"), crate::fs::Open::Read).unwrap();
    frame::Start::read(&*file, ORIGIN).unwrap().unwrap()
}

/// All entries, by the reader.
fn entries(place: &Place) -> Vec<Entry> {
    let mut reader = EntryReader::open(&OsFs, &place.dir, &place.verifier()).unwrap();
    let mut all = Vec::new();
    while reader
        .group(&mut |entry, _| {
            all.push(entry);
            Ok(())
        })
        .unwrap()
    {}
    all
}

/// The index of the first entry of each segment, as the open one's header and the archived ones' say.
fn firsts(place: &Place) -> Vec<u64> {
    let all = segments(place);
    let open = open_start(place);
    let first = |number| match all.find(number).unwrap() {
        segments::Found::File(file, _) => frame::Start::read(&*file, ORIGIN).unwrap().unwrap().first,
        _ => panic!(),
    };
    (0..open.number).map(first).chain([open.first]).collect()
}

#[test]
fn segments_are_sealed_archived_and_read_as_one_log() {
    let place = cut();
    let all = segments(&place);
    let last = open_start(&place).number;
    for number in 0..last {
        assert!(all.archived(number).exists() && !all.sealed(number).exists(), "{number}");
    }
    assert_eq!(Snapshot::numbers(&all), [last], "the newest state only");
    let read = entries(&place);
    assert!(read.iter().enumerate().all(|(at, entry)| entry.index == at as u64) && read.len() == 26);
    // And goes on, from the state alone, with the tenants' chains.
    let (log, recovery) = place.open_cutting();
    assert_eq!((recovery.entries, recovery.created), (26, false));
    append(&log, 1);
    archived(&log);
    log.close().unwrap();
    assert_eq!(sound(&place).entries, 29);
    let chain: Vec<u64> = entries(&place).iter().filter_map(|e| e.link.as_ref().map(|l| l.sequence)).collect();
    assert_eq!(chain.len(), 25);
    assert!(std::fs::read_dir(place.dir.join("tile/entries")).unwrap().count() > 0);
}

/// Who reads a log while it is written, sealed and archived sees every entry, in order.
#[test]
fn a_reader_follows_from_segment_to_segment() {
    let place = Place::new();
    let (log, _) = place.open_cutting();
    let mut reader = EntryReader::open(&OsFs, &place.dir, &place.verifier()).unwrap();
    let mut seen = Vec::new();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| (0..60).for_each(|n| append(&log, n)));
        until(|| {
            while reader
                .group(&mut |entry, _| {
                    seen.push(entry.index);
                    Ok(())
                })
                .unwrap()
            {}
            seen.len() == 61
        });
        writer.join().unwrap();
    });
    assert_eq!(seen, (0..61).collect::<Vec<_>>());
    assert!(log.segments().open > 5);
    log.close().unwrap();
    sound(&place);
}

#[test]
fn reading_begins_with_the_segment_that_holds_the_entry() {
    let place = cut();
    let firsts = firsts(&place);
    let last = *firsts.last().unwrap();
    let open = |index| EntryReader::open_from(&OsFs, &place.dir, &place.verifier(), index).unwrap();
    for index in 0..26 {
        let first = *firsts.iter().rfind(|first| **first <= index).unwrap();
        assert_eq!(open(index).next_index(), first, "{index}");
    }
    std::fs::remove_dir_all(segments(&place).archive).unwrap();
    let (mut reader, mut seen) = (open(last), Vec::new());
    while reader
        .group(&mut |entry, _| {
            seen.push(entry.index);
            Ok(())
        })
        .unwrap()
    {}
    assert_eq!(seen, (last..26).collect::<Vec<_>>());
    assert_eq!(reader.next_index(), 26);
    assert!(EntryReader::open_from(&OsFs, &place.dir, &place.verifier(), 0).is_err());
}

#[test]
fn the_age_of_its_first_entry_seals_a_segment_too() {
    use crate::time::{ManualClock, Timestamp};
    let place = Place::new();
    let clock = std::sync::Arc::new(ManualClock::new(Timestamp(1_700_000_000_000)));
    let options = Options { segment_size: u64::MAX, segment_age: Some(Duration::from_secs(60)), ..place.cutting() };
    let fs = std::sync::Arc::new(OsFs);
    let open = || Log::open_with(fs.clone(), &place.dir, place.signer(), clock.clone(), options.clone()).unwrap().0;
    let log = open();
    append(&log, 1);
    clock.advance_millis(59_000);
    append(&log, 2);
    assert_eq!(log.segments().open, 0);
    // The age is that of the entry, not of the process.
    log.close().unwrap();
    let log = open();
    clock.advance_millis(1_000);
    append(&log, 3);
    until(|| log.segments().open == 1);
    archived(&log);
    log.close().unwrap();
    sound(&place);
}

/// As somebody does who moves old segments away: the log opens and goes on; `verify` says what it could not check.
#[test]
fn without_its_archive_the_log_opens_and_verify_says_what_was_not_checked() {
    let place = cut();
    let all = segments(&place);
    let (last, away) = (open_start(&place), place.temp.path().join("cold"));
    let receipt = |index: u64| {
        let entry = entries(&place).into_iter().nth(index as usize).unwrap();
        Receipt { index, leaf_hash: merkle::leaf_hash(&entry.encode()) }
    };
    let (old, new) = (receipt(3), receipt(last.first));
    std::fs::rename(&all.archive, &away).unwrap();
    let (log, recovery) = place.open_cutting();
    assert_eq!(recovery.entries, 26);
    append(&log, 7);
    log.close().unwrap();
    assert!(matches!(found(&place), Finding::Segment { number: 0, first: 0, .. }), "{}", found(&place));
    let skip = VerifyOptions { skip_missing: true, ..VerifyOptions::default() };
    let report = check(&place, &skip);
    assert!(report.is_sound(), "{report}");
    assert_eq!((report.skipped, report.missing.len() as u32), (last.first, last.number));
    assert!(report.to_string().contains("NOT CHECKED: entries 0 to"), "{report}");
    // Evidence about what is missing is not passed over.
    let with = |receipts| verify(&OsFs, &place.dir, &place.verifier(), &VerifyOptions { receipts, ..skip.clone() });
    assert!(matches!(with(vec![old]), Err(Error::FailedPrecondition(_))));
    assert_eq!(with(vec![new]).unwrap().anchored, Some(last.first + 1));
    // With the archive named, or brought back, everything is checked.
    let named = VerifyOptions { archive: Some(away.clone()), ..VerifyOptions::default() };
    let report = check(&place, &named);
    assert!(report.is_sound() && report.skipped == 0, "{report}");
    // What was sealed meanwhile went into an archive of its own.
    for file in std::fs::read_dir(&away).unwrap() {
        let file = file.unwrap();
        std::fs::create_dir_all(&all.archive).unwrap();
        std::fs::rename(file.path(), all.archive.join(file.file_name())).unwrap();
    }
    assert_eq!(sound(&place).entries, 29);
}

#[test]
fn without_a_state_opening_reads_the_archive() {
    let place = cut();
    let number = Snapshot::numbers(&segments(&place))[0];
    let path = place.file(&format!("state.{number:06}"));
    let good = std::fs::read(&path).unwrap();
    for damage in 0..3 {
        let mut bad = good.clone();
        match damage {
            0 => std::fs::remove_file(&path).unwrap(),
            1 => {
                // Not as the log signed it.
                let at = bad.len() - 40;
                bad[at] ^= 1;
                std::fs::write(&path, &bad).unwrap();
                assert!(matches!(found(&place), Finding::State { .. }), "{}", found(&place));
            }
            _ => std::fs::write(&path, &bad[..bad.len() / 2]).unwrap(),
        }
        let (log, recovery) = place.open_cutting();
        assert_eq!(recovery.entries, 26 + 2 * damage);
        drop(log.close());
        std::fs::write(&path, &good).unwrap();
        sound(&place);
    }
    // And where neither is there, it does not open.
    std::fs::remove_file(&path).unwrap();
    Snapshot::numbers(&segments(&place)).iter().for_each(|n| {
        std::fs::remove_file(place.file(&format!("state.{n:06}"))).unwrap();
    });
    std::fs::remove_dir_all(segments(&place).archive).unwrap();
    let error = place.open_with(place.cutting()).unwrap_err();
    assert!(matches!(&error, Error::Corrupt { at, .. } if at.contains("segment 0")), "{error}");
}

/// Somebody who can write the disk but not sign cannot have the log go on from a state of their own.
#[test]
fn a_state_signed_by_another_key_is_not_believed() {
    let place = cut();
    let all = segments(&place);
    let number = Snapshot::numbers(&all)[0];
    let mut forged = Snapshot::read(&all, number).unwrap();
    forged.tenants.clear();
    let other = LogSigner::create(&OsFs, &place.temp.path().join("other.key"), ORIGIN).unwrap();
    forged.write(&all, &other).unwrap();
    assert!(Snapshot::read(&all, number).is_err());
    // Nor if the state says that it is that key's log.
    forged.keys = log_keys::Chain::new(other.verifier().clone());
    forged.write(&all, &other).unwrap();
    assert!(Snapshot::read(&all, number).is_ok());
    let before = place.snapshot();
    assert!(matches!(place.open_with(place.cutting()), Err(Error::Corrupt { .. })));
    assert_eq!(place.snapshot(), before);
    assert!(matches!(found(&place), Finding::State { .. }));
}

#[test]
fn every_kind_of_tampering_with_archived_segments_is_found_where_it_is() {
    let place = cut();
    let all = segments(&place);
    let firsts = firsts(&place);
    let last = firsts.len() as u32 - 1;
    let path = |number: u32| all.archived(number);
    let keep: Vec<Vec<u8>> = (0..last).map(|number| std::fs::read(path(number)).unwrap()).collect();
    let restore = |number: u32| std::fs::write(path(number), &keep[number as usize]).unwrap();
    let within = |finding: &Finding, number: u32| match finding {
        Finding::Entry { index, file, .. } => {
            file.contains(&format!("{number:06}"))
                && (firsts[number as usize]..=firsts[number as usize + 1]).contains(index)
        }
        Finding::Segment { number: found, first, .. } => *found == number && *first == firsts[number as usize],
        _ => false,
    };
    for number in 0..last {
        let good = &keep[number as usize];
        // Edited: every eleventh byte of the compressed file.
        let mut shown = 0;
        for at in (0..good.len()).step_by(11) {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            std::fs::write(path(number), bad).unwrap();
            if let Some(finding) = check(&place, &VerifyOptions::default()).finding {
                assert!(within(&finding, number), "segment {number}, byte {at}: {finding}");
                shown += 1;
            }
        }
        assert!(shown * 11 * 10 > good.len() * 9, "{shown}");
        // Truncated, and prolonged.
        for cut in [1, 9, good.len() / 2, good.len()] {
            std::fs::write(path(number), &good[..good.len() - cut]).unwrap();
            assert!(within(&found(&place), number), "{cut}: {}", found(&place));
        }
        std::fs::write(path(number), [good.clone(), vec![7]].concat()).unwrap();
        assert!(within(&found(&place), number));
        // Deleted.
        std::fs::remove_file(path(number)).unwrap();
        assert!(matches!(found(&place), Finding::Segment { number: n, .. } if n == number), "{}", found(&place));
        // Under another name.
        std::fs::rename(path((number + 1) % last), path(number)).unwrap();
        assert!(matches!(found(&place), Finding::Segment { number: n, .. } if n <= number), "{}", found(&place));
        restore(number);
        restore((number + 1) % last);
    }
    // Exchanged.
    std::fs::write(path(0), &keep[1]).unwrap();
    std::fs::write(path(1), &keep[0]).unwrap();
    assert!(matches!(found(&place), Finding::Segment { number: 0, .. }));
    (0..2).for_each(restore);
    sound(&place);
}

/// One who repacks a segment and makes its frames fit again does not fit what follows; one who redoes everything behind it,
/// too, does not fit the checkpoints.
#[test]
fn a_segment_that_was_rewritten_does_not_fit_what_follows() {
    let place = cut();
    let all = segments(&place);
    let firsts = firsts(&place);
    // Without its last frame: whole frames, a good archive.
    let plain = place.temp.path().join("plain");
    let unpack = |number: u32| {
        let segments::Found::File(file, _) = all.find(number).unwrap() else { panic!() };
        let mut bytes = vec![0; file.len().unwrap() as usize];
        file.read_exact_at(0, &mut bytes).unwrap();
        bytes
    };
    let start = |number: u32| match all.find(number).unwrap() {
        segments::Found::File(file, _) => frame::Start::read(&*file, ORIGIN).unwrap().unwrap(),
        _ => panic!(),
    };
    let one = unpack(1);
    std::fs::write(&plain, &one).unwrap();
    let file = crate::fs::Fs::open(&OsFs, &plain, crate::fs::Open::Read).unwrap();
    let mut reader = frame::Reader::at(file, ORIGIN, &start(1)).unwrap();
    let (mut ends, mut groups) = (vec![reader.position()], Vec::new());
    while let frame::Step::Frame = reader.step().unwrap() {
        ends.push(reader.position());
        groups.push(reader.entries().map(|(bytes, _)| bytes.to_vec()).collect::<Vec<_>>());
    }
    std::fs::write(&plain, &one[..ends[ends.len() - 2] as usize]).unwrap();
    let put = |number: u32| archive::write(&OsFs, &plain, &all.archived(number), &|| true).unwrap();
    let good = std::fs::read(all.archived(1)).unwrap();
    put(1);
    let finding = found(&place);
    assert!(matches!(&finding, Finding::Segment { number: 2, first, .. } if *first == firsts[2] - 1), "{finding}");
    // One entry changed, and the frames of the segment made to fit.
    let mut entry = Entry::decode(&groups[0][0]).unwrap();
    entry.salt[0] ^= 1;
    groups[0][0] = entry.encode();
    let (mut bytes, mut chain) = start(1).header(ORIGIN);
    let (mut builder, mut index) = (frame::Builder::default(), firsts[1]);
    for group in &groups {
        builder.clear();
        group.iter().for_each(|entry| {
            builder.push(|out| out.extend_from_slice(entry)).unwrap();
        });
        let (frame, hash) = builder.finish(index, &chain);
        bytes.extend_from_slice(frame);
        (chain, index) = (hash, index + group.len() as u64);
    }
    std::fs::write(&plain, bytes).unwrap();
    put(1);
    let finding = found(&place);
    // A checkpoint over it comes first, or the entry that names it as its tenant's previous one.
    assert!(
        matches!(&finding, Finding::Tree { first_bad, .. } if first_bad.size > firsts[1])
            || matches!(&finding, Finding::Entry { index, .. } if *index > firsts[1]),
        "{finding}"
    );
    std::fs::write(all.archived(1), good).unwrap();
    sound(&place);
}

#[test]
fn an_archive_that_fails_never_stops_the_log_and_recovers_by_itself() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = Place::new();
    let elsewhere = place.temp.path().join("cold");
    let options = Options { archive: Some(elsewhere.clone()), ..place.cutting() };
    let (log, _) = place.open_with(options.clone()).unwrap();
    (0..12).for_each(|n| append(&log, n));
    // Not mounted: nothing is made in its place.
    until(|| log.segments().behind == Some("the archive's directory is missing"));
    assert_eq!(log.health(), Health::Good);
    assert!(!elsewhere.exists());
    sound(&place);
    // A file where a directory should be.
    std::fs::write(&elsewhere, b"").unwrap();
    until(|| log.segments().behind.is_some_and(|why| why != "the archive's directory is missing"));
    append(&log, 1);
    std::fs::remove_file(&elsewhere).unwrap();
    std::fs::create_dir(&elsewhere).unwrap();
    archived(&log);
    assert_eq!(log.segments().behind, None);
    let read = entries(&place).len();
    log.close().unwrap();
    assert!(read > 13);
    sound(&place);
    let mode = std::fs::metadata(elsewhere.join("entries.000000.log.gz")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // A log whose archive is its own again finds what was moved there.
    std::fs::rename(&elsewhere, place.file("archive")).unwrap();
    place.open_cutting().0.close().unwrap();
    assert!(!place.file("archive.at").exists());
    sound(&place);
}

/// After a crash between an archive and the removal of the segment both are there. They are compared.
#[test]
fn a_segment_that_is_there_twice_is_compared_before_it_goes() {
    let place = Place::new();
    let waits = Options { await_cosignatures: true, ..place.cutting() };
    let (log, _) = place.open_with(waits).unwrap();
    (0..12).for_each(|n| append(&log, n));
    let open = log.segments().open;
    assert!(open > 1);
    // Nothing is archived before it is cosigned.
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(log.segments().archived, 0);
    let all = segments(&place);
    assert!(!all.archive.exists());
    log.close().unwrap();
    std::fs::create_dir(&all.archive).unwrap();
    archive::write(&OsFs, &all.sealed(0), &all.archived(0), &|| true).unwrap();
    // Of the second one half was written, by a process that did not get to rename it; of the third, something else.
    let half: PathBuf = all.archive.join("entries.000001.log.gz.new");
    std::fs::write(half, b"half").unwrap();
    std::fs::write(all.archived(1), b"something else").unwrap();
    sound(&place);
    let (log, _) = place.open_cutting();
    archived(&log);
    log.close().unwrap();
    assert!((0..open).all(|number| !all.sealed(number).exists() && all.archived(number).exists()));
    sound(&place);
}

#[test]
fn what_waits_for_cosignatures_is_archived_as_far_as_they_reach() {
    let place = Place::new();
    let (log, _) = place.open_with(Options { await_cosignatures: true, ..place.cutting() }).unwrap();
    (0..12).for_each(|n| append(&log, n));
    let first = firsts(&place)[1];
    log.cosigned(first - 1);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(log.segments().archived, 0);
    log.cosigned(first);
    until(|| log.segments().archived == 1);
    log.cosigned(u64::MAX);
    archived(&log);
    log.close().unwrap();
    sound(&place);
}

/// A name that is taken puts sealing off, and nothing else.
#[test]
fn a_segment_that_cannot_be_made_is_sealed_later() {
    let place = Place::new();
    let (log, _) = place.open_cutting();
    std::fs::create_dir(place.file("entries.log.next")).unwrap();
    (0..12).for_each(|n| append(&log, n));
    assert_eq!((log.segments().open, log.health()), (0, Health::Good));
    assert!(log.segments().behind.is_some());
    log.close().unwrap();
    std::fs::remove_dir(place.file("entries.log.next")).unwrap();
    let (log, _) = place.open_cutting();
    append(&log, 1);
    archived(&log);
    assert!(log.segments().open > 0);
    log.close().unwrap();
    sound(&place);
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for path in crate::fs::Fs::list(&OsFs, from).unwrap() {
        let to = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &to);
        } else {
            std::fs::copy(&path, &to).unwrap();
        }
    }
}

/// The whole directory, archive and state with it, put back as it was: nothing in it shows that, what was kept elsewhere
/// does. A part of it put back shows by itself.
#[test]
fn a_rollback_of_the_segments_shows_by_what_was_kept_elsewhere_and_of_a_part_by_itself() {
    let place = cut();
    let early = place.temp.path().join("early");
    copy(&place.dir, &early);
    let (log, _) = place.open_cutting();
    (0..20).for_each(|n| append(&log, n));
    let receipt = block_on(log.refused(&refusal("acme", 99), Pseudonyms::default())).unwrap();
    archived(&log);
    log.close().unwrap();
    let kept = sound(&place).last.unwrap();
    let late = place.temp.path().join("late");
    std::fs::rename(&place.dir, &late).unwrap();
    copy(&early, &place.dir);
    let report = sound(&place);
    assert!(report.anchored.is_none() && report.to_string().contains("was not shown"), "{report}");
    let with = |options: VerifyOptions| check(&place, &options).finding;
    let outside = VerifyOptions { outside: vec![kept], ..VerifyOptions::default() };
    assert!(matches!(with(outside), Some(Finding::Outside { entries: 26, .. })));
    let receipts = VerifyOptions { receipts: vec![receipt], ..VerifyOptions::default() };
    assert!(matches!(with(receipts), Some(Finding::Receipt { index }) if index == receipt.index));
    // The open segment of then among the files of now; the checkpoints of then; the archive of then.
    let renew = || {
        std::fs::remove_dir_all(&place.dir).unwrap();
        copy(&late, &place.dir);
        sound(&place);
    };
    renew();
    std::fs::copy(early.join("entries.log"), place.file("entries.log")).unwrap();
    assert!(matches!(found(&place), Finding::Segment { .. } | Finding::Missing { .. }), "{}", found(&place));
    renew();
    for name in ["checkpoints", "checkpoint"] {
        std::fs::copy(early.join(name), place.file(name)).unwrap();
    }
    assert!(!check(&place, &VerifyOptions::default()).is_sound());
    renew();
    std::fs::remove_dir_all(place.file("archive")).unwrap();
    copy(&early.join("archive"), &place.file("archive"));
    assert!(matches!(found(&place), Finding::Segment { .. }), "{}", found(&place));
}
