//! Whether time tells what it must not, after Reparaz, Balasch and Verbauwhede, "Dude, is my code constant time?" (DATE
//! 2017): two classes of inputs, in random order, and Welch's t over the times of each. |t| above 4.5 says that they differ.
//!
//! A row that is expected to differ comes first: if it does not, nothing can be concluded from the others. With `--smoke`
//! each row is measured briefly and only the form is shown.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a tool for the terminal, which must stop when it cannot work"
)]

use std::hint::black_box;
use std::process::ExitCode;
use std::time::Instant;

use ring::rand::{SecureRandom as _, SystemRandom};
use vault_benches::{context, data_key};
use vault_core::envelope::OVERHEAD;
use vault_core::secret::Key32;

/// Two classes differ if |t| is above this, as the paper has it.
const DIFFERS: f64 = 4.5;
/// Measurements of both classes together, in a full run.
const MEASUREMENTS: usize = 400_000;
/// The slowest part of the measurements is what the machine did besides, and is left out.
const KEPT: f64 = 0.9;
/// Bytes of the plaintexts.
const SIZE: usize = 256;

/// Mean and variance (Welford).
#[derive(Default)]
struct Moments {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Moments {
    fn add(&mut self, value: f64) {
        self.count += 1.0;
        let before = value - self.mean;
        self.mean += before / self.count;
        self.squares += before * (value - self.mean);
    }

    fn error(&self) -> f64 {
        self.squares / (self.count - 1.0) / self.count
    }
}

/// Welch's t of two classes: `work` is called with the class.
fn t(measurements: usize, mut work: impl FnMut(bool)) -> f64 {
    let mut order = vec![0; measurements];
    SystemRandom::new().fill(&mut order).unwrap();
    let mut times: Vec<(bool, f64)> = Vec::with_capacity(measurements);
    for byte in order {
        let class = byte & 1 == 1;
        let begun = Instant::now();
        work(class);
        times.push((class, begun.elapsed().as_nanos() as f64));
    }
    let mut sorted: Vec<f64> = times.iter().map(|(_, nanos)| *nanos).collect();
    sorted.sort_by(f64::total_cmp);
    let most = sorted[((measurements as f64 * KEPT) as usize).min(measurements - 1)];
    let mut classes = [Moments::default(), Moments::default()];
    // The first ones warm up.
    for (class, nanos) in times.into_iter().skip(measurements / 20).filter(|(_, nanos)| *nanos <= most) {
        classes[usize::from(class)].add(nanos);
    }
    let [a, b] = &classes;
    (a.mean - b.mean) / (a.error() + b.error()).sqrt()
}

/// The bytes with one changed.
fn changed(bytes: &[u8], at: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at] ^= 1;
    bytes
}

fn main() -> ExitCode {
    let smoke = std::env::args().any(|arg| arg == "--smoke");
    let measurements = if smoke { 4000 } else { MEASUREMENTS };
    let (key, context) = (data_key(), context());
    let envelope = key.seal(&context, &[0x55; SIZE]).unwrap();
    assert_eq!(envelope.len(), SIZE + OVERHEAD);
    // docs/format.md: header 22, nonce 24, commitment 32, ciphertext, tag 16.
    let opening = |first: usize, last: usize| {
        let classes = [changed(&envelope, first), changed(&envelope, last)];
        let mut buffer = envelope.clone();
        t(measurements, |class| {
            buffer.copy_from_slice(&classes[usize::from(class)]);
            assert!(key.open_in_place(black_box(&context), black_box(&mut buffer)).is_err());
        })
    };
    let end = envelope.len();
    let (long, early, late) = (vec![7; 4096], changed(&[7; 4096], 0), changed(&[7; 4096], 4095));
    let control = t(measurements, |class| {
        let other = if class { &early } else { &late };
        black_box(long.iter().zip(black_box(other)).all(|(a, b)| a == b));
    });
    let own = Key32::copy_of(&[7; 32]).unwrap();
    let others = [0, 31].map(|at| Key32::copy_of(&changed(&[7; 32], at).try_into().unwrap()).unwrap());
    let rows = [
        ("the first or the last byte of the commitment is wrong", opening(46, 77)),
        ("the first or the last byte of the tag is wrong", opening(end - 16, end - 1)),
        ("the first or the last byte of the ciphertext is wrong", opening(78, end - 17)),
        (
            "two keys differ in the first or the last byte",
            t(measurements, |class| {
                assert!(black_box(&own) != black_box(&others[usize::from(class)]));
            }),
        ),
    ];
    println!("| what two classes differ in | t | |\n|---|---:|---|");
    let verdict = |t: f64| if t.abs() > DIFFERS { "differs" } else { "no difference found" };
    println!("| control: an ordinary comparison of 4 KiB, early or late | {control:.1} | {} |", verdict(control));
    for (what, t) in &rows {
        println!("| {what} | {t:.1} | {} |", verdict(*t));
    }
    let good = control.abs() > DIFFERS && rows.iter().all(|(_, t)| t.abs() <= DIFFERS);
    if smoke || good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
