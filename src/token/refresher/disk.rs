//! Reads and writes the state file for a refresher. One that makes no sense is moved aside; one that
//! can't be read is waited for, and nothing is refreshed or written meanwhile.

use std::io::{self, ErrorKind};
use std::time::Duration;

use log::{error, info, warn};

use crate::clock::Moment;
use crate::record::Saved;
use crate::secret::Secret;
use crate::shortage::Shortage;
use crate::token::lifecycle::Presented;
use crate::token::places::Unseen;
use crate::token::refresher::actor::{Actor, LOCK_RETRY_MS};
use crate::token::refresher::locks::{NoLock, follow_at_start};
use crate::token::refresher::wait::on_disk_at_start;
use crate::token::refresher::{Setup, TICK_MS};
use crate::token::state_file::{Found, Locking, StateFile};
use crate::token::waiting::Cause;

/// How often the lock is tried for before the end.
const LOCK_TRIES_AT_END: u32 = 20;
/// The first wait for a state file that can't be read; each is twice as long as the one before.
const UNREAD_RETRY_MIN_MS: u64 = 1_000;
/// The longest wait for it.
const UNREAD_RETRY_MAX_MS: u64 = 30_000;

/// A state file that is there and can't be read.
#[derive(Debug)]
pub(super) struct Unread {
    /// How often it could not be read.
    tries: u32,
    /// When it is tried again, on the steady clock.
    retry_at_ms: u64,
}

impl Unread {
    /// After one more try at `now`. Tries before the time was up do not make the next wait longer.
    fn again(before: Option<&Self>, now: Moment) -> Self {
        let tries = match before {
            Some(unread) if now.steady_ms < unread.retry_at_ms => unread.tries,
            Some(unread) => unread.tries.saturating_add(1),
            None => 0,
        };
        let wait_ms = (UNREAD_RETRY_MIN_MS << tries.min(10)).min(UNREAD_RETRY_MAX_MS);
        Self { tries, retry_at_ms: now.steady_ms + wait_ms }
    }
}

impl Actor {
    /// Puts `saved` into the shared store, where there is one, and on disk.
    pub(super) fn save(&mut self, saved: Saved) {
        let newest = self.share(saved);
        self.store(newest);
    }

