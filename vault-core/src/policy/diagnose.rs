//! What is wrong with a policy set, all of it at once, with file, line, column and what to do: for `policy check`.
//!
//! [`PolicySet::load`] decides; this explains. The messages quote policies, so they are for who writes them.

use std::collections::HashMap;
use std::fmt;

use cedar_policy::{Schema, ValidationError, ValidationMode, Validator};
use miette::Diagnostic as _;
use serde::Serialize;

use super::cedar::{self, DEREFERENCES, PolicySet, Source, what_is_wrong};
use super::scan::{self, Language};
use crate::error::Error;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Diagnostic {
    /// The file, as it was named.
    pub file: String,
    /// Counted from 1.
    pub line: usize,
    /// In characters, counted from 1; 1 if only the line is known.
    pub column: usize,
    /// The policy, if it is about one.
    pub policy: Option<String>,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub fix: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: ", self.file, self.line, self.column)?;
        if let Some(policy) = &self.policy {
            write!(f, "policy {policy}: ")?;
        }
        write!(f, "{}\n    fix: {}", self.what, self.fix)
    }
}

impl Diagnostic {
    fn new(source: Source<'_>, offset: usize, what: impl Into<String>, fix: impl Into<String>) -> Self {
        let before = source.text.get(..offset).unwrap_or_default();
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        let line = scan::line(source.text, offset);
        Self { file: source.name.to_owned(), line, column, policy: None, what: what.into(), fix: fix.into() }
    }

    fn parse_error(source: Source<'_>, error: &dyn miette::Diagnostic, fix: &str) -> Self {
        let help = error.help().map_or_else(|| fix.to_owned(), |help| help.to_string());
        Self::new(source, offset(error).unwrap_or(0), error.to_string(), help)
    }

    /// An error of [`super::Registry::parse`], whose field is `registry line N` and the key.
    pub fn of_registry(source: Source<'_>, error: &Error) -> Self {
        let of = Self::loader(Source { name: "registry", text: source.text }, error);
        let key = match error {
            Error::Invalid { field, .. } => field.split_once(", ").map(|(_, key)| key),
            _ => None,
        };
        let what = key.map_or_else(|| of.what.clone(), |key| format!("{key}: {}", of.what));
        let fix = "see the table of the registry's keys in docs/policy.md".to_owned();
        Self { file: source.name.to_owned(), what, fix, ..of }
    }

    /// An error of the loader, whose field is `NAME line N` and more.
    fn loader(source: Source<'_>, error: &Error) -> Self {
        let (line, what) = match error {
            Error::Invalid { field, why } => {
                let line = field.strip_prefix(source.name).and_then(|rest| rest.strip_prefix(" line "));
                let line = line.and_then(|rest| rest.split([' ', ',']).next()).and_then(|line| line.parse().ok());
                (line.unwrap_or(1), (*why).to_owned())
            }
            other => (1, other.to_string()),
        };
        let fix = "see the rules of writing in docs/policy.md".to_owned();
        Self { file: source.name.to_owned(), line, column: 1, policy: None, what, fix }
    }
}

fn offset(error: &dyn miette::Diagnostic) -> Option<usize> {
    error.labels().and_then(|labels| labels.map(|label| label.offset()).min())
}

/// Everything that is wrong with a schema and the policies written against it, sorted; nothing exactly if
/// [`PolicySet::load`] takes them.
pub fn diagnose(schema: Source<'_>, policies: &[Source<'_>]) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let parsed = match scan::check(schema.text, Language::Schema) {
        Err(fault) => Err(Diagnostic::new(schema, fault.offset, fault.why, "make it smaller or flatter")),
        Ok(_) => Schema::from_cedarschema_str(schema.text)
            .map_err(|error| Diagnostic::parse_error(schema, &error, "write it as policies/schema.cedarschema is")),
    };
    let (mut set, mut origins) = (cedar_policy::PolicySet::new(), HashMap::new());
    for &source in policies {
        if let Some(fault) = in_file(source) {
            found.push(fault);
        } else if let Err(error) = cedar::parse(source, &mut set, &mut origins) {
            found.push(Diagnostic::loader(source, &error));
        }
    }
    match parsed {
        Err(fault) => found.push(fault),
        Ok((parsed, _)) => {
            let result = Validator::new(parsed).validate_with_level(&set, ValidationMode::Strict, DEREFERENCES);
            let faulty: Vec<_> = result.validation_errors().map(ValidationError::policy_id).collect();
            let errors =
                result.validation_errors().map(|error| (error.policy_id(), at(error), what(error), fix(error)));
            // An error makes a policy impossible, which is then warned of: one is enough.
            let alone = result.validation_warnings().filter(|warning| !faulty.contains(&warning.policy_id()));
            let warnings = alone.map(|warning| {
                let fix = "let it apply to something, and write it in plain characters; warnings count as errors";
                (warning.policy_id(), offset(warning), unnamed(&warning.to_string()).to_owned(), fix.to_owned())
            });
            for (id, at, what, fix) in errors.chain(warnings) {
                let Some(origin) = origins.get(AsRef::<str>::as_ref(id)) else { continue };
                let mut fault = Diagnostic::new(origin.source, at.unwrap_or(origin.offset), what, fix);
                fault.policy = Some(id.to_string());
                found.push(fault);
            }
        }
    }
    if found.is_empty()
        && let Err(error) = PolicySet::load(schema, policies)
    {
        found.push(Diagnostic::loader(schema, &error));
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// What keeps a file from being read at all.
fn in_file(source: Source<'_>) -> Option<Diagnostic> {
    if let Err(fault) = scan::check(source.text, Language::Policy) {
        return Some(Diagnostic::new(source, fault.offset, fault.why, "write it as several policies"));
    }
    let parsed = source.text.parse::<cedar_policy::PolicySet>();
    parsed.err().map(|error| Diagnostic::parse_error(source, &error, "is the file complete?"))
}

fn at(error: &ValidationError) -> Option<usize> {
    offset(error)
}

fn what(error: &ValidationError) -> String {
    format!("{}: {}", what_is_wrong(error), unnamed(&error.to_string()))
}

/// Cedar's message without the policy that it begins with, which stands before it already.
fn unnamed(said: &str) -> &str {
    said.strip_prefix("for policy `").and_then(|rest| rest.split_once("`, ")).map_or(said, |(_, rest)| rest)
}

fn fix(error: &ValidationError) -> String {
    if let Some(help) = error.help() {
        return unnamed(&help.to_string()).to_owned();
    }
    match error {
        ValidationError::UnrecognizedEntityType(_) => "the types are Vault::Workload, Operator, Tenant and Dataset",
        ValidationError::UnrecognizedActionId(_) => "see the table of actions in docs/policy.md",
        ValidationError::InvalidActionApplication(_) => "see which resource the action has, in docs/policy.md",
        ValidationError::UnsafeAttributeAccess(_) => {
            "see which attributes there are, in docs/policy.md; ask `principal is Vault::Workload` before a workload's"
        }
        ValidationError::UnsafeOptionalAttributeAccess(_) => "write `x has attribute && …` before it",
        ValidationError::EntityDerefLevelViolation(_) => {
            "start from principal or resource, and go two steps at most: resource.tenant.suspended"
        }
        ValidationError::UnexpectedType(_) | ValidationError::IncompatibleTypes(_) => {
            "compare values of one type, and let both branches of an `if` have the same"
        }
        _ => "see the rules of writing in docs/policy.md",
    }
    .to_owned()
}
