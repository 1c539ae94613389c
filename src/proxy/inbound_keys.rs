//! The clients' keys: the places where a request shows one, and those where one must not go upstream. Pure.
//!
//! Every key is compared with every candidate, in constant time, so that the time does not tell which one it was.

use std::borrow::Cow;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use percent_encoding::percent_decode;

use crate::http::message::{RequestHead, members};
use crate::http::websocket::PROTOCOL_FIELD;
use crate::secret::Secret;

/// Fields that hold a client's credential, in lower case.
pub(crate) const CREDENTIAL_FIELDS: [&str; 4] =
    ["authorization", "x-api-key", "x-goog-api-key", "api-key"];
/// The parameter that holds a client's credential, as Gemini's clients send it.
pub(crate) const KEY_PARAMETER: &str = "key";

/// The text before a key in a `Sec-WebSocket-Protocol` of `OpenAI`'s browser clients.
const WEBSOCKET_KEY_PREFIX: &[u8] = b"openai-insecure-api-key.";
/// Keys of at least this length are also found within longer texts. A shorter one could be a common word, and counts
/// only between separators.
const KEY_IN_TEXT_MIN_BYTES: usize = 16;

/// The values of the request's credential fields and of its parameter `key`, as they are, and the keys among its
/// subprotocols.
pub(crate) fn shown(head: &RequestHead) -> impl Iterator<Item = Cow<'_, [u8]>> {
    let fields = CREDENTIAL_FIELDS.iter().flat_map(|name| head.headers.all(name));
    let query = head.target.split_once('?').map_or("", |(_, query)| query);
    let parameters = query.split('&').filter_map(|one| one.split_once('='));
    let keys = parameters.filter(|(name, _)| *name == KEY_PARAMETER);
    let protocols = head.headers.list(PROTOCOL_FIELD).filter_map(key_in_protocol);
    let fields = fields.chain(protocols).map(Cow::Borrowed);
    fields.chain(keys.map(|(_, value)| decoded(value.as_bytes())))
}

/// The key in a subprotocol of a WebSocket, as `OpenAI`'s browser clients send it.
fn key_in_protocol(protocol: &[u8]) -> Option<&[u8]> {
    protocol.strip_prefix(WEBSOCKET_KEY_PREFIX)
}

/// The value of a `Sec-WebSocket-Protocol` without the subprotocols that are a credential of the client or hold one of
/// `keys`; None if none is left. A provider that gets the client's own credential gets that of a subprotocol too.
pub(crate) fn protocols_without_keys(
    protocols: &[u8],
    keys: &[Secret],
    passthrough: bool,
) -> Option<Vec<u8>> {
    let crosses = |protocol: &&[u8]| {
        (passthrough || key_in_protocol(protocol).is_none()) && !holds(protocol, keys)
    };
    let left: Vec<_> = members(protocols).filter(crosses).collect();
    (!left.is_empty()).then(|| left.join(b", ".as_slice()))
}

/// The key in a credential field's value: the text after `Bearer `, or the whole value.
pub(crate) fn bare_key(value: &[u8]) -> &[u8] {
    let scheme = b"bearer ";
    match value.split_at_checked(scheme.len()) {
        Some((start, key)) if start.eq_ignore_ascii_case(scheme) => key.trim_ascii(),
        _ => value.trim_ascii(),
    }
}

/// True if one of `keys` is in `value`: as it is, after a scheme, percent-encoded, or in Basic authentication.
pub(crate) fn holds(value: &[u8], keys: &[Secret]) -> bool {
    // Most values are too short for any key.
    if !keys.iter().any(|key| key.len() <= value.len()) {
        return false;
    }
    let mut found = stands_in(value, keys);
    if value.contains(&b'%') {
        found |= stands_in(&decoded(value), keys);
    }
    if let Some(credentials) = basic_credentials(value) {
        found |= stands_in(&credentials, keys);
    }
    found
}

