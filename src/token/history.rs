//! The history of a provider's refreshes, and the kinds of failure. Pure.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::config::Missing;
use crate::record::SavedFailure;
use crate::token::failure_text::FailureText;
use crate::token::grant::codes::Meaning;
use crate::token::grant::{AssertionFault, Class, Failure, Reached, What};

/// The number of refreshes that are remembered.
pub(crate) const REFRESHES_KEPT_MAX: usize = 32;

/// The refreshes since the start, for refusals and for the report.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RefreshStatus {
    /// Successful refreshes.
    pub successes: u64,
    /// Failed refreshes.
    pub failures: u64,
    /// Failed refreshes since the last success.
    pub consecutive_failures: u32,
    /// The last failure in the words of the log; None once a refresh succeeds.
    pub last_error: Option<FailureText>,
    /// The kind of the last failure.
    pub trouble: Option<Trouble>,
    /// True if the failure is permanent, which only a person can end.
    #[serde(skip)]
    pub is_permanent: bool,
    /// The time of the next try, if the last one failed.
    pub next_attempt_at: Option<Timestamp>,
    /// The last refreshes, the newest last.
    pub history: History,
}

/// The kind of a failure, which decides about the advice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trouble {
    /// A variable or file with a secret is missing.
    Missing,
    /// There is no refresh token before a login.
    LoginNeeded,
    /// No connection to the issuer.
    Unreachable,
    /// Descriptors, threads or memory ran out.
    OutOfResources,
    /// The issuer's metadata, which names the token endpoint, is not known.
    NoMetadata,
    /// The issuer did not answer.
    NoAnswer,
    /// The issuer's answer is no token response.
    NotAToken,
    /// The provider whose token the request carries has none.
    NoBearer,
    /// The `token_command` failed, or printed no token.
    CommandFails,
    /// The issuer is asked too often.
    Throttled,
    /// A fault of the issuer.
    IssuerFails,
    /// The refresh token is not valid any more.
    TokenDead,
    /// The refresh token is not valid any more, after the answer to a refresh was lost.
    AnswerLost,
    /// The client's id or secret is refused.
    ClientRefused,
    /// The form of the request is refused: its format or its set of parameters.
    RequestRefused,
    /// The scope or audience is refused.
    ScopeRefused,
    /// The assertion, or the token to exchange, is refused.
    AssertionRefused,
    /// The assertion is refused, and this machine's clock differs from the issuer's.
    ClockOff,
    /// Another program's token, which is the assertion or is to be exchanged, has ended.
    SubjectEnded,
    /// There is no token endpoint at the URL.
    WrongUrl,
    /// The token store can't be used.
    StoreAway,
    /// A refusal without a code: a firewall's page, or an issuer that gives no reason.
    NoReason,
    /// Any other refusal, and kinds of later versions.
    #[serde(other)]
    Refused,
}

/// A finished refresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refreshed {
    /// The time at which it began.
    pub at: Timestamp,
    /// Its duration in milliseconds.
    pub took_ms: u64,
    /// The kind of failure; None if it succeeded.
    pub trouble: Option<Trouble>,
}

/// The last [`REFRESHES_KEPT_MAX`] refreshes, the newest last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct History(VecDeque<Refreshed>);

/// The keys of the configuration that change a token request whose form the issuer refuses.
pub(crate) const REQUEST_KEYS: &str = "compare request_format (\"json\" or \"form\"), grant_type, client_auth, scope and \
                                extra_params with what the issuer's documentation asks for";

/// The keys of the configuration that change a refused assertion.
pub(crate) const ASSERTION_KEYS: &str = "compare its key, key_id, algorithm and claims (iss, sub, aud, scope, lifetime), or the audience and type of the \
     token to exchange, with what the issuer knows";

impl RefreshStatus {
    /// Notes a failed refresh, now or before the start; `is_permanent` says that trying again does not help.
    pub fn fail(&mut self, error: FailureText, trouble: Trouble, is_permanent: bool) {
        self.last_error = Some(error);
        self.trouble = Some(trouble);
        self.is_permanent = is_permanent;
    }

