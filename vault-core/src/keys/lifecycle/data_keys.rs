//! New versions of data keys.

use super::rotation::DESTROYED;
use super::{RETRIES, STEP, tenant_of};
use crate::audit::{KeyRef, Recorded};
use crate::crypto::random_bytes;
use crate::error::Error;
use crate::failpoint::{Step, around};
use crate::id::{KeyId, KeyVersion, TenantId};
use crate::keys::keyring::{Keyring, in_time};
use crate::keys::rows::{self, ActiveKeyRow, DataKeyRow, KeyState, TenantState};
use crate::policy::{Permit, RotateDataKeys};
use crate::store::{Expect, Table};

impl Keyring {
    /// Makes a new version of the data keys of a dataset, or of all datasets if the permit names none. Older versions
    /// open still. Returns how many keys got one.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an unknown tenant; [`Error::Unavailable`], [`Error::Corrupt`].
    pub async fn rotate_data_keys(&self, recorded: &Recorded<Permit<RotateDataKeys>>) -> Result<u64, Error> {
        in_time(recorded, &*self.parts.clock)?;
        let tenant = tenant_of(recorded)?;
        let (owner, _) = self.tenant_row(tenant).await?.ok_or(Error::NotFound("tenant"))?;
        if owner.state == TenantState::Destroyed {
            return Err(DESTROYED);
        }
        let prefix = match &recorded.permit().resource().dataset {
            Some(dataset) => rows::key(&[tenant.as_str().as_bytes(), dataset.as_str().as_bytes(), b""]),
            None => rows::of_tenant(tenant),
        };
        let mut after: Option<Vec<u8>> = None;
        let mut rotated = 0;
        loop {
            let found = self.parts.store.scan(Table::ActiveKeys, &prefix, after.as_deref(), STEP).await?;
            let Some(last) = found.last() else { break };
            after = Some(last.key.clone());
            for scanned in &found {
                let active: ActiveKeyRow = rows::decode(Table::ActiveKeys, &scanned.row)?;
                if self.rotate_one(tenant, &scanned.key, &active).await? {
                    rotated += 1;
                }
            }
        }
        Ok(rotated)
    }

    /// Makes the next version of one active data key; false if another call did meanwhile.
    pub(in crate::keys) async fn rotate_one(
        &self,
        tenant: &TenantId,
        active_key: &[u8],
        seen: &ActiveKeyRow,
    ) -> Result<bool, Error> {
        for _ in 0..RETRIES {
            let Some((active, active_stored)) = self.row::<ActiveKeyRow>(Table::ActiveKeys, active_key).await? else {
                return Ok(false);
            };
            if active != *seen {
                return Ok(false);
            }
            let old_key = rows::data_key_key(tenant, active.id()?);
            let (mut old, old_stored) = self
                .row::<DataKeyRow>(Table::DataKeys, &old_key)
                .await?
                .ok_or_else(|| Error::corrupt("store", "table data_keys: an active key has no row"))?;
            if old.state == KeyState::Destroyed {
                return Ok(false);
            }
            let version =
                KeyVersion(old.version).next().ok_or(Error::FailedPrecondition("a data key has no further version"))?;
            let mut id = [0; 16];
            random_bytes(&mut id)?;
            let key = KeyRef::new(KeyId(id), version);
            let (row, _) = self.tenant_row(tenant).await?.ok_or(Error::NotFound("tenant"))?;
            let under = KeyVersion(row.key_version);
            let scope = rows::scope_of_row(tenant, &old)?;
            let new = self.wrap_new(&scope, key, under).await?;
            old.state = KeyState::DecryptOnly;
            let now_active = ActiveKeyRow { key_id: id.to_vec(), version: version.0 };
            let expect = Expect::Version(active_stored.version);
            let mut writes = vec![
                rows::write(Table::DataKeys, rows::data_key_key(tenant, key.key_id), Expect::Absent, &new)?,
                rows::write(Table::DataKeys, old_key, Expect::Version(old_stored.version), &old)?,
                rows::write(Table::ActiveKeys, active_key.to_vec(), expect, &now_active)?,
            ];
            match self.unless_shredded(&scope).await {
                Ok(guard) => writes.extend(guard),
                Err(Error::FailedPrecondition(_)) => return Ok(false),
                Err(error) => return Err(error),
            }
            match around(Step::RotateDataKey, self.parts.store.commit(writes)).await {
                Ok(()) => {
                    self.follow_rotation(tenant, key.key_id, under).await?;
                    return Ok(true);
                }
                // Rotated by another call, or only rewrapped under a new tenant key: look again.
                Err(Error::Conflict(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::Conflict("data key"))
    }

    /// Puts a data key that was just made under the tenant key version that is active now, if that changed while it was
    /// made. So a rotation that has begun meanwhile has no data key made behind its back.
    pub(in crate::keys) async fn follow_rotation(
        &self,
        tenant: &TenantId,
        id: KeyId,
        made_under: KeyVersion,
    ) -> Result<(), Error> {
        for _ in 0..RETRIES {
            let (row, _) = self.tenant_row(tenant).await?.ok_or(Error::NotFound("tenant"))?;
            let under = KeyVersion(row.key_version);
            if row.state == TenantState::Destroyed {
                return Err(DESTROYED);
            }
            if under == made_under {
                return Ok(());
            }
            let key = rows::data_key_key(tenant, id);
            let Some((row, stored)) = self.row::<DataKeyRow>(Table::DataKeys, &key).await? else { return Ok(()) };
            if row.state == KeyState::Destroyed || row.tenant_key_version >= under.0 {
                return Ok(());
            }
            let write = self.rewrap_row(tenant, under, &key, Expect::Version(stored.version), row).await?;
            match around(Step::RotateFollow, self.parts.store.commit(vec![write])).await {
                Ok(()) => return Ok(()),
                // The rotation found it first.
                Err(Error::Conflict(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::Conflict("data key"))
    }
}
