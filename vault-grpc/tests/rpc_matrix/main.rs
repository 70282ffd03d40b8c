//! Every RPC of the descriptors × every kind of caller × whose tenant × what the dataset demands, asked of a gateway over
//! the network, as a table that is checked in: `tests/data/rpc_matrix.txt`.
//!
//! A new RPC needs one line in `actions::ACTIONS`, and `VAULT_TEST_UPDATE=1 cargo test -p vault-grpc --test rpc_matrix`;
//! review the difference. What must be true of any table is asserted on the answers themselves, so that nothing can be
//! updated away.
#![cfg(feature = "dev")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod actions;
mod asking;
mod rules;
mod site;
mod table;

use asking::Asker;
use site::Site;

const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/rpc_matrix.txt");

#[tokio::test(flavor = "multi_thread")]
async fn every_rpc_answers_every_caller_as_checked_in() {
    let asker = Asker::new();
    actions::every_rpc_has_an_action();
    let site = Site::start(&asker).await;
    let rows = site.ask_all(&asker).await;
    site.gateway.shutdown().await.unwrap();
    rules::hold(&rows);
    let now = table::render(&rows);
    assert!(now.lines().count() < 3000, "nobody reviews so much");
    if std::env::var_os("VAULT_TEST_UPDATE").is_some() {
        std::fs::write(TABLE, &now).unwrap();
    }
    let checked_in = std::fs::read_to_string(TABLE).unwrap_or_default();
    for (n, (was, is)) in checked_in.lines().zip(now.lines()).enumerate() {
        assert_eq!(was, is, "line {}", n + 1);
    }
    assert_eq!(checked_in.len(), now.len(), "lines at the end are missing or new");
}
