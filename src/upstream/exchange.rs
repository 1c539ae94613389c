//! Sends one request and reads the head of its answer, on one connection.

use std::io::{ErrorKind, IoSlice, Write};
use std::time::Duration;

use rustix::event::PollFlags;

use crate::clock::{Deadline, Stopwatch};
use crate::http::buffer::{BULK_BYTES, Buffer};
use crate::http::chunked::{BODY_END, CHUNK_END, SizeLine};
use crate::http::head::response::{self, Framed, Interims, Parsed, ResponseReader};
use crate::http::websocket;
use crate::upstream::fault::Fault;
use crate::upstream::request::OutBody;
use crate::upstream::socket::UNWATCHED_MAX;
use crate::upstream::stall::Stall;
use crate::upstream::timeouts::Timeouts;
use crate::upstream::watch::Watch;
use crate::upstream::wire::{Wire, is_not_now};

/// The piece of a streamed body that is read before it is sent on.
const PIECE_BYTES: usize = 64 * 1024;
/// The beginning of an interim answer (RFC 9110 §15.2).
const INTERIM: &[u8] = b"HTTP/1.1 1";
/// The time after the request within which the end of a kept connection counts as having crossed the request on its
/// way; later, the provider may have worked on it.
const CROSSING_MAX: Duration = Duration::from_millis(500);

/// A connection with a request in flight.
#[derive(Debug)]
pub(super) struct Exchange<'a> {
    wire: Wire,
    /// The bytes of the answer so far.
    buffer: Buffer,
    /// The interim heads before it.
    interims: Interims,
    /// True if the request was sent whole, so that another can follow it.
    pub(super) sent_whole: bool,
    /// True if a byte of the answer came.
    received: bool,
    /// True if the streamed body was read from, so that it can't be sent again.
    body_touched: bool,
    /// The time when the request was sent; None before that.
    sent_at: Option<Stopwatch>,
    watch: &'a Watch,
    timeouts: Timeouts,
    /// The framing of the answer's body, once its head is there.
    pub(super) framed: Framed,
    /// The client's key if the request is for a WebSocket.
    pub(super) websocket_key: Option<&'a [u8]>,
}

/// The progress of sending.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sent {
    /// Everything was sent.
    Whole,
    /// An answer came first: the rest is not sent, so that the answer (413, 401) is read rather than lost.
    Answered,
}

impl<'a> Exchange<'a> {
    /// An exchange that is about to begin on `wire`.
    pub(super) fn on(wire: Wire, watch: &'a Watch, timeouts: Timeouts) -> Self {
        Self {
            wire,
            buffer: Buffer::holding(Vec::new(), BULK_BYTES),
            interims: Interims::default(),
            sent_whole: false,
            received: false,
            body_touched: false,
            sent_at: None,
            watch,
            timeouts,
            framed: response::NO_BODY,
            websocket_key: None,
        }
    }

    /// The connection, and the bytes that were read after the head.
    pub(super) fn into_parts(self) -> (Wire, Buffer) {
        (self.wire, self.buffer)
    }

    /// Sends a request of `method` whose head is already written, and reads the head of the answer.
    pub(super) fn run(
        &mut self,
        method: &str,
        head: &[u8],
        body: &mut OutBody<'_>,
    ) -> Result<Parsed, Fault> {
        let sent = match body {
            OutBody::Absent => self.send(&mut [IoSlice::new(head)])?,
            OutBody::Held(bytes) => self.send(&mut [IoSlice::new(head), IoSlice::new(bytes)])?,
            OutBody::Streamed(length, reader) => self.stream(head, *length, &mut **reader)?,
        };
        self.sent_whole = sent == Sent::Whole;
        let received = self.receive_head();
        if let Ok(parsed) = &received {
            self.framed = response::framing(method, parsed)?;
        }
        received
    }

