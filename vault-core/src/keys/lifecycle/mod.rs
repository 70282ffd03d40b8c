//! Tenants, datasets, and the life of their keys.
//!
//! ```text
//! tenants    made, read, suspended, resumed        rotation   a new tenant key version, in steps
//! datasets   declared, read, listed                data_keys  new data key versions
//! ```

mod data_keys;
mod datasets;
mod rotation;
mod tenants;

pub use datasets::{Dataset, DatasetProperties};
pub use rotation::Rotation;
pub use tenants::Tenant;

pub(super) use rotation::DESTROYED;
pub(crate) use rotation::Turn;

use std::future::poll_fn;
use std::task::Poll;

use crate::audit::Recorded;
use crate::error::Error;
use crate::id::{DatasetId, TenantId};
use crate::policy::{Action, Permit};
use crate::store::Row;

/// Rows read in one step of a rotation or a list.
const STEP: usize = 256;
/// How often a read-change-write starts over when another writer comes between.
const RETRIES: usize = 16;

fn tenant_of<A: Action>(recorded: &Recorded<Permit<A>>) -> Result<&TenantId, Error> {
    recorded.permit().resource().tenant.as_ref().ok_or_else(|| Error::invalid("tenant", "this call needs one"))
}

fn dataset_of<A: Action>(recorded: &Recorded<Permit<A>>) -> Result<&DatasetId, Error> {
    recorded.permit().resource().dataset.as_ref().ok_or_else(|| Error::invalid("dataset", "this call needs one"))
}

/// Lets other calls on the same thread go first, once.
async fn pause() {
    let mut paused = false;
    poll_fn(|context| {
        if paused {
            return Poll::Ready(());
        }
        paused = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Refuses a change to a tenant that is no longer at the revision the caller saw.
fn at_revision(stored: &Row, revision: Option<u64>) -> Result<(), Error> {
    if revision.is_some_and(|seen| seen != stored.version) { Err(Error::Conflict("tenant")) } else { Ok(()) }
}
