//! Rules of the leaf alone. Each is checked twice: by `leaf_identity`, and by verification under a good chain.

use proptest::prelude::*;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyUsagePurpose, OtherNameValue, SanType,
};
use vault_core::principal::{IdentityError, SpiffeIdError, Workload, leaf_identity};

use crate::pki::{Leaf, as_is, uri_san};
use crate::{BILLING, NOW, WORKLOADS, tlv, workload, workload_bundle};

const SAN: &[u64] = &[2, 5, 29, 17];
const KEY_USAGE: &[u64] = &[2, 5, 29, 15];
const BASIC_CONSTRAINTS: &[u64] = &[2, 5, 29, 19];
const EXTENDED_KEY_USAGE: &[u64] = &[2, 5, 29, 37];
const URI: u8 = 0x86;

fn issue(edit: impl FnOnce(&mut CertificateParams)) -> Leaf {
    WORKLOADS.1.leaf_with(BILLING, edit)
}

fn assert_refused(leaf: &Leaf, rule: IdentityError) {
    assert_eq!(leaf_identity(leaf.chain.first().unwrap()), Err(rule), "leaf_identity");
    assert_eq!(workload(leaf).map(|w| w.spiffe_id().to_owned()), Err(rule), "Workload::verify");
}

/// Replaces the certificate's SAN by these names, tag and bytes as given.
fn names(params: &mut CertificateParams, names: &[(u8, &[u8])]) {
    let all: Vec<u8> = names.iter().flat_map(|(tag, bytes)| tlv(*tag, bytes)).collect();
    params.subject_alt_names.clear();
    extension(params, SAN, tlv(0x30, &all), false);
}

fn extension(params: &mut CertificateParams, oid: &[u64], content: Vec<u8>, critical: bool) {
    let mut extension = CustomExtension::from_oid_content(oid, content);
    extension.set_criticality(critical);
    params.custom_extensions.push(extension);
}

fn one_uri(params: &mut CertificateParams, uri: &str) {
    params.subject_alt_names = vec![uri_san(uri)];
}

macro_rules! refused {
    ($($test:ident: $edit:expr => $rule:expr;)+) => {$(
        #[test]
        fn $test() {
            use IdentityError::*;
            assert_refused(&issue($edit), $rule);
        }
    )+};
}

