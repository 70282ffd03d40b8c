//! From a token to an end user: every rule of `docs/end-users.md`, with tokens made here. They are signed by `aws-lc-rs`
//! and verified by `ring`.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod hostile;
#[path = "../common/pki.rs"]
mod pki;

use std::sync::LazyLock;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
    RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use pki::{Ca, NOW_MILLIS};
use serde_json::{Value, json};
use vault_core::id::TenantId;
use vault_core::principal::{
    Algorithm, Binding, EndUser, IssuerSettings, IssuerTenants, Issuers, KeySet, TokenError, TrustDomain, Workload,
    WorkloadBundle,
};
use vault_core::time::Timestamp;

pub(crate) const NOW: Timestamp = Timestamp(NOW_MILLIS);
pub(crate) const NOW_SECS: u64 = NOW_MILLIS / 1000;
pub(crate) const ISSUER: &str = "https://id.example";
pub(crate) const AUDIENCE: &str = "https://vault.example";

pub(crate) fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// What an identity provider signs with.
pub(crate) enum Signer {
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
    Rsa(RsaKeyPair),
}

impl Signer {
    pub(crate) fn p256() -> Self {
        Self::P256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    pub(crate) fn jwk(&self, kid: &str) -> Value {
        let point = |public: &[u8]| {
            let (x, y) = public[1..].split_at(public.len() / 2);
            (b64(x), b64(y))
        };
        match self {
            Self::P256(key) => {
                let (x, y) = point(key.public_key().as_ref());
                json!({"kty": "EC", "crv": "P-256", "kid": kid, "x": x, "y": y})
            }
            Self::P384(key) => {
                let (x, y) = point(key.public_key().as_ref());
                json!({"kty": "EC", "crv": "P-384", "kid": kid, "x": x, "y": y})
            }
            Self::Ed(key) => json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": b64(key.public_key())}),
            Self::Rsa(key) => {
                // RSAPublicKey (RFC 8017 appendix A.1.1) of 2048 bits: two headers and a zero before the modulus.
                let der = key.public_key().as_ref();
                assert!(der.len() == 270 && der.ends_with(&[2, 3, 1, 0, 1]));
                json!({"kty": "RSA", "kid": kid, "n": b64(&der[9..265]), "e": "AQAB"})
            }
        }
    }

    fn sign(&self, algorithm: Algorithm, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::P256(key) | Self::P384(key) => key.sign(&random, message).unwrap().as_ref().to_vec(),
            Self::Ed(key) => key.sign(message).as_ref().to_vec(),
            Self::Rsa(key) => {
                let by = if algorithm == Algorithm::Ps256 { &RSA_PSS_SHA256 } else { &RSA_PKCS1_SHA256 };
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(by, &random, message, &mut signature).unwrap();
                signature
            }
        }
    }

    /// A token of these texts, validly signed.
    pub(crate) fn token_of(&self, algorithm: Algorithm, header: &str, claims: &str) -> String {
        let signed = format!("{}.{}", b64(header), b64(claims));
        let signature = b64(self.sign(algorithm, signed.as_bytes()));
        format!("{signed}.{signature}")
    }

    /// A token with the usual header for an algorithm.
    pub(crate) fn token(&self, algorithm: Algorithm, kid: &str, claims: &Value) -> String {
        let header = json!({"alg": algorithm.name(), "typ": "at+jwt", "kid": kid});
        self.token_of(algorithm, &header.to_string(), &claims.to_string())
    }
}

/// One key for each algorithm; the `kid` is the algorithm's name.
pub(crate) static KEYS: LazyLock<Vec<(Algorithm, Signer)>> = LazyLock::new(|| {
    vec![
        (Algorithm::Es256, Signer::p256()),
        (Algorithm::Es384, Signer::P384(EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap())),
        (Algorithm::EdDsa, Signer::Ed(Ed25519KeyPair::generate().unwrap())),
        (Algorithm::Rs256, Signer::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap())),
        (Algorithm::Ps256, Signer::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap())),
    ]
});

pub(crate) fn es256() -> &'static Signer {
    &KEYS[0].1
}

