//! Waits for a provider's socket while watching the client's: the exchange ends if either goes away.

use std::io;
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::platform::{DEPARTURE, DEPARTURE_BEHIND_BYTES, has_left};
use crate::upstream::fault::Fault;
use crate::upstream::socket::Socket;

/// The client of an exchange, if there is one, and whether it went away.
#[derive(Debug, Default)]
pub(super) struct Watch {
    client: Option<Arc<TcpStream>>,
    gone: AtomicBool,
}

impl Watch {
    /// Watches `client`.
    pub(super) fn new(client: Option<&Arc<TcpStream>>) -> Self {
        Self { client: client.cloned(), gone: AtomicBool::new(false) }
    }

    /// True if the client was seen to have gone away.
    pub(super) fn client_is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }

    /// Makes the exchange over `provider` end when the client leaves, without a waiting thread; returns true if that
    /// is possible. There may be no client to watch.
    pub(super) fn covers(&self, provider: &mut Socket) -> bool {
        self.client.as_ref().is_none_or(|client| provider.watch(client))
    }

    /// Waits until `socket` is ready for `interest`; returns true if it can be read, or has ended. `ClientGone` if the
    /// client goes away, `TimedOut` after `limit`.
    pub(super) fn wait(
        &self,
        socket: &TcpStream,
        interest: PollFlags,
        limit: Duration,
    ) -> Result<bool, Fault> {
        let of_socket = PollFd::from_borrowed_fd(socket.as_fd(), interest);
        let Some(client) = &self.client else {
            let mut fds = [of_socket];
            poll_all(&mut fds, limit)?;
            return is_readable(&fds[0]);
        };
        let mut fds = [of_socket, of_client(client, DEPARTURE)];
        self.poll_with(client, &mut fds, limit)?;
        is_readable(&fds[0])
    }

    /// Waits until one of `sockets` can be written or has failed, `limit` at most: the indices of those, in order.
    pub(super) fn wait_for_any(
        &self,
        sockets: &[&TcpStream],
        limit: Duration,
    ) -> Result<Vec<usize>, Fault> {
        let mut fds: Vec<_> = sockets
            .iter()
            .map(|socket| PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::OUT))
            .collect();
        match &self.client {
            Some(client) => {
                fds.push(of_client(client, DEPARTURE));
                self.poll_with(client, &mut fds, limit)?;
            }
            None => poll_all(&mut fds, limit)?,
        }
        let ready = (0..sockets.len()).filter(|index| !fds[*index].revents().is_empty());
        Ok(ready.collect())
    }

    /// Whether the client has gone away, without waiting.
    pub(super) fn check(&self) -> Result<(), Fault> {
        let Some(client) = &self.client else { return Ok(()) };
        let mut fds = [of_client(client, DEPARTURE)];
        poll_all(&mut fds, Duration::ZERO)?;
        self.note(&fds[0])
    }

    /// Polls `fds`, the last of which is for `client`. `ClientGone` if it goes away.
    fn poll_with<'a>(
        &self,
        client: &'a TcpStream,
        fds: &mut [PollFd<'a>],
        limit: Duration,
    ) -> Result<(), Fault> {
        poll_all(fds, limit)?;
        let Some((of_client, others)) = fds.split_last() else { return Ok(()) };
        self.note(of_client)?;
        // Some systems can't tell its departure alone, and it has sent its next request.
        let has_sent = !of_client.revents().is_empty();
        if has_sent && others.iter().all(|fd| fd.revents().is_empty()) {
            if let Some(last) = fds.last_mut() {
                *last = self::of_client(client, DEPARTURE_BEHIND_BYTES);
            }
            poll_all(fds, limit)?;
            return fds.last().map_or(Ok(()), |of_client| self.note(of_client));
        }
        Ok(())
    }

    /// Notes that `client`, which was polled, has gone away.
    fn note(&self, client: &PollFd<'_>) -> Result<(), Fault> {
        if has_left(client, client.revents()) {
            self.gone.store(true, Ordering::Relaxed);
            return Err(Fault::ClientGone);
        }
        Ok(())
    }
}

fn poll_all(fds: &mut [PollFd<'_>], limit: Duration) -> io::Result<()> {
    // A limit too long for the system is none.
    let limit = Timespec::try_from(limit).ok();
    loop {
        match poll(fds, limit.as_ref()) {
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// To be waited for only in order to see the client go away.
fn of_client(client: &TcpStream, departure: PollFlags) -> PollFd<'_> {
    PollFd::from_borrowed_fd(client.as_fd(), departure)
}

/// True if `socket`, which was polled, can be read or has ended; `TimedOut` if nothing happened.
fn is_readable(socket: &PollFd<'_>) -> Result<bool, Fault> {
    let events = socket.revents();
    if events.is_empty() {
        return Err(Fault::TimedOut);
    }
    let ended = PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
    Ok(events.intersects(PollFlags::IN | ended))
}
