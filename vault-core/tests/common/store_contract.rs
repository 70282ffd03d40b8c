//! What every store promises, as tests. A new store passes them all: write a [`Bed`] for it and name that in
//! `store_contract!`.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use pollster::block_on;
use vault_core::Error;
use vault_core::store::{Expect, MAX_BATCH, MAX_KEY, MAX_VALUE, Row, Scanned, Store, Table, Write};

/// A place for one store, empty at first. Dropping what was opened and opening again finds the same rows.
pub(crate) trait Bed {
    /// Opens the store in this place.
    fn open(&self) -> Arc<dyn Store>;
}

/// One `#[test]` for each function of the contract, each in a place of its own made by `$bed`.
macro_rules! store_contract {
    ($module:ident, $bed:expr) => {
        mod $module {
            use super::*;
            store_contract!(@tests $bed,
                absent_rows_are_none, written_rows_are_read, memory_is_never_behind, versions_count, tables_are_apart,
                conflicts_change_nothing, batches_are_whole, one_row_twice_is_refused, bounds_are_named,
                the_largest_fit, scans_are_ordered, scans_page, scans_stay_in_their_prefix, keys_are_bytes,
                reopening_keeps_all, no_update_is_lost, one_of_many_creates, dropped_futures_leave_whole_batches,
                an_empty_batch_is_nothing);
        }
    };
    (@tests $bed:expr, $($name:ident),+) => {
        $(#[test]
        fn $name() {
            crate::store_contract::$name(&$bed);
        })+
    };
}
pub(crate) use store_contract;

/// A write.
pub(crate) fn put(table: Table, key: &[u8], expect: Expect, value: &[u8]) -> Write {
    Write { table, key: key.to_vec(), expect, value: value.to_vec(), revokes: false }
}

fn new(key: &[u8], value: &[u8]) -> Write {
    put(Table::Tenants, key, Expect::Absent, value)
}

fn update(key: &[u8], version: u64, value: &[u8]) -> Write {
    put(Table::Tenants, key, Expect::Version(version), value)
}

fn commit(store: &Arc<dyn Store>, writes: &[Write]) -> Result<(), Error> {
    block_on(store.commit(writes.to_vec()))
}

fn get(store: &Arc<dyn Store>, key: &[u8]) -> Option<Row> {
    block_on(store.get(Table::Tenants, key)).unwrap()
}

fn row(version: u64, value: &[u8]) -> Option<Row> {
    Some(Row { version, value: value.to_vec() })
}

fn scan(store: &Arc<dyn Store>, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Vec<Scanned> {
    block_on(store.scan(Table::Tenants, prefix, after, limit)).unwrap()
}

fn keys(rows: Vec<Scanned>) -> Vec<Vec<u8>> {
    rows.into_iter().map(|scanned| scanned.key).collect()
}

/// Every row of every table.
pub(crate) fn everything(store: &dyn Store) -> Result<Vec<(Table, Scanned)>, Error> {
    let mut all = Vec::new();
    for table in Table::ALL {
        all.extend(block_on(store.scan(table, b"", None, usize::MAX))?.into_iter().map(|scanned| (table, scanned)));
    }
    Ok(all)
}

pub(crate) fn absent_rows_are_none(bed: &impl Bed) {
    let store = bed.open();
    assert_eq!(get(&store, b"nobody"), None);
    // What cannot be written is not there either.
    assert_eq!(get(&store, b""), None);
    assert_eq!(get(&store, &[b'k'; MAX_KEY + 1]), None);
    assert_eq!(scan(&store, b"", None, 10), []);
}

pub(crate) fn written_rows_are_read(bed: &impl Bed) {
    let store = bed.open();
    commit(&store, &[new(b"acme", b"one"), new(b"zeta", b"")]).unwrap();
    assert_eq!(get(&store, b"acme"), row(1, b"one"));
    assert_eq!(get(&store, b"zeta"), row(1, b""));
    assert_eq!(get(&store, b"acm"), None);
    assert_eq!(get(&store, b"acmee"), None);
}

/// A commit through this store is seen at once by reads from memory, whoever reads at the same time, and also if nobody
/// waited for it.
pub(crate) fn memory_is_never_behind(bed: &impl Bed) {
    let store = bed.open();
    let cached = |key: &[u8]| block_on(store.get_cached(Table::Tenants, key)).unwrap();
    assert_eq!(cached(b"k"), None);
    commit(&store, &[new(b"k", b"v")]).unwrap();
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut seen = 0;
            while seen < 60 {
                let version = cached(b"k").unwrap().version;
                assert!(version >= seen, "it went back");
                seen = version;
            }
        });
        for version in 1..60 {
            commit(&store, &[update(b"k", version, b"v")]).unwrap();
            assert_eq!(cached(b"k"), row(version + 1, b"v"));
        }
        reader.join().unwrap();
    });
    let mut unheard = store.commit(vec![update(b"k", 60, b"unheard")]);
    let _ = unheard.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop()));
    drop(unheard);
    // A store that writes in order is done with it when this is; in others it may be under way still.
    commit(&store, &[new(b"later", b"")]).unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    while cached(b"k") != get(&store, b"k") {
        assert!(Instant::now() < deadline, "memory stays behind");
    }
    // Neither does a refused commit leave anything behind.
    commit(&store, &[update(b"k", 1, b"x")]).unwrap_err();
    assert_eq!(cached(b"k"), get(&store, b"k"));
}

