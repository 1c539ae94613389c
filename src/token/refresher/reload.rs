//! What a reload does to a running refresher: it goes on with another configuration and the tokens it has,
//! tries once where it had given up, or keeps still where no provider uses it any more.

use std::io::ErrorKind;

use crossbeam_channel::Sender;
use log::{info, warn};

use crate::record::Saved;
use crate::secret::Secret;
use crate::token::lifecycle::Policy;
use crate::token::places::Seeker;
use crate::token::refresher::Setup;
use crate::token::refresher::actor::Actor;
use crate::token::state_file::{Locking, StateFile, StateLock};

/// What a refresher works with from now on.
pub struct Change {
    /// All of it; the jitter goes on as it was.
    pub setup: Setup,
    /// Whether its chain in the shared store is the one that it has already.
    pub keeps_chain: bool,
    /// Told once nothing is kept in the place before.
    pub leaving: Sender<()>,
}

impl std::fmt::Debug for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Change").field("name", &self.setup.name).finish_non_exhaustive()
    }
}

impl Actor {
    /// Goes on with what another configuration says. The tokens in memory count: the state file may lack
    /// what could not be written.
    pub(super) fn change(&mut self, change: Change) {
        self.is_retired = false;
        let Change { mut setup, keeps_chain, leaving } = change;
        if keeps_chain {
            setup.chain = self.setup.chain.take();
        } else {
            self.unshared = setup.chain.is_some();
        }
        if setup.seeker.is_foreign(self.machine.saved()) {
            // What could not be written belongs to the chain before, and is given up after this.
            let _ = self.save_again();
        }
        let before = std::mem::replace(&mut self.setup, setup);
        let now = self.setup.clock.now();
        self.machine.reconfigure(Policy::of(&self.setup.config), now);
        self.forget_tokens_of_others();
        self.machine.stamp_client(self.setup.config.client_hash());
        self.next_place = None;
        if before.state.path() != self.setup.state.path() {
            let new = std::mem::replace(&mut self.setup.state, before.state);
            // Where another process keeps them elsewhere they stay there, unless they are to move.
            if new.path() == self.home && self.machine.saved().refresh_token.is_none() {
                self.setup.state = new;
                self.take_up_stored();
            } else if new.path() != self.home {
                self.next_place = Some((new, leaving));
                self.move_to_next_place();
            }
        }
        self.publish(false);
    }

    /// The configuration is as it was; that it was read again is an order to try, where the last try
    /// failed.
    pub(super) fn reloaded(&mut self, seeker: Seeker) {
        self.is_retired = false;
        self.setup.seeker = seeker;
        // A file may hold another refresh token by now, or the old one again.
        self.setup.seeker.reconfigure(&self.setup.config);
        if self.machine.next_attempt_at().is_some() {
            self.machine.order(self.setup.clock.now());
        }
    }

    /// No provider uses it any more. Who waits for a token is told so.
    pub(super) fn retire(&mut self) {
        self.is_retired = true;
        self.waiting.clear();
        // Where another process has the lock, the next tick is soon enough.
        let _ = self.save_again();
        if self.machine.token().is_none() {
            let gone = "its provider was taken out of the configuration, or disabled";
            self.status.last_error.get_or_insert_with(|| gone.to_owned());
        }
        self.publish(false);
    }

    /// Keeps the tokens where a reload said from now on; not before it is known what the file so far holds. Another
    /// process may use that too: it must not refresh there while the tokens are on their way.
    pub(super) fn move_to_next_place(&mut self) {
        if self.unread.is_some() || self.next_place.is_none() {
            return;
        }
        let Ok(old_lock) = self.lock_and_take_up() else { return };
        let Some((new, leaving)) = self.next_place.take() else { return };
        if self.setup.state.path() == new.path() {
            // Another process moved them there.
            let _ = leaving.send(());
            return;
        }
        let old = std::mem::replace(&mut self.setup.state, new);
        let lock = self.lock().ok().filter(|_| !self.is_place_anothers());
        if let Some(lock) = lock {
            self.home = self.setup.state.path();
            self.move_from(old, old_lock, leaving);
            self.keep_while_unsaved(lock, self.setup.state.lock_path());
            return;
        }
        if old.path() != self.home {
            // Another process keeps them elsewhere: nobody waits for that.
            let _ = leaving.send(());
        }
        let new = std::mem::replace(&mut self.setup.state, old);
        self.next_place = Some((new, leaving));
    }

    /// Whether the file in the new place is that of another chain which is configured.
    fn is_place_anothers(&mut self) -> bool {
        let stored = self.on_disk(StateFile::load);
        let slug = self.setup.state.slug();
        matches!(stored, Ok(Some(stored)) if self.setup.seeker.is_anothers(slug, &stored))
    }

