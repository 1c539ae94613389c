//! Keys of clients: by their hash, with certain models, with limits; and `evertoken key`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use evertoken::testing::{Clock, Moment, Timestamp};

use crate::support::binary::{Binary, run, text};
use crate::support::client::{Answer, Client, ask, get, post};
use crate::support::peer::{Peer, answer};
use crate::support::proxy::{Builder, TestProxy};

/// SHA-256 of "et_the-key-of-ci-0123456789".
const CI: &str = "et_the-key-of-ci-0123456789";
const CI_HASH: &str = "2987f708d0a0b58e3715c2fb99d7040dad7e5d03792b0f2b7b74e31d86d23a1e";

fn fine() -> Peer {
    Peer::answering(|_| answer(200, "fine"))
}

/// A proxy whose only provider sends on what the client shows, with a key that is known by its hash.
fn with_hash(peer: &Peer) -> TestProxy {
    let keys = format!("auth: {{enabled: true, keys: [{{name: ci, key_sha256: {CI_HASH}}}]}}");
    TestProxy::builder()
        .settings(&keys)
        .provider("P", "anthropic", &peer.url(), "auth_value: passthrough")
        .start()
}

#[test]
fn a_key_that_is_known_by_its_hash_lets_in_from_every_place_and_stays_here() {
    let peer = fine();
    let proxy = with_hash(&peer);
    let ask = |target: &str, fields: &str| {
        proxy.ask(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n"))
    };
    let wrong = &CI[..CI.len() - 1];
    for (target, fields) in [
        ("/v1/x", "x-api-key: KEY\r\nAuthorization: Bearer mine\r\n"),
        ("/v1/x", "Authorization: Bearer KEY\r\n"),
        ("/v1/x", "x-goog-api-key: KEY\r\n"),
        ("/v1/x", "api-key: KEY\r\n"),
        ("/v1/x?key=KEY&a=1", ""),
        ("/v1/x?a=KEY", "x-api-key: KEY\r\nX-Other: KEY\r\nCookie: a=1; b=KEY\r\n"),
        (
            "/to/p/v1/x",
            "x-api-key: KEY\r\nX-Other: Basic dXNlcjpldF90aGUta2V5LW9mLWNpLTAxMjM0NTY3ODk=\r\n",
        ),
    ] {
        let with = |key: &str| ask(&target.replace("KEY", key), &fields.replace("KEY", key));
        let refused = with(wrong);
        assert_eq!((refused.status, refused.code()), (401, "unauthorized"), "{target} {fields}");
        assert_eq!(with(CI).status, 200, "{target} {fields}");
        let seen = peer.seen().pop().unwrap();
        let sent = format!("{} {:?}", seen.line, seen.fields);
        assert!(!sent.contains(CI) && !sent.contains("dXNlcjpldF90aGUta2V5"), "{sent}");
    }
    assert_eq!(peer.seen()[0].field("authorization"), Some("Bearer mine"));
    let refused = ask(&format!("/{CI}/v1/x"), &format!("x-api-key: {CI}\r\n"));
    assert_eq!((refused.status, refused.code()), (400, "bad_request"));
    // The hash is no key.
    assert_eq!(ask("/v1/x", &format!("x-api-key: {CI_HASH}\r\n")).status, 401);
    assert_eq!(ask("/-/status", &format!("x-api-key: {CI}\r\n")).status, 200);
}

/// A key that is known by its hash was found between separators only, and not as a part of a URL or before a dot.
#[test]
fn a_key_went_on_to_the_provider_from_a_place_where_only_its_text_was_found() {
    let peer = fine();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("{CI}\n")).unwrap();
    let file = file.path().display();
    let hash = format!("keys: [{{name: ci, key_sha256: {CI_HASH}}}]");
    let kinds = [
        hash,
        "api_key_env: CI".to_owned(),
        "api_key_env: LINE".to_owned(),
        format!("api_key_file: '{file}'"),
        "keys: [{name: ci, key_env: CI}]".to_owned(),
        format!("keys: [{{name: ci, key_file: '{file}'}}]"),
    ]
    .map(|kind| {
        // A client shows its own key, and has another one's elsewhere.
        let more = "{name: other, key_env: OTHER}";
        match kind.strip_suffix(']') {
            Some(list) => format!("{list}, {more}]"),
            None => format!("{kind}, keys: [{more}]"),
        }
    });
    for (kind, auth_value) in kinds.iter().flat_map(|kind| [(kind, "passthrough"), (kind, "fixed")])
    {
        let proxy = TestProxy::builder()
            .settings(&format!("auth: {{enabled: true, {kind}}}"))
            .variable("CI", CI)
            .variable("OTHER", "other")
            .variable("LINE", &format!("ci: {CI}"))
            .provider("P", "anthropic", &peer.url(), &format!("auth_value: {auth_value}"))
            .start();
        let ask = |target: &str, field: &str| {
            let request = format!(
                "GET {target} HTTP/1.1\r\nHost: localhost\r\n{field}\r\nx-api-key: other\r\n\r\n"
            );
            proxy.ask(request.replace("KEY", CI))
        };
        for field in [
            "Referer: https://h/a/KEY/b#c",
            "Referer: https://u:KEY@h/",
            "X-Other: KEY.",
            "X-Other: <KEY>",
            "X-Other: {\"k\":[\"KEY\"]}",
            "X-Other: https%3A%2F%2Fh%2FKEY",
            "X-Other: a=1;KEY|b",
            "User-Agent: x/KEY",
            "Cookie: a=KEY.sig; b=1",
            "Cookie: a=%22KEY%22",
            "Authorization: Token KEY",
            "Authorization: Digest username=KEY.x",
            "Proxy-Authorization: Bearer KEY",
            "Sec-WebSocket-Protocol: realtime, openai-insecure-api-key.KEY",
        ] {
            assert_eq!(ask("/v1/x", field).status, 200, "{kind}: {field}");
            let seen = peer.seen().pop().unwrap();
            let sent = format!("{} {:?}", seen.line, seen.fields);
            assert!(!sent.contains(CI), "{kind}: {field}: {sent}");
        }
        for query in [
            "key=KEY", "a=KEY", "KEY", "KEY=a", "a=/b/KEY", "a=b%2FKEY.c", "a=https://u:KEY@h",
            "%6Bey=KEY", "a=1?key=KEY", "a[KEY]=1", "a=KEY+b",
        ] {
            let target = format!("/v1/x?b=2&{query}&c=3");
            assert_eq!(ask(&target, "X-Other: a").status, 200, "{kind}: {query}");
            let seen = peer.seen().pop().unwrap();
            assert_eq!(seen.line, "GET /v1/x?b=2&c=3 HTTP/1.1", "{kind}: {query}");
        }
        for path in
            ["/KEY/v1/x", "/v1/KEY", "/v1/KEY.json", "/v1/KEY;a", "/v1/a%2FKEY", "/v1/a:KEY"]
        {
            let before = peer.seen().len();
            let refused = ask(path, "X-Other: a");
            assert_eq!((refused.status, refused.code()), (400, "bad_request"), "{kind}: {path}");
            assert_eq!(peer.seen().len(), before, "{kind}: {path}");
        }
    }
}

