//! The counters as text, in the exposition format that Prometheus reads (version 0.0.4).

use std::fmt::{self, Write as _};
use std::sync::atomic::Ordering;

use vault_core::Vault;
use vault_core::audit::Health;
use vault_core::keys::CacheStats;

use super::{BUCKETS, Metrics, plane_name};
use crate::end_users::EndUsers;
use crate::refusals::Refusals;

/// Names of the status codes, in their order.
const NAMES: [&str; super::CODES] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// Everything that is counted.
pub(crate) fn render(metrics: &Metrics, refusals: &Refusals, end_users: &EndUsers, vault: &Vault) -> String {
    let mut out = String::with_capacity(16 * 1024);
    // Writing to a string does not fail.
    let _ = all(&mut out, metrics, refusals, end_users, vault);
    out
}

fn all(out: &mut String, metrics: &Metrics, refusals: &Refusals, end_users: &EndUsers, vault: &Vault) -> fmt::Result {
    calls(out, metrics)?;
    head(out, "blindvault_connections", "gauge", "Connections open.")?;
    for (plane, count) in ["data", "control"].iter().zip(&metrics.connections) {
        writeln!(out, "blindvault_connections{{plane=\"{plane}\"}} {}", count.load(Ordering::Relaxed))?;
    }
    head(out, "blindvault_connections_refused_total", "counter", "Connections that came to nothing, by rule.")?;
    let (tokens, refused): (Vec<_>, Vec<_>) =
        refusals.totals().into_iter().partition(|((_, reason), _)| reason.starts_with("token_"));
    for ((plane, reason), count) in refused {
        writeln!(out, "blindvault_connections_refused_total{{plane=\"{plane}\",reason=\"{reason}\"}} {count}")?;
    }
    let name = "blindvault_operator_calls_refused_total";
    head(out, name, "counter", "Operators' calls without a token that is theirs, by rule.")?;
    for ((_, rule), count) in tokens {
        writeln!(out, "{name}{{rule=\"{rule}\"}} {count}")?;
    }
    let name = "blindvault_end_user_tokens_refused_total";
    head(out, name, "counter", "Tokens that prove no end user, by rule.")?;
    for (rule, count) in end_users.refused() {
        writeln!(out, "{name}{{rule=\"{rule}\"}} {count}")?;
    }
    caches(out, &[("data", vault.keys().data_key_stats()), ("tenant", vault.keys().tenant_key_stats())])?;
    head(out, "blindvault_audit_entries", "gauge", "Durable entries of the audit log.")?;
    writeln!(out, "blindvault_audit_entries {}", vault.audit().head().size)?;
    head(
        out,
        "blindvault_audit_healthy",
        "gauge",
        "1 if the audit log takes entries; without it no call is answered.",
    )?;
    let healthy = matches!(vault.audit().health(), Health::Good | Health::TilesBehind(_));
    writeln!(out, "blindvault_audit_healthy {}", u8::from(healthy))?;
    let segments = vault.audit().segments();
    head(out, "blindvault_audit_segment", "gauge", "The number of the audit log's open segment.")?;
    writeln!(out, "blindvault_audit_segment {}", segments.open)?;
    head(out, "blindvault_audit_segments_waiting", "gauge", "Sealed segments that are not archived yet.")?;
    writeln!(out, "blindvault_audit_segments_waiting {}", segments.open.saturating_sub(segments.archived))?;
    let name = "blindvault_audit_archive_behind";
    head(out, name, "gauge", "1 if sealing or archiving fails; it is tried again, and calls are answered.")?;
    writeln!(out, "{name} {}", u8::from(segments.behind.is_some()))?;
    head(out, "blindvault_policy_epoch", "gauge", "The policy set in force, counted from the start.")?;
    writeln!(out, "blindvault_policy_epoch {}", vault.authorizer().epoch())
}

pub(super) fn head(out: &mut String, name: &str, kind: &str, help: &str) -> fmt::Result {
    writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}")
}

fn calls(out: &mut String, metrics: &Metrics) -> fmt::Result {
    head(out, "blindvault_calls_total", "counter", "Calls that ended, by status code.")?;
    for (rpc, method) in metrics.methods() {
        for (code, count) in NAMES.iter().zip(&method.codes) {
            let count = count.load(Ordering::Relaxed);
            if count > 0 {
                let (plane, service, name) = (plane_name(rpc.plane), rpc.service, rpc.method);
                let labels = format!("plane=\"{plane}\",service=\"{service}\",method=\"{name}\",code=\"{code}\"");
                writeln!(out, "blindvault_calls_total{{{labels}}} {count}")?;
            }
        }
    }
    head(out, "blindvault_calls_running", "gauge", "Calls that are being answered.")?;
    for (rpc, method) in metrics.methods() {
        let running = method.running.load(Ordering::Relaxed);
        writeln!(out, "blindvault_calls_running{{service=\"{}\",method=\"{}\"}} {running}", rpc.service, rpc.method)?;
    }
    let name = "blindvault_call_duration_seconds";
    head(out, name, "histogram", "How long calls took, from the request's headers to the last byte of the answer.")?;
    for (rpc, method) in metrics.methods() {
        let labels = format!("service=\"{}\",method=\"{}\"", rpc.service, rpc.method);
        let mut count = 0;
        for (at, bucket) in method.buckets.iter().enumerate() {
            count += bucket.load(Ordering::Relaxed);
            match BUCKETS.get(at) {
                Some(bound) => writeln!(out, "{name}_bucket{{{labels},le=\"{}\"}} {count}", seconds(*bound))?,
                None => writeln!(out, "{name}_bucket{{{labels},le=\"+Inf\"}} {count}")?,
            }
        }
        writeln!(out, "{name}_sum{{{labels}}} {}", seconds(method.micros.load(Ordering::Relaxed)))?;
        writeln!(out, "{name}_count{{{labels}}} {count}")?;
    }
    Ok(())
}

fn seconds(micros: u64) -> String {
    let text = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// One metric of a key cache.
type Row = (&'static str, &'static str, &'static str, fn(&CacheStats) -> u64);

const CACHE_ROWS: [Row; 6] = [
    ("hits_total", "counter", "Calls that found their key in memory.", |stats| stats.hits),
    ("loads_total", "counter", "Keys that were unwrapped.", |stats| stats.loads),
    ("coalesced_total", "counter", "Calls that waited for another call's unwrapping.", |stats| stats.coalesced),
    ("evictions_total", "counter", "Keys that were wiped.", |stats| stats.evictions),
    ("held", "gauge", "Keys in memory.", |stats| stats.held),
    ("oldest_seconds", "gauge", "How long the oldest key has been in memory.", |stats| stats.oldest_millis / 1000),
];

fn caches(out: &mut String, kinds: &[(&str, CacheStats)]) -> fmt::Result {
    for (row, kind, help, value) in CACHE_ROWS {
        head(out, &format!("blindvault_key_cache_{row}"), kind, help)?;
        for (key, stats) in kinds {
            writeln!(out, "blindvault_key_cache_{row}{{key=\"{key}\"}} {}", value(stats))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn microseconds_are_written_as_seconds() {
        let pairs = [(0, "0"), (500, "0.0005"), (1_000_000, "1"), (2_500_000, "2.5"), (1_234_567, "1.234567")];
        for (micros, text) in pairs {
            assert_eq!(seconds(micros), text);
        }
    }
}
