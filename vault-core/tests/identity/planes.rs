//! The two planes: what names a service never names a person, and the other way round.

use std::time::Duration;

use rcgen::{DnType, SanType, date_time_ymd};
use vault_core::Error;
use vault_core::principal::{IdentityError, Operator, OperatorBundle, TrustDomain, Workload, check_planes_apart};

use crate::pki::Ca;
use crate::{ALICE, BILLING, NOW, OPERATORS, WORKLOADS, operator, operator_bundle, workload, workload_bundle};

#[test]
fn an_operator_is_proven_by_the_operators_root() {
    let alice = operator(&OPERATORS.intermediate().leaf(ALICE)).unwrap();
    assert_eq!(alice.spiffe_id(), ALICE);
    assert_eq!(alice.id().segments().collect::<Vec<_>>(), ["operator", "alice"]);
    assert!(alice.valid_at(NOW) && !alice.valid_at(alice.not_after().plus_millis(1000)));
}

#[test]
fn an_operator_certificate_is_no_workload() {
    let leaf = OPERATORS.leaf(ALICE);
    assert_eq!(workload(&leaf).unwrap_err(), IdentityError::WrongTrustDomain);
    let posing = OPERATORS.leaf(BILLING);
    assert_eq!(workload(&posing).unwrap_err(), IdentityError::UnknownIssuer);
}

#[test]
fn a_workload_certificate_is_no_operator() {
    assert_eq!(operator(&WORKLOADS.1.leaf(BILLING)).unwrap_err(), IdentityError::WrongTrustDomain);
    assert_eq!(operator(&WORKLOADS.1.leaf(ALICE)).unwrap_err(), IdentityError::UnknownIssuer);
}

#[test]
fn an_operator_path_under_the_workload_root() {
    for path in ["operator/alice", "operator", "Operator/alice", "OPERATOR/alice", "oPeRaToR/a/b"] {
        let leaf = WORKLOADS.1.leaf(&format!("spiffe://prod.example/{path}"));
        assert_eq!(workload(&leaf).unwrap_err(), IdentityError::OperatorPath, "{path}");
    }
    for path in ["operators/alice", "ns/operator", "x-operator/alice"] {
        assert!(workload(&WORKLOADS.1.leaf(&format!("spiffe://prod.example/{path}"))).is_ok(), "{path}");
    }
}

#[test]
fn an_operator_domain_under_the_workload_root() {
    assert_eq!(workload(&WORKLOADS.1.leaf(ALICE)).unwrap_err(), IdentityError::WrongTrustDomain);
}

#[test]
fn a_human_certificate_under_the_workload_root() {
    let email = || SanType::Rfc822Name("alice@prod.example".try_into().unwrap());
    let classic = WORKLOADS.1.leaf_with(BILLING, |p| {
        p.distinguished_name.push(DnType::CommonName, "Alice Example");
        p.subject_alt_names = vec![email()];
    });
    assert_eq!(workload(&classic).unwrap_err(), IdentityError::EmailAddress);
    let disguised = WORKLOADS.1.leaf_with(BILLING, |p| p.subject_alt_names.push(email()));
    assert_eq!(workload(&disguised).unwrap_err(), IdentityError::EmailAddress);
    let named = WORKLOADS.1.leaf_with(BILLING, |p| {
        p.distinguished_name.push(DnType::CommonName, "Alice Example");
        p.subject_alt_names.clear();
    });
    assert_eq!(workload(&named).unwrap_err(), IdentityError::NoUriSan);
}

#[test]
fn an_operators_path_is_exact() {
    for path in ["operator", "Operator/alice", "operators/alice", "operator/alice/x", "ns/operator/alice"] {
        let leaf = OPERATORS.leaf(&format!("spiffe://operators.example/{path}"));
        assert_eq!(operator(&leaf).unwrap_err(), IdentityError::NotOperatorPath, "{path}");
    }
}

#[test]
fn planes_that_share_a_trust_domain_or_a_root_are_refused() {
    let (workloads, operators) = (workload_bundle(&[&WORKLOADS.0]), operator_bundle(&[&OPERATORS]));
    assert_eq!(check_planes_apart(&workloads, &operators), Ok(()));

    let prod = TrustDomain::parse("prod.example").unwrap();
    let same_domain = OperatorBundle::new(prod, &[Ca::root("prod.example").certificate]).unwrap();
    let refused = check_planes_apart(&workloads, &same_domain);
    assert!(matches!(refused, Err(Error::Invalid { field, .. }) if field == "operators.trust_domain"));

    // One root without a SPIFFE ID of its own, trusted for both.
    let shared = Ca::root_with("prod.example", |p| p.subject_alt_names.clear());
    let both = (workload_bundle(&[&WORKLOADS.0, &shared]), operator_bundle(&[&OPERATORS, &shared]));
    let refused = check_planes_apart(&both.0, &both.1);
    assert!(matches!(refused, Err(Error::Invalid { field, .. }) if field == "operators.roots[1]"));
    assert!(Workload::verify(&shared.leaf(BILLING).chain, &both.0, NOW).is_ok());
    assert!(Operator::verify(&shared.leaf(ALICE).chain, &both.1, NOW).is_ok());
}

#[test]
fn a_certificate_issued_for_too_long() {
    // 48 hours, of which the last second is part.
    let leaf = OPERATORS.leaf_with(ALICE, |p| {
        (p.not_before, p.not_after) = (date_time_ymd(2030, 6, 14), date_time_ymd(2030, 6, 16));
    });
    let verify = |hours: Option<u64>| {
        let most = hours.map(|hours| Duration::from_secs(hours * 3600));
        Operator::verify(&leaf.chain, &operator_bundle(&[&OPERATORS]).with_max_lifetime(most), NOW).map(drop)
    };
    assert_eq!((verify(None), verify(Some(49)), verify(Some(48))), (Ok(()), Ok(()), Ok(())));
    assert_eq!(verify(Some(47)), Err(IdentityError::IssuedForTooLong));
}
