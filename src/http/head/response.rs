//! From bytes to the head of a response, under RFC 9112's rules; pure.

use std::ops::Range;

use crate::http::framing::Framing;
use crate::http::message::{AnswerLength, FoundFields, Headers, ResponseHead, plain_prefix};
use crate::http::rules::Rules;

/// The largest response head that is taken.
pub const RESPONSE_HEAD_MAX_BYTES: usize = 64 * 1024;
/// The most header fields in one.
pub const RESPONSE_HEAD_MAX_FIELDS: usize = 256;

/// The fields that there is room for at first.
const FIELDS_COMMON: usize = 16;

/// A response's head as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// Status and header fields.
    pub head: ResponseHead,
    /// Whether it is HTTP/1.1 rather than 1.0.
    pub is_http11: bool,
    /// How many bytes it took.
    pub length: usize,
}

/// Why some bytes are no head of a response; what is wrong with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadHead(pub &'static str);

/// Looks at the bytes of a head as they come, each once, and parses it when it is whole.
#[derive(Debug, Default)]
pub struct HeadReader {
    /// How many bytes were looked at.
    seen: usize,
}

impl HeadReader {
    /// Looks at `bytes`, which start with those of the last call. None asks for more.
    pub fn read(&mut self, bytes: &[u8]) -> Result<Option<Parsed>, BadHead> {
        if !is_start(bytes) {
            return Err(BadHead("the answer is not HTTP/1.1"));
        }
        let looked_at = &bytes[..bytes.len().min(RESPONSE_HEAD_MAX_BYTES)];
        // Most heads come at once. Of others, the end is looked for in what is new, and may stand
        // across what was seen and that.
        let from = self.seen.saturating_sub("\r\n\r\n".len() - 1);
        if self.seen == 0 || has_end(&looked_at[from..]) {
            match parse(looked_at) {
                Ok(None) => {}
                // A head is judged once it is whole.
                Err(_) if !has_end(looked_at) => {}
                outcome => return outcome,
            }
        }
        self.seen = looked_at.len();
        if looked_at.len() == RESPONSE_HEAD_MAX_BYTES {
            return Err(BadHead("the response head is over 65536 bytes"));
        }
        Ok(None)
    }
}

/// Counts the interim heads (RFC 9110 §15.2) before an answer: all of them together may be as large as one head.
/// Else a provider that sends them for ever would hold a request for ever.
#[derive(Debug, Default)]
pub struct Interims {
    bytes: usize,
}

impl Interims {
    /// One more, of so many bytes.
    pub fn add(&mut self, head_bytes: usize) -> Result<(), BadHead> {
        self.bytes += head_bytes;
        if self.bytes > RESPONSE_HEAD_MAX_BYTES {
            return Err(BadHead("the interim response heads (1xx) are over 65536 bytes together"));
        }
        Ok(())
    }
}

/// Whether `bytes` may be the start of an answer; what is not is known at its first byte.
fn is_start(bytes: &[u8]) -> bool {
    const START: &[u8] = b"HTTP/1.";
    let count = bytes.len().min(START.len());
    bytes[..count] == START[..count]
}

/// Whether there is an empty line, which ends a head. A line may end with a line feed alone
/// (RFC 9112 §2.2).
fn has_end(bytes: &[u8]) -> bool {
    let mut lines = Lines(bytes);
    // The first may be the rest of a line.
    lines.next().is_some() && lines.any(<[u8]>::is_empty)
}

/// Parses the head at the start of `bytes`. None where its end is not there.
fn parse(bytes: &[u8]) -> Result<Option<Parsed>, BadHead> {
    let mut lines = Lines(bytes);
    let Some(first) = lines.next() else { return Ok(None) };
    let (is_http11, status) = status_line(first)?;
    let mut fields = FoundFields::with_room(FIELDS_COMMON);
    let mut at = bytes.len() - lines.0.len();
    loop {
        if let Some(length) = empty_line(bytes, at) {
            let head = ResponseHead { status, headers: fields.of(&bytes[..length]) };
            return Ok(Some(Parsed { head, is_http11, length }));
        }
        let Some(field) = field(bytes, at)? else { return Ok(None) };
        if fields.count() == RESPONSE_HEAD_MAX_FIELDS {
            return Err(BadHead("the response head has more than 256 fields"));
        }
        fields.push(field.name, field.value);
        at = field.end;
    }
}

