//! The series for plots.

use std::collections::BTreeMap;

use vault_core::keys::AGE_BOUNDS_DAYS;
use vault_core::time::Timestamp;

use super::Facts;
use super::model::{Band, Kind, Series};
use super::period::{DAY, Period};
use super::tally::Day;

/// Most labels of a series over time; of a longer period each stands for several days.
const MOST_LABELS: u64 = 120;
/// Most bands; what is rarer is one band together.
const MOST_BANDS: usize = 7;

/// The labels of a period, and the one that a day belongs to.
struct Axis {
    from: u64,
    step: u64,
    labels: Vec<String>,
}

impl Axis {
    fn of(period: Period) -> Self {
        let days = period.until.saturating_sub(period.from);
        let step = days.div_ceil(MOST_LABELS).max(1);
        let first = |n: u64| Timestamp((period.from + n * step).saturating_mul(DAY)).date();
        Self { from: period.from, step, labels: (0..days.div_ceil(step)).map(first).collect() }
    }

    fn place(&self, day: u64) -> usize {
        usize::try_from(day.saturating_sub(self.from) / self.step).unwrap_or(usize::MAX)
    }
}

#[expect(clippy::cast_precision_loss, reason = "plots do not show the last digits above 2^53")]
const fn float(count: u64) -> f64 {
    count as f64
}

/// Bands of what `of` finds in each day, the most frequent first.
fn bands<'a>(axis: &Axis, days: &[(u64, &'a Day)], of: impl Fn(&'a Day) -> Vec<(String, u64)>) -> Vec<Band> {
    let mut all: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for (number, day) in days {
        for (name, by) in of(day) {
            let values = all.entry(name).or_insert_with(|| vec![0; axis.labels.len()]);
            if let Some(value) = values.get_mut(axis.place(*number)) {
                *value += by;
            }
        }
    }
    let mut sorted: Vec<(String, Vec<u64>)> =
        all.into_iter().filter(|(_, values)| values.iter().any(|by| *by > 0)).collect();
    sorted.sort_by_key(|(name, values)| (std::cmp::Reverse(values.iter().sum::<u64>()), name.clone()));
    let rest = sorted.split_off(sorted.len().min(MOST_BANDS));
    if !rest.is_empty() {
        let together = (0..axis.labels.len()).map(|at| rest.iter().filter_map(|(_, values)| values.get(at)).sum());
        sorted.push((format!("{} others", rest.len()), together.collect()));
    }
    sorted.into_iter().map(|(name, values)| Band { name, values: values.into_iter().map(float).collect() }).collect()
}

/// All of them.
pub(super) fn all(facts: &Facts<'_>) -> Vec<Series> {
    let axis = Axis::of(facts.period);
    let days: Vec<(u64, &Day)> = facts.tally.days(facts.period).collect();
    let own = |counts: &super::tally::Counts| counts.iter().map(|(name, by)| (name.clone(), *by)).collect::<Vec<_>>();
    let sum = |counts: &super::tally::Counts| counts.values().sum::<u64>();
    let over_time = |id: &str, title: &str, unit: &str, bands: Vec<Band>| Series {
        id: id.to_owned(),
        title: title.to_owned(),
        unit: unit.to_owned(),
        kind: Kind::Stacked,
        labels: axis.labels.clone(),
        bands,
    };
    let denials = bands(&axis, &days, |day| {
        let unproven = day.unproven.iter().map(|(reason, by)| (format!("not proven: {reason}"), *by));
        own(&day.denied).into_iter().chain(unproven).collect()
    });
    let mut approvals = bands(&axis, &days, |day| {
        vec![
            ("asked for".to_owned(), sum(&day.asked)),
            ("approved".to_owned(), sum(&day.approved)),
            ("rejected".to_owned(), sum(&day.rejected)),
        ]
    });
    approvals.sort_by_key(|band| band.name != "asked for");
    let mut series = vec![
        over_time("denials", "Denials", "calls and connections a day, by reason", denials),
        over_time(
            "accesses",
            "Data calls allowed",
            "calls and items a day, by action",
            bands(&axis, &days, |day| own(&day.accesses)),
        ),
        over_time("approvals", "Approvals", "a day", approvals),
    ];
    series.extend(facts.census.map(|census| {
        let mut labels: Vec<String> = AGE_BOUNDS_DAYS.iter().map(|days| format!("under {days} d")).collect();
        labels.push("older".to_owned());
        let band = |name: &str, classes: &[u64]| Band {
            name: name.to_owned(),
            values: classes.iter().copied().map(float).collect(),
        };
        Series {
            id: "key_ages".to_owned(),
            title: "Ages of active keys".to_owned(),
            unit: "keys".to_owned(),
            kind: Kind::Grouped,
            labels,
            bands: vec![band("tenant keys", &census.tenant_keys.by_age), band("data keys", &census.data_keys.by_age)],
        }
    }));
    let mut lags: Vec<(String, u64)> = Vec::new();
    lags.extend(
        facts.status.witnesses.iter().filter_map(|one| Some((format!("witness {}", one.name), one.lag_millis?))),
    );
    lags.extend(facts.status.sinks.iter().map(|one| (format!("sink {}", one.name), one.lag_millis)));
    if !lags.is_empty() {
        let values = lags.iter().map(|(_, millis)| float(*millis) / 1000.0).collect();
        series.push(Series {
            id: "lags".to_owned(),
            title: "Lag of witnesses and sinks".to_owned(),
            unit: "seconds".to_owned(),
            kind: Kind::Grouped,
            labels: lags.into_iter().map(|(name, _)| name).collect(),
            bands: vec![Band { name: "lag".to_owned(), values }],
        });
    }
    series
}
