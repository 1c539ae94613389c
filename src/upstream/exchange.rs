//! One request sent and the head of its answer read, on one connection.

use std::io::{ErrorKind, IoSlice, Write};
use std::time::Duration;

use rustix::event::PollFlags;

use crate::clock::Deadline;
use crate::upstream::buffer::Buffer;
use crate::upstream::fault::Fault;
use crate::upstream::head::{HeadReader, Parsed};
use crate::upstream::request::{size_line, size_line_room};
use crate::upstream::socket::UNWATCHED_MAX;
use crate::upstream::watch::Watch;
use crate::upstream::wire::{Wire, is_not_now};
use crate::upstream::{OutBody, Timeouts};

/// How much of a streamed body is read before it is sent on.
const PIECE_BYTES: usize = 64 * 1024;
/// How an interim answer begins (RFC 9110 §15.2).
const INTERIM: &[u8] = b"HTTP/1.1 1";

/// A connection with a request under way.
#[derive(Debug)]
pub(super) struct Exchange<'a> {
    wire: Wire,
    /// What was read of the answer.
    buffer: Buffer,
    /// Whether the request was sent whole, so that another can follow it.
    pub(super) sent_whole: bool,
    /// Whether a byte of the answer came.
    pub(super) received: bool,
    /// Whether the streamed body was read from, so that it can't be sent again.
    pub(super) body_touched: bool,
    watch: &'a Watch,
    timeouts: Timeouts,
}

/// How far sending got.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sent {
    /// All of it.
    Whole,
    /// An answer came before: the rest is not sent, so that the answer (413, 401) is read rather
    /// than lost.
    Answered,
}

impl<'a> Exchange<'a> {
    /// About to begin on `wire`.
    pub(super) fn on(wire: Wire, watch: &'a Watch, timeouts: Timeouts) -> Self {
        Self {
            wire,
            buffer: Buffer::lend(),
            sent_whole: false,
            received: false,
            body_touched: false,
            watch,
            timeouts,
        }
    }

    /// The connection, and what was read after the head.
    pub(super) fn into_parts(self) -> (Wire, Buffer) {
        (self.wire, self.buffer)
    }

    /// Sends a request whose head is written already, and reads the head of the answer.
    pub(super) fn run(&mut self, head: &[u8], body: &mut OutBody<'_>) -> Result<Parsed, Fault> {
        let sent = match body {
            OutBody::Absent => self.send(&mut [IoSlice::new(head)])?,
            OutBody::Held(bytes) => self.send(&mut [IoSlice::new(head), IoSlice::new(bytes)])?,
            OutBody::Streamed(length, reader) => self.stream(head, *length, &mut **reader)?,
        };
        self.sent_whole = sent == Sent::Whole;
        self.receive_head()
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
                None if count == 0 => return self.send(&mut [IoSlice::new(b"0\r\n\r\n")]),
                None => {
                    let mut line = size_line_room();
                    let line = IoSlice::new(size_line(count, &mut line));
                    self.send(&mut [line, bytes, IoSlice::new(b"\r\n")])?
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
                Ok(count) => IoSlice::advance_slices(&mut parts, count),
                Err(error) if is_not_now(&error) => {
                    if self.wait_to_send()? == Sent::Answered {
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

    /// Waits until more can be sent, or an answer is there.
    fn wait_to_send(&mut self) -> Result<Sent, Fault> {
        let mut interest = PollFlags::OUT;
        if !self.buffer.is_full() {
            interest |= PollFlags::IN;
        }
        let ready = self.watch.wait(self.wire.socket(), interest, self.timeouts.idle)?;
        if ready.readable { self.take_early() } else { Ok(Sent::Whole) }
    }

    /// Takes what came while the request was being sent; `Answered` where that is an answer rather
    /// than an interim one.
    fn take_early(&mut self) -> Result<Sent, Fault> {
        while !self.buffer.is_full() {
            match self.buffer.fill(&mut self.wire) {
                Ok(0) => break,
                Ok(_) => self.received = true,
                Err(error) if is_not_now(&error) => break,
                Err(error) if self.buffer.held().is_empty() => return Err(error.into()),
                Err(_) => break,
            }
        }
        let held = self.buffer.held();
        let count = held.len().min(INTERIM.len());
        let is_answer = count > 0 && held[..count] != INTERIM[..count];
        Ok(if is_answer { Sent::Answered } else { Sent::Whole })
    }

    fn receive_head(&mut self) -> Result<Parsed, Fault> {
        let deadline = Deadline::after(self.timeouts.response);
        let mut reader = HeadReader::default();
        loop {
            if let Some(parsed) = reader.read(self.buffer.held())? {
                self.buffer.consume(parsed.length);
                match parsed.head.status {
                    101 => return Err(Fault::Bad("it changed the protocol unasked".to_owned())),
                    100..=199 => reader = HeadReader::default(),
                    _ => return Ok(parsed),
                }
                continue;
            }
            receive(&mut self.wire, &mut self.buffer, self.watch, deadline.left())?;
            self.received = true;
        }
    }
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
    // Where the last read filled the buffer there is more in the socket, most likely.
    if (wire.holds_bytes() || buffer.was_filled()) && fill(wire, buffer, None)? {
        return Ok(());
    }
    let mut left = limit;
    if !wire.base().is_watched() {
        if limit > UNWATCHED_MAX {
            if fill(wire, buffer, Some(UNWATCHED_MAX))? {
                return Ok(());
            }
            left = limit.saturating_sub(UNWATCHED_MAX);
        }
        if !watch.covers(wire.base()) {
            return receive_together(wire, buffer, watch, left);
        }
    }
    if fill(wire, buffer, Some(left))? { Ok(()) } else { Err(Fault::TimedOut) }
}

/// The same where the client can't be watched by another thread: both ends are waited for.
fn receive_together(
    wire: &mut Wire,
    buffer: &mut Buffer,
    watch: &Watch,
    limit: Duration,
) -> Result<(), Fault> {
    loop {
        watch.wait(wire.socket(), PollFlags::IN, limit)?;
        if fill(wire, buffer, None)? {
            return Ok(());
        }
    }
}

/// Reads into `buffer`, waiting for `patience` where there is one; false where nothing came. The end
/// of the connection is an error.
fn fill(wire: &mut Wire, buffer: &mut Buffer, patience: Option<Duration>) -> Result<bool, Fault> {
    wire.base().wait(patience)?;
    let outcome = loop {
        match buffer.fill(wire) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            outcome => break outcome,
        }
    };
    wire.base().wait(None)?;
    match outcome {
        Ok(0) => Err(Fault::Closed),
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
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
        let mut buffer = Buffer::lend();
        provider_peer.write_all(&[b'x'; BUFFER_BYTES]).unwrap();
        receive(&mut wire, &mut buffer, &watch, Duration::from_secs(9)).unwrap();
        assert!(buffer.was_filled() && watch.covers(wire.base()));
        buffer.consume(BUFFER_BYTES);
        drop(client_peer);
        assert_eq!(provider_peer.read(&mut [0]).unwrap(), 0, "the exchange was ended");
        let outcome = receive(&mut wire, &mut buffer, &watch, Duration::from_secs(9));
        assert!(matches!(outcome, Err(Fault::ClientGone)), "{outcome:?}");
    }
}
