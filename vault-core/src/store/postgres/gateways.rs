//! Which gateways work on these rows, and what each of them has wiped (`docs/postgres.md`, "Gateways").
//!
//! Whoever reads a row for a data call may have keys in memory from then on, so it is in the *directory* before it reads
//! the first: one row, as genuine and as new as any other. What a gateway *confirmed* stands in a table of its own: the
//! epoch up to which it has wiped what was revoked, and when, sealed. An old one claims less, never more.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio_postgres::types::Type;

use super::Shared;
use super::census::{Silence, tidied};
use super::fault::Fault;
use super::rows::Parameter;
use crate::crypto::random_bytes;
use crate::error::{Dependency, Error};
use crate::store::{Expect, Table, Write};
use crate::time::{Clock as _, SystemClock};

/// The key of the directory's row: no tenant has such a name.
pub(super) const DIRECTORY: &[u8] = b"#gateways";
/// The kind under which confirmations are sealed; no table of rows has such a name.
pub(super) const CONFIRMATION: &str = "#gateway";
/// How often a gateway says that it is there, if it has nothing to confirm.
const BEAT: Duration = Duration::from_secs(10);
/// How long the lease is renewed while it is not known whether this gateway is still in the directory.
pub(super) const DOUBT: Duration = Duration::from_secs(30);
/// How often the directory is written anew when others write it, too.
const ATTEMPTS: usize = 16;

const TELL: &str = "INSERT INTO blindvault_gateways (id, epoch, sealed) VALUES ($1, $2, $3) \
    ON CONFLICT (id) DO UPDATE SET epoch = EXCLUDED.epoch, sealed = EXCLUDED.sealed";
const FORGET: &str = "DELETE FROM blindvault_gateways WHERE id = ANY($1)";

const OUT: u8 = 0;
const IN: u8 = 1;
const LEFT: u8 = 2;
const NEVER: i64 = -1;

/// A gateway in the directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    /// 32 hexadecimal digits, made at its start.
    pub(super) id: String,
    pub(super) name: String,
    pub(super) lease_ms: u64,
    /// In milliseconds after 1970, by its own clock: for people.
    pub(super) joined: u64,
    /// It has said nothing for long; if it still says nothing, it goes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) silent: bool,
}

impl Entry {
    /// What stands for it in receipts: two starts of one gateway differ.
    pub(super) fn shown(&self) -> String {
        format!("{}/{}", self.name, self.id.get(..8).unwrap_or_default())
    }
}

/// All gateways that may have keys in memory.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Directory {
    pub(super) gateways: Vec<Entry>,
}

/// Changes of the directory that this gateway has heard of and not looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Doubt {
    since: Option<Instant>,
    changes: u64,
}

