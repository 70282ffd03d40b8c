//! The days that a scorecard is about.

use vault_core::Error;
use vault_core::time::Timestamp;

pub(super) const DAY: u64 = 86_400_000;
/// Days of a period that nobody named: a quarter.
const QUARTER: u64 = 92;
/// Most days of a period: three years.
const MOST_DAYS: u64 = 1096;

/// Whole days in UTC, at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period {
    /// The first, in days since 1970.
    pub(super) from: u64,
    /// The first that no longer belongs to it.
    pub(super) until: u64,
}

impl Period {
    /// From the day of one instant to the one before that of another. Without an end it goes to the end of today, without
    /// a beginning it is 92 days long.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming `from` or `until`: not before the end, or more than three years before.
    pub fn new(from: Option<Timestamp>, until: Option<Timestamp>, now: Timestamp) -> Result<Self, Error> {
        let until = until.map_or(now.0 / DAY + 1, |until| until.0.div_ceil(DAY));
        let from = from.map_or_else(|| until.saturating_sub(QUARTER), |from| from.0 / DAY);
        if until == 0 {
            return Err(Error::invalid("until", "must be after 1970-01-01"));
        }
        if from >= until {
            return Err(Error::invalid("from", "must be before `until`"));
        }
        if until - from > MOST_DAYS {
            return Err(Error::invalid("from", "must be three years before `until` at most"));
        }
        Ok(Self { from, until })
    }

    /// The first day.
    pub const fn from(self) -> Timestamp {
        Timestamp(self.from.saturating_mul(DAY))
    }

    /// The first day that no longer belongs to it.
    pub const fn until(self) -> Timestamp {
        Timestamp(self.until.saturating_mul(DAY))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_is_whole_days_and_by_default_the_quarter_that_ends_today() {
        let day = |text: &str| Timestamp::parse_date(text).unwrap();
        let now = day("2026-12-01").plus_millis(5);
        let quarter = Period::new(None, None, now).unwrap();
        assert_eq!((quarter.from(), quarter.until()), (day("2026-09-01"), day("2026-12-02")));
        let named = Period::new(Some(day("2026-04-01")), Some(day("2026-07-01")), now).unwrap();
        assert_eq!((named.from(), named.until()), (day("2026-04-01"), day("2026-07-01")));
        for (from, until, field) in [
            ("2026-04-01", "2026-04-01", "from"),
            ("2026-04-02", "2026-04-01", "from"),
            ("2020-04-01", "2026-04-01", "from"),
            ("1970-01-01", "1970-01-01", "until"),
        ] {
            let refused = Period::new(Some(day(from)), Some(day(until)), now);
            assert!(matches!(&refused, Err(Error::Invalid { field: named, .. }) if named == field), "{refused:?}");
        }
    }
}
