//! What becomes of the seed that is configured: whether it begins a chain, or was superseded by one that began
//! after it, here or on another host.
//!
//! A seed that nobody has seen begins a chain, and the one before it is superseded for everybody who shares
//! the record: a host that still has it in its environment uses the new chain. Only where the configuration of
//! this very host was changed to a superseded seed is that an order to go back to it; what the configuration
//! named before is in the state file.

use crate::clock::{Due, Moment};
use crate::record::Saved;
use crate::secret::Secret;
use crate::token::lifecycle::{AfterFailure, Lifecycle, Presented};

impl Lifecycle {
    /// Whether `seed` is to begin a chain.
    pub(super) fn seed_is_new(&self, seed: &Secret) -> bool {
        let hash = seed.hash();
        !self.saved.may_know_seed(&hash) || self.goes_back && self.saved.has_superseded(&hash)
    }

    /// The hash of the configured seed, where it was superseded by another seed, and the chain of that one is
    /// used.
    pub fn superseded_seed(&self) -> Option<String> {
        let seed = self.policy.seed.as_ref().filter(|seed| !self.seed_is_new(seed))?;
        Some(seed.hash()).filter(|hash| self.saved.seed_has_superseded(hash))
    }

    /// Whether `seed` may be tried in the place of the chain's refused token.
    pub(super) fn may_fall_back_to(&self, seed: &Secret) -> bool {
        !self.saved.seed_has_superseded(&seed.hash())
    }

    /// Notes whether the configuration names another seed than the one it named `before`.
    pub(super) fn note_configured(&mut self, before: Option<&str>) {
        let configured = self.policy.seed.as_ref().map(Secret::hash);
        if let (Some(before), Some(configured)) = (before, &configured) {
            self.goes_back = before != configured;
        }
    }

    /// A chain of the configured seed is in use: what supersedes it from now on comes after the change.
    pub(super) fn note_arrived(&mut self) {
        let configured = self.policy.seed.as_ref().map(Secret::hash);
        self.goes_back &= configured != self.saved.seed_hash;
    }

    /// What is stored from now on says which seed is configured here; without one, what it said before. Not for
    /// a login, which may be made where the service's environment can't be seen.
    pub fn stamp_configured(&mut self) {
        let configured = self.policy.seed.as_ref().map(Secret::hash);
        self.saved.configured_seed = configured.or_else(|| self.saved.configured_seed.take());
    }

    /// What is stored from now on says with which client it is refreshed; without one, what it said before.
    pub fn stamp_client(&mut self, client: Option<String>) {
        self.saved.client = client.or_else(|| self.saved.client.take());
    }

    /// The chain begins with `seed` from now on. A refresh token that failed, or whose outcome is not known, may be
    /// the seed of another host that never began a chain: it is superseded too.
    pub(super) fn begin_chain_with(&mut self, seed: &Secret) {
        let failed = self.saved.failure.as_ref().map(|failure| failure.refresh_token_hash.clone());
        let unsure = self.marker_before.as_ref().map(|marker| marker.refresh_token_hash.clone());
        let chain = self.saved.refresh_token.as_ref().map(Secret::hash);
        self.saved.begin_with_seed(seed);
        self.note_arrived();
        for hash in [failed, unsure].into_iter().flatten() {
            if hash != seed.hash() && chain.as_ref() != Some(&hash) {
                self.saved.supersede_seed(hash);
            }
        }
    }

    /// Whether `presented` is the chain's refresh token and there is no seed here to try in its place, though
    /// another host may have one.
    pub(super) fn has_no_seed_for(&self, presented: &Presented) -> bool {
        let Presented::Token(token) = presented else { return false };
        let seed = self.policy.seed.as_ref();
        self.saved.refresh_token.as_ref() == Some(token)
            && self.saved.seed_hash.as_ref() != Some(&token.hash())
            && seed.is_none_or(|seed| !self.may_fall_back_to(seed))
    }

    /// A superseded seed that the configuration went back to was refused: the chain that superseded it goes on.
    /// Whether that is so.
    pub(super) fn returns_to_chain(&mut self, presented: &Presented) -> bool {
        let Presented::Token(token) = presented else { return false };
        let is_seed = self.policy.seed.as_ref() == Some(token);
        let returns = self.goes_back && is_seed && self.saved.has_superseded(&token.hash());
        self.goes_back &= !returns;
        returns
    }
}

impl Lifecycle {
    /// What was there before the configuration went back to a superseded seed is used again.
    pub(super) fn go_on_with_chain(&mut self, now: Moment) -> (AfterFailure, Option<Saved>) {
        self.saved.failure = None;
        self.settle();
        self.take_up_access(now);
        let next_attempt = match &self.token {
            Some(_) => self.refresh_due,
            None => Due::after(now, 0),
        };
        let after = AfterFailure { returns_to_chain: true, ..AfterFailure::plain(next_attempt) };
        (after, Some(self.stamped(now)))
    }
}

impl Saved {
    /// Whether the seed with this hash was superseded by the one that the chain began with, not by a login.
    fn seed_has_superseded(&self, hash: &str) -> bool {
        self.login_hash.is_none() && self.has_superseded(hash)
    }
}
