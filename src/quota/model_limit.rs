//! Decides whether a refusal concerns one model of a provider, so that its other models go on. Pure.

use serde_json::Value;

use crate::http::message::Headers;
use crate::quota::words::normal;

/// A longer name of a model is not kept.
const NAME_MAX_BYTES: usize = 256;
/// The beginning of Anthropic's fields about the windows of an account.
const UNIFIED: &str = "anthropic-ratelimit-unified-";
/// The windows that concern all models.
const SHARED_WINDOWS: [&str; 3] = ["5h", "7d", "1h"];
/// Words between [`UNIFIED`] and `-status` that are no windows.
const NO_WINDOWS: [&str; 2] = ["overage", "fallback"];
/// Codes of a limit of one model.
const CODES: [&str; 9] = [
    "user_model_rate_limited",
    "model_rate_limited",
    "model_overloaded",
    "model_at_capacity",
    "model_capacity_exhausted",
    "model_cap_exceeded",
    "model_cooldown",
    "free_tier_only",
    "model_rate_limit_exceeded",
];
/// Words of a message about the load of the model.
const BUSY: [&str; 6] =
    ["overloaded", "at capacity", "high demand", "rate-limited", "rate limited", "busy"];

/// A refusal.
pub(super) struct Refusal<'a> {
    pub status: u16,
    pub headers: &'a Headers,
    pub json: Option<&'a Value>,
    pub texts: &'a [&'a str],
    /// Credit is used up, which concerns all models.
    pub is_credit: bool,
    /// The fields say that nothing is left of the model alone.
    pub is_of_model: bool,
}

/// The model that rests: the one of the request, from `model`, if the refusal concerns it alone. If that can't be read,
/// it is the one that the refusal names.
pub(super) fn model(refusal: &Refusal<'_>, model: &dyn Fn() -> Option<String>) -> Option<String> {
    let is_of_upstream = is_of_upstream(refusal);
    let may_be_of_model = matches!(refusal.status, 400 | 401 | 403 | 429 | 503 | 529);
    if !may_be_of_model && !is_of_upstream {
        return None;
    }
    let is_tier = || refusal.texts.iter().any(|text| own_code(text) == "free_tier_only");
    let by_structure = match windows(refusal.headers).or_else(|| all_violations(refusal.json?)) {
        Some(is_of_model) => is_of_model,
        None if is_of_upstream => true,
        None if refusal.is_credit && !is_tier() => return None,
        None => refusal.is_of_model || names_one_model(refusal),
    };
    let Some(asked) = model().filter(|name| !name.is_empty() && name.len() <= NAME_MAX_BYTES)
    else {
        return named(refusal);
    };
    (by_structure || mentions(refusal, &asked)).then_some(asked)
}

/// True if one model's window of an account is used up, and no shared one is; None if no field says which.
fn windows(headers: &Headers) -> Option<bool> {
    let (mut shared, mut own) = (false, false);
    for (name, value) in headers.iter() {
        let Ok(name) = std::str::from_utf8(name) else { continue };
        let Some(start) = name.get(..UNIFIED.len()) else { continue };
        if !start.eq_ignore_ascii_case(UNIFIED) {
            continue;
        }
        let rest = name[UNIFIED.len()..].to_ascii_lowercase();
        if let Some(window) = rest.strip_suffix("-status") {
            let is_used_up = value.eq_ignore_ascii_case(b"rejected");
            shared |= is_used_up && SHARED_WINDOWS.contains(&window);
            own |= is_used_up && !SHARED_WINDOWS.contains(&window) && !NO_WINDOWS.contains(&window);
        }
    }
    if shared || own {
        return Some(!shared);
    }
    let is_rejected = headers.first("anthropic-ratelimit-unified-status") == Some(b"rejected");
    let claim = headers.first("anthropic-ratelimit-unified-representative-claim")?;
    is_rejected.then(|| claim.starts_with(b"seven_day_") && !claim.starts_with(b"seven_day_over"))
}

/// True if the refusal is that of another provider behind this one (`OpenRouter`), which serves this model alone. A 402
/// is the account's own.
fn is_of_upstream(refusal: &Refusal<'_>) -> bool {
    let upstream = refusal.json.and_then(|json| json.pointer("/error/metadata/raw"));
    refusal.status != 402 && upstream.is_some_and(|upstream| !upstream.is_null())
}

/// True if all quotas that Google, or Google behind `OpenRouter`, says are violated are those of one model; None if it
/// lists none.
fn all_violations(json: &Value) -> Option<bool> {
    violations(json).or_else(|| violations(json.pointer("/error/metadata/raw")?))
}

fn violations(json: &Value) -> Option<bool> {
    let error = match json {
        Value::Array(list) => list.first()?.get("error")?,
        other => other.get("error")?,
    };
    let details = error.get("details")?.as_array()?;
    let of = |name: &'static str| details.iter().filter_map(move |detail| detail.get(name));
    let mut violations = of("violations").filter_map(Value::as_array).flatten().peekable();
    if violations.peek().is_some() {
        return Some(violations.all(is_of_model));
    }
    of("metadata").find_map(|metadata| metadata.get("model")).map(|_| true)
}

