//! Rules of the chain: trust, time, length, signatures, and the CAs in it.

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, GeneralSubtree, IsCa, KeyUsagePurpose,
    NameConstraints, date_time_ymd,
};
use rustls_pki_types::CertificateDer;
use vault_core::Error;
use vault_core::error::Check;
use vault_core::principal::{IdentityError, MAX_CHAIN, TrustDomain, Workload, WorkloadBundle, certificates_from_pem};
use vault_core::time::Timestamp;

use crate::pki::{Ca, Leaf, uri_san};
use crate::{BILLING, NOW, OPERATORS, WORKLOADS, workload, workload_bundle};

/// 2024-01-01T00:00:00Z and 2044-01-01T00:00:00Z, between which test certificates are valid.
const FROM: u64 = 1_704_067_200;
const UNTIL: u64 = 2_335_219_200;

fn at(seconds: u64) -> Timestamp {
    Timestamp(seconds * 1000)
}

fn refusal(leaf: &Leaf) -> IdentityError {
    workload(leaf).unwrap_err()
}

fn under(root: &Ca, leaf: &Leaf) -> Result<Workload, IdentityError> {
    Workload::verify(&leaf.chain, &workload_bundle(&[root]), NOW)
}

#[test]
fn a_chain_proves_the_id_until_its_first_certificate_expires() {
    let short = WORKLOADS.0.intermediate_with(|p| p.not_after = date_time_ymd(2035, 1, 1));
    let leaf = short.leaf(BILLING);
    let proven = workload(&leaf).unwrap();
    assert_eq!(proven.spiffe_id(), BILLING);
    assert_eq!(proven.id().trust_domain(), "prod.example");
    assert_eq!(proven.not_after(), at(2_051_222_400));
    assert_eq!(proven.fingerprint(), ring::digest::digest(&ring::digest::SHA256, &leaf.chain[0]).as_ref());
    for (now, valid) in [
        (at(FROM - 1), false),
        (at(FROM), true),
        (NOW, true),
        (at(2_051_222_400), true),
        (Timestamp(2_051_222_400_999), true),
        (at(2_051_222_401), false),
    ] {
        assert_eq!(proven.valid_at(now), valid, "{now:?}");
        let again = Workload::verify(&leaf.chain, &workload_bundle(&[&WORKLOADS.0]), now);
        assert_eq!(again.is_ok(), valid, "{now:?}");
    }
}

#[test]
fn no_certificate() {
    let refused = Workload::verify(&[], &workload_bundle(&[&WORKLOADS.0]), NOW).unwrap_err();
    assert_eq!(refused, IdentityError::NoCertificate);
    assert_eq!(Error::from(refused), Error::Denied(Check::Identity));
}

#[test]
fn expired_leaf() {
    let leaf = WORKLOADS.1.leaf_with(BILLING, |p| p.not_after = date_time_ymd(2030, 6, 15));
    assert_eq!(refusal(&leaf), IdentityError::Expired);
}

#[test]
fn leaf_that_is_not_yet_valid() {
    let leaf = WORKLOADS.1.leaf_with(BILLING, |p| p.not_before = date_time_ymd(2030, 6, 16));
    assert_eq!(refusal(&leaf), IdentityError::NotYetValid);
}

#[test]
fn expired_intermediate() {
    let expired = WORKLOADS.0.intermediate_with(|p| p.not_after = date_time_ymd(2030, 6, 15));
    assert_eq!(refusal(&expired.leaf(BILLING)), IdentityError::Expired);
}

#[test]
fn expired_root() {
    let root = Ca::root_with("prod.example", |p| p.not_after = date_time_ymd(2030, 6, 15));
    let leaf = root.leaf(BILLING);
    let bundle = workload_bundle(&[&root]);
    assert!(Workload::verify(&leaf.chain, &bundle, at(FROM)).is_ok());
    assert_eq!(Workload::verify(&leaf.chain, &bundle, NOW).unwrap_err(), IdentityError::NoValidRoot);
    let renewed = workload_bundle(&[&root, &WORKLOADS.0]);
    assert_eq!(Workload::verify(&leaf.chain, &renewed, NOW).unwrap_err(), IdentityError::UnknownIssuer);
    assert!(Workload::verify(&WORKLOADS.1.leaf(BILLING).chain, &renewed, NOW).is_ok());
    assert!(bundle.check(at(FROM)).is_ok());
    assert!(matches!(bundle.check(NOW), Err(Error::Invalid { field, .. }) if field == "roots[0]"));
    assert!(workload_bundle(&[&WORKLOADS.0]).check(at(UNTIL)).is_ok());
}

#[test]
fn wrong_ca() {
    assert_eq!(refusal(&Ca::root("prod.example").leaf(BILLING)), IdentityError::UnknownIssuer);
}

#[test]
fn wrong_ca_with_the_right_name() {
    let copy_name = |p: &mut CertificateParams| p.distinguished_name.push(DnType::CommonName, "root of prod");
    let (real, fake) = (Ca::root_with("prod.example", copy_name), Ca::root_with("prod.example", copy_name));
    assert!(under(&real, &real.leaf(BILLING)).is_ok());
    assert_eq!(under(&real, &fake.leaf(BILLING)).unwrap_err(), IdentityError::BadSignature);
}

