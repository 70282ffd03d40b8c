//! Gateways on one database that prove policy bundles themselves: each proves what it decides by.
#![cfg(all(feature = "dev", feature = "postgres", feature = "prove"))]
#![expect(clippy::print_stdout, reason = "tests, which say what they measured")]
#![expect(clippy::disallowed_macros, reason = "a test says that it is skipped")]

#[path = "common/pg_site.rs"]
mod pg_site;
#[path = "../../vault-core/tests/common/postgres.rs"]
mod postgres;
#[path = "../../vault-core/tests/common/solver.rs"]
mod solver;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use pg_site::{alice, billing, bob, configure, configured};
use postgres::Server;
use vault_client::{Code, Limits, Target};
use vault_core::audit::LogSigner;
use vault_core::bundle::{Bundle, PolicyFile, SignedBundle};
use vault_core::fs::OsFs;
use vault_core::time::{Clock as _, SystemClock};
use vault_grpc::Gateway;
use vault_grpc::config::Config;

/// Longer than a proof takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_bundle_decides_on_the_gateways_that_prove_it_and_nothing_on_one_that_cannot() {
    let name = "a_bundle_decides_on_the_gateways_that_prove_it_and_nothing_on_one_that_cannot";
    let (Some(server), Some(command)) = (Server::shared(), solver::solver(name)) else { return };
    vault_grpc::prover::set_program(env!("CARGO_BIN_EXE_vault-grpc").into());
    let (_dir, made) = configure(server);
    let ines = LogSigner::create(&OsFs, &made.config.with_file_name("ines"), "policy/ines").unwrap();
    let program = command.program.to_str().unwrap();
    let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output().unwrap();
    let program = String::from_utf8(found.stdout).unwrap();
    let arguments: Vec<_> = command.arguments.iter().map(|argument| argument.to_str().unwrap()).collect();
    let real = format!("exec '{}' {} \"$@\"\n", program.trim(), arguments.join(" "));
    let script = |name: &str, text: &str| fs::write(made.config.with_file_name(name), text).unwrap();
    script("real.sh", &real);
    script("other.sh", &real);
    let text = fs::read_to_string(&made.config).unwrap();
    let with = |solver: &str| {
        let solver = made.config.with_file_name(solver);
        let policy = format!(
            "[policy]\nsigners = [{:?}]\nproof = \"required\"\n\
             prove = {{ solver = \"/bin/sh\", arguments = [{solver:?}], timeout_ms = 60000 }}\n",
            ines.verifier().vkey(),
        );
        let limits = "\n[limits]\ncall_timeout_ms = 60000\n";
        fs::write(&made.config, text.replacen("[policy]\n", &policy, 1) + limits).unwrap();
    };
    let start = async |name: &str, solver: &str| {
        with(solver);
        Gateway::start(Config::load(&configured(&made, name)).unwrap()).await.unwrap()
    };
    let (a, b) = (start("a", "real.sh").await, start("b", "real.sh").await);
    let c = start("c", "other.sh").await;
    script("other.sh", "exit 1\n");
    let patient = Limits { deadline: PATIENCE, ..Limits::default() };
    let alice = alice(&made, a.control_addr()).await.with_limits(patient);
    let bob = bob(&made, a.control_addr()).await.with_limits(patient);
    alice.create_tenant("acme", None, "test").await.unwrap();
    alice.create_dataset("acme", "customers", "", "", "test").await.unwrap();
    let (on_b, on_c) = (billing(&made, b.data_addr()).await, billing(&made, c.data_addr()).await);
    let target = Target::new("acme", "customers", "billing");
    on_c.encrypt(&target, b"x").await.unwrap();

    let config = Config::load(&made.config).unwrap();
    let read = |path: &Path| fs::read_to_string(path).unwrap();
    let file = |name: &str, text: String| PolicyFile { name: name.into(), text };
    let bundle = Bundle {
        instance: config.instance.clone(),
        version: 1,
        previous: None,
        created: SystemClock.now(),
        not_before: SystemClock.now(),
        comment: "test".into(),
        schema: read(&config.policy.schema.path),
        policies: vec![
            file("baseline.cedar", read(&config.policy.policies.first().unwrap().path)),
            file(
                "extra.cedar",
                "@id(\"no\") forbid (principal, action == Vault::Action::\"Encrypt\", resource);".into(),
            ),
        ],
        registry: read(&config.policy.registry.path),
    };
    let signed = SignedBundle::new(bundle).unwrap().sign(&ines).unwrap();
    let proposed = alice.propose_policy(&signed.to_document().unwrap(), "test").await.unwrap();
    let asked = alice.activate_policy(&proposed, "test").await.unwrap();
    on_b.encrypt(&target, b"x").await.unwrap();
    // Other gateways prove it meanwhile.
    tokio::time::sleep(Duration::from_secs(5)).await;
    bob.approve(&asked, None, "test").await.unwrap();
    let until = async |client: &vault_client::VaultClient, wanted: Code| {
        let begun = Instant::now();
        loop {
            let code = client.encrypt(&target, b"x").await.err().map(|error| error.code());
            if code == Some(wanted) {
                return begun.elapsed();
            }
            assert!(begun.elapsed() < PATIENCE, "still {code:?}, not {wanted:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let took = until(&on_b, Code::PermissionDenied).await;
    println!("measured: a gateway that had proved the bundle while it waited decided by it after {took:?}");
    let took = until(&on_c, Code::Unavailable).await;
    println!("measured: a gateway that could not prove it refused everything after {took:?}");
    assert_eq!(c.vault().policy_bundle(), None);
    // With a solver it proves it, and goes on.
    script("other.sh", &real);
    until(&on_c, Code::PermissionDenied).await;
    assert_eq!(c.vault().policy_bundle().map(|bundle| bundle.version), Some(1));
    for gateway in [a, b, c] {
        gateway.shutdown().await.unwrap();
    }
}
