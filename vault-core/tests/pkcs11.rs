//! The PKCS #11 root key on SoftHSM: alone, under a whole vault, and with everything about it wrong.
#![cfg(all(feature = "dev", feature = "pkcs11"))]
#![expect(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

#[path = "common/fixture.rs"]
mod fixture;
#[path = "common/pki.rs"]
mod pki;
#[path = "common/softhsm.rs"]
mod softhsm;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::Instant;

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, KeyType, ObjectClass};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::{AuthPin, Ulong};
use fixture::{People, because, call, context, dataset, open_vault_under, target, tenant};
use pollster::block_on;
use softhsm::{Hsm, PIN, with_tokens, write_pin};
use vault_core::error::Dependency;
use vault_core::fs::OsFs;
use vault_core::id::KeyVersion;
use vault_core::keys::{CacheSettings, Seen};
use vault_core::kms::{
    Custody, EncryptionContext, Generated, IvSource, Layer, LocalRoot, MAX_INNER, Pkcs11Root, Pkcs11Settings,
    RootError, RootId, RootKey, Roots,
};
use vault_core::secret::Key32;
use vault_core::time::SystemClock;
use vault_core::vault::{CustodyChange, DecryptRequest, EncryptRequest};
use vault_core::{Error, Vault};

fn at(tenant_id: &str, version: u32, layer: Layer) -> EncryptionContext {
    EncryptionContext { instance: "one".into(), tenant: Some(tenant(tenant_id)), version: KeyVersion(version), layer }
}

fn key_context() -> EncryptionContext {
    at("acme", 1, Layer::TenantKey)
}

/// A root key in a token, made for the test.
fn root(settings: &Pkcs11Settings) -> Pkcs11Root {
    Pkcs11Root::create_key(settings).unwrap();
    open(settings)
}

fn open(settings: &Pkcs11Settings) -> Pkcs11Root {
    let root = Pkcs11Root::new(settings.clone()).unwrap();
    root.check().unwrap();
    root
}

/// What is wrong, and with which setting.
fn wrong(settings: &Pkcs11Settings) -> (String, &'static str) {
    match Pkcs11Root::new(settings.clone()).and_then(|root| root.check()) {
        Err(Error::Invalid { field, why }) => (field, why),
        other => panic!("{other:?}"),
    }
}

fn unavailable<T>(result: Result<T, RootError>) -> &'static str {
    match result {
        Err(RootError::Unavailable(why)) => why,
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("it answered"),
    }
}

/// The module as another part of this process would use it, behind the root key's back.
fn behind(hsm: &Hsm, token: &str) -> (Pkcs11, Slot) {
    let module = Pkcs11::new(&hsm.module).unwrap();
    let slots = module.get_slots_with_token().unwrap();
    let slot = slots.into_iter().find(|slot| module.get_token_info(*slot).unwrap().label() == token).unwrap();
    (module, slot)
}

fn logged_in(hsm: &Hsm, token: &str) -> Session {
    let (module, slot) = behind(hsm, token);
    let session = module.open_rw_session(slot).unwrap();
    // Logged in already, if a root key is.
    drop(session.login(UserType::User, Some(&AuthPin::new(PIN.into()))));
    session
}

fn make(session: &Session, label: &str, bytes: u64, more: Vec<Attribute>) {
    let mut template = vec![
        Attribute::Token(true),
        Attribute::Label(label.as_bytes().to_vec()),
        Attribute::ValueLen(Ulong::new(bytes)),
        Attribute::Encrypt(true),
        Attribute::Decrypt(true),
    ];
    template.extend(more);
    session.generate_key(&Mechanism::AesKeyGen, &template).unwrap();
}

const SAFE: [Attribute; 2] = [Attribute::Sensitive(true), Attribute::Extractable(false)];

