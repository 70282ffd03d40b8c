//! Where a log's frames are: sealed segments, archived or not, and the open one; and reading across them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::archive::Archived;
use super::frame::{self, Start, Step, UNREADABLE};
use super::merkle::Hash;
use super::replay::{ENTRIES, Finding};
use crate::error::Error;
use crate::fs::{File, Fs, Open};

/// Where archived segments are unless another directory is named.
pub(super) const ARCHIVE: &str = "archive";
/// Names that other directory, for those who read the log.
pub(super) const ARCHIVE_AT: &str = "archive.at";
/// How often a segment is looked for that another process seals or archives meanwhile.
const ATTEMPTS: usize = 5;

/// The files of one log.
#[derive(Debug, Clone)]
pub(super) struct Segments {
    pub(super) fs: Arc<dyn Fs>,
    pub(super) dir: PathBuf,
    pub(super) archive: PathBuf,
    pub(super) origin: String,
}

/// A segment that was found.
pub(super) enum Found {
    /// It is there: by the name that it has in findings.
    File(Box<dyn File>, String),
    /// It is not, nor is a later one: the log ends before it.
    End,
    /// It is not, though a later one is.
    Missing,
    /// Its file does not begin as it must.
    Bad(String),
}

impl Segments {
    /// The log in `dir`, with its archive where the log says, or in `archive`.
    pub(super) fn of(fs: &dyn Fs, dir: &Path, archive: Option<&Path>, origin: &str) -> Self {
        let named = || {
            let bytes = fs.read(&dir.join(ARCHIVE_AT), 4096).ok()?;
            Some(PathBuf::from(String::from_utf8(bytes).ok()?.trim_end_matches('\n'))).filter(|path| fs.exists(path))
        };
        let archive = archive.map(Path::to_owned).or_else(named).unwrap_or_else(|| dir.join(ARCHIVE));
        Self { fs: fs.share(), dir: dir.to_owned(), archive, origin: origin.to_owned() }
    }

    /// The name of a sealed segment that is not archived yet.
    pub(super) fn sealed(&self, number: u32) -> PathBuf {
        self.dir.join(format!("entries.{number:06}.log"))
    }

    /// The name of an archived one.
    pub(super) fn archived(&self, number: u32) -> PathBuf {
        self.archive.join(format!("entries.{number:06}.log.gz"))
    }

    pub(super) fn open_path(&self) -> PathBuf {
        self.dir.join(ENTRIES)
    }

    /// True if the segment is sealed.
    pub(super) fn is_sealed(&self, number: u32) -> bool {
        self.fs.exists(&self.sealed(number)) || self.fs.exists(&self.archived(number))
    }

    /// The largest number of a sealed segment.
    pub(super) fn last_sealed(&self) -> Option<u32> {
        let number = |path: &PathBuf| {
            let name = path.file_name()?.to_str()?.strip_prefix("entries.")?;
            name.strip_suffix(".log").or_else(|| name.strip_suffix(".log.gz"))?.parse().ok()
        };
        let largest = |dir: &Path| self.fs.list(dir).unwrap_or_default().iter().filter_map(number).max();
        largest(&self.dir).max(largest(&self.archive))
    }

    /// Where the last segment begins that does not begin behind an entry, by the segments' own headers. The start of the log
    /// if one in between is not there.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if a file cannot be read.
    pub(super) fn start_before(&self, index: u64) -> Result<Start, Error> {
        let open = self.fs.open(&self.open_path(), Open::Read).ok();
        let open = open.map(|file| Start::read(&*file, &self.origin)).transpose()?.flatten();
        let sealed = self.last_sealed().map_or(0, |last| last.saturating_add(1));
        for number in (1..=sealed.max(open.map_or(0, |open| open.number))).rev() {
            match self.find(number)? {
                Found::File(file, _) => {
                    if let Some(start) = Start::read(&*file, &self.origin)?.filter(|start| start.first <= index) {
                        return Ok(start);
                    }
                }
                Found::End => {}
                Found::Missing | Found::Bad(_) => break,
            }
        }
        Ok(Start::FIRST)
    }

