//! Status line, header fields and framing of one response, over any `Write` (RFC 9112 §6, §7).

use std::io::{self, IoSlice, Write};

use crate::http::chunked::{BODY_END, CHUNK_AND_BODY_END, CHUNK_END, SizeLine};
use crate::http::head::encode;
use crate::http::message::{
    AnswerLength, FieldLine, RequestHead, ResponseHead, Version, reason_phrase,
};
use crate::ingress::After;
use crate::proxy::cors;
use crate::proxy::incoming::Progress;
use crate::spare;

/// The end of the body for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReplyFraming {
    /// No body follows the head.
    None,
    /// This many bytes are still to come.
    Sized(u64),
    /// Chunks.
    Chunked,
    /// The last chunk was written.
    ChunksEnded,
    /// The end of the connection ends the body, for HTTP/1.0 clients.
    UntilClose,
    /// The connection leaves HTTP.
    Switched,
}

/// One response on its way to the client. Each piece is one write, so that no event waits; the head goes out with the
/// first piece, or at [`Reply::flush`].
pub struct Reply<'a> {
    out: &'a mut dyn Write,
    version: Version,
    keeps_alive: bool,
    framing: Option<ReplyFraming>,
    sent_bytes: u64,
    /// The origin of the web page that may read the answer.
    page: Option<&'a str>,
    /// The request, and the progress of reading its body.
    asked: Option<(&'a RequestHead, &'a Progress)>,
    /// A head that was not yet written.
    held_head: Vec<u8>,
}

impl<'a> Reply<'a> {
    /// A reply to the request with `head`; None for an unreadable request. The connection is kept if the client wants
    /// it and `may_keep_alive` holds.
    pub fn new(out: &'a mut dyn Write, head: Option<&RequestHead>, may_keep_alive: bool) -> Self {
        Self {
            out,
            version: head.map_or(Version::Http11, |head| head.version),
            keeps_alive: may_keep_alive && head.is_some_and(RequestHead::wants_keep_alive),
            framing: None,
            sent_bytes: 0,
            page: None,
            asked: None,
            held_head: Vec::new(),
        }
    }

    /// Makes the reply announce that the connection closes if too much of the request's body is left by then; call it
    /// before [`Reply::begin`].
    pub fn mind(&mut self, head: &'a RequestHead, progress: &'a Progress) {
        self.asked = Some((head, progress));
    }

    /// Lets the web page of `origin` read the answer; call it before [`Reply::begin`].
    pub fn share_with(&mut self, origin: Option<&'a str>) {
        self.page = origin;
    }

    /// True if there is a head, after which nothing else can be answered.
    pub fn has_begun(&self) -> bool {
        self.framing.is_some()
    }

    /// Closes the connection afterwards, whatever the client wants; call it before [`Reply::begin`].
    pub fn close_after(&mut self) {
        self.keeps_alive = false;
    }

    /// Bytes of body written.
    pub fn sent_bytes(&self) -> u64 {
        self.sent_bytes
    }

    /// Begins with `head`, which has no hop-by-hop fields; this sets the fields of the framing.
    pub fn begin(&mut self, head: &ResponseHead, length: AnswerLength) {
        let framing = match (length, self.version) {
            (AnswerLength::Absent, _) => ReplyFraming::None,
            (AnswerLength::Sized(bytes), _) => ReplyFraming::Sized(bytes),
            (AnswerLength::Unknown, Version::Http11) => ReplyFraming::Chunked,
            (AnswerLength::Unknown, Version::Http10) => ReplyFraming::UntilClose,
        };
        self.framing = Some(framing);
        let leaves_too_much =
            self.asked.is_some_and(|(head, progress)| progress.leaves_too_much(head));
        self.keeps_alive &= framing != ReplyFraming::UntilClose && !leaves_too_much;
        let Some(origin) = self.page else { return self.hold_head(head, framing) };
        let mut head = head.clone();
        cors::share(&mut head.headers, origin);
        self.hold_head(&head, framing);
    }

    /// Begins with the head of a 101, after which the connection is a WebSocket; `head` has no hop-by-hop fields.
    pub(crate) fn switch(&mut self, head: &ResponseHead) -> io::Result<()> {
        self.framing = Some(ReplyFraming::Switched);
        self.hold_head(head, ReplyFraming::Switched);
        self.flush()
    }

