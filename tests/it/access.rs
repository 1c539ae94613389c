//! Access to the proxy, and each refusal in docs/reference.md: status, code and shape.

use crate::support::binary::{run, text};
use crate::support::client::{Answer, Client, get, post};
use crate::support::peer::{Peer, answer};
use crate::support::proxy::{Builder, TestProxy};

fn fine() -> Peer {
    Peer::answering(|_| answer(200, "fine"))
}

#[test]
fn malformed_requests_get_400_and_the_connection_closes() {
    let peer = fine();
    let proxy = TestProxy::before(&peer.url());
    for request in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\nHost: a\n\n",
        "GET / HTTP/1.1\r\nHost: localhost\r\nX: a\0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n\r\n",
        "GET @evil/x HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "GET /{} HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n",
    ] {
        let mut client = Client::connect(proxy.address);
        client.send(request);
        client.send(get("/smuggled"));
        let refused = client.answer();
        assert_eq!((refused.status, refused.code()), (400, "bad_request"), "{request:?}");
        assert_eq!(refused.field("connection"), Some("close"), "{request:?}");
        assert!(refused.json()["error"]["message"].is_string());
        assert!(client.is_closed(), "{request:?}");
    }
    assert!(peer.seen().is_empty());
}

#[test]
fn heads_over_the_limits_get_431() {
    let peer = fine();
    let proxy = TestProxy::before(&peer.url());
    let head = |fields: usize| {
        format!("GET / HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "a: b\r\n".repeat(fields - 1))
    };
    // The provider's own field and those of the connection come on top; the peer takes any number.
    assert_eq!(proxy.ask(head(128)).status, 200);
    let refused = proxy.ask(head(129));
    assert_eq!((refused.status, refused.code()), (431, "head_too_large"));
    let long = format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "x".repeat(70_000));
    assert_eq!(proxy.ask(long).status, 431);
}

#[test]
fn slow_clients_get_408() {
    let peer = fine();
    let proxy = TestProxy::builder()
        .settings("timeouts: {client_head: 1, client_idle: 1}")
        .provider("P", "openai", &peer.url(), "auth_type: none")
        .start();
    let slow_head = proxy.ask("GET / HTTP/1.1\r\nHost: local");
    assert_eq!((slow_head.status, slow_head.code()), (408, "client_timeout"));
    let slow_body = proxy.ask("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nab");
    assert_eq!((slow_body.status, slow_body.code()), (408, "client_timeout"));
    // One that says nothing at all is closed without an answer.
    assert!(Client::connect(proxy.address).is_closed());
    let mut kept = Client::connect(proxy.address);
    kept.send(get("/"));
    assert_eq!(kept.answer().status, 200);
    assert!(kept.is_closed());
}

/// The client would have taken it for the answer to its next request.
#[test]
fn an_empty_line_after_a_body_brought_a_408_that_nobody_asked_for() {
    let peer = fine();
    let proxy = TestProxy::builder()
        .settings("timeouts: {client_head: 1}")
        .provider("P", "openai", &peer.url(), "auth_type: none")
        .start();
    for lines in ["\r\n", "\r\n\r\n\r\n\r\n", "\r"] {
        let mut idle = Client::connect(proxy.address);
        idle.send(post("/", "{}") + lines);
        assert_eq!(idle.answer().status, 200);
        // The time of a head that begins now ends later than one that began with the empty line.
        assert_eq!(proxy.ask("GET / HTTP/1.1\r\nHost: local").code(), "client_timeout");
        assert!(!idle.has_word(), "{lines:?}");
        idle.send(if lines == "\r" { "\n" } else { "" }.to_owned() + &get("/"));
        assert_eq!(idle.answer().status, 200, "{lines:?}");
    }
}

