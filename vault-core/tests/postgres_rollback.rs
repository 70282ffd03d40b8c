//! Old rows put back into the database, one by one or all together, are refused.
#![cfg(all(feature = "postgres", feature = "dev"))]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pg_bed::{Database, settings};
use pollster::block_on;
use vault_core::Error;
use vault_core::store::{Address, Anchor, Expect, PostgresSettings, PostgresStore, Row, Store, Table, Write};

#[path = "common/pg_bed.rs"]
mod pg_bed;
#[path = "common/postgres.rs"]
mod postgres;

const TABLES: [&str; 4] = ["blindvault_rows", "blindvault_epoch", "blindvault_chain", "blindvault_changes"];
const ACME: &[u8] = b"acme";

fn put(store: &PostgresStore, key: &[u8], expect: Expect, value: &[u8]) -> Result<(), Error> {
    block_on(store.commit(vec![Write {
        table: Table::Tenants,
        key: key.to_vec(),
        expect,
        value: value.to_vec(),
        revokes: false,
    }]))
}

fn get(store: &PostgresStore, key: &[u8]) -> Result<Option<Row>, Error> {
    block_on(store.get(Table::Tenants, key))
}

fn is_damage<T: std::fmt::Debug>(result: &Result<T, Error>) -> bool {
    matches!(result, Err(Error::Corrupt { .. }))
}

/// Keeps a copy of every table, as a backup does.
fn keep(database: &Database) {
    for table in TABLES {
        database.sql(&format!("CREATE TABLE kept_{table} AS SELECT * FROM {table}"));
    }
}

/// Puts a table back.
fn put_back(database: &Database, table: &str, which: &str) {
    let sql =
        format!("DELETE FROM {table} WHERE {which}; INSERT INTO {table} SELECT * FROM kept_{table} WHERE {which}");
    database.sql(&sql);
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(30), "{what}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn open_with(database: &Database, anchor: Anchor) -> Result<(), Error> {
    database.try_open(PostgresSettings { anchor: Some(anchor), ..database.settings() }).map(drop)
}

#[test]
fn an_old_row_is_refused_by_who_knows_the_new_one_and_by_who_comes_fresh() {
    let tampering = [
        "UPDATE blindvault_rows r SET version = k.version, value = k.value FROM kept_blindvault_rows k \
         WHERE r.kind = k.kind AND r.key = k.key",
        "UPDATE blindvault_rows r SET version = k.version, value = k.value, changed = k.changed \
         FROM kept_blindvault_rows k WHERE r.kind = k.kind AND r.key = k.key",
        "DELETE FROM blindvault_rows",
        // The first version, as if it had never been replaced.
        "DELETE FROM blindvault_rows; INSERT INTO blindvault_rows SELECT * FROM first",
        "UPDATE blindvault_changes c SET rows_epoch = k.rows_epoch, sealed = k.sealed \
         FROM kept_blindvault_changes k WHERE c.tenant = k.tenant",
        "DELETE FROM blindvault_changes; DELETE FROM blindvault_rows; INSERT INTO blindvault_rows SELECT * FROM first",
    ];
    for sql in tampering {
        let Some(database) = Database::fresh() else { return };
        let store = database.open();
        put(&store, ACME, Expect::Absent, b"active").unwrap();
        database.sql("CREATE TABLE first AS SELECT * FROM blindvault_rows");
        put(&store, ACME, Expect::Version(1), b"suspended").unwrap();
        put(&store, ACME, Expect::Version(2), b"active again").unwrap();
        keep(&database);
        put(&store, ACME, Expect::Version(3), b"suspended again").unwrap();
        assert_eq!(get(&store, ACME), Ok(Some(Row { version: 4, value: b"suspended again".to_vec() })));
        let other = database.open();
        until("the newest state is confirmed", || store.anchor().unwrap().epoch == 4);
        database.sql(sql);
        for (who, store) in [("who wrote it", &store), ("who has only heard of it", &other)] {
            assert!(is_damage(&get(store, ACME)), "{who}: {sql}");
            let found = block_on(store.scan(Table::Tenants, b"", None, 9));
            assert!(is_damage(&found) || found == Ok(vec![]), "{who}: {sql}: {found:?}");
        }
        // Who comes fresh finds it at once, or at the row.
        match database.try_open(database.settings()) {
            Ok(fresh) => assert!(is_damage(&get(&fresh, ACME)), "who comes fresh: {sql}"),
            Err(error) => assert!(matches!(error, Error::Corrupt { .. }), "{sql}: {error}"),
        }
    }
}

