//! Each event arrives before the next is sent; whoever leaves ends the other side.

use crossbeam_channel::bounded;

use crate::support::client::{Client, get, post};
use crate::support::peer::Peer;
use crate::support::proxy::TestProxy;
use crate::support::{PATIENCE, eventually};

const HEAD: &str =
    "HTTP/1.1 200 X\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

/// A peer that sends the next event only once it is told to.
fn stepping() -> (Peer, crossbeam_channel::Sender<()>) {
    let (step, steps) = bounded(0);
    let peer = Peer::start(move |mut talk| {
        while talk.request().is_some() {
            talk.send(HEAD);
            for index in 0..3 {
                if steps.recv_timeout(PATIENCE).is_err() {
                    return;
                }
                talk.send(format!("8\r\nevent {index}\n\r\n"));
            }
            talk.send("0\r\n\r\n");
        }
    });
    (peer, step)
}

fn steps_through(settings: &str) {
    let (peer, step) = stepping();
    let proxy = TestProxy::builder()
        .settings(settings)
        .provider("P", "anthropic", &peer.url(), "auth_type: none")
        .start();
    let mut client = Client::connect(proxy.address);
    client.send(post("/v1/messages", "{}"));
    // The head arrives before the first event is sent.
    assert_eq!(client.head().status, 200);
    for index in 0..3 {
        step.send_timeout((), PATIENCE).unwrap();
        assert_eq!(client.chunk(), Some(format!("event {index}\n")));
    }
    assert_eq!(client.chunk(), None);
}

#[test]
fn each_event_arrives_before_the_next_is_sent() {
    steps_through("server: builtin");
}

#[test]
fn the_tiny_http_server_streams_too() {
    steps_through("server: tiny_http");
}

#[test]
fn a_client_that_leaves_ends_a_stream_upstream() {
    let (gone, upstream_ended) = bounded(1);
    let peer = Peer::start(move |mut talk| {
        talk.request();
        talk.send(HEAD);
        talk.send("1\r\na\r\n");
        talk.wait_for_close();
        let _ = gone.send(());
    });
    let proxy = TestProxy::before(&peer.url());
    let mut client = Client::connect(proxy.address);
    client.send(get("/"));
    client.head();
    assert_eq!(client.chunk().as_deref(), Some("a"));
    drop(client);
    upstream_ended.recv_timeout(PATIENCE).expect("the upstream exchange ends");
}

#[test]
fn a_client_that_leaves_before_the_answer_ends_the_exchange() {
    let (gone, upstream_ended) = bounded(1);
    let peer = Peer::start(move |mut talk| {
        talk.request();
        talk.wait_for_close();
        let _ = gone.send(());
    });
    let proxy = TestProxy::before(&peer.url());
    let mut client = Client::connect(proxy.address);
    client.send(get("/"));
    eventually("the request is upstream", || peer.seen().len() == 1);
    drop(client);
    upstream_ended.recv_timeout(PATIENCE).expect("the upstream exchange ends");
    eventually("it is over", || {
        proxy.ask(get("/-/status")).json()["providers"][0]["requests"]["in_flight"] == 0
    });
}

#[test]
fn a_client_that_does_not_read_holds_up_nobody_else() {
    let peer = Peer::start(|mut talk| {
        while let Some(seen) = talk.request() {
            if !seen.line.contains("/big") {
                talk.answer(200, "small");
                continue;
            }
            talk.send(HEAD);
            let piece = format!("2000\r\n{}\r\n", "x".repeat(0x2000));
            while talk.send(&piece) {}
            return;
        }
    });
    let proxy = TestProxy::before(&peer.url());
    let mut stuck = Client::connect(proxy.address);
    stuck.send(get("/big"));
    stuck.head();
    for _ in 0..20 {
        assert_eq!(proxy.ask(get("/small")).body, "small");
    }
}

#[test]
fn bodies_that_end_by_closing_are_whole() {
    let peer = Peer::start(|mut talk| {
        talk.request();
        talk.send("HTTP/1.1 200 X\r\n\r\nuntil the end");
    });
    let proxy = TestProxy::before(&peer.url());
    let mut client = Client::connect(proxy.address);
    for _ in 0..2 {
        client.send(get("/"));
        let answered = client.answer();
        assert!(answered.whole);
        assert_eq!(answered.body, "until the end");
    }
    let old = proxy.ask("GET / HTTP/1.0\r\n\r\n");
    assert!(old.whole && old.body == "until the end");
}

#[test]
fn a_silent_get_event_stream_outlives_the_idle_timeout_and_other_streams_do_not() {
    // The way MCP's servers talk to their clients: GET, and an event when there is something to say.
    let (release, released) = crossbeam_channel::bounded::<()>(0);
    let peer = Peer::start(move |mut talk| {
        let seen = talk.request().unwrap();
        let kind = if seen.line.contains("/json") {
            "application/json"
        } else {
            "text/event-stream; charset=utf-8"
        };
        talk.send(format!(
            "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n"
        ));
        if seen.line.starts_with("GET /mcp") {
            let _ = released.recv();
            talk.send("8\r\ndata: x\n\r\n0\r\n\r\n");
        }
        talk.wait_for_close();
    });
    let proxy = TestProxy::builder()
        .settings("timeouts: {idle: 1}")
        .provider("P", "generic", &peer.url(), "auth_type: none")
        .start();
    let mut silent = Client::connect(proxy.address);
    silent.send("GET /mcp HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n");
    assert_eq!(silent.head().status, 200);
    // These begin later, and are silent for as long.
    for request in [crate::support::client::post("/mcp", "{}"), get("/json")] {
        let cut = proxy.ask(&request);
        assert!(cut.status == 200 && !cut.whole, "{request}: {cut:?}");
    }
    assert!(!silent.has_word());
    release.send(()).unwrap();
    assert_eq!(silent.chunk().as_deref(), Some("data: x\n"));
    assert_eq!(silent.chunk(), None);
}
