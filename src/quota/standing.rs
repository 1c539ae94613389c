//! What is left of one account's windows, as its provider said last: what is shown, and when the account counts as having
//! nothing left. Pure.

use std::cell::OnceCell;

use serde::{Deserialize, Serialize};

use crate::clock::{Due, Moment, Timestamp};
use crate::quota::account::AccountId;
use crate::quota::fields::{RESET_MAX, Reading, Scope, WINDOWS_MAX, is_name};

/// The longest time for which a provider is passed over without being asked again: a week.
pub(crate) const PASSED_OVER_MAX_MS: u64 = 7 * 24 * 3_600_000;
/// The time for which a window without a known reset is shown.
pub(crate) const SHOWN_WITHOUT_RESET_MS: u64 = 600_000;
/// The most windows of single models that are known; one more takes the place of one that has something left, or
/// ends soonest.
pub(crate) const MODEL_WINDOWS_MAX: usize = 24;
/// Windows of models with longer names are passed over.
pub(crate) const MODEL_NAME_MAX_BYTES: usize = 256;
/// The least change of a share that is news for the disk and for other hosts.
const RATIO_STEP: f64 = 0.01;
/// The least change of a reset that is news. Some providers state the time until the reset in whole seconds, so that
/// the same reset moves a little.
const RESET_STEP_MS: u64 = 2_000;
/// The least time until a reset that makes a window worth keeping.
const KEPT_MIN_MS: u64 = 10_000;

/// One window of an account.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Window {
    /// Its name, in lower case.
    pub name: String,
    /// The requests that it limits.
    pub scope: Scope,
    /// The model that it limits, if its scope is one model; None stands for requests without a model.
    pub model: Option<String>,
    /// The share that is left, from 0 to 1, if known.
    pub remaining_ratio: Option<f64>,
    /// Its reset, if known.
    pub reset: Option<Due>,
    /// The time until which it counts as used up, if it is.
    pub used_up_until: Option<Due>,
    /// The time of the last answer that stated it.
    pub stated_at: Timestamp,
    /// The time from which nothing is known about it: its reset, or a while after the last answer.
    ends: Due,
    /// The number of the answer that said last that it is used up, if it is.
    number: u64,
    /// The share and the reset at the last news about it, so that many small changes are news too.
    told: (Option<f64>, Option<Due>),
}

/// A window in a file, and in a message between hosts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct SavedWindow {
    /// See [`Window::name`].
    pub name: String,
    /// See [`Window::scope`].
    pub scope: Scope,
    /// See [`Window::model`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// See [`Window::remaining_ratio`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remaining_ratio: Option<f64>,
    /// See [`Window::reset`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reset_at: Option<Timestamp>,
    /// See [`Window::used_up_until`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_up_until: Option<Timestamp>,
    /// See [`Window::stated_at`].
    pub stated_at: Timestamp,
}

/// The importance of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Change {
    /// Nothing that anybody else has to know.
    None,
    /// Another share is left, or another reset.
    Level,
    /// A window is used up, or no longer.
    UsedUp,
}

/// The windows of an account.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Windows {
    account: AccountId,
    list: Vec<Window>,
    /// The number of answers so far that said that a window is used up.
    used_up_answers: u64,
}

impl Windows {
    /// Marks the time of sending a request.
    pub(crate) fn mark(&self) -> u64 {
        self.used_up_answers
    }

