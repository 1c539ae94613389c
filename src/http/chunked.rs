//! Chunks (RFC 9112 §7.1): their framing taken off byte by byte, and put on. Pure.

use std::fmt;

use crate::http::rules::Rules;

/// The longest line within a chunked body: a chunk's size with its extensions, or a trailer field.
pub(crate) const CHUNK_LINE_MAX_BYTES: usize = 4 * 1024;
/// The largest size of all trailer fields together; they are read and dropped.
pub(crate) const TRAILERS_MAX_BYTES: usize = 16 * 1024;

/// The next part of a chunked body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunks {
    at: At,
    /// [`Rules::blanks_after_size`].
    blanks_after_size: bool,
    /// Bytes of the present line.
    line_bytes: usize,
    /// Bytes of the trailer fields so far.
    trailer_bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// A chunk's size: its value so far, and true once there is a digit.
    Size(u64, bool),
    /// Blanks after the digits.
    Blanks(u64),
    /// An extension, which is ignored.
    Extension(u64),
    /// The line feed after a size.
    SizeEnd(u64),
    /// This many bytes are left of a chunk.
    Data(u64),
    /// The carriage return after a chunk.
    DataEnd,
    /// The line feed after that.
    DataLineFeed,
    /// A trailer field, or the empty line that ends the body.
    Trailer,
    /// The line feed after a trailer field, or after the empty line.
    TrailerEnd,
    /// The body has ended.
    End,
    /// Its framing broke.
    Broken(BadFraming),
}

/// The fault in a body's framing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadFraming {
    /// A size without digits, or with something else among them.
    Size,
    /// A size of more than 64 bits.
    SizeTooLarge,
    /// A control byte in an extension.
    Extension,
    /// No line end after a chunk.
    Overlong,
    /// A bare carriage return or line feed.
    LineEnd,
    /// A line over [`CHUNK_LINE_MAX_BYTES`].
    LineTooLong,
    /// Trailer fields over [`TRAILERS_MAX_BYTES`].
    TrailersTooLong,
}

impl fmt::Display for BadFraming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Size => "a chunk size that is not a number",
            Self::SizeTooLarge => "a chunk size that is too large",
            Self::Extension => "a control byte in a chunk extension",
            Self::Overlong => "a chunk longer than its size",
            Self::LineEnd => "a line that does not end with CR LF",
            Self::LineTooLong => "a line that is too long",
            Self::TrailersTooLong => "trailers that are too long",
        })
    }
}

impl Chunks {
    /// At the start of a body.
    pub fn new(rules: &Rules) -> Self {
        let blanks_after_size = rules.blanks_after_size;
        Self { at: At::Size(0, false), blanks_after_size, line_bytes: 0, trailer_bytes: 0 }
    }

    /// The data bytes that come next, before any framing.
    pub fn data_left(&self) -> u64 {
        if let At::Data(left) = self.at { left } else { 0 }
    }

    /// Marks this many of the next data bytes as taken.
    pub fn take_data(&mut self, bytes: u64) {
        if let At::Data(left) = self.at {
            self.at = if left == bytes { At::DataEnd } else { At::Data(left - bytes) };
        }
    }

    /// True if the body has ended.
    pub fn has_ended(&self) -> bool {
        self.at == At::End
    }

    /// True if the last chunk was there: only trailers could follow, which are ignored.
    pub fn has_all_data(&self) -> bool {
        matches!(self.at, At::Trailer | At::TrailerEnd | At::End)
    }

    /// Takes the framing at the start of `bytes`, up to data or the end of the body; returns its size. After an
    /// error, it returns the same error again.
    pub fn skip_framing(&mut self, bytes: &[u8]) -> Result<usize, BadFraming> {
        if let Some((size, count)) = self.plain_framing(bytes) {
            self.at = At::Data(size);
            return Ok(count);
        }
        let mut skipped = 0;
        while let Some(byte) = bytes.get(skipped)
            && !matches!(self.at, At::Data(_) | At::End | At::Broken(_))
        {
            self.at = self.after(*byte);
            skipped += 1;
        }
        if let At::Broken(bad) = self.at { Err(bad) } else { Ok(skipped) }
    }

