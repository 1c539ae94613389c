//! The wait that a refusal names: in its fields, or in its body. Pure.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::clock::Timestamp;
use crate::expiry;
use crate::http::message::Headers;
use crate::quota::fields;

/// The depth to which a body is searched for a wait.
const DEPTH_MAX: u32 = 8;
/// The longest wait that a number may mean, so that none overflows: a year.
const SECONDS_MAX: f64 = 366.0 * 86_400.0;
/// Members with a point in time.
const AT: [&str; 6] =
    ["resets_at", "reset_at", "resetsAt", "resetAt", "quotaResetTimeStamp", "reset_time"];
/// Members with a number of seconds, or a text such as `45.8s`.
const SECONDS: [&str; 9] = [
    "resets_in_seconds", "reset_in_seconds", "resetsInSeconds", "reset_after_seconds",
    "retry_after_seconds", "retry_after", "retryAfter", "retryDelay", "quotaResetDelay",
];
/// Members with a number of milliseconds.
const MILLIS: [&str; 2] = ["retry_after_ms", "retryAfterMs"];
/// Members that may quote the request.
const QUOTING: [&str; 5] = ["input", "prompt", "messages", "request", "body"];

/// The longest wait that an answer names; a time that has passed does not count.
pub(super) fn named(headers: &Headers, body: Option<&Value>, now: Timestamp) -> Option<Duration> {
    let in_body = body.and_then(|json| in_body(json, now, DEPTH_MAX));
    let quoted = body.and_then(quoted_fields);
    let of = |headers: &Headers| {
        let asked = headers.retry_after_ms(now).map(Duration::from_millis);
        asked.max(fields::reset(headers, now))
    };
    of(headers).max(in_body).max(quoted.as_ref().and_then(of))
}

/// The header fields in a body: those that `OpenRouter` would have sent, or that the provider behind it sent.
fn quoted_fields(body: &Value) -> Option<Headers> {
    let mut headers = Headers::new();
    for (name, value) in body.pointer("/error/metadata/headers")?.as_object()? {
        match value {
            Value::String(text) => headers.push(name, text),
            Value::Number(number) => headers.push(name, number.to_string()),
            _ => {}
        }
    }
    Some(headers)
}

fn in_body(json: &Value, now: Timestamp, depth: u32) -> Option<Duration> {
    if depth == 0 {
        return None;
    }
    let deeper = |value: &Value| in_body(value, now, depth - 1);
    match json {
        Value::Array(list) => list.iter().filter_map(deeper).max(),
        Value::Object(object) => {
            let deep = object.iter().filter(|(name, _)| !QUOTING.contains(&name.as_str()));
            of_object(object, now).max(deep.filter_map(|(_, value)| deeper(value)).max())
        }
        _ => None,
    }
}

fn of_object(object: &Map<String, Value>, now: Timestamp) -> Option<Duration> {
    let values = |names: &'static [&str]| names.iter().filter_map(|name| object.get(*name));
    // A time without an offset is taken for UTC.
    let at = values(&AT).filter_map(|value| expiry::read(value, Some("")));
    let until = at.filter_map(|at| u64::try_from(at.millis_since(now)).ok());
    let long = values(&SECONDS).filter_map(|value| length(value, 1.0));
    let short = values(&MILLIS).filter_map(|value| length(value, 0.001));
    let lengths = until.map(Duration::from_millis).chain(long).chain(short);
    lengths.filter(|length| !length.is_zero()).max()
}

