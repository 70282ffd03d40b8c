//! The states of a store and of its policies, as the log keeps them.

use super::entry::Body;
use crate::id::Fingerprint;
use crate::principal::ListRef;

/// The event of a [`Body::System`]; the chain's head stands in the detail, in hexadecimal, the epoch behind it.
const EVENT: &str = "store_anchor";
/// The event of a policy bundle in force; its digest stands in the detail, in hexadecimal, its version and the epoch
/// behind it.
const POLICY_EVENT: &str = "policy_bundle";
/// The event of a list of operators in force; its digest stands in the detail, in hexadecimal, its version behind it.
const OPERATORS_EVENT: &str = "operators";

/// A state of all rows of a store: a number that grows with each change, and the head of the chain of all changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Anchor {
    /// The store's epoch.
    pub epoch: u64,
    /// SHA-256 over everything that was changed up to it.
    pub chain: [u8; 32],
}

/// A policy bundle that came into force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PolicyMark {
    /// Its version.
    pub version: u64,
    /// SHA-256 of its content.
    pub digest: [u8; 32],
}

fn hex(bytes: &[u8; 32]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The 32 bytes in the detail of an event of this name, and its first number.
fn read(body: &Body, name: &str) -> Option<([u8; 32], u64)> {
    let Body::System { event, detail, first, .. } = body else { return None };
    if event != name || detail.len() != 64 {
        return None;
    }
    let mut bytes = [0; 32];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(detail.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some((bytes, *first))
}

impl Anchor {
    /// As an entry.
    pub(super) fn body(self) -> Body {
        Body::System { event: EVENT.to_owned(), detail: hex(&self.chain), first: self.epoch, second: 0 }
    }

    /// From an entry, if it is one.
    pub(super) fn from_body(body: &Body) -> Option<Self> {
        read(body, EVENT).map(|(chain, epoch)| Self { epoch, chain })
    }
}

impl PolicyMark {
    /// As an entry, with the policy epoch.
    pub(super) fn body(self, epoch: u64) -> Body {
        Body::System { event: POLICY_EVENT.to_owned(), detail: hex(&self.digest), first: self.version, second: epoch }
    }

    /// From an entry, if it is one.
    pub(super) fn from_body(body: &Body) -> Option<Self> {
        read(body, POLICY_EVENT).map(|(digest, version)| Self { version, digest })
    }
}

/// A list of operators in force, as an entry.
pub(super) fn operators_body(list: ListRef) -> Body {
    Body::System { event: OPERATORS_EVENT.to_owned(), detail: hex(&list.digest.0), first: list.version, second: 0 }
}

/// The same from an entry, if it is one.
pub(super) fn operators_from_body(body: &Body) -> Option<ListRef> {
    read(body, OPERATORS_EVENT).map(|(digest, version)| ListRef { version, digest: Fingerprint(digest) })
}

/// Of two lists of operators, the second later: the one with the higher version.
pub(super) fn newest_list(later: Option<ListRef>, before: Option<ListRef>) -> Option<ListRef> {
    match (later, before) {
        (Some(later), Some(before)) if later.version < before.version => Some(before),
        (later, before) => later.or(before),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_anchor_comes_back_from_its_entry_and_from_no_other() {
        let anchor = Anchor { epoch: 7, chain: std::array::from_fn(|at| at as u8 * 8) };
        assert_eq!(Anchor::from_body(&anchor.body()), Some(anchor));
        let mark = PolicyMark { version: 7, digest: anchor.chain };
        assert_eq!(PolicyMark::from_body(&mark.body(3)), Some(mark));
        assert_eq!((PolicyMark::from_body(&anchor.body()), Anchor::from_body(&mark.body(3))), (None, None));
        let list = ListRef { version: 7, digest: Fingerprint(anchor.chain) };
        assert_eq!(operators_from_body(&operators_body(list)), Some(list));
        assert_eq!((operators_from_body(&mark.body(3)), PolicyMark::from_body(&operators_body(list))), (None, None));
        let older = ListRef { version: 6, ..list };
        assert_eq!(newest_list(Some(older), Some(list)), Some(list));
        assert_eq!((newest_list(Some(list), Some(older)), newest_list(None, Some(list))), (Some(list), Some(list)));
        let body = |event: &str, detail: String| Body::System { event: event.into(), detail, first: 7, second: 0 };
        for body in [body("started", "0".repeat(64)), body(EVENT, "0".repeat(63)), body(EVENT, "\u{e9}".repeat(32))] {
            assert_eq!(Anchor::from_body(&body), None);
        }
    }
}
