use std::sync::atomic::AtomicBool;

use super::*;
use crate::time::{ManualClock, Timestamp};

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key(TenantId, u32);

impl CacheKey for Key {
    fn tenant(&self) -> &TenantId {
        &self.0
    }
}

#[derive(Default)]
struct Value(AtomicBool);

impl Wipe for Value {
    fn wipe(&self) {
        self.0.store(true, Ordering::SeqCst);
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
