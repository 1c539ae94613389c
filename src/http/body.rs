//! A request body's framing taken off, over any `Read`: by length, or chunks (RFC 9112 §6, §7.1).

use std::fmt;
use std::io::{self, BufRead, Read};

use crate::http::message::BodyLength;

/// The longest line within a chunked body: a chunk's size with its extensions, or a trailer field.
pub const CHUNK_LINE_MAX_BYTES: usize = 4 * 1024;
/// All trailer fields together; they are read and dropped.
pub const TRAILERS_MAX_BYTES: usize = 16 * 1024;

/// What is wrong with a request body; carried in an `io::Error`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFault {
    /// Broken framing.
    Malformed(&'static str),
    /// Over the limit.
    TooLarge,
    /// Silent for too long.
    Timeout,
    /// The client went away, or ended early.
    Gone,
}

impl BodyFault {
    /// As an error of a read.
    pub fn into_io(self) -> io::Error {
        io::Error::other(self)
    }

    /// The fault that `error` carries.
    pub fn of(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref().copied()
    }
}

impl fmt::Display for BodyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed(why) => why,
            Self::TooLarge => "the request body is too large",
            Self::Timeout => "the request body did not come in time",
            Self::Gone => "the client went away",
        })
    }
}

impl std::error::Error for BodyFault {}

/// Where a body stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// So many bytes are left of a sized body.
    Sized(u64),
    /// A chunk's size line comes next.
    ChunkSize,
    /// So many bytes are left of a chunk.
    Chunk(u64),
    /// The line end after a chunk comes next.
    ChunkEnd,
    /// Nothing is left.
    Done,
    /// The framing broke: where the next request starts is not known.
    Broken,
}

/// Takes the framing off. The reader it is given is read no further than the body goes.
#[derive(Debug)]
pub struct BodyDecoder {
    state: State,
    /// How many more bytes a chunked body may have.
    allowed: u64,
}

impl BodyDecoder {
    /// A body of `length`, chunked ones of at most `max_bytes`.
    pub fn new(length: BodyLength, max_bytes: u64) -> Self {
        let state = match length {
            BodyLength::Absent | BodyLength::Sized(0) => State::Done,
            BodyLength::Sized(bytes) => State::Sized(bytes),
            BodyLength::Chunked => State::ChunkSize,
        };
        Self { state, allowed: max_bytes }
    }

    /// Whether everything was read.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Reads a piece of the body from `from`; 0 at its end.
    pub fn read(&mut self, from: &mut impl BufRead, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let outcome = self.step(from, buffer);
        if outcome.is_err() {
            self.state = State::Broken;
        }
        outcome
    }

    fn step(&mut self, from: &mut impl BufRead, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.state {
                State::Done => return Ok(0),
                State::Broken => {
                    return Err(BodyFault::Malformed("the body broke before").into_io());
                }
                State::Sized(left) => {
                    let count = read_some(from, buffer, left)?;
                    let left = left - count as u64;
                    self.state = if left == 0 { State::Done } else { State::Sized(left) };
                    return Ok(count);
                }
                State::Chunk(left) => {
                    let count = read_some(from, buffer, left)?;
                    let left = left - count as u64;
                    self.state = if left == 0 { State::ChunkEnd } else { State::Chunk(left) };
                    return Ok(count);
                }
                State::ChunkEnd => {
                    if !read_line(from, 0)?.is_empty() {
                        return Err(BodyFault::Malformed("a chunk longer than its size").into_io());
                    }
                    self.state = State::ChunkSize;
                }
                State::ChunkSize => self.begin_chunk(from)?,
            }
        }
    }

    fn begin_chunk(&mut self, from: &mut impl BufRead) -> io::Result<()> {
        let line = read_line(from, CHUNK_LINE_MAX_BYTES)?;
        let size = chunk_size(&line).map_err(BodyFault::into_io)?;
        if size == 0 {
            read_trailers(from)?;
            self.state = State::Done;
            return Ok(());
        }
        self.allowed =
            self.allowed.checked_sub(size).ok_or_else(|| BodyFault::TooLarge.into_io())?;
        self.state = State::Chunk(size);
        Ok(())
    }
}

