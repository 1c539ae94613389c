//! `/-/token/<slug>`: who gets an access token, and what it looks like.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use evertoken::testing::{Clock, Moment, Timestamp};

use crate::support::binary::Binary;
use crate::support::client::{Answer, Client, ask, get, post};
use crate::support::eventually;
use crate::support::peer::{Peer, answer};
use crate::support::proxy::{Builder, TestProxy};

const GRANT: &str = r#"{"access_token":"the-token","expires_in":3600}"#;

#[track_caller]
fn ask_unix(path: &Path, request: impl AsRef<[u8]>) -> Answer {
    let mut client = Client::connect_unix(path);
    client.send(request);
    client.answer()
}

/// A proxy that hands out tokens on a port and on the unix socket of that path.
fn handing_out() -> (Builder, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let listen =
        format!("listen: ['127.0.0.1:0', 'unix:{}'], token_endpoint: true", path.display());
    (TestProxy::builder().settings(&listen).folder(folder), path)
}

/// The code and the message of a refusal.
fn refusal(answer: &Answer) -> (u16, String, String) {
    let message = answer.json()["error"]["message"].as_str().unwrap_or_default().to_owned();
    (answer.status, answer.code().to_owned(), message)
}

#[test]
fn our_user_gets_the_token_over_a_unix_socket_and_no_refresh_is_started() {
    let grants = Arc::new(AtomicUsize::new(0));
    let counted = grants.clone();
    let issuer = Peer::answering(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        answer(200, GRANT)
    });
    let (builder, path) = handing_out();
    let proxy = builder.refreshed("Two Words", "http://127.0.0.1:9", &issuer.url(), "").start();
    for _ in 0..3 {
        let answered = ask_unix(&path, get("/-/token/two-words"));
        assert_eq!((answered.status, answered.field("cache-control")), (200, Some("no-store")));
        let token = answered.json();
        assert_eq!(
            (&token["access_token"], &token["token_type"]),
            (&"the-token".into(), &"Bearer".into())
        );
        let left = token["expires_in"].as_i64().unwrap();
        assert!((3500..3600).contains(&left), "{left}");
        let expires_at = token["expires_at"].as_str().unwrap();
        let status = proxy.ask(get("/-/status")).json();
        assert_eq!(status["providers"][0]["token"]["expires_at"], expires_at);
    }
    assert_eq!(grants.load(Ordering::SeqCst), 1);
    let head = ask_head(&path);
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    let metrics = proxy.ask(get("/-/metrics")).body;
    assert!(
        metrics.contains("evertoken_tokens_handed_out_total{provider=\"Two Words\"} 3\n"),
        "HEAD does not count"
    );
}

fn ask_head(path: &Path) -> Answer {
    let mut client = Client::connect_unix(path);
    client.send("HEAD /-/token/two-words HTTP/1.1\r\nHost: x\r\n\r\n");
    client.head()
}

#[test]
fn nobody_else_gets_a_token() {
    let issuer = Peer::answering(|_| answer(200, GRANT));
    let (builder, path) = handing_out();
    let key = path.with_file_name("key");
    fs::write(&key, "secret-key").unwrap();
    let proxy = builder
        .settings("allowed_origins: ['https://app.example']")
        .refreshed("P", "http://127.0.0.1:9", &issuer.url(), "")
        .provider("Fixed", "generic", "http://127.0.0.1:9", "auth_value: secret-key")
        .provider("Own", "generic", "http://127.0.0.1:9", "auth_value: passthrough")
        .provider(
            "Key File",
            "generic",
            "http://127.0.0.1:9",
            &format!("auth_value_file: '{}'", key.display()),
        )
        .provider("Off", "generic", "http://127.0.0.1:9", "auth_type: none\nenabled: false")
        .start();
    assert_eq!(ask_unix(&path, get("/-/token/p")).status, 200);
    let (status, code, why) = refusal(&proxy.ask(get("/-/token/p")));
    assert_eq!((status, &*code), (403, "not_allowed"));
    assert!(why.contains("unix socket") && why.contains("evertoken token"), "{why}");
    for slug in ["fixed", "own", "key-file"] {
        let (status, code, why) = refusal(&ask_unix(&path, get(&format!("/-/token/{slug}"))));
        assert_eq!((status, &*code), (403, "not_allowed"), "{slug}");
        assert!(why.contains("has no access token") && !why.contains("secret-key"), "{why}");
    }
    for slug in ["", "none", "off", "p/x"] {
        let (status, code, why) = refusal(&ask_unix(&path, get(&format!("/-/token/{slug}"))));
        assert_eq!((status, &*code), (404, "unknown_provider"), "{slug}");
        assert!(why.contains("p, fixed, own, key-file"), "{why}");
    }
    let refused = ask_unix(&path, post("/-/token/p", ""));
    assert_eq!((refused.status, refused.field("allow")), (405, Some("GET, HEAD")));
    for field in ["Origin: https://app.example", "Origin: http://x", "Sec-Fetch-Site: none"] {
        let page = format!("GET /-/token/p HTTP/1.1\r\nHost: x\r\n{field}\r\n\r\n");
        let refused = ask_unix(&path, page);
        assert_eq!((refused.status, refused.code()), (403, "forbidden_origin"), "{field}");
    }
}

