//! Memory for what must not be seen: locked, left out of core dumps, wiped on fork and on drop.
//!
//! - [`Locked<T>`]: one value in the locked arena, for everything that lives longer than a call (keys, cipher states,
//!   unused nonces).
//! - [`Key32`]: 32 bytes of key material in the arena.
//! - [`SecretBytes`]: plaintext on the heap, wiped on drop.
//!
//! None implements `Debug`, `Clone` or a serializer:
//!
//! ```compile_fail,E0277
//! fn show(key: vault_core::secret::Key32) { println!("{key:?}"); }
//! ```
//! ```compile_fail,E0277
//! fn show(bytes: vault_core::secret::SecretBytes) { println!("{bytes:?}"); }
//! ```
//! ```compile_fail,E0599
//! fn copy(key: vault_core::secret::Key32) -> vault_core::secret::Key32 { key.clone() }
//! ```

mod arena;
mod bytes;
mod key;

pub use arena::{LockPolicy, Locked, MemoryStatus, set_lock_policy, status};
pub use bytes::SecretBytes;
pub use key::Key32;

/// Bytes of stack that [`scrub_stack`] overwrites below its caller.
const SCRUB: usize = 8 * 1024;

/// Overwrites the stack below the caller, where a function that has just returned may have left key material: ring
/// builds its keys on the stack and does not wipe what it moves from.
///
/// Call it from the same frame that called that function.
#[inline(never)]
pub fn scrub_stack() {
    let mut area = [0u8; SCRUB];
    // As a slice, which is one fill; an array is wiped byte by byte.
    zeroize::Zeroize::zeroize(area.as_mut_slice());
    std::hint::black_box(&mut area);
}
