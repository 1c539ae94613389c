//! The state machine of one chain's tokens: decides the next step from the events and the time.
//!
//! It opens nothing, reads no clock and logs nothing. The refresher tells it of each event ([`Lifecycle::granted`],
//! [`Lifecycle::failed`], [`Lifecycle::take_up`], …) and obeys [`Lifecycle::next`]. `chain` chooses the refresh token,
//! `schedule` the time; they meet only here.

use fastrand::Rng;

use crate::clock::{Due, Moment, Timestamp};
use crate::record::{Saved, SavedFailure};
use crate::secret::Secret;
use crate::token::grant::{Class, Failure, Grant, What};
use crate::token::lifecycle::chain::Chain;
use crate::token::lifecycle::schedule::Schedule;
use crate::token::store::{Generation, Token};

mod access;
mod chain;
mod failures;
mod outlook;
mod policy;
mod rejection;
mod schedule;
mod seed;

pub use access::REFRESH_GAP_MIN_MS;
pub use chain::Presented;
pub use policy::Policy;
pub use rejection::OnRejection;
pub use schedule::Instruction;

/// The value of [`Token::source`] for a stored token.
pub const STATE_FILE: &str = "state_file";
/// The value for a token that another host obtained.
pub(crate) const TOKEN_STORE: &str = "token_store";
/// The words for a lost answer.
pub(crate) const ANSWER_LOST: &str =
    "the answer to the last refresh was probably lost; log in again";

/// The consequences of a failure, for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AfterFailure {
    /// The time of the next try.
    pub next_attempt: Due,
    /// The refresh token was refused after an answer had gone missing.
    pub answer_lost: bool,
    /// The next try is made at once with the configured refresh token.
    pub falls_back_to_seed: bool,
    /// The configured refresh token was refused. A newer one had superseded it, whose chain is used again.
    pub returns_to_newer_chain: bool,
}

impl AfterFailure {
    /// Only another try.
    fn plain(next_attempt: Due) -> Self {
        Self {
            next_attempt,
            answer_lost: false,
            falls_back_to_seed: false,
            returns_to_newer_chain: false,
        }
    }
}

/// The state machine. See the module's documentation.
#[derive(Debug)]
pub struct Lifecycle {
    chain: Chain,
    schedule: Schedule,
}

impl Lifecycle {
    /// Starts with the record in the state file, if there is one.
    pub fn new(policy: Policy, saved: Option<Saved>, now: Moment) -> Self {
        let mut machine = Self { schedule: Schedule::new(&policy, now), chain: Chain::new(policy) };
        if let Some(saved) = saved {
            machine.chain.compare_configured_seed(saved.configured_seed.clone());
            machine.adopt(STATE_FILE, saved, now);
        }
        machine
    }

    /// Returns the instruction at `now`.
    pub fn next(&self, now: Moment) -> Instruction {
        self.schedule.next(self.chain.saved.saved_at, now)
    }

    /// The rest of a due refresh's wait for a wrong wall clock to be set, in milliseconds; None if it does not wait.
    pub fn clock_wait_left_ms(&self, now: Moment) -> Option<u64> {
        self.schedule.clock_wait_left_ms(self.chain.saved.saved_at, now)
    }

    /// The credential of the next token request.
    pub fn presented(&self) -> Presented {
        self.chain.presented()
    }

    /// The scope of a request with `presented`.
    pub fn scope(&self, presented: &Presented) -> Option<&str> {
        self.chain.scope(presented)
    }

    /// A refresh begins. Returns the record that must be on disk before it is sent.
    pub fn begin(&mut self, presented: &Presented, now: Moment) -> Option<Saved> {
        self.chain.begin(presented, now.wall)
    }

    /// Undoes a begin after which nothing was sent: `before` is the record from before [`Lifecycle::begin`].
    pub fn undo_begin(&mut self, before: Saved) {
        self.chain.undo_begin(before);
    }

    /// Notes that a try was given up before anything was sent, and not because of another process or host: an order has
    /// to be given again. Returns true if the try was ordered.
    pub fn withdrawn(&mut self) -> bool {
        self.schedule.withdrawn()
    }

    /// A refresh with `presented`, sent at `sent`, brought `grant`. Returns the record that must be on disk before the
    /// token is used.
    pub fn granted(
        &mut self,
        presented: &Presented,
        grant: &Grant,
        sent: Moment,
        now: Moment,
        rng: &mut Rng,
    ) -> Saved {
        self.extend_chain(presented, grant, sent.wall);
        self.accept(grant, sent, now, rng)
    }

    /// The refresh token of `grant`, which `presented` brought at `sent`, becomes the next one of the chain.
    pub fn extend_chain(&mut self, presented: &Presented, grant: &Grant, sent: Timestamp) {
        self.chain.extend(presented, grant, sent);
    }

