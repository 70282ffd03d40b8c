//! Tenants, datasets, and the life of their keys: making, suspending, rotating.

use super::keyring::{Keyring, PSEUDONYMS, in_time};
use super::rows::{
    self, ActiveKeyRow, DataKeyRow, DatasetRow, KeyState, SideKeyRow, TenantKeyRow, TenantRow, TenantState,
};
use crate::audit::{KeyRef, Recorded};
use crate::crypto::random_bytes;
use crate::envelope::Scope;
use crate::error::Error;
use crate::id::{DatasetId, KeyId, KeyVersion, Subject, TenantId};
use crate::kms::Custody;
use crate::policy::{
    CreateDataset, CreateTenant, GetDataset, GetTenant, ListDatasets, ListTenants, Permit, ResumeTenant,
    RotateDataKeys, RotateTenantKey, SuspendTenant,
};
use crate::secret::Key32;
use crate::store::{Expect, Row, Table};
use crate::time::Timestamp;

/// Rows read in one step of a rotation or a list.
const STEP: usize = 256;
/// How often a read-change-write starts over when another writer comes between.
const RETRIES: usize = 16;

/// A tenant as operators see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// Its id.
    pub id: TenantId,
    /// Active or suspended.
    pub state: TenantState,
    /// The active version of the tenant key.
    pub key_version: KeyVersion,
    /// The root keys that hold that version, and how.
    pub custody: Custody,
    /// When the tenant was made.
    pub created: Timestamp,
    /// When its state or key version changed last.
    pub updated: Timestamp,
    /// Grows with each change.
    pub revision: u64,
}

/// A dataset as operators see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dataset {
    /// Whose it is.
    pub tenant: TenantId,
    /// Its id.
    pub id: DatasetId,
    /// How sensitive it is, for policies.
    pub classification: Option<String>,
    /// Where it must stay, for policies.
    pub residency: Option<String>,
    /// When it was declared.
    pub created: Timestamp,
    /// Grows with each change.
    pub revision: u64,
}

/// What a rotation of the tenant key did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotated {
    /// The tenant, under its new key version.
    pub tenant: Tenant,
    /// Data keys rewrapped under it.
    pub data_keys: u64,
}

fn tenant_of<A: crate::policy::Action>(recorded: &Recorded<Permit<A>>) -> Result<&TenantId, Error> {
    recorded.permit().resource().tenant.as_ref().ok_or_else(|| Error::invalid("tenant", "this call needs one"))
}

fn dataset_of<A: crate::policy::Action>(recorded: &Recorded<Permit<A>>) -> Result<&DatasetId, Error> {
    recorded.permit().resource().dataset.as_ref().ok_or_else(|| Error::invalid("dataset", "this call needs one"))
}

impl Keyring {
    /// Makes a tenant with the first version of its tenant key.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`]; [`Error::Unavailable`] without root key, store or entropy.
    pub async fn create_tenant(&self, recorded: &Recorded<Permit<CreateTenant>>) -> Result<Tenant, Error> {
        in_time(recorded, &*self.parts.clock)?;
        let tenant = tenant_of(recorded)?;
        if self.tenant_row(tenant).await?.is_some() {
            return Err(Error::AlreadyExists("tenant"));
        }
        let version = KeyVersion::FIRST;
        let now = self.parts.clock.now().0;
        let (key, key_row) = self.new_tenant_key(tenant, version, self.custody_of_new(recorded)?).await?;
        let wrapping = super::WrappingKey::derive(&key, tenant, version)?;
        let pseudonyms = wrapping.wrap_side(PSEUDONYMS, &Key32::generate()?)?;
        let row = TenantRow { state: TenantState::Active, key_version: version.0, created: now, updated: now };
        let side_row = SideKeyRow { tenant_key_version: version.0, wrapped: pseudonyms, created: now };
        let writes = vec![
            rows::write(Table::Tenants, rows::tenant_key(tenant), Expect::Absent, &row)?,
            rows::write(Table::TenantKeys, rows::tenant_key_key(tenant, version), Expect::Absent, &key_row)?,
            rows::write(Table::SideKeys, rows::side_key(tenant, PSEUDONYMS), Expect::Absent, &side_row)?,
        ];
        match self.parts.store.commit(writes).await {
            Ok(()) => Ok(tenant_view(tenant.clone(), &row, key_row.wrapping.custody(), 1)),
            Err(Error::Conflict(_)) => Err(Error::AlreadyExists("tenant")),
            Err(error) => Err(error),
        }
    }

