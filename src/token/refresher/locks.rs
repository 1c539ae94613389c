//! The locks of a refresher, and the state file that they are for: another process may have moved it, or may keep the
//! chain under another name. Then it is used where it is, so that both have one file and one lock.

use std::io;
use std::path::{Path, PathBuf};

use log::{info, warn};

use crate::record::Saved;
use crate::shortage::Shortage;
use crate::token::places::{Sought, Unseen};
use crate::token::refresher::Setup;
use crate::token::refresher::actor::Actor;
use crate::token::refresher::disk::understand;
use crate::token::refresher::hosts::Went;
use crate::token::refresher::wait::on_disk_at_start;
use crate::token::state_file::{Locking, StateFile, StateLock};
use crate::token::waiting::Cause;

/// How often in a row a file is followed to where other processes moved it.
const MOVES_FOLLOWED_MAX: u32 = 4;

/// The lock can't be had for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoLock {
    /// Another process holds it.
    Busy,
    /// It can't be told whether another process holds it.
    Unknown,
}

impl Actor {
    /// The lock on the state file; None where the state folder can't hold one.
    pub(super) fn lock(&mut self) -> Result<Option<StateLock>, NoLock> {
        let lock_path = self.setup.state.lock_path();
        if let Some((_, lock)) = self.kept_locks.iter().find(|(path, _)| *path == lock_path) {
            return Ok(Some(lock.clone()));
        }
        let locking = self.on_disk(StateFile::try_lock);
        self.locked(locking, || lock_path.display().to_string())
    }

    fn locked(
        &mut self,
        locking: io::Result<Locking>,
        lock_path: impl FnOnce() -> String,
    ) -> Result<Option<StateLock>, NoLock> {
        let error = match locking {
            Ok(Locking::Ours(lock)) => return Ok(Some(lock)),
            Ok(Locking::Theirs) => return Err(NoLock::Busy),
            Ok(Locking::Nobodys(error)) => {
                self.warn_of_no_lock(&error);
                return Ok(None);
            }
            Err(error) => error,
        };
        if Shortage::of(&error).is_some() {
            self.note_unread(&error.into());
        } else {
            self.wait_for(Cause::LockFile { path: lock_path(), why: error.to_string() });
        }
        Err(NoLock::Unknown)
    }

    /// Gives the `lock` on the state file back, or keeps it until the file holds what is newest.
    pub(super) fn keep_while_unsaved(&mut self, lock: Option<StateLock>, path: PathBuf) {
        if self.unsaved.is_none() {
            self.kept_locks.clear();
        } else if let Some(lock) = lock.filter(|_| !self.keeps_lock(&path)) {
            self.kept_locks.push((path, lock));
        }
    }

    fn keeps_lock(&self, path: &Path) -> bool {
        self.kept_locks.iter().any(|(kept, _)| kept == path)
    }

    fn warn_of_no_lock(&mut self, error: &io::Error) {
        if !self.lock_warned {
            self.lock_warned = true;
            warn!(
                provider = self.setup.name.as_str();
                "The state folder can't hold a lock for {} ({error}); another process could \
                 refresh provider {} at the same time",
                self.setup.state.path().display(),
                self.setup.name
            );
        }
    }

    /// Takes the lock on the file in which the chain is, and takes up what that holds.
    pub(super) fn lock_and_take_up(&mut self) -> Result<Option<StateLock>, Went> {
        for _ in 0..MOVES_FOLLOWED_MAX {
            let path = self.setup.state.path();
            let lock = self.lock().map_err(|no_lock| self.not_locked(no_lock))?;
            self.take_up_stored();
            if self.is_held_up_by_unread() {
                return Err(Went::Unread);
            }
            if self.setup.state.path() == path {
                return Ok(lock);
            }
        }
        Err(Went::Busy)
    }

    fn not_locked(&mut self, no_lock: NoLock) -> Went {
        if self.is_held_up_by_unread() {
            return Went::Unread;
        }
        if no_lock == NoLock::Busy {
            self.wait_for_lock();
        }
        Went::Busy
    }

    /// A chain that begins has a lock besides that of its file: two processes may keep it under different names. The
    /// other one may just have begun it.
    pub(super) fn lock_beginning(&mut self) -> Result<Option<Beginning>, Went> {
        // Where a secret is missing nothing is sent.
        let is_needed = self.setup.seeker.is_needed(Some(self.machine.saved()))
            && self.token_request(&self.machine.presented()).is_ok();
        let place = self.setup.seeker.beginning(&self.setup.state).filter(|_| is_needed);
        let Some(place) = place else { return Ok(None) };
        let locking = self.on_disk(|_| place.try_lock());
        let lock = self.locked(locking, || place.lock_path().display().to_string());
        let lock = lock.map_err(|no_lock| {
            if no_lock == NoLock::Busy {
                self.wait_for_lock_at(&place);
            }
            Went::Busy
        })?;
        let path = self.setup.state.path();
        self.take_up_stored();
        if self.is_held_up_by_unread() {
            return Err(Went::Unread);
        }
        if self.setup.state.path() != path {
            return Err(Went::Busy);
        }
        Ok(lock.map(|lock| Beginning { place, _lock: lock }))
    }

