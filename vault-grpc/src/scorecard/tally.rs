//! What the audit log's entries count up to, day by day. Entries go through it once, in order; what is kept does not grow
//! with them, but with days, operators, reasons and approvals.

use std::collections::{BTreeMap, BTreeSet};

use vault_core::audit::{Body, Decided, Entry, Status};
use vault_core::policy::{is_release, is_workloads_action};
use vault_core::vault::STRAYED;

use super::period::{DAY, Period};
use crate::plane::OPERATOR_CERTIFICATE;

/// Most names that are counted one by one in a day; all others together.
const MOST_NAMES: usize = 1000;
/// Under which name.
const OTHERS: &str = "(others)";
/// Most approvals whose askers are remembered, to tell how long they waited.
const MOST_APPROVALS: usize = 100_000;

/// Counts by name.
pub(super) type Counts = BTreeMap<String, u64>;

fn count(counts: &mut Counts, name: &str, by: u64) {
    let name = if counts.len() < MOST_NAMES || counts.contains_key(name) { name } else { OTHERS };
    match counts.get_mut(name) {
        Some(known) => *known = known.saturating_add(by),
        None => drop(counts.insert(name.to_owned(), by)),
    }
}

/// What one day counts up to; added up, also several.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Day {
    pub(super) entries: u64,
    /// Data calls that were allowed, by action.
    pub(super) accesses: Counts,
    /// Items whose plaintext was to be released, and how many of these under a consent.
    pub(super) releases: u64,
    pub(super) under_consent: u64,
    /// Denied calls, by plane, check and reason.
    pub(super) denied: Counts,
    /// Callers without a proven identity, by reason.
    pub(super) unproven: Counts,
    /// Data calls of operators, by operator and call.
    pub(super) strayed: BTreeMap<(String, String), u64>,
    /// Data calls of operators that were allowed: there are none.
    pub(super) operators_let_in: Counts,
    /// Control calls of operators that were carried out, by operator.
    pub(super) operators: Counts,
    pub(super) asked: Counts,
    pub(super) approved: Counts,
    pub(super) rejected: Counts,
    /// Approvals by who had asked for the same: there are none.
    pub(super) own: Counts,
    /// How long each approval had waited when it was given, in milliseconds.
    pub(super) waited: Vec<u64>,
    pub(super) tenant_keys_rotated: u64,
    pub(super) data_keys_due: u64,
    pub(super) data_key_rotations: u64,
    pub(super) suspensions: u64,
    pub(super) erasures: u64,
    /// Calls that failed after they were allowed, by reason.
    pub(super) failed: Counts,
    /// Policy bundles that came into force: version and digest.
    pub(super) bundles: BTreeSet<(u64, String)>,
    /// How often policies came into force from files.
    pub(super) files_reloaded: u64,
    pub(super) starts: u64,
    pub(super) cuts: u64,
    pub(super) backups: u64,
}

impl Day {
    fn add(&mut self, other: &Self) {
        self.entries += other.entries;
        self.releases += other.releases;
        self.under_consent += other.under_consent;
        self.tenant_keys_rotated += other.tenant_keys_rotated;
        self.data_keys_due += other.data_keys_due;
        self.data_key_rotations += other.data_key_rotations;
        self.suspensions += other.suspensions;
        self.erasures += other.erasures;
        self.files_reloaded += other.files_reloaded;
        self.starts += other.starts;
        self.cuts += other.cuts;
        self.backups += other.backups;
        for (into, from) in [
            (&mut self.accesses, &other.accesses),
            (&mut self.denied, &other.denied),
            (&mut self.unproven, &other.unproven),
            (&mut self.operators_let_in, &other.operators_let_in),
            (&mut self.operators, &other.operators),
            (&mut self.asked, &other.asked),
            (&mut self.approved, &other.approved),
            (&mut self.rejected, &other.rejected),
            (&mut self.own, &other.own),
            (&mut self.failed, &other.failed),
        ] {
            from.iter().for_each(|(name, by)| count(into, name, *by));
        }
        for (name, by) in &other.strayed {
            *self.strayed.entry(name.clone()).or_default() += by;
        }
        self.waited.extend(&other.waited);
        self.bundles.extend(other.bundles.iter().cloned());
    }
}

/// Who asked for an approval, and when.
#[derive(Debug, Clone)]
struct Asked {
    who: String,
    at: u64,
}

/// The tally of a log.
#[derive(Debug, Clone)]
pub struct Tally {
    /// How the SPIFFE IDs of operators begin.
    operators: String,
    days: BTreeMap<u64, Day>,
    asked: BTreeMap<String, Asked>,
    entries: u64,
    bundle_in_force: bool,
}

impl Tally {
    /// An empty one; operators are in this trust domain.
    pub fn new(operator_domain: &str) -> Self {
        Self {
            operators: format!("spiffe://{operator_domain}/"),
            days: BTreeMap::new(),
            asked: BTreeMap::new(),
            entries: 0,
            bundle_in_force: false,
        }
    }

    /// Entries so far, of all days.
    pub const fn entries(&self) -> u64 {
        self.entries
    }

    /// Whether the policies came from a bundle when the last entry was written.
    pub(super) const fn bundle_in_force(&self) -> bool {
        self.bundle_in_force
    }

