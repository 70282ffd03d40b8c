//! A backup is read as it was written or refused: nothing in it can be changed, moved, repeated, left out or cut, and no
//! bytes make reading it panic.
#![no_main]

use std::io::Cursor;
use std::sync::{Arc, LazyLock};

use arbitrary::Arbitrary;
use blindvault_fuzz::bed::Bed;
use blindvault_fuzz::change::{Change, changed};
use blindvault_fuzz::memory_store::MemoryStore;
use libfuzzer_sys::fuzz_target;
use pollster::block_on;
use vault_core::backup;
use vault_core::kms::Roots;
use vault_core::store::{Row, Table};
use vault_core::time::Timestamp;

/// Bytes of a chunk's plaintext, and a bit.
const CHUNK: usize = 260 * 1024;

#[derive(Debug, Arbitrary)]
enum Input<'a> {
    Bytes(&'a [u8]),
    /// Changes anywhere, in the first bytes, or of whole chunks.
    Changes(Vec<Change>),
    Header(Vec<Change>),
    Chunks(u8, u8, bool),
}

struct Scene {
    roots: Arc<Roots>,
    backup: Vec<u8>,
    /// Where each chunk begins, and the end.
    chunks: Vec<usize>,
}

static SCENE: LazyLock<Scene> = LazyLock::new(|| {
    let (bed, store) = (Bed::default(), MemoryStore::default());
    let roots = bed.roots();
    let vault = bed.open(Arc::new(store.clone()), Arc::clone(&roots));
    bed.create_tenant(&vault, "acme").unwrap();
    bed.create_dataset(&vault, "acme", "customers").unwrap();
    bed.encrypt(&vault, ("acme", "customers", Some("mia")), 0, b"x").unwrap();
    for n in 0..2 * CHUNK / 60_000 {
        let value = format!("{{\"classification\":\"{}\",\"created\":{n}}}", "x".repeat(60_000)).into_bytes();
        store.rows().insert((Table::Datasets, format!("acme\0set{n:02}").into()), Row { version: 1, value });
    }
    let mut backup = Vec::new();
    block_on(backup::write(&store, &roots, "test", Timestamp(1), &mut backup)).unwrap();
    let len = |at: usize| u32::from_be_bytes(backup[at..at + 4].try_into().unwrap()) as usize;
    let mut chunks = vec![12 + len(8)];
    while chunks[chunks.len() - 1] < backup.len() {
        let at = chunks[chunks.len() - 1];
        chunks.push(at + 4 + len(at));
    }
    Scene { roots, backup, chunks }
});

fn check(bytes: &[u8]) {
    let read = block_on(backup::verify(&mut Cursor::new(bytes), &SCENE.roots, "test"));
    assert_eq!(read.is_ok(), bytes == SCENE.backup, "{:?}", read.err());
    // Read as another installation's, it is none.
    assert!(block_on(backup::verify(&mut Cursor::new(bytes), &SCENE.roots, "other")).is_err());
}

fuzz_target!(|input: Input<'_>| {
    let Scene { backup, chunks, .. } = &*SCENE;
    match input {
        Input::Bytes(bytes) => check(bytes),
        Input::Changes(changes) => check(&changed(backup, &changes)),
        Input::Header(changes) => check(&[&changed(&backup[..chunks[0]], &changes), &backup[chunks[0]..]].concat()),
        Input::Chunks(one, two, repeat) => {
            let mut parts: Vec<_> = chunks.windows(2).map(|ends| &backup[ends[0]..ends[1]]).collect();
            let (one, two) = (usize::from(one) % parts.len(), usize::from(two) % (parts.len() + 1));
            let moved = if repeat { parts[one] } else { parts.remove(one) };
            // At the end of what is left it is not put back.
            if two <= parts.len() - usize::from(!repeat) {
                parts.insert(two.min(parts.len()), moved);
            }
            check(&[&backup[..chunks[0]], &parts.concat()].concat());
        }
    }
});
