//! What every store refuses before it looks at a row.

use std::collections::BTreeSet;

use super::Write;
use crate::error::Error;

/// The longest key, in bytes.
pub const MAX_KEY: usize = 1024;
/// The longest value, in bytes.
pub const MAX_VALUE: usize = 65_536;
/// The most writes in one batch.
pub const MAX_BATCH: usize = 4096;

/// Checks a batch's bounds, and that no two of its writes meet in one row: with each naming the version it replaces,
/// the second could not mean anything a caller might intend.
///
/// # Errors
/// [`Error::Invalid`] naming the field.
pub fn check_batch(writes: &[Write]) -> Result<(), Error> {
    if writes.len() > MAX_BATCH {
        return Err(Error::invalid("writes", "more than 4096 writes in one batch; split it"));
    }
    let mut rows = BTreeSet::new();
    for (i, write) in writes.iter().enumerate() {
        if write.key.is_empty() || write.key.len() > MAX_KEY {
            return Err(Error::invalid(format!("writes[{i}].key"), "must have 1 to 1024 bytes"));
        }
        if write.value.len() > MAX_VALUE {
            return Err(Error::invalid(format!("writes[{i}].value"), "must have at most 65536 bytes"));
        }
        if !rows.insert((write.table, write.key.as_slice())) {
            return Err(Error::invalid(
                format!("writes[{i}].key"),
                "an earlier write of this batch names the same row",
            ));
        }
    }
    Ok(())
}
