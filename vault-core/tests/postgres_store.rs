//! The PostgreSQL store against its database's administrator, its network, and other versions of itself.
#![cfg(all(feature = "postgres", feature = "dev"))]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pg_bed::{Database, HASTY, INSTANCE, hasty, root, settings, tcp};
use pollster::block_on;
use proxy::Proxy;
use vault_core::Error;
use vault_core::error::Dependency;
use vault_core::secret::SecretBytes;
use vault_core::store::{Address, Expect, OUTCOME_UNKNOWN, PostgresSettings, PostgresStore, Row, Store, Table, Write};

#[path = "common/pg_bed.rs"]
mod pg_bed;
#[path = "common/postgres.rs"]
mod postgres;
#[path = "common/proxy.rs"]
mod proxy;

fn put(table: Table, key: &[u8], expect: Expect, value: &[u8]) -> Write {
    Write { table, key: key.to_vec(), expect, value: value.to_vec(), revokes: false }
}

fn commit(store: &PostgresStore, write: Write) -> Result<(), Error> {
    block_on(store.commit(vec![write]))
}

fn get(store: &PostgresStore, table: Table, key: &[u8]) -> Result<Option<Row>, Error> {
    block_on(store.get(table, key))
}

fn row(version: u64, value: &[u8]) -> Option<Row> {
    Some(Row { version, value: value.to_vec() })
}

fn is_unavailable<T: std::fmt::Debug>(result: &Result<T, Error>) -> bool {
    matches!(result, Err(Error::Unavailable { dependency: Dependency::Store, .. }))
}

fn is_damage<T: std::fmt::Debug>(result: &Result<T, Error>) -> bool {
    matches!(result, Err(Error::Corrupt { .. }))
}

#[test]
fn the_database_shows_no_value_and_no_subject() {
    let Some(database) = Database::fresh() else { return };
    let store = database.open();
    let key = b"acme\0orders\0subject-canary";
    commit(&store, put(Table::ActiveKeys, key, Expect::Absent, b"value-canary")).unwrap();
    commit(&store, put(Table::ActiveKeys, key, Expect::Version(1), b"value-canary")).unwrap();
    let tables = database.sql("SELECT tablename FROM pg_tables WHERE schemaname = 'public'");
    let all: String = tables.lines().map(|table| database.sql(&format!("SELECT * FROM {table}"))).collect();
    let holds = |text: &str| all.contains(&hex::encode(text)) || all.contains(text);
    assert!(holds("acme") && holds("orders"), "what is looked for would be found");
    assert!(!holds("value-canary") && !holds("subject-canary") && !holds("canary"));
    // But it comes back, and where one would look for it.
    assert_eq!(get(&store, Table::ActiveKeys, key), Ok(row(2, b"value-canary")));
    let found = block_on(store.scan(Table::ActiveKeys, b"acme\0orders\0", None, 9)).unwrap();
    assert_eq!(found[0].key, key);
    assert_eq!(block_on(store.scan(Table::ActiveKeys, b"acme\0orders\0", Some(key), 9)), Ok(vec![]));
    let inside = block_on(store.scan(Table::ActiveKeys, b"acme\0orders\0sub", None, 9));
    assert!(matches!(inside, Err(Error::Invalid { field, .. }) if field == "prefix"));
}

#[test]
fn subjects_are_paged_through_once_each() {
    let Some(database) = Database::fresh() else { return };
    let store = database.open();
    let mut wanted: Vec<Vec<u8>> = (0..57).map(|n| format!("acme\0orders\0person-{n}").into_bytes()).collect();
    wanted.push(b"acme\0orders\0".to_vec());
    let other = b"acme\0orders2\0person-1".to_vec();
    let writes = wanted.iter().chain([&other]).map(|key| put(Table::ActiveKeys, key, Expect::Absent, b"v")).collect();
    block_on(store.commit(writes)).unwrap();
    let (mut found, mut after) = (Vec::new(), None::<Vec<u8>>);
    loop {
        let page = block_on(store.scan(Table::ActiveKeys, b"acme\0orders\0", after.as_deref(), 10)).unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.key.clone());
        found.extend(page.into_iter().map(|scanned| scanned.key));
    }
    found.sort();
    wanted.sort();
    assert_eq!(found, wanted);
}

