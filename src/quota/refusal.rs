//! Judges a provider's refusal: whether a held request moves on, and for how long the provider, or one model of it,
//! is passed over. Pure.

use std::time::Duration;

use serde_json::Value;

use crate::clock::Timestamp;
use crate::http::message::Headers;
use crate::quota::body::RefusalBody;
use crate::quota::words::UsedUp;
use crate::quota::{fields, model_limit, own_limit, wait, words};

/// The longest cooldown, so that each provider is tried at least once a week.
pub(crate) const COOLDOWN_MAX: Duration = Duration::from_hours(7 * 24);
/// The cooldown after credit was used up, unless the answer says how long.
pub(crate) const CREDIT_COOLDOWN: Duration = Duration::from_mins(30);

/// An answer that may be a refusal.
#[derive(Debug)]
pub(crate) struct Refused<'a> {
    /// Its status, or the one that the first event of a stream stands for.
    pub status: u16,
    /// Its header fields.
    pub headers: &'a Headers,
    /// Its body; None if it has none, or one that is too large or too slow.
    pub body: Option<&'a RefusalBody>,
}

/// A refusal that is not about the request: another provider may serve it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Limited {
    /// The time for which the provider, or the model, is passed over.
    pub length: Duration,
    /// The model that it concerns; None if it concerns the provider.
    pub model: Option<String>,
    /// Credit or a quota is used up, according to the body or to a 402.
    pub is_used_up: bool,
    /// The body alone says that it is a rate limit.
    pub is_rate_limit: bool,
    /// It is about this request alone, which another provider may serve. Nothing is passed over.
    pub is_of_request: bool,
}

/// True if an answer with `status` lets a held request move on, and makes the provider cool down, whatever its body.
/// 520 to 526 and 530 are Cloudflare's words for a provider behind it that gave no answer.
pub(crate) fn is_failing(status: u16) -> bool {
    matches!(status, 402 | 429 | 500 | 502 | 503 | 504 | 520..=526 | 529 | 530)
}

/// True if the body of an answer with `status` may say that credit or a quota is used up.
pub(crate) fn may_be_used_up(status: u16) -> bool {
    matches!(status, 400 | 401 | 403)
}

/// The judgement at `now`; `usual` is the cooldown if the answer names none, and `model` returns the model of the
/// request, if it has one. None if the answer is about the request, or no refusal at all.
pub(crate) fn judge(
    refused: &Refused<'_>,
    now: Timestamp,
    usual: Duration,
    model: &dyn Fn() -> Option<String>,
) -> Option<Limited> {
    let Refused { status, headers, body } = *refused;
    let mut texts = body.map(RefusalBody::texts).unwrap_or_default();
    if may_be_used_up(status) && names_parameter(body.and_then(RefusalBody::json)) {
        texts.retain(|text| !text.contains(char::is_whitespace));
    }
    let used_up = words::used_up(&texts);
    let is_by_body = may_be_used_up(status) && used_up.is_some();
    if !is_failing(status) && !is_by_body {
        return None;
    }
    let is_credit = status == 402 || used_up == Some(UsedUp::Credit);
    let json = body.and_then(RefusalBody::json);
    let is_rate_limit = is_by_body && used_up == Some(UsedUp::Rate);
    let is_used_up = is_credit || (is_by_body && !is_rate_limit);
    let otherwise = if is_used_up { CREDIT_COOLDOWN } else { usual };
    let named = wait::named(headers, json, now);
    if status == 429 && !is_credit && own_limit::is_of_request(headers, &texts, named.is_some()) {
        let length = Duration::ZERO;
        return Some(Limited {
            length,
            model: None,
            is_used_up: false,
            is_rate_limit: false,
            is_of_request: true,
        });
    }
    let is_of_model = status == 429 && fields::is_of_model(headers, now);
    let about =
        model_limit::Refusal { status, headers, json, texts: &texts, is_credit, is_of_model };
    Some(Limited {
        length: rounded_up(named.unwrap_or(otherwise)).min(COOLDOWN_MAX),
        model: model_limit::model(&about, model),
        is_used_up,
        is_rate_limit,
        is_of_request: false,
    })
}

/// True if the error is about a parameter of the request, whose value its message may quote.
fn names_parameter(json: Option<&Value>) -> bool {
    let param = |at: &str| json.and_then(|json| json.pointer(at)?.as_str()).unwrap_or_default();
    !param("/error/param").is_empty() || !param("/error/metadata/raw/error/param").is_empty()
}

/// `length` in whole seconds.
fn rounded_up(length: Duration) -> Duration {
    let has_rest = length.subsec_nanos() > 0;
    Duration::from_secs(length.as_secs().saturating_add(u64::from(has_rest)))
}

#[cfg(test)]
mod tests;
