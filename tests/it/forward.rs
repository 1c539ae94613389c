//! The fields and bodies that cross in both directions, and every limit on both sides.

use crate::support::client::{Client, get, post};
use crate::support::peer::{Peer, answer};
use crate::support::proxy::TestProxy;

fn echo() -> Peer {
    Peer::answering(|seen| {
        answer(200, &format!("{}|{}", seen.line, String::from_utf8_lossy(&seen.body)))
    })
}

#[test]
fn a_request_crosses_unchanged_but_for_what_must_change() {
    let peer = echo();
    let proxy = TestProxy::before(&format!("{}/base/", peer.url()));
    let request = "PATCH /v1/x%20y?a=b&c HTTP/1.1\r\nHost: localhost\r\nX-One: 1\r\nX-One: 2\r\n\
                   Authorization: Bearer client\r\nX-Api-Key: client\r\nConnection: x-hop\r\nX-Hop: 1\r\n\
                   Accept-Encoding: br\r\nContent-Length: 3\r\n\r\nabc";
    let answered = proxy.ask(request);
    assert_eq!(answered.body, "PATCH /base/v1/x%20y?a=b&c HTTP/1.1|abc");
    let seen = &peer.seen()[0];
    let names: Vec<_> = seen.fields.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        ["host", "x-one", "x-one", "accept-encoding", "authorization", "content-length"]
    );
    assert_eq!(seen.field("authorization"), Some("Bearer fixed"));
    assert_eq!(seen.field("host"), Some(peer.address.to_string().as_str()));
}

