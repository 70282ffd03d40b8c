//! Whoever writes the database as they like (changes, swaps, copies, removes or rolls back any row) makes no envelope open
//! as something else, opens none elsewhere, and makes nothing panic: a wrapped key that was moved or changed opens nowhere.
#![no_main]

use std::cell::RefCell;
use std::sync::Arc;

use arbitrary::Arbitrary;
use blindvault_fuzz::bed::{Bed, Place};
use blindvault_fuzz::change::{Change, changed};
use blindvault_fuzz::memory_store::{MemoryStore, Rows};
use libfuzzer_sys::fuzz_target;
use vault_core::Vault;
use vault_core::kms::Roots;

#[derive(Debug, Arbitrary)]
enum Edit {
    Change(u8, Vec<Change>),
    /// The value of one row in the place of another's.
    Move(u8, u8),
    Swap(u8, u8),
    Remove(u8),
    RollBack(u8),
}

const PLACES: [Place; 4] =
    [("acme", "customers", None), ("acme", "customers", Some("mia")), ("acme", "orders", None), ("globex", "customers", None)];
/// A vault's log grows in memory: after so many inputs there is a new one.
const INPUTS: usize = 2000;

struct Scene {
    bed: Bed,
    roots: Arc<Roots>,
    store: MemoryStore,
    vault: Option<Vault>,
    /// The rows at the end, and as they were before keys were rotated.
    rows: Rows,
    old: Rows,
    envelopes: Vec<(Place, Vec<u8>)>,
    inputs: usize,
}

impl Scene {
    fn new() -> Self {
        let (bed, store) = (Bed::default(), MemoryStore::default());
        let roots = bed.roots();
        let vault = bed.open(Arc::new(store.clone()), Arc::clone(&roots));
        for (tenant, datasets) in [("acme", &["customers", "orders"][..]), ("globex", &["customers"][..])] {
            bed.create_tenant(&vault, tenant).unwrap();
            datasets.iter().for_each(|dataset| bed.create_dataset(&vault, tenant, dataset).unwrap());
        }
        let seal = |place: Place| (place, bed.encrypt(&vault, place, 1, text(place).as_bytes()).unwrap().envelope);
        let mut envelopes = PLACES.map(seal).to_vec();
        let old = store.rows().clone();
        bed.rotate_data_keys(&vault, "acme").unwrap();
        bed.rotate_tenant_key(&vault, "acme").unwrap();
        envelopes.extend(PLACES.map(seal));
        let rows = store.rows().clone();
        Self { bed, roots, store, vault: Some(vault), rows, old, envelopes, inputs: 0 }
    }

    fn run(&mut self, edits: &[Edit]) {
        self.inputs += 1;
        if self.inputs.is_multiple_of(INPUTS) {
            self.vault.take().unwrap().close().unwrap();
            self.bed = Bed::default();
        }
        let (store, roots) = (self.store.clone(), Arc::clone(&self.roots));
        let vault = self.vault.get_or_insert_with(|| self.bed.open(Arc::new(store), roots));
        *self.store.rows() = self.rows.clone();
        edits.iter().take(6).for_each(|one| edit(&mut self.store.rows(), &self.old, one));
        vault.keys().evict_all();
        for (place, envelope) in &self.envelopes {
            for other in PLACES {
                if let Ok(opened) = self.bed.decrypt(vault, other, 1, envelope) {
                    assert!(other == *place && opened == text(*place).as_bytes(), "{place:?} opens as {other:?}");
                }
            }
        }
        for place in PLACES {
            let Ok(sealed) = self.bed.encrypt(vault, place, 1, b"new") else { continue };
            for other in PLACES.into_iter().filter(|other| *other != place) {
                assert!(self.bed.decrypt(vault, other, 1, &sealed.envelope).is_err(), "sealed for another");
            }
        }
    }
}

fn text(place: Place) -> String {
    format!("{place:?}")
}

fn edit(rows: &mut Rows, old: &Rows, edit: &Edit) {
    let keys: Vec<_> = rows.keys().cloned().collect();
    let Some(last) = keys.len().checked_sub(1) else { return };
    let key = |which: &u8| &keys[usize::from(*which) % (last + 1)];
    match edit {
        Edit::Change(which, changes) => {
            let row = rows.get_mut(key(which)).unwrap();
            row.value = changed(&row.value, changes);
        }
        Edit::Move(from, to) => {
            let value = rows[key(from)].value.clone();
            rows.get_mut(key(to)).unwrap().value = value;
        }
        Edit::Swap(one, two) => {
            let (first, second) = (rows[key(one)].clone(), rows[key(two)].clone());
            rows.insert(key(one).clone(), second);
            rows.insert(key(two).clone(), first);
        }
        Edit::Remove(which) => drop(rows.remove(key(which))),
        Edit::RollBack(which) => {
            let before = old.get(key(which)).cloned();
            before.and_then(|row| rows.insert(key(which).clone(), row));
        }
    }
}

thread_local! {
    static SCENE: RefCell<Scene> = RefCell::new(Scene::new());
}

fuzz_target!(|edits: Vec<Edit>| {
    SCENE.with_borrow_mut(|scene| scene.run(&edits));
});
