//! Audit receipts: what a caller keeps of a call, to show later what the log held (docs/audit.md, "Audit receipts").

use std::fmt::Write as _;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::checkpoint::Checkpoint;
use super::group::Audited;
use super::merkle::Hash;
use super::multiproof;
use super::note::MAX_NOTE;
use super::queue::Receipt;
use super::signer::LogVerifier;
use crate::error::Error;

/// Most entries that one receipt names.
pub const MAX_RECEIPT_ENTRIES: usize = 1000;
const FIRST_LINE: &str = "blindvault/audit-receipt/v1";
/// Most hashes: for each entry a path of 64.
const MAX_HASHES: usize = 64 * MAX_RECEIPT_ENTRIES;
/// Longest receipt text in bytes: every line is shorter than 80.
const MAX_TEXT: usize = (MAX_RECEIPT_ENTRIES + MAX_HASHES) * 80 + MAX_NOTE;

/// Shows that the log, as it was at the end of one commit group, held these entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditReceipt {
    /// The entries, by ascending index.
    pub entries: Vec<Receipt>,
    /// The subtrees that hold none of them, left to right.
    pub hashes: Vec<Hash>,
    /// The log at the end of the group: a signed checkpoint.
    pub checkpoint: String,
}

impl AuditReceipt {
    /// The receipts for some durable entries, one for each commit group among them, in the order of the log.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the group's head cannot be signed.
    pub fn of<'a>(entries: impl IntoIterator<Item = &'a Audited>) -> Result<Vec<Self>, Error> {
        let mut all: Vec<&Audited> = entries.into_iter().collect();
        all.sort_by_key(|audited| audited.entry().index);
        all.dedup_by_key(|audited| audited.entry().index);
        let mut receipts = Vec::new();
        for group in all.chunk_by(|a, b| Arc::ptr_eq(a.group(), b.group())) {
            for part in group.chunks(MAX_RECEIPT_ENTRIES) {
                let Some(first) = part.first() else { continue };
                let entries: Vec<Receipt> = part.iter().map(|audited| audited.entry()).collect();
                let indexes: Vec<u64> = entries.iter().map(|entry| entry.index).collect();
                let group = first.group();
                let hashes = multiproof::prove(&**group, &indexes, group.head.size)?;
                receipts.push(Self { entries, hashes, checkpoint: group.note()?.to_owned() });
            }
        }
        Ok(receipts)
    }

    /// Checks form, signature and path.
    ///
    /// That the log still holds the entries is another question: [`super::verify`] answers it for a copy of the log, with
    /// [`super::VerifyOptions::keep`].
    ///
    /// # Errors
    /// [`Error::Corrupt`] saying what does not hold.
    pub fn verify(&self, verifier: &LogVerifier) -> Result<Checkpoint, Error> {
        let refuse = |why: &'static str| Error::corrupt("audit receipt", why);
        if self.entries.len() > MAX_RECEIPT_ENTRIES || self.hashes.len() > MAX_HASHES {
            return Err(refuse("it names more than 1,000 entries, or has more hashes than they need"));
        }
        let head = Checkpoint::verify(&self.checkpoint, verifier)?;
        let leaves: Vec<_> = self.entries.iter().map(|entry| (entry.index, entry.leaf_hash)).collect();
        let root = multiproof::root(&leaves, head.size, &self.hashes).ok_or_else(|| {
            refuse("the entries are not in ascending order below the size, or the hashes are not theirs")
        })?;
        if root == head.root { Ok(head) } else { Err(refuse("the hashes do not lead to the checkpoint's root")) }
    }

    /// The text form.
    pub fn text(&self) -> String {
        let mut out = format!("{FIRST_LINE}\n");
        for Receipt { index, leaf_hash } in &self.entries {
            // Writing to a String cannot fail.
            let _ = writeln!(out, "entry {index} {}", STANDARD.encode(leaf_hash));
        }
        for hash in &self.hashes {
            let _ = writeln!(out, "{}", STANDARD.encode(hash));
        }
        out.push('\n');
        out.push_str(&self.checkpoint);
        out
    }

    /// Reads the text form; nothing is verified yet.
    ///
    /// # Errors
    /// [`Error::Corrupt`] naming what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let refuse = |why: &'static str| Error::corrupt("audit receipt", why);
        if text.len() > MAX_TEXT {
            return Err(refuse("the text is too long"));
        }
        let (head, checkpoint) = text.split_once("\n\n").ok_or_else(|| refuse("there is no empty line"))?;
        let mut lines = head.split('\n');
        if lines.next() != Some(FIRST_LINE) {
            return Err(refuse("the first line is not that of an audit receipt, or of another version"));
        }
        let hash = |text: &str| STANDARD.decode(text).ok().and_then(|bytes| Hash::try_from(bytes).ok());
        let (mut entries, mut hashes) = (Vec::new(), Vec::new());
        for line in lines {
            if let Some(entry) = line.strip_prefix("entry ") {
                let parsed = entry.split_once(' ').and_then(|(index, leaf)| Some((index.parse().ok()?, hash(leaf)?)));
                let (index, leaf_hash) = parsed.ok_or_else(|| refuse("an entry's line is malformed"))?;
                entries.push(Receipt { index, leaf_hash });
            } else {
                hashes.push(hash(line).ok_or_else(|| refuse("a line is neither an entry nor a hash"))?);
            }
        }
        let receipt = Self { entries, hashes, checkpoint: checkpoint.to_owned() };
        // One way to write each receipt: no other order of lines, no leading zeros.
        if receipt.text() == text { Ok(receipt) } else { Err(refuse("not as a receipt is written")) }
    }
}

#[cfg(test)]
#[path = "receipt_tests.rs"]
mod tests;
