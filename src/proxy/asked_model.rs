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
    let (plain, _) = inflate::beginning(bytes, INFLATED_MAX_BYTES)?;
    model::find(&plain).map(|field| field.name)
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
