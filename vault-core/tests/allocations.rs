//! Sealing and opening allocate once per message, in place not at all; but for the first message of a thread, and for
//! each new run of nonces or record key, which live in the arena.
#![expect(unsafe_code, reason = "a counting allocator implements GlobalAlloc, which is an unsafe trait")]
#![expect(clippy::unwrap_used, reason = "tests")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;

use vault_core::envelope::{Context, DataKey, OVERHEAD, Scope};
use vault_core::id::{DatasetId, KeyId, KeyVersion, Subject, TenantId};
use vault_core::secret::Key32;

struct Counting;

thread_local! {
    static CALLS: Cell<usize> = const { Cell::new(0) };
}

fn count() {
    // Fails only in a thread that is ending.
    let _ = CALLS.try_with(|calls| calls.set(calls.get() + 1));
}

// SAFETY: every call is passed on to the system's allocator as it came; counting touches no memory of the allocation.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: as in `alloc`: what is freed here came from the same allocator.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count();
        // SAFETY: as in `alloc`.
        unsafe { System.realloc(ptr, layout, new_size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Allocations of this thread while `work` runs.
fn allocations(work: impl FnOnce()) -> usize {
    let before = CALLS.get();
    work();
    CALLS.get() - before
}

fn key() -> DataKey {
    let scope = Scope {
        tenant: TenantId::parse("acme").unwrap(),
        dataset: DatasetId::parse("customers").unwrap(),
        subject: Some(Subject::parse("user-1842").unwrap()),
    };
    DataKey::new(&Key32::copy_of(&[7; 32]).unwrap(), KeyId([1; 16]), KeyVersion::FIRST, scope).unwrap()
}

#[test]
fn one_allocation_a_message() {
    const MESSAGES: usize = 1000;
    let key = key();
    let context = Context::from_pairs([("table", "payments"), ("column", "card_number")]).unwrap();
    for len in [0, 16, 64, 1000, 70_000] {
        let plaintext = vec![0x55; len];
        // The first message makes this thread's working state.
        let envelope = key.seal(&context, &plaintext).unwrap();
        drop(key.open(&context, &envelope).unwrap());

        let sealing = || (0..MESSAGES).for_each(|_| drop(black_box(key.seal(&context, &plaintext).unwrap())));
        assert!((MESSAGES..=MESSAGES + 8).contains(&allocations(sealing)), "sealing {len} bytes");
        let opening = || (0..MESSAGES).for_each(|_| drop(black_box(key.open(&context, &envelope).unwrap())));
        // Nothing at all is allocated for an empty plaintext.
        assert_eq!(allocations(opening), if len == 0 { 0 } else { MESSAGES }, "opening {len} bytes");

        let mut buffer = vec![0x55; len + OVERHEAD];
        let in_place = || {
            for _ in 0..MESSAGES {
                key.seal_in_place(&context, &mut buffer).unwrap();
            }
        };
        assert!(allocations(in_place) <= 8, "sealing {len} bytes in place");
        let refusals = || {
            for _ in 0..MESSAGES {
                buffer.copy_from_slice(&envelope);
                key.open_in_place(&context, &mut buffer).unwrap();
                assert!(key.open_in_place(&context, &mut buffer).is_err() || len == 0);
            }
        };
        assert_eq!(allocations(refusals), 0, "opening {len} bytes in place, and refusing");
    }
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| drop(black_box(vec![0u8; 100]))), 1);
}
