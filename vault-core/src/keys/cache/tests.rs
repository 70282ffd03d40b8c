use std::sync::atomic::AtomicBool;

use super::*;
use crate::time::{ManualClock, Timestamp};

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Key(TenantId, u32);

impl CacheKey for Key {
    fn tenant(&self) -> &TenantId {
        &self.0
    }

    fn least(tenant: &TenantId) -> Self {
        Self(tenant.clone(), 0)
    }
}

/// Whether it was wiped, and whether it was put to rest.
#[derive(Default)]
struct Value(AtomicBool, AtomicBool);

impl Wipe for Value {
    fn wipe(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    fn rest(&self) {
        self.1.store(true, Ordering::SeqCst);
    }
}

fn key(tenant: &str, n: u32) -> Key {
    Key(TenantId::parse(tenant).unwrap(), n)
}

fn cache(capacity: usize) -> (Cache<Key, Value>, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(Timestamp(1)));
    let settings = CacheSettings { capacity, ttl_millis: 1000, idle_millis: 400 };
    (Cache::new(settings, Arc::clone(&clock) as Arc<dyn Clock>), clock)
}

fn load(cache: &Cache<Key, Value>, key: &Key) -> Arc<Value> {
    pollster::block_on(cache.get_or_load(key, async || Ok(Value::default()))).unwrap()
}

#[test]
fn a_key_lives_until_its_ttl_and_no_longer_than_it_is_used() {
    let (cache, clock) = cache(10);
    let value = load(&cache, &key("a", 1));
    for _ in 0..3 {
        clock.advance_millis(300);
        assert!(Arc::ptr_eq(&value, &load(&cache, &key("a", 1))));
    }
    clock.advance_millis(100);
    assert!(cache.get(&key("a", 1)).is_none(), "the TTL is absolute");
    assert!(value.0.load(Ordering::SeqCst), "wiped");
    let value = load(&cache, &key("a", 1));
    clock.advance_millis(400);
    // Turning the wall clock back prolongs nothing.
    clock.set(Timestamp(0));
    cache.sweep(false);
    assert!(value.0.load(Ordering::SeqCst), "idle, hence wiped");
    assert_eq!(cache.stats(), CacheStats { hits: 3, loads: 2, coalesced: 0, evictions: 2, held: 0, oldest_millis: 0 });
}

#[test]
fn the_greediest_tenant_makes_room() {
    let (cache, _) = cache(10);
    let small = load(&cache, &key("small", 0));
    for n in 0..50 {
        load(&cache, &key("greedy", n));
    }
    assert_eq!(cache.stats().held, 10);
    assert!(!small.0.load(Ordering::SeqCst), "another tenant's appetite cost the small one its key");
}

#[test]
fn what_nobody_uses_is_put_to_rest_and_stays() {
    let clock = Arc::new(ManualClock::new(Timestamp(1)));
    let settings = CacheSettings { capacity: 10, ttl_millis: 60_000, idle_millis: 30_000 };
    let cache = Cache::new(settings, Arc::clone(&clock) as Arc<dyn Clock>);
    let (used, unused) = (load(&cache, &key("a", 1)), load(&cache, &key("a", 2)));
    for _ in 0..10 {
        clock.advance_millis(REST / 10);
        load(&cache, &key("a", 1));
        cache.sweep(false);
    }
    assert!(unused.1.load(Ordering::SeqCst) && !used.1.load(Ordering::SeqCst));
    assert_eq!(cache.stats().held, 2, "neither is wiped");
}

#[test]
fn the_book_knows_each_tenants_keys_and_samples_all_of_the_greediest() {
    let mut book = Book::new();
    for (tenant, keys) in [("a", 3), ("ab", 40), ("b", 5)] {
        (0..keys).for_each(|n| book.insert(&key(tenant, n)));
        book.insert(&key(tenant, 0));
    }
    let of = |book: &Book<Key>, tenant| book.of_tenant(&TenantId::parse(tenant).unwrap()).count();
    assert_eq!(["a", "aa", "ab", "b", "c"].map(|tenant| of(&book, tenant)), [3, 0, 40, 5, 0]);
    // Three samples of 16 of 40 keys see each of them.
    let mut seen: Vec<Key> = (0..3).flat_map(|_| book.sample(SAMPLE)).collect();
    assert!(seen.len() == 48 && seen.iter().all(|key| key.0.as_str() == "ab"));
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 40);
    (0..40).for_each(|n| book.remove(&key("ab", n)));
    book.remove(&key("ab", 0));
    assert_eq!(of(&book, "ab"), 0);
    let mut sample = book.sample(SAMPLE);
    sample.sort();
    assert_eq!(sample, [0, 1, 2, 3, 4].map(|n| key("b", n)), "fewer than a sample: all, once each");
    book.remove(&key("b", 1));
    assert_eq!(book.sample(2).len(), 2);
    ["a", "b"].into_iter().for_each(|tenant| (0..5).for_each(|n| book.remove(&key(tenant, n))));
    assert!(book.sample(SAMPLE).is_empty());
}

#[test]
fn many_callers_cause_one_load() {
    let (cache, _) = cache(10);
    let (cache, key) = (&cache, &key("a", 1));
    let gate = std::sync::Barrier::new(33);
    std::thread::scope(|scope| {
        for _ in 0..32 {
            scope.spawn(|| {
                gate.wait();
                pollster::block_on(cache.get_or_load(key, async || {
                    while cache.coalesced.load(Ordering::Relaxed) < 31 {
                        std::thread::yield_now();
                    }
                    Ok(Value::default())
                }))
                .unwrap();
            });
        }
        gate.wait();
    });
    assert_eq!(cache.stats().loads, 1);
}

#[test]
fn a_cancelled_load_is_taken_over_and_a_failed_one_is_told_to_all() {
    use std::task::{Context, Poll, Waker};
    let (cache, _) = cache(10);
    let key = key("a", 1);
    let mut context = Context::from_waker(Waker::noop());
    let mut first = Box::pin(cache.get_or_load(&key, std::future::pending::<Result<Value, Error>>));
    assert!(first.as_mut().poll(&mut context).is_pending());
    let mut second = Box::pin(cache.get_or_load(&key, async || Ok(Value::default())));
    assert!(second.as_mut().poll(&mut context).is_pending());
    drop(first);
    assert!(matches!(second.as_mut().poll(&mut context), Poll::Ready(Ok(_))));

    cache.evict(&key);
    let failed = pollster::block_on(cache.get_or_load(&key, async || Err(Error::Unopenable)));
    assert_eq!(failed.err(), Some(Error::Unopenable));
    assert_eq!(cache.stats().held, 0);
}

#[test]
fn a_load_that_an_eviction_overtook_is_not_kept() {
    let (cache, _) = cache(10);
    let key = key("a", 1);
    let rounds = AtomicU64::new(0);
    let stale = Mutex::new(None);
    let value = pollster::block_on(cache.get_or_load(&key, async || {
        if rounds.fetch_add(1, Ordering::SeqCst) == 0 {
            cache.evict_tenant(&key.0);
            lock(&stale).replace(());
        }
        Ok(Value::default())
    }))
    .unwrap();
    assert_eq!(rounds.load(Ordering::SeqCst), 2, "loaded again after the eviction");
    assert!(!value.0.load(Ordering::SeqCst));
}
