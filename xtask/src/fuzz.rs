//! `fuzz`: each target of `fuzz/` for some seconds.

use std::fs;
use std::process::Command;

use crate::prerequisites;
use crate::run::{cargo, root, run, run_lines, target};
use crate::say;

/// How long CI runs each target.
pub(crate) const SMOKE_SECONDS: u32 = 20;
/// An input that takes longer, in seconds, counts as a failure.
const INPUT_SECONDS: u32 = 10;

/// cargo-fuzz needs the sanitizers, which a stable compiler has but only offers with this set.
fn cargo_fuzz(args: &[&str]) -> Command {
    let mut command = cargo(args);
    command.env("RUSTC_BOOTSTRAP", "1");
    command
}

fn failed(reason: impl std::fmt::Display) -> bool {
    say::line(format_args!("FAILED: {reason}"));
    false
}

/// Runs every target, whether or not one before failed; whether all held.
pub(crate) fn fuzz(seconds: u32) -> bool {
    say::heading("fuzzing");
    if !root().join("fuzz/Cargo.toml").exists() {
        return failed("there is no fuzz/Cargo.toml, so there is nothing to fuzz");
    }
    if let Err(reason) = prerequisites::fuzzing() {
        return failed(reason);
    }
    let mut targets = Vec::new();
    let listed = run_lines(&mut cargo_fuzz(&["fuzz", "list"]), |line| targets.push(line.trim().to_owned()));
    targets.retain(|name| !name.is_empty());
    if !listed || targets.is_empty() {
        return failed("cargo fuzz lists no target");
    }
    let dir = target().join("fuzz");
    if !run(cargo_fuzz(&["fuzz", "build", "--target-dir"]).arg(&dir)) {
        return false;
    }
    let mut good = true;
    for name in &targets {
        say::heading(format_args!("fuzzing {name}, {seconds} s"));
        // What is found goes to the first directory; the committed seeds are only read.
        let found = dir.join("corpus").join(name);
        let seeds = root().join("fuzz/corpus").join(name);
        if !seeds.is_dir() {
            good = failed(format_args!("{name} has no seeds in fuzz/corpus/{name}"));
            continue;
        }
        if let Err(error) = fs::create_dir_all(&found) {
            good = failed(format_args!("{}: {error}", found.display()));
            continue;
        }
        let mut command = cargo_fuzz(&["fuzz", "run", "--target-dir"]);
        command.arg(&dir).arg(name).arg(&found).arg(&seeds).arg("--");
        command.args([format!("-max_total_time={seconds}"), format!("-timeout={INPUT_SECONDS}")]);
        good &= run(command.args(["-print_final_stats=1", "-verbosity=0"]));
    }
    say::line(format_args!("{} fuzz targets", targets.len()));
    good
}
