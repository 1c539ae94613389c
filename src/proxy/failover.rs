//! The candidates of a request, and failover: if one fails, the next one tries.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::clock::Stopwatch;
use crate::config::SelectionStrategy;
use crate::http::message::{AnswerLength, RequestHead, ResponseHead};
use crate::http::refusal::{Code, Refusal};
use crate::ingress::Request;
use crate::proxy::api::api_of;
use crate::proxy::attempt::{Answered, Outgoing, attempt};
use crate::proxy::body::{TakenBody, Wanted};
use crate::proxy::choice::{Candidate, Queue, Sharing};
use crate::proxy::conversation::conversation;
use crate::proxy::cut::Cut;
use crate::proxy::outcome::{RequestRecord, Stop};
use crate::proxy::page::send_whole;
use crate::proxy::provider::Provider;
use crate::proxy::relay::{Relayed, relay};
use crate::proxy::reply::Reply;
use crate::proxy::rights::Rights;
use crate::proxy::route::{self, candidates};
use crate::proxy::state::Proxy;
use crate::proxy::{choice, coded, headers, location, meter, verdict};
use crate::usage::observer::Observer;

/// The largest failing answer that is kept while other providers are tried.
const KEPT_MAX_BYTES: usize = 256 * 1024;
/// The longest time to read it.
const KEPT_READ_MAX: Duration = Duration::from_secs(5);

/// A failing answer, whole, in case no other provider has a better one.
struct FailedAnswer<'p> {
    provider: &'p Provider,
    head: ResponseHead,
    body: Vec<u8>,
}

/// The providers for a request, in the order in which they are tried.
pub(super) type Candidates<'p> = Queue<'p, Arc<Provider>>;

/// The body, and the candidates of the request in the order in which they are tried.
// Not inlined: keeps worker stacks small.
#[inline(never)]
pub(super) fn choose<'p>(
    proxy: &'p Proxy,
    request: &mut Request<'_>,
    rights: Rights<'p>,
) -> Result<(TakenBody, Candidates<'p>), Stop> {
    let head = request.head;
    let api = || api_of(head.path(), &head.headers);
    let serving = |model: Option<&str>| {
        let found = candidates(proxy.table_for(rights), api, model);
        found.map_err(|refusal| route::with_hint(refusal, head))
    };
    let by_model = !proxy.model_routes.is_empty();
    let by_api = if by_model { Vec::new() } else { serving(None)? };
    if let [only] = by_api.as_slice() {
        // A request that can't be sent is refused before its body is read.
        only.provider.wait_for_credential(&proxy.clock)?;
    }
    let is_sticky = proxy.settings.selection_strategy == SelectionStrategy::Sticky;
    let is_told = !is_sticky || !by_model && !choice::has_equals(&by_api);
    let conversation = (!is_told).then_some(&head.headers);
    let body = take_body(proxy, request, Wanted { model: by_model, conversation })?;
    let limits = &proxy.settings.limits;
    let (body, candidates) =
        if by_model { coded::by_model(limits, request, body, serving)? } else { (body, by_api) };
    let sharing = if candidates.len() > 1 {
        sharing(proxy, head, &body, &candidates)
    } else {
        Sharing::InOrder
    };
    Ok((body, Queue::new(candidates, sharing)))
}

