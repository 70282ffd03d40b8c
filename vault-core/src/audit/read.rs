//! Reading a log's files without opening it: its entries in order, also while it grows, and one of its checkpoints.

use std::path::Path;

use super::checkpoint::{self, Checkpoint};
use super::entry::Entry;
use super::frame::{Start, UNREADABLE};
use super::log_keys;
use super::merkle::Hash;
use super::note::MAX_NOTE;
use super::replay::{CHECKPOINTS, PUBLISHED};
use super::segments::{Frames, Next, Segments};
use super::signer::LogVerifier;
use crate::error::Error;
use crate::fs::{Fs, Open};

/// Gives a log's entries in order. Frames and their chain are checked on the way; signatures, the tree and tenants' chains
/// are what [`super::verify`] checks.
#[derive(Debug)]
pub struct EntryReader {
    frames: Frames,
}

impl EntryReader {
    /// Starts at the first entry of the log in `dir`. Archived segments are read where the log says that they are.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the file cannot be read, [`Error::Corrupt`] if it is not of this log.
    pub fn open(fs: &dyn Fs, dir: &Path, verifier: &LogVerifier) -> Result<Self, Error> {
        Self::open_with(fs, dir, None, verifier)
    }

    /// The same with the archive in another directory.
    ///
    /// # Errors
    /// As there.
    pub fn open_with(fs: &dyn Fs, dir: &Path, archive: Option<&Path>, verifier: &LogVerifier) -> Result<Self, Error> {
        Self::start(Segments::of(fs, dir, archive, verifier.origin()), Start::FIRST)
    }

    /// Starts with the segment that holds an entry, at its first entry, so that segments before it need not be there. The
    /// chain of frames is checked from there on.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_from(fs: &dyn Fs, dir: &Path, verifier: &LogVerifier, index: u64) -> Result<Self, Error> {
        let segments = Segments::of(fs, dir, None, verifier.origin());
        let start = segments.start_before(index)?;
        Self::start(segments, start)
    }

    /// The index of the entry that comes next.
    pub fn next_index(&self) -> u64 {
        self.frames.next_index()
    }

    fn start(segments: Segments, start: Start) -> Result<Self, Error> {
        let mut frames = Frames::at(segments, start);
        match frames.enter()? {
            Ok(true) => Ok(Self { frames }),
            Ok(false) => Err(UNREADABLE),
            Err(finding) => Err(finding.into()),
        }
    }

    /// Gives the entries of the next commit group: each with its leaf hash. False if there is none (yet): call again to
    /// follow a log that grows.
    ///
    /// # Errors
    /// [`Error::Corrupt`] naming the first entry that is not as it was written; what `each` returns.
    pub fn group(&mut self, each: &mut dyn FnMut(Entry, Hash) -> Result<(), Error>) -> Result<bool, Error> {
        self.frames.refresh()?;
        match self.frames.step()? {
            Next::Frame => {
                for (bytes, leaf) in self.frames.entries() {
                    each(Entry::decode(bytes)?, leaf)?;
                }
                Ok(true)
            }
            // What is not whole yet may be in the middle of being written.
            Next::End | Next::Torn { .. } => Ok(false),
            Next::Bad(finding) => Err(finding.into()),
        }
    }
}

/// The newest checkpoint whose tiles are written, as it was published; `None` before the first. It may be signed by another
/// key than this one, if `log.pub` lists both.
///
/// # Errors
/// [`Error::Corrupt`] if it is none of this log; [`Error::Unavailable`].
pub fn published_checkpoint(
    fs: &dyn Fs,
    dir: &Path,
    verifier: &LogVerifier,
) -> Result<Option<(Checkpoint, String)>, Error> {
    let path = dir.join(PUBLISHED);
    if !fs.exists(&path) {
        return Ok(None);
    }
    let bytes = fs.read(&path, MAX_NOTE as u64).map_err(|_| UNREADABLE)?;
    let note = String::from_utf8(bytes).map_err(|_| Error::corrupt("checkpoint", "not UTF-8"))?;
    let keys = log_keys::known(fs, dir, verifier)?;
    let (checkpoint, _) = Checkpoint::verify_any(&note, keys.iter().map(|key| &key.verifier))?;
    Ok(Some((checkpoint, note)))
}

/// The kept checkpoint of a size, or the last one, as the log signed it: with this key, or with another that `log.pub`
/// lists beside it.
///
/// # Errors
/// [`Error::NotFound`] if none of that size is kept; [`Error::Corrupt`] naming the byte of one before it that does not
/// hold; [`Error::Unavailable`].
pub fn kept_checkpoint(
    fs: &dyn Fs,
    dir: &Path,
    verifier: &LogVerifier,
    size: Option<u64>,
) -> Result<(Checkpoint, String), Error> {
    let path = dir.join(CHECKPOINTS);
    let mut reader = checkpoint::Reader::open(fs, &path)?;
    let keys = log_keys::known(fs, dir, verifier)?;
    let mut found = None;
    loop {
        let from = reader.position();
        match reader.step(keys.iter().map(|key| &key.verifier))? {
            checkpoint::Step::Checkpoint(checkpoint) if size.is_none_or(|size| size == checkpoint.size) => {
                // Without the empty line behind it.
                found = Some((checkpoint, from, reader.position().saturating_sub(1)));
            }
            checkpoint::Step::Checkpoint(_) => {}
            checkpoint::Step::End | checkpoint::Step::Torn { .. } => break,
            checkpoint::Step::Bad { at, why } => {
                return Err(Error::corrupt("audit log", format!("byte {at} of {CHECKPOINTS}: {why}")));
            }
        }
    }
    let (checkpoint, from, to) = found.ok_or(Error::NotFound("checkpoint of that size"))?;
    let mut note = vec![0; usize::try_from(to.saturating_sub(from)).unwrap_or(MAX_NOTE).min(MAX_NOTE)];
    let file = fs.open(&path, Open::Read).map_err(|_| UNREADABLE)?;
    file.read_exact_at(from, &mut note).map_err(|_| UNREADABLE)?;
    String::from_utf8(note).map(|note| (checkpoint, note)).map_err(|_| UNREADABLE)
}

/// Whether a key has signed the last checkpoint that the log in `dir` keeps; false without one.
///
/// # Errors
/// [`Error::Unavailable`] if the file cannot be read.
pub fn has_signed_last(fs: &dyn Fs, dir: &Path, verifier: &LogVerifier) -> Result<bool, Error> {
    let path = dir.join(CHECKPOINTS);
    if !fs.exists(&path) {
        return Ok(false);
    }
    let file = fs.open(&path, Open::Read).map_err(|_| UNREADABLE)?;
    let len = file.len().map_err(|_| UNREADABLE)?;
    let mut tail = vec![0; usize::try_from(len).unwrap_or(usize::MAX).min(MAX_NOTE)];
    file.read_exact_at(len - tail.len() as u64, &mut tail).map_err(|_| UNREADABLE)?;
    let text = String::from_utf8_lossy(&tail);
    // Each note has an empty line in it and one behind it; the last one may be incomplete.
    let parts: Vec<&str> = text.split("\n\n").collect();
    let [.., body, signatures, _] = parts.as_slice() else { return Ok(false) };
    let note = format!("{}\n\n{signatures}\n", body.trim_start_matches('\n'));
    Ok(verifier.has_signed(&note).unwrap_or(false))
}
