//! What is left of a provider's quota while evertoken runs: noted from its answers, and asked before each choice.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::atomic::AtomicU64;
use crate::bookkeeper::Reminder;
use crate::clock::{Clock, Due, Moment, Stopwatch};
use crate::http::message::Headers;
use crate::proxy::cooldown::{Cooldown, Proof};
use crate::proxy::told::Begun;
use crate::quota::account::AccountId;
use crate::quota::fields::glance::{Glance, glance};
use crate::quota::fields::{self, Scope};
use crate::quota::refusal::COOLDOWN_MAX;
use crate::quota::standing::{Change, Window, Windows};
use crate::quota::stored::{StoredQuota, StoredRest};

/// The time between two messages about a share that changes. A window that is used up is told at once.
const TELL_EVERY_MS: u64 = 5_000;
/// The most accounts whose quota waits until this provider's account is known.
pub(crate) const EARLIER_MAX: usize = 16;

/// The quota of one provider.
#[derive(Debug)]
pub(crate) struct Allowance {
    /// Names the account, but for its origin; None if each client has an account of its own.
    base: Option<u64>,
    state: Arc<AllowanceState>,
    /// The provider's cooldown, which is kept with its quota.
    cooldown: Arc<Cooldown>,
    /// Has the quota saved.
    reminder: Option<Reminder>,
}

/// The quota itself, which the bookkeeper and the keeper read too. It outlives a reload that leaves the account as it
/// is.
#[derive(Debug, Default)]
pub(crate) struct AllowanceState {
    /// False while every window has something left and nothing waits to be taken up: requests read only this.
    is_to_be_asked: AtomicBool,
    windows: Mutex<Windows>,
    /// What earlier runs saved and other hosts told, until the account is known.
    earlier: Mutex<Vec<StoredQuota>>,
    /// The quota that earlier runs saved is among these, so that its file is not replaced.
    has_saved: AtomicBool,
    /// True if other hosts do not know the newest yet; and the time of the next message.
    is_to_be_told: AtomicBool,
    told_next_ms: AtomicU64,
    /// See [`Windows::mark`].
    used_up_mark: AtomicU64,
    /// The second of the last answer that was read.
    read_second: AtomicU64,
}

/// An answer, as it bears on the quota.
pub(crate) struct Stated<'a> {
    /// Its fields.
    pub headers: &'a Headers,
    /// Names the account of the credential with which it was asked for.
    pub origin: u64,
    /// Measures the time since the head of the request; None reads the answer in any case.
    pub begun: Option<Stopwatch>,
    /// It refuses one model: what its windows say of all requests is about that model too.
    pub is_of_one_model: bool,
    /// The mark at the time of sending the request.
    pub sent: u64,
    /// Returns the model that was asked for.
    pub model: &'a dyn Fn() -> Option<String>,
}

/// The used-up windows of a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UsedUp {
    /// Their names, with their models.
    pub windows: String,
    /// The time until the last of them has something left again.
    pub seconds: u64,
}

impl UsedUp {
    /// Those that an answer stated just now; None if there are none.
    fn of(windows: &Windows, now: Moment) -> Option<Self> {
        let stated = || windows.used_up(now).filter(|one| one.stated_at == now.wall);
        let left_ms = |one: &Window| one.used_up_until.map_or(0, |until| until.left_ms(now));
        let left_ms = stated().map(left_ms).max()?;
        let names: Vec<String> = stated().map(Window::label).collect();
        Some(Self { windows: names.join(", "), seconds: left_ms.div_ceil(1000) })
    }
}

impl AllowanceState {
    /// Begins with what earlier runs saved.
    pub(crate) fn new(earlier: Vec<StoredQuota>) -> Self {
        let [is_to_be_asked, has_saved] = [0, 1].map(|_| AtomicBool::new(!earlier.is_empty()));
        Self { is_to_be_asked, has_saved, earlier: Mutex::new(earlier), ..Self::default() }
    }

