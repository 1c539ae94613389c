//! Redirects of providers: they lead back here, and to no other provider.

use crate::support::client::post;
use crate::support::peer::{Peer, answer};
use crate::support::proxy::TestProxy;

/// Sends whoever asks for `/mcp` to `/mcp/`, as the servers of many frameworks do.
fn with_slash(location: &'static str) -> Peer {
    Peer::answering(move |seen| {
        if seen.line.contains("/mcp/ ") {
            return answer(200, &format!("here {}", String::from_utf8_lossy(&seen.body)));
        }
        let host = seen.field("host").unwrap();
        let location = location.replace("HOST", host);
        format!("HTTP/1.1 307 X\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n")
    })
}

#[test]
fn a_redirect_led_out_of_evertoken_or_with_its_body_to_another_provider() {
    for location in ["/mcp/", "http://HOST/mcp/", "//HOST/mcp/", "mcp/"] {
        let (first, tools) = (Peer::answering(|_| answer(200, "wrong")), with_slash(location));
        let proxy = TestProxy::builder()
            .provider("First", "generic", &first.url(), "auth_value: a")
            .provider("Tools", "generic", &tools.url(), "auth_value: b")
            .start();
        let redirect = proxy.ask(post("/to/tools/mcp", "secret"));
        assert_eq!((redirect.status, redirect.field("location")), (307, Some("/to/tools/mcp/")));
        let target = redirect.field("location").unwrap().to_owned();
        assert_eq!(proxy.ask(post(&target, "secret")).body, "here secret", "{location}");
        assert!(first.seen().is_empty());
        assert!(tools.seen().iter().all(|seen| seen.field("authorization") == Some("Bearer b")));
    }
}

#[test]
fn a_redirect_to_another_origin_or_beside_the_base_url_is_not_taken_for_ours() {
    let peer = Peer::answering(|seen| {
        let location = if seen.line.contains("/out") { "https://else.example/x" } else { "/login" };
        format!("HTTP/1.1 302 X\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n")
    });
    let proxy = TestProxy::before(&format!("{}/api", peer.url()));
    let out = proxy.ask(post("/to/p/out", ""));
    assert_eq!(out.field("location"), Some("https://else.example/x"));
    let beside = proxy.ask(post("/to/p/x", ""));
    assert_eq!(beside.field("location"), Some(format!("{}/login", peer.url()).as_str()));
}

#[test]
fn a_failing_answer_that_was_kept_leads_back_too() {
    let failing = |location: &'static str| {
        Peer::answering(move |_| {
            format!("HTTP/1.1 503 X\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n")
        })
    };
    let (first, second) = (failing("/one"), failing("/two"));
    let proxy = TestProxy::builder()
        .provider("One", "openai", &first.url(), "auth_value: a")
        .provider("Two", "openai", &second.url(), "auth_value: b")
        .start();
    let last = proxy.ask(post("/v1/files", ""));
    assert_eq!((last.status, last.field("location")), (503, Some("/to/two/two")));
}
