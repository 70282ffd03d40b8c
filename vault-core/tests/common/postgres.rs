//! A PostgreSQL server for the tests of one program: its own directory, a free loopback port, TLS with a certificate
//! made here, `fsync` on. It dies with the test program, however that ends: a shell at the other end of a pipe stops
//! the server and removes its directory when the pipe closes.
//!
//! A test file takes it in with `#[path = "common/postgres.rs"] mod postgres;`. It needs `rcgen` and `tempfile` alone,
//! so other crates can do the same.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a server that does not start is a failure")]

use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};

/// The role that owns the tests' databases, and its password.
pub(crate) const USER: &str = "vault";
pub(crate) const PASSWORD: &str = "correct-horse-battery";

/// The user `nobody`, whom every Debian has: PostgreSQL refuses to run as root.
const NOBODY: u32 = 65_534;

pub(crate) struct Server {
    bin: PathBuf,
    pub(crate) dir: PathBuf,
    pub(crate) port: u16,
    /// The authority of the server's certificate, which is for `localhost` and 127.0.0.1.
    pub(crate) ca_pem: String,
    _keeper: (Child, ChildStdin),
}

/// The programs' directory, newest version last.
fn programs() -> Option<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .filter(|bin| bin.join("initdb").exists())
        .collect();
    found.sort();
    found.pop()
}

/// Whether the calling test can have a server; else says that it is skipped.
fn installed() -> Option<PathBuf> {
    let bin = programs();
    if bin.is_none() {
        let test = std::thread::current().name().unwrap_or("postgres").to_owned();
        let reason = "the Debian package `postgresql` is needed";
        assert!(std::env::var_os("BLINDVAULT_REQUIRE").is_none_or(|v| v != "1"), "{test}: {reason}");
        println!("SKIPPED {}: {reason}", test.rsplit("::").next().unwrap_or(&test));
    }
    bin
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}

/// A program that runs as an unprivileged user.
fn unprivileged(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).current_dir("/").env_remove("PGPASSWORD").env("LC_ALL", "C");
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

fn done(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

impl Server {
    /// The server of this test program, started by the first who asks; `None` after saying that the test is skipped.
    pub(crate) fn shared() -> Option<&'static Self> {
        static SHARED: OnceLock<Server> = OnceLock::new();
        let bin = installed()?;
        Some(SHARED.get_or_init(|| Self::with(bin)))
    }

    /// A server of the test's own, which it may stop.
    pub(crate) fn own() -> Option<Self> {
        installed().map(Self::with)
    }

    fn with(bin: PathBuf) -> Self {
        let dir = tempfile::Builder::new().prefix("blindvault-pg-").tempdir().unwrap().keep();
        let (data, password) = (dir.join("data"), dir.join("password"));
        std::fs::write(&password, PASSWORD).unwrap();
        let (ca_pem, certificate, key) = certificates();
        std::fs::write(dir.join("server.pem"), certificate).unwrap();
        std::fs::write(dir.join("server.key"), key).unwrap();
        std::fs::set_permissions(dir.join("server.key"), std::fs::Permissions::from_mode(0o600)).unwrap();
        if is_root() {
            for path in [dir.clone(), password.clone(), dir.join("server.pem"), dir.join("server.key")] {
                chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
            }
        }
        let script = r#"cat >/dev/null; "$0/pg_ctl" -D "$1/data" -m immediate -s stop; rm -rf "$1""#;
        let mut keeper = unprivileged(Path::new("/bin/sh"))
            .args(["-c", script])
            .args([&bin, &dir])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        let pipe = keeper.stdin.take().unwrap();
        let initdb = ["--no-sync", "-U", USER, "-E", "UTF8", "--locale=C", "--auth-local=trust"];
        done(
            unprivileged(&bin.join("initdb"))
                .args(initdb)
                .args(["--auth-host=scram-sha-256", "--pwfile"])
                .arg(&password)
                .arg("-D")
                .arg(&data),
        );
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let conf = data.join("postgresql.conf");
        let settings = format!(
            "{}\nlisten_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = '{dir}'\nfsync = on\n\
             ssl = on\nssl_cert_file = '{dir}/server.pem'\nssl_key_file = '{dir}/server.key'\n\
             max_connections = 200\nshared_buffers = 32MB\nautovacuum = off\n",
            std::fs::read_to_string(&conf).unwrap(),
            dir = dir.display(),
        );
        std::fs::write(&conf, settings).unwrap();
        let server = Self { bin, dir, port, ca_pem, _keeper: (keeper, pipe) };
        server.start();
        server
    }

    fn pg_ctl(&self, args: &[&str]) {
        // It does not wait for the server's end to close the pipes: the server keeps them.
        let status = unprivileged(&self.bin.join("pg_ctl"))
            .arg("-D")
            .arg(self.dir.join("data"))
            .args(["-s", "-w", "-t", "60"])
            .arg("-l")
            .arg(self.dir.join("log"))
            .args(args)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        let log = std::fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        assert!(status.success(), "pg_ctl {args:?}: {log}");
    }

    /// Starts it, and returns when it takes connections.
    pub(crate) fn start(&self) {
        self.pg_ctl(&["start"]);
    }

    /// Stops it as a crash would: without telling anybody.
    pub(crate) fn crash(&self) {
        self.pg_ctl(&["-m", "immediate", "stop"]);
    }

    /// Makes a database that nobody else uses, and returns its name.
    pub(crate) fn database(&self) -> String {
        let name = Self::fresh_name();
        self.sql("postgres", &format!("CREATE DATABASE {name}"));
        name
    }

    fn fresh_name() -> String {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// Makes a database that is as another one is, to which nobody may be connected, and returns its name. A connection
    /// that is just ending is waited for.
    pub(crate) fn copy(&self, of: &str) -> String {
        let name = Self::fresh_name();
        for _ in 0..500 {
            if self.sql("postgres", &format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{of}'")) == "0" {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        self.sql("postgres", &format!("CREATE DATABASE {name} TEMPLATE {of}"));
        name
    }

    /// What a database administrator can do: runs SQL and returns the rows, fields separated by `|`.
    pub(crate) fn sql(&self, database: &str, sql: &str) -> String {
        let said = done(
            unprivileged(&self.bin.join("psql"))
                .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", USER, "-h"])
                .arg(&self.dir)
                .args(["-p", &self.port.to_string(), "-d", database, "-c", sql]),
        );
        said.trim_end().to_owned()
    }
}

/// An authority, and a certificate of its for `localhost` and 127.0.0.1 with its key: PEM.
fn certificates() -> (String, String, String) {
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let ca_key = KeyPair::generate().unwrap();
    let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
    let leaf = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    let key = KeyPair::generate().unwrap();
    let made = leaf.signed_by(&key, &Issuer::new(ca, ca_key)).unwrap();
    (ca_pem, made.pem(), key.serialize_pem())
}

/// An authority that the server's certificate is not of.
pub(crate) fn another_ca() -> String {
    certificates().0
}

// A test file uses a part of this; naming all of it here keeps the rest from being reported as dead.
const _: () = {
    let _ = (Server::shared, Server::own, Server::start, Server::crash, Server::database, Server::copy, Server::sql);
    let _ = another_ca;
    let _ = |server: &Server| (server.port, server.ca_pem.len());
};
