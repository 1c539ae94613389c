//! Another configuration takes the place of the one in use, and nothing is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use evertoken::testing::{Clock, Moment, RELEASED_AT};

use crate::support::binary::{run, text};
use crate::support::client::{Client, get, post};
use crate::support::issuer::StrictIssuer;
use crate::support::peer::{Peer, answer};
use crate::support::proxy::{Builder, TestProxy};
use crate::support::{eventually, unwritable};

fn saying(what: &'static str) -> Peer {
    Peer::answering(move |_| answer(200, what))
}

fn granting() -> Peer {
    Peer::answering(|seen| {
        let count = seen.connection;
        answer(
            200,
            &format!(
                r#"{{"access_token":"t{count}","refresh_token":"r{count}","expires_in":3600}}"#
            ),
        )
    })
}

#[test]
fn providers_are_added_changed_and_removed_and_the_others_keep_their_token() {
    let (issuer, one, two) = (granting(), saying("one"), saying("two"));
    let kept = || TestProxy::builder().refreshed("Kept", &one.url(), &issuer.url(), "");
    let proxy = kept().provider("Gone", "openai", &one.url(), "auth_value: a").start();
    eventually("the token is there", || proxy.ask(get("/-/ready")).status == 200);
    assert_eq!(proxy.ask(get("/to/kept/x")).body, "one");
    let came = proxy.reload(&kept().provider("New", "openai", &two.url(), "auth_value: b"));
    assert_eq!((came.status, came.json()["reloaded"].as_bool()), (200, Some(true)));
    assert_eq!(proxy.ask(get("/to/kept/x")).body, "one");
    assert_eq!(proxy.ask(get("/to/new/x")).body, "two");
    assert_eq!(proxy.ask(get("/to/gone/x")).status, 404);
    assert_eq!(issuer.seen().len(), 1, "the token was kept");
    let status = proxy.ask(get("/-/status")).json();
    assert_eq!(status["providers"][0]["requests"]["total"], 2, "and its counts");
    // The same provider, reached elsewhere: its chain goes on from what is stored.
    let moved = TestProxy::builder().refreshed("Kept", &two.url(), &issuer.url(), "");
    assert_eq!(proxy.reload(&moved).status, 200);
    assert_eq!(proxy.ask(get("/v1/messages")).body, "two");
    assert_eq!(issuer.seen().len(), 1, "the stored token is used");
}

#[test]
fn a_request_in_flight_ends_with_what_it_began_with() {
    let (release, released) = crossbeam_channel::bounded::<()>(0);
    let slow = Peer::start(move |mut talk| {
        while talk.request().is_some() {
            talk.send("HTTP/1.1 200 X\r\ncontent-length: 10\r\n\r\nfirst");
            let _ = released.recv();
            talk.send("later");
        }
    });
    let other = saying("other");
    let with = |url: &str| TestProxy::builder().provider("P", "anthropic", url, "auth_type: none");
    let proxy = with(&slow.url()).start();
    let mut client = Client::connect(proxy.address);
    client.send(get("/x"));
    eventually("it is upstream", || slow.seen().len() == 1);
    assert_eq!(proxy.reload(&with(&other.url())).status, 200);
    assert_eq!(proxy.ask(get("/x")).body, "other");
    release.send(()).unwrap();
    let came = client.answer();
    assert_eq!((came.body.as_str(), came.whole), ("firstlater", true));
    // The connection goes on, with the new configuration.
    client.send(get("/x"));
    assert_eq!(client.answer().body, "other");
}

