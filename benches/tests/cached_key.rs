//! What a key in memory takes is what `docs/keys.md` states: counted, not timed.

use std::time::{Duration, Instant};

use vault_benches::cached::{Bytes, Cached};
use vault_benches::counting::Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

const TENANTS: usize = 5000;
/// The bounds of `docs/keys.md`, "Keys in memory", in bytes for a data key and the tenant key above it.
const HEAP_IN_USE: u64 = 1300;
const ARENA_IN_USE: u64 = 2112;
const HEAP_AT_REST: u64 = 1100;
const ARENA_AT_REST: u64 = 320;

#[test]
fn a_key_in_memory_takes_no_more_than_is_stated() {
    let dir = tempfile::tempdir().unwrap();
    let cached = Cached::open(dir.path(), TENANTS);
    let each = |bytes: Bytes| (bytes.heap / TENANTS as u64, bytes.arena / TENANTS as u64);
    let envelopes = cached.encrypt_all();
    cached.decrypt_all(&envelopes);
    drop(envelopes);
    assert_eq!(cached.held(), (TENANTS as u64, TENANTS as u64), "all are in memory");
    let (heap, arena) = each(cached.bytes());
    assert!(heap <= HEAP_IN_USE && arena <= ARENA_IN_USE, "in use: {heap} on the heap, {arena} in the arena");
    // So that no bound is far from what it bounds.
    assert!(heap > HEAP_IN_USE / 2 && arena > ARENA_IN_USE / 2, "in use: {heap} on the heap, {arena} in the arena");

    cached.rest();
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let (heap, arena) = each(cached.bytes());
        if heap <= HEAP_AT_REST && arena <= ARENA_AT_REST {
            break;
        }
        assert!(Instant::now() < deadline, "at rest: {heap} on the heap, {arena} in the arena");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(cached.held(), (TENANTS as u64, TENANTS as u64), "all are still in memory");
}
