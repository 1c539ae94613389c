//! The body of a token endpoint's answer: JSON or a form, compressed or not (RFC 6749 §5). Pure.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::http::inflate::plain;
use crate::http::message::Headers;
use crate::json;
use crate::token::grant::tolerant;

/// The largest answer, compressed or inflated.
pub const TOKEN_ANSWER_MAX_BYTES: usize = 1024 * 1024;
const BYTE_ORDER_MARK: char = '\u{feff}';
/// The words for JSON without a readable value.
pub(super) const NOT_JSON: &str = "it is not JSON, or incomplete";

/// Prefixes that some frameworks write before JSON.
const GUARDS: [&str; 6] = [")]}',", ")]}'", ")]}", "while(1);", "while (1);", "for(;;);"];
/// The media type of a form.
const FORM_TYPE: &[u8] = b"application/x-www-form-urlencoded";
/// Members that distinguish a form from a text with a `=` in it.
const KNOWN_MEMBERS: [&str; 3] = ["access_token", "refresh_token", "error"];
/// Members whose values hold no blanks: a plus in them is a plus, though it should have been encoded.
const TOKENS: [&str; 2] = ["access_token", "refresh_token"];

/// The content of an answer's body.
#[derive(Debug, PartialEq)]
pub(super) struct TokenResponse {
    /// The values, as an object.
    pub(super) value: Value,
    pub(super) form: ResponseFormat,
}

/// The format of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ResponseFormat {
    /// Proper JSON.
    Json,
    /// JSON with a defect outside the values.
    Defective,
    /// JSON that is cut off or unreadable from some point on: there may have been more values.
    Cut,
    /// A form.
    Urlencoded,
}

impl ResponseFormat {
    /// True if the body has a defect.
    pub(super) fn is_defective(self) -> bool {
        matches!(self, Self::Defective | Self::Cut)
    }

    /// True if a body of this format has the refresh `token` undamaged. It is stored, and presented unchanged, so it must
    /// not be half a token or the rest of one.
    pub(super) fn keeps(self, token: &str) -> bool {
        !self.is_defective() || token.bytes().all(|byte| (b' '..=b'~').contains(&byte))
    }
}

/// The values of a complete answer, as `read` returns them.
pub(crate) fn parse(headers: &Headers, body: &[u8]) -> Result<Value, &'static str> {
    let answer = read(headers, body)?;
    if answer.form == ResponseFormat::Cut { Err(NOT_JSON) } else { Ok(answer.value) }
}

/// Reads `body` as JSON if it begins like JSON, else as a form; the error names the form that it lacks.
///
/// The media type of JSON does not help: issuers send JSON as `text/html` and forms as JSON.
pub(super) fn read(headers: &Headers, body: &[u8]) -> Result<TokenResponse, &'static str> {
    let inflated = plain(headers, body, TOKEN_ANSWER_MAX_BYTES);
    if inflated.is_over {
        return Err("it is over 1 MiB once inflated");
    }
    if inflated.is_foreign {
        return Err("it is compressed in a form that was not asked for");
    }
    let text = text_of(&inflated.bytes);
    let text =
        text.trim_start_matches(BYTE_ORDER_MARK).trim_matches(|c: char| c.is_ascii_whitespace());
    let text = without_guard(text);
    if text.starts_with(['{', '[']) {
        return json(text).ok_or(NOT_JSON);
    }
    let says_form = headers.first("content-type").is_some_and(|kind| {
        let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default();
        kind.trim_ascii().eq_ignore_ascii_case(FORM_TYPE)
    });
    let value = form(text, says_form).ok_or("it is neither JSON nor a form")?;
    Ok(TokenResponse { value, form: ResponseFormat::Urlencoded })
}

/// True if `body` is of use though its connection broke off: the braces of JSON show that it is complete, or it has a
/// complete refresh token, which would be lost with it.
pub(crate) fn is_of_use(headers: &Headers, body: &[u8]) -> bool {
    read(headers, body).is_ok_and(|TokenResponse { value, form }| match form {
        ResponseFormat::Json | ResponseFormat::Defective => true,
        ResponseFormat::Cut => {
            value["refresh_token"].as_str().is_some_and(|token| !token.is_empty())
        }
        ResponseFormat::Urlencoded => false,
    })
}

