//! A token store that can't be reached: what serves on, what waits, and what is said. With a real one, see
//! `slow::engine` and `tests/clients/hosts.py`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use evertoken::testing::{Clock, Moment};

use crate::support::client::get;
use crate::support::eventually;
use crate::support::peer::{Peer, answer};
use crate::support::proxy::{Builder, TestProxy};

const NOWHERE: &str = "token_store: \"unix:///nonexistent/socket\"";

fn granting() -> Peer {
    Peer::answering(|_| {
        answer(200, r#"{"access_token":"access-1","expires_in":3600,"refresh_token":"refresh-1"}"#)
    })
}

fn builder(provider: &Peer, issuer: &Peer) -> Builder {
    TestProxy::builder().refreshed("P", &provider.url(), &format!("{}/token", issuer.url()), "")
}

#[test]
fn without_the_store_nothing_is_refreshed_and_it_is_said() {
    let (provider, issuer) = (Peer::telling_the_credential(), granting());
    let proxy = builder(&provider, &issuer).settings(NOWHERE).start();
    let said = "The token store unix:///nonexistent/socket?db=0 can't be used";
    eventually("it is said", || proxy.ask(get("/-/status")).body.contains(said));
    let refused = proxy.ask(get("/x"));
    assert_eq!(refused.status, 503);
    assert!(refused.body.contains(said), "{}", refused.body);
    assert_eq!(issuer.seen().len(), 0, "no refresh token was spent");
}

#[test]
fn that_the_store_is_waited_for_is_in_the_status_after_10_s() {
    let (provider, issuer) = (Peer::telling_the_credential(), granting());
    let ahead_ms: Arc<AtomicU64> = Arc::default();
    let (system, ahead) = (Clock::system(), ahead_ms.clone());
    let clock = Clock::from_fn(move || {
        let (now, ms) = (system.now(), ahead.load(Ordering::SeqCst));
        Moment {
            wall: now.wall.plus_millis(i64::try_from(ms).unwrap()),
            steady_ms: now.steady_ms + ms,
        }
    });
    let proxy = builder(&provider, &issuer).settings(NOWHERE).clock(clock).start();
    let status = || proxy.ask(get("/-/status")).json();
    eventually("it is tried", || status()["providers"][0]["refresh"]["last_error"].is_string());
    assert!(status()["providers"][0]["waiting"].is_null());
    ahead_ms.store(10_000, Ordering::SeqCst);
    eventually("it is told", || {
        let waiting = status()["providers"][0]["waiting"].clone();
        let what = waiting["for"].as_str().unwrap_or_default().to_owned();
        what.starts_with("the token store unix:///nonexistent/socket?db=0, which can't be used (")
    });
    let refused = proxy.ask(get("/x"));
    assert_eq!((refused.status, refused.code()), (503, "token_unavailable"));
    assert!(refused.body.contains("waiting since "), "{}", refused.body);
    let store = status()["token_store"].clone();
    assert!(store["problem"].as_str().unwrap().contains("can't be used"), "{store}");
    let page = proxy.ask(get("/-/")).body;
    assert!(page.contains("The token store unix:///nonexistent/socket?db=0 can&#39;t be used"));
}

#[test]
fn the_stored_token_serves_without_the_store() {
    let (provider, issuer) = (Peer::telling_the_credential(), granting());
    let alone = builder(&provider, &issuer).start();
    assert_eq!(alone.ask(get("/x")).body, "Bearer access-1");
    let folder = alone.into_folder();
    let proxy = builder(&provider, &issuer).settings(NOWHERE).folder(folder).start();
    assert_eq!(proxy.ask(get("/x")).body, "Bearer access-1");
    assert_eq!(issuer.seen().len(), 1);
}

#[test]
fn each_host_for_itself_where_that_is_asked_for() {
    let (provider, issuer) = (Peer::telling_the_credential(), granting());
    let settings = format!("{NOWHERE}, token_store_fallback: local");
    let proxy = builder(&provider, &issuer).settings(&settings).start();
    assert_eq!(proxy.ask(get("/x")).body, "Bearer access-1");
    assert_eq!(issuer.seen().len(), 1);
    let stored = std::fs::read_to_string(proxy.folder().join("p.json")).unwrap();
    assert!(stored.contains("refresh-1"), "the state folder has what the store can't have yet");
}

#[test]
fn a_reload_takes_up_another_store() {
    let (provider, issuer) = (Peer::telling_the_credential(), granting());
    let alone = builder(&provider, &issuer);
    let shared = builder(&provider, &issuer).settings(NOWHERE);
    let proxy = builder(&provider, &issuer).settings(NOWHERE).start();
    assert_eq!(proxy.ask(get("/-/ready")).status, 503);
    assert_eq!(proxy.reload(&alone).status, 200);
    assert_eq!(proxy.ask(get("/x")).body, "Bearer access-1", "the state folder alone");
    assert_eq!(proxy.reload(&shared).status, 200);
    assert_eq!(proxy.ask(get("/x")).body, "Bearer access-1", "what is stored serves on");
    assert_eq!(issuer.seen().len(), 1);
}