#[test]
fn an_administrator_can_neither_alter_move_nor_renumber_rows() {
    let Some(database) = Database::fresh() else { return };
    let store = database.open();
    let tampering = [
        "UPDATE blindvault_rows SET version = 3 WHERE key = 'acme'",
        "UPDATE blindvault_rows SET version = 1 WHERE key = 'acme'",
        "UPDATE blindvault_rows SET version = -2 WHERE key = 'acme'",
        "UPDATE blindvault_rows SET value = set_byte(value, 60, get_byte(value, 60) # 1) WHERE key = 'acme'",
        "UPDATE blindvault_rows SET value = '' WHERE key = 'acme'",
        "UPDATE blindvault_rows SET value = (SELECT value FROM blindvault_rows WHERE key = 'globex') WHERE key = 'acme'",
        "DELETE FROM blindvault_rows WHERE key = 'acme'; \
         UPDATE blindvault_rows SET key = 'acme' WHERE key = 'globex'",
        "DELETE FROM blindvault_rows WHERE kind = 'tenants'; \
         UPDATE blindvault_rows SET kind = 'tenants' WHERE kind = 'datasets'",
    ];
    for (round, sql) in tampering.iter().enumerate() {
        let named = |name: &str| format!("{name}-{round}");
        let sql = sql
            .replace("'acme'", &format!("'{}'", named("acme")))
            .replace("'globex'", &format!("'{}'", named("globex")));
        let sql = sql.replace(
            "DELETE FROM blindvault_rows WHERE kind = 'tenants'",
            &format!("DELETE FROM blindvault_rows WHERE kind = 'tenants' AND key = '{}'", named("acme")),
        );
        let sql =
            sql.replace("WHERE kind = 'datasets'", &format!("WHERE kind = 'datasets' AND key = '{}'", named("acme")));
        let (acme, globex) = (named("acme").into_bytes(), named("globex").into_bytes());
        for tenant in [&acme, &globex] {
            commit(&store, put(Table::Tenants, tenant, Expect::Absent, b"one")).unwrap();
            commit(&store, put(Table::Tenants, tenant, Expect::Version(1), b"two")).unwrap();
        }
        commit(&store, put(Table::Datasets, &acme, Expect::Absent, b"one")).unwrap();
        assert_eq!(get(&store, Table::Tenants, &acme), Ok(row(2, b"two")));
        database.sql(&sql);
        assert!(is_damage(&get(&store, Table::Tenants, &acme)), "{sql}");
        assert!(is_damage(&block_on(store.scan(Table::Tenants, &acme, None, 9))), "{sql}");
        for version in [1, 2, 3] {
            let replaced = commit(&store, put(Table::Tenants, &acme, Expect::Version(version), b"three"));
            assert!(is_damage(&replaced), "{sql}: {replaced:?}");
        }
    }
}

#[test]
fn another_instance_or_root_opens_nothing_and_a_lost_key_is_not_made_anew() {
    let Some(database) = Database::fresh() else { return };
    commit(&database.open(), put(Table::Tenants, b"acme", Expect::Absent, b"v")).unwrap();
    let open = |root, instance| block_on(PostgresStore::open(database.settings(), root, instance)).err();
    assert!(matches!(open(Arc::clone(&database.root), "other"), Some(Error::RootKey { retry: false, .. })));
    assert!(matches!(open(root(), INSTANCE), Some(Error::RootKey { .. })));
    assert_eq!(get(&database.open(), Table::Tenants, b"acme"), Ok(row(1, b"v")));
    database.sql("DELETE FROM blindvault_store_key");
    assert!(matches!(open(Arc::clone(&database.root), INSTANCE), Some(Error::Corrupt { .. })));
    assert_eq!(database.sql("SELECT count(*) FROM blindvault_store_key"), "0");
}

