//! Custody end to end: split and replicated root keys under a whole vault, and tenants that move between them.
#![cfg(feature = "dev")]
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[path = "common/fixture.rs"]
mod fixture;
#[path = "common/flaky.rs"]
mod flaky;
#[path = "common/pki.rs"]
mod pki;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use fixture::{People, because, call, context, dataset, open_vault_under, target, tenant};
use flaky::{Flaky, Mode, Told};
use pollster::block_on;
use vault_core::fs::{Fs, OsFs};
use vault_core::id::KeyVersion;
use vault_core::keys::{ApprovalState, CacheSettings, Seen};
use vault_core::kms::{
    Custody, EncryptionContext, Layer, RootError, RootEvent, RootId, RootKey, RootProvider, Roots, RootsBuilder,
    Wrapping,
};
use vault_core::policy::{BASELINE_POLICIES, BASELINE_SCHEMA, PolicySet, Source};
use vault_core::store::{EmbeddedStore, Expect, Store, Table, Write};
use vault_core::time::{ManualClock, SystemClock, Timestamp};
use vault_core::vault::{CustodyChange, DecryptRequest, EncryptRequest};
use vault_core::{Error, Vault};

/// A directory, two people, and root keys.
struct Place {
    dir: tempfile::TempDir,
    people: People,
    roots: Vec<Arc<Flaky>>,
}

impl Place {
    fn new(roots: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let roots = (0..roots).map(|n| Flaky::new(dir.path(), &format!("root-{n}"))).collect();
        Self { dir, people: People::new(), roots }
    }

    fn id(&self, n: usize) -> RootId {
        self.roots[n].root_id()
    }

    fn split(&self, inner: usize, outer: usize) -> Custody {
        Custody::split(self.id(inner), self.id(outer)).unwrap()
    }

    fn replicated(&self) -> Custody {
        Custody::replicated(self.roots.iter().map(|root| root.root_id()).collect()).unwrap()
    }

    /// A builder that knows these of the roots.
    fn builder(&self, known: &[usize]) -> RootsBuilder {
        known.iter().fold(Roots::builder(), |builder, n| builder.root(Arc::clone(&self.roots[*n]) as _).unwrap())
    }

    /// A vault that knows these of the roots; the first is its default.
    fn open(&self, known: &[usize]) -> Vault {
        self.open_with(self.builder(known).build(Custody::single(self.id(known[0]))).unwrap())
    }

    fn open_with(&self, roots: Arc<Roots>) -> Vault {
        let cache = CacheSettings::default();
        open_vault_under(Arc::new(OsFs), self.dir.path(), Arc::new(SystemClock), cache, roots)
    }

    fn create(&self, vault: &Vault, custody: &Custody) -> Result<Custody, Error> {
        let (alice, reason) = (self.people.operator("alice"), because());
        let made = block_on(vault.create_tenant_under(&call(&alice, &reason), &tenant("acme"), custody))?;
        let name = dataset("customers");
        block_on(vault.create_dataset(&call(&alice, &reason), (&tenant("acme"), &name), None, None))?;
        Ok(made.custody)
    }

    fn rotate(&self, vault: &Vault, custody: Option<&Custody>) -> Result<(KeyVersion, Custody), Error> {
        let (alice, reason) = (self.people.operator("alice"), because());
        let call = call(&alice, &reason);
        let acme = tenant("acme");
        let done = match custody {
            None => block_on(vault.rotate_tenant_key(&call, &acme, None))?,
            Some(custody) => match block_on(vault.rotate_tenant_key_to(&call, &acme, None, custody))? {
                CustodyChange::None(done) => done,
                CustodyChange::Asked(before, asked) => {
                    // Nothing has happened.
                    let read = block_on(vault.get_tenant(&call, &acme)).unwrap();
                    assert_eq!((&read, asked.state), (&before, ApprovalState::Pending));
                    assert_ne!(&read.custody, custody);
                    let seen = Seen { request_sha256: asked.request_sha256, subject: None };
                    let bob = self.people.operator("bob");
                    let call_of_bob = fixture::call(&bob, &reason);
                    block_on(vault.approve(&call_of_bob, (&acme, asked.id), seen))?;
                    block_on(vault.get_tenant(&call, &acme)).unwrap()
                }
            },
        };
        Ok((done.key_version, done.custody))
    }

