//! One provider's turn at a request: its credential, its connection, and a second try if its token is rejected and
//! there is a newer one.

use std::io::Read;
use std::time::Duration;

use log::{debug, info, warn};

use crate::credential;
use crate::http::message::Headers;
use crate::ingress::Request;
use crate::proxy::allowance::UsedUp;
use crate::proxy::body::TakenBody;
use crate::proxy::cooldown::SentMark;
use crate::proxy::outcome::{RequestRecord, Stop};
use crate::proxy::provider::{InFlight, Provider};
use crate::proxy::state::Proxy;
use crate::proxy::{cooldown, headers, rejection, target, verdict};
use crate::upstream::{Answer, OutBody, OutRequest, UpstreamError};

/// The longest wait for the start of a 403, which tells whether it is about the token.
const REFUSAL_READ_MAX: Duration = Duration::from_secs(5);

/// A request to one provider.
pub(super) struct Outgoing<'p, 'a> {
    /// The provider.
    pub(super) provider: &'p Provider,
    /// Path and query.
    pub(super) target: &'a str,
    /// The body.
    pub(super) body: &'a TakenBody,
    /// The longest wait for the head of the answer, if shorter than usual.
    pub(super) response_max: Option<Duration>,
}

/// A provider's answer. The request counts as in flight until this is dropped.
pub(super) struct Answered<'p> {
    /// The provider.
    pub(super) provider: &'p Provider,
    /// Its answer.
    pub(super) answer: Answer<'p>,
    /// Keeps the request counted among the provider's requests.
    pub(super) in_flight: InFlight<'p>,
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
    let in_flight = provider.enter()?;
    let sent = provider.cooldown.mark();
    let outcome = send(proxy, request, outgoing, record);
    judge(proxy, provider, &outcome, sent);
    outcome.map(|answer| Answered { provider, answer, in_flight })
}

// Not inlined: keeps worker stacks small.
#[inline(never)]
fn judge(proxy: &Proxy, provider: &Provider, outcome: &Result<Answer<'_>, Stop>, sent: SentMark) {
    let otherwise = proxy.settings.failure_cooldown;
    let name = &provider.config.name;
    let (length, why) = match outcome {
        Ok(answer) if verdict::is_failing(answer.head.status) => {
            proxy.metrics.upstream_error(name, "status");
            let now = proxy.clock.wall();
            let length = cooldown::length(&answer.head.headers, now, otherwise);
            (length, format!("it answered {}", answer.head.status))
        }
        Err(Stop::Refused(refusal)) if verdict::cools_down(refusal.code) => {
            proxy.metrics.upstream_error(name, refusal.code.as_str());
            (otherwise, format!("{} ({})", refusal.message, refusal.code.as_str()))
        }
        Ok(_) => return provider.cooldown.succeeded(sent),
        Err(_) => return,
    };
    if outcome.as_ref().map_or(true, |answer| answer.head.status >= 500) {
        provider.counts.failed();
    }
    // A provider's answer counts for every host; a failed connection may be this host's own trouble.
    if let (Some(cooldown_sender), Ok(_)) = (&provider.cooldown_sender, outcome) {
        cooldown_sender.tell(length);
    }
    let now = proxy.clock.now();
    if let (Ok(_), Some(origin)) = (outcome, provider.source.origin(now)) {
        provider.allowance.cools_down(origin, now);
    }
    if provider.cooldown.begin(now, length) {
        warn!(
            provider = name;
            "Provider {name} is passed over for {} s: {why}", length.as_secs_f64().ceil()
        );
    }
}

/// Notes what an answer states about the quota of the account of `origin`.
fn note_quota(proxy: &Proxy, provider: &Provider, headers: &Headers, origin: u64) {
    let Some(used_up) = provider.allowance.note(headers, origin, &proxy.clock) else { return };
    let (name, UsedUp { windows, seconds }) = (&provider.config.name, used_up);
    info!(
        provider = name;
        "Provider {name} says that it has nothing left ({windows}): it is passed over for {seconds} s where another \
         one can serve"
    );
}

/// Sends the request, and again if its token is rejected and there is a newer one.
pub(super) fn send<'p>(
    proxy: &Proxy,
    request: &mut Request<'_>,
    outgoing: &Outgoing<'p, '_>,
    record: &mut RequestRecord<'_>,
) -> Result<Answer<'p>, Stop> {
    let Provider { source, config, counts, .. } = outgoing.provider;
    let mut is_first = true;
    loop {
        let credential = source.wait(&config.name, &proxy.clock)?;
        if is_first {
            counts.begun();
        }
        let mut answer = send_once(proxy, request, outgoing, &credential, &mut record.attempts)?;
        note_quota(proxy, outgoing.provider, &answer.head.headers, credential.origin());
        let Some(generation) = credential.generation() else { return Ok(answer) };
        if !refuses_token(&mut answer) {
            return Ok(answer);
        }
        let may_repeat = is_first && outgoing.body.is_held();
        if !source.has_newer(generation, may_repeat, &proxy.clock) {
            return Ok(answer);
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
) -> Result<Answer<'p>, Stop> {
    let Provider { config: provider, upstream, claims, .. } = outgoing.provider;
    let inbound_keys = proxy.access.secrets();
    let claims = claims.of(provider, credential.secret());
    let mut headers = headers::to_upstream(
        &request.head.headers,
        provider,
        credential.secret(),
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
    sent.map_err(|error| {
        debug!("No answer from {}: {error:?}", provider.name);
        if let UpstreamError::Short(shortage) = &error {
            shortage.say("requests get 503");
        }
        verdict::refusal_for(&error, &provider.name).map_or(Stop::ClientGone, Stop::Refused)
    })
}

/// True if an answer says that the token is rejected.
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
