//! Tells whether the other end of a socket has left, by a look at what can be read.

use std::os::fd::AsFd;

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

/// The events to poll for in order to see a socket's other end leave; see [`has_left`].
pub(crate) const DEPARTURE: PollFlags = PollFlags::IN.union(PollFlags::HUP);

/// The same for a socket of which bytes wait to be read, and would be told again and again. The end behind them is
/// seen as far as the system tells it by itself.
pub(crate) const DEPARTURE_BEHIND_BYTES: PollFlags = PollFlags::HUP;

/// True if `events`, which were polled for with [`DEPARTURE`], say that the socket's other end has left.
pub(crate) fn has_left(socket: impl AsFd, events: PollFlags) -> bool {
    if events.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL) {
        return true;
    }
    let look = || recv(&socket, &mut [0_u8], RecvFlags::DONTWAIT | RecvFlags::PEEK);
    events.contains(PollFlags::IN)
        && match look() {
            Ok((_, count)) => count == 0,
            Err(error) => !matches!(error, Errno::AGAIN | Errno::INTR),
        }
}
