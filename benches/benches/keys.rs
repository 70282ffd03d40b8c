//! Finding the key of a call, in memory and not, by the number of rows. `cargo run --release -p vault-benches --bin keys`
//! does the same up to a million rows, in turn within one run, with redb and a `HashMap` beside it.
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot work must stop")]

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use vault_benches::lookup::{Lookup, Many, SET};

fn look_up(c: &mut Criterion) {
    let smoke = std::env::args().any(|argument| argument == "--test");
    let sizes: &[u64] = if smoke { &[1, 100] } else { &[1, 100, 10_000] };
    for many in [Many::Subjects, Many::Tenants] {
        let mut group = c.benchmark_group(format!("256_lookups_{many:?}").to_lowercase());
        group.throughput(criterion::Throughput::Elements(SET as u64));
        for rows in sizes {
            let dir = tempfile::tempdir().unwrap();
            Lookup::fill(dir.path(), many, *rows);
            let mut ours = Lookup::open(dir.path(), dir.path(), many, *rows);
            for (name, cached) in [("cached", true), ("uncached", false)] {
                group.bench_function(BenchmarkId::new(name, rows), |b| {
                    b.iter_custom(|iterations| {
                        let mut all = std::time::Duration::ZERO;
                        for _ in 0..iterations {
                            // A permit lasts for half a minute, so each time has its own.
                            let ready = ours.ready(cached);
                            if cached {
                                ours.look_up(&ready);
                            } else {
                                ours.evict();
                            }
                            all += ours.look_up(&ready) * u32::try_from(SET).unwrap();
                            ready.done();
                        }
                        all
                    });
                });
            }
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = look_up
}
criterion_main!(benches);
