//! The log's words for a refresh.

use crate::config::{AutoRefresh, GrantType};
use crate::record::SavedFailure;
use crate::token::failure_text::FailureText;
use crate::token::grant::{Class, Failure, What};
use crate::token::history::{ASSERTION_KEYS, REQUEST_KEYS, Trouble};
use crate::token::lifecycle::{ANSWER_LOST, AfterFailure};

/// The failure in the fixed words of the log, with advice; `login` is the command for a new refresh token.
pub(super) fn tell(failure: &Failure, after: AfterFailure, login: Option<&str>) -> FailureText {
    let mut text = match &failure.what {
        What::Missing(missing) => FailureText {
            whole: missing.to_string(),
            what: format!("{missing:#}"),
            names_login: missing.ends_in_command(),
        },
        what => format!("Failed to refresh token: {what}").into(),
    };
    if after.falls_back_to_seed {
        text.whole.push_str("; trying the refresh token of the configuration");
        return text;
    }
    if after.returns_to_newer_chain {
        text.whole
            .push_str("; that refresh token was superseded before, and the newer one goes on");
        return text;
    }
    let needs_login = after.answer_lost || failure.class == Class::TokenDead;
    advise(&mut text, needs_login, Trouble::of(failure, after.answer_lost));
    if let Some(login) = login {
        let is_missing = matches!(failure.what, What::Missing(_));
        text.names_login |= needs_login || is_missing;
        if needs_login {
            text.whole.extend([" (run: ", login, ")"]);
        } else if is_missing && !text.whole.contains(login) {
            // Some missing secrets name the login themselves.
            text.whole.extend(["; or run: ", login]);
        }
    }
    text
}

/// A stored failure, whoever stored it, in the same words, and its kind.
pub(super) fn tell_stored(failure: &SavedFailure, login: Option<&str>) -> (FailureText, Trouble) {
    let mut text = FailureText::from(format!("Failed to refresh token: {}", failure.what));
    let trouble = Trouble::recalled(failure);
    let needs_login = matches!(trouble, Trouble::TokenDead | Trouble::AnswerLost);
    advise(&mut text, needs_login, trouble);
    if let Some(login) = login.filter(|_| needs_login) {
        text.whole.extend([" (run: ", login, ")"]);
        text.names_login = true;
    }
    (text, trouble)
}

fn advise(text: &mut FailureText, needs_login: bool, trouble: Trouble) {
    match trouble {
        Trouble::AnswerLost => text.whole.extend(["; ", ANSWER_LOST]),
        _ if needs_login => {
            text.whole += "; the refresh token is no good any more, or somebody else uses it too: log in again";
        }
        Trouble::AssertionRefused => {
            text.whole.extend(["; the issuer refuses the assertion: ", ASSERTION_KEYS]);
        }
        Trouble::SubjectEnded => text.whole += ", and the program that keeps it has to renew it",
        Trouble::RequestRefused => {
            text.whole.extend(["; the issuer refuses the form of the request: ", REQUEST_KEYS]);
        }
        _ => {}
    }
}

/// The time of the next try, in words that follow the provider's name; nothing after a single refresh.
pub(super) fn next_try(trouble: Trouble, is_single: bool, wait_ms: u64) -> String {
    match trouble {
        Trouble::LoginNeeded => return "; waiting for a login".to_owned(),
        _ if is_single => return String::new(),
        Trouble::Missing => return "; tried again once nothing is missing".to_owned(),
        _ => {}
    }
    format!("; next try in {}.{} s", wait_ms / 1000, wait_ms % 1000 / 100)
}

