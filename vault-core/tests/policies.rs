//! The life of policy bundles: signed, proposed, approved, in force; and every way in which one may not come into force.
#![cfg(feature = "dev")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

#[path = "common/fixture.rs"]
mod fixture;
#[path = "common/pki.rs"]
mod pki;
#[path = "common/policy_bed.rs"]
mod policy_bed;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use fixture::{call, tenant};
use policy_bed::{Bed, DENIED, NO_DECRYPT, put, row_key, store};
use pollster::block_on;
use vault_core::bundle::{Bundle, BundleState, MAX_BUNDLE, PolicyFile, PolicyTrust, ProofCheck, SignedBundle, Signers};
use vault_core::error::Unproven;
use vault_core::id::{DatasetId, Fingerprint, Purpose, RequestId};
use vault_core::keys::{ApprovalState, Seen};
use vault_core::policy::{DataRequest, DatasetFacts, Encrypt, Facts};
use vault_core::time::{Clock as _, Timestamp};
use vault_core::vault::{ApprovalSettings, ControlCall};
use vault_core::{Error, Vault};

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
    assert_eq!((valid.reference, valid.workloads), (first.reference(), 4));
    assert_eq!(valid.signers, ["policy/ines", "policy/jan"]);
    assert!(valid.policies.contains(&"no-decrypt".to_owned()));
    let stored = bed.propose(&vault, &first).unwrap();
    assert_eq!((stored.state, stored.proposer, stored.workloads), (BundleState::Pending, by_alice(&bed), 4));
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
    assert_eq!((stored.activated, stored.approval), (Some(bed.clock.now()), Some(asked.id)));
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
        ("registry line 30, id", registry("spiffe://operators.example/operator/x"), "an operator as workload"),
        ("registry line 30, id", registry("spiffe://prod.example/Operator/x"), "an operator as workload"),
        ("registry lines 24 and 30, id", registry("spiffe://prod.example/ns/other/sa/*"), "patterns that overlap"),
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
fn an_activation_says_by_name_what_it_changes() {
    let bed = Bed::new();
    let vault = bed.open(store(&bed), "a");
    let first = bed.sign(bed.bundle(1, None, NO_DECRYPT));
    bed.propose(&vault, &first).unwrap();
    let asked = bed.ask(&vault, first.reference()).unwrap();
    let says = |lines: &[String], line: &str| assert!(lines.iter().any(|said| said == line), "{line}: {lines:#?}");
    says(&asked.summary, &format!("policy bundle {} follows the files of the configuration", first.reference()));
    says(&asked.summary, "policy added: no-decrypt");
    assert!(!asked.summary.iter().any(|line| line.starts_with("policy removed")), "{:#?}", asked.summary);
    bed.approve(&vault, &bed.bob, &asked).unwrap();

    let changed = NO_DECRYPT.replace("no-decrypt", "another");
    let mut next = bed.bundle(2, Some(first.reference().digest), &changed);
    let entry = "[[workload]]\nid = \"spiffe://prod.example/ns/new/sa/new\"\nservice = \"s\"\nenvironment = \"e\"\ntenants = [\"acme\"]\nroles = []\n";
    next.registry =
        next.registry.replacen("roles = [\"writer\", \"reader\", \"rewrapper\"]", "roles = [\"writer\"]", 1) + entry;
    let next = bed.sign(next);
    bed.propose(&vault, &next).unwrap();
    let asked = bed.ask(&vault, next.reference()).unwrap();
    says(&asked.summary, &format!("policy bundle {} follows bundle {}", next.reference(), first.reference()));
    says(&asked.summary, "schema: unchanged");
    says(&asked.summary, "policy removed: no-decrypt");
    says(&asked.summary, "policy added: another");
    says(&asked.summary, "registry entries: 4 now, 5 then");
    says(&asked.summary, "registry entry added: spiffe://prod.example/ns/new/sa/new");
    says(&asked.summary, "registry entry changed: spiffe://prod.example/ns/shop/sa/billing");
    let named = |line: &&String| line.starts_with("policy ") || line.starts_with("registry entry ");
    assert_eq!(asked.summary.iter().filter(named).count(), 5, "nothing else has changed: {:#?}", asked.summary);
}