/// Where the empty line at `at` ends, if there is one.
fn empty_line(bytes: &[u8], at: usize) -> Option<usize> {
    match bytes[at..] {
        [b'\r', b'\n', ..] => Some(at + 2),
        [b'\n', ..] => Some(at + 1),
        _ => None,
    }
}

/// The lines of a head, without their ends.
struct Lines<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let end = self.0.iter().position(|byte| *byte == b'\n')?;
        let line = &self.0[..end];
        self.0 = &self.0[end + 1..];
        Some(line.strip_suffix(b"\r").unwrap_or(line))
    }
}

/// `HTTP/1.1 200 OK`: whether the version is 1.1, and the status (RFC 9112 §4).
fn status_line(line: &[u8]) -> Result<(bool, u16), BadHead> {
    let bad = BadHead("the answer is not HTTP/1.1");
    let rest = line.strip_prefix(b"HTTP/1.").ok_or(bad)?;
    let (is_http11, rest) = match rest {
        [b'1', b' ', rest @ ..] => (true, rest),
        [b'0', b' ', rest @ ..] => (false, rest),
        _ => return Err(bad),
    };
    let (digits, reason) = rest.split_first_chunk::<3>().ok_or(bad)?;
    if !matches!(reason, [] | [b' ', ..]) || !is_value(reason) {
        return Err(bad);
    }
    match digits {
        [hundreds @ b'1'..=b'9', tens @ b'0'..=b'9', ones @ b'0'..=b'9'] => {
            let [hundreds, tens, ones] =
                [hundreds, tens, ones].map(|digit| u16::from(*digit - b'0'));
            Ok((is_http11, hundreds * 100 + tens * 10 + ones))
        }
        _ => Err(bad),
    }
}

/// Where a field and its parts stand.
struct Field {
    name: Range<usize>,
    value: Range<usize>,
    /// The end of its line.
    end: usize,
}

/// The field at `at` (RFC 9112 §5). None where its line has no end. A line that goes on from the one
/// before (§5.2) is no field.
fn field(bytes: &[u8], at: usize) -> Result<Option<Field>, BadHead> {
    let Some(name_length) = bytes[at..].iter().position(|byte| !is_in_name(*byte)) else {
        return Ok(None);
    };
    let name = at..at + name_length;
    // Blanks after a name are taken out of an answer (RFC 9112 §5.1).
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let Some(blanks) = bytes[name.end..].iter().position(|byte| !is_blank(byte)) else {
        return Ok(None);
    };
    let colon = name.end + blanks;
    if name_length == 0 || bytes[colon] != b':' {
        return Err(BadHead("the response head holds a line that is no field"));
    }
    let rest = &bytes[colon + 1..];
    let (value, after) = rest.split_at(plain_prefix(rest));
    let value_end = colon + 1 + value.len();
    let end = match after {
        [b'\r', b'\n', ..] => value_end + 2,
        [b'\n', ..] => value_end + 1,
        [] | [b'\r'] => return Ok(None),
        _ => return Err(BadHead("the response head holds a byte that no field may hold")),
    };
    let start = value_end - value.trim_ascii_start().len();
    let value = start..start + value.trim_ascii().len();
    Ok(Some(Field { name, value, end }))
}

/// Whether a field's name may hold the byte (RFC 9110 §5.6.2).
pub(crate) fn is_in_name(byte: u8) -> bool {
    IN_NAME[usize::from(byte)]
}

/// A table, since every byte of every name is looked up.
const IN_NAME: [bool; 256] = {
    let mut table = [false; 256];
    let mut index = 0;
    let others = b"!#$%&'*+-.^_`|~";
    while index < others.len() {
        table[others[index] as usize] = true;
        index += 1;
    }
    let mut byte = 0_u8;
    while byte < 128 {
        table[byte as usize] |= byte.is_ascii_alphanumeric();
        byte += 1;
    }
    table
};

/// Whether a field's value may be this (RFC 9110 §5.5).
pub(crate) fn is_value(bytes: &[u8]) -> bool {
    plain_prefix(bytes) == bytes.len()
}

