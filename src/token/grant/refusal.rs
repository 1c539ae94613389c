//! Finds the error in an issuer's answer: RFC 6749 §5.2, and the places that issuers chose instead. Pure.

use serde_json::Value;

use crate::config::token_fields::TokenFields;
use crate::token::grant::codes::{DEAD_BY_DESCRIPTION, IN_PROGRESS, Meaning};

/// The longest code that is shown.
const CODE_MAX_BYTES: usize = 48;
/// Shown for an error without a code, because nothing else of an answer may reach the log.
const UNNAMED: &str = "unnamed";
/// The beginning of Microsoft's codes in a description.
const AADSTS: &str = "AADSTS";
/// Members besides `error` that hold a code.
const OTHER_MEMBERS: [&str; 5] = ["errorCode", "error_code", "code", "status", "errorType"];
/// A member whose number is a code, with 0 for success (`WeChat`, `DingTalk`).
const NUMBERED: &str = "errcode";
/// Values of `error` that mean success.
const NO_ERROR: [&str; 8] = ["", "0", "ok", "success", "none", "null", "false", "no_error"];
/// Codes of RFC 8628 §3.5 that Twitch has in the place of a sentence.
const OF_DEVICE: [&str; 2] = ["authorization_pending", "slow_down"];
/// Members that hold a description.
const DESCRIPTIONS: [&str; 7] = [
    "error_description", "message", "msg", "error_message", "errorSummary", "description", "errmsg",
];

/// The code in the member that RFC 6749 names for it, or at its configured place.
///
/// `error` is a text, or an object with `code` or `type`. Some issuers fill in every member, so an empty one is no
/// error: the token next to it must not be lost.
pub(super) fn standard_code(answer: &Value, fields: &TokenFields, status: u16) -> Option<String> {
    let error = fields.value(answer, "error")?;
    let code = match error {
        Value::Null | Value::Bool(false) => return None,
        Value::String(code) if NO_ERROR.contains(&code.trim().to_ascii_lowercase().as_str()) => {
            return None;
        }
        Value::Object(object) if object.is_empty() => return None,
        Value::Array(list) if list.is_empty() => return None,
        Value::Number(number) if number.as_f64() == Some(0.0) => return None,
        error => best(codes_in_error(error)).unwrap_or_else(|| UNNAMED.to_owned()),
    };
    Some(detailed(code, answer, fields, status))
}

/// The code from any place; if the status is a success, only a known code.
pub(super) fn any_code(answer: &Value, fields: &TokenFields, status: u16) -> Option<String> {
    if let Some(code) = standard_code(answer, fields, status) {
        return Some(code);
    }
    if let Some(number) = answer.get(NUMBERED).and_then(numbered) {
        return Some(detailed(number, answer, fields, status));
    }
    let first = answer.get("errors").and_then(|errors| errors.get(0));
    let objects = [Some(answer), first].into_iter().flatten();
    let codes = objects.flat_map(|object| OTHER_MEMBERS.iter().filter_map(|key| text(object, key)));
    let of_field = first.and_then(code_of_field);
    let of_device = text(answer, "message").filter(|message| OF_DEVICE.contains(message));
    let of_device = of_device.map(str::to_owned);
    let code = best(codes.filter_map(shown).chain(of_field).chain(of_device).collect());
    let code = code.map(|code| detailed(code, answer, fields, status)).or_else(|| {
        let dead = description_names_dead_token(answer, fields, status);
        dead.then(|| format!("{UNNAMED}/{DEAD_BY_DESCRIPTION}"))
    });
    let is_success = (200..300).contains(&status);
    code.filter(|code| !is_success || Meaning::of(code) != Meaning::Unknown)
}

/// `invalid_refresh_token` for Strava's `{"resource":"RefreshToken","field":"refresh_token","code":"invalid"}`.
fn code_of_field(error: &Value) -> Option<String> {
    let field = text(error, "field").filter(|_| text(error, "code") == Some("invalid"))?;
    shown(&format!("invalid_{field}"))
}

