//! Tenants: made, read, suspended; resumed as was approved.

use super::rotation::{DESTROYED, Rotation};
use super::{RETRIES, at_revision, tenant_of};
use crate::audit::Recorded;
use crate::error::Error;
use crate::failpoint::{Step, around};
use crate::id::{KeyVersion, TenantId};
use crate::keys::keyring::{Keyring, PSEUDONYMS, in_time};
use crate::keys::rows::{self, SideKeyRow, SuspendedRow, TenantKeyRow, TenantRow, TenantState};
use crate::keys::wrapping::WrappingKey;
use crate::kms::Custody;
use crate::policy::{ControlAction, CreateTenant, GetTenant, ListTenants, Permit, SuspendTenant};
use crate::secret::Key32;
use crate::store::{Expect, Row, Table, Write};
use crate::time::Timestamp;

/// A tenant as operators see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// Its id.
    pub id: TenantId,
    /// Active, suspended or destroyed.
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
    /// The rotation of the tenant key that runs, or the last one.
    pub rotation: Option<Rotation>,
}
impl Keyring {
    /// Makes a tenant with the first version of its tenant key.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`]; [`Error::Unavailable`] without root key, store or entropy.
    pub async fn create_tenant(&self, recorded: &Recorded<Permit<CreateTenant>>) -> Result<Tenant, Error> {
        in_time(recorded, &*self.parts.clock)?;
        let tenant = tenant_of(recorded)?;
        match self.tenant_row(tenant).await? {
            Some((row, _)) if row.state == TenantState::Destroyed => {
                return Err(Error::FailedPrecondition("the tenant was destroyed; its name is not used again"));
            }
            Some(_) => return Err(Error::AlreadyExists("tenant")),
            None => {}
        }
        let version = KeyVersion::FIRST;
        let now = self.parts.clock.now().0;
        let (key, key_row) = self.new_tenant_key(tenant, version, self.custody_of_new(recorded)?).await?;
        let wrapping = WrappingKey::derive(&key, tenant, version)?;
        let pseudonyms = wrapping.wrap_side(PSEUDONYMS, &Key32::generate()?)?;
        let row = TenantRow {
            state: TenantState::Active,
            key_version: version.0,
            created: now,
            updated: now,
            lists_subject_keys: true,
            access: false,
            suspended: None,
        };
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

    /// The tenant of a call that changed it.
    pub(crate) async fn see_tenant<A: ControlAction>(&self, recorded: &Recorded<Permit<A>>) -> Result<Tenant, Error> {
        self.view_tenant(tenant_of(recorded)?).await
    }

    pub(in crate::keys) async fn view_tenant(&self, tenant: &TenantId) -> Result<Tenant, Error> {
        let (row, stored) = self.tenant_row(tenant).await?.ok_or(Error::NotFound("tenant"))?;
        self.complete(tenant.clone(), &row, &stored).await
    }

    async fn complete(&self, tenant: TenantId, row: &TenantRow, stored: &Row) -> Result<Tenant, Error> {
        let key = rows::tenant_key_key(&tenant, KeyVersion(row.key_version));
        let (key_row, _) = self
            .row::<TenantKeyRow>(Table::TenantKeys, &key)
            .await?
            .ok_or_else(|| Error::corrupt("store", "table tenant_keys: a tenant's active version has no row"))?;
        let rotation = self.work(&tenant).await?.row.rotation.as_ref().map(Rotation::from);
        Ok(Tenant { rotation, ..tenant_view(tenant, row, key_row.wrapping.custody(), stored.version) })
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
            let tenant = rows::id_from(&scanned.key, TenantId::parse)?;
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
        let by = &recorded.permit().decision().principal;
        let view = self.suspend(tenant, by, revision).await?;
        self.evict_tenant(tenant);
        Ok(view)
    }

    /// The revision of a tenant whose suspension is to be lifted.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] if it is not at `revision`; [`Error::Unavailable`], [`Error::Corrupt`].
    pub(crate) async fn revision_of(&self, tenant: &TenantId, revision: Option<u64>) -> Result<u64, Error> {
        let (_, stored) = self.tenant_row(tenant).await?.ok_or(Error::NotFound("tenant"))?;
        at_revision(&stored, revision)?;
        Ok(stored.version)
    }

    /// A tenant as it was when something about it was asked for.
    pub(in crate::keys) async fn unchanged(&self, tenant: &TenantId, revision: u64) -> Result<(TenantRow, u64), Error> {
        let (row, stored) = self.tenant_row(tenant).await?.ok_or(Error::NotFound("tenant"))?;
        if row.state == TenantState::Destroyed {
            return Err(DESTROYED);
        }
        if stored.version != revision {
            return Err(Error::FailedPrecondition("the tenant has changed since it was asked for; ask again"));
        }
        Ok((row, stored.version))
    }

    /// Whether there is a suspension to lift.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::FailedPrecondition`]; [`Error::Unavailable`], [`Error::Corrupt`].
    pub(in crate::keys) async fn can_be_resumed(&self, tenant: &TenantId, revision: u64) -> Result<(), Error> {
        match self.unchanged(tenant, revision).await?.0.state {
            TenantState::Suspended => Ok(()),
            _ => Err(Error::FailedPrecondition("the tenant is not suspended")),
        }
    }

    /// Lifts a suspension, with the write that closes its approval.
    ///
    /// # Errors
    /// [`Error::Conflict`] if another writer came between; what [`Self::can_be_resumed`] answers.
    pub(crate) async fn resume_as_approved(
        &self,
        tenant: &TenantId,
        revision: u64,
        approved: Write,
    ) -> Result<(), Error> {
        self.can_be_resumed(tenant, revision).await?;
        let (mut row, version) = self.unchanged(tenant, revision).await?;
        row.state = TenantState::Active;
        row.suspended = None;
        row.updated = self.parts.clock.now().0;
        let write = rows::write(Table::Tenants, rows::tenant_key(tenant), Expect::Version(version), &row)?;
        around(Step::TenantResume, self.parts.store.commit(vec![approved, write])).await
    }

    async fn suspend(&self, tenant: &TenantId, by: &str, revision: Option<u64>) -> Result<Tenant, Error> {
        for _ in 0..RETRIES {
            let (mut row, stored) = self.tenant_row(tenant).await?.ok_or(Error::NotFound("tenant"))?;
            at_revision(&stored, revision)?;
            if row.state == TenantState::Destroyed {
                return Err(DESTROYED);
            }
            if row.state == TenantState::Suspended {
                return self.complete(tenant.clone(), &row, &stored).await;
            }
            let now = self.parts.clock.now().0;
            row.state = TenantState::Suspended;
            row.suspended = Some(SuspendedRow { at: now, by: by.to_owned() });
            row.updated = now;
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
        rotation: None,
    }
}
