//! What a consent does, and what it does not.

use super::*;
use crate::audit::{Body, Entry};
use crate::backup;
use crate::keys::{Consent, Seen};
use crate::kms::{LocalRoot, Roots};
use crate::store::{EmbeddedStore, Store};

fn list(vault: &Vault, of: &str) -> Vec<Consent> {
    through_portal(ann(of), of, async |call| vault.list_consents(call, None, 1000).await).unwrap()
}

#[test]
fn plaintext_is_released_for_what_was_consented_to_until_it_is_withdrawn() {
    let (dir, scene) = Scene::new();
    let vault = &scene.vault;
    let target = to("acme", "customers", "billing");
    let envelope = seal(vault, &target);
    assert_eq!(open(vault, &target, &envelope), NO_CONSENT);
    // Another purpose, another dataset, another tenant.
    consent(vault, "acme", &["customers"], "marketing");
    consent(vault, "acme", &["orders"], "billing");
    consent(vault, "globex", &["customers"], "billing");
    assert_eq!(open(vault, &target, &envelope), NO_CONSENT);
    // Names are in the order of their milliseconds.
    scene.later(1);
    let id = consent(vault, "acme", &["orders", "customers"], "billing");
    open(vault, &target, &envelope).unwrap();
    assert_eq!(open(vault, &to("acme", "customers", "support"), &envelope), NO_CONSENT);
    // The policies still have to allow it.
    assert_eq!(open_as(vault, "signup", &target, &envelope), Err(Error::Denied(Check::Policy)));
    let withdrawn = withdraw(vault, "acme", id).unwrap();
    assert_eq!(open(vault, &target, &envelope), NO_CONSENT);
    assert_eq!(withdraw(vault, "acme", id).unwrap().consent, withdrawn.consent);
    // A second consent is another one.
    scene.later(1);
    let again = consent(vault, "acme", &["customers"], "billing");
    open(vault, &target, &envelope).unwrap();
    assert!(again > id);
    let all = list(vault, "acme");
    assert_eq!(all.len(), 4);
    assert_eq!(all[2], withdrawn.consent);
    assert_eq!(all[2].granted.issuer, "https://id.example");
    assert_eq!(all[2].granted.workload, workload("portal").spiffe_id());
    assert_eq!(all[2].withdrawn.as_ref().unwrap().end_user, all[2].granted.end_user);
    assert!(all[3].withdrawn.is_none());
    // All of it is durable.
    scene.vault.close().unwrap();
    let scene = Scene::open(dir.path());
    scene.later(2);
    assert_eq!(list(&scene.vault, "acme"), all);
    open(&scene.vault, &target, &envelope).unwrap();
    withdraw(&scene.vault, "acme", again).unwrap();
    assert_eq!(open(&scene.vault, &target, &envelope), NO_CONSENT);
}

#[test]
fn one_for_all_datasets_covers_those_made_later() {
    let (_dir, scene) = Scene::new();
    let vault = &scene.vault;
    let id = consent(vault, "acme", &[], "billing");
    declare(vault, "acme", "later", true);
    for name in ["customers", "later"] {
        let target = to("acme", name, "billing");
        open(vault, &target, &seal(vault, &target)).unwrap();
    }
    let other = to("globex", "customers", "billing");
    assert_eq!(open(vault, &other, &seal(vault, &other)), NO_CONSENT);
    withdraw(vault, "acme", id).unwrap();
    for name in ["customers", "later"] {
        let target = to("acme", name, "billing");
        assert_eq!(open(vault, &target, &seal(vault, &target)), NO_CONSENT);
    }
}

#[test]
fn it_holds_from_its_first_instant_to_before_its_last() {
    let (_dir, scene) = Scene::new();
    let vault = &scene.vault;
    let target = to("acme", "customers", "billing");
    let envelope = seal(vault, &target);
    let [from, until] = [1000, 2000].map(|at| Some(NOW.plus_millis(at)));
    give(vault, "acme", &NewConsent { from, until, ..new_consent(&["customers"], "billing") }).unwrap();
    for (at, allowed) in [(0, false), (999, false), (1000, true), (1999, true), (2000, false), (5000, false)] {
        scene.clock.set(NOW.plus_millis(at));
        assert_eq!(open(vault, &target, &envelope).is_ok(), allowed, "after {at} ms");
    }
}

