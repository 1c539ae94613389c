//! What the answer to a token request is (RFC 6749 §5): a grant, or a failure and what it leads to. Pure.

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::clock::Timestamp;
use crate::config::Missing;
use crate::message::{Headers, reason_phrase};
use crate::secret::Secret;
use crate::token::scope;

mod request;

pub use request::{TokenRequest, request, request_with};

/// A lifetime assumed where nothing names one.
pub const LIFETIME_ASSUMED_MS: i64 = 3_600_000;
/// A lifetime beyond this is taken for a mistake.
pub const LIFETIME_MAX_MS: i64 = 10 * 366 * 24 * 3_600_000;
/// The longest OAuth error code that is shown.
const ERROR_CODE_MAX_BYTES: usize = 64;

/// A token response that can be used (RFC 6749 §5.1).
#[derive(Debug)]
pub struct Grant {
    /// The access token.
    pub access_token: Secret,
    /// The next refresh token, where the issuer rotates.
    pub refresh_token: Option<Secret>,
    /// How long the access token lives, in milliseconds from when the request was sent.
    pub lifetime_ms: i64,
    /// When the issuer wants the next refresh, in milliseconds from when the request was sent.
    pub refresh_in_ms: Option<i64>,
    /// The granted scope, where the answer names it.
    pub scope: Option<String>,
    /// What was odd about the answer, for the log.
    pub warning: Option<String>,
}

/// Whether it makes sense to try again soon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Tried again with backoff.
    Transient,
    /// Tried again after `retry_interval`: somebody has to do something.
    Permanent,
    /// Permanent, and it is the refresh token that is no good.
    TokenDead,
}

/// What is known about the issuer having acted on the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    /// The request never left, or the issuer's answer says that it failed: the refresh token is unused.
    No,
    /// It left and no answer of the issuer came: the refresh token may have been used up.
    Perhaps,
}

/// Why a refresh failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Whether to try again soon.
    pub class: Class,
    /// Whether the refresh token may have been used up.
    pub reached: Reached,
    /// What the server asked to wait, in milliseconds.
    pub retry_after_ms: Option<u64>,
    /// What happened, without any secret: `401 Unauthorized (invalid_client)`.
    pub what: What,
}

/// What happened, in the words of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// An HTTP answer: its status and OAuth error code.
    Status(u16, Option<String>),
    /// A 200 that is no token response.
    NotAToken(&'static str),
    /// No answer: DNS, connection, TLS, timeout.
    NoAnswer(String),
    /// A secret that is not there.
    Missing(Missing),
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status, code) => {
                write!(f, "{status}")?;
                let reason = reason_phrase(*status);
                if !reason.is_empty() {
                    write!(f, " {reason}")?;
                }
                code.as_ref().map_or(Ok(()), |code| write!(f, " ({code})"))
            }
            Self::NotAToken(why) => write!(f, "the answer is no token response: {why}"),
            Self::NoAnswer(why) => f.write_str(why),
            Self::Missing(missing) => write!(f, "{missing}"),
        }
    }
}

impl Failure {
    /// No answer came.
    pub fn no_answer(reached: Reached, why: impl Into<String>) -> Self {
        let what = What::NoAnswer(why.into());
        Self { class: Class::Transient, reached, retry_after_ms: None, what }
    }

    /// A secret is not there.
    pub fn missing(missing: Missing) -> Self {
        let what = What::Missing(missing);
        Self { class: Class::Permanent, reached: Reached::No, retry_after_ms: None, what }
    }

    fn not_a_token(why: &'static str) -> Self {
        // A 200 may well have used up the refresh token.
        let what = What::NotAToken(why);
        Self { class: Class::Transient, reached: Reached::Perhaps, retry_after_ms: None, what }
    }
}

/// Reads the answer to a request sent at `sent`: its status, headers and whole body.
pub fn read(
    status: u16,
    headers: &Headers,
    body: &[u8],
    sent: Timestamp,
) -> Result<Grant, Failure> {
    let json: Option<Value> = serde_json::from_slice(body).ok();
    let code = json.as_ref().and_then(error_code);
    if (200..300).contains(&status) && code.is_none() {
        return read_grant(json.as_ref(), sent);
    }
    Err(Failure {
        class: classify(status, code.as_deref()),
        reached: reached(status, code.as_deref()),
        retry_after_ms: headers.retry_after_ms(sent),
        what: What::Status(status, code),
    })
}

/// A gateway that got no answer, or none that it understood, says nothing of what the issuer did.
fn reached(status: u16, code: Option<&str>) -> Reached {
    match (status, code) {
        (502 | 504, None) => Reached::Perhaps,
        _ => Reached::No,
    }
}

