//! What becomes of an upstream failure, and of a 401: pure decisions.

use std::time::Duration;

use crate::clock::{Moment, Timestamp};
use crate::ingress::body::BodyFault;
use crate::refusal::{Code, Refusal};
use crate::token::history::Trouble;
use crate::token::store::Posting;
use crate::upstream::UpstreamError;

/// The least and the most that `Retry-After` says for a token that is not there.
const RETRY_AFTER_MIN: Duration = Duration::from_secs(1);
const RETRY_AFTER_MAX: Duration = Duration::from_hours(1);
/// What it says where only a login brings one: nobody knows when, and clients sleep for as long as it says.
const RETRY_AFTER_LOGIN: Duration = Duration::from_mins(1);

/// Whether an answer of `status` lets a held request move on to another provider, and has this one
/// cool down.
pub fn is_failing(status: u16) -> bool {
    matches!(status, 429 | 500 | 502 | 503 | 504 | 529)
}

/// Whether a request that was refused with `code` may be tried elsewhere; `is_held` says that its
/// whole body can be sent again.
pub fn may_move_on(code: Code, is_held: bool) -> bool {
    match code {
        // Nothing was sent, and nothing of the body was read.
        Code::TokenUnavailable | Code::Overloaded | Code::UpstreamUnreachable => true,
        Code::UpstreamBroken | Code::UpstreamTimeout => is_held,
        _ => false,
    }
}

/// Whether the provider itself failed with `code`, so that it cools down.
pub fn cools_down(code: Code) -> bool {
    matches!(code, Code::UpstreamUnreachable | Code::UpstreamBroken | Code::UpstreamTimeout)
}

/// What the client is told of an upstream failure; None where there is no client left to tell.
pub fn refusal_for(error: &UpstreamError, provider: &str) -> Option<Refusal> {
    let refusal = match error {
        UpstreamError::ClientGone => return None,
        UpstreamError::Unreachable(why) => {
            Refusal::new(Code::UpstreamUnreachable, format!("No connection to {provider}: {why}"))
        }
        UpstreamError::Short(shortage) => {
            Refusal::new(Code::OutOfResources, format!("No connection to {provider}: {shortage}"))
        }
        UpstreamError::Broken(why) => Refusal::new(
            Code::UpstreamBroken,
            format!("{provider} did not answer as HTTP asks for: {why}"),
        ),
        UpstreamError::TimedOut(why) => {
            Refusal::new(Code::UpstreamTimeout, format!("{provider} did not answer: {why}"))
        }
        UpstreamError::Unsendable(why) => {
            Refusal::new(Code::BadRequest, format!("The request can't be sent on: {why}"))
        }
        UpstreamError::RequestBody(error) => return refusal_for_body(error),
    };
    Some(refusal)
}

/// What the client is told of its own body; None where it has gone away.
pub fn refusal_for_body(error: &std::io::Error) -> Option<Refusal> {
    match BodyFault::of(error)? {
        BodyFault::Malformed(why) => {
            Some(Refusal::new(Code::BadRequest, format!("The request body is malformed: {why}")))
        }
        BodyFault::TooLarge => Some(Refusal::new(
            Code::BodyTooLarge,
            "The request body is over settings.max_body_bytes",
        )),
        BodyFault::Timeout => Some(Refusal::new(
            Code::ClientTimeout,
            "The request body did not come within settings.timeouts.client_idle",
        )),
        BodyFault::Gone => None,
    }
}