    fn stream(
        &mut self,
        head: &[u8],
        length: Option<u64>,
        reader: &mut dyn std::io::Read,
    ) -> Result<Sent, Fault> {
        if self.send(&mut [IoSlice::new(head)])? == Sent::Answered {
            return Ok(Sent::Answered);
        }
        let mut piece = vec![0; PIECE_BYTES];
        let mut left = length;
        while left != Some(0) {
            let room = left.map_or(piece.len(), |left| {
                usize::try_from(left).map_or(piece.len(), |left| left.min(piece.len()))
            });
            // The client may be slow, and the provider may have answered the part of the body that it has seen.
            if self.body_touched && self.take_early()? == Sent::Answered {
                return Ok(Sent::Answered);
            }
            self.body_touched = true;
            let count = reader.read(&mut piece[..room]).map_err(Fault::RequestBody)?;
            let bytes = IoSlice::new(&piece[..count]);
            let sent = match &mut left {
                Some(_) if count == 0 => {
                    let why = "the request body is shorter than declared";
                    return Err(Fault::RequestBody(std::io::Error::other(why)));
                }
                Some(left) => {
                    *left -= count as u64;
                    self.send(&mut [bytes])?
                }
                None if count == 0 => return self.send(&mut [IoSlice::new(BODY_END)]),
                None => {
                    let line = SizeLine::of(count);
                    let (line, end) = (IoSlice::new(line.as_bytes()), IoSlice::new(CHUNK_END));
                    self.send(&mut [line, bytes, end])?
                }
            };
            if sent == Sent::Answered {
                return Ok(sent);
            }
        }
        Ok(Sent::Whole)
    }

