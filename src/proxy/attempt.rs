//! One provider's turn at a request: its credential, its connection, and once more where its token is
//! refused and there is a newer one.

use std::io::Read;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use log::{debug, warn};

use crate::clock::{Deadline, Moment};
use crate::config::{Call, Credential, FIRST_TOKEN_WAIT, Provider};
use crate::ingress::Request;
use crate::proxy::body::TakenBody;
use crate::proxy::choice::Standing;
use crate::proxy::cooldown::Mark;
use crate::proxy::exchange::{Proxy, Record, Stop};
use crate::proxy::way::InFlight;
use crate::proxy::{cooldown, headers, rejection, target, verdict};
use crate::refusal::{Code, Refusal};
use crate::secret::Secret;
use crate::token::store::{Generation, Posting};
use crate::upstream::{Answer, OutBody, OutRequest, UpstreamError};

/// How long a request whose token was refused waits for a newer one.
const NEWER_TOKEN_WAIT: Duration = Duration::from_secs(10);
/// How long the start of a 403 may take to come, which tells whether it is about the token.
const REFUSAL_READ_MAX: Duration = Duration::from_secs(5);

/// What is sent to one provider.
pub(super) struct Outgoing<'a> {
    /// Which.
    pub(super) index: usize,
    /// Path and query.
    pub(super) target: &'a str,
    /// The body.
    pub(super) body: &'a TakenBody,
    /// How long the head of the answer may take, where that is less than usual.
    pub(super) response_max: Option<Duration>,
}

impl<'a> Outgoing<'a> {
    /// For a request that may take as long as the provider's `timeouts` say.
    pub(super) fn usual(index: usize, target: &'a str, body: &'a TakenBody) -> Self {
        Self { index, target, body, response_max: None }
    }
}

/// A provider's answer. The request counts as under way until this is dropped.
pub(super) struct Sent<'a> {
    /// What came.
    pub(super) answer: Answer<'a>,
    /// Holds the place among the provider's requests.
    pub(super) in_flight: InFlight<'a>,
}

impl Sent<'_> {
    /// Whether another provider may do better.
    pub(super) fn is_failing(&self) -> bool {
        verdict::is_failing(self.answer.head.status)
    }
}

/// The credential for one attempt.
pub(super) enum Taken<'a> {
    Nothing,
    Fixed(&'a Secret),
    /// Out of a file that another program keeps.
    Kept(Secret, Generation),
    /// The token of a posting, which has a valid one.
    Posted(Arc<Posting>),
}

impl Taken<'_> {
    fn secret(&self) -> Option<&Secret> {
        match self {
            Self::Nothing => None,
            Self::Fixed(secret) => Some(secret),
            Self::Kept(secret, _) => Some(secret),
            Self::Posted(posting) => posting.token.as_ref().map(|token| &token.secret),
        }
    }

    /// The token's generation; None for a credential that does not change.
    fn generation(&self) -> Option<Generation> {
        match self {
            Self::Nothing | Self::Fixed(_) => None,
            Self::Kept(_, generation) => Some(*generation),
            Self::Posted(posting) => posting.token.as_ref().map(|token| token.generation),
        }
    }
}

impl Proxy {
    /// Whether there is a credential to send to the provider.
    pub fn has_credential(&self, index: usize, posting: &Posting, now: Moment) -> bool {
        match &self.config.providers[index].credential {
            Credential::None | Credential::Passthrough | Credential::Static(_) => true,
            Credential::Missing(_) => false,
            Credential::Watched(_) => {
                let watched = self.ways[index].watched.as_ref();
                watched.is_some_and(|watched| watched.read(now).is_ok())
            }
            Credential::Refreshed(_) => posting.valid_token(now).is_some(),
        }
    }

    /// How the provider stands: what decides whether it is tried before others.
    pub(super) fn standing(&self, index: usize) -> Standing {
        let now = self.clock.now();
        let way = &self.ways[index];
        if let Some(until) = way.cooldown.until(now) {
            return Standing::Cooling(until.left_ms(now));
        }
        if matches!(self.config.providers[index].credential, Credential::Static(_)) {
            return Standing::Ready;
        }
        let posting = self.posting(index);
        let waits = || verdict::is_worth_waiting(&posting, now, FIRST_TOKEN_WAIT);
        match self.has_credential(index, &posting, now) {
            true => Standing::Ready,
            false if way.inbox.is_some() && waits() => Standing::Waiting,
            false => {
                if let Some(inbox) = &way.inbox {
                    inbox.passed_over();
                }
                Standing::Without
            }
        }
    }

