//! Tokens as attackers make them. Each is refused, by the rule that it breaks.

use serde_json::{Value, json};
use vault_core::principal::{Algorithm, MAX_TOKEN, TokenError};

use super::{
    AUDIENCE, ISSUER, KEYS, NOW_SECS, Signer, b64, claims, es256, issuers, judge, rule, settings, verify_under, with,
};

/// A header, validly signed over the honest claims with the P-256 key.
fn under(header: &Value) -> Option<TokenError> {
    let token = es256().token_of(Algorithm::Es256, &header.to_string(), &claims().to_string());
    rule(verify_under(&issuers(settings()), &token))
}

fn text(token: &str) -> Option<TokenError> {
    rule(verify_under(&issuers(settings()), token))
}

#[test]
fn hostile_headers_are_refused() {
    let honest = || json!({"alg": "ES256", "typ": "at+jwt", "kid": "ES256"});
    assert_eq!(under(&honest()), None);
    let with = |name: &str, value: Value| {
        let mut header = honest();
        if value.is_null() {
            header.as_object_mut().unwrap().remove(name);
        } else {
            header[name] = value;
        }
        header
    };
    let jwk = es256().jwk("ES256");
    for (name, value, expected) in [
        ("alg", json!("none"), TokenError::Algorithm),
        ("alg", json!("None"), TokenError::Algorithm),
        ("alg", json!("HS256"), TokenError::Algorithm),
        ("alg", json!("es256"), TokenError::Algorithm),
        ("alg", json!(["ES256"]), TokenError::Algorithm),
        ("alg", Value::Null, TokenError::Algorithm),
        // A key of another kind, by the algorithm's or by the key's name.
        ("alg", json!("RS256"), TokenError::KeyMismatch),
        ("alg", json!("ES384"), TokenError::KeyMismatch),
        ("kid", json!("EdDSA"), TokenError::KeyMismatch),
        ("typ", json!("JWT"), TokenError::Type),
        ("typ", json!("id_token"), TokenError::Type),
        ("typ", json!("dpop+jwt"), TokenError::Type),
        ("typ", json!("AT+JWT"), TokenError::Type),
        ("typ", json!("application/application/at+jwt"), TokenError::Type),
        ("typ", Value::Null, TokenError::Type),
        ("crit", json!(["exp"]), TokenError::Critical),
        ("crit", json!([]), TokenError::Critical),
        ("jwk", jwk.clone(), TokenError::EmbeddedKey),
        ("jku", json!("https://attacker.example/keys"), TokenError::EmbeddedKey),
        ("x5u", json!("https://attacker.example/cert"), TokenError::EmbeddedKey),
        ("x5c", json!(["MIIB"]), TokenError::EmbeddedKey),
        ("kid", Value::Null, TokenError::NoKeyId),
        ("kid", json!(""), TokenError::NoKeyId),
        ("kid", json!(0), TokenError::NoKeyId),
        ("kid", json!("k".repeat(257)), TokenError::NoKeyId),
        ("kid", json!("../../dev/null"), TokenError::UnknownKey),
        ("kid", json!("ES256' OR '1'='1"), TokenError::UnknownKey),
        ("kid", json!("es256"), TokenError::UnknownKey),
        ("kid", json!("ES256\u{0}"), TokenError::UnknownKey),
    ] {
        let header = with(name, value);
        assert_eq!(under(&header), Some(expected), "{header}");
    }
    assert_eq!(under(&with("typ", json!("application/at+jwt"))), None);
}

