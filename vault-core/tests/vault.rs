//! The façade end to end: real certificates, the embedded store, the local root key, the audit log on disk.
#![cfg(feature = "dev")]
#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "common/fixture.rs"]
mod fixture;
#[path = "common/pki.rs"]
mod pki;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use fixture::{People, because, call, context, dataset, fresh, open_vault, open_vault_with, resume, target, tenant};
use pollster::block_on;
use vault_core::audit::{LogVerifier, VerifyOptions, verify};
use vault_core::envelope::{Context, Header};
use vault_core::error::Check;
use vault_core::fs::OsFs;
use vault_core::id::KeyVersion;
use vault_core::keys::{CacheSettings, TenantState};
use vault_core::kms::{EncryptionContext, Generated, LocalRoot, RootError, RootKey};
use vault_core::secret::Key32;
use vault_core::store::BoxFuture;
use vault_core::time::{ManualClock, SystemClock, Timestamp};
use vault_core::vault::{DecryptRequest, EncryptRequest, Target};
use vault_core::{Error, Vault};

const BILLING: &str = "/ns/shop/sa/billing";

fn set_up(vault: &Vault, people: &People) {
    let (alice, reason) = (people.operator("alice"), because());
    for id in ["acme", "globex"] {
        block_on(vault.create_tenant(&call(&alice, &reason), &tenant(id))).unwrap();
        let name = dataset("customers");
        block_on(vault.create_dataset(&call(&alice, &reason), (&tenant(id), &name), None, None)).unwrap();
    }
}

fn encrypt(vault: &Vault, who: &vault_core::principal::Workload, target: &Target, plaintext: &[u8]) -> Vec<u8> {
    let request = EncryptRequest { target, context: &context(), plaintext };
    block_on(vault.encrypt(who, request)).unwrap().envelope
}

fn decrypt(
    vault: &Vault,
    who: &vault_core::principal::Workload,
    target: &Target,
    envelope: &[u8],
) -> Result<Vec<u8>, Error> {
    let request = DecryptRequest { target, context: &context(), envelope };
    block_on(vault.decrypt(who, request)).map(|opened| opened.plaintext.expose().to_vec())
}

#[test]
fn what_is_encrypted_comes_back_to_its_own_workload_only() {
    let (people, (_dir, vault)) = (People::new(), fresh());
    set_up(&vault, &people);
    let billing = people.workload(BILLING);
    let alice = target("acme", "customers", Some("alice"));
    let envelope = encrypt(&vault, &billing, &alice, b"DE89 3704");
    assert_eq!(decrypt(&vault, &billing, &alice, &envelope).unwrap(), b"DE89 3704");

    // Another tenant's workload, a workload that may only write, one in no registry entry.
    let denied = |path: &str, check: Check| {
        assert_eq!(decrypt(&vault, &people.workload(path), &alice, &envelope), Err(Error::Denied(check)), "{path}");
    };
    denied("/ns/other/sa/globex-app", Check::Registry);
    denied("/ns/shop/sa/signup", Check::Policy);
    denied("/ns/shop/sa/unknown", Check::Registry);

    // The right workload with the wrong tenant, dataset or subject: the key is looked up from the permit.
    for wrong in [
        target("globex", "customers", Some("alice")),
        target("acme", "customers", None),
        target("acme", "customers", Some("Alice")),
        target("acme", "customers", Some("bob")),
    ] {
        assert_eq!(decrypt(&vault, &billing, &wrong, &envelope), Err(Error::Unopenable));
    }
    assert_eq!(
        decrypt(&vault, &billing, &target("acme", "no-such-dataset", None), &envelope),
        Err(Error::Denied(Check::Policy))
    );
    assert_eq!(
        decrypt(&vault, &people.workload("/ns/shop/sa/signup"), &target("acme", "no-such-dataset", None), &envelope),
        Err(Error::Denied(Check::Policy)),
        "the same whether or not it exists"
    );
    let request = DecryptRequest { target: &alice, context: &Context::empty(), envelope: &envelope };
    assert_eq!(block_on(vault.decrypt(&billing, request)).err(), Some(Error::Unopenable));
    for cut in [0, 21, 93, envelope.len() - 1] {
        assert_eq!(decrypt(&vault, &billing, &alice, &envelope[..cut]), Err(Error::Unopenable));
    }
}

