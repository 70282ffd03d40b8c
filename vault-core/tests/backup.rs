//! A backup gives back what it was made of, to the same installation only, and refuses everything else before a row is
//! written.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fixture::{People, call, context, dataset, open_vault, target, tenant};
use pollster::block_on;
use vault_core::backup::{self, Restored};
use vault_core::error::Dependency;
use vault_core::fs::{Fs, OsFs};
use vault_core::keys::CacheSettings;
use vault_core::kms::{LocalRoot, Roots};
use vault_core::store::{BoxFuture, EmbeddedStore, Expect, Row, Scanned, Store, Table, Write};
use vault_core::time::{SystemClock, Timestamp};
use vault_core::vault::{DecryptRequest, EncryptRequest};
use vault_core::{Error, Vault};

#[path = "common/fixture.rs"]
mod fixture;
#[path = "common/pki.rs"]
mod pki;

const BILLING: &str = "/ns/shop/sa/billing";

fn store(dir: &Path) -> EmbeddedStore {
    EmbeddedStore::open(Arc::new(OsFs), &dir.join("store.redb")).unwrap()
}

fn roots(dir: &Path) -> Arc<Roots> {
    let path = dir.join("root.key");
    let root = if path.exists() { LocalRoot::open(&OsFs, &path) } else { LocalRoot::create(&OsFs, &path) };
    Roots::single(Arc::new(root.unwrap())).unwrap()
}

fn vault(dir: &Path) -> Vault {
    let fs: Arc<dyn Fs> = Arc::new(OsFs);
    open_vault(fs, dir, Arc::new(SystemClock), CacheSettings::default())
}

fn write(store: &dyn Store, roots: &Roots, at: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    block_on(backup::write(store, roots, "test", Timestamp(at), &mut bytes)).unwrap();
    bytes
}

fn restore(bytes: &[u8], newer: &[&[u8]], store: &dyn Store, roots: &Roots) -> Result<Restored, Error> {
    let mut newer: Vec<_> = newer.iter().map(|bytes| Cursor::new(bytes.to_vec())).collect();
    let mut newer: Vec<&mut dyn backup::Source> = newer.iter_mut().map(|one| one as &mut dyn backup::Source).collect();
    block_on(backup::restore(&mut Cursor::new(bytes.to_vec()), &mut newer, store, roots, "test"))
}

fn rows(store: &dyn Store) -> BTreeMap<(Table, Vec<u8>), Vec<u8>> {
    let all = Table::ALL.into_iter().flat_map(|table| {
        let found = block_on(store.scan(table, b"", None, usize::MAX)).unwrap();
        found.into_iter().map(move |row| ((table, row.key), row.row.value))
    });
    all.collect()
}

fn put(store: &dyn Store, table: Table, key: &[u8], value: String) {
    let write = Write { table, key: key.to_vec(), expect: Expect::Absent, value: value.into_bytes(), revokes: false };
    block_on(store.commit(vec![write])).unwrap();
}

