//! Reads the files with secrets again, because they may change at any time.

use crate::secret::Secret;
use crate::token::lifecycle::Policy;
use crate::token::refresher::life::Life;
use crate::token::refresher::vault::Vault;
use crate::token::reread;

/// A new refresh token, or a new client, ends a failure that was about the old one.
pub(super) fn read_again(vault: &mut Vault, life: &mut Life) {
    let Some(mut read) = reread::read_again(&life.config) else { return };
    if !vault.file.seeker.is_seed_of_all(read.seed.as_ref()) {
        let seed = read.seed.as_ref().and_then(|seed| seed.as_ref().ok());
        life.say_others_stay(seed.map(Secret::hash));
        read.seed.clone_from(&life.config.seed);
    }
    life.config = read;
    vault.file.seeker.reconfigure(&life.config);
    let is_new = life.machine.set_policy(Policy::of(&life.config));
    vault.forget_tokens_of_others(life);
    life.machine.record_client(life.config.client_hash());
    if is_new {
        // As at a start: the refresh token may belong to another account.
        life.machine.order(life.now());
    }
}