pub(crate) fn versions_count(bed: &impl Bed) {
    let store = bed.open();
    commit(&store, &[new(b"k", b"v1")]).unwrap();
    for version in 1..20_u64 {
        // The same value again counts too.
        commit(&store, &[update(b"k", version, b"same")]).unwrap();
        assert_eq!(get(&store, b"k"), row(version + 1, b"same"));
    }
}

pub(crate) fn tables_are_apart(bed: &impl Bed) {
    let store = bed.open();
    let writes: Vec<Write> =
        Table::ALL.iter().map(|table| put(*table, b"k", Expect::Absent, table.name().as_bytes())).collect();
    commit(&store, &writes).unwrap();
    for table in Table::ALL {
        assert_eq!(block_on(store.get(table, b"k")).unwrap(), row(1, table.name().as_bytes()));
    }
}

pub(crate) fn conflicts_change_nothing(bed: &impl Bed) {
    let store = bed.open();
    commit(&store, &[new(b"a", b"1"), new(b"b", b"1")]).unwrap();
    commit(&store, &[update(b"b", 1, b"2")]).unwrap();
    let before = everything(&*store).unwrap();
    let bad = [
        new(b"a", b"x"),
        update(b"a", 2, b"x"),
        update(b"a", 0, b"x"),
        update(b"b", 1, b"x"),
        update(b"b", u64::MAX, b"x"),
        update(b"absent", 1, b"x"),
        update(b"absent", 0, b"x"),
    ];
    for write in bad {
        // The bad write last, first and alone.
        for batch in [
            vec![new(b"fresh", b"f"), update(b"b", 2, b"3"), write.clone()],
            vec![write.clone(), new(b"fresh", b"f")],
            vec![write.clone()],
        ] {
            let unique = batch.iter().filter(|other| other.key == write.key).count() == 1;
            match commit(&store, &batch) {
                Err(Error::Conflict("tenants")) if unique => {}
                Err(Error::Invalid { .. }) if !unique => {}
                other => panic!("{other:?}"),
            }
            assert_eq!(everything(&*store).unwrap(), before);
        }
    }
}

pub(crate) fn batches_are_whole(bed: &impl Bed) {
    let store = bed.open();
    let writes: Vec<Write> = (0..500_u32).map(|n| new(&n.to_be_bytes(), &[7; 100])).collect();
    commit(&store, &writes).unwrap();
    assert_eq!(scan(&store, b"", None, 1000).len(), 500);
}