    /// The chain has begun, or not: other processes see that by its file.
    pub(super) fn has_begun(&mut self, beginning: Option<Beginning>) {
        let Some(beginning) = beginning else { return };
        if self.setup.seeker.is_told_by(self.machine.saved()) && self.unsaved.is_none() {
            // Where it can't be removed it is in nobody's way.
            let _ = self.on_disk(|_| beginning.place.remove_lock());
        }
    }

    /// What is stored of the chain elsewhere, where its own file holds `stored`, which is none or another one; that file is
    /// used from now on.
    pub(super) fn follow(&mut self, stored: Option<Saved>) -> Result<Option<Saved>, Unseen> {
        let seeker = self.setup.seeker.clone();
        if !seeker.is_needed(stored.as_ref()) {
            return Ok(stored);
        }
        let usable = stored.clone().filter(|stored| !seeker.is_foreign(stored));
        match self.on_disk(|state| seeker.look(state, stored.as_ref())) {
            Sought::Unseen(unseen) if usable.is_none() => Err(unseen),
            Sought::Nothing | Sought::Unseen(_) => Ok(usable),
            Sought::At(slug) if self.is_left(&slug) => Ok(usable),
            Sought::At(slug) => {
                go_to(&mut self.setup, slug);
                let read = self.on_disk(StateFile::read);
                Ok(understand(&self.setup, read, false).0?)
            }
            Sought::Instead(slug) => {
                if usable.is_some() && seeker.is_needed(Some(self.machine.saved())) {
                    // The chain in memory is that of another provider from now on.
                    self.machine.forget(self.setup.clock.now());
                    self.machine.stamp_client(self.setup.config.client_hash());
                }
                go_instead(&mut self.setup, slug, usable.is_some());
                let read = self.on_disk(StateFile::read);
                let stored = understand(&self.setup, read, false).0?;
                if stored.is_none() {
                    self.store_in_new_place();
                }
                Ok(stored)
            }
        }
    }

    /// Another process has taken the place of the tokens in memory: they are stored in the new one.
    fn store_in_new_place(&mut self) {
        let saved = self.machine.saved().clone();
        if saved.refresh_token.is_some()
            && let Ok(_lock) = self.lock()
        {
            self.store(saved);
        }
    }
}

impl Actor {
    /// Whether the file called `slug` is our own of before a reload: what is in memory is newer, and goes to its new
    /// place.
    fn is_left(&self, slug: &str) -> bool {
        let path = self.setup.state.beside(slug).path();
        self.left_places.iter().any(|(left, _)| left.path() == path)
    }
}

/// Held while a chain begins.
pub(super) struct Beginning {
    place: StateFile,
    _lock: StateLock,
}

/// As [`Actor::follow`], before there is an actor.
pub(super) fn follow_at_start(
    setup: &mut Setup,
    stored: Option<Saved>,
) -> Result<Option<Saved>, Unseen> {
    let seeker = setup.seeker.clone();
    if !seeker.is_needed(stored.as_ref()) {
        return Ok(stored);
    }
    let usable = stored.clone().filter(|stored| !seeker.is_foreign(stored));
    match on_disk_at_start(setup, |state| seeker.look(state, stored.as_ref())) {
        Sought::Unseen(unseen) if usable.is_none() => return Err(unseen),
        Sought::Nothing | Sought::Unseen(_) => return Ok(usable),
        Sought::At(slug) => go_to(setup, slug),
        Sought::Instead(slug) => go_instead(setup, slug, usable.is_some()),
    }
    let read = on_disk_at_start(setup, StateFile::read);
    Ok(understand(setup, read, false).0?)
}

fn go_to(setup: &mut Setup, slug: String) {
    setup.state = setup.state.beside(slug);
    info!(
        provider = setup.name.as_str();
        "The tokens of provider {} are in {}, where another process or provider keeps them; that file is used",
        setup.name,
        setup.state.path().display()
    );
}

/// Keeps the tokens in another file; its own is another issuer's or client's, or `is_anothers`: another provider's, whose
/// refresh token it was given.
fn go_instead(setup: &mut Setup, slug: String, is_anothers: bool) {
    let foreign = setup.state.path();
    setup.state = setup.state.beside(slug);
    if is_anothers {
        return info!(
            provider = setup.name.as_str();
            "The state file {} holds the chain of a refresh token that another provider has now; the tokens of provider {} \
             are kept in {}",
            foreign.display(),
            setup.name,
            setup.state.path().display()
        );
    }
    warn!(
        provider = setup.name.as_str();
        "The state file {} holds tokens of another token_url or client_id than provider {} has: they are neither used \
         nor replaced, and its own are kept in {}. Give each of two processes its own state_dir or slug",
        foreign.display(),
        setup.name,
        setup.state.path().display()
    );
}
