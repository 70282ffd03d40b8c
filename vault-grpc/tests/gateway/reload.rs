//! Reload under load: what is new is in force for whoever it concerns, and nobody else notices.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustls::{AlertDescription, Error};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;
use vault_client::Target;
use vault_grpc::pki::{Ca, Leaf};

use super::support::{Fixture, PATIENCE, client, connect, tls_error, workload_id};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Sends a PING and waits for its answer: the connection is alive.
async fn ping(tls: &mut (impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin), payload: &[u8; 8]) -> bool {
    let frame = [&[0, 0, 8, 6, 0, 0, 0, 0, 0], &payload[..]].concat();
    let answered = async {
        tls.write_all(&frame).await?;
        let mut seen = Vec::new();
        while !seen.windows(8).any(|window| window == payload) {
            if tls.read_buf(&mut seen).await? == 0 {
                return Ok(false);
            }
        }
        std::io::Result::Ok(true)
    };
    timeout(PATIENCE, answered).await.unwrap().unwrap_or(false)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_revoked_certificate_is_refused_and_cut_and_nobody_else_notices() {
    let fixture = Fixture::start_with(|made, text| {
        let list = made.config.with_file_name("certs").join("workload.crl");
        fs::write(list, made.workload_ca.revoke(&[]).unwrap()).unwrap();
        text.replacen("crls = []", "crls = [\"certs/workload.crl\"]", 1)
    })
    .await;
    fixture.tenants().await;
    let address = fixture.gateway.data_addr();
    let stolen = fixture.issue_workload("/ns/shop/sa/billing");
    let (theirs, ours) = (Arc::new(fixture.tls(Some(&stolen))), fixture.issue_workload("/ns/shop/sa/storefront"));
    let mut thief = connect(address, &theirs).await.unwrap();
    thief.write_all(PREFACE).await.unwrap();
    assert!(ping(&mut thief, b"thief  1").await);
    let mut bystander = connect(address, &Arc::new(fixture.tls(Some(&ours)))).await.unwrap();
    bystander.write_all(PREFACE).await.unwrap();
    assert!(ping(&mut bystander, b"bystand1").await);

    let (stop, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let load = {
        let (storefront, stop, calls) = (fixture.workload("storefront").await, Arc::clone(&stop), Arc::clone(&calls));
        let target = Target::new("globex", "customers", "orders");
        tokio::spawn(async move {
            while !stop.load(Ordering::SeqCst) {
                storefront.encrypt(&target, b"an order").await.unwrap();
                calls.fetch_add(1, Ordering::SeqCst);
            }
        })
    };
    let until = |more| {
        let (calls, from) = (Arc::clone(&calls), calls.load(Ordering::SeqCst));
        timeout(PATIENCE, async move {
            while calls.load(Ordering::SeqCst) < from + more {
                tokio::task::yield_now().await;
            }
        })
    };
    until(3).await.unwrap();
    let list = fixture.made.workload_ca.revoke(&[stolen.serial]).unwrap();
    fs::write(fixture.root().join("certs/workload.crl"), list).unwrap();
    fixture.gateway.reload().await.unwrap();

    let refused = connect(address, &theirs).await.unwrap_err();
    assert_eq!(tls_error(&refused), Some(Error::AlertReceived(AlertDescription::CertificateRevoked)));
    assert!(!ping(&mut thief, b"thief  2").await, "the open connection of the revoked certificate is cut");
    assert!(ping(&mut bystander, b"bystand2").await, "every other connection goes on");
    until(3).await.unwrap();
    stop.store(true, Ordering::SeqCst);
    load.await.unwrap();
    fixture.gateway.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_authority_and_server_certificate_come_into_force() {
    let fixture = Fixture::start().await;
    let address = fixture.gateway.data_addr();
    let (new_clients, new_servers) = (Ca::new("new workloads").unwrap(), Ca::new("new gateway").unwrap());
    let newcomer = new_clients.issue(&Leaf::client("billing", &workload_id("/ns/shop/sa/billing"))).unwrap();
    let old = fixture.issue_workload("/ns/shop/sa/billing");
    assert!(connect(address, &Arc::new(fixture.tls(Some(&newcomer)))).await.is_err());
    let mut open = connect(address, &Arc::new(fixture.tls(Some(&old)))).await.unwrap();
    open.write_all(PREFACE).await.unwrap();

    // Both authorities, as in a rotation; and another certificate of the gateway.
    let certs = fixture.root().join("certs");
    let both = format!("{}{}", fixture.made.workload_ca.pem(), new_clients.pem());
    fs::write(certs.join("workload-ca.pem"), both).unwrap();
    let server = new_servers.issue(&Leaf::server(&workload_id("/gateway"))).unwrap();
    fs::write(certs.join("gateway.pem"), &server.certificate).unwrap();
    fs::write(certs.join("gateway.key"), server.key.as_bytes()).unwrap();
    fixture.gateway.reload().await.unwrap();

    for identity in [&newcomer, &old] {
        connect(address, &Arc::new(client(new_servers.pem(), Some(identity)))).await.unwrap();
    }
    assert!(connect(address, &Arc::new(fixture.tls(Some(&old)))).await.is_err(), "the old server certificate is gone");
    assert!(ping(&mut open, b"still up").await);
    fixture.gateway.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_written_file_leaves_all_of_the_old_in_force() {
    let fixture = Fixture::start().await;
    fixture.tenants().await;
    let epoch = fixture.gateway.vault().authorizer().epoch();
    let registry = fixture.root().join("policies/registry.toml");
    let whole = fs::read_to_string(&registry).unwrap();
    fs::write(&registry, &whole[..whole.len() - 12]).unwrap();
    let error = fixture.gateway.reload().await.unwrap_err().to_string();
    assert!(error.contains("policy.registry") && error.contains("registry line"), "{error}");
    // Not even the parts that were fine came into force.
    fs::write(fixture.root().join("certs/workload-ca.pem"), fixture.made.operator_ca.pem()).unwrap();
    assert!(fixture.gateway.reload().await.is_err());
    assert_eq!(fixture.gateway.vault().authorizer().epoch(), epoch);
    let target = Target::new("acme", "customers", "billing");
    fixture.workload("billing").await.encrypt(&target, b"x").await.unwrap();
    // The registry without billing: refused from the next call on.
    fs::write(fixture.root().join("certs/workload-ca.pem"), fixture.made.workload_ca.pem()).unwrap();
    fs::write(&registry, "").unwrap();
    assert!(fixture.gateway.reload().await.unwrap() > epoch);
    let refused = fixture.workload("billing").await.encrypt(&target, b"x").await.unwrap_err();
    assert_eq!(refused.code(), vault_client::Code::PermissionDenied);
    fixture.gateway.shutdown().await.unwrap();
}
