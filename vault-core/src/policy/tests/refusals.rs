//! Each way to be refused, and what the refusal says inside and outside.

use super::*;
use crate::error::Check;
use crate::id::Subject;
use crate::principal::Operator;

const ALLOW_ALL: &str = "@id(\"all\") permit (principal, action, resource);\n";

fn why<A: Action>(result: Result<Permit<A>, Refusal>) -> (Check, &'static str, Vec<String>) {
    let Err(refusal) = result else { panic!("must be refused") };
    assert_eq!(Error::from(&refusal), Error::Denied(refusal.check));
    (refusal.check, refusal.reason, refusal.decision.policies)
}

#[test]
fn a_permit_carries_what_was_asked_and_ends_with_the_certificate() {
    let authorizer = baseline();
    let mut request = ask("acme");
    request.subject = Some(Subject::parse("alice@example.com").unwrap());
    let permit = data::<Decrypt>(&authorizer, BILLING, request.clone()).unwrap();
    let decision = permit.decision();
    assert_eq!(decision.principal, BILLING);
    assert_eq!(decision.action, "Decrypt");
    assert_eq!((decision.request, decision.at, decision.epoch), (request.request, NOW, 1));
    assert_eq!(decision.policies, ["workload-decrypt"]);
    assert_eq!(permit.resource().tenant, Some(request.tenant.clone()));
    assert_eq!(permit.resource().dataset, Some(request.dataset.clone()));
    assert_eq!(permit.resource().subject, request.subject);
    assert_eq!(permit.resource().purpose, Some(request.purpose.clone()));
    assert_eq!(permit.valid_until(), NOW.plus_millis(PERMIT_LIFETIME_MILLIS));

    let who = Workload::for_test(BILLING);
    // A certificate holds to the end of its last second, and so does the permit.
    let end = Timestamp((who.not_after().secs() + 1) * 1_000);
    let just_before = Timestamp(end.0 - 1);
    let permit = authorizer.authorize_data::<Decrypt>(&who, request, Some(&facts()), just_before).unwrap();
    assert_eq!(permit.valid_until(), end);
}

#[test]
fn an_expired_certificate_is_refused_first() {
    let (authorizer, workload, operator) = (baseline(), Workload::for_test(BILLING), Operator::for_test(ALICE));
    let expired = workload.not_after().plus_millis(1_000);
    let refused = why(authorizer.authorize_data::<Decrypt>(&workload, ask("acme"), Some(&facts()), expired));
    assert_eq!(refused, (Check::Identity, "the certificate is not valid now", vec![]));
    let request = ControlRequest {
        tenant: None,
        dataset: None,
        subject: None,
        reason: None,
        custody: None,
        request: RequestId([0; 16]),
    };
    let expired = operator.not_after().plus_millis(1_000);
    let refused = why(authorizer.authorize_control::<ListTenants>(&operator, request, expired));
    assert_eq!(refused.0, Check::Identity);
}

#[test]
fn the_registry_guards_whatever_the_policies_say() {
    let authorizer = Authorizer::new(set(ALLOW_ALL), registry(REGISTRY));
    assert!(data::<Decrypt>(&authorizer, BILLING, ask("acme")).is_ok());
    assert_eq!(why(data::<Decrypt>(&authorizer, BILLING, ask("initech"))).0, Check::Registry);
    for stranger in [
        "spiffe://prod.example/ns/shop/sa/Billing",
        "spiffe://prod.example/ns/shop/sa/billing2",
        "spiffe://prod.example.evil/ns/shop/sa/billing",
        ALICE,
    ] {
        let refused = why(data::<Decrypt>(&authorizer, stranger, ask("acme")));
        assert_eq!((refused.0, refused.1), (Check::Registry, "the workload is in no registry entry"), "{stranger}");
    }
    // These no certificate's identity can be; the registry does not rely on it.
    for odd in ["sa/billing/", "sa/b\u{456}lling", "sa//billing", "sa/billing\0", "sa/./billing"] {
        assert!(registry(REGISTRY).find(&format!("spiffe://prod.example/ns/shop/{odd}")).is_none(), "{odd:?}");
    }
    assert!(registry(REGISTRY).find("spiffe://PROD.example/ns/shop/sa/billing").is_none());
    let empty = Authorizer::new(set(ALLOW_ALL), Registry::empty());
    assert_eq!(why(data::<Decrypt>(&empty, BILLING, ask("acme"))).0, Check::Registry);
}