/// They were not counted any more.
#[test]
fn requests_to_a_provider_that_left_are_still_in_flight() {
    let (release, released) = crossbeam_channel::bounded::<()>(0);
    let slow = Peer::start(move |mut talk| {
        while talk.request().is_some() {
            let _ = released.recv();
            talk.answer(200, "late");
        }
    });
    let other = saying("other");
    let with = |name: &str, url: &str| {
        TestProxy::builder().provider(name, "generic", url, "auth_type: none")
    };
    let proxy = with("Gone", &slow.url()).start();
    let mut client = Client::connect(proxy.address);
    client.send(get("/x"));
    eventually("it is upstream", || slow.seen().len() == 1);
    let in_flight = || proxy.ask(get("/-/status")).json()["in_flight"].clone();
    // Also after a second one, and after one that brings it back.
    for (name, url) in [("New", other.url()), ("Newer", other.url()), ("Gone", slow.url())] {
        assert_eq!(proxy.reload(&with(name, &url)).status, 200);
        assert_eq!(in_flight(), 1, "{name}");
        assert!(proxy.ask(get("/-/metrics")).body.contains("evertoken_requests_in_flight 1\n"));
    }
    drop(release);
    assert_eq!(client.answer().body, "late");
    eventually("it is counted out", || in_flight() == 0);
}

#[test]
fn a_broken_file_changes_nothing_and_says_every_problem() {
    let one = saying("one");
    let proxy = TestProxy::before(&one.url());
    let broken = TestProxy::builder().provider("P", "nonsense", &one.url(), "auth_valu: x");
    let came = proxy.reload(&broken);
    assert_eq!(came.status, 422);
    let problems = came.json()["problems"].as_array().unwrap().len();
    assert_eq!(problems, 2, "{}", came.body);
    assert!(came.body.contains("did you mean 'auth_value'?"));
    assert_eq!(proxy.ask(get("/x")).body, "one");
    let unreachable = TestProxy::builder().provider(
        "P",
        "anthropic",
        &one.url(),
        "auth_value: x\nproxy: \"http://[\"",
    );
    assert_eq!(proxy.reload(&unreachable).status, 422);
    assert_eq!(proxy.ask(get("/x")).body, "one");
}

#[test]
fn a_failed_reload_says_since_when_the_configuration_is_in_use() {
    let one = saying("one");
    let moved = Arc::new(AtomicU64::new(0));
    let of_clock = moved.clone();
    let clock = Clock::from_fn(move || {
        let ms = of_clock.load(Ordering::SeqCst);
        Moment { wall: RELEASED_AT.plus_millis(i64::try_from(ms).unwrap()), steady_ms: ms }
    });
    let good = || TestProxy::builder().provider("P", "generic", &one.url(), "auth_type: none");
    let proxy = good().clock(clock).start();
    let broken = TestProxy::builder().provider("P", "generic", &one.url(), "auth_typ: none");
    for ms in [0, 60_000, 120_000] {
        moved.store(ms, Ordering::SeqCst);
        // First the one that it began with.
        if ms > 0 {
            assert_eq!(proxy.reload(&good()).status, 200);
        }
        moved.store(ms + 30_000, Ordering::SeqCst);
        let refused = proxy.reload(&broken);
        let since = RELEASED_AT.plus_millis(i64::try_from(ms).unwrap()).to_string();
        assert_eq!(refused.json()["in_use_since"], since, "{}", refused.body);
    }
}