    fn hold_head(&mut self, head: &ResponseHead, framing: ReplyFraming) {
        self.held_head = spare::take_head();
        let bytes = &mut self.held_head;
        if head.status == 200 {
            // Most are: one piece instead of five.
            bytes.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
        } else {
            // `write!` to a Vec is a long way round for a number.
            let mut digits = itoa::Buffer::new();
            let status = digits.format(head.status);
            for part in ["HTTP/1.1 ", status, " ", reason_phrase(head.status), "\r\n"] {
                bytes.extend_from_slice(part.as_bytes());
            }
        }
        // The reply has its own length, and a 204 has none (RFC 9110 §8.6).
        let has_other_length = framing != ReplyFraming::None || head.status == 204;
        head.headers.append_to(bytes, |line: FieldLine<'_>| {
            !(has_other_length && line.is_called(b"content-length"))
        });
        match framing {
            ReplyFraming::Sized(length) => encode::framing(bytes, Some(length)),
            ReplyFraming::Chunked => encode::framing(bytes, None),
            ReplyFraming::Switched => {
                encode::field(bytes, b"connection", b"Upgrade");
                encode::field(bytes, b"upgrade", b"websocket");
            }
            ReplyFraming::None | ReplyFraming::ChunksEnded | ReplyFraming::UntilClose => {}
        }
        match (self.keeps_alive, self.version) {
            _ if framing == ReplyFraming::Switched => {}
            // The field of a 426, which belongs to the connection too (RFC 9110 §7.8).
            _ if head.status == 426 && head.headers.contains("upgrade") => {
                let options = if self.keeps_alive { "upgrade" } else { "close, upgrade" };
                encode::field(bytes, b"connection", options.as_bytes());
            }
            (false, _) => encode::field(bytes, b"connection", b"close"),
            (true, Version::Http10) => encode::field(bytes, b"connection", b"keep-alive"),
            (true, Version::Http11) => {}
        }
        bytes.extend_from_slice(b"\r\n");
    }

    /// Writes the head, unless it was already written, because the first piece is not there.
    pub fn flush(&mut self) -> io::Result<()> {
        if self.held_head.is_empty() { Ok(()) } else { self.write([b"", b"", b""]) }
    }

    /// Writes a piece of the body at once.
    pub fn piece(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_piece(bytes, false)
    }

    /// Writes the last piece of the body together with the end of the body.
    pub fn last_piece(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_piece(bytes, true)
    }

    fn write_piece(&mut self, bytes: &[u8], is_last: bool) -> io::Result<()> {
        match &mut self.framing {
            None
            | Some(ReplyFraming::None | ReplyFraming::ChunksEnded | ReplyFraming::Switched) => {
                return Ok(());
            }
            Some(ReplyFraming::Chunked) if bytes.is_empty() && !is_last => return Ok(()),
            Some(ReplyFraming::Chunked) if bytes.is_empty() => {
                self.framing = Some(ReplyFraming::ChunksEnded);
                return self.write([b"", b"", BODY_END]);
            }
            Some(ReplyFraming::Chunked) => {
                if is_last {
                    self.framing = Some(ReplyFraming::ChunksEnded);
                }
                let end = if is_last { CHUNK_AND_BODY_END } else { CHUNK_END };
                self.write([SizeLine::of(bytes.len()).as_bytes(), bytes, end])?;
            }
            Some(ReplyFraming::Sized(left)) => {
                *left = left.checked_sub(bytes.len() as u64).ok_or_else(|| {
                    io::Error::new(io::ErrorKind::InvalidData, "more bytes than declared")
                })?;
                self.write([b"", bytes, b""])?;
            }
            Some(ReplyFraming::UntilClose) => self.write([b"", bytes, b""])?,
        }
        self.sent_bytes += bytes.len() as u64;
        Ok(())
    }

    /// Writes the held head and then `parts`, as one.
    fn write(&mut self, [start, bytes, end]: [&[u8]; 3]) -> io::Result<()> {
        if self.held_head.is_empty() {
            // Most pieces of a stream.
            write_all(self.out, &mut [start, bytes, end].map(IoSlice::new))?;
            return self.out.flush();
        }
        let head = std::mem::take(&mut self.held_head);
        let mut parts = [&head, start, bytes, end].map(IoSlice::new);
        let outcome = write_all(self.out, &mut parts).and_then(|()| self.out.flush());
        spare::give_head(head);
        outcome
    }

    /// Ends the response; returns the connection's further use.
    pub fn finish(&mut self) -> After {
        let complete = match self.framing {
            None => false,
            Some(ReplyFraming::None | ReplyFraming::UntilClose | ReplyFraming::Sized(0)) => {
                self.flush().is_ok()
            }
            Some(ReplyFraming::ChunksEnded) => true,
            // After a WebSocket there is nothing to wait for.
            Some(ReplyFraming::Sized(_) | ReplyFraming::Switched) => false,
            Some(ReplyFraming::Chunked) => self.last_piece(b"").is_ok(),
        };
        match (complete, self.keeps_alive) {
            (false, _) => After::Abort,
            (true, true) => After::KeepAlive,
            (true, false) => After::Close,
        }
    }
}

