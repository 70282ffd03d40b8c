//! `[hardening]`: what the process must deny itself, and the files that are not named elsewhere.

use serde::Deserialize;

use super::read::{Reader, Text};
use super::{ConfigError, Environment, NamedFile};

/// What becomes of a restriction that the kernel does not offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Demand {
    /// The gateway does not start.
    Required,
    /// It starts, and says so.
    BestEffort,
}

/// What the process denies itself, beyond what it always does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hardening {
    /// The allow-list of system calls.
    pub seccomp: Demand,
    /// The allow-list of files.
    pub landlock: Demand,
    /// Files and directories that may be read, beside those that the configuration names elsewhere.
    pub read: Vec<NamedFile>,
    /// Files and directories that may be read and written, beside those of store and audit log: an HSM module's.
    pub write: Vec<NamedFile>,
    /// Programs that may be run; none, unless named.
    pub executables: Vec<NamedFile>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawHardening {
    seccomp: Option<Text>,
    landlock: Option<Text>,
    #[serde(default)]
    read: Vec<Text>,
    #[serde(default)]
    write: Vec<Text>,
    #[serde(default)]
    executables: Vec<Text>,
}

impl Reader<'_> {
    pub(super) fn hardening(&self, raw: &RawHardening, environment: Environment) -> Result<Hardening, ConfigError> {
        let demand = |text: &Option<Text>, key: &str| match text {
            None if environment == Environment::Dev => Ok(Demand::BestEffort),
            None => Ok(Demand::Required),
            Some(text) => match text.get_ref().as_str() {
                "required" => Ok(Demand::Required),
                "best-effort" => Ok(Demand::BestEffort),
                _ => Err(self.refuse(text.span().start, key, "must be \"required\" or \"best-effort\"")),
            },
        };
        let read = self.files(&raw.read, "hardening.read")?;
        let write = self.files(&raw.write, "hardening.write")?;
        let executables = self.files(&raw.executables, "hardening.executables")?;
        if let Some(file) = read.iter().chain(&write).find(|file| file.path.parent().is_none()) {
            return Err(file.error("would open every file to the gateway; name a directory below it"));
        }
        Ok(Hardening {
            seccomp: demand(&raw.seccomp, "hardening.seccomp")?,
            landlock: demand(&raw.landlock, "hardening.landlock")?,
            read,
            write,
            executables,
        })
    }
}
