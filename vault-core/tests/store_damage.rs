//! A damaged store stops start-up with a message that says what and where, and not a byte of it changes.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use pollster::block_on;
use redb::{Database, TableDefinition};
use simfs::{Rng, SimFs};
use vault_core::Error;
use vault_core::fs::{Fs, OsFs};
use vault_core::store::{EmbeddedStore, Expect, Scanned, Store, Table, Write};

#[path = "common/simfs.rs"]
mod simfs;

const PATH: &str = "/data/rows";
const PAGE: usize = 4096;

fn open(fs: &SimFs) -> Result<EmbeddedStore, Error> {
    EmbeddedStore::open(Arc::new(fs.clone()), Path::new(PATH))
}

fn bytes(fs: &SimFs) -> Vec<u8> {
    fs.contents(Path::new(PATH)).unwrap()
}

fn with(bytes: Vec<u8>) -> SimFs {
    let fs = SimFs::new();
    fs.put(Path::new(PATH), bytes);
    fs
}

fn rows(store: &EmbeddedStore) -> Vec<Vec<Scanned>> {
    Table::ALL.iter().map(|table| block_on(store.scan(*table, b"", None, usize::MAX)).unwrap()).collect()
}

/// A store's file as a clean close and as a kill leave it, and the rows in it.
fn populated() -> ([Vec<u8>; 2], Vec<Vec<Scanned>>) {
    let fs = SimFs::new();
    let store = open(&fs).unwrap();
    let mut rng = Rng::new(5);
    for round in 0..12_u32 {
        let writes = (0..40_u32).map(|n| Write {
            table: Table::ALL[rng.below(6)],
            key: [round.to_be_bytes(), n.to_be_bytes()].concat(),
            expect: Expect::Absent,
            value: vec![n as u8; if n == 0 { 9000 } else { 60 + rng.below(400) }],
            revokes: false,
        });
        block_on(store.commit(writes.collect())).unwrap();
    }
    let rows = rows(&store);
    assert_eq!(rows.iter().map(Vec::len).sum::<usize>(), 480);
    let killed = bytes(&fs.kill());
    drop(store);
    ([bytes(&fs), killed], rows)
}

/// Opens damaged bytes: refused with everything unchanged, or all rows right. True if refused.
fn refused(damaged: &[u8], rows_before: &[Vec<Scanned>], how: &str) -> bool {
    let fs = with(damaged.to_vec());
    match open(&fs) {
        Err(Error::Corrupt { what, at }) => {
            assert_eq!(what, PATH);
            assert!(!at.is_empty());
            assert!(bytes(&fs) == damaged, "{how}: the file was changed");
            true
        }
        Ok(store) => {
            assert!(rows(&store) == rows_before, "{how}: other rows");
            false
        }
        Err(other) => panic!("{how}: {other:?}"),
    }
}

#[test]
fn a_flipped_bit_in_any_page() {
    let ([closed, killed], rows) = populated();
    let mut rng = Rng::new(1);
    for (name, file) in [("closed", closed), ("killed", killed)] {
        let mut places: Vec<usize> = (0..file.len() / PAGE).map(|page| page * PAGE + rng.below(PAGE)).collect();
        // The beginnings of pages say what they are.
        places.extend((0..file.len() / PAGE).map(|page| page * PAGE + rng.below(16)));
        places.extend((0..150).map(|_| rng.below(file.len())));
        let mut count = 0;
        for at in places {
            let bit = rng.below(8);
            let mut damaged = file.clone();
            damaged[at] ^= 1 << bit;
            count += usize::from(refused(&damaged, &rows, &format!("{name}, bit {bit} of byte {at}")));
        }
        assert!(count > file.len() / PAGE / 2, "{name}: only {count} refused");
    }
}

#[test]
fn a_flipped_bit_in_any_byte_of_the_header() {
    let ([closed, killed], rows) = populated();
    for (name, file) in [("closed", closed), ("killed", killed)] {
        for at in 0..320 {
            // Every bit of the flags, which have no checksum.
            let bits = if at == 9 { 0..8 } else { at % 8..at % 8 + 1 };
            for bit in bits {
                let mut damaged = file.clone();
                damaged[at] ^= 1 << bit;
                refused(&damaged, &rows, &format!("{name}, bit {bit} of byte {at}"));
            }
        }
    }
}

#[test]
fn zeroed_and_swapped_pages() {
    let ([closed, _], rows) = populated();
    let pages = closed.len() / PAGE;
    let mut rng = Rng::new(2);
    for page in 0..pages {
        let mut damaged = closed.clone();
        damaged[page * PAGE..(page + 1) * PAGE].fill(0);
        refused(&damaged, &rows, &format!("page {page} zeroed"));
        let other = rng.below(pages);
        let mut damaged = closed.clone();
        damaged.copy_within(other * PAGE..(other + 1) * PAGE, page * PAGE);
        refused(&damaged, &rows, &format!("page {other} over page {page}"));
    }
}

