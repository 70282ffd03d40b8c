//! Rows: small, versioned, durable once acknowledged.
//!
//! The vault keeps only metadata and wrapped keys here; whoever reads the store reads nothing secret. Rows are never
//! deleted, what is destroyed leaves a tombstone value. [`Store`] is the seam: the embedded implementation keeps one
//! file on one machine, a later one keeps the rows in a database.

mod backend;
mod bounds;
mod embedded;
mod engine;
mod header;
mod open;
mod overlay;
mod row;
mod writer;

use std::fmt;
use std::future::Future;
use std::pin::Pin;

pub use bounds::{MAX_BATCH, MAX_KEY, MAX_VALUE, check_batch};
pub use embedded::EmbeddedStore;

use crate::error::Error;

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
}

impl Table {
    /// All of them.
    pub const ALL: [Self; 10] = [
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
        }
    }
}

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
}

/// One row of a scan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scanned {
    /// The row's key.
    pub key: Vec<u8>,
    /// The row.
    pub row: Row,
}

/// Durable rows with compare-and-swap.
pub trait Store: Send + Sync + fmt::Debug + 'static {
    /// Reads one row, as the last acknowledged commit left it or a later one that is being acknowledged.
    ///
    /// # Errors
    /// [`Error::Unavailable`] or [`Error::Corrupt`].
    fn get<'a>(&'a self, table: Table, key: &'a [u8]) -> BoxFuture<'a, Result<Option<Row>, Error>>;

    /// Reads up to `limit` rows whose keys start with `prefix` and come after `after`, in order of their keys' bytes.
    /// The rows are of one moment; the next page may be of a later one.
    ///
    /// # Errors
    /// [`Error::Unavailable`] or [`Error::Corrupt`].
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
}
