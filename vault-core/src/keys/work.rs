//! What is under way for a tenant in bounded steps, and what is scheduled: one row a tenant.
//!
//! Each step's commit writes this row with the rows it changes, so what the row says is done is done, and two who carry
//! out the same work at the same time cannot do a step twice: the later one's commit meets a newer row.

use serde::{Deserialize, Serialize};

use super::keyring::Keyring;
use super::rows;
use crate::base64_bytes;
use crate::error::Error;
use crate::id::{ApprovalId, TenantId};
use crate::store::{Expect, Table, Write};

/// What is under way for a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WorkRow {
    /// The tenant key's rotation that runs, or the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<RotationRow>,
    /// The shred that runs, or the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shred: Option<ShredRow>,
    /// Versions of the tenant key that are to be destroyed, in the order of their versions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub destructions: Vec<DestructionRow>,
}

/// How far a shred got.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ShredRow {
    /// The approval that it carries out.
    pub approval: ApprovalId,
    /// Whose keys; all of the tenant's if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// What stands for the subject in the audit log: taken at the beginning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pseudonym: Option<Cursor>,
    /// The tenant key version that was active: it and those before it are to go, or are gone.
    pub under: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Cursor>,
    /// Data keys destroyed.
    pub keys: u64,
    /// The first of them.
    pub listed: Vec<ListedKey>,
    /// Over all of them, in order.
    pub digest: Cursor,
    pub started: u64,
    pub updated: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished: Option<u64>,
}

/// A data key version that a shred destroyed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListedKey {
    pub id: Cursor,
    pub version: u32,
}

/// A tenant key version, and all before it, that a shred leaves to be destroyed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DestructionRow {
    pub version: u32,
    /// Not before.
    pub due: u64,
}

/// How far a rotation of the tenant key got.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RotationRow {
    /// The version before.
    pub from: u32,
    /// The version that it makes active.
    pub to: u32,
    /// The last data key row that this pass has seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Cursor>,
    /// Passes begun: the last one finds nothing left.
    pub pass: u32,
    /// Data keys that this pass rewrapped.
    pub in_pass: u64,
    /// Data keys that this pass has seen.
    pub seen: u64,
    /// Data keys that all passes rewrapped.
    pub rewrapped: u64,
    pub started: u64,
    pub updated: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished: Option<u64>,
}

impl RotationRow {
    /// One that begins.
    pub(super) const fn begun(from: u32, to: u32, now: u64) -> Self {
        Self {
            from,
            to,
            after: None,
            pass: 1,
            in_pass: 0,
            seen: 0,
            rewrapped: 0,
            started: now,
            updated: now,
            finished: None,
        }
    }
}

/// Bytes in base64: a row's key as a place in a scan, an id, a digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Cursor(#[serde(with = "base64_bytes")] pub Vec<u8>);

impl WorkRow {
    /// The rotation, while it runs.
    pub(super) fn running(&self) -> Option<&RotationRow> {
        self.rotation.as_ref().filter(|rotation| rotation.finished.is_none())
    }

    /// Whether anything is left to do, now or later.
    pub(super) fn is_open(&self) -> bool {
        self.running().is_some() || self.shredding().is_some() || !self.destructions.is_empty()
    }

    /// The shred, while it runs.
    pub(super) fn shredding(&self) -> Option<&ShredRow> {
        self.shred.as_ref().filter(|shred| shred.finished.is_none())
    }
}

/// A tenant's work as it was read, and what a write of it must expect.
#[derive(Debug, Clone)]
pub(super) struct Work {
    pub row: WorkRow,
    expect: Expect,
}

impl Work {
    /// The write that puts the row back as it is now.
    pub(super) fn write(&self, tenant: &TenantId) -> Result<Write, Error> {
        rows::write(Table::Work, rows::tenant_key(tenant), self.expect, &self.row)
    }
}

impl Keyring {
    /// What is under way for a tenant; nothing if there is no row.
    pub(super) async fn work(&self, tenant: &TenantId) -> Result<Work, Error> {
        Ok(match self.row::<WorkRow>(Table::Work, &rows::tenant_key(tenant)).await? {
            Some((row, stored)) => Work { row, expect: Expect::Version(stored.version) },
            None => Work { row: WorkRow::default(), expect: Expect::Absent },
        })
    }

    /// Up to `limit` tenants after one for which something is under way or scheduled; and where to go on, `None` at the
    /// end of all.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Corrupt`].
    pub(crate) async fn tenants_with_work(
        &self,
        after: Option<&TenantId>,
        limit: usize,
    ) -> Result<(Vec<TenantId>, Option<TenantId>), Error> {
        let after = after.map(rows::tenant_key);
        let found = self.parts.store.scan(Table::Work, b"", after.as_deref(), limit).await?;
        let mut open = Vec::new();
        let mut last = None;
        for scanned in &found {
            let tenant = rows::id_from(&scanned.key, TenantId::parse)?;
            if rows::decode::<WorkRow>(Table::Work, &scanned.row)?.is_open() {
                open.push(tenant.clone());
            }
            last = Some(tenant);
        }
        Ok((open, last.filter(|_| found.len() == limit)))
    }
}
