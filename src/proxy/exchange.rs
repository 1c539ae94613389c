//! One request from start to end: the only file that sees both sides.

use std::io::Write;

use log::{Level, debug};

use crate::clock::Stopwatch;
use crate::config::ProviderKind;
use crate::http::message::RequestHead;
use crate::http::refusal::{Code, Refusal};
use crate::http::websocket;
use crate::ingress::{After, Request, Service};
use crate::proxy::api::api_of;
use crate::proxy::body::Wanted;
use crate::proxy::choice::{Candidate, Queue};
use crate::proxy::cut::Cut;
use crate::proxy::ended::{self, Concerned};
use crate::proxy::failover::{choose, forward};
use crate::proxy::incoming::{CountingReader, Progress};
use crate::proxy::model_rights::take_checked;
use crate::proxy::outcome::{RequestRecord, Stop};
use crate::proxy::page::send_whole;
use crate::proxy::provider::Provider;
use crate::proxy::reply::Reply;
use crate::proxy::rights::Rights;
use crate::proxy::route::{self, Route, route};
use crate::proxy::state::Proxy;
use crate::proxy::summary::Summary;
use crate::proxy::websocket::open_websocket;
use crate::proxy::{browsers, cors, models, pages};

impl Service for Proxy {
    fn serve(&self, request: Request<'_>, out: &mut dyn Write) -> After {
        let stopwatch = Stopwatch::start();
        let head = request.head;
        let mut record = RequestRecord::default();
        let progress = Progress::default();
        record.begun = Some(stopwatch);
        let mut reply = Reply::new(out, Some(head), request.may_keep_alive);
        reply.share_with(cors::allowed(head, &self.access.origins));
        reply.mind(head, &progress);
        if request.switch.is_some() {
            // The bytes behind the handshake of a WebSocket are no request, even if the handshake is refused.
            reply.close_after();
        }
        let mut body = CountingReader { body: request.body, progress: &progress };
        let mut request = Request { body: &mut body, ..request };
        let outcome = answer(self, &mut request, &mut reply, &mut record, stopwatch);
        record.received_bytes += progress.bytes();
        let cut = match outcome {
            Ok(()) => None,
            Err(Stop::Refused(refusal)) if !reply.has_begun() => {
                let kind = kind(self, head, record.provider);
                record.refused(&refusal);
                let sent = refuse_with(&refusal, kind, self.date(), &head.method, &mut reply);
                sent.err().map(|_| "the client went away")
            }
            Err(Stop::ClientGone) => {
                record.client_went();
                Some("the client went away")
            }
            Err(Stop::Refused(_)) => Some(Cut::BrokeOff.in_words()),
            Err(Stop::UpstreamCut(cut)) => Some(cut.in_words()),
            // It reports its own end.
            Err(Stop::IsTunnel) => return After::Close,
        };
        let sent_bytes = reply.sent_bytes();
        let after = if cut.is_some() { After::Abort } else { reply.finish() };
        report(self, head, &record, sent_bytes, cut, stopwatch);
        after
    }

    fn refuse(&self, refusal: &Refusal, head: Option<&RequestHead>, out: &mut dyn Write) {
        let kind = head.map_or(ProviderKind::Generic, |head| kind(self, head, None));
        let mut reply = Reply::new(out, head, false);
        reply.share_with(head.and_then(|head| cors::allowed(head, &self.access.origins)));
        // A client that sends an unreadable request may be gone; nobody else needs to be told.
        let method = head.map_or("", |head| &head.method);
        let _ = refuse_with(refusal, kind, self.date(), method, &mut reply);
        debug!("Refused a request: {} ({})", refusal.message, refusal.code.as_str());
    }
}

fn answer<'p>(
    proxy: &'p Proxy,
    request: &mut Request<'_>,
    reply: &mut Reply<'_>,
    record: &mut RequestRecord<'p>,
    stopwatch: Stopwatch,
) -> Result<(), Stop> {
    let head = request.head;
    if let Some(preflight) = cors::preflight(head, &proxy.access.origins) {
        return browsers::answer_preflight(&proxy.access, &preflight, request, reply, record);
    }
    let routed = route(&head.target, &proxy.providers);
    let page = match &routed {
        Ok(Route::Page(page)) => Some(page.as_str()),
        Ok(Route::Any) if route::is_opened_in_browser(head) => {
            return browsers::redirect_to_page(proxy, request, reply, record);
        }
        _ => None,
    };
    let rights = if proxy.access.keys.is_some() && page.is_some_and(pages::is_open) {
        Rights::default()
    } else {
        // A browser's password gets no token.
        let for_page = page.is_some_and(|page| pages::token::slug(page).is_none());
        proxy.access.check(head, for_page, request.is_by_unix)?
    };
    record.key = rights.key();
    match routed? {
        Route::Page(page) => send_page(proxy, &page, rights, request, reply, record),
        Route::Provider(provider, target) => {
            record.provider = Some(provider);
            rights.check(&provider.config)?;
            count(proxy, rights, record)?;
            if websocket::is_asked(&head.headers) {
                let place = Some((provider, target.as_ref()));
                return open_websocket(proxy, request, rights, place, reply, record, stopwatch);
            }
            if rights.are_by_model()
                && let Some(wanted) = models::Wanted::of_one(provider, rights, head, &target)
            {
                return models::answer(proxy, &wanted, request, reply, record);
            }
            // A request that can't be sent is refused before its body is read.
            provider.wait_for_credential(&proxy.clock)?;
            let body = take_checked(proxy, request, rights, &target, Wanted::default())?;
            let only = Queue::of_one(Candidate::alone(provider));
            forward(proxy, request, &target, body, only, reply, record, stopwatch)
        }
        Route::Any => {
            count(proxy, rights, record)?;
            if websocket::is_asked(&head.headers) {
                return open_websocket(proxy, request, rights, None, reply, record, stopwatch);
            }
            if let Some(wanted) = models::Wanted::of(proxy.table_for(rights), head) {
                return models::answer(proxy, &wanted, request, reply, record);
            }
            let (body, candidates) = choose(proxy, request, rights)?;
            let target = &head.target;
            forward(proxy, request, target, body, candidates, reply, record, stopwatch)
        }
    }
}

