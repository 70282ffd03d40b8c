//! Which keys each tenant holds, and which tenant holds most.
//!
//! Keys are in one ordered set, a tenant's beside each other: a set for each tenant took more memory than the key itself
//! where tenants have one key each.

use std::collections::{BTreeSet, HashMap};
use std::ops::Bound::{Excluded, Included, Unbounded};

use super::CacheKey;
use crate::id::TenantId;

pub(super) struct Book<K> {
    keys: BTreeSet<K>,
    counts: HashMap<TenantId, usize>,
    by_count: BTreeSet<(usize, TenantId)>,
    /// Where the last sample ended, so that all of a tenant's keys come to be looked at.
    hand: Option<K>,
}

impl<K: CacheKey> Book<K> {
    pub(super) fn new() -> Self {
        Self { keys: BTreeSet::new(), counts: HashMap::new(), by_count: BTreeSet::new(), hand: None }
    }

    /// Adds a key; nothing if it is there.
    pub(super) fn insert(&mut self, key: &K) {
        if self.keys.insert(key.clone()) {
            let before = self.counts.get(key.tenant()).copied().unwrap_or(0);
            self.recount(key.tenant(), before, before + 1);
        }
    }

    /// Takes a key out; nothing if it is not there.
    pub(super) fn remove(&mut self, key: &K) {
        if self.keys.remove(key) {
            let before = self.counts.get(key.tenant()).copied().unwrap_or(0);
            self.recount(key.tenant(), before, before.saturating_sub(1));
        }
    }

    fn recount(&mut self, tenant: &TenantId, before: usize, after: usize) {
        self.by_count.remove(&(before, tenant.clone()));
        if after == 0 {
            self.counts.remove(tenant);
        } else {
            self.counts.insert(tenant.clone(), after);
            self.by_count.insert((after, tenant.clone()));
        }
    }

    /// All keys of a tenant.
    pub(super) fn of_tenant(&self, tenant: &TenantId) -> impl Iterator<Item = &K> {
        let least = K::least(tenant);
        let tenant = tenant.clone();
        self.keys.range((Included(least), Unbounded)).take_while(move |key| *key.tenant() == tenant)
    }

    /// Some keys of the tenant that holds most, other ones each time.
    pub(super) fn sample(&mut self, most: usize) -> Vec<K> {
        let Some((_, tenant)) = self.by_count.last() else { return Vec::new() };
        let hand = self.hand.take().filter(|hand| hand.tenant() == tenant);
        let mut sample: Vec<K> = match &hand {
            Some(hand) => {
                let behind = self.keys.range((Excluded(hand), Unbounded));
                behind.take_while(|key| key.tenant() == tenant).take(most).cloned().collect()
            }
            None => Vec::new(),
        };
        let left = most - sample.len();
        sample.extend(
            self.of_tenant(tenant).filter(|key| hand.as_ref().is_none_or(|hand| *key <= hand)).take(left).cloned(),
        );
        self.hand = sample.last().cloned();
        sample
    }
}
