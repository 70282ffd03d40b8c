//! Connections that came to nothing, counted by plane and reason: told once a second, so that junk can fill neither the
//! log nor the audit log.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Reasons are decided at compile time, so there are a few dozen at most.
#[derive(Debug, Default)]
pub(crate) struct Refusals(Mutex<Counts>);

type ByReason = BTreeMap<(&'static str, &'static str), u64>;

#[derive(Debug, Default)]
struct Counts {
    /// Since the last time they were taken.
    new: ByReason,
    /// Since the start.
    all: ByReason,
}

impl Refusals {
    pub(crate) fn count(&self, plane: &'static str, reason: &'static str) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Counts { new, all } = &mut *counts;
        for counts in [new, all] {
            let count = counts.entry((plane, reason)).or_default();
            *count = count.saturating_add(1);
        }
    }

    /// What was counted since the last time.
    pub(crate) fn take(&self) -> ByReason {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner).new)
    }

    /// What was counted since the start.
    pub(crate) fn totals(&self) -> ByReason {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).all.clone()
    }
}