#[test]
fn rows_that_were_never_replaced_and_other_tenants_go_on() {
    let Some(database) = Database::fresh() else { return };
    let store = database.open();
    for key in [ACME, b"globex"] {
        put(&store, key, Expect::Absent, b"v1").unwrap();
        put(&store, key, Expect::Version(1), b"v2").unwrap();
    }
    keep(&database);
    put(&store, ACME, Expect::Version(2), b"v3").unwrap();
    put_back(&database, "blindvault_rows", "key = 'acme'");
    assert!(is_damage(&get(&store, ACME)));
    assert!(get(&store, b"globex").unwrap().is_some());
    assert_eq!(get(&store, b"nobody"), Ok(None));
    // A row once found to be old is good again when it is: nothing was spoilt.
    let Some(database) = Database::fresh() else { return };
    let store = database.open();
    put(&store, ACME, Expect::Absent, b"v1").unwrap();
    database.sql("CREATE TABLE kept_blindvault_rows AS SELECT * FROM blindvault_rows");
    put(&store, ACME, Expect::Version(1), b"v2").unwrap();
    database.sql("CREATE TABLE newest AS SELECT * FROM blindvault_rows");
    put_back(&database, "blindvault_rows", "true");
    assert!(is_damage(&get(&store, ACME)));
    database.sql("DELETE FROM blindvault_rows; INSERT INTO blindvault_rows SELECT * FROM newest");
    assert_eq!(get(&store, ACME), Ok(Some(Row { version: 2, value: b"v2".to_vec() })));
}

#[test]
fn an_old_database_is_refused_by_who_runs_and_by_who_has_an_anchor() {
    let Some(database) = Database::fresh() else { return };
    let settings = PostgresSettings { revocation_lease: Duration::from_secs(1), ..database.settings() };
    let store = database.try_open(settings).unwrap();
    put(&store, ACME, Expect::Absent, b"active").unwrap();
    put(&store, ACME, Expect::Version(1), b"v2").unwrap();
    keep(&database);
    put(&store, ACME, Expect::Version(2), b"suspended").unwrap();
    let before = store.anchor().unwrap();
    until("the newest state is confirmed", || store.anchor().unwrap().epoch == 3);
    let anchor = store.anchor().unwrap();
    assert!(before.epoch <= anchor.epoch);
    open_with(&database, anchor).unwrap();
    for table in TABLES {
        put_back(&database, table, "true");
    }
    assert!(is_damage(&get(&store, ACME)));
    assert!(is_damage(&put(&store, ACME, Expect::Version(2), b"another history")));
    until("the lease runs out", || store.lease().is_err());
    let cached = block_on(store.get_cached(Table::Tenants, ACME));
    assert!(matches!(cached, Err(Error::Unavailable { .. })), "{cached:?}");
    assert!(is_damage(&open_with(&database, anchor)), "an older state");

    // Who has no anchor cannot know, and goes on in another history: to the same epoch, and beyond.
    let unknowing = database.open();
    for version in 2..5 {
        put(&unknowing, ACME, Expect::Version(version), b"another history").unwrap();
        assert!(is_damage(&open_with(&database, anchor)), "another history, of epoch {}", version + 1);
        assert!(store.lease().is_err(), "what runs does not take it for the continuation");
        assert!(is_damage(&get(&store, ACME)));
    }
    until("its own history is good", || unknowing.anchor().unwrap().epoch == 5);
    open_with(&database, unknowing.anchor().unwrap()).unwrap();
    let forged = Anchor { chain: [7; 32], ..unknowing.anchor().unwrap() };
    assert!(is_damage(&open_with(&database, forged)));
    // A link taken out of the chain.
    database.sql("DELETE FROM blindvault_chain WHERE epoch = 4");
    let early = Anchor { epoch: 1, chain: [0; 32] };
    assert!(is_damage(&open_with(&database, early)));
}

