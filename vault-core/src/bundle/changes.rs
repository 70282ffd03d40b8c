//! What a bundle changes, by name: for the people who are to approve it.

use std::collections::BTreeMap;

use futures_channel::oneshot;

use super::{Bundle, SignedBundle};
use crate::error::{Dependency, Error};
use crate::policy::{Registry, Source, texts};

/// What a bundle is to follow.
#[derive(Debug)]
pub(crate) enum Before {
    /// Another bundle.
    Bundle(Box<SignedBundle>),
    /// Files of the configuration: the ids of their policies, and how many entries their registry has.
    Files { policies: Vec<String>, workloads: usize },
}

/// Lines that say what changes, on a thread of its own: parsing takes a stack of its own.
///
/// # Errors
/// [`Error::Invalid`] if a text does not parse; [`Error::Unavailable`] if there is no thread.
pub(crate) async fn differences(before: Before, after: SignedBundle) -> Result<Vec<String>, Error> {
    let (sender, receiver) = oneshot::channel();
    let work = move || {
        // Nobody may be waiting any more.
        drop(sender.send(lines(&before, &after)));
    };
    std::thread::Builder::new()
        .name("vault-policy-diff".into())
        .spawn(work)
        .map_err(|_| Error::unavailable(Dependency::Policy, "no thread for comparing policy bundles"))?;
    let ended = |_| Err(Error::unavailable(Dependency::Policy, "comparing policy bundles ended early"));
    receiver.await.unwrap_or_else(ended)
}

fn lines(before: &Before, after: &SignedBundle) -> Result<Vec<String>, Error> {
    let (next, then) = (after.reference(), after.bundle());
    let new = policies(then)?;
    let entries = Registry::texts(&then.registry)?;
    let mut lines = Vec::new();
    match before {
        Before::Bundle(before) => {
            let (reference, now) = (before.reference(), before.bundle());
            lines.push(format!("policy bundle {next} follows bundle {reference}"));
            let schema = if now.schema == then.schema { "unchanged" } else { "changed" };
            lines.push(format!("schema: {schema}"));
            let old = policies(now)?;
            lines.push(format!("policies: {} now, {} then", old.len(), new.len()));
            compare("policy", &old, &new, &mut lines);
            let old = Registry::texts(&now.registry)?;
            lines.push(format!("registry entries: {} now, {} then", old.len(), entries.len()));
            compare("registry entry", &old, &entries, &mut lines);
        }
        Before::Files { policies: old, workloads } => {
            lines.push(format!("policy bundle {next} follows the files of the configuration"));
            lines.push(format!("policies: {} now, {} then", old.len(), new.len()));
            let gone = old.iter().filter(|id| !new.contains_key(*id));
            lines.extend(gone.map(|id| format!("policy removed: {id}")));
            let come = new.keys().filter(|id| !old.contains(id));
            lines.extend(come.map(|id| format!("policy added: {id}")));
            let both = new.len() - new.keys().filter(|id| !old.contains(id)).count();
            lines.push(format!("policies of the same name, not compared: {both}"));
            lines.push(format!("registry entries: {workloads} now, {} then", entries.len()));
            lines.extend(entries.keys().map(|id| format!("registry entry: {id}")));
        }
    }
    Ok(lines)
}

fn policies(bundle: &Bundle) -> Result<BTreeMap<String, String>, Error> {
    let files: Vec<_> = bundle.policies.iter().map(|file| Source { name: &file.name, text: &file.text }).collect();
    texts(&files)
}

fn compare(what: &str, old: &BTreeMap<String, String>, new: &BTreeMap<String, String>, lines: &mut Vec<String>) {
    for (id, text) in old {
        match new.get(id) {
            None => lines.push(format!("{what} removed: {id}")),
            Some(other) if other != text => lines.push(format!("{what} changed: {id}")),
            Some(_) => {}
        }
    }
    lines.extend(new.keys().filter(|id| !old.contains_key(*id)).map(|id| format!("{what} added: {id}")));
}