refused! {
    two_uri_sans: |p| p.subject_alt_names.push(uri_san("spiffe://prod.example/other")) => TwoUriSans;
    the_same_uri_san_twice: |p| p.subject_alt_names.push(uri_san(BILLING)) => TwoUriSans;
    a_second_uri_san_that_is_not_a_spiffe_id: |p| p.subject_alt_names.push(uri_san("https://prod.example/")) => TwoUriSans;
    a_second_uri_san_that_is_not_utf8: |p| names(p, &[(URI, BILLING.as_bytes()), (URI, b"spiffe://\xff\xfe")]) => TwoUriSans;
    a_first_uri_san_that_is_not_utf8: |p| names(p, &[(URI, b"\xff"), (URI, BILLING.as_bytes())]) => TwoUriSans;
    a_second_uri_san_that_is_empty: |p| names(p, &[(URI, BILLING.as_bytes()), (URI, b"")]) => TwoUriSans;
    the_only_uri_san_is_not_utf8: |p| names(p, &[(URI, b"spiffe://prod.example/\xff")]) => SpiffeId(SpiffeIdError::Path);
    cn_only: |p| p.subject_alt_names.clear() => NoUriSan;
    a_spiffe_id_as_cn: |p| {
        p.subject_alt_names.clear();
        p.distinguished_name.push(DnType::CommonName, BILLING);
    } => NoUriSan;
    dns_only: |p| p.subject_alt_names = vec![SanType::DnsName("billing.prod.example".try_into().unwrap())] => NoUriSan;
    a_spiffe_id_as_dns_name: |p| names(p, &[(0x82, BILLING.as_bytes())]) => NoUriSan;
    email_san_only: |p| p.subject_alt_names = vec![SanType::Rfc822Name("alice@prod.example".try_into().unwrap())] => EmailAddress;
    email_san_beside_the_uri: |p| {
        p.subject_alt_names.push(SanType::Rfc822Name("alice@prod.example".try_into().unwrap()));
    } => EmailAddress;
    email_in_the_subject: |p| {
        p.distinguished_name.push(DnType::CustomDnType(vec![1, 2, 840, 113549, 1, 9, 1]), "alice@prod.example");
    } => EmailAddress;
    user_principal_name: |p| p.subject_alt_names.push(SanType::OtherName((
        vec![1, 3, 6, 1, 4, 1, 311, 20, 2, 3],
        OtherNameValue::Utf8String("alice@prod.example".into()),
    ))) => EmailAddress;
    https_uri: |p| one_uri(p, "https://prod.example/billing") => SpiffeId(SpiffeIdError::Scheme);
    upper_case_scheme: |p| one_uri(p, "SPIFFE://prod.example/billing") => SpiffeId(SpiffeIdError::Scheme);
    root_path: |p| one_uri(p, "spiffe://prod.example") => RootPath;
    root_path_with_slash: |p| one_uri(p, "spiffe://prod.example/") => SpiffeId(SpiffeIdError::Path);
    dot_segments: |p| one_uri(p, "spiffe://prod.example/ns/../billing") => SpiffeId(SpiffeIdError::Path);
    percent_encoded_slash: |p| one_uri(p, "spiffe://prod.example/ns%2fbilling") => SpiffeId(SpiffeIdError::Path);
    empty_segment: |p| one_uri(p, "spiffe://prod.example//billing") => SpiffeId(SpiffeIdError::Path);
    trailing_slash: |p| one_uri(p, "spiffe://prod.example/billing/") => SpiffeId(SpiffeIdError::Path);
    upper_case_trust_domain: |p| one_uri(p, "spiffe://Prod.example/billing") => SpiffeId(SpiffeIdError::TrustDomain);
    port_in_trust_domain: |p| one_uri(p, "spiffe://prod.example:8443/billing") => SpiffeId(SpiffeIdError::TrustDomain);
    id_too_long: |p| one_uri(p, &format!("spiffe://prod.example/{}", "a".repeat(2048))) => SpiffeId(SpiffeIdError::TooLong);
    ca_certificate_as_leaf: |p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained) => LeafIsCa;
    key_cert_sign_on_the_leaf: |p| p.key_usages.push(KeyUsagePurpose::KeyCertSign) => LeafSigns;
    crl_sign_on_the_leaf: |p| p.key_usages.push(KeyUsagePurpose::CrlSign) => LeafSigns;
    no_key_usage: |p| p.key_usages.clear() => NoKeyUsage;
    key_usage_without_digital_signature: |p| p.key_usages = vec![KeyUsagePurpose::KeyAgreement] => NoDigitalSignature;
    key_usage_that_is_not_critical: |p| {
        p.key_usages.clear();
        extension(p, KEY_USAGE, vec![3, 2, 7, 0x80], false);
    } => KeyUsageNotCritical;
    wrong_eku: |p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth] => WrongEku;
    any_eku_is_not_client_auth: |p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any] => WrongEku;
    empty_subject_and_a_san_that_is_not_critical: |p| {
        p.distinguished_name = DistinguishedName::new();
        names(p, &[(URI, BILLING.as_bytes())]);
    } => SanNotCritical;
    unknown_critical_extension: |p| extension(p, &[1, 3, 6, 1, 4, 1, 99999, 1], vec![5, 0], true) => UnknownCriticalExtension;
    san_extension_twice: |p| {
        extension(p, SAN, tlv(0x30, &tlv(URI, b"spiffe://prod.example/other")), false);
    } => DuplicateExtension;
    key_usage_extension_twice: |p| extension(p, KEY_USAGE, vec![3, 2, 7, 0x80], true) => DuplicateExtension;
    san_with_trailing_bytes: |p| {
        p.subject_alt_names.clear();
        let san = [tlv(0x30, &tlv(URI, BILLING.as_bytes())), vec![0]].concat();
        extension(p, SAN, san, false);
    } => MalformedExtension;
    san_with_a_name_cut_short: |p| {
        p.subject_alt_names.clear();
        let mut name = tlv(URI, BILLING.as_bytes());
        name.pop();
        extension(p, SAN, tlv(0x30, &name), false);
    } => MalformedExtension;
    san_that_is_empty: |p| names(p, &[]) => MalformedExtension;
    san_with_a_constructed_uri: |p| names(p, &[(URI | 0x20, BILLING.as_bytes())]) => MalformedExtension;
    san_with_an_unknown_kind_of_name: |p| names(p, &[(URI, BILLING.as_bytes()), (0x89, b"x")]) => MalformedExtension;
    basic_constraints_that_do_not_parse: |p| {
        p.is_ca = IsCa::NoCa;
        extension(p, BASIC_CONSTRAINTS, vec![0x30, 1, 1], true);
    } => MalformedExtension;
    key_usage_that_does_not_parse: |p| {
        p.key_usages.clear();
        extension(p, KEY_USAGE, vec![4, 2, 7, 0x80], true);
    } => MalformedExtension;
    key_usage_with_a_bit_beyond_its_end: |p| {
        p.key_usages.clear();
        extension(p, KEY_USAGE, vec![3, 2, 7, 0x81], true);
    } => MalformedExtension;
    eku_that_does_not_parse: |p| {
        p.extended_key_usages.clear();
        extension(p, EXTENDED_KEY_USAGE, vec![0x30, 2, 6, 9], false);
    } => MalformedExtension;
    eku_that_is_empty: |p| {
        p.extended_key_usages.clear();
        extension(p, EXTENDED_KEY_USAGE, vec![0x30, 0], false);
    } => WrongEku;
    certificate_too_large: |p| extension(p, &[1, 3, 6, 1, 4, 1, 99999, 1], tlv(4, &[0; 17_000]), false) => CertificateTooLarge;
}

