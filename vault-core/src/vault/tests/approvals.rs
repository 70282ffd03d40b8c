//! Approvals: how many people, who counts, what they are bound to, and what becomes of them.

#![expect(clippy::panic, reason = "what is not there fails the test")]

use std::thread;

use super::*;
use crate::audit::{Body, EntryReader, LogVerifier};
use crate::id::{ApprovalId, Fingerprint, Subject};
use crate::keys::{Approval, ApprovalState, Seen, TenantState, Voter};
use crate::store::{Expect, Table, Write};
use crate::vault::{ApprovalSettings, LifecycleSettings, Wanted};

const MINUTE: u64 = 60_000;

fn fails(result: Result<Approval, Error>) -> &'static str {
    match result {
        Err(Error::FailedPrecondition(why)) => why,
        other => panic!("{other:?}"),
    }
}

fn two_demanded() -> ApprovalSettings {
    ApprovalSettings { required: 2, ..ApprovalSettings::default() }
}

fn delayed() -> ApprovalSettings {
    ApprovalSettings { shred_delay_millis: 30 * MINUTE, ..ApprovalSettings::default() }
}

/// A scene whose approvals last ten minutes, with what else is demanded.
fn scene(settings: ApprovalSettings) -> (tempfile::TempDir, Scene) {
    let (dir, Scene { vault, clock }) = Scene::new();
    let lifecycle = LifecycleSettings { approval_millis: 10 * MINUTE, ..LifecycleSettings::default() };
    (dir, Scene { vault: vault.with_lifecycle(lifecycle).with_approvals(settings), clock })
}

fn ask_tenant(vault: &Vault) -> Approval {
    block_on(vault.shred_tenant(&call(&operator("alice"), &because()), &tenant("acme"))).unwrap()
}

fn approve(vault: &Vault, who: &str, asked: &Approval) -> Result<Approval, Error> {
    let seen = Seen { request_sha256: asked.request_sha256, subject: asked.ordered.subject() };
    block_on(vault.approve(&call(&operator(who), &because()), (&tenant("acme"), asked.id), seen))
}

fn cancel(vault: &Vault, who: &str, asked: &Approval) -> Result<Approval, Error> {
    block_on(vault.cancel_approval(&call(&operator(who), &because()), asked.ordered.tenant(), asked.id))
}

fn found(vault: &Vault, asked: &Approval) -> Approval {
    block_on(vault.get_approval(&call(&operator("alice"), &because()), &tenant("acme"), asked.id)).unwrap()
}

fn state(vault: &Vault) -> TenantState {
    block_on(vault.get_tenant(&call(&operator("alice"), &because()), &tenant("acme"))).unwrap().state
}

/// What the log says of an approval: events and details, in order.
fn logged(dir: &Path, vault: Vault, asked: &Approval) -> Vec<String> {
    vault.close().unwrap();
    let about = format!("{} sha256:{}", asked.id, asked.request_sha256);
    let said = |body: Body| match body {
        Body::System { event, detail, .. } if detail == about => Some(event),
        Body::Control { detail, .. } => detail.strip_suffix(&about).map(|before| before.trim_end().to_owned()),
        _ => None,
    };
    let key = std::fs::read_to_string(dir.join("audit/log.pub")).unwrap();
    let mut entries = EntryReader::open(&OsFs, &dir.join("audit"), &LogVerifier::parse(&key).unwrap()).unwrap();
    let mut found = Vec::new();
    let mut each = |entry: crate::audit::Entry, _| {
        found.extend(said(entry.body));
        Ok(())
    };
    while entries.group(&mut each).unwrap() {}
    found
}

#[test]
fn nobody_approves_what_they_asked_for() {
    let (_dir, scene) = scene(ApprovalSettings::default());
    let asked = ask_tenant(&scene.vault);
    assert!(fails(approve(&scene.vault, "alice", &asked)).contains("nobody approves what they asked for"));
    assert_eq!(state(&scene.vault), TenantState::Active);
    assert_eq!(approve(&scene.vault, "bob", &asked).unwrap().state, ApprovalState::Executed);
}

