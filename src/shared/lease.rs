//! The lease on one provider's chain, seen from one holder: pure decisions, with the time as an argument.
//!
//! The lease's holder may refresh. The server gives it out with a fencing number that only grows, and forgets it
//! after its length; it refuses a record with a number below the newest given out. That protects the record. The
//! issuer knows no fencing numbers, so two more rules protect the refresh token. Right before the request, the holder
//! checks that its lease still runs ([`Lease::runs`]). A host that finds the lease free but a refresh marked as
//! begun gives its holder time to come back with the answer ([`Tenancy::patience_left_ms`]).

use crate::clock::{Due, Moment};
use crate::record::Mark;

/// The shortest lease.
pub(crate) const LEASE_MIN_MS: u64 = 500;
/// The longest lease.
pub(crate) const LEASE_MAX_MS: u64 = 10_000;
/// The length of a lease that nobody renews: longer than a token request may take.
pub(crate) const LEASE_UNATTENDED_MS: u64 = 35_000;
/// The time for which a server that knows nothing of a provider gives out no lease: instances that know more tell it
/// meanwhile.
pub const GRACE_MS: u64 = 2_000;
/// The longest wait for another host's refresh while there is a token: twice the limit of a token request.
pub(crate) const PATIENCE_MAX_MS: u64 = 60_000;
/// The same without a token.
pub(crate) const PATIENCE_BARE_MS: u64 = 5_000;
/// After so long without sight of the store, the wait begins anew: nobody could have brought the answer.
const UNSEEN_MAX_MS: u64 = 2_000;
/// The part of the token's time that is kept for the own refresh: a quarter of the lead, within these bounds.
const RESERVE_MIN_MS: u64 = 500;
const RESERVE_MAX_MS: u64 = 30_000;

/// The length of a lease on a token that is refreshed `lead_ms` before its expiry: half of that, so that it ends
/// before the token does, whatever happens to its holder.
pub(crate) fn length_ms(lead_ms: Option<u64>) -> u64 {
    lead_ms.map_or(LEASE_MAX_MS, |lead| (lead / 2).clamp(LEASE_MIN_MS, LEASE_MAX_MS))
}

/// A lease that this holder was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Its fencing number.
    pub fence: u64,
    /// Its length from each renewal, in milliseconds.
    pub length_ms: u64,
    /// Its end, counted from before the question to the server: never later than the server's.
    until: Due,
}

impl Lease {
    /// A lease that was given out or renewed in answer to a command sent at `sent`.
    pub fn from(sent: Moment, fence: u64, length_ms: u64) -> Self {
        Self { fence, length_ms, until: Due::after(sent, length_ms) }
    }

    /// True if nobody else can have it at `now`.
    pub fn runs(&self, now: Moment) -> bool {
        !self.until.reached(now)
    }

    /// True if it should be renewed, because a third of it has passed.
    pub fn is_to_be_renewed(&self, now: Moment) -> bool {
        self.until.left_ms(now) <= self.length_ms - self.length_ms / 3
    }
}

/// A holder's knowledge of its own leases and of refreshes that others began.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tenancy {
    /// The fencing number of this holder's last lease.
    last_fence: u64,
    /// A refresh that is marked as begun.
    begun: Option<Begun>,
}

#[derive(Clone, Copy, Debug)]
struct Begun {
    mark: Mark,
    since: Moment,
    last_seen: Moment,
}

/// The token in hand, for the wait.
#[derive(Clone, Copy, Debug)]
pub struct InHand {
    /// The expiry.
    pub expires: Due,
    /// The lead of its refresh before that, in milliseconds.
    pub lead_ms: u64,
}

impl Tenancy {
    /// This holder got a lease with this number.
    pub(crate) fn taken(&mut self, fence: u64) {
        self.last_fence = fence;
    }

    /// The newest record was seen; `pending` says that it marks a refresh as begun.
    pub(crate) fn observe(&mut self, newest: Mark, pending: bool, now: Moment) {
        let known = self.begun.filter(|begun| {
            let unseen_ms = now.steady_ms.saturating_sub(begun.last_seen.steady_ms);
            begun.mark == newest && unseen_ms <= UNSEEN_MAX_MS
        });
        let since = known.map_or(now, |begun| begun.since);
        self.begun = pending.then_some(Begun { mark: newest, since, last_seen: now });
    }

    /// The store took no write at `now`. The wait begins anew, because the holder could not have written the answer
    /// either.
    pub(crate) fn could_not_write(&mut self, now: Moment) {
        if let Some(begun) = &mut self.begun {
            begun.since = now;
        }
    }

