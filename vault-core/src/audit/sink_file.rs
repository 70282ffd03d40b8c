//! A file of lines as a sink: each entry a line, synced before it is confirmed.
//!
//! Whoever rotates it renames it; the next line goes to a new file of the old name. A file that was removed is a failure:
//! its lines are still there until it is closed, and go to a new file before anything else does. After a failed write or
//! sync the lines that were not confirmed are cut off and written again: of a page that could not be written once, the
//! system may say that it is clean.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::sink::{Delivered, Sink};
use crate::fs::{File, Fs, Open};

/// Bytes copied at once.
const BLOCK: u64 = 1 << 20;
/// How far from its end a file is searched for what a crash left of a delivery.
const TAIL: u64 = 16 << 20;

const REMOVED: &str = "its file was removed";
const CHANGED: &str = "its file was changed by somebody else";
const NOT_OPENED: &str = "its file cannot be opened";
const NOT_LINES: &str = "its file does not hold lines of this sink";

/// What an entry is written as, without the end of the line.
pub type Line = Box<dyn Fn(&Delivered) -> String + Send>;

/// A file of lines.
pub struct FileSink {
    fs: Arc<dyn Fs>,
    path: PathBuf,
    line: Line,
    opened: Option<Opened>,
    /// A file that has no name any more, and how many bytes of it were confirmed.
    lost: Option<(Box<dyn File>, u64)>,
    /// Of the file that was open last: which it is, and how many bytes of it were confirmed.
    known: Option<((u64, u64), u64)>,
}

impl fmt::Debug for FileSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileSink").field("path", &self.path).finish_non_exhaustive()
    }
}

struct Opened {
    file: Box<dyn File>,
    /// `None` where files have no numbers.
    identity: Option<(u64, u64)>,
    /// Where the next line goes.
    end: u64,
}

fn why(error: io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "its disk is full",
        io::ErrorKind::FileTooLarge => "its file is too large",
        _ => "its file cannot be written or synced",
    }
}

impl FileSink {
    /// A sink into a file, which is made (mode 0600) where there is none. Its directory must be there.
    pub fn new(fs: Arc<dyn Fs>, path: PathBuf, line: Line) -> Self {
        Self { fs, path, line, opened: None, lost: None, known: None }
    }

    fn opened(&mut self) -> Result<&mut Opened, &'static str> {
        if self.opened.is_none() {
            let opened = self.open()?;
            return Ok(self.opened.insert(opened));
        }
        self.opened.as_mut().ok_or(NOT_OPENED)
    }

    fn open(&mut self) -> Result<Opened, &'static str> {
        let file = match self.fs.open(&self.path, Open::ReadWrite) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let made = self.fs.open(&self.path, Open::CreateNew).map_err(|_| NOT_OPENED)?;
                let dir = self.path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
                self.fs.sync_dir(dir).map_err(why)?;
                made
            }
            Err(_) => return Err(NOT_OPENED),
        };
        let identity = file.identity().ok();
        let len = file.len().map_err(|_| NOT_OPENED)?;
        let end = match self.known {
            Some((known, confirmed)) if Some(known) == identity => {
                if len < confirmed {
                    // Told once; then it is as good as a new one.
                    self.known = None;
                    return Err(CHANGED);
                }
                confirmed
            }
            _ => last_line(&*file, len)?,
        };
        if end < len {
            file.set_len(end).map_err(why)?;
        }
        let mut opened = Opened { file, identity, end };
        if let Some((lost, len)) = &self.lost {
            copy(&**lost, *len, &mut opened).map_err(why)?;
            self.lost = None;
        }
        self.known = opened.identity.map(|identity| (identity, opened.end));
        Ok(opened)
    }

    /// Whether the open file is still the one of that name. One that only has another name now is closed.
    fn look(&mut self) -> Result<(), &'static str> {
        let Some(opened) = &self.opened else { return Ok(()) };
        if opened.file.links().map_err(why)? == 0 {
            let confirmed = self.known.map_or(opened.end, |(_, confirmed)| confirmed);
            self.lost = self.opened.take().map(|opened| (opened.file, confirmed));
            self.known = None;
            return Err(REMOVED);
        }
        let named = self.fs.open(&self.path, Open::Read).and_then(|file| file.identity());
        let is_it = match (named, opened.identity) {
            (Ok(named), Some(own)) => named == own,
            (Err(error), _) => error.kind() == io::ErrorKind::Unsupported,
            (Ok(_), None) => true,
        };
        if !is_it {
            self.opened = None;
        }
        Ok(())
    }

    fn write(&mut self, lines: &[u8]) -> Result<(), &'static str> {
        let opened = self.opened()?;
        if opened.file.len().map_err(why)? != opened.end {
            self.opened = None;
            self.known = None;
            return Err(CHANGED);
        }
        let written = opened.file.write_all_at(opened.end, lines).and_then(|()| opened.file.sync_data());
        if let Err(error) = written {
            self.opened = None;
            return Err(why(error));
        }
        // After the sync: what is confirmed was in a file with a name when it became durable.
        self.look_after(lines.len() as u64)
    }

    fn look_after(&mut self, written: u64) -> Result<(), &'static str> {
        let end = self.opened.as_ref().map_or(0, |opened| opened.end).saturating_add(written);
        // Removed: the new lines are not confirmed, and are not copied.
        let identity = self.opened.as_ref().and_then(|opened| opened.identity);
        self.look()?;
        if let Some(opened) = &mut self.opened {
            opened.end = end;
        }
        self.known = identity.map(|identity| (identity, end));
        Ok(())
    }
}

impl Sink for FileSink {
    fn kind(&self) -> &'static str {
        "file"
    }

    fn check(&mut self) -> Result<(), &'static str> {
        self.look()?;
        self.opened().map(drop)
    }

    fn deliver(&mut self, entries: &[Delivered]) -> Result<(), &'static str> {
        let mut lines = Vec::new();
        for entry in entries {
            lines.extend_from_slice((self.line)(entry).as_bytes());
            lines.push(b'\n');
        }
        self.write(&lines)
    }
}

/// The end of the last whole line: what follows was never confirmed. Nor was anything behind a zero byte, which no line
/// holds: it is what did not reach the disk in a crash.
fn last_line(file: &dyn File, len: u64) -> Result<u64, &'static str> {
    let from = len.saturating_sub(TAIL);
    let mut tail = vec![0; usize::try_from(len - from).map_err(|_| NOT_OPENED)?];
    file.read_exact_at(from, &mut tail).map_err(|_| NOT_OPENED)?;
    let written = tail.iter().position(|byte| *byte == 0).unwrap_or(tail.len());
    let end = match tail.iter().take(written).rposition(|byte| *byte == b'\n') {
        Some(at) => at + 1,
        None if from == 0 => 0,
        None => return Err(NOT_LINES),
    };
    // Not a byte is taken from a file that is something else.
    match tail.get(end) {
        None | Some(b'{' | 0) => Ok(from + end as u64),
        Some(_) => Err(NOT_LINES),
    }
}

/// Appends the first bytes of a file to another.
fn copy(from: &dyn File, len: u64, to: &mut Opened) -> io::Result<()> {
    let (mut at, mut end) = (0, to.end);
    let mut block = Vec::new();
    while at < len {
        let next = (len - at).min(BLOCK);
        block.resize(usize::try_from(next).map_err(|_| io::ErrorKind::FileTooLarge)?, 0);
        from.read_exact_at(at, &mut block)?;
        to.file.write_all_at(end, &block)?;
        (at, end) = (at + next, end + next);
    }
    to.file.sync_data()?;
    to.end = end;
    Ok(())
}
