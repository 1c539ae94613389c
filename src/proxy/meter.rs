//! Counts the tokens of an answer while it passes, and the model that was asked if the answer can't name it.

use crate::http::message::{RequestHead, ResponseHead};
use crate::proxy::asked_model::in_path;
use crate::proxy::body::TakenBody;
use crate::proxy::model;
use crate::proxy::outcome::RequestRecord;
use crate::proxy::provider::Provider;
use crate::proxy::state::Proxy;
use crate::usage::ledger::{Answered, Ledger};
use crate::usage::observer::{Observed, Observer};
use crate::usage::scan::{Finding, model_in};

/// The beginning of a request's body in which its model is looked for.
const MODEL_WITHIN_BYTES: usize = 4 * 1024;

/// The model that the request names.
// Not inlined: keeps worker stacks small.
#[inline(never)]
fn asked_model(sent: &TakenBody) -> Option<String> {
    let start = sent.plain_start()?;
    model::find(&start[..start.len().min(MODEL_WITHIN_BYTES)]).map(|field| field.name)
}

/// The observer of the answer with `head` to the request `asked`. Notes the model of the request if the answer may not
/// name one: an error, a compressed one, and one of the Responses API, which repeats long instructions before its model.
pub(super) fn observer(
    proxy: &Proxy,
    asked: &RequestHead,
    head: &ResponseHead,
    sent: &TakenBody,
    record: &mut RequestRecord<'_>,
) -> Observer {
    let Some(ledger) = &proxy.usage else { return Observer::Off };
    let observer = Observer::of(&asked.method, head, &ledger.inflating);
    if !matches!(observer, Observer::Plain(_)) || asked.path().ends_with("/responses") {
        record.asked_model = asked_model(sent);
    }
    observer
}

/// The part of a request's body that is kept until its answer has ended: its beginning, if the answer is JSON, which may
/// name no model. Nothing is copied of a short one.
// Not inlined: keeps worker stacks small.
#[inline(never)]
pub(super) fn kept(observer: &Observer, sent: TakenBody) -> Option<TakenBody> {
    if !observer.is_json() {
        return None;
    }
    match sent.plain_start()? {
        start if start.len() > MODEL_WITHIN_BYTES || !matches!(sent, TakenBody::Held(_)) => {
            let start = &start[..start.len().min(MODEL_WITHIN_BYTES)];
            Some(TakenBody::Streamed(None, start.to_vec()))
        }
        _ => Some(sent),
    }
}

/// Counts an answer that has ended, as far as `is_whole` says, to the request `asked` with its kept body.
pub(super) fn count(
    proxy: &Proxy,
    asked: (&RequestHead, Option<&TakenBody>),
    provider: &Provider,
    end: Observed,
    is_whole: bool,
    record: &RequestRecord<'_>,
) {
    if let Some(ledger) = &proxy.usage {
        count_in(ledger, asked, provider, end, is_whole, record);
    }
}

fn count_in(
    ledger: &Ledger,
    (asked, body): (&RequestHead, Option<&TakenBody>),
    provider: &Provider,
    end: Observed,
    is_whole: bool,
    record: &RequestRecord<'_>,
) {
    let names_its_model = matches!(end, Observed::Read(Finding { model: Some(_), .. }));
    let start = body.filter(|_| !names_its_model).and_then(TakenBody::plain_start);
    let start = start.unwrap_or_default();
    // A search for the key, because reading the whole beginning as JSON would cost a tenth of a request.
    let in_body = model_in(&start[..start.len().min(MODEL_WITHIN_BYTES)]);
    let in_body = in_body.and_then(|name| std::str::from_utf8(name).ok());
    let in_path = || if names_its_model { None } else { in_path(asked.path()) };
    let answered = Answered {
        provider: &provider.config.name,
        key: record.key.map(|key| key.rights.name.as_str()),
        asked_model: record.asked_model.as_deref().or(in_body).or_else(in_path),
        method: &asked.method,
        path: asked.path(),
        is_whole,
    };
    ledger.count(end, answered);
}
