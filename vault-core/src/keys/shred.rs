//! Destroying the data keys of a subject, or all keys of a tenant.
//!
//! One commit decides: it closes the approval, writes the tombstone of the subject or tenant, and writes down that the
//! shred runs. Before it nothing has happened; after it nothing can stop it: no key is made for the subject or tenant any
//! more, and whoever comes next, after a crash too, carries the steps out. Each step puts tombstones in the place of up
//! to [`STEP`] wrapped keys and writes down how far it got, in one commit, then wipes those keys from memory. Rows are
//! never deleted.

use ring::digest;

use super::approval::{Ordered, kept};
use super::keyring::{Keyring, PSEUDONYMS};
use super::lifecycle::{DESTROYED, Turn};
use super::names::DataKeyName;
use super::rows::{self, DataKeyRow, KeyState, SideKeyRow, TenantRow, TenantState};
use super::subjects::SubjectRow;
use super::work::{Cursor, DestructionRow, ListedKey, ShredRow};
use crate::audit::Pseudonym;
use crate::envelope::Scope;
use crate::error::Error;
use crate::failpoint::{Step, around};
use crate::id::{ApprovalId, KeyId, KeyVersion, Subject, TenantId};
use crate::store::{Expect, Scanned, Table, Write};
use crate::time::Timestamp;

/// Rows of one step.
const STEP: usize = 256;
/// How often a step starts over when another writer comes between.
const RETRIES: usize = 16;
/// Data keys that a receipt names one by one; the others are in its digest.
pub(super) const LISTED: usize = 200;
/// Versions of a tenant key that one commit can destroy.
const MOST_VERSIONS: usize = 4000;

pub(super) const SHREDDED: Error = Error::FailedPrecondition("the subject is shredded");
pub(crate) const BUSY: Error = Error::FailedPrecondition("another shred of this tenant is under way");

/// A shred whose steps are all done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shredded {
    pub approval: ApprovalId,
    pub pseudonym: Option<Pseudonym>,
    /// The tenant key version that was active, and whether it is gone or when it will be.
    pub under: KeyVersion,
    pub due: Option<Timestamp>,
    pub keys: u64,
    pub listed: Vec<(KeyId, KeyVersion)>,
    pub digest: [u8; 32],
    pub decided: Timestamp,
}

impl Keyring {
    /// Whether there is something to shred.
    pub(super) async fn can_be_shredded(&self, tenant: &TenantId, subject: Option<&Subject>) -> Result<(), Error> {
        let (row, _) = self.tenant_row(tenant).await?.ok_or(Error::NotFound("tenant"))?;
        if row.state == TenantState::Destroyed {
            return Err(DESTROYED);
        }
        if let Some(subject) = subject {
            self.living_subject(tenant, subject).await?;
        }
        Ok(())
    }

    /// A subject's row, if it has one, and what a write of it must expect.
    ///
    /// # Errors
    /// [`SHREDDED`]; [`Error::Unavailable`], [`Error::Corrupt`].
    async fn living_subject(
        &self,
        tenant: &TenantId,
        subject: &Subject,
    ) -> Result<(Option<SubjectRow>, Expect), Error> {
        match self.row::<SubjectRow>(Table::Subjects, &rows::subject_key(tenant, subject)).await? {
            Some((row, _)) if row.state == KeyState::Destroyed => Err(SHREDDED),
            Some((row, stored)) => Ok((Some(row), Expect::Version(stored.version))),
            None => Ok((None, Expect::Absent)),
        }
    }

    /// What has to be written with a new data key of a scope, so that it and a shred of its subject exclude each other,
    /// and the shred finds it.
    pub(super) async fn unless_shredded(
        &self,
        scope: &Scope,
        tenant: &TenantRow,
        id: KeyId,
    ) -> Result<Option<Write>, Error> {
        let Some(subject) = &scope.subject else { return Ok(None) };
        let (row, expect) = self.living_subject(&scope.tenant, subject).await?;
        let now = self.parts.clock.now().0;
        let row = row.unwrap_or_else(|| SubjectRow::new(tenant, KeyState::Active, now)).with(id);
        rows::write(Table::Subjects, rows::subject_key(&scope.tenant, subject), expect, &row).map(Some)
    }

    /// The tombstone of a subject.
    async fn subject_gone(&self, id: &TenantId, tenant: &TenantRow, subject: &Subject) -> Result<Write, Error> {
        let (row, expect) = self.living_subject(id, subject).await?;
        let now = self.parts.clock.now().0;
        let row = row.unwrap_or_else(|| SubjectRow::new(tenant, KeyState::Destroyed, now));
        let row = SubjectRow { state: KeyState::Destroyed, since: now, ..row };
        rows::write(Table::Subjects, rows::subject_key(id, subject), expect, &row)
    }

