//! Bundles as rows. All keys begin with [`POLICY_ROWS`], then 00 and:
//!
//! ```text
//! active                    which bundle is in force: the one row that is replaced, and the only way to change that
//! bundle 00 u64 version     what a bundle is called, who brought it, who signed it
//! chunk  00 u64 version u16 n   its canonical bytes, in pieces
//! proof  00 u64 version     its proof record
//! past   00 u64 version     that it came into force, by which approval
//! charter                   which charter is in force; replaced, too
//! charter-text 00 digest    the text of a charter
//! ```
//! The rows of a version are written once, so no two bundles have the same version.

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::id::{ApprovalId, Fingerprint};
use crate::store::{Expect, POLICY_ROWS, Row, Table, Write};

/// What a row begins with that is a piece of text; the others are JSON.
const PIECE: u8 = 1;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum PolicyRow {
    Active(ActiveRow),
    Bundle(BundleRow),
    Past(PastRow),
    Charter(CharterRow),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ActiveRow {
    /// 0 while none is: then the files are that the configuration names.
    pub(super) version: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) digest: Option<Fingerprint>,
    pub(super) since: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BundleRow {
    pub(super) version: u64,
    pub(super) digest: Fingerprint,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) previous: Option<Fingerprint>,
    pub(super) created: u64,
    pub(super) not_before: u64,
    pub(super) comment: String,
    pub(super) policies: u64,
    pub(super) workloads: u64,
    pub(super) signers: Vec<String>,
    pub(super) signatures: Vec<String>,
    pub(super) proof: bool,
    pub(super) proposer: String,
    pub(super) proposed: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PastRow {
    pub(super) digest: Fingerprint,
    /// Absent if it was installed while no gateway ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) approval: Option<ApprovalId>,
    pub(super) since: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CharterRow {
    pub(super) number: u64,
    pub(super) digest: Fingerprint,
    pub(super) since: u64,
    /// Absent for the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) approval: Option<ApprovalId>,
}

/// Refuses a row that this version does not read.
///
/// # Errors
/// [`Error::Corrupt`].
pub(crate) fn check_row(value: &[u8]) -> Result<(), Error> {
    if value.first() == Some(&PIECE) { Ok(()) } else { decode(value).map(drop) }
}

pub(super) fn damaged(at: impl std::fmt::Display) -> Error {
    Error::corrupt("store", format!("table policies: {at}"))
}

pub(super) fn decode(value: &[u8]) -> Result<PolicyRow, Error> {
    // serde's message may quote the row; its position may be told.
    serde_json::from_slice(value)
        .map_err(|error| damaged(format_args!("a row is not as it was written, at byte {}", error.column())))
}

pub(super) fn key(kind: &str, rest: &[&[u8]]) -> Vec<u8> {
    let mut key = [POLICY_ROWS, kind.as_bytes()].join(&0);
    if !rest.is_empty() {
        key.push(0);
    }
    rest.iter().for_each(|part| key.extend_from_slice(part));
    key
}

pub(super) fn write(key: Vec<u8>, expect: Expect, value: Vec<u8>) -> Write {
    Write { table: Table::Policies, key, expect, value, revokes: false }
}

pub(super) fn write_row(key: Vec<u8>, expect: Expect, row: &PolicyRow) -> Result<Write, Error> {
    let value = serde_json::to_vec(row).map_err(|_| damaged("a row cannot be written as JSON"))?;
    Ok(write(key, expect, value))
}

pub(super) fn piece(text: &[u8]) -> Vec<u8> {
    [&[PIECE], text].concat()
}

pub(super) fn text_of(row: &Row) -> Result<&[u8], Error> {
    match row.value.split_first() {
        Some((&PIECE, text)) => Ok(text),
        _ => Err(damaged("a piece of a bundle is not as it was written")),
    }
}
