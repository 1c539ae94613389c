//! The access token in hand: taken from a grant, until when it is used, and when it is refreshed.

use fastrand::Rng;

use crate::clock::{Due, Moment, Timestamp};
use crate::record::SavedAccess;
use crate::token::grant::Grant;
use crate::token::lifecycle::Lifecycle;
use crate::token::lifecycle::rejection::Rejection;
use crate::token::store::Token;

/// The next scheduled refresh is at least this far from the last one, however short tokens live.
pub const REFRESH_GAP_MIN_MS: u64 = 250;
/// The least that an issuer's `refresh_in` is taken for.
pub const REFRESH_IN_MIN_MS: u64 = 1_000;
/// How long after its end a token that the issuer repeated is asked for again.
pub const REPEATED_RETRY_MS: u64 = 1_000;

impl Lifecycle {
    /// Takes the access token of `grant` into use.
    pub(super) fn accept(&mut self, grant: &Grant, sent: Moment, now: Moment, rng: &mut Rng) {
        let rejections = self.rejections_before_the_next_token(now);
        self.saved.pending = None;
        self.saved.failure = None;
        self.settle();
        self.ordered = None;
        self.is_wanted = false;
        self.ignores_clock = true;
        self.rejection = Rejection::begun(rejections, 0, now);
        if let Some(repeated) = self.token_that_repeats(grant, sent).cloned() {
            self.saved.access = Some(self.keep(&repeated, rejections, sent));
            return;
        }
        let lifetime_ms = u64::try_from(grant.lifetime_ms).unwrap_or(0);
        let due_in_ms = self.refresh_in_ms(grant, lifetime_ms, rng);
        let refresh_due = Due::after(sent, due_in_ms).later(Due::after(now, REFRESH_GAP_MIN_MS));
        let access = SavedAccess {
            token: grant.access_token.clone(),
            obtained_at: sent.wall,
            expires_at: sent.wall.plus_millis(grant.lifetime_ms),
            refresh_at: refresh_due.wall,
            rejections,
        };
        self.set_token(&access, Due::after(sent, lifetime_ms), refresh_due, "refresh");
        self.saved.access = Some(access);
    }

    /// How long after it was asked for a token is refreshed: at the lead before its expiry, or earlier
    /// where the issuer wishes so, and in no case before the issuer allows it.
    fn refresh_in_ms(&self, grant: &Grant, lifetime_ms: u64, rng: &mut Rng) -> u64 {
        let millis = |wish: Option<i64>| wish.and_then(|wish| u64::try_from(wish).ok());
        let latest = lifetime_ms - self.lead_ms(lifetime_ms, rng);
        let wished = millis(grant.refresh_in_ms).map(|wish| wish.max(REFRESH_IN_MIN_MS));
        let due_in = wished.map_or(latest, |wish| wish.min(latest));
        due_in.max(millis(grant.earliest_refresh_in_ms).unwrap_or(0))
    }

    /// The time before expiry at which to refresh: the configured one, at most half the lifetime,
    /// with up to a tenth more so that several instances spread out.
    fn lead_ms(&self, lifetime_ms: u64, rng: &mut Rng) -> u64 {
        let lead = self.policy.refresh_before_ms.min(lifetime_ms / 2);
        (lead + rng.u64(0..=lead / 10)).min(lifetime_ms)
    }

    /// The token in hand, if `grant`, asked for at `sent`, brings it once more. One that had ended by
    /// then is not in hand: an issuer that gives it out again says that it lives.
    fn token_that_repeats(&self, grant: &Grant, sent: Moment) -> Option<&Token> {
        let token = self.token.as_ref()?;
        (token.secret == grant.access_token && !token.expires.reached(sent)).then_some(token)
    }

    /// The issuer repeated `token` when it was asked at `sent`: its end stays, and right after that there must
    /// be another one. Returns what is to be stored of it.
    fn keep(&mut self, token: &Token, rejections: u32, sent: Moment) -> SavedAccess {
        let refresh_due = token.expires.plus(REPEATED_RETRY_MS);
        self.move_refresh(refresh_due, sent.wall);
        SavedAccess {
            token: token.secret.clone(),
            obtained_at: sent.wall,
            expires_at: token.expires.wall,
            refresh_at: refresh_due.wall,
            rejections,
        }
    }

    /// Whether `grant`, asked for at `sent`, brings a token that has ended, and says so itself.
    pub fn repeats_an_ended_token(&self, grant: &Grant, sent: Moment) -> bool {
        let known = self.saved.access.as_ref();
        let is_known = known.is_some_and(|access| access.token == grant.access_token);
        grant.has_ended && is_known && self.token_that_repeats(grant, sent).is_none()
    }

    /// The token in hand was asked for again, at `obtained_at`, and is refreshed at another time for that.
    pub(super) fn move_refresh(&mut self, refresh_due: Due, obtained_at: Timestamp) {
        self.refresh_due = refresh_due;
        if let Some(token) = &mut self.token {
            (token.refresh_due_at, token.obtained_at) = (refresh_due.wall, obtained_at);
        }
    }

    /// Takes a token into use that is another one than the one in hand.
    pub(super) fn set_token(
        &mut self,
        access: &SavedAccess,
        expires: Due,
        refresh_due: Due,
        source: &'static str,
    ) {
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
