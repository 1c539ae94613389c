//! The rate-limit fields of an answer. Pure.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::http::message::Headers;

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

/// The time until the latest reset of a limit that is used up.
pub(crate) fn reset(headers: &Headers, now: Timestamp) -> Option<Duration> {
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

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    #[test]
    fn resets_of_used_up_limits() {
        type Fields = &'static [(&'static str, &'static str)];
        let cases: [(Fields, Option<u64>); 10] = [
            (
                &[("x-ratelimit-remaining-requests", "0"), ("x-ratelimit-reset-requests", "6m0s")],
                Some(360_000),
            ),
            (
                &[("x-ratelimit-remaining-tokens", "0"), ("x-ratelimit-reset-tokens", "20ms")],
                Some(20),
            ),
            (
                &[("x-ratelimit-remaining-tokens", "0"), ("x-ratelimit-reset-tokens", "1h1.5s")],
                Some(3_601_500),
            ),
            (&[("x-ratelimit-remaining-tokens", "0"), ("x-ratelimit-reset-tokens", "ages")], None),
            (&[("x-ratelimit-remaining-tokens", "5"), ("x-ratelimit-reset-tokens", "9s")], None),
            (
                &[
                    ("anthropic-ratelimit-requests-remaining", "0"),
                    ("anthropic-ratelimit-requests-reset", "2027-01-15T08:00:05Z"),
                ],
                Some(5_000),
            ),
            (
                &[
                    ("anthropic-ratelimit-tokens-remaining", "9"),
                    ("anthropic-ratelimit-tokens-reset", "2027-01-15T08:00:05Z"),
                ],
                None,
            ),
            (
                &[
                    ("anthropic-ratelimit-unified-status", "rejected"),
                    ("anthropic-ratelimit-unified-reset", "1800000040"),
                ],
                Some(40_000),
            ),
            (
                &[
                    ("anthropic-ratelimit-unified-status", "rejected"),
                    ("anthropic-ratelimit-unified-reset", "1700000000"),
                ],
                None,
            ),
            (
                &[
                    ("anthropic-ratelimit-requests-remaining", "0"),
                    ("anthropic-ratelimit-requests-reset", "2027-01-15T08:00:05Z"),
                    ("anthropic-ratelimit-tokens-remaining", "0"),
                    ("anthropic-ratelimit-tokens-reset", "2027-01-15T08:01:00Z"),
                ],
                Some(60_000),
            ),
        ];
        for (fields, expected_ms) in cases {
            let mut headers = Headers::new();
            for (name, value) in fields {
                headers.push(*name, *value);
            }
            let reset = reset(&headers, NOW);
            assert_eq!(reset, expected_ms.map(Duration::from_millis), "{fields:?}");
        }
    }
}
