//! Rows: small, versioned, durable once acknowledged.
//!
//! The vault keeps only metadata and wrapped keys here; whoever reads the store reads nothing secret. Rows are never
//! deleted, what is destroyed leaves a tombstone value. [`Store`] is the seam: the embedded implementation keeps one
//! file on one machine, the other (feature `postgres`) keeps the rows in a database that many gateways share.

mod backend;
mod bounds;
mod cache;
mod embedded;
mod engine;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod header;
mod open;
mod overlay;
#[cfg(feature = "postgres")]
mod postgres;
mod row;
mod writer;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Weak;
use std::time::Duration;

pub use bounds::{MAX_BATCH, MAX_KEY, MAX_VALUE, check_batch};
pub use embedded::EmbeddedStore;
#[cfg(feature = "postgres")]
pub use postgres::{Address, PostgresSettings, PostgresStore, Tls};

pub use crate::audit::Anchor;
use crate::error::Error;
use crate::time::Timestamp;

/// A future that borrows from its caller and can move between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The kinds of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// One row a tenant: state and key versions.
    Tenants,
    /// One row a dataset.
    Datasets,
    /// One row a tenant key version: wrapped under a root key.
    TenantKeys,
    /// One row a data key version: wrapped under a tenant key.
    DataKeys,
    /// Which data key is active for a (tenant, dataset, subject).
    ActiveKeys,
    /// Index, token and audit-pseudonym keys, wrapped under a tenant key.
    SideKeys,
    /// One row a tenant: what is under way for it in steps, and what is scheduled.
    Work,
    /// One row a subject with data keys of its own, or that was shredded: makes its first key and its end exclude
    /// each other.
    Subjects,
    /// One row an approval, asked for, given or refused.
    Approvals,
    /// One row an erasure receipt.
    Receipts,
    /// Policy bundles: which is in force, which were, and what they say.
    Policies,
    /// One row a consent of a tenant's end user, in force or withdrawn; sealed under a key of the tenant.
    Consents,
    /// One row a time-bound grant, in force, over or revoked; sealed under a key of the tenant.
    Grants,
    /// One row a dataset, and one a tenant for all its datasets: which consents and grants to look at.
    Access,
    /// A shared store's own, not among [`Self::ALL`]: which gateways work on the rows. No backup holds it.
    Gateways,
}

/// The first part of the keys of all rows in [`Table::Policies`], in the place where others name their tenant; it can be
/// no tenant's name. A [`Watcher`] is told of it when another bundle came into force.
pub const POLICY_ROWS: &[u8] = b".policy";

impl Table {
    /// All tables of the vault's rows.
    pub const ALL: [Self; 14] = [
        Self::Tenants,
        Self::Datasets,
        Self::TenantKeys,
        Self::DataKeys,
        Self::ActiveKeys,
        Self::SideKeys,
        Self::Work,
        Self::Subjects,
        Self::Approvals,
        Self::Receipts,
        Self::Policies,
        Self::Consents,
        Self::Grants,
        Self::Access,
    ];

    /// The table's stable name in files and databases.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tenants => "tenants",
            Self::Datasets => "datasets",
            Self::TenantKeys => "tenant_keys",
            Self::DataKeys => "data_keys",
            Self::ActiveKeys => "active_keys",
            Self::SideKeys => "side_keys",
            Self::Work => "work",
            Self::Subjects => "subjects",
            Self::Approvals => "approvals",
            Self::Receipts => "receipts",
            Self::Gateways => "gateways",
            Self::Policies => "policies",
            Self::Consents => "consents",
            Self::Grants => "grants",
            Self::Access => "access",
        }
    }
}

/// The `why` of an [`Error::Unavailable`] from [`Store::commit`] when even the next call may find the old rows or the
/// new: all of them, but nobody knows which. Reading again tells, and the versions keep a repetition from doing it twice.
pub const OUTCOME_UNKNOWN: &str =
    "the connection was lost while committing, and whether it was done is unknown; read again before you retry";

/// A stored value and how often it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// 1 when first written, one more each time.
    pub version: u64,
    /// The bytes.
    pub value: Vec<u8>,
}

/// What a write demands of the row it replaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// There is none yet.
    Absent,
    /// It is at exactly this version.
    Version(u64),
}

/// One row to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// Which table.
    pub table: Table,
    /// The row's key: 1 to 1,024 bytes.
    pub key: Vec<u8>,
    /// What it replaces.
    pub expect: Expect,
    /// The new bytes, 64 KiB at most.
    pub value: Vec<u8>,
    /// A key goes with this write: whoever else works on the same rows must wipe what it holds of the tenant. A write to
    /// [`Table::Tenants`] says so by itself.
    pub revokes: bool,
}

/// One row of a scan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scanned {
    /// The row's key.
    pub key: Vec<u8>,
    /// The row.
    pub row: Row,
}

/// A gateway, and what it says of a tenant's keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Eviction {
    /// Its name, and what tells its starts apart.
    pub gateway: String,
    /// How long it serves without the database.
    pub lease: Duration,
    /// When, by its own clock, it had wiped what was revoked; `None` if it has not said so.
    pub evicted: Option<Timestamp>,
}

/// The audit log of a gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogName {
    /// Its name, as its checkpoints carry it.
    pub origin: String,
    /// The keys that verify its checkpoints (C2SP signed-note), the oldest first.
    pub keys: Vec<String>,
    /// The leaf hash of its first entry: tells it from another log of that name.
    pub first: [u8; 32],
}

