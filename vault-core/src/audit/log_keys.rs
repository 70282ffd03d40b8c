//! The keys that sign a log, one after the other (docs/audit.md, "Rotation of the key").

use std::path::Path;

use super::checkpoint::Checkpoint;
use super::entry::Body;
use super::frame::UNREADABLE;
use super::replay::VKEY;
use super::signer::LogVerifier;
use crate::error::Error;
use crate::fs::Fs;

/// The event that names the next key; its public key stands in the detail, in hexadecimal.
const EVENT: &str = "log_key";
/// Longest `log.pub`.
const MAX_FILE: u64 = 1 << 20;

/// One key of a log, and which checkpoints it signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogKey {
    /// The key.
    pub verifier: LogVerifier,
    /// The size of the checkpoint with which it took over, which the key before signed, too. It signs the larger ones, up to
    /// and including the one with which the next takes over. 0 for the first key.
    pub from: u64,
}

/// The keys of a log up to some entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chain {
    keys: Vec<LogKey>,
    /// Named by an entry, and not yet under a checkpoint: its index, the key.
    named: Option<(u64, LogVerifier)>,
}

/// The body of the entry that names the next key.
pub(super) fn body(next: &LogVerifier) -> Body {
    let detail = next.public().iter().map(|byte| format!("{byte:02x}")).collect();
    Body::System { event: EVENT.to_owned(), detail, first: 0, second: 0 }
}

fn named(body: &Body, origin: &str) -> Option<LogVerifier> {
    let Body::System { event, detail, .. } = body else { return None };
    if event != EVENT || detail.len() != 64 {
        return None;
    }
    let byte = |at: usize| u8::from_str_radix(detail.get(2 * at..2 * at + 2)?, 16).ok();
    let public: Option<Vec<u8>> = (0..32).map(byte).collect();
    LogVerifier::new(origin, &public?).ok()
}

impl Chain {
    /// Of a log whose first key this is.
    pub(super) fn new(first: LogVerifier) -> Self {
        Self { keys: vec![LogKey { verifier: first, from: 0 }], named: None }
    }

    /// Of a log whose keys were these.
    pub(super) fn of(keys: Vec<LogKey>) -> Option<Self> {
        (!keys.is_empty()).then_some(Self { keys, named: None })
    }

    /// The keys so far; the last signs.
    pub(super) fn keys(&self) -> &[LogKey] {
        &self.keys
    }

    /// The key that signs the next checkpoint.
    pub(super) fn active(&self) -> Option<&LogVerifier> {
        self.keys.last().map(|key| &key.verifier)
    }

    /// An entry of the log.
    pub(super) fn entry(&mut self, index: u64, body: &Body) {
        let Some(active) = self.active() else { return };
        if let Some(next) = named(body, active.origin())
            && !self.keys.iter().any(|key| key.verifier == next)
        {
            self.named = Some((index, next));
        }
    }

    /// A checkpoint that holds, with its note: the next key takes over if this is the first one over the entry that names
    /// it, nothing stands between them, and both keys have signed.
    pub(super) fn checkpoint(&mut self, checkpoint: &Checkpoint, note: &str) -> Result<(), Error> {
        if let Some((index, next)) = self.named.take_if(|(index, _)| checkpoint.size > *index)
            && checkpoint.size == index + 1
            && next.has_signed(note)?
        {
            self.keys.push(LogKey { verifier: next, from: checkpoint.size });
        }
        Ok(())
    }

    /// What is wrong with a note that the active key has not signed.
    pub(super) fn accuse(&self, note: &str) -> Option<String> {
        let (_, retired) = self.keys.split_last()?;
        let signed = retired.iter().position(|key| key.verifier.has_signed(note).unwrap_or(false))?;
        let (key, next) = (self.keys.get(signed)?, self.keys.get(signed + 1)?);
        Some(format!("signed by the key {}, which was retired at size {}", key.verifier.short(), next.from))
    }

    /// As `log.pub` lists them.
    pub(super) fn file(&self) -> String {
        let line = |key: &LogKey| match key.from {
            0 => format!("{}\n", key.verifier.vkey()),
            from => format!("{} from {from}\n", key.verifier.vkey()),
        };
        self.keys.iter().map(line).collect()
    }
}

/// Reads what `log.pub` lists. Nothing of it is proven: a verifier key of the log that was kept elsewhere proves it.
///
/// # Errors
/// [`Error::Invalid`] naming `vkey` if it is no such list.
pub fn listed_keys(text: &str) -> Result<Vec<LogKey>, Error> {
    let refuse = || Error::invalid("vkey", "each line must be a verifier key, from the second on with ` from SIZE`");
    let mut keys: Vec<LogKey> = Vec::new();
    for line in text.lines() {
        let (vkey, from) = match line.split_once(" from ") {
            Some((vkey, from)) => (vkey, from.parse().map_err(|_| refuse())?),
            None => (line, 0),
        };
        let verifier = LogVerifier::parse(vkey)?;
        let follows = keys.last().is_none_or(|last| last.from < from && last.verifier.origin() == verifier.origin());
        if !follows || keys.is_empty() != (from == 0) {
            return Err(refuse());
        }
        keys.push(LogKey { verifier, from });
    }
    if keys.is_empty() { Err(refuse()) } else { Ok(keys) }
}

/// What the log in `dir` lists of its keys if this one is among them; else this one alone. What is listed is proven by
/// [`super::verify`] only.
///
/// # Errors
/// [`Error::Unavailable`] if the list cannot be read.
pub fn known(fs: &dyn Fs, dir: &Path, verifier: &LogVerifier) -> Result<Vec<LogKey>, Error> {
    let alone = || vec![LogKey { verifier: verifier.clone(), from: 0 }];
    let path = dir.join(VKEY);
    if !fs.exists(&path) {
        return Ok(alone());
    }
    let bytes = fs.read(&path, MAX_FILE).map_err(|_| UNREADABLE)?;
    let keys = String::from_utf8(bytes).ok().and_then(|text| listed_keys(&text).ok());
    let keys = keys.filter(|keys| keys.iter().any(|key| key.verifier == *verifier));
    Ok(keys.unwrap_or_else(alone))
}

/// The first key of the log in `dir`, by what `log.pub` lists: also if the one given was introduced by its last key and is
/// not listed yet, as a rotation that was cut off leaves it.
pub(super) fn first(fs: &dyn Fs, dir: &Path, verifier: &LogVerifier) -> Result<LogVerifier, Error> {
    let known = known(fs, dir, verifier)?;
    Ok(known.into_iter().next().map_or_else(|| verifier.clone(), |key| key.verifier))
}