/// `error` is a string (RFC 6749 §5.2) or an object with `code` or `type`. Only what looks like a
/// code is taken, so that nothing else from the body reaches the log.
fn error_code(json: &Value) -> Option<String> {
    let error = json.get("error")?;
    let code = match error {
        // Some issuers fill in every member; the token beside an empty one must not be lost.
        Value::String(code) if code.is_empty() => return None,
        Value::String(code) => code.as_str(),
        Value::Object(object) => ["code", "type"]
            .iter()
            .find_map(|key| object.get(*key).and_then(Value::as_str))
            .unwrap_or("unnamed"),
        Value::Null => return None,
        _ => "unnamed",
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    let shown = code.len() <= ERROR_CODE_MAX_BYTES && code.bytes().all(plain);
    Some(if shown { code.to_owned() } else { "unnamed".to_owned() })
}

/// By the body's error first, by the status second.
fn classify(status: u16, code: Option<&str>) -> Class {
    match code.unwrap_or("") {
        "temporarily_unavailable"
        | "slow_down"
        | "server_error"
        | "rate_limit_error"
        | "rate_limit_exceeded"
        | "overloaded_error" => Class::Transient,
        "invalid_grant" | "invalid_refresh_token" => Class::TokenDead,
        code if code.starts_with("refresh_token_") => Class::TokenDead,
        "invalid_client"
        | "unauthorized_client"
        | "invalid_scope"
        | "unsupported_grant_type"
        | "access_denied"
        | "invalid_target" => Class::Permanent,
        _ => match status {
            408 | 425 | 429 | 500..=599 => Class::Transient,
            // Some issuers say this of a refresh token they no longer know.
            400 if code == Some("invalid_request") => Class::TokenDead,
            // A redirect is not followed, a 2xx or 1xx with an error is odd: captive portals.
            0..=399 => Class::Transient,
            _ => Class::Permanent,
        },
    }
}

fn read_grant(json: Option<&Value>, sent: Timestamp) -> Result<Grant, Failure> {
    let json = json.ok_or_else(|| Failure::not_a_token("it is not JSON"))?;
    let access_token = text(json, "access_token")
        .ok_or_else(|| Failure::not_a_token("it has no 'access_token'"))?;
    if !access_token.bytes().all(|byte| (0x21..=0x7e).contains(&byte)) {
        return Err(Failure::not_a_token("its 'access_token' holds bytes no header may hold"));
    }
    let (lifetime_ms, warning) = lifetime(json, access_token, sent);
    let refresh_in_ms = number(json.get("refresh_in"))
        .map(to_millis)
        .or_else(|| earliest_refresh(json, sent))
        .filter(|refresh_in| (1..lifetime_ms).contains(refresh_in));
    Ok(Grant {
        access_token: Secret::new(access_token),
        refresh_token: text(json, "refresh_token").map(Secret::new),
        lifetime_ms,
        refresh_in_ms,
        scope: scope::granted(json),
        warning,
    })
}

fn text<'a>(json: &'a Value, key: &str) -> Option<&'a str> {
    json.get(key).and_then(Value::as_str).filter(|text| !text.is_empty())
}