    fn shown(&self, vault: &Vault) -> Result<Custody, Error> {
        let (alice, reason) = (self.people.operator("alice"), because());
        let read = block_on(vault.get_tenant(&call(&alice, &reason), &tenant("acme")))?;
        let listed = block_on(vault.list_tenants(&call(&alice, &reason), None, 10)).unwrap();
        assert_eq!(listed, std::slice::from_ref(&read));
        Ok(read.custody)
    }

    fn encrypt(&self, vault: &Vault, plaintext: &[u8]) -> Result<Vec<u8>, Error> {
        let at = target("acme", "customers", None);
        let request = EncryptRequest { target: &at, context: &context(), plaintext };
        block_on(vault.encrypt(&self.people.workload("/ns/shop/sa/billing"), request)).map(|sealed| sealed.envelope)
    }

    /// Opens with nothing in memory, so that the roots are asked.
    fn decrypt(&self, vault: &Vault, envelope: &[u8]) -> Result<Vec<u8>, Error> {
        vault.keys().evict_all();
        let at = target("acme", "customers", None);
        let request = DecryptRequest { target: &at, context: &context(), envelope };
        let opened = block_on(vault.decrypt(&self.people.workload("/ns/shop/sa/billing"), request))?;
        Ok(opened.plaintext.expose().to_vec())
    }

    /// Changes the row of the tenant's only key version, as one who can write the store would.
    fn tamper(&self, change: impl FnOnce(String) -> String) {
        let fs: Arc<dyn Fs> = Arc::new(OsFs);
        let store = EmbeddedStore::open(fs, &self.dir.path().join("store.redb")).unwrap();
        let rows = block_on(store.scan(Table::TenantKeys, b"", None, 10)).unwrap();
        let [found] = rows.as_slice() else { panic!("{} rows", rows.len()) };
        let value = change(String::from_utf8(found.row.value.clone()).unwrap()).into_bytes();
        assert_ne!(value, found.row.value);
        let expect = Expect::Version(found.row.version);
        block_on(store.commit(vec![Write {
            table: Table::TenantKeys,
            key: found.key.clone(),
            expect,
            value,
            revokes: false,
        }]))
        .unwrap();
    }
}

/// Which root an error names, and whether trying again may help.
fn root_of<T: std::fmt::Debug>(result: Result<T, Error>) -> (String, bool) {
    match result {
        Err(Error::RootKey { root, retry, .. }) => (root, retry),
        other => panic!("{other:?}"),
    }
}

