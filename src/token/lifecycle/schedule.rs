//! The time of the next refresh: the plan, orders, refusals, and the waits after failures and for a wrong clock.

use fastrand::Rng;

use crate::clock::{Due, Moment, RELEASED_AT, Timestamp};
use crate::record::{Saved, SavedAccess};
use crate::token::backoff::{self, Room, WANTED_DELAY_MAX_MS};
use crate::token::grant::{Class, Failure, Grant, What};
use crate::token::lifecycle::access::HeldToken;
use crate::token::lifecycle::outlook::{MarkerNews, Outlook};
use crate::token::lifecycle::policy::Policy;

/// The longest wait for a wrong wall clock to be set.
pub(crate) const WRONG_CLOCK_WAIT_MS: u64 = 600_000;
/// The wait after a resource of this machine ran out that a request needs.
const SHORTAGE_RETRY_MS: u64 = 1_000;

/// The next action of the refresher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instruction {
    /// Nothing for this many milliseconds, unless something happens.
    Wait(u64),
    /// Nothing for this many milliseconds, because the wall clock must be wrong.
    WaitForClock(u64),
    /// Refresh now.
    Refresh,
}

/// A failed try.
#[derive(Clone, Copy, Debug)]
struct Try {
    at: Moment,
    class: Class,
    /// True if a secret was missing.
    is_missing: bool,
    /// The time until which the issuer asked to be left alone.
    asked_until: Option<Due>,
}

/// The access token in hand, and the time of the next refresh.
#[derive(Debug)]
pub(super) struct Schedule {
    pub(super) access: HeldToken,
    /// The wait after a permanent failure, in milliseconds.
    retry_interval_ms: u64,
    started: Moment,
    /// True after a successful or ordered refresh: a wrong wall clock is not awaited any more.
    ignores_clock: bool,
    /// Failures since the last success.
    pub(super) failures: u32,
    /// The last of these in a row, for which requests without a token waited.
    failures_while_wanted: u32,
    /// The time of the next try after a failure, or after a refresh whose answer is missing.
    pub(super) next_attempt: Option<Due>,
    /// The time of a try because of another's whose outcome is not known, until it is.
    after_marker: Option<Due>,
    /// The last try that failed; None once one succeeds.
    last_failure: Option<Try>,
    /// The time of the last order, until it is tried.
    ordered: Option<Moment>,
    /// True if a request found no usable token since the last try.
    is_wanted: bool,
}

impl Schedule {
    pub(super) fn new(policy: &Policy, now: Moment) -> Self {
        Self {
            access: HeldToken::new(policy, now),
            retry_interval_ms: policy.retry_interval_ms,
            started: now,
            ignores_clock: false,
            failures: 0,
            failures_while_wanted: 0,
            next_attempt: None,
            after_marker: None,
            last_failure: None,
            ordered: None,
            is_wanted: false,
        }
    }

    /// The configuration has changed.
    pub(super) fn set_policy(&mut self, policy: &Policy) {
        self.access.set_policy(policy);
        self.retry_interval_ms = policy.retry_interval_ms;
    }

    /// Returns the instruction at `now`; `saved_at` is the time at which the newest record was written.
    pub(super) fn next(&self, saved_at: Timestamp, now: Moment) -> Instruction {
        let wait_ms = self.due(now).left_ms(now);
        if wait_ms > 0 {
            return Instruction::Wait(wait_ms);
        }
        match self.clock_wait_left_ms(saved_at, now) {
            Some(wait_ms) => Instruction::WaitForClock(wait_ms),
            None => Instruction::Refresh,
        }
    }

    /// The time of the next refresh, whether or not the wall clock is right.
    fn due(&self, now: Moment) -> Due {
        if self.ordered.is_some() {
            return Due::after(now, 0);
        }
        let planned = self.planned_or_now(now);
        self.access.rejection.refresh_due.map_or(planned, |due| due.earlier(planned))
    }

    /// The time of the next refresh without an order.
    pub(super) fn planned_or_now(&self, now: Moment) -> Due {
        self.planned().unwrap_or(Due::after(now, 0))
    }