/// The value of a `Cookie` field without the cookies that hold one of `keys`; None if none is left.
pub(crate) fn without_keys(cookies: &[u8], keys: &[Secret]) -> Option<Vec<u8>> {
    let pairs = cookies.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    let kept: Vec<_> = pairs.filter(|pair| !holds(pair, keys)).collect();
    let kept = kept.join(b"; ".as_slice());
    (!kept.is_empty() && !holds(&kept, keys)).then_some(kept)
}

/// User and password of Basic authentication (RFC 7617), with a colon between them.
pub(crate) fn basic_credentials(value: &[u8]) -> Option<Vec<u8>> {
    let (scheme, encoded) = value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    BASE64_STANDARD.decode(encoded.trim_ascii()).ok()
}

/// Hands each part of `value` to `look` that may be a whole key: the value itself, the parts between separators, and the
/// words of those, as they are, percent-decoded, and from Basic authentication. A part that is too short for a key in a text is left out.
pub(crate) fn each_word(value: &[u8], look: &mut dyn FnMut(&[u8])) {
    if value.len() < KEY_IN_TEXT_MIN_BYTES {
        return;
    }
    each_plain_word(value, look);
    if value.contains(&b'%') {
        each_plain_word(&decoded(value), look);
    }
    if let Some(credentials) = basic_credentials(value) {
        each_plain_word(&credentials, look);
    }
}

fn each_plain_word(value: &[u8], look: &mut dyn FnMut(&[u8])) {
    let mut look_at = |part: &[u8]| {
        if part.len() >= KEY_IN_TEXT_MIN_BYTES {
            look(part);
        }
    };
    look_at(value);
    for piece in value.split(|byte| !is_in_piece(*byte)) {
        look_at(piece.strip_prefix(WEBSOCKET_KEY_PREFIX).unwrap_or(piece));
        if piece.len() >= KEY_IN_TEXT_MIN_BYTES && !piece.iter().copied().all(is_in_word) {
            piece.split(|byte| !is_in_word(*byte)).for_each(&mut look_at);
        }
    }
}

fn decoded(value: &[u8]) -> Cow<'_, [u8]> {
    percent_decode(value).into()
}

fn stands_in(value: &[u8], keys: &[Secret]) -> bool {
    keys.iter().fold(false, |found, key| found | key_stands_in(value, key))
}

fn key_stands_in(value: &[u8], key: &Secret) -> bool {
    let length = key.len();
    let is_inner = if length < KEY_IN_TEXT_MIN_BYTES { is_in_piece } else { is_in_word };
    let Some(last) = value.len().checked_sub(length).filter(|_| length > 0) else { return false };
    (0..=last).fold(false, |found, start| {
        let end = start + length;
        let begins = start == 0
            || !is_inner(value[start - 1])
            || value[..start].ends_with(WEBSOCKET_KEY_PREFIX);
        let ends = end == value.len() || !is_inner(value[end]);
        found | (begins && ends && key.matches(&value[start..end]))
    })
}

/// True if a word continues with this byte.
fn is_in_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

