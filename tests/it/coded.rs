//! Request bodies that hide their model from `model_routes`: compressed ones, and large ones where it stands last.

use std::net::SocketAddr;

use crate::support::binary::Binary;
use crate::support::client::Client;
use crate::support::peer::{Peer, answer};
use crate::support::proxy::TestProxy;

const ZSTD: &[u8] = include_bytes!("../data/zstd/level-3.zst");
const PLAIN: &[u8] = include_bytes!("../data/zstd/plain.json");
const ROUTES: &str = "model_routes:\n  \"claude*\": [{provider: B, model: renamed}]\n  \"kept*\": [{provider: B, model: passthrough}]\n  \"*\": [{provider: A, model: passthrough}]\n";

fn fine() -> Peer {
    Peer::answering(|_| answer(200, "fine"))
}

fn start(first: &Peer, second: &Peer, settings: &str) -> TestProxy {
    TestProxy::builder()
        .settings(settings)
        .routes(ROUTES)
        .provider("A", "anthropic", &first.url(), "auth_type: none")
        .provider("B", "anthropic", &second.url(), "auth_type: none")
        .start()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let packed = miniz_oxide::deflate::compress_to_vec(bytes, 6);
    [b"\x1f\x8b\x08\0\0\0\0\0\0\x03".as_slice(), &packed, &[0; 8]].concat()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

/// `length` letters and digits that hardly compress.
fn noise(length: usize) -> String {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        char::from(
            b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_"
                [(state >> 26) as usize],
        )
    };
    (0..length).map(|_| next()).collect()
}

/// Sends `body` and waits for the answer.
fn send(address: SocketAddr, encoding: &str, body: &[u8]) -> u16 {
    let mut client = Client::connect(address);
    let length = body.len();
    let encoding = if encoding.is_empty() {
        String::new()
    } else {
        format!("Content-Encoding: {encoding}\r\n")
    };
    let head = format!(
        "POST /v1/messages HTTP/1.1\r\nHost: localhost\r\n{encoding}Content-Length: {length}\r\n\r\n"
    );
    client.send([head.as_bytes(), body].concat());
    client.answer().status
}

#[test]
fn a_zstd_body_is_routed_by_its_model_and_sent_plainly_where_that_is_renamed() {
    let (first, second) = (fine(), fine());
    let proxy = start(&first, &second, "log_level: INFO");
    assert_eq!(send(proxy.address, "zstd", ZSTD), 200);
    assert!(first.seen().is_empty());
    let seen = second.seen().pop().unwrap();
    let expected = String::from_utf8_lossy(PLAIN).replace("\"claude-x\"", "\"renamed\"");
    assert_eq!(String::from_utf8(seen.body.clone()).unwrap(), expected);
    assert_eq!(seen.field("content-encoding"), None);
    assert_eq!(seen.field("content-length"), Some(expected.len().to_string().as_str()));
}

#[test]
fn a_body_that_is_not_renamed_or_not_understood_goes_on_as_it_came() {
    let (first, second) = (fine(), fine());
    let proxy = start(&first, &second, "replay_body_bytes: 600");
    // Cut, of another encoding.
    let cases = [("zstd", &ZSTD[..200]), ("br", b"\x0b\x02\x80abc\x03"), ("gzip, zstd", ZSTD)];
    for (encoding, body) in cases {
        assert_eq!(send(proxy.address, encoding, body), 200, "{encoding}");
        let seen = first.seen().pop().unwrap();
        assert_eq!(seen.field("content-encoding"), Some(encoding));
        assert_eq!(seen.body, body);
    }
    assert!(second.seen().is_empty());
}

