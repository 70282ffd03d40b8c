//! The rows of the key hierarchy, as JSON: self-describing, and strict (an unknown field is damage or a newer format).

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::base64_bytes;
use crate::envelope::Scope;
use crate::error::Error;
use crate::id::{DatasetId, KeyId, KeyVersion, Subject, TenantId};
use crate::kms::{Custody, RootId, Wrapping};
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
    /// Shredded: its keys are gone, for ever, and its name is not used again.
    Destroyed,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TenantRow {
    pub state: TenantState,
    /// The active version of the tenant key.
    pub key_version: u32,
    pub created: u64,
    pub updated: u64,
    /// The rows of this tenant's subjects list their data keys, ever since it was made. Earlier versions listed none.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lists_subject_keys: bool,
    /// There is a row in the table `access` for all datasets.
    #[serde(default, skip_serializing_if = "is_false")]
    pub access: bool,
    /// Since when it is suspended, and by whom. Earlier versions did not note it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspended: Option<SuspendedRow>,
}

/// Who suspended a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SuspendedRow {
    pub at: u64,
    /// The SPIFFE ID of the operator.
    pub by: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DatasetRow {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classification: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub residency: Option<String>,
    pub created: u64,
    /// Its plaintext is released only for purposes that the tenant consented to. Set when it is declared, for ever.
    #[serde(default, skip_serializing_if = "is_false")]
    pub consent_required: bool,
    /// There is a row in the table `access` for it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub access: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "TenantKeyJson", into = "TenantKeyJson")]
pub(super) struct TenantKeyRow {
    /// The key, as the roots of its custody wrapped it, or what is left of it.
    pub wrapping: Kept,
    pub state: KeyState,
    pub created: u64,
}

/// A wrapped tenant key, or its tombstone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kept {
    Wrapped(Wrapping),
    /// Destroyed. The custody it was under stays, to be shown.
    Gone(Custody),
}

impl Kept {
    pub(super) fn custody(&self) -> Custody {
        match self {
            Self::Wrapped(wrapping) => wrapping.custody(),
            Self::Gone(custody) => custody.clone(),
        }
    }

    /// The wrapped key, while there is one.
    pub(super) const fn wrapped(&self) -> Result<&Wrapping, Error> {
        match self {
            Self::Wrapped(wrapping) => Ok(wrapping),
            Self::Gone(_) => Err(Error::FailedPrecondition("the tenant key version is destroyed")),
        }
    }
}

impl TenantKeyRow {
    /// The row without its key.
    pub(super) fn tombstone(&self) -> Self {
        Self { wrapping: Kept::Gone(self.wrapping.custody()), state: KeyState::Destroyed, created: self.created }
    }
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gone: Option<String>,
    state: KeyState,
    created: u64,
}

/// Bytes in base64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Base64(#[serde(with = "base64_bytes")] pub Vec<u8>);

impl TryFrom<TenantKeyJson> for TenantKeyRow {
    type Error = &'static str;

    fn try_from(json: TenantKeyJson) -> Result<Self, Self::Error> {
        let destroyed = json.state == KeyState::Destroyed;
        let wrapping = match (json.root, json.wrapped, json.wrapping, json.gone) {
            (Some(root), Some(Base64(wrapped)), None, None) if !destroyed => {
                Kept::Wrapped(Wrapping::single(root, wrapped))
            }
            (None, None, Some(wrapping), None) if !destroyed => Kept::Wrapped(wrapping),
            (None, None, None, Some(custody)) if destroyed => {
                Kept::Gone(Custody::parse(&custody).map_err(|_| "gone must name a custody")?)
            }
            _ => return Err("must hold root and wrapped, or wrapping, or if destroyed gone"),
        };
        Ok(Self { wrapping, state: json.state, created: json.created })
    }
}

