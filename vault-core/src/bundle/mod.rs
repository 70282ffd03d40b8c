//! Policy bundles: a schema, policies and a workload registry as one thing with a version, signed by several people.
//!
//! ```text
//! mod          what a bundle is called
//!   stored     bundles in the store that gateways share; which one is in force
//!     rows     their form
//!   charters   which charter is in force
//!   trust      who may sign, what must be proved, for which vault
//!     signed   a bundle with its signatures; its file
//!       content   the canonical bytes, their bounds, their digest
//!   changes    what a bundle changes, by name
//! ```
//!
//! `docs/policy.md`, section "Bundles", is the specification.

mod changes;
mod charters;
mod content;
mod provers;
mod rows;
mod signed;
mod stored;
#[cfg(test)]
mod tests;
mod trust;

use std::fmt;

pub(crate) use changes::{Before, differences};
pub use charters::CharterInForce;
pub(crate) use charters::Charters;
pub use content::{Bundle, MAX_BUNDLE, PolicyFile};
pub use provers::{MAX_PROVERS, Provers};
pub(crate) use rows::check_row;
pub use signed::{MAX_DOCUMENT, MAX_PROOF, MAX_SIGNATURES, SignedBundle};
pub(crate) use stored::{Act, Active, Shelf};
pub use stored::{BundleState, StoredBundle};
pub use trust::{Judged, MAX_SIGNERS, PolicyTrust, ProofCheck, Signers};

use crate::audit::PolicyMark;
use crate::id::Fingerprint;

/// Which bundle: its version, and the digest of its content. As text `7 sha256:…`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BundleRef {
    /// Grows with each bundle that comes into force; the first is 1 or more.
    pub version: u64,
    /// SHA-256 of its canonical bytes.
    pub digest: Fingerprint,
}

impl fmt::Display for BundleRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} sha256:{}", self.version, self.digest)
    }
}

impl From<BundleRef> for PolicyMark {
    fn from(from: BundleRef) -> Self {
        Self { version: from.version, digest: from.digest.0 }
    }
}
