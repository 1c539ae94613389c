//! The reason for a failed refresh, and when to try again.

use std::borrow::Cow;

use crate::clock::Timestamp;
use crate::config::Missing;
use crate::http::message::reason_phrase;
use crate::secret::Secret;
use crate::shortage::Shortage;

/// The kind of next try that makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The refresh is tried again with backoff.
    Transient,
    /// The refresh is tried again after `retry_interval`, because somebody has to act.
    Permanent,
    /// Permanent, because the refresh token is invalid.
    TokenDead,
}

/// Our knowledge of whether the issuer acted on the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    /// The request never left, or the issuer's answer says that it failed, or it has the next refresh token: none was
    /// lost.
    No,
    /// The request left and the issuer did not answer, or it is still busy with an earlier one: the refresh token may have
    /// been used up.
    Perhaps,
}

/// The reason for a failed refresh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub class: Class,
    /// Our knowledge of whether the refresh token was used up.
    pub reached: Reached,
    /// The wait that the server asked for, in milliseconds.
    pub retry_after_ms: Option<u64>,
    /// The refresh token to use next, if the answer has it though it is no grant.
    pub next_refresh_token: Option<Secret>,
    /// The failure without any secret: `401 Unauthorized (invalid_client)`.
    pub what: What,
}

/// The failure in the words of the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum What {
    /// An HTTP answer: its status and OAuth error code.
    #[error("{}", status_words(*.0, .1.as_deref()))]
    Status(u16, Option<String>),
    /// An HTTP answer that refuses an assertion, or a token to exchange: its status and code, and the probable fault.
    #[error("{}{}", status_words(*.0, .1.as_deref()), .2)]
    Assertion(u16, Option<String>, AssertionFault),
    /// A 200 that is no token response.
    #[error("the answer is no token response: {0}")]
    NotAToken(Cow<'static, str>),
    /// No answer, because of DNS, connection, TLS or a timeout.
    #[error("{0}")]
    NoAnswer(String),
    /// The issuer's metadata, which names the token endpoint, is not known.
    #[error("{0}")]
    NoMetadata(String),
    /// The provider whose token the request carries has none.
    #[error("{0}")]
    NoBearer(String),
    /// A `token_command` failed: `the token_command ended with exit code 1`.
    #[error("{0}")]
    Command(String),
    /// A missing secret.
    #[error("{0}")]
    Missing(Missing),
    /// A resource of this machine ran out before the request could be sent.
    #[error("{0}")]
    Short(Shortage),
}

/// The probable fault of a refused assertion or token. `Display` continues after the answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssertionFault {
    /// Nothing is known.
    #[error("")]
    Unknown,
    /// This machine's clock, which is so many seconds ahead of the issuer's, or behind it if that is negative.
    #[error("; {}", clock_words(*.0))]
    Clock(i64),
    /// Another program's token has ended: which one, and when.
    #[error("; {0} ended at {1}")]
    Ended(String, Timestamp),
}

fn clock_words(ahead_secs: i64) -> String {
    let seconds = ahead_secs.unsigned_abs();
    let side = if ahead_secs < 0 { "behind" } else { "ahead of" };
    format!(
        "this machine's clock is {seconds} s {side} the issuer's (by the answer's Date), and the assertion has its times \
         from it: set the clock"
    )
}

/// An HTTP status with its reason and OAuth error code, if it has them.
fn status_words(status: u16, code: Option<&str>) -> String {
    let reason = reason_phrase(status);
    let reason = if reason.is_empty() { String::new() } else { format!(" {reason}") };
    let code = code.map_or_else(String::new, |code| format!(" ({code})"));
    format!("{status}{reason}{code}")
}

impl What {
    /// The same without a code that quotes one of `secrets`.
    pub(crate) fn without<'a>(mut self, mut secrets: impl Iterator<Item = &'a Secret>) -> Self {
        if let Self::Status(_, code) | Self::Assertion(_, code, _) = &mut self {
            code.take_if(|code| secrets.any(|secret| secret.is_within(code)));
        }
        self
    }
}

impl Failure {
    /// No answer came.
    pub fn no_answer(reached: Reached, why: impl Into<String>) -> Self {
        Self::passing(reached, What::NoAnswer(why.into()))
    }

    /// The provider whose token a request carries has none.
    pub fn no_bearer(why: impl Into<String>) -> Self {
        Self::passing(Reached::No, What::NoBearer(why.into()))
    }

    /// A `token_command` brought no token.
    pub fn of_command(why: impl Into<String>) -> Self {
        Self::passing(Reached::No, What::Command(why.into()))
    }

    /// The same, of a command that wrote this line to its standard error.
    pub(in crate::token) fn of_command_that_said(mut self, said: Option<&str>) -> Self {
        if let (What::Command(why), Some(said)) = (&mut self.what, said) {
            why.push_str(": ");
            why.push_str(said);
        }
        self
    }

    /// A resource ran out that a request needs.
    pub fn short(shortage: Shortage) -> Self {
        Self::passing(Reached::No, What::Short(shortage))
    }

    /// The issuer's metadata, which names the token endpoint, is not known.
    pub(in crate::token) fn no_metadata(why: impl Into<String>) -> Self {
        Self::passing(Reached::No, What::NoMetadata(why.into()))
    }

    /// The same without a code that quotes one of `secrets`.
    pub(crate) fn without<'a>(self, secrets: impl Iterator<Item = &'a Secret>) -> Self {
        Self { what: self.what.without(secrets), ..self }
    }

    /// A secret is not there.
    pub fn missing(missing: Missing) -> Self {
        Self { class: Class::Permanent, ..Self::passing(Reached::No, What::Missing(missing)) }
    }

    /// The answer brings a token that has ended, and nothing newer.
    pub fn ended_token() -> Self {
        Self::passing(Reached::No, What::NotAToken("it repeats a token that has ended".into()))
    }

    pub(super) fn not_a_token(why: impl Into<Cow<'static, str>>) -> Self {
        // A 200 may have used up the refresh token.
        Self::passing(Reached::Perhaps, What::NotAToken(why.into()))
    }

    /// The same of an answer that has the `next` refresh token: nothing was lost.
    pub(super) fn but_with(self, next: Option<Secret>) -> Self {
        let reached = if next.is_some() { Reached::No } else { self.reached };
        Self { reached, next_refresh_token: next, ..self }
    }

    /// A failure that is tried again soon.
    fn passing(reached: Reached, what: What) -> Self {
        let class = Class::Transient;
        Self { class, reached, retry_after_ms: None, next_refresh_token: None, what }
    }
}
