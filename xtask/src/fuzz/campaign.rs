//! All targets in turn, some at a time; a campaign goes on where it was interrupted.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::{fs, io};

use super::engine::Target;
use super::report::{Figures, State, table};
use super::{Options, dir};
use crate::say;

/// A campaign is kept after so many seconds of a target: more is not lost by an interruption.
const SLICE: u64 = 60;

fn state_file() -> PathBuf {
    dir().join("campaign.json")
}

fn report_file() -> PathBuf {
    dir().join("report.json")
}

fn written(path: &Path, text: &str) -> Result<(), String> {
    let aside = path.with_extension("new");
    let failed = |error: io::Error| format!("{}: {error}", path.display());
    fs::write(&aside, text).and_then(|()| fs::rename(&aside, path)).map_err(failed)
}

struct Shared {
    state: Mutex<State>,
    /// Targets that did not hold, or could not be run, and why.
    failed: Mutex<Vec<String>>,
    queue: Mutex<VecDeque<String>>,
}

fn lock<T>(of: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn next(&self) -> Option<String> {
        lock(&self.queue).pop_front()
    }

    fn fail(&self, why: String) {
        say::line(format_args!("FAILED: {why}"));
        lock(&self.failed).push(why);
    }

    /// Adds what a run gave.
    fn add(&self, name: &str, campaign: bool, change: impl FnOnce(&mut Figures)) -> Result<Figures, String> {
        let mut state = lock(&self.state);
        let figures = state.targets.entry(name.to_owned()).or_default();
        change(figures);
        let figures = figures.clone();
        if campaign {
            written(&state_file(), &state.to_json())?;
        }
        Ok(figures)
    }

    fn work(&self, options: &Options) {
        while let Some(name) = self.next() {
            if let Err(why) = self.target(options, Target { name }) {
                self.fail(why);
            }
        }
    }

    /// One target to its end, or to the first input that fails.
    fn target(&self, options: &Options, target: Target) -> Result<(), String> {
        let name = &target.name;
        let failing = target.replay()?;
        for path in &failing {
            self.fail(format!("{name}: {} fails still", path.display()));
        }
        self.add(name, options.campaign, |figures| figures.crashes = failing.len())?;
        loop {
            let done = lock(&self.state).targets.get(name).map_or(0, |figures| figures.seconds);
            let left = options.seconds.saturating_sub(done);
            if left == 0 || !failing.is_empty() {
                break;
            }
            let ran = target.fuzz(left.min(SLICE))?;
            let figures = self.add(name, options.campaign, |figures| figures.add(&ran, target.corpus()))?;
            if !ran.held {
                let (tail, log) = (tail(&target.log()), target.log());
                return Err(format!(
                    "{name}: an input fails, and is now in fuzz/regressions/{name}; {}\n{tail}",
                    log.display()
                ));
            }
            say::line(figures.line(name));
        }
        if options.campaign && failing.is_empty() {
            target.minimize()?;
            self.add(name, true, |figures| figures.corpus = target.corpus())?;
        }
        Ok(())
    }
}

/// The end of a log.
fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    lines.get(lines.len().saturating_sub(40)..).unwrap_or_default().join("\n")
}

/// Runs the targets; whether all held.
pub(super) fn run(options: &Options, targets: &[String]) -> Result<bool, String> {
    let kept = if options.campaign { fs::read_to_string(state_file()).ok() } else { None };
    let state = kept.and_then(|text| State::from_json(&text)).filter(|state| state.goal == options.seconds);
    if state.is_some() {
        say::line("going on where the last campaign was interrupted");
    }
    let shared = Shared {
        state: Mutex::new(state.unwrap_or_else(|| State { goal: options.seconds, ..State::default() })),
        failed: Mutex::default(),
        queue: Mutex::new(targets.iter().cloned().collect()),
    };
    thread::scope(|scope| {
        for _ in 0..options.jobs.min(targets.len()) {
            scope.spawn(|| shared.work(options));
        }
    });
    let (state, failed) = (lock(&shared.state), lock(&shared.failed));
    say::heading("fuzzing: the report");
    table(&state).into_iter().for_each(say::line);
    for why in failed.iter() {
        say::line(format_args!("FAILED: {}", why.lines().next().unwrap_or_default()));
    }
    written(&report_file(), &state.to_json())?;
    say::line(format_args!("{} fuzz targets; {}", targets.len(), report_file().display()));
    // A campaign that failed is gone on with once its inputs hold.
    if options.campaign && failed.is_empty() {
        fs::remove_file(state_file()).map_err(|error| error.to_string())?;
    }
    Ok(failed.is_empty())
}
