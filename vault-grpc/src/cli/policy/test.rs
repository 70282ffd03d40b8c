//! `policy test`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;
use vault_core::Error;
use vault_core::policy::rehearse::{Expected, Scenes, ask};
use vault_core::policy::{Authorizer, PolicySet, Registry};
use vault_grpc::config::ConfigError;

use super::files::{Named, Texts, read, schema};
use super::{exit, json, print, wrong_usage};

/// A test file with all it names.
pub(super) struct Bed {
    pub(super) scenes: Scenes,
    texts: Texts,
}

impl Bed {
    pub(super) fn read(file: &Path) -> Result<Self, ConfigError> {
        let text = read(file)?;
        let scenes =
            Scenes::parse(&text.name, &text.text).map_err(|error| ConfigError::new(&text.name, error.to_string()))?;
        let beside = |name: &str| file.parent().unwrap_or(Path::new("")).join(name);
        let policies = scenes.policies.iter().map(|name| read(&beside(name))).collect::<Result<_, _>>()?;
        let registry = scenes.registry.as_deref().map(|name| read(&beside(name))).transpose()?;
        let registry = registry.map(|registry| (registry, scenes.workload_domain.clone()));
        let schema = schema(scenes.schema.as_deref().map(beside).as_deref())?;
        Ok(Self { scenes, texts: Texts { schema, policies, registry } })
    }

    pub(super) fn load(&self) -> Result<(PolicySet, Registry), Error> {
        let set = PolicySet::load(self.texts.schema.source(), &self.texts.policies())?;
        let registry = match &self.texts.registry {
            Some((Named { text, .. }, domain)) => Registry::parse(text, domain)?,
            None => Registry::empty(),
        };
        Ok((set, registry))
    }
}

#[derive(Serialize)]
struct Answer {
    file: String,
    line: usize,
    name: String,
    good: bool,
    expected: String,
    found: String,
}

pub(super) fn test(files: &[PathBuf], as_json: bool) -> ExitCode {
    let mut answers = Vec::new();
    for file in files {
        let bed = match Bed::read(file) {
            Ok(bed) => bed,
            Err(error) => return wrong_usage(error),
        };
        let name = file.display().to_string();
        match run(&name, &bed) {
            Ok(found) => answers.extend(found),
            Err(error) => return super::failed("load the policies of a test file", error),
        }
    }
    let bad = answers.iter().filter(|answer| !answer.good).count();
    if as_json {
        json(&answers);
    } else {
        for Answer { file, line, name, expected, found, .. } in answers.iter().filter(|answer| !answer.good) {
            print::line(format_args!("{file}:{line}: {name}\n    expected: {expected}\n    found:    {found}"));
        }
        print::line(format_args!("{} requests as expected, {bad} not", answers.len() - bad));
    }
    exit(bad == 0 && !answers.is_empty())
}

fn run(file: &str, bed: &Bed) -> Result<Vec<Answer>, Error> {
    let (set, registry) = bed.load()?;
    let authorizer = Authorizer::new(set, registry);
    let mut answers = Vec::new();
    for scene in &bed.scenes.scenes {
        // A request that cannot be asked is no pass, and does not keep the others from being asked.
        let outcome = ask(&authorizer, scene);
        let good = match (&outcome, &scene.expected) {
            (Ok(outcome), Some(expected)) => expected.is(outcome),
            _ => false,
        };
        answers.push(Answer {
            file: file.to_owned(),
            line: scene.line,
            name: scene.name.clone(),
            good,
            expected: scene.expected.as_ref().map_or_else(|| "nothing is said; write `expect`".to_owned(), written),
            found: outcome.map_or_else(|error| error.to_string(), |outcome| outcome.to_string()),
        });
    }
    Ok(answers)
}

fn written(expected: &Expected) -> String {
    let mut text = if expected.allowed { "allow" } else { "deny" }.to_owned();
    if let Some(check) = &expected.check {
        text.push_str(&format!(" by check {check}"));
    }
    if let Some(by) = &expected.by {
        text.push_str(&format!(" by policies {}", if by.is_empty() { "none".to_owned() } else { by.join(", ") }));
    }
    text
}
