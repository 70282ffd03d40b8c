//! The rows of the key hierarchy, as JSON: self-describing, and strict (an unknown field is damage or a newer format).

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::id::{DatasetId, KeyId, KeyVersion, Subject, TenantId};
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
#[serde(deny_unknown_fields)]
pub(super) struct TenantKeyRow {
    /// The id of the root key that wrapped it.
    pub root: String,
    #[serde(with = "base64_bytes")]
    pub wrapped: Vec<u8>,
    pub state: KeyState,
    pub created: u64,
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

mod base64_bytes {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD_NO_PAD;
    use serde::{Deserialize as _, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&STANDARD_NO_PAD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        STANDARD_NO_PAD.decode(text).map_err(|_| de::Error::custom("not base64"))
    }
}
