//! Backup and restore by the command line, with a gateway before and after.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use vault_client::Target;
use vault_grpc::Gateway;
use vault_grpc::config::Config;

use super::support::Fixture;

fn run(arguments: &[&str]) -> (bool, String) {
    let done = Command::new(env!("CARGO_BIN_EXE_vault-grpc")).args(arguments).output().unwrap();
    let text = [done.stdout, done.stderr].concat();
    (done.status.success(), String::from_utf8(text).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_was_lost_comes_back_from_its_backup() {
    let fixture = Fixture::start().await;
    fixture.tenants().await;
    let target = Target::new("acme", "customers", "billing").subject("customer-1");
    let billing = fixture.workload("billing").await;
    let sealed = billing.encrypt(&target, b"forty-two").await.unwrap();
    let Fixture { dir, made, gateway } = fixture;
    let config = made.config.to_str().unwrap();
    let out = dir.path().join("backup.blv");
    let out = out.to_str().unwrap();

    let (good, said) = run(&["backup", "--config", config, "--out", out]);
    assert!(!good && said.contains("open already"), "while the gateway runs: {said}");
    gateway.shutdown().await.unwrap();
    let (good, said) = run(&["backup", "--config", config, "--out", out]);
    assert!(good && said.contains("tenants               2 rows"), "{said}");
    assert_eq!(fs::metadata(out).unwrap().permissions().mode() & 0o777, 0o600);
    let (good, said) = run(&["backup", "--config", config, "--out", out]);
    assert!(!good && said.contains("exists already"), "{said}");

    let loaded = Config::load(&made.config).unwrap();
    let vault_grpc::config::Store::Embedded(store) = loaded.store.clone() else { unreachable!() };
    fs::remove_file(&store.path).unwrap();
    let missing = dir.path().join("none.blv");
    let (good, said) = run(&["backup", "--config", config, "--out", missing.to_str().unwrap()]);
    assert!(!good && said.contains("there is no store") && !store.path.exists(), "{said}");
    let (good, said) = run(&["restore", "--config", config, "--from", out, "--check"]);
    assert!(good && said.contains("whole") && !store.path.exists(), "{said}");

    let damaged = dir.path().join("damaged.blv");
    let mut bytes = fs::read(out).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&damaged, bytes).unwrap();
    let (good, said) = run(&["restore", "--config", config, "--from", damaged.to_str().unwrap()]);
    assert!(!good && said.contains("the backup is damaged") && !store.path.exists(), "{said}");

    let text = fs::read_to_string(&made.config).unwrap();
    let elsewhere = made.config.with_file_name("elsewhere.toml");
    let instance = text.lines().find(|line| line.starts_with("instance = ")).unwrap();
    fs::write(&elsewhere, text.replace(instance, "instance = \"elsewhere\"")).unwrap();
    let (good, said) = run(&["restore", "--config", elsewhere.to_str().unwrap(), "--from", out]);
    assert!(!good && said.contains("another instance") && !store.path.exists(), "{said}");

    let (good, said) = run(&["restore", "--config", config, "--from", out]);
    assert!(good && said.contains("restored:"), "{said}");
    let gateway = Gateway::start(loaded).await.unwrap();
    let again = Fixture { dir, made, gateway };
    let billing = again.workload("billing").await;
    assert_eq!(billing.decrypt(&target, sealed.envelope).await.unwrap().plaintext.as_bytes(), b"forty-two");
    let root = again.root().to_owned();
    let (audit, key) = (root.join("data/audit"), root.join("audit.vkey"));
    again.gateway.shutdown().await.unwrap();
    let (good, said) = run(&["audit", "verify", "--dir", audit.to_str().unwrap(), "--key", key.to_str().unwrap()]);
    assert!(good, "{said}");
    let entries = fs::read(audit.join("entries.log")).unwrap();
    assert!(entries.len() > 1000);
}
