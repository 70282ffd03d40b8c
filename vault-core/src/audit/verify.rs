//! Verification of a log from its files alone: no secret, no running gateway, nothing changed.

use std::fmt;
use std::path::Path;

use super::checkpoint::Checkpoint;
use super::merkle::{Edge, Hash};
use super::queue::Receipt;
use super::receipt::AuditReceipt;
use super::replay::{self, Finding, Watch, replay};
use super::signer::LogVerifier;
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
    /// How many entries hold, counted from the first. Without a finding: all.
    pub entries: u64,
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

/// Reads the whole log in `dir` and recomputes everything: frames, entries, tenants' chains, the tree, every
/// checkpoint's signature and root, tiles and bundles. Memory: one frame, and one hash a tenant.
///
/// What is wrong is in the report, not an error.
///
/// # Errors
/// [`Error::Unavailable`] if a file cannot be read.
pub fn verify(fs: &dyn Fs, dir: &Path, verifier: &LogVerifier, options: &VerifyOptions) -> Result<Report, Error> {
    let published = replay::published(fs, dir, verifier)?.unwrap_or(None);
    let mut auditor = Auditor {
        fs,
        dir,
        outside: options.outside.clone(),
        receipts: options.receipts.clone(),
        tiles: tiles::Builder::default(),
        published: published.map_or(0, |published| published.size),
        bad_tile: None,
        entries: 0,
        checkpoints: 0,
        last: None,
        leaf: None,
        anchored: None,
    };
    // The next to compare is at the end.
    auditor.outside.sort_by_key(|checkpoint| std::cmp::Reverse(checkpoint.size));
    auditor.receipts.sort_by_key(|receipt| std::cmp::Reverse(receipt.index));
    let mut finding = auditor.outside(&Edge::new());
    let (mut tenants, mut incomplete) = (0, 0);
    if finding.is_none() {
        match replay(fs, dir, verifier, &mut auditor)? {
            Ok(state) => {
                tenants = state.tenants.len() as u64;
                incomplete = state.torn;
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
        checkpoints: auditor.checkpoints,
        tenants,
        last: auditor.last,
        incomplete,
        anchored: auditor.anchored,
        finding,
    })
}
