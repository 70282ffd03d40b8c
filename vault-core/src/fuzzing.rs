//! What the targets in `fuzz/` need of the inside. Only cargo-fuzz compiles it: no other build has this module.

use crate::error::Error;
use crate::store::{Row, Table};

/// A row's bytes in the embedded store.
pub fn encode_row(table: Table, key: &[u8], version: u64, value: &[u8]) -> Vec<u8> {
    crate::store::fuzzing::encode_row(table, key, version, value)
}

/// The row in bytes of the embedded store, if they are one of this table and key.
pub fn decode_row(table: Table, key: &[u8], bytes: &[u8]) -> Option<Row> {
    crate::store::fuzzing::decode_row(table, key, bytes)
}

/// Reads the value of a row of the vault's.
///
/// # Errors
/// [`Error::Corrupt`] naming the table.
pub fn check_row(table: Table, value: &[u8]) -> Result<(), Error> {
    crate::keys::check_row(table, value)
}

/// Reads the records of a backup's chunk, and writes them again; `None` if some bytes are none.
pub fn rewrite_records(chunk: &[u8]) -> Option<Vec<u8>> {
    crate::backup::fuzzing::rewrite_records(chunk)
}
