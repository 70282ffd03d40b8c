//! What somebody who edits the store's file can and cannot do.

use super::fixture::open_store;
use super::*;
use crate::store::{Expect, Row, Store as _, Table, Write};

fn rows(dir: &Path, table: Table) -> Vec<(Vec<u8>, Row)> {
    let store = open_store(&(Arc::new(OsFs) as _), dir);
    block_on(store.scan(table, b"", None, 99)).unwrap().into_iter().map(|found| (found.key, found.row)).collect()
}

/// Puts a value in a row's place, or makes the row.
fn put(dir: &Path, table: Table, key: &[u8], value: &[u8]) {
    let store = open_store(&(Arc::new(OsFs) as _), dir);
    let there = block_on(store.get(table, key)).unwrap();
    let expect = there.map_or(Expect::Absent, |row| Expect::Version(row.version));
    let write = Write { table, key: key.to_vec(), expect, value: value.to_vec(), revokes: false };
    block_on(store.commit(vec![write])).unwrap();
}

#[test]
fn a_consent_cannot_be_forged_moved_changed_or_revived() {
    let (dir, scene) = Scene::new();
    let target = to("acme", "customers", "billing");
    let envelope = seal(&scene.vault, &target);
    let other = consent(&scene.vault, "globex", &["customers"], "billing");
    let orders = consent(&scene.vault, "acme", &["orders"], "billing");
    let gone = consent(&scene.vault, "acme", &["customers"], "billing");
    withdraw(&scene.vault, "acme", gone).unwrap();
    scene.vault.close().unwrap();
    let consents = rows(dir.path(), Table::Consents);
    let of = |id: ConsentId| consents.iter().find(|(key, _)| key.ends_with(&id.0)).unwrap();
    let index = b"acme\0customers";
    let pointing_to = |id: ConsentId| format!("{{\"consents\":[\"{id}\"]}}").into_bytes();
    let opened = |dir: &Path| {
        let scene = Scene::open(dir);
        let opened = open(&scene.vault, &target, &envelope);
        scene.vault.close().unwrap();
        opened
    };
    // The index points to one that was withdrawn, to one of another dataset, to one that is nowhere.
    for id in [gone, orders, other, ConsentId([9; 16])] {
        put(dir.path(), Table::Access, index, &pointing_to(id));
        assert_eq!(opened(dir.path()), NO_CONSENT);
    }
    // One of another tenant, or of another name, is put there.
    let damaged = |result: Result<(), Error>| assert!(matches!(result, Err(Error::Corrupt { .. })), "{result:?}");
    let forged = ConsentId([7; 16]);
    put(dir.path(), Table::Access, index, &pointing_to(forged));
    for from in [other, orders] {
        put(dir.path(), Table::Consents, &[&b"acme\0"[..], &forged.0].concat(), &of(from).1.value);
        damaged(opened(dir.path()));
    }
    // What was withdrawn is said to hold.
    put(dir.path(), Table::Access, index, &pointing_to(gone));
    let (key, row) = of(gone);
    let text = String::from_utf8(row.value.clone()).unwrap();
    assert!(text.contains(",\"ended\":true"));
    put(dir.path(), Table::Consents, key, text.replace(",\"ended\":true", "").as_bytes());
    damaged(opened(dir.path()));
    // An index that is gone is no way round either.
    put(dir.path(), Table::Access, index, b"{}");
    assert_eq!(opened(dir.path()), NO_CONSENT);
}

#[test]
fn rows_of_consents_say_nothing_of_who_gave_them() {
    let (dir, scene) = Scene::new();
    consent(&scene.vault, "acme", &["customers"], "billing");
    scene.vault.close().unwrap();
    for (_, row) in rows(dir.path(), Table::Consents) {
        let text = String::from_utf8(row.value).unwrap();
        assert!(!["ann", "id.example", "portal", "billing", "customers"].iter().any(|word| text.contains(word)));
    }
}
