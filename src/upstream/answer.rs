//! A response whose head has arrived, and its body as it comes.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Deadline;
use crate::http::buffer::Buffer;
use crate::http::framing::Framing;
use crate::http::message::{AnswerLength, ResponseHead};
use crate::upstream::exchange::receive;
use crate::upstream::fault::Fault;
use crate::upstream::idle::Idle;
use crate::upstream::switched::{ProviderEnd, ProviderStream};
use crate::upstream::watch::Watch;
use crate::upstream::wire::Wire;

/// A response whose head has arrived. Dropping it before its end closes the upstream connection. It is passed on in a box,
/// because it goes through several hands.
#[derive(Debug)]
pub struct Answer<'a> {
    /// Status and header fields.
    pub head: ResponseHead,
    /// The framing of the body.
    pub length: AnswerLength,
    /// Bytes that were read ahead of the body, and true once they were passed on.
    ahead: Vec<u8>,
    ahead_is_passed_on: bool,
    /// A piece that was looked at and not yet passed on, in its place in the buffer; or the break after it.
    peeked: Option<Result<Range<usize>, Fault>>,
    rest: Rest<'a>,
}

/// The rest of a body.
#[derive(Debug)]
pub(super) struct Rest<'a> {
    /// The connection; None once the body ended or broke.
    pub(super) wire: Option<Wire>,
    /// Bytes that were read from it.
    pub(super) buffer: Buffer,
    /// The framing of the body, and the progress of reading it.
    pub(super) framing: Framing,
    /// The destination of the connection at the end; None if it can't be kept.
    pub(super) idle: Option<&'a Arc<Idle>>,
    /// The watched client.
    pub(super) watch: Watch,
    /// The longest silence.
    pub(super) silence_max: Duration,
}

/// A piece of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece<'a> {
    /// Its bytes; none at the end of a body.
    pub bytes: &'a [u8],
    /// True if the body is known to end with it.
    pub is_last: bool,
}

/// The start of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Peeked<'a> {
    /// Its bytes.
    pub bytes: &'a [u8],
    /// True if the body is known to end with them.
    pub is_whole: bool,
}

/// A body that comes in pieces.
pub(crate) trait Pieces {
    /// The next piece, as soon as it is there. An error if the body breaks off.
    fn piece(&mut self) -> io::Result<Piece<'_>>;

    /// True if a piece, or the end of the body, is there without waiting.
    fn has_more_at_hand(&self) -> bool;
}

impl<'a> Answer<'a> {
    pub(super) fn new(head: ResponseHead, length: AnswerLength, rest: Rest<'a>) -> Box<Self> {
        let (ahead, ahead_is_passed_on, peeked) = (Vec::new(), false, None);
        let mut answer = Box::new(Self { head, length, ahead, ahead_is_passed_on, peeked, rest });
        if answer.rest.has_ended() {
            answer.rest.end();
        }
        answer
    }

    /// Reads up to `most_bytes` of the body ahead, as far as they come within `time_max`, however many
    /// pieces that takes; its pieces are yielded all the same. Returns them, and whether they are the
    /// whole body.
    pub fn read_ahead(&mut self, most_bytes: usize, time_max: Duration) -> (&[u8], bool) {
        let deadline = Deadline::after(time_max);
        let usual = self.rest.silence_max;
        self.take_peeked();
        let mut is_whole = false;
        while self.ahead.len() <= most_bytes && !deadline.has_passed() {
            self.rest.silence_max = deadline.left();
            match self.rest.next_data() {
                Ok(data) => {
                    self.ahead.extend_from_slice(self.rest.buffer.used(data));
                    if self.rest.has_ended() {
                        is_whole = self.ahead.len() <= most_bytes;
                        break;
                    }
                    self.look_at_client();
                }
                // The rest may still come for a caller with more time.
                Err(Fault::TimedOut) => break,
                Err(_) => {
                    self.rest.wire = None;
                    break;
                }
            }
        }
        self.rest.silence_max = usual;
        (&self.ahead, is_whole)
    }

