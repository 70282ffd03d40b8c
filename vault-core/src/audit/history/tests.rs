//! Reading by tenant and by index, with proofs, from a log that grows.

use std::sync::Arc;
use std::time::Duration;

use pollster::block_on;

use super::index::Index;
use super::*;
use crate::audit::Pseudonyms;
use crate::audit::merkle::{verify_consistency, verify_inclusion};
use crate::audit::test_support::{Place, refusal};
use crate::audit::{Body, Log, Options, SystemEvent};
use crate::time::SystemClock;

const HOUR: Duration = Duration::from_secs(3600);

const ALL: PageBounds = PageBounds { after: 0, entries: 1000, bytes: usize::MAX, looked_at: 1_000_000 };

/// A log that was closed: everything is published.
fn place(tenants: &[&str]) -> Place {
    let place = Place::new();
    let log = open(&place, HOUR);
    write(&log, tenants);
    log.close().unwrap();
    place
}

/// With patience for a disk that others use.
fn open(place: &Place, checkpoint_every: Duration) -> Log {
    let options = Options { checkpoint_every, ..Options::default() };
    Log::open_with(Arc::new(OsFs), &place.dir, place.signer(), Arc::new(SystemClock), options).unwrap().0
}

fn write(log: &Log, tenants: &[&str]) {
    for (at, tenant) in (0u8..=255).cycle().zip(tenants) {
        block_on(log.refused(&refusal(tenant, at), Pseudonyms::default())).unwrap();
    }
}

fn history(place: &Place) -> History {
    History::new(Arc::new(OsFs), &place.dir, &place.dir.join("tenants"), place.verifier())
}

fn all(history: &History, tenant: &str) -> Page {
    let page = history.page(&TenantId::parse(tenant).unwrap(), ALL, &mut |_, _| Ok(true)).unwrap();
    for proven in page.entries.iter().chain(&page.head) {
        let Checkpoint { size, root } = page.checkpoint;
        assert!(verify_inclusion(&leaf_hash(&proven.bytes), proven.index, size, &proven.path, &root));
        assert_eq!(Entry::decode(&proven.bytes).unwrap(), proven.entry);
    }
    page
}

fn sequences(page: &Page) -> Vec<u64> {
    page.entries.iter().map(|proven| proven.entry.link.as_ref().unwrap().sequence).collect()
}

/// Any order of tenants, also across bundles: each reads its own entries, all of them and no others, in its chain's order.
#[test]
fn each_tenant_reads_all_of_its_own_and_nothing_of_others() {
    let names: Vec<String> = (0..23).map(|n| format!("tenant-{n}")).collect();
    // A generator that is the same each time (Knuth, MMIX).
    let mut state = 1u64;
    let mut dice = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 40).unwrap()
    };
    // Few write most, as it is; one writes nothing.
    let written: Vec<&str> = (0..900).map(|_| names[(dice() % 22) * (dice() % 22) / 22].as_str()).collect();
    let place = place(&written);
    let history = history(&place);
    let mut found = 0;
    for name in &names {
        let page = all(&history, name);
        let expected = written.iter().filter(|tenant| *tenant == name).count() as u64;
        assert_eq!(sequences(&page), (1..=expected).collect::<Vec<_>>(), "{name}");
        assert_eq!((page.seen, page.head.is_some()), (expected, expected > 0));
        for proven in &page.entries {
            assert_eq!(proven.entry.link.as_ref().unwrap().tenant.as_str(), name);
        }
        // They are linked.
        for pair in page.entries.windows(2) {
            assert_eq!(pair[1].entry.link.as_ref().unwrap().previous, leaf_hash(&pair[0].bytes));
        }
        found += page.entries.len();
    }
    assert_eq!(found, written.len());
}

