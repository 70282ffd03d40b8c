//! The contract of `store::Store`, kept by the PostgreSQL store, each test in a database of its own.
#![cfg(all(feature = "postgres", feature = "dev"))]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

use std::sync::Arc;

use pg_bed::Database;
use store_contract::{Bed, store_contract};
use vault_core::store::Store;

#[path = "common/pg_bed.rs"]
mod pg_bed;
#[path = "common/postgres.rs"]
mod postgres;
#[path = "common/store_contract.rs"]
mod store_contract;

impl Bed for Database {
    fn open(&self) -> Arc<dyn Store> {
        Self::open(self)
    }
}

store_contract!(
    postgresql,
    match Database::fresh() {
        Some(database) => database,
        None => return,
    }
);
