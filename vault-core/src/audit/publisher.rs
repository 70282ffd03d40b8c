//! The publisher thread: signs and keeps checkpoints, and derives the tiles. Nobody's answer waits for it.

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::archiver::Archiving;
use super::checkpoint::Checkpoint;
use super::frame::UNREADABLE;
use super::queue::Shared;
use super::replay::PUBLISHED;
use super::segments::{Frames, Next};
use super::signer::LogSigner;
use super::tiles;
use crate::error::Error;
use crate::fs::{File, Fs};

/// How long the tiles are worked on before it is looked again whether a checkpoint is due.
const SLICE: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// Sign, write the tiles, end.
    Cleanly,
    /// End where you are.
    AtOnce,
}

struct State {
    latest: Checkpoint,
    stop: Option<Stop>,
    /// No checkpoint is signed until it is stopped.
    paused: bool,
    /// Who signs the last checkpoint, too.
    next: Option<Arc<LogSigner>>,
}

/// How far the durable log reaches, told from the writer to the publisher.
pub(super) struct Heads {
    state: Mutex<State>,
    changed: Condvar,
}

impl Heads {
    pub(super) const fn new(latest: Checkpoint) -> Self {
        Self { state: Mutex::new(State { latest, stop: None, paused: false, next: None }), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn grow(&self, latest: Checkpoint) {
        self.lock().latest = latest;
        self.changed.notify_one();
    }

    pub(super) fn latest(&self) -> Checkpoint {
        self.lock().latest
    }

    /// From here on only the last checkpoint is signed, when it is stopped.
    pub(super) fn pause(&self) {
        self.lock().paused = true;
    }

    fn is_paused(&self) -> bool {
        self.lock().paused
    }

    /// The last checkpoint is signed by this key, too.
    pub(super) fn hand_over(&self, next: Arc<LogSigner>) {
        self.lock().next = Some(next);
    }

    fn next(&self) -> Option<Arc<LogSigner>> {
        self.lock().next.clone()
    }

    pub(super) fn stop(&self, how: Stop) {
        self.lock().stop = Some(how);
        self.changed.notify_one();
    }
}

pub(super) struct Publisher {
    pub(super) shared: Arc<Shared>,
    pub(super) heads: Arc<Heads>,
    pub(super) archiving: Arc<Archiving>,
    pub(super) fs: Arc<dyn Fs>,
    pub(super) dir: PathBuf,
    pub(super) signer: Arc<LogSigner>,
    pub(super) every: Duration,
    /// The file `checkpoints`, and where its next note goes.
    pub(super) file: Box<dyn File>,
    pub(super) end: u64,
    pub(super) signed: Checkpoint,
    /// The note of `signed`.
    pub(super) note: String,
    pub(super) frames: Frames,
    pub(super) tiles: tiles::Builder,
    pub(super) published: bool,
    /// How many entries there were at opening: up to there, tiles may be what a crash left.
    pub(super) found: u64,
    /// The builder begins with a state: of the tiles up to it, partial ones of older checkpoints may be what a crash left.
    pub(super) resumed: bool,
}

struct Sentinel<'a>(&'a Shared, bool);

impl Drop for Sentinel<'_> {
    fn drop(&mut self) {
        if !self.1 {
            self.0.fail("the log's publisher ended unexpectedly");
        }
    }
}

impl Publisher {
    pub(super) fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let mut sentinel = Sentinel(&shared, false);
        self.work();
        sentinel.1 = true;
    }

    fn work(&mut self) {
        let mut signed_at = Instant::now();
        let mut tiles_work = true;
        loop {
            let (latest, stop) = self.wait(signed_at, tiles_work);
            if stop == Some(Stop::AtOnce) || self.shared.has_failed() {
                return;
            }
            let due = (signed_at.elapsed() >= self.every && !self.heads.is_paused()) || stop.is_some();
            if latest.size > self.signed.size && due {
                // Entries must not go on being acknowledged without checkpoints over them.
                if self.keep(latest).is_err() {
                    self.shared.fail("a checkpoint of the log cannot be signed, written or synced");
                    return;
                }
                signed_at = Instant::now();
            }
            if tiles_work && let Err(error) = self.derive() {
                self.shared.tiles_behind(match error {
                    Error::Unavailable { why, .. } => why,
                    _ => "the tiles cannot be derived",
                });
                self.archiving.behind("the tiles could not be written, and are behind");
                tiles_work = false;
            }
            if stop.is_some() && (self.published || !tiles_work) {
                return;
            }
        }
    }

    /// Waits until there is something to do.
    fn wait(&self, signed_at: Instant, tiles_work: bool) -> (Checkpoint, Option<Stop>) {
        let mut state = self.heads.lock();
        while state.stop.is_none() && (self.published || !tiles_work) {
            if state.latest.size == self.signed.size || state.paused {
                state = self.heads.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            } else {
                let left = self.every.saturating_sub(signed_at.elapsed());
                if left.is_zero() {
                    break;
                }
                state = self.heads.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
            }
        }
        (state.latest, state.stop)
    }

    /// Signs a checkpoint and makes it durable.
    pub(super) fn keep(&mut self, checkpoint: Checkpoint) -> Result<(), Error> {
        let note = match self.heads.next() {
            Some(next) => checkpoint.sign_twice(&self.signer, &next)?,
            None => checkpoint.sign(&self.signer)?,
        };
        let record = format!("{note}\n");
        self.file.write_all_at(self.end, record.as_bytes()).map_err(|_| UNREADABLE)?;
        self.file.sync_data().map_err(|_| UNREADABLE)?;
        if self.file.links().map_err(|_| UNREADABLE)? == 0 {
            return Err(UNREADABLE);
        }
        self.end += record.len() as u64;
        self.signed = checkpoint;
        self.note = note;
        self.published = false;
        Ok(())
    }

    /// Brings the tiles up to the last checkpoint, for a while; when they are there, publishes it.
    fn derive(&mut self) -> Result<(), Error> {
        let begun = Instant::now();
        let Self { fs, dir, frames, tiles: builder, signed, found, resumed, .. } = self;
        let mut write = |tile: tiles::Tile<'_>| tiles::write(&**fs, dir, &tile);
        if *resumed {
            builder.smaller(&mut |tile| tiles::mend(&**fs, dir, &tile))?;
            *resumed = false;
        }
        frames.refresh()?;
        while builder.size() < signed.size {
            match frames.step()? {
                Next::Frame => {}
                Next::Bad(finding) => return Err(finding.into()),
                Next::End | Next::Torn { .. } => return Err(UNREADABLE),
            }
            for (entry, leaf) in frames.entries() {
                builder.push(entry, leaf, &mut write)?;
                // Partial tiles of older checkpoints stand in the last tile of each level only.
                let (size, width) = (builder.size(), tiles::WIDTH as u64);
                if size <= *found && (size.is_multiple_of(width) || size > *found / width * width) {
                    builder.partials(&mut |tile| tiles::mend(&**fs, dir, &tile))?;
                }
            }
            if begun.elapsed() > SLICE && builder.size() < signed.size {
                return Ok(());
            }
        }
        if !self.published {
            builder.partials(&mut write)?;
            self.fs.replace(&self.dir.join(PUBLISHED), self.note.as_bytes()).map_err(|_| UNREADABLE)?;
            self.published = true;
            self.archiving.published(self.signed.size);
        }
        Ok(())
    }
}
