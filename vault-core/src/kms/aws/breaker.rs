//! A circuit breaker: a root key that does not answer is left alone for a while, and callers are told at once.
//!
//! ```text
//! closed ── failures in a row ──▶ open ── pause over, one caller asks ──▶ half-open
//!   ▲                              ▲                                        │   │
//!   └──────────────────────────────┼──────────── it answered ───────────────┘   │
//!                                  └──────────── it did not ────────────────────┘
//! ```

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::time::Clock;

/// When the breaker opens, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerSettings {
    /// Attempts in a row without an answer that open it (default 10).
    pub failures: u32,
    /// How long it stays open before one caller may try (default 5 s).
    pub pause: Duration,
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self { failures: 10, pause: Duration::from_secs(5) }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// So many failures in a row.
    Closed(u32),
    /// Until this time of the monotonic clock, in milliseconds.
    Open(u64),
    /// One caller is trying.
    HalfOpen,
}

/// The breaker of one root key.
#[derive(Debug)]
pub(super) struct Breaker {
    settings: BreakerSettings,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

/// The right to make one attempt. It says how the attempt went, or that nothing is known.
#[derive(Debug)]
#[must_use]
pub(super) struct Attempt<'a> {
    breaker: &'a Breaker,
    probe: bool,
    told: bool,
}

impl Breaker {
    /// A closed breaker.
    pub(super) const fn new(settings: BreakerSettings, clock: Arc<dyn Clock>) -> Self {
        Self { settings, clock, state: Mutex::new(State::Closed(0)) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // One word is written under this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a caller make one attempt; `None` while the breaker is open.
    pub(super) fn attempt(&self) -> Option<Attempt<'_>> {
        let mut state = self.lock();
        let probe = match *state {
            State::Closed(_) => false,
            State::Open(until) if self.clock.monotonic_millis() >= until => {
                *state = State::HalfOpen;
                true
            }
            State::Open(_) | State::HalfOpen => return None,
        };
        Some(Attempt { breaker: self, probe, told: false })
    }

    /// Whether an attempt would be refused now.
    pub(super) fn is_open(&self) -> bool {
        match *self.lock() {
            State::Closed(_) => false,
            State::Open(until) => self.clock.monotonic_millis() < until,
            State::HalfOpen => true,
        }
    }

    fn opened(&self) -> State {
        let pause = u64::try_from(self.settings.pause.as_millis()).unwrap_or(u64::MAX);
        State::Open(self.clock.monotonic_millis().saturating_add(pause))
    }
}

impl Attempt<'_> {
    /// The root key answered, whatever it said.
    pub(super) fn answered(mut self) {
        self.told = true;
        let mut state = self.breaker.lock();
        // An attempt that began before the breaker opened does not close it: it says nothing about now.
        if self.probe || matches!(*state, State::Closed(_)) {
            *state = State::Closed(0);
        }
    }

    /// The root key did not answer, or made no sense.
    pub(super) fn failed(mut self) {
        self.told = true;
        let mut state = self.breaker.lock();
        *state = match *state {
            _ if self.probe => self.breaker.opened(),
            State::Closed(before) if before.saturating_add(1) >= self.breaker.settings.failures => {
                self.breaker.opened()
            }
            State::Closed(before) => State::Closed(before.saturating_add(1)),
            already => already,
        };
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        // The caller went away. If it was the one that tried, the next caller tries, at once.
        if self.probe && !self.told {
            *self.breaker.lock() = State::Open(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::{ManualClock, Timestamp};

    fn breaker() -> (Arc<ManualClock>, Breaker) {
        let clock = Arc::new(ManualClock::new(Timestamp(0)));
        let settings = BreakerSettings { failures: 3, pause: Duration::from_secs(5) };
        (Arc::clone(&clock), Breaker::new(settings, clock))
    }

    fn fail(breaker: &Breaker, times: u32) {
        for _ in 0..times {
            breaker.attempt().unwrap().failed();
        }
    }

    #[test]
    fn it_opens_after_failures_in_a_row_only() {
        let (_, breaker) = breaker();
        fail(&breaker, 2);
        breaker.attempt().unwrap().answered();
        fail(&breaker, 2);
        assert!(!breaker.is_open());
        fail(&breaker, 1);
        assert!(breaker.is_open() && breaker.attempt().is_none());
    }

    #[test]
    fn after_the_pause_one_caller_tries_and_decides_for_all() {
        let (clock, breaker) = breaker();
        fail(&breaker, 3);
        clock.advance_millis(4_999);
        assert!(breaker.attempt().is_none());
        clock.advance_millis(1);
        let probe = breaker.attempt().unwrap();
        assert!(breaker.attempt().is_none(), "one at a time");
        probe.failed();
        assert!(breaker.attempt().is_none());
        clock.advance_millis(5_000);
        breaker.attempt().unwrap().answered();
        fail(&breaker, 2);
        assert!(!breaker.is_open(), "the count starts anew");
    }

    #[test]
    fn a_probe_that_goes_away_lets_the_next_one_try() {
        let (clock, breaker) = breaker();
        fail(&breaker, 3);
        clock.advance_millis(5_000);
        drop(breaker.attempt().unwrap());
        breaker.attempt().unwrap().answered();
        assert!(!breaker.is_open());
    }

    #[test]
    fn stragglers_of_a_closed_breaker_neither_close_nor_prolong_an_open_one() {
        let (clock, breaker) = breaker();
        let (good, bad, gone) = (breaker.attempt().unwrap(), breaker.attempt().unwrap(), breaker.attempt().unwrap());
        fail(&breaker, 3);
        good.answered();
        assert!(breaker.is_open());
        clock.advance_millis(4_000);
        bad.failed();
        drop(gone);
        clock.advance_millis(1_000);
        assert!(breaker.attempt().is_some());
    }
}
