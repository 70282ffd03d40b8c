//! What a gateway that was shut down has in its log.

use std::fs;
use std::path::{Path, PathBuf};

use vault_core::audit::Entry;

/// Every entry, from the entry bundles: there are fewer than 256 of them, so they are in one partial bundle.
pub(crate) fn entries(audit: &Path) -> Vec<Entry> {
    let mut bundles: Vec<PathBuf> = Vec::new();
    for found in fs::read_dir(audit.join("tile/entries/000.p")).unwrap() {
        bundles.push(found.unwrap().path());
    }
    let width = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().parse::<u32>().unwrap();
    bundles.sort_by_key(width);
    let bytes = fs::read(bundles.pop().unwrap()).unwrap();
    let (mut rest, mut entries) = (bytes.as_slice(), Vec::new());
    while let Some((length, after)) = rest.split_first_chunk::<2>() {
        let (entry, after) = after.split_at(usize::from(u16::from_be_bytes(*length)));
        entries.push(Entry::decode(entry).unwrap());
        rest = after;
    }
    entries
}

/// Whether any file below a directory holds a text, in the clear.
pub(crate) fn holds(dir: &Path, needle: &[u8]) -> bool {
    fs::read_dir(dir).unwrap().any(|found| {
        let path = found.unwrap().path();
        if path.is_dir() {
            return holds(&path, needle);
        }
        fs::read(&path).unwrap_or_default().windows(needle.len()).any(|window| window == needle)
    })
}