#[test]
fn a_second_certificate_of_the_same_person_counts_for_nothing() {
    let (_dir, scene) = scene(two_demanded());
    let vault = &scene.vault;
    let asked = ask_tenant(vault);
    let seen = Seen { request_sha256: asked.request_sha256, subject: None };
    let acme = tenant("acme");
    let vote = |person: &str, principal: &str| {
        let demand = |ordered: &_| vault.approvals.demand(ordered);
        let voter = Voter { person, principal };
        block_on(vault.keys.vote((Some(&acme), asked.id), seen, voter, demand))
    };
    let of_alice = &asked.requester_person;
    let refused = vote(of_alice, "spiffe://operators.example/operator/alice-2").unwrap_err();
    assert!(matches!(refused, Error::FailedPrecondition(why) if why.contains("nobody approves what they asked for")));
    let voted = vote("bob", "spiffe://operators.example/operator/bob").unwrap();
    block_on(vault.keys.commit_decision(voted.write, crate::failpoint::Step::ApprovalVote)).unwrap();
    for (person, principal) in
        [("bob", "spiffe://operators.example/operator/bob-2"), ("robert", "spiffe://operators.example/operator/bob")]
    {
        let refused = vote(person, principal).unwrap_err();
        assert!(matches!(refused, Error::FailedPrecondition(why) if why.contains("the same person")), "{refused}");
    }
    let votes = found(vault, &asked).votes;
    assert_eq!((votes.len(), votes[0].person.as_str(), votes[0].at), (1, "bob", NOW));
    assert_eq!(votes[0].request_sha256, asked.request_sha256);
}

#[test]
fn where_two_are_demanded_two_different_people_have_to_approve() {
    let (dir, scene) = scene(two_demanded());
    let vault = &scene.vault;
    let asked = ask_tenant(vault);
    assert_eq!(asked.required, 2);
    let first = approve(vault, "bob", &asked).unwrap();
    assert_eq!((first.state, first.votes.len()), (ApprovalState::Pending, 1));
    assert_eq!(state(vault), TenantState::Active);
    assert!(fails(approve(vault, "bob", &asked)).contains("the same person"));
    assert!(fails(approve(vault, "alice", &asked)).contains("nobody"));
    let second = approve(vault, "carol", &asked).unwrap();
    assert_eq!((second.state, second.votes.len()), (ApprovalState::Executed, 2));
    assert_eq!(second.decided_by.as_deref(), Some(operator("carol").spiffe_id()));
    assert_eq!(state(vault), TenantState::Destroyed);
    assert!(fails(approve(vault, "dora", &asked)).contains("decided"));
    let expected = ["asked for", "approval_voting", "voted for", "approving", "approved"];
    assert_eq!(logged(dir.path(), scene.vault, &asked), expected);
}

#[test]
fn a_setting_that_is_lowered_later_lowers_nothing_and_a_raised_one_raises() {
    let (_dir, scene) = scene(two_demanded());
    let asked = ask_tenant(&scene.vault);
    let vault = scene.vault.with_approvals(ApprovalSettings::default());
    assert_eq!(approve(&vault, "bob", &asked).unwrap().state, ApprovalState::Pending);
    let three = ApprovalSettings { shred_tenant: Some(3), ..ApprovalSettings::default() };
    let vault = vault.with_approvals(three);
    assert_eq!(approve(&vault, "carol", &asked).unwrap().state, ApprovalState::Pending);
    assert_eq!(approve(&vault, "dora", &asked).unwrap().state, ApprovalState::Executed);
    // And the delay.
    let asked = block_on(vault.shred_tenant(&call(&operator("alice"), &because()), &tenant("globex"))).unwrap();
    assert_eq!(asked.delay_millis, 0);
    let vault = vault.with_approvals(ApprovalSettings { shred_tenant: None, ..delayed() });
    let seen = Seen { request_sha256: asked.request_sha256, subject: None };
    for who in ["bob", "carol", "dora"] {
        block_on(vault.approve(&call(&operator(who), &because()), (&tenant("globex"), asked.id), seen)).unwrap();
    }
    let found = block_on(vault.get_approval(&call(&operator("alice"), &because()), &tenant("globex"), asked.id));
    assert_eq!(found.unwrap().scheduled, Some(NOW.plus_millis(30 * MINUTE)));
    // No setting is no approval.
    let none = ApprovalSettings { required: 0, ..ApprovalSettings::default() };
    let demanded = none.demand(&asked.ordered);
    assert_eq!(demanded.required, 1);
}

