//! The configuration: typed TOML, unknown keys refused, every error with file, line and what is expected there.

mod approvals;
#[cfg(feature = "aws")]
mod aws;
mod charter;
mod end_users;
mod hardening;
mod lifecycle;
mod limits;
mod operators;
mod pinned;
mod policy;
mod prove;
mod read;
mod release;
mod roots;
mod segments;
mod sink;
mod store;
mod witness;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use vault_core::audit::LogVerifier;
use vault_core::vault::{ApprovalSettings, LifecycleSettings};

pub use end_users::{IssuerKeys, KeysUrl, TokenIssuer};
pub use hardening::{Demand, Hardening};
pub use limits::Limits;
pub use operators::{Operators, OperatorsFile};
pub use pinned::PinnedUrl;
pub use release::Release;
pub use roots::{CustodyNames, NamedRoot, Pkcs11, Root, Roots};
pub use segments::Segments;
pub use sink::{Fields, LogSink, SinkTarget, Syslog};
pub use store::{Postgres, PostgresAddress, Store};
pub use witness::LogWitness;

/// Longest configuration file, in bytes.
pub const MAX_CONFIG: u64 = 256 * 1024;

/// What is wrong with the configuration or a file that it names: where, and what is expected there. It quotes names and
/// paths of the configuration, never the contents of a file with a key in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    place: String,
    why: String,
}

impl ConfigError {
    /// An error at a place.
    pub fn new(place: impl Into<String>, why: impl Into<String>) -> Self {
        Self { place: place.into(), why: why.into() }
    }

    /// The file, and as far as known the line and the key.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// What is wrong there, or what is expected.
    pub fn why(&self) -> &str {
        &self.why
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.why)
    }
}

impl std::error::Error for ConfigError {}

/// Where this gateway runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Environment {
    /// On a developer's machine: loopback only in builds with feature `dev`.
    Dev,
    /// For real; refused by builds with feature `dev`.
    Production,
}

impl Environment {
    /// As it is written in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dev => "dev",
            Self::Production => "production",
        }
    }
}

/// A file that the configuration names, and where it does so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedFile {
    /// The file; relative paths are taken from the directory of the configuration.
    pub path: PathBuf,
    place: String,
}

impl NamedFile {
    /// An error about this file.
    pub fn error(&self, why: impl fmt::Display) -> ConfigError {
        ConfigError::new(&self.place, format!("{}: {why}", self.path.display()))
    }
}

/// One of the two listeners.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Where to listen. Port 0 takes a free one.
    pub address: SocketAddr,
    /// The gateway's certificate and its intermediates, leaf first (PEM).
    pub certificate: NamedFile,
    /// Its private key (PEM, mode 0600).
    pub key: NamedFile,
    /// The root certificates that name callers of this plane (PEM).
    pub client_ca: NamedFile,
    /// Revocation lists (PEM). With at least one, every certificate below the roots must be covered by a fresh list.
    pub crls: Vec<NamedFile>,
    /// The trust domain that callers' SPIFFE IDs lie in.
    pub trust_domain: String,
    /// The configuration's line of `trust_domain`.
    pub(crate) trust_domain_place: String,
}

/// The policies and the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The Cedar schema.
    pub schema: NamedFile,
    /// The policy files; none is allowed, and denies everything.
    pub policies: Vec<NamedFile>,
    /// The workload registry.
    pub registry: NamedFile,
    /// The verifier keys of those who sign policy bundles. With at least one, the files above decide only until the first
    /// bundle comes into force.
    pub signers: Vec<LogVerifier>,
    /// How many of them have to sign.
    pub quorum: usize,
    /// The verifier keys of the provers: a bundle needs a proof record of one of them. None if it needs no proof.
    pub provers: Vec<LogVerifier>,
    /// How this gateway proves a bundle that brings no such record; `None` if it does not.
    pub prove: Option<Prove>,
    /// Where the signers are named.
    pub(crate) signers_place: String,
}

