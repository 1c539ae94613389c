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
    /// The least that ends it early.
    needed: Proof,
}

/// What an answer shows about a provider, the least first; a cooldown ends early if an answer shows that its reason is
/// gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Proof {
    /// It can be reached: any answer shows it, a 404 too.
    #[default]
    Answer,
    /// It serves free requests: lists of models, counts of tokens.
    Service,
    /// The account has something left: a request that uses its quota was served.
    Quota,
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
    /// until an answer that shows what is `needed`. Returns true if the provider was not cooling down before.
    pub fn begin(&self, now: Moment, length: Duration, needed: Proof) -> bool {
        let mut cooling = self.cooling();
        let before = cooling.until.filter(|until| !until.reached(now));
        let until = Due::after(now, u64::try_from(length.as_millis()).unwrap_or(u64::MAX));
        if until.left_ms(now) > before.map_or(0, |before| before.left_ms(now)) {
            cooling.until = Some(until);
            let earlier = before.map_or(Proof::Answer, |_| cooling.needed);
            cooling.needed = needed.max(earlier);
            cooling.begun += 1;
            self.number.store(cooling.begun, Ordering::Release);
        }
        before.is_none() && !length.is_zero()
    }

    /// A request sent at `sent` for the model, which `model` returns, got an answer that shows `proof`. This ends the rest
    /// of the model if it used the quota, and any cooldown begun before it whose reason is gone. Returns true if one of
    /// them ended.
    pub(crate) fn answered(
        &self,
        sent: SentMark,
        proof: &dyn Fn() -> Proof,
        model: &dyn Fn() -> Option<String>,
    ) -> bool {
        if !self.is_set() {
            return false;
        }
        let proof = proof();
        let model_ended = proof == Proof::Quota && self.models.succeeded(sent.models, model);
        let mut cooling = self.cooling();
        let is_later = sent.provider != 0 && sent.provider == self.number();
        let has_ended = is_later && proof >= cooling.needed;
        if has_ended {
            cooling.until = None;
            self.number.store(0, Ordering::Release);
        }
        has_ended || model_ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::clock::Timestamp;

    const NOW: Moment = Moment { wall: Timestamp::from_secs(1_800_000_000), steady_ms: 50 };

    fn any() -> Proof {
        Proof::Service
    }

    fn later(millis: u64) -> Moment {
        let due = Due::after(NOW, millis);
        Moment { wall: due.wall, steady_ms: due.steady_ms }
    }

    #[test]
    fn it_ends_by_time_or_by_a_later_success() {
        let cooldown = Cooldown::default();
        assert_eq!(cooldown.until(NOW), None);
        assert!(!cooldown.begin(NOW, Duration::ZERO, Proof::Service), "no time is no cooldown");
        let before = cooldown.mark();
        assert!(cooldown.begin(later(1_000), Duration::from_secs(10), Proof::Service));
        let after = cooldown.mark();
        assert!(
            !cooldown.begin(later(2_000), Duration::from_secs(1), Proof::Service),
            "it is not shortened"
        );
        assert_eq!(
            cooldown.until(later(10_999)).map(|until| until.left_ms(later(10_999))),
            Some(1)
        );
        assert_eq!(cooldown.until(later(11_000)), None);
        cooldown.answered(before, &any, &|| None);
        assert!(cooldown.until(later(2_000)).is_some(), "that request was sent before the failure");
        assert!(
            !cooldown.begin(later(2_000), Duration::from_mins(1), Proof::Service),
            "it is made longer"
        );
        assert!(!cooldown.answered(after, &any, &|| None));
        assert!(cooldown.until(later(3_000)).is_some(), "and so was that one");
        assert!(cooldown.answered(cooldown.mark(), &any, &|| None), "it ended");
        assert_eq!(cooldown.until(later(3_000)), None);
        cooldown.answered(before, &any, &|| None);
        assert!(
            cooldown.begin(later(4_000), Duration::from_secs(1), Proof::Service),
            "the next is a new one"
        );
        cooldown.answered(after, &any, &|| None);
        assert!(cooldown.until(later(4_000)).is_some());
    }

    /// A 404, or a list of models, ended the rest of an account that had used up its week.
    #[test]
    fn free_requests_end_no_cooldown_of_a_used_up_quota_and_no_rest_of_a_model() {
        let of_model = || Some("m".to_owned());
        let cooldown = Cooldown::default();
        cooldown.begin(NOW, Duration::from_secs(10), Proof::Quota);
        cooldown.models.begin("m", NOW, Duration::from_secs(10));
        cooldown.begin(NOW, Duration::from_secs(20), Proof::Service);
        cooldown.answered(cooldown.mark(), &any, &of_model);
        assert!(cooldown.until(NOW).is_some() && cooldown.models.until(NOW, &of_model).is_some());
        cooldown.answered(cooldown.mark(), &|| Proof::Quota, &of_model);
        assert_eq!((cooldown.until(NOW), cooldown.models.until(NOW, &of_model)), (None, None));
        cooldown.begin(later(1), Duration::from_secs(10), Proof::Service);
        cooldown.answered(cooldown.mark(), &any, &of_model);
        assert_eq!(cooldown.until(later(1)), None, "it served such a request");
        for (needed, proof, ends) in [
            (Proof::Answer, Proof::Answer, true),
            (Proof::Service, Proof::Answer, false),
            (Proof::Quota, Proof::Answer, false),
        ] {
            let cooldown = Cooldown::default();
            cooldown.begin(NOW, Duration::from_secs(10), needed);
            cooldown.answered(cooldown.mark(), &|| proof, &of_model);
            assert_eq!(cooldown.until(NOW).is_none(), ends, "{needed:?}");
        }
        cooldown.begin(NOW, Duration::from_secs(1), Proof::Quota);
        cooldown.begin(later(2_000), Duration::from_secs(9), Proof::Service);
        cooldown.answered(cooldown.mark(), &any, &of_model);
        assert_eq!(cooldown.until(later(2_000)), None, "the first one was over");
    }
}
