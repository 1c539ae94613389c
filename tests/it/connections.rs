//! Connections to providers that end, stall, half-close, or bring bytes that nobody asked for.

use std::io::Write;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;

use crossbeam_channel::{bounded, never};

use crate::support::client::{Client, get, post};
use crate::support::peer::{Peer, answer};
use crate::support::proxy::TestProxy;
use crate::support::{PATIENCE, eventually};

/// A provider that answers the first request of each connection at once, and of the second closes the connection
/// after a time in which it may have worked on it.
fn closing_after(time: Duration) -> Peer {
    Peer::start(move |mut talk| {
        if talk.request().is_some() {
            talk.answer(200, "fine");
        }
        if talk.request().is_some() {
            let _ = never::<()>().recv_timeout(time);
        }
    })
}

#[test]
fn a_post_that_may_have_been_worked_on_is_not_sent_twice() {
    let provider = closing_after(Duration::from_millis(600));
    let proxy = TestProxy::before(&provider.url());
    let mut client = Client::connect(proxy.address);
    client.send(post("/", "first"));
    assert_eq!(client.answer().body, "fine");
    client.send(post("/", "second"));
    assert_eq!(client.answer().code(), "upstream_broken");
    assert_eq!(provider.seen().len(), 2);
}

#[test]
fn an_idempotent_request_is_sent_again_however_late_its_connection_was_closed() {
    let provider = closing_after(Duration::from_millis(600));
    let proxy = TestProxy::before(&provider.url());
    let mut client = Client::connect(proxy.address);
    for _ in 0..2 {
        client.send(get("/"));
        assert_eq!(client.answer().body, "fine");
    }
    assert_eq!(provider.seen().len(), 3);
}

#[test]
fn bytes_that_nobody_asked_for_are_not_the_next_clients_answer() {
    let (stray, strays) = bounded::<()>(0);
    let (sent, was_sent) = bounded(0);
    let provider = Peer::start(move |mut talk| {
        while talk.request().is_some() {
            talk.answer(200, "fine");
            if strays.recv_timeout(PATIENCE).is_ok() {
                talk.send(answer(200, "evil"));
                let _ = sent.send(());
            }
        }
    });
    let proxy = TestProxy::before(&provider.url());
    let mut client = Client::connect(proxy.address);
    client.send(get("/"));
    assert_eq!(client.answer().body, "fine");
    stray.send(()).unwrap();
    was_sent.recv_timeout(PATIENCE).unwrap();
    client.send(get("/"));
    assert_eq!(client.answer().body, "fine");
    drop(stray);
}

/// Accepts one connection after the other, reads no more than the first bytes, and hands the connection to `act`.
fn reading_no_further(act: impl Fn(TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let run = move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let _ = std::io::Read::read(&mut &stream, &mut [0; 1024]);
            act(stream);
        }
    };
    evertoken::testing::spawn("deaf", 128 * 1024, run).unwrap().detach();
    url
}

#[test]
fn a_provider_that_half_closes_while_a_body_is_sent_ends_the_request() {
    let (held, holds) = bounded(9);
    let url = reading_no_further(move |stream| {
        stream.shutdown(Shutdown::Write).unwrap();
        held.send(stream).unwrap();
    });
    for replay in [1_000, 16_000_000] {
        let proxy = TestProxy::builder()
            .settings(&format!("replay_body_bytes: {replay}"))
            .provider("P", "anthropic", &url, "auth_type: none")
            .start();
        let mut client = Client::connect(proxy.address);
        client.send(post("/", &"x".repeat(16_000_000)));
        assert_eq!(client.answer().code(), "upstream_broken", "{replay}");
    }
    drop(holds);
}

#[test]
fn a_provider_that_takes_nothing_of_the_request_is_told_from_one_that_does_not_answer() {
    let (held, holds) = bounded(9);
    let url = reading_no_further(move |stream| held.send(stream).unwrap());
    for replay in [1_000, 16_000_000] {
        let proxy = TestProxy::builder()
            .settings(&format!("replay_body_bytes: {replay}, timeouts: {{idle: 1}}"))
            .provider("P", "anthropic", &url, "auth_type: none")
            .start();
        let mut client = Client::connect(proxy.address);
        client.send(post("/", &"x".repeat(16_000_000)));
        let refused = client.answer();
        assert_eq!((refused.status, refused.code()), (504, "upstream_timeout"), "{replay}");
        let words = "it took nothing of the request for longer than timeouts.idle";
        assert!(refused.body.contains(words), "{}", refused.body);
    }
    drop(holds);
}

#[test]
fn an_early_answer_of_a_provider_that_reads_on_does_not_wait_for_the_end_of_a_slow_body() {
    let (sent, was_sent) = bounded(9);
    let provider = Peer::start(move |mut talk| {
        if talk.head().is_some() {
            talk.send(answer(413, "too large"));
            sent.send(()).unwrap();
            talk.wait_for_close();
        }
    });
    let proxy = TestProxy::builder()
        .settings("replay_body_bytes: 1000")
        .provider("P", "anthropic", &provider.url(), "auth_type: none")
        .start();
    for framing in
        ["Content-Length: 4000000\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n3d0900\r\n"]
    {
        let mut client = Client::connect(proxy.address);
        client.send(format!("POST / HTTP/1.1\r\nHost: localhost\r\n{framing}"));
        client.send("x".repeat(100_000));
        was_sent.recv_timeout(PATIENCE).unwrap();
        // The next piece of a client that is slow. The rest never comes.
        client.send("x".repeat(100_000));
        let answered = client.answer();
        let seen = (answered.status, answered.body.as_str(), answered.field("connection"));
        assert_eq!(seen, (413, "too large", Some("close")), "{framing}");
    }
}