#[test]
fn without_auth_foreign_hosts_and_origins_get_403() {
    let peer = fine();
    let proxy = TestProxy::builder()
        .settings("allowed_hosts: [\"Proxy.lan\", \"other.lan:80\", \"[fd00::1]\", \"fd00::2\"]")
        .provider("P", "anthropic", &peer.url(), "auth_type: none")
        .start();
    let with = |fields: &str| proxy.ask(format!("GET /v1/messages HTTP/1.1\r\n{fields}\r\n\r\n"));
    for fine in ["Host: localhost", "Host: 127.0.0.1:1", "Host: [::1]", "Host: proxy.lan:80"] {
        assert_eq!(with(fine).status, 200, "{fine}");
    }
    for fine in ["Host: other.lan", "Host: [fd00::1]:80", "Host: [fd00::2]"] {
        assert_eq!(with(fine).status, 200, "{fine}");
    }
    let refused = with("Host: evil.example");
    assert_eq!((refused.status, refused.code()), (403, "forbidden_host"));
    assert_eq!(refused.json()["error"]["type"], "permission_error");
    assert_eq!(refused.json()["type"], "error");
    for origin in ["Origin: http://evil.example", "Origin: null", "Sec-Fetch-Site: cross-site"] {
        let refused = with(&format!("Host: localhost\r\n{origin}"));
        assert_eq!((refused.status, refused.code()), (403, "forbidden_origin"), "{origin}");
    }
    let preflight = proxy.ask(
        "OPTIONS /v1/messages HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example\r\n\
         Access-Control-Request-Method: POST\r\n\r\n",
    );
    assert_eq!(preflight.code(), "forbidden_origin");
    assert_eq!(peer.seen().len(), 7);
}

#[test]
fn a_refusal_of_a_page_or_a_key_said_nothing_of_what_to_set() {
    let peer = fine();
    let of = |settings: &str, fields: &str| {
        TestProxy::builder()
            .settings(settings)
            .provider("P", "openai", &peer.url(), "auth_type: none")
            .start()
            .ask(format!("GET /v1/models HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n"))
            .body
    };
    let with_key = "auth: {enabled: true, api_key: a-key}";
    for (settings, fields, parts) in [
        (
            "max_connections: 9",
            "Origin: http://localhost:3000\r\n",
            ["http://localhost:3000", "settings.allowed_origins"],
        ),
        (
            "max_connections: 9",
            "Sec-Fetch-Site: same-site\r\n",
            ["origin", "settings.allowed_origins"],
        ),
        (with_key, "", ["No key was sent", "x-goog-api-key"]),
        (with_key, "api-key: wrong-key\r\n", ["not one of this evertoken", "settings.auth"]),
    ] {
        let told = of(settings, fields);
        assert!(parts.iter().all(|part| told.contains(part)), "{told}");
        assert!(!told.contains("wrong-key") && !told.contains("a-key"), "{told}");
    }
    let told = TestProxy::before(&peer.url()).ask("GET / HTTP/2.0\r\n\r\n").body;
    assert!(told.contains("turn HTTP/2 off"), "{told}");
}

#[test]
fn a_refusal_has_the_shape_of_the_provider_that_the_path_names() {
    let peer = fine();
    let proxy = TestProxy::builder()
        .settings("auth: {enabled: true, api_key: k}")
        .provider("A", "anthropic", &peer.url(), "auth_type: none")
        .provider("O", "openai", &peer.url(), "auth_type: none")
        .start();
    let anthropic = proxy.ask(get("/to/a/v1/messages")).json();
    assert_eq!((&anthropic["type"], &anthropic["error"]["code"]), (&"error".into(), &().into()));
    let openai = proxy.ask(get("/to/o/v1/messages")).json();
    assert_eq!((&openai["type"], &openai["error"]["code"]), (&().into(), &"unauthorized".into()));
    assert_eq!(proxy.ask(get("/v1/messages")).json()["type"], "error");
    // A path of no API has the shape that most clients read.
    assert_eq!(proxy.ask(get("/v1/unknown")).json()["error"]["code"], "unauthorized");
    assert_eq!(proxy.ask(get("/v1/models")).json()["error"]["code"], "unauthorized");
    assert_eq!(proxy.ask(get("/-/status")).json()["error"]["code"], "unauthorized");
}

