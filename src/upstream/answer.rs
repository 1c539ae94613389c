//! A response whose head has arrived, and its body as it comes.

use std::io;
use std::ops::Range;
use std::time::Duration;

use crate::message::ResponseHead;
use crate::upstream::AnswerLength;
use crate::upstream::buffer::Buffer;
use crate::upstream::exchange::receive;
use crate::upstream::fault::Fault;
use crate::upstream::framing::Framing;
use crate::upstream::idle::Idle;
use crate::upstream::watch::Watch;
use crate::upstream::wire::Wire;

/// A response whose head has arrived. Dropping it before its end closes the upstream connection.
#[derive(Debug)]
pub struct Answer<'a> {
    /// Status and header fields.
    pub head: ResponseHead,
    /// How the body is delimited.
    pub length: AnswerLength,
    /// What was read ahead of the body, and whether it was passed on.
    ahead: Vec<u8>,
    ahead_is_passed_on: bool,
    /// In a box, since an answer goes through several hands.
    rest: Box<Rest<'a>>,
}

/// What is still to come of a body.
#[derive(Debug)]
pub(super) struct Rest<'a> {
    /// The connection; None once the body ended or broke.
    pub(super) wire: Option<Wire>,
    /// What was read of it.
    pub(super) buffer: Buffer,
    /// How the body is delimited, and how far it was read.
    pub(super) framing: Framing,
    /// Where the connection goes at the end; None where it can't be kept.
    pub(super) idle: Option<&'a Idle>,
    /// Whether nothing can follow the body unseen.
    pub(super) is_trusted: bool,
    /// Who is watched.
    pub(super) watch: Watch,
    /// The longest silence.
    pub(super) silence_max: Duration,
}

/// A piece of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// Its bytes; none at the end of a body.
    pub bytes: &'a [u8],
    /// Whether the body is known to end with it.
    pub is_last: bool,
}

impl<'a> Answer<'a> {
    pub(super) fn new(head: ResponseHead, length: AnswerLength, rest: Rest<'a>) -> Self {
        let mut rest = Box::new(rest);
        if rest.framing == Framing::Done {
            rest.end();
        }
        Self { head, length, ahead: Vec::new(), ahead_is_passed_on: false, rest }
    }

    /// The next piece of the body, as soon as there is one. An error where it breaks off.
    pub fn piece(&mut self) -> io::Result<Piece<'_>> {
        if !self.ahead.is_empty() && !self.ahead_is_passed_on {
            self.ahead_is_passed_on = true;
            return Ok(Piece { bytes: &self.ahead, is_last: self.rest.has_ended() });
        }
        Ok(self.rest.piece()?)
    }

    /// Whether a piece, or the end of the body, is there without waiting for it.
    pub fn has_more_at_hand(&self) -> bool {
        (!self.ahead.is_empty() && !self.ahead_is_passed_on)
            || self.rest.has_ended()
            || !self.rest.buffer.held().is_empty()
    }

    /// Reads up to `most_bytes` of the body ahead, as far as that takes no silence longer than
    /// `silence_max`; its pieces are yielded all the same. Returns them, and whether they are the
    /// whole body.
    pub fn read_ahead(&mut self, most_bytes: usize, silence_max: Duration) -> (&[u8], bool) {
        let usual = std::mem::replace(&mut self.rest.silence_max, silence_max);
        let mut is_whole = false;
        while self.ahead.len() <= most_bytes {
            match self.rest.piece() {
                Ok(Piece { bytes, is_last }) => {
                    self.ahead.extend_from_slice(bytes);
                    if is_last {
                        is_whole = self.ahead.len() <= most_bytes;
                        break;
                    }
                }
                Err(_) => break,
            }
        }
        self.rest.silence_max = usual;
        (&self.ahead, is_whole)
    }

    /// Whether the client was seen to have gone away.
    pub fn client_is_gone(&self) -> bool {
        self.rest.watch.client_is_gone()
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

    /// Where in the buffer the next data stand; nowhere at the end of the body.
    fn next_data(&mut self) -> Result<Range<usize>, Fault> {
        loop {
            let data = self.buffer.take_data(&mut self.framing)?;
            if self.has_ended() {
                self.end();
            }
            if !data.is_empty() || self.has_ended() {
                return Ok(data);
            }
            let Some(wire) = &mut self.wire else { return Err(Fault::Closed) };
            match receive(wire, &mut self.buffer, &self.watch, self.silence_max) {
                Ok(()) => {}
                Err(Fault::Closed) if self.framing.may_end_here() => {
                    self.framing = Framing::Done;
                    self.wire = None;
                }
                Err(fault) => return Err(fault),
            }
        }
    }

    /// The body has ended: the connection is kept, unless something followed that nobody asked for.
    fn end(&mut self) {
        let Some(wire) = self.wire.take() else { return };
        if let Some(idle) = self.idle
            && self.buffer.held().is_empty()
            && !wire.holds_bytes()
        {
            idle.put(wire, self.is_trusted);
        }
    }
}