    /// The size of the next chunk and that of the framing before it, as most senders write it and if it is all there:
    /// the end of the chunk before, a number, and a line end. All else is read byte by byte.
    #[inline]
    fn plain_framing(&self, bytes: &[u8]) -> Option<(u64, usize)> {
        /// So that the size can't overflow.
        const DIGITS_MAX: usize = 8;
        let start = match self.at {
            At::DataEnd if bytes.starts_with(CHUNK_END) => CHUNK_END.len(),
            At::Size(0, false) => 0,
            _ => return None,
        };
        let mut size = 0;
        for (count, byte) in bytes[start..].iter().take(DIGITS_MAX + 1).enumerate() {
            let Some(digit) = hex_digit(*byte) else {
                let end = start + count;
                let is_plain = size > 0 && bytes[end..].starts_with(b"\r\n");
                return is_plain.then_some((size, end + 2));
            };
            size = size * 16 + u64::from(digit);
        }
        None
    }

    /// The state after `byte`.
    fn after(&mut self, byte: u8) -> At {
        match (self.at, byte) {
            (At::Size(value, _), b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = hex_digit(byte).map_or(0, u64::from);
                match value.checked_mul(16) {
                    Some(shifted) => self.in_line(At::Size(shifted + digit, true)),
                    None => At::Broken(BadFraming::SizeTooLarge),
                }
            }
            (At::Size(value, true) | At::Extension(value), b'\r') => At::SizeEnd(value),
            (At::Blanks(value), b'\r') if self.blanks_after_size => At::SizeEnd(value),
            (At::Size(value, true) | At::Blanks(value), b';') => self.in_line(At::Extension(value)),
            (At::Size(value, true) | At::Blanks(value), b' ' | b'\t') => {
                self.in_line(At::Blanks(value))
            }
            (At::Size(..) | At::Blanks(_), _) => At::Broken(BadFraming::Size),
            (At::Extension(value), b'\t' | b' '..=b'~' | 0x80..) => {
                self.in_line(At::Extension(value))
            }
            (At::Extension(_), _) => At::Broken(BadFraming::Extension),
            (At::SizeEnd(0), b'\n') => self.next_line(At::Trailer),
            (At::SizeEnd(size), b'\n') => self.next_line(At::Data(size)),
            (At::DataEnd, b'\r') => At::DataLineFeed,
            (At::DataLineFeed, b'\n') => At::Size(0, false),
            (At::DataEnd | At::DataLineFeed, _) => At::Broken(BadFraming::Overlong),
            (At::Trailer, b'\r') => At::TrailerEnd,
            (At::TrailerEnd, b'\n') if self.line_bytes == 0 => At::End,
            (At::TrailerEnd, b'\n') => {
                self.trailer_bytes += self.line_bytes;
                if self.trailer_bytes > TRAILERS_MAX_BYTES {
                    return At::Broken(BadFraming::TrailersTooLong);
                }
                self.next_line(At::Trailer)
            }
            (At::Trailer, b'\n') | (At::SizeEnd(_) | At::TrailerEnd, _) => {
                At::Broken(BadFraming::LineEnd)
            }
            (At::Trailer, _) => self.in_line(At::Trailer),
            (at @ (At::Data(_) | At::End | At::Broken(_)), _) => at,
        }
    }

    fn in_line(&mut self, to: At) -> At {
        self.line_bytes += 1;
        if self.line_bytes > CHUNK_LINE_MAX_BYTES {
            return At::Broken(BadFraming::LineTooLong);
        }
        to
    }

    fn next_line(&mut self, to: At) -> At {
        self.line_bytes = 0;
        to
    }
}

/// The value of a hexadecimal digit.
#[inline]
const fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// The end of a chunk.
pub(crate) const CHUNK_END: &[u8] = b"\r\n";
/// The end of a chunk and of the body.
pub(crate) const CHUNK_AND_BODY_END: &[u8] = b"\r\n0\r\n\r\n";
/// The end of a body after a chunk that was ended.
pub(crate) const BODY_END: &[u8] = b"0\r\n\r\n";

/// The longest size line of a chunk: a length in hexadecimal digits, CR LF.
const SIZE_LINE_MAX_BYTES: usize = 18;

/// The line before a chunk.
pub(crate) struct SizeLine {
    bytes: [u8; SIZE_LINE_MAX_BYTES],
    start: usize,
}

