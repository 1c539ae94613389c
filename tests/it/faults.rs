//! Peers that break, stall, answer early or send garbage: the client sees what happened, in time.

use std::net::TcpListener;

use crossbeam_channel::bounded;

use crate::support::PATIENCE;
use crate::support::client::{Client, get, post};
use crate::support::peer::{Peer, answer};
use crate::support::proxy::TestProxy;

/// A port on which nobody listens.
fn closed_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

#[test]
fn no_connection_is_502_and_says_so() {
    let proxy = TestProxy::before(&closed_port());
    let refused = proxy.ask(post("/v1/messages", "{}"));
    assert_eq!((refused.status, refused.code()), (502, "upstream_unreachable"));
    assert_eq!(refused.json()["error"]["type"], "api_error");
    let proxy = TestProxy::before("http://no-such-host.invalid");
    assert_eq!(proxy.ask(get("/")).code(), "upstream_unreachable");
}

#[test]
fn tls_to_a_server_that_speaks_none_is_502() {
    let peer = Peer::start(|mut talk| {
        talk.send("HTTP/1.1 400 X\r\ncontent-length: 0\r\n\r\n");
        talk.wait_for_close();
    });
    let proxy = TestProxy::before(&peer.url().replace("http:", "https:"));
    assert_eq!(proxy.ask(get("/")).code(), "upstream_unreachable");
}

#[test]
fn what_is_not_http_is_502() {
    for garbage in
        ["hello\r\n\r\n", "HTTP/9.9 200 X\r\n\r\n", "\0\0\0\0", "HTTP/1.1 abc\r\n\r\n", ""]
    {
        let peer = Peer::start(move |mut talk| {
            talk.request();
            talk.send(garbage);
        });
        let proxy = TestProxy::before(&peer.url());
        let refused = proxy.ask(get("/"));
        assert_eq!((refused.status, refused.code()), (502, "upstream_broken"), "{garbage:?}");
    }
}

#[test]
fn a_head_over_the_limit_is_502() {
    let head = |bytes: usize| {
        let frame = "HTTP/1.1 200 X\r\ncontent-length: 0\r\nx: \r\n\r\n".len();
        format!("HTTP/1.1 200 X\r\ncontent-length: 0\r\nx: {}\r\n\r\n", "y".repeat(bytes - frame))
    };
    let limit = evertoken::testing::HEAD_MAX_BYTES;
    for (bytes, status) in [(limit - 1, 200), (limit + 1, 502)] {
        let text = head(bytes);
        let peer = Peer::answering(move |_| text.clone());
        assert_eq!(TestProxy::before(&peer.url()).ask(get("/")).status, status, "{bytes}");
    }
}

#[test]
fn no_answer_in_time_is_504() {
    let peer = Peer::start(|mut talk| {
        talk.request();
        talk.wait_for_close();
    });
    // Those of the provider go before those of all.
    for (of_all, own) in [("response: 1", ""), ("response: 600", "\ntimeouts: {response: 1}")] {
        let proxy = TestProxy::builder()
            .settings(&format!("timeouts: {{{of_all}}}"))
            .provider("P", "anthropic", &peer.url(), &format!("auth_type: none{own}"))
            .start();
        let refused = proxy.ask(get("/"));
        assert_eq!((refused.status, refused.code()), (504, "upstream_timeout"));
        let told = "no response came within timeouts.response";
        assert!(refused.body.contains(told), "{}", refused.body);
    }
}

#[test]
fn a_stream_that_falls_silent_is_cut() {
    let peer = Peer::start(|mut talk| {
        talk.request();
        talk.send("HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n");
        talk.wait_for_close();
    });
    let proxy = TestProxy::builder()
        .settings("timeouts: {idle: 1}")
        .provider("P", "anthropic", &peer.url(), "auth_type: none")
        .start();
    let cut = proxy.ask(get("/"));
    assert!(!cut.whole);
    assert_eq!(cut.body, "a");
}

#[test]
fn an_upstream_that_breaks_off_is_seen_as_a_cut() {
    let bodies: [&'static str; 4] = [
        "content-length: 5\r\n\r\nab",
        "transfer-encoding: chunked\r\n\r\n2\r\nab\r\n",
        "transfer-encoding: chunked\r\n\r\n5\r\nab",
        "transfer-encoding: chunked\r\n\r\n2\r\nab\r\nzz\r\n",
    ];
    for body in bodies {
        let peer = Peer::start(move |mut talk| {
            talk.request();
            talk.send(format!("HTTP/1.1 200 X\r\n{body}"));
        });
        let proxy = TestProxy::before(&peer.url());
        let mut client = Client::connect(proxy.address);
        client.send(get("/"));
        let cut = client.answer();
        assert_eq!((cut.status, cut.whole), (200, false), "{body:?}");
        assert!("ab".starts_with(&cut.body), "{body:?}: {}", cut.body);
        assert!(client.is_closed());
        // For a client of HTTP/1.0 the end of the connection is the end of the body: it must not come.
        let old = proxy.ask("GET / HTTP/1.0\r\n\r\n");
        assert!(!old.whole, "{body:?}");
    }
}

