//! Reading a log's history by index and by tenant, with proofs: what an auditor and a tenant are answered.
//!
//! ```text
//! checkpoint, tile/…  (C2SP tlog-tiles, of this log or a copy of another's)
//!      │ follow: once over each entry bundle
//!      ▼
//! tenants/<xx>/<tenant>: the index of each of its entries, 8 bytes each      ─→ a page costs what it holds
//! ```
//!
//! Nothing here is trusted by whoever reads an answer: entries are given byte by byte, with the path to a signed
//! checkpoint, and a tenant's entries name their predecessors. So this reads derived files, and a log's directory that was
//! copied from elsewhere. What *is* its own duty: an entry of another tenant is never given.

mod index;
#[cfg(test)]
mod tests;
mod tree;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use index::Index;
use tree::Tree;

use super::checkpoint::Checkpoint;
use super::entry::Entry;
use super::frame::UNREADABLE;
use super::log::Log;
use super::log_keys::known;
use super::merkle::{Hash, consistency_proof, inclusion_proof, leaf_hash};
use super::read::published_checkpoint;
use super::replay::VKEY;
use super::signer::LogVerifier;
use crate::error::{Dependency, Error};
use crate::fs::{Fs, OsFs};
use crate::id::TenantId;

/// Longest `log.pub` that is read.
const MAX_VKEY: u64 = 1 << 20;
/// How often it is looked whether the next checkpoint is there.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// An entry as the log has it, and its path to a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    /// Its number in the log.
    pub index: u64,
    /// Its bytes, over which the leaf hash is.
    pub bytes: Vec<u8>,
    /// Its inclusion path (RFC 6962 section 2.1.1), lowest first.
    pub path: Vec<Hash>,
    /// What it says.
    pub entry: Entry,
}

/// What is read of a tenant at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageBounds {
    /// The sequence number after which it begins; 0 for the first entry.
    pub after: u64,
    /// Most entries that are given.
    pub entries: usize,
    /// Most bytes of entries and paths; one entry is given even if it has more.
    pub bytes: usize,
    /// Most entries that are looked at, for a selection.
    pub looked_at: usize,
}

/// A page of a tenant's entries, all of one log and below one checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The checkpoint that the paths lead to.
    pub checkpoint: Checkpoint,
    /// The same as the log signed it.
    pub note: String,
    /// The entries, by ascending sequence.
    pub entries: Vec<Proven>,
    /// The tenant's last entry below the checkpoint; `None` if it has none.
    pub head: Option<Proven>,
    /// Up to which sequence number its entries were looked at. The page is the last one if it is the head's.
    pub seen: u64,
}

