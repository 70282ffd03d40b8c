//! Policy bundles when things go wrong: death, damage, rollback, and gateways that do not hear or cannot load.
#![cfg(feature = "dev")]
#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "common/failpoints.rs"]
mod failpoints;
#[path = "common/fixture.rs"]
mod fixture;
#[path = "common/pki.rs"]
mod pki;
#[path = "common/policy_bed.rs"]
mod policy_bed;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};

use failpoints::Mortal;
use fixture::{call, tenant};
use policy_bed::{Bed, DENIED, NO_DECRYPT, put, row_key, store};
use pollster::block_on;
use vault_core::Error;
use vault_core::bundle::{Bundle, PolicyTrust, SignedBundle, Signers};
use vault_core::error::Dependency;
use vault_core::fs::OsFs;
use vault_core::keys::ApprovalState;
use vault_core::store::{BoxFuture, EmbeddedStore, POLICY_ROWS, Row, Scanned, Store, Table, Watcher, Write};
use vault_core::time::{Clock as _, Timestamp};

fn precondition<T: std::fmt::Debug>(result: Result<T, Error>) {
    assert!(matches!(result, Err(Error::FailedPrecondition(_))), "{result:?}");
}

/// Dies at one commit of propose, ask and approve. True if it lived through.
fn dies_after(commits: i64, carried_out: bool) -> bool {
    let bed = Bed::new();
    let inner = store(&bed);
    let mortal = Arc::new(Mortal::new(Arc::clone(&inner) as _, carried_out));
    let vault = bed.open(Arc::clone(&mortal) as _, "a");
    bed.set_up(&vault);
    let envelope = bed.encrypt(&vault).unwrap();
    let old = bed.activate(&vault, &bed.sign(bed.bundle(1, None, ""))).unwrap();
    let next = bed.sign(bed.bundle(2, Some(old.digest), NO_DECRYPT));
    mortal.live_for(commits);
    let result = bed.activate(&vault, &next);
    assert_eq!(result.is_err(), mortal.is_dead(), "{result:?}");
    drop(vault);
    let vault = bed.open(Arc::clone(&inner) as _, "a");
    let found = vault.policy_bundle().unwrap();
    let when = format!("after {commits} commits");
    assert!(found == old || found == next.reference(), "{when}: {found}");
    assert!(result.is_err() || found == next.reference(), "{when}: acknowledged and gone");
    assert_eq!(bed.decrypt(&vault, &envelope), if found == old { Ok(()) } else { Err(DENIED) }, "{when}");
    // The approval says the same.
    let listed = block_on(vault.list_approvals(&call(&bed.bob, &bed.reason), None, 10)).unwrap();
    let executed = listed.iter().filter(|approval| approval.state == ApprovalState::Executed).count();
    assert_eq!(executed, if found == old { 1 } else { 2 }, "{when}");
    // And what was not done can be.
    if found == old {
        bed.activate(&vault, &next).unwrap();
        assert_eq!(bed.decrypt(&vault, &envelope), Err(DENIED), "{when}");
    }
    result.is_ok()
}

#[test]
fn death_at_any_commit_of_an_activation_leaves_the_old_bundle_or_the_new_one() {
    for carried_out in [false, true] {
        let lived = (0..10).position(|commits| dies_after(commits, carried_out));
        assert_eq!(lived, Some(3), "propose, ask, approve");
    }
}