/// This gateway among the others.
pub(super) struct Gateways {
    pub(super) id: String,
    name: String,
    lease: Duration,
    standing: AtomicU8,
    joining: tokio::sync::Mutex<()>,
    /// The last epoch known for which keys had to be wiped.
    revoked: AtomicI64,
    /// The epoch of the last confirmation that the database has; [`NEVER`] since it joined.
    told: AtomicI64,
    telling: AtomicBool,
    doubt: Mutex<Doubt>,
    beat: Mutex<Option<Instant>>,
    silences: Mutex<HashMap<String, Silence>>,
    /// Since when this gateway holds the work on keys.
    pub(super) tending: Mutex<Option<Instant>>,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Gateways {
    /// One that has just started.
    pub(super) fn new(name: &str, lease: Duration) -> Result<Self, Error> {
        let mut id = [0; 16];
        random_bytes(&mut id)?;
        Ok(Self {
            id: id.iter().map(|byte| format!("{byte:02x}")).collect(),
            name: name.to_owned(),
            lease,
            standing: AtomicU8::new(OUT),
            joining: tokio::sync::Mutex::default(),
            revoked: AtomicI64::new(0),
            told: AtomicI64::new(NEVER),
            telling: AtomicBool::new(false),
            doubt: Mutex::default(),
            beat: Mutex::default(),
            silences: Mutex::default(),
            tending: Mutex::default(),
        })
    }

    /// Whether this gateway is in the directory.
    ///
    /// # Errors
    /// [`Error::Unavailable`] once it has left.
    pub(super) fn is_in(&self) -> Result<bool, Error> {
        match self.standing.load(Ordering::Acquire) {
            LEFT => Err(Error::unavailable(Dependency::Store, "this gateway stops")),
            standing => Ok(standing == IN),
        }
    }

    /// The directory has changed.
    pub(super) fn doubt(&self) {
        let mut doubt = lock(&self.doubt);
        doubt.since.get_or_insert_with(Instant::now);
        doubt.changes += 1;
    }

    /// Whether the lease may be renewed.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if it is not known for too long whether others wait for this gateway.
    pub(super) fn is_certain(&self) -> Result<(), Error> {
        match lock(&self.doubt).since {
            Some(since) if since.elapsed() >= DOUBT => Err(Fault::Lost("the directory cannot be read").into()),
            _ => Ok(()),
        }
    }

    fn entry(&self) -> Entry {
        Entry {
            id: self.id.clone(),
            name: self.name.clone(),
            lease_ms: u64::try_from(self.lease.as_millis()).unwrap_or(u64::MAX),
            joined: SystemClock.now().0,
            silent: false,
        }
    }

    fn is_of(&self, directory: &Directory) -> bool {
        directory.gateways.iter().any(|entry| entry.id == self.id && !entry.silent)
    }
}

impl Shared {
    pub(super) async fn directory(&self) -> Result<(Directory, Expect), Error> {
        match self.get(Table::Gateways, DIRECTORY).await? {
            None => Ok((Directory::default(), Expect::Absent)),
            Some(row) => {
                let read = serde_json::from_slice(&row.value);
                let damaged = |_| Error::from(Fault::Damaged("the directory of gateways is not as it was written"));
                Ok((read.map_err(damaged)?, Expect::Version(row.version)))
            }
        }
    }

    /// Changes the directory until nobody comes between. `change` says whether anything is to be written.
    async fn change_directory(&self, mut change: impl FnMut(&mut Directory) -> bool) -> Result<(), Error> {
        for _ in 0..ATTEMPTS {
            let (mut directory, expect) = self.directory().await?;
            if !change(&mut directory) {
                return Ok(());
            }
            let value = serde_json::to_vec(&directory);
            let value = value.map_err(|_| Error::corrupt("database", "the directory cannot be written as JSON"))?;
            let write = Write { table: Table::Gateways, key: DIRECTORY.to_vec(), expect, value, revokes: false };
            crate::store::check_batch(std::slice::from_ref(&write))
                .map_err(|_| Error::unavailable(Dependency::Store, "there are too many gateways on this database"))?;
            match self.commit(vec![write]).await {
                Err(Error::Conflict(_)) => {}
                done => return done,
            }
        }
        Err(Fault::Again.into())
    }

    /// Enters this gateway into the directory, unless it is there.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Corrupt`].
    pub(super) async fn join(&self) -> Result<(), Error> {
        let own = &self.gateways;
        let _one = own.joining.lock().await;
        if own.is_in()? {
            return Ok(());
        }
        self.change_directory(|directory| {
            if own.is_of(directory) {
                // An attempt whose end nobody heard of.
                return false;
            }
            directory.gateways.retain(|entry| entry.id != own.id);
            directory.gateways.push(own.entry());
            true
        })
        .await?;
        own.told.store(NEVER, Ordering::Release);
        let _ = own.standing.compare_exchange(OUT, IN, Ordering::AcqRel, Ordering::Acquire);
        own.is_in().map(drop)
    }

    /// Wipes everything, serves nothing any more, and leaves the directory.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Corrupt`]: the entry stays then, and others find it silent.
    pub(super) async fn leave(&self) -> Result<(), Error> {
        let own = &self.gateways;
        own.standing.store(LEFT, Ordering::Release);
        self.changed(None);
        let _one = own.joining.lock().await;
        self.rest().await?;
        self.change_directory(|directory| {
            let before = directory.gateways.len();
            directory.gateways.retain(|entry| entry.id != own.id);
            directory.gateways.len() < before
        })
        .await
    }

