//! The connections to one provider that are kept for the next request.
//!
//! What a processor has in its caches decides how dear a request is: the client's socket, the provider's, and
//! where that is on this machine its thread. A thread whose client asks again at once gets the connection back
//! that it used last, so that all of them stay on one processor. Any other gets the one that was used
//! last on its processor: of many connections few are then in use, and those are in its caches.

use std::cell::Cell;
use std::iter::{from_fn, once_with};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::thread::sched_getcpu;

use crate::clock::Stopwatch;
use crate::thread;
use crate::upstream::wire::Wire;

mod place;

use place::{Kept, Place};

/// How long an idle connection is kept; servers commonly close theirs after a minute.
const IDLE_MAX_AGE: Duration = Duration::from_secs(50);
/// Up to this age it is used without a look at it: should the provider have closed it just now, the
/// request is sent once more on a new one.
const TRUSTED_MAX_AGE: Duration = Duration::from_secs(1);
/// How often connections that are too old are looked for in all places.
const TIDY_GAP: Duration = Duration::from_secs(5);
/// A thread that asks again within this time gets its own connection back.
const QUICK_MAX: Duration = Duration::from_millis(2);
/// Places for the connections of quick threads, and as many for those of processors. More threads and
/// processors share them.
const PLACES: usize = 16;

thread_local! {
    static PACE: Cell<Pace> = const { Cell::new(Pace { last_put: None, is_quick: false }) };
}

/// Idle connections.
#[derive(Debug)]
pub(super) struct Idle {
    of_threads: [Place; PLACES],
    of_processors: [Place; PLACES],
    max: usize,
    since: Stopwatch,
    /// When all places were tidied last, in milliseconds after `since`.
    tidied_ms: AtomicU64,
}

/// How fast a thread comes back for a connection, to whichever provider.
#[derive(Clone, Copy, Debug)]
struct Pace {
    last_put: Option<Stopwatch>,
    is_quick: bool,
}

/// Who puts a connection in, or wants one.
#[derive(Clone, Copy, Debug)]
struct Who {
    thread: usize,
    is_quick: bool,
    /// Tells the processor; asked only where that matters, since it takes a system call on some.
    processor: fn() -> usize,
}

impl Who {
    fn takes(now: Stopwatch) -> Self {
        let last_put = PACE.get().last_put;
        let is_quick = last_put.is_some_and(|last| last.until(now) < QUICK_MAX);
        Self::at(Pace { last_put, is_quick })
    }

    fn puts(now: Stopwatch) -> Self {
        Self::at(Pace { last_put: Some(now), ..PACE.get() })
    }

    /// This thread, and from now on its pace.
    fn at(pace: Pace) -> Self {
        PACE.set(pace);
        Self { thread: thread::number(), is_quick: pace.is_quick, processor: sched_getcpu }
    }
}

impl Idle {
    /// Keeps at most `max` connections, and more than that for [`TIDY_GAP`] at most, where they lie in
    /// several places. There are hardly ever more than requests were under way at once, since a new one is
    /// made only where none is idle.
    pub(super) fn new(max: usize) -> Self {
        let since = Stopwatch::start();
        let [of_threads, of_processors] = Default::default();
        Self { of_threads, of_processors, max, since, tidied_ms: AtomicU64::new(0) }
    }

    /// Keeps a connection on which an answer was read to its end. `is_trusted` says that nothing can
    /// follow that answer unseen.
    pub(super) fn put(&self, wire: Wire, is_trusted: bool) {
        let now = Stopwatch::start();
        self.put_by(Who::puts(now), wire, is_trusted, now);
    }

    fn put_by(&self, who: Who, mut wire: Wire, is_trusted: bool, now: Stopwatch) {
        wire.base().unwatch();
        let count = self.place(who).put(Kept { wire, since: now, is_trusted, by: who.thread });
        if count > self.max || self.is_tidying_due(now) {
            self.tidy(self.max, now);
        }
    }

    fn place(&self, who: Who) -> &Place {
        if who.is_quick {
            &self.of_threads[who.thread % PLACES]
        } else {
            &self.of_processors[(who.processor)() % PLACES]
        }
    }

    /// A kept connection that looks alive. `must_look` has even a young one looked at: for a request
    /// that can't be sent twice.
    pub(super) fn take(&self, must_look: bool) -> Option<Wire> {
        let now = Stopwatch::start();
        self.take_for(Who::takes(now), must_look, now)
    }