fn field_of<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    match result {
        Err(Error::Invalid { field, .. }) => field,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_split_key_opens_with_both_roots_and_with_nothing_less() {
    let place = Place::new(3);
    let vault = place.open(&[0, 1]);
    assert_eq!(place.create(&vault, &place.split(0, 1)).unwrap(), place.split(0, 1));
    let envelope = place.encrypt(&vault, b"needs both").unwrap();
    assert_eq!(place.decrypt(&vault, &envelope).unwrap(), b"needs both");
    for (absent, mode, retry) in [(0, Mode::Down, true), (1, Mode::Down, true), (0, Mode::Disabled, false)] {
        place.roots[absent].set(mode);
        assert_eq!(root_of(place.decrypt(&vault, &envelope)), (place.id(absent).to_string(), retry));
        place.roots[absent].set(Mode::Up);
        assert_eq!(place.decrypt(&vault, &envelope).unwrap(), b"needs both");
    }
    drop(vault);
    // Given only one of them, or another in its place.
    for (known, missing) in [([0, 2], 1), ([1, 2], 0)] {
        let vault = place.open(&known);
        assert_eq!(root_of(place.decrypt(&vault, &envelope)), (place.id(missing).to_string(), true));
        drop(vault);
    }
    assert_eq!(place.decrypt(&place.open(&[1, 0]), &envelope).unwrap(), b"needs both");
}

/// What the two made together, as if one root had made it.
fn as_single(row: &str, root: &str) -> String {
    let sealed = row.split_once("\"sealed\":\"").unwrap().1.split_once('"').unwrap().0;
    format!(r#"{{"root":"{root}","wrapped":"{sealed}","state":"active","created":1}}"#)
}

#[test]
fn a_split_row_that_was_changed_opens_nothing() {
    type Change = fn(&str, &str, &str) -> String;
    let changes: [(&str, Change, usize); 3] = [
        ("swapped", |row, a, b| row.replace(a, "?").replace(b, a).replace('?', b), 0),
        ("the inner root alone", |row, a, _| as_single(row, a), 0),
        ("the outer root alone", |row, _, b| as_single(row, b), 1),
    ];
    for (what, change, refuses) in changes {
        let place = Place::new(2);
        let vault = place.open(&[0, 1]);
        place.create(&vault, &place.split(0, 1)).unwrap();
        let envelope = place.encrypt(&vault, b"x").unwrap();
        drop(vault);
        place.tamper(|row| change(&row, place.id(0).as_str(), place.id(1).as_str()));
        let refused = root_of(place.decrypt(&place.open(&[0, 1]), &envelope));
        assert_eq!(refused, (place.id(refuses).to_string(), false), "{what}");
    }
}

#[test]
fn the_layers_of_a_split_key_do_not_pass_for_each_other() {
    let place = Place::new(2);
    let [a, b] = [&place.roots[0], &place.roots[1]];
    let at = |layer| EncryptionContext {
        instance: "test".into(),
        tenant: Some(tenant("acme")),
        version: KeyVersion::FIRST,
        layer,
    };
    let (key, outer) = (at(Layer::TenantKey), at(Layer::Outer));
    let made = block_on(a.generate(&key)).unwrap();
    let sealed = block_on(b.seal(&made.wrapped, &outer)).unwrap();
    for root in [a, b] {
        for context in [&key, &outer] {
            assert_eq!(block_on(root.unwrap(&sealed, context)).err(), Some(RootError::NotMine));
        }
        assert_eq!(block_on(root.open(&sealed, &key)).err(), Some(RootError::NotMine));
    }
    assert_eq!(block_on(a.open(&sealed, &outer)).err(), Some(RootError::NotMine));
    assert_eq!(block_on(b.open(&made.wrapped, &outer)).err(), Some(RootError::NotMine));
    assert_eq!(block_on(b.unwrap(&made.wrapped, &key)).err(), Some(RootError::NotMine));
    assert!(block_on(b.open(&sealed, &outer)).is_ok_and(|inner| inner == made.wrapped));
}

#[test]
fn what_is_kept_of_a_split_key_is_sealed_by_the_outer_root_for_that_purpose() {
    let place = Place::new(2);
    let roots = place.builder(&[0, 1]).build(place.split(0, 1)).unwrap();
    let key = EncryptionContext {
        instance: "test".into(),
        tenant: Some(tenant("acme")),
        version: KeyVersion::FIRST,
        layer: Layer::TenantKey,
    };
    let (made, wrapping) = block_on(roots.generate(&place.split(0, 1), &key)).unwrap();
    let json = serde_json::to_value(&wrapping).unwrap();
    assert_eq!(serde_json::from_value::<Wrapping>(json.clone()).unwrap(), wrapping);
    let sealed = STANDARD_NO_PAD.decode(json["split"]["sealed"].as_str().unwrap()).unwrap();
    let outer = EncryptionContext { layer: Layer::Outer, ..key.clone() };
    assert_eq!(block_on(place.roots[1].open(&sealed, &key)).err(), Some(RootError::NotMine));
    let inner = block_on(place.roots[1].open(&sealed, &outer)).unwrap();
    assert!(block_on(place.roots[0].unwrap(&inner, &key)).unwrap() == made);
    // Erased, it names its roots still and opens nothing.
    let erased = wrapping.erased();
    assert_eq!(erased.custody(), wrapping.custody());
    assert!(block_on(roots.unwrap(&erased, &key)).is_err());
}

#[test]
fn each_replica_opens_by_itself_and_none_is_asked_in_vain() {
    let place = Place::new(3);
    let vault = place.open(&[0, 1, 2]);
    assert_eq!(place.create(&vault, &place.replicated()).unwrap(), place.replicated());
    let envelope = place.encrypt(&vault, b"any of them").unwrap();
    drop(vault);
    for known in [0, 1, 2] {
        assert_eq!(place.decrypt(&place.open(&[known]), &envelope).unwrap(), b"any of them", "root {known} alone");
    }
    let told = Told::default();
    let clock = Arc::new(ManualClock::new(Timestamp(1_795_502_400_000)));
    let to = told.clone();
    let roots = place
        .builder(&[0, 1, 2])
        .prefer(vec![place.id(2), place.id(0)])
        .clock(Arc::clone(&clock) as _)
        .watch(move |event| {
            to.push(match event {
                RootEvent::Failed(failure) => format!("failed {}", failure.root),
                RootEvent::Recovered(root) => format!("recovered {root}"),
            });
        })
        .build(Custody::single(place.id(0)))
        .unwrap();
    let vault = place.open_with(Arc::clone(&roots));
    let asked = || -> Vec<usize> {
        assert_eq!(place.decrypt(&vault, &envelope).unwrap(), b"any of them");
        place.roots.iter().map(|root| root.opened.swap(0, Ordering::SeqCst)).collect()
    };
    asked();
    assert_eq!(asked(), [0, 0, 1], "the preferred one");
    place.roots[2].set(Mode::Down);
    assert_eq!(asked(), [1, 0, 1], "it is down: the next one");
    assert_eq!(asked(), [1, 0, 0], "and is asked last for a while");
    assert_eq!(roots.failing(), [place.id(2)]);
    place.roots[0].set(Mode::Disabled);
    assert_eq!(asked(), [1, 1, 0], "a disabled one is passed over too");
    assert_eq!(told.take(), [format!("failed {}", place.id(2)), format!("failed {}", place.id(0))]);
    place.roots[2].set(Mode::Up);
    clock.advance_millis(10_000);
    assert_eq!(asked(), [0, 0, 1], "after a while it is asked first again");
    assert_eq!(told.take(), [format!("recovered {}", place.id(2))]);
    assert!(roots.failing().is_empty());
    // All gone: one that may come back is named rather than one that is disabled.
    place.roots[1].set(Mode::Down);
    place.roots[2].set(Mode::Disabled);
    assert_eq!(root_of(place.decrypt(&vault, &envelope)), (place.id(1).to_string(), true));
    place.roots[1].set(Mode::Disabled);
    assert!(!root_of(place.decrypt(&vault, &envelope)).1);
}

#[test]
fn a_replica_that_refuses_ends_the_search() {
    let place = Place::new(2);
    let vault = place.open(&[0, 1]);
    place.create(&vault, &place.replicated()).unwrap();
    let envelope = place.encrypt(&vault, b"x").unwrap();
    place.roots[0].set(Mode::WrapsOnly);
    place.roots[1].opened.store(0, Ordering::SeqCst);
    assert_eq!(root_of(place.decrypt(&vault, &envelope)), (place.id(0).to_string(), false));
    assert_eq!(place.roots[1].opened.load(Ordering::SeqCst), 0, "no second key is tried");
    // A root that answers with another key: nothing opens under it.
    place.roots[0].set(Mode::WrongKey);
    assert_eq!(place.decrypt(&vault, &envelope), Err(Error::Unopenable));
}

#[test]
fn a_tenant_moves_between_custodies_and_its_old_envelopes_open() {
    let place = Place::new(3);
    let vault = place.open(&[0, 1, 2]);
    let single = Custody::single(place.id(0));
    place.create(&vault, &single).unwrap();
    let mut envelopes = vec![place.encrypt(&vault, b"version 1").unwrap()];
    let moves = [place.split(0, 1), place.replicated(), place.split(2, 0), single.clone()];
    for (n, custody) in moves.iter().enumerate() {
        let version = KeyVersion(u32::try_from(n).unwrap() + 2);
        assert_eq!(place.rotate(&vault, Some(custody)).unwrap(), (version, custody.clone()));
        assert_eq!(place.shown(&vault).unwrap(), *custody);
        envelopes.push(place.encrypt(&vault, format!("version {version}").as_bytes()).unwrap());
        for (n, envelope) in envelopes.iter().enumerate() {
            assert_eq!(place.decrypt(&vault, envelope).unwrap(), format!("version {}", n + 1).as_bytes());
        }
    }
    drop(vault);
    // Everything is under the last custody now: no other root is needed, also after a restart.
    let vault = place.open(&[0]);
    for envelope in &envelopes {
        assert!(place.decrypt(&vault, envelope).is_ok());
    }
    assert_eq!(place.rotate(&vault, None).unwrap(), (KeyVersion(6), single));
}

#[test]
fn a_rotation_that_names_no_custody_keeps_the_tenants_own() {
    let place = Place::new(2);
    let vault = place.open(&[0, 1]);
    let split = place.split(1, 0);
    place.create(&vault, &split).unwrap();
    assert_eq!(place.rotate(&vault, None).unwrap(), (KeyVersion(2), split.clone()));
    // While one of its roots is away nothing changes, and the answer names the root.
    place.roots[0].set(Mode::Down);
    assert_eq!(root_of(place.rotate(&vault, None)), (place.id(0).to_string(), true));
    place.roots[0].set(Mode::Up);
    assert_eq!(place.shown(&vault).unwrap(), split);
    drop(vault);
    let vault = place.open(&[1]);
    assert!(matches!(place.rotate(&vault, None), Err(Error::FailedPrecondition(why)) if why.contains("custody")));
}

#[test]
fn a_custody_with_an_unknown_root_is_refused_and_nothing_is_written() {
    let place = Place::new(3);
    let vault = place.open(&[0, 1]);
    for (custody, field) in [
        (Custody::single(place.id(2)), "custody.root_key_id"),
        (place.split(2, 0), "custody.split.inner_root_key_id"),
        (place.split(0, 2), "custody.split.outer_root_key_id"),
        (place.replicated(), "custody.replicated.root_key_ids[2]"),
    ] {
        assert_eq!(field_of(place.create(&vault, &custody)), field);
        assert_eq!(place.shown(&vault).err(), Some(Error::NotFound("tenant")));
    }
    place.create(&vault, &place.split(0, 1)).unwrap();
    assert_eq!(field_of(place.rotate(&vault, Some(&place.split(0, 2)))), "custody.split.outer_root_key_id");
    assert_eq!(place.shown(&vault).unwrap(), place.split(0, 1));
    assert_eq!(place.rotate(&vault, None).unwrap().0, KeyVersion(2), "the refused one used no version");
    let unknown = place.builder(&[0]).build(place.split(0, 1));
    assert_eq!(field_of(unknown.map(drop)), "custody.split.outer_root_key_id");
}

#[test]
fn a_root_that_wraps_but_does_not_open_is_found_before_anything_depends_on_it() {
    for (n, mode) in [(0, Mode::WrapsOnly), (1, Mode::WrapsOnly), (0, Mode::WrongKey), (1, Mode::WrongKey)] {
        let place = Place::new(2);
        let vault = place.open(&[0, 1]);
        place.roots[n].set(mode);
        let custodies = [place.replicated(), if n == 0 { Custody::single(place.id(0)) } else { place.split(0, 1) }];
        for custody in custodies {
            // As the outer root of a split, `WrongKey` only opens what it sealed.
            if n == 1 && mode == Mode::WrongKey && custody.kind() == "split" {
                continue;
            }
            assert_eq!(root_of(place.create(&vault, &custody)), (place.id(n).to_string(), false));
            assert_eq!(place.shown(&vault).err(), Some(Error::NotFound("tenant")));
        }
    }
}

#[derive(Debug)]
struct Wrong(Arc<Flaky>);

impl RootProvider for Wrong {
    fn root(&self, _id: &str) -> Option<Arc<dyn RootKey>> {
        Some(Arc::clone(&self.0) as _)
    }
}

#[test]
fn a_provider_gives_the_root_it_was_asked_for_or_none() {
    let place = Place::new(2);
    let [mine, other] = [place.id(0), place.id(1)];
    let provider = Arc::new(Wrong(Arc::clone(&place.roots[0])));
    let roots = Roots::builder().provider("local", provider).build(Custody::single(mine.clone())).unwrap();
    assert!(roots.check(&Custody::single(mine.clone())).is_ok());
    assert!(roots.check(&Custody::single(other)).is_err(), "it answered with another root");
    assert!(roots.check(&Custody::parse("aws-kms:arn").unwrap()).is_err(), "another scheme");
    let twice = Roots::builder().root(Arc::clone(&place.roots[0]) as _).unwrap().root(Arc::clone(&place.roots[0]) as _);
    assert_eq!(field_of(twice.map(drop)), "root_key_id");
}

#[test]
fn policies_decide_on_the_custody_and_the_log_names_it() {
    let place = Place::new(2);
    let vault = place.open(&[0, 1]);
    // The example of docs/policy.md.
    let example = include_str!("../../docs/policy.md").split("```cedar\n").find(|part| part.contains("two-roots"));
    let two = example.unwrap().split("```").next().unwrap();
    let set = PolicySet::load(BASELINE_SCHEMA, &[BASELINE_POLICIES, Source { name: "two", text: two }]).unwrap();
    vault.authorizer().swap_policies(set);
    let single = Custody::single(place.id(0));
    assert!(matches!(place.create(&vault, &single), Err(Error::Denied(_))));
    place.create(&vault, &place.split(0, 1)).unwrap();
    assert!(matches!(place.rotate(&vault, Some(&single)), Err(Error::Denied(_))));
    assert!(matches!(place.rotate(&vault, Some(&place.replicated())), Err(Error::Denied(_))));
    place.rotate(&vault, None).unwrap();
    place.rotate(&vault, Some(&place.split(1, 0))).unwrap();
    vault.close().unwrap();
    let log = bundles(&place.dir.path().join("audit/tile/entries"));
    let count = |custody: &Custody| {
        let needle = custody.to_string().into_bytes();
        log.windows(needle.len()).filter(|window| *window == needle).count()
    };
    assert_eq!(count(&place.split(0, 1)), 1, "the intent to create it");
    assert_eq!(count(&place.split(1, 0)), 1, "the intent to rotate to it");
    assert_eq!(count(&place.replicated()), 1, "the refusal");
    assert_eq!(count(&single), 5, "both refusals, and as a part of the three above");
}

/// All entries, each once: of a bundle that was published while it grew, the longest.
fn bundles(dir: &Path) -> Vec<u8> {
    let mut paths: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    if dir.extension().is_some_and(|ending| ending == "p") {
        let entries = |path: &Path| path.file_name().unwrap().to_str().unwrap().parse::<u16>().unwrap();
        paths = paths.into_iter().max_by_key(|path| entries(path)).into_iter().collect();
    }
    let read = |path: &std::path::PathBuf| if path.is_dir() { bundles(path) } else { std::fs::read(path).unwrap() };
    paths.iter().flat_map(read).collect()
}
