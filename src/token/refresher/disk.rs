//! Reads and writes the state file for a refresher; one that can't be used is moved aside.

use std::io::ErrorKind;
use std::time::Duration;

use log::{error, info};

use crate::token::refresher::actor::{Actor, Busy, LOCK_RETRY_MS};
use crate::token::refresher::{Setup, TICK_MS};
use crate::token::saved::Saved;

/// How often the lock is tried for before the end.
const LOCK_TRIES_AT_END: u32 = 20;

impl Actor {
    /// Puts `saved` into the shared store, where there is one, and on disk.
    pub(super) fn save(&mut self, saved: Saved) {
        let newest = self.share(saved);
        self.store(newest);
    }

    /// Puts `saved` on disk; what can't be written is kept and tried again.
    pub(super) fn store(&mut self, saved: Saved) {
        match self.setup.state.replace(&saved) {
            Ok(()) => {
                if self.unsaved.take().is_some() {
                    info!("The state file of provider {} is written again", self.setup.name);
                }
            }
            Err(error) => {
                if self.unsaved.is_none() {
                    error!(
                        "The state file {} can't be written ({error}); the token of provider {} is \
                         used from memory and would be lost at a restart; trying again every {} s",
                        self.setup.state.path().display(),
                        self.setup.name,
                        TICK_MS / 1000
                    );
                }
                self.unsaved = Some((saved, error.to_string()));
            }
        }
    }

    /// Tries again to write what could not be written, unless a login has taken its place.
    pub(super) fn save_again(&mut self) -> Result<(), Busy> {
        let Some((saved, _)) = self.unsaved.clone() else { return Ok(()) };
        // Under the lock no login can be stored between the look and the write.
        let _lock = self.lock()?;
        if !self.take_up_login() {
            self.store(saved);
        }
        if self.unsaved.is_none() {
            self.publish(false);
        }
        Ok(())
    }

    /// The last try to write what could not be written; another process is waited for.
    pub(super) fn save_before_the_end(&mut self) {
        for _ in 0..LOCK_TRIES_AT_END {
            if self.save_again().is_ok() {
                return;
            }
            // The timer's end is all that is waited for.
            let _ = (self.setup.timer)(Duration::from_millis(LOCK_RETRY_MS)).recv();
        }
    }
}

/// Reads the state file; one that can't be used is moved aside and said.
pub(super) fn load(setup: &Setup) -> Option<Saved> {
    let error = match setup.state.load() {
        Ok(saved) => return saved,
        Err(error) => error,
    };
    let path = setup.state.path();
    // A file that belongs to somebody else would be replaced by the next write, and its chain lost.
    if matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::PermissionDenied) {
        match setup.state.set_aside(setup.clock.wall()) {
            Ok(aside) => error!(
                "The state file {} can't be used ({error}); it is kept as {}, and the refresh token \
                 of the configuration is tried",
                path.display(),
                aside.display()
            ),
            Err(rename) => error!(
                "The state file {} can't be used ({error}) and can't be moved aside ({rename})",
                path.display()
            ),
        }
    } else {
        error!("The state file {} can't be read: {error}", path.display());
    }
    None
}
