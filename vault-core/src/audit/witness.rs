//! A witness: the C2SP tlog-witness protocol without its transport.
//!
//! For each log it knows, by origin, it keeps one file: the largest checkpoint that it cosigned. It is written and synced
//! before the cosignature exists outside, so a witness that crashes never cosigns two histories.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::checkpoint::Checkpoint;
use super::cosign::{WitnessSigner, WitnessVerifier};
use super::merkle::{Hash, empty_root, sha256, verify_consistency};
use super::note::{self, MAX_NOTE};
use super::signer::LogVerifier;
use crate::error::{Dependency, Error};
use crate::fs::Fs;
use crate::time::Timestamp;

/// Most hashes of a consistency proof.
const MAX_PROOF: usize = 63;
/// Longest request in bytes.
pub const MAX_REQUEST: usize = MAX_NOTE + 64 * 64;

/// Why a witness does not cosign. Each has its HTTP status in tlog-witness.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotCosigned {
    /// 400: the request cannot be read, or the old size is larger than the new.
    Malformed(&'static str),
    /// 404: the witness knows no log of that origin.
    UnknownLog,
    /// 403: not signed with the key that the witness knows.
    NotSigned,
    /// 409: the witness cosigned another size than the request starts from, or another root of the same size: then the
    /// log shows two histories.
    Conflict {
        /// The size it cosigned last.
        size: u64,
        /// Whether it is the same size with another root.
        forked: bool,
    },
    /// 422: the proof does not lead from what the witness cosigned to the new checkpoint: the log was rolled back, or shows
    /// two histories.
    Inconsistent,
    /// 500: the state cannot be read, written or synced, or the key cannot be used.
    Unavailable(Error),
}

impl NotCosigned {
    /// The HTTP status.
    pub const fn status(&self) -> u16 {
        match self {
            Self::Malformed(_) => 400,
            Self::NotSigned => 403,
            Self::UnknownLog => 404,
            Self::Conflict { .. } => 409,
            Self::Inconsistent => 422,
            Self::Unavailable(_) => 500,
        }
    }
}

/// The body of an add-checkpoint request.
pub fn request(old: u64, proof: &[Hash], checkpoint: &str) -> String {
    let mut body = format!("old {old}\n");
    for hash in proof {
        body.push_str(&STANDARD.encode(hash));
        body.push('\n');
    }
    body.push('\n');
    body.push_str(checkpoint);
    body
}

fn parse(body: &str) -> Result<(u64, Vec<Hash>, &str), &'static str> {
    if body.len() > MAX_REQUEST {
        return Err("the request is too long");
    }
    let (head, note) = body.split_once("\n\n").ok_or("there is no empty line")?;
    let mut lines = head.split('\n');
    let old = lines.next().and_then(|line| line.strip_prefix("old ")).ok_or("the first line is not `old SIZE`")?;
    let size: u64 = old.parse().map_err(|_| "the old size is not a number")?;
    if size.to_string() != old {
        return Err("the old size is not written as a number is");
    }
    let hash = |line: &str| STANDARD.decode(line).ok().and_then(|bytes| Hash::try_from(bytes).ok());
    let proof: Option<Vec<Hash>> = lines.map(hash).collect();
    let proof = proof.ok_or("a line of the proof is not a hash")?;
    if proof.len() > MAX_PROOF { Err("the proof has more than 63 lines") } else { Ok((size, proof, note)) }
}

/// A witness of some logs.
pub struct Witness {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    signer: WitnessSigner,
    logs: Vec<LogVerifier>,
    /// Held from the comparison with the state until the new one is synced.
    turn: Mutex<()>,
}

impl std::fmt::Debug for Witness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Witness").field("dir", &self.dir).field("logs", &self.logs).finish_non_exhaustive()
    }
}

impl Witness {
    /// A witness of these logs, with its state in `dir`, which must exist: a state that is gone must not be taken for one
    /// that never was. A log whose key is rotated is given once with each of its keys; each of them may sign.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the directory does not exist; [`Error::Invalid`] naming `log` if one is given twice;
    /// [`Error::Corrupt`] if what it keeps of a log is damaged or of another key.
    pub fn open(fs: Arc<dyn Fs>, dir: &Path, signer: WitnessSigner, logs: Vec<LogVerifier>) -> Result<Self, Error> {
        if !fs.exists(dir) {
            return Err(Error::NotFound("witness's directory"));
        }
        let witness = Self { fs, dir: dir.to_owned(), signer, logs, turn: Mutex::new(()) };
        for (at, log) in witness.logs.iter().enumerate() {
            if witness.logs.iter().skip(at + 1).any(|other| other == log) {
                return Err(Error::invalid("log", "the same log with the same key is given twice"));
            }
            witness.last(log)?;
        }
        Ok(witness)
    }