/// The way in which equal candidates of a request share.
// Not inlined: keeps worker stacks small.
#[inline(never)]
fn sharing<P>(
    proxy: &Proxy,
    head: &RequestHead,
    body: &TakenBody,
    candidates: &[Candidate<'_, P>],
) -> Sharing {
    let turn = || proxy.turns.fetch_add(1, Ordering::Relaxed);
    match proxy.settings.selection_strategy {
        SelectionStrategy::Priority => Sharing::InOrder,
        SelectionStrategy::RoundRobin => Sharing::InTurn(turn()),
        SelectionStrategy::Random => Sharing::AtRandom(turn()),
        SelectionStrategy::Sticky if !choice::has_equals(candidates) => Sharing::InOrder,
        SelectionStrategy::Sticky => {
            let start = coded::readable(&proxy.settings.limits, head, body);
            let own = conversation(&head.headers, start.as_deref());
            own.map_or(Sharing::InOrder, Sharing::ByConversation)
        }
    }
}

/// Reads the body up to `replay_body_bytes`, so that it can be sent again; a larger one is streamed.
pub(super) fn take_body(
    proxy: &Proxy,
    request: &mut Request<'_>,
    wanted: Wanted<'_>,
) -> Result<TakenBody, Stop> {
    let held_max = proxy.settings.limits.replay_body_bytes;
    let taken = TakenBody::take(request.head.body, request.body, held_max, wanted);
    taken.map_err(Stop::of_body)
}

/// Tries the candidates in turn until one answers well; otherwise the last answer is passed on unchanged. The body is
/// freed before that, because a stream may take long.
#[expect(clippy::too_many_arguments, reason = "they are what an exchange is made of")]
pub(super) fn forward<'p>(
    proxy: &'p Proxy,
    request: &mut Request<'_>,
    target: &str,
    body: TakenBody,
    mut candidates: Candidates<'p>,
    reply: &mut Reply<'_>,
    record: &mut RequestRecord<'p>,
    stopwatch: Stopwatch,
) -> Result<(), Stop> {
    let model = if candidates.renames() { body.model() } else { None };
    let mut kept: Option<FailedAnswer<'p>> = None;
    let mut refused: Option<(&'p Provider, Refusal)> = None;
    while let Some(candidate) = candidates.next(|one| one.standing(proxy.clock.now())) {
        let left = candidates.len();
        let provider = &**candidate.provider;
        record.provider = Some(provider);
        let renamed = match (candidate.model, &model) {
            (Some(name), Some(field)) => body.renamed(field, name),
            _ => None,
        };
        let sent = renamed.as_ref().unwrap_or(&body);
        let outgoing = Outgoing { provider, target, body: sent, response_max: None };
        match attempt(proxy, request, &outgoing, record) {
            Ok(answered)
                if left > 0
                    && body.is_held()
                    && verdict::is_failing(answered.answer.head.status) =>
            {
                kept = keep(answered).or(kept);
            }
            Ok(answered) => {
                meter::note_asked_model(proxy, &answered.answer.head, sent, record);
                drop((renamed, body));
                return pass_on(proxy, request.head, answered, reply, record, stopwatch);
            }
            Err(Stop::Refused(refusal)) if verdict::may_move_on(refusal.code, body.is_held()) => {
                let before = refused.as_ref().map(|(_, before)| before.code);
                if verdict::is_preferred(refusal.code, before) {
                    refused = Some((provider, refusal));
                }
            }
            Err(stop) => return Err(stop),
        }
    }
    match (kept, refused) {
        (Some(FailedAnswer { provider, mut head, body }), _) => {
            record.answered_by(provider, head.status);
            location::map_back(&mut head.headers, proxy.table(), &provider.config, request.head);
            meter::count(proxy, request.head, provider, &mut Observer::Off, true, record);
            send_whole(head, &body, &request.head.method, reply)
        }
        (None, Some((provider, refusal))) => {
            record.provider = Some(provider);
            Err(refusal.into())
        }
        (None, None) => {
            Err(Refusal::new(Code::UpstreamBroken, "No provider gave an answer").into())
        }
    }
}

/// Reads a failing answer to its end and closes its exchange; None if it is too long or breaks off.
fn keep(answered: Answered<'_>) -> Option<FailedAnswer<'_>> {
    let Answered { provider, mut answer, .. } = answered;
    let mut head = answer.head.clone();
    headers::to_client(&mut head.headers);
    let (bytes, is_whole) = answer.read_ahead(KEPT_MAX_BYTES, KEPT_READ_MAX);
    is_whole.then(|| FailedAnswer { provider, head, body: bytes.to_vec() })
}

/// Passes an answer on as it comes.
// Not inlined: its caller's own values would lie on the stack for the life of a stream.
#[inline(never)]
fn pass_on(
    proxy: &Proxy,
    asked: &RequestHead,
    answered: Answered<'_>,
    reply: &mut Reply<'_>,
    record: &mut RequestRecord<'_>,
    stopwatch: Stopwatch,
) -> Result<(), Stop> {
    let Answered { provider, mut answer, in_flight: _in_flight } = answered;
    record.first_byte = Some(stopwatch.elapsed());
    record.status = Some(answer.head.status);
    headers::to_client(&mut answer.head.headers);
    location::map_back(&mut answer.head.headers, proxy.table(), &provider.config, asked);
    reply.begin(&answer.head, answer.length);
    if answer.length == AnswerLength::Absent {
        return Ok(());
    }
    let mut observer = meter::observer(proxy, asked, &answer.head);
    let relayed = relay(&mut answer, reply, &mut observer);
    let is_whole = matches!(relayed, Relayed::Complete);
    meter::count(proxy, asked, provider, &mut observer, is_whole, record);
    match relayed {
        Relayed::Complete => Ok(()),
        Relayed::ClientBroke => Err(Stop::ClientGone),
        Relayed::UpstreamBroke(_) if answer.client_is_gone() => Err(Stop::ClientGone),
        Relayed::UpstreamBroke(error) => {
            let cut = Cut::of(&error);
            provider.counts.failed();
            proxy.metrics.upstream_error(&provider.config.name, cut.as_kind());
            Err(Stop::UpstreamCut(cut))
        }
    }
}
