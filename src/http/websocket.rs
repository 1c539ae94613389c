//! The opening handshake of WebSockets (RFC 6455 §4), for both sides; pure.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use crate::http::message::{BodyLength, Headers, RequestHead, Version};
use crate::http::refusal::{Code, Refusal, WEBSOCKET_VERSION};

pub(crate) mod frames;

/// The field with the client's random key.
pub(crate) const KEY_FIELD: &str = "sec-websocket-key";
/// The field with the subprotocols: those that the client offers, and the one that the server chooses.
pub(crate) const PROTOCOL_FIELD: &str = "sec-websocket-protocol";
/// The field with the client's version of the protocol.
const VERSION_FIELD: &str = "sec-websocket-version";
/// The text that a server adds to the key (§1.3).
const ACCEPT_SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// The end of a key: 16 bytes in base64 are 22 characters and this.
const KEY_PADDING: &[u8] = b"==";
/// The length of a key without its padding.
const KEY_CHARACTERS: usize = 22;

/// True if a request asks for a WebSocket, rightly or wrongly. A look at the filter of the names rules most requests
/// out; `Upgrade` alone would not, because the filter does not tell it from `Host`.
#[inline]
pub(crate) fn is_asked(headers: &Headers) -> bool {
    (headers.contains(KEY_FIELD) || headers.contains(VERSION_FIELD))
        && headers.list_contains("upgrade", "websocket")
}

/// Refuses a request for a WebSocket whose handshake is invalid (§4.2.1), with the part that is wrong.
pub fn check(head: &RequestHead) -> Result<(), Refusal> {
    let headers = &head.headers;
    let bad = |what: &str| {
        Err(Refusal::new(Code::BadRequest, format!("This is no handshake of a WebSocket: {what}")))
    };
    if head.method != "GET" {
        return bad("its method is not GET");
    }
    if head.version != Version::Http11 {
        return bad(
            "it came as HTTP/1.0; a proxy before evertoken may have to be told to use HTTP/1.1 (nginx: proxy_http_version 1.1)",
        );
    }
    if !matches!(head.body, BodyLength::Absent | BodyLength::Sized(0)) {
        return bad("it has a body");
    }
    if !headers.list_contains("connection", "upgrade") {
        return bad(
            "Connection does not list 'upgrade'; a proxy before evertoken may have to pass it on",
        );
    }
    // Fields that Connection lists stay here, and the provider would get a handshake without them.
    if [KEY_FIELD, VERSION_FIELD].iter().any(|own| headers.list_contains("connection", own)) {
        return bad("Connection lists a field that belongs to the handshake");
    }
    let mut versions = headers.all(VERSION_FIELD);
    match (versions.next(), versions.next()) {
        (None, _) => return bad("it has no Sec-WebSocket-Version"),
        (Some(one), None) if one == WEBSOCKET_VERSION.as_bytes() => {}
        _ => {
            let message =
                format!("evertoken speaks version {WEBSOCKET_VERSION} of the WebSocket protocol");
            return Err(Refusal::new(Code::WebSocketVersion, message));
        }
    }
    let mut keys = headers.all(KEY_FIELD);
    match (keys.next(), keys.next()) {
        (None, _) => bad("it has no Sec-WebSocket-Key"),
        (Some(one), None) if is_key(one) => Ok(()),
        _ => bad("its Sec-WebSocket-Key is not 16 bytes in base64"),
    }
}

/// True if `value` may be 16 bytes in base64. The last character has four bits that mean nothing, which other servers
/// do not look at.
fn is_key(value: &[u8]) -> bool {
    let is_of_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    value
        .strip_suffix(KEY_PADDING)
        .is_some_and(|key| key.len() == KEY_CHARACTERS && key.iter().all(is_of_base64))
}

/// Checks the head of a 101 to a client's `key` (§4.2.2); the error names the part that is wrong.
pub(crate) fn check_accepted(headers: &Headers, key: &[u8]) -> Result<(), &'static str> {
    if !headers.list_contains("upgrade", "websocket") {
        return Err("its 101 does not change to 'websocket'");
    }
    if !headers.list_contains("connection", "upgrade") {
        return Err("the Connection of its 101 does not list 'upgrade'");
    }
    let mut accepts = headers.all("sec-websocket-accept");
    match (accepts.next(), accepts.next()) {
        (Some(one), None) if one == accept(key).as_bytes() => Ok(()),
        _ => Err("the Sec-WebSocket-Accept of its 101 does not fit the client's key"),
    }
}

