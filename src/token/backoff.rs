//! How long to wait after a transient failure: exponential, full jitter, bounded on every side.

use fastrand::Rng;

/// The first failure waits up to this long.
pub const FIRST_MAX_MS: u64 = 1_000;
/// No failure waits longer than this, unless the server asks for it.
pub const DELAY_MAX_MS: u64 = 300_000;
/// No failure waits less than this, so that a refusing server is not asked in a tight loop.
pub const DELAY_MIN_MS: u64 = 250;
/// The longest `Retry-After` that is believed.
pub const RETRY_AFTER_MAX_MS: u64 = 3_600_000;

/// The wait in milliseconds before the try that follows `failures` (at least 1) in a row.
///
/// Full jitter: anywhere between the least and a bound that doubles with each failure. While a
/// token is still valid for `remaining_ms`, at most a third of that, so that three tries fit in
/// before it expires. `retry_after_ms`, what the server asked for, is the least in any case.
pub fn delay_ms(
    failures: u32,
    remaining_ms: Option<u64>,
    retry_after_ms: Option<u64>,
    rng: &mut Rng,
) -> u64 {
    let doublings = failures.saturating_sub(1).min(20);
    let mut bound = (FIRST_MAX_MS << doublings).min(DELAY_MAX_MS);
    if let Some(remaining) = remaining_ms {
        bound = bound.min(remaining / 3);
    }
    let drawn = rng.u64(0..=bound).max(DELAY_MIN_MS);
    drawn.max(retry_after_ms.unwrap_or(0).min(RETRY_AFTER_MAX_MS))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The least and the largest of many draws.
    fn range(failures: u32, remaining: Option<u64>, retry_after: Option<u64>) -> (u64, u64) {
        let mut rng = Rng::with_seed(7);
        let draws: Vec<u64> =
            (0..4000).map(|_| delay_ms(failures, remaining, retry_after, &mut rng)).collect();
        (*draws.iter().min().unwrap(), *draws.iter().max().unwrap())
    }

    #[test]
    fn bounds_double_up_to_five_minutes() {
        for (failures, bound) in
            [(1, 1_000), (2, 2_000), (5, 16_000), (9, 256_000), (10, 300_000), (u32::MAX, 300_000)]
        {
            let (least, most) = range(failures, None, None);
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
                let delay = delay_ms(failures + step, Some(left), None, &mut rng);
                assert!(delay < left);
                left -= delay;
                tries += 1;
            }
            assert_eq!(tries, 3);
        }
    }

    #[test]
    fn the_server_is_heard_within_reason() {
        assert_eq!(range(1, Some(10_000), Some(60_000)), (60_000, 60_000));
        assert_eq!(range(1, None, Some(u64::MAX)).0, RETRY_AFTER_MAX_MS);
        assert_eq!(range(1, Some(3), None), (DELAY_MIN_MS, DELAY_MIN_MS));
    }
}
