//! Reading a whole log from its start: what opening, verifying and rebuilding the tiles have in common.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;

use super::anchor::{Anchor, PolicyMark, newest_list, operators_from_body};
use super::checkpoint::{self, Checkpoint};
use super::entry::{Entry, first_previous};
use super::frame::{Start, UNREADABLE};
use super::log_keys::{self, Chain};
use super::merkle::{Edge, Hash};
use super::note::MAX_NOTE;
use super::segments::{Frames, Next, Segments};
use super::signer::LogVerifier;
use super::snapshot::Snapshot;
use crate::error::Error;
use crate::fs::Fs;
use crate::id::TenantId;
use crate::time::Timestamp;

pub(super) const ENTRIES: &str = "entries.log";
pub(super) const CHECKPOINTS: &str = "checkpoints";
pub(super) const PUBLISHED: &str = "checkpoint";
pub(super) const VKEY: &str = "log.pub";
pub(super) const LOCK: &str = "lock";

/// The first thing in a log that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// An entry, or the frame around it, was altered, removed, inserted or moved.
    Entry {
        /// The first index that is not as it was written.
        index: u64,
        /// The byte in the segment's file at which its frame starts.
        position: u64,
        /// The segment's file, from the log's directory.
        file: String,
        /// What does not hold.
        why: String,
    },
    /// The entries fit together, but are not the ones that were signed: the tree was recomputed.
    Tree {
        /// The last checkpoint whose root is the tree's.
        last_good: Option<Checkpoint>,
        /// The first checkpoint whose root is not: an entry with an index from `last_good`'s size to below this size
        /// was changed.
        first_bad: Checkpoint,
    },
    /// A checkpoint covers more entries than there are.
    Missing {
        /// How many there are; this is also the first index that is missing.
        entries: u64,
        /// The checkpoint.
        checkpoint: Checkpoint,
    },
    /// A checkpoint was altered or signed by another key.
    Checkpoint {
        /// The byte in `checkpoints` at which it starts.
        position: u64,
        /// What does not hold.
        why: String,
    },
    /// A file of the log is missing or is not what it should be.
    File {
        /// Its name in the log's directory.
        file: &'static str,
        /// What does not hold.
        why: &'static str,
    },
    /// A segment is missing, exchanged, or does not continue the one before it. Nothing from its first entry on could be
    /// checked.
    Segment {
        /// Its number.
        number: u32,
        /// The index of its first entry.
        first: u64,
        /// Its file, from the log's directory.
        file: String,
        /// What does not hold.
        why: String,
    },
    /// What is kept of the log at the start of a segment is not what the log comes to there. The durable record is sound.
    State {
        /// The segment.
        number: u32,
        /// What does not hold.
        why: String,
    },
    /// A tile or entry bundle differs from the entries. The durable record is sound; opening the log writes it again.
    Tile {
        /// Its path in the log's directory.
        path: String,
        /// The first entry it covers.
        index: u64,
    },
    /// An entry is not the one that a receipt names, or is missing.
    Receipt {
        /// The receipt's index.
        index: u64,
    },
    /// The log does not extend a checkpoint that somebody else kept: it was rolled back or forked.
    Outside {
        /// The checkpoint.
        checkpoint: Checkpoint,
        /// How many entries the log has.
        entries: u64,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Entry { index, position, file, why } => {
                write!(f, "entry {index} (frame at byte {position} of {file}): {why}")
            }
            Self::Segment { number, first, file, why } => {
                write!(f, "segment {number}, from entry {first} on ({file}): {why}")
            }
            Self::State { number, why } => write!(f, "state.{number:06}: {why}"),
            Self::Tree { last_good: Some(good), first_bad } => write!(
                f,
                "the tree was recomputed: the checkpoint of size {} holds, the one of size {} does not",
                good.size, first_bad.size
            ),
            Self::Tree { last_good: None, first_bad } => {
                write!(f, "the tree was recomputed: the first checkpoint, of size {}, does not hold", first_bad.size)
            }
            Self::Missing { entries, checkpoint } => {
                write!(f, "entry {entries} is missing: a checkpoint covers {} entries", checkpoint.size)
            }
            Self::Checkpoint { position, why } => write!(f, "byte {position} of {CHECKPOINTS}: {why}"),
            Self::File { file, why } => write!(f, "{file}: {why}"),
            Self::Tile { path, index } => write!(f, "{path} (from entry {index}) differs from the entries"),
            Self::Receipt { index } => write!(f, "entry {index} is not the one of the receipt"),
            Self::Outside { checkpoint, entries } => write!(
                f,
                "the log, of {entries} entries, does not extend the checkpoint of size {} kept outside of it",
                checkpoint.size
            ),
        }
    }
}

