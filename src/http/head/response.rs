//! Heads of responses: status line, framing of the body, and whether the connection is kept; pure.

use std::ops::Range;

use crate::http::framing::Framing;
use crate::http::head::{BadHead, HEAD_MAX_BYTES, Lines, Whole, number};
use crate::http::message::{AnswerLength, Headers, ResponseHead, Version, keeps_alive};
use crate::http::rules::Rules;

/// A response's head as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// Status and header fields.
    pub head: ResponseHead,
    /// The provider's version.
    pub version: Version,
    /// The head's length in bytes.
    pub length: usize,
}

impl Parsed {
    /// True if the connection may be used again after the answer.
    pub fn keeps_alive(&self) -> bool {
        keeps_alive(self.version, &self.head.headers)
    }
}

/// Looks at the bytes of a head as they come, each once.
#[derive(Debug, Default)]
pub struct ResponseReader(Lines<(Version, u16)>);

impl ResponseReader {
    /// Scans `bytes`, which start with those of the last call. None asks for more.
    pub fn read(&mut self, bytes: &[u8]) -> Result<Option<Parsed>, BadHead> {
        if !is_start(bytes) {
            return Err(BadHead::StatusLine);
        }
        let whole = self.0.read(bytes, &Rules::LENIENT, status_line)?;
        Ok(whole.map(|Whole { start_line: (version, status), headers, length }| Parsed {
            head: ResponseHead { status, headers },
            version,
            length,
        }))
    }
}

/// Counts the interim heads (RFC 9110 §15.2) before an answer: all of them together may be as large as one head.
/// Otherwise a provider that sends them endlessly would hold a request for ever.
#[derive(Debug, Default)]
pub(crate) struct Interims {
    bytes: usize,
}

impl Interims {
    /// Adds one of this size.
    pub(crate) fn add(&mut self, head_bytes: usize) -> Result<(), BadHead> {
        self.bytes += head_bytes;
        if self.bytes > HEAD_MAX_BYTES {
            return Err(BadHead::InterimsTooLong);
        }
        Ok(())
    }
}

/// True if `bytes` may be the start of an answer; the first byte shows most others.
fn is_start(bytes: &[u8]) -> bool {
    const START: &[u8] = b"HTTP/1.";
    let count = bytes.len().min(START.len());
    bytes[..count] == START[..count]
}

