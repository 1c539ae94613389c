//! `GET /v1/models` for several providers of one API: their merged lists, and the names that routes serve.
//!
//! A few providers are asked at a time, so that one that hangs delays the list once, and not again for each further
//! one. A provider that fails is left out, and named in a header field; if all fail, the last answer is passed on. A
//! failure here causes no cooldown, because it says nothing about other requests.

use std::io;
use std::net::TcpStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Deadline;
use crate::config::{self, ProviderKind, slug};
use crate::http::message::{BodyLength, Headers, RequestHead, ResponseHead, path_of};
use crate::http::refusal::{Code, Refusal};
use crate::ingress::Request;
use crate::proxy::api::{api_of, is_models_list};
use crate::proxy::attempt::{Outgoing, send};
use crate::proxy::body::TakenBody;
use crate::proxy::examine::StreamLook;
use crate::proxy::outcome::{RequestRecord, Stop};
use crate::proxy::page::{Page, send_whole};
use crate::proxy::provider::Provider;
use crate::proxy::reply::Reply;
use crate::proxy::rights::Rights;
use crate::proxy::route::{self, Table};
use crate::proxy::state::Proxy;
use crate::proxy::{headers, verdict};
use crate::thread;
use log::info;

mod list;

use list::{LIST_MAX_BYTES, Model, NoList, Paging};

/// The longest time for the head of a provider's answer, and for its body.
const HEAD_MAX: Duration = Duration::from_secs(5);
const BODY_MAX: Duration = Duration::from_secs(5);
/// The time after which no other provider is asked.
const ALL_MAX: Duration = Duration::from_secs(20);
/// The most pages of one provider's list.
const PAGES_MAX: usize = 50;
/// The most providers that are asked at once: each may send a list of [`LIST_MAX_BYTES`].
const ASKED_AT_ONCE_MAX: usize = 4;
/// The stack of a thread that asks a provider.
const ASK_STACK_BYTES: usize = 256 * 1024;
/// The stack for reading a list, which may be nested as deep as a provider likes.
const READ_STACK_BYTES: usize = 1024 * 1024;
/// Names the providers that are left out, by their slugs as in paths.
const LEFT_OUT: &str = "x-evertoken-left-out";
/// Fields that would make the provider send only a part of its list, or a form that can't be read here.
const NOT_PASSED_ON: [&str; 7] = [
    "accept-encoding", "range", "if-range", "if-match", "if-none-match", "if-modified-since",
    "if-unmodified-since",
];

/// A client's request for the list of several providers.
#[derive(Debug)]
pub(super) struct Wanted<'p, P> {
    kind: ProviderKind,
    /// The enabled providers of the type that the request may use.
    providers: Vec<&'p P>,
    /// The names of models that routes serve.
    names: Vec<String>,
    rights: Rights<'p>,
}

impl<'p, P: AsRef<config::ProviderConfig>> Wanted<'p, P> {
    /// The request's list, if it must be merged; None if one provider has all of it.
    pub(super) fn of(table: Table<'p, P>, head: &RequestHead) -> Option<Self> {
        if !matches!(&*head.method, "GET" | "HEAD") || !is_models_list(head.path()) {
            return None;
        }
        Self::of_list(table, head)
    }

    /// Like [`Self::of`], for a request that asks for a list.
    // Not inlined: keeps worker stacks small.
    #[inline(never)]
    fn of_list(table: Table<'p, P>, head: &RequestHead) -> Option<Self> {
        let kind = api_of(head.path(), &head.headers)?;
        let rights = table.rights;
        let of_kind = |kind: ProviderKind| {
            let is_meant = |one: &&P| {
                let provider = one.as_ref();
                provider.enabled && provider.kind == kind && rights.allow(provider)
            };
            table.providers.iter().filter(is_meant).collect::<Vec<_>>()
        };
        let mut providers = of_kind(kind);
        let names = route::names(table, kind);
        let is_put_together = providers.len() > 1 || (providers.len() == 1 && !names.is_empty());
        if rights.are_by_model() && providers.is_empty() {
            // These would get the request otherwise.
            let only = route::only_enabled(table.providers);
            providers = match only.filter(|only| rights.allow(only.as_ref())) {
                Some(only) => vec![only],
                None => of_kind(ProviderKind::Generic),
            };
        }
        // A list for a key with certain models is cut, even if it is that of one provider.
        let is_cut = rights.are_by_model() && !providers.is_empty();
        (is_put_together || is_cut).then_some(Self { kind, providers, names, rights })
    }

