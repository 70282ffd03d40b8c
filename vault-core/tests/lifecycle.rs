//! The life of keys: rotation that anyone can carry on, shredding that takes two, and death at each commit of both.
#![cfg(feature = "dev")]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

#[path = "common/failpoints.rs"]
mod failpoints;
#[path = "common/fixture.rs"]
mod fixture;
#[path = "common/life.rs"]
mod life;
#[path = "common/pki.rs"]
mod pki;

#[path = "common/simfs.rs"]
mod simfs;

use std::path::Path;
use std::sync::Arc;

use failpoints::Mortal;
use fixture::{call, context, dataset, target, tenant};
use life::{Life, MINUTE, Scene, of, rows, seen};
use pollster::block_on;
use simfs::SimFs;
use vault_core::Error;
use vault_core::Vault;
use vault_core::id::{Fingerprint, KeyVersion, Subject};
use vault_core::keys::{Approval, ApprovalState, ReceiptText, Seen, TenantState};
use vault_core::store::{EmbeddedStore, Table};
use vault_core::vault::{EncryptRequest, LifecycleSettings, Target};

#[test]
fn a_rotation_of_many_keys_shows_how_far_it_is_and_ends_with_none_under_the_old_version() {
    let scene = Scene::new();
    let store = scene.store();
    let vault = scene.open(Arc::clone(&store) as _);
    scene.set_up(&vault);
    let targets: Vec<Target> = (0..600).map(|n| of(Some(&format!("s{n}")))).collect();
    let context = context();
    let requests = targets.iter().map(|target| EncryptRequest { target, context: &context, plaintext: b"DE89 3704" });
    let sealed: Vec<_> = block_on(vault.encrypt_all(&scene.billing, requests));
    let envelopes: Vec<Vec<u8>> = sealed.into_iter().map(|one| one.unwrap().envelope).collect();
    drop(vault);

    // It dies in the middle.
    let mortal = Arc::new(Mortal::new(Arc::clone(&store) as _, false));
    let vault = scene.open(Arc::clone(&mortal) as _);
    mortal.live_for(2);
    let rotate =
        |vault: &Vault| block_on(vault.rotate_tenant_key(&call(&scene.alice, &scene.reason), &tenant("acme"), None));
    rotate(&vault).unwrap_err();
    drop(vault);
    let vault = scene.open(Arc::clone(&store) as _);
    let see = |vault: &Vault| block_on(vault.get_tenant(&call(&scene.alice, &scene.reason), &tenant("acme"))).unwrap();
    let halfway = see(&vault);
    assert_eq!(halfway.key_version, KeyVersion(2));
    let rotation = halfway.rotation.unwrap();
    assert_eq!((rotation.from, rotation.to, rotation.pass), (KeyVersion(1), KeyVersion(2), 1));
    assert_eq!((rotation.seen, rotation.data_keys, rotation.finished), (256, 256, None));
    for (target, envelope) in targets.iter().zip(&envelopes).step_by(37) {
        scene.decrypt(&vault, target, envelope).unwrap();
    }
    // A key that is made meanwhile is under the new version.
    let late = of(Some("late"));
    let of_late = scene.encrypt(&vault, &late).unwrap();

    // Called again, it goes on, and makes no third version.
    let done = rotate(&vault).unwrap();
    assert_eq!(done.key_version, KeyVersion(2));
    let rotation = done.rotation.unwrap();
    assert_eq!((rotation.data_keys, rotation.pass), (600, 2));
    assert!(rotation.finished.is_some());
    vault.keys().evict_all();
    for (target, envelope) in targets.iter().zip(&envelopes).chain([(&late, &of_late)]) {
        scene.decrypt(&vault, target, envelope).unwrap();
    }
    assert!(rows(&*store, Table::DataKeys).iter().all(|row| row["tenant_key_version"] == 2));
    let states: Vec<_> = rows(&*store, Table::TenantKeys).iter().map(|row| row["state"].clone()).collect();
    assert_eq!(states, ["decrypt_only", "active", "active"], "acme 1, acme 2, globex 1");
    // The next one is another rotation.
    assert_eq!(rotate(&vault).unwrap().key_version, KeyVersion(3));
    assert_eq!(block_on(vault.tend(|| true)).unwrap().steps, 0);
}

