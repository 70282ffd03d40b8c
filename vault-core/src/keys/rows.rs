//! The rows of the key hierarchy, as JSON: self-describing, and strict (an unknown field is damage or a newer format).

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::base64_bytes;
use crate::error::Error;
use crate::id::{DatasetId, KeyId, KeyVersion, Subject, TenantId};
use crate::kms::{RootId, Wrapping};
use crate::store::{Expect, Row, Table, Write};

/// What a key may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyState {
    /// Seals and opens; one version of a key is.
    Active,
    /// Opens only: an older version.
    DecryptOnly,
    /// Neither, for the time being.
    Suspended,
    /// Neither, for ever: the wrapped key is gone, this row is its tombstone.
    Destroyed,
}

/// What a tenant may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TenantState {
    /// Data actions are decided by policy.
    Active,
    /// No data action is allowed.
    Suspended,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TenantRow {
    pub state: TenantState,
    /// The active version of the tenant key.
    pub key_version: u32,
    pub created: u64,
    pub updated: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DatasetRow {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classification: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub residency: Option<String>,
    pub created: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "TenantKeyJson", into = "TenantKeyJson")]
pub(super) struct TenantKeyRow {
    /// The key, as the roots of its custody wrapped it.
    pub wrapping: Wrapping,
    pub state: KeyState,
    pub created: u64,
}

/// [`TenantKeyRow`] as it is written: under one root as ever since the first version, else with `wrapping`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TenantKeyJson {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    root: Option<RootId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    wrapped: Option<Base64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    wrapping: Option<Wrapping>,
    state: KeyState,
    created: u64,
}

