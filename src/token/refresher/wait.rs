//! Says what a refresher waits for: in the log once it takes long, and in what it publishes.

use log::{Level, info, log};

use crate::token::refresher::actor::Actor;
use crate::token::waiting::Cause;

impl Actor {
    /// Notes that `cause` is waited for before anything else can be done.
    pub(super) fn wait_for(&mut self, cause: Cause) {
        let is_of_file = matches!(cause, Cause::StateFile { .. } | Cause::Shortage(_));
        if self.unread.is_some() && !is_of_file {
            // A state file that can't be read stands before all else.
            return;
        }
        let is_refreshing = matches!(cause, Cause::Lock { .. } | Cause::Lease);
        // Of the token store, and of what ran out, the log speaks once for all providers.
        let is_logged = !matches!(cause, Cause::Store { .. } | Cause::Shortage(_));
        if let Some(told) = self.waits.wait(cause, self.setup.clock.now()) {
            if is_logged {
                let level = if is_of_file { Level::Error } else { Level::Warn };
                log!(
                    level, provider = self.setup.name.as_str();
                    "The refresher of provider {} is {told}", self.setup.name
                );
            }
            self.publish(is_refreshing);
        }
    }

    /// Notes that the token store can't be used.
    pub(super) fn wait_for_store(&mut self) {
        if let Some((place, why)) = self.store_in_trouble() {
            self.wait_for(Cause::Store { place, why });
        }
    }

    /// Notes that another process has the lock.
    pub(super) fn wait_for_lock(&mut self) {
        let state = &self.setup.state;
        let path = state.lock_path().display().to_string();
        // The list of all locks is read when the holder is to be named.
        let is_to_be_said = self.waits.is_to_be_said(self.setup.clock.now());
        let holder = if is_to_be_said { state.lock_holder() } else { None };
        self.wait_for(Cause::Lock { path, holder });
    }

    /// Notes that nothing is waited for any more.
    pub(super) fn wait_is_over(&mut self) {
        if self.unread.is_some() {
            return;
        }
        let is_logged = !self.waits.is_said_for_all();
        if let Some(told) = self.waits.end(self.setup.clock.now()) {
            if is_logged {
                info!(
                    provider = self.setup.name.as_str();
                    "For the refresher of provider {}, {told}", self.setup.name
                );
            }
            self.publish(false);
        }
    }
}