fn read_some(from: &mut impl BufRead, buffer: &mut [u8], left: u64) -> io::Result<usize> {
    let room = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
    match from.read(&mut buffer[..room])? {
        0 => Err(BodyFault::Gone.into_io()),
        count => Ok(count),
    }
}

/// A line without its CR LF, of at most `max_bytes`.
fn read_line(from: &mut impl BufRead, max_bytes: usize) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    from.take(max_bytes as u64 + 2).read_until(b'\n', &mut line)?;
    let ended = line.pop_if(|last| *last == b'\n').is_some();
    match line.pop_if(|last| *last == b'\r') {
        Some(_) if ended && !line.contains(&b'\r') => Ok(line),
        _ if ended => Err(BodyFault::Malformed("a line that does not end with CR LF").into_io()),
        _ if line.len() > max_bytes => {
            Err(BodyFault::Malformed("a line that is too long").into_io())
        }
        _ => Err(BodyFault::Gone.into_io()),
    }
}

/// Hexadecimal digits, then extensions, which nobody needs (RFC 9112 §7.1.1).
fn chunk_size(line: &[u8]) -> Result<u64, BodyFault> {
    let end = line.iter().position(|byte| *byte == b';').unwrap_or(line.len());
    let (digits, extensions) = line.split_at(end);
    let digits = if extensions.is_empty() { digits } else { digits.trim_ascii_end() };
    let plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_hexdigit);
    let control = extensions.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t');
    if !plain || control {
        return Err(BodyFault::Malformed("a chunk size that is no number"));
    }
    let text = std::str::from_utf8(digits).unwrap_or_default();
    u64::from_str_radix(text, 16).map_err(|_| BodyFault::TooLarge)
}