/// A number that is not 0, as a code.
fn numbered(value: &Value) -> Option<String> {
    let number = match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    number.filter(|number| *number != 0).map(|number| number.to_string())
}

/// The first code that says more than that the request is wrong, else the first with a meaning, else the first.
fn best(codes: Vec<String>) -> Option<String> {
    let find =
        |vague: &[Meaning]| codes.iter().position(|code| !vague.contains(&Meaning::of(code)));
    let known = find(&[Meaning::Unknown, Meaning::Form]).or_else(|| find(&[Meaning::Unknown]));
    codes.into_iter().nth(known.unwrap_or(0))
}

fn codes_in_error(error: &Value) -> Vec<String> {
    if let Value::String(code) = error {
        return shown(code).into_iter().collect();
    }
    let mut codes: Vec<String> = ["code", "type", "status", "error"]
        .iter()
        .filter_map(|key| shown(text(error, key)?))
        .collect();
    if let (Some(number), Some(kind)) =
        (error.get("code").and_then(Value::as_i64), text(error, "type"))
    {
        codes.extend(shown(&format!("{kind}.{number}")));
    }
    // Firebase writes its code in the place of a sentence.
    let message = text(error, "message").and_then(shown);
    codes.extend(message.filter(|code| Meaning::of(code) != Meaning::Unknown));
    codes
}

/// Adds details to `code`: the issuer's own code, or a note that the description speaks of a dead refresh token. A code
/// whose description says that another request with the refresh token is under way gives way to [`IN_PROGRESS`].
fn detailed(code: String, answer: &Value, fields: &TokenFields, status: u16) -> String {
    let own = text(answer, "error_subtype").or_else(|| microsoft_code(answer));
    if let Some(own) = own.and_then(shown) {
        return format!("{code}/{own}");
    }
    // A precise code is believed; these codes are used for several faults.
    let is_vague = matches!(
        code.as_str(),
        "unauthorized_client" | "invalid_request" | "invalid_request_error" | "access_denied"
    );
    // Salesforce says `invalid_grant` while an earlier request with the refresh token has no answer yet.
    if (is_vague || code == "invalid_grant")
        && descriptions(answer, fields).any(names_request_in_progress)
    {
        return IN_PROGRESS.to_owned();
    }
    // HubSpot has the precise code beside the standard one.
    let dead = |key: &&str| {
        text(answer, key).and_then(shown).filter(|own| Meaning::of(own) == Meaning::TokenDead)
    };
    if is_vague && let Some(own) = OTHER_MEMBERS.iter().find_map(dead) {
        return format!("{code}/{own}");
    }
    if (is_vague || Meaning::of(&code) == Meaning::Unknown)
        && description_names_dead_token(answer, fields, status)
    {
        return format!("{code}/{DEAD_BY_DESCRIPTION}");
    }
    code
}

/// `AADSTS700082` at the start of the description.
fn microsoft_code(answer: &Value) -> Option<&str> {
    let description = text(answer, "error_description").filter(|text| text.starts_with(AADSTS))?;
    let is_end = |character: char| !character.is_ascii_alphanumeric();
    description.split(is_end).next().filter(|code| code.len() > AADSTS.len())
}

/// True if a description says that the refresh token is invalid, and the status is not that of a fault that passes: a
/// sentence beside such a status may tell of anything about the refresh token.
fn description_names_dead_token(answer: &Value, fields: &TokenFields, status: u16) -> bool {
    if !matches!(status, 200..=299 | 400..=499) || matches!(status, 408 | 409 | 425 | 429) {
        return false;
    }
    descriptions(answer, fields).any(names_dead_token)
}

/// All sentences about an error, wherever issuers put them.
fn descriptions<'a>(
    answer: &'a Value,
    fields: &'a TokenFields,
) -> impl Iterator<Item = &'a str> + 'a {
    let error = fields.value(answer, "error");
    let first = answer.get("errors").and_then(|errors| errors.get(0));
    let objects = [Some(answer), error, first].into_iter().flatten();
    let inner = objects.flat_map(|object| DESCRIPTIONS.iter().filter_map(|key| text(object, key)));
    let configured = fields.value(answer, "error_description").and_then(Value::as_str);
    inner.chain(configured).chain(error.and_then(Value::as_str))
}