pub(crate) fn one_row_twice_is_refused(bed: &impl Bed) {
    let store = bed.open();
    for second in [new(b"k", b"2"), update(b"k", 1, b"2")] {
        match commit(&store, &[new(b"other", b""), new(b"k", b"1"), second]) {
            Err(Error::Invalid { field, .. }) => assert_eq!(field, "writes[2].key"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(everything(&*store).unwrap(), []);
    // The same key in two tables is two rows.
    commit(&store, &[new(b"k", b"1"), put(Table::Datasets, b"k", Expect::Absent, b"2")]).unwrap();
}

pub(crate) fn bounds_are_named(bed: &impl Bed) {
    let store = bed.open();
    let refused = |writes: &[Write], name: &str| match commit(&store, writes) {
        Err(Error::Invalid { field, why }) => {
            assert_eq!(field, name);
            assert!(!why.is_empty());
        }
        other => panic!("{name}: {other:?}"),
    };
    refused(&[new(b"good", b""), new(b"", b"v")], "writes[1].key");
    refused(&[new(&[b'k'; MAX_KEY + 1], b"v")], "writes[0].key");
    refused(&[new(b"k", &[0; MAX_VALUE + 1])], "writes[0].value");
    let many: Vec<Write> = (0..=MAX_BATCH as u32).map(|n| new(&n.to_be_bytes(), b"")).collect();
    refused(&many, "writes");
    assert_eq!(everything(&*store).unwrap(), []);
    commit(&store, &many[1..]).unwrap();
}

pub(crate) fn the_largest_fit(bed: &impl Bed) {
    let store = bed.open();
    let (key, value) = ([0xff; MAX_KEY], vec![0xa5; MAX_VALUE]);
    commit(&store, &[new(&key, &value), new(b"k", b"v")]).unwrap();
    assert_eq!(get(&store, &key), row(1, &value));
    assert_eq!(keys(scan(&store, &key, None, 2)), [key.to_vec()]);
}

pub(crate) fn scans_are_ordered(bed: &impl Bed) {
    let store = bed.open();
    let mut wanted: Vec<Vec<u8>> =
        [&b"b"[..], b"a", b"ab", b"a\0", b"\0", b"\xff", b"\xff\xff", b"B", b"aa"].map(<[u8]>::to_vec).to_vec();
    for key in &wanted {
        commit(&store, &[new(key, key)]).unwrap();
    }
    wanted.sort();
    let rows = scan(&store, b"", None, 100);
    assert!(rows.iter().all(|scanned| scanned.row == Row { version: 1, value: scanned.key.clone() }));
    assert_eq!(keys(rows), wanted);
}

pub(crate) fn scans_page(bed: &impl Bed) {
    let store = bed.open();
    let writes: Vec<Write> = (0..103_u8).map(|n| new(&[b'p', n], b"")).collect();
    commit(&store, &writes).unwrap();
    let mut found = Vec::new();
    let mut after: Option<Vec<u8>> = None;
    loop {
        let page = keys(scan(&store, b"p", after.as_deref(), 10));
        assert!(page.len() <= 10);
        let Some(last) = page.last() else { break };
        after = Some(last.clone());
        found.extend(page);
    }
    assert_eq!(found, writes.iter().map(|write| write.key.clone()).collect::<Vec<_>>());
    assert_eq!(scan(&store, b"p", None, 0), []);
}

pub(crate) fn scans_stay_in_their_prefix(bed: &impl Bed) {
    let store = bed.open();
    for key in [&b"a"[..], b"ab", b"ab1", b"ab2", b"ac", b"b", b"\xff", b"\xff\xff"] {
        commit(&store, &[new(key, b"")]).unwrap();
    }
    let found = |prefix: &[u8], after: Option<&[u8]>| keys(scan(&store, prefix, after, 100));
    assert_eq!(found(b"ab", None), [&b"ab"[..], b"ab1", b"ab2"]);
    assert_eq!(found(b"ab", Some(b"ab")), [b"ab1", b"ab2"]);
    // A place before the prefix, beside any row in it, behind it.
    assert_eq!(found(b"ab", Some(b"a")), [&b"ab"[..], b"ab1", b"ab2"]);
    assert_eq!(found(b"ab", Some(b"ab11")), [b"ab2"]);
    assert_eq!(found(b"ab", Some(b"ac")), Vec::<Vec<u8>>::new());
    assert_eq!(found(b"\xff", None), [&b"\xff"[..], b"\xff\xff"]);
    assert_eq!(found(b"c", None), Vec::<Vec<u8>>::new());
}

pub(crate) fn keys_are_bytes(bed: &impl Bed) {
    let store = bed.open();
    // Nothing is folded or normalized: é in one code point and in two, cases, a trailing space and a zero.
    let all = ["\u{e9}", "e\u{301}", "acme", "ACME", "acme ", "acme\0"];
    for key in all {
        commit(&store, &[new(key.as_bytes(), key.as_bytes())]).unwrap();
    }
    for key in all {
        assert_eq!(get(&store, key.as_bytes()), row(1, key.as_bytes()));
    }
}

pub(crate) fn reopening_keeps_all(bed: &impl Bed) {
    let mut before = Vec::new();
    for round in 0..4_u64 {
        let store = bed.open();
        assert_eq!(everything(&*store).unwrap(), before);
        let mut writes: Vec<Write> =
            (0..50).map(|n| put(Table::ALL[n % 6], &[round as u8, n as u8], Expect::Absent, &[n as u8; 300])).collect();
        writes.push(match round {
            0 => new(b"counter", b"c"),
            _ => update(b"counter", round, b"c"),
        });
        commit(&store, &writes).unwrap();
        before = everything(&*store).unwrap();
        assert_eq!(before.len() as u64, 50 * (round + 1) + 1);
    }
    assert_eq!(get(&bed.open(), b"counter").unwrap().version, 4);
}

const THREADS: u64 = 8;
const ROUNDS: u64 = 25;

pub(crate) fn no_update_is_lost(bed: &impl Bed) {
    let store = bed.open();
    commit(&store, &[new(b"n", &0_u64.to_be_bytes())]).unwrap();
    thread::scope(|scope| {
        for id in 0..THREADS {
            let store = &store;
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    loop {
                        let row = get(store, b"n").unwrap();
                        let n = u64::from_be_bytes(row.value.try_into().unwrap());
                        let own = [id as u8, round as u8];
                        let writes = [update(b"n", row.version, &(n + 1).to_be_bytes()), new(&own, b"mine")];
                        match commit(store, &writes) {
                            Ok(()) => break,
                            Err(Error::Conflict(_)) => assert_eq!(get(store, &own), None),
                            Err(other) => panic!("{other}"),
                        }
                    }
                }
            });
        }
    });
    let all = THREADS * ROUNDS;
    assert_eq!(get(&store, b"n"), row(all + 1, &all.to_be_bytes()));
    assert_eq!(scan(&store, b"", None, 10_000).len() as u64, all + 1);
}