#[test]
fn an_interim_answer_that_nobody_asked_for_does_not_hide_an_early_413() {
    let interims = [
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 103 X\r\nlink: a\r\n\r\nHTTP/1.1 100 C\r\nx: y\r\n\r\n",
    ];
    for interim in interims {
        let (held, holds) = bounded(9);
        let url = reading_no_further(move |mut stream| {
            stream.write_all(interim.as_bytes()).unwrap();
            stream.write_all(answer(413, "too large").as_bytes()).unwrap();
            held.send(stream).unwrap();
        });
        for replay in [1_000, 16_000_000] {
            let proxy = TestProxy::builder()
                .settings(&format!("replay_body_bytes: {replay}, timeouts: {{idle: 3}}"))
                .provider("P", "anthropic", &url, "auth_type: none")
                .start();
            let mut client = Client::connect(proxy.address);
            client.send(post("/", &"x".repeat(16_000_000)));
            let answered = client.answer();
            let seen = (answered.status, answered.body.as_str());
            assert_eq!(seen, (413, "too large"), "{interim:?} {replay}");
        }
        drop(holds);
    }
}

#[test]
fn interim_answers_without_an_end_while_a_body_is_sent_are_refused_at_64_kib() {
    let interim = "HTTP/1.1 103 X\r\n\r\n";
    let most = 65_536 / interim.len();
    for (count, status) in [(most, 413), (most + 1, 502)] {
        let (held, holds) = bounded(9);
        let url = reading_no_further(move |mut stream| {
            let _ = stream.write_all((interim.repeat(count) + &answer(413, "large")).as_bytes());
            held.send(stream).unwrap();
        });
        for replay in [1_000, 16_000_000] {
            let proxy = TestProxy::builder()
                .settings(&format!("replay_body_bytes: {replay}, timeouts: {{idle: 3}}"))
                .provider("P", "anthropic", &url, "auth_type: none")
                .start();
            let mut client = Client::connect(proxy.address);
            client.send(post("/", &"x".repeat(16_000_000)));
            assert_eq!(client.answer().status, status, "{count} {replay}");
        }
        drop(holds);
    }
}

#[test]
fn a_coding_that_is_named_twice_is_taken_as_one() {
    for fields in [
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked, Chunked",
    ] {
        let text = format!("HTTP/1.1 200 X\r\n{fields}\r\n\r\n4\r\nfine\r\n0\r\n\r\n");
        let provider = Peer::answering(move |_| text.clone());
        let answered = TestProxy::before(&provider.url()).ask(get("/"));
        assert_eq!((answered.status, answered.body.as_str()), (200, "fine"), "{fields}");
    }
}

#[test]
fn a_head_within_nginxs_and_nodes_limits_is_taken_and_beyond_ours_the_502_names_the_limit() {
    let with_fields = |count: usize| {
        let fields: String = (1..count).map(|index| format!("x-{index}: y\r\n")).collect();
        format!("HTTP/1.1 200 X\r\ncontent-length: 0\r\n{fields}\r\n")
    };
    let with_bytes = |bytes: usize| {
        format!("HTTP/1.1 200 X\r\ncontent-length: 0\r\nx: {}\r\n\r\n", "y".repeat(bytes))
    };
    let cases = [
        (with_fields(256), None),
        (with_fields(257), Some("256 fields")),
        (with_bytes(65_000), None),
        (with_bytes(65_536), Some("65536 bytes")),
    ];
    for (text, limit) in cases {
        let provider = Peer::answering(move |_| text.clone());
        let answered = TestProxy::before(&provider.url()).ask(get("/"));
        match limit {
            None => assert_eq!(answered.status, 200, "{}", answered.body),
            Some(limit) => {
                assert_eq!(answered.code(), "upstream_broken");
                assert!(answered.body.contains(limit), "{}", answered.body);
            }
        }
    }
}

#[test]
fn late_bytes_of_a_client_do_not_cost_it_the_end_of_the_answer() {
    let body = "x".repeat(1_500_000);
    let text = answer(200, &body);
    let provider = Peer::answering(move |_| text.clone());
    let proxy = TestProxy::before(&provider.url());
    for _ in 0..5 {
        let mut client = Client::connect(proxy.address);
        client.send("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        client.head();
        client.send("\r\n");
        let mut rest = Vec::new();
        client.rest(&mut rest);
        assert_eq!(rest.len(), body.len());
    }
}

/// Until its end is sent, an answer to HTTP/1.0 is to be cut by a reset. A whole one is not.
#[test]
fn a_client_of_http_1_0_that_reads_late_has_the_whole_answer() {
    // More than the client's socket takes, and less than both sockets.
    let body = "x".repeat(300_000);
    let text = format!("HTTP/1.1 200 X\r\n\r\n{body}");
    let provider = Peer::start(move |mut talk| {
        if talk.request().is_some() {
            talk.send(&text);
        }
    });
    let proxy = TestProxy::before(&provider.url());
    let mut client = Client::connect(proxy.address);
    client.send("GET / HTTP/1.0\r\n\r\n");
    eventually("evertoken has closed the connection", || {
        let page = proxy.ask(get("/-/metrics")).body;
        !provider.seen().is_empty() && page.contains("evertoken_connections 1\n")
    });
    let answered = client.answer();
    assert_eq!((answered.body.len(), answered.whole), (body.len(), true));
}
