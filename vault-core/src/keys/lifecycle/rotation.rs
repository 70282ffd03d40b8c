//! A new version of the tenant key, and the data keys under it, in bounded steps.
//!
//! One commit makes the new version active, the old one decrypt-only, and writes down that a rotation runs. Each step
//! then rewraps up to [`STEP`] data keys and writes down how far it got, in one commit; the store's writer and its locks
//! are taken only for that, not while keys are unwrapped and wrapped. Passes over the tenant's data keys
//! follow one another until a whole one finds none under another version: a data key that was being made when the
//! rotation began is found by the next pass, and rewrapped by its maker besides. Whoever comes next goes on, after a
//! crash too; ciphertexts open all the while, since a row names the version it is under.

use super::tenants::Tenant;
use super::{RETRIES, STEP, at_revision, pause, tenant_of};
use crate::audit::Recorded;
use crate::error::Error;
use crate::failpoint::{Step, around};
use crate::id::{KeyVersion, TenantId};
use crate::keys::keyring::{Keyring, PSEUDONYMS, in_time};
use crate::keys::rows::{self, DataKeyRow, KeyState, SideKeyRow, TenantKeyRow, TenantRow, TenantState};
use crate::keys::work::{Cursor, RotationRow, Work};
use crate::kms::Custody;
use crate::policy::{Permit, RotateTenantKey};
use crate::store::{Expect, Scanned, Table, Write};
use crate::time::Timestamp;

/// Data keys that one step passes over if none of them needs anything.
const SEARCHED: u64 = 16 * STEP as u64;
/// Data keys rewrapped before other calls on the same thread get their turn: a tenth of a millisecond.
const AT_ONCE: usize = 16;

/// What one step found to do.
struct Batch {
    /// Data keys looked at; none at the end of a pass.
    seen: u64,
    after: Option<Cursor>,
    writes: Vec<Write>,
}

/// A rotation of the tenant key, running or done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotation {
    /// The version that was active before.
    pub from: KeyVersion,
    /// The version that it made active.
    pub to: KeyVersion,
    /// How many passes over the tenant's data keys were begun. The last one finds nothing left to do.
    pub pass: u32,
    /// Data keys that this pass has seen so far.
    pub seen: u64,
    /// Data keys rewrapped so far, in all passes.
    pub data_keys: u64,
    /// When it began.
    pub started: Timestamp,
    /// When it got on last.
    pub updated: Timestamp,
    /// When it was found that no data key is left under another version; `None` while it runs.
    pub finished: Option<Timestamp>,
}

impl From<&RotationRow> for Rotation {
    fn from(row: &RotationRow) -> Self {
        Self {
            from: KeyVersion(row.from),
            to: KeyVersion(row.to),
            pass: row.pass,
            seen: row.seen,
            data_keys: row.rewrapped,
            started: Timestamp(row.started),
            updated: Timestamp(row.updated),
            finished: row.finished.map(Timestamp),
        }
    }
}

/// What one step of something under way came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Turn<T> {
    /// There is more to do.
    More,
    /// All is done but to write so down, once the audit log has it.
    Ready(T),
    /// Nothing is under way, or nothing can be done now.
    Idle,
}

