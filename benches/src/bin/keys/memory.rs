//! Bytes for each key in the caches, with 100,000 tenants of one data key each.

use std::time::{Duration, Instant};

use vault_benches::cached::{Cached, TENANTS};

/// In which those are put to rest that nobody has used for a while.
const SWEEPS: Duration = Duration::from_secs(3);

pub(crate) fn run() {
    println!("\n## memory: {TENANTS} tenants, one data key each\n");
    let scratch = super::scratch();
    let begun = Instant::now();
    let cached = Cached::open(scratch.path(), TENANTS);
    println!("| | keys held | heap | locked arena | RSS |\n|---|---:|---:|---:|---:|");
    let rss = super::process_bytes("VmRSS");
    let line = |what: &str| {
        let bytes = cached.bytes();
        let each = |bytes: u64| bytes as f64 / TENANTS as f64;
        let grown = super::process_bytes("VmRSS").saturating_sub(rss);
        println!(
            "| {what} | {} + {} | {:.0} | {:.0} | {:.0} |",
            cached.held().0,
            cached.held().1,
            each(bytes.heap),
            each(bytes.arena),
            each(grown)
        );
    };
    line("before");
    let envelopes = cached.encrypt_all();
    line("each sealed once");
    cached.decrypt_all(&envelopes);
    line("each sealed and opened once");
    cached.rest();
    std::thread::sleep(SWEEPS);
    line("unused for 15 s");
    drop(envelopes);
    line("without the envelopes");
    println!("\n(bytes a tenant, each with its data key and its tenant key; in all {:.0?})", begun.elapsed());
}
