//! Who gets through a handshake, and what TLS does not do.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::{AlertDescription, Error, HandshakeKind, NamedGroup, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use vault_client::Target;
use vault_grpc::pki::{Ca, Leaf};

use super::support::{Fixture, PATIENCE, client, connect, operator_id, tls_error, workload_id};

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_and_an_operator_get_through_to_the_services() {
    let fixture = Fixture::start().await;
    fixture.tenants().await;
    let billing = fixture.workload("billing").await;
    let email = Target::new("acme", "customers", "billing").subject("customer-42").context("field", "email");
    let sealed = billing.encrypt(&email, b"ada@example.com").await.unwrap();
    let opened = billing.decrypt(&email, sealed.envelope.clone()).await.unwrap();
    assert_eq!(opened.plaintext.as_bytes(), b"ada@example.com");
    let other = fixture.workload("storefront").await;
    assert_eq!(other.decrypt(&email, sealed.envelope).await.unwrap_err().code(), vault_client::Code::PermissionDenied);
    fixture.gateway.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_breaks_a_rule_is_refused_by_the_handshake() {
    let fixture = Fixture::start().await;
    let (data, control) = (fixture.gateway.data_addr(), fixture.gateway.control_addr());
    let (workloads, operators) = (&fixture.made.workload_ca, &fixture.made.operator_ca);
    let billing = Leaf::client("billing", &workload_id("/ns/shop/sa/billing"));
    let alice = Leaf::client("alice", &operator_id("alice"));
    let mut person = Leaf::client("bob", &workload_id("/people/bob"));
    person.email = Some("bob@example.com".to_owned());
    let mut anonymous = billing.clone();
    anonymous.uri = None;
    let stranger = Ca::new("stranger").unwrap();
    let issue = |ca: &Ca, leaf: &Leaf| Some(ca.issue(leaf).unwrap());
    let unknown = AlertDescription::CertificateUnknown;
    let cases = [
        ("no certificate", data, None, AlertDescription::CertificateRequired),
        ("no certificate", control, None, AlertDescription::CertificateRequired),
        ("expired", data, issue(workloads, &billing.clone().expired()), AlertDescription::CertificateExpired),
        ("wrong CA", data, issue(&stranger, &billing), AlertDescription::UnknownCA),
        ("the operators' CA", data, issue(operators, &billing), AlertDescription::UnknownCA),
        ("an operator", data, issue(operators, &alice), unknown),
        ("a workload", control, issue(workloads, &billing), unknown),
        ("an operator named by the workload CA", control, issue(workloads, &alice), AlertDescription::UnknownCA),
        (
            "an operator's path under the workload CA",
            data,
            issue(workloads, &Leaf::client("x", &workload_id("/operator/bob"))),
            unknown,
        ),
        ("a person under the workload CA", data, issue(workloads, &person), unknown),
        ("no URI", data, issue(workloads, &anonymous), unknown),
        ("a server's certificate", data, issue(workloads, &Leaf::server(&workload_id("/gateway"))), unknown),
    ];
    for (who, address, identity, alert) in cases {
        let refused = connect(address, &Arc::new(fixture.tls(identity.as_ref()))).await.unwrap_err();
        assert_eq!(tls_error(&refused), Some(Error::AlertReceived(alert)), "{who}: {refused}");
    }
    // The same clients with nothing wrong get through, so it was the rule that refused them.
    for (address, identity) in [(data, issue(workloads, &billing)), (control, issue(operators, &alice))] {
        connect(address, &Arc::new(fixture.tls(identity.as_ref()))).await.unwrap();
    }
    fixture.gateway.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_exchange_is_hybrid_and_http_1_is_not_spoken() {
    let fixture = Fixture::start().await;
    let billing = fixture.issue_workload("/ns/shop/sa/billing");
    let mut config = fixture.tls(Some(&billing));
    let tls = connect(fixture.gateway.data_addr(), &Arc::new(config.clone())).await.unwrap();
    let group = tls.get_ref().1.negotiated_key_exchange_group().map(|group| group.name());
    assert_eq!(group, Some(NamedGroup::X25519MLKEM768));
    for alpn in [vec![], vec![b"http/1.1".to_vec()]] {
        config.alpn_protocols = alpn;
        assert!(connect(fixture.gateway.data_addr(), &Arc::new(config.clone())).await.is_err());
    }
    fixture.gateway.shutdown().await.unwrap();
}

/// A ClientHello of TLS 1.2 (RFC 5246 section 7.4.1.2): no supported_versions, suites that a 1.2 server would take.
fn hello_of_tls12() -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.push(0);
    body.extend([0, 4, 0xc0, 0x2f, 0xc0, 0x2b, 1, 0]);
    // supported_groups: secp256r1; signature_algorithms: ecdsa_secp256r1_sha256, rsa_pss_rsae_sha256.
    let extensions = [0, 10, 0, 4, 0, 2, 0, 23, 0, 13, 0, 6, 0, 4, 4, 3, 8, 4];
    body.extend([0, u8::try_from(extensions.len()).unwrap()]);
    body.extend(extensions);
    let length = u8::try_from(body.len()).unwrap();
    let mut record = vec![22, 3, 1, 0, length + 4, 1, 0, 0, length];
    record.extend(body);
    record
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_1_2_is_refused() {
    let fixture = Fixture::start().await;
    let mut tcp = TcpStream::connect(fixture.gateway.data_addr()).await.unwrap();
    tcp.write_all(&hello_of_tls12()).await.unwrap();
    let mut answer = Vec::new();
    timeout(PATIENCE, tcp.read_to_end(&mut answer)).await.unwrap().unwrap();
    // An alert record: fatal, protocol_version (70).
    assert_eq!((answer[0], &answer[5..]), (21, &[2, 70][..]), "{answer:?}");
    fixture.gateway.shutdown().await.unwrap();
}

/// Connects twice with one configuration that would resume if it could; the kind of the second handshake.
async fn second_handshake(address: std::net::SocketAddr, mut config: rustls::ClientConfig) -> HandshakeKind {
    config.resumption = Resumption::in_memory_sessions(8);
    let config = Arc::new(config);
    drop(connect(address, &config).await.unwrap());
    let second = connect(address, &config).await.unwrap();
    second.get_ref().1.handshake_kind().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_session_is_resumed() {
    let fixture = Fixture::start().await;
    let config = fixture.tls(Some(&fixture.issue_workload("/ns/shop/sa/billing")));
    assert_eq!(second_handshake(fixture.gateway.data_addr(), config).await, HandshakeKind::Full);
    fixture.gateway.shutdown().await.unwrap();
}

/// The control of the test above: against a server with rustls's defaults, the same client resumes.
#[tokio::test(flavor = "multi_thread")]
async fn the_same_client_resumes_where_it_can() {
    let ca = Ca::new("control").unwrap();
    let issued = ca.issue(&Leaf::server(&workload_id("/gateway"))).unwrap();
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap(),
        )
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let serving = tokio::spawn(async move {
        let mut kept = Vec::new();
        for _ in 0..2 {
            let mut tls = acceptor.accept(listener.accept().await?.0).await?;
            // An empty SETTINGS frame, which `connect` waits for.
            tls.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await?;
            tls.flush().await?;
            kept.push(tls);
        }
        io::Result::Ok(kept)
    });
    assert_eq!(second_handshake(address, client(ca.pem(), None)).await, HandshakeKind::Resumed);
    serving.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_handshake_is_cut_off() {
    let limits = "\n[limits]\nhandshake_timeout_ms = 200\nmax_handshakes = 1\n";
    let fixture = Fixture::start_with(|_, text| text + limits).await;
    let mut slow = TcpStream::connect(fixture.gateway.data_addr()).await.unwrap();
    slow.write_all(&hello_of_tls12()[..20]).await.unwrap();
    // Two bounds at once: the slow one holds the only handshake, and the next client gets its turn when it is cut.
    let billing = fixture.issue_workload("/ns/shop/sa/billing");
    connect(fixture.gateway.data_addr(), &Arc::new(fixture.tls(Some(&billing)))).await.unwrap();
    let mut byte = [0];
    let cut = timeout(Duration::from_secs(5), slow.read(&mut byte)).await.unwrap();
    assert!(matches!(cut, Ok(0) | Err(_)), "{cut:?}");
    fixture.gateway.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_the_bound_are_closed() {
    let fixture = Fixture::start_with(|_, text| text + "\n[limits]\nmax_connections = 1\n").await;
    let billing = fixture.issue_workload("/ns/shop/sa/billing");
    let config = Arc::new(fixture.tls(Some(&billing)));
    let first = connect(fixture.gateway.data_addr(), &config).await.unwrap();
    assert!(connect(fixture.gateway.data_addr(), &config).await.is_err());
    drop(first);
    // The place is free again once the gateway has seen the end of the first.
    let freed = async { while connect(fixture.gateway.data_addr(), &config).await.is_err() {} };
    timeout(PATIENCE, freed).await.unwrap();
    fixture.gateway.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_ends_at_its_age_and_when_it_is_idle() {
    for limit in ["connection_age_ms = 1000", "idle_timeout_ms = 1000"] {
        let fixture = Fixture::start_with(|_, text| text + "\n[limits]\nconnection_grace_ms = 100\n" + limit).await;
        let billing = fixture.issue_workload("/ns/shop/sa/billing");
        let mut tls = connect(fixture.gateway.data_addr(), &Arc::new(fixture.tls(Some(&billing)))).await.unwrap();
        tls.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
        let mut rest = Vec::new();
        let ended = timeout(Duration::from_secs(10), tls.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "{limit}: the connection is still open");
        // A GOAWAY frame (type 7) on stream 0 came before the end.
        assert!(rest.windows(6).any(|w| w == [8, 7, 0, 0, 0, 0]), "{limit}: {rest:?}");
        fixture.gateway.shutdown().await.unwrap();
    }
}