    /// Takes over the windows of an answer for `account` about the model that `model` returns, to a request that was sent
    /// at the mark `sent`. Those of another account are forgotten. What answers to later requests said to be used up
    /// stays so.
    pub(crate) fn note(
        &mut self,
        account: AccountId,
        readings: &[Reading<'_>],
        model: &dyn Fn() -> Option<String>,
        (sent, now): (u64, Moment),
    ) -> Change {
        let mut change = self.change_account(account);
        if readings.iter().any(|one| one.used_up_until.is_some()) {
            self.used_up_answers += 1;
        }
        let asked = OnceCell::new();
        for reading in readings {
            let is_of_model = reading.scope == Scope::Model;
            let model = if is_of_model { asked.get_or_init(|| named(model)).clone() } else { None };
            if model.as_ref().is_some_and(|name| name.len() > MODEL_NAME_MAX_BYTES) {
                continue;
            }
            // Field names and tokens are ASCII.
            let name = String::from_utf8_lossy(reading.name).to_ascii_lowercase();
            let reset = reading.reset_at.map(|at| Due::at(at, now));
            let window = Window {
                name,
                scope: reading.scope,
                model,
                remaining_ratio: reading.remaining_ratio,
                reset,
                used_up_until: reading.used_up_until.map(|at| bounded(at, now)),
                stated_at: now.wall,
                ends: reset.unwrap_or(Due::after(now, SHOWN_WITHOUT_RESET_MS)),
                number: self.used_up_answers,
                told: (reading.remaining_ratio, reset),
            };
            let is_late = |known: &Window| {
                known.is_same(&window) && known.is_used_up(now) && known.number > sent
            };
            if window.used_up_until.is_none() && self.list.iter().any(is_late) {
                continue;
            }
            let window = if reading.is_bare() {
                match self.list.iter().find(|known| known.is_same(&window)) {
                    None => continue,
                    // Other hosts hear of it only with a reset.
                    Some(Window { reset, ends, .. }) => {
                        Window { reset: *reset, ends: *ends, ..window }
                    }
                }
            } else {
                window
            };
            change = change.max(self.put(window, now));
        }
        change
    }

    /// Takes over windows from a file or another host, unless something newer is known about them.
    pub(crate) fn restore(&mut self, account: AccountId, saved: &[SavedWindow], now: Moment) {
        self.change_account(account);
        for one in saved.iter().take(WINDOWS_MAX + MODEL_WINDOWS_MAX) {
            let Some(window) = one.window(now) else { continue };
            let known = self.list.iter().find(|known| known.is_same(&window));
            if known.is_none_or(|known| known.stated_at < window.stated_at) {
                self.used_up_answers += u64::from(window.used_up_until.is_some());
                self.put(Window { number: self.used_up_answers, ..window }, now);
            }
        }
    }

    /// Forgets the windows of any other account.
    pub(crate) fn change_account(&mut self, account: AccountId) -> Change {
        if self.account == account {
            return Change::None;
        }
        self.account = account;
        let had_any = !self.list.is_empty();
        self.list.clear();
        if had_any { Change::UsedUp } else { Change::None }
    }

    fn put(&mut self, mut window: Window, now: Moment) -> Change {
        if let Some(known) = self.list.iter_mut().find(|known| known.is_same(&window)) {
            let change = window.change_from(known, now);
            if change == Change::None {
                window.told = known.told;
            }
            *known = window;
            return change;
        }
        let is_used_up = window.used_up_until.is_some();
        if !self.makes_room(&window, now) {
            return Change::None;
        }
        self.list.push(window);
        if is_used_up { Change::UsedUp } else { Change::Level }
    }

    /// Removes a window if there are too many like `window`; false if none gives way to it.
    fn makes_room(&mut self, window: &Window, now: Moment) -> bool {
        let is_of_model = window.is_of_model();
        let is_used_up = window.used_up_until.is_some();
        let kin = |one: &&Window| one.is_of_model() == is_of_model;
        let most = if is_of_model { MODEL_WINDOWS_MAX } else { WINDOWS_MAX };
        if self.list.iter().filter(kin).count() < most {
            return true;
        }
        // A window that is over gives way to any, and a window that decides nothing to one that does. Models are
        // countless, so the newest matter.
        let position = |gives_way: &dyn Fn(&Window) -> bool| {
            self.list.iter().position(|one| kin(&one) && gives_way(one))
        };
        let idle = |one: &Window| one.used_up_until.is_none_or(|due| due.reached(now));
        let over = position(&|one| one.ends.reached(now));
        let place = over.or_else(|| position(&|one| (is_used_up || is_of_model) && idle(one)));
        let left_ms = |at: &usize| self.list[*at].used_up_until.map_or(0, |due| due.left_ms(now));
        let soonest = || {
            let all = (0..self.list.len()).filter(|at| is_used_up && self.list[*at].is_of_model());
            all.filter(|_| is_of_model).min_by_key(left_ms)
        };
        let Some(place) = place.or_else(soonest) else { return false };
        self.list.swap_remove(place);
        true
    }

    /// The windows about which something is known.
    fn current(&self, account: AccountId, now: Moment) -> impl Iterator<Item = &Window> {
        let is_own = self.account == account;
        self.list.iter().filter(move |one| is_own && !one.ends.reached(now))
    }

    /// The windows that are shown: of the models that have something left, the one that was stated last.
    pub(crate) fn shown(&self, account: AccountId, now: Moment) -> Vec<Window> {
        let all: Vec<&Window> = self.current(account, now).collect();
        let is_idle = |one: &Window| one.is_of_model() && !one.is_used_up(now);
        let is_hidden = |(place, one): (usize, &Window)| {
            let is_later = |(at, other): (usize, &&Window)| {
                (other.stated_at, at) > (one.stated_at, place)
                    && other.name == one.name
                    && is_idle(other)
            };
            is_idle(one) && all.iter().enumerate().any(is_later)
        };
        let shown = all.iter().enumerate().filter(|(place, one)| !is_hidden((*place, one)));
        shown.map(|(_, one)| (*one).clone()).collect()
    }

    /// The time until which the account has nothing left for requests for the model that `model` returns; None if it
    /// has. A window for a family of models counts only for models whose names contain the family's, and a window for
    /// one model for that one alone.
    pub(crate) fn used_up_until(
        &self,
        account: AccountId,
        model: &dyn Fn() -> Option<String>,
        now: Moment,
    ) -> Option<Due> {
        let own = self.current(account, now).filter(|window| window.is_used_up(now));
        let asked = OnceCell::new();
        let asked = || asked.get_or_init(|| named(model)).as_deref();
        let own = own.filter(|window| window.limits(&asked));
        own.filter_map(|window| window.used_up_until).max_by_key(|until| until.left_ms(now))
    }

    /// The time until which the account has nothing left for any request; None if it has.
    pub(crate) fn nothing_left_until(&self, account: AccountId, now: Moment) -> Option<Due> {
        let own = self.current(account, now).filter(|window| window.scope == Scope::Account);
        own.filter_map(|window| window.used_up_until(now)).max_by_key(|until| until.left_ms(now))
    }

    /// True if some window counts as used up, for whatever model.
    pub(crate) fn has_used_up(&self, now: Moment) -> bool {
        self.used_up(now).next().is_some()
    }

    /// The windows that count as used up, for whatever model.
    pub(crate) fn used_up(&self, now: Moment) -> impl Iterator<Item = &Window> {
        self.list.iter().filter(move |one| one.is_used_up(now))
    }

    /// The windows that are worth keeping over a restart, and telling other hosts.
    pub(crate) fn saved(&self, now: Moment) -> Vec<SavedWindow> {
        let worth = self.current(self.account, now).filter(|one| one.is_worth_keeping(now));
        let saved = |one: &Window| SavedWindow {
            name: one.name.clone(),
            scope: one.scope,
            model: one.model.clone(),
            remaining_ratio: one.remaining_ratio,
            reset_at: one.reset.map(|due| due.wall),
            used_up_until: one.used_up_until.map(|due| due.wall),
            stated_at: one.stated_at,
        };
        worth.map(saved).collect()
    }

    /// The account.
    pub(crate) fn account(&self) -> AccountId {
        self.account
    }
}

/// The model that `model` returns; an empty name is none.
fn named(model: &dyn Fn() -> Option<String>) -> Option<String> {
    model().filter(|name| !name.is_empty())
}

/// The point `at`, or a week from now.
fn bounded(at: Timestamp, now: Moment) -> Due {
    Due::at(at, now).earlier(Due::after(now, PASSED_OVER_MAX_MS))
}

impl Window {
    fn is_used_up(&self, now: Moment) -> bool {
        self.used_up_until(now).is_some()
    }

