//! Drives calls: by callers that wait for their answers, or at a constant rate.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::mpsc;
use vault_client::Endpoint;

use crate::call::{About, Kind, Prepared};
use crate::record::{Outcome, Seen, cpu_of};

/// Calls under way at most when they begin at a constant rate; those beyond count as failed.
const MOST_UNDER_WAY: u64 = 20_000;
/// How long answers may still take when no more calls begin.
const DRAIN: Duration = Duration::from_secs(30);

/// How calls begin.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Pace {
    /// So many callers, each waiting for its answer.
    Callers(usize),
    /// So many calls a second, whatever becomes of them.
    Rate(f64),
}

/// What to call, on each connection, and how often relative to the others.
#[derive(Clone)]
pub(crate) struct Deck {
    hands: Vec<Vec<(Prepared, u32)>>,
}

/// Weighs kinds and tenants by a generator of its own: which call comes next is nobody's secret, and each run the same.
struct Chooser(u64);

impl Chooser {
    fn next(&mut self, below: u32) -> u32 {
        // Knuth's MMIX.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % u64::from(below.max(1))) as u32
    }
}

fn choose<'a>(hand: &'a mut [(Prepared, u32)], chooser: &mut Chooser) -> &'a mut Prepared {
    let total = hand.iter().map(|(_, weight)| weight).sum();
    let mut left = chooser.next(total);
    let at = hand.iter().position(|(_, weight)| {
        let found = left < *weight;
        left = left.saturating_sub(*weight);
        found
    });
    &mut hand[at.unwrap_or(0)].0
}

impl Deck {
    /// Connects and prepares.
    pub(crate) async fn connect(
        endpoint: &Endpoint,
        connections: usize,
        mix: &[(Kind, u32)],
        about: &[About],
    ) -> Result<Self, String> {
        let mut hands = Vec::new();
        for _ in 0..connections {
            let channel = endpoint.channel().await.map_err(|error| error.to_string())?;
            let mut hand = Vec::new();
            for about in about {
                for (kind, weight) in mix {
                    let prepared = Prepared::new(channel.clone(), *kind, about).await;
                    hand.push((prepared.map_err(|status| format!("{kind:?}: {status}"))?, *weight));
                }
            }
            hands.push(hand);
        }
        Ok(Self { hands })
    }

    /// Calls for a while. Nothing is recorded of the first part of it, `warm_up`.
    pub(crate) async fn drive(&self, pace: Pace, warm_up: Duration, time: Duration, server: Option<u32>) -> Outcome {
        match pace {
            Pace::Callers(callers) => self.closed(callers, warm_up, time, server).await,
            Pace::Rate(rate) => self.open(rate, warm_up, time, server).await,
        }
    }

    async fn closed(&self, callers: usize, warm_up: Duration, time: Duration, server: Option<u32>) -> Outcome {
        let (recording, over) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let tasks: Vec<_> = (0..callers)
            .map(|n| {
                let (recording, over) = (Arc::clone(&recording), Arc::clone(&over));
                let mut hand = self.hands[n % self.hands.len()].clone();
                let mut chooser = Chooser(n as u64);
                tokio::spawn(async move {
                    let mut seen = Seen::default();
                    while !over.load(Ordering::Relaxed) {
                        let begun = Instant::now();
                        let answer = choose(&mut hand, &mut chooser).call().await;
                        if recording.load(Ordering::Relaxed) && !over.load(Ordering::Relaxed) {
                            match answer {
                                Ok(()) => seen.answered(begun.elapsed()),
                                Err(status) => seen.failed(&format!("{:?}", status.code())),
                            }
                        }
                    }
                    seen
                })
            })
            .collect();
        tokio::time::sleep(warm_up).await;
        let usage = Usage::begin(server);
        recording.store(true, Ordering::Relaxed);
        tokio::time::sleep(time).await;
        over.store(true, Ordering::Relaxed);
        let spent = usage.end();
        let mut all = Seen::default();
        for task in tasks {
            all.add(&task.await.unwrap());
        }
        spent.outcome(&all)
    }