    /// Puts `saved` on disk; what can't be written is kept and tried again.
    pub(super) fn store(&mut self, saved: Saved) {
        match self.on_disk(|state| state.replace(&saved)) {
            Ok(()) => {
                self.kept_locks.clear();
                if self.unsaved.take().is_some() {
                    info!(
                        provider = self.setup.name.as_str();
                        "The state file of provider {} is written again", self.setup.name
                    );
                }
            }
            Err(error) => {
                if self.unsaved.is_none() {
                    error!(
                        provider = self.setup.name.as_str();
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

    /// Tries again to write what could not be written, unless what another process stored has taken its
    /// place.
    pub(super) fn save_again(&mut self) -> Result<(), NoLock> {
        let Some((saved, _)) = self.unsaved.clone() else { return Ok(()) };
        // Under the lock nothing can be stored between the look and the write.
        let path = self.setup.state.path();
        let lock = self.lock()?;
        let is_over = self.take_up_login();
        if self.setup.state.path() != path {
            // It was moved: that is not the file that is locked.
            return Err(NoLock::Busy);
        }
        if !is_over {
            self.store(saved);
        }
        self.keep_while_unsaved(lock, self.setup.state.lock_path());
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

    /// Reads the state file. Where it is there and can't be read, that is noted, and None returned.
    /// `may_set_aside` says that nobody can be writing it now.
    fn read_state(&mut self, may_set_aside: bool) -> Option<Saved> {
        let read = self.on_disk(StateFile::read);
        let (read, notes) = understand(&self.setup, read, may_set_aside);
        match read {
            Ok(stored) => match self.follow(stored) {
                Ok(stored) => {
                    self.note_read(notes);
                    stored
                }
                Err(unseen) => {
                    self.note_unread(&unseen);
                    None
                }
            },
            Err(error) => {
                self.note_unread(&error.into());
                None
            }
        }
    }

    /// Notes that the state file was read, or is not there; what is to be known about it is said once.
    pub(super) fn note_read(&mut self, notes: Vec<String>) {
        for note in notes.iter().filter(|note| !self.notes.contains(note)) {
            warn!(
                provider = self.setup.name.as_str();
                "{note} (provider: {})", self.setup.name
            );
        }
        self.notes = notes;
        if self.unread.take().is_some() {
            self.wait_is_over();
        }
    }

    /// Notes that the state file is there and can't be read, or that there may be one.
    pub(super) fn note_unread(&mut self, unseen: &Unseen) {
        let now = self.setup.clock.now();
        if let Some(shortage) = Shortage::of(&unseen.error) {
            // It passes, and tells nothing of the file: the waits do not grow.
            self.unread = Some(Unread::again(None, now));
            shortage.say(&format!("provider {} can't be refreshed", self.setup.name));
            return self.wait_for(Cause::Shortage(shortage));
        }
        self.unread = Some(Unread::again(self.unread.as_ref(), now));
        let why = unseen.error.to_string();
        self.wait_for(match &unseen.elsewhere {
            Some(path) => Cause::Unseen { path: path.display().to_string(), why },
            None => Cause::StateFile { path: self.setup.state.path().display().to_string(), why },
        });
    }

    /// Whether a refresh must wait for the state file, which is tried again: without it, a refresh token that
    /// was used already could be sent. A grant without a refresh token needs no file.
    pub(super) fn is_held_up_by_unread(&mut self) -> bool {
        if self.unread.is_some()
            && let Some(stored) = self.read_state(false)
        {
            self.take_up(stored);
            self.report_start();
        }
        if self.unread.is_none() || self.machine.presented() == Presented::Nothing {
            return false;
        }
        // What another host has stored can be used all the same.
        self.compare_with_shared();
        self.publish(false);
        true
    }

    /// How long until a state file that can't be read is tried again.
    pub(super) fn unread_wait_ms(&self, now: Moment) -> u64 {
        self.unread
            .as_ref()
            .map_or(u64::MAX, |unread| unread.retry_at_ms.saturating_sub(now.steady_ms))
    }

    /// Takes up a login that was stored since the last look, whether or not the token in use is
    /// still good; false where there is none.
    pub(super) fn take_up_login(&mut self) -> bool {
        let Some(stored) = self.read_state(false) else { return false };
        if !self.machine.is_other_login(&stored) || self.is_older_than_shared(&stored) {
            return false;
        }
        self.take_up_and_say(stored);
        self.unshared = self.setup.chain.is_some();
        self.publish(false);
        true
    }

    /// Reads the state file again; whether it brought another valid token. That is said.
    pub(super) fn take_up_stored(&mut self) -> bool {
        let stored = self.read_state(true);
        stored.is_some_and(|stored| self.take_up_and_say(stored))
    }

    fn take_up_and_say(&mut self, stored: Saved) -> bool {
        let is_login = self.machine.is_other_login(&stored);
        let brought = self.take_up(stored);
        let name = &self.setup.name;
        if is_login {
            info!(
                provider = name.as_str();
                "Using the login that was stored for provider: {name}"
            );
        } else if brought {
            info!(
                provider = name.as_str();
                "Using the token that another process stored for provider: {name}"
            );
        }
        brought
    }

    fn take_up(&mut self, stored: Saved) -> bool {
        if self.machine.is_other_login(&stored) {
            // What could not be written belongs to a chain that is over.
            self.unsaved = None;
            self.kept_locks.clear();
            self.status.last_error = None;
        }
        let now = self.setup.clock.now();
        let before = self.machine.saved().mark();
        let brought = if self.begins_with(&stored) {
            // Another process began the chain, in a file that counts for itself.
            self.machine.adopt(stored, now)
        } else {
            self.machine.take_up(stored, now)
        };
        if self.machine.saved().mark() != before {
            self.note_taken_up(brought);
        }
        brought
    }
}

impl Actor {
    /// Whether `stored` is the chain of the configured seed, which is not known here yet.
    fn begins_with(&self, stored: &Saved) -> bool {
        let seed = self.setup.config.seed.as_ref().and_then(|seed| seed.as_ref().ok());
        let knows =
            |saved: &Saved, hash: &str| saved.refresh_token.is_some() && saved.may_know_seed(hash);
        let brings = |hash: String| knows(stored, &hash) && !knows(self.machine.saved(), &hash);
        seed.map(Secret::hash).is_some_and(brings) && !self.machine.is_other_login(stored)
    }
}

/// What is stored, or why that can't be read; and what is to be known about it.
type Loaded<E = io::Error> = (Result<Option<Saved>, E>, Vec<String>);

/// As [`load`], looks for the chain elsewhere too, and removes what a kill left, where no other process is at it.
pub(super) fn load_at_start(setup: &mut Setup) -> Loaded<Unseen> {
    let lock = on_disk_at_start(setup, StateFile::try_lock);
    let is_ours = matches!(lock, Ok(Locking::Ours(_)));
    if is_ours && let Err(error) = on_disk_at_start(setup, StateFile::remove_leftovers) {
        let path = setup.state.path();
        warn!(
            provider = setup.name.as_str();
            "Temporary files beside {} can't be removed: {error}", path.display()
        );
    }
    let read = on_disk_at_start(setup, StateFile::read);
    let (read, notes) = understand(setup, read, is_ours);
    drop(lock);
    (read.map_err(Unseen::from).and_then(|stored| follow_at_start(setup, stored)), notes)
}

/// Reads the state file; one that was read whole and makes no sense counts as none. It is moved aside where
/// nobody can be writing it now.
pub(super) fn load(setup: &Setup, may_set_aside: bool) -> Loaded {
    understand(setup, setup.state.read(), may_set_aside)
}

pub(super) fn understand(setup: &Setup, read: io::Result<Found>, may_set_aside: bool) -> Loaded {
    let error = match read {
        Ok(found) => return (Ok(found.saved), found.notes),
        Err(error) => error,
    };
    if error.kind() != ErrorKind::InvalidData {
        return (Err(error), Vec::new());
    }
    if may_set_aside {
        set_aside(setup, &error);
    }
    (Ok(None), Vec::new())
}

fn set_aside(setup: &Setup, error: &io::Error) {
    let path = setup.state.path();
    match setup.state.set_aside(setup.clock.wall()) {
        Ok(aside) => error!(
            provider = setup.name.as_str();
            "The state file {} can't be used ({error}); it is kept as {}, and the refresh token \
             of the configuration is tried",
            path.display(),
            aside.display()
        ),
        Err(rename) => error!(
            provider = setup.name.as_str();
            "The state file {} can't be used ({error}) and can't be moved aside ({rename})",
            path.display()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    #[test]
    fn a_file_that_can_not_be_read_is_tried_again_after_1_s_to_30_s() {
        let at = |steady_ms| Moment { wall: Timestamp::from_secs(1_800_000_000), steady_ms };
        let mut now_ms = 5;
        let mut unread = Unread::again(None, at(now_ms));
        for wait_ms in [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000] {
            assert_eq!(unread.retry_at_ms - now_ms, wait_ms);
            // Somebody asks in between.
            unread = Unread::again(Some(&unread), at(now_ms + 1));
            assert_eq!(unread.retry_at_ms - now_ms, wait_ms + 1);
            now_ms = unread.retry_at_ms;
            unread = Unread::again(Some(&unread), at(now_ms));
        }
    }
}
