//! Consents and time-bound grants: what a decision about a dataset must know besides the dataset itself.
//!
//! ```text
//! consents   granted, withdrawn, listed by end users        grants   made by approval, revoked, listed by operators
//!        └──────────────────────┬──────────────────────────────┘
//!            index     which of them a dataset has to look at; written with each change
//!            facts     what a decision reads, kept until the index changes
//!            sealed    a row that only the tenant's own key makes and reads
//! ```
//!
//! The rows of the table `access` are an index: they say where to look, and can only say it in vain. What holds is in the
//! sealed rows. A dataset's or tenant's own row says whether there is an index at all, so that a decision about a dataset
//! without consents and grants reads nothing more than before.

mod consents;
mod facts;
mod grants;
mod index;
mod sealed;

pub use consents::{Consent, ConsentScope, GivenBy, NewConsent};
pub use grants::{Grant, GrantOrder, Revoked};

pub(super) use facts::KnownAccess;
pub(super) use grants::GrantOrderRow;
pub(super) use index::AccessRow;
pub(super) use sealed::SealedRow;

use crate::crypto::random_bytes;
use crate::error::Error;
use crate::time::Timestamp;

/// How often a read-change-write starts over when another writer comes between.
const RETRIES: usize = 16;

/// A name whose first six bytes are the time in milliseconds, so that names are in the order in which they were made.
pub(super) fn fresh_id(now: Timestamp) -> Result<[u8; 16], Error> {
    let mut id = [0; 16];
    random_bytes(&mut id)?;
    let [_, _, time @ ..] = now.0.to_be_bytes();
    for (place, byte) in id.iter_mut().zip(time) {
        *place = byte;
    }
    Ok(id)
}
