//! The candidates of a request, and failover: if one fails, the next one tries.

use std::cell::OnceCell;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::clock::Stopwatch;
use crate::config::SelectionStrategy;
use crate::http::message::{AnswerLength, RequestHead};
use crate::http::refusal::{Code, Refusal};
use crate::ingress::Request;
use crate::proxy::api::api_of;
use crate::proxy::asked_model::asked_model;
use crate::proxy::attempt::{Answered, Outgoing, answered as note_answered, attempt, rest};
use crate::proxy::body::{TakenBody, Wanted};
use crate::proxy::choice::{Candidate, Queue, Sharing};
use crate::proxy::conversation::conversation;
use crate::proxy::cut::Cut;
use crate::proxy::examine::{self, Examiner, Finding, StreamLook};
use crate::proxy::model_rights::take_checked;
use crate::proxy::outcome::{RequestRecord, Stop};
use crate::proxy::provider::Provider;
use crate::proxy::relay::{Relayed, relay, relay_until};
use crate::proxy::reply::Reply;
use crate::proxy::rights::Rights;
use crate::proxy::route::{self, candidates};
use crate::proxy::state::Proxy;
use crate::proxy::{choice, coded, headers, location, meter, tunnel, verdict};
use crate::upstream::Peeked;
use crate::usage::observer::Observer;

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
    if let Some(only) = route::only_candidate(proxy.table_for(rights)) {
        // A request that can't be sent is refused before its body is read.
        only.provider.wait_for_credential(&proxy.clock)?;
        let body = take_checked(proxy, request, rights, &head.target, Wanted::default())?;
        return Ok((body, Queue::of_one(only)));
    }
    let api = || api_of(head.path(), &head.headers);
    let serving = |model: Option<&str>| {
        let found = candidates(proxy.table_for(rights), api, model);
        found.map_err(|refusal| route::with_hint(refusal, head))
    };
    let by_model = !proxy.model_routes.is_empty();
    let by_api = if by_model { Vec::new() } else { serving(None)? };
    if let [only] = by_api.as_slice() {
        only.provider.wait_for_credential(&proxy.clock)?;
    }
    let is_sticky = proxy.settings.selection_strategy == SelectionStrategy::Sticky;
    let is_told = !is_sticky || !by_model && !choice::has_equals(&by_api);
    let conversation = (!is_told).then_some(&head.headers);
    let wanted = Wanted { model: by_model, conversation };
    let body = take_checked(proxy, request, rights, &head.target, wanted)?;
    let limits = &proxy.settings.limits;
    let (body, candidates) =
        if by_model { coded::by_model(limits, request, body, serving)? } else { (body, by_api) };
    let sharing = sharing(proxy, head, &body, &candidates);
    Ok((body, Queue::new(candidates, sharing)))
}