    // Not part of its caller: what it needs of the stack would stay with the worker.
    #[inline(never)]
    fn take_for(&self, who: Who, must_look: bool, now: Stopwatch) -> Option<Wire> {
        let own = who.is_quick.then(|| self.place(who).take_of(who.thread)).flatten();
        let places = once_with(|| self.of_processors.split_at((who.processor)() % PLACES));
        let places = places.flat_map(|(before, from)| from.iter().chain(before));
        let places = places.chain(&self.of_threads);
        let others = places.flat_map(|place| from_fn(|| place.take()));
        let is_fine = |one: &Kept| {
            let age = one.since.until(now);
            age < IDLE_MAX_AGE
                && ((one.is_trusted && !must_look && age < TRUSTED_MAX_AGE) || one.wire.is_quiet())
        };
        own.into_iter().chain(others).find(is_fine).map(|one| one.wire)
    }

    /// Closes those beyond `max`, the oldest first, so that their descriptors are free.
    pub(super) fn trim(&self, max: usize) {
        self.tidy(max, Stopwatch::start());
    }

    /// Whether it is time to tidy all places, and this thread's task.
    fn is_tidying_due(&self, now: Stopwatch) -> bool {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let now_ms = millis(self.since.until(now));
        let last_ms = self.tidied_ms.load(Ordering::Relaxed);
        let (order, gap_ms) = (Ordering::Relaxed, millis(TIDY_GAP));
        now_ms.saturating_sub(last_ms) >= gap_ms
            && self.tidied_ms.compare_exchange(last_ms, now_ms, order, order).is_ok()
    }

    /// Closes those that are too old, and the oldest beyond `max`.
    fn tidy(&self, max: usize, now: Stopwatch) {
        let both = [&self.of_threads, &self.of_processors];
        let mut locked = both.map(|places| places.each_ref().map(Place::lock));
        let places = locked.as_flattened_mut();
        let mut excess = places.iter().map(|kept| kept.len()).sum::<usize>().saturating_sub(max);
        let mut gone = Vec::new();
        // The first of each place is its oldest.
        let age = |kept: &[Kept]| kept.first().map(|one| one.since.until(now));
        while let Some(kept) = places.iter_mut().max_by_key(|kept| age(kept))
            && age(kept).is_some_and(|age| excess > 0 || age >= IDLE_MAX_AGE)
        {
            gone.push(kept.remove(0));
            excess = excess.saturating_sub(1);
        }
        drop(locked);
        // Closed without the locks.
        drop(gone);
    }

    /// How many there are.
    #[cfg(test)]
    fn count(&self) -> usize {
        self.places().map(|place| place.lock().len()).sum()
    }

    #[cfg(test)]
    fn places(&self) -> impl Iterator<Item = &Place> {
        self.of_threads.iter().chain(&self.of_processors)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::upstream::socket::Socket;

    const NANOSECOND: Duration = Duration::from_nanos(1);

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
        let one = who(0, || 0, false);
        for (index, wire) in wires.into_iter().enumerate() {
            idle.put_by(one, wire, true, Stopwatch::start());
            assert_eq!(idle.count(), (index + 1).min(2));
        }
        let take = || idle.take_for(one, true, Stopwatch::start()).map(|wire| port(&wire));
        assert_eq!([take(), take()], [ports[2], ports[1]].map(Some));
        assert_eq!(take(), None, "the oldest made room");
        let none = Idle::new(0);
        none.put(pair().0, true);
        assert_eq!(none.count(), 0);
    }

    /// Thread `thread` on the processor that `processor` tells.
    fn who(thread: usize, processor: fn() -> usize, is_quick: bool) -> Who {
        Who { thread, is_quick, processor }
    }

    #[test]
    fn a_quick_thread_gets_its_own_and_others_what_was_used_last_on_their_processor() {
        let idle = Idle::new(99);
        let now = Stopwatch::start();
        let mut peers = Vec::new();
        let mut put = |who| {
            let (wire, peer) = pair();
            peers.push(peer);
            let port = port(&wire);
            idle.put_by(who, wire, true, now);
            port
        };
        let take = |who| idle.take_for(who, false, now).map(|wire| port(&wire));
        let never = || unreachable!("the processor does not matter");
        let before = put(who(1, never, true));
        let own = put(who(1, never, true));
        let of_one_in_the_same_place = put(who(1 + PLACES, || 0, true));
        let first = put(who(2, || 0, false));
        let last = put(who(3, || PLACES, false));
        let elsewhere = put(who(4, || 1, false));
        assert_eq!(take(who(1, never, true)), Some(own), "the last one");
        assert_eq!(take(who(1, never, true)), Some(before));
        assert_eq!(take(who(1, || 0, true)), Some(last), "none of its own is left");
        assert_eq!(take(who(2, || 1, false)), Some(elsewhere));
        assert_eq!(take(who(2, || 1, false)), Some(first), "rather than a new connection");
        assert_eq!(take(who(2, || 1, false)), Some(of_one_in_the_same_place));
        assert_eq!(take(who(2, || 1, true)), None);
    }

