//! Finding, making and unwrapping keys for a permit.
//!
//! Two steps, because the intent entry names the key before the key may be touched: a *plan* reads metadata only, and
//! needs no permit; the key itself is given out against a [`Recorded`] permit, for the resource that the permit carries.

use std::sync::{Arc, Weak};
use std::time::Duration;
use std::{fmt, thread};

use super::access::KnownAccess;
use super::cache::{Cache, CacheSettings, CacheStats, evicted};
use super::due::Uses;
use super::evicted::Waiting;
use super::lifecycle::DESTROYED;
use super::names::{DataKeyName, SideKey, SideKeyName, WrappingKeyName};
use super::rows::{self, ActiveKeyRow, DataKeyRow, DatasetRow, KeyState, TenantKeyRow, TenantRow, TenantState};
use super::wrapping::WrappingKey;
use crate::audit::{Anchor, KeyRef, Recorded};
use crate::crypto::random_bytes;
use crate::envelope::{DataKey, Scope};
use crate::error::{Check, Dependency, Error};
use crate::id::{DatasetId, KeyId, KeyVersion, Subject, TenantId};
use crate::kms::{EncryptionContext, Layer, Roots};
use crate::policy::{Action, DatasetFacts, Facts, Opens, Permit, Resource, Seals};
use crate::secret::Key32;
use crate::store::{Expect, LogName, POLICY_ROWS, Row, Store, Table, Watcher};
use crate::time::Clock;

/// How often a call comes back for a key that was evicted under it.
const ATTEMPTS: u32 = 4;
/// How often a first data key is tried again when another writer came between.
const RETRIES: usize = 16;

/// The kind of the key under which subjects' pseudonyms for the audit log are made.
pub(super) const PSEUDONYMS: &str = "audit-pseudonym";

/// Where keys come from.
#[derive(Debug, Clone)]
pub struct KeyringParts {
    /// The rows.
    pub store: Arc<dyn Store>,
    /// The root keys that wrap tenant keys; [`Roots::single`] if there is one.
    pub roots: Arc<Roots>,
    /// This installation's id. Keep it outside the store: a copy of the store is then worth nothing elsewhere.
    pub instance: String,
    /// Bounds of the key cache.
    pub cache: CacheSettings,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// The key hierarchy of all tenants.
pub struct Keyring {
    pub(super) parts: KeyringParts,
    pub(super) data_keys: Cache<DataKeyName, DataKey>,
    pub(super) wrapping_keys: Cache<WrappingKeyName, WrappingKey>,
    pub(super) side_keys: Cache<SideKeyName, SideKey>,
    pub(super) uses: Uses,
    pub(super) waiting: Waiting,
    pub(super) known_access: KnownAccess,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring").field("instance", &self.parts.instance).finish_non_exhaustive()
    }
}

/// The key that will seal, as far as metadata tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealingPlan {
    /// The key, for the intent entry.
    pub key: KeyRef,
    /// It is made by this call: the scope had none.
    fresh: bool,
}

impl SealingPlan {
    /// To go on with a key that is there, active or not: what was begun under it is finished under it.
    pub(crate) const fn going_on(key: KeyRef) -> Self {
        Self { key, fresh: false }
    }
}

/// The key that an envelope names, as far as metadata tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpeningPlan {
    /// The key, for the intent entry.
    pub key: KeyRef,
}

/// The scope of data keys that a resource names.
fn scope_of(resource: &Resource) -> Result<Scope, Error> {
    match (&resource.tenant, &resource.dataset) {
        (Some(tenant), Some(dataset)) => {
            Ok(Scope { tenant: tenant.clone(), dataset: dataset.clone(), subject: resource.subject.clone() })
        }
        (None, _) => Err(Error::invalid("tenant", "a data action needs one")),
        (_, None) => Err(Error::invalid("dataset", "a data action needs one")),
    }
}

/// A permit that has run out is none.
pub(super) fn in_time<A: Action>(recorded: &Recorded<Permit<A>>, clock: &dyn Clock) -> Result<(), Error> {
    if clock.now() < recorded.permit().valid_until() {
        Ok(())
    } else {
        Err(Error::unavailable(Dependency::Policy, "the permit ran out before the keys were there; try again"))
    }
}