#[test]
fn what_the_specification_leaves_open_is_accepted() {
    type Edit = fn(&mut CertificateParams);
    let fine: [(&str, Edit); 7] = [
        ("as issued", as_is),
        ("DNS and IP names beside the URI", |p| {
            p.subject_alt_names.push(SanType::DnsName("billing.prod.example".try_into().unwrap()));
            p.subject_alt_names.push(SanType::IpAddress("192.0.2.7".parse().unwrap()));
        }),
        ("no extended key usage", |p| p.extended_key_usages.clear()),
        ("clientAuth alone", |p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]),
        ("no basic constraints", |p| p.is_ca = IsCa::NoCa),
        ("key encipherment", |p| p.key_usages.push(KeyUsagePurpose::KeyEncipherment)),
        ("empty subject, SAN critical", |p| p.distinguished_name = DistinguishedName::new()),
    ];
    for (what, edit) in fine {
        let leaf = issue(edit);
        assert_eq!(leaf_identity(&leaf.chain[0]).unwrap().as_str(), BILLING, "{what}");
        assert_eq!(workload(&leaf).unwrap().spiffe_id(), BILLING, "{what}");
    }
}

#[test]
fn bytes_after_the_certificate() {
    let mut leaf = issue(as_is);
    leaf.chain[0] = [leaf.chain[0].as_ref(), &[0]].concat().into();
    assert_refused(&leaf, IdentityError::Malformed);
}

#[test]
fn every_truncation_is_refused() {
    let leaf = issue(as_is);
    for length in 0..leaf.chain[0].len() {
        assert_eq!(leaf_identity(&leaf.chain[0][..length]), Err(IdentityError::Malformed), "{length}");
    }
}

proptest! {
    #[test]
    fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        prop_assert!(leaf_identity(&bytes).is_err());
    }

    /// A changed certificate may still keep the leaf's own rules (its signature is not among them), but then it names
    /// exactly what its bytes say.
    #[test]
    fn a_changed_byte_never_panics_nor_invents_an_id(at in any::<prop::sample::Index>(), flip in 1u8..) {
        static LEAF: std::sync::LazyLock<Leaf> = std::sync::LazyLock::new(|| issue(as_is));
        let mut der = LEAF.chain[0].to_vec();
        let at = at.index(der.len());
        der[at] ^= flip;
        if let Ok(id) = leaf_identity(&der) {
            let text = id.as_str().as_bytes();
            prop_assert!(der.windows(text.len()).any(|window| window == text));
        }
        let chain = [&[der.into()], &LEAF.chain[1..]].concat();
        let bundle = workload_bundle(&[&WORKLOADS.0]);
        prop_assert!(Workload::verify(&chain, &bundle, NOW).is_err(), "the leaf was changed after it was signed");
    }
}
