//! Consents and grants over the wire: end users with tokens of a provider of the test's own, and two operators.
#![cfg(feature = "dev")]
#![expect(clippy::unwrap_used, reason = "tests")]

#[expect(unreachable_pub, dead_code, reason = "shared by several tests")]
mod common;

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use common::Site;
use rcgen::{KeyPair, PKCS_ED25519, SigningKey as _};
use tonic::Code;
use vault_client::{ClientError, ConsentClient, EndUserToken, OperatorClient, Target, VaultClient};
use vault_grpc::Gateway;
use vault_grpc::config::Config;
use vault_grpc::init::{OPERATOR_DOMAIN, WORKLOAD_DOMAIN, init};
use vault_grpc::pki::Leaf;
use vault_proto::Timestamp;
use vault_proto::v1::{ApprovalState, Consent, CreateDatasetRequest, GrantOrder};

const ISSUER: &str = "https://id.example";
const TENANT: &str = "acme";

/// An identity provider: one Ed25519 key.
struct Provider(KeyPair);

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().try_into().unwrap()
}

impl Provider {
    fn new() -> Self {
        Self(KeyPair::generate_for(&PKCS_ED25519).unwrap())
    }

    fn jwks(&self) -> String {
        let x = b64(self.0.public_key_raw());
        format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","kid":"one","x":"{x}"}}]}}"#)
    }

    fn token(&self, tenant: &str, amr: &str) -> EndUserToken {
        let now = now();
        let header = b64(r#"{"alg":"EdDSA","typ":"at+jwt","kid":"one"}"#);
        let claims = b64(format!(
            r#"{{"iss":"{ISSUER}","aud":"https://vault.example","sub":"ann","tenant":"{tenant}","client_id":"portal",
            "jti":"1","iat":{now},"exp":{},"auth_time":{now},"amr":["pwd","{amr}"]}}"#,
            now + 300
        ));
        let signature = b64(self.0.sign(format!("{header}.{claims}").as_bytes()).unwrap());
        EndUserToken::new(&format!("{header}.{claims}.{signature}"))
    }
}

/// A gateway that knows the provider, with the datasets `customers`, which demands consent, and `orders`; the workload
/// `billing` may ask for consents, too.
async fn site(provider: &Provider) -> Site {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("site");
    let made = init(&at, 0, 0).unwrap();
    let registry = fs::read_to_string(at.join("policies/registry.toml")).unwrap();
    let registry = registry.replacen("\"rewrapper\"]", "\"rewrapper\", \"consent\"]", 1);
    assert!(registry.contains("consent"));
    let support = format!(
        "\n[[workload]]\nid = \"spiffe://{WORKLOAD_DOMAIN}/ns/shop/sa/support\"\nservice = \"support\"\n\
         environment = \"dev\"\ntenants = [\"{TENANT}\"]\nroles = [\"writer\"]\n"
    );
    fs::write(at.join("policies/registry.toml"), registry + &support).unwrap();
    fs::write(at.join("jwks.json"), provider.jwks()).unwrap();
    let config = fs::read_to_string(&made.config).unwrap();
    let issuer = format!(
        "\n[[end_users.issuer]]\nissuer = \"{ISSUER}\"\naudiences = [\"https://vault.example\"]\n\
         tenants = [\"{TENANT}\"]\njwks_file = \"jwks.json\"\nbinding = \"if-present\"\n"
    );
    fs::write(&made.config, config + &issuer).unwrap();
    let gateway = Gateway::start(Config::load(&made.config).unwrap()).await.unwrap();
    let site = Site { dir, made, gateway };
    let operator = OperatorClient::connect(&site.operator(site.gateway.control_addr())).await.unwrap();
    operator.create_tenant(TENANT, None, "test").await.unwrap();
    for (dataset, consent_required) in [("customers", true), ("orders", false)] {
        let wanted = CreateDatasetRequest {
            tenant: TENANT.into(),
            dataset: dataset.into(),
            reason: "test".into(),
            consent_required,
            ..Default::default()
        };
        assert_eq!(operator.create_dataset_as(wanted).await.unwrap().consent_required, consent_required);
        assert_eq!(operator.get_dataset(TENANT, dataset).await.unwrap().consent_required, consent_required);
    }
    site
}

