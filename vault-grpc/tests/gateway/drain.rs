//! Stopping: running calls finish, or are cut at the deadline; the log is closed and sound.

use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use http::uri::PathAndQuery;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use vault_client::Target;
use vault_core::audit::{LogVerifier, VerifyOptions, verify};
use vault_core::fs::OsFs;
use vault_proto::v1::{EncryptRequest, EncryptResponse};

use super::support::{Fixture, PATIENCE};

/// A call whose body stays open until `release` is used or dropped.
struct Slow {
    answer: JoinHandle<Result<Response<EncryptResponse>, Status>>,
    release: oneshot::Sender<()>,
}

/// Starts one; when this returns, the gateway has it.
async fn slow_call(fixture: &Fixture) -> Slow {
    let channel = fixture.endpoint(fixture.gateway.data_addr(), "billing").channel().await.unwrap();
    let (release, released) = oneshot::channel();
    let request = EncryptRequest {
        tenant: "acme".into(),
        dataset: "customers".into(),
        purpose: "billing".into(),
        plaintext: "slow".into(),
        ..Default::default()
    };
    let end = stream::once(async move { drop(released.await) }).filter_map(|()| async { None });
    let body = stream::once(async { request }).chain(end);
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    let answer = tokio::spawn(async move {
        grpc.ready().await.map_err(|_| Status::unavailable("not ready"))?;
        let path = PathAndQuery::from_static("/vault.v1.CryptoService/Encrypt");
        grpc.client_streaming(Request::new(body), path, ProstCodec::default()).await
    });
    tokio::task::yield_now().await;
    // Streams of one connection begin in order, so once this call is answered the slow one has begun.
    let client = vault_client::VaultClient::from_channel(channel);
    client.encrypt(&Target::new("acme", "customers", "billing"), b"fast").await.unwrap();
    Slow { answer, release }
}

fn log_is_sound(root: &std::path::Path) {
    let key = std::fs::read_to_string(root.join("audit.vkey")).unwrap();
    let verifier = LogVerifier::parse(&key).unwrap();
    let report = verify(&OsFs, &root.join("data/audit"), &verifier, &VerifyOptions::default()).unwrap();
    assert!(report.is_sound(), "{report}");
    assert_eq!(report.last.map(|last| last.size), Some(report.entries), "a closed log is signed to its end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_call_finishes_while_new_connections_are_refused() {
    let fixture = Fixture::start().await;
    fixture.tenants().await;
    let slow = slow_call(&fixture).await;
    let endpoint = fixture.endpoint(fixture.gateway.data_addr(), "billing");
    let Fixture { dir, made, gateway } = fixture;
    let stopping = tokio::spawn(gateway.shutdown());
    timeout(PATIENCE, async { while endpoint.channel().await.is_ok() {} }).await.unwrap();
    assert!(!stopping.is_finished(), "it waits for the running call");
    slow.release.send(()).unwrap();
    slow.answer.await.unwrap().unwrap();
    timeout(PATIENCE, stopping).await.unwrap().unwrap().unwrap();
    log_is_sound(made.config.parent().unwrap());
    drop(dir);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_does_not_end_is_cut_at_the_deadline() {
    let fixture = Fixture::start_with(|_, text| text + "\n[limits]\ndrain_timeout_ms = 300\n").await;
    fixture.tenants().await;
    let slow = slow_call(&fixture).await;
    let Fixture { dir, made, gateway } = fixture;
    let stopping = timeout(Duration::from_secs(8), gateway.shutdown());
    stopping.await.unwrap().unwrap();
    slow.answer.await.unwrap().unwrap_err();
    drop(slow.release);
    log_is_sound(made.config.parent().unwrap());
    drop(dir);
}
