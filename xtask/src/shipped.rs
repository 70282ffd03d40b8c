//! What is shipped: that a release has nothing of development in it, and that its systemd unit is as tight as stated.

use std::collections::BTreeSet;

use crate::run::{cargo, program, works};
use crate::say;

/// What releases are built with.
const RELEASE: [&str; 3] = ["--no-default-features", "--features", "aws,postgres"];
/// Crates that only development needs: certificates, solvers, proofs.
const DEVELOPMENT: [&str; 3] = ["cedar-policy-symcc", "csv", "rcgen"];
/// The exposure that docs/operations.md states, as `systemd-analyze security` counts it: 0 is best, 10 worst.
const EXPOSURE: f64 = 1.1;
const UNIT: &str = "deploy/systemd/vault-grpc.service";

/// Crates of the gateway with the features that they are built with.
fn tree(features: &[&str]) -> Option<BTreeSet<(String, String)>> {
    let base = ["tree", "-p", "vault-grpc", "-e", "normal", "--prefix", "none", "-f", "{lib}\t{f}"];
    let out = cargo(&[&base[..], features].concat()).output().ok().filter(|out| out.status.success())?;
    let line = |line: &str| {
        let (name, features) = line.split_once('\t')?;
        Some((name.replace('_', "-"), features.trim_end_matches(" (*)").to_owned()))
    };
    Some(String::from_utf8(out.stdout).ok()?.lines().filter_map(line).collect())
}

/// What of development is in a tree.
fn development(tree: &BTreeSet<(String, String)>) -> Vec<String> {
    let ours = |name: &str| name.starts_with("vault-");
    let is_meant = |features: &str| features.split(',').any(|feature| matches!(feature, "dev" | "prove" | "default"));
    let found = tree.iter().filter(|(name, features)| {
        DEVELOPMENT.contains(&name.as_str()) || (ours(name) && name != "vault-proto" && is_meant(features))
    });
    found.map(|(name, features)| format!("{name} [{features}]")).collect()
}

/// A release has neither the local root key nor the demo nor what only they need: they are behind features, and none of
/// these is on. Needs no build. That the program then really refuses them is a test of `vault-grpc`.
pub(crate) fn release() -> bool {
    let (Some(release), Some(default)) = (tree(&RELEASE), tree(&[])) else {
        say::line("FAILED: cargo tree did not answer");
        return false;
    };
    let found = development(&release);
    for what in &found {
        say::line(format_args!("FAILED: a release has {what} in it"));
    }
    // The control: the default build has all of it, so that it would be seen.
    let seen = development(&default).len();
    if seen <= DEVELOPMENT.len() {
        say::line(format_args!("FAILED: only {seen} parts of development are seen in a development build"));
        return false;
    }
    if found.is_empty() {
        say::line(format_args!("a release: {} crates, none of the {seen} parts of development", release.len()));
    }
    found.is_empty()
}

/// The unit has no line that systemd does not know, and the exposure is at most what is stated.
pub(crate) fn unit() -> bool {
    let analyze = || program("systemd-analyze");
    if !works(analyze().arg("--version")) {
        say::line(format_args!("SKIPPED {UNIT}: there is no systemd-analyze"));
        return true;
    }
    let Ok(out) = analyze().args(["security", "--offline=true", "--no-pager", UNIT]).output() else {
        say::line("FAILED: systemd-analyze did not run");
        return false;
    };
    let text = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    let odd = text.lines().filter(|line| line.contains("ignoring") || line.contains("Unknown"));
    let odd = odd.inspect(|line| say::line(format_args!("FAILED: {line}"))).count();
    let rest = text.split("Overall exposure level").nth(1).and_then(|rest| rest.split(": ").nth(1));
    let level: Option<f64> = rest.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    match level {
        Some(level) if level <= EXPOSURE => {
            say::line(format_args!("{UNIT}: exposure {level}, at most {EXPOSURE}"));
            odd == 0
        }
        Some(level) => {
            say::line(format_args!("FAILED: {UNIT}: exposure {level}, stated is {EXPOSURE}"));
            false
        }
        None => {
            say::line(format_args!("FAILED: {UNIT}: systemd-analyze said no level"));
            false
        }
    }
}