/// `none`, and a shared key where the public key is the secret (CVE-2015-9235 and its kin).
#[test]
fn unsigned_and_confused_tokens_are_refused() {
    let part = |header: &Value| format!("{}.{}", b64(header.to_string()), b64(claims().to_string()));
    let unsigned = part(&json!({"alg": "none", "typ": "at+jwt", "kid": "ES256"}));
    assert_eq!(text(&format!("{unsigned}.")), Some(TokenError::Algorithm));
    let jwk = es256().jwk("ES256").to_string();
    let signed = part(&json!({"alg": "HS256", "typ": "at+jwt", "kid": "ES256"}));
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, jwk.as_bytes());
    let tag = b64(aws_lc_rs::hmac::sign(&key, signed.as_bytes()));
    assert_eq!(text(&format!("{signed}.{tag}")), Some(TokenError::Algorithm));
    // No signature, one of zeros (CVE-2022-21449), one of another key, one over other claims.
    let honest = es256().token(Algorithm::Es256, "ES256", &claims());
    let (signed, signature) = honest.rsplit_once('.').unwrap();
    for wrong in [String::new(), b64([0; 64]), b64([0; 63]), b64([0xff; 64])] {
        assert_eq!(text(&format!("{signed}.{wrong}")), Some(TokenError::Signature), "{wrong}");
    }
    let forged = Signer::p256().token(Algorithm::Es256, "ES256", &claims());
    assert_eq!(text(&forged), Some(TokenError::Signature));
    let (head, _) = signed.split_once('.').unwrap();
    let other = b64(with("tenant", json!("globex")).to_string());
    assert_eq!(text(&format!("{head}.{other}.{signature}")), Some(TokenError::Signature));
    for (algorithm, key) in KEYS.iter() {
        let token = key.token(*algorithm, algorithm.name(), &claims());
        let (signed, signature) = token.rsplit_once('.').unwrap();
        assert_eq!(text(&format!("{signed}.{}", b64(signature))), Some(TokenError::Signature));
    }
}

#[test]
fn texts_that_are_no_token_are_refused() {
    let honest = es256().token(Algorithm::Es256, "ES256", &claims());
    assert_eq!(text(&honest), None);
    let parts: Vec<_> = honest.split('.').collect();
    for wrong in [
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        parts[0].to_owned(),
        parts[..2].join("."),
        format!("{honest}.{}", parts[2]),
        format!("{honest}.."),
        // Whitespace, padding, the other alphabet, bytes after the token, a scheme before it.
        format!("{honest} "),
        format!(" {honest}"),
        format!("{honest}\n"),
        format!("{honest}="),
        format!("{}=.{}.{}", parts[0], parts[1], parts[2]),
        format!("{}+/.{}.{}", parts[0], parts[1], parts[2]),
        format!("{honest}\u{0}"),
        format!("{honest}%00"),
        format!("Bearer {honest}"),
        format!("{honest}\u{200b}"),
    ] {
        let refused = text(&wrong);
        assert!(matches!(refused, Some(TokenError::Malformed | TokenError::Json)), "{wrong}: {refused:?}");
    }
    // Bits of the last character that mean nothing: one signature, one spelling.
    let last = honest.chars().last().unwrap();
    let next = char::from(u8::try_from(last).unwrap() + 1);
    assert!(text(&format!("{}{next}", &honest[..honest.len() - 1])).is_some());
    let binary =
        vault_core::principal::EndUser::verify(b"\xff.\xff.\xff", &issuers(settings()), super::shop(), super::NOW);
    assert_eq!(rule(binary), Some(TokenError::Malformed));
}

#[test]
fn size_is_bounded() {
    let with_roles = |n: usize| {
        let token = es256().token(Algorithm::Es256, "ES256", &with("padding", json!("x".repeat(n))));
        (token.len(), text(&token))
    };
    let (empty, _) = with_roles(0);
    let fits = (MAX_TOKEN - empty) * 3 / 4;
    let (len, verdict) = with_roles(fits - 2);
    assert!(len <= MAX_TOKEN && verdict.is_none());
    let (len, verdict) = with_roles(fits + 3);
    assert!(len > MAX_TOKEN && verdict == Some(TokenError::TooLarge));
    assert_eq!(text(&"A".repeat(50_000_000)), Some(TokenError::TooLarge));
}

#[test]
fn json_that_readers_could_read_differently_is_refused() {
    let header = json!({"alg": "ES256", "typ": "at+jwt", "kid": "ES256"}).to_string();
    let of = |header: &str, claims: &str| text(&es256().token_of(Algorithm::Es256, header, claims));
    let honest = claims().to_string();
    let inner = &honest[1..honest.len() - 1];
    assert_eq!(of(&header, &honest), None);
    for claims in [
        format!("{{{inner},\"tenant\":\"globex\"}}"),
        format!("{{{inner},\"tenant\":\"acme\"}}"),
        format!("{{{inner},\"\\u0065xp\":{}}}", NOW_SECS + 100),
        format!("{{{inner},\"a\":{}1{}}}", "[".repeat(2000), "]".repeat(2000)),
        format!("{{{inner},\"a\":{}1{}}}", "{\"a\":".repeat(8), "}".repeat(8)),
        format!("{honest}{honest}"),
        format!("{honest} x"),
        format!("[{honest}]"),
        format!("\u{feff}{honest}"),
        honest.replace('"', "'"),
        String::new(),
        "null".to_owned(),
    ] {
        assert_eq!(of(&header, &claims), Some(TokenError::Json), "{claims}");
    }
    for header in [
        "{\"alg\":\"none\",\"alg\":\"ES256\",\"typ\":\"at+jwt\",\"kid\":\"ES256\"}",
        "{\"alg\":\"ES256\",\"typ\":\"at+jwt\",\"kid\":\"ES256\",\"kid\":\"EdDSA\"}",
        "[]",
        "",
    ] {
        assert_eq!(of(header, &honest), Some(TokenError::Json), "{header}");
    }
}

