//! A request's body without its framing, over any `BufRead`.

use std::fmt;
use std::io::{self, BufRead};

use crate::http::chunked::BadFraming;
use crate::http::framing::Framing;
use crate::http::message::BodyLength;

/// A fault in a request body, carried in an `io::Error`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFault {
    /// Broken framing.
    Malformed(BadFraming),
    /// Over the limit.
    TooLarge,
    /// Silent for too long.
    Timeout,
    /// The client went away, or ended the body early.
    Gone,
}

impl BodyFault {
    /// The fault as an error of a read.
    pub fn into_io(self) -> io::Error {
        io::Error::other(self)
    }

    /// The fault inside `error`.
    pub fn of(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref().copied()
    }
}

impl From<BadFraming> for BodyFault {
    fn from(bad: BadFraming) -> Self {
        match bad {
            BadFraming::SizeTooLarge => Self::TooLarge,
            bad => Self::Malformed(bad),
        }
    }
}

impl fmt::Display for BodyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(bad) => bad.fmt(f),
            Self::TooLarge => f.write_str("the request body is too large"),
            Self::Timeout => f.write_str("the request body did not come in time"),
            Self::Gone => f.write_str("the client went away"),
        }
    }
}

impl std::error::Error for BodyFault {}

/// Removes the framing. It reads its reader no further than the body goes.
#[derive(Debug)]
pub struct BodyDecoder {
    framing: Framing,
    /// The bytes that a chunked body may still have.
    allowed: u64,
    /// The fault that broke the body, after which the start of the next request is unknown.
    fault: Option<BodyFault>,
}

impl BodyDecoder {
    /// A body of `length`, with at most `max_bytes` if it is chunked.
    pub fn new(length: BodyLength, max_bytes: u64) -> Self {
        Self { framing: Framing::of_request(length), allowed: max_bytes, fault: None }
    }

    /// True if everything was read.
    pub fn is_done(&self) -> bool {
        self.framing == Framing::Done
    }

    /// Reads a piece of the body from `from`; 0 at its end. After an error, the same error again.
    pub fn read(&mut self, from: &mut impl BufRead, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(fault) = self.fault {
            return Err(fault.into_io());
        }
        let outcome = if buffer.is_empty() { Ok(0) } else { self.step(from, buffer) };
        if let Err(error) = &outcome {
            self.fault = BodyFault::of(error).or(Some(BodyFault::Gone));
        }
        outcome
    }

    fn step(&mut self, from: &mut impl BufRead, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let room = self.framing.data_in(buffer.len());
            if self.is_done() {
                return Ok(0);
            } else if room > 0 {
                let count = from.read(&mut buffer[..room])?;
                self.framing.take_data(count);
                return if count == 0 { Err(BodyFault::Gone.into_io()) } else { Ok(count) };
            }
            let held = from.fill_buf()?;
            if held.is_empty() {
                return Err(BodyFault::Gone.into_io());
            }
            let skipped = self.framing.skip(held).map_err(|bad| BodyFault::from(bad).into_io())?;
            from.consume(skipped);
            // A chunk has begun, or nothing has.
            let allowed = self.allowed.checked_sub(self.framing.data_left());
            self.allowed = allowed.ok_or_else(|| BodyFault::TooLarge.into_io())?;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::http::chunked::BadFraming::{Overlong, Size};

    /// Yields its bytes in pieces: the first of `cut`, the rest at once.
    struct CutReader<'a> {
        bytes: &'a [u8],
        cut: usize,
    }

    impl Read for CutReader<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.fill_buf()?.len().min(buffer.len());
            buffer[..count].copy_from_slice(&self.bytes[..count]);
            self.consume(count);
            Ok(count)
        }
    }

    impl BufRead for CutReader<'_> {
        fn fill_buf(&mut self) -> io::Result<&[u8]> {
            let end = if self.cut > 0 { self.cut } else { self.bytes.len() };
            Ok(&self.bytes[..end.min(self.bytes.len())])
        }

        fn consume(&mut self, count: usize) {
            self.bytes = &self.bytes[count..];
            self.cut = self.cut.saturating_sub(count);
        }
    }

    /// The body and the rest after it.
    fn decode_cut(
        length: BodyLength,
        max: u64,
        bytes: &[u8],
        cut: usize,
    ) -> Result<(Vec<u8>, Vec<u8>), BodyFault> {
        let mut from = CutReader { bytes, cut };
        let mut decoder = BodyDecoder::new(length, max);
        let mut body = Vec::new();
        let mut buffer = [0; 7];
        loop {
            match decoder.read(&mut from, &mut buffer) {
                Ok(0) => break,
                Ok(count) => body.extend_from_slice(&buffer[..count]),
                Err(error) => {
                    let fault = BodyFault::of(&error).unwrap();
                    assert!(!decoder.is_done());
                    let again = decoder.read(&mut from, &mut buffer).unwrap_err();
                    assert_eq!(BodyFault::of(&again), Some(fault));
                    return Err(fault);
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
    fn chunked_bodies_are_read_strictly_and_within_their_limit() {
        let limited = |text, max| decode(BodyLength::Chunked, max, text);
        let two = "3;x\r\nabc\r\n2\r\nde\r\n0\r\nT: 1\r\n\r\nGET";
        assert_eq!(limited(two, 5), fine("abcde", "GET"));
        assert_eq!(limited(two, 4), Err(BodyFault::TooLarge));
        assert_eq!(limited("10000000000000000\r\n", 99), Err(BodyFault::TooLarge));
        assert_eq!(limited("ffffffffffffffff\r\n", 99), Err(BodyFault::TooLarge));
        assert_eq!(limited("1 \r\nA\r\n0\r\n\r\n", 99), Err(BodyFault::Malformed(Size)));
        assert_eq!(limited("1\r\nAB\r\n", 99), Err(BodyFault::Malformed(Overlong)));
        for early in ["", "1\r", "2\r\nA", "1\r\nA", "1\r\nA\r\n", "0\r\nT: 1\r\n"] {
            assert_eq!(limited(early, 99), Err(BodyFault::Gone), "{early:?}");
        }
    }
}
