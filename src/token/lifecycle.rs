//! The state machine of one provider's tokens: from what happened and the time to what to do next.
//!
//! It opens nothing, asks no clock and logs nothing. The refresher tells it what happened
//! ([`Lifecycle::granted`], [`Lifecycle::failed`], [`Lifecycle::take_up`], …) and obeys
//! [`Lifecycle::next`].

use fastrand::Rng;

use crate::clock::{Due, Moment, Timestamp};
use crate::record::refresh_end::RefreshEnd;
use crate::record::{Marker, Saved, SavedFailure};
use crate::secret::Secret;
use crate::token::grant::{Class, Failure, Grant, What};
use crate::token::lifecycle::rejection::Rejection;
use crate::token::lifecycle::schedule::Try;
use crate::token::store::{Generation, Token};

mod access;
mod login;
mod policy;
mod recall;
mod rejection;
mod schedule;
mod seeds;
mod shared;
mod stored;

pub use access::{REFRESH_GAP_MIN_MS, REFRESH_IN_MIN_MS, REPEATED_RETRY_MS};
pub use rejection::OnRejection;
pub use schedule::WRONG_CLOCK_WAIT_MS;

/// The words a lost answer is reported in.
pub const ANSWER_LOST: &str = "the answer to the last refresh was probably lost; log in again";

/// What the configuration says about one token life.
#[derive(Clone, Debug)]
pub struct Policy {
    /// How long before expiry a token is refreshed, in milliseconds.
    pub refresh_before_ms: u64,
    /// How long to wait after a permanent failure, in milliseconds.
    pub retry_interval_ms: u64,
    /// The refresh token that the configuration names; None where it names none or it is missing.
    pub seed: Option<Secret>,
    /// Whether the grant uses no refresh token (client credentials).
    pub without_refresh_token: bool,
    /// The configured scope.
    pub scope: Option<String>,
    /// Hash of the rest of the request, to tell whether a stored failure still applies.
    pub client_hash: String,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing for so many milliseconds, unless something happens.
    Wait(u64),
    /// The wall clock must be wrong: nothing for so many milliseconds.
    WaitForClock(u64),
    /// Refresh now.
    Refresh,
}

/// What a token request is made with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Presented {
    /// This refresh token.
    Token(Secret),
    /// Nothing: the client credentials grant.
    Nothing,
    /// There is no refresh token to present.
    Missing,
}

/// What a failure leads to, for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AfterFailure {
    /// When the next try is.
    pub next_attempt: Due,
    /// The refresh token was refused after an answer had gone missing.
    pub answer_lost: bool,
    /// The next try is made at once with the configuration's refresh token.
    pub falls_back_to_seed: bool,
    /// The configuration's refresh token was superseded before, and the chain that did it goes on.
    pub returns_to_chain: bool,
}

impl AfterFailure {
    /// Nothing but another try.
    fn plain(next_attempt: Due) -> Self {
        Self {
            next_attempt,
            answer_lost: false,
            falls_back_to_seed: false,
            returns_to_chain: false,
        }
    }
}

/// The machine. See the module's documentation.
#[derive(Debug)]
pub struct Lifecycle {
    policy: Policy,
    saved: Saved,
    token: Option<Token>,
    generation: Generation,
    refresh_due: Due,
    started: Moment,
    /// A wrong wall clock is not waited for any more: a refresh succeeded, or somebody asked for one.
    ignores_clock: bool,
    failures: u32,
    /// Of these, the last in a row that requests without a token waited for.
    failures_while_wanted: u32,
    next_attempt: Option<Due>,
    /// The last try that failed; None once one succeeds.
    last_failure: Option<Try>,
    /// When a refresh was ordered that has not been tried yet.
    ordered: Option<Moment>,
    /// A request found no token that it could use since the last try.
    is_wanted: bool,
    /// What is known of the provider refusing the token in hand.
    rejection: Rejection,
    /// Hash of a refresh token whose last use got no answer.
    unanswered: Option<String>,
    /// The marker that the refresh under way found: of an earlier one that got no answer.
    marker_before: Option<Marker>,
    /// Hash of the chain's refresh token that was refused, where the seed is tried in its place.
    refused_chain: Option<String>,
    /// The chain's refresh token was refused after an answer had gone missing.
    chain_lost: bool,
    /// The configuration names another seed than it did: where that one was superseded, this is an order to go
    /// back to it.
    goes_back: bool,
    /// The last permanent failure that was our own: others may store theirs in its place.
    own_failure: Option<SavedFailure>,
}