    /// The list of `provider` alone, for a key with certain models; `target` is the request's for the provider.
    pub(super) fn of_one(
        provider: &'p P,
        rights: Rights<'p>,
        head: &RequestHead,
        target: &str,
    ) -> Option<Self> {
        let path = path_of(target);
        if !matches!(&*head.method, "GET" | "HEAD") || !is_models_list(path) {
            return None;
        }
        let kind = api_of(path, &head.headers).unwrap_or(ProviderKind::OpenAi);
        Some(Self { kind, providers: vec![provider], names: Vec::new(), rights })
    }
}

/// The question to the providers.
struct Asked<'a> {
    kind: ProviderKind,
    /// The head for each provider.
    own: RequestHead,
    /// The client's query.
    query: &'a str,
    client: Option<&'a Arc<TcpStream>>,
    /// The time after which no other provider is asked.
    deadline: Deadline,
}

/// The reason why a provider's list is missing.
enum Missed {
    /// It answered with something else: its answer, if it came whole, and the problem.
    Answered(Option<(ResponseHead, Vec<u8>)>, NoList),
    /// It gave no answer.
    Refused(Refusal),
    /// The client went away, so no other provider is asked.
    Stopped(Stop),
}

impl From<Stop> for Missed {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Refused(refusal) => Self::Refused(refusal),
            other => Self::Stopped(other),
        }
    }
}

/// Answers with the `wanted` list.
// Not inlined: keeps worker stacks small.
#[inline(never)]
pub(super) fn answer<'p>(
    proxy: &'p Proxy,
    wanted: &Wanted<'p, Arc<Provider>>,
    request: &Request<'_>,
    reply: &mut Reply<'_>,
    record: &mut RequestRecord<'p>,
) -> Result<(), Stop> {
    let asked = Asked {
        kind: wanted.kind,
        own: own_head(request.head),
        query: query_of(&request.head.target),
        client: request.client,
        deadline: Deadline::after(ALL_MAX),
    };
    let outcomes = ask_all(proxy, &wanted.providers, &asked, &mut record.attempts);
    let (mut lists, mut left_out) = (Vec::new(), Vec::new());
    let (mut answered, mut refused) = (None, None);
    for (provider, outcome) in wanted.providers.iter().copied().zip(outcomes) {
        let why = match outcome {
            Ok(models) => {
                lists.push(models);
                continue;
            }
            Err(Missed::Stopped(stop)) => return Err(stop),
            Err(Missed::Answered(answer, why)) => {
                answered = answer.map(|answer| (provider, answer)).or(answered);
                why.to_string()
            }
            Err(Missed::Refused(refusal)) => {
                let why = refusal.message.clone();
                let before = refused.as_ref().map(|before: &Refusal| before.code);
                if verdict::is_preferred(refusal.code, before) {
                    refused = Some(refusal);
                }
                why
            }
        };
        let name = &provider.config.name;
        info!(provider = name.as_str(); "The models of {name} are left out: {why}");
        left_out.push(slug::in_path(&provider.config.slug));
    }
    if lists.is_empty() {
        if let Some((provider, (head, bytes))) = answered {
            record.answered_by(provider, head.status);
            return send_whole(head, &bytes, &request.head.method, reply);
        }
        let nobody = || Refusal::new(Code::UpstreamBroken, "No provider sent a list of models");
        return Err(refused.unwrap_or_else(nobody).into());
    }
    page(wanted, lists, &left_out, request.head)?.send(proxy, request.head, reply, record)
}

/// The outcome for each of `providers`, in their order.
fn ask_all(
    proxy: &Proxy,
    providers: &[&Arc<Provider>],
    asked: &Asked<'_>,
    attempts: &mut u32,
) -> Vec<Result<Vec<Model>, Missed>> {
    let ask = |provider: &&Arc<Provider>| {
        let mut record = RequestRecord::default();
        (models_of(proxy, provider, asked, &mut record), record.attempts)
    };
    let mut outcomes = Vec::new();
    for some in providers.chunks(ASKED_AT_ONCE_MAX) {
        for (outcome, sent) in thread::on_threads("models", ASK_STACK_BYTES, some, ask) {
            *attempts += sent;
            outcomes.push(outcome);
        }
    }
    outcomes
}