#[test]
fn a_shredded_subject_is_gone_from_all_datasets_and_stays_so() {
    let scene = Scene::new();
    let store = scene.store();
    let vault = scene.open(Arc::clone(&store) as _);
    scene.set_up(&vault);
    let orders = target("acme", "orders", Some("mia"));
    let gone = [of(Some("mia")), orders];
    let stay = [of(None), of(Some("noa")), target("globex", "customers", Some("mia"))];
    let seal = |target: &Target| scene.encrypt(&vault, target).unwrap();
    let (of_gone, of_stay) = (gone.each_ref().map(seal), stay.each_ref().map(seal));
    block_on(vault.rotate_data_keys(&call(&scene.alice, &scene.reason), &tenant("acme"), None)).unwrap();

    let done = scene.shred(&vault, Some("mia"));
    assert_eq!(done.state, ApprovalState::Executed);
    let receipt = ReceiptText::verify(done.receipt.as_deref().unwrap(), &scene.verifier()).unwrap();
    assert_eq!((receipt.data_keys, receipt.listed.len()), (4, 4), "two datasets, two versions");
    assert!(receipt.subject.is_some() && receipt.due.is_some() && receipt.tenant_key_version == 1);
    let check = |vault: &Vault| {
        for (target, envelope) in gone.iter().zip(&of_gone) {
            assert_eq!(scene.decrypt(vault, target, envelope), Err(Error::Unopenable));
            assert!(matches!(scene.encrypt(vault, target), Err(Error::FailedPrecondition(_))));
        }
        for (target, envelope) in stay.iter().zip(&of_stay) {
            scene.decrypt(vault, target, envelope).unwrap();
        }
    };
    check(&vault);
    // A dataset that comes later.
    let about = (&tenant("acme"), &dataset("later"));
    block_on(vault.create_dataset(&call(&scene.alice, &scene.reason), about, None, None)).unwrap();
    let refused = scene.encrypt(&vault, &target("acme", "later", Some("mia")));
    assert_eq!(refused, Err(Error::FailedPrecondition("the subject is shredded")));
    scene.encrypt(&vault, &target("acme", "later", Some("noa"))).unwrap();
    assert!(matches!(scene.ask(&vault, Some("mia")), Err(Error::FailedPrecondition(_))));

    // The version above is rotated away from at once, and destroyed when it is due, not before.
    let versions = || -> Vec<String> {
        let rows = rows(&*store, Table::TenantKeys);
        rows.iter().map(|row| format!("{} {}", row["state"].as_str().unwrap(), row.get("wrapped").is_some())).collect()
    };
    block_on(vault.tend(|| true)).unwrap();
    assert_eq!(versions(), ["decrypt_only true", "active true", "active true"]);
    scene.clock.advance_millis(5 * MINUTE - 1);
    block_on(vault.tend(|| true)).unwrap();
    assert_eq!(versions(), ["decrypt_only true", "active true", "active true"]);
    scene.clock.advance_millis(1);
    block_on(vault.tend(|| true)).unwrap();
    assert_eq!(versions(), ["destroyed false", "active true", "active true"]);
    assert_eq!(block_on(vault.tend(|| true)).unwrap().steps, 0, "nothing is left to do");
    check(&vault);
    drop(vault);
    let vault = scene.open(Arc::clone(&store) as _);
    check(&vault);
    // No wrapped key of hers is in any row.
    let of_mia: Vec<_> = rows(&*store, Table::DataKeys).into_iter().filter(|row| row["subject"] == "mia").collect();
    assert_eq!(of_mia.len(), 5, "four of acme, one of globex");
    assert_eq!(of_mia.iter().filter(|row| row["wrapped"] == "" && row["state"] == "destroyed").count(), 4);
}

