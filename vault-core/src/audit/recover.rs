//! What opening a log does to its files: making them where there are none, and putting in order what a crash left.

use std::path::Path;

use super::checkpoint::Checkpoint;
use super::frame::{UNREADABLE, header};
use super::log::Options;
use super::log_keys::listed_keys;
use super::merkle::{Hash, empty_root};
use super::replay::{CHECKPOINTS, ENTRIES, Finding, PUBLISHED, State, VKEY};
use super::sealer::make_open;
use super::segments::{ARCHIVE_AT, Segments};
use super::signer::{LogSigner, LogVerifier};
use super::snapshot::Snapshot;
use crate::error::{Dependency, Error};
use crate::fs::{File, Fs, Open};

pub(super) const UNWRITABLE: Error =
    Error::unavailable(Dependency::Audit, "the log's directory or files cannot be written");

/// The first key that `log.pub` lists, if the file is there.
pub(super) fn first_listed(fs: &dyn Fs, dir: &Path) -> Result<Option<LogVerifier>, Error> {
    let path = dir.join(VKEY);
    if !fs.exists(&path) {
        return Ok(None);
    }
    let bytes = fs.read(&path, 1 << 20).map_err(|_| UNREADABLE)?;
    let keys = String::from_utf8(bytes).ok().and_then(|text| listed_keys(&text).ok());
    let first = keys.and_then(|keys| keys.into_iter().next());
    let damaged = Finding::File { file: VKEY, why: "not a list of verifier keys" };
    first.map(|key| Some(key.verifier)).ok_or_else(|| damaged.into())
}

/// The log must be the signer's: its last key.
pub(super) fn check_signer(state: &State, signer: &LogSigner) -> Result<(), Error> {
    let own = signer.verifier();
    if state.at.keys.active() == Some(own) {
        return Ok(());
    }
    if state.at.keys.keys().iter().any(|key| key.verifier == *own) {
        return Err(Error::FailedPrecondition("the log's key was rotated, and this one is retired"));
    }
    Err(Finding::File { file: VKEY, why: "the log belongs to another signing key or origin" }.into())
}

/// Makes the files of a log where there are none; true if it did. Refuses where some are missing.
pub(super) fn prepare(segments: &Segments, signer: &LogSigner) -> Result<bool, Error> {
    let (fs, dir) = (&segments.fs, &segments.dir);
    let [entries, checkpoints, published] = [ENTRIES, CHECKPOINTS, PUBLISHED].map(|name| dir.join(name));
    if first_listed(&**fs, dir)?.is_some_and(|first| first.origin() != signer.verifier().origin()) {
        return Err(Finding::File { file: VKEY, why: "the log belongs to another signing key or origin" }.into());
    }
    // A crash may have come while a segment was sealed: then the open one is missing, and all that it followed is there.
    if fs.exists(&entries) || segments.last_sealed().is_some() {
        return Ok(false);
    }
    let lost = || Error::from(Finding::File { file: ENTRIES, why: "the file is missing, though a log was here" });
    if fs.exists(&published) || fs.exists(&dir.join("tile")) || !Snapshot::numbers(segments).is_empty() {
        return Err(lost());
    }
    let first = Checkpoint { size: 0, root: empty_root() };
    if fs.exists(&checkpoints) {
        // A crash may have come between the two files; then there is exactly the first checkpoint.
        let expected = format!("{}\n", first.sign(signer)?);
        if fs.read(&checkpoints, 4096).ok().as_deref() != Some(expected.as_bytes()) {
            return Err(lost());
        }
    }
    fs.replace(&checkpoints, format!("{}\n", first.sign(signer)?).as_bytes()).map_err(|_| UNWRITABLE)?;
    // Last: where this file is, the log is.
    fs.replace(&entries, &header(signer.verifier().origin()).0).map_err(|_| UNWRITABLE)?;
    Ok(true)
}

/// The two files that are written, and where the open segment goes on.
pub(super) struct Files {
    pub(super) entries: Box<dyn File>,
    pub(super) entries_end: u64,
    pub(super) chain: Hash,
    pub(super) checkpoints: Box<dyn File>,
}

/// Cuts what is incomplete, and makes the names durable that were found.
pub(super) fn repair(segments: &Segments, options: &Options, state: &State) -> Result<Files, Error> {
    let (fs, dir) = (&segments.fs, &segments.dir);
    let (mut entries_end, mut chain) = (state.entries_end, state.chain);
    if !state.is_open {
        make_open(segments, &state.start).map_err(|_| UNWRITABLE)?;
        let (header, hash) = state.start.header(&segments.origin);
        (entries_end, chain) = (header.len() as u64, hash);
    }
    let open = |name| fs.open(&dir.join(name), Open::ReadWrite).map_err(|_| UNWRITABLE);
    let (entries, checkpoints) = (open(ENTRIES)?, open(CHECKPOINTS)?);
    // The last name that is made. Where it is, those before it were synced; where it is not, its own sync is theirs as
    // well, those included that a killed process made and did not sync. A rotation that was cut off is finished here.
    replace_unless(&**fs, &dir.join(VKEY), state.at.keys.file().as_bytes())?;
    let named = dir.join(ARCHIVE_AT);
    match &options.archive {
        Some(archive) => replace_unless(&**fs, &named, format!("{}\n", archive.display()).as_bytes())?,
        None if fs.exists(&named) => fs.remove(&named).map_err(|_| UNWRITABLE)?,
        None => {}
    }
    if state.start.number > 0 {
        // A segment that was sealed when the process was killed may have a name that is not durable yet.
        fs.sync_dir(dir).map_err(|_| UNWRITABLE)?;
    }
    if state.torn > 0 {
        entries.set_len(entries_end).map_err(|_| UNWRITABLE)?;
        // Before anything is written there: else a crash could bring parts of the cut frame back behind a new one.
        entries.sync_data().map_err(|_| UNWRITABLE)?;
    }
    if state.checkpoint_torn {
        checkpoints.set_len(state.checkpoints_end).map_err(|_| UNWRITABLE)?;
        checkpoints.sync_data().map_err(|_| UNWRITABLE)?;
    }
    // Written again, because a page that could not be written once may count as clean since (and so would not be
    // written by the next sync), though the disk has not got it.
    rewrite(&*entries, state.signed_end.min(entries_end), entries_end)?;
    rewrite(&*checkpoints, state.last_note, state.checkpoints_end)?;
    Ok(Files { entries, entries_end, chain, checkpoints })
}

fn replace_unless(fs: &dyn Fs, path: &Path, bytes: &[u8]) -> Result<(), Error> {
    if fs.exists(path) && fs.read(path, 1 << 20).is_ok_and(|found| found == bytes) {
        return Ok(());
    }
    fs.replace(path, bytes).map_err(|_| UNWRITABLE)
}

fn rewrite(file: &dyn File, from: u64, to: u64) -> Result<(), Error> {
    let mut at = from;
    let mut block = Vec::new();
    while at < to {
        let len = (to - at).min(1 << 20);
        block.resize(usize::try_from(len).map_err(|_| UNREADABLE)?, 0);
        file.read_exact_at(at, &mut block).map_err(|_| UNREADABLE)?;
        file.write_all_at(at, &block).map_err(|_| UNWRITABLE)?;
        at += len;
    }
    Ok(())
}
