//! The choice of proxy and roots: from `settings`, from the environment, from a provider.

use crate::support::client::get;
use crate::support::peer::{Peer, answer};
use crate::support::proxy::TestProxy;

/// A proxy that takes the place of every provider and issuer behind it.
fn gateway() -> Peer {
    Peer::start(|mut talk| {
        let Some(connect) = talk.request() else { return };
        assert!(connect.line.starts_with("CONNECT "), "{}", connect.line);
        talk.send("HTTP/1.1 200 X\r\n\r\n");
        while let Some(seen) = talk.request() {
            let token = r#"{"access_token":"t","expires_in":3600}"#;
            talk.answer(200, if seen.line.contains("/token") { token } else { "proxied" });
        }
    })
}

fn targets(gateway: &Peer) -> Vec<String> {
    let seen = gateway.seen();
    let connects = seen.iter().filter(|seen| seen.line.starts_with("CONNECT"));
    connects.map(|seen| seen.line.split(' ').nth(1).unwrap().to_owned()).collect()
}

#[test]
fn the_proxy_of_settings_is_for_every_provider_without_its_own_and_for_tokens() {
    let (gateway, other) = (gateway(), gateway());
    let direct = Peer::answering(|_| answer(200, "direct"));
    let proxy = TestProxy::builder()
        .settings(&format!("proxy: \"{}\"", gateway.url()))
        .provider(
            "Own",
            "generic",
            "http://own.invalid",
            &format!("auth_type: none\nproxy: \"{}\"", other.url()),
        )
        .provider("Here", "generic", &direct.url(), "auth_type: none")
        .provider("None", "generic", &direct.url(), "auth_type: none\nproxy: none")
        .provider("Env", "generic", "http://env.invalid", "auth_type: none\nproxy: env")
        .variable("http_proxy", &other.url())
        .refreshed("P", "http://p.invalid:81", "https://127.0.0.1:9/token", "")
        .start();
    for (path, expected) in [
        ("/to/own/x", "proxied"),
        ("/to/here/x", "direct"),
        ("/to/none/x", "direct"),
        ("/to/env/x", "proxied"),
    ] {
        assert_eq!(proxy.ask(get(path)).body, expected, "{path}");
    }
    assert_eq!(targets(&gateway), [""; 0], "loopback endpoints are reached directly");
    assert_eq!(targets(&other), ["own.invalid:80", "env.invalid:80"]);
}

#[test]
fn a_token_request_goes_through_the_proxy_of_settings() {
    let gateway = gateway();
    let proxy = TestProxy::builder()
        .settings(&format!("proxy: \"{}\"", gateway.url()))
        .refreshed("P", "http://p.invalid:81", "https://issuer.invalid/token", "")
        .start();
    // The issuer behind it does not speak TLS, so that there is no token.
    crate::support::eventually("the issuer is asked for", || {
        targets(&gateway).contains(&"issuer.invalid:443".to_owned())
    });
    drop(proxy);
}

#[test]
fn interim_answers_of_a_proxy_to_connect_are_refused_at_64_kib() {
    let interim = "HTTP/1.1 103 X\r\n\r\n";
    let most = 65_536 / interim.len();
    for (count, status) in [(most, 200), (most + 1, 502)] {
        let gateway = Peer::start(move |mut talk| {
            talk.request();
            talk.send(interim.repeat(count) + "HTTP/1.1 200 X\r\n\r\n");
            while talk.request().is_some() {
                talk.answer(200, "proxied");
            }
        });
        let proxy = TestProxy::builder()
            .settings(&format!("proxy: \"{}\"", gateway.url()))
            .provider("P", "generic", "http://p.invalid", "auth_type: none")
            .start();
        let answered = proxy.ask(get("/"));
        assert_eq!(answered.status, status, "{}", answered.body);
        assert_eq!(answered.body.contains("over 65536 bytes together"), status == 502);
    }
}

#[test]
fn no_proxy_names_those_that_are_reached_directly() {
    let gateway = gateway();
    let proxy = TestProxy::builder()
        .settings("proxy: env")
        .variable("http_proxy", gateway.url().trim_start_matches("http://"))
        .variable("no_proxy", "192.0.2.0/24,direct.invalid")
        .settings("timeouts: {connect: 1}")
        .provider("Direct", "generic", "http://eu.direct.invalid", "auth_type: none")
        .provider("Through", "generic", "http://through.invalid", "auth_type: none")
        .start();
    assert_eq!(proxy.ask(get("/to/through/x")).body, "proxied");
    let direct = proxy.ask(get("/to/direct/x"));
    assert_eq!((direct.status, direct.code()), (502, "upstream_unreachable"), "{direct:?}");
    assert_eq!(targets(&gateway), ["through.invalid:80"]);
}

#[test]
fn the_password_of_a_proxy_is_sent_to_it_and_shown_to_nobody() {
    let gateway = Peer::answering(|_| answer(407, "who are you"));
    let url = gateway.url().replace("http://", "http://user:pass-word@");
    let proxy = TestProxy::builder()
        .settings(&format!("proxy: \"{url}\""))
        .provider("P", "generic", "http://p.invalid", "auth_type: none")
        .start();
    let refused = proxy.ask(get("/x"));
    assert_eq!((refused.status, refused.code()), (502, "upstream_unreachable"));
    assert!(refused.body.contains(": it answered 407"), "{refused:?}");
    let status = proxy.ask(get("/-/status"));
    assert!(!refused.body.contains("pass-word") && !status.body.contains("pass-word"));
    let seen = gateway.seen();
    assert_eq!(seen[0].field("proxy-authorization"), Some("Basic dXNlcjpwYXNzLXdvcmQ="));
}
