//! What is under way for a tenant in bounded steps, and what is scheduled: one row a tenant.
//!
//! Each step's commit writes this row with the rows it changes, so what the row says is done is done, and two who carry
//! out the same work at the same time cannot do a step twice: the later one's commit meets a newer row.

use serde::{Deserialize, Serialize};

use super::keyring::Keyring;
use super::rows;
use crate::base64_bytes;
use crate::error::Error;
use crate::id::TenantId;
use crate::store::{Expect, Table, Write};

/// What is under way for a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WorkRow {
    /// The tenant key's rotation that runs, or the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<RotationRow>,
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

/// A row's key, as a place in a scan.
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
        self.running().is_some()
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
