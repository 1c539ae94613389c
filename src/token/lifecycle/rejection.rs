//! What a provider's refusal of the token in hand leads to.
//!
//! A refused token is refreshed at once. Where the token that this brought is refused in its turn, another
//! one would hardly be better: that refresh waits, twice as long each time. What ends the doubling is a
//! token that came otherwise (by schedule, by an order, by a login), or one that was not refused for as
//! long as the longest wait. The count is stored with the token, so that it goes on over a restart and
//! holds for all hosts of a chain together.

use crate::clock::{Due, Moment};
use crate::token::backoff::{REJECTION_WAIT_MAX_MS, rejection_wait_ms};
use crate::token::lifecycle::{Lifecycle, Step};
use crate::token::store::Generation;

/// What a refusal leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnRejection {
    /// A refresh, at once.
    Refresh,
    /// Nothing of its own: a refresh begins at once anyway.
    Join,
    /// A refresh in so many milliseconds, which no request waits for.
    Later(u64),
    /// Nothing: that token was replaced since, or its refusal is known.
    Nothing,
}

/// What is known of the provider refusing the token in hand.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rejection {
    /// How many refreshes of refused tokens in a row brought this one.
    in_a_row: u32,
    /// When a refresh brought it.
    since: Option<Due>,
    /// It was refused.
    is_known: bool,
    /// When it is refreshed for that; None once that was tried.
    refresh_due: Option<Due>,
}

impl Rejection {
    /// Another process or host brought a token, or had the one in hand repeated, `age_ms` before `now`.
    pub(super) fn begun(in_a_row: u32, age_ms: u64, now: Moment) -> Self {
        let age_ms = age_ms.min(REJECTION_WAIT_MAX_MS);
        let millis = i64::try_from(age_ms).unwrap_or(i64::MAX);
        let since = Moment {
            wall: now.wall.plus_millis(-millis),
            steady_ms: now.steady_ms.saturating_sub(age_ms),
        };
        Self { in_a_row, since: Some(Due::after(since, 0)), ..Self::default() }
    }

    /// It was refused; where it had lived as long as the longest wait, the doubling is over.
    fn note(&mut self, now: Moment) {
        self.is_known = true;
        let has_lived =
            self.since.is_none_or(|since| since.plus(REJECTION_WAIT_MAX_MS).reached(now));
        if has_lived {
            self.in_a_row = 0;
        }
    }

    /// Whether the token in hand was refused.
    pub(super) fn is_known(self) -> bool {
        self.is_known
    }

    /// When the token in hand is refreshed since it was refused.
    pub(super) fn refresh_due(self) -> Option<Due> {
        self.refresh_due
    }

    /// The refresh was tried, and failed: the backoff decides about the next one.
    pub(super) fn tried(&mut self) {
        self.refresh_due = None;
    }

    /// The refresh could not be tried: the next refusal counts.
    pub(super) fn withdrawn(&mut self) {
        (self.is_known, self.refresh_due) = (false, None);
    }
}

impl Lifecycle {
    /// A provider refused the token of `generation`.
    pub fn rejected(&mut self, generation: Generation, now: Moment) -> OnRejection {
        if generation != self.generation || self.token.is_none() {
            return OnRejection::Nothing;
        }
        // Who is refused has no token that it could use.
        self.wanted(now);
        let was_due = self.next(now) == Step::Refresh;
        let is_news = !self.rejection.is_known;
        if is_news {
            self.rejection.note(now);
        }
        if is_news && !self.is_refused_elsewhere(now) {
            let due = self.after_rejection(now);
            self.ignores_clock |= due.reached(now);
            self.rejection.refresh_due = Some(due);
        }
        let due_ms = self.rejection.refresh_due.map(|due| due.left_ms(now));
        match due_ms {
            _ if was_due => OnRejection::Join,
            Some(0) if is_news => OnRejection::Refresh,
            Some(wait_ms) if is_news => OnRejection::Later(wait_ms),
            _ => OnRejection::Nothing,
        }
    }

    /// Whether another host, another process or an earlier start was told that what a refresh would present is no good:
    /// all of them together try it once.
    fn is_refused_elsewhere(&self, now: Moment) -> bool {
        let failure = self.failure_that_counts().filter(|failure| failure.retry_at > now.wall);
        failure.is_some() && failure != self.own_failure.as_ref()
    }

    /// When the token in hand, which was just refused, is refreshed.
    fn after_rejection(&self, now: Moment) -> Due {
        let at_once = Due::after(now, 0);
        let Rejection { in_a_row, since, .. } = self.rejection;
        let due = since.map_or(at_once, |since| since.plus(rejection_wait_ms(in_a_row)));
        let due = due.later(at_once);
        match self.asked_until() {
            Some(asked) => due.later(asked),
            None => due,
        }
    }

    /// How many refreshes of refused tokens in a row the token of a refresh that succeeds at `now` ends.
    pub(super) fn rejections_before_the_next_token(&self, now: Moment) -> u32 {
        let is_ordered = self.ordered.is_some();
        if is_ordered || !self.rejection.is_known || self.refresh_due.reached(now) {
            return 0;
        }
        self.rejection.in_a_row.saturating_add(1)
    }
}