#[test]
fn a_large_body_with_its_model_at_the_end_is_routed_and_renamed() {
    let (first, second) = (fine(), fine());
    let proxy = start(&first, &second, "replay_body_bytes: 100000");
    let body = format!(r#"{{"messages":"{}","model":"claude-y"}}"#, "x".repeat(300_000));
    assert_eq!(send(proxy.address, "", body.as_bytes()), 200);
    assert!(first.seen().is_empty());
    let seen = second.seen().pop().unwrap();
    assert_eq!(seen.body, body.replace("claude-y", "renamed").as_bytes());
}

#[test]
fn a_compressed_body_that_inflates_over_the_limit_is_routed_by_its_model() {
    let (first, second) = (fine(), fine());
    let proxy = start(&first, &second, "replay_body_bytes: 100000");
    // Small on the wire, under the limit on the wire, and over it there too.
    for text in ["x".repeat(300_000), noise(120_000), noise(300_000)] {
        let model_first = format!(r#"{{"model":"kept-1","input":"{text}"}}"#);
        let model_last = format!(r#"{{"input":"{text}","model":"kept-1"}}"#);
        for plain in [model_first, model_last] {
            for (encoding, body) in
                [("gzip", gzip(plain.as_bytes())), ("zstd", zstd(plain.as_bytes()))]
            {
                let shown = format!("{encoding}, {} of {} bytes", body.len(), plain.len());
                assert_eq!(send(proxy.address, encoding, &body), 200, "{shown}");
                assert!(first.seen().is_empty(), "{shown}");
                let seen = second.seen().pop().unwrap();
                assert_eq!(seen.field("content-encoding"), Some(encoding), "{shown}");
                assert!(seen.body == body, "{shown}: it goes on as it came");
            }
        }
    }
}

#[test]
fn a_compressed_body_that_inflates_over_the_limit_is_sent_plainly_where_its_model_is_renamed() {
    let (first, second) = (fine(), fine());
    let proxy = start(&first, &second, "replay_body_bytes: 100000");
    for text in ["x".repeat(300_000), noise(300_000)] {
        let model_first = format!(r#"{{"model":"claude-y","input":"{text}"}}"#);
        let model_last = format!(r#"{{"input":"{text}","model":"claude-y"}}"#);
        for plain in [model_first, model_last] {
            for (encoding, body) in
                [("gzip", gzip(plain.as_bytes())), ("zstd", zstd(plain.as_bytes()))]
            {
                assert_eq!(send(proxy.address, encoding, &body), 200);
                assert!(first.seen().is_empty(), "{encoding}");
                let seen = second.seen().pop().unwrap();
                assert_eq!(seen.field("content-encoding"), None);
                assert!(seen.body == plain.replace("claude-y", "renamed").as_bytes(), "{encoding}");
            }
        }
    }
}

#[test]
fn a_body_that_inflates_over_the_largest_body_goes_to_its_provider_and_a_warning_says_that_it_is_not_renamed()
 {
    let (first, second) = (fine(), fine());
    let folder = tempfile::tempdir().unwrap();
    let config = format!(
        "settings: {{port: 0, state_dir: '{}/state', replay_body_bytes: 1000, max_body_bytes: 5000}}\n{ROUTES}providers:\n  - {{name: A, \
         type: anthropic, base_url: '{}', auth_type: none}}\n  - {{name: B, type: anthropic, base_url: '{}', auth_type: none}}\n",
        folder.path().display(),
        first.url(),
        second.url()
    );
    std::fs::write(folder.path().join("providers.yaml"), config).unwrap();
    let binary = Binary::start(folder.path(), &["run"], &[]);
    let text = "x".repeat(6000);
    let body = gzip(format!(r#"{{"model":"claude-y","input":"{text}"}}"#).as_bytes());
    for _ in 0..2 {
        assert_eq!(send(binary.address(), "gzip", &body), 200);
        assert!(first.seen().is_empty());
        assert_eq!(second.seen().pop().unwrap().body, body);
    }
    let why = "[WARN] A request for /v1/messages is sent with the model that it names, though its route renames that: its body, \
               encoded as 'gzip', is larger than settings.max_body_bytes (5000) once it is inflated";
    binary.wait_for(why);
    let last = gzip(format!(r#"{{"input":"{text}","model":"claude-y"}}"#).as_bytes());
    assert_eq!(send(binary.address(), "gzip", &last), 200);
    assert_eq!(first.seen().pop().unwrap().body, last);
    binary.wait_for("[WARN] A request for /v1/messages is routed as one that names no model: its body, encoded as 'gzip', is larger");
    assert_eq!(binary.lines().iter().filter(|line| line.contains("[WARN]")).count(), 2);
}

#[test]
fn a_body_that_hides_its_model_is_one_warning_that_says_why() {
    let first = fine();
    let folder = tempfile::tempdir().unwrap();
    let config = format!(
        "settings: {{port: 0, state_dir: state}}\nmodel_routes: {{\"x*\": [{{provider: A}}]}}\nproviders: [{{name: A, type: \
         anthropic, base_url: '{}', auth_type: none}}]\n",
        first.url()
    );
    std::fs::write(folder.path().join("providers.yaml"), config).unwrap();
    let binary = Binary::start(folder.path(), &["run"], &[]);
    for _ in 0..3 {
        send(binary.address(), "br", b"\x0b\x02\x80abc\x03");
    }
    let why = "[WARN] A request for /v1/messages is routed as one that names no model: its body is encoded as 'br'.";
    binary.wait_for(why);
    assert_eq!(binary.lines().iter().filter(|line| line.contains(why)).count(), 1);
}
