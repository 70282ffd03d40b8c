//! Calls over mutually authenticated TLS against a gateway in miniature.

use std::time::Duration;

use crate::support::Gateway;
use rustls::HandshakeKind;
use vault_client::{BatchItem, Code, Limits, OperatorClient, Origin, Target, VaultClient};

fn target() -> Target {
    Target::new("acme", "customers", "billing").subject("customer-42").context("field", "email")
}

#[tokio::test]
async fn values_go_there_and_back() {
    let gateway = Gateway::start().await;
    let vault = VaultClient::connect(&gateway.endpoint()).await.unwrap();
    let sealed = vault.encrypt(&target(), b"ada@example.com").await.unwrap();
    assert_eq!((sealed.envelope.as_ref(), sealed.key_version), (b"moc.elpmaxe@ada".as_slice(), 1));
    let opened = vault.decrypt(&target(), sealed.envelope.clone()).await.unwrap();
    assert_eq!(opened.plaintext.as_bytes(), b"customer-42field=email;ada@example.com");
    assert!(!format!("{opened:?}").contains("ada"));
    let moved = vault.rewrap(&target(), sealed.envelope.clone()).await.unwrap();
    assert_eq!((moved.envelope, moved.key_version), (sealed.envelope, 2));
}

#[tokio::test]
async fn a_batch_answers_item_by_item() {
    let gateway = Gateway::start().await;
    let vault = VaultClient::connect(&gateway.endpoint()).await.unwrap();
    let items = vec![BatchItem::plaintext("customers", b"one"), BatchItem::plaintext("refused", b"two")];
    let results = vault.batch_encrypt("acme", "billing", items).await.unwrap();
    assert_eq!(results[0].as_ref().unwrap().envelope.as_ref(), b"eno");
    let error = results[1].as_ref().unwrap_err();
    assert_eq!(
        (error.origin(), error.code(), error.reason()),
        (Origin::Gateway, Code::InvalidArgument, "INVALID_FIELD")
    );
    assert_eq!(error.violations()[0].field, "dataset");

    let items = vec![BatchItem::envelope("customers", b"eno".as_slice())];
    let results = vault.batch_decrypt("acme", "billing", items).await.unwrap();
    assert_eq!(results[0].as_ref().unwrap().plaintext.as_bytes(), b"one");

    // An answer with fewer results than items belongs to nobody.
    let items = vec![BatchItem::envelope("a", b"x".as_slice()), BatchItem::envelope("a", b"".as_slice())];
    let error = vault.batch_decrypt("acme", "billing", items).await.unwrap_err();
    assert_eq!(error.reason(), "MALFORMED_ANSWER");
}

#[tokio::test]
async fn a_stream_is_whole_only_if_the_gateway_says_so() {
    let gateway = Gateway::start().await;
    let vault = VaultClient::connect(&gateway.endpoint()).await.unwrap();
    let to = |dataset: &str| Target::new("acme", dataset, "billing");
    let done = vault.encrypt_stream(&to("whole"), &b"x"[..], Vec::new()).await.unwrap();
    assert_eq!((done.written, done.key_version), (78, 1));
    let done = vault.decrypt_stream(&to("whole"), &[0; 100][..], Vec::new()).await.unwrap();
    assert_eq!((done.written, done.key_version), (10, 1));
    for dataset in ["cut", "boast"] {
        let sealing = vault.encrypt_stream(&to(dataset), &b"x"[..], Vec::new()).await.unwrap_err();
        let opening = vault.decrypt_stream(&to(dataset), &[0; 100][..], Vec::new()).await.unwrap_err();
        assert_eq!([sealing.reason(), opening.reason()], ["MALFORMED_ANSWER"; 2], "{dataset}");
    }
}

#[tokio::test]
async fn operators_manage_tenants() {
    let gateway = Gateway::start().await;
    let operator = OperatorClient::connect(&gateway.endpoint()).await.unwrap();
    let tenant = operator.create_tenant("acme", Some("root-eu"), "new customer").await.unwrap();
    assert_eq!((tenant.tenant.as_str(), tenant.root_key_id.as_str()), ("acme", "root-eu"));
    assert_eq!(operator.rotate_data_keys("acme", None, "yearly").await.unwrap(), 7);
    assert_eq!(operator.rotate_data_keys("acme", Some("customers"), "yearly").await.unwrap(), 1);
    assert_eq!(operator.get_tenant("acme").await.unwrap_err().reason(), "MALFORMED_ANSWER");
    assert_eq!(operator.get_dataset("acme", "customers").await.unwrap_err().code(), Code::Unimplemented);
}

