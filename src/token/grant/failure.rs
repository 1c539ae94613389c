//! Why a refresh failed, and whether to try again soon.

use std::borrow::Cow;

use crate::config::Missing;
use crate::http::message::reason_phrase;
use crate::shortage::Shortage;

/// Whether it makes sense to try again soon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Tried again with backoff.
    Transient,
    /// Tried again after `retry_interval`: somebody has to do something.
    Permanent,
    /// Permanent, and it is the refresh token that is no good.
    TokenDead,
}

/// What is known about the issuer having acted on the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    /// The request never left, or the issuer's answer says that it failed: the refresh token is unused.
    No,
    /// It left and no answer of the issuer came: the refresh token may have been used up.
    Perhaps,
}

/// Why a refresh failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Whether to try again soon.
    pub class: Class,
    /// Whether the refresh token may have been used up.
    pub reached: Reached,
    /// What the server asked to wait, in milliseconds.
    pub retry_after_ms: Option<u64>,
    /// What happened, without any secret: `401 Unauthorized (invalid_client)`.
    pub what: What,
}

/// What happened, in the words of the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum What {
    /// An HTTP answer: its status and OAuth error code.
    #[error("{}", status_words(*.0, .1.as_deref()))]
    Status(u16, Option<String>),
    /// A 200 that is no token response.
    #[error("the answer is no token response: {0}")]
    NotAToken(Cow<'static, str>),
    /// No answer: DNS, connection, TLS, timeout.
    #[error("{0}")]
    NoAnswer(String),
    /// A secret that is not there.
    #[error("{0}")]
    Missing(Missing),
    /// We had run out of what a request takes; nothing was sent.
    #[error("{0}")]
    Short(Shortage),
}

/// An HTTP status with its reason and the OAuth error code, each where there is one.
fn status_words(status: u16, code: Option<&str>) -> String {
    let reason = reason_phrase(status);
    let reason = if reason.is_empty() { String::new() } else { format!(" {reason}") };
    let code = code.map_or_else(String::new, |code| format!(" ({code})"));
    format!("{status}{reason}{code}")
}

impl Failure {
    /// No answer came.
    pub fn no_answer(reached: Reached, why: impl Into<String>) -> Self {
        Self::passing(reached, What::NoAnswer(why.into()))
    }

    /// We had run out of what a request takes.
    pub fn short(shortage: Shortage) -> Self {
        Self::passing(Reached::No, What::Short(shortage))
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
        // A 200 may well have used up the refresh token.
        Self::passing(Reached::Perhaps, What::NotAToken(why.into()))
    }

    /// One that is tried again soon.
    fn passing(reached: Reached, what: What) -> Self {
        Self { class: Class::Transient, reached, retry_after_ms: None, what }
    }
}
