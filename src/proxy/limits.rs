//! The limits of a key: so many requests in any minute, and so many tokens in a day. Pure but for the lock of a key's
//! own counts.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Moment;
use crate::config::KeyRights;
use crate::http::refusal::{Code, Refusal};
use crate::shared::requests::RequestCounter;

/// The window in which requests are counted, by the second.
const WINDOW_SECS: u64 = 60;
/// One slot a second.
const SLOTS: usize = 60;
/// A day.
const DAY_MS: i64 = 24 * 3_600_000;

/// The requests of the last minute, by the second on the steady clock, which nobody can step.
#[derive(Debug)]
struct Minute {
    counts: [u32; SLOTS],
    /// The newest second.
    newest: u64,
}

impl Default for Minute {
    fn default() -> Self {
        Self { counts: [0; SLOTS], newest: 0 }
    }
}

impl Minute {
    /// Counts one more request; else the milliseconds until there is room for one.
    fn take(&mut self, now_ms: u64, most: u64) -> Result<(), u64> {
        self.advance(now_ms / 1000);
        let used: u64 = self.counts.iter().copied().map(u64::from).sum();
        if used < most {
            let slot = &mut self.counts[slot(self.newest)];
            *slot = slot.saturating_add(1);
            return Ok(());
        }
        // The oldest slots leave the window one after the other.
        let mut left = used;
        for age in (0..WINDOW_SECS).rev() {
            let Some(second) = self.newest.checked_sub(age) else { continue };
            left -= u64::from(self.counts[slot(second)]);
            if left < most {
                return Err(((second + WINDOW_SECS) * 1000).saturating_sub(now_ms).max(1));
            }
        }
        Err(WINDOW_SECS * 1000)
    }

    /// Takes a request back that was counted at `then_ms`.
    fn give_back(&mut self, then_ms: u64) {
        let second = then_ms / 1000;
        if self.newest.saturating_sub(second) < WINDOW_SECS {
            let slot = &mut self.counts[slot(second)];
            *slot = slot.saturating_sub(1);
        }
    }

    /// Empties the slots of the seconds that have begun since the last look.
    fn advance(&mut self, second: u64) {
        let begun = second.saturating_sub(self.newest).min(WINDOW_SECS);
        for age in 0..begun {
            self.counts[slot(second - age)] = 0;
        }
        self.newest = self.newest.max(second);
    }
}

fn slot(second: u64) -> usize {
    usize::try_from(second % WINDOW_SECS).unwrap_or(0)
}

/// The counts of the keys of one name. They outlive a reload.
#[derive(Debug, Default)]
pub(crate) struct Used {
    minute: Mutex<Minute>,
}

impl Used {
    /// Counts one more request of a key with `rights`, whose name has used so many `tokens` today; the refusal says
    /// which limit it is over, and when there is room again.
    pub(crate) fn take(
        &self,
        rights: &KeyRights,
        tokens: impl FnOnce() -> u64,
        now: Moment,
    ) -> Result<(), Refusal> {
        if let Some(most) = rights.tokens_per_day {
            let used = tokens();
            if used >= most {
                let message = format!(
                    "The key '{}' has used {used} tokens today, and its tokens_per_day in settings.auth.keys is \
                     {most}. The next day begins at midnight UTC",
                    rights.name
                );
                return Err(refusal(message, left_of_day(now)));
            }
        }
        if let Some(most) = rights.requests_per_minute {
            // Each change is complete in itself.
            let mut minute = self.minute.lock().unwrap_or_else(PoisonError::into_inner);
            let taken = minute.take(now.steady_ms, most);
            drop(minute);
            taken.map_err(|wait_ms| too_many(rights, most, wait_ms))?;
        }
        Ok(())
    }

    /// Takes a request back that was counted at `then`, and that no provider got.
    pub(crate) fn give_back(&self, then: Moment) {
        self.minute.lock().unwrap_or_else(PoisonError::into_inner).give_back(then.steady_ms);
    }
}

/// The counts of all keys, by name.
#[derive(Debug, Default)]
pub(crate) struct AllUsed {
    known: Vec<(String, Arc<Used>)>,
    /// Counts the requests of all hosts; None for one that stands alone.
    pub(crate) shared: Option<RequestCounter>,
}

impl AllUsed {
    /// The counts of the keys called `name`: those of an earlier configuration, or new ones.
    pub(crate) fn of(&mut self, name: &str) -> Arc<Used> {
        if let Some((_, used)) = self.known.iter().find(|(known, _)| known == name) {
            return used.clone();
        }
        let used = Arc::<Used>::default();
        self.known.push((name.to_owned(), used.clone()));
        used
    }

    /// Forgets the counts that no configuration uses any more.
    pub(crate) fn forget_unused(&mut self) {
        self.known.retain(|(_, used)| Arc::strong_count(used) > 1);
    }
}

/// The refusal of a request that is one more than `most` in a minute.
pub(crate) fn too_many(rights: &KeyRights, most: u64, wait_ms: u64) -> Refusal {
    let message = format!(
        "The key '{}' has made {most} requests within a minute, which is its requests_per_minute in settings.auth.keys",
        rights.name
    );
    refusal(message, Duration::from_millis(wait_ms.max(1)))
}

fn refusal(message: String, wait: Duration) -> Refusal {
    Refusal { retry_after: Some(wait), ..Refusal::new(Code::KeyLimit, message) }
}

