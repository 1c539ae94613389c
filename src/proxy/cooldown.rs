//! The cooldown of a failing provider.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::{Due, Moment};
use crate::proxy::resting::RestingModels;

/// One provider's cooldown.
#[derive(Debug, Default)]
pub struct Cooldown {
    /// The number of the latest cooldown, 0 once it was ended. While a provider is well, its requests read only this,
    /// so that workers do not wait for each other here.
    number: AtomicU64,
    cooling: Mutex<Cooling>,
    /// Its models that rest while it serves others.
    pub(crate) models: RestingModels,
}

#[derive(Debug, Default)]
struct Cooling {
    /// The number of cooldowns so far.
    begun: u64,
    until: Option<Due>,
    /// Only a request that uses the account's quota can end it early.
    is_about_quota: bool,
}

/// The requests whose success shows that the reason of a cooldown is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// All of them, if the provider could not be reached, or refused a free one.
    Any,
    /// Those that use the account's quota: a list of models is answered even if nothing is left.
    Metered,
}

/// The time of sending a request, in terms of cooldowns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SentMark {
    /// The number of the latest cooldown.
    provider: u64,
    /// The number of the latest rest of a model.
    models: u64,
}

impl Cooldown {
    fn cooling(&self) -> MutexGuard<'_, Cooling> {
        // It is replaced as a whole, so a panic leaves no half-made change.
        self.cooling.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The mark of a request that is about to be sent.
    pub fn mark(&self) -> SentMark {
        SentMark { provider: self.number(), models: self.models.mark() }
    }

    /// True if the provider, or a model of it, was to be passed over, and no success ended that.
    pub(crate) fn is_set(&self) -> bool {
        self.number() != 0 || self.models.mark() != 0
    }

    fn number(&self) -> u64 {
        self.number.load(Ordering::Acquire)
    }

    /// The end of the cooldown; None if it has ended.
    pub fn until(&self, now: Moment) -> Option<Due> {
        if self.number() == 0 {
            return None;
        }
        self.cooling().until.filter(|until| !until.reached(now))
    }

    /// A request failed at `now`: the provider cools down for `length`, or until a later end that is already set, or
    /// until a later success of `work`. Returns true if the provider was not cooling down before.
    pub fn begin(&self, now: Moment, length: Duration, work: Work) -> bool {
        let mut cooling = self.cooling();
        let before = cooling.until.filter(|until| !until.reached(now));
        let until = Due::after(now, u64::try_from(length.as_millis()).unwrap_or(u64::MAX));
        if until.left_ms(now) > before.map_or(0, |before| before.left_ms(now)) {
            cooling.until = Some(until);
            cooling.is_about_quota =
                work == Work::Metered || cooling.is_about_quota && before.is_some();
            cooling.begun += 1;
            self.number.store(cooling.begun, Ordering::Release);
        }
        before.is_none() && !length.is_zero()
    }

    /// A request sent at `sent` for the model, which `model` returns, succeeded; it was such `work`. This ends the
    /// rest of the model if it used the quota, and any cooldown begun before it that such work can end.
    pub(crate) fn succeeded(
        &self,
        sent: SentMark,
        work: &dyn Fn() -> Work,
        model: &dyn Fn() -> Option<String>,
    ) {
        if !self.is_set() {
            return;
        }
        let work = work();
        if work == Work::Metered {
            self.models.succeeded(sent.models, model);
        }
        let mut cooling = self.cooling();
        let is_enough = work == Work::Metered || !cooling.is_about_quota;
        if is_enough && sent.provider != 0 && sent.provider == self.number() {
            cooling.until = None;
            self.number.store(0, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::clock::Timestamp;

    const NOW: Moment = Moment { wall: Timestamp::from_secs(1_800_000_000), steady_ms: 50 };

    fn any() -> Work {
        Work::Any
    }

    fn later(millis: u64) -> Moment {
        let due = Due::after(NOW, millis);
        Moment { wall: due.wall, steady_ms: due.steady_ms }
    }

    #[test]
    fn it_ends_by_time_or_by_a_later_success() {
        let cooldown = Cooldown::default();
        assert_eq!(cooldown.until(NOW), None);
        assert!(!cooldown.begin(NOW, Duration::ZERO, Work::Any), "no time is no cooldown");
        let before = cooldown.mark();
        assert!(cooldown.begin(later(1_000), Duration::from_secs(10), Work::Any));
        let after = cooldown.mark();
        assert!(
            !cooldown.begin(later(2_000), Duration::from_secs(1), Work::Any),
            "it is not shortened"
        );
        assert_eq!(
            cooldown.until(later(10_999)).map(|until| until.left_ms(later(10_999))),
            Some(1)
        );
        assert_eq!(cooldown.until(later(11_000)), None);
        cooldown.succeeded(before, &any, &|| None);
        assert!(cooldown.until(later(2_000)).is_some(), "that request was sent before the failure");
        assert!(
            !cooldown.begin(later(2_000), Duration::from_mins(1), Work::Any),
            "it is made longer"
        );
        cooldown.succeeded(after, &any, &|| None);
        assert!(cooldown.until(later(3_000)).is_some(), "and so was that one");
        cooldown.succeeded(cooldown.mark(), &any, &|| None);
        assert_eq!(cooldown.until(later(3_000)), None);
        cooldown.succeeded(before, &any, &|| None);
        assert!(
            cooldown.begin(later(4_000), Duration::from_secs(1), Work::Any),
            "the next is a new one"
        );
        cooldown.succeeded(after, &any, &|| None);
        assert!(cooldown.until(later(4_000)).is_some());
    }

    /// A 404, or a list of models, ended the rest of an account that had used up its week.
    #[test]
    fn free_requests_end_no_cooldown_of_a_used_up_quota_and_no_rest_of_a_model() {
        let of_model = || Some("m".to_owned());
        let cooldown = Cooldown::default();
        cooldown.begin(NOW, Duration::from_secs(10), Work::Metered);
        cooldown.models.begin("m", NOW, Duration::from_secs(10));
        cooldown.begin(NOW, Duration::from_secs(20), Work::Any);
        cooldown.succeeded(cooldown.mark(), &any, &of_model);
        assert!(cooldown.until(NOW).is_some() && cooldown.models.until(NOW, &of_model).is_some());
        cooldown.succeeded(cooldown.mark(), &|| Work::Metered, &of_model);
        assert_eq!((cooldown.until(NOW), cooldown.models.until(NOW, &of_model)), (None, None));
        cooldown.begin(later(1), Duration::from_secs(10), Work::Any);
        cooldown.succeeded(cooldown.mark(), &any, &of_model);
        assert_eq!(cooldown.until(later(1)), None, "that it can be reached is all it takes");
        cooldown.begin(NOW, Duration::from_secs(1), Work::Metered);
        cooldown.begin(later(2_000), Duration::from_secs(9), Work::Any);
        cooldown.succeeded(cooldown.mark(), &any, &of_model);
        assert_eq!(cooldown.until(later(2_000)), None, "the first one was over");
    }
}
