//! One request from start to end: the only file that sees both sides.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use log::{Level, debug};

use crate::clock::{Clock, Stopwatch, Timestamp};
use crate::config::{Config, ProviderKind, SelectionStrategy};
use crate::ingress::{After, Request, Service};
use crate::message::{RequestHead, ResponseHead};
use crate::proxy::access::Access;
use crate::proxy::api::api_of;
use crate::proxy::attempt::{Answered, Outgoing};
use crate::proxy::body::TakenBody;
use crate::proxy::choice::{Candidate, Queue};
use crate::proxy::cut::Cut;
use crate::proxy::incoming::{Counted, Progress};
use crate::proxy::last_reload::LastReload;
use crate::proxy::metrics::{Metrics, Observed};
use crate::proxy::models;
use crate::proxy::pages::events::Watchers;
use crate::proxy::pages::{self, Page};
use crate::proxy::provider::Provider;
use crate::proxy::relay::{Relayed, relay};
use crate::proxy::reply::Reply;
use crate::proxy::route::{self, Route, candidates, route};
use crate::proxy::summary::Summary;
use crate::proxy::verdict;
use crate::proxy::{cors, headers, location};
use crate::refusal::{Code, Refusal};
use crate::shared::health::Health;
use crate::upstream::AnswerLength;

/// The largest failing answer that is kept while other providers are tried.
const KEPT_MAX_BYTES: usize = 256 * 1024;
/// Connections that are kept to a provider however few clients there are.
const IDLE_CONNECTIONS_MIN: usize = 64;
/// How long reading it may take.
const KEPT_READ_MAX: Duration = Duration::from_secs(5);

/// Everything that serving a request needs; shared by all workers.
pub struct Proxy {
    /// The configuration.
    pub config: Config,
    /// Who may use the proxy.
    pub access: Access,
    /// The providers of the configuration, in its order.
    pub providers: Vec<Arc<Provider>>,
    /// The time.
    pub clock: Clock,
    /// When the proxy started.
    pub started_at: Timestamp,
    /// When its configuration was read.
    pub configured_at: Timestamp,
    /// How the last reload failed, where it did.
    pub last_reload: Arc<LastReload>,
    /// Measures the time since then.
    pub uptime: Stopwatch,
    /// What is counted and timed.
    pub metrics: Arc<Metrics>,
    /// Differs from request to request, for the selection strategy.
    pub turns: AtomicU64,
    /// Reads the configuration again: what is to be known about it, or why it can't be used.
    pub reload: Reload,
    /// Who watches the status.
    pub watchers: Watchers,
    /// Whether the token store can be used; None where there is none.
    pub store_health: Option<Arc<Health>>,
}

/// See [`Proxy::reload`].
pub type Reload = Box<dyn Fn() -> Result<Vec<String>, Vec<String>> + Send + Sync>;

/// Why a request ends without a whole response.
pub(super) enum Stop {
    /// The client is told, if nothing was sent yet.
    Refused(Refusal),
    /// The client went away.
    ClientGone,
    /// The upstream broke off in the middle of the body, or was silent for too long.
    UpstreamCut(Cut),
}

impl Stop {
    /// For a request whose body can't be taken.
    #[expect(clippy::needless_pass_by_value, reason = "it is used with `map_err`")]
    pub(super) fn of_body(error: io::Error) -> Self {
        match verdict::refusal_for_body(&error) {
            Some(refusal) => refusal.into(),
            None if error.kind() == io::ErrorKind::OutOfMemory => {
                Refusal::new(Code::Overloaded, "There is no memory for the request's body").into()
            }
            None => Self::ClientGone,
        }
    }
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// What the log line tells, gathered on the way.
#[derive(Default)]
pub(super) struct Record {
    provider: Option<usize>,
    pub(super) status: Option<u16>,
    first_byte: Option<Duration>,
    pub(super) attempts: u32,
    received_bytes: u64,
    /// One of our own pages was asked for.
    pub(super) is_page: bool,
}

impl Record {
    /// The answer of a provider is passed on.
    pub(super) fn answered_by(&mut self, provider: usize, status: u16) {
        self.provider = Some(provider);
        self.status = Some(status);
    }

    /// The client is told of `refusal`. A limit of our own is none of the provider's errors: it was not asked.
    fn refused(&mut self, refusal: &Refusal) {
        self.status = Some(refusal.code.status());
        self.provider = self.provider.filter(|_| refusal.code != Code::Overloaded);
    }