#[test]
fn a_shredded_tenant_is_gone_and_its_name_is_not_used_again() {
    let scene = Scene::new();
    let store = scene.store();
    let vault = scene.open(Arc::clone(&store) as _);
    scene.set_up(&vault);
    let (gone, stay) = ([of(None), of(Some("mia"))], target("globex", "customers", None));
    let of_gone = gone.each_ref().map(|target| scene.encrypt(&vault, target).unwrap());
    let of_stay = scene.encrypt(&vault, &stay).unwrap();
    block_on(vault.rotate_tenant_key(&call(&scene.alice, &scene.reason), &tenant("acme"), None)).unwrap();
    let done = scene.shred(&vault, None);
    let receipt = ReceiptText::verify(done.receipt.as_deref().unwrap(), &scene.verifier()).unwrap();
    assert_eq!((receipt.data_keys, receipt.tenant_key_version, receipt.due), (2, 2, None));
    assert_eq!(receipt.subject, None);
    for (target, envelope) in gone.iter().zip(&of_gone) {
        assert_eq!(scene.decrypt(&vault, target, envelope), Err(Error::Unopenable));
        assert!(matches!(scene.encrypt(&vault, target), Err(Error::FailedPrecondition(_))), "{target:?}");
    }
    assert!(matches!(scene.encrypt(&vault, &of(Some("new"))), Err(Error::FailedPrecondition(_))));
    scene.decrypt(&vault, &stay, &of_stay).unwrap();
    let (acme, call) = (tenant("acme"), || call(&scene.alice, &scene.reason));
    let seen = block_on(vault.get_tenant(&call(), &acme)).unwrap();
    assert_eq!(seen.state, TenantState::Destroyed);
    let precondition = |error: Error| assert!(matches!(error, Error::FailedPrecondition(_)), "{error}");
    precondition(block_on(vault.create_tenant(&call(), &acme)).unwrap_err());
    precondition(block_on(vault.resume_tenant(&call(), &acme, None)).unwrap_err());
    precondition(block_on(vault.rotate_tenant_key(&call(), &acme, None)).unwrap_err());
    precondition(block_on(vault.rotate_data_keys(&call(), &acme, None)).unwrap_err());
    precondition(scene.ask(&vault, None).unwrap_err());
    precondition(scene.ask(&vault, Some("mia")).unwrap_err());
    for row in rows(&*store, Table::DataKeys).iter().filter(|row| row["state"] == "destroyed") {
        assert_eq!(row["wrapped"], "");
    }
    assert_eq!(rows(&*store, Table::SideKeys).iter().filter(|row| row["wrapped"] == "").count(), 1);
}

#[test]
fn only_another_operator_approves_once_in_time_and_exactly_what_was_asked() {
    let scene = Scene::new();
    let vault = scene.open(scene.store());
    scene.set_up(&vault);
    let mia = of(Some("mia"));
    let envelope = scene.encrypt(&vault, &mia).unwrap();
    let asked = scene.ask(&vault, Some("mia")).unwrap();
    assert_eq!((asked.state, asked.receipt.as_deref()), (ApprovalState::Pending, None));
    assert!(matches!(scene.approve(&vault, &scene.alice, &asked), Err(Error::FailedPrecondition(_))), "her own");
    let other = Approval { request_sha256: Fingerprint([0; 32]), ..asked.clone() };
    let refused = scene.approve(&vault, &scene.bob, &other);
    assert!(matches!(refused, Err(Error::Invalid { field, .. }) if field == "request_sha256"));
    let noa = Subject::parse("noa").unwrap();
    for subject in [Some(&noa), None] {
        let seen = Seen { subject, ..seen(&asked) };
        let refused = block_on(vault.approve(&call(&scene.bob, &scene.reason), (&tenant("acme"), asked.id), seen));
        assert!(matches!(refused, Err(Error::Invalid { field, .. }) if field == "subject"));
    }
    let about = (&tenant("globex"), asked.id);
    let elsewhere = block_on(vault.approve(&call(&scene.bob, &scene.reason), about, seen(&asked)));
    assert_eq!(elsewhere.err(), Some(Error::NotFound("approval")));

    scene.clock.advance_millis(1);
    let rejected = scene.ask(&vault, Some("mia")).unwrap();
    let done = block_on(vault.reject(&call(&scene.alice, &scene.reason), &tenant("acme"), rejected.id)).unwrap();
    assert_eq!(done.state, ApprovalState::Rejected);
    assert!(matches!(scene.approve(&vault, &scene.bob, &rejected), Err(Error::FailedPrecondition(_))));

    scene.clock.advance_millis(10 * MINUTE);
    assert!(matches!(scene.approve(&vault, &scene.bob, &asked), Err(Error::FailedPrecondition(_))), "too late");
    let list = |after| block_on(vault.list_approvals(&call(&scene.bob, &scene.reason), after, 10)).unwrap();
    let states: Vec<_> = list(None).iter().map(|approval| approval.state).collect();
    assert_eq!(states, [ApprovalState::Expired, ApprovalState::Rejected]);
    assert_eq!(list(Some(asked.id)).len(), 1);
    scene.decrypt(&vault, &mia, &envelope).unwrap();

    let asked = scene.ask(&vault, Some("mia")).unwrap();
    let twin = scene.ask(&vault, Some("mia")).unwrap();
    let done = scene.approve(&vault, &scene.bob, &asked).unwrap();
    assert_eq!(done.decided_by.as_deref(), Some(scene.bob.spiffe_id()));
    assert!(matches!(scene.approve(&vault, &scene.bob, &asked), Err(Error::FailedPrecondition(_))), "once");
    assert!(matches!(scene.approve(&vault, &scene.bob, &twin), Err(Error::FailedPrecondition(_))), "nothing is left");
    assert_eq!(scene.decrypt(&vault, &mia, &envelope), Err(Error::Unopenable));
    let later = block_on(vault.get_approval(&call(&scene.alice, &scene.reason), &tenant("acme"), asked.id)).unwrap();
    assert_eq!(later.receipt, done.receipt);
    let bare = vault_core::vault::ControlCall { reason: None, ..call(&scene.alice, &scene.reason) };
    let refused = block_on(vault.shred_tenant(&bare, &tenant("acme")));
    assert!(matches!(refused, Err(Error::Invalid { field, .. }) if field == "reason"));
}