/// Durable rows with compare-and-swap.
pub trait Store: Send + Sync + fmt::Debug + 'static {
    /// Reads one row, as the last acknowledged commit left it or a later one that is being acknowledged.
    ///
    /// # Errors
    /// [`Error::Unavailable`] or [`Error::Corrupt`].
    fn get<'a>(&'a self, table: Table, key: &'a [u8]) -> BoxFuture<'a, Result<Option<Row>, Error>>;

    /// Reads one row for a data call. It may come from memory, and then be older than the last commit made through
    /// another store on the same rows, for as long as [`Self::lease`] allows; a commit through this store is seen at once.
    ///
    /// # Errors
    /// [`Error::Unavailable`], also when the lease has run out; [`Error::Corrupt`].
    fn get_cached<'a>(&'a self, table: Table, key: &'a [u8]) -> BoxFuture<'a, Result<Option<Row>, Error>> {
        self.get(table, key)
    }

    /// Reads up to `limit` rows whose keys start with `prefix` and come after `after`, in a fixed order. It is that of
    /// the keys' bytes, but where a key names a person (the third part of keys in [`Table::ActiveKeys`], which `prefix`
    /// must not reach into): a store may keep those in another. The rows are of one moment; the next page may be of a
    /// later one.
    ///
    /// # Errors
    /// [`Error::Unavailable`] or [`Error::Corrupt`]; [`Error::Invalid`] naming `prefix`.
    fn scan<'a>(
        &'a self,
        table: Table,
        prefix: &'a [u8],
        after: Option<&'a [u8]>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Scanned>, Error>>;

    /// Writes all rows or none, if each is as expected. Durable when it resolves to `Ok`. A future that was polled may
    /// be carried out even if it is dropped; one that never was does nothing. An empty batch does nothing.
    ///
    /// # Errors
    /// [`Error::Conflict`] naming the table if a row is not as expected (nothing is written), [`Error::Invalid`] naming
    /// the field for what [`check_batch`] refuses, [`Error::Unavailable`] if the disk or database failed: the rows are
    /// then the old or the new, all of them. [`Error::Corrupt`] if a row to be replaced is damaged.
    fn commit(&self, writes: Vec<Write>) -> BoxFuture<'_, Result<(), Error>>;

    /// Whether what is in memory may still be used: changes made through other stores on the same rows are known, up to
    /// a moment that is not longer ago than the revocation lease. A store that shares its rows with nobody always says
    /// yes.
    ///
    /// # Errors
    /// [`Error::Unavailable`] once it has run out.
    fn lease(&self) -> Result<(), Error> {
        Ok(())
    }

    /// The newest state of the rows that this store knows, for the audit log: a store that is opened with it refuses
    /// every older state, and every other history. `None` for a store that shares its rows with nobody.
    fn anchor(&self) -> Option<Anchor> {
        None
    }

    /// Which gateways work on the same rows and may have keys in memory, and which of them have wiped what was last revoked
    /// of a tenant: what a commit before this call destroyed. Waits up to `patience` for the others. `None` for a store that
    /// shares its rows with nobody.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Corrupt`].
    fn evictions<'a>(
        &'a self,
        tenant: &'a [u8],
        patience: Duration,
    ) -> BoxFuture<'a, Result<Option<Vec<Eviction>>, Error>> {
        let _ = (tenant, patience);
        Box::pin(std::future::ready(Ok(None)))
    }

    /// Whether it is this store through which work in steps is to be carried on; of those that share their rows one is,
    /// until it has not asked for some seconds. Two who work at the same time do no harm.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    fn tends(&self) -> BoxFuture<'_, Result<bool, Error>> {
        Box::pin(std::future::ready(Ok(true)))
    }

    /// All audit logs of gateways that work, or worked, on the same rows, this store's own first; with `enter` after making
    /// that one known to the others. A store that shares its rows with nobody knows its own only.
    ///
    /// # Errors
    /// [`Error::FailedPrecondition`] if another log has the same name; [`Error::Unavailable`]; [`Error::Corrupt`].
    fn logs<'a>(&'a self, own: &'a LogName, enter: bool) -> BoxFuture<'a, Result<Vec<LogName>, Error>> {
        let _ = enter;
        Box::pin(std::future::ready(Ok(vec![own.clone()])))
    }

    /// For a store that shares its rows: has the watchers wipe everything, refuses data calls from then on, and tells the
    /// others that nobody has to wait for this one. One that is dropped without it is waited for until its lease has ended.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Corrupt`]: the others do not know then.
    fn leave(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Has a watcher told of changes made through other stores on the same rows, for as long as it lives. To have the
    /// keys of a tenant wiped on every gateway, a commit replaces the tenant's own row, along with whatever it is about.
    fn watch(&self, watcher: Weak<dyn Watcher>) {
        drop(watcher);
    }
}

/// Keeps things in memory that a change of rows makes worthless.
pub trait Watcher: Send + Sync + 'static {
    /// The row of a tenant was replaced, perhaps by ourselves; `None` stands for any, [`POLICY_ROWS`] for the policies.
    /// What is in memory of it must be gone when this returns.
    fn changed(&self, tenant: Option<&[u8]>);
}