#[test]
fn missing_intermediate() {
    let mut leaf = WORKLOADS.1.leaf(BILLING);
    leaf.chain.truncate(1);
    assert_eq!(refusal(&leaf), IdentityError::UnknownIssuer);
}

#[test]
fn right_ca_wrong_trust_domain() {
    let elsewhere = "spiffe://staging.example/ns/shop/sa/billing";
    assert_eq!(refusal(&WORKLOADS.1.leaf(elsewhere)), IdentityError::WrongTrustDomain);
    let suffixed = "spiffe://prod.example.evil.example/ns/shop/sa/billing";
    assert_eq!(refusal(&WORKLOADS.1.leaf(suffixed)), IdentityError::WrongTrustDomain);
}

#[test]
fn a_good_intermediate_sent_along_vouches_for_nothing() {
    let mut leaf = OPERATORS.leaf(BILLING);
    leaf.chain.push(WORKLOADS.1.certificate.clone());
    assert_eq!(refusal(&leaf), IdentityError::UnknownIssuer);
}

#[test]
fn a_leaf_cannot_issue() {
    // The certificate above is one that says it is no CA.
    let rogue = WORKLOADS.1.intermediate_with(|p| p.is_ca = IsCa::ExplicitNoCa);
    assert_eq!(refusal(&rogue.leaf(BILLING)), IdentityError::NotACa);
}

#[test]
fn intermediate_without_key_cert_sign() {
    let crl_only = WORKLOADS.0.intermediate_with(|p| p.key_usages = vec![KeyUsagePurpose::CrlSign]);
    assert_eq!(refusal(&crl_only.leaf(BILLING)), IdentityError::CaCannotSign);
    let nothing = WORKLOADS.0.intermediate_with(|p| p.key_usages = vec![]);
    assert_eq!(refusal(&nothing.leaf(BILLING)), IdentityError::CaCannotSign);
}

#[test]
fn intermediate_with_another_spiffe_id() {
    for uri in ["spiffe://staging.example", "spiffe://prod.example/ca", "https://prod.example"] {
        let ca = WORKLOADS.0.intermediate_with(|p| p.subject_alt_names = vec![uri_san(uri)]);
        assert_eq!(refusal(&ca.leaf(BILLING)), IdentityError::CaSpiffeId, "{uri}");
    }
    let two = WORKLOADS.0.intermediate_with(|p| p.subject_alt_names.push(uri_san("spiffe://prod.example")));
    assert_eq!(refusal(&two.leaf(BILLING)), IdentityError::CaSpiffeId);
    let none = WORKLOADS.0.intermediate_with(|p| p.subject_alt_names.clear());
    assert!(workload(&none.leaf(BILLING)).is_ok());
}

fn unknown_critical() -> CustomExtension {
    let mut extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99999, 1], vec![5, 0]);
    extension.set_criticality(true);
    extension
}

#[test]
fn intermediate_with_an_unknown_critical_extension() {
    let ca = WORKLOADS.0.intermediate_with(|p| p.custom_extensions.push(unknown_critical()));
    assert_eq!(refusal(&ca.leaf(BILLING)), IdentityError::UnknownCriticalExtension);
}

#[test]
fn intermediate_for_servers_only() {
    let servers =
        WORKLOADS.0.intermediate_with(|p| p.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth]);
    assert_eq!(refusal(&servers.leaf(BILLING)), IdentityError::WrongEku);
}

#[test]
fn path_length_of_an_intermediate() {
    let last = WORKLOADS.0.intermediate_with(|p| p.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)));
    assert!(workload(&last.leaf(BILLING)).is_ok());
    assert_eq!(refusal(&last.intermediate().leaf(BILLING)), IdentityError::PathLength);
}

#[test]
fn path_length_of_the_root() {
    let root = Ca::root_with("prod.example", |p| p.is_ca = IsCa::Ca(BasicConstraints::Constrained(1)));
    let one = root.intermediate();
    assert!(under(&root, &root.leaf(BILLING)).is_ok());
    assert!(under(&root, &one.leaf(BILLING)).is_ok());
    assert_eq!(under(&root, &one.intermediate().leaf(BILLING)).unwrap_err(), IdentityError::PathLength);
}

#[test]
fn chain_too_long() {
    let mut leaf = WORKLOADS.1.leaf(BILLING);
    leaf.chain.resize(MAX_CHAIN, WORKLOADS.0.certificate.clone());
    assert!(workload(&leaf).is_ok());
    leaf.chain.push(WORKLOADS.0.certificate.clone());
    assert_eq!(refusal(&leaf), IdentityError::ChainTooLong);
    let deep = (0..7).fold(WORKLOADS.0.intermediate(), |ca, _| ca.intermediate());
    let mut leaf = deep.leaf(BILLING);
    leaf.chain.truncate(MAX_CHAIN);
    assert!(workload(&leaf).is_err());
}

