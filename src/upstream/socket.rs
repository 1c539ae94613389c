//! A TCP connection to a provider: writes that never wait, and reads that wait for a limited time or not at all.
//!
//! A read that waits is one system call; waiting for both ends of an exchange and then reading is two, and one of
//! them is expensive. So a read waits alone for a moment, in which most answers come, and only afterwards is the
//! client watched too.

use std::io::{self, IoSlice, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{RecvFlags, SendAncillaryBuffer, recv, sendmsg};

use crate::platform::SEND;
use crate::upstream::departure::Departure;

/// The wait of a read before the client is watched too.
pub(super) const UNWATCHED_MAX: Duration = Duration::from_millis(100);

/// The shortest wait that the system accepts; zero would mean one without an end.
const PATIENCE_MIN: Duration = Duration::from_millis(1);

/// A connection.
#[derive(Debug)]
pub(super) struct Socket {
    stream: Arc<TcpStream>,
    /// True if reads wait.
    waits: bool,
    /// The length of their wait, as set in the system.
    patience: Duration,
    /// Set while the client is watched.
    departure: Option<Departure>,
}

impl Socket {
    /// Takes an established connection.
    pub(super) fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(UNWATCHED_MAX))?;
        let stream = Arc::new(stream);
        Ok(Self { stream, waits: false, patience: UNWATCHED_MAX, departure: None })
    }

    /// The connection itself.
    pub(super) fn stream(&self) -> &Arc<TcpStream> {
        &self.stream
    }

    /// Sets the wait of reads from now on; None for no wait.
    pub(super) fn wait(&mut self, patience: Option<Duration>) -> io::Result<()> {
        self.waits = patience.is_some();
        let Some(patience) = patience.map(|one| one.max(PATIENCE_MIN)) else { return Ok(()) };
        if patience != self.patience {
            self.stream.set_read_timeout(Some(patience))?;
            self.patience = patience;
        }
        Ok(())
    }

    /// Makes the connection end when `client` leaves; returns true if that is possible.
    pub(super) fn watch(&mut self, client: &Arc<TcpStream>) -> bool {
        if self.departure.is_none() {
            self.departure = Departure::of(client, &self.stream);
        }
        self.is_watched()
    }

    /// True if it ends when the client leaves.
    pub(super) fn is_watched(&self) -> bool {
        self.departure.is_some()
    }

    /// Stops watching the client, because the exchange has ended.
    pub(super) fn unwatch(&mut self) {
        self.departure = None;
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let flags = if self.waits { RecvFlags::empty() } else { RecvFlags::DONTWAIT };
        Ok(recv(&self.stream, buffer, flags)?.0)
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(sendmsg(&self.stream, parts, &mut SendAncillaryBuffer::default(), SEND)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
