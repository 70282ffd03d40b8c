//! The lines that the log and the store are the source of.

use vault_core::keys::{Census, KeyAges};
use vault_core::vault::LifecycleSettings;

use super::Facts;
use super::model::{Detail, Line, Verdict};
use super::tally::{Counts, Day, certificates_shown};

/// Most parts of a line that are listed.
const MOST_DETAILS: usize = 50;
const DAY: f64 = 86_400_000.0;
/// How soon a gateway must have wiped what was erased, in milliseconds.
const REVOCATION_LIMIT: u64 = 1000;

/// A line in the making.
pub(super) struct Making(Line);

pub(super) fn line(group: &str, id: &str, name: &str, how: &str) -> Making {
    Making(Line {
        id: id.to_owned(),
        group: group.to_owned(),
        name: name.to_owned(),
        value: String::new(),
        number: None,
        limit: String::new(),
        verdict: Verdict::Ok,
        how: how.to_owned(),
        details: Vec::new(),
    })
}

impl Making {
    /// A figure that is a number of things.
    #[expect(
        clippy::cast_precision_loss,
        reason = "counts are shown to people; above 2^53 the last digits do not matter"
    )]
    pub(super) fn count(mut self, count: u64) -> Self {
        self.0.value = count.to_string();
        self.0.number = Some(count as f64);
        self
    }

    pub(super) fn figure(mut self, value: impl Into<String>, number: f64) -> Self {
        self.0.value = value.into();
        self.0.number = Some(number);
        self
    }

    pub(super) fn said(mut self, value: impl Into<String>) -> Self {
        self.0.value = value.into();
        self
    }

    pub(super) fn none(mut self, why: &str) -> Line {
        self.0.value = why.to_owned();
        self.0.number = None;
        self.0.verdict = Verdict::NotMeasured;
        self.0
    }

    pub(super) fn limit(mut self, limit: impl Into<String>) -> Self {
        self.0.limit = limit.into();
        self
    }

    pub(super) fn details(mut self, details: impl IntoIterator<Item = Detail>) -> Self {
        let mut all: Vec<Detail> = details.into_iter().collect();
        let more = all.len().saturating_sub(MOST_DETAILS);
        all.truncate(MOST_DETAILS);
        if more > 0 {
            all.push(Detail::new("(more)", more));
        }
        self.0.details = all;
        self
    }

    pub(super) fn by(self, counts: &Counts) -> Self {
        let mut sorted: Vec<_> = counts.iter().collect();
        sorted.sort_by_key(|(name, by)| (std::cmp::Reverse(**by), *name));
        self.details(sorted.into_iter().map(|(name, by)| Detail::new(name, by)))
    }

    pub(super) fn is(mut self, verdict: Verdict) -> Line {
        self.0.verdict = verdict;
        self.0
    }

    pub(super) fn ok(self) -> Line {
        self.is(Verdict::Ok)
    }
}

/// `wrong` if there is any, else ok.
pub(super) const fn unless_zero(count: u64, wrong: Verdict) -> Verdict {
    if count == 0 { Verdict::Ok } else { wrong }
}

fn total(counts: &Counts) -> u64 {
    counts.values().sum()
}

/// A span of time for people.
#[expect(clippy::cast_precision_loss, reason = "spans are shown with two digits")]
pub(super) fn span(millis: u64) -> String {
    match millis {
        0..1000 => format!("{millis} ms"),
        1000..60_000 => format!("{:.1} s", millis as f64 / 1000.0),
        60_000..3_600_000 => format!("{:.1} min", millis as f64 / 60_000.0),
        3_600_000..86_400_000 => format!("{:.1} h", millis as f64 / 3_600_000.0),
        _ => format!("{:.1} days", millis as f64 / DAY),
    }
}

#[expect(clippy::cast_precision_loss, reason = "a share of counts, shown with one digit")]
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 }
}

