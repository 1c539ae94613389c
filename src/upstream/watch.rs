//! What is known about the exchange that runs on this thread, shared with the sockets under `ureq`.
//!
//! `ureq` calls its transports on the thread that made the request, but hands them nothing that
//! belongs to it; a thread-local does.

use std::cell::RefCell;
use std::io;
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use ureq::Error;
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};

/// How often a socket that can't be polled together with the client's is given up for a look at it.
const SLICE: Duration = Duration::from_millis(250);

/// What is known about one attempt.
#[derive(Clone, Debug, Default)]
pub(super) struct Watch {
    client: Option<Arc<TcpStream>>,
    /// The longest silence, once the head has arrived; before that the exchange's own timeouts count.
    pub(super) idle: Option<Duration>,
    /// A new connection is being made.
    pub(super) connecting: bool,
    /// It was made.
    pub(super) connected: bool,
    /// A request began to be written.
    pub(super) written: bool,
    /// A byte of a response came.
    pub(super) received: bool,
    /// The client was seen to have gone away.
    pub(super) client_gone: bool,
    /// The response came before the request was sent whole; the rest of it is not sent.
    pub(super) abandoned: bool,
    /// The streamed request body was read from.
    pub(super) body_touched: bool,
    /// The streamed request body could not be read.
    pub(super) body_failed: bool,
}

impl Watch {
    /// Whether a connection stands: a new one, or a kept one.
    pub(super) fn established(&self) -> bool {
        self.connected || self.reused()
    }

    /// Whether a kept connection is used.
    pub(super) fn reused(&self) -> bool {
        self.written && !self.connecting
    }
}

thread_local! {
    static CURRENT: RefCell<Option<Watch>> = const { RefCell::new(None) };
}

/// Changes what is known about the exchange on this thread; nothing where there is none.
pub(super) fn note(change: impl FnOnce(&mut Watch)) {
    CURRENT.with_borrow_mut(|current| {
        if let Some(watch) = current {
            change(watch);
        }
    });
}

/// What is known about the exchange on this thread.
pub(super) fn current() -> Watch {
    CURRENT.with_borrow(Clone::clone).unwrap_or_default()
}

/// Marks the time during which this thread works on one exchange.
#[derive(Debug)]
pub(super) struct Exchange {
    idle: Duration,
}

impl Exchange {
    /// Begins an exchange on this thread for `client`.
    pub(super) fn begin(client: Option<Arc<TcpStream>>, idle: Duration) -> Self {
        CURRENT.set(Some(Watch { client, ..Watch::default() }));
        Self { idle }
    }

    /// From here on, silence is limited.
    pub(super) fn head_arrived(&self) {
        note(|watch| watch.idle = Some(self.idle));
    }

    /// What is known.
    #[expect(
        clippy::unused_self,
        reason = "there is an exchange to ask about only while this lives"
    )]
    pub(super) fn watch(&self) -> Watch {
        current()
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        CURRENT.set(None);
    }
}

/// What a wait for a socket came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ready {
    /// The socket is ready; whether it can be read, written.
    Yes { readable: bool, writable: bool },
    /// Nothing happened in time.
    TimedOut,
}

/// Waits until `socket` is ready for `interest`, the client goes away (an error), or the time is
/// over: `limit`, or the longest silence where that is shorter.
pub(super) fn wait(
    socket: &TcpStream,
    interest: PollFlags,
    limit: Option<Duration>,
) -> io::Result<Ready> {
    let watch = current();
    let limit = match (limit, watch.idle) {
        (Some(limit), Some(idle)) => Some(limit.min(idle)),
        (limit, idle) => limit.or(idle),
    };
    let gone = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
    let timeout = limit.and_then(|limit| Timespec::try_from(limit).ok());
    let mut fds = vec![PollFd::from_borrowed_fd(socket.as_fd(), interest)];
    if let Some(client) = &watch.client {
        fds.push(PollFd::from_borrowed_fd(client.as_fd(), PollFlags::RDHUP));
    }
    let ready = loop {
        match poll(&mut fds, timeout.as_ref()) {
            Ok(ready) => break ready,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    };
    if fds.get(1).is_some_and(|client| client.revents().intersects(gone)) {
        note(|watch| watch.client_gone = true);
        return Err(client_gone());
    }
    if ready == 0 {
        return Ok(Ready::TimedOut);
    }
    let events = fds[0].revents();
    let broken = events.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL);
    Ok(Ready::Yes {
        readable: broken || events.intersects(PollFlags::IN | PollFlags::RDHUP),
        writable: broken || events.intersects(PollFlags::OUT),
    })
}

/// Not one of the kinds that `ureq` takes for the end of a body.
fn client_gone() -> io::Error {
    io::Error::other("the client went away")
}

/// Whether the client has gone away, without waiting.
pub(super) fn check_client() -> Result<(), Error> {
    let Some(client) = current().client else { return Ok(()) };
    let mut fds = [PollFd::from_borrowed_fd(client.as_fd(), PollFlags::RDHUP)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    if poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0) {
        note(|watch| watch.client_gone = true);
        return Err(Error::Io(client_gone()));
    }
    Ok(())
}

/// First of the chain: notes that a new connection is being made.
#[derive(Debug)]
pub(super) struct Connecting;

impl<In: Transport> Connector<In> for Connecting {
    type Out = In;

    fn connect(&self, _: &ConnectionDetails, chained: Option<In>) -> Result<Option<In>, Error> {
        note(|watch| watch.connecting = true);
        Ok(chained)
    }
}

/// Last of the chain: notes that it was made.
#[derive(Debug)]
pub(super) struct Connected;

impl<In: Transport> Connector<In> for Connected {
    type Out = In;

    fn connect(&self, _: &ConnectionDetails, chained: Option<In>) -> Result<Option<In>, Error> {
        note(|watch| watch.connected = chained.is_some());
        Ok(chained)
    }
}

/// Wraps a connection that is not ours (SOCKS), so that the client is looked at while it waits.
#[derive(Debug)]
pub(super) struct Sliced;

impl<In: Transport> Connector<In> for Sliced {
    type Out = SlicedTransport<In>;

    fn connect(
        &self,
        _: &ConnectionDetails,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, Error> {
        Ok(chained.map(SlicedTransport))
    }
}

/// A connection whose waits are cut into slices.
#[derive(Debug)]
pub(super) struct SlicedTransport<T>(T);

impl<T: Transport> Transport for SlicedTransport<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.0.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        note(|watch| watch.written = true);
        self.0.transmit_output(amount, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let idle = current().idle;
        let mut left = timeout.for_read();
        if let Some(idle) = idle {
            left.after = left.after.min(idle.into());
        }
        loop {
            check_client()?;
            let slice = left.after.min(SLICE.into());
            match self.0.await_input(NextTimeout { after: slice, ..left }) {
                Err(Error::Timeout(reason)) => {
                    left.after = match left.after {
                        ureq::unversioned::transport::time::Duration::Exact(left) => {
                            left.saturating_sub(SLICE).into()
                        }
                        unbounded @ ureq::unversioned::transport::time::Duration::NotHappening => {
                            unbounded
                        }
                    };
                    if left.after.is_zero() {
                        return Err(Error::Timeout(reason));
                    }
                }
                Ok(received) => {
                    note(|watch| watch.received |= received && watch.established());
                    return Ok(received);
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn is_open(&mut self) -> bool {
        self.0.is_open()
    }

    fn is_tls(&self) -> bool {
        self.0.is_tls()
    }
}
