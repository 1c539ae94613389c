//! The way out: requests to providers over connections of our own, and token requests over `ureq`.
//!
//! A request is one blocking exchange on a kept connection (`idle`) or a new one (`connect`). A client that goes away
//! ends it: what waits for longer than a moment waits together with the client's socket (`watch`), or has it watched
//! (`departure`). An answer that comes before the whole request was sent is not lost (`exchange`); names are not looked
//! up for every request (`resolver`). What is read or written is decided in `head`, `framing`, `request` and `origin`,
//! which open no socket.

use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use log::debug;

use crate::clock::Stopwatch;
use crate::config::Egress;
use crate::spare;

mod answer;
mod connect;
mod departure;
mod error;
mod exchange;
mod fault;
mod identity;
mod idle;
mod origin;
pub(crate) mod post;
mod records;
mod request;
mod resolver;
mod roots;
mod silence;
mod socket;
mod source;
mod stall;
mod surroundings;
mod switched;
mod talk;
mod timeouts;
mod tunnel;
mod watch;
mod wire;

pub(crate) use answer::{Answer, Peeked, Piece, Pieces};
pub(crate) use error::{SetupError, UpstreamError};
pub(crate) use request::{OutBody, OutRequest};
pub(crate) use switched::{ProviderEnd, ProviderStream};
pub(crate) use timeouts::Timeouts;

use answer::Rest;
use connect::Connector;
use exchange::Exchange;
use fault::Fault;
use idle::Idle;
use origin::Origin;
use watch::Watch;
use wire::Wire;

/// The connections to one provider.
#[derive(Debug)]
pub struct Upstream {
    origin: Origin,
    connector: Connector,
    idle: Arc<Idle>,
    timeouts: Timeouts,
}

/// A failed attempt, and true if a kept connection that had just been closed is to blame.
struct Failed {
    fault: Fault,
    is_stale: bool,
}

/// No answer to the handshake of a WebSocket came within `waited`.
// Not inlined: it is rare.
#[inline(never)]
fn late_handshake(waited: Duration) -> UpstreamError {
    let seconds = waited.as_secs();
    UpstreamError::TimedOut(format!(
        "no answer to the handshake of a WebSocket came within {seconds} s"
    ))
}

impl Upstream {
    /// Prepares connections to `base_url`, of which at most `idle_max` are kept; the error names the problem of the
    /// URL, the proxy or the certificates.
    pub fn new(
        base_url: &str,
        egress: &Egress,
        timeouts: Timeouts,
        idle_max: usize,
    ) -> Result<Self, SetupError> {
        let origin = Origin::of(base_url).ok_or(SetupError::BaseUrl)?;
        let connector = Connector::new(egress, timeouts.connect)?;
        Ok(Self { origin, connector, idle: Arc::new(Idle::new(idle_max)), timeouts })
    }

    /// Prepares connections to a server behind the unix socket at `path`, none of which is kept.
    pub(crate) fn to_unix(path: PathBuf, timeouts: Timeouts) -> Result<Self, SetupError> {
        let connector = Connector::new(&Egress::default(), timeouts.connect)?;
        Ok(Self {
            origin: Origin::of_unix(path),
            connector,
            idle: Arc::new(Idle::new(0)),
            timeouts,
        })
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
    ) -> Result<Box<Answer<'_>>, UpstreamError> {
        let mut head = spare::take_head();
        let outcome = match request::write_head(&mut head, &self.origin, request, body) {
            Ok(()) => {
                let timeouts = match request.websocket_key {
                    None => self.timeouts.within(request.response_max),
                    Some(_) => self.timeouts.of_handshake().within(request.response_max),
                };
                let watch = Watch::new(client);
                self.send_head(&head, request, body, watch, timeouts, attempts).map_err(|error| {
                    match (error, request.websocket_key) {
                        (UpstreamError::TimedOut(_), Some(_)) => late_handshake(timeouts.response),
                        (error, _) => error,
                    }
                })
            }
            Err(what) => Err(Fault::Unsendable(what).exchanging()),
        };
        spare::give_head(head);
        outcome
    }

    /// Closes kept connections beyond `max`.
    pub fn trim(&self, max: usize) {
        self.idle.trim(max);
    }

    fn send_head(
        &self,
        head: &[u8],
        request: &OutRequest<'_>,
        body: &mut OutBody<'_>,
        mut watch: Watch,
        timeouts: Timeouts,
        attempts: &mut u32,
    ) -> Result<Box<Answer<'_>>, UpstreamError> {
        if let Some(kept) = self.idle.take() {
            *attempts += 1;
            match self.attempt(kept, head, request, body, watch, timeouts) {
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
        self.attempt(new, head, request, body, watch, timeouts)
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
        request: &OutRequest<'_>,
        body: &mut OutBody<'_>,
        watch: Watch,
        timeouts: Timeouts,
    ) -> Result<Box<Answer<'_>>, (Failed, Watch)> {
        let method = request.method;
        let mut exchange = Exchange::on(wire, &watch, timeouts);
        exchange.websocket_key = request.websocket_key;
        let parsed = match exchange.run(method, head, body) {
            Ok(parsed) => parsed,
            Err(fault) => {
                let is_stale = exchange.may_go_again(&fault, method, Stopwatch::start());
                drop(exchange);
                return Err((Failed { fault, is_stale }, watch));
            }
        };
        let is_kept = exchange.sent_whole && parsed.keeps_alive();
        let (framing, length) = exchange.framed;
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