#[test]
fn only_an_end_user_of_the_tenant_with_a_second_factor_gives_one_through_a_workload_that_may_ask() {
    let (_dir, scene) = Scene::new();
    let vault = &scene.vault;
    let new = new_consent(&["customers"], "billing");
    let ask = |user: EndUser, of: &str| {
        through_portal(user, of, async |call| vault.grant_consent(call, &new).await).map(drop)
    };
    assert_eq!(ask(EndUser::for_test("ann", "acme", None), "acme"), Err(Error::Denied(Check::EndUser)));
    // It was, but too long ago: the baseline demands that it is fresh.
    assert_eq!(ask(EndUser::for_test("ann", "acme", Some(NOW)), "acme"), Err(Error::Denied(Check::Policy)));
    assert_eq!(ask(ann("globex"), "acme"), Err(Error::Denied(Check::EndUser)));
    assert_eq!(ask(ann("acme").ending(NOW), "acme"), Err(Error::Denied(Check::EndUser)));
    // A tenant that does not exist is told from one that does by nothing.
    assert_eq!(ask(ann("nobody"), "nobody"), Err(Error::Denied(Check::Policy)));
    let (billing, acme) = (workload("billing"), tenant("acme"));
    let end_user = Arc::new(ann("acme"));
    let call = ConsentCall { who: &billing, end_user, tenant: &acme, request: new_request_id().unwrap() };
    assert_eq!(block_on(vault.grant_consent(&call, &new)).unwrap_err(), Error::Denied(Check::Policy));
    assert_eq!(list(vault, "acme"), []);
    // Taking back needs no second factor: it only narrows.
    let id = consent(vault, "acme", &["customers"], "billing");
    let plain = EndUser::for_test("bob", "acme", None);
    let done = through_portal(plain, "acme", async |call| vault.withdraw_consent(call, id).await).unwrap();
    assert_ne!(done.consent.withdrawn.unwrap().end_user, done.consent.granted.end_user);
    let foreign = withdraw(vault, "globex", id);
    assert_eq!(foreign.unwrap_err(), Error::NotFound("consent"));
}

#[test]
fn a_consent_that_cannot_be_is_refused_whole() {
    let (_dir, scene) = Scene::new();
    let vault = &scene.vault;
    let unknown = give(vault, "acme", &new_consent(&["customers", "elsewhere"], "billing")).unwrap_err();
    assert!(matches!(unknown, Error::Invalid { field, .. } if field == "datasets[1]"));
    let none = NewConsent { purposes: Vec::new(), ..new_consent(&[], "billing") };
    assert!(matches!(give(vault, "acme", &none).unwrap_err(), Error::Invalid { field, .. } if field == "purposes"));
    assert_eq!(list(vault, "acme"), []);
    let target = to("acme", "customers", "billing");
    assert_eq!(open(vault, &target, &seal(vault, &target)), NO_CONSENT);
}

#[test]
fn what_demands_consent_does_so_for_ever() {
    let (_dir, scene) = Scene::new();
    let vault = &scene.vault;
    let (alice, reason) = (operator("alice"), because());
    let at = (&tenant("acme"), &dataset("customers"));
    let again = block_on(vault.create_dataset(&call(&alice, &reason), at, None, None));
    assert_eq!(again.unwrap_err(), Error::AlreadyExists("dataset"));
    // Also once its row is written again, for its first consent.
    let id = consent(vault, "acme", &["customers"], "billing");
    withdraw(vault, "acme", id).unwrap();
    assert!(block_on(vault.get_dataset(&call(&alice, &reason), at)).unwrap().consent_required);
    let target = to("acme", "customers", "billing");
    assert_eq!(open(vault, &target, &seal(vault, &target)), NO_CONSENT);
}

