//! A tenant reads the logs of two gateways on one PostgreSQL as one history, of which none is missing.
#![cfg(all(feature = "dev", feature = "postgres"))]
#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(clippy::disallowed_macros, reason = "a test says that it is skipped")]

use std::fs;

use pg_site::{alice, billing, configure, configured, endpoint, start};
use postgres::Server;
use vault_client::{AccessBody, AccessEntry, AccessLogClient, AccessLogFault, LogKey, ReadError, Target, read_all};
use vault_core::audit::LogSigner;
use vault_core::fs::OsFs;
use vault_grpc::Gateway;
use vault_grpc::build::StartError;
use vault_grpc::config::Config;
use vault_grpc::init::Made;

#[path = "common/pg_site.rs"]
mod pg_site;
#[path = "../../vault-core/tests/common/postgres.rs"]
mod postgres;

fn key(made: &Made, name: &str) -> LogKey {
    let config = Config::load(&made.config.with_file_name(format!("{name}.toml"))).unwrap();
    let signer = LogSigner::load(&OsFs, &config.audit_key.path, &config.log_origin()).unwrap();
    LogKey::parse(&signer.verifier().vkey()).unwrap()
}

async fn log_of(made: &Made, gateway: &Gateway) -> AccessLogClient {
    AccessLogClient::connect(&endpoint(made, gateway.data_addr(), "billing")).await.unwrap()
}

/// The logs of the entries that encrypt, in order.
fn encrypted(entries: &[AccessEntry]) -> Vec<&str> {
    let is_encrypt = |entry: &&AccessEntry| match &entry.body {
        AccessBody::Intent { decision, .. } => decision.action == "Encrypt",
        _ => false,
    };
    entries.iter().filter(is_encrypt).map(|entry| entry.log.rsplit('/').next().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_tenant_reads_all_gateways_as_one_history_and_a_missing_one_shows() {
    let Some(server) = Server::shared() else { return };
    let (_dir, made) = configure(server);
    let (a, b) = (start(&made, "a").await, start(&made, "b").await);
    let operator = alice(&made, a.control_addr()).await;
    operator.create_tenant("acme", None, "test").await.unwrap();
    operator.create_dataset("acme", "customers", "", "", "test").await.unwrap();
    let (on_a, on_b) = (billing(&made, a.data_addr()).await, billing(&made, b.data_addr()).await);
    let target = Target::new("acme", "customers", "billing");
    for on in [&on_a, &on_b, &on_a, &on_b, &on_b] {
        on.encrypt(&target, b"x").await.unwrap();
        // So that the order of time is the order of the calls.
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    let keys = [key(&made, "a"), key(&made, "b")];
    assert_ne!(keys[0].origin(), keys[1].origin());
    let (log_a, log_b) = (log_of(&made, &a).await, log_of(&made, &b).await);
    let mut bookmarks = Vec::new();
    let both = [log_a.clone(), log_b.clone()];
    let all = read_all(&both, "acme", None, &keys, &mut bookmarks).await.unwrap();
    assert_eq!(encrypted(&all), ["a", "b", "a", "b", "b"]);
    assert_eq!(bookmarks.len(), 2);
    // Only what is new.
    on_b.encrypt(&target, b"y").await.unwrap();
    let news = read_all(&both, "acme", None, &keys, &mut bookmarks).await.unwrap();
    assert_eq!(encrypted(&news), ["b"]);
    // One gateway alone: that there is another log, which it cannot read, shows. So does a log without a pinned key.
    let kept = bookmarks.clone();
    let missing = read_all(std::slice::from_ref(&log_a), "acme", None, &keys, &mut bookmarks).await.unwrap_err();
    let named = |error: &ReadError| match error {
        ReadError::Fault(AccessLogFault::MissingLog { log } | AccessLogFault::NotPinned { log }) => log.clone(),
        other => format!("{other}"),
    };
    assert_eq!(named(&missing), keys[1].origin());
    let unpinned = read_all(&both, "acme", None, &keys[..1], &mut Vec::new()).await.unwrap_err();
    assert_eq!(named(&unpinned), keys[1].origin());
    assert_eq!(bookmarks, kept);
    // The second gateway is gone for good. The first is given its log's directory, and answers for it.
    b.shutdown().await.unwrap();
    a.shutdown().await.unwrap();
    let config = configured(&made, "a");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replacen("shard = \"a\"\n", "shard = \"a\"\nshards = [\"b/audit\"]\n", 1)).unwrap();
    let a = Gateway::start(Config::load(&config).unwrap()).await.unwrap();
    let alone = [log_of(&made, &a).await];
    let mut from_start = Vec::new();
    let all = read_all(&alone, "acme", None, &keys, &mut from_start).await.unwrap();
    assert_eq!(encrypted(&all), ["a", "b", "a", "b", "b", "b"]);
    // It goes on from where the tenant stood when the other gateway itself answered.
    read_all(&alone, "acme", None, &keys, &mut bookmarks).await.unwrap();
    a.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_logs_of_one_name_are_refused() {
    let Some(server) = Server::shared() else { return };
    let (_dir, made) = configure(server);
    let a = start(&made, "a").await;
    let config = configured(&made, "b");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replacen("shard = \"b\"\n", "shard = \"a\"\n", 1)).unwrap();
    let refused = Gateway::start(Config::load(&config).unwrap()).await.unwrap_err();
    assert!(matches!(&refused, StartError::Vault(error) if error.to_string().contains("audit.shard")), "{refused}");
    // The same log again is no other one.
    a.shutdown().await.unwrap();
    start(&made, "a").await.shutdown().await.unwrap();
}
