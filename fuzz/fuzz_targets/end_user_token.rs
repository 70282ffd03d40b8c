//! Whatever is taken for an end user's token was signed by the pinned key, over claims that a second reader finds in
//! order too; and no bytes make it panic.
#![no_main]

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use blindvault_fuzz::tokens::{KEY, NOW, WORKLOAD, issuers, public, sign};
use libfuzzer_sys::fuzz_target;
use ring::signature::{ED25519, KeyPair as _, UnparsedPublicKey};
use serde_json::{Value, json};
use vault_core::principal::{EndUser, Issuers, KeySet};
use vault_core::time::Timestamp;

static ISSUERS: LazyLock<Issuers> = LazyLock::new(|| {
    let keys = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": public()}]}).to_string();
    issuers(KeySet::parse(keys.as_bytes()).unwrap())
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
    let token = sign(header, claims);
    let (signed, signature) = token.rsplit_once('.').unwrap();
    if verify(&token).is_some() {
        // Any change of the signature, and the token proves nobody.
        let mut other = URL_SAFE_NO_PAD.decode(signature).unwrap();
        other[claims.len() % 64] ^= 1;
        assert!(verify(&format!("{signed}.{}", URL_SAFE_NO_PAD.encode(other))).is_none());
    }
});