#[test]
fn keys_are_rotated_when_they_are_old_or_have_sealed_enough() {
    let scene = Scene::new();
    let store = scene.store();
    let settings = LifecycleSettings {
        tenant_key_age_millis: Some(30 * MINUTE),
        data_key_age_millis: Some(10 * MINUTE),
        data_key_uses: 48,
        ..LifecycleSettings::default()
    };
    let vault = scene.open(Arc::clone(&store) as _).with_lifecycle(settings);
    scene.set_up(&vault);
    let (busy, quiet) = (of(None), of(Some("mia")));
    let first = scene.encrypt(&vault, &quiet).unwrap();
    let version = |target: &Target| {
        let request = EncryptRequest { target, context: &context(), plaintext: b"DE89 3704" };
        block_on(vault.encrypt(&scene.billing, request)).unwrap().key_version
    };
    let tend = || block_on(vault.tend(|| true)).unwrap();
    // By use: the row counts in blocks of three.
    for _ in 0..47 {
        assert_eq!(version(&busy), KeyVersion(1));
    }
    assert_eq!(tend().due, 0);
    assert_eq!(version(&busy), KeyVersion(1));
    assert_eq!(tend().due, 1);
    assert_eq!((version(&busy), version(&quiet)), (KeyVersion(2), KeyVersion(1)));
    // By age.
    scene.clock.advance_millis(10 * MINUTE - 1);
    assert_eq!(tend().due, 0);
    scene.clock.advance_millis(1);
    assert_eq!(tend().due, 2);
    assert_eq!((version(&busy), version(&quiet)), (KeyVersion(3), KeyVersion(2)));
    scene.clock.advance_millis(20 * MINUTE);
    let tended = tend();
    assert_eq!((tended.due, tended.failed), (4, 0), "two data keys, two tenant keys");
    assert_eq!(tend().due, 0);
    for id in ["acme", "globex"] {
        let seen = block_on(vault.get_tenant(&call(&scene.alice, &scene.reason), &tenant(id))).unwrap();
        assert!(seen.key_version == KeyVersion(2) && seen.rotation.unwrap().finished.is_some());
    }
    scene.decrypt(&vault, &quiet, &first).unwrap();
    // A crash forgets less than a block for each key.
    for _ in 0..5 {
        version(&busy);
    }
    let uses = || rows(&*store, Table::DataKeys).iter().filter_map(|row| row["uses"].as_u64()).max().unwrap_or(0);
    let counted = uses();
    assert_eq!(counted, 48, "the first version");
    drop(vault);
    let active: Vec<u64> = rows(&*store, Table::DataKeys)
        .iter()
        .filter(|row| row["state"] == "active" && row.get("subject").is_none())
        .map(|row| row["uses"].as_u64().unwrap_or(0))
        .collect();
    assert_eq!(active, [3], "of five");
}