/// The text of a body: UTF-8, or UTF-16, which some frameworks write by mistake.
fn text_of(bytes: &[u8]) -> Cow<'_, str> {
    let unit: fn([u8; 2]) -> u16 = match bytes {
        [0xff, 0xfe, ..] | [b'{', 0, ..] => u16::from_le_bytes,
        [0xfe, 0xff, ..] | [0, b'{', ..] => u16::from_be_bytes,
        // A description in another encoding must not cost the token next to it.
        _ => return String::from_utf8_lossy(bytes),
    };
    let (pairs, _) = bytes.as_chunks::<2>();
    let units = char::decode_utf16(pairs.iter().map(|pair| unit(*pair)));
    units.map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
}

/// `text` without the prefix that some frameworks write before JSON to keep pages from running it as a script.
fn without_guard(text: &str) -> &str {
    let rest = GUARDS.iter().find_map(|guard| text.strip_prefix(guard)).map(str::trim_start);
    rest.filter(|rest| rest.starts_with(['{', '['])).unwrap_or(text)
}

/// Parses an object, or the only object of a list.
fn json(text: &str) -> Option<TokenResponse> {
    let (value, form) = match json::read(text.as_bytes()) {
        Ok(value) => (value, ResponseFormat::Json),
        Err(_) => match tolerant::read(text) {
            (value, true) => (value, ResponseFormat::Cut),
            (value, false) => (value, ResponseFormat::Defective),
        },
    };
    let value = match value {
        Value::Array(list) => <[Value; 1]>::try_from(list).map(|[only]| only).ok()?,
        value => value,
    };
    value.is_object().then_some(TokenResponse { value, form })
}

