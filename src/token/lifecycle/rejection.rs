//! Refusals of the access token by the provider, and the time of the refresh that follows.
//!
//! A refused token is refreshed at once. If the provider refuses the new token too, another one would hardly be better:
//! the next refresh waits, twice as long each time. The doubling ends with a token that came for another reason (the
//! schedule, an order, a login), or with one that was not refused for as long as the longest wait. The count is stored
//! with the token, so that it survives a restart and all hosts of a chain share it.

use crate::clock::{Due, Moment};
use crate::token::backoff::{REJECTION_WAIT_MAX_MS, rejection_wait_ms};

/// The consequence of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnRejection {
    /// A refresh begins at once.
    Refresh,
    /// A refresh is due anyway; this refusal adds none.
    Join,
    /// A refresh begins in this many milliseconds, and no request waits for it.
    Later(u64),
    /// Nothing happens: the token was replaced since, or its refusal is known.
    Nothing,
}

/// The refusals of the token in hand and of those before it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rejection {
    /// The number of refreshes of refused tokens in a row that brought this one.
    in_a_row: u32,
    /// The time at which a refresh brought it.
    since: Option<Due>,
    /// True if it was refused.
    pub(super) is_known: bool,
    /// The time at which it is refreshed for its refusal; None after the try.
    pub(super) refresh_due: Option<Due>,
}

impl Rejection {
    /// A refresh brought a token, or the same one again, `age_ms` before `now`.
    pub(super) fn begun(in_a_row: u32, age_ms: u64, now: Moment) -> Self {
        let age_ms = age_ms.min(REJECTION_WAIT_MAX_MS);
        let millis = i64::try_from(age_ms).unwrap_or(i64::MAX);
        let since = Moment {
            wall: now.wall.plus_millis(-millis),
            steady_ms: now.steady_ms.saturating_sub(age_ms),
        };
        Self { in_a_row, since: Some(Due::after(since, 0)), ..Self::default() }
    }

    /// The token was refused. Returns false if that was known.
    pub(super) fn note(&mut self, now: Moment) -> bool {
        if self.is_known {
            return false;
        }
        self.is_known = true;
        let has_lived =
            self.since.is_none_or(|since| since.plus(REJECTION_WAIT_MAX_MS).reached(now));
        if has_lived {
            self.in_a_row = 0;
        }
        true
    }

    /// Plans the refresh of the refused token, not before `asked_until`.
    pub(super) fn plan(&mut self, asked_until: Option<Due>, now: Moment) -> Due {
        let at_once = Due::after(now, 0);
        let wait_ms = rejection_wait_ms(self.in_a_row);
        let waits = [self.since.map(|since| since.plus(wait_ms)), asked_until];
        let due = waits.into_iter().flatten().fold(at_once, Due::later);
        self.refresh_due = Some(due);
        due
    }

    /// The number of refreshes in a row for the next token, if this token is refreshed for its refusal.
    pub(super) fn in_a_row_with_next(self) -> u32 {
        if self.is_known { self.in_a_row.saturating_add(1) } else { 0 }
    }

    /// The refresh could not be tried, so the next refusal counts.
    pub(super) fn withdrawn(&mut self) {
        (self.is_known, self.refresh_due) = (false, None);
    }
}