/// What operators tried.
pub(super) fn operators(sum: &Day) -> Vec<Line> {
    const GROUP: &str = "People and data";
    let strayed: u64 = sum.strayed.values().sum();
    let shown = certificates_shown(sum);
    let let_in = total(&sum.operators_let_in);
    let attempts = sum.strayed.iter().map(|((who, call), by)| Detail::new(format!("{who} {call}"), by));
    vec![
        line(
            GROUP,
            "operators.data_allowed",
            "operators' data calls that were not refused",
            "intents of data actions by principals of the operators' domain",
        )
        .count(let_in)
        .limit("0")
        .by(&sum.operators_let_in)
        .is(unless_zero(let_in, Verdict::Bad)),
        line(
            GROUP,
            "operators.data_attempts",
            "operators' calls of data RPCs, all refused",
            "refusals of calls of the other plane, by operator and RPC",
        )
        .count(strayed)
        .limit("0")
        .details(attempts)
        .is(unless_zero(strayed, Verdict::Attention)),
        line(
            GROUP,
            "operators.data_connections",
            "operators' certificates shown to the data plane, all refused",
            "refused handshakes, counted each second; who shows a certificate has not proven to hold its key",
        )
        .count(shown)
        .limit("0")
        .is(unless_zero(shown, Verdict::Attention)),
        line(GROUP, "operators.active", "operators who did something", "control entries, by operator")
            .count(sum.operators.len() as u64)
            .by(&sum.operators)
            .ok(),
    ]
}

/// What took two.
pub(super) fn approvals(sum: &Day, facts: &Facts<'_>) -> Vec<Line> {
    const GROUP: &str = "Approvals";
    let mut lines = Vec::new();
    for (id, name, counts) in [
        ("approvals.asked", "asked for", &sum.asked),
        ("approvals.approved", "approved", &sum.approved),
        ("approvals.rejected", "rejected", &sum.rejected),
    ] {
        lines.push(
            line(GROUP, id, name, "control entries about approvals, by operator").count(total(counts)).by(counts).ok(),
        );
    }
    let own = total(&sum.own);
    lines.push(
        line(GROUP, "approvals.own", "approved by who had asked", "who asked and who approved, by the approval's id")
            .count(own)
            .limit("0")
            .by(&sum.own)
            .is(unless_zero(own, Verdict::Bad)),
    );
    let median = line(GROUP, "approvals.median_wait", "median time from asking to approving", "times of both entries");
    lines.push(match median_of(&sum.waited) {
        Some(millis) => median.figure(span(millis), seconds(millis)).ok(),
        None => median.none("nothing approved"),
    });
    let (expired, pending) = (
        line(
            GROUP,
            "approvals.expired",
            "expired undecided",
            "the store's approvals, by the day on which they expired",
        ),
        line(GROUP, "approvals.pending", "waiting now", "the store's approvals"),
    );
    match facts.census {
        Some(census) => {
            let in_period = census.expired.range(facts.period.from..facts.period.until).map(|(_, by)| by).sum();
            lines.push(expired.count(in_period).is(unless_zero(in_period, Verdict::Attention)));
            let oldest = census.oldest_pending.map_or(0, |asked| census.at.millis_since(asked));
            let late = oldest > facts.lifecycle.approval_millis / 2;
            lines.push(
                pending
                    .count(census.pending)
                    .limit(format!("oldest under {}", span(facts.lifecycle.approval_millis / 2)))
                    .details(census.oldest_pending.map(|_| Detail::new("oldest", span(oldest))))
                    .is(if late { Verdict::Attention } else { Verdict::Ok }),
            );
        }
        None => lines.extend([expired, pending].map(|line| line.none("not measured"))),
    }
    lines
}

#[expect(clippy::cast_precision_loss, reason = "seconds with three digits")]
fn seconds(millis: u64) -> f64 {
    millis as f64 / 1000.0
}

/// The lower one of two in the middle.
fn median_of(values: &[u64]) -> Option<u64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len().saturating_sub(1) / 2).copied()
}