impl From<Finding> for Error {
    fn from(finding: Finding) -> Self {
        Self::corrupt("audit log", finding.to_string())
    }
}

/// Each tenant's last sequence number and leaf hash.
pub(super) type Tenants = HashMap<TenantId, (u64, Hash)>;

/// Where a log stands.
pub(super) struct State {
    /// What it comes to. Of the tiles nothing.
    pub(super) at: Snapshot,
    /// The hash that the next frame names.
    pub(super) chain: Hash,
    /// Where the open segment begins; and false if its file is missing, because a crash came while it was made.
    pub(super) start: Start,
    pub(super) is_open: bool,
    /// When the first entry of the open segment was written.
    pub(super) since: Option<Timestamp>,
    /// The end of the last whole frame, and how many bytes of an incomplete one follow.
    pub(super) entries_end: u64,
    pub(super) torn: u64,
    /// The end of the last frame of the open segment that a checkpoint covers.
    pub(super) signed_end: u64,
    /// The end of the last whole checkpoint, and whether an incomplete one follows.
    pub(super) checkpoints_end: u64,
    /// The start of that checkpoint.
    pub(super) last_note: u64,
    pub(super) checkpoint_torn: bool,
}

/// Is shown everything that holds, in order.
pub(super) trait Watch {
    fn entry(&mut self, index: u64, bytes: &[u8], leaf: Hash) -> Result<(), Error>;
    fn checkpoint(&mut self, checkpoint: &Checkpoint) -> Result<(), Error>;
    /// After an entry: the tree over everything up to it.
    fn tree(&mut self, edge: &Edge) -> Option<Finding>;
    /// Between two segments: what the log comes to. Of the tiles nothing.
    fn segment(&mut self, at: &Snapshot) -> Result<Option<Finding>, Error>;
}

/// Watches nothing.
pub(super) struct Unwatched;

impl Watch for Unwatched {
    fn entry(&mut self, _: u64, _: &[u8], _: Hash) -> Result<(), Error> {
        Ok(())
    }
    fn checkpoint(&mut self, _: &Checkpoint) -> Result<(), Error> {
        Ok(())
    }
    fn tree(&mut self, _: &Edge) -> Option<Finding> {
        None
    }
    fn segment(&mut self, _: &Snapshot) -> Result<Option<Finding>, Error> {
        Ok(None)
    }
}

/// The checkpoint that tlog-tiles publishes, if there is one.
pub(super) fn published(
    fs: &dyn Fs,
    dir: &Path,
    verifier: &LogVerifier,
) -> Result<Result<Option<Checkpoint>, Finding>, Error> {
    let path = dir.join(PUBLISHED);
    if !fs.exists(&path) {
        return Ok(Ok(None));
    }
    let bytes = fs.read(&path, MAX_NOTE as u64).map_err(|_| UNREADABLE)?;
    let keys = log_keys::known(fs, dir, verifier)?;
    let note = std::str::from_utf8(&bytes).ok();
    let checkpoint = note.and_then(|note| Checkpoint::verify_any(note, keys.iter().map(|key| &key.verifier)).ok());
    Ok(checkpoint
        .map(|(checkpoint, _)| checkpoint)
        .map(Some)
        .ok_or(Finding::File { file: PUBLISHED, why: "not a checkpoint signed by this log's key" }))
}