/// True if a piece between separators continues with this byte.
fn is_in_piece(byte: u8) -> bool {
    !matches!(byte, b' ' | b'\t' | b',' | b';' | b':' | b'=' | b'&' | b'?' | b'"')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::message::{BodyLength, Headers, Version};

    fn keys() -> Vec<Secret> {
        ["short", "long-key-0123456789", "a/b+c=d=0123456789"].map(Secret::new).to_vec()
    }

    #[test]
    fn a_key_is_found_wherever_it_stands() {
        for value in [
            "short",
            " short ",
            "Bearer short",
            "Token short",
            "a, short",
            "x=short",
            "\"short\"",
            "a=1; b=short",
            "Basic dTpzaG9ydA==", // u:short
            "basic c2hvcnQ6",     // short:
            "sh%6Frt",
            "Bearer%20short",
            "long-key-0123456789",
            "bearer LONG long-key-0123456789",
            "openai-insecure-api-key.long-key-0123456789",
            "realtime, openai-insecure-api-key.short",
            "https://h/?key=long-key-0123456789#x",
            "%6cong%2dkey%2D0123456789",
            "a/b+c=d=0123456789",
            "Bearer a/b+c=d=0123456789",
            "x=a%2Fb%2Bc%3Dd%3D0123456789",
            "{\"key\":\"long-key-0123456789\"}",
        ] {
            assert!(holds(value.as_bytes(), &keys()), "{value}");
        }
        for value in [
            "", "shor", "shorts", "a-short-one", "User/short", "long-key-01234567890",
            "xlong-key-0123456789", "Basic short!", "Basic dTpz", "none",
        ] {
            assert!(!holds(value.as_bytes(), &keys()), "{value}");
        }
        assert!(!holds(b"anything", &[]) && !holds(b"", &[Secret::new("")]));
    }

    #[test]
    fn a_key_is_found_within_text_from_sixteen_bytes_on() {
        let word = |length| "k".repeat(length);
        let (short, long) = (word(KEY_IN_TEXT_MIN_BYTES - 1), word(KEY_IN_TEXT_MIN_BYTES));
        for (key, expected) in [(short, false), (long, true)] {
            assert_eq!(holds(format!("a/{key}.b").as_bytes(), &[Secret::new(key)]), expected);
        }
    }

    #[test]
    fn cookies_lose_those_with_a_key_alone() {
        let without = |cookies: &str| {
            without_keys(cookies.as_bytes(), &keys()).map(|left| String::from_utf8(left).unwrap())
        };
        assert_eq!(without("a=1; k=short; b=2").as_deref(), Some("a=1; b=2"));
        assert_eq!(without("a=1;k=sh%6frt").as_deref(), Some("a=1"));
        assert_eq!(without("k=short"), None);
        assert_eq!(without("k=\"long-key-0123456789\"; a=b=c").as_deref(), Some("a=b=c"));
    }

    #[test]
    fn subprotocols_lose_credentials_alone() {
        let without = |protocols: &str, passthrough| {
            let left = protocols_without_keys(protocols.as_bytes(), &keys(), passthrough);
            left.map(|left| String::from_utf8(left).unwrap())
        };
        let client = "realtime, openai-insecure-api-key.sk-other,openai-beta.realtime-v1";
        assert_eq!(without(client, false).as_deref(), Some("realtime, openai-beta.realtime-v1"));
        let all = "realtime, openai-insecure-api-key.sk-other, openai-beta.realtime-v1";
        assert_eq!(without(client, true).as_deref(), Some(all));
        let own = "realtime, openai-insecure-api-key.long-key-0123456789";
        assert_eq!(without(own, true).as_deref(), Some("realtime"), "an inbound key never crosses");
        assert_eq!(without("chat, short", false).as_deref(), Some("chat"));
        assert_eq!(without("openai-insecure-api-key.x", false), None);
    }

    #[test]
    fn where_a_request_shows_its_key() {
        let shown = |target: &str, fields: &[(&str, &str)]| -> Vec<String> {
            let mut headers = Headers::new();
            for (name, value) in fields {
                headers.push(*name, *value);
            }
            let head = RequestHead {
                method: "GET".into(),
                target: target.into(),
                version: Version::Http11,
                authority: None,
                headers,
                body: BodyLength::Absent,
            };
            super::shown(&head)
                .map(|one| String::from_utf8(bare_key(&one).to_vec()).unwrap())
                .collect()
        };
        let fields = [
            ("Api-Key", "a"),
            ("X-Goog-Api-Key", "b"),
            ("authorization", "bearer c"),
            ("X-API-KEY", "d"),
            ("X-Key", "e"),
        ];
        assert_eq!(shown("/", &fields), ["c", "d", "b", "a"]);
        let protocols = "realtime, openai-insecure-api-key.f, chat.openai-insecure-api-key.g";
        assert_eq!(shown("/", &[("Sec-WebSocket-Protocol", protocols)]), ["f"]);
        assert_eq!(shown("/?key=a%2Bb&x=1&key=c+d&Key=e&key&akey=f", &[]), ["a+b", "c+d"]);
        assert_eq!(shown("/key=a", &[]), [""; 0]);
    }
}
