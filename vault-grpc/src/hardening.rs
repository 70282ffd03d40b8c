//! What the process denies to others on the machine, and to itself.
//!
//! To others of the same user: core dumps, tracing, reading its memory, its environment and its mappings. To itself, so
//! that whoever takes it over finds little to work with: privileges, every file that is not named, every program, every
//! system call that serving does not need.
//!
//! ```text
//! apply     at once, whatever the command       no core dump, not dumpable
//! confine   configuration read, one thread      user, umask, privileges, files (Landlock, inherited by every thread)
//! seal      both planes listen                  system calls (seccomp, put on all threads at once)
//! ```

mod files;
mod privileges;
mod syscalls;

use std::num::NonZero;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::fs::Mode;
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit, umask};
use vault_core::Error;
use vault_core::error::Dependency;
use vault_core::secret::{self, Key32};

use crate::config::{Config, ConfigError, Demand, Environment, Root};
use crate::telemetry::{Event, log};

pub use files::Paths;

/// Forbids core dumps and makes the process not dumpable, which also denies `ptrace` and `/proc/<pid>/mem` to the same
/// user.
///
/// # Errors
/// [`Error::Unavailable`] if the operating system refuses either: then the gateway does not start.
pub fn apply() -> Result<(), Error> {
    deny_reading()?;
    UNDUMPABLE.store(true, Ordering::Relaxed);
    Ok(())
}

static UNDUMPABLE: AtomicBool = AtomicBool::new(false);
static LANDLOCK: AtomicBool = AtomicBool::new(false);
static SECCOMP: AtomicBool = AtomicBool::new(false);

/// What this process has denied itself, as the kernel said it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// No core dumps; others of the same user cannot read its memory.
    pub undumpable: bool,
    /// Files that are not named cannot be opened.
    pub landlock: bool,
    /// System calls that serving does not need are denied.
    pub seccomp: bool,
    /// Keys are in memory that is not swapped out.
    pub locked: bool,
}

/// What is in force now.
pub fn state() -> State {
    State {
        undumpable: UNDUMPABLE.load(Ordering::Relaxed),
        landlock: LANDLOCK.load(Ordering::Relaxed),
        seccomp: SECCOMP.load(Ordering::Relaxed),
        locked: secret::status().unlocked == 0,
    }
}

fn deny_reading() -> Result<(), Error> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none)
        .map_err(|_| Error::unavailable(Dependency::Memory, "core dumps could not be forbidden"))?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|_| Error::unavailable(Dependency::Memory, "the process could not be made not dumpable"))
}

/// Whether the keys loaded so far, and one more, are in locked memory: refused in production, told in development.
///
/// # Errors
/// [`Error::Unavailable`] in production.
pub fn check_memory(environment: Environment) -> Result<(), Error> {
    // Root keys may be elsewhere, in an HSM or a KMS: then there is none in memory yet.
    let probe = Key32::generate();
    if probe.is_ok() && secret::status().unlocked == 0 {
        return Ok(());
    }
    if environment == Environment::Production {
        return Err(Error::unavailable(Dependency::Memory, "keys are not in locked memory; raise RLIMIT_MEMLOCK"));
    }
    log(&Event::Warning("keys are in memory that could be swapped out; raise RLIMIT_MEMLOCK"));
    Ok(())
}

/// Refuses root outside development: whoever is root needs no vulnerability to read everything.
///
/// # Errors
/// [`ConfigError`] naming `environment`.
pub fn check_user(config: &Config) -> Result<(), ConfigError> {
    privileges::refuse_root(config.environment, rustix::process::geteuid().is_root())
        .map_err(|why| ConfigError::new(format!("{}, environment", config.file.display()), why))
}

/// A process that has given up its privileges and the files it does not need, and can go on to [`Self::seal`].
#[derive(Debug)]
pub struct Confined {
    syscalls: syscalls::Allowed,
    demand: Demand,
    place: String,
    /// How many processors there are for us: what tells it can no longer be read.
    pub processors: usize,
}

/// Gives up privileges and files, for this thread and every thread that it makes: call it while there is no other.
///
/// `read` are directories that may be read although the configuration does not name them.
///
/// # Errors
/// [`ConfigError`] if the user is root where that is refused, or if the kernel does not restrict what it must.
pub fn confine(config: &Config, read: &[PathBuf]) -> Result<Confined, ConfigError> {
    check_user(config)?;
    umask(Mode::RWXG | Mode::RWXO);
    files::make_directories(config)?;
    restrict(config, read)
}

/// Restricts this process as one that serves, for a command that has done everything else: so `check` tells whether the
/// kernel offers what is required. Makes no directories.
///
/// # Errors
/// As [`confine`] and [`Confined::seal`].
pub fn rehearse(config: &Config) -> Result<(), ConfigError> {
    restrict(config, &[])?.seal()
}

fn restrict(config: &Config, read: &[PathBuf]) -> Result<Confined, ConfigError> {
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    // Modules for names of hosts are loaded once, before their files are gone.
    drop(std::net::ToSocketAddrs::to_socket_addrs(&("localhost", 0)));
    let place = |key: &str| format!("{}, hardening.{key}", config.file.display());
    let demand = config.hardening.landlock;
    let held = |done: Result<(), &'static str>| match (done, demand) {
        (Ok(()), _) => Ok(()),
        (Err(why), Demand::Required) => Err(ConfigError::new(place("landlock"), format!("\"required\", but {why}"))),
        (Err(why), Demand::BestEffort) => {
            log(&Event::Unhardened { what: "landlock", why });
            Ok(())
        }
    };
    let paths = Paths::of(config, read)?;
    held(privileges::drop_all(listens_below_1024(config)))?;
    let restricted = files::restrict(&paths);
    LANDLOCK.store(restricted.is_ok(), Ordering::Relaxed);
    held(restricted)?;
    let syscalls = syscalls::Allowed {
        programs: !paths.execute.is_empty(),
        modules: config.roots.roots.iter().any(|root| matches!(root.root, Root::Pkcs11(_))),
    };
    Ok(Confined { syscalls, demand: config.hardening.seccomp, place: place("seccomp"), processors })
}

fn listens_below_1024(config: &Config) -> bool {
    let addresses = [Some(config.data.address), Some(config.control.address), config.metrics];
    addresses.into_iter().flatten().any(|address| (1..1024).contains(&address.port()))
}

impl Confined {
    /// Takes from all threads every system call that serving does not need. Call it once everything is set up: what is
    /// set up once is not allowed twice.
    ///
    /// # Errors
    /// [`ConfigError`] if the kernel does not do it and it is required.
    pub fn seal(self) -> Result<(), ConfigError> {
        match (syscalls::restrict(self.syscalls), self.demand) {
            (Ok(()), _) => {
                SECCOMP.store(true, Ordering::Relaxed);
                Ok(())
            }
            (Err(why), Demand::Required) => Err(ConfigError::new(self.place, format!("\"required\", but {why}"))),
            (Err(why), Demand::BestEffort) => {
                log(&Event::Unhardened { what: "seccomp", why });
                Ok(())
            }
        }
    }
}