    /// Reads a tenant.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Unavailable`], [`Error::Corrupt`].
    pub async fn get_tenant(&self, recorded: &Recorded<Permit<GetTenant>>) -> Result<Tenant, Error> {
        self.view_tenant(tenant_of(recorded)?).await
    }

    async fn view_tenant(&self, tenant: &TenantId) -> Result<Tenant, Error> {
        let (row, stored) = self.tenant_row(tenant).await?.ok_or(Error::NotFound("tenant"))?;
        self.complete(tenant.clone(), &row, &stored).await
    }

    async fn complete(&self, tenant: TenantId, row: &TenantRow, stored: &Row) -> Result<Tenant, Error> {
        let key = rows::tenant_key_key(&tenant, KeyVersion(row.key_version));
        let (key_row, _) = self
            .row::<TenantKeyRow>(Table::TenantKeys, &key)
            .await?
            .ok_or_else(|| Error::corrupt("store", "table tenant_keys: a tenant's active version has no row"))?;
        Ok(tenant_view(tenant, row, key_row.wrapping.custody(), stored.version))
    }

    /// Lists up to `limit` tenants after one, in order of their ids.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Corrupt`].
    pub async fn list_tenants(
        &self,
        _recorded: &Recorded<Permit<ListTenants>>,
        after: Option<&TenantId>,
        limit: usize,
    ) -> Result<Vec<Tenant>, Error> {
        let after = after.map(rows::tenant_key);
        let found = self.parts.store.scan(Table::Tenants, b"", after.as_deref(), limit).await?;
        let mut tenants = Vec::with_capacity(found.len());
        for scanned in found {
            let tenant = id_from(&scanned.key, TenantId::parse)?;
            let row: TenantRow = rows::decode(Table::Tenants, &scanned.row)?;
            tenants.push(self.complete(tenant, &row, &scanned.row).await?);
        }
        Ok(tenants)
    }

    /// Stops a tenant's data actions: durable, and its keys wiped from memory, when this returns.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Unavailable`], [`Error::Corrupt`].
    pub async fn suspend_tenant(
        &self,
        recorded: &Recorded<Permit<SuspendTenant>>,
        revision: Option<u64>,
    ) -> Result<Tenant, Error> {
        in_time(recorded, &*self.parts.clock)?;
        let tenant = tenant_of(recorded)?;
        let view = self.set_state(tenant, TenantState::Suspended, revision).await?;
        self.evict_tenant(tenant);
        Ok(view)
    }

    /// Lifts a suspension.
    ///
    /// # Errors
    /// As [`Self::suspend_tenant`].
    pub async fn resume_tenant(
        &self,
        recorded: &Recorded<Permit<ResumeTenant>>,
        revision: Option<u64>,
    ) -> Result<Tenant, Error> {
        in_time(recorded, &*self.parts.clock)?;
        self.set_state(tenant_of(recorded)?, TenantState::Active, revision).await
    }

    async fn set_state(&self, tenant: &TenantId, state: TenantState, revision: Option<u64>) -> Result<Tenant, Error> {
        for _ in 0..RETRIES {
            let (mut row, stored) = self.tenant_row(tenant).await?.ok_or(Error::NotFound("tenant"))?;
            at_revision(&stored, revision)?;
            if row.state == state {
                return self.complete(tenant.clone(), &row, &stored).await;
            }
            row.state = state;
            row.updated = self.parts.clock.now().0;
            let expect = Expect::Version(stored.version);
            let write = rows::write(Table::Tenants, rows::tenant_key(tenant), expect, &row)?;
            match self.parts.store.commit(vec![write]).await {
                Err(Error::Conflict(_)) => continue,
                done => done?,
            }
            return self.view_tenant(tenant).await;
        }
        Err(Error::Conflict("tenant"))
    }