    /// The same; None if there is nothing to wait for.
    fn planned(&self) -> Option<Due> {
        let own = self.next_attempt.or_else(|| self.access.refresh_due());
        match (own, self.after_marker) {
            (Some(own), Some(after_marker)) => Some(own.earlier(after_marker)),
            (own, after_marker) => own.or(after_marker),
        }
    }

    /// Orders a refresh now, in spite of any delay.
    pub(super) fn order(&mut self, now: Moment) {
        self.ordered = Some(now);
        self.ignores_clock = true;
    }

    /// A request found no usable token. While such requests come, a transient failure is soon followed by a try.
    /// Returns true if that brings the next try forward.
    pub(super) fn wanted(&mut self, now: Moment) -> bool {
        if self.access.usable_ms(now).is_some() {
            return false;
        }
        self.is_wanted = true;
        let (Some(last), Some(next)) = (self.last_failure, self.next_attempt) else { return false };
        if last.class != Class::Transient {
            return false;
        }
        let soon = Due::after(last.at, WANTED_DELAY_MAX_MS);
        let soon = last.asked_until.map_or(soon, |asked| soon.later(asked));
        let brought = next.earlier(soon);
        self.next_attempt = Some(brought);
        brought != next
    }

    /// The provider refused the token in hand. Returns the wait until it is refreshed for that, in milliseconds; None
    /// if its refusal is known, or `is_refused_elsewhere`.
    pub(super) fn rejected(&mut self, is_refused_elsewhere: bool, now: Moment) -> Option<u64> {
        let is_news = self.access.rejection.note(now);
        if !is_news || is_refused_elsewhere {
            return None;
        }
        let asked_until = self.last_failure.and_then(|last| last.asked_until);
        let due = self.access.rejection.plan(asked_until, now);
        self.ignores_clock |= due.reached(now);
        Some(due.left_ms(now))
    }

    /// Notes that a try was given up before anything was sent, and not because of another process or host: an order has
    /// to be given again. Returns true if the try was ordered.
    pub(super) fn withdrawn(&mut self) -> bool {
        self.access.rejection.withdrawn();
        self.ordered.take().is_some()
    }

    /// A refresh brought `grant`. Returns the record of its access token.
    pub(super) fn granted(
        &mut self,
        grant: &Grant,
        sent: Moment,
        now: Moment,
        rng: &mut Rng,
    ) -> SavedAccess {
        let is_ordered = self.ordered.take().is_some();
        self.is_wanted = false;
        self.ignores_clock = true;
        self.settle();
        self.access.take(grant, is_ordered, sent, now, rng)
    }

    /// Takes up the token of `record`, which came from `source`. Returns true if it is a different one that is still
    /// valid.
    pub(super) fn take_up(&mut self, record: &Saved, source: &'static str, now: Moment) -> bool {
        let brought = self.access.take_up(record, source, now);
        // A token that was stored before the order, or while a refresh was under way, does not fulfil the order.
        let came_after = |ordered: Moment| record.saved_at >= ordered.wall;
        if brought && record.pending.is_none() && self.ordered.is_some_and(came_after) {
            self.ordered = None;
        }
        brought
    }

    /// Forgets the failures that delayed the next try.
    pub(super) fn settle(&mut self) {
        self.failures = 0;
        self.failures_while_wanted = 0;
        self.next_attempt = None;
        self.after_marker = None;
        self.last_failure = None;
    }

    /// Plans the next try by a new record.
    pub(super) fn follow(&mut self, outlook: &Outlook, now: Moment) {
        if outlook.is_settled {
            self.settle();
        }
        if let Some(retry_at) = outlook.retry_at {
            self.failures = self.failures.max(1);
            // A clock that was fast at the time of storing does not lengthen the wait.
            let longest = Due::after(now, self.retry_interval_ms);
            self.next_attempt = Some(Due::at(retry_at, now).earlier(longest));
        }
        if outlook.seed_is_due {
            self.next_attempt = Some(Due::after(now, 0));
        }
        // A try whose outcome comes, or is known to be lost, calls forth none here, or those of several hosts would call forth
        // each other without end.
        match outlook.marker {
            MarkerNews::Begun => {
                let asked_until = self.last_failure.and_then(|last| last.asked_until);
                let soon = Due::after(now, 0);
                self.after_marker = Some(asked_until.map_or(soon, |asked| soon.later(asked)));
            }
            MarkerNews::Known => {}
            MarkerNews::Gone => self.after_marker = None,
        }
    }

