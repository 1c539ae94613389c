//! Copies a body to a reply, each piece as it comes.

use std::io;

use crate::proxy::reply::Reply;
use crate::upstream::{Piece, Pieces};
use crate::usage::observer::Observer;

/// The end of a copy.
#[derive(Debug)]
pub(crate) enum Relayed {
    /// The body is complete.
    Complete,
    /// The upstream broke off.
    UpstreamBroke(io::Error),
    /// The client stopped reading.
    ClientBroke,
}

/// Copies `from` to `to` until its end. It writes each piece before it waits for more, so that neither the head nor
/// an event waits for the next. `observer` sees each piece after it was written.
pub(crate) fn relay(from: &mut dyn Pieces, to: &mut Reply<'_>, observer: &mut Observer) -> Relayed {
    let is_enough = |_: &[u8], _| false;
    loop {
        if let Some(end) = relay_until(from, to, observer, is_enough) {
            return end;
        }
    }
}

/// The same, but it stops after a piece of which `is_enough` is true; that sees each piece before it is written, and whether it is
/// the last one. Returns the end, or None if more may come.
pub(crate) fn relay_until(
    from: &mut dyn Pieces,
    to: &mut Reply<'_>,
    observer: &mut Observer,
    mut is_enough: impl FnMut(&[u8], bool) -> bool,
) -> Option<Relayed> {
    if !from.has_more_at_hand() && to.flush().is_err() {
        return Some(Relayed::ClientBroke);
    }
    loop {
        let (written, is_last, ends) = match from.piece() {
            Ok(Piece { bytes, is_last }) => {
                let ends = is_enough(bytes, is_last);
                let written = if is_last { to.last_piece(bytes) } else { to.piece(bytes) };
                observer.see(bytes, is_last);
                (written, is_last, ends)
            }
            // The client sees the pieces that came, and that the body was cut.
            Err(error) => {
                let flushed = to.flush();
                return Some(
                    flushed
                        .map_or_else(|_| Relayed::ClientBroke, |()| Relayed::UpstreamBroke(error)),
                );
            }
        };
        match written {
            Err(_) => return Some(Relayed::ClientBroke),
            Ok(()) if is_last => return Some(Relayed::Complete),
            Ok(()) if ends => return None,
            Ok(()) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{IoSlice, Write};

    use super::*;
    use crate::http::message::{AnswerLength, Headers, ResponseHead};

    /// Yields its pieces one by one, then fails, or ends with the last one.
    struct Script {
        pieces: Vec<&'static [u8]>,
        fails: bool,
        at_hand: bool,
    }

    impl Pieces for Script {
        fn piece(&mut self) -> io::Result<Piece<'_>> {
            if self.pieces.is_empty() {
                return Err(io::ErrorKind::Other.into());
            }
            let bytes = self.pieces.remove(0);
            Ok(Piece { bytes, is_last: self.pieces.is_empty() && !self.fails })
        }

        fn has_more_at_hand(&self) -> bool {
            self.at_hand
        }
    }

    /// Records each write; fails after `allowed` of them.
    struct Writes(Vec<String>, usize);

    impl Write for Writes {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.write_vectored(&[IoSlice::new(bytes)])
        }

        fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
            if self.0.len() == self.1 {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            let bytes: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
            self.0.push(String::from_utf8(bytes.clone()).unwrap());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    const HEAD: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n";

    fn run(
        pieces: &[&'static [u8]],
        fails: bool,
        at_hand: bool,
        allowed: usize,
    ) -> (Relayed, Vec<String>) {
        let mut writes = Writes(Vec::new(), allowed);
        let mut reply = Reply::new(&mut writes, None, true);
        let head = ResponseHead { status: 200, headers: Headers::new() };
        reply.begin(&head, AnswerLength::Unknown);
        let mut script = Script { pieces: pieces.to_vec(), fails, at_hand };
        let relayed = relay(&mut script, &mut reply, &mut Observer::Off);
        (relayed, writes.0)
    }

    #[test]
    fn each_piece_is_one_write_and_the_head_waits_for_nothing() {
        let (relayed, writes) = run(&[b"a", b"bc"], false, false, 9);
        assert!(matches!(relayed, Relayed::Complete));
        assert_eq!(writes, [HEAD, "1\r\na\r\n", "2\r\nbc\r\n0\r\n\r\n"]);
        let (relayed, writes) = run(&[b"a", b""], false, true, 9);
        assert!(matches!(relayed, Relayed::Complete));
        assert_eq!(writes, [&format!("{HEAD}1\r\na\r\n"), "0\r\n\r\n"]);
    }

    #[test]
    fn a_look_ends_after_the_piece_that_was_enough_and_the_rest_follows() {
        let mut writes = Writes(Vec::new(), 9);
        let mut reply = Reply::new(&mut writes, None, true);
        reply.begin(&ResponseHead { status: 200, headers: Headers::new() }, AnswerLength::Unknown);
        let mut script = Script { pieces: vec![b"a", b"b", b"c"], fails: false, at_hand: false };
        let mut seen = Vec::new();
        let look = |piece: &[u8], _| {
            seen.extend_from_slice(piece);
            piece == b"b"
        };
        assert!(relay_until(&mut script, &mut reply, &mut Observer::Off, look).is_none());
        assert_eq!(seen, b"ab");
        let end = relay(&mut script, &mut reply, &mut Observer::Off);
        assert!(matches!(end, Relayed::Complete));
        assert_eq!(writes.0, [HEAD, "1\r\na\r\n", "1\r\nb\r\n", "1\r\nc\r\n0\r\n\r\n"]);
    }

    #[test]
    fn who_broke_is_told_apart() {
        let (relayed, writes) = run(&[b"a"], true, false, 9);
        assert!(matches!(relayed, Relayed::UpstreamBroke(_)));
        assert_eq!(writes.len(), 2);
        let (relayed, writes) = run(&[], true, true, 9);
        assert!(matches!(relayed, Relayed::UpstreamBroke(_)));
        assert_eq!(writes, [HEAD], "the client sees that there was an answer, and that it was cut");
        for allowed in [0, 1] {
            let (relayed, _) = run(&[b"a", b"b"], false, false, allowed);
            assert!(matches!(relayed, Relayed::ClientBroke));
        }
    }
}
