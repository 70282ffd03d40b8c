//! For [`crate::fuzzing`].

use super::{Row, Table, row};

pub(crate) fn encode_row(table: Table, key: &[u8], version: u64, value: &[u8]) -> Vec<u8> {
    row::encode(table, key, version, value)
}

pub(crate) fn decode_row(table: Table, key: &[u8], bytes: &[u8]) -> Option<Row> {
    row::decode(table, key, bytes).ok()
}
