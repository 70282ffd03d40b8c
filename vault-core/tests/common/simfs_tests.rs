//! The simulated disk against the contract it stands for.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use vault_core::fs::{File, Fs, Open};

use super::{Fault, Rng, SimFs, SyncKind};

const A: &str = "/data/a";
const B: &str = "/data/b";

/// A durable file `/data/a` that holds `bytes`.
fn with_file(bytes: &[u8]) -> (SimFs, Box<dyn File>) {
    let fs = SimFs::new();
    fs.put(Path::new(A), bytes.to_vec());
    let file = fs.open(Path::new(A), Open::ReadWrite).unwrap();
    (fs, file)
}

fn contents(fs: &SimFs, path: &str) -> Option<Vec<u8>> {
    fs.contents(Path::new(path))
}

#[test]
fn simfs_keeps_what_was_synced_and_draws_the_rest() {
    let (fs, file) = with_file(b"");
    file.write_all_at(0, b"synced").unwrap();
    file.sync_data().unwrap();
    file.write_all_at(6, &[7; 1024]).unwrap();
    let found: BTreeSet<Vec<u8>> = (0..200).map(|seed| contents(&fs.crash(seed), A).unwrap()).collect();
    assert!(found.iter().all(|bytes| bytes.starts_with(b"synced")));
    assert!(found.iter().any(|bytes| bytes.len() == 6), "the write is dropped");
    assert!(found.iter().any(|bytes| bytes[6..] == [7; 1024]), "the write is kept");
    let holes = found.iter().filter(|bytes| bytes.contains(&7) && bytes[6..].contains(&0)).count();
    assert!(holes > 0, "the write is torn");
    assert_eq!(contents(&fs.crash(9), A), contents(&fs.crash(9), A));
}

#[test]
fn simfs_reorders_overlapping_writes_and_lengths() {
    let (fs, file) = with_file(b"0000");
    file.write_all_at(0, b"1111").unwrap();
    file.set_len(2).unwrap();
    file.write_all_at(0, b"22").unwrap();
    let found: BTreeSet<Vec<u8>> = (0..300).map(|seed| contents(&fs.crash(seed), A).unwrap()).collect();
    for state in ["0000", "1111", "00", "22", "11", "2200", "2211"] {
        assert!(found.contains(state.as_bytes()), "{state} of {found:?}");
    }
}

#[test]
fn simfs_names_need_a_directory_sync() {
    let fs = SimFs::new();
    fs.open(Path::new(A), Open::CreateNew).unwrap().sync_data().unwrap();
    let present = |fs: &SimFs| (0..64).filter(|seed| contents(&fs.crash(*seed), A).is_some()).count();
    assert!((1..64).contains(&present(&fs)));
    fs.sync_dir(Path::new("/data")).unwrap();
    assert_eq!(present(&fs), 64);

    fs.rename(Path::new(A), Path::new(B)).unwrap();
    let names: BTreeSet<(bool, bool)> =
        (0..64).map(|seed| fs.crash(seed)).map(|fs| (contents(&fs, A).is_some(), contents(&fs, B).is_some())).collect();
    // Never neither.
    assert_eq!(names, BTreeSet::from([(true, false), (true, true), (false, true)]));

    fs.sync_dir(Path::new("/data")).unwrap();
    fs.remove(Path::new(B)).unwrap();
    let kept = (0..64).filter(|seed| contents(&fs.crash(*seed), B).is_some()).count();
    assert!((1..64).contains(&kept));
    assert_eq!(present(&fs), 0);
}

