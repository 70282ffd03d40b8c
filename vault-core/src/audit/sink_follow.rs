//! A sink's thread: reads the log's own file behind the writer, delivers, confirms, and tries again.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::queue::Shared;
use super::read::EntryReader;
use super::signer::LogVerifier;
use super::sink::{Delivered, Sink};
use super::sink_hub::{Hub, Work};
use super::sink_position::Position;
use crate::error::Error;
use crate::fs::Fs;

/// The pause after a failure, and the longest: it doubles.
const AGAIN: Duration = Duration::from_millis(50);
const AT_MOST: Duration = Duration::from_secs(2);
/// How often the position is kept.
const KEEP: Duration = Duration::from_secs(1);
/// How often a sink that has nothing to do is looked at.
const IDLE: Duration = Duration::from_secs(1);
/// Entries read at once.
const AHEAD: usize = 4096;

const UNREADABLE: &str = "the log's file cannot be read";
const OTHER_LOG: &str = "the log is not the one that the sink was given entries of";

pub(super) struct Follower {
    pub(super) shared: Arc<Shared>,
    pub(super) hub: Arc<Hub>,
    pub(super) at: usize,
    pub(super) name: String,
    pub(super) sink: Box<dyn Sink>,
    pub(super) fs: Arc<dyn Fs>,
    pub(super) dir: PathBuf,
    pub(super) verifier: LogVerifier,
    pub(super) position: Position,
}

/// What was read and is not confirmed yet.
struct Batch {
    reader: Option<EntryReader>,
    /// The index that the reader comes to next.
    next: u64,
    entries: Vec<Delivered>,
    done: usize,
    begun: Instant,
    /// How many entries there were when it was read.
    seen: u64,
}

/// Tells if the thread ends otherwise than by [`Follower::run`] returning.
struct Sentinel(Arc<Shared>, Arc<Hub>, usize, bool);

impl Drop for Sentinel {
    fn drop(&mut self) {
        let Self(shared, hub, at, ended) = self;
        if !*ended {
            hub.failed(shared, *at, "the sink's thread ended unexpectedly");
        }
        hub.has_ended(*at);
    }
}

impl Follower {
    pub(super) fn run(mut self) {
        let mut sentinel = Sentinel(Arc::clone(&self.shared), Arc::clone(&self.hub), self.at, false);
        let mut batch = Batch { reader: None, next: 0, entries: Vec::new(), done: 0, begun: Instant::now(), seen: 0 };
        let (mut kept, mut kept_at) = (self.position, Instant::now());
        let (mut pause, mut not_before) = (AGAIN, None);
        let mut checked = false;
        loop {
            // One that has not said so yet is asked at once whether it would take entries.
            let idle = if checked { IDLE } else { Duration::ZERO };
            let work = self.hub.work(self.position.next, not_before, idle);
            let result = match work {
                Work::Stop => break,
                Work::Idle => self.sink.check().map(|()| self.hub.is_there(&self.shared, self.at)),
                Work::Entries(head) => {
                    let taken = if checked { Ok(()) } else { self.sink.check() };
                    taken.and_then(|()| self.step(&mut batch, head))
                }
            };
            match result {
                Ok(()) => (checked, pause, not_before) = (true, AGAIN, None),
                Err(why) => {
                    self.hub.failed(&self.shared, self.at, why);
                    not_before = Instant::now().checked_add(pause);
                    (checked, pause) = (false, pause.saturating_mul(2).min(AT_MOST));
                }
            }
            if self.position != kept && kept_at.elapsed() >= KEEP {
                kept_at = Instant::now();
                match self.position.save(&*self.fs, &self.dir, &self.name) {
                    Ok(()) => kept = self.position,
                    Err(why) => self.hub.note(self.at, why),
                }
            }
        }
        if self.position != kept
            && let Err(why) = self.position.save(&*self.fs, &self.dir, &self.name)
        {
            self.hub.note(self.at, why);
        }
        sentinel.3 = true;
    }

    /// Delivers what was read, or reads on.
    fn step(&mut self, batch: &mut Batch, head: u64) -> Result<(), &'static str> {
        if batch.done == batch.entries.len() {
            self.read(batch, head)?;
        }
        let rest = batch.entries.get(batch.done..).unwrap_or_default();
        let next = rest.get(..self.sink.most().min(rest.len())).unwrap_or_default();
        self.sink.deliver(next)?;
        let last = next.last().ok_or(UNREADABLE)?;
        self.position = Position { next: last.entry.index.saturating_add(1), last: last.leaf_hash };
        batch.done += next.len();
        self.hub.confirmed(&self.shared, self.at, self.position.next, (batch.begun, batch.seen));
        Ok(())
    }

    /// Reads on, but never behind `head`: what is in the file there may not be durable yet.
    fn read(&self, batch: &mut Batch, head: u64) -> Result<(), &'static str> {
        batch.entries.clear();
        (batch.done, batch.begun, batch.seen) = (0, Instant::now(), head);
        let read = self.read_until(batch, head);
        if read.is_err() {
            batch.reader = None;
        }
        let whole = read.map_err(|error| match error {
            Error::Corrupt { what, .. } if what == OTHER_LOG => OTHER_LOG,
            _ => UNREADABLE,
        });
        whole.and(if batch.entries.is_empty() { Err(UNREADABLE) } else { Ok(()) })
    }

    fn read_until(&self, batch: &mut Batch, head: u64) -> Result<(), Error> {
        let Position { next: from, last } = self.position;
        let mut reader = match batch.reader.take() {
            Some(reader) => reader,
            None => {
                // From the segment that holds the entry confirmed last, which shows that this is the same log; if it is
                // still there: segments may have been moved away.
                let at = |index| EntryReader::open_from(&*self.fs, &self.dir, &self.verifier, index);
                let reader = at(from.saturating_sub(1)).or_else(|_| at(from))?;
                batch.next = reader.next_index();
                reader
            }
        };
        while batch.next < head && batch.entries.len() < AHEAD {
            let Batch { next, entries, .. } = batch;
            let more = reader.group(&mut |entry, leaf_hash| {
                *next = entry.index.saturating_add(1);
                if *next == from && last != [0; 32] && last != leaf_hash {
                    return Err(Error::corrupt(OTHER_LOG, ""));
                }
                if entry.index >= from {
                    entries.push(Delivered { entry, leaf_hash });
                }
                Ok(())
            })?;
            if !more {
                break;
            }
        }
        batch.reader = Some(reader);
        Ok(())
    }
}
