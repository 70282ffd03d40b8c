//! What the demo tells: a table for people, or one JSON document.

use std::future::Future;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::json;

use super::super::print;

struct Step {
    what: String,
    held: bool,
    came_of_it: String,
    took: Duration,
}

/// The steps so far.
pub(super) struct Report {
    json: bool,
    steps: Vec<Step>,
    started: Instant,
    last: Duration,
    ended: bool,
}

impl Report {
    pub(super) fn new(json: bool) -> Self {
        if !json {
            print::line("Blindvault demo: everything below was just done by real clients over mutual TLS.\n");
        }
        Self { json, steps: Vec::new(), started: Instant::now(), last: Duration::ZERO, ended: false }
    }

    /// Times what the next step reports.
    pub(super) async fn time<T>(&mut self, work: impl Future<Output = T>) -> T {
        let start = Instant::now();
        let done = work.await;
        self.last = start.elapsed();
        done
    }

    /// A step that was tried: what, whether it came out as it must, and how.
    pub(super) fn step(&mut self, what: impl Into<String>, held: bool, came_of_it: impl Into<String>) {
        let step = Step { what: what.into(), held, came_of_it: came_of_it.into(), took: self.last };
        if !self.json {
            let tick = if step.held { "✓" } else { "✗" };
            print::line(format_args!("{tick} {:<86} {:>9}", step.what, millis(step.took)));
            print::line(format_args!("    {}", step.came_of_it));
        }
        self.last = Duration::ZERO;
        self.steps.push(step);
    }

    /// The demo could not go on.
    pub(super) fn broken(&mut self, why: &str) {
        self.step("the demo could not go on", false, why);
    }

    fn held(&self) -> bool {
        !self.steps.is_empty() && self.steps.iter().all(|step| step.held)
    }

    /// Ends the table, or prints the JSON; once.
    pub(super) fn finish_table(&mut self) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let held = self.steps.iter().filter(|step| step.held).count();
        if self.json {
            let steps: Vec<_> = self
                .steps
                .iter()
                .map(|s| json!({"step": s.what, "held": s.held, "result": s.came_of_it, "ms": s.took.as_secs_f64() * 1e3}))
                .collect();
            let ms = self.started.elapsed().as_secs_f64() * 1e3;
            print::line(json!({"held": self.held(), "steps": steps, "ms": ms}));
        } else {
            let all = self.steps.len();
            print::line(format_args!("\n{held} of {all} held, in {}.", millis(self.started.elapsed())));
        }
    }

    /// 0 only if every step held.
    pub(super) fn finish(mut self) -> ExitCode {
        self.finish_table();
        if self.held() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

fn millis(took: Duration) -> String {
    format!("{:.1} ms", took.as_secs_f64() * 1e3)
}
