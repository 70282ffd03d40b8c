//! One target: its files, and what libFuzzer says of a run.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use super::dir;
use crate::run::{program, root};

/// An input that takes longer, in seconds, counts as a failure.
const INPUT_SECONDS: u32 = 10;
/// A target that takes more memory, in MiB, has failed.
const MEMORY_MIB: u32 = 3072;

/// What libFuzzer said of one run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) executions: u64,
    /// Edges, and features (edges with how often they were taken), once the corpus was loaded and at the end.
    pub(super) begin: (u64, u64),
    pub(super) end: (u64, u64),
}

impl Said {
    /// Reads its output.
    pub(super) fn of(output: &str) -> Self {
        let mut said = Self::default();
        for line in output.lines() {
            if let Some(units) = line.strip_prefix("stat::number_of_executed_units:") {
                said.executions = units.trim().parse().unwrap_or(said.executions);
            }
            let Some(status) = line.strip_prefix('#') else { continue };
            let mut words = status.split_ascii_whitespace();
            let after = |name: &str| {
                let mut words = status.split_ascii_whitespace().skip_while(|word| *word != name);
                words.nth(1).and_then(|number| number.parse().ok())
            };
            let (Some(edges), Some(features)) = (after("cov:"), after("ft:")) else { continue };
            let (count, what) = (words.next().and_then(|count| count.parse().ok()), words.next());
            // A run that crashed prints no final count: the last line tells it.
            said.executions = said.executions.max(count.unwrap_or_default());
            if what == Some("INITED") {
                said.begin = (edges, features);
            }
            said.end = (edges, features);
        }
        said
    }
}

/// One target and where its things are.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) name: String,
}

/// How a run ended.
#[derive(Debug)]
pub(super) struct Ran {
    pub(super) said: Said,
    pub(super) seconds: u64,
    pub(super) held: bool,
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path());
    let mut files: Vec<_> = entries.filter(|path| path.is_file()).collect();
    files.sort();
    files
}

impl Target {
    /// The program; cargo-fuzz builds for the host, and names it.
    fn program(&self) -> Result<PathBuf, String> {
        let hosts = fs::read_dir(dir()).map_err(|error| error.to_string())?.filter_map(Result::ok);
        let mut found = hosts.map(|host| host.path().join("release").join(&self.name)).filter(|path| path.is_file());
        found.next().ok_or_else(|| format!("{} was not built", self.name))
    }

    fn seeds(&self) -> PathBuf {
        root().join("fuzz/corpus").join(&self.name)
    }

    /// Inputs that once failed.
    fn regressions(&self) -> PathBuf {
        root().join("fuzz/regressions").join(&self.name)
    }

    /// What runs have found, beside the seeds.
    fn found(&self) -> PathBuf {
        dir().join("corpus").join(&self.name)
    }

    fn artifacts(&self) -> PathBuf {
        dir().join("artifacts").join(&self.name)
    }

    pub(super) fn log(&self) -> PathBuf {
        dir().join("logs").join(format!("{}.log", self.name))
    }

    /// How many inputs the corpus has, and their bytes.
    pub(super) fn corpus(&self) -> (usize, u64) {
        let all = [files(&self.seeds()), files(&self.found())].concat();
        let bytes = all.iter().filter_map(|path| fs::metadata(path).ok()).map(|data| data.len());
        (all.len(), bytes.sum())
    }

    fn command(&self, log: &File) -> Result<Command, String> {
        let mut command = program(self.program()?);
        let log = log.try_clone().map_err(|error| error.to_string())?;
        command.stdout(Stdio::null()).stderr(log);
        // As cargo-fuzz sets it: several crates of one build may define the same symbol.
        command.env("ASAN_OPTIONS", "detect_odr_violation=0:abort_on_error=1");
        command.args([format!("-timeout={INPUT_SECONDS}"), format!("-rss_limit_mb={MEMORY_MIB}")]);
        let artifacts = self.artifacts();
        fs::create_dir_all(&artifacts).map_err(|error| format!("{}: {error}", artifacts.display()))?;
        command.arg(format!("-artifact_prefix={}/", artifacts.display()));
        let words = root().join("fuzz/dictionaries").join(format!("{}.dict", self.name));
        if words.is_file() {
            command.arg(format!("-dict={}", words.display()));
        }
        Ok(command)
    }