/// Counts the request against the limits of its key.
fn count<'p>(
    proxy: &Proxy,
    rights: Rights<'p>,
    record: &mut RequestRecord<'p>,
) -> Result<(), Refusal> {
    let Some(key) = rights.key() else { return Ok(()) };
    record.counted = key.count(|| proxy.tokens_today(&key.rights.name), proxy.clock.now())?;
    Ok(())
}

/// Answers with one of evertoken's own pages.
// Not inlined: keeps worker stacks small.
#[inline(never)]
fn send_page(
    proxy: &Proxy,
    page: &str,
    rights: Rights<'_>,
    request: &mut Request<'_>,
    reply: &mut Reply<'_>,
    record: &mut RequestRecord<'_>,
) -> Result<(), Stop> {
    pages::check(proxy, page, rights)?;
    if page == "events" {
        record.status = Some(200);
        return pages::events::stream(proxy, request, reply);
    }
    record.is_page = true;
    let head = request.head;
    let page = match pages::token::slug(page) {
        Some(slug) => pages::token::answer(proxy, request, slug, rights),
        None => pages::answer(proxy, &head.method, page),
    };
    page?.send(proxy, head, reply, record)
}

/// The error shape for a request: that of its provider, even if the request is refused before the provider is asked,
/// or of its API.
fn kind(proxy: &Proxy, head: &RequestHead, provider: Option<&Provider>) -> ProviderKind {
    let of = |one: &Provider| Some(one.config.kind);
    let kind = match (provider, route(&head.target, &proxy.providers)) {
        (Some(provider), _) => of(provider),
        (None, Ok(Route::Provider(provider, _))) => of(provider),
        (None, Ok(Route::Any)) => api_of(head.path(), &head.headers)
            .or_else(|| of(route::only_enabled(&proxy.providers)?)),
        (None, Ok(Route::Page(_))) => None,
        (None, Err(_)) => route::kind_of_unknown(head, &proxy.providers),
    };
    kind.unwrap_or(ProviderKind::Generic)
}

fn refuse_with(
    refusal: &Refusal,
    kind: ProviderKind,
    date: String,
    method: &str,
    reply: &mut Reply<'_>,
) -> Result<(), Stop> {
    if matches!(refusal.code, Code::BadRequest | Code::ClientTimeout | Code::BodyTooLarge) {
        // The start of the next request is unknown, or too far away.
        reply.close_after();
    }
    let (mut head, body) = refusal.render(kind);
    head.headers.push("date", date);
    send_whole(head, &body, method, reply)?;
    reply.flush().map_err(|_| Stop::ClientGone)
}

// Not inlined: keeps worker stacks small.
#[inline(never)]
fn report(
    proxy: &Proxy,
    head: &RequestHead,
    record: &RequestRecord<'_>,
    sent_bytes: u64,
    cut: Option<&str>,
    stopwatch: Stopwatch,
) {
    let summary = Summary {
        method: &head.method,
        path: proxy.access.shown_path(head),
        provider: record.provider.map(|one| one.config.name.as_str()),
        key: record.key.map(|one| one.rights.name.as_str()),
        status: record.status,
        received_bytes: record.received_bytes,
        sent_bytes,
        first_byte: record.first_byte,
        total: stopwatch.elapsed(),
        attempts: record.attempts,
        refused: record.refused.map(Code::as_str),
        cut,
    };
    let concerned = Concerned {
        provider: record.provider.map(|one| &one.metrics),
        key: record.key.map(|one| &one.metrics),
    };
    // Supervisors request pages every few seconds; a refused one is of interest.
    let level = if record.is_page { Level::Debug } else { Level::Info };
    ended::report(&proxy.metrics, concerned, &summary, level);
}
