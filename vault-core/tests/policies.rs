//! The life of policy bundles: signed, proposed, approved, in force; and every way in which one may not come into force.
#![cfg(feature = "dev")]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

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
use policy_bed::{Bed, NO_DECRYPT};
use pollster::block_on;
use vault_core::bundle::{Bundle, BundleState, MAX_BUNDLE, PolicyFile, PolicyTrust, ProofCheck, SignedBundle, Signers};
use vault_core::error::{Check, Dependency};
use vault_core::fs::OsFs;
use vault_core::id::{DatasetId, Fingerprint, Purpose, RequestId};
use vault_core::keys::{ApprovalState, Seen};
use vault_core::policy::{DataRequest, DatasetFacts, Encrypt, Facts};
use vault_core::store::{BoxFuture, EmbeddedStore, Expect, POLICY_ROWS, Row, Scanned, Store, Table, Watcher, Write};
use vault_core::time::{Clock as _, Timestamp};
use vault_core::vault::ControlCall;
use vault_core::{Error, Vault};

const DENIED: Error = Error::Denied(Check::Policy);

fn store(bed: &Bed) -> Arc<EmbeddedStore> {
    Arc::new(EmbeddedStore::open(Arc::new(OsFs), &bed.dir.path().join("store.redb")).unwrap())
}

fn field<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    match result {
        Err(Error::Invalid { field, .. }) => field,
        other => panic!("{other:?}"),
    }
}

fn precondition<T: std::fmt::Debug>(result: Result<T, Error>) {
    assert!(matches!(result, Err(Error::FailedPrecondition(_))), "{result:?}");
}

#[test]
fn a_bundle_comes_into_force_by_two_operators_and_stays_so() {
    let (bed, by_alice) = (Bed::new(), |bed: &Bed| bed.alice.spiffe_id().to_owned());
    let store = store(&bed);
    let vault = bed.open(Arc::clone(&store) as _, "a");
    bed.set_up(&vault);
    let envelope = bed.encrypt(&vault).unwrap();
    bed.decrypt(&vault, &envelope).unwrap();
    assert_eq!((vault.policy_bundle(), vault.authorizer().epoch()), (None, 1));
    let get = |vault: &Vault, version| block_on(vault.get_policy(&call(&bed.alice, &bed.reason), version));
    assert_eq!(get(&vault, None).err(), Some(Error::NotFound("policy bundle")));

    let first = bed.sign(bed.bundle(1, None, NO_DECRYPT));
    let valid = block_on(vault.validate_policy(&call(&bed.alice, &bed.reason), &first)).unwrap();
    assert_eq!((valid.reference, valid.workloads), (first.reference(), 3));
    assert_eq!(valid.signers, ["policy/ines", "policy/jan"]);
    assert!(valid.policies.contains(&"no-decrypt".to_owned()));
    let stored = bed.propose(&vault, &first).unwrap();
    assert_eq!((stored.state, stored.proposer, stored.workloads), (BundleState::Pending, by_alice(&bed), 3));
    assert_eq!(bed.propose(&vault, &first).unwrap().reference, first.reference(), "the same again");
    let asked = bed.ask(&vault, first.reference()).unwrap();
    assert_eq!((asked.state, asked.ordered.bundle()), (ApprovalState::Pending, Some(first.reference())));
    // Until here nothing has happened.
    bed.decrypt(&vault, &envelope).unwrap();
    let done = bed.approve(&vault, &bed.bob, &asked).unwrap();
    assert_eq!((done.state, done.decided_by.as_deref()), (ApprovalState::Executed, Some(bed.bob.spiffe_id())));
    assert_eq!(done.receipt, None);
    assert_eq!(bed.decrypt(&vault, &envelope), Err(DENIED));
    bed.encrypt(&vault).unwrap();
    assert_eq!((vault.policy_bundle(), vault.authorizer().epoch()), (Some(first.reference()), 2));

    // The next process has other policies in its files; what counts is the bundle.
    drop(vault);
    let vault = bed.open(Arc::clone(&store) as _, "a");
    assert_eq!(bed.decrypt(&vault, &envelope), Err(DENIED));
    let (stored, signed) = get(&vault, None).unwrap();
    assert_eq!((stored.state, signed), (BundleState::Active, first.clone()));
    assert_eq!(stored.activated, Some((bed.clock.now(), asked.id)));
    // And one without the signers' keys does not even begin.
    let (bare, recovery) = bed.bare(Arc::clone(&store) as _, "b");
    let none = PolicyTrust { signers: Signers::none(), ..bed.trust() };
    precondition(block_on(bare.adopt_policies(none, recovery.policy)));

    let second = bed.sign(bed.bundle(5, Some(first.reference().digest), ""));
    let third = bed.sign(bed.bundle(6, Some(first.reference().digest), NO_DECRYPT));
    bed.propose(&vault, &third).unwrap();
    bed.activate(&vault, &second).unwrap();
    bed.decrypt(&vault, &envelope).unwrap();
    let list = |after, limit| block_on(vault.list_policies(&call(&bed.bob, &bed.reason), after, limit)).unwrap();
    let states: Vec<_> = list(None, 10).iter().map(|bundle| (bundle.reference.version, bundle.state)).collect();
    assert_eq!(states, [(1, BundleState::Retired), (5, BundleState::Active), (6, BundleState::Pending)]);
    assert_eq!(list(Some(1), 1)[0].reference, second.reference());
    assert_eq!(get(&vault, Some(1)).unwrap().1, first);
    assert_eq!(get(&vault, Some(2)).err(), Some(Error::NotFound("policy bundle")));
}

