//! The read buffer of an exchange: small for events, larger while a large body fills it.

use std::io::{self, Read};
use std::ops::Range;

use crate::http::framing::{BadFraming, Framing, Step};
use crate::http::head::response::RESPONSE_HEAD_MAX_BYTES;
use crate::spare;

/// What a buffer grows to for a head.
const HEAD_BYTES: usize = RESPONSE_HEAD_MAX_BYTES;
/// What it grows to while a large body fills it at every read.
const BULK_BYTES: usize = 64 * 1024;
/// How much larger it gets at once.
const GROWTH: usize = 4;

/// Bytes that were read and not used yet.
#[derive(Debug)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Buffer {
    /// This thread's buffer, empty.
    pub(crate) fn lend() -> Self {
        Self { bytes: spare::take(), start: 0, end: 0 }
    }

    /// What was read and not used yet.
    pub(crate) fn held(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// So many bytes of it are used.
    pub(crate) fn consume(&mut self, count: usize) {
        self.start += count;
    }

    /// Uses what is held up to the last byte that `framing` takes, and puts the data in it together:
    /// where they stand then. Broken framing is an error only where no data come before it.
    pub(crate) fn take_data(&mut self, framing: &mut Framing) -> Result<Range<usize>, BadFraming> {
        let mut data = self.start..self.start;
        loop {
            let before = *framing;
            match framing.step(&self.bytes[self.start..self.end]) {
                Ok(Step::Data { skip, len }) => {
                    let from = self.start + skip;
                    self.start = from + len;
                    if data.is_empty() {
                        data = from..self.start;
                    } else {
                        self.bytes.copy_within(from..self.start, data.end);
                        data.end += len;
                    }
                }
                Ok(Step::More { skip } | Step::End { skip }) => {
                    self.start += skip;
                    return Ok(data);
                }
                Err(_) if !data.is_empty() => {
                    *framing = before;
                    return Ok(data);
                }
                Err(bad) => return Err(bad),
            }
        }
    }

    /// Data that [`Buffer::take_data`] found; they are there until the next read.
    pub(crate) fn used(&self, data: Range<usize>) -> &[u8] {
        &self.bytes[data]
    }

    /// Whether it holds as much as a head may have.
    pub(crate) fn is_full(&self) -> bool {
        self.end - self.start >= HEAD_BYTES
    }

    /// Whether the last read filled it: there is probably more to read at once.
    pub(crate) fn was_filled(&self) -> bool {
        self.end == self.bytes.len()
    }

    /// Reads once from `from`, after what is held; 0 at the end of it.
    pub(crate) fn fill(&mut self, from: &mut impl Read) -> io::Result<usize> {
        if self.was_filled() {
            self.bytes.copy_within(self.start..self.end, 0);
            let most = if self.start == self.end { BULK_BYTES } else { HEAD_BYTES };
            if self.bytes.len() < most {
                self.bytes.resize((self.bytes.len() * GROWTH).min(most), 0);
            }
            self.end -= self.start;
            self.start = 0;
        } else if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
        let count = from.read(&mut self.bytes[self.end..])?;
        self.end += count;
        Ok(count)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        spare::give(std::mem::take(&mut self.bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spare::BUFFER_BYTES;

    #[test]
    fn it_keeps_what_is_not_used_and_grows_for_bulk_alone() {
        let mut buffer = Buffer::lend();
        let bytes: Vec<u8> = (0..300_000).map(|index: u32| index.to_le_bytes()[0]).collect();
        let mut from = bytes.as_slice();
        assert_eq!(buffer.fill(&mut from).unwrap(), BUFFER_BYTES);
        assert!(buffer.was_filled() && !buffer.is_full());
        // A head that does not fit.
        let grown = BUFFER_BYTES * GROWTH;
        assert_eq!(buffer.fill(&mut from).unwrap(), grown - BUFFER_BYTES);
        assert!(!buffer.is_full());
        assert_eq!(buffer.fill(&mut from).unwrap(), HEAD_BYTES - grown);
        assert!(buffer.is_full());
        buffer.consume(HEAD_BYTES - 10);
        assert_eq!(buffer.fill(&mut from).unwrap(), HEAD_BYTES - 10);
        assert_eq!(buffer.held(), &bytes[HEAD_BYTES - 10..2 * HEAD_BYTES - 10]);
        buffer.consume(HEAD_BYTES);
        assert_eq!(buffer.fill(&mut from).unwrap(), BULK_BYTES);
        buffer.consume(BULK_BYTES);
        assert_eq!(buffer.fill(&mut from).unwrap(), BULK_BYTES, "it grows no further");
        drop(buffer);
        let buffer = Buffer::lend();
        assert_eq!((buffer.bytes.len(), buffer.held().len()), (BUFFER_BYTES, 0));
    }

    #[test]
    fn chunks_that_came_together_are_one_piece_and_what_follows_stays() {
        let mut buffer = Buffer::lend();
        buffer.fill(&mut b"2\r\nab\r\n3;x\r\ncde\r\n0\r\n\r\nHTTP".as_slice()).unwrap();
        let mut framing = Framing::chunked();
        let data = buffer.take_data(&mut framing).unwrap();
        assert_eq!((buffer.used(data), buffer.held()), (b"abcde".as_slice(), b"HTTP".as_slice()));
        assert_eq!(framing, Framing::Done);
    }

    #[test]
    fn data_before_broken_framing_are_given_out_first() {
        let mut buffer = Buffer::lend();
        buffer.fill(&mut b"2\r\nab\r\nzz\r\n".as_slice()).unwrap();
        let mut framing = Framing::chunked();
        let data = buffer.take_data(&mut framing).unwrap();
        assert_eq!(buffer.used(data), b"ab");
        assert!(buffer.take_data(&mut framing).is_err());
    }
}