/// Two workloads with certificates of their own.
pub(crate) static WORKLOADS: LazyLock<[Workload; 2]> = LazyLock::new(|| {
    let ca = Ca::root("prod.example");
    let bundle =
        WorkloadBundle::new(TrustDomain::parse("prod.example").unwrap(), std::slice::from_ref(&ca.certificate))
            .unwrap();
    ["spiffe://prod.example/shop", "spiffe://prod.example/other"]
        .map(|id| Workload::verify(&ca.leaf(id).chain, &bundle, NOW).unwrap())
});

pub(crate) fn shop() -> &'static Workload {
    &WORKLOADS[0]
}

/// Settings that accept every algorithm.
pub(crate) fn settings() -> IssuerSettings {
    IssuerSettings { algorithms: Algorithm::ALL.to_vec(), ..IssuerSettings::new(ISSUER, AUDIENCE, IssuerTenants::Any) }
}

pub(crate) fn key_set(keys: &[Value]) -> KeySet {
    KeySet::parse(json!({ "keys": keys }).to_string().as_bytes()).unwrap()
}

/// The issuer with these settings and one key for each algorithm.
pub(crate) fn issuers(settings: IssuerSettings) -> Issuers {
    let issuers = Issuers::new(vec![settings]).unwrap();
    let keys: Vec<_> = KEYS.iter().map(|(algorithm, key)| key.jwk(algorithm.name())).collect();
    assert!(issuers.put_keys(0, key_set(&keys), None).unwrap());
    issuers
}

/// The claims of an honest token, bound to the first workload's certificate.
pub(crate) fn claims() -> Value {
    json!({
        "iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "tenant": "acme", "client_id": "web", "jti": "t-1",
        "iat": NOW_SECS - 10, "exp": NOW_SECS + 290, "auth_time": NOW_SECS - 60, "amr": ["pwd", "mfa"], "acr": "high",
        "roles": ["clerk"], "cnf": {"x5t#S256": b64(shop().fingerprint())},
    })
}

/// The honest claims with one of them replaced, or removed by `null`.
pub(crate) fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    let members = claims.as_object_mut().unwrap();
    if value.is_null() {
        members.remove(name)
    } else {
        members.insert(name.to_owned(), value)
    };
    claims
}

pub(crate) fn verify_under(issuers: &Issuers, token: &str) -> Result<EndUser, TokenError> {
    EndUser::verify(token.as_bytes(), issuers, shop(), NOW)
}

/// A token of these claims, under the usual settings.
pub(crate) fn judge(claims: &Value) -> Result<EndUser, TokenError> {
    verify_under(&issuers(settings()), &es256().token(Algorithm::Es256, "ES256", claims))
}

/// The same under settings that differ.
pub(crate) fn judge_under(edit: impl FnOnce(&mut IssuerSettings), claims: &Value) -> Result<EndUser, TokenError> {
    let mut settings = settings();
    edit(&mut settings);
    verify_under(&issuers(settings), &es256().token(Algorithm::Es256, "ES256", claims))
}

pub(crate) fn rule(result: Result<EndUser, TokenError>) -> Option<TokenError> {
    result.err()
}

#[test]
fn an_honest_token_proves_its_end_user_with_each_algorithm() {
    let issuers = issuers(settings());
    for (algorithm, key) in KEYS.iter() {
        let user = verify_under(&issuers, &key.token(*algorithm, algorithm.name(), &claims())).unwrap();
        assert_eq!((user.issuer(), user.subject().as_str(), user.tenant().as_str()), (ISSUER, "ann", "acme"));
        assert!(user.roles().iter().eq(["clerk"]) && user.amr().iter().eq(["mfa", "pwd"]));
        assert_eq!((user.acr(), user.mfa()), (Some("high"), true));
        assert_eq!(user.auth_time(), Some(Timestamp((NOW_SECS - 60) * 1000)));
        assert_eq!(user.fresh_until(), Some(Timestamp((NOW_SECS - 60) * 1000 + 900_000)));
        // The skew on top.
        assert_eq!(user.not_after(), Timestamp((NOW_SECS + 290) * 1000 + 30_000));
        assert!(user.valid_at(NOW) && !user.valid_at(user.not_after()) && user.mfa_fresh_at(NOW));
    }
}

