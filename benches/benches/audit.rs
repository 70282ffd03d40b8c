//! The audit log: an entry's encoding and leaf hash beside SHA-256 alone over the same bytes; and proofs, made from tiles
//! and verified, at three sizes of the log: their cost grows with the logarithm of it.
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot work must stop")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ring::digest::{SHA256, digest};
use vault_benches::tree::{Tree, entry};
use vault_core::audit::merkle::{consistency_proof, inclusion_proof, leaf_hash, verify_consistency, verify_inclusion};

/// How many entries the log has.
const SIZES: [u64; 3] = [1 << 10, 1 << 16, 1 << 20];

fn leaf(c: &mut Criterion) {
    let entry = entry(7);
    let bytes = entry.encode();
    let mut group = c.benchmark_group("leaf");
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("encode", |b| b.iter(|| black_box(&entry).encode()));
    group.bench_function("hash", |b| b.iter(|| leaf_hash(black_box(&bytes))));
    group.bench_function("encode_and_hash", |b| b.iter(|| leaf_hash(&black_box(&entry).encode())));
    let prefixed = [&[0][..], &bytes].concat();
    group.bench_function("ring_sha256_alone", |b| b.iter(|| digest(&SHA256, black_box(&prefixed))));
    group.finish();
}

fn proofs(c: &mut Criterion) {
    let mut group = c.benchmark_group("proof");
    for size in SIZES {
        let tree = Tree::of(size);
        let root = tree.root();
        let index = size / 3;
        group.bench_function(BenchmarkId::new("inclusion_made", size), |b| {
            b.iter(|| inclusion_proof(&tree, black_box(index), size).unwrap());
        });
        let proof = inclusion_proof(&tree, index, size).unwrap();
        let leaf = tree.leaf(index);
        group.bench_function(BenchmarkId::new("inclusion_verified", size), |b| {
            b.iter(|| assert!(verify_inclusion(black_box(&leaf), index, size, &proof, &root)));
        });
        // As many hashes one after the other as the path has: the floor of verifying.
        let pair = [0x55; 65];
        group.bench_function(BenchmarkId::new("ring_sha256_alone", size), |b| {
            b.iter(|| {
                for _ in 0..proof.len() {
                    black_box(digest(&SHA256, black_box(&pair)));
                }
            });
        });
        let old = index;
        let old_root = Tree::of(old).root();
        let consistency = consistency_proof(&tree, old, size).unwrap();
        group.bench_function(BenchmarkId::new("consistency_made", size), |b| {
            b.iter(|| consistency_proof(&tree, black_box(old), size).unwrap());
        });
        group.bench_function(BenchmarkId::new("consistency_verified", size), |b| {
            b.iter(|| assert!(verify_consistency(old, &old_root, size, &root, black_box(&consistency))));
        });
    }
    group.finish();
}

criterion_group!(benches, leaf, proofs);
criterion_main!(benches);