/// Parses a form as an object of texts. If its type does not say that it is a form, it must hold only characters of a
/// form, or begin like one and have a known member: a page or a sentence is no form. Unencoded characters are taken as
/// they are.
fn form(text: &str, is_said: bool) -> Option<Value> {
    if !text.contains('=') || text.starts_with(['<', '"']) {
        return None;
    }
    let is_strict =
        |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'<' | b'>' | b'"' | b'{' | b'}');
    let mut members = Map::new();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (name, _) = pair.split_once('=').unwrap_or((pair, ""));
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
        if members.is_empty() && !is_said && !name.bytes().all(is_name) {
            return None;
        }
        let pair: Cow<'_, str> =
            if TOKENS.contains(&name) { pair.replace('+', "%2B").into() } else { pair.into() };
        let parsed = form_urlencoded::parse(pair.as_bytes());
        members
            .extend(parsed.map(|(name, value)| (name.into_owned(), Value::String(value.into()))));
    }
    let is_known = || KNOWN_MEMBERS.iter().any(|name| members.contains_key(*name));
    (is_said || text.bytes().all(is_strict) || is_known()).then_some(Value::Object(members))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::http::inflate::tests::gzip;

    fn parsed(body: impl AsRef<[u8]>) -> Result<Value, &'static str> {
        parse(&Headers::new(), body.as_ref())
    }

    #[test]
    fn what_is_json_what_is_a_form_and_what_is_neither() {
        let json = json!({"a": "1"});
        for body in [
            "{\"a\":\"1\"}",
            "\u{feff}{\"a\":\"1\"}",
            "\u{feff}\r\n {\"a\":\"1\"}\n",
            "a=1",
            "\u{feff}a=%31",
            "a=2&a=1",
            "a=1\n",
        ] {
            assert_eq!(parsed(body).as_ref(), Ok(&json), "{body}");
        }
        assert_eq!(parsed(gzip(b"\xef\xbb\xbf{\"a\":\"1\"}")).as_ref(), Ok(&json));
        let latin = parsed(b"{\"a\":\"1\",\"error_description\":\"f\xfcr\"}").unwrap();
        assert_eq!(latin["a"], "1");
        for body in [
            "",
            "\u{feff}",
            "{",
            "{\"a\":1",
            "[1]",
            "\"a=1\"",
            "ok",
            "<a href=\"?x=1&error=access_denied&b\">",
            "<html>",
            "Service unavailable: error=invalid_grant",
            "Log in <a href=\"?a=1&access_token=at&\">here</a>",
            "a=1 b=2&c=3",
        ] {
            assert!(parsed(body).is_err(), "{body}");
        }
        // JSON with a defect, and unencoded forms.
        for body in ["{\"a\":\"1\",}", "{\"a\":\"1\"}x", "[{\"a\":\"1\"}]"] {
            assert_eq!(parsed(body).as_ref(), Ok(&json), "{body}");
        }
        for wide in ["\u{feff}{\"a\":\"1\"}", "{\"a\":\"1\"}"] {
            let little: Vec<u8> = wide.encode_utf16().flat_map(u16::to_le_bytes).collect();
            let big: Vec<u8> = wide.encode_utf16().flat_map(u16::to_be_bytes).collect();
            assert_eq!((parsed(little).as_ref(), parsed(big).as_ref()), (Ok(&json), Ok(&json)));
        }
        let form = parsed("access_token=a+b&error=x y&scope=c+d{é").unwrap();
        assert_eq!(form, json!({"access_token": "a+b", "error": "x y", "scope": "c d{é"}));
        let mut brotli = Headers::new();
        brotli.push("content-encoding", "br");
        let error = parse(&brotli, b"\x0b\x02\x80abc\x03").unwrap_err();
        assert_eq!(error, "it is compressed in a form that was not asked for");
    }

    #[test]
    fn what_keeps_pages_from_running_json_is_passed_over() {
        for guard in [")]}'\n", ")]}',\n", "while(1);", "while (1); ", "for(;;);"] {
            for (text, is_read) in [(r#"{"access_token":"a"}"#, true), ("access_token=a", false)] {
                let parsed = parsed(format!("{guard}{text}"));
                let expected = Ok(json!({"access_token": "a"})).map_err(|(): ()| "");
                assert_eq!(parsed == expected, is_read, "{guard}{text}");
            }
        }
    }

    #[test]
    fn a_body_whose_type_says_that_it_is_a_form_is_one_unless_it_is_a_page() {
        let typed = |body: &str| {
            let mut headers = Headers::new();
            headers.push("content-type", "Application/X-WWW-Form-Urlencoded ; charset=utf-8");
            parse(&headers, body.as_bytes())
        };
        assert_eq!(typed("a b=1 2&c={é}"), Ok(json!({"a b": "1 2", "c": "{é}"})));
        assert_eq!(typed("{\"a\":1}"), Ok(json!({"a": 1})));
        assert!(typed("<a href=\"?x=1\">").is_err() && typed("ok").is_err());
        assert!(parsed("a b=1 2&c={é}").is_err());
    }

    #[test]
    fn an_answer_inflates_to_1_mib_and_no_further() {
        let filled = |length: usize| {
            let mut body = b"{\"a\":\"1\"".to_vec();
            body.resize(length - 1, b' ');
            body.push(b'}');
            gzip(&body)
        };
        assert!(parsed(filled(TOKEN_ANSWER_MAX_BYTES)).is_ok());
        let error = parsed(filled(TOKEN_ANSWER_MAX_BYTES + 1)).unwrap_err();
        assert_eq!(error, "it is over 1 MiB once inflated");
    }

    #[test]
    fn what_is_of_use_though_the_connection_broke_off() {
        let is_of_use = |body: &[u8]| is_of_use(&Headers::new(), body);
        let json = b"{\"access_token\":\"a}\"}";
        assert!(is_of_use(json) && is_of_use(&gzip(json)));
        for end in 0..json.len() {
            assert!(!is_of_use(&json[..end]), "{end}");
        }
        assert!(!is_of_use(b"access_token=a&refresh_token=r"), "there may be more of a form");
        assert!(!is_of_use(b"access_token={") && !is_of_use(b"access_token=a&user={}"));
        assert!(is_of_use(b"{\"access_token\":\"a\",} and more"));
        let rotated = b"{\"access_token\":\"a\",\"refresh_token\":\"r2\",\"id_token\":\"e";
        let whole_at = rotated.len() - ",\"id_token\":\"e".len();
        for end in 0..=rotated.len() {
            assert_eq!(is_of_use(&rotated[..end]), end >= whole_at, "{end}");
        }
    }
}
