//! Audit receipts from the answers of a gateway, and the commands that read a log's files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use vault_client::{AuditReceipt, BatchItem, Target};

use super::support::Fixture;

fn run(arguments: &[&str]) -> (i32, String, String) {
    let done = Command::new(env!("CARGO_BIN_EXE_vault-grpc")).args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (done.status.code().unwrap(), text(done.stdout), text(done.stderr))
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

/// A gateway that answered some data calls and was shut down; the receipts that its callers kept, and a copy of the log
/// from before.
async fn served() -> (Fixture, PathBuf, Vec<AuditReceipt>) {
    let fixture = Fixture::start().await;
    fixture.tenants().await;
    let early = fixture.dir.path().join("early");
    copy(&fixture.root().join("data/audit"), &early);
    let client = fixture.workload("billing").await;
    let target = Target::new("acme", "customers", "billing").subject("ann@example.com");
    let sealed = client.encrypt(&target, b"card 4111 1111").await.unwrap();
    let opened = client.decrypt(&target, sealed.envelope.clone()).await.unwrap();
    let rewrapped = client.rewrap(&target, sealed.envelope.clone()).await.unwrap();
    let items = (0..20).map(|n| {
        // The last does not exist, so it is refused.
        BatchItem::plaintext(if n == 19 { "no-such-dataset" } else { "customers" }, &[n])
    });
    let batch = client.batch_encrypt("acme", "billing", items.collect()).await.unwrap();
    let mut receipts = vec![sealed.audit_receipt, opened.audit_receipt, rewrapped.audit_receipt];
    for (at, result) in batch.into_iter().enumerate() {
        match result {
            Ok(sealed) => receipts.push(sealed.audit_receipt),
            Err(_) => assert_eq!(at, 19),
        }
    }
    assert_eq!(receipts.len(), 3 + 19);
    (fixture, early, receipts.into_iter().map(Option::unwrap).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_answer_carries_a_receipt_that_shows_its_entry_and_catches_a_log_that_lost_it() {
    let (fixture, early, receipts) = served().await;
    let Fixture { dir, made, gateway } = fixture;
    gateway.shutdown().await.unwrap();
    let root = made.config.parent().unwrap();
    let (log, key) = (root.join("data/audit"), root.join("audit.vkey"));
    let (log, key, early) = (log.to_str().unwrap(), key.to_str().unwrap(), early.to_str().unwrap());
    let mut indexes = Vec::new();
    let mut all = vec!["audit", "verify", "--dir", log, "--key", key];
    let mut files = Vec::new();
    for (at, receipt) in receipts.iter().enumerate() {
        indexes.extend(receipt.entries().map(|(index, _)| index));
        let file = dir.path().join(format!("{at}.receipt"));
        fs::write(&file, receipt.text()).unwrap();
        files.push(file.to_str().unwrap().to_owned());
    }
    indexes.sort_unstable();
    indexes.dedup();
    assert_eq!(indexes.len(), 3 + 19, "an entry an item");
    // Items of one commit group share one receipt.
    let first = &files[0];
    let (code, out, _) = run(&["audit", "receipt", "verify", first, "--key", key]);
    assert!(code == 0 && out.contains("in order") && out.contains("was not shown"), "{out}");
    let (code, out, _) = run(&["audit", "receipt", "verify", first, "--key", key, "--dir", log]);
    assert!(code == 0 && out.contains("sound"), "{out}");
    let (code, out, _) = run(&["audit", "receipt", "verify", first, "--key", key, "--dir", early]);
    assert!(code == 1 && out.contains("rolled back"), "{out}");
    for file in &files {
        all.extend(["--receipt", file]);
    }
    let (code, out, error) = run(&all);
    assert!(code == 0 && !out.contains("not shown"), "{out}{error}");
    // Another caller's index under the same signature.
    let text = fs::read_to_string(first).unwrap();
    let index = receipts[0].entries().next().unwrap().0;
    let forged = dir.path().join("forged.receipt");
    fs::write(&forged, text.replacen(&format!("entry {index} "), &format!("entry {} ", index - 1), 1)).unwrap();
    let (code, _, error) = run(&["audit", "receipt", "verify", forged.to_str().unwrap(), "--key", key]);
    assert!(code == 1 && error.contains("audit receipt"), "{error}");
    // What the receipt holds besides is a checkpoint like any other.
    let checkpoint = dir.path().join("checkpoint");
    fs::write(&checkpoint, receipts[0].checkpoint()).unwrap();
    let kept = ["--checkpoint", checkpoint.to_str().unwrap()];
    assert_eq!(run(&[&["audit", "verify", "--dir", log, "--key", key], &kept[..]].concat()).0, 0);
    let (code, out, _) = run(&[&["audit", "verify", "--dir", early, "--key", key], &kept[..]].concat());
    assert!(code == 1 && out.contains("kept outside"), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_are_exported_and_proven_from_the_files() {
    let (fixture, _, receipts) = served().await;
    let Fixture { dir, made, gateway } = fixture;
    gateway.shutdown().await.unwrap();
    let root = made.config.parent().unwrap();
    let (log, key) = (root.join("data/audit"), root.join("audit.vkey"));
    let log_args = ["--dir", log.to_str().unwrap(), "--key", key.to_str().unwrap()];
    let with = |first: &[&str], rest: &[&str]| run(&[first, &log_args[..], rest].concat());
    let (code, ocsf, error) = with(&["audit", "export"], &[]);
    assert_eq!(code, 0, "{error}");
    let lines: Vec<Value> = ocsf.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (at, line) in lines.iter().enumerate() {
        assert_eq!((&line["class_uid"], &line["category_uid"]), (&6003.into(), &6.into()));
        assert_eq!(line["type_uid"].as_u64().unwrap(), 600_300 + line["activity_id"].as_u64().unwrap());
        assert_eq!(line["metadata"]["sequence"], at);
        for required in ["time", "severity_id", "actor", "api", "src_endpoint"] {
            assert!(!line[required].is_null(), "{required}");
        }
    }
    let (index, leaf) = receipts[1].entries().next().unwrap();
    let entry = &lines[usize::try_from(index).unwrap()];
    assert_eq!(entry["api"]["operation"], "Decrypt");
    assert_eq!(entry["metadata"]["tenant_uid"], "acme");
    assert_eq!(entry["unmapped"]["leaf_hash"], hex::encode(leaf));
    let refused: Vec<_> = lines.iter().filter(|line| line["status_id"] == 2).collect();
    assert!(refused.iter().any(|line| line["unmapped"]["dataset"] == "no-such-dataset"), "{refused:?}");
    let (code, ecs, _) = with(&["audit", "export"], &["--format", "ecs", "--from", &index.to_string()]);
    assert_eq!((code, ecs.lines().count()), (0, lines.len() - usize::try_from(index).unwrap()));
    let entry: Value = serde_json::from_str(ecs.lines().next().unwrap()).unwrap();
    assert_eq!(entry["event"]["action"], "Decrypt");
    assert_eq!(entry["organization"]["id"], "acme");
    let (code, tail, _) = with(&["audit", "tail"], &["-n", "3"]);
    assert!(code == 0 && tail.lines().count() == 3 && tail.contains("stopped"), "{tail}");
    for text in [&ocsf, &ecs, &tail] {
        assert!(!text.contains("ann@example.com") && !text.contains("card 4111 1111"), "names nobody, holds no value");
    }

    let (code, proof, error) = with(&["audit", "prove"], &["--index", &index.to_string()]);
    assert!(code == 0 && proof.starts_with(&format!("c2sp.org/tlog-proof@v1\nindex {index}\n")), "{error}");
    let (code, proof, error) = with(&["audit", "prove"], &["--old", "1"]);
    assert!(code == 0 && proof.starts_with("old 1\n"), "{error}");
    assert_eq!(with(&["audit", "prove"], &["--index", "99999"]).0, 1);
    assert_eq!(with(&["audit", "prove"], &["--index", "0", "--to", "99999"]).0, 1);
    assert_eq!(with(&["audit", "prove"], &[]).0, 2);
    // Damage is told, with its place, and ends the export there.
    let bytes = fs::read(log.join("entries.log")).unwrap();
    let mut bad = bytes.clone();
    let at = bad.len() / 2;
    bad[at] ^= 1;
    let broken = dir.path().join("broken");
    copy(&log, &broken);
    fs::write(broken.join("entries.log"), bad).unwrap();
    let (code, out, error) = run(&["audit", "export", "--dir", broken.to_str().unwrap(), log_args[2], log_args[3]]);
    assert!(code == 1 && error.contains("entry") && out.lines().count() < lines.len(), "{error}");
}
