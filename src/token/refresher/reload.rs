//! What a reload does to a running refresher: it goes on with another configuration and the tokens it has,
//! tries once where it had given up, or keeps still where no provider uses it any more.

use std::io::ErrorKind;

use crossbeam_channel::Sender;
use log::{info, warn};

use crate::secret::Secret;
use crate::token::lifecycle::Policy;
use crate::token::refresher::Setup;
use crate::token::refresher::actor::Actor;
use crate::token::saved::Saved;
use crate::token::state_file::{Locking, StateFile};

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
        let before = std::mem::replace(&mut self.setup, setup);
        let now = self.setup.clock.now();
        self.machine.reconfigure(Policy::of(&self.setup.config), now);
        self.next_place = None;
        if before.state.path() != self.setup.state.path() {
            let new = std::mem::replace(&mut self.setup.state, before.state);
            self.next_place = Some((new, leaving));
            self.move_to_next_place();
        }
        self.publish(false);
    }

    /// The configuration is as it was; that it was read again is an order to try, where the last try
    /// failed.
    pub(super) fn reloaded(&mut self) {
        self.is_retired = false;
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

    /// Keeps the tokens where a reload said from now on; not before it is known what the file so far holds.
    pub(super) fn move_to_next_place(&mut self) {
        if self.unread.is_none()
            && let Some((new, leaving)) = self.next_place.take()
        {
            let old = std::mem::replace(&mut self.setup.state, new);
            self.move_from(old, leaving);
        }
    }

    fn move_from(&mut self, old: StateFile, leaving: Sender<()>) {
        let lock = self.lock();
        let hindrance = match self.setup.state.load() {
            _ if lock.is_err() => Some("another process refreshes there".to_owned()),
            Ok(None) => None,
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
        drop(lock);
        self.left_places.push((old, leaving));
        // Where the tokens came back to a place before it was left.
        let place = self.setup.state.path();
        self.left_places.retain(|(left, _)| left.path() != place);
        self.leave_old_places();
    }

    /// Whether `stored` tells of the chain that is in use.
    fn is_of_this_chain(&self, stored: &Saved) -> bool {
        let known = self.machine.saved();
        let seed = self.setup.config.seed.as_ref().and_then(|seed| seed.as_ref().ok());
        let seed_hash = known.seed_hash.clone().or_else(|| seed.map(Secret::hash));
        let same_login = stored.login_hash.is_some() && stored.login_hash == known.login_hash;
        same_login || seed_hash.is_some_and(|hash| stored.knows_seed(&hash))
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
        let known = self.machine.saved();
        let is_copy =
            |stored: &Saved| self.is_of_this_chain(stored) && stored.mark() <= known.mark();
        if matches!(old.load(), Ok(Some(stored)) if is_copy(&stored)) {
            self.remove(old);
        }
        // Nobody may be waiting for it.
        let _ = leaving.send(());
        true
    }

    fn remove(&self, old: &StateFile) {
        match old.remove() {
            Ok(()) => info!(
                provider = self.setup.name.as_str();
                "The tokens of provider {} are kept in {} now",
                self.setup.name,
                self.setup.state.path().display()
            ),
            Err(error) => {
                warn!(
                    provider = self.setup.name.as_str();
                    "The old state file {} can't be removed: {error}", old.path().display()
                );
            }
        }
    }
}