#[test]
fn only_the_algorithms_of_the_list_are_accepted() {
    for (algorithm, key) in KEYS.iter() {
        let others: Vec<_> = Algorithm::ALL.into_iter().filter(|other| other != algorithm).collect();
        let token = key.token(*algorithm, algorithm.name(), &claims());
        let refused = verify_under(&issuers(IssuerSettings { algorithms: others, ..settings() }), &token);
        assert_eq!(rule(refused), Some(TokenError::Algorithm), "{}", algorithm.name());
        // Another algorithm's name over the same key and signature.
        for other in Algorithm::ALL {
            let token = key.token(other, algorithm.name(), &claims());
            let verified = verify_under(&issuers(settings()), &token);
            assert_eq!(verified.is_ok(), other == *algorithm || both_rsa(other, *algorithm), "{}", other.name());
        }
    }
}

/// A key that does not say which of the two it is for is for both.
fn both_rsa(a: Algorithm, b: Algorithm) -> bool {
    [a, b].iter().all(|algorithm| matches!(algorithm, Algorithm::Rs256 | Algorithm::Ps256))
}

#[test]
fn times_are_whole_numbers_and_the_skew_is_all_there_is() {
    let at = |name: &str, value: Value| rule(judge(&with(name, value)));
    for wrong in [json!("1907755490"), json!(1.5), json!(-1), json!([1]), json!(true), json!(253_402_300_800_u64)] {
        assert_eq!(at("exp", wrong.clone()), Some(TokenError::Expiry), "{wrong}");
        assert_eq!(at("iat", wrong.clone()), Some(TokenError::IssuedAt), "{wrong}");
        assert_eq!(at("nbf", wrong.clone()), Some(TokenError::IssuedAt), "{wrong}");
        assert_eq!(at("auth_time", wrong.clone()), Some(TokenError::AuthTime), "{wrong}");
    }
    assert_eq!(at("exp", Value::Null), Some(TokenError::Expiry));
    assert_eq!(at("iat", Value::Null), Some(TokenError::IssuedAt));
    assert_eq!(at("exp", json!(NOW_SECS - 29)), None);
    assert_eq!(at("exp", json!(NOW_SECS - 30)), Some(TokenError::Expired));
    for name in ["iat", "nbf"] {
        assert_eq!(at(name, json!(NOW_SECS + 30)), None, "{name}");
        assert_eq!(at(name, json!(NOW_SECS + 31)), Some(TokenError::NotYetValid), "{name}");
    }
    assert_eq!(at("auth_time", json!(NOW_SECS + 30)), None);
    assert_eq!(at("auth_time", json!(NOW_SECS + 31)), Some(TokenError::AuthTime));
    // From iat, 10 s ago, an hour and no second more; a later nbf does not make it shorter.
    assert_eq!(at("exp", json!(NOW_SECS + 3590)), None);
    assert_eq!(at("exp", json!(NOW_SECS + 3591)), Some(TokenError::LivesTooLong));
    let mut late = with("exp", json!(NOW_SECS + 3591));
    late["nbf"] = json!(NOW_SECS);
    assert_eq!(rule(judge(&late)), Some(TokenError::LivesTooLong));
    let strict = |claims: &Value| rule(judge_under(|settings| settings.skew_millis = 0, claims));
    assert_eq!(strict(&with("exp", json!(NOW_SECS))), Some(TokenError::Expired));
    assert_eq!(strict(&with("iat", json!(NOW_SECS + 1))), Some(TokenError::NotYetValid));
}