impl From<TenantKeyRow> for TenantKeyJson {
    fn from(row: TenantKeyRow) -> Self {
        let (root, wrapped, wrapping, gone) = match row.wrapping {
            Kept::Wrapped(wrapping) => match wrapping.into_single() {
                Ok((root, wrapped)) => (Some(root), Some(Base64(wrapped)), None, None),
                Err(other) => (None, None, Some(other), None),
            },
            Kept::Gone(custody) => (None, None, None, Some(custody.to_string())),
        };
        Self { root, wrapped, wrapping, gone, state: row.state, created: row.created }
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
    /// How often it sealed, in whole blocks.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub uses: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde demands the reference")]
const fn is_zero(uses: &u64) -> bool {
    *uses == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde demands the reference")]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

impl DataKeyRow {
    /// The row without its key.
    pub(super) fn tombstone(&self) -> Self {
        Self { wrapped: Vec::new(), state: KeyState::Destroyed, ..self.clone() }
    }
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

impl SideKeyRow {
    /// The row without its key.
    pub(super) fn tombstone(&self) -> Self {
        Self { wrapped: Vec::new(), ..self.clone() }
    }
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

pub(super) fn subject_key(tenant: &TenantId, subject: &Subject) -> Vec<u8> {
    key(&[tenant.as_str().as_bytes(), subject.as_str().as_bytes()])
}

pub(super) fn side_key(tenant: &TenantId, kind: &str) -> Vec<u8> {
    key(&[tenant.as_str().as_bytes(), kind.as_bytes()])
}

/// Of a dataset, or of all.
pub(super) fn access_key(tenant: &TenantId, dataset: Option<&DatasetId>) -> Vec<u8> {
    key(&[tenant.as_str().as_bytes(), dataset.map_or(b"", |dataset| dataset.as_str().as_bytes())])
}

/// Of a consent or a grant.
pub(super) fn named_key(tenant: &TenantId, id: [u8; 16]) -> Vec<u8> {
    key(&[tenant.as_str().as_bytes(), &id])
}

/// All rows of one tenant in a table other than `tenants`.
pub(super) fn of_tenant(tenant: &TenantId) -> Vec<u8> {
    key(&[tenant.as_str().as_bytes(), b""])
}

fn damaged_key() -> Error {
    Error::corrupt("store", "a row's key is not as it was written")
}

/// The identifier that a row's key, or the end of one, is.
pub(super) fn id_from<T>(key: &[u8], parse: impl FnOnce(&str) -> Result<T, Error>) -> Result<T, Error> {
    std::str::from_utf8(key).ok().and_then(|text| parse(text).ok()).ok_or_else(damaged_key)
}

/// The data key's id at the end of a row's key.
pub(super) fn key_id_from(key: &[u8]) -> Result<KeyId, Error> {
    key.last_chunk().map(|id| KeyId(*id)).ok_or_else(damaged_key)
}

/// The consent's or grant's id at the end of a row's key.
pub(super) fn named_id(key: &[u8]) -> Result<[u8; 16], Error> {
    key.last_chunk().copied().ok_or_else(damaged_key)
}

/// The tenant at the beginning of a row's key.
pub(super) fn tenant_of_key(key: &[u8]) -> Result<TenantId, Error> {
    id_from(key.split(|byte| *byte == 0).next().unwrap_or_default(), TenantId::parse)
}

/// The scope that a data key's row names.
pub(super) fn scope_of_row(tenant: &TenantId, row: &DataKeyRow) -> Result<Scope, Error> {
    let damaged = |_| Error::corrupt("store", "table data_keys: a row names no valid scope");
    Ok(Scope {
        tenant: tenant.clone(),
        dataset: DatasetId::parse(&row.dataset).map_err(damaged)?,
        subject: row.subject.as_deref().map(Subject::parse).transpose().map_err(damaged)?,
    })
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

/// How a destroyed key or tenant stands in a row.
const DESTROYED_MARK: &[u8] = br#""state":"destroyed""#;

/// A write of a row's value.
pub(super) fn write<T: Serialize>(table: Table, key: Vec<u8>, expect: Expect, value: &T) -> Result<Write, Error> {
    let value = serde_json::to_vec(value).map_err(|_| Error::corrupt("store", "a row cannot be written as JSON"))?;
    // Tombstones are written by this module alone, and all of them say so in the same words.
    let revokes = value.windows(DESTROYED_MARK.len()).any(|part| part == DESTROYED_MARK);
    Ok(Write { table, key, expect, value, revokes })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A row as the first version wrote it; and what is written for one root today is the same, byte for byte.
    const FIRST_FORM: &str =
        r#"{"root":"local:0123456789abcdef","wrapped":"AQID","state":"active","created":1700000000000}"#;
    const SPLIT: &str =
        r#"{"wrapping":{"split":{"inner":"a:1","outer":"b:2","sealed":"AQID"}},"state":"decrypt_only","created":7}"#;
    const GONE: &str = r#"{"gone":"split(a:1,b:2)","state":"destroyed","created":7}"#;
    const REPLICATED: &str = r#"{"wrapping":{"replicated":[{"root":"a:1","wrapped":"AQ"},{"root":"b:2","wrapped":"Ag"}]},"state":"active","created":7}"#;

    #[test]
    fn tenant_key_rows_of_every_form_are_read_and_written_alike() {
        for (text, custody) in [
            (FIRST_FORM, "local:0123456789abcdef"),
            (SPLIT, "split(a:1,b:2)"),
            (REPLICATED, "replicated(a:1,b:2)"),
            (GONE, "split(a:1,b:2)"),
        ] {
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
            (GONE, "destroyed", "active"),
            (GONE, "split(a:1,b:2)", "split(a:1)"),
            (SPLIT, "decrypt_only", "destroyed"),
            (FIRST_FORM, "active", "destroyed"),
        ];
        for (text, from, to) in replaced {
            assert!(text.contains(from), "{from}");
            let bad = text.replacen(from, to, 1);
            assert!(serde_json::from_str::<TenantKeyRow>(&bad).is_err(), "{bad}");
        }
    }
}