impl Keyring {
    /// A keyring, and the thread that wipes expired keys once a second for as long as the keyring lives.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if no thread can be started.
    pub fn new(parts: KeyringParts) -> Result<Arc<Self>, Error> {
        let keyring = Arc::new(Self {
            data_keys: Cache::new(parts.cache, Arc::clone(&parts.clock)),
            wrapping_keys: Cache::new(parts.cache, Arc::clone(&parts.clock)),
            side_keys: Cache::new(parts.cache, Arc::clone(&parts.clock)),
            uses: Uses::new(),
            waiting: Waiting::default(),
            known_access: KnownAccess::default(),
            parts,
        });
        let weak = Arc::downgrade(&keyring);
        keyring.parts.store.watch(weak.clone());
        thread::Builder::new()
            .name("vault-key-expiry".into())
            .spawn(move || sweep(&weak))
            .map_err(|_| Error::unavailable(Dependency::Memory, "no thread for wiping expired keys"))?;
        Ok(keyring)
    }

    /// The root keys, and the custody of tenants that none is named for.
    pub fn roots(&self) -> &Roots {
        &self.parts.roots
    }

    /// The rows, for what is not about keys.
    pub(crate) fn store(&self) -> &Arc<dyn Store> {
        &self.parts.store
    }

    /// This installation's id.
    pub fn instance(&self) -> &str {
        &self.parts.instance
    }

    /// What the caches of data keys did.
    pub fn data_key_stats(&self) -> CacheStats {
        self.data_keys.stats()
    }

    /// What the caches of tenant keys did.
    pub fn tenant_key_stats(&self) -> CacheStats {
        self.wrapping_keys.stats()
    }

    /// Wipes every key in memory; returns when they are gone. They can be loaded again.
    pub fn evict_all(&self) {
        self.data_keys.sweep(true);
        self.wrapping_keys.sweep(true);
        self.side_keys.sweep(true);
    }

    /// Wipes a tenant's keys in memory; returns when they are gone.
    pub fn evict_tenant(&self, tenant: &TenantId) {
        self.data_keys.evict_tenant(tenant);
        self.wrapping_keys.evict_tenant(tenant);
        self.side_keys.evict_tenant(tenant);
    }

    pub(super) async fn row<T: serde::de::DeserializeOwned>(
        &self,
        table: Table,
        key: &[u8],
    ) -> Result<Option<(T, Row)>, Error> {
        match self.parts.store.get(table, key).await? {
            Some(row) => Ok(Some((rows::decode(table, &row)?, row))),
            None => Ok(None),
        }
    }

    /// A row for a data call, perhaps from memory: see [`Store::get_cached`].
    pub(super) async fn known_row<T: serde::de::DeserializeOwned>(
        &self,
        table: Table,
        key: &[u8],
    ) -> Result<Option<T>, Error> {
        let row = self.parts.store.get_cached(table, key).await?;
        row.map(|row| rows::decode(table, &row)).transpose()
    }

    pub(super) async fn tenant_row(&self, tenant: &TenantId) -> Result<Option<(TenantRow, Row)>, Error> {
        self.row(Table::Tenants, &rows::tenant_key(tenant)).await
    }

    /// What policy needs to know of a tenant and one of its datasets; `None` if there is no such tenant.
    ///
    /// # Errors
    /// [`Error::Unavailable`] or [`Error::Corrupt`] from the store.
    pub async fn facts(&self, tenant: &TenantId, dataset: &DatasetId) -> Result<Option<Facts>, Error> {
        let Some(row) = self.known_row::<TenantRow>(Table::Tenants, &rows::tenant_key(tenant)).await? else {
            return Ok(None);
        };
        let declared = self.known_row::<DatasetRow>(Table::Datasets, &rows::dataset_key(tenant, dataset)).await?;
        let dataset = match declared {
            Some(declared) => {
                // Those of a tenant that is not active nobody can read, or needs to: it is refused, or has no keys.
                let active = row.state == TenantState::Active;
                let access = self.access((tenant, dataset), active && declared.access, active && row.access).await?;
                Some(DatasetFacts {
                    classification: declared.classification,
                    residency: declared.residency,
                    consent_required: declared.consent_required,
                    consents: Arc::clone(&access.consents),
                    grants: Arc::clone(&access.grants),
                })
            }
            None => None,
        };
        // What is destroyed is decided like what is active; then no key is found.
        Ok(Some(Facts { suspended: row.state == TenantState::Suspended, dataset }))
    }