/// How the body of an answer to a `method` request is delimited, on the wire and for who reads it
/// (RFC 9112 §6.3). What could be read in two ways is refused.
pub fn framing(method: &str, parsed: &Parsed) -> Result<(Framing, AnswerLength), BadHead> {
    let headers = &parsed.head.headers;
    if method == "HEAD" || matches!(parsed.head.status, 204 | 304) {
        return Ok((Framing::Done, AnswerLength::Absent));
    }
    let mut codings = headers.list("transfer-encoding");
    if let Some(coding) = codings.next() {
        // Some servers and proxies in front of them each add the field. Nobody chunks twice, so it is
        // taken as one, as HAProxy does.
        let is_chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
        let only_chunked = is_chunked(coding) && codings.all(is_chunked);
        if !only_chunked || !parsed.is_http11 {
            return Err(BadHead("a Transfer-Encoding other than chunked"));
        }
        if headers.contains("content-length") {
            return Err(BadHead("both Transfer-Encoding and Content-Length"));
        }
        return Ok((Framing::chunked(Rules::LENIENT), AnswerLength::Unknown));
    }
    if headers.contains("transfer-encoding") {
        return Err(BadHead("a Transfer-Encoding other than chunked"));
    }
    match content_length(headers)? {
        Some(bytes) => Ok((Framing::sized(bytes), AnswerLength::Sized(bytes))),
        None => Ok((Framing::UntilClose, AnswerLength::Unknown)),
    }
}

/// The declared length; several must be the same (RFC 9110 §8.6).
fn content_length(headers: &Headers) -> Result<Option<u64>, BadHead> {
    let mut length = None;
    for field in headers.all("content-length") {
        for member in field.split(|byte| *byte == b',') {
            let bytes =
                number(member.trim_ascii()).ok_or(BadHead("a Content-Length that is no number"))?;
            if length.is_some_and(|known| known != bytes) {
                return Err(BadHead("more than one Content-Length"));
            }
            length = Some(bytes);
        }
    }
    Ok(length)
}

fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |value, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })
}

