//! Says what a refresher waits for: in the log once it takes long, and in what it publishes.

use log::{Level, info, log, warn};

use crate::token::hang;
use crate::token::refresher::Setup;
use crate::token::refresher::actor::Actor;
use crate::token::state_file::StateFile;
use crate::token::store::Posting;
use crate::token::waiting::{Cause, Waits};

impl Actor {
    /// Notes that `cause` is waited for before anything else can be done.
    pub(super) fn wait_for(&mut self, cause: Cause) {
        let is_of_file = cause.is_of_file();
        let is_of_disk = matches!(cause, Cause::Disk { .. });
        if self.unread.is_some() && !is_of_file && !is_of_disk {
            // A state file that can't be read stands before all else.
            return;
        }
        let is_refreshing = match cause {
            Cause::Lock { .. } | Cause::LockFile { .. } | Cause::Lease => true,
            Cause::Disk { .. } => self.setup.store.read(self.setup.provider).refreshing,
            _ => false,
        };
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

    /// Does `work` with the state file. That the disk hangs is said.
    pub(super) fn on_disk<T: Send>(&mut self, work: impl FnOnce(&StateFile) -> T + Send) -> T {
        if !self.setup.watches_disk {
            return work(&self.setup.state);
        }
        let state = self.setup.state.clone();
        let path = state.path().display().to_string();
        let mut has_hung = false;
        let mut tell = |is_long| {
            has_hung = true;
            self.wait_for(Cause::Disk { path: path.clone(), is_long });
        };
        let outcome = hang::on_disk(&mut tell, || work(&state));
        if has_hung {
            self.wait_is_over();
        }
        outcome
    }

    /// Notes that the token store can't be used.
    pub(super) fn wait_for_store(&mut self) {
        if let Some((place, why)) = self.store_in_trouble() {
            self.wait_for(Cause::Store { place, why });
        }
    }

    /// Notes that another process has the lock.
    pub(super) fn wait_for_lock(&mut self) {
        self.wait_for_lock_at(&self.setup.state.clone());
    }

    /// As [`Actor::wait_for_lock`], for the lock of `state`.
    pub(super) fn wait_for_lock_at(&mut self, state: &StateFile) {
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

/// As [`Actor::on_disk`], before there is an actor.
pub(super) fn on_disk_at_start<T: Send>(
    setup: &Setup,
    work: impl FnOnce(&StateFile) -> T + Send,
) -> T {
    if !setup.watches_disk {
        return work(&setup.state);
    }
    let state = setup.state.clone();
    let path = state.path().display().to_string();
    let mut waits = Waits::default();
    let mut tell = |is_long| {
        let cause = Cause::Disk { path: path.clone(), is_long };
        if let Some(told) = waits.wait(cause, setup.clock.now()) {
            warn!(
                provider = setup.name.as_str();
                "The refresher of provider {} is {told}", setup.name
            );
            let waiting = waits.said();
            let posting = Posting { refreshing: true, waiting, ..Posting::default() };
            setup.store.publish(setup.provider, posting);
        }
    };
    let outcome = hang::on_disk(&mut tell, || work(&state));
    if let Some(told) = waits.end(setup.clock.now()) {
        info!(
            provider = setup.name.as_str();
            "For the refresher of provider {}, {told}", setup.name
        );
    }
    outcome
}