impl SizeLine {
    /// The line before a chunk of `len` bytes.
    pub(crate) fn of(mut len: usize) -> Self {
        let mut line = Self { bytes: [0; SIZE_LINE_MAX_BYTES], start: SIZE_LINE_MAX_BYTES - 2 };
        line.bytes[line.start..].copy_from_slice(b"\r\n");
        loop {
            line.start -= 1;
            line.bytes[line.start] = b"0123456789abcdef"[len % 16];
            len /= 16;
            if len == 0 {
                return line;
            }
        }
    }

    /// The line's bytes.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A body and what is left after it; None where it does not end.
    type Decoded = Result<Option<(String, String)>, BadFraming>;

    /// Decodes `text`, which comes in pieces of `cut` bytes.
    fn decode(rules: Rules, text: &str, cut: usize) -> Decoded {
        let (mut chunks, mut body, mut start) = (Chunks::new(&rules), Vec::new(), 0);
        for end in (cut..text.len()).step_by(cut).chain([text.len()]) {
            loop {
                let bytes = &text.as_bytes()[start..end];
                start += chunks.skip_framing(bytes).inspect_err(|bad| {
                    let mut again = chunks;
                    assert_eq!(again.skip_framing(b""), Err(*bad), "said again");
                })?;
                let left = usize::try_from(chunks.data_left()).unwrap_or(usize::MAX);
                let count = left.min(end - start);
                body.extend_from_slice(&text.as_bytes()[start..start + count]);
                chunks.take_data(count as u64);
                start += count;
                if count == 0 {
                    break;
                }
            }
        }
        let body = String::from_utf8(body).unwrap();
        Ok(chunks.has_ended().then(|| (body, text[start..].to_owned())))
    }

    /// The result, the same for every cut.
    #[track_caller]
    fn every_cut(rules: Rules, text: &str) -> Decoded {
        let whole = decode(rules, text, text.len().max(1));
        for cut in 1..text.len() {
            assert_eq!(decode(rules, text, cut), whole, "pieces of {cut}");
        }
        whole
    }

    #[expect(clippy::unnecessary_wraps, reason = "it is compared with results")]
    fn fine(body: &str, rest: &str) -> Decoded {
        Ok(Some((body.into(), rest.into())))
    }

    /// The results for each text by strict rules, and by lenient ones.
    #[test]
    fn chunked_bodies_by_both_rules() {
        use BadFraming::{Extension, LineEnd, Overlong, Size, SizeTooLarge};
        let both = |decoded: Decoded| (decoded.clone(), decoded);
        let lenient = |bad, decoded| (Err(bad), decoded);
        let cases = [
            ("0\r\n\r\nGET", both(fine("", "GET"))),
            ("5\r\nhello\r\n7\r\n, world\r\n0\r\n\r\nG", both(fine("hello, world", "G"))),
            ("05;a=b;c=\"d\"\r\nhello\r\n0;x\r\nT: 1\r\nU: 2\r\n\r\nG", both(fine("hello", "G"))),
            ("A \t;x\r\n0123456789\r\n000\r\n\r\n", both(fine("0123456789", ""))),
            ("1;\u{e9}\t\r\na\r\n0\r\n\r\n", both(fine("a", ""))),
            ("5   \r\nhello\r\n0 \t\r\n\r\n", lenient(Size, fine("hello", ""))),
            ("1 \r\n", lenient(Size, Ok(None))),
            ("\r\n", both(Err(Size))),
            ("x\r\n", both(Err(Size))),
            ("g\r\n", both(Err(Size))),
            ("-1\r\n", both(Err(Size))),
            ("+1\r\n", both(Err(Size))),
            ("0x1\r\n", both(Err(Size))),
            (" 1\r\n", both(Err(Size))),
            ("1 1\r\n", both(Err(Size))),
            ("1\nA", both(Err(Size))),
            ("1 \nA", both(Err(Size))),
            ("1;x\nA", both(Err(Extension))),
            ("1;\0\r\n", both(Err(Extension))),
            ("1;\x7f\r\n", both(Err(Extension))),
            ("1\r\nAB\r\n0\r\n\r\n", both(Err(Overlong))),
            ("1\r\nA\n0\r\n\r\n", both(Err(Overlong))),
            ("1\r\nA\r0\r\n\r\n", both(Err(Overlong))),
            ("1\r\nA0\r\n\r\n", both(Err(Overlong))),
            ("1\r\r\nA", both(Err(LineEnd))),
            ("0\r\n\n", both(Err(LineEnd))),
            ("0\r\nT: 1\n\r\n", both(Err(LineEnd))),
            ("0\r\nT: 1\r\r\n", both(Err(LineEnd))),
            ("10000000000000000\r\n", both(Err(SizeTooLarge))),
            ("fffffffffffffffff\r\n", both(Err(SizeTooLarge))),
            ("ffffffffffffffff\r\nA", both(Ok(None))),
            ("00000002\r\nAB\r\n0\r\n\r\n", both(fine("AB", ""))),
            ("000000002\r\nAB\r\n0\r\n\r\n", both(fine("AB", ""))),
            (
                "b\r\n0123456789A\r\nB\r\n0123456789a\r\n0\r\n\r\n",
                both(fine("0123456789A0123456789a", "")),
            ),
            ("", both(Ok(None))),
            ("1", both(Ok(None))),
            ("1\r", both(Ok(None))),
            ("1\r\n", both(Ok(None))),
            ("2\r\nA", both(Ok(None))),
            ("1\r\nA", both(Ok(None))),
            ("1\r\nA\r\n", both(Ok(None))),
            ("0\r\n", both(Ok(None))),
            ("0\r\nT: 1\r\n", both(Ok(None))),
        ];
        for (text, (strictly, leniently)) in cases {
            assert_eq!(every_cut(Rules::STRICT, text), strictly, "{text:?}, strictly");
            assert_eq!(every_cut(Rules::LENIENT, text), leniently, "{text:?}, leniently");
        }
    }