    /// The next data keys that a shred has to look at, in the order of their ids: those that the subject's row lists, or
    /// all of the tenant's if it is for the tenant or nothing is listed.
    async fn next_to_shred(&self, tenant: &TenantId, shred: &ShredRow) -> Result<Vec<Scanned>, Error> {
        let after = shred.after.as_ref().map(|cursor| cursor.0.as_slice());
        let listed = match &shred.subject {
            Some(subject) => {
                let subject = Subject::parse(subject).map_err(|_| damaged())?;
                let row = self.row::<SubjectRow>(Table::Subjects, &rows::subject_key(tenant, &subject)).await?;
                row.ok_or_else(damaged)?.0.listed()?
            }
            None => None,
        };
        let Some(listed) = listed else {
            return self.parts.store.scan(Table::DataKeys, &rows::of_tenant(tenant), after, STEP).await;
        };
        let mut found = Vec::new();
        let keys = listed.into_iter().map(|id| rows::data_key_key(tenant, id));
        for key in keys.filter(|key| after.is_none_or(|after| key.as_slice() > after)).take(STEP) {
            let row = self.parts.store.get(Table::DataKeys, &key).await?.ok_or_else(damaged)?;
            found.push(Scanned { key, row });
        }
        Ok(found)
    }

    /// Begins a shred, with the write that closes its approval. The keys that it makes useless at once are wiped from
    /// memory when this returns.
    ///
    /// # Errors
    /// [`BUSY`] if one runs; [`Error::Conflict`] if another writer came between; what [`Self::can_be_shredded`] answers.
    pub(crate) async fn begin_shred(
        &self,
        ordered: &Ordered,
        (approval, approved): (ApprovalId, Write),
        destroy_after_millis: u64,
    ) -> Result<(), Error> {
        if ordered.grant().is_some() {
            return Err(Error::FailedPrecondition("a grant destroys nothing"));
        }
        let tenant = ordered.tenant().ok_or(Error::NotFound("tenant"))?;
        let (mut row, stored) = self.tenant_row(tenant).await?.ok_or(Error::NotFound("tenant"))?;
        if row.state == TenantState::Destroyed {
            return Err(DESTROYED);
        }
        let mut work = self.work(tenant).await?;
        if work.row.shredding().is_some() {
            return Err(BUSY);
        }
        let now = self.parts.clock.now().0;
        let under = row.key_version;
        let mut writes = vec![approved];
        let mut pseudonym = None;
        match ordered.subject() {
            Some(subject) => {
                pseudonym = Some(kept(&self.pseudonym(tenant, subject).await?.0));
                writes.push(self.subject_gone(tenant, &row, subject).await?);
                if work.row.destructions.iter().all(|other| other.version < under) {
                    let due = now.saturating_add(destroy_after_millis);
                    work.row.destructions.push(DestructionRow { version: under, due });
                }
            }
            None => {
                row.state = TenantState::Destroyed;
                row.updated = now;
                let expect = Expect::Version(stored.version);
                writes.push(rows::write(Table::Tenants, rows::tenant_key(tenant), expect, &row)?);
                writes.extend(self.tenant_keys_gone(tenant, KeyVersion(u32::MAX), MOST_VERSIONS).await?.0);
                writes.extend(self.side_key_gone(tenant).await?);
                work.row.destructions.clear();
                if let Some(rotation) = work.row.rotation.as_mut().filter(|rotation| rotation.finished.is_none()) {
                    rotation.finished = Some(now);
                }
            }
        }
        work.row.shred = Some(ShredRow {
            approval,
            subject: ordered.subject().map(|subject| subject.as_str().to_owned()),
            pseudonym,
            under,
            after: None,
            keys: 0,
            listed: Vec::new(),
            digest: kept(&[0; 32]),
            started: now,
            updated: now,
            finished: None,
        });
        writes.push(work.write(tenant)?);
        around(Step::ShredBegin, self.parts.store.commit(writes)).await?;
        self.evict_tenant(tenant);
        Ok(())
    }

    async fn side_key_gone(&self, tenant: &TenantId) -> Result<Option<Write>, Error> {
        let key = rows::side_key(tenant, PSEUDONYMS);
        let Some((row, stored)) = self.row::<SideKeyRow>(Table::SideKeys, &key).await? else { return Ok(None) };
        rows::write(Table::SideKeys, key, Expect::Version(stored.version), &row.tombstone()).map(Some)
    }

