//! Expiry times in the forms of issuers and other programs; the only file that uses `tz`.

use serde_json::Value;
use tz::{DateTime, TimeZone, UtcDateTime};

use crate::clock::Timestamp;

/// Up to this number, a number means seconds since 1970 (the year 5138); above, milliseconds (from 1973).
const SECONDS_MAX: f64 = 1e11;
/// Up to this number, milliseconds; up to the next, microseconds; up to the last, nanoseconds: each the year 5138.
const MILLIS_MAX: f64 = 1e14;
const MICROS_MAX: f64 = 1e17;
const NANOS_MAX: f64 = 1e20;

/// The time in `value`: seconds, milliseconds and so on since 1970, as a number or a text; or a date and time, as in
/// RFC 3339 (with any offset, or without one as local time in the zone that `zone` names like `TZ`), HTTP or mail.
pub(crate) fn read(value: &Value, zone: Option<&str>) -> Option<Timestamp> {
    match value {
        Value::Number(number) => of_number(number.as_f64()?),
        Value::String(text) => {
            let text = text.trim();
            match text.parse() {
                Ok(number) => of_number(number),
                Err(_) => of_text(text, zone).or_else(|| of_mail(text)),
            }
        }
        _ => None,
    }
}

fn of_number(number: f64) -> Option<Timestamp> {
    let millis = match number {
        _ if number <= SECONDS_MAX => number * 1000.0,
        _ if number <= MILLIS_MAX => number,
        _ if number <= MICROS_MAX => number / 1e3,
        _ if number <= NANOS_MAX => number / 1e6,
        _ => return None,
    };
    #[expect(clippy::cast_possible_truncation, reason = "it is within the bounds")]
    let millis = (millis > 0.0).then_some(millis.floor() as i64);
    millis.map(Timestamp::from_millis)
}

/// A date and a time of day, with `T` or a blank between them, and perhaps an offset.
fn of_text(text: &str, zone: Option<&str>) -> Option<Timestamp> {
    let (date, rest) = text.split_at_checked("2026-11-24".len())?;
    let mut date = date.split('-');
    let year: i32 = digits(date.next()?, 4)?;
    let month: u8 = digits(date.next()?, 2)?;
    let day: u8 = digits(date.next()?, 2)?;
    let rest = rest.strip_prefix(['T', 't', ' '])?;
    let end = rest.find(|one: char| !(one.is_ascii_digit() || ":.,".contains(one)));
    let (time, offset) = rest.split_at(end.unwrap_or(rest.len()));
    let (clock, fraction) = time.split_at(time.find(['.', ',']).unwrap_or(time.len()));
    let mut clock = clock.split(':');
    let hour: u8 = digits(clock.next()?, 2)?;
    let minute: u8 = digits(clock.next()?, 2)?;
    let second: u8 = clock.next().map_or(Some(0), |second| digits(second, 2))?;
    if clock.next().is_some() {
        return None;
    }
    let millis = millis_of(fraction)?;
    let seconds = match without_zone_name(offset.trim_start())? {
        "" => local_seconds((year, month, day), (hour, minute, second), zone)?,
        offset => {
            let utc = UtcDateTime::new(year, month, day, hour, minute, second, 0).ok()?;
            utc.unix_time() - offset_seconds(offset)?
        }
    };
    Some(Timestamp::from_secs(seconds).plus_millis(millis))
}

/// A date as in HTTP (RFC 9110 §5.6.7) or mail, where an offset may replace `GMT`.
fn of_mail(text: &str) -> Option<Timestamp> {
    let (date, offset) = text.rsplit_once(' ')?;
    let date = httpdate::parse_http_date(&format!("{date} GMT")).ok()?;
    let seconds = offset_seconds(offset)?;
    Some(Timestamp::from_system_time(date).plus_millis(-1000 * seconds))
}

