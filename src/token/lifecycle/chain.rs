//! The chain of refresh tokens: chooses the one to present next, and keeps the record of the chain.

use crate::clock::Timestamp;
use crate::record::refresh_end::RefreshEnd;
use crate::record::{Mark, Marker, Saved, SavedAccess, SavedFailure};
use crate::secret::Secret;
use crate::token::grant::{Class, Failure, Grant};
use crate::token::lifecycle::failures::Failures;
use crate::token::lifecycle::outlook::{MarkerNews, Outlook};
use crate::token::lifecycle::policy::Policy;
use crate::token::lifecycle::seed::Seed;
use crate::token::scope;

/// The credential of a token request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Presented {
    /// This refresh token.
    Token(Secret),
    /// None: the client credentials grant.
    Nothing,
    /// There is no refresh token to present.
    Missing,
}

impl Presented {
    /// The refresh token.
    pub fn token(&self) -> Option<&Secret> {
        match self {
            Self::Token(token) => Some(token),
            Self::Nothing | Self::Missing => None,
        }
    }

    fn hash(&self) -> Option<String> {
        self.token().map(Secret::hash)
    }
}

/// The chain, as stored and as configured.
#[derive(Debug)]
pub(super) struct Chain {
    pub(super) seed: Seed,
    pub(super) failures: Failures,
    /// The record, in its stored form.
    pub(super) saved: Saved,
    /// The hash of the login or logout whose chain the one in use replaced, and the mark of the last record of it that is
    /// known here. The state file holds such a record until the new chain could be written.
    replaced_login: Option<(String, Mark)>,
    without_refresh_token: bool,
    scope: Option<String>,
}

impl Chain {
    /// A chain before its first token.
    pub(super) fn new(policy: Policy) -> Self {
        Self {
            seed: Seed::new(policy.seed),
            without_refresh_token: policy.without_refresh_token,
            scope: policy.scope,
            saved: Saved::default(),
            replaced_login: None,
            failures: Failures::new(policy.client_hash),
        }
    }

    /// Compares the configured seed with the hash of the one that the configuration named before, by the state file.
    pub(super) fn compare_configured_seed(&mut self, before: Option<String>) {
        self.seed.compare(before.as_deref());
        self.saved.configured_seed = before;
    }

    /// The next revision of the record.
    pub(super) fn stamped(&mut self, now: Timestamp) -> Saved {
        self.saved.revision += 1;
        self.saved.saved_at = now;
        self.saved.clone()
    }

    /// From now on, records name the seed that is configured here; without a seed, they keep the one they named.
    pub(super) fn record_configured_seed(&mut self) {
        if let Some(hash) = self.seed.hash() {
            self.saved.configured_seed = Some(hash.to_owned());
        }
    }

    /// The credential of the next token request: the seed if it is to begin a chain or the chain's refresh token was
    /// refused, else the chain's, else the seed.
    pub(super) fn presented(&self) -> Presented {
        if self.without_refresh_token {
            return Presented::Nothing;
        }
        let chain = self.saved.refresh_token.as_ref();
        let prefers_seed =
            self.failures.refused_chain.is_some() || self.seed.begins_chain(&self.saved);
        let token = match self.seed.token() {
            Some(seed) if prefers_seed => Some(seed),
            // The seed was known before the logout.
            _ if self.saved.is_logged_out() => None,
            seed => chain.or(seed),
        };
        token.map_or(Presented::Missing, |token| Presented::Token(token.clone()))
    }

    /// The scope of a request with `presented`. The refresh token of a login may not ask for more than the login was
    /// granted (RFC 6749 §6), and a request without a scope asks for exactly that.
    pub(super) fn scope(&self, presented: &Presented) -> Option<&str> {
        let configured = self.scope.as_deref();
        if self.saved.login_hash.is_none() || !self.is_of_chain(presented) {
            return configured;
        }
        let granted = self.saved.granted_scope.as_deref()?;
        configured.filter(|configured| scope::is_same(configured, granted))
    }

    /// True if `presented` is the chain's refresh token.
    fn is_of_chain(&self, presented: &Presented) -> bool {
        presented.token().is_some_and(|token| self.saved.refresh_token.as_ref() == Some(token))
    }

    /// True if the configured seed is to begin a chain.
    pub(super) fn begins_with_seed(&self) -> bool {
        self.seed.begins_chain(&self.saved)
    }