/// Says of an entry whether a page holds it; it may ask for another of the tenant's entries, by index, below that one.
pub(crate) type Keep<'a> = &'a mut dyn FnMut(&Entry, Lookup<'_>) -> Result<bool, Error>;
/// Reads another entry of the same tenant.
pub(crate) type Lookup<'a> = &'a mut dyn FnMut(u64) -> Result<Entry, Error>;

/// The history of one log, read from its published files.
#[derive(Debug)]
pub struct History {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    verifier: LogVerifier,
    index: Mutex<Index>,
}

impl History {
    /// Of an open log, read while it grows. The index lies in the log's directory.
    pub fn of(log: &Log) -> Self {
        Self::new(Arc::clone(&log.segments.fs), log.dir(), &log.dir().join("tenants"), log.verifier().clone())
    }

    /// Of a log whose published files lie in `dir`; the index of its tenants is made in `index`.
    pub fn new(fs: Arc<dyn Fs>, dir: &Path, index: &Path, verifier: LogVerifier) -> Self {
        let index = Mutex::new(Index::new(Arc::clone(&fs), index));
        Self { fs, dir: dir.to_owned(), verifier, index }
    }

    /// Of another gateway's log, whose published files lie in `dir`. Which key it has, the first line of its `log.pub`
    /// says: believe it only if somebody else says so, too.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if it cannot be read; [`Error::Corrupt`] if it names no key.
    pub fn of_copy(dir: &Path, indexes: &Path) -> Result<Self, Error> {
        let fs: Arc<dyn Fs> = Arc::new(OsFs);
        let bytes = fs.read(&dir.join(VKEY), MAX_VKEY).map_err(|_| UNREADABLE)?;
        let text = String::from_utf8(bytes).map_err(|_| Error::corrupt("log.pub", "not UTF-8"))?;
        let verifier = LogVerifier::parse(text.lines().next().unwrap_or_default())?;
        let index = indexes.join(verifier.origin().replace('/', "+"));
        Ok(Self::new(fs, dir, &index, verifier))
    }

    /// The log's name.
    pub fn origin(&self) -> &str {
        self.verifier.origin()
    }

    /// The key that verifies its checkpoints.
    pub const fn verifier(&self) -> &LogVerifier {
        &self.verifier
    }

    /// All keys that its `log.pub` lists, the oldest first.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the list cannot be read.
    pub fn keys(&self) -> Result<Vec<LogVerifier>, Error> {
        let keys = known(&*self.fs, &self.dir, &self.verifier)?;
        Ok(keys.into_iter().map(|key| key.verifier).collect())
    }

    /// The newest published checkpoint, and the same as it was signed.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if there is none or it cannot be read; [`Error::Corrupt`] if it is none of this log.
    pub fn latest(&self) -> Result<(Checkpoint, String), Error> {
        let found = published_checkpoint(&*self.fs, &self.dir, &self.verifier)?;
        found.ok_or_else(|| Error::unavailable(Dependency::Audit, "no checkpoint is published yet"))
    }

    /// Blocks until a published checkpoint covers the entry, for as long as `patience`.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if none does by then; as [`Self::latest`].
    pub fn wait_for(&self, index: u64, patience: Duration) -> Result<(Checkpoint, String), Error> {
        let begun = Instant::now();
        loop {
            match self.latest() {
                Ok(found) if found.0.size > index => return Ok(found),
                Err(error @ Error::Corrupt { .. }) => return Err(error),
                Ok(_) | Err(_) if begun.elapsed() < patience => std::thread::sleep(LOOK_EVERY),
                Ok(_) => return Err(Error::unavailable(Dependency::Audit, "the next checkpoint is late")),
                Err(error) => return Err(error),
            }
        }
    }

    /// Brings the index of tenants up to the newest published checkpoint. Who reads does it, too; called every second or
    /// so, nobody who reads waits for it. Blocks while it reads each new entry once.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Corrupt`].
    pub fn follow(&self) -> Result<(), Error> {
        self.follow_to(&self.latest()?.0)
    }

    fn follow_to(&self, checkpoint: &Checkpoint) -> Result<(), Error> {
        let mut tree = self.tree(checkpoint.size, checkpoint.size);
        self.index.lock().unwrap_or_else(PoisonError::into_inner).follow(&mut tree, checkpoint)
    }

    fn tree(&self, size: u64, published: u64) -> Tree<'_> {
        Tree::new(&*self.fs, &self.dir, (size, published))
    }

    /// The entries of the whole log from an index on, at most so many and so many bytes, with their leaf hashes; and the checkpoint that
    /// covers them.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Corrupt`].
    pub fn entries(&self, from: u64, limit: usize, bytes: usize) -> Result<(Checkpoint, Vec<(Entry, Hash)>), Error> {
        let (checkpoint, _) = self.latest()?;
        let mut tree = self.tree(checkpoint.size, checkpoint.size);
        let to = from.saturating_add(limit as u64).min(checkpoint.size);
        let (mut found, mut left) = (Vec::new(), bytes);
        for index in from..to {
            let bytes = tree.entry(index)?;
            match left.checked_sub(bytes.len()) {
                Some(rest) => left = rest,
                None if found.is_empty() => left = 0,
                None => break,
            }
            found.push((decode(bytes, index)?, leaf_hash(bytes)));
        }
        Ok((checkpoint, found))
    }

    /// The leaf hash and the inclusion path of an entry in the tree of `size` entries, the newest published one for
    /// `None`; and that checkpoint.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming `index` or `tree_size`; [`Error::Unavailable`].
    pub fn inclusion(&self, index: u64, size: Option<u64>) -> Result<(u64, Hash, Vec<Hash>), Error> {
        let (size, published) = self.size(size)?;
        let mut tree = self.tree(size, published);
        if index >= size {
            return Err(Error::invalid("index", "must be below the tree's size"));
        }
        let leaf = leaf_hash(tree.entry(index)?);
        Ok((size, leaf, inclusion_proof(&tree, index, size)?))
    }

    /// The proof that the tree of `new` entries, the newest published one for `None`, extends the one of `old`.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming `old_size` or `tree_size`; [`Error::Unavailable`].
    pub fn consistency(&self, old: u64, new: Option<u64>) -> Result<(u64, Vec<Hash>), Error> {
        let (size, published) = self.size(new)?;
        if old > size {
            return Err(Error::invalid("old_size", "must not be above the tree's size"));
        }
        Ok((size, consistency_proof(&self.tree(size, published), old, size)?))
    }

    /// The size asked for, and the published one.
    fn size(&self, asked: Option<u64>) -> Result<(u64, u64), Error> {
        let published = self.latest()?.0.size;
        match asked {
            Some(size) if size > published => {
                Err(Error::invalid("tree_size", "must not be above the newest checkpoint's size"))
            }
            size => Ok((size.unwrap_or(published), published)),
        }
    }

    /// A page of a tenant's own entries below the newest published checkpoint: those that `keep` takes. `keep` may ask
    /// for another of the tenant's entries, by index, below the one that it is shown.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming `after_sequence`; [`Error::Unavailable`]; [`Error::Corrupt`] if an entry is not the
    /// tenant's, which ends it before anything of that entry is given.
    pub fn page(&self, tenant: &TenantId, bounds: PageBounds, keep: Keep<'_>) -> Result<Page, Error> {
        let (checkpoint, note) = self.latest()?;
        self.follow_to(&checkpoint)?;
        let mut own = Own { tree: self.tree(checkpoint.size, checkpoint.size), tenant, size: checkpoint.size };
        let places = self.index.lock().unwrap_or_else(PoisonError::into_inner).places(tenant, checkpoint.size)?;
        let count = places.count();
        if bounds.after > count {
            return Err(Error::invalid("after_sequence", "is above the tenant's last entry of this log"));
        }
        let (mut entries, mut used, mut seen) = (Vec::new(), 0, bounds.after);
        let last = count.min(bounds.after.saturating_add(bounds.looked_at as u64));
        for sequence in bounds.after.saturating_add(1)..=last {
            if entries.len() >= bounds.entries {
                break;
            }
            let (entry, bytes) = own.at(places.at(sequence)?, Some(sequence))?;
            if keep(&entry, &mut |index| own.at(index, None).map(|(entry, _)| entry))? {
                let proven = own.prove(entry, bytes)?;
                let size = proven.bytes.len() + proven.path.len() * 32;
                if !entries.is_empty() && used + size > bounds.bytes {
                    break;
                }
                used += size;
                entries.push(proven);
            }
            seen = sequence;
        }
        let head = match count {
            0 => None,
            count => {
                let (entry, bytes) = own.at(places.at(count)?, Some(count))?;
                Some(own.prove(entry, bytes)?)
            }
        };
        Ok(Page { checkpoint, note, entries, head, seen })
    }
}

