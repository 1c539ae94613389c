//! What the log says of a refresh.

use crate::token::grant::{Class, Failure, What};
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
    let needs_login = after.answer_lost || failure.class == Class::TokenDead;
    if after.answer_lost {
        told.push_str("; ");
        told.push_str(ANSWER_LOST);
    } else if needs_login {
        told.push_str(
            "; the refresh token is no good any more, or somebody else uses it too: log in again",
        );
    }
    match (login, &failure.what) {
        (Some(login), _) if needs_login => told + " (run: " + login + ")",
        (Some(login), What::Missing(_)) => told + "; or run: " + login,
        _ => told,
    }
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
    fn what_is_said_and_what_to_run() {
        let now = Moment { wall: Timestamp::from_secs(0), steady_ms: 0 };
        let after = |answer_lost, falls_back_to_seed| AfterFailure {
            next_attempt: Due::after(now, 0),
            answer_lost,
            falls_back_to_seed,
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
        assert_eq!(tell(&missing, after(false, false), None), "Missing environment variable: 'X'");
        assert_eq!(
            tell(&missing, after(false, false), run),
            "Missing environment variable: 'X'; or run: evertoken login --provider p"
        );
        let transient = Failure::no_answer(Reached::No, "no connection");
        assert_eq!(
            tell(&transient, after(false, false), run),
            "Failed to refresh token: no connection"
        );
    }
}
