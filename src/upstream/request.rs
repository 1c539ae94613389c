//! The head of a request as bytes (RFC 9112 §3, §5); pure.

use std::io::Read;
use std::time::Duration;

use crate::http::head::encode;
use crate::http::message::Headers;
use crate::http::octets::{is_name, is_value};
use crate::http::selected::Selected;
use crate::swar::is_printable_ascii;
use crate::upstream::origin::Origin;

/// A request to send.
#[derive(Clone, Copy, Debug)]
pub struct OutRequest<'a> {
    /// The method, case kept.
    pub method: &'a str,
    /// Path and query after the base URL's path; starts with `/`.
    pub target: &'a str,
    /// Header fields that a client sent, passed on as they are. Their bytes were checked as they came.
    pub passed_on: &'a Selected<'a>,
    /// The fields after them, whose bytes are checked when they are written. Neither list contains `Host` or the body's framing.
    pub headers: &'a Headers,
    /// The longest wait for the head of the response, if shorter than `timeouts.response`.
    pub response_max: Option<Duration>,
    /// The client's key of a request for a WebSocket, which is among the `passed_on` fields; None for other requests.
    pub websocket_key: Option<&'a [u8]>,
}

/// A request's body.
pub enum OutBody<'a> {
    /// No body.
    Absent,
    /// Held in memory.
    Held(&'a [u8]),
    /// Read while it is sent: its length, or None for chunks.
    Streamed(Option<u64>, &'a mut dyn Read),
}

/// Writes the head of `request` with the framing of `body` after the content of `head`; the error names the part that
/// can't be sent.
pub(super) fn write_head(
    head: &mut Vec<u8>,
    origin: &Origin,
    request: &OutRequest<'_>,
    body: &OutBody<'_>,
) -> Result<(), &'static str> {
    let visible = |text: &str| {
        is_printable_ascii(text.as_bytes()) && memchr::memchr(b' ', text.as_bytes()).is_none()
    };
    if !is_name(request.method.as_bytes()) {
        return Err("its method is invalid");
    }
    if !request.target.starts_with('/') || !visible(request.target) {
        return Err("its target is invalid");
    }
    let (start, rest) = origin.join(request.target);
    head.extend_from_slice(request.method.as_bytes());
    head.push(b' ');
    // Most base URLs have no path.
    if !start.is_empty() {
        head.extend_from_slice(start.as_bytes());
    }
    head.extend_from_slice(rest.as_bytes());
    head.extend_from_slice(origin.line_end_and_host.as_bytes());
    debug_assert!(
        request.passed_on.iter().all(|(name, value)| is_name(name) && is_value(value)),
        "it was checked as it came"
    );
    request.passed_on.append_to(head);
    for line in request.headers.lines() {
        if !is_name(line.name()) {
            return Err("the name of a header field holds a byte that it may not");
        }
        if !is_value(line.value()) {
            return Err("a header field holds a byte that it may not");
        }
    }
    request.headers.append_to(head, |_| true);
    if request.websocket_key.is_some() {
        encode::field(head, b"connection", b"Upgrade");
        encode::field(head, b"upgrade", b"websocket");
    }
    match body {
        OutBody::Absent => {}
        OutBody::Held(bytes) => encode::framing(head, Some(bytes.len() as u64)),
        OutBody::Streamed(length, _) => encode::framing(head, *length),
    }
    head.extend_from_slice(b"\r\n");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::message::Headers;

    fn written(
        method: &str,
        target: &str,
        own: (&str, &str),
        body: &OutBody<'_>,
    ) -> Option<String> {
        let origin = Origin::of("https://h:1/base/").unwrap();
        let mut headers = Headers::new();
        headers.push(own.0, own.1);
        let mut client = Headers::new();
        client.push("X-A", "b c");
        let mut head = Vec::new();
        let request = OutRequest {
            method,
            target,
            passed_on: &Selected::all(&client),
            headers: &headers,
            response_max: None,
            websocket_key: None,
        };
        write_head(&mut head, &origin, &request, body).ok()?;
        Some(String::from_utf8(head).unwrap())
    }

    #[test]
    fn heads_by_body() {
        let start = "PoST /base/v1?a=b HTTP/1.1\r\nhost: h:1\r\nX-A: b c\r\nx-own: 1\r\n";
        let head = |body: &OutBody<'_>| written("PoST", "/v1?a=b", ("x-own", "1"), body).unwrap();
        assert_eq!(head(&OutBody::Absent), format!("{start}\r\n"));
        assert_eq!(head(&OutBody::Held(b"")), format!("{start}content-length: 0\r\n\r\n"));
        assert_eq!(head(&OutBody::Held(b"abc")), format!("{start}content-length: 3\r\n\r\n"));
        let streamed = |length| head(&OutBody::Streamed(length, &mut std::io::empty()));
        assert_eq!(streamed(Some(7)), format!("{start}content-length: 7\r\n\r\n"));
        assert_eq!(streamed(None), format!("{start}transfer-encoding: chunked\r\n\r\n"));
    }

    #[test]
    fn nothing_is_sent_that_could_be_read_in_two_ways() {
        for (method, target, name, value) in [
            ("", "/", "a", "b"),
            ("G T", "/", "a", "b"),
            ("GET", "x", "a", "b"),
            ("GET", "/ HTTP/1.1", "a", "b"),
            ("GET", "/\r\n", "a", "b"),
            ("GET", "/", "a\r\nb", "c"),
            ("GET", "/", "", "c"),
            ("GET", "/", "a", "b\r\nc: d"),
            ("GET", "/", "a", "b\0"),
        ] {
            let head = written(method, target, (name, value), &OutBody::Absent);
            assert_eq!(head, None, "{method} {target} {name} {value}");
        }
    }
}
