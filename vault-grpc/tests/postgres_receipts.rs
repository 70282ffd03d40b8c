//! A shred where another gateway is killed: its lease has to end before there is a receipt, which the binary checks.
#![cfg(all(feature = "dev", feature = "postgres"))]
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "tests, which say what they measured")]
#![expect(clippy::disallowed_macros, reason = "a test says that it is skipped")]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use pg_site::{alice, billing, bob, configure, configured, start};
use postgres::Server;
use vault_client::Target;
use vault_core::audit::LogSigner;
use vault_core::fs::OsFs;
use vault_grpc::config::Config;
use vault_proto::v1::ApprovalState;

#[path = "common/pg_site.rs"]
mod pg_site;
#[path = "../../vault-core/tests/common/postgres.rs"]
mod postgres;

/// A `vault-grpc serve` of its own process. Killed when dropped.
struct Served {
    child: Child,
    data: String,
}

impl Drop for Served {
    fn drop(&mut self) {
        // SIGKILL; it fails only for a child that has ended.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn serve(config: &Path) -> Served {
    let child = Command::new(env!("CARGO_BIN_EXE_vault-grpc"))
        .args(["serve", "--config"])
        .arg(config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut served = Served { data: String::new(), child };
    let mut lines = BufReader::new(served.child.stderr.take().unwrap()).lines();
    let mut listening = 0;
    while listening < 2 {
        let line = lines.next().unwrap().unwrap();
        let field = |name: &str| line.split(' ').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
        if let (Some(plane), Some(address)) = (field("plane"), field("address")) {
            listening += 1;
            if plane == "\"data\"" {
                served.data = address.trim_matches('"').to_owned();
            }
        }
    }
    // Read on, so that the gateway never waits for its log lines to be taken.
    std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
    served
}

/// The exit code and what was said.
fn verify(receipt: &str, key: &Path) -> (Option<i32>, String) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("receipt.txt");
    fs::write(&file, receipt).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_vault-grpc"));
    let done = command.args(["receipt", "verify"]).arg(file).arg("--key").arg(key).output().unwrap();
    (done.status.code(), String::from_utf8([done.stdout, done.stderr].concat()).unwrap())
}

/// A time of a receipt in milliseconds after 1970, as the database reads it.
fn millis(server: &Server, time: &str) -> u128 {
    let sql = format!("SELECT (EXTRACT(EPOCH FROM TIMESTAMPTZ '{time}') * 1000)::BIGINT");
    server.sql("postgres", &sql).parse().unwrap()
}

fn now() -> u128 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis()
}

/// What a receipt says of a gateway, by the name of the line.
fn line_of<'a>(receipt: &'a str, name: &str, gateway: &str) -> Option<&'a str> {
    let start = format!("{name}: {gateway}/");
    receipt.lines().find_map(|line| line.strip_prefix(&start)?.split_once(' ')).map(|(_, at)| at)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_gateway_that_was_killed_is_in_the_receipt_with_the_end_of_its_lease() {
    let Some(server) = Server::shared() else { return };
    let (_dir, made) = configure(server);
    let a = start(&made, "a").await;
    let killed = serve(&configured(&made, "killed"));
    let stopped = start(&made, "stopped").await;
    let (alice, bob) = (alice(&made, a.control_addr()).await, bob(&made, a.control_addr()).await);
    alice.create_tenant("acme", None, "test").await.unwrap();
    alice.create_dataset("acme", "customers", "", "", "test").await.unwrap();
    let on_a = billing(&made, a.data_addr()).await;
    let of = |name: &str| Target::new("acme", "customers", "billing").subject(name);
    let mia = on_a.encrypt(&of("mia"), b"x").await.unwrap().envelope;
    let noa = on_a.encrypt(&of("noa"), b"x").await.unwrap().envelope;
    let (on_killed, on_stopped) = (billing(&made, &killed.data).await, billing(&made, stopped.data_addr()).await);
    for client in [&on_killed, &on_stopped] {
        client.decrypt(&of("mia"), mia.clone()).await.unwrap();
        client.decrypt(&of("noa"), noa.clone()).await.unwrap();
    }

    // All are there.
    let asked = alice.shred_subject("acme", "noa", "she asked for it").await.unwrap();
    let begun = Instant::now();
    let done = bob.approve(&asked, Some("noa"), "as she asked").await.unwrap();
    println!("measured: over the network, wiped by three gateways and the receipt signed after {:?}", begun.elapsed());
    assert_eq!(done.state(), ApprovalState::Executed);
    for gateway in ["a", "killed", "stopped"] {
        assert!(line_of(&done.receipt, "evicted", gateway).is_some(), "{}", done.receipt);
    }

    // One stops in good order, one is killed with SIGKILL.
    stopped.shutdown().await.unwrap();
    drop(on_killed);
    drop(killed);
    let killed_at = now();
    let asked = alice.shred_subject("acme", "mia", "she asked for it").await.unwrap();
    let begun = Instant::now();
    let answer = bob.approve(&asked, Some("mia"), "as she asked").await.unwrap();
    println!("measured: with a gateway killed, the approval answers after {:?}", begun.elapsed());
    assert_eq!((answer.state(), answer.receipt.as_str()), (ApprovalState::Approved, ""));
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert!(on_a.decrypt(&of("mia"), mia).await.is_err(), "the keys are gone, whatever the receipt waits for");
    let done = loop {
        let found = alice.get_approval("acme", &asked.approval).await.unwrap();
        if found.state() == ApprovalState::Executed {
            break found;
        }
        assert!(begun.elapsed() < Duration::from_secs(60));
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    println!("measured: with a gateway killed and a lease of 2 s, the receipt is there after {:?}", begun.elapsed());
    let receipt = &done.receipt;
    let ended = millis(server, line_of(receipt, "lease ended", "killed").unwrap());
    assert!(ended >= killed_at + 2000, "its lease of 2 s may have begun when it was killed: {ended}, {killed_at}");
    assert!(line_of(receipt, "evicted", "a").is_some() && !receipt.contains("stopped/"), "{receipt}");
    // Whose log it is signed for: each gateway's has its own name.
    let of_a = Config::load(&made.config.with_file_name("a.toml")).unwrap();
    let signer = LogSigner::load(&OsFs, &of_a.audit_key.path, &of_a.log_origin()).unwrap();
    let key = made.config.with_file_name("a.vkey");
    fs::write(&key, signer.verifier().vkey()).unwrap();
    let (code, said) = verify(receipt, &key);
    assert!(code == Some(0) && said.contains("lease ended: killed/"), "{said}");
    let later = receipt.replacen("lease ended: killed/", "evicted: killed/", 1);
    assert_eq!(verify(&later, &key).0, Some(1));
    a.shutdown().await.unwrap();
}