    /// The configuration has changed. Returns true if it names another seed.
    pub(super) fn set_policy(&mut self, policy: Policy) -> bool {
        let other_seed = policy.seed.as_ref() != self.seed.token();
        if other_seed {
            self.seed.set(policy.seed);
            self.seed.compare(self.saved.configured_seed.as_deref());
            self.record_configured_seed();
        }
        self.without_refresh_token = policy.without_refresh_token;
        self.scope = policy.scope;
        self.failures.client_hash = policy.client_hash;
        other_seed
    }

    /// A refresh begins. Returns the record that must be on disk before it is sent.
    pub(super) fn begin(&mut self, presented: &Presented, now: Timestamp) -> Option<Saved> {
        let marker = Marker { refresh_token_hash: presented.hash()?, at: now };
        self.failures.marker_before = self.saved.pending.replace(marker);
        Some(self.stamped(now))
    }

    /// Undoes a begin after which nothing was sent: `before` is the record from before [`Chain::begin`].
    pub(super) fn undo_begin(&mut self, before: Saved) {
        self.saved = before;
        self.failures.marker_before = None;
    }

    /// The refresh token of `grant`, which `presented` brought at `sent`, becomes the next one of the chain.
    pub(super) fn extend(&mut self, presented: &Presented, grant: &Grant, sent: Timestamp) {
        let Some(token) = presented.token() else { return };
        let next = grant.refresh_token.as_ref().unwrap_or(token);
        self.append(token, next, grant.refresh_token_lifetime_ms, sent);
    }

    /// The same with the `next` refresh token alone, from an answer that was no grant.
    pub(super) fn continue_with(&mut self, presented: &Presented, next: &Secret, sent: Timestamp) {
        let Some(token) = presented.token() else { return };
        if self.begins_with_seed() {
            // It belongs to the chain before.
            self.saved.access = None;
        }
        self.append(token, next, None, sent);
    }

    /// Puts `next`, which lasts for `lifetime_ms`, in the place of `token`. What failed before says nothing about it.
    fn append(&mut self, token: &Secret, next: &Secret, lifetime_ms: Option<i64>, sent: Timestamp) {
        let is_of_chain = self.saved.refresh_token.as_ref() == Some(token);
        let before = self.saved.refresh_end.filter(|_| is_of_chain);
        self.saved.refresh_end = RefreshEnd::after(before, lifetime_ms, next == token, sent);
        if self.seed.token() == Some(token) {
            self.begin_with(token);
        }
        self.saved.refresh_token = Some(next.clone());
        self.forget_failure();
        self.failures.marker_before = None;
    }

    /// From now on, the chain begins with `seed`, the configured one, which also supersedes another host's seed that
    /// was tried.
    fn begin_with(&mut self, seed: &Secret) {
        let tried = self.tried_seeds(self.failures.marker_before.as_ref());
        let (login, mark) = (self.saved.login_hash.clone(), self.saved.mark());
        self.saved.begin_with_seed(seed);
        self.note_replaced(login, mark);
        self.seed.arrived(&self.saved);
        for hash in tried.into_iter().filter(|hash| self.seed.hash() != Some(hash)) {
            self.saved.supersede_seed(hash);
        }
    }

    /// Notes that the chain in use replaced that of this `login`, if it did; `mark` is that of its last known record.
    fn note_replaced(&mut self, login: Option<String>, mark: Mark) {
        if login != self.saved.login_hash {
            self.replaced_login = login.map(|hash| (hash, mark)).or(self.replaced_login.take());
        }
    }

    /// True if `stored` began with a login, or ended with a logout, that is not known here. An old record of the replaced
    /// one is known, even while the chain in use can't be written in its place.
    pub(super) fn is_other_login(&self, stored: &Saved) -> bool {
        let Some(login) = &stored.login_hash else { return false };
        let is_replaced = self
            .replaced_login
            .as_ref()
            .is_some_and(|(replaced, mark)| replaced == login && stored.mark() <= *mark);
        self.saved.login_hash.as_ref() != Some(login) && !is_replaced
    }

    /// The refresh tokens other than the chain's that failed, or, by `marker`, have no known outcome: each may be a
    /// seed that never began a chain.
    fn tried_seeds(&self, marker: Option<&Marker>) -> Vec<String> {
        let failed = self.saved.failure.as_ref().map(|failure| &failure.refresh_token_hash);
        let unsure = marker.map(|marker| &marker.refresh_token_hash);
        let chain = self.saved.refresh_token.as_ref().map(Secret::hash);
        let tried = failed.into_iter().chain(unsure);
        tried.filter(|hash| chain.as_ref() != Some(hash)).cloned().collect()
    }

