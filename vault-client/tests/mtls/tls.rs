//! The handshake: who is refused by whom, and what the client offers.

use crate::support::{Ca, Gateway};
use rcgen::ExtendedKeyUsagePurpose;
use rustls::{AlertDescription, CertificateError};
use rustls_pki_types::pem::PemObject;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use vault_client::{ClientError, Code, Endpoint, Origin, VaultClient};

async fn refusal(endpoint: &Endpoint) -> ClientError {
    VaultClient::connect(endpoint).await.unwrap_err()
}

#[tokio::test]
async fn the_gateway_refuses_a_client_of_another_ca() {
    let gateway = Gateway::start().await;
    for identity in [
        Ca::new().client(),
        gateway.server_ca.client(),
        gateway.client_ca.issue(&["client.test"], ExtendedKeyUsagePurpose::ServerAuth),
    ] {
        let error = refusal(&gateway.endpoint_with(identity)).await;
        assert_eq!(
            (error.origin(), error.code(), error.reason()),
            (Origin::Transport, Code::Unavailable, "TLS"),
            "{error:?}"
        );
        assert!(matches!(error.tls(), Some(rustls::Error::AlertReceived(_))), "{error:?}");
    }
}

#[tokio::test]
async fn the_gateway_refuses_a_client_without_certificate() {
    let gateway = Gateway::start().await;
    // This client cannot be made to do that, so it takes a bare one.
    let mut roots = rustls::RootCertStore::empty();
    roots.add(rustls_pki_types::CertificateDer::from_pem_slice(gateway.server_ca.pem.as_bytes()).unwrap()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tcp = tokio::net::TcpStream::connect(&gateway.address).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    let mut stream = connector.connect("localhost".try_into().unwrap(), tcp).await.unwrap();
    let error = stream.read(&mut [0; 16]).await.unwrap_err();
    let error = error.get_ref().unwrap().downcast_ref::<rustls::Error>().unwrap();
    assert_eq!(*error, rustls::Error::AlertReceived(AlertDescription::CertificateRequired));
}

#[tokio::test]
async fn the_client_refuses_a_gateway_of_another_ca_or_name() {
    let gateway = Gateway::start().await;
    let endpoint = |name: &str, ca: &Ca| {
        let (cert, key) = gateway.client_ca.client();
        Endpoint::new(gateway.address.clone(), name, ca.pem.clone(), cert, key)
    };
    let error = refusal(&endpoint("localhost", &Ca::new())).await;
    assert!(matches!(error.tls(), Some(rustls::Error::InvalidCertificate(_))), "{error:?}");
    for name in ["gateway.test", "127.0.0.2"] {
        let error = refusal(&endpoint(name, &gateway.server_ca)).await;
        let wrong_name = matches!(
            error.tls(),
            Some(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }
            ))
        );
        assert!(wrong_name, "{error:?}");
    }
    // The other name of the certificate is as good as the first.
    assert!(VaultClient::connect(&endpoint("127.0.0.1", &gateway.server_ca)).await.is_ok());
}

#[tokio::test]
async fn the_client_refuses_a_peer_that_does_not_negotiate_http2() {
    let gateway = Gateway::start_with(&[]).await;
    let error = refusal(&gateway.endpoint()).await;
    assert_eq!((error.origin(), error.reason()), (Origin::Transport, "CONNECTION"), "{error:?}");
}

