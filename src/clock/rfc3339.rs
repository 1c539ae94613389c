//! RFC 3339 in UTC: the text of a time, and the time of a text. Pure.
//!
//! The library `humantime` reads no time after January 2038 on machines with 32 bits, and certificates are valid for longer.

use std::fmt;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// From 0000-03-01 to 1970-01-01.
const DAYS_BEFORE_1970: i64 = 719_468;
/// Those of 400 years, after which the calendar repeats itself.
const CYCLE_DAYS: i64 = 146_097;

/// Writes `millis` since 1970, for the years up to 9999: `2026-11-24T08:00:00.000Z`.
pub(super) fn write(millis: i64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let [year, month, day] = date(millis / DAY_MS);
    let (seconds, fraction) = (millis % DAY_MS / 1000, millis % 1000);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:03}Z")
}

/// The milliseconds since 1970 of a text in UTC, with any number of digits after the second; None for earlier ones too.
pub(super) fn parse(text: &str) -> Option<i64> {
    let text = text.strip_suffix('Z').or_else(|| text.strip_suffix("+00:00"))?;
    let (day, time) = text.split_once('T')?;
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let day = numbers(day, '-', [4, 2, 2])?;
    let [hour, minute, second] = numbers(time, ':', [2, 2, 2])?;
    let days = days(day);
    let is_day = day[0] >= 1970 && date(days) == day;
    let is_time = hour < 24 && minute < 60 && second <= 60 && is_digits(fraction);
    if !is_day || !is_time {
        return None;
    }
    let millis: i64 = format!("{fraction:0<3}")[..3].parse().ok()?;
    // A leap second is the last one before it.
    let seconds = hour * 3600 + minute * 60 + second.min(59);
    Some(days * DAY_MS + seconds * 1000 + millis)
}

fn is_digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Three numbers of so many digits.
fn numbers(text: &str, separator: char, widths: [usize; 3]) -> Option<[i64; 3]> {
    let mut parts = text.splitn(3, separator);
    let mut next = |width| {
        let part = parts.next().filter(|part| part.len() == width && is_digits(part))?;
        part.parse().ok()
    };
    Some([next(widths[0])?, next(widths[1])?, next(widths[2])?])
}

/// The days since 1970-01-01 of a year, month and day.
fn days([year, month, day]: [i64; 3]) -> i64 {
    // Years begin in March, so that the day that some of them have more is the last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let of_years = 365 * year + year / 4 - year / 100 + year / 400;
    of_years + (153 * month + 2) / 5 + day - 1 - DAYS_BEFORE_1970
}

/// Year, month and day of the days since 1970-01-01.
fn date(days: i64) -> [i64; 3] {
    let days = days + DAYS_BEFORE_1970;
    let (cycle, days) = (days / CYCLE_DAYS, days % CYCLE_DAYS);
    let year = (days - days / 1460 + days / 36_524 - days / 146_096) / 365;
    let days = days - (365 * year + year / 4 - year / 100);
    let month = (5 * days + 2) / 153;
    let day = days - (153 * month + 2) / 5 + 1;
    let (month, later) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    [cycle * 400 + year + later, month, day]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    #[test]
    fn each_day_follows_the_one_before() {
        let days_of = |year: i64, month: usize| {
            let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            [31, 28 + i64::from(is_leap), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31][month - 1]
        };
        let mut number = 0;
        for (year, month) in (1970..=9999).flat_map(|year| (1..=12).map(move |month| (year, month)))
        {
            for day in 1..=days_of(year, month) {
                let expected = [year, i64::try_from(month).unwrap(), day];
                assert_eq!((date(number), days(expected)), (expected, number));
                number += 1;
            }
        }
    }

    /// On machines with 32 bits, later ones were not read.
    #[test]
    fn times_after_january_2038_are_written_and_read_back() {
        for (millis, text) in [
            (2_147_483_647_999, "2038-01-19T03:14:07.999Z"),
            (2_147_483_648_000, "2038-01-19T03:14:08.000Z"),
            (4_102_444_799_001, "2099-12-31T23:59:59.001Z"),
            (253_402_300_799_000, "9999-12-31T23:59:59.000Z"),
        ] {
            assert_eq!(Timestamp::from_millis(millis).to_string(), text);
            assert_eq!(parse(text), Some(millis));
        }
    }

    #[test]
    fn forms() {
        let cases = [
            ("2026-11-24T01:02:03Z", Some(1_795_482_123_000)),
            ("2026-11-24T01:02:03+00:00", Some(1_795_482_123_000)),
            ("2026-11-24T01:02:03.5Z", Some(1_795_482_123_500)),
            ("2026-11-24T01:02:03.0429999999999Z", Some(1_795_482_123_042)),
            ("2026-11-24T01:02:60Z", Some(1_795_482_179_000)),
            ("2028-02-29T00:00:00Z", Some(1_835_395_200_000)),
            ("2026-02-29T00:00:00Z", None),
            ("2100-02-29T00:00:00Z", None),
            ("1969-12-31T23:59:59Z", None),
            ("2026-13-01T00:00:00Z", None),
            ("2026-00-01T00:00:00Z", None),
            ("2026-01-00T00:00:00Z", None),
            ("2026-01-01T24:00:00Z", None),
            ("2026-01-01T00:60:00Z", None),
            ("2026-01-01T00:00:61Z", None),
            ("2026-01-01T00:00:00", None),
            ("2026-01-01 00:00:00Z", None),
            ("2026-01-01T00:00:00+01:00", None),
            ("2026-01-01T00:00:00.1é23Z", None),
            ("2026-1-1T0:0:0Z", None),
            ("2026-01-01T+1:00:00Z", None),
            ("12026-01-01T00:00:00Z", None),
            ("Z", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text), expected, "{text}");
        }
    }
}