    /// Whether there is, or was, such a tenant.
    ///
    /// # Errors
    /// [`Error::Unavailable`] or [`Error::Corrupt`] from the store.
    pub async fn has_tenant(&self, tenant: &TenantId) -> Result<bool, Error> {
        Ok(self.known_row::<TenantRow>(Table::Tenants, &rows::tenant_key(tenant)).await?.is_some())
    }

    /// Whether what is in memory may still be used: see [`Store::lease`].
    ///
    /// # Errors
    /// [`Error::Unavailable`] once data calls are refused for it.
    pub fn lease(&self) -> Result<(), Error> {
        self.parts.store.lease()
    }

    /// The newest state of the store that is known, for the audit log: see [`Store::anchor`].
    pub fn anchor(&self) -> Option<Anchor> {
        self.parts.store.anchor()
    }

    /// The audit logs of the gateways on this store: see [`Store::logs`].
    ///
    /// # Errors
    /// As there.
    pub async fn logs(&self, own: &LogName, enter: bool) -> Result<Vec<LogName>, Error> {
        self.parts.store.logs(own, enter).await
    }

    /// Which key will seal for a resource: the active one, or one that is still to be made.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the resource names no dataset; [`Error::Unavailable`], [`Error::Corrupt`].
    pub async fn plan_sealing(&self, resource: &Resource) -> Result<SealingPlan, Error> {
        let scope = scope_of(resource)?;
        let key = rows::active_key(&scope.tenant, &scope.dataset, scope.subject.as_ref());
        if let Some(active) = self.known_row::<ActiveKeyRow>(Table::ActiveKeys, &key).await? {
            let key = KeyRef::new(active.id()?, KeyVersion(active.version));
            return Ok(SealingPlan { key, fresh: false });
        }
        let mut id = [0; 16];
        random_bytes(&mut id)?;
        Ok(SealingPlan { key: KeyRef::new(KeyId(id), KeyVersion::FIRST), fresh: true })
    }

    /// Which key an envelope names: one of this resource's, that may open. `None` if there is none such.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the resource names no dataset; [`Error::Unavailable`], [`Error::Corrupt`].
    pub async fn plan_opening(&self, resource: &Resource, id: KeyId) -> Result<Option<OpeningPlan>, Error> {
        let scope = scope_of(resource)?;
        let key = rows::data_key_key(&scope.tenant, id);
        let Some(row) = self.known_row::<DataKeyRow>(Table::DataKeys, &key).await? else { return Ok(None) };
        let same_scope = row.dataset == scope.dataset.as_str()
            && row.subject.as_deref() == scope.subject.as_ref().map(Subject::as_str);
        let opens = matches!(row.state, KeyState::Active | KeyState::DecryptOnly);
        Ok((same_scope && opens).then(|| OpeningPlan { key: KeyRef::new(id, KeyVersion(row.version)) }))
    }

    /// Seals something with the key of a plan, made now if it is not there yet. `work` may be called again with another
    /// key if the first was evicted meanwhile. Returns which key sealed: another than planned if two calls made a
    /// scope's first key at the same time.
    ///
    /// # Errors
    /// What `work` answers; [`Error::Unavailable`] if the permit ran out, or the root key or store is not there.
    pub async fn seal_with<A: Seals, T>(
        &self,
        recorded: &Recorded<Permit<A>>,
        plan: SealingPlan,
        mut work: impl FnMut(&DataKey) -> Result<T, Error>,
    ) -> Result<(T, KeyRef), Error> {
        let scope = scope_of(recorded.permit().resource())?;
        let key = if plan.fresh { self.make_first(&scope, plan.key).await? } else { plan.key };
        self.count_use(&scope.tenant, key).await?;
        for _ in 0..ATTEMPTS {
            in_time(recorded, &*self.parts.clock)?;
            let destroyed = Error::FailedPrecondition("the data key is suspended or destroyed");
            let data_key = self.data_key(&scope, key, destroyed).await?;
            match work(&data_key) {
                Err(_) if data_key.is_wiped() => continue,
                done => return done.map(|done| (done, key)),
            }
        }
        Err(evicted())
    }