#[tokio::test]
async fn what_cannot_work_is_refused_before_connecting() {
    let ca = Ca::new();
    let ((cert, key), (_, other)) = (ca.client(), ca.client());
    let cases = [
        ("empty certificate", Endpoint::new("127.0.0.1:1", "localhost", ca.pem.clone(), "", key.clone())),
        ("empty key", Endpoint::new("127.0.0.1:1", "localhost", ca.pem.clone(), cert.clone(), "")),
        ("foreign key", Endpoint::new("127.0.0.1:1", "localhost", ca.pem.clone(), cert.clone(), other)),
        ("empty CA", Endpoint::new("127.0.0.1:1", "localhost", "", cert.clone(), key.clone())),
        ("bad name", Endpoint::new("127.0.0.1:1", "not a name", ca.pem.clone(), cert.clone(), key.clone())),
        ("no port", Endpoint::new("127.0.0.1", "localhost", ca.pem.clone(), cert.clone(), key.clone())),
    ];
    for (case, endpoint) in cases {
        let error = VaultClient::connect(&endpoint).await.unwrap_err();
        assert_eq!((error.origin(), error.reason()), (Origin::Local, "CONFIGURATION"), "{case}: {error:?}");
        assert!(!format!("{endpoint:?}").contains("BEGIN"), "{case}");
    }
    let nobody = Endpoint::new("127.0.0.1:1", "localhost", ca.pem.clone(), cert, key);
    let error = VaultClient::connect(&nobody).await.unwrap_err();
    assert_eq!((error.origin(), error.reason()), (Origin::Transport, "CONNECTION"));
}

/// The extensions of the first ClientHello that reaches a listener (RFC 8446, section 4.1.2).
async fn client_hello_extensions(listener: TcpListener) -> Vec<(u16, Vec<u8>)> {
    let (mut tcp, _) = listener.accept().await.unwrap();
    let mut hello = Vec::new();
    // A handshake message may span records: type, version, u16 length each; the message has a u24 length.
    while hello.len() < 4 || hello.len() < 4 + u24(&hello[1..]) {
        let mut header = [0; 5];
        tcp.read_exact(&mut header).await.unwrap();
        assert_eq!(header[0], 22, "a handshake record");
        let mut record = vec![0; usize::from(u16::from_be_bytes([header[3], header[4]]))];
        tcp.read_exact(&mut record).await.unwrap();
        hello.extend(record);
    }
    let mut rest = &hello[4 + 2 + 32..];
    rest = &rest[1 + usize::from(rest[0])..];
    rest = &rest[2 + u16_at(rest)..];
    rest = &rest[1 + usize::from(rest[0])..];
    rest = &rest[2..2 + u16_at(rest)];
    let mut extensions = Vec::new();
    while !rest.is_empty() {
        let kind = u16::from_be_bytes([rest[0], rest[1]]);
        let len = u16_at(&rest[2..]);
        extensions.push((kind, rest[4..4 + len].to_vec()));
        rest = &rest[4 + len..];
    }
    extensions
}

fn u16_at(b: &[u8]) -> usize {
    usize::from(u16::from_be_bytes([b[0], b[1]]))
}

fn u24(b: &[u8]) -> usize {
    usize::from(b[0]) << 16 | u16_at(&b[1..])
}

#[tokio::test]
async fn only_tls_1_3_and_h2_are_offered_and_the_hybrid_group_first() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let ca = Ca::new();
    let (cert, key) = ca.client();
    let endpoint = Endpoint::new(listener.local_addr().unwrap().to_string(), "localhost", ca.pem.clone(), cert, key);
    let (extensions, error) = tokio::join!(client_hello_extensions(listener), VaultClient::connect(&endpoint));
    assert!(error.is_err());
    let extension = |kind: u16| extensions.iter().find(|(k, _)| *k == kind).map(|(_, v)| v.as_slice());
    assert_eq!(extension(43), Some([2, 3, 4].as_slice()), "supported_versions: 0x0304 alone");
    assert_eq!(extension(16), Some(b"\0\x03\x02h2".as_slice()), "ALPN: h2 alone");
    assert_eq!(extension(10).map(|groups| &groups[2..4]), Some([0x11, 0xec].as_slice()), "X25519MLKEM768 first");
    assert_eq!(extension(51).map(|shares| &shares[2..4]), Some([0x11, 0xec].as_slice()), "its share is sent");
    for (kind, name) in [(41, "pre_shared_key"), (42, "early_data"), (35, "session_ticket")] {
        assert!(extension(kind).is_none(), "{name} is offered");
    }
}