#[test]
fn a_receipt_that_was_changed_is_refused() {
    let scene = Scene::new();
    let vault = scene.open(scene.store());
    scene.set_up(&vault);
    let receipt = scene.shred(&vault, Some("mia")).receipt.unwrap();
    let verifier = scene.verifier();
    assert_eq!(ReceiptText::verify(&receipt, &verifier).unwrap().data_keys, 0, "she had none, and gets none");
    for at in (0..receipt.len()).filter(|at| receipt.is_char_boundary(*at) && receipt.as_bytes()[*at].is_ascii()) {
        let mut bad = receipt.clone().into_bytes();
        bad[at] ^= 1;
        if let Ok(bad) = String::from_utf8(bad) {
            assert!(ReceiptText::verify(&bad, &verifier).is_err(), "byte {at}");
        }
    }
    assert!(matches!(scene.encrypt(&vault, &of(Some("mia"))), Err(Error::FailedPrecondition(_))));
}

/// Dies at one commit, and looks at what the next process finds. True if it lived through.
fn life_and_death((subject, delay): (Option<&'static str>, u64), commits: i64, carried_out: bool) -> bool {
    let scene = Scene { delay, ..Scene::new() };
    let store = scene.store();
    let mortal = Arc::new(Mortal::new(Arc::clone(&store) as _, carried_out));
    let vault = scene.open(Arc::clone(&mortal) as _);
    let life = Life::begin(scene, &vault, subject);
    mortal.live_for(commits);
    let (acknowledged, result) = life.run(&vault);
    assert_eq!(result.is_err(), mortal.is_dead(), "{result:?}");
    drop(vault);
    life.afterwards(&store, acknowledged, &format!("after {commits} commits"));
    result.is_ok()
}

fn dies_at_each_commit(subject: Option<&'static str>, delay: u64) {
    for carried_out in [false, true] {
        let lived = (0..40).position(|commits| life_and_death((subject, delay), commits, carried_out));
        assert!(lived.is_some_and(|commits| commits >= 8), "{lived:?} commits");
    }
}

#[test]
fn death_at_any_commit_of_rotation_and_a_subjects_shred_loses_nothing_and_brings_nothing_back() {
    dies_at_each_commit(Some("mia"), 0);
}

#[test]
fn death_at_any_commit_of_rotation_and_a_tenants_shred_loses_nothing_and_brings_nothing_back() {
    dies_at_each_commit(None, 0);
}

#[test]
fn death_at_any_commit_from_the_vote_to_the_end_of_a_scheduled_shred_carries_it_out_once_and_in_its_time() {
    dies_at_each_commit(Some("mia"), MINUTE);
    dies_at_each_commit(None, MINUTE);
}

/// The store's disk forgets what was not synced, at moments spread evenly over all its operations:
/// `BLINDVAULT_KILL_CYCLES` says how many (20).
fn dies_on_a_disk_that_forgets(subject: Option<&'static str>) {
    let begin = || {
        let (scene, fs) = (Scene::new(), SimFs::new());
        let store = Arc::new(EmbeddedStore::open(Arc::new(fs.clone()), Path::new("/data/rows")).unwrap());
        let vault = scene.open(store);
        (Life::begin(scene, &vault, subject), vault, fs)
    };
    let (life, vault, fs) = begin();
    let first = fs.ops();
    life.run(&vault).1.unwrap();
    let last = fs.ops();
    assert!(last - first > 50, "{first} to {last} operations");
    let moments: u64 = std::env::var("BLINDVAULT_KILL_CYCLES").map_or(20, |n| n.parse().unwrap());
    let mut died = 0;
    for n in 0..moments {
        let op = first + 1 + (last - first) * n / moments;
        let (life, vault, fs) = begin();
        fs.crash_at(op);
        let (acknowledged, result) = life.run(&vault);
        died += u64::from(result.is_err());
        drop(vault);
        let store = EmbeddedStore::open(Arc::new(fs.crash(op)), Path::new("/data/rows")).unwrap();
        life.afterwards(&Arc::new(store), acknowledged, &format!("crash at operation {op}"));
    }
    assert!(died * 10 >= moments * 9, "{died} of {moments} died");
}

#[test]
fn a_crash_of_the_disk_in_rotation_and_a_subjects_shred_loses_nothing_and_brings_nothing_back() {
    dies_on_a_disk_that_forgets(Some("mia"));
}

#[test]
fn a_crash_of_the_disk_in_rotation_and_a_tenants_shred_loses_nothing_and_brings_nothing_back() {
    dies_on_a_disk_that_forgets(None);
}
