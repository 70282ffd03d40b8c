//! Many tenants whose keys are all in memory, and the bytes that takes.

use std::path::Path;
use std::sync::Arc;

use vault_core::id::TenantId;
use vault_core::keys::CacheSettings;
use vault_core::principal::Workload;
use vault_core::secret;
use vault_core::store::Table;
use vault_core::time::{Clock as _, ManualClock, SystemClock};
use vault_core::vault::{DecryptRequest, EncryptRequest, Target};

use crate::bed::{Bed, BenchRoot, TENANTS_EACH, target};
use crate::{context, counting, fill};

/// As many as a cache holds by default.
pub const TENANTS: usize = 100_000;
/// Calls at a time.
const AT_ONCE: usize = 500;

/// Tenants with a data key each.
pub struct Cached {
    bed: Bed,
    targets: Vec<Target>,
    workloads: Vec<Workload>,
    clock: Arc<ManualClock>,
    before: Bytes,
}

/// Bytes that keys take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes {
    /// On the heap.
    pub heap: u64,
    /// In slots of the locked arena.
    pub arena: u64,
}

impl Bytes {
    fn now() -> Self {
        Self { heap: counting::held(), arena: secret::status().used as u64 }
    }
}

impl Cached {
    /// Makes the tenants, in `dir`. None of their keys is in memory yet.
    pub fn open(dir: &Path, count: usize) -> Self {
        let tenants: Vec<TenantId> = (0..count as u64).map(fill::tenant_of).collect();
        // No key goes while this runs, but for want of room.
        let cache = CacheSettings { ttl_millis: 3_600_000, idle_millis: 3_600_000, ..CacheSettings::default() };
        let clock = Arc::new(ManualClock::new(SystemClock.now()));
        let bed = Bed::open_at(Arc::clone(&clock) as _, dir, dir, cache, &tenants);
        fill::tenants(&*bed.store, &BenchRoot::shared(), count as u64);
        let workloads = (0..count.div_ceil(TENANTS_EACH)).map(|number| bed.workload(number)).collect();
        let targets: Vec<Target> = tenants.iter().map(|tenant| target(tenant, None)).collect();
        // What is set up once: threads, buffers, a first chunk of the arena.
        let cached = Self { bed, targets, workloads, clock, before: Bytes { heap: 0, arena: 0 } };
        let envelopes = cached.encrypt(&cached.targets[..1]);
        cached.decrypt(&cached.targets[..1], &envelopes);
        drop(envelopes);
        cached.bed.vault.keys().evict_all();
        cached.read_rows();
        Self { before: Bytes::now(), ..cached }
    }

    /// Has the store take the rows into memory, as far as it keeps any, so that they do not pass for keys.
    fn read_rows(&self) {
        let read = |table, key: &[&[u8]]| {
            assert!(pollster::block_on(self.bed.store.get_cached(table, &key.join(&0))).unwrap().is_some());
        };
        for (number, target) in (0..).zip(&self.targets) {
            let (tenant, dataset) = (target.tenant.as_str().as_bytes(), target.dataset.as_str().as_bytes());
            read(Table::Tenants, &[tenant]);
            read(Table::Datasets, &[tenant, dataset]);
            read(Table::TenantKeys, &[tenant, &1_u32.to_be_bytes()]);
            read(Table::DataKeys, &[tenant, &fill::key_id(number).0]);
            read(Table::ActiveKeys, &[tenant, dataset, b""]);
        }
    }

    fn workload(&self, target: &Target) -> &Workload {
        let number: usize = target.tenant.as_str()[1..].parse().unwrap();
        &self.workloads[number / TENANTS_EACH]
    }

    fn encrypt(&self, targets: &[Target]) -> Vec<Vec<u8>> {
        let context = context();
        let sealed = targets.iter().map(|target| {
            let request = EncryptRequest { target, context: &context, plaintext: b"DE89 3704" };
            self.bed.vault.encrypt(self.workload(target), request)
        });
        let sealed = pollster::block_on(futures_util::future::join_all(sealed));
        sealed.into_iter().map(|sealed| sealed.unwrap().envelope).collect()
    }

    fn decrypt(&self, targets: &[Target], envelopes: &[Vec<u8>]) {
        let context = context();
        let opened = targets.iter().zip(envelopes).map(|(target, envelope)| {
            self.bed.vault.decrypt(self.workload(target), DecryptRequest { target, context: &context, envelope })
        });
        let opened = pollster::block_on(futures_util::future::join_all(opened));
        assert!(opened.into_iter().all(|opened| opened.unwrap().plaintext.expose() == b"DE89 3704"));
    }

    /// Encrypts a value for each tenant.
    pub fn encrypt_all(&self) -> Vec<Vec<u8>> {
        self.targets.chunks(AT_ONCE).flat_map(|targets| self.encrypt(targets)).collect()
    }

    /// Decrypts them.
    pub fn decrypt_all(&self, envelopes: &[Vec<u8>]) {
        for (targets, envelopes) in self.targets.chunks(AT_ONCE).zip(envelopes.chunks(AT_ONCE)) {
            self.decrypt(targets, envelopes);
        }
    }

    /// Lets time pass in which nobody uses a key: within a second or two all are at rest.
    pub fn rest(&self) {
        self.clock.advance_millis(15_000);
    }

    /// Data keys and tenant keys in memory.
    pub fn held(&self) -> (u64, u64) {
        let keys = self.bed.vault.keys();
        (keys.data_key_stats().held, keys.tenant_key_stats().held)
    }

    /// Bytes taken since no key was in memory. What else is in memory by now, such as `envelopes`, counts as well.
    pub fn bytes(&self) -> Bytes {
        let now = Bytes::now();
        Bytes { heap: now.heap.saturating_sub(self.before.heap), arena: now.arena.saturating_sub(self.before.arena) }
    }
}
