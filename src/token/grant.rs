//! Reads the answer to a token request (RFC 6749 §5): a grant, or a failure and its consequence. Pure.

use std::borrow::Cow;

use serde_json::Value;

use crate::clock::Timestamp;
use crate::config::token_fields::TokenFields;
use crate::http::message::Headers;
use crate::secret::Secret;
use crate::token::scope;

mod answer;
pub(crate) mod codes;
mod endpoint;
mod failure;
mod lifetime;
mod outgoing;
mod refusal;
mod request;
mod shapes;
mod tolerant;

pub use answer::TOKEN_ANSWER_MAX_BYTES;
use answer::{ResponseFormat, TokenResponse};
pub(crate) use answer::{is_of_use, parse};
use codes::{IN_PROGRESS, Meaning, without_detail};
pub(crate) use failure::AssertionFault;
pub use failure::{Class, Failure, Reached, What};
#[cfg(test)]
pub(crate) use lifetime::LIFETIME_ASSUMED_MS;
pub use lifetime::LIFETIME_MAX_MS;
pub(in crate::token) use outgoing::USER_AGENT;
pub(crate) use outgoing::{TokenRequest, get, json_request};
pub(crate) use request::{request, request_with, revocation};
pub(crate) use shapes::Shape;

/// A usable token response (RFC 6749 §5.1).
#[derive(Debug)]
pub struct Grant {
    pub access_token: Secret,
    /// The next refresh token, if the issuer rotates.
    pub refresh_token: Option<Secret>,
    /// The lifetime of the access token, in milliseconds from when the request was sent.
    pub lifetime_ms: i64,
    /// The time of the next refresh that the issuer wants, in milliseconds from when the request was sent.
    pub refresh_in_ms: Option<i64>,
    /// The time before which the issuer wants no refresh, in milliseconds from when the request was sent.
    pub earliest_refresh_in_ms: Option<i64>,
    /// The answer names an end in the past: the access token has ended, unless it is a new one.
    pub has_ended: bool,
    /// The granted scope, if the answer names it.
    pub scope: Option<String>,
    /// The lifetime of the refresh token, in milliseconds from when the request was sent, if the issuer names it.
    pub refresh_token_lifetime_ms: Option<i64>,
    /// A defect of the answer, for the log.
    pub warning: Option<String>,
    /// A note that the end of the refresh token is in an unknown form.
    pub odd_refresh_end: Option<String>,
}

/// The warning about an answer whose tokens are used in spite of its defect.
const DEFECTIVE: &str =
    "The token response is not valid JSON; its tokens are complete and are used";

/// Reads the answer to a request sent at `sent`: its status, headers and whole body. `fields` names the places of its
/// values.
pub fn read(
    status: u16,
    headers: &Headers,
    body: &[u8],
    fields: &TokenFields,
    sent: Timestamp,
) -> Result<Grant, Failure> {
    let is_success = (200..300).contains(&status);
    let answer = answer::read(headers, body);
    let code = match &answer {
        Err(_) => None,
        Ok(TokenResponse { value, .. })
            if is_success && text(value, fields, "access_token").is_some() =>
        {
            refusal::standard_code(value, fields, status)
        }
        Ok(TokenResponse { value, .. }) => refusal::any_code(value, fields, status),
    };
    if is_success && code.is_none() {
        return read_grant(&answer.map_err(Failure::not_a_token)?, fields, sent);
    }
    let meaning = Meaning::of(code.as_deref().unwrap_or(""));
    Err(Failure {
        class: meaning.class(status, code.as_deref()),
        reached: reached(status, code.as_deref()),
        retry_after_ms: headers.retry_after_ms(sent),
        next_refresh_token: None,
        what: What::Status(status, code),
    })
}

/// Reads the answer of an endpoint that is no OAuth, whose token may stand in another place.
pub(crate) fn read_any(
    status: u16,
    headers: &Headers,
    body: &[u8],
    fields: &TokenFields,
    sent: Timestamp,
) -> Result<Grant, Failure> {
    if (200..300).contains(&status)
        && let Ok(value) = answer::parse(headers, body)
        && refusal::standard_code(&value, fields, status).is_none()
        && let Some(shape) = Shape::of(&value, fields, Some(""))
    {
        return of_values(shape.as_oauth(false), sent);
    }
    read(status, headers, body, fields, sent)
}

/// Words for the error that an answer holds in the place of a token: empty, or a code that is known, in parentheses.
/// Another text may be anything.
pub(crate) fn error_in(answer: &Value, fields: &TokenFields) -> Option<String> {
    let code = refusal::standard_code(answer, fields, 200)?;
    let code = Some(without_detail(&code)).filter(|code| Meaning::of(code) != Meaning::Unknown);
    Some(code.map_or_else(String::new, |code| format!(" ({code})")))
}