/// How a gateway proves policy sets by itself, in a process of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prove {
    /// The solver's program: cvc5, or an interpreter.
    pub solver: NamedFile,
    /// Arguments before the solver's options.
    pub arguments: Vec<String>,
    /// The time for one proof.
    pub timeout: Duration,
    /// The address space of the proof, and of the solver, each; in MiB.
    pub memory_mib: u64,
}

/// Bounds of the key cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cache {
    /// Keys at most, of each kind.
    pub capacity: usize,
    /// How long a key stays in memory at most.
    pub ttl: Duration,
    /// How long a key stays in memory without being used.
    pub idle: Duration,
}

/// A configuration whose values are each acceptable; whether the files it names are is found when they are loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The configuration file.
    pub file: PathBuf,
    /// Where this gateway runs.
    pub environment: Environment,
    /// This installation's id, which is bound into every wrapped tenant key and names the audit log.
    pub instance: String,
    /// The data plane, for workloads.
    pub data: Listener,
    /// The control plane, for operators.
    pub control: Listener,
    /// Where the rows are.
    pub store: Store,
    /// The audit log's directory.
    pub audit_dir: NamedFile,
    /// The audit log's signing key (mode 0600).
    pub audit_key: NamedFile,
    /// Bounds of the audit log's segments, and where they are archived.
    pub segments: Segments,
    /// Who is asked to cosign the audit log's checkpoints.
    pub witnesses: Vec<LogWitness>,
    /// Who else gets every entry of the audit log.
    pub sinks: Vec<LogSink>,
    /// The root keys.
    pub roots: Roots,
    /// How AWS KMS is asked; `None` if it is not.
    #[cfg(feature = "aws")]
    pub aws: Option<vault_core::kms::aws::AwsKmsSettings>,
    /// The policies and the registry.
    pub policy: Policy,
    /// Whether the charter changes by approval only; not asked for in development.
    pub charter_enforced: bool,
    /// Whose tokens prove end users; with none, every token is refused.
    pub end_users: Vec<TokenIssuer>,
    /// Who operates the vault.
    pub operators: Operators,
    /// Bounds of connections and calls.
    pub limits: Limits,
    /// Bounds of the key cache.
    pub cache: Cache,
    /// Where metrics are told in the clear, on loopback; `None` (the default) tells none.
    pub metrics: Option<SocketAddr>,
    /// What the process denies itself.
    pub hardening: Hardening,
    /// How long keys and approvals live.
    pub lifecycle: LifecycleSettings,
    /// How many people it takes to approve something, and how long a shred waits then.
    pub approvals: ApprovalSettings,
    /// The release that this executable has to be; `None` asks for none.
    pub release: Option<Release>,
    /// Whether log lines are JSON (the default in production) or for people.
    pub json_logs: bool,
}

impl Config {
    /// Reads a configuration file.
    ///
    /// # Errors
    /// The first thing that is not acceptable.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        let place = file.display().to_string();
        let len = std::fs::metadata(file).map_err(|e| ConfigError::new(&place, cannot_read(&e)))?.len();
        if len > MAX_CONFIG {
            return Err(ConfigError::new(place, "the file is longer than 256 KiB"));
        }
        let text = std::fs::read_to_string(file).map_err(|e| ConfigError::new(&place, cannot_read(&e)))?;
        Self::parse(&text, file)
    }

    /// Reads a configuration from its text; `file` is what relative paths start from and what errors name.
    ///
    /// # Errors
    /// The first thing that is not acceptable.
    pub fn parse(text: &str, file: &Path) -> Result<Self, ConfigError> {
        read::read(text, file)
    }

    /// Whether a policy bundle needs a proof to come into force: a prover's, or the gateway's own.
    pub fn demands_proof(&self) -> bool {
        self.policy.prove.is_some() || !self.policy.provers.is_empty()
    }

    /// The name of the audit log, as its checkpoints and verifier key carry it.
    pub fn log_origin(&self) -> String {
        log_origin(&self.instance)
    }
}

/// The name of the audit log of an instance.
pub fn log_origin(instance: &str) -> String {
    format!("blindvault/{instance}")
}

/// Why a file cannot be read, by kind only.
pub fn cannot_read(error: &std::io::Error) -> String {
    format!("cannot be read: {}", error.kind())
}