    /// Opens something with the key of a plan.
    ///
    /// # Errors
    /// As [`Self::seal_with`].
    pub async fn open_with<A: Opens, T>(
        &self,
        recorded: &Recorded<Permit<A>>,
        plan: &OpeningPlan,
        mut work: impl FnMut(&DataKey) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let scope = scope_of(recorded.permit().resource())?;
        for _ in 0..ATTEMPTS {
            in_time(recorded, &*self.parts.clock)?;
            let data_key = self.data_key(&scope, plan.key, Error::Unopenable).await?;
            if *data_key.scope() != scope {
                return Err(Error::Unopenable);
            }
            match work(&data_key) {
                Err(_) if data_key.is_wiped() => continue,
                done => return done,
            }
        }
        Err(evicted())
    }

    /// A data key. Where it has to be loaded, what the call was planned with may have been revoked since, and the key
    /// wiped; it must not come back then. `destroyed` is what the caller hears of a key that is no longer to be used.
    async fn data_key(&self, scope: &Scope, key: KeyRef, destroyed: Error) -> Result<Arc<DataKey>, Error> {
        let name = DataKeyName(scope.tenant.clone(), key.key_id);
        let load = async || {
            let tenant_key = rows::tenant_key(&scope.tenant);
            let tenant = self.known_row::<TenantRow>(Table::Tenants, &tenant_key).await?;
            match tenant.map(|tenant| tenant.state) {
                Some(TenantState::Active) => {}
                Some(TenantState::Destroyed) => return Err(destroyed.clone()),
                Some(TenantState::Suspended) | None => return Err(Error::Denied(Check::Suspended)),
            }
            let row_key = rows::data_key_key(&scope.tenant, key.key_id);
            let row = self
                .known_row::<DataKeyRow>(Table::DataKeys, &row_key)
                .await?
                .ok_or_else(|| Error::corrupt("store", "table data_keys: an active key has no row"))?;
            if !matches!(row.state, KeyState::Active | KeyState::DecryptOnly) {
                return Err(destroyed.clone());
            }
            let raw = self.unwrap_row(scope, key.key_id, &row).await?;
            DataKey::new(&raw, key.key_id, KeyVersion(row.version), scope.clone())
        };
        self.data_keys.get_or_load(&name, load).await
    }

    pub(super) async fn unwrap_row(&self, scope: &Scope, id: KeyId, row: &DataKeyRow) -> Result<Key32, Error> {
        let version = KeyVersion(row.tenant_key_version);
        self.with_wrapping_key(&scope.tenant, version, |wrapping| {
            wrapping.unwrap(scope, id, KeyVersion(row.version), &row.wrapped)
        })
        .await
    }

    /// Makes the first data key of a scope, or takes the one that another call made meanwhile.
    async fn make_first(&self, scope: &Scope, planned: KeyRef) -> Result<KeyRef, Error> {
        let active_key = rows::active_key(&scope.tenant, &scope.dataset, scope.subject.as_ref());
        for _ in 0..RETRIES {
            let (tenant, _) = self.tenant_row(&scope.tenant).await?.ok_or(Error::NotFound("tenant"))?;
            if tenant.state == TenantState::Destroyed {
                return Err(DESTROYED);
            }
            let under = KeyVersion(tenant.key_version);
            let row = self.wrap_new(scope, planned, under).await?;
            let active = ActiveKeyRow { key_id: planned.key_id.0.to_vec(), version: planned.version.0 };
            let mut writes = vec![
                rows::write(Table::DataKeys, rows::data_key_key(&scope.tenant, planned.key_id), Expect::Absent, &row)?,
                rows::write(Table::ActiveKeys, active_key.clone(), Expect::Absent, &active)?,
            ];
            writes.extend(self.unless_shredded(scope, &tenant, planned.key_id).await?);
            match self.parts.store.commit(writes).await {
                Ok(()) => {
                    self.follow_rotation(&scope.tenant, planned.key_id, under).await?;
                    return Ok(planned);
                }
                Err(Error::Conflict(_)) => {}
                Err(error) => return Err(error),
            }
            if let Some((active, _)) = self.row::<ActiveKeyRow>(Table::ActiveKeys, &active_key).await? {
                return Ok(KeyRef::new(active.id()?, KeyVersion(active.version)));
            }
            // Another dataset's first key of this subject, or its shred, came between.
        }
        Err(Error::Conflict("data key"))
    }

