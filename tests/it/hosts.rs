//! A token store that can't be reached: what serves on, what waits, and what is said. With a real one, see
//! `slow::engine` and `tests/clients/hosts.py`.

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