/// Writes a changed row, as somebody with access to the store could.
fn alter(vault: &Vault, id: ApprovalId, from: &str, to: &str) {
    let store = vault.keys.store();
    let row = block_on(store.get(Table::Approvals, &id.0)).unwrap().unwrap();
    let text = String::from_utf8(row.value).unwrap();
    assert!(text.contains(from), "{text}");
    let value = text.replacen(from, to, 1).into_bytes();
    let (table, key, expect) = (Table::Approvals, id.0.to_vec(), Expect::Version(row.version));
    block_on(store.commit(vec![Write { table, key, expect, value, revokes: false }])).unwrap();
}

#[test]
fn a_request_that_was_changed_in_the_store_is_refused() {
    let (_dir, scene) = scene(two_demanded());
    let vault = &scene.vault;
    for (from, to) in [
        ("\"tenant\":\"acme\"", "\"tenant\":\"globex\""),
        ("\"required\":2", "\"required\":1"),
        ("set up for a test", "set up for a tent"),
        ("destroys all keys", "destroys no keys"),
        ("operator/alice\"", "operator/alive\""),
        ("\"v\":2,", ""),
    ] {
        let asked = ask_tenant(vault);
        alter(vault, asked.id, from, to);
        let seen = Seen { request_sha256: asked.request_sha256, subject: None };
        let about = tenant(if to.contains("globex") { "globex" } else { "acme" });
        let refused = block_on(vault.approve(&call(&operator("bob"), &because()), (&about, asked.id), seen));
        assert!(matches!(refused, Err(Error::Corrupt { .. })), "{to}: {refused:?}");
        scene.later(1);
    }
    assert_eq!(state(vault), TenantState::Active);
    // Who saw something else approves nothing.
    let asked = ask_tenant(vault);
    let other = Approval { request_sha256: Fingerprint([0; 32]), ..asked };
    let refused = approve(vault, "bob", &other);
    assert!(matches!(refused, Err(Error::Invalid { field, .. }) if field == "request_sha256"));
}

#[test]
fn a_scheduled_request_whose_votes_were_made_up_is_not_carried_out() {
    let (_dir, scene) = scene(ApprovalSettings { required: 2, ..delayed() });
    let vault = &scene.vault;
    let asked = ask_tenant(vault);
    approve(vault, "bob", &asked).unwrap();
    alter(vault, asked.id, "\"state\":\"pending\"", "\"state\":\"scheduled\",\"scheduled\":1");
    assert_eq!(block_on(vault.tend(|| true)).unwrap().failed, 1);
    assert_eq!(state(vault), TenantState::Active);
}

#[test]
fn a_request_that_expired_is_refused_and_the_log_says_so_once() {
    let (dir, scene) = scene(two_demanded());
    let vault = &scene.vault;
    let asked = ask_tenant(vault);
    approve(vault, "bob", &asked).unwrap();
    scene.later(10 * MINUTE - 1);
    block_on(vault.tend(|| true)).unwrap();
    assert_eq!(found(vault, &asked).state, ApprovalState::Pending);
    scene.later(1);
    assert!(fails(approve(vault, "carol", &asked)).contains("expired"));
    assert!(fails(cancel(vault, "alice", &asked)).contains("expired"));
    for _ in 0..3 {
        block_on(vault.tend(|| true)).unwrap();
    }
    assert_eq!(found(vault, &asked).state, ApprovalState::Expired);
    assert_eq!(state(vault), TenantState::Active);
    let expected = ["asked for", "approval_voting", "voted for", "approval_expired"];
    assert_eq!(logged(dir.path(), scene.vault, &asked), expected);
}