    /// Makes a new version of the tenant key, then rewraps the tenant's data keys and side keys under it. Data is not
    /// touched. If this stops halfway the rest stays under the older version, which still opens, until the next
    /// rotation.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] if two rotations meet; [`Error::Unavailable`], [`Error::Corrupt`].
    pub async fn rotate_tenant_key(
        &self,
        recorded: &Recorded<Permit<RotateTenantKey>>,
        revision: Option<u64>,
    ) -> Result<Rotated, Error> {
        in_time(recorded, &*self.parts.clock)?;
        let tenant = tenant_of(recorded)?;
        let (mut row, stored) = self.tenant_row(tenant).await?.ok_or(Error::NotFound("tenant"))?;
        at_revision(&stored, revision)?;
        let old = KeyVersion(row.key_version);
        let new = old.next().ok_or(Error::FailedPrecondition("the tenant key has no further version"))?;
        let old_key = rows::tenant_key_key(tenant, old);
        let (mut old_row, old_stored) = self
            .row::<TenantKeyRow>(Table::TenantKeys, &old_key)
            .await?
            .ok_or_else(|| Error::corrupt("store", "table tenant_keys: a tenant's active version has no row"))?;
        let now = self.parts.clock.now().0;
        let custody = self.custody_of_next(recorded, &old_row)?;
        let (_, new_row) = self.new_tenant_key(tenant, new, custody).await?;
        row.key_version = new.0;
        row.updated = now;
        old_row.state = KeyState::DecryptOnly;
        self.parts
            .store
            .commit(vec![
                rows::write(Table::Tenants, rows::tenant_key(tenant), Expect::Version(stored.version), &row)?,
                rows::write(Table::TenantKeys, rows::tenant_key_key(tenant, new), Expect::Absent, &new_row)?,
                rows::write(Table::TenantKeys, old_key, Expect::Version(old_stored.version), &old_row)?,
            ])
            .await?;
        let data_keys = self.rewrap_data_keys(tenant, new).await?;
        self.rewrap_side_keys(tenant, new).await?;
        Ok(Rotated { tenant: self.view_tenant(tenant).await?, data_keys })
    }

    async fn rewrap_data_keys(&self, tenant: &TenantId, under: KeyVersion) -> Result<u64, Error> {
        let prefix = rows::of_tenant(tenant);
        let mut after: Option<Vec<u8>> = None;
        let mut rewrapped = 0;
        loop {
            let found = self.parts.store.scan(Table::DataKeys, &prefix, after.as_deref(), STEP).await?;
            let Some(last) = found.last() else { return Ok(rewrapped) };
            after = Some(last.key.clone());
            let mut writes = Vec::with_capacity(found.len());
            for scanned in &found {
                let mut row: DataKeyRow = rows::decode(Table::DataKeys, &scanned.row)?;
                if row.state == KeyState::Destroyed || row.tenant_key_version == under.0 {
                    continue;
                }
                let id = key_id_from(&scanned.key)?;
                let scope = scope_of_row(tenant, &row)?;
                let raw = self.unwrap_row(&scope, id, &row).await?;
                let version = KeyVersion(row.version);
                row.wrapped =
                    self.with_wrapping_key(tenant, under, |wrapping| wrapping.wrap(&scope, id, version, &raw)).await?;
                row.tenant_key_version = under.0;
                let expect = Expect::Version(scanned.row.version);
                writes.push((scanned.key.clone(), expect, row));
            }
            rewrapped += self.commit_each(Table::DataKeys, writes).await?;
        }
    }

    async fn rewrap_side_keys(&self, tenant: &TenantId, under: KeyVersion) -> Result<(), Error> {
        let key = rows::side_key(tenant, PSEUDONYMS);
        let Some((mut row, stored)) = self.row::<SideKeyRow>(Table::SideKeys, &key).await? else { return Ok(()) };
        if row.tenant_key_version == under.0 {
            return Ok(());
        }
        let old = KeyVersion(row.tenant_key_version);
        let raw =
            self.with_wrapping_key(tenant, old, |wrapping| wrapping.unwrap_side(PSEUDONYMS, &row.wrapped)).await?;
        row.wrapped = self.with_wrapping_key(tenant, under, |wrapping| wrapping.wrap_side(PSEUDONYMS, &raw)).await?;
        row.tenant_key_version = under.0;
        let write = rows::write(Table::SideKeys, key, Expect::Version(stored.version), &row)?;
        self.parts.store.commit(vec![write]).await
    }