#[test]
fn rotated_keys_still_open_and_rewrap_moves_forward() {
    let (people, (_dir, vault)) = (People::new(), fresh());
    set_up(&vault, &people);
    let (billing, alice, reason) = (people.workload(BILLING), people.operator("alice"), because());
    let at = target("acme", "customers", None);
    let old = encrypt(&vault, &billing, &at, b"old");
    let subject = target("acme", "customers", Some("bob"));
    let of_bob = encrypt(&vault, &billing, &subject, b"bob");

    let rotated = block_on(vault.rotate_data_keys(&call(&alice, &reason), &tenant("acme"), None)).unwrap();
    assert_eq!(rotated, 2);
    assert_eq!(decrypt(&vault, &billing, &at, &old).unwrap(), b"old");
    let request = DecryptRequest { target: &at, context: &context(), envelope: &old };
    let new = block_on(vault.rewrap(&billing, request)).unwrap();
    assert_eq!(new.key_version, KeyVersion(2));
    assert_ne!(Header::parse(&new.envelope).unwrap(), Header::parse(&old).unwrap());
    assert_eq!(decrypt(&vault, &billing, &at, &new.envelope).unwrap(), b"old");

    let seen = block_on(vault.get_tenant(&call(&alice, &reason), &tenant("acme"))).unwrap();
    let stale = Some(seen.revision + 1);
    let conflict = block_on(vault.rotate_tenant_key(&call(&alice, &reason), &tenant("acme"), stale));
    assert_eq!(conflict.err(), Some(Error::Conflict("tenant")));
    let done = block_on(vault.rotate_tenant_key(&call(&alice, &reason), &tenant("acme"), Some(seen.revision))).unwrap();
    assert_eq!((done.key_version, done.rotation.unwrap().data_keys), (KeyVersion(2), 4));
    vault.keys().evict_all();
    for (at, envelope, plaintext) in [(&at, &old, b"old"), (&at, &new.envelope, b"old"), (&subject, &of_bob, b"bob")] {
        assert_eq!(decrypt(&vault, &billing, at, envelope).unwrap(), plaintext);
    }
}

#[test]
fn a_suspended_tenant_is_refused_at_once_and_others_are_not() {
    let (people, (_dir, vault)) = (People::new(), fresh());
    set_up(&vault, &people);
    let (billing, alice, reason) = (people.workload(BILLING), people.operator("alice"), because());
    let (acme, globex) = (target("acme", "customers", None), target("globex", "customers", None));
    let of_acme = encrypt(&vault, &billing, &acme, b"a");
    let of_globex = encrypt(&vault, &billing, &globex, b"g");
    let done = block_on(vault.suspend_tenant(&call(&alice, &reason), &tenant("acme"), None)).unwrap();
    assert_eq!(done.state, TenantState::Suspended);
    assert_eq!(decrypt(&vault, &billing, &acme, &of_acme), Err(Error::Denied(Check::Suspended)));
    assert_eq!(decrypt(&vault, &billing, &globex, &of_globex).unwrap(), b"g");
    let request = EncryptRequest { target: &acme, context: &context(), plaintext: b"x" };
    assert_eq!(block_on(vault.encrypt(&billing, request)).err(), Some(Error::Denied(Check::Suspended)));
    resume(&vault, (&alice, &people.operator("bob")), "acme").unwrap();
    assert_eq!(decrypt(&vault, &billing, &acme, &of_acme).unwrap(), b"a");
}

#[test]
fn everything_survives_reopening_and_the_log_verifies_and_names_nobody() {
    let (people, dir) = (People::new(), tempfile::tempdir().unwrap());
    let open = || open_vault(Arc::new(OsFs), dir.path(), Arc::new(SystemClock), CacheSettings::default());
    let billing = people.workload(BILLING);
    let canary = "subject-canary-7f3a";
    let at = target("acme", "customers", Some(canary));
    let vault = open();
    set_up(&vault, &people);
    let envelope = encrypt(&vault, &billing, &at, b"plaintext-canary-91c2");
    assert_eq!(decrypt(&vault, &billing, &target("acme", "customers", None), &envelope), Err(Error::Unopenable));
    drop(vault);
    let vault = open();
    assert_eq!(decrypt(&vault, &billing, &at, &envelope).unwrap(), b"plaintext-canary-91c2");
    drop(vault);

    let vkey = std::fs::read_to_string(dir.path().join("audit/log.pub")).unwrap();
    let verifier = LogVerifier::parse(vkey.trim()).unwrap();
    let report = verify(&OsFs, &dir.path().join("audit"), &verifier, &VerifyOptions::default()).unwrap();
    assert!(report.is_sound(), "{report}");
    let mut files = vec![dir.path().join("store.redb")];
    let mut dirs = vec![dir.path().join("audit")];
    while let Some(next) = dirs.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { dirs.push(path) } else { files.push(path) }
        }
    }
    for file in files {
        let bytes = std::fs::read(&file).unwrap();
        let holds = |needle: &str| bytes.windows(needle.len()).any(|window| window == needle.as_bytes());
        assert!(!holds("plaintext-canary-91c2"), "plaintext in {file:?}");
        assert!(!holds("orders"), "a context value in {file:?}");
        if !file.ends_with("store.redb") {
            assert!(!holds(canary), "a raw subject in {file:?}");
        }
    }
}

