//! The store of a refresher's chain: the state file, the record in the token store, and any unwritten record. It takes
//! up records of other processes and hosts, and takes the locks and leases of a refresh.

use std::time::Duration;

use crate::record::Saved;
use crate::token::lifecycle::{Presented, STATE_FILE};
use crate::token::places::Seeker;
use crate::token::refresher::hindrance::Hindrance;
use crate::token::refresher::life::Life;
use crate::token::refresher::setup::{LOCK_RETRY_MS, Timer};
use crate::token::refresher::vault::file::{Displaced, File};
use crate::token::refresher::vault::locks::NoLock;
use crate::token::refresher::vault::shared::Shared;
use crate::token::state_file::{StateFile, StateLock};

pub(super) mod file;
mod locks;
pub(super) mod shared;

/// The number of tries for the lock before the end.
const LOCK_TRIES_AT_END: u32 = 20;
/// The most moves in a row by other processes after which a refresher still follows its file.
const MOVES_FOLLOWED_MAX: u32 = 4;

pub(super) struct Vault {
    pub(super) file: File,
    pub(super) shared: Shared,
}

/// Locks that are held while a chain begins.
pub(super) struct Beginning {
    place: StateFile,
    _lock: StateLock,
}

impl Vault {
    /// Writes `saved` to the token store, if there is one, and to disk; keeps an unwritten record for the next try.
    pub(super) fn save(&mut self, saved: Saved, life: &mut Life) {
        life.draft();
        let newest = self.shared.put(saved, &mut self.file, life);
        self.file.store(newest, &mut life.desk);
    }

    /// Tries again to write an unwritten record, unless another process stored a record in its place. Returns false if
    /// another process has the lock.
    pub(super) fn save_again(&mut self, life: &mut Life) -> bool {
        let Some(saved) = self.file.unsaved.clone() else { return true };
        // Under the lock, nothing can be stored between the look and the write.
        let path = self.file.state.path();
        let Ok(lock) = self.file.lock(&mut life.desk) else { return false };
        let is_over = self.take_up_login(life);
        if self.file.state.path() != path {
            // The file was moved, so the lock is on another file.
            return false;
        }
        if !is_over {
            self.file.store(saved, &mut life.desk);
        }
        self.file.keep_while_unsaved(lock, self.file.state.lock_path());
        if !self.file.is_unsaved() {
            life.publish(false);
        }
        true
    }

    /// Tries for the last time to write an unwritten record; waits for another process.
    pub(super) fn save_before_the_end(&mut self, timer: &Timer, life: &mut Life) {
        for _ in 0..LOCK_TRIES_AT_END {
            if self.save_again(life) {
                return;
            }
            // Only the end of the timer matters.
            let _ = timer(Duration::from_millis(LOCK_RETRY_MS)).recv();
        }
    }

    /// The record in the state file; None also if the file can't be read. `may_set_aside` says that nobody can be
    /// writing it now.
    fn look(&mut self, may_set_aside: bool, life: &mut Life) -> Option<Saved> {
        life.draft();
        let look = self.file.look(may_set_aside, &mut life.desk)?;
        if look.displaced == Some(Displaced::ByProvider)
            && self.file.seeker.is_needed(Some(life.machine.saved()))
        {
            // From now on, the chain in memory is another provider's.
            life.forget();
        }
        if look.displaced.is_some() && look.stored.is_none() {
            self.store_in_new_place(life);
        }
        look.stored
    }

    /// True if a refresh must wait for the state file, which is tried again: without it, a used refresh token could be
    /// sent again. A grant without a refresh token needs no file.
    pub(super) fn is_held_up(&mut self, life: &mut Life) -> bool {
        if self.file.is_unread()
            && let Some(stored) = self.look(false, life)
        {
            self.take_up(stored, life);
            life.report_start();
        }
        if !self.file.is_unread() || life.machine.presented() == Presented::Nothing {
            return false;
        }
        // Records of other hosts can be used all the same.
        self.shared.compare(&mut self.file, life);
        life.publish(false);
        true
    }

    /// Takes up a login that was stored since the last look, even if the token in use is still valid. Returns false if
    /// there is none.
    pub(super) fn take_up_login(&mut self, life: &mut Life) -> bool {
        let Some(stored) = self.look(false, life) else { return false };
        if !life.machine.is_other_login(&stored) || self.shared.is_newer_than(&stored, life) {
            return false;
        }
        self.take_up_and_say(stored, life);
        self.shared.fall_behind();
        life.publish(false);
        true
    }

    /// Reads the state file again, and logs the outcome. Returns true if it brought a different valid token.
    pub(super) fn take_up_stored(&mut self, life: &mut Life) -> bool {
        let stored = self.look(true, life);
        stored.is_some_and(|stored| self.take_up_and_say(stored, life))
    }