    /// Finds a segment.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if a file cannot be read.
    pub(super) fn find(&self, number: u32) -> Result<Found, Error> {
        // What is sealed, or archived, between two looks has another name at the next.
        for _ in 1..ATTEMPTS {
            match self.look(number) {
                Ok(Found::Missing) | Err(_) => {}
                // It was sealed between the look at that name and the one at the open segment's.
                Ok(Found::End) if self.is_sealed(number) => {}
                found => return found,
            }
        }
        self.look(number)
    }

    fn look(&self, number: u32) -> Result<Found, Error> {
        let name = |path: &Path| path.strip_prefix(&self.dir).unwrap_or(path).display().to_string();
        let (sealed, archived) = (self.sealed(number), self.archived(number));
        if self.fs.exists(&sealed) {
            let file = self.fs.open(&sealed, Open::Read).map_err(|_| UNREADABLE)?;
            return Ok(Found::File(file, name(&sealed)));
        }
        if self.fs.exists(&archived) {
            let file = Archived::open(&*self.fs, &archived).map_err(|_| UNREADABLE)?;
            return Ok(match file {
                Some(file) => Found::File(Box::new(file), name(&archived)),
                None => Found::Bad(name(&archived)),
            });
        }
        let later = self.last_sealed().is_some_and(|last| last > number);
        if !self.fs.exists(&self.open_path()) {
            return Ok(if later { Found::Missing } else { Found::End });
        }
        let file = self.fs.open(&self.open_path(), Open::Read).map_err(|_| UNREADABLE)?;
        Ok(match Start::read(&*file, &self.origin)? {
            Some(start) if start.number == number => Found::File(file, ENTRIES.to_owned()),
            // A crash while the one before was sealed can leave it under both names.
            Some(start) if number.checked_sub(1) == Some(start.number) && self.is_sealed(start.number) && !later => {
                Found::End
            }
            _ if later => Found::Missing,
            Some(start) if start.number > number => Found::Missing,
            Some(_) | None => Found::Bad(ENTRIES.to_owned()),
        })
    }
}

/// Reads frame after frame, from one segment into the next.
#[derive(Debug)]
pub(super) struct Frames {
    segments: Segments,
    number: u32,
    /// `None` before the first step, and where the log ends with a sealed segment.
    reader: Option<(frame::Reader, String)>,
    start: Start,
    /// Where the frame starts that was read last.
    frame_at: u64,
    /// The segment behind which nothing is read.
    until: Option<u32>,
}

/// What stands at the position.
pub(super) enum Next {
    /// A whole frame; its entries are with the reader.
    Frame,
    /// The end of the log, so far.
    End,
    /// An incomplete last frame: so many bytes up to the end of the file.
    Torn { bytes: u64 },
    /// Damage.
    Bad(Finding),
}

impl Frames {
    /// From where a segment begins.
    pub(super) const fn at(segments: Segments, start: Start) -> Self {
        Self { segments, number: start.number, reader: None, start, frame_at: 0, until: None }
    }

    /// The same up to the end of a segment.
    pub(super) const fn until(mut self, until: Option<u32>) -> Self {
        self.until = until;
        self
    }

    /// Where the frame starts that was read last, in its segment.
    pub(super) const fn frame_at(&self) -> u64 {
        self.frame_at
    }

