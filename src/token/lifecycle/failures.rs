//! Refreshes that failed permanently or got no answer, here and on other hosts, and their meaning for the next try.

use crate::clock::Timestamp;
use crate::record::{Marker, SavedFailure};
use crate::token::grant::{Class, Failure, Reached, What};

/// The known failures and lost answers of a chain.
#[derive(Debug, Default)]
pub(super) struct Failures {
    /// The hash of the request without its refresh token: a failure of another request says nothing about the next try.
    pub(super) client_hash: String,
    /// The hash of a refresh token whose last use got no answer.
    unanswered: Option<String>,
    /// The marker of an earlier refresh without an answer, which the refresh under way found.
    pub(super) marker_before: Option<Marker>,
    /// The hash of the chain's refused refresh token, while the seed is tried in its place.
    pub(super) refused_chain: Option<String>,
    /// True if the chain's refresh token was refused after an answer had gone missing.
    answer_lost: bool,
    /// The last permanent failure of this host: other hosts may replace it in the record with theirs.
    pub(super) own: Option<SavedFailure>,
}

impl Failures {
    pub(super) fn new(client_hash: String) -> Self {
        Self { client_hash, ..Self::default() }
    }

    /// Ends their delay of the next try.
    pub(super) fn settle(&mut self) {
        self.unanswered = None;
        self.refused_chain = None;
        self.answer_lost = false;
        self.own = None;
    }

    /// The same, except for our own failure with the refresh token of `hash`.
    pub(super) fn settle_all_but(&mut self, hash: Option<&str>) {
        let own = self.own.take().filter(|own| Some(own.refresh_token_hash.as_str()) == hash);
        self.settle();
        self.own = own;
    }

    /// A refresh failed that presented the token of `hash` and had the marker `pending`. Returns true if an answer was
    /// lost before: of the chain, if the refresh token was refused now, else of this refresh token. A refusal of the
    /// client says nothing about an earlier lost answer.
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
            // This says nothing about the earlier refresh: the issuer was not reached, or did not look at the refresh
            // token.
            (Reached::No, Class::Transient) => *pending = before,
            // The stored failure says everything known about the refresh token; nothing is known about any other.
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

    /// The chain's refresh token, of `hash`, was refused, and the seed is tried in its place. Returns true if that is
    /// news.
    pub(super) fn refuse_chain(&mut self, hash: String) -> bool {
        let known = self.refused_chain.replace(hash);
        known != self.refused_chain
    }

    /// A refresh with the token of `hash` failed permanently, and is tried again at `retry_at`. Returns the failure to
    /// store.
    pub(super) fn remember(
        &mut self,
        failure: &Failure,
        hash: Option<String>,
        answer_lost: bool,
        seed_is_next: bool,
        retry_at: Timestamp,
    ) -> Option<SavedFailure> {
        let chain_hash = self.refused_chain.clone().filter(|chain| Some(chain) != hash.as_ref());
        let (status, code) = match &failure.what {
            What::Status(status, code) => (Some(*status), code.clone()),
            _ => (None, None),
        };
        self.own = hash.map(|refresh_token_hash| SavedFailure {
            refresh_token_hash,
            client_hash: self.client_hash.clone(),
            what: failure.what.to_string(),
            status,
            code,
            retry_at,
            answer_lost,
            seed_is_next,
            chain_hash,
        });
        self.own.clone()
    }

    /// Another process or host stored `stored`; `chain` is the hash of the chain's refresh token. Returns the failure
    /// that counts now: ours, if `stored` is about another client (of a host with another configuration).
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

    /// The record has the marker `pending`, and `presented` is the hash of the next refresh token. Returns true if an
    /// earlier refresh with that token has no known outcome. A missing marker had its answer: if that was lost, the
    /// stored failure says so.
    pub(super) fn recall_marker(
        &mut self,
        pending: Option<&Marker>,
        presented: Option<&str>,
    ) -> bool {
        let marked = pending.map(|marker| &marker.refresh_token_hash);
        self.unanswered = marked.filter(|marked| presented == Some(marked)).cloned();
        self.unanswered.is_some()
    }

    /// The stored failure, and our own, which others replace with theirs or with a success.
    pub(super) fn of_this_client<'a>(
        &'a self,
        stored: Option<&'a SavedFailure>,
    ) -> impl Iterator<Item = &'a SavedFailure> {
        let both = [stored, self.own.as_ref()].into_iter().flatten();
        // Versions before the first release stored no status, and missing secrets as well; what they stored is tried once more.
        both.filter(|failure| failure.status.is_some() && failure.client_hash == self.client_hash)
    }
}
