//! Whatever is taken for an end user's token was signed by the pinned key, over claims that a second reader finds in
//! order too; and no bytes make it panic.
#![no_main]

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use libfuzzer_sys::fuzz_target;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use serde_json::{Value, json};
use vault_core::principal::{
    Binding, EndUser, IssuerSettings, IssuerTenants, Issuers, KeySet, TrustDomain, Workload, WorkloadBundle,
};
use vault_core::time::Timestamp;

/// 2026-06-01T00:00:00Z.
const NOW: u64 = 1_780_272_000;

static KEY: LazyLock<Ed25519KeyPair> = LazyLock::new(|| Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap());

static ISSUERS: LazyLock<Issuers> = LazyLock::new(|| {
    let settings = IssuerSettings::new("https://id.example", "vault", IssuerTenants::Any);
    let issuers = Issuers::new(vec![IssuerSettings { binding: Binding::IfPresent, ..settings }]).unwrap();
    let x = URL_SAFE_NO_PAD.encode(KEY.public_key());
    let keys = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": x}]}).to_string();
    issuers.put_keys(0, KeySet::parse(keys.as_bytes()).unwrap(), None).unwrap();
    issuers
});

static WORKLOAD: LazyLock<Workload> = LazyLock::new(|| {
    let params = |uri: &str| {
        let mut params = CertificateParams::default();
        params.not_before = rcgen::date_time_ymd(2024, 1, 1);
        params.not_after = rcgen::date_time_ymd(2044, 1, 1);
        params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        params
    };
    let mut ca = params("spiffe://prod.example");
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let ca_key = KeyPair::generate().unwrap();
    let root = ca.self_signed(&ca_key).unwrap().der().clone();
    let mut leaf = params("spiffe://prod.example/shop");
    leaf.is_ca = IsCa::ExplicitNoCa;
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let leaf = leaf.signed_by(&KeyPair::generate().unwrap(), &Issuer::new(ca, ca_key)).unwrap();
    let bundle = WorkloadBundle::new(TrustDomain::parse("prod.example").unwrap(), &[root]).unwrap();
    Workload::verify(&[leaf.der().clone()], &bundle, Timestamp(NOW * 1000)).unwrap()
});

/// What holds of every token that is taken.
fn check(token: &str, user: &EndUser) {
    let parts: Vec<&str> = token.split('.').collect();
    let [header, claims, signature] = parts[..] else { panic!("not three parts") };
    assert!(token.len() <= 8192);
    let bytes = |part: &str| URL_SAFE_NO_PAD.decode(part).unwrap();
    let key = UnparsedPublicKey::new(&ED25519, KEY.public_key().as_ref());
    key.verify(format!("{header}.{claims}").as_bytes(), &bytes(signature)).expect("signed by somebody else");
    let (header, claims): (Value, Value) =
        (serde_json::from_slice(&bytes(header)).unwrap(), serde_json::from_slice(&bytes(claims)).unwrap());
    assert_eq!((&header["alg"], &header["kid"]), (&json!("EdDSA"), &json!("k")));
    assert!(["at+jwt", "application/at+jwt"].contains(&header["typ"].as_str().unwrap()));
    assert!(["crit", "jwk", "jku", "x5c", "x5u"].iter().all(|name| header.get(name).is_none()));
    assert_eq!(claims["iss"], "https://id.example");
    let audience = &claims["aud"];
    assert!(audience == "vault" || audience.as_array().unwrap().contains(&json!("vault")));
    let (issued, expiry) = (claims["iat"].as_u64().unwrap(), claims["exp"].as_u64().unwrap());
    assert!(issued <= NOW + 30 && NOW < expiry + 30 && expiry.saturating_sub(issued) <= 3600);
    assert!(claims.get("nbf").is_none_or(|begins| begins.as_u64().unwrap() <= NOW + 30));
    assert_eq!((claims["sub"].as_str(), claims["tenant"].as_str()), (Some(user.subject().as_str()), Some(user.tenant().as_str())));
    let strings = |name: &str| -> Vec<&str> {
        let Some(list) = claims.get(name) else { return Vec::new() };
        list.as_array().unwrap().iter().map(|item| item.as_str().unwrap()).collect()
    };
    assert_eq!(user.mfa(), strings("amr").contains(&"mfa"));
    assert!(strings("roles").iter().all(|role| user.roles().contains(*role)));
    if let Some(confirmation) = claims.get("cnf") {
        let print = URL_SAFE_NO_PAD.encode(WORKLOAD.fingerprint());
        assert_eq!(*confirmation, json!({"x5t#S256": print}), "bound to another certificate");
    }
}

fn verify(token: &str) -> Option<EndUser> {
    let user = EndUser::verify(token.as_bytes(), &ISSUERS, &WORKLOAD, Timestamp(NOW * 1000)).ok()?;
    check(token, &user);
    Some(user)
}

fuzz_target!(|input: &[u8]| {
    // As it is: a token of somebody who has no key.
    drop(EndUser::verify(input, &ISSUERS, &WORKLOAD, Timestamp(NOW * 1000)).map(|user| check(std::str::from_utf8(input).unwrap(), &user)));
    // Its two halves as header and claims, under the key: what an issuer could be made to sign.
    let at = input.iter().position(|byte| *byte == b'\n').unwrap_or(input.len());
    let (header, claims) = (&input[..at], input.get(at + 1..).unwrap_or_default());
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = KEY.sign(signed.as_bytes());
    let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()));
    if verify(&token).is_some() {
        // Any change of the signature, and the token proves nobody.
        let mut other = signature.as_ref().to_vec();
        other[claims.len() % 64] ^= 1;
        assert!(verify(&format!("{signed}.{}", URL_SAFE_NO_PAD.encode(other))).is_none());
    }
});
