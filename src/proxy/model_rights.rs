//! Whether a request whose key may use only certain models names one of those.
//!
//! A request that may start the work of a model is refused unless each model that it names is one of the key's, and it
//! names one. So nothing that can't be read leads to another model.

use crate::http::message::{BodyLength, RequestHead, path_of};
use crate::http::refusal::Refusal;
use crate::ingress::Request;
use crate::proxy::api::{self, Work};
use crate::proxy::body::{TakenBody, Wanted};
use crate::proxy::coded;
use crate::proxy::model;
use crate::proxy::outcome::Stop;
use crate::proxy::rights::Rights;
use crate::proxy::state::Proxy;

/// Methods that start no work of a model, without a body.
const READING_METHODS: [&str; 4] = ["GET", "HEAD", "DELETE", "OPTIONS"];
/// Media types of forms.
const FORMS: [&str; 2] = ["multipart/", "application/x-www-form-urlencoded"];
/// The parameter of a query that names a model.
const MODEL_PARAMETER: &str = "model";

/// The body of a request, after its models were checked; `target` is its target for a provider. Of a request that may
/// use every model, the body is taken as `wanted` says.
pub(super) fn take_checked(
    proxy: &Proxy,
    request: &mut Request<'_>,
    rights: Rights<'_>,
    target: &str,
    wanted: Wanted<'_>,
) -> Result<TakenBody, Stop> {
    if !rights.are_by_model() || !asks_body(rights, request.head, target)? {
        return take_body(proxy, request, wanted);
    }
    checked_body(proxy, request, rights)
}

// Not inlined: keeps worker stacks small.
#[inline(never)]
fn checked_body(
    proxy: &Proxy,
    request: &mut Request<'_>,
    rights: Rights<'_>,
) -> Result<TakenBody, Stop> {
    let body = take_body(proxy, request, Wanted::default())?;
    let body = coded::whole(&proxy.settings.limits, request, body)?.map_err(|why| {
        rights.refusal(&format!("may not send a body whose model can't be read ({why})"))
    })?;
    check_body(rights, request.head, body.plain().unwrap_or_default())?;
    Ok(body)
}

/// Reads the body up to `replay_body_bytes`, so that it can be sent again; a larger one is streamed.
fn take_body(
    proxy: &Proxy,
    request: &mut Request<'_>,
    wanted: Wanted<'_>,
) -> Result<TakenBody, Stop> {
    let held_max = proxy.settings.limits.replay_body_bytes;
    let taken = TakenBody::take(request.head.body, request.body, held_max, wanted);
    taken.map_err(Stop::of_body)
}

/// True if the body decides whether the request may use its model.
fn asks_body(rights: Rights<'_>, head: &RequestHead, target: &str) -> Result<bool, Refusal> {
    let path = path_of(target);
    if api::is_ambiguous(path) {
        return Err(rights.refusal("may not use a path that servers read in different ways"));
    }
    let in_path = api::model_in(path);
    if let Some(model) = &in_path {
        rights.check_model(&model.name)?;
    }
    let query = target[path.len()..].trim_start_matches('?');
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        if name == MODEL_PARAMETER {
            rights.check_model(&value)?;
        }
    }
    if in_path.is_some_and(|model| model.decides) {
        return Ok(false);
    }
    let work = api::work_of(path);
    if work == Work::ListsModels {
        return Err(
            rights.refusal("may not see this list of models, which can't be cut to its own")
        );
    }
    let is_reading = READING_METHODS.contains(&&*head.method);
    let is_empty = matches!(head.body, BodyLength::Absent | BodyLength::Sized(0));
    if work == Work::NoModel || (is_reading && is_empty) {
        return Ok(false);
    }
    if work == Work::HidesModels {
        return Err(
            rights.refusal("may not send what names its models within (a batch, a session)")
        );
    }
    Ok(true)
}

