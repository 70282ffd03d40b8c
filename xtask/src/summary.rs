//! What the test programs said, from the lines that they print.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// What one run of `cargo test` said.
#[derive(Debug, Default)]
pub(crate) struct Run {
    passed: BTreeSet<String>,
    failed: BTreeSet<String>,
    skipped: BTreeMap<String, String>,
    passed_count: usize,
    failed_count: usize,
    /// Tests that passed only in that they said why they did nothing.
    said_skipped: usize,
    ignored_count: usize,
    in_successes: bool,
}

impl Run {
    /// Takes a line in; whether a person should see it. What passing tests print is not shown, but for what
    /// they measured.
    pub(crate) fn line(&mut self, line: &str) -> bool {
        if let Some(said) = line.strip_prefix("SKIPPED ") {
            let (name, reason) = said.split_once(": ").unwrap_or((said, "no reason given"));
            if self.skipped.insert(name.to_owned(), reason.to_owned()).is_none() {
                self.said_skipped += 1;
            }
            return true;
        }
        // What a test measured is shown although it passed.
        if line.starts_with("measured: ") {
            return true;
        }
        if line == "successes:" {
            self.in_successes = true;
        }
        if line == "failures:" {
            self.in_successes = false;
        }
        if let Some(result) = line.strip_prefix("test result: ") {
            self.in_successes = false;
            self.passed_count += count(result, "passed");
            self.failed_count += count(result, "failed");
            self.ignored_count += count(result, "ignored");
            return true;
        }
        if let Some((name, outcome)) = line.strip_prefix("test ").and_then(|rest| rest.rsplit_once(" ... ")) {
            match outcome {
                "ok" => {
                    self.passed.insert(name.to_owned());
                    return false;
                }
                "FAILED" => {
                    self.failed.insert(name.to_owned());
                }
                _ => {
                    if let Some(reason) = outcome.strip_prefix("ignored") {
                        let reason = reason.strip_prefix(", ").unwrap_or("no reason given");
                        self.skipped.insert(name.to_owned(), reason.to_owned());
                    }
                }
            }
        }
        !self.in_successes && !line.is_empty() && !line.starts_with("running ")
    }

    /// Ends the run. A program that ended badly without naming a failed test, and a run without any test, are failures
    /// of their own.
    pub(crate) fn end(mut self, command: &str, good: bool) -> Self {
        if !good && self.failed_count == 0 {
            self.failed_count = 1;
            self.failed.insert(format!("{command}: ended badly without naming a test"));
        }
        if good && self.passed_count == 0 {
            self.failed_count += 1;
            self.failed.insert(format!("{command}: ran no test"));
        }
        self
    }
}

fn count(result: &str, what: &str) -> usize {
    let counts = result.split(['.', ';']);
    counts.filter_map(|part| part.trim().strip_suffix(what)?.trim().parse::<usize>().ok()).sum()
}

/// The last part of a test's path.
fn short(name: &str) -> &str {
    name.rsplit("::").next().unwrap_or(name)
}

/// Several runs together. A test that one run skipped and a later one passed is not skipped.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    passed: usize,
    failed: usize,
    failures: Vec<String>,
    skipped: BTreeMap<String, String>,
}

impl Summary {
    /// Adds a run, later than those before.
    pub(crate) fn add(&mut self, run: Run) {
        for name in run.passed.iter().filter(|name| !run.skipped.contains_key(short(name))) {
            self.skipped.retain(|skipped, _| short(skipped) != short(name));
        }
        self.passed += run.passed_count.saturating_sub(run.said_skipped);
        self.failed += run.failed_count;
        self.failures.extend(run.failed);
        self.skipped.extend(run.skipped);
    }

    /// Whether nothing failed.
    pub(crate) const fn is_good(&self) -> bool {
        self.failed == 0
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for failure in &self.failures {
            writeln!(f, "failed   {failure}")?;
        }
        for (name, reason) in &self.skipped {
            writeln!(f, "skipped  {name}: {reason}")?;
        }
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(lines: &[&str], good: bool) -> Run {
        let mut run = Run::default();
        for line in lines {
            run.line(line);
        }
        run.end("cargo test", good)
    }

    const FIRST: [&str; 9] = [
        "running 5 tests",
        "test a::one ... ok",
        "test a::two - should panic ... ok",
        "test slow ... ignored, the promise is one of release builds",
        "test b::python ... ok",
        "successes:",
        "---- b::python stdout ----",
        "SKIPPED python: the package is needed",
        "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.00s",
    ];

    #[test]
    fn skips_are_counted_with_their_reasons_and_not_as_passed() {
        let mut summary = Summary::default();
        summary.add(run(&FIRST, true));
        let text = summary.to_string();
        assert!(text.contains("skipped  slow: the promise is one of release builds"), "{text}");
        assert!(text.contains("skipped  python: the package is needed"), "{text}");
        assert!(text.ends_with("2 passed, 0 failed, 2 skipped"), "{text}");
    }

    #[test]
    fn a_later_run_takes_the_skip_away_and_only_that() {
        let mut summary = Summary::default();
        summary.add(run(&FIRST, true));
        summary.add(run(&["test slow ... ok", "test result: ok. 1 passed; 0 failed; 0 ignored"], true));
        assert!(summary.to_string().ends_with("3 passed, 0 failed, 1 skipped"), "{summary}");
    }

    #[test]
    fn failures_of_every_kind_count() {
        let failed = ["test a ... FAILED", "failures:", "test result: FAILED. 0 passed; 1 failed; 0 ignored"];
        for (lines, good) in [(&failed[..], false), (&[], false), (&[], true)] {
            let mut summary = Summary::default();
            summary.add(run(lines, good));
            assert!(!summary.is_good());
            assert!(summary.to_string().ends_with("0 passed, 1 failed, 0 skipped"), "{summary}");
        }
    }

    #[test]
    fn what_passing_tests_print_is_hidden_and_what_failing_ones_print_is_not() {
        let mut run = Run::default();
        let shown: Vec<_> = ["successes:", "noise", "measured: 3 kills", "failures:", "cause", "test a ... ok"]
            .into_iter()
            .filter(|l| run.line(l))
            .collect();
        assert_eq!(shown, ["measured: 3 kills", "failures:", "cause"]);
    }
}
