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

#[tokio::test(flavor = "multi_thread")]
async fn a_charter_is_proposed_shown_line_by_line_approved_by_another_and_served_with_after_a_restart() {
    let (dir, made) = made();
    let root = made.config.parent().unwrap().to_owned();
    let text = fs::read_to_string(&made.config).unwrap() + ENFORCED;
    fs::write(&made.config, &text).unwrap();
    let gateway = Gateway::start(Config::load(&made.config).unwrap()).await.unwrap();
    let fixture = Fixture { dir, made, gateway };
    let (alice, bob) = (fixture.operator_as("alice").await, fixture.operator_as("bob").await);
    // What a deployment would be: another authority for workloads, and two who have to approve a shred.
    let foreign = Ca::new("the next one").unwrap();
    let good = fs::read_to_string(root.join("certs/workload-ca.pem")).unwrap();
    fs::write(root.join("certs/both.pem"), good + foreign.pem()).unwrap();
    let next = text.replace("certs/workload-ca.pem", "certs/both.pem") + "\n[approvals]\nshred_tenant = 2\n";
    let next_file = root.join("next.toml");
    fs::write(&next_file, &next).unwrap();
    let charter = vault_grpc::charter::of(&Config::load(&next_file).unwrap()).unwrap();
    for nonsense in ["", "blindvault/charter/v1\nb b\na a\n"] {
        let error = bob.propose_charter(nonsense, "test").await.unwrap_err();
        assert_eq!(error.violations().first().map(|v| v.field.as_str()), Some("text"), "{error:?}");
    }
    let asked = bob.propose_charter(&charter.text(), "a new authority").await.unwrap();
    assert_eq!(asked.action, "ProposeCharter");
    let shown = asked.summary.join("\n");
    let lines = ["+ data.client_ca sha256:", "- approvals.shred_tenant 1", "+ approvals.shred_tenant 2"];
    assert!(lines.iter().all(|line| shown.contains(line)), "{shown}");
    // Not by the one who asked, and nothing has changed yet.
    assert!(bob.approve(&asked, None, "agreed").await.is_err());
    assert_eq!(alice.get_charter("").await.unwrap().number, 1);
    let second = bob.propose_charter(&charter.text(), "once more").await.unwrap();
    let done = fixture.operator_as("carol").await.approve(&asked, None, "agreed").await.unwrap();
    assert_eq!(done.state(), vault_proto::v1::ApprovalState::Executed);
    let now = alice.get_charter("").await.unwrap();
    assert_eq!((now.number, &now.sha256, &now.approval), (2, &charter.digest().to_string(), &asked.approval));
    // What was to follow the first one can no longer be carried out.
    let late = fixture.operator_as("carol").await.approve(&second, None, "agreed").await.unwrap_err();
    assert_eq!(late.code(), vault_client::Code::FailedPrecondition);
    fixture.gateway.vault().watch_charter().await.unwrap();
    assert!(fixture.gateway.vault().charter_superseded(), "it serves on, and says so");
    let Fixture { dir: _dir, made, gateway } = fixture;
    gateway.shutdown().await.unwrap();
    let error = Gateway::start(Config::load(&made.config).unwrap()).await.unwrap_err().to_string();
    assert!(error.contains("- data.client_ca sha256:") && error.contains("- approvals.shred_tenant 2"), "{error}");
    let gateway = Gateway::start(Config::load(&next_file).unwrap()).await.unwrap();
    gateway.vault().watch_charter().await.unwrap();
    assert!(!gateway.vault().charter_superseded());
    gateway.shutdown().await.unwrap();
}
