//! What end users, consents and grants add to a decision.

use std::sync::Arc;

use super::*;
use crate::error::Check;
use crate::principal::EndUser;

/// Permits whatever the guards in front of it let through.
const ALLOW_ALL: &str = "@id(\"all\") permit (principal, action, resource);\n";
const SIGNUP: &str = "spiffe://prod.example/ns/shop/sa/signup";

fn ann(tenant: &str) -> Arc<EndUser> {
    Arc::new(EndUser::for_test("ann", tenant, Some(NOW.plus_millis(60_000))))
}

fn consent(byte: u8, purpose: &str, until: Option<Timestamp>) -> ConsentFacts {
    let purposes = vec![Purpose::parse(purpose).unwrap()];
    ConsentFacts { id: ConsentId([byte; 16]), purposes, from: Timestamp(0), until }
}

fn reader_until(until: Timestamp) -> GrantFacts {
    GrantFacts { id: GrantId([9; 16]), workload: SIGNUP.to_owned(), roles: vec!["reader".to_owned()], until }
}

fn with(dataset: DatasetFacts) -> Facts {
    Facts { suspended: false, dataset: Some(dataset) }
}

fn decrypt(
    authorizer: &Authorizer,
    who: &str,
    request: DataRequest,
    facts: &Facts,
) -> Result<Permit<Decrypt>, Refusal> {
    authorizer.authorize_data(&Workload::for_test(who), request, Some(facts), NOW)
}

#[test]
fn the_code_alone_refuses_what_policies_would_allow() {
    let authorizer = Authorizer::new(set(ALLOW_ALL), registry(REGISTRY));
    let check = |request: DataRequest, facts: &Facts| decrypt(&authorizer, BILLING, request, facts).unwrap_err().check;
    let of_another = DataRequest { end_user: Some(ann("globex")), ..ask("acme") };
    assert_eq!(check(of_another, &facts()), Check::EndUser);
    let expired = EndUser::for_test("ann", "acme", None).ending(NOW);
    let expired = DataRequest { end_user: Some(Arc::new(expired)), ..ask("acme") };
    assert_eq!(check(expired, &facts()), Check::EndUser);
    let mut demanding = DatasetFacts { consent_required: true, ..DatasetFacts::default() };
    assert_eq!(check(ask("acme"), &with(demanding.clone())), Check::Consent);
    demanding.consents = [consent(1, "marketing", None), consent(2, "billing", Some(NOW))].into();
    assert_eq!(check(ask("acme"), &with(demanding.clone())), Check::Consent);
    // What releases nothing needs none.
    let who = Workload::for_test(BILLING);
    assert!(authorizer.authorize_data::<Rewrap>(&who, ask("acme"), Some(&with(demanding)), NOW).is_ok());
    let consents = |user: Arc<EndUser>, tenant: &str| {
        let tenant = TenantId::parse(tenant).unwrap();
        let request = ConsentRequest { tenant, end_user: user, request: RequestId([0; 16]) };
        authorizer.authorize_consent::<GrantConsent>(&who, request, NOW).map_err(|refusal| refusal.check)
    };
    assert!(consents(ann("acme"), "acme").is_ok());
    assert_eq!(consents(ann("globex"), "acme").unwrap_err(), Check::EndUser);
    assert_eq!(consents(ann("initech"), "initech").unwrap_err(), Check::Registry);
    let without = Arc::new(EndUser::for_test("ann", "acme", None));
    assert_eq!(consents(without, "acme").unwrap_err(), Check::EndUser);
}

#[test]
fn a_permit_names_consent_grant_and_end_user_and_ends_with_the_first_of_them() {
    let authorizer = baseline();
    let dataset = |consent_until, grant_until| DatasetFacts {
        consent_required: true,
        consents: [consent(1, "marketing", None), consent(2, "billing", consent_until)].into(),
        grants: [reader_until(grant_until)].into(),
        ..DatasetFacts::default()
    };
    let (soon, later) = (NOW.plus_millis(10), NOW.plus_millis(20));
    for (consent_until, grant_until, user_until) in [(soon, later, later), (later, soon, later), (later, later, soon)] {
        let user = EndUser::for_test("ann", "acme", None).ending(user_until);
        let request = DataRequest { end_user: Some(Arc::new(user)), ..ask("acme") };
        let permit = decrypt(&authorizer, SIGNUP, request, &with(dataset(Some(consent_until), grant_until))).unwrap();
        assert_eq!(permit.valid_until(), soon);
        let decision = permit.decision();
        assert_eq!(decision.policies, ["workload-decrypt"]);
        assert_eq!((decision.consent, &decision.grants[..]), (Some(ConsentId([2; 16])), &[GrantId([9; 16])][..]));
        assert_eq!(decision.end_user.as_ref().unwrap().subject().as_str(), "ann");
    }
    // Without the grant the same workload may not; with one that has just ended neither.
    let refused = |grants: Arc<[GrantFacts]>| {
        let facts = with(DatasetFacts { grants, ..DatasetFacts::default() });
        decrypt(&authorizer, SIGNUP, ask("acme"), &facts).unwrap_err().check
    };
    assert_eq!(refused(Arc::new([])), Check::Policy);
    assert_eq!(refused([reader_until(NOW)].into()), Check::Policy);
    assert_eq!(refused([GrantFacts { workload: BILLING.to_owned(), ..reader_until(later) }].into()), Check::Policy);
}

#[test]
fn policies_see_what_the_token_proves() {
    let permit = "@id(\"p\") permit (principal is Vault::Workload, action in Vault::Action::\"Data\", resource)
        when { context has endUser && context.endUser.issuer == \"https://id.example\" &&
        context.endUser.subject == \"ann\" &&
        context.endUser.mfa && context.endUser.mfaFresh && !(context.endUser has acr) && !(context.endUser has authAge) };";
    let authorizer = Authorizer::new(set(permit), registry(REGISTRY));
    let asked = |end_user| decrypt(&authorizer, BILLING, DataRequest { end_user, ..ask("acme") }, &facts()).is_ok();
    assert!(asked(Some(ann("acme"))));
    assert!(!asked(None));
    assert!(!asked(Some(Arc::new(EndUser::for_test("bob", "acme", Some(NOW.plus_millis(1)))))));
    assert!(!asked(Some(Arc::new(EndUser::for_test("ann", "acme", Some(NOW))))));
}