    /// The public half of its key.
    pub const fn verifier(&self) -> &WitnessVerifier {
        self.signer.verifier()
    }

    /// A file a log, by the hash of its origin: an origin may hold `/`.
    fn file(&self, log: &LogVerifier) -> PathBuf {
        let [a, b, c, d, e, f, g, h, ..] = sha256(&[log.origin().as_bytes()]);
        self.dir.join(format!("{:016x}.checkpoint", u64::from_be_bytes([a, b, c, d, e, f, g, h])))
    }

    /// The keys that it knows of the log with this name.
    fn keys<'a>(&'a self, origin: &'a str) -> impl Iterator<Item = &'a LogVerifier> {
        self.logs.iter().filter(move |log| log.origin() == origin)
    }

    /// What it cosigned last of a log.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Unavailable`].
    pub fn last(&self, log: &LogVerifier) -> Result<Option<Checkpoint>, Error> {
        let path = self.file(log);
        if !self.fs.exists(&path) {
            return Ok(None);
        }
        let unreadable = |_| Error::unavailable(Dependency::Audit, "the witness's state cannot be read");
        let bytes = self.fs.read(&path, MAX_NOTE as u64).map_err(unreadable)?;
        let note = String::from_utf8(bytes).map_err(|_| Error::corrupt("witness's state", "not UTF-8"))?;
        let (checkpoint, _) = Checkpoint::verify_any(&note, self.keys(log.origin()))?;
        if self.verifier().cosigned(&note)?.is_none() {
            return Err(Error::corrupt("witness's state", "not cosigned with this witness's key"));
        }
        Ok(Some(checkpoint))
    }

    /// Answers an add-checkpoint request: the cosignature's line.
    ///
    /// # Errors
    /// Why it does not cosign; then its state is as it was.
    pub fn add_checkpoint(&self, body: &str, now: Timestamp) -> Result<String, NotCosigned> {
        let (old, proof, note) = parse(body).map_err(NotCosigned::Malformed)?;
        let origin = note.split('\n').next().unwrap_or_default();
        self.keys(origin).next().ok_or(NotCosigned::UnknownLog)?;
        // By the newest key that has signed: of a hand-over, which two have signed, the next one's.
        let mut signed = None;
        for key in self.keys(origin) {
            match note::find(note, key) {
                Ok((_, true)) => signed = Some(key),
                Ok((_, false)) => {}
                Err(why) if why == note::BAD_SIGNATURE => return Err(NotCosigned::NotSigned),
                Err(why) => return Err(NotCosigned::Malformed(why)),
            }
        }
        let log = signed.ok_or(NotCosigned::NotSigned)?;
        let new = Checkpoint::verify(note, log).map_err(|_| NotCosigned::Malformed("not a checkpoint"))?;
        if old > new.size {
            return Err(NotCosigned::Malformed("the old size is larger than the checkpoint's"));
        }
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let last = self.last(log).map_err(NotCosigned::Unavailable)?;
        let last = last.unwrap_or_else(|| Checkpoint { size: 0, root: empty_root() });
        if old != last.size {
            return Err(NotCosigned::Conflict { size: last.size, forked: false });
        }
        if old == new.size && last.root != new.root {
            return Err(NotCosigned::Conflict { size: last.size, forked: true });
        }
        if !verify_consistency(old, &last.root, new.size, &new.root, &proof) {
            return Err(NotCosigned::Inconsistent);
        }
        let text = note::lines(note).map_err(NotCosigned::Malformed)?.0;
        let line = self.signer.cosign(text, now).map_err(NotCosigned::Unavailable)?;
        let unwritable = |_| {
            NotCosigned::Unavailable(Error::unavailable(Dependency::Audit, "the witness's state cannot be written"))
        };
        // Only the log's own signature is kept, and this witness's.
        let own = note::only(note, log).map_err(NotCosigned::Malformed)?;
        self.fs.replace(&self.file(log), format!("{own}{line}").as_bytes()).map_err(unwritable)?;
        Ok(line)
    }
}

#[cfg(test)]
#[path = "witness_tests.rs"]
mod tests;
