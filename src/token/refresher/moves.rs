//! Moves a state file to the place that a reload chose.

use std::io::ErrorKind;
use std::path::PathBuf;

use crossbeam_channel::Sender;

use crate::record::Saved;
use crate::token::lifecycle::STATE_FILE;
use crate::token::refresher::life::Life;
use crate::token::refresher::vault::Vault;
use crate::token::state_file::{Locking, StateFile, StateLock};

pub(super) struct Moves {
    /// The configured place of the tokens, even if another process keeps them elsewhere.
    home: PathBuf,
    /// The place that a reload chose, and the channel that is told once the earlier place is empty.
    next: Option<(StateFile, Sender<()>)>,
}

impl Moves {
    pub(super) fn new(home: PathBuf) -> Self {
        Self { home, next: None }
    }

    /// Keeps the tokens in `place` from now on, after a reload.
    pub(super) fn begin(
        &mut self,
        place: StateFile,
        leaving: Sender<()>,
        vault: &mut Vault,
        life: &mut Life,
    ) {
        self.next = None;
        let path = place.path();
        if !vault.file.is_kept {
            (self.home, vault.file.state) = (path, place);
            // There is nothing to move.
            let _ = leaving.send(());
            return;
        }
        if path == vault.file.state.path() {
            return;
        }
        // If another process keeps the tokens elsewhere, they stay there, unless they are to move.
        if path != self.home {
            self.next = Some((place, leaving));
            self.go_on(vault, life);
        } else if life.machine.saved().refresh_token.is_none() {
            vault.file.state = place;
            vault.take_up_stored(life);
        }
    }

    /// Does the rest of the move. It does not begin before the content of the current file is known. Another process
    /// may use that file too, and must not refresh there while the tokens are on their way.
    pub(super) fn go_on(&mut self, vault: &mut Vault, life: &mut Life) {
        if vault.file.is_unread() || self.next.is_none() {
            return;
        }
        let Ok(old_lock) = vault.lock_and_take_up(life) else { return };
        let Some((new, leaving)) = self.next.take() else { return };
        if vault.file.state.path() == new.path() {
            // Another process moved the tokens there.
            let _ = leaving.send(());
            return;
        }
        let lock = vault.file.lock_of(&new, &mut life.desk).ok();
        if let Some(lock) = lock.filter(|_| !is_anothers(&new, vault, life)) {
            self.home = new.path();
            let old = std::mem::replace(&mut vault.file.state, new);
            go_from(old, old_lock, leaving, vault, life);
            vault.file.keep_while_unsaved(lock, vault.file.state.lock_path());
            return;
        }
        if vault.file.state.path() != self.home {
            // Another process keeps the tokens elsewhere, so nobody waits for the move.
            let _ = leaving.send(());
        }
        self.next = Some((new, leaving));
    }
}

/// True if the file at `place` belongs to another configured chain.
fn is_anothers(place: &StateFile, vault: &Vault, life: &mut Life) -> bool {
    let stored = life.desk.on_disk(place, StateFile::load);
    matches!(stored, Ok(Some(stored)) if vault.file.seeker.is_anothers(place.slug(), &stored))
}

/// Continues in the new place, under the locks of both.
fn go_from(
    old: StateFile,
    old_lock: Option<StateLock>,
    leaving: Sender<()>,
    vault: &mut Vault,
    life: &mut Life,
) {
    let state = vault.file.state.clone();
    let hindrance = match state.load() {
        Ok(None) => {
            carry(&old, &state, life);
            None
        }
        Ok(Some(stored)) if life.is_of_this_chain(&stored) => {
            life.machine.take_up(STATE_FILE, stored, life.now());
            None
        }
        Err(error) if error.kind() != ErrorKind::InvalidData => Some(error.to_string()),
        Ok(Some(_)) | Err(_) => {
            set_aside(&state, life);
            None
        }
    };
    let saved = life.machine.saved().clone();
    match hindrance {
        _ if saved == Saved::default() => {}
        None => vault.file.store(saved, &mut life.desk),
        Some(why) => vault.file.note_unsaved(saved, why, &mut life.desk),
    }
    // Drops a place to which the tokens came back before it was left.
    vault.file.left.retain(|(left, _)| left.path() != state.path());
    let old_lock_path = old.lock_path();
    if old_lock.is_some() && !vault.file.is_unsaved() {
        leave(&old, &leaving, &state, life);
    } else {
        vault.file.left.push((old, leaving));
    }
    vault.file.keep_while_unsaved(old_lock, old_lock_path);
    leave_old_places(vault, life);
}

/// Renames the file, which needs no room on the disk and never leaves two copies.
fn carry(old: &StateFile, new: &StateFile, life: &Life) {
    let is_beside = old.folder() == new.folder();
    if is_beside && is_copy(old, life) && old.rename_to(new).is_ok() {
        say_where(new, life);
    }
}

/// True if a file holds nothing that is unknown here.
fn is_copy(file: &StateFile, life: &Life) -> bool {
    let known = life.machine.saved().mark();
    let is_known = |stored: &Saved| life.is_of_this_chain(stored) && stored.mark() <= known;
    matches!(file.load(), Ok(Some(stored)) if is_known(&stored))
}

fn say_where(place: &StateFile, life: &Life) {
    life.desk.info(format_args!(
        "The tokens of provider {} are kept in {} now",
        life.desk.name,
        place.path().display()
    ));
}

/// Moves a file of another chain aside that stands in the place for ours.
fn set_aside(place: &StateFile, life: &Life) {
    match place.set_aside(life.desk.clock.wall()) {
        Ok(aside) => life.desk.warn(format_args!(
            "The state file {} belongs to another chain of tokens; it is kept as {}",
            place.path().display(),
            aside.display()
        )),
        Err(error) => life.desk.warn(format_args!(
            "The state file {} belongs to another chain of tokens and can't be moved aside: {error}",
            place.path().display()
        )),
    }
}

/// Removes the state files that reloads left, once everything in them is stored in the new file. A copy would spend its
/// refresh token again if a provider of that name came back.
pub(super) fn leave_old_places(vault: &mut Vault, life: &Life) {
    if !vault.file.is_unsaved() {
        let state = &vault.file.state;
        // A file that another process uses is tried again at the next tick.
        vault.file.left.retain(|(old, leaving)| match old.try_lock() {
            Ok(Locking::Ours(_lock)) => {
                leave(old, leaving, state, life);
                false
            }
            _ => true,
        });
    }
}

fn leave(old: &StateFile, leaving: &Sender<()>, new: &StateFile, life: &Life) {
    if is_copy(old, life) {
        match old.remove() {
            Ok(()) => say_where(new, life),
            Err(error) => life.desk.warn(format_args!(
                "The old state file {} can't be removed: {error}",
                old.path().display()
            )),
        }
    }
    // There may be no waiting receiver.
    let _ = leaving.send(());
}
