//! The access token in hand, with its end, the time of its refresh, and its refusals.

use fastrand::Rng;

use crate::clock::{Due, Moment, Timestamp};
use crate::record::{Saved, SavedAccess};
use crate::token::grant::Grant;
use crate::token::lifecycle::policy::Policy;
use crate::token::lifecycle::rejection::Rejection;
use crate::token::store::{Generation, Token};

/// The next scheduled refresh is at least this far from the last one, however short tokens live.
pub const REFRESH_GAP_MIN_MS: u64 = 250;
/// The shortest `refresh_in` of an issuer that counts.
pub(crate) const REFRESH_IN_MIN_MS: u64 = 1_000;
/// The shortest lifetime of a refresh token that brings a refresh forward: a shorter one may be a number of days, or that of a
/// session whose end no refresh moves.
pub(crate) const REFRESH_END_MIN_MS: u64 = 600_000;
/// The wait from the end of a token that the issuer repeated to the next try.
pub(crate) const REPEATED_RETRY_MS: u64 = 1_000;

/// The access token in hand, if there is one.
#[derive(Debug)]
pub(super) struct HeldToken {
    /// The time from a refresh to the expiry of the token, in milliseconds.
    refresh_before_ms: u64,
    /// False for a grant that is repeated without a refresh token, whatever the issuer says about one.
    needs_refresh_token: bool,
    /// The refusals of the token.
    pub(super) rejection: Rejection,
    /// The token, valid or not.
    pub(super) token: Option<Token>,
    generation: Generation,
    refresh_due: Due,
}

impl HeldToken {
    pub(super) fn new(policy: &Policy, now: Moment) -> Self {
        Self {
            refresh_before_ms: policy.refresh_before_ms,
            needs_refresh_token: !policy.without_refresh_token,
            rejection: Rejection::default(),
            token: None,
            generation: 0,
            refresh_due: Due::after(now, 0),
        }
    }

    /// The configuration has changed.
    pub(super) fn set_policy(&mut self, policy: &Policy) {
        self.refresh_before_ms = policy.refresh_before_ms;
        self.needs_refresh_token = !policy.without_refresh_token;
    }

    /// The milliseconds for which the token can be used; None if it has ended or was refused.
    pub(super) fn usable_ms(&self, now: Moment) -> Option<u64> {
        let left_ms = self.token.as_ref()?.expires.left_ms(now);
        (left_ms > 0 && !self.rejection.is_known).then_some(left_ms)
    }

    /// The time at which the token is refreshed; None without a token.
    pub(super) fn refresh_due(&self) -> Option<Due> {
        self.token.as_ref().map(|_| self.refresh_due)
    }

    /// Forgets the token and the time of its refresh, because they belong to another issuer or client.
    pub(super) fn forget(&mut self, now: Moment) {
        self.token = None;
        self.refresh_due = Due::after(now, 0);
    }

    /// Starts to use the access token of `grant`, requested at `sent`; `is_ordered` says that the refresh was ordered.
    /// Returns the record of the token.
    ///
    /// If the issuer repeats the token in hand, the token's end stays, and a different token is requested right after
    /// it.
    pub(super) fn take(
        &mut self,
        grant: &Grant,
        is_ordered: bool,
        sent: Moment,
        now: Moment,
        rng: &mut Rng,
    ) -> SavedAccess {
        let is_for_refusal = !is_ordered && !self.refresh_due.reached(now);
        let rejections = if is_for_refusal { self.rejection.in_a_row_with_next() } else { 0 };
        self.rejection = Rejection::begun(rejections, 0, now);
        let repeated = self.repeated_by(grant, sent).map(|token| token.expires);
        let times @ (expires, refresh_due) = match repeated {
            Some(expires) => {
                let after_it = expires.plus(REPEATED_RETRY_MS);
                let bound_ms = self.refresh_token_bound_ms(grant, expires.left_ms(sent), rng);
                let bound = bound_ms.map(|bound_ms| Due::after(sent, bound_ms));
                (expires, bound.map_or(after_it, |bound| bound.earlier(after_it)))
            }
            None => self.times_of(grant, sent, now, rng),
        };
        let access = SavedAccess {
            token: grant.access_token.clone(),
            obtained_at: sent.wall,
            expires_at: expires.wall,
            refresh_at: refresh_due.wall,
            rejections,
        };
        if repeated.is_some() {
            self.move_times(times, sent.wall);
        } else {
            self.replace(&access, times, "refresh");
        }
        access
    }

