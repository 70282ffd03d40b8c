//! The key hierarchy: root → tenant → data → record keys.

mod cache;
mod rows;
mod wrapping;

pub use cache::{CacheSettings, CacheStats};
pub use rows::{KeyState, TenantState};
pub use wrapping::WrappingKey;