/// What the client is told where there is no valid token: since when, why, and when the next try is.
pub fn token_unavailable(provider: &str, posting: &Posting, now: Timestamp) -> Refusal {
    let last = posting.token.as_ref().map(|token| token.expires.wall);
    let on_its_way = if last.is_some() { "the next" } else { "the first" };
    let on_its_way = format!("{on_its_way} token is still on its way");
    let why = posting.trouble().unwrap_or(on_its_way);
    let last = last.map_or_else(String::new, |at| format!("the last one expired at {at}; "));
    let next = posting.refresh.next_attempt_at;
    let when = match (posting.refresh.trouble, next) {
        (Some(Trouble::LoginNeeded), _) => "; waiting for a login".to_owned(),
        (_, Some(at)) => format!("; the next try is at {at}"),
        (_, None) => String::new(),
    };
    let message = format!("No valid token for {provider}: {last}{why}{when}");
    if posting.refresh.trouble == Some(Trouble::LoginNeeded) {
        return Refusal::new(Code::TokenUnavailable, message).retry_in(RETRY_AFTER_LOGIN);
    }
    let wait = next.and_then(|at| u64::try_from(at.millis_since(now)).ok()).unwrap_or(0);
    let wait = Duration::from_millis(wait).clamp(RETRY_AFTER_MIN, RETRY_AFTER_MAX);
    Refusal::new(Code::TokenUnavailable, message).retry_in(wait)
}

