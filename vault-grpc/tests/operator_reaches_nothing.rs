//! The transport layer of "an operator reaches no plaintext": every call of the data plane, as the descriptors name
//! them, with every credential that is not a workload's. Beside each refusal the same request, by the same code, is
//! answered when a workload asks.
#![cfg(feature = "dev")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

#[expect(unreachable_pub, reason = "shared by several tests")]
mod common;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;

use common::{DATASET, Site, TENANT};
use prost::Message;
use rustls::{AlertDescription, ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use vault_client::{Endpoint, Origin, Target, VaultClient};
use vault_grpc::init::{OPERATOR_DOMAIN, WORKLOAD_DOMAIN};
use vault_grpc::pki::Leaf;
use vault_proto::v1::{
    BatchDecryptItem, BatchDecryptRequest, BatchEncryptItem, BatchEncryptRequest, DecryptRequest, DecryptStreamRequest,
    DecryptStreamStart, EncryptRequest, EncryptStreamEnd, EncryptStreamRequest, EncryptStreamStart,
    GrantConsentRequest, ListAccessesRequest, ListConsentsRequest, ListTenantsRequest, Plane, RewrapRequest,
    WithdrawConsentRequest, decrypt_stream_request, encrypt_stream_request,
};
use vault_proto::{Rpc, rpcs};

/// Calls a path with a message; what is answered is not read.
async fn call<M: Message + 'static>(channel: &Channel, path: &'static str, message: M) -> Result<(), Status> {
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<M, ()>::default();
    grpc.unary(Request::new(message), PathAndQuery::from_static(path), codec).await.map(drop)
}

/// Calls a path with messages; what is answered is not read.
async fn call_stream<M: Message + 'static>(
    channel: &Channel,
    path: &'static str,
    messages: Vec<M>,
) -> Result<(), Status> {
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<M, ()>::default();
    let request = Request::new(tokio_stream::iter(messages));
    let mut answers = grpc.streaming(request, PathAndQuery::from_static(path), codec).await?.into_inner();
    while answers.message().await?.is_some() {}
    Ok(())
}

/// What no identity provider issued.
const NO_TOKEN: &[u8] = b"no token";

/// A call for an end user is answered when the service found that its token is none.
fn answered(result: Result<(), Status>) -> Result<(), Status> {
    match result {
        Err(status) if status.code() == Code::InvalidArgument && status.message().contains("end_user_token") => Ok(()),
        other => other,
    }
}