    /// The time until which it has nothing left, if it counts for any request.
    pub(crate) fn used_up_until(&self, now: Moment) -> Option<Due> {
        self.used_up_until.filter(|due| !due.reached(now) && self.scope != Scope::Unknown)
    }

    fn is_of_model(&self) -> bool {
        self.scope == Scope::Model
    }

    /// True if `other` is what is known about the same window at another time.
    fn is_same(&self, other: &Self) -> bool {
        let are_of_models = self.is_of_model() && other.is_of_model();
        self.name == other.name && (!are_of_models || self.model == other.model)
    }

    /// Its name, and its model if it limits one.
    pub(crate) fn label(&self) -> String {
        let Self { name, model, .. } = self;
        model.as_ref().map_or_else(|| name.clone(), |model| format!("{name} of {model:?}"))
    }

    fn limits<'m>(&self, asked: &dyn Fn() -> Option<&'m str>) -> bool {
        match self.scope {
            Scope::Account => true,
            Scope::Family => {
                let family = self.name.split_once('_').map_or("", |(_, family)| family);
                !family.is_empty()
                    && asked().is_some_and(|model| model.to_ascii_lowercase().contains(family))
            }
            Scope::Model => asked() == self.model.as_deref(),
            Scope::Unknown => false,
        }
    }

