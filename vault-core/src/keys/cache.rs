//! Unwrapped keys in memory: bounded, fair between tenants, wiped when they go, loaded once however many wait.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::future::Future;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_channel::oneshot;

use crate::error::{Dependency, Error};
use crate::id::TenantId;
use crate::time::Clock;

/// How long keys stay in memory, and how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheSettings {
    /// Keys at most, per kind of key (default 100,000). Beyond, the tenant with the most keys loses its least recently
    /// used.
    pub capacity: usize,
    /// Milliseconds after which a key is wiped and must be unwrapped again (default five minutes): the longest that a
    /// revocation at the root can go unnoticed.
    pub ttl_millis: u64,
    /// Milliseconds without use after which a key is wiped (default one minute).
    pub idle_millis: u64,
}

impl Default for CacheSettings {
    fn default() -> Self {
        Self { capacity: 100_000, ttl_millis: 300_000, idle_millis: 60_000 }
    }
}

/// What the cache did since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CacheStats {
    /// Calls that found their key.
    pub hits: u64,
    /// Keys loaded.
    pub loads: u64,
    /// Calls that waited for another call's load.
    pub coalesced: u64,
    /// Keys wiped, for whatever reason.
    pub evictions: u64,
    /// Keys held now.
    pub held: u64,
    /// Milliseconds since the oldest of them was loaded; 0 if there is none.
    pub oldest_millis: u64,
}

/// What identifies a cached key.
pub(super) trait CacheKey: Clone + Eq + Hash + Send + Sync + 'static {
    fn tenant(&self) -> &TenantId;
}

/// A cached key.
pub(super) trait Wipe: Send + Sync + 'static {
    /// Destroys the key; returns when it is gone.
    fn wipe(&self);
}

struct Entry<V> {
    value: Arc<V>,
    loaded: u64,
    used: AtomicU64,
}

type Waiters<V> = Vec<oneshot::Sender<Result<Arc<V>, Error>>>;

/// Reads take no lock. What changes the cache does, and it is rare.
pub(super) struct Cache<K, V> {
    ready: papaya::HashMap<K, Arc<Entry<V>>>,
    book: Mutex<Book<K>>,
    loading: Mutex<HashMap<K, Waiters<V>>>,
    /// Grows with each deliberate eviction, so that a load which began before one is not kept.
    generation: AtomicU64,
    settings: CacheSettings,
    clock: Arc<dyn Clock>,
    hits: AtomicU64,
    loads: AtomicU64,
    coalesced: AtomicU64,
    evictions: AtomicU64,
}

/// Which keys each tenant holds, and the tenants by number of keys.
struct Book<K> {
    by_tenant: HashMap<TenantId, HashSet<K>>,
    by_count: BTreeSet<(usize, TenantId)>,
}

