//! Tracks the reading of a request's body: the bytes that came, for the log line, and the bytes that are left, which
//! decide about the connection.

use std::cell::Cell;
use std::io::{self, Read};

use crate::http::message::{BodyLength, RequestHead};
use crate::ingress::conn::DRAIN_MAX_BYTES;

/// The progress of reading a body.
#[derive(Debug, Default)]
pub struct Progress {
    bytes: Cell<u64>,
    has_ended: Cell<bool>,
}

impl Progress {
    /// The bytes read so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    /// True if so much of the body of `head` is left that the connection closes instead of reading it. The answer
    /// must say so (RFC 9112 §9.6), or the client sends its next request on it.
    pub fn leaves_too_much(&self, head: &RequestHead) -> bool {
        match head.body {
            BodyLength::Absent => false,
            BodyLength::Sized(length) => {
                let left = length.saturating_sub(self.bytes());
                // A body that was not asked for may or may not come (RFC 9110 §10.1.1).
                let is_unasked = || self.bytes() == 0 && head.headers.contains("expect");
                left > DRAIN_MAX_BYTES as u64 || (left > 0 && is_unasked())
            }
            BodyLength::Chunked => !self.has_ended.get(),
        }
    }
}

/// A body that records its progress.
pub(super) struct CountingReader<'a> {
    /// The source of the bytes.
    pub(super) body: &'a mut dyn Read,
    /// The progress.
    pub(super) progress: &'a Progress,
}

impl Read for CountingReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.body.read(buffer)?;
        self.progress.bytes.set(self.progress.bytes() + count as u64);
        if count == 0 && !buffer.is_empty() {
            self.progress.has_ended.set(true);
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::message::{Headers, Version};

    fn head(body: BodyLength, expects: bool) -> RequestHead {
        let mut headers = Headers::new();
        if expects {
            headers.push("Expect", "100-continue");
        }
        RequestHead {
            method: "POST".into(),
            target: "/".into(),
            version: Version::Http11,
            authority: None,
            headers,
            body,
        }
    }

    #[test]
    fn a_connection_closes_where_more_of_a_body_is_left_than_is_drained() {
        let most = DRAIN_MAX_BYTES as u64;
        // The body, whether it waits for a 100, the bytes read, and whether too much is left.
        let cases = [
            (BodyLength::Absent, false, 0, false),
            (BodyLength::Sized(most), false, 0, false),
            (BodyLength::Sized(most + 1), false, 0, true),
            (BodyLength::Sized(most + 1), false, 1, false),
            (BodyLength::Sized(1), true, 0, true),
            (BodyLength::Sized(2), true, 1, false),
            (BodyLength::Sized(0), true, 0, false),
            (BodyLength::Chunked, false, 0, true),
            (BodyLength::Chunked, false, 5, true),
        ];
        for (body, expects, read, expected) in cases {
            let progress = Progress::default();
            progress.bytes.set(read);
            let head = head(body, expects);
            assert_eq!(progress.leaves_too_much(&head), expected, "{body:?} {expects} {read}");
        }
    }

    #[test]
    fn a_body_of_chunks_has_ended_once_its_end_was_read() {
        let (progress, head) = (Progress::default(), head(BodyLength::Chunked, false));
        let mut body = b"abc".as_slice();
        let mut counted = CountingReader { body: &mut body, progress: &progress };
        let mut buffer = [0; 3];
        assert_eq!(counted.read(&mut buffer).unwrap(), 3);
        assert_eq!(counted.read(&mut []).unwrap(), 0);
        assert!(progress.leaves_too_much(&head));
        assert_eq!(counted.read(&mut buffer).unwrap(), 0);
        assert!(!progress.leaves_too_much(&head));
        assert_eq!(progress.bytes(), 3);
    }
}
