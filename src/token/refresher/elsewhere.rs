//! What another host or process stored, as far as it is told: its tokens, its failures, and a seed that it
//! superseded.

use log::{error, info, warn};

use crate::clock::Moment;
use crate::record::SavedFailure;
use crate::token::lifecycle::Step;
use crate::token::refresher::actor::Actor;
use crate::token::refresher::words::{next_try, tell_stored};

impl Actor {
    /// Something was taken up from elsewhere; `brought` says that it brought another token that is still good.
    pub(super) fn note_taken_up(&mut self, brought: bool) {
        let now = self.setup.clock.now();
        let failure = self.machine.failure_that_counts().cloned();
        match failure {
            Some(failure) => self.failed_elsewhere(&failure, now),
            None if brought || self.machine.consecutive_failures() == 0 => self.status.settle(),
            None => {}
        }
        if self.machine.next(now) != Step::Refresh {
            // The refresh token of the configuration was tried there too.
            self.falls_back = false;
        }
        self.say_superseded_seed();
    }

    /// A refresh elsewhere failed for good, and there is no use in trying here: said as one of our own.
    fn failed_elsewhere(&mut self, failure: &SavedFailure, now: Moment) {
        let login = self.login_command(&self.machine.presented());
        let (told, trouble) = tell_stored(failure, login.as_deref());
        if self.status.last_error.as_ref() != Some(&told) {
            let wait_ms = u64::try_from(failure.retry_at.millis_since(now.wall)).unwrap_or(0);
            let next = next_try(trouble, self.is_single, wait_ms);
            error!(
                provider = self.setup.name.as_str();
                "{told} (provider: {}; tried by another host or process{next})",
                self.setup.name
            );
        }
        self.status.fail(told, trouble, true);
    }

    /// Another host got a token.
    pub(super) fn refreshed_elsewhere(&self, now: Moment) {
        let left = self.machine.token().map_or(0, |token| token.expires.left_ms(now)) / 1000;
        info!(
            provider = self.setup.name.as_str();
            "Using the token that another host got for provider: {} (valid for {left} s)",
            self.setup.name
        );
    }

    /// Says once that the configuration names a refresh token that a newer one has superseded.
    pub(super) fn say_superseded_seed(&mut self) {
        let superseded = self.machine.superseded_seed();
        if superseded.is_none() || superseded == self.superseded_said {
            return;
        }
        self.superseded_said = superseded;
        warn!(
            provider = self.setup.name.as_str();
            "The refresh token in the configuration of provider {} was superseded by a newer one, which \
             another host, another process or an earlier start of this one began with; going on with that. \
             Configure the newer one here too, or none",
            self.setup.name
        );
    }
}