    /// Notes that the last failure is over.
    pub fn settle(&mut self) {
        self.last_error = None;
        self.trouble = None;
        self.is_permanent = false;
    }
}

impl History {
    /// Adds a refresh, and drops the oldest one if the history is full.
    pub fn push(&mut self, refreshed: Refreshed) {
        if self.0.len() == REFRESHES_KEPT_MAX {
            self.0.pop_front();
        }
        self.0.push_back(refreshed);
    }

    /// The oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Refreshed> + ExactSizeIterator {
        self.0.iter()
    }
}

impl Trouble {
    /// True if the next try waits for somebody to provide something missing, instead of for a point in time.
    pub const fn waits_for_somebody(self) -> bool {
        matches!(self, Self::LoginNeeded | Self::Missing)
    }

    /// The kind of `failure`; `answer_lost` says that the answer to the refresh before it never came.
    pub fn of(failure: &Failure, answer_lost: bool) -> Self {
        match (&failure.what, failure.reached) {
            (What::Missing(Missing::Login(_)), _) => Self::LoginNeeded,
            (What::Missing(_), _) => Self::Missing,
            (What::NoAnswer(_), Reached::No) => Self::Unreachable,
            (What::NoAnswer(_), Reached::Perhaps) => Self::NoAnswer,
            (What::NoMetadata(_), _) => Self::NoMetadata,
            (What::Short(_), _) => Self::OutOfResources,
            (What::NotAToken(_), _) => Self::NotAToken,
            (What::NoBearer(_), _) => Self::NoBearer,
            (What::Command(_), _) => Self::CommandFails,
            (What::Assertion(_, _, AssertionFault::Clock(_)), _) => Self::ClockOff,
            (What::Assertion(_, _, AssertionFault::Ended(..)), _) => Self::SubjectEnded,
            (What::Assertion(_, _, AssertionFault::Unknown), _) => Self::AssertionRefused,
            (What::Status(..), _) if answer_lost => Self::AnswerLost,
            (What::Status(..), _) if failure.class == Class::TokenDead => Self::TokenDead,
            (What::Status(status, code), _) => Self::of_status(*status, code.as_deref()),
        }
    }

    /// The kind of a permanent failure in a record.
    pub fn recalled(failure: &SavedFailure) -> Self {
        let (status, code) = (failure.status.unwrap_or(0), failure.code.as_deref());
        let is_dead = Meaning::of(code.unwrap_or("")).class(status, code) == Class::TokenDead;
        match is_dead {
            true if failure.answer_lost => Self::AnswerLost,
            true => Self::TokenDead,
            false => Self::of_status(status, code),
        }
    }

