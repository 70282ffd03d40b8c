//! Tiles and entry bundles: C2SP tlog-tiles, derived from the durable file and rebuilt from it whenever they differ.

use std::path::{Path, PathBuf};

use super::merkle::{Edge, Hash, Subtrees, node_hash};
use crate::error::{Dependency, Error};
use crate::fs::{Fs, Open};

/// Hashes in a full tile; entries in a full bundle.
pub(super) const WIDTH: usize = 256;
const HASH: usize = 32;

/// `<dir>/tile/<level or "entries">/<index in groups of three digits>[.p/<width>]`.
pub(super) fn tile_path(dir: &Path, level: Option<usize>, index: u64, width: usize) -> PathBuf {
    let mut groups = vec![format!("{:03}", index % 1000)];
    let mut rest = index / 1000;
    while rest > 0 {
        groups.push(format!("x{:03}", rest % 1000));
        rest /= 1000;
    }
    let mut path = dir.join("tile");
    path.push(level.map_or_else(|| "entries".to_owned(), |level| level.to_string()));
    path.extend(groups.iter().rev());
    if width < WIDTH {
        path.as_mut_os_string().push(".p");
        path.push(width.to_string());
    }
    path
}

/// One file to write or to compare.
#[derive(Debug)]
pub(super) struct Tile<'a> {
    /// `None` for entry bundles.
    pub(super) level: Option<usize>,
    pub(super) index: u64,
    pub(super) width: usize,
    pub(super) bytes: &'a [u8],
}

/// The partial tiles at the right edge, from which full ones fall out. Memory: one bundle and 256 hashes a level.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Builder {
    size: u64,
    bundle: Vec<u8>,
    levels: Vec<Vec<u8>>,
}

type Sink<'s> = &'s mut dyn FnMut(Tile<'_>) -> Result<(), Error>;

impl Builder {
    /// The bundle and the hashes of each level, none of them full.
    pub(super) fn parts(&self) -> (&[u8], &[Vec<u8>]) {
        (&self.bundle, &self.levels)
    }

    pub(super) const fn from_parts(size: u64, bundle: Vec<u8>, levels: Vec<Vec<u8>>) -> Self {
        Self { size, bundle, levels }
    }

    pub(super) const fn size(&self) -> u64 {
        self.size
    }

    /// Appends one entry; full tiles and bundles go to `sink`.
    pub(super) fn push(&mut self, entry: &[u8], leaf: Hash, sink: Sink<'_>) -> Result<(), Error> {
        let len = u16::try_from(entry.len()).map_err(|_| Error::invalid("entry", "is longer than 65,535 bytes"))?;
        self.bundle.extend_from_slice(&len.to_be_bytes());
        self.bundle.extend_from_slice(entry);
        self.size += 1;
        if self.size.is_multiple_of(WIDTH as u64) {
            let index = self.size / WIDTH as u64 - 1;
            sink(Tile { level: None, index, width: WIDTH, bytes: &self.bundle })?;
            self.bundle.clear();
        }
        let mut node = leaf;
        let mut count = self.size;
        for level in 0.. {
            if self.levels.len() <= level {
                self.levels.push(Vec::with_capacity(WIDTH * HASH));
            }
            let Some(tile) = self.levels.get_mut(level) else { break };
            tile.extend_from_slice(&node);
            if tile.len() < WIDTH * HASH {
                break;
            }
            count /= WIDTH as u64;
            sink(Tile { level: Some(level), index: count - 1, width: WIDTH, bytes: tile })?;
            let mut edge = Edge::new();
            tile.chunks_exact(HASH).filter_map(|hash| hash.try_into().ok()).for_each(|hash| edge.push(hash));
            node = edge.root();
            tile.clear();
        }
        Ok(())
    }

    /// Gives the partial tiles and bundles of all smaller sizes, those of the tiles that are not full now, to `sink`.
    pub(super) fn smaller(&self, sink: Sink<'_>) -> Result<(), Error> {
        let mut end = 0;
        for width in 1.. {
            let len = self.bundle.get(end..end + 2).and_then(|len| <[u8; 2]>::try_from(len).ok());
            let Some(len) = len else { break };
            end += 2 + usize::from(u16::from_be_bytes(len));
            let bytes = self.bundle.get(..end).unwrap_or_default();
            sink(Tile { level: None, index: self.size / WIDTH as u64, width, bytes })?;
        }
        let mut count = self.size;
        for (level, tile) in self.levels.iter().enumerate() {
            count /= WIDTH as u64;
            for width in 1..=tile.len() / HASH {
                let bytes = tile.get(..width * HASH).unwrap_or_default();
                sink(Tile { level: Some(level), index: count, width, bytes })?;
            }
        }
        Ok(())
    }

    /// Gives the partial tiles and bundle of the present size to `sink`.
    pub(super) fn partials(&self, sink: Sink<'_>) -> Result<(), Error> {
        let width = usize::try_from(self.size % WIDTH as u64).unwrap_or_default();
        if width > 0 {
            sink(Tile { level: None, index: self.size / WIDTH as u64, width, bytes: &self.bundle })?;
        }
        let mut count = self.size;
        for (level, tile) in self.levels.iter().enumerate() {
            let index = count / WIDTH as u64;
            count = index;
            if !tile.is_empty() {
                sink(Tile { level: Some(level), index, width: tile.len() / HASH, bytes: tile })?;
            }
        }
        Ok(())
    }
}

const FAILED: Error = Error::unavailable(Dependency::Audit, "a tile cannot be written");

/// True if the file is there and holds these bytes.
pub(super) fn is_written(fs: &dyn Fs, path: &Path, bytes: &[u8]) -> bool {
    fs.exists(path) && fs.read(path, bytes.len() as u64).is_ok_and(|found| found == bytes)
}

/// True if the full tile is there and begins with this partial one. The partial ones go as soon as the full one is there,
/// which is before the next checkpoint is published (tlog-tiles, "Partial Tiles").
pub(super) fn full_begins_with(fs: &dyn Fs, dir: &Path, partial: &Tile<'_>) -> bool {
    let mut found = vec![0; partial.bytes.len()];
    let full = tile_path(dir, partial.level, partial.index, WIDTH);
    let read = fs.open(&full, Open::Read).and_then(|file| file.read_exact_at(0, &mut found));
    read.is_ok() && found == partial.bytes
}

/// Writes a tile unless it is there; a reader never sees half of it. Not synced: after a crash it is written again.
pub(super) fn write(fs: &dyn Fs, dir: &Path, tile: &Tile<'_>) -> Result<(), Error> {
    let path = tile_path(dir, tile.level, tile.index, tile.width);
    if !is_written(fs, &path, tile.bytes) {
        write_aside(fs, &path, tile.bytes)?;
    }
    if tile.width == WIDTH { remove_partials(fs, &path) } else { Ok(()) }
}

/// Makes a tile durable that is written; writes it if it is not.
pub(super) fn sync(fs: &dyn Fs, dir: &Path, tile: &Tile<'_>) -> Result<(), Error> {
    write(fs, dir, tile)?;
    let path = tile_path(dir, tile.level, tile.index, tile.width);
    let file = fs.open(&path, Open::ReadWrite).map_err(|_| FAILED)?;
    file.sync_data().map_err(|_| FAILED)
}

fn write_aside(fs: &dyn Fs, path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let parent = path.parent().ok_or(FAILED)?;
    if !fs.exists(parent) {
        fs.create_dir_all(parent).map_err(|_| FAILED)?;
    }
    let aside = path.with_extension("new");
    if fs.exists(&aside) {
        fs.remove(&aside).map_err(|_| FAILED)?;
    }
    let file = fs.open(&aside, Open::CreateNew).map_err(|_| FAILED)?;
    file.write_all_at(0, bytes).map_err(|_| FAILED)?;
    fs.rename(&aside, path).map_err(|_| FAILED)
}

/// Writes a tile again if it is there and differs: a partial one of an older checkpoint that a crash left in part.
pub(super) fn mend(fs: &dyn Fs, dir: &Path, tile: &Tile<'_>) -> Result<(), Error> {
    let is_there = fs.exists(&tile_path(dir, tile.level, tile.index, tile.width));
    if is_there { write(fs, dir, tile) } else { Ok(()) }
}

/// Where the full tile is, the partial ones before it are not needed any more (tlog-tiles, "Partial Tiles").
fn remove_partials(fs: &dyn Fs, full: &Path) -> Result<(), Error> {
    let mut partials = full.as_os_str().to_owned();
    partials.push(".p");
    let partials = PathBuf::from(partials);
    if fs.exists(&partials) {
        for path in fs.list(&partials).map_err(|_| FAILED)? {
            fs.remove(&path).map_err(|_| FAILED)?;
        }
    }
    Ok(())
}

/// Reads hashes for proofs from the tiles of a tree of `size` entries.
#[derive(Debug)]
pub struct TileReader<'a> {
    fs: &'a dyn Fs,
    dir: &'a Path,
    size: u64,
}