#[test]
fn many_open_a_fresh_database_at_once_and_agree() {
    let Some(database) = Database::fresh() else { return };
    thread::scope(|scope| {
        let opening: Vec<_> = (0..6_u8)
            .map(|n| {
                let database = &database;
                scope.spawn(move || {
                    let store = database.open();
                    commit(&store, put(Table::Tenants, &[b't', n], Expect::Absent, &[n])).unwrap();
                })
            })
            .collect();
        opening.into_iter().for_each(|one| one.join().unwrap());
    });
    assert_eq!(block_on(database.open().scan(Table::Tenants, b"t", None, 99)).unwrap().len(), 6);
    assert_eq!(database.sql("SELECT count(*) FROM blindvault_store_key"), "1");
}

#[test]
fn a_newer_or_another_schema_is_refused_and_left_alone() {
    let Some(database) = Database::fresh() else { return };
    drop(database.open());
    database.sql("UPDATE blindvault_schema SET sha256 = 'other' WHERE version = 1");
    assert!(is_damage(&database.try_open(database.settings())));
    database.sql("INSERT INTO blindvault_schema VALUES (3, 'newer')");
    let refused = database.try_open(database.settings()).err();
    assert!(matches!(refused, Some(Error::FailedPrecondition(why)) if why.contains("newer")), "{refused:?}");
    assert_eq!(database.sql("SELECT count(*) FROM blindvault_schema"), "4");
}

#[test]
fn only_the_configured_authority_role_and_database_will_do() {
    let Some(database) = Database::fresh() else { return };
    let port = database.server.port;
    let refused = |settings: PostgresSettings| {
        let refused = database.try_open(settings);
        assert!(is_unavailable(&refused), "{refused:?}");
        format!("{}", refused.unwrap_err())
    };
    let stranger = tcp(port, &postgres::another_ca());
    assert!(refused(settings(stranger, &database.name)).contains("failed or was cut"));
    let mut wrong_name = database.settings();
    let Address::Tcp { hosts, .. } = &mut wrong_name.address else { panic!() };
    hosts[0].0 = "127.0.0.2".into();
    assert!(refused(wrong_name).contains("failed or was cut"));
    let wrong = PostgresSettings { password: Some(SecretBytes::copy_of(b"wrong")), ..database.settings() };
    assert!(refused(wrong).contains("does not let this role in"));
    assert!(
        refused(PostgresSettings { database: "nowhere".into(), ..database.settings() }).contains("no such database")
    );
    let invalid = |settings, name: &str| match database.try_open(settings) {
        Err(Error::Invalid { field, .. }) => assert_eq!(field, name),
        other => panic!("{other:?}"),
    };
    invalid(PostgresSettings { connections: 0, ..database.settings() }, "connections");
    invalid(PostgresSettings { revocation_lease: Duration::ZERO, ..database.settings() }, "revocation_lease");
    let mut socket = database.settings();
    let Address::Tcp { hosts, .. } = &mut socket.address else { panic!() };
    hosts[0].0 = database.server.dir.display().to_string();
    invalid(socket, "hosts");
}

/// Runs each kind of call, none of which may succeed or take long.
fn fails_in_time(store: &PostgresStore, what: &str) {
    let timed = |call: &str, result: &dyn Fn() -> bool| {
        let begun = Instant::now();
        assert!(result(), "{what}: {call} must say that the store is not there");
        // One each for waiting, connecting, the statements, COMMIT; and as much for a busy machine.
        assert!(begun.elapsed() < HASTY * 8, "{what}: {call} took {:?}", begun.elapsed());
    };
    timed("get", &|| is_unavailable(&get(store, Table::Tenants, b"acme")));
    timed("scan", &|| is_unavailable(&block_on(store.scan(Table::Tenants, b"", None, 9))));
    timed("commit", &|| is_unavailable(&commit(store, put(Table::Tenants, b"new", Expect::Absent, b"v"))));
}

