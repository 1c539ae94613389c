//! The way out: requests to providers over connections of our own, and token requests over `ureq`.
//!
//! A request is one blocking exchange on a kept connection (`idle`) or a new one (`connect`). A client
//! that goes away ends it: what waits for longer than a moment waits together with the client's socket
//! (`watch`), or has it watched (`departure`); an answer that comes before the whole request was sent is not lost (`exchange`); names
//! are not looked up for every request (`resolver`). What is read or written is decided in `head`,
//! `framing`, `request` and `origin`, which open no socket.

use std::io::{self, Read};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use log::debug;

use crate::clock::Stopwatch;
use crate::config::Egress;
use crate::message::Headers;
use crate::shortage::Shortage;
use crate::spare;

mod answer;
mod buffer;
mod connect;
mod departure;
mod exchange;
mod fault;
pub mod framing;
pub mod head;
mod idle;
mod origin;
pub mod post;
mod records;
mod request;
mod resolver;
mod roots;
mod silence;
mod socket;
mod source;
mod surroundings;
mod talk;
mod tunnel;
mod watch;
mod wire;

pub use answer::{Answer, Piece};
pub use head::RESPONSE_HEAD_MAX_BYTES;

use answer::Rest;
use connect::Connector;
use exchange::Exchange;
use fault::Fault;
use idle::Idle;
use origin::Origin;
use watch::Watch;
use wire::Wire;

/// How long the phases of an exchange may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For the name, and again for TCP and TLS.
    pub connect: Duration,
    /// From the end of the request to the head of the response.
    pub response: Duration,
    /// Longest silence within a response, or while the request is not taken.
    pub idle: Duration,
}

impl Timeouts {
    /// The same with a head that comes within `response_max`.
    fn within(self, response_max: Option<Duration>) -> Self {
        let response = response_max.map_or(self.response, |max| max.min(self.response));
        Self { response, ..self }
    }
}

/// A request to send.
#[derive(Clone, Copy, Debug)]
pub struct OutRequest<'a> {
    /// The method, case kept.
    pub method: &'a str,
    /// Path and query after the base URL's path; starts with `/`.
    pub target: &'a str,
    /// Header fields that a client sent, name and value, passed on as they are.
    pub passed_on: &'a [(&'a [u8], &'a [u8])],
    /// Those that follow them. None of either are `Host` or frame the body.
    pub headers: &'a Headers,
    /// How long the head of the response may take, where that is less than `timeouts.response`.
    pub response_max: Option<Duration>,
}

/// A request's body.
pub enum OutBody<'a> {
    /// None at all.
    Absent,
    /// Held in memory.
    Held(&'a [u8]),
    /// Read while it is sent: its length, or None for chunks.
    Streamed(Option<u64>, &'a mut dyn Read),
}

/// How the body of a response is delimited for who reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerLength {
    /// There is none (HEAD, 204, 304).
    Absent,
    /// So many bytes.
    Sized(u64),
    /// Until it ends.
    Unknown,
}

/// Why there is no response.
#[derive(Debug)]
pub enum UpstreamError {
    /// No connection: nothing was sent.
    Unreachable(String),
    /// We ran out of what it takes; the provider has no part in it.
    Short(Shortage),
    /// A connection, but no HTTP response on it.
    Broken(String),
    /// No response head in time.
    TimedOut(String),
    /// The client went away.
    ClientGone,
    /// The client's request body could not be read.
    RequestBody(io::Error),
    /// The request holds something that can't be sent.
    Unsendable(String),
}

/// The way to one provider.
#[derive(Debug)]
pub struct Upstream {
    origin: Origin,
    connector: Connector,
    idle: Idle,
    timeouts: Timeouts,
}

/// A failed attempt, and whether a kept connection that had just been closed is to blame.
struct Failed {
    fault: Fault,
    is_stale: bool,
}

impl Upstream {
    /// Prepares the way to `base_url`, over which at most `idle_max` connections are kept; the error
    /// says what is wrong with the URL, the proxy or the certificates.
    pub fn new(
        base_url: &str,
        egress: &Egress,
        timeouts: Timeouts,
        idle_max: usize,
    ) -> Result<Self, String> {
        let origin = Origin::of(base_url).ok_or_else(|| "the base_url can't be used".to_owned())?;
        let connector = Connector::new(egress, timeouts.connect)?;
        Ok(Self { origin, connector, idle: Idle::new(idle_max), timeouts })
    }

