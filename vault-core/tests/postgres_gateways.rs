//! Two vaults on one database, as two gateways are: what one revokes the other stops serving, in time, whatever becomes
//! of the database.
#![cfg(all(feature = "postgres", feature = "dev"))]
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says what it measured"
)]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fixture::{People, call, tenant};
use pg_bed::{Database, root, settings, tcp};
use pg_gateway::{Gateway, PATIENCE};
use pollster::block_on;
use proxy::Proxy;
use vault_core::Error;
use vault_core::error::{Check, Dependency};
use vault_core::id::KeyVersion;
use vault_core::keys::ApprovalState;
use vault_core::store::PostgresSettings;
use vault_core::vault::ApprovalSettings;

#[path = "common/fixture.rs"]
mod fixture;
#[path = "common/pg_bed.rs"]
mod pg_bed;
#[path = "common/pg_gateway.rs"]
mod pg_gateway;
#[path = "common/pki.rs"]
mod pki;
#[path = "common/postgres.rs"]
mod postgres;
#[path = "common/proxy.rs"]
mod proxy;

const LEASE: Duration = Duration::from_secs(4);
const SUSPENDED: Result<(), Error> = Err(Error::Denied(Check::Suspended));

/// Long enough not to be found by chance.
const MIA: &str = "mia-1987-06-05";

#[test]
fn a_shred_on_one_gateway_wipes_the_key_on_the_other() {
    let Some(database) = Database::fresh() else { return };
    let people = People::new();
    let a = Gateway::start(&people, &database.root, database.settings());
    let b = Gateway::start(&people, &database.root, database.settings());
    a.set_up();
    let (mia, noa) = (a.encrypt(Some(MIA)).unwrap(), a.encrypt(Some("noa")).unwrap());
    let decrypt = |subject, envelope: &[u8]| b.decrypt_of(Some(subject), envelope);
    decrypt(MIA, &mia).unwrap();
    assert!(b.vault.keys().data_key_stats().held > 0);
    let done = a.approve(&a.ask(MIA)).unwrap();
    assert_eq!(done.state, ApprovalState::Executed);
    // The receipt has waited for it.
    assert_eq!(b.vault.keys().data_key_stats().held, 0, "the key is still in memory");
    assert_eq!(decrypt(MIA, &mia), Err(Error::Unopenable));
    assert!(matches!(b.encrypt(Some(MIA)), Err(Error::FailedPrecondition(_))));
    decrypt("noa", &noa).unwrap();
    // What a database administrator sees of her is nothing.
    let hex = MIA.bytes().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    for table in ["blindvault_rows", "blindvault_changes"] {
        assert!(!database.sql(&format!("SELECT * FROM {table}")).contains(&hex), "her name, in hexadecimal");
    }
}

fn is_cut_off(result: &Result<(), Error>) -> bool {
    matches!(result, Err(Error::Unavailable { dependency: Dependency::Store, .. }))
}

#[test]
fn a_suspension_on_one_gateway_stops_the_other_within_a_second() {
    let Some(database) = Database::fresh() else { return };
    let people = People::new();
    let a = Gateway::start(&people, &database.root, database.settings());
    let b = Gateway::start(&people, &database.root, database.settings());
    a.set_up();
    let envelope = a.encrypt(None).unwrap();
    let mut took = Vec::new();
    for round in 0..20 {
        b.decrypt(&envelope).unwrap();
        assert!(b.vault.keys().data_key_stats().held > 0);
        if round >= 15 {
            // Whoever watches is cut: what it missed is found when it is back.
            database.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%blindvault_epoch%' AND pid <> pg_backend_pid()");
        }
        a.suspend();
        took.push(b.until(&envelope, &SUSPENDED));
        assert_eq!(a.decrypt(&envelope), SUSPENDED);
        // The key itself goes from memory, too.
        let begun = Instant::now();
        while b.vault.keys().data_key_stats().held > 0 {
            assert!(begun.elapsed() < Duration::from_secs(1));
        }
        b.resume();
        b.until(&envelope, &Ok(()));
        a.until(&envelope, &Ok(()));
    }
    println!(
        "measured: suspended on the other gateway after {:?}; with the watcher's connection cut {:?}",
        &took[..15],
        &took[15..]
    );
    assert!(took.iter().all(|took| *took < Duration::from_secs(1)), "{took:?}");
}

