//! Backups: the rows of a store in one file, sealed under a key that the root keys hold.
//!
//! A backup holds what the store holds, so wrapped keys and no others, and names of tenants, datasets and subjects; who
//! has the file alone reads neither. The key is bound to the installation: in another instance the file does not open.
//!
//! ```text
//! file    "BLVBACK1" ‖ u32 length ‖ header (JSON: instance, created, wrapping) ‖ chunks
//! chunk   u32 length of what follows ‖ N(24) ‖ C(32) ‖ ciphertext ‖ tag(16)              KC-XAES-256-GCM
//! aad     "blindvault/backup/v1" ‖ 00 ‖ SHA-256(all before the chunks) ‖ u64 index ‖ u8 (1 if it is the last)
//! plain   records: 01 ‖ u8 len ‖ table ‖ u16 len ‖ key ‖ u64 version ‖ u32 len ‖ value;  the last one: 02 ‖ u64 rows
//! ```
//! Index and last mark in the AAD make it STREAM (Hoang, Reyhanitabar, Rogaway, Vizár, CRYPTO 2015): no chunk can be
//! left out, moved, repeated or cut off. Nonces are random, 24 bytes, one a chunk, under a key of this file alone.
//!
//! A store may change while it is read. Tables are read so that what refers comes before what it refers to, and rows are
//! never deleted, so a backup holds every row that one of its rows needs.

mod format;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod read;
mod restore;
mod write;

use crate::store::Table;

pub use read::{Report, verify};
pub use restore::{Restored, Source, restore};
pub use write::write;

/// The order in which tables are read: what refers to rows of another table comes before it.
const READ_ORDER: [Table; 14] = [
    Table::Receipts,
    Table::Approvals,
    Table::Policies,
    Table::ActiveKeys,
    Table::SideKeys,
    Table::DataKeys,
    Table::Subjects,
    Table::Datasets,
    Table::Work,
    Table::Tenants,
    Table::TenantKeys,
    // Read after the rows that say they are there; what they name comes after them, and by then may be withdrawn.
    Table::Access,
    Table::Consents,
    Table::Grants,
];
