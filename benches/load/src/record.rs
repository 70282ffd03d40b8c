//! What is recorded of calls: latencies in HDR histograms, failures by code, processor time of processes.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// From 1 µs to 60 s, three digits.
fn empty() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 3).unwrap()
}

/// What one caller saw.
pub(crate) struct Seen {
    latencies: Histogram<u64>,
    failures: BTreeMap<String, u64>,
    calls: u64,
}

impl Default for Seen {
    fn default() -> Self {
        Self { latencies: empty(), failures: BTreeMap::new(), calls: 0 }
    }
}

impl Seen {
    pub(crate) fn answered(&mut self, after: Duration) {
        self.calls += 1;
        self.latencies.saturating_record(u64::try_from(after.as_micros()).unwrap_or(u64::MAX).max(1));
    }

    pub(crate) fn failed(&mut self, code: &str) {
        *self.failures.entry(code.to_owned()).or_default() += 1;
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.latencies.add(&other.latencies).unwrap();
        self.calls += other.calls;
        for (code, count) in &other.failures {
            *self.failures.entry(code.clone()).or_default() += count;
        }
    }

    /// Over a time, with the processor time that it took.
    pub(crate) fn outcome(&self, wall: Duration, server: Option<f64>, client: f64) -> Outcome {
        let at = |quantile: f64| self.latencies.value_at_quantile(quantile) as f64 / 1000.0;
        let each = |seconds: f64| seconds * 1e6 / self.calls.max(1) as f64;
        Outcome {
            calls: self.calls,
            failed: self.failures.values().sum(),
            failures: self.failures.clone(),
            seconds: wall.as_secs_f64(),
            calls_per_second: self.calls as f64 / wall.as_secs_f64(),
            server_cpu_us: server.map(each),
            client_cpu_us: each(client),
            latency_ms: Latency {
                p50: at(0.5),
                p90: at(0.9),
                p99: at(0.99),
                p999: at(0.999),
                max: self.latencies.max() as f64 / 1000.0,
            },
        }
    }
}

/// What became of a measurement.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Outcome {
    /// Calls that were answered well.
    pub(crate) calls: u64,
    /// Calls that failed.
    pub(crate) failed: u64,
    /// The same by status code.
    pub(crate) failures: BTreeMap<String, u64>,
    /// How long it took.
    pub(crate) seconds: f64,
    /// Calls answered well, a second.
    pub(crate) calls_per_second: f64,
    /// Processor time of the server a call, in microseconds; absent if its process is not known.
    pub(crate) server_cpu_us: Option<f64>,
    /// Processor time of this process a call, in microseconds.
    pub(crate) client_cpu_us: f64,
    /// How long answers took.
    pub(crate) latency_ms: Latency,
}

/// Quantiles, in milliseconds.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

/// Processor time of a process so far, user and system, in seconds: its ticks of 10 ms, so measure for seconds.
pub(crate) fn cpu_of(pid: u32) -> Option<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses and may hold anything.
    let rest = stat.rsplit_once(')')?.1;
    let mut fields = rest.split_whitespace().skip(11);
    let (user, system): (f64, f64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((user + system) / 100.0)
}

/// The resident size of a process, in bytes.
pub(crate) fn resident(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_and_failures_add_up() {
        let (mut one, mut two) = (Seen::default(), Seen::default());
        for ms in 1..=100 {
            one.answered(Duration::from_millis(ms));
            two.answered(Duration::from_millis(ms));
        }
        two.failed("unavailable");
        one.add(&two);
        let outcome = one.outcome(Duration::from_secs(2), Some(0.001), 0.002);
        assert_eq!((outcome.calls, outcome.failed, outcome.failures["unavailable"]), (200, 1, 1));
        assert!((outcome.latency_ms.p50 - 50.0).abs() < 0.1 && (outcome.latency_ms.p99 - 99.0).abs() < 0.1);
        assert!((outcome.server_cpu_us.unwrap() - 5.0).abs() < 0.01 && (outcome.calls_per_second - 100.0).abs() < 0.01);
    }

    #[test]
    fn this_process_has_used_a_processor() {
        let own = std::process::id();
        let before = cpu_of(own).unwrap();
        let begun = std::time::Instant::now();
        while begun.elapsed() < Duration::from_millis(100) {
            std::hint::spin_loop();
        }
        assert!(cpu_of(own).unwrap() >= before);
        assert!(resident(own).unwrap() > 1 << 20);
    }
}
