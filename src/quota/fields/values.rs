//! Numbers and times in rate-limit fields. Pure.

use std::time::Duration;

use serde_json::Value;

use crate::clock::Timestamp;
use crate::expiry;

/// The longest time until a reset, for a quota of a month; a later reset is a mistake.
pub(crate) const RESET_MAX: Duration = Duration::from_hours(40 * 24);
/// From this number on, a number is a time: seconds since 1970 (from 2001), milliseconds, and so on.
const SINCE_1970_MIN: f64 = 1e9;
/// The largest share in percent; a larger one is no share.
const PERCENT_MAX: f64 = 1000.0;

/// The time of a window's reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reset {
    /// No field says it.
    Unstated,
    /// It is in the future.
    At(Timestamp),
    /// It has passed: the window is full again.
    Past,
    /// It is too far in the future, or no time.
    Unusable,
}

impl Reset {
    /// This one; the `other` one unless this one is usable.
    pub(super) fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Unstated, _)
            | (Self::Unusable, Self::At(_) | Self::Past)
            | (Self::Past, Self::At(_)) => other,
            _ => self,
        }
    }
}

/// A number that counts something: not negative, and finite.
pub(super) fn count(value: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(value).ok()?;
    if !text.starts_with(|first: char| first.is_ascii_digit() || first == '.') {
        return None;
    }
    text.parse().ok().filter(|number: &f64| number.is_finite() && *number >= 0.0)
}

/// The number at the start of a list: `100, 100;w=60`.
pub(super) fn leading_count(value: &[u8]) -> Option<f64> {
    let end = value.iter().position(|byte| b",;".contains(byte)).unwrap_or(value.len());
    count(value[..end].trim_ascii())
}

/// `27.5` or `27.5%`.
pub(super) fn percent(value: &[u8]) -> Option<f64> {
    count(value.strip_suffix(b"%").unwrap_or(value)).filter(|percent| *percent <= PERCENT_MAX)
}

/// A reset as a duration (`6m0s`), as seconds until then, as a number since 1970, or as a date.
pub(super) fn reset_at(value: &[u8], now: Timestamp) -> Reset {
    match count(value) {
        Some(number) if number >= SINCE_1970_MIN => {
            usable(expiry::read(&Value::from(number), None), now)
        }
        Some(_) => reset_after(value, now),
        None => {
            let Ok(text) = std::str::from_utf8(value) else { return Reset::Unusable };
            let after = || Some(after(parse_duration(text)?, now));
            let dated = || expiry::read(&Value::from(text), Some("UTC"));
            usable(Timestamp::parse_rfc3339(text).or_else(after).or_else(dated), now)
        }
    }
}

/// A reset in seconds from now.
pub(super) fn reset_after(value: &[u8], now: Timestamp) -> Reset {
    let seconds = count(value).and_then(|number| Duration::try_from_secs_f64(number).ok());
    usable(seconds.map(|length| after(length, now)), now)
}

fn after(length: Duration, now: Timestamp) -> Timestamp {
    now.plus_millis(i64::try_from(length.as_millis()).unwrap_or(i64::MAX))
}

fn usable(at: Option<Timestamp>, now: Timestamp) -> Reset {
    let Some(at) = at else { return Reset::Unusable };
    match u64::try_from(at.millis_since(now)) {
        Err(_) | Ok(0) => Reset::Past,
        Ok(left) if u128::from(left) <= RESET_MAX.as_millis() => Reset::At(at),
        Ok(_) => Reset::Unusable,
    }
}

/// `1s`, `6m0s`, `20ms`, `1h2m3.5s`; a bare number means seconds.
pub(crate) fn parse_duration(mut text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    if text.is_empty() {
        return None;
    }
    while !text.is_empty() {
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, rest) = text.split_at(end);
        let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let (unit, rest) = rest.split_at(end);
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
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

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    #[test]
    fn resets_in_every_form() {
        let in_ms = |ms| Reset::At(NOW.plus_millis(ms));
        let longest_s = i64::try_from(RESET_MAX.as_secs()).unwrap();
        let longest = longest_s.to_string();
        let too_long = (longest_s + 1).to_string();
        for (text, expected) in [
            ("6m0s", in_ms(360_000)),
            ("20ms", in_ms(20)),
            ("1h2m3.5s", in_ms(3_723_500)),
            ("1d", in_ms(86_400_000)),
            ("30", in_ms(30_000)),
            ("0.5", in_ms(500)),
            ("1800000040", in_ms(40_000)),
            ("1800000040.5", in_ms(40_500)),
            ("1800000040000", in_ms(40_000)),
            ("2027-01-15T08:00:05Z", in_ms(5_000)),
            ("2027-01-15T08:00:05.25Z", in_ms(5_250)),
            ("2027-01-15T16:00:05+08:00", in_ms(5_000)),
            ("Fri, 15 Jan 2027 08:00:30 GMT", in_ms(30_000)),
            (&longest, in_ms(longest_s * 1000)),
            (&too_long, Reset::Unusable),
            ("999999999", Reset::Unusable),
            ("1799999999", Reset::Past),
            ("1800000000", Reset::Past),
            ("1900000000", Reset::Unusable),
            ("9e99", Reset::Unusable),
            ("0", Reset::Past),
            ("0s", Reset::Past),
            ("500µs", Reset::Past),
            ("-5", Reset::Unusable),
            ("-1h", Reset::Unusable),
            ("NaN", Reset::Unusable),
            ("inf", Reset::Unusable),
            ("soon", Reset::Unusable),
            ("5 parsecs", Reset::Unusable),
            ("1999-01-15T08:00:05Z", Reset::Past),
            ("", Reset::Unusable),
        ] {
            assert_eq!(reset_at(text.as_bytes(), NOW), expected, "{text}");
        }
        assert_eq!(reset_at(b"\xff\xfe", NOW), Reset::Unusable);
        assert_eq!(reset_after(b"1800000040", NOW), Reset::Unusable, "it is a time");
    }

    #[test]
    fn counts_are_finite_and_not_negative() {
        for (text, expected) in [
            ("0", Some(0.0)),
            ("50", Some(50.0)),
            ("0.27", Some(0.27)),
            (".5", Some(0.5)),
            ("1e3", Some(1000.0)),
            ("-1", None),
            ("-0", None),
            ("+5", None),
            ("NaN", None),
            ("inf", None),
            ("infinity", None),
            ("1e999", None),
            ("0x10", None),
            ("1,000", None),
            ("many", None),
            ("", None),
        ] {
            assert_eq!(count(text.as_bytes()), expected, "{text}");
        }
        assert_eq!(leading_count(b"100, 100;w=60"), Some(100.0));
        assert_eq!(leading_count(b", 5"), None);
        assert_eq!((percent(b"27.5%"), percent(b"100")), (Some(27.5), Some(100.0)));
        assert_eq!((percent(b"1000"), percent(b"1001"), percent(b"%")), (Some(1000.0), None, None));
    }

    #[test]
    fn a_usable_reset_comes_before_an_unusable_one() {
        let (at, other) = (Reset::At(NOW), Reset::At(NOW.plus_millis(1)));
        for (first, second, expected) in [
            (Reset::Unstated, at, at),
            (Reset::Unusable, at, at),
            (at, other, at),
            (at, Reset::Unusable, at),
            (Reset::Unusable, Reset::Unstated, Reset::Unusable),
            (Reset::Unstated, Reset::Unusable, Reset::Unusable),
        ] {
            assert_eq!(first.or(second), expected, "{first:?} {second:?}");
        }
    }
}
