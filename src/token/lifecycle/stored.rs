//! What a token life takes up from what is stored: its chain and its access token.

use crate::clock::{Due, Moment};
use crate::token::lifecycle::Lifecycle;
use crate::token::saved::Saved;

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
        self.saved = stored;
        let all_well = self.saved.pending.is_none() && self.saved.failure.is_none();
        if self.saved.refresh_token != known_token || all_well {
            // Another chain, the next link of ours, or a refresh that went well: what stood
            // against the next try is over.
            self.settle();
        }
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
        if self.last_success.is_none() && self.wall_clock_lag_ms(now).is_some() {
            self.clock_was_wrong = true;
            return false;
        }
        let known = self.token.as_ref().is_some_and(|token| token.secret == access.token);
        let expires = Due::at(access.expires_at, now);
        if known || expires.reached(now) {
            return false;
        }
        let refresh_due = Due::at(access.refresh_at, now);
        self.set_token(access.token, access.obtained_at, expires, refresh_due, "state_file");
        if self.saved.pending.is_none() {
            self.forced = false;
        }
        true
    }
}
