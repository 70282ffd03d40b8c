//! Instants as RFC 3339 writes them, in UTC and with milliseconds.

use super::Timestamp;

const DAY: u64 = 86_400_000;
/// The last day of the year 9999, counted from 1970.
const LAST_DAY: u64 = 2_932_896;

/// Days from 1970-01-01 to a date of the proleptic Gregorian calendar, as in Hinnant's `days_from_civil`.
const fn days(year: u64, month: u64, day: u64) -> u64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year / 400, year % 400);
    let of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// A number of exactly so many digits.
fn digits(text: &str, from: usize, to: usize) -> Option<u64> {
    let part = text.get(from..to)?;
    if part.bytes().all(|byte| byte.is_ascii_digit()) { part.parse().ok() } else { None }
}

fn has(text: &str, at: usize, mark: u8) -> bool {
    text.as_bytes().get(at) == Some(&mark)
}

impl Timestamp {
    /// `YYYY-MM-DD`, the day that this instant lies in; the last day of 9999 for everything after it.
    pub fn date(self) -> String {
        let shifted = (self.0 / DAY).min(LAST_DAY) + 719_468;
        let (era, of_era) = (shifted / 146_097, shifted % 146_097);
        let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * of_year + 2) / 153;
        let day = of_year - (153 * shifted_month + 2) / 5 + 1;
        let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
        let year = year_of_era + era * 400 + u64::from(month <= 2);
        format!("{year:04}-{month:02}-{day:02}")
    }

    /// `YYYY-MM-DDThh:mm:ss.mmmZ`.
    pub fn rfc3339(self) -> String {
        let of_day = self.0 % DAY;
        let (hour, minute, second) = (of_day / 3_600_000, of_day / 60_000 % 60, of_day / 1000 % 60);
        format!("{}T{hour:02}:{minute:02}:{second:02}.{:03}Z", self.date(), of_day % 1000)
    }

    /// The first instant of the day that `YYYY-MM-DD` names, from 1970 on; `None` if it is no date.
    pub fn parse_date(text: &str) -> Option<Self> {
        if text.len() != 10 || !has(text, 4, b'-') || !has(text, 7, b'-') {
            return None;
        }
        let (year, month, day) = (digits(text, 0, 4)?, digits(text, 5, 7)?, digits(text, 8, 10)?);
        if year < 1970 || !(1..=12).contains(&month) || day == 0 {
            return None;
        }
        let at = Self(days(year, month, day) * DAY);
        // A day that the month does not have is one of the next month.
        (at.date() == text).then_some(at)
    }

    /// Reads what [`Self::rfc3339`] writes, and no other form; `None` for anything else.
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        let day = Self::parse_date(text.get(..10)?)?;
        let rest = text.get(10..)?;
        let marks = [(0, b'T'), (3, b':'), (6, b':'), (9, b'.'), (13, b'Z')];
        if rest.len() != 14 || !marks.iter().all(|(at, mark)| has(rest, *at, *mark)) {
            return None;
        }
        let (hour, minute) = (digits(rest, 1, 3)?, digits(rest, 4, 6)?);
        let (second, milli) = (digits(rest, 7, 9)?, digits(rest, 10, 13)?);
        let good = hour < 24 && minute < 60 && second < 60;
        good.then(|| day.plus_millis(((hour * 60 + minute) * 60 + second) * 1000 + milli))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_written_and_read_as_the_calendar_has_them() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_700_000_000_123, "2023-11-14T22:13:20.123Z"),
            (4_107_542_399_999, "2100-02-28T23:59:59.999Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(Timestamp(millis).rfc3339(), text);
            assert_eq!(Timestamp::parse_rfc3339(text), Some(Timestamp(millis)), "{text}");
            assert_eq!(Timestamp::parse_date(&text[..10]), Some(Timestamp(millis / DAY * DAY)), "{text}");
        }
        for day in 0..LAST_DAY / 7 {
            let at = Timestamp(day * 7 * DAY);
            assert_eq!(Timestamp::parse_date(&at.date()), Some(at));
        }
    }

    #[test]
    fn what_is_no_date_is_not_read() {
        for text in
            ["", "2026-02-29", "2026-13-01", "2026-00-01", "2026-01-00", "2026-1-01", "1969-12-31", "2026/01/01"]
        {
            assert_eq!(Timestamp::parse_date(text), None, "{text}");
        }
        for text in ["2026-01-01", "2026-01-01T24:00:00.000Z", "2026-01-01T00:00:00Z", "2026-01-01t00:00:00.000Z"] {
            assert_eq!(Timestamp::parse_rfc3339(text), None, "{text}");
        }
    }
}
