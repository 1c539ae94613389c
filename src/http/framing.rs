//! The framing of a response body taken off in place: by length, by chunks, or by the end of the
//! connection (RFC 9112 §6, §7.1). Pure: bytes come in as slices, however they are cut.

/// The longest line within a chunked body: a chunk's size with its extensions, or a trailer field.
pub const CHUNK_LINE_MAX_BYTES: usize = 4 * 1024;
/// All trailer fields together; they are read and dropped.
pub const TRAILERS_MAX_BYTES: usize = 16 * 1024;

/// How a body is delimited, and how far it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Nothing is left.
    Done,
    /// So many bytes are left.
    Sized(u64),
    /// Chunks.
    Chunked(Chunks),
    /// The end of the connection ends it.
    UntilClose,
}

/// What comes next in a chunked body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunks {
    at: At,
    /// Bytes of the line that is being read.
    line_bytes: usize,
    /// Bytes of the trailer fields so far.
    trailer_bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// A chunk's size: its value so far, and whether there is a digit.
    Size(u64, bool),
    /// Blanks after the digits, which only an extension may follow.
    Blanks(u64),
    /// An extension, which nobody needs.
    Extension(u64),
    /// The line feed after a size.
    SizeEnd(u64),
    /// So many bytes are left of a chunk.
    Data(u64),
    /// The carriage return after a chunk.
    DataEnd,
    /// The line feed after that.
    DataLineFeed,
    /// A trailer field, or the empty line that ends the body.
    Trailer,
    /// The line feed after a trailer field, or after the empty line.
    TrailerEnd,
}

/// What the start of some bytes is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// `len` bytes of the body after `skip` bytes of framing.
    Data {
        /// Bytes of framing before it.
        skip: usize,
        /// Bytes of the body.
        len: usize,
    },
    /// `skip` bytes of framing, and nothing more: others must come first.
    More {
        /// All the bytes there were.
        skip: usize,
    },
    /// The body ends after `skip` bytes.
    End {
        /// Bytes of framing before the end.
        skip: usize,
    },
}

/// The framing is broken; what is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadFraming(pub &'static str);

impl Framing {
    /// A body of `bytes`.
    pub fn sized(bytes: u64) -> Self {
        if bytes == 0 { Self::Done } else { Self::Sized(bytes) }
    }

    /// A body of chunks.
    pub fn chunked() -> Self {
        Self::Chunked(Chunks { at: At::Size(0, false), line_bytes: 0, trailer_bytes: 0 })
    }

    /// Takes the next step in `bytes`, which start where the last step ended.
    pub fn step(&mut self, bytes: &[u8]) -> Result<Step, BadFraming> {
        match self {
            Self::Done => Ok(Step::End { skip: 0 }),
            _ if bytes.is_empty() => Ok(Step::More { skip: 0 }),
            Self::Sized(left) => {
                let len = at_most(bytes.len(), *left);
                *self = Self::sized(*left - len as u64);
                Ok(Step::Data { skip: 0, len })
            }
            Self::UntilClose => Ok(Step::Data { skip: 0, len: bytes.len() }),
            Self::Chunked(chunks) => {
                let step = chunks.step(bytes)?;
                if matches!(step, Step::End { .. }) {
                    *self = Self::Done;
                }
                Ok(step)
            }
        }
    }

    /// Whether a body that stops here, because the connection ended, is complete: RFC 9112 §8.
    pub fn may_end_here(&self) -> bool {
        match self {
            Self::Done | Self::UntilClose => true,
            Self::Sized(_) => false,
            // The last chunk was there; only trailers, which nobody needs, could follow.
            Self::Chunked(chunks) => matches!(chunks.at, At::Trailer | At::TrailerEnd),
        }
    }
}

fn at_most(len: usize, left: u64) -> usize {
    usize::try_from(left).map_or(len, |left| left.min(len))
}

impl Chunks {
    fn step(&mut self, bytes: &[u8]) -> Result<Step, BadFraming> {
        let mut skip = 0;
        while let Some(byte) = bytes.get(skip) {
            if let At::Data(left) = self.at {
                let len = at_most(bytes.len() - skip, left);
                let left = left - len as u64;
                self.at = if left == 0 { At::DataEnd } else { At::Data(left) };
                return Ok(Step::Data { skip, len });
            }
            skip += 1;
            if self.take(*byte)? {
                return Ok(Step::End { skip });
            }
        }
        Ok(Step::More { skip })
    }

