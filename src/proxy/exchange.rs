//! One request from start to end: the only file that sees both sides.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use log::{debug, info};

use crate::clock::{Clock, Deadline, Stopwatch, Timestamp};
use crate::config::{Config, Credential, FIRST_TOKEN_WAIT, ProviderKind};
use crate::ingress::{After, Request, Service};
use crate::message::{BodyLength, RequestHead};
use crate::proxy::access::Access;
use crate::proxy::headers;
use crate::proxy::pages::{self, Page};
use crate::proxy::relay::{Relayed, relay};
use crate::proxy::reply::Reply;
use crate::proxy::route::{Route, kind_of, route};
use crate::proxy::summary::Summary;
use crate::proxy::verdict;
use crate::refusal::{Code, Refusal};
use crate::secret::Secret;
use crate::token::refresher::Inbox;
use crate::token::store::{Generation, TokenStore};
use crate::upstream::{Answer, AnswerLength, OutBody, OutRequest, Upstream};

/// How long a request whose token was refused waits for a newer one.
const NEWER_TOKEN_WAIT: Duration = Duration::from_secs(10);

/// Everything that serving a request needs; shared by all workers.
pub struct Proxy {
    /// The configuration.
    pub config: Config,
    /// Who may use the proxy.
    pub access: Access,
    /// One for each provider of the configuration, in its order.
    pub ways: Vec<Way>,
    /// The published tokens.
    pub store: Arc<TokenStore>,
    /// The time.
    pub clock: Clock,
    /// When the proxy started.
    pub started_at: Timestamp,
    /// Measures the time since then.
    pub uptime: Stopwatch,
}

/// The way to one provider, and what went over it.
pub struct Way {
    /// The connections to it.
    pub upstream: Upstream,
    /// Its refresher; None where it has none.
    pub inbox: Option<Inbox>,
    /// Counts since the start.
    pub counts: Counts,
}

/// Requests to one provider since the start.
#[derive(Debug, Default)]
pub struct Counts {
    /// All of them.
    pub total: AtomicU64,
    /// Those under way.
    pub in_flight: AtomicU64,
    /// Those that got no answer, or one of 500 and above.
    pub errors: AtomicU64,
}

/// Counts a request as under way while it lives.
struct InFlight<'a>(&'a Counts);

