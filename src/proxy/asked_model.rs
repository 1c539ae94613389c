//! The model that a request asks for: in its path, or in its body. It is sought only when a refusal or a resting model
//! makes it matter.

use crate::http::inflate;
use crate::http::message::path_of;
use crate::proxy::body::TakenBody;
use crate::proxy::model;

/// The most inflated bytes that are searched.
const INFLATED_MAX_BYTES: usize = 8 * 1024 * 1024;

/// The model that a request with this `target` and `body` asks for.
pub(super) fn asked_model(target: &str, body: &TakenBody) -> Option<String> {
    if let Some(name) = in_path(path_of(target)) {
        return Some(name.to_owned());
    }
    if let Some(field) = body.model() {
        return Some(field.name);
    }
    let TakenBody::Held(bytes) = body else { return None };
    if bytes.starts_with(b"--") {
        return in_form(bytes);
    }
    let (plain, _) = inflate::beginning(bytes, INFLATED_MAX_BYTES)?;
    model::find(&plain).map(|field| field.name)
}

/// The most fields of a form that are read, the longest head of one, and the longest name of a model.
const FIELDS_MAX: usize = 64;
const FIELD_HEAD_MAX_BYTES: usize = 1024;
const FORM_MODEL_MAX_BYTES: usize = 256;

/// The field `model` of a multipart form (RFC 7578).
fn in_form(bytes: &[u8]) -> Option<String> {
    let mut form = bytes;
    let dashes = before(&mut form, b"\r\n")?;
    let boundary = [b"\r\n", dashes].concat();
    for _ in 0..FIELDS_MAX {
        let head =
            before(&mut form, b"\r\n\r\n").filter(|head| head.len() <= FIELD_HEAD_MAX_BYTES)?;
        let value = before(&mut form, &boundary)?;
        if is_model(head) {
            let name =
                Some(value.trim_ascii()).filter(|name| name.len() <= FORM_MODEL_MAX_BYTES)?;
            return String::from_utf8(name.to_vec()).ok().filter(|name| !name.is_empty());
        }
    }
    None
}

/// The part of `rest` before `mark`; `rest` continues after that.
fn before<'a>(rest: &mut &'a [u8], mark: &[u8]) -> Option<&'a [u8]> {
    let at = memchr::memmem::find(rest, mark)?;
    let part = &rest[..at];
    *rest = &rest[at + mark.len()..];
    Some(part)
}

/// True if `head` is that of the field `model` of a form.
fn is_model(head: &[u8]) -> bool {
    let head = String::from_utf8_lossy(head);
    let mut parameters = head.split([';', '\r', '\n']).map(str::trim);
    parameters.any(|one| one.eq_ignore_ascii_case("name=\"model\"") || one == "name=model")
}

/// The name in `/models/<name>:generateContent`, `/deployments/<name>/…` or `/model/<name>/invoke`; the last one.
pub(super) fn in_path(path: &str) -> Option<&str> {
    let mut end = path.len();
    for segment in path.rsplit('/') {
        let rest = path.get(end + 1..).unwrap_or_default();
        let name = match segment {
            "models" => rest.split_once(':'),
            "deployments" | "model" => rest.split_once('/'),
            _ => None,
        };
        if let Some((name, _)) = name.filter(|(name, _)| !name.is_empty()) {
            return Some(name);
        }
        end = end.saturating_sub(segment.len() + 1);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::inflate::tests::gzip;
    use crate::proxy::held::HeldBytes;

    #[test]
    fn models_in_forms() {
        let part = |head: &str, value: &str| {
            format!("--b\r\nContent-Disposition: form-data; {head}\r\n\r\n{value}\r\n")
        };
        let file = part("name=\"file\"; filename=\"model\"\r\nContent-Type: audio/x", "a\r\n--x\0");
        let model = |name: &str| part("name=\"model\"", name);
        let end = "--b--\r\n";
        let long = "m".repeat(FORM_MODEL_MAX_BYTES);
        let many = |count: usize| part("name=\"x\"", "1").repeat(count) + &model("m");
        let head = |bytes: usize| format!("name=\"x\"; y={}", "z".repeat(bytes - 44)); // With the field's name.
        for (form, expected) in [
            (format!("{file}{}{end}", model("whisper-1")), Some("whisper-1")),
            (format!("{}{file}{end}", model("whisper-1")), Some("whisper-1")),
            (format!("{}{end}", part("name=model", " m ")), Some("m")),
            (format!("{}{end}", model("")), None),
            (format!("{file}{end}"), None),
            (format!("{}{end}", model(&long)), Some(&long[..])),
            (format!("{}{end}", model(&format!("{long}m"))), None),
            (format!("{}{end}", many(FIELDS_MAX - 1)), Some("m")),
            (format!("{}{end}", many(FIELDS_MAX)), None),
            (format!("{}{}{end}", part(&head(FIELD_HEAD_MAX_BYTES), ""), model("m")), Some("m")),
            (format!("{}{}{end}", part(&head(FIELD_HEAD_MAX_BYTES + 1), ""), model("m")), None),
            (model("cut"), None),
            ("--".to_owned(), None),
            ("--\r\n".to_owned(), None),
        ] {
            let body = TakenBody::Held(HeldBytes::joined(&[form.as_bytes()]).unwrap());
            assert_eq!(
                asked_model("/v1/audio/transcriptions", &body).as_deref(),
                expected,
                "{form}"
            );
        }
    }

    #[test]
    fn models_in_paths_and_bodies() {
        let cases = [
            ("/v1/messages", r#"{"model":"a"}"#, Some("a")),
            ("/v1beta/models/gemini-x:streamGenerateContent?alt=sse", "{}", Some("gemini-x")),
            (
                "/v1/projects/p/locations/l/publishers/google/models/g-1:generateContent",
                "{}",
                Some("g-1"),
            ),
            (
                "/openai/deployments/my-gpt/chat/completions?api-version=1",
                r#"{"model":"x"}"#,
                Some("my-gpt"),
            ),
            ("/model/anthropic.x-v1%3A0/invoke", "{}", Some("anthropic.x-v1%3A0")),
            ("/v1/models/gpt-x", "", None),
            ("/v1beta/models/:x", "{}", None),
            ("/v1/files", "", None),
        ];
        for (target, body, expected) in cases {
            for bytes in [body.as_bytes(), &gzip(body.as_bytes())] {
                let body = TakenBody::Held(HeldBytes::joined(&[bytes]).unwrap());
                assert_eq!(asked_model(target, &body).as_deref(), expected, "{target}");
            }
        }
        assert_eq!(asked_model("/v1/messages", &TakenBody::Absent), None);
        let streamed = TakenBody::Streamed(None, br#"{"model":"a","messages":[""#.to_vec());
        assert_eq!(asked_model("/v1/messages", &streamed).as_deref(), Some("a"));
    }
}
