//! The one error type of the library, safe to log by construction.
//!
//! A variant holds only what was decided at compile time (`&'static str`, enumerations), positions in our own files,
//! identifiers that have passed [`crate::id`] and what a proof says about policies. None can hold plaintext, key material
//! or a caller's context.

use std::fmt;

/// What failed, in a form that may be shown to the caller and written to a log.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// A field of the request is not acceptable; nothing was read or changed.
    Invalid {
        /// The field, as the API names it, for example `tenant` or `context[3].key`.
        field: String,
        /// Why, without repeating the value.
        why: &'static str,
    },
    /// A check refused. The same whether or not the resource exists.
    Denied(Check),
    /// The envelope does not open: malformed, altered, another context, an unknown or destroyed key. Always the same.
    Unopenable,
    /// A control-plane resource (never customer data) does not exist.
    NotFound(&'static str),
    /// A control-plane resource exists already.
    AlreadyExists(&'static str),
    /// The request is well formed but the state forbids it, for example a destroyed key.
    FailedPrecondition(&'static str),
    /// It was not proved of a policy set that it keeps the guards; the set stays out of force.
    NotProven(Box<Unproven>),
    /// Two writers met, and the other one won; the caller may read again and retry.
    Conflict(&'static str),
    /// Something this call depends on is not there. Nothing was released.
    Unavailable {
        /// Which dependency.
        dependency: Dependency,
        /// What it did, without data.
        why: &'static str,
    },
    /// A root key did not answer with a key. Nothing was released.
    RootKey {
        /// Which, by its id: a name for logs and operators, not a key.
        root: String,
        /// True if trying again may help: it was not there. False if it refuses, or is disabled.
        retry: bool,
        /// What it did, without data.
        why: &'static str,
    },
    /// Something outside answered as it never does by itself. The call was denied, nothing of the answer was used, and
    /// somebody has to look: the gateway logs it.
    Alarm(&'static str),
    /// A file of ours is damaged. Nothing was changed on disk.
    Corrupt {
        /// Which file or structure.
        what: String,
        /// Where in it, and what was expected there.
        at: String,
    },
}

/// What was not proved of a policy set, and why. It speaks of policies only, which are no customer's data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unproven {
    why: &'static str,
    property: String,
    requests: String,
    detail: String,
}

impl Unproven {
    /// `why` decided at compile time; the property, the kind of requests (for example `Operator, Decrypt, Dataset`), and
    /// a counterexample or what hindered the proof. Of these the first 100, 200 and 1,500 characters are kept, and of the
    /// characters those of ASCII that can be seen, spaces and newlines: they come from another process.
    pub fn new(why: &'static str, property: &str, requests: &str, detail: &str) -> Self {
        let plain = |text: &str, most: usize| {
            let shown = |c: char| if c == '\n' || (' '..='~').contains(&c) { c } else { '?' };
            text.trim_end().chars().take(most).map(shown).collect()
        };
        Self { why, property: plain(property, 100), requests: plain(requests, 200), detail: plain(detail, 1500) }
    }

    /// Why, decided at compile time.
    pub const fn why(&self) -> &'static str {
        self.why
    }

    /// The property, as `policy prove` names it; empty if there was no answer at all.
    pub fn property(&self) -> &str {
        &self.property
    }

    /// The kind of requests; empty if there was no answer at all.
    pub fn requests(&self) -> &str {
        &self.requests
    }

    /// A counterexample on several lines, or what hindered the proof; may be empty.
    pub fn detail(&self) -> &str {
        &self.detail
    }
}

impl fmt::Display for Unproven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the policy set is not proven: {}", self.why)?;
        for part in [&self.property, &self.requests].into_iter().filter(|part| !part.is_empty()) {
            write!(f, "; {part}")?;
        }
        if self.detail.is_empty() { Ok(()) } else { write!(f, "\n{}", self.detail) }
    }
}

/// The check that refused a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Check {
    /// The certificate does not prove an identity this listener accepts.
    Identity,
    /// The operator is in no list of operators.
    Operator,
    /// The workload is in no registry entry, or the tenant is not in its entry.
    Registry,
    /// The policy set does not allow it, or could not be evaluated.
    Policy,
    /// The tenant is suspended.
    Suspended,
    /// The end user's token proves nobody who may ask here: not valid, of another tenant, no second factor.
    EndUser,
    /// The dataset is released only with the tenant's consent, and none covers the purpose.
    Consent,
}

/// Something outside the process or the call that has to answer before plaintext moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dependency {
    /// The audit log (disk or sink).
    Audit,
    /// The row store.
    Store,
    /// The root key (KMS, HSM or local).
    RootKey,
    /// The operating system's random number generator.
    Entropy,
    /// Locked memory.
    Memory,
    /// The policy set.
    Policy,
}

impl Check {
    /// A stable name for status details and audit entries.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Operator => "operator",
            Self::Registry => "registry",
            Self::Policy => "policy",
            Self::Suspended => "suspended",
            Self::EndUser => "end_user",
            Self::Consent => "consent",
        }
    }
}

impl Dependency {
    /// A stable name for status details and audit entries.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Audit => "audit",
            Self::Store => "store",
            Self::RootKey => "root_key",
            Self::Entropy => "entropy",
            Self::Memory => "memory",
            Self::Policy => "policy",
        }
    }
}

impl Error {
    /// An unacceptable field.
    pub fn invalid(field: impl Into<String>, why: &'static str) -> Self {
        Self::Invalid { field: field.into(), why }
    }

    /// A dependency that did not answer.
    pub const fn unavailable(dependency: Dependency, why: &'static str) -> Self {
        Self::Unavailable { dependency, why }
    }

    /// A damaged file.
    pub fn corrupt(what: impl Into<String>, at: impl Into<String>) -> Self {
        Self::Corrupt { what: what.into(), at: at.into() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid { field, why } => write!(f, "invalid {field}: {why}"),
            Self::Denied(check) => write!(f, "denied by {}", check.name()),
            Self::Unopenable => f.write_str("the envelope does not open"),
            Self::NotFound(what) => write!(f, "no such {what}"),
            Self::AlreadyExists(what) => write!(f, "{what} exists already"),
            Self::FailedPrecondition(why) => write!(f, "not possible in this state: {why}"),
            Self::NotProven(what) => what.fmt(f),
            Self::Conflict(what) => write!(f, "{what} was changed by another call meanwhile; read it again and retry"),
            Self::Unavailable { dependency, why } => write!(f, "{} unavailable: {why}", dependency.name()),
            Self::RootKey { root, retry: true, why } => write!(f, "root key {root} unavailable: {why}"),
            Self::RootKey { root, why, .. } => write!(f, "not possible in this state: {why} (root key {root})"),
            Self::Alarm(what) => write!(f, "alarm: {what}"),
            Self::Corrupt { what, at } => write!(f, "{what} is damaged: {at}"),
        }
    }
}

impl std::error::Error for Error {}