#[test]
fn of_many_who_approve_at_the_same_time_just_enough_carry_it_out_once() {
    for required in [1, 2] {
        let (dir, scene) = scene(ApprovalSettings { required, ..ApprovalSettings::default() });
        let vault = &scene.vault;
        let asked = ask_tenant(vault);
        let names = ["bob", "carol", "dora", "emil"];
        let done = thread::scope(|scope| {
            let threads = names.map(|who| {
                scope.spawn({
                    let asked = &asked;
                    move || approve(vault, who, asked)
                })
            });
            threads.map(|thread| thread.join().unwrap())
        });
        let good: Vec<_> = done.iter().filter_map(|done| done.as_ref().ok()).collect();
        assert_eq!(good.len(), usize::from(required), "{done:?}");
        assert!(done.iter().all(|done| done.is_ok() || matches!(done, Err(Error::FailedPrecondition(_)))), "{done:?}");
        let found = found(vault, &asked);
        assert_eq!((found.state, found.votes.len()), (ApprovalState::Executed, usize::from(required)));
        let shredded = |events: Vec<String>| events.iter().filter(|event| *event == "approved").count();
        assert_eq!(shredded(logged(dir.path(), scene.vault, &asked)), 1);
    }
}

#[test]
fn a_suspension_is_lifted_by_approval_alone_and_only_of_the_tenant_as_it_was() {
    let (dir, scene) = scene(ApprovalSettings::default());
    let vault = &scene.vault;
    let target = to("acme", "orders", "billing");
    let envelope = seal(vault, &target);
    let (alice, reason, acme) = (operator("alice"), because(), tenant("acme"));
    let ask = |revision| block_on(vault.resume_tenant(&call(&alice, &reason), &acme, revision));
    assert!(fails(ask(None)).contains("not suspended"));
    let suspended = block_on(vault.suspend_tenant(&call(&operator("dora"), &reason), &acme, None)).unwrap();
    assert_eq!(ask(Some(suspended.revision - 1)).unwrap_err(), Error::Conflict("tenant"));
    let asked = ask(Some(suspended.revision)).unwrap();
    assert_eq!(
        asked.summary,
        [
            format!("lifts the suspension of tenant acme, which is at revision {}", suspended.revision),
            format!("suspended since 2027-01-15T08:00:00.000Z by {}", operator("dora").spiffe_id()),
        ]
    );
    let denied = || open(vault, &target, &envelope);
    assert_eq!(denied(), Err(Error::Denied(Check::Suspended)));
    let early = ask(None).unwrap();
    // The key is rotated meanwhile: it is another tenant now.
    block_on(vault.rotate_tenant_key(&call(&alice, &reason), &acme, None)).unwrap();
    assert!(fails(approve(vault, "bob", &early)).contains("has changed"));
    assert!(fails(approve(vault, "bob", &asked)).contains("has changed"));
    assert_eq!((state(vault), denied()), (TenantState::Suspended, Err(Error::Denied(Check::Suspended))));
    let again = ask(None).unwrap();
    let done = approve(vault, "bob", &again).unwrap();
    assert_eq!((done.state, state(vault)), (ApprovalState::Executed, TenantState::Active));
    open(vault, &target, &envelope).unwrap();
    // Suspended again, the old approval is worth nothing.
    block_on(vault.suspend_tenant(&call(&alice, &reason), &acme, None)).unwrap();
    assert!(fails(approve(vault, "carol", &again)).contains("decided"));
    assert_eq!(state(vault), TenantState::Suspended);
    assert_eq!(logged(dir.path(), scene.vault, &again), ["asked for", "approving", "approved"]);
}