#[test]
fn a_spoilt_network_is_an_answer_in_time_and_mends() {
    let Some(database) = Database::fresh() else { return };
    let proxy = Proxy::to(database.server.port);
    let through = || hasty(settings(tcp(proxy.port, &database.server.ca_pem), &database.name));
    let store = database.try_open(through()).unwrap();
    commit(&store, put(Table::Tenants, b"acme", Expect::Absent, b"v")).unwrap();
    let good = |what| assert_eq!(get(&store, Table::Tenants, b"acme"), Ok(row(1, b"v")), "{what}");
    proxy.cut();
    good("connections that were cut while idle are not noticed");
    proxy.cut();
    commit(&store, put(Table::Tenants, b"acme", Expect::Version(1), b"v")).unwrap();
    let good = |what| assert_eq!(get(&store, Table::Tenants, b"acme"), Ok(row(2, b"v")), "{what}");
    proxy.cut();
    good("nor when what changed has to be read, too");
    proxy.cut();
    commit(&store, put(Table::Tenants, b"globex", Expect::Absent, b"v")).unwrap();
    for (what, spoil) in [("refused", Proxy::refuse as fn(&Proxy)), ("swallowed", Proxy::swallow)] {
        spoil(&proxy);
        fails_in_time(&store, what);
        let begun = Instant::now();
        assert!(is_unavailable(&database.try_open(through())), "{what}");
        assert!(begun.elapsed() < HASTY * 8);
        proxy.mend();
        good(what);
        assert_eq!(get(&store, Table::Tenants, b"new"), Ok(None), "{what}: nothing was written");
    }
}

#[test]
fn a_row_that_another_holds_is_an_answer_in_time() {
    let Some(database) = Database::fresh() else { return };
    let store = database.try_open(hasty(PostgresSettings { connections: 1, ..database.settings() })).unwrap();
    commit(&store, put(Table::Tenants, b"acme", Expect::Absent, b"v")).unwrap();
    thread::scope(|scope| {
        let holds = scope.spawn(|| {
            database.sql("BEGIN; SELECT 1 FROM blindvault_rows WHERE key = 'acme' FOR UPDATE; SELECT pg_sleep(12)");
        });
        thread::sleep(Duration::from_secs(1));
        let begun = Instant::now();
        let update = || commit(&store, put(Table::Tenants, b"acme", Expect::Version(1), b"w"));
        // The second waits for the only connection.
        let both = (scope.spawn(update), scope.spawn(update));
        for result in [both.0.join().unwrap(), both.1.join().unwrap()] {
            assert!(is_unavailable(&result), "{result:?}");
        }
        assert!(begun.elapsed() < HASTY * 5, "{:?}", begun.elapsed());
        holds.join().unwrap();
    });
    commit(&store, put(Table::Tenants, b"acme", Expect::Version(1), b"w")).unwrap();
}

/// Whether a COMMIT that a client sends is carried out, is thrown away, or nothing is done to it.
const LEAVE: u8 = 0;
const CARRY_OUT: u8 = 1;
const THROW_AWAY: u8 = 2;

/// Passes a Unix socket's bytes on, which are in the clear, and ends the connection at a COMMIT.
fn cuts_at_commit(listener: UnixListener, server: std::path::PathBuf, mode: Arc<AtomicU8>) {
    for client in listener.incoming() {
        let (mut client, mut server) = (client.unwrap(), UnixStream::connect(&server).unwrap());
        let (mut back, mut answers) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        thread::spawn(move || std::io::copy(&mut answers, &mut back));
        let mode = Arc::clone(&mode);
        thread::spawn(move || {
            let mut buffer = [0; 65_536];
            while let Ok(read @ 1..) = client.read(&mut buffer) {
                let commits = buffer[..read].windows(6).any(|window| window == b"COMMIT");
                let end = if commits { mode.load(Ordering::SeqCst) } else { LEAVE };
                if end != LEAVE {
                    let _ = client.shutdown(std::net::Shutdown::Both);
                }
                if end != THROW_AWAY && server.write_all(&buffer[..read]).is_err() {
                    return;
                }
                if end != LEAVE {
                    // Time to carry it out before the server sees that nobody is there.
                    thread::sleep(Duration::from_millis(300));
                    let _ = server.shutdown(std::net::Shutdown::Both);
                    return;
                }
            }
            let _ = server.shutdown(std::net::Shutdown::Both);
        });
    }
}