#[test]
fn methods_and_bodies() {
    let peer = echo();
    let proxy = TestProxy::before(&peer.url());
    for method in ["GET", "POST", "PUT", "DELETE", "OPTIONS", "PROPFIND", "x-own"] {
        let none = proxy.ask(format!("{method} /a HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        assert_eq!(none.body, format!("{method} /a HTTP/1.1|"));
        let with = proxy
            .ask(format!("{method} /a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nhi"));
        assert_eq!(with.body, format!("{method} /a HTTP/1.1|hi"), "{method}");
    }
    assert_eq!(proxy.ask(post("/a", "")).body, "POST /a HTTP/1.1|");
    let seen = peer.seen();
    assert_eq!(seen.last().and_then(|seen| seen.field("content-length")), Some("0"));
    let framed = seen.iter().filter(|seen| seen.field("transfer-encoding").is_some()).count();
    assert_eq!(framed, 0, "what came without a body goes on without chunks");
}

#[test]
fn methods_whose_answers_would_show_the_credential_or_end_http_are_refused() {
    let peer = echo();
    let proxy = TestProxy::before(&peer.url());
    for method in ["TRACE", "CONNECT"] {
        for target in ["/v1/x", "/to/p/x", "http://localhost/x"] {
            let refused =
                proxy.ask(format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
            assert_eq!((refused.status, refused.code()), (400, "bad_request"), "{method} {target}");
            assert!(refused.body.contains(method), "{}", refused.body);
        }
    }
    assert_eq!(peer.seen().len(), 0);
}

#[test]
fn an_answer_says_that_the_connection_closes_where_the_body_is_not_read() {
    let (done, waits) = crossbeam_channel::bounded::<()>(0);
    let early = Peer::start(move |mut talk| {
        if talk.head().is_some() {
            talk.send(answer(413, "early"));
            let _ = waits.recv();
        }
    });
    let proxy = TestProxy::builder()
        .settings("replay_body_bytes: 1000")
        .provider("P", "generic", &early.url(), "auth_type: none")
        .start();
    let most = 64 * 1024;
    let sized = |bytes: usize| format!("Content-Length: {bytes}\r\n\r\n{}", "x".repeat(bytes));
    let expecting = "Expect: 100-continue\r\nContent-Length: 5\r\n\r\n".to_owned();
    let chunked = "Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n".to_owned();
    let endless = |bytes: usize| {
        format!("Transfer-Encoding: chunked\r\n\r\n{bytes:x}\r\n{}", "x".repeat(bytes))
    };
    let cases = [
        ("/to/nobody/x", sized(0), 404, false),
        ("/to/nobody/x", sized(most), 404, false),
        ("/to/nobody/x", sized(most + 1), 404, true),
        ("/to/nobody/x", expecting, 404, true),
        ("/to/nobody/x", chunked, 404, true),
        ("/to/p/x", sized(16_000_000), 413, true),
        ("/to/p/x", endless(16_000_000), 413, true),
    ];
    for (path, body, status, closes) in cases {
        let mut client = Client::connect(proxy.address);
        client.send(format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n{body}"));
        let answered = client.answer();
        assert_eq!(answered.status, status);
        let start = &body[..body.len().min(60)];
        assert_eq!(answered.field("connection"), closes.then_some("close"), "{path} {start}");
        if closes {
            assert!(client.is_closed(), "{path} {start}");
        } else {
            client.send(get("/-/healthy"));
            assert_eq!(client.answer().status, 200);
        }
    }
    drop(done);
}

#[test]
fn a_chunked_body_crosses_whole() {
    let peer = echo();
    let proxy = TestProxy::before(&peer.url());
    let request = "POST /a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n\
                   3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nTrailer: t\r\n\r\n";
    assert_eq!(proxy.ask(request).body, "POST /a HTTP/1.1|abcde");
}

#[test]
fn a_body_over_the_held_size_is_streamed() {
    let peer = echo();
    let proxy = TestProxy::builder()
        .settings("replay_body_bytes: 10")
        .provider("P", "generic", &peer.url(), "auth_type: none")
        .start();
    for length in [10, 11, 300_000] {
        let body = "x".repeat(length);
        assert_eq!(proxy.ask(post("/a", &body)).body.len(), "POST /a HTTP/1.1|".len() + length);
        let chunked = format!(
            "POST /a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n"
        );
        assert_eq!(proxy.ask(chunked).body.len(), "POST /a HTTP/1.1|".len() + length);
    }
    let framed: Vec<bool> =
        peer.seen().iter().map(|seen| seen.field("content-length").is_some()).collect();
    assert_eq!(framed, [true, true, true, false, true, false]);
}

#[test]
fn responses_cross_unchanged_redirects_and_errors_too() {
    let peer = Peer::answering(|seen| {
        let status = seen.line.split(['/', ' ']).nth(2).unwrap();
        let body = if matches!(status, "204" | "304") { "" } else { "content-length: 2\r\n\r\nhi" };
        let end = if body.is_empty() { "\r\n" } else { "" };
        format!(
            "HTTP/1.1 {status} X\r\nlocation: /elsewhere\r\nset-cookie: a\r\nset-cookie: b\r\n\
                 content-encoding: gzip\r\nkeep-alive: 5\r\n{body}{end}"
        )
    });
    let proxy = TestProxy::before(&peer.url());
    for status in [200, 201, 204, 301, 302, 304, 307, 400, 401, 404, 418, 429, 500, 529, 599] {
        let answered = proxy.ask(get(&format!("/{status}")));
        assert_eq!(answered.status, status);
        assert_eq!(answered.field("location"), Some("/elsewhere"));
        assert_eq!(answered.field("content-encoding"), Some("gzip"));
        assert_eq!(answered.field("keep-alive"), None);
        assert_eq!(answered.fields.iter().filter(|(name, _)| name == "set-cookie").count(), 2);
        assert_eq!(answered.body, if matches!(status, 204 | 304) { "" } else { "hi" });
    }
    assert_eq!(peer.seen().len(), 15, "nothing was followed or repeated");
}

#[test]
fn head_answers_have_no_body_and_keep_their_length() {
    let peer = Peer::answering(|_| "HTTP/1.1 200 X\r\ncontent-length: 5\r\n\r\n".to_owned());
    let proxy = TestProxy::before(&peer.url());
    let mut client = Client::connect(proxy.address);
    for _ in 0..2 {
        client.send("HEAD /a HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let head = client.head();
        assert_eq!((head.status, head.field("content-length")), (200, Some("5")));
    }
}

#[test]
fn keep_alive_and_pipelining_in_order() {
    let peer = echo();
    let proxy = TestProxy::before(&peer.url());
    let mut client = Client::connect(proxy.address);
    client.send(format!("{}{}{}", post("/1", "one"), get("/2"), post("/3", "three")));
    for expected in ["POST /1 HTTP/1.1|one", "GET /2 HTTP/1.1|", "POST /3 HTTP/1.1|three"] {
        assert_eq!(client.answer().body, expected);
    }
    client.send("GET /4 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert_eq!(client.answer().field("connection"), Some("close"));
    assert!(client.is_closed());
    let connections: Vec<_> = peer.seen().iter().map(|seen| seen.connection).collect();
    assert_eq!(connections, [0, 0, 0, 0], "the upstream connection is kept too");
}

#[test]
fn http_1_0_clients() {
    let peer = Peer::answering(|_| {
        "HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n".to_owned()
    });
    let proxy = TestProxy::before(&peer.url());
    let answered = proxy.ask("GET /a HTTP/1.0\r\n\r\n");
    assert_eq!(answered.body, "hi");
    assert_eq!(answered.field("transfer-encoding"), None);
    let sized = echo();
    let proxy = TestProxy::before(&sized.url());
    let mut client = Client::connect(proxy.address);
    for _ in 0..2 {
        client.send("GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        assert_eq!(client.answer().field("connection"), Some("keep-alive"));
    }
}

#[test]
fn expect_100_continue_is_answered_when_the_body_is_wanted() {
    let peer = echo();
    let proxy = TestProxy::before(&peer.url());
    let mut client = Client::connect(proxy.address);
    let head =
        "POST /a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n";
    client.send(head);
    assert_eq!(client.line().as_deref(), Some("HTTP/1.1 100 Continue"));
    assert_eq!(client.line().as_deref(), Some(""));
    client.send("hi");
    assert_eq!(client.answer().body, "POST /a HTTP/1.1|hi");
    assert_eq!(peer.seen()[0].field("expect"), None);
    // A request that is refused is not asked for its body.
    client.send(head.replace("/a", "/to/none/a"));
    assert_eq!(client.answer().status, 404);
}

#[test]
fn a_long_header_line_crosses() {
    let peer = echo();
    let proxy = TestProxy::before(&peer.url());
    for length in [8_000, 9_000, 60_000] {
        let value = "y".repeat(length);
        let request = format!("GET /a HTTP/1.1\r\nHost: localhost\r\nX-Long: {value}\r\n\r\n");
        assert_eq!(proxy.ask(request).status, 200);
        assert_eq!(peer.seen().last().unwrap().field("x-long").unwrap().len(), length);
    }
}

#[test]
fn bodies_on_both_sides_of_the_limit() {
    let peer = echo();
    let proxy = TestProxy::builder()
        .settings("max_body_bytes: 5, replay_body_bytes: 3")
        .provider("P", "anthropic", &peer.url(), "auth_type: none")
        .start();
    assert_eq!(proxy.ask(post("/a", "12345")).status, 200);
    let refused = proxy.ask(post("/v1/messages", "123456"));
    assert_eq!((refused.status, refused.code()), (413, "body_too_large"));
    assert_eq!(refused.json()["error"]["type"], "request_too_large");
    let chunked = |sizes: &str| {
        format!("POST /a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n{sizes}")
    };
    assert_eq!(proxy.ask(chunked("3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")).status, 200);
    let refused = proxy.ask(chunked("3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n"));
    assert_eq!((refused.status, refused.code()), (413, "body_too_large"));
}

#[test]
fn the_tiny_http_server_forwards_too() {
    let peer = echo();
    let proxy = TestProxy::builder()
        .settings("server: tiny_http, max_body_bytes: 100")
        .provider("P", "anthropic", &peer.url(), "auth_value: fixed")
        .start();
    let mut client = Client::connect(proxy.address);
    for _ in 0..2 {
        client.send(post("/v1/x?y=z", "body"));
        assert_eq!(client.answer().body, "POST /v1/x?y=z HTTP/1.1|body");
    }
    assert_eq!(peer.seen()[0].field("authorization"), Some("Bearer fixed"));
    let chunked = "POST /c HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n";
    assert_eq!(proxy.ask(chunked).body, "POST /c HTTP/1.1|hi");
    assert_eq!(proxy.ask(post("/a", &"x".repeat(101))).code(), "body_too_large");
    let conflicting = "POST /c HTTP/1.1\r\nHost: a\r\nHost: b\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(proxy.ask(conflicting).code(), "bad_request");
    assert_eq!(proxy.ask(get("/-/healthy")).status, 200);
}

#[test]
fn the_tiny_http_server_took_any_number_of_fields() {
    let peer = echo();
    let proxy = TestProxy::builder()
        .settings("server: tiny_http")
        .provider("P", "anthropic", &peer.url(), "auth_value: fixed")
        .start();
    // With Host.
    for (others, status) in [(127, 200), (128, 431)] {
        let fields = "X-A: b\r\n".repeat(others);
        let answer = proxy.ask(format!("GET /c HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n"));
        assert_eq!(answer.status, status, "{others}");
    }
}

#[test]
fn a_hundred_requests_at_once() {
    let peer = echo();
    let proxy = TestProxy::before(&peer.url());
    let mut clients: Vec<_> = (0..100).map(|_| Client::connect(proxy.address)).collect();
    for (index, client) in clients.iter_mut().enumerate() {
        client.send(post("/a", &index.to_string()));
    }
    for (index, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.answer().body, format!("POST /a HTTP/1.1|{index}"));
    }
}

#[test]
fn an_http_proxy_is_used_for_requests_and_for_tokens() {
    let peer = Peer::start(|mut talk| {
        let Some(connect) = talk.head() else { return };
        assert!(connect.line.starts_with("CONNECT "), "{}", connect.line);
        talk.send("HTTP/1.1 200 X\r\n\r\n");
        while let Some(seen) = talk.request() {
            let is_token = seen.line.contains("/token");
            let token = r#"{"access_token":"through-the-proxy","expires_in":3600}"#;
            let shown = seen.field("authorization").unwrap_or("none").to_owned();
            talk.answer(200, if is_token { token } else { &shown });
        }
    });
    let proxy = TestProxy::builder()
        .refreshed("P", "http://provider.invalid", "http://127.0.0.1:9/token", "")
        .provider("Q", "generic", "http://other.invalid", "auth_type: none")
        .through(&peer.url())
        .start();
    assert_eq!(proxy.ask(get("/to/p/x")).body, "Bearer through-the-proxy");
    assert_eq!(proxy.ask(get("/to/q/x")).body, "none");
}

#[test]
fn a_socks_proxy_is_used_and_a_client_that_leaves_is_still_noticed() {
    let (gone, ended) = crossbeam_channel::bounded(1);
    let peer = Peer::start(move |mut talk| {
        // RFC 1928: greeting, then a request for a name, each answered with success.
        let greeting = talk.bytes(2);
        talk.bytes(usize::from(greeting[1]));
        talk.send([5, 0]);
        let asked = talk.bytes(5);
        assert_eq!(asked[..4], [5, 1, 0, 3], "a connection to a name");
        let name = talk.bytes(usize::from(asked[4]) + 2);
        assert!(name.starts_with(b"provider.invalid"));
        talk.send([5, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        while let Some(seen) = talk.request() {
            if seen.line.contains("/hang") {
                talk.wait_for_close();
                let _ = gone.send(());
                return;
            }
            talk.answer(200, "through socks");
        }
    });
    let proxy = TestProxy::builder()
        .provider("P", "generic", "http://provider.invalid", "auth_type: none")
        .through(&peer.url().replace("http:", "socks5h:"))
        .start();
    assert_eq!(proxy.ask(get("/")).body, "through socks");
    let mut client = Client::connect(proxy.address);
    client.send(get("/hang"));
    crate::support::eventually("the request is upstream", || peer.seen().len() == 2);
    drop(client);
    ended.recv_timeout(crate::support::PATIENCE).expect("the upstream exchange ends");
}
