//! The body of a token endpoint's answer: JSON or a form, compressed or not (RFC 6749 §5). Pure.

use serde_json::{Map, Value};

use crate::inflate::plain;
use crate::message::Headers;

/// The largest answer, compressed or inflated.
pub const TOKEN_ANSWER_MAX_BYTES: usize = 1024 * 1024;
const BYTE_ORDER_MARK: char = '\u{feff}';

/// Reads `body` as JSON where it begins with a brace, and as a form else; the error says what it is not.
///
/// The media type is no help: issuers send JSON as `text/html` and forms as JSON.
pub fn parse(headers: &Headers, body: &[u8]) -> Result<Value, &'static str> {
    let inflated = plain(headers, body, TOKEN_ANSWER_MAX_BYTES);
    if inflated.is_over {
        return Err("it is over 1 MiB once inflated");
    }
    if inflated.is_foreign {
        return Err("it is compressed as nobody asked for");
    }
    // A description in another encoding than UTF-8 must not cost the token beside it.
    let text = String::from_utf8_lossy(&inflated.bytes);
    let text =
        text.trim_start_matches(BYTE_ORDER_MARK).trim_matches(|c: char| c.is_ascii_whitespace());
    if text.starts_with('{') {
        return serde_json::from_str(text).map_err(|_| "it is not JSON");
    }
    form(text).ok_or("it is not JSON, and no form either")
}

/// Whether `body` is the whole of an answer, though its connection broke off: for JSON its braces say so.
pub fn is_whole(headers: &Headers, body: &[u8]) -> bool {
    let inflated = plain(headers, body, TOKEN_ANSWER_MAX_BYTES);
    let is_object = inflated.bytes.contains(&b'{');
    is_object && !inflated.is_over && parse(headers, body).is_ok()
}

/// A form as an object of texts. A page or a sentence is none: only bytes that a form may hold count.
fn form(text: &str) -> Option<Value> {
    let fits =
        |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'<' | b'>' | b'"' | b'{' | b'}');
    if !text.contains('=') || !text.bytes().all(fits) {
        return None;
    }
    let pairs = form_urlencoded::parse(text.as_bytes());
    let members: Map<String, Value> =
        pairs.map(|(name, value)| (name.into_owned(), Value::String(value.into_owned()))).collect();
    Some(Value::Object(members))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::inflate::tests::gzip;

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
        ] {
            assert!(parsed(body).is_err(), "{body}");
        }
        let mut brotli = Headers::new();
        brotli.push("content-encoding", "br");
        let error = parse(&brotli, b"\x0b\x02\x80abc\x03").unwrap_err();
        assert_eq!(error, "it is compressed as nobody asked for");
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
    fn what_is_whole_though_the_connection_broke_off() {
        let whole = |body: &[u8]| is_whole(&Headers::new(), body);
        let json = b"{\"access_token\":\"a}\"}";
        assert!(whole(json) && whole(&gzip(json)));
        for end in 0..json.len() {
            assert!(!whole(&json[..end]), "{end}");
        }
        assert!(!whole(b"access_token=a&refresh_token=r"), "there may be more of a form");
        assert!(!whole(b"access_token={"));
    }
}
