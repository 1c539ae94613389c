//! The time in which a certificate is valid. Pure.

use crate::clock::Timestamp;

/// A certificate ends soon if less than this is left, or less than this share of its lifetime: what renews
/// certificates of days or of 90 days has done so long before.
const SOON_MS: i64 = 14 * 86_400_000;
const SOON_SHARE: i64 = 5;
/// The time between two reminders.
const REMIND_EVERY_MS: i64 = 86_400_000;

/// The time in which a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Validity {
    pub begins: Timestamp,
    pub ends: Timestamp,
}

impl Validity {
    /// The reason why clients refuse the certificate at `now`, in words that follow its name.
    pub(crate) fn doubt(self, now: Timestamp) -> Option<String> {
        if now > self.ends {
            return Some(format!("expired at {}; clients refuse it", self.ends));
        }
        let is_early = now < self.begins;
        is_early.then(|| format!("is valid from {} on; clients refuse it until then", self.begins))
    }

    /// True if it has ended at `now`, or ends soon without having been renewed when it should have been.
    pub(crate) fn ends_soon(self, now: Timestamp) -> bool {
        let (left, lifetime) = (self.ends.millis_since(now), self.ends.millis_since(self.begins));
        left < SOON_MS.min(lifetime / SOON_SHARE).max(0)
    }

    /// The same as [`Validity::doubt`], and besides for a certificate that ends soon.
    fn concern(self, now: Timestamp) -> Option<String> {
        let is_soon = self.ends_soon(now);
        let soon =
            || is_soon.then(|| format!("expires at {}; replace its files before that", self.ends));
        self.doubt(now).or_else(soon)
    }
}

/// The reminders of a certificate that clients refuse, or soon will: one a day.
#[derive(Debug, Default)]
pub(crate) struct Reminders {
    last_at: Option<Timestamp>,
}

impl Reminders {
    /// The reminder that is due at `now`, in words that follow the name of the certificate.
    pub(crate) fn due(&mut self, validity: Validity, now: Timestamp) -> Option<String> {
        let words = validity.concern(now)?;
        // A clock that was stepped back makes one due, too.
        let is_fresh =
            |last_at: Timestamp| (0..REMIND_EVERY_MS).contains(&now.millis_since(last_at));
        if self.last_at.is_some_and(is_fresh) {
            return None;
        }
        self.last_at = Some(now);
        Some(words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400;

    #[test]
    fn a_certificate_ends_soon_two_weeks_before_its_end_or_in_the_last_fifth_of_a_short_life() {
        for (lifetime_days, soon_seconds) in
            [(3650, 14 * DAY), (90, 14 * DAY), (70, 14 * DAY), (10, 2 * DAY)]
        {
            let validity = Validity {
                begins: Timestamp::from_secs(0),
                ends: Timestamp::from_secs(lifetime_days * DAY),
            };
            for (left, expected) in [(soon_seconds, false), (soon_seconds - 1, true), (-1, true)] {
                let now = Timestamp::from_secs(lifetime_days * DAY - left);
                assert_eq!(
                    validity.ends_soon(now),
                    expected,
                    "{lifetime_days} days, {left} s left"
                );
            }
        }
        // An end before the beginning.
        let never = Validity { begins: Timestamp::from_secs(9), ends: Timestamp::from_secs(5) };
        assert!(
            never.ends_soon(Timestamp::from_secs(6)) && !never.ends_soon(Timestamp::from_secs(4))
        );
    }

    /// Nothing was said in the log before the end, and nothing after the start.
    #[test]
    fn a_certificate_that_ends_is_told_once_a_day() {
        let at = |seconds: i64| Timestamp::from_secs(seconds);
        let validity = Validity { begins: at(0), ends: at(90 * DAY) };
        let mut reminders = Reminders::default();
        let soon = Some("expires at 1970-04-01T00:00:00.000Z; replace its files before that");
        let over = Some("expired at 1970-04-01T00:00:00.000Z; clients refuse it");
        for (now, expected) in [
            (76 * DAY, None),
            (76 * DAY + 1, soon),
            (76 * DAY + 3, None),
            (77 * DAY, None),
            (77 * DAY + 1, soon),
            (89 * DAY, soon),
            (90 * DAY, soon),
            (90 * DAY + 1, None),
            (91 * DAY, over),
            (91 * DAY + 60, None),
            // The clock was wrong.
            (80 * DAY, soon),
            (80 * DAY + 2, None),
        ] {
            assert_eq!(reminders.due(validity, at(now)).as_deref(), expected, "{now}");
        }
        let mut early = Reminders::default();
        let later = Validity { begins: at(5), ends: at(90 * DAY) };
        assert!(early.due(later, at(4)).is_some_and(|words| words.starts_with("is valid from")));
        assert_eq!(early.due(later, at(6)), None);
    }
}