/// Calls one RPC of the data plane with a request that a workload is answered.
async fn call_rpc(channel: &Channel, rpc: &Rpc, envelope: &[u8]) -> Result<(), Status> {
    let (tenant, dataset, purpose) = (TENANT.to_owned(), DATASET.to_owned(), "billing".to_owned());
    let (subject, context, end_user_token) = (None, std::collections::HashMap::default(), None);
    let (envelope, plaintext) = (envelope.to_vec().into(), b"a value".to_vec().into());
    match rpc.method {
        "Encrypt" => {
            let message = EncryptRequest { tenant, dataset, subject, purpose, context, plaintext, end_user_token };
            call(channel, rpc.path, message).await
        }
        "Decrypt" => {
            let message = DecryptRequest { tenant, dataset, subject, purpose, context, envelope, end_user_token };
            call(channel, rpc.path, message).await
        }
        "Rewrap" => {
            let message = RewrapRequest { tenant, dataset, subject, purpose, context, envelope, end_user_token };
            call(channel, rpc.path, message).await
        }
        "BatchEncrypt" => {
            let items = vec![BatchEncryptItem { dataset, subject, context, plaintext }];
            call(channel, rpc.path, BatchEncryptRequest { tenant, purpose, items, end_user_token }).await
        }
        "BatchDecrypt" => {
            let items = vec![BatchDecryptItem { dataset, subject, context, envelope }];
            call(channel, rpc.path, BatchDecryptRequest { tenant, purpose, items, end_user_token }).await
        }
        "EncryptStream" => {
            use encrypt_stream_request::Part;
            let start = EncryptStreamStart { tenant, dataset, subject, purpose, context, end_user_token };
            let end = EncryptStreamEnd { plaintext_size: plaintext.len() as u64 };
            let parts = [Part::Start(start), Part::Plaintext(plaintext), Part::End(end)];
            let message = |part| EncryptStreamRequest { part: Some(part) };
            call_stream(channel, rpc.path, parts.map(message).into()).await
        }
        "DecryptStream" => {
            use decrypt_stream_request::Part;
            let start = DecryptStreamStart { tenant, dataset, subject, purpose, context, end_user_token, range: None };
            let message = |part| DecryptStreamRequest { part: Some(part) };
            let messages = [Part::Start(start), Part::Envelope(envelope)].map(message);
            match call_stream(channel, rpc.path, messages.into()).await {
                // The envelope is none of a stream, which only somebody learns who may decrypt.
                Err(status) if status.message() == "the envelope does not open" => Ok(()),
                other => other,
            }
        }
        "GrantConsent" => {
            let message = GrantConsentRequest {
                tenant,
                end_user_token: NO_TOKEN.into(),
                datasets: vec![dataset],
                purposes: vec![purpose],
                ..Default::default()
            };
            answered(call(channel, rpc.path, message).await)
        }
        "WithdrawConsent" => {
            let (end_user_token, consent) = (NO_TOKEN.into(), "0".repeat(32));
            answered(call(channel, rpc.path, WithdrawConsentRequest { tenant, end_user_token, consent }).await)
        }
        "ListAccesses" => {
            let message = ListAccessesRequest { tenant, page_size: 1, ..Default::default() };
            answered(call(channel, rpc.path, message).await)
        }
        "ListConsents" => {
            let message = ListConsentsRequest { tenant, end_user_token: NO_TOKEN.into(), ..Default::default() };
            answered(call(channel, rpc.path, message).await)
        }
        other => panic!("{other} is new: give it a request here, so that its refusal is tested"),
    }
}

fn data_rpcs() -> Vec<&'static Rpc> {
    rpcs().iter().filter(|rpc| rpc.plane == Plane::Data).collect()
}

/// An envelope that a workload sealed.
async fn envelope(site: &Site) -> Vec<u8> {
    let client = VaultClient::connect(&site.workload(site.gateway.data_addr())).await.unwrap();
    client.encrypt(&Target::new(TENANT, DATASET, "billing"), b"a value").await.unwrap().envelope.to_vec()
}

