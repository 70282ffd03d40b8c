//! Verification of a log from its files alone: no secret, no running gateway, nothing changed.

use std::fmt;
use std::path::{Path, PathBuf};

use super::checkpoint::Checkpoint;
use super::frame::UNREADABLE;
use super::log_keys::{self, Chain, LogKey};
use super::merkle::{Edge, Hash};
use super::queue::Receipt;
use super::receipt::AuditReceipt;
use super::replay::{self, Finding, VKEY, Watch, newest, replay};
use super::segments::Segments;
use super::signer::LogVerifier;
use super::snapshot::Snapshot;
use super::tiles::{self, Tile};
use crate::error::Error;
use crate::fs::Fs;

/// What to check besides the files themselves.
#[derive(Debug, Clone, Default)]
pub struct VerifyOptions {
    /// Checkpoints of this log that were kept elsewhere (by a witness, a customer, an earlier run): the log must extend
    /// each of them. [`Checkpoint::verify`] reads one.
    pub outside: Vec<Checkpoint>,
    /// Entries that callers kept the hashes of.
    pub receipts: Vec<Receipt>,
    /// Where archived segments are; `None` for where the log says.
    pub archive: Option<PathBuf>,
    /// Where segments are missing, begin at the newest state that the log has signed, instead of finding them missing.
    pub skip_missing: bool,
}

impl VerifyOptions {
    /// Checks a receipt that a caller kept, and demands that the log holds all it names and extends its group's head.
    ///
    /// # Errors
    /// As [`AuditReceipt::verify`]; then nothing is added.
    pub fn keep(&mut self, receipt: &AuditReceipt, verifier: &LogVerifier) -> Result<(), Error> {
        self.outside.push(receipt.verify(verifier)?);
        self.receipts.extend(&receipt.entries);
        Ok(())
    }
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// How many entries hold, counted from the first, those in [`Self::skipped`] included. Without a finding: all.
    pub entries: u64,
    /// The entries before this one were not checked, because segments are missing; 0 where all were.
    pub skipped: u64,
    /// The numbers of the segments that are missing, where they were skipped.
    pub missing: Vec<u32>,
    /// The keys that signed the log, each introduced by the one before it; empty with a finding.
    pub keys: Vec<LogKey>,
    /// How many checkpoints hold.
    pub checkpoints: u64,
    /// How many tenants have entries among them.
    pub tenants: u64,
    /// The last checkpoint that holds.
    pub last: Option<Checkpoint>,
    /// Bytes of an incomplete last frame, which opening the log would cut. A running log may be writing it just now.
    pub incomplete: u64,
    /// The size of the largest checkpoint kept elsewhere that the log was shown to extend, or the number of entries up
    /// to the last receipt. `None`: that the log was not rolled back was *not* shown.
    pub anchored: Option<u64>,
    /// The first thing that does not hold.
    pub finding: Option<Finding>,
}

impl Report {
    /// True if nothing was found. See [`Self::anchored`] for what that does not say.
    pub const fn is_sound(&self) -> bool {
        self.finding.is_none()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(finding) = &self.finding {
            write!(
                f,
                "NOT SOUND: {finding}. {} entries and {} checkpoints before it hold",
                self.entries, self.checkpoints
            )?;
        } else {
            let unsigned = self.entries - self.last.map_or(0, |last| last.size);
            write!(f, "sound: {} entries of {} tenants, {} checkpoints", self.entries, self.tenants, self.checkpoints)?;
            if unsigned > 0 {
                write!(f, "; the last {unsigned} entries are not yet under a checkpoint")?;
            }
            if self.incomplete > 0 {
                write!(f, "; {} bytes of an unfinished frame at the end", self.incomplete)?;
            }
        }
        if self.skipped > 0 {
            let missing: Vec<String> = self.missing.iter().map(u32::to_string).collect();
            write!(
                f,
                "; NOT CHECKED: entries 0 to {} and the checkpoints over them, because segments are missing: {}",
                self.skipped - 1,
                missing.join(", ")
            )?;
        }
        if self.keys.len() > 1 {
            write!(f, "; signed by {} keys, one after the other", self.keys.len())?;
        }
        match self.anchored {
            Some(size) => write!(f, "; not rolled back before entry {size}, by what was kept elsewhere"),
            None => {
                f.write_str("; that it was not rolled back was not shown: no witness, checkpoint or receipt was given")
            }
        }
    }
}