fn read_trailers(from: &mut impl BufRead) -> io::Result<()> {
    let mut allowed = TRAILERS_MAX_BYTES;
    loop {
        let line = read_line(from, CHUNK_LINE_MAX_BYTES)?;
        if line.is_empty() {
            return Ok(());
        }
        allowed = allowed
            .checked_sub(line.len())
            .ok_or_else(|| BodyFault::Malformed("trailers that are too long").into_io())?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Yields its bytes in pieces of at most `size`.
    struct Pieces<'a> {
        bytes: &'a [u8],
        cut: usize,
    }

    impl Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.fill_buf()?.len().min(buffer.len());
            buffer[..count].copy_from_slice(&self.bytes[..count]);
            self.consume(count);
            Ok(count)
        }
    }

    impl BufRead for Pieces<'_> {
        fn fill_buf(&mut self) -> io::Result<&[u8]> {
            let end = if self.cut > 0 { self.cut } else { self.bytes.len() };
            Ok(&self.bytes[..end.min(self.bytes.len())])
        }

        fn consume(&mut self, count: usize) {
            self.bytes = &self.bytes[count..];
            self.cut = self.cut.saturating_sub(count);
        }
    }

    /// The body and what is left after it.
    fn decode_cut(
        length: BodyLength,
        max: u64,
        bytes: &[u8],
        cut: usize,
    ) -> Result<(Vec<u8>, Vec<u8>), BodyFault> {
        let mut from = Pieces { bytes, cut };
        let mut decoder = BodyDecoder::new(length, max);
        let mut body = Vec::new();
        let mut buffer = [0; 7];
        loop {
            match decoder.read(&mut from, &mut buffer) {
                Ok(0) => break,
                Ok(count) => body.extend_from_slice(&buffer[..count]),
                Err(error) => {
                    assert_eq!(decoder.state, State::Broken);
                    return Err(BodyFault::of(&error).unwrap());
                }
            }
        }
        assert!(decoder.is_done());
        Ok((body, from.bytes.to_vec()))
    }

    #[track_caller]
    fn decode(length: BodyLength, max: u64, text: &str) -> Result<(String, String), BodyFault> {
        let whole = decode_cut(length, max, text.as_bytes(), 0);
        for cut in 1..text.len() {
            assert_eq!(decode_cut(length, max, text.as_bytes(), cut), whole, "cut at {cut}");
        }
        let utf8 = |bytes| String::from_utf8(bytes).unwrap();
        whole.map(|(body, rest)| (utf8(body), utf8(rest)))
    }

    #[expect(clippy::unnecessary_wraps, reason = "it is compared with results")]
    fn fine(body: &str, rest: &str) -> Result<(String, String), BodyFault> {
        Ok((body.into(), rest.into()))
    }

    #[test]
    fn sized_bodies() {
        assert_eq!(decode(BodyLength::Absent, 9, "GET"), fine("", "GET"));
        assert_eq!(decode(BodyLength::Sized(0), 9, "GET"), fine("", "GET"));
        assert_eq!(
            decode(BodyLength::Sized(12), 99, "hello, worldGET"),
            fine("hello, world", "GET")
        );
        assert_eq!(decode(BodyLength::Sized(4), 9, "abc"), Err(BodyFault::Gone));
    }

    #[test]
    fn chunked_bodies() {
        let chunked = |text| decode(BodyLength::Chunked, 99, text);
        assert_eq!(chunked("0\r\n\r\nGET"), fine("", "GET"));
        assert_eq!(chunked("5\r\nhello\r\n7\r\n, world\r\n0\r\n\r\nG"), fine("hello, world", "G"));
        assert_eq!(
            chunked("0005;a=b;c=\"d\"\r\nhello\r\n0;x\r\nT: 1\r\nU: 2\r\n\r\nG"),
            fine("hello", "G")
        );
        assert_eq!(chunked("a \t;x\r\n0123456789\r\n000\r\n\r\n"), fine("0123456789", ""));
        for malformed in [
            "\r\n",
            "x\r\n",
            "-1\r\n",
            "+1\r\n",
            "0x1\r\n",
            " 1\r\n",
            "1 \r\n",
            "1\nA",
            "1\r\nAB\r\n0\r\n\r\n",
            "1\r\nA\n0\r\n\r\n",
            "1\r\nA0\r\n\r\n",
            "1;\0\r\n",
            "0\r\nT: 1\n\r\n",
            "1\r\r\nA",
            "g\r\n",
        ] {
            let fault = chunked(malformed);
            assert!(matches!(fault, Err(BodyFault::Malformed(_))), "{malformed:?}: {fault:?}");
        }
        for early in
            ["", "1", "1\r", "1\r\n", "2\r\nA", "1\r\nA", "1\r\nA\r\n", "0\r\n", "0\r\nT: 1\r\n"]
        {
            assert_eq!(chunked(early), Err(BodyFault::Gone), "{early:?}");
        }
        assert_eq!(chunked("10000000000000000\r\n"), Err(BodyFault::TooLarge));
        assert_eq!(chunked("ffffffffffffffff\r\n"), Err(BodyFault::TooLarge));
    }

    #[test]
    fn limits_on_both_sides() {
        let limited = |text, max| decode(BodyLength::Chunked, max, text);
        assert_eq!(limited("3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", 5), fine("abcde", ""));
        assert_eq!(limited("3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", 4), Err(BodyFault::TooLarge));
        let line = |length: usize| format!("0;{}\r\n\r\n", "x".repeat(length - 2));
        let whole = |text: &str| decode_cut(BodyLength::Chunked, 9, text.as_bytes(), 0);
        assert!(whole(&line(CHUNK_LINE_MAX_BYTES)).is_ok());
        assert!(matches!(whole(&line(CHUNK_LINE_MAX_BYTES + 1)), Err(BodyFault::Malformed(_))));
        let trailers = |fields: usize| {
            format!("0\r\n{}\r\n", format!("{}\r\n", "t".repeat(1024)).repeat(fields))
        };
        assert!(whole(&trailers(TRAILERS_MAX_BYTES / 1024)).is_ok());
        assert!(matches!(
            whole(&trailers(TRAILERS_MAX_BYTES / 1024 + 1)),
            Err(BodyFault::Malformed(_))
        ));
    }
}
