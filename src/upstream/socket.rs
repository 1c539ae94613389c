//! A TCP connection to a provider: writes that never wait, and reads that wait for so long or not at
//! all.
//!
//! A read that waits is one system call; waiting for both ends of an exchange and then reading is two,
//! and one of them dear. So a read waits alone for a moment, in which most answers come, and only then
//! is the client watched too.

use std::io::{self, IoSlice, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, recv, sendmsg};

use crate::upstream::departure::Departure;

/// How long a read waits before the client is watched too.
pub(super) const UNWATCHED_MAX: Duration = Duration::from_millis(100);

/// The shortest wait that the system can be told of; none would be one without an end.
const PATIENCE_MIN: Duration = Duration::from_millis(1);

/// A connection.
#[derive(Debug)]
pub(super) struct Socket {
    stream: Arc<TcpStream>,
    /// Whether reads wait.
    waits: bool,
    /// How long they do; so much was said to the system.
    patience: Duration,
    /// Set while the client is watched.
    departure: Option<Departure>,
}

impl Socket {
    /// Takes a connection that stands.
    pub(super) fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(UNWATCHED_MAX))?;
        let stream = Arc::new(stream);
        Ok(Self { stream, waits: false, patience: UNWATCHED_MAX, departure: None })
    }

    /// The connection itself.
    pub(super) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// From now on reads wait for so long, or not at all.
    pub(super) fn wait(&mut self, patience: Option<Duration>) -> io::Result<()> {
        self.waits = patience.is_some();
        let Some(patience) = patience.map(|one| one.max(PATIENCE_MIN)) else { return Ok(()) };
        if patience != self.patience {
            self.stream.set_read_timeout(Some(patience))?;
            self.patience = patience;
        }
        Ok(())
    }

    /// Has the connection end when `client` leaves; whether that can be.
    pub(super) fn watch(&mut self, client: &Arc<TcpStream>) -> bool {
        if self.departure.is_none() {
            self.departure = Departure::of(client, &self.stream);
        }
        self.is_watched()
    }

    /// Whether it ends when the client leaves.
    pub(super) fn is_watched(&self) -> bool {
        self.departure.is_some()
    }

    /// No client is watched any more: the exchange has ended.
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
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        Ok(sendmsg(&self.stream, parts, &mut SendAncillaryBuffer::default(), flags)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