/// Passes a Unix socket's bytes on, which are in the clear; the answers to what reads rows are late while `hold` is set.
fn holds_answers(listener: UnixListener, server: PathBuf, hold: Arc<AtomicBool>) {
    for client in listener.incoming() {
        let (mut client, mut server) = (client.unwrap(), UnixStream::connect(&server).unwrap());
        let (mut back, mut answers) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        let (hold, reads) = (Arc::clone(&hold), Arc::new(AtomicBool::new(false)));
        let asked = Arc::clone(&reads);
        thread::spawn(move || {
            let mut buffer = [0; 65_536];
            while let Ok(read @ 1..) = answers.read(&mut buffer) {
                while reads.load(Ordering::SeqCst) && hold.load(Ordering::SeqCst) {
                    thread::sleep(Duration::from_millis(1));
                }
                let Some(Ok(())) = buffer.get(..read).map(|bytes| back.write_all(bytes)) else { return };
            }
        });
        thread::spawn(move || {
            let mut buffer = [0; 65_536];
            while let Ok(read @ 1..) = client.read(&mut buffer) {
                let sent = buffer.get(..read).unwrap();
                let statement = b"LEFT JOIN blindvault_changes";
                asked.store(sent.windows(statement.len()).any(|window| window == statement), Ordering::SeqCst);
                if server.write_all(sent).is_err() {
                    return;
                }
            }
            let _ = server.shutdown(std::net::Shutdown::Both);
        });
    }
}

#[test]
fn an_answer_that_a_change_overtook_is_not_taken_for_an_old_state() {
    let Some(database) = Database::fresh() else { return };
    let dir = tempfile::tempdir().unwrap();
    let port = database.server.port;
    let socket = |dir: &Path| dir.join(format!(".s.PGSQL.{port}"));
    let (listener, server) = (UnixListener::bind(socket(dir.path())).unwrap(), socket(&database.server.dir));
    let hold = Arc::new(AtomicBool::new(false));
    let holding = Arc::clone(&hold);
    thread::spawn(move || holds_answers(listener, server, holding));
    let writer = database.open();
    put(&writer, ACME, Expect::Absent, b"v").unwrap();
    let address = Address::Socket { dir: dir.path().to_owned(), port };
    let reader = database.try_open(settings(address, &database.name)).unwrap();
    let scan = || block_on(reader.scan(Table::Tenants, b"", None, 9)).map(|rows| rows.first().unwrap().row.version);
    let found = || get(&reader, ACME).map(|row| row.unwrap().version);
    let ways: [&(dyn Fn() -> Result<u64, Error> + Sync); 2] = [&found, &scan];
    // The first change is the tenant's first; the others follow one.
    for (version, read) in (1..=4).zip(ways.into_iter().cycle()) {
        hold.store(true, Ordering::SeqCst);
        let read = thread::scope(|scope| {
            let reading = scope.spawn(read);
            // Time for its question to arrive, and for the answer to be late.
            thread::sleep(Duration::from_millis(300));
            let known = reader.anchor().unwrap().epoch;
            put(&writer, ACME, Expect::Version(version), b"v").unwrap();
            until("the change is confirmed", || reader.anchor().unwrap().epoch > known);
            hold.store(false, Ordering::SeqCst);
            reading.join().unwrap()
        });
        assert_eq!(read, Ok(version + 1));
    }
}
