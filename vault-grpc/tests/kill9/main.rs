//! The gateway is killed with SIGKILL while clients write: at random moments, and at every named step of what changes
//! keys. Everything acknowledged is there after the next start, what was shredded is not, and the audit log verifies: each
//! audit receipt that a caller got is in it, and in the file that is a mandatory sink. On both stores; PostgreSQL itself is killed, too.
//!
//! `BLINDVAULT_KILL_CYCLES` sets how many kills at random each store sees, and has PostgreSQL see every way to each step
//! instead of one; `BLINDVAULT_SEED` sets the moments. A killed process leaves the page cache in place; what is not synced is
//! the business of the tests on the simulated disk in `vault-core`.
#![cfg(feature = "dev")]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
#![expect(clippy::print_stdout, clippy::disallowed_macros, reason = "says what was done")]

mod acknowledged;
mod case;
mod destruction;
mod kept;
#[cfg(feature = "postgres")]
#[path = "../../../vault-core/tests/common/postgres.rs"]
mod postgres;
mod random;
mod random_kills;
mod scheduled;
mod served;
mod site;
mod steps;
mod writers;

use site::Rows;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_was_acknowledged_survives_sigkill() {
    random_kills::kill("embedded", random_kills::cycles(20), || Rows::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn death_at_every_named_step_loses_nothing_and_brings_nothing_back() {
    steps::kill_at_each("embedded", true, || Rows::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn death_between_vote_schedule_and_execution_carries_a_shred_out_once_and_not_before_its_time() {
    scheduled::kill_at_each("embedded", || Rows::Embedded).await;
}

#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_was_acknowledged_survives_sigkill_on_postgres_and_of_postgres() {
    let Some(server) = postgres::Server::own().map(std::sync::Arc::new) else { return };
    random_kills::kill("postgres", random_kills::cycles(10), || Rows::on(&server)).await;
}

#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn death_at_every_named_step_loses_nothing_and_brings_nothing_back_on_postgres() {
    let Some(server) = postgres::Server::own().map(std::sync::Arc::new) else { return };
    steps::kill_at_each("postgres", random_kills::is_long(), || Rows::on(&server)).await;
}
