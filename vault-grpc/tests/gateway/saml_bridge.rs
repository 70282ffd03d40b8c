//! End users whose identity provider speaks SAML only: an OpenID Connect provider verifies the signed assertion and
//! gives the token that the gateway takes. What the bridge does not believe becomes no token, hence no plaintext.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::end_users::{Card, END_USER, issuer, start};
use super::identity_provider::IdentityProvider;

const PASSWORD: &str = "urn:oasis:names:tc:SAML:2.0:ac:classes:PasswordProtectedTransport";
/// The REFEDS profile for sign-ins with a second factor.
const MFA: &str = "https://refeds.org/profile/mfa";

/// A person who comes from the SAML side: how and how long ago they signed in there.
fn wish(certificate: &str, class: &str, age_s: u64) -> Value {
    json!({
        "sub": "ann.of.acme", "tenant": "acme", "roles": ["clerk"], "class": class, "age": age_s, "cert": certificate,
    })
}

fn token_of(answer: &Value) -> &str {
    answer["access_token"].as_str().unwrap()
}

fn claims(token: &str) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap()
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saml_assertion_becomes_a_token_with_how_and_when_the_person_signed_in() {
    let name = "a_saml_assertion_becomes_a_token_with_how_and_when_the_person_signed_in";
    let Some(mut bridge) = IdentityProvider::start_bridge(name) else { return };
    let fixture = start(issuer(&bridge.issuer, &format!("jwks_url = \"{}/jwks\"", bridge.issuer))).await;
    let card = Card::seal(&fixture).await;
    let certificate = fs::read_to_string(fixture.root().join("certs/billing.pem")).unwrap();
    let other = fs::read_to_string(fixture.root().join("certs/storefront.pem")).unwrap();

    // A password alone does not open it; stepping up does.
    let weak = bridge.ask(&wish(&certificate, PASSWORD, 10));
    assert_eq!(card.try_open(Some(token_of(&weak))).await, "denied by policy");
    let strong = bridge.ask(&wish(&certificate, MFA, 10));
    assert_eq!(card.try_open(Some(token_of(&strong))).await, "");
    let said = claims(token_of(&strong));
    assert_eq!(
        (&said["sub"], &said["tenant"], &said["roles"]),
        (&json!("ann.of.acme"), &json!("acme"), &json!(["clerk"]))
    );
    assert_eq!((&said["acr"], &said["amr"]), (&json!(MFA), &json!(["pwd", "mfa"])));
    // The time is that of the sign-in. One of long ago is not made fresh by an exchange of now.
    let old = bridge.ask(&wish(&certificate, MFA, 1000));
    let said = claims(token_of(&old));
    let (at, issued) = (said["auth_time"].as_u64().unwrap(), said["iat"].as_u64().unwrap());
    assert!((995..=1005).contains(&(now_s() - at)) && now_s() - issued < 60, "{at} {issued}");
    assert_eq!(card.try_open(Some(token_of(&old))).await, "denied by policy");
    // The rules of tokens are those of any issuer: another workload's, and a tenant that this one may not speak for.
    let stolen = bridge.ask(&wish(&other, MFA, 10));
    assert_eq!(card.try_open(Some(token_of(&stolen))).await, END_USER);
    let mut foreign = wish(&certificate, MFA, 10);
    foreign["tenant"] = json!("globex");
    let foreign = bridge.ask(&foreign);
    assert_eq!(card.try_open(Some(token_of(&foreign))).await, END_USER);
    fixture.gateway.shutdown().await.unwrap();
}

/// Attacks on the way from the SAML provider to the bridge, and what the bridge says of each.
const REFUSED: &[(&str, &str)] = &[
    ("unsigned", "Invalid signature"),
    ("tampered", "Invalid signature"),
    ("tampered_tenant", "Invalid signature"),
    ("tampered_digest", "Invalid signature"),
    ("two_signed_infos", "Invalid signature"),
    ("foreign_key", "Invalid signature"),
    ("confused", "Invalid signature"),
    ("wrapped_before", "multiple assertions"),
    ("wrapped_behind", "multiple assertions"),
    ("wrapped_inside", "Invalid signature"),
    ("wrapped_moved", "multiple assertions"),
    ("wrapped_in_signature", "does not refer to it's parent"),
    ("wrapped_in_extensions", "does not refer to it's parent"),
    ("same_id", "more than one element"),
    ("audience", "audience mismatch"),
    ("no_audience", "no AudienceRestriction"),
    ("recipient", "another recipient"),
    ("expired", "No valid subject confirmation"),
    ("too_old", "No valid subject confirmation"),
    ("endless", "NotOnOrAfter"),
    ("not_yet", "not yet valid"),
    ("another_entity", "another issuer"),
    ("unknown_class", "unknown class"),
    ("unasked", "another request"),
    ("another_request", "InResponseTo does not match"),
    ("replayed", "InResponseTo is not valid"),
    ("replayed_anew", "InResponseTo does not match"),
    ("entities", "a document type"),
    ("no_answer", "Missing SAML assertion"),
    ("no_xml", "InResponseTo is missing"),
];

#[test]
fn an_assertion_that_is_not_believed_becomes_no_token() {
    let Some(mut bridge) = IdentityProvider::start_bridge("an_assertion_that_is_not_believed_becomes_no_token") else {
        return;
    };
    let certificate = vault_grpc::pki::Ca::new("test").unwrap().pem().to_owned();
    let good = wish(&certificate, MFA, 10);
    // Before, between and after: it is the attack that is refused, and no attack keeps others out.
    assert!(bridge.ask(&good)["access_token"].is_string());
    for (attack, why) in REFUSED {
        let mut tried = good.clone();
        tried["attack"] = json!(attack);
        let answer = bridge.ask(&tried);
        assert!(answer.get("access_token").is_none() && answer.get("id_token").is_none(), "{attack} got a token");
        let said = answer["refused"].as_str().unwrap();
        assert!(said.contains(why), "{attack} was refused for another reason: {said}");
        assert!(bridge.ask(&good)["access_token"].is_string(), "after {attack}");
    }
    // A comment within a signed name is the one thing that changes nothing: the name stays whole.
    let mut commented = good;
    commented["attack"] = json!("commented");
    assert_eq!(claims(token_of(&bridge.ask(&commented)))["sub"], "ann.of.acme.eve");
}