    fn is_worth_keeping(&self, now: Moment) -> bool {
        let left = self.reset.or(self.used_up_until).map_or(0, |due| due.left_ms(now));
        left >= KEPT_MIN_MS
    }

    fn change_from(&self, before: &Self, now: Moment) -> Change {
        let left_ms = |due: Option<Due>| due.map_or(0, |due| due.left_ms(now));
        let (ratio, reset) = before.told;
        let moved = left_ms(self.reset).abs_diff(left_ms(reset)) >= RESET_STEP_MS;
        let stepped = match (self.remaining_ratio, ratio) {
            (Some(now), Some(before)) => (now - before).abs() >= RATIO_STEP,
            (now, before) => now.is_some() != before.is_some(),
        };
        if self.is_used_up(now) != before.is_used_up(now) {
            Change::UsedUp
        } else if (stepped || moved) && self.is_worth_keeping(now) {
            Change::Level
        } else {
            Change::None
        }
    }
}

impl SavedWindow {
    /// None if it is over, or what it says can't be right.
    fn window(&self, now: Moment) -> Option<Window> {
        let is_soon = |at: Timestamp| {
            let left = u64::try_from(at.millis_since(now.wall)).ok().filter(|left| *left > 0);
            left.is_some_and(|left| u128::from(left) <= RESET_MAX.as_millis())
        };
        let reset_at = self.reset_at.filter(|at| is_soon(*at));
        let used_up_until = self.used_up_until.filter(|at| is_soon(*at));
        let ends = reset_at.or(used_up_until).filter(|_| is_name(self.name.as_bytes()))?;
        let reset = reset_at.map(|at| Due::at(at, now));
        let remaining_ratio = self.remaining_ratio.filter(|ratio| (0.0..=1.0).contains(ratio));
        let model = self.model.clone().filter(|_| self.scope == Scope::Model);
        if model.as_ref().is_some_and(|name| name.len() > MODEL_NAME_MAX_BYTES) {
            return None;
        }
        Some(Window {
            name: self.name.clone(),
            scope: self.scope,
            model,
            remaining_ratio,
            reset,
            used_up_until: used_up_until.map(|at| bounded(at, now)),
            stated_at: self.stated_at.min(now.wall),
            ends: Due::at(ends, now),
            number: 0,
            told: (remaining_ratio, reset),
        })
    }
}

#[cfg(test)]
mod tests;
