//! Where each tenant's entries are: one file a tenant, eight bytes an entry, in the order of the tenant's chain.
//!
//! Derived, and never believed: whoever reads an entry through it checks that the entry is the tenant's and has that
//! sequence number. Memory does not grow with the log. A file is not synced when it is written; `position` says up to which
//! entry all of them are durable, and everything after it is read, and written, again.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::tree::Tree;
use crate::audit::checkpoint::Checkpoint;
use crate::audit::entry::Entry;
use crate::audit::merkle::{Hash, empty_root, range_root, sha256};
use crate::error::{Dependency, Error};
use crate::fs::{File, Fs, Open};
use crate::id::TenantId;

/// After so many entries what was written is made durable: 256 full bundles.
const SPAN: u64 = 65_536;
/// Bytes of one place.
const PLACE: u64 = 8;

const FAILED: Error = Error::unavailable(Dependency::Audit, "the index of tenants' entries cannot be written or read");

#[derive(Debug)]
pub(super) struct Index {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    /// Up to which entry it reaches; `None` before it was looked.
    reached: Option<u64>,
    /// Whose files were written since they were last made durable.
    unsynced: HashSet<TenantId>,
}

/// A tenant's part of it.
pub(super) struct Places {
    file: Option<Box<dyn File>>,
    count: u64,
}

impl Places {
    /// How many entries the tenant has.
    pub(super) const fn count(&self) -> u64 {
        self.count
    }

    /// Where the entry of a sequence number is, from 1.
    pub(super) fn at(&self, sequence: u64) -> Result<u64, Error> {
        match (&self.file, sequence.checked_sub(1)) {
            (Some(file), Some(place)) if place < self.count => read(&**file, place),
            _ => Err(FAILED),
        }
    }
}

fn read(file: &dyn File, place: u64) -> Result<u64, Error> {
    let mut bytes = [0; 8];
    file.read_exact_at(place * PLACE, &mut bytes).map_err(|_| FAILED)?;
    Ok(u64::from_be_bytes(bytes))
}

impl Index {
    pub(super) fn new(fs: Arc<dyn Fs>, dir: &Path) -> Self {
        Self { fs, dir: dir.to_owned(), reached: None, unsynced: HashSet::new() }
    }

    /// Identifiers of tenants are names of files: letters and digits, `.`, `_`, `-`, and no `.` in front.
    fn path(&self, tenant: &TenantId) -> PathBuf {
        let [first, ..] = sha256(&[tenant.as_str().as_bytes()]);
        self.dir.join(format!("{first:02x}")).join(tenant.as_str())
    }

    fn position(&self) -> PathBuf {
        self.dir.join("position")
    }

    /// Where it is durable, if that is a beginning of this tree.
    pub(super) fn durable(&self, tree: &Tree<'_>, size: u64) -> Option<u64> {
        let bytes = self.fs.read(&self.position(), 256).ok()?;
        let (at, root) = std::str::from_utf8(&bytes).ok()?.trim_end().split_once(' ')?;
        let at: u64 = at.parse().ok().filter(|at| *at > 0 && *at <= size)?;
        let root: Hash = STANDARD.decode(root).ok()?.try_into().ok()?;
        (range_root(tree, 0, at).ok()? == root).then_some(at)
    }

    /// Reads every entry up to the checkpoint that it has not reached.
    pub(super) fn follow(&mut self, tree: &mut Tree<'_>, to: &Checkpoint) -> Result<(), Error> {
        if self.reached.is_none() {
            self.fs.create_dir_all(&self.dir).map_err(|_| FAILED)?;
            self.reached = Some(self.durable(tree, to.size).unwrap_or(0));
        }
        match self.read_on(tree, to) {
            // Its files are not what they were: everything once more.
            Err(Error::Corrupt { .. }) => {
                self.reached = Some(0);
                self.unsynced.clear();
                self.read_on(tree, to)
            }
            done => done,
        }
    }

    fn read_on(&mut self, tree: &mut Tree<'_>, to: &Checkpoint) -> Result<(), Error> {
        while let Some(from) = self.reached.filter(|reached| *reached < to.size) {
            let end = (from / SPAN + 1).saturating_mul(SPAN).min(to.size);
            let mut found: HashMap<TenantId, (u64, Vec<u8>)> = HashMap::new();
            for index in from..end {
                let Some(link) = Entry::decode(tree.entry(index)?)?.link else { continue };
                let (_, places) = found.entry(link.tenant).or_insert((link.sequence, Vec::new()));
                places.extend_from_slice(&index.to_be_bytes());
            }
            for (tenant, (first, places)) in found {
                self.write(&tenant, first, &places)?;
                self.unsynced.insert(tenant);
            }
            self.reached = Some(end);
            if end.is_multiple_of(SPAN) {
                self.make_durable(tree, end)?;
            }
        }
        Ok(())
    }

    fn write(&self, tenant: &TenantId, first: u64, places: &[u8]) -> Result<(), Error> {
        let path = self.path(tenant);
        let there = self.fs.exists(&path);
        if !there {
            self.fs.create_dir_all(path.parent().ok_or(FAILED)?).map_err(|_| FAILED)?;
        }
        let file = self.fs.open(&path, if there { Open::ReadWrite } else { Open::CreateNew }).map_err(|_| FAILED)?;
        let at = first.saturating_sub(1).saturating_mul(PLACE);
        // No entry leaves a hole behind it, whatever it says.
        let len = file.len().map_err(|_| FAILED)?;
        if at > len {
            return Err(Error::corrupt("index of tenants' entries", "entries before one are not in it"));
        }
        file.write_all_at(at, places).map_err(|_| FAILED)?;
        // What stood behind it was of a log that was put back.
        let end = at + places.len() as u64;
        if len > end { file.set_len(end).map_err(|_| FAILED) } else { Ok(()) }
    }

    pub(super) fn make_durable(&mut self, tree: &Tree<'_>, at: u64) -> Result<(), Error> {
        let mut dirs = HashSet::new();
        for tenant in &self.unsynced {
            let path = self.path(tenant);
            self.fs.open(&path, Open::ReadWrite).and_then(|file| file.sync_data()).map_err(|_| FAILED)?;
            dirs.extend(path.parent().map(Path::to_owned));
        }
        for dir in dirs {
            self.fs.sync_dir(&dir).map_err(|_| FAILED)?;
        }
        self.fs.sync_dir(&self.dir).map_err(|_| FAILED)?;
        let root = if at == 0 { empty_root() } else { range_root(tree, 0, at)? };
        let text = format!("{at} {}\n", STANDARD.encode(root));
        self.fs.replace(&self.position(), text.as_bytes()).map_err(|_| FAILED)?;
        self.unsynced.clear();
        Ok(())
    }

    /// A tenant's places in the tree of so many entries, which it has reached.
    pub(super) fn places(&self, tenant: &TenantId, size: u64) -> Result<Places, Error> {
        let path = self.path(tenant);
        if !self.fs.exists(&path) {
            return Ok(Places { file: None, count: 0 });
        }
        let file = self.fs.open(&path, Open::Read).map_err(|_| FAILED)?;
        // Places ascend: how many are below the size.
        let (mut low, mut high) = (0, file.len().map_err(|_| FAILED)? / PLACE);
        while low < high {
            let middle = low + (high - low) / 2;
            if read(&*file, middle)? < size {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(Places { file: Some(file), count: low })
    }
}
