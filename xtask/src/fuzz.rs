//! `fuzz`: the targets of `fuzz/`, for some seconds each (CI), or for minutes or hours with a report.

mod campaign;
mod engine;
mod report;

use std::path::PathBuf;
use std::process::Command;

use crate::prerequisites;
use crate::run::{cargo, root, run, run_lines, target};
use crate::say;

/// How long CI runs each target.
pub(crate) const SMOKE_SECONDS: u64 = 5;

/// What to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    /// How long each target runs.
    seconds: u64,
    /// Whether it is a campaign: kept between runs, minimized and reported at its end.
    campaign: bool,
    /// How many targets run at a time.
    jobs: usize,
    /// Only this one.
    target: Option<String>,
}

impl Options {
    /// What CI runs.
    pub(crate) const fn smoke() -> Self {
        Self { seconds: SMOKE_SECONDS, campaign: false, jobs: 2, target: None }
    }

    /// Reads the arguments behind `fuzz`; `None` if they are none of its.
    pub(crate) fn parse(args: &[&str]) -> Option<Self> {
        let mut options = Self::smoke();
        let mut timed = false;
        let (pairs, rest) = args.as_chunks::<2>();
        for [name, value] in pairs {
            let number = || value.parse::<u64>().ok().filter(|number| (1..=1_000_000).contains(number));
            match *name {
                "--seconds" | "--minutes" if !timed => {
                    options.campaign = *name == "--minutes";
                    options.seconds = number()? * if options.campaign { 60 } else { 1 };
                    timed = true;
                }
                "--jobs" => options.jobs = usize::try_from(number()?).ok()?,
                "--target" => options.target = Some((*value).to_owned()),
                _ => return None,
            }
        }
        rest.is_empty().then_some(options)
    }
}

/// cargo-fuzz needs the sanitizers, which a stable compiler has but only offers with this set.
fn cargo_fuzz(args: &[&str]) -> Command {
    let mut command = cargo(args);
    command.env("RUSTC_BOOTSTRAP", "1");
    command
}

/// Where everything of fuzzing is built and kept.
fn dir() -> PathBuf {
    target().join("fuzz")
}

/// The names of the targets, once they are built.
fn built(options: &Options) -> Result<Vec<String>, String> {
    if !root().join("fuzz/Cargo.toml").exists() {
        return Err("there is no fuzz/Cargo.toml, so there is nothing to fuzz".into());
    }
    prerequisites::fuzzing()?;
    let mut targets = Vec::new();
    let listed = run_lines(&mut cargo_fuzz(&["fuzz", "list"]), |line| targets.push(line.trim().to_owned()));
    targets.retain(|name| !name.is_empty() && options.target.as_ref().is_none_or(|only| only == name));
    if !listed || targets.is_empty() {
        return Err("cargo fuzz lists no such target".into());
    }
    for name in &targets {
        // Without seeds a target begins with nothing, and stays there for long.
        if !root().join("fuzz/corpus").join(name).is_dir() {
            return Err(format!("{name} has no seeds in fuzz/corpus/{name}"));
        }
    }
    let mut build = cargo_fuzz(&["fuzz", "build", "--target-dir"]);
    build.arg(dir()).args(&options.target);
    if run(&mut build) { Ok(targets) } else { Err("the targets do not build; see above".into()) }
}

/// Runs the targets, whether or not one before failed; whether all held.
pub(crate) fn fuzz(options: &Options) -> bool {
    say::heading("fuzzing");
    let ran = built(options).and_then(|targets| campaign::run(options, &targets));
    ran.unwrap_or_else(|reason| {
        say::line(format_args!("FAILED: {reason}"));
        false
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read_in_any_order_and_nothing_else_is_one() {
        assert_eq!(Options::parse(&[]), Some(Options::smoke()));
        let day = Options::parse(&["--jobs", "7", "--minutes", "1440", "--target", "stream"]).unwrap();
        assert_eq!(day, Options { seconds: 86_400, campaign: true, jobs: 7, target: Some("stream".to_owned()) });
        assert_eq!(Options::parse(&["--seconds", "9"]), Some(Options { seconds: 9, ..Options::smoke() }));
        for bad in [
            &["--seconds"][..],
            &["--seconds", "0"],
            &["--jobs", "x"],
            &["--hours", "1"],
            &["--seconds", "1", "--minutes", "1"],
        ] {
            assert_eq!(Options::parse(bad), None, "{bad:?}");
        }
    }
}