#[test]
fn what_it_wraps_opens_in_its_own_context_and_nowhere_else() {
    with_tokens("what_it_wraps_opens_in_its_own_context_and_nowhere_else", &["vault", "other"], |hsm| {
        let root = root(&hsm.settings("vault", "root"));
        assert_eq!(root.id(), "pkcs11:vault/root");
        let made = block_on(root.generate(&key_context())).unwrap();
        assert_eq!((made.wrapped.len(), made.wrapped[0]), (61, 1));
        assert!(block_on(root.unwrap(&made.wrapped, &key_context())).unwrap() == made.key);
        let again = block_on(root.wrap(&made.key, &key_context())).unwrap();
        assert_ne!(again[1..13], made.wrapped[1..13], "a fresh vector each time");
        assert!(block_on(root.unwrap(&again, &key_context())).unwrap() == made.key);
        assert!(block_on(root.generate(&key_context())).unwrap().key != made.key);

        let refuses = |bytes: &[u8], context: &EncryptionContext| {
            assert_eq!(block_on(root.unwrap(bytes, context)).err(), Some(RootError::NotMine));
        };
        let elsewhere = EncryptionContext { instance: "two".into(), ..key_context() };
        let nobodys = EncryptionContext { tenant: None, layer: Layer::StoreKey, ..key_context() };
        for context in [elsewhere, nobodys, at("globex", 1, Layer::TenantKey), at("acme", 2, Layer::TenantKey)] {
            refuses(&made.wrapped, &context);
        }
        for bit in 0..made.wrapped.len() * 8 {
            let mut bad = made.wrapped.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            refuses(&bad, &key_context());
        }
        for len in 0..made.wrapped.len() {
            refuses(&made.wrapped[..len], &key_context());
        }
        refuses(&[&made.wrapped[..], &[0]].concat(), &key_context());

        let outer = at("acme", 1, Layer::Outer);
        let inner = vec![7; MAX_INNER];
        let sealed = block_on(root.seal(&inner, &outer)).unwrap();
        assert_eq!(block_on(root.open(&sealed, &outer)).unwrap(), inner);
        assert_eq!(block_on(root.open(&sealed, &key_context())).err(), Some(RootError::NotMine));
        assert!(block_on(root.seal(&vec![7; MAX_INNER + 1], &outer)).is_err());
        // 32 bytes sealed as an outer layer do not pass for a key.
        let sealed = block_on(root.seal(&[7; 32], &outer)).unwrap();
        refuses(&sealed, &key_context());

        // Another token with a key of the same label, and another key of the same token.
        for stranger in [hsm.settings("other", "root"), hsm.settings("vault", "second")] {
            let stranger = crate::root(&stranger);
            assert_eq!(block_on(stranger.unwrap(&made.wrapped, &key_context())).err(), Some(RootError::NotMine));
        }
        assert!(block_on(root.unwrap(&made.wrapped, &key_context())).unwrap() == made.key);
    });
}

/// Twice as many calls as there are sessions, at least.
fn works(root: &Pkcs11Root, made: &Generated) {
    for _ in 0..8 {
        assert!(block_on(root.unwrap(&made.wrapped, &key_context())).unwrap() == made.key);
        let fresh = block_on(root.generate(&key_context())).unwrap();
        assert!(block_on(root.unwrap(&fresh.wrapped, &key_context())).unwrap() == fresh.key);
    }
}

#[test]
fn a_lost_login_is_not_noticed_by_callers() {
    with_tokens("a_lost_login_is_not_noticed_by_callers", &["vault"], |hsm| {
        let root = root(&hsm.settings("vault", "root"));
        let made = block_on(root.generate(&key_context())).unwrap();
        works(&root, &made);
        for _ in 0..5 {
            logged_in(hsm, "vault").logout().unwrap();
            works(&root, &made);
        }
        logged_in(hsm, "vault").logout().unwrap();
        let moved = block_on(root.unwrap(&made.wrapped, &at("globex", 1, Layer::TenantKey)));
        assert_eq!(moved.err(), Some(RootError::NotMine), "also after the login was lost");
    });
}

#[test]
fn lost_sessions_are_not_noticed_by_callers() {
    with_tokens("lost_sessions_are_not_noticed_by_callers", &["vault"], |hsm| {
        let root = root(&Pkcs11Settings { sessions: 1, ..hsm.settings("vault", "root") });
        let made = block_on(root.generate(&key_context())).unwrap();
        for _ in 0..3 {
            // All sessions of the process end with this.
            Pkcs11::new(&hsm.module).unwrap().finalize().unwrap();
            Pkcs11::new(&hsm.module)
                .unwrap()
                .initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))
                .unwrap();
            works(&root, &made);
        }
        Pkcs11::new(&hsm.module).unwrap().finalize().unwrap();
        assert!(unavailable(block_on(root.generate(&key_context()))).contains("lists no tokens"));
    });
}

