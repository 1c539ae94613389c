//! Tokens end to end: waiting for the first, rotation, restarts, refused tokens, failing disks.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crossbeam_channel::bounded;
use evertoken::testing::parse_record;

use crate::support::client::{Answer, Client, get, post};
use crate::support::peer::{Peer, Seen, answer};
use crate::support::proxy::TestProxy;
use crate::support::{eventually, unwritable};

/// A provider that says which token it was shown.
/// An issuer that numbers its tokens; `lifetime` in seconds.
fn issuer(lifetime: u64) -> Peer {
    let count = std::sync::atomic::AtomicU64::new(0);
    Peer::answering(move |_| {
        let number = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1;
        grant(number, lifetime)
    })
}

fn grant(number: u64, lifetime: u64) -> String {
    let body = format!(
        "{{\"access_token\":\"access-{number}\",\"expires_in\":{lifetime},\"refresh_token\":\"refresh-{number}\"}}"
    );
    answer(200, &body)
}

const ORDER: &str = "POST /-/refresh/p HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n";

fn order(proxy: &TestProxy) -> Answer {
    proxy.ask(ORDER)
}

fn body(seen: &Seen) -> String {
    String::from_utf8(seen.body.clone()).unwrap()
}

#[test]
fn the_first_request_waits_for_the_first_token() {
    let (release, released) = bounded::<()>(0);
    let issuer = Peer::start(move |mut talk| {
        talk.request();
        let _ = released.recv();
        talk.send(grant(1, 3600));
    });
    let provider = Peer::telling_the_credential();
    let proxy = TestProxy::builder()
        .refreshed("P", &provider.url(), &format!("{}/token", issuer.url()), "")
        .start();
    assert_eq!(proxy.ask(get("/-/ready")).status, 503);
    let mut client = Client::connect(proxy.address);
    client.send(get("/x"));
    eventually("the refresh is under way", || issuer.seen().len() == 1);
    release.send(()).unwrap();
    assert_eq!(client.answer().body, "Bearer access-1");
    assert_eq!(proxy.ask(get("/-/ready")).status, 200);
    let sent = body(&issuer.seen()[0]);
    assert_eq!(
        sent,
        "grant_type=refresh_token&refresh_token=the-seed&client_id=abc12-client&client_secret=the-client-secret"
    );
    assert_eq!(issuer.seen()[0].line, "POST /token HTTP/1.1");
}

#[test]
fn an_issuer_that_asked_for_an_hour_sent_clients_to_sleep_for_it() {
    let issuer = Peer::answering(|_| {
        "HTTP/1.1 503 X\r\nretry-after: 3600\r\ncontent-length: 0\r\n\r\n".to_owned()
    });
    let proxy =
        TestProxy::builder().refreshed("P", "http://127.0.0.1:9", &issuer.url(), "").start();
    let refused = proxy.ask(post("/v1/messages", "{}"));
    assert_eq!((refused.status, refused.code()), (503, "token_unavailable"), "{}", refused.body);
    assert_eq!(refused.field("retry-after"), Some("60"));
}

