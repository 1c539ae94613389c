//! The time in which a certificate is valid. Pure.

use crate::clock::Timestamp;

/// A certificate ends soon if less than this is left, or less than this share of its lifetime: what renews
/// certificates of days or of 90 days has done so long before.
const SOON_MS: i64 = 14 * 86_400_000;
const SOON_SHARE: i64 = 5;

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
        let never = Validity { begins: Timestamp::from_secs(9), ends: Timestamp::from_secs(5) };
        assert!(
            never.ends_soon(Timestamp::from_secs(6)) && !never.ends_soon(Timestamp::from_secs(4))
        );
    }
}
