//! Checkpoints: C2SP tlog-checkpoint, a signed note over origin, size and root; and the file that keeps all of them.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::frame::UNREADABLE;
use super::merkle::Hash;
use super::note::{self, MAX_NOTE};
use super::signer::{LogSigner, LogVerifier};
use crate::error::Error;
use crate::fs::{File, Fs, Open};

/// The tree at one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    /// How many entries.
    pub size: u64,
    /// The root over them.
    pub root: Hash,
}

impl Checkpoint {
    /// The signed note's text: `origin \n size \n base64(root) \n`.
    fn text(&self, origin: &str) -> String {
        format!("{origin}\n{}\n{}\n", self.size, STANDARD.encode(self.root))
    }

    /// The whole note.
    pub(super) fn sign(&self, signer: &LogSigner) -> Result<String, Error> {
        note::sign(&self.text(signer.verifier().origin()), signer)
    }

    /// The whole note, signed by two keys: the first is handing the log over to the second.
    pub(super) fn sign_twice(&self, signer: &LogSigner, next: &LogSigner) -> Result<String, Error> {
        let text = self.text(signer.verifier().origin());
        Ok(format!("{text}\n{}\n{}\n", note::line(&text, signer)?, note::line(&text, next)?))
    }

    /// [`Self::verify`] by whichever of some keys has signed it.
    ///
    /// # Errors
    /// As there.
    pub fn verify_any<'k>(
        note: &str,
        keys: impl IntoIterator<Item = &'k LogVerifier>,
    ) -> Result<(Self, &'k LogVerifier), Error> {
        let mut last = Error::corrupt("checkpoint", "not signed by the log's key");
        for key in keys {
            match Self::verify(note, key) {
                Ok(checkpoint) => return Ok((checkpoint, key)),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Reads a note and checks the log's signature on it. Signatures of other keys (witnesses) are passed over.
    ///
    /// # Errors
    /// [`Error::Corrupt`] naming what is wrong.
    pub fn verify(note: &str, verifier: &LogVerifier) -> Result<Self, Error> {
        let refuse = |why| Error::corrupt("checkpoint", why);
        let text = note::verify(note, verifier).map_err(refuse)?;
        let mut lines = text.split('\n');
        let (Some(origin), Some(size), Some(root)) = (lines.next(), lines.next(), lines.next()) else {
            return Err(refuse("origin, size or root is missing"));
        };
        let size = size.parse::<u64>().map_err(|_| refuse("the size is not a number"))?;
        let root = STANDARD.decode(root).ok().and_then(|bytes| Hash::try_from(bytes).ok());
        let checkpoint = Self { size, root: root.ok_or_else(|| refuse("the root is not a SHA-256 hash in base64"))? };
        // One way to write each checkpoint: this also refuses leading zeros and extension lines.
        if origin == verifier.origin() && checkpoint.text(origin) == text {
            Ok(checkpoint)
        } else {
            Err(refuse("not a checkpoint of this log"))
        }
    }
}

/// What stands at the reader's position.
pub(super) enum Step {
    Checkpoint(Checkpoint),
    End,
    /// The last note, incomplete, from this position on.
    Torn {
        at: u64,
    },
    Bad {
        at: u64,
        why: String,
    },
}

/// Reads the file `checkpoints`: notes, each followed by an empty line. Memory: one block of 64 KiB.
pub(super) struct Reader {
    file: Box<dyn File>,
    len: u64,
    /// Where `buf` starts in the file.
    base: u64,
    buf: Vec<u8>,
    /// Where the next note starts in `buf`.
    at: usize,
    last: Option<u64>,
    /// The note read last, where it starts in `buf`, and its length.
    note: (usize, usize),
}

impl Reader {
    pub(super) fn open(fs: &dyn Fs, path: &Path) -> Result<Self, Error> {
        let file = fs.open(path, Open::Read).map_err(|_| UNREADABLE)?;
        let len = file.len().map_err(|_| UNREADABLE)?;
        Ok(Self { file, len, base: 0, buf: Vec::new(), at: 0, last: None, note: (0, 0) })
    }

    /// Starts at a note behind one of that size.
    pub(super) fn skip_to(&mut self, position: u64, last: Option<u64>) {
        self.base = position.min(self.len);
        self.last = last;
    }

    /// The note read last.
    pub(super) fn note(&self) -> &str {
        let (from, len) = self.note;
        self.buf.get(from..from + len).and_then(|note| std::str::from_utf8(note).ok()).unwrap_or_default()
    }

    /// Where the next note starts in the file.
    pub(super) fn position(&self) -> u64 {
        self.base + self.at as u64
    }

    fn rest(&self) -> &[u8] {
        self.buf.get(self.at..).unwrap_or_default()
    }

    /// The length of the next note with the empty line behind it, if it is in the buffer: up to the second `\n\n`.
    fn note_len(&self) -> Option<usize> {
        let mut ends = self.rest().windows(2).enumerate().filter(|(_, pair)| *pair == b"\n\n").map(|(at, _)| at + 2);
        ends.next()?;
        ends.next()
    }

    fn fill(&mut self) -> Result<(), Error> {
        self.buf.drain(..self.at);
        self.base += self.at as u64;
        self.at = 0;
        let have = self.buf.len();
        let from = self.base + have as u64;
        let more = usize::try_from(self.len - from).unwrap_or(MAX_NOTE).min(MAX_NOTE);
        self.buf.resize(have + more, 0);
        let place = self.buf.get_mut(have..).unwrap_or_default();
        self.file.read_exact_at(from, place).map_err(|_| UNREADABLE)
    }

    /// Reads the next note, which one of these keys must have signed.
    pub(super) fn step<'k>(&mut self, keys: impl IntoIterator<Item = &'k LogVerifier>) -> Result<Step, Error> {
        if self.note_len().is_none() && self.base + (self.buf.len() as u64) < self.len {
            self.fill()?;
        }
        let at = self.position();
        if self.rest().is_empty() {
            return Ok(Step::End);
        }
        let bad = |why: &str| Ok(Step::Bad { at, why: why.to_owned() });
        // What a crash left out of the last write is missing or reads as zeros, which no note holds.
        let is_last = |end: usize| at + end as u64 == self.len;
        let Some(len) = self.note_len() else {
            return if is_last(self.rest().len()) { Ok(Step::Torn { at }) } else { bad("a note is too long") };
        };
        let bytes = self.rest().get(..len - 1).unwrap_or_default();
        if bytes.contains(&0) && is_last(len) {
            return Ok(Step::Torn { at });
        }
        let Ok(note) = std::str::from_utf8(bytes) else { return bad("a note is not UTF-8") };
        let found = Checkpoint::verify_any(note, keys).map(|(checkpoint, _)| checkpoint);
        self.note = (self.at, len - 1);
        match found {
            Ok(checkpoint) if self.last.is_some_and(|last| checkpoint.size <= last) => {
                bad("checkpoints are out of order")
            }
            Ok(checkpoint) => {
                self.last = Some(checkpoint.size);
                self.at += len;
                Ok(Step::Checkpoint(checkpoint))
            }
            Err(Error::Corrupt { at: why, .. }) => bad(&why),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
#[path = "checkpoint_tests.rs"]
mod tests;
