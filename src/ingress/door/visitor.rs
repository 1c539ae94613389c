//! One connection at the door, read and written without waiting.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Deadline;
use crate::http::head::request::RequestReader;
use crate::http::message::RequestHead;
use crate::http::refusal::Refusal;
use crate::ingress::conn::{LINGER_MAX, LINGER_MAX_BYTES, LINGER_SILENCE_MAX};
use crate::ingress::guest::Offer;
use crate::ingress::live::LiveConnection;
use crate::ingress::other_protocol::{self, OtherProtocol};

/// The longest head that is awaited; a longer one is answered without having been read.
const HEAD_MAX_BYTES: usize = 16 * 1024;
/// The most unused bytes that are read in one turn.
const TURN_MAX_BYTES: usize = 256 * 1024;
/// The time for which a connection that a worker gave up stays. It can't be read to its end, because its end was set
/// to wake the worker.
const GAVE_WAY_MAX: Duration = Duration::from_millis(100);

/// A connection at the door.
pub(super) struct Visitor {
    pub(super) stream: Arc<TcpStream>,
    pub(super) stage: HandshakeStage,
    /// When the stage ends by itself.
    pub(super) due: Deadline,
}

/// The visitor's progress.
pub(super) enum HandshakeStage {
    /// Its head is awaited.
    Asking {
        /// Its place among the open connections; None if it gets no slot.
        entry: Option<LiveConnection>,
        read: Vec<u8>,
        why: &'static str,
    },
    /// A worker is to take it.
    Offered(Offer, &'static str),
    /// Its answer is being sent.
    Answering { answer: Vec<u8>, sent: usize },
    /// It has its answer. It may send so much more, for so long.
    Leaving { left_bytes: usize, until: Deadline },
}

/// The findings in a head.
pub(super) enum Readiness {
    Head(Box<RequestHead>),
    /// It is no head.
    Bad(Refusal),
    /// Not even HTTP/1.
    Other(OtherProtocol),
    /// It is longer than is looked at.
    TooLong,
    /// The rest has not come.
    Nothing,
    /// The client left.
    Gone,
}

impl Visitor {
    /// Reads what came of the head.
    pub(super) fn look(&mut self) -> Readiness {
        let HandshakeStage::Asking { read, .. } = &mut self.stage else {
            return Readiness::Nothing;
        };
        let mut buffer = [0; 4096];
        while read.len() < HEAD_MAX_BYTES {
            match (&*self.stream).read(&mut buffer) {
                Ok(0) => return Readiness::Gone,
                Ok(count) => read.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return Readiness::Gone,
            }
            // A body may follow, which is not for us.
            match find(read) {
                Readiness::Nothing => {}
                found => return found,
            }
        }
        if read.len() < HEAD_MAX_BYTES { find(read) } else { Readiness::TooLong }
    }

    /// Sends what is left of the answer; whether it is out, or can't be sent.
    pub(super) fn send(&mut self) -> bool {
        let HandshakeStage::Answering { answer, sent } = &mut self.stage else { return true };
        while *sent < answer.len() {
            match (&*self.stream).write(&answer[*sent..]) {
                Ok(count) => *sent += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(_) => return true,
            }
        }
        true
    }

    /// The visitor has its answer and must leave.
    pub(super) fn begin_to_leave(&mut self) {
        // If that fails, the client has left.
        let _ = self.stream.shutdown(Shutdown::Write);
        let until = Deadline::after(LINGER_MAX);
        self.stage = HandshakeStage::Leaving { left_bytes: LINGER_MAX_BYTES, until };
        self.due = until.min(Deadline::after(LINGER_SILENCE_MAX));
    }

    /// Stays for a moment, without being read, and leaves then.
    pub(super) fn begin_to_wait(&mut self) {
        let until = Deadline::after(GAVE_WAY_MAX);
        self.stage = HandshakeStage::Leaving { left_bytes: LINGER_MAX_BYTES, until };
        self.due = until;
    }

    /// Drops what it still sends; whether it has left, or has to.
    pub(super) fn drain(&mut self) -> bool {
        let mut buffer = [0; 16 * 1024];
        let mut taken = 0;
        let has_left = loop {
            match (&*self.stream).read(&mut buffer) {
                Ok(0) => break true,
                Ok(count) => taken += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => break error.kind() != ErrorKind::WouldBlock,
            }
            if taken >= TURN_MAX_BYTES {
                break false;
            }
        };
        let HandshakeStage::Leaving { left_bytes, until } = &mut self.stage else {
            return has_left;
        };
        *left_bytes = left_bytes.saturating_sub(taken);
        if taken > 0 {
            self.due = until.min(Deadline::after(LINGER_SILENCE_MAX));
        }
        has_left || *left_bytes == 0
    }

    /// Sets the end of a stage that may take `allowed` from now.
    pub(super) fn allow(&mut self, allowed: Duration) {
        self.due = Deadline::after(allowed);
    }
}

/// The meaning of `read`, as far as it goes.
pub(super) fn find(read: &[u8]) -> Readiness {
    match RequestReader::default().read(read) {
        Ok(Some((head, _))) => Readiness::Head(Box::new(head)),
        Ok(None) => Readiness::Nothing,
        Err(refusal) => match other_protocol::of(read) {
            Some(other) => Readiness::Other(other),
            None => Readiness::Bad(refusal),
        },
    }
}