#[test]
fn a_dataset_takes_so_many_in_force_and_forgets_what_is_over() {
    let (_dir, scene) = Scene::new();
    let vault = &scene.vault;
    let soon = NewConsent { until: Some(NOW.plus_millis(1000)), ..new_consent(&["orders"], "billing") };
    let one = give(vault, "acme", &soon).unwrap().consent.id;
    for _ in 1..200 {
        give(vault, "acme", &soon).unwrap();
    }
    let full = Error::FailedPrecondition("too many consents are in force; withdraw some");
    assert_eq!(give(vault, "acme", &soon).unwrap_err(), full);
    withdraw(vault, "acme", one).unwrap();
    give(vault, "acme", &soon).unwrap();
    assert_eq!(give(vault, "acme", &soon).unwrap_err(), full);
    scene.later(1000);
    consent(vault, "acme", &["orders"], "billing");
    assert_eq!(list(vault, "acme").len(), 202);
}

#[test]
fn of_many_at_once_none_is_lost() {
    let (_dir, scene) = Scene::new();
    let vault = &scene.vault;
    let target = to("acme", "customers", "billing");
    let envelope = seal(vault, &target);
    let ids: Vec<ConsentId> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..4).map(|_| scope.spawn(|| consent(vault, "acme", &["customers", "orders"], "billing"))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    // Each of them suffices: all but the last may go.
    for id in &ids {
        open(vault, &target, &envelope).unwrap();
        withdraw(vault, "acme", *id).unwrap();
    }
    assert_eq!(open(vault, &target, &envelope), NO_CONSENT);
    assert_eq!(list(vault, "acme").len(), 4);
}

#[test]
fn withdrawing_works_while_the_tenant_is_suspended_and_shredding_takes_the_consents_along() {
    let (_dir, scene) = Scene::new();
    let vault = &scene.vault;
    let target = to("acme", "customers", "billing");
    let envelope = seal(vault, &target);
    let id = consent(vault, "acme", &["customers"], "billing");
    let (alice, bob, reason, acme) = (operator("alice"), operator("bob"), because(), tenant("acme"));
    block_on(vault.suspend_tenant(&call(&alice, &reason), &acme, None)).unwrap();
    assert_eq!(open(vault, &target, &envelope), Err(Error::Denied(Check::Suspended)));
    withdraw(vault, "acme", id).unwrap();
    resume(vault, (&alice, &bob), "acme").unwrap();
    assert_eq!(open(vault, &target, &envelope), NO_CONSENT);
    consent(vault, "acme", &["customers"], "billing");
    // The tenant key's rotation leaves them readable.
    block_on(vault.rotate_tenant_key(&call(&alice, &reason), &acme, None)).unwrap();
    vault.keys().evict_all();
    open(vault, &target, &envelope).unwrap();
    let asked = block_on(vault.shred_tenant(&call(&alice, &reason), &acme)).unwrap();
    let seen = Seen { request_sha256: asked.request_sha256, subject: None };
    block_on(vault.approve(&call(&bob, &reason), (&acme, asked.id), seen)).unwrap();
    assert!(open(vault, &target, &envelope).is_err());
    let gone = Error::FailedPrecondition("the tenant is destroyed");
    assert_eq!(give(vault, "acme", &new_consent(&[], "billing")).unwrap_err(), gone);
    let listed = through_portal(ann("acme"), "acme", async |call| vault.list_consents(call, None, 9).await);
    assert_eq!(listed.unwrap_err(), gone);
}