    /// The days of a period, each with its number, those without entries left out.
    pub(super) fn days(&self, period: Period) -> impl Iterator<Item = (u64, &Day)> {
        self.days.range(period.from..period.until).map(|(day, counted)| (*day, counted))
    }

    /// All days of a period together.
    pub(super) fn sum(&self, period: Period) -> Day {
        self.days(period).fold(Day::default(), |mut sum, (_, day)| {
            sum.add(day);
            sum
        })
    }

    /// Takes the next entry.
    pub fn take(&mut self, entry: &Entry) {
        self.entries += 1;
        let number = entry.time.0 / DAY;
        if matches!(&entry.body, Body::System { event, .. } if event == "policy_bundle") {
            self.bundle_in_force = true;
        }
        let (waited, own) = match &entry.body {
            Body::Control { principal, detail, .. } => self.decided(principal, detail, entry.time.0),
            _ => (None, None),
        };
        let operators = &self.operators;
        let day = self.days.entry(number).or_default();
        day.entries += 1;
        day.waited.extend(waited);
        if let Some(own) = own {
            count(&mut day.own, &own, 1);
        }
        match &entry.body {
            Body::Intent { decided, items, .. } => allowed(day, decided, *items, operators),
            Body::Refused { decided, check, reason } => refused(day, decided, (check, reason), operators),
            Body::Outcome { status, reason, .. } => {
                if matches!(status, Status::Failed) {
                    count(&mut day.failed, reason, 1);
                }
            }
            Body::Control { principal, action, detail, .. } => control(day, principal, (action, detail), operators),
            Body::System { event, detail, first, second } => system(day, event, detail, (*first, *second)),
        }
    }

    /// For an approval: how long it had waited, and who gave it if that is who had asked.
    fn decided(&mut self, principal: &str, detail: &str, at: u64) -> (Option<u64>, Option<String>) {
        let Some(id) = detail.split(' ').find(|word| is_id(word)) else { return (None, None) };
        if detail.starts_with("asked for ") {
            if self.asked.len() >= MOST_APPROVALS {
                self.asked.pop_first();
            }
            self.asked.insert(id.to_owned(), Asked { who: principal.to_owned(), at });
        } else if detail.starts_with("approved ")
            && let Some(asked) = self.asked.get(id)
        {
            let own = (asked.who == principal).then(|| principal.to_owned());
            return (Some(at.saturating_sub(asked.at)), own);
        }
        (None, None)
    }
}

/// The name of an approval: 32 hexadecimal digits.
fn is_id(word: &str) -> bool {
    word.len() == 32 && word.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn allowed(day: &mut Day, decided: &Decided, items: u32, operators: &str) {
    if !is_workloads_action(&decided.action) {
        return;
    }
    count(&mut day.accesses, &decided.action, 1);
    if is_release(&decided.action) {
        day.releases += u64::from(items);
        day.under_consent += if decided.consent.is_some() { u64::from(items) } else { 0 };
    }
    if decided.principal.starts_with(operators) {
        count(&mut day.operators_let_in, &format!("{} {}", decided.principal, decided.action), 1);
    }
}

fn refused(day: &mut Day, decided: &Decided, (check, reason): (&str, &str), operators: &str) {
    let by_operator = decided.principal.starts_with(operators);
    let plane = if by_operator { "control" } else { "data" };
    count(&mut day.denied, &format!("{plane}, {check}: {reason}"), 1);
    if by_operator && reason == STRAYED {
        let mut name = (decided.principal.clone(), decided.action.clone());
        if day.strayed.len() >= MOST_NAMES && !day.strayed.contains_key(&name) {
            name.0 = OTHERS.to_owned();
        }
        *day.strayed.entry(name).or_default() += 1;
    }
}

fn control(day: &mut Day, principal: &str, (action, detail): (&str, &str), operators: &str) {
    if !principal.starts_with(operators) {
        return;
    }
    count(&mut day.operators, principal, 1);
    for (word, counts) in
        [("asked for ", &mut day.asked), ("approved ", &mut day.approved), ("rejected ", &mut day.rejected)]
    {
        if detail.starts_with(word) {
            count(counts, principal, 1);
        }
    }
    day.suspensions += u64::from(action == "SuspendTenant");
    day.data_key_rotations += u64::from(action == "RotateDataKeys");
}

fn system(day: &mut Day, event: &str, detail: &str, (first, second): (u64, u64)) {
    match event {
        "refusals" => count(&mut day.unproven, detail, second),
        "policy_bundle" if day.bundles.len() < MOST_NAMES => drop(day.bundles.insert((first, detail.to_owned()))),
        "policy_epoch" => day.files_reloaded += 1,
        "tenant_key_rotated" => day.tenant_keys_rotated += 1,
        "data_key_due" => day.data_keys_due += 1,
        "shredded" => day.erasures += 1,
        "started" => day.starts += 1,
        "recovery_cut" => day.cuts += 1,
        "backup" => day.backups += 1,
        _ => {}
    }
}

/// Operators' certificates that were shown to the data plane.
pub(super) fn certificates_shown(day: &Day) -> u64 {
    day.unproven.get(OPERATOR_CERTIFICATE).copied().unwrap_or_default()
}
