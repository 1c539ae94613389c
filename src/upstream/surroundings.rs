//! Detects that this machine slept or moved: a suspend or another network leaves kept connections dead without any
//! notice.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::atomic::Ordering;

use crate::atomic::AtomicI64;
use crate::clock::Stopwatch;
use crate::upstream::source::source_towards;

/// The change of the wall clock against the steady one, which stands still while the machine sleeps, that counts as a
/// jump.
const JUMP_MIN_MS: u64 = 2_000;

/// The conditions on which kept connections depend.
#[derive(Debug)]
pub(super) struct Surroundings {
    /// The lead of the wall clock over the steady one at its last change.
    lead_ms: AtomicI64,
    lead_at: fn(Stopwatch) -> i64,
    source_towards: fn(SocketAddr) -> Option<IpAddr>,
}

impl Surroundings {
    /// The conditions of this machine.
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

    /// True if one of the clocks has jumped since the last call.
    pub(super) fn have_slept(&self, now: Stopwatch) -> bool {
        let (before, lead) = (self.lead_ms.load(Ordering::Relaxed), (self.lead_at)(now));
        let has_jumped = lead.abs_diff(before) >= JUMP_MIN_MS;
        if has_jumped {
            self.lead_ms.store(lead, Ordering::Relaxed);
        }
        has_jumped
    }

    /// True if packets to the other end of `stream` would now come from another address, or find no route.
    pub(super) fn have_moved(&self, stream: &TcpStream) -> bool {
        let (Ok(here), Ok(there)) = (stream.local_addr(), stream.peer_addr()) else { return true };
        (self.source_towards)(there) != Some(here.ip())
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::time::Duration;

    use super::*;

    impl Surroundings {
        /// A machine whose wall clock has moved by so much since the last look.
        pub(in crate::upstream) fn jumping(by_ms: i64) -> Self {
            let surroundings = Self::seen_by(|_| 0, source_towards);
            surroundings.lead_ms.store(-by_ms, Ordering::Relaxed);
            surroundings
        }

        /// A machine that has another address now.
        pub(in crate::upstream) fn elsewhere() -> Self {
            Self::seen_by(|_| 0, |_| "192.0.2.1".parse().ok())
        }
    }

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
        // The steady clock five seconds on, and the wall clock unchanged.
        let behind = start.wall_lead_ms() - later.wall_lead_ms();
        assert!((4_000..=5_000).contains(&behind), "{behind}");
    }
}