fn is_of_model(violation: &Value) -> bool {
    let says = |name: &str, part: &str| {
        violation.get(name).and_then(Value::as_str).is_some_and(|text| text.contains(part))
    };
    says("quotaId", "PerModel")
        || says("quotaId", "PerBaseModel")
        || says("quotaMetric", "per_base_model")
        || violation.pointer("/quotaDimensions/model").is_some()
        || violation.pointer("/quotaDimensions/base_model").is_some()
}

/// True if a code or a message is about the load or the limit of `the model`.
fn names_one_model(refusal: &Refusal<'_>) -> bool {
    refusal.texts.iter().any(|text| {
        if !text.contains(char::is_whitespace) {
            return CODES.contains(&own_code(text).as_str());
        }
        let text = text.to_ascii_lowercase();
        let about = text.split_once("model is ").map(|(_, about)| about);
        about.is_some_and(|about| BUSY.iter().any(|busy| about.contains(busy)))
    })
}

fn own_code(code: &str) -> String {
    normal(code.rsplit([':', '#', '/', '.']).next().unwrap_or_default())
}

/// True if a message, or the member `model` of the error, names the model that was asked for. Its dated name, as
/// `gpt-x-2026-01-31`, and its short one, `gpt-x`, are the same.
fn mentions(refusal: &Refusal<'_>, asked: &str) -> bool {
    let asked = asked.rsplit_once("models/").map_or(asked, |(_, name)| name).to_ascii_lowercase();
    let is_asked = |word: &str| {
        let longer = |long: &str, short: &str| {
            long.strip_prefix(short).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        };
        longer(&asked, word) || longer(word, &asked)
    };
    // OpenRouter's limit of all models that cost nothing. The others go on.
    let is_free = asked.ends_with(":free")
        && refusal.texts.iter().any(|text| text.to_ascii_lowercase().contains("free-models-per-"));
    let named =
        ["/error/model", "/model"].iter().find_map(|at| refusal.json?.pointer(at)?.as_str());
    let messages = refusal.texts.iter().filter(|text| text.contains(char::is_whitespace));
    let names_it = |text: &&str| names_a_model(&text.to_ascii_lowercase(), &asked, &is_asked);
    is_free
        || named.is_some_and(|named| is_asked(&named.to_ascii_lowercase()))
        || messages.copied().any(|text| names_it(&text))
}

/// The model that the refusal names.
fn named(refusal: &Refusal<'_>) -> Option<String> {
    let member = |at: &&str| refusal.json?.pointer(at)?.as_str();
    let member = ["/error/model", "/model"].iter().find_map(member);
    let messages = refusal.texts.iter().filter(|text| text.contains(char::is_whitespace));
    let name = member.or_else(|| messages.copied().find_map(model_in))?;
    Some(name).filter(|name| (1..=NAME_MAX_BYTES).contains(&name.len())).map(str::to_owned)
}

/// The model in `model gpt-x`, or `for gpt-x in organization`.
fn model_in(text: &str) -> Option<&str> {
    let words: Vec<&str> = words_of(text).collect();
    (1..words.len()).find_map(|at| {
        let is = |place: usize, known: &str| {
            words.get(place).is_some_and(|word| word.eq_ignore_ascii_case(known))
        };
        let is_of_organization =
            is(at - 1, "for") && is(at + 1, "in") && is(at + 2, "organization");
        let name = without_folder(words[at]);
        (is_name(name) && (is(at - 1, "model") || is_of_organization)).then_some(name)
    })
}

/// The words of `text`, among them names of models as a whole.
fn words_of(text: &str) -> impl Iterator<Item = &str> {
    let is_in_name = |one: char| one.is_alphanumeric() || "-_./:@".contains(one);
    let words = text.split(move |one| !is_in_name(one));
    words.map(|word| word.trim_end_matches(['.', ':'])).filter(|word| !word.is_empty())
}

fn without_folder(name: &str) -> &str {
    name.rsplit_once("models/").map_or(name, |(_, name)| name)
}

/// True if `word` can be nothing but a name.
fn is_name(word: &str) -> bool {
    word.contains(|one: char| one.is_ascii_digit() || "-/".contains(one))
}

/// True if a word of `text`, which is in lower case, names the model. A plain word does so only after `model` or
/// `for`, and if it is the whole name.
fn names_a_model(text: &str, asked: &str, is_asked: &dyn Fn(&str) -> bool) -> bool {
    let mut before = "";
    words_of(text).any(|word| {
        let name = without_folder(word);
        let is_plain = matches!(before, "model" | "for") && name == asked;
        before = word;
        is_plain || (is_name(name) && is_asked(name))
    })
}

#[cfg(test)]
mod tests;
