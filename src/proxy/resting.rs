//! The models of one provider that rest, because a refusal concerned them alone.

use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::atomic::AtomicU64;
use crate::clock::{Due, Moment};
use crate::proxy::told::{Begun, EndedNumbers, Numbers};

/// The most models of a provider that rest at a time. One more takes the place of the one that ends soonest.
pub(crate) const RESTING_MODELS_MAX: usize = 32;

/// The resting models of one provider.
#[derive(Debug, Default)]
pub(crate) struct RestingModels {
    /// The number of the latest rest; 0 while no model rests. Without a resting model, requests read only this.
    number: AtomicU64,
    list: Mutex<List>,
}

#[derive(Debug, Default)]
struct List {
    /// The number of rests so far.
    begun: u64,
    rests: Vec<Rest>,
    /// The numbers, among hosts, of rests that ended early.
    ended: EndedNumbers,
}

#[derive(Debug)]
struct Rest {
    model: String,
    until: Due,
    number: u64,
    /// Its numbers among hosts.
    numbers: Numbers,
}

impl RestingModels {
    fn list(&self) -> MutexGuard<'_, List> {
        // Each change is complete in itself.
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of the latest rest, 0 if no model rests.
    pub(super) fn mark(&self) -> u64 {
        self.number.load(Ordering::Acquire)
    }

    /// The end of the rest of the model, which `model` returns; None if it does not rest.
    pub(crate) fn until(&self, now: Moment, model: &dyn Fn() -> Option<String>) -> Option<Due> {
        if self.mark() == 0 {
            return None;
        }
        let model = model()?;
        let list = self.list();
        let rest = list.rests.iter().find(|rest| rest.model == model)?;
        Some(rest.until).filter(|until| !until.reached(now))
    }

    /// The models that rest at `now`, with the ends of their rests.
    pub(crate) fn all(&self, now: Moment) -> Vec<(String, Due)> {
        let list = self.list();
        let rests = list.rests.iter().filter(|rest| !rest.until.reached(now));
        rests.map(|rest| (rest.model.clone(), rest.until)).collect()
    }

    /// `model` was refused at `now`: it rests for `length`, or until a later end that is already set. Returns true if
    /// it did not rest before.
    pub(crate) fn begin(&self, model: &str, now: Moment, length: Duration, begun: Begun) -> bool {
        let until = Due::after(now, u64::try_from(length.as_millis()).unwrap_or(u64::MAX));
        let mut list = self.list();
        if length.is_zero() || list.ended.contain(begun) {
            return false;
        }
        list.rests.retain(|rest| !rest.until.reached(now));
        list.begun += 1;
        let number = list.begun;
        let known = list.rests.iter_mut().find(|rest| rest.model == model);
        let is_new = known.is_none();
        if let Some(rest) = known {
            (rest.until, rest.number) = (rest.until.later(until), number);
            rest.numbers.add(begun);
        } else {
            if list.rests.len() >= RESTING_MODELS_MAX {
                let soonest =
                    (0..list.rests.len()).min_by_key(|at| list.rests[*at].until.left_ms(now));
                list.rests.swap_remove(soonest.unwrap_or(0));
            }
            let mut numbers = Numbers::default();
            numbers.add(begun);
            list.rests.push(Rest { model: model.to_owned(), until, number, numbers });
        }
        self.number.store(number, Ordering::Release);
        is_new
    }

    /// A request for the model, which `model` returns, succeeded. It was sent at `mark`, and ends a rest that began
    /// before, whose model and numbers it returns.
    pub(super) fn succeeded(
        &self,
        mark: u64,
        model: &dyn Fn() -> Option<String>,
    ) -> Option<(String, Vec<u64>)> {
        if mark == 0 || self.mark() == 0 {
            return None;
        }
        let model = model()?;
        let mut list = self.list();
        let place =
            list.rests.iter().position(|rest| rest.model == model && rest.number <= mark)?;
        let numbers = list.rests.remove(place).numbers.known().to_vec();
        list.ended.add(&numbers);
        self.settle(&list);
        Some((model, numbers))
    }

