//! The order and timing of connection attempts: each address gets a head start before the next (RFC 8305 §5). Pure.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

/// The time of one attempt alone, before the next address is tried beside it.
pub(super) const HEAD_START: Duration = Duration::from_millis(250);
/// The most addresses that are tried for one connection.
const ADDRESSES_MAX: usize = 16;

/// Attempts at a connection; the first that succeeds wins.
#[derive(Debug, Default)]
pub(super) struct Race {
    seen: Vec<SocketAddr>,
    untried: VecDeque<SocketAddr>,
    under_way: usize,
    /// The time for the next address, from the start of the race.
    next_at: Duration,
}

/// The next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Begin to connect to this address.
    Begin(SocketAddr),
    /// Wait for the running attempts, within a limit if there is one.
    Wait(Option<Duration>),
    /// All have failed.
    Lost,
}

impl Race {
    /// Adds the new ones of `addresses` after the others; returns true if there are any.
    pub(super) fn add(&mut self, addresses: &[SocketAddr]) -> bool {
        let before = self.seen.len();
        for address in addresses {
            if self.seen.len() < ADDRESSES_MAX && !self.seen.contains(address) {
                self.seen.push(*address);
                self.untried.push_back(*address);
            }
        }
        self.seen.len() > before
    }

    /// The step at `now`, from the start of the race.
    pub(super) fn turn(&mut self, now: Duration) -> Turn {
        if now < self.next_at && !self.untried.is_empty() {
            return Turn::Wait(Some(self.next_at.saturating_sub(now)));
        }
        match self.untried.pop_front() {
            Some(address) => {
                self.under_way += 1;
                self.next_at = now + HEAD_START;
                Turn::Begin(address)
            }
            None if self.under_way == 0 => Turn::Lost,
            None => Turn::Wait(None),
        }
    }

    /// An attempt has failed: the next begins without waiting.
    pub(super) fn fail(&mut self) {
        self.under_way -= 1;
        self.next_at = Duration::ZERO;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NANOSECOND: Duration = Duration::from_nanos(1);

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], 443))
    }

    fn race(count: u8) -> Race {
        let mut race = Race::default();
        race.add(&(0..count).map(address).collect::<Vec<_>>());
        race
    }

    #[test]
    fn each_address_has_a_head_start_before_the_next() {
        let mut race = race(2);
        assert_eq!(race.turn(Duration::ZERO), Turn::Begin(address(0)));
        assert_eq!(race.turn(Duration::ZERO), Turn::Wait(Some(HEAD_START)));
        let almost = HEAD_START.saturating_sub(NANOSECOND);
        assert_eq!(race.turn(almost), Turn::Wait(Some(NANOSECOND)));
        assert_eq!(race.turn(HEAD_START), Turn::Begin(address(1)));
        assert_eq!(race.turn(HEAD_START), Turn::Wait(None), "both go on");
    }

    #[test]
    fn after_a_failure_the_next_begins_at_once() {
        let mut race = race(2);
        race.turn(Duration::ZERO);
        race.fail();
        assert_eq!(race.turn(NANOSECOND), Turn::Begin(address(1)));
        assert_eq!(race.turn(NANOSECOND), Turn::Wait(None));
        race.fail();
        assert_eq!(race.turn(NANOSECOND), Turn::Lost);
        assert!(!race.add(&[address(0), address(1)]));
        assert!(race.add(&[address(1), address(2)]));
        assert_eq!(race.turn(NANOSECOND), Turn::Begin(address(2)), "one that came late");
    }

    #[test]
    fn a_race_without_addresses_is_lost_and_one_with_too_many_leaves_some_out() {
        assert_eq!(race(0).turn(Duration::ZERO), Turn::Lost);
        assert_eq!(race(16).untried.len(), ADDRESSES_MAX);
        assert_eq!(race(17).untried.len(), ADDRESSES_MAX);
    }
}
