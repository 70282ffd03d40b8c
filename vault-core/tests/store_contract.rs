//! The contract of `store::Store`, kept by the embedded store on a real disk and on the simulated one.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

use std::path::Path;
use std::sync::Arc;

use simfs::SimFs;
use store_contract::{Bed, store_contract};
use vault_core::fs::OsFs;
use vault_core::store::{EmbeddedStore, Store};

#[path = "common/simfs.rs"]
mod simfs;
#[path = "common/store_contract.rs"]
mod store_contract;

struct OsBed(tempfile::TempDir);

impl OsBed {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
}

impl Bed for OsBed {
    fn open(&self) -> Arc<dyn Store> {
        Arc::new(EmbeddedStore::open(Arc::new(OsFs), &self.0.path().join("rows")).unwrap())
    }
}

impl Bed for SimFs {
    fn open(&self) -> Arc<dyn Store> {
        Arc::new(EmbeddedStore::open(Arc::new(self.clone()), Path::new("/data/rows")).unwrap())
    }
}

store_contract!(embedded_on_a_real_disk, OsBed::new());
store_contract!(embedded_on_a_simulated_disk, SimFs::new());
