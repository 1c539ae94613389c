//! The first event of an event stream, and the refusal that it may be. Pure.
//!
//! The judgement needs no more than the first event: a ping, and a comment, come before it.

use serde_json::Value;

use crate::json;
use crate::quota::body::RefusalBody;
use crate::quota::text::words;
use crate::quota::words::normal;

/// Names of events that may be errors. Any other name ends the search at once.
const ERROR_EVENTS: [&[u8]; 3] = [b"error", b"response.failed", b"message"];
/// The status that an error stands for, by its code or type.
const STATUSES: [(u16, &[&str]); 6] = [
    (
        529,
        &[
            "overloaded_error", "overloaded", "server_overloaded", "server_is_overloaded",
            "engine_overloaded", "engine_overloaded_error", "model_overloaded", "slow_down",
        ],
    ),
    (
        429,
        &[
            "rate_limit_error", "rate_limit_exceeded", "rate_limit_reached",
            "rate_limit_reached_error", "rate_limited", "resource_exhausted", "too_many_requests",
            "throttling_exception", "insufficient_quota", "usage_limit_reached",
            "usage_not_included", "quota_exceeded", "tokens", "requests",
        ],
    ),
    (402, &["billing_error", "payment_required"]),
    (500, &["api_error", "server_error", "internal_server_error", "internal_error", "internal"]),
    (503, &["unavailable", "service_unavailable", "service_unavailable_error"]),
    (504, &["timeout_error", "deadline_exceeded"]),
];

/// The judgement of the start of a stream.
#[derive(Debug)]
pub(crate) enum Start {
    /// Its first event is not there yet, or not whole.
    Open,
    /// Its first event is no error.
    Good,
    /// Its first event is an error: the status that it stands for, and its content.
    Error(u16, RefusalBody),
}

/// Judges a whole stream: an event that it ends with counts, though no empty line follows.
pub(crate) fn judge_whole(bytes: &[u8]) -> Start {
    judge(&[bytes, b"\n\n"].concat())
}

/// Judges the first bytes of an event stream (the HTML standard's `text/event-stream`).
pub(crate) fn judge(bytes: &[u8]) -> Start {
    let mut lines = Lines(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes));
    let (mut name, mut data): (&[u8], Vec<&[u8]>) = (b"", Vec::new());
    while let Some(line) = lines.next() {
        if line.is_empty() && !data.is_empty() {
            if let Some(start) = of_event(name, &data.concat()) {
                return start;
            }
            (name, data) = (b"", Vec::new());
            continue;
        }
        match field(line) {
            _ if line.is_empty() => name = b"",
            // A comment, or a field without a meaning here.
            (b"event", value) => {
                if value != b"ping" && !ERROR_EVENTS.contains(&value) {
                    return Start::Good;
                }
                name = value;
            }
            (b"data", value) => data.push(value),
            _ => {}
        }
    }
    Start::Open
}

/// The lines that have ended.
struct Lines<'a>(&'a [u8]);

impl<'a> Lines<'a> {
    fn next(&mut self) -> Option<&'a [u8]> {
        let end = self.0.iter().position(|byte| matches!(byte, b'\n' | b'\r'))?;
        let (line, rest) = self.0.split_at(end);
        self.0 = rest.strip_prefix(b"\r\n").unwrap_or(&rest[1..]);
        Some(line)
    }
}

/// Name and value of a line.
fn field(line: &[u8]) -> (&[u8], &[u8]) {
    let end = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
    let value = line.get(end + 1..).unwrap_or_default();
    (&line[..end], value.strip_prefix(b" ").unwrap_or(value))
}

