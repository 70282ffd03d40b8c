//! What the process denies to others on the machine: no core dump, no tracing, no reading of its memory by a process of
//! the same user.

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use vault_core::Error;
use vault_core::error::Dependency;
use vault_core::secret;

use crate::config::Environment;
use crate::telemetry::{Event, log};

/// Forbids core dumps and makes the process not dumpable, which also denies `ptrace` and `/proc/<pid>/mem` to the same
/// user.
///
/// # Errors
/// [`Error::Unavailable`] if the operating system refuses either: then the gateway does not start.
pub fn apply() -> Result<(), Error> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none)
        .map_err(|_| Error::unavailable(Dependency::Memory, "core dumps could not be forbidden"))?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|_| Error::unavailable(Dependency::Memory, "the process could not be made not dumpable"))
}

/// Whether the keys loaded so far are in locked memory: refused in production, told in development.
///
/// # Errors
/// [`Error::Unavailable`] in production.
pub fn check_memory(environment: Environment) -> Result<(), Error> {
    if secret::status().unlocked == 0 {
        return Ok(());
    }
    if environment == Environment::Production {
        return Err(Error::unavailable(Dependency::Memory, "keys are not in locked memory; raise RLIMIT_MEMLOCK"));
    }
    log(&Event::Warning("keys are in memory that could be swapped out; raise RLIMIT_MEMLOCK"));
    Ok(())
}