#[test]
fn a_gateway_cut_off_serves_until_its_lease_ends_and_recovers() {
    let Some(database) = Database::fresh() else { return };
    let people = People::new();
    let a = Gateway::start(&people, &database.root, database.settings());
    for spoil in [Proxy::swallow as fn(&Proxy), Proxy::refuse] {
        let proxy = Proxy::to(database.server.port);
        let through = settings(tcp(proxy.port, &database.server.ca_pem), &database.name);
        // It looks for the database again soon after it was cut off.
        let connect_timeout = Duration::from_secs(3);
        let through = PostgresSettings { connect_timeout, revocation_lease: LEASE, ..through };
        let b = Gateway::start(&people, &database.root, through);
        if a.encrypt(None).is_err() {
            a.set_up();
        }
        let envelope = a.encrypt(None).unwrap();
        b.until(&envelope, &Ok(()));
        spoil(&proxy);
        let begun = Instant::now();
        a.suspend();
        b.decrypt(&envelope).unwrap();
        let mut served = Duration::ZERO;
        let refused = loop {
            match b.decrypt(&envelope) {
                Ok(()) => served = begun.elapsed(),
                Err(error) => break Err(error),
            }
            assert!(begun.elapsed() < PATIENCE);
        };
        assert!(is_cut_off(&refused), "{refused:?}");
        println!("measured: cut off from the database, served for {served:?} of a lease of {LEASE:?}");
        assert!(served <= LEASE, "{served:?}");
        // What the cut left behind must not look like a confirmation.
        for _ in 0..50 {
            assert!(is_cut_off(&b.decrypt(&envelope)));
            thread::sleep(Duration::from_millis(5));
        }
        proxy.mend();
        let back = b.until(&envelope, &SUSPENDED);
        println!("measured: mended, answers after {back:?}");
        a.resume();
        b.until(&envelope, &Ok(()));
    }
}

#[test]
fn a_restart_of_the_database_is_not_noticed_by_callers_whose_keys_are_cached() {
    let Some(server) = postgres::Server::own() else { return };
    let (people, root, name) = (People::new(), root(), server.database());
    // A lease that a slow machine's restart does not outlast.
    let lease = Duration::from_secs(60);
    let settings = PostgresSettings { revocation_lease: lease, ..settings(tcp(server.port, &server.ca_pem), &name) };
    let one = Gateway::start(&people, &root, settings);
    one.set_up();
    let envelope = one.encrypt(None).unwrap();
    one.encrypt(Some("alice")).unwrap();
    let (done, calls, warm) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let down = thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut first = true;
                while !done.load(Ordering::SeqCst) {
                    one.decrypt(&envelope).unwrap();
                    one.encrypt(None).unwrap();
                    one.encrypt(Some("alice")).unwrap();
                    calls.fetch_add(3, Ordering::SeqCst);
                    warm.fetch_add(usize::from(std::mem::take(&mut first)), Ordering::SeqCst);
                    thread::sleep(Duration::from_millis(2));
                }
            });
        }
        // Everything that they need is in memory by then.
        let begun = Instant::now();
        while warm.load(Ordering::SeqCst) < 2 {
            assert!(begun.elapsed() < PATIENCE);
            thread::sleep(Duration::from_millis(5));
        }
        let begun = Instant::now();
        server.crash();
        // What is not in memory says so meanwhile.
        let unknown = one.encrypt(Some("bob")).map(drop);
        thread::sleep(Duration::from_secs(2));
        server.start();
        let (down, back) = (begun.elapsed(), calls.load(Ordering::SeqCst));
        while calls.load(Ordering::SeqCst) < back + 30 && !done.load(Ordering::SeqCst) {
            assert!(begun.elapsed() < PATIENCE);
            thread::sleep(Duration::from_millis(5));
        }
        done.store(true, Ordering::SeqCst);
        assert!(is_cut_off(&unknown), "{unknown:?}");
        down
    });
    println!("measured: {} calls, none failed, with the database down for {down:?}", calls.load(Ordering::SeqCst));
    one.encrypt(Some("bob")).unwrap();
    one.suspend();
    assert_eq!(one.decrypt(&envelope), SUSPENDED);
}