/// Whether the connection may be used again after the answer (RFC 9112 §9.3).
pub fn keeps_alive(parsed: &Parsed) -> bool {
    let says = |what| parsed.head.headers.list_contains("connection", what);
    if parsed.is_http11 { !says("close") } else { says("keep-alive") && !says("close") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a head comes to, however it is cut.
    #[track_caller]
    fn read(text: &[u8]) -> Result<Option<Parsed>, BadHead> {
        let whole = HeadReader::default().read(text);
        for cut in 1..=text.len() {
            let mut reader = HeadReader::default();
            let first = reader.read(&text[..cut]);
            let cut_in_two = match first {
                Ok(None) => reader.read(text),
                other => other,
            };
            match (&whole, &cut_in_two) {
                // What is wrong may be seen before the whole is there, and then in other words.
                (Err(_), Err(_)) => {}
                _ => assert_eq!(whole, cut_in_two, "cut at {cut}"),
            }
        }
        let mut reader = HeadReader::default();
        let mut outcome = Ok(None);
        for end in 1..=text.len() {
            outcome = reader.read(&text[..end]);
            if !matches!(outcome, Ok(None)) {
                break;
            }
        }
        assert_eq!(outcome.is_err(), whole.is_err(), "byte by byte");
        assert!(outcome.is_err() || outcome == whole, "byte by byte");
        whole
    }

    #[track_caller]
    fn parsed(text: &str) -> Parsed {
        read(text.as_bytes()).unwrap().unwrap()
    }

    #[test]
    fn heads_that_are_fine() {
        let one = parsed(
            "HTTP/1.1 200 OK\r\nContent-Type:  a/b \r\nX:\r\nx: \x7fb\r\n\r\nbody"
                .replace('\x7f', "\t")
                .as_str(),
        );
        assert_eq!((one.head.status, one.is_http11), (200, true));
        let fields: Vec<_> = one.head.headers.iter().collect();
        let expected = [(b"Content-Type".as_slice(), b"a/b".as_slice()), (b"X", b""), (b"x", b"b")];
        assert_eq!(fields, expected);
        assert_eq!(
            one.length,
            "HTTP/1.1 200 OK\r\nContent-Type:  a/b \r\nX:\r\nx: \tb\r\n\r\n".len()
        );
        for (text, status, is_http11) in [
            ("HTTP/1.0 999 \r\n\r\n", 999, false),
            ("HTTP/1.1 100\r\n\r\n", 100, true),
            ("HTTP/1.1 404 Nicht gefunden\u{e9}\n\n", 404, true),
            ("HTTP/1.1 200 OK\na: b\r\n\nrest", 200, true),
        ] {
            let one = parsed(text);
            assert_eq!((one.head.status, one.is_http11), (status, is_http11), "{text:?}");
        }
        let blank = parsed("HTTP/1.1 200 X\r\nServer \t: b\r\n\r\n");
        assert_eq!(blank.head.headers.iter().next(), Some((b"Server".as_slice(), b"b".as_slice())));
        assert_eq!(read(b""), Ok(None));
        assert_eq!(read(b"HTTP/1.1 200 OK\r\na: b\r\n"), Ok(None));
    }

    #[test]
    fn what_is_no_head_is_refused() {
        for text in [
            "hello\r\n\r\n",
            "\0",
            "http/1.1 200 OK\r\n\r\n",
            "HTTP/9.9 200 X\r\n\r\n",
            "HTTP/2 200\r\n\r\n",
            "HTTP/1.2 200 X\r\n\r\n",
            "HTTP/1.1 20 X\r\n\r\n",
            "HTTP/1.1 2000 X\r\n\r\n",
            "HTTP/1.1 099 X\r\n\r\n",
            "HTTP/1.1 abc\r\n\r\n",
            "HTTP/1.1  200 X\r\n\r\n",
            "HTTP/1.1 200 X\0\r\n\r\n",
            "HTTP/1.1 200 X\r\na\r\n\r\n",
            "HTTP/1.1 200 X\r\n: b\r\n\r\n",
            "HTTP/1.1 200 X\r\na b: c\r\n\r\n",
            "HTTP/1.1 200 X\r\n : b\r\n\r\n",
            "HTTP/1.1 200 X\r\n a: b\r\n\r\n",
            "HTTP/1.1 200 X\r\na: b\r\n c\r\n\r\n",
            "HTTP/1.1 200 X\r\na: b\0c\r\n\r\n",
            "HTTP/1.1 200 X\r\na: b\rc\r\n\r\n",
            "HTTP/1.1 200 X\r\na\u{e9}: b\r\n\r\n",
        ] {
            assert!(read(text.as_bytes()).is_err(), "{text:?}");
        }
    }

    #[test]
    fn limits_on_both_sides() {
        let sized = |bytes: usize| {
            let frame = "HTTP/1.1 200 X\r\nx: \r\n\r\n".len();
            format!("HTTP/1.1 200 X\r\nx: {}\r\n\r\n", "y".repeat(bytes - frame))
        };
        let once = |text: &str| HeadReader::default().read(text.as_bytes());
        assert!(matches!(once(&sized(RESPONSE_HEAD_MAX_BYTES)), Ok(Some(_))));
        assert!(once(&sized(RESPONSE_HEAD_MAX_BYTES + 1)).is_err());
        let mut interims = Interims::default();
        assert_eq!(interims.add(RESPONSE_HEAD_MAX_BYTES - 1), Ok(()));
        assert_eq!(interims.add(1), Ok(()));
        assert!(interims.add(1).is_err());
        let of = |fields: usize| format!("HTTP/1.1 200 X\r\n{}\r\n", "a: b\r\n".repeat(fields));
        assert!(matches!(once(&of(RESPONSE_HEAD_MAX_FIELDS)), Ok(Some(_))));
        assert!(once(&of(RESPONSE_HEAD_MAX_FIELDS + 1)).is_err());
    }

    #[test]
    fn framings() {
        use AnswerLength::{Absent, Sized, Unknown};
        let of = |method: &str, status: &str, fields: &str| {
            let framed = framing(method, &parsed(&format!("HTTP/{status} X\r\n{fields}\r\n")));
            framed.map(|(wire, length)| (wire == Framing::chunked(Rules::LENIENT), length))
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
        ];
        for (method, status, fields, expected) in cases {
            assert_eq!(of(method, status, fields).ok(), expected, "{method} {status} {fields:?}");
        }
    }

    #[test]
    fn keep_alive_by_version() {
        for (text, keeps) in [
            ("HTTP/1.1 200 X\r\n\r\n", true),
            ("HTTP/1.1 200 X\r\nConnection: x, Close\r\n\r\n", false),
            ("HTTP/1.0 200 X\r\n\r\n", false),
            ("HTTP/1.0 200 X\r\nConnection: Keep-Alive\r\n\r\n", true),
        ] {
            assert_eq!(keeps_alive(&parsed(text)), keeps, "{text:?}");
        }
    }
}
