//! `ci`: every step, each timed; one that fails does not keep the others from running.

use std::time::Instant;

use crate::run::{cargo, run};
use crate::{bench, fuzz, lint, say, test};

fn demo() -> bool {
    say::heading("demo");
    run(&mut cargo(&["run", "--release", "--", "demo"]))
}

/// Runs them; whether all are good.
pub(crate) fn ci() -> bool {
    type Step = fn() -> bool;
    let steps: [(&str, Step); 5] = [
        ("test", || test::test(false)),
        ("lint", lint::lint),
        ("fuzz", || fuzz::fuzz(&fuzz::Options::smoke())),
        ("bench", || bench::bench(true)),
        ("demo", demo),
    ];
    let mut report = Vec::new();
    let mut good = true;
    for (name, step) in steps {
        let begun = Instant::now();
        let passed = step();
        good &= passed;
        let outcome = if passed { "ok" } else { "FAILED" };
        report.push(format!("{name:<6} {outcome:<6} {:>5} s", begun.elapsed().as_secs()));
    }
    say::heading("ci");
    for line in report {
        say::line(line);
    }
    good
}