/// Asks for every RPC and expects that no connection comes about, because TLS refuses the certificate.
async fn refused_by_handshake(who: &str, endpoint: &Endpoint, envelope: &[u8]) {
    for rpc in data_rpcs() {
        let error = match endpoint.channel().await {
            Err(error) => error,
            Ok(channel) => {
                panic!("{who}, {}: connected, and got {:?}", rpc.path, call_rpc(&channel, rpc, envelope).await)
            }
        };
        assert_eq!(error.origin(), Origin::Transport, "{who}, {}: {error}", rpc.path);
        assert!(matches!(error.tls(), Some(rustls::Error::AlertReceived(_))), "{who}, {}: {error}", rpc.path);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_is_answered_by_every_data_rpc() {
    let site = Site::start().await;
    let envelope = envelope(&site).await;
    let channel = site.workload(site.gateway.data_addr()).channel().await.unwrap();
    assert!(data_rpcs().len() >= 5);
    for rpc in data_rpcs() {
        call_rpc(&channel, rpc, &envelope).await.unwrap();
    }
    // A certificate made as the refused ones below are is good when it says the right things.
    let billing = format!("spiffe://{WORKLOAD_DOMAIN}/ns/shop/sa/billing");
    let issued = site.made.workload_ca.issue(&Leaf::client("billing", &billing)).unwrap();
    let channel = site.endpoint_as(site.gateway.data_addr(), &issued).channel().await.unwrap();
    for rpc in data_rpcs() {
        call_rpc(&channel, rpc, &envelope).await.unwrap();
    }
    site.gateway.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_is_refused_by_the_data_plane_handshake() {
    let site = Site::start().await;
    let envelope = envelope(&site).await;
    refused_by_handshake("operator", &site.operator(site.gateway.data_addr()), &envelope).await;
    // Also one whose certificate names a workload, but comes from the operators' authority.
    let billing = format!("spiffe://{WORKLOAD_DOMAIN}/ns/shop/sa/billing");
    let issued = site.made.operator_ca.issue(&Leaf::client("billing", &billing)).unwrap();
    refused_by_handshake("forged workload", &site.endpoint_as(site.gateway.data_addr(), &issued), &envelope).await;
    site.gateway.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_control_plane_knows_no_data_rpc() {
    let site = Site::start().await;
    let envelope = envelope(&site).await;
    let channel = site.operator(site.gateway.control_addr()).channel().await.unwrap();
    for rpc in data_rpcs() {
        let refused = call_rpc(&channel, rpc, &envelope).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unimplemented, "{}", rpc.path);
    }
    // The channel and the certificate are good: what belongs to the control plane is answered.
    call(&channel, "/vault.v1.TenantService/ListTenants", ListTenantsRequest::default()).await.unwrap();
    // And the data plane knows no control RPC.
    let channel = site.workload(site.gateway.data_addr()).channel().await.unwrap();
    for rpc in rpcs().iter().filter(|rpc| rpc.plane == Plane::Control) {
        assert_eq!(call(&channel, rpc.path, ()).await.unwrap_err().code(), Code::Unimplemented, "{}", rpc.path);
    }
    site.gateway.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_is_refused_by_the_control_plane_handshake() {
    let site = Site::start().await;
    let envelope = envelope(&site).await;
    refused_by_handshake("workload", &site.workload(site.gateway.control_addr()), &envelope).await;
    site.gateway.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_is_refused_even_with_a_certificate_of_the_workload_authority() {
    let site = Site::start().await;
    let envelope = envelope(&site).await;
    let uri = |uri: &str| Leaf::client("alice", uri);
    let billing = format!("spiffe://{WORKLOAD_DOMAIN}/ns/shop/sa/billing");
    let mut named = uri(&billing);
    (named.uri, named.common_name) = (None, "billing".to_owned());
    let mut mail = named.clone();
    mail.email = Some("alice@example.com".to_owned());
    let mut both = uri(&billing);
    both.email = Some("alice@example.com".to_owned());
    let people = [
        ("common name only", named),
        ("email", mail),
        ("workload's SPIFFE ID and email", both),
        ("/operator/alice", uri(&format!("spiffe://{WORKLOAD_DOMAIN}/operator/alice"))),
        ("/operator/alice of the operators' domain", uri(&format!("spiffe://{OPERATOR_DOMAIN}/operator/alice"))),
    ];
    for (who, leaf) in people {
        let issued = site.made.workload_ca.issue(&leaf).unwrap();
        refused_by_handshake(who, &site.endpoint_as(site.gateway.data_addr(), &issued), &envelope).await;
    }
    site.gateway.shutdown().await.unwrap();
}

/// The alert with which the gateway answers a client that presents no certificate.
async fn alert_without_certificate(site: &Site, at: SocketAddr) -> AlertDescription {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(site.file("certs/server-ca.pem").as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13]);
    let mut config = builder.unwrap().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = ServerName::try_from("localhost").unwrap();
    let tcp = TcpStream::connect(at).await.unwrap();
    // In TLS 1.3 the client's side of the handshake ends first; the verdict comes with the first read, before any
    // request could be sent.
    let mut tls = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap();
    let error = tls.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData, "{error}");
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::AlertReceived(alert)) => *alert,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_certificate_there_is_no_connection() {
    let site = Site::start().await;
    for at in [site.gateway.data_addr(), site.gateway.control_addr()] {
        assert_eq!(alert_without_certificate(&site, at).await, AlertDescription::CertificateRequired);
    }
    site.gateway.shutdown().await.unwrap();
}