    /// Goes on in the place that is new, under the locks of both.
    fn move_from(&mut self, old: StateFile, old_lock: Option<StateLock>, leaving: Sender<()>) {
        let hindrance = match self.setup.state.load() {
            Ok(None) => {
                self.carry(&old);
                None
            }
            Ok(Some(stored)) if self.is_of_this_chain(&stored) => {
                self.machine.take_up(stored, self.setup.clock.now());
                None
            }
            Err(error) if error.kind() != ErrorKind::InvalidData => Some(error.to_string()),
            Ok(Some(_)) | Err(_) => {
                self.set_aside();
                None
            }
        };
        let saved = self.machine.saved().clone();
        match hindrance {
            _ if saved == Saved::default() => {}
            None => self.store(saved),
            Some(why) => self.unsaved = Some((saved, why)),
        }
        // Where the tokens came back to a place before it was left.
        let (place, old_lock_path) = (self.setup.state.path(), old.lock_path());
        self.left_places.retain(|(left, _)| left.path() != place);
        if old_lock.is_some() && self.unsaved.is_none() {
            self.leave_place(&old, &leaving);
        } else {
            self.left_places.push((old, leaving));
        }
        self.keep_while_unsaved(old_lock, old_lock_path);
        self.leave_old_places();
    }

    /// Renames the file: that needs no room on the disk, and there is no moment with two copies.
    fn carry(&self, old: &StateFile) {
        let is_beside = old.folder() == self.setup.state.folder();
        if is_beside && self.is_copy(old) && old.rename_to(&self.setup.state).is_ok() {
            self.say_where();
        }
    }

    /// Whether a file holds nothing that is not known here.
    fn is_copy(&self, file: &StateFile) -> bool {
        let known = self.machine.saved().mark();
        let is_known = |stored: &Saved| self.is_of_this_chain(stored) && stored.mark() <= known;
        matches!(file.load(), Ok(Some(stored)) if is_known(&stored))
    }

    fn say_where(&self) {
        info!(
            provider = self.setup.name.as_str();
            "The tokens of provider {} are kept in {} now",
            self.setup.name,
            self.setup.state.path().display()
        );
    }

    /// Whether `stored` tells of the chain that is in use.
    fn is_of_this_chain(&self, stored: &Saved) -> bool {
        let known = self.machine.saved();
        let seed = self.setup.config.seed.as_ref().and_then(|seed| seed.as_ref().ok());
        let seed_hash = known.seed_hash.clone().or_else(|| seed.map(Secret::hash));
        let same_login = stored.login_hash.is_some() && stored.login_hash == known.login_hash;
        let is_other_client = stored.client.is_some() && stored.client != known.client;
        same_login || !is_other_client && seed_hash.is_some_and(|hash| stored.knows_seed(&hash))
    }

    /// A file of another chain stands where ours is to be: it is kept beside.
    fn set_aside(&self) {
        match self.setup.state.set_aside(self.setup.clock.wall()) {
            Ok(aside) => warn!(
                provider = self.setup.name.as_str();
                "The state file {} is of another chain of tokens; it is kept as {}",
                self.setup.state.path().display(),
                aside.display()
            ),
            Err(error) => warn!(
                provider = self.setup.name.as_str();
                "The state file {} is of another chain of tokens and can't be moved aside: {error}",
                self.setup.state.path().display()
            ),
        }
    }

    /// Removes the state files that reloads left, once all they had is stored in the new one. A copy would
    /// spend its refresh token again if a provider of that name came back.
    pub(super) fn leave_old_places(&mut self) {
        if self.unsaved.is_none() {
            let places = std::mem::take(&mut self.left_places);
            self.left_places = places.into_iter().filter(|place| !self.has_left(place)).collect();
        }
    }

    /// False where another process is at it; the next tick tries again.
    fn has_left(&self, (old, leaving): &(StateFile, Sender<()>)) -> bool {
        let Ok(Locking::Ours(_lock)) = old.try_lock() else { return false };
        self.leave_place(old, leaving);
        true
    }

    fn leave_place(&self, old: &StateFile, leaving: &Sender<()>) {
        if self.is_copy(old) {
            self.remove(old);
        }
        // Nobody may be waiting for it.
        let _ = leaving.send(());
    }

    fn remove(&self, old: &StateFile) {
        match old.remove() {
            Ok(()) => self.say_where(),
            Err(error) => {
                warn!(
                    provider = self.setup.name.as_str();
                    "The old state file {} can't be removed: {error}", old.path().display()
                );
            }
        }
    }
}
