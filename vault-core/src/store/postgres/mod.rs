//! Rows in a PostgreSQL, or what speaks its protocol, for many gateways at once.
//!
//! ```text
//! mod          the store: its runtime, what calls become
//!   watch      revocations made elsewhere, and the lease
//!   gateways · census    who else works here      evictions · tending    what each has wiped, who carries on work
//!   rows · commit    reading, writing          migrate · store_key   what is done once, at the start
//!     fresh    whether a row is the newest
//!     chain    what binds rows to the present
//!     pool     connections on loan             seal    rows as the database sees them
//!       connection
//!         settings · fault
//! ```
//!
//! Whoever administers the database sees tenants' and datasets' names, numbers of rows and when they change. It can
//! neither read nor make rows, nor move or renumber them (`seal`), nor put an old one back (`fresh`). `docs/postgres.md` says what it can do.

mod census;
mod chain;
mod commit;
mod connection;
mod evictions;
mod fault;
mod fresh;
mod gateways;
mod logs;
mod migrate;
mod pool;
mod rows;
mod seal;
mod settings;
mod store_key;
mod tending;
mod watch;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::time::timeout;

pub use settings::{Address, PostgresSettings, Tls};

use self::connection::Connector;
use self::fault::Fault;
use self::fresh::Freshness;
use self::gateways::Gateways;
use self::pool::Pool;
use self::seal::Sealer;
use self::watch::{Lease, Watch};
use super::cache::RowCache;
use super::{Anchor, BoxFuture, Eviction, LogName, Row, Scanned, Store, Table, Watcher, Write, check_batch};
use crate::error::{Dependency, Error};
use crate::kms::Roots;

/// Threads of a store: they wait for the database and seal small rows.
const THREADS: usize = 2;
/// How long bringing the schema up to date may take, and waiting for another gateway that does.
const MIGRATION: Duration = Duration::from_secs(60);

/// Rows in a PostgreSQL database.
///
/// It brings its own threads, so its futures can be awaited anywhere. What it does ends within the bounds of
/// [`PostgresSettings`], whatever the database does.
pub struct PostgresStore {
    shared: Arc<Shared>,
    threads: Threads,
}

/// What the store's tasks share.
struct Shared {
    pool: Pool,
    sealer: Sealer,
    fresh: Freshness,
    cache: RowCache,
    lease: Lease,
    gateways: Gateways,
    watchers: Mutex<Vec<Weak<dyn Watcher>>>,
    /// Whether the database knows LISTEN and NOTIFY; without them changes are found by asking.
    notifies: bool,
    /// How long a statement may take.
    limit: Duration,
}

/// A runtime that may be dropped anywhere: it does not wait for its tasks.
struct Threads(Option<Runtime>, Handle);

impl Threads {
    fn new() -> Result<Self, Error> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("vault-postgres")
            .enable_io()
            .enable_time()
            .build()
            .map_err(|_| Error::unavailable(Dependency::Store, "no threads for the database"))?;
        let handle = runtime.handle().clone();
        Ok(Self(Some(runtime), handle))
    }

    /// Runs to its end, even if nobody waits for it any more.
    async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        let ended = |_| Err(Error::unavailable(Dependency::Store, "the store was closed, or a thread of it ended"));
        self.1.spawn(work).await.unwrap_or_else(ended)
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl PostgresStore {
    /// Opens the store in a database: brings its schema up to date, has the store key opened by its root keys (or makes
    /// it, in a fresh database), and begins to watch for revocations.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming a setting; [`Error::FailedPrecondition`] if the schema is of a newer program or the rows
    /// are of another installation; [`Error::Corrupt`]; [`Error::Unavailable`] without database or root key.
    pub async fn open(settings: PostgresSettings, roots: Arc<Roots>, instance: &str) -> Result<Self, Error> {
        settings.check()?;
        let threads = Threads::new()?;
        let instance = instance.to_owned();
        let shared = threads.run(open(settings, roots, instance)).await?;
        Ok(Self { shared, threads })
    }
}