/// The judgement of a whole event; None if it is a ping.
fn of_event(name: &[u8], data: &[u8]) -> Option<Start> {
    if name == b"ping" {
        return None;
    }
    if name != b"error" && !may_be_error_or_ping(data) {
        return Some(Start::Good);
    }
    let Ok(json) = json::read::<Value>(data) else {
        let text = String::from_utf8_lossy(data).into_owned();
        let status = (name == b"error").then(|| status_of_text(&text)).flatten();
        return Some(status.map_or(Start::Good, |it| Start::Error(it, RefusalBody::Text(text))));
    };
    match json.get("type").and_then(Value::as_str) {
        Some("ping") => None,
        Some("response.failed") => Some(of_error(json.pointer("/response/error"))),
        Some("error") => Some(of_error(json.get("error").or(Some(&json)))),
        _ if name == b"error" => Some(of_error(json.get("error").or(Some(&json)))),
        _ => Some(of_error(json.get("error").or_else(|| json.pointer("/0/error")))),
    }
}

/// Finds the doubled letter of `error`, so that good events are not parsed. A ping is short.
fn may_be_error_or_ping(data: &[u8]) -> bool {
    const PING_MAX_BYTES: usize = 64;
    // Without an early exit, so that the compiler checks many bytes at once.
    let pairs = data.iter().zip(data.get(1..).unwrap_or_default());
    let has_doubled = pairs
        .fold(0, |found, (one, next)| found | u8::from(*one == b'r') & u8::from(*next == b'r'));
    data.len() <= PING_MAX_BYTES || has_doubled != 0
}

fn of_error(error: Option<&Value>) -> Start {
    let Some(error) = error.filter(|error| !error.is_null()) else { return Start::Good };
    let error = match error {
        Value::String(text) => serde_json::json!({ "message": text }),
        other => other.clone(),
    };
    let status = status_of(&error);
    let body = RefusalBody::of_json(serde_json::json!({ "error": error }));
    Start::Error(status, body)
}

/// The status that an error stands for; 400 if nothing is known about it.
fn status_of(error: &Value) -> u16 {
    let number = |name: &str| {
        let value = error.get(name)?;
        let number = value.as_u64().or_else(|| value.as_str()?.parse().ok())?;
        u16::try_from(number).ok().filter(|status| (400..600).contains(status))
    };
    let by_number = ["code", "status", "status_code", "http_code"].into_iter().find_map(number);
    let text = |name: &str| error.get(name).and_then(Value::as_str);
    let by_code = || {
        ["code", "type", "status"].into_iter().filter_map(text).find_map(|code| {
            let code = normal(code);
            let is_known = |(_, codes): &&(u16, &[&str])| codes.contains(&code.as_str());
            STATUSES.iter().find(is_known).map(|(status, _)| *status)
        })
    };
    let by_message = || status_of_text(text("message")?);
    by_number.or_else(by_code).or_else(by_message).unwrap_or(400)
}

