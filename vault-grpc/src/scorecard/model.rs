//! What a scorecard is: lines with a verdict each, and series for plots. Everything that shows one shows this.

use serde::{Deserialize, Serialize};

/// What `format` says; another one when a field changes its meaning.
pub const FORMAT: &str = "blindvault scorecard v1";

/// What to think of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Somebody should look at it in the next days.
    Attention,
    /// A promise is broken, or about to be.
    Bad,
    /// There is no figure: nothing to measure is configured, or nothing here can measure it.
    NotMeasured,
}

impl Verdict {
    /// For people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Attention => "attention",
            Self::Bad => "BAD",
            Self::NotMeasured => "not measured",
        }
    }
}

/// A part of a figure: how much of it is of what name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Detail {
    /// An operator, a call, a reason, a date.
    pub name: String,
    /// How many, or another figure.
    pub value: String,
}

impl Detail {
    /// A part.
    pub fn new(name: impl Into<String>, value: impl ToString) -> Self {
        Self { name: name.into(), value: value.to_string() }
    }
}

/// One figure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// Its stable name, for programs.
    pub id: String,
    /// What it belongs to, for people.
    pub group: String,
    /// Its name for people.
    pub name: String,
    /// The figure for people; `not configured` or `not measured` if there is none.
    pub value: String,
    /// The figure for programs, in the unit of the name; null if there is none.
    pub number: Option<f64>,
    /// What it should be; empty if there is nothing that it should be.
    pub limit: String,
    /// What to think of it.
    pub verdict: Verdict,
    /// How it was computed.
    pub how: String,
    /// Its parts.
    pub details: Vec<Detail>,
}

/// How the bands of a series are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// One upon another.
    Stacked,
    /// One beside another.
    Grouped,
}

/// One band of a series: a value for each label.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Band {
    /// What it counts.
    pub name: String,
    /// As many as the series has labels.
    pub values: Vec<f64>,
}

/// Figures for a plot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Series {
    /// Its stable name, for programs.
    pub id: String,
    /// Its name for people.
    pub title: String,
    /// What the values count.
    pub unit: String,
    /// How it is drawn.
    pub kind: Kind,
    /// What the values are of: days, classes, names.
    pub labels: Vec<String>,
    /// The bands.
    pub bands: Vec<Band>,
}

/// A scorecard.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scorecard {
    /// [`FORMAT`].
    pub format: String,
    /// The installation.
    pub instance: String,
    /// The audit log that it was computed from.
    pub log: String,
    /// The first day, `YYYY-MM-DD`, UTC.
    pub from: String,
    /// The first day that no longer belongs to it.
    pub until: String,
    /// When it was made, RFC 3339.
    pub made: String,
    /// The figures, group by group.
    pub lines: Vec<Line>,
    /// The plots.
    pub series: Vec<Series>,
}

impl Scorecard {
    /// The line with an id.
    pub fn line(&self, id: &str) -> Option<&Line> {
        self.lines.iter().find(|line| line.id == id)
    }

    /// How many lines have a verdict.
    pub fn count(&self, verdict: Verdict) -> usize {
        self.lines.iter().filter(|line| line.verdict == verdict).count()
    }

    /// As JSON, over several lines.
    pub fn to_json(&self) -> String {
        // Every field is a string or a number, which always can be written; of NaN, which none is, serde_json makes null.
        serde_json::to_string_pretty(self).unwrap_or_default()
    }
}
