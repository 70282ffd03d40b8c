//! The scorecard: what a security team reports each quarter, computed from the audit log and the store.
//!
//! ```text
//! entries ─→ tally ┐
//! rows   ─→ census ├─→ Facts ─→ lines, series ─→ Scorecard ─→ table · JSON · HTML
//! process → status ┘                              ↕ wire
//! ```
//!
//! [`compute`] is pure: the same facts give the same scorecard, whether a gateway puts it together ([`Source`]) or
//! somebody with a copy of the log and the store.

mod html;
mod lines;
mod model;
mod period;
mod plot;
mod series;
mod source;
mod state_lines;
mod status;
mod table;
mod tally;
#[cfg(test)]
mod tests;
mod wire;

pub use html::html;
pub use model::{Band, Detail, FORMAT, Kind, Line, Scorecard, Series, Verdict};
pub use period::Period;
pub use source::{Reading, Source};
pub use status::{Ending, LogState, SinkState, Status, WitnessState, endings, kept_witnesses};
pub use table::table;
pub use tally::Tally;
pub use wire::{from_wire, to_wire};

use vault_core::keys::Census;
use vault_core::time::Timestamp;
use vault_core::vault::LifecycleSettings;

/// What a scorecard is computed from.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The installation.
    pub instance: &'a str,
    /// The audit log's name.
    pub log: &'a str,
    /// The days it is about.
    pub period: Period,
    /// Now.
    pub made: Timestamp,
    /// What the entries count up to.
    pub tally: &'a Tally,
    /// What there is in the store; `None` if it could not be read.
    pub census: Option<&'a Census>,
    /// What is in neither.
    pub status: &'a Status,
    /// How long keys and approvals live.
    pub lifecycle: &'a LifecycleSettings,
    /// Whether a policy bundle needs a proof to come into force.
    pub demands_proof: bool,
}

/// Computes a scorecard.
pub fn compute(facts: &Facts<'_>) -> Scorecard {
    let sum = facts.tally.sum(facts.period);
    let mut all = lines::operators(&sum);
    all.extend(lines::approvals(&sum, facts));
    all.extend(lines::keys(&sum, facts.census, facts.lifecycle));
    all.extend(lines::access(&sum, facts.census));
    all.extend(lines::revocation(&sum, facts));
    all.extend(lines::policies(&sum, facts));
    all.extend(state_lines::log(&sum, facts));
    all.extend(state_lines::watchers(facts));
    all.extend(state_lines::certificates(facts));
    all.extend(state_lines::process(facts));
    Scorecard {
        format: FORMAT.to_owned(),
        instance: facts.instance.to_owned(),
        log: facts.log.to_owned(),
        from: facts.period.from().date(),
        until: facts.period.until().date(),
        made: facts.made.rfc3339(),
        lines: all,
        series: series::all(facts),
    }
}