#[test]
fn a_cut_or_longer_file() {
    let (files, rows) = populated();
    for file in files {
        let mut rng = Rng::new(3);
        for page in 0..file.len() / PAGE {
            refused(&file[..page * PAGE], &rows, &format!("cut to {page} pages"));
        }
        for len in (0..40).map(|_| rng.below(file.len())) {
            assert!(refused(&file[..len], &rows, &format!("cut to {len} bytes")));
        }
        for len in [0, 1, 9, 64, 319, 320] {
            assert!(refused(&file[..len], &rows, &format!("cut to {len} bytes")));
        }
        let mut longer = file.clone();
        longer.extend([0; 100]);
        refused(&longer, &rows, "longer");
    }
}

/// The message for a file of these bytes.
fn message(bytes: &[u8]) -> String {
    assert!(refused(bytes, &[], "foreign"));
    open(&with(bytes.to_vec())).unwrap_err().to_string()
}

#[test]
fn messages_say_what_is_wrong() {
    assert!(message(b"").contains("/data/rows is damaged: it has 0 bytes"));
    assert!(message(&[b'x'; 8192]).contains("another program's file"));
    let mut sqlite = b"SQLite format 3\0".to_vec();
    sqlite.resize(8192, 0);
    assert!(message(&sqlite).contains("another program's file"));
    let ([file, _], _) = populated();
    let mut newer = file.clone();
    newer[64] = 4;
    assert!(message(&newer).contains("a newer file format"));
}

/// Files that redb finds in order, and that are no stores of ours.
#[test]
fn other_redb_files_are_refused() {
    const META: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("blindvault");
    const TENANTS: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("tenants");
    const NUMBERS: TableDefinition<'static, u64, u64> = TableDefinition::new("tenants");
    const OTHER: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("other");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rows");
    let edited = |edit: &dyn Fn(&redb::WriteTransaction)| {
        let _ = std::fs::remove_file(&path);
        drop(EmbeddedStore::open(Arc::new(OsFs), &path).unwrap());
        let db = Database::open(&path).unwrap();
        let txn = db.begin_write().unwrap();
        edit(&txn);
        txn.commit().unwrap();
        drop(db);
        message(&std::fs::read(&path).unwrap())
    };
    let format = |value: &'static [u8]| {
        edited(&move |txn| {
            txn.open_table(META).unwrap().insert(b"format".as_slice(), value).unwrap();
        })
    };
    assert!(format(&[0, 0, 0, 4]).contains("row format 4 is newer than 3"));
    for older in [&[0, 0, 0, 1], &[0, 0, 0, 2]] {
        assert!(format(older).contains("a table that does not belong"));
    }
    assert!(format(&[0]).contains("the row format's version is missing"));
    assert!(edited(&|txn| drop(txn.open_table(OTHER).unwrap())).contains("a table that does not belong"));
    assert!(edited(&|txn| assert!(txn.delete_table(META).unwrap())).contains("a table is missing"));
    assert!(
        edited(&|txn| {
            txn.delete_table(TENANTS).unwrap();
            drop(txn.open_table(NUMBERS).unwrap());
        })
        .contains("another type")
    );
    // A row that redb takes for good, and whose own checksum does not fit.
    let row = edited(&|txn| {
        txn.open_table(TENANTS).unwrap().insert(b"acme".as_slice(), [1; 40].as_slice()).unwrap();
    });
    assert!(row.contains("a row of table tenants: checksum mismatch (the table's row 0)"), "{row}");
}

#[test]
fn a_second_process_is_kept_out() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rows");
    let fs: Arc<dyn Fs> = Arc::new(OsFs);
    let store = EmbeddedStore::open(Arc::clone(&fs), &path).unwrap();
    let error = EmbeddedStore::open(Arc::clone(&fs), &path).unwrap_err();
    assert!(matches!(error, Error::Unavailable { why, .. } if why.contains(".lock file beside it holds the owner")));
    let owner = std::fs::read_to_string(dir.path().join("rows.lock")).unwrap();
    assert_eq!(owner.trim(), std::process::id().to_string());
    drop(store);
    drop(EmbeddedStore::open(fs, &path).unwrap());
}

#[test]
fn files_are_the_owners_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(Arc::new(OsFs), &dir.path().join("rows")).unwrap();
    for name in ["rows", "rows.lock"] {
        assert_eq!(std::fs::metadata(dir.path().join(name)).unwrap().permissions().mode() & 0o777, 0o600, "{name}");
    }
    drop(store);
}

#[test]
fn a_missing_directory_is_named() {
    let error = EmbeddedStore::open(Arc::new(OsFs), Path::new("/nonexistent/rows")).unwrap_err();
    assert!(error.to_string().contains("its directory must exist"));
}