#[test]
fn what_only_a_person_can_end_is_a_403_and_no_reason_to_leave_out_another_provider() {
    let issuer = Peer::answering(|_| answer(401, r#"{"error":"invalid_client"}"#));
    let missing = TestProxy::builder()
        .without_variable("CLIENT_ID")
        .refreshed("P", "http://127.0.0.1:9", &issuer.url(), "")
        .start();
    let refused = missing.ask(post("/v1/messages", "{}"));
    assert_eq!((refused.status, refused.code()), (403, "login_needed"), "{}", refused.body);
    for part in ["Missing environment variable: 'CLIENT_ID'", "evertoken refresh --provider p"] {
        assert!(refused.body.contains(part), "{}", refused.body);
    }
    assert_eq!(refused.json()["error"]["type"], "permission_error");
    let provider = Peer::telling_the_credential();
    let two = |second: &str| {
        TestProxy::builder()
            .refreshed("P", &provider.url(), &issuer.url(), "")
            .provider("Q", "anthropic", second, "auth_value: other")
            .start()
    };
    assert_eq!(two(&provider.url()).ask(post("/v1/messages", "{}")).body, "Bearer other");
    // The second may be back in a moment; the first is not.
    let refused = two("http://127.0.0.1:1").ask(post("/v1/messages", "{}"));
    assert_eq!((refused.status, refused.code()), (502, "upstream_unreachable"));
}

#[test]
fn with_a_dead_refresh_token_the_client_waited_half_an_hour_where_a_403_says_what_to_do() {
    let issuer = Peer::answering(|_| answer(400, r#"{"error":"invalid_grant"}"#));
    let proxy = TestProxy::builder()
        .refreshed("P", "http://127.0.0.1:9", &issuer.url(), "retry_interval: 1800")
        .start();
    let refused = proxy.ask(post("/v1/messages", "{}"));
    assert_eq!((refused.status, refused.code()), (403, "login_needed"));
    let message = refused.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("400 Bad Request (invalid_grant)"), "{message}");
    assert!(message.contains("the next try is at 2"), "{message}");
    assert!(message.contains("run: evertoken refresh --provider p"), "{message}");
    assert_eq!(refused.field("retry-after"), None);
    let status = proxy.ask(get("/-/status")).json();
    assert_eq!(status["providers"][0]["state"], "unavailable");
    let ready = proxy.ask(get("/-/ready"));
    assert_eq!(ready.status, 503);
    assert!(ready.body.contains("invalid_grant"));
}

#[test]
fn a_router_without_its_uplink_wrote_the_state_file_at_each_try() {
    let nobody = "http://127.0.0.1:9";
    let proxy = TestProxy::builder().refreshed("P", nobody, nobody, "").start();
    let order = || {
        assert_eq!(proxy.ask(post("/-/refresh/p", "")).status, 502);
        std::fs::read_to_string(proxy.folder().join("p.json")).unwrap()
    };
    order();
    let before = order();
    assert!(!before.contains("pending"), "{before}");
    for _ in 0..3 {
        assert_eq!(order(), before);
    }
}

#[test]
fn a_restart_uses_the_stored_token_and_the_rotated_chain() {
    let (provider, issuer) = (Peer::telling_the_credential(), issuer(3600));
    let builder = || TestProxy::builder().refreshed("P", &provider.url(), &issuer.url(), "");
    let proxy = builder().start();
    assert_eq!(proxy.ask(get("/")).body, "Bearer access-1");
    let file = proxy.folder().join("p.json");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let folder = proxy.into_folder();
    let proxy = builder().folder(folder).start();
    assert_eq!(proxy.ask(get("/")).body, "Bearer access-1");
    assert_eq!(issuer.seen().len(), 1, "the stored token is used without a refresh");
    assert_eq!(order(&proxy).status, 200);
    assert_eq!(proxy.ask(get("/")).body, "Bearer access-2");
    assert!(body(&issuer.seen()[1]).contains("refresh_token=refresh-1&"));
    // Another seed starts another chain, and what belongs to the old one is not used.
    let folder = proxy.into_folder();
    let proxy = builder().folder(folder).variable("REFRESH_TOKEN", "another-seed").start();
    assert_eq!(proxy.ask(get("/")).body, "Bearer access-3");
    assert!(body(&issuer.seen()[2]).contains("refresh_token=another-seed&"));
}

#[test]
fn a_permanent_failure_is_remembered_over_a_restart() {
    let issuer = Peer::answering(|_| answer(400, r#"{"error":"invalid_grant"}"#));
    let builder = || TestProxy::builder().refreshed("P", "http://127.0.0.1:9", &issuer.url(), "");
    let proxy = builder().start();
    eventually("the refresh failed", || proxy.ask(get("/-/ready")).body.contains("invalid_grant"));
    let folder = proxy.into_folder();
    let proxy = builder().folder(folder).start();
    assert!(proxy.ask(get("/-/ready")).body.contains("invalid_grant"));
    assert_eq!(issuer.seen().len(), 1, "no other try is spent");
    let folder = proxy.into_folder();
    let proxy = builder().folder(folder).variable("REFRESH_TOKEN", "new-seed").start();
    eventually("the new seed is tried", || issuer.seen().len() == 2);
    drop(proxy);
}

#[test]
fn a_refused_token_is_refreshed_once_and_the_request_sent_again() {
    let issuer = issuer(3600);
    let provider = Peer::answering(|seen| match seen.field("authorization") {
        Some("Bearer access-1") => answer(401, "expired"),
        _ => answer(200, &String::from_utf8_lossy(&seen.body)),
    });
    let proxy = TestProxy::builder().refreshed("P", &provider.url(), &issuer.url(), "").start();
    let mut clients: Vec<_> = (0..20).map(|_| Client::connect(proxy.address)).collect();
    for client in &mut clients {
        client.send(post("/", "again"));
    }
    for client in &mut clients {
        let answered = client.answer();
        assert_eq!((answered.status, answered.body.as_str()), (200, "again"));
    }
    assert_eq!(issuer.seen().len(), 2, "one refresh, however many requests wait");
}

/// Five clients in an hour saw the 401 of a token that had been revoked, since the issuer was busy just then.
#[test]
fn a_refresh_of_a_refused_token_that_fails_in_passing_is_waited_for() {
    let asked = AtomicUsize::new(0);
    let issuer = Peer::answering(move |_| match asked.fetch_add(1, Ordering::SeqCst) {
        0 => grant(1, 3600),
        1 | 2 => answer(503, "busy"),
        _ => grant(2, 3600),
    });
    let provider = Peer::answering(|seen| match seen.field("authorization") {
        Some("Bearer access-1") => answer(401, "revoked"),
        _ => answer(200, "fine"),
    });
    let proxy = TestProxy::builder().refreshed("P", &provider.url(), &issuer.url(), "").start();
    let answered = proxy.ask(post("/", "x"));
    assert_eq!((answered.status, answered.body.as_str()), (200, "fine"));
    assert_eq!(issuer.seen().len(), 4);
}

/// It was passed on: a token was not refreshed within ten seconds of having been got.
#[test]
fn a_token_that_is_refused_as_soon_as_it_came_is_refreshed_and_the_next_is_not() {
    let issuer = issuer(3600);
    let provider = Peer::answering(|seen| match seen.field("authorization") {
        Some("Bearer access-1" | "Bearer access-2") => answer(401, "expired"),
        _ => answer(200, "fine"),
    });
    let proxy = TestProxy::builder().refreshed("P", &provider.url(), &issuer.url(), "").start();
    // The second token is refused too; that is passed on, and so is what follows within ten seconds.
    for _ in 0..20 {
        assert_eq!(proxy.ask(post("/", "x")).status, 401);
    }
    assert_eq!(issuer.seen().len(), 2);
    // An order is followed all the same, and once.
    assert_eq!(order(&proxy).status, 200);
    assert_eq!(issuer.seen().len(), 3);
    assert_eq!(proxy.ask(post("/", "x")).body, "fine");
}

#[test]
fn an_order_while_a_variable_is_missing_is_tried_once_and_writes_nothing() {
    let issuer = issuer(3600);
    let proxy = TestProxy::builder()
        .refreshed("P", "http://127.0.0.1:9", &issuer.url(), "")
        .without_variable("CLIENT_ID")
        .start();
    eventually("the start has tried", || proxy.ask(get("/-/ready")).body.contains("'CLIENT_ID'"));
    for orders in 1..=5 {
        let refused = order(&proxy);
        assert_eq!(refused.status, 502);
        assert_eq!(refused.json()["refresh"]["failures"], orders + 1);
    }
    assert!(!proxy.folder().join("p.json").exists());
    assert!(issuer.seen().is_empty());
}

/// Neither of the fixed lines came at a second start within the hour.
#[test]
fn a_missing_variable_is_looked_for_at_each_start() {
    let (provider, issuer) = (Peer::telling_the_credential(), issuer(3600));
    let builder = || TestProxy::builder().refreshed("P", &provider.url(), &issuer.url(), "");
    let mut folder = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let proxy = builder().without_variable("CLIENT_ID").folder(folder).start();
        let failures = || proxy.ask(get("/-/status")).json()["providers"][0]["refresh"].clone();
        eventually("it is looked for", || failures()["failures"] == 1);
        folder = proxy.into_folder();
    }
    assert_eq!(builder().folder(folder).start().ask(get("/")).body, "Bearer access-1");
}

/// 503 for 91 seconds was seen with a clock that had been ahead by 90; a refresh that was ordered did not answer.
#[test]
fn a_stored_token_serves_though_the_clock_was_set_back_and_an_order_ends_the_wait() {
    let (provider, issuer) = (Peer::telling_the_credential(), issuer(60));
    let builder = || TestProxy::builder().refreshed("P", &provider.url(), &issuer.url(), "");
    let proxy = builder().start();
    assert_eq!(proxy.ask(get("/")).body, "Bearer access-1");
    let folder = proxy.into_folder();
    let file = folder.path().join("p.json");
    let mut saved = parse_record(&std::fs::read_to_string(&file).unwrap()).unwrap();
    let access = saved.access.as_mut().unwrap();
    let times = [&mut saved.saved_at, &mut access.obtained_at, &mut access.expires_at];
    for time in times.into_iter().chain([&mut access.refresh_at]) {
        *time = time.plus_millis(3_600_000);
    }
    std::fs::write(&file, saved.to_json().expose()).unwrap();
    let proxy = builder().folder(folder).start();
    assert_eq!(proxy.ask(get("/")).body, "Bearer access-1");
    assert_eq!(issuer.seen().len(), 1);
    assert_eq!(order(&proxy).status, 200);
    assert_eq!(proxy.ask(get("/")).body, "Bearer access-2");
}

#[test]
fn a_token_that_the_issuer_repeats_ends_when_it_was_said_to() {
    let issuer = Peer::answering(|_| answer(200, r#"{"access_token":"same","expires_in":3600}"#));
    let provider = Peer::telling_the_credential();
    let proxy = TestProxy::builder().refreshed("P", &provider.url(), &issuer.url(), "").start();
    assert_eq!(proxy.ask(get("/")).body, "Bearer same");
    let token = || proxy.ask(get("/-/status")).json()["providers"][0]["token"].clone();
    let first = token();
    let answered = order(&proxy);
    assert_eq!((answered.status, issuer.seen().len()), (200, 2));
    let second = token();
    for kept in ["expires_at", "generation"] {
        assert_eq!(first[kept], second[kept]);
    }
    assert!(second["refresh_due_at"].as_str() > second["expires_at"].as_str(), "{second}");
}

#[test]
fn a_token_that_lives_two_seconds_is_never_seen_expired() {
    let issuer = issuer(2);
    let provider = Peer::telling_the_credential();
    let proxy = TestProxy::builder().refreshed("P", &provider.url(), &issuer.url(), "").start();
    let mut last = String::new();
    eventually("four tokens were used", || {
        let answered = proxy.ask(get("/"));
        assert_eq!(answered.status, 200);
        last = answered.body;
        last.ends_with("-4")
    });
}

#[test]
fn a_failing_provider_harms_no_other() {
    let (release, released) = bounded::<()>(0);
    let hanging = Peer::start(move |mut talk| {
        talk.request();
        let _ = released.recv();
    });
    let (issuer, provider) = (issuer(3600), Peer::telling_the_credential());
    let proxy = TestProxy::builder()
        .refreshed("Hangs", "http://127.0.0.1:9", &hanging.url(), "")
        .refreshed("Works", &provider.url(), &issuer.url(), "")
        .start();
    assert_eq!(proxy.ask(get("/to/works/")).body, "Bearer access-1");
    assert!(proxy.ask(get("/-/ready")).body.contains("Hangs"));
    drop(release);
}

#[test]
fn a_state_folder_that_cannot_be_written_costs_no_token() {
    let folder = tempfile::tempdir().unwrap();
    let blocked = folder.path().join("blocked");
    unwritable(&blocked);
    let (issuer, provider) = (issuer(3600), Peer::telling_the_credential());
    let proxy = TestProxy::builder()
        .settings(&format!("state_dir: \"{}\"", blocked.display()))
        .refreshed("P", &provider.url(), &issuer.url(), "")
        .start();
    assert_eq!(proxy.ask(get("/")).body, "Bearer access-1");
    let ready = proxy.ask(get("/-/ready"));
    assert_eq!(ready.status, 200);
    assert!(ready.body.contains("can't be written"), "{}", ready.body);
}

/// Seen: the seed, spent long ago, was sent, the issuer revoked the family, and the file was overwritten.
#[test]
fn a_state_file_that_cannot_be_read_at_the_start_is_no_missing_file() {
    // A link to itself (ELOOP) in the file's place, a folder there, a file in the place of its folder (ENOTDIR).
    let spoil: [fn(&Path); 3] = [
        |state| {
            std::fs::create_dir(state).unwrap();
            symlink("p.json", state.join("p.json")).unwrap();
        },
        |state| std::fs::create_dir_all(state.join("p.json")).unwrap(),
        |state| std::fs::write(state, "").unwrap(),
    ];
    for spoil in spoil {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let (issuer, provider) = (issuer(3600), Peer::telling_the_credential());
        let start = || {
            TestProxy::builder()
                .settings(&format!("state_dir: \"{}\"", state.display()))
                .refreshed("P", &provider.url(), &issuer.url(), "")
                .start()
        };
        let proxy = start();
        assert_eq!(proxy.ask(get("/")).body, "Bearer access-1");
        drop(proxy);
        let aside = folder.path().join("aside");
        std::fs::rename(&state, &aside).unwrap();
        spoil(&state);
        let proxy = start();
        let refused = proxy.ask(get("/"));
        assert_eq!((refused.status, refused.code()), (503, "token_unavailable"));
        let ready = proxy.ask(get("/-/ready"));
        assert_eq!(ready.status, 503);
        let status = proxy.ask(get("/-/status")).json();
        let shown = &status["providers"][0];
        let page = proxy.ask(get("/-/"));
        for told in [&refused.body, &ready.body, &shown["problem"].to_string(), &page.body] {
            assert!(told.contains("p.json, which can"), "{told}");
        }
        let refresh = proxy.ask(post("/-/refresh/p", ""));
        assert_eq!(refresh.status, 502, "{refresh:?}");
        assert_eq!(issuer.seen().len(), 1, "no seed is spent");
        // The disk is back.
        if state.is_dir() {
            std::fs::remove_dir_all(&state).unwrap();
        } else {
            std::fs::remove_file(&state).unwrap();
        }
        std::fs::rename(&aside, &state).unwrap();
        eventually("what is stored is used", || proxy.ask(get("/")).status == 200);
        assert_eq!(proxy.ask(get("/")).body, "Bearer access-1");
        assert_eq!(issuer.seen().len(), 1);
    }
}

/// Seen: it was set aside as corrupt, and the spent seed was tried.
#[test]
fn a_state_file_of_a_newer_format_is_used_and_not_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let (issuer, provider) = (issuer(3600), Peer::telling_the_credential());
    let start = || {
        TestProxy::builder()
            .settings(&format!("state_dir: \"{}\"", folder.path().display()))
            .refreshed("P", &provider.url(), &issuer.url(), "")
            .start()
    };
    let proxy = start();
    assert_eq!(proxy.ask(get("/")).body, "Bearer access-1");
    drop(proxy);
    let path = folder.path().join("p.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let newer = text.replace("\"format\": 1", "\"format\": 2, \"x\": {}").replace("saved_at", "at");
    std::fs::write(&path, &newer).unwrap();
    for (number, expected) in [(2, "refresh-1"), (3, "refresh-2")] {
        let proxy = start();
        assert_eq!(proxy.ask(get("/")).body, format!("Bearer access-{}", number - 1));
        assert_eq!(proxy.ask(post("/-/refresh/p", "")).status, 200);
        assert!(body(&issuer.seen()[number - 1]).contains(&format!("refresh_token={expected}&")));
        assert_eq!(proxy.ask(get("/")).body, format!("Bearer access-{number}"));
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), newer);
}

#[test]
fn a_token_response_over_the_limit_is_refused() {
    let answer_of = |bytes: usize| {
        let frame = r#"{"access_token":"a","x":""}"#.len();
        answer(200, &format!(r#"{{"access_token":"a","x":"{}"}}"#, "y".repeat(bytes - frame)))
    };
    let limit = evertoken::testing::TOKEN_ANSWER_MAX_BYTES;
    for (bytes, ready) in [(limit, true), (limit + 1, false)] {
        let text = answer_of(bytes);
        let issuer = Peer::answering(move |_| text.clone());
        let proxy =
            TestProxy::builder().refreshed("P", "http://127.0.0.1:9", &issuer.url(), "").start();
        eventually("the refresh ended", || {
            let page = proxy.ask(get("/-/ready"));
            if ready { page.status == 200 } else { page.body.contains("over 1048576 bytes") }
        });
    }
}

#[test]
fn a_redirect_of_a_token_request_is_not_followed() {
    let elsewhere = issuer(3600);
    let target = elsewhere.url();
    let issuer = Peer::answering(move |_| {
        format!("HTTP/1.1 307 X\r\nlocation: {target}\r\ncontent-length: 0\r\n\r\n")
    });
    let proxy =
        TestProxy::builder().refreshed("P", "http://127.0.0.1:9", &issuer.url(), "").start();
    eventually("the refresh failed", || {
        proxy.ask(get("/-/ready")).body.contains("307 Temporary Redirect")
    });
    assert!(elsewhere.seen().is_empty());
}

#[test]
fn a_lost_answer_is_tried_again_with_the_old_token_and_said() {
    // The issuer rotates, and its answer never arrives; the old token is refused from then on.
    let issuer = Peer::start(|mut talk| {
        let Some(seen) = talk.request() else { return };
        if seen.connection > 0 {
            talk.answer(400, r#"{"error":"invalid_grant"}"#);
        }
    });
    let proxy =
        TestProxy::builder().refreshed("P", "http://127.0.0.1:9", &issuer.url(), "").start();
    let words = "the answer to the last refresh was probably lost; log in again";
    eventually("it is said", || proxy.ask(get("/-/ready")).body.contains(words));
    assert!(issuer.seen().iter().all(|seen| body(seen).contains("refresh_token=the-seed&")));
}

/// Seen: the marker of the lost answer went with the try that failed after it, and a restart knew nothing of it.
#[test]
fn a_lost_answer_is_said_after_a_bad_gateway_and_a_restart() {
    for status in [502, 504, 429] {
        // No answer, then a gateway's page, and after the restart a refusal.
        let is_restarted = Arc::new(AtomicBool::new(false));
        let refuses = is_restarted.clone();
        let issuer = Peer::start(move |mut talk| {
            let Some(seen) = talk.request() else { return };
            if refuses.load(Ordering::SeqCst) {
                talk.answer(400, r#"{"error":"invalid_grant"}"#);
            } else if seen.connection > 0 {
                talk.answer(status, "<html>");
            }
        });
        let folder = tempfile::tempdir().unwrap();
        let start = || {
            TestProxy::builder()
                .settings(&format!("state_dir: \"{}\"", folder.path().display()))
                .refreshed("P", "http://127.0.0.1:9", &issuer.url(), "")
                .start()
        };
        let proxy = start();
        eventually("the gateway's page came", || issuer.seen().len() > 1);
        drop(proxy);
        is_restarted.store(true, Ordering::SeqCst);
        let proxy = start();
        let words = "the answer to the last refresh was probably lost; log in again";
        eventually("it is said", || proxy.ask(get("/-/ready")).body.contains(words));
    }
}

#[test]
fn two_proxies_on_one_state_folder_share_one_refresh() {
    let (release, released) = bounded::<()>(0);
    let issuer = Peer::start(move |mut talk| {
        while talk.request().is_some() {
            let _ = released.recv();
            talk.send(grant(1, 3600));
        }
    });
    let provider = Peer::telling_the_credential();
    let folder = tempfile::tempdir().unwrap();
    let start = || {
        TestProxy::builder()
            .settings(&format!("state_dir: \"{}\"", folder.path().display()))
            .refreshed("P", &provider.url(), &issuer.url(), "")
            .start()
    };
    let (first, second) = (start(), start());
    eventually("one of them refreshes", || issuer.seen().len() == 1);
    release.send(()).unwrap();
    assert_eq!(first.ask(get("/")).body, "Bearer access-1");
    assert_eq!(second.ask(get("/")).body, "Bearer access-1");
    assert_eq!(issuer.seen().len(), 1);
}
