//! A gzip stream that is inflated while its pieces pass, within a fixed memory.

use std::fmt;

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::TINFL_FLAG_HAS_MORE_INPUT;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};

use crate::http::inflate::{GZIP_START, GZIP_TAIL_BYTES, gzip_data};

/// The window of deflate (RFC 1951 §2), in which the output wraps around.
const WINDOW_BYTES: usize = 32 * 1024;
/// The longest head of a member, with its name and comment.
const HEAD_MAX_BYTES: usize = 1024;

/// The stream is no gzip, or is broken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NoGzip;

/// The position within a member.
#[derive(Debug)]
enum Part {
    /// In its head, of which these bytes are there.
    Head(Vec<u8>),
    Data,
    /// In its checksum and length, of which so many bytes are left.
    Tail(usize),
}

/// The state of the stream, with its window.
pub(crate) struct PassingGzip {
    part: Part,
    inflater: Box<DecompressorOxide>,
    window: Vec<u8>,
    /// The place of the next byte in the window.
    at: usize,
}

impl fmt::Debug for PassingGzip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PassingGzip({:?})", self.part)
    }
}

impl PassingGzip {
    pub(crate) fn new() -> Self {
        let (inflater, window) = (Box::default(), vec![0; WINDOW_BYTES]);
        Self { part: Part::Head(Vec::new()), inflater, window, at: 0 }
    }

    /// Inflates the next piece; `see` gets the bytes in pieces.
    pub(crate) fn feed(
        &mut self,
        mut piece: &[u8],
        see: &mut dyn FnMut(&[u8]),
    ) -> Result<(), NoGzip> {
        while !piece.is_empty() {
            let used = match &mut self.part {
                Part::Head(head) => {
                    let taken = piece.len().min(HEAD_MAX_BYTES - head.len());
                    let known = head.len();
                    head.extend_from_slice(&piece[..taken]);
                    let is_gzip = GZIP_START.starts_with(&head[..head.len().min(GZIP_START.len())]);
                    match gzip_data(head) {
                        Some(data) if is_gzip => {
                            let used = head.len() - data.len() - known;
                            self.part = Part::Data;
                            used
                        }
                        None if is_gzip && head.len() < HEAD_MAX_BYTES => taken,
                        _ => return Err(NoGzip),
                    }
                }
                Part::Data => self.inflate(piece, see)?,
                Part::Tail(left) => {
                    let taken = piece.len().min(*left);
                    *left -= taken;
                    if *left == 0 {
                        // Another member may follow.
                        self.part = Part::Head(Vec::new());
                        self.inflater.init();
                    }
                    taken
                }
            };
            piece = &piece[used..];
        }
        Ok(())
    }

    /// Inflates `piece` as far as the data goes; returns the number of bytes used.
    fn inflate(&mut self, piece: &[u8], see: &mut dyn FnMut(&[u8])) -> Result<usize, NoGzip> {
        let mut used = 0;
        loop {
            let (status, read, written) = decompress(
                &mut self.inflater,
                &piece[used..],
                &mut self.window,
                self.at,
                TINFL_FLAG_HAS_MORE_INPUT,
            );
            used += read;
            if written > 0 {
                see(&self.window[self.at..self.at + written]);
            }
            self.at = (self.at + written) % WINDOW_BYTES;
            match status {
                TINFLStatus::Done => {
                    self.part = Part::Tail(GZIP_TAIL_BYTES);
                    return Ok(used);
                }
                TINFLStatus::NeedsMoreInput => return Ok(piece.len()),
                TINFLStatus::HasMoreOutput => {}
                _ => return Err(NoGzip),
            }
        }
    }

    /// True between two members, where the stream may end.
    pub(crate) fn may_end_here(&self) -> bool {
        matches!(&self.part, Part::Head(head) if head.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::inflate::tests::gzip;

    fn inflated(body: &[u8], size: usize) -> Result<(Vec<u8>, bool), NoGzip> {
        let (mut stream, mut output) = (PassingGzip::new(), Vec::new());
        for piece in body.chunks(size) {
            stream.feed(piece, &mut |bytes| output.extend_from_slice(bytes))?;
        }
        Ok((output, stream.may_end_here()))
    }

    #[test]
    fn pieces_of_any_size_give_the_bytes_of_all_members() {
        let text: Vec<u8> =
            (0..30_000_u32).flat_map(|number| number.to_string().into_bytes()).collect();
        let body = [gzip(&text), gzip(b""), gzip(b"end")].concat();
        let whole = [text.as_slice(), b"end"].concat();
        for size in [1, 2, 7, 4096, body.len()] {
            assert_eq!(inflated(&body, size).unwrap(), (whole.clone(), true), "{size}");
        }
        for end in [0, 5, 100, body.len() - 1] {
            let (output, is_whole) = inflated(&body[..end], 50).unwrap();
            assert!(whole.starts_with(&output) && is_whole == (end == 0), "{end}");
        }
    }

    #[test]
    fn other_bytes_and_a_head_that_is_too_long_are_no_gzip() {
        assert_eq!(inflated(b"{}", 1), Err(NoGzip));
        let broken = [b"\x1f\x8b\x08\0\0\0\0\0\0\x03".as_slice(), &[0xff; 40]].concat();
        assert_eq!(inflated(&broken, 9), Err(NoGzip));
        let named = |length: usize| {
            let name = vec![b'n'; length];
            let start = b"\x1f\x8b\x08\x08\0\0\0\0\0\x03".as_slice();
            // The data begin after the 30 bytes of the helper's head.
            [start, &name, b"\0", &gzip(b"x")[30..]].concat()
        };
        // Ten bytes before the name, and one after it.
        let longest = HEAD_MAX_BYTES - 11;
        assert_eq!(inflated(&named(longest), 100).unwrap().0, b"x");
        assert_eq!(inflated(&named(longest + 1), 100), Err(NoGzip));
    }
}
