//! A gateway and its witnesses: cosigned checkpoints, a witness that lies, one that is down, and the witness command.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::sleep;
use vault_client::{Code, Target, VaultClient};
use vault_core::audit::Health;

use super::support::{Fixture, PATIENCE};

fn run(arguments: &[&str]) -> (i32, String) {
    let done = Command::new(env!("CARGO_BIN_EXE_vault-grpc")).args(arguments).output().unwrap();
    let text = String::from_utf8([done.stdout, done.stderr].concat()).unwrap();
    (done.status.code().unwrap(), text)
}

/// A witness in a process of its own, which ends with the test.
struct Running(Child);

impl Running {
    fn start(dir: &Path, log: &Path, listen: SocketAddr) -> Self {
        Self::start_with(dir, log, listen, &[])
    }

    fn start_with(dir: &Path, log: &Path, listen: SocketAddr, more: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_vault-grpc"))
            .args(["witness", "serve", "--listen", &listen.to_string(), "--dir"])
            .arg(dir)
            .arg("--log")
            .arg(log)
            .args(more)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.contains("listens on"), "{line}");
        Self(child)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn made(dir: &Path) -> String {
    let (code, vkey) = run(&["witness", "init", "--dir", dir.to_str().unwrap(), "--name", "witness.example/w1"]);
    assert_eq!(code, 0, "{vkey}");
    assert_eq!(run(&["witness", "init", "--dir", dir.to_str().unwrap(), "--name", "witness.example/w1"]).0, 1);
    vkey.trim_end().to_owned()
}

async fn gateway(vkey: &str, address: SocketAddr, more: &str) -> Fixture {
    let witness =
        format!("\n[[audit.witness]]\nkey = \"{vkey}\"\nurl = \"http://{address}\"\ntimeout_ms = 300\n{more}");
    Fixture::start_with(|_, text| text + &witness).await
}

async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        sleep(Duration::from_millis(50)).await;
    }
}

