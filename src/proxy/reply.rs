//! Status line, header fields and framing of one response, over any `Write` (RFC 9112 §6, §7).

use std::io::{self, Write};

use crate::ingress::After;
use crate::message::{Headers, RequestHead, ResponseHead, Version, reason_phrase};
use crate::upstream::AnswerLength;

/// How the body is delimited for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    /// No body follows the head.
    None,
    /// So many bytes are still to come.
    Sized(u64),
    /// Chunks.
    Chunked,
    /// The end of the connection ends the body: HTTP/1.0 clients.
    UntilClose,
}

/// One response on its way to the client. Each piece is one write, so that no event waits.
pub struct Reply<'a> {
    out: &'a mut dyn Write,
    version: Version,
    keeps_alive: bool,
    framing: Option<Framing>,
    sent_bytes: u64,
    piece: Vec<u8>,
}

impl<'a> Reply<'a> {
    /// A reply to the request with `head`, None for one that could not be read. The connection is
    /// kept where the client wants it and `may_keep_alive` holds.
    pub fn new(out: &'a mut dyn Write, head: Option<&RequestHead>, may_keep_alive: bool) -> Self {
        Self {
            out,
            version: head.map_or(Version::Http11, |head| head.version),
            keeps_alive: may_keep_alive && head.is_some_and(RequestHead::wants_keep_alive),
            framing: None,
            sent_bytes: 0,
            piece: Vec::new(),
        }
    }

    /// Whether the head was written: nothing else can be answered from then on.
    pub fn has_begun(&self) -> bool {
        self.framing.is_some()
    }

    /// The connection is not kept, whatever the client wants: to be called before [`Reply::begin`].
    pub fn close_after(&mut self) {
        self.keeps_alive = false;
    }

    /// Bytes of body written.
    pub fn sent_bytes(&self) -> u64 {
        self.sent_bytes
    }

    /// Writes the head. `head` holds no hop-by-hop fields; those of the framing are set here.
    pub fn begin(&mut self, head: &ResponseHead, length: AnswerLength) -> io::Result<()> {
        let mut headers = head.headers.clone();
        let framing = match (length, self.version) {
            (AnswerLength::Absent, _) => Framing::None,
            (AnswerLength::Sized(bytes), _) => {
                headers.remove("content-length");
                headers.push("content-length", bytes.to_string());
                Framing::Sized(bytes)
            }
            (AnswerLength::Unknown, Version::Http11) => {
                headers.remove("content-length");
                headers.push("transfer-encoding", "chunked");
                Framing::Chunked
            }
            (AnswerLength::Unknown, Version::Http10) => {
                headers.remove("content-length");
                self.keeps_alive = false;
                Framing::UntilClose
            }
        };
        match (self.keeps_alive, self.version) {
            (false, _) => headers.push("connection", "close"),
            (true, Version::Http10) => headers.push("connection", "keep-alive"),
            (true, Version::Http11) => {}
        }
        // Once begun, a failed write must not be followed by another answer.
        self.framing = Some(framing);
        self.out.write_all(&head_bytes(head.status, &headers))?;
        self.out.flush()
    }

    /// Writes a piece of the body at once.
    pub fn piece(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        match &mut self.framing {
            None | Some(Framing::None) => return Ok(()),
            Some(Framing::Sized(left)) => {
                *left = left.checked_sub(bytes.len() as u64).ok_or_else(|| {
                    io::Error::new(io::ErrorKind::InvalidData, "more bytes than declared")
                })?;
                self.out.write_all(bytes)?;
            }
            Some(Framing::UntilClose) => self.out.write_all(bytes)?,
            Some(Framing::Chunked) => {
                self.piece.clear();
                write!(self.piece, "{:x}\r\n", bytes.len())?;
                self.piece.extend_from_slice(bytes);
                self.piece.extend_from_slice(b"\r\n");
                self.out.write_all(&self.piece)?;
            }
        }
        self.sent_bytes += bytes.len() as u64;
        self.out.flush()
    }

    /// Ends the response; what is to become of the connection.
    pub fn finish(self) -> After {
        let complete = match self.framing {
            None => false,
            Some(Framing::None | Framing::UntilClose | Framing::Sized(0)) => true,
            Some(Framing::Sized(_)) => false,
            Some(Framing::Chunked) => {
                self.out.write_all(b"0\r\n\r\n").and_then(|()| self.out.flush()).is_ok()
            }
        };
        match (complete, self.keeps_alive) {
            (false, _) => After::Abort,
            (true, true) => After::KeepAlive,
            (true, false) => After::Close,
        }
    }
}

fn head_bytes(status: u16, headers: &Headers) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {status} {}\r\n", reason_phrase(status)).into_bytes();
    for (name, value) in headers.iter() {
        head.extend_from_slice(name.as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value);
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::BodyLength;

    fn request(version: Version, connection: &str) -> RequestHead {
        let mut headers = Headers::new();
        if !connection.is_empty() {
            headers.push("connection", connection);
        }
        RequestHead {
            method: "GET".into(),
            target: "/".into(),
            version,
            host: None,
            headers,
            body: BodyLength::Absent,
        }
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
        reply.begin(&ResponseHead { status: 200, headers }, length).unwrap();
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
        reply.begin(&head, AnswerLength::Sized(1)).unwrap();
        assert!(reply.piece(b"ab").is_err());
        assert!(!String::from_utf8(out).unwrap().ends_with("ab"));
    }
}
