//! The body of a refusal, and the texts in it that describe errors. Pure.

use serde_json::Value;

use crate::http::inflate::plain;
use crate::http::message::Headers;
use crate::json;
use crate::quota::markup;

/// The largest body that is examined, as it came and inflated.
pub(crate) const BODY_MAX_BYTES: usize = 64 * 1024;
/// The depth to which a body is searched for texts.
const DEPTH_MAX: u32 = 6;

/// The body of a refusal.
#[derive(Debug)]
pub(crate) enum RefusalBody {
    /// A JSON text.
    Json(Value),
    /// XML or HTML.
    Markup(String),
    /// A text of another form.
    Text(String),
    /// Unreadable: an unknown encoding, or a part of a JSON text, which may quote anything.
    Unreadable,
}

impl RefusalBody {
    /// Reads `bytes`, the body of an answer with `headers`, or its start. A compressed body is inflated for that.
    pub(crate) fn read(headers: &Headers, bytes: &[u8]) -> Self {
        let inflated = plain(headers, bytes, BODY_MAX_BYTES);
        if inflated.is_foreign {
            return Self::Unreadable;
        }
        let text = String::from_utf8_lossy(&inflated.bytes);
        let text = text.trim_start_matches('\u{feff}').trim();
        match json::read(text.as_bytes()) {
            Ok(json) => Self::of_json(json),
            Err(_) if text.starts_with('<') => Self::Markup(text.to_owned()),
            Err(_) if text.starts_with(['{', '[']) => Self::Unreadable,
            Err(_) => Self::Text(text.to_owned()),
        }
    }

    /// `OpenRouter` passes the body of the provider behind it on as a text, which is read if it is JSON.
    pub(crate) fn of_json(mut json: Value) -> Self {
        if let Some(raw) = json.pointer_mut("/error/metadata/raw")
            && let Some(inner) = raw.as_str().and_then(inner)
        {
            *raw = inner;
        }
        Self::Json(json)
    }

    /// The texts that describe errors, codes and messages. Other texts may quote the request.
    pub(crate) fn texts(&self) -> Vec<&str> {
        let mut texts = Vec::new();
        match self {
            Self::Json(json) => gather(json, DEPTH_MAX, &mut texts),
            Self::Markup(page) => texts = markup::texts(page),
            Self::Text(text) => texts.push(text),
            Self::Unreadable => {}
        }
        texts
    }

    /// The JSON text.
    pub(crate) fn json(&self) -> Option<&Value> {
        match self {
            Self::Json(json) => Some(json),
            _ => None,
        }
    }
}

/// The object or list in `text`.
fn inner(text: &str) -> Option<Value> {
    let text = text.trim();
    json::read(text.as_bytes()).ok().filter(|_| text.starts_with(['{', '[']))
}

fn gather<'a>(json: &'a Value, depth: u32, texts: &mut Vec<&'a str>) {
    const MEMBERS: [&str; 20] = [
        "error", "errors", "code", "type", "status", "reason", "message", "msg", "detail",
        "details", "title", "description", "error_code", "errorCode", "error_message",
        "errorMessage", "error_description", "Message", "__type", "fault",
    ];
    match json {
        _ if depth == 0 => {}
        Value::String(text) => texts.push(text),
        Value::Array(list) => list.iter().for_each(|one| gather(one, depth - 1, texts)),
        Value::Object(object) => MEMBERS
            .iter()
            .filter_map(|name| object.get(*name))
            .chain(object.get("metadata").and_then(|metadata| metadata.get("raw")))
            .for_each(|value| gather(value, depth - 1, texts)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::inflate::tests::gzip;

    #[test]
    fn texts_of_each_form() {
        let cases = [
            (r#"{"error":{"type":"a","message":"b c"}}"#, vec!["a", "b c"]),
            (r#"[{"error":{"details":[{"reason":"D"}]}}]"#, vec!["D"]),
            ("\u{feff} {\"error\":\"x\"} ", vec!["x"]),
            (r#"{"error":{"input":"no"},"prompt":"no"}"#, vec![]),
            (
                r#"{"error":{"message":"a","metadata":{"raw":"{\"error\":{\"code\":\"b\"}}","flagged_input":"no"}}}"#,
                vec!["a", "b"],
            ),
            (r#"{"error":{"metadata":{"raw":"x is rate-limited"}}}"#, vec!["x is rate-limited"]),
            (r#"{"error":{"metadata":{"raw":"7"}}}"#, vec!["7"]),
            ("<Error><Code>Throttled</Code></Error>", vec!["Throttled"]),
            ("Too many requests", vec!["Too many requests"]),
            (r#"{"error":{"message":"half"#, vec![]),
            ("", vec![""]),
        ];
        for (body, expected) in cases {
            let texts = |bytes: &[u8]| {
                let body = RefusalBody::read(&Headers::new(), bytes);
                body.texts().into_iter().map(str::to_owned).collect::<Vec<_>>()
            };
            assert_eq!(texts(body.as_bytes()), expected, "{body}");
            assert_eq!(texts(&gzip(format!("{body}\n").as_bytes())), expected, "gzip: {body}");
        }
        let mut headers = Headers::new();
        headers.push("content-encoding", "br");
        let foreign = RefusalBody::read(&headers, b"\x0b\x02\x80abc\x03");
        assert!(foreign.texts().is_empty() && foreign.json().is_none());
    }

    #[test]
    fn the_depth_of_a_text_on_both_sides_of_its_limit() {
        let nested = |depth: usize| {
            let text = format!("{}\"x\"{}", "[".repeat(depth - 1), "]".repeat(depth - 1));
            RefusalBody::read(&Headers::new(), text.as_bytes()).texts().len()
        };
        assert_eq!((nested(DEPTH_MAX as usize), nested(DEPTH_MAX as usize + 1)), (1, 0));
    }
}
