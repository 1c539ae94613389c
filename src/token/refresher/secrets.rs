//! What a refresher does about secrets in files, which may change at any time.

use log::warn;

use crate::config::Found;
use crate::token::lifecycle::Policy;
use crate::token::refresher::actor::Actor;
use crate::token::reread;

impl Actor {
    /// Reads the files that the secrets came from; a new refresh token, or a new client, ends a
    /// failure that was about the old one.
    pub(super) fn read_files_again(&mut self) {
        let Some(mut read) = reread::read_again(&self.setup.config) else { return };
        if !self.setup.seeker.is_seed_of_all(read.seed.as_ref()) {
            self.say_others_stay(read.seed.as_ref());
            read.seed.clone_from(&self.setup.config.seed);
        }
        self.setup.config = read;
        self.setup.seeker.reconfigure(&self.setup.config);
        let is_new = self.machine.set_policy(Policy::of(&self.setup.config));
        self.forget_tokens_of_others();
        self.machine.stamp_client(self.setup.config.client_hash());
        if is_new {
            // As at a start: it may be of another account.
            self.machine.order(self.setup.clock.now());
        }
    }

    /// Forgets the tokens of the chain in use where the configuration or a file has changed its issuer or client: they
    /// must not be sent to the new one, and stay in their file.
    pub(super) fn forget_tokens_of_others(&mut self) {
        if !self.setup.seeker.is_foreign(self.machine.saved()) {
            return;
        }
        let now = self.setup.clock.now();
        self.machine.forget(now);
        self.unsaved = None;
        self.kept_locks.clear();
        warn!(
            provider = self.setup.name.as_str();
            "The tokens of provider {} are of another token_url or client_id than it has now: they are not used",
            self.setup.name
        );
    }

    /// Says once that a changed file is not followed before a reload, since it would part providers.
    fn say_others_stay(&mut self, seed: Option<&Found>) {
        let hash = seed.and_then(|seed| seed.as_ref().ok()).map(crate::secret::Secret::hash);
        if hash == self.other_seed_said {
            return;
        }
        self.other_seed_said = hash;
        warn!(
            provider = self.setup.name.as_str();
            "One of the files with the refresh token that the providers {} share has another one now, and not all \
             have it: reload the configuration, so that each has a chain of its own",
            self.setup.name
        );
    }
}