async fn open(settings: PostgresSettings, roots: Arc<Roots>, instance: String) -> Result<Arc<Shared>, Error> {
    let connector = Arc::new(Connector::new(&settings)?);
    let mut connection = connector.connect(None).await?;
    let client = &mut connection.client;
    let slow = |_| Error::unavailable(Dependency::Store, "the database did not answer in time");
    timeout(MIGRATION, migrate::migrate(client)).await.map_err(slow)??;
    let sealer = store_key::load(client, &roots, &instance).await?;
    let lease = Lease::new(settings.revocation_lease);
    let gateways = Gateways::new(&settings.gateway, settings.revocation_lease)?;
    let limit = settings.statement_timeout;
    let begun = Watch::begin(Arc::clone(&connector), client, &sealer, settings.anchor.as_ref(), &lease);
    let (watch, fresh) = timeout(MIGRATION, begun).await.map_err(slow)??;
    let listens = timeout(limit, client.batch_execute("LISTEN blindvault_epoch")).await.map_err(slow)?;
    let shared = Arc::new(Shared {
        pool: Pool::new(connector, &settings),
        sealer,
        fresh,
        cache: RowCache::new(settings.cached_rows),
        lease,
        gateways,
        watchers: Mutex::default(),
        notifies: match listens.map_err(Fault::from) {
            Ok(()) => true,
            Err(Fault::Refused(_)) => false,
            Err(fault) => return Err(fault.into()),
        },
        limit,
    });
    tokio::spawn(watch.run(Arc::clone(&shared)));
    Ok(shared)
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PostgresStore")
    }
}

impl Store for PostgresStore {
    fn get<'a>(&'a self, table: Table, key: &'a [u8]) -> BoxFuture<'a, Result<Option<Row>, Error>> {
        Box::pin(async move {
            let (shared, key) = (Arc::clone(&self.shared), key.to_vec());
            self.threads.run(async move { shared.get(table, &key).await }).await
        })
    }

    fn get_cached<'a>(&'a self, table: Table, key: &'a [u8]) -> BoxFuture<'a, Result<Option<Row>, Error>> {
        Box::pin(async move {
            self.shared.lease.check()?;
            if !self.shared.gateways.is_in()? {
                let shared = Arc::clone(&self.shared);
                self.threads.run(async move { shared.join().await }).await?;
            }
            let ticket = match self.shared.cache.get(table, key) {
                Ok(row) => return Ok(Some(row)),
                Err(ticket) => ticket,
            };
            let row = self.get(table, key).await?;
            if let Some(row) = &row {
                self.shared.cache.put(table, key, row, ticket);
            }
            Ok(row)
        })
    }

    fn scan<'a>(
        &'a self,
        table: Table,
        prefix: &'a [u8],
        after: Option<&'a [u8]>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Scanned>, Error>> {
        Box::pin(async move {
            let shared = Arc::clone(&self.shared);
            let (prefix, after) = (prefix.to_vec(), after.map(<[u8]>::to_vec));
            self.threads.run(async move { shared.scan(table, &prefix, after.as_deref(), limit).await }).await
        })
    }

    fn commit(&self, writes: Vec<Write>) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            check_batch(&writes)?;
            if writes.is_empty() {
                return Ok(());
            }
            let shared = Arc::clone(&self.shared);
            self.threads.run(async move { shared.commit(writes).await }).await
        })
    }

    fn anchor(&self) -> Option<Anchor> {
        let total = self.shared.fresh.total();
        Some(Anchor { epoch: u64::try_from(total.epoch).ok()?, chain: total.chain })
    }

    fn lease(&self) -> Result<(), Error> {
        self.shared.lease.check()
    }

    fn evictions<'a>(
        &'a self,
        tenant: &'a [u8],
        patience: Duration,
    ) -> BoxFuture<'a, Result<Option<Vec<Eviction>>, Error>> {
        Box::pin(async move {
            let (shared, tenant) = (Arc::clone(&self.shared), tenant.to_vec());
            self.threads.run(async move { shared.evictions(&tenant, patience).await.map(Some) }).await
        })
    }

    fn tends(&self) -> BoxFuture<'_, Result<bool, Error>> {
        Box::pin(async move {
            let shared = Arc::clone(&self.shared);
            self.threads.run(async move { shared.tends().await }).await
        })
    }

    fn logs<'a>(&'a self, own: &'a LogName, enter: bool) -> BoxFuture<'a, Result<Vec<LogName>, Error>> {
        Box::pin(async move {
            let (shared, own) = (Arc::clone(&self.shared), own.clone());
            self.threads.run(async move { shared.logs(&own, enter).await }).await
        })
    }

    fn leave(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            let shared = Arc::clone(&self.shared);
            self.threads.run(async move { shared.leave().await }).await
        })
    }

    fn watch(&self, watcher: Weak<dyn Watcher>) {
        self.shared.watchers.lock().unwrap_or_else(PoisonError::into_inner).push(watcher);
    }
}
