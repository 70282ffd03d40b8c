//! An allocator that counts bytes, for those who make it theirs with `#[global_allocator]`.
#![expect(unsafe_code, reason = "a counting allocator implements GlobalAlloc, which is an unsafe trait")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

/// The system's allocator, with the bytes counted that are in use. What an allocation costs above its size is not seen.
#[derive(Debug)]
pub struct Counting;

static HELD: AtomicU64 = AtomicU64::new(0);

/// Bytes allocated and not freed, in the whole process.
pub fn held() -> u64 {
    HELD.load(Ordering::Relaxed)
}

// SAFETY: every call is passed on to the system's allocator as it came; counting touches no memory of the allocation.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size() as u64, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size() as u64, Ordering::Relaxed);
        // SAFETY: as in `alloc`: what is freed here came from the same allocator.
        unsafe { System.dealloc(ptr, layout) }
    }
}
