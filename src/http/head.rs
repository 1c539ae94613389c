//! Heads from bytes, line by line as they come, and back: what requests and responses have in common (RFC 9112 §2.2, §5).
//! Pure.

use std::fmt;
use std::ops::Range;

use crate::http::message::{FoundFields, Headers};
use crate::http::octets::{name_prefix, plain_prefix};
use crate::http::rules::Rules;

pub(crate) mod encode;
pub(crate) mod request;
pub(crate) mod response;

/// The largest head, start line and fields together, of a request or a response.
pub const HEAD_MAX_BYTES: usize = 64 * 1024;

/// The room for fields at first.
const FIELDS_COMMON: usize = 16;

/// Why some bytes are no head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadHead {
    /// No request line.
    RequestLine,
    /// A request of another version.
    Version,
    /// No status line of HTTP/1.0 or 1.1.
    StatusLine,
    /// More empty lines before the start line than the rules allow.
    EmptyLines,
    /// A bare line feed.
    LineEnd,
    /// A bare carriage return.
    CarriageReturn,
    /// Another control byte.
    Control,
    /// A line that does not begin with a name and a colon.
    Field,
    /// More fields than this.
    TooManyFields(usize),
    /// Over [`HEAD_MAX_BYTES`].
    TooLong,
    /// Interim heads over [`HEAD_MAX_BYTES`] together.
    InterimsTooLong,
    /// A `Transfer-Encoding` other than chunked.
    Coding,
    /// Both `Transfer-Encoding` and `Content-Length`.
    CodingAndLength,
    /// A `Content-Length` that is no number.
    Length,
    /// Different values of `Content-Length`.
    Lengths,
}

impl fmt::Display for BadHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RequestLine => "the request line is not: method, target, version",
            Self::Version => {
                "the version is not HTTP/1.0 or HTTP/1.1, which is all that evertoken speaks; turn HTTP/2 off in \
                 the client"
            }
            Self::StatusLine => "the answer is not HTTP/1.1",
            Self::EmptyLines => "too many empty lines before the request line",
            Self::LineEnd => "a line that does not end with CR LF",
            Self::CarriageReturn => "a carriage return that ends no line",
            Self::Control => "a control byte in the head",
            Self::Field => "a line of the head that does not begin with a field name and a colon",
            Self::TooManyFields(most) => return write!(f, "the head has more than {most} fields"),
            Self::TooLong => return write!(f, "the head is over {HEAD_MAX_BYTES} bytes"),
            Self::InterimsTooLong => {
                let over = "the interim response heads (1xx) are over";
                return write!(f, "{over} {HEAD_MAX_BYTES} bytes together");
            }
            Self::Coding => "a Transfer-Encoding other than chunked",
            Self::CodingAndLength => "both Transfer-Encoding and Content-Length",
            Self::Length => "a Content-Length that is not a number",
            Self::Lengths => "more than one Content-Length",
        })
    }
}

/// Takes the lines of a head as they come, each byte once. `S` is its parsed start line.
#[derive(Debug)]
struct Lines<S> {
    /// The start of the present line.
    at: usize,
    /// The end of the scanned part.
    seen: usize,
    start_line: Option<S>,
    fields: FoundFields,
}

/// A head as it was read.
struct Whole<S> {
    start_line: S,
    headers: Headers,
    /// The head's length in bytes.
    length: usize,
}

impl<S> Default for Lines<S> {
    fn default() -> Self {
        Self { at: 0, seen: 0, start_line: None, fields: FoundFields::default() }
    }
}

impl<S> Lines<S> {
    /// Looks at `bytes`, which start with those of the last call; `start_line` is given where the start line stands. None
    /// asks for more.
    fn read(
        &mut self,
        bytes: &[u8],
        rules: &Rules,
        start_line: impl Fn(&[u8], Range<usize>) -> Result<S, BadHead>,
    ) -> Result<Option<Whole<S>>, BadHead> {
        let bytes = &bytes[..bytes.len().min(HEAD_MAX_BYTES)];
        while let Some(line) = self.next_line(bytes, rules)? {
            if self.start_line.is_some() && !line.is_empty() {
                if self.fields.count() == rules.head_fields_max {
                    return Err(BadHead::TooManyFields(rules.head_fields_max));
                }
                let (name, value) = field(bytes, line, rules)?;
                self.fields.push(bytes, name, value);
            } else if let Some(start_line) = self.start_line.take() {
                let headers = std::mem::take(&mut self.fields).of(&bytes[..self.at]);
                return Ok(Some(Whole { start_line, headers, length: self.at }));
            } else if !line.is_empty() {
                self.start_line = Some(start_line(bytes, line)?);
                self.fields = FoundFields::with_room(FIELDS_COMMON);
            } else if self.at > rules.empty_lines_before_max * "\r\n".len() {
                return Err(BadHead::EmptyLines);
            }
        }
        if bytes.len() == HEAD_MAX_BYTES { Err(BadHead::TooLong) } else { Ok(None) }
    }

    /// The place of the next line, without its end. None if it has not come. Control bytes are an error at once.
    #[inline]
    fn next_line(&mut self, bytes: &[u8], rules: &Rules) -> Result<Option<Range<usize>>, BadHead> {
        let end = self.seen + plain_prefix(&bytes[self.seen..]);
        self.seen = end;
        let next = match bytes[end..] {
            [b'\r', b'\n', ..] => end + 2,
            [b'\n', ..] if rules.bare_line_feeds => end + 1,
            [] | [b'\r'] => return Ok(None),
            [b'\n', ..] => return Err(BadHead::LineEnd),
            [b'\r', ..] => return Err(BadHead::CarriageReturn),
            _ => return Err(BadHead::Control),
        };
        let line = self.at..end;
        (self.at, self.seen) = (next, next);
        Ok(Some(line))
    }
}

/// The places of name and value of the field in `line` (RFC 9112 §5). A continuation line (§5.2) is not a field.
#[inline]
fn field(
    bytes: &[u8],
    line: Range<usize>,
    rules: &Rules,
) -> Result<(Range<usize>, Range<usize>), BadHead> {
    let text = &bytes[line.clone()];
    let name = name_prefix(text);
    let mut rest = &text[name..];
    if rules.blanks_after_name {
        rest = rest.trim_ascii_start();
    }
    let [b':', value @ ..] = rest else { return Err(BadHead::Field) };
    if name == 0 {
        return Err(BadHead::Field);
    }
    // As most values stand.
    let value = match value {
        [b' ', value @ ..] if value.first().is_some_and(|first| *first > b' ') => value,
        other => other.trim_ascii_start(),
    };
    let start = line.end - value.len();
    Ok((line.start..line.start + name, start..start + value.trim_ascii_end().len()))
}

/// The number with these `digits`.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |value, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests;