#[test]
fn a_bundle_that_is_not_as_it_was_proposed_ends_all_decisions() {
    type Damage = (&'static str, fn(&Bed, &dyn Store));
    fn text(value: Vec<u8>, from: &str, to: &str) -> Vec<u8> {
        let text = String::from_utf8(value).unwrap();
        assert!(text.contains(from), "{text}");
        text.replacen(from, to, 1).into_bytes()
    }
    let two = 2_u64.to_be_bytes();
    let chunk = [&two[..], &[0, 0]].concat();
    assert_eq!(row_key("chunk", &chunk).len(), 7 + 1 + 5 + 1 + 10);
    let damages: [Damage; 8] = [
        ("half a chunk", |_, store| {
            put(store, &row_key("chunk", &[&2_u64.to_be_bytes()[..], &[0, 0]].concat()), |v| v[..v.len() / 2].to_vec());
        }),
        ("a chunk with a bit flipped", |_, store| {
            put(store, &row_key("chunk", &[&2_u64.to_be_bytes()[..], &[0, 0]].concat()), |mut v| {
                v[3000] ^= 1;
                v
            });
        }),
        ("no signatures", |_, store| {
            put(store, &row_key("bundle", &2_u64.to_be_bytes()), |v| {
                let text = String::from_utf8(v).unwrap();
                let at = text.find("\"signatures\":[").unwrap() + "\"signatures\":[".len();
                let end = at + text[at..].find(']').unwrap();
                (text[..at].to_owned() + &text[end..]).into_bytes()
            });
        }),
        ("no JSON", |_, store| put(store, &row_key("bundle", &2_u64.to_be_bytes()), |_| b"{".to_vec())),
        ("half a row of what is in force", |_, store| {
            put(store, &row_key("active", &[]), |v| v[..v.len() / 2].to_vec());
        }),
        ("one in force that is not there", |_, store| {
            put(store, &row_key("active", &[]), |v| text(v, "\"version\":2", "\"version\":3"));
        }),
        ("an older one", |bed, store| {
            let first = bed.sign(bed.bundle(1, None, "")).reference().digest;
            put(store, &row_key("active", &[]), |v| {
                let v = text(v, "\"version\":2", "\"version\":1");
                let at = v.windows(10).position(|part| part == b"\"digest\":\"").unwrap() + 10;
                [&v[..at], first.to_string().as_bytes(), &v[at + 64..]].concat()
            });
        }),
        ("none", |_, store| {
            put(store, &row_key("active", &[]), |_| b"{\"active\":{\"version\":0,\"since\":7}}".to_vec());
        }),
    ];
    for (what, damage) in damages {
        let bed = Bed::new();
        let store = store(&bed);
        // One that runs, and one that starts later.
        let running = bed.open(Arc::clone(&store) as _, "running");
        bed.set_up(&running);
        let first = bed.activate(&running, &bed.sign(bed.bundle(1, None, ""))).unwrap();
        let other = bed.open(Arc::clone(&store) as _, "other");
        let second = bed.activate(&running, &bed.sign(bed.bundle(2, Some(first.digest), ""))).unwrap();
        damage(&bed, &*store);
        assert_eq!((running.policy_bundle(), other.policy_bundle()), (Some(second), Some(first)));
        let refreshed = block_on(other.refresh_policies());
        assert!(
            matches!(block_on(running.refresh_policies()), Err(Error::Corrupt { .. }))
                || what.contains("chunk")
                || what.contains("signatures")
                || what.contains("JSON"),
            "{what}"
        );
        // What the other has not seen yet it cannot miss: it stays with what the row says.
        if what != "an older one" {
            assert!(refreshed.is_err(), "{what}");
            let refused = bed.encrypt(&other);
            let unavailable =
                |error: &Error| matches!(error, Error::Unavailable { dependency: Dependency::Policy, .. });
            assert!(refused.as_ref().is_err_and(unavailable), "{what}: {refused:?}");
            let call = call(&bed.alice, &bed.reason);
            assert!(block_on(other.get_tenant(&call, &tenant("acme"))).is_err_and(|e| unavailable(&e)), "{what}");
            assert!(other.policies_ready().is_err() && other.policies_changed(), "{what}");
        }
        drop((running, other));
        let refused = bed.try_open(Arc::clone(&store) as _, "running");
        assert!(matches!(refused, Err(Error::Corrupt { .. } | Error::Invalid { .. })), "{what}: {refused:?}");
    }
}

#[test]
fn a_store_older_than_the_log_says_is_refused_at_the_start() {
    let bed = Bed::new();
    let path = |name: &str| bed.dir.path().join(name);
    let open = |name: &str| Arc::new(EmbeddedStore::open(Arc::new(OsFs), &path(name)).unwrap());
    let vault = bed.open(open("now.redb"), "log");
    bed.set_up(&vault);
    drop(vault);
    std::fs::copy(path("now.redb"), path("none.redb")).unwrap();
    let vault = bed.open(open("now.redb"), "log");
    let first = bed.activate(&vault, &bed.sign(bed.bundle(1, None, ""))).unwrap();
    drop(vault);
    std::fs::copy(path("now.redb"), path("first.redb")).unwrap();
    // Another history, of the same signers.
    std::fs::copy(path("none.redb"), path("fork.redb")).unwrap();
    let fork = bed.open(open("fork.redb"), "elsewhere");
    let forked = bed.activate(&fork, &bed.sign(bed.bundle(1, None, NO_DECRYPT))).unwrap();
    drop(fork);
    std::fs::copy(path("fork.redb"), path("fork-1.redb")).unwrap();
    let fork = bed.open(open("fork.redb"), "elsewhere");
    bed.activate(&fork, &bed.sign(bed.bundle(3, Some(forked.digest), ""))).unwrap();
    drop(fork);
    let refused = |name: &str| {
        let result = bed.try_open(open(name), "log");
        assert!(matches!(result, Err(Error::Corrupt { .. })), "{name}: {result:?}");
    };
    refused("none.redb");
    refused("fork-1.redb");
    refused("fork.redb");
    let vault = bed.open(open("now.redb"), "log");
    bed.activate(&vault, &bed.sign(bed.bundle(2, Some(first.digest), ""))).unwrap();
    drop(vault);
    refused("first.redb");
    // The log of another gateway knows only what it has seen.
    bed.open(open("first.redb"), "new");
    bed.open(open("now.redb"), "log");
}

/// A store that tells its watchers of what comes into force, as one does that gateways share; and that fails at reading
/// bundles when it is told to.
#[derive(Debug, Default)]
struct Told {
    inner: Mutex<Option<Arc<EmbeddedStore>>>,
    watchers: Watchers,
    away: AtomicBool,
}

#[derive(Default)]
struct Watchers(Mutex<Vec<Weak<dyn Watcher>>>);

impl std::fmt::Debug for Watchers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watchers")
    }
}