impl<K: CacheKey> Book<K> {
    fn change(&mut self, key: &K, change: impl FnOnce(&mut HashSet<K>) -> bool) {
        let keys = self.by_tenant.entry(key.tenant().clone()).or_default();
        let before = keys.len();
        if change(keys) {
            let after = keys.len();
            self.by_count.remove(&(before, key.tenant().clone()));
            if after == 0 {
                self.by_tenant.remove(key.tenant());
            } else {
                self.by_count.insert((after, key.tenant().clone()));
            }
        } else if before == 0 {
            self.by_tenant.remove(key.tenant());
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keys compared when one has to go.
const SAMPLE: usize = 16;

impl<K: CacheKey, V: Wipe> Cache<K, V> {
    pub(super) fn new(settings: CacheSettings, clock: Arc<dyn Clock>) -> Self {
        Self {
            ready: papaya::HashMap::new(),
            book: Mutex::new(Book { by_tenant: HashMap::new(), by_count: BTreeSet::new() }),
            loading: Mutex::new(HashMap::new()),
            generation: AtomicU64::new(0),
            settings,
            clock,
            hits: AtomicU64::new(0),
            loads: AtomicU64::new(0),
            coalesced: AtomicU64::new(0),
            evictions: AtomicU64::new(0),
        }
    }

    pub(super) fn stats(&self) -> CacheStats {
        let now = self.clock.monotonic_millis();
        let oldest = self.ready.pin().values().map(|entry| entry.loaded).min();
        CacheStats {
            hits: self.hits.load(Ordering::Relaxed),
            loads: self.loads.load(Ordering::Relaxed),
            coalesced: self.coalesced.load(Ordering::Relaxed),
            evictions: self.evictions.load(Ordering::Relaxed),
            held: self.ready.len() as u64,
            oldest_millis: oldest.map_or(0, |loaded| now.saturating_sub(loaded)),
        }
    }

    fn expired(&self, entry: &Entry<V>, now: u64) -> bool {
        now.saturating_sub(entry.loaded) >= self.settings.ttl_millis
            || now.saturating_sub(entry.used.load(Ordering::Relaxed)) >= self.settings.idle_millis
    }

    /// The key, if it is held and fresh.
    pub(super) fn get(&self, key: &K) -> Option<Arc<V>> {
        let now = self.clock.monotonic_millis();
        let found = self.ready.pin().get(key).map(Arc::clone)?;
        if self.expired(&found, now) {
            self.evict(key);
            return None;
        }
        // Written a few times a second at most, so that the cores do not fight over the line.
        if now.saturating_sub(found.used.load(Ordering::Relaxed)) > 250 {
            found.used.store(now, Ordering::Relaxed);
        }
        self.hits.fetch_add(1, Ordering::Relaxed);
        Some(Arc::clone(&found.value))
    }

    /// The key, loaded by the first of all callers that want it at the same time.
    ///
    /// # Errors
    /// What `load` answers, to all of them.
    pub(super) async fn get_or_load<F>(&self, key: &K, load: impl Fn() -> F) -> Result<Arc<V>, Error>
    where
        F: Future<Output = Result<V, Error>>,
    {
        loop {
            if let Some(value) = self.get(key) {
                return Ok(value);
            }
            let waiting = match lock(&self.loading).entry(key.clone()) {
                std::collections::hash_map::Entry::Occupied(mut waiters) => {
                    let (sender, receiver) = oneshot::channel();
                    waiters.get_mut().push(sender);
                    Some(receiver)
                }
                std::collections::hash_map::Entry::Vacant(free) => {
                    free.insert(Vec::new());
                    None
                }
            };
            if let Some(receiver) = waiting {
                self.coalesced.fetch_add(1, Ordering::Relaxed);
                match receiver.await {
                    Ok(answer) => return answer,
                    // The one who loaded was cancelled: one of those who waited goes on.
                    Err(_) => continue,
                }
            }
            let leading = Leading { cache: self, key, done: false };
            let generation = self.generation.load(Ordering::SeqCst);
            let loaded = load().await.map(Arc::new);
            self.loads.fetch_add(1, Ordering::Relaxed);
            if let Ok(value) = &loaded
                && !self.insert(key, Arc::clone(value), generation)
            {
                // Evicted while it was on its way: what was loaded may be revoked by now.
                value.wipe();
                drop(leading);
                continue;
            }
            for waiter in leading.finish() {
                // One that no longer waits needs no answer.
                let _ = waiter.send(loaded.clone());
            }
            return loaded;
        }
    }

    /// Keeps a loaded key unless an eviction has happened since `generation`.
    fn insert(&self, key: &K, value: Arc<V>, generation: u64) -> bool {
        let now = self.clock.monotonic_millis();
        let mut book = lock(&self.book);
        if self.generation.load(Ordering::SeqCst) != generation {
            return false;
        }
        let entry = Arc::new(Entry { value, loaded: now, used: AtomicU64::new(now) });
        if let Some(old) = self.ready.pin().insert(key.clone(), entry) {
            old.value.wipe();
        }
        book.change(key, |keys| keys.insert(key.clone()));
        while self.ready.len() > self.settings.capacity {
            let Some(victim) = self.victim(&book) else { break };
            self.remove(&mut book, &victim);
        }
        true
    }

    /// The least recently used of some keys of the tenant that holds most.
    fn victim(&self, book: &Book<K>) -> Option<K> {
        let (_, tenant) = book.by_count.last()?;
        let ready = self.ready.pin();
        let used = |key: &K| ready.get(key).map_or(0, |entry| entry.used.load(Ordering::Relaxed));
        book.by_tenant.get(tenant)?.iter().take(SAMPLE).min_by_key(|key| used(key)).cloned()
    }

    fn remove(&self, book: &mut Book<K>, key: &K) {
        if let Some(entry) = self.ready.pin().remove(key) {
            entry.value.wipe();
            self.evictions.fetch_add(1, Ordering::Relaxed);
        }
        book.change(key, |keys| keys.remove(key));
    }

    /// Wipes one key; returns when it is gone.
    pub(super) fn evict(&self, key: &K) {
        let mut book = lock(&self.book);
        self.generation.fetch_add(1, Ordering::SeqCst);
        self.remove(&mut book, key);
    }

    /// Wipes all keys of a tenant; returns when they are gone. A load under way is not kept.
    pub(super) fn evict_tenant(&self, tenant: &TenantId) {
        let mut book = lock(&self.book);
        self.generation.fetch_add(1, Ordering::SeqCst);
        let keys: Vec<K> = book.by_tenant.get(tenant).into_iter().flatten().cloned().collect();
        for key in keys {
            self.remove(&mut book, &key);
        }
    }

    /// Wipes what has expired; with `all`, everything.
    pub(super) fn sweep(&self, all: bool) {
        let now = self.clock.monotonic_millis();
        let expired: Vec<K> = {
            let ready = self.ready.pin();
            ready.iter().filter(|(_, entry)| all || self.expired(entry, now)).map(|(key, _)| key.clone()).collect()
        };
        if expired.is_empty() && !all {
            return;
        }
        let mut book = lock(&self.book);
        if all {
            // With nothing to wipe, too: a load may be under way.
            self.generation.fetch_add(1, Ordering::SeqCst);
        }
        for key in expired {
            self.remove(&mut book, &key);
        }
    }
}

/// The duty of the one who loads: whatever happens, those who wait are told.
struct Leading<'a, K: CacheKey, V: Wipe> {
    cache: &'a Cache<K, V>,
    key: &'a K,
    done: bool,
}

impl<K: CacheKey, V: Wipe> Leading<'_, K, V> {
    fn finish(mut self) -> Waiters<V> {
        self.done = true;
        lock(&self.cache.loading).remove(self.key).unwrap_or_default()
    }
}

impl<K: CacheKey, V: Wipe> Drop for Leading<'_, K, V> {
    fn drop(&mut self) {
        if !self.done {
            // Cancelled, or to be done again. Dropping the senders wakes the waiters.
            lock(&self.cache.loading).remove(self.key);
        }
    }
}

/// What a caller is told whose key was evicted each time it came back for it.
pub(super) const fn evicted() -> Error {
    Error::unavailable(Dependency::Memory, "the key was evicted again and again; try later")
}

#[cfg(test)]
mod tests;