/// Keys against what the configuration demands.
pub(super) fn keys(sum: &Day, census: Option<&Census>, lifecycle: &LifecycleSettings) -> Vec<Line> {
    const GROUP: &str = "Keys";
    let kinds = [
        ("tenant", "tenant keys", lifecycle.tenant_key_age_millis, census.map(|census| &census.tenant_keys)),
        ("data", "data keys", lifecycle.data_key_age_millis, census.map(|census| &census.data_keys)),
    ];
    let mut lines = Vec::new();
    for (id, name, limit, ages) in kinds {
        let how = "active versions in the store, of tenants that are not destroyed";
        let count = line(GROUP, &format!("keys.{id}.count"), name, how);
        let oldest = line(GROUP, &format!("keys.{id}.oldest"), &format!("age of the oldest of the {name}"), how);
        let due = line(
            GROUP,
            &format!("keys.{id}.due"),
            &format!("{name} whose rotation is due"),
            "age or uses of the active version against the configuration",
        );
        let Some(ages) = ages else {
            lines.extend([count, oldest, due].map(|line| line.none("not measured")));
            continue;
        };
        lines.push(count.count(ages.count).ok());
        lines.push(age(oldest, ages, limit));
        lines.push(due.count(ages.due).limit("0; rotated by themselves").is(unless_zero(ages.due, Verdict::Attention)));
    }
    lines.push(
        line(
            GROUP,
            "keys.rotated",
            "rotations",
            "system entries of finished tenant key rotations and of data keys that were due, control entries",
        )
        .count(sum.tenant_keys_rotated + sum.data_keys_due + sum.data_key_rotations)
        .details([
            Detail::new("tenant keys rotated", sum.tenant_keys_rotated),
            Detail::new("data keys rotated because they were due", sum.data_keys_due),
            Detail::new("rotations of data keys that operators began", sum.data_key_rotations),
        ])
        .ok(),
    );
    lines
}

fn age(making: Making, ages: &KeyAges, limit: Option<u64>) -> Line {
    #[expect(clippy::cast_precision_loss, reason = "days with one digit")]
    let days = ages.oldest_millis as f64 / DAY;
    if ages.count == 0 {
        return making.none("no keys");
    }
    let making = making.figure(span(ages.oldest_millis), days);
    match limit {
        None => making.limit("none: rotation by age is off").is(Verdict::Attention),
        Some(limit) => {
            let verdict = match ages.oldest_millis.saturating_sub(limit) {
                0 => Verdict::Ok,
                // Whoever tends the vault takes a while.
                over if over < 7 * 86_400_000 => Verdict::Attention,
                _ => Verdict::Bad,
            };
            making.limit(format!("under {}", span(limit))).is(verdict)
        }
    }
}

/// Calls, refusals, consent.
pub(super) fn access(sum: &Day, census: Option<&Census>) -> Vec<Line> {
    const GROUP: &str = "Access";
    let accesses = line(
        GROUP,
        "access.calls",
        "data calls and items allowed",
        "intents of data actions; each item of a batch is one",
    );
    let denied = line(GROUP, "access.denied", "calls denied", "refusals, by plane, check and rule");
    let unproven = line(
        GROUP,
        "access.unproven",
        "connections without a proven identity",
        "refusals counted each second, by rule",
    );
    let failed =
        line(GROUP, "access.failed", "calls that failed after they were allowed", "outcome entries, by reason");
    let mut lines = vec![
        accesses.count(total(&sum.accesses)).by(&sum.accesses).ok(),
        denied.count(total(&sum.denied)).by(&sum.denied).ok(),
        unproven.count(total(&sum.unproven)).by(&sum.unproven).ok(),
        failed.count(total(&sum.failed)).by(&sum.failed).ok(),
    ];
    let datasets = line(GROUP, "consent.datasets", "datasets released only under consent", "the store's declarations");
    lines.push(match census {
        None => datasets.none("not measured"),
        Some(census) if census.datasets == 0 => datasets.none("no datasets"),
        Some(census) => {
            let part = share(census.consent_required, census.datasets);
            datasets.figure(format!("{} of {}", census.consent_required, census.datasets), part).ok()
        }
    });
    let releases =
        line(GROUP, "consent.releases", "releases under a consent", "intents of Decrypt whose entry names a consent");
    lines.push(if sum.releases == 0 {
        releases.none("nothing released")
    } else {
        let part = share(sum.under_consent, sum.releases);
        releases.figure(format!("{} of {} ({part:.1} %)", sum.under_consent, sum.releases), part).ok()
    });
    lines
}

