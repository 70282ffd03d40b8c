//! What the gateway counts, as a collector reads it.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use vault_client::{EndUserToken, Target};

use crate::support::Fixture;

async fn ask(at: SocketAddr, request: &str) -> String {
    let mut tcp = TcpStream::connect(at).await.unwrap();
    tcp.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).await.unwrap();
    answer
}

pub(crate) async fn metrics(fixture: &Fixture) -> String {
    ask(fixture.gateway.metrics_addr().unwrap(), "GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n").await
}

/// The value of one series.
fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    assert!(line.is_some(), "no {series} in\n{text}");
    line.unwrap().parse().unwrap()
}

pub(crate) async fn start() -> Fixture {
    Fixture::start_with(|_, text| format!("{text}\n[metrics]\naddress = \"127.0.0.1:0\"\n")).await
}

#[tokio::test]
async fn calls_refusals_and_keys_are_counted_and_no_data_is_told() {
    let fixture = start().await;
    fixture.tenants().await;
    let billing = fixture.workload("billing").await;
    let target = Target::new("acme", "customers", "billing").subject("customer-4711").context("field", "iban");
    let sealed = billing.encrypt(&target, b"DE02120300000000202051").await.unwrap();
    for _ in 0..3 {
        billing.decrypt(&target, sealed.envelope.clone()).await.unwrap();
    }
    assert!(billing.decrypt(&target, vec![0; 100]).await.is_err());
    assert!(fixture.workload("billing").await.encrypt(&Target::new("globex", "customers", "x"), b"x").await.is_err());
    let for_nobody = Target::new("acme", "customers", "billing").end_user(EndUserToken::new("acme.is.none"));
    for _ in 0..2 {
        assert!(billing.rewrap(&for_nobody, sealed.envelope.clone()).await.is_err());
    }
    let stranger = fixture.endpoint(fixture.gateway.data_addr(), "operator-alice");
    assert!(vault_client::VaultClient::connect(&stranger).await.is_err());

    let text = metrics(&fixture).await;
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.contains("text/plain; version=0.0.4"), "{text}");
    let calls = |method: &str, code: &str| {
        let labels = format!("plane=\"data\",service=\"vault.v1.CryptoService\",method=\"{method}\",code=\"{code}\"");
        value(&text, &format!("blindvault_calls_total{{{labels}}}"))
    };
    assert_eq!(calls("Encrypt", "OK"), 1.0);
    assert_eq!(calls("Encrypt", "PERMISSION_DENIED"), 1.0);
    assert_eq!(calls("Decrypt", "OK"), 3.0);
    assert_eq!(calls("Decrypt", "INVALID_ARGUMENT"), 1.0);
    let decrypts = "service=\"vault.v1.CryptoService\",method=\"Decrypt\"";
    assert_eq!(value(&text, &format!("blindvault_call_duration_seconds_count{{{decrypts}}}")), 4.0);
    assert_eq!(value(&text, &format!("blindvault_call_duration_seconds_bucket{{{decrypts},le=\"+Inf\"}}")), 4.0);
    assert_eq!(value(&text, &format!("blindvault_calls_running{{{decrypts}}}")), 0.0);
    assert!(value(&text, "blindvault_key_cache_hits_total{key=\"data\"}") >= 3.0);
    assert_eq!(value(&text, "blindvault_key_cache_held{key=\"data\"}"), 1.0);
    assert!(value(&text, "blindvault_audit_entries") >= 6.0);
    assert_eq!(value(&text, "blindvault_audit_healthy"), 1.0);
    assert!(value(&text, "blindvault_connections{plane=\"data\"}") >= 1.0);
    assert!(text.contains("blindvault_connections_refused_total{plane=\"data\",reason="), "{text}");
    let tokens = "blindvault_end_user_tokens_refused_total";
    let refused: Vec<_> = text.lines().filter(|line| line.starts_with(&format!("{tokens}{{"))).collect();
    assert_eq!(refused, [format!("{tokens}{{rule=\"malformed\"}} 2")]);
    for secret in ["acme", "globex", "4711", "DE0212", "iban", "billing", "alice"] {
        assert!(!text.contains(secret), "{secret} in\n{text}");
    }
    fixture.gateway.shutdown().await.unwrap();
}

#[tokio::test]
async fn nothing_else_is_answered() {
    let fixture = start().await;
    let at = fixture.gateway.metrics_addr().unwrap();
    for (request, status) in [
        ("GET / HTTP/1.1\r\nhost: x\r\n\r\n", "404"),
        ("GET /debug/pprof HTTP/1.1\r\nhost: x\r\n\r\n", "404"),
        ("POST /metrics HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n", "405"),
        ("nonsense\r\n\r\n", "400"),
    ] {
        let answer = ask(at, request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{request}: {answer}");
    }
    fixture.gateway.shutdown().await.unwrap();
}
