//! One proof for several leaves of one tree: the subtrees of RFC 6962 section 2.1 that hold none of them.
//!
//! The tree is walked from its root, left before right. A subtree without a named leaf is given by its hash; a named leaf
//! is known to the verifier. For a single leaf these are the hashes of its inclusion path, in another order; leaves that
//! stand together share most of theirs.

use super::merkle::{Hash, Subtrees, node_hash, range_root, split};
use crate::error::Error;

/// The proof that the leaves `indexes` (strictly ascending) are in the tree of `size` leaves.
///
/// # Errors
/// [`Error::Invalid`] unless `indexes` ascend strictly and stay below `size`; what `tree` returns.
pub(super) fn prove(tree: &dyn Subtrees, indexes: &[u64], size: u64) -> Result<Vec<Hash>, Error> {
    if !ascend(indexes.iter().copied(), size) {
        return Err(Error::invalid("index", "must ascend, and stay below the tree size"));
    }
    let mut hashes = Vec::new();
    walk(tree, indexes, 0, size, &mut hashes)?;
    Ok(hashes)
}

/// Whether there is a first, each is larger than the one before, and the last is below `size`.
pub(super) fn ascend(indexes: impl Iterator<Item = u64>, size: u64) -> bool {
    let mut next = 0;
    let mut any = false;
    for index in indexes {
        if index < next || index >= size {
            return false;
        }
        any = true;
        next = index + 1;
    }
    any
}

fn walk(tree: &dyn Subtrees, indexes: &[u64], from: u64, to: u64, out: &mut Vec<Hash>) -> Result<(), Error> {
    if indexes.is_empty() {
        out.push(range_root(tree, from, to)?);
    } else if to - from > 1 {
        let middle = from + split(to - from);
        let (left, right) = indexes.split_at(indexes.partition_point(|index| *index < middle));
        walk(tree, left, from, middle, out)?;
        walk(tree, right, middle, to, out)?;
    }
    Ok(())
}

/// The root that the proof leads to from these leaves (index and hash, strictly ascending) in a tree of `size`; `None` if
/// the proof has not exactly the hashes that it needs.
pub(super) fn root(leaves: &[(u64, Hash)], size: u64, hashes: &[Hash]) -> Option<Hash> {
    if !ascend(leaves.iter().map(|leaf| leaf.0), size) {
        return None;
    }
    let mut rest = hashes.iter();
    let root = fold(leaves, 0, size, &mut rest)?;
    rest.next().is_none().then_some(root)
}

fn fold(leaves: &[(u64, Hash)], from: u64, to: u64, rest: &mut std::slice::Iter<'_, Hash>) -> Option<Hash> {
    if leaves.is_empty() {
        return rest.next().copied();
    }
    if to - from == 1 {
        return leaves.first().map(|leaf| leaf.1);
    }
    let middle = from + split(to - from);
    let (left, right) = leaves.split_at(leaves.partition_point(|leaf| leaf.0 < middle));
    let left = fold(left, from, middle, rest)?;
    Some(node_hash(&left, &fold(right, middle, to, rest)?))
}

#[cfg(test)]
mod tests {
    use super::super::merkle::{Edge, leaf_hash};
    use super::*;

    struct Leaves(Vec<Hash>);

    impl Subtrees for Leaves {
        fn subtree(&self, level: u32, index: u64) -> Result<Hash, Error> {
            let mut edge = Edge::new();
            let (n, at) = (1usize << level, usize::try_from(index).unwrap() << level);
            self.0[at..at + n].iter().for_each(|leaf| edge.push(*leaf));
            Ok(edge.root())
        }
    }

    #[test]
    fn every_set_of_leaves_of_small_trees_proves_the_root_and_no_altered_proof_does() {
        for size in 1..=9u64 {
            let tree = Leaves((0..size).map(|n| leaf_hash(&n.to_be_bytes())).collect());
            let mut edge = Edge::new();
            tree.0.iter().for_each(|leaf| edge.push(*leaf));
            for set in 1..1u64 << size {
                let indexes: Vec<u64> = (0..size).filter(|n| set >> n & 1 == 1).collect();
                let leaves: Vec<_> = indexes.iter().map(|n| (*n, tree.0[usize::try_from(*n).unwrap()])).collect();
                let proof = prove(&tree, &indexes, size).unwrap();
                assert_eq!(root(&leaves, size, &proof), Some(edge.root()));
                for at in 0..proof.len() {
                    let mut bad = proof.clone();
                    bad[at][5] ^= 1;
                    assert_ne!(root(&leaves, size, &bad), Some(edge.root()));
                    bad.remove(at);
                    assert_ne!(root(&leaves, size, &bad), Some(edge.root()));
                }
                let mut longer = proof.clone();
                longer.push([0; 32]);
                assert_eq!(root(&leaves, size, &longer), None);
                for at in 0..leaves.len() {
                    let mut bad = leaves.clone();
                    bad[at].1[0] ^= 1;
                    assert_ne!(root(&bad, size, &proof), Some(edge.root()));
                    bad[at] = leaves[0];
                    assert!(at == 0 || root(&bad, size, &proof).is_none());
                }
            }
        }
    }

    #[test]
    fn what_does_not_ascend_or_is_outside_is_refused() {
        let tree = Leaves(vec![[1; 32], [2; 32]]);
        for indexes in [&[][..], &[2], &[1, 0], &[0, 0]] {
            assert!(prove(&tree, indexes, 2).is_err());
        }
        assert!(prove(&tree, &[0], 0).is_err());
    }
}
