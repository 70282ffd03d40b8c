//! End users over the wire: a real identity provider, keys that come and go, and what is not believed.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use vault_client::{BatchItem, ClientError, Code, EndUserToken, Target, VaultClient};
use vault_core::audit::{Body, Entry};
use vault_grpc::pki::{Ca, Leaf};
use vault_proto::v1::DecryptRequest;
use vault_proto::v1::crypto_service_client::CryptoServiceClient;

use super::audit_entries::{entries, holds};
use super::identity_provider::IdentityProvider;
use super::issuer::{AUDIENCE, ISSUER, Key, KeyServer, jwks, ok};
use super::support::{Fixture, PATIENCE};

pub(crate) const END_USER: &str = "denied by end_user";

/// The table of an issuer whose people are those of `acme`, with bearer tokens unless said otherwise.
pub(crate) fn issuer(name: &str, more: &str) -> String {
    format!("\n[[end_users.issuer]]\nissuer = \"{name}\"\naudiences = [\"{AUDIENCE}\"]\ntenants = [\"acme\"]\n{more}\n")
}

fn bearer(more: &str) -> String {
    issuer(ISSUER, &format!("binding = \"if-present\"\n{more}"))
}

pub(crate) async fn start(table: String) -> Fixture {
    let fixture = Fixture::start_with(|_, text| text + &table).await;
    fixture.tenants().await;
    fixture.operator().await.create_dataset("acme", "cards", "restricted", "", "test").await.unwrap();
    fixture
}

/// What only an end user who has just used a second factor can have decrypted.
pub(crate) struct Card {
    billing: VaultClient,
    target: Target,
    envelope: bytes::Bytes,
}

impl Card {
    pub(crate) async fn seal(fixture: &Fixture) -> Self {
        let billing = fixture.workload("billing").await;
        let target = Target::new("acme", "cards", "billing");
        let envelope = billing.encrypt(&target, b"4929 1234").await.unwrap().envelope;
        Self { billing, target, envelope }
    }

    async fn open(&self, token: Option<&str>) -> Result<(), ClientError> {
        let target = match token {
            Some(token) => self.target.clone().end_user(EndUserToken::new(token)),
            None => self.target.clone(),
        };
        let opened = self.billing.decrypt(&target, self.envelope.clone()).await?;
        assert_eq!(opened.plaintext.as_bytes(), b"4929 1234");
        Ok(())
    }

    /// Opens it, or what the refusal says.
    pub(crate) async fn try_open(&self, token: Option<&str>) -> String {
        match self.open(token).await {
            Ok(()) => String::new(),
            Err(error) => {
                assert!(matches!(error.code(), Code::PermissionDenied | Code::InvalidArgument), "{error}");
                error.message().to_owned()
            }
        }
    }
}

