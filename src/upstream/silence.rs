//! The longest silence of an answer.

use std::time::Duration;

use crate::http::message::ResponseHead;

/// The limit for a stream that is silent until it has something to say. TCP keep-alive shows whether its connection
/// still works.
const UNLIMITED: Duration = Duration::from_hours(365 * 24);

/// The longest silence within the answer to a request of `method`; `idle_max` unless it is a stream of events that
/// the client only listens to: a GET that is answered 200 with `text/event-stream`. MCP servers keep such streams open
/// for messages of their own, and browsers (`EventSource`) do so too. An answer to a POST, which a client asks for and
/// waits for, is not one of them.
pub(super) fn longest(method: &str, head: &ResponseHead, idle_max: Duration) -> Duration {
    if method == "GET" && head.status == 200 && is_event_stream(head) {
        UNLIMITED
    } else {
        idle_max
    }
}

fn is_event_stream(head: &ResponseHead) -> bool {
    let kind = head.headers.first("content-type").unwrap_or_default();
    let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default();
    kind.trim_ascii().eq_ignore_ascii_case(b"text/event-stream")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::message::Headers;

    #[test]
    fn only_a_stream_that_is_listened_to_may_be_silent_for_ever() {
        let idle_max = Duration::from_secs(1);
        let cases = [
            ("GET", 200, "text/event-stream", UNLIMITED),
            ("GET", 200, "Text/Event-Stream ; charset=utf-8", UNLIMITED),
            ("GET", 200, "text/event-stream-x", idle_max),
            ("GET", 200, "application/json", idle_max),
            ("GET", 200, "", idle_max),
            ("GET", 503, "text/event-stream", idle_max),
            ("POST", 200, "text/event-stream", idle_max),
            ("HEAD", 200, "text/event-stream", idle_max),
        ];
        for (method, status, kind, expected) in cases {
            let mut headers = Headers::new();
            headers.push("content-type", kind);
            let head = ResponseHead { status, headers };
            assert_eq!(longest(method, &head, idle_max), expected, "{method} {status} {kind}");
        }
    }
}
