//! One provider's turn at a request: its credential, its connection, and a second try if its token is rejected and
//! there is a newer one.

use std::io::Read;
use std::time::Duration;

use log::{Level, debug, log, warn};

use crate::config::Credential;
use crate::credential;
use crate::http::refusal::Code;
use crate::http::websocket::KEY_FIELD;
use crate::ingress::Request;
use crate::proxy::allowance::{Stated, UsedUp};
use crate::proxy::body::TakenBody;
use crate::proxy::cooldown::{Ended, Proof, SentMark};
use crate::proxy::examine::{Examiner, Finding, Refusal, StreamLook, examine};
use crate::proxy::outcome::{RequestRecord, Stop};
use crate::proxy::provider::{InFlight, Provider};
use crate::proxy::state::Proxy;
use crate::proxy::told::Begun;
use crate::proxy::{headers, target, verdict};
use crate::upstream::{Answer, OutBody, OutRequest, UpstreamError};

/// The shortest time without anything left of a quota that the log tells.
const SAID_MIN_SECONDS: u64 = 10;

/// A request to one provider.
pub(super) struct Outgoing<'p, 'a> {
    /// The provider.
    pub(super) provider: &'p Provider,
    /// Path and query.
    pub(super) target: &'a str,
    /// The body.
    pub(super) body: &'a TakenBody,
    /// Returns the model that the provider is asked for.
    pub(super) model: &'a dyn Fn() -> Option<String>,
    /// The way of looking at an event stream.
    pub(super) look: StreamLook,
    /// The longest wait for the head of the answer, if shorter than usual.
    pub(super) response_max: Option<Duration>,
}

/// A provider's answer. The request counts as in flight until this is dropped.
pub(super) struct Answered<'p> {
    /// The provider.
    pub(super) provider: &'p Provider,
    /// Its answer.
    pub(super) answer: Box<Answer<'p>>,
    /// Keeps the request counted among the provider's requests.
    pub(super) in_flight: Option<InFlight<'p>>,
    /// It is a refusal that another provider may not have.
    pub(super) is_refusal: bool,
    /// The refusal is about this request alone.
    pub(super) is_of_request: bool,
    /// It is an event stream that was not looked at, of a request that was sent at this time.
    pub(super) unseen: Option<SentMark>,
}

/// An answer, and its meaning.
pub(super) struct Received<'p> {
    /// The answer.
    pub(super) answer: Box<Answer<'p>>,
    /// Its meaning, after a second try with a newer token, if there was one.
    finding: Finding,
}

/// Sends a request to one provider, which cools down if it fails.
// Not inlined: keeps worker stacks small.
#[inline(never)]
pub(super) fn attempt<'p>(
    proxy: &Proxy,
    request: &mut Request<'_>,
    outgoing: &Outgoing<'p, '_>,
    record: &mut RequestRecord<'_>,
) -> Result<Answered<'p>, Stop> {
    let provider = outgoing.provider;
    let is_for_websocket = request.switch.is_some();
    let entered = if is_for_websocket { provider.enter_websocket() } else { provider.enter() };
    let in_flight = Some(entered?);
    let sent = provider.cooldown.mark();
    let outcome = send(proxy, request, outgoing, record);
    match &outcome {
        Err(Stop::Refused(late)) if is_for_websocket && late.code == Code::UpstreamTimeout => {
            rest_from_websockets(proxy, provider, &late.message);
        }
        _ => {
            if is_for_websocket && outcome.is_ok() {
                provider.counts.tunnels.rest_ends();
            }
            judge(proxy, outgoing, &outcome, sent, &request.head.method);
        }
    }
    outcome.map(|Received { answer, finding }| {
        let is_refusal = matches!(finding, Finding::Limited(_));
        let is_of_request =
            matches!(&finding, Finding::Limited(refusal) if refusal.limited.is_of_request);
        let unseen = matches!(finding, Finding::Unseen).then_some(sent);
        Answered { provider, answer, in_flight, is_refusal, is_of_request, unseen }
    })
}

/// A request of `method`, sent at `sent`, was answered with `status`, which is no refusal.
pub(super) fn answered(outgoing: &Outgoing<'_, '_>, sent: SentMark, method: &str, status: u16) {
    let proof = || {
        if verdict::is_served(status) {
            verdict::proof(method, outgoing.target)
        } else {
            Proof::Answer
        }
    };
    let provider = outgoing.provider;
    if let Some(ended) = provider.cooldown.answered(sent, &proof, outgoing.model) {
        ended_early(provider, ended);
    }
}

