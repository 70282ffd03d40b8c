//! What a campaign has shown so far: kept between its runs, and its report.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::engine::Ran;

/// Of one target.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Figures {
    pub(super) seconds: u64,
    pub(super) executions: u64,
    /// Edges and features with the corpus that it began with.
    pub(super) begin: Option<(u64, u64)>,
    /// The same at the end.
    pub(super) end: (u64, u64),
    /// Inputs, and their bytes.
    pub(super) corpus: (usize, u64),
    /// Inputs that fail.
    pub(super) crashes: usize,
}

impl Figures {
    /// Adds a run.
    pub(super) fn add(&mut self, ran: &Ran, corpus: (usize, u64)) {
        self.seconds += ran.seconds;
        self.executions += ran.said.executions;
        self.begin = self.begin.or(Some(ran.said.begin));
        self.end = (self.end.0.max(ran.said.end.0), self.end.1.max(ran.said.end.1));
        self.corpus = corpus;
        self.crashes += usize::from(!ran.held);
    }

    fn rate(&self) -> u64 {
        self.executions / self.seconds.max(1)
    }

    /// A line of the table.
    pub(super) fn line(&self, name: &str) -> String {
        let Self { seconds, executions, end, corpus, crashes, .. } = self;
        let begin = self.begin.unwrap_or_default();
        format!(
            "{name:<21} {seconds:>6} {executions:>11} {:>8} {:>6} {:>6} {:>6} {:>6} {:>6} {:>8} {crashes:>7}",
            self.rate(),
            begin.0,
            end.0,
            begin.1,
            end.1,
            corpus.0,
            corpus.1,
        )
    }

    fn to_json(&self) -> Value {
        let begin = self.begin.unwrap_or_default();
        json!({
            "seconds": self.seconds,
            "executions": self.executions,
            "executions_per_second": self.rate(),
            "edges": [begin.0, self.end.0],
            "features": [begin.1, self.end.1],
            "corpus_inputs": self.corpus.0,
            "corpus_bytes": self.corpus.1,
            "failing_inputs": self.crashes,
        })
    }

    fn from_json(value: &Value) -> Option<Self> {
        let number = |name: &str| value.get(name)?.as_u64();
        let pair = |name: &str, at: usize| value.get(name)?.get(at)?.as_u64();
        let begin = (pair("edges", 0)?, pair("features", 0)?);
        Some(Self {
            seconds: number("seconds")?,
            executions: number("executions")?,
            // All zeros is what is written before the first run.
            begin: Some(begin).filter(|begin| *begin != (0, 0)),
            end: (pair("edges", 1)?, pair("features", 1)?),
            corpus: (usize::try_from(number("corpus_inputs")?).ok()?, number("corpus_bytes")?),
            crashes: usize::try_from(number("failing_inputs")?).ok()?,
        })
    }
}

/// All targets, and for how many seconds each is to run.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    pub(super) goal: u64,
    pub(super) targets: BTreeMap<String, Figures>,
}

impl State {
    pub(super) fn to_json(&self) -> String {
        let targets: serde_json::Map<_, _> =
            self.targets.iter().map(|(name, figures)| (name.clone(), figures.to_json())).collect();
        format!("{:#}\n", json!({ "seconds_for_each": self.goal, "targets": targets }))
    }

    pub(super) fn from_json(text: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(text).ok()?;
        let targets = value.get("targets")?.as_object()?.iter();
        let targets = targets.map(|(name, figures)| Some((name.clone(), Figures::from_json(figures)?)));
        Some(Self { goal: value.get("seconds_for_each")?.as_u64()?, targets: targets.collect::<Option<_>>()? })
    }
}

/// The report, for people.
pub(super) fn table(state: &State) -> Vec<String> {
    let head =
        "target                seconds  executions       /s  edges → end  features → end  corpus    bytes failing";
    let mut lines = vec![head.to_owned()];
    lines.extend(state.targets.iter().map(|(name, figures)| figures.line(name)));
    let sum = |of: fn(&Figures) -> u64| state.targets.values().map(of).sum::<u64>();
    lines.push(format!("{:<21} {:>6} {:>11}", "all", sum(|f| f.seconds), sum(|f| f.executions)));
    lines
}

#[cfg(test)]
mod tests {
    use super::super::engine::Said;
    use super::*;

    #[test]
    fn a_campaign_goes_on_where_it_was() {
        let said = |begin, end| Said { executions: 500, begin: (begin, begin), end: (end, end) };
        let ran = |begin, end, held| Ran { said: said(begin, end), seconds: 10, held };
        let mut figures = Figures::default();
        let before = State { goal: 600, targets: BTreeMap::from([("stream".to_owned(), figures.clone())]) };
        assert_eq!(State::from_json(&before.to_json()), Some(before));
        figures.add(&ran(10, 20, true), (3, 30));
        figures.add(&ran(20, 25, false), (4, 40));
        let expected = Figures {
            seconds: 20,
            executions: 1000,
            begin: Some((10, 10)),
            end: (25, 25),
            corpus: (4, 40),
            crashes: 1,
        };
        assert_eq!(figures, expected);
        let state = State { goal: 600, targets: BTreeMap::from([("stream".to_owned(), figures)]) };
        assert_eq!(State::from_json(&state.to_json()), Some(state));
        assert_eq!(State::from_json("{"), None);
    }
}
