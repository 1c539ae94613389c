//! The state machine of one provider's tokens: from what happened and the time to what to do next.
//!
//! It opens nothing, asks no clock and logs nothing. The refresher tells it what happened
//! ([`Lifecycle::granted`], [`Lifecycle::failed`], [`Lifecycle::take_up`], …) and obeys
//! [`Lifecycle::next`].

use fastrand::Rng;

use crate::clock::{Due, Moment, RELEASED_AT, Timestamp};
use crate::secret::Secret;
use crate::token::backoff;
use crate::token::grant::{Class, Failure, Grant};
use crate::token::saved::{Marker, Saved, SavedAccess, SavedFailure};
use crate::token::store::{Generation, Token};

mod login;
mod policy;
mod recall;
mod shared;
mod stored;

/// Two successful refreshes are at least this far apart, unless the lifetime is shorter.
pub const SUCCESS_GAP_MS: u64 = 10_000;
/// Refreshes asked for by a refused token are at least this far apart.
pub const REJECTION_GAP_MS: u64 = 30_000;
/// How long a wall clock that must be wrong is waited out.
pub const WRONG_CLOCK_WAIT_MS: u64 = 600_000;
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
    last_success: Option<(Moment, u64)>,
    /// Until when the refresh of another host keeps the next one off.
    gap_of_others: Option<Due>,
    last_rejection: Option<Moment>,
    failures: u32,
    next_attempt: Option<Due>,
    forced: bool,
    /// Hash of a refresh token whose last use got no answer.
    unanswered: Option<String>,
    /// The marker that the refresh under way found: of an earlier one that got no answer.
    marker_before: Option<Marker>,
    /// Hash of the chain's refresh token that was refused, where the seed is tried in its place.
    refused_chain: Option<String>,
    /// The chain's refresh token was refused after an answer had gone missing.
    chain_lost: bool,
    /// The last permanent failure that was our own: others may store theirs in its place.
    own_failure: Option<SavedFailure>,
    /// The wall clock was found wrong and is being waited out.
    clock_was_wrong: bool,
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
            last_success: None,
            gap_of_others: None,
            last_rejection: None,
            failures: 0,
            next_attempt: None,
            forced: false,
            unanswered: None,
            marker_before: None,
            refused_chain: None,
            chain_lost: false,
            own_failure: None,
            clock_was_wrong: false,
        };
        if let Some(saved) = saved {
            machine.adopt(saved, now);
        }
        machine
    }

    /// Looks at the clocks; to be called before [`Lifecycle::next`]. Once a wrong wall clock was
    /// set right, the stored access token can be judged.
    pub fn observe(&mut self, now: Moment) {
        if self.clock_was_wrong && self.wall_clock_lag_ms(now).is_none() {
            self.clock_was_wrong = false;
            self.take_up_access(now);
        }
    }

    /// What to do at `now`.
    pub fn next(&self, now: Moment) -> Step {
        if let Some(wait) = self.wrong_clock_wait_ms(now) {
            return Step::WaitForClock(wait);
        }
        let due = match self.next_attempt {
            _ if self.forced => Due::after(now, 0),
            Some(next_attempt) => next_attempt,
            None if self.token.is_some() => self.refresh_due,
            None => Due::after(now, 0),
        };
        match due.left_ms(now).max(self.gap_left_ms(now)) {
            0 => Step::Refresh,
            wait => Step::Wait(wait),
        }
    }

    /// How far the wall clock is behind this program, or behind the state file: it is wrong then.
    fn wall_clock_lag_ms(&self, now: Moment) -> Option<u64> {
        let least = RELEASED_AT.max(self.saved.saved_at);
        u64::try_from(least.millis_since(now.wall)).ok().filter(|lag| *lag > 0)
    }

    /// How long to wait for a wrong wall clock to be set: None once it is right, once it was waited
    /// for long enough, and once a refresh succeeded, since tokens are timed by both clocks.
    fn wrong_clock_wait_ms(&self, now: Moment) -> Option<u64> {
        let lag = self.wall_clock_lag_ms(now).filter(|_| self.last_success.is_none())?;
        let waited = now.steady_ms.saturating_sub(self.started.steady_ms);
        let patience = WRONG_CLOCK_WAIT_MS.checked_sub(waited).filter(|left| *left > 0)?;
        Some(lag.min(patience))
    }

    /// What is left of the least time between two successful refreshes, of whichever host. A clock stepped over it ends
    /// it, as it ends the token: a request must not wait for a gap that lies in the past.
    fn gap_left_ms(&self, now: Moment) -> u64 {
        let own = self.last_success.filter(|(_, lifetime_ms)| *lifetime_ms >= SUCCESS_GAP_MS);
        let own = own.map(|(at, _)| Due::after(at, SUCCESS_GAP_MS));
        let gaps = own.into_iter().chain(self.gap_of_others);
        gaps.map(|gap| gap.left_ms(now)).max().unwrap_or(0)
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

    fn seed_is_new(&self, seed: &Secret) -> bool {
        !self.saved.knows_seed(&seed.hash())
    }

    /// Notes that a refresh begins, and returns what must be on disk before it is sent.
    pub fn begin(&mut self, presented: &Presented, now: Moment) -> Option<Saved> {
        self.forced = false;
        let Presented::Token(token) = presented else { return None };
        let marker = Marker { refresh_token_hash: token.hash(), at: now.wall };
        self.marker_before = self.saved.pending.replace(marker);
        Some(self.stamped(now))
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
        if let Presented::Token(token) = presented {
            let from_seed = self.policy.seed.as_ref().filter(|seed| *seed == token);
            if let Some(seed) = from_seed {
                self.saved.begin_with_seed(seed);
            }
            self.saved.refresh_token =
                Some(grant.refresh_token.clone().unwrap_or_else(|| token.clone()));
        }
        self.accept(grant, sent, now, rng);
        self.stamped(now)
    }

    /// Takes the access token of `grant` into use.
    fn accept(&mut self, grant: &Grant, sent: Moment, now: Moment, rng: &mut Rng) {
        let lifetime_ms = u64::try_from(grant.lifetime_ms).unwrap_or(0);
        let due_in_ms = match grant.refresh_in_ms.and_then(|wish| u64::try_from(wish).ok()) {
            Some(wish) => wish,
            None => lifetime_ms - self.lead_ms(lifetime_ms, rng),
        };
        let expires = Due::after(sent, lifetime_ms);
        let refresh_due = Due::after(sent, due_in_ms);
        self.saved.access = Some(SavedAccess {
            token: grant.access_token.clone(),
            obtained_at: sent.wall,
            expires_at: expires.wall,
            refresh_at: refresh_due.wall,
        });
        self.saved.pending = None;
        self.saved.failure = None;
        self.settle();
        self.last_success = Some((now, lifetime_ms));
        self.set_token(grant.access_token.clone(), sent.wall, expires, refresh_due, "refresh");
    }

    /// The time before expiry at which to refresh: the configured one, at most half the lifetime,
    /// with up to a tenth more so that several instances spread out.
    fn lead_ms(&self, lifetime_ms: u64, rng: &mut Rng) -> u64 {
        let lead = self.policy.refresh_before_ms.min(lifetime_ms / 2);
        (lead + rng.u64(0..=lead / 10)).min(lifetime_ms)
    }

    fn set_token(
        &mut self,
        secret: Secret,
        obtained_at: Timestamp,
        expires: Due,
        refresh_due: Due,
        source: &'static str,
    ) {
        self.generation += 1;
        self.refresh_due = refresh_due;
        self.token = Some(Token {
            secret,
            generation: self.generation,
            expires,
            obtained_at,
            refresh_due_at: refresh_due.wall,
            source,
        });
    }

    /// Forgets everything that stood against the next try.
    fn settle(&mut self) {
        self.failures = 0;
        self.next_attempt = None;
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
        self.failures = self.failures.saturating_add(1);
        let hash = match presented {
            Presented::Token(token) => Some(token.hash()),
            Presented::Nothing | Presented::Missing => None,
        };
        let unanswered = hash.is_some() && hash == self.unanswered;
        self.chain_lost |= failure.class == Class::TokenDead && unanswered;
        let answer_lost = failure.class == Class::TokenDead && self.chain_lost;
        self.note_marker(failure, hash.as_deref());
        let falls_back_to_seed =
            failure.class == Class::TokenDead && self.falls_back(presented, hash.as_deref());
        let next_attempt = match failure.class {
            _ if falls_back_to_seed => Due::after(now, 0),
            Class::Transient => {
                let remaining = self.token.as_ref().map(|token| token.expires.left_ms(now));
                let remaining = remaining.filter(|left| *left > 0);
                let delay =
                    backoff::delay_ms(self.failures, remaining, failure.retry_after_ms, rng);
                Due::after(now, delay)
            }
            Class::Permanent | Class::TokenDead => Due::after(now, self.policy.retry_interval_ms),
        };
        self.next_attempt = Some(next_attempt);
        if failure.class != Class::Transient {
            self.saved.failure = hash.clone().map(|refresh_token_hash| SavedFailure {
                refresh_token_hash,
                client_hash: self.policy.client_hash.clone(),
                what: failure.what.to_string(),
                retry_at: next_attempt.wall,
                // A refusal of the client says nothing of an answer that was lost before.
                answer_lost: answer_lost || unanswered,
                seed_is_next: falls_back_to_seed,
            });
            self.own_failure.clone_from(&self.saved.failure);
        }
        let saved = hash.map(|_| self.stamped(now));
        (AfterFailure { next_attempt, answer_lost, falls_back_to_seed }, saved)
    }

    /// Whether the seed is to be tried in the place of the chain's refused token: once for each.
    fn falls_back(&mut self, presented: &Presented, hash: Option<&str>) -> bool {
        let Presented::Token(token) = presented else { return false };
        let chain_refused = self.saved.refresh_token.as_ref() == Some(token);
        let seed_differs = self.policy.seed.as_ref().is_some_and(|seed| seed != token);
        let first_time = self.refused_chain.as_deref() != hash;
        if chain_refused && seed_differs && first_time {
            self.refused_chain = hash.map(str::to_owned);
            return true;
        }
        false
    }

    /// What the configuration says has changed: secrets come from files that were read again. What
    /// stood against the next try is over where it was about the old ones.
    pub fn set_policy(&mut self, policy: Policy) {
        let other_seed = policy.seed != self.policy.seed;
        let other_client = policy.client_hash != self.policy.client_hash;
        let failed_for_good = self.saved.failure.is_some() || self.policy.seed.is_none();
        self.policy = policy;
        if (other_seed || other_client) && failed_for_good {
            self.saved.failure = None;
            self.settle();
        }
    }

    /// Somebody wants a refresh now.
    pub fn force(&mut self) {
        self.forced = true;
        self.refused_chain = None;
    }

    /// A provider refused the token of `generation`. Returns whether that leads to a refresh: not
    /// for a token that was replaced since, and not too often.
    pub fn rejected(&mut self, generation: Generation, now: Moment) -> bool {
        if generation != self.generation {
            return false;
        }
        let too_soon = self
            .last_rejection
            .is_some_and(|last| now.steady_ms.saturating_sub(last.steady_ms) < REJECTION_GAP_MS);
        // A token that was just issued will not get better by another.
        if too_soon || self.gap_left_ms(now) > 0 || self.next_attempt.is_some() {
            return false;
        }
        self.last_rejection = Some(now);
        self.forced = true;
        true
    }

    /// The newest token, valid or not.
    pub fn token(&self) -> Option<&Token> {
        self.token.as_ref()
    }

    /// Failures since the last success.
    pub fn consecutive_failures(&self) -> u32 {
        self.failures
    }

    /// When the next try is, where the last one failed.
    pub fn next_attempt_at(&self) -> Option<Timestamp> {
        self.next_attempt.map(|due| due.wall)
    }

    /// What a restart remembers of a permanent failure.
    pub fn stored_failure(&self) -> Option<&str> {
        let failing = self.next_attempt.is_some();
        self.saved.failure.as_ref().filter(|_| failing).map(|failure| failure.what.as_str())
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
