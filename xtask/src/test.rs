//! `test`: every test of every crate, and a summary that hides no skip.

use std::process::Command;
use std::time::Duration;

use crate::prerequisites;
use crate::run::{FEATURES, cargo, is_ci, run_lines_within, shown};
use crate::say;
use crate::summary::{Run, Summary};

/// What release builds are tested with: what the benches are built with.
const DEV: &str = "vault-core/dev";
/// How often the gateway, or its database, is killed at random in `--long`, on each store.
const LONG_KILL_CYCLES: &str = "500";
/// How often keys are rotated under load in `--long`.
const LONG_ROTATIONS: &str = "400";
/// How long a stream is in `--long`, in MiB.
const LONG_STREAM_MIB: &str = "4096";
/// How many random decisions are compared in `--long`: with the model, and with Cedar on the whole set, which takes ten
/// times as long for each.
const LONG_DECISIONS: [(&str, &str); 2] =
    [("agrees_with_an_independent_model", "3000000"), ("agrees_with_cedar_on_the_whole_set", "1000000")];
/// How long CI lets one run of tests take, its build included: a test that hangs must not take CI's time from the rest.
/// On a terminal a person decides.
const LIMIT: Duration = Duration::from_secs(45 * 60);

/// Runs them; whether all passed.
pub(crate) fn test(long: bool) -> bool {
    say::heading("prerequisites");
    let python = prerequisites::python();
    match &python {
        Ok(python) => say::line(format_args!("python: {}", python.display())),
        Err(reason) => say::line(format_args!("python: MISSING: {reason}")),
    }
    let localstack = prerequisites::localstack();
    match &localstack {
        Ok(python) => say::line(format_args!("LocalStack: {}", python.display())),
        Err(reason) => say::line(format_args!("LocalStack: MISSING: {reason}")),
    }
    let provider = prerequisites::identity_provider();
    match &provider {
        Ok(modules) => say::line(format_args!("identity provider: {}", modules.display())),
        Err(reason) => say::line(format_args!("identity provider: MISSING: {reason}")),
    }
    let release = prerequisites::release();
    match &release {
        Ok(program) => say::line(format_args!("release: {}", program.display())),
        Err(reason) => say::line(format_args!("release: MISSING: {reason}")),
    }
    if let Err(reason) = prerequisites::strace() {
        say::line(format_args!("strace: MISSING: {reason}"));
    }
    if let Err(reason) = prerequisites::gdb() {
        say::line(format_args!("gdb: MISSING: {reason}"));
    }
    if let Err(reason) = prerequisites::softhsm() {
        say::line(format_args!("SoftHSM: MISSING: {reason}"));
    }
    if let Err(reason) = prerequisites::postgres() {
        say::line(format_args!("postgresql: MISSING: {reason}"));
    }
    for (name, installed) in [
        ("minisign", prerequisites::minisign()),
        ("promtool", prerequisites::promtool()),
        ("rsyslog", prerequisites::rsyslog()),
    ] {
        if let Err(reason) = installed {
            say::line(format_args!("{name}: MISSING: {reason}"));
        }
    }
    let mut summary = Summary::default();
    let mut add = |title: &str, mut command: Command| {
        say::heading(title);
        for (name, found) in [
            ("BLINDVAULT_PYTHON", &python),
            ("BLINDVAULT_LOCALSTACK_PYTHON", &localstack),
            ("BLINDVAULT_IDENTITY_PROVIDER", &provider),
            ("BLINDVAULT_RELEASE", &release),
        ] {
            match found {
                Ok(path) => command.env(name, path),
                Err(_) => command.env_remove(name),
            };
        }
        if is_ci() {
            command.env("BLINDVAULT_REQUIRE", "1");
        }
        let mut run = Run::default();
        let good = run_lines_within(&mut command, is_ci().then_some(LIMIT), |line| {
            if run.line(line) {
                say::line(line);
            }
        });
        summary.add(run.end(&shown(&command), good));
    };
    let shown_output = ["--", "--show-output"];
    let with = |args: &[&str]| cargo(&[args, &shown_output].concat());
    add(
        "all crates, and the examples in their documentation",
        with(&["test", "--workspace", "--features", FEATURES, "--no-fail-fast"]),
    );
    // Only a release build keeps this promise. With the whole workspace selected, as for the benches: cargo then builds
    // the dependencies once for both.
    let of_release = ["--test", "memory_scan", "--test", "allocations", "--test", "syscalls"];
    add(
        "process memory, allocations and system calls of a release build",
        with(&[&["test", "--release", "--workspace", "--features", DEV], &of_release[..]].concat()),
    );
    if long {
        let lib = ["test", "--release", "-p", "vault-core", "--features", "dev", "--lib", "accumulated"];
        let mut vectors = with(&lib);
        vectors.env("BLINDVAULT_LONG", "1");
        add("accumulated vectors", vectors);
        for (name, cases) in LONG_DECISIONS {
            let mut decisions = with(&["test", "--release", "-p", "vault-core", "--features", "dev", "--lib", name]);
            decisions.env("VAULT_TEST_CASES", cases);
            add("decisions", decisions);
        }
        let mut kills = with(&["test", "--release", "-p", "vault-grpc", "--features", "postgres", "--test", "kill9"]);
        kills.env("BLINDVAULT_KILL_CYCLES", LONG_KILL_CYCLES);
        add("kill -9", kills);
        let mut storm =
            with(&["test", "--release", "-p", "vault-grpc", "--features", FEATURES, "--test", "rotation_storm"]);
        storm.env("BLINDVAULT_ROTATIONS", LONG_ROTATIONS);
        add("rotation storm", storm);
        let mut streams =
            with(&["test", "--release", "-p", "vault-grpc", "--features", FEATURES, "--test", "stream_memory"]);
        streams.env("BLINDVAULT_STREAM_MIB", LONG_STREAM_MIB);
        add("memory of a long stream", streams);
    }
    say::heading("tests");
    say::line(&summary);
    summary.is_good()
}
