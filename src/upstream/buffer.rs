//! The read buffer of an exchange: one a thread, lent from exchange to exchange.

use std::cell::Cell;
use std::io::{self, Read};
use std::ops::Range;

use crate::upstream::framing::{BadFraming, Framing, Step};
use crate::upstream::head::RESPONSE_HEAD_MAX_BYTES;

/// What a buffer holds: a whole head, and pieces of a body.
const BUFFER_BYTES: usize = RESPONSE_HEAD_MAX_BYTES;
/// What it grows to while a large body fills it at every read.
const BULK_BYTES: usize = 64 * 1024;

thread_local! {
    /// The buffer of the last exchange on this thread.
    static SPARE: Cell<Option<Vec<u8>>> = const { Cell::new(None) };
}

/// Bytes that were read and not used yet.
#[derive(Debug)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Buffer {
    /// This thread's buffer, empty; another where that one is lent.
    pub(super) fn lend() -> Self {
        let bytes = SPARE.take().unwrap_or_else(|| vec![0; BUFFER_BYTES]);
        Self { bytes, start: 0, end: 0 }
    }

    /// What was read and not used yet.
    pub(super) fn held(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// So many bytes of it are used.
    pub(super) fn consume(&mut self, count: usize) {
        self.start += count;
    }

    /// Uses what is held up to the last byte that `framing` takes, and puts the data in it together:
    /// where they stand then. Broken framing is an error only where no data come before it.
    pub(super) fn take_data(&mut self, framing: &mut Framing) -> Result<Range<usize>, BadFraming> {
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
    pub(super) fn used(&self, data: Range<usize>) -> &[u8] {
        &self.bytes[data]
    }

    /// Whether there is no room for more.
    pub(super) fn is_full(&self) -> bool {
        self.end - self.start == self.bytes.len()
    }

    /// Whether the last read filled it: there is probably more to read at once.
    pub(super) fn was_filled(&self) -> bool {
        self.end == self.bytes.len()
    }

    /// Reads once from `from`, after what is held; 0 at the end of it.
    pub(super) fn fill(&mut self, from: &mut impl Read) -> io::Result<usize> {
        if self.start == self.end {
            if self.was_filled() && self.bytes.len() < BULK_BYTES {
                self.bytes.resize(BULK_BYTES, 0);
            }
            self.start = 0;
            self.end = 0;
        } else if self.was_filled() {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        let count = from.read(&mut self.bytes[self.end..])?;
        self.end += count;
        Ok(count)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        if bytes.len() > BUFFER_BYTES {
            bytes.truncate(BUFFER_BYTES);
            bytes.shrink_to_fit();
        }
        SPARE.set(Some(bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_keeps_what_is_not_used_and_grows_for_bulk_alone() {
        let mut buffer = Buffer::lend();
        let bytes: Vec<u8> = (0..200_000).map(|index: u32| index.to_le_bytes()[0]).collect();
        let mut from = bytes.as_slice();
        assert_eq!(buffer.fill(&mut from).unwrap(), BUFFER_BYTES);
        assert!(buffer.is_full());
        buffer.consume(BUFFER_BYTES - 10);
        assert_eq!(buffer.fill(&mut from).unwrap(), BUFFER_BYTES - 10);
        assert_eq!(buffer.held(), &bytes[BUFFER_BYTES - 10..2 * BUFFER_BYTES - 10]);
        buffer.consume(BUFFER_BYTES);
        assert_eq!(buffer.fill(&mut from).unwrap(), BULK_BYTES);
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