    /// The proxy itself answers.
    pub(super) fn answered_here(&mut self, status: u16) {
        self.status = Some(status);
    }
}

/// A failing answer, whole, for the case that no other provider has a better one.
type Kept = (ResponseHead, Vec<u8>);

impl Service for Proxy {
    fn serve(&self, request: Request<'_>, out: &mut dyn Write) -> After {
        let stopwatch = Stopwatch::start();
        let head = request.head;
        let (mut record, progress) = (Record::default(), Progress::default());
        let mut reply = Reply::new(out, Some(head), request.may_keep_alive);
        reply.share_with(cors::allowed(head, &self.access.origins));
        reply.mind(head, &progress);
        let mut body = Counted { body: request.body, progress: &progress };
        let mut request = Request { body: &mut body, ..request };
        let outcome = self.answer(&mut request, &mut reply, &mut record, stopwatch);
        record.received_bytes = progress.bytes();
        let cut = match outcome {
            Ok(()) => None,
            Err(Stop::Refused(refusal)) if !reply.has_begun() => {
                let kind = self.kind(head, record.provider);
                record.refused(&refusal);
                self.refuse_with(&refusal, kind, &mut reply).err().map(|_| "the client went away")
            }
            Err(Stop::ClientGone) => Some("the client went away"),
            Err(Stop::Refused(_)) => Some(Cut::BrokeOff.in_words()),
            Err(Stop::UpstreamCut(cut)) => Some(cut.in_words()),
        };
        let sent_bytes = reply.sent_bytes();
        let after = if cut.is_some() { After::Abort } else { reply.finish() };
        self.report(head, &record, sent_bytes, cut, stopwatch);
        after
    }

    fn refuse(&self, refusal: &Refusal, head: Option<&RequestHead>, out: &mut dyn Write) {
        let kind = head.map_or(ProviderKind::Generic, |head| self.kind(head, None));
        let mut reply = Reply::new(out, head, false);
        reply.share_with(head.and_then(|head| cors::allowed(head, &self.access.origins)));
        // Whoever sends what can't be read may well be gone; there is nobody else to tell.
        let _ = self.refuse_with(refusal, kind, &mut reply);
        debug!("Refused a request: {} ({})", refusal.message, refusal.code.as_str());
    }
}

impl Proxy {
    /// Some clients went away and `open` are left: no more requests than that can be under way, so
    /// that many connections to a provider are kept.
    pub fn clients_left(&self, open: usize) {
        for provider in &self.providers {
            provider.upstream.trim(open.max(IDLE_CONNECTIONS_MIN));
        }
    }

    fn answer(
        &self,
        request: &mut Request<'_>,
        reply: &mut Reply<'_>,
        record: &mut Record,
        stopwatch: Stopwatch,
    ) -> Result<(), Stop> {
        let head = request.head;
        if let Some(preflight) = cors::preflight(head, &self.access.origins) {
            return self.answer_preflight(&preflight, head, reply, record);
        }
        let routed = route(&head.target, &self.config.providers);
        let page = match &routed {
            Ok(Route::Page(page)) => Some(page.as_str()),
            Ok(Route::Any) if route::is_opened_in_browser(head) => {
                return self.to_people(head, reply, record);
            }
            _ => None,
        };
        if !(self.access.keys.is_some() && page.is_some_and(pages::is_open)) {
            self.access.check(head, page.is_some())?;
        }
        match routed? {
            Route::Page(page) => self.page(&page, request, reply, record),
            Route::Provider(index, target) => {
                record.provider = Some(index);
                // A request that can't be sent is refused before its body is read.
                self.credential(index)?;
                let body = self.take_body(request, false)?;
                let only = vec![Candidate::alone(index)];
                let only = Queue::new(only, SelectionStrategy::Priority, 0);
                self.forward(request, &target, body, only, reply, record, stopwatch)
            }
            Route::Any => {
                if let Some(wanted) = models::Wanted::of(&self.config, head) {
                    return self.models(&wanted, request, reply, record);
                }
                let (body, candidates) = self.choose(request)?;
                let target = &head.target;
                self.forward(request, target, body, candidates, reply, record, stopwatch)
            }
        }
    }

    /// Waits for the provider's credential.
    fn credential(&self, index: usize) -> Result<(), Refusal> {
        let Provider { source, config, .. } = &*self.providers[index];
        source.wait(&config.name, &self.clock).map(drop)
    }

    /// Answers with a page of our own.
    // Not part of its caller: what it needs of the stack would stay with the worker.
    #[inline(never)]
    fn page(
        &self,
        page: &str,
        request: &mut Request<'_>,
        reply: &mut Reply<'_>,
        record: &mut Record,
    ) -> Result<(), Stop> {
        if page == "events" {
            record.status = Some(200);
            return pages::events::stream(self, request, reply);
        }
        record.is_page = true;
        let head = request.head;
        let page = pages::answer(self, &head.method, page)?;
        record.status = Some(page.head.status);
        self.send_page(&page, head, reply)
    }

