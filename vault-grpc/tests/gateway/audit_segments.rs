//! The audit log of a gateway over many segments and several keys, and the commands for both.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use tokio::time::sleep;
use vault_client::{BatchItem, Target, VaultClient};
use vault_grpc::Gateway;
use vault_grpc::config::Config;

use super::support::{Fixture, PATIENCE};

fn run(arguments: &[&str]) -> (i32, String) {
    let done = Command::new(env!("CARGO_BIN_EXE_vault-grpc")).args(arguments).output().unwrap();
    let text = String::from_utf8([done.stdout, done.stderr].concat()).unwrap();
    (done.status.code().unwrap(), text)
}

async fn batch(client: &VaultClient, items: usize) {
    let items = (0..items).map(|_| BatchItem::plaintext("customers", b"4111")).collect();
    let sealed = client.batch_encrypt("acme", "billing", items).await.unwrap();
    assert!(sealed.iter().all(Result::is_ok));
}

async fn archived(fixture: &Fixture) {
    let begun = Instant::now();
    loop {
        let segments = fixture.gateway.vault().audit().segments();
        if segments.archived == segments.open && segments.open > 1 {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{segments:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_archives_its_log_elsewhere_and_starts_without_it() {
    let cold = tempfile::tempdir().unwrap();
    let at = cold.path().join("archive");
    fs::create_dir(&at).unwrap();
    let setting = format!("\n[audit.segments]\nsize_kib = 64\narchive = {at:?}\n");
    let fixture = Fixture::start_with(|_, text| text + &setting).await;
    fixture.tenants().await;
    let client = fixture.workload("billing").await;
    for _ in 0..4 {
        batch(&client, 300).await;
    }
    archived(&fixture).await;
    let target = Target::new("acme", "customers", "billing");
    let sealed = client.encrypt(&target, b"forty-two").await.unwrap();
    let Fixture { dir, made, gateway } = fixture;
    gateway.shutdown().await.unwrap();
    let root = made.config.parent().unwrap();
    let (log, key) = (root.join("data/audit"), root.join("audit.vkey"));
    let log_args = ["--dir", log.to_str().unwrap(), "--key", key.to_str().unwrap()];
    let with = |first: &[&str], rest: &[&str]| run(&[first, &log_args[..], rest].concat());
    assert!(!log.join("archive").exists() && fs::read_dir(&at).unwrap().count() > 1);
    // Everything that reads a log reads across its segments.
    let (code, said) = with(&["audit", "verify"], &[]);
    assert!(code == 0 && said.contains("sound: 12"), "{said}");
    let (code, lines) = with(&["audit", "export"], &[]);
    assert!(code == 0 && lines.lines().count() > 1200, "{}", lines.lines().count());
    assert!(with(&["audit", "tail"], &["-n", "2"]).1.contains("stopped"));
    assert_eq!(with(&["audit", "prove"], &["--index", "5"]).0, 0);
    // Somebody moves the archive away.
    let away = cold.path().join("away");
    fs::rename(&at, &away).unwrap();
    let gateway = Gateway::start(Config::load(&made.config).unwrap()).await.unwrap();
    let fixture = Fixture { dir, made, gateway };
    let client = fixture.workload("billing").await;
    assert_eq!(client.decrypt(&target, sealed.envelope).await.unwrap().plaintext.as_bytes(), b"forty-two");
    // A missing archive is told, and stops nothing.
    for _ in 0..2 {
        batch(&client, 300).await;
    }
    let begun = Instant::now();
    while fixture.gateway.vault().audit().segments().behind.is_none() {
        assert!(begun.elapsed() < PATIENCE);
        sleep(Duration::from_millis(20)).await;
    }
    batch(&client, 1).await;
    fixture.gateway.shutdown().await.unwrap();
    let (code, said) = with(&["audit", "verify"], &[]);
    assert!(code == 1 && said.contains("segment 0, from entry 0"), "{said}");
    let (code, said) = with(&["audit", "verify"], &["--skip-missing"]);
    assert!(code == 0 && said.contains("NOT CHECKED: entries 0 to"), "{said}");
    let (code, said) = with(&["audit", "verify"], &["--archive", away.to_str().unwrap()]);
    assert!(code == 0 && !said.contains("NOT CHECKED"), "{said}");
}

fn keys(log: &Path) -> usize {
    fs::read_to_string(log.join("log.pub")).unwrap().lines().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_logs_key_is_rotated_by_a_command_that_can_be_killed() {
    let fixture = Fixture::start().await;
    fixture.tenants().await;
    let client = fixture.workload("billing").await;
    let target = Target::new("acme", "customers", "billing");
    let early = client.encrypt(&target, b"one").await.unwrap().audit_receipt.unwrap();
    let Fixture { dir, made, gateway } = fixture;
    let config = made.config.to_str().unwrap().to_owned();
    let root = made.config.parent().unwrap().to_owned();
    let (log, pinned, key) = (root.join("data/audit"), root.join("audit.vkey"), root.join("audit.key"));
    let rotate = ["audit", "rotate-key", "--config", &config];
    // The gateway has the log open.
    let (code, said) = run(&rotate);
    assert!(code == 1 && said.contains("open already"), "{said}");
    let (code, prepared) = run(&[&rotate[..], &["--prepare"]].concat());
    assert!(code == 0 && prepared.contains("next key blindvault/"), "{prepared}");
    assert_eq!(keys(&log), 1);
    gateway.shutdown().await.unwrap();
    let old = fs::read(&key).unwrap();
    let (code, said) = run(&rotate);
    assert!(code == 0 && said.contains(prepared.lines().next().unwrap()), "the key that was announced: {said}");
    let new = fs::read(&key).unwrap();
    assert!(old != new && !root.join("audit.key.next").exists());
    assert_eq!(keys(&log), 2);
    // As if it had been killed before the file was exchanged: the gateway takes the key that is in force, and the command
    // finishes.
    fs::write(&key, &old).unwrap();
    let next = root.join("audit.key.next");
    fs::copy(&key, &next).unwrap();
    fs::write(&next, &new).unwrap();
    let gateway = Gateway::start(Config::load(&made.config).unwrap()).await.unwrap();
    let fixture = Fixture { dir, made, gateway };
    let client = fixture.workload("billing").await;
    let late = client.encrypt(&target, b"two").await.unwrap().audit_receipt.unwrap();
    let Fixture { dir, made, gateway } = fixture;
    gateway.shutdown().await.unwrap();
    let (code, said) = run(&rotate);
    assert!(code == 0 && said.contains("already"), "{said}");
    assert!(fs::read(&key).unwrap() == new && !next.exists() && keys(&log) == 2);
    // The key that was pinned first proves the log, and so do receipts of both times.
    let files = [("early", &early), ("late", &late)].map(|(name, receipt)| {
        let file = dir.path().join(name);
        fs::write(&file, receipt.text()).unwrap();
        file.to_str().unwrap().to_owned()
    });
    let (log_dir, pinned) = (log.to_str().unwrap(), pinned.to_str().unwrap());
    let verify = ["audit", "verify", "--dir", log_dir, "--key", pinned, "--receipt", &files[0], "--receipt", &files[1]];
    let (code, said) = run(&verify);
    assert!(code == 0 && said.contains("signed by 2 keys") && !said.contains("not shown"), "{said}");
    let receipt = |file: &str, key: &str, more: &[&str]| {
        run(&[&["audit", "receipt", "verify", file, "--key", key], more].concat())
    };
    for file in &files {
        let (code, said) = receipt(file, pinned, &["--dir", log_dir]);
        assert_eq!(code, 0, "{said}");
        let (code, said) = receipt(file, log.join("log.pub").to_str().unwrap(), &[]);
        assert_eq!(code, 0, "{said}");
    }
    assert_eq!(receipt(&files[0], pinned, &[]).0, 0);
    assert_eq!(receipt(&files[1], pinned, &[]).0, 1, "by the first key alone nobody knows the second");
    // A retired key does not go on with the log.
    fs::write(&key, &old).unwrap();
    let error = Gateway::start(Config::load(&made.config).unwrap()).await.map(drop).unwrap_err().to_string();
    assert!(error.contains("retired"), "{error}");
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for found in fs::read_dir(from).unwrap() {
        let path = found.unwrap().path();
        let to = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &to);
        } else {
            fs::copy(&path, &to).unwrap();
        }
    }
}

/// Store and log put back together: the gateway starts and answers, as if nothing had been. Only what somebody kept
/// elsewhere shows it.
#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_of_store_and_log_together_shows_by_a_callers_receipt() {
    let fixture = Fixture::start().await;
    fixture.tenants().await;
    let Fixture { dir, made, gateway } = fixture;
    gateway.shutdown().await.unwrap();
    let root = made.config.parent().unwrap().to_owned();
    let (data, early) = (root.join("data"), dir.path().join("early"));
    copy(&data, &early);
    let config = made.config.clone();
    let start = async || Gateway::start(Config::load(&config).unwrap()).await.unwrap();
    let fixture = Fixture { dir, made, gateway: start().await };
    let client = fixture.workload("billing").await;
    let target = Target::new("acme", "customers", "billing");
    let receipt = client.encrypt(&target, b"one").await.unwrap().audit_receipt.unwrap();
    let Fixture { dir, made, gateway } = fixture;
    gateway.shutdown().await.unwrap();
    fs::remove_dir_all(&data).unwrap();
    copy(&early, &data);
    let fixture = Fixture { dir, made, gateway: start().await };
    let client = fixture.workload("billing").await;
    client.encrypt(&target, b"two").await.unwrap();
    let file = fixture.dir.path().join("receipt");
    fs::write(&file, receipt.text()).unwrap();
    fixture.gateway.shutdown().await.unwrap();
    let (log, key) = (data.join("audit"), root.join("audit.vkey"));
    let verify = ["audit", "verify", "--dir", log.to_str().unwrap(), "--key", key.to_str().unwrap()];
    let (code, said) = run(&verify);
    assert!(code == 0 && said.contains("not rolled back was not shown"), "{said}");
    let (code, said) = run(&[&verify[..], &["--receipt", file.to_str().unwrap()]].concat());
    assert!(code == 1 && said.contains("NOT SOUND"), "{said}");
}