    /// Carries out one step of the shred that runs for a tenant.
    ///
    /// # Errors
    /// [`Error::Conflict`] if other writers came between again and again; [`Error::Unavailable`], [`Error::Corrupt`].
    pub(crate) async fn shred_turn(&self, tenant: &TenantId) -> Result<Turn<Shredded>, Error> {
        for _ in 0..RETRIES {
            let mut work = self.work(tenant).await?;
            let due = work.row.destructions.iter().map(|destruction| Timestamp(destruction.due)).next_back();
            let Some(shred) = work.row.shred.as_mut().filter(|shred| shred.finished.is_none()) else {
                return Ok(Turn::Idle);
            };
            let found = self.next_to_shred(tenant, shred).await?;
            let Some(last) = found.last() else {
                if shred.subject.is_none() {
                    // Those that did not fit into the first commit.
                    let (mut writes, _) = self.tenant_keys_gone(tenant, KeyVersion(u32::MAX), STEP).await?;
                    if !writes.is_empty() {
                        writes.push(work.write(tenant)?);
                        return self.turned(writes).await;
                    }
                }
                // Once more: a call that had begun before may have loaded a key since.
                self.evict_tenant(tenant);
                return shredded(shred, due).map(Turn::Ready);
            };
            shred.after = Some(Cursor(last.key.clone()));
            shred.updated = self.parts.clock.now().0;
            let mut writes = Vec::new();
            let mut gone = Vec::new();
            for scanned in &found {
                let row: DataKeyRow = rows::decode(Table::DataKeys, &scanned.row)?;
                let meant = shred.subject.is_none() || row.subject == shred.subject;
                if row.state == KeyState::Destroyed || !meant {
                    continue;
                }
                let id = rows::key_id_from(&scanned.key)?;
                note(shred, id, row.version);
                let expect = Expect::Version(scanned.row.version);
                writes.push(rows::write(Table::DataKeys, scanned.key.clone(), expect, &row.tombstone())?);
                gone.push(DataKeyName(tenant.clone(), id));
            }
            writes.push(work.write(tenant)?);
            match around(Step::ShredKeys, self.parts.store.commit(writes)).await {
                Ok(()) => {
                    gone.iter().for_each(|name| self.data_keys.evict(name));
                    return Ok(Turn::More);
                }
                Err(Error::Conflict(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::Conflict("tenant"))
    }

    /// Closes a shred with its receipt. False if another did.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Corrupt`].
    pub(crate) async fn end_shred(&self, tenant: &TenantId, done: &Shredded, receipt: &str) -> Result<bool, Error> {
        for _ in 0..RETRIES {
            let mut work = self.work(tenant).await?;
            let same = |shred: &&mut ShredRow| shred.finished.is_none() && shred.approval == done.approval;
            let Some(shred) = work.row.shred.as_mut().filter(same) else { return Ok(false) };
            let now = self.parts.clock.now().0;
            shred.updated = now;
            shred.finished = Some(now);
            shred.subject = None;
            let Some(closing) = self.executed(tenant, done.approval, receipt).await? else { return Ok(false) };
            let mut writes = Vec::from(closing);
            writes.push(work.write(tenant)?);
            match around(Step::ShredEnd, self.parts.store.commit(writes)).await {
                Ok(()) => return Ok(true),
                Err(Error::Conflict(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::Conflict("tenant"))
    }
}

/// Adds a data key to what a shred destroyed: SHA-256(digest so far ‖ key id ‖ u32 version), from 32 zero bytes.
fn note(shred: &mut ShredRow, id: KeyId, version: u32) {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(&shred.digest.0);
    context.update(&id.0);
    context.update(&version.to_be_bytes());
    shred.digest = kept(context.finish().as_ref());
    shred.keys += 1;
    if shred.listed.len() < LISTED {
        shred.listed.push(ListedKey { id: kept(&id.0), version });
    }
}

fn damaged() -> Error {
    Error::corrupt("store", "a shred, or the list of what it destroys, is not as it was written")
}

fn shredded(shred: &ShredRow, due: Option<Timestamp>) -> Result<Shredded, Error> {
    let listed = |key: &ListedKey| {
        let id = key.id.0.as_slice().try_into().map_err(|_| damaged())?;
        Ok((KeyId(id), KeyVersion(key.version)))
    };
    let pseudonym = shred.pseudonym.as_ref().map(|kept| kept.0.as_slice().try_into().map(Pseudonym));
    Ok(Shredded {
        approval: shred.approval,
        pseudonym: pseudonym.transpose().map_err(|_| damaged())?,
        under: KeyVersion(shred.under),
        due: due.filter(|_| shred.subject.is_some()),
        keys: shred.keys,
        listed: shred.listed.iter().map(listed).collect::<Result<_, Error>>()?,
        digest: shred.digest.0.as_slice().try_into().map_err(|_| damaged())?,
        decided: Timestamp(shred.started),
    })
}
