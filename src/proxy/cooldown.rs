//! The cooldown of a failing provider.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::{Due, Moment, Timestamp};
use crate::http::message::Headers;
use crate::quota::fields;

/// The longest cooldown, so that each provider is tried at least once a day.
pub(crate) const COOLDOWN_MAX: Duration = Duration::from_hours(24);

/// The cooldown of a provider that answered with these `headers`: the wait in `Retry-After`, else the latest reset of
/// a used-up limit, else `otherwise`.
pub(crate) fn length(headers: &Headers, now: Timestamp, otherwise: Duration) -> Duration {
    let asked = headers.retry_after_ms(now).map(Duration::from_millis);
    asked.or_else(|| fields::reset(headers, now)).unwrap_or(otherwise).min(COOLDOWN_MAX)
}

/// One provider's cooldown.
#[derive(Debug, Default)]
pub struct Cooldown {
    /// The number of the latest cooldown, 0 once it was ended. While a provider is well, its requests read only this,
    /// so that workers do not wait for each other here.
    number: AtomicU64,
    cooling: Mutex<Cooling>,
}

#[derive(Debug, Default)]
struct Cooling {
    /// The number of cooldowns so far.
    begun: u64,
    until: Option<Due>,
}

/// The time of sending a request, in terms of cooldowns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SentMark(u64);

impl Cooldown {
    fn cooling(&self) -> MutexGuard<'_, Cooling> {
        // It is replaced as a whole, so a panic leaves no half-made change.
        self.cooling.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The mark of a request that is about to be sent.
    pub fn mark(&self) -> SentMark {
        SentMark(self.number.load(Ordering::Acquire))
    }

    /// The end of the cooldown; None if it has ended.
    pub fn until(&self, now: Moment) -> Option<Due> {
        if self.mark() == SentMark(0) {
            return None;
        }
        self.cooling().until.filter(|until| !until.reached(now))
    }

    /// A request failed at `now`: the provider cools down for `length`, or until a later end that is already set.
    /// Returns true if the provider was not cooling down before.
    pub fn begin(&self, now: Moment, length: Duration) -> bool {
        let mut cooling = self.cooling();
        let before = cooling.until.filter(|until| !until.reached(now));
        let until = Due::after(now, u64::try_from(length.as_millis()).unwrap_or(u64::MAX));
        if until.left_ms(now) > before.map_or(0, |before| before.left_ms(now)) {
            cooling.until = Some(until);
            cooling.begun += 1;
            self.number.store(cooling.begun, Ordering::Release);
        }
        before.is_none() && !length.is_zero()
    }

    /// A request sent at `sent` succeeded, which ends any cooldown begun before it.
    pub fn succeeded(&self, sent: SentMark) {
        if self.mark() == SentMark(0) {
            return;
        }
        let mut cooling = self.cooling();
        if sent == self.mark() {
            cooling.until = None;
            self.number.store(0, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Moment = Moment { wall: Timestamp::from_secs(1_800_000_000), steady_ms: 50 };

    fn later(millis: u64) -> Moment {
        let due = Due::after(NOW, millis);
        Moment { wall: due.wall, steady_ms: due.steady_ms }
    }

    #[test]
    fn lengths() {
        type Fields = &'static [(&'static str, &'static str)];
        let cases: [(Fields, u64); 7] = [
            (&[], 180_000),
            (&[("Retry-After", "7")], 7_000),
            (&[("Retry-After", "0")], 0),
            (&[("retry-after", "Fri, 15 Jan 2027 08:00:30 GMT")], 30_000),
            (&[("Retry-After", "soon")], 180_000),
            (&[("Retry-After", "9999999")], 86_400_000),
            (
                &[
                    ("Retry-After", "7"),
                    ("x-ratelimit-remaining-requests", "0"),
                    ("x-ratelimit-reset-requests", "9s"),
                ],
                7_000,
            ),
        ];
        for (fields, expected_ms) in cases {
            let mut headers = Headers::new();
            for (name, value) in fields {
                headers.push(*name, *value);
            }
            let length = length(&headers, NOW.wall, Duration::from_mins(3));
            assert_eq!(length, Duration::from_millis(expected_ms), "{fields:?}");
        }
    }

    #[test]
    fn it_ends_by_time_or_by_a_later_success() {
        let cooldown = Cooldown::default();
        assert_eq!(cooldown.until(NOW), None);
        assert!(!cooldown.begin(NOW, Duration::ZERO), "no time is no cooldown");
        let before = cooldown.mark();
        assert!(cooldown.begin(later(1_000), Duration::from_secs(10)));
        let after = cooldown.mark();
        assert!(!cooldown.begin(later(2_000), Duration::from_secs(1)), "it is not shortened");
        assert_eq!(
            cooldown.until(later(10_999)).map(|until| until.left_ms(later(10_999))),
            Some(1)
        );
        assert_eq!(cooldown.until(later(11_000)), None);
        cooldown.succeeded(before);
        assert!(cooldown.until(later(2_000)).is_some(), "that request was sent before the failure");
        assert!(!cooldown.begin(later(2_000), Duration::from_mins(1)), "it is made longer");
        cooldown.succeeded(after);
        assert!(cooldown.until(later(3_000)).is_some(), "and so was that one");
        cooldown.succeeded(cooldown.mark());
        assert_eq!(cooldown.until(later(3_000)), None);
        cooldown.succeeded(before);
        assert!(cooldown.begin(later(4_000), Duration::from_secs(1)), "the next is a new one");
        cooldown.succeeded(after);
        assert!(cooldown.until(later(4_000)).is_some());
    }
}