    /// The kind of an answer that is not about the refresh token.
    fn of_status(status: u16, code: Option<&str>) -> Self {
        match (Meaning::of(code.unwrap_or("")), status) {
            (Meaning::TokenDead, _) => Self::TokenDead,
            (Meaning::Client, _) => Self::ClientRefused,
            (Meaning::Form, 400..=428 | 430..=499 | 200..=299) => Self::RequestRefused,
            (Meaning::Scope, _) => Self::ScopeRefused,
            (Meaning::Account, _) => Self::Refused,
            (Meaning::Throttled, _) | (_, 429) => Self::Throttled,
            (Meaning::Issuer, _) | (_, 408 | 425 | 500..=599) => Self::IssuerFails,
            (_, 100..=199 | 300..=399 | 404 | 405 | 410) => Self::WrongUrl,
            (_, 400..=499) if code.is_none() => Self::NoReason,
            (_, 401) => Self::ClientRefused,
            (_, _) => Self::Refused,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::token_fields::TokenFields;
    use crate::http::message::Headers;
    use crate::record::saved::tests::failure as remembered;
    use crate::token::grant;

    fn answered(status: u16, body: &str) -> Failure {
        let sent = Timestamp::from_secs(1_800_000_000);
        grant::read(status, &Headers::new(), body.as_bytes(), &TokenFields::default(), sent)
            .unwrap_err()
    }

    #[test]
    fn kinds_of_failure_and_what_is_recalled_of_them() {
        let cases = [
            (400, r#"{"error":"invalid_grant"}"#, Trouble::TokenDead),
            (401, r#"{"error":{"code":"refresh_token_reused"}}"#, Trouble::TokenDead),
            (400, r#"{"error":"invalid_request"}"#, Trouble::RequestRefused),
            (400, r#"{"error":"unsupported_grant_type"}"#, Trouble::RequestRefused),
            (429, r#"{"error":"invalid_request"}"#, Trouble::Throttled),
            (500, r#"{"error":"invalid_request"}"#, Trouble::IssuerFails),
            (
                400,
                r#"{"error":"invalid_request","error_description":"Unknown refresh token"}"#,
                Trouble::TokenDead,
            ),
            (401, r#"{"error":"invalid_client"}"#, Trouble::ClientRefused),
            (401, "", Trouble::NoReason),
            (401, r#"{"error":"unauthorized"}"#, Trouble::ClientRefused),
            (
                403,
                r#"{"error":"unauthorized_client","message":"refresh_token is invalid"}"#,
                Trouble::TokenDead,
            ),
            (200, r#"{"error":"bad_refresh_token"}"#, Trouble::TokenDead),
            (200, r#"{"error":"odd"}"#, Trouble::Refused),
            (400, r#"{"error":"invalid_scope"}"#, Trouble::ScopeRefused),
            (404, "<html>", Trouble::WrongUrl),
            (302, "", Trouble::WrongUrl),
            (429, "", Trouble::Throttled),
            (400, r#"{"error":"slow_down"}"#, Trouble::Throttled),
            (503, "", Trouble::IssuerFails),
            (400, r#"{"error":"temporarily_unavailable"}"#, Trouble::IssuerFails),
            (403, "", Trouble::NoReason),
            (403, "<html>", Trouble::NoReason),
            (400, r#"{"error":"access_denied"}"#, Trouble::Refused),
        ];
        for (status, body, expected) in cases {
            let failure = answered(status, body);
            assert_eq!(Trouble::of(&failure, false), expected, "{status} {body}");
            let What::Status(status, code) = failure.what else { panic!("{status} {body}") };
            let known = remembered(Some(status), code.as_deref());
            assert_eq!(Trouble::recalled(&known), expected, "{status} {body}");
        }
        assert_eq!(Trouble::of(&answered(200, "<html>"), false), Trouble::NotAToken);
        let dead = answered(400, r#"{"error":"invalid_grant"}"#);
        assert_eq!(Trouble::of(&dead, true), Trouble::AnswerLost);
        let unreachable = Failure::no_answer(Reached::No, "x");
        assert_eq!(Trouble::of(&unreachable, false), Trouble::Unreachable);
        let silent = Failure::no_answer(Reached::Perhaps, "x");
        assert_eq!(Trouble::of(&silent, false), Trouble::NoAnswer);
        let missing = Missing::Variable("X".into());
        assert_eq!(Trouble::of(&Failure::missing(missing), false), Trouble::Missing);
        let before_login = Failure::missing(Missing::Login("x".into()));
        assert_eq!(Trouble::of(&before_login, false), Trouble::LoginNeeded);
        assert_eq!(Trouble::recalled(&remembered(None, None)), Trouble::Refused);
    }

    #[test]
    fn the_oldest_makes_room_and_what_is_not_known_yet_is_a_refusal() {
        let one = |took_ms| Refreshed { at: Timestamp::from_secs(0), took_ms, trouble: None };
        let mut full = History::default();
        (0..REFRESHES_KEPT_MAX as u64).for_each(|took_ms| full.push(one(took_ms)));
        assert_eq!(full.iter().len(), REFRESHES_KEPT_MAX);
        assert_eq!(full.iter().next(), Some(&one(0)));
        let mut over = full;
        over.push(one(99));
        assert_eq!(over.iter().len(), REFRESHES_KEPT_MAX);
        assert_eq!((over.iter().next(), over.iter().last()), (Some(&one(1)), Some(&one(99))));
        let later: Trouble = serde_json::from_str(r#""eclipse""#).unwrap();
        assert_eq!(later, Trouble::Refused);
    }
}