    /// A thread of its own begins calls when they are due, and sleeps less than it has to, then spins: tokio's timers go
    /// by milliseconds.
    async fn open(&self, rate: f64, warm_up: Duration, time: Duration, server: Option<u32>) -> Outcome {
        let hands = self.hands.clone();
        let runtime = tokio::runtime::Handle::current();
        let (to, mut from) = mpsc::unbounded_channel::<(Duration, Result<Duration, String>)>();
        let under_way = Arc::new(AtomicU64::new(0));
        let begun = Instant::now();
        let whole = warm_up + time;
        let beginning = std::thread::spawn(move || {
            let mut chooser = Chooser(7);
            for n in 0_u64.. {
                let due = Duration::from_secs_f64(n as f64 / rate);
                if due >= whole {
                    break;
                }
                while let Some(left) = due.checked_sub(begun.elapsed()).filter(|left| !left.is_zero()) {
                    match left.checked_sub(Duration::from_micros(100)) {
                        Some(sleep) => std::thread::sleep(sleep),
                        None => std::thread::yield_now(),
                    }
                }
                let to = to.clone();
                if under_way.load(Ordering::Relaxed) >= MOST_UNDER_WAY {
                    drop(to.send((due, Err("TooManyUnderWay".to_owned()))));
                    continue;
                }
                under_way.fetch_add(1, Ordering::Relaxed);
                let under_way = Arc::clone(&under_way);
                let mut hand = hands[n as usize % hands.len()].clone();
                let mut prepared = choose(&mut hand, &mut chooser).clone();
                runtime.spawn(async move {
                    let answer = prepared.call().await;
                    under_way.fetch_sub(1, Ordering::Relaxed);
                    // From when it was due, not from when it was sent.
                    let after = begun.elapsed().saturating_sub(due);
                    drop(to.send((due, answer.map(|()| after).map_err(|status| format!("{:?}", status.code())))));
                });
            }
        });
        let recording = tokio::spawn(async move {
            let mut seen = Seen::default();
            while let Some((due, answer)) = from.recv().await {
                if due >= warm_up {
                    match answer {
                        Ok(after) => seen.answered(after),
                        Err(code) => seen.failed(&code),
                    }
                }
            }
            seen
        });
        tokio::time::sleep(warm_up.saturating_sub(begun.elapsed())).await;
        let usage = Usage::begin(server);
        tokio::task::spawn_blocking(move || beginning.join().unwrap()).await.unwrap();
        let spent = usage.end();
        let seen = tokio::time::timeout(DRAIN, recording).await.unwrap().unwrap();
        spent.outcome(&seen)
    }
}

/// Time on the clock and of processors, of server and client.
struct Usage {
    server: Option<u32>,
    begun: Instant,
    before: (Option<f64>, f64),
}

struct Used {
    wall: Duration,
    server: Option<f64>,
    client: f64,
}

impl Usage {
    fn read(server: Option<u32>) -> (Option<f64>, f64) {
        (server.and_then(cpu_of), cpu_of(std::process::id()).unwrap_or_default())
    }

    fn begin(server: Option<u32>) -> Self {
        Self { server, begun: Instant::now(), before: Self::read(server) }
    }

    fn end(self) -> Used {
        let (wall, now) = (self.begun.elapsed(), Self::read(self.server));
        let server = now.0.zip(self.before.0).map(|(now, before)| now - before);
        Used { wall, server, client: now.1 - self.before.1 }
    }
}

impl Used {
    fn outcome(&self, seen: &Seen) -> Outcome {
        seen.outcome(self.wall, self.server, self.client)
    }
}