#[test]
fn a_key_lets_a_client_in_and_gets_no_token_over_a_port() {
    let issuer = Peer::answering(|_| answer(200, GRANT));
    let (builder, path) = handing_out();
    let proxy = builder
        .settings("auth: {enabled: true, api_key: the-key}")
        .refreshed("P", "http://127.0.0.1:9", &issuer.url(), "")
        .start();
    let with = |field: &str| format!("GET /-/token/p HTTP/1.1\r\nHost: x\r\n{field}\r\n\r\n");
    let key = with("x-api-key: the-key");
    assert_eq!(refusal(&proxy.ask(&key)).1, "not_allowed");
    assert_eq!(ask_unix(&path, get("/-/token/p")).status, 401);
    assert_eq!(ask_unix(&path, &key).json()["access_token"], "the-token");
    // A browser sends the password that it knows.
    let basic = ask_unix(&path, with("Authorization: Basic dTp0aGUta2V5"));
    assert_eq!(
        (basic.status, basic.field("www-authenticate")),
        (401, Some("Bearer realm=\"evertoken\""))
    );
}

#[test]
fn it_is_off_unless_it_is_asked_for() {
    let issuer = Peer::answering(|_| answer(200, GRANT));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let builder = |more: &str| {
        TestProxy::builder()
            .settings(&format!("listen: ['127.0.0.1:0', 'unix:{}']{more}", path.display()))
            .refreshed("P", "http://127.0.0.1:9", &issuer.url(), "")
    };
    let proxy = builder("").folder(folder).start();
    let unknown = ask_unix(&path, get("/-/none"));
    let off = ask_unix(&path, get("/-/token/p"));
    assert_eq!((off.status, off.code(), &off.body), (404, "not_found", &unknown.body));
    assert_eq!(proxy.reload(&builder(", token_endpoint: true")).status, 200);
    assert_eq!(ask_unix(&path, get("/-/token/p")).status, 200);
}

