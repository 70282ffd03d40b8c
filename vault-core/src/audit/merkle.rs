//! The Merkle tree of RFC 6962 section 2.1 over SHA-256, as C2SP tlog-tiles uses it.
//!
//! Pure functions: no file is read here. Proofs ask a [`Subtrees`] for the roots of perfect subtrees, of which they
//! need O(log n).

use ring::digest;

use crate::error::Error;

/// A SHA-256 hash.
pub type Hash = [u8; 32];

/// SHA-256 of the parts, one after the other.
pub(super) fn sha256(parts: &[&[u8]]) -> Hash {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part);
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    out
}

/// The hash of a leaf: SHA-256(00 ‖ entry).
pub fn leaf_hash(entry: &[u8]) -> Hash {
    sha256(&[&[0], entry])
}

/// The hash of an inner node: SHA-256(01 ‖ left ‖ right).
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    sha256(&[&[1], left, right])
}

/// The root of the tree without leaves: SHA-256 of nothing.
pub fn empty_root() -> Hash {
    sha256(&[])
}

/// The right edge of a growing tree: the roots of its perfect subtrees, largest first; at most 64 hashes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edge {
    size: u64,
    roots: Vec<Hash>,
}

impl Edge {
    /// The tree without leaves.
    pub const fn new() -> Self {
        Self { size: 0, roots: Vec::new() }
    }

    /// A tree of which this is the edge: for its size, the right number of roots.
    pub(super) const fn of(size: u64, roots: Vec<Hash>) -> Self {
        Self { size, roots }
    }

    /// The roots of its perfect subtrees, largest first.
    pub(super) fn roots(&self) -> &[Hash] {
        &self.roots
    }

    /// How many leaves there are.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Appends one leaf, given as its hash.
    pub fn push(&mut self, leaf: Hash) {
        self.push_with(leaf, |_, _| ());
    }

    /// The same; tells each node that is complete with it, the leaf included: its level, and its hash.
    pub(super) fn push_with(&mut self, leaf: Hash, mut made: impl FnMut(usize, Hash)) {
        let mut node = leaf;
        made(0, node);
        // Each trailing one bit of the size is a perfect subtree of the same height as `node`.
        for (level, _) in (0..self.size.trailing_ones()).enumerate() {
            if let Some(left) = self.roots.pop() {
                node = node_hash(&left, &node);
                made(level + 1, node);
            }
        }
        self.roots.push(node);
        self.size += 1;
    }

    /// The root of the perfect subtree `index` of a level, if it is one of the edge's.
    pub(super) fn perfect(&self, level: u32, index: u64) -> Option<Hash> {
        let place = self.size.checked_shr(level)?;
        if place & 1 == 0 || index + 1 != place {
            return None;
        }
        let smaller = (self.size & ((1 << level) - 1)).count_ones();
        let from_left = self.roots.len().checked_sub(1 + usize::try_from(smaller).ok()?)?;
        self.roots.get(from_left).copied()
    }

    /// The root over all leaves.
    pub fn root(&self) -> Hash {
        let mut from_right = self.roots.iter().rev();
        from_right.next().map_or_else(empty_root, |last| from_right.fold(*last, |right, left| node_hash(left, &right)))
    }
}

/// Where proofs get their hashes from.
pub trait Subtrees {
    /// The root over the leaves `index · 2^level .. (index + 1) · 2^level`.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if it cannot be read, [`Error::Corrupt`] if it is damaged.
    fn subtree(&self, level: u32, index: u64) -> Result<Hash, Error>;
}

/// MTH(D[from..to]) for a range that is a node of some tree: `from` is a multiple of the range's size, rounded up to a
/// power of two.
pub(super) fn range_root(tree: &dyn Subtrees, from: u64, to: u64) -> Result<Hash, Error> {
    let n = to - from;
    if n.is_power_of_two() {
        let level = n.trailing_zeros();
        return tree.subtree(level, from >> level);
    }
    let k = split(n);
    Ok(node_hash(&range_root(tree, from, from + k)?, &range_root(tree, from + k, to)?))
}

/// The largest power of two smaller than `n`, for n ≥ 2.
pub(super) const fn split(n: u64) -> u64 {
    1 << (63 - (n - 1).leading_zeros())
}