#[test]
fn pages_end_where_they_are_bounded_and_go_on_there() {
    let place = place(&["acme", "other"].repeat(300));
    let history = history(&place);
    let acme = TenantId::parse("acme").unwrap();
    let one = all(&history, "acme").entries[0].bytes.len() + 10 * 32;
    let page = |bounds| history.page(&acme, bounds, &mut |_, _| Ok(true)).unwrap();
    assert_eq!(sequences(&page(PageBounds { after: 40, entries: 3, ..ALL })), [41, 42, 43]);
    // By bytes; one is given in any case.
    assert!((9..=11).contains(&page(PageBounds { bytes: 10 * one, ..ALL }).entries.len()));
    assert_eq!(sequences(&page(PageBounds { bytes: 0, after: 7, ..ALL })), [8]);
    // A selection stops looking, and says where.
    let none = history.page(&acme, PageBounds { looked_at: 50, ..ALL }, &mut |_, _| Ok(false)).unwrap();
    assert_eq!((none.entries.len(), none.seen), (0, 50));
    let last = page(PageBounds { after: 300, ..ALL });
    assert_eq!((last.entries.len(), last.seen), (0, 300));
    assert_eq!(last.head, all(&history, "acme").entries.last().cloned());
    let beyond = history.page(&acme, PageBounds { after: 301, ..ALL }, &mut |_, _| Ok(true)).unwrap_err();
    assert!(matches!(beyond, Error::Invalid { field, .. } if field == "after_sequence"));
}

#[test]
fn a_selection_may_look_at_own_entries_only() {
    let place = place(&["acme", "other", "acme"]);
    let history = history(&place);
    // Entry 0 is the start, 2 the other's.
    let look = |index| {
        let acme = TenantId::parse("acme").unwrap();
        history.page(&acme, ALL, &mut |entry, other| Ok(entry.index != 3 || other(index)?.index == index))
    };
    assert_eq!(look(1).unwrap().entries.len(), 2);
    for foreign in [0, 2, 4, 99] {
        assert!(matches!(look(foreign), Err(Error::Corrupt { .. })), "{foreign}");
    }
}

/// An index that names another's entry, by damage or by somebody's hand, gives nothing away.
#[test]
fn an_index_that_lies_gives_no_foreign_entry() {
    let place = place(&["acme", "other", "acme"]);
    let history = history(&place);
    all(&history, "acme");
    let files: Vec<_> = place.snapshot().into_iter().filter(|(path, _)| path.ends_with("acme")).collect();
    let [(path, bytes)] = files.as_slice() else { panic!("{}", files.len()) };
    assert_eq!(*bytes, [1u64.to_be_bytes(), 3u64.to_be_bytes()].concat());
    for lie in [2u64, 0, 3, 4] {
        std::fs::write(path, [lie.to_be_bytes(), 3u64.to_be_bytes()].concat()).unwrap();
        let read = history.page(&TenantId::parse("acme").unwrap(), ALL, &mut |_, _| Ok(true));
        assert!(matches!(read, Err(Error::Corrupt { .. })), "{lie}");
    }
    // What was made anew is as it should be.
    std::fs::remove_dir_all(place.dir.join("tenants")).unwrap();
    assert_eq!(sequences(&all(&self::history(&place), "acme")), [1, 2]);
}

#[test]
fn an_index_is_followed_across_restarts_crashes_and_growth() {
    let place = place(&["acme"; 300]);
    assert_eq!(all(&history(&place), "acme").entries.len(), 300);
    let log = open(&place, Duration::ZERO);
    let reading = History::of(&log);
    write(&log, &["acme", "other"].repeat(200));
    let last = block_on(log.system(SystemEvent::PolicyEpoch(1))).unwrap().index;
    reading.wait_for(last, Duration::from_secs(20)).unwrap();
    reading.follow().unwrap();
    assert_eq!(sequences(&all(&reading, "acme")), (1..=500).collect::<Vec<_>>());
    assert_eq!(all(&reading, "other").entries.len(), 200);
    log.close().unwrap();
    // A crash left a file short, and zeros in another.
    let files = place.snapshot().into_iter().filter(|(path, _)| path.starts_with(place.dir.join("tenants")));
    for (path, mut bytes) in files {
        let half = bytes.len() / 2;
        if path.ends_with("acme") {
            bytes.truncate(half)
        } else {
            bytes[half..].fill(0)
        }
        std::fs::write(&path, bytes).unwrap();
    }
    assert_eq!(sequences(&all(&history(&place), "acme")), (1..=500).collect::<Vec<_>>());
    assert_eq!(all(&history(&place), "other").entries.len(), 200);
}

