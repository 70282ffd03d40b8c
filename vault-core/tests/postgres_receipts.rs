//! Erasure receipts where several gateways share a database: each confirms, or its lease ends.
#![cfg(all(feature = "postgres", feature = "dev"))]
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says what it measured"
)]

use std::thread;
use std::time::{Duration, Instant};

use fixture::{People, call, tenant};
use pg_bed::{Database, settings, tcp};
use pg_gateway::{Gateway, PATIENCE};
use pollster::block_on;
use proxy::Proxy;
use vault_core::Error;
use vault_core::error::Dependency;
use vault_core::keys::{Approval, ApprovalState, ReceiptText};
use vault_core::store::PostgresSettings;
use vault_core::time::{Clock as _, SystemClock};

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

fn named(settings: PostgresSettings, gateway: &str) -> PostgresSettings {
    PostgresSettings { gateway: gateway.into(), revocation_lease: LEASE, ..settings }
}

/// The names of both lists, without what tells starts apart.
fn names(receipt: &ReceiptText) -> (Vec<&str>, Vec<&str>) {
    let name = |gateway| str::split_once(gateway, '/').unwrap().0;
    let evicted = receipt.evicted.iter().map(|one| name(&one.gateway)).collect();
    (evicted, receipt.lease_ended.iter().map(|one| name(&one.gateway)).collect())
}

/// A time of a receipt in milliseconds, as the database reads it.
fn millis(database: &Database, time: &str) -> u64 {
    database.sql(&format!("SELECT (EXTRACT(EPOCH FROM TIMESTAMPTZ '{time}') * 1000)::BIGINT")).parse().unwrap()
}

/// Tends until an approval is carried out.
fn tend_until_executed(gateway: &Gateway, asked: &Approval) -> Approval {
    let begun = Instant::now();
    loop {
        block_on(gateway.vault.tend(|| true)).unwrap();
        let found = gateway.found(asked);
        if found.state == ApprovalState::Executed {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "still {:?}", found.state);
        thread::sleep(Duration::from_millis(100));
    }
}

/// A gateway behind a proxy, which looks for the database again soon after it was cut off.
fn behind(proxy: &Proxy, database: &Database, people: &People, name: &str) -> Gateway {
    let through = named(settings(tcp(proxy.port, &database.server.ca_pem), &database.name), name);
    Gateway::start(people, &database.root, PostgresSettings { connect_timeout: Duration::from_secs(3), ..through })
}

#[test]
fn a_receipt_names_every_gateway_that_may_have_had_a_key() {
    let Some(database) = Database::fresh() else { return };
    let people = People::new();
    let start = |name| Gateway::start(&people, &database.root, named(database.settings(), name));
    let (a, b, idle, stopped) = (start("a"), start("b"), start("idle"), start("stopped"));
    a.set_up();
    let (mia, noa) = (a.encrypt(Some("mia")).unwrap(), a.encrypt(Some("noa")).unwrap());
    for gateway in [&b, &stopped] {
        gateway.decrypt_of(Some("mia"), &mia).unwrap();
    }
    // One that stops in good order serves nothing afterwards, and nobody waits for it.
    block_on(stopped.vault.leave()).unwrap();
    assert_eq!(stopped.vault.keys().data_key_stats().held, 0);
    let refused = stopped.decrypt_of(Some("noa"), &noa);
    assert!(matches!(refused, Err(Error::Unavailable { dependency: Dependency::Store, .. })), "{refused:?}");
    let asked = a.ask("mia");
    let (before, begun) = (SystemClock.now().0, Instant::now());
    let done = a.approve(&asked).unwrap();
    println!("measured: approved, wiped by both gateways and the receipt signed after {:?}", begun.elapsed());
    assert_eq!(done.state, ApprovalState::Executed);
    assert_eq!(b.vault.keys().data_key_stats().held, 0, "what a gateway confirms is done");
    let receipt = a.receipt(&done);
    assert_eq!(names(&receipt), (vec!["a", "b"], vec![]));
    for one in &receipt.evicted {
        let at = millis(&database, &one.confirmed);
        assert!((before..=SystemClock.now().0).contains(&at), "{}", one.confirmed);
    }
    // Another start of the same gateway is another one; the one that was dropped is waited for.
    drop(b);
    let again = start("b");
    again.decrypt_of(Some("noa"), &noa).unwrap();
    let asked = a.ask("noa");
    assert_eq!(a.approve(&asked).unwrap().state, ApprovalState::Approved);
    let receipt = a.receipt(&tend_until_executed(&a, &asked));
    assert_eq!(names(&receipt), (vec!["a", "b"], vec!["b"]));
    assert!(receipt.evicted.iter().all(|one| one.gateway != receipt.lease_ended.first().unwrap().gateway));
    drop(idle);
}

