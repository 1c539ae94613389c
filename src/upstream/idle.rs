//! The connections to one provider that are kept for the next request.
//!
//! Moving data between CPU caches is slow: sockets, and what has just been read and written, have
//! to come out of the other's caches, and there may be a thread to wake on it. So a connection lies with
//! the processor on which its last answer came in, which the network card chose, or on this machine the one who
//! answered. A worker takes that which was used last of those of its own processor: of many connections few
//! are then in use.

use std::iter::from_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread::available_parallelism;
use std::time::Duration;

use log::debug;

use crate::clock::Stopwatch;
use crate::platform::{current_processor, incoming_processor};
use crate::upstream::surroundings::Surroundings;
use crate::upstream::wire::Wire;

mod per_cpu;
mod sweeper;

use per_cpu::{IdleConnection, PerCpu};
use sweeper::Swept;

/// The longest time that an idle connection is kept; servers commonly close theirs after a minute.
const IDLE_MAX_AGE: Duration = Duration::from_secs(50);
/// The idle time after which a connection's next use checks that this machine's address is still the same. Under load
/// no connection is idle for so long, so the check costs a busy proxy nothing.
const UNSEEN_MAX: Duration = Duration::from_secs(1);
/// The most places for processors; further processors share them.
const PLACES_MAX: usize = 16;

/// The number of places. Reading it takes some files, so it is read once for all providers.
static PLACES: LazyLock<usize> =
    LazyLock::new(|| available_parallelism().map_or(1, usize::from).min(PLACES_MAX));

/// Idle connections.
#[derive(Debug)]
pub(super) struct Idle {
    /// One for each processor: at least one, at most [`PLACES_MAX`].
    places: Box<[PerCpu]>,
    max: usize,
    /// True while the sweeper looks after them.
    is_swept: AtomicBool,
    surroundings: Surroundings,
}

impl Idle {
    /// Keeps at most `max` connections, and more up to the next sweep if they lie in several places. There are
    /// hardly ever more connections than requests were in flight at once, because a new one is made only if none is
    /// idle.
    pub(super) fn new(max: usize) -> Self {
        Self::with_places(*PLACES, max, Surroundings::of_machine())
    }

    fn with_places(places: usize, max: usize, surroundings: Surroundings) -> Self {
        let places = (0..places).map(|_| PerCpu::default()).collect();
        Self { places, max, is_swept: AtomicBool::new(false), surroundings }
    }

    /// Keeps a connection on which an answer was read to its end.
    pub(super) fn put(self: &Arc<Self>, wire: Wire) {
        let processor = incoming_processor(wire.socket());
        self.put_at(processor, wire, Stopwatch::start());
        if self.max > 0 && !self.is_swept.load(Ordering::Relaxed) {
            sweeper::begin(self.clone());
        }
    }

    fn put_at(&self, processor: usize, mut wire: Wire, now: Stopwatch) {
        wire.base().unwatch();
        let place = &self.places[processor % self.places.len()];
        let count = place.put(IdleConnection { wire, since: now });
        if count > self.max {
            self.tidy(self.max, now);
        }
    }

    /// A kept connection that looks alive. A connection that has ended, or received unsolicited bytes, is closed,
    /// because those bytes would be taken for the next answer. After a suspend or a change of network, none is left.
    pub(super) fn take(&self) -> Option<Wire> {
        self.take_at(current_processor(), Stopwatch::start())
    }

    // Not inlined: keeps worker stacks small.
    #[inline(never)]
    fn take_at(&self, processor: usize, now: Stopwatch) -> Option<Wire> {
        if self.surroundings.have_slept(now) {
            debug!("A clock jumped, as after a suspend; kept connections are closed");
            self.tidy(0, now);
        }
        let (before, from) = self.places.split_at(processor % self.places.len());
        let mut all = from.iter().chain(before).flat_map(|place| from_fn(|| place.take()));
        all.find(|one| self.is_fine(one, now)).map(|one| one.wire)
    }

    fn is_fine(&self, one: &IdleConnection, now: Stopwatch) -> bool {
        let age = one.since.until(now);
        if age >= IDLE_MAX_AGE || !one.wire.is_quiet() {
            return false;
        }
        if age >= UNSEEN_MAX && self.surroundings.have_moved(one.wire.socket()) {
            debug!("The local address has changed; kept connections are closed");
            self.tidy(0, now);
            return false;
        }
        true
    }

    /// Closes those beyond `max`, the oldest first, to free their descriptors.
    pub(super) fn trim(&self, max: usize) {
        self.tidy(max, Stopwatch::start());
    }

    /// Closes the ones that are too old, and the oldest beyond `max`.
    fn tidy(&self, max: usize, now: Stopwatch) {
        loop {
            let is_excess = self.count() > max;
            let goes = |one: &IdleConnection| is_excess || one.since.until(now) >= IDLE_MAX_AGE;
            let oldest = self.places.iter().max_by_key(|place| place.age(now));
            // Closed without the lock.
            if oldest.and_then(|place| place.take_oldest_if(goes)).is_none() {
                return;
            }
        }
    }

