//! The blame for a failure, in the answer and in the log of the real binary: a proxy, a silent provider, a limit of
//! evertoken's own.

use std::net::TcpListener;

use crate::support::binary::Binary;
use crate::support::client::{Answer, Client, ask, get, post};
use crate::support::eventually;
use crate::support::peer::{Peer, answer};

/// The binary with these settings and providers, which are lines of YAML.
fn start(settings: &str, providers: &str) -> (Binary, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let config =
        format!("settings: {{port: 0, state_dir: state, {settings}}}\nproviders:\n{providers}");
    std::fs::write(folder.path().join("providers.yaml"), config).unwrap();
    (Binary::start(folder.path(), &["run"], &[]), folder)
}

fn through(name: &str, proxy: &str) -> String {
    format!(
        "  - {{name: {name}, type: generic, base_url: 'http://p.invalid', auth_type: none, proxy: '{proxy}'}}\n"
    )
}

#[track_caller]
fn is_unreachable(refused: &Answer, why: &str) {
    assert_eq!((refused.status, refused.code()), (502, "upstream_unreachable"));
    assert!(refused.body.contains(why), "{why}: {}", refused.body);
}

#[test]
fn a_proxy_that_fails_is_named_and_not_the_provider() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let ended = Peer::start(|mut talk| drop(talk.request()));
    let silent = Peer::start(|mut talk| talk.wait_for_close());
    let forbidding = Peer::answering(|_| answer(403, "no"));
    let asking = Peer::answering(|_| answer(407, "who are you"));
    let mut providers = String::new();
    let with_user = |address: &dyn std::fmt::Display| format!("http://me:pass-word@{address}");
    let cases = [
        ("Down", with_user(&closed), format!("the proxy http://{closed}: Connection refused")),
        (
            "Socks",
            format!("socks5h://me:pass-word@{closed}"),
            format!("the proxy socks5h://{closed}: Connection refused"),
        ),
        ("Ended", ended.url(), format!("the proxy {}: the connection was closed", ended.url())),
        (
            "Silent",
            silent.url(),
            format!("the proxy {}: it took longer than timeouts.connect", silent.url()),
        ),
        ("Forbids", forbidding.url(), format!("the proxy {}: it answered 403", forbidding.url())),
        (
            "Asks",
            asking.url(),
            format!("the proxy {}: it answered 407: it wants a user and a password", asking.url()),
        ),
        (
            "Knows",
            with_user(&asking.address),
            format!("the proxy {}: it answered 407: it does not take", asking.url()),
        ),
        (
            "Nobody",
            "http://nobody.invalid:3128".to_owned(),
            "the proxy http://nobody.invalid:3128: ".to_owned(),
        ),
    ];
    for (name, url, _) in &cases {
        providers.push_str(&through(name, url));
    }
    let (binary, _folder) = start("timeouts: {connect: 1}", &providers);
    for (name, _, why) in &cases {
        let refused = ask(binary.address(), get(&format!("/to/{}/x", name.to_lowercase())));
        is_unreachable(&refused, why);
        let line = binary.wait_for(&format!("Provider {name} is passed over"));
        assert!(line.contains(why), "{line}");
    }
    assert!(!binary.lines().iter().any(|line| line.contains("pass-word")));
}

#[test]
fn a_stream_that_our_own_limit_of_silence_ends_is_not_the_providers_break() {
    let peer = Peer::start(|mut talk| {
        let Some(seen) = talk.request() else { return };
        talk.send("HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n");
        if seen.line.contains("/silent") {
            talk.wait_for_close();
        }
    });
    let provider =
        format!("  - {{name: P, type: generic, base_url: '{}', auth_type: none}}\n", peer.url());
    let (binary, _folder) = start("timeouts: {idle: 1}", &provider);
    let limit = "cut off: the provider was silent for longer than timeouts.idle allows";
    for (path, words) in [("/silent", limit), ("/broken", "cut off: the provider broke off")] {
        assert!(!ask(binary.address(), post(path, "{}")).whole);
        let line = binary.wait_for(&format!("POST {path} -> 200 from P"));
        assert!(line.ends_with(words), "{line}");
    }
    let metrics = ask(binary.address(), get("/-/metrics")).body;
    for kind in ["silent", "cut"] {
        let line = format!("evertoken_upstream_errors_total{{kind=\"{kind}\",provider=\"P\"}} 1");
        assert!(metrics.contains(&line), "{line}");
    }
}