/// The time until the day ends, in UTC.
fn left_of_day(now: Moment) -> Duration {
    let left = DAY_MS - now.wall.as_millis().rem_euclid(DAY_MS);
    Duration::from_millis(u64::try_from(left).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    fn at(wall_secs: i64, steady_ms: u64) -> Moment {
        Moment { wall: Timestamp::from_secs(wall_secs), steady_ms }
    }

    #[test]
    fn as_many_requests_as_the_limit_in_any_minute() {
        let mut minute = Minute::default();
        for _ in 0..3 {
            assert_eq!(minute.take(500_250, 3), Ok(()));
        }
        // Those of a second leave together, 60 s after it began.
        assert_eq!(minute.take(500_250, 3), Err(59_750));
        assert_eq!(minute.take(559_999, 3), Err(1));
        assert_eq!(minute.take(560_000, 3), Ok(()));
        assert_eq!(minute.take(580_000, 3), Ok(()));
        assert_eq!(minute.take(580_001, 3), Ok(()));
        assert_eq!(minute.take(590_000, 3), Err(30_000), "the one at 560 leaves first");
        assert_eq!(minute.take(620_000, 3), Ok(()));
        // A lower limit, after a reload, waits for as many to leave as it needs.
        assert_eq!(minute.take(621_000, 1), Err(59_000));
        assert_eq!(minute.take(621_000, 4), Ok(()));
        // After a long silence all is free.
        assert_eq!(minute.take(10_000_000, 1), Ok(()));
    }

    #[test]
    fn a_request_that_is_given_back_makes_room() {
        let mut minute = Minute::default();
        assert_eq!(minute.take(1_000, 1), Ok(()));
        assert!(minute.take(2_000, 1).is_err());
        minute.give_back(1_000);
        assert_eq!(minute.take(2_000, 1), Ok(()));
        // One that has left the window already, whose slot another second uses.
        assert!(minute.take(61_999, 1).is_err());
        minute.give_back(1_000);
        assert!(minute.take(61_999, 1).is_err());
        assert_eq!(minute.take(62_000, 1), Ok(()));
    }

    #[test]
    fn any_run_of_requests_keeps_the_limit_in_every_minute() {
        let mut dice = fastrand::Rng::with_seed(7);
        let (mut minute, mut now, mut passed) = (Minute::default(), 5_000, Vec::new());
        for _ in 0..5_000 {
            now += dice.u64(0..900);
            match minute.take(now, 20) {
                Ok(()) => passed.push(now / 1000),
                Err(wait_ms) => assert!((1..=60_000).contains(&wait_ms), "{wait_ms}"),
            }
            let in_window = passed.iter().rev().take_while(|then| now / 1000 - **then < 60).count();
            assert!(in_window <= 20, "{in_window} at {now}");
        }
        assert!(passed.len() > 500, "{}", passed.len());
    }

    #[test]
    fn exactly_as_many_pass_as_the_limit_however_many_come_at_once() {
        let (used, rights) = (
            Used::default(),
            KeyRights { requests_per_minute: Some(1_000), ..KeyRights::all("ci") },
        );
        let passed = crate::atomic::AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..1_250 {
                        if used.take(&rights, || 0, at(0, 5_000)).is_ok() {
                            passed.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                        }
                    }
                });
            }
        });
        assert_eq!(passed.into_inner(), 1_000);
    }

    #[test]
    fn tokens_until_midnight_utc() {
        let rights = KeyRights { tokens_per_day: Some(100), ..KeyRights::all("ci") };
        let used = Used::default();
        let noon = 1_800_014_400; // 2027-01-15T12:00:00Z
        assert_eq!(used.take(&rights, || 99, at(noon, 0)), Ok(()));
        let refused = used.take(&rights, || 100, at(noon, 0)).unwrap_err();
        assert_eq!(refused.code, Code::KeyLimit);
        assert_eq!(refused.retry_after, Some(Duration::from_hours(12)));
        assert!(refused.message.contains("'ci' has used 100 tokens today"), "{}", refused.message);
        let last = used.take(&rights, || 101, at(noon + 12 * 3600 - 1, 0)).unwrap_err();
        assert_eq!(last.retry_after, Some(Duration::from_secs(1)));
        let before_1970 = used.take(&rights, || 101, at(-1, 0)).unwrap_err();
        assert_eq!(before_1970.retry_after, Some(Duration::from_secs(1)));
        // A key without the limit is not asked for its tokens.
        assert_eq!(used.take(&KeyRights::all("ci"), || panic!(), at(noon, 0)), Ok(()));
    }

    #[test]
    fn the_clock_that_is_stepped_locks_nobody_out() {
        let rights = KeyRights { requests_per_minute: Some(1), ..KeyRights::all("ci") };
        let used = Used::default();
        assert_eq!(used.take(&rights, || 0, at(1_800_000_000, 1_000)), Ok(()));
        for wall in [0, 1_900_000_000] {
            assert!(used.take(&rights, || 0, at(wall, 2_000)).is_err());
        }
        assert_eq!(used.take(&rights, || 0, at(0, 61_000)), Ok(()));
    }

    #[test]
    fn counts_of_a_name_outlive_a_reload() {
        let mut all = AllUsed::default();
        let (ci, other) = (all.of("ci"), all.of("other"));
        assert!(Arc::ptr_eq(&ci, &all.of("ci")) && !Arc::ptr_eq(&ci, &other));
        drop(other);
        all.forget_unused();
        assert_eq!(all.known.len(), 1);
        assert!(Arc::ptr_eq(&ci, &all.of("ci")));
    }
}