/// Load on a gateway that runs already.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Its data plane, host:port.
    #[arg(long)]
    address: String,
    /// The name that its certificate has to carry.
    #[arg(long, default_value = "localhost")]
    server_name: String,
    /// The directory with `server-ca.pem`, and the workload's certificate and key.
    #[arg(long)]
    certs: PathBuf,
    /// The workload: its certificate is NAME.pem, its key NAME.key.
    #[arg(long, default_value = "billing")]
    workload: String,
    /// The tenants, separated by commas; each is called as often as the others.
    #[arg(long, value_delimiter = ',', default_value = "acme")]
    tenants: Vec<String>,
    /// The dataset of each.
    #[arg(long, default_value = "customers")]
    dataset: String,
    /// The purpose of each call.
    #[arg(long, default_value = "billing")]
    purpose: String,
    /// Kinds of calls and their weights, for example `encrypt=3,decrypt=7`.
    #[arg(long, value_delimiter = ',', value_parser = weight, default_value = "encrypt=1,decrypt=1")]
    mix: Vec<(Kind, u32)>,
    /// Bytes of each value.
    #[arg(long, default_value_t = 256)]
    size: usize,
    /// Values of a batch.
    #[arg(long, default_value_t = 100)]
    items: usize,
    /// Messages of 64 KiB in a stream.
    #[arg(long, default_value_t = 64)]
    pieces: usize,
    /// Closed: so many callers. 64 if there is no rate either.
    #[arg(long, conflicts_with = "rate")]
    callers: Option<usize>,
    /// Open: so many calls a second.
    #[arg(long)]
    rate: Option<f64>,
    /// Connections.
    #[arg(long, default_value_t = 4)]
    connections: usize,
    /// Seconds before anything is recorded.
    #[arg(long, default_value_t = 1.0)]
    warm_up: f64,
    /// Seconds that are recorded.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// The server's process on this machine, to measure its processor time.
    #[arg(long)]
    server_pid: Option<u32>,
}

fn weight(text: &str) -> Result<(Kind, u32), String> {
    let (kind, weight) = text.split_once('=').unwrap_or((text, "1"));
    let kind = <Kind as clap::ValueEnum>::from_str(&kind.replace('_', "-"), false)?;
    let weight = weight.parse().map_err(|_| "a weight must be a whole number".to_owned())?;
    Ok((kind, weight))
}

/// Shows how far a measurement is, on standard error.
pub(crate) fn progress(of: &str, time: Duration) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg:<40} [{bar:30}] {elapsed}/{prefix}");
    let bar = ProgressBar::new(100).with_style(style.unwrap()).with_message(of.to_owned());
    bar.set_prefix(format!("{:.0} s", time.as_secs_f64()));
    let ticking = bar.clone();
    tokio::spawn(async move {
        while !ticking.is_finished() {
            let part = ticking.elapsed().as_secs_f64() / time.as_secs_f64().max(0.001);
            ticking.set_position((part * 100.0).min(100.0) as u64);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    bar
}

/// Runs what the arguments say.
pub(crate) async fn run(args: &RunArgs) -> Outcome {
    let read = |name: String| std::fs::read(args.certs.join(name)).unwrap();
    let (ca, certificate) = (read("server-ca.pem".to_owned()), read(format!("{}.pem", args.workload)));
    let key = read(format!("{}.key", args.workload));
    let endpoint = Endpoint::new(&args.address, &args.server_name, ca, certificate, key);
    let about: Vec<About> = args
        .tenants
        .iter()
        .map(|tenant| About {
            tenant: tenant.clone(),
            dataset: args.dataset.clone(),
            purpose: args.purpose.clone(),
            size: args.size,
            items: args.items,
            pieces: args.pieces,
        })
        .collect();
    let deck = Deck::connect(&endpoint, args.connections.max(1), &args.mix, &about).await.unwrap();
    let pace = args.rate.map_or(Pace::Callers(args.callers.unwrap_or(64)), Pace::Rate);
    let (warm_up, time) = (Duration::from_secs_f64(args.warm_up), Duration::from_secs_f64(args.seconds));
    let bar = progress("load", warm_up + time);
    let outcome = deck.drive(pace, warm_up, time, args.server_pid).await;
    bar.finish_and_clear();
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_read_and_nonsense_is_not() {
        assert_eq!(weight("encrypt=3"), Ok((Kind::Encrypt, 3)));
        assert_eq!(weight("batch_decrypt"), Ok((Kind::BatchDecrypt, 1)));
        assert!(weight("encrypt=many").is_err() && weight("shred=1").is_err());
    }

    #[test]
    fn every_call_of_a_hand_has_its_turn_by_weight() {
        let mut chooser = Chooser(1);
        let mut counts = [0_u32; 3];
        for _ in 0..30_000 {
            let left = chooser.next(6);
            counts[match left {
                0 => 0,
                1 | 2 => 1,
                _ => 2,
            }] += 1;
        }
        assert!(counts[0].abs_diff(5_000) < 500 && counts[1].abs_diff(10_000) < 500, "{counts:?}");
    }
}