#[test]
fn what_does_not_exist_looks_like_what_is_not_allowed() {
    let (authorizer, who) = (baseline(), Workload::for_test("spiffe://prod.example/ns/shop/sa/signup"));
    let outside = |facts: Option<&Facts>| {
        let refusal = authorizer.authorize_data::<Decrypt>(&who, ask("acme"), facts, NOW).unwrap_err();
        Error::from(&refusal).to_string()
    };
    let (mut gone, mut suspended) = (facts(), facts());
    gone.dataset = None;
    assert_eq!(outside(Some(&facts())), "denied by policy");
    assert_eq!(outside(Some(&gone)), "denied by policy");
    assert_eq!(outside(None), "denied by policy");
    // And a suspended tenant's datasets do not show.
    suspended.suspended = true;
    gone.suspended = true;
    assert_eq!(outside(Some(&suspended)), "denied by suspended");
    assert_eq!(outside(Some(&gone)), "denied by suspended");
}

#[test]
fn an_empty_set_denies_everything() {
    let authorizer = Authorizer::new(PolicySet::load(BASELINE_SCHEMA, &[]).unwrap(), registry(REGISTRY));
    let refused = (Check::Policy, "no policy permits", vec![]);
    assert_eq!(why(data::<Encrypt>(&authorizer, BILLING, ask("acme"))), refused);
    let request = ControlRequest {
        tenant: None,
        dataset: None,
        subject: None,
        reason: None,
        custody: None,
        request: RequestId([0; 16]),
    };
    let operator = Operator::for_test(ALICE);
    assert_eq!(why(authorizer.authorize_control::<ListTenants>(&operator, request, NOW)), refused);
}

#[test]
fn a_forbid_that_cannot_be_evaluated_denies() {
    let overflow = "@id(\"f\") forbid (principal, action in Vault::Action::\"Data\", resource) \
                    when { context.items * 9223372036854775807 < 0 };";
    let authorizer = Authorizer::new(set(&format!("{ALLOW_ALL}{overflow}")), registry(REGISTRY));
    let mut request = ask("acme");
    assert!(data::<Decrypt>(&authorizer, BILLING, request.clone()).is_ok(), "1 × the largest number is no overflow");
    request.items = 2;
    let refused = (Check::Policy, "a policy could not be evaluated", vec!["f".to_owned()]);
    assert_eq!(why(data::<Decrypt>(&authorizer, BILLING, request.clone())), refused);
    // A permit that fails denies too, though another permits.
    let overflow = overflow.replace("forbid", "permit");
    let authorizer = Authorizer::new(set(&format!("{ALLOW_ALL}{overflow}")), registry(REGISTRY));
    assert_eq!(why(data::<Decrypt>(&authorizer, BILLING, request)), refused);
}

#[test]
fn a_forbid_says_its_name() {
    let forbids = "@id(\"z\") forbid (principal, action, resource) when { context has purpose };\n\
                   @id(\"b\") forbid (principal, action == Vault::Action::\"Decrypt\", resource) \
                   when { context.purpose == \"billing\" && context.now > datetime(\"2026-01-01\") };";
    let authorizer = Authorizer::new(set(&format!("{ALLOW_ALL}{forbids}")), registry(REGISTRY));
    let refused = why(data::<Decrypt>(&authorizer, BILLING, ask("acme")));
    assert_eq!(refused, (Check::Policy, "a policy forbids", vec!["b".to_owned(), "z".to_owned()]));
    assert_eq!(why(data::<Encrypt>(&authorizer, BILLING, ask("acme"))).2, ["z"]);
}