#[test]
fn whatever_is_wrong_with_a_bundle_is_named_and_the_old_one_stays_in_force() {
    let bed = Bed::new();
    let vault = bed.open(store(&bed), "a");
    bed.set_up(&vault);
    let envelope = bed.encrypt(&vault).unwrap();
    let four = bed.activate(&vault, &bed.sign(bed.bundle(4, None, ""))).unwrap();
    let previous = Some(four.digest);
    let waits = bed.sign(bed.bundle(6, previous, "@id(\"waits\") permit (principal, action, resource);"));
    bed.propose(&vault, &waits).unwrap();

    let good = || bed.bundle(5, previous, NO_DECRYPT);
    let unsigned = |bundle: Bundle| SignedBundle::new(bundle).unwrap();
    let by = |signer: &_| unsigned(good()).sign(&bed.ines).unwrap().sign(signer).unwrap();
    let signatures = by(&bed.jan).signatures().to_vec();
    let with = |text: &str| bed.bundle(5, previous, text);
    let registry = |id: &str| {
        let more = format!(
            "[[workload]]\nid = {id:?}\nservice = \"s\"\nenvironment = \"e\"\ntenants = [\"acme\"]\nroles = []\n"
        );
        bed.sign(Bundle { registry: good().registry + &more, ..good() })
    };
    let table = [
        ("version", bed.sign(bed.bundle(3, previous, "")), "rolled back"),
        ("version", bed.sign(bed.bundle(4, previous, NO_DECRYPT)), "a fork of the one in force"),
        ("previous", bed.sign(bed.bundle(5, None, "")), "follows nothing"),
        ("previous", bed.sign(bed.bundle(5, Some(Fingerprint([1; 32])), "")), "follows another"),
        ("instance", bed.sign(Bundle { instance: "shop-2".into(), ..good() }), "another installation's"),
        ("signatures", unsigned(good()), "unsigned"),
        ("signatures", by(&bed.ines), "signed by one of two"),
        ("signatures", by(&bed.mallory), "signed by one who is no signer"),
        ("signatures", unsigned(with("")).with_signatures(signatures.clone()).unwrap(), "signed for other texts"),
        ("schema line 2", bed.sign(Bundle { schema: "\nentity".into(), ..good() }), "half a schema"),
        ("extra.cedar line 1", bed.sign(with("permit (principal, act")), "half a policy"),
        ("extra.cedar line 1", bed.sign(with(&"(".repeat(5000))), "too deep"),
        ("extra.cedar line 1", bed.sign(with(&"a ".repeat(5000))), "too long a policy"),
        ("extra.cedar line 1", bed.sign(with(&" ".repeat(256 * 1024 + 1))), "too long a file"),
        ("registry line 23, id", registry("spiffe://operators.example/operator/x"), "an operator as workload"),
        ("registry line 23, id", registry("spiffe://prod.example/Operator/x"), "an operator as workload"),
        ("registry lines 17 and 23, id", registry("spiffe://prod.example/ns/other/sa/*"), "patterns that overlap"),
    ];
    for (name, signed, what) in &table {
        let call = || call(&bed.alice, &bed.reason);
        assert_eq!(field(block_on(vault.validate_policy(&call(), signed))), *name, "{what}");
        assert_eq!(field(bed.propose(&vault, signed)), *name, "{what}");
        assert_eq!(field(bed.ask(&vault, signed.reference()).map_err(not_there)), "not there", "{what}");
        assert_eq!(vault.policy_bundle(), Some(four), "{what}");
    }
    bed.decrypt(&vault, &envelope).unwrap();
    // A fork of one that waits.
    let fork = bed.sign(bed.bundle(6, previous, NO_DECRYPT));
    assert_eq!(field(bed.propose(&vault, &fork)), "version");
    assert_eq!(field(bed.ask(&vault, fork.reference())), "digest");
    // The one in force.
    precondition(bed.propose(&vault, &bed.sign(bed.bundle(4, None, ""))));
    precondition(bed.ask(&vault, four));
    // Without a reason.
    let bare = ControlCall { reason: None, ..call(&bed.alice, &bed.reason) };
    assert_eq!(field(block_on(vault.propose_policy(&bare, &waits))), "reason");
    assert_eq!(field(block_on(vault.activate_policy(&bare, waits.reference()))), "reason");
    assert_eq!((vault.policy_bundle(), vault.authorizer().epoch()), (Some(four), 2));
    vault.policies_ready().unwrap();
}

