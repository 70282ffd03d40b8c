//! Rehearsals: what the authorizer would say to a request that a file describes. For `policy test` and `policy explain`.
//!
//! A rehearsal asks the code that decides in a gateway, with principals that no certificate and no token proves. Those
//! never leave this module, nor do the permits they get: what comes out is an [`Outcome`], which opens nothing. Builds
//! without feature `prove`, releases among them, have none of it.

mod ask;
mod evaluate;
mod file;

use serde::Serialize;

pub use ask::ask;
pub use evaluate::{Evaluated, evaluate};
pub use file::{Expected, Scene, Scenes};

/// The name of the check that refuses what no caller can ask for, because it does not compile.
pub const TYPES: &str = "types";

/// What was decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// Whether it is allowed.
    pub allowed: bool,
    /// The check that refused: [`crate::error::Check::name`], or [`TYPES`].
    pub check: Option<&'static str>,
    /// Which rule of the check.
    pub reason: Option<&'static str>,
    /// The policies that decided, or that failed; sorted.
    pub policies: Vec<String>,
}

impl std::fmt::Display for Outcome {
    /// For example `deny by check registry (the workload is in no registry entry)`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.allowed { "allow" } else { "deny" })?;
        if let (Some(check), Some(reason)) = (self.check, self.reason) {
            write!(f, " by check {check} ({reason})")?;
        }
        if self.policies.is_empty() { Ok(()) } else { write!(f, " by policies {}", self.policies.join(", ")) }
    }
}