impl Lifecycle {
    /// Starts with what the state file holds, or nothing.
    pub fn new(policy: Policy, saved: Option<Saved>, now: Moment) -> Self {
        let mut machine = Self {
            policy,
            saved: Saved::default(),
            token: None,
            generation: 0,
            refresh_due: Due::after(now, 0),
            started: now,
            ignores_clock: false,
            failures: 0,
            failures_while_wanted: 0,
            next_attempt: None,
            last_failure: None,
            ordered: None,
            is_wanted: false,
            rejection: Rejection::default(),
            unanswered: None,
            marker_before: None,
            refused_chain: None,
            chain_lost: false,
            goes_back: false,
            own_failure: None,
        };
        if let Some(saved) = saved {
            machine.note_configured(saved.configured_seed.as_deref());
            machine.saved.configured_seed.clone_from(&saved.configured_seed);
            machine.adopt(saved, now);
        }
        machine
    }

    /// What the next token request is made with.
    ///
    /// The seed where it differs from the one that the stored chain began with, or where the
    /// chain's token was refused; else the chain's token; else the seed.
    pub fn presented(&self) -> Presented {
        if self.policy.without_refresh_token {
            return Presented::Nothing;
        }
        let seed = self.policy.seed.as_ref();
        let chain = self.saved.refresh_token.as_ref();
        let chosen = match (seed, chain) {
            (Some(seed), Some(_)) if self.seed_is_new(seed) || self.refused_chain.is_some() => seed,
            (_, Some(chain)) => chain,
            (Some(seed), None) => seed,
            (None, None) => return Presented::Missing,
        };
        Presented::Token(chosen.clone())
    }

    /// Forgets its tokens, and what stood against the next try: they are of another issuer or client.
    pub fn forget(&mut self, now: Moment) {
        self.saved = Saved::default();
        self.token = None;
        self.refresh_due = Due::after(now, 0);
        self.settle();
        self.stamp_configured();
    }

    /// Notes that a refresh begins, and returns what must be on disk before it is sent.
    pub fn begin(&mut self, presented: &Presented, now: Moment) -> Option<Saved> {
        let Presented::Token(token) = presented else { return None };
        let marker = Marker { refresh_token_hash: token.hash(), at: now.wall };
        self.marker_before = self.saved.pending.replace(marker);
        Some(self.stamped(now))
    }

    /// Nothing was sent after all: `before` is what was to be stored before [`Lifecycle::begin`].
    pub fn put_back(&mut self, before: Saved) {
        self.saved = before;
        self.marker_before = None;
    }

    /// A refresh with `presented`, sent at `sent`, brought `grant`. Returns what must be on disk
    /// before the token is used.
    pub fn granted(
        &mut self,
        presented: &Presented,
        grant: &Grant,
        sent: Moment,
        now: Moment,
        rng: &mut Rng,
    ) -> Saved {
        self.link(presented, grant, sent.wall);
        self.accept(grant, sent, now, rng);
        self.stamped(now)
    }

    /// Takes the refresh token of `grant`, which `presented` brought at `sent`, for the next one of the chain.
    pub fn link(&mut self, presented: &Presented, grant: &Grant, sent: Timestamp) {
        let Presented::Token(token) = presented else { return };
        let is_of_chain = self.saved.refresh_token.as_ref() == Some(token);
        let before = self.saved.refresh_end.filter(|_| is_of_chain);
        let is_kept = grant.refresh_token.as_ref().is_none_or(|next| next == token);
        self.saved.refresh_end =
            RefreshEnd::after(before, grant.refresh_token_lifetime_ms, is_kept, sent);
        let from_seed = self.policy.seed.as_ref().filter(|seed| *seed == token);
        if let Some(seed) = from_seed.cloned() {
            self.begin_chain_with(&seed);
        }
        self.saved.refresh_token =
            Some(grant.refresh_token.clone().unwrap_or_else(|| token.clone()));
    }

    /// Forgets everything that stood against the next try.
    fn settle(&mut self) {
        self.failures = 0;
        self.failures_while_wanted = 0;
        self.next_attempt = None;
        self.last_failure = None;
        self.unanswered = None;
        self.refused_chain = None;
        self.chain_lost = false;
        self.own_failure = None;
    }

