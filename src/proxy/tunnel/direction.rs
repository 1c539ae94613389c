//! One direction of a tunnel: from its source to its sink, without waiting for either.

use std::io;

use crate::http::buffer::{BULK_BYTES, Buffer};
use crate::http::end::{End, is_not_now};
use crate::http::websocket::frames::Frames;

/// The reads in one turn, so that a fast source does not keep the other direction waiting.
const READS_MAX: usize = 16;

/// A direction. Its buffer is borrowed from the thread while bytes are in it.
#[derive(Debug)]
pub(super) struct Direction {
    buffer: Buffer,
    /// The frames that passed.
    pub(super) frames: Frames,
    /// The bytes that passed, without a close frame of evertoken's own.
    pub(super) passed_bytes: u64,
    stage: Stage,
    has_source_ended: bool,
    /// The sink takes no more at the moment.
    is_sink_full: bool,
    /// The close frame to be sent at the end of the frame that has begun.
    last_words: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Bytes pass.
    Passing,
    /// They pass up to the end of the frame that has begun.
    Leaving,
    /// A close frame of evertoken's own is sent.
    LastWords,
    /// The sink is about to be told that nothing more comes.
    Ending,
    /// Nothing more goes to the sink. What still comes is read and dropped.
    Over,
}

/// A connection that broke.
#[derive(Debug)]
pub(super) enum Lost {
    /// The one from which bytes come.
    Source(io::Error),
    /// The one to which they go.
    Sink(io::Error),
}

/// The events for which a direction waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wants {
    /// That its source can be read.
    pub(super) source: bool,
    /// That its sink can be written.
    pub(super) sink: bool,
}

impl Direction {
    /// A direction that begins with the bytes in `early`.
    pub(super) fn after(early: Buffer) -> Self {
        Self {
            buffer: early,
            frames: Frames::default(),
            passed_bytes: 0,
            stage: Stage::Passing,
            has_source_ended: false,
            is_sink_full: false,
            last_words: Vec::new(),
        }
    }

    /// True if nothing more goes to the sink.
    pub(super) fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }

    /// True if nothing more comes from the source.
    pub(super) fn has_source_ended(&self) -> bool {
        self.has_source_ended
    }

    /// The events for which it waits.
    pub(super) fn wants(&self) -> Wants {
        let (is_empty, is_over) = (self.buffer.held().is_empty(), self.is_over());
        // TLS takes all, and holds back what its socket does not take.
        let has_room = is_empty && !self.is_sink_full;
        let takes = is_over || matches!(self.stage, Stage::Passing | Stage::Leaving) && has_room;
        Wants {
            source: takes && !self.has_source_ended,
            sink: !is_over && (self.is_sink_full || !is_empty || self.stage == Stage::Ending),
        }
    }

    /// Lets it end with `close_frame` after the frame that has begun, unless its source has closed or ended already.
    pub(super) fn take_leave(&mut self, close_frame: Vec<u8>) {
        if self.stage == Stage::Passing {
            self.stage = Stage::Leaving;
            self.last_words = close_frame;
        }
    }

    /// The source is gone; the bytes that came from it still pass.
    pub(super) fn lose_source(&mut self) {
        self.has_source_ended = true;
    }

    /// The sink is gone.
    pub(super) fn lose_sink(&mut self) {
        self.stage = Stage::Over;
        self.drop_held();
    }

    /// Passes on what is there, until the sink takes no more or the source has no more. It is read only if `may_read`.
    pub(super) fn step(
        &mut self,
        source: &mut dyn End,
        sink: &mut dyn End,
        mut may_read: bool,
    ) -> Result<(), Lost> {
        let mut reads = 0;
        loop {
            if !self.send(sink)? || !may_read || self.has_source_ended || reads == READS_MAX {
                break;
            }
            let outcome = self.read(source);
            if outcome.is_err() {
                // There may be no later turn: the connection that broke says nothing more.
                let _ = self.send(sink);
            }
            may_read = outcome?;
            reads += 1;
        }
        // Idle tunnels are many.
        self.buffer.give_back();
        Ok(())
    }

    /// Reads once; returns true if there is probably more.
    fn read(&mut self, source: &mut dyn End) -> Result<bool, Lost> {
        match self.buffer.fill(&mut &mut *source) {
            Ok(0) => self.has_source_ended = true,
            Ok(_) => return Ok(source.holds_bytes() || self.buffer.was_filled()),
            Err(error) if is_not_now(&error) => {}
            Err(error) => {
                self.has_source_ended = true;
                return Err(Lost::Source(error));
            }
        }
        Ok(self.has_source_ended)
    }

    /// Sends what is held, and what the stage asks for after it; returns false if the sink takes no more.
    fn send(&mut self, sink: &mut dyn End) -> Result<bool, Lost> {
        if self.is_over() {
            self.drop_held();
            return Ok(true);
        }
        let sent = self.try_send(sink);
        if sent.is_err() {
            self.lose_sink();
        }
        let is_sent = sent.map_err(Lost::Sink)?;
        self.is_sink_full = !is_sent;
        Ok(is_sent)
    }

    fn try_send(&mut self, sink: &mut dyn End) -> io::Result<bool> {
        loop {
            self.leave_at_boundary();
            let held = self.buffer.held();
            let due = match self.stage {
                Stage::Leaving => self.frames.left_of_frame(held),
                _ => held.len(),
            };
            if due == 0 {
                break;
            }
            match sink.write(&held[..due]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.frames.pass(&held[..count]);
                    if self.stage != Stage::LastWords {
                        self.passed_bytes += count as u64;
                    }
                    self.buffer.consume(count);
                }
                Err(error) if is_not_now(&error) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        if !sink.send_held()? {
            return Ok(false);
        }
        let is_last = match self.stage {
            Stage::Passing | Stage::Leaving => self.has_source_ended,
            Stage::LastWords | Stage::Ending => true,
            Stage::Over => false,
        };
        if is_last {
            self.stage = Stage::Ending;
            if !sink.end_sending()? {
                return Ok(false);
            }
            self.stage = Stage::Over;
        }
        Ok(true)
    }

    /// Puts the close frame in between two frames, unless the source has sent one.
    fn leave_at_boundary(&mut self) {
        if self.stage != Stage::Leaving || !self.frames.are_at_boundary() {
            return;
        }
        self.drop_held();
        if self.frames.have_closed() {
            self.stage = Stage::Ending;
        } else {
            self.stage = Stage::LastWords;
            self.buffer = Buffer::holding(std::mem::take(&mut self.last_words), BULK_BYTES);
        }
    }

    fn drop_held(&mut self) {
        self.buffer.consume(self.buffer.held().len());
    }
}

#[cfg(test)]
mod tests;
