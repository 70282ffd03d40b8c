//! Inclusion proofs, consistency proofs and audit receipts verify for what they were made of, and for nothing else: no
//! other leaf, place, older tree or checkpoint passes with any change of a proof.
#![no_main]

use arbitrary::Arbitrary;
use blindvault_fuzz::note::Signer;
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;
use vault_core::Error;
use vault_core::audit::merkle::{
    Edge, Hash, Subtrees, consistency_proof, inclusion_proof, leaf_hash, verify_consistency, verify_inclusion,
};
use vault_core::audit::{AuditReceipt, LogVerifier, Receipt};

#[derive(Debug, Arbitrary)]
enum Spoil {
    Hash(u8, u8, u8),
    Drop(u8),
    Swap(u8, u8),
    Add(u8, u8),
}

#[derive(Debug, Arbitrary)]
struct Input {
    leaves: Vec<u8>,
    index: u8,
    old: u8,
    /// What is claimed instead.
    claimed: (Option<u8>, Option<u8>),
    spoils: Vec<Spoil>,
    named: Vec<u8>,
}

static LOG: LazyLock<Signer> = LazyLock::new(|| Signer::new("example/log", 1));
static VERIFIER: LazyLock<LogVerifier> = LazyLock::new(|| LogVerifier::parse(&LOG.vkey()).unwrap());

struct Tree(Vec<Hash>);

impl Tree {
    fn root(&self, from: usize, to: usize) -> Hash {
        let mut edge = Edge::new();
        self.0[from..to].iter().for_each(|leaf| edge.push(*leaf));
        edge.root()
    }

    /// The roots of the largest subtrees that hold none of the indexes.
    fn others(&self, from: usize, to: usize, indexes: &[usize], out: &mut Vec<Hash>) {
        if !indexes.iter().any(|index| (from..to).contains(index)) {
            out.push(self.root(from, to));
        } else if to - from > 1 {
            let middle = from + (to - from).next_power_of_two() / 2;
            self.others(from, middle, indexes, out);
            self.others(middle, to, indexes, out);
        }
    }
}

impl Subtrees for Tree {
    fn subtree(&self, level: u32, index: u64) -> Result<Hash, Error> {
        let from = (index as usize) << level;
        Ok(self.root(from, from + (1 << level)))
    }
}

fn spoil(proof: &mut Vec<Hash>, tree: &Tree, spoils: &[Spoil]) {
    for one in spoils.iter().take(3) {
        let len = proof.len().max(1);
        match one {
            Spoil::Hash(at, byte, mask) => {
                if let Some(hash) = proof.get_mut(usize::from(*at) % len) {
                    hash[usize::from(byte % 32)] ^= mask;
                }
            }
            Spoil::Drop(at) if !proof.is_empty() => drop(proof.remove(usize::from(*at) % len)),
            Spoil::Swap(one, two) if !proof.is_empty() => proof.swap(usize::from(*one) % len, usize::from(*two) % len),
            Spoil::Add(at, leaf) => {
                let hash = tree.0[usize::from(*leaf) % tree.0.len()];
                proof.insert(usize::from(*at) % (proof.len() + 1), hash);
            }
            _ => {}
        }
    }
}

fn receipts(tree: &Tree, input: &Input) {
    let size = tree.0.len();
    let mut indexes: Vec<usize> = input.named.iter().take(5).map(|one| usize::from(*one) % size).collect();
    indexes.sort_unstable();
    indexes.dedup();
    if indexes.is_empty() {
        return;
    }
    let mut hashes = Vec::new();
    tree.others(0, size, &indexes, &mut hashes);
    let entries = indexes.iter().map(|at| Receipt { index: *at as u64, leaf_hash: tree.0[*at] }).collect();
    let checkpoint = LOG.note(&LOG.checkpoint(size as u64, &tree.root(0, size)));
    let receipt = AuditReceipt { entries, hashes, checkpoint };
    assert_eq!(receipt.verify(&VERIFIER).unwrap().size, size as u64);
    assert_eq!(AuditReceipt::parse(&receipt.text()).unwrap(), receipt);
    let mut other = receipt.clone();
    spoil(&mut other.hashes, tree, &input.spoils);
    if let (Some(leaf), Some(entry)) = (input.claimed.1, other.entries.first_mut()) {
        entry.leaf_hash = tree.0[usize::from(leaf) % size];
    }
    assert_eq!(other.verify(&VERIFIER).is_ok(), other == receipt, "another receipt verifies");
}

fuzz_target!(|input: Input| {
    if input.leaves.is_empty() || input.leaves.len() > 80 {
        return;
    }
    // Equal bytes give equal leaves.
    let tree = Tree(input.leaves.iter().map(|byte| leaf_hash(&[*byte])).collect());
    let size = tree.0.len();
    let root = tree.root(0, size);
    let index = usize::from(input.index) % size;
    let proof = inclusion_proof(&tree, index as u64, size as u64).unwrap();
    let mut other = proof.clone();
    spoil(&mut other, &tree, &input.spoils);
    let claimed = input.claimed.0.map_or(index, |at| usize::from(at) % size);
    let leaf = input.claimed.1.map_or(tree.0[index], |at| tree.0[usize::from(at) % size]);
    let is_proof = leaf == tree.0[claimed] && other == inclusion_proof(&tree, claimed as u64, size as u64).unwrap();
    assert_eq!(verify_inclusion(&leaf, claimed as u64, size as u64, &other, &root), is_proof);

    let old = usize::from(input.old) % (size + 1);
    let (old_root, mut other) = (tree.root(0, old), consistency_proof(&tree, old as u64, size as u64).unwrap());
    let proof = other.clone();
    spoil(&mut other, &tree, &input.spoils);
    let claimed = input.claimed.0.map_or(old_root, |at| tree.root(0, usize::from(at) % (size + 1)));
    let is_proof = claimed == old_root && other == proof;
    assert_eq!(verify_consistency(old as u64, &claimed, size as u64, &root, &other), is_proof);
    receipts(&tree, &input);
});