#[test]
fn a_shred_waits_for_its_time_and_a_cancelled_one_leaves_the_keys_usable() {
    let (dir, scene) = scene(delayed());
    let vault = &scene.vault;
    let target = to("acme", "orders", "billing");
    let envelope = seal(vault, &target);
    let asked = ask_tenant(vault);
    assert!(
        asked.summary.contains(&"carried out 30 min after it is approved, unless it is cancelled until then".into())
    );
    let done = approve(vault, "bob", &asked).unwrap();
    assert_eq!((done.state, done.scheduled), (ApprovalState::Scheduled, Some(NOW.plus_millis(30 * MINUTE))));
    assert!(fails(approve(vault, "carol", &asked)).contains("decided"));
    scene.later(30 * MINUTE - 1);
    block_on(vault.tend(|| true)).unwrap();
    open(vault, &target, &envelope).unwrap();
    // Neither who asked nor who approved.
    let cancelled = cancel(vault, "carol", &asked).unwrap();
    assert_eq!(cancelled.state, ApprovalState::Cancelled);
    assert_eq!(cancelled.decided_by.as_deref(), Some(operator("carol").spiffe_id()));
    assert!(fails(cancel(vault, "carol", &asked)).contains("decided"));
    scene.later(60 * MINUTE);
    block_on(vault.tend(|| true)).unwrap();
    open(vault, &target, &envelope).unwrap();
    seal(vault, &target);
    assert_eq!((state(vault), found(vault, &asked).state), (TenantState::Active, ApprovalState::Cancelled));
    let expected = ["asked for", "approval_scheduling", "scheduled", "approval_cancelling", "cancelled"];
    assert_eq!(logged(dir.path(), scene.vault, &asked), expected);
}

#[test]
fn a_scheduled_shred_is_carried_out_once_when_its_time_has_come() {
    let (dir, scene) = scene(delayed());
    let target = to("acme", "orders", "billing");
    let envelope = seal(&scene.vault, &target);
    let (asked, twin) = (ask_tenant(&scene.vault), ask_tenant(&scene.vault));
    approve(&scene.vault, "bob", &asked).unwrap();
    scene.later(1);
    approve(&scene.vault, "bob", &twin).unwrap();
    // By whoever is there.
    scene.vault.close().unwrap();
    let reopened = Scene::open(dir.path());
    reopened.clock.advance_millis(30 * MINUTE);
    let vault = &reopened.vault;
    open(vault, &target, &envelope).unwrap();
    let tended = block_on(vault.tend(|| true)).unwrap();
    assert_eq!(tended.failed, 0);
    let done = found(vault, &asked);
    assert_eq!(done.state, ApprovalState::Executed);
    assert!(done.receipt.is_some_and(|receipt| receipt.contains("tenant: acme")));
    assert_eq!(open(vault, &target, &envelope), Err(Error::Unopenable));
    // What nothing is left for is taken back by the vault itself.
    reopened.later(1);
    block_on(vault.tend(|| true)).unwrap();
    let moot = found(vault, &twin);
    assert_eq!((moot.state, moot.decided_by), (ApprovalState::Cancelled, None));
    assert!(fails(cancel(vault, "carol", &asked)).contains("decided"));
    let expected = ["asked for", "approval_scheduling", "scheduled", "approving"];
    assert_eq!(logged(dir.path(), reopened.vault, &asked), expected);
}

#[test]
fn a_list_holds_what_waits_for_the_caller_or_is_in_a_state() {
    let (_dir, scene) = scene(two_demanded());
    let vault = &scene.vault;
    let asked: Vec<Approval> = (0..4)
        .map(|_| {
            scene.later(1);
            ask_tenant(vault)
        })
        .collect();
    approve(vault, "bob", &asked[1]).unwrap();
    block_on(vault.reject(&call(&operator("bob"), &because()), &tenant("acme"), asked[2].id)).unwrap();
    let find = |who: &str, wanted, after, limit| {
        let found = block_on(vault.find_approvals(&call(&operator(who), &because()), wanted, after, limit));
        let (found, next) = found.unwrap();
        (found.iter().map(|found| found.id).collect::<Vec<_>>(), next)
    };
    let ids: Vec<ApprovalId> = asked.iter().map(|asked| asked.id).collect();
    let mine = Wanted { for_me: true, ..Wanted::default() };
    assert_eq!(find("alice", mine, None, 9), (vec![], None));
    assert_eq!(find("bob", mine, None, 9), (vec![ids[0], ids[3]], None));
    assert_eq!(find("carol", mine, None, 9), (vec![ids[0], ids[1], ids[3]], None));
    let rejected = Wanted { state: Some(ApprovalState::Rejected), ..Wanted::default() };
    assert_eq!(find("carol", rejected, None, 9), (vec![ids[2]], None));
    let (first, next) = find("carol", mine, None, 2);
    assert_eq!(first, ids[..2]);
    assert_eq!(find("carol", mine, next, 2), (vec![ids[3]], None));
    scene.later(10 * MINUTE);
    assert_eq!(find("carol", mine, None, 9), (vec![], None), "expired");
}

