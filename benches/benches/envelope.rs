//! Sealing and opening with a data key, beside ring with a reused key and the same AAD (the floor: what AES-256-GCM
//! alone costs) and beside ring with a fresh key and nonce for each message (what one would write by hand).
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot start has nothing to say")]

use criterion::measurement::WallTime;
use criterion::{BatchSize, BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use vault_core::envelope::{BACK, Context, DataKey, FRONT, OVERHEAD, Scope};
use vault_core::id::{DatasetId, KeyId, KeyVersion, TenantId};
use vault_core::secret::Key32;

const SIZES: [usize; 7] = [16, 64, 256, 1024, 4096, 65_536, 1_048_576];
const FLOOR: &str = "ring, reused key, in place";
const BY_HAND: &str = "ring, fresh key and OS nonce";

fn data_key() -> DataKey {
    let scope = Scope {
        tenant: TenantId::parse("acme").unwrap(),
        dataset: DatasetId::parse("customers").unwrap(),
        subject: None,
    };
    DataKey::new(&Key32::generate().unwrap(), KeyId([7; 16]), KeyVersion(1), scope).unwrap()
}

fn ring_key() -> LessSafeKey {
    let mut bytes = [0; 32];
    SystemRandom::new().fill(&mut bytes).unwrap();
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &bytes).unwrap())
}

fn nonce(counter: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&counter.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

fn measure(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, size: usize, mut work: impl FnMut()) {
    group.bench_function(BenchmarkId::new(name, size), |b| b.iter(&mut work));
}

fn seal(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("seal");
    let (key, floor, random) = (data_key(), ring_key(), SystemRandom::new());
    let context = Context::from_pairs([("column", "iban")]).unwrap();
    let aad = context.canonical(&key).unwrap();
    for size in SIZES {
        group.throughput(Throughput::Bytes(size as u64));
        let plaintext = vec![0xab; size];
        let mut buffer = plaintext.clone();
        let mut counter = 0;
        measure(&mut group, FLOOR, size, || {
            counter += 1;
            let tag = floor.seal_in_place_separate_tag(nonce(counter), Aad::from(&aad), &mut buffer).unwrap();
            std::hint::black_box(tag);
        });
        measure(&mut group, BY_HAND, size, || {
            let key = ring_key();
            let mut bytes = [0; 12];
            random.fill(&mut bytes).unwrap();
            let mut out = plaintext.clone();
            key.seal_in_place_append_tag(Nonce::assume_unique_for_key(bytes), Aad::from(&aad), &mut out).unwrap();
        });
        measure(&mut group, "seal", size, || {
            std::hint::black_box(key.seal(&context, &plaintext).unwrap());
        });
        let mut room = vec![0xab; size + OVERHEAD];
        measure(&mut group, "seal in place", size, || key.seal_in_place(&context, &mut room).unwrap());
    }
    group.finish();
}

fn open(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("open");
    let (key, floor) = (data_key(), ring_key());
    let context = Context::from_pairs([("column", "iban")]).unwrap();
    let aad = context.canonical(&key).unwrap();
    for size in SIZES {
        group.throughput(Throughput::Bytes(size as u64));
        let mut sealed = vec![0xab; size];
        floor.seal_in_place_append_tag(nonce(1), Aad::from(&aad), &mut sealed).unwrap();
        let batch = if size > 4096 { BatchSize::LargeInput } else { BatchSize::SmallInput };
        group.bench_function(BenchmarkId::new(FLOOR, size), |b| {
            b.iter_batched_ref(
                || sealed.clone(),
                |sealed| floor.open_in_place(nonce(1), Aad::from(&aad), sealed).unwrap().len(),
                batch,
            );
        });
        let envelope = key.seal(&context, &vec![0xab; size]).unwrap();
        group.bench_function(BenchmarkId::new("open in place", size), |b| {
            b.iter_batched_ref(|| envelope.clone(), |e| key.open_in_place(&context, e).unwrap().len(), batch);
        });
        measure(&mut group, "open", size, || {
            std::hint::black_box(key.open(&context, &envelope).unwrap());
        });
        if size <= 4096 {
            new_prefix(&mut group, &key, &context, size);
        }
    }
    group.finish();
}

/// Each envelope under a nonce prefix of its own, more of them than record keys are kept.
fn new_prefix(group: &mut BenchmarkGroup<'_, WallTime>, key: &DataKey, context: &Context, size: usize) {
    let envelopes: Vec<_> = (0..8)
        .map(|_| {
            // The same key, made again, starts with a prefix of its own.
            std::thread::scope(|scope| scope.spawn(|| fresh_prefix(key, context, size)).join().unwrap())
        })
        .collect();
    let mut next = envelopes.iter().cycle();
    measure(group, "open, new nonce prefix", size, || {
        std::hint::black_box(key.open(context, next.next().unwrap()).unwrap());
    });
}

/// An envelope whose run has just begun: whole runs are sealed until the prefix changes.
fn fresh_prefix(key: &DataKey, context: &Context, size: usize) -> Vec<u8> {
    let plaintext = vec![0xab; size];
    let prefix = |envelope: &[u8]| envelope.get(22..34).map(<[u8]>::to_vec);
    let first = prefix(&key.seal(context, &plaintext).unwrap());
    loop {
        let envelope = key.seal(context, &plaintext).unwrap();
        if prefix(&envelope) != first {
            return envelope;
        }
    }
}

const _: () = assert!(FRONT + BACK == OVERHEAD);

criterion_group!(envelope, seal, open);
criterion_main!(envelope);
