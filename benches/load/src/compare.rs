//! Gateway and echo server in turn, in one run: each at the number of callers where it saturates, then at half of its
//! peak at a constant rate.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use crate::call::Kind;
use crate::drive::{Deck, Pace, progress};
use crate::record::{Outcome, resident};
use crate::servers::Server;
use crate::site::Site;

/// Numbers of callers among which the peak is looked for.
const CALLERS: [usize; 6] = [16, 32, 64, 128, 256, 512];
/// Kinds in the order of the report, and what each is held against.
const KINDS: [(Kind, Kind); 7] = [
    (Kind::Echo, Kind::Echo),
    (Kind::Encrypt, Kind::Echo),
    (Kind::Decrypt, Kind::Echo),
    (Kind::BatchEncrypt, Kind::Echo),
    (Kind::BatchDecrypt, Kind::Echo),
    (Kind::EchoStream, Kind::EchoStream),
    (Kind::EncryptStream, Kind::EchoStream),
];
/// MiB of a stream.
const STREAM_MIB: usize = 8;

pub(crate) struct Plan {
    pub(crate) gateway: PathBuf,
    pub(crate) each: Duration,
    pub(crate) rounds: usize,
    pub(crate) connections: usize,
    pub(crate) size: usize,
    pub(crate) smoke: bool,
}

/// One kind of call at its peak.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    kind: Kind,
    callers: usize,
    /// The median of its rounds by throughput.
    peak: Outcome,
    /// Against the reference's median of the same run; 1 for the reference itself.
    throughput_ratio: f64,
    /// The same of the server's processor time a call.
    server_cpu_ratio: Option<f64>,
    /// At half of that rate, open loop.
    half: Option<Outcome>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    size: usize,
    stream_mib: usize,
    connections: usize,
    rounds: usize,
    seconds_each: f64,
    processors: usize,
    rows: Vec<Row>,
    /// Resident bytes of the gateway after all of it.
    gateway_resident: Option<u64>,
}

struct Measured {
    deck: Deck,
    pid: u32,
    callers: usize,
    outcomes: Vec<Outcome>,
}

/// Measures.
pub(crate) async fn compare(plan: &Plan) -> Report {
    let site = Site::start(&plan.gateway).await;
    let echo = Server::echo(&site.certs()).await;
    let stream_mib = if plan.smoke { 1 } else { STREAM_MIB };
    let about = [Site::about(plan.size, stream_mib)];
    let mut measured = BTreeMap::new();
    for (kind, _) in KINDS {
        let server = if matches!(kind, Kind::Echo | Kind::EchoStream) { &echo } else { &site.gateway };
        let endpoint = site.endpoint(server.address, "billing");
        let deck = Deck::connect(&endpoint, plan.connections, &[(kind, 1)], &about).await.unwrap();
        let callers = saturating(&deck, kind, plan, server.pid()).await;
        measured.insert(kind, Measured { deck, pid: server.pid(), callers, outcomes: Vec::new() });
    }
    for round in 0..plan.rounds {
        for (kind, _) in KINDS {
            let it = measured.get_mut(&kind).unwrap();
            let bar = progress(&format!("{kind:?}, round {}", round + 1), plan.each);
            let outcome = it.deck.drive(Pace::Callers(it.callers), plan.each / 10, plan.each, Some(it.pid)).await;
            bar.finish_and_clear();
            it.outcomes.push(outcome);
        }
    }
    let peaks: BTreeMap<Kind, Outcome> = measured.iter().map(|(kind, it)| (*kind, median(&it.outcomes))).collect();
    let mut rows = Vec::new();
    for (kind, reference) in KINDS {
        let (it, peak, reference) = (&measured[&kind], &peaks[&kind], &peaks[&reference]);
        let half = if matches!(kind, Kind::EchoStream | Kind::EncryptStream) {
            None
        } else {
            let rate = peak.calls_per_second / 2.0;
            let bar = progress(&format!("{kind:?}, half of the peak"), plan.each);
            let outcome = it.deck.drive(Pace::Rate(rate), plan.each / 5, plan.each, Some(it.pid)).await;
            bar.finish_and_clear();
            Some(outcome)
        };
        rows.push(Row {
            kind,
            callers: it.callers,
            throughput_ratio: peak.calls_per_second / reference.calls_per_second,
            server_cpu_ratio: peak.server_cpu_us.zip(reference.server_cpu_us).map(|(ours, theirs)| ours / theirs),
            peak: peak.clone(),
            half,
        });
    }
    Report {
        size: plan.size,
        stream_mib,
        connections: plan.connections,
        rounds: plan.rounds,
        seconds_each: plan.each.as_secs_f64(),
        processors: std::thread::available_parallelism().map_or(0, usize::from),
        rows,
        gateway_resident: resident(site.gateway.pid()),
    }
}