    fn send(&mut self, mut parts: &mut [IoSlice<'_>]) -> Result<Sent, Fault> {
        IoSlice::advance_slices(&mut parts, 0);
        let mut stalled: Option<Stall> = None;
        loop {
            let outcome = if parts.is_empty() {
                match self.wire.send_held() {
                    Ok(true) => return Ok(Sent::Whole),
                    Ok(false) => Err(std::io::ErrorKind::WouldBlock.into()),
                    Err(error) => Err(error),
                }
            } else {
                self.wire.write_vectored(parts)
            };
            match outcome {
                Ok(count) => {
                    IoSlice::advance_slices(&mut parts, count);
                    stalled = None;
                }
                Err(error) if is_not_now(&error) => {
                    let (taken, idle_max) = (self.wire.handed_on_bytes(), self.timeouts.idle);
                    let stall = *stalled.insert(Stall::after(stalled, taken, idle_max));
                    if self.wait_to_send(stall.until())? == Sent::Answered {
                        return Ok(Sent::Answered);
                    }
                }
                // The answer may have come before the connection broke.
                Err(_) if self.take_early().is_ok_and(|sent| sent == Sent::Answered) => {
                    return Ok(Sent::Answered);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits until more can be sent, or an answer has come.
    fn wait_to_send(&mut self, deadline: Deadline) -> Result<Sent, Fault> {
        let mut interest = PollFlags::OUT;
        if !self.buffer.is_full() {
            interest |= PollFlags::IN;
        }
        match self.watch.wait(self.wire.socket(), interest, deadline.left()) {
            Ok(true) => self.take_early(),
            Ok(false) => Ok(Sent::Whole),
            Err(Fault::TimedOut) => Err(Fault::Untaken),
            Err(fault) => Err(fault),
        }
    }

    /// Reads the bytes that came while the request was being sent; `Answered` if they are an answer rather than an
    /// interim one. A provider that ended its side without an answer can no longer give one.
    fn take_early(&mut self) -> Result<Sent, Fault> {
        let mut has_ended = false;
        while !self.buffer.is_full() && !has_ended {
            match self.buffer.fill(&mut self.wire) {
                Ok(0) => has_ended = true,
                Ok(_) => self.received = true,
                Err(error) if is_not_now(&error) => break,
                Err(error) if self.buffer.held().is_empty() => return Err(error.into()),
                Err(_) => has_ended = true,
            }
        }
        if self.holds_answer()? {
            return Ok(Sent::Answered);
        }
        if has_ended { Err(Fault::Closed) } else { Ok(Sent::Whole) }
    }

    /// True if the start of an answer is there. Interim ones (RFC 9110 §15.2) before it are skipped.
    fn holds_answer(&mut self) -> Result<bool, Fault> {
        loop {
            let held = self.buffer.held();
            let count = held.len().min(INTERIM.len());
            if held[..count] != INTERIM[..count] {
                return Ok(true);
            }
            match ResponseReader::default().read(held)? {
                Some(parsed) if is_interim(parsed.head.status) => {
                    self.interims.add(parsed.length)?;
                    self.buffer.consume(parsed.length);
                }
                whole => return Ok(whole.is_some()),
            }
        }
    }

    fn receive_head(&mut self) -> Result<Parsed, Fault> {
        let sent_at = Stopwatch::start();
        self.sent_at = Some(sent_at);
        let mut reader = ResponseReader::default();
        loop {
            if let Some(parsed) = reader.read(self.buffer.held())? {
                self.buffer.consume(parsed.length);
                match parsed.head.status {
                    101 => {
                        self.check_change(&parsed)?;
                        return Ok(parsed);
                    }
                    status if is_interim(status) => {
                        self.interims.add(parsed.length)?;
                        reader = ResponseReader::default();
                    }
                    _ => return Ok(parsed),
                }
                continue;
            }
            // At first, all of it is left: the clock is not asked for.
            let spent = if self.received { sent_at.elapsed() } else { Duration::ZERO };
            let left = self.timeouts.response.saturating_sub(spent);
            receive(&mut self.wire, &mut self.buffer, self.watch, left)?;
            self.received = true;
        }
    }

    /// Checks a change of the protocol, which must be the one that was asked for.
    // Not inlined: keeps worker stacks small.
    #[inline(never)]
    fn check_change(&self, parsed: &Parsed) -> Result<(), Fault> {
        let checked = match self.websocket_key {
            Some(key) => websocket::check_accepted(&parsed.head.headers, key),
            None => Err("it changed the protocol unasked"),
        };
        checked.map_err(|why| Fault::Bad(why.to_owned()))
    }

    /// True if the same request may go out again on another connection after `fault`: nothing of an answer came, and
    /// the provider can't have worked on it, or a repetition does no harm.
    pub(super) fn may_go_again(&self, fault: &Fault, method: &str, now: Stopwatch) -> bool {
        let is_untouched = !self.received && !self.body_touched && fault.is_of_connection();
        let is_early = || self.sent_at.is_none_or(|at| at.until(now) < CROSSING_MAX);
        is_untouched && (is_idempotent(method) || is_early())
    }
}

/// True if more heads follow the one with `status`.
fn is_interim(status: u16) -> bool {
    matches!(status, 100 | 102..=199)
}

/// True if sending a request of `method` twice means the same as sending it once (RFC 9110 §9.2.2).
fn is_idempotent(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE")
}

/// Reads more into `buffer`, waiting at most `limit`; the end of the connection is an error.
pub(super) fn receive(
    wire: &mut Wire,
    buffer: &mut Buffer,
    watch: &Watch,
    limit: Duration,
) -> Result<(), Fault> {
    match receive_alone(wire, buffer, watch, limit) {
        // It may have been shut down because the client left.
        Err(fault) if wire.base().is_watched() => watch.check().and(Err(fault)),
        outcome => outcome,
    }
}

fn receive_alone(
    wire: &mut Wire,
    buffer: &mut Buffer,
    watch: &Watch,
    limit: Duration,
) -> Result<(), Fault> {
    // If the last read filled the buffer, there is probably more in the socket.
    if (wire.holds_bytes() || buffer.was_filled()) && fill(wire, buffer, None)? == Filled::Bytes {
        return Ok(());
    }
    let mut left = limit;
    if !wire.base().is_watched() {
        let unwatched = limit.min(UNWATCHED_MAX);
        if fill(wire, buffer, Some(unwatched))? == Filled::Bytes {
            return Ok(());
        }
        left = limit.saturating_sub(unwatched);
    }
    // A TLS record may come in many parts: together they have this time.
    let deadline = Deadline::after(left);
    loop {
        if !watch.covers(wire.base()) {
            return receive_together(wire, buffer, watch, deadline);
        }
        match fill(wire, buffer, Some(deadline.left()))? {
            Filled::Bytes => return Ok(()),
            Filled::Part if !deadline.has_passed() => {}
            Filled::Part | Filled::Nothing => return Err(Fault::TimedOut),
        }
    }
}

/// The same if another thread can't watch the client: waits for both ends.
fn receive_together(
    wire: &mut Wire,
    buffer: &mut Buffer,
    watch: &Watch,
    deadline: Deadline,
) -> Result<(), Fault> {
    loop {
        watch.wait(wire.socket(), PollFlags::IN, deadline.left())?;
        if fill(wire, buffer, None)? == Filled::Bytes {
            return Ok(());
        }
    }
}

/// The outcome of one read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Filled {
    /// There are more bytes to use.
    Bytes,
    /// A part of a TLS record came, which is useless without the rest.
    Part,
    /// Nothing came in time.
    Nothing,
}

/// Reads into `buffer`, waiting for `patience` if it is set. The end of the connection is an error.
fn fill(wire: &mut Wire, buffer: &mut Buffer, patience: Option<Duration>) -> Result<Filled, Fault> {
    wire.base().wait(patience)?;
    let outcome = buffer.fill(wire);
    wire.base().wait(None)?;
    match outcome {
        Ok(0) => Err(Fault::Closed),
        Ok(_) => Ok(Filled::Bytes),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(Filled::Nothing),
        // A signal causes this too, after which the wait continues.
        Err(error) if error.kind() == ErrorKind::Interrupted => Ok(Filled::Part),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};
    use std::sync::Arc;

    use super::*;
    use crate::spare::BUFFER_BYTES;
    use crate::upstream::socket::Socket;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (near, listener.accept().unwrap().0)
    }

    #[test]
    fn a_body_that_ends_with_its_connection_is_not_complete_because_its_client_left() {
        let (provider, mut provider_peer) = pair();
        let (client, client_peer) = pair();
        let mut wire = Wire::Plain(Socket::new(provider).unwrap());
        let watch = Watch::new(Some(&Arc::new(client)));
        let mut buffer = Buffer::holding(Vec::new(), BULK_BYTES);
        provider_peer.write_all(&[b'x'; BUFFER_BYTES]).unwrap();
        receive(&mut wire, &mut buffer, &watch, Duration::from_secs(9)).unwrap();
        assert!(buffer.was_filled() && watch.covers(wire.base()));
        buffer.consume(BUFFER_BYTES);
        drop(client_peer);
        assert_eq!(provider_peer.read(&mut [0]).unwrap(), 0, "the exchange was ended");
        let outcome = receive(&mut wire, &mut buffer, &watch, Duration::from_secs(9));
        assert!(matches!(outcome, Err(Fault::ClientGone)), "{outcome:?}");
    }

    /// A method, the time of sending, the fault, and whether it goes out again.
    type Case = (&'static str, Option<Stopwatch>, fn() -> Fault, bool);

    #[test]
    fn a_request_goes_out_again_where_that_can_do_no_harm() {
        let start = Stopwatch::start();
        let now = start.later(CROSSING_MAX);
        let late = Some(start);
        let early = Some(start.later(Duration::from_nanos(1)));
        let closed = || Fault::Closed;
        let cases: [Case; 9] = [
            ("POST", None, closed, true),
            ("POST", early, closed, true),
            ("POST", early, || Fault::Io(ErrorKind::ConnectionReset.into()), true),
            ("POST", early, || Fault::Cut, true),
            ("POST", early, || Fault::TimedOut, false),
            ("POST", late, closed, false),
            ("PATCH", late, closed, false),
            ("GET", late, closed, true),
            ("DELETE", late, closed, true),
        ];
        let watch = Watch::default();
        let second = Duration::from_secs(1);
        let timeouts = Timeouts { connect: second, response: second, idle: second };
        for (method, sent_at, fault, expected) in cases {
            let wire = Wire::Plain(Socket::new(pair().0).unwrap());
            let mut exchange = Exchange::on(wire, &watch, timeouts);
            exchange.sent_at = sent_at;
            let fault = fault();
            assert_eq!(exchange.may_go_again(&fault, method, now), expected, "{method} {fault:?}");
            exchange.received = true;
            assert!(!exchange.may_go_again(&fault, method, now), "a byte of an answer came");
            (exchange.received, exchange.body_touched) = (false, true);
            assert!(!exchange.may_go_again(&fault, method, now), "its body was read from");
        }
    }
}