#[test]
fn with_auth_a_key_is_needed_and_stays_here() {
    let peer = fine();
    let proxy = TestProxy::builder()
        .settings("auth: {enabled: true, api_key_env: KEYS}")
        .variable("KEYS", "first-key\nsecond-key")
        .provider("P", "anthropic", &peer.url(), "auth_value: passthrough")
        .start();
    let with = |fields: &str| {
        proxy.ask(format!("GET /v1/messages HTTP/1.1\r\nHost: any.example\r\n{fields}\r\n"))
    };
    for wrong in ["", "x-api-key: wrong\r\n", "Authorization: Bearer first\r\n"] {
        let refused = with(wrong);
        assert_eq!((refused.status, refused.code()), (401, "unauthorized"), "{wrong}");
        assert!(refused.field("www-authenticate").is_some());
        assert_eq!(refused.json()["error"]["type"], "authentication_error");
    }
    assert_eq!(with("x-api-key: first-key\r\n").status, 200);
    assert_eq!(with("Authorization: Bearer second-key\r\n").status, 200);
    assert_eq!(with("x-api-key: first-key\r\nAuthorization: Bearer mine\r\n").status, 200);
    let seen = peer.seen();
    assert_eq!(seen.len(), 3);
    for request in &seen {
        assert_eq!(request.field("x-api-key"), None);
        assert!(!request.field("authorization").unwrap_or("").contains("key"));
    }
    assert_eq!(seen[2].field("authorization"), Some("Bearer mine"));
    // Supervisors need no key for these two, and for no other page.
    assert_eq!(proxy.ask(get("/-/healthy")).status, 200);
    assert_eq!(proxy.ask(get("/-/ready")).status, 200);
    assert_eq!(proxy.ask(get("/-/status")).status, 401);
}

#[test]
fn providers_that_are_not_there_get_404() {
    let peer = fine();
    let proxy = TestProxy::builder()
        .provider("One Two", "openai", &peer.url(), "auth_type: none")
        .provider("Off", "openai", &peer.url(), "auth_type: none\nenabled: false")
        .start();
    assert_eq!(proxy.ask(get("/to/one-two/v1/x")).status, 200);
    assert_eq!(peer.seen()[0].line, "GET /v1/x HTTP/1.1");
    for target in ["/to/off/v1", "/to/none/v1", "/to/"] {
        let refused = proxy.ask(get(target));
        assert_eq!((refused.status, refused.code()), (404, "unknown_provider"), "{target}");
    }
    assert_eq!(proxy.ask(get("/-/nothing")).status, 404);
    let refused = proxy.ask(post("/-/healthy", ""));
    assert_eq!((refused.status, refused.field("allow")), (405, Some("GET, HEAD")));
}

#[test]
fn without_a_slot_503_comes_at_once() {
    let (release, released) = crossbeam_channel::bounded::<()>(0);
    let peer = Peer::start(move |mut talk| {
        while talk.request().is_some() {
            let _ = released.recv();
            talk.answer(200, "late");
        }
    });
    let proxy = TestProxy::builder()
        .settings("max_connections: 1")
        .provider("P", "anthropic", &peer.url(), "auth_type: none")
        .start();
    let mut first = Client::connect(proxy.address);
    first.send(get("/"));
    crate::support::eventually("the first request is under way", || peer.seen().len() == 1);
    let refused = proxy.ask(get("/v1/messages"));
    assert_eq!((refused.status, refused.code()), (503, "overloaded"));
    assert!(refused.field("retry-after").is_some());
    release.send(()).unwrap();
    assert_eq!(first.answer().body, "late");
}

