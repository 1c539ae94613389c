//! Keys of clients: by their hash, and with certain models.

use crate::support::client::{Answer, Client, ask, get};
use crate::support::peer::{Peer, answer};
use crate::support::proxy::TestProxy;

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
