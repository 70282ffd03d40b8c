//! Keys that have lived or sealed long enough: counted here, rotated in small steps by whoever tends the vault.
//!
//! *Age* is read from the rows. *Uses* are counted in memory and added to the data key's row each time a whole block of
//! them is full, before the call that fills it seals: so the row counts too little by at most a block, and the calls that
//! run meanwhile, for each process that has used the key since it was made, crashed or not. A key that seals little costs
//! no write. A block that could not be written is counted again, and the call that tried it fails. A data key whose row
//! comes near 2^48 seals no more, whatever else is set.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::keyring::Keyring;
use super::rows::{self, ActiveKeyRow, DataKeyRow, KeyState, TenantKeyRow, TenantRow, TenantState};
use crate::audit::KeyRef;
use crate::error::Error;
use crate::id::{KeyId, KeyVersion, TenantId};
use crate::store::{Expect, Table};

/// Rows looked at in one step.
const STEP: usize = 256;
/// How often a count is tried again when another writer comes between.
const RETRIES: usize = 16;
/// What a row may say. No data key seals more than 2^48 (`docs/format.md`, section 11); the rest is room for what no row
/// says yet, a block for each of 4,096 processes.
const MOST_USES: u64 = (1 << 48) - (1 << 32);
/// Keys counted at the same time. Beyond, all counts in memory begin anew, which is the same as for a crash.
const MOST_COUNTED: usize = 1_000_000;

const WORN_OUT: Error = Error::FailedPrecondition("the data key has sealed as much as it may; rotate the data keys");

/// When keys are due for rotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Due {
    pub data_key_age: Option<u64>,
    pub data_key_uses: u64,
}

/// Uses of data keys that no row has yet.
#[derive(Debug)]
pub(super) struct Uses {
    counts: papaya::HashMap<KeyId, Arc<AtomicU64>>,
    block: AtomicU64,
}

impl Uses {
    pub(super) fn new() -> Self {
        Self { counts: papaya::HashMap::new(), block: AtomicU64::new(block_of(MOST_USES)) }
    }
}

/// Uses taken from a count to be written. They go back if they are not, also when the call is cancelled.
struct Taken<'a> {
    count: &'a AtomicU64,
    uses: u64,
}

impl Taken<'_> {
    fn written(mut self) {
        self.uses = 0;
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.count.fetch_add(self.uses, Ordering::Relaxed);
    }
}

/// A sixteenth of what a key may seal, 1 to 2^20.
fn block_of(uses: u64) -> u64 {
    (uses / 16).clamp(1, 1 << 20)
}

impl Keyring {
    /// Sets how many uses may be in memory only, from how many uses make a key due.
    pub(crate) fn count_for(&self, uses: u64) {
        self.uses.block.store(block_of(uses), Ordering::Relaxed);
    }