/// Checks one entry against its place in the log and in its tenant's chain.
fn check_entry(bytes: &[u8], leaf: Hash, index: u64, tenants: &mut Tenants) -> Result<Entry, String> {
    let entry = Entry::decode(bytes).map_err(|error| error.to_string())?;
    if entry.index != index {
        return Err(format!("it says that it is entry {}", entry.index));
    }
    if let Some(link) = &entry.link {
        let (sequence, previous) =
            tenants.get(&link.tenant).copied().unwrap_or_else(|| (0, first_previous(&link.tenant)));
        if link.sequence != sequence + 1 || link.previous != previous {
            return Err(format!("it does not follow its tenant's entry number {sequence}"));
        }
        tenants.insert(link.tenant.clone(), (link.sequence, leaf));
    }
    Ok(entry)
}

/// The checkpoints, one ahead.
struct Ahead {
    reader: checkpoint::Reader,
    next: Option<(Checkpoint, String)>,
    end: u64,
    last_note: u64,
    torn: bool,
}

impl Ahead {
    fn advance(&mut self, keys: &Chain) -> Result<Option<Finding>, Error> {
        let start = self.reader.position();
        self.end = start;
        self.next = match self.reader.step(keys.active())? {
            checkpoint::Step::Checkpoint(next) => {
                self.last_note = start;
                Some((next, self.reader.note().to_owned()))
            }
            checkpoint::Step::End => None,
            checkpoint::Step::Torn { at } => {
                self.end = at;
                self.torn = true;
                None
            }
            checkpoint::Step::Bad { at, why } => {
                let why = keys.accuse(self.reader.note()).unwrap_or(why);
                return Ok(Some(Finding::Checkpoint { position: at, why }));
            }
        };
        Ok(None)
    }

    /// Compares the tree with the checkpoint of its size, if there is one.
    fn compare(&mut self, at: &mut Snapshot, watch: &mut dyn Watch) -> Result<Option<Finding>, Error> {
        let Some((next, note)) = self.next.take_if(|(next, _)| next.size == at.edge.size()) else { return Ok(None) };
        if next.root != at.edge.root() {
            return Ok(Some(Finding::Tree { last_good: at.last, first_bad: next }));
        }
        if let Err(error) = at.keys.checkpoint(&next, &note) {
            return Ok(Some(Finding::Checkpoint { position: self.last_note, why: error.to_string() }));
        }
        watch.checkpoint(&next)?;
        at.last = Some(next);
        at.checkpoints += 1;
        let finding = self.advance(&at.keys)?;
        at.checkpoints_at = self.end;
        Ok(finding)
    }
}