/// A store of several chunks.
fn large(store: &dyn Store) {
    put(store, Table::Tenants, b"acme", r#"{"state":"active","key_version":1,"created":1,"updated":1}"#.to_owned());
    for n in 0..12 {
        let name = format!("{{\"classification\":\"{}\",\"created\":{n}}}", "x".repeat(60_000));
        put(store, Table::Datasets, format!("acme\0set{n:02}").as_bytes(), name);
    }
}

fn data_key(state: &str, wrapped: &str) -> String {
    format!(
        r#"{{"dataset":"customers","subject":"jane-roe","version":1,"tenant_key_version":1,"wrapped":"{wrapped}","state":"{state}","created":1}}"#
    )
}

#[test]
fn what_was_encrypted_opens_after_a_restore_and_the_backup_names_nobody() {
    let (people, to) = (People::new(), tempfile::tempdir().unwrap());
    let (from, vault_before) = fixture::fresh();
    let billing = people.workload(BILLING);
    let at = target("acme", "customers", Some("jane-roe"));
    let envelope = {
        let vault = vault_before;
        let (alice, reason) = (people.operator("alice"), fixture::because());
        block_on(vault.create_tenant(&call(&alice, &reason), &tenant("acme"))).unwrap();
        let place = (&tenant("acme"), &dataset("customers"));
        block_on(vault.create_dataset(&call(&alice, &reason), place, None, None)).unwrap();
        let request = EncryptRequest { target: &at, context: &context(), plaintext: b"forty-two" };
        let sealed = block_on(vault.encrypt(&billing, request)).unwrap();
        vault.close().unwrap();
        sealed.envelope
    };
    let bytes = write(&store(from.path()), &roots(from.path()), 1);
    for name in ["acme", "customers", "jane-roe"] {
        assert!(!bytes.windows(name.len()).any(|part| part == name.as_bytes()), "{name} stands in the backup");
    }
    std::fs::copy(from.path().join("root.key"), to.path().join("root.key")).unwrap();
    {
        let target = store(to.path());
        let restored = restore(&bytes, &[], &target, &roots(to.path())).unwrap();
        assert_eq!(restored.written, restored.backup.rows());
        assert_eq!(rows(&target), rows(&store(from.path())));
    }
    let vault = vault(to.path());
    let request = DecryptRequest { target: &at, context: &context(), envelope: &envelope };
    assert_eq!(block_on(vault.decrypt(&billing, request)).unwrap().plaintext.expose(), b"forty-two");
}

#[test]
fn another_instance_or_root_opens_nothing() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let source = store(from.path());
    large(&source);
    let bytes = write(&source, &roots(from.path()), 1);
    let verify = |instance, roots: &Roots| block_on(backup::verify(&mut bytes.as_slice(), roots, instance));
    assert!(verify("test", &roots(from.path())).is_ok());
    assert!(matches!(verify("other", &roots(from.path())), Err(Error::FailedPrecondition(_))));
    assert!(matches!(verify("test", &roots(to.path())), Err(Error::RootKey { .. })));
    // The name in the header is bound too: changing it to the other instance's helps nothing.
    let mut renamed = bytes.clone();
    let at = renamed.windows(6).position(|part| part == b"\"test\"").unwrap();
    renamed[at + 1..at + 5].copy_from_slice(b"best");
    let renamed = block_on(backup::verify(&mut renamed.as_slice(), &roots(from.path()), "best"));
    assert!(matches!(renamed, Err(Error::RootKey { retry: false, .. })), "{renamed:?}");
}

/// The chunks of a file, each with its length, behind what comes before them.
fn chunks(bytes: &[u8]) -> (Vec<u8>, Vec<Vec<u8>>) {
    let len = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()) as usize + 4;
    let mut at = 8 + len(8);
    let start = bytes[..at].to_vec();
    let mut chunks = Vec::new();
    while at < bytes.len() {
        chunks.push(bytes[at..at + len(at)].to_vec());
        at += len(at);
    }
    (start, chunks)
}

#[test]
fn an_altered_backup_is_refused_before_a_row_is_written() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let source = store(from.path());
    large(&source);
    let roots = roots(from.path());
    let bytes = write(&source, &roots, 1);
    let (start, good) = chunks(&bytes);
    assert!(good.len() >= 3, "{} chunks", good.len());
    let other = chunks(&write(&source, &roots, 2)).1;
    let made = |chunks: &[&Vec<u8>]| [vec![&start], chunks.to_vec()].concat().into_iter().flatten().copied().collect();
    let (first, second, last) = (&good[0], &good[1], good.last().unwrap());
    let mut bad: Vec<(String, Vec<u8>)> = vec![
        ("a chunk left out".into(), made(&[first, last])),
        ("a chunk twice".into(), made(&[first, second, second, last])),
        ("two chunks in each other's place".into(), made(&[second, first, last])),
        ("the last chunk left out".into(), made(&[first, second])),
        ("a chunk of another backup".into(), made(&[&other[0], second, last])),
        ("something behind the end".into(), [bytes.clone(), vec![0, 0, 0, 1, 0]].concat()),
        ("nothing".into(), Vec::new()),
    ];
    for at in (0..start.len()).step_by(23).chain([start.len() + 10, start.len() + 40, bytes.len() / 2, bytes.len() - 1])
    {
        let mut one = bytes.clone();
        one[at] ^= 1;
        bad.push((format!("byte {at} altered"), one));
    }
    for len in (0..=start.len() + 100).step_by(41).chain([bytes.len() / 2, bytes.len() - 1]) {
        bad.push((format!("cut to {len} bytes"), bytes[..len].to_vec()));
    }
    let target = store(to.path());
    for (what, bytes) in bad {
        let refused = restore(&bytes, &[], &target, &roots);
        assert!(
            matches!(refused, Err(Error::Corrupt { .. } | Error::RootKey { .. } | Error::FailedPrecondition(_))),
            "{what}: {refused:?}"
        );
        assert!(rows(&target).is_empty(), "{what}");
    }
    assert!(restore(&bytes, &[], &target, &roots).is_ok());
}

