//! A day in UTC, as it names a file and bounds a sum. Pure.

use std::fmt;

use crate::clock::Timestamp;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// A day: their number since 1970-01-01.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Day(i64);

impl Day {
    /// The day of `time`.
    pub(crate) const fn of(time: Timestamp) -> Self {
        Self(time.as_millis().div_euclid(DAY_MS))
    }

    /// The day that is `days` earlier.
    pub(crate) const fn earlier(self, days: i64) -> Self {
        Self(self.0.saturating_sub(days))
    }

    /// Its first moment.
    pub(crate) const fn start(self) -> Timestamp {
        Timestamp::from_millis(self.0.saturating_mul(DAY_MS))
    }

    /// Parses the output of `Display`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let is_date = text.len() == 10 && text.is_ascii();
        let start = is_date.then(|| Timestamp::parse_rfc3339(&format!("{text}T00:00:00Z")))?;
        start.map(Self::of)
    }
}

/// `2026-11-29`
impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.start().to_string()[..10])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_begin_at_midnight_in_utc() {
        let at = |text| Day::of(Timestamp::parse_rfc3339(text).unwrap()).to_string();
        assert_eq!(at("2026-11-29T23:59:59.999Z"), "2026-11-29");
        assert_eq!(at("2026-11-30T00:00:00Z"), "2026-11-30");
        let day = Day::parse("2026-03-01").unwrap();
        assert_eq!(day.earlier(1).to_string(), "2026-02-28");
        assert_eq!(Day::of(day.start()), day);
        assert_eq!(Day::of(Timestamp::from_millis(-1)).earlier(-1).to_string(), "1970-01-01");
        for wrong in
            ["", "2026-02-30", "2026-2-3", "26-02-03", "2026-02-03T", "yesterday", "2026/02/03"]
        {
            assert_eq!(Day::parse(wrong), None, "{wrong}");
        }
    }
}