#[test]
fn claims_of_others_are_refused() {
    for (name, value, expected) in [
        ("iss", json!("https://attacker.example"), TokenError::Issuer),
        ("iss", json!(format!("{ISSUER}/")), TokenError::Issuer),
        ("iss", json!("https://ID.example"), TokenError::Issuer),
        ("iss", json!(format!(" {ISSUER}")), TokenError::Issuer),
        ("iss", json!("https://id.ex\u{0430}mple"), TokenError::Issuer),
        ("iss", json!([ISSUER]), TokenError::Issuer),
        ("iss", Value::Null, TokenError::Issuer),
        ("aud", json!("https://other.example"), TokenError::Audience),
        ("aud", json!(format!("{AUDIENCE}/")), TokenError::Audience),
        ("aud", json!(format!("{AUDIENCE} https://other.example")), TokenError::Audience),
        ("aud", json!(["https://other.example"]), TokenError::Audience),
        ("aud", json!([AUDIENCE, 7]), TokenError::Audience),
        ("aud", json!([]), TokenError::Audience),
        ("aud", json!({"a": AUDIENCE}), TokenError::Audience),
        ("aud", Value::Null, TokenError::Audience),
        ("sub", Value::Null, TokenError::Subject),
        ("sub", json!(""), TokenError::Subject),
        ("sub", json!(7), TokenError::Subject),
        ("sub", json!("an\u{301}n"), TokenError::Subject),
        ("sub", json!("ann "), TokenError::Subject),
        ("sub", json!("a".repeat(257)), TokenError::Subject),
        ("jti", Value::Null, TokenError::TokenId),
        ("jti", json!(""), TokenError::TokenId),
        ("jti", json!(1), TokenError::TokenId),
        ("jti", json!("j".repeat(257)), TokenError::TokenId),
    ] {
        let claims = with(name, value);
        assert_eq!(rule(judge(&claims)), Some(expected), "{claims}");
    }
    assert!(judge(&with("aud", json!(["https://other.example", AUDIENCE]))).is_ok());
}

#[test]
fn tenants_and_names_are_compared_by_exact_bytes() {
    for tenant in [
        json!("Acme"),
        json!("ACME"),
        json!(" acme"),
        json!("acme "),
        json!("acme\n"),
        json!("ac me"),
        json!("\u{0430}cme"),
        json!("acme\u{200b}"),
        json!("acm\u{e9}"),
        json!("acme/../globex"),
        json!("acme,globex"),
        json!(["acme"]),
        json!({"id": "acme"}),
        json!(7),
        json!(""),
        json!("*"),
        Value::Null,
    ] {
        let claims = with("tenant", tenant);
        assert_eq!(rule(judge(&claims)), Some(TokenError::Tenant), "{claims}");
    }
    for list in [
        json!("clerk"),
        json!(["clerk", 7]),
        json!(["clerk", ""]),
        json!([" clerk"]),
        json!(["cl\u{0435}rk"]),
        json!(["clerk\u{200b}"]),
        json!(["clerk\n"]),
        json!(["r".repeat(257)]),
        json!({"clerk": true}),
    ] {
        assert_eq!(rule(judge(&with("roles", list.clone()))), Some(TokenError::Roles), "{list}");
        assert_eq!(rule(judge(&with("amr", list.clone()))), Some(TokenError::Authentication), "{list}");
    }
    for acr in [json!(["high"]), json!(1), json!(""), json!("h\u{0456}gh")] {
        assert_eq!(rule(judge(&with("acr", acr.clone()))), Some(TokenError::Authentication), "{acr}");
    }
    assert!(judge(&with("roles", json!(["Senior Clerk", "clerk"]))).is_ok());
}