#[test]
fn a_maze_of_look_alike_cas() {
    let named = |_| Ca::root_with("prod.example", |p| p.distinguished_name.push(DnType::CommonName, "same"));
    let cas: Vec<Ca> = (0..MAX_CHAIN).map(named).collect();
    let mut leaf = named(0).leaf(BILLING);
    leaf.chain.extend(cas.iter().skip(1).map(|ca| ca.certificate.clone()));
    assert_eq!(under(cas.first().unwrap(), &leaf).unwrap_err(), IdentityError::TooComplex);
}

#[test]
fn name_constraints_are_kept() {
    let tree = |name: &str| NameConstraints {
        permitted_subtrees: vec![GeneralSubtree::DnsName(name.into())],
        excluded_subtrees: vec![],
    };
    let ca = WORKLOADS.0.intermediate_with(|p| p.name_constraints = Some(tree("prod.example")));
    let named = |dns: &str| {
        let name = rcgen::SanType::DnsName(dns.try_into().unwrap());
        ca.leaf_with(BILLING, |p| p.subject_alt_names.push(name))
    };
    assert!(workload(&named("billing.prod.example")).is_ok());
    assert_eq!(refusal(&named("billing.staging.example")), IdentityError::NameConstraint);
}

fn fixture(name: &str) -> CertificateDer<'static> {
    let path = format!("{}/tests/data/identity/{name}.der", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(path).unwrap().into()
}

#[test]
fn weak_signatures_and_keys() {
    let domain = TrustDomain::parse("prod.example").unwrap();
    let bundle = WorkloadBundle::new(domain.clone(), &[fixture("root")]).unwrap();
    let verify = |names: &[&str]| {
        let chain: Vec<_> = names.iter().map(|name| fixture(name)).collect();
        Workload::verify(&chain, &bundle, NOW).map(|workload| workload.spiffe_id().to_owned())
    };
    for good in ["leaf", "leaf-pss", "leaf-p384", "leaf-ed25519"] {
        assert_eq!(verify(&[good]).as_deref(), Ok(BILLING), "{good}");
    }
    assert_eq!(verify(&["leaf-sha1"]), Err(IdentityError::WeakSignature));
    assert_eq!(verify(&["leaf-rsa1024"]), Err(IdentityError::WeakKey));
    assert_eq!(verify(&["leaf-p521"]), Err(IdentityError::WeakKey));
    assert_eq!(verify(&["leaf-under-rsa1024", "ca-rsa1024"]), Err(IdentityError::BadSignature));
    let weak_root = WorkloadBundle::new(domain, &[fixture("root"), fixture("root-rsa1024")]);
    assert!(matches!(weak_root, Err(Error::Invalid { field, .. }) if field == "roots[1]"));
}

#[test]
fn bundles_say_which_root_is_bad() {
    let domain = || TrustDomain::parse("prod.example").unwrap();
    let good = WORKLOADS.0.certificate.clone();
    let unknown = Ca::root_with("prod.example", |p| p.custom_extensions.push(unknown_critical()));
    let bad: [(&str, CertificateDer<'static>); 7] = [
        ("an unknown critical extension", unknown.certificate),
        ("a leaf", WORKLOADS.1.leaf(BILLING).chain[0].clone()),
        ("no CA", Ca::root_with("prod.example", |p| p.is_ca = IsCa::ExplicitNoCa).certificate),
        ("cannot sign", Ca::root_with("prod.example", |p| p.key_usages = vec![]).certificate),
        ("another domain", Ca::root("staging.example").certificate),
        ("not DER", vec![0x30, 1].into()),
        ("trailing byte", [good.as_ref(), &[0]].concat().into()),
    ];
    for (what, certificate) in bad {
        let refused = WorkloadBundle::new(domain(), &[good.clone(), certificate]);
        assert!(matches!(refused, Err(Error::Invalid { field, .. }) if field == "roots[1]"), "{what}");
    }
    assert!(matches!(WorkloadBundle::new(domain(), &[]), Err(Error::Invalid { field, .. }) if field == "roots"));
}

#[test]
fn several_roots_are_tried() {
    let other = Ca::root("prod.example");
    let bundle = workload_bundle(&[&other, &WORKLOADS.0]);
    assert!(Workload::verify(&other.leaf(BILLING).chain, &bundle, NOW).is_ok());
    assert!(Workload::verify(&WORKLOADS.1.leaf(BILLING).chain, &bundle, NOW).is_ok());
}

#[test]
fn roots_and_chains_come_from_pem_files() {
    let (root, intermediate) = &*WORKLOADS;
    let leaf = intermediate.leaf(BILLING);
    let roots = certificates_from_pem(root.pem.as_bytes()).unwrap();
    let bundle = WorkloadBundle::new(TrustDomain::parse("prod.example").unwrap(), &roots).unwrap();
    let chain = certificates_from_pem(leaf.chain_pem.as_bytes()).unwrap();
    assert_eq!(chain, leaf.chain);
    assert!(Workload::verify(&chain, &bundle, NOW).is_ok());
    let with_key = leaf.chain_pem.clone() + &leaf.key_pem();
    assert!(matches!(certificates_from_pem(with_key.as_bytes()), Err(Error::Invalid { field, .. }) if field == "pem"));
}