/// What is said of a bundle that is not in the store, or of another in its place.
fn not_there(error: Error) -> Error {
    match error {
        Error::NotFound("policy bundle") => Error::invalid("not there", ""),
        Error::Invalid { field, .. } if field == "digest" => Error::invalid("not there", ""),
        other => other,
    }
}

#[test]
fn the_largest_bundle_that_is_one_comes_into_force_and_is_read_back() {
    let bed = Bed::new();
    let store = store(&bed);
    let vault = bed.open(Arc::clone(&store) as _, "a");
    let mut bundle = bed.bundle(1, None, "");
    let filler = "# filler that says nothing\n";
    let room = MAX_BUNDLE - SignedBundle::new(bundle.clone()).unwrap().encoded().len();
    bundle.registry.push_str(&filler.repeat(room / filler.len()));
    let signed = bed.sign(bundle.clone());
    bed.activate(&vault, &signed).unwrap();
    drop(vault);
    let vault = bed.open(store, "a");
    assert_eq!(vault.policy_bundle(), Some(signed.reference()));
    let found = block_on(vault.get_policy(&call(&bed.alice, &bed.reason), None)).unwrap();
    assert_eq!(found.1, signed);
    bundle.registry.push_str(filler);
    assert_eq!(field(SignedBundle::new(bundle)), "bundle");
}

