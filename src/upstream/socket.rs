//! A TCP connection to a provider: writes that never wait, and reads that wait for a limited time or not at all.
//!
//! A read that waits is one system call; waiting for both ends of an exchange and then reading is two, and one of
//! them is expensive. So a read waits alone for a moment, in which most answers come, and only afterwards is the
//! client watched too.

use std::io::{self, IoSlice, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
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
    /// The error that ended it. The system tells it once, perhaps to a write; reads after it would find an end in order.
    broke: Option<Errno>,
}

impl Socket {
    /// Takes an established connection.
    pub(super) fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(UNWATCHED_MAX))?;
        let stream = Arc::new(stream);
        let (waits, patience) = (false, UNWATCHED_MAX);
        Ok(Self { stream, waits, patience, departure: None, broke: None })
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

    /// Keeps the error of a call if it ended the connection. `PIPE` says that it can't be written to any more; the other
    /// end may have ended in order.
    fn note(&mut self, error: Errno) -> io::Error {
        if !matches!(error, Errno::AGAIN | Errno::INTR | Errno::PIPE) {
            self.broke = Some(error);
        }
        error.into()
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let flags = if self.waits { RecvFlags::empty() } else { RecvFlags::DONTWAIT };
        let count = recv(&self.stream, buffer, flags).map_err(|error| self.note(error))?.0;
        match self.broke {
            Some(error) if count == 0 => Err(error.into()),
            _ => Ok(count),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let sent = sendmsg(&self.stream, parts, &mut SendAncillaryBuffer::default(), SEND);
        sent.map_err(|error| self.note(error))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Shutdown, TcpListener};

    use rustix::event::PollFlags;
    use socket2::SockRef;

    use super::*;
    use crate::liveness::has_event;

    fn pair() -> (Socket, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (Socket::new(near).unwrap(), listener.accept().unwrap().0)
    }

    /// Drops `far` with a reset, and waits until it has come.
    fn reset(near: &Socket, far: TcpStream) {
        SockRef::from(&far).set_linger(Some(Duration::ZERO)).unwrap();
        drop(far);
        while !has_event(&**near.stream(), PollFlags::HUP) {
            std::thread::yield_now();
        }
    }

    /// The reads after a reset: the bytes before it, and twice what follows.
    fn reads(near: &mut Socket) -> [Result<usize, io::ErrorKind>; 3] {
        [(); 3].map(|()| near.read(&mut [0; 9]).map_err(|error| error.kind()))
    }

    #[test]
    fn a_reset_that_was_told_once_did_not_stay_one() {
        const RESET: Result<usize, io::ErrorKind> = Err(io::ErrorKind::ConnectionReset);
        for is_told_to_write in [false, true] {
            let (mut near, mut far) = pair();
            far.write_all(b"ab").unwrap();
            reset(&near, far);
            if is_told_to_write {
                assert_eq!(near.write(b"x").map_err(|error| error.kind()), RESET);
            }
            assert_eq!(reads(&mut near), [Ok(2), RESET, RESET], "{is_told_to_write}");
        }
    }

    #[test]
    fn an_end_in_order_stays_one_whatever_a_later_write_meets() {
        let (mut near, mut far) = pair();
        far.write_all(b"ab").unwrap();
        far.shutdown(Shutdown::Write).unwrap();
        // Comes after that end.
        reset(&near, far);
        assert!(near.write(b"x").is_err());
        assert_eq!(reads(&mut near), [Ok(2), Ok(0), Ok(0)]);
    }
}