#[test]
fn a_gateway_that_is_cut_off_is_waited_for_until_it_serves_nothing_any_more() {
    let Some(database) = Database::fresh() else { return };
    let people = People::new();
    let proxy = Proxy::to(database.server.port);
    let a = Gateway::start(&people, &database.root, named(database.settings(), "a"));
    a.set_up();
    let b = behind(&proxy, &database, &people, "b");
    let mia = a.encrypt(Some("mia")).unwrap();
    b.decrypt_of(Some("mia"), &mia).unwrap();
    proxy.swallow();
    let asked = a.ask("mia");
    let begun = Instant::now();
    let answer = a.approve(&asked).unwrap();
    println!("measured: with a gateway cut off, an approval answers after {:?}", begun.elapsed());
    assert_eq!((answer.state, answer.receipt.as_deref()), (ApprovalState::Approved, None));
    assert!(begun.elapsed() < Duration::from_secs(10), "the operator's call does not wait for a lease");
    assert_eq!(a.decrypt_of(Some("mia"), &mia), Err(Error::Unopenable), "here it is done");
    let (done, last) = thread::scope(|scope| {
        let serving = scope.spawn(|| {
            let (mut last, begun) = (None, Instant::now());
            while begun.elapsed() < 2 * LEASE {
                if b.decrypt_of(Some("mia"), &mia).is_ok() {
                    last = Some(SystemClock.now().0);
                }
                thread::sleep(Duration::from_millis(1));
            }
            last.expect("it served for a while from what it had")
        });
        (tend_until_executed(&a, &asked), serving.join().unwrap())
    });
    let receipt = a.receipt(&done);
    assert_eq!(names(&receipt), (vec!["a"], vec!["b"]));
    let ended = millis(&database, &receipt.lease_ended.first().unwrap().ended);
    println!(
        "measured: served last {} ms before the receipt says that the lease had ended",
        ended.saturating_sub(last)
    );
    assert!(ended >= last, "{ended} is before {last}");
    // Once it is back it learns of it before it serves, and the next receipt has its word.
    proxy.mend();
    let noa = a.encrypt(Some("noa")).unwrap();
    let begun = Instant::now();
    while b.decrypt_of(Some("noa"), &noa).is_err() {
        assert!(begun.elapsed() < PATIENCE);
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(b.decrypt_of(Some("mia"), &mia), Err(Error::Unopenable));
    let done = a.approve(&a.ask("noa")).unwrap();
    assert_eq!(names(&a.receipt(&done)), (vec!["a", "b"], vec![]));
}

#[test]
fn another_gateway_finishes_what_the_one_that_was_asked_did_not() {
    let Some(database) = Database::fresh() else { return };
    let people = People::new();
    let a = Gateway::start(&people, &database.root, named(database.settings(), "a"));
    a.set_up();
    let b = Gateway::start(&people, &database.root, named(database.settings(), "b"));
    let proxy = Proxy::to(database.server.port);
    let mute = behind(&proxy, &database, &people, "mute");
    let mia = a.encrypt(Some("mia")).unwrap();
    for gateway in [&b, &mute] {
        gateway.decrypt_of(Some("mia"), &mia).unwrap();
    }
    proxy.swallow();
    // It is the one that tends, too.
    block_on(a.vault.tend(|| true)).unwrap();
    let asked = a.ask("mia");
    assert_eq!(a.approve(&asked).unwrap().state, ApprovalState::Approved);
    let tended = block_on(b.vault.tend(|| true)).unwrap();
    assert_eq!((tended.steps, tended.finished), (0, 0), "while one tends, no other does");
    drop(a);
    let receipt = b.receipt(&tend_until_executed(&b, &asked));
    assert_eq!(names(&receipt), (vec!["a", "b"], vec!["mute"]), "what `a` confirmed before it died counts");
    assert_eq!(b.decrypt_of(Some("mia"), &mia), Err(Error::Unopenable));
}

#[test]
fn a_database_administrator_cannot_confirm_for_a_gateway_nor_hide_one() {
    let Some(database) = Database::fresh() else { return };
    let people = People::new();
    let a = Gateway::start(&people, &database.root, named(database.settings(), "a"));
    a.set_up();
    let proxy = Proxy::to(database.server.port);
    let b = behind(&proxy, &database, &people, "b");
    let mia = a.encrypt(Some("mia")).unwrap();
    b.decrypt_of(Some("mia"), &mia).unwrap();
    let begun = Instant::now();
    while database.sql("SELECT count(*) FROM blindvault_gateways") != "2" {
        assert!(begun.elapsed() < PATIENCE);
        thread::sleep(Duration::from_millis(10));
    }
    proxy.swallow();
    database.sql("CREATE TABLE kept AS SELECT * FROM blindvault_gateways");
    let asked = a.ask("mia");
    assert_eq!(a.approve(&asked).unwrap().state, ApprovalState::Approved);
    // The last to have changed is `a`, which has confirmed.
    let (confirmed, silent) = ("g.epoch > k.epoch", "g.epoch = k.epoch");
    let row = |which: &str, what: &str| {
        format!("(SELECT g.{what} FROM blindvault_gateways g JOIN kept k ON k.id = g.id WHERE {which})")
    };
    let of_b = row(silent, "id");
    for forged in [
        format!("UPDATE blindvault_gateways SET epoch = 1000000 WHERE id = {of_b}"),
        format!(
            "UPDATE blindvault_gateways SET epoch = {}, sealed = {} WHERE id = {of_b}",
            row(confirmed, "epoch"),
            row(confirmed, "sealed"),
        ),
    ] {
        database.sql(&format!("BEGIN; CREATE TABLE true_rows AS SELECT * FROM blindvault_gateways; {forged}; COMMIT"));
        block_on(a.vault.tend(|| true)).unwrap();
        assert_eq!(a.found(&asked).state, ApprovalState::Approved, "{forged}");
        database.sql("DELETE FROM blindvault_gateways; INSERT INTO blindvault_gateways SELECT * FROM true_rows; DROP TABLE true_rows");
    }
    // Without the directory, or with what it was before, there is no receipt.
    database.sql("CREATE TABLE directory AS SELECT * FROM blindvault_rows WHERE kind = 'gateways'");
    for forged in [
        "DELETE FROM blindvault_rows WHERE kind = 'gateways'",
        "UPDATE blindvault_rows SET version = version - 1 WHERE kind = 'gateways'",
    ] {
        database.sql(forged);
        assert_eq!(block_on(a.vault.tend(|| true)).unwrap().failed, 1, "{forged}");
        database.sql(
            "DELETE FROM blindvault_rows WHERE kind = 'gateways'; INSERT INTO blindvault_rows SELECT * FROM directory",
        );
    }
    assert_eq!(names(&a.receipt(&tend_until_executed(&a, &asked))), (vec!["a"], vec!["b"]));
}

/// Whether keys are wiped is not for the database to say: a change of which it hides half is refused.
#[test]
fn a_gateway_that_is_not_told_the_truth_serves_nothing_and_confirms_nothing() {
    let Some(database) = Database::fresh() else { return };
    let people = People::new();
    let a = Gateway::start(&people, &database.root, named(database.settings(), "a"));
    a.set_up();
    a.suspend();
    a.resume();
    let mia = a.encrypt(Some("mia")).unwrap();
    a.decrypt_of(Some("mia"), &mia).unwrap();
    // Whoever asks what changed is shown this tenant's head as another change left it.
    database.sql(
        "CREATE FUNCTION spoil() RETURNS TRIGGER LANGUAGE plpgsql AS $$ BEGIN NEW.sealed := OLD.sealed; RETURN NEW; END $$; \
         CREATE TRIGGER spoil BEFORE UPDATE ON blindvault_changes FOR EACH ROW WHEN (OLD.tenant = 'acme') \
         EXECUTE FUNCTION spoil()",
    );
    let suspended = block_on(a.vault.suspend_tenant(&call(&a.alice, &a.reason), &tenant("acme"), None));
    println!("the suspension says {suspended:?}");
    let begun = Instant::now();
    while a.vault.keys().lease().is_ok() {
        assert!(begun.elapsed() < PATIENCE);
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(a.vault.keys().data_key_stats().held, 0);
    assert!(a.decrypt_of(Some("mia"), &mia).is_err());
}