struct Auditor<'a> {
    fs: &'a dyn Fs,
    dir: &'a Path,
    segments: &'a Segments,
    snapshots: Vec<u32>,
    outside: Vec<Checkpoint>,
    receipts: Vec<Receipt>,
    tiles: tiles::Builder,
    /// The tiles of this size must all be there.
    published: u64,
    bad_tile: Option<Finding>,
    entries: u64,
    checkpoints: u64,
    last: Option<Checkpoint>,
    leaf: Option<(u64, Hash)>,
    anchored: Option<u64>,
}

fn compare_tile(fs: &dyn Fs, dir: &Path, bad: &mut Option<Finding>, tile: &Tile<'_>, must_exist: bool) {
    let path = tiles::tile_path(dir, tile.level, tile.index, tile.width);
    let sound = if fs.exists(&path) {
        tiles::is_written(fs, &path, tile.bytes)
    } else {
        !must_exist || tiles::full_begins_with(fs, dir, tile)
    };
    if !sound && bad.is_none() {
        let span = (tiles::WIDTH as u64).saturating_pow(u32::try_from(tile.level.unwrap_or(0)).unwrap_or(0) + 1);
        let path = path.strip_prefix(dir).unwrap_or(&path).display().to_string();
        *bad = Some(Finding::Tile { path, index: tile.index.saturating_mul(span) });
    }
}

impl Watch for Auditor<'_> {
    fn entry(&mut self, index: u64, bytes: &[u8], leaf: Hash) -> Result<(), Error> {
        self.entries = index + 1;
        self.leaf = Some((index, leaf));
        let Self { fs, dir, tiles, bad_tile, published, .. } = self;
        let must_exist = index < *published;
        tiles.push(bytes, leaf, &mut |tile| {
            compare_tile(*fs, dir, bad_tile, &tile, must_exist);
            Ok(())
        })
    }

    fn checkpoint(&mut self, checkpoint: &Checkpoint) -> Result<(), Error> {
        self.checkpoints += 1;
        self.last = Some(*checkpoint);
        let Self { fs, dir, tiles, bad_tile, published, .. } = self;
        let must_exist = checkpoint.size == *published;
        tiles.partials(&mut |tile| {
            compare_tile(*fs, dir, bad_tile, &tile, must_exist);
            Ok(())
        })
    }

    fn tree(&mut self, edge: &Edge) -> Option<Finding> {
        let size = edge.size();
        while let Some(receipt) = self.receipts.last().filter(|receipt| receipt.index + 1 == size).copied() {
            self.receipts.pop();
            if self.leaf != Some((receipt.index, receipt.leaf_hash)) {
                return Some(Finding::Receipt { index: receipt.index });
            }
            self.anchored = Some(size);
        }
        self.outside(edge)
    }

    fn segment(&mut self, at: &Snapshot) -> Result<Option<Finding>, Error> {
        if !self.snapshots.contains(&at.number) {
            return Ok(None);
        }
        let why = match Snapshot::read(self.segments, at.number) {
            Ok(kept) if kept.body() == (Snapshot { tiles: self.tiles.clone(), ..at.clone() }).body() => {
                return Ok(None);
            }
            Ok(_) => "not what the log comes to there".to_owned(),
            Err(Error::Corrupt { at, .. }) => at,
            // A running log has written the next one meanwhile, and removed this.
            Err(_) if !Snapshot::is_there(self.segments, at.number) => return Ok(None),
            Err(Error::Unavailable { dependency, why }) => return Err(Error::Unavailable { dependency, why }),
            Err(_) => "damaged".to_owned(),
        };
        self.bad_tile.get_or_insert(Finding::State { number: at.number, why });
        Ok(None)
    }
}

impl Auditor<'_> {
    fn outside(&mut self, edge: &Edge) -> Option<Finding> {
        while let Some(checkpoint) = self.outside.last().filter(|outside| outside.size == edge.size()).copied() {
            self.outside.pop();
            if checkpoint.root != edge.root() {
                return Some(Finding::Outside { checkpoint, entries: edge.size() });
            }
            self.anchored = Some(checkpoint.size);
        }
        None
    }
}