/// A store that fails at one of its commits.
#[derive(Debug)]
struct Failing<'a> {
    store: &'a EmbeddedStore,
    left: AtomicUsize,
}

impl Store for Failing<'static> {
    fn get<'a>(&'a self, table: Table, key: &'a [u8]) -> BoxFuture<'a, Result<Option<Row>, Error>> {
        self.store.get(table, key)
    }
    fn scan<'a>(
        &'a self,
        table: Table,
        prefix: &'a [u8],
        after: Option<&'a [u8]>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Scanned>, Error>> {
        self.store.scan(table, prefix, after, limit)
    }
    fn commit(&self, writes: Vec<Write>) -> BoxFuture<'_, Result<(), Error>> {
        if self.left.fetch_sub(1, Ordering::SeqCst) == 0 {
            return Box::pin(async { Err(Error::unavailable(Dependency::Store, "planned")) });
        }
        self.store.commit(writes)
    }
}

#[test]
fn an_interrupted_restore_shows_no_tenant_and_goes_on() {
    let from = tempfile::tempdir().unwrap();
    let source = store(from.path());
    large(&source);
    put(&source, Table::DataKeys, b"acme\x000123456789abcdef", data_key("active", "AAAA"));
    let roots = roots(from.path());
    let bytes = write(&source, &roots, 1);
    for commits in 0..3 {
        let to = tempfile::tempdir().unwrap();
        let target: &'static EmbeddedStore = Box::leak(Box::new(store(to.path())));
        let failing = Failing { store: target, left: AtomicUsize::new(commits) };
        assert!(matches!(restore(&bytes, &[], &failing, &roots), Err(Error::Unavailable { .. })), "{commits}");
        assert!(rows(target).keys().all(|(table, _)| *table != Table::Tenants), "{commits}");
        let there = rows(target).len() as u64;
        let restored = restore(&bytes, &[], target, &roots).unwrap();
        assert_eq!(restored.written + there, restored.backup.rows());
        assert_eq!(rows(target), rows(&source));
        // And once more it has nothing to do.
        assert_eq!(restore(&bytes, &[], target, &roots).unwrap().written, 0);
    }
}

#[test]
fn a_store_with_rows_of_its_own_is_left_alone() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let source = store(from.path());
    large(&source);
    let roots = roots(from.path());
    let bytes = write(&source, &roots, 1);
    let target = store(to.path());
    put(&target, Table::Datasets, b"acme\0set00", r#"{"created":5}"#.to_owned());
    let before = rows(&target);
    assert!(matches!(restore(&bytes, &[], &target, &roots), Err(Error::FailedPrecondition(_))));
    assert_eq!(rows(&target), before);
}

#[test]
fn what_was_shredded_since_stays_shredded() {
    let (from, later, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let roots = roots(from.path());
    let (old, new) = (store(from.path()), store(later.path()));
    for (store, state, wrapped) in [(&old, "active", "AAAA"), (&new, "destroyed", "")] {
        put(store, Table::DataKeys, b"acme\x000123456789abcdef", data_key(state, wrapped));
        put(store, Table::DataKeys, b"acme\x00fedcba9876543210", data_key("active", "AAAA"));
    }
    put(&new, Table::DataKeys, b"acme\x00made-and-shredded", data_key("destroyed", ""));
    let (first, second) = (write(&old, &roots, 1), write(&new, &roots, 2));
    let target = store(to.path());
    let refused = restore(&second, &[&first], &target, &roots);
    assert!(matches!(refused, Err(Error::FailedPrecondition(_))), "older tombstones: {refused:?}");
    let restored = restore(&first, &[&second], &target, &roots).unwrap();
    assert_eq!(restored.tombstones, 2);
    assert_eq!(rows(&target), rows(&new));
    // It goes on from itself, tombstones included.
    assert_eq!(restore(&first, &[&second], &target, &roots).unwrap().written, 0);
}