/// A root key that counts, and can be taken away.
#[derive(Debug)]
struct Fickle {
    inner: LocalRoot,
    down: AtomicBool,
    unwraps: AtomicUsize,
}

impl RootKey for Fickle {
    fn id(&self) -> &str {
        self.inner.id()
    }
    fn generate<'a>(&'a self, context: &'a EncryptionContext) -> BoxFuture<'a, Result<Generated, RootError>> {
        self.inner.generate(context)
    }
    fn wrap<'a>(&'a self, key: &'a Key32, context: &'a EncryptionContext) -> BoxFuture<'a, Result<Vec<u8>, RootError>> {
        self.inner.wrap(key, context)
    }
    fn seal<'a>(
        &'a self,
        inner: &'a [u8],
        context: &'a EncryptionContext,
    ) -> BoxFuture<'a, Result<Vec<u8>, RootError>> {
        self.inner.seal(inner, context)
    }
    fn open<'a>(
        &'a self,
        sealed: &'a [u8],
        context: &'a EncryptionContext,
    ) -> BoxFuture<'a, Result<Vec<u8>, RootError>> {
        self.inner.open(sealed, context)
    }
    fn unwrap<'a>(
        &'a self,
        wrapped: &'a [u8],
        context: &'a EncryptionContext,
    ) -> BoxFuture<'a, Result<Key32, RootError>> {
        if self.down.load(Ordering::SeqCst) {
            return Box::pin(async { Err(RootError::Unavailable("it was taken away")) });
        }
        self.unwraps.fetch_add(1, Ordering::SeqCst);
        self.inner.unwrap(wrapped, context)
    }
}

#[test]
fn without_the_root_cached_keys_work_until_their_ttl_and_then_nothing_does() {
    let (people, dir) = (People::new(), tempfile::tempdir().unwrap());
    let inner = LocalRoot::create(&OsFs, &dir.path().join("root.key")).unwrap();
    let root = Arc::new(Fickle { inner, down: AtomicBool::new(false), unwraps: AtomicUsize::new(0) });
    let clock = Arc::new(ManualClock::new(Timestamp(1_907_755_200_000)));
    let cache = CacheSettings { ttl_millis: 60_000, idle_millis: 60_000, ..CacheSettings::default() };
    let vault = open_vault_with(Arc::new(OsFs), dir.path(), Arc::clone(&clock) as _, cache, Arc::clone(&root) as _);
    set_up(&vault, &people);
    let billing = people.workload(BILLING);
    let at = target("acme", "customers", None);
    let envelope = encrypt(&vault, &billing, &at, b"x");
    root.down.store(true, Ordering::SeqCst);
    clock.advance_millis(59_000);
    assert_eq!(decrypt(&vault, &billing, &at, &envelope).unwrap(), b"x");
    clock.advance_millis(1_000);
    let gone = decrypt(&vault, &billing, &at, &envelope);
    assert!(matches!(&gone, Err(Error::RootKey { root: id, retry: true, .. }) if id == root.id()), "{gone:?}");
    root.down.store(false, Ordering::SeqCst);
    assert_eq!(decrypt(&vault, &billing, &at, &envelope).unwrap(), b"x");
}

