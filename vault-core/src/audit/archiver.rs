//! The archiver thread: takes sealed segments, oldest first, writes what the log comes to at their end, compresses them into
//! the archive and removes them. Nobody's answer waits for it, and the log goes on without it while its disk has room.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::archive;
use super::checkpoint::Checkpoint;
use super::merkle::{Edge, Hash};
use super::replay::{Finding, Watch, newest, replay};
use super::segments::{ARCHIVE, Found, Segments};
use super::signer::{LogSigner, LogVerifier};
use super::snapshot::Snapshot;
use super::tiles::{self, Tile};
use crate::error::{Dependency, Error};
use crate::fs::Fs;

/// Entries between two looks at the time and at whether to go on.
const STRIDE: u64 = 1024;

/// How the segments of a log are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentStatus {
    /// The number of the open segment.
    pub open: u32,
    /// Sealed segments with a smaller number are archived.
    pub archived: u32,
    /// Why the next one is not, or why the open one is not sealed: tried again by itself. The log takes entries all the
    /// same.
    pub behind: Option<&'static str>,
}

struct State {
    status: SegmentStatus,
    /// How many entries are under a published checkpoint, and cosigned if that is waited for.
    published: u64,
    cosigned: Option<u64>,
    stop: bool,
}

/// What the archiver hears of the other threads, and they of it.
pub(super) struct Archiving {
    state: Mutex<State>,
    changed: Condvar,
}

impl Archiving {
    /// With `cosigned` a segment is archived only when witnesses have cosigned it.
    pub(super) fn new(open: u32, archived: u32, cosigned: bool) -> Self {
        let status = SegmentStatus { open, archived, behind: None };
        let state = State { status, published: 0, cosigned: cosigned.then_some(0), stop: false };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    pub(super) fn status(&self) -> SegmentStatus {
        self.lock().status
    }

    pub(super) fn behind(&self, why: &'static str) {
        self.change(|state| state.status.behind = Some(why));
    }

    pub(super) fn sealed(&self, open: u32) {
        self.change(|state| state.status.open = open);
    }

    pub(super) fn published(&self, size: u64) {
        self.change(|state| state.published = size);
    }

    pub(super) fn cosigned(&self, size: u64) {
        self.change(|state| {
            if let Some(cosigned) = &mut state.cosigned {
                *cosigned = size;
            }
        });
    }

    pub(super) fn stop(&self) {
        self.change(|state| state.stop = true);
    }

    fn go_on(&self) -> bool {
        !self.lock().stop
    }
}

pub(super) struct Archiver {
    pub(super) archiving: Arc<Archiving>,
    pub(super) segments: Segments,
    pub(super) signer: Arc<LogSigner>,
    /// The first key of the log.
    pub(super) first: LogVerifier,
    /// How long it waits after a failure.
    pub(super) retry: Duration,
}

impl Archiver {
    /// Until it is stopped.
    pub(super) fn run(self) {
        let mut failed_at: Option<Instant> = None;
        loop {
            let number = self.archiving.status().archived;
            let Some(()) = self.wait(number, failed_at) else { return };
            let done = self.archive(number);
            self.archiving.change(|state| match &done {
                Ok(()) => {
                    state.status.archived = number + 1;
                    state.status.behind = None;
                }
                Err(why) => state.status.behind = Some(why),
            });
            failed_at = done.err().map(|_| Instant::now());
        }
    }

    /// Waits until that segment is sealed, and everything in it published and cosigned. `None` to end.
    fn wait(&self, number: u32, failed_at: Option<Instant>) -> Option<()> {
        let mut end = None;
        let mut state = self.archiving.lock();
        loop {
            if state.stop {
                return None;
            }
            let left = failed_at.map_or(Duration::ZERO, |at| self.retry.saturating_sub(at.elapsed()));
            if state.status.open > number && left.is_zero() {
                if end.is_none() {
                    drop(state);
                    end = self.end_of(number);
                    state = self.archiving.lock();
                }
                let reached = |size: u64| end.is_none_or(|end| size >= end);
                if reached(state.published) && state.cosigned.is_none_or(reached) {
                    return Some(());
                }
            }
            state = if left.is_zero() {
                self.archiving.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
            } else {
                self.archiving.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
            };
        }
    }

    /// How many entries the log has at the end of a segment; `None` if the next one does not say.
    fn end_of(&self, number: u32) -> Option<u64> {
        let Ok(Found::File(file, _)) = self.segments.find(number + 1) else { return None };
        let start = super::frame::Start::read(&*file, &self.segments.origin).ok()??;
        Some(start.first)
    }