/// The answer to a client's `key`.
pub(crate) fn accept(key: &[u8]) -> String {
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key, ACCEPT_SUFFIX].concat());
    BASE64_STANDARD.encode(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key of RFC 6455 §1.3 and its answer.
    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
    const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

    fn of(fields: &[(&str, &str)]) -> Headers {
        let mut headers = Headers::new();
        for (name, value) in fields {
            headers.push(name, value);
        }
        headers
    }

    fn head(fields: &[(&str, &str)]) -> RequestHead {
        RequestHead {
            method: "GET".into(),
            target: "/".into(),
            version: Version::Http11,
            authority: None,
            headers: of(fields),
            body: BodyLength::Absent,
        }
    }

    /// A valid handshake with other values for some fields; an empty value leaves the field out.
    fn handshake(others: &[(&str, &str)]) -> RequestHead {
        let usual = [
            ("upgrade", "websocket"),
            ("connection", "Upgrade"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", KEY),
        ];
        let is_other = |name: &str| others.iter().any(|(own, _)| *own == name);
        let mut fields: Vec<_> = usual.into_iter().filter(|(name, _)| !is_other(name)).collect();
        fields.extend(others.iter().copied().filter(|(_, value)| !value.is_empty()));
        head(&fields)
    }

    #[test]
    fn requests_that_ask_for_a_websocket() {
        for (upgrade, expected) in [
            ("websocket", true),
            ("WebSocket", true),
            ("h2c, websocket", true),
            ("h2c", false),
            ("websocket2", false),
            ("websocket/13", false),
        ] {
            let fields = |other| of(&[("Upgrade", upgrade), (other, "")]);
            for name in ["Sec-WebSocket-Key", "Sec-WebSocket-Version"] {
                assert_eq!(is_asked(&fields(name)), expected, "{upgrade} {name}");
            }
            assert!(!is_asked(&fields("Host")), "it names no WebSocket's version or key");
        }
        assert!(!is_asked(&of(&[("connection", "upgrade"), ("sec-websocket-key", KEY)])));
    }

    #[test]
    fn handshakes_and_what_is_wrong_with_them() {
        let codes = |head: &RequestHead| check(head).map_err(|refusal| refusal.code);
        for fine in [
            handshake(&[]),
            handshake(&[("connection", "keep-alive, UPGRADE")]),
            handshake(&[("upgrade", "foo, WebSocket")]),
            handshake(&[("sec-websocket-key", "+/9hbXBsZSBub25jZQABCZ==")]),
            RequestHead { body: BodyLength::Sized(0), ..handshake(&[]) },
        ] {
            assert_eq!(codes(&fine), Ok(()), "{fine:?}");
        }
        for bad in [
            RequestHead { method: "POST".into(), ..handshake(&[]) },
            RequestHead { method: "get".into(), ..handshake(&[]) },
            RequestHead { version: Version::Http10, ..handshake(&[]) },
            RequestHead { body: BodyLength::Sized(1), ..handshake(&[]) },
            RequestHead { body: BodyLength::Chunked, ..handshake(&[]) },
            handshake(&[("connection", "")]),
            handshake(&[("connection", "keep-alive")]),
            handshake(&[("connection", "upgrade, sec-websocket-key")]),
            handshake(&[("connection", "Sec-WebSocket-Version, Upgrade")]),
            handshake(&[("sec-websocket-version", "")]),
            handshake(&[("sec-websocket-key", "")]),
            handshake(&[("sec-websocket-key", "x")]),
            handshake(&[("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAA")]),
            handshake(&[("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAAAA")]),
            handshake(&[("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAA===")]),
            handshake(&[("sec-websocket-key", "-_AAAAAAAAAAAAAAAAAAAA==")]),
            handshake(&[("sec-websocket-key", KEY), ("sec-websocket-key", KEY)]),
        ] {
            assert_eq!(codes(&bad), Err(Code::BadRequest), "{bad:?}");
        }
        for other in ["8", "14", "13, 8", "013"] {
            let other = handshake(&[("sec-websocket-version", other)]);
            assert_eq!(codes(&other), Err(Code::WebSocketVersion), "{other:?}");
        }
        let twice = handshake(&[("sec-websocket-version", "13"), ("sec-websocket-version", "8")]);
        assert_eq!(codes(&twice), Err(Code::WebSocketVersion));
    }

    #[test]
    fn answers_to_a_key() {
        assert_eq!(accept(KEY.as_bytes()), ACCEPT);
        let fields = |upgrade, connection, accept| {
            of(&[
                ("Upgrade", upgrade),
                ("Connection", connection),
                ("Sec-WebSocket-Accept", accept),
            ])
        };
        let check = |headers: &Headers| check_accepted(headers, KEY.as_bytes()).is_ok();
        assert!(check(&fields("WebSocket", "keep-alive, Upgrade", ACCEPT)));
        assert!(!check(&fields("h2c", "upgrade", ACCEPT)));
        assert!(!check(&fields("websocket", "close", ACCEPT)));
        assert!(!check(&fields("websocket", "upgrade", KEY)));
        assert!(!check(&of(&[("upgrade", "websocket"), ("connection", "upgrade")])));
        let mut twice = fields("websocket", "upgrade", ACCEPT);
        twice.push("sec-websocket-accept", ACCEPT);
        assert!(!check(&twice));
    }
}
