//! The difference between the token store's clock and this machine's. Pure.
//!
//! Hosts that share a chain time its tokens by their own clocks. All of them can ask the store's clock: a host writes
//! its difference to that clock beside its times, so that every other host can convert them to its own.

use crate::clock::{Moment, Timestamp};

/// The difference of the clocks above which it is reported.
pub(crate) const DIFFERENCE_MAX_MS: u64 = 5_000;
/// The time after which the clocks are compared again.
pub(crate) const MEASURED_FOR_MS: u64 = 60_000;
/// The time for which a measurement can be used if there is no newer one, because a refresh may take a while.
pub(crate) const USABLE_FOR_MS: u64 = 600_000;
/// The largest error of a usable measurement: larger if the process was halted, or the answer slow.
const UNCERTAIN_MAX_MS: u64 = 250;
/// Another host's times are moved if they differ by more than measurements on one network do.
const SHIFT_OVER_MS: u64 = 50;
/// The difference between the wall clock's and the steady clock's progress above which the wall clock must have been
/// set.
const STEP_MIN_MS: u64 = 1_000;

/// A measurement of the store's clock by this machine's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offset {
    /// The store's clock minus this machine's.
    pub ms: i64,
    /// The possible error: half the time that the question took.
    uncertain_ms: u64,
    at: Moment,
}

impl Offset {
    /// The store's clock showed `shown` in answer to a question that was sent at `sent` and answered at `at`. None if
    /// that took too long, or the machine slept meanwhile.
    pub fn measured(sent: Moment, shown: Timestamp, at: Moment) -> Option<Self> {
        let by_wall_ms = at.wall.millis_since(sent.wall).unsigned_abs();
        let took_ms = at.steady_ms.saturating_sub(sent.steady_ms).max(by_wall_ms);
        let uncertain_ms = took_ms / 2;
        let middle = sent.wall.plus_millis(i64::try_from(uncertain_ms).unwrap_or(i64::MAX));
        let offset = Self { ms: shown.millis_since(middle), uncertain_ms, at };
        (uncertain_ms <= UNCERTAIN_MAX_MS).then_some(offset)
    }

    /// True if the clocks are certainly further apart than [`DIFFERENCE_MAX_MS`].
    pub fn is_too_far(&self) -> bool {
        self.ms.unsigned_abs().saturating_sub(self.uncertain_ms) > DIFFERENCE_MAX_MS
    }

    /// True if it is recent enough at `now` that the clocks need not be compared again.
    pub fn is_fresh(&self, now: Moment) -> bool {
        self.age_ms(now) < MEASURED_FOR_MS && self.holds(now)
    }

    /// True if it can be used at `now`: it is not old, and this machine's clock was not set since.
    pub fn holds(&self, now: Moment) -> bool {
        let by_wall_ms = now.wall.millis_since(self.at.wall);
        let passed_ms = i64::try_from(self.age_ms(now)).unwrap_or(i64::MAX);
        self.age_ms(now) < USABLE_FOR_MS && by_wall_ms.abs_diff(passed_ms) < STEP_MIN_MS
    }

    fn age_ms(&self, now: Moment) -> u64 {
        now.steady_ms.saturating_sub(self.at.steady_ms)
    }

    /// `12.3 s behind` or `12.3 s ahead of`, of this machine's clock.
    pub fn words(&self) -> String {
        let (ms, side) = (self.ms.unsigned_abs(), if self.ms > 0 { "behind" } else { "ahead of" });
        format!("{}.{} s {side}", ms / 1000, ms % 1000 / 100)
    }
}

