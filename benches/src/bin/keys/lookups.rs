//! Finding a key, against the number of tenants and of subjects.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use vault_benches::lookup::{Lookup, Many};

/// A subject is three rows, a tenant five: three million at most.
const SIZES: [(Many, [u64; 4]); 2] =
    [(Many::Subjects, [1, 100, 10_000, 1_000_000]), (Many::Tenants, [1, 100, 10_000, 200_000])];
/// Each takes one sample of every column of every row of the table.
const ROUNDS: usize = 41;
/// redb's page cache in the store; the same here.
const CACHE: usize = 64 << 20;
const DATA_KEYS: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("data_keys");

/// What is measured at one number of rows.
struct Place {
    rows: u64,
    ours: Lookup,
    redb: Database,
    map: HashMap<Vec<u8>, Vec<u8>>,
    _files: tempfile::TempDir,
    cached: Vec<Duration>,
    uncached: Vec<Duration>,
    bare: Vec<Duration>,
    hashed: Vec<Duration>,
}

impl Place {
    fn open(many: Many, rows: u64) -> Self {
        let dir = super::store_of(many, rows);
        let files = super::scratch();
        // The reference reads a copy, as a store belongs to one who opens it.
        std::fs::copy(dir.join("vault.redb"), files.path().join("copy.redb")).unwrap();
        let redb = Database::builder().set_cache_size(CACHE).open(files.path().join("copy.redb")).unwrap();
        let map = all(&redb);
        let ours = Lookup::open(&dir, files.path(), many, rows);
        let [cached, uncached, bare, hashed] = [const { Vec::new() }; 4];
        Self { rows, ours, redb, map, _files: files, cached, uncached, bare, hashed }
    }

    fn round(&mut self) {
        let hot = self.ours.ready(true);
        self.ours.look_up(&hot);
        self.cached.push(self.ours.look_up(&hot));
        hot.done();
        let cold = self.ours.ready(false);
        self.ours.evict();
        self.uncached.push(self.ours.look_up(&cold));
        let keys = self.ours.row_keys(&cold);
        cold.done();
        self.bare.push(bare(&self.redb, &keys));
        self.hashed.push(hashed(&self.map, &keys));
    }
}

/// All rows of data keys.
fn all(redb: &Database) -> HashMap<Vec<u8>, Vec<u8>> {
    let rows = redb.begin_read().unwrap().open_table(DATA_KEYS).unwrap();
    let entries = rows.iter().unwrap().map(|entry| entry.unwrap());
    entries.map(|(key, value)| (key.value().to_vec(), value.value().to_vec())).collect()
}

/// One row of redb, as the store reads one: a transaction each.
fn bare(redb: &Database, keys: &[Vec<u8>]) -> Duration {
    let begun = Instant::now();
    for key in keys {
        let rows = redb.begin_read().unwrap().open_table(DATA_KEYS).unwrap();
        assert!(!rows.get(key.as_slice()).unwrap().unwrap().value().to_vec().is_empty());
    }
    begun.elapsed() / u32::try_from(keys.len()).unwrap()
}

fn hashed(map: &HashMap<Vec<u8>, Vec<u8>>, keys: &[Vec<u8>]) -> Duration {
    let begun = Instant::now();
    for key in keys {
        assert!(!map.get(key).unwrap().clone().is_empty());
    }
    begun.elapsed() / u32::try_from(keys.len()).unwrap()
}

/// Median and lowest, in microseconds.
fn micros(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    format!("{:.2} ({:.2})", micros(times[times.len() / 2]), micros(times[0]))
}

pub(crate) fn run() {
    for (many, sizes) in SIZES {
        println!("\n## lookups: {many:?}\n");
        let mut places: Vec<Place> = sizes.iter().map(|rows| Place::open(many, *rows)).collect();
        for _ in 0..ROUNDS {
            places.iter_mut().for_each(Place::round);
        }
        println!("| {many:?} | cached | uncached | redb, one row | HashMap |\n|---:|---:|---:|---:|---:|");
        for place in &mut places {
            let times = [&mut place.cached, &mut place.uncached, &mut place.bare, &mut place.hashed];
            let [cached, uncached, bare, hashed] = times.map(|times| micros(times));
            println!("| {} | {cached} | {uncached} | {bare} | {hashed} |", place.rows);
        }
        println!("\n(microseconds: median of {ROUNDS} samples of 256 keys, and the lowest)");
    }
}