#[test]
fn a_restore_carries_them_and_withdrawals_of_newer_backups() {
    let (dir, scene) = Scene::new();
    let target = to("acme", "customers", "billing");
    let envelope = seal(&scene.vault, &target);
    let id = consent(&scene.vault, "acme", &["customers"], "billing");
    let root = || Roots::single(Arc::new(LocalRoot::open(&OsFs, &dir.path().join("root.key")).unwrap())).unwrap();
    let take = |at: u64| {
        let store = EmbeddedStore::open(Arc::new(OsFs), &dir.path().join("store.redb")).unwrap();
        let mut file = Vec::new();
        block_on(backup::write(&store, &root(), "test", Timestamp(at), &mut file)).unwrap();
        file
    };
    scene.vault.close().unwrap();
    let older = take(1);
    let scene = Scene::open(dir.path());
    withdraw(&scene.vault, "acme", id).unwrap();
    scene.vault.close().unwrap();
    let newer = take(2);
    for replayed in [false, true] {
        let dir2 = tempfile::tempdir().unwrap();
        std::fs::copy(dir.path().join("root.key"), dir2.path().join("root.key")).unwrap();
        let store = EmbeddedStore::open(Arc::new(OsFs), &dir2.path().join("store.redb")).unwrap();
        let mut newer = std::io::Cursor::new(newer.clone());
        let newer: &mut dyn backup::Source = &mut newer;
        let mut newer = if replayed { vec![newer] } else { Vec::new() };
        let from = &mut std::io::Cursor::new(older.clone());
        block_on(backup::restore(from, &mut newer, &store as &dyn Store, &root(), "test")).unwrap();
        drop(store);
        let scene = Scene::open(dir2.path());
        assert_eq!(open(&scene.vault, &target, &envelope).is_ok(), !replayed);
        assert_eq!(list(&scene.vault, "acme")[0].withdrawn.is_some(), replayed);
        // And goes on as ever.
        consent(&scene.vault, "acme", &["customers"], "billing");
        open(&scene.vault, &target, &envelope).unwrap();
    }
}

/// The entries of a closed log that has fewer than 256: its one bundle, in the form of C2SP tlog-tiles.
pub(super) fn entries(dir: &Path) -> Vec<Entry> {
    let bundles = std::fs::read_dir(dir.join("audit/tile/entries/000.p")).unwrap();
    let widest = bundles.map(|file| file.unwrap().file_name().into_string().unwrap().parse::<u32>().unwrap()).max();
    let bytes = std::fs::read(dir.join(format!("audit/tile/entries/000.p/{}", widest.unwrap()))).unwrap();
    let (mut rest, mut all) = (bytes.as_slice(), Vec::new());
    while let Some((len, behind)) = rest.split_first_chunk::<2>() {
        let (entry, behind) = behind.split_at(usize::from(u16::from_be_bytes(*len)));
        all.push(Entry::decode(entry).unwrap());
        rest = behind;
    }
    all
}

#[test]
fn the_log_names_the_consent_of_each_call_and_what_was_consented_to() {
    let (dir, scene) = Scene::new();
    let vault = &scene.vault;
    let target = to("acme", "customers", "billing");
    let envelope = seal(vault, &target);
    assert_eq!(open(vault, &target, &envelope), NO_CONSENT);
    let given = give(vault, "acme", &new_consent(&["customers"], "billing")).unwrap();
    open(vault, &target, &envelope).unwrap();
    let withdrawn = withdraw(vault, "acme", given.consent.id).unwrap();
    let before = withdraw(vault, "acme", given.consent.id).unwrap();
    scene.vault.close().unwrap();
    let entries = entries(dir.path());
    let decided = |action: &str, refused: bool| {
        let of = entries.iter().filter_map(|entry| match &entry.body {
            Body::Intent { decided, .. } if !refused => Some(decided),
            Body::Refused { decided, .. } if refused => Some(decided),
            _ => None,
        });
        of.filter(|decided| decided.action == action).collect::<Vec<_>>()
    };
    assert!(decided("Decrypt", true).iter().all(|decided| decided.consent.is_none()));
    assert_eq!(decided("Decrypt", false)[0].consent, Some(given.consent.id));
    assert_eq!(decided("GrantConsent", false)[0].end_user.as_ref().unwrap().issuer, "https://id.example");
    let named = |what: &str, receipt: &ConsentReceipt| {
        let entry = &entries[usize::try_from(receipt.audit_entry).unwrap()];
        let wanted = format!("{what} {} sha256:{}", given.consent.id, given.consent.sha256);
        let Body::Control { detail, principal, .. } = &entry.body else { panic!("{entry:?}") };
        assert_eq!((detail, principal.as_str()), (&wanted, workload("portal").spiffe_id()));
    };
    named("granted", &given);
    named("withdrawn", &withdrawn);
    named("withdrawn before", &before);
    assert!(entries.iter().all(|entry| !format!("{entry:?}").contains("ann")));
}
