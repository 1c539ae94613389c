//! Decides whether to wait for a token, and words the answer if there is none. Pure.

use std::time::Duration;

use crate::clock::{Moment, Timestamp};
use crate::config::Missing;
use crate::http::refusal::{Code, Refusal};
use crate::token::history::{RefreshStatus, Trouble};
use crate::token::store::{Generation, Posting};

/// The shortest `Retry-After` for a missing token.
const RETRY_AFTER_MIN: Duration = Duration::from_secs(1);

/// The answer to the client without a valid token: since when, why, and when the next try is. If only a person can
/// get one, it is a 403, because clients show a 403 at once but retry after a 503. `refresh` is the command to run,
/// unless the reason names another.
pub(crate) fn no_token(
    provider: &str,
    posting: &Posting,
    now: Timestamp,
    refresh: &str,
) -> Refusal {
    let status = &posting.refresh;
    let last = posting.token.as_ref().map(|token| token.expires.wall);
    let on_its_way = if last.is_some() { "the next" } else { "the first" };
    let on_its_way = format!("{on_its_way} token is still on its way");
    let why = posting.trouble().unwrap_or(on_its_way);
    let last = last.map_or_else(String::new, |at| format!("the last one expired at {at}; "));
    let when = match (status.trouble, status.next_attempt_at) {
        (Some(Trouble::LoginNeeded), _) => "; waiting for a login".to_owned(),
        (_, Some(at)) => format!("; the next try is at {at}"),
        (_, None) => String::new(),
    };
    let message = format!("No valid token for {provider}: {last}{why}{when}");
    // An obstacle such as a lock or the token store may vanish by itself.
    if status.is_permanent && posting.waiting.is_none() {
        return Refusal::new(Code::LoginNeeded, message + &remedy(status, refresh));
    }
    let wait = status.next_attempt_at.and_then(|at| u64::try_from(at.millis_since(now)).ok());
    let wait = Duration::from_millis(wait.unwrap_or(0)).max(RETRY_AFTER_MIN);
    Refusal::new(Code::TokenUnavailable, message).retry_in(wait)
}

/// The answer to the client if the fixed credential of `provider` is missing, which does not come by itself.
pub(crate) fn no_fixed(provider: &str, missing: &Missing) -> Refusal {
    let what_to_do = match missing {
        Missing::Credential => "then start evertoken again",
        _ => "set it and start evertoken again",
    };
    let message = format!("No credential for {provider}: {missing}; {what_to_do}");
    Refusal::new(Code::LoginNeeded, message)
}

/// The remedy for a permanent failure, unless its text has one.
fn remedy(status: &RefreshStatus, refresh: &str) -> String {
    match status.trouble {
        _ if status.last_error.as_ref().is_some_and(|error| error.names_login) => String::new(),
        Some(Trouble::Missing) => {
            format!("; once it is there, start evertoken again, or run: {refresh}")
        }
        Some(Trouble::TokenDead | Trouble::AnswerLost) => {
            format!("; with the new refresh token in its place, run: {refresh}")
        }
        _ => format!("; once that is mended, run: {refresh}"),
    }
}

/// True if waiting for a token makes sense: there is none, and one is on its way or will be tried for within `left`.
pub(crate) fn is_worth_it(posting: &Posting, now: Moment, left: Duration) -> bool {
    if posting.valid_token(now).is_some() {
        return false;
    }
    posting.trouble().is_none() || posting.refreshing || is_tried_within(posting, now, left)
}

/// True if waiting for a token newer than generation `refused` makes sense: there is none, and a refresh runs, or a
/// failed one is retried within `left`.
pub(crate) fn is_worth_it_for_newer(
    posting: &Posting,
    refused: Generation,
    now: Moment,
    left: Duration,
) -> bool {
    if posting.valid_token(now).is_some_and(|token| token.generation > refused) {
        return false;
    }
    posting.refreshing || (posting.trouble().is_some() && is_tried_within(posting, now, left))
}