/// The client, the grant without a client, or the command that brought a token; of a client id, the first five
/// characters.
pub(super) fn means(config: &AutoRefresh) -> String {
    if let Some(command) = config.command() {
        return format!("token_command: {}", command.program);
    }
    if matches!(config.grant_type, GrantType::Request(_)) {
        return format!(
            "token_request: {}",
            config.token_url.split('?').next().unwrap_or_default()
        );
    }
    let client_id = config.client_id.as_deref().unwrap_or_default();
    if client_id.is_empty() {
        return format!("grant_type: {}", config.grant_type.name());
    }
    format!("client_id: {}...", client_id.chars().take(5).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Due, Moment, Timestamp};
    use crate::config::Missing;
    use crate::record::saved::tests::failure as remembered;
    use crate::token::grant::Reached;
    use crate::token::grant::tests::config;

    #[test]
    fn a_grant_without_a_client_was_named_by_an_empty_id() {
        let mut config = config();
        config.client_id = Ok("abcdefg".into());
        assert_eq!(means(&config), "client_id: abcde...");
        config.client_id = Ok(String::new());
        config.grant_type = GrantType::ClientCredentials;
        assert_eq!(means(&config), "grant_type: client_credentials");
    }

    #[test]
    fn a_next_try_is_said_only_where_one_comes() {
        let said = |trouble, is_single| next_try(trouble, is_single, 3_599_960);
        assert_eq!(said(Trouble::TokenDead, false), "; next try in 3599.9 s");
        assert_eq!(said(Trouble::TokenDead, true), "");
        // A missing secret has no time at which it comes.
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
            next_refresh_token: None,
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
            let text = tell(failure, after, login);
            assert_eq!(text.whole, format!("{start}{end}"));
            assert_eq!(text.what, start.trim_end_matches("; "));
            assert_eq!(text.names_login, text.whole.contains("evertoken login"));
        }
        let stored = |code, answer_lost| SavedFailure {
            what: format!("400 Bad Request ({code})"),
            answer_lost,
            ..remembered(Some(400), Some(code))
        };
        for (answer_lost, trouble) in [(false, Trouble::TokenDead), (true, Trouble::AnswerLost)] {
            let told = tell(&dead, after(answer_lost, false), run);
            assert_eq!(tell_stored(&stored("invalid_grant", answer_lost), run), (told, trouble));
        }
        let back = AfterFailure { returns_to_newer_chain: true, ..after(false, false) };
        assert!(
            tell(&dead, back, run).whole.ends_with("superseded before, and the newer one goes on")
        );
        assert_eq!(
            tell(&missing, after(false, false), None).whole,
            "Missing environment variable: 'X'"
        );
        assert_eq!(
            tell(&missing, after(false, false), run).whole,
            "Missing environment variable: 'X'; or run: evertoken login --provider p"
        );
        let login = Missing::Login("evertoken login --provider p".into());
        let told = tell(&Failure::missing(login), after(false, false), run).whole;
        assert_eq!(told.matches("evertoken login").count(), 1, "{told}");
        for code in ["invalid_request", "unsupported_grant_type"] {
            let what = What::Status(400, Some(code.into()));
            let form = Failure { class: Class::Permanent, what, ..dead.clone() };
            let told = tell(&form, after(false, false), run);
            assert!(
                told.whole.contains(r#"request_format ("json" or "form"), grant_type"#),
                "{told}"
            );
            assert!(!told.whole.contains("log"), "a login does not help: {told}");
            assert_eq!(tell_stored(&stored(code, false), run), (told, Trouble::RequestRefused));
        }
        // The failure without a command.
        let file = || Missing::File("/f".into(), "it is empty".into());
        let login = || Missing::Login("evertoken login".into());
        for (missing, what, names_login) in [
            (login(), "There is no refresh token yet", true),
            (
                Missing::Several(vec![file(), login()]),
                "Missing secret file: '/f' (it is empty); There is no refresh token yet",
                true,
            ),
            (
                Missing::Several(vec![Missing::Variable("X".into()), file()]),
                "Missing environment variable: 'X'; Missing secret file: '/f' (it is empty)",
                false,
            ),
        ] {
            let text = tell(&Failure::missing(missing), after(false, false), None);
            assert_eq!((text.what.as_str(), text.names_login), (what, names_login));
        }
        let transient = Failure::no_answer(Reached::No, "no connection");
        assert_eq!(
            tell(&transient, after(false, false), run).whole,
            "Failed to refresh token: no connection"
        );
    }
}
