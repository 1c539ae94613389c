//! The registration of a client (RFC 7591): the request, and the answer. Pure.

use serde_json::{Value, json};

use crate::clock::Timestamp;
use crate::secret::Secret;
use crate::token::discovery::{Metadata, answered, read_json, shown};
use crate::token::grant::{TokenRequest, json_request};
use crate::token::sender::TokenAnswer;

/// The longest client id that is accepted.
const CLIENT_ID_MAX_BYTES: usize = 2048;

/// A client as its issuer knows it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Client {
    pub id: String,
    /// None for a public client.
    pub secret: Option<Secret>,
    /// The key of its authentication, if it has a secret.
    pub auth: Option<&'static str>,
    /// The time from which on the issuer refuses the secret, if it says one.
    pub secret_ends: Option<Timestamp>,
}

/// The request for a public client that returns to `redirect_uri`, or uses a device code if there is none.
pub(crate) fn request(
    url: &str,
    issuer: &Metadata,
    redirect_uri: Option<&str>,
    scope: Option<&str>,
) -> TokenRequest {
    let device = "urn:ietf:params:oauth:grant-type:device_code";
    let first = if redirect_uri.is_some() { "authorization_code" } else { device };
    let responses: &[&str] = if redirect_uri.is_some() { &["code"] } else { &[] };
    let mut client = json!({
        "client_name": "evertoken",
        "application_type": "native",
        "redirect_uris": redirect_uri.into_iter().collect::<Vec<_>>(),
        "grant_types": [first, "refresh_token"],
        "response_types": responses,
        "token_endpoint_auth_method": auth_method(issuer),
    });
    if let Some(scope) = scope {
        client["scope"] = scope.into();
    }
    json_request(url, &client)
}

/// `none`, unless the issuer has only clients with a secret.
fn auth_method(issuer: &Metadata) -> &'static str {
    let takes = |method: &&&str| match &issuer.auth_methods {
        Some(methods) => methods.iter().any(|one| one == **method),
        None => true,
    };
    let known = ["none", "client_secret_post", "client_secret_basic"];
    known.iter().find(takes).copied().unwrap_or("none")
}

/// The client in the answer of `url`; the error says why there is none.
pub(crate) fn read(url: &str, answer: &TokenAnswer) -> Result<Client, String> {
    let document = read_json(&answer.headers, &answer.body);
    let text = |key: &str| {
        let value = document.as_ref().ok()?.get(key)?.as_str()?;
        Some(value).filter(|value| !value.is_empty())
    };
    if !(200..300).contains(&answer.status) {
        let why = [text("error"), text("error_description")];
        let why: Vec<_> = why.into_iter().flatten().map(shown).collect();
        let why = if why.is_empty() { String::new() } else { format!(" ({})", why.join(": ")) };
        return Err(format!("{url} answers {}{why}", answered(answer.status)));
    }
    if let Err(why) = &document {
        return Err(format!("The answer of {url} {why}"));
    }
    let id = text("client_id").ok_or_else(|| format!("The answer of {url} has no 'client_id'"))?;
    if id.len() > CLIENT_ID_MAX_BYTES || id.chars().any(char::is_control) {
        return Err(format!("The answer of {url} has a senseless 'client_id'"));
    }
    let method = text("token_endpoint_auth_method").unwrap_or("client_secret_basic");
    let secret = text("client_secret").filter(|_| method != "none").map(Secret::new);
    let auth = secret.as_ref().map(|_| match method {
        "client_secret_basic" => "client_secret_basic",
        _ => "client_secret_post",
    });
    let ends = document.as_ref().ok().and_then(|document| document.get("client_secret_expires_at"));
    let secret_ends = ends.and_then(time_of).filter(|_| secret.is_some());
    Ok(Client { id: id.to_owned(), secret, auth, secret_ends })
}

