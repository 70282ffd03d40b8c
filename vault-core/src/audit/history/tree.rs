//! The tiles and entry bundles of one tree, each read once while it is in use.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::Path;

use crate::audit::merkle::{Hash, Subtrees, node_hash};
use crate::audit::tiles::{WIDTH, tile_path};
use crate::error::{Dependency, Error};
use crate::fs::Fs;

const HASH: usize = 32;
/// Longest bundle: 256 entries of 65,535 bytes.
const MAX_BUNDLE: u64 = 256 * (65_535 + 2);
/// How many tiles are kept: 8 KiB each. A proof needs one of each level, of which there are eight.
const TILES: usize = 64;

const UNREADABLE: Error = Error::unavailable(Dependency::Audit, "a tile of the log cannot be read");

/// The tree of so many entries, in a log's directory.
pub(super) struct Tree<'a> {
    fs: &'a dyn Fs,
    dir: &'a Path,
    size: u64,
    /// The size of the published tree, of which this is a beginning: its partial tiles are the ones that are there.
    published: u64,
    tiles: RefCell<HashMap<(usize, u64), Vec<u8>>>,
    bundle: Option<Bundle>,
}

struct Bundle {
    number: u64,
    bytes: Vec<u8>,
    /// Where each entry is in `bytes`.
    entries: Vec<(usize, usize)>,
}

/// Reads a full tile, or the partial one of this width where the full one is not there (yet).
fn read(
    fs: &dyn Fs,
    dir: &Path,
    (level, index): (Option<usize>, u64),
    width: usize,
    max: u64,
) -> Result<Vec<u8>, Error> {
    let full = tile_path(dir, level, index, WIDTH);
    let partial = (width < WIDTH).then(|| tile_path(dir, level, index, width));
    // The partial one goes when the full one comes: so the full one is looked for before, and after.
    let paths = [Some(&full), partial.as_ref(), Some(&full)];
    paths.into_iter().flatten().find_map(|path| fs.read(path, max).ok()).ok_or(UNREADABLE)
}

impl<'a> Tree<'a> {
    pub(super) fn new(fs: &'a dyn Fs, dir: &'a Path, (size, published): (u64, u64)) -> Self {
        Self { fs, dir, size, published, tiles: RefCell::default(), bundle: None }
    }

    /// How many hashes or entries there are in a tile of which `all` come before the tree's end.
    fn width(all: u64, index: u64) -> usize {
        usize::try_from(all.saturating_sub(index.saturating_mul(WIDTH as u64))).unwrap_or(WIDTH).min(WIDTH)
    }

    /// The bytes of an entry. Reading on in order reads each bundle once.
    pub(super) fn entry(&mut self, index: u64) -> Result<&[u8], Error> {
        if index >= self.size {
            return Err(Error::invalid("index", "must be below the tree's size"));
        }
        let number = index / WIDTH as u64;
        if self.bundle.as_ref().is_none_or(|bundle| bundle.number != number) {
            self.bundle = Some(self.load(number)?);
        }
        let place = usize::try_from(index % WIDTH as u64).unwrap_or(WIDTH);
        let found = self.bundle.as_ref().and_then(|bundle| {
            let (from, to) = bundle.entries.get(place)?;
            bundle.bytes.get(*from..*to)
        });
        found.ok_or_else(|| Error::corrupt("entry bundle", "it holds fewer entries than the tree's size demands"))
    }

    fn load(&self, number: u64) -> Result<Bundle, Error> {
        let bytes = read(self.fs, self.dir, (None, number), Self::width(self.published, number), MAX_BUNDLE)?;
        let mut entries = Vec::with_capacity(WIDTH);
        let mut at = 0;
        while let Some(len) = bytes.get(at..at + 2).and_then(|len| <[u8; 2]>::try_from(len).ok()) {
            let from = at + 2;
            at = from + usize::from(u16::from_be_bytes(len));
            entries.push((from, at));
        }
        if at == bytes.len() {
            Ok(Bundle { number, bytes, entries })
        } else {
            Err(Error::corrupt("entry bundle", "it ends within an entry"))
        }
    }

    fn hashes(&self, level: usize, index: u64, range: std::ops::Range<usize>) -> Result<Vec<Hash>, Error> {
        let mut tiles = self.tiles.borrow_mut();
        if !tiles.contains_key(&(level, index)) {
            if tiles.len() >= TILES {
                tiles.clear();
            }
            let all = u32::try_from(8 * level).ok().and_then(|bits| self.published.checked_shr(bits)).unwrap_or(0);
            let (width, max) = (Self::width(all, index), (WIDTH * HASH) as u64);
            tiles.insert((level, index), read(self.fs, self.dir, (Some(level), index), width, max)?);
        }
        let short = || Error::corrupt("tile", "shorter than the tree's size demands");
        let row = tiles.get(&(level, index)).and_then(|tile| tile.get(range.start * HASH..range.end * HASH));
        Ok(row.ok_or_else(short)?.chunks_exact(HASH).filter_map(|hash| hash.try_into().ok()).collect())
    }
}

impl Subtrees for Tree<'_> {
    fn subtree(&self, level: u32, index: u64) -> Result<Hash, Error> {
        let outside = || Error::invalid("index", "the subtree is not within the tree");
        let (tile_level, in_tile) = (level / 8, level % 8);
        let width = 1u64 << in_tile;
        let first = index.checked_mul(width).ok_or_else(outside)?;
        // How many hashes the tree has on this level of tiles.
        let all = self.size.checked_shr(8 * tile_level).unwrap_or(0);
        if first.checked_add(width).is_none_or(|end| end > all) {
            return Err(outside());
        }
        let from = usize::try_from(first % WIDTH as u64).map_err(|_| outside())?;
        let to = from + usize::try_from(width).map_err(|_| outside())?;
        let place = usize::try_from(tile_level).map_err(|_| outside())?;
        let mut row = self.hashes(place, first / WIDTH as u64, from..to)?;
        while row.len() > 1 {
            row = row.chunks_exact(2).filter_map(|pair| Some(node_hash(pair.first()?, pair.last()?))).collect();
        }
        row.first().copied().ok_or_else(outside)
    }
}