/// Reads values in the shape of a token response, which are complete and were requested at `sent`.
pub(crate) fn of_values(value: Value, sent: Timestamp) -> Result<Grant, Failure> {
    let answer = TokenResponse { value, form: ResponseFormat::Json };
    read_grant(&answer, &TokenFields::default(), sent)
}

/// Cloudflare's statuses for an origin that answered in an unknown way, or took the request and gave no answer in time. With its
/// others (521 to 523, 525, 526, 530) the request never arrived there.
const ODD_ANSWER: u16 = 520;
const NO_ANSWER: u16 = 524;

/// A gateway that got no answer, or none that it understood, says nothing about the issuer's action; nor does an issuer that
/// has not finished an earlier request.
fn reached(status: u16, code: Option<&str>) -> Reached {
    match (status, code) {
        (502 | 504 | NO_ANSWER | ODD_ANSWER, None) | (_, Some(IN_PROGRESS)) => Reached::Perhaps,
        _ => Reached::No,
    }
}

fn read_grant(
    answer: &TokenResponse,
    fields: &TokenFields,
    sent: Timestamp,
) -> Result<Grant, Failure> {
    granted(answer, fields, sent)
        .map_err(|why| Failure::not_a_token(why).but_with(next_refresh_token(answer, fields)))
}

/// The grant in `answer`, or the reason why it is none.
fn granted(
    answer: &TokenResponse,
    fields: &TokenFields,
    sent: Timestamp,
) -> Result<Grant, Cow<'static, str>> {
    let TokenResponse { value: answer, form } = answer;
    if *form == ResponseFormat::Cut && !holds_both_tokens(answer, fields) {
        return Err(answer::NOT_JSON.into());
    }
    let access_token =
        text(answer, fields, "access_token").ok_or_else(|| match fields.path("access_token") {
            Some(path) => format!("it has no text at '{path}', which token_fields names").into(),
            None => Cow::from("it has no 'access_token'"),
        })?;
    if !access_token.bytes().all(|byte| (0x21..=0x7e).contains(&byte)) {
        return Err("its 'access_token' holds bytes no header may hold".into());
    }
    let refresh_token = text(answer, fields, "refresh_token");
    if !refresh_token.is_none_or(|token| form.keeps(token)) {
        return Err("its 'refresh_token' is damaged".into());
    }
    let times = lifetime::Times { answer, fields, sent };
    let (lifetime_ms, odd) = times.of_access_token(access_token);
    let in_time = |millis: &i64| (1..lifetime_ms).contains(millis);
    let refresh_in_ms =
        fields.value(answer, "refresh_in").and_then(lifetime::number).map(lifetime::to_millis);
    let earliest_refresh_in_ms = fields
        .value(answer, "earliest_refresh_at")
        .and_then(lifetime::point)
        .map(|at| at.millis_since(sent));
    let defect = form.is_defective().then(|| DEFECTIVE.to_owned());
    let warnings: Vec<String> = defect.into_iter().chain(odd).collect();
    Ok(Grant {
        access_token: Secret::new(access_token),
        refresh_token: refresh_token.map(Secret::new),
        lifetime_ms,
        refresh_in_ms: refresh_in_ms.filter(in_time),
        earliest_refresh_in_ms: earliest_refresh_in_ms.filter(in_time),
        has_ended: times.has_ended(access_token),
        scope: fields.value(answer, "scope").and_then(scope::granted),
        refresh_token_lifetime_ms: times.of_refresh_token(),
        warning: (!warnings.is_empty()).then(|| warnings.join(". ")),
        odd_refresh_end: times.odd_refresh_end(),
    })
}

fn text<'a>(answer: &'a Value, fields: &TokenFields, name: &str) -> Option<&'a str> {
    fields.value(answer, name).and_then(Value::as_str).filter(|text| !text.is_empty())
}

/// The next refresh token in an answer that is no grant. Without its predecessor, which the issuer may have used up, it
/// would be lost.
fn next_refresh_token(answer: &TokenResponse, fields: &TokenFields) -> Option<Secret> {
    let token = fields.own_value(&answer.value, "refresh_token").and_then(Value::as_str);
    token.filter(|token| !token.is_empty() && answer.form.keeps(token)).map(Secret::new)
}

/// True if a cut answer has everything that a rotation must not lose. A value with a configured place does not
/// count, because another token may stand at the place that is searched second.
fn holds_both_tokens(answer: &Value, fields: &TokenFields) -> bool {
    let holds = |name| fields.path(name).is_none() && text(answer, fields, name).is_some();
    holds("access_token") && holds("refresh_token")
}

#[cfg(test)]
pub(crate) mod tests;