/// Words for a refresh that another one with the same refresh token runs into.
const UNDER_WAY: [&str; 4] =
    ["in progress", "already being processed", "multiple concurrent requests", "retry the request"];

/// True if a sentence says that another request with the refresh token is under way (`token request is already being
/// processed`).
fn names_request_in_progress(description: &str) -> bool {
    let description = description.to_ascii_lowercase();
    description.contains("token") && UNDER_WAY.iter().any(|words| description.contains(words))
}

/// True if one part of a sentence says that the refresh token is invalid (`Invalid refresh token`, `refresh_token is
/// invalid`, `The refresh token has expired`), and not how the request must be written.
fn names_dead_token(description: &str) -> bool {
    const OVER: [&str; 8] = [
        "invalid", "expired", "revoked", "unknown", "not found", "already", "not valid",
        "no longer",
    ];
    // Words for a fault of the issuer.
    const PASSES: [&str; 1] = ["unknown error"];
    // Words for a request, and for parts of one other than the token.
    const FORM: [&str; 12] = [
        "grant type", "content type", "content-type", "parameter name", "missing", "required",
        "must be", "must not be", "should be", "expected", "not supported", "unsupported",
    ];
    let description = description.to_ascii_lowercase().replace('_', " ");
    let description = description.replace("invalid request", "");
    description.split(['.', ';', ',', '\n']).any(|part| {
        part.contains("refresh token")
            && OVER.iter().any(|over| part.contains(over))
            && !FORM.iter().chain(&PASSES).chain(&UNDER_WAY).any(|other| part.contains(other))
    })
}

fn text<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object.get(key).and_then(Value::as_str).filter(|text| !text.is_empty())
}

