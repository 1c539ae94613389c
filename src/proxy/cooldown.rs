//! The cooldown of a failing provider.

use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::atomic::AtomicU64;
use crate::clock::{Due, Moment};
use crate::proxy::resting::RestingModels;
use crate::proxy::told::{Begun, EndedNumbers, Numbers};

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
    /// Its numbers, and those of cooldowns that ended early.
    numbers: Numbers,
    ended: EndedNumbers,
}

/// A cooldown that ended early: the numbers by which other hosts know it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ended {
    /// Of the provider's cooldown.
    pub provider: Option<Vec<u64>>,
    /// The model that rested, and the numbers of its rest.
    pub model: Option<(String, Vec<u64>)>,
}

/// The proof that an answer gives about a provider, the least first; a cooldown ends early if it shows that the reason is
/// gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Proof {
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
    pub(crate) fn begin(&self, now: Moment, length: Duration, needed: Proof, begun: Begun) -> bool {
        let mut cooling = self.cooling();
        if length.is_zero() || cooling.ended.contain(begun) {
            return false;
        }
        let before = cooling.until.filter(|until| !until.reached(now));
        if before.is_none() {
            cooling.numbers = Numbers::default();
        }
        cooling.numbers.add(begun);
        let until = Due::after(now, u64::try_from(length.as_millis()).unwrap_or(u64::MAX));
        if until.left_ms(now) > before.map_or(0, |before| before.left_ms(now)) {
            cooling.until = Some(until);
            let earlier = before.map_or(Proof::Answer, |_| cooling.needed);
            cooling.needed = needed.max(earlier);
            cooling.begun += 1;
            self.number.store(cooling.begun, Ordering::Release);
        }
        before.is_none()
    }

    /// Another host ended the cooldowns with these `numbers` early: of the provider, or of its `model`. Returns true if
    /// that ended one here.
    pub(crate) fn ended_elsewhere(&self, model: Option<&str>, numbers: &[u64]) -> bool {
        if let Some(model) = model {
            return self.models.ended_elsewhere(model, numbers);
        }
        let mut cooling = self.cooling();
        cooling.ended.add(numbers);
        let has_ended = cooling.numbers.ended_elsewhere(numbers) && cooling.until.is_some();
        if has_ended {
            cooling.until = None;
            self.number.store(0, Ordering::Release);
        }
        has_ended
    }

    /// A request sent at `sent` for the model, which `model` returns, got an answer that shows `proof`. This ends the rest
    /// of the model if it used the quota, and any cooldown begun before it whose reason is gone. Returns what
    /// ended.
    pub(crate) fn answered(
        &self,
        sent: SentMark,
        proof: &dyn Fn() -> Proof,
        model: &dyn Fn() -> Option<String>,
    ) -> Option<Ended> {
        if self.is_set() { self.ended_by(sent, proof(), model) } else { None }
    }

    // Not inlined: it is rare.
    #[inline(never)]
    fn ended_by(
        &self,
        sent: SentMark,
        proof: Proof,
        model: &dyn Fn() -> Option<String>,
    ) -> Option<Ended> {
        let is_of_quota = proof == Proof::Quota;
        let model = if is_of_quota { self.models.succeeded(sent.models, model) } else { None };
        let mut cooling = self.cooling();
        let is_later = sent.provider != 0 && sent.provider == self.number();
        if !is_later || proof < cooling.needed {
            return model.map(|model| Ended { provider: None, model: Some(model) });
        }
        cooling.until = None;
        self.number.store(0, Ordering::Release);
        let numbers = std::mem::take(&mut cooling.numbers).known().to_vec();
        cooling.ended.add(&numbers);
        Some(Ended { provider: Some(numbers), model })
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
        assert!(
            !cooldown.begin(NOW, Duration::ZERO, Proof::Service, Begun::Here),
            "no time is no cooldown"
        );
        let before = cooldown.mark();
        assert!(cooldown.begin(later(1_000), Duration::from_secs(10), Proof::Service, Begun::Here));
        let after = cooldown.mark();
        assert!(
            !cooldown.begin(later(2_000), Duration::from_secs(1), Proof::Service, Begun::Here),
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
            !cooldown.begin(later(2_000), Duration::from_mins(1), Proof::Service, Begun::Here),
            "it is made longer"
        );
        assert!(cooldown.answered(after, &any, &|| None).is_none());
        assert!(cooldown.until(later(3_000)).is_some(), "and so was that one");
        assert!(cooldown.answered(cooldown.mark(), &any, &|| None).is_some(), "it ended");
        assert_eq!(cooldown.until(later(3_000)), None);
        cooldown.answered(before, &any, &|| None);
        assert!(
            cooldown.begin(later(4_000), Duration::from_secs(1), Proof::Service, Begun::Here),
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
        cooldown.begin(NOW, Duration::from_secs(10), Proof::Quota, Begun::Here);
        cooldown.models.begin("m", NOW, Duration::from_secs(10), Begun::Here);
        cooldown.begin(NOW, Duration::from_secs(20), Proof::Service, Begun::Here);
        cooldown.answered(cooldown.mark(), &any, &of_model);
        assert!(cooldown.until(NOW).is_some() && cooldown.models.until(NOW, &of_model).is_some());
        cooldown.answered(cooldown.mark(), &|| Proof::Quota, &of_model);
        assert_eq!((cooldown.until(NOW), cooldown.models.until(NOW, &of_model)), (None, None));
        cooldown.begin(later(1), Duration::from_secs(10), Proof::Service, Begun::Here);
        cooldown.answered(cooldown.mark(), &any, &of_model);
        assert_eq!(cooldown.until(later(1)), None, "it served such a request");
        for (needed, proof, ends) in [
            (Proof::Answer, Proof::Answer, true),
            (Proof::Service, Proof::Answer, false),
            (Proof::Quota, Proof::Answer, false),
        ] {
            let cooldown = Cooldown::default();
            cooldown.begin(NOW, Duration::from_secs(10), needed, Begun::Here);
            cooldown.answered(cooldown.mark(), &|| proof, &of_model);
            assert_eq!(cooldown.until(NOW).is_none(), ends, "{needed:?}");
        }
        cooldown.begin(NOW, Duration::from_secs(1), Proof::Quota, Begun::Here);
        cooldown.begin(later(2_000), Duration::from_secs(9), Proof::Service, Begun::Here);
        cooldown.answered(cooldown.mark(), &any, &of_model);
        assert_eq!(cooldown.until(later(2_000)), None, "the first one was over");
    }

    /// A host that ended a cooldown took it up again from a message that was on its way, and the others kept it.
    #[test]
    fn an_early_end_is_told_by_numbers_and_nothing_brings_the_cooldown_back() {
        let long = Duration::from_mins(10);
        let told = |cooldown: &Cooldown, number| {
            cooldown.begin(NOW, long, Proof::Quota, Begun::Told(number))
        };
        let [one, other] = [Cooldown::default(), Cooldown::default()];
        for cooldown in [&one, &other] {
            assert!(told(cooldown, 1) && !told(cooldown, 2));
        }
        let ended = one.answered(one.mark(), &|| Proof::Quota, &|| None).unwrap();
        assert_eq!(ended, Ended { provider: Some(vec![1, 2]), model: None });
        assert!(!told(&one, 2), "its message came late");
        assert_eq!(one.until(NOW), None);
        assert!(other.ended_elsewhere(None, &[1, 2]) && other.until(NOW).is_none());
        assert!(!other.ended_elsewhere(None, &[1, 2]), "it is over");
        // A newer one stays, whatever is told of older ones.
        assert!(told(&other, 3));
        assert!(!other.ended_elsewhere(None, &[1, 2]) && other.until(NOW).is_some());
        // So does one that this host alone knows.
        other.begin(NOW, long, Proof::Answer, Begun::Here);
        assert!(!other.ended_elsewhere(None, &[3]) && other.until(NOW).is_some());
        // One that an earlier run saved has its number from the store.
        let saved = Cooldown::default();
        saved.begin(NOW, long, Proof::Quota, Begun::Elsewhere);
        assert!(!saved.ended_elsewhere(None, &[4]));
        assert!(!told(&saved, 5) && saved.ended_elsewhere(None, &[5]));
    }

    #[test]
    fn the_early_end_of_a_models_rest_is_told_in_the_same_way() {
        let cooldown = Cooldown::default();
        let told = |model, number| {
            let length = Duration::from_mins(10);
            cooldown.models.begin(model, NOW, length, Begun::Told(number))
        };
        assert!(told("a", 1) && told("b", 2));
        let of = |model: &'static str| move || Some(model.to_owned());
        let ended = cooldown.answered(cooldown.mark(), &|| Proof::Quota, &of("a"));
        let model = Some(("a".to_owned(), vec![1]));
        assert_eq!(ended, Some(Ended { provider: None, model }));
        assert!(!told("a", 1), "its message came late");
        assert!(!cooldown.ended_elsewhere(Some("b"), &[1]));
        assert!(!cooldown.ended_elsewhere(Some("a"), &[2]), "it is b's");
        assert!(cooldown.ended_elsewhere(Some("b"), &[2]) && !cooldown.is_set());
        assert!(told("b", 3));
    }
}
