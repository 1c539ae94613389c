//! A conversation in turns over a connection, with one deadline: with a proxy, or for a token request.

use std::io::{Read, Write};

use rustix::event::PollFlags;

use crate::clock::Deadline;
use crate::upstream::fault::Fault;
use crate::upstream::watch::Watch;
use crate::upstream::wire::{Wire, is_not_now};

/// A connection, with the deadline of the whole conversation.
pub(super) struct Talk<'a> {
    pub(super) wire: &'a mut Wire,
    pub(super) watch: &'a Watch,
    pub(super) deadline: Deadline,
}

impl Talk<'_> {
    /// Sends all of `bytes`.
    pub(super) fn say(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.wire.write(rest) {
                Ok(count) => rest = &rest[count..],
                Err(error) if is_not_now(&error) => self.wait(PollFlags::OUT)?,
                Err(error) => return Err(error.into()),
            }
        }
        while !self.wire.send_held()? {
            self.wait(PollFlags::OUT)?;
        }
        Ok(())
    }

    /// Receives this many bytes.
    pub(super) fn read_exact<const COUNT: usize>(&mut self) -> Result<[u8; COUNT], Fault> {
        let mut bytes = [0; COUNT];
        let mut count = 0;
        while count < COUNT {
            match self.hear_some(&mut bytes[count..])? {
                0 => return Err(Fault::Closed),
                more => count += more,
            }
        }
        Ok(bytes)
    }

    /// Receives the next bytes; returns their number, 0 at the end.
    pub(super) fn hear_some(&mut self, room: &mut [u8]) -> Result<usize, Fault> {
        loop {
            match self.wire.read(room) {
                Ok(count) => return Ok(count),
                Err(error) if is_not_now(&error) => self.wait(PollFlags::IN)?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn wait(&self, interest: PollFlags) -> Result<(), Fault> {
        self.watch.wait(self.wire.socket(), interest, self.deadline.left()).map(drop)
    }
}