/// What is durable is not read again; what is not of this log, or lost, is.
#[test]
fn a_durable_beginning_is_taken_if_it_is_of_this_log() {
    let place = place(&["acme"; 600]);
    let reading = history(&place);
    let (checkpoint, _) = reading.latest().unwrap();
    let mut tree = reading.tree(checkpoint.size, checkpoint.size);
    let index = || Index::new(Arc::new(OsFs), &place.dir.join("tenants"));
    let mut first = index();
    first.follow(&mut tree, &checkpoint).unwrap();
    first.make_durable(&tree, 512).unwrap();
    assert_eq!(index().durable(&tree, checkpoint.size), Some(512));
    // Of a smaller log, or another, it is nothing.
    assert_eq!(index().durable(&tree, 511), None);
    let position = place.dir.join("tenants/position");
    let text = std::fs::read_to_string(&position).unwrap();
    std::fs::write(&position, text.replacen("512", "513", 1)).unwrap();
    assert_eq!(index().durable(&tree, checkpoint.size), None);
    std::fs::write(&position, text).unwrap();
    // It says more than is there: all is read again.
    let file = place.snapshot().into_iter().find(|(path, _)| path.ends_with("acme")).unwrap().0;
    std::fs::write(file, []).unwrap();
    assert_eq!(sequences(&all(&history(&place), "acme")).len(), 600);
}

#[test]
fn proofs_hold_for_every_size_below_the_published_one() {
    let place = place(&["acme"; 20]);
    let history = history(&place);
    let (published, _) = history.latest().unwrap();
    let (_, entries) = history.entries(0, 1000, usize::MAX).unwrap();
    assert_eq!(entries.len() as u64, published.size);
    assert!(matches!(&entries[0].0.body, Body::System { event, .. } if event == "started"));
    let root = |size: u64| {
        let mut edge = crate::audit::merkle::Edge::new();
        entries.iter().take(usize::try_from(size).unwrap()).for_each(|(_, leaf)| edge.push(*leaf));
        edge.root()
    };
    assert_eq!(root(published.size), published.root);
    for size in 1..=published.size {
        for index in 0..size {
            let (_, leaf, path) = history.inclusion(index, Some(size)).unwrap();
            assert!(verify_inclusion(&leaf, index, size, &path, &root(size)));
        }
        let (new, proof) = history.consistency(size, None).unwrap();
        assert!(verify_consistency(size, &root(size), new, &published.root, &proof));
    }
    for (index, size) in [(published.size, None), (0, Some(published.size + 1)), (5, Some(5))] {
        assert!(matches!(history.inclusion(index, size), Err(Error::Invalid { .. })));
    }
    assert!(matches!(history.consistency(published.size + 1, None), Err(Error::Invalid { .. })));
    // Bounded by number and by bytes.
    assert_eq!(history.entries(3, 2, usize::MAX).unwrap().1.iter().map(|(e, _)| e.index).collect::<Vec<_>>(), [3, 4]);
    assert_eq!(history.entries(3, 9, 1).unwrap().1.len(), 1);
    assert_eq!(history.entries(published.size, 9, 1000).unwrap().1.len(), 0);
}

#[test]
fn a_copy_of_the_published_files_is_enough() {
    let place = place(&["acme", "other"].repeat(10));
    let copy = tempfile::tempdir().unwrap();
    for (path, bytes) in place.snapshot() {
        let name = path.strip_prefix(&place.dir).unwrap();
        if ["entries.log", "checkpoints"].iter().all(|not| !name.ends_with(not)) {
            let to = copy.path().join(name);
            std::fs::create_dir_all(to.parent().unwrap()).unwrap();
            std::fs::write(to, bytes).unwrap();
        }
    }
    let indexes = tempfile::tempdir().unwrap();
    let read = History::of_copy(copy.path(), indexes.path()).unwrap();
    assert_eq!(read.verifier(), &place.verifier());
    assert_eq!(all(&read, "acme"), all(&history(&place), "acme"));
    // Nothing was written into the copy.
    assert!(!copy.path().join("tenants").exists());
    assert!(History::of_copy(indexes.path(), indexes.path()).is_err());
}

#[test]
fn whoever_waits_for_a_checkpoint_gets_it_or_is_told() {
    let place = Place::new();
    let log = open(&place, HOUR);
    let history = History::of(&log);
    history.wait_for(0, Duration::from_secs(20)).unwrap();
    write(&log, &["acme"]);
    // No checkpoint but at closing.
    let late = history.wait_for(1, Duration::from_millis(50)).unwrap_err();
    assert!(matches!(late, Error::Unavailable { dependency: Dependency::Audit, .. }));
    log.close().unwrap();
    assert_eq!(self::history(&place).wait_for(1, Duration::ZERO).unwrap().0.size, 3);
}