/// Writes all of `parts`, in as few writes as the writer allows.
fn write_all(out: &mut dyn Write, mut parts: &mut [IoSlice<'_>]) -> io::Result<()> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    if length == 0 {
        return Ok(());
    }
    // Mostly it takes everything at once.
    match out.write_vectored(parts) {
        Ok(count) if count == length => return Ok(()),
        Ok(count) => IoSlice::advance_slices(&mut parts, count),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
        Err(error) => return Err(error),
    }
    // Empty parts at the start would look like a write of nothing.
    IoSlice::advance_slices(&mut parts, 0);
    while !parts.is_empty() {
        match out.write_vectored(parts) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => IoSlice::advance_slices(&mut parts, count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::message::{BodyLength, Headers};

    fn request(version: Version, connection: &str) -> RequestHead {
        let mut headers = Headers::new();
        if !connection.is_empty() {
            headers.push("connection", connection);
        }
        RequestHead {
            method: "GET".into(),
            target: "/".into(),
            version,
            authority: None,
            headers,
            body: BodyLength::Absent,
        }
    }

    #[test]
    fn a_websocket_begins_with_its_head_alone() {
        let mut out = Vec::new();
        let mut reply = Reply::new(&mut out, Some(&request(Version::Http11, "")), true);
        let mut headers = Headers::new();
        headers.push("sec-websocket-accept", "x");
        reply.switch(&ResponseHead { status: 101, headers }).unwrap();
        reply.last_piece(b"dropped").unwrap();
        assert!(reply.has_begun());
        assert_eq!(reply.finish(), After::Abort, "nothing follows on the connection");
        let expected = "HTTP/1.1 101 Switching Protocols\r\nsec-websocket-accept: x\r\nconnection: Upgrade\r\n\
                        upgrade: websocket\r\n\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    fn write(
        request: &RequestHead,
        may: bool,
        length: AnswerLength,
        pieces: &[&str],
    ) -> (String, After) {
        let mut out = Vec::new();
        let mut reply = Reply::new(&mut out, Some(request), may);
        let mut headers = Headers::new();
        headers.push("content-length", "7");
        headers.push("x", "y");
        reply.begin(&ResponseHead { status: 200, headers }, length);
        for piece in pieces {
            reply.piece(piece.as_bytes()).unwrap();
        }
        let after = reply.finish();
        (String::from_utf8(out).unwrap(), after)
    }

    #[test]
    fn framings_by_length_and_version() {
        use AnswerLength::{Absent, Sized, Unknown};
        let new = request(Version::Http11, "");
        let old = request(Version::Http10, "");
        let cases = [
            (
                &new,
                Sized(3),
                vec!["a", "bc"],
                "x: y\r\ncontent-length: 3\r\n\r\nabc",
                After::KeepAlive,
            ),
            (&new, Sized(3), vec!["a"], "x: y\r\ncontent-length: 3\r\n\r\na", After::Abort),
            (&new, Absent, vec!["a"], "content-length: 7\r\nx: y\r\n\r\n", After::KeepAlive),
            (
                &new,
                Unknown,
                vec!["a", "", "bc"],
                "x: y\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n",
                After::KeepAlive,
            ),
            (&old, Unknown, vec!["a", "bc"], "x: y\r\nconnection: close\r\n\r\nabc", After::Close),
            (
                &old,
                Sized(1),
                vec!["a"],
                "x: y\r\ncontent-length: 1\r\nconnection: close\r\n\r\na",
                After::Close,
            ),
        ];
        for (request, length, pieces, expected, then) in cases {
            let (text, after) = write(request, true, length, &pieces);
            assert_eq!(text, format!("HTTP/1.1 200 OK\r\n{expected}"));
            assert_eq!(after, then, "{expected}");
        }
    }

    #[test]
    fn a_204_has_no_length_and_a_304_has_that_of_what_it_stands_for() {
        for (status, expected) in [(204, "\r\n"), (304, "content-length: 7\r\n\r\n")] {
            let (mut out, request) = (Vec::new(), request(Version::Http11, ""));
            let mut reply = Reply::new(&mut out, Some(&request), true);
            let mut headers = Headers::new();
            headers.push("content-length", "7");
            reply.begin(&ResponseHead { status, headers }, AnswerLength::Absent);
            assert_eq!(reply.finish(), After::KeepAlive);
            let text = String::from_utf8(out).unwrap();
            assert_eq!(text.split_once("\r\n").unwrap().1, expected, "{status}");
        }
    }

    #[test]
    fn keep_alive_is_said_where_it_has_to_be() {
        let old = request(Version::Http10, "keep-alive");
        let (text, after) = write(&old, true, AnswerLength::Sized(0), &[]);
        assert!(text.contains("connection: keep-alive\r\n"), "{text}");
        assert_eq!(after, After::KeepAlive);
        let (text, after) =
            write(&request(Version::Http11, ""), false, AnswerLength::Sized(0), &[]);
        assert!(text.contains("connection: close\r\n"), "{text}");
        assert_eq!(after, After::Close);
    }

    #[test]
    fn more_than_declared_is_an_error_and_not_written() {
        let mut out = Vec::new();
        let mut reply = Reply::new(&mut out, None, true);
        let head = ResponseHead { status: 200, headers: Headers::new() };
        reply.begin(&head, AnswerLength::Sized(1));
        assert!(reply.piece(b"ab").is_err());
        assert!(!String::from_utf8(out).unwrap().ends_with("ab"));
    }

    /// Takes a few bytes at each write, and counts the writes.
    struct Slow {
        taken: Vec<u8>,
        writes: usize,
        at_most: usize,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.write_vectored(&[IoSlice::new(bytes)])
        }

        fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
            let bytes: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
            let count = bytes.len().min(self.at_most);
            self.taken.extend_from_slice(&bytes[..count]);
            self.writes += 1;
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn head_and_pieces_go_out_together_however_little_is_taken_at_once() {
        let request = request(Version::Http11, "");
        let head = ResponseHead { status: 200, headers: Headers::new() };
        let text =
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n";
        for at_most in [1, 2, 7, 999] {
            let mut out = Slow { taken: Vec::new(), writes: 0, at_most };
            let mut reply = Reply::new(&mut out, Some(&request), true);
            reply.begin(&head, AnswerLength::Unknown);
            reply.piece(b"a").unwrap();
            reply.last_piece(b"bc").unwrap();
            assert_eq!(reply.sent_bytes(), 3);
            assert_eq!(reply.finish(), After::KeepAlive);
            assert_eq!(String::from_utf8(out.taken).unwrap(), text, "{at_most}");
            assert!(at_most < 999 || out.writes == 2, "{}", out.writes);
        }
        let mut out = Slow { taken: Vec::new(), writes: 0, at_most: 999 };
        let mut reply = Reply::new(&mut out, Some(&request), true);
        reply.begin(&head, AnswerLength::Unknown);
        reply.flush().unwrap();
        reply.last_piece(b"").unwrap();
        assert_eq!((reply.finish(), out.writes), (After::KeepAlive, 2));
        assert!(out.taken.ends_with(b"\r\n\r\n0\r\n\r\n"));
    }
}