    fn windows(&self) -> MutexGuard<'_, Windows> {
        // Each change is complete in itself.
        self.windows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn earlier(&self) -> MutexGuard<'_, Vec<StoredQuota>> {
        // Each change is complete in itself.
        self.earlier.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True for the first answer of each second.
    fn is_time(&self, stated: &Stated<'_>) -> bool {
        let Some(second) = stated.begun.map(Stopwatch::second) else { return true };
        // From 1 on, because none was read at first.
        self.read_second.load(Ordering::Relaxed) != second + 1
            && self.read_second.swap(second + 1, Ordering::Relaxed) != second + 1
    }

    fn is_to_be_asked(&self) -> bool {
        self.is_to_be_asked.load(Ordering::Acquire)
    }

    /// The content of the file, with the end of the cooldown; None while what earlier runs saved waits to be taken up.
    pub(crate) fn stored(&self, cooldown: &Cooldown, now: Moment) -> Option<StoredQuota> {
        if self.has_saved.load(Ordering::Acquire) {
            return None;
        }
        let cooldown_until = cooldown.until(now).map(|until| until.wall);
        let resting = cooldown.models.all(now).into_iter();
        let resting = resting.map(|(model, until)| StoredRest { model, until: until.wall });
        let mut stored = StoredQuota::of(&self.windows(), cooldown_until, now);
        stored.resting_models = resting.collect();
        Some(stored)
    }

    /// The message to other hosts, if they do not know the newest yet.
    pub(crate) fn to_tell(&self, now: Moment) -> Option<StoredQuota> {
        let is_time = self.told_next_ms.load(Ordering::Relaxed) <= now.steady_ms;
        if !is_time || !self.is_to_be_told.swap(false, Ordering::AcqRel) {
            return None;
        }
        self.told_next_ms.store(now.steady_ms.saturating_add(TELL_EVERY_MS), Ordering::Relaxed);
        Some(StoredQuota::of(&self.windows(), None, now)).filter(|quota| !quota.windows.is_empty())
    }

    /// The other hosts know nothing of this quota.
    pub(crate) fn is_unknown(&self) {
        self.is_to_be_told.store(true, Ordering::Release);
    }

    /// Keeps the message of another host until the next look at this quota, because only then the account is known.
    pub(crate) fn hear(&self, told: StoredQuota) {
        let mut earlier = self.earlier();
        earlier.retain(|one| one.account() != told.account());
        if earlier.len() >= EARLIER_MAX {
            earlier.remove(0);
        }
        earlier.push(told);
        self.is_to_be_asked.store(true, Ordering::Release);
    }

    /// Takes up what earlier runs saved and other hosts told about `account`.
    fn take_up(&self, cooldown: &Cooldown, account: AccountId, now: Moment) {
        let mut windows = self.windows();
        for stored in std::mem::take(&mut *self.earlier()) {
            if stored.account() != Some(account) {
                continue;
            }
            windows.restore(account, &stored.windows, now);
            let left =
                |until| Duration::from_millis(Due::at(until, now).left_ms(now)).min(COOLDOWN_MAX);
            if let Some(until) = stored.cooldown_until {
                // The file and the message do not say why it began.
                cooldown.begin(now, left(until), Proof::Quota, Begun::Elsewhere);
            }
            for rest in &stored.resting_models {
                cooldown.models.begin(&rest.model, now, left(rest.until), Begun::Elsewhere);
            }
        }
        self.used_up_mark.store(windows.mark(), Ordering::Release);
        self.has_saved.store(false, Ordering::Release);
        self.is_to_be_asked.store(windows.has_used_up(now), Ordering::Release);
    }

    /// Notes a change: for the other hosts, and for the next choice.
    fn changed(&self, change: Change, has_used_up: bool) {
        self.is_to_be_asked.store(has_used_up, Ordering::Release);
        if change == Change::None {
            return;
        }
        if change == Change::UsedUp {
            self.told_next_ms.store(0, Ordering::Relaxed);
        }
        self.is_to_be_told.store(true, Ordering::Release);
    }
}

impl Allowance {
    /// Of the account that `base` names, and saved by `reminder`'s record.
    pub(crate) fn new(
        base: Option<u64>,
        state: Arc<AllowanceState>,
        cooldown: Arc<Cooldown>,
        reminder: Option<Reminder>,
    ) -> Self {
        Self { base, state, cooldown, reminder }
    }