impl Told {
    fn on(inner: Arc<EmbeddedStore>) -> Arc<Self> {
        Arc::new(Self { inner: Mutex::new(Some(inner)), ..Self::default() })
    }

    fn inner(&self) -> Arc<EmbeddedStore> {
        Arc::clone(self.inner.lock().unwrap().as_ref().unwrap())
    }
}

const AWAY: Error = Error::unavailable(Dependency::Store, "the test took it away");

impl Store for Told {
    fn get<'a>(&'a self, table: Table, key: &'a [u8]) -> BoxFuture<'a, Result<Option<Row>, Error>> {
        Box::pin(async move {
            if table == Table::Policies && self.away.load(Ordering::SeqCst) {
                return Err(AWAY);
            }
            self.inner().get(table, key).await
        })
    }

    fn scan<'a>(
        &'a self,
        table: Table,
        prefix: &'a [u8],
        after: Option<&'a [u8]>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Scanned>, Error>> {
        Box::pin(async move { self.inner().scan(table, prefix, after, limit).await })
    }

    fn commit(&self, writes: Vec<Write>) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            let revokes = writes.iter().any(|write| write.table == Table::Policies && write.revokes);
            let done = self.inner().commit(writes).await;
            if revokes {
                for watcher in self.watchers.0.lock().unwrap().iter().filter_map(Weak::upgrade) {
                    watcher.changed(Some(POLICY_ROWS));
                }
            }
            done
        })
    }

    fn watch(&self, watcher: Weak<dyn Watcher>) {
        self.watchers.0.lock().unwrap().push(watcher);
    }
}

#[test]
fn another_gateway_decides_by_the_old_bundle_for_less_than_a_second_and_then_not_at_all() {
    let bed = Bed::new();
    let store = Told::on(store(&bed));
    let (a, b) = (bed.open(Arc::clone(&store) as _, "a"), bed.open(Arc::clone(&store) as _, "b"));
    bed.set_up(&a);
    let envelope = bed.encrypt(&a).unwrap();
    bed.decrypt(&b, &envelope).unwrap();
    let held = b.keys().data_key_stats().held;
    let first = bed.activate(&a, &bed.sign(bed.bundle(1, None, NO_DECRYPT))).unwrap();
    assert_eq!(b.keys().data_key_stats().held, held, "keys do not depend on policies");
    // It was told, and does nothing about it.
    assert!(b.policies_changed() && !a.policies_changed());
    bed.decrypt(&b, &envelope).unwrap();
    bed.clock.advance_millis(600);
    bed.decrypt(&b, &envelope).unwrap();
    bed.clock.advance_millis(1);
    let refused = |result: Result<(), Error>| {
        let ok = matches!(result, Err(Error::Unavailable { dependency: Dependency::Policy, .. }));
        assert!(ok, "{result:?}");
    };
    refused(bed.decrypt(&b, &envelope));
    // It cannot read it, so nothing changes.
    store.away.store(true, Ordering::SeqCst);
    assert_eq!(block_on(b.refresh_policies()), Err(AWAY));
    refused(bed.decrypt(&b, &envelope));
    store.away.store(false, Ordering::SeqCst);
    block_on(b.refresh_policies()).unwrap();
    assert_eq!((b.policy_bundle(), b.policies_changed()), (Some(first), false));
    assert_eq!(bed.decrypt(&b, &envelope), Err(DENIED));
    bed.encrypt(&b).unwrap();
    // A store that is away, with nothing heard, ends nothing: that is the lease's to say.
    store.away.store(true, Ordering::SeqCst);
    assert_eq!(block_on(b.refresh_policies()), Err(AWAY));
    bed.clock.advance_millis(10_000);
    bed.encrypt(&b).unwrap();
    store.away.store(false, Ordering::SeqCst);
    // What it is not told of, it finds when it looks.
    store.watchers.0.lock().unwrap().clear();
    let second = bed.activate(&a, &bed.sign(bed.bundle(2, Some(first.digest), ""))).unwrap();
    assert!(!b.policies_changed());
    block_on(b.refresh_policies()).unwrap();
    assert_eq!(b.policy_bundle(), Some(second));
    bed.decrypt(&b, &envelope).unwrap();
}