    /// Another host ended the rests with these `numbers` early. Returns true if that ended the one of `model`.
    pub(super) fn ended_elsewhere(&self, model: &str, numbers: &[u64]) -> bool {
        let mut list = self.list();
        list.ended.add(numbers);
        let before = list.rests.len();
        list.rests.retain_mut(|rest| rest.model != model || !rest.numbers.ended_elsewhere(numbers));
        self.settle(&list);
        list.rests.len() < before
    }

    fn settle(&self, list: &List) {
        if list.rests.is_empty() {
            self.number.store(0, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    fn at(seconds: u64) -> Moment {
        let wall = Timestamp::from_secs(1_800_000_000 + i64::try_from(seconds).unwrap());
        Moment { wall, steady_ms: seconds * 1000 }
    }

    fn left(resting: &RestingModels, model: &str, seconds: u64) -> Option<u64> {
        let until = resting.until(at(seconds), &|| Some(model.to_owned()));
        until.map(|until| until.left_ms(at(seconds)) / 1000)
    }

    const MINUTE: Duration = Duration::from_mins(1);

    #[test]
    fn a_model_rests_and_the_others_go_on() {
        let resting = RestingModels::default();
        assert_eq!(resting.until(at(0), &|| panic!("nothing rests")), None);
        assert!(resting.begin("a", at(0), MINUTE, Begun::Here));
        assert!(
            !resting.begin("a", at(1), Duration::from_secs(5), Begun::Here),
            "it is not shortened"
        );
        assert!(resting.begin("b", at(1), Duration::from_secs(9), Begun::Here));
        assert_eq!((left(&resting, "a", 1), left(&resting, "b", 1)), (Some(59), Some(9)));
        assert_eq!(left(&resting, "c", 1), None);
        assert_eq!(resting.until(at(1), &|| None), None, "a request without a model");
        assert_eq!(left(&resting, "b", 10), None);
        assert_eq!(resting.all(at(10)).len(), 1);
        assert!(resting.begin("b", at(10), MINUTE, Begun::Here), "it is a new one");
        assert!(!resting.begin("c", at(10), Duration::ZERO, Begun::Here), "no time is no rest");
        assert_eq!(left(&resting, "c", 10), None);
    }

    #[test]
    fn a_later_success_ends_the_rest_of_its_model() {
        let resting = RestingModels::default();
        let of = |model: &'static str| move || Some(model.to_owned());
        resting.succeeded(resting.mark(), &|| panic!("nothing rests"));
        let before = resting.mark();
        resting.begin("a", at(0), MINUTE, Begun::Here);
        let between = resting.mark();
        resting.begin("b", at(0), MINUTE, Begun::Here);
        resting.succeeded(before, &of("a"));
        resting.succeeded(between, &of("b"));
        assert_eq!(resting.all(at(0)).len(), 2, "they were sent before the refusals");
        resting.succeeded(between, &of("a"));
        assert_eq!((left(&resting, "a", 0), left(&resting, "b", 0)), (None, Some(60)));
        resting.succeeded(resting.mark(), &of("b"));
        assert_eq!(resting.mark(), 0);
        resting.begin("b", at(0), MINUTE, Begun::Here);
        resting.succeeded(between, &of("b"));
        assert_eq!(left(&resting, "b", 0), Some(60), "the next rest is a new one");
    }

    #[test]
    fn the_most_models_on_both_sides_of_their_limit() {
        let resting = RestingModels::default();
        for number in 0..RESTING_MODELS_MAX {
            let length = Duration::from_secs(if number == 3 { 30 } else { 60 });
            assert!(resting.begin(&format!("m-{number}"), at(0), length, Begun::Here));
        }
        assert_eq!(resting.all(at(0)).len(), RESTING_MODELS_MAX);
        resting.begin("one-more", at(0), MINUTE, Begun::Here);
        assert_eq!(resting.all(at(0)).len(), RESTING_MODELS_MAX);
        assert_eq!(left(&resting, "m-3", 0), None, "it would have ended soonest");
        assert_eq!(left(&resting, "one-more", 0), Some(60));
    }
}