/// The path that proves that the leaf `index` is in the tree of `size` leaves (RFC 6962 section 2.1.1), lowest first.
///
/// # Errors
/// [`Error::Invalid`] unless `index < size`; what `tree` returns.
pub fn inclusion_proof(tree: &dyn Subtrees, index: u64, size: u64) -> Result<Vec<Hash>, Error> {
    if index >= size {
        return Err(Error::invalid("index", "must be below the tree size"));
    }
    let (mut from, mut to) = (0, size);
    let mut path = Vec::new();
    while to - from > 1 {
        let middle = from + split(to - from);
        if index < middle {
            path.push(range_root(tree, middle, to)?);
            to = middle;
        } else {
            path.push(range_root(tree, from, middle)?);
            from = middle;
        }
    }
    path.reverse();
    Ok(path)
}

/// True if `proof` shows that `leaf` is number `index` in the tree of `size` leaves with that root (RFC 9162 section
/// 2.1.3.2).
pub fn verify_inclusion(leaf: &Hash, index: u64, size: u64, proof: &[Hash], root: &Hash) -> bool {
    if index >= size {
        return false;
    }
    let (mut fnode, mut snode, mut hash) = (index, size - 1, *leaf);
    for sibling in proof {
        if snode == 0 {
            return false;
        }
        if fnode & 1 == 1 || fnode == snode {
            hash = node_hash(sibling, &hash);
            while fnode & 1 == 0 && fnode != 0 {
                fnode >>= 1;
                snode >>= 1;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        fnode >>= 1;
        snode >>= 1;
    }
    snode == 0 && hash == *root
}

/// The path that proves that the tree of `old` leaves is a prefix of the tree of `new` leaves (RFC 6962 section 2.1.2).
/// Empty if `old` is 0 or equal to `new`.
///
/// # Errors
/// [`Error::Invalid`] unless `old ≤ new`; what `tree` returns.
pub fn consistency_proof(tree: &dyn Subtrees, old: u64, new: u64) -> Result<Vec<Hash>, Error> {
    if old > new {
        return Err(Error::invalid("size", "the older tree must not be larger than the newer"));
    }
    let mut path = Vec::new();
    if old == 0 || old == new {
        return Ok(path);
    }
    let (mut from, mut to) = (0, new);
    // Whether the node just looked at is known to the verifier as the old root itself.
    let mut is_old_root = true;
    while to != old {
        let middle = from + split(to - from);
        if old <= middle {
            path.push(range_root(tree, middle, to)?);
            to = middle;
        } else {
            path.push(range_root(tree, from, middle)?);
            from = middle;
            is_old_root = false;
        }
    }
    if !is_old_root {
        path.push(range_root(tree, from, to)?);
    }
    path.reverse();
    Ok(path)
}

/// True if `proof` shows that the tree of `new` leaves extends the tree of `old` leaves (RFC 9162 section 2.1.4.2).
pub fn verify_consistency(old: u64, old_root: &Hash, new: u64, new_root: &Hash, proof: &[Hash]) -> bool {
    if old > new {
        return false;
    }
    if old == new {
        return proof.is_empty() && old_root == new_root;
    }
    if old == 0 {
        return proof.is_empty() && *old_root == empty_root();
    }
    let mut rest = proof.iter();
    let first = if old.is_power_of_two() { Some(old_root) } else { rest.next() };
    let Some(first) = first else { return false };
    let (mut fnode, mut snode) = (old - 1, new - 1);
    while fnode & 1 == 1 {
        fnode >>= 1;
        snode >>= 1;
    }
    let (mut old_hash, mut new_hash) = (*first, *first);
    for sibling in rest {
        if snode == 0 {
            return false;
        }
        if fnode & 1 == 1 || fnode == snode {
            old_hash = node_hash(sibling, &old_hash);
            new_hash = node_hash(sibling, &new_hash);
            while fnode & 1 == 0 && fnode != 0 {
                fnode >>= 1;
                snode >>= 1;
            }
        } else {
            new_hash = node_hash(&new_hash, sibling);
        }
        fnode >>= 1;
        snode >>= 1;
    }
    snode == 0 && old_hash == *old_root && new_hash == *new_root
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The test leaves of Certificate Transparency (`merkle_tree_test` of the reference implementation).
    const LEAVES: [&str; 8] =
        ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];
    const ROOTS: [&str; 8] = [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];

    /// RFC 6962 section 2.1 word for word.
    fn mth(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => empty_root(),
            [one] => *one,
            _ => {
                let mut k = 1;
                while k * 2 < leaves.len() {
                    k *= 2;
                }
                node_hash(&mth(&leaves[..k]), &mth(&leaves[k..]))
            }
        }
    }

    struct Naive(Vec<Hash>);

    impl Subtrees for Naive {
        fn subtree(&self, level: u32, index: u64) -> Result<Hash, Error> {
            let n = 1usize << level;
            let from = usize::try_from(index).unwrap() * n;
            Ok(mth(&self.0[from..from + n]))
        }
    }

    fn leaves(n: u32) -> Vec<Hash> {
        (0..n).map(|i| leaf_hash(&i.to_be_bytes())).collect()
    }

    #[test]
    fn known_answers() {
        assert_eq!(hex::encode(empty_root()), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        let mut edge = Edge::new();
        assert_eq!(edge.root(), empty_root());
        for (leaf, root) in LEAVES.iter().zip(ROOTS) {
            edge.push(leaf_hash(&hex::decode(leaf).unwrap()));
            assert_eq!(hex::encode(edge.root()), root);
        }
    }

    #[test]
    fn the_edge_is_the_recursive_definition() {
        let leaves = leaves(300);
        let mut edge = Edge::new();
        for (n, leaf) in leaves.iter().enumerate() {
            assert_eq!(edge.root(), mth(&leaves[..n]));
            edge.push(*leaf);
        }
        assert_eq!(edge.size(), 300);
    }

    #[test]
    fn every_inclusion_proof_verifies_and_no_altered_one() {
        let tree = Naive(leaves(40));
        for size in 1..=40u64 {
            let root = mth(&tree.0[..size as usize]);
            for index in 0..size {
                let proof = inclusion_proof(&tree, index, size).unwrap();
                assert!(proof.len() <= 6);
                let leaf = tree.0[index as usize];
                assert!(verify_inclusion(&leaf, index, size, &proof, &root));
                assert!(!verify_inclusion(&root, index, size + 1, &proof, &root));
                assert!(!verify_inclusion(&leaf, index + 1, size, &proof, &root), "{index} {size}");
                for at in 0..proof.len() {
                    let mut bad = proof.clone();
                    bad[at][3] ^= 1;
                    assert!(!verify_inclusion(&leaf, index, size, &bad, &root));
                    bad.remove(at);
                    assert!(!verify_inclusion(&leaf, index, size, &bad, &root));
                }
                let mut longer = proof.clone();
                longer.push(leaf);
                assert!(!verify_inclusion(&leaf, index, size, &longer, &root));
            }
        }
        assert!(inclusion_proof(&tree, 5, 5).is_err());
    }

    #[test]
    fn every_consistency_proof_verifies_and_no_altered_one() {
        let tree = Naive(leaves(40));
        for new in 0..=40u64 {
            let new_root = mth(&tree.0[..new as usize]);
            for old in 0..=new {
                let old_root = mth(&tree.0[..old as usize]);
                let proof = consistency_proof(&tree, old, new).unwrap();
                assert!(verify_consistency(old, &old_root, new, &new_root, &proof), "{old} {new}");
                let mut other = old_root;
                other[0] ^= 1;
                assert!(!verify_consistency(old, &other, new, &new_root, &proof));
                if old > 0 && old < new {
                    assert!(!verify_consistency(old, &old_root, new, &other, &proof));
                }
                for at in 0..proof.len() {
                    let mut bad = proof.clone();
                    bad[at][31] ^= 0x80;
                    assert!(!verify_consistency(old, &old_root, new, &new_root, &bad));
                    bad.remove(at);
                    assert!(!verify_consistency(old, &old_root, new, &new_root, &bad));
                }
                let mut longer = proof.clone();
                longer.push(new_root);
                assert!(!verify_consistency(old, &old_root, new, &new_root, &longer));
            }
        }
        assert!(consistency_proof(&tree, 6, 5).is_err());
    }
}