    fn open_log(&self) -> Result<File, String> {
        let log = self.log();
        log.parent().map_or(Ok(()), fs::create_dir_all).map_err(|error| format!("{}: {error}", log.display()))?;
        File::create(&log).map_err(|error| format!("{}: {error}", log.display()))
    }

    /// The inputs that once failed, each on its own; those that fail still.
    pub(super) fn replay(&self) -> Result<Vec<PathBuf>, String> {
        let log = self.open_log()?;
        let mut failing = Vec::new();
        for path in files(&self.regressions()) {
            let status = self.command(&log)?.arg(&path).status().map_err(|error| error.to_string())?;
            if !status.success() {
                failing.push(path);
            }
        }
        // What failed is a regression already.
        drop(fs::remove_dir_all(self.artifacts()));
        Ok(failing)
    }

    /// Fuzzes for some seconds. An input that fails becomes a regression.
    pub(super) fn fuzz(&self, seconds: u64) -> Result<Ran, String> {
        let found = self.found();
        fs::create_dir_all(&found).map_err(|error| format!("{}: {error}", found.display()))?;
        let mut command = self.command(&self.open_log()?)?;
        command.args([format!("-max_total_time={seconds}"), "-print_final_stats=1".to_owned()]);
        let begun = Instant::now();
        let status = command.arg(&found).arg(self.seeds()).status().map_err(|error| error.to_string())?;
        let took = begun.elapsed().as_secs().max(1);
        let output = fs::read(self.log()).map_err(|error| error.to_string())?;
        self.keep_failures()?;
        Ok(Ran { said: Said::of(&String::from_utf8_lossy(&output)), seconds: took, held: status.success() })
    }

    fn keep_failures(&self) -> Result<(), String> {
        let (kept, failed) = (self.regressions(), |error: std::io::Error| error.to_string());
        for path in files(&self.artifacts()) {
            // An input that is slow, but not too slow, is no failure.
            let name = path.file_name().unwrap_or_default();
            if name.to_string_lossy().starts_with("slow-unit-") {
                continue;
            }
            fs::create_dir_all(&kept).map_err(failed)?;
            fs::copy(&path, kept.join(name)).map_err(failed)?;
        }
        Ok(())
    }

    /// Keeps of what was found only what covers something that the seeds do not.
    pub(super) fn minimize(&self) -> Result<(), String> {
        let (found, less) = (self.found(), dir().join("minimized").join(&self.name));
        drop(fs::remove_dir_all(&less));
        fs::create_dir_all(&less).map_err(|error| error.to_string())?;
        let mut command = self.command(&self.open_log()?)?;
        // Into the seeds' copy, so that nothing is kept that a seed shows already.
        let seeds = files(&self.seeds());
        for seed in &seeds {
            fs::copy(seed, less.join(seed.file_name().unwrap_or_default())).map_err(|error| error.to_string())?;
        }
        let status = command.arg("-merge=1").arg(&less).arg(&found).status().map_err(|error| error.to_string())?;
        if !status.success() {
            return Err(format!("the corpus of {} could not be minimized; see {}", self.name, self.log().display()));
        }
        for seed in &seeds {
            drop(fs::remove_file(less.join(seed.file_name().unwrap_or_default())));
        }
        fs::remove_dir_all(&found).and_then(|()| fs::rename(&less, &found)).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
INFO: seed corpus: files: 22 min: 1b max: 40b total: 300b rss: 40Mb
#23\tINITED cov: 100 ft: 150 corp: 20/290b exec/s: 0 rss: 45Mb
#1024\tpulse  cov: 100 ft: 150 corp: 20/290b lim: 40 exec/s: 512 rss: 60Mb
#2001\tNEW    cov: 110 ft: 177 corp: 21/300b lim: 40 exec/s: 500 rss: 60Mb L: 9/40 MS: 1 ChangeBit-
";

    #[test]
    fn what_the_engine_says_is_read() {
        let crashed = Said::of(OUTPUT);
        assert_eq!(crashed, Said { executions: 2001, begin: (100, 150), end: (110, 177) });
        let more = "#9000\tDONE   cov: 111 ft: 180 corp: 21/300b lim: 40 exec/s: 900 rss: 60Mb\n\
                    stat::number_of_executed_units: 9000\n";
        let done = Said::of(&format!("{OUTPUT}{more}"));
        assert_eq!(done, Said { executions: 9000, begin: (100, 150), end: (111, 180) });
        assert_eq!(Said::of("ERROR: no such file\n"), Said::default());
    }
}