/// A page that was loaded anew, the status and the metrics showed nothing of it: whoever had ordered the reload alone knew.
#[test]
fn a_failed_reload_is_shown_until_one_succeeds() {
    let one = saying("one");
    let good = || TestProxy::builder().provider("P", "generic", &one.url(), "auth_type: none");
    let proxy = good().start();
    let url = format!("http://{}", proxy.address);
    let status = || proxy.ask(get("/-/status")).json();
    let table = || {
        let output = run(proxy.folder(), &["status", "--url", &url], &[]);
        text(&output.stdout).split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let shows = |line: &str| {
        let metrics = proxy.ask(get("/-/metrics")).body;
        assert!(metrics.lines().any(|own| own == line), "{line}: {metrics}");
    };
    assert!(status()["failed_reload"].is_null());
    shows("evertoken_config_last_reload_successful 1");
    let broken =
        TestProxy::builder().provider("P", "generic", &one.url(), "auth_typ: <none>\nx: 1");
    let refused = proxy.reload(&broken).json();
    let failed = status()["failed_reload"].clone();
    assert_eq!(failed["problems"], refused["problems"]);
    assert_eq!(failed["in_use_since"], refused["in_use_since"]);
    assert!(failed["at"].as_str().unwrap().ends_with('Z'), "{failed}");
    let page = proxy.ask(get("/-/")).body;
    for part in ["The last reload failed at ", "did you mean &#39;auth_type&#39;?", "stays in use"]
    {
        assert!(page.contains(part), "{part}: {page}");
        let in_terminal = part.replace("&#39;", "'");
        assert!(table().contains(&in_terminal), "{part}: {}", table());
    }
    shows("evertoken_config_last_reload_successful 0");
    assert_eq!(proxy.ask(get("/x")).body, "one");
    assert_eq!(proxy.reload(&good()).status, 200);
    assert!(status()["failed_reload"].is_null());
    assert!(!proxy.ask(get("/-/")).body.contains("The last reload failed"));
    assert!(!table().contains("The last reload failed"));
    shows("evertoken_config_last_reload_successful 1");
}

#[test]
fn the_counts_of_a_changed_provider_go_on_and_those_of_a_new_one_begin() {
    let one = Peer::answering(|_| answer(500, "no"));
    let with = |name: &str, lines: &str| {
        TestProxy::builder().provider(
            name,
            "generic",
            &one.url(),
            &format!("auth_type: none\n{lines}"),
        )
    };
    let proxy = with("P", "").start();
    let counts = || {
        let requests = proxy.ask(get("/-/status")).json()["providers"][0]["requests"].clone();
        (requests["total"].as_u64().unwrap(), requests["errors"].as_u64().unwrap())
    };
    for expected in 1..=3 {
        assert_eq!(proxy.ask(get("/x")).status, 500);
        assert_eq!(counts(), (expected, expected));
        assert_eq!(
            proxy.reload(&with("P", &format!("headers: {{x-own: \"{expected}\"}}"))).status,
            200
        );
        assert_eq!(counts(), (expected, expected), "after reload {expected}");
    }
    assert_eq!(proxy.reload(&with("P", "enabled: false")).status, 200);
    assert_eq!(proxy.reload(&with("P", "")).status, 200);
    assert_eq!(counts(), (3, 3));
    assert_eq!(proxy.reload(&with("Q", "")).status, 200);
    assert_eq!(counts(), (0, 0));
}

#[test]
fn a_request_that_began_before_a_change_is_counted_out_of_the_changed_provider() {
    let (release, released) = crossbeam_channel::bounded::<()>(0);
    let slow = Peer::start(move |mut talk| {
        while talk.request().is_some() {
            let _ = released.recv();
            talk.send("HTTP/1.1 200 X\r\ncontent-length: 0\r\n\r\n");
        }
    });
    let with = |lines: &str| {
        TestProxy::builder().provider(
            "P",
            "generic",
            &slow.url(),
            &format!("auth_type: none\n{lines}"),
        )
    };
    let proxy = with("").start();
    let in_flight =
        || proxy.ask(get("/-/status")).json()["providers"][0]["requests"]["in_flight"].clone();
    let mut client = Client::connect(proxy.address);
    client.send(get("/x"));
    eventually("it is upstream", || slow.seen().len() == 1);
    assert_eq!(proxy.reload(&with("headers: {x-own: \"1\"}")).status, 200);
    assert_eq!(in_flight(), 1);
    release.send(()).unwrap();
    assert_eq!(client.answer().status, 200);
    eventually("it is counted out", || in_flight() == 0);
}

#[test]
fn a_setting_that_waits_for_a_start_is_told_once_and_not_where_it_is_as_it_was() {
    let one = saying("one");
    let with = |settings: &str| {
        TestProxy::builder().settings(settings).provider(
            "P",
            "generic",
            &one.url(),
            "auth_type: none",
        )
    };
    let proxy = with("max_connections: 9").start();
    for (connections, is_told) in
        [(8, true), (8, false), (7, true), (7, false), (9, false), (8, true)]
    {
        let came = proxy.reload(&with(&format!("max_connections: {connections}")));
        let notes = came.json()["notes"].to_string();
        assert_eq!(
            notes.contains("settings.max_connections takes"),
            is_told,
            "{connections}: {notes}"
        );
    }
}

#[test]
fn a_refresh_of_nobody_names_those_there_are() {
    let (issuer, one, two) = (granting(), saying("one"), saying("two"));
    let fixed = |builder: Builder| builder.provider("Fixed", "openai", &one.url(), "auth_value: a");
    let told = |proxy: &TestProxy| {
        let came = proxy.ask(post("/-/refresh/nope", ""));
        assert_eq!((came.status, came.code()), (404, "unknown_provider"));
        came.body
    };
    let refreshed = TestProxy::builder().refreshed("One", &one.url(), &issuer.url(), "").refreshed(
        "Two",
        &two.url(),
        &issuer.url(),
        "",
    );
    let proxy = fixed(refreshed).start();
    assert!(told(&proxy).contains("the refreshed providers are: one, two\""), "{}", told(&proxy));
    let proxy = fixed(TestProxy::builder()).start();
    assert!(told(&proxy).contains("; none is refreshed\""), "{}", told(&proxy));
}

#[test]
fn keys_and_routes_follow_and_the_rest_is_told() {
    let one = saying("one");
    let with = |settings: &str| {
        TestProxy::builder().settings(settings).variable("KEY", "the-key").provider(
            "P",
            "anthropic",
            &one.url(),
            "auth_type: none",
        )
    };
    let proxy = with("allowed_hosts: []").start();
    let came = proxy.reload(&with("max_connections: 9, log_level: DEBUG"));
    let notes = came.json()["notes"].to_string();
    assert!(notes.contains("settings.max_connections takes effect at the next start"), "{notes}");
    assert_eq!(proxy.ask(get("/x")).status, 200);
    proxy.reload(&with("auth: {enabled: true, api_key: the-key}"));
    assert_eq!(proxy.ask(get("/x")).status, 401);
    assert_eq!(proxy.ask("GET /x HTTP/1.1\r\nHost: a\r\nx-api-key: the-key\r\n\r\n").status, 200);
}

/// One refreshed provider, with these lines beside its `auto_refresh_config`.
fn refreshed(url: &str, issuer: &StrictIssuer, lines: &str) -> Builder {
    refreshed_as("P", url, issuer, lines, "")
}

fn refreshed_as(
    name: &str,
    url: &str,
    issuer: &StrictIssuer,
    lines: &str,
    of_refresh: &str,
) -> Builder {
    let of_refresh: String = of_refresh.lines().map(|line| format!("  {line}\n")).collect();
    let all = format!(
        "{lines}\nauto_refresh_config:\n  token_url: \"{}\"\n  client_id_env: CLIENT_ID\n  \
         refresh_token_env: REFRESH_TOKEN\n{of_refresh}",
        issuer.url()
    );
    TestProxy::builder().provider(name, "anthropic", url, &all)
}

/// A state folder that nobody can write into, not even root: a file is in its place.
fn blocked(folder: &tempfile::TempDir) -> std::path::PathBuf {
    let blocked = folder.path().join("blocked");
    unwritable(&blocked);
    blocked
}

fn state_dir(path: &std::path::Path) -> String {
    format!("state_dir: \"{}\"", path.display())
}

fn refresh(proxy: &TestProxy, slug: &str) -> u16 {
    proxy.ask(post(&format!("/-/refresh/{slug}"), "")).status
}

const OTHER_HEADER: &str = "headers: { x-own: \"1\" }";

#[test]
fn a_token_that_could_not_be_written_is_handed_on() {
    let (folder, provider) = (tempfile::tempdir().unwrap(), Peer::telling_the_credential());
    let (issuer, blocked) = (StrictIssuer::start(3600), blocked(&folder));
    let with =
        |lines: &str| refreshed(&provider.url(), &issuer, lines).settings(&state_dir(&blocked));
    let proxy = with("").start();
    assert_eq!(proxy.ask(get("/")).body, "Bearer access-the-seed-1");
    assert_eq!(proxy.reload(&with(OTHER_HEADER)).status, 200);
    assert_eq!(proxy.ask(get("/")).body, "Bearer access-the-seed-1");
    assert_eq!(provider.seen().last().unwrap().field("x-own"), Some("1"));
    assert_eq!(refresh(&proxy, "p"), 200);
    assert_eq!(proxy.ask(get("/")).body, "Bearer access-the-seed-2");
    assert_eq!(issuer.presented(), ["the-seed", "refresh-the-seed-1"]);
}

#[test]
fn a_token_that_could_not_be_written_survives_that_its_provider_is_taken_out_and_put_back() {
    let (folder, provider) = (tempfile::tempdir().unwrap(), Peer::telling_the_credential());
    let (issuer, blocked) = (StrictIssuer::start(3600), blocked(&folder));
    let with = || refreshed(&provider.url(), &issuer, "").settings(&state_dir(&blocked));
    let without = TestProxy::builder().settings(&state_dir(&blocked)).provider(
        "Other",
        "anthropic",
        &provider.url(),
        "auth_value: a",
    );
    let mut proxy = with().start();
    assert_eq!(proxy.ask(get("/")).body, "Bearer access-the-seed-1");
    for _ in 0..2 {
        assert_eq!(proxy.reload(&without).status, 200);
        assert_eq!(proxy.ask(get("/")).body, "Bearer a");
    }
    assert_eq!(proxy.reload(&with()).status, 200);
    assert_eq!(proxy.ask(get("/")).body, "Bearer access-the-seed-1");
    assert_eq!(refresh(&proxy, "p"), 200);
    assert_eq!(issuer.revoked(), [""; 0]);
    // It is taken out again, and what it has is stored at the end.
    assert_eq!(proxy.reload(&without).status, 200);
    std::fs::remove_file(&blocked).unwrap();
    proxy.stop();
    let stored = std::fs::read_to_string(blocked.join("p.json")).unwrap();
    assert!(stored.contains("refresh-the-seed-2"), "{stored}");
}

#[test]
fn a_provider_that_is_renamed_keeps_its_chain_and_its_file_follows() {
    let provider = Peer::telling_the_credential();
    let issuer = StrictIssuer::start(3600);
    let called = |name: &str| refreshed_as(name, &provider.url(), &issuer, "", "");
    let proxy = called("Old").start();
    assert_eq!(proxy.ask(get("/")).body, "Bearer access-the-seed-1");
    assert_eq!(proxy.reload(&called("New")).status, 200);
    assert_eq!(proxy.ask(get("/")).body, "Bearer access-the-seed-1");
    assert_eq!(refresh(&proxy, "new"), 200);
    assert_eq!(refresh(&proxy, "old"), 404);
    assert_eq!(issuer.revoked(), [""; 0]);
    let stored = std::fs::read_to_string(proxy.folder().join("new.json")).unwrap();
    assert!(stored.contains("refresh-the-seed-2"), "{stored}");
    assert!(!proxy.folder().join("old.json").exists());
}

#[test]
fn a_state_folder_that_is_changed_gets_the_tokens() {
    let (folder, provider) = (tempfile::tempdir().unwrap(), Peer::telling_the_credential());
    let issuer = StrictIssuer::start(3600);
    let elsewhere = folder.path().join("elsewhere");
    let proxy = refreshed(&provider.url(), &issuer, "").start();
    assert_eq!(proxy.ask(get("/")).body, "Bearer access-the-seed-1");
    let moved = refreshed(&provider.url(), &issuer, "").settings(&state_dir(&elsewhere));
    assert_eq!(proxy.reload(&moved).status, 200);
    assert_eq!(refresh(&proxy, "p"), 200);
    assert_eq!(issuer.revoked(), [""; 0]);
    let stored = std::fs::read_to_string(elsewhere.join("p.json")).unwrap();
    assert!(stored.contains("refresh-the-seed-2"), "{stored}");
}

#[test]
fn a_reload_in_the_middle_of_a_refresh_waits_for_its_answer() {
    let provider = Peer::telling_the_credential();
    let issuer = StrictIssuer::start(3600);
    let with = |lines: &str, of_refresh: &str| {
        refreshed_as("P", &provider.url(), &issuer, lines, of_refresh)
    };
    let proxy = with("", "").start();
    assert_eq!(proxy.ask(get("/")).body, "Bearer access-the-seed-1");
    let release = issuer.hold_next();
    let mut asking = Client::connect(proxy.address);
    asking.send(post("/-/refresh/p", ""));
    eventually("a refresh is under way", || issuer.presented().len() == 2);
    assert_eq!(proxy.reload(&with(OTHER_HEADER, "")).status, 200);
    assert_eq!(proxy.ask(get("/")).body, "Bearer access-the-seed-1", "the token there is serves");
    drop(release);
    assert_eq!(asking.answer().status, 200);
    assert_eq!(proxy.ask(get("/")).body, "Bearer access-the-seed-2");
    // Another scope is asked for at once.
    assert_eq!(proxy.reload(&with("", "scope: more")).status, 200);
    eventually("it is asked for", || proxy.ask(get("/")).body == "Bearer access-the-seed-3");
    assert_eq!(issuer.revoked(), [""; 0]);
}

#[test]
fn a_request_that_waits_for_a_token_goes_on_after_a_reload() {
    let provider = Peer::telling_the_credential();
    let issuer = StrictIssuer::start(3600);
    let release = issuer.hold_next();
    let proxy = refreshed(&provider.url(), &issuer, "").start();
    let mut waiting = Client::connect(proxy.address);
    waiting.send(get("/x"));
    eventually("a refresh is under way", || issuer.presented().len() == 1);
    for lines in [OTHER_HEADER, "", OTHER_HEADER] {
        assert_eq!(proxy.reload(&refreshed(&provider.url(), &issuer, lines)).status, 200);
    }
    drop(release);
    assert_eq!(waiting.answer().body, "Bearer access-the-seed-1");
    assert_eq!(issuer.presented().len(), 1);
}

#[test]
fn a_request_that_still_sends_its_body_goes_on_after_a_reload() {
    let provider = Peer::telling_the_credential();
    let issuer = StrictIssuer::start(3600);
    let proxy = refreshed(&provider.url(), &issuer, "").start();
    assert_eq!(proxy.ask(get("/")).body, "Bearer access-the-seed-1");
    let mut sending = Client::connect(proxy.address);
    sending.send("POST /to/p/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nfirst");
    let mut also = Client::connect(proxy.address);
    also.send("POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nfirst");
    for lines in [OTHER_HEADER, "", OTHER_HEADER] {
        assert_eq!(proxy.reload(&refreshed(&provider.url(), &issuer, lines)).status, 200);
    }
    // Taken out altogether: the token that it began with is still good.
    let without = TestProxy::builder().provider("O", "openai", &provider.url(), "auth_value: a");
    assert_eq!(proxy.reload(&without).status, 200);
    assert_eq!(proxy.reload(&without).status, 200);
    for client in [&mut sending, &mut also] {
        client.send("later");
        assert_eq!(client.answer().body, "Bearer access-the-seed-1");
    }
}

#[test]
fn a_token_that_is_refused_after_a_reload_is_refreshed_for_a_request_from_before() {
    let (release, released) = crossbeam_channel::bounded::<()>(0);
    let provider = Peer::answering(move |seen| match seen.field("authorization") {
        Some("Bearer access-the-seed-1") => {
            let _ = released.recv();
            answer(401, "")
        }
        _ => answer(200, "fine"),
    });
    let issuer = StrictIssuer::start(3600);
    let proxy = refreshed(&provider.url(), &issuer, "").start();
    eventually("the token is there", || proxy.ask(get("/-/ready")).status == 200);
    let mut refused = Client::connect(proxy.address);
    refused.send(get("/x"));
    eventually("it is upstream", || provider.seen().len() == 1);
    assert_eq!(proxy.reload(&refreshed(&provider.url(), &issuer, OTHER_HEADER)).status, 200);
    drop(release);
    assert_eq!(refused.answer().body, "fine");
    assert_eq!(issuer.presented(), ["the-seed", "refresh-the-seed-1"]);
}

#[test]
fn a_reload_after_a_failure_for_good_tries_once() {
    let provider = Peer::telling_the_credential();
    let issuer = StrictIssuer::start(3600);
    let same = || refreshed(&provider.url(), &issuer, "");
    issuer.refuse_next(400, r#"{"error":"invalid_client"}"#);
    issuer.refuse_next(400, r#"{"error":"invalid_client"}"#);
    let proxy = same().start();
    let failures = |proxy: &TestProxy| {
        proxy.ask(get("/-/status")).json()["providers"][0]["refresh"]["failures"].as_u64()
    };
    eventually("it failed", || failures(&proxy) == Some(1));
    assert_eq!(proxy.reload(&same()).status, 200);
    eventually("it failed again", || failures(&proxy) == Some(2));
    assert_eq!(issuer.presented().len(), 2, "one try");
    assert_eq!(proxy.reload(&same()).status, 200);
    eventually("the token is there", || proxy.ask(get("/-/ready")).status == 200);
    // With a good token, a reload asks for nothing.
    assert_eq!(proxy.reload(&same()).status, 200);
    assert_eq!(proxy.reload(&refreshed(&provider.url(), &issuer, OTHER_HEADER)).status, 200);
    assert_eq!(proxy.ask(get("/")).body, "Bearer access-the-seed-1");
    assert_eq!(issuer.presented().len(), 3);
}

#[test]
fn a_reload_joins_a_refresh_that_runs() {
    let provider = Peer::telling_the_credential();
    let issuer = StrictIssuer::start(3600);
    let same = || refreshed(&provider.url(), &issuer, "");
    let release = issuer.hold_and_refuse_next(400, r#"{"error":"invalid_client"}"#);
    let proxy = same().start();
    eventually("a refresh is under way", || issuer.presented().len() == 1);
    assert_eq!(proxy.reload(&same()).status, 200);
    drop(release);
    eventually("it failed", || proxy.ask(get("/-/ready")).body.contains("invalid_client"));
    // Had the reload been heard as another order, this one would come third.
    assert_eq!(refresh(&proxy, "p"), 200);
    assert_eq!(issuer.presented().len(), 2);
}

#[test]
fn a_request_that_waits_for_a_provider_that_is_taken_out_is_told_so() {
    let provider = Peer::telling_the_credential();
    let issuer = StrictIssuer::start(3600);
    let release = issuer.hold_and_refuse_next(503, "");
    let proxy = refreshed(&provider.url(), &issuer, "").start();
    let mut waiting = Client::connect(proxy.address);
    waiting.send(get("/x"));
    eventually("a refresh is under way", || issuer.presented().len() == 1);
    let without = TestProxy::builder().provider("O", "openai", &provider.url(), "auth_value: a");
    assert_eq!(proxy.reload(&without).status, 200);
    drop(release);
    let came = waiting.answer();
    assert_eq!((came.status, came.code()), (503, "token_unavailable"));
    assert!(came.body.contains("503 Service Unavailable"), "{}", came.body);
    // It was told at once: there is no next try to wait for.
    assert!(!came.body.contains("the next try"), "{}", came.body);
    assert_eq!(issuer.presented().len(), 1);
}