    /// The end of the token of `grant`, and the time of its refresh: the lead before its expiry, or before that of its refresh
    /// token if that comes first, or earlier if the issuer wishes so, and never before the issuer allows it.
    fn times_of(&self, grant: &Grant, sent: Moment, now: Moment, rng: &mut Rng) -> (Due, Due) {
        let millis = |wish: Option<i64>| wish.and_then(|wish| u64::try_from(wish).ok());
        let lifetime_ms = u64::try_from(grant.lifetime_ms).unwrap_or(0);
        let latest = lifetime_ms - self.lead_ms(lifetime_ms, rng);
        let before_that = self.refresh_token_bound_ms(grant, lifetime_ms, rng);
        let earlier = millis(grant.refresh_in_ms).into_iter().chain(before_that);
        let wished = earlier.min().map(|wish| wish.max(REFRESH_IN_MIN_MS));
        let due_in = wished.map_or(latest, |wish| wish.min(latest));
        let due_in = due_in.max(millis(grant.earliest_refresh_in_ms).unwrap_or(0));
        let refresh_due = Due::after(sent, due_in).later(Due::after(now, REFRESH_GAP_MIN_MS));
        (Due::after(sent, lifetime_ms), refresh_due)
    }

    /// The time from a request to the refresh that the end of the refresh token of `grant` asks for; None if the access token,
    /// which lives for `lifetime_ms` from then on, ends first.
    fn refresh_token_bound_ms(
        &self,
        grant: &Grant,
        lifetime_ms: u64,
        rng: &mut Rng,
    ) -> Option<u64> {
        let ends_ms = u64::try_from(grant.refresh_token_lifetime_ms?).ok()?;
        let is_first =
            self.needs_refresh_token && (REFRESH_END_MIN_MS..lifetime_ms).contains(&ends_ms);
        is_first.then(|| ends_ms - self.lead_ms(ends_ms, rng))
    }

    /// The time from the refresh to the expiry: the configured one, at most half the lifetime, with up to a tenth more
    /// so that several instances spread out.
    fn lead_ms(&self, lifetime_ms: u64, rng: &mut Rng) -> u64 {
        let lead = self.refresh_before_ms.min(lifetime_ms / 2);
        (lead + rng.u64(0..=lead / 10)).min(lifetime_ms)
    }

    /// The token in hand, if `grant`, requested at `sent`, brings it once more. A token that had ended by then is not
    /// in hand: by giving it out again, the issuer says that it lives.
    pub(super) fn repeated_by(&self, grant: &Grant, sent: Moment) -> Option<&Token> {
        let token = self.token.as_ref()?;
        (token.secret == grant.access_token && !token.expires.reached(sent)).then_some(token)
    }

    /// Takes up the token of `record`, which came from `source`. Returns true if it is a different one that is still
    /// valid.
    pub(super) fn take_up(&mut self, record: &Saved, source: &'static str, now: Moment) -> bool {
        let Some(access) = &record.access else { return false };
        let times @ (expires, _) = ends_of(access, record.saved_at, now);
        let age_ms = u64::try_from(now.wall.millis_since(access.obtained_at)).unwrap_or(0);
        let rejection = Rejection::begun(access.rejections, age_ms, now);
        let known = self.token.as_ref().filter(|token| token.secret == access.token);
        match known {
            Some(token) if token.obtained_at >= access.obtained_at => false,
            // If the issuer repeated the token for another process or host, there is no other token for this one either. Its
            // end moves only if it had ended there.
            Some(token) if !token.expires.reached(now) || expires.reached(now) => {
                self.move_times(times, access.obtained_at);
                self.rejection = rejection;
                false
            }
            _ if expires.reached(now) => false,
            _ => {
                self.replace(access, times, source);
                self.rejection = rejection;
                true
            }
        }
    }

    /// Notes that the token in hand was requested again at `obtained_at`, which moves its refresh, and maybe its end.
    fn move_times(&mut self, (expires, refresh_due): (Due, Due), obtained_at: Timestamp) {
        self.refresh_due = refresh_due;
        if let Some(token) = &mut self.token {
            token.expires = expires;
            (token.refresh_due_at, token.obtained_at) = (refresh_due.wall, obtained_at);
        }
    }

    /// Replaces the token in hand; `times` are the new token's end and the time of its refresh.
    fn replace(&mut self, access: &SavedAccess, times: (Due, Due), source: &'static str) {
        let (expires, refresh_due) = times;
        self.generation += 1;
        self.refresh_due = refresh_due;
        self.token = Some(Token {
            secret: access.token.clone(),
            generation: self.generation,
            expires,
            obtained_at: access.obtained_at,
            refresh_due_at: refresh_due.wall,
            source,
        });
    }
}

/// The end of a stored token, and the time of its refresh.
///
/// Another wall clock may have stored it. By this wall clock, it ends at the stored time; by the steady clock, it lives
/// no longer than it did when it was obtained, or when it was last stored. If it had ended before that, the clock was
/// fast when it was stored, or is wrong now: the present clock counts (a token that has ended is refused).
fn ends_of(access: &SavedAccess, stored_at: Timestamp, now: Moment) -> (Due, Due) {
    let stored_at = Some(stored_at).filter(|at| *at < access.expires_at);
    let known_at = now.wall.max(access.obtained_at).max(stored_at.unwrap_or(now.wall));
    let due = |wall: Timestamp| {
        let left_ms = u64::try_from(wall.millis_since(known_at)).unwrap_or(0);
        Due { wall, steady_ms: now.steady_ms.saturating_add(left_ms) }
    };
    (due(access.expires_at), due(access.refresh_at))
}
