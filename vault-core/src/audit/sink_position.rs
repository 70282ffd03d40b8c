//! How far a sink has come, durably: `sinks/NAME` in the log's directory.
//!
//! It is written now and then, not with each delivery: after a crash a sink gets again what it confirmed since. It names
//! the last entry's leaf hash, so that a log which is not the one that was delivered from is noticed.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::merkle::Hash;
use crate::error::{Dependency, Error};
use crate::fs::Fs;

const FIRST_LINE: &str = "blindvault/audit-sink/v1";
const DIR: &str = "sinks";
const MAX: u64 = 4096;

/// Up to where a sink has confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Position {
    /// The index of the first entry that it has not.
    pub(super) next: u64,
    /// The leaf hash of the entry before; zeros if there is none, or it was not delivered.
    pub(super) last: Hash,
}

fn path(dir: &Path, name: &str) -> PathBuf {
    dir.join(DIR).join(name)
}

fn damaged() -> Error {
    Error::corrupt("audit sink position", "not what was written; see docs/sinks.md")
}

impl Position {
    /// The kept position of a sink; `None` for a new one.
    pub(super) fn load(fs: &dyn Fs, dir: &Path, name: &str) -> Result<Option<Self>, Error> {
        let path = path(dir, name);
        if !fs.exists(&path) {
            return Ok(None);
        }
        let unreadable = |_| Error::unavailable(Dependency::Audit, "the position of an audit sink cannot be read");
        let text = String::from_utf8(fs.read(&path, MAX).map_err(unreadable)?).map_err(|_| damaged())?;
        let lines: Vec<&str> = text.lines().collect();
        let [FIRST_LINE, next, last] = lines.as_slice() else { return Err(damaged()) };
        let next = next.parse().map_err(|_| damaged())?;
        let last = STANDARD.decode(last).ok().and_then(|bytes| bytes.try_into().ok()).ok_or_else(damaged)?;
        let position = Self { next, last };
        if position.text() == text { Ok(Some(position)) } else { Err(damaged()) }
    }

    /// Keeps it, durably.
    pub(super) fn save(&self, fs: &dyn Fs, dir: &Path, name: &str) -> Result<(), &'static str> {
        let path = path(dir, name);
        let made = if fs.exists(&dir.join(DIR)) { Ok(()) } else { fs.create_dir_durable(&dir.join(DIR)) };
        made.and_then(|()| fs.replace(&path, self.text().as_bytes())).map_err(|_| "its position cannot be written")
    }

    fn text(&self) -> String {
        format!("{FIRST_LINE}\n{}\n{}\n", self.next, STANDARD.encode(self.last))
    }
}
