//! Durations, counts and times as people read them, the same on the page and in the terminal.

use crate::clock::Timestamp;

/// `12 s`, `4 min 05 s`, `2 h 07 min`, `3 d 04 h`.
pub(crate) fn duration(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {:02} s", seconds % 60),
        (0, _, _) => format!("{hours} h {:02} min", minutes % 60),
        (_, _, _) => format!("{days} d {:02} h", hours % 24),
    }
}

/// The time from `now` to `at`, zero if it has passed.
pub(crate) fn until(at: Timestamp, now: Timestamp) -> String {
    duration(u64::try_from(at.millis_since(now)).unwrap_or(0) / 1000)
}

/// `240 ms`, `1.2 s`, `42 s`, and from a minute on as [`duration`].
pub(crate) fn millis(millis: u64) -> String {
    match millis {
        0..1000 => format!("{millis} ms"),
        1000..10_000 => format!("{}.{} s", millis / 1000, millis % 1000 / 100),
        _ => duration(millis / 1000),
    }
}

/// A share of 1 as `73 %`. Only nothing is `0 %`, and only everything `100 %`.
pub(crate) fn percent(ratio: f64) -> String {
    match ratio {
        _ if ratio <= 0.0 => "0 %".to_owned(),
        _ if ratio < 0.01 => "under 1 %".to_owned(),
        _ => format!("{:.0} %", (ratio.min(1.0) * 100.0).floor()),
    }
}

/// `1,234,567`.
pub(crate) fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `999 B`, `1.2 KB`, `35 MB`: two digits are enough of a number that grows.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KB", "MB", "GB", "TB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut tenths = bytes / 100;
    let mut units = UNITS.iter();
    let mut unit = units.next();
    while tenths >= 10_000
        && let Some(larger) = units.next()
    {
        tenths /= 1000;
        unit = Some(larger);
    }
    let unit = unit.unwrap_or(&"KB");
    if tenths < 100 {
        return format!("{}.{} {unit}", tenths / 10, tenths % 10);
    }
    format!("{} {unit}", count(tenths / 10))
}

/// `14:02:11` on the day of `now`, `25 Nov 14:02` within a year of it, else `2026-11-25`; in UTC, as the
/// log has it.
pub(crate) fn time(at: Timestamp, now: Timestamp) -> String {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    const HALF_A_YEAR_MS: u64 = 180 * 86_400_000;
    let is_near = at.millis_since(now).unsigned_abs() < HALF_A_YEAR_MS;
    let (at, now) = (at.to_string(), now.to_string());
    let month = at[5..7].parse::<usize>().ok().and_then(|number| MONTHS.get(number - 1));
    match month {
        _ if at[..10] == now[..10] => at[11..19].to_owned(),
        Some(month) if is_near => format!("{} {month} {}", &at[8..10], &at[11..16]),
        _ => at[..10].to_owned(),
    }
}

/// A provider without problems, for tests.
#[cfg(test)]
pub(crate) fn sample(name: &str) -> super::ProviderReport {
    use super::{CredentialKind, ProviderReport, RequestsReport, State};
    use crate::token::history::RefreshStatus;
    ProviderReport {
        name: name.to_owned(),
        slug: name.to_lowercase(),
        kind: "anthropic".to_owned(),
        base_url: "https://api.example".to_owned(),
        enabled: true,
        state: State::Ready,
        token: None,
        refresh: RefreshStatus::default(),
        waiting: None,
        requests: RequestsReport { total: 0, in_flight: 0, errors: 0, first_byte: None },
        tunnels: super::TunnelsReport::default(),
        cooldown_until: None,
        quota: Vec::new(),
        resting_models: Vec::new(),
        credential: CredentialKind::Refreshed,
        grant: Some("refresh_token".to_owned()),
        problem: None,
        advice: None,
        warning: None,
        refresh_token: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_counts_and_times() {
        let durations = [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min 00 s"),
            (3599, "59 min 59 s"),
            (3600, "1 h 00 min"),
            (86_399, "23 h 59 min"),
            (86_400, "1 d 00 h"),
        ];
        for (seconds, expected) in durations {
            assert_eq!(duration(seconds), expected);
        }
        for (ms, expected) in
            [(0, "0 ms"), (999, "999 ms"), (1000, "1.0 s"), (9999, "9.9 s"), (10_000, "10 s")]
        {
            assert_eq!(millis(ms), expected);
        }
        for (number, expected) in
            [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")]
        {
            assert_eq!(count(number), expected);
        }
        for (number, expected) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 KB"),
            (9_999, "9.9 KB"),
            (10_000, "10 KB"),
            (999_999, "999 KB"),
            (1_000_000, "1.0 MB"),
            (35_600_000_000, "35 GB"),
            (1_234_567_000_000_000, "1,234 TB"),
        ] {
            assert_eq!(bytes(number), expected);
        }
        let shares = [
            (0.0, "0 %"),
            (0.001, "under 1 %"),
            (0.01, "1 %"),
            (0.734, "73 %"),
            (0.999, "99 %"),
            (1.0, "100 %"),
        ];
        for (ratio, expected) in shares {
            assert_eq!(percent(ratio), expected);
        }
        let now = Timestamp::parse_rfc3339("2026-11-24T23:59:00Z").unwrap();
        assert_eq!(time(now.plus_millis(59_999), now), "23:59:59");
        assert_eq!(time(now.plus_millis(60_000), now), "25 Nov 00:00");
        assert_eq!(time(now.plus_millis(-300 * 86_400_000), now), "2026-01-28");
        assert_eq!(until(now.plus_millis(61_999), now), "1 min 01 s");
        assert_eq!(until(now.plus_millis(-1), now), "0 s");
    }
}
