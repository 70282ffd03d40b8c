//! Sealing: the open segment gets its number as a name, and the log goes on in a new file. The writer does this, between
//! two groups: a file of some hundred bytes, two renames, three syncs. Everything else is the archiver's.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::archiver::Archiving;
use super::frame::Start;
use super::merkle::Hash;
use super::segments::Segments;
use crate::fs::{File, Open};
use crate::time::Timestamp;

/// How much more is written before sealing is tried again that failed before anything was renamed.
const AGAIN: u64 = 1 << 20;

/// Decides when the open segment is sealed, and does it.
pub(super) struct Sealer {
    segments: Segments,
    archiving: Arc<Archiving>,
    start: Start,
    /// When the first entry of the open segment was written.
    since: Option<Timestamp>,
    size: u64,
    age: Option<Duration>,
    /// The length below which it is not tried.
    not_before: u64,
}

/// The new open segment: its file, its length, and the hash that its first frame names.
pub(super) type Opened = (Box<dyn File>, u64, Hash);

impl Sealer {
    pub(super) const fn new(
        segments: Segments,
        archiving: Arc<Archiving>,
        start: Start,
        since: Option<Timestamp>,
        size: u64,
        age: Option<Duration>,
    ) -> Self {
        Self { segments, archiving, start, since, size, age, not_before: 0 }
    }

    /// After a group: the file is so long, the log has so many entries, and this is its last frame's hash. Answers the file
    /// to go on with if the segment was sealed.
    ///
    /// # Errors
    /// If the log cannot go on. That there is no room for another file only puts sealing off.
    pub(super) fn after_group(
        &mut self,
        end: u64,
        entries: u64,
        chain: &Hash,
        now: Timestamp,
    ) -> Result<Option<Opened>, &'static str> {
        let since = *self.since.get_or_insert(now);
        let old = self.age.is_some_and(|age| u128::from(now.0.saturating_sub(since.0)) >= age.as_millis());
        if end < self.not_before || (end < self.size && !old) {
            return Ok(None);
        }
        let Some(number) = self.start.number.checked_add(1) else { return Ok(None) };
        let next = Start { number, first: entries, previous: *chain };
        let Ok((file, end_of_header, hash)) = self.make(&next) else {
            self.not_before = end + AGAIN;
            self.archiving.behind("a new segment cannot be made; the one before is not sealed");
            return Ok(None);
        };
        self.exchange().map_err(|_| "the log's segment cannot be sealed")?;
        self.start = next;
        self.since = None;
        self.not_before = 0;
        self.archiving.sealed(number);
        Ok(Some((file, end_of_header, hash)))
    }

    fn aside(&self) -> PathBuf {
        self.segments.dir.join("entries.log.next")
    }

    /// The new file, whole and synced, under a name that means nothing yet.
    fn make(&self, next: &Start) -> io::Result<Opened> {
        let (fs, aside) = (&self.segments.fs, self.aside());
        if fs.exists(&aside) {
            fs.remove(&aside)?;
        }
        let (bytes, hash) = next.header(&self.segments.origin);
        let file = fs.open(&aside, Open::CreateNew)?;
        file.write_all_at(0, &bytes)?;
        file.sync_data()?;
        Ok((file, bytes.len() as u64, hash))
    }

    /// The old one's name is durable before the new one takes its place: at every moment all frames have a name.
    fn exchange(&self) -> io::Result<()> {
        let (fs, open) = (&self.segments.fs, self.segments.open_path());
        fs.rename(&open, &self.segments.sealed(self.start.number))?;
        fs.sync_dir(&self.segments.dir)?;
        fs.rename(&self.aside(), &open)?;
        fs.sync_dir(&self.segments.dir)
    }
}

/// Makes the open segment's file that a crash left out while the one before it was being sealed.
///
/// # Errors
/// As the operating system reports.
pub(super) fn make_open(segments: &Segments, start: &Start) -> io::Result<()> {
    segments.fs.replace(&segments.open_path(), &start.header(&segments.origin).0)
}