/// One provider's whole list.
fn models_of(
    proxy: &Proxy,
    provider: &Provider,
    asked: &Asked<'_>,
    record: &mut RequestRecord<'_>,
) -> Result<Vec<Model>, Missed> {
    let _in_flight = provider.enter().map_err(Missed::Refused)?;
    let (mut models, mut bytes) = (Vec::new(), 0);
    let mut after: Option<String> = None;
    for _ in 0..PAGES_MAX {
        if asked.deadline.has_passed() {
            let name = &provider.config.name;
            let message = format!("{name} was not asked: the others took too long");
            return Err(Missed::Refused(Refusal::new(Code::UpstreamTimeout, message)));
        }
        let query = list::query(asked.kind, asked.query, after.as_deref());
        let mark = if query.is_empty() { "" } else { "?" };
        let target = format!("/v1/models{mark}{query}");
        let page = models_page(proxy, provider, asked, &target, record)?;
        bytes += page.models.iter().map(Model::bytes).sum::<usize>();
        if bytes > LIST_MAX_BYTES {
            return Err(Missed::Answered(None, NoList::ListTooLong));
        }
        models.extend(page.models);
        // The other API has no pages: the same would come again.
        after = page.next_after.filter(|_| asked.kind == ProviderKind::Anthropic);
        if after.is_none() {
            break;
        }
    }
    Ok(models)
}

/// One answer of a provider.
fn models_page(
    proxy: &Proxy,
    provider: &Provider,
    asked: &Asked<'_>,
    target: &str,
    record: &mut RequestRecord<'_>,
) -> Result<list::ListPage, Missed> {
    let mut asking = Request {
        head: &asked.own,
        body: &mut io::empty(),
        client: asked.client,
        is_by_unix: false,
        may_keep_alive: false,
        switch: None,
    };
    let body = TakenBody::Absent;
    let outgoing = Outgoing {
        provider,
        target,
        body: &body,
        model: &|| None,
        look: StreamLook::Never,
        response_max: Some(HEAD_MAX),
    };
    let counts = &provider.counts;
    let sent = send(proxy, &mut asking, &outgoing, record);
    let received = sent.map_err(|stop| {
        let Stop::Refused(mut refusal) = stop else { return stop };
        if verdict::cools_down(refusal.code) {
            counts.failed();
        }
        if refusal.code == Code::UpstreamTimeout {
            let (name, seconds) = (&provider.config.name, HEAD_MAX.as_secs());
            refusal.message = format!("{name} did not answer within {seconds} s");
        }
        refusal.into()
    })?;
    let mut answer = received.answer;
    let status = answer.head.status;
    if status >= 500 {
        counts.failed();
    }
    let mut head = answer.head.clone();
    headers::to_client(&mut head.headers);
    let (bytes, is_whole) = answer.read_ahead(LIST_MAX_BYTES, BODY_MAX);
    if !is_whole {
        let is_over = bytes.len() > LIST_MAX_BYTES;
        if !is_over && answer.client_is_gone() {
            return Err(Missed::Stopped(Stop::ClientGone));
        }
        let why = if is_over { NoList::AnswerTooLong } else { NoList::CutOff };
        return Err(Missed::Answered(None, why));
    }
    let read =
        if status == 200 { read_list(&head.headers, bytes) } else { Err(NoList::Status(status)) };
    read.map_err(|why| Missed::Answered(Some((head, bytes.to_vec())), why))
}

/// Reads one list at a time, over all requests, because a tree of values may take many times the list's bytes.
fn read_list(headers: &Headers, bytes: &[u8]) -> Result<list::ListPage, NoList> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    // The lock guards no value that a panic could leave half-made.
    let _mine = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    thread::on_own_thread("models", READ_STACK_BYTES, || list::read(headers, bytes))
}

/// The client's head for each provider: a GET without a body, for the whole list in uncompressed bytes.
fn own_head(head: &RequestHead) -> RequestHead {
    let mut own = head.clone();
    own.method = "GET".into();
    own.body = BodyLength::Absent;
    for name in NOT_PASSED_ON {
        own.headers.remove(name);
    }
    own.headers.push("accept-encoding", "identity");
    own
}

/// The part of `target` after the `?`.
fn query_of(target: &str) -> &str {
    target.split_once('?').map_or("", |(_, query)| query)
}

/// The lists as one answer.
fn page(
    wanted: &Wanted<'_, Arc<Provider>>,
    lists: Vec<Vec<Model>>,
    left_out: &[String],
    head: &RequestHead,
) -> Result<Page, Refusal> {
    let mut models = list::merged(lists, &wanted.names, wanted.kind);
    models.retain(|model| wanted.rights.allow_model(model.id()));
    let paging = Paging::of(query_of(&head.target));
    let written = list::written(wanted.kind, &models, &paging).ok_or_else(|| {
        let message =
            "after_id or before_id names no model of the merged list; ask again from its start";
        Refusal::new(Code::BadRequest, message)
    })?;
    let mut headers = Headers::new();
    headers.push("content-type", "application/json");
    if !left_out.is_empty() {
        headers.push(LEFT_OUT, left_out.join(", "));
    }
    let head = ResponseHead { status: 200, headers };
    Ok(Page { head, body: written.into_bytes() })
}