    /// The body, and who may serve the request, in the order in which they are tried.
    // Not part of its caller: what it needs of the stack would stay with the worker.
    #[inline(never)]
    fn choose(&self, request: &mut Request<'_>) -> Result<(TakenBody, Queue), Stop> {
        let head = request.head;
        let api = || api_of(head.path(), &head.headers);
        let serving = |model: Option<&str>| {
            let found = candidates(&self.config, api, model);
            found.map_err(|refusal| route::with_hint(refusal, head))
        };
        let by_model = !self.config.model_routes.is_empty();
        let by_api = if by_model { Vec::new() } else { serving(None)? };
        if let [only] = by_api.as_slice() {
            // A request that can't be sent is refused before its body is read.
            self.credential(only.provider)?;
        }
        let body = self.take_body(request, by_model)?;
        let (body, candidates) =
            if by_model { self.by_model(request, body, serving)? } else { (body, by_api) };
        let is_one_of_several = candidates.len() > 1;
        let turn = if is_one_of_several { self.turns.fetch_add(1, Ordering::Relaxed) } else { 0 };
        let strategy = self.config.settings.selection_strategy;
        Ok((body, Queue::new(candidates, strategy, turn)))
    }

    /// Tries the candidates in turn until one answers well; the last answer is passed on as it is. The
    /// body is let go before that, since a stream may take long.
    #[expect(clippy::too_many_arguments, reason = "they are what an exchange is made of")]
    fn forward(
        &self,
        request: &mut Request<'_>,
        target: &str,
        body: TakenBody,
        mut candidates: Queue,
        reply: &mut Reply<'_>,
        record: &mut Record,
        stopwatch: Stopwatch,
    ) -> Result<(), Stop> {
        let model = if candidates.renames() { body.model() } else { None };
        let mut kept: Option<(usize, Kept)> = None;
        let mut refused = None;
        while let Some(candidate) =
            candidates.next(|index| self.providers[index].standing(self.clock.now()))
        {
            let left = candidates.len();
            let index = candidate.provider;
            record.provider = Some(index);
            let renamed = match (&candidate.model, &model) {
                (Some(name), Some(field)) => body.renamed(field, name),
                _ => None,
            };
            let provider = &self.providers[index];
            let outgoing = Outgoing::usual(provider, target, renamed.as_ref().unwrap_or(&body));
            match self.attempt(request, &outgoing, record) {
                Ok(answered) if left > 0 && body.is_held() && answered.is_failing() => {
                    kept = keep(answered).map(|answer| (index, answer)).or(kept);
                }
                Ok(answered) => {
                    drop((renamed, body));
                    return self.pass_on(index, request.head, answered, reply, record, stopwatch);
                }
                Err(Stop::Refused(refusal))
                    if verdict::may_move_on(refusal.code, body.is_held()) =>
                {
                    refused = Some(verdict::preferred(refused.take(), refusal));
                }
                Err(stop) => return Err(stop),
            }
        }
        match (kept, refused) {
            (Some((index, (mut head, bytes))), _) => {
                record.provider = Some(index);
                record.status = Some(head.status);
                location::lead_back(&mut head.headers, &self.config, index, request.head);
                self.send_whole(&head, &bytes, request.head, reply)
            }
            (None, Some(refusal)) => Err(refusal.into()),
            (None, None) => {
                Err(Refusal::new(Code::UpstreamBroken, "No provider gave an answer").into())
            }
        }
    }

    /// Passes an answer on as it comes.
    // Not part of its caller, whose own values would lie on the stack for the life of a stream.
    #[inline(never)]
    fn pass_on(
        &self,
        index: usize,
        asked: &RequestHead,
        answered: Answered<'_>,
        reply: &mut Reply<'_>,
        record: &mut Record,
        stopwatch: Stopwatch,
    ) -> Result<(), Stop> {
        let Answered { provider, mut answer, in_flight: _in_flight } = answered;
        record.first_byte = Some(stopwatch.elapsed());
        record.status = Some(answer.head.status);
        headers::to_client(&mut answer.head.headers);
        location::lead_back(&mut answer.head.headers, &self.config, index, asked);
        reply.begin(&answer.head, answer.length);
        if answer.length == AnswerLength::Absent {
            return Ok(());
        }
        match relay(&mut answer, reply) {
            Relayed::Complete => Ok(()),
            Relayed::ClientBroke(_) => Err(Stop::ClientGone),
            Relayed::UpstreamBroke(_) if answer.client_is_gone() => Err(Stop::ClientGone),
            Relayed::UpstreamBroke(error) => {
                let cut = Cut::of(&error);
                provider.counts.failed();
                self.metrics.upstream_error(&provider.config.name, cut.as_kind());
                Err(Stop::UpstreamCut(cut))
            }
        }
    }

