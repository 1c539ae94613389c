//! The connections to one provider that are kept for the next request.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Stopwatch;
use crate::upstream::wire::Wire;

/// How long an idle connection is kept; servers commonly close theirs after a minute.
const IDLE_MAX_AGE: Duration = Duration::from_secs(50);
/// Up to this age it is used without a look at it: should the provider have closed it just now, the
/// request is sent once more on a new one.
const TRUSTED_MAX_AGE: Duration = Duration::from_secs(1);

/// Idle connections, the one used last on top, so that those too many grow old and go.
#[derive(Debug)]
pub(super) struct Idle {
    kept: Mutex<Vec<Kept>>,
    max: usize,
}

#[derive(Debug)]
struct Kept {
    wire: Wire,
    since: Stopwatch,
    is_trusted: bool,
}

impl Idle {
    /// Keeps at most `max` connections.
    pub(super) fn new(max: usize) -> Self {
        Self { kept: Mutex::default(), max }
    }

    fn kept(&self) -> MutexGuard<'_, Vec<Kept>> {
        // Connections are put in and taken out whole; there is nothing half done to fear.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a connection on which an answer was read to its end. `is_trusted` says that nothing can
    /// follow that answer unseen.
    pub(super) fn put(&self, mut wire: Wire, is_trusted: bool) {
        wire.base().unwatch();
        let now = Stopwatch::start();
        let one = Kept { wire, since: now, is_trusted };
        let is_too_old = |one: &&Kept| one.since.until(now) >= IDLE_MAX_AGE;
        let mut kept = self.kept();
        let too_old = kept.iter().take_while(is_too_old).count();
        let excess = too_old.max((kept.len() + 1).saturating_sub(self.max)).min(kept.len());
        let gone: Vec<_> = kept.drain(..excess).collect();
        if kept.len() < self.max {
            kept.push(one);
        }
        drop(kept);
        // Closed without the lock.
        drop(gone);
    }

    /// A kept connection that looks alive. `must_look` has even a young one looked at: for a request
    /// that can't be sent twice.
    pub(super) fn take(&self, must_look: bool) -> Option<Wire> {
        loop {
            let one = self.kept().pop()?;
            let age = one.since.elapsed();
            let is_fine = age < IDLE_MAX_AGE
                && ((one.is_trusted && !must_look && age < TRUSTED_MAX_AGE) || one.wire.is_quiet());
            if is_fine {
                return Some(one.wire);
            }
        }
    }

    /// Closes those beyond `max`, the oldest first, so that their descriptors are free.
    pub(super) fn trim(&self, max: usize) {
        let mut kept = self.kept();
        let excess = kept.len().saturating_sub(max);
        let gone: Vec<_> = kept.drain(..excess).collect();
        drop(kept);
        // Closed without the lock.
        drop(gone);
    }

    /// How many there are.
    #[cfg(test)]
    fn count(&self) -> usize {
        self.kept().len()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::upstream::socket::Socket;

    /// A connection, and its other end.
    fn pair() -> (Wire, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (Wire::Plain(Socket::new(stream).unwrap()), listener.accept().unwrap().0)
    }

    fn port(wire: &Wire) -> u16 {
        wire.socket().local_addr().unwrap().port()
    }

    #[test]
    fn the_last_one_is_used_first_and_there_are_no_more_than_allowed() {
        let idle = Idle::new(2);
        let (wires, _peers): (Vec<_>, Vec<_>) = (0..3).map(|_| pair()).unzip();
        let ports: Vec<_> = wires.iter().map(port).collect();
        for (index, wire) in wires.into_iter().enumerate() {
            idle.put(wire, true);
            assert_eq!(idle.count(), (index + 1).min(2));
        }
        assert_eq!(idle.take(true).map(|wire| port(&wire)), Some(ports[2]));
        assert_eq!(idle.take(true).map(|wire| port(&wire)), Some(ports[1]));
        assert!(idle.take(true).is_none(), "the oldest made room");
        let none = Idle::new(0);
        none.put(pair().0, true);
        assert_eq!(none.count(), 0);
    }

    #[test]
    fn what_ended_or_has_something_to_say_is_not_used_where_it_is_looked_at() {
        for (is_trusted, must_look) in [(true, true), (false, false)] {
            let idle = Idle::new(9);
            let (ended, peer) = pair();
            drop(peer);
            let (talking, mut peer) = pair();
            peer.write_all(b"HTTP/1.1 408 X\r\n").unwrap();
            let (quiet, _peer) = pair();
            let quiet_port = port(&quiet);
            // Loopback: what was sent or closed is there for the other end before the call returns.
            for wire in [quiet, ended, talking] {
                idle.put(wire, is_trusted);
            }
            assert_eq!(idle.take(must_look).map(|wire| port(&wire)), Some(quiet_port));
            assert_eq!(idle.count(), 0, "the others were closed");
        }
        let idle = Idle::new(9);
        idle.put(pair().0, true);
        assert!(idle.take(false).is_some(), "a young one is trusted");
        for _ in 0..3 {
            idle.put(pair().0, true);
        }
        idle.trim(3);
        assert_eq!(idle.count(), 3);
        idle.trim(1);
        assert_eq!(idle.count(), 1);
        idle.trim(0);
        assert!(idle.take(false).is_none());
    }
}
