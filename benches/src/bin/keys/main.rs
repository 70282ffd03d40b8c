//! What keys cost where there are many: looking them up, keeping them in memory, rotating what is above them, and
//! shredding one of them. `keys lookups`, `keys memory`, `keys rotation` (each some minutes), or all of them.
//!
//! Filled stores are kept in `target/benches` and made when they are not there.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a tool for the terminal, which must stop when it cannot work"
)]

mod lookups;
mod memory;
mod rotation;

use std::path::{Path, PathBuf};

use vault_benches::counting::Counting;
use vault_benches::lookup::{Lookup, Many};

#[global_allocator]
static COUNTING: Counting = Counting;

/// Where filled stores are kept: beside the program.
fn kept() -> PathBuf {
    std::env::current_exe().unwrap().parent().unwrap().join("benches")
}

/// A directory for the files of one run, on the same disk.
fn scratch() -> tempfile::TempDir {
    std::fs::create_dir_all(kept()).unwrap();
    tempfile::tempdir_in(kept()).unwrap()
}

/// The directory of a filled store. `fill` makes it under another name, so that half a store is never taken for one.
fn filled(name: &str, fill: impl FnOnce(&Path)) -> PathBuf {
    let dir = kept().join(name);
    if !dir.exists() {
        let begun = std::time::Instant::now();
        let aside = kept().join(format!("{name}.new"));
        let _ = std::fs::remove_dir_all(&aside);
        std::fs::create_dir_all(&aside).unwrap();
        fill(&aside);
        std::fs::rename(&aside, &dir).unwrap();
        let size = std::fs::metadata(dir.join("vault.redb")).unwrap().len();
        println!("(filled {name}: {} MiB in {:.0?})", size >> 20, begun.elapsed());
    }
    dir
}

/// The directory of a store with so many subjects or tenants.
fn store_of(many: Many, count: u64) -> PathBuf {
    filled(&format!("{many:?}-{count}").to_lowercase(), |dir| Lookup::fill(dir, many, count))
}

/// A line of `/proc/self/status`, in bytes.
fn process_bytes(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

fn main() {
    // A limit on locked memory is no reason not to measure.
    vault_core::secret::set_lock_policy(vault_core::secret::LockPolicy::Allow);
    let what: Vec<String> = std::env::args().skip(1).collect();
    let asked = |name| what.is_empty() || what.iter().any(|one| one == name);
    // First, while the process is small.
    if asked("memory") {
        memory::run();
    }
    if asked("lookups") {
        lookups::run();
    }
    if asked("rotation") {
        rotation::run();
    }
}
