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
use tokio::time::{sleep, timeout};
use tokio_postgres::types::Type;

use super::Shared;
use super::census::{Silence, tidied};
use super::chain::open_tenant;
use super::fault::Fault;
use super::rows::Parameter;
use crate::crypto::random_bytes;
use crate::error::{Dependency, Error};
use crate::store::{Eviction, Expect, Table, Write};
use crate::time::{Clock as _, SystemClock, Timestamp};

/// The key of the directory's row: no tenant has such a name.
pub(super) const DIRECTORY: &[u8] = b"#gateways";
/// The kind under which confirmations are sealed; no table of rows has such a name.
const CONFIRMATION: &str = "#gateway";
/// How often a gateway says that it is there, if it has nothing to confirm.
const BEAT: Duration = Duration::from_secs(10);
/// Between two looks at what others have confirmed.
const LOOK: Duration = Duration::from_millis(20);
/// How often the directory is written anew when others write it, too; and how often what was read is read again.
const ATTEMPTS: usize = 16;
/// How long a gateway tends without saying so again, as the database has it, and before it says so.
const TENDING: Duration = Duration::from_secs(5);
const RENEW_TENDING: Duration = Duration::from_secs(2);

const TELL: &str = "INSERT INTO blindvault_gateways (id, epoch, sealed) VALUES ($1, $2, $3) \
    ON CONFLICT (id) DO UPDATE SET epoch = EXCLUDED.epoch, sealed = EXCLUDED.sealed";
const TOLD: &str = "SELECT id, epoch, sealed FROM blindvault_gateways";
const FORGET: &str = "DELETE FROM blindvault_gateways WHERE NOT id = ANY($1)";
const HEAD: &str = "SELECT rows_epoch, sealed FROM blindvault_changes WHERE tenant = $1";
const TEND: &str = "UPDATE blindvault_tending SET holder = $1, until = CURRENT_TIMESTAMP + INTERVAL '5 seconds' \
    WHERE id = 1 AND (holder = $1 OR until < CURRENT_TIMESTAMP)";
const REST: &str = "UPDATE blindvault_tending SET until = CURRENT_TIMESTAMP WHERE id = 1 AND holder = $1";

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
    fn shown(&self) -> String {
        format!("{}/{}", self.name, self.id.get(..8).unwrap_or_default())
    }
}

/// All gateways that may have keys in memory.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Directory {
    pub(super) gateways: Vec<Entry>,
}

/// This gateway among the others.
pub(super) struct Gateways {
    id: String,
    name: String,
    lease: Duration,
    standing: AtomicU8,
    joining: tokio::sync::Mutex<()>,
    /// The last epoch known for which keys had to be wiped.
    revoked: AtomicI64,
    /// The epoch of the last confirmation that the database has; [`NEVER`] since it joined.
    told: AtomicI64,
    telling: AtomicBool,
    beat: Mutex<Option<Instant>>,
    silences: Mutex<HashMap<String, Silence>>,
    tending: Mutex<Option<Instant>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
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
    async fn directory(&self) -> Result<(Directory, Expect), Error> {
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
        if lock(&own.tending).take().is_some() {
            self.execute(REST, &[(&own.id.as_bytes(), Type::BYTEA)]).await?;
        }
        self.change_directory(|directory| {
            let before = directory.gateways.len();
            directory.gateways.retain(|entry| entry.id != own.id);
            directory.gateways.len() < before
        })
        .await
    }

    /// Looks whether this gateway is still in the directory, which has changed. If not, nothing stays in memory; the
    /// next data call enters it again.
    pub(super) async fn look_for_ourselves(&self) -> Result<(), Error> {
        if self.gateways.standing.load(Ordering::Acquire) == IN && !self.gateways.is_of(&self.directory().await?.0) {
            let _ = self.gateways.standing.compare_exchange(IN, OUT, Ordering::AcqRel, Ordering::Acquire);
            self.changed(None);
        }
        Ok(())
    }

