//! A token issuer's key set is read or refused without a panic; private keys and repeated names are never taken; and a
//! token verifies with a set only if a second reader finds the signing key in it, under the token's `kid` and for its
//! algorithm.
#![no_main]

use std::sync::LazyLock;

use blindvault_fuzz::tokens::{NOW, WORKLOAD, issuers, public, sign};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};
use vault_core::principal::{EndUser, KeySet};
use vault_core::time::Timestamp;

static TOKEN: LazyLock<String> = LazyLock::new(|| {
    let claims = json!({
        "iss": "https://id.example", "aud": "vault", "sub": "ann", "tenant": "acme", "jti": "t", "iat": NOW,
        "exp": NOW + 300, "auth_time": NOW - 60, "amr": ["pwd", "mfa"], "roles": [],
    });
    sign(br#"{"alg":"EdDSA","typ":"at+jwt","kid":"k"}"#, claims.to_string().as_bytes())
});

fn is_signing_key(key: &Value) -> bool {
    let absent_or = |name: &str, value: &Value| key.get(name).is_none_or(|found| found == value);
    let for_verifying = |ops: &Value| ops.as_array().is_some_and(|ops| ops.contains(&json!("verify")));
    key["kty"] == "OKP" && key["crv"] == "Ed25519" && key["kid"] == "k" && key["x"] == public()
        && absent_or("use", &json!("sig")) && absent_or("alg", &json!("EdDSA"))
        && key.get("key_ops").is_none_or(for_verifying)
}

fuzz_target!(|bytes: &[u8]| {
    // The issuer's real key may stand in an input as `$x`, which no fuzzer would find.
    let text = String::from_utf8_lossy(bytes).replace("$x", &public());
    let Ok(set) = KeySet::parse(text.as_bytes()) else { return };
    let read: Value = serde_json::from_str(&text).expect("the second reader refuses it");
    let keys = read["keys"].as_array().unwrap();
    assert!(keys.len() <= 32 && text.len() <= 64 * 1024);
    assert!(keys.iter().all(|key| ["d", "p", "q", "dp", "dq", "qi", "oth"].iter().all(|part| key.get(part).is_none())));
    let mut names: Vec<_> = keys.iter().filter_map(|key| key["kid"].as_str()).collect();
    names.sort_unstable();
    names.dedup();
    assert!(set.len() <= names.len(), "a key without a name of its own");
    let issuers = issuers(set);
    let user = EndUser::verify(TOKEN.as_bytes(), &issuers, &WORKLOAD, Timestamp(NOW * 1000));
    assert_eq!(user.is_ok(), keys.iter().any(is_signing_key));
});