#[test]
fn an_activation_is_approved_by_another_operator_once_in_time_and_only_while_it_follows() {
    let bed = Bed::new();
    let vault = bed
        .open(store(&bed), "a")
        .with_lifecycle(vault_core::vault::LifecycleSettings { approval_millis: 600_000, ..Default::default() });
    bed.set_up(&vault);
    let first = bed.sign(bed.bundle(1, None, NO_DECRYPT));
    let twin = bed.sign(bed.bundle(2, None, ""));
    for signed in [&first, &twin] {
        bed.propose(&vault, signed).unwrap();
    }
    let (asked, of_twin) = (bed.ask(&vault, first.reference()).unwrap(), bed.ask(&vault, twin.reference()).unwrap());
    let again = bed.ask(&vault, first.reference()).unwrap();
    precondition(bed.approve(&vault, &bed.alice, &asked));
    let approve = |sha256, id| {
        let seen = Seen { request_sha256: sha256, subject: None };
        block_on(vault.approve_activation(&call(&bed.bob, &bed.reason), id, seen))
    };
    assert_eq!(field(approve(Fingerprint([0; 32]), asked.id)), "request_sha256");
    assert_eq!(field(approve(of_twin.request_sha256, asked.id)), "request_sha256");
    // It belongs to no tenant.
    let seen = Seen { request_sha256: asked.request_sha256, subject: None };
    let elsewhere = block_on(vault.approve(&call(&bed.bob, &bed.reason), (&tenant("acme"), asked.id), seen));
    assert_eq!(elsewhere.err(), Some(Error::NotFound("approval")));
    let shred = block_on(vault.shred_tenant(&call(&bed.alice, &bed.reason), &tenant("acme"))).unwrap();
    assert_eq!(approve(shred.request_sha256, shred.id).err(), Some(Error::NotFound("approval")));
    let found = block_on(vault.get_activation(&call(&bed.bob, &bed.reason), asked.id)).unwrap();
    assert_eq!(found, asked);
    let rejected = block_on(vault.reject_activation(&call(&bed.alice, &bed.reason), again.id)).unwrap();
    assert_eq!(rejected.state, ApprovalState::Rejected);
    precondition(bed.approve(&vault, &bed.bob, &again));
    assert_eq!(vault.policy_bundle(), None);

    bed.approve(&vault, &bed.bob, &asked).unwrap();
    precondition(bed.approve(&vault, &bed.bob, &asked));
    // Two that followed the same: one came into force, so the other does not follow any more.
    assert_eq!(field(bed.approve(&vault, &bed.bob, &of_twin)), "previous");
    assert_eq!(field(bed.ask(&vault, twin.reference())), "previous");
    // An old approval of a bundle that has been overtaken.
    let digest = Some(first.reference().digest);
    let (third, fourth) = (bed.sign(bed.bundle(3, digest, "")), bed.sign(bed.bundle(4, digest, NO_DECRYPT)));
    bed.propose(&vault, &third).unwrap();
    let old = bed.ask(&vault, third.reference()).unwrap();
    bed.activate(&vault, &fourth).unwrap();
    assert_eq!(field(bed.approve(&vault, &bed.bob, &old)), "version");
    // Not before its time, and not after that of the approval.
    let digest = Some(fourth.reference().digest);
    let later = Timestamp(bed.clock.now().0 + 60_000);
    let fifth = bed.sign(Bundle { not_before: later, ..bed.bundle(5, digest, "") });
    bed.propose(&vault, &fifth).unwrap();
    let early = bed.ask(&vault, fifth.reference()).unwrap();
    precondition(bed.approve(&vault, &bed.bob, &early));
    bed.clock.advance_millis(600_000);
    precondition(bed.approve(&vault, &bed.bob, &early));
    let in_time = bed.ask(&vault, fifth.reference()).unwrap();
    bed.approve(&vault, &bed.bob, &in_time).unwrap();
    assert_eq!(vault.policy_bundle(), Some(fifth.reference()));
}

