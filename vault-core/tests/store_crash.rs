//! x
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
#[path = "common/simfs.rs"]
mod simfs;
