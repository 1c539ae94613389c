//! The framing of a body: by its length, by chunks, or by the end of the connection (RFC 9112 §6). Pure: bytes come
//! in as slices, cut anywhere.

use crate::http::chunked::{BadFraming, Chunks};
use crate::http::message::BodyLength;
use crate::http::rules::Rules;

/// The framing of a body, and the progress of reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Nothing is left.
    Done,
    /// This many bytes are left.
    Sized(u64),
    /// Chunks.
    Chunked(Chunks),
    /// The end of the connection ends it.
    UntilClose,
}

impl Framing {
    /// The framing of a request's body.
    pub fn of_request(length: BodyLength) -> Self {
        match length {
            BodyLength::Absent => Self::Done,
            BodyLength::Sized(bytes) => Self::sized(bytes),
            BodyLength::Chunked => Self::chunked(&Rules::STRICT),
        }
    }

    /// A body of `bytes`.
    pub fn sized(bytes: u64) -> Self {
        if bytes == 0 { Self::Done } else { Self::Sized(bytes) }
    }

    /// A body of chunks.
    pub fn chunked(rules: &Rules) -> Self {
        Self::Chunked(Chunks::new(rules))
    }

    /// Takes the framing at the start of `bytes`, up to data or the end of the body; returns its size. After an
    /// error, it returns the same error again.
    pub fn skip(&mut self, bytes: &[u8]) -> Result<usize, BadFraming> {
        let Self::Chunked(chunks) = self else { return Ok(0) };
        let skipped = chunks.skip_framing(bytes)?;
        if chunks.has_ended() {
            *self = Self::Done;
        }
        Ok(skipped)
    }

    /// The data bytes that come next, before any framing.
    pub fn data_left(&self) -> u64 {
        match self {
            Self::Done => 0,
            Self::Sized(left) => *left,
            Self::Chunked(chunks) => chunks.data_left(),
            Self::UntilClose => u64::MAX,
        }
    }

    /// The number of data bytes that are next in `bytes`.
    pub fn data_in(&self, bytes: usize) -> usize {
        usize::try_from(self.data_left()).map_or(bytes, |left| left.min(bytes))
    }

    /// Marks this many of the next data bytes as taken.
    pub fn take_data(&mut self, bytes: usize) {
        match self {
            Self::Done | Self::UntilClose => {}
            Self::Sized(left) => *self = Self::sized(*left - bytes as u64),
            Self::Chunked(chunks) => chunks.take_data(bytes as u64),
        }
    }

    /// True if a body that stops here, because the connection ended, is complete (RFC 9112 §8).
    pub fn may_end_here(&self) -> bool {
        match self {
            Self::Done | Self::UntilClose => true,
            Self::Sized(_) => false,
            Self::Chunked(chunks) => chunks.has_all_data(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_by_length_and_until_the_connection_ends() {
        let mut sized = Framing::of_request(BodyLength::Sized(5));
        assert_eq!((sized.skip(b"hello"), sized.data_in(9), sized.data_in(2)), (Ok(0), 5, 2));
        sized.take_data(2);
        assert_eq!((sized.data_left(), sized.may_end_here()), (3, false));
        sized.take_data(3);
        assert_eq!((sized, sized.may_end_here()), (Framing::Done, true));
        for none in [BodyLength::Absent, BodyLength::Sized(0)] {
            assert_eq!(Framing::of_request(none), Framing::Done);
        }
        let mut open = Framing::UntilClose;
        open.take_data(open.data_in(9));
        assert_eq!((open.data_in(7), open.may_end_here()), (7, true));
    }

    #[test]
    fn a_chunked_body_is_done_with_its_last_line() {
        let mut framing = Framing::of_request(BodyLength::Chunked);
        assert_eq!((framing.skip(b"1\r\nx"), framing.data_in(9)), (Ok(3), 1));
        framing.take_data(1);
        assert_eq!((framing.skip(b"\r\n0\r\n"), framing.may_end_here()), (Ok(5), true));
        assert_ne!(framing, Framing::Done);
        assert_eq!((framing.skip(b"\r\nGET"), framing), (Ok(2), Framing::Done));
    }
}
