//! `tenant` and `approval` of the command line, at a running gateway, as operators type them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use vault_client::Target;
use vault_grpc::pki::Leaf;

use super::support::{Fixture, operator_id};

/// An operator's terminal.
#[derive(Clone)]
struct Terminal {
    dir: PathBuf,
    gateway: String,
    who: &'static str,
}

impl Terminal {
    /// The exit code, and what was said on stdout.
    fn run(&self, words: &[&str]) -> (i32, String) {
        let file = |name: &str| self.dir.join(name);
        let done = Command::new(env!("CARGO_BIN_EXE_vault-grpc"))
            .args(words)
            .args(["--gateway", &self.gateway, "--server-name", "localhost", "--ca"])
            .arg(file("server-ca.pem"))
            .arg("--cert")
            .arg(file(&format!("{}.pem", self.who)))
            .arg("--key")
            .arg(file(&format!("{}.key", self.who)))
            .output()
            .unwrap();
        (done.status.code().unwrap(), String::from_utf8(done.stdout).unwrap())
    }

    /// What a command that succeeds answers.
    fn json(&self, words: &[&str]) -> Value {
        let (code, said) = self.run(&[words, &["--json"]].concat());
        assert_eq!(code, 0, "{words:?}: {said}");
        serde_json::from_str(&said).unwrap()
    }
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn given(dir: &Path, name: &str, contents: &str) -> String {
    let file = dir.join(name);
    fs::write(&file, contents).unwrap();
    file.to_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_suspend_resume_and_shred_from_the_command_line_by_two() {
    let fixture = Fixture::start_with(|_, text| format!("{text}\n[approvals]\nshred_delay_s = 3600\n")).await;
    fixture.tenants().await;
    let billing = fixture.workload("billing").await;
    let mia = Target::new("acme", "customers", "billing").subject("mia");
    let envelope = billing.encrypt(&mia, b"DE89 3704").await.unwrap().envelope;
    let dir = tempfile::tempdir().unwrap();
    given(dir.path(), "server-ca.pem", fixture.made.server_ca.pem());
    for name in ["alice", "bob"] {
        let issued = fixture.made.operator_ca.issue(&Leaf::client(name, &operator_id(name))).unwrap();
        given(dir.path(), &format!("{name}.pem"), &issued.certificate);
        given(dir.path(), &format!("{name}.key"), &issued.key);
    }
    let gateway = fixture.gateway.control_addr().to_string();
    let at = |who| Terminal { dir: dir.path().to_owned(), gateway: gateway.clone(), who };
    let (alice, bob) = (at("alice"), at("bob"));
    let person = given(dir.path(), "person", "mia\n");
    let commands = tokio::task::spawn_blocking(move || {
        assert_eq!(text(&alice.json(&["tenant", "get", "acme"]), "state"), "active");
        let suspended = alice.json(&["tenant", "suspend", "acme", "--reason", "alarm"]);
        assert_eq!(text(&suspended, "state"), "suspended");
        let asked = alice.json(&["tenant", "resume", "acme", "--reason", "false alarm"]);
        let (id, hash) = (text(&asked, "approval").to_owned(), text(&asked, "request_sha256").to_owned());
        assert_eq!((text(&asked, "state"), text(&asked, "approvals")), ("pending", "0 of 1"));
        assert!(asked["summary"][0].as_str().unwrap().contains("lifts the suspension of tenant acme"), "{asked}");
        // It waits for bob, and not for the one who asked.
        assert_eq!(alice.json(&["approval", "list", "--waiting"]), Value::Array(vec![]));
        assert_eq!(text(&bob.json(&["approval", "list", "--waiting"])[0], "approval"), id);
        let approve = ["approval", "approve", &id, "--tenant", "acme", "--sha256", &hash, "--reason", "seen"];
        assert_eq!(alice.run(&approve).0, 1, "her own");
        let other = "0".repeat(64);
        let wrong = ["approval", "approve", &id, "--tenant", "acme", "--sha256", &other, "--reason", "seen"];
        let (code, said) = bob.run(&wrong);
        assert!(code == 1 && said.contains("request_sha256"), "{said}");
        assert_eq!(text(&bob.json(&approve), "state"), "executed");
        let (code, said) = bob.run(&["tenant", "list"]);
        assert!(code == 0 && said.contains("tenant: acme") && said.contains("state: active"), "{said}");

        let shred = ["tenant", "shred", "acme", "--reason", "she asked", "--subject-file", &person];
        let asked = alice.json(&shred);
        let (id, hash) = (text(&asked, "approval").to_owned(), text(&asked, "request_sha256").to_owned());
        assert!(!asked.to_string().contains("mia"), "{asked}");
        let approve = ["approval", "approve", &id, "--tenant", "acme", "--sha256", &hash, "--reason", "seen"];
        assert_eq!(bob.run(&approve).0, 1, "without the person");
        let approve = [&approve[..], &["--subject-file", &person]].concat();
        let scheduled = bob.json(&approve);
        assert_eq!(text(&scheduled, "state"), "scheduled");
        assert!(!text(&scheduled, "scheduled").is_empty());
        let cancel = ["approval", "cancel", &id, "--tenant", "acme", "--reason", "she came back"];
        assert_eq!(text(&alice.json(&cancel), "state"), "cancelled");
        assert_eq!(alice.run(&cancel).0, 1, "once");
        let (code, said) = alice.run(&["approval", "show", &id, "--tenant", "acme"]);
        assert!(code == 0 && said.contains("state: cancelled") && said.contains("approvals: 1 of 1"), "{said}");
        assert_eq!(alice.run(&["approval", "show", "nonsense"]).0, 1);
        assert_eq!(alice.json(&["approval", "list", "--state", "cancelled"]).as_array().unwrap().len(), 1);
        let rotated = alice.json(&["tenant", "rotate", "acme", "--reason", "yearly"]);
        assert_eq!(rotated["active_key_version"], 2);
    });
    commands.await.unwrap();
    let opened = billing.decrypt(&mia, envelope).await.unwrap();
    assert_eq!(opened.plaintext.as_bytes(), b"DE89 3704", "cancelled: her keys are as usable as ever");
    fixture.gateway.shutdown().await.unwrap();
}