fn of_end_users(entries: &[Entry]) -> Vec<(&str, Option<&str>, bool)> {
    let all = entries.iter().filter_map(|entry| match &entry.body {
        Body::Intent { decided, .. } if decided.end_user.is_some() => {
            let user = decided.end_user.as_ref().unwrap();
            Some(("allowed", Some(user.issuer.as_str()), user.pseudonym.is_some()))
        }
        Body::Refused { decided, check, reason } if check == "end_user" || decided.end_user.is_some() => {
            let user = decided.end_user.as_ref();
            Some((reason.as_str(), user.map(|u| u.issuer.as_str()), user.is_some_and(|u| u.pseudonym.is_some())))
        }
        _ => None,
    });
    all.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certified_provider_signs_end_users_in_and_the_log_names_them_by_pseudonym() {
    let name = "a_certified_provider_signs_end_users_in_and_the_log_names_them_by_pseudonym";
    let Some(mut provider) = IdentityProvider::start(name) else { return };
    let url = format!("jwks_url = \"{}/jwks\"\ncooldown_s = 1", provider.issuer);
    let fixture = start(issuer(&provider.issuer, &url)).await;
    let card = Card::seal(&fixture).await;
    let certificate = fs::read_to_string(fixture.root().join("certs/billing.pem")).unwrap();
    let other = fs::read_to_string(fixture.root().join("certs/storefront.pem")).unwrap();

    let (token, id_token) = provider.sign_in("ann.of.acme", "acme", &["pwd", "mfa"], &certificate);
    assert_eq!(card.try_open(Some(&token)).await, "");
    assert_eq!(card.try_open(Some(&token)).await, "");
    // A second factor is missing; nobody is named; an ID token; bound to another workload; of another tenant.
    let (weak, _) = provider.sign_in("ann.of.acme", "acme", &["pwd"], &certificate);
    assert_eq!(card.try_open(Some(&weak)).await, "denied by policy");
    assert_eq!(card.try_open(None).await, "denied by policy");
    assert_eq!(card.try_open(Some(&id_token)).await, END_USER);
    let (stolen, _) = provider.sign_in("ann.of.acme", "acme", &["pwd", "mfa"], &other);
    assert_eq!(card.try_open(Some(&stolen)).await, END_USER);
    let (foreign, _) = provider.sign_in("gus.of.globex", "globex", &["pwd", "mfa"], &certificate);
    assert_eq!(card.try_open(Some(&foreign)).await, END_USER);
    // The provider changes its key: tokens of the new one have the keys fetched, and those of the old one end.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    provider.rotate();
    let (renewed, _) = provider.sign_in("ann.of.acme", "acme", &["pwd", "mfa"], &certificate);
    assert_eq!(card.try_open(Some(&renewed)).await, "");
    assert_eq!(card.try_open(Some(&token)).await, END_USER);

    let Fixture { dir, made, gateway } = fixture;
    gateway.shutdown().await.unwrap();
    let root = made.config.parent().unwrap();
    let entries = entries(&root.join("data/audit"));
    let from = Some(provider.issuer.as_str());
    assert_eq!(
        of_end_users(&entries),
        [
            ("allowed", from, true),
            ("allowed", from, true),
            ("a policy forbids", from, true),
            ("the token is not of the configured type", None, false),
            ("the token is bound to another certificate", None, false),
            ("the issuer may not speak for the token's tenant", None, false),
            ("allowed", from, true),
            ("the issuer has no key of this name", None, false),
        ]
    );
    let pseudonyms: Vec<_> = entries
        .iter()
        .filter_map(|entry| match &entry.body {
            Body::Intent { decided, .. } => decided.end_user.as_ref()?.pseudonym,
            _ => None,
        })
        .collect();
    assert!(pseudonyms.iter().all(|pseudonym| *pseudonym == pseudonyms[0]), "one person, one pseudonym");
    let encoded: Vec<u8> = entries.iter().flat_map(Entry::encode).collect();
    for secret in [token.as_str(), token.rsplit('.').next().unwrap(), "ann.of.acme", "gus.of.globex"] {
        assert!(!encoded.windows(secret.len()).any(|window| window == secret.as_bytes()));
        assert!(!holds(dir.path(), secret.as_bytes()), "nothing of it is in any file");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_somebody_is_comes_from_the_field_and_from_no_header() {
    let key = Key::new();
    let fixture = Fixture::start_with(|made, text| {
        fs::write(made.config.with_file_name("keys.json"), jwks(&[key.jwk("k")])).unwrap();
        text + &bearer("jwks_file = \"keys.json\"")
    })
    .await;
    fixture.tenants().await;
    fixture.operator().await.create_dataset("acme", "cards", "restricted", "", "test").await.unwrap();
    let card = Card::seal(&fixture).await;
    let token = key.token("k", "ann");
    assert_eq!(card.try_open(Some(&token)).await, "");

    let channel = fixture.endpoint(fixture.gateway.data_addr(), "billing").channel().await.unwrap();
    let mut client = CryptoServiceClient::new(channel);
    let message = DecryptRequest {
        tenant: "acme".into(),
        dataset: "cards".into(),
        purpose: "billing".into(),
        envelope: card.envelope.clone(),
        ..Default::default()
    };
    let mut request = tonic::Request::new(message);
    for (name, value) in [
        ("authorization", format!("Bearer {token}")),
        ("end_user_token", token.clone()),
        ("end-user-token", token.clone()),
        ("x-forwarded-user", "ann".to_owned()),
        ("x-forwarded-access-token", token.clone()),
        ("x-forwarded-client-cert", "URI=spiffe://workloads.dev.example/ns/shop/sa/billing".to_owned()),
        ("x-auth-request-user", "ann".to_owned()),
        ("x-goog-iap-jwt-assertion", token.clone()),
        ("on-behalf-of", "ann".to_owned()),
    ] {
        request.metadata_mut().insert(name, value.parse().unwrap());
    }
    let refused = client.decrypt(request).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::PermissionDenied, "denied by policy"));

    // What is no token is the request's fault, and named; the answer repeats nothing of it.
    for text in ["", "ann", "Bearer a.b.c", &"A".repeat(9000)] {
        let error = card.open(Some(text)).await.unwrap_err();
        assert_eq!((error.code(), error.violations()[0].field.as_str()), (Code::InvalidArgument, "end_user_token"));
    }
    // A batch is for one end user, and is refused as a whole.
    let items = || {
        vec![BatchItem::envelope("cards", card.envelope.clone()), BatchItem::envelope("cards", card.envelope.clone())]
    };
    let batch = async |token: &str| {
        let token = EndUserToken::new(token);
        card.billing.batch_decrypt_for("acme", "billing", Some(&token), items()).await
    };
    assert!(batch(&token).await.unwrap().iter().all(Result::is_ok));
    let forged = Key::new().token("k", "ann");
    assert_eq!(batch(&forged).await.unwrap_err().message(), END_USER);
    assert!(card.billing.batch_decrypt("acme", "billing", items()).await.unwrap().iter().all(Result::is_err));
    // A workload that may not ask about the tenant learns nothing of tokens.
    let storefront = fixture.workload("storefront").await;
    for token in [&token, &forged] {
        let target = card.target.clone().end_user(EndUserToken::new(token));
        let refused = storefront.decrypt(&target, card.envelope.clone()).await.unwrap_err();
        assert_eq!(refused.message(), "denied by registry");
    }
    // A reload reads the file again: the key is replaced, a file that is none changes nothing.
    let file = fixture.root().join("keys.json");
    fs::write(&file, "{}").unwrap();
    assert!(fixture.gateway.reload().await.unwrap_err().to_string().contains("keys.json"));
    assert_eq!(card.try_open(Some(&token)).await, "");
    let new = Key::new();
    fs::write(&file, jwks(&[new.jwk("n")])).unwrap();
    fixture.gateway.reload().await.unwrap();
    assert_eq!(card.try_open(Some(&token)).await, END_USER);
    assert_eq!(card.try_open(Some(&new.token("n", "ann"))).await, "");
    // All of this with no header read: the log has one refusal for each token that was refused, one of
    // them for the whole batch.
    let Fixture { dir: _dir, made, gateway } = fixture;
    gateway.shutdown().await.unwrap();
    let entries = entries(&made.config.parent().unwrap().join("data/audit"));
    let refused: Vec<_> = of_end_users(&entries).into_iter().filter(|(what, ..)| *what != "allowed").collect();
    let expected = [
        "the token's signature does not verify",
        "the tenant is not in the workload's registry entry",
        "the issuer has no key of this name",
    ];
    assert_eq!(refused.iter().map(|(reason, ..)| *reason).collect::<Vec<_>>(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_keys_cause_one_fetch_and_bad_answers_change_nothing() {
    let key = Key::new();
    let server = KeyServer::start(ok(&jwks(&[key.jwk("k")]))).await;
    let more = format!("jwks_url = \"http://{}/keys?a=b\"\ncooldown_s = 1\ntimeout_ms = 500", server.address);
    let fixture = start(bearer(&more)).await;
    let card = Arc::new(Card::seal(&fixture).await);
    let token = key.token("k", "ann");
    assert_eq!(card.try_open(Some(&token)).await, "");
    assert_eq!(server.asked(), 1);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    // Many at once, with keys that nobody has: one fetch. What tokens say costs the provider nothing more.
    let mut calls = JoinSet::new();
    for n in 0..20 {
        let (card, token) = (Arc::clone(&card), key.token(&format!("../{n}"), "ann"));
        calls.spawn(async move { card.try_open(Some(&token)).await });
    }
    assert!(calls.join_all().await.iter().all(|said| said == END_USER));
    assert_eq!(server.asked(), 2);
    let new = Key::new();
    let renewed = new.token("n", "ann");
    let good = ok(&jwks(&[new.jwk("n")]));
    for bad in [
        b"HTTP/1.1 302 Found\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n".to_vec(),
        b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n".to_vec(),
        ok("<html>maintenance</html>"),
        ok(&jwks(&[new.jwk("n"), new.jwk("n")])),
        [&good[..good.len() - 9], &b""[..]].concat(),
        ok(&format!("{}{}", " ".repeat(70_000), jwks(&[new.jwk("n")]))),
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}".to_vec(),
        b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(),
        Vec::new(),
    ] {
        server.tell(bad.clone());
        // After a fetch that failed, the next comes by itself; two, so that one was begun with this answer.
        let asked = server.asked();
        let served = async {
            while server.asked() < asked + 2 {
                drop(card.try_open(Some(&renewed)).await);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        timeout(PATIENCE, served).await.unwrap();
        let begun = Instant::now();
        assert_eq!(card.try_open(Some(&renewed)).await, END_USER, "{}", String::from_utf8_lossy(&bad));
        assert!(begun.elapsed() < PATIENCE / 4, "no call waits longer than a fetch may take");
        assert_eq!(card.try_open(Some(&token)).await, "", "the keys of before are still there");
    }
    server.tell(good);
    let taken = async {
        while !card.try_open(Some(&renewed)).await.is_empty() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(PATIENCE, taken).await.unwrap();
    assert_eq!(card.try_open(Some(&token)).await, END_USER, "a key that is gone verifies nothing, remembered or not");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_come_over_tls_from_a_host_that_proves_its_name() {
    let key = Key::new();
    let (good, other) = (Ca::new("the provider's roots").unwrap(), Ca::new("somebody's roots").unwrap());
    let acceptor = |ca: &Ca| {
        let issued = ca.issue(&Leaf::server("spiffe://id.example/server")).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap(),
            )
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    };
    for (host, ca, expected) in
        [("localhost", &good, ""), ("localhost", &other, END_USER), ("127.0.0.2", &good, END_USER)]
    {
        let address = if host == "localhost" { "127.0.0.1:0" } else { "127.0.0.2:0" };
        let server = KeyServer::start_at(address, ok(&jwks(&[key.jwk("k")])), Some(acceptor(ca))).await;
        let port = server.address.port();
        let fixture = Fixture::start_with(|made, text| {
            fs::write(made.config.with_file_name("provider.pem"), good.pem()).unwrap();
            let url = format!("jwks_url = \"https://{host}:{port}/keys\"\njwks_roots = \"provider.pem\"");
            text + &bearer(&url)
        })
        .await;
        fixture.tenants().await;
        fixture.operator().await.create_dataset("acme", "cards", "restricted", "", "test").await.unwrap();
        let card = Card::seal(&fixture).await;
        assert_eq!(card.try_open(Some(&key.token("k", "ann"))).await, expected, "{host}");
        fixture.gateway.shutdown().await.unwrap();
    }
}