/// A length as a number of `unit` seconds, a text such as `45.8s`, or seconds and nanoseconds.
fn length(value: &Value, unit: f64) -> Option<Duration> {
    let seconds = match value {
        Value::Number(number) => number.as_f64()? * unit,
        Value::String(text) => match text.trim().parse::<f64>() {
            Ok(number) => number * unit,
            Err(_) => return fields::parse_duration(text.trim()),
        },
        Value::Object(parts) => {
            let part = |name| parts.get(name).and_then(Value::as_f64).unwrap_or(0.0);
            part("seconds") + part("nanos") / 1e9
        }
        _ => return None,
    };
    Duration::try_from_secs_f64(seconds.min(SECONDS_MAX)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000); // 2027-01-15T08:00:00Z

    #[test]
    fn waits_in_bodies() {
        let cases: [(&str, Option<u64>); 28] = [
            (r#"{"error":{"resets_in_seconds":14520}}"#, Some(14_520_000)),
            (r#"{"error":{"resets_in_seconds":"600"}}"#, Some(600_000)),
            (r#"{"error":{"resets_in_seconds":1.5}}"#, Some(1_500)),
            (r#"{"error":{"resets_in_seconds":0}}"#, None),
            (r#"{"error":{"resets_in_seconds":-5}}"#, None),
            (r#"{"error":{"resets_in_seconds":1e300}}"#, Some(31_622_400_000)),
            (r#"{"error":{"resets_in_seconds":null}}"#, None),
            (r#"{"error":{"resets_at":1800003600}}"#, Some(3_600_000)),
            (r#"{"error":{"resets_at":1800003600.5}}"#, Some(3_600_500)),
            (r#"{"error":{"resets_at":1800003600000}}"#, Some(3_600_000)),
            (r#"{"error":{"resets_at":"1800003600"}}"#, Some(3_600_000)),
            (r#"{"error":{"resets_at":"2027-01-15T09:00:00Z"}}"#, Some(3_600_000)),
            (r#"{"error":{"resets_at":"2027-01-15T10:00:00+01:00"}}"#, Some(3_600_000)),
            (r#"{"error":{"resets_at":1799999940}}"#, None),
            (r#"{"error":{"resets_at":"soon"}}"#, None),
            (r#"{"error":{"resets_at":1800000007,"resets_in_seconds":9}}"#, Some(9_000)),
            (
                r#"{"error":{"details":[{"@type":"x.RetryInfo","retryDelay":"45.8s"}]}}"#,
                Some(45_800),
            ),
            (
                r#"[{"error":{"details":[{"retryDelay":"3s"},{"retryDelay":"1h2m"}]}}]"#,
                Some(3_720_000),
            ),
            (
                r#"{"error":{"details":[{"retryDelay":{"seconds":2,"nanos":500000000}}]}}"#,
                Some(2_500),
            ),
            (
                r#"{"error":{"details":[{"metadata":{"quotaResetDelay":"1h16m0.5s"}}]}}"#,
                Some(4_560_500),
            ),
            (r#"{"response":{"error":{"resets_in_seconds":5}}}"#, Some(5_000)),
            (r#"{"detail":{"retry_after_ms":1500}}"#, Some(1_500)),
            (r#"{"error":{"input":{"retry_after":9}}}"#, None),
            (
                r#"{"error":{"metadata":{"headers":{"X-RateLimit-Limit":"50","X-RateLimit-Remaining":"0","X-RateLimit-Reset":"1800007200000"}}}}"#,
                Some(7_200_000),
            ),
            (
                r#"{"error":{"metadata":{"headers":{"X-RateLimit-Remaining":0,"X-RateLimit-Reset":1800000005000,"Retry-After":7,"x":[]}}}}"#,
                Some(7_000),
            ),
            (
                r#"{"error":{"metadata":{"headers":{"X-RateLimit-Remaining":"3","X-RateLimit-Reset":"1800007200000"}}}}"#,
                None,
            ),
            ("[]", None),
            ("{}", None),
        ];
        for (body, expected) in cases {
            let json = serde_json::from_str(body).unwrap();
            let found = named(&Headers::new(), Some(&json), NOW);
            assert_eq!(found, expected.map(Duration::from_millis), "{body}");
        }
    }

    #[test]
    fn the_longest_of_fields_and_body_counts() {
        let json = serde_json::json!({ "error": { "resets_in_seconds": 600 } });
        for (after, expected) in [("5", 600), ("601", 601), ("never", 600), ("600.5", 601)] {
            let mut headers = Headers::new();
            headers.push("Retry-After", after);
            let found = named(&headers, Some(&json), NOW).unwrap().as_secs_f64().ceil();
            assert!((found - f64::from(expected)).abs() < 0.1, "{after}: {found}");
        }
    }

    #[test]
    fn the_depth_of_a_wait_on_both_sides_of_its_limit() {
        let nested = |depth: usize| {
            let text = r#"{"retry_after":1}"#;
            let text = format!("{}{text}{}", "[".repeat(depth - 1), "]".repeat(depth - 1));
            named(&Headers::new(), Some(&serde_json::from_str(&text).unwrap()), NOW)
        };
        assert!(nested(DEPTH_MAX as usize).is_some() && nested(DEPTH_MAX as usize + 1).is_none());
    }
}
