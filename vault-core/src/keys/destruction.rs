//! The end of tenant key versions: rotated away from, searched once more, then destroyed when they are due.
//!
//! A shred of a subject leaves the versions above the destroyed data keys on a list, in the tenant's work row. Whoever
//! tends the vault takes them off it.

use super::keyring::Keyring;
use super::lifecycle::Turn;
use super::rows::{self, KeyState, TenantKeyRow};
use super::work::{RotationRow, Work};
use crate::error::Error;
use crate::failpoint::{Step, around};
use crate::id::{KeyVersion, TenantId};
use crate::store::{Expect, Table, Write};

/// Rows of one step.
const STEP: usize = 256;

/// Versions of a tenant key that are ripe for destruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Destruction {
    /// This one and all before it.
    pub version: KeyVersion,
}

impl Keyring {
    /// Tombstones for the tenant key versions up to one, and whether more are left than fit.
    pub(super) async fn tenant_keys_gone(
        &self,
        tenant: &TenantId,
        up_to: KeyVersion,
        most: usize,
    ) -> Result<(Vec<Write>, bool), Error> {
        let prefix = rows::of_tenant(tenant);
        let mut after: Option<Vec<u8>> = None;
        let mut writes = Vec::new();
        loop {
            let found = self.parts.store.scan(Table::TenantKeys, &prefix, after.as_deref(), STEP).await?;
            let Some(last) = found.last() else { return Ok((writes, false)) };
            after = Some(last.key.clone());
            for scanned in &found {
                let version = scanned.key.last_chunk().map(|version| u32::from_be_bytes(*version));
                let row: TenantKeyRow = rows::decode(Table::TenantKeys, &scanned.row)?;
                if row.state == KeyState::Destroyed || version.is_none_or(|version| version > up_to.0) {
                    continue;
                }
                if writes.len() == most {
                    return Ok((writes, true));
                }
                let expect = Expect::Version(scanned.row.version);
                writes.push(rows::write(Table::TenantKeys, scanned.key.clone(), expect, &row.tombstone())?);
            }
        }
    }

    /// Carries on what leads to the destruction of tenant key versions: rotates away from them, and when they are due
    /// looks through all data keys once more, so that none is lost with them.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Corrupt`]; [`Error::FailedPrecondition`] if the tenant's custody names a root key
    /// that this vault is not given.
    pub(crate) async fn destruction_turn(&self, tenant: &TenantId) -> Result<Turn<Destruction>, Error> {
        let mut work = self.work(tenant).await?;
        let Some(destruction) = work.row.destructions.first().cloned() else { return Ok(Turn::Idle) };
        if work.row.running().is_some() || work.row.shredding().is_some() {
            return Ok(Turn::Idle);
        }
        let (row, stored) = self.tenant_row(tenant).await?.ok_or(Error::NotFound("tenant"))?;
        let now = self.parts.clock.now().0;
        if row.key_version <= destruction.version {
            let (old, _) = self.active_version(tenant, KeyVersion(row.key_version)).await?;
            let custody = old.wrapping.custody();
            self.parts.roots.check(&custody)?;
            let writes = self.new_version(tenant, (row, stored.version), custody, work).await?;
            return around(Step::DestroyRotate, self.turned(writes)).await;
        }
        if now < destruction.due {
            return Ok(Turn::Idle);
        }
        let searched = |rotation: &RotationRow| {
            rotation.finished.is_some() && rotation.started >= destruction.due && rotation.to > destruction.version
        };
        if work.row.rotation.as_ref().is_some_and(searched) {
            return Ok(Turn::Ready(Destruction { version: KeyVersion(destruction.version) }));
        }
        work.row.rotation = Some(RotationRow::begun(row.key_version, row.key_version, now));
        let writes = vec![work.write(tenant)?];
        around(Step::DestroySearch, self.turned(writes)).await
    }

    pub(super) async fn turned<T>(&self, writes: Vec<Write>) -> Result<Turn<T>, Error> {
        match self.parts.store.commit(writes).await {
            // Another was faster.
            Ok(()) | Err(Error::Conflict(_)) => Ok(Turn::More),
            Err(error) => Err(error),
        }
    }

    /// Destroys the tenant key versions of a destruction that is ripe, and takes it off the list.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Corrupt`].
    pub(crate) async fn end_destruction(&self, tenant: &TenantId, ripe: &Destruction) -> Result<(), Error> {
        loop {
            let mut work: Work = self.work(tenant).await?;
            if work.row.destructions.first().is_none_or(|first| first.version != ripe.version.0) {
                return Ok(());
            }
            let (mut writes, more) = self.tenant_keys_gone(tenant, ripe.version, STEP).await?;
            if !more {
                work.row.destructions.remove(0);
            }
            writes.push(work.write(tenant)?);
            match around(Step::DestroyEnd, self.parts.store.commit(writes)).await {
                Ok(()) if more => continue,
                Ok(()) => {}
                // Another does the same; it is looked at again the next time.
                Err(Error::Conflict(_)) => return Ok(()),
                Err(error) => return Err(error),
            }
            self.evict_tenant(tenant);
            return Ok(());
        }
    }
}
