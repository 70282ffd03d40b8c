//! Reading a whole log from its start: what opening, verifying and rebuilding the tiles have in common.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;

use super::anchor::{Anchor, PolicyMark, operators_from_body};
use super::checkpoint::{self, Checkpoint};
use super::entry::{Entry, first_previous};
use super::frame::{self, UNREADABLE};
use super::merkle::{Edge, Hash};
use super::note::MAX_NOTE;
use super::signer::LogVerifier;
use crate::error::Error;
use crate::fs::{Fs, Open};
use crate::id::TenantId;
use crate::principal::ListRef;

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
        /// The byte in `entries.log` at which its frame starts.
        position: u64,
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
            Self::Entry { index, position, why } => {
                write!(f, "entry {index} (frame at byte {position} of {ENTRIES}): {why}")
            }
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
    pub(super) edge: Edge,
    pub(super) tenants: Tenants,
    /// The last recorded state of the store.
    pub(super) anchor: Option<Anchor>,
    /// The last policy bundle that came into force.
    pub(super) policy: Option<PolicyMark>,
    /// The list of operators with the highest version that was in force.
    pub(super) operators: Option<ListRef>,
    /// The hash of the last frame.
    pub(super) chain: Hash,
    /// The end of the last whole frame, and how many bytes of an incomplete one follow.
    pub(super) entries_end: u64,
    pub(super) torn: u64,
    /// The end of the last frame that a checkpoint covers.
    pub(super) signed_end: u64,
    /// The end of the last whole checkpoint, and whether an incomplete one follows.
    pub(super) checkpoints_end: u64,
    /// The start of that checkpoint.
    pub(super) last_note: u64,
    pub(super) checkpoint_torn: bool,
    pub(super) last: Option<Checkpoint>,
}

/// Is shown everything that holds, in order.
pub(super) trait Watch {
    fn entry(&mut self, index: u64, bytes: &[u8], leaf: Hash) -> Result<(), Error>;
    fn checkpoint(&mut self, checkpoint: &Checkpoint) -> Result<(), Error>;
    /// After an entry: the tree over everything up to it.
    fn tree(&mut self, edge: &Edge) -> Option<Finding>;
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
    let checkpoint = std::str::from_utf8(&bytes).ok().and_then(|note| Checkpoint::verify(note, verifier).ok());
    Ok(checkpoint.map(Some).ok_or(Finding::File { file: PUBLISHED, why: "not a checkpoint signed by this log's key" }))
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
struct Ahead<'v> {
    reader: checkpoint::Reader,
    verifier: &'v LogVerifier,
    next: Option<Checkpoint>,
    end: u64,
    last_note: u64,
    torn: bool,
    last: Option<Checkpoint>,
}

impl Ahead<'_> {
    fn advance(&mut self) -> Result<Option<Finding>, Error> {
        let start = self.reader.position();
        self.end = start;
        self.next = match self.reader.step(self.verifier)? {
            checkpoint::Step::Checkpoint(next) => {
                self.last_note = start;
                Some(next)
            }
            checkpoint::Step::End => None,
            checkpoint::Step::Torn { at } => {
                self.end = at;
                self.torn = true;
                None
            }
            checkpoint::Step::Bad { at, why } => return Ok(Some(Finding::Checkpoint { position: at, why })),
        };
        Ok(None)
    }

    /// Compares the tree with the checkpoint of its size, if there is one.
    fn compare(&mut self, edge: &Edge, watch: &mut dyn Watch) -> Result<Option<Finding>, Error> {
        let Some(next) = self.next.filter(|next| next.size == edge.size()) else { return Ok(None) };
        if next.root != edge.root() {
            return Ok(Some(Finding::Tree { last_good: self.last, first_bad: next }));
        }
        watch.checkpoint(&next)?;
        self.last = Some(next);
        self.advance()
    }
}

