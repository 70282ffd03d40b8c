//! What of the configuration nobody changes alone.

use std::fs;

use vault_grpc::Gateway;
use vault_grpc::config::Config;
use vault_grpc::pki::Ca;

use crate::audit_entries::entries;
use crate::support::{Fixture, made};

const ENFORCED: &str = "\n[charter]\nenforce = true\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_differs_from_the_charter_does_not_serve_and_changes_nothing() {
    let (_dir, made) = made();
    let text = fs::read_to_string(&made.config).unwrap() + ENFORCED;
    fs::write(&made.config, &text).unwrap();
    Gateway::start(Config::load(&made.config).unwrap()).await.unwrap().shutdown().await.unwrap();
    let ca = made.config.parent().unwrap().join("certs/workload-ca.pem");
    let good = fs::read_to_string(&ca).unwrap();
    let foreign = Ca::new("somebody else's").unwrap();
    for (config, file, names) in [
        (text.clone(), good.clone() + foreign.pem(), "+ data.client_ca sha256:"),
        (text.clone(), foreign.pem().to_owned(), "- data.client_ca sha256:"),
        (text.replace("workloads.dev.example", "other.example"), good.clone(), "+ data.trust_domain other.example"),
        (text.clone() + "\n[lifecycle]\napproval_s = 3600\n", good.clone(), "+ lifecycle.approval_ms 3600000"),
        (text.replace("root.key", "other.key"), good.clone(), "+ roots.root local"),
    ] {
        if config.contains("other.key") {
            let root = made.config.parent().unwrap();
            fs::copy(root.join("root.key"), root.join("other.key")).unwrap();
        }
        fs::write(&made.config, &config).unwrap();
        fs::write(&ca, &file).unwrap();
        if config.contains("other.example") {
            // The registry is the old domain's: not what is asked here.
            let registry = made.config.parent().unwrap().join("policies/registry.toml");
            fs::write(registry, "").unwrap();
        }
        let error = Gateway::start(Config::load(&made.config).unwrap()).await.unwrap_err().to_string();
        assert!(error.contains("differs from the charter in force") && error.contains(names), "{names}: {error}");
    }
    // What was agreed on serves as before, and nothing else ever came into force.
    fs::write(&made.config, &text).unwrap();
    fs::write(&ca, good).unwrap();
    let gateway = Gateway::start(Config::load(&made.config).unwrap()).await.unwrap();
    let in_force = gateway.vault().charter_in_force().await.unwrap().unwrap();
    assert_eq!((in_force.number, in_force.approval), (1, None));
    gateway.shutdown().await.unwrap();
    let log = entries(&made.config.parent().unwrap().join("data/audit"));
    let told: Vec<_> = log.iter().filter(|entry| format!("{:?}", entry.body).contains("\"charter\"")).collect();
    assert_eq!(told.len(), 1, "told once, when it was adopted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_that_would_widen_is_not_taken() {
    let fixture = Fixture::start_with(|_, text| text + ENFORCED).await;
    let ca = fixture.root().join("certs/workload-ca.pem");
    let foreign = Ca::new("somebody else's").unwrap();
    let good = fs::read_to_string(&ca).unwrap();
    fs::write(&ca, good.clone() + foreign.pem()).unwrap();
    let error = fixture.gateway.reload().await.unwrap_err().to_string();
    assert!(error.contains("differs from the charter") && error.contains("+ data.client_ca sha256:"), "{error}");
    let stranger = vault_grpc::pki::Leaf::client("billing", &crate::support::workload_id("/ns/shop/sa/billing"));
    let stranger = foreign.issue(&stranger).unwrap();
    let tls = std::sync::Arc::new(fixture.tls(Some(&stranger)));
    assert!(crate::support::connect(fixture.gateway.data_addr(), &tls).await.is_err(), "the old bundle is in force");
    fs::write(&ca, good).unwrap();
    fixture.gateway.reload().await.unwrap();
    fixture.gateway.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn in_development_a_changed_configuration_takes_over_and_is_told() {
    let (_dir, made) = made();
    Gateway::start(Config::load(&made.config).unwrap()).await.unwrap().shutdown().await.unwrap();
    let text = fs::read_to_string(&made.config).unwrap() + "\n[lifecycle]\napproval_s = 3600\n";
    fs::write(&made.config, text).unwrap();
    let gateway = Gateway::start(Config::load(&made.config).unwrap()).await.unwrap();
    let in_force = gateway.vault().charter_in_force().await.unwrap().unwrap();
    assert_eq!(in_force.number, 2);
    assert!(in_force.charter.text().contains("lifecycle.approval_ms 3600000\n"));
    gateway.shutdown().await.unwrap();
}