    /// The number of connections.
    fn count(&self) -> usize {
        self.places.iter().map(PerCpu::len).sum()
    }
}

impl Swept for Idle {
    fn is_swept(&self) -> &AtomicBool {
        &self.is_swept
    }

    fn sweep(&self, now: Stopwatch) {
        self.tidy(self.max, now);
    }

    fn is_empty(&self) -> bool {
        self.count() == 0
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::upstream::socket::Socket;

    const NANOSECOND: Duration = Duration::from_nanos(1);
    const SECOND: Duration = Duration::from_secs(1);

    /// A connection, and its other end.
    fn pair() -> (Wire, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (Wire::Plain(Socket::new(stream).unwrap()), listener.accept().unwrap().0)
    }

    /// A machine that keeps its address and its clocks.
    fn still(places: usize, max: usize) -> Idle {
        Idle::with_places(places, max, Surroundings::jumping(0))
    }

    fn pairs(count: usize) -> (Vec<Wire>, Vec<TcpStream>) {
        (0..count).map(|_| pair()).unzip()
    }

    fn port(wire: &Wire) -> u16 {
        wire.socket().local_addr().unwrap().port()
    }

    #[test]
    fn the_last_one_is_used_first_and_there_are_no_more_than_allowed() {
        let idle = still(1, 2);
        let (wires, _peers) = pairs(3);
        let ports: Vec<_> = wires.iter().map(port).collect();
        for (index, wire) in wires.into_iter().enumerate() {
            idle.put_at(0, wire, Stopwatch::start());
            assert_eq!(idle.count(), (index + 1).min(2));
        }
        let take = || idle.take_at(0, Stopwatch::start()).map(|wire| port(&wire));
        assert_eq!([take(), take()], [ports[2], ports[1]].map(Some));
        assert_eq!(take(), None, "the oldest made room");
        let none = still(1, 0);
        none.put_at(0, pair().0, Stopwatch::start());
        assert_eq!(none.count(), 0);
    }

    #[test]
    fn a_worker_gets_what_was_used_last_of_its_processor_and_then_of_the_others() {
        let idle = still(3, 99);
        let now = Stopwatch::start();
        let (wires, _peers) = pairs(5);
        let ports: Vec<_> = wires.iter().map(port).collect();
        // Processor 4 shares the place of 1.
        for (wire, processor) in wires.into_iter().zip([0, 1, 4, 2, 0]) {
            idle.put_at(processor, wire, now);
        }
        let take = |processor| idle.take_at(processor, now).map(|wire| port(&wire));
        assert_eq!(take(1), Some(ports[2]), "the last one");
        assert_eq!(take(4), Some(ports[1]));
        assert_eq!(take(1), Some(ports[3]), "another's rather than a new connection");
        assert_eq!(take(1), Some(ports[4]));
        assert_eq!(take(2), Some(ports[0]));
        assert_eq!(take(0), None);
    }

    #[test]
    fn a_connection_is_kept_up_to_its_age() {
        for (age, is_used) in
            [(IDLE_MAX_AGE.saturating_sub(NANOSECOND), true), (IDLE_MAX_AGE, false)]
        {
            let (idle, since) = (still(1, 9), Stopwatch::start());
            let (wire, _peer) = pair();
            idle.put_at(0, wire, since);
            assert_eq!(idle.take_at(0, since.later(age)).is_some(), is_used, "{age:?}");
        }
    }

    #[test]
    fn the_too_old_go_from_every_place_and_of_the_others_the_oldest() {
        let start = Stopwatch::start();
        for (after, max, left) in [
            (IDLE_MAX_AGE.saturating_sub(NANOSECOND), 9, 3),
            (IDLE_MAX_AGE, 9, 2),
            (IDLE_MAX_AGE + SECOND, 9, 0),
            (Duration::from_secs(2), 3, 3),
            (Duration::from_secs(2), 2, 2),
            (Duration::from_secs(2), 0, 0),
        ] {
            let idle = still(2, 99);
            let (wires, _peers) = pairs(3);
            let oldest = port(&wires[0]);
            for ((wire, age), processor) in wires.into_iter().zip([0, 1, 1]).zip([1, 0, 1]) {
                idle.put_at(processor, wire, start.later(SECOND * age));
            }
            idle.tidy(max, start.later(after));
            assert_eq!(idle.count(), left);
            let kept = idle.places.iter().flat_map(|place| from_fn(|| place.take()));
            let ports: Vec<_> = kept.map(|one| port(&one.wire)).collect();
            assert_eq!(ports.contains(&oldest), left == 3);
        }
    }

    /// Behind nginx with `keepalive_timeout 2s`, 13 connections stayed in `CLOSE_WAIT` until the next request.
    #[test]
    fn those_that_grow_old_while_no_request_comes_are_closed() {
        let (idle, since) = (still(2, 9), Stopwatch::start());
        let (wires, _peers) = pairs(2);
        for (wire, age) in wires.into_iter().zip([0, 1]) {
            idle.put_at(0, wire, since.later(SECOND * age));
        }
        for (after, left) in [
            (IDLE_MAX_AGE.saturating_sub(NANOSECOND), 2),
            (IDLE_MAX_AGE, 1),
            (IDLE_MAX_AGE + SECOND, 0),
        ] {
            idle.sweep(since.later(after));
            assert_eq!((idle.count(), idle.is_empty()), (left, left == 0), "{after:?}");
        }
    }

    #[test]
    fn the_first_one_that_is_kept_tells_the_sweeper() {
        for max in [0, 1] {
            let idle = Arc::new(still(1, max));
            idle.put(pair().0);
            assert_eq!(idle.is_swept.load(Ordering::Relaxed), max > 0, "{max}");
        }
    }

    #[test]
    fn what_ended_or_has_something_to_say_is_not_used_however_young_it_is() {
        let idle = still(1, 9);
        let (ended, peer) = pair();
        drop(peer);
        let (talking, mut peer) = pair();
        peer.write_all(b"HTTP/1.1 408 X\r\n").unwrap();
        let (quiet, _peer) = pair();
        let quiet_port = port(&quiet);
        // Loopback: bytes and closes reach the other end before the call returns.
        let now = Stopwatch::start();
        for wire in [quiet, ended, talking] {
            idle.put_at(0, wire, now);
        }
        assert_eq!(idle.take_at(0, now).map(|wire| port(&wire)), Some(quiet_port));
        assert_eq!(idle.count(), 0, "the others were closed");
        let (wires, _peers) = pairs(3);
        for wire in wires {
            idle.put_at(0, wire, now);
        }
        idle.trim(3);
        assert_eq!(idle.count(), 3);
        idle.trim(1);
        assert_eq!(idle.count(), 1);
        idle.trim(0);
        assert!(idle.take().is_none());
    }
    #[test]
    fn after_a_suspend_none_is_left() {
        // The wall clock is a minute ahead of where it was.
        let idle = Idle::with_places(2, 9, Surroundings::jumping(60_000));
        let (wires, _peers) = pairs(2);
        let now = Stopwatch::start();
        for (processor, wire) in wires.into_iter().enumerate() {
            idle.put_at(processor, wire, now);
        }
        assert!(idle.take_at(0, now).is_none());
        assert_eq!(idle.count(), 0);
        idle.put_at(0, pair().0, now);
        assert!(idle.take_at(0, now).is_none(), "its other end was dropped");
        let (wire, _peer) = pair();
        idle.put_at(0, wire, now);
        assert!(idle.take_at(0, now).is_some(), "those from after it are kept");
    }

    #[test]
    fn after_a_change_of_the_local_address_none_is_left_that_was_idle_for_a_moment() {
        for (age, is_used) in [(UNSEEN_MAX.saturating_sub(NANOSECOND), true), (UNSEEN_MAX, false)] {
            let idle = Idle::with_places(2, 9, Surroundings::elsewhere());
            let (wires, _peers) = pairs(2);
            let now = Stopwatch::start();
            for (processor, wire) in wires.into_iter().enumerate() {
                idle.put_at(processor, wire, now);
            }
            assert_eq!(idle.take_at(0, now.later(age)).is_some(), is_used, "{age:?}");
            assert_eq!(idle.count(), usize::from(is_used), "{age:?}");
        }
    }

    #[cfg(all(target_os = "linux", not(feature = "portable")))]
    mod by_processor {
        use std::io::Read;

        use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

        use super::*;
        use crate::thread::on_own_thread;

        const STACK_BYTES: usize = 64 * 1024;

        /// Runs `act` on one processor.
        fn on<T: Send>(processor: usize, act: impl FnOnce() -> T + Send) -> T {
            let mut only = CpuSet::new();
            only.set(processor);
            on_own_thread("t", STACK_BYTES, || {
                sched_setaffinity(None, &only).unwrap();
                act()
            })
        }

        #[test]
        fn a_connection_is_for_the_processor_that_its_answer_came_in_on() {
            let allowed = sched_getaffinity(None).unwrap();
            let mut allowed = (0..CpuSet::MAX_CPU).filter(|number| allowed.is_set(*number));
            let first = allowed.next().unwrap();
            let last = allowed.next_back().unwrap_or(first);
            let idle = Arc::new(still(CpuSet::MAX_CPU, 9));
            for (answers, reads) in [(first, last), (last, first)] {
                let (wire, mut peer) = pair();
                let port = port(&wire);
                // Loopback: the packet comes in on the processor that sends it.
                on(answers, || peer.write_all(b"x").unwrap());
                on(reads, || {
                    (&**wire.socket()).read_exact(&mut [0]).unwrap();
                    idle.put(wire);
                });
                let taken = on(last, || idle.take()).unwrap();
                assert_eq!(super::port(&taken), port);
                assert_eq!(idle.places[answers].len(), 0);
                idle.put(taken);
                assert_eq!(idle.places[answers].len(), 1);
            }
            assert_eq!(idle.count(), 2);
        }
    }
}