async fn encrypt(client: &VaultClient) -> Result<(), Code> {
    let target = Target::new("acme", "customers", "billing");
    client.encrypt(&target, b"4111").await.map(drop).map_err(|error| error.code())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_witness_cosigns_and_a_log_that_was_rolled_back_is_found_and_not_cosigned_again() {
    let dir = tempfile::tempdir().unwrap();
    let (home, address) = (dir.path().join("witness"), free());
    let vkey = made(&home);
    let fixture = gateway(&vkey, address, "").await;
    let root = fixture.root().to_owned();
    let (log, key) = (root.join("data/audit"), root.join("audit.vkey"));
    let running = Running::start(&home, &key, address);
    let cosigned = log.join("cosigned/witness.example+w1.note");
    let size = || {
        let note = fs::read_to_string(&cosigned).ok()?;
        note.lines().nth(1)?.parse::<u64>().ok()
    };
    until("the first cosignature", || size().is_some()).await;
    let first = size().unwrap();
    fixture.tenants().await;
    until("a later cosignature", || size().is_some_and(|size| size >= first + 4)).await;
    let Fixture { dir: place, gateway, made } = fixture;
    gateway.shutdown().await.unwrap();
    let kept = dir.path().join("kept");
    fs::copy(&cosigned, &kept).unwrap();
    let (log, key, kept) = (log.to_str().unwrap(), key.to_str().unwrap(), kept.to_str().unwrap());
    let evidence = ["--checkpoint", kept, "--witness", &vkey];
    let verify = || run(&[&["audit", "verify", "--dir", log, "--key", key], &evidence[..]].concat());
    let (code, out) = verify();
    assert!(code == 0 && !out.contains("not shown"), "{out}");
    let (code, out) = run(&[
        "audit",
        "verify",
        "--dir",
        log,
        "--key",
        key,
        "--checkpoint",
        &format!("{log}/checkpoint"),
        "--witness",
        &vkey,
    ]);
    assert!(code == 1 && out.contains("cosigned"), "{out}");
    // Another history with the same key: a log that was begun anew.
    fs::remove_dir_all(log).unwrap();
    let config = vault_grpc::config::Config::load(&made.config).unwrap();
    let gateway = vault_grpc::Gateway::start(config).await.unwrap();
    let metrics_of_refusal = || fs::read_to_string(&cosigned).is_ok();
    sleep(Duration::from_secs(3)).await;
    assert!(!metrics_of_refusal(), "nothing of it is cosigned");
    gateway.shutdown().await.unwrap();
    let (code, out) = verify();
    assert!(code == 1 && out.contains("does not extend"), "{out}");
    drop((running, place));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mandatory_witness_that_is_down_or_lies_stops_the_data_plane_until_it_cosigns() {
    let dir = tempfile::tempdir().unwrap();
    let (home, address) = (dir.path().join("witness"), free());
    let vkey = made(&home);
    // It answers 200, with a signature line that is not the witness's.
    let liar = tokio::net::TcpListener::bind(address).await.unwrap();
    let lying = tokio::spawn(async move {
        loop {
            let (mut tcp, _) = liar.accept().await.unwrap();
            let mut request = [0; 4096];
            drop(tcp.read(&mut request).await);
            let line = format!("\u{2014} witness.example/w1 {}\n", "A".repeat(104));
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{line}", line.len());
            drop(tcp.write_all(answer.as_bytes()).await);
            drop(tcp.shutdown().await);
        }
    });
    let fixture = gateway(&vkey, address, "mandatory = true\ndeadline_s = 1\n").await;
    let log = fixture.root().join("data/audit");
    let cosigned = log.join("cosigned/witness.example+w1.note");
    let health = || fixture.gateway.vault().audit().health();
    until("held", || matches!(health(), Health::Held(_))).await;
    assert!(!cosigned.exists(), "a lie is not kept");
    let client = fixture.workload("billing").await;
    assert_eq!(encrypt(&client).await, Err(Code::Unavailable));
    lying.abort();
    drop(lying.await);
    // Down: still held.
    sleep(Duration::from_millis(500)).await;
    assert!(matches!(health(), Health::Held(_)));
    assert_eq!(encrypt(&client).await, Err(Code::Unavailable));
    let running = Running::start(&home, &fixture.root().join("audit.vkey"), address);
    until("let go", || health() == Health::Good).await;
    assert!(cosigned.exists());
    fixture.tenants().await;
    assert_eq!(encrypt(&client).await, Ok(()));
    drop(running);
    until("held again", || matches!(health(), Health::Held(_))).await;
    fixture.gateway.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_a_witness_proves_its_name_under_the_pinned_roots_or_is_told_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let address = free();
    let (home, other) = (dir.path().join("witness"), dir.path().join("other"));
    let vkey = made(&home);
    let (code, other) = run(&["witness", "init", "--dir", other.to_str().unwrap(), "--name", "other"]);
    assert_eq!(code, 0, "{other}");
    let entry = |vkey: &str, roots: &str| {
        let url = format!("https://localhost:{}", address.port());
        format!("\n[[audit.witness]]\nkey = \"{vkey}\"\nurl = \"{url}\"\nroots = \"certs/{roots}.pem\"\n")
    };
    let entries = entry(&vkey, "server-ca") + &entry(other.trim_end(), "workload-ca");
    let fixture = Fixture::start_with(|_, text| text + &entries).await;
    let certs = fixture.root().join("certs");
    let (certificate, key) = (certs.join("gateway.pem"), certs.join("gateway.key"));
    let tls = ["--certificate", certificate.to_str().unwrap(), "--key", key.to_str().unwrap()];
    let running = Running::start_with(&home, &fixture.root().join("audit.vkey"), address, &tls);
    let cosigned = fixture.root().join("data/audit/cosigned");
    until("a cosignature over TLS", || cosigned.join("witness.example+w1.note").exists()).await;
    sleep(Duration::from_secs(2)).await;
    assert!(!cosigned.join("other.note").exists());
    fixture.gateway.shutdown().await.unwrap();
    drop(running);
    // In the clear it listens on this machine only, and one state is for one process.
    let (home, log) = (home.to_str().unwrap(), fixture.dir.path().join("vault/audit.vkey"));
    let log = log.to_str().unwrap();
    let (code, out) = run(&["witness", "serve", "--dir", home, "--log", log, "--listen", "0.0.0.0:0"]);
    assert!(code == 1 && out.contains("loopback"), "{out}");
    let running = Running::start(Path::new(home), Path::new(log), free());
    let (code, out) = run(&["witness", "serve", "--dir", home, "--log", log, "--listen", "127.0.0.1:0"]);
    assert!(code == 1 && out.contains("runs already"), "{out}");
    drop(running);
}
