//! The page for people, its events, and `evertoken status`, over real sockets.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

use crate::support::binary::{run, text};
use crate::support::client::{Answer, Client, get, post};
use crate::support::eventually;
use crate::support::peer::{Peer, answer};
use crate::support::proxy::TestProxy;

/// The number of streams that are served at a time.
const MOST: usize = evertoken::testing::EVENT_STREAMS_MAX;

/// An issuer whose tokens live too short for two refreshes to need a gap.
fn issuer() -> Peer {
    let count = AtomicUsize::new(0);
    Peer::answering(move |_| {
        let number = count.fetch_add(1, Ordering::SeqCst);
        answer(200, &format!("{{\"access_token\":\"token-{number}\",\"expires_in\":9}}"))
    })
}

fn refreshed(issuer: &Peer) -> TestProxy {
    let proxy = TestProxy::builder().refreshed("P", &issuer.url(), &issuer.url(), "").start();
    eventually("it is ready", || proxy.ask(get("/-/ready")).status == 200);
    proxy
}

/// Opens a stream of events; its head was read.
fn watch(proxy: &TestProxy) -> (Client, Answer) {
    let mut client = Client::connect(proxy.address);
    client.send(get("/-/events"));
    let head = client.head();
    (client, head)
}

/// The next status that the stream tells, comments left out.
#[track_caller]
fn next_status(client: &mut Client) -> Value {
    loop {
        let event = client.chunk().expect("an event");
        if let Some((_, data)) = event.split_once("event: status\ndata: ") {
            assert!(event.ends_with("\n\n") && data.matches('\n').count() == 2, "{event}");
            return serde_json::from_str(data).unwrap();
        }
        assert_eq!(event, ":\n\n");
    }
}