/// Has the early end of a cooldown saved, and tells it to other hosts.
// Not inlined: it is rare.
#[inline(never)]
fn ended_early(provider: &Provider, ended: Ended) {
    provider.allowance.rest_ended();
    let Some(sender) = &provider.cooldown_sender else { return };
    if let Some(numbers) = ended.provider {
        sender.tell_end(None, numbers);
    }
    if let Some((model, numbers)) = ended.model {
        sender.tell_end(Some(model), numbers);
    }
}

/// The provider gave no answer to the handshake of a WebSocket. This says nothing about other requests: proxies on the way
/// let handshakes hang, and an answer to a handshake has less time.
// Not inlined: it is rare.
#[inline(never)]
fn rest_from_websockets(proxy: &Proxy, provider: &Provider, why: &str) {
    let name = &provider.config.name;
    provider.counts.failed();
    proxy.metrics.upstream_error(name, Code::UpstreamTimeout.as_str());
    let length = proxy.settings.failure_cooldown;
    if provider.counts.tunnels.rest(proxy.clock.now(), length) {
        let seconds = length.as_secs();
        warn!(provider = name; "Provider {name} is passed over for WebSockets for {seconds} s: {why}");
    }
}

fn judge(
    proxy: &Proxy,
    outgoing: &Outgoing<'_, '_>,
    outcome: &Result<Received<'_>, Stop>,
    sent: SentMark,
    method: &str,
) {
    let provider = outgoing.provider;
    match outcome {
        Ok(Received { finding: Finding::Limited(refusal), .. }) => {
            rest(proxy, provider, refusal, verdict::proof(method, outgoing.target));
        }
        // It shows nothing, or not yet.
        Ok(Received { finding: Finding::Unseen | Finding::Open, .. }) => {}
        Ok(Received { answer, .. }) => answered(outgoing, sent, method, answer.head.status),
        Err(Stop::Refused(refusal)) if verdict::cools_down(refusal.code) => {
            provider.counts.failed();
            proxy.metrics.upstream_error(&provider.config.name, refusal.code.as_str());
            let why = format!("{} ({})", refusal.message, refusal.code.as_str());
            let (length, begun) = (proxy.settings.failure_cooldown, Begun::Here);
            cool_down(proxy, provider, (length, begun), Proof::Answer, &why);
        }
        Err(_) => {}
    }
}

/// The provider, or the model that the refusal concerns, is passed over for a while, on all hosts, or until an answer
/// shows what is `needed`.
// Not inlined: keeps worker stacks small.
#[inline(never)]
pub(super) fn rest(proxy: &Proxy, provider: &Provider, refusal: &Refusal, needed: Proof) {
    let name = &provider.config.name;
    let limited = &refusal.limited;
    proxy.metrics.upstream_error(name, "status");
    if refusal.status >= 500 {
        provider.counts.failed();
    }
    if limited.length.is_zero() {
        return;
    }
    // The account is this client's own: others may have something left.
    if refusal.status < 500 && provider.config.credential == Credential::Passthrough {
        return;
    }
    // A provider's answer counts for every host; a failed connection may be this host's own trouble.
    let now = proxy.clock.now();
    let begun = provider.cooldown_sender.as_ref().map_or(Begun::Here, |sender| {
        Begun::Told(sender.tell(limited.length, limited.model.as_deref(), now))
    });
    if let Some(origin) = provider.source.origin(now) {
        provider.allowance.cools_down(origin, now);
    }
    let Some(model) = &limited.model else {
        return cool_down(proxy, provider, (limited.length, begun), needed, &refusal.why());
    };
    if provider.cooldown.models.begin(model, now, limited.length, begun) {
        let (seconds, why) = (limited.length.as_secs(), refusal.why());
        warn!(
            provider = name;
            "Provider {name} is passed over for {seconds} s for the model {model:?}: {why}"
        );
    }
}

/// Notes what an answer states about the quota of its account.
fn note_quota(proxy: &Proxy, provider: &Provider, stated: &Stated<'_>) {
    let Some(used_up) = provider.allowance.note(stated, &proxy.clock) else { return };
    let (name, UsedUp { windows, seconds }) = (&provider.config.name, used_up);
    // A limit of seconds may be used up again and again.
    let level = if seconds >= SAID_MIN_SECONDS { Level::Info } else { Level::Debug };
    log!(
        level,
        provider = name;
        "Provider {name} says that it has nothing left ({windows}): it is passed over for {seconds} s where another \
         one can serve"
    );
}

