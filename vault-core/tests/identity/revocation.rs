//! Revocation lists: a bundle that has them refuses whatever they do not clear.

use rustls_pki_types::CertificateRevocationListDer;
use vault_core::Error;
use vault_core::principal::{IdentityError, UncoveredIssuers, Workload, WorkloadBundle};
use vault_core::time::Timestamp;

use crate::pki::Ca;
use crate::{BILLING, NOW, workload_bundle};

const TOMORROW: u64 = NOW.0 + 86_400_000;

struct Setup {
    root: Ca,
    intermediate: Ca,
}

impl Setup {
    fn new() -> Self {
        let root = Ca::root("prod.example");
        Self { intermediate: root.intermediate(), root }
    }

    fn bundle(&self, crls: &[CertificateRevocationListDer<'_>]) -> WorkloadBundle {
        workload_bundle(&[&self.root]).with_crls(crls).unwrap()
    }
}

#[test]
fn fresh_lists_that_name_neither_certificate() {
    let s = Setup::new();
    let leaf = s.intermediate.leaf(BILLING);
    let bundle = s.bundle(&[s.root.crl(&[leaf.serial], TOMORROW), s.intermediate.crl(&[999_999], TOMORROW)]);
    assert!(Workload::verify(&leaf.chain, &bundle, NOW).is_ok(), "another issuer's list does not revoke the serial");
    assert!(bundle.check(NOW).is_ok());
}

#[test]
fn revoked_leaf() {
    let s = Setup::new();
    let leaf = s.intermediate.leaf(BILLING);
    let bundle = s.bundle(&[s.root.crl(&[], TOMORROW), s.intermediate.crl(&[leaf.serial], TOMORROW)]);
    assert_eq!(Workload::verify(&leaf.chain, &bundle, NOW).unwrap_err(), IdentityError::Revoked);
    let other = s.intermediate.leaf(BILLING);
    assert!(Workload::verify(&other.chain, &bundle, NOW).is_ok());
}

#[test]
fn revoked_intermediate() {
    let s = Setup::new();
    let bundle = s.bundle(&[s.root.crl(&[s.intermediate.serial], TOMORROW), s.intermediate.crl(&[], TOMORROW)]);
    let leaf = s.intermediate.leaf(BILLING);
    assert_eq!(Workload::verify(&leaf.chain, &bundle, NOW).unwrap_err(), IdentityError::Revoked);
}

#[test]
fn stale_list() {
    let s = Setup::new();
    let leaf = s.intermediate.leaf(BILLING);
    let bundle = s.bundle(&[s.root.crl(&[], TOMORROW), s.intermediate.crl(&[], NOW.0)]);
    let just_before = Timestamp(NOW.0 - 1000);
    assert!(Workload::verify(&leaf.chain, &bundle, just_before).is_ok());
    assert!(bundle.check(just_before).is_ok());
    assert_eq!(Workload::verify(&leaf.chain, &bundle, NOW).unwrap_err(), IdentityError::StaleCrl);
    assert!(matches!(bundle.check(NOW), Err(Error::Invalid { field, .. }) if field == "crls[1]"));
}

#[test]
fn issuer_without_a_list() {
    let s = Setup::new();
    let leaf = s.intermediate.leaf(BILLING);
    let bundle = s.bundle(&[s.root.crl(&[], TOMORROW)]);
    assert_eq!(Workload::verify(&leaf.chain, &bundle, NOW).unwrap_err(), IdentityError::UnknownRevocation);
    let bundle = bundle.with_uncovered_issuers(UncoveredIssuers::Accept);
    assert!(Workload::verify(&leaf.chain, &bundle, NOW).is_ok());
    let bundle = s.bundle(&[s.root.crl(&[s.intermediate.serial], TOMORROW)]);
    let bundle = bundle.with_uncovered_issuers(UncoveredIssuers::Accept);
    assert_eq!(Workload::verify(&leaf.chain, &bundle, NOW).unwrap_err(), IdentityError::Revoked);
}

#[test]
fn list_signed_by_another_key() {
    let root_named =
        |key: &str| Ca::root_with("prod.example", |p| p.distinguished_name.push(rcgen::DnType::CommonName, key));
    let (real, fake) = (root_named("same name"), root_named("same name"));
    let leaf = real.leaf(BILLING);
    let bundle = workload_bundle(&[&real]).with_crls(&[fake.crl(&[], TOMORROW)]).unwrap();
    assert_eq!(Workload::verify(&leaf.chain, &bundle, NOW).unwrap_err(), IdentityError::BadCrl);
}

#[test]
fn malformed_lists() {
    let s = Setup::new();
    let good = s.root.crl(&[7], TOMORROW);
    let cut: Vec<u8> = good[..good.len() - 1].to_vec();
    let longer: Vec<u8> = [good.as_ref(), &[0]].concat();
    for bad in [Vec::new(), b"not DER".to_vec(), cut, longer, s.root.certificate.to_vec()] {
        let refused = workload_bundle(&[&s.root]).with_crls(&[good.clone(), bad.into()]);
        assert!(matches!(refused, Err(Error::Invalid { field, .. }) if field == "crls[1]"));
    }
    let none = workload_bundle(&[&s.root]).with_crls(&[]);
    assert!(matches!(none, Err(Error::Invalid { field, .. }) if field == "crls"));
}

#[test]
fn two_lists_of_one_issuer() {
    let s = Setup::new();
    let leaf = s.root.leaf(BILLING);
    let lists = [s.root.crl(&[], TOMORROW), s.root.crl(&[leaf.serial], TOMORROW)];
    let refused = workload_bundle(&[&s.root]).with_crls(&lists);
    assert!(matches!(refused, Err(Error::Invalid { field, .. }) if field == "crls[1]"));
}