/// Reads everything behind a snapshot, up to the end of a segment if one is named, and changes nothing. Memory: one frame,
/// and each tenant's last hash.
///
/// # Errors
/// [`Error::Unavailable`] if a file cannot be read; what `watch` returns. Damage is a [`Finding`].
pub(super) fn replay(
    segments: &Segments,
    from: Snapshot,
    verifier: &LogVerifier,
    until: Option<u32>,
    watch: &mut dyn Watch,
) -> Result<Result<State, Finding>, Error> {
    let (fs, dir) = (&*segments.fs, segments.dir.as_path());
    if !fs.exists(&dir.join(CHECKPOINTS)) {
        return Ok(Err(Finding::File { file: CHECKPOINTS, why: "the file is missing" }));
    }
    // In the reverse order of writing, so that a log that grows meanwhile is not taken for a damaged one.
    let published = match published(fs, dir, verifier)? {
        Ok(published) => published,
        Err(finding) => return Ok(Err(finding)),
    };
    let mut reader = checkpoint::Reader::open(fs, &dir.join(CHECKPOINTS))?;
    reader.skip_to(from.checkpoints_at, from.last.map(|last| last.size));
    let mut frames = Frames::at(segments.clone(), from.start()).until(until);
    match frames.enter()? {
        Ok(false) if from.number == 0 => {
            return Ok(Err(Finding::File { file: ENTRIES, why: "the file is missing" }));
        }
        Ok(_) => {}
        Err(finding) => return Ok(Err(finding)),
    }
    let (end, last_note) = (from.checkpoints_at, from.checkpoints_at);
    let mut ahead = Ahead { reader, next: None, end, last_note, torn: false };
    let mut at = from;
    let mut since = None;
    let mut signed = None;
    if let Some(finding) = ahead.advance(&at.keys)? {
        return Ok(Err(finding));
    }
    if let Some(finding) = ahead.compare(&mut at, watch)? {
        return Ok(Err(finding));
    }
    let torn = loop {
        let step = frames.step()?;
        if frames.number() != at.number {
            (at.number, at.previous) = (frames.number(), frames.start().previous);
            at.checkpoints_at = ahead.end;
            if let Some(finding) = watch.segment(&at)? {
                return Ok(Err(finding));
            }
        }
        match step {
            Next::End => break 0,
            Next::Torn { bytes } => break bytes,
            Next::Bad(finding) => return Ok(Err(finding)),
            Next::Frame => {}
        }
        for (bytes, leaf) in frames.entries() {
            let index = at.edge.size();
            match check_entry(bytes, leaf, index, &mut at.tenants) {
                Ok(entry) => {
                    at.anchor = Anchor::from_body(&entry.body).or(at.anchor);
                    at.policy = PolicyMark::from_body(&entry.body).or(at.policy);
                    at.operators = newest_list(operators_from_body(&entry.body), at.operators);
                    at.keys.entry(index, &entry.body);
                    if index == frames.start().first {
                        since = Some(entry.time);
                    }
                }
                Err(why) => {
                    let (position, file) = (frames.frame_at(), frames.file());
                    return Ok(Err(Finding::Entry { index, position, file, why }));
                }
            }
            at.edge.push(leaf);
            watch.entry(index, bytes, leaf)?;
            if let Some(finding) = watch.tree(&at.edge) {
                return Ok(Err(finding));
            }
            if let Some(finding) = ahead.compare(&mut at, watch)? {
                return Ok(Err(finding));
            }
        }
        if at.last.is_some_and(|last| last.size == at.edge.size()) {
            signed = Some((frames.number(), frames.position()));
        }
    };
    if until.is_none() {
        if let Some((checkpoint, _)) = ahead.next {
            return Ok(Err(Finding::Missing { entries: at.edge.size(), checkpoint }));
        }
        if published.is_some_and(|published| at.last.is_none_or(|last| published.size > last.size)) {
            return Ok(Err(Finding::File {
                file: CHECKPOINTS,
                why: "the published checkpoint is not among those kept",
            }));
        }
    }
    let start = frames.start().clone();
    let header = start.header(&segments.origin).0.len() as u64;
    let is_open = frames.is_open_segment();
    Ok(Ok(State {
        chain: frames.chain(),
        since: since.filter(|_| at.edge.size() > start.first),
        entries_end: frames.position(),
        torn,
        signed_end: signed.filter(|(number, _)| *number == start.number).map_or(header, |(_, end)| end),
        start,
        is_open,
        checkpoints_end: ahead.end,
        last_note: ahead.last_note,
        checkpoint_torn: ahead.torn,
        at,
    }))
}

/// The snapshot from which the log can be read on: the newest whose segments are there, else that of the empty log.
///
/// # Errors
/// [`Error::Unavailable`] if a file cannot be read.
pub(super) fn newest(segments: &Segments, verifier: &LogVerifier) -> Result<Snapshot, Error> {
    for number in Snapshot::numbers(segments) {
        match Snapshot::read(segments, number) {
            Ok(snapshot) => return Ok(snapshot),
            // One that is damaged, or that somebody else wrote, is not used: what it stands for is read instead.
            Err(Error::Corrupt { .. } | Error::Invalid { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    let first = log_keys::first(&*segments.fs, &segments.dir, verifier)?;
    Ok(Snapshot::empty(first))
}