#[derive(Serialize, Deserialize)]
struct Base64(#[serde(with = "base64_bytes")] Vec<u8>);

impl TryFrom<TenantKeyJson> for TenantKeyRow {
    type Error = &'static str;

    fn try_from(json: TenantKeyJson) -> Result<Self, Self::Error> {
        let wrapping = match (json.root, json.wrapped, json.wrapping) {
            (Some(root), Some(Base64(wrapped)), None) => Wrapping::single(root, wrapped),
            (None, None, Some(wrapping)) => wrapping,
            _ => return Err("must hold root and wrapped, or wrapping"),
        };
        Ok(Self { wrapping, state: json.state, created: json.created })
    }
}

impl From<TenantKeyRow> for TenantKeyJson {
    fn from(row: TenantKeyRow) -> Self {
        let (root, wrapped, wrapping) = match row.wrapping.into_single() {
            Ok((root, wrapped)) => (Some(root), Some(Base64(wrapped)), None),
            Err(other) => (None, None, Some(other)),
        };
        Self { root, wrapped, wrapping, state: row.state, created: row.created }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DataKeyRow {
    pub dataset: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    pub version: u32,
    pub tenant_key_version: u32,
    #[serde(with = "base64_bytes")]
    pub wrapped: Vec<u8>,
    pub state: KeyState,
    pub created: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ActiveKeyRow {
    #[serde(with = "base64_bytes")]
    pub key_id: Vec<u8>,
    pub version: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SideKeyRow {
    pub tenant_key_version: u32,
    #[serde(with = "base64_bytes")]
    pub wrapped: Vec<u8>,
    pub created: u64,
}

impl ActiveKeyRow {
    pub(super) fn id(&self) -> Result<KeyId, Error> {
        <[u8; 16]>::try_from(self.key_id.as_slice())
            .map(KeyId)
            .map_err(|_| Error::corrupt("store", "table active_keys: a key id is not 16 bytes long"))
    }
}

/// A row's key: parts joined by 00, which no identifier contains.
pub(super) fn key(parts: &[&[u8]]) -> Vec<u8> {
    parts.join(&0)
}

pub(super) fn tenant_key(tenant: &TenantId) -> Vec<u8> {
    key(&[tenant.as_str().as_bytes()])
}

pub(super) fn dataset_key(tenant: &TenantId, dataset: &DatasetId) -> Vec<u8> {
    key(&[tenant.as_str().as_bytes(), dataset.as_str().as_bytes()])
}

pub(super) fn tenant_key_key(tenant: &TenantId, version: KeyVersion) -> Vec<u8> {
    key(&[tenant.as_str().as_bytes(), &version.0.to_be_bytes()])
}

pub(super) fn data_key_key(tenant: &TenantId, id: KeyId) -> Vec<u8> {
    key(&[tenant.as_str().as_bytes(), &id.0])
}

pub(super) fn active_key(tenant: &TenantId, dataset: &DatasetId, subject: Option<&Subject>) -> Vec<u8> {
    key(&[tenant.as_str().as_bytes(), dataset.as_str().as_bytes(), subject.map_or(b"", |s| s.as_str().as_bytes())])
}

pub(super) fn side_key(tenant: &TenantId, kind: &str) -> Vec<u8> {
    key(&[tenant.as_str().as_bytes(), kind.as_bytes()])
}

/// All rows of one tenant in a table other than `tenants`.
pub(super) fn of_tenant(tenant: &TenantId) -> Vec<u8> {
    key(&[tenant.as_str().as_bytes(), b""])
}

/// Reads a row's value.
pub(super) fn decode<T: DeserializeOwned>(table: Table, row: &Row) -> Result<T, Error> {
    serde_json::from_slice(&row.value).map_err(|error| {
        // serde's message may quote the row; its position may be told.
        Error::corrupt(
            "store",
            format!("table {}: a row is not as it was written, at byte {}", table.name(), error.column()),
        )
    })
}

/// A write of a row's value.
pub(super) fn write<T: Serialize>(table: Table, key: Vec<u8>, expect: Expect, value: &T) -> Result<Write, Error> {
    let value = serde_json::to_vec(value).map_err(|_| Error::corrupt("store", "a row cannot be written as JSON"))?;
    Ok(Write { table, key, expect, value })
}

/// Refuses a row that this version does not read.
///
/// # Errors
/// [`Error::Corrupt`] naming the table.
pub(crate) fn check_row(table: Table, value: &[u8]) -> Result<(), Error> {
    let row = Row { version: 0, value: value.to_vec() };
    match table {
        Table::Tenants => decode::<TenantRow>(table, &row).map(drop),
        Table::Datasets => decode::<DatasetRow>(table, &row).map(drop),
        Table::TenantKeys => decode::<TenantKeyRow>(table, &row).map(drop),
        Table::DataKeys => decode::<DataKeyRow>(table, &row).map(drop),
        Table::ActiveKeys => decode::<ActiveKeyRow>(table, &row).map(drop),
        Table::SideKeys => decode::<SideKeyRow>(table, &row).map(drop),
    }
}

/// Whether a row is what stays of something destroyed.
pub(crate) fn is_tombstone(table: Table, value: &[u8]) -> bool {
    let row = Row { version: 0, value: value.to_vec() };
    match table {
        Table::TenantKeys => decode::<TenantKeyRow>(table, &row).is_ok_and(|row| row.state == KeyState::Destroyed),
        Table::DataKeys => decode::<DataKeyRow>(table, &row).is_ok_and(|row| row.state == KeyState::Destroyed),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A row as the first version wrote it; and what is written for one root today is the same, byte for byte.
    const FIRST_FORM: &str =
        r#"{"root":"local:0123456789abcdef","wrapped":"AQID","state":"active","created":1700000000000}"#;
    const SPLIT: &str =
        r#"{"wrapping":{"split":{"inner":"a:1","outer":"b:2","sealed":"AQID"}},"state":"decrypt_only","created":7}"#;
    const REPLICATED: &str = r#"{"wrapping":{"replicated":[{"root":"a:1","wrapped":"AQ"},{"root":"b:2","wrapped":"Ag"}]},"state":"active","created":7}"#;

    #[test]
    fn tenant_key_rows_of_every_form_are_read_and_written_alike() {
        for (text, custody) in
            [(FIRST_FORM, "local:0123456789abcdef"), (SPLIT, "split(a:1,b:2)"), (REPLICATED, "replicated(a:1,b:2)")]
        {
            let row: TenantKeyRow = serde_json::from_str(text).unwrap();
            assert_eq!(row.wrapping.custody().to_string(), custody);
            assert_eq!(serde_json::to_string(&row).unwrap(), text);
        }
    }

    #[test]
    fn tenant_key_rows_that_nobody_wrote_are_refused() {
        let replaced = [
            (FIRST_FORM, r#""wrapped":"AQID","#, ""),
            (FIRST_FORM, r#""root":"local:0123456789abcdef","#, ""),
            (FIRST_FORM, "local:", "local"),
            (FIRST_FORM, r#""state""#, r#""more":1,"state""#),
            (SPLIT, "b:2", "a:1"),
            (SPLIT, r#""state""#, r#""root":"a:1","state""#),
            (SPLIT, "AQID", "AQI="),
            (SPLIT, r#""sealed":"AQID""#, r#""sealed":"AQID","more":1"#),
            (REPLICATED, "b:2", "a:1"),
            (REPLICATED, r#",{"root":"b:2","wrapped":"Ag"}"#, ""),
            (REPLICATED, "replicated", "either"),
        ];
        for (text, from, to) in replaced {
            assert!(text.contains(from), "{from}");
            let bad = text.replacen(from, to, 1);
            assert!(serde_json::from_str::<TenantKeyRow>(&bad).is_err(), "{bad}");
        }
    }
}