    /// Reads the body up to `replay_body_bytes`, so that it can be sent again; more is streamed.
    fn take_body(&self, request: &mut Request<'_>, by_model: bool) -> Result<TakenBody, Stop> {
        let held_max = self.config.settings.limits.replay_body_bytes;
        let taken = TakenBody::take(request.head.body, request.body, held_max, by_model);
        taken.map_err(Stop::of_body)
    }

    /// The error shape for a request: that of its provider, also where it is refused before the
    /// provider is asked, or of the API that it belongs to.
    fn kind(&self, head: &RequestHead, provider: Option<usize>) -> ProviderKind {
        let providers = &self.config.providers;
        let of = |index: usize| Some(providers[index].kind);
        let kind = match (provider, route(&head.target, providers)) {
            (Some(index), _) | (None, Ok(Route::Provider(index, _))) => of(index),
            (None, Ok(Route::Any)) => {
                api_of(head.path(), &head.headers).or_else(|| of(route::only_enabled(providers)?))
            }
            (None, Ok(Route::Page(_))) => None,
            (None, Err(_)) => route::kind_of_unknown(head, providers),
        };
        kind.unwrap_or(ProviderKind::Generic)
    }

    fn refuse_with(
        &self,
        refusal: &Refusal,
        kind: ProviderKind,
        reply: &mut Reply<'_>,
    ) -> io::Result<()> {
        if matches!(refusal.code, Code::BadRequest | Code::ClientTimeout | Code::BodyTooLarge) {
            // Where the next request would start is not known, or too far away.
            reply.close_after();
        }
        let (mut head, body) = refusal.render(kind);
        head.headers.push("date", self.date());
        reply.begin(&head, AnswerLength::Sized(body.len() as u64));
        reply.piece(&body)?;
        reply.flush()
    }

    pub(super) fn send_page(
        &self,
        page: &Page,
        head: &RequestHead,
        reply: &mut Reply<'_>,
    ) -> Result<(), Stop> {
        let mut sent = page.head.clone();
        sent.headers.push("date", self.date());
        self.send_whole(&sent, &page.body, head, reply)
    }

    /// Sends an answer that is there as a whole.
    #[expect(clippy::unused_self, reason = "it is a step of the exchange like the others")]
    pub(super) fn send_whole(
        &self,
        answer: &ResponseHead,
        body: &[u8],
        head: &RequestHead,
        reply: &mut Reply<'_>,
    ) -> Result<(), Stop> {
        let mut sent = answer.clone();
        let length = if head.method == "HEAD" {
            sent.headers.remove("content-length");
            sent.headers.push("content-length", body.len().to_string());
            AnswerLength::Absent
        } else {
            AnswerLength::Sized(body.len() as u64)
        };
        reply.begin(&sent, length);
        reply.piece(body).map_err(|_| Stop::ClientGone)
    }

    /// For the field of that name.
    pub(super) fn date(&self) -> String {
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
            path: self.access.shown_path(head),
            provider: record.provider.map(|index| self.config.providers[index].name.as_str()),
            status: record.status,
            received_bytes: record.received_bytes,
            sent_bytes,
            first_byte: record.first_byte,
            total: stopwatch.elapsed(),
            attempts: record.attempts,
            cut,
        };
        let observed = Observed {
            provider: summary.provider,
            status: summary.status,
            first_byte: summary.first_byte,
            total: summary.total,
        };
        let of_provider = record.provider.map(|index| &self.providers[index].metrics);
        self.metrics.observe(&observed, of_provider);
        // Supervisors ask for pages every few seconds; who is refused one is of interest.
        summary.log(if record.is_page { Level::Debug } else { Level::Info });
    }
}

/// Reads a failing answer to its end and closes its exchange; None where it is too long or breaks.
fn keep(answered: Answered<'_>) -> Option<Kept> {
    let mut answer = answered.answer;
    let mut head = answer.head.clone();
    headers::to_client(&mut head.headers);
    let (bytes, is_whole) = answer.read_ahead(KEPT_MAX_BYTES, KEPT_READ_MAX);
    is_whole.then(|| (head, bytes.to_vec()))
}
