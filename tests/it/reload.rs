//! Another configuration takes the place of the one in use, and nothing is dropped.

use crate::support::client::{Client, get};
use crate::support::eventually;
use crate::support::peer::{Peer, answer};
use crate::support::proxy::TestProxy;

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

#[test]
fn a_broken_file_changes_nothing_and_says_every_problem() {
    let one = saying("one");
    let proxy = TestProxy::before(&one.url());
    let broken = TestProxy::builder().provider("P", "nonsense", &one.url(), "auth_valu: x");
    let came = proxy.reload(&broken);
    assert_eq!(came.status, 422);
    let problems = came.json()["problems"].as_array().unwrap().len();
    assert_eq!(problems, 3, "{}", came.body);
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