/// Whether waiting for a token makes sense: there is none, and one is on its way, or will be tried
/// for within `left`.
pub fn is_worth_waiting(posting: &Posting, now: Moment, left: Duration) -> bool {
    if posting.valid_token(now).is_some() {
        return false;
    }
    let next_try_ms = posting.refresh.next_attempt_at.map(|at| at.millis_since(now.wall));
    let soon =
        next_try_ms.is_some_and(|millis| u128::try_from(millis).unwrap_or(0) < left.as_millis());
    let is_on_its_way = posting.trouble().is_none() || posting.refreshing;
    is_on_its_way || soon
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Due;
    use crate::secret::Secret;
    use crate::shortage::Shortage;
    use crate::token::history::RefreshStatus;
    use crate::token::store::Token;
    use crate::token::waiting::Waiting;

    #[test]
    fn failures_and_their_codes() {
        let text = || "x".to_owned();
        let body = |fault| UpstreamError::RequestBody(BodyFault::into_io(fault));
        let cases = [
            (UpstreamError::Unreachable(text()), Some(Code::UpstreamUnreachable)),
            (UpstreamError::Short(Shortage::Descriptors), Some(Code::OutOfResources)),
            (UpstreamError::Broken(text()), Some(Code::UpstreamBroken)),
            (UpstreamError::TimedOut(text()), Some(Code::UpstreamTimeout)),
            (UpstreamError::Unsendable(text()), Some(Code::BadRequest)),
            (UpstreamError::ClientGone, None),
            (body(BodyFault::Malformed("chunk")), Some(Code::BadRequest)),
            (body(BodyFault::TooLarge), Some(Code::BodyTooLarge)),
            (body(BodyFault::Timeout), Some(Code::ClientTimeout)),
            (body(BodyFault::Gone), None),
        ];
        for (error, code) in cases {
            assert_eq!(refusal_for(&error, "P").map(|refusal| refusal.code), code, "{error:?}");
        }
    }

    #[test]
    fn what_moves_on_and_what_cools_down() {
        let failing: Vec<u16> = (100..600).filter(|status| is_failing(*status)).collect();
        assert_eq!(failing, [429, 500, 502, 503, 504, 529]);
        // Code, moves on with a held body, and without one, cools down.
        let cases = [
            (Code::UpstreamUnreachable, true, true, true),
            (Code::UpstreamBroken, true, false, true),
            (Code::UpstreamTimeout, true, false, true),
            (Code::TokenUnavailable, true, true, false),
            (Code::Overloaded, true, true, false),
            // Our own lack is no failure of a provider.
            (Code::OutOfResources, false, false, false),
            (Code::BadRequest, false, false, false),
            (Code::BodyTooLarge, false, false, false),
            (Code::ClientTimeout, false, false, false),
            (Code::UnknownProvider, false, false, false),
        ];
        for (code, held, streamed, cools) in cases {
            assert_eq!(may_move_on(code, true), held, "{code:?}");
            assert_eq!(may_move_on(code, false), streamed, "{code:?}");
            assert_eq!(cools_down(code), cools, "{code:?}");
        }
    }

    #[test]
    fn what_is_worth_waiting_for() {
        let now = Moment { wall: Timestamp::from_secs(1_800_000_000), steady_ms: 5 };
        let left = Duration::from_secs(10);
        let failing = |next_in_ms: i64, refreshing: bool| Posting {
            refreshing,
            refresh: RefreshStatus {
                last_error: Some("x".into()),
                next_attempt_at: Some(now.wall.plus_millis(next_in_ms)),
                ..RefreshStatus::default()
            },
            ..Posting::default()
        };
        assert!(is_worth_waiting(&Posting::default(), now, left));
        let mut held_up = Posting {
            waiting: Some(Waiting {
                what: "the state file".into(),
                since: now.wall,
                advice: String::new(),
            }),
            ..Posting::default()
        };
        assert!(!is_worth_waiting(&held_up, now, left), "nothing is on its way");
        held_up.refreshing = true;
        assert!(is_worth_waiting(&held_up, now, left));
        assert!(is_worth_waiting(&failing(9_999, false), now, left));
        assert!(!is_worth_waiting(&failing(10_000, false), now, left));
        assert!(is_worth_waiting(&failing(3_600_000, true), now, left));
        let mut ready = Posting::default();
        let expires = Due::after(now, 1);
        ready.token = Some(Token {
            secret: Secret::new("a"),
            generation: 1,
            expires,
            obtained_at: now.wall,
            refresh_due_at: now.wall,
            source: "refresh",
        });
        assert!(!is_worth_waiting(&ready, now, left), "it is there");
        let later = Moment { steady_ms: 6, ..now };
        assert!(is_worth_waiting(&ready, later, left), "it has expired");
    }

    #[test]
    fn a_missing_token_says_why_and_when() {
        let now = Timestamp::from_secs(1_800_000_000);
        let posting = Posting {
            refresh: RefreshStatus {
                last_error: Some("Failed to refresh token: 503 Service Unavailable".into()),
                next_attempt_at: Some(now.plus_millis(4_500)),
                ..RefreshStatus::default()
            },
            ..Posting::default()
        };
        let refusal = token_unavailable("P", &posting, now);
        assert_eq!(
            refusal.message,
            "No valid token for P: Failed to refresh token: 503 Service Unavailable; the next try is \
             at 2027-01-15T08:00:04.500Z"
        );
        assert_eq!(refusal.retry_after, Some(Duration::from_millis(4_500)));
        let first = token_unavailable("P", &Posting::default(), now);
        assert_eq!(first.retry_after, Some(RETRY_AFTER_MIN));
        assert_eq!(first.message, "No valid token for P: the first token is still on its way");
        let before_login = Posting {
            refresh: RefreshStatus {
                last_error: Some("There is no refresh token yet; run: evertoken login".into()),
                trouble: Some(Trouble::LoginNeeded),
                ..RefreshStatus::default()
            },
            ..Posting::default()
        };
        let refusal = token_unavailable("P", &before_login, now);
        assert_eq!(
            refusal.message,
            "No valid token for P: There is no refresh token yet; run: evertoken login; waiting for a \
             login"
        );
        assert_eq!(refusal.retry_after, Some(RETRY_AFTER_LOGIN));
        let token = Token {
            secret: Secret::new("a"),
            generation: 1,
            expires: Due { wall: now, steady_ms: 0 },
            obtained_at: now,
            refresh_due_at: now,
            source: "refresh",
        };
        let next =
            token_unavailable("P", &Posting { token: Some(token), ..Posting::default() }, now);
        assert_eq!(
            next.message,
            "No valid token for P: the last one expired at 2027-01-15T08:00:00.000Z; the next token \
             is still on its way"
        );
    }
}
