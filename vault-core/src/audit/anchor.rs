//! The state of a store, as the log keeps it.

use super::entry::Body;

/// The event of a [`Body::System`]; the chain's head stands in the detail, in hexadecimal, the epoch behind it.
const EVENT: &str = "store_anchor";

/// A state of all rows of a store: a number that grows with each change, and the head of the chain of all changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Anchor {
    /// The store's epoch.
    pub epoch: u64,
    /// SHA-256 over everything that was changed up to it.
    pub chain: [u8; 32],
}

impl Anchor {
    /// As an entry.
    pub(super) fn body(self) -> Body {
        let detail = self.chain.iter().map(|byte| format!("{byte:02x}")).collect();
        Body::System { event: EVENT.to_owned(), detail, first: self.epoch, second: 0 }
    }

    /// From an entry, if it is one.
    pub(super) fn from_body(body: &Body) -> Option<Self> {
        let Body::System { event, detail, first, .. } = body else { return None };
        if event != EVENT || detail.len() != 64 {
            return None;
        }
        let mut chain = [0; 32];
        for (at, byte) in chain.iter_mut().enumerate() {
            *byte = u8::from_str_radix(detail.get(2 * at..2 * at + 2)?, 16).ok()?;
        }
        Some(Self { epoch: *first, chain })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_anchor_comes_back_from_its_entry_and_from_no_other() {
        let anchor = Anchor { epoch: 7, chain: std::array::from_fn(|at| at as u8 * 8) };
        assert_eq!(Anchor::from_body(&anchor.body()), Some(anchor));
        let body = |event: &str, detail: String| Body::System { event: event.into(), detail, first: 7, second: 0 };
        for body in [body("started", "0".repeat(64)), body(EVENT, "0".repeat(63)), body(EVENT, "\u{e9}".repeat(32))] {
            assert_eq!(Anchor::from_body(&body), None);
        }
    }
}