#[test]
fn a_gateway_that_trusts_other_signers_stops_when_a_bundle_comes_into_force() {
    let bed = Bed::new();
    let store = Told::on(store(&bed));
    let a = bed.open(Arc::clone(&store) as _, "a");
    bed.set_up(&a);
    let stranger = Signers::new(vec![bed.mallory.verifier().clone()], 1).unwrap();
    let open = |signers, name: &str| {
        let (bare, recovery) = bed.bare(Arc::clone(&store) as _, name);
        block_on(bare.adopt_policies(PolicyTrust { signers, ..bed.trust() }, recovery.policy)).unwrap()
    };
    let others = [open(stranger, "stranger"), open(Signers::none(), "files")];
    for other in &others {
        bed.encrypt(other).unwrap();
    }
    precondition(bed.propose(&others[1], &bed.sign(bed.bundle(1, None, ""))));
    bed.activate(&a, &bed.sign(bed.bundle(1, None, ""))).unwrap();
    for other in &others {
        assert!(matches!(
            block_on(other.refresh_policies()),
            Err(Error::Invalid { .. } | Error::FailedPrecondition(_))
        ));
        let refused = bed.encrypt(other);
        assert!(matches!(refused, Err(Error::Unavailable { dependency: Dependency::Policy, .. })), "{refused:?}");
    }
    bed.encrypt(&a).unwrap();
}

/// The bundle in force means nothing to a new version of the program, here: one with another trust domain.
#[test]
fn a_bundle_is_installed_by_its_signatures_alone_where_the_one_in_force_cannot_be_loaded() {
    let bed = Bed::new();
    let store = store(&bed);
    let vault = bed.open(Arc::clone(&store) as _, "a");
    bed.set_up(&vault);
    let first = bed.activate(&vault, &bed.sign(bed.bundle(1, None, ""))).unwrap();
    drop(vault);
    let trust = || PolicyTrust { workload_domain: "new.example".into(), ..bed.trust() };
    let open = |name: &str| {
        let (bare, recovery) = bed.bare(Arc::clone(&store) as _, name);
        block_on(bare.adopt_policies(trust(), recovery.policy))
    };
    assert!(matches!(open("a"), Err(Error::Invalid { .. })));
    let next = |version, previous| {
        let bundle = bed.bundle(version, previous, NO_DECRYPT);
        Bundle { registry: bundle.registry.replace("prod.example", "new.example"), ..bundle }
    };
    let install = |signed: &SignedBundle| {
        let (bare, recovery) = bed.bare(Arc::clone(&store) as _, "a");
        block_on(bare.install_policy(&trust(), recovery.policy, signed))
    };
    let previous = Some(first.digest);
    let later = Timestamp(bed.clock.now().0 + 1);
    let unsigned = SignedBundle::new(next(2, previous)).unwrap();
    for (wrong, name) in [
        (unsigned, "signatures"),
        (bed.sign(next(2, None)), "previous"),
        (bed.sign(next(1, previous)), "version"),
        (bed.sign(bed.bundle(2, previous, "")), "registry line 3, id"),
    ] {
        let refused = install(&wrong);
        assert!(matches!(&refused, Err(Error::Invalid { field, .. }) if field == name), "{name}: {refused:?}");
    }
    precondition(install(&bed.sign(Bundle { not_before: later, ..next(2, previous) })));
    assert!(open("a").is_err());
    let second = bed.sign(next(2, previous));
    assert_eq!(install(&second), Ok(second.reference()));
    precondition(install(&second));
    let vault = open("a").unwrap();
    assert_eq!(vault.policy_bundle(), Some(second.reference()));
    let (stored, _) = block_on(vault.get_policy(&call(&bed.alice, &bed.reason), None)).unwrap();
    assert_eq!((stored.proposer.as_str(), stored.approval), ("", None));
    assert_eq!(stored.activated, Some(bed.clock.now()));
}