    /// The start of the body, which is yielded all the same: with each call, one more piece of it. None if no more came
    /// within `wait_max`, or the longest silence without it, or if no more follows.
    pub(crate) fn peek(&mut self, wait_max: Option<Duration>) -> Option<Peeked<'_>> {
        if matches!(self.peeked, Some(Err(_))) || self.rest.has_ended() {
            return None;
        }
        self.take_peeked();
        let usual = self.rest.silence_max;
        self.rest.silence_max = wait_max.unwrap_or(usual).min(usual);
        let outcome = self.rest.next_data();
        self.rest.silence_max = usual;
        let is_whole = self.rest.has_ended();
        match outcome {
            Ok(data) if self.ahead.is_empty() => {
                self.peeked = Some(Ok(data.clone()));
                Some(Peeked { bytes: self.rest.buffer.used(data), is_whole })
            }
            Ok(data) => {
                self.ahead.extend_from_slice(self.rest.buffer.used(data));
                Some(Peeked { bytes: &self.ahead, is_whole })
            }
            // The rest may still come for a caller with more time.
            Err(Fault::TimedOut) if wait_max.is_some() => None,
            Err(fault) => {
                self.rest.wire = None;
                self.peeked = Some(Err(fault));
                None
            }
        }
    }

    /// Takes the piece that was looked at out of the buffer, where the next one takes its place.
    fn take_peeked(&mut self) {
        if let Some(Ok(data)) = self.peeked.take_if(|outcome| outcome.is_ok()) {
            self.ahead.extend_from_slice(self.rest.buffer.used(data));
        }
    }

    /// Ends the exchange if the client has gone away, without waiting.
    pub(crate) fn look_at_client(&mut self) {
        if let Err(fault @ Fault::ClientGone) = self.rest.watch.check() {
            self.rest.wire = None;
            self.peeked = Some(Err(fault));
        }
    }

    /// The provider's end of a tunnel, after a 101; None if the connection is gone.
    pub(crate) fn into_end(self) -> Option<ProviderEnd> {
        let Rest { wire, buffer, silence_max, .. } = self.rest;
        Some(ProviderEnd { stream: ProviderStream::new(wire?), early: buffer, silence_max })
    }

    /// True if the client was seen to have gone away.
    pub fn client_is_gone(&self) -> bool {
        self.rest.watch.client_is_gone()
    }
}

impl Pieces for Answer<'_> {
    fn piece(&mut self) -> io::Result<Piece<'_>> {
        if !self.ahead.is_empty() && !self.ahead_is_passed_on {
            self.ahead_is_passed_on = true;
            return Ok(Piece { bytes: &self.ahead, is_last: self.rest.has_ended() });
        }
        match self.peeked.take() {
            None => Ok(self.rest.piece()?),
            Some(Ok(data)) => {
                let is_last = self.rest.has_ended();
                Ok(Piece { bytes: self.rest.buffer.used(data), is_last })
            }
            Some(Err(fault)) => Err(fault.into()),
        }
    }

    fn has_more_at_hand(&self) -> bool {
        (!self.ahead.is_empty() && !self.ahead_is_passed_on)
            || self.peeked.is_some()
            || self.rest.has_ended()
            || !self.rest.buffer.held().is_empty()
    }
}

