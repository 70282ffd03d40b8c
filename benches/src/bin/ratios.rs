//! Prints the last run's figures as ratios: `cargo run -p vault-benches --bin ratios [CRITERION_DIR]`.

use std::path::PathBuf;

use vault_benches::ratios::{read, table};

#[expect(clippy::print_stdout, reason = "a report on stdout is what it is for")]
fn main() {
    let dir = std::env::args_os().nth(1).map_or_else(
        || {
            let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
            target.join("criterion")
        },
        PathBuf::from,
    );
    for (group, sizes) in read(&dir) {
        println!("### {group}\n\n{}", table(&sizes, "ring, reused key, in place"));
    }
}