#[test]
fn a_second_factor_is_what_the_configuration_says() {
    let mfa = |edit: fn(&mut IssuerSettings), claims: &Value| {
        let user = judge_under(edit, claims).unwrap();
        (user.mfa(), user.fresh_until().is_some())
    };
    assert_eq!(mfa(|_| {}, &claims()), (true, true));
    assert_eq!(mfa(|_| {}, &with("amr", json!(["pwd"]))), (false, false));
    assert_eq!(mfa(|_| {}, &with("amr", json!(["MFA"]))), (false, false));
    assert_eq!(mfa(|_| {}, &with("amr", Value::Null)), (false, false));
    assert_eq!(mfa(|_| {}, &with("auth_time", Value::Null)), (true, false));
    assert_eq!(mfa(|s| s.mfa_amr = vec!["hwk".into()], &claims()), (false, false));
    assert_eq!(mfa(|s| s.mfa_acr = vec!["high".into()], &with("amr", Value::Null)), (true, true));
    assert_eq!(mfa(|s| s.mfa_acr = vec!["high".into()], &with("acr", json!("higher"))), (true, true));
    let old = judge(&with("auth_time", json!(NOW_SECS - 900))).unwrap();
    assert!(old.mfa() && !old.mfa_fresh_at(NOW), "signed in too long ago");
    let just = judge(&with("auth_time", json!(NOW_SECS - 899))).unwrap();
    assert!(just.mfa_fresh_at(NOW) && !just.mfa_fresh_at(Timestamp(NOW.0 + 1000)));
}

#[test]
fn a_bound_token_serves_the_holder_of_its_certificate_alone() {
    let issuers = issuers(settings());
    let token = es256().token(Algorithm::Es256, "ES256", &claims());
    let stolen = EndUser::verify(token.as_bytes(), &issuers, &WORKLOADS[1], NOW);
    assert_eq!(rule(stolen), Some(TokenError::OtherCertificate));
    let print = b64(shop().fingerprint());
    for (confirmation, expected) in [
        (json!({"x5t#S256": b64([0; 32])}), TokenError::OtherCertificate),
        // 41 digits of base64 are no number of bytes; 42 would be, now and then.
        (json!({"x5t#S256": print[2..]}), TokenError::Confirmation),
        (json!({"x5t#S256": b64(&shop().fingerprint()[..31])}), TokenError::OtherCertificate),
        (json!({"x5t#S256": format!("{print}=")}), TokenError::Confirmation),
        (json!({"x5t#S256": [print]}), TokenError::Confirmation),
        (json!({"x5t": print}), TokenError::Confirmation),
        (json!({"jkt": print}), TokenError::Confirmation),
        (json!({"x5t#S256": print, "jkt": print}), TokenError::Confirmation),
        (json!({}), TokenError::Confirmation),
        (json!(print), TokenError::Confirmation),
    ] {
        let claims = with("cnf", confirmation);
        assert_eq!(rule(judge(&claims)), Some(expected), "{claims}");
        // What is there is held against the certificate, whether or not it has to be there.
        let lenient = judge_under(|settings| settings.binding = Binding::IfPresent, &claims);
        assert_eq!(rule(lenient), Some(expected), "{claims}");
    }
    let bearer = with("cnf", Value::Null);
    assert_eq!(rule(judge(&bearer)), Some(TokenError::Unbound));
    assert!(judge_under(|settings| settings.binding = Binding::IfPresent, &bearer).is_ok());
}

#[test]
fn keys_rotate_disappear_and_grow_too_old() {
    let issuers = Issuers::new(vec![settings()]).unwrap();
    let (old, new) = (Signer::p256(), Signer::p256());
    let by = |key: &Signer, kid| key.token(Algorithm::Es256, kid, &claims());
    assert_eq!(rule(verify_under(&issuers, &by(&old, "old"))), Some(TokenError::NoKeys));
    assert_eq!(issuers.put_keys(0, key_set(&[old.jwk("old")]), None), Ok(true));
    assert!(verify_under(&issuers, &by(&old, "old")).is_ok());
    assert_eq!(rule(verify_under(&issuers, &by(&new, "new"))), Some(TokenError::UnknownKey));
    assert_eq!(issuers.claimed(by(&new, "new").as_bytes()), Some(0));
    assert_eq!(issuers.put_keys(0, key_set(&[old.jwk("old"), new.jwk("new")]), None), Ok(true));
    assert_eq!(issuers.put_keys(0, key_set(&[old.jwk("old"), new.jwk("new")]), None), Ok(false), "the same keys");
    assert!(verify_under(&issuers, &by(&old, "old")).is_ok() && verify_under(&issuers, &by(&new, "new")).is_ok());
    issuers.put_keys(0, key_set(&[new.jwk("new")]), Some(Timestamp(NOW.0 + 1))).unwrap();
    assert_eq!(rule(verify_under(&issuers, &by(&old, "old"))), Some(TokenError::UnknownKey));
    assert!(verify_under(&issuers, &by(&new, "new")).is_ok());
    issuers.put_keys(0, key_set(&[new.jwk("new")]), Some(NOW)).unwrap();
    assert_eq!(rule(verify_under(&issuers, &by(&new, "new"))), Some(TokenError::NoKeys));
    issuers.put_keys(0, key_set(&[]), None).unwrap();
    assert_eq!(rule(verify_under(&issuers, &by(&new, "new"))), Some(TokenError::UnknownKey));
    assert!(issuers.put_keys(1, key_set(&[]), None).is_err());
}