    fn take_up_and_say(&mut self, stored: Saved, life: &mut Life) -> bool {
        let is_login = life.machine.is_other_login(&stored) && !stored.is_logged_out();
        let brought = self.take_up(stored, life);
        let name = &life.desk.name;
        if is_login {
            life.desk.info(format_args!("Using the login that was stored for provider: {name}"));
        } else if brought {
            life.desk.info(format_args!(
                "Using the token that another process stored for provider: {name}"
            ));
        }
        brought
    }

    fn take_up(&mut self, stored: Saved, life: &mut Life) -> bool {
        if life.machine.is_other_login(&stored) {
            // The unwritten record belongs to a chain that is over.
            self.file.give_up_unsaved(&mut life.desk);
            life.status.last_error = None;
        }
        let now = life.now();
        let before = life.machine.saved().mark();
        let brought = if life.begins_with(&stored) {
            // Another process began the chain, in a file that counts on its own.
            life.machine.adopt(STATE_FILE, stored, now)
        } else {
            life.machine.take_up(STATE_FILE, stored, now)
        };
        if life.machine.saved().mark() != before {
            life.note_taken_up(brought);
        }
        brought
    }

    /// Another process uses the place of the tokens in memory, so they are stored in the new place.
    fn store_in_new_place(&mut self, life: &mut Life) {
        let saved = life.machine.saved().clone();
        if saved.refresh_token.is_some()
            && let Ok(_lock) = self.file.lock(&mut life.desk)
        {
            self.file.store(saved, &mut life.desk);
        }
    }

    /// Uses `seeker` from now on, with the secrets as they are configured now.
    pub(super) fn seek_by(&mut self, seeker: Seeker, life: &Life) {
        self.file.seeker = seeker;
        self.file.seeker.reconfigure(&life.config);
    }

    /// Forgets the tokens of the chain in use if the configuration or a file has changed its issuer or client, or what its
    /// requests ask for: they must not be sent to the new one, and stay in their file.
    pub(super) fn forget_tokens_of_others(&mut self, life: &mut Life) {
        if !self.file.seeker.is_foreign(life.machine.saved()) {
            return;
        }
        life.forget();
        self.file.give_up_unsaved(&mut life.desk);
        life.desk.warn(format_args!(
            "The tokens of provider {} belong to another token_url or client_id than the \
             configured one, or to another scope or parameters: they are not used",
            life.desk.name
        ));
    }

    /// Locks the chain's file, and takes up its record.
    pub(super) fn lock_and_take_up(
        &mut self,
        life: &mut Life,
    ) -> Result<Option<StateLock>, Hindrance> {
        for _ in 0..MOVES_FOLLOWED_MAX {
            let path = self.file.state.path();
            let lock = self.file.lock(&mut life.desk);
            let lock = lock.map_err(|no_lock| self.not_locked(no_lock, life))?;
            self.take_up_stored(life);
            if self.is_held_up(life) {
                return Err(Hindrance::Unread);
            }
            if self.file.state.path() == path {
                return Ok(lock);
            }
        }
        Err(Hindrance::Busy)
    }

    fn not_locked(&mut self, no_lock: NoLock, life: &mut Life) -> Hindrance {
        if self.is_held_up(life) {
            return Hindrance::Unread;
        }
        if no_lock == NoLock::Busy {
            life.desk.wait_for_lock(&self.file.state);
        }
        Hindrance::Busy
    }

    /// A beginning chain has a lock besides that of its file, because two processes may keep it under different names.
    /// The other process may just have begun it.
    pub(super) fn lock_beginning(
        &mut self,
        life: &mut Life,
    ) -> Result<Option<Beginning>, Hindrance> {
        // Without a secret, nothing is sent.
        let is_needed = self.file.seeker.is_needed(Some(life.machine.saved()))
            && life.token_request(&life.machine.presented()).is_ok();
        let place = self.file.seeker.beginning(&self.file.state).filter(|_| is_needed);
        let Some(place) = place else { return Ok(None) };
        let lock = self.file.lock_of(&place, &mut life.desk).map_err(|no_lock| {
            if no_lock == NoLock::Busy {
                life.desk.wait_for_lock(&place);
            }
            Hindrance::Busy
        })?;
        let path = self.file.state.path();
        self.take_up_stored(life);
        if self.is_held_up(life) {
            return Err(Hindrance::Unread);
        }
        if self.file.state.path() != path {
            return Err(Hindrance::Busy);
        }
        Ok(lock.map(|lock| Beginning { place, _lock: lock }))
    }

    /// Gives back the lease, and the lock on the file unless something is unwritten.
    pub(super) fn leave(&mut self, lock: Option<StateLock>, life: &mut Life) {
        self.shared.leave(life);
        self.file.keep_while_unsaved(lock, self.file.state.lock_path());
    }

    /// The chain has begun, or not: its file tells other processes.
    pub(super) fn has_begun(&mut self, beginning: Option<Beginning>, life: &mut Life) {
        let Some(beginning) = beginning else { return };
        if self.file.seeker.is_told_by(life.machine.saved()) && !self.file.is_unsaved() {
            // A leftover lock file disturbs nobody.
            let _ = life.desk.on_disk(&beginning.place, StateFile::remove_lock);
        }
    }
}
