//! Whether this machine is still where it was: a suspend or another network leaves kept connections dead, and nobody
//! says so.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicI64, Ordering};

use crate::clock::Stopwatch;
use crate::upstream::source::source_towards;

/// How far the wall clock may move against the steady one, which stands still while the machine sleeps.
const JUMP_MIN_MS: u64 = 2_000;

/// What kept connections depend on.
#[derive(Debug)]
pub(super) struct Surroundings {
    /// How far the wall clock was ahead of the steady one when that was last seen to change.
    lead_ms: AtomicI64,
    lead_at: fn(Stopwatch) -> i64,
    source_towards: fn(SocketAddr) -> Option<IpAddr>,
}

impl Surroundings {
    /// Those of this machine.
    pub(super) fn of_machine() -> Self {
        Self::seen_by(Stopwatch::wall_lead_ms, source_towards)
    }

    fn seen_by(
        lead_at: fn(Stopwatch) -> i64,
        source_towards: fn(SocketAddr) -> Option<IpAddr>,
    ) -> Self {
        let lead_ms = AtomicI64::new(lead_at(Stopwatch::start()));
        Self { lead_ms, lead_at, source_towards }
    }

    /// Whether one of the clocks has jumped since this was last asked.
    pub(super) fn have_slept(&self, now: Stopwatch) -> bool {
        let (before, lead) = (self.lead_ms.load(Ordering::Relaxed), (self.lead_at)(now));
        let has_jumped = lead.abs_diff(before) >= JUMP_MIN_MS;
        if has_jumped {
            self.lead_ms.store(lead, Ordering::Relaxed);
        }
        has_jumped
    }

    /// Whether packets to the other end of `stream` would come from another address by now, or find no way.
    pub(super) fn have_moved(&self, stream: &TcpStream) -> bool {
        let (Ok(here), Ok(there)) = (stream.local_addr(), stream.peer_addr()) else { return true };
        (self.source_towards)(there) != Some(here.ip())
    }
}

#[cfg(test)]
impl Surroundings {
    /// Those of a machine whose wall clock has moved by so much since they were last looked at.
    pub(super) fn jumping(by_ms: i64) -> Self {
        let surroundings = Self::seen_by(|_| 0, source_towards);
        surroundings.lead_ms.store(-by_ms, Ordering::Relaxed);
        surroundings
    }

    /// Those of a machine that has another address by now.
    pub(super) fn elsewhere() -> Self {
        Self::seen_by(|_| 0, |_| "192.0.2.1".parse().ok())
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_jump_of_a_clock_is_noticed_once() {
        for (by_ms, expected) in
            [(0, false), (1_999, false), (2_000, true), (-1_999, false), (-2_000, true)]
        {
            let surroundings = Surroundings::jumping(by_ms);
            assert_eq!(surroundings.have_slept(Stopwatch::start()), expected, "{by_ms}");
            let again = surroundings.have_slept(Stopwatch::start());
            assert!(!again, "{by_ms}: it was told");
        }
    }

    #[test]
    fn another_local_address_is_noticed_and_none_at_all() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(!Surroundings::of_machine().have_moved(&stream));
        assert!(Surroundings::elsewhere().have_moved(&stream));
        let offline = Surroundings::seen_by(|_| 0, |_| None);
        assert!(offline.have_moved(&stream), "there is no way to it any more");
    }

    #[test]
    fn the_wall_clock_leads_by_the_same_as_long_as_nobody_moves_it() {
        let start = Stopwatch::start();
        let later = start.later(Duration::from_secs(5));
        // The steady clock five seconds on, and the wall clock not.
        let behind = start.wall_lead_ms() - later.wall_lead_ms();
        assert!((4_000..=5_000).contains(&behind), "{behind}");
    }
}
