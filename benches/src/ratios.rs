//! Ours beside the reference, as ratios of medians of the same run: the figures that mean something on any machine.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Median nanoseconds by group, size, and name of the measured thing.
pub type Medians = BTreeMap<String, BTreeMap<u64, BTreeMap<String, f64>>>;

/// Reads criterion's estimates below `dir` (`GROUP/NAME/SIZE/new/estimates.json`).
pub fn read(dir: &Path) -> Medians {
    let mut medians = Medians::new();
    for group in children(dir) {
        for name in children(&group) {
            for size in children(&name) {
                let Some(median) = median(&size.join("new/estimates.json")) else { continue };
                let (Some(group), Some(name), Some(size)) = (last(&group), last(&name), last(&size)) else { continue };
                let Ok(size) = size.parse() else { continue };
                medians.entry(group).or_default().entry(size).or_default().insert(name, median);
            }
        }
    }
    medians
}

fn children(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(dir).into_iter().flatten().filter_map(|e| Some(e.ok()?.path())).collect();
    paths.retain(|path| path.is_dir());
    paths.sort();
    paths
}

fn last(path: &Path) -> Option<String> {
    Some(path.file_name()?.to_string_lossy().into_owned())
}

fn median(file: &Path) -> Option<f64> {
    let estimates: serde_json::Value = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
    estimates.get("median")?.get("point_estimate")?.as_f64()
}

/// A Markdown table: one row a size, the reference's time, and each other's ratio to it.
pub fn table(sizes: &BTreeMap<u64, BTreeMap<String, f64>>, reference: &str) -> String {
    let mut names: Vec<&str> = sizes.values().flat_map(BTreeMap::keys).map(String::as_str).collect();
    names.sort_unstable();
    names.dedup();
    names.retain(|name| *name != reference);
    let mut out = format!("| bytes | {reference} |");
    for name in &names {
        out.push_str(&format!(" {name} |"));
    }
    out.push_str("\n|---|---|");
    out.push_str(&"---|".repeat(names.len()));
    for (size, measured) in sizes {
        let Some(floor) = measured.get(reference) else { continue };
        out.push_str(&format!("\n| {size} | {floor:.0} ns |"));
        for name in &names {
            match measured.get(*name) {
                Some(ns) => out.push_str(&format!(" {:.2} × |", ns / floor)),
                None => out.push_str(" |"),
            }
        }
    }
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_to_the_reference_of_the_same_size() {
        let mut sizes = BTreeMap::new();
        sizes.insert(64, BTreeMap::from([("ring".to_owned(), 100.0), ("ours".to_owned(), 150.0)]));
        let table = table(&sizes, "ring");
        assert!(table.contains("| 64 | 100 ns | 1.50 × |"), "{table}");
    }
}