#[test]
fn the_page_is_there_with_a_strict_policy_and_loads_nothing_from_elsewhere() {
    let issuer = issuer();
    let proxy = refreshed(&issuer);
    let page = proxy.ask(get("/-/"));
    assert_eq!(page.status, 200);
    let policy = page.field("content-security-policy").unwrap();
    for part in [
        "default-src 'none'", "style-src 'self'", "script-src 'self'", "connect-src 'self'",
        "frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'",
    ] {
        assert!(policy.split("; ").any(|own| own == part), "{part}: {policy}");
    }
    assert!(!policy.contains("unsafe"));
    let of_pages = [("", "text/html"), ("style.css", "text/css"), ("script.js", "text/javascript")];
    for (name, kind) in of_pages.into_iter().chain([("icon.svg", "image/svg+xml")]) {
        let part = proxy.ask(get(&format!("/-/{name}")));
        assert_eq!(part.status, 200, "{name}");
        assert!(part.field("content-type").unwrap().starts_with(kind), "{name}");
        assert_eq!(part.field("x-content-type-options"), Some("nosniff"), "{name}");
        assert_eq!(part.field("referrer-policy"), Some("no-referrer"), "{name}");
        assert_eq!(part.field("cache-control"), Some("no-store"), "{name}");
        // The page names its own address, too.
        let own = format!("http://{}", proxy.address);
        let outside = part.body.replace("http://www.w3.org/2000/svg", "");
        let outside = outside.replace(&issuer.url(), "").replace(&own, "");
        assert!(!outside.contains("http://") && !outside.contains("https://"), "{name}");
        assert_eq!(proxy.ask(post(&format!("/-/{name}"), "")).status, 405, "{name}");
    }
    assert_eq!(proxy.ask(get("/-")).body.lines().next(), Some("<!doctype html>"));
    assert!(page.body.contains("1 succeeded, 0 failed"));
    assert!(!page.body.contains("token-0") && !page.body.contains("the-seed"));
    let mut client = Client::connect(proxy.address);
    client.send("HEAD /-/ HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(client.head().status, 200);
}

#[test]
fn a_provider_may_be_called_anything() {
    let peer = Peer::answering(|_| answer(200, "fine"));
    let name = "<script>alert(1)</script>";
    let proxy =
        TestProxy::builder().provider(name, "generic", &peer.url(), "auth_type: none").start();
    let page = proxy.ask(get("/-/")).body;
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
    assert!(!page.contains(name));
    let (mut client, _) = watch(&proxy);
    assert_eq!(next_status(&mut client)["providers"][0]["name"], name);
}

#[test]
fn a_change_is_told() {
    let issuer = issuer();
    let proxy = refreshed(&issuer);
    let (mut client, head) = watch(&proxy);
    assert_eq!(head.status, 200);
    assert_eq!(head.field("content-type"), Some("text/event-stream"));
    assert_eq!(head.field("connection"), Some("close"));
    let before = next_status(&mut client);
    assert_eq!(before["providers"][0]["refresh"]["successes"], 1);
    assert_eq!(proxy.ask(post("/-/refresh/p", "")).status, 200);
    let mut after = next_status(&mut client);
    while after["providers"][0]["refresh"]["successes"] != 2 {
        after = next_status(&mut client);
    }
    let history = after["providers"][0]["refresh"]["history"].as_array().unwrap();
    assert_eq!(history.len(), 2);
    assert_eq!(history[1]["trouble"], Value::Null);
    assert!(history[1]["took_ms"].is_u64());
    // The page shows the content of /-/status.
    let status = proxy.ask(get("/-/status")).json();
    assert_eq!(
        status["providers"][0]["refresh"]["history"],
        after["providers"][0]["refresh"]["history"]
    );
    assert_eq!(
        (&status["ready"], &status["providers"][0]["credential"]),
        (&true.into(), &"refreshed".into())
    );
    assert_eq!(status["providers"][0]["grant"], "refresh_token");
}

/// Its alert never ended.
#[test]
fn a_disabled_provider_had_no_credential_and_a_token_that_had_expired() {
    let issuer = Peer::answering(|_| {
        answer(200, r#"{"access_token":"t","expires_in":9,"refresh_token_expires_in":99}"#)
    });
    let with = |enabled: &str| {
        TestProxy::builder()
            .refreshed("P", &issuer.url(), &issuer.url(), "")
            .provider(
                "Off",
                "generic",
                &issuer.url(),
                &format!("auth_type: none\nenabled: {enabled}"),
            )
            .provider("On", "generic", &issuer.url(), "auth_type: none")
    };
    let proxy = with("false").start();
    eventually("it is ready", || proxy.ask(get("/-/ready")).status == 200);
    let all = [
        "evertoken_provider_ready",
        "evertoken_token_expiry_timestamp_seconds",
        "evertoken_refresh_token_expiry_timestamp_seconds",
    ];
    let told = |name: &str| {
        let scraped = proxy.ask(get("/-/metrics")).body;
        all.map(|metric| scraped.contains(&format!("\n{metric}{{provider=\"{name}\"}} ")))
    };
    assert_eq!(["P", "On", "Off"].map(told), [[true; 3], [true, false, false], [false; 3]]);
    // One that a reload disables, whose last token stays known.
    let text = with("true").text(proxy.folder()).replacen("type:", "enabled: false\n    type:", 1);
    std::fs::write(proxy.folder().join("providers.yaml"), text).unwrap();
    assert_eq!(proxy.ask(post("/-/reload", "")).status, 200);
    assert_eq!(["P", "Off"].map(told), [[false; 3], [true, false, false]]);
}

#[test]
fn streams_are_few_and_a_place_is_free_again_once_its_client_leaves() {
    let peer = Peer::answering(|_| answer(200, "fine"));
    let proxy = TestProxy::before(&peer.url());
    let mut all: Vec<_> = (0..MOST).map(|_| watch(&proxy)).collect();
    assert!(all.iter().all(|(_, head)| head.status == 200));
    let refused = proxy.ask(get("/-/events"));
    assert_eq!((refused.status, refused.code()), (503, "overloaded"));
    assert!(refused.field("retry-after").is_some());
    assert_eq!(proxy.ask(get("/")).body, "fine", "others are served all the same");
    all.pop();
    eventually("its place is free", || watch(&proxy).1.status == 200);
    let head = "HEAD /-/events HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut client = Client::connect(proxy.address);
    client.send(head);
    assert_eq!((client.head().status, client.is_closed()), (200, true));
    assert_eq!(proxy.ask(post("/-/events", "")).status, 405);
}

#[test]
fn half_of_the_connections_are_for_requests() {
    let peer = Peer::answering(|_| answer(200, "fine"));
    let builder = TestProxy::builder().settings("max_connections: 3");
    let proxy = builder.provider("P", "anthropic", &peer.url(), "auth_type: none").start();
    let (_first, head) = watch(&proxy);
    assert_eq!(head.status, 200);
    assert_eq!(proxy.ask(get("/-/events")).status, 503);
    assert_eq!(proxy.ask(get("/")).body, "fine");
}

#[test]
fn a_stop_and_a_reload_send_watchers_away_at_once() {
    for server in ["builtin", "tiny_http"] {
        let peer = Peer::answering(|_| answer(200, "fine"));
        let settings = format!("server: {server}, shutdown_grace: 3600");
        let describe = |name: &str| {
            let builder = TestProxy::builder().settings(&settings);
            builder.provider(name, "anthropic", &peer.url(), "auth_type: none")
        };
        let mut proxy = describe("P").start();
        let (mut first, _) = watch(&proxy);
        next_status(&mut first);
        assert_eq!(proxy.reload(&describe("Q")).status, 200, "{server}");
        assert_eq!(first.chunk(), None, "{server}: it ends in order");
        let (mut second, _) = watch(&proxy);
        assert_eq!(next_status(&mut second)["providers"][0]["name"], "Q", "{server}");
        // The grace is an hour: what takes that long has failed.
        assert_eq!(proxy.stop(), 0, "{server}");
        assert_eq!(second.chunk(), None, "{server}");
    }
}

#[test]
fn a_browser_gives_the_key_as_a_password_and_other_pages_can_not_use_it() {
    let peer = Peer::answering(|_| answer(200, "fine"));
    let proxy = TestProxy::builder()
        .settings("auth: {enabled: true, api_key_env: KEYS}")
        .variable("KEYS", "the-key")
        .provider("P", "anthropic", &peer.url(), "auth_type: none")
        .start();
    for page in ["/-/", "/-/style.css", "/-/events", "/-/status"] {
        let refused = proxy.ask(get(page));
        assert_eq!((refused.status, refused.code()), (401, "unauthorized"), "{page}");
        let offers: Vec<_> =
            refused.fields.iter().filter(|(name, _)| name == "www-authenticate").collect();
        assert!(offers.iter().any(|(_, offer)| offer.starts_with("Basic ")), "{page}");
    }
    let api = proxy.ask(get("/v1/messages"));
    assert!(!api.fields.iter().any(|(_, value)| value.starts_with("Basic ")));
    // ":the-key"
    let basic = "Authorization: Basic OnRoZS1rZXk=\r\n";
    let with = |line: &str, fields: &str| {
        let mut client = Client::connect(proxy.address);
        client.send(format!(
            "{line} HTTP/1.1\r\nHost: proxy.lan\r\n{basic}{fields}Content-Length: 0\r\n\r\n"
        ));
        client.head().status
    };
    for page in ["GET /-/", "GET /-/style.css", "GET /-/events", "GET /-/status"] {
        assert_eq!(with(page, ""), 200, "{page}");
    }
    assert_eq!(with("POST /-/reload", "Origin: http://proxy.lan\r\n"), 422, "there is no file");
    for foreign in ["Origin: http://evil.example\r\n", "Sec-Fetch-Site: cross-site\r\n"] {
        assert_eq!(with("POST /-/reload", foreign), 403, "{foreign}");
        assert_eq!(with("GET /-/", foreign), 403, "{foreign}");
    }
    assert_eq!(with("GET /v1/messages", ""), 401, "Basic is for pages");
}

#[test]
fn status_asks_prints_and_tells_readiness() {
    let issuer = issuer();
    let proxy = refreshed(&issuer);
    let url = format!("http://{}", proxy.address);
    let folder = tempfile::tempdir().unwrap();
    let asked = |arguments: &[&str], variables: &[(&str, &str)]| {
        let out = run(folder.path(), arguments, variables);
        (out.status.code().unwrap(), text(&out.stdout), text(&out.stderr))
    };
    let (code, shown, _) = asked(&["status", "--url", &url], &[]);
    assert_eq!(code, 0);
    assert!(shown.contains("PROVIDER") && shown.contains("The provider is ready"), "{shown}");
    assert!(!shown.contains('\u{1b}'), "no colour where it is no terminal");
    let (code, json, _) = asked(&["status", "--url", &url, "--json"], &[]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((code, &json["ready"]), (0, &true.into()));
    assert_eq!(asked(&["status", "--url", &url, "-q"], &[]), (0, String::new(), String::new()));
    // By the configuration in its folder.
    let port = proxy.address.port();
    let config = format!(
        "settings: {{port: {port}}}\nproviders: [{{name: P, type: generic, base_url: \"{url}\", auth_type: none}}]"
    );
    std::fs::write(folder.path().join("providers.yaml"), config).unwrap();
    assert_eq!(asked(&["status"], &[]).0, 0);
    std::fs::write(folder.path().join("providers.yaml"), "settings: {prt: 1}").unwrap();
    let (code, _, said) = asked(&["status", "--url", &url], &[]);
    assert_eq!((code, said.as_str()), (0, ""), "a file that was not named is not read");
    drop(proxy);
    let (code, shown, why) = asked(&["status", "--url", &url], &[]);
    assert_eq!((code, shown.as_str()), (1, ""));
    assert!(why.contains("can't be reached") && why.contains("; is it running?"), "{why}");
    assert_eq!(asked(&["status", "--url", &url, "-q"], &[]).0, 1);
}

#[test]
fn status_asks_the_instance_that_runs_though_the_file_on_disk_is_broken() {
    let issuer = issuer();
    let proxy = refreshed(&issuer);
    let url = format!("http://{}", proxy.address);
    let port = proxy.address.port();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("providers.yaml");
    let asked = |arguments: &[&str]| {
        let out = run(folder.path(), arguments, &[]);
        (out.status.code().unwrap(), text(&out.stdout), text(&out.stderr))
    };
    let broken = "providers.yaml: the file is broken; a reload or a start would refuse it\n";
    for (mistake, told) in [
        ("prt: 1", "providers.yaml:2:3: unknown key 'prt'"),
        ("x: \"open", "providers.yaml:2:6: "),
        ("\tx: 1", "a tab"),
    ] {
        std::fs::write(&path, format!("settings:\n  {mistake}\n  port: {port}\n")).unwrap();
        let (code, shown, said) = asked(&["status"]);
        assert_eq!(code, 0, "{mistake}: {said}");
        assert!(shown.contains("The provider is ready"), "{mistake}: {shown}");
        assert!(said.contains(told) && said.ends_with(broken), "{mistake}: {said}");
    }
    // An address that was named wins, and nothing is said where that was asked for.
    std::fs::write(&path, "settings: {port: 1").unwrap();
    let named = ["status", "--config", "providers.yaml", "--url", &url];
    let (code, shown, said) = asked(&named);
    assert!(code == 0 && shown.contains("PROVIDER") && said.ends_with(broken), "{said}");
    let quiet = asked(&[&named[..], &["--quiet"]].concat());
    assert_eq!(quiet, (0, String::new(), String::new()));
    // If nobody answers, both are reported.
    let (code, _, said) = asked(&["status"]);
    assert_eq!(code, 1);
    assert!(
        said.contains("http://127.0.0.1:1 can't be reached") && said.ends_with(broken),
        "{said}"
    );
}

#[test]
fn status_shows_a_key_where_one_is_needed_and_says_what_is_wrong() {
    let issuer = Peer::answering(|_| answer(400, "{\"error\":\"invalid_grant\"}"));
    let proxy = TestProxy::builder()
        .settings("auth: {enabled: true, api_key_env: KEYS}")
        .variable("KEYS", "the-key")
        .refreshed("P", &issuer.url(), &issuer.url(), "")
        .start();
    eventually("it failed", || proxy.ask(get("/-/ready")).body.contains("invalid_grant"));
    let url = format!("http://{}", proxy.address);
    let folder = tempfile::tempdir().unwrap();
    let asked = |arguments: &[&str], variables: &[(&str, &str)]| {
        let out = run(folder.path(), arguments, variables);
        (out.status.code().unwrap(), text(&out.stdout) + &text(&out.stderr))
    };
    let (code, said) = asked(&["status", "--url", &url], &[]);
    assert_eq!(code, 1);
    assert!(said.contains("EVERTOKEN_API_KEY"), "{said}");
    let (code, said) = asked(&["status", "--url", &url], &[("EVERTOKEN_API_KEY", "the-key")]);
    assert_eq!(code, 1, "it is not ready");
    for part in [
        "unavailable",
        "400 Bad Request (invalid_grant)",
        "The provider needs attention",
        "somebody else uses",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(asked(&["status", "--url", &url, "--quiet"], &[]), (1, String::new()));
    assert_eq!(asked(&["status", "--key", "x"], &[]).0, 2, "no key on the command line");
}