    /// After a good confirmation, for which all that was revoked up to `revoked` is wiped: tells the others, if they
    /// want to know, and looks after the directory from time to time.
    pub(super) fn tell_later(self: &Arc<Self>, revoked: i64) {
        let own = &self.gateways;
        own.revoked.fetch_max(revoked, Ordering::AcqRel);
        if own.standing.load(Ordering::Acquire) != IN {
            return;
        }
        let told = own.told.load(Ordering::Acquire);
        let beat = lock(&own.beat).is_none_or(|beat| beat.elapsed() >= BEAT);
        let owed = told == NEVER || told < own.revoked.load(Ordering::Acquire) || beat;
        if owed && !own.telling.swap(true, Ordering::AcqRel) {
            let shared = Arc::clone(self);
            tokio::spawn(async move {
                // What fails is owed still, and tried again after the next confirmation.
                if shared.tell().await.is_ok() && beat {
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
        let rows = told.into_iter().map(|(id, (_, sealed))| (id, sealed)).collect();
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
        let ids: Vec<&[u8]> = directory.gateways.iter().map(|entry| entry.id.as_bytes()).collect();
        self.execute(FORGET, &[(&ids, Type::BYTEA_ARRAY)]).await.map(drop)
    }

    /// What each gateway confirmed last, as it stands in the database.
    async fn told(&self) -> Result<HashMap<String, (i64, Vec<u8>)>, Error> {
        let rows = self.read(TOLD, &[]).await?;
        let rows = rows.iter().map(|row| {
            let id: &[u8] = row.try_get(0)?;
            Ok((String::from_utf8_lossy(id).into_owned(), (row.try_get(1)?, row.try_get(2)?)))
        });
        Ok(rows.collect::<Result<_, tokio_postgres::Error>>().map_err(Fault::from)?)
    }

    /// The gateways, and which of them have wiped what was last revoked of a tenant; waits a while for the others.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Corrupt`].
    pub(super) async fn evictions(&self, tenant: &[u8], patience: Duration) -> Result<Vec<Eviction>, Error> {
        let until = Instant::now() + patience;
        loop {
            let found = self.look_at_evictions(tenant).await?;
            if Instant::now() >= until || found.iter().all(|gateway| gateway.evicted.is_some()) {
                return Ok(found);
            }
            sleep(LOOK).await;
        }
    }

    async fn look_at_evictions(&self, tenant: &[u8]) -> Result<Vec<Eviction>, Error> {
        // In this order: a gateway that joins later finds the keys gone.
        let revoked = self.revoked_of(tenant).await?;
        let (directory, _) = self.directory().await?;
        let told = self.told().await?;
        let evicted = |entry: &Entry| {
            let (epoch, sealed) = told.get(&entry.id)?;
            let body = self.sealer.disclose((CONFIRMATION, entry.id.as_bytes()), *epoch, sealed).ok()?;
            let at = u64::from_be_bytes(body.as_slice().try_into().ok()?);
            (*epoch >= revoked).then_some(Timestamp(at))
        };
        let seen = directory.gateways.iter().map(|entry| Eviction {
            gateway: entry.shown(),
            lease: Duration::from_millis(entry.lease_ms),
            evicted: evicted(entry),
        });
        Ok(seen.collect())
    }

    /// The last epoch at which keys of a tenant were revoked.
    async fn revoked_of(&self, tenant: &[u8]) -> Result<i64, Error> {
        for _ in 0..ATTEMPTS {
            let found = self.read(HEAD, &[(&tenant, Type::BYTEA)]).await?;
            let head =
                found.first().map(|row| Ok::<_, Fault>((row.try_get::<_, i64>(0)?, row.try_get::<_, Vec<u8>>(1)?)));
            let head = head.transpose()?;
            let epoch = head.as_ref().map_or(0, |(epoch, _)| *epoch);
            if !self.is_newest(tenant, epoch, &[]).await? {
                continue;
            }
            return match head {
                Some((epoch, sealed)) => Ok(open_tenant(&self.sealer, tenant, epoch, &sealed)?.keys),
                None => Ok(0),
            };
        }
        Err(Fault::Again.into())
    }

    /// Whether this gateway is the one that carries on the work on keys: the one that said so last, until it is silent.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub(super) async fn tends(&self) -> Result<bool, Error> {
        let own = &self.gateways;
        if own.is_in().is_err() {
            return Ok(false);
        }
        if lock(&own.tending).is_some_and(|since| since.elapsed() < RENEW_TENDING) {
            return Ok(true);
        }
        let asked = Instant::now();
        let holds = self.execute(TEND, &[(&own.id.as_bytes(), Type::BYTEA)]).await? == 1;
        // Counted from before the question, so it never lasts longer here than there.
        let holds = holds && asked.elapsed() < TENDING;
        *lock(&own.tending) = holds.then_some(asked);
        Ok(holds)
    }

    /// Runs one statement that writes and may be repeated. Returns how many rows it changed.
    async fn execute(&self, sql: &str, parameters: &[Parameter<'_>]) -> Result<u64, Error> {
        loop {
            let loan = self.pool.take().await?;
            let fault = match timeout(self.limit, loan.connection.client.execute_typed(sql, parameters)).await {
                Ok(Ok(changed)) => {
                    self.pool.give_back(loan);
                    return Ok(changed);
                }
                Ok(Err(error)) => Fault::from(error),
                Err(_) => Fault::Lost("the database did not answer in time"),
            };
            if !(loan.reused && matches!(fault, Fault::Lost(_))) {
                return Err(fault.into());
            }
            self.pool.forget_idle();
        }
    }
}
