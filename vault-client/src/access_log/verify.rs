//! Holding answers against proofs, the tenant's own chain, and what was seen before. No network.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use vault_proto::v1::{AccessLogEntry, ListAccessesRequest, ListAccessesResponse};

use super::entry::{AccessBody, AccessEntry};
use super::proofs::{Checkpoint, Hash, LogKey, extends, hashes, includes, sha256};

/// Longest name of a log.
const MAX_ORIGIN: usize = 200;

/// What is wrong with a log, or with what a gateway says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum AccessLogFault {
    /// The text is no verifier key, or no bookmark.
    Key,
    /// The answer does not read as one: what.
    Malformed(&'static str),
    /// No pinned key has signed the checkpoint.
    Signature,
    /// None of the pinned keys is one of this log.
    NotPinned {
        /// The log.
        log: String,
    },
    /// The gateway answers about another log than was asked for.
    OtherLog,
    /// The log has fewer entries than it had at the bookmark.
    RolledBack,
    /// The checkpoint does not extend the one of the bookmark: there are two histories.
    Forked,
    /// An entry is not in the log, or not at this place: its path does not lead to the checkpoint.
    NotInLog {
        /// The entry's index as the answer has it.
        index: u64,
    },
    /// An entry is another tenant's.
    Foreign {
        /// Its index.
        index: u64,
    },
    /// An entry is missing, repeated or out of order.
    Gap {
        /// The sequence number that was to come.
        expected: u64,
        /// The one that came.
        found: u64,
    },
    /// An entry does not follow the one that was read before it: that one, or one before it, is not what was written.
    Chain {
        /// Its sequence number.
        sequence: u64,
    },
    /// The answer ends before the tenant's last entry, and nothing follows.
    Truncated {
        /// The last sequence number there is.
        sequence: u64,
    },
    /// The answer is older than the question: the entry of the call itself is not in it.
    Stale,
    /// The gateway gave a selection, where all was asked for.
    Selection,
    /// There is a log that none of the gateways asked can read.
    MissingLog {
        /// The log.
        log: String,
    },
    /// Two logs go by one name.
    TwoLogs {
        /// The name.
        log: String,
    },
}

impl fmt::Display for AccessLogFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key => write!(f, "not a verifier key of a log, or not a bookmark"),
            Self::Malformed(what) => write!(f, "the answer does not read: {what}"),
            Self::Signature => write!(f, "no pinned key has signed the log's checkpoint"),
            Self::NotPinned { .. } => write!(f, "none of the pinned keys is one of the log"),
            Self::OtherLog => write!(f, "the answer is about another log"),
            Self::RolledBack => write!(f, "the log has fewer entries than it had: it was rolled back"),
            Self::Forked => write!(f, "the log does not extend what it was: there are two histories of it"),
            Self::NotInLog { index } => write!(f, "entry {index} is not in the log"),
            Self::Foreign { index } => write!(f, "entry {index} is another tenant's"),
            Self::Gap { expected, found } => {
                write!(f, "entry number {expected} of the tenant is missing: {found} came")
            }
            Self::Chain { sequence } => {
                write!(f, "entry number {sequence} of the tenant does not follow the one before")
            }
            Self::Truncated { sequence } => write!(f, "the answer ends before entry number {sequence} of the tenant"),
            Self::Stale => write!(f, "the answer does not hold the entry of the call itself: it is an old one"),
            Self::Selection => write!(f, "the answer is a selection, where all was asked for"),
            Self::MissingLog { .. } => write!(f, "there is a log that none of the gateways asked can read"),
            Self::TwoLogs { .. } => write!(f, "two logs go by one name"),
        }
    }
}

impl std::error::Error for AccessLogFault {}

/// Where a tenant stands in a log: what it has seen of it, and what it has read. To be kept between visits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bookmark {
    log: String,
    tree: Checkpoint,
    sequence: u64,
    leaf: Hash,
}

impl Bookmark {
    /// The name of the log.
    pub fn log(&self) -> &str {
        &self.log
    }

    /// How many entries the log had.
    pub const fn size(&self) -> u64 {
        self.tree.size
    }

