//! The configured refresh token (the seed): it begins a chain, or another seed superseded it, whose chain began later,
//! here or on another host.
//!
//! A seed that is new to the record begins a chain, and supersedes the earlier one for everybody who shares the record:
//! a host that still has the old seed in its environment uses the new chain. A superseded seed is used again only if
//! the configuration of this very host was changed to it; the state file names the seed that the configuration had
//! before.

use crate::record::Saved;
use crate::secret::Secret;

/// The seed of this host's configuration, if it has one.
#[derive(Debug)]
pub(super) struct Seed {
    token: Option<Secret>,
    hash: Option<String>,
    /// True if the configuration named another seed before. A superseded seed is then tried again.
    was_changed: bool,
}

impl Seed {
    pub(super) fn new(token: Option<Secret>) -> Self {
        Self { hash: token.as_ref().map(Secret::hash), token, was_changed: false }
    }

    /// Takes over the `token` that the configuration names now.
    pub(super) fn set(&mut self, token: Option<Secret>) {
        *self = Self { was_changed: self.was_changed, ..Self::new(token) };
    }

    /// Compares the seed with the hash of the one that the configuration named before.
    pub(super) fn compare(&mut self, before: Option<&str>) {
        if let (Some(before), Some(hash)) = (before, &self.hash) {
            self.was_changed = before != hash;
        }
    }

    /// The seed.
    pub(super) fn token(&self) -> Option<&Secret> {
        self.token.as_ref()
    }

    pub(super) fn hash(&self) -> Option<&str> {
        self.hash.as_deref()
    }

    /// True if it is to begin a chain in place of the one in `record`.
    pub(super) fn begins_chain(&self, record: &Saved) -> bool {
        self.hash().is_some_and(|hash| {
            !record.may_know_seed(hash) || self.was_changed && record.has_superseded(hash)
        })
    }

    /// Its hash, if another seed superseded it and that seed's chain is used.
    pub(super) fn superseded(&self, record: &Saved) -> Option<&str> {
        let is_superseded = !self.begins_chain(record) && !self.may_replace_chain(record);
        self.hash().filter(|_| is_superseded)
    }

    /// True if it may be tried in place of the chain's refused refresh token: there is a seed, and no other seed (as
    /// opposed to a login) superseded it.
    pub(super) fn may_replace_chain(&self, record: &Saved) -> bool {
        self.hash().is_some_and(|hash| record.login_hash.is_some() || !record.has_superseded(hash))
    }

    /// Notes that a chain which began with it is in use: a seed that supersedes it from now on came after the change.
    pub(super) fn arrived(&mut self, record: &Saved) {
        self.was_changed &= self.hash != record.seed_hash;
    }

    /// `refused` was refused. Returns true if it is a superseded seed that the configuration went back to: the chain
    /// that superseded it is used again.
    pub(super) fn is_given_up(&mut self, refused: &Secret, record: &Saved) -> bool {
        let is_given_up = self.was_changed
            && self.token() == Some(refused)
            && record.has_superseded(&refused.hash());
        self.was_changed &= !is_given_up;
        is_given_up
    }
}