#[test]
fn a_reset_in_a_body_that_ends_by_closing_is_a_cut_too() {
    let peer = Peer::start(|mut talk| {
        talk.request();
        talk.send("HTTP/1.1 200 X\r\n\r\nab");
        // The reset must not overtake the bytes: it is sent once the client has them.
        let _ = talk.request();
        talk.reset();
    });
    let proxy = TestProxy::before(&peer.url());
    let mut client = Client::connect(proxy.address);
    client.send(get("/"));
    client.head();
    assert_eq!(client.chunk().as_deref(), Some("ab"));
    drop(client);
}

#[test]
fn an_early_answer_that_ends_by_closing_looked_whole_where_the_reset_was_told_to_a_write() {
    for (rest, whole) in [
        ("\r\nab", false),
        ("transfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", true),
        ("content-length: 2\r\n\r\nab", true),
    ] {
        let (reset, was_reset) = bounded(1);
        let peer = Peer::start(move |mut talk| {
            if talk.head().is_some() {
                talk.bytes(1000);
                talk.send(format!("HTTP/1.1 413 X\r\n{rest}"));
                talk.reset();
                let _ = reset.send(());
            }
        });
        let proxy = TestProxy::builder()
            .settings("replay_body_bytes: 1000")
            .provider("P", "anthropic", &peer.url(), "auth_type: none")
            .start();
        let mut client = Client::connect(proxy.address);
        client.send("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4000000\r\n\r\n");
        client.send("x".repeat(100_000));
        was_reset.recv_timeout(PATIENCE).unwrap();
        // This piece meets the reset.
        client.send("x".repeat(100_000));
        let answered = client.answer();
        let seen = (answered.status, answered.body.as_str(), answered.whole);
        assert_eq!(seen, (413, "ab", whole), "{rest:?}");
    }
}

#[test]
fn a_kept_connection_that_was_just_closed_costs_nothing() {
    // The peer closes after its answer without saying so, at the moment the next request is sent.
    let peer = Peer::start(|mut talk| {
        if talk.request().is_some() {
            talk.answer(200, "fine");
        }
        let _ = talk.head();
    });
    let proxy = TestProxy::before(&peer.url());
    let mut client = Client::connect(proxy.address);
    for index in 0..5 {
        client.send(post("/", &index.to_string()));
        assert_eq!(client.answer().body, "fine", "request {index}");
    }
}

#[test]
fn a_request_that_fails_on_a_new_connection_is_not_repeated() {
    let peer = Peer::start(|mut talk| {
        talk.request();
    });
    let proxy = TestProxy::before(&peer.url());
    assert_eq!(proxy.ask(post("/", "once")).code(), "upstream_broken");
    assert_eq!(peer.seen().len(), 1);
}

#[test]
fn an_answer_that_comes_before_the_body_was_sent_is_not_lost() {
    let peer = Peer::start(|mut talk| {
        let _ = talk.head();
        talk.send(answer(413, "too large"));
    });
    for replay in [1_000, 16_000_000] {
        let proxy = TestProxy::builder()
            .settings(&format!("replay_body_bytes: {replay}"))
            .provider("P", "anthropic", &peer.url(), "auth_type: none")
            .start();
        let mut client = Client::connect(proxy.address);
        client.send(post("/", &"x".repeat(8_000_000)));
        let answered = client.answer();
        assert_eq!((answered.status, answered.body.as_str()), (413, "too large"), "{replay}");
    }
}

#[test]
fn interim_responses_are_swallowed() {
    let peer = Peer::start(|mut talk| {
        talk.request();
        talk.send("HTTP/1.1 103 X\r\nlink: a\r\n\r\n");
        talk.answer(200, "final");
    });
    assert_eq!(TestProxy::before(&peer.url()).ask(get("/")).body, "final");
}

#[test]
fn interim_responses_without_an_end_are_refused_at_64_kib() {
    let interim = |bytes: usize| {
        let frame = "HTTP/1.1 103 X\r\nlink: \r\n\r\n".len();
        format!("HTTP/1.1 103 X\r\nlink: {}\r\n\r\n", "a".repeat(bytes - frame))
    };
    for (last_bytes, status) in [(1024, 200), (1025, 502)] {
        let heads = interim(1024).repeat(63) + &interim(last_bytes) + &answer(200, "final");
        let peer = Peer::start(move |mut talk| {
            talk.request();
            talk.send(&heads);
        });
        let answered = TestProxy::before(&peer.url()).ask(get("/"));
        assert_eq!(answered.status, status, "{}", answered.body);
        if status == 502 {
            assert!(answered.body.contains("interim"), "{}", answered.body);
            assert!(answered.body.contains("65536"), "{}", answered.body);
        }
    }
}

#[test]
fn a_client_that_sends_half_a_body_and_leaves_reaches_nobody() {
    let peer = Peer::answering(|_| answer(200, "fine"));
    let proxy = TestProxy::before(&peer.url());
    let mut client = Client::connect(proxy.address);
    client.send("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhalf");
    client.half_close();
    assert!(client.is_closed());
    assert_eq!(proxy.ask(get("/after")).status, 200);
    assert_eq!(peer.seen().len(), 1);
}