    /// The sequence number of the tenant's last entry that was read.
    pub const fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Reads the text of one.
    ///
    /// # Errors
    /// [`AccessLogFault::Key`] if it is none.
    pub fn parse(text: &str) -> Result<Self, AccessLogFault> {
        let read = || {
            let mut parts = text.trim_end().split(' ');
            let log = parts.next()?.to_owned();
            let size = parts.next()?.parse().ok()?;
            let root = STANDARD.decode(parts.next()?).ok()?.try_into().ok()?;
            let sequence = parts.next()?.parse().ok()?;
            let leaf = STANDARD.decode(parts.next()?).ok()?.try_into().ok()?;
            parts.next().is_none().then_some(Self { log, tree: Checkpoint { size, root }, sequence, leaf })
        };
        read().ok_or(AccessLogFault::Key)
    }
}

/// One line, without its end: log, size, root, sequence, leaf hash.
impl fmt::Display for Bookmark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { log, tree, sequence, leaf } = self;
        write!(f, "{log} {} {} {sequence} {}", tree.size, STANDARD.encode(tree.root), STANDARD.encode(leaf))
    }
}

/// Checks one log's answers for one tenant, page by page.
#[derive(Debug, Clone)]
pub struct AccessLogVerifier {
    tenant: String,
    keys: Vec<LogKey>,
    at: Bookmark,
    complete: bool,
}

impl AccessLogVerifier {
    /// From the tenant's first entry of a log on, whose keys are among these.
    ///
    /// # Errors
    /// [`AccessLogFault::NotPinned`] if none of them is the log's.
    pub fn new(tenant: &str, log: &str, keys: &[LogKey]) -> Result<Self, AccessLogFault> {
        let keys: Vec<LogKey> = keys.iter().filter(|key| key.origin() == log).cloned().collect();
        if keys.is_empty() || log.len() > MAX_ORIGIN {
            return Err(AccessLogFault::NotPinned { log: log.to_owned() });
        }
        let leaf = sha256(&[b"blindvault/audit/tenant/v1\0", tenant.as_bytes()]);
        let tree = Checkpoint { size: 0, root: sha256(&[]) };
        let at = Bookmark { log: log.to_owned(), tree, sequence: 0, leaf };
        Ok(Self { tenant: tenant.to_owned(), keys, at, complete: false })
    }

    /// From where a bookmark of the same log and tenant stands.
    #[must_use]
    pub fn resume(self, bookmark: Bookmark) -> Self {
        Self { at: bookmark, ..self }
    }

    /// What to ask next.
    pub fn request(&self, page_size: i32) -> ListAccessesRequest {
        ListAccessesRequest {
            tenant: self.tenant.clone(),
            log: self.at.log.clone(),
            after_sequence: self.at.sequence,
            known_size: self.at.tree.size,
            page_size,
            ..Default::default()
        }
    }

    /// Whether the last answer reached the tenant's last entry.
    pub const fn is_complete(&self) -> bool {
        self.complete
    }

    /// Where it stands.
    pub fn bookmark(&self) -> Bookmark {
        self.at.clone()
    }

    /// Checks an answer to [`Self::request`] and gives its entries. After an error it stands where it stood.
    ///
    /// # Errors
    /// [`AccessLogFault`]: what does not hold.
    pub fn accept(&mut self, answer: &ListAccessesResponse) -> Result<Vec<AccessEntry>, AccessLogFault> {
        if answer.log != self.at.log {
            return Err(AccessLogFault::OtherLog);
        }
        if answer.selection {
            return Err(AccessLogFault::Selection);
        }
        let tree = Checkpoint::verify(&answer.checkpoint, &self.at.log, &self.keys)?;
        if tree.size < self.at.tree.size {
            return Err(AccessLogFault::RolledBack);
        }
        let proof = hashes(&answer.consistency_proof).ok_or(AccessLogFault::Forked)?;
        if !extends(&self.at.tree, &tree, &proof) {
            return Err(AccessLogFault::Forked);
        }
        let (mut sequence, mut leaf) = (self.at.sequence, self.at.leaf);
        let mut entries = Vec::with_capacity(answer.entries.len());
        for item in &answer.entries {
            let entry = proven(&self.tenant, &self.at.log, item, &tree)?;
            if entry.sequence != sequence + 1 {
                return Err(AccessLogFault::Gap { expected: sequence + 1, found: entry.sequence });
            }
            if entry.previous != leaf {
                return Err(AccessLogFault::Chain { sequence: entry.sequence });
            }
            (sequence, leaf) = (entry.sequence, entry.leaf_hash());
            entries.push(entry);
        }
        let complete = self.ends(answer, &tree, (sequence, leaf), &entries)?;
        self.at = Bookmark { log: std::mem::take(&mut self.at.log), tree, sequence, leaf };
        self.complete = complete;
        Ok(entries)
    }

