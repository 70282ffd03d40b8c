//! A row of the embedded store is read from exactly the bytes that were written for its table and key; the values of rows
//! and the records of backups are read without a panic whatever they are, and a record is written as it was read.
#![no_main]

use arbitrary::Arbitrary;
use blindvault_fuzz::change::{Change, changed};
use libfuzzer_sys::fuzz_target;
use vault_core::Error;
use vault_core::fuzzing::{check_row, decode_row, encode_row, rewrite_records};
use vault_core::store::Table;

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    table: u8,
    key: &'a [u8],
    version: u64,
    /// Where it is read; `None` where it was written.
    read: Option<(u8, &'a [u8])>,
    changes: Vec<Change>,
    value: &'a [u8],
}

fn table(by: u8) -> Table {
    Table::ALL[usize::from(by) % Table::ALL.len()]
}

fuzz_target!(|input: Input<'_>| {
    let Input { key, version, value, .. } = input;
    let written = encode_row(table(input.table), key, version, value);
    let (other, other_key) = input.read.unwrap_or((input.table, key));
    let spoiled = changed(&written, &input.changes);
    let same = spoiled == written && table(other) == table(input.table) && other_key == key;
    let read = decode_row(table(other), other_key, &spoiled);
    assert_eq!(read.map(|row| (row.version, row.value)), same.then(|| (version, value.to_vec())));
    if let Err(error) = check_row(table(input.table), value) {
        // Policy rows hold bundles, whose errors name the field.
        assert!(matches!(error, Error::Corrupt { .. } | Error::Invalid { .. }), "{error}");
    }
    assert!(rewrite_records(value).is_none_or(|again| again == value));
});
