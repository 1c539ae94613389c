//! What the log says of a refresh.

use crate::record::SavedFailure;
use crate::token::grant::{Class, Failure, What};
use crate::token::history::{REQUEST_KEYS, Trouble};
use crate::token::lifecycle::{ANSWER_LOST, AfterFailure};

/// The failure in the words that the log fixes, and what to do about it; `login` is what to run for
/// a new refresh token.
pub(super) fn tell(failure: &Failure, after: AfterFailure, login: Option<&str>) -> String {
    let mut told = match &failure.what {
        What::Missing(missing) => missing.to_string(),
        what => format!("Failed to refresh token: {what}"),
    };
    if after.falls_back_to_seed {
        told.push_str("; trying the refresh token of the configuration");
        return told;
    }
    if after.returns_to_newer_chain {
        told.push_str("; that refresh token was superseded before, and the newer one goes on");
        return told;
    }
    let needs_login = after.answer_lost || failure.class == Class::TokenDead;
    let told = advise(told, needs_login, Trouble::of(failure, after.answer_lost));
    match (login, &failure.what) {
        (Some(login), _) if needs_login => told + " (run: " + login + ")",
        (Some(login), What::Missing(_)) => told + "; or run: " + login,
        _ => told,
    }
}

/// A failure that is stored, whoever's it was, in the same words, and its kind.
pub(super) fn tell_stored(failure: &SavedFailure, login: Option<&str>) -> (String, Trouble) {
    let told = format!("Failed to refresh token: {}", failure.what);
    let trouble = match Trouble::recalled(&failure.what) {
        Trouble::TokenDead if failure.answer_lost => Trouble::AnswerLost,
        trouble => trouble,
    };
    let needs_login = matches!(trouble, Trouble::TokenDead | Trouble::AnswerLost);
    let told = advise(told, needs_login, trouble);
    let run = login.filter(|_| needs_login).map(|login| format!(" (run: {login})"));
    (told + run.as_deref().unwrap_or_default(), trouble)
}

fn advise(told: String, needs_login: bool, trouble: Trouble) -> String {
    match trouble {
        Trouble::AnswerLost => told + "; " + ANSWER_LOST,
        _ if needs_login => {
            told + "; the refresh token is no good any more, or somebody else uses it too: log in again"
        }
        Trouble::RequestRefused => {
            told + "; the issuer refuses the form of the request: " + REQUEST_KEYS
        }
        _ => told,
    }
}

/// When it is tried again, to stand after the name of the provider; nothing after a single refresh.
pub(super) fn next_try(trouble: Trouble, is_single: bool, wait_ms: u64) -> String {
    match trouble {
        Trouble::LoginNeeded => return "; waiting for a login".to_owned(),
        _ if is_single => return String::new(),
        Trouble::Missing => return "; tried again once nothing is missing".to_owned(),
        _ => {}
    }
    format!("; next try in {}.{} s", wait_ms / 1000, wait_ms % 1000 / 100)
}

/// The first five characters of a client id.
pub(super) fn shortened(client_id: &str) -> String {
    let start: String = client_id.chars().take(5).collect();
    format!("{start}...")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Due, Moment, Timestamp};
    use crate::config::Missing;
    use crate::token::grant::Reached;

    #[test]
    fn a_next_try_is_said_only_where_one_comes() {
        let said = |trouble, is_single| next_try(trouble, is_single, 3_599_960);
        assert_eq!(said(Trouble::TokenDead, false), "; next try in 3599.9 s");
        assert_eq!(said(Trouble::TokenDead, true), "");
        // What is missing has no time at which it comes.
        assert_eq!(said(Trouble::Missing, false), "; tried again once nothing is missing");
        assert_eq!(said(Trouble::Missing, true), "");
        assert_eq!(said(Trouble::LoginNeeded, false), "; waiting for a login");
        assert_eq!(said(Trouble::LoginNeeded, true), "; waiting for a login");
    }

    #[test]
    fn what_is_said_and_what_to_run() {
        let now = Moment { wall: Timestamp::from_secs(0), steady_ms: 0 };
        let after = |answer_lost, falls_back_to_seed| AfterFailure {
            next_attempt: Due::after(now, 0),
            answer_lost,
            falls_back_to_seed,
            returns_to_newer_chain: false,
        };
        let dead = Failure {
            class: Class::TokenDead,
            reached: Reached::No,
            retry_after_ms: None,
            what: What::Status(400, Some("invalid_grant".into())),
        };
        let missing = Failure::missing(Missing::Variable("X".into()));
        let run = Some("evertoken login --provider p");
        let start = "Failed to refresh token: 400 Bad Request (invalid_grant); ";
        let cases = [
            (&dead, after(false, true), run, "trying the refresh token of the configuration"),
            (&dead, after(true, false), None, ANSWER_LOST),
            (
                &dead,
                after(true, false),
                run,
                "the answer to the last refresh was probably lost; log in again (run: evertoken login \
                 --provider p)",
            ),
            (
                &dead,
                after(false, false),
                run,
                "the refresh token is no good any more, or somebody else uses it too: log in again \
                 (run: evertoken login --provider p)",
            ),
        ];
        for (failure, after, login, end) in cases {
            assert_eq!(tell(failure, after, login), format!("{start}{end}"));
        }
        let stored = |answer_lost| SavedFailure {
            refresh_token_hash: String::new(),
            client_hash: String::new(),
            what: dead.what.to_string(),
            retry_at: now.wall,
            answer_lost,
            seed_is_next: false,
            chain_hash: None,
        };
        for (answer_lost, trouble) in [(false, Trouble::TokenDead), (true, Trouble::AnswerLost)] {
            let told = tell(&dead, after(answer_lost, false), run);
            assert_eq!(tell_stored(&stored(answer_lost), run), (told, trouble));
        }
        let back = AfterFailure { returns_to_newer_chain: true, ..after(false, false) };
        assert!(tell(&dead, back, run).ends_with("superseded before, and the newer one goes on"));
        assert_eq!(tell(&missing, after(false, false), None), "Missing environment variable: 'X'");
        assert_eq!(
            tell(&missing, after(false, false), run),
            "Missing environment variable: 'X'; or run: evertoken login --provider p"
        );
        for code in ["invalid_request", "unsupported_grant_type"] {
            let what = What::Status(400, Some(code.into()));
            let form = Failure { class: Class::Permanent, what, ..dead.clone() };
            let told = tell(&form, after(false, false), run);
            assert!(told.contains(r#"request_format ("json" or "form"), grant_type"#), "{told}");
            assert!(!told.contains("log"), "a login does not help: {told}");
            let stored = SavedFailure { what: form.what.to_string(), ..stored(false) };
            assert_eq!(tell_stored(&stored, run), (told, Trouble::RequestRefused));
        }
        let transient = Failure::no_answer(Reached::No, "no connection");
        assert_eq!(
            tell(&transient, after(false, false), run),
            "Failed to refresh token: no connection"
        );
    }
}