    #[test]
    fn all_data_are_there_once_the_last_chunk_came() {
        for (text, are) in [("1\r\na\r\n0\r", false), ("1\r\na\r\n0\r\n", true), ("0\r\nt", true)] {
            let mut chunks = Chunks::new(&Rules::LENIENT);
            let mut start = chunks.skip_framing(text.as_bytes()).unwrap();
            if chunks.data_left() > 0 {
                chunks.take_data(1);
                start += 1;
                chunks.skip_framing(&text.as_bytes()[start..]).unwrap();
            }
            assert_eq!(chunks.has_all_data(), are, "{text:?}");
        }
    }

    #[test]
    fn limits_on_both_sides() {
        for rules in [Rules::STRICT, Rules::LENIENT] {
            let whole = |text: String| decode(rules, &text, text.len());
            let line = |length: usize| format!("0;{}\r\n\r\n", "x".repeat(length - 2));
            assert_eq!(whole(line(CHUNK_LINE_MAX_BYTES)), fine("", ""));
            assert_eq!(whole(line(CHUNK_LINE_MAX_BYTES + 1)), Err(BadFraming::LineTooLong));
            let zeros = |length: usize| format!("{}\r\n\r\n", "0".repeat(length));
            assert_eq!(whole(zeros(CHUNK_LINE_MAX_BYTES)), fine("", ""));
            assert_eq!(whole(zeros(CHUNK_LINE_MAX_BYTES + 1)), Err(BadFraming::LineTooLong));
            let trailer = |length: usize| format!("0\r\n{}\r\n\r\n", "t".repeat(length));
            assert_eq!(whole(trailer(CHUNK_LINE_MAX_BYTES)), fine("", ""));
            assert_eq!(whole(trailer(CHUNK_LINE_MAX_BYTES + 1)), Err(BadFraming::LineTooLong));
            let trailers = |fields: usize| {
                format!("0\r\n{}\r\n", format!("{}\r\n", "t".repeat(1024)).repeat(fields))
            };
            assert_eq!(whole(trailers(TRAILERS_MAX_BYTES / 1024)), fine("", ""));
            let over = whole(trailers(TRAILERS_MAX_BYTES / 1024 + 1));
            assert_eq!(over, Err(BadFraming::TrailersTooLong));
        }
    }

    #[test]
    fn size_lines() {
        let lines = [(0, "0\r\n"), (9, "9\r\n"), (16, "10\r\n"), (255, "ff\r\n")];
        for (len, line) in lines.into_iter().chain([(usize::MAX, "ffffffffffffffff\r\n")]) {
            assert_eq!(SizeLine::of(len).as_bytes(), line.as_bytes());
        }
        for (end, text) in [(CHUNK_END, "\r\n"), (BODY_END, "0\r\n\r\n")] {
            assert_eq!(end, text.as_bytes());
        }
        assert_eq!(CHUNK_AND_BODY_END, [CHUNK_END, BODY_END].concat());
    }
}