#[test]
fn a_thousand_cold_callers_cause_one_unwrapping() {
    let (people, dir) = (People::new(), tempfile::tempdir().unwrap());
    let inner = LocalRoot::create(&OsFs, &dir.path().join("root.key")).unwrap();
    let root = Arc::new(Fickle { inner, down: AtomicBool::new(false), unwraps: AtomicUsize::new(0) });
    let vault = open_vault_with(
        Arc::new(OsFs),
        dir.path(),
        Arc::new(SystemClock),
        CacheSettings::default(),
        Arc::clone(&root) as _,
    );
    set_up(&vault, &people);
    let billing = people.workload(BILLING);
    let at = target("acme", "customers", None);
    let envelope = encrypt(&vault, &billing, &at, b"x");
    vault.keys().evict_all();
    let before = root.unwraps.load(Ordering::SeqCst);
    let context = context();
    let request = DecryptRequest { target: &at, context: &context, envelope: &envelope };
    let all = block_on(vault.decrypt_all(&billing, std::iter::repeat_n(request, 1000)));
    assert!(all.iter().all(|one| one.as_ref().is_ok_and(|opened| opened.plaintext.expose() == b"x")));
    assert_eq!(root.unwraps.load(Ordering::SeqCst) - before, 1);
}

#[test]
fn two_first_writers_agree_on_one_key() {
    let (people, (_dir, vault)) = (People::new(), fresh());
    set_up(&vault, &people);
    let billing = people.workload(BILLING);
    std::thread::scope(|scope| {
        let (vault, billing) = (&vault, &billing);
        for round in 0..20 {
            let subject = format!("s{round}");
            let write = move || encrypt(vault, billing, &target("acme", "customers", Some(&subject)), b"x");
            let (one, two) = (scope.spawn(write.clone()), scope.spawn(write));
            let (one, two) = (one.join().unwrap(), two.join().unwrap());
            assert_eq!(Header::parse(&one).unwrap(), Header::parse(&two).unwrap());
        }
    });
}

#[test]
fn rotation_under_load_fails_no_call() {
    let (people, (_dir, vault)) = (People::new(), fresh());
    set_up(&vault, &people);
    let (billing, alice, reason) = (people.workload(BILLING), people.operator("alice"), because());
    let at = target("acme", "customers", None);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !done.load(Ordering::SeqCst) {
                    let envelope = encrypt(&vault, &billing, &at, b"under load");
                    assert_eq!(decrypt(&vault, &billing, &at, &envelope).unwrap(), b"under load");
                }
            });
        }
        for round in 0..6 {
            block_on(vault.rotate_data_keys(&call(&alice, &reason), &tenant("acme"), None)).unwrap();
            block_on(vault.rotate_tenant_key(&call(&alice, &reason), &tenant("acme"), None)).unwrap();
            if round % 2 == 0 {
                vault.keys().evict_all();
            }
        }
        done.store(true, Ordering::SeqCst);
    });
}

#[test]
fn bad_requests_change_nothing() {
    let (people, (_dir, vault)) = (People::new(), fresh());
    set_up(&vault, &people);
    let (billing, alice, reason) = (people.workload(BILLING), people.operator("alice"), because());
    let at = target("acme", "customers", None);
    let large = vec![0; vault_core::envelope::MAX_PLAINTEXT + 1];
    let request = EncryptRequest { target: &at, context: &context(), plaintext: &large };
    let refused = block_on(vault.encrypt(&billing, request));
    assert!(matches!(refused, Err(Error::Invalid { field, .. }) if field == "plaintext"));
    let again = block_on(vault.create_tenant(&call(&alice, &reason), &tenant("acme")));
    assert_eq!(again.err(), Some(Error::AlreadyExists("tenant")));
    let again =
        block_on(vault.create_dataset(&call(&alice, &reason), (&tenant("acme"), &dataset("customers")), None, None));
    assert_eq!(again.err(), Some(Error::AlreadyExists("dataset")));
    let missing = block_on(vault.get_tenant(&call(&alice, &reason), &tenant("nobody")));
    assert_eq!(missing.err(), Some(Error::NotFound("tenant")));
    let listed = block_on(vault.list_tenants(&call(&alice, &reason), Some(&tenant("acme")), 10)).unwrap();
    assert_eq!(listed.iter().map(|t| t.id.as_str()).collect::<Vec<_>>(), ["globex"]);
    let listed = block_on(vault.list_datasets(&call(&alice, &reason), &tenant("acme"), None, 10)).unwrap();
    assert_eq!(listed.iter().map(|d| d.id.as_str()).collect::<Vec<_>>(), ["customers"]);
}