/// The correction for times that another host wrote: `theirs` and `ours` are the store's clock minus each host's, and
/// `age_max_ms` is the largest possible age of the record. No time may move into the future, because the store's own
/// clock may have been set back since. If the clocks agree within the measurements, the times stay as they are, the
/// same on all hosts.
pub(crate) fn shift_ms(theirs: i64, ours: i64, age_max_ms: i64) -> i64 {
    let apart = theirs.saturating_sub(ours);
    if apart.unsigned_abs() <= SHIFT_OVER_MS { 0 } else { apart.min(age_max_ms.max(0)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(wall_ms: i64, steady_ms: u64) -> Moment {
        Moment { wall: Timestamp::from_secs(1_800_000_000).plus_millis(wall_ms), steady_ms }
    }

    fn measured(took_ms: u64, shown_ms: i64) -> Offset {
        let shown = at(shown_ms, 0).wall;
        let end = i64::try_from(took_ms).unwrap();
        Offset::measured(at(0, 500), shown, at(end, 500 + took_ms)).unwrap()
    }

    #[test]
    fn the_limit_has_two_sides_and_half_the_round_trip_is_taken_off() {
        // The duration of the question, the store's time, the difference, and whether it is too large.
        let cases = [
            (0, 0, 0, false),
            (0, 5_000, 5_000, false),
            (0, 5_001, 5_001, true),
            (0, -5_000, -5_000, false),
            (0, -5_001, -5_001, true),
            (400, 5_200, 5_000, false),
            (400, 5_400, 5_200, false),
            (400, 5_401, 5_201, true),
            (400, -5_000, -5_200, false),
            (400, -5_001, -5_201, true),
            (500, 5_500, 5_250, false),
            (500, 5_501, 5_251, true),
        ];
        for (took, shown, ms, too_far) in cases {
            let offset = measured(took, shown);
            assert_eq!((offset.ms, offset.is_too_far()), (ms, too_far), "{took} {shown}");
        }
        assert_eq!(measured(0, 12_345).words(), "12.3 s behind");
        assert_eq!(measured(0, -7_000).words(), "7.0 s ahead of");
    }

    #[test]
    fn what_took_too_long_is_no_measurement() {
        let measured = |steady_ms: u64, wall_ms: i64| {
            Offset::measured(at(0, 5), at(0, 0).wall, at(wall_ms, 5 + steady_ms)).is_some()
        };
        assert!(measured(501, 501) && !measured(502, 502));
        // The machine slept, or its clock was set.
        assert!(!measured(3, 9_000) && !measured(3, -9_000));
    }

    #[test]
    fn a_measurement_is_good_for_a_while_and_until_the_clock_is_set() {
        let offset = measured(0, 0);
        let later = |passed: u64, set: i64| at(i64::try_from(passed).unwrap() + set, 500 + passed);
        assert!(offset.is_fresh(later(MEASURED_FOR_MS - 1, 0)));
        assert!(!offset.is_fresh(later(MEASURED_FOR_MS, 0)));
        assert!(!offset.is_fresh(later(10, 1_000)));
        assert!(offset.holds(later(USABLE_FOR_MS - 1, 0)));
        assert!(!offset.holds(later(USABLE_FOR_MS, 0)));
        assert!(offset.holds(later(10, 999)) && !offset.holds(later(10, 1_000)));
        assert!(offset.holds(later(10, -999)) && !offset.holds(later(10, -1_000)));
    }

    #[test]
    fn times_of_another_host_are_moved_but_not_into_the_future() {
        // The other host is 10 s ahead of the store, and this one is 2 s behind it.
        assert_eq!(shift_ms(-10_000, 2_000, 60_000), -12_000);
        // The other host is behind.
        assert_eq!(shift_ms(10_000, 0, 60_000), 10_000);
        // The store's clock was set back by an hour since: a record written 3 s ago is at least 3 s old.
        assert_eq!(shift_ms(3_600_000, 0, 3_000), 3_000);
        assert_eq!(shift_ms(10_000, 0, -5_000), 0);
        // Clocks that agree.
        for (theirs, ours, shift) in [(50, 0, 0), (0, 50, 0), (51, 0, 51), (0, 51, -51)] {
            assert_eq!(shift_ms(theirs, ours, 60_000), shift);
        }
    }
}
