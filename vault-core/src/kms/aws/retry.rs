//! When a failed attempt is tried again: after a random pause, while the deadline allows, and not for ever.

use std::time::Duration;

use crate::crypto::random_bytes;

/// Pauses with "full jitter" (Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015): before
/// attempt n + 1 a random time between nothing and `base · 2^(n-1)`, `cap` at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Backoff {
    /// Bound of the first pause.
    pub(super) base: Duration,
    /// Bound of every pause.
    pub(super) cap: Duration,
    /// Attempts at most, the first one included.
    pub(super) attempts: u32,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { base: Duration::from_millis(50), cap: Duration::from_secs(1), attempts: 5 }
    }
}

impl Backoff {
    /// The pause after attempt number `made` (1 is the first) failed, with `left` until the deadline; `None` to give
    /// up. `random` is uniform over all of `u32`.
    pub(super) fn pause(&self, made: u32, left: Duration, random: u32) -> Option<Duration> {
        if made >= self.attempts {
            return None;
        }
        let doubled = self.base.saturating_mul(1u32.checked_shl(made.saturating_sub(1)).unwrap_or(u32::MAX));
        let bound = doubled.min(self.cap);
        let nanos = bound.as_nanos().saturating_mul(u128::from(random)) >> 32;
        let pause = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        // A pause that ends at the deadline leaves no time for the attempt.
        (pause < left).then_some(pause)
    }
}

/// A number for [`Backoff::pause`]. Without entropy the longest pause.
pub(super) fn random() -> u32 {
    let mut bytes = [0; 4];
    random_bytes(&mut bytes).map_or(u32::MAX, |()| u32::from_ne_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::{Clock as _, ManualClock, Timestamp};

    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn pauses_are_anywhere_below_a_bound_that_doubles_up_to_the_cap() {
        let backoff = Backoff { base: Duration::from_millis(50), cap: Duration::from_millis(300), attempts: 100 };
        let longest = |made| backoff.pause(made, LONG, u32::MAX).unwrap().as_millis();
        // 2^32 - 1 parts of 2^32 of the bound: just below it.
        assert_eq!([1, 2, 3, 4, 5, 40, 99].map(longest), [49, 99, 199, 299, 299, 299, 299]);
        assert_eq!(backoff.pause(1, LONG, 0), Some(Duration::ZERO));
        assert_eq!(backoff.pause(1, LONG, 1 << 31), Some(Duration::from_millis(25)));
    }

    #[test]
    fn attempts_end_with_their_number_or_the_deadline() {
        let backoff = Backoff { attempts: 3, ..Backoff::default() };
        assert!(backoff.pause(2, LONG, u32::MAX).is_some());
        assert_eq!(backoff.pause(3, LONG, 0), None);
        assert_eq!(backoff.pause(1, Duration::ZERO, 0), None);
        assert_eq!(backoff.pause(1, Duration::from_millis(20), u32::MAX), None);
        // A call whose every attempt fails after 400 ms, on a clock that only these pauses and attempts move.
        let (clock, deadline) = (ManualClock::new(Timestamp(0)), 5_000);
        let patient = Backoff { attempts: u32::MAX, ..Backoff::default() };
        let mut made = 0;
        loop {
            clock.advance_millis(400);
            made += 1;
            let left = Duration::from_millis(deadline - clock.monotonic_millis().min(deadline));
            let Some(pause) = patient.pause(made, left, u32::MAX) else { break };
            clock.advance_millis(pause.as_millis() as u64);
        }
        assert!(clock.monotonic_millis() < deadline + 400, "{}", clock.monotonic_millis());
        assert_eq!(made, 7);
    }

    #[test]
    fn pauses_differ_between_callers() {
        assert!((0..8).map(|_| random()).collect::<std::collections::HashSet<_>>().len() > 1);
    }
}
