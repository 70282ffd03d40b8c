//! The lines about the log's health, its witnesses and sinks, certificates and the process.

use vault_core::time::Timestamp;

use super::Facts;
use super::lines::{line, span, unless_zero};
use super::model::{Detail, Line, Verdict};
use super::status::{Ending, LogState, SinkState, WitnessState};
use super::tally::Day;

const DAY: u64 = 86_400_000;
/// Without a deadline of its own, a witness or sink that is behind for so long wants somebody.
const LAG_LIMIT: u64 = 60_000;

/// The log itself.
pub(super) fn log(sum: &Day, facts: &Facts<'_>) -> Vec<Line> {
    const GROUP: &str = "Audit log";
    let health = line(GROUP, "log.health", "the log's files", "every frame and entry read in order");
    let health = match &facts.status.log {
        LogState::Read => health.said("read without a finding; `audit verify` recomputes the rest").ok(),
        LogState::Verified { checkpoints } => {
            health.said("verified").details([Detail::new("checkpoints that hold", checkpoints)]).ok()
        }
        LogState::Broken(why) => health.said("do not hold").details([Detail::new("finding", why)]).is(Verdict::Bad),
    };
    vec![
        health,
        line(GROUP, "log.entries", "entries in the period", "entries of the days of the period")
            .count(sum.entries)
            .details([Detail::new("in the whole log", facts.tally.entries())])
            .ok(),
        line(GROUP, "log.starts", "starts of the gateway", "system entries `started`").count(sum.starts).ok(),
        line(GROUP, "log.cuts", "unfinished frames cut at a start", "system entries `recovery_cut`")
            .count(sum.cuts)
            .limit("0 but after a crash")
            .is(unless_zero(sum.cuts, Verdict::Attention)),
        line(GROUP, "log.backups", "backups of the store", "system entries `backup`").count(sum.backups).ok(),
    ]
}

/// Who watches the log.
pub(super) fn watchers(facts: &Facts<'_>) -> Vec<Line> {
    const GROUP: &str = "Witnesses and sinks";
    let mut lines: Vec<Line> =
        facts.status.witnesses.iter().map(|one| witness(GROUP, one, facts.tally.entries())).collect();
    if lines.is_empty() {
        let none = line(
            GROUP,
            "witness",
            "witnesses",
            "the configuration; without one, a rolled-back log shows only against what somebody kept",
        );
        lines.push(none.none("not configured"));
    }
    lines.extend(facts.status.sinks.iter().map(|one| sink(GROUP, one)));
    if facts.status.sinks.is_empty() {
        lines.push(line(GROUP, "sink", "sinks", "the configuration").none("not configured"));
    }
    lines
}

#[expect(clippy::cast_precision_loss, reason = "seconds with three digits")]
fn witness(group: &str, one: &WitnessState, entries: u64) -> Line {
    let how = "the time since when there is something that it has not cosigned";
    let made = line(group, &format!("witness.{}", one.name), &format!("lag of the witness {}", one.name), how);
    let details = [Detail::new("entries cosigned", one.size), Detail::new("entries of the log", entries)]
        .into_iter()
        .chain(one.why.map(|why| Detail::new("did not cosign", why)));
    let limit = one.mandatory_millis.unwrap_or(LAG_LIMIT);
    let made = made.limit(format!("under {}", span(limit))).details(details);
    match (one.lag_millis, one.why) {
        (None, _) => made.none("not measured: no gateway was asked"),
        (Some(lag), why) => {
            let alarm = why.is_some_and(|why| why.contains("another history") || why.contains("rolled back"));
            let verdict = match lag > limit {
                _ if alarm => Verdict::Bad,
                true if one.mandatory_millis.is_some() => Verdict::Bad,
                true => Verdict::Attention,
                false => Verdict::Ok,
            };
            made.figure(span(lag), lag as f64 / 1000.0).is(verdict)
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "seconds with three digits")]
fn sink(group: &str, one: &SinkState) -> Line {
    let how = "the time since when there is something that it has not taken";
    let kind = if one.mandatory { "mandatory" } else { "best-effort" };
    let wrong = if one.mandatory { Verdict::Bad } else { Verdict::Attention };
    let verdict = if one.healthy && one.lag_millis <= LAG_LIMIT && one.lost == 0 { Verdict::Ok } else { wrong };
    line(group, &format!("sink.{}", one.name), &format!("lag of the {kind} sink {}", one.name), how)
        .figure(span(one.lag_millis), one.lag_millis as f64 / 1000.0)
        .limit(format!("under {}, 0 lost", span(LAG_LIMIT)))
        .details([
            Detail::new("takes entries", if one.healthy { "yes" } else { "no" }),
            Detail::new("entries lost", one.lost),
        ])
        .is(verdict)
}

/// What ends soon.
pub(super) fn certificates(facts: &Facts<'_>) -> Vec<Line> {
    const GROUP: &str = "Certificates";
    // How long before its end each kind wants somebody; lists are renewed often and by machines.
    let kinds = [
        (
            "certificate",
            "the gateway's own certificates",
            7 * DAY,
            "the certificates that the listeners were loaded with",
        ),
        ("root", "roots that callers are proven by", 90 * DAY, "the trust bundles of both planes"),
        ("list", "revocation lists", DAY / 24, "next updates of the lists of both planes"),
    ];
    kinds
        .into_iter()
        .map(|(kind, name, early, how)| {
            let made = line(GROUP, &format!("certificates.{kind}"), &format!("first end of {name}"), how);
            let ends: Vec<&Ending> = facts.status.endings.iter().filter(|ending| ending.kind == kind).collect();
            let Some(first) = ends.iter().map(|ending| ending.at).min() else { return made.none("not configured") };
            let details = ends.iter().map(|ending| Detail::new(&ending.name, ending.at.rfc3339()));
            soonest(first, facts.made, early, made.details(details))
        })
        .collect()
}

#[expect(clippy::cast_precision_loss, reason = "days with one digit")]
fn soonest(first: Timestamp, now: Timestamp, early: u64, made: super::lines::Making) -> Line {
    let left = first.millis_since(now);
    let made = made.limit(format!("more than {}", span(early)));
    if left == 0 {
        return made.figure("over", 0.0).is(Verdict::Bad);
    }
    let verdict = if left < early { Verdict::Attention } else { Verdict::Ok };
    made.figure(format!("in {}", span(left)), left as f64 / DAY as f64).is(verdict)
}

/// What the process denies itself.
pub(super) fn process(facts: &Facts<'_>) -> Vec<Line> {
    const GROUP: &str = "Process";
    let made = line(
        GROUP,
        "process.hardening",
        "restrictions of the serving process",
        "what the process asked of the kernel, and got",
    );
    let Some(state) = facts.status.hardening else { return vec![made.none("not measured: no gateway was asked")] };
    let parts = [
        ("no core dumps, not dumpable", state.undumpable),
        ("files restricted (Landlock)", state.landlock),
        ("system calls restricted (seccomp)", state.seccomp),
        ("keys in locked memory", state.locked),
    ];
    let missing = parts.iter().filter(|(_, held)| !held).count();
    let details = parts.iter().map(|(name, held)| Detail::new(*name, if *held { "yes" } else { "no" }));
    let value = format!("{} of {} in force", parts.len() - missing, parts.len());
    let verdict = if missing == 0 { Verdict::Ok } else { Verdict::Attention };
    #[expect(clippy::cast_precision_loss, reason = "four at most")]
    let number = (parts.len() - missing) as f64;
    vec![made.figure(value, number).limit("4 of 4").details(details).is(verdict)]
}