impl Keyring {
    /// Begins a rotation of the tenant key, or finds the one that runs: two never mix. Returns the tenant under its new
    /// version; the steps are still to come.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] if the tenant is not at `revision`, or changes again and again; [`Error::FailedPrecondition`] if the
    /// tenant is destroyed, or one runs that goes to another custody; [`Error::Unavailable`], [`Error::Corrupt`].
    pub(crate) async fn begin_rotation(
        &self,
        recorded: &Recorded<Permit<RotateTenantKey>>,
        revision: Option<u64>,
    ) -> Result<Tenant, Error> {
        in_time(recorded, &*self.parts.clock)?;
        let tenant = tenant_of(recorded)?;
        for _ in 0..RETRIES {
            let (row, stored) = self.tenant_row(tenant).await?.ok_or(Error::NotFound("tenant"))?;
            at_revision(&stored, revision)?;
            if row.state == TenantState::Destroyed {
                return Err(DESTROYED);
            }
            let work = self.work(tenant).await?;
            let (old, _) = self.active_version(tenant, KeyVersion(row.key_version)).await?;
            // One that makes no new version only looks whether anything is left under an old one: a new rotation does,
            // too.
            if work.row.running().is_some_and(|rotation| rotation.from != rotation.to) {
                let asked = recorded.permit().decision().custody.as_ref();
                if asked.is_some_and(|custody| *custody != old.wrapping.custody()) {
                    return Err(Error::FailedPrecondition(
                        "a rotation to another custody is under way; call again without one until it is finished",
                    ));
                }
                return self.view_tenant(tenant).await;
            }
            let custody = self.custody_of_next(recorded, &old)?;
            let writes = self.new_version(tenant, (row, stored.version), custody, work).await?;
            match around(Step::RotateBegin, self.parts.store.commit(writes)).await {
                Ok(()) => return self.view_tenant(tenant).await,
                // The tenant changed, or something else began for it: read again.
                Err(Error::Conflict(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::Conflict("tenant"))
    }

    /// Whether a tenant's key can be put under another custody.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the root key that this vault is not given; [`Error::NotFound`];
    /// [`Error::FailedPrecondition`] if the tenant has changed or is destroyed, or a rotation runs;
    /// [`Error::Unavailable`], [`Error::Corrupt`].
    pub(in crate::keys) async fn can_change_custody(
        &self,
        tenant: &TenantId,
        custody: &Custody,
        revision: u64,
    ) -> Result<(), Error> {
        self.parts.roots.check(custody)?;
        self.unchanged(tenant, revision).await?;
        let work = self.work(tenant).await?;
        if work.row.running().is_some_and(|rotation| rotation.from != rotation.to) {
            return Err(Error::FailedPrecondition(
                "a rotation of the tenant's key is under way; ask again when it is finished",
            ));
        }
        Ok(())
    }

    /// Begins a rotation to another custody, with the write that closes its approval. The steps are still to come.
    ///
    /// # Errors
    /// [`Error::Conflict`] if another writer came between; what [`Self::can_change_custody`] answers; [`Error::RootKey`]
    /// naming the root key that did not make or wrap the tenant key.
    pub(crate) async fn change_custody_as_approved(
        &self,
        (tenant, custody, revision): (&TenantId, &Custody, u64),
        approved: Write,
    ) -> Result<(), Error> {
        self.can_change_custody(tenant, custody, revision).await?;
        let (row, version) = self.unchanged(tenant, revision).await?;
        let work = self.work(tenant).await?;
        let mut writes = self.new_version(tenant, (row, version), custody.clone(), work).await?;
        writes.push(approved);
        around(Step::RotateBegin, self.parts.store.commit(writes)).await
    }

    /// The writes that begin a rotation, of a tenant as it was read: its row and the row's version in the store.
    pub(in crate::keys) async fn new_version(
        &self,
        tenant: &TenantId,
        (mut row, seen): (TenantRow, u64),
        custody: Custody,
        mut work: Work,
    ) -> Result<Vec<Write>, Error> {
        if row.state == TenantState::Destroyed {
            return Err(DESTROYED);
        }
        let from = KeyVersion(row.key_version);
        let to = from.next().ok_or(Error::FailedPrecondition("the tenant key has no further version"))?;
        let (mut old, old_version) = self.active_version(tenant, from).await?;
        let now = self.parts.clock.now().0;
        let (_, new) = self.new_tenant_key(tenant, to, custody).await?;
        row.key_version = to.0;
        row.updated = now;
        old.state = KeyState::DecryptOnly;
        work.row.rotation = Some(RotationRow::begun(from.0, to.0, now));
        Ok(vec![
            rows::write(Table::Tenants, rows::tenant_key(tenant), Expect::Version(seen), &row)?,
            rows::write(Table::TenantKeys, rows::tenant_key_key(tenant, to), Expect::Absent, &new)?,
            rows::write(Table::TenantKeys, rows::tenant_key_key(tenant, from), Expect::Version(old_version), &old)?,
            work.write(tenant)?,
        ])
    }

    /// The row of a tenant's active key version, and its store version.
    pub(in crate::keys) async fn active_version(
        &self,
        tenant: &TenantId,
        version: KeyVersion,
    ) -> Result<(TenantKeyRow, u64), Error> {
        let key = rows::tenant_key_key(tenant, version);
        let (row, stored) = self
            .row::<TenantKeyRow>(Table::TenantKeys, &key)
            .await?
            .ok_or_else(|| Error::corrupt("store", "table tenant_keys: a tenant's active version has no row"))?;
        Ok((row, stored.version))
    }

    /// Carries out one step of the rotation that runs for a tenant.
    ///
    /// # Errors
    /// [`Error::Conflict`] if other writers came between again and again; [`Error::Unavailable`], [`Error::Corrupt`].
    pub(crate) async fn rotation_turn(&self, tenant: &TenantId) -> Result<Turn<Rotation>, Error> {
        for _ in 0..RETRIES {
            let mut work = self.work(tenant).await?;
            let Some(rotation) = work.row.rotation.as_mut().filter(|rotation| rotation.finished.is_none()) else {
                return Ok(Turn::Idle);
            };
            let to = KeyVersion(rotation.to);
            let Batch { seen, after, mut writes } = self.next_step(tenant, to, rotation.after.clone()).await?;
            let step = if seen > 0 {
                rotation.after = after;
                rotation.in_pass += writes.len() as u64;
                rotation.rewrapped += writes.len() as u64;
                rotation.seen += seen;
                Step::RotateRewrap
            } else if rotation.in_pass > 0 {
                rotation.after = None;
                rotation.pass += 1;
                rotation.in_pass = 0;
                rotation.seen = 0;
                Step::RotatePass
            } else {
                match self.rewrapped_side_key(tenant, to).await? {
                    None => return Ok(Turn::Ready(Rotation::from(&*rotation))),
                    Some(write) => writes.push(write),
                }
                Step::RotateSideKey
            };
            rotation.updated = self.parts.clock.now().0;
            writes.push(work.write(tenant)?);
            match around(step, self.parts.store.commit(writes)).await {
                Ok(()) => return Ok(Turn::More),
                // A key changed under this step, or another carried the step out: read again.
                Err(Error::Conflict(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::Conflict("tenant"))
    }

    /// Writes down that a rotation is finished, after a pass that found nothing left to do.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Corrupt`].
    pub(crate) async fn end_rotation(&self, tenant: &TenantId, done: &Rotation) -> Result<(), Error> {
        for _ in 0..RETRIES {
            let mut work = self.work(tenant).await?;
            let same = |rotation: &&mut RotationRow| {
                rotation.finished.is_none() && rotation.to == done.to.0 && rotation.started == done.started.0
            };
            let Some(rotation) = work.row.rotation.as_mut().filter(same) else { return Ok(()) };
            let now = self.parts.clock.now().0;
            rotation.after = None;
            rotation.updated = now;
            rotation.finished = Some(now);
            match around(Step::RotateEnd, self.parts.store.commit(vec![work.write(tenant)?])).await {
                // Something else began for the tenant meanwhile.
                Err(Error::Conflict(_)) => {}
                done => return done,
            }
        }
        Err(Error::Conflict("tenant"))
    }

    /// The next page of data keys with one among them that is not under a version of the tenant key yet. Pages without
    /// any are passed over, up to [`SEARCHED`] keys, as writing down so much costs more than looking again after a crash.
    async fn next_step(&self, tenant: &TenantId, under: KeyVersion, after: Option<Cursor>) -> Result<Batch, Error> {
        let prefix = rows::of_tenant(tenant);
        let mut step = Batch { seen: 0, after, writes: Vec::new() };
        while step.writes.is_empty() && step.seen < SEARCHED {
            let after = step.after.as_ref().map(|cursor| cursor.0.as_slice());
            let found = self.parts.store.scan(Table::DataKeys, &prefix, after, STEP).await?;
            let Some(last) = found.last() else { break };
            step.seen += found.len() as u64;
            step.after = Some(Cursor(last.key.clone()));
            step.writes = self.rewrapped(tenant, under, &found).await?;
        }
        Ok(step)
    }

    /// The writes that put some data keys under a version of the tenant key: those that are not there yet.
    async fn rewrapped(&self, tenant: &TenantId, under: KeyVersion, found: &[Scanned]) -> Result<Vec<Write>, Error> {
        let mut writes = Vec::with_capacity(found.len() + 1);
        for (at, scanned) in found.iter().enumerate() {
            if at % AT_ONCE == 0 {
                pause().await;
            }
            let row: DataKeyRow = rows::decode(Table::DataKeys, &scanned.row)?;
            if row.state != KeyState::Destroyed && row.tenant_key_version != under.0 {
                let expect = Expect::Version(scanned.row.version);
                writes.push(self.rewrap_row(tenant, under, &scanned.key, expect, row).await?);
            }
        }
        Ok(writes)
    }

    /// The write that puts one data key under a version of the tenant key.
    pub(in crate::keys) async fn rewrap_row(
        &self,
        tenant: &TenantId,
        under: KeyVersion,
        key: &[u8],
        expect: Expect,
        mut row: DataKeyRow,
    ) -> Result<Write, Error> {
        let id = rows::key_id_from(key)?;
        let scope = rows::scope_of_row(tenant, &row)?;
        let raw = self.unwrap_row(&scope, id, &row).await?;
        let version = KeyVersion(row.version);
        row.wrapped =
            self.with_wrapping_key(tenant, under, |wrapping| wrapping.wrap(&scope, id, version, &raw)).await?;
        row.tenant_key_version = under.0;
        rows::write(Table::DataKeys, key.to_vec(), expect, &row)
    }

    /// The write that puts the tenant's side key under a version of the tenant key; `None` if it is there.
    async fn rewrapped_side_key(&self, tenant: &TenantId, under: KeyVersion) -> Result<Option<Write>, Error> {
        let key = rows::side_key(tenant, PSEUDONYMS);
        let Some((mut row, stored)) = self.row::<SideKeyRow>(Table::SideKeys, &key).await? else { return Ok(None) };
        if row.tenant_key_version == under.0 {
            return Ok(None);
        }
        let old = KeyVersion(row.tenant_key_version);
        let raw =
            self.with_wrapping_key(tenant, old, |wrapping| wrapping.unwrap_side(PSEUDONYMS, &row.wrapped)).await?;
        row.wrapped = self.with_wrapping_key(tenant, under, |wrapping| wrapping.wrap_side(PSEUDONYMS, &raw)).await?;
        row.tenant_key_version = under.0;
        rows::write(Table::SideKeys, key, Expect::Version(stored.version), &row).map(Some)
    }
}

pub(in crate::keys) const DESTROYED: Error = Error::FailedPrecondition("the tenant is destroyed");