/// Reads everything and changes nothing. Memory: one frame, and each tenant's last hash.
///
/// # Errors
/// [`Error::Unavailable`] if a file cannot be read; what `watch` returns. Damage is a [`Finding`].
pub(super) fn replay(
    fs: &dyn Fs,
    dir: &Path,
    verifier: &LogVerifier,
    watch: &mut dyn Watch,
) -> Result<Result<State, Finding>, Error> {
    for file in [ENTRIES, CHECKPOINTS] {
        if !fs.exists(&dir.join(file)) {
            return Ok(Err(Finding::File { file, why: "the file is missing" }));
        }
    }
    // In the reverse order of writing, so that a log that grows meanwhile is not taken for a damaged one.
    let published = match published(fs, dir, verifier)? {
        Ok(published) => published,
        Err(finding) => return Ok(Err(finding)),
    };
    let reader = checkpoint::Reader::open(fs, &dir.join(CHECKPOINTS))?;
    let file = fs.open(&dir.join(ENTRIES), Open::Read).map_err(|_| UNREADABLE)?;
    let mut frames = match frame::Reader::new(file, verifier.origin()) {
        Ok(frames) => frames,
        Err(Error::Corrupt { .. }) => {
            return Ok(Err(Finding::File { file: ENTRIES, why: "byte 0: not the header of this log" }));
        }
        Err(error) => return Err(error),
    };
    let mut ahead = Ahead { reader, verifier, next: None, end: 0, last_note: 0, torn: false, last: None };
    let mut edge = Edge::new();
    let mut tenants = Tenants::new();
    let (mut anchor, mut policy) = (None, None);
    let mut operators: Option<ListRef> = None;
    let mut signed_end = frames.position();
    if let Some(finding) = ahead.advance()? {
        return Ok(Err(finding));
    }
    if let Some(finding) = ahead.compare(&edge, watch)? {
        return Ok(Err(finding));
    }
    let torn = loop {
        let position = frames.position();
        match frames.step()? {
            frame::Step::End => break 0,
            frame::Step::Torn { bytes } => break bytes,
            frame::Step::Bad { index, at, why } => {
                return Ok(Err(Finding::Entry { index, position: at, why: why.to_owned() }));
            }
            frame::Step::Frame => {}
        }
        for (bytes, leaf) in frames.entries() {
            let index = edge.size();
            match check_entry(bytes, leaf, index, &mut tenants) {
                Ok(entry) => {
                    anchor = Anchor::from_body(&entry.body).or(anchor);
                    policy = PolicyMark::from_body(&entry.body).or(policy);
                    let list = operators_from_body(&entry.body);
                    let newer = |list: &ListRef| operators.is_none_or(|before| before.version <= list.version);
                    operators = list.filter(newer).or(operators);
                }
                Err(why) => return Ok(Err(Finding::Entry { index, position, why })),
            }
            edge.push(leaf);
            watch.entry(index, bytes, leaf)?;
            if let Some(finding) = watch.tree(&edge) {
                return Ok(Err(finding));
            }
            if let Some(finding) = ahead.compare(&edge, watch)? {
                return Ok(Err(finding));
            }
        }
        if ahead.last.is_some_and(|last| last.size == edge.size()) {
            signed_end = frames.position();
        }
    };
    if let Some(checkpoint) = ahead.next {
        return Ok(Err(Finding::Missing { entries: edge.size(), checkpoint }));
    }
    if published.is_some_and(|published| ahead.last.is_none_or(|last| published.size > last.size)) {
        return Ok(Err(Finding::File { file: CHECKPOINTS, why: "the published checkpoint is not among those kept" }));
    }
    Ok(Ok(State {
        edge,
        tenants,
        anchor,
        policy,
        operators,
        chain: frames.chain(),
        entries_end: frames.position(),
        torn,
        signed_end,
        checkpoints_end: ahead.end,
        last_note: ahead.last_note,
        checkpoint_torn: ahead.torn,
        last: ahead.last,
    }))
}