    /// Sends a request to one provider, and has it cool down where it fails.
    // Not part of its caller: what it needs of the stack would stay with the worker.
    #[inline(never)]
    pub(super) fn attempt(
        &self,
        request: &mut Request<'_>,
        outgoing: &Outgoing<'_>,
        record: &mut Record,
    ) -> Result<Sent<'_>, Stop> {
        let index = outgoing.index;
        let (provider, way) = (&self.config.providers[index], &self.ways[index]);
        let Some(in_flight) = way.counts.enter(provider.max_in_flight) else {
            let most = provider.max_in_flight;
            let message =
                format!("{} has its max_in_flight ({most}) requests under way", provider.name);
            return Err(Refusal::new(Code::Overloaded, message).into());
        };
        let sent = way.cooldown.mark();
        let outcome = self.send(request, outgoing, record);
        self.judge(index, &outcome, sent);
        outcome.map(|answer| Sent { answer, in_flight })
    }

    // Not part of its caller: what it needs of the stack would stay with the worker.
    #[inline(never)]
    fn judge(&self, index: usize, outcome: &Result<Answer<'_>, Stop>, sent: Mark) {
        let way = &self.ways[index];
        let otherwise = self.config.settings.failure_cooldown;
        let name = &self.config.providers[index].name;
        let (length, why) = match outcome {
            Ok(answer) if verdict::is_failing(answer.head.status) => {
                self.metrics.upstream_error(name, "status");
                let now = self.clock.wall();
                let length = cooldown::length(&answer.head.headers, now, otherwise);
                (length, format!("it answered {}", answer.head.status))
            }
            Err(Stop::Refused(refusal)) if verdict::cools_down(refusal.code) => {
                self.metrics.upstream_error(name, refusal.code.as_str());
                (otherwise, refusal.code.as_str().to_owned())
            }
            Ok(_) => return way.cooldown.succeeded(sent),
            Err(_) => return,
        };
        if outcome.as_ref().map_or(true, |answer| answer.head.status >= 500) {
            way.counts.failed();
        }
        // What a provider answers counts for every host; no connection may be this host's own trouble.
        if let (Some(herald), Ok(_)) = (&way.herald, outcome) {
            herald.tell(length);
        }
        if way.cooldown.begin(self.clock.now(), length) {
            warn!(
                provider = name;
                "Provider {name} is passed over for {} s: {why}", length.as_secs_f64().ceil()
            );
        }
    }

    /// Sends the request, and once more where its token is refused and there is a newer one.
    pub(super) fn send(
        &self,
        request: &mut Request<'_>,
        outgoing: &Outgoing<'_>,
        record: &mut Record,
    ) -> Result<Answer<'_>, Stop> {
        let mut is_first = true;
        loop {
            let taken = self.credential(outgoing.index)?;
            let mut answer = self.send_once(request, outgoing, &taken, &mut record.attempts)?;
            let Some(generation) = taken.generation() else { return Ok(answer) };
            if !refuses_token(&mut answer) {
                return Ok(answer);
            }
            let may_repeat = is_first && outgoing.body.is_held();
            if !self.newer_token(outgoing.index, generation, may_repeat) {
                return Ok(answer);
            }
            is_first = false;
        }
    }

    // Not part of its caller: what it needs of the stack would stay with the worker.
    #[inline(never)]
    fn send_once(
        &self,
        request: &mut Request<'_>,
        outgoing: &Outgoing<'_>,
        taken: &Taken<'_>,
        attempts: &mut u32,
    ) -> Result<Answer<'_>, Stop> {
        let provider = &self.config.providers[outgoing.index];
        let inbound_keys = self.access.keys.as_deref().unwrap_or_default();
        let claims = self.ways[outgoing.index].claims.of(provider, taken.secret());
        let mut headers = headers::to_upstream(
            &request.head.headers,
            provider,
            taken.secret(),
            claims.as_deref(),
            inbound_keys,
        );
        if matches!(outgoing.body, TakenBody::Recoded(_)) {
            headers.remove("content-encoding");
        }
        let target = target::to_upstream(outgoing.target, provider, inbound_keys);
        let out = OutRequest {
            method: &request.head.method,
            target: &target,
            passed_on: &headers.passed_on,
            headers: &headers.own,
            response_max: outgoing.response_max,
        };
        let upstream = &self.ways[outgoing.index].upstream;
        let client: Option<&Arc<TcpStream>> = request.client;
        let sent = match outgoing.body.sent() {
            TakenBody::Absent | TakenBody::Glimpsed { .. } => {
                upstream.send(&out, &mut OutBody::Absent, client, attempts)
            }
            TakenBody::Held(bytes)
            | TakenBody::Recoded(bytes)
            | TakenBody::Coded { sent: bytes, .. } => {
                upstream.send(&out, &mut OutBody::Held(bytes), client, attempts)
            }
            TakenBody::Streamed(length, start) => {
                let mut reader = start.as_slice().chain(&mut *request.body);
                upstream.send(&out, &mut OutBody::Streamed(*length, &mut reader), client, attempts)
            }
        };
        sent.map_err(|error| {
            debug!("No answer from {}: {error:?}", provider.name);
            if let UpstreamError::Short(shortage) = &error {
                shortage.say("requests get 503");
            }
            verdict::refusal_for(&error, &provider.name).map_or(Stop::ClientGone, Stop::Refused)
        })
    }

    /// The provider's credential, for which a request waits where the first token is on its way.
    pub(super) fn credential(&self, index: usize) -> Result<Taken<'_>, Refusal> {
        let provider = &self.config.providers[index];
        let unavailable = |why: &dyn std::fmt::Display| {
            let message = format!("No credential for {}: {why}", provider.name);
            Refusal::new(Code::TokenUnavailable, message)
        };
        match &provider.credential {
            Credential::None | Credential::Passthrough => Ok(Taken::Nothing),
            Credential::Static(secret) => Ok(Taken::Fixed(secret)),
            Credential::Missing(missing) => Err(unavailable(missing)),
            Credential::Watched(_) => {
                let watched = self.ways[index].watched.as_ref();
                let kept = watched.map(|watched| watched.read(self.clock.now()));
                match kept {
                    Some(Ok(kept)) => Ok(Taken::Kept(kept.secret, kept.generation)),
                    Some(Err(why)) => Err(unavailable(&why)),
                    None => Err(unavailable(&"its file is not watched")),
                }
            }
            Credential::Refreshed(config) => self.token(index, &config.call),
        }
    }

    fn token(&self, index: usize, call: &Call) -> Result<Taken<'_>, Refusal> {
        let known = self.posting(index);
        if known.valid_token(self.clock.now()).is_some() {
            return Ok(Taken::Posted(known));
        }
        let deadline = Deadline::after(FIRST_TOKEN_WAIT);
        if let Some(inbox) = &self.ways[index].inbox {
            let heard = inbox.wait_for_token();
            if !known.refreshing {
                // What is known may be old: the next try may come sooner now that it is waited for.
                let _ = heard.recv_timeout(deadline.left());
            }
        }
        let posting = self.store.wait(self.ways[index].posting, deadline, |posting| {
            !verdict::is_worth_waiting(posting, self.clock.now(), deadline.left())
        });
        let now = self.clock.now();
        if posting.valid_token(now).is_some() {
            return Ok(Taken::Posted(posting));
        }
        let Provider { name, slug, .. } = &self.config.providers[index];
        Err(verdict::no_token(name, &posting, now.wall, &call.refresh(slug)))
    }

    /// Whether there is a valid token newer than `generation`, which the provider refused; where
    /// `may_wait`, after waiting for a refresh.
    fn newer_token(&self, index: usize, generation: Generation, may_wait: bool) -> bool {
        let way = &self.ways[index];
        if let Some(watched) = &way.watched {
            // Its owner refreshes it; all there is to do is to look again.
            let kept = watched.read(self.clock.now());
            return may_wait && kept.is_ok_and(|kept| kept.generation > generation);
        }
        let is_there = || {
            let posting = self.posting(index);
            posting.valid_token(self.clock.now()).is_some_and(|token| token.generation > generation)
        };
        if is_there() {
            return may_wait;
        }
        let Some(inbox) = &way.inbox else { return false };
        let outcome = inbox.reject(generation);
        if !may_wait {
            return false;
        }
        let deadline = Deadline::after(NEWER_TOKEN_WAIT);
        // The refresher closes this end once the outcome is published.
        let _ = outcome.recv_timeout(deadline.left());
        // A failure that may pass is tried again soon; a client would rather wait than see that its token is no good.
        self.store.wait(way.posting, deadline, |posting| {
            let (now, left) = (self.clock.now(), deadline.left());
            !verdict::is_worth_waiting_for_newer(posting, generation, now, left)
        });
        is_there()
    }
}

/// Whether an answer says that the token is no good.
fn refuses_token(answer: &mut Answer<'_>) -> bool {
    match rejection::of_head(&answer.head, answer.length) {
        rejection::Head::Rejects => true,
        rejection::Head::Accepts => false,
        rejection::Head::AsksBody => {
            let head = answer.head.clone();
            let (body, _) = answer.read_ahead(rejection::BODY_MAX_BYTES, REFUSAL_READ_MAX);
            rejection::of_body(&head.headers, body)
        }
    }
}