#[test]
fn a_key_that_goes_or_changes_while_it_is_used() {
    with_tokens("a_key_that_goes_or_changes_while_it_is_used", &["vault"], |hsm| {
        let settings = hsm.settings("vault", "root");
        let root = root(&settings);
        let made = block_on(root.generate(&key_context())).unwrap();
        let session = logged_in(hsm, "vault");
        let label = || [Attribute::Label(b"root".to_vec())];
        session.destroy_object(session.find_objects(&label()).unwrap()[0]).unwrap();
        let begun = std::time::Instant::now();
        for _ in 0..2 {
            assert!(unavailable(block_on(root.unwrap(&made.wrapped, &key_context()))).contains("no AES key"));
        }
        println!("measured: PKCS #11 object destroyed: refused where it is asked, twice in {:?}", begun.elapsed());
        assert!(unavailable(block_on(root.generate(&key_context()))).contains("no AES key"));
        // Another key under the same label is another key.
        Pkcs11Root::create_key(&settings).unwrap();
        assert_eq!(block_on(root.unwrap(&made.wrapped, &key_context())).err(), Some(RootError::NotMine));
        assert!(block_on(root.generate(&key_context())).is_ok());
        // An extractable one is not used, whoever put it there.
        session.destroy_object(session.find_objects(&label()).unwrap()[0]).unwrap();
        make(&session, "root", 32, vec![Attribute::Sensitive(true), Attribute::Extractable(true)]);
        assert!(unavailable(block_on(root.generate(&key_context()))).contains("extracted"));
    });
}

#[test]
fn only_a_key_that_cannot_leave_is_a_root_key() {
    with_tokens("only_a_key_that_cannot_leave_is_a_root_key", &["vault"], |hsm| {
        // Loads the module; the session would else be the first to find it not initialized.
        assert_eq!(wrong(&hsm.settings("vault", "absent")), ("key".into(), "the token has no AES key of this label"));
        let session = logged_in(hsm, "vault");
        let extractable = vec![Attribute::Sensitive(true), Attribute::Extractable(true)];
        make(&session, "extractable", 32, extractable);
        make(&session, "readable", 32, vec![Attribute::Sensitive(false), Attribute::Extractable(false)]);
        make(&session, "short", 16, SAFE.to_vec());
        make(&session, "twice", 32, SAFE.to_vec());
        make(&session, "twice", 32, SAFE.to_vec());
        make(&session, "session-only", 32, [SAFE.to_vec(), vec![Attribute::Token(false)]].concat());
        make(&session, "one-way", 32, [SAFE.to_vec(), vec![Attribute::Decrypt(false)]].concat());
        make(&session, "good", 32, SAFE.to_vec());
        for (key, part) in [
            ("extractable", "CKA_EXTRACTABLE"),
            ("readable", "CKA_SENSITIVE"),
            ("short", "AES-256"),
            ("twice", "several"),
            ("session-only", "CKA_TOKEN"),
            ("one-way", "encrypt and decrypt"),
        ] {
            let (field, why) = wrong(&hsm.settings("vault", key));
            assert!(field == "key" && why.contains(part), "{key}: {field}: {why}");
        }
        open(&hsm.settings("vault", "good"));
    });
}

#[test]
fn a_key_is_made_only_on_purpose_and_only_once() {
    with_tokens("a_key_is_made_only_on_purpose_and_only_once", &["vault"], |hsm| {
        let settings = hsm.settings("vault", "root");
        assert_eq!(wrong(&settings).0, "key");
        Pkcs11Root::create_key(&settings).unwrap();
        assert_eq!(Pkcs11Root::create_key(&settings).err(), Some(Error::AlreadyExists("AES key of this label")));
        let session = logged_in(hsm, "vault");
        let is = |more: Vec<Attribute>| {
            let mut template = vec![Attribute::Class(ObjectClass::SECRET_KEY), Attribute::KeyType(KeyType::AES)];
            template.extend(more);
            session.find_objects(&template).unwrap().len() == 1
        };
        assert!(is(vec![
            Attribute::AlwaysSensitive(true),
            Attribute::NeverExtractable(true),
            Attribute::Private(true)
        ]));
        assert!(is(vec![Attribute::Modifiable(false), Attribute::Wrap(false), Attribute::Derive(false)]));
        open(&settings);
    });
}