    /// The remaining wait for a refresh that another holder began, once its lease is free.
    ///
    /// Its refresh token may be used already, and the answer on its way: presenting the token again could end the
    /// whole chain. While there is a token in hand, waiting costs nothing. There is no wait for this holder's own
    /// refresh, whose end it knows.
    pub(crate) fn patience_left_ms(&self, in_hand: Option<InHand>, now: Moment) -> u64 {
        let Some(Begun { mark, since, .. }) = self.begun else { return 0 };
        if mark.fence == self.last_fence {
            return 0;
        }
        let waited = now.steady_ms.saturating_sub(since.steady_ms);
        let in_hand = in_hand.filter(|token| !token.expires.reached(now));
        match in_hand {
            Some(token) => {
                let reserve = (token.lead_ms / 4).clamp(RESERVE_MIN_MS, RESERVE_MAX_MS);
                let spare = token.expires.left_ms(now).saturating_sub(reserve);
                spare.min(PATIENCE_MAX_MS.saturating_sub(waited))
            }
            None => PATIENCE_BARE_MS.saturating_sub(waited),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    const NOW: Moment = Moment { wall: Timestamp::from_secs(1_800_000_000), steady_ms: 5_000 };

    fn later(millis: u64) -> Moment {
        let due = Due::after(NOW, millis);
        Moment { wall: due.wall, steady_ms: due.steady_ms }
    }

    #[test]
    fn lengths() {
        let cases = [
            (None, 10_000),
            (Some(0), 500),
            (Some(999), 500),
            (Some(1_002), 501),
            (Some(2_000), 1_000),
            (Some(20_000), 10_000),
            (Some(300_000), 10_000),
        ];
        for (lead, length) in cases {
            assert_eq!(length_ms(lead), length, "{lead:?}");
        }
        // If the lead is at least two of the shortest leases, the lease is shorter than the lead.
        assert!((1_000..20_000).all(|lead| length_ms(Some(lead)) < lead));
    }

    #[test]
    fn a_lease_runs_out_by_either_clock() {
        let lease = Lease::from(NOW, 3, 900);
        assert!(lease.runs(later(899)) && !lease.runs(later(900)));
        assert!(!lease.is_to_be_renewed(later(299)) && lease.is_to_be_renewed(later(300)));
        // The machine slept: the steady clock stood still.
        let slept = Moment { steady_ms: NOW.steady_ms, ..later(900) };
        assert!(!lease.runs(slept));
        // The wall clock was set back.
        let set_back = Moment { wall: NOW.wall.plus_millis(-9_000), ..later(900) };
        assert!(!lease.runs(set_back));
    }

    #[test]
    fn marks_are_in_order() {
        let mark = |fence, generation| Mark { fence, generation };
        let order = [mark(0, 0), mark(0, 7), mark(1, 3), mark(1, 4), mark(2, 0)];
        assert!(order.is_sorted() && order.windows(2).all(|two| two[0] < two[1]));
    }

    #[test]
    fn patience_with_what_others_began() {
        let theirs = Mark { fence: 4, generation: 9 };
        let token =
            |left: u64, lead_ms: u64| Some(InHand { expires: Due::after(NOW, left), lead_ms });
        // In hand at the start, milliseconds since the marker was seen, remaining patience.
        let cases = [
            (None, 0, 5_000),
            (None, 4_999, 1),
            (None, 5_000, 0),
            (token(2_000, 2_000), 0, 1_500),
            (token(2_000, 2_000), 1_500, 0),
            (token(2_000, 2_000), 2_000, 3_000),
            (token(300_000, 300_000), 0, 60_000),
            (token(300_000, 300_000), 59_999, 1),
            (token(300_000, 300_000), 60_000, 0),
            (token(40_000, 300_000), 0, 10_000),
        ];
        for (in_hand, after, left) in cases {
            let mut tenancy = Tenancy::default();
            for millis in (0..after).step_by(1_000).chain([after]) {
                tenancy.observe(theirs, true, later(millis));
            }
            let found = tenancy.patience_left_ms(in_hand, later(after));
            assert_eq!(found, left, "{in_hand:?} after {after}");
        }
    }

    #[test]
    fn what_could_not_be_seen_is_waited_for_anew() {
        let theirs = Mark { fence: 4, generation: 9 };
        for (unseen, left) in [(2_000, 3_000), (2_001, 5_000)] {
            let mut tenancy = Tenancy::default();
            tenancy.observe(theirs, true, NOW);
            tenancy.observe(theirs, true, later(unseen));
            assert_eq!(tenancy.patience_left_ms(None, later(unseen)), left);
        }
    }

    /// A holder had the answer, and could not write it before another host presented the same refresh token.
    #[test]
    fn time_in_which_the_store_takes_no_writes_is_waited_for_anew() {
        let mut tenancy = Tenancy::default();
        tenancy.could_not_write(NOW);
        assert_eq!(tenancy.patience_left_ms(None, NOW), 0, "nothing was begun");
        for millis in (0..=6_000).step_by(1_000) {
            tenancy.observe(Mark { fence: 4, generation: 9 }, true, later(millis));
        }
        assert_eq!(tenancy.patience_left_ms(None, later(6_000)), 0);
        tenancy.could_not_write(later(6_000));
        assert_eq!(tenancy.patience_left_ms(None, later(6_500)), 4_500);
    }

    #[test]
    fn nothing_to_wait_for() {
        let theirs = Mark { fence: 4, generation: 9 };
        let mut tenancy = Tenancy::default();
        assert_eq!(tenancy.patience_left_ms(None, NOW), 0, "nothing was seen");
        tenancy.observe(theirs, true, NOW);
        tenancy.observe(Mark { generation: 10, ..theirs }, false, NOW);
        assert_eq!(tenancy.patience_left_ms(None, NOW), 0, "it has ended");
        tenancy.observe(theirs, true, NOW);
        tenancy.taken(4);
        assert_eq!(tenancy.patience_left_ms(None, NOW), 0, "it was ours");
        tenancy.observe(Mark { fence: 5, generation: 11 }, true, later(3_000));
        assert_eq!(tenancy.patience_left_ms(None, later(3_000)), 5_000, "another's, from now on");
    }
}
