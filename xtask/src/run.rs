//! Running other programs: never with stdin, always from the root of the workspace.

use std::env;
use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::say;

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
pub(crate) fn run_lines(command: &mut Command, mut line: impl FnMut(&str)) -> bool {
    say::line(format_args!("$ {}", shown(command)));
    let mut child = match command.stdout(Stdio::piped()).spawn() {
        Ok(child) => child,
        Err(error) => {
            say::line(format_args!("FAILED: {}: {error}", shown(command)));
            return false;
        }
    };
    if let Some(stdout) = child.stdout.take() {
        // By bytes: what a test prints need not be UTF-8.
        for bytes in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
            line(String::from_utf8_lossy(&bytes).trim_end_matches('\r'));
        }
    }
    match child.wait() {
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