    /// Commits changed rows together, or one by one if another writer changed some: those are left as they are now.
    async fn commit_each(&self, table: Table, changed: Vec<(Vec<u8>, Expect, DataKeyRow)>) -> Result<u64, Error> {
        if changed.is_empty() {
            return Ok(0);
        }
        let write = |(key, expect, row): &(Vec<u8>, Expect, DataKeyRow)| rows::write(table, key.clone(), *expect, row);
        let all = changed.iter().map(write).collect::<Result<Vec<_>, _>>()?;
        match self.parts.store.commit(all).await {
            Ok(()) => return Ok(changed.len() as u64),
            Err(Error::Conflict(_)) => {}
            Err(error) => return Err(error),
        }
        let mut written = 0;
        for one in &changed {
            match self.parts.store.commit(vec![write(one)?]).await {
                Ok(()) => written += 1,
                Err(Error::Conflict(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(written)
    }

    /// Makes a new version of the data keys of a dataset, or of all datasets if the permit names none. Older versions
    /// open still. Returns how many keys got one.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an unknown tenant; [`Error::Unavailable`], [`Error::Corrupt`].
    pub async fn rotate_data_keys(&self, recorded: &Recorded<Permit<RotateDataKeys>>) -> Result<u64, Error> {
        in_time(recorded, &*self.parts.clock)?;
        let tenant = tenant_of(recorded)?;
        if self.tenant_row(tenant).await?.is_none() {
            return Err(Error::NotFound("tenant"));
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
                if self.rotate_one(tenant, &scanned.key, &scanned.row, &active).await? {
                    rotated += 1;
                }
            }
        }
        Ok(rotated)
    }

    async fn rotate_one(
        &self,
        tenant: &TenantId,
        active_key: &[u8],
        active_stored: &Row,
        active: &ActiveKeyRow,
    ) -> Result<bool, Error> {
        let old_key = rows::data_key_key(tenant, active.id()?);
        let (mut old, old_stored) = self
            .row::<DataKeyRow>(Table::DataKeys, &old_key)
            .await?
            .ok_or_else(|| Error::corrupt("store", "table data_keys: an active key has no row"))?;
        let (row, _) = self.tenant_row(tenant).await?.ok_or(Error::NotFound("tenant"))?;
        let version =
            KeyVersion(old.version).next().ok_or(Error::FailedPrecondition("a data key has no further version"))?;
        let mut id = [0; 16];
        random_bytes(&mut id)?;
        let key = KeyRef::new(KeyId(id), version);
        let new = self.wrap_new(&scope_of_row(tenant, &old)?, key, KeyVersion(row.key_version)).await?;
        old.state = KeyState::DecryptOnly;
        let now_active = ActiveKeyRow { key_id: id.to_vec(), version: version.0 };
        let writes = vec![
            rows::write(Table::DataKeys, rows::data_key_key(tenant, key.key_id), Expect::Absent, &new)?,
            rows::write(Table::DataKeys, old_key, Expect::Version(old_stored.version), &old)?,
            rows::write(Table::ActiveKeys, active_key.to_vec(), Expect::Version(active_stored.version), &now_active)?,
        ];
        match self.parts.store.commit(writes).await {
            Ok(()) => Ok(true),
            // Another rotation was faster: this key has a new version already.
            Err(Error::Conflict(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Declares a dataset.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an unknown tenant; [`Error::AlreadyExists`]; [`Error::Unavailable`].
    pub async fn create_dataset(
        &self,
        recorded: &Recorded<Permit<CreateDataset>>,
        classification: Option<String>,
        residency: Option<String>,
    ) -> Result<Dataset, Error> {
        in_time(recorded, &*self.parts.clock)?;
        let (tenant, dataset) = (tenant_of(recorded)?, dataset_of(recorded)?);
        if self.tenant_row(tenant).await?.is_none() {
            return Err(Error::NotFound("tenant"));
        }
        let row = DatasetRow { classification, residency, created: self.parts.clock.now().0 };
        let write = rows::write(Table::Datasets, rows::dataset_key(tenant, dataset), Expect::Absent, &row)?;
        match self.parts.store.commit(vec![write]).await {
            Ok(()) => Ok(dataset_view(tenant.clone(), dataset.clone(), row, 1)),
            Err(Error::Conflict(_)) => Err(Error::AlreadyExists("dataset")),
            Err(error) => Err(error),
        }
    }

    /// Reads a dataset's declaration.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Unavailable`], [`Error::Corrupt`].
    pub async fn get_dataset(&self, recorded: &Recorded<Permit<GetDataset>>) -> Result<Dataset, Error> {
        let (tenant, dataset) = (tenant_of(recorded)?, dataset_of(recorded)?);
        let (row, stored) = self
            .row::<DatasetRow>(Table::Datasets, &rows::dataset_key(tenant, dataset))
            .await?
            .ok_or(Error::NotFound("dataset"))?;
        Ok(dataset_view(tenant.clone(), dataset.clone(), row, stored.version))
    }

    /// Lists up to `limit` datasets of a tenant after one, in order of their ids.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an unknown tenant; [`Error::Unavailable`], [`Error::Corrupt`].
    pub async fn list_datasets(
        &self,
        recorded: &Recorded<Permit<ListDatasets>>,
        after: Option<&DatasetId>,
        limit: usize,
    ) -> Result<Vec<Dataset>, Error> {
        let tenant = tenant_of(recorded)?;
        if self.tenant_row(tenant).await?.is_none() {
            return Err(Error::NotFound("tenant"));
        }
        let prefix = rows::of_tenant(tenant);
        let after = after.map(|dataset| rows::dataset_key(tenant, dataset));
        let found = self.parts.store.scan(Table::Datasets, &prefix, after.as_deref(), limit).await?;
        found
            .iter()
            .map(|scanned| {
                let id = id_from(scanned.key.get(prefix.len()..).unwrap_or_default(), DatasetId::parse)?;
                Ok(dataset_view(tenant.clone(), id, rows::decode(Table::Datasets, &scanned.row)?, scanned.row.version))
            })
            .collect()
    }
}

/// Refuses a change to a tenant that is no longer at the revision the caller saw.
fn at_revision(stored: &Row, revision: Option<u64>) -> Result<(), Error> {
    if revision.is_some_and(|seen| seen != stored.version) { Err(Error::Conflict("tenant")) } else { Ok(()) }
}

fn tenant_view(id: TenantId, row: &TenantRow, custody: Custody, revision: u64) -> Tenant {
    Tenant {
        id,
        state: row.state,
        key_version: KeyVersion(row.key_version),
        custody,
        created: Timestamp(row.created),
        updated: Timestamp(row.updated),
        revision,
    }
}

fn dataset_view(tenant: TenantId, id: DatasetId, row: DatasetRow, revision: u64) -> Dataset {
    Dataset {
        tenant,
        id,
        classification: row.classification,
        residency: row.residency,
        created: Timestamp(row.created),
        revision,
    }
}

fn damaged_key() -> Error {
    Error::corrupt("store", "a row's key is not as it was written")
}

fn id_from<T>(key: &[u8], parse: impl FnOnce(&str) -> Result<T, Error>) -> Result<T, Error> {
    std::str::from_utf8(key).ok().and_then(|text| parse(text).ok()).ok_or_else(damaged_key)
}

fn key_id_from(key: &[u8]) -> Result<KeyId, Error> {
    key.last_chunk().map(|id| KeyId(*id)).ok_or_else(damaged_key)
}

fn scope_of_row(tenant: &TenantId, row: &DataKeyRow) -> Result<Scope, Error> {
    let damaged = |_| Error::corrupt("store", "table data_keys: a row names no valid scope");
    Ok(Scope {
        tenant: tenant.clone(),
        dataset: DatasetId::parse(&row.dataset).map_err(damaged)?,
        subject: row.subject.as_deref().map(Subject::parse).transpose().map_err(damaged)?,
    })
}
