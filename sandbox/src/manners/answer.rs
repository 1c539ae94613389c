//! Turns an answer's template into bytes. Pure.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Map, Value};

use super::{Format, Manners, Template, Wrapping};

/// The values that a template can name, in braces.
const PLACES: &[&str] = &[
    "access_token", "refresh_token", "expires_in", "expires_in:text", "refresh_in",
    "refresh_expires_in", "issued_at_ms:text",
];

/// The values for the places of a template. A missing value removes its member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Values {
    /// The access token.
    pub access_token: Option<String>,
    /// The next refresh token.
    pub refresh_token: Option<String>,
    /// Seconds that the access token has left.
    pub expires_in: Option<u64>,
    /// Seconds that the refresh token has left.
    pub refresh_expires_in: Option<u64>,
    /// The time of its issue, in milliseconds.
    pub issued_at_ms: u64,
}

/// An answer, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// All header fields, the type of the body included.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

/// An answer of the token endpoint: fills in `template` and encodes it as `manners` say, for a client that accepts
/// `accept`.
pub fn fill(manners: &Manners, template: &Template, values: &Values, accept: &str) -> Answer {
    let mut answer = encoded(manners.answers.format, template, values, accept);
    for wrapping in &manners.answers.wrapping {
        answer.body = match wrapping {
            Wrapping::ByteOrderMark => [b"\xef\xbb\xbf".as_slice(), &answer.body].concat(),
            Wrapping::GzipWithoutHeader => gzip(&answer.body),
        };
    }
    answer
}

/// An answer of the API.
pub fn of_api(template: &Template) -> Answer {
    encoded(Format::Json, template, &Values::default(), "")
}

fn encoded(format: Format, template: &Template, values: &Values, accept: &str) -> Answer {
    let (kind, body) = encode(format, template, values, accept);
    let mut headers: Vec<_> =
        template.headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
        headers.push(("Content-Type".to_owned(), kind.to_owned()));
    }
    Answer { status: template.status, headers, body }
}

fn encode(
    format: Format,
    template: &Template,
    values: &Values,
    accept: &str,
) -> (&'static str, Vec<u8>) {
    let Some(body) = &template.body else {
        return ("text/html; charset=utf-8", template.text.clone().unwrap_or_default().into());
    };
    let filled = filled(body, values).unwrap_or_default();
    let is_form = match format {
        Format::Form => true,
        Format::Json => false,
        Format::ByAccept => !accept.contains("json"),
    };
    match filled.as_object() {
        Some(members) if is_form => {
            ("application/x-www-form-urlencoded; charset=utf-8", form(members))
        }
        _ => ("application/json; charset=utf-8", filled.to_string().into()),
    }
}

fn form(members: &Map<String, Value>) -> Vec<u8> {
    let mut out = form_urlencoded::Serializer::new(String::new());
    for (name, value) in members {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        out.append_pair(name, &text);
    }
    out.finish().into()
}

/// `body` with its places filled in; None if the value of a place is missing.
fn filled(body: &Value, values: &Values) -> Option<Value> {
    match body {
        Value::String(text) => match place(text) {
            Some(place) => value(place, values),
            None => Some(body.clone()),
        },
        Value::Object(members) => {
            let kept =
                members.iter().filter_map(|(name, one)| Some((name.clone(), filled(one, values)?)));
            Some(Value::Object(kept.collect()))
        }
        Value::Array(list) => Some(list.iter().filter_map(|one| filled(one, values)).collect()),
        other => Some(other.clone()),
    }
}

/// The place that a text names.
fn place(text: &str) -> Option<&str> {
    text.strip_prefix('{')?.strip_suffix('}')
}

fn value(place: &str, values: &Values) -> Option<Value> {
    match place {
        "access_token" => values.access_token.clone().map(Value::from),
        "refresh_token" => values.refresh_token.clone().map(Value::from),
        "expires_in" => values.expires_in.map(Value::from),
        "expires_in:text" => values.expires_in.map(|seconds| seconds.to_string().into()),
        "refresh_in" => values.expires_in.map(|seconds| (seconds / 2).into()),
        "refresh_expires_in" => values.refresh_expires_in.map(Value::from),
        "issued_at_ms:text" => Some(values.issued_at_ms.to_string().into()),
        _ => None,
    }
}

/// A place in `body` without a value.
pub(super) fn unknown_place(body: &Value) -> Option<&str> {
    match body {
        Value::String(text) => place(text).filter(|place| !PLACES.contains(place)),
        Value::Object(members) => members.values().find_map(unknown_place),
        Value::Array(list) => list.iter().find_map(unknown_place),
        _ => None,
    }
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut out = GzEncoder::new(Vec::new(), Compression::default());
    out.write_all(body).and_then(|()| out.finish()).expect("memory takes every write")
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn values() -> Values {
        Values {
            access_token: Some("a/b".to_owned()),
            refresh_token: None,
            expires_in: Some(60),
            refresh_expires_in: None,
            issued_at_ms: 7,
        }
    }

    fn manners(format: Format) -> (Manners, Template) {
        let mut manners = Manners::own();
        manners.answers.format = format;
        let body = serde_json::json!({
            "t": "{access_token}", "n": "{expires_in}", "s": "{expires_in:text}", "r": "{refresh_token}",
            "h": "{refresh_in}", "i": "{issued_at_ms:text}", "ok": true,
        });
        let template = Template { body: Some(body), ..manners.answers.granted.clone() };
        (manners, template)
    }

    #[test]
    fn places_are_filled_and_missing_values_leave_nothing() {
        let (manners, template) = manners(Format::Json);
        let answer = fill(&manners, &template, &values(), "");
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        let expected =
            serde_json::json!({"t": "a/b", "n": 60, "s": "60", "h": 30, "i": "7", "ok": true});
        assert_eq!(body, expected);
    }

    #[test]
    fn a_form_is_given_unless_json_is_asked_for() {
        let (manners, template) = manners(Format::ByAccept);
        let form = fill(&manners, &template, &values(), "*/*");
        assert_eq!(String::from_utf8(form.body).unwrap(), "h=30&i=7&n=60&ok=true&s=60&t=a%2Fb");
        let json = fill(&manners, &template, &values(), "application/json");
        assert!(json.body.starts_with(b"{"));
        assert!(json.headers[0].1.starts_with("application/json"));
    }

    #[test]
    fn wrappings_follow_one_another() {
        let (mut manners, template) = manners(Format::Json);
        manners.answers.wrapping = vec![Wrapping::ByteOrderMark, Wrapping::GzipWithoutHeader];
        let answer = fill(&manners, &template, &values(), "");
        let mut inflated = String::new();
        flate2::read::GzDecoder::new(answer.body.as_slice()).read_to_string(&mut inflated).unwrap();
        assert!(inflated.starts_with("\u{feff}{"));
        assert_eq!(answer.headers.len(), 1, "nothing says that it is compressed");
        assert!(of_api(&template).body.starts_with(b"{"), "the API is not behind the gateway");
    }
}