/// A time in seconds since 1970; 0 stands for none (RFC 7591 §3.2.1).
fn time_of(value: &Value) -> Option<Timestamp> {
    let text = match value {
        Value::String(text) => text.clone(),
        number => number.to_string(),
    };
    let seconds = text.split('.').next()?.parse::<i64>().ok().filter(|seconds| *seconds > 0)?;
    Some(Timestamp::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::message::Headers;

    fn answer(status: u16, body: &str) -> TokenAnswer {
        TokenAnswer { status, headers: Headers::new(), body: body.as_bytes().to_vec(), said: None }
    }

    fn asked(request: &TokenRequest) -> Value {
        serde_json::from_str(request.body.expose()).unwrap()
    }

    #[test]
    fn a_native_public_client_is_asked_for() {
        let request = super::request(
            "https://i/register",
            &Metadata::default(),
            Some("http://127.0.0.1:1/callback"),
            Some("a"),
        );
        assert_eq!((request.method, request.url.as_str()), ("POST", "https://i/register"));
        assert_eq!(
            asked(&request),
            json!({
                "client_name": "evertoken", "application_type": "native",
                "redirect_uris": ["http://127.0.0.1:1/callback"],
                "grant_types": ["authorization_code", "refresh_token"], "response_types": ["code"],
                "token_endpoint_auth_method": "none", "scope": "a",
            })
        );
        let device = asked(&super::request("https://i/r", &Metadata::default(), None, None));
        assert_eq!(device["redirect_uris"], json!([]));
        assert_eq!(device["grant_types"][0], "urn:ietf:params:oauth:grant-type:device_code");
        assert_eq!(device.get("scope"), None);
        for (methods, expected) in [
            (&["client_secret_basic", "none"][..], "none"),
            (&["client_secret_basic", "client_secret_post"], "client_secret_post"),
            (&["client_secret_basic"], "client_secret_basic"),
            (&["private_key_jwt"], "none"),
        ] {
            let methods = methods.iter().map(ToString::to_string).collect();
            let issuer = Metadata { auth_methods: Some(methods), ..Metadata::default() };
            let asked = asked(&super::request("https://i/r", &issuer, None, None));
            assert_eq!(asked["token_endpoint_auth_method"], expected);
        }
    }

    #[test]
    fn the_answer_is_the_client_or_the_reason_why_there_is_none() {
        let client = |body: &str| read("https://i/r", &answer(201, body)).unwrap();
        let public = r#"{"client_id":"c","client_secret":"s","token_endpoint_auth_method":"none"}"#;
        assert_eq!(
            client(public),
            Client { id: "c".into(), secret: None, auth: None, secret_ends: None }
        );
        let secret = || Some(Secret::new("s"));
        for (method, auth) in [
            (r#","token_endpoint_auth_method":"client_secret_post""#, "client_secret_post"),
            (r#","token_endpoint_auth_method":"client_secret_basic""#, "client_secret_basic"),
            // RFC 7591 §2.
            ("", "client_secret_basic"),
        ] {
            let body = format!(r#"{{"client_id":"c","client_secret":"s"{method}}}"#);
            let auth = Some(auth);
            assert_eq!(
                client(&body),
                Client { id: "c".into(), secret: secret(), auth, secret_ends: None }
            );
        }
        let ends = |value: &str| {
            let body = format!(
                r#"{{"client_id":"c","client_secret":"s","client_secret_expires_at":{value}}}"#
            );
            client(&body).secret_ends
        };
        // RFC 7591 §3.2.1: 0 is never.
        for never in ["0", "null", "-1", "true", "\"\""] {
            assert_eq!(ends(never), None, "{never}");
        }
        for known in ["1800000000", "1800000000.0", "\"1800000000\""] {
            assert_eq!(ends(known), Some(Timestamp::from_secs(1_800_000_000)), "{known}");
        }
        let unused =
            public.replace("\"client_secret\"", "\"client_secret_expires_at\":9,\"client_secret\"");
        assert_eq!(client(&unused).secret_ends, None);
        let refused = |status, body: &str| read("https://i/r", &answer(status, body)).unwrap_err();
        assert_eq!(
            refused(400, r#"{"error":"invalid_redirect_uri","error_description":"no\u001b"}"#),
            "https://i/r answers 400 Bad Request (invalid_redirect_uri: no\\u{1b})"
        );
        assert_eq!(refused(403, "<html>"), "https://i/r answers 403 Forbidden");
        assert_eq!(refused(201, "<html>"), "The answer of https://i/r is no JSON object");
        assert_eq!(refused(201, "{}"), "The answer of https://i/r has no 'client_id'");
        let sized = |length: usize| format!(r#"{{"client_id":"{}"}}"#, "c".repeat(length));
        assert_eq!(client(&sized(CLIENT_ID_MAX_BYTES)).id.len(), CLIENT_ID_MAX_BYTES);
        assert!(refused(201, &sized(CLIENT_ID_MAX_BYTES + 1)).contains("senseless"));
        assert!(refused(201, r#"{"client_id":"a\nb"}"#).contains("senseless"));
    }
}
