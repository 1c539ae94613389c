//! Properties of everything that reads bytes from outside, over random ones and over the kept corpus
//! of the fuzz targets.

use std::path::Path;

use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::RngSeed;

pub(crate) mod holds;

/// Pieces that bytes of a head or a body are often made of, so that random ones get somewhere.
const PIECES: [&str; 40] = [
    "GET",
    "POST",
    " ",
    "/",
    "/v1/messages",
    "http://h",
    " HTTP/1.1",
    " HTTP/1.0",
    "\r\n",
    "\r\n\r\n",
    "\r",
    "\n",
    "Host: h\r\n",
    "Host:",
    "Content-Length: 5\r\n",
    "Content-Length:",
    "chunked",
    ",",
    "5",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding:",
    "Connection: close\r\n",
    "Expect: 100-continue\r\n",
    "\t",
    "\0",
    ";",
    "0\r\n\r\n",
    "5\r\nhello\r\n",
    "ffffffffffffffff",
    "x",
    "a: b\r\n",
    "\u{80}",
    "%",
    "?",
    "#",
    "@",
    "[::1]",
    ":1",
    "-",
    "\"",
];
/// The same for handshakes of WebSockets and frames.
const HANDSHAKE: [&str; 22] = [
    "GET / HTTP/1.1\r\nHost: h\r\n",
    "POST / HTTP/1.1\r\nHost: h\r\n",
    "Connection: keep-alive, Upgrade\r\n",
    "Connection: close\r\n",
    "Upgrade: websocket\r\n",
    "Sec-WebSocket-Version: 13\r\n",
    "Sec-WebSocket-Version: 8\r\n",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
    "Sec-WebSocket-Key: x\r\n",
    "Content-Length: 1\r\n",
    "\r\n",
    "\u{1}",
    "\u{8}",
    "\0",
    "\u{5}",
    "\u{7e}",
    "\u{7f}",
    "\u{80}",
    "\u{88}",
    "\u{ff}",
    "hello",
    "\0\0\0\0\0\0\0\u{3}",
];
/// The same for heads of responses.
const ANSWERS: [&str; 24] = [
    "HTTP/1.1 ",
    "HTTP/1.0 ",
    "HTTP/1.",
    "200",
    "204",
    "100 Continue",
    "999",
    " OK",
    "\r\n",
    "\r\n\r\n",
    "\n",
    "\r",
    "\n\n",
    "a: b\r\n",
    "Content-Length: 5\r\n",
    "content-length:5,5\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Connection: close\r\n",
    ":",
    " ",
    "\t",
    "\0",
    "\u{80}",
    ",",
];
/// The same for what is JSON or YAML.
const TEXTS: [&str; 36] = [
    "{", "}", "[", "]", "\"", ":", ",", "\n", "  ", "- ", "access_token", "refresh_token",
    "expires_in", "error", "invalid_grant", "3600", "-1", "1e99", "0", "null", "true", "a.b.c",
    "eyJleHAiOjE4MDAwMDM2MDB9", "\"token\"", "providers", "settings", "name", "type", "anthropic",
    "base_url", "http://127.0.0.1", "format", "saved_at", "2027-01-15T08:00:00.000Z", "revision",
    "&a *a",
];

/// The same for request bodies.
const BODIES: [&str; 18] = [
    "\"model\":\"a\"", "\"model\"", "\"m\\u006fdel\"", "\"x\"", ":", ",", ":1,", "{", "}", "[",
    "]", "\"", "\\", " ", "true", "\"\\\"\"", "\"model\":7", "\"x\":{\"model\":\"no\"}",
];

fn made_of(pieces: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        9 => select(pieces).prop_map(|piece| piece.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 1..4),
    ];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, rng_seed: RngSeed::Fixed(1), ..ProptestConfig::default() })]

    #[test]
    fn any_head(bytes in made_of(&PIECES)) {
        holds::head(&bytes);
    }

    #[test]
    fn any_head_that_starts_well(bytes in made_of(&PIECES)) {
        holds::head(&[b"POST /v1 HTTP/1.1\r\nHost: h\r\n".as_slice(), &bytes, b"\r\n\r\n"].concat());
    }

    #[test]
    fn any_body(choice in any::<u8>(), bytes in made_of(&PIECES)) {
        holds::body(&[&[choice], bytes.as_slice()].concat());
    }

    #[test]
    fn any_response_head(bytes in made_of(&ANSWERS)) {
        holds::response_head(&bytes);
        holds::response_head(&[b"HTTP/1.1 200 OK\r\n".as_slice(), &bytes, b"\r\n\r\n"].concat());
    }

    #[test]
    fn any_response_body(choice in any::<u8>(), bytes in made_of(&PIECES)) {
        holds::response_body(&[&[choice], bytes.as_slice()].concat());
    }

    #[test]
    fn any_token_response(ok in any::<bool>(), bytes in made_of(&TEXTS)) {
        holds::token_response(&[&[0, if ok { 100 } else { 45 }], bytes.as_slice()].concat());
    }

    #[test]
    fn any_state_file(bytes in made_of(&TEXTS)) {
        holds::state_file(&bytes);
    }

    #[test]
    fn any_model(bytes in made_of(&BODIES)) {
        holds::model(&[b"{".as_slice(), &bytes, b"}"].concat());
        holds::model(&bytes);
    }

    #[test]
    fn any_handshake_and_frames(bytes in made_of(&HANDSHAKE)) {
        holds::websocket(&bytes);
    }

    #[test]
    fn any_configuration(bytes in made_of(&TEXTS)) {
        holds::configuration(&bytes);
    }
}

/// A property of any bytes.
type Holds = fn(&[u8]);

#[test]
fn everything_that_the_fuzzers_kept() {
    let properties: [(&str, Holds); 10] = [
        ("head", holds::head),
        ("body", holds::body),
        ("response_head", holds::response_head),
        ("response_body", holds::response_body),
        ("token_response", holds::token_response),
        ("state_file", holds::state_file),
        ("configuration", holds::configuration),
        ("model", holds::model),
        ("usage", holds::usage),
        ("websocket", holds::websocket),
    ];
    for (target, holds) in properties {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
        let files: Vec<_> = std::fs::read_dir(&folder).unwrap().collect();
        assert!(!files.is_empty(), "{}", folder.display());
        for file in files {
            holds(&std::fs::read(file.unwrap().path()).unwrap());
        }
    }
}