#[test]
fn two_who_are_demanded_for_a_bundle_both_have_to_approve_it() {
    let bed = Bed::new();
    let settings = ApprovalSettings { activate_policy: Some(2), ..ApprovalSettings::default() };
    let vault = bed.open(store(&bed), "a").with_approvals(settings);
    let first = bed.sign(bed.bundle(1, None, NO_DECRYPT));
    bed.propose(&vault, &first).unwrap();
    let asked = bed.ask(&vault, first.reference()).unwrap();
    let once = bed.approve(&vault, &bed.bob, &asked).unwrap();
    assert_eq!((once.state, vault.policy_bundle()), (ApprovalState::Pending, None));
    precondition(bed.approve(&vault, &bed.bob, &asked));
    let carol = fixture::People::new().operator("carol");
    assert_eq!(bed.approve(&vault, &carol, &asked).unwrap().state, ApprovalState::Executed);
    assert_eq!(vault.policy_bundle(), Some(first.reference()));
    // What is about no tenant can be taken back, too.
    let next = bed.sign(bed.bundle(2, Some(first.reference().digest), ""));
    bed.propose(&vault, &next).unwrap();
    let asked = bed.ask(&vault, next.reference()).unwrap();
    let cancelled = block_on(vault.cancel_approval(&call(&bed.alice, &bed.reason), None, asked.id)).unwrap();
    assert_eq!(cancelled.state, ApprovalState::Cancelled);
    precondition(bed.approve(&vault, &bed.bob, &asked));
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
        end_user: None,
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
    assert_eq!(field(open(trust())), "proof");
}

/// Proves whatever was not refused, and counts how often it was asked for a proof that it did not have.
#[derive(Debug, Default)]
struct Counting {
    proven: Mutex<Vec<u64>>,
    fails: AtomicBool,
}

impl ProofCheck for Counting {
    fn check(&self, bundle: &Bundle, _: Option<&str>) -> Result<(), Error> {
        if self.fails.load(Ordering::Relaxed) {
            let what = Unproven::new("no proof here", "own-tenants", "Workload, Decrypt, Dataset", "");
            return Err(Error::NotProven(Box::new(what)));
        }
        self.proven.lock().unwrap().push(bundle.version);
        Ok(())
    }
}

#[test]
fn what_waits_is_proved_before_it_comes_into_force_and_what_is_not_proven_never_does() {
    let bed = Bed::new();
    let store = store(&bed);
    let (here, there) = (Arc::new(Counting::default()), Arc::new(Counting::default()));
    let open = |name, proof: &Arc<Counting>| {
        let trust = PolicyTrust { proof: Some(Arc::clone(proof) as _), ..bed.trust() };
        let (bare, recovery) = bed.bare(Arc::clone(&store) as _, name);
        block_on(bare.adopt_policies(trust, recovery.policy))
    };
    let (a, b) = (open("a", &here).unwrap(), open("b", &there).unwrap());
    assert_eq!(block_on(b.waiting_policies()).unwrap(), []);
    let one = bed.sign(bed.bundle(1, None, ""));
    bed.propose(&a, &one).unwrap();
    assert_eq!(block_on(b.waiting_policies()).unwrap(), [one.reference()]);
    block_on(b.prepare_policy(one.reference())).unwrap();
    assert_eq!(*there.proven.lock().unwrap(), [1]);
    // Another one that waits behind none, and a text that is not what is in force.
    let later = bed.sign(bed.bundle(3, None, ""));
    bed.propose(&a, &later).unwrap();
    assert_eq!(block_on(b.waiting_policies()).unwrap(), [one.reference(), later.reference()]);
    // The proof fails by the time of the approval: nothing happens.
    let asked = bed.ask(&a, one.reference()).unwrap();
    here.fails.store(true, Ordering::Relaxed);
    assert!(matches!(bed.approve(&a, &bed.bob, &asked), Err(Error::NotProven(_))));
    assert_eq!(a.policy_bundle(), None);
    here.fails.store(false, Ordering::Relaxed);
    bed.approve(&a, &bed.bob, &asked).unwrap();
    assert_eq!(block_on(b.waiting_policies()).unwrap(), [], "it follows none that is in force");
    // Where it is not proven it does not decide, and nothing else does.
    there.fails.store(true, Ordering::Relaxed);
    assert!(matches!(block_on(b.refresh_policies()), Err(Error::NotProven(_))));
    assert_eq!(b.policy_bundle(), None);
    assert!(matches!(block_on(b.prepare_policy(later.reference())), Err(Error::NotProven(_))));
    assert!(bed.propose(&b, &bed.sign(bed.bundle(4, Some(one.reference().digest), ""))).is_err());
    there.fails.store(false, Ordering::Relaxed);
    block_on(b.refresh_policies()).unwrap();
    assert_eq!(b.policy_bundle(), Some(one.reference()));
    drop((a, b));
    // Nor does a start.
    here.fails.store(true, Ordering::Relaxed);
    assert!(matches!(open("a", &here), Err(Error::NotProven(_))));
}