fn consent(datasets: &[&str], purpose: &str) -> Consent {
    let datasets = datasets.iter().map(|name| (*name).to_owned()).collect();
    Consent { tenant: TENANT.into(), datasets, purposes: vec![purpose.into()], ..Default::default() }
}

fn denied(error: &ClientError, check: &str) {
    assert_eq!((error.code(), error.message()), (Code::PermissionDenied, format!("denied by {check}").as_str()));
}

fn field(error: &ClientError) -> (Code, String) {
    (error.code(), error.violations().first().map(|v| v.field.clone()).unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_user_consents_and_takes_it_back() {
    let provider = Provider::new();
    let site = site(&provider).await;
    let endpoint = site.workload(site.gateway.data_addr());
    let vault = VaultClient::connect(&endpoint).await.unwrap();
    let consents = ConsentClient::connect(&endpoint).await.unwrap();
    let target = Target::new(TENANT, "customers", "billing");
    let envelope = vault.encrypt(&target, b"a value").await.unwrap().envelope;
    let decrypt = async || vault.decrypt(&target, envelope.clone()).await;
    denied(&decrypt().await.unwrap_err(), "policy");
    let ann = provider.token(TENANT, "mfa");
    let for_billing = consent(&["customers"], "billing");
    // Another purpose and another dataset; no second factor, another tenant's people, a stranger's key, no token.
    consents.grant(&ann, consent(&["customers"], "marketing")).await.unwrap();
    consents.grant(&ann, consent(&["orders"], "billing")).await.unwrap();
    for token in [provider.token(TENANT, "otp"), provider.token("globex", "mfa"), Provider::new().token(TENANT, "mfa")]
    {
        denied(&consents.grant(&token, for_billing.clone()).await.unwrap_err(), "end_user");
    }
    for token in ["", "no token"] {
        let refused = consents.grant(&EndUserToken::new(token), for_billing.clone()).await.unwrap_err();
        assert_eq!(field(&refused), (Code::InvalidArgument, "end_user_token".to_owned()));
    }
    denied(&decrypt().await.unwrap_err(), "policy");
    let given = consents.grant(&ann, for_billing.clone()).await.unwrap();
    let given_consent = given.consent.unwrap();
    assert_eq!(given_consent.granted.as_ref().unwrap().issuer, ISSUER);
    assert_eq!(decrypt().await.unwrap().plaintext.as_bytes(), b"a value");
    // The next call is refused; what was said stays readable.
    let withdrawn = consents.withdraw(&ann, TENANT, &given_consent.consent).await.unwrap();
    denied(&decrypt().await.unwrap_err(), "policy");
    assert!(withdrawn.audit_entry > given.audit_entry);
    let again = consents.withdraw(&ann, TENANT, &given_consent.consent).await.unwrap();
    assert_eq!(again.consent, withdrawn.consent);
    let first = consents.list(&ann, TENANT, 2, "").await.unwrap();
    let rest = consents.list(&ann, TENANT, 2, &first.next_page_token).await.unwrap();
    assert_eq!((first.consents.len(), rest.consents.len(), rest.next_page_token.as_str()), (2, 1, ""));
    assert_eq!(rest.consents.into_iter().next(), withdrawn.consent);
    // What is wrong is named.
    let unknown = consents.withdraw(&ann, TENANT, &"0".repeat(32)).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    let past = Consent { end_time: Some(Timestamp { seconds: 1, nanos: 0 }), ..for_billing };
    for (wrong, named) in [
        (past, "end_time"),
        (consent(&["customers", "nowhere"], "billing"), "datasets[1]"),
        (consent(&[], "billing"), "datasets"),
        (consent(&["customers"], "Billing"), "purposes[0]"),
    ] {
        let refused = consents.grant(&ann, wrong).await.unwrap_err();
        assert_eq!(field(&refused), (Code::InvalidArgument, named.to_owned()));
    }
    // For all datasets.
    let all = Consent { all_datasets: true, ..consent(&[], "billing") };
    consents.grant(&ann, all).await.unwrap();
    decrypt().await.unwrap();
    site.gateway.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_operators_grant_roles_for_a_while_and_one_ends_it() {
    let provider = Provider::new();
    let site = site(&provider).await;
    let target = Target::new(TENANT, "orders", "billing");
    let billing = VaultClient::connect(&site.workload(site.gateway.data_addr())).await.unwrap();
    let envelope = billing.encrypt(&target, b"a value").await.unwrap().envelope;
    let id = format!("spiffe://{WORKLOAD_DOMAIN}/ns/shop/sa/support");
    let issued = site.made.workload_ca.issue(&Leaf::client("support", &id)).unwrap();
    let support = VaultClient::connect(&site.endpoint_as(site.gateway.data_addr(), &issued)).await.unwrap();
    let read = async || support.decrypt(&target, envelope.clone()).await;
    denied(&read().await.unwrap_err(), "policy");
    let alice = OperatorClient::connect(&site.operator(site.gateway.control_addr())).await.unwrap();
    let bob = Leaf::client("bob", &format!("spiffe://{OPERATOR_DOMAIN}/operator/bob"));
    let bob = site.made.operator_ca.issue(&bob).unwrap();
    let bob = OperatorClient::connect(&site.endpoint_as(site.gateway.control_addr(), &bob)).await.unwrap();
    let order = GrantOrder {
        dataset: "orders".into(),
        workload: id,
        roles: vec!["reader".into()],
        end_time: Some(Timestamp { seconds: now() + 3600, nanos: 0 }),
    };
    let asked = alice.request_grant(TENANT, order.clone(), "ticket 7").await.unwrap();
    assert_eq!((asked.state(), asked.grant.as_ref()), (ApprovalState::Pending, Some(&order)));
    denied(&read().await.unwrap_err(), "policy");
    let own = alice.approve(&asked, None, "mine").await.unwrap_err();
    assert_eq!(own.code(), Code::FailedPrecondition);
    let done = bob.approve(&asked, None, "seen").await.unwrap();
    assert_eq!((done.state(), done.receipt.as_str()), (ApprovalState::Executed, ""));
    assert_eq!(read().await.unwrap().plaintext.as_bytes(), b"a value");
    let listed = alice.list_grants(TENANT, 0, "").await.unwrap().grants;
    assert_eq!((listed.len(), listed[0].order.as_ref(), listed[0].reason.as_str()), (1, Some(&order), "ticket 7"));
    let revoked = alice.revoke_grant(TENANT, &listed[0].grant, "done").await.unwrap();
    assert!(revoked.revoke_time.is_some() && revoked.revoker.ends_with("/alice"));
    denied(&read().await.unwrap_err(), "policy");
    for (wrong, named) in [
        (GrantOrder { workload: "support".into(), ..order.clone() }, "order.workload"),
        (GrantOrder { roles: vec!["Reader".into()], ..order.clone() }, "order.roles[0]"),
        (GrantOrder { end_time: Some(Timestamp { seconds: 1, nanos: 0 }), ..order.clone() }, "order.end_time"),
        (GrantOrder { dataset: "Orders".into(), ..order }, "order.dataset"),
    ] {
        let refused = alice.request_grant(TENANT, wrong, "why").await.unwrap_err();
        assert_eq!(field(&refused), (Code::InvalidArgument, named.to_owned()));
    }
    site.gateway.shutdown().await.unwrap();
}
