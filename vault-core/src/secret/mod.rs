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

/// Bytes that [`scrub_deep_stack`] overwrites: GCM of crate `aes-gcm` works on 64 blocks at once where the processor has
/// 512-bit registers, with the round keys beside them.
const DEEP: usize = 32 * 1024;
/// Bytes that [`scrub_wide_stack`] overwrites: fifteen round keys, each four times, and the frames around them.
#[cfg(target_arch = "x86_64")]
const WIDE: usize = 3 * 1024;

/// Overwrites the stack below the caller, where a function that has just returned may have left key material: ring
/// builds its keys on the stack and does not wipe what it moves from.
///
/// Call it from the same frame that called that function.
#[inline(always)]
pub fn scrub_stack() {
    scrub::<SCRUB>();
}

/// The same deeper, for functions of crate `aes-gcm`.
#[inline(always)]
pub fn scrub_deep_stack() {
    scrub::<DEEP>();
}

/// The same for single blocks of crate `aes`: on processors with AVX-512 and VAES it copies every round key four times to
/// the stack, whether or not there are blocks enough to use them. Elsewhere it leaves none there, and this does nothing
/// (`tests/memory_scan`, which has to be run on both kinds).
#[inline(always)]
pub fn scrub_wide_stack() {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx512f") && std::arch::is_x86_feature_detected!("vaes") {
        scrub::<WIDE>();
    }
}

/// The callers are inlined, so that this one's frame begins where those that they called began.
#[inline(never)]
fn scrub<const BYTES: usize>() {
    let mut area = [0u8; BYTES];
    // As a slice, which is one fill; an array is wiped byte by byte.
    zeroize::Zeroize::zeroize(area.as_mut_slice());
    std::hint::black_box(&mut area);
}
