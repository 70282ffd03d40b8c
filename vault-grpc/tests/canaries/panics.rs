//! A panic says where it happened, and never what it says.

use std::process::{Command, Stdio};
use std::{env, panic, thread};

use vault_grpc::telemetry::{quiet_panics, set_json};

use super::forms::Needles;

const CHILD: &str = "BLINDVAULT_PANICS";
const CANARY: &str = "Panic-canary-3f9e02d7b5a1";

/// The ways in which a message gets into a panic.
fn all_ways() {
    let ways: [fn(); 5] = [
        || panic!("{CANARY}"),
        || panic!("at {} in {:?}", 1, CANARY.as_bytes()),
        || "x".parse::<u8>().map_err(|_| CANARY).unwrap_or_else(|error| panic!("{error:?}")).to_string().clear(),
        || assert_eq!(CANARY, "something else"),
        || panic::panic_any(CANARY.to_owned()),
    ];
    for way in ways {
        panic::catch_unwind(way).unwrap_err();
        thread::spawn(way).join().unwrap_err();
    }
}

#[test]
fn a_panic_tells_its_place_and_never_its_message() {
    if let Ok(how) = env::var(CHILD) {
        if how != "control" {
            quiet_panics();
            set_json(how == "json");
        }
        return all_ways();
    }
    let run = |how: &str| {
        let name = "panics::a_panic_tells_its_place_and_never_its_message";
        let out = Command::new(env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture", "--test-threads=1"])
            .env(CHILD, how)
            .env("RUST_BACKTRACE", "full")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(out.status.success(), "{how}");
        [out.stdout, out.stderr].concat()
    };
    let needles = Needles::new([("message", CANARY.as_bytes())]);
    for how in ["text", "json"] {
        let said = run(how);
        assert!(needles.found(&said).is_empty(), "{how}: {:?}", needles.found(&said));
        let said = String::from_utf8(said).unwrap();
        assert_eq!(
            said.lines().filter(|line| line.contains("panics.rs") && line.contains("panic")).count(),
            10,
            "{said}"
        );
    }
    // The control: without the hook all of it is there.
    assert!(needles.found(&run("control")).len() >= 2);
}
