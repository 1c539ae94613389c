//! The wait after a transient failure: exponential, full jitter, bounded on every side.

use fastrand::Rng;

/// The longest wait after the first failure.
pub(crate) const FIRST_MAX_MS: u64 = 1_000;
/// The longest wait after any failure, unless the server asks for a longer one.
pub(crate) const DELAY_MAX_MS: u64 = 300_000;
/// The shortest wait after a failure, so that a refusing server is not asked in a tight loop.
pub const DELAY_MIN_MS: u64 = 250;
/// The longest `Retry-After` that is believed.
pub(crate) const RETRY_AFTER_MAX_MS: u64 = 3_600_000;

/// The longest wait while requests come and there is no token, unless the server asks for a longer one.
pub const WANTED_DELAY_MAX_MS: u64 = 10_000;
/// The first wait before a refused token is refreshed, if the refresh of another refused token brought it. Counted from
/// the token's arrival.
pub(crate) const REJECTION_WAIT_FIRST_MS: u64 = 10_000;
/// The longest such wait; each further refresh in a row doubles it.
pub(crate) const REJECTION_WAIT_MAX_MS: u64 = 300_000;

/// The bound that a wait has to fit into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// The token in hand is valid for this many milliseconds: at least three tries fit in before its end.
    Before(u64),
    /// There is no token, and requests come.
    Wanted,
    /// There is no token, and nobody asks for one.
    Unwanted,
}

/// The wait in milliseconds before the try that follows `failures` (at least 1) in a row, if the server asks for no
/// wait of its own.
///
/// Full jitter: anywhere between the least and a bound that doubles with each failure and fits into `room`.
pub(crate) fn delay_ms(failures: u32, room: Room, rng: &mut Rng) -> u64 {
    let doublings = failures.saturating_sub(1).min(20);
    let most = match room {
        Room::Before(left_ms) => DELAY_MAX_MS.min(left_ms / 3),
        Room::Wanted => WANTED_DELAY_MAX_MS,
        Room::Unwanted => DELAY_MAX_MS,
    };
    rng.u64(0..=(FIRST_MAX_MS << doublings).min(most)).max(DELAY_MIN_MS)
}

/// The wait from a token's arrival until it is refreshed for a refusal, if `in_a_row` refreshes of refused tokens
/// brought it.
pub(crate) fn rejection_wait_ms(in_a_row: u32) -> u64 {
    let Some(doublings) = in_a_row.checked_sub(1) else { return 0 };
    (REJECTION_WAIT_FIRST_MS << doublings.min(10)).min(REJECTION_WAIT_MAX_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The smallest and the largest of many draws.
    fn range(failures: u32, room: Room) -> (u64, u64) {
        let mut rng = Rng::with_seed(7);
        let draws: Vec<u64> = (0..4000).map(|_| delay_ms(failures, room, &mut rng)).collect();
        (*draws.iter().min().unwrap(), *draws.iter().max().unwrap())
    }

    #[test]
    fn bounds_double_up_to_five_minutes() {
        for (failures, bound) in
            [(1, 1_000), (2, 2_000), (5, 16_000), (9, 256_000), (10, 300_000), (u32::MAX, 300_000)]
        {
            let (least, most) = range(failures, Room::Unwanted);
            assert_eq!(least, DELAY_MIN_MS.max(least), "{failures}");
            assert!(least < bound / 2, "{failures}: full jitter reaches low, got {least}");
            assert!(most <= bound && most > bound - bound / 20, "{failures}: {most} of {bound}");
        }
    }

    #[test]
    fn three_tries_fit_before_expiry() {
        let mut rng = Rng::with_seed(1);
        for failures in 1..30 {
            let mut left = 150_000_u64;
            let mut tries = 0;
            for step in 0..3 {
                let delay = delay_ms(failures + step, Room::Before(left), &mut rng);
                assert!(delay < left);
                left -= delay;
                tries += 1;
            }
            assert_eq!(tries, 3);
        }
    }

    #[test]
    fn while_requests_come_no_wait_is_longer_than_ten_seconds() {
        for failures in [5, 12, u32::MAX] {
            let (_, most) = range(failures, Room::Wanted);
            assert!(most <= WANTED_DELAY_MAX_MS && most > WANTED_DELAY_MAX_MS - 500, "{most}");
        }
        assert_eq!(range(1, Room::Before(3)), (DELAY_MIN_MS, DELAY_MIN_MS));
    }

    #[test]
    fn refusals_in_a_row_wait_twice_as_long_each_time_up_to_five_minutes() {
        let waits: Vec<u64> = (0..9).map(rejection_wait_ms).collect();
        let seconds = [0, 10, 20, 40, 80, 160, 300, 300, 300];
        assert_eq!(waits, seconds.map(|secs| secs * 1000));
        assert_eq!(rejection_wait_ms(u32::MAX), REJECTION_WAIT_MAX_MS);
    }
}