#[test]
fn two_operators_at_once_lose_no_update() {
    const ROUNDS: u32 = 12;
    let Some(database) = Database::fresh() else { return };
    let people = People::new();
    let a = Gateway::start(&people, &database.root, database.settings());
    let b = Gateway::start(&people, &database.root, database.settings());
    a.set_up();
    let envelope = a.encrypt(None).unwrap();
    let rotations = thread::scope(|scope| {
        let toggling = scope.spawn(|| {
            for _ in 0..ROUNDS {
                a.suspend();
                a.resume();
            }
        });
        let rotating = scope.spawn(|| {
            (0..ROUNDS)
                .filter(|_| {
                    let call = call(&b.alice, &b.reason);
                    match block_on(b.vault.rotate_tenant_key(&call, &tenant("acme"), None)) {
                        Ok(_) => true,
                        Err(Error::Conflict(_)) => false,
                        Err(other) => panic!("{other}"),
                    }
                })
                .count() as u32
        });
        toggling.join().unwrap();
        rotating.join().unwrap()
    });
    for gateway in [&a, &b] {
        let seen = block_on(gateway.vault.get_tenant(&call(&a.alice, &a.reason), &tenant("acme"))).unwrap();
        assert_eq!(seen.key_version, KeyVersion(1 + rotations));
        assert_eq!(seen.revision, u64::from(1 + rotations + 2 * ROUNDS));
        gateway.until(&envelope, &Ok(()));
    }
}

#[test]
fn of_two_approvals_at_the_same_time_on_two_gateways_one_carries_it_out_and_two_that_are_demanded_both_count() {
    for required in [1, 2] {
        let Some(database) = Database::fresh() else { return };
        let people = People::new();
        let settings = ApprovalSettings { required, ..ApprovalSettings::default() };
        let start = || Gateway::start(&people, &database.root, database.settings()).with_approvals(settings);
        let (a, b) = (start(), start());
        a.set_up();
        let mia = a.encrypt(Some(MIA)).unwrap();
        let asked = a.ask(MIA);
        let carol = people.operator("carol");
        let done = thread::scope(|scope| {
            let by_bob = scope.spawn(|| a.approve(&asked));
            let by_carol = scope.spawn(|| b.approve_as(&carol, &asked));
            [by_bob.join().unwrap(), by_carol.join().unwrap()]
        });
        let good = done.iter().filter(|done| done.is_ok()).count();
        assert_eq!(good, usize::from(required), "{done:?}");
        assert!(done.iter().all(|done| matches!(done, Ok(_) | Err(Error::FailedPrecondition(_)))), "{done:?}");
        let begun = Instant::now();
        while a.found(&asked).state != ApprovalState::Executed {
            block_on(a.vault.tend(|| true)).unwrap();
            block_on(b.vault.tend(|| true)).unwrap();
            assert!(begun.elapsed() < PATIENCE, "{:?}", a.found(&asked));
        }
        assert_eq!(b.found(&asked).votes.len(), usize::from(required));
        assert_eq!(b.decrypt_of(Some(MIA), &mia), Err(Error::Unopenable));
    }
}

#[test]
fn a_scheduled_shred_is_carried_out_by_one_gateway_and_cancelled_by_another_it_is_by_none() {
    let Some(database) = Database::fresh() else { return };
    let people = People::new();
    let settings = ApprovalSettings { shred_delay_millis: 1500, ..ApprovalSettings::default() };
    let start = || Gateway::start(&people, &database.root, database.settings()).with_approvals(settings);
    let (a, b) = (start(), start());
    a.set_up();
    let (mia, noa) = (a.encrypt(Some(MIA)).unwrap(), a.encrypt(Some("noa")).unwrap());
    let (of_mia, of_noa) = (a.ask(MIA), a.ask("noa"));
    for asked in [&of_mia, &of_noa] {
        assert_eq!(a.approve(asked).unwrap().state, ApprovalState::Scheduled);
    }
    let cancelled = block_on(b.vault.cancel_approval(&call(&b.alice, &b.reason), Some(&tenant("acme")), of_noa.id));
    assert_eq!(cancelled.unwrap().state, ApprovalState::Cancelled);
    b.decrypt_of(Some(MIA), &mia).unwrap();
    let begun = Instant::now();
    while b.found(&of_mia).state != ApprovalState::Executed {
        let tended = [&a, &b].map(|gateway| block_on(gateway.vault.tend(|| true)).unwrap());
        assert!(tended.iter().all(|tended| tended.failed == 0), "{tended:?}");
        assert!(begun.elapsed() < PATIENCE, "{:?}", b.found(&of_mia));
        thread::sleep(Duration::from_millis(20));
    }
    assert!(begun.elapsed() >= Duration::from_millis(1000), "before its time");
    for gateway in [&a, &b] {
        assert_eq!(gateway.decrypt_of(Some(MIA), &mia), Err(Error::Unopenable));
        gateway.decrypt_of(Some("noa"), &noa).unwrap();
    }
}
