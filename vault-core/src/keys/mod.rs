//! The key hierarchy: root → tenant → data → record keys.
//!
//! ```text
//! root key           in a KMS or HSM (feature `dev`: a file)          kms::RootKey
//!  └ tenant key      random, versioned, wrapped by the root           cached as the WrappingKey it derives
//!     ├ side keys    random, one a purpose (audit pseudonyms)
//!     └ data key     random, versioned, one a (tenant, dataset) and one a (tenant, dataset, subject)
//!        └ record key  derived for each nonce prefix                  envelope::DataKey
//! ```

mod cache;
mod custody;
mod keyring;
mod lifecycle;
mod rows;
mod wrapping;

pub use cache::{CacheSettings, CacheStats};
pub use keyring::{Keyring, KeyringParts, OpeningPlan, SealingPlan};
pub use lifecycle::{Dataset, Rotated, Tenant};
pub use rows::{KeyState, TenantState};
pub(crate) use rows::{check_row, is_tombstone};
pub use wrapping::WrappingKey;