/// How soon what was revoked was gone.
pub(super) fn revocation(sum: &Day, facts: &Facts<'_>) -> Vec<Line> {
    const GROUP: &str = "Revocation";
    let erasures = line(GROUP, "revocation.erasures", "erasures carried out", "system entries of finished shreds");
    let slowest = line(
        GROUP,
        "revocation.slowest",
        "slowest gateway to confirm an erasure",
        "signed receipts: from the decision to the last confirmed eviction",
    );
    let leases = line(GROUP, "revocation.leases", "gateways whose lease was waited for", "signed receipts");
    let bad = line(
        GROUP,
        "revocation.receipts",
        "receipts that do not verify",
        "every receipt of the store against the log's key",
    );
    let suspended = line(
        GROUP,
        "revocation.suspensions",
        "tenants suspended",
        "control entries; how soon each gateway followed is not recorded",
    );
    let mut lines = vec![erasures.count(sum.erasures).ok(), suspended.count(sum.suspensions).ok()];
    let Some(census) = facts.census else {
        lines.extend([slowest, leases, bad].map(|line| line.none("not measured")));
        return lines;
    };
    let within =
        || census.erasures.iter().filter(|one| (facts.period.from()..facts.period.until()).contains(&one.decided));
    let mut confirmed: Vec<u64> = within().filter_map(|one| one.last_confirmed_millis).collect();
    confirmed.sort_unstable();
    lines.push(match confirmed.last() {
        None => slowest.none("no erasures"),
        Some(millis) => {
            let median = median_of(&confirmed).unwrap_or_default();
            let verdict = if *millis <= REVOCATION_LIMIT { Verdict::Ok } else { Verdict::Attention };
            slowest
                .figure(span(*millis), seconds(*millis))
                .limit(span(REVOCATION_LIMIT))
                .details([Detail::new("median", span(median)), Detail::new("receipts", confirmed.len())])
                .is(verdict)
        }
    });
    let waited: u64 = within().map(|one| one.leases_waited_for).sum();
    lines.push(leases.count(waited).limit("0").is(unless_zero(waited, Verdict::Attention)));
    lines.push(bad.count(census.bad_receipts).limit("0").is(unless_zero(census.bad_receipts, Verdict::Bad)));
    lines
}

/// Policies that nobody proved.
pub(super) fn policies(sum: &Day, facts: &Facts<'_>) -> Vec<Line> {
    const GROUP: &str = "Policies";
    let files = u64::from(!facts.tally.bundle_in_force() && facts.tally.entries() > 0);
    let bundles = sum.bundles.len() as u64;
    let unproved_bundles = if facts.demands_proof { 0 } else { bundles };
    let unproved = files + sum.files_reloaded + unproved_bundles;
    vec![
        line(GROUP, "policy.unproved", "policy sets in force without a proof", "bundles that came into force while the configuration demands no proof, and sets from files, which nobody proves")
            .count(unproved)
            .limit("0")
            .details([
                Detail::new("bundles without a demanded proof", unproved_bundles),
                Detail::new("reloads of files", sum.files_reloaded),
                Detail::new("files in force now", files),
            ])
            .is(unless_zero(unproved, Verdict::Bad)),
        line(GROUP, "policy.bundles", "policy bundles that were in force", "system entries, by version and digest")
            .count(bundles)
            .details(sum.bundles.iter().map(|(version, digest)| Detail::new(format!("version {version}"), digest)))
            .ok(),
    ]
}
