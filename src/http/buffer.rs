//! Bytes that were read from a connection and not yet used, in the thread's buffer: small for most heads and for
//! events, larger for a large head and while a large body fills it.

use std::io::{self, Read};
use std::ops::Range;

use crate::http::chunked::BadFraming;
use crate::http::framing::Framing;
use crate::http::head::HEAD_MAX_BYTES;
use crate::spare::{self, BUFFER_BYTES};

/// The size for a head.
const HEAD_BYTES: usize = HEAD_MAX_BYTES;
/// The size while a large body fills the buffer at every read.
pub(crate) const BULK_BYTES: usize = 64 * 1024;
/// The factor of one growth.
const GROWTH: usize = 4;

/// Bytes that were read and not yet used.
#[derive(Debug)]
pub(crate) struct Buffer {
    /// The thread's buffer, from the first read on.
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    /// The size to which it grows for a body.
    bulk_bytes: usize,
}

impl Buffer {
    /// Holds `read`. While a body fills it, it grows to `bulk_bytes`; a head has it grow further.
    pub(crate) fn holding(read: Vec<u8>, bulk_bytes: usize) -> Self {
        let end = read.len();
        Self { bytes: read, start: 0, end, bulk_bytes }
    }

    /// The bytes that were read and not yet used.
    pub(crate) fn held(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Marks this many bytes as used.
    pub(crate) fn consume(&mut self, count: usize) {
        self.start += count;
    }

    /// Uses the held bytes up to the last one that `framing` takes, and joins the data in them; returns their place.
    /// Broken framing is an error only if no data come before it.
    pub(crate) fn take_data(&mut self, framing: &mut Framing) -> Result<Range<usize>, BadFraming> {
        let mut data = self.start..self.start;
        loop {
            match framing.skip(&self.bytes[self.start..self.end]) {
                Ok(skipped) => self.start += skipped,
                // The next call reports it again.
                Err(_) if !data.is_empty() => return Ok(data),
                Err(bad) => return Err(bad),
            }
            let len = framing.data_in(self.end - self.start);
            if len == 0 {
                return Ok(data);
            }
            framing.take_data(len);
            let from = self.start;
            self.start += len;
            if data.is_empty() {
                data = from..self.start;
            } else {
                self.bytes.copy_within(from..self.start, data.end);
                data.end += len;
            }
        }
    }

    /// Data that [`Buffer::take_data`] found; they stay until the next read.
    pub(crate) fn used(&self, data: Range<usize>) -> &[u8] {
        &self.bytes[data]
    }

    /// True if it holds as much as a head may have.
    pub(crate) fn is_full(&self) -> bool {
        self.end - self.start >= HEAD_BYTES
    }

    /// True if the last read filled it, so that there is probably more to read.
    pub(crate) fn was_filled(&self) -> bool {
        self.end == self.bytes.len() && self.end > 0
    }

    /// Reads once from `from`, after the held bytes; 0 at its end.
    pub(crate) fn fill(&mut self, from: &mut impl Read) -> io::Result<usize> {
        self.make_room();
        let count = from.read(&mut self.bytes[self.end..])?;
        self.end += count;
        Ok(count)
    }

    fn make_room(&mut self) {
        if self.bytes.is_empty() {
            self.bytes = spare::take();
        } else if self.was_filled() {
            let most = if self.start == self.end { self.bulk_bytes } else { HEAD_BYTES };
            self.bytes.copy_within(self.start..self.end, 0);
            if self.bytes.len() < most {
                let grown = (self.bytes.len() * GROWTH).clamp(BUFFER_BYTES, HEAD_BYTES);
                self.bytes.resize(grown.min(most), 0);
            }
            self.end -= self.start;
            self.start = 0;
        } else if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
    }

    /// Gives the thread its buffer back for what comes next on it, unless something is held in it.
    pub(crate) fn give_back(&mut self) {
        if self.start == self.end {
            spare::give(std::mem::take(&mut self.bytes));
            self.start = 0;
            self.end = 0;
        }
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
    use crate::http::rules::Rules;

    fn empty() -> Buffer {
        Buffer::holding(Vec::new(), BULK_BYTES)
    }

    #[test]
    fn it_keeps_what_is_not_used_and_grows_for_bulk_alone() {
        let mut buffer = empty();
        let bytes: Vec<u8> = (0..300_000).map(|index: u32| index.to_le_bytes()[0]).collect();
        let mut from = bytes.as_slice();
        assert_eq!(buffer.fill(&mut from).unwrap(), BUFFER_BYTES);
        assert!(buffer.was_filled() && !buffer.is_full());
        // The head does not fit.
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
        let mut buffer = empty();
        assert_eq!(buffer.fill(&mut b"x".as_slice()).unwrap(), 1);
        assert_eq!((buffer.bytes.len(), buffer.held()), (BUFFER_BYTES, b"x".as_slice()));
    }

    #[test]
    fn it_goes_back_to_the_thread_once_nothing_is_held_and_grows_for_no_body_that_is_not_to_be_held()
     {
        let mut buffer = Buffer::holding(b"ab".to_vec(), BUFFER_BYTES);
        let large = [b'x'; 3 * BUFFER_BYTES];
        let mut from = large.as_slice();
        assert_eq!(buffer.fill(&mut from).unwrap(), BUFFER_BYTES - 2);
        buffer.consume(1);
        buffer.give_back();
        assert_eq!(buffer.held().len(), BUFFER_BYTES - 1);
        buffer.consume(BUFFER_BYTES - 1);
        assert_eq!(buffer.fill(&mut from).unwrap(), BUFFER_BYTES, "it has not grown");
        buffer.consume(BUFFER_BYTES);
        buffer.give_back();
        assert_eq!((buffer.bytes.capacity(), buffer.was_filled()), (0, false));
    }

    #[test]
    fn chunks_that_came_together_are_one_piece_and_what_follows_stays() {
        let mut buffer = empty();
        buffer.fill(&mut b"2\r\nab\r\n3;x\r\ncde\r\n0\r\n\r\nHTTP".as_slice()).unwrap();
        let mut framing = Framing::chunked(&Rules::LENIENT);
        let data = buffer.take_data(&mut framing).unwrap();
        assert_eq!((buffer.used(data), buffer.held()), (b"abcde".as_slice(), b"HTTP".as_slice()));
        assert_eq!(framing, Framing::Done);
    }

    #[test]
    fn data_before_broken_framing_are_given_out_first() {
        let mut buffer = empty();
        buffer.fill(&mut b"2\r\nab\r\nzz\r\n".as_slice()).unwrap();
        let mut framing = Framing::chunked(&Rules::LENIENT);
        let data = buffer.take_data(&mut framing).unwrap();
        assert_eq!(buffer.used(data), b"ab");
        assert!(buffer.take_data(&mut framing).is_err());
    }
}
