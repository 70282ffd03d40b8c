//! Ours against ring with a reused key, as ratios: measured in turn within one run.
//!
//! What one machine does in a second depends on its neighbours, its clock and its temperature. So each round times ring,
//! ours, and ring again, a few microseconds apart, and gives one ratio; a row is the median of many, with its quartiles.
//! `cargo bench` beside it measures the functions one after the other, minutes apart, and its medians drift with the
//! machine.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a tool for the terminal, which must stop when it cannot work"
)]

use std::hint::black_box;
use std::time::Instant;

use ring::aead::Aad;
use vault_benches::{PREFIXES, RAW, SIZES, context, counted, data_key, ring_key};
use vault_core::envelope::{FRONT, OVERHEAD};

/// Pairs of measurements for each row.
const ROUNDS: usize = 801;
/// How long one measurement of a round takes, about, in nanoseconds.
const SLICE: f64 = 50_000.0;

/// The mean time of one call, in nanoseconds.
fn time(iterations: usize, work: &mut dyn FnMut()) -> f64 {
    let begun = Instant::now();
    for _ in 0..iterations {
        work();
    }
    begun.elapsed().as_nanos() as f64 / iterations as f64
}

/// The median of ring's times, and the quartiles of the ratios.
fn compare(ring: &mut dyn FnMut(), ours: &mut dyn FnMut()) -> (f64, [f64; 3]) {
    let once = time(1000, ring).max(time(1000, ours));
    let iterations = ((SLICE / once) as usize).max(1);
    let (mut floors, mut ratios) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let before = time(iterations, ring);
        let own = time(iterations, ours);
        let after = time(iterations, ring);
        floors.push(f64::midpoint(before, after));
        ratios.push(own / f64::midpoint(before, after));
    }
    floors.sort_by(f64::total_cmp);
    ratios.sort_by(f64::total_cmp);
    (floors[ROUNDS / 2], [1, 2, 3].map(|quarter| ratios[ROUNDS * quarter / 4]))
}

fn row(what: &str, size: usize, ring: &mut dyn FnMut(), ours: &mut dyn FnMut()) {
    let (floor, [low, median, high]) = compare(ring, ours);
    println!("| {what} | {size} | {floor:.0} ns | {median:.2} | {low:.2}–{high:.2} |");
}

fn main() {
    println!("| ours | bytes | ring, reused key | ratio, median | quartiles |\n|---|---:|---:|---:|---:|");
    let (key, context, reused) = (data_key(), context(), ring_key(&RAW));
    let aad = context.canonical(&key).unwrap();
    for size in SIZES {
        let plaintext = vec![0x55; size];
        let (mut body, mut count) = (plaintext.clone(), 0);
        let mut ring_seals = || {
            let nonce = counted(&mut count);
            let tag = reused.seal_in_place_separate_tag(nonce, Aad::from(&aad), black_box(&mut body)).unwrap();
            black_box(tag.as_ref());
        };
        let mut buffer = vec![0x55; size + OVERHEAD];
        row("seal, in place", size, &mut ring_seals, &mut || {
            key.seal_in_place(&context, black_box(&mut buffer)).unwrap();
        });
        row("seal, copying", size, &mut ring_seals, &mut || {
            black_box(key.seal(&context, black_box(&plaintext)).unwrap());
        });
        let envelope = key.seal(&context, &plaintext).unwrap();
        let mut sealed = [vec![0; FRONT], plaintext.clone()].concat();
        let nonce = counted(&mut 0);
        let tag = reused.seal_in_place_separate_tag(nonce, Aad::from(&aad), &mut sealed[FRONT..]).unwrap();
        sealed.extend(tag.as_ref());
        // In place, each call first copies the ciphertext into its buffer, ring's alike.
        let mut rings = sealed.clone();
        let mut ring_opens = || {
            rings.copy_from_slice(&sealed);
            let nonce = counted(&mut 0);
            black_box(reused.open_in_place(nonce, Aad::from(&aad), black_box(&mut rings[FRONT..])).unwrap().len());
        };
        let mut buffer = envelope.clone();
        row("open, in place", size, &mut ring_opens, &mut || {
            buffer.copy_from_slice(&envelope);
            black_box(key.open_in_place(&context, black_box(&mut buffer)).unwrap().len());
        });
        row("open, copying", size, &mut ring_opens, &mut || {
            black_box(key.open(&context, black_box(&envelope)).unwrap());
        });
        let envelopes: Vec<_> = (0..PREFIXES).map(|_| data_key().seal(&context, &plaintext).unwrap()).collect();
        let mut next = envelopes.iter().cycle();
        row("open, in place, new prefix", size, &mut ring_opens, &mut || {
            buffer.copy_from_slice(next.next().unwrap());
            black_box(key.open_in_place(&context, black_box(&mut buffer)).unwrap().len());
        });
    }
}
