//! Running other programs: never with stdin, always from the root of the workspace.

use std::env;
use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use crate::say;

/// Every feature, for tests, lints and documentation.
pub(crate) const FEATURES: &str =
    "vault-core/dev,vault-core/prove,vault-grpc/aws,vault-grpc/pkcs11,vault-grpc/postgres";

/// The root of the workspace.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// Where cargo builds.
pub(crate) fn target() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root().join(dir),
        None => root().join("target"),
    }
}

/// Where the steps keep what they install: tools, never results.
pub(crate) fn tools() -> PathBuf {
    target().join("xtask")
}

/// Whether this is CI, where what is missing fails instead of being skipped.
pub(crate) fn is_ci() -> bool {
    env::var_os("CI").is_some_and(|value| value == "true")
}

/// A program, to run in the root of the workspace without stdin.
pub(crate) fn program(name: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(name);
    command.current_dir(root()).stdin(Stdio::null());
    // Cargo sets these for the program that it runs, this one; build scripts that watch them would run again, and
    // with them half of the dependencies.
    let ours = ["CARGO_MANIFEST_", "CARGO_PKG_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_"];
    for (key, _) in env::vars_os() {
        if key.to_str().is_some_and(|key| ours.iter().any(|prefix| key.starts_with(prefix))) {
            command.env_remove(key);
        }
    }
    command
}

/// The cargo that runs this.
pub(crate) fn cargo(args: &[&str]) -> Command {
    let mut command = program(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args);
    command
}

/// The command as one would type it.
pub(crate) fn shown(command: &Command) -> String {
    let name = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let args = command.get_args().map(|arg| arg.to_string_lossy().into_owned());
    std::iter::once(name).chain(args).collect::<Vec<_>>().join(" ")
}

/// Runs to the end; whether it ended well. Says what it runs, and why it failed.
pub(crate) fn run(command: &mut Command) -> bool {
    say::line(format_args!("$ {}", shown(command)));
    match command.status() {
        Ok(status) if status.success() => true,
        Ok(status) => {
            say::line(format_args!("FAILED: {}: {status}", shown(command)));
            false
        }
        Err(error) => {
            say::line(format_args!("FAILED: {}: {error}", shown(command)));
            false
        }
    }
}

/// Runs to the end and hands each line of its stdout to `line`; whether it ended well.
pub(crate) fn run_lines(command: &mut Command, line: impl FnMut(&str)) -> bool {
    run_lines_within(command, None, line)
}

/// The same; when it takes longer than `limit`, it and all that it started are killed.
pub(crate) fn run_lines_within(command: &mut Command, limit: Option<Duration>, mut line: impl FnMut(&str)) -> bool {
    say::line(format_args!("$ {}", shown(command)));
    if limit.is_some() {
        command.process_group(0);
    }
    let mut child = match command.stdout(Stdio::piped()).spawn() {
        Ok(child) => child,
        Err(error) => {
            say::line(format_args!("FAILED: {}: {error}", shown(command)));
            return false;
        }
    };
    // By the shell, which has it built in: a small system has no `kill` of its own.
    let kill = format!("kill -s KILL -- -{}", child.id());
    let (ended, watch) = mpsc::channel::<()>();
    let watchdog = limit.map(|limit| {
        thread::spawn(move || {
            if watch.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                say::line(format_args!("FAILED: not done after {} s; killed", limit.as_secs()));
                works(program("sh").args(["-c", &kill]));
            }
        })
    });
    if let Some(stdout) = child.stdout.take() {
        // By bytes: what a test prints need not be UTF-8.
        for bytes in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
            line(String::from_utf8_lossy(&bytes).trim_end_matches('\r'));
        }
    }
    let status = child.wait();
    drop(ended);
    if let Some(watchdog) = watchdog {
        drop(watchdog.join());
    }
    match status {
        Ok(status) if status.success() => true,
        Ok(status) => {
            say::line(format_args!("FAILED: {}: {status}", shown(command)));
            false
        }
        Err(_) => false,
    }
}

/// Whether it runs and ends well, silently.
pub(crate) fn works(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_beyond_its_limit_is_killed_with_its_children() {
        let begun = std::time::Instant::now();
        let mut lines = Vec::new();
        let mut command = program("sh");
        // The child of the shell keeps the pipe open; were it alive, reading would not end.
        command.args(["-c", "echo begun; sleep 60 & wait"]);
        let good = run_lines_within(&mut command, Some(Duration::from_millis(200)), |line| lines.push(line.to_owned()));
        assert!(!good && lines == ["begun"]);
        assert!(begun.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn a_command_within_its_limit_is_left_alone() {
        let limit = Some(Duration::from_secs(60));
        assert!(run_lines_within(&mut program("true"), limit, |_| {}));
        assert!(!run_lines_within(&mut program("false"), limit, |_| {}));
    }
}
