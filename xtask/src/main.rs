//! What a person types, and what CI runs: `cargo xtask test | lint | fuzz | bench | dist | ci`.
//!
//! Every step runs the same commands by hand and in CI. A step that cannot do its work fails; nothing is passed over.

mod bench;
mod ci;
mod dist;
mod fuzz;
mod guards;
mod lint;
mod prerequisites;
mod run;
mod say;
mod secrets;
mod shipped;
mod summary;
mod test;

use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "\
cargo xtask test [--long]        every test; --long adds the million vectors and 500 kills on each store
cargo xtask lint                 formatting, clippy, documentation, buf, secrets, what a release holds, the systemd unit
cargo xtask fuzz [--seconds N]   every fuzz target, N seconds each (default 5)
cargo xtask fuzz --minutes N     a campaign: goes on after an interruption, minimizes what it found, and reports
                                 both take --jobs N (targets at a time, default 2) and --target NAME
cargo xtask bench [--smoke]      the benches; --smoke runs each once, without measuring
cargo xtask guards [PART]        takes guards (those with PART in their names) out one at a time, and sees a test fail for each
cargo xtask dist [--sign KEY]    the production build, made twice and compared; bill of materials, digests, signature
cargo xtask dist --smoke         the same without optimizing, which takes a part of the time and is not to be shipped
cargo xtask ci                   all of it but the guards, and the demo";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let good = match args.as_slice() {
        ["test"] => test::test(false),
        ["test", "--long"] => test::test(true),
        ["lint"] => lint::lint(),
        ["fuzz", options @ ..] => match fuzz::Options::parse(options) {
            Some(options) => fuzz::fuzz(&options),
            None => return usage(),
        },
        ["bench"] => bench::bench(false),
        ["bench", "--smoke"] => bench::bench(true),
        ["guards"] => guards::guards(""),
        ["guards", part] => guards::guards(part),
        ["dist"] => dist::dist(dist::Mode::Ship(None)),
        ["dist", "--sign", key] => dist::dist(dist::Mode::Ship(Some(Path::new(key)))),
        ["dist", "--smoke"] => dist::dist(dist::Mode::Smoke),
        ["ci"] => ci::ci(),
        _ => return usage(),
    };
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn usage() -> ExitCode {
    say::line(USAGE);
    ExitCode::from(2)
}
