//! The cooldown of a failing provider.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::{Due, Moment, Timestamp};
use crate::http::message::Headers;

/// The longest cooldown, so that each provider is tried at least once a day.
pub(crate) const COOLDOWN_MAX: Duration = Duration::from_hours(24);

/// Anthropic's limits, by the beginnings of their fields: `…-remaining` and `…-reset` (RFC 3339, or seconds since
/// 1970).
const ANTHROPIC_LIMITS: [&str; 5] = [
    "anthropic-ratelimit-unified",
    "anthropic-ratelimit-requests",
    "anthropic-ratelimit-tokens",
    "anthropic-ratelimit-input-tokens",
    "anthropic-ratelimit-output-tokens",
];
/// `OpenAI`'s limits: `x-ratelimit-remaining-…` and `x-ratelimit-reset-…` (`6m0s`).
const OPENAI_LIMITS: [&str; 2] = ["requests", "tokens"];

/// The cooldown of a provider that answered with these `headers`: the wait in `Retry-After`, else the latest reset of
/// a used-up limit, else `otherwise`.
pub(crate) fn length(headers: &Headers, now: Timestamp, otherwise: Duration) -> Duration {
    let asked = headers.retry_after_ms(now).map(Duration::from_millis);
    asked.or_else(|| reset(headers, now)).unwrap_or(otherwise).min(COOLDOWN_MAX)
}

fn reset(headers: &Headers, now: Timestamp) -> Option<Duration> {
    let text = |name: String| {
        headers.first(&name).and_then(|value| std::str::from_utf8(value).ok()).map(str::trim)
    };
    let anthropic = ANTHROPIC_LIMITS.iter().filter_map(|limit| {
        let is_over = text(format!("{limit}-remaining")) == Some("0")
            || text(format!("{limit}-status")) == Some("rejected");
        let reset = text(format!("{limit}-reset")).filter(|_| is_over)?;
        let at = Timestamp::parse_rfc3339(reset)
            .or_else(|| reset.parse().ok().map(Timestamp::from_secs))?;
        u64::try_from(at.millis_since(now)).ok().map(Duration::from_millis)
    });
    let openai = OPENAI_LIMITS.iter().filter_map(|limit| {
        let is_over = text(format!("x-ratelimit-remaining-{limit}")) == Some("0");
        parse_duration(text(format!("x-ratelimit-reset-{limit}")).filter(|_| is_over)?)
    });
    anthropic.chain(openai).max()
}

/// `1s`, `6m0s`, `20ms`, `1h2m3.5s`; a bare number means seconds.
fn parse_duration(mut text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    while !text.is_empty() {
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, rest) = text.split_at(end);
        let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let (unit, rest) = rest.split_at(end);
        let seconds = match unit {
            "ms" => 0.001,
            "" | "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            _ => return None,
        };
        let part = number.parse::<f64>().ok()? * seconds;
        total = total.checked_add(Duration::try_from_secs_f64(part).ok()?)?;
        text = rest;
    }
    Some(total)
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
        let cases: [(Fields, u64); 17] = [
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
            (
                &[("x-ratelimit-remaining-requests", "0"), ("x-ratelimit-reset-requests", "6m0s")],
                360_000,
            ),
            (&[("x-ratelimit-remaining-tokens", "0"), ("x-ratelimit-reset-tokens", "20ms")], 20),
            (
                &[("x-ratelimit-remaining-tokens", "0"), ("x-ratelimit-reset-tokens", "1h1.5s")],
                3_601_500,
            ),
            (
                &[("x-ratelimit-remaining-tokens", "0"), ("x-ratelimit-reset-tokens", "ages")],
                180_000,
            ),
            (&[("x-ratelimit-remaining-tokens", "5"), ("x-ratelimit-reset-tokens", "9s")], 180_000),
            (
                &[
                    ("anthropic-ratelimit-requests-remaining", "0"),
                    ("anthropic-ratelimit-requests-reset", "2027-01-15T08:00:05Z"),
                ],
                5_000,
            ),
            (
                &[
                    ("anthropic-ratelimit-tokens-remaining", "9"),
                    ("anthropic-ratelimit-tokens-reset", "2027-01-15T08:00:05Z"),
                ],
                180_000,
            ),
            (
                &[
                    ("anthropic-ratelimit-unified-status", "rejected"),
                    ("anthropic-ratelimit-unified-reset", "1800000040"),
                ],
                40_000,
            ),
            (
                &[
                    ("anthropic-ratelimit-unified-status", "rejected"),
                    ("anthropic-ratelimit-unified-reset", "1700000000"),
                ],
                180_000,
            ),
            (
                &[
                    ("anthropic-ratelimit-requests-remaining", "0"),
                    ("anthropic-ratelimit-requests-reset", "2027-01-15T08:00:05Z"),
                    ("anthropic-ratelimit-tokens-remaining", "0"),
                    ("anthropic-ratelimit-tokens-reset", "2027-01-15T08:01:00Z"),
                ],
                60_000,
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