#[test]
fn simfs_directories_and_listing() {
    let fs = SimFs::new();
    (&fs as &dyn Fs).create_dir_durable(Path::new("/data/x/y")).unwrap();
    fs.open(Path::new("/data/x/y/f"), Open::CreateNew).unwrap();
    assert_eq!(fs.list(Path::new("/data/x")).unwrap(), [Path::new("/data/x/y")]);
    fs.sync_dir(Path::new("/data/x/y")).unwrap();
    assert!((0..32).all(|seed| fs.crash(seed).exists(Path::new("/data/x/y/f"))));
    fs.create_dir_all(Path::new("/data/z")).unwrap();
    assert!((0..32).any(|seed| !fs.crash(seed).exists(Path::new("/data/z"))));
    assert_eq!(fs.open(Path::new("/no/f"), Open::CreateNew).unwrap_err().kind(), io::ErrorKind::NotFound);
    assert_eq!(fs.open(Path::new("/data/x/y/f"), Open::CreateNew).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
}

#[test]
fn simfs_dies_at_the_chosen_operation() {
    let (fs, file) = with_file(b"");
    let before = fs.ops();
    fs.crash_at(before + 2);
    file.write_all_at(0, b"one").unwrap();
    assert!(file.write_all_at(3, b"two").is_err());
    assert!(file.sync_data().is_err());
    assert!(file.len().is_err());
    assert_eq!(fs.ops(), before + 2);
    // The operation it died in may have reached the disk.
    let found: BTreeSet<Vec<u8>> = (0..100).map(|seed| contents(&fs.crash(seed), A).unwrap()).collect();
    assert!(found.contains(b"onetwo".as_slice()) && found.contains(b"".as_slice()), "{found:?}");
    assert!(fs.crash(0).open(Path::new(A), Open::ReadWrite).unwrap().write_all_at(0, b"alive").is_ok());
}

#[test]
fn simfs_a_killed_process_keeps_the_page_cache_but_not_the_disk() {
    let (fs, file) = with_file(b"");
    let lock = fs.lock(Path::new("/data/l")).unwrap();
    file.write_all_at(0, b"unsynced").unwrap();
    fs.crash_at(fs.ops() + 1);
    file.sync_data().unwrap_err();
    let next = fs.kill();
    assert_eq!(contents(&next, A).unwrap(), b"unsynced");
    assert!(next.lock(Path::new("/data/l")).is_ok());
    assert!((0..20).any(|seed| contents(&next.crash(seed), A).unwrap() != b"unsynced"));
    next.open(Path::new(A), Open::ReadWrite).unwrap().sync_data().unwrap();
    assert!((0..20).all(|seed| contents(&next.crash(seed), A).unwrap() == b"unsynced"));
    drop(lock);
}

#[test]
fn simfs_faults() {
    let (fs, file) = with_file(b"");
    fs.fail_after(1, Fault::NoSpace);
    file.write_all_at(0, b"fits").unwrap();
    assert_eq!(file.write_all_at(4, b"halves").unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(file.len().unwrap(), 7);
    assert_eq!(file.set_len(100).unwrap_err().kind(), io::ErrorKind::StorageFull);
    file.set_len(4).unwrap();
    fs.heal();
    fs.fail_after(0, Fault::WriteError);
    assert_eq!(file.write_all_at(0, b"x").unwrap_err().raw_os_error(), Some(5));
    fs.heal();
    file.sync_data().unwrap();

    fs.fail_after(0, Fault::SyncError { seed: 3 });
    file.write_all_at(4, &[1; 64]).unwrap();
    assert_eq!(file.sync_data().unwrap_err().raw_os_error(), Some(5));
    // Read back it is there, and no later sync brings it to the platter.
    file.sync_data().unwrap();
    assert_eq!(file.len().unwrap(), 68);
    let whole = |seed| {
        let (fs, file) = with_file(b"");
        fs.fail_after(0, Fault::SyncError { seed });
        file.write_all_at(0, &[1; 64]).unwrap();
        file.sync_data().unwrap_err();
        contents(&fs.crash(0), A).unwrap() == [1; 64]
    };
    assert!((0..20).any(|seed| !whole(seed)));
}

#[test]
fn simfs_suppressed_syncs_do_nothing_and_are_counted() {
    let (fs, file) = with_file(b"");
    fs.suppress_sync(|call| call.kind == SyncKind::Data && call.path == Path::new(A) && call.nth == 1);
    for byte in 0..3 {
        file.write_all_at(byte, b"x").unwrap();
        file.sync_data().unwrap();
        let sure = (0..40).all(|seed| contents(&fs.crash(seed), A).unwrap().len() as u64 == byte + 1);
        assert_eq!(sure, byte != 1);
    }
    assert_eq!((fs.syncs(SyncKind::Data), fs.syncs(SyncKind::Dir), fs.suppressed()), (3, 0, 1));
}

#[test]
fn simfs_unlink_and_lock() {
    let (fs, file) = with_file(b"x");
    assert_eq!(file.links().unwrap(), 1);
    fs.unlink(Path::new(A));
    assert_eq!(file.links().unwrap(), 0);
    assert_eq!(file.len().unwrap(), 1);

    let lock = fs.lock(Path::new("/data/l")).unwrap();
    assert_eq!(fs.lock(Path::new("/data/l")).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    assert!(fs.crash(0).lock(Path::new("/data/l")).is_ok());
    drop(lock);
    assert!(fs.lock(Path::new("/data/l")).is_ok());
}

#[test]
fn simfs_draws_the_same_numbers_everywhere() {
    // The first outputs of the reference implementation for this seed.
    let mut rng = Rng::new(1_234_567);
    assert_eq!([rng.next(), rng.next()], [6_457_827_717_110_365_317, 3_203_168_211_198_807_973]);
    assert!((0..100).all(|_| rng.below(3) < 3));
}
