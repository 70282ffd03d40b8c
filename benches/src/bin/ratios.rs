//! Reads what criterion measured and prints it as ratios to ring with a reused key, median by median.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a tool for the terminal")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const REFERENCE: &str = "ring_reused_key";

/// Medians in nanoseconds by function, then size.
type Medians = BTreeMap<String, BTreeMap<usize, f64>>;

fn median(file: &Path) -> Option<f64> {
    let estimates: serde_json::Value = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
    estimates.get("median")?.get("point_estimate")?.as_f64()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn medians(group: &Path) -> Medians {
    let mut all = Medians::new();
    for function in names(group) {
        for size in names(&group.join(&function)) {
            let file = group.join(&function).join(&size).join("new/estimates.json");
            if let (Ok(size), Some(median)) = (size.parse(), median(&file)) {
                all.entry(function.clone()).or_default().insert(size, median);
            }
        }
    }
    all
}

fn main() -> ExitCode {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    for group in ["seal", "open"] {
        let medians = medians(&target.join("criterion").join(group));
        let Some(reference) = medians.get(REFERENCE) else {
            eprintln!("nothing was measured yet; run: cargo bench -p vault-benches --bench envelope");
            return ExitCode::FAILURE;
        };
        let functions: Vec<_> = medians.iter().filter(|(name, _)| *name != REFERENCE).collect();
        print!("\n| {group}, bytes | {REFERENCE} |");
        functions.iter().for_each(|(name, _)| print!(" {name} |"));
        println!("\n|---:|---:|{}", "---:|".repeat(functions.len()));
        for (size, floor) in reference {
            print!("| {size} | {floor:.0} ns |");
            for (_, by_size) in &functions {
                by_size.get(size).map_or_else(|| print!(" |"), |own| print!(" {:.2} |", own / floor));
            }
            println!();
        }
    }
    ExitCode::SUCCESS
}
