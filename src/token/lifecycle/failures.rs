//! Refreshes that failed permanently or got no answer, here and on other hosts, and their meaning for the next try.

use crate::clock::Timestamp;
use crate::record::{Marker, SavedFailure};
use crate::token::grant::{Class, Failure, Reached};

/// The failures and lost answers that are known of a chain.
#[derive(Debug, Default)]
pub(super) struct Failures {
    /// Hash of the request besides its refresh token: a failure with another one says nothing of the next try.
    pub(super) client_hash: String,
    /// Hash of a refresh token whose last use got no answer.
    unanswered: Option<String>,
    /// The marker that the refresh under way found: of an earlier one that got no answer.
    pub(super) marker_before: Option<Marker>,
    /// Hash of the chain's refresh token that was refused, where the seed is tried in its place.
    pub(super) refused_chain: Option<String>,
    /// The chain's refresh token was refused after an answer had gone missing.
    answer_lost: bool,
    /// The last permanent failure that was our own: others may store theirs in its place.
    pub(super) own: Option<SavedFailure>,
}

impl Failures {
    /// There was none yet.
    pub(super) fn new(client_hash: String) -> Self {
        Self { client_hash, ..Self::default() }
    }

    /// They delay the next try no longer.
    pub(super) fn settle(&mut self) {
        self.unanswered = None;
        self.refused_chain = None;
        self.answer_lost = false;
        self.own = None;
    }

    /// The same, but for our own failure with the refresh token of `hash`.
    pub(super) fn settle_all_but(&mut self, hash: Option<&str>) {
        let own = self.own.take().filter(|own| Some(own.refresh_token_hash.as_str()) == hash);
        self.settle();
        self.own = own;
    }

    /// A refresh with the token of `hash` failed, whose marker is `pending`. Returns whether an answer was lost before:
    /// of the chain, where the refresh token was refused now, else of this refresh token. A refusal of the client
    /// says nothing of an answer that was lost before.
    pub(super) fn failed(
        &mut self,
        failure: &Failure,
        hash: Option<String>,
        pending: &mut Option<Marker>,
    ) -> bool {
        let was_unanswered = hash.is_some() && hash == self.unanswered;
        let before = self.marker_before.take();
        match (failure.reached, failure.class) {
            (Reached::Perhaps, _) => self.unanswered = hash,
            // Of the earlier refresh this says nothing: the issuer was not reached, or did not look at the
            // refresh token.
            (Reached::No, Class::Transient) => *pending = before,
            // The stored failure tells what is known of the refresh token; nothing is known of another one.
            (Reached::No, Class::Permanent | Class::TokenDead) => {
                *pending =
                    before.filter(|marker| Some(&marker.refresh_token_hash) != hash.as_ref());
            }
        }
        if failure.class != Class::TokenDead {
            return was_unanswered;
        }
        self.answer_lost |= was_unanswered;
        self.answer_lost
    }

    /// The chain's refresh token, of `hash`, was refused, and the seed is tried in its place. Returns whether that is
    /// news.
    pub(super) fn refuse_chain(&mut self, hash: String) -> bool {
        let known = self.refused_chain.replace(hash);
        known != self.refused_chain
    }

    /// A refresh with the token of `hash` failed permanently, and is tried again at `retry_at`. Returns the
    /// failure to store.
    pub(super) fn remember(
        &mut self,
        failure: &Failure,
        hash: Option<String>,
        answer_lost: bool,
        seed_is_next: bool,
        retry_at: Timestamp,
    ) -> Option<SavedFailure> {
        let chain_hash = self.refused_chain.clone().filter(|chain| Some(chain) != hash.as_ref());
        self.own = hash.map(|refresh_token_hash| SavedFailure {
            refresh_token_hash,
            client_hash: self.client_hash.clone(),
            what: failure.what.to_string(),
            retry_at,
            answer_lost,
            seed_is_next,
            chain_hash,
        });
        self.own.clone()
    }

    /// Another process or host stored `stored`; the chain's refresh token is the one of `chain`. Returns the failure
    /// that is known since: where `stored` is about another client (a host that is configured otherwise), ours.
    pub(super) fn recall(
        &mut self,
        stored: &SavedFailure,
        chain: Option<&str>,
    ) -> Option<SavedFailure> {
        // An answer that was lost before a refusal stays lost, whichever client was refused.
        self.answer_lost |= stored.answer_lost && chain == Some(&stored.refresh_token_hash);
        let known = self.of_this_client(Some(stored)).next().cloned();
        self.answer_lost |= known.as_ref().is_some_and(|failure| failure.answer_lost);
        known
    }

    /// The record has the marker `pending`, and the refresh token of `presented` is the next one. Returns whether an
    /// earlier refresh with that has no known outcome. A marker that is gone had its answer: where that was
    /// lost, the stored failure says so.
    pub(super) fn recall_marker(
        &mut self,
        pending: Option<&Marker>,
        presented: Option<&str>,
    ) -> bool {
        let marked = pending.map(|marker| &marker.refresh_token_hash);
        self.unanswered = marked.filter(|marked| presented == Some(marked)).cloned();
        self.unanswered.is_some()
    }

    /// The stored failure, and our own: others store theirs in its place, or a success.
    pub(super) fn of_this_client<'a>(
        &'a self,
        stored: Option<&'a SavedFailure>,
    ) -> impl Iterator<Item = &'a SavedFailure> {
        let both = [stored, self.own.as_ref()].into_iter().flatten();
        // Older versions stored that a secret was missing, which each start looks at anew.
        both.filter(|failure| {
            !failure.what.starts_with("Missing ") && failure.client_hash == self.client_hash
        })
    }
}