/// The way in which equal candidates of a request share.
// Not inlined: keeps worker stacks small.
#[inline(never)]
pub(super) fn sharing<P>(
    proxy: &Proxy,
    head: &RequestHead,
    body: &TakenBody,
    candidates: &[Candidate<'_, P>],
) -> Sharing {
    if candidates.len() < 2 {
        return Sharing::InOrder;
    }
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
    let is_one_of_several = candidates.len() > 1;
    let is_for_websocket = request.switch.is_some();
    let mut kept: Option<Answered<'p>> = None;
    // A request that no provider may serve is tried at one more.
    let mut is_refused_itself = false;
    let mut refused: Option<(&'p Provider, Refusal)> = None;
    // The body is searched for its model at most once, and only if that matters.
    let asked = OnceCell::new();
    let model_of = |one: &Candidate<'_, Arc<Provider>>| {
        let own = one.model.map(str::to_owned);
        own.or_else(|| asked.get_or_init(|| asked_model(target, &body)).clone())
    };
    let standing = |one: &Candidate<'_, Arc<Provider>>| {
        let (now, model) = (proxy.clock.now(), || model_of(one));
        if is_for_websocket {
            one.provider.standing_for_websocket(now, &model)
        } else {
            one.provider.standing(now, &model)
        }
    };
    while let Some(candidate) = candidates.next(standing) {
        let may_move_on = candidates.len() > 0 && body.is_held();
        let provider = &**candidate.provider;
        record.provider = Some(provider);
        let renamed = match (candidate.model, &model) {
            (Some(name), Some(field)) => body.renamed(field, name),
            _ => None,
        };
        let sent = renamed.as_ref().unwrap_or(&body);
        let outgoing = Outgoing {
            provider,
            target,
            body: sent,
            model: &|| model_of(&candidate),
            look: match (is_one_of_several, may_move_on && request.head.method != "GET") {
                (_, true) => StreamLook::Before,
                (true, false) => StreamLook::InPassing,
                // Its head alone ends no cooldown, of which other routes may know.
                (false, false) if provider.cooldown.is_set() => StreamLook::InPassing,
                (false, false) => StreamLook::Never,
            },
            response_max: None,
        };
        match attempt(proxy, request, &outgoing, record) {
            // It is kept in case no other provider has a better one.
            Ok(answered)
                if may_move_on
                    && answered.is_refusal
                    && !(answered.is_of_request && is_refused_itself) =>
            {
                is_refused_itself |= answered.is_of_request;
                kept = Some(Answered { in_flight: None, ..answered });
            }
            Ok(answered) if answered.answer.head.status == 101 => {
                drop((renamed, body, kept.take()));
                let provider = candidate.provider;
                return tunnel::open(
                    proxy,
                    request,
                    (provider, answered),
                    reply,
                    record,
                    stopwatch,
                );
            }
            Ok(mut answered) => {
                // This one may take long, and the refused one may still have its connection.
                drop(kept.take());
                begin(proxy, request.head, &mut answered, reply, record, stopwatch);
                let head = &answered.answer.head;
                let observer = meter::observer(proxy, request.head, head, sent, record);
                let mut passing = Passing::of(observer);
                let (method, observer) = (&request.head.method, &mut passing.observer);
                passing.end =
                    look_in_passing(proxy, &outgoing, &mut answered, (reply, observer), method);
                passing.asked = meter::kept(&passing.observer, renamed.unwrap_or(body));
                return pass_on(proxy, request.head, answered, passing, reply, record);
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
        (Some(mut answered), _) => {
            record.provider = Some(answered.provider);
            let head = &answered.answer.head;
            let observer = meter::observer(proxy, request.head, head, &body, record);
            drop(body);
            begin(proxy, request.head, &mut answered, reply, record, stopwatch);
            pass_on(proxy, request.head, answered, Passing::of(observer), reply, record)
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

/// Begins the reply with the head of an answer.
fn begin(
    proxy: &Proxy,
    asked: &RequestHead,
    answered: &mut Answered<'_>,
    reply: &mut Reply<'_>,
    record: &mut RequestRecord<'_>,
    stopwatch: Stopwatch,
) {
    let Answered { provider, answer, .. } = answered;
    record.first_byte = Some(stopwatch.elapsed());
    record.status = Some(answer.head.status);
    headers::to_client(&mut answer.head.headers);
    location::map_back(&mut answer.head.headers, proxy.table(), &provider.config, asked);
    reply.begin(&answer.head, answer.length);
}

/// Passes an unseen event stream, which can't move on, up to its first event, and looks at that, so that a provider that begins with
/// an error is passed over from then on, and one that begins well no longer. Nothing waits for it. Returns the end of the
/// stream if it came.
// Not inlined: keeps worker stacks small.
#[inline(never)]
fn look_in_passing(
    proxy: &Proxy,
    outgoing: &Outgoing<'_, '_>,
    answered: &mut Answered<'_>,
    (reply, observer): (&mut Reply<'_>, &mut Observer),
    method: &str,
) -> Option<Relayed> {
    let sent = answered.unseen?;
    let answer = &mut *answered.answer;
    if answer.length == AnswerLength::Absent {
        return None;
    }
    let (headers, status) = (answer.head.headers.clone(), answer.head.status);
    let examiner = Examiner {
        clock: &proxy.clock,
        usual: proxy.settings.failure_cooldown,
        model: outgoing.model,
    };
    let mut start = Vec::new();
    relay_until(answer, reply, observer, |piece, is_whole| {
        start.extend_from_slice(piece);
        let found =
            examine::of_first_pieces(&headers, Peeked { bytes: &start, is_whole }, &examiner);
        match &found {
            Some(Finding::Limited(refusal)) => {
                rest(proxy, outgoing.provider, refusal, verdict::proof(method, outgoing.target));
            }
            Some(Finding::Good) => note_answered(outgoing, sent, method, status),
            _ => {}
        }
        found.is_some()
    })
}

/// The companions of an answer on its way to the client.
struct Passing {
    /// Counts its tokens.
    observer: Observer,
    /// The kept part of the request's body.
    asked: Option<TakenBody>,
    /// The end of the answer, if it was passed on already.
    end: Option<Relayed>,
}

impl Passing {
    fn of(observer: Observer) -> Self {
        Self { observer, asked: None, end: None }
    }
}

/// Passes an answer on as it comes.
// Not inlined: its caller's own values would lie on the stack for the life of a stream.
#[inline(never)]
fn pass_on(
    proxy: &Proxy,
    asked: &RequestHead,
    answered: Answered<'_>,
    passing: Passing,
    reply: &mut Reply<'_>,
    record: &RequestRecord<'_>,
) -> Result<(), Stop> {
    let Answered { provider, mut answer, in_flight: _in_flight, .. } = answered;
    if answer.length == AnswerLength::Absent {
        return Ok(());
    }
    let Passing { mut observer, asked: asked_body, end } = passing;
    let relayed = end.unwrap_or_else(|| relay(&mut *answer, reply, &mut observer));
    let is_whole = matches!(relayed, Relayed::Complete);
    let end = observer.finish(is_whole);
    meter::count(proxy, (asked, asked_body.as_ref()), provider, end, is_whole, record);
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