#[test]
fn an_issuers_token_is_proven_by_its_own_keys_and_rules_alone() {
    let (mine, other) = (Signer::p256(), Signer::p256());
    let second = IssuerSettings::new("https://other.example", "elsewhere", IssuerTenants::Any);
    let issuers = Issuers::new(vec![settings(), second]).unwrap();
    issuers.put_keys(0, key_set(&[mine.jwk("k")]), None).unwrap();
    issuers.put_keys(1, key_set(&[other.jwk("k")]), None).unwrap();
    let token = |key: &Signer, claims: &Value| verify_under(&issuers, &key.token(Algorithm::Es256, "k", claims));
    assert!(token(&mine, &claims()).is_ok());
    // The other issuer signs in the name of the first, and in its own with the first one's audience.
    assert_eq!(rule(token(&other, &claims())), Some(TokenError::Signature));
    let own = with("iss", json!("https://other.example"));
    assert_eq!(rule(token(&other, &own)), Some(TokenError::Audience));
    assert_eq!(rule(token(&mine, &own)), Some(TokenError::Signature));
}

/// The identity provider of one tenant must not make end users of another.
#[test]
fn an_issuer_speaks_for_the_people_of_its_tenants_alone() {
    let only = |tenants: &[&str]| {
        let tenants = tenants.iter().map(|tenant| TenantId::parse(tenant).unwrap()).collect();
        rule(judge_under(|settings| settings.tenants = IssuerTenants::Only(tenants), &claims()))
    };
    assert_eq!(only(&["globex", "acme"]), None);
    assert_eq!(only(&["globex"]), Some(TokenError::ForeignTenant));
    assert_eq!(only(&["acme2", "acm"]), Some(TokenError::ForeignTenant));
    assert_eq!(only(&[]), Some(TokenError::ForeignTenant));
}

/// What is remembered is the token in one workload's hand, and only as long as verifying it again would prove the same.
#[test]
fn a_remembered_token_ends_with_its_keys_its_time_and_its_workload() {
    let issuers = Issuers::new(vec![settings()]).unwrap();
    let (key, other) = (Signer::p256(), Signer::p256());
    issuers.put_keys(0, key_set(&[key.jwk("k")]), Some(Timestamp(NOW.0 + 5000))).unwrap();
    let token = key.token(Algorithm::Es256, "k", &claims());
    let recall =
        |who: usize, at: Timestamp| issuers.end_user(token.as_bytes(), &WORKLOADS[who], at).map(|user| user.mfa());
    assert_eq!(recall(0, NOW), Ok(true));
    assert_eq!(recall(0, NOW), Ok(true));
    assert_eq!(recall(1, NOW), Err(TokenError::OtherCertificate));
    assert_eq!(recall(0, Timestamp(NOW.0 + 5000)), Err(TokenError::NoKeys));
    issuers.put_keys(0, key_set(&[key.jwk("k")]), None).unwrap();
    assert_eq!(recall(0, Timestamp(NOW.0 + 5000)), Ok(true));
    assert_eq!(recall(0, Timestamp(NOW.0 + 320_000)), Err(TokenError::Expired));
    issuers.put_keys(0, key_set(&[other.jwk("o")]), None).unwrap();
    assert_eq!(recall(0, NOW), Err(TokenError::UnknownKey));
}