#[test]
fn of_two_activations_at_once_one_wins() {
    for _ in 0..5 {
        let bed = Bed::new();
        let store = store(&bed);
        let vault = bed.open(Arc::clone(&store) as _, "a");
        let bundles = [(1, ""), (2, NO_DECRYPT)].map(|(version, extra)| bed.sign(bed.bundle(version, None, extra)));
        let asked = bundles.each_ref().map(|signed| {
            bed.propose(&vault, signed).unwrap();
            bed.ask(&vault, signed.reference()).unwrap()
        });
        let done = std::thread::scope(|scope| {
            let threads = asked.each_ref().map(|asked| scope.spawn(|| bed.approve(&vault, &bed.bob, asked)));
            threads.map(|thread| thread.join().unwrap())
        });
        let won = done.iter().position(Result::is_ok).unwrap();
        assert!(done.iter().filter(|done| done.is_ok()).count() == 1, "{done:?}");
        let lost = field(done[1 - won].clone());
        assert!(["version", "previous"].contains(&lost.as_str()), "{lost}");
        assert_eq!(vault.policy_bundle(), Some(bundles[won].reference()));
        drop(vault);
        assert_eq!(bed.open(store, "a").policy_bundle(), Some(bundles[won].reference()));
    }
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

fn put(store: &dyn Store, key: &[u8], change: impl FnOnce(Vec<u8>) -> Vec<u8>) {
    let row = block_on(store.get(Table::Policies, key)).unwrap().unwrap();
    let (expect, value) = (Expect::Version(row.version), change(row.value));
    let write = Write { table: Table::Policies, key: key.to_vec(), expect, value, revokes: false };
    block_on(store.commit(vec![write])).unwrap();
}

fn row_key(kind: &str, rest: &[u8]) -> Vec<u8> {
    let rest = if rest.is_empty() { Vec::new() } else { [&[0], rest].concat() };
    [POLICY_ROWS, &[0], kind.as_bytes(), &rest].concat()
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

/// Every bundle has a policy of its own that permits: a decision that mixes two of them shows.
#[test]
fn a_decision_uses_one_bundle_while_they_change() {
    let bed = Bed::new();
    let vault = bed.open(store(&bed), "a");
    let own = |version: u64| {
        let text = format!("@id(\"v-{version}\") permit (principal, action, resource);");
        let file = PolicyFile { name: "own.cedar".into(), text };
        move |bundle: Bundle| Bundle { policies: vec![file], ..bundle }
    };
    let mut last = bed.activate(&vault, &bed.sign(own(1)(bed.bundle(1, None, "")))).unwrap();
    let request = || DataRequest {
        tenant: tenant("acme"),
        dataset: DatasetId::parse("customers").unwrap(),
        subject: None,
        purpose: Purpose::parse("billing").unwrap(),
        request: RequestId([7; 16]),
        items: 1,
    };
    let facts = Facts { suspended: false, dataset: Some(DatasetFacts::default()) };
    let (stop, now) = (AtomicBool::new(false), vault_core::time::SystemClock.now());
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut seen = 0;
                    while !stop.load(Ordering::Relaxed) {
                        let decided =
                            vault.authorizer().authorize_data::<Encrypt>(&bed.billing, request(), Some(&facts), now);
                        let permit = decided.unwrap();
                        let decision = permit.decision();
                        assert!(decision.epoch >= seen, "epochs never go back");
                        seen = decision.epoch;
                        assert_eq!(decision.policies, [format!("v-{}", seen - 1)]);
                    }
                    seen
                })
            })
            .collect();
        for version in 2..=12 {
            last = bed.activate(&vault, &bed.sign(own(version)(bed.bundle(version, Some(last.digest), "")))).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        for thread in threads {
            assert!(thread.join().unwrap() > 2, "it saw some of them");
        }
    });
    assert_eq!((vault.authorizer().epoch(), vault.policy_bundle()), (13, Some(last)));
}

/// Wants to see the bundle's own digest.
#[derive(Debug)]
struct OwnDigest;

impl ProofCheck for OwnDigest {
    fn check(&self, bundle: &Bundle, record: Option<&str>) -> Result<(), Error> {
        let digest = Bundle::digest(&bundle.encode()?).to_string();
        if record == Some(&digest) { Ok(()) } else { Err(Error::invalid("proof", "is not of this bundle")) }
    }
}

#[test]
fn what_must_be_proved_is_asked_for_at_every_step() {
    let bed = Bed::new();
    let store = store(&bed);
    let trust = || PolicyTrust { proof: Some(Arc::new(OwnDigest)), ..bed.trust() };
    let open = |trust| {
        let (bare, recovery) = bed.bare(Arc::clone(&store) as _, "a");
        block_on(bare.adopt_policies(trust, recovery.policy))
    };
    // Proposed where nothing has to be proved, and approved where it has.
    let lax = open(bed.trust()).unwrap();
    let bare = bed.sign(bed.bundle(1, None, ""));
    bed.propose(&lax, &bare).unwrap();
    let asked = bed.ask(&lax, bare.reference()).unwrap();
    drop(lax);
    let strict = open(trust()).unwrap();
    assert_eq!(field(bed.propose(&strict, &bed.sign(bed.bundle(2, None, "")))), "proof");
    assert_eq!(field(bed.approve(&strict, &bed.bob, &asked)), "proof");
    let proved = bed.sign(bed.bundle(2, None, ""));
    let digest = proved.reference().digest.to_string();
    let proved = proved.with_proof(Some(digest)).unwrap();
    bed.activate(&strict, &proved).unwrap();
    drop(strict);
    // The record is in the store with it.
    let strict = open(trust()).unwrap();
    assert_eq!(strict.policy_bundle(), Some(proved.reference()));
    drop(strict);
    let proof = row_key("proof", &2_u64.to_be_bytes());
    put(&*store, &proof, |_| b"\x01else".to_vec());
    assert_eq!(open(trust()).map(drop).map_err(|e| Err::<(), _>(e)).map_err(field), Err("proof".to_owned()));
}
