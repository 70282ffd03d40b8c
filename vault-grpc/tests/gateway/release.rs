//! Releases: `check` and `serve` against lists that the real `minisign` signed; an executable that was altered.

#![expect(clippy::print_stdout, clippy::disallowed_macros, reason = "says why it is skipped")]

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use ring::digest::{SHA256, digest};
use rustix::process::{Pid, Signal, kill_process};
use vault_core::audit::Body;
use vault_grpc::release::VERSION;

use super::audit_entries::entries;
use super::support::made;

fn minisign(dir: &Path, args: &[&str]) {
    let done = Command::new("minisign").current_dir(dir).args(args).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

fn run(program: &Path, args: &[&str]) -> (i32, String) {
    let done = Command::new(program).args(args).output().unwrap();
    let said = [done.stdout, done.stderr].concat();
    (done.status.code().unwrap(), String::from_utf8(said).unwrap())
}

/// Kills what it holds.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Serves until both planes listen, then stops it by SIGTERM: how it ended, and what it said.
fn serve_and_stop(program: &Path, config: &Path) -> (i32, String) {
    let mut command = Command::new(program);
    let mut child = Ends(command.args(["serve", "--config"]).arg(config).stderr(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(child.0.stderr.take().unwrap()).lines().map(Result::unwrap);
    let mut said = String::new();
    for line in lines.by_ref() {
        said += &format!("{line}\n");
        if line.contains("listening") && line.contains("control") {
            break;
        }
    }
    kill_process(Pid::from_raw(i32::try_from(child.0.id()).unwrap()).unwrap(), Signal::TERM).unwrap();
    said.extend(lines.map(|line| format!("{line}\n")));
    (child.0.wait().unwrap().code().unwrap(), said)
}

/// A copy of the gateway, its list, the list's signature, and the key, as a release has them.
struct Shipped {
    dir: tempfile::TempDir,
    program: PathBuf,
    signature: PathBuf,
    key: String,
}

impl Shipped {
    /// One, or `None` after saying that `test` is skipped.
    fn new(test: &str) -> Option<Self> {
        if Command::new("minisign").arg("-v").output().is_err() {
            let reason = "minisign is not installed";
            assert!(std::env::var_os("BLINDVAULT_REQUIRE").is_none_or(|v| v != "1"), "{test}: {reason}");
            println!("SKIPPED {test}: {reason}");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("vault-grpc");
        fs::copy(env!("CARGO_BIN_EXE_vault-grpc"), &program).unwrap();
        minisign(dir.path(), &["-G", "-W", "-p", "release.pub", "-s", "release.key"]);
        let key = fs::read_to_string(dir.path().join("release.pub")).unwrap().lines().nth(1).unwrap().to_owned();
        let signature = dir.path().join("SHA256SUMS.minisig");
        let shipped = Self { dir, program, signature, key };
        shipped.sign(&shipped.list(), &format!("blindvault {VERSION} test"));
        Some(shipped)
    }

    /// As `sha256sum` writes it.
    fn list(&self) -> String {
        let hex = hex::encode(digest(&SHA256, &fs::read(&self.program).unwrap()));
        format!("{hex}  vault-grpc\n")
    }

    fn sign(&self, list: &str, comment: &str) {
        fs::write(self.dir.path().join("SHA256SUMS"), list).unwrap();
        minisign(self.dir.path(), &["-S", "-s", "release.key", "-m", "SHA256SUMS", "-t", comment]);
    }

    fn check(&self, key: &str) -> (i32, String) {
        run(&self.program, &["check", "--release", self.signature.to_str().unwrap(), "--key", key])
    }

    /// What it is refused for.
    fn refused(&self, key: &str) -> String {
        let (code, said) = self.check(key);
        assert_eq!(code, 1, "{said}");
        said
    }
}

#[test]
fn an_executable_checks_its_own_release_and_an_altered_one_is_refused() {
    let name = "an_executable_checks_its_own_release_and_an_altered_one_is_refused";
    let Some(shipped) = Shipped::new(name) else { return };
    let (code, said) = shipped.check(&shipped.key);
    assert!(code == 0 && said.contains("is a release") && said.contains(&shipped.list()[..64]), "{said}");
    let file = shipped.dir.path().join("release.pub");
    assert_eq!(shipped.check(file.to_str().unwrap()).0, 0, "the key from its file");

    // Another list, another version, another key: signatures that hold elsewhere.
    let list = shipped.list();
    shipped.sign(&list, "blindvault 0.0.0 test");
    assert!(shipped.refused(&shipped.key).contains("another version"));
    shipped.sign(&list.replace("vault-grpc", "vault-grpd"), &format!("blindvault {VERSION} test"));
    assert!(shipped.refused(&shipped.key).contains("must name vault-grpc once"));
    shipped.sign(&list, &format!("blindvault {VERSION} test"));
    let foreign = "RWT+Qwtn4lWO7XW8IFJ2GAtvf99R6MmFTlPfcHClKJmXyWftQaxvVVMV";
    assert!(shipped.refused(foreign).contains("not the release key's"));
    assert!(shipped.refused("no key").contains("--key"));
    assert_eq!(shipped.check(&shipped.key).0, 0);
    // The list says something else than what was signed.
    fs::write(shipped.dir.path().join("SHA256SUMS"), list.replace("vault-grpc", "vault-grpc ")).unwrap();
    assert!(shipped.refused(&shipped.key).contains("not the release key's"));
    fs::write(shipped.dir.path().join("SHA256SUMS"), &list).unwrap();
    // One byte more at its end: it runs as before, and says that it is not what was released.
    fs::OpenOptions::new().append(true).open(&shipped.program).unwrap().write_all(b"\0").unwrap();
    assert!(shipped.refused(&shipped.key).contains("not the one that was released"));
    fs::remove_file(&shipped.signature).unwrap();
    assert!(shipped.refused(&shipped.key).contains("cannot be read"));
    // Half of the question is wrong usage, not half of an answer.
    let signature = shipped.signature.to_str().unwrap();
    assert_eq!(run(&shipped.program, &["check", "--release", signature]).0, 2);
    assert_eq!(run(&shipped.program, &["check", "--config", "vault.toml", "--key", &shipped.key]).0, 2);
}

#[test]
fn a_configured_release_is_demanded_at_the_start_and_the_log_names_the_executable() {
    let name = "a_configured_release_is_demanded_at_the_start_and_the_log_names_the_executable";
    let Some(shipped) = Shipped::new(name) else { return };
    let (_dir, made) = made();
    let config = made.config.to_str().unwrap();
    let signature = shipped.signature.display();
    let table = format!("\n[release]\nsignature = \"{signature}\"\nkey = \"{}\"\n", shipped.key);
    fs::write(&made.config, fs::read_to_string(&made.config).unwrap() + &table).unwrap();
    assert_eq!(run(&shipped.program, &["check", "--config", config]).0, 0);

    // Served until told to stop; what it is, is in its log lines and in the audit log.
    let (code, said) = serve_and_stop(&shipped.program, &made.config);
    let expected = &shipped.list()[..64];
    assert!(code == 0 && said.contains(expected) && said.contains("release=true"), "{said}");
    let log = made.config.parent().unwrap().join("data/audit");
    let executables = |log: &Path| -> Vec<String> {
        let named = entries(log).into_iter().filter_map(|entry| match entry.body {
            Body::System { event, detail, .. } if event == "executable" => Some(detail),
            _ => None,
        });
        named.collect()
    };
    assert_eq!(executables(&log), [expected]);

    fs::OpenOptions::new().append(true).open(&shipped.program).unwrap().write_all(b"\0").unwrap();
    for command in ["check", "serve"] {
        let (code, said) = run(&shipped.program, &[command, "--config", config]);
        assert!(code == 1 && said.contains("not the one that was released"), "{command}: {said}");
    }
    assert_eq!(executables(&log), [expected], "what is refused opens no log");
}
