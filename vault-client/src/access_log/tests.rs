//! The checks by themselves: trees that are hashed the plain way, keys and bookmarks, bytes that are no entry.

use super::proofs::{Checkpoint, Hash, extends, includes, leaf_hash, sha256};
use super::*;

fn leaves(count: u8) -> Vec<Hash> {
    (0..count).map(|n| leaf_hash(&[n])).collect()
}

fn split(len: usize) -> usize {
    len.next_power_of_two() / 2
}

/// RFC 6962 section 2.1, word by word.
fn root(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => sha256(&[]),
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaves.split_at(split(leaves.len()));
            sha256(&[&[1], &root(left), &root(right)])
        }
    }
}

/// RFC 6962 section 2.1.1.
fn path(at: usize, leaves: &[Hash]) -> Vec<Hash> {
    if leaves.len() <= 1 {
        return Vec::new();
    }
    let (left, right) = leaves.split_at(split(leaves.len()));
    let (mut found, other) =
        if at < left.len() { (path(at, left), root(right)) } else { (path(at - left.len(), right), root(left)) };
    found.push(other);
    found
}

/// RFC 6962 section 2.1.2.
fn subproof(old: usize, leaves: &[Hash], whole: bool) -> Vec<Hash> {
    if old == leaves.len() {
        return if whole { Vec::new() } else { vec![root(leaves)] };
    }
    let (left, right) = leaves.split_at(split(leaves.len()));
    let (mut found, other) = if old <= left.len() {
        (subproof(old, left, whole), root(right))
    } else {
        (subproof(old - left.len(), right, false), root(left))
    };
    found.push(other);
    found
}

fn tree(leaves: &[Hash]) -> Checkpoint {
    Checkpoint { size: leaves.len() as u64, root: root(leaves) }
}

#[test]
fn every_inclusion_path_holds_for_its_own_leaf_and_place_only() {
    for size in 1..=20u8 {
        let all = leaves(size);
        for at in 0..usize::from(size) {
            let proof = path(at, &all);
            for other in 0..usize::from(size) {
                assert_eq!(includes(&all[other], at as u64, &proof, &tree(&all)), other == at, "{size} {at} {other}");
            }
            for wrong in 0..=u64::from(size) {
                assert_eq!(includes(&all[at], wrong, &proof, &tree(&all)), wrong == at as u64);
            }
            for cut in 0..proof.len() {
                assert!(!includes(&all[at], at as u64, &proof[..cut], &tree(&all)));
            }
            let longer: Vec<Hash> = proof.iter().chain(&all[..1]).copied().collect();
            assert!(!includes(&all[at], at as u64, &longer, &tree(&all)));
        }
    }
}

#[test]
fn every_consistency_proof_holds_for_its_own_trees_only() {
    for size in 1..=20u8 {
        let all = leaves(size);
        assert!(extends(&tree(&[]), &tree(&all), &[]));
        for old in 1..=usize::from(size) {
            let proof = subproof(old, &all, true);
            assert!(extends(&tree(&all[..old]), &tree(&all), &proof), "{old} {size}");
            let forked = Checkpoint { size: old as u64, root: leaf_hash(b"another") };
            assert!(!extends(&forked, &tree(&all), &proof), "{old} {size}");
            let rewritten = Checkpoint { size: u64::from(size), root: leaf_hash(b"another") };
            assert!(!extends(&tree(&all[..old]), &rewritten, &proof));
            for cut in 0..proof.len() {
                assert!(!extends(&tree(&all[..old]), &tree(&all), &proof[..cut]));
            }
        }
    }
}

/// The verifier key and the note of the C2SP specification (signed-note): `cat` and the log's key are another's work.
#[test]
fn keys_are_read_and_others_refused() {
    let key = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    let parsed = LogKey::parse(key).unwrap();
    assert_eq!(parsed.origin(), "PeterNeumann");
    let note = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n\n\
        — PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
    // The signature holds; the text is no checkpoint.
    let read = Checkpoint::verify(note, "PeterNeumann", std::slice::from_ref(&parsed));
    assert!(matches!(read, Err(AccessLogFault::Malformed(_))), "{read:?}");
    let altered =
        Checkpoint::verify(&note.replacen("think", "thing", 1), "PeterNeumann", std::slice::from_ref(&parsed));
    assert_eq!(altered, Err(AccessLogFault::Signature));
    assert_eq!(Checkpoint::verify(note, "PeterNeumann", &[]), Err(AccessLogFault::Signature));
    for wrong in
        ["", "PeterNeumann", "x+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW", &key.replace("AR", "BR")]
    {
        assert_eq!(LogKey::parse(wrong), Err(AccessLogFault::Key), "{wrong}");
    }
}

#[test]
fn a_bookmark_is_one_line_and_reads_back() {
    let key = LogKey::parse("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW").unwrap();
    let bookmark = AccessLogVerifier::new("acme", "PeterNeumann", std::slice::from_ref(&key)).unwrap().bookmark();
    let text = bookmark.to_string();
    assert_eq!(Bookmark::parse(&text).unwrap(), bookmark);
    assert_eq!(Bookmark::parse(&format!("{text}\n")).unwrap(), bookmark);
    for wrong in ["", "a 1", &text.replace(' ', "  "), &format!("{text} x")] {
        assert!(Bookmark::parse(wrong).is_err(), "{wrong}");
    }
    assert!(matches!(AccessLogVerifier::new("acme", "other", &[key]), Err(AccessLogFault::NotPinned { .. })));
}

/// The example of docs/audit.md, byte by byte; and nothing that was cut, or goes on.
#[test]
fn the_documented_entry_reads_and_no_other_bytes_do() {
    let text = "010230313233343536373839616263646566000000000000000500000 18bcfe56800\
        0111111111111111111111111111111111\
        01000461636d650000000000000001\
        965c81aa876aa71924bb86eb5069cfbdbe3b7e06d598423f6f9fc8a5a2f5e99c\
        00000000000000040100037461670000000000"
        .replace(' ', "");
    let bytes: Vec<u8> =
        (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap()).collect();
    let entry = AccessEntry::decode("log", &bytes).unwrap();
    let hash: String = entry.leaf_hash().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hash, "c7a4a3866fab849fa06454d2c99d614a0ac9a3d20847114cd64037d57cf28a53");
    assert_eq!((entry.index, entry.sequence, entry.time_ms), (5, 1, 1_700_000_000_000));
    let outcome = AccessBody::Outcome { intent: 4, status: "failed", why: "tag".into(), items: 0 };
    assert_eq!((&entry.body, entry.tenant.as_str()), (&outcome, "acme"));
    assert_eq!(entry.previous, sha256(&[b"blindvault/audit/tenant/v1\0acme"]));
    for len in 0..bytes.len() {
        assert!(AccessEntry::decode("log", &bytes[..len]).is_err(), "{len}");
    }
    assert!(AccessEntry::decode("log", &[bytes.as_slice(), &[0]].concat()).is_err());
}
