//! Two gateways on one PostgreSQL, as they are configured and called: over the network.
#![cfg(all(feature = "dev", feature = "postgres"))]
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "tests, which say what they measured")]
#![expect(clippy::disallowed_macros, reason = "a test says that it is skipped")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use pg_site::{configure, configure_on, endpoint, start};
use postgres::Server;
use tonic::Code;
use vault_client::{Endpoint, OperatorClient, Target, VaultClient};
use vault_core::Error;
use vault_core::audit::LogSigner;
use vault_core::bundle::{Bundle, PolicyFile, SignedBundle};
use vault_core::fs::OsFs;
use vault_core::time::{Clock as _, SystemClock};
use vault_grpc::Gateway;
use vault_grpc::build::{StartError, check};
use vault_grpc::config::{Config, PostgresAddress, Store};
use vault_grpc::init::{Made, OPERATOR_DOMAIN, init};
use vault_grpc::pki::Leaf;

#[path = "common/pg_site.rs"]
mod pg_site;
#[path = "../../vault-core/tests/common/postgres.rs"]
mod postgres;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_suspension_on_one_gateway_stops_the_other() {
    let Some(server) = Server::shared() else { return };
    let (_dir, made) = configure(server);
    let (a, b) = (start(&made, "a").await, start(&made, "b").await);
    let operator = OperatorClient::connect(&endpoint(&made, a.control_addr(), "operator-alice")).await.unwrap();
    operator.create_tenant("acme", None, "test").await.unwrap();
    operator.create_dataset("acme", "customers", "pii", "eu", "test").await.unwrap();
    let of = async |gateway: &Gateway| VaultClient::connect(&endpoint(&made, gateway.data_addr(), "billing")).await;
    let (on_a, on_b) = (of(&a).await.unwrap(), of(&b).await.unwrap());
    let target = Target::new("acme", "customers", "billing").subject("alice");
    let sealed = on_a.encrypt(&target, b"DE89 3704").await.unwrap();
    // The other gateway finds what the first has just made.
    assert_eq!(on_b.decrypt(&target, sealed.envelope.clone()).await.unwrap().plaintext.as_bytes(), b"DE89 3704");
    operator.suspend_tenant("acme", "test").await.unwrap();
    let begun = Instant::now();
    let refused = loop {
        match on_b.decrypt(&target, sealed.envelope.clone()).await {
            Ok(_) => assert!(begun.elapsed() < Duration::from_secs(1)),
            Err(error) => break error,
        }
    };
    println!("measured: suspended over the network, refused by the other gateway after {:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(1));
    assert_eq!((refused.code(), refused.reason()), (Code::PermissionDenied, "DENIED"));
    a.shutdown().await.unwrap();
    b.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn without_the_database_a_gateway_serves_for_its_lease_and_comes_back() {
    let Some(server) = Server::own() else { return };
    let (_dir, made) = configure(&server);
    let gateway = start(&made, "one").await;
    let operator = OperatorClient::connect(&endpoint(&made, gateway.control_addr(), "operator-alice")).await.unwrap();
    operator.create_tenant("acme", None, "test").await.unwrap();
    operator.create_dataset("acme", "customers", "", "", "test").await.unwrap();
    let billing = VaultClient::connect(&endpoint(&made, gateway.data_addr(), "billing")).await.unwrap();
    let target = Target::new("acme", "customers", "billing");
    let sealed = billing.encrypt(&target, b"x").await.unwrap();
    billing.decrypt(&target, sealed.envelope.clone()).await.unwrap();
    server.crash();
    let begun = Instant::now();
    billing.decrypt(&target, sealed.envelope.clone()).await.unwrap();
    let refused = loop {
        match billing.decrypt(&target, sealed.envelope.clone()).await {
            Ok(_) => assert!(begun.elapsed() < Duration::from_secs(3)),
            Err(error) => break error,
        }
    };
    println!("measured: refused {:?} after the database had gone, with a lease of 2 s", begun.elapsed());
    assert_eq!((refused.code(), refused.reason()), (Code::Unavailable, "DEPENDENCY_UNAVAILABLE"));
    assert!(refused.message().starts_with("store unavailable"), "{}", refused.message());
    assert!(gateway.vault().keys().lease().is_err());
    let control = operator.get_tenant("acme").await.unwrap_err();
    assert_eq!(control.code(), Code::Unavailable);
    server.start();
    let begun = Instant::now();
    while billing.decrypt(&target, sealed.envelope.clone()).await.is_err() {
        assert!(begun.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    gateway.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_gateway_does_not_start_on_a_database_that_is_older_than_its_log() {
    let Some(server) = Server::shared() else { return };
    let name = server.database();
    let (_dir, made) = configure_on(server, &name);
    let gateway = start(&made, "one").await;
    let operator = OperatorClient::connect(&endpoint(&made, gateway.control_addr(), "operator-alice")).await.unwrap();
    operator.create_tenant("acme", None, "test").await.unwrap();
    let tables = ["blindvault_rows", "blindvault_epoch", "blindvault_chain", "blindvault_changes"];
    for table in tables {
        server.sql(&name, &format!("CREATE TABLE kept_{table} AS SELECT * FROM {table}"));
    }
    operator.suspend_tenant("acme", "test").await.unwrap();
    // It is recorded when the gateway stops, if not before.
    let begun = Instant::now();
    while gateway.vault().keys().anchor().unwrap().epoch < 2 {
        assert!(begun.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    gateway.shutdown().await.unwrap();
    let config = made.config.with_file_name("one.toml");
    let again = async || Gateway::start(Config::load(&config).unwrap()).await;
    again().await.unwrap().shutdown().await.unwrap();
    for table in tables {
        server.sql(&name, &format!("DELETE FROM {table}; INSERT INTO {table} SELECT * FROM kept_{table}"));
    }
    let refused = again().await.map(drop);
    assert!(matches!(&refused, Err(StartError::Vault(Error::Corrupt { .. }))), "{refused:?}");
    // Another gateway, whose log knows nothing of it, cannot tell.
    start(&made, "new").await.shutdown().await.unwrap();
}

const TCP: &str = "kind = \"postgres\"\nhosts = [\"db1.example\", \"10.0.0.2:6432\", \"[::1]:5433\"]\nca = \"ca.pem\"\n\
                   database = \"vault\"\nuser = \"vault\"\npassword_file = \"db.password\"\n";

fn parse(store: &str) -> Result<Config, String> {
    let text = format!(
        "environment = \"dev\"\ninstance = \"one\"\n[data]\naddress = \"127.0.0.1:1\"\ncertificate = \"a\"\nkey = \"a\"\n\
         client_ca = \"a\"\ntrust_domain = \"a.example\"\n[control]\naddress = \"127.0.0.1:2\"\ncertificate = \"a\"\n\
         key = \"a\"\nclient_ca = \"a\"\ntrust_domain = \"b.example\"\n[audit]\ndir = \"d\"\nkey = \"k\"\n\
         [root]\nkind = \"local\"\npath = \"r\"\n[policy]\nschema = \"s\"\npolicies = []\nregistry = \"r\"\n[store]\n{store}"
    );
    Config::parse(&text, Path::new("/etc/vault.toml")).map_err(|error| error.to_string())
}

#[test]
fn the_store_part_is_read_and_every_error_names_its_line() {
    let Store::Postgres(read) = parse(TCP).unwrap().store else { panic!() };
    let PostgresAddress::Tcp { hosts, ca, client } = read.address else { panic!() };
    let named = |host: &str, port| (host.to_owned(), port);
    assert_eq!(hosts, [named("db1.example", 5432), named("10.0.0.2", 6432), named("::1", 5433)]);
    assert_eq!((ca.path.as_path(), client), (Path::new("/etc/ca.pem"), None));
    assert_eq!(read.revocation_lease, Duration::from_secs(10));
    assert!(!read.gateway.is_empty());
    let Store::Postgres(read) = parse(&format!("{TCP}gateway = \"gw-1.shop_a\"\n")).unwrap().store else { panic!() };
    assert_eq!(read.gateway, "gw-1.shop_a");
    let socket = "kind = \"postgres\"\nsocket = \"/run/postgresql\"\ndatabase = \"vault\"\nuser = \"vault\"\n";
    assert!(matches!(parse(socket).unwrap().store, Store::Postgres(read)
        if read.address == PostgresAddress::Socket { dir: "/run/postgresql".into(), port: 5432 }));
    assert!(matches!(parse("path = \"x\"\n").unwrap().store, Store::Embedded(_)));
    assert!(matches!(parse("kind = \"embedded\"\npath = \"x\"\n").unwrap().store, Store::Embedded(_)));
    // The part begins in line 25.
    let table = [
        (TCP, "kind = \"postgres\"", "kind = \"redis\"", 26, "store.kind", "\"embedded\" or \"postgres\""),
        (TCP, "kind = \"postgres\"\n", "", 26, "store", "no key but `path`"),
        (TCP, "ca = \"ca.pem\"\n", "", 25, "store.ca", "certificate authority"),
        (TCP, "ca = \"ca.pem\"", "ca = \"ca.pem\"\nkey = \"k\"", 29, "store", "go together"),
        (TCP, "ca = \"ca.pem\"", "ca = \"ca.pem\"\npath = \"k\"", 29, "store.path", "embedded store"),
        (TCP, "ca = \"ca.pem\"", "ca = \"ca.pem\"\nport = 1", 29, "store.port", "behind it"),
        (TCP, "db1.example", "/run/postgresql", 27, "store.hosts", "a host and a port"),
        (TCP, "db1.example", "db1.example:0", 27, "store.hosts", "a host and a port"),
        (TCP, "db1.example", "db1.example:70000", 27, "store.hosts", "a host and a port"),
        (TCP, "user = \"vault\"", "user = \"\"", 30, "store.user", "must not be empty"),
        (TCP, "database = \"vault\"\n", "", 25, "store.database", "needs one"),
        (
            TCP,
            "user = \"vault\"",
            "user = \"v\"\nrevocation_lease_ms = 999",
            31,
            "store.revocation_lease_ms",
            "1000 to",
        ),
        (
            TCP,
            "user = \"vault\"",
            "user = \"v\"\nrevocation_lease_ms = 60001",
            31,
            "store.revocation_lease_ms",
            "60000",
        ),
        (TCP, "user = \"vault\"", "user = \"v\"\npassword = \"secret\"", 31, "", "unknown field `password`"),
        (TCP, "user = \"vault\"", "user = \"v\"\ngateway = \"gw 1\"", 31, "store.gateway", "1 to 63"),
        ("path = \"x\"\n", "x\"", "x\"\ngateway = \"gw-1\"", 27, "store", "no key but `path`"),
        (socket, "socket = \"/run", "socket = \"run", 27, "store.socket", "absolute path"),
        (socket, "user = \"vault\"", "user = \"v\"\nca = \"ca.pem\"", 30, "store", "TLS belongs to `hosts`"),
        (socket, "socket = \"/run/postgresql\"\n", "", 25, "store.hosts", "either"),
        ("", "", "", 25, "store.path", "needs the path"),
    ];
    for (base, from, to, line, key, why) in table {
        let error = parse(&base.replacen(from, to, 1)).unwrap_err();
        let place = if key.is_empty() { format!("line {line}:") } else { format!("line {line}, {key}:") };
        assert!(error.contains(&place), "{to}: {error} lacks {place}");
        assert!(error.contains(why), "{to}: {error} lacks {why}");
        assert!(!error.contains("secret"));
    }
}

#[test]
fn the_password_is_in_a_file_that_nobody_else_reads() {
    let dir = tempfile::tempdir().unwrap();
    let made = init(&dir.path().join("site"), 0, 0).unwrap();
    let file = made.config.with_file_name("db.password");
    let text = fs::read_to_string(&made.config).unwrap();
    let store = TCP.replace("ca.pem", "certs/server-ca.pem");
    fs::write(&made.config, text.replacen("path = \"data/vault.redb\"\n", &store, 1)).unwrap();
    let check = || check(&Config::load(&made.config).unwrap()).map(drop).map_err(|error| error.to_string());
    assert!(check().unwrap_err().contains("db.password: cannot be read"));
    fs::write(&file, "correct horse\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(check().unwrap_err().contains("must be 0600"));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    check().unwrap();
    fs::write(&file, "\n").unwrap();
    assert!(check().unwrap_err().contains("no password"));
}

/// Makes the key of a policy signer beside the configuration.
fn signer(made: &Made, name: &str) -> LogSigner {
    LogSigner::create(&OsFs, &made.config.with_file_name(name), &format!("policy/{name}")).unwrap()
}

/// A bundle of the configuration's files, in which nobody but for `extra` is permitted more.
fn bundle(
    config: &Config,
    signer: &LogSigner,
    version: u64,
    before: Option<&SignedBundle>,
    extra: &str,
) -> SignedBundle {
    let read = |path: &Path| fs::read_to_string(path).unwrap();
    let baseline =
        PolicyFile { name: "baseline.cedar".into(), text: read(&config.policy.policies.first().unwrap().path) };
    let extra = PolicyFile { name: "extra.cedar".into(), text: extra.into() };
    let bundle = Bundle {
        instance: config.instance.clone(),
        version,
        previous: before.map(|before| before.reference().digest),
        created: SystemClock.now(),
        not_before: SystemClock.now(),
        comment: "test".into(),
        schema: read(&config.policy.schema.path),
        policies: vec![baseline, extra],
        registry: read(&config.policy.registry.path),
    };
    SignedBundle::new(bundle).unwrap().sign(signer).unwrap()
}

/// Alice proposes and asks, bob approves.
async fn activate(made: &Made, at: std::net::SocketAddr, signed: &SignedBundle) {
    let alice = OperatorClient::connect(&endpoint(made, at, "operator-alice")).await.unwrap();
    let id = format!("spiffe://{OPERATOR_DOMAIN}/operator/bob");
    let bob = made.operator_ca.issue(&Leaf::client("bob", &id)).unwrap();
    let bob =
        Endpoint::new(at.to_string(), "localhost", made.server_ca.pem(), bob.certificate.as_str(), bob.key.as_str());
    let bob = OperatorClient::connect(&bob).await.unwrap();
    let document = signed.to_document().unwrap();
    let begun = Instant::now();
    let proposed = loop {
        match alice.propose_policy(&document, "test").await {
            // A busy machine may still be loading the one before.
            Err(error) if error.code() == Code::Unavailable && begun.elapsed() < Duration::from_secs(20) => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            done => break done.unwrap(),
        }
    };
    let asked = alice.activate_policy(&proposed, "test").await.unwrap();
    bob.approve(&asked, None, "test").await.unwrap();
}

const NO_DECRYPT: &str = "@id(\"none\") forbid (principal, action == Vault::Action::\"Decrypt\", resource);";

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_policy_bundle_that_comes_into_force_on_one_gateway_decides_on_the_other_within_a_second() {
    let Some(server) = Server::shared() else { return };
    let (_dir, made) = configure(server);
    let ines = signer(&made, "ines");
    let files = fs::read_to_string(&made.config).unwrap();
    let with = |key: &str| files.replacen("[policy]\n", &format!("[policy]\nsigners = [{key:?}]\n"), 1);
    fs::write(&made.config, with(&ines.verifier().vkey())).unwrap();
    let (a, b) = (start(&made, "a").await, start(&made, "b").await);
    // Two that will not be able to load a bundle: one trusts another signer, one none.
    fs::write(&made.config, with(&signer(&made, "mallory").verifier().vkey())).unwrap();
    let stranger = start(&made, "stranger").await;
    fs::write(&made.config, &files).unwrap();
    let unsigned = start(&made, "unsigned").await;
    let operator = OperatorClient::connect(&endpoint(&made, a.control_addr(), "operator-alice")).await.unwrap();
    operator.create_tenant("acme", None, "test").await.unwrap();
    operator.create_dataset("acme", "customers", "pii", "eu", "test").await.unwrap();
    let of = async |gateway: &Gateway| VaultClient::connect(&endpoint(&made, gateway.data_addr(), "billing")).await;
    let on_b = of(&b).await.unwrap();
    let others = [of(&stranger).await.unwrap(), of(&unsigned).await.unwrap()];
    let target = Target::new("acme", "customers", "billing");
    let sealed = of(&a).await.unwrap().encrypt(&target, b"DE89 3704").await.unwrap();
    for client in [&on_b, &others[0], &others[1]] {
        client.decrypt(&target, sealed.envelope.clone()).await.unwrap();
    }
    let config = Config::load(&made.config).unwrap();
    // How long until it ends like this, and until it first ends otherwise than it did.
    let until = async |client: &VaultClient, wanted: Result<(), Code>| {
        let (begun, mut changed, mut first) = (Instant::now(), None, None);
        loop {
            let result = client.decrypt(&target, sealed.envelope.clone()).await.map(drop).map_err(|e| e.code());
            if *first.get_or_insert(result) != result || result == wanted {
                changed.get_or_insert_with(|| begun.elapsed());
            }
            if result == wanted {
                return (changed.unwrap(), begun.elapsed());
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "still {result:?}, not {wanted:?}");
        }
    };
    let mut last: Option<SignedBundle> = None;
    let (mut left, mut took) = (Vec::new(), Vec::new());
    for version in 1..=6 {
        let forbids = version % 2 == 1;
        let next = bundle(&config, &ines, version, last.as_ref(), if forbids { NO_DECRYPT } else { "" });
        activate(&made, a.control_addr(), &next).await;
        let (changed, done) = until(&on_b, if forbids { Err(Code::PermissionDenied) } else { Ok(()) }).await;
        left.push(changed);
        took.push(done);
        // The policies decide a moment before the gateway says by which bundle.
        let decided = Instant::now();
        while b.vault().policy_bundle() != Some(next.reference()) {
            assert!(decided.elapsed() < Duration::from_secs(5), "version {version}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        last = Some(next);
        if version == 1 {
            for (client, gateway) in others.iter().zip([&stranger, &unsigned]) {
                let (_, done) = until(client, Err(Code::Unavailable)).await;
                println!("measured: a gateway that could not load it refused everything after {done:?}");
                assert!(gateway.vault().policies_ready().is_err());
            }
        }
    }
    println!(
        "measured: the other gateway left the old policies after {left:?}, decided by the new ones after {took:?}"
    );
    // On a machine that takes longer to load them, it refuses everything meanwhile.
    assert!(left.iter().all(|left| *left < Duration::from_secs(1)), "{left:?}");
    for gateway in [a, b, stranger, unsigned] {
        gateway.shutdown().await.unwrap();
    }
    // Neither begins again; those that trust the signer do, with the bundle.
    for name in ["stranger", "unsigned"] {
        let config = made.config.with_file_name(format!("{name}.toml"));
        assert!(Gateway::start(Config::load(&config).unwrap()).await.is_err(), "{name}");
    }
    let config = made.config.with_file_name("b.toml");
    let b = Gateway::start(Config::load(&config).unwrap()).await.unwrap();
    assert_eq!(b.vault().policy_bundle(), last.map(|last| last.reference()));
    b.shutdown().await.unwrap();
}