/// Keys for certain models, for providers of each type.
fn with_models(peer: &Peer, more: &str) -> TestProxy {
    let keys = "auth: {enabled: true, api_key: plain-key, keys: [{name: small, key_env: SMALL, models: ['small-*', 'o3']}, \
                {name: narrow, key_env: NARROW, models: ['small-*'], providers: [c]}]}";
    TestProxy::builder()
        .settings(&format!("{keys}{more}"))
        .variable("SMALL", "key-of-small")
        .variable("NARROW", "key-of-narrow")
        .provider("A", "anthropic", &format!("{}/a", peer.url()), "auth_type: none")
        .provider("C", "openai", &format!("{}/c", peer.url()), "auth_type: none")
        .provider("G", "generic", &format!("{}/g", peer.url()), "auth_type: none")
        .start()
}

fn request(method: &str, target: &str, key: &str, fields: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "{method} {target} HTTP/1.1\r\nHost: localhost\r\nx-api-key: {key}\r\n{fields}Content-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let packed = miniz_oxide::deflate::compress_to_vec(bytes, 6);
    [b"\x1f\x8b\x08\0\0\0\0\0\0\x03".as_slice(), &packed, &[0; 8]].concat()
}

#[track_caller]
fn assert_refused(refused: &Answer, part: &str) {
    assert_eq!((refused.status, refused.code()), (403, "not_allowed"), "{}", refused.body);
    assert!(refused.body.contains(part), "{part}: {}", refused.body);
}

