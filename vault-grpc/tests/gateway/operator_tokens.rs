//! Operators' tokens over the wire: each rule that a token can break, and what they are good for.

use std::fs;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tonic::Request;
use tonic::metadata::MetadataMap;
use vault_client::{ClientError, Code, EndUserToken, OperatorClient, OperatorTokens, Target};
use vault_core::audit::Body;
use vault_grpc::dev_tokens::DevIssuer;
use vault_grpc::init::OPERATOR_ISSUER;
use vault_proto::v1::ListTenantsRequest;
use vault_proto::v1::tenant_service_client::TenantServiceClient;

use super::audit_entries::entries;
use super::identity_provider::IdentityProvider;
use super::metrics::metrics;
use super::support::{Fixture, operator_id};

const AUDIENCE: &str = "https://vault.example/operators";
const FOR_END_USERS: &str = "https://vault.example";

/// A gateway that demands tokens, and who makes them.
struct Strict {
    fixture: Fixture,
    issuer: DevIssuer,
}

impl Strict {
    async fn start() -> Self {
        let issuer = DevIssuer::new(OPERATOR_ISSUER, AUDIENCE).unwrap();
        let users = DevIssuer::new(OPERATOR_ISSUER, FOR_END_USERS).unwrap().table("end_users.issuer", "jwks.json");
        let fixture = Fixture::start_with(|made, text| {
            fs::write(made.config.with_file_name("jwks.json"), issuer.jwks()).unwrap();
            let operators = issuer.table("operators.issuer", "jwks.json");
            let users = format!("{users}tenants = [\"*\"]\nbinding = \"if-present\"\n");
            format!("{text}{users}{operators}\n[metrics]\naddress = \"127.0.0.1:0\"\n")
        })
        .await;
        Self { fixture, issuer }
    }

    async fn client(&self, certificate: &str) -> OperatorClient {
        let at = self.fixture.endpoint(self.fixture.gateway.control_addr(), certificate);
        OperatorClient::connect(&at).await.unwrap()
    }

    /// What a call says with a certificate and a token.
    async fn call(&self, certificate: &str, token: &str) -> Result<(), ClientError> {
        let client = self.client(certificate).await.with_tokens(OperatorTokens::fixed(token));
        client.list_tenants(0, "").await.map(drop)
    }

    /// The reason for which a call is refused that comes with these metadata.
    async fn raw(&self, metadata: &[&str]) -> String {
        let at = self.fixture.endpoint(self.fixture.gateway.control_addr(), "operator-alice");
        let mut client = TenantServiceClient::new(at.channel().await.unwrap());
        let mut request = Request::new(ListTenantsRequest::default());
        let map: &mut MetadataMap = request.metadata_mut();
        for value in metadata {
            map.append("authorization", value.parse().unwrap());
        }
        match client.list_tenants(request).await {
            Ok(_) => String::new(),
            Err(status) => ClientError::from(status).reason().to_owned(),
        }
    }

    fn thumbprint(&self, certificate: &str) -> String {
        let pem = fs::read(self.fixture.root().join(format!("certs/{certificate}.pem"))).unwrap();
        let certificate = CertificateDer::from_pem_slice(&pem).unwrap();
        URL_SAFE_NO_PAD.encode(digest(&SHA256, &certificate))
    }
}

/// One gateway for all that are refused: it lives as long as this process.
struct Shared {
    runtime: Runtime,
    strict: Strict,
}

static SHARED: LazyLock<Shared> = LazyLock::new(|| {
    let runtime = Runtime::new().unwrap();
    let strict = runtime.block_on(Strict::start());
    Shared { runtime, strict }
});

/// The reason for which alice is refused with a token whose claims are edited; empty if she is not.
fn tried(edit: impl FnOnce(&mut Value, &Strict)) -> String {
    let Shared { runtime, strict } = &*SHARED;
    let mut claims = strict.issuer.claims("alice").unwrap();
    edit(&mut claims, strict);
    let token = strict.issuer.sign(&claims).unwrap();
    reason(runtime.block_on(strict.call("operator-alice", &token)))
}

fn reason(answer: Result<(), ClientError>) -> String {
    match answer {
        Ok(()) => String::new(),
        Err(error) => {
            assert_eq!(error.code(), Code::Unauthenticated, "{error}");
            error.reason().to_owned()
        }
    }
}

fn remove(claims: &mut Value, name: &str) {
    claims.as_object_mut().unwrap().remove(name).unwrap();
}