#[test]
fn a_limit_of_our_own_is_no_error_of_the_provider() {
    let (release, released) = crossbeam_channel::bounded::<()>(0);
    let peer = Peer::start(move |mut talk| {
        while talk.request().is_some() {
            let _ = released.recv();
            talk.answer(200, "late");
        }
    });
    let provider = format!(
        "  - {{name: P, type: anthropic, base_url: '{}', auth_type: none, max_in_flight: 1}}\n",
        peer.url()
    );
    let (binary, _folder) = start("log_level: INFO", &provider);
    let mut held = Client::connect(binary.address());
    held.send(get("/held"));
    eventually("it is upstream", || peer.seen().len() == 1);
    let refused = ask(binary.address(), get("/refused"));
    assert_eq!((refused.status, refused.code()), (503, "overloaded"));
    assert_eq!(refused.json()["type"], "error", "the shape is still that of the provider");
    binary.wait_for("GET /refused -> 503, 0 B in, ");
    let metrics = ask(binary.address(), get("/-/metrics")).body;
    let ours = "evertoken_requests_total{code=\"503\",provider=\"\"} 1";
    assert!(
        metrics.contains(ours) && !metrics.contains("code=\"503\",provider=\"P\""),
        "{metrics}"
    );
    let status = ask(binary.address(), get("/-/status")).json();
    assert_eq!(status["providers"][0]["requests"]["errors"], 0);
    release.send(()).unwrap();
    assert_eq!(held.answer().body, "late");
}

#[test]
fn a_key_in_the_path_goes_neither_upstream_nor_into_the_log() {
    let peer = Peer::answering(|_| answer(200, "fine"));
    let provider =
        format!("  - {{name: P, type: generic, base_url: '{}', auth_type: none}}\n", peer.url());
    let key = "key-0123456789-abcdef";
    let (binary, _folder) = start(&format!("auth: {{enabled: true, api_key: {key}}}"), &provider);
    let ask = |path: &str, field: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{field}\r\n");
        ask(binary.address(), request)
    };
    let encoded = key.replace('-', "%2D");
    let shown = format!("x-api-key: {key}\r\n");
    for path in [format!("/{key}/v1/x"), format!("/to/p/{encoded}"), format!("/v1/x;key={key}")] {
        let refused = ask(&path, &shown);
        assert_eq!((refused.status, refused.code()), (400, "bad_request"), "{path}");
        assert!(refused.body.contains("take it out of the base URL"), "{}", refused.body);
        assert_eq!(ask(&path, "").status, 401);
    }
    assert_eq!(ask("/v1/key", &shown).status, 200);
    assert_eq!(peer.seen().len(), 1);
    binary.wait_for("GET /v1/key -> 200");
    let lines = binary.lines().join("\n");
    assert!(lines.contains("GET /[key] -> 400") && lines.contains("GET /[key] -> 401"), "{lines}");
    // The one about the key in the file names no key either.
    assert!(!lines.contains(key) && !lines.contains(&encoded), "{lines}");
}

#[test]
fn a_request_that_never_left_was_told_and_counted_as_a_providers() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let providers = format!(
        "  - {{name: Down, type: anthropic, base_url: 'http://{closed}', auth_type: none}}\n  \
         - {{name: Bare, type: anthropic, base_url: 'http://{closed}', auth_value_env: NOT_SET}}\n  \
         - {{name: Bare2, type: openai, base_url: 'http://{closed}', auth_value_env: NOT_SET}}\n"
    );
    let (binary, _folder) = start("log_level: INFO", &providers);
    for target in ["/to/bare/x", "/v1/chat/completions"] {
        let refused = ask(binary.address(), post(target, "{}"));
        assert_eq!((refused.status, refused.code()), (403, "login_needed"), "{}", refused.body);
        let line = binary.wait_for(&format!("POST {target} -> 403, "));
        assert!(line.ends_with(", refused here: login_needed"), "{line}");
    }
    // The one that is tried last is not the one that the client is told about.
    let refused = ask(binary.address(), post("/v1/messages", "{}"));
    assert_eq!((refused.status, refused.code()), (502, "upstream_unreachable"), "{}", refused.body);
    let line = binary.wait_for("POST /v1/messages -> 502 from Down, ");
    assert!(line.ends_with(", refused here: upstream_unreachable"), "{line}");
    let status = ask(binary.address(), get("/-/status")).json();
    let counts = |index: usize| {
        let requests = &status["providers"][index]["requests"];
        (requests["total"].as_u64().unwrap(), requests["errors"].as_u64().unwrap())
    };
    assert_eq!([counts(0), counts(1), counts(2)], [(1, 1), (0, 0), (0, 0)]);
    let metrics = ask(binary.address(), get("/-/metrics")).body;
    assert!(
        metrics.contains("evertoken_requests_total{code=\"403\",provider=\"\"} 2")
            && !metrics.contains("code=\"403\",provider=\"B"),
        "{metrics}"
    );
}

#[test]
fn a_list_of_models_that_was_not_asked_for_was_counted() {
    let providers: String = ["A", "B"]
        .map(|name| {
            format!(
                "  - {{name: {name}, type: openai, base_url: 'http://p.invalid', auth_value_env: NOT_SET}}\n"
            )
        })
        .concat();
    let (binary, _folder) = start("log_level: INFO", &providers);
    let refused = ask(binary.address(), get("/v1/models"));
    assert_eq!((refused.status, refused.code()), (403, "login_needed"), "{}", refused.body);
    let status = ask(binary.address(), get("/-/status")).json();
    for provider in status["providers"].as_array().unwrap() {
        assert_eq!(provider["requests"]["total"], 0, "{provider}");
        assert_eq!(provider["requests"]["errors"], 0, "{provider}");
    }
}
