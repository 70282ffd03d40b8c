//! `policy check`.

use std::process::ExitCode;

use serde_json::json;
use vault_core::policy::{Diagnostic, PolicySet, Registry, diagnose};

use super::files::{Files, Texts};
use super::{exit, json, print, wrong_usage};

pub(super) fn check(files: &Files, as_json: bool) -> ExitCode {
    let texts = match files.read() {
        Ok(texts) => texts,
        Err(error) => return wrong_usage(error),
    };
    let mut faults = diagnose(texts.schema.source(), &texts.policies());
    let entries = registry(&texts, &mut faults);
    let ids = PolicySet::load(texts.schema.source(), &texts.policies()).map(|set| set.ids().to_vec());
    // The diagnostics explain, the loader decides.
    let good = faults.is_empty() && ids.is_ok();
    let ids = ids.unwrap_or_default();
    if as_json {
        json(&json!({ "good": good, "policies": ids, "registry_entries": entries, "diagnostics": faults }));
        return exit(good);
    }
    for fault in &faults {
        print::line(fault);
    }
    if good {
        for id in &ids {
            print::line(id);
        }
        print::line(format_args!("{} policies, {} entries in the registry", ids.len(), entries.unwrap_or(0)));
    } else {
        print::line(format_args!("not in order: {} found", faults.len()));
    }
    exit(good)
}

/// The number of entries of the registry, if there is one and it is in order.
fn registry(texts: &Texts, faults: &mut Vec<Diagnostic>) -> Option<usize> {
    let (file, domain) = texts.registry.as_ref()?;
    match Registry::parse(&file.text, domain) {
        Ok(registry) => Some(registry.len()),
        Err(error) => {
            faults.push(Diagnostic::of_registry(file.source(), &error));
            None
        }
    }
}