/// Gives a tenant's own entries and no others.
struct Own<'a> {
    tree: Tree<'a>,
    tenant: &'a TenantId,
    size: u64,
}

impl Own<'_> {
    /// The entry at an index, if it is this tenant's, and where given, has this sequence number.
    fn at(&mut self, index: u64, sequence: Option<u64>) -> Result<(Entry, Vec<u8>), Error> {
        let foreign = || Error::corrupt("audit log", "an index of the log's tenants names another entry");
        if index >= self.size {
            return Err(foreign());
        }
        let bytes = self.tree.entry(index)?.to_vec();
        let entry = decode(&bytes, index)?;
        let is_own = entry.link.as_ref().is_some_and(|link| {
            link.tenant == *self.tenant && sequence.is_none_or(|sequence| link.sequence == sequence)
        });
        if is_own { Ok((entry, bytes)) } else { Err(foreign()) }
    }

    fn prove(&self, entry: Entry, bytes: Vec<u8>) -> Result<Proven, Error> {
        Ok(Proven { index: entry.index, path: inclusion_proof(&self.tree, entry.index, self.size)?, bytes, entry })
    }
}

fn decode(bytes: &[u8], index: u64) -> Result<Entry, Error> {
    let entry = Entry::decode(bytes)?;
    if entry.index == index {
        Ok(entry)
    } else {
        Err(Error::corrupt("audit log", "an entry bundle holds an entry of another place"))
    }
}
