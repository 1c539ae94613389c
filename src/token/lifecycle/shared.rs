//! What other hosts did for the chain: their tokens are used as our own.

use crate::clock::Moment;
use crate::record::Saved;
use crate::token::lifecycle::Lifecycle;

impl Lifecycle {
    /// As [`Lifecycle::take_up`], with what the shared store has.
    pub fn take_up_shared(&mut self, stored: Saved, now: Moment) -> bool {
        let brought = self.take_up(stored, now);
        self.note_source(brought)
    }

    /// As [`Lifecycle::adopt`], with what the shared store has.
    pub fn adopt_shared(&mut self, stored: Saved, now: Moment) -> bool {
        let brought = self.adopt(stored, now);
        self.note_source(brought)
    }

    fn note_source(&mut self, brought: bool) -> bool {
        if let Some(token) = self.token.as_mut().filter(|_| brought) {
            token.source = "token_store";
        }
        brought
    }
}
