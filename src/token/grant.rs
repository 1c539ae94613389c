//! Reads the answer to a token request (RFC 6749 §5): a grant, or a failure and its consequence. Pure.

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
pub(crate) use answer::{is_whole, parse};
use codes::Meaning;
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
            refusal::standard_code(value, fields)
        }
        Ok(TokenResponse { value, .. }) => refusal::any_code(value, fields, is_success),
    };
    if is_success && code.is_none() {
        return read_grant(&answer.map_err(Failure::not_a_token)?, fields, sent);
    }
    let meaning = Meaning::of(code.as_deref().unwrap_or(""));
    Err(Failure {
        class: meaning.class(status, code.as_deref()),
        reached: reached(status, code.as_deref()),
        retry_after_ms: headers.retry_after_ms(sent),
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
        && refusal::standard_code(&value, fields).is_none()
        && let Some(shape) = Shape::of(&value, fields, Some(""))
    {
        return of_values(shape.as_oauth(false), sent);
    }
    read(status, headers, body, fields, sent)
}

/// Words for the error that an answer holds in the place of a token: empty, or a code that is known, in parentheses.
/// Another text may be anything.
pub(crate) fn error_in(answer: &Value, fields: &TokenFields) -> Option<String> {
    let code = refusal::standard_code(answer, fields)?;
    let code = code.split('/').next().filter(|code| Meaning::of(code) != Meaning::Unknown);
    Some(code.map_or_else(String::new, |code| format!(" ({code})")))
}

/// Reads values in the shape of a token response, which are complete and were requested at `sent`.
pub(crate) fn of_values(value: Value, sent: Timestamp) -> Result<Grant, Failure> {
    let answer = TokenResponse { value, form: ResponseFormat::Json };
    read_grant(&answer, &TokenFields::default(), sent)
}

/// A gateway that got no answer, or none that it understood, says nothing about the issuer's action.
fn reached(status: u16, code: Option<&str>) -> Reached {
    match (status, code) {
        (502 | 504, None) => Reached::Perhaps,
        _ => Reached::No,
    }
}

fn read_grant(
    answer: &TokenResponse,
    fields: &TokenFields,
    sent: Timestamp,
) -> Result<Grant, Failure> {
    let is_defective = matches!(answer.form, ResponseFormat::Defective | ResponseFormat::Cut);
    if answer.form == ResponseFormat::Cut && !holds_both_tokens(&answer.value, fields) {
        return Err(Failure::not_a_token(answer::NOT_JSON));
    }
    let answer = &answer.value;
    let access_token = text(answer, fields, "access_token").ok_or_else(|| {
        Failure::not_a_token(match fields.path("access_token") {
            Some(path) => format!("it has no text at '{path}', which token_fields names"),
            None => "it has no 'access_token'".to_owned(),
        })
    })?;
    if !access_token.bytes().all(|byte| (0x21..=0x7e).contains(&byte)) {
        return Err(Failure::not_a_token("its 'access_token' holds bytes no header may hold"));
    }
    let refresh_token = text(answer, fields, "refresh_token");
    // A stored token is presented unchanged, so it must not be half a token or the rest of one.
    let is_text = |token: &str| token.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    if is_defective && !refresh_token.is_none_or(is_text) {
        return Err(Failure::not_a_token("its 'refresh_token' is damaged"));
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
    let defect = is_defective.then(|| DEFECTIVE.to_owned());
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

/// True if a cut answer has everything that a rotation must not lose. A value with a configured place does not
/// count, because another token may stand at the place that is searched second.
fn holds_both_tokens(answer: &Value, fields: &TokenFields) -> bool {
    let holds = |name| fields.path(name).is_none() && text(answer, fields, name).is_some();
    holds("access_token") && holds("refresh_token")
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{
        AutoRefresh, ClientAuth, CommandLine, GrantType, LoginEndpoints, RequestFormat,
        SecretFiles, Unwritten,
    };

    const SENT: Timestamp = Timestamp::from_secs(1_800_000_000);

    /// A configuration for tests of requests.
    pub(crate) fn config() -> AutoRefresh {
        AutoRefresh {
            token_url: "https://issuer.example/token".into(),
            client_id: Ok("id with space".into()),
            client_secret: Some(Ok(Secret::new("s&cret"))),
            seed: Some(Ok(Secret::new("seed"))),
            grant_type: GrantType::RefreshToken,
            client_auth: ClientAuth::SecretPost,
            request_format: RequestFormat::Form,
            scope: None,
            extra_params: Vec::new(),
            headers: Vec::new(),
            token_fields: TokenFields::default(),
            refresh_before_expiry: Duration::from_mins(5),
            retry_interval: Duration::from_hours(1),
            client_certificate: None,
            files: SecretFiles::default(),
            login: LoginEndpoints::default(),
            unwritten: Unwritten::default(),
            call: CommandLine::default(),
        }
    }

    #[test]
    fn answers_that_say_that_their_token_has_ended() {
        // {"exp":1800000000}
        let over = "aa.eyJleHAiOjE4MDAwMDAwMDB9.cc";
        let cases = [
            (r#"{"access_token":"a","expires_in":0}"#, true),
            (r#"{"access_token":"a","expires_in":"-1"}"#, true),
            (r#"{"access_token":"a","expires_at":1800000000}"#, true),
            (&format!(r#"{{"access_token":"{over}"}}"#), true),
            (&format!(r#"{{"access_token":"{over}","expires_in":1}}"#), false),
            (r#"{"access_token":"a","expires_at":1800000001}"#, false),
            (r#"{"access_token":"a","expires_in":"soon"}"#, false),
            (r#"{"access_token":"a"}"#, false),
        ];
        for (body, has_ended) in cases {
            let fields = TokenFields::default();
            let grant = read(200, &Headers::new(), body.as_bytes(), &fields, SENT).unwrap();
            assert_eq!(grant.has_ended, has_ended, "{body}");
        }
    }

    #[test]
    fn the_issuers_wish_for_the_next_refresh_counts() {
        let read = |extra: &str| {
            let body = format!(r#"{{"access_token":"a","expires_in":100,{extra}}}"#);
            read(200, &Headers::new(), body.as_bytes(), &TokenFields::default(), SENT).unwrap()
        };
        assert_eq!(read(r#""refresh_in":50"#).refresh_in_ms, Some(50_000));
        assert_eq!(read(r#""refresh_in":100"#).refresh_in_ms, None);
        assert_eq!(read(r#""refresh_in":0"#).refresh_in_ms, None);
        let earliest = read(r#""earliest_refresh_at":1800000010"#);
        assert_eq!(earliest.earliest_refresh_in_ms, Some(10_000));
        assert_eq!(earliest.refresh_in_ms, None, "it is a bound, not the time");
        for never in ["1799999990", "1800000100", "\"soon\""] {
            let granted = read(&format!(r#""earliest_refresh_at":{never}"#));
            assert_eq!(granted.earliest_refresh_in_ms, None, "{never}");
        }
        assert_eq!(read(r#""refresh_token":"""#).refresh_token, None);
        assert_eq!(read(r#""refresh_token":"n""#).refresh_token, Some(Secret::new("n")));
    }

    #[test]
    fn what_has_no_place_of_its_own_is_looked_for_beside_the_access_token() {
        let path = ["data", "access_token"].map(str::to_owned).to_vec();
        let fields = TokenFields::new(vec![("access_token", path)]);
        let body = br#"{"scope":"x","refresh_in":1,"data":{"access_token":"a","expires_in":100,"refresh_in":50,
            "earliest_refresh_at":1800000010,"scope":"a b"}}"#;
        let grant = read(200, &Headers::new(), body, &fields, SENT).unwrap();
        let times = (grant.refresh_in_ms, grant.earliest_refresh_in_ms);
        assert_eq!(times, (Some(50_000), Some(10_000)));
        assert_eq!(grant.scope.as_deref(), Some("a b"));
    }

    #[test]
    fn a_defect_beside_the_tokens_is_said_and_costs_none() {
        let read = |body: &str, fields: &TokenFields| {
            read(200, &Headers::new(), body.as_bytes(), fields, SENT)
        };
        let tokens = r#""access_token":"a","refresh_token":"r","expires_in":60"#;
        let plain = TokenFields::default();
        let said = |end: &str| read(&format!("{{{tokens}{end}"), &plain).unwrap().warning;
        assert_eq!(said("}"), None);
        assert_eq!(said(",}").as_deref(), Some(DEFECTIVE));
        assert_eq!(said(",").as_deref(), Some(DEFECTIVE));
        // Without the end of the answer, the token at the configured place may still be to come.
        let path = ["data", "access_token"].map(str::to_owned).to_vec();
        let fields = TokenFields::new(vec![("access_token", path)]);
        let other = r#"{"refresh_token":"other","data":{"access_token":"a","expires_in":60"#;
        assert!(read(&format!("{other}}},}}"), &fields).is_ok());
        let failure = read(&format!("{other},"), &fields).unwrap_err();
        let words = "the answer is no token response: it is not JSON, or incomplete";
        assert_eq!(failure.what.to_string(), words);
    }

    #[test]
    fn failures_by_body_first_and_status_second() {
        use Class::{Permanent, TokenDead, Transient};
        let cases = [
            (400, r#"{"error":"invalid_grant"}"#, TokenDead, "400 Bad Request (invalid_grant)"),
            (
                500,
                r#"{"error":"invalid_grant"}"#,
                TokenDead,
                "500 Internal Server Error (invalid_grant)",
            ),
            (
                401,
                r#"{"error":{"code":"refresh_token_reused"}}"#,
                TokenDead,
                "401 Unauthorized (refresh_token_reused)",
            ),
            (
                400,
                r#"{"error":{"type":"invalid_request"}}"#,
                Permanent,
                "400 Bad Request (invalid_request)",
            ),
            (401, r#"{"error":"invalid_client"}"#, Permanent, "401 Unauthorized (invalid_client)"),
            (
                400,
                r#"{"error":"temporarily_unavailable"}"#,
                Transient,
                "400 Bad Request (temporarily_unavailable)",
            ),
            (400, r#"{"error":"slow_down"}"#, Transient, "400 Bad Request (slow_down)"),
            (
                200,
                r#"{"error":"invalid_grant","access_token":"a"}"#,
                TokenDead,
                "200 OK (invalid_grant)",
            ),
            (401, "", Transient, "401 Unauthorized"),
            (403, "<html>", Transient, "403 Forbidden"),
            (404, "{}", Transient, "404 Not Found"),
            (408, "", Transient, "408 Request Timeout"),
            (425, "", Transient, "425 Too Early"),
            (429, "", Transient, "429 Too Many Requests"),
            (503, "", Transient, "503 Service Unavailable"),
            (302, "", Transient, "302 Found"),
            (418, "", Transient, "418"),
            (
                400,
                r#"{"error":"the token rt-secret is bad"}"#,
                Transient,
                "400 Bad Request (unnamed)",
            ),
            (400, r#"{"error":7}"#, Transient, "400 Bad Request (unnamed)"),
        ];
        for (status, body, class, words) in cases {
            let failure =
                read(status, &Headers::new(), body.as_bytes(), &TokenFields::default(), SENT)
                    .unwrap_err();
            assert_eq!(
                (failure.class, failure.what.to_string().as_str()),
                (class, words),
                "{body}"
            );
            assert_eq!(failure.reached, Reached::No);
        }
    }

    #[test]
    fn a_200_that_is_no_token_response_is_transient() {
        for body in [
            "",
            "<html>",
            "[]",
            "{}",
            r#"{"access_token":""}"#,
            r#"{"access_token":5}"#,
            "{\"access_token\":\"a\\nb\"}",
        ] {
            let failure =
                read(200, &Headers::new(), body.as_bytes(), &TokenFields::default(), SENT)
                    .unwrap_err();
            assert_eq!(failure.class, Class::Transient, "{body}");
            assert_eq!(failure.reached, Reached::Perhaps, "{body}");
        }
    }

    #[test]
    fn retry_after_in_both_forms() {
        let after = |value: &str| {
            let mut headers = Headers::new();
            headers.push("Retry-After", value);
            headers.retry_after_ms(SENT)
        };
        assert_eq!(after("7"), Some(7_000));
        assert_eq!(after("Fri, 15 Jan 2027 08:00:30 GMT"), Some(30_000));
        assert_eq!(after("Fri, 15 Jan 2021 08:00:30 GMT"), None);
        assert_eq!(after("soon"), None);
        assert_eq!(Headers::new().retry_after_ms(SENT), None);
    }

    #[test]
    fn a_gateway_without_an_answer_of_the_issuer_says_nothing_of_the_refresh_token() {
        let sent = Timestamp::from_secs(1_800_000_000);
        let dead = r#"{"error":"invalid_grant"}"#;
        let cases = [
            (502, "<html>", Reached::Perhaps),
            (504, "", Reached::Perhaps),
            (200, "<html>", Reached::Perhaps),
            (502, dead, Reached::No),
            (500, "", Reached::No),
            (503, "", Reached::No),
            (429, "", Reached::No),
        ];
        for (status, body, expected) in cases {
            let failure =
                read(status, &Headers::new(), body.as_bytes(), &TokenFields::default(), sent)
                    .unwrap_err();
            assert_eq!(failure.reached, expected, "{status} {body}");
        }
    }
}