    /// A refresh, or a login, brought `access`.
    pub(super) fn succeeded(&mut self, access: SavedAccess) {
        self.saved.access = Some(access);
        self.saved.logged_out_at = None;
        self.forget_failure();
        self.saved.pending = None;
        self.failures.marker_before = None;
    }

    /// A login brought `grant` and with it `refresh_token`.
    ///
    /// A chain of the login's own begins. From now on, neither the configured seed nor an earlier one begins another
    /// chain; a new seed still does.
    pub(super) fn begin_with_login(
        &mut self,
        grant: &Grant,
        refresh_token: &Secret,
        sent: Timestamp,
    ) {
        let mut begun = Saved {
            login_hash: Some(refresh_token.hash()),
            refresh_token: Some(refresh_token.clone()),
            // RFC 6749 §5.1: an answer without a scope grants the requested one.
            granted_scope: grant.scope.clone().or_else(|| self.scope.clone()),
            revision: self.saved.revision,
            fence: self.saved.fence,
            configured_seed: self.saved.configured_seed.clone(),
            client: self.saved.client.clone(),
            refresh_end: RefreshEnd::after(None, grant.refresh_token_lifetime_ms, false, sent),
            ..Saved::default()
        };
        self.supersede_seeds(&mut begun);
        self.saved = begun;
    }

    /// A logout, with this `mark` in the place of a login's hash, ended the chain: its tokens are gone, and the seeds that
    /// are known here begin no other.
    pub(super) fn end(&mut self, mark: String, now: Timestamp) {
        let mut ended = Saved {
            login_hash: Some(mark),
            logged_out_at: Some(now),
            revision: self.saved.revision,
            fence: self.saved.fence,
            configured_seed: self.saved.configured_seed.clone(),
            client: self.saved.client.clone(),
            ..Saved::default()
        };
        self.supersede_seeds(&mut ended);
        self.saved = ended;
    }

    /// Notes the seeds that are known here in `begun`, which a login began, or a logout ended.
    ///
    /// One of them may never have begun a chain, because the login may have been made without the service's
    /// environment. If the issuer does not rotate, the chain's token is the seed itself.
    pub(super) fn supersede_seeds(&self, begun: &mut Saved) {
        let known = &self.saved;
        let begun_with = known.superseded_seeds.iter().chain(&known.seed_hash).cloned();
        let configured = self.seed.hash().map(str::to_owned);
        let tried = self.tried_seeds(known.pending.as_ref());
        for seed in begun_with.chain(configured).chain(tried) {
            begun.supersede_seed(seed);
        }
    }

    /// A refresh with `presented` failed. Returns true if an answer was lost before, as [`Failures::failed`].
    pub(super) fn failed(&mut self, presented: &Presented, failure: &Failure) -> bool {
        self.failures.failed(failure, presented.hash(), &mut self.saved.pending)
    }

    /// `presented` was refused. Returns true if it is a seed that the configuration went back to; the chain that
    /// superseded it is then used again.
    pub(super) fn returns_from_seed(&mut self, presented: &Presented) -> bool {
        let token = presented.token();
        token.is_some_and(|token| self.seed.is_given_up(token, &self.saved))
    }

    /// `presented` was refused. Returns true if the seed is to be tried in its place: `presented` is the chain's, and
    /// this is its first refusal.
    pub(super) fn falls_back(&mut self, presented: &Presented) -> bool {
        let is_fallback = self.is_of_chain(presented) && self.has_fallback();
        let refused = presented.hash().filter(|_| is_fallback);
        refused.is_some_and(|hash| self.failures.refuse_chain(hash))
    }

    /// True if the seed may be tried in place of the chain's refused refresh token, and differs from it.
    fn has_fallback(&self) -> bool {
        self.seed.token() != self.saved.refresh_token.as_ref()
            && self.seed.may_replace_chain(&self.saved)
    }

    /// Stores the permanent failure of a refresh with `presented`, which is tried again at `retry_at`.
    pub(super) fn remember(
        &mut self,
        presented: &Presented,
        failure: &Failure,
        answer_lost: bool,
        falls_back_to_seed: bool,
        retry_at: Timestamp,
    ) {
        let hash = presented.hash();
        // Another host may have a seed to try in place of the chain's refresh token.
        let seed_is_elsewhere = failure.class == Class::TokenDead
            && self.is_of_chain(presented)
            && self.saved.seed_hash != hash
            && !self.seed.may_replace_chain(&self.saved);
        let seed_is_next = falls_back_to_seed || seed_is_elsewhere;
        self.saved.failure =
            self.failures.remember(failure, hash, answer_lost, seed_is_next, retry_at);
    }

