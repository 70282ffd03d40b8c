//! `bench`: the criterion suites.

use crate::run::{FEATURES, cargo, run, run_lines};
use crate::say;

/// Every bench target, with the same dependencies as the release tests.
const ALL: [&str; 6] = ["bench", "--workspace", "--features", FEATURES, "--bench", "*"];

/// Measures, or with `smoke` only runs each bench once; whether all ran. No bench at all is a failure.
pub(crate) fn bench(smoke: bool) -> bool {
    say::heading("benches");
    if !smoke {
        return run(&mut cargo(&ALL));
    }
    let mut ran = 0;
    let good = run_lines(cargo(&ALL).args(["--", "--test"]), |line| {
        if line.starts_with("Testing ") {
            ran += 1;
        }
        if !line.is_empty() {
            say::line(line);
        }
    });
    if ran == 0 {
        say::line("FAILED: no bench ran");
    }
    say::line(format_args!("{ran} benches"));
    good && ran > 0
}