    /// Whether the page is the last one; that it then holds what it must.
    fn ends(
        &self,
        answer: &ListAccessesResponse,
        tree: &Checkpoint,
        (sequence, leaf): (u64, Hash),
        entries: &[AccessEntry],
    ) -> Result<bool, AccessLogFault> {
        let head = answer.head.as_ref().map(|head| proven(&self.tenant, &self.at.log, head, tree)).transpose()?;
        let last = head.as_ref().map_or(0, |head| head.sequence);
        if last < sequence {
            return Err(AccessLogFault::Gap { expected: sequence, found: last });
        }
        if last > sequence {
            let none = entries.is_empty();
            return if none { Err(AccessLogFault::Truncated { sequence: last }) } else { Ok(false) };
        }
        if head.as_ref().is_some_and(|head| head.leaf_hash() != leaf) {
            return Err(AccessLogFault::Chain { sequence });
        }
        // The gateway's own log has the entry of this very call: it is new, and it is here.
        if answer.answered_by == self.at.log {
            let call = entries.iter().find(|entry| entry.index == answer.audit_entry);
            let is_call = call.is_some_and(|entry| match &entry.body {
                AccessBody::Intent { decision, .. } => decision.action == "ListAccesses",
                _ => false,
            });
            if !is_call || answer.audit_entry < self.at.tree.size {
                return Err(AccessLogFault::Stale);
            }
        }
        Ok(true)
    }
}

/// The verified entries of a selection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selected {
    /// The entries.
    pub entries: Vec<AccessEntry>,
    /// Up to which sequence number the gateway says it looked.
    pub seen: u64,
    /// The sequence number of the tenant's last entry.
    pub head: u64,
}

/// Checks a selection: that each entry is in the log, and the tenant's.
pub(super) fn selected(
    tenant: &str,
    keys: &[LogKey],
    answer: &ListAccessesResponse,
) -> Result<Selected, AccessLogFault> {
    let tree = Checkpoint::verify(&answer.checkpoint, &answer.log, keys)?;
    let prove = |item: &AccessLogEntry| proven(tenant, &answer.log, item, &tree);
    let entries = answer.entries.iter().map(prove).collect::<Result<Vec<_>, _>>()?;
    let mut pairs = entries.iter().zip(entries.iter().skip(1));
    if let Some((first, second)) = pairs.find(|(one, next)| one.sequence >= next.sequence) {
        return Err(AccessLogFault::Gap { expected: first.sequence + 1, found: second.sequence });
    }
    let head = answer.head.as_ref().map(prove).transpose()?.map_or(0, |head| head.sequence);
    Ok(Selected { entries, seen: answer.seen_sequence, head })
}

/// An entry of the tenant that is in the log.
fn proven(tenant: &str, log: &str, item: &AccessLogEntry, tree: &Checkpoint) -> Result<AccessEntry, AccessLogFault> {
    let index = item.index;
    let entry = AccessEntry::decode(log, &item.entry)?;
    let path = hashes(&item.inclusion_path).ok_or(AccessLogFault::NotInLog { index })?;
    if entry.index != index || !includes(&entry.leaf_hash(), index, &path, tree) {
        return Err(AccessLogFault::NotInLog { index });
    }
    if entry.tenant != tenant {
        return Err(AccessLogFault::Foreign { index });
    }
    if entry.sequence != item.sequence {
        return Err(AccessLogFault::Malformed("an entry has another sequence number than the answer says"));
    }
    Ok(entry)
}