    fn archive(&self, number: u32) -> Result<(), &'static str> {
        let Segments { fs, dir, archive, .. } = &self.segments;
        self.snapshot(number)?;
        let (plain, archived) = (self.segments.sealed(number), self.segments.archived(number));
        if !fs.exists(&plain) {
            return Ok(());
        }
        // Its own directory is made. Another one that is not there may be one that is not mounted.
        if !fs.exists(archive) {
            if *archive != dir.join(ARCHIVE) {
                return Err("the archive's directory is missing");
            }
            fs.create_dir_durable(archive).map_err(|_| "the archive's directory cannot be made")?;
        }
        let go_on = || self.archiving.go_on();
        let done = |result: io::Result<bool>| result.map_err(|error| reason(&error));
        // Both are there after a crash between the archive and the removal.
        if !(fs.exists(&archived) && done(archive::holds(&**fs, &plain, &archived, &go_on))?) {
            done(archive::write(&**fs, &plain, &archived, &go_on).map(|()| true))?;
        }
        let removed = fs.remove(&plain).and_then(|()| fs.sync_dir(dir));
        removed.map_err(|_| "a segment that is archived cannot be removed")
    }

    /// Writes what the log comes to at the end of a segment, unless that is there. The full tiles up to it are durable
    /// before, because nobody rebuilds them afterwards.
    fn snapshot(&self, number: u32) -> Result<(), &'static str> {
        const FAILED: &str = "the state of the log behind a segment cannot be read or written";
        let from = newest(&self.segments, &self.first).map_err(|_| FAILED)?;
        if from.number > number {
            return Ok(());
        }
        let tiles = from.tiles.clone();
        let (segments, archiving) = (&self.segments, &*self.archiving);
        let mut keeper = Keeper { segments, archiving, tiles, dirs: BTreeSet::new(), rested: Instant::now() };
        let verifier = self.signer.verifier();
        match replay(&self.segments, from, verifier, Some(number), &mut keeper) {
            Ok(Ok(state)) if state.at.number == number + 1 => {
                let at = Snapshot { tiles: keeper.tiles, ..state.at };
                at.write(&self.segments, &self.signer).map_err(|_| FAILED)
            }
            Ok(Err(Finding::Segment { .. })) => Err("a segment before the one to archive is missing or damaged"),
            Ok(_) => Err("the segment to archive is damaged"),
            Err(Error::Unavailable { why, .. }) => Err(why),
            Err(_) => Err(FAILED),
        }
    }
}

fn reason(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull => "the archive's disk is full",
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => "the archive cannot be written to",
        io::ErrorKind::NotFound => "the archive's directory is missing",
        io::ErrorKind::InvalidData => "what was archived does not read as the segment",
        io::ErrorKind::Interrupted => "archiving was interrupted",
        _ => "the archive cannot be read or written",
    }
}

/// Rebuilds the tiles of the segment, makes the full ones durable, and takes its time.
struct Keeper<'a> {
    segments: &'a Segments,
    archiving: &'a Archiving,
    tiles: tiles::Builder,
    /// The directories of the tiles that were made durable.
    dirs: BTreeSet<PathBuf>,
    rested: Instant,
}

impl Watch for Keeper<'_> {
    fn entry(&mut self, index: u64, bytes: &[u8], leaf: Hash) -> Result<(), Error> {
        let (fs, dir): (&dyn Fs, _) = (&*self.segments.fs, &self.segments.dir);
        let dirs = &mut self.dirs;
        self.tiles.push(bytes, leaf, &mut |tile: Tile<'_>| {
            let path = tiles::tile_path(dir, tile.level, tile.index, tile.width);
            // Where the partial ones were, which are removed with it.
            let mut partials = path.clone();
            partials.as_mut_os_string().push(".p");
            dirs.extend(Some(partials).filter(|partials| fs.exists(partials)));
            dirs.extend(path.ancestors().skip(1).take_while(|above| above.starts_with(dir)).map(Path::to_owned));
            tiles::sync(fs, dir, &tile)
        })?;
        if index.is_multiple_of(STRIDE) {
            if !self.archiving.go_on() {
                return Err(Error::unavailable(Dependency::Audit, "archiving was interrupted"));
            }
            std::thread::sleep(self.rested.elapsed().min(Duration::from_millis(50)));
            self.rested = Instant::now();
        }
        Ok(())
    }

    fn checkpoint(&mut self, _: &Checkpoint) -> Result<(), Error> {
        Ok(())
    }

    fn tree(&mut self, _: &Edge) -> Option<Finding> {
        None
    }

    /// The names of the tiles, too, are durable before the snapshot is.
    fn segment(&mut self, _: &Snapshot) -> Result<Option<Finding>, Error> {
        for dir in std::mem::take(&mut self.dirs) {
            self.segments
                .fs
                .sync_dir(&dir)
                .map_err(|_| Error::unavailable(Dependency::Audit, "a tile cannot be synced"))?;
        }
        Ok(None)
    }
}