    /// Sends `request` and returns once the head of the response is there.
    ///
    /// `client` is watched: when it goes away, the exchange ends. A request that fails on a kept
    /// connection before any byte of a response is sent once more on a new one, since the server
    /// may have closed it at that moment (RFC 9110 §9.2.2): one that is not idempotent only where
    /// nothing can have been worked on. `attempts` counts how often it went out.
    pub fn send(
        &self,
        request: &OutRequest<'_>,
        body: &mut OutBody<'_>,
        client: Option<&Arc<TcpStream>>,
        attempts: &mut u32,
    ) -> Result<Answer<'_>, UpstreamError> {
        let mut head = spare::take_head();
        let outcome = match request::write_head(&mut head, &self.origin, request, body) {
            Ok(()) => {
                let timeouts = self.timeouts.within(request.response_max);
                self.send_head(&head, request.method, body, Watch::new(client), timeouts, attempts)
            }
            Err(what) => Err(Fault::Unsendable(what).exchanging()),
        };
        spare::give_head(head);
        outcome
    }

    /// Closes connections that are kept beyond `max`.
    pub fn trim(&self, max: usize) {
        self.idle.trim(max);
    }

    fn send_head(
        &self,
        head: &[u8],
        method: &str,
        body: &mut OutBody<'_>,
        mut watch: Watch,
        timeouts: Timeouts,
        attempts: &mut u32,
    ) -> Result<Answer<'_>, UpstreamError> {
        if let Some(kept) = self.idle.take() {
            *attempts += 1;
            match self.attempt(kept, head, method, body, watch, timeouts) {
                Ok(answer) => return Ok(answer),
                Err((failed, same)) if failed.is_stale => {
                    debug!("A kept connection had ended; the request goes out once more");
                    watch = same;
                }
                Err((failed, _)) => return Err(failed.fault.exchanging()),
            }
        }
        let new = self.connect(&watch).map_err(Fault::connecting)?;
        *attempts += 1;
        self.attempt(new, head, method, body, watch, timeouts)
            .map_err(|(failed, _)| failed.fault.exchanging())
    }

    fn connect(&self, watch: &Watch) -> Result<Wire, Fault> {
        match self.connector.connect(&self.origin, watch, None) {
            // Idle connections hold descriptors.
            Err(Fault::Short(_)) => {
                self.idle.trim(0);
                self.connector.connect(&self.origin, watch, None)
            }
            outcome => outcome,
        }
    }

    fn attempt(
        &self,
        wire: Wire,
        head: &[u8],
        method: &str,
        body: &mut OutBody<'_>,
        watch: Watch,
        timeouts: Timeouts,
    ) -> Result<Answer<'_>, (Failed, Watch)> {
        let mut exchange = Exchange::on(wire, &watch, timeouts);
        let outcome = exchange.run(head, body).and_then(|parsed| {
            let (framing, length) = head::framing(method, &parsed)?;
            Ok((parsed, framing, length))
        });
        let (parsed, framing, length) = match outcome {
            Ok(answered) => answered,
            Err(fault) => {
                let is_stale = exchange.may_go_again(&fault, method, Stopwatch::start());
                drop(exchange);
                return Err((Failed { fault, is_stale }, watch));
            }
        };
        let is_kept = exchange.sent_whole && head::keeps_alive(&parsed);
        let (wire, buffer) = exchange.into_parts();
        let rest = Rest {
            wire: Some(wire),
            buffer,
            framing,
            idle: is_kept.then_some(&self.idle),
            watch,
            silence_max: silence::longest(method, &parsed.head, timeouts.idle),
        };
        Ok(Answer::new(parsed.head, length, rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_may_have_less_time_than_others_and_never_more() {
        let second = Duration::from_secs(1);
        let usual = Timeouts { connect: second, response: 5 * second, idle: 9 * second };
        for (max, response) in [(None, 5), (Some(4), 4), (Some(5), 5), (Some(6), 5)] {
            let within = usual.within(max.map(Duration::from_secs));
            assert_eq!(within, Timeouts { response: Duration::from_secs(response), ..usual });
        }
    }
}