    /// Forgets the stored failure, and all others that delayed the next try.
    pub(super) fn forget_failure(&mut self) {
        self.saved.failure = None;
        self.failures.settle();
    }

    /// Forgets the chain, because it belongs to another issuer or client.
    pub(super) fn forget(&mut self) {
        self.saved = Saved::default();
        self.replaced_login = None;
        self.failures.settle();
        self.record_configured_seed();
    }

    /// Uses the stored record from now on.
    pub(super) fn adopt(&mut self, mut stored: Saved) -> Outlook {
        self.keep_times(&mut stored);
        // The refreshes of other hosts with the chain say nothing about a seed that is to begin another chain.
        let new_seed = self.seed.hash().filter(|_| self.begins_with_seed()).map(str::to_owned);
        let configured_seed = self.saved.configured_seed.take();
        let client = self.saved.client.take().or_else(|| stored.client.clone());
        let before =
            std::mem::replace(&mut self.saved, Saved { configured_seed, client, ..stored });
        self.note_replaced(before.login_hash.clone(), before.mark());
        self.seed.arrived(&self.saved);
        let all_well = self.saved.pending.is_none() && self.saved.failure.is_none();
        // A try elsewhere that failed and may soon be made again leaves such a record too, with the access token from before.
        let is_news = self.saved.access != before.access || before.failure.is_some();
        let is_settled = self.saved.refresh_token != before.refresh_token || (all_well && is_news);
        if is_settled {
            // Another chain, the next refresh token of this one, a successful refresh, or a repaired configuration.
            self.failures.settle_all_but(new_seed.as_deref());
        }
        let seed_is_next = self.recall_failure();
        let retry_at = self.applicable_failure().map(|failure| failure.retry_at);
        // A refresh token whose last use got no answer is soon tried again: issuers often allow a short overlap.
        let presented = self.presented().hash();
        let is_unanswered =
            self.failures.recall_marker(self.saved.pending.as_ref(), presented.as_deref());
        let tried =
            |saved: &Saved| saved.pending.as_ref().map(|marker| marker.refresh_token_hash.clone());
        let marker = match is_unanswered {
            false => MarkerNews::Gone,
            true if tried(&before) == tried(&self.saved) => MarkerNews::Known,
            true => MarkerNews::Begun,
        };
        let seed_is_due = seed_is_next && retry_at.is_none();
        Outlook { is_settled, retry_at, seed_is_due, marker }
    }

    /// Keeps the times of the access token in hand, if `stored` has the same one with times that another clock moved: each
    /// measurement of the clocks differs a little, which is no news.
    fn keep_times(&self, stored: &mut Saved) {
        if let (Some(known), Some(access)) = (&self.saved.access, &mut stored.access)
            && access.is_same_answer(known)
        {
            access.clone_from(known);
        }
    }

    /// Takes over the stored failure, whoever stored it. Returns true if it brings the news that the chain's refresh
    /// token was refused, and the seed is to be tried.
    fn recall_failure(&mut self) -> bool {
        let Some(stored) = &self.saved.failure else { return false };
        let chain = self.saved.refresh_token.as_ref().map(Secret::hash);
        let first = chain.as_deref().or(self.seed.hash());
        let (Some(failure), Some(chain)) = (self.failures.recall(stored, first), &chain) else {
            return false;
        };
        if self.begins_with_seed() || !self.has_fallback() {
            return false;
        }
        let chain_refused = failure.seed_is_next && failure.refresh_token_hash == *chain;
        let seed_refused = self.seed.hash() == Some(&failure.refresh_token_hash);
        // The chain's refresh token is not tried again, whichever of the two was refused.
        let is_refused = chain_refused || seed_refused;
        is_refused && self.failures.refuse_chain(chain.clone()) && chain_refused
    }

    /// The permanent failure, of this host or another one, with the refresh token that would be presented next.
    pub(super) fn applicable_failure(&self) -> Option<&SavedFailure> {
        let hash = self.presented().hash()?;
        let mut known = self.failures.of_this_client(self.saved.failure.as_ref());
        known.find(|failure| failure.concerns(&hash))
    }

    /// True if another host, another process or an earlier start was told that the refresh token to present next is
    /// invalid: all of them together try it once.
    pub(super) fn is_refused_elsewhere(&self, now: Timestamp) -> bool {
        let failure = self.applicable_failure().filter(|failure| failure.retry_at > now);
        let own = self.failures.own.as_ref();
        failure.is_some_and(|failure| own.is_none_or(|own| !failure.is_same_refusal(own)))
    }
}