/// An offset without Go's additions: `+0800 CST m=+0.01` has the zone's name, and another clock.
fn without_zone_name(offset: &str) -> Option<&str> {
    let mut words = offset.split_whitespace();
    let first = words.next().unwrap_or_default();
    let is_name = |word: &str| {
        word.bytes().all(|byte| byte.is_ascii_alphabetic()) || offset_seconds(word).is_some()
    };
    let is_numeric = first.starts_with(['+', '-']);
    let has_name = words.clone().next().is_some_and(is_name) && is_numeric;
    let rest = if has_name { words.nth(1) } else { words.next() };
    rest.is_none_or(|rest| has_name && rest.starts_with("m=")).then_some(first)
}

/// A number with this many digits.
fn digits<T: std::str::FromStr>(text: &str, count: usize) -> Option<T> {
    let is_plain = text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    is_plain.then(|| text.parse().ok()).flatten()
}

/// The milliseconds in a fraction of a second with any number of digits.
fn millis_of(fraction: &str) -> Option<i64> {
    let Some(fraction) = fraction.strip_prefix(['.', ',']) else { return Some(0) };
    if fraction.is_empty() || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let three: String = fraction.chars().chain("00".chars()).take(3).collect();
    three.parse().ok()
}

/// `Z`, `+08:00`, `+0800` or `+08`, in seconds east of UTC.
fn offset_seconds(offset: &str) -> Option<i64> {
    if matches!(offset, "Z" | "z" | "UTC" | "GMT") {
        return Some(0);
    }
    let (sign, rest) = match (offset.strip_prefix('+'), offset.strip_prefix(['-', '\u{2212}'])) {
        (Some(rest), _) => (1, rest),
        (_, Some(rest)) => (-1, rest),
        _ => return None,
    };
    let (hours, minutes) = match rest.len() {
        5 => rest.split_once(':')?,
        4 => rest.split_at_checked(2)?,
        2 => (rest, "00"),
        _ => return None,
    };
    let (hours, minutes): (i64, i64) = (digits(hours, 2)?, digits(minutes, 2)?);
    (hours < 24 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
}

/// A local date and time in seconds since 1970. If the clocks are set back, the first of the two counts; if they are
/// set forward over it, the moment before counts, because it is better to give a token up early than late.
fn local_seconds(
    (year, month, day): (i32, u8, u8),
    (hour, minute, second): (u8, u8, u8),
    zone: Option<&str>,
) -> Option<i64> {
    let zone = local_zone(zone);
    let found = DateTime::find(year, month, day, hour, minute, second, 0, zone.as_ref()).ok()?;
    Some(found.earliest()?.unix_time())
}

/// The zone that `name` means as the variable `TZ`, else the zone in /etc/localtime; UTC without either, as in the C
/// library.
fn local_zone(name: Option<&str>) -> TimeZone {
    let zone = match name {
        Some("") => Ok(TimeZone::utc()),
        Some(name) => TimeZone::from_posix_tz(name),
        None => TimeZone::local(),
    };
    zone.unwrap_or_else(|_| TimeZone::utc())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(json: &str, zone: &str) -> Option<i64> {
        let value = serde_json::from_str(json).unwrap();
        read(&value, Some(zone)).map(Timestamp::as_millis)
    }

    const AT: i64 = 1_800_000_000_000; // 2027-01-15T08:00:00Z

    #[test]
    fn expiries_in_every_form() {
        let cases = [
            // Numbers: Codex-like seconds, Claude Code's milliseconds, kimi-cli's float.
            ("1800000000", AT),
            ("1800000000123", AT + 123),
            ("1800000000.75", AT + 750),
            ("1.8e9", AT),
            ("\"1800000000\"", AT),
            ("\" 1800000000123 \"", AT + 123),
            ("\"1800000000.5\"", AT + 500),
            // With an offset, as Go's RFC 3339 in CLIProxyAPI's files.
            ("\"2027-01-15T08:00:00Z\"", AT),
            ("\"2027-01-15t08:00:00z\"", AT),
            ("\"2027-01-15T16:00:00+08:00\"", AT),
            ("\"2027-01-15T16:00:00.123456789+08:00\"", AT + 123),
            ("\"2027-01-15T03:30:00.5-04:30\"", AT + 500),
            ("\"2027-01-15 16:00:00+08:00\"", AT),
            ("\"2027-01-15 16:00:00 +0800\"", AT),
            ("\"2027-01-15T16:00:00+08\"", AT),
            ("\"2027-01-15T08:00:00 UTC\"", AT),
            ("\"2027-01-15T08:00Z\"", AT),
            ("1800000000123456", AT + 123),
            ("\"1800000000123456\"", AT + 123),
            ("1800000000123456789", AT + 123),
            // Go's own text of a time, and that of HTTP and mail.
            ("\"2027-01-15 08:00:00 +0000 UTC\"", AT),
            ("\"2027-01-15 16:00:00.123456789 +0800 CST\"", AT + 123),
            ("\"2027-01-15 16:00:00.123 +0800 +08 m=+0.000012\"", AT + 123),
            ("\"Fri, 15 Jan 2027 08:00:00 GMT\"", AT),
            ("\"Fri, 15 Jan 2027 16:00:00 +0800\"", AT),
            ("\"Fri, 15 Jan 2027 08:00:00 -0000\"", AT),
            // Without one: Python's isoformat() of a local time.
            ("\"2027-01-15T16:00:00.000123\"", AT),
            ("\"2027-01-15 16:00:00\"", AT),
        ];
        for (json, expected) in cases {
            assert_eq!(millis(json, "CST-8"), Some(expected), "{json}");
        }
    }

    #[test]
    fn what_is_no_time() {
        let cases = [
            "null",
            "true",
            "[]",
            "{}",
            "0",
            "-5",
            "1e300",
            "999999999999999999999",
            "\"2027-01-15 08:00:00 +0000 UTC and more\"",
            "\"2027-01-15 08:00:00 UTC UTC\"",
            "\"Fri, 15 Jan 2027 08:00:00\"",
            "\"Friday\"",
            "\"\"",
            "\"soon\"",
            "\"0\"",
            "\"NaN\"",
            "\"inf\"",
            "\"2027-01-15\"",
            "\"2027-13-15T08:00:00Z\"",
            "\"2027-02-30T08:00:00Z\"",
            "\"2027-01-15T25:00:00Z\"",
            "\"2027-01-15T08:00:00+25:00\"",
            "\"2027-01-15T08:00:00.Z\"",
            "\"2027-01-15T08:00:00 CET\"",
            "\"2027-01-15T08:00:00:00Z\"",
            "\"２０２７-01-15T08:00:00Z\"",
        ];
        for json in cases {
            assert_eq!(millis(json, "UTC0"), None, "{json}");
        }
    }

    #[test]
    fn local_time_knows_daylight_saving_time() {
        let berlin = "CET-1CEST,M3.5.0,M10.5.0/3";
        let hour = 3_600_000;
        let cases = [
            ("\"2027-01-15T09:00:00\"", AT),
            // 2027-07-15T08:00:00Z
            ("\"2027-07-15T10:00:00\"", 1_815_638_400_000),
            // Set forward at 2027-03-28T01:00:00Z: half past two is not there, and its moment counts.
            ("\"2027-03-28T01:59:59\"", 1_806_195_600_000 - 1000),
            ("\"2027-03-28T02:30:00\"", 1_806_195_600_000),
            ("\"2027-03-28T03:00:00\"", 1_806_195_600_000),
            // Set back at 2027-10-31T01:00:00Z: half past two is there twice, and the first one counts.
            ("\"2027-10-31T02:30:00\"", 1_824_944_400_000 - hour / 2),
            ("\"2027-10-31T03:30:00\"", 1_824_944_400_000 + 3 * hour / 2),
        ];
        for (json, expected) in cases {
            assert_eq!(millis(json, berlin), Some(expected), "{json}");
        }
        assert_eq!(millis("\"2027-01-15T08:00:00\"", ""), Some(AT), "an empty TZ is UTC");
        assert_eq!(
            millis("\"2027-01-15T08:00:00\"", "No/Such_Zone"),
            Some(AT),
            "so is one nobody knows"
        );
        assert_eq!(millis("\"2027-01-15T03:00:00\"", "EST5"), Some(AT));
    }
}
