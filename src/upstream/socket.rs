//! TCP under `ureq`: non-blocking sockets that are waited for together with the client's.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rustix::event::PollFlags;
use socket2::{Domain, Protocol, Socket, Type};
use ureq::Error;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport,
};

use crate::clock::Deadline;
use crate::upstream::watch::{self, Ready};

/// The least time one of several addresses is given.
const ADDRESS_MIN: Duration = Duration::from_millis(250);

/// Opens TCP connections, unless an earlier part of the chain did.
#[derive(Debug)]
pub(super) struct SocketConnector;

impl<In: Transport> Connector<In> for SocketConnector {
    type Out = Either<In, SocketTransport>;

    fn connect(
        &self,
        details: &ConnectionDetails,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, Error> {
        if let Some(chained) = chained {
            return Ok(Some(Either::A(chained)));
        }
        let allowed = details.timeout.not_zero().map(|left| *left);
        let stream = connect_any(&details.addrs, allowed.unwrap_or(Duration::MAX), details)?;
        let config = details.config;
        let buffers = LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size());
        Ok(Some(Either::B(SocketTransport { stream, buffers, usable: true })))
    }
}

/// Tries the addresses in turn; each gets an even share of the time that is left.
fn connect_any(
    addresses: &[SocketAddr],
    allowed: Duration,
    details: &ConnectionDetails,
) -> Result<TcpStream, Error> {
    let deadline = Deadline::after(allowed);
    let mut last = Error::HostNotFound;
    for (index, address) in addresses.iter().enumerate() {
        let untried = u32::try_from(addresses.len() - index).unwrap_or(1);
        let share = (deadline.left() / untried).max(ADDRESS_MIN);
        match connect(*address, share) {
            Ok(Some(stream)) => return Ok(stream),
            Ok(None) => last = Error::Timeout(details.timeout.reason),
            Err(error) => last = Error::Io(error),
        }
        watch::check_client()?;
    }
    Err(last)
}

/// None where there is no connection in time.
fn connect(address: SocketAddr, allowed: Duration) -> io::Result<Option<TcpStream>> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    let begun = socket.connect(&address.into());
    let stream = TcpStream::from(socket);
    match begun {
        Ok(()) => return Ok(Some(stream)),
        Err(error)
            if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
        Err(error) => return Err(error),
    }
    match watch::wait(&stream, PollFlags::OUT, Some(allowed))? {
        Ready::TimedOut => Ok(None),
        Ready::Yes { .. } => stream.take_error()?.map_or(Ok(Some(stream)), Err),
    }
}

/// One TCP connection.
pub(super) struct SocketTransport {
    stream: TcpStream,
    buffers: LazyBuffers,
    /// False once a request was given up on it half sent.
    usable: bool,
}

impl std::fmt::Debug for SocketTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SocketTransport")
            .field("peer", &self.stream.peer_addr().ok())
            .finish_non_exhaustive()
    }
}

impl SocketTransport {
    /// Whether an answer stands in the socket's buffer already: its first bytes are there, and they
    /// are not those of an interim response (RFC 9110 §15.2).
    fn answered_early(&self) -> bool {
        let mut start = [0; 10];
        match self.stream.peek(&mut start) {
            Ok(count) => count > 0 && !start[..count].starts_with(b"HTTP/1.1 1"),
            Err(_) => false,
        }
    }

    /// The upstream answers before the request is sent whole: the rest is not sent, so that the
    /// answer (413, 401) is read rather than lost.
    fn abandon(&mut self) {
        self.usable = false;
        watch::note(|watch| watch.abandoned = true);
    }

    /// Sends what the socket takes at once; how much that was.
    fn write_some(&mut self, from: usize, to: usize) -> io::Result<usize> {
        match self.stream.write(&self.buffers.output()[from..to]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
            other => other,
        }
    }
}

impl Transport for SocketTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        watch::note(|watch| watch.written = true);
        let timeout = timeout.for_write();
        let limit = timeout.not_zero().map(|left| *left);
        let mut sent = 0;
        while sent < amount && self.usable {
            match self.write_some(sent, amount) {
                Ok(0) => {}
                Ok(count) => {
                    sent += count;
                    continue;
                }
                Err(error) => {
                    if !self.answered_early() {
                        return Err(Error::Io(error));
                    }
                    self.abandon();
                    break;
                }
            }
            match watch::wait(&self.stream, PollFlags::OUT | PollFlags::IN, limit)? {
                Ready::TimedOut => return Err(Error::Timeout(timeout.reason)),
                Ready::Yes { writable: false, .. } if self.answered_early() => self.abandon(),
                // Readable, but with something that is no answer (TLS, or an interim response):
                // the wait must be for writing alone, or it would spin.
                Ready::Yes { writable: false, .. } => {
                    if watch::wait(&self.stream, PollFlags::OUT, limit)? == Ready::TimedOut {
                        return Err(Error::Timeout(timeout.reason));
                    }
                }
                Ready::Yes { .. } => {}
            }
        }
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let timeout = timeout.for_read();
        let limit = timeout.not_zero().map(|left| *left);
        loop {
            if watch::wait(&self.stream, PollFlags::IN, limit)? == Ready::TimedOut {
                return Err(Error::Timeout(timeout.reason));
            }
            match self.stream.read(self.buffers.input_append_buf()) {
                Ok(count) => {
                    self.buffers.input_appended(count);
                    watch::note(|watch| watch.received |= count > 0 && watch.established());
                    return Ok(count > 0);
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => {}
                    // `ureq` takes a reset for the end of a body that is delimited by closing.
                    io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => {
                        return Err(Error::Io(io::Error::other("the connection was reset")));
                    }
                    _ => return Err(Error::Io(error)),
                },
            }
        }
    }

    fn is_open(&mut self) -> bool {
        // Bytes that nobody asked for, or an end, make a kept connection worthless.
        self.usable
            && self.stream.peek(&mut [0]).is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock)
    }
}

/// A streamed request body that, once the upstream has answered early, is filled up with bytes that
/// nobody sends: `ureq` must see the whole length before it reads the answer.
pub(super) struct Abandonable<'a> {
    body: &'a mut dyn Read,
    left: Option<u64>,
}

impl<'a> Abandonable<'a> {
    /// `length` is what was declared; None for chunks.
    pub(super) fn new(body: &'a mut dyn Read, length: Option<u64>) -> Self {
        Self { body, left: length }
    }
}

impl Read for Abandonable<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = match self.left {
            Some(left) => buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX)),
            None => buffer.len(),
        };
        let count = if watch::current().abandoned {
            if self.left.is_some() { room } else { 0 }
        } else {
            watch::note(|watch| watch.body_touched = true);
            self.body
                .read(&mut buffer[..room])
                .inspect_err(|_| watch::note(|watch| watch.body_failed = true))?
        };
        self.left = self.left.map(|left| left - count as u64);
        Ok(count)
    }
}