impl<'a> TileReader<'a> {
    /// For the log in `dir`, whose published checkpoint has this size.
    pub const fn new(fs: &'a dyn Fs, dir: &'a Path, size: u64) -> Self {
        Self { fs, dir, size }
    }
}

impl Subtrees for TileReader<'_> {
    fn subtree(&self, level: u32, index: u64) -> Result<Hash, Error> {
        let outside = || Error::invalid("index", "the subtree is not within the tree");
        let tile_level = level / 8;
        let in_tile = level % 8;
        let width = 1u64 << in_tile;
        let first = index.checked_mul(width).ok_or_else(outside)?;
        let tile_index = first / WIDTH as u64;
        // How many hashes the tree has on this level of tiles.
        let have = self.size.checked_shr(8 * tile_level).unwrap_or(0);
        if first.checked_add(width).is_none_or(|end| end > have) {
            return Err(outside());
        }
        let in_this = usize::try_from(have - tile_index * WIDTH as u64).unwrap_or(WIDTH).min(WIDTH);
        let place = usize::try_from(tile_level).unwrap_or_default();
        let full = tile_path(self.dir, Some(place), tile_index, WIDTH);
        let path = if in_this < WIDTH && !self.fs.exists(&full) {
            tile_path(self.dir, Some(place), tile_index, in_this)
        } else {
            full
        };
        let bytes = self
            .fs
            .read(&path, (WIDTH * HASH) as u64)
            .map_err(|_| Error::unavailable(Dependency::Audit, "a tile cannot be read"))?;
        let from = usize::try_from(first % WIDTH as u64).unwrap_or_default() * HASH;
        let to = from + usize::try_from(width).unwrap_or_default() * HASH;
        let mut row: Vec<Hash> = bytes
            .get(from..to)
            .ok_or_else(|| Error::corrupt("tile", "shorter than the tree's size demands"))?
            .chunks_exact(HASH)
            .filter_map(|hash| hash.try_into().ok())
            .collect();
        while row.len() > 1 {
            row = row.chunks_exact(2).filter_map(|pair| Some(node_hash(pair.first()?, pair.last()?))).collect();
        }
        row.first().copied().ok_or_else(outside)
    }
}

#[cfg(test)]
#[path = "tiles_tests.rs"]
mod tests;