impl<'a> InFlight<'a> {
    fn begin(counts: &'a Counts) -> Self {
        counts.total.fetch_add(1, Ordering::Relaxed);
        counts.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(counts)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Why a request ends without a whole response.
enum Stop {
    /// The client is told, if nothing was sent yet.
    Refused(Refusal),
    /// The client went away.
    ClientGone,
    /// The upstream broke off in the middle of the body.
    UpstreamCut,
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// What the log line tells, gathered on the way.
#[derive(Default)]
struct Record {
    provider: Option<usize>,
    status: Option<u16>,
    first_byte: Option<Duration>,
    attempts: u32,
}

/// A request's body, as it is sent.
enum TakenBody {
    Absent,
    /// Whole, so it can be sent again.
    Held(Vec<u8>),
    /// Its declared length, and what was read of it already.
    Streamed(Option<u64>, Vec<u8>),
}

/// The credential for one attempt.
enum Taken {
    Nothing,
    Fixed(Secret),
    Token(Secret, Generation),
}

impl Taken {
    fn secret(&self) -> Option<&Secret> {
        match self {
            Self::Nothing => None,
            Self::Fixed(secret) | Self::Token(secret, _) => Some(secret),
        }
    }
}

impl Service for Proxy {
    fn serve(&self, mut request: Request<'_>, out: &mut dyn Write) -> After {
        let stopwatch = Stopwatch::start();
        let head = request.head;
        let mut record = Record::default();
        let mut reply = Reply::new(out, Some(head), request.may_keep_alive);
        let outcome = self.answer(&mut request, &mut reply, &mut record, stopwatch);
        let cut = match outcome {
            Ok(()) => None,
            Err(Stop::Refused(refusal)) if !reply.has_begun() => {
                record.status = Some(refusal.code.status());
                let kind = self.kind(head, record.provider);
                self.refuse_with(&refusal, kind, &mut reply).err().map(|_| "the client went away")
            }
            Err(Stop::ClientGone) => Some("the client went away"),
            Err(Stop::Refused(_) | Stop::UpstreamCut) => Some("the provider broke off"),
        };
        let sent_bytes = reply.sent_bytes();
        let after = if cut.is_some() { After::Abort } else { reply.finish() };
        self.report(head, &record, sent_bytes, cut, stopwatch);
        after
    }

    fn refuse(&self, refusal: &Refusal, head: Option<&RequestHead>, out: &mut dyn Write) {
        let kind = head.map_or(ProviderKind::Generic, |head| self.kind(head, None));
        let mut reply = Reply::new(out, head, false);
        // Whoever sends what can't be read may well be gone; there is nobody else to tell.
        let _ = self.refuse_with(refusal, kind, &mut reply);
        debug!("Refused a request: {} ({})", refusal.message, refusal.code.as_str());
    }
}

impl Proxy {
    fn answer(
        &self,
        request: &mut Request<'_>,
        reply: &mut Reply<'_>,
        record: &mut Record,
        stopwatch: Stopwatch,
    ) -> Result<(), Stop> {
        let head = request.head;
        let routed = route(&head.target, &self.config.providers);
        let page = match &routed {
            Ok(Route::Page(page)) => Some(page.as_str()),
            _ => None,
        };
        if !(self.access.keys.is_some() && page.is_some_and(pages::is_open)) {
            self.access.check(head, page.is_some())?;
        }
        match routed? {
            Route::Page(page) => {
                let page = pages::answer(self, &head.method, &page)?;
                record.status = Some(page.head.status);
                self.send_page(&page, head, reply)
            }
            Route::Provider(index, target) => {
                record.provider = Some(index);
                let way = &self.ways[index];
                let _in_flight = InFlight::begin(&way.counts);
                let outcome = self.forward(request, index, &target, reply, record, stopwatch);
                if outcome_is_error(&outcome, record.status) {
                    way.counts.errors.fetch_add(1, Ordering::Relaxed);
                }
                outcome
            }
        }
    }

    fn forward(
        &self,
        request: &mut Request<'_>,
        index: usize,
        target: &str,
        reply: &mut Reply<'_>,
        record: &mut Record,
        stopwatch: Stopwatch,
    ) -> Result<(), Stop> {
        // A request that can't be sent is refused before its body is read.
        self.credential(index)?;
        let body = self.take_body(request.head.body, request.body)?;
        let mut answer = self.send(request, index, target, &body, record)?;
        record.first_byte = Some(stopwatch.elapsed());
        record.status = Some(answer.head.status);
        let mut sent = answer.head.clone();
        sent.headers = headers::to_client(&answer.head.headers);
        reply.begin(&sent, answer.length).map_err(|_| Stop::ClientGone)?;
        if answer.length == AnswerLength::Absent {
            return Ok(());
        }
        match relay(&mut answer, reply) {
            Relayed::Complete => Ok(()),
            Relayed::ClientBroke(_) => Err(Stop::ClientGone),
            Relayed::UpstreamBroke(_) if answer.client_is_gone() => Err(Stop::ClientGone),
            Relayed::UpstreamBroke(_) => Err(Stop::UpstreamCut),
        }
    }

    /// Sends the request, and once more where its token is refused and there is a newer one.
    fn send(
        &self,
        request: &mut Request<'_>,
        index: usize,
        target: &str,
        body: &TakenBody,
        record: &mut Record,
    ) -> Result<Answer, Stop> {
        loop {
            let taken = self.credential(index)?;
            record.attempts += 1;
            let answer = self.send_once(request, index, target, body, &taken)?;
            let Taken::Token(_, generation) = taken else { return Ok(answer) };
            if answer.head.status != 401 {
                return Ok(answer);
            }
            let replayable = !matches!(body, TakenBody::Streamed(..));
            let newer = self.newer_token(index, generation, replayable && record.attempts == 1);
            if !newer {
                return Ok(answer);
            }
        }
    }

    fn send_once(
        &self,
        request: &mut Request<'_>,
        index: usize,
        target: &str,
        body: &TakenBody,
        taken: &Taken,
    ) -> Result<Answer, Stop> {
        let provider = &self.config.providers[index];
        let inbound_keys = self.access.keys.as_deref().unwrap_or_default();
        let out = OutRequest {
            method: request.head.method.clone(),
            url: format!("{}{target}", provider.base_url),
            headers: headers::to_upstream(
                &request.head.headers,
                provider,
                taken.secret(),
                inbound_keys,
            ),
        };
        let upstream = &self.ways[index].upstream;
        let client: Option<&Arc<TcpStream>> = request.client;
        let sent = match body {
            TakenBody::Absent => upstream.send(&out, &mut OutBody::Absent, client),
            TakenBody::Held(bytes) => upstream.send(&out, &mut OutBody::Held(bytes), client),
            TakenBody::Streamed(length, start) => {
                let mut reader = start.as_slice().chain(&mut *request.body);
                upstream.send(&out, &mut OutBody::Streamed(*length, &mut reader), client)
            }
        };
        sent.map_err(|error| {
            debug!("No answer from {}: {error:?}", provider.name);
            verdict::refusal_for(&error, &provider.name).map_or(Stop::ClientGone, Stop::Refused)
        })
    }

    /// The provider's credential, for which a request waits where the first token is on its way.
    fn credential(&self, index: usize) -> Result<Taken, Refusal> {
        let provider = &self.config.providers[index];
        match &provider.credential {
            Credential::None | Credential::Passthrough => Ok(Taken::Nothing),
            Credential::Static(secret) => Ok(Taken::Fixed(secret.clone())),
            Credential::Missing(missing) => Err(Refusal::new(
                Code::TokenUnavailable,
                format!("No credential for {}: {missing}", provider.name),
            )),
            Credential::Refreshed(_) => self.token(index),
        }
    }

    fn token(&self, index: usize) -> Result<Taken, Refusal> {
        let deadline = Deadline::after(FIRST_TOKEN_WAIT);
        let known = self.store.read(index);
        if known.token.is_some()
            && known.valid_token(self.clock.now()).is_none()
            && let Some(inbox) = &self.ways[index].inbox
        {
            inbox.expired();
        }
        let posting = self.store.wait(index, deadline, |posting| {
            !verdict::is_worth_waiting(posting, self.clock.now(), deadline.left())
        });
        let now = self.clock.now();
        match posting.valid_token(now) {
            Some(token) => Ok(Taken::Token(token.secret.clone(), token.generation)),
            None => Err(verdict::token_unavailable(
                &self.config.providers[index].name,
                &posting,
                now.wall,
            )),
        }
    }

    /// Whether there is a valid token newer than `generation`, which the provider refused; where
    /// `may_wait`, after waiting for a refresh.
    fn newer_token(&self, index: usize, generation: Generation, may_wait: bool) -> bool {
        let is_there = || {
            let posting = self.store.read(index);
            posting.valid_token(self.clock.now()).is_some_and(|token| token.generation > generation)
        };
        if is_there() {
            return may_wait;
        }
        let Some(inbox) = &self.ways[index].inbox else { return false };
        let outcome = inbox.reject(generation);
        if !may_wait {
            return false;
        }
        // The refresher closes this end once the outcome is published.
        let _ = outcome.recv_timeout(NEWER_TOKEN_WAIT);
        is_there()
    }

    /// Reads the body up to `replay_body_bytes`, so that it can be sent again; more is streamed.
    fn take_body(&self, length: BodyLength, body: &mut dyn Read) -> Result<TakenBody, Stop> {
        let held_max = self.config.settings.limits.replay_body_bytes;
        let declared = match length {
            BodyLength::Absent => return Ok(TakenBody::Absent),
            BodyLength::Sized(bytes) if bytes > held_max => {
                return Ok(TakenBody::Streamed(Some(bytes), Vec::new()));
            }
            BodyLength::Sized(_) => true,
            BodyLength::Chunked => false,
        };
        let mut bytes = Vec::new();
        let read = body.take(held_max.saturating_add(1)).read_to_end(&mut bytes);
        read.map_err(|error| {
            verdict::refusal_for_body(&error).map_or(Stop::ClientGone, Stop::Refused)
        })?;
        if declared || bytes.len() as u64 <= held_max {
            Ok(TakenBody::Held(bytes))
        } else {
            Ok(TakenBody::Streamed(None, bytes))
        }
    }

    /// The error shape for a request: that of its provider, or of the API its path belongs to.
    fn kind(&self, head: &RequestHead, provider: Option<usize>) -> ProviderKind {
        match provider {
            Some(index) => self.config.providers[index].kind,
            None => kind_of(head.path()).unwrap_or(ProviderKind::Generic),
        }
    }

    fn refuse_with(
        &self,
        refusal: &Refusal,
        kind: ProviderKind,
        reply: &mut Reply<'_>,
    ) -> std::io::Result<()> {
        if matches!(refusal.code, Code::BadRequest | Code::ClientTimeout | Code::BodyTooLarge) {
            // Where the next request would start is not known, or too far away.
            reply.close_after();
        }
        let (mut head, body) = refusal.render(kind);
        head.headers.push("date", self.date());
        reply.begin(&head, AnswerLength::Sized(body.len() as u64))?;
        reply.piece(&body)
    }

    fn send_page(
        &self,
        page: &Page,
        head: &RequestHead,
        reply: &mut Reply<'_>,
    ) -> Result<(), Stop> {
        let mut sent = page.head.clone();
        sent.headers.push("date", self.date());
        let length = if head.method == "HEAD" {
            sent.headers.push("content-length", page.body.len().to_string());
            AnswerLength::Absent
        } else {
            AnswerLength::Sized(page.body.len() as u64)
        };
        reply.begin(&sent, length).map_err(|_| Stop::ClientGone)?;
        reply.piece(&page.body).map_err(|_| Stop::ClientGone)
    }

    fn date(&self) -> String {
        httpdate::fmt_http_date(self.clock.wall().to_system_time())
    }

    fn report(
        &self,
        head: &RequestHead,
        record: &Record,
        sent_bytes: u64,
        cut: Option<&str>,
        stopwatch: Stopwatch,
    ) {
        let summary = Summary {
            method: &head.method,
            path: head.path(),
            provider: record.provider.map(|index| self.config.providers[index].name.as_str()),
            status: record.status,
            sent_bytes,
            first_byte: record.first_byte,
            total: stopwatch.elapsed(),
            attempts: record.attempts,
            cut,
        };
        match record.provider {
            Some(_) => info!("{summary}"),
            None => debug!("{summary}"),
        }
    }
}

fn outcome_is_error(outcome: &Result<(), Stop>, status: Option<u16>) -> bool {
    match outcome {
        Ok(()) => status.is_some_and(|status| status >= 500),
        Err(Stop::Refused(refusal)) => refusal.code.status() >= 500,
        Err(Stop::UpstreamCut) => true,
        Err(Stop::ClientGone) => false,
    }
}