/// Returns `code` if it looks like a code, so that nothing else from an answer reaches the log.
fn shown(code: &str) -> Option<String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    (code.len() <= CODE_MAX_BYTES && code.bytes().all(plain)).then(|| code.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any(body: &str) -> Option<String> {
        with(400, body)
    }

    fn with(status: u16, body: &str) -> Option<String> {
        any_code(&serde_json::from_str(body).unwrap(), &TokenFields::default(), status)
    }

    #[test]
    fn codes_wherever_issuers_put_them() {
        let cases = [
            (r#"{"error":"invalid_grant"}"#, Some("invalid_grant")),
            (r#"{"error":""}"#, None),
            (r#"{"error":"0"}"#, None),
            (r#"{"error":" OK "}"#, None),
            (r#"{"error":"null"}"#, None),
            // WeChat, DingTalk
            (r#"{"errcode":0,"errmsg":"ok"}"#, None),
            (r#"{"errcode":"0","errmsg":"ok"}"#, None),
            (
                r#"{"errcode":40030,"errmsg":"invalid refresh_token, hints: [ req_id: x ]"}"#,
                Some("40030/refresh_token_invalid"),
            ),
            (r#"{"errcode":-1,"errmsg":"system error"}"#, Some("-1")),
            (r#"{"error":null}"#, None),
            (r#"{"error":false}"#, None),
            (r#"{"error":{}}"#, None),
            (r#"{"error":7}"#, Some("unnamed")),
            (r#"{"error":"the token rt-secret is bad"}"#, Some("unnamed")),
            (
                r#"{"error":{"message":"x","type":"invalid_request_error","code":"token_expired"}}"#,
                Some("token_expired"),
            ),
            (r#"{"error":{"code":"x","type":"invalid_grant"}}"#, Some("invalid_grant")),
            (r#"{"error":{"code":null,"type":"rate_limit_error"}}"#, Some("rate_limit_error")),
            // Google's APIs, Firebase, Facebook
            (
                r#"{"error":{"code":401,"message":"x y","status":"UNAUTHENTICATED"}}"#,
                Some("UNAUTHENTICATED"),
            ),
            (
                r#"{"error":{"code":400,"message":"TOKEN_EXPIRED","status":"INVALID_ARGUMENT"}}"#,
                Some("TOKEN_EXPIRED"),
            ),
            (
                r#"{"error":{"code":190,"type":"OAuthException","message":"x"}}"#,
                Some("OAuthException.190"),
            ),
            // Okta, Supabase, HubSpot, Fitbit, a gateway
            (r#"{"errorCode":"invalid_grant","errorSummary":"x"}"#, Some("invalid_grant")),
            (
                r#"{"code":400,"error_code":"refresh_token_not_found","msg":"x"}"#,
                Some("refresh_token_not_found"),
            ),
            (r#"{"status":"BAD_REFRESH_TOKEN","message":"x"}"#, Some("BAD_REFRESH_TOKEN")),
            (
                r#"{"errors":[{"errorType":"invalid_grant","message":"x"}],"success":false}"#,
                Some("invalid_grant"),
            ),
            (r#"{"message":"Forbidden"}"#, None),
            (r#"{"title":"Forbidden","status":403}"#, None),
            // Google, Microsoft
            (
                r#"{"error":"invalid_grant","error_subtype":"invalid_rapt"}"#,
                Some("invalid_grant/invalid_rapt"),
            ),
            (
                r#"{"error":"invalid_grant","error_description":"AADSTS700082: The refresh token rt-secret"}"#,
                Some("invalid_grant/AADSTS700082"),
            ),
            (
                r#"{"error":"invalid_client","error_description":"AADSTS7000222: x"}"#,
                Some("invalid_client/AADSTS7000222"),
            ),
            // Atlassian, Twitch, LinkedIn
            (
                r#"{"error":"unauthorized_client","error_description":"refresh_token is invalid"}"#,
                Some("unauthorized_client/refresh_token_invalid"),
            ),
            (
                r#"{"error":"Bad Request","status":400,"message":"Invalid refresh token"}"#,
                Some("unnamed/refresh_token_invalid"),
            ),
            (
                r#"{"message":"The refresh token has expired"}"#,
                Some("unnamed/refresh_token_invalid"),
            ),
            (
                r#"{"error":"invalid_request","error_description":"The provided refresh token is invalid"}"#,
                Some("invalid_request/refresh_token_invalid"),
            ),
            // About another fault
            (
                r#"{"error":"unauthorized_client","error_description":"Invalid grant type refresh_token for the client"}"#,
                Some("unauthorized_client"),
            ),
            (
                r#"{"error":"invalid_client","error_description":"refresh token invalid"}"#,
                Some("invalid_client"),
            ),
            (
                r#"{"error":"temporarily_unavailable","error_description":"unknown refresh token"}"#,
                Some("temporarily_unavailable"),
            ),
            // Zoho says this of too many requests.
            (
                r#"{"error":"Access Denied","error_description":"You have made too many requests"}"#,
                Some("unnamed"),
            ),
        ];
        for (body, expected) in cases {
            assert_eq!(any(body).as_deref(), expected, "{body}");
        }
    }

    /// A dead refresh token of `HubSpot`'s third version counted as a request of the wrong form, and Strava's was tried again without
    /// end.
    #[test]
    fn codes_beside_a_vague_one_and_of_a_field() {
        let cases = [
            // HubSpot
            (
                r#"{"status":"BAD_REFRESH_TOKEN","error":"invalid_request","error_description":"missing or invalid refresh token"}"#,
                Some("invalid_request/BAD_REFRESH_TOKEN"),
            ),
            // Strava; a field that is missing is a fault of the form.
            (
                r#"{"message":"Bad Request","errors":[{"resource":"RefreshToken","field":"refresh_token","code":"invalid"}]}"#,
                Some("invalid_refresh_token"),
            ),
            (
                r#"{"message":"Bad Request","errors":[{"resource":"Application","field":"client_id","code":"invalid"}]}"#,
                Some("invalid_client_id"),
            ),
            (
                r#"{"message":"Bad Request","errors":[{"resource":"Application","field":"client_id","code":"missing"}]}"#,
                Some("missing"),
            ),
        ];
        for (body, expected) in cases {
            assert_eq!(any(body).as_deref(), expected, "{body}");
        }
    }

    #[test]
    fn a_description_of_the_form_names_no_dead_token() {
        let cases = [
            (
                r#"{"error":"invalid_request_error","error_description":"Refresh token not found."}"#,
                Some("invalid_request_error/refresh_token_invalid"),
            ),
            // A fault of the issuer, and a refresh beside this one.
            (r#"{"message":"Unknown error while loading the refresh token"}"#, None),
            (
                r#"{"error":"bad request","message":"Refresh token request already in progress"}"#,
                Some("unnamed"),
            ),
            // About the form of the request
            (
                r#"{"error":"invalid_request","error_description":"client_id must be sent as JSON"}"#,
                Some("invalid_request"),
            ),
            (
                r#"{"error":"invalid_request","error_description":"Invalid request: refresh_token is missing"}"#,
                Some("invalid_request"),
            ),
            (
                r#"{"error":"invalid_request","error_description":"Unknown content type; send client_id and refresh_token as JSON"}"#,
                Some("invalid_request"),
            ),
            (
                r#"{"error":"invalid_request","error_description":"refresh_token must be sent as JSON, not as an unknown form"}"#,
                Some("invalid_request"),
            ),
            (
                r#"{"error":"invalid_request","error_description":"invalid_request: send grant_type, client_id and refresh_token"}"#,
                Some("invalid_request"),
            ),
            (
                r#"{"error":{"message":"x","type":"invalid_request_error","code":"slow_down"}}"#,
                Some("slow_down"),
            ),
        ];
        for (body, expected) in cases {
            assert_eq!(any(body).as_deref(), expected, "{body}");
        }
    }

    /// The spent seed was presented in the place of a healthy chain.
    #[test]
    fn beside_a_status_that_passes_a_sentence_names_no_dead_token() {
        let cases = [
            (r#"{"message":"Unknown error while loading refresh token"}"#, None),
            (r#"{"message":"Refresh token request already in progress"}"#, None),
            (r#"{"error":"Unknown error while loading refresh token"}"#, Some("unnamed")),
            (
                r#"{"error":"invalid_request","error_description":"The refresh token is invalid"}"#,
                Some("invalid_request"),
            ),
            (r#"{"errcode":-1,"errmsg":"refresh token already in use"}"#, Some("-1")),
            // The issuer names it.
            (r#"{"error":"invalid_refresh_token","message":"x"}"#, Some("invalid_refresh_token")),
        ];
        for (body, expected) in cases {
            for status in [302, 408, 409, 425, 429, 500, 502, 503, 504, 599] {
                assert_eq!(with(status, body).as_deref(), expected, "{status} {body}");
            }
        }
        for status in [200, 400, 401, 403, 404, 407, 410, 422, 426, 428, 430, 499] {
            let code = with(status, r#"{"message":"Unknown refresh token"}"#);
            assert_eq!(code.as_deref(), Some("unnamed/refresh_token_invalid"), "{status}");
        }
    }

    #[test]
    fn in_a_success_only_what_is_known_counts_beside_the_standard_place() {
        let success = |body: &str| with(200, body);
        assert_eq!(success(r#"{"status":"ok","code":"success"}"#), None);
        assert_eq!(
            success(r#"{"status":"BAD_REFRESH_TOKEN"}"#).as_deref(),
            Some("BAD_REFRESH_TOKEN")
        );
        assert_eq!(success(r#"{"ok":false,"error":"odd"}"#).as_deref(), Some("odd"));
        assert_eq!(success(r#"{"errcode":45009,"errmsg":"x"}"#).as_deref(), Some("45009"));
        assert_eq!(success(r#"{"errcode":0}"#), None);
    }
}
