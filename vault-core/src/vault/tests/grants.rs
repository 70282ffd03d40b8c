//! Time-bound grants: asked for, approved, over, revoked.

use super::*;
use crate::id::{ApprovalId, GrantId};
use crate::keys::{Approval, ApprovalState, Grant, GrantOrder, Seen};

const DENIED: Result<(), Error> = Err(Error::Denied(Check::Policy));

fn order(workload_name: &str, name: &str) -> GrantOrder {
    GrantOrder {
        tenant: tenant("acme"),
        dataset: dataset(name),
        workload: workload(workload_name).spiffe_id().to_owned(),
        roles: vec!["reader".to_owned()],
        until: NOW.plus_millis(60_000),
    }
}

fn ask(vault: &Vault, order: GrantOrder) -> Result<Approval, Error> {
    block_on(vault.request_grant(&call(&operator("alice"), &because()), order))
}

fn approve(vault: &Vault, who: &str, asked: &Approval) -> Result<Approval, Error> {
    let seen = Seen { request_sha256: asked.request_sha256, subject: None };
    block_on(vault.approve(&call(&operator(who), &because()), (&tenant("acme"), asked.id), seen))
}

fn revoke(vault: &Vault, id: GrantId) -> Result<Grant, Error> {
    block_on(vault.revoke_grant(&call(&operator("alice"), &because()), &tenant("acme"), id))
}

fn list(vault: &Vault, of: &str) -> Vec<Grant> {
    block_on(vault.list_grants(&call(&operator("alice"), &because()), &tenant(of), None, 100)).unwrap()
}

#[test]
fn a_grant_takes_two_operators_and_is_made_as_it_was_asked_for() {
    let (_dir, scene) = Scene::new();
    let vault = &scene.vault;
    let [orders, customers] = ["orders", "customers"].map(|name| to("acme", name, "billing"));
    let [in_orders, in_customers] = [&orders, &customers].map(|target| seal(vault, target));
    let read = || open_as(vault, "signup", &orders, &in_orders);
    let asked = ask(vault, order("signup", "orders")).unwrap();
    assert_eq!(asked.state, ApprovalState::Pending);
    assert_eq!(asked.ordered.grant(), Some(&order("signup", "orders")));
    assert_eq!(read(), DENIED);
    let own = Error::FailedPrecondition("nobody approves what they asked for; another operator must");
    assert_eq!(approve(vault, "alice", &asked).unwrap_err(), own);
    let other = ask(vault, GrantOrder { roles: vec!["writer".to_owned()], ..order("signup", "orders") }).unwrap();
    let swapped = Approval { request_sha256: other.request_sha256, ..asked.clone() };
    let refused = approve(vault, "bob", &swapped).unwrap_err();
    assert!(matches!(refused, Error::Invalid { field, .. } if field == "request_sha256"));
    assert_eq!((read(), list(vault, "acme")), (DENIED, vec![]));
    let done = approve(vault, "bob", &asked).unwrap();
    assert_eq!((done.state, done.receipt), (ApprovalState::Executed, None));
    read().unwrap();
    // It is for this dataset, this workload, these roles; and it is no consent.
    assert_eq!(open_as(vault, "signup", &customers, &in_customers), DENIED);
    assert_eq!(open_as(vault, "portal", &orders, &in_orders), DENIED);
    let approved = Error::FailedPrecondition("the approval has been decided");
    assert_eq!(approve(vault, "bob", &asked).unwrap_err(), approved);
    let made = list(vault, "acme");
    assert_eq!(made.len(), 1);
    assert_eq!((ApprovalId(made[0].id.0), &made[0].order), (asked.id, &order("signup", "orders")));
    assert!(made[0].requester.ends_with("/alice") && made[0].approver.ends_with("/bob"));
    assert_eq!((&made[0].request_sha256, list(vault, "globex")), (&asked.request_sha256, vec![]));
    // It ends early, for ever, at once.
    let revoked = revoke(vault, made[0].id).unwrap();
    assert!(revoked.revoked.as_ref().unwrap().by.ends_with("/alice"));
    assert_eq!(read(), DENIED);
    assert_eq!(revoke(vault, made[0].id).unwrap(), revoked);
    assert_eq!(list(vault, "acme"), [revoked]);
    assert_eq!(revoke(vault, GrantId([1; 16])).unwrap_err(), Error::NotFound("grant"));
}

#[test]
fn it_ends_by_itself_and_is_not_made_once_it_would_be_over() {
    let (dir, scene) = Scene::new();
    let vault = &scene.vault;
    let target = to("acme", "orders", "billing");
    let envelope = seal(vault, &target);
    let asked = ask(vault, order("signup", "orders")).unwrap();
    let late = ask(vault, order("signup", "orders")).unwrap();
    approve(vault, "bob", &asked).unwrap();
    scene.later(59_999);
    open_as(vault, "signup", &target, &envelope).unwrap();
    scene.later(1);
    assert_eq!(open_as(vault, "signup", &target, &envelope), DENIED);
    let over = Error::FailedPrecondition("the grant would have ended by now; ask again");
    assert_eq!(approve(vault, "bob", &late).unwrap_err(), over);
    assert_eq!(list(vault, "acme").len(), 1);
    scene.vault.close().unwrap();
    let scene = Scene::open(dir.path());
    open_as(&scene.vault, "signup", &target, &envelope).unwrap();
}

#[test]
fn a_grant_does_not_pass_the_registry_and_destroys_nothing() {
    let (_dir, scene) = Scene::new();
    let vault = &scene.vault;
    let target = to("acme", "orders", "billing");
    let envelope = seal(vault, &target);
    let foreign = Workload::for_test("spiffe://prod.example/ns/other/sa/globex-app");
    let given = GrantOrder { workload: foreign.spiffe_id().to_owned(), ..order("signup", "orders") };
    approve(vault, "bob", &ask(vault, given).unwrap()).unwrap();
    let request = DecryptRequest { target: &target, context: &context(), envelope: &envelope };
    let refused = block_on(vault.decrypt(&foreign, request)).map(drop);
    assert_eq!(refused, Err(Error::Denied(Check::Registry)));
    open(vault, &target, &envelope).unwrap();
    let tenant = block_on(vault.get_tenant(&call(&operator("alice"), &because()), &tenant("acme"))).unwrap();
    assert_eq!(tenant.state, crate::keys::TenantState::Active);
}

#[test]
fn what_cannot_be_granted_is_not_asked_for() {
    let (_dir, scene) = Scene::new();
    let vault = &scene.vault;
    let field = |order| match ask(vault, order) {
        Err(Error::Invalid { field, .. }) => field,
        other => panic!("{other:?}"),
    };
    assert_eq!(field(GrantOrder { workload: "signup".into(), ..order("signup", "orders") }), "workload");
    assert_eq!(field(GrantOrder { until: NOW, ..order("signup", "orders") }), "until");
    assert_eq!(field(GrantOrder { roles: vec!["Reader".into()], ..order("signup", "orders") }), "roles[0]");
    assert_eq!(ask(vault, order("signup", "elsewhere")).unwrap_err(), Error::NotFound("dataset"));
    let nobody = GrantOrder { tenant: tenant("nobody"), ..order("signup", "orders") };
    assert_eq!(ask(vault, nobody).unwrap_err(), Error::NotFound("tenant"));
    assert_eq!(block_on(vault.list_approvals(&call(&operator("alice"), &because()), None, 9)).unwrap(), []);
}