#[test]
fn own_pages() {
    let peer = fine();
    let proxy = TestProxy::before(&peer.url());
    assert_eq!(proxy.ask(get("/-/healthy")).body, "ok\n");
    assert_eq!(proxy.ask(get("/-/ready")).json()["ready"], true);
    proxy.ask(get("/x"));
    let status = proxy.ask(get("/-/status")).json();
    let provider = &status["providers"][0];
    assert_eq!(provider["slug"], "p");
    assert_eq!(provider["state"], "ready");
    assert_eq!(provider["requests"]["total"], 1);
    assert_eq!(provider["token"], serde_json::Value::Null);
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    let metrics = proxy.ask(get("/-/metrics"));
    assert!(metrics.field("content-type").unwrap().starts_with("text/plain; version=0.0.4"));
    // An answer is counted, and its connection closed, at a moment after its last byte.
    let mut asks = Client::connect(proxy.address);
    let mut shows = |line: &str| {
        asks.send("GET /-/metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
        asks.answer().body.contains(line)
    };
    crate::support::eventually("the request is counted", || {
        shows("evertoken_requests_total{code=\"200\",provider=\"P\"} 1\n")
    });
    crate::support::eventually("only the one that asks is open", || {
        shows("evertoken_connections 1\n")
    });
    let mut client = Client::connect(proxy.address);
    client.send("HEAD /-/status HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(client.head().status, 200);
    client.send(get("/-/healthy"));
    assert_eq!(client.answer().body, "ok\n");
}

#[test]
fn a_refused_head_request_got_a_body_that_was_taken_for_the_next_answer() {
    let peer = fine();
    let proxy = TestProxy::before(&peer.url());
    let mut client = Client::connect(proxy.address);
    for target in ["/-/none", "/to/nobody/a"] {
        client.send(format!("HEAD {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        let refused = client.head();
        assert_eq!(refused.status, 404, "{target}");
        let length = refused.field("content-length").unwrap();
        assert!(length.parse::<usize>().unwrap() > 0, "{target}: that of a GET");
        client.send(get("/-/healthy"));
        assert_eq!(client.answer().body, "ok\n", "{target}");
    }
}

/// Three providers, and keys for all of them or for some.
fn with_limited_keys(peer: &Peer, more: &str) -> Builder {
    let keys = "enabled: true, api_key_env: PLAIN, keys: [{name: ci, key_env: CI, providers: [a, c]}, \
                {name: only-b, key_env: ONLY_B, providers: [b]}, {name: long, key_env: LONG, providers: [a]}]";
    TestProxy::builder()
        .settings(&format!("auth: {{{keys}}}{more}"))
        .variable("LONG", "a-listed-key-over-16")
        .variable("PLAIN", "plain-key\nfriend: friends-key")
        .variable("CI", "key-of-ci")
        .variable("ONLY_B", "key-of-b")
        .provider("A", "anthropic", &format!("{}/a", peer.url()), "auth_value: passthrough")
        .provider("B", "anthropic", &format!("{}/b", peer.url()), "auth_value: passthrough")
        .provider("C", "openai", &format!("{}/c", peer.url()), "auth_value: passthrough")
}

fn with_key(method: &str, target: &str, key: &str, body: &str) -> String {
    format!(
        "{method} {target} HTTP/1.1\r\nHost: localhost\r\nx-api-key: {key}\r\nAuthorization: Bearer mine\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[track_caller]
fn assert_not_allowed(refused: &Answer, parts: &[&str]) {
    assert_eq!((refused.status, refused.code()), (403, "not_allowed"), "{}", refused.body);
    for part in parts {
        assert!(refused.body.contains(part), "{part}: {}", refused.body);
    }
}

#[test]
fn a_key_with_providers_reaches_those_alone() {
    let peer = fine();
    let proxy = with_limited_keys(&peer, ", selection_strategy: round_robin").start();
    let ask = |target: &str, key: &str| proxy.ask(with_key("POST", target, key, "{}"));
    for (key, slugs) in
        [("plain-key", "abc"), ("friends-key", "abc"), ("key-of-ci", "ac"), ("key-of-b", "b")]
    {
        for slug in ["a", "b", "c"] {
            let answered = ask(&format!("/to/{slug}/x"), key);
            if slugs.contains(slug) {
                assert_eq!(answered.status, 200, "{key} {slug}");
            } else {
                let told = format!("may not use the provider {slug}");
                assert_not_allowed(&answered, &[&told, "settings.auth.keys"]);
            }
        }
    }
    let refused = ask("/to/b/x", "key-of-ci");
    assert_not_allowed(&refused, &["The key 'ci'", "only the providers a, c"]);
    assert_eq!(refused.json()["type"], "error", "in the shape of B's API");
    assert_eq!(ask("/to/none/x", "key-of-ci").code(), "unknown_provider");
    for (key, paths) in [("key-of-ci", "/a/"), ("key-of-b", "/b/")] {
        let before = peer.seen().len();
        for _ in 0..4 {
            assert_eq!(ask("/v1/messages", key).status, 200);
        }
        let seen = peer.seen();
        let lines: Vec<_> = seen[before..].iter().map(|seen| seen.line.as_str()).collect();
        assert!(lines.iter().all(|line| line.contains(paths)), "{lines:?}");
    }
    assert_not_allowed(&ask("/v1/chat/completions", "key-of-b"), &["no provider that serves", "b"]);
    assert_eq!(ask("/v1/unknown", "key-of-b").code(), "no_provider");
    // No key of the list goes upstream, wherever it stands.
    for seen in peer.seen() {
        assert_eq!(
            (seen.field("x-api-key"), seen.field("authorization")),
            (None, Some("Bearer mine"))
        );
    }
    let refused = proxy.ask(get("/a-listed-key-over-16/x?key=key-of-b"));
    assert_eq!((refused.status, refused.code()), (400, "bad_request"));
}

#[test]
fn a_model_of_other_providers_is_not_for_a_limited_key() {
    let peer = fine();
    let routes = "model_routes:\n  \"both\": [{provider: B, priority: 1}, {provider: A, priority: 2}]\n  \
                  \"only-b\": [{provider: B}]\n";
    let proxy = with_limited_keys(&peer, "").routes(routes).start();
    let ask = |model: &str, key: &str| {
        let body = format!("{{\"model\":\"{model}\"}}");
        proxy.ask(with_key("POST", "/v1/messages", key, &body))
    };
    let last = || peer.seen().last().unwrap().line.clone();
    assert_eq!(ask("both", "plain-key").status, 200);
    assert!(last().contains("/b/"));
    assert_eq!(ask("both", "key-of-ci").status, 200);
    assert!(last().contains("/a/"));
    // A type's other providers do not stand in for those of a route.
    assert_not_allowed(&ask("only-b", "key-of-ci"), &["no provider that serves"]);
    assert_eq!(ask("other", "key-of-b").status, 200);
    assert!(last().contains("/b/"));
}

#[test]
fn a_limited_key_lists_the_models_of_its_providers() {
    let listing = |id: &'static str| {
        Peer::answering(move |_| {
            answer(200, &format!(r#"{{"data":[{{"id":"{id}","object":"model"}}]}}"#))
        })
    };
    let (one, two, three) = (listing("of-one"), listing("of-two"), listing("of-three"));
    let keys = "auth: {enabled: true, api_key: plain-key, keys: [{name: ci, key_env: CI, providers: [one, two]}, \
                {name: single, key_env: SINGLE, providers: [two]}, {name: off, key_env: OFF, providers: [off]}]}";
    let proxy = TestProxy::builder()
        .settings(keys)
        .variable("CI", "key-of-ci")
        .variable("SINGLE", "key-of-single")
        .variable("OFF", "key-of-off")
        .routes("model_routes:\n  \"alias\": [{provider: Three}]\n  \"own\": [{provider: Two}]\n")
        .provider("One", "openai", &one.url(), "auth_type: none")
        .provider("Two", "openai", &two.url(), "auth_type: none")
        .provider("Three", "openai", &three.url(), "auth_type: none")
        .provider("Off", "openai", &three.url(), "auth_type: none\nenabled: false")
        .start();
    let ask = |key: &str| {
        proxy.ask(format!(
            "GET /v1/models HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n\r\n"
        ))
    };
    let ids = |key: &str| {
        let list = ask(key).json();
        let ids = list["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["id"].as_str().unwrap().to_owned());
        let mut ids: Vec<_> = ids.collect();
        ids.sort();
        ids
    };
    assert_eq!(ids("plain-key"), ["alias", "of-one", "of-three", "of-two", "own"]);
    assert_eq!(three.seen().len(), 1);
    assert_eq!(ids("key-of-ci"), ["of-one", "of-two", "own"]);
    assert_eq!(ids("key-of-single"), ["of-two", "own"]);
    assert_not_allowed(&ask("key-of-off"), &["only the providers off"]);
    assert_eq!(three.seen().len(), 1, "the others are not asked");
}

#[test]
fn a_limited_key_opens_no_page_about_others() {
    let peer = fine();
    let proxy = with_limited_keys(&peer, "").start();
    let ask = |method: &str, page: &str, key: &str| proxy.ask(with_key(method, page, key, ""));
    for page in ["/-/healthy", "/-/ready"] {
        assert_eq!(ask("GET", page, "key-of-ci").status, 200, "{page}");
    }
    for page in ["/-/", "/-", "/-/status", "/-/events", "/-/metrics", "/-/script.js", "/-/none"] {
        assert_not_allowed(&ask("GET", page, "key-of-ci"), &["none of evertoken's own pages"]);
    }
    assert_not_allowed(&ask("POST", "/-/reload", "key-of-ci"), &["none of evertoken's own pages"]);
    assert_not_allowed(&ask("POST", "/-/refresh/b", "key-of-ci"), &["may not use the provider b"]);
    // It may ask for a refresh of its own, but these are not refreshed.
    assert_eq!(ask("POST", "/-/refresh/a", "key-of-ci").code(), "unknown_provider");
    assert_eq!(ask("GET", "/-/status", "plain-key").status, 200);
    // The password of a browser is a key with its limits.
    let basic = |page: &str, encoded: &str| {
        proxy.ask(format!(
            "GET {page} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic {encoded}\r\n\r\n"
        ))
    };
    assert_eq!(basic("/-/status", "dTpwbGFpbi1rZXk=").status, 200);
    assert_not_allowed(&basic("/-/status", "dTprZXktb2YtY2k="), &["The key 'ci'"]);
}

#[test]
fn a_reload_changes_the_providers_of_a_key() {
    let peer = fine();
    let keys =
        "auth: {enabled: true, api_key: admin, keys: [{name: ci, key_env: CI, providers: [a]}]}";
    let described = |keys: &str| {
        TestProxy::builder()
            .settings(keys)
            .variable("CI", "key-of-ci")
            .provider("A", "anthropic", &peer.url(), "auth_type: none")
            .provider("B", "anthropic", &peer.url(), "auth_type: none")
    };
    let proxy = described(keys).start();
    let ask = |slug: &str| {
        proxy.ask(with_key("POST", &format!("/to/{slug}/x"), "key-of-ci", "{}")).status
    };
    assert_eq!((ask("a"), ask("b")), (200, 403));
    let text = described(&keys.replace("[a]", "[b]")).text(proxy.folder());
    std::fs::write(proxy.folder().join("providers.yaml"), text).unwrap();
    assert_eq!(proxy.ask(with_key("POST", "/-/reload", "admin", "")).status, 200);
    assert_eq!((ask("a"), ask("b")), (403, 200));
}

#[test]
fn the_status_command_asked_whether_it_was_evertoken_that_refused_a_limited_key() {
    let peer = fine();
    let proxy = with_limited_keys(&peer, "").start();
    let url = format!("http://{}", proxy.address);
    let status = |keys: &str| {
        let variables = [("EVERTOKEN_API_KEY", keys)];
        let output = run(proxy.folder(), &["status", "--url", &url], &variables);
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, _, told) = status("key-of-ci");
    assert!(code == Some(1) && told.contains("only to a key without 'providers'"), "{told}");
    let (code, table, told) = status("friend: friends-key");
    assert!(code == Some(0) && table.contains("ready"), "{told}");
}