    #[test]
    fn a_connection_is_trusted_and_kept_up_to_its_age() {
        for (is_alive, age, is_used) in [
            (false, TRUSTED_MAX_AGE.saturating_sub(NANOSECOND), true),
            (false, TRUSTED_MAX_AGE, false),
            (true, TRUSTED_MAX_AGE, true),
            (true, IDLE_MAX_AGE.saturating_sub(NANOSECOND), true),
            (true, IDLE_MAX_AGE, false),
        ] {
            let (one, idle) = (who(0, || 0, false), Idle::new(9));
            let (wire, peer) = pair();
            let _peer = is_alive.then_some(peer);
            idle.put_by(one, wire, true, idle.since);
            let taken = idle.take_for(one, false, idle.since.later(age));
            assert_eq!(taken.is_some(), is_used, "{is_alive} {age:?}");
        }
    }

    #[test]
    fn a_thread_is_quick_up_to_its_limit() {
        for (gap, is_quick) in [(QUICK_MAX.saturating_sub(NANOSECOND), true), (QUICK_MAX, false)] {
            let now = Stopwatch::start();
            let _ = Who::puts(now);
            assert_eq!(Who::takes(now.later(gap)).is_quick, is_quick);
            assert_eq!(Who::puts(now.later(gap)).is_quick, is_quick, "it still is");
        }
    }

    #[test]
    fn the_too_old_go_from_every_place_and_of_the_others_the_oldest() {
        let start = Stopwatch::start();
        for (after, max, left) in [
            (IDLE_MAX_AGE.saturating_sub(NANOSECOND), 9, 3),
            (IDLE_MAX_AGE, 9, 2),
            (Duration::from_secs(2), 2, 2),
            (Duration::from_secs(2), 0, 0),
        ] {
            let idle = Idle::new(99);
            let (wires, _peers): (Vec<_>, Vec<_>) = (0..3).map(|_| pair()).unzip();
            let oldest = port(&wires[0]);
            let second = Duration::from_secs(1);
            let processors: [fn() -> usize; 3] = [|| 1, || 0, || 0];
            for ((wire, age), processor) in wires.into_iter().zip([0, 1, 1]).zip(processors) {
                idle.put_by(who(0, processor, false), wire, true, start.later(second * age));
            }
            idle.tidy(max, start.later(after));
            assert_eq!(idle.count(), left);
            let ports = idle.places().flat_map(|place| from_fn(|| place.take()));
            let ports: Vec<_> = ports.map(|one| port(&one.wire)).collect();
            assert_eq!(ports.contains(&oldest), left == 3);
        }
    }

    #[test]
    fn all_places_are_tidied_now_and_then_though_other_ones_are_used() {
        let idle = Idle::new(99);
        let mut old = Vec::new();
        let processors: [fn() -> usize; 3] = [|| 0, || 1, || 2];
        for processor in processors {
            let (wire, peer) = pair();
            old.push(peer);
            idle.put_by(who(0, processor, false), wire, true, idle.since);
        }
        let (young, _peer) = pair();
        idle.put_by(who(0, || 9, false), young, true, idle.since.later(IDLE_MAX_AGE));
        assert_eq!(idle.count(), 1);
        let gap = IDLE_MAX_AGE + TIDY_GAP;
        assert!(!idle.is_tidying_due(idle.since.later(gap.saturating_sub(NANOSECOND))));
        assert!(idle.is_tidying_due(idle.since.later(gap)));
        assert!(!idle.is_tidying_due(idle.since.later(gap)), "it is another's task by now");
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
            let (one, now) = (who(0, || 0, false), Stopwatch::start());
            for wire in [quiet, ended, talking] {
                idle.put_by(one, wire, is_trusted, now);
            }
            assert_eq!(
                idle.take_for(one, must_look, now).map(|wire| port(&wire)),
                Some(quiet_port)
            );
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