macro_rules! refused {
    ($($name:ident: $edit:expr => $reason:literal;)+) => {$(
        #[test]
        fn $name() {
            assert_eq!(tried($edit), $reason);
        }
    )+};
}

refused! {
    a_token_with_a_fresh_second_factor_is_let_through: |_, _| {} => "";
    a_token_bound_to_this_certificate_is_let_through:
        |claims, strict| claims["cnf"] = json!({"x5t#S256": strict.thumbprint("operator-alice")}) => "";
    a_token_for_another_audience: |claims, _| claims["aud"] = json!("https://elsewhere.example") => "TOKEN_AUDIENCE";
    an_end_users_token_at_the_control_plane: |claims, _| claims["aud"] = json!(FOR_END_USERS) => "TOKEN_AUDIENCE";
    a_token_of_another_issuer: |claims, _| claims["iss"] = json!("https://elsewhere.example") => "TOKEN_ISSUER";
    a_token_whose_expiry_is_a_string:
        |claims, _| claims["exp"] = json!(claims["exp"].to_string()) => "TOKEN_EXPIRY";
    a_token_without_expiry: |claims, _| remove(claims, "exp") => "TOKEN_EXPIRY";
    a_token_that_has_expired: |claims, _| {
        let issued = claims["iat"].as_u64().unwrap() - 3_000;
        (claims["iat"], claims["exp"]) = (json!(issued), json!(issued + 60));
    } => "TOKEN_EXPIRED";
    a_sign_in_that_was_too_long_ago:
        |claims, _| claims["auth_time"] = json!(claims["auth_time"].as_u64().unwrap() - 901) => "TOKEN_STALE";
    a_sign_in_at_no_known_time: |claims, _| remove(claims, "auth_time") => "TOKEN_SIGN_IN_TIME";
    a_sign_in_to_come:
        |claims, _| claims["auth_time"] = json!(claims["auth_time"].as_u64().unwrap() + 600) => "TOKEN_AUTH_TIME";
    a_sign_in_without_a_second_factor: |claims, _| claims["amr"] = json!(["pwd"]) => "TOKEN_SECOND_FACTOR";
    a_sign_in_that_does_not_say_how: |claims, _| remove(claims, "amr") => "TOKEN_SECOND_FACTOR";
    another_persons_token_with_my_certificate: |claims, _| claims["sub"] = json!("bob") => "TOKEN_OTHER_PERSON";
    a_token_of_nobody_in_the_list: |claims, _| claims["sub"] = json!("mallory") => "TOKEN_OTHER_PERSON";
    a_token_bound_to_another_certificate:
        |claims, strict| claims["cnf"] = json!({"x5t#S256": strict.thumbprint("operator-bob")}) => "TOKEN_OTHER_CERTIFICATE";
    a_token_bound_to_another_certificate_of_the_same_person:
        |claims, strict| claims["cnf"] = json!({"x5t#S256": strict.thumbprint("operator-alice-2")})
        => "TOKEN_OTHER_CERTIFICATE";
    a_token_bound_to_a_key: |claims, _| claims["cnf"] = json!({"jkt": "AAAA"}) => "TOKEN_CONFIRMATION";
}