#[test]
fn policies_see_what_is_known_of_the_dataset_and_the_workload() {
    let permit = "@id(\"p\") permit (principal is Vault::Workload, action, resource is Vault::Dataset) when {
        principal.service == \"billing\" && principal.environment == \"production\" &&
        resource has classification && resource.classification == \"pii\" &&
        resource has residency && resource.residency == \"eu\" &&
        context has hasSubject && context.hasSubject && context.items == 3 };";
    let authorizer = Authorizer::new(set(permit), registry(REGISTRY));
    let mut request = ask("acme");
    request.items = 3;
    request.subject = Some(Subject::parse("s").unwrap());
    let described =
        DatasetFacts { classification: Some("pii".into()), residency: Some("eu".into()), ..DatasetFacts::default() };
    let who = Workload::for_test(BILLING);
    let with = |facts: DatasetFacts| {
        let facts = Facts { suspended: false, dataset: Some(facts) };
        authorizer.authorize_data::<Decrypt>(&who, request.clone(), Some(&facts), NOW).is_ok()
    };
    assert!(with(described.clone()));
    assert!(!with(DatasetFacts { residency: Some("us".into()), ..described.clone() }));
    assert!(!with(DatasetFacts { classification: None, ..described }));
}

#[test]
fn control_requests_reach_the_kind_of_resource_they_are_about() {
    let (authorizer, alice) = (baseline(), Operator::for_test(ALICE));
    let request = |tenant: Option<&str>, dataset: Option<&str>| ControlRequest {
        tenant: tenant.map(|t| TenantId::parse(t).unwrap()),
        dataset: dataset.map(|d| DatasetId::parse(d).unwrap()),
        subject: None,
        reason: None,
        custody: None,
        request: RequestId([0; 16]),
    };
    let acme = Some("acme");
    assert!(authorizer.authorize_control::<ListTenants>(&alice, request(None, None), NOW).is_ok());
    assert!(authorizer.authorize_control::<RotateDataKeys>(&alice, request(acme, None), NOW).is_ok());
    assert!(authorizer.authorize_control::<RotateDataKeys>(&alice, request(acme, Some("orders")), NOW).is_ok());
    assert!(authorizer.authorize_control::<CreateDataset>(&alice, request(acme, Some("orders")), NOW).is_ok());
    for refused in [
        why(authorizer.authorize_control::<ListTenants>(&alice, request(acme, None), NOW)),
        why(authorizer.authorize_control::<SuspendTenant>(&alice, request(None, None), NOW)),
        why(authorizer.authorize_control::<SuspendTenant>(&alice, request(acme, Some("orders")), NOW)),
        why(authorizer.authorize_control::<RotateDataKeys>(&alice, request(None, Some("orders")), NOW)),
    ] {
        assert_eq!(refused.0, Check::Policy);
    }
    let nobody = Operator::for_test("spiffe://operators.example/alice");
    assert!(authorizer.authorize_control::<ListTenants>(&nobody, request(None, None), NOW).is_err());
}

#[test]
fn only_what_makes_a_tenant_key_takes_a_custody() {
    let (authorizer, alice) = (baseline(), Operator::for_test(ALICE));
    let request = || ControlRequest {
        tenant: Some(TenantId::parse("acme").unwrap()),
        dataset: None,
        subject: None,
        reason: None,
        custody: Some(crate::custody::Custody::parse("split(local:a,local:b)").unwrap()),
        request: RequestId([0; 16]),
    };
    assert!(authorizer.authorize_control::<CreateTenant>(&alice, request(), NOW).is_ok());
    assert!(authorizer.authorize_control::<RotateTenantKey>(&alice, request(), NOW).is_ok());
    let refused = why(authorizer.authorize_control::<SuspendTenant>(&alice, request(), NOW));
    assert_eq!(refused, (Check::Policy, "the action takes no custody", Vec::new()));
}