/// The status that a message stands for, if it is about load or a rate limit.
fn status_of_text(text: &str) -> Option<u16> {
    /// A longer message may quote the request.
    const MESSAGE_MAX_BYTES: usize = 200;
    if text.len() > MESSAGE_MAX_BYTES {
        return None;
    }
    let words = words(text);
    if words.iter().any(|word| word == "overloaded") {
        return Some(529);
    }
    words.windows(2).any(|two| two[0] == "rate" && two[1].starts_with("limit")).then_some(429)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The status of the error with which a stream begins.
    fn status(stream: &[u8]) -> Option<u16> {
        match judge(stream) {
            Start::Error(status, _) => Some(status),
            Start::Good | Start::Open => None,
        }
    }

    const ERRORS: [(&str, u16); 18] = [
        (
            "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}\n\n",
            529,
        ),
        (
            "event: error\r\ndata: {\"type\":\"error\",\r\ndata: \"error\":{\"type\":\"rate_limit_error\"}}\r\n\r\n",
            429,
        ),
        ("event:error\rdata:{\"error\":{\"type\":\"api_error\"}}\r\r", 500),
        (
            "\u{feff}: hello\n\nevent: ping\ndata: {\"type\": \"ping\"}\n\ndata: {\"error\":{\"code\":429}}\n\n",
            429,
        ),
        (
            "data: {\"type\":\"ping\"}\n\ndata: {\"type\":\"error\",\"code\":\"rate_limit_exceeded\",\"message\":\"x\"}\n\n",
            429,
        ),
        (
            "event: response.failed\ndata: {\"type\":\"response.failed\",\"response\":{\"error\":{\"code\":\"rate_limit_exceeded\"}}}\n\n",
            429,
        ),
        (
            "data: {\"type\":\"response.failed\",\"response\":{\"error\":{\"code\":\"server_is_overloaded\"}}}\n\n",
            529,
        ),
        (
            "data: {\"id\":\"x\",\"error\":{\"code\":502,\"message\":\"Provider returned error\"},\"choices\":[]}\n\n",
            502,
        ),
        ("data: {\"error\":{\"code\":\"429\",\"message\":\"x\"}}\n\n", 429),
        (
            "data: {\"error\":{\"type\":\"insufficient_quota\",\"code\":\"insufficient_quota\"}}\n\n",
            429,
        ),
        ("data: {\"error\":{\"code\":429,\"status\":\"RESOURCE_EXHAUSTED\"}}\r\n\r\n", 429),
        ("data: [{\"error\":{\"status\":\"UNAVAILABLE\"}}]\n\n", 503),
        ("data: {\"error\":{\"status\":\"INTERNAL\"}}\n\n", 500),
        (
            "data: {\"error\":{\"message\":\"Our servers are currently overloaded. Please try again later.\"}}\n\n",
            529,
        ),
        ("data: {\"error\":\"Rate limit reached\"}\n\n", 429),
        ("event: error\ndata: Overloaded\n\n", 529),
        (
            "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"invalid_request_error\"}}\n\n",
            400,
        ),
        ("id: 1\nretry: 5\nevent: error\ndata: {\"error\":{\"type\":\"billing_error\"}}\n\n", 402),
    ];

    #[test]
    fn errors_as_first_events() {
        for (stream, expected) in ERRORS {
            assert_eq!(status(stream.as_bytes()), Some(expected), "{stream}");
        }
    }

    #[test]
    fn an_event_is_judged_once_it_is_whole_wherever_it_was_cut() {
        for (stream, _) in ERRORS {
            for end in 0..stream.len() - 2 {
                let cut = &stream.as_bytes()[..end];
                assert!(matches!(judge(cut), Start::Open), "{}", String::from_utf8_lossy(cut));
            }
        }
    }

    #[test]
    fn an_event_without_its_empty_line_counts_at_the_end_of_the_stream() {
        for (stream, expected) in ERRORS {
            let Start::Error(status, _) = judge_whole(stream.trim_end().as_bytes()) else {
                panic!("{stream}")
            };
            assert_eq!(status, expected, "{stream}");
        }
        assert!(matches!(judge_whole(b""), Start::Open));
    }

    #[test]
    fn other_first_events_are_good_as_soon_as_that_is_known() {
        for stream in [
            "event: message_start\n",
            "event: response.created\ndata: {\"half",
            "data: {\"id\":\"x\",\"choices\":[{\"delta\":{\"content\":\"an error occurred, overloaded_error\"}}]}\n\n",
            "data: {\"error\":null,\"choices\":[{\"delta\":{\"content\":\"current\"}}]}\n\n",
            "data: {\"type\":\"response.failed\",\"response\":{\"error\":null}}\n\n",
            "data: [DONE]\n\n",
            "data: error\n\n",
            "event: error\ndata: something\n\n",
            "event: ping\ndata: {}\n\nevent: endpoint\n",
            "event: message\ndata: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\n\n",
        ] {
            assert!(matches!(judge(stream.as_bytes()), Start::Good), "{stream}");
        }
        for stream in
            ["", ": a comment\n\n", "event: ping\ndata: {\"type\": \"ping\"}\n\n", "data: {\"id\""]
        {
            assert!(matches!(judge(stream.as_bytes()), Start::Open), "{stream}");
        }
    }

    #[test]
    fn the_length_of_a_message_on_both_sides_of_its_limit() {
        let text = |length: usize| format!("Overloaded{}", " x".repeat((length - 10) / 2));
        assert_eq!(status_of_text(&text(200)), Some(529));
        assert_eq!(status_of_text(&text(202)), None);
    }
}