/// True if the next try for a token is within `left`.
fn is_tried_within(posting: &Posting, now: Moment, left: Duration) -> bool {
    let next_try_ms = posting.refresh.next_attempt_at.map(|at| at.millis_since(now.wall));
    next_try_ms.is_some_and(|millis| u128::try_from(millis).unwrap_or(0) < left.as_millis())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Due;
    use crate::secret::Secret;
    use crate::token::failure_text::FailureText;
    use crate::token::store::Token;
    use crate::token::waiting::Waiting;

    #[test]
    fn what_is_worth_waiting_for() {
        let now = Moment { wall: Timestamp::from_secs(1_800_000_000), steady_ms: 5 };
        let left = Duration::from_secs(10);
        let failing = |next_in_ms: i64, refreshing: bool| Posting {
            refreshing,
            refresh: RefreshStatus {
                last_error: Some("x".to_owned().into()),
                next_attempt_at: Some(now.wall.plus_millis(next_in_ms)),
                ..RefreshStatus::default()
            },
            ..Posting::default()
        };
        assert!(is_worth_it(&Posting::default(), now, left));
        let mut held_up = Posting {
            waiting: Some(Waiting {
                what: "the state file".into(),
                since: now.wall,
                advice: String::new(),
            }),
            ..Posting::default()
        };
        assert!(!is_worth_it(&held_up, now, left), "nothing is on its way");
        held_up.refreshing = true;
        assert!(is_worth_it(&held_up, now, left));
        assert!(is_worth_it(&failing(9_999, false), now, left));
        assert!(!is_worth_it(&failing(10_000, false), now, left));
        assert!(is_worth_it(&failing(3_600_000, true), now, left));
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
        assert!(!is_worth_it(&ready, now, left), "it is there");
        let later = Moment { steady_ms: 6, ..now };
        assert!(is_worth_it(&ready, later, left), "it has expired");
    }

    const REFRESH: &str = "evertoken refresh --config f --provider p";

    fn failed(
        told: &str,
        trouble: Trouble,
        is_permanent: bool,
        next: Option<Timestamp>,
    ) -> Posting {
        let mut refresh = RefreshStatus { next_attempt_at: next, ..RefreshStatus::default() };
        let names_login = told.contains("evertoken login");
        let error = FailureText { names_login, ..told.to_owned().into() };
        refresh.fail(error, trouble, is_permanent);
        Posting { refresh, ..Posting::default() }
    }

    #[test]
    fn a_missing_token_says_why_and_when() {
        let now = Timestamp::from_secs(1_800_000_000);
        let told = |posting: &Posting| no_token("P", posting, now, REFRESH);
        let fails = "Failed to refresh token: 503 Service Unavailable";
        let next = Some(now.plus_millis(4_500));
        let refusal = told(&failed(fails, Trouble::IssuerFails, false, next));
        assert_eq!(refusal.code, Code::TokenUnavailable);
        assert_eq!(
            refusal.message,
            "No valid token for P: Failed to refresh token: 503 Service Unavailable; the next try is \
             at 2027-01-15T08:00:04.500Z"
        );
        assert_eq!(refusal.retry_after, Some(Duration::from_millis(4_500)));
        let late =
            told(&failed(fails, Trouble::IssuerFails, false, Some(now.plus_millis(3_600_000))));
        assert_eq!(late.retry_after, Some(Duration::from_mins(1)));
        let first = told(&Posting::default());
        assert_eq!(first.retry_after, Some(RETRY_AFTER_MIN));
        assert_eq!(first.message, "No valid token for P: the first token is still on its way");
        let token = Token {
            secret: Secret::new("a"),
            generation: 1,
            expires: Due { wall: now, steady_ms: 0 },
            obtained_at: now,
            refresh_due_at: now,
            source: "refresh",
        };
        assert_eq!(
            told(&Posting { token: Some(token), ..Posting::default() }).message,
            "No valid token for P: the last one expired at 2027-01-15T08:00:00.000Z; the next token \
             is still on its way"
        );
    }

    #[test]
    fn a_fixed_credential_that_is_missing_does_not_come_by_itself() {
        let refusal = no_fixed("P", &Missing::Variable("KEY".into()));
        assert_eq!((refusal.code, refusal.retry_after), (Code::LoginNeeded, None));
        assert_eq!(
            refusal.message,
            "No credential for P: Missing environment variable: 'KEY'; set it and start evertoken again"
        );
        let none = no_fixed("P", &Missing::Credential);
        assert!(
            none.message.ends_with("auth_type \"none\"; then start evertoken again"),
            "{none:?}"
        );
    }

    #[test]
    fn what_only_a_person_can_end_says_what_to_run() {
        let now = Timestamp::from_secs(1_800_000_000);
        let next = Some(now.plus_millis(3_600_000));
        let cases = [
            (
                "There is no refresh token yet; run: evertoken login --provider p",
                Trouble::LoginNeeded,
                "run: evertoken login --provider p; waiting for a login",
            ),
            (
                "Failed to refresh token: 400 Bad Request (invalid_grant); log in again (run: evertoken login --provider p)",
                Trouble::TokenDead,
                "(run: evertoken login --provider p); the next try is at 2027-01-15T09:00:00.000Z",
            ),
            (
                "Failed to refresh token: 401 Unauthorized (invalid_client)",
                Trouble::ClientRefused,
                "once that is mended, run: evertoken refresh --config f --provider p",
            ),
            (
                "Failed to refresh token: 400 Bad Request (invalid_grant); log in again",
                Trouble::TokenDead,
                "with the new refresh token in its place, run: evertoken refresh --config f --provider p",
            ),
            (
                "Missing environment variable: 'X'",
                Trouble::Missing,
                "start evertoken again, or run: evertoken refresh --config f --provider p",
            ),
        ];
        for (told, trouble, end) in cases {
            let mut posting = failed(told, trouble, true, next);
            let refusal = no_token("P", &posting, now, REFRESH);
            assert_eq!((refusal.code, refusal.retry_after), (Code::LoginNeeded, None), "{told}");
            assert!(
                refusal.message.contains(told) && refusal.message.ends_with(end),
                "{}",
                refusal.message
            );
            posting.waiting =
                Some(Waiting { what: "the lock".into(), since: now, advice: String::new() });
            let waits = no_token("P", &posting, now, REFRESH);
            assert_eq!(waits.code, Code::TokenUnavailable, "what is waited for may come");
        }
    }
}