    /// An answer to a request with `presented`, sent at `sent`, was no grant but had the `next` refresh token of the chain.
    pub fn continue_chain(&mut self, presented: &Presented, next: &Secret, sent: Timestamp) {
        self.chain.continue_with(presented, next, sent);
    }

    /// A login brought `grant`, whose `refresh_token` begins a chain. Returns the record that must be on disk.
    pub fn logged_in(
        &mut self,
        grant: &Grant,
        refresh_token: &Secret,
        sent: Moment,
        now: Moment,
        rng: &mut Rng,
    ) -> Saved {
        self.chain.begin_with_login(grant, refresh_token, sent.wall);
        self.accept(grant, sent, now, rng)
    }

    /// A logout ends the chain; `mark` tells it from other logouts and logins. Returns the record that must be on disk.
    pub fn logged_out(&mut self, mark: String, now: Moment) -> Saved {
        self.chain.end(mark, now.wall);
        self.forget_failure();
        self.schedule.access.forget(now);
        self.chain.stamped(now.wall)
    }

    /// Starts to use the access token of `grant`.
    fn accept(&mut self, grant: &Grant, sent: Moment, now: Moment, rng: &mut Rng) -> Saved {
        let access = self.schedule.granted(grant, sent, now, rng);
        self.chain.succeeded(access);
        self.chain.stamped(now.wall)
    }

    /// True if `grant`, requested at `sent`, brings a known token that has ended by the answer's own words.
    pub fn repeats_an_ended_token(&self, grant: &Grant, sent: Moment) -> bool {
        let known = self.saved().access.as_ref();
        let is_known = known.is_some_and(|access| access.token == grant.access_token);
        grant.has_ended && is_known && self.schedule.access.repeated_by(grant, sent).is_none()
    }

    /// A refresh with `presented` failed. Returns the consequences, and the record to write if there is something to
    /// remember.
    pub fn failed(
        &mut self,
        presented: &Presented,
        failure: &Failure,
        now: Moment,
        rng: &mut Rng,
    ) -> (AfterFailure, Option<Saved>) {
        if matches!(failure.what, What::Missing(_)) {
            return (self.failed_unsent(failure, now, rng), None);
        }
        let is_dead = failure.class == Class::TokenDead;
        let was_lost = self.chain.failed(presented, failure);
        if is_dead && self.chain.returns_from_seed(presented) {
            return self.go_on_with_chain(now);
        }
        let falls_back_to_seed = is_dead && self.chain.falls_back(presented);
        let next_attempt = self.schedule.plan_after(failure, falls_back_to_seed, now, rng);
        if failure.class != Class::Transient {
            let retry_at = next_attempt.wall;
            self.chain.remember(presented, failure, was_lost, falls_back_to_seed, retry_at);
        }
        let answer_lost = is_dead && was_lost;
        let after =
            AfterFailure { answer_lost, falls_back_to_seed, ..AfterFailure::plain(next_attempt) };
        let is_of_token = matches!(presented, Presented::Token(_));
        (after, is_of_token.then(|| self.chain.stamped(now.wall)))
    }

    /// A refresh failed before anything was sent. The next start looks again, so there is nothing to remember.
    pub fn failed_unsent(&mut self, failure: &Failure, now: Moment, rng: &mut Rng) -> AfterFailure {
        AfterFailure::plain(self.schedule.plan_after(failure, false, now, rng))
    }

    /// Uses the chain and its token again that were in use before the configuration went back to a superseded seed.
    fn go_on_with_chain(&mut self, now: Moment) -> (AfterFailure, Option<Saved>) {
        self.forget_failure();
        self.take_up_access(STATE_FILE, now);
        let after = AfterFailure::plain(self.schedule.planned_or_now(now));
        let after = AfterFailure { returns_to_newer_chain: true, ..after };
        (after, Some(self.chain.stamped(now.wall)))
    }

    /// Forgets the failures that delayed the next try.
    fn forget_failure(&mut self) {
        self.chain.forget_failure();
        self.schedule.settle();
    }

    /// A provider refused the token of `generation`.
    pub fn rejected(&mut self, generation: Generation, now: Moment) -> OnRejection {
        if self.token().is_none_or(|token| token.generation != generation) {
            return OnRejection::Nothing;
        }
        // The refused client has no usable token.
        self.wanted(now);
        let was_due = self.next(now) == Instruction::Refresh;
        let is_refused_elsewhere = self.chain.is_refused_elsewhere(now.wall);
        match self.schedule.rejected(is_refused_elsewhere, now) {
            _ if was_due => OnRejection::Join,
            Some(0) => OnRejection::Refresh,
            Some(wait_ms) => OnRejection::Later(wait_ms),
            None => OnRejection::Nothing,
        }
    }

    /// A request found no usable token. Returns true if that brings the next try forward.
    pub fn wanted(&mut self, now: Moment) -> bool {
        self.schedule.wanted(now)
    }

    /// Orders a refresh now, in spite of any delay.
    pub fn order(&mut self, now: Moment) {
        self.schedule.order(now);
        self.chain.failures.refused_chain = None;
    }

