//! What is left to whoever takes the gateway's process over: tried from inside of a process that is restricted as one.

use std::io::ErrorKind;
use std::net::{TcpListener, TcpStream, ToSocketAddrs as _, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use vault_grpc::config::Config;
use vault_grpc::hardening::{self, Confined};
use vault_grpc::init::init;

use super::skipped;

const CHILD: &str = "BLINDVAULT_CONFINED_DIR";
const NOT_OFFERED: i32 = 77;

/// Runs `test` in a process of its own, on what `init` made and `more` in the configuration; `name` is the test's path.
fn confined(name: &str, more: &str, test: impl FnOnce(&Path, Confined)) {
    if let Some(dir) = env::var_os(CHILD) {
        let dir = PathBuf::from(dir);
        let config = Config::load(&dir.join("site/vault.toml")).unwrap();
        let confined = match hardening::confine(&config, &[]) {
            Ok(confined) => confined,
            // Only what the kernel lacks is not a failure of ours.
            Err(error) if error.why().contains("the kernel does not offer") => std::process::exit(NOT_OFFERED),
            Err(error) => panic!("{error}"),
        };
        return test(&dir.join("site"), confined);
    }
    let dir = tempfile::tempdir().unwrap();
    let made = init(&dir.path().join("site"), 0, 0).unwrap();
    let text = fs::read_to_string(&made.config).unwrap();
    let required = "[hardening]\nseccomp = \"required\"\nlandlock = \"required\"\n";
    fs::write(&made.config, format!("{text}\n{required}{more}")).unwrap();
    let out = Command::new(env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(CHILD, dir.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    if out.status.code() == Some(NOT_OFFERED) {
        return skipped(name, "the kernel does not offer Landlock");
    }
    assert!(out.status.success(), "{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
}

fn denied<T>(done: std::io::Result<T>) -> bool {
    done.err().is_some_and(|error| error.kind() == ErrorKind::PermissionDenied)
}

#[test]
fn only_named_directories_are_read_and_only_stores_written() {
    confined("confined::only_named_directories_are_read_and_only_stores_written", "", |site, _| {
        for readable in ["certs/gateway.pem", "policies/registry.toml", "audit.key"] {
            fs::read(site.join(readable)).unwrap();
        }
        for file in ["/etc/passwd", "/etc/shadow", "/proc/self/environ", "/proc/self/maps", "/bin/sh", "/root/.bashrc"]
        {
            assert!(!Path::new(file).exists() || denied(fs::read(file)), "{file}");
        }
        assert!(denied(fs::read_dir("/")) && denied(fs::read_dir(env::temp_dir())));
        let row = site.join("data/new");
        fs::write(&row, "a row").unwrap();
        fs::rename(&row, site.join("data/audit/moved")).unwrap();
        fs::remove_file(site.join("data/audit/moved")).unwrap();
        for file in ["new", "certs/new.pem", "policies/new.cedar", "../new"] {
            assert!(denied(fs::write(site.join(file), "")), "{file}");
        }
        assert!(denied(fs::OpenOptions::new().write(true).open(site.join("audit.key"))));
        assert!(denied(fs::remove_file(site.join("audit.key"))));
        assert!(denied(fs::rename(site.join("root.key"), site.join("data/root.key"))));
        assert!(denied(std::os::unix::fs::symlink("/etc/passwd", site.join("data/link"))));
    });
}

#[test]
fn no_program_is_run_before_or_after_the_system_calls_are_taken() {
    confined("confined::no_program_is_run_before_or_after_the_system_calls_are_taken", "", |_, confined| {
        assert!(denied(Command::new("/bin/true").status()), "Landlock alone");
        confined.seal().unwrap();
        assert!(denied(Command::new("/bin/true").status()), "both");
    });
}

#[test]
fn what_serving_needs_works_and_what_an_attacker_needs_does_not() {
    confined("confined::what_serving_needs_works_and_what_an_attacker_needs_does_not", "", |site, confined| {
        let before = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = before.local_addr().unwrap();
        confined.seal().unwrap();

        // Threads, names of hosts, connections both ways, files, durably.
        std::thread::Builder::new().name("new".into()).spawn(|| ()).unwrap().join().unwrap();
        assert!(("localhost", 1).to_socket_addrs().unwrap().next().is_some());
        let there = TcpStream::connect(address).unwrap();
        there.set_nonblocking(true).unwrap();
        drop(before.accept().unwrap());
        UdpSocket::bind("127.0.0.1:0").unwrap();
        fs::File::create(site.join("data/row")).unwrap().sync_all().unwrap();
        let key = vault_core::secret::Key32::generate().unwrap();
        drop(key);

        // A door of one's own, raw packets, another life as a dumpable process, other limits, other users.
        assert!(denied(TcpListener::bind("127.0.0.1:0")));
        assert_eq!(set_dumpable_behavior(DumpableBehavior::Dumpable), Err(Errno::PERM));
        let core = Rlimit { current: None, maximum: None };
        assert_eq!(setrlimit(Resource::Core, core), Err(Errno::PERM));
        assert_eq!(rustix::process::setsid().unwrap_err(), Errno::PERM);
        assert_eq!(rustix::process::chroot("/").unwrap_err(), Errno::PERM);
        assert_eq!(
            rustix::process::kill_process(rustix::process::getppid().unwrap(), rustix::process::Signal::CONT),
            Err(Errno::PERM)
        );
        assert_eq!(rustix::thread::set_no_new_privs(true), Err(Errno::PERM));
        assert_eq!(rustix::thread::capabilities(None), Err(Errno::PERM));
    });
}

#[test]
fn a_program_that_is_named_runs_and_no_other() {
    let named = "executables = [\"/bin/true\"]\n";
    confined("confined::a_program_that_is_named_runs_and_no_other", named, |_, confined| {
        assert!(Command::new("/bin/true").status().unwrap().success());
        confined.seal().unwrap();
        let out = Command::new("/bin/true").env_clear().stdin(Stdio::piped()).stdout(Stdio::piped()).output().unwrap();
        assert!(out.status.success());
        assert!(denied(Command::new("/bin/false").status()));
        assert!(denied(Command::new("/bin/sh").args(["-c", "true"]).status()));
    });
}