    /// A refresh with `presented` failed. Returns what it leads to and, where something is to be
    /// remembered, what to put on disk.
    pub fn failed(
        &mut self,
        presented: &Presented,
        failure: &Failure,
        now: Moment,
        rng: &mut Rng,
    ) -> (AfterFailure, Option<Saved>) {
        if matches!(failure.what, What::Missing(_)) {
            // Nothing was sent, and the next start looks again: there is nothing to remember.
            let next_attempt = self.plan_after(failure, false, now, rng);
            return (AfterFailure::plain(next_attempt), None);
        }
        let hash = match presented {
            Presented::Token(token) => Some(token.hash()),
            Presented::Nothing | Presented::Missing => None,
        };
        let unanswered = hash.is_some() && hash == self.unanswered;
        self.chain_lost |= failure.class == Class::TokenDead && unanswered;
        let answer_lost = failure.class == Class::TokenDead && self.chain_lost;
        self.note_marker(failure, hash.as_deref());
        if failure.class == Class::TokenDead && self.returns_to_chain(presented) {
            return self.go_on_with_chain(now);
        }
        let seed_is_elsewhere =
            failure.class == Class::TokenDead && self.has_no_seed_for(presented);
        let falls_back_to_seed =
            failure.class == Class::TokenDead && self.falls_back(presented, hash.as_deref());
        let next_attempt = self.plan_after(failure, falls_back_to_seed, now, rng);
        if failure.class != Class::Transient {
            self.saved.failure = hash.clone().map(|refresh_token_hash| SavedFailure {
                refresh_token_hash,
                client_hash: self.policy.client_hash.clone(),
                what: failure.what.to_string(),
                retry_at: next_attempt.wall,
                // A refusal of the client says nothing of an answer that was lost before.
                answer_lost: answer_lost || unanswered,
                seed_is_next: falls_back_to_seed || seed_is_elsewhere,
                chain_hash: self.refused_chain.clone().filter(|chain| Some(chain) != hash.as_ref()),
            });
            self.own_failure.clone_from(&self.saved.failure);
        }
        let saved = hash.map(|_| self.stamped(now));
        let returns_to_chain = false;
        (AfterFailure { next_attempt, answer_lost, falls_back_to_seed, returns_to_chain }, saved)
    }

    /// Whether the seed is to be tried in the place of the chain's refused token: once for each.
    fn falls_back(&mut self, presented: &Presented, hash: Option<&str>) -> bool {
        let Presented::Token(token) = presented else { return false };
        let chain_refused = self.saved.refresh_token.as_ref() == Some(token);
        let seed = self.policy.seed.as_ref();
        let seed_differs = seed.is_some_and(|seed| seed != token && self.may_fall_back_to(seed));
        let first_time = self.refused_chain.as_deref() != hash;
        if chain_refused && seed_differs && first_time {
            self.refused_chain = hash.map(str::to_owned);
            return true;
        }
        false
    }

    /// What the configuration says has changed: secrets come from files that were read again. What
    /// stood against the next try is over where it was about the old ones. Whether a new seed is to begin a chain.
    pub fn set_policy(&mut self, policy: Policy) -> bool {
        let other_seed = policy.seed != self.policy.seed;
        let other_client = policy.client_hash != self.policy.client_hash;
        let lacked_a_secret = self.last_failure.is_some_and(|last| last.is_missing);
        let failed_for_good =
            self.saved.failure.is_some() || lacked_a_secret || self.policy.seed.is_none();
        self.policy = policy;
        if other_seed {
            let before = self.saved.configured_seed.clone();
            self.note_configured(before.as_deref());
            self.stamp_configured();
        }
        if (other_seed || other_client) && failed_for_good {
            self.saved.failure = None;
            self.settle();
        }
        other_seed && self.policy.seed.as_ref().is_some_and(|seed| self.seed_is_new(seed))
    }

    /// The newest token, valid or not.
    pub fn token(&self) -> Option<&Token> {
        self.token.as_ref()
    }

    /// Failures since the last success.
    pub fn consecutive_failures(&self) -> u32 {
        self.failures
    }

    /// What is to be stored of it all.
    pub fn saved(&self) -> &Saved {
        &self.saved
    }

    /// What is stored from now on is written under the lease of this fencing number.
    pub fn set_fence(&mut self, fence: u64) {
        self.saved.fence = fence;
    }

    /// The revision last read or written.
    pub fn revision(&self) -> u64 {
        self.saved.revision
    }

    /// The next revision of what is to be on disk.
    fn stamped(&mut self, now: Moment) -> Saved {
        self.saved.revision += 1;
        self.saved.saved_at = now.wall;
        self.saved.clone()
    }
}

#[cfg(test)]
mod tests;