    /// Takes up the record of `source` if it is newer than the known one, or comes from another login. Returns true if
    /// it brought a different access token that is still valid.
    pub fn take_up(&mut self, source: &'static str, mut stored: Saved, now: Moment) -> bool {
        if self.is_other_login(&stored) {
            self.chain.supersede_seeds(&mut stored);
        } else if stored.mark() <= self.saved().mark() && *self.saved() != Saved::default() {
            return false;
        }
        self.adopt(source, stored, now)
    }

    /// Uses the record of `source` from now on, newer or not, because the known one could not replace it. Returns true
    /// if it brought a different access token that is still valid.
    pub fn adopt(&mut self, source: &'static str, stored: Saved, now: Moment) -> bool {
        let outlook = self.chain.adopt(stored);
        self.schedule.follow(&outlook, now);
        self.take_up_access(source, now)
    }

    /// Takes up the stored access token. Returns true if it is a different one that is still valid.
    fn take_up_access(&mut self, source: &'static str, now: Moment) -> bool {
        let record = &self.chain.saved;
        if record.is_logged_out() {
            self.schedule.access.forget(now);
            return false;
        }
        if record.access.is_some() && self.chain.begins_with_seed() {
            // A new seed may belong to another account, so the old account's token is not used.
            self.schedule.access.token = None;
            return false;
        }
        self.schedule.take_up(record, source, now)
    }

    /// The configuration has changed: secrets come from files that were read again. A failure of the old secrets does
    /// not delay the next try. Returns true if a new seed is to begin a chain.
    pub fn set_policy(&mut self, policy: Policy) -> bool {
        let has_failed = self.chain.saved.failure.is_some() || self.schedule.lacks_a_secret();
        let is_stuck = has_failed || self.chain.seed.token().is_none();
        let other_client = self.has_other_client(&policy);
        self.schedule.set_policy(&policy);
        let other_seed = self.chain.set_policy(policy);
        if (other_seed || other_client) && is_stuck {
            self.forget_failure();
        }
        other_seed && self.chain.begins_with_seed()
    }

    /// A reload brought `policy`. The chain and its token continue under it. If the request has changed, or the last
    /// try failed, one try is made at once; a valid token that was obtained in the same way is kept.
    pub fn reconfigure(&mut self, policy: Policy, now: Moment) {
        let other_client = self.has_other_client(&policy);
        let has_failed = self.next_attempt_at().is_some();
        self.set_policy(policy);
        // A new seed may belong to another account; a known one brings its token back.
        self.take_up_access(STATE_FILE, now);
        if other_client || has_failed {
            self.order(now);
        }
    }

    /// True if `policy` changes more of the request than its refresh token.
    fn has_other_client(&self, policy: &Policy) -> bool {
        policy.client_hash != self.chain.failures.client_hash
    }

    /// Forgets the tokens, and the failures that delayed the next try, because they belong to another issuer or client.
    pub fn forget(&mut self, now: Moment) {
        self.chain.forget();
        self.schedule.settle();
        self.schedule.access.forget(now);
    }

    /// From now on, records name the seed that is configured here; without a seed, they keep the one they named. Not
    /// for a login, which may be made without the service's environment.
    pub fn record_configured_seed(&mut self) {
        self.chain.record_configured_seed();
    }

    /// From now on, records name the client that refreshes the chain; without a client, they keep the one they named.
    pub fn record_client(&mut self, client: Option<String>) {
        let saved = &mut self.chain.saved;
        saved.client = client.or_else(|| saved.client.take());
    }

    /// From now on, records carry this fencing number of the lease.
    pub fn set_fence(&mut self, fence: u64) {
        self.chain.saved.fence = fence;
    }

    /// The newest record, in its stored form.
    pub fn saved(&self) -> &Saved {
        &self.chain.saved
    }

    /// True if `stored` began with an unknown login: a person made it, so it wins over the chain in use.
    pub fn is_other_login(&self, stored: &Saved) -> bool {
        self.chain.is_other_login(stored)
    }

    /// The hash of the configured seed, if another seed superseded it and that seed's chain is used.
    pub fn superseded_seed(&self) -> Option<String> {
        self.chain.seed.superseded(&self.chain.saved).map(str::to_owned)
    }

    /// The permanent failure, of this host or another one, with the refresh token that would be presented next.
    pub fn applicable_failure(&self) -> Option<&SavedFailure> {
        self.chain.applicable_failure()
    }

    /// The newest token, valid or not.
    pub fn token(&self) -> Option<&Token> {
        self.schedule.access.token.as_ref()
    }

    /// Failures since the last success.
    pub fn consecutive_failures(&self) -> u32 {
        self.schedule.failures
    }

    /// The time of the next try, if the last one failed.
    pub fn next_attempt_at(&self) -> Option<Timestamp> {
        self.schedule.next_attempt.map(|due| due.wall)
    }
}

#[cfg(test)]
mod tests;
