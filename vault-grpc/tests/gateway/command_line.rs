//! The binary: exit codes, signals, and that nothing writes TLS secrets.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::Arc;

use rustix::process::{Pid, Signal, kill_process};
use vault_grpc::pki::Leaf;

use super::support::{client, connect, made, workload_id};

fn run(arguments: &[&str]) -> (i32, String, String) {
    let done = Command::new(env!("CARGO_BIN_EXE_vault-grpc")).args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (done.status.code().unwrap(), text(done.stdout), text(done.stderr))
}

struct Served {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStderr>>,
    data: SocketAddr,
}

/// Serves a configuration in a process of its own, with `SSLKEYLOGFILE` set; waits for both listeners.
fn serve(config: &Path, key_log: &Path) -> Served {
    let mut child = Command::new(env!("CARGO_BIN_EXE_vault-grpc"))
        .args(["serve", "--config"])
        .arg(config)
        .env("SSLKEYLOGFILE", key_log)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let data = wait_for(&mut lines, r#""plane":"data""#);
    let at = data.find("127.0.0.1:").unwrap();
    let data = data[at..].split('"').next().unwrap().parse().unwrap();
    wait_for(&mut lines, "everything is open");
    Served { child, lines, data }
}

fn wait_for(lines: &mut impl Iterator<Item = std::io::Result<String>>, part: &str) -> String {
    lines.map(Result::unwrap).find(|line| line.contains(part)).unwrap()
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap(), signal).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn serve_reloads_drains_writes_no_key_log_and_leaves_a_log_that_verifies() {
    let (dir, made) = made();
    let text = fs::read_to_string(&made.config).unwrap() + "\n[logs]\nformat = \"json\"\n";
    fs::write(&made.config, text).unwrap();
    let key_log = dir.path().join("keys.log");
    let mut served = serve(&made.config, &key_log);
    let limits = fs::read_to_string(format!("/proc/{}/limits", served.child.id())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");

    let leaf = Leaf::client("billing", &workload_id("/ns/shop/sa/billing"));
    let issued = made.workload_ca.issue(&leaf).unwrap();
    drop(connect(served.data, &Arc::new(client(made.server_ca.pem(), Some(&issued)))).await.unwrap());
    assert!(connect(served.data, &Arc::new(client(made.server_ca.pem(), None))).await.is_err());
    let refused = wait_for(&mut served.lines, "connections_refused");
    assert!(refused.contains("no_certificate"), "{refused}");
    assert!(!key_log.exists(), "nothing wrote TLS secrets to SSLKEYLOGFILE");

    signal(&served.child, Signal::HUP);
    wait_for(&mut served.lines, "reloaded");
    signal(&served.child, Signal::TERM);
    wait_for(&mut served.lines, "stopped");
    assert_eq!(served.child.wait().unwrap().code(), Some(0));

    let root = made.config.parent().unwrap();
    let (log, key) = (root.join("data/audit"), root.join("audit.vkey"));
    let verify = || run(&["audit", "verify", "--dir", log.to_str().unwrap(), "--key", key.to_str().unwrap()]);
    let (code, out, _) = verify();
    assert_eq!(code, 0, "{out}");
    assert!(out.starts_with("sound"), "{out}");
    let entries = fs::OpenOptions::new().read(true).write(true).open(log.join("entries.log")).unwrap();
    let middle = entries.metadata().unwrap().len() / 2;
    let mut byte = [0];
    entries.read_exact_at(&mut byte, middle).unwrap();
    entries.write_all_at(&[byte[0] ^ 1], middle).unwrap();
    let (code, out, _) = verify();
    assert_eq!(code, 1, "{out}");
    assert!(out.starts_with("NOT SOUND"), "{out}");
}

#[test]
fn exit_codes_tell_good_bad_and_wrong_usage() {
    let (dir, made) = made();
    let config = made.config.to_str().unwrap();
    assert_eq!(run(&["check", "--config", config]).0, 0);
    assert_eq!(run(&["policy", "check", "--config", config]).0, 0);
    assert_eq!(run(&["check"]).0, 2);
    assert_eq!(run(&["audit", "verify", "--dir", "x"]).0, 2);
    assert_eq!(run(&["no-such-command"]).0, 2);
    assert_eq!(run(&["--version"]).0, 0);
    let missing = dir.path().join("missing");
    let missing = missing.to_str().unwrap();
    let (code, _, error) = run(&["check", "--config", missing]);
    assert!(code == 1 && error.contains("cannot be read"), "{error}");
    assert_eq!(run(&["audit", "verify", "--dir", missing, "--key", missing]).0, 1);
    let (code, _, error) = run(&["init", "--dir", made.config.parent().unwrap().to_str().unwrap()]);
    assert!(code == 1 && error.contains("must be empty"), "{error}");
    assert_eq!(run(&["init", "--dir", missing]).0, 0);
    assert_eq!(run(&["check", "--config", &format!("{missing}/vault.toml")]).0, 0);
}