/// A number, or a number in a string.
fn number(value: Option<&Value>) -> Option<f64> {
    match value? {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok().filter(|number: &f64| number.is_finite()),
        _ => None,
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a float beyond i64 saturates, as is wanted")]
fn to_millis(secs: f64) -> i64 {
    (secs * 1000.0) as i64
}

/// `earliest_refresh_at`, in seconds since 1970.
fn earliest_refresh(json: &Value, sent: Timestamp) -> Option<i64> {
    let at = Timestamp::from_millis(to_millis(number(json.get("earliest_refresh_at"))?));
    Some(at.millis_since(sent))
}

/// The lifetime from `expires_in`, else the token's own `exp`, else an hour; and what was odd.
fn lifetime(json: &Value, access_token: &str, sent: Timestamp) -> (i64, Option<String>) {
    let sane = |millis: &i64| (1..=LIFETIME_MAX_MS).contains(millis);
    let named = json.get("expires_in").filter(|value| !value.is_null());
    let claimed = number(named).map(to_millis);
    if let Some(millis) = claimed.filter(sane) {
        return (millis, None);
    }
    let from_jwt = jwt_expiry(access_token).map(|exp| exp.millis_since(sent)).filter(sane);
    let (millis, taken) = match from_jwt {
        Some(millis) => (millis, "the token's own 'exp' is taken"),
        None => (LIFETIME_ASSUMED_MS, "one hour is assumed"),
    };
    let warning =
        named.map(|_| format!("The token response's 'expires_in' makes no sense; {taken}"));
    (millis, warning)
}

/// `exp` of a JWT (RFC 7519 §4.1.4), unverified: the token is for somebody else to verify.
fn jwt_expiry(token: &str) -> Option<Timestamp> {
    let mut parts = token.split('.');
    let (_header, payload, _signature) = (parts.next()?, parts.next()?, parts.next()?);
    let payload = BASE64_URL_SAFE_NO_PAD.decode(payload).ok()?;
    let claims: Value = serde_json::from_slice(&payload).ok()?;
    number(claims.get("exp")).map(|secs| Timestamp::from_millis(to_millis(secs)))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{
        AutoRefresh, Call, ClientAuth, GrantType, LoginEndpoints, RequestFormat, SecretFiles,
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
            refresh_before_expiry: Duration::from_mins(5),
            retry_interval: Duration::from_hours(1),
            files: SecretFiles::default(),
            login: LoginEndpoints::default(),
            call: Call::default(),
        }
    }

    #[test]
    fn grants_and_lifetimes() {
        // {"exp":1800000120}
        let jwt = "aa.eyJleHAiOjE4MDAwMDAxMjB9.cc";
        let cases: [(&str, i64, bool); 13] = [
            (r#"{"access_token":"a","expires_in":60}"#, 60_000, false),
            (r#"{"access_token":"a","expires_in":"60"}"#, 60_000, false),
            (r#"{"access_token":"a","expires_in":59.5}"#, 59_500, false),
            (r#"{"access_token":"a","expires_in":60,"error":""}"#, 60_000, false),
            (r#"{"access_token":"a"}"#, LIFETIME_ASSUMED_MS, false),
            (r#"{"access_token":"a","expires_in":null}"#, LIFETIME_ASSUMED_MS, false),
            (r#"{"access_token":"a","expires_in":0}"#, LIFETIME_ASSUMED_MS, true),
            (r#"{"access_token":"a","expires_in":-1}"#, LIFETIME_ASSUMED_MS, true),
            (r#"{"access_token":"a","expires_in":"soon"}"#, LIFETIME_ASSUMED_MS, true),
            (r#"{"access_token":"a","expires_in":316224000}"#, LIFETIME_MAX_MS, false),
            (r#"{"access_token":"a","expires_in":316224001}"#, LIFETIME_ASSUMED_MS, true),
            (&format!(r#"{{"access_token":"{jwt}"}}"#), 120_000, false),
            (&format!(r#"{{"access_token":"{jwt}","expires_in":1e300}}"#), 120_000, true),
        ];
        for (body, lifetime, warns) in cases {
            let grant = read(200, &Headers::new(), body.as_bytes(), SENT).unwrap();
            assert_eq!(grant.lifetime_ms, lifetime, "{body}");
            assert_eq!(grant.warning.is_some(), warns, "{body}");
        }
    }

    #[test]
    fn the_issuers_wish_for_the_next_refresh_counts() {
        let read = |extra: &str| {
            let body = format!(r#"{{"access_token":"a","expires_in":100,{extra}}}"#);
            read(200, &Headers::new(), body.as_bytes(), SENT).unwrap()
        };
        assert_eq!(read(r#""refresh_in":50"#).refresh_in_ms, Some(50_000));
        assert_eq!(read(r#""refresh_in":100"#).refresh_in_ms, None);
        assert_eq!(read(r#""refresh_in":0"#).refresh_in_ms, None);
        assert_eq!(read(r#""earliest_refresh_at":1800000010"#).refresh_in_ms, Some(10_000));
        assert_eq!(read(r#""refresh_token":"""#).refresh_token, None);
        assert_eq!(read(r#""refresh_token":"n""#).refresh_token, Some(Secret::new("n")));
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
                TokenDead,
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
            (401, "", Permanent, "401 Unauthorized"),
            (403, "<html>", Permanent, "403 Forbidden"),
            (404, "{}", Permanent, "404 Not Found"),
            (408, "", Transient, "408 Request Timeout"),
            (425, "", Transient, "425 Too Early"),
            (429, "", Transient, "429 Too Many Requests"),
            (503, "", Transient, "503 Service Unavailable"),
            (302, "", Transient, "302 Found"),
            (418, "", Permanent, "418"),
            (
                400,
                r#"{"error":"the token rt-secret is bad"}"#,
                Permanent,
                "400 Bad Request (unnamed)",
            ),
            (400, r#"{"error":7}"#, Permanent, "400 Bad Request (unnamed)"),
        ];
        for (status, body, class, words) in cases {
            let failure = read(status, &Headers::new(), body.as_bytes(), SENT).unwrap_err();
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
            let failure = read(200, &Headers::new(), body.as_bytes(), SENT).unwrap_err();
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
        assert_eq!(after("Fri, 15 Jan 2021 08:00:30 GMT"), Some(0));
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
            let failure = read(status, &Headers::new(), body.as_bytes(), sent).unwrap_err();
            assert_eq!(failure.reached, expected, "{status} {body}");
        }
    }
}
