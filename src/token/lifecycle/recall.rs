//! What a stored failure, or the marker of a refresh without a known outcome, means for the next try.

use crate::clock::{Due, Moment};
use crate::record::{Marker, SavedFailure};
use crate::token::grant::{Class, Failure, Reached};
use crate::token::lifecycle::{Lifecycle, Presented};

impl Lifecycle {
    /// A stored failure goes on to count if it is about what would be presented next, whoever stored it.
    pub(super) fn recall_failure(&mut self, now: Moment) {
        self.recall_lost_answer();
        if let Some(failure) = self.failure_of_this_client() {
            self.chain_lost |= failure.answer_lost;
            if self.recall_refused_chain(&failure) {
                // The seed is next, and at once.
                self.next_attempt = Some(Due::after(now, 0));
            }
        }
        let Some(retry_at) = self.failure_that_counts().map(|failure| failure.retry_at) else {
            return;
        };
        self.failures = self.failures.max(1);
        // A clock that was ahead when it was stored does not make the wait longer.
        let longest = Due::after(now, self.policy.retry_interval_ms);
        self.next_attempt = Some(Due::at(retry_at, now).earlier(longest));
    }

    /// The failure for good, of this host or another one, that is about what would be presented next.
    pub fn failure_that_counts(&self) -> Option<&SavedFailure> {
        let Presented::Token(token) = self.presented() else { return None };
        let hash = token.hash();
        self.failures_of_this_client().find(|failure| failure.concerns(&hash))
    }

    /// The stored one, and our own: others store theirs in its place, or a success.
    fn failures_of_this_client(&self) -> impl Iterator<Item = &SavedFailure> {
        let both = [self.saved.failure.as_ref(), self.own_failure.as_ref()];
        let both = both.into_iter().flatten();
        // Older versions stored that a secret was missing, which each start looks at anew.
        both.filter(|failure| {
            !failure.what.starts_with("Missing ") && failure.client_hash == self.policy.client_hash
        })
    }

    /// Our own failure with a seed that begins a chain: the refreshes of others with the chain before it say
    /// nothing about it.
    pub(super) fn failure_of_new_seed(&self) -> Option<SavedFailure> {
        let seed = self.policy.seed.as_ref().filter(|seed| self.seed_is_new(seed))?;
        let hash = seed.hash();
        self.own_failure.clone().filter(|failure| failure.refresh_token_hash == hash)
    }

    /// An answer that was lost before a refusal stays lost, whichever client was refused.
    fn recall_lost_answer(&mut self) {
        let Some(failure) = self.saved.failure.as_ref().filter(|failure| failure.answer_lost)
        else {
            return;
        };
        let chain = self.saved.refresh_token.as_ref().or(self.policy.seed.as_ref());
        self.chain_lost |= chain.is_some_and(|token| token.hash() == failure.refresh_token_hash);
    }

    /// The stored one; where that is about another client (a host that is configured otherwise), our own.
    fn failure_of_this_client(&self) -> Option<SavedFailure> {
        self.saved.failure.as_ref()?;
        self.failures_of_this_client().next().cloned()
    }

    /// The chain's refresh token, or the seed that was tried in its place, was refused: the chain's is not
    /// tried again. Whether that is news, and the seed is to be tried.
    fn recall_refused_chain(&mut self, failure: &SavedFailure) -> bool {
        let (Some(seed), Some(chain)) = (&self.policy.seed, &self.saved.refresh_token) else {
            return false;
        };
        if self.seed_is_new(seed) || seed == chain || !self.may_fall_back_to(seed) {
            return false;
        }
        let chain_refused = failure.seed_is_next && failure.refresh_token_hash == chain.hash();
        if !chain_refused && failure.refresh_token_hash != seed.hash() {
            return false;
        }
        let known = self.refused_chain.replace(chain.hash());
        chain_refused && known != self.refused_chain
    }

    /// A marker tells of a refresh without a known outcome: its token is tried again at once, since
    /// issuers often allow a short overlap.
    pub(super) fn recall_marker(&mut self, now: Moment) {
        let Some(marker) = &self.saved.pending else { return };
        let Presented::Token(token) = self.presented() else { return };
        if token.hash() == marker.refresh_token_hash {
            self.unanswered = Some(marker.refresh_token_hash.clone());
            self.next_attempt = Some(Due::after(now, 0));
        }
    }

    /// What a failed refresh means for the marker that it wrote before it was sent, and for the one that
    /// it found: of an earlier refresh whose answer is missing.
    pub(super) fn note_marker(&mut self, failure: &Failure, hash: Option<&str>) {
        let before = self.marker_before.take();
        match (failure.reached, failure.class) {
            (Reached::Perhaps, _) => self.unanswered = hash.map(str::to_owned),
            // Of the earlier refresh this says nothing: the issuer was not reached, or did not look at the
            // refresh token.
            (Reached::No, Class::Transient) => self.saved.pending = before,
            // What is known of the refresh token is stored with the failure; of another one nothing is.
            (Reached::No, Class::Permanent | Class::TokenDead) => {
                let is_other = |marker: &Marker| Some(marker.refresh_token_hash.as_str()) != hash;
                self.saved.pending = before.filter(is_other);
            }
        }
    }
}
