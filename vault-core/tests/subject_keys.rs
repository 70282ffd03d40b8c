//! A shred of a subject looks at that subject's data keys; where they are not listed, as in rows of earlier versions, at
//! all of the tenant's, and misses none.
#![cfg(feature = "dev")]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

#[path = "common/fixture.rs"]
mod fixture;
#[path = "common/life.rs"]
#[expect(dead_code, reason = "only the scene is needed here")]
mod life;
#[path = "common/pki.rs"]
mod pki;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fixture::{call, target, tenant};
use life::{Scene, of, rows};
use pollster::block_on;
use vault_core::Error;
use vault_core::keys::{ApprovalState, ReceiptText};
use vault_core::store::{BoxFuture, Expect, Row, Scanned, Store, Table, Write};

/// A store that counts the pages of data keys that are read.
#[derive(Debug)]
struct Pages(Arc<dyn Store>, AtomicUsize);

impl Pages {
    fn read(&self) -> usize {
        self.1.swap(0, Ordering::SeqCst)
    }
}

impl Store for Pages {
    fn get<'a>(&'a self, table: Table, key: &'a [u8]) -> BoxFuture<'a, Result<Option<Row>, Error>> {
        self.0.get(table, key)
    }

    fn scan<'a>(
        &'a self,
        table: Table,
        prefix: &'a [u8],
        after: Option<&'a [u8]>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Scanned>, Error>> {
        if table == Table::DataKeys {
            self.1.fetch_add(1, Ordering::SeqCst);
        }
        self.0.scan(table, prefix, after, limit)
    }

    fn commit(&self, writes: Vec<Write>) -> BoxFuture<'_, Result<(), Error>> {
        self.0.commit(writes)
    }
}

/// Makes the rows those of a version that listed nothing.
fn forget_lists(store: &dyn Store) {
    for (table, field) in [(Table::Tenants, "lists_subject_keys"), (Table::Subjects, "keys")] {
        for Scanned { key, row } in block_on(store.scan(table, b"", None, usize::MAX)).unwrap() {
            let mut value: serde_json::Value = serde_json::from_slice(&row.value).unwrap();
            assert!(value.as_object_mut().unwrap().remove(field).is_some(), "there was none in {}", table.name());
            let value = serde_json::to_vec(&value).unwrap();
            let expect = Expect::Version(row.version);
            block_on(store.commit(vec![Write { table, key, expect, value, revokes: false }])).unwrap();
        }
    }
}

#[test]
fn a_listed_subject_is_shredded_without_looking_at_anyone_elses_keys() {
    let scene = Scene::new();
    let store = Arc::new(Pages(scene.store(), AtomicUsize::new(0)));
    let vault = scene.open(Arc::clone(&store) as _);
    scene.set_up(&vault);
    let of_mia = [of(Some("mia")), target("acme", "orders", Some("mia"))];
    let envelopes = of_mia.each_ref().map(|target| scene.encrypt(&vault, target).unwrap());
    scene.encrypt(&vault, &of(Some("noa"))).unwrap();
    block_on(vault.rotate_data_keys(&call(&scene.alice, &scene.reason), &tenant("acme"), None)).unwrap();
    store.read();

    let done = scene.shred(&vault, Some("mia"));
    assert_eq!((done.state, store.read()), (ApprovalState::Executed, 0));
    let receipt = ReceiptText::verify(done.receipt.as_deref().unwrap(), &scene.verifier()).unwrap();
    assert_eq!(receipt.data_keys, 4, "two datasets, two versions");
    for (target, envelope) in of_mia.iter().zip(&envelopes) {
        assert_eq!(scene.decrypt(&vault, target, envelope), Err(Error::Unopenable));
    }
    let destroyed: Vec<bool> =
        rows(&*store, Table::DataKeys).iter().map(|row| (row["subject"] == "mia") == (row["wrapped"] == "")).collect();
    assert_eq!(destroyed, [true; 6], "hers, and no other");
}

#[test]
fn a_subject_from_before_there_were_lists_is_shredded_with_all_keys() {
    let scene = Scene::new();
    let store = Arc::new(Pages(scene.store(), AtomicUsize::new(0)));
    let vault = scene.open(Arc::clone(&store) as _);
    scene.set_up(&vault);
    for subject in ["mia", "noa"] {
        scene.encrypt(&vault, &of(Some(subject))).unwrap();
    }
    forget_lists(&*store);
    // A further key of one whose first is in no list, and the first key of another, whom the tenant may have keys of.
    for target in [target("acme", "orders", Some("mia")), of(Some("ida"))] {
        scene.encrypt(&vault, &target).unwrap();
    }
    block_on(vault.rotate_data_keys(&call(&scene.alice, &scene.reason), &tenant("acme"), None)).unwrap();
    assert!(rows(&*store, Table::Subjects).iter().all(|row| row.get("keys").is_none()));

    for (subject, keys) in [("mia", 4), ("ida", 2)] {
        store.read();
        let done = scene.shred(&vault, Some(subject));
        assert_eq!((done.state, store.read()), (ApprovalState::Executed, 2), "a page of all keys, and its end");
        let receipt = ReceiptText::verify(done.receipt.as_deref().unwrap(), &scene.verifier()).unwrap();
        assert_eq!(receipt.data_keys, keys);
        block_on(vault.tend(|| true)).unwrap();
    }
    let left: Vec<_> = rows(&*store, Table::DataKeys).into_iter().filter(|row| row["wrapped"] != "").collect();
    assert!(left.len() == 2 && left.iter().all(|row| row["subject"] == "noa"));
}