    /// A fresh data key, wrapped under a version of the tenant key.
    pub(super) async fn wrap_new(&self, scope: &Scope, key: KeyRef, under: KeyVersion) -> Result<DataKeyRow, Error> {
        let raw = Key32::generate()?;
        let wrapped = self
            .with_wrapping_key(&scope.tenant, under, |wrapping| wrapping.wrap(scope, key.key_id, key.version, &raw))
            .await?;
        Ok(DataKeyRow {
            dataset: scope.dataset.to_string(),
            subject: scope.subject.as_ref().map(|s| s.as_str().to_owned()),
            version: key.version.0,
            tenant_key_version: under.0,
            wrapped,
            state: KeyState::Active,
            created: self.parts.clock.now().0,
            uses: 0,
        })
    }

    /// Runs `work` with a version of a tenant's wrapping key, unwrapped by its root key if it is not in memory.
    pub(super) async fn with_wrapping_key<T>(
        &self,
        tenant: &TenantId,
        version: KeyVersion,
        mut work: impl FnMut(&WrappingKey) -> Result<T, Error>,
    ) -> Result<T, Error> {
        for _ in 0..ATTEMPTS {
            let name = WrappingKeyName(tenant.clone(), version);
            let wrapping = self.wrapping_keys.get_or_load(&name, || self.load_wrapping_key(tenant, version)).await?;
            match work(&wrapping) {
                Err(_) if wrapping.is_wiped() => continue,
                done => return done,
            }
        }
        Err(evicted())
    }

    async fn load_wrapping_key(&self, tenant: &TenantId, version: KeyVersion) -> Result<WrappingKey, Error> {
        let row = self
            .known_row::<TenantKeyRow>(Table::TenantKeys, &rows::tenant_key_key(tenant, version))
            .await?
            .ok_or_else(|| Error::corrupt("store", "table tenant_keys: a version in use has no row"))?;
        if !matches!(row.state, KeyState::Active | KeyState::DecryptOnly) {
            return Err(Error::FailedPrecondition("the tenant key version is suspended or destroyed"));
        }
        let key = self.parts.roots.unwrap(row.wrapping.wrapped()?, &self.root_context(tenant, version)).await?;
        WrappingKey::derive(&key, tenant, version)
    }

    pub(super) fn root_context(&self, tenant: &TenantId, version: KeyVersion) -> EncryptionContext {
        EncryptionContext {
            instance: self.parts.instance.clone(),
            tenant: Some(tenant.clone()),
            version,
            layer: Layer::TenantKey,
        }
    }
}

impl Watcher for Keyring {
    fn changed(&self, tenant: Option<&[u8]>) {
        if tenant == Some(POLICY_ROWS) {
            // Keys do not depend on policies.
            return;
        }
        match tenant.and_then(|id| TenantId::parse(std::str::from_utf8(id).ok()?).ok()) {
            Some(tenant) => self.evict_tenant(&tenant),
            None => self.evict_all(),
        }
    }
}

fn sweep(keyring: &Weak<Keyring>) {
    loop {
        thread::sleep(Duration::from_secs(1));
        let Some(keyring) = keyring.upgrade() else { return };
        keyring.data_keys.sweep(false);
        keyring.wrapping_keys.sweep(false);
        keyring.side_keys.sweep(false);
    }
}
