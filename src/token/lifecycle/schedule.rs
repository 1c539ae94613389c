//! When the next refresh is: what was planned, what was ordered, and what holds it up.

use fastrand::Rng;

use crate::clock::{Due, Moment, RELEASED_AT, Timestamp};
use crate::token::backoff::{self, Room, WANTED_DELAY_MAX_MS};
use crate::token::grant::{Class, Failure, What};
use crate::token::lifecycle::{Lifecycle, Step};

/// How long a wall clock that must be wrong is waited out.
pub const WRONG_CLOCK_WAIT_MS: u64 = 600_000;
/// How long until the next try where we had run out of what it takes.
pub(super) const SHORTAGE_RETRY_MS: u64 = 1_000;

/// A try that failed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Try {
    at: Moment,
    class: Class,
    /// A secret was not there.
    pub(super) is_missing: bool,
    /// Until when the issuer asked to be left alone.
    asked_until: Option<Due>,
}

impl Lifecycle {
    /// What to do at `now`.
    pub fn next(&self, now: Moment) -> Step {
        let wait_ms = self.due(now).left_ms(now);
        if wait_ms > 0 {
            return Step::Wait(wait_ms);
        }
        match self.clock_wait_left_ms(now) {
            Some(wait_ms) => Step::WaitForClock(wait_ms),
            None => Step::Refresh,
        }
    }

    /// When the next refresh is due, whatever the wall clock is thought of.
    fn due(&self, now: Moment) -> Due {
        let at_once = Due::after(now, 0);
        if self.ordered.is_some() {
            return at_once;
        }
        let planned = self.planned().unwrap_or(at_once);
        self.rejection.refresh_due().map_or(planned, |due| due.earlier(planned))
    }

    /// When the next refresh is due that nobody asked for; None where there is nothing to wait for.
    fn planned(&self) -> Option<Due> {
        self.next_attempt.or_else(|| self.token.as_ref().map(|_| self.refresh_due))
    }

    /// Somebody wants a refresh now, whatever stands against it.
    pub fn order(&mut self, now: Moment) {
        self.ordered = Some(now);
        self.refused_chain = None;
        self.ignores_clock = true;
    }

    /// A request found no token that it could use. While such requests come, what helps by itself is tried
    /// again soon. Returns whether that brings the next try forward.
    pub fn wanted(&mut self, now: Moment) -> bool {
        if self.has_usable_token(now) {
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

    /// A try was given up before anything was sent, and not for another process or host: whoever asked
    /// for it has to ask again. Returns whether it was ordered.
    pub fn withdrawn(&mut self) -> bool {
        self.rejection.withdrawn();
        self.ordered.take().is_some()
    }

    /// Whether there is a token that has not ended and, as far as is known, is not refused.
    fn has_usable_token(&self, now: Moment) -> bool {
        let is_valid = self.token.as_ref().is_some_and(|token| !token.expires.reached(now));
        is_valid && !self.rejection.is_known()
    }

    /// Until when the issuer asked to be left alone.
    pub(super) fn asked_until(&self) -> Option<Due> {
        self.last_failure?.asked_until
    }

    /// A try failed: when the next one is. It is planned from here on.
    pub(super) fn plan_after(
        &mut self,
        failure: &Failure,
        falls_back_to_seed: bool,
        now: Moment,
        rng: &mut Rng,
    ) -> Due {
        let is_ours = matches!(failure.what, What::Short(_));
        self.failures = self.failures.saturating_add(u32::from(!is_ours));
        let asked_until = match failure.class {
            Class::Transient => failure.retry_after_ms,
            Class::Permanent | Class::TokenDead => None,
        };
        let asked_until =
            asked_until.map(|ms| Due::after(now, ms.min(backoff::RETRY_AFTER_MAX_MS)));
        let next = match failure.class {
            _ if falls_back_to_seed => Due::after(now, 0),
            // It tells nothing of the issuer, so nothing grows.
            Class::Transient if is_ours => Due::after(now, SHORTAGE_RETRY_MS),
            Class::Transient => {
                let room = self.room(now);
                let delay_ms = backoff::delay_ms(self.failures_in(room), room, rng);
                self.unless_planned_before(Due::after(now, delay_ms), failure.class, now)
            }
            Class::Permanent | Class::TokenDead => {
                let next = Due::after(now, self.policy.retry_interval_ms);
                self.unless_planned_before(next, failure.class, now)
            }
        };
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
        self.rejection.tried();
        next
    }

    /// `next`, or what was planned before the try if that comes earlier: a try that somebody asked for does
    /// not delay the one that was planned. What was planned to help by itself is over where `class` says
    /// that nothing does.
    fn unless_planned_before(&self, next: Due, class: Class, now: Moment) -> Due {
        let is_over = class != Class::Transient
            && self.last_failure.is_some_and(|last| last.class == Class::Transient);
        match self.planned() {
            Some(planned) if !is_over && !planned.reached(now) => next.earlier(planned),
            _ => next,
        }
    }

    /// How many failures in a row the next delay counts. The doubling begins anew when requests begin to wait:
    /// what came before, with a token or for nobody, says nothing of how long they should.
    fn failures_in(&mut self, room: Room) -> u32 {
        if room != Room::Wanted {
            self.failures_while_wanted = 0;
            return self.failures;
        }
        self.failures_while_wanted = self.failures_while_wanted.saturating_add(1);
        self.failures_while_wanted
    }

    /// What the next delay has to fit into.
    fn room(&self, now: Moment) -> Room {
        match &self.token {
            Some(token) if self.has_usable_token(now) => Room::Before(token.expires.left_ms(now)),
            _ if self.is_wanted || self.rejection.is_known() => Room::Wanted,
            _ => Room::Unwanted,
        }
    }

    /// How long a refresh waits, or would, for a wrong wall clock to be set: None once it is right, once it was waited for
    /// long enough, once somebody asked for a refresh, and once one succeeded, since tokens are timed by
    /// both clocks.
    pub fn clock_wait_left_ms(&self, now: Moment) -> Option<u64> {
        let lag_ms = self.wall_clock_lag_ms(now).filter(|_| !self.ignores_clock)?;
        let waited_ms = now.steady_ms.saturating_sub(self.started.steady_ms);
        let patience_ms = WRONG_CLOCK_WAIT_MS.checked_sub(waited_ms).filter(|left| *left > 0)?;
        Some(lag_ms.min(patience_ms))
    }

    /// How far the wall clock is behind this program, or behind the state file: it is wrong then.
    fn wall_clock_lag_ms(&self, now: Moment) -> Option<u64> {
        let least = RELEASED_AT.max(self.saved.saved_at);
        u64::try_from(least.millis_since(now.wall)).ok().filter(|lag| *lag > 0)
    }

    /// When the next try is, where the last one failed.
    pub fn next_attempt_at(&self) -> Option<Timestamp> {
        self.next_attempt.map(|due| due.wall)
    }
}