/// A token with another header, and with a signature or none.
fn with_header(header: &Value, signature: bool) -> String {
    let Shared { runtime, strict } = &*SHARED;
    let token = strict.issuer.token("alice").unwrap();
    let mut parts = token.split('.');
    let (_, claims, signed) = (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
    let signed = if signature { signed } else { "" };
    let token = format!("{}.{claims}.{signed}", URL_SAFE_NO_PAD.encode(header.to_string()));
    reason(runtime.block_on(strict.call("operator-alice", &token)))
}

#[test]
fn a_token_without_signature() {
    for alg in ["none", "None", "NONE", "HS256"] {
        let refused = with_header(&json!({"alg": alg, "typ": "at+jwt", "kid": "one"}), false);
        assert_eq!(refused, "TOKEN_ALGORITHM", "{alg}");
    }
    assert_eq!(with_header(&json!({"alg": "EdDSA", "typ": "at+jwt", "kid": "one"}), false), "TOKEN_SIGNATURE");
}

#[test]
fn a_token_that_brings_its_own_key_or_is_an_id_token() {
    let brings = json!({"alg": "EdDSA", "typ": "at+jwt", "kid": "one", "jwk": {"kty": "OKP"}});
    assert_eq!(with_header(&brings, true), "TOKEN_EMBEDDED_KEY");
    assert_eq!(with_header(&json!({"alg": "EdDSA", "typ": "JWT", "kid": "one"}), true), "TOKEN_TYPE");
    assert_eq!(with_header(&json!({"alg": "EdDSA", "typ": "at+jwt", "kid": "two"}), true), "TOKEN_UNKNOWN_KEY");
}

#[test]
fn a_token_signed_by_somebody_else() {
    let Shared { runtime, strict } = &*SHARED;
    let forged = DevIssuer::new(OPERATOR_ISSUER, AUDIENCE).unwrap().token("alice").unwrap();
    assert_eq!(reason(runtime.block_on(strict.call("operator-alice", &forged))), "TOKEN_SIGNATURE");
}

#[test]
fn my_token_with_another_persons_certificate() {
    let Shared { runtime, strict } = &*SHARED;
    let token = strict.issuer.token("alice").unwrap();
    assert_eq!(reason(runtime.block_on(strict.call("operator-bob", &token))), "TOKEN_OTHER_PERSON");
    assert_eq!(reason(runtime.block_on(strict.call("operator-alice-2", &token))), "", "her own, whichever certificate");
}

#[test]
fn a_certificate_alone_or_with_what_is_no_bearer_token() {
    let Shared { runtime, strict } = &*SHARED;
    let token = strict.issuer.token("alice").unwrap();
    let (good, basic) = (format!("Bearer {token}"), "Basic YWxpY2U6YWxpY2U=".to_owned());
    runtime.block_on(async {
        assert_eq!(strict.raw(&[]).await, "TOKEN_MISSING");
        assert_eq!(strict.raw(&[&basic]).await, "TOKEN_SCHEME");
        assert_eq!(strict.raw(&[&token]).await, "TOKEN_SCHEME");
        assert_eq!(strict.raw(&[&good, &good]).await, "TOKEN_SEVERAL");
        assert_eq!(strict.raw(&["Bearer x.y"]).await, "TOKEN_MALFORMED");
        assert_eq!(strict.raw(&[&format!("Bearer {}", "a".repeat(8_193))]).await, "TOKEN_TOO_LARGE");
        assert_eq!(strict.raw(&[&good]).await, "");
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_calls_are_counted_and_are_no_decisions() {
    let strict = Strict::start().await;
    let alice = strict.client("operator-alice").await;
    for _ in 0..3 {
        assert_eq!(reason(alice.create_tenant("acme", None, "test").await.map(drop)), "TOKEN_MISSING");
    }
    let text = metrics(&strict.fixture).await;
    assert!(text.contains("blindvault_operator_calls_refused_total{rule=\"token_missing\"} 3"), "{text}");
    assert!(!text.contains("blindvault_connections_refused_total{plane=\"control\""), "{text}");
    let audit = strict.fixture.root().join("data/audit");
    let Strict { fixture, .. } = strict;
    fixture.gateway.shutdown().await.unwrap();
    let entries = entries(&audit);
    let counted: u64 = entries
        .iter()
        .filter_map(|entry| match &entry.body {
            Body::System { event, detail, second, .. } if event == "refusals" && detail == "token_missing" => {
                Some(*second)
            }
            _ => None,
        })
        .sum();
    assert_eq!(counted, 3);
    let decided = |body: &Body| matches!(body, Body::Intent { .. } | Body::Refused { .. } | Body::Control { .. });
    assert!(!entries.iter().any(|entry| decided(&entry.body)), "none of them reached the policies");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operators_token_does_nothing_at_the_data_plane() {
    let strict = Strict::start().await;
    let token = strict.issuer.token("alice").unwrap();
    let alice = strict.client("operator-alice").await.with_tokens(OperatorTokens::fixed(&*token));
    for tenant in ["acme", "globex"] {
        alice.create_tenant(tenant, None, "test").await.unwrap();
        alice.create_dataset(tenant, "customers", "", "", "test").await.unwrap();
    }
    let billing = strict.fixture.workload("billing").await;
    let own = Target::new("acme", "customers", "billing");
    let sealed = billing.encrypt(&own, b"x").await.unwrap();
    // As the token of an end user it is of another audience.
    let with = own.clone().end_user(EndUserToken::new(&token));
    let refused = billing.decrypt(&with, sealed.envelope.clone()).await.map(drop).unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::PermissionDenied, "denied by end_user"));
    // In the metadata it is not read: neither is more allowed with it, nor less.
    let at = strict.fixture.endpoint(strict.fixture.gateway.data_addr(), "billing");
    let mut raw = vault_proto::v1::crypto_service_client::CryptoServiceClient::new(at.channel().await.unwrap());
    for (tenant, code) in [("acme", None), ("globex", Some(Code::PermissionDenied))] {
        let mut request = Request::new(vault_proto::v1::DecryptRequest {
            tenant: tenant.into(),
            dataset: "customers".into(),
            purpose: "billing".into(),
            envelope: sealed.envelope.to_vec().into(),
            ..Default::default()
        });
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        assert_eq!(raw.decrypt(request).await.err().map(|status| status.code()), code, "{tenant}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_in_no_list_is_refused_with_an_entry_whatever_token_they_bring() {
    let strict = Strict::start().await;
    let issued =
        strict.fixture.made.operator_ca.issue(&vault_grpc::pki::Leaf::client("m", &operator_id("mallory"))).unwrap();
    let address = strict.fixture.gateway.control_addr().to_string();
    let server_ca = strict.fixture.made.server_ca.pem();
    let endpoint =
        vault_client::Endpoint::new(address, "localhost", server_ca, issued.certificate.as_str(), issued.key.as_str());
    let mallory = OperatorClient::connect(&endpoint).await.unwrap();
    assert_eq!(reason(mallory.list_tenants(0, "").await.map(drop)), "TOKEN_MISSING");
    let with = mallory.with_tokens(OperatorTokens::fixed(strict.issuer.token("alice").unwrap()));
    let refused = with.list_tenants(0, "").await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::PermissionDenied, "denied by operator"));
    let audit = strict.fixture.root().join("data/audit");
    let Strict { fixture, .. } = strict;
    fixture.gateway.shutdown().await.unwrap();
    let refused = entries(&audit).into_iter().find_map(|entry| match entry.body {
        Body::Refused { decided, check, .. } => Some((decided.principal, check)),
        _ => None,
    });
    assert_eq!(refused, Some((operator_id("mallory"), "operator".to_owned())));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certified_provider_signs_operators_in() {
    let Some(mut provider) = IdentityProvider::start("a_certified_provider_signs_operators_in") else { return };
    let table = format!(
        "\n[[operators.issuer]]\nissuer = \"{0}\"\naudiences = [\"{FOR_END_USERS}\"]\njwks_url = \"{0}/jwks\"\n\
         cooldown_s = 1\nbinding = \"required\"\n",
        provider.issuer
    );
    let name = provider.issuer.clone();
    let fixture = Fixture::start_with(|made, text| {
        super::operator_lists::rewrite(made.config.parent().unwrap(), 2, |people| {
            people
                .iter_mut()
                .for_each(|person| person.tokens.iter_mut().for_each(|token| token.issuer.clone_from(&name)));
        });
        text + &table
    })
    .await;
    let certificate = |name: &str| fs::read_to_string(fixture.root().join(format!("certs/{name}.pem"))).unwrap();
    let alices = fixture.operator().await;
    let mut ask = async |sub: &str, amr: &[&str], bound_to: &str| {
        let (access, id) = provider.sign_in(sub, "acme", amr, &certificate(bound_to));
        let call = |token: String| alices.clone().with_tokens(OperatorTokens::fixed(token));
        let (access, id) = (call(access).list_tenants(0, "").await, call(id).list_tenants(0, "").await);
        assert!(reason(id.map(drop)).starts_with("TOKEN_"), "an ID token is no access token");
        reason(access.map(drop))
    };
    assert_eq!(ask("alice", &["pwd", "mfa"], "operator-alice").await, "");
    assert_eq!(ask("alice", &["pwd"], "operator-alice").await, "TOKEN_SECOND_FACTOR");
    assert_eq!(ask("bob", &["pwd", "mfa"], "operator-alice").await, "TOKEN_OTHER_PERSON");
    assert_eq!(ask("alice", &["pwd", "mfa"], "operator-bob").await, "TOKEN_OTHER_CERTIFICATE");
    // The provider changes its key: that of a new token is fetched.
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    provider.rotate();
    let (renewed, _) = provider.sign_in("alice", "acme", &["pwd", "mfa"], &certificate("operator-alice"));
    alices.clone().with_tokens(OperatorTokens::fixed(renewed)).list_tenants(0, "").await.unwrap();
}
