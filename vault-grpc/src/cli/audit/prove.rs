//! `audit prove`: proofs as text, from the tiles.

use std::fmt::Write as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use vault_core::Error;
use vault_core::audit::merkle::{consistency_proof, inclusion_proof};
use vault_core::audit::{TileReader, kept_checkpoint, request};
use vault_core::fs::OsFs;

use super::log_of;
use crate::cli::print;

pub(super) fn prove(
    dir: &Path,
    key: &str,
    index: Option<u64>,
    old: Option<u64>,
    to: Option<u64>,
) -> Result<bool, Error> {
    let verifier = log_of(dir, key)?;
    // The tiles that are there are those of the newest checkpoint, at least.
    let (newest, _) = kept_checkpoint(&OsFs, dir, &verifier, None)?;
    let (head, note) = kept_checkpoint(&OsFs, dir, &verifier, to)?;
    let tiles = TileReader::new(&OsFs, dir, newest.size);
    let text = match (index, old) {
        (Some(index), _) => {
            let mut text = format!("c2sp.org/tlog-proof@v1\nindex {index}\n");
            for hash in inclusion_proof(&tiles, index, head.size)? {
                // Writing to a String cannot fail.
                let _ = writeln!(text, "{}", STANDARD.encode(hash));
            }
            format!("{text}\n{note}")
        }
        // In the form of C2SP tlog-witness: `old`, the hashes, the checkpoint of the larger size.
        (None, Some(old)) => request(old, &consistency_proof(&tiles, old, head.size)?, &note),
        (None, None) => return Err(Error::invalid("--index", "give --index or --old")),
    };
    print::line(text.trim_end());
    Ok(true)
}
