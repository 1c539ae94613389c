//! What a token life takes up from what is stored: its chain and its access token.

use crate::clock::{Due, Moment, Timestamp};
use crate::record::{Saved, SavedAccess};
use crate::token::lifecycle::Lifecycle;
use crate::token::lifecycle::rejection::Rejection;

impl Lifecycle {
    /// Takes up what the state file holds, where it is newer than what is known here, or comes from
    /// another login. Returns whether it brought another access token that is still good.
    pub fn take_up(&mut self, mut stored: Saved, now: Moment) -> bool {
        if self.is_other_login(&stored) {
            self.supersede_seeds(&mut stored);
        } else if stored.mark() <= self.saved.mark() && self.saved != Saved::default() {
            return false;
        }
        self.adopt(stored, now)
    }

    /// Goes by what is stored from now on, whether or not it is newer: what is known here could not be
    /// put in its place. Returns whether it brought another access token that is still good.
    pub fn adopt(&mut self, stored: Saved, now: Moment) -> bool {
        let known_token = self.saved.refresh_token.clone();
        let configured = self.saved.configured_seed.take();
        let client = self.saved.client.take().or_else(|| stored.client.clone());
        let own_failure = self.failure_of_new_seed();
        self.saved = Saved { configured_seed: configured, client, ..stored };
        self.note_arrived();
        let all_well = self.saved.pending.is_none() && self.saved.failure.is_none();
        if self.saved.refresh_token != known_token || all_well {
            // Another chain, the next link of ours, or a refresh that went well: what stood
            // against the next try is over.
            self.settle();
            self.own_failure = own_failure;
        }
        // A marker that is gone had its answer: where that was lost, the failure says so.
        self.unanswered = None;
        self.recall_failure(now);
        if self.saved.pending.is_some() {
            self.recall_marker(now);
        }
        self.take_up_access(now)
    }

    pub(super) fn take_up_access(&mut self, now: Moment) -> bool {
        let Some(access) = self.saved.access.clone() else { return false };
        if self.policy.seed.as_ref().is_some_and(|seed| self.seed_is_new(seed)) {
            // A new seed may belong to another account: the old account's token is not used.
            self.token = None;
            return false;
        }
        let (expires, refresh_due) = self.ends_of(&access, now);
        let rejection = Rejection::begun(access.rejections, age_ms(&access, now), now);
        if self.token.as_ref().is_some_and(|token| token.secret == access.token) {
            self.take_up_repeated(&access, refresh_due, rejection);
            return false;
        }
        if expires.reached(now) {
            return false;
        }
        self.set_token(&access, expires, refresh_due, "state_file");
        self.rejection = rejection;
        // What was stored before the order is not what was ordered.
        let came_after = |ordered: Moment| self.saved.saved_at >= ordered.wall;
        if self.saved.pending.is_none() && self.ordered.is_some_and(came_after) {
            self.ordered = None;
        }
        true
    }

    /// When a stored token ends and when it is refreshed.
    ///
    /// It may have been stored by another wall clock. By this one it ends when it was said to; by the steady
    /// clock it lives no longer than it did when it was got, or when it was last stored. Where it had ended before that,
    /// the clock was ahead when it was stored, or is wrong now: the present one counts (a token that has ended is refused).
    fn ends_of(&self, access: &SavedAccess, now: Moment) -> (Due, Due) {
        let stored_at = Some(self.saved.saved_at).filter(|at| *at < access.expires_at);
        let known_at = now.wall.max(access.obtained_at).max(stored_at.unwrap_or(now.wall));
        let due = |wall: Timestamp| {
            let left_ms = u64::try_from(wall.millis_since(known_at)).unwrap_or(0);
            Due { wall, steady_ms: now.steady_ms.saturating_add(left_ms) }
        };
        (due(access.expires_at), due(access.refresh_at))
    }

    /// Another process or host asked for another token and had the one in hand repeated: there is no other
    /// one for us either.
    fn take_up_repeated(&mut self, access: &SavedAccess, refresh_due: Due, rejection: Rejection) {
        let is_known =
            self.token.as_ref().is_some_and(|token| token.obtained_at >= access.obtained_at);
        if !is_known {
            self.move_refresh(refresh_due, access.obtained_at);
            self.rejection = rejection;
        }
    }
}

/// How long ago the token was asked for, by the wall clock.
fn age_ms(access: &SavedAccess, now: Moment) -> u64 {
    u64::try_from(now.wall.millis_since(access.obtained_at)).unwrap_or(0)
}
