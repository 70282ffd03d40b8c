//! `lint`: formatting, clippy, documentation, protocol, secrets, and what is shipped.

use crate::prerequisites;
use crate::run::{FEATURES, cargo, program, root, run};
use crate::{say, secrets, shipped};

/// Runs all of them, whether or not one before failed; whether all are clean.
pub(crate) fn lint() -> bool {
    say::heading("formatting");
    let mut good = run(&mut cargo(&["fmt", "--all", "--", "--check"]));
    say::heading("clippy");
    good &=
        run(&mut cargo(&["clippy", "--workspace", "--all-targets", "--features", FEATURES, "--", "-D", "warnings"]));
    say::heading("clippy, as releases are built");
    let release = ["clippy", "-p", "vault-grpc", "--no-default-features"];
    for features in ["", "aws,postgres", "pkcs11"] {
        let all = [&release[..], &["--features", features, "--", "-D", "warnings"]].concat();
        good &= run(&mut cargo(&all));
    }
    say::heading("documentation");
    let mut doc = cargo(&["doc", "--workspace", "--no-deps", "--features", FEATURES]);
    good &= run(doc.env("RUSTDOCFLAGS", "-D warnings"));
    say::heading("protocol");
    match prerequisites::buf() {
        Ok(buf) => good &= run(program(buf).arg("lint").current_dir(root().join("proto"))),
        Err(reason) => {
            say::line(format_args!("FAILED: {reason}"));
            good = false;
        }
    }
    say::heading("secrets");
    good &= secrets::scan();
    say::heading("what a release holds");
    good &= shipped::release();
    say::heading("systemd unit");
    good &= shipped::unit();
    good
}