#[test]
fn pin_files_are_private_and_a_refused_pin_is_not_tried_twice() {
    with_tokens("pin_files_are_private_and_a_refused_pin_is_not_tried_twice", &["vault"], |hsm| {
        let settings = hsm.settings("vault", "root");
        let pin = settings.pin_file.clone();
        for mode in [0o640, 0o604, 0o660] {
            write_pin(&pin, PIN, mode);
            let (field, why) = wrong(&settings);
            assert!(field == "pin_file" && why.contains("0600"), "{field}: {why}");
        }
        write_pin(&pin, "1111-wrong", 0o600);
        assert_eq!(wrong(&settings), ("pin_file".into(), "the token refuses this PIN"));
        let root = Pkcs11Root::new(settings.clone()).unwrap();
        for _ in 0..20 {
            assert!(unavailable(block_on(root.generate(&key_context()))).contains("not tried again"));
        }
        write_pin(&pin, PIN, 0o600);
        // A locked token would refuse the right one, too.
        Pkcs11Root::create_key(&settings).unwrap();
        assert!(block_on(root.generate(&key_context())).is_ok());
        fs::remove_file(&pin).unwrap();
        assert!(block_on(root.generate(&key_context())).is_ok(), "read at logging in only");
        logged_in(hsm, "vault").logout().unwrap();
        assert!(unavailable(block_on(root.generate(&key_context()))).contains("cannot be opened"));
        write_pin(&pin, PIN, 0o600);
        assert!(block_on(root.generate(&key_context())).is_ok());
    });
}