/// `HTTP/1.1 200 OK`: the version and the status (RFC 9112 §4).
fn status_line(bytes: &[u8], line: Range<usize>) -> Result<(Version, u16), BadHead> {
    let bad = BadHead::StatusLine;
    let (version, rest) = bytes[line].split_first_chunk::<9>().ok_or(bad)?;
    let version = match version {
        b"HTTP/1.1 " => Version::Http11,
        b"HTTP/1.0 " => Version::Http10,
        _ => return Err(bad),
    };
    match rest.split_first_chunk::<3>() {
        Some(([a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9'], [] | [b' ', ..])) => {
            let [a, b, c] = [a, b, c].map(|digit| u16::from(*digit - b'0'));
            Ok((version, a * 100 + b * 10 + c))
        }
        _ => Err(bad),
    }
}

/// The framing of a body, on the wire and for its reader.
pub(crate) type Framed = (Framing, AnswerLength);

/// That of an answer without a body.
pub(crate) const NO_BODY: Framed = (Framing::Done, AnswerLength::Absent);

/// The framing of an answer to a `method` request (RFC 9112 §6.3). An ambiguous one is refused.
pub fn framing(method: &str, parsed: &Parsed) -> Result<(Framing, AnswerLength), BadHead> {
    let headers = &parsed.head.headers;
    if method == "HEAD" || matches!(parsed.head.status, 204 | 304) {
        return Ok(NO_BODY);
    }
    if parsed.head.status == 101 {
        // The bytes after it are no body, but another protocol.
        return Ok((Framing::UntilClose, AnswerLength::Absent));
    }
    let mut codings = headers.list("transfer-encoding");
    if let Some(coding) = codings.next() {
        // Some servers and the proxies before them each add the field. Nobody chunks twice, so it counts once, as in
        // HAProxy.
        let is_chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
        let only_chunked = is_chunked(coding) && codings.all(is_chunked);
        if !only_chunked || parsed.version == Version::Http10 {
            return Err(BadHead::Coding);
        }
        if headers.contains("content-length") {
            return Err(BadHead::CodingAndLength);
        }
        return Ok((Framing::chunked(&Rules::LENIENT), AnswerLength::Unknown));
    }
    if headers.contains("transfer-encoding") {
        return Err(BadHead::Coding);
    }
    match content_length(headers)? {
        Some(bytes) => Ok((Framing::sized(bytes), AnswerLength::Sized(bytes))),
        None => Ok((Framing::UntilClose, AnswerLength::Unknown)),
    }
}

/// The declared length; several must be equal (RFC 9110 §8.6).
fn content_length(headers: &Headers) -> Result<Option<u64>, BadHead> {
    let mut length = None;
    for field in headers.all("content-length") {
        for member in field.split(|byte| *byte == b',') {
            let bytes = number(member.trim_ascii()).ok_or(BadHead::Length)?;
            if length.is_some_and(|known| known != bytes) {
                return Err(BadHead::Lengths);
            }
            length = Some(bytes);
        }
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The result for a head, the same for every cut.
    #[track_caller]
    fn read(text: &[u8]) -> Result<Option<Parsed>, BadHead> {
        let whole = ResponseReader::default().read(text);
        for cut in 1..text.len() {
            let mut reader = ResponseReader::default();
            let first = reader.read(&text[..cut]);
            let cut_in_two = if first == Ok(None) { reader.read(text) } else { first };
            assert_eq!(cut_in_two, whole, "cut at {cut}");
        }
        whole
    }

    #[track_caller]
    fn parsed(text: &str) -> Parsed {
        read(text.as_bytes()).unwrap().unwrap()
    }

    #[test]
    fn status_lines() {
        for (text, status, version) in [
            ("HTTP/1.1 200 OK\r\n\r\n", 200, Version::Http11),
            ("HTTP/1.0 999 \r\n\r\n", 999, Version::Http10),
            ("HTTP/1.1 100\r\n\r\n", 100, Version::Http11),
            ("HTTP/1.1 404 Nicht\tgefunden\u{e9}\n\n", 404, Version::Http11),
        ] {
            let one = parsed(text);
            assert_eq!((one.head.status, one.version), (status, version), "{text:?}");
            assert_eq!(one.length, text.len());
        }
        assert_eq!(read(b""), Ok(None));
        assert_eq!(read(b"HTTP/1.1 200 OK\r\na: b\r\n"), Ok(None));
        // The first byte shows that something is not an answer.
        for text in [
            "hello", "\0", "http/1.1", "HTTP/9", "HTTP/2 200", "\r\nHTTP/1.1 200 OK",
            "HTTP/1.2 200 X\r\n", "HTTP/1.1 20 X\r\n", "HTTP/1.1 2000 X\r\n", "HTTP/1.1 099 X\r\n",
            "HTTP/1.1 abc\r\n", "HTTP/1.1\r\n", "HTTP/1.1  200 X\r\n", "HTTP/1.1 200\tX\r\n",
        ] {
            assert_eq!(read(text.as_bytes()), Err(BadHead::StatusLine), "{text:?}");
        }
        assert_eq!(read(b"HTTP/1.1 200 X\0"), Err(BadHead::Control));
    }

    #[test]
    fn interim_heads_may_be_as_large_as_one_head_together() {
        let mut interims = Interims::default();
        assert_eq!(interims.add(HEAD_MAX_BYTES - 1), Ok(()));
        assert_eq!(interims.add(1), Ok(()));
        assert_eq!(interims.add(1), Err(BadHead::InterimsTooLong));
    }

    #[test]
    fn framings() {
        use AnswerLength::{Absent, Sized, Unknown};
        let of = |method: &str, status: &str, fields: &str| {
            let framed = framing(method, &parsed(&format!("HTTP/{status} X\r\n{fields}\r\n")));
            framed.map(|(wire, length)| (wire == Framing::chunked(&Rules::LENIENT), length))
        };
        let cases = [
            ("GET", "1.1 200", "", Some((false, Unknown))),
            ("GET", "1.1 200", "Content-Length: 5\r\n", Some((false, Sized(5)))),
            (
                "GET",
                "1.1 200",
                "Content-Length: 5, 5\r\ncontent-length:5\r\n",
                Some((false, Sized(5))),
            ),
            ("GET", "1.1 200", "Content-Length: 5\r\nContent-Length: 6\r\n", None),
            ("GET", "1.1 200", "Content-Length: 5,6\r\n", None),
            ("GET", "1.1 200", "Content-Length: -5\r\n", None),
            ("GET", "1.1 200", "Content-Length: \r\n", None),
            ("GET", "1.1 200", "Content-Length: 18446744073709551616\r\n", None),
            ("GET", "1.1 200", "Transfer-Encoding: Chunked\r\n", Some((true, Unknown))),
            ("GET", "1.1 200", "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", None),
            ("GET", "1.1 200", "Transfer-Encoding: gzip, chunked\r\n", None),
            (
                "GET",
                "1.1 200",
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
                Some((true, Unknown)),
            ),
            ("GET", "1.1 200", "Transfer-Encoding: chunked, Chunked\r\n", Some((true, Unknown))),
            ("GET", "1.1 200", "Transfer-Encoding: chunked, gzip\r\n", None),
            ("GET", "1.1 200", "Transfer-Encoding: chunked, identity\r\n", None),
            ("GET", "1.1 200", "Transfer-Encoding:\r\n", None),
            ("GET", "1.0 200", "Transfer-Encoding: chunked\r\n", None),
            ("HEAD", "1.1 200", "Content-Length: 5\r\n", Some((false, Absent))),
            ("GET", "1.1 204", "Content-Length: 5\r\n", Some((false, Absent))),
            ("GET", "1.1 304", "Transfer-Encoding: chunked\r\n", Some((false, Absent))),
            ("GET", "1.1 101", "Content-Length: 0\r\n", Some((false, Absent))),
        ];
        for (method, status, fields, expected) in cases {
            assert_eq!(of(method, status, fields).ok(), expected, "{method} {status} {fields:?}");
        }
    }
}
