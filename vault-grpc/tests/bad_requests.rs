//! Every malformed request is answered with a status that names the field; every malformed envelope with the same one.
#![cfg(feature = "dev")]
#![expect(clippy::unwrap_used, reason = "tests")]

#[expect(unreachable_pub, dead_code, reason = "shared by several tests")]
mod common;

use common::{DATASET, Site, TENANT};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Code, Request};
use tonic_types::StatusExt as _;
use vault_client::{BatchItem, ClientError, OperatorClient, Target, VaultClient};
use vault_core::envelope::MAX_PLAINTEXT;
use vault_proto::v1::custody::Kind;
use vault_proto::v1::{Custody, SplitCustody};

const PURPOSE: &str = "billing";

/// What a refusal says: its code, and the field it names.
fn named(error: &ClientError) -> (Code, String) {
    (error.code(), error.violations().first().map(|v| v.field.clone()).unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn data_calls_name_the_field() {
    let site = Site::start().await;
    let client = VaultClient::connect(&site.workload(site.gateway.data_addr())).await.unwrap();
    let large = "v".repeat(9_000);
    let cases = [
        ("tenant", Target::new("Acme", DATASET, PURPOSE)),
        ("tenant", Target::new("acme\u{200b}", DATASET, PURPOSE)),
        ("tenant", Target::new("", DATASET, PURPOSE)),
        ("dataset", Target::new(TENANT, "customers ", PURPOSE)),
        ("subject", Target::new(TENANT, DATASET, PURPOSE).subject("")),
        ("subject", Target::new(TENANT, DATASET, PURPOSE).subject("two words")),
        ("purpose", Target::new(TENANT, DATASET, "")),
        ("context", Target::new(TENANT, DATASET, PURPOSE).context("k", large)),
    ];
    for (field, target) in cases {
        let refused = client.encrypt(&target, b"x").await.unwrap_err();
        assert_eq!(named(&refused), (Code::InvalidArgument, field.to_owned()), "encrypt {target:?}");
        let refused = client.decrypt(&target, vec![0; 100]).await.unwrap_err();
        assert_eq!(named(&refused), (Code::InvalidArgument, field.to_owned()), "decrypt {target:?}");
        let refused = client.rewrap(&target, vec![0; 100]).await.unwrap_err();
        assert_eq!(named(&refused), (Code::InvalidArgument, field.to_owned()), "rewrap {target:?}");
    }
    let good = Target::new(TENANT, DATASET, PURPOSE);
    let refused = client.encrypt(&good, &vec![0; MAX_PLAINTEXT + 1]).await.unwrap_err();
    assert_eq!(named(&refused), (Code::InvalidArgument, "plaintext".to_owned()));
    let refused = client.batch_encrypt(TENANT, PURPOSE, Vec::new()).await.unwrap_err();
    assert_eq!(named(&refused), (Code::InvalidArgument, "items".to_owned()));
    let many = vec![BatchItem::plaintext(DATASET, b"x"); 1001];
    let refused = client.batch_encrypt(TENANT, PURPOSE, many).await.unwrap_err();
    assert_eq!(named(&refused), (Code::InvalidArgument, "items".to_owned()));
    // One bad item costs the others nothing, and is named by its place.
    let items = vec![BatchItem::plaintext(DATASET, b"x"), BatchItem::plaintext("No", b"x")];
    let results = client.batch_encrypt(TENANT, PURPOSE, items).await.unwrap();
    assert!(results[0].is_ok());
    assert_eq!(named(results[1].as_ref().unwrap_err()), (Code::InvalidArgument, "items[1].dataset".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_malformed_envelope_fails_alike() {
    let site = Site::start().await;
    let client = VaultClient::connect(&site.workload(site.gateway.data_addr())).await.unwrap();
    let good = Target::new(TENANT, DATASET, PURPOSE);
    let envelope = client.encrypt(&good, b"a value").await.unwrap().envelope;
    let mut bad: Vec<Vec<u8>> = [0, 1, 21, 22, 93, 94].map(|len| vec![0; len]).into();
    bad.extend((0..envelope.len()).step_by(7).map(|at| {
        let mut flipped = envelope.to_vec();
        flipped[at] ^= 1;
        flipped
    }));
    bad.push(envelope[..envelope.len() - 1].to_vec());
    bad.push([envelope.as_ref(), &[0]].concat());
    bad.push(vec![0; MAX_PLAINTEXT + 95]);
    let said = |error: ClientError| (error.code(), error.reason().to_owned(), error.message().to_owned());
    let mut answers = std::collections::BTreeSet::new();
    for envelope in bad {
        let (code, reason, message) = said(client.decrypt(&good, envelope).await.unwrap_err());
        answers.insert((code as i32, reason, message));
    }
    let only = (Code::InvalidArgument as i32, "UNOPENABLE".to_owned(), "the envelope does not open".to_owned());
    assert_eq!(answers.into_iter().collect::<Vec<_>>(), [only]);
}

#[tokio::test(flavor = "multi_thread")]
async fn control_calls_name_the_field() {
    let site = Site::start().await;
    let operator = OperatorClient::connect(&site.operator(site.gateway.control_addr())).await.unwrap();
    let invalid = |field: &str| (Code::InvalidArgument, field.to_owned());
    assert_eq!(named(&operator.create_tenant("No", None, "why").await.unwrap_err()), invalid("tenant"));
    assert_eq!(named(&operator.create_tenant("new", None, "").await.unwrap_err()), invalid("reason"));
    assert_eq!(
        named(&operator.create_tenant("new", Some("arn:other"), "why").await.unwrap_err()),
        invalid("root_key_id")
    );
    let split = |inner: &str, outer: &str| Custody {
        kind: Some(Kind::Split(SplitCustody { inner_root_key_id: inner.into(), outer_root_key_id: outer.into() })),
    };
    let root = operator.get_tenant(TENANT).await.unwrap().root_key_id;
    let unknown = operator.create_tenant_under("new", split(&root, "local:unknown"), "why").await.unwrap_err();
    assert_eq!(named(&unknown), invalid("custody.split.outer_root_key_id"));
    let unknown = operator.rotate_tenant_key_to(TENANT, split("local:unknown", &root), "why").await.unwrap_err();
    assert_eq!(named(&unknown), invalid("custody.split.inner_root_key_id"));
    let empty = operator.rotate_tenant_key_to(TENANT, Custody { kind: None }, "why").await.unwrap_err();
    assert_eq!(named(&empty), invalid("custody"));
    assert_eq!(operator.get_tenant("new").await.unwrap_err().code(), Code::NotFound);
    let made = operator.create_dataset(TENANT, "other", "Very Secret", "eu", "why").await;
    assert_eq!(named(&made.unwrap_err()), invalid("classification"));
    assert_eq!(named(&operator.list_tenants(-1, "").await.unwrap_err()), invalid("page_size"));
    assert_eq!(named(&operator.list_tenants(1, "Ä").await.unwrap_err()), invalid("page_token"));
    assert_eq!(operator.get_tenant("nobody").await.unwrap_err().code(), Code::NotFound);
    assert_eq!(operator.create_tenant(TENANT, None, "why").await.unwrap_err().code(), Code::AlreadyExists);
}

/// A request as only a broken or hostile client sends it: the same fields on the wire, but any bytes for text.
#[derive(Clone, PartialEq, prost::Message)]
struct AnyBytes {
    #[prost(bytes = "vec", tag = "1")]
    tenant: Vec<u8>,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_does_not_decode_names_its_field() {
    let site = Site::start().await;
    let channel = site.workload(site.gateway.data_addr()).channel().await.unwrap();
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<AnyBytes, ()>::default();
    let path = PathAndQuery::from_static("/vault.v1.CryptoService/Encrypt");
    let status = grpc.unary(Request::new(AnyBytes { tenant: vec![0xff, 0xfe] }), path, codec).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    let violations = status.get_details_bad_request().unwrap().field_violations;
    assert_eq!(violations.iter().map(|v| v.field.as_str()).collect::<Vec<_>>(), ["tenant"]);
}