fn cool_down(
    proxy: &Proxy,
    provider: &Provider,
    (length, begun): (Duration, Begun),
    needed: Proof,
    why: &str,
) {
    let name = &provider.config.name;
    if provider.cooldown.begin(proxy.clock.now(), length, needed, begun) {
        let seconds = length.as_secs_f64().ceil();
        warn!(provider = name; "Provider {name} is passed over for {seconds} s: {why}");
    }
}

/// Sends the request, and again if its token is rejected and there is a newer one.
pub(super) fn send<'p>(
    proxy: &Proxy,
    request: &mut Request<'_>,
    outgoing: &Outgoing<'p, '_>,
    record: &mut RequestRecord<'_>,
) -> Result<Received<'p>, Stop> {
    let Provider { source, config, counts, .. } = outgoing.provider;
    let mut is_first = true;
    loop {
        let credential = source.wait(&config.name, &proxy.clock)?;
        if is_first {
            counts.begun();
        }
        let sent = outgoing.provider.allowance.mark();
        let mut answer = send_once(proxy, request, outgoing, &credential, &mut record.attempts)?;
        let examiner = Examiner {
            clock: &proxy.clock,
            usual: proxy.settings.failure_cooldown,
            model: outgoing.model,
        };
        let (begun, origin) = (record.begun, credential.origin());
        let note = |answer: &Answer<'_>, is_of_one_model| {
            let (headers, model) = (&answer.head.headers, outgoing.model);
            let stated = Stated { headers, origin, begun, is_of_one_model, sent, model };
            note_quota(proxy, outgoing.provider, &stated);
        };
        // The first event of a stream may take long, and others should know the quota by then.
        let is_good = answer.head.status == 200;
        if is_good {
            note(&answer, false);
        }
        let finding = examine(&mut answer, &examiner, outgoing.look);
        if !is_good {
            let is_of_one_model =
                matches!(&finding, Finding::Limited(refusal) if refusal.limited.model.is_some());
            note(&answer, is_of_one_model);
        }
        let (Finding::TokenRejected, Some(generation)) = (&finding, credential.generation()) else {
            return Ok(Received { answer, finding });
        };
        let may_repeat = is_first && outgoing.body.is_held();
        if !source.has_newer(generation, may_repeat, &proxy.clock) {
            return Ok(Received { answer, finding });
        }
        is_first = false;
    }
}

// Not inlined: keeps worker stacks small.
#[inline(never)]
fn send_once<'p>(
    proxy: &Proxy,
    request: &mut Request<'_>,
    outgoing: &Outgoing<'p, '_>,
    credential: &credential::InUse<'_>,
    attempts: &mut u32,
) -> Result<Box<Answer<'p>>, Stop> {
    let Provider { config: provider, upstream, claims, .. } = outgoing.provider;
    let inbound_keys = proxy.access.secrets_in(request.head);
    let claims = claims.of(provider, credential.secret());
    let mut headers = headers::to_upstream(
        &request.head.headers,
        provider,
        credential.secret(),
        claims.as_deref(),
        &inbound_keys,
    );
    if matches!(outgoing.body, TakenBody::Recoded(_)) {
        headers.remove("content-encoding");
    }
    let key = request.switch.as_ref().and_then(|_| request.head.headers.first(KEY_FIELD));
    let target = target::to_upstream(outgoing.target, provider, &inbound_keys);
    let out = OutRequest {
        method: &request.head.method,
        target: &target,
        passed_on: &headers.passed_on,
        headers: &headers.own,
        response_max: match key {
            Some(_) => outgoing.provider.counts.tunnels.handshake_max(proxy.clock.now()),
            None => outgoing.response_max,
        },
        websocket_key: key,
    };
    let client = request.client;
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
    sent.map_err(|error| no_answer(&provider.name, &error))
}

// Not inlined: keeps worker stacks small.
#[inline(never)]
fn no_answer(provider: &str, error: &UpstreamError) -> Stop {
    debug!("No answer from {provider}: {error:?}");
    if let UpstreamError::Short(shortage) = error {
        shortage.say("requests get 503");
    }
    verdict::refusal_for(error, provider).map_or(Stop::ClientGone, Stop::Refused)
}