/// The number of callers at which it answers most; large calls need few.
async fn saturating(deck: &Deck, kind: Kind, plan: &Plan, pid: u32) -> usize {
    let callers: &[usize] = match kind {
        _ if plan.smoke => &[4],
        Kind::EchoStream | Kind::EncryptStream => &[1, 2, 4, 8],
        Kind::BatchEncrypt | Kind::BatchDecrypt => &[2, 4, 8, 16, 32],
        _ => &CALLERS,
    };
    let each = plan.each / 3;
    let mut best = (0.0, callers[0]);
    for callers in callers {
        let bar = progress(&format!("{kind:?}, {callers} callers"), each);
        let outcome = deck.drive(Pace::Callers(*callers), each / 5, each, Some(pid)).await;
        bar.finish_and_clear();
        if outcome.calls_per_second > best.0 {
            best = (outcome.calls_per_second, *callers);
        }
    }
    best.1
}

fn median(outcomes: &[Outcome]) -> Outcome {
    let mut sorted: Vec<&Outcome> = outcomes.iter().collect();
    sorted.sort_by(|one, two| one.calls_per_second.total_cmp(&two.calls_per_second));
    sorted[sorted.len() / 2].clone()
}

impl Report {
    pub(crate) fn table(&self) -> String {
        let mut out = format!(
            "{} bytes, {} connections, {} processors, medians of {} rounds of {} s\n\n",
            self.size, self.connections, self.processors, self.rounds, self.seconds_each
        );
        out += "| call | callers | a second | ÷ echo | server CPU | ÷ echo | client CPU | p50 | p99 | p99.9 | at half: \
                p50 | p99 | p99.9 | p99 ÷ p50 | failed |\n";
        out += "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n";
        for row in &self.rows {
            let cpu = row.peak.server_cpu_us.map_or_else(|| "?".to_owned(), |us| format!("{us:.1} µs"));
            let cpu_ratio = row.server_cpu_ratio.map_or_else(|| "?".to_owned(), |ratio| format!("{ratio:.2}"));
            let latency = &row.peak.latency_ms;
            let half = row.half.as_ref().map_or_else(
                || "| | | ".to_owned(),
                |half| {
                    let at = &half.latency_ms;
                    format!("{:.2} ms | {:.2} ms | {:.2} ms | {:.1}", at.p50, at.p99, at.p999, at.p99 / at.p50)
                },
            );
            let failed = row.peak.failed + row.half.as_ref().map_or(0, |half| half.failed);
            out += &format!(
                "| {:?} | {} | {:.0} | {:.2} | {cpu} | {cpu_ratio} | {:.1} µs | {:.2} ms | {:.2} ms | {:.2} ms | {half} | \
                 {failed} |\n",
                row.kind,
                row.callers,
                row.peak.calls_per_second,
                row.throughput_ratio,
                row.peak.client_cpu_us,
                latency.p50,
                latency.p99,
                latency.p999,
            );
        }
        let stream = self.rows.iter().filter(|row| matches!(row.kind, Kind::EchoStream | Kind::EncryptStream));
        for row in stream {
            let mib = self.stream_mib as f64;
            out += &format!("\n{:?}: {:.0} MiB a second\n", row.kind, row.peak.calls_per_second * mib);
        }
        if let Some(bytes) = self.gateway_resident {
            out += &format!("\nresident size of the gateway afterwards: {} MiB\n", bytes >> 20);
        }
        out
    }
}
