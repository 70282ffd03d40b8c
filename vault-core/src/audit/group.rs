//! A commit group: the tree at its end, and the nodes that its entries made, from which their receipts follow.
//!
//! The writer hashes nothing more for it than the tree needs anyway, and signs nothing: the group's head is signed once,
//! by the first who asks for a receipt.

use std::fmt;
use std::sync::{Arc, OnceLock};

use super::checkpoint::Checkpoint;
use super::merkle::{Edge, Hash, Subtrees};
use super::queue::Receipt;
use super::signer::LogSigner;
use crate::error::Error;

/// The group that is being written.
pub(super) struct Growing {
    before: Edge,
    /// The nodes that are complete since then: by level, left to right.
    levels: Vec<Vec<Hash>>,
}

impl Growing {
    pub(super) fn after(before: &Edge) -> Self {
        Self { before: before.clone(), levels: Vec::new() }
    }

    /// Appends a leaf to the tree.
    pub(super) fn push(&mut self, edge: &mut Edge, leaf: Hash) {
        let levels = &mut self.levels;
        edge.push_with(leaf, |level, node| {
            if levels.len() <= level {
                levels.push(Vec::new());
            }
            if let Some(made) = levels.get_mut(level) {
                made.push(node);
            }
        });
    }

    /// The group as it was committed; the next begins at `edge`.
    pub(super) fn finish(&mut self, edge: &Edge, head: Checkpoint, signer: Arc<LogSigner>) -> Group {
        let Self { before, levels } = std::mem::replace(self, Self::after(edge));
        Group { before, levels, head, signer, note: OnceLock::new() }
    }
}

/// A group that is durable.
pub(super) struct Group {
    before: Edge,
    levels: Vec<Vec<Hash>>,
    pub(super) head: Checkpoint,
    signer: Arc<LogSigner>,
    note: OnceLock<Result<String, Error>>,
}

impl Group {
    /// The head as a checkpoint of the log, signed once a group.
    pub(super) fn note(&self) -> Result<&str, Error> {
        let note = self.note.get_or_init(|| self.head.sign(&self.signer));
        note.as_deref().map_err(Clone::clone)
    }
}

/// The subtrees that proofs of the group's own entries need: those within it, and the edge before it.
impl Subtrees for Group {
    fn subtree(&self, level: u32, index: u64) -> Result<Hash, Error> {
        let outside = Error::invalid("index", "the subtree is not one of the group");
        let first = self.before.size().checked_shr(level).unwrap_or(0);
        let Some(at) = index.checked_sub(first) else {
            return self.before.perfect(level, index).ok_or(outside);
        };
        let made = usize::try_from(level).ok().and_then(|level| self.levels.get(level));
        let node = made.zip(usize::try_from(at).ok()).and_then(|(made, at)| made.get(at));
        node.copied().ok_or(outside)
    }
}

/// A durable entry together with what its receipt is made of. Cheap to copy.
#[derive(Clone)]
pub struct Audited {
    receipt: Receipt,
    group: Arc<Group>,
}

impl Audited {
    pub(super) const fn new(receipt: Receipt, group: Arc<Group>) -> Self {
        Self { receipt, group }
    }

    /// The entry.
    pub const fn entry(&self) -> Receipt {
        self.receipt
    }

    pub(super) fn group(&self) -> &Arc<Group> {
        &self.group
    }
}

impl fmt::Debug for Audited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Audited").field("entry", &self.receipt).field("head", &self.group.head).finish_non_exhaustive()
    }
}

impl PartialEq for Audited {
    fn eq(&self, other: &Self) -> bool {
        self.receipt == other.receipt && self.group.head == other.group.head
    }
}

impl Eq for Audited {}

#[cfg(test)]
mod tests {
    use super::super::merkle::{inclusion_proof, leaf_hash, verify_inclusion};
    use super::super::test_support::Place;
    use super::*;

    #[test]
    fn every_entry_of_every_group_is_proven_from_the_group_alone() {
        let place = Place::new();
        let signer = Arc::new(place.signer());
        let mut edge = Edge::new();
        let mut growing = Growing::after(&edge);
        let mut n = 0u64;
        // Sizes below, at and above powers of two, on every kind of edge.
        for size in [1, 1, 2, 3, 4, 5, 8, 1, 7, 16, 9, 33, 64, 2, 100] {
            let first = n;
            for _ in 0..size {
                growing.push(&mut edge, leaf_hash(&n.to_be_bytes()));
                n += 1;
            }
            let head = Checkpoint { size: edge.size(), root: edge.root() };
            let group = growing.finish(&edge, head, Arc::clone(&signer));
            for index in first..n {
                let path = inclusion_proof(&group, index, n).unwrap();
                assert!(verify_inclusion(&leaf_hash(&index.to_be_bytes()), index, n, &path, &head.root));
            }
            let note = group.note().unwrap();
            assert_eq!(Checkpoint::verify(note, signer.verifier()).unwrap(), head);
            assert!(std::ptr::eq(note, group.note().unwrap()), "signed once");
        }
    }
}
