//! A client in another language, with another TLS and another gRPC implementation, made from the .proto files alone:
//! it encrypts and decrypts over mTLS, and gets no answer without the right certificate.
//!
//! The interpreter is `BLINDVAULT_PYTHON`, or `python3`; it needs PyPI `grpcio` and `grpcio-tools`. Without them the
//! test prints `SKIPPED`, or fails if `BLINDVAULT_REQUIRE=1`.
#![cfg(feature = "dev")]
#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(clippy::print_stdout, clippy::disallowed_macros, reason = "says why it is skipped")]

#[expect(unreachable_pub, dead_code, reason = "shared by several tests, each of which uses a part")]
mod common;

use std::fs;
use std::process::{Command, Stdio};

use common::Site;
use serde_json::{Value, json};
use vault_grpc::init::{OPERATOR_DOMAIN, WORKLOAD_DOMAIN};
use vault_grpc::pki::{Ca, Leaf};

/// The interpreter, or `None` after saying that the test is skipped.
fn python() -> Option<String> {
    let python = std::env::var("BLINDVAULT_PYTHON").unwrap_or_else(|_| "python3".into());
    let found = Command::new(&python).args(["-c", "import grpc, grpc_tools.protoc"]).stderr(Stdio::null()).status();
    if found.is_ok_and(|status| status.success()) {
        return Some(python);
    }
    let reason = format!("{python} with the packages `grpcio` and `grpcio-tools` is needed");
    assert!(std::env::var_os("BLINDVAULT_REQUIRE").is_none_or(|v| v != "1"), "{reason}");
    println!("SKIPPED a_python_client_works_and_is_refused: {reason}");
    None
}

#[tokio::test(flavor = "multi_thread")]
async fn a_python_client_works_and_is_refused() {
    let Some(python) = python() else { return };
    let site = Site::start().await;
    let billing = format!("spiffe://{WORKLOAD_DOMAIN}/ns/shop/sa/billing");
    let alice = format!("spiffe://{OPERATOR_DOMAIN}/operator/alice");
    let other_ca = Ca::new("another").unwrap();
    let expired = site.made.workload_ca.issue(&Leaf::client("billing", &billing).expired()).unwrap();
    let foreign = other_ca.issue(&Leaf::client("billing", &billing)).unwrap();
    let fresh = site.made.workload_ca.issue(&Leaf::client("billing", &billing)).unwrap();
    let operator = site.made.operator_ca.issue(&Leaf::client("alice", &alice)).unwrap();
    let dir = site.dir.path();
    fs::write(dir.join("other-ca.pem"), other_ca.pem()).unwrap();
    let case = |name: &str, issued: &vault_grpc::pki::Issued, work: bool| {
        let (cert, key) = (dir.join(format!("{name}.pem")), dir.join(format!("{name}.key")));
        fs::write(&cert, &issued.certificate).unwrap();
        fs::write(&key, issued.key.as_bytes()).unwrap();
        json!({ "name": name, "cert": cert, "key": key, "work": work })
    };
    let mut mistrusted = case("gateway of another CA", &fresh, false);
    mistrusted["ca"] = json!(dir.join("other-ca.pem"));
    let config = json!({
        "proto": format!("{}/../proto", env!("CARGO_MANIFEST_DIR")),
        "target": site.gateway.data_addr().to_string(),
        "ca": dir.join("site/certs/server-ca.pem"),
        "cases": [
            case("good", &fresh, true),
            { "name": "no certificate", "work": false },
            case("operator", &operator, false),
            case("expired", &expired, false),
            case("client of another CA", &foreign, false),
            mistrusted,
            // Once more at the end: the refusals were not those of a gateway that had stopped answering.
            case("good again", &fresh, true),
        ],
    });
    let file = dir.join("cases.json");
    fs::write(&file, config.to_string()).unwrap();
    let program = format!("{}/tests/python/foreign_client.py", env!("CARGO_MANIFEST_DIR"));
    let run = move || Command::new(python).arg(program).arg(file).stdin(Stdio::null()).output();
    let output = tokio::task::spawn_blocking(run).await.unwrap().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let outcomes: Value = serde_json::from_slice(&output.stdout).unwrap();
    let expected = json!({
        "good": "ok",
        "no certificate": "UNAVAILABLE",
        "operator": "UNAVAILABLE",
        "expired": "UNAVAILABLE",
        "client of another CA": "UNAVAILABLE",
        "gateway of another CA": "UNAVAILABLE",
        "good again": "ok",
    });
    assert_eq!(outcomes, expected, "{}", String::from_utf8_lossy(&output.stderr));
    site.gateway.shutdown().await.unwrap();
}