#[test]
fn a_summary_says_what_changes_and_names_no_subject() {
    let (_dir, scene) = scene(ApprovalSettings::default());
    let vault = &scene.vault;
    let (alice, reason, acme) = (operator("alice"), because(), tenant("acme"));
    let target = Target { subject: Some(Subject::parse("mia-1987").unwrap()), ..to("acme", "orders", "billing") };
    seal(vault, &target);
    seal(vault, &to("acme", "customers", "billing"));
    let subject = Subject::parse("mia-1987").unwrap();
    let asked = block_on(vault.shred_subject(&call(&alice, &reason), &acme, &subject)).unwrap();
    assert_eq!(
        asked.summary,
        [
            "destroys all data keys of one subject of tenant acme, in all datasets, for ever",
            "data keys, all versions: 1",
            "tenant key versions up to 1 are destroyed 7 d later, once rotated away from",
        ]
    );
    let asked = ask_tenant(vault);
    assert_eq!(
        asked.summary,
        [
            "destroys all keys of tenant acme, for ever; the name is not used again",
            "data keys, all versions: 2",
            "tenant key versions: all, 1 to 1",
        ]
    );
}

#[test]
fn a_request_of_an_earlier_version_is_read_and_rejected_but_not_approved() {
    let (_dir, scene) = scene(ApprovalSettings::default());
    let vault = &scene.vault;
    let asked = ask_tenant(vault);
    // Its row as version 1 wrote it, with that version's hash.
    let id = ApprovalId([1; 16]);
    let part = |text: &str| [&u16::try_from(text.len()).unwrap().to_be_bytes()[..], text.as_bytes()].concat();
    let numbers = [asked.requested, asked.expires].map(|at| at.0.to_be_bytes());
    let hash = crate::crypto::sha256(&[
        b"blindvault/approval/v1\0",
        &id.0,
        &["ShredTenant", "acme", "", "because", &asked.requester].map(part).concat(),
        &numbers.concat(),
    ]);
    let hash = Fingerprint(hash);
    let value = format!(
        r#"{{"tenant":"acme","reason":"because","requester":"{}","requested":{},"expires":{},"request_sha256":"{hash}","state":"pending"}}"#,
        asked.requester, asked.requested.0, asked.expires.0
    );
    let write = Write {
        table: Table::Approvals,
        key: id.0.to_vec(),
        expect: Expect::Absent,
        value: value.into_bytes(),
        revokes: false,
    };
    block_on(vault.keys.store().commit(vec![write])).unwrap();
    let first = found(vault, &Approval { id, ..asked });
    assert_eq!((first.state, first.required, first.request_sha256), (ApprovalState::Pending, 1, hash));
    assert!(fails(approve(vault, "bob", &first)).contains("earlier version"));
    let rejected = block_on(vault.reject(&call(&operator("bob"), &because()), &tenant("acme"), id)).unwrap();
    assert_eq!(rejected.state, ApprovalState::Rejected);
}

#[test]
fn a_newer_backup_takes_back_what_was_cancelled_since_an_older_one() {
    use crate::keys::is_tombstone;
    let (_dir, scene) = scene(delayed());
    let vault = &scene.vault;
    let [cancelled, scheduled] = [0, 1].map(|_| {
        scene.later(1);
        let asked = ask_tenant(vault);
        approve(vault, "bob", &asked).unwrap();
        asked
    });
    cancel(vault, "carol", &cancelled).unwrap();
    let row =
        |asked: &Approval| block_on(vault.keys.store().get(Table::Approvals, &asked.id.0)).unwrap().unwrap().value;
    assert!(is_tombstone(Table::Approvals, &row(&cancelled)));
    assert!(!is_tombstone(Table::Approvals, &row(&scheduled)));
}
