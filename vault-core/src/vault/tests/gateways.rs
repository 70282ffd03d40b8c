//! Two vaults on one database, as two gateways are: a withdrawal or revocation on one stops the other, in time.

#![expect(clippy::print_stdout, clippy::indexing_slicing, reason = "it says what it measured; the relay is a fixture")]

#[path = "../../../tests/common/pg_bed.rs"]
mod pg_bed;
#[path = "../../../tests/common/postgres.rs"]
mod postgres;
#[path = "../../../tests/common/proxy.rs"]
mod proxy;

use std::thread;
use std::time::{Duration, Instant};

use pg_bed::{Database, INSTANCE, settings, tcp};
use proxy::Proxy;

use super::fixture::open_vault_on;
use super::*;
use crate::error::Dependency;
use crate::id::GrantId;
use crate::keys::{GrantOrder, Seen};
use crate::store::{PostgresSettings, PostgresStore};
use crate::time::SystemClock;

// The other tests use the rest of these.
const _: () = {
    let _ = Proxy::refuse;
};

/// Longer than anything here takes; a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(60);
const LEASE: Duration = Duration::from_secs(3);

fn gateway(database: &Database, settings: PostgresSettings) -> (tempfile::TempDir, Vault) {
    let dir = tempfile::tempdir().unwrap();
    let store = block_on(PostgresStore::open(settings, Arc::clone(&database.root), INSTANCE)).unwrap();
    let clock = Arc::new(SystemClock);
    let roots = Arc::clone(&database.root);
    let vault = open_vault_on(Arc::new(store), Arc::new(OsFs), dir.path(), clock, CacheSettings::default(), roots);
    (dir, vault)
}

/// How long until a call ends like this.
fn until(wanted: &Result<(), Error>, call: impl Fn() -> Result<(), Error>) -> Duration {
    let begun = Instant::now();
    loop {
        let result = call();
        if result == *wanted {
            return begun.elapsed();
        }
        assert!(begun.elapsed() < PATIENCE, "still {result:?}, not {wanted:?}");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn what_is_withdrawn_or_revoked_on_one_gateway_stops_the_other_within_a_second() {
    let Some(database) = Database::fresh() else { return };
    let ((_a, a), (_b, b)) = (gateway(&database, database.settings()), gateway(&database, database.settings()));
    set_up(&a);
    let [customers, orders] = ["customers", "orders"].map(|name| to("acme", name, "billing"));
    let [in_customers, in_orders] = [&customers, &orders].map(|target| seal(&a, target));
    let on_b = || open(&b, &customers, &in_customers);
    let mut took = Vec::new();
    for round in 0..10 {
        assert_eq!(on_b(), NO_CONSENT);
        let datasets: &[&str] = if round % 2 == 0 { &["customers"] } else { &[] };
        let id = consent(&a, "acme", datasets, "billing");
        until(&Ok(()), on_b);
        // What is kept in memory is used, and not for too long.
        on_b().unwrap();
        withdraw(&a, "acme", id).unwrap();
        took.push(until(&NO_CONSENT, on_b));
        assert_eq!(open(&a, &customers, &in_customers), NO_CONSENT);
    }
    let signup = || open_as(&b, "signup", &orders, &in_orders);
    let (alice, bob, reason, acme) = (operator("alice"), operator("bob"), because(), tenant("acme"));
    let mut revoked = Vec::new();
    for _ in 0..5 {
        let order = GrantOrder {
            tenant: acme.clone(),
            dataset: dataset("orders"),
            workload: workload("signup").spiffe_id().to_owned(),
            roles: vec!["reader".to_owned()],
            until: SystemClock.now().plus_millis(3_600_000),
        };
        let asked = block_on(a.request_grant(&call(&alice, &reason), order)).unwrap();
        let seen = Seen { request_sha256: asked.request_sha256, subject: None };
        block_on(b.approve(&call(&bob, &reason), (&acme, asked.id), seen)).unwrap();
        signup().unwrap();
        block_on(a.revoke_grant(&call(&alice, &reason), &acme, GrantId(asked.id.0))).unwrap();
        revoked.push(until(&Err(Error::Denied(Check::Policy)), signup));
    }
    println!("measured: a consent withdrawn elsewhere stopped the next call after {took:?}; a grant {revoked:?}");
    assert!(took.iter().chain(&revoked).all(|took| *took < Duration::from_secs(1)), "{took:?} {revoked:?}");
}

#[test]
fn a_gateway_cut_off_refuses_when_its_lease_has_run_out() {
    let Some(database) = Database::fresh() else { return };
    let proxy = Proxy::to(database.server.port);
    let through = settings(tcp(proxy.port, &database.server.ca_pem), &database.name);
    let connect_timeout = Duration::from_secs(3);
    let through = PostgresSettings { connect_timeout, revocation_lease: LEASE, ..through };
    let ((_a, a), (_b, b)) = (gateway(&database, database.settings()), gateway(&database, through));
    set_up(&a);
    let target = to("acme", "customers", "billing");
    let envelope = seal(&a, &target);
    let id = consent(&a, "acme", &["customers"], "billing");
    let on_b = || open(&b, &target, &envelope);
    until(&Ok(()), on_b);
    proxy.swallow();
    let begun = Instant::now();
    withdraw(&a, "acme", id).unwrap();
    let mut served = Duration::ZERO;
    let refused = loop {
        match on_b() {
            Ok(()) => served = begun.elapsed(),
            Err(error) => break error,
        }
        assert!(begun.elapsed() < PATIENCE);
    };
    assert!(matches!(refused, Error::Unavailable { dependency: Dependency::Store, .. }), "{refused:?}");
    println!("measured: cut off, served a withdrawn consent for {served:?} of a lease of {LEASE:?}");
    assert!(served <= LEASE, "{served:?}");
    proxy.mend();
    until(&NO_CONSENT, on_b);
}
