//! Sealing and opening, with ring beside them in the same run: the floor (one key reused, the same AAD, in place) and
//! what one writes by hand (a fresh key and a nonce from the operating system for every message).
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a benchmark that cannot work must stop")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ring::aead::{Aad, Nonce};
use ring::rand::{SecureRandom as _, SystemRandom};
use vault_benches::{PREFIXES, RAW, SIZES, context, counted, data_key, ring_key};
use vault_core::envelope::{FRONT, OVERHEAD, SEALED_CHUNK, STREAM_CHUNK};

fn seal(c: &mut Criterion) {
    let (key, context) = (data_key(), context());
    let aad = context.canonical(&key).unwrap();
    let reused = ring_key(&RAW);
    let random = SystemRandom::new();
    let mut group = c.benchmark_group("seal");
    for size in SIZES {
        group.throughput(Throughput::Bytes(size as u64));
        let plaintext = vec![0x55; size];
        let mut buffer = vec![0x55; size + OVERHEAD];
        group.bench_function(BenchmarkId::new("ours", size), |b| {
            b.iter(|| key.seal(&context, black_box(&plaintext)).unwrap());
        });
        group.bench_function(BenchmarkId::new("ours_in_place", size), |b| {
            b.iter(|| key.seal_in_place(&context, black_box(&mut buffer)).unwrap());
        });
        let mut body = vec![0x55; size];
        let mut count = 0;
        group.bench_function(BenchmarkId::new("ring_reused_key", size), |b| {
            b.iter(|| {
                let nonce = counted(&mut count);
                reused.seal_in_place_separate_tag(nonce, Aad::from(&aad), black_box(&mut body)).unwrap()
            });
        });
        group.bench_function(BenchmarkId::new("ring_fresh_key", size), |b| {
            b.iter(|| {
                let (mut bytes, mut nonce) = ([0; 32], [0; 12]);
                random.fill(&mut bytes).unwrap();
                random.fill(&mut nonce).unwrap();
                let nonce = Nonce::assume_unique_for_key(nonce);
                ring_key(&bytes).seal_in_place_separate_tag(nonce, Aad::from(&aad), black_box(&mut body)).unwrap()
            });
        });
    }
}

/// In place, each iteration first copies the ciphertext into the buffer, ours and ring's alike.
fn open(c: &mut Criterion) {
    let (key, context) = (data_key(), context());
    let aad = context.canonical(&key).unwrap();
    let reused = ring_key(&RAW);
    let mut group = c.benchmark_group("open");
    for size in SIZES {
        group.throughput(Throughput::Bytes(size as u64));
        let plaintext = vec![0x55; size];
        let envelope = key.seal(&context, &plaintext).unwrap();
        group.bench_function(BenchmarkId::new("ours", size), |b| {
            b.iter(|| key.open(&context, black_box(&envelope)).unwrap());
        });
        let mut buffer = envelope.clone();
        group.bench_function(BenchmarkId::new("ours_in_place", size), |b| {
            b.iter(|| {
                buffer.copy_from_slice(&envelope);
                key.open_in_place(&context, black_box(&mut buffer)).unwrap().len()
            });
        });
        let envelopes: Vec<_> = (0..PREFIXES).map(|_| data_key().seal(&context, &plaintext).unwrap()).collect();
        let mut next = envelopes.iter().cycle();
        group.bench_function(BenchmarkId::new("ours_new_prefix", size), |b| {
            b.iter(|| {
                buffer.copy_from_slice(next.next().unwrap());
                key.open_in_place(&context, black_box(&mut buffer)).unwrap().len()
            });
        });
        let mut count = 0;
        let mut sealed = vec![0; FRONT];
        sealed.extend(&plaintext);
        let tag =
            reused.seal_in_place_separate_tag(counted(&mut count), Aad::from(&aad), &mut sealed[FRONT..]).unwrap();
        sealed.extend(tag.as_ref());
        group.bench_function(BenchmarkId::new("ring_reused_key", size), |b| {
            b.iter(|| {
                buffer.copy_from_slice(&sealed);
                let mut count = 0;
                let nonce = counted(&mut count);
                reused.open_in_place(nonce, Aad::from(&aad), black_box(&mut buffer[FRONT..])).unwrap().len()
            });
        });
    }
}

/// A stream of 1 MiB in place, 64 full chunks and the empty last one, with its keys derived anew as every stream's are;
/// and ring with a reused key on the same chunks.
fn stream(c: &mut Criterion) {
    const CHUNKS: usize = 64;
    let (key, context) = (data_key(), context());
    let reused = ring_key(&RAW);
    let mut group = c.benchmark_group("stream");
    group.throughput(Throughput::Bytes((CHUNKS * STREAM_CHUNK) as u64));
    let mut buffer = vec![0x55; CHUNKS * SEALED_CHUNK];
    group.bench_function("seal/ours_in_place", |b| {
        b.iter(|| {
            let mut sealer = key.seal_stream(&context).unwrap();
            for chunk in black_box(&mut buffer).chunks_exact_mut(SEALED_CHUNK) {
                sealer.seal_chunk(chunk).unwrap();
            }
            sealer.seal_last(&mut [0; SEALED_CHUNK - STREAM_CHUNK]).unwrap();
            *sealer.front()
        });
    });
    let mut count = 0;
    group.bench_function("seal/ring_reused_key", |b| {
        b.iter(|| {
            for chunk in black_box(&mut buffer).chunks_exact_mut(SEALED_CHUNK) {
                let (body, room) = chunk.split_at_mut(STREAM_CHUNK);
                let tag = reused.seal_in_place_separate_tag(counted(&mut count), Aad::empty(), body).unwrap();
                room.copy_from_slice(tag.as_ref());
            }
        });
    });
    // In place, each iteration first copies the ciphertext into the buffer, ours and ring's alike.
    let mut sealed = vec![0x55; CHUNKS * SEALED_CHUNK];
    let mut sealer = key.seal_stream(&context).unwrap();
    sealed.chunks_exact_mut(SEALED_CHUNK).for_each(|chunk| sealer.seal_chunk(chunk).unwrap());
    let mut last = [0; SEALED_CHUNK - STREAM_CHUNK];
    sealer.seal_last(&mut last).unwrap();
    group.bench_function("open/ours_in_place", |b| {
        b.iter(|| {
            buffer.copy_from_slice(&sealed);
            let mut opener = key.open_stream(&context, sealer.front()).unwrap();
            for chunk in black_box(&mut buffer).chunks_exact_mut(SEALED_CHUNK) {
                opener.open_chunk(chunk).unwrap();
            }
            opener.open_last(&mut last.clone()).unwrap().len()
        });
    });
    let mut count = 0;
    for chunk in sealed.chunks_exact_mut(SEALED_CHUNK) {
        let (body, room) = chunk.split_at_mut(STREAM_CHUNK);
        let tag = reused.seal_in_place_separate_tag(counted(&mut count), Aad::empty(), body).unwrap();
        room.copy_from_slice(tag.as_ref());
    }
    group.bench_function("open/ring_reused_key", |b| {
        b.iter(|| {
            buffer.copy_from_slice(&sealed);
            let mut count = 0;
            for chunk in black_box(&mut buffer).chunks_exact_mut(SEALED_CHUNK) {
                reused.open_in_place(counted(&mut count), Aad::empty(), chunk).unwrap();
            }
        });
    });
}

criterion_group!(benches, seal, open, stream);
criterion_main!(benches);