/// The key that was given must be one of the log's; and what the log lists must be the keys, or the first of them.
fn key_finding(fs: &dyn Fs, dir: &Path, keys: &Chain, given: &LogVerifier) -> Result<Option<Finding>, Error> {
    let finding = |why| Ok(Some(Finding::File { file: VKEY, why }));
    if !keys.keys().iter().any(|key| key.verifier == *given) {
        return finding("the key that was given never signed this log");
    }
    let path = dir.join(VKEY);
    if fs.exists(&path) {
        let listed = fs.read(&path, 1 << 20).map_err(|_| UNREADABLE)?;
        if listed.is_empty() || !keys.file().as_bytes().starts_with(&listed) {
            return finding("it does not list the keys that signed the log");
        }
    }
    Ok(None)
}

/// Reads the whole log in `dir` and recomputes everything: frames, entries, tenants' chains, the tree, every
/// checkpoint's signature and root, tiles and bundles, archived segments included. It begins with the log's first key, by
/// what `log.pub` lists if `verifier` is in it, and follows each key to the one that it introduces; `verifier` must be one
/// of them. Memory: one frame, and one hash a tenant.
///
/// What is wrong is in the report, not an error.
///
/// # Errors
/// [`Error::Unavailable`] if a file cannot be read.
pub fn verify(fs: &dyn Fs, dir: &Path, verifier: &LogVerifier, options: &VerifyOptions) -> Result<Report, Error> {
    let published = replay::published(fs, dir, verifier)?.unwrap_or(None);
    let segments = Segments::of(fs, dir, options.archive.as_deref(), verifier.origin());
    let first = log_keys::first(fs, dir, verifier)?;
    let (mut from, mut missing) = (Snapshot::empty(first.clone()), Vec::new());
    if options.skip_missing {
        let newest = newest(&segments, &first)?;
        missing.extend((0..newest.number).filter(|number| !segments.is_sealed(*number)));
        if !missing.is_empty() {
            from = newest;
        }
    }
    let skipped = from.edge.size();
    let before = |size: u64| skipped > 0 && size <= skipped;
    if options.outside.iter().any(|kept| before(kept.size))
        || options.receipts.iter().any(|kept| before(kept.index + 1))
    {
        return Err(Error::FailedPrecondition(
            "a checkpoint or receipt is about entries whose segments are missing; bring them back, or leave it out",
        ));
    }
    let mut auditor = Auditor {
        fs,
        dir,
        segments: &segments,
        snapshots: Snapshot::numbers(&segments),
        outside: options.outside.clone(),
        receipts: options.receipts.clone(),
        tiles: from.tiles.clone(),
        published: published.map_or(0, |published| published.size),
        bad_tile: None,
        entries: skipped,
        checkpoints: 0,
        last: from.last,
        leaf: None,
        anchored: None,
    };
    // The next to compare is at the end.
    auditor.outside.sort_by_key(|checkpoint| std::cmp::Reverse(checkpoint.size));
    auditor.receipts.sort_by_key(|receipt| std::cmp::Reverse(receipt.index));
    let mut finding = if skipped == 0 { auditor.outside(&Edge::new()) } else { None };
    let (mut tenants, mut incomplete, mut keys) = (0, 0, Vec::new());
    if finding.is_none() {
        match replay(&segments, from, verifier, None, &mut auditor)? {
            Ok(state) => {
                tenants = state.at.tenants.len() as u64;
                incomplete = state.torn;
                keys = state.at.keys.keys().to_vec();
                finding = key_finding(fs, dir, &state.at.keys, verifier)?;
            }
            Err(found) => finding = Some(found),
        }
    }
    let entries = auditor.entries;
    let rolled_back = || auditor.outside.last().map(|kept| Finding::Outside { checkpoint: *kept, entries });
    let lost = || auditor.receipts.last().map(|kept| Finding::Receipt { index: kept.index });
    let finding = finding.or_else(rolled_back).or_else(lost).or_else(|| auditor.bad_tile.clone());
    Ok(Report {
        entries,
        skipped,
        missing,
        keys,
        checkpoints: auditor.checkpoints,
        tenants,
        last: auditor.last,
        incomplete,
        anchored: auditor.anchored,
        finding,
    })
}
