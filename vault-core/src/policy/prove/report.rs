//! What a proof found, for people and as JSON.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::changes::Change;
use super::example::Counterexample;
use super::session::NotShown;
use super::widen::{Environment, Widened};
use crate::policy::guards::{GUARDS, GUARDS_REFUSE, NO_ERRORS, properties};

/// One property, of all kinds of requests that it is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Property {
    /// Its name, see [`crate::policy::properties`].
    pub id: String,
    /// What it says.
    pub says: String,
    /// For how many kinds of requests it was proved.
    pub proven: usize,
    /// For which it was not. It holds if there is none, and it was proved for one at least.
    pub findings: Vec<Finding>,
}

impl Property {
    /// Whether it holds for every request.
    pub const fn holds(&self) -> bool {
        self.proven > 0 && self.findings.is_empty()
    }
}

/// A kind of request for which a property was not proved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// For example `Operator, Decrypt, Dataset`.
    pub environment: String,
    /// A request that shows the contrary.
    pub counterexample: Option<Counterexample>,
    /// Why neither was shown.
    pub unknown: Option<&'static str>,
}

/// What a proof found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The solver, for example `cvc5 1.3.1`; empty if there was none.
    pub solver: String,
    /// The kinds of requests of the widened schema, sorted.
    pub environments: Vec<String>,
    /// The properties, in the order of [`crate::policy::properties`].
    pub properties: Vec<Property>,
    /// The kinds of requests of which the set allows none: what is proved of them is proved of nothing.
    pub never: Vec<String>,
    /// What changes against the active set, if there was one to compare with.
    pub changes: Option<Vec<Change>>,
    /// How long it took, in milliseconds.
    pub millis: u64,
}

impl Report {
    pub(super) fn new(widened: &Widened) -> Self {
        let properties =
            properties().into_iter().map(|id| Property { says: says(&id), id, proven: 0, findings: Vec::new() });
        Self {
            solver: String::new(),
            environments: widened.environments.iter().map(|e| e.name.clone()).collect(),
            properties: properties.collect(),
            never: Vec::new(),
            changes: None,
            millis: 0,
        }
    }

    /// Whether the set may be activated: every property holds, and if it was compared with the active set, what changes
    /// is known.
    pub fn is_proven(&self) -> bool {
        !self.properties.is_empty()
            && self.properties.iter().all(Property::holds)
            && self.changes.iter().flatten().all(|change| change.unknown.is_none())
    }

    pub(super) fn shown(&mut self, property: &str, environment: &Environment, answer: Result<(), NotShown>) {
        match answer {
            Ok(()) => {
                if let Some(found) = self.properties.iter_mut().find(|p| p.id == property) {
                    found.proven += 1;
                }
            }
            Err(why) => self.not_shown(property, environment, why),
        }
    }

    pub(super) fn not_shown(&mut self, property: &str, environment: &Environment, why: NotShown) {
        let (counterexample, unknown) = match why {
            NotShown::Refuted(found) => (Some(*found), None),
            NotShown::Unknown(why) => (None, Some(why)),
        };
        self.find(property, Finding { environment: environment.name.clone(), counterexample, unknown });
    }

    pub(super) fn unknown(&mut self, property: &str, of: &str, why: &'static str) {
        self.find(property, Finding { environment: of.to_owned(), counterexample: None, unknown: Some(why) });
    }

    pub(super) fn all_unknown(&mut self, why: &'static str) {
        for id in properties() {
            self.unknown(&id, "all", why);
        }
    }

    /// For a solver that is gone: what it refuted stays, all else is unknown.
    pub(super) fn abandon(&mut self, why: &'static str) {
        for property in &mut self.properties {
            property.findings.retain(|finding| finding.counterexample.is_some());
        }
        self.never.clear();
        self.all_unknown(why);
    }

    fn find(&mut self, property: &str, finding: Finding) {
        if let Some(found) = self.properties.iter_mut().find(|p| p.id == property)
            && !found.findings.contains(&finding)
        {
            found.findings.push(finding);
        }
    }
}

fn says(id: &str) -> String {
    let guard = |id: &str| GUARDS.iter().find(|guard| guard.id == id).map_or("", |guard| guard.says);
    match (id, id.strip_suffix("-by-permits-alone")) {
        (NO_ERRORS, _) => "no policy and no guard can fail to be evaluated".to_owned(),
        (GUARDS_REFUSE, _) => "each guard refuses something, so a proof against it says something".to_owned(),
        (_, Some(of)) => format!("{}, even without the forbids", guard(of)),
        _ => guard(id).to_owned(),
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let solver = if self.solver.is_empty() { "no solver" } else { &self.solver };
        writeln!(f, "{} kinds of requests, {solver}, {} ms", self.environments.len(), self.millis)?;
        for property in &self.properties {
            let verdict = match property {
                _ if property.holds() => "proven",
                _ if property.findings.iter().any(|finding| finding.counterexample.is_some()) => "REFUTED",
                _ => "UNKNOWN",
            };
            writeln!(f, "{verdict:<8} {}: {} ({} kinds)", property.id, property.says, property.proven)?;
            for finding in &property.findings {
                not_proven(f, &finding.environment, finding.counterexample.as_ref(), finding.unknown)?;
            }
        }
        let mut never: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (principal, asked) in self.never.iter().filter_map(|name| name.split_once(", ")) {
            never.entry(principal).or_default().push(asked);
        }
        for (principal, asked) in never {
            writeln!(f, "note     {principal} is never allowed: {}", asked.join("; "))?;
        }
        let changes = self.changes.iter().flatten();
        for change in changes.clone().filter(|change| !change.is_unchanged()) {
            if let Some(why) = change.unknown {
                not_proven(f, &change.environment, None, Some(why))?;
            }
            for (what, example) in [("widened", &change.widened), ("narrowed", &change.narrowed)] {
                if let Some(example) = example {
                    writeln!(f, "{what:<8} {}", change.environment)?;
                    indented(f, example)?;
                }
            }
        }
        if self.changes.is_some() {
            writeln!(f, "{:<8} {} kinds of requests", "unchanged", changes.filter(|c| c.is_unchanged()).count())?;
        }
        writeln!(f, "{}", if self.is_proven() { "proven" } else { "NOT PROVEN: this set must not be activated" })
    }
}

fn not_proven(
    f: &mut fmt::Formatter<'_>,
    environment: &str,
    example: Option<&Counterexample>,
    unknown: Option<&str>,
) -> fmt::Result {
    writeln!(f, "         {environment}: {}", unknown.unwrap_or("there is a request that shows the contrary"))?;
    example.map_or(Ok(()), |example| indented(f, example))
}

fn indented(f: &mut fmt::Formatter<'_>, example: &Counterexample) -> fmt::Result {
    example.to_string().lines().try_for_each(|line| writeln!(f, "           {line}"))
}