#[tokio::test]
async fn a_refusal_keeps_code_reason_and_fields() {
    let gateway = Gateway::start().await;
    let vault = VaultClient::connect(&gateway.endpoint()).await.unwrap();
    let error = vault.encrypt(&Target::new("acme", "refused", "billing"), b"secret-41").await.unwrap_err();
    assert_eq!(
        (error.origin(), error.code(), error.reason()),
        (Origin::Gateway, Code::InvalidArgument, "INVALID_FIELD")
    );
    assert_eq!((error.violations().len(), error.violations()[0].field.as_str()), (1, "dataset"));
    let text = format!("{error} {error:?}");
    assert!(text.contains("dataset: must match the rule") && !text.contains("secret-41"));
}

#[tokio::test]
async fn a_gateway_that_does_not_answer_meets_the_deadline() {
    let gateway = Gateway::start().await;
    let limits = Limits { deadline: Duration::from_millis(150), ..Limits::default() };
    let vault = VaultClient::connect(&gateway.endpoint()).await.unwrap().with_limits(limits);
    let error = vault.encrypt(&Target::new("acme", "slow", "billing"), b"x").await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
    // The connection is good for the next call.
    let vault = vault.with_limits(Limits::default());
    assert!(vault.encrypt(&target(), b"x").await.is_ok());
}

#[tokio::test]
async fn a_client_survives_a_restart_of_the_gateway_and_resumes_no_session() {
    let mut gateway = Gateway::start().await;
    let vault = VaultClient::connect(&gateway.endpoint()).await.unwrap();
    assert!(vault.encrypt(&target(), b"x").await.is_ok());
    gateway.restart().await;
    assert!(vault.encrypt(&target(), b"x").await.is_ok());
    // The gateway kept its session tickets, so only the client prevents resumption.
    assert_eq!(gateway.handshakes(), [HandshakeKind::Full, HandshakeKind::Full]);
}

#[tokio::test]
async fn limits_hold_to_the_byte() {
    let gateway = Gateway::start().await;
    let vault = VaultClient::connect(&gateway.endpoint()).await.unwrap();
    let largest = vec![7; 1 << 20];
    assert_eq!(vault.encrypt(&target(), &largest).await.unwrap().envelope.len(), 1 << 20);

    let bare = Target::new("t", "d", "p");
    // Three one-letter fields take 9 bytes, the plaintext 2 beside its content.
    let exact = vault.clone().with_limits(Limits { unary: 111, ..Limits::default() });
    assert!(exact.encrypt(&bare, &[7; 100]).await.is_ok());
    let error = exact.encrypt(&bare, &[7; 101]).await.unwrap_err();
    assert_eq!(
        (error.origin(), error.code(), error.reason()),
        (Origin::Local, Code::ResourceExhausted, "MESSAGE_TOO_LARGE")
    );

    let item = || BatchItem::plaintext("customers", &largest);
    let error = vault.batch_encrypt("acme", "billing", (0..4).map(|_| item()).collect()).await.unwrap_err();
    assert_eq!(error.reason(), "MESSAGE_TOO_LARGE");
    assert_eq!(vault.batch_encrypt("acme", "billing", (0..3).map(|_| item()).collect()).await.unwrap().len(), 3);
}

#[tokio::test]
async fn the_answer_to_the_largest_batch_is_accepted() {
    let gateway = Gateway::start().await;
    let vault = VaultClient::connect(&gateway.endpoint()).await.unwrap();
    // 1,000 items that make a request of a little less than 4 MiB, and an answer of a little more.
    let items = vec![BatchItem::plaintext("grow", &[7; 4180]); 1000];
    let results = vault.batch_encrypt("acme", "billing", items).await.unwrap();
    let total: usize = results.into_iter().map(|r| r.unwrap().envelope.len()).sum();
    assert!(total > 4 << 20);
}
