//! A gateway in a process of its own, of a user that is not root.

use std::fs;
use std::io::{BufRead as _, BufReader, Lines};
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use vault_client::{Endpoint, OperatorClient, VaultClient};
use vault_grpc::init::{Made, init};

/// `nobody`, by the number that it has on Linux.
pub(crate) const NOBODY: u32 = 65534;

/// What `init` makes, in a directory that the gateway's user owns, with a copy of the program that it may run.
pub(crate) struct Site {
    pub(crate) dir: TempDir,
    pub(crate) made: Made,
    /// The user that everything here belongs to; `None` for whoever runs the tests.
    pub(crate) user: Option<u32>,
}

impl Site {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let made = init(&dir.path().join("site"), 0, 0).unwrap();
        Self::of(dir, made)
    }

    /// The same, of what was made and changed.
    pub(crate) fn of(dir: TempDir, made: Made) -> Self {
        let text = fs::read_to_string(&made.config).unwrap();
        fs::write(&made.config, format!("{text}\n[logs]\nformat = \"text\"\n")).unwrap();
        let user = rustix::process::geteuid().is_root().then_some(NOBODY);
        Self { dir, made, user }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.made.config.with_file_name(name)
    }

    /// Adds to the configuration.
    pub(crate) fn configure(&self, more: &str) {
        let text = fs::read_to_string(&self.made.config).unwrap();
        fs::write(&self.made.config, format!("{text}\n{more}")).unwrap();
    }

    /// Gives everything to the gateway's user.
    pub(crate) fn hand_over(&self) {
        if let Some(user) = self.user {
            give(self.dir.path(), user);
        }
    }

    /// The program, as the gateway's user; `arguments` come before the configuration.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut program = PathBuf::from(env!("CARGO_BIN_EXE_vault-grpc"));
        if self.user.is_some() {
            // Whoever runs the tests may have built below a directory that others cannot enter.
            let copy = self.dir.path().join("vault-grpc");
            if !copy.exists() {
                fs::hard_link(&program, &copy).or_else(|_| fs::copy(&program, &copy).map(drop)).unwrap();
            }
            program = copy;
        }
        let mut command = Command::new(program);
        command.args(arguments).arg(&self.made.config).stdin(Stdio::null()).current_dir(self.dir.path());
        as_user(&mut command, self.user);
        command
    }

    pub(crate) fn serve(&self) -> Served {
        self.hand_over();
        Served::start(self.command(&["serve", "--config"]))
    }

    pub(crate) fn endpoint(&self, at: SocketAddr, who: &str) -> Endpoint {
        let part = |ending: &str| fs::read_to_string(self.path(&format!("certs/{who}.{ending}"))).unwrap();
        Endpoint::new(at.to_string(), "localhost", self.made.server_ca.pem(), part("pem"), part("key"))
    }

    pub(crate) async fn operator(&self, served: &Served) -> OperatorClient {
        OperatorClient::connect(&self.endpoint(served.control, "operator-alice")).await.unwrap()
    }

    pub(crate) async fn workload(&self, served: &Served) -> VaultClient {
        VaultClient::connect(&self.endpoint(served.data, "billing")).await.unwrap()
    }
}

/// Runs a command as another user, without the groups of ours.
pub(crate) fn as_user(command: &mut Command, user: Option<u32>) {
    if let Some(user) = user {
        // Setting the user of a root process also empties its supplementary groups.
        command.uid(user).gid(user);
    }
}

fn give(path: &Path, user: u32) {
    // Not through links: the program may be one to a file of ours.
    if path.is_dir() {
        fs::read_dir(path).unwrap().for_each(|entry| give(&entry.unwrap().path(), user));
    } else if fs::metadata(path).unwrap().permissions().mode() & 0o111 != 0 {
        return;
    }
    chown(path, Some(user), Some(user)).unwrap();
}

/// A gateway that serves. Killed when dropped.
pub(crate) struct Served {
    pub(crate) child: Child,
    pub(crate) lines: Lines<BufReader<ChildStderr>>,
    pub(crate) data: SocketAddr,
    pub(crate) control: SocketAddr,
    /// What it said until both planes listened and its system calls were restricted.
    pub(crate) said: Vec<String>,
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Served {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = Vec::new();
        let (mut data, mut control) = (None, None);
        loop {
            let Some(Ok(line)) = lines.next() else { panic!("it did not start: {said:?}") };
            // In both forms of lines.
            let address = || {
                let at = line.find("127.0.0.1:").unwrap();
                line[at..].split('"').next().unwrap().parse().unwrap()
            };
            if line.contains("listening") && line.contains("\"data\"") {
                data = Some(address());
            } else if line.contains("listening") && line.contains("\"control\"") {
                control = Some(address());
            }
            let last = line.contains("everything is open");
            said.push(line);
            if last {
                break;
            }
        }
        Self { child, lines, data: data.unwrap(), control: control.unwrap(), said }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(i32::try_from(self.pid()).unwrap()).unwrap(), signal).unwrap();
    }

    /// Waits for a line with this part.
    pub(crate) fn says(&mut self, part: &str) -> String {
        let mut seen = Vec::new();
        for line in self.lines.by_ref() {
            let line = line.unwrap();
            if line.contains(part) {
                return line;
            }
            seen.push(line);
        }
        panic!("no line with {part}: {seen:?}")
    }

    /// Ends it in order, and returns what it said meanwhile.
    pub(crate) fn stop(mut self) -> Vec<String> {
        self.signal(Signal::TERM);
        let lines: Vec<String> = self.lines.by_ref().map(Result::unwrap).collect();
        assert_eq!(self.child.wait().unwrap().code(), Some(0), "{lines:?}");
        lines
    }
}
