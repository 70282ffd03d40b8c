//! The key hierarchy: root → tenant → data → record keys.
//!
//! ```text
//! root key           in a KMS or HSM (feature `dev`: a file)          kms::RootKey
//!  └ tenant key      random, versioned, wrapped by the root           cached as the WrappingKey it derives
//!     ├ side keys    random, one a purpose (audit pseudonyms)
//!     └ data key     random, versioned, one a (tenant, dataset) and one a (tenant, dataset, subject)
//!        └ record key  derived for each nonce prefix                  envelope::DataKey
//! ```

mod access;
mod approval;
mod cache;
mod census;
mod custody;
mod destruction;
mod due;
mod evicted;
mod keyring;
mod kinds;
mod lifecycle;
mod names;
mod pseudonyms;
pub(crate) mod receipt;
mod rows;
mod shred;
mod subjects;
mod work;
mod wrapping;

pub use access::{Consent, ConsentScope, GivenBy, Grant, GrantOrder, NewConsent, Revoked};
pub use approval::{Approval, ApprovalFilter, ApprovalState, Demand, MAX_REQUIRED, Ordered, Seen, Vote, Voter};
pub use cache::{CacheSettings, CacheStats};
pub use census::{AGE_BOUNDS_DAYS, Between, Census, CensusLimits, Erasure, KeyAges};
pub use keyring::{Keyring, KeyringParts, OpeningPlan, SealingPlan};
pub use lifecycle::{Dataset, DatasetProperties, Rotation, Tenant};

pub(crate) use approval::{Chore, Lines, NewApproval, Then, Voted};
pub(crate) use due::Due;
pub(crate) use evicted::Everywhere;
pub(crate) use kinds::{check_row, is_tombstone};
pub(crate) use lifecycle::Turn;
pub use receipt::{Evicted, LeaseEnded, ReceiptText};
pub use rows::{KeyState, TenantState};
pub(crate) use shred::{BUSY, Shredded};
pub use wrapping::WrappingKey;