    /// A try failed. Plans the next one, and returns its time.
    pub(super) fn plan_after(
        &mut self,
        failure: &Failure,
        falls_back_to_seed: bool,
        now: Moment,
        rng: &mut Rng,
    ) -> Due {
        self.after_marker = None;
        let is_ours = matches!(failure.what, What::Short(_));
        self.failures = self.failures.saturating_add(u32::from(!is_ours));
        let is_transient = failure.class == Class::Transient;
        let delay_ms = match failure.class {
            _ if falls_back_to_seed => 0,
            // It says nothing about the issuer, so the wait does not grow.
            Class::Transient if is_ours => SHORTAGE_RETRY_MS,
            Class::Transient => {
                let room = self.room(now);
                backoff::delay_ms(self.failures_in(room), room, rng)
            }
            Class::Permanent | Class::TokenDead => self.retry_interval_ms,
        };
        // An ordered try does not delay the planned one. A plan for a try soon ends if this failure says that such a
        // try does not help.
        let was_transient = self.last_failure.is_some_and(|last| last.class == Class::Transient);
        let is_over = is_ours || was_transient && !is_transient;
        let planned = self.planned().filter(|planned| !is_over && !planned.reached(now));
        let next = Due::after(now, delay_ms);
        let next = planned.map_or(next, |planned| next.earlier(planned));
        let asked_ms = failure.retry_after_ms.filter(|_| is_transient);
        let asked_until = asked_ms.map(|ms| Due::after(now, ms.min(backoff::RETRY_AFTER_MAX_MS)));
        let next = asked_until.map_or(next, |asked| next.later(asked));
        self.last_failure = Some(Try {
            at: now,
            class: failure.class,
            is_missing: matches!(failure.what, What::Missing(_)),
            asked_until,
        });
        self.next_attempt = Some(next);
        self.ordered = None;
        self.is_wanted = false;
        // The refresh of a refused token was tried, so the backoff decides about the next one.
        self.access.rejection.refresh_due = None;
        next
    }

    /// The number of failures in a row that the next delay counts. The doubling begins anew when requests begin to
    /// wait: earlier failures, with a token or without a waiting request, say nothing about how long requests should
    /// wait.
    fn failures_in(&mut self, room: Room) -> u32 {
        if room != Room::Wanted {
            self.failures_while_wanted = 0;
            return self.failures;
        }
        self.failures_while_wanted = self.failures_while_wanted.saturating_add(1);
        self.failures_while_wanted
    }

    /// The bound that the next delay has to fit into.
    fn room(&self, now: Moment) -> Room {
        match self.access.usable_ms(now) {
            Some(left_ms) => Room::Before(left_ms),
            None if self.is_wanted || self.access.rejection.is_known => Room::Wanted,
            None => Room::Unwanted,
        }
    }

    /// The rest of a due refresh's wait for a wrong wall clock to be set, in milliseconds. None once the clock is
    /// right, after [`WRONG_CLOCK_WAIT_MS`], after an order, and after a successful refresh, because tokens are timed
    /// by both clocks. A wall clock is wrong if it is behind this program, or behind the record written at `saved_at`.
    pub(super) fn clock_wait_left_ms(&self, saved_at: Timestamp, now: Moment) -> Option<u64> {
        let lag_ms = u64::try_from(RELEASED_AT.max(saved_at).millis_since(now.wall)).unwrap_or(0);
        let waited_ms = now.steady_ms.saturating_sub(self.started.steady_ms);
        let wait_ms = lag_ms.min(WRONG_CLOCK_WAIT_MS.saturating_sub(waited_ms));
        (wait_ms > 0 && !self.ignores_clock).then_some(wait_ms)
    }

    /// True if the last try failed because a secret was missing.
    pub(super) fn lacks_a_secret(&self) -> bool {
        self.last_failure.is_some_and(|last| last.is_missing)
    }
}
