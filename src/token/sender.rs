//! The way to an issuer, as closures that tests replace.

use std::time::Duration;

use crate::http::message::Headers;
use crate::token::grant::{Failure, TokenRequest};

/// An issuer's whole answer.
#[derive(Debug)]
pub struct TokenAnswer {
    /// HTTP status.
    pub status: u16,
    /// Header fields.
    pub headers: Headers,
    /// The body, at most 1 MiB.
    pub body: Vec<u8>,
    /// The first line that a command wrote to its standard error, without secrets.
    pub said: Option<String>,
}

impl TokenAnswer {
    /// The output of a command.
    pub fn printed(output: Vec<u8>, said: Option<String>) -> Self {
        Self { status: 200, headers: Headers::new(), body: output, said }
    }
}

/// The time for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// For the connection, before which nothing is sent.
    pub connecting: Duration,
    /// For all of it.
    pub whole: Duration,
}

impl From<Duration> for Allowed {
    /// Any part of a request may take all of its time.
    fn from(whole: Duration) -> Self {
        Self { connecting: whole, whole }
    }
}

/// Sends a request to an issuer within the given time, or runs the command that takes its place until the function says
/// that it is called off. Fails if no answer comes.
pub(crate) type Send = Box<
    dyn Fn(&TokenRequest, Allowed, &dyn Fn() -> bool) -> Result<TokenAnswer, Failure>
        + std::marker::Send,
>;

/// Connects to the issuer with this URL within the given time, and sends nothing. Fails as a request would.
pub(crate) type Reach = Box<dyn Fn(&str, Duration) -> Result<(), Failure> + std::marker::Send>;

/// The way of a refresher to its issuer.
pub struct IssuerLink {
    pub send: Send,
    /// None for a command.
    pub reach: Option<Reach>,
}