    /// The entries of the frame just read, with their leaf hashes.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&[u8], Hash)> {
        self.reader.iter().flat_map(|(reader, _)| reader.entries())
    }

    /// The hash of the last frame, or of the header before the first.
    pub(super) fn chain(&self) -> Hash {
        self.reader.as_ref().map_or(self.start.previous, |(reader, _)| reader.chain())
    }

    /// The segment that is being read.
    pub(super) const fn number(&self) -> u32 {
        self.number
    }

    /// Where the next frame starts, in the segment's file.
    pub(super) fn position(&self) -> u64 {
        self.reader.as_ref().map_or(0, |(reader, _)| reader.position())
    }

    /// The index of the entry that comes next.
    pub(super) fn next_index(&self) -> u64 {
        self.reader.as_ref().map_or(self.start.first, |(reader, _)| reader.next_index())
    }

    /// The file that is being read.
    pub(super) fn file(&self) -> String {
        self.reader.as_ref().map_or_else(|| ENTRIES.to_owned(), |(_, file)| file.clone())
    }

    /// True if what is being read is `entries.log`.
    pub(super) fn is_open_segment(&self) -> bool {
        self.reader.as_ref().is_some_and(|(_, file)| file == ENTRIES)
    }

    /// Opens the segment whose turn it is; false if the log ends before it.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if a file cannot be read.
    pub(super) fn enter(&mut self) -> Result<Result<bool, Finding>, Error> {
        if self.reader.is_some() {
            return Ok(Ok(true));
        }
        if self.until.is_some_and(|until| self.number > until) {
            return Ok(Ok(false));
        }
        let Start { number, first, .. } = self.start;
        let bad = |file: String, why: &str| {
            Ok(Err(match number {
                0 if file == ENTRIES => Finding::File { file: ENTRIES, why: "byte 0: not the header of this log" },
                _ => Finding::Segment { number, first, file, why: why.to_owned() },
            }))
        };
        match self.segments.find(number)? {
            Found::End => Ok(Ok(false)),
            Found::Missing => {
                bad(format!("entries.{number:06}.log"), "missing, and nothing behind it could be checked")
            }
            Found::Bad(file) => bad(file, "byte 0: not the header of this segment"),
            Found::File(file, name) => {
                let found = match name.as_str() {
                    // The archive's decompressor only goes forwards.
                    ENTRIES => Start::read(&*file, &self.segments.origin)?,
                    _ => None,
                };
                match frame::Reader::at(file, &self.segments.origin, &self.start) {
                    Ok(reader) => {
                        self.reader = Some((reader, name));
                        Ok(Ok(true))
                    }
                    Err(Error::Corrupt { .. }) if found.is_some_and(|found| found.number == number && number > 0) => {
                        bad(
                            name,
                            "it does not follow what is left of the segment before it: entries are missing there, or were changed",
                        )
                    }
                    Err(Error::Corrupt { .. }) => bad(name, "byte 0: not the header of this segment"),
                    Err(error) => Err(error),
                }
            }
        }
    }

    /// Looks again how long the open segment is: for following a log that grows.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if its file cannot be read.
    pub(super) fn refresh(&mut self) -> Result<(), Error> {
        match &mut self.reader {
            Some((reader, file)) if file == ENTRIES => reader.refresh(),
            _ => Ok(()),
        }
    }

    /// Reads the next frame; at the end of a sealed segment, the next segment's first.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if a file cannot be read.
    pub(super) fn step(&mut self) -> Result<Next, Error> {
        loop {
            match self.enter()? {
                Ok(true) => {}
                Ok(false) => return Ok(Next::End),
                Err(finding) => return Ok(Next::Bad(finding)),
            }
            let Some((reader, file)) = &mut self.reader else { return Ok(Next::End) };
            let is_open = file == ENTRIES;
            self.frame_at = reader.position();
            let step = reader.step()?;
            let finding = |index, position, why: &str| {
                Next::Bad(Finding::Entry { index, position, file: file.clone(), why: why.to_owned() })
            };
            match step {
                Step::Frame => return Ok(Next::Frame),
                Step::Bad { index, at, why } => return Ok(finding(index, at, why)),
                Step::Torn { .. } if !is_open => {
                    let why = "a sealed segment ends within a frame";
                    return Ok(finding(reader.next_index(), reader.position(), why));
                }
                Step::End | Step::Torn { .. } if is_open => {
                    if !self.segments.is_sealed(self.number) {
                        return Ok(match step {
                            Step::Torn { bytes } => Next::Torn { bytes },
                            _ => Next::End,
                        });
                    }
                    // Sealed meanwhile: what came before that is in the file by now.
                    file.clear();
                    file.push_str(&format!("entries.{:06}.log", self.number));
                    reader.refresh()?;
                }
                Step::End | Step::Torn { .. } => {
                    let start = Start { number: self.number + 1, first: reader.next_index(), previous: reader.chain() };
                    self.number = start.number;
                    self.start = start;
                    self.reader = None;
                }
            }
        }
    }

    /// Where the segment begins that is being read, or the next one.
    pub(super) const fn start(&self) -> &Start {
        &self.start
    }
}