#[test]
fn settings_that_name_nothing_are_told_apart() {
    with_tokens("settings_that_name_nothing_are_told_apart", &["vault", "twin", "twin"], |hsm| {
        let good = hsm.settings("vault", "root");
        let absent = Pkcs11Settings { module: hsm.dir.join("absent.so"), ..good.clone() };
        assert_eq!(wrong(&absent), ("module".into(), "there is no such file"));
        let text = hsm.dir.join("text.so");
        fs::write(&text, "not a library").unwrap();
        fs::set_permissions(&text, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(wrong(&Pkcs11Settings { module: text, ..good.clone() }).1, "is not a PKCS #11 module");
        let writable = hsm.dir.join("writable.so");
        fs::copy(&hsm.module, &writable).unwrap();
        fs::set_permissions(&writable, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(wrong(&Pkcs11Settings { module: writable, ..good.clone() }).1.contains("others may write it"));
        let unknown = Pkcs11Root::new(Pkcs11Settings { token: "unknown".into(), ..good.clone() }).unwrap();
        let absent = Error::unavailable(Dependency::RootKey, "there is no token of this label");
        assert_eq!(unknown.check().err(), Some(absent));
        assert_eq!(wrong(&hsm.settings("twin", "root")).1, "several tokens have this label");
        for (settings, field) in [
            (Pkcs11Settings { token: "a/b".into(), ..good.clone() }, "token"),
            (Pkcs11Settings { token: "t".repeat(33), ..good.clone() }, "token"),
            (Pkcs11Settings { key: "two words".into(), ..good.clone() }, "key"),
            (Pkcs11Settings { key: String::new(), ..good.clone() }, "key"),
            (Pkcs11Settings { sessions: 0, ..good.clone() }, "sessions"),
        ] {
            assert_eq!(wrong(&settings).0, field);
        }
        // SoftHSM takes the vector it is given, so it makes none.
        Pkcs11Root::create_key(&good).unwrap();
        let (field, why) = wrong(&Pkcs11Settings { iv: IvSource::Module, ..good });
        assert!(field == "key" && why.contains("vector"), "{field}: {why}");
    });
}

#[test]
fn many_threads_share_few_sessions() {
    with_tokens("many_threads_share_few_sessions", &["vault"], |hsm| {
        let root = root(&Pkcs11Settings { sessions: 3, ..hsm.settings("vault", "root") });
        let (module, slot) = behind(hsm, "vault");
        std::thread::scope(|scope| {
            for n in 0..24 {
                let root = &root;
                scope.spawn(move || {
                    let context = at(&format!("tenant-{n}"), 1, Layer::TenantKey);
                    for _ in 0..20 {
                        let made = block_on(root.generate(&context)).unwrap();
                        assert!(block_on(root.unwrap(&made.wrapped, &context)).unwrap() == made.key);
                        assert_eq!(
                            block_on(root.unwrap(&made.wrapped, &key_context())).err(),
                            Some(RootError::NotMine)
                        );
                    }
                });
            }
        });
        // Two roots of one token share its login.
        let second = crate::root(&hsm.settings("vault", "second"));
        assert!(block_on(second.generate(&key_context())).is_ok());
        drop(root);
        assert!(block_on(second.generate(&key_context())).is_ok());
        assert!(module.get_token_info(slot).is_ok());
    });
}

fn vault(hsm: &Hsm, roots: Arc<Roots>) -> Vault {
    open_vault_under(Arc::new(OsFs), &hsm.dir, Arc::new(SystemClock), CacheSettings::default(), roots)
}

#[test]
fn tenants_live_under_it_alone_split_and_replicated() {
    with_tokens("tenants_live_under_it_alone_split_and_replicated", &["vault"], |hsm| {
        let settings = hsm.settings("vault", "root");
        Pkcs11Root::create_key(&settings).unwrap();
        let local_path = hsm.dir.join("root.key");
        let local_id = RootId::parse(LocalRoot::create(&OsFs, &local_path).unwrap().id()).unwrap();
        let hsm_id = RootId::parse(&settings.root_id()).unwrap();
        let roots = |with_hsm: bool, with_local: bool| {
            let mut builder = Roots::builder();
            if with_hsm {
                builder = builder.root(Arc::new(open(&settings))).unwrap();
            }
            if with_local {
                builder = builder.root(Arc::new(LocalRoot::open(&OsFs, &local_path).unwrap())).unwrap();
            }
            let default = if with_hsm { &hsm_id } else { &local_id };
            builder.build(Custody::single(default.clone())).unwrap()
        };
        let people = People::new();
        let (alice, reason, billing) = (people.operator("alice"), because(), people.workload("/ns/shop/sa/billing"));
        let here = target("acme", "customers", None);
        let decrypt = |vault: &Vault, envelope: &[u8]| {
            vault.keys().evict_all();
            let request = DecryptRequest { target: &here, context: &context(), envelope };
            block_on(vault.decrypt(&billing, request)).map(|opened| opened.plaintext.expose().to_vec())
        };
        let open_vault = vault(hsm, roots(true, true));
        block_on(open_vault.create_tenant(&call(&alice, &reason), &tenant("acme"))).unwrap();
        let name = (&tenant("acme"), &dataset("customers"));
        block_on(open_vault.create_dataset(&call(&alice, &reason), name, None, None)).unwrap();
        let request = EncryptRequest { target: &here, context: &context(), plaintext: b"in the module" };
        let envelope = block_on(open_vault.encrypt(&billing, request)).unwrap().envelope;
        assert_eq!(decrypt(&open_vault, &envelope).unwrap(), b"in the module");
        drop(open_vault);

        let needs = |custody: Custody, alone: [bool; 2]| {
            let both = vault(hsm, roots(true, true));
            let (acme, bob) = (tenant("acme"), people.operator("bob"));
            let to = block_on(both.rotate_tenant_key_to(&call(&alice, &reason), &acme, None, &custody)).unwrap();
            let CustodyChange::Asked(_, asked) = to else { panic!("{to:?}") };
            let seen = Seen { request_sha256: asked.request_sha256, subject: None };
            block_on(both.approve(&call(&bob, &reason), (&acme, asked.id), seen)).unwrap();
            assert_eq!(decrypt(&both, &envelope).unwrap(), b"in the module");
            drop(both);
            for (given, opens) in [((true, false), alone[0]), ((false, true), alone[1])] {
                let only = vault(hsm, roots(given.0, given.1));
                assert_eq!(decrypt(&only, &envelope).is_ok(), opens, "{custody} given {given:?}");
                if !opens {
                    assert!(matches!(decrypt(&only, &envelope), Err(Error::RootKey { retry: true, .. })));
                }
            }
        };
        needs(Custody::split(hsm_id.clone(), local_id.clone()).unwrap(), [false, false]);
        needs(Custody::split(local_id.clone(), hsm_id.clone()).unwrap(), [false, false]);
        needs(Custody::replicated(vec![hsm_id.clone(), local_id.clone()]).unwrap(), [true, true]);
        needs(Custody::single(hsm_id.clone()), [true, false]);
    });
}

#[test]
fn a_token_that_does_not_answer_in_time_is_unavailable() {
    with_tokens("a_token_that_does_not_answer_in_time_is_unavailable", &["vault"], |hsm| {
        let settings = hsm.settings("vault", "root");
        Pkcs11Root::create_key(&settings).unwrap();
        // A named pipe in place of the PIN file: reading it would hang for ever.
        let pipe = hsm.dir.join("pipe");
        assert!(std::process::Command::new("mkfifo").args(["-m", "0600"]).arg(&pipe).status().unwrap().success());
        logged_in(hsm, "vault").logout().unwrap();
        let slow = Pkcs11Settings { pin_file: pipe, timeout: std::time::Duration::from_millis(200), ..settings };
        let root = Pkcs11Root::new(slow).unwrap();
        let from = Instant::now();
        assert!(unavailable(block_on(root.generate(&key_context()))).contains("in time"));
        let key = Key32::generate().unwrap();
        assert!(unavailable(block_on(root.wrap(&key, &key_context()))).contains("in time"));
        assert!(matches!(root.check(), Err(Error::Unavailable { why, .. }) if why.contains("in time")));
        assert!(from.elapsed().as_secs() < 10);
    });
}