pub(crate) fn one_of_many_creates(bed: &impl Bed) {
    let store = bed.open();
    let results: Vec<Result<(), Error>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|id| {
                let store = &store;
                scope.spawn(move || commit(store, &[new(b"k", &[id as u8])]))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let winners: Vec<usize> = (0..results.len()).filter(|id| results[*id].is_ok()).collect();
    assert_eq!(winners.len(), 1);
    assert_eq!(get(&store, b"k"), row(1, &[winners[0] as u8]));
}

pub(crate) fn dropped_futures_leave_whole_batches(bed: &impl Bed) {
    use std::task::{Context, Waker};
    let store = bed.open();
    for n in 0..20_u8 {
        let mut future = store.commit(vec![new(&[b'x', n], b""), new(&[b'y', n], b"")]);
        let _ = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    }
    drop(store.commit(vec![new(b"never polled", b"")]));
    drop(store);
    let store = bed.open();
    assert_eq!(scan(&store, b"x", None, 100).len(), scan(&store, b"y", None, 100).len());
    assert_eq!(get(&store, b"never polled"), None);
}

pub(crate) fn an_empty_batch_is_nothing(bed: &impl Bed) {
    let store = bed.open();
    commit(&store, &[]).unwrap();
    assert_eq!(everything(&*store).unwrap(), []);
}