    /// Takes a byte of framing; true where it is the last one.
    fn take(&mut self, byte: u8) -> Result<bool, BadFraming> {
        self.at = match (self.at, byte) {
            (At::Size(value, _), b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                self.in_line()?;
                At::Size(with_digit(value, byte)?, true)
            }
            // Some servers fill the line up with blanks.
            (At::Size(value, true) | At::Blanks(value) | At::Extension(value), b'\r') => {
                At::SizeEnd(value)
            }
            (At::Size(value, true) | At::Blanks(value), b';') => self.go(At::Extension(value))?,
            (At::Size(value, true) | At::Blanks(value), b' ' | b'\t') => {
                self.go(At::Blanks(value))?
            }
            (At::Size(..) | At::Blanks(_), _) => {
                return Err(BadFraming("a chunk size that is no number"));
            }
            (At::Extension(value), b'\t' | b' '..=b'~' | 0x80..) => {
                self.go(At::Extension(value))?
            }
            (At::Extension(_), _) => return Err(BadFraming("a control byte in a chunk extension")),
            (At::SizeEnd(0), b'\n') => self.next_line(At::Trailer),
            (At::SizeEnd(size), b'\n') => self.next_line(At::Data(size)),
            (At::DataEnd, b'\r') => At::DataLineFeed,
            (At::DataLineFeed, b'\n') => At::Size(0, false),
            (At::DataEnd | At::DataLineFeed | At::Data(_), _) => {
                return Err(BadFraming("a chunk longer than its size"));
            }
            (At::Trailer, b'\r') => At::TrailerEnd,
            (At::TrailerEnd, b'\n') if self.line_bytes == 0 => return Ok(true),
            (At::TrailerEnd, b'\n') => {
                self.trailer_bytes += self.line_bytes;
                if self.trailer_bytes > TRAILERS_MAX_BYTES {
                    return Err(BadFraming("trailers that are too long"));
                }
                self.next_line(At::Trailer)
            }
            (At::Trailer, b'\n') | (At::SizeEnd(_) | At::TrailerEnd, _) => {
                return Err(BadFraming("a line that does not end with CR LF"));
            }
            (At::Trailer, _) => self.go(At::Trailer)?,
        };
        Ok(false)
    }

    fn in_line(&mut self) -> Result<(), BadFraming> {
        self.line_bytes += 1;
        if self.line_bytes > CHUNK_LINE_MAX_BYTES {
            return Err(BadFraming("a line that is too long"));
        }
        Ok(())
    }

    fn go(&mut self, to: At) -> Result<At, BadFraming> {
        self.in_line()?;
        Ok(to)
    }

    fn next_line(&mut self, to: At) -> At {
        self.line_bytes = 0;
        to
    }
}