    /// The quota itself, if `base` names its account.
    pub(crate) fn state_of(&self, base: Option<u64>) -> Option<Arc<AllowanceState>> {
        (self.base == base).then(|| self.state.clone())
    }

    /// True if the account has to be known before a choice.
    pub(crate) fn is_to_be_asked(&self) -> bool {
        self.state.is_to_be_asked()
    }

    /// Marks the time of sending a request.
    pub(crate) fn mark(&self) -> u64 {
        self.state.used_up_mark.load(Ordering::Acquire)
    }

    /// Notes the windows that an answer states. Returns the windows that are used up since this answer.
    ///
    /// While all windows have something left, one answer a second is enough.
    pub(crate) fn note(&self, stated: &Stated<'_>, clock: &Clock) -> Option<UsedUp> {
        let base = self.base?;
        match glance(stated.headers) {
            Glance::Nothing => return None,
            Glance::SomethingLeft if !self.is_to_be_asked() && !self.state.is_time(stated) => {
                return None;
            }
            Glance::SomethingLeft | Glance::MayBeUsedUp => {}
        }
        let (account, now) = (AccountId { base, origin: stated.origin }, clock.now());
        let mut readings = fields::read(stated.headers, now.wall);
        if stated.is_of_one_model {
            readings.retain(|one| one.scope != Scope::Account || one.used_up_until.is_none());
        }
        if readings.is_empty() {
            return None;
        }
        if self.is_to_be_asked() {
            self.state.take_up(&self.cooldown, account, now);
        }
        let mut windows = self.state.windows();
        let change = windows.note(account, &readings, stated.model, (stated.sent, now));
        self.state.used_up_mark.store(windows.mark(), Ordering::Release);
        self.state.changed(change, windows.has_used_up(now));
        let used_up = if change == Change::UsedUp { UsedUp::of(&windows, now) } else { None };
        drop(windows);
        match (change, &self.reminder) {
            (Change::Level, Some(reminder)) => reminder.changed(),
            (Change::UsedUp, Some(reminder)) => reminder.changed_much(),
            _ => {}
        }
        used_up
    }

    /// The provider cools down because of an answer to the account of `origin`.
    pub(crate) fn cools_down(&self, origin: u64, now: Moment) {
        let Some(base) = self.base else { return };
        let account = AccountId { base, origin };
        if self.is_to_be_asked() {
            self.state.take_up(&self.cooldown, account, now);
        }
        self.state.windows().change_account(account);
        if let Some(reminder) = &self.reminder {
            reminder.changed_much();
        }
    }

    /// The provider's cooldown, or the rest of a model, ended early. A restart must not bring it back.
    pub(crate) fn rest_ended(&self) {
        if let Some(reminder) = &self.reminder {
            reminder.changed_much();
        }
    }

    /// The time until which the account of `origin` has nothing left for requests for the model that `model` returns.
    pub(crate) fn used_up_until(
        &self,
        origin: u64,
        model: &dyn Fn() -> Option<String>,
        now: Moment,
    ) -> Option<Due> {
        let account = AccountId { base: self.base?, origin };
        self.state.take_up(&self.cooldown, account, now);
        self.state.windows().used_up_until(account, model, now)
    }

    /// The time until which the account of `origin` has nothing left for any request.
    pub(crate) fn nothing_left_until(&self, origin: u64, now: Moment) -> Option<Due> {
        let account = AccountId { base: self.base?, origin };
        self.state.take_up(&self.cooldown, account, now);
        self.state.windows().nothing_left_until(account, now)
    }

    /// The windows of the account of `origin` about which something is known.
    pub(crate) fn windows(&self, origin: u64, now: Moment) -> Vec<Window> {
        let Some(base) = self.base else { return Vec::new() };
        let account = AccountId { base, origin };
        if self.is_to_be_asked() {
            self.state.take_up(&self.cooldown, account, now);
        }
        self.state.windows().shown(account, now)
    }
}

#[cfg(test)]
mod tests;