#[test]
fn without_a_valid_token_the_answer_is_that_of_a_request() {
    let issuer = Peer::answering(|seen| {
        let body = String::from_utf8_lossy(&seen.body);
        if body.contains("dead") {
            return answer(400, r#"{"error":"invalid_grant"}"#);
        }
        answer(if seen.line.contains("/fails") { 503 } else { 200 }, GRANT)
    });
    let (builder, path) = handing_out();
    let wall = Arc::new(AtomicI64::new(1_800_000_000));
    let shown = wall.clone();
    let clock = Clock::from_fn(move || {
        let seconds = shown.load(Ordering::SeqCst);
        let steady_ms = u64::try_from(seconds - 1_800_000_000).unwrap() * 1000;
        Moment { wall: Timestamp::from_secs(seconds), steady_ms }
    });
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("credentials");
    let kept = |until: i64| format!(r#"{{"a":"of-a-file","e":{until}}}"#);
    fs::write(&file, kept(1_800_000_100)).unwrap();
    let credentials = format!(
        "auto_refresh_config: {{credentials_file: '{}', credentials_fields: {{access_token: a, expires_at: e}}}}",
        file.display()
    );
    let proxy = builder
        .clock(clock)
        .variable("REFRESH_TOKEN", "dead")
        .refreshed("Dead", "http://127.0.0.1:9", &issuer.url(), "")
        .refreshed("Away", "http://127.0.0.1:9", &format!("{}/fails", issuer.url()), "scope: other")
        .provider("File", "generic", "http://127.0.0.1:9", &credentials)
        .start();
    for slug in ["dead", "away"] {
        let token = refusal(&ask_unix(&path, get(&format!("/-/token/{slug}"))));
        let request = refusal(&proxy.ask(get(&format!("/to/{slug}/x"))));
        assert_eq!((token.0, &token.1), (request.0, &request.1), "{slug}");
    }
    assert_eq!(ask_unix(&path, get("/-/token/dead")).code(), "login_needed");
    let token = ask_unix(&path, get("/-/token/file")).json();
    assert_eq!((&token["access_token"], &token["expires_in"]), (&"of-a-file".into(), &100.into()));
    wall.store(1_800_000_100, Ordering::SeqCst);
    let ended = ask_unix(&path, get("/-/token/file"));
    assert_eq!(
        (ended.status, ended.code()),
        (503, "token_unavailable"),
        "an expired token is never handed out"
    );
    assert!(!ended.body.contains("of-a-file"));
}

#[test]
fn each_token_that_is_handed_out_is_one_log_line_without_it() {
    let issuer = Peer::answering(|_| answer(200, GRANT));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let text = format!(
        "settings: {{listen: ['unix:{}', '127.0.0.1:0'], token_endpoint: true, state_dir: state, auth: {{enabled: true, \
         api_key_env: KEY, keys: [{{name: ci, key_env: CI, providers: [p]}}]}}}}\nproviders: [{{name: P, type: generic, \
         base_url: \"http://127.0.0.1:9\", auto_refresh_config: {{token_url: '{}', client_id_env: ID, client_auth: none, \
         refresh_token_env: SEED}}}}]\n",
        path.display(),
        issuer.url()
    );
    fs::write(folder.path().join("providers.yaml"), text).unwrap();
    let variables = [
        ("ID", "the-client"),
        ("SEED", "the-seed"),
        ("KEY", "key-of-all"),
        ("CI", "key-of-ci"),
        ("RUST_LOG", "trace"),
    ];
    let binary = Binary::start(folder.path(), &["run"], &variables);
    binary.wait_for("Listening on unix:");
    let address = binary.address();
    let with =
        |key: &str| get("/-/token/p").replace("Host:", &format!("x-api-key: {key}\r\nHost:"));
    for _ in 0..2 {
        assert_eq!(ask_unix(&path, with("key-of-all")).json()["access_token"], "the-token");
    }
    let by_key = ask(address, with("key-of-ci"));
    assert_eq!(by_key.json()["access_token"], "the-token");
    binary.wait_for("[INFO] Handed out the token of provider: P to a client with key \"ci\"");
    let own =
        format!("to process {} (user {})", std::process::id(), rustix::process::geteuid().as_raw());
    let line = format!("[INFO] Handed out the token of provider: P {own}");
    eventually("two lines", || {
        binary.lines().iter().filter(|one| one.ends_with(&line)).count() == 2
    });
    let secrets = ["the-token", "key-of-all", "key-of-ci"];
    let lines = binary.lines();
    assert!(lines.iter().all(|line| secrets.iter().all(|secret| !line.contains(secret))));
}

#[test]
fn a_key_that_lists_the_provider_gets_its_token_over_a_port() {
    let issuer = Peer::answering(|_| answer(200, GRANT));
    let (builder, path) = handing_out();
    let keys = "auth: {enabled: true, api_key: plain-key, keys: [{name: ci, key_env: CI, providers: [p, fixed]}, \
                {name: other, key_env: OTHER, providers: [fixed]}, {name: all, key_env: ALL}]}";
    let proxy = builder
        .settings(&format!("{keys}, allowed_origins: ['https://app.example']"))
        .variable("CI", "key-of-ci")
        .variable("OTHER", "key-of-other")
        .variable("ALL", "key-of-all")
        .refreshed("P", "http://127.0.0.1:9", &issuer.url(), "")
        .provider("Fixed", "generic", "http://127.0.0.1:9", "auth_value: secret-key")
        .start();
    let with = |slug: &str, fields: &str| {
        format!("GET /-/token/{slug} HTTP/1.1\r\nHost: x\r\n{fields}\r\n\r\n")
    };
    let asking = |key: &str| with("p", &format!("x-api-key: {key}"));
    // The first token may not be there yet.
    eventually("there is a token", || ask_unix(&path, asking("plain-key")).status == 200);
    let granted = proxy.ask(asking("key-of-ci"));
    assert_eq!((granted.status, &granted.json()["access_token"]), (200, &"the-token".into()));
    assert_eq!(ask_unix(&path, asking("key-of-ci")).json()["access_token"], "the-token");
    for (key, part) in [
        ("plain-key", "lists no provider"),
        ("key-of-all", "lists no provider"),
        ("key-of-other", "may not use the provider p"),
    ] {
        let (status, code, why) = refusal(&proxy.ask(asking(key)));
        assert_eq!((status, &*code), (403, "not_allowed"), "{key}");
        assert!(why.contains(part), "{why}");
    }
    // Nor does a key get more by the socket than it lists.
    assert_eq!(refusal(&ask_unix(&path, asking("key-of-other"))).1, "not_allowed");
    assert_eq!(proxy.ask(asking("wrong")).status, 401);
    assert_eq!(proxy.ask(with("none", "x-api-key: key-of-ci")).code(), "unknown_provider");
    let (_, code, why) = refusal(&proxy.ask(with("fixed", "x-api-key: key-of-ci")));
    assert!(code == "not_allowed" && why.contains("has no access token"), "{why}");
    for field in ["Origin: https://app.example", "Sec-Fetch-Site: same-origin"] {
        let page = proxy.ask(with("p", &format!("x-api-key: key-of-ci\r\n{field}")));
        assert_eq!((page.status, page.code()), (403, "forbidden_origin"), "{field}");
    }
}