fn check_body(rights: Rights<'_>, head: &RequestHead, plain: &[u8]) -> Result<(), Refusal> {
    for kind in head.headers.all("content-type") {
        let kind = String::from_utf8_lossy(kind).to_ascii_lowercase();
        // Such a body may begin like a JSON object.
        if FORMS.iter().any(|form| kind.starts_with(form)) {
            return Err(rights.refusal("may not send a form, whose model is not looked for"));
        }
        // Another charset could spell another key `model`.
        let charset = kind.split_once("charset=").map(|(_, name)| name.trim_matches([' ', '"']));
        if charset.is_some_and(|name| !name.starts_with("utf-8") && !name.starts_with("utf8")) {
            return Err(
                rights.refusal("may not send a body in the charset that it names, but in UTF-8")
            );
        }
    }
    let names = model::all(plain);
    let names = names.ok_or_else(|| {
        rights
            .refusal("may not send a body that is no whole JSON object, or whose model is no text")
    })?;
    if names.is_empty() {
        return Err(rights.refusal("may not send a request that names no model"));
    }
    names.iter().try_for_each(|name| rights.check_model(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::KeyRights;
    use crate::http::message::{Headers, Version, method as method_of};
    use crate::proxy::client_key::ClientKey;
    use crate::proxy::limits::AllUsed;
    use crate::proxy::metrics::Metrics;

    fn key() -> ClientKey {
        let models = Some(vec!["gpt-*".into(), "gemini-pro".into()]);
        ClientKey::new(
            &KeyRights { models, ..KeyRights::all("ci") },
            &Metrics::new(),
            &mut AllUsed::default(),
        )
    }

    fn head(method: &str, body: BodyLength, content_type: &str) -> RequestHead {
        let mut headers = Headers::new();
        headers.push("Content-Type", content_type);
        RequestHead {
            method: method_of(method.as_bytes()),
            target: "/".into(),
            version: Version::Http11,
            authority: None,
            headers,
            body,
        }
    }

    #[test]
    fn what_the_head_of_a_request_says() {
        let key = key();
        let (none, some) = (BodyLength::Absent, BodyLength::Sized(1));
        for (method, target, body, expected) in [
            ("POST", "/v1/messages", some, Ok(true)),
            ("POST", "/v1/messages/count_tokens", some, Ok(true)),
            ("POST", "/anything", BodyLength::Chunked, Ok(true)),
            ("GET", "/v1/chat/completions", some, Ok(true)),
            ("POST", "/v1/responses", none, Ok(true)),
            ("GET", "/v1/responses/r", none, Ok(false)),
            ("GET", "/v1/responses/r", BodyLength::Sized(0), Ok(false)),
            ("DELETE", "/v1/files/f", none, Ok(false)),
            ("POST", "/v1/files", some, Ok(false)),
            ("POST", "/v1/batches/b/cancel", some, Ok(false)),
            ("POST", "/v1/batches", some, Err("names its models within")),
            ("GET", "/v1/batches/b", none, Ok(false)),
            ("GET", "/v1beta/models", none, Err("this list")),
            ("GET", "/v1/models/gpt-5", none, Ok(false)),
            ("GET", "/v1/models/o3", none, Err("the model 'o3'")),
            ("POST", "/v1beta/models/gemini-pro:generateContent", some, Ok(false)),
            (
                "POST",
                "/v1beta/models/gemini-max:generateContent",
                some,
                Err("the model 'gemini-max'"),
            ),
            ("POST", "/openai/deployments/gpt-5/chat/completions?api-version=1", some, Ok(false)),
            ("POST", "/openai/deployments/mine/chat/completions", some, Err("the model 'mine'")),
            ("GET", "/v1/realtime?model=o3", none, Err("the model 'o3'")),
            ("GET", "/v1/realtime?x=1&model=gpt-r", none, Ok(false)),
            ("POST", "/v1/responses?model=gpt-5", some, Ok(true)),
        ] {
            let said = asks_body(Rights::of(&key), &head(method, body, ""), target);
            match (said, expected) {
                (Ok(asks), Ok(expected)) => assert_eq!(asks, expected, "{method} {target}"),
                (Err(refused), Err(part)) => {
                    assert!(refused.message.contains(part), "{}", refused.message);
                }
                (said, _) => panic!("{method} {target}: {said:?}"),
            }
        }
    }

    #[test]
    fn what_the_body_of_a_request_says() {
        let key = key();
        let json = "application/json; charset=utf-8";
        for (kind, body, part) in [
            (json, r#"{"model":"gpt-5"}"#, None),
            ("", r#"{"model":"models/gemini-pro"}"#, None),
            (json, r#"{"model":"o3"}"#, Some("may not use the model 'o3'")),
            (json, r#"{"model":"gpt-5","model":"o3"}"#, Some("'o3'")),
            (json, r#"{"model":"o3","model":"gpt-5"}"#, Some("'o3'")),
            (json, r#"{"model":"gpt-5","models":["o3"]}"#, Some("'o3'")),
            (json, "{}", Some("names no model")),
            (json, r#"{"model":"gpt-5"#, Some("no whole JSON object")),
            ("Multipart/form-data; boundary=x", r#"{"model":"gpt-5"}"#, Some("a form")),
            ("application/x-www-form-urlencoded", r#"{"model":"gpt-5"}"#, Some("a form")),
        ] {
            let said = check_body(
                Rights::of(&key),
                &head("POST", BodyLength::Chunked, kind),
                body.as_bytes(),
            );
            match (said, part) {
                (Ok(()), None) => {}
                (Err(refused), Some(part)) => {
                    assert!(refused.message.contains(part), "{}", refused.message);
                }
                (said, _) => panic!("{body}: {said:?}"),
            }
        }
        let long = format!("{{\"model\":\"{}\"}}", "x\u{1b}".repeat(100));
        let refused =
            check_body(Rights::of(&key), &head("POST", BodyLength::Chunked, ""), long.as_bytes());
        let message = refused.unwrap_err().message;
        assert!(message.len() < 1000 && !message.contains('\u{1b}'), "{message}");
    }
}