impl Rest<'_> {
    fn has_ended(&self) -> bool {
        self.framing == Framing::Done
    }

    fn piece(&mut self) -> Result<Piece<'_>, Fault> {
        match self.next_data() {
            Ok(data) => {
                let is_last = self.has_ended();
                Ok(Piece { bytes: self.buffer.used(data), is_last })
            }
            Err(fault) => {
                self.wire = None;
                Err(fault)
            }
        }
    }

    /// The place of the next data in the buffer; empty at the end of the body.
    fn next_data(&mut self) -> Result<Range<usize>, Fault> {
        // Framing that comes byte by byte is silence too.
        let mut deadline: Option<Deadline> = None;
        loop {
            let data = self.buffer.take_data(&mut self.framing)?;
            if self.has_ended() {
                self.end();
            }
            if !data.is_empty() || self.has_ended() {
                return Ok(data);
            }
            let Some(wire) = &mut self.wire else { return Err(Fault::Closed) };
            let left = deadline.map_or(self.silence_max, Deadline::left);
            match receive(wire, &mut self.buffer, &self.watch, left) {
                Ok(()) => {}
                Err(Fault::Closed) if self.framing.may_end_here() => {
                    self.framing = Framing::Done;
                    self.wire = None;
                }
                Err(fault) => return Err(fault),
            }
            let silence_max = self.silence_max;
            deadline.get_or_insert_with(|| Deadline::after(silence_max));
        }
    }

    /// The body has ended: the connection is kept, unless unsolicited bytes followed, or TLS announced its end.
    fn end(&mut self) {
        let Some(wire) = self.wire.take() else { return };
        if let Some(idle) = self.idle
            && self.buffer.held().is_empty()
            && wire.may_go_on()
        {
            idle.put(wire);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::http::message::Headers;
    use crate::upstream::socket::Socket;

    const LONG: Duration = Duration::from_mins(1);

    fn answer(stream: TcpStream) -> Box<Answer<'static>> {
        let head = ResponseHead { status: 500, headers: Headers::new() };
        let rest = Rest {
            wire: Some(Wire::Plain(Socket::new(stream).unwrap())),
            buffer: Buffer::holding(Vec::new(), 0),
            framing: Framing::sized(1000),
            idle: None,
            watch: Watch::default(),
            silence_max: LONG,
        };
        Answer::new(head, AnswerLength::Sized(1000), rest)
    }

    #[test]
    fn a_body_that_drips_is_read_ahead_for_no_longer_than_it_may_take_and_then_passed_on() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        let (stop, stopped) = crossbeam_channel::bounded::<()>(0);
        let drip = move || {
            let mut sent = 0;
            while sent < 999
                && stopped
                    .recv_timeout(Duration::from_millis(5))
                    .is_err_and(|error| error.is_timeout())
            {
                sent += far.write(b"x").unwrap();
            }
            far.write_all(&vec![b'x'; 1000 - sent]).unwrap();
            let _ = far.read(&mut [0]);
        };
        crate::thread::spawn("drip", 64 * 1024, drip).unwrap().detach();
        let mut answer = answer(near);
        let (ahead, is_whole) = answer.read_ahead(1000, Duration::from_millis(50));
        let mut count = ahead.len();
        assert!(!is_whole && count < 1000);
        drop(stop);
        assert_eq!(answer.piece().unwrap().bytes.len(), count);
        while count < 1000 {
            count += answer.piece().unwrap().bytes.len();
        }
    }

    /// A connection, and the answer that comes over it.
    fn connected() -> (TcpStream, Box<Answer<'static>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (listener.accept().unwrap().0, answer(near))
    }

    /// It was lost: a client got the head of a refused list of models with an empty body.
    #[test]
    fn what_was_looked_at_is_part_of_what_is_read_ahead() {
        for (looked_at, later) in [(1000, 0), (600, 400)] {
            let (mut far, mut answer) = connected();
            far.write_all(&vec![b'a'; looked_at]).unwrap();
            let mut count = 0;
            while count < looked_at {
                count = answer.peek(Some(LONG)).unwrap().bytes.len();
            }
            far.write_all(&vec![b'b'; later]).unwrap();
            let (ahead, is_whole) = answer.read_ahead(1000, LONG);
            assert_eq!((ahead.len(), is_whole), (1000, true), "{looked_at}");
            let piece = answer.piece().unwrap();
            assert_eq!((piece.bytes.len(), piece.is_last), (1000, true), "{looked_at}");
        }
    }

    #[test]
    fn each_piece_that_was_looked_at_is_yielded_once() {
        let (mut far, mut answer) = connected();
        far.write_all(b"ab").unwrap();
        assert_eq!(answer.peek(Some(LONG)), Some(Peeked { bytes: b"ab", is_whole: false }));
        assert!(answer.has_more_at_hand());
        far.write_all(b"c").unwrap();
        assert_eq!(answer.peek(Some(LONG)), Some(Peeked { bytes: b"abc", is_whole: false }));
        assert_eq!(answer.peek(Some(Duration::from_millis(1))), None, "nothing more came");
        assert_eq!(answer.piece().unwrap(), Piece { bytes: b"abc", is_last: false });
        assert!(!answer.has_more_at_hand());
        far.write_all(&[b'x'; 997]).unwrap();
        let mut count = 3;
        while count < 1000 {
            let piece = answer.piece().unwrap();
            count += piece.bytes.len();
            assert_eq!(piece.is_last, count == 1000);
        }
        assert_eq!(answer.peek(None), None, "it has ended");
    }

    #[test]
    fn a_break_that_a_look_met_comes_after_the_piece_before_it() {
        for looks in [1, 2] {
            let (mut far, mut answer) = connected();
            far.write_all(b"ab").unwrap();
            assert_eq!(answer.peek(None), Some(Peeked { bytes: b"ab", is_whole: false }));
            drop(far);
            for _ in 0..looks {
                assert_eq!(answer.peek(None), None);
            }
            assert_eq!(answer.piece().unwrap(), Piece { bytes: b"ab", is_last: false });
            assert!(answer.piece().is_err() && answer.piece().is_err());
        }
    }
}