#[test]
fn a_key_with_models_used_every_model() {
    let peer = fine();
    let proxy = with_models(&peer, "");
    let ask = |method: &str, target: &str, body: &str| {
        proxy.ask(request(method, target, "key-of-small", "", body.as_bytes()))
    };
    for (method, target, body) in [
        ("POST", "/v1/messages", r#"{"model":"small-1"}"#),
        ("POST", "/v1/messages/count_tokens", r#"{"x":{"model":"big"},"model":"o3"}"#),
        ("POST", "/v1/chat/completions", r#"{"model":"small-"}"#),
        ("POST", "/to/g/chat/completions", r#"{"model":"small-1"}"#),
        ("POST", "/to/g/openai/deployments/small-2/chat/completions?api-version=1", "{}"),
        ("POST", "/v1beta/models/small-3:generateContent", "{}"),
        ("GET", "/v1/models/small-3", ""),
        ("GET", "/v1/responses/r", ""),
        ("DELETE", "/v1/files/f", ""),
        ("POST", "/v1/files", "--x\r\n"),
        ("POST", "/v1/responses/r/cancel", "{}"),
    ] {
        let before = peer.seen().len();
        let answered = ask(method, target, body);
        assert_eq!(answered.status, 200, "{method} {target}: {}", answered.body);
        assert_eq!(
            peer.seen()[before..].iter().map(|seen| &*seen.body).next(),
            Some(body.as_bytes())
        );
    }
    let before = peer.seen().len();
    for (method, target, body, part) in [
        ("POST", "/v1/messages", r#"{"model":"big"}"#, "may not use the model 'big'"),
        ("POST", "/v1/messages", r#"{"model":"small-1","model":"big"}"#, "'big'"),
        ("POST", "/v1/messages", r#"{"model":"big","model":"small-1"}"#, "'big'"),
        ("POST", "/v1/messages/count_tokens", r#"{"model":"big"}"#, "'big'"),
        ("POST", "/v1/messages", r#"{"model":"small-1","fallbacks":["big"]}"#, "'big'"),
        ("POST", "/v1/messages", r#"{"fallbacks":[{"big":["x"]}],"model":"small-1"}"#, "no text"),
        ("POST", "/v1/files/..;/chat/completions", r#"{"model":"big"}"#, "in different ways"),
        ("POST", "/v1/files/..%5Cchat/completions", r#"{"model":"big"}"#, "in different ways"),
        ("POST", "/v1/files/%252e%252e/messages", r#"{"model":"big"}"#, "in different ways"),
        ("POST", "/to/a/v1/messages%3f/cancel", r#"{"model":"big"}"#, "in different ways"),
        ("POST", "/to/a/v1/messages%23/cancel", r#"{"model":"big"}"#, "in different ways"),
        ("POST", "/v1/messages", "{}", "names no model"),
        ("POST", "/v1/messages", "", "no whole JSON object"),
        ("POST", "/v1/messages", "model=small-1", "no whole JSON object"),
        (
            "POST",
            "/v1/messages/batches",
            r#"{"model":"small-1","requests":[]}"#,
            "names its models within",
        ),
        ("POST", "/v1/batches", r#"{"input_file_id":"f"}"#, "names its models within"),
        ("POST", "/to/c/v1/%62atches", r#"{"model":"small-1"}"#, "names its models within"),
        (
            "POST",
            "/to/g/openai/deployments/big/chat/completions",
            r#"{"model":"small-1"}"#,
            "'big'",
        ),
        ("POST", "/v1beta/models/big:generateContent", r#"{"model":"small-1"}"#, "'big'"),
        ("POST", "/v1beta/models/big%3AgenerateContent", r#"{"model":"small-1"}"#, "'big'"),
        ("POST", "/v1beta/models/small-1/../big:generateContent", "{}", "'big'"),
        ("GET", "/v1/models/big", "", "'big'"),
        ("GET", "/to/g/v1beta/models", "", "this list of models"),
        ("GET", "/v1/realtime?model=big", "", "'big'"),
        ("GET", "/v1/messages", r#"{"model":"big"}"#, "'big'"),
    ] {
        assert_refused(&ask(method, target, body), part);
    }
    assert_eq!(peer.seen().len(), before, "none of them reached a provider");
    // The shape of the API, and what the key has.
    let refused = ask("POST", "/v1/messages", r#"{"model":"big"}"#);
    assert_eq!(refused.json()["error"]["type"], "permission_error");
    assert!(
        refused.body.contains("The key 'small'")
            && refused.body.contains("only the models small-*, o3")
    );
    // Both limits of a key hold.
    let narrow = |target: &str| {
        proxy.ask(request("POST", target, "key-of-narrow", "", br#"{"model":"small-1"}"#))
    };
    assert_eq!(narrow("/v1/chat/completions").status, 200);
    assert_refused(&narrow("/v1/messages"), "may use no provider");
    assert_refused(&narrow("/to/a/v1/messages"), "may not use the provider a");
    // A plain key has every model.
    let plain = request("POST", "/v1/messages", "plain-key", "", b"{}");
    assert_eq!(proxy.ask(plain).status, 200);
}

#[test]
fn no_body_that_is_hard_to_read_hides_a_model_from_the_limits_of_a_key() {
    let peer = fine();
    let proxy = with_models(&peer, ", replay_body_bytes: 1000");
    let ask = |fields: &str, body: &[u8]| {
        proxy.ask(request("POST", "/v1/messages", "key-of-small", fields, body))
    };
    let (good, bad) = (br#"{"model":"small-1"}"#, br#"{"model":"big"}"#);
    let long = |end: &str| {
        let filler = "x".repeat(200_000);
        format!(r#"{{"model":"small-1","x":"{filler}"{end}}}"#).into_bytes()
    };
    let gzipped = "Content-Encoding: gzip\r\n";
    for (fields, body) in [
        (gzipped, gzip(good)),
        (
            "Content-Encoding: zstd\r\n",
            ruzstd::encoding::compress_to_vec(
                &good[..],
                ruzstd::encoding::CompressionLevel::Fastest,
            ),
        ),
        ("", long("")),
        (gzipped, gzip(&long(""))),
        ("Content-Encoding: identity\r\n", good.to_vec()),
    ] {
        let answered = ask(fields, &body);
        assert_eq!(answered.status, 200, "{fields} {}: {}", body.len(), answered.body);
        assert_eq!(peer.seen().pop().unwrap().body, body, "it goes on as it came");
    }
    let before = peer.seen().len();
    for (fields, body, part) in [
        (gzipped, gzip(bad), "'big'"),
        ("", long(r#","model":"big""#), "'big'"),
        (gzipped, gzip(&long(r#","model":"big""#)), "'big'"),
        (gzipped, b"\x1f\x8b\x08 no gzip".to_vec(), "can't be read"),
        ("Content-Encoding: br\r\n", good.to_vec(), "encoded as 'br'"),
        (
            "Content-Encoding: gzip\r\nContent-Encoding: gzip\r\n",
            gzip(&gzip(good)),
            "can't be read",
        ),
        ("Content-Encoding: gzip, gzip\r\n", gzip(&gzip(good)), "can't be read"),
        ("", gzip(good), "no whole JSON object"),
        ("Content-Type: multipart/form-data; boundary=x\r\n", good.to_vec(), "a form"),
        (
            "Content-Type: application/json; Charset=\"utf-7\"\r\n",
            br#"{"model":"small-1","+AG0-odel":"big"}"#.to_vec(),
            "in the charset",
        ),
    ] {
        assert_refused(&ask(fields, &body), part);
    }
    assert_eq!(peer.seen().len(), before, "none of them reached a provider");
    // Chunks, with the second model in the last one.
    let mut client = Client::connect(proxy.address);
    client.send(
        "POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nx-api-key: key-of-small\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
    let body = long(r#","model":"big""#);
    for piece in body.chunks(50_000) {
        client.send([format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat());
    }
    client.send("0\r\n\r\n");
    assert_refused(&client.answer(), "'big'");
}

#[test]
fn the_name_that_the_client_writes_counts_where_a_route_renames_it() {
    let peer = fine();
    let keys = "auth: {enabled: true, keys: [{name: ci, key_env: CI, models: [alias]}]}";
    let proxy = TestProxy::builder()
        .settings(keys)
        .variable("CI", "key-of-ci")
        .routes("model_routes:\n  \"alias\": [{provider: P, model: real}]\n")
        .provider("P", "anthropic", &peer.url(), "auth_type: none")
        .start();
    let ask = |body: &str| {
        let request = request("POST", "/v1/messages", "key-of-ci", "", body.as_bytes());
        proxy.ask(request)
    };
    assert_eq!(ask(r#"{"model":"alias"}"#).status, 200);
    assert_eq!(peer.seen().pop().unwrap().body, br#"{"model":"real"}"#);
    assert_refused(&ask(r#"{"model":"real"}"#), "'real'");
}

#[test]
fn a_key_with_models_was_shown_every_model() {
    let listing = |path: &'static str| {
        Peer::answering(move |seen| {
            let list =
                r#"{"data":[{"id":"small-1","object":"model"},{"id":"big","object":"model"}]}"#;
            answer(if seen.line.contains(path) { 200 } else { 404 }, list)
        })
    };
    let ids = |answered: &Answer| -> Vec<String> {
        let list = answered.json();
        let list = list["data"].as_array().unwrap_or_else(|| panic!("{}", answered.body));
        list.iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect()
    };
    let peer = listing("/v1/models");
    let ask = |proxy: &TestProxy, target: &str, key: &str| {
        proxy.ask(format!(
            "GET {target} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n\r\n"
        ))
    };
    let several = with_models(&peer, "");
    for target in
        ["/v1/models", "/to/c/v1/models", "/to/g/v1/models", "/v1/models/", "/v1/%6dodels"]
    {
        assert_eq!(ids(&ask(&several, target, "key-of-small")), ["small-1"], "{target}");
    }
    assert_eq!(ids(&ask(&several, "/v1/models", "plain-key")), ["small-1", "big"]);
    for kind in ["openai", "anthropic", "generic"] {
        let alone = TestProxy::builder()
            .settings("auth: {enabled: true, keys: [{name: ci, key_env: CI, models: ['small-*', alias]}]}")
            .variable("CI", "key-of-ci")
            .routes("model_routes:\n  \"alias\": [{provider: P}]\n  \"hidden\": [{provider: P}]\n")
            .provider("P", kind, &peer.url(), "auth_type: none")
            .start();
        let found = ids(&ask(&alone, "/v1/models", "key-of-ci"));
        let expected: &[&str] = if kind == "openai" { &["small-1", "alias"] } else { &["small-1"] };
        assert_eq!(found, expected, "{kind}");
    }
}

#[test]
fn a_key_with_models_or_limits_opens_no_page_and_gets_no_token() {
    let peer = fine();
    let keys = "auth: {enabled: true, keys: [{name: a, key_env: A, providers: [p], models: ['*']}, \
                {name: b, key_env: B, requests_per_minute: 9}, {name: c, key_env: C, providers: [p]}]}, \
                token_endpoint: true";
    let proxy = TestProxy::builder()
        .settings(keys)
        .variable("A", "key-of-a")
        .variable("B", "key-of-b")
        .variable("C", "key-of-c")
        .provider("P", "anthropic", &peer.url(), "auth_value: fixed")
        .start();
    let ask = |page: &str, key: &str| ask(proxy.address, get(&format!("/-/{page}?key={key}")));
    for (key, part) in [("key-of-a", "only the models *"), ("key-of-b", "it has a limit")] {
        for page in ["", "status", "metrics", "events"] {
            assert_refused(&ask(page, key), part);
        }
        assert_refused(&ask("token/p", key), "gets no token");
        assert_eq!(ask("healthy", key).status, 200);
    }
    assert_refused(&ask("token/p", "key-of-c"), "P has no access token");
}

/// A clock that the test moves: seconds on the wall clock since 2027-01-15T08:00:00Z, and milliseconds on the steady one.
#[derive(Clone, Default)]
struct TestClock {
    wall_secs: Arc<AtomicU64>,
    steady_ms: Arc<AtomicU64>,
}

impl TestClock {
    fn clock(&self) -> Clock {
        let own = self.clone();
        Clock::from_fn(move || Moment {
            wall: Timestamp::from_secs(
                1_800_000_000 + i64::try_from(own.wall_secs.load(Ordering::SeqCst)).unwrap(),
            ),
            steady_ms: 1_000_000 + own.steady_ms.load(Ordering::SeqCst),
        })
    }

    fn pass(&self, ms: u64) {
        self.steady_ms.fetch_add(ms, Ordering::SeqCst);
        self.wall_secs.fetch_add(ms / 1000, Ordering::SeqCst);
    }
}

fn with_limit(peer: &Peer, clock: &TestClock, most: u64) -> TestProxy {
    limited(peer, clock, &format!(", requests_per_minute: {most}")).start()
}

/// A proxy with a plain key, and one that has a `limit`.
fn limited(peer: &Peer, clock: &TestClock, limit: &str) -> Builder {
    let keys = format!(
        "auth: {{enabled: true, api_key: plain-key, keys: [{{name: ci, key_env: CI{limit}}}]}}"
    );
    TestProxy::builder()
        .settings(&keys)
        .variable("CI", "key-of-ci")
        .clock(clock.clock())
        .provider("A", "anthropic", &peer.url(), "auth_type: none")
        .provider("C", "openai", &peer.url(), "auth_type: none")
}

#[test]
fn a_key_with_a_limit_made_any_number_of_requests() {
    let (peer, clock) = (fine(), TestClock::default());
    let proxy = with_limit(&peer, &clock, 3);
    let ask = |target: &str| proxy.ask(request("POST", target, "key-of-ci", "", b"{}"));
    for target in ["/v1/messages", "/to/c/x", "/v1/chat/completions"] {
        assert_eq!(ask(target).status, 200);
    }
    for (target, kind) in
        [("/v1/messages", "error"), ("/v1/chat/completions", ""), ("/to/a/x", "error")]
    {
        let refused = ask(target);
        assert_eq!((refused.status, refused.code()), (429, "key_limit"), "{target}");
        assert_eq!(refused.field("retry-after"), Some("60"), "{target}");
        assert_eq!(refused.field("x-should-retry"), None, "{target}");
        let told = refused.json();
        assert_eq!(told["type"].as_str().unwrap_or_default(), kind, "in the shape of the API");
        assert_eq!(told["error"]["type"], "rate_limit_error");
        assert!(told["error"]["message"].as_str().unwrap().contains("'ci' has made 3 requests"));
    }
    // Other keys and open pages go on.
    assert_eq!(proxy.ask(request("POST", "/v1/messages", "plain-key", "", b"{}")).status, 200);
    assert_eq!(proxy.ask(get("/-/healthy")).status, 200);
    clock.pass(59_999);
    let refused = ask("/v1/messages");
    assert_eq!((refused.status, refused.field("retry-after")), (429, Some("1")));
    clock.pass(1);
    assert_eq!(ask("/v1/messages").status, 200);
    assert_eq!(peer.seen().len(), 5);
}

#[test]
fn a_refused_request_is_not_counted() {
    let (peer, clock) = (fine(), TestClock::default());
    let proxy = with_limit(&peer, &clock, 1);
    let ask = |target: &str| proxy.ask(request("POST", target, "key-of-ci", "", b"{}"));
    for target in ["/to/none/x", "/unknown", "/v1beta/models/m:generateContent", "/-/status"] {
        let refused = ask(target);
        assert!((400..500).contains(&refused.status) && refused.status != 429, "{target}");
    }
    let cut = "POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nx-api-key: key-of-ci\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n";
    assert_eq!(proxy.ask(cut).status, 400);
    assert_eq!(ask("/v1/messages").status, 200);
    assert_eq!(ask("/v1/messages").status, 429);
}

#[test]
fn a_clock_that_is_stepped_locks_no_key_out() {
    let (peer, clock) = (fine(), TestClock::default());
    let proxy = with_limit(&peer, &clock, 1);
    let ask = || proxy.ask(request("POST", "/v1/messages", "key-of-ci", "", b"{}")).status;
    assert_eq!(ask(), 200);
    clock.wall_secs.store(900_000, Ordering::SeqCst);
    assert_eq!(ask(), 429);
    clock.wall_secs.store(0, Ordering::SeqCst);
    assert_eq!(ask(), 429);
    clock.steady_ms.fetch_add(60_000, Ordering::SeqCst);
    assert_eq!(ask(), 200);
}

#[test]
fn exactly_as_many_requests_pass_as_the_limit_and_a_reload_does_not_forget_them() {
    let (peer, clock) = (fine(), TestClock::default());
    let proxy = with_limit(&peer, &clock, 100);
    let passed = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut client = Client::connect(proxy.address);
                for _ in 0..50 {
                    client.send(request("POST", "/v1/messages", "key-of-ci", "", b"{}"));
                    let status = client.answer().status;
                    assert!(matches!(status, 200 | 429), "{status}");
                    passed.fetch_add(u64::from(status == 200), Ordering::SeqCst);
                }
            });
        }
    });
    assert_eq!(passed.into_inner(), 100);
    let ask = || proxy.ask(request("POST", "/v1/messages", "key-of-ci", "", b"{}")).status;
    let reload = |limit: &str| {
        let described = limited(&peer, &clock, limit).text(proxy.folder());
        std::fs::write(proxy.folder().join("providers.yaml"), described).unwrap();
        let answered = proxy.ask(request("POST", "/-/reload", "plain-key", "", b""));
        assert_eq!(answered.status, 200, "{}", answered.body);
    };
    reload(", requests_per_minute: 100");
    assert_eq!(ask(), 429);
    reload(", requests_per_minute: 101");
    assert_eq!((ask(), ask()), (200, 429));
    reload("");
    assert_eq!(ask(), 200);
}

#[test]
fn a_new_key_is_printed_with_an_entry_that_lets_it_in() {
    let peer = fine();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("providers.yaml");
    let write = |keys: &str| {
        let config = format!(
            "settings:\n  port: 0\n  state_dir: '{}'\n  auth:\n    enabled: true\n    keys:\n    - {{name: old, key_env: OLD}}\n{keys}\
             providers:\n- {{name: P, type: anthropic, base_url: '{}', auth_type: none}}\n",
            folder.path().join("state").display(),
            peer.url()
        );
        std::fs::write(&path, config).unwrap();
    };
    write("");
    let variables = [("OLD", "old-key")];
    let made = |arguments: &[&str]| {
        let output = run(folder.path(), arguments, &variables);
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, printed, told) = made(&["key", "ci"]);
    assert_eq!((code, told.as_str()), (Some(0), ""));
    let key = printed.lines().next().unwrap();
    assert!(key.starts_with("et_") && key.len() == 46, "{printed}");
    assert_eq!(printed.matches(key).count(), 1, "{printed}");
    assert!(printed.ends_with(" }\n"), "the prompt of a shell stood on the last line: {printed}");
    let entry = printed.lines().last().unwrap();
    assert_ne!(made(&["key", "ci"]).1.lines().next(), Some(key), "each one is another");
    write(&format!("  {entry}\n"));
    let binary = Binary::start(folder.path(), &["run"], &variables);
    assert_eq!(ask(binary.address(), post(&format!("/v1/x?key={key}"), "{}")).status, 200);
    binary.wait_for("POST /v1/x -> 200 from P, key ci, ");
    assert_eq!(ask(binary.address(), post("/v1/x?key=et_other", "{}")).status, 401);
    // The log holds no key, wherever it stood.
    assert_eq!(ask(binary.address(), post(&format!("/{key}/v1/x?key={key}"), "{}")).status, 400);
    binary.wait_for("POST /[key] -> 400");
    assert!(binary.lines().iter().all(|line| !line.contains(key)), "{:?}", binary.lines());
    // The name is taken now.
    let (code, printed, told) = made(&["key", "ci"]);
    assert_eq!((code, printed.as_str()), (Some(1), ""));
    assert!(told.contains("There is a key called 'ci' in "), "{told}");
    for name in ["", "a b", "a:b", "default", &"n".repeat(101)] {
        assert_eq!(made(&["key", name]).0, Some(2), "{name}");
    }
    assert_eq!(made(&["key", &"n".repeat(100)]).0, Some(0));
    assert_eq!(made(&["key"]).0, Some(2));
    // A key can be made before there is a configuration.
    let empty = tempfile::tempdir().unwrap();
    let output = run(empty.path(), &["key", "ci"], &[]);
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stdout).contains("with settings.auth.enabled: true"));
}

#[test]
fn a_key_used_any_number_of_tokens_in_a_day() {
    let usage = r#"{"model":"m","usage":{"input_tokens":10,"output_tokens":20,"cache_read_input_tokens":30,"cache_creation_input_tokens":40}}"#;
    let peer = Peer::answering(move |_| {
        format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{usage}",
            usage.len()
        )
    });
    let clock = TestClock::default();
    let described = || limited(&peer, &clock, ", tokens_per_day: 150");
    let proxy = described().start();
    let ask = |proxy: &TestProxy, key: &str| {
        proxy.ask(request("POST", "/v1/messages", key, "", br#"{"model":"m"}"#))
    };
    // Input, output and both of the cache: the second one begins below the limit, and is finished.
    for (which, count) in [("first", "1"), ("second", "2")] {
        assert_eq!(ask(&proxy, "key-of-ci").status, 200);
        let counted = format!("evertoken_key_requests_total{{code=\"200\",key=\"ci\"}} {count}");
        crate::support::eventually(&format!("the {which} answer is counted"), || {
            proxy.ask(get("/-/metrics?key=plain-key")).body.contains(&counted)
        });
    }
    let refused = ask(&proxy, "key-of-ci");
    assert_eq!(refused.status, 429);
    assert_eq!(refused.code(), "key_limit");
    // 08:00 until midnight UTC.
    assert_eq!(refused.field("retry-after"), Some("57600"));
    // The SDKs would sleep until then.
    assert_eq!(refused.field("x-should-retry"), Some("false"));
    assert!(refused.body.contains("'ci' has used 200 tokens today"), "{}", refused.body);
    assert_eq!(ask(&proxy, "plain-key").status, 200);
    // A restart does not forget them, and the next day begins anew.
    let proxy = described().folder(proxy.into_folder()).start();
    assert_eq!(ask(&proxy, "key-of-ci").status, 429);
    clock.pass(57_599_000);
    assert_eq!(ask(&proxy, "key-of-ci").field("retry-after"), Some("1"));
    clock.pass(1_000);
    assert_eq!(ask(&proxy, "key-of-ci").status, 200);
}

#[test]
fn check_said_that_a_key_may_use_a_model_that_is_not_one_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let config = "settings: {auth: {enabled: true, keys: [{name: ci, key_env: CI, models: ['small-*']}]}}\n\
                  providers: [{name: P, type: anthropic, base_url: 'http://127.0.0.1:9', auth_type: none}]\n";
    std::fs::write(folder.path().join("providers.yaml"), config).unwrap();
    let check = |model: &str| {
        let arguments = ["check", "--route", model, "--key", "ci", "--path", "/v1/messages"];
        text(&run(folder.path(), &arguments, &[("CI", "key-of-ci")]).stdout)
    };
    let refused = check("big");
    assert!(
        refused.contains("nobody: 403 not_allowed: The key 'ci' may not use the model 'big'"),
        "{refused}"
    );
    assert!(!check("small-1").contains("nobody"), "{}", check("small-1"));
}
