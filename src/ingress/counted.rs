//! A client's socket, whose bytes are counted.

use std::io::{self, IoSlice, Read, Write};
use std::net::TcpStream;

use crate::ingress::tally::ByteCounts;

/// Reads; the socket's own limit of silence shows as `TimedOut`.
pub(super) struct Patient<'a> {
    pub(super) stream: &'a TcpStream,
    pub(super) bytes: &'a ByteCounts,
}

/// Writes.
pub(super) struct Output<'a> {
    pub(super) stream: &'a TcpStream,
    pub(super) bytes: &'a ByteCounts,
}

impl Read for Patient<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match (&mut &*self.stream).read(buffer) {
                Ok(count) => {
                    self.bytes.add_received(count);
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                Err(error) => return Err(error),
            }
        }
    }
}

impl Output<'_> {
    fn count(&self, sent: io::Result<usize>) -> io::Result<usize> {
        sent.inspect(|count| self.bytes.add_sent(*count))
    }
}

impl Write for Output<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.count((&mut &*self.stream).write(bytes))
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.count((&mut &*self.stream).write_vectored(parts))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