    /// Looks whether this gateway is still in the directory, which has changed. If not, nothing stays in memory; the
    /// next data call enters it again.
    async fn look_for_ourselves(&self) -> Result<(), Error> {
        let before = *lock(&self.gateways.doubt);
        if before.since.is_none() {
            return Ok(());
        }
        if self.gateways.standing.load(Ordering::Acquire) == IN && !self.gateways.is_of(&self.directory().await?.0) {
            let _ = self.gateways.standing.compare_exchange(IN, OUT, Ordering::AcqRel, Ordering::Acquire);
            self.changed(None);
        }
        let mut doubt = lock(&self.gateways.doubt);
        if *doubt == before {
            doubt.since = None;
        }
        Ok(())
    }

    /// After a good confirmation, for which all that was revoked up to `revoked` is wiped: tells the others, if they
    /// want to know, and looks after the directory from time to time.
    pub(super) fn tell_later(self: &Arc<Self>, revoked: i64) {
        let own = &self.gateways;
        own.revoked.fetch_max(revoked, Ordering::AcqRel);
        if own.standing.load(Ordering::Acquire) != IN {
            // It looks when it enters.
            lock(&own.doubt).since = None;
            return;
        }
        let told = own.told.load(Ordering::Acquire);
        let beat = lock(&own.beat).is_none_or(|beat| beat.elapsed() >= BEAT);
        let doubt = lock(&own.doubt).since.is_some();
        let owed = told == NEVER || told < own.revoked.load(Ordering::Acquire) || beat;
        if (owed || doubt) && !own.telling.swap(true, Ordering::AcqRel) {
            let shared = Arc::clone(self);
            tokio::spawn(async move {
                // What fails is owed still, and tried again after the next confirmation.
                let told = if owed { shared.tell().await } else { Ok(()) };
                if shared.look_for_ourselves().await.is_ok() && told.is_ok() && beat {
                    let _ = shared.tidy().await;
                }
                shared.gateways.telling.store(false, Ordering::Release);
            });
        }
    }

    async fn tell(&self) -> Result<(), Error> {
        let own = &self.gateways;
        self.fresh.check()?;
        // All that was revoked up to this state was wiped before it was taken for known.
        let epoch = self.fresh.total().epoch;
        let number = u64::try_from(epoch).map_err(|_| Fault::Damaged("an epoch below zero"))?;
        let at = SystemClock.now().0.to_be_bytes().to_vec();
        let sealed = self.sealer.close((CONFIRMATION, own.id.as_bytes()), number, at)?;
        let told: &[Parameter<'_>] = &[(&own.id.as_bytes(), Type::BYTEA), (&epoch, Type::INT8), (&sealed, Type::BYTEA)];
        self.execute(TELL, told).await?;
        own.told.store(epoch, Ordering::Release);
        *lock(&own.beat) = Some(Instant::now());
        Ok(())
    }

    /// Takes those out of the directory that have said nothing for long.
    async fn tidy(&self) -> Result<(), Error> {
        let told = self.told().await?;
        let rows = told.into_iter().map(|(id, (_, sealed))| (id, sealed)).collect::<HashMap<_, _>>();
        self.change_directory(|directory| {
            match tidied(directory, &rows, &mut lock(&self.gateways.silences), Instant::now()) {
                Some(tidy) => {
                    *directory = tidy;
                    true
                }
                None => false,
            }
        })
        .await?;
        let (directory, _) = self.directory().await?;
        // Who had said something and is not there now has left; who enters meanwhile is not among them.
        let there = |id: &str| directory.gateways.iter().any(|entry| entry.id == id);
        let gone: Vec<&[u8]> = rows.keys().filter(|id| !there(id)).map(|id| id.as_bytes()).collect();
        if gone.is_empty() {
            return Ok(());
        }
        self.execute(FORGET, &[(&gone, Type::BYTEA_ARRAY)]).await.map(drop)
    }
}