fn with_digit(value: u64, digit: u8) -> Result<u64, BadFraming> {
    let digit = char::from(digit).to_digit(16).map_or(0, u64::from);
    let shifted = value.checked_mul(16).ok_or(BadFraming("a chunk size that is too large"))?;
    Ok(shifted + digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A body, and what is left after it; None where it does not end.
    type Decoded<T> = Result<Option<(T, T)>, BadFraming>;

    /// Decodes `bytes`, fed in pieces of `cut`.
    fn decode(mut framing: Framing, bytes: &[u8], cut: usize) -> Decoded<Vec<u8>> {
        let (mut body, mut start) = (Vec::new(), 0);
        let mut end = cut.min(bytes.len());
        loop {
            match framing.step(&bytes[start..end])? {
                Step::Data { skip, len } => {
                    body.extend_from_slice(&bytes[start + skip..start + skip + len]);
                    start += skip + len;
                }
                Step::End { skip } => return Ok(Some((body, bytes[start + skip..].to_vec()))),
                Step::More { skip } => {
                    start += skip;
                    assert_eq!(start, end);
                    if end == bytes.len() {
                        return Ok(None);
                    }
                    end = (end + cut).min(bytes.len());
                }
            }
        }
    }

    #[track_caller]
    fn every_cut(framing: Framing, text: &str) -> Decoded<String> {
        let utf8 = |bytes| String::from_utf8(bytes).unwrap();
        let whole = decode(framing, text.as_bytes(), text.len().max(1));
        for cut in 1..text.len() {
            assert_eq!(decode(framing, text.as_bytes(), cut), whole, "pieces of {cut}");
        }
        whole.map(|end| end.map(|(body, rest)| (utf8(body), utf8(rest))))
    }

    #[expect(clippy::unnecessary_wraps, reason = "it is compared with results")]
    fn fine(body: &str, rest: &str) -> Decoded<String> {
        Ok(Some((body.into(), rest.into())))
    }

    #[test]
    fn sized_and_open_bodies() {
        assert_eq!(every_cut(Framing::sized(0), "HTTP"), fine("", "HTTP"));
        assert_eq!(every_cut(Framing::sized(5), "helloHTTP"), fine("hello", "HTTP"));
        assert_eq!(every_cut(Framing::sized(5), "hell"), Ok(None));
        assert_eq!(every_cut(Framing::UntilClose, "hello"), Ok(None));
        assert!(Framing::UntilClose.may_end_here() && !Framing::Sized(1).may_end_here());
    }

    #[test]
    fn chunked_bodies() {
        let chunked = |text| every_cut(Framing::chunked(), text);
        assert_eq!(chunked("0\r\n\r\nHTTP"), fine("", "HTTP"));
        assert_eq!(chunked("5\r\nhello\r\n7\r\n, world\r\n0\r\n\r\nH"), fine("hello, world", "H"));
        assert_eq!(
            chunked("0005;a=b;c=\"d\"\r\nhello\r\n0;x\r\nT: 1\r\nU: 2\r\n\r\nH"),
            fine("hello", "H")
        );
        assert_eq!(chunked("A \t;x\r\n0123456789\r\n000\r\n\r\n"), fine("0123456789", ""));
        // Apache 1.3, IIS and some Java servers.
        assert_eq!(chunked("5   \r\nhello\r\n0 \t\r\n\r\n"), fine("hello", ""));
        for malformed in [
            "\r\n",
            "x\r\n",
            "-1\r\n",
            "+1\r\n",
            "0x1\r\n",
            " 1\r\n",
            "1 1\r\n",
            "1\nA",
            "1\r\nAB\r\n0\r\n\r\n",
            "1\r\nA\n0\r\n\r\n",
            "1\r\nA0\r\n\r\n",
            "1;\0\r\n",
            "0\r\nT: 1\n\r\n",
            "0\r\nT: 1\r\r\n",
            "0\r\n\n",
            "1\r\r\nA",
            "g\r\n",
            "10000000000000000\r\n",
            "fffffffffffffffff\r\n",
        ] {
            assert!(chunked(malformed).is_err(), "{malformed:?}");
        }
        for early in
            ["", "1", "1\r", "1\r\n", "2\r\nA", "1\r\nA", "1\r\nA\r\n", "0\r\n", "0\r\nT: 1\r\n"]
        {
            assert_eq!(chunked(early), Ok(None), "{early:?}");
        }
    }

    #[test]
    fn an_end_of_the_connection_is_one_of_the_body_once_the_last_chunk_came() {
        for (text, may) in [("1\r\na\r\n0\r", false), ("1\r\na\r\n0\r\n", true), ("0\r\nt", true)] {
            let mut framing = Framing::chunked();
            let mut rest = text.as_bytes();
            while let Ok(Step::Data { skip, len }) = framing.step(rest) {
                rest = &rest[skip + len..];
            }
            assert_eq!(framing.may_end_here(), may, "{text:?}");
        }
    }

    #[test]
    fn limits_on_both_sides() {
        let line = |length: usize| format!("0;{}\r\n\r\n", "x".repeat(length - 2));
        let whole = |text: &str| decode(Framing::chunked(), text.as_bytes(), 999_999);
        assert!(whole(&line(CHUNK_LINE_MAX_BYTES)).is_ok());
        assert!(whole(&line(CHUNK_LINE_MAX_BYTES + 1)).is_err());
        let zeros = |length: usize| format!("{}\r\n\r\n", "0".repeat(length));
        assert!(whole(&zeros(CHUNK_LINE_MAX_BYTES)).is_ok());
        assert!(whole(&zeros(CHUNK_LINE_MAX_BYTES + 1)).is_err());
        let trailers = |fields: usize| {
            format!("0\r\n{}\r\n", format!("{}\r\n", "t".repeat(1024)).repeat(fields))
        };
        assert!(whole(&trailers(TRAILERS_MAX_BYTES / 1024)).is_ok());
        assert!(whole(&trailers(TRAILERS_MAX_BYTES / 1024 + 1)).is_err());
    }
}