#[test]
fn a_connection_lost_while_committing_says_that_the_outcome_is_unknown() {
    let Some(database) = Database::fresh() else { return };
    let dir = tempfile::tempdir().unwrap();
    let port = database.server.port;
    let socket = |dir: &std::path::Path| dir.join(format!(".s.PGSQL.{port}"));
    let (listener, server) = (UnixListener::bind(socket(dir.path())).unwrap(), socket(&database.server.dir));
    let mode = Arc::new(AtomicU8::new(LEAVE));
    let proxying = Arc::clone(&mode);
    thread::spawn(move || cuts_at_commit(listener, server, proxying));
    let address = Address::Socket { dir: dir.path().to_owned(), port };
    let store = database.try_open(settings(address, &database.name)).unwrap();
    commit(&store, put(Table::Tenants, b"acme", Expect::Absent, b"v1")).unwrap();
    for (how, version) in [(CARRY_OUT, 2), (THROW_AWAY, 2), (CARRY_OUT, 3)] {
        let before = get(&store, Table::Tenants, b"acme").unwrap().unwrap();
        mode.store(how, Ordering::SeqCst);
        let batch = vec![
            put(Table::Tenants, b"acme", Expect::Version(before.version), b"next"),
            put(Table::Datasets, &[how, version as u8], Expect::Absent, b"beside it"),
        ];
        let unknown = block_on(store.commit(batch));
        assert_eq!(unknown, Err(Error::unavailable(Dependency::Store, OUTCOME_UNKNOWN)));
        mode.store(LEAVE, Ordering::SeqCst);
        // The server may still be at it.
        let begun = Instant::now();
        let now = || get(&store, Table::Tenants, b"acme").unwrap().unwrap().version;
        while now() != version || (how == THROW_AWAY && begun.elapsed() < Duration::from_millis(500)) {
            assert!(begun.elapsed() < Duration::from_secs(30), "{} is not {version}", now());
        }
        let beside = get(&store, Table::Datasets, &[how, version as u8]).unwrap();
        assert_eq!(beside.is_some(), how == CARRY_OUT, "all of it or nothing");
    }
}

#[test]
fn a_database_that_does_not_sync_is_refused_and_a_crash_loses_nothing() {
    let Some(server) = postgres::Server::own() else { return };
    let (name, root) = (server.database(), root());
    let settings = || settings(tcp(server.port, &server.ca_pem), &name);
    let open = || block_on(PostgresStore::open(settings(), Arc::clone(&root), INSTANCE));
    // Whoever administers the role may have made its commits asynchronous.
    server.sql(&name, "ALTER ROLE vault SET synchronous_commit = off");
    let store = open().unwrap();
    for round in 0..3_u64 {
        let key = round.to_be_bytes();
        for n in 0..50_u8 {
            commit(&store, put(Table::Tenants, &[&key[..], &[n]].concat(), Expect::Absent, b"v")).unwrap();
        }
        server.crash();
        assert!(is_unavailable(&get(&store, Table::Tenants, b"any")));
        server.start();
        // The same store finds it again, without being opened anew.
        let found = block_on(store.scan(Table::Tenants, b"", None, 1000)).unwrap();
        assert_eq!(found.len() as u64, 50 * (round + 1));
    }
    server.sql(&name, "ALTER SYSTEM SET fsync = off");
    server.sql(&name, "SELECT pg_reload_conf()");
    thread::sleep(Duration::from_millis(500));
    let refused = open();
    assert!(matches!(&refused, Err(Error::Unavailable { why, .. }) if why.contains("fsync")), "{refused:?}");
}
