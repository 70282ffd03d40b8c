//! What a tenant checks of a log by itself: signed checkpoints (C2SP signed-note, tlog-checkpoint), inclusion and
//! consistency (RFC 9162, section 2.1).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest;
use ring::signature::{ED25519, UnparsedPublicKey};

use super::AccessLogFault;

/// A SHA-256 hash.
pub(super) type Hash = [u8; 32];

/// The type of an Ed25519 key in a verifier key, and in its id.
const ED25519_TYPE: u8 = 1;

pub(super) fn sha256(parts: &[&[u8]]) -> Hash {
    let mut context = digest::Context::new(&digest::SHA256);
    parts.iter().for_each(|part| context.update(part));
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    out
}

pub(super) fn leaf_hash(entry: &[u8]) -> Hash {
    sha256(&[&[0], entry])
}

fn node(left: &Hash, right: &Hash) -> Hash {
    sha256(&[&[1], left, right])
}

/// Hashes as an answer carries them, one after the other.
pub(super) fn hashes(bytes: &[u8]) -> Option<Vec<Hash>> {
    let whole = bytes.len().is_multiple_of(32);
    whole.then(|| bytes.chunks_exact(32).filter_map(|hash| hash.try_into().ok()).collect())
}

/// A key that verifies a log's checkpoints. Get it from the vault's operator by another way than from the vault itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogKey {
    origin: String,
    id: [u8; 4],
    public: [u8; 32],
}

impl LogKey {
    /// Reads a verifier key as `log.pub` has it: `origin+id+base64`.
    ///
    /// # Errors
    /// [`AccessLogFault::Key`] if it is none.
    pub fn parse(text: &str) -> Result<Self, AccessLogFault> {
        Self::read(text.trim_end()).ok_or(AccessLogFault::Key)
    }

    fn read(text: &str) -> Option<Self> {
        let (origin, rest) = text.split_once('+')?;
        // The base64 may hold a plus, too.
        let (id, key) = rest.split_once('+')?;
        let key = STANDARD.decode(key).ok()?;
        let (kind, public) = key.split_first()?;
        let public: [u8; 32] = public.try_into().ok()?;
        let [a, b, c, d, ..] = sha256(&[origin.as_bytes(), &[b'\n', ED25519_TYPE], &public]);
        let made = [a, b, c, d];
        let named = id.len() == 8 && u32::from_str_radix(id, 16).ok()? == u32::from_be_bytes(made);
        (*kind == ED25519_TYPE && named && !origin.is_empty()).then(|| Self { origin: origin.into(), id: made, public })
    }

    /// The name of the log.
    pub fn origin(&self) -> &str {
        &self.origin
    }
}

/// How many entries a log has, and the root over them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Checkpoint {
    pub(super) size: u64,
    pub(super) root: Hash,
}

impl Checkpoint {
    /// Of a log, signed by one of its keys.
    pub(super) fn verify(note: &str, origin: &str, keys: &[LogKey]) -> Result<Self, AccessLogFault> {
        let (text, signatures) =
            note.rsplit_once("\n\n").ok_or(AccessLogFault::Malformed("the checkpoint is no note"))?;
        let text = format!("{text}\n");
        let mut signed = false;
        for line in signatures.lines() {
            let (name, signature) = line
                .strip_prefix("— ")
                .and_then(|line| line.split_once(' '))
                .ok_or(AccessLogFault::Malformed("a signature of the checkpoint is none"))?;
            let decoded = STANDARD.decode(signature).unwrap_or_default();
            let Some((id, signature)) = decoded.split_first_chunk::<4>() else { continue };
            for key in keys.iter().filter(|key| key.origin == origin && key.origin == name && key.id == *id) {
                let key = UnparsedPublicKey::new(&ED25519, key.public);
                key.verify(text.as_bytes(), signature).map_err(|_| AccessLogFault::Signature)?;
                signed = true;
            }
        }
        if !signed {
            return Err(AccessLogFault::Signature);
        }
        let mut lines = text.lines();
        let (name, size, root) = (lines.next(), lines.next(), lines.next());
        let size = size.and_then(|size| size.parse().ok());
        let root = root.and_then(|root| Hash::try_from(STANDARD.decode(root).ok()?).ok());
        match (name == Some(origin), size, root, lines.next()) {
            (true, Some(size), Some(root), None) => Ok(Self { size, root }),
            _ => Err(AccessLogFault::Malformed("the checkpoint is not one of this log")),
        }
    }
}

/// Whether the leaf is number `index` in the tree (RFC 9162, section 2.1.3.2).
pub(super) fn includes(leaf: &Hash, index: u64, path: &[Hash], tree: &Checkpoint) -> bool {
    if index >= tree.size {
        return false;
    }
    let (mut at, mut last, mut hash) = (index, tree.size - 1, *leaf);
    for sibling in path {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            hash = node(sibling, &hash);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            hash = node(&hash, sibling);
        }
        at >>= 1;
        last >>= 1;
    }
    last == 0 && hash == tree.root
}

/// Whether the new tree extends the old one (RFC 9162, section 2.1.4.2).
pub(super) fn extends(old: &Checkpoint, new: &Checkpoint, proof: &[Hash]) -> bool {
    if old.size == new.size {
        return proof.is_empty() && old.root == new.root;
    }
    if old.size == 0 || old.size > new.size {
        return old.size == 0 && proof.is_empty();
    }
    let whole: Vec<Hash>;
    let proof = if old.size.is_power_of_two() {
        whole = std::iter::once(old.root).chain(proof.iter().copied()).collect();
        &whole
    } else {
        proof
    };
    let Some((first, rest)) = proof.split_first() else { return false };
    let (mut at, mut last) = (old.size - 1, new.size - 1);
    while at & 1 == 1 {
        at >>= 1;
        last >>= 1;
    }
    let (mut was, mut is) = (*first, *first);
    for sibling in rest {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            was = node(sibling, &was);
            is = node(sibling, &is);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            is = node(&is, sibling);
        }
        at >>= 1;
        last >>= 1;
    }
    last == 0 && was == old.root && is == new.root
}
