use std::process::{Command, Stdio};

use super::*;
use crate::fs::OsFs;

fn bytes(len: usize) -> Vec<u8> {
    // Half of it compresses, half does not.
    let mut state = 7u32;
    let mut noise = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..len).map(|at| if at / 64 % 2 == 0 { b'a' } else { noise() }).collect()
}

fn archived(len: usize) -> (tempfile::TempDir, Vec<u8>) {
    let temp = tempfile::tempdir().unwrap();
    let plain = bytes(len);
    std::fs::write(temp.path().join("plain"), &plain).unwrap();
    write(&OsFs, &temp.path().join("plain"), &temp.path().join("packed"), &|| true).unwrap();
    (temp, plain)
}

#[test]
fn an_archive_reads_as_the_segment_in_any_steps_forwards() {
    for len in [1, 100, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 77] {
        let (temp, plain) = archived(len);
        for step in [1 + len / 3, 4096, len] {
            let file = Archived::open(&OsFs, &temp.path().join("packed")).unwrap().unwrap();
            assert_eq!(file.len().unwrap(), len as u64);
            let mut at = 0;
            while at < len {
                let take = step.min(len - at);
                let mut found = vec![0; take];
                // Twice from the same place, as frames are read.
                file.read_exact_at(at as u64, &mut found[..take.min(60)]).unwrap();
                file.read_exact_at(at as u64, &mut found).unwrap();
                assert!(found == plain[at..at + take], "{len} {step} {at}");
                at += take;
            }
            assert!(file.read_exact_at(len as u64, &mut [0]).is_err());
        }
    }
}

/// What we write is what everybody's gunzip reads.
#[test]
fn another_implementation_unpacks_it() {
    let (temp, plain) = archived(100_000);
    let packed = std::fs::File::open(temp.path().join("packed")).unwrap();
    let found = Command::new("gzip").arg("-dc").stdin(Stdio::from(packed)).output().unwrap();
    assert!(found.status.success() && found.stdout == plain);
}

#[test]
fn every_flipped_byte_shows_or_changes_nothing() {
    let (temp, plain) = archived(5000);
    let path = temp.path().join("packed");
    let good = std::fs::read(&path).unwrap();
    let mut silent = 0;
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        std::fs::write(&path, bad).unwrap();
        let mut found = vec![0; plain.len()];
        match Archived::open(&OsFs, &path).unwrap() {
            Some(file) if file.read_exact_at(0, &mut found).is_ok() => {
                assert!(found == plain, "byte {at}");
                silent += 1;
            }
            _ => {}
        }
    }
    // Deflate can say the same in more than one way; then nothing was changed.
    assert!(silent * 100 < good.len(), "{silent} of {}", good.len());
    for cut in [1, 4, 8, 100, good.len() - 24, good.len() - 10, good.len()] {
        std::fs::write(&path, &good[..good.len() - cut]).unwrap();
        let whole = Archived::open(&OsFs, &path).unwrap();
        assert!(whole.is_none_or(|file| file.read_exact_at(0, &mut vec![0; plain.len()]).is_err()), "{cut}");
    }
    std::fs::write(&path, [good, b"x".to_vec()].concat()).unwrap();
    let file = Archived::open(&OsFs, &path).unwrap().unwrap();
    assert!(file.read_exact_at(0, &mut vec![0; plain.len()]).is_err(), "something follows");
}
