//! What other hosts did for the chain: their tokens are used as our own, and their refreshes keep the
//! same distance.

use crate::clock::{Due, Moment};
use crate::token::lifecycle::{Lifecycle, SUCCESS_GAP_MS};
use crate::token::saved::Saved;

impl Lifecycle {
    /// As [`Lifecycle::take_up`], with what the shared store has.
    pub fn take_up_shared(&mut self, stored: Saved, now: Moment) -> bool {
        let brought = self.take_up(stored, now);
        self.note_shared(brought, now)
    }

    /// As [`Lifecycle::adopt`], with what the shared store has.
    pub fn adopt_shared(&mut self, stored: Saved, now: Moment) -> bool {
        let brought = self.adopt(stored, now);
        self.note_shared(brought, now)
    }

    /// Another host's refresh counts for the least time between two: where all are told to refresh, or
    /// all are refused, one does it.
    fn note_shared(&mut self, brought: bool, now: Moment) -> bool {
        if let Some(token) = self.token.as_mut().filter(|_| brought) {
            token.source = "token_store";
            let lifetime_ms = token.expires.wall.millis_since(token.obtained_at);
            let since_ms = now.wall.millis_since(token.obtained_at);
            // The other host's clock may be ahead: never longer than from now on.
            let since_ms = u64::try_from(since_ms).unwrap_or(0);
            let left_ms = SUCCESS_GAP_MS.saturating_sub(since_ms);
            let is_short = u64::try_from(lifetime_ms).is_ok_and(|ms| ms < SUCCESS_GAP_MS);
            self.gap_of_others = (!is_short).then(|| Due::after(now, left_ms));
        }
        brought
    }
}
