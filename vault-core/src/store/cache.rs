//! Rows in memory, for data calls: bounded, dropped when they are written, by the row or by the tenant.
//!
//! Only rows that exist are kept, so a row made elsewhere is found at once. Each shard has two generations: what is
//! used moves to the young one, and when that is full the old one goes.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Row, Table};

const SHARDS: usize = 32;

/// The tenant of a row: the first part of its key.
pub(super) fn tenant_of(key: &[u8]) -> &[u8] {
    key.split(|byte| *byte == 0).next().unwrap_or_default()
}

#[derive(Default)]
struct Shard {
    young: HashMap<Vec<u8>, Row>,
    old: HashMap<Vec<u8>, Row>,
    /// Grows whenever rows are dropped for a change, so that what was read before it is not kept.
    drops: u64,
}

/// Rows in memory.
pub(super) struct RowCache {
    shards: Vec<Mutex<Shard>>,
    hasher: RandomState,
    /// Rows in one generation of a shard.
    half: usize,
}

impl fmt::Debug for RowCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RowCache")
    }
}

/// Taken before a row is read from the database.
#[derive(Clone, Copy)]
pub(super) struct Ticket(u64);

/// The table's number, then the key: whose tenant is found behind the first byte.
fn name(table: Table, key: &[u8]) -> Vec<u8> {
    [&[table as u8][..], key].concat()
}

impl RowCache {
    pub(super) fn new(rows: usize) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { shards, hasher: RandomState::new(), half: (rows / SHARDS / 2).max(1) }
    }

    fn shard(&self, tenant: &[u8]) -> Option<MutexGuard<'_, Shard>> {
        let at = usize::try_from(self.hasher.hash_one(tenant) % SHARDS as u64).ok()?;
        Some(self.shards.get(at)?.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A row, or what to hand in when it was read.
    pub(super) fn get(&self, table: Table, key: &[u8]) -> Result<Row, Ticket> {
        let Some(mut shard) = self.shard(tenant_of(key)) else { return Err(Ticket(0)) };
        let name = name(table, key);
        if let Some(row) = shard.young.get(&name) {
            return Ok(row.clone());
        }
        match shard.old.remove(&name) {
            Some(row) => {
                shard.put(name, row.clone(), self.half);
                Ok(row)
            }
            None => Err(Ticket(shard.drops)),
        }
    }

    /// Keeps a row unless rows were dropped since its ticket.
    pub(super) fn put(&self, table: Table, key: &[u8], row: &Row, ticket: Ticket) {
        if let Some(mut shard) = self.shard(tenant_of(key))
            && shard.drops == ticket.0
        {
            shard.put(name(table, key), row.clone(), self.half);
        }
    }

    /// Drops one row.
    pub(super) fn drop_row(&self, table: Table, key: &[u8]) {
        let Some(mut shard) = self.shard(tenant_of(key)) else { return };
        shard.drops += 1;
        let name = name(table, key);
        shard.young.remove(&name);
        shard.old.remove(&name);
    }

    /// Drops all rows of a tenant.
    #[cfg(any(test, feature = "postgres"))]
    pub(super) fn drop_tenant(&self, tenant: &[u8]) {
        let Some(mut shard) = self.shard(tenant) else { return };
        let other = |name: &Vec<u8>, _: &mut Row| tenant_of(name.get(1..).unwrap_or_default()) != tenant;
        shard.drops += 1;
        shard.young.retain(other);
        shard.old.retain(other);
    }

    /// Drops everything.
    #[cfg(any(test, feature = "postgres"))]
    pub(super) fn clear(&self) {
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.drops += 1;
            shard.young.clear();
            shard.old.clear();
        }
    }
}

impl Shard {
    fn put(&mut self, name: Vec<u8>, row: Row, half: usize) {
        if self.young.len() >= half {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(name, row);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(version: u64) -> Row {
        Row { version, value: vec![7; 10] }
    }

    fn miss(cache: &RowCache, key: &[u8]) -> Ticket {
        cache.get(Table::DataKeys, key).unwrap_err()
    }

    #[test]
    fn rows_are_kept_until_their_tenant_changes() {
        let cache = RowCache::new(1000);
        for key in [&b"acme\0one"[..], b"acme\0two", b"acme2\0one", b"acme"] {
            cache.put(Table::DataKeys, key, &row(1), miss(&cache, key));
            assert_eq!(cache.get(Table::DataKeys, key).ok(), Some(row(1)));
            assert!(cache.get(Table::Tenants, key).is_err(), "tables are apart");
        }
        cache.drop_row(Table::DataKeys, b"acme\0two");
        miss(&cache, b"acme\0two");
        assert!(cache.get(Table::DataKeys, b"acme\0one").is_ok());
        cache.drop_tenant(b"acme");
        for key in [&b"acme\0one"[..], b"acme\0two", b"acme"] {
            miss(&cache, key);
        }
        assert!(cache.get(Table::DataKeys, b"acme2\0one").is_ok());
        cache.clear();
        miss(&cache, b"acme2\0one");
    }

    #[test]
    fn what_was_read_before_a_change_is_not_kept_after_it() {
        let cache = RowCache::new(1000);
        let ticket = miss(&cache, b"acme\0one");
        cache.drop_tenant(b"acme");
        cache.put(Table::DataKeys, b"acme\0one", &row(1), ticket);
        let ticket = miss(&cache, b"acme\0one");
        cache.drop_row(Table::DataKeys, b"acme\0one");
        cache.put(Table::DataKeys, b"acme\0one", &row(1), ticket);
        let ticket = miss(&cache, b"acme\0one");
        cache.clear();
        cache.put(Table::DataKeys, b"acme\0one", &row(1), ticket);
        miss(&cache, b"acme\0one");
    }

    #[test]
    fn it_is_bounded_and_keeps_what_is_used() {
        let cache = RowCache::new(640);
        let hot = b"acme\0hot";
        cache.put(Table::DataKeys, hot, &row(1), miss(&cache, hot));
        for n in 0..10_000_u32 {
            // All of one tenant, so all in one shard.
            let key = [b"acme\0".as_slice(), &n.to_be_bytes()].concat();
            cache.put(Table::DataKeys, &key, &row(1), Ticket(0));
            assert!(cache.get(Table::DataKeys, hot).is_ok(), "after {n}");
        }
        let held: usize =
            cache.shards.iter().map(|shard| shard.lock().unwrap()).map(|s| s.young.len() + s.old.len()).sum();
        assert!((10..=640).contains(&held), "{held}");
    }
}