    /// Counts one use of a data key, before it seals.
    ///
    /// # Errors
    /// [`Error::FailedPrecondition`] if it has sealed 2^48 times; [`Error::Unavailable`], [`Error::Corrupt`] if a full
    /// block cannot be written.
    pub(super) async fn count_use(&self, tenant: &TenantId, key: KeyRef) -> Result<(), Error> {
        let count = {
            let counts = self.uses.counts.pin();
            if counts.len() >= MOST_COUNTED {
                counts.clear();
            }
            Arc::clone(counts.get_or_insert_with(key.key_id, || Arc::new(AtomicU64::new(0))))
        };
        let block = self.uses.block.load(Ordering::Relaxed);
        count.fetch_add(1, Ordering::Relaxed);
        let full = count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |uses| uses.checked_sub(block));
        if full.is_err() {
            return Ok(());
        }
        let taken = Taken { count: &count, uses: block };
        self.add_uses(tenant, key.key_id, block).await?;
        taken.written();
        Ok(())
    }

    async fn add_uses(&self, tenant: &TenantId, id: KeyId, uses: u64) -> Result<(), Error> {
        let key = rows::data_key_key(tenant, id);
        for _ in 0..RETRIES {
            let Some((mut row, stored)) = self.row::<DataKeyRow>(Table::DataKeys, &key).await? else { return Ok(()) };
            if row.state == KeyState::Destroyed {
                return Ok(());
            }
            if row.uses >= MOST_USES {
                return Err(WORN_OUT);
            }
            row.uses = row.uses.saturating_add(uses);
            let write = rows::write(Table::DataKeys, key.clone(), Expect::Version(stored.version), &row)?;
            match self.parts.store.commit(vec![write]).await {
                Err(Error::Conflict(_)) => {}
                done => return done,
            }
        }
        Err(Error::Conflict("data key"))
    }

    /// Looks at some data keys and rotates those that are due. Returns how many, and where to go on, `None` at the end.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Corrupt`].
    pub(crate) async fn rotate_due_data_keys(
        &self,
        due: Due,
        after: Option<&[u8]>,
    ) -> Result<(Vec<(TenantId, KeyId)>, Option<Vec<u8>>), Error> {
        let found = self.parts.store.scan(Table::DataKeys, b"", after, STEP).await?;
        let now = self.parts.clock.now().0;
        let mut rotated = Vec::new();
        for scanned in &found {
            let row: DataKeyRow = rows::decode(Table::DataKeys, &scanned.row)?;
            let old = due.data_key_age.is_some_and(|age| now.saturating_sub(row.created) >= age);
            if row.state != KeyState::Active || !(old || row.uses >= due.data_key_uses) {
                continue;
            }
            let tenant = rows::tenant_of_key(&scanned.key)?;
            let id = rows::key_id_from(&scanned.key)?;
            let scope = rows::scope_of_row(&tenant, &row)?;
            let (owner, _) = self.tenant_row(&tenant).await?.ok_or(Error::NotFound("tenant"))?;
            let active_key = rows::active_key(&tenant, &scope.dataset, scope.subject.as_ref());
            let active = ActiveKeyRow { key_id: id.0.to_vec(), version: row.version };
            if owner.state == TenantState::Active && self.rotate_one(&tenant, &active_key, &active).await? {
                rotated.push((tenant, id));
            }
        }
        let next = found.last().filter(|_| found.len() == STEP).map(|last| last.key.clone());
        Ok((rotated, next))
    }

    /// Looks at some tenants and begins the rotation of the tenant keys that are due. Returns whose, and where to go on,
    /// `None` at the end.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Corrupt`].
    pub(crate) async fn rotate_due_tenant_keys(
        &self,
        age: u64,
        after: Option<&[u8]>,
    ) -> Result<(Vec<TenantId>, Option<Vec<u8>>), Error> {
        let found = self.parts.store.scan(Table::Tenants, b"", after, STEP).await?;
        let now = self.parts.clock.now().0;
        let mut begun = Vec::new();
        for scanned in &found {
            let tenant = rows::id_from(&scanned.key, TenantId::parse)?;
            let row: TenantRow = rows::decode(Table::Tenants, &scanned.row)?;
            if row.state != TenantState::Active {
                continue;
            }
            let (key, _): (TenantKeyRow, _) = self.active_version(&tenant, KeyVersion(row.key_version)).await?;
            let work = self.work(&tenant).await?;
            if now.saturating_sub(key.created) < age || work.row.running().is_some() {
                continue;
            }
            let custody = key.wrapping.custody();
            if self.parts.roots.check(&custody).is_err() {
                // Its operators have to say where it goes.
                continue;
            }
            let writes = self.new_version(&tenant, (row, scanned.row.version), custody, work).await?;
            match self.parts.store.commit(writes).await {
                Ok(()) => begun.push(tenant),
                Err(Error::Conflict(_)) => {}
                Err(error) => return Err(error),
            }
        }
        let next = found.last().filter(|_| found.len() == STEP).map(|last| last.key.clone());
        Ok((begun, next))
    }
}
