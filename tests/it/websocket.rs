//! WebSockets: their handshake, the bytes of both directions, and every end.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use crossbeam_channel::{Receiver, bounded};
use evertoken::testing::{Clock, Moment, Timestamp};

use crate::support::binary::Binary;
use crate::support::client::{Client, get};
use crate::support::eventually;
use crate::support::peer::{Conversation, Peer, answer};
use crate::support::proxy::TestProxy;

/// The key of RFC 6455 §1.3, and the head that accepts it.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub(crate) const ACCEPTED: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
/// An unmasked message.
const HELLO: &[u8] = b"\x81\x05hello";
/// A close frame with the code 1001, up to its reason.
const GOING_AWAY: [u8; 2] = [0x03, 0xe9];

/// The handshake of a WebSocket at `target` with some more `fields`.
pub(crate) fn handshake(target: &str, fields: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{fields}\r\n"
    )
}

/// A masked message of so many bytes, as a client sends it.
pub(crate) fn masked(length: usize) -> Vec<u8> {
    let mut frame = vec![0x82, 0xff];
    frame.extend((length as u64).to_be_bytes());
    frame.extend([1, 2, 3, 4]);
    frame.extend((0..length).map(|index| u8::try_from(index % 251).unwrap()));
    frame
}

/// A provider that accepts each handshake and then does what `script` says.
fn accepting(script: impl Fn(&mut Conversation) + Send + Sync + 'static) -> Peer {
    Peer::start(move |mut talk| {
        if talk.request().is_some() && talk.send(ACCEPTED) {
            script(&mut talk);
        }
    })
}

/// A provider that sends back all that comes in its WebSockets.
fn echoing() -> Peer {
    accepting(|talk| {
        while let Some(byte) = talk.byte() {
            if !talk.send([byte]) {
                return;
            }
        }
    })
}

/// A WebSocket through `proxy` at `target`.
#[track_caller]
fn open(proxy: &TestProxy, target: &str) -> Client {
    let mut client = Client::connect(proxy.address);
    client.send(handshake(target, ""));
    let head = client.head();
    assert_eq!(head.status, 101, "{head:?}");
    client
}

#[track_caller]
fn echoes(client: &mut Client, bytes: &[u8]) {
    client.send(bytes);
    assert_eq!(client.bytes(bytes.len()), bytes);
}

fn stop(mut proxy: TestProxy) -> Receiver<usize> {
    let (done, stopped) = bounded(1);
    let run = move || done.send(proxy.stop()).expect("somebody waits for it");
    evertoken::testing::spawn("stop", 256 * 1024, run).unwrap().detach();
    stopped
}

/// The reason of a close frame with the code 1001 from evertoken; `mask` for one to a provider.
#[track_caller]
fn going_away(mut payload: Vec<u8>, mask: &[u8]) -> String {
    for (byte, mask) in payload.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
    assert_eq!(payload[..2], GOING_AWAY, "{payload:?}");
    String::from_utf8(payload[2..].to_vec()).unwrap()
}

/// Reads the close frame that evertoken sends to a client.
#[track_caller]
fn farewell(client: &mut Client) -> String {
    let start = client.bytes(2);
    assert_eq!(start[0], 0x88);
    going_away(client.bytes(start[1].into()), &[0])
}

/// The same for what a provider got.
#[track_caller]
fn farewell_in(bytes: &[u8]) -> String {
    assert_eq!(bytes[0], 0x88, "{bytes:?}");
    assert_eq!(usize::from(bytes[1]), (bytes.len() - 6) | 0x80, "it is masked and the last frame");
    going_away(bytes[6..].to_vec(), &bytes[2..6])
}

#[test]
fn the_handshake_crosses_with_the_token_and_the_answer_as_it_is() {
    let answer = ACCEPTED.replace(
        "\r\n\r\n",
        "\r\nSec-WebSocket-Protocol: chat\r\nSec-WebSocket-Extensions: x; y=1\r\nX-Own: 1\r\n\r\n",
    );
    let peer = Peer::start(move |mut talk| {
        talk.request();
        talk.send(&answer);
        talk.wait_for_close();
    });
    let proxy = TestProxy::before(&peer.url());
    let mut client = Client::connect(proxy.address);
    let fields = "Sec-WebSocket-Protocol: chat, talk\r\nSec-WebSocket-Extensions: x; y\r\nAuthorization: Bearer own\r\n";
    client.send(handshake("/to/p/v1/realtime?model=m", fields));
    let head = client.head();
    assert_eq!(head.status, 101);
    for (name, value) in [
        ("upgrade", "websocket"),
        ("connection", "Upgrade"),
        ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        ("sec-websocket-protocol", "chat"),
        ("sec-websocket-extensions", "x; y=1"),
        ("x-own", "1"),
    ] {
        assert_eq!(head.field(name), Some(value), "{head:?}");
    }
    let seen = &peer.seen()[0];
    assert_eq!(seen.line, "GET /v1/realtime?model=m HTTP/1.1");
    for (name, value) in [
        ("upgrade", "websocket"),
        ("connection", "Upgrade"),
        ("sec-websocket-key", KEY),
        ("sec-websocket-version", "13"),
        ("sec-websocket-protocol", "chat, talk"),
        ("sec-websocket-extensions", "x; y"),
        ("authorization", "Bearer fixed"),
    ] {
        assert_eq!(seen.field(name), Some(value), "{seen:?}");
    }
}

#[test]
fn every_byte_passes_both_ways_as_it_is() {
    let peer = echoing();
    let proxy = TestProxy::before(&peer.url());
    let mut client = open(&proxy, "/");
    for bytes in [
        b"\x81\x80\x01\x02\x03\x04".as_slice(), // an empty message
        b"\x01\x82\x00\x00\x00\x00ab",          // the first fragment
        b"\x89\x81\x00\x00\x00\x00p",           // a ping in between
        b"\x80\x81\x00\x00\x00\x00c",           // the last fragment
        b"\x8f\xff\x00 no frame at all",
    ] {
        echoes(&mut client, bytes);
    }
}

#[test]
fn a_large_message_passes_both_ways_however_slowly_it_is_read() {
    let message = masked(1024 * 1024);
    let length = message.len();
    let peer = accepting(move |talk| {
        let came = talk.bytes(length);
        talk.send(came.repeat(8));
        talk.wait_for_close();
    });
    let proxy = TestProxy::before(&peer.url());
    let mut client = open(&proxy, "/");
    client.send(&message);
    for _ in 0..8 {
        assert!(client.bytes(length) == message, "a message changed on its way");
    }
}

#[test]
fn bytes_right_behind_the_heads_are_the_first_of_the_websocket() {
    let peer = Peer::start(|mut talk| {
        talk.request();
        talk.send([ACCEPTED.as_bytes(), HELLO, HELLO].concat());
        let came = talk.bytes(7);
        talk.send(came);
        talk.wait_for_close();
    });
    let proxy = TestProxy::before(&peer.url());
    let mut client = Client::connect(proxy.address);
    client.send([handshake("/", "").as_bytes(), b"\x89\x81\x00\x00\x00\x00p"].concat());
    assert_eq!(client.head().status, 101);
    assert_eq!(client.bytes(14), [HELLO, HELLO].concat());
    assert_eq!(client.bytes(7), b"\x89\x81\x00\x00\x00\x00p");
}

#[test]
fn the_end_of_one_side_is_told_to_the_other_which_may_go_on() {
    let peer = accepting(|talk| {
        assert_eq!(talk.rest(), HELLO, "the client's side has ended");
        talk.send(b"\x81\x05after");
    });
    let proxy = TestProxy::before(&peer.url());
    let mut client = open(&proxy, "/");
    client.send(HELLO);
    client.half_close();
    let mut rest = Vec::new();
    client.rest(&mut rest);
    assert_eq!(rest, b"\x81\x05after");

    let (tell, told) = bounded(1);
    let peer = accepting(move |talk| {
        talk.send(HELLO);
        talk.half_close();
        tell.send(talk.rest()).unwrap();
    });
    let proxy = TestProxy::before(&peer.url());
    let mut client = open(&proxy, "/");
    let mut rest = Vec::new();
    client.rest(&mut rest);
    assert_eq!(rest, HELLO);
    client.send(b"\x81\x05after");
    drop(client);
    assert_eq!(told.recv().unwrap(), b"\x81\x05after");
}

#[test]
fn a_side_that_breaks_off_ends_the_other() {
    let (tell, told) = bounded(1);
    let peer = accepting(move |talk| {
        talk.send(HELLO);
        tell.send(talk.rest()).unwrap();
    });
    let proxy = TestProxy::before(&peer.url());
    let mut client = open(&proxy, "/");
    assert_eq!(client.bytes(7), HELLO);
    client.reset();
    assert_eq!(told.recv().unwrap(), b"");

    let peer = Peer::start(|mut talk| {
        talk.request();
        talk.send([ACCEPTED.as_bytes(), HELLO].concat());
        talk.byte();
        talk.reset();
    });
    let proxy = TestProxy::before(&peer.url());
    let mut client = open(&proxy, "/");
    assert_eq!(client.bytes(7), HELLO);
    client.send("x");
    assert!(client.is_closed());
    eventually("it counts as an error", || {
        proxy.ask(get("/-/status")).json()["providers"][0]["requests"]["errors"] == 1
    });
}

#[test]
fn a_provider_that_ends_a_websocket_before_a_close_frame_broke_off() {
    let close = b"\x88\x02\x03\xe8".as_slice();
    let half = &HELLO[..3];
    for (last, errors) in [(half, 1), (HELLO, 1), (close, 0)] {
        let peer = accepting(move |talk| {
            talk.send(last);
        });
        let proxy = TestProxy::before(&peer.url());
        let mut client = open(&proxy, "/");
        let mut rest = Vec::new();
        client.rest(&mut rest);
        assert_eq!(rest, last);
        drop(client);
        eventually("it has ended", || {
            let provider = proxy.ask(get("/-/status")).json()["providers"][0].clone();
            provider["tunnels"]["open"] == 0 && provider["requests"]["errors"] == errors
        });
    }

    // A client that ends first is no fault of the provider.
    let peer = accepting(|talk| drop(talk.rest()));
    let proxy = TestProxy::before(&peer.url());
    drop(open(&proxy, "/"));
    eventually("it has ended", || {
        proxy.ask(get("/-/status")).json()["providers"][0]["tunnels"]["open"] == 0
    });
    assert_eq!(proxy.ask(get("/-/status")).json()["providers"][0]["requests"]["errors"], 0);
}

#[test]
fn a_close_frame_arrives_though_its_sender_reads_nothing_more() {
    let peer = Peer::start(|mut talk| {
        talk.request();
        talk.send(ACCEPTED);
        talk.byte();
        talk.send(b"\x88\x02\x03\xe8");
        // The client's next bytes meet a closed connection.
    });
    let proxy = TestProxy::before(&peer.url());
    let mut client = open(&proxy, "/");
    for _ in 0..20 {
        client.send(masked(5000));
    }
    assert_eq!(client.bytes(4), b"\x88\x02\x03\xe8");
}

#[test]
fn another_answer_than_101_is_passed_on_and_nothing_follows_it() {
    let peer = Peer::answering(|_| answer(400, "no such model"));
    let proxy = TestProxy::before(&peer.url());
    let mut client = Client::connect(proxy.address);
    let late = get("/smuggled");
    client.send(handshake("/v1/realtime", "") + &late);
    let answer = client.answer();
    assert_eq!((answer.status, answer.body.as_str()), (400, "no such model"));
    assert_eq!(answer.field("connection"), Some("close"));
    client.send(late);
    assert!(client.is_closed());
    assert_eq!(peer.seen().len(), 1);
}

#[test]
fn a_101_that_is_none_is_a_broken_provider() {
    for (from, to) in [
        ("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "AAAAAAAAAAAAAAAAAAAAAAAAAAA="),
        ("Sec-WebSocket-Accept", "X-Accept"),
        ("Upgrade: websocket", "Upgrade: h2c"),
        ("Connection: Upgrade", "Connection: close"),
    ] {
        let head = ACCEPTED.replace(from, to);
        let peer = Peer::answering(move |_| head.clone());
        let proxy = TestProxy::before(&peer.url());
        let answer = proxy.ask(handshake("/", ""));
        assert_eq!((answer.status, answer.code()), (502, "upstream_broken"), "{from}");
        assert!(answer.body.contains("101"), "{}", answer.body);
    }
}

#[test]
fn a_rejected_token_is_replaced_before_the_websocket_opens() {
    let issuer = Peer::answering({
        let number = AtomicI64::new(0);
        move |_| {
            let number = number.fetch_add(1, Ordering::SeqCst);
            answer(200, &format!(r#"{{"access_token":"t{number}","expires_in":3600}}"#))
        }
    });
    let peer = Peer::start(|mut talk| {
        while let Some(seen) = talk.request() {
            if seen.field("authorization") == Some("Bearer t1") {
                talk.send([ACCEPTED.as_bytes(), HELLO].concat());
                return talk.wait_for_close();
            }
            talk.answer(401, "old token");
        }
    });
    let proxy = TestProxy::builder().refreshed("P", &peer.url(), &issuer.url(), "").start();
    let mut client = open(&proxy, "/v1/responses");
    assert_eq!(client.bytes(7), HELLO);

    let peer = Peer::answering(|_| answer(401, "never"));
    let proxy = TestProxy::builder().refreshed("P", &peer.url(), &issuer.url(), "").start();
    let refused = proxy.ask(handshake("/v1/responses", ""));
    assert_eq!((refused.status, refused.body.as_str()), (401, "never"));
    assert_eq!(peer.seen().len(), 2);
}

#[test]
fn a_provider_that_fails_the_handshake_is_passed_over() {
    let failing = Peer::answering(|_| answer(503, "busy"));
    let off = Peer::answering(|_| answer(200, "nothing comes here"));
    let peer = echoing();
    let proxy = TestProxy::builder()
        .provider("Failing", "openai", &failing.url(), "auth_value: a")
        .provider("Off", "openai", &off.url(), "auth_value: b\nwebsocket: false")
        .provider("Fine", "openai", &peer.url(), "auth_value: c")
        .start();
    let mut client = open(&proxy, "/v1/realtime");
    echoes(&mut client, HELLO);
    assert_eq!((failing.seen().len(), off.seen().len()), (1, 0));
    assert_eq!(peer.seen()[0].field("authorization"), Some("Bearer c"));
}

#[test]
fn where_no_websocket_is_taken_a_client_is_told_to_use_http() {
    let peer = echoing();
    let lines = "auth_value: a\nwebsocket: false";
    let off = TestProxy::builder().provider("P", "openai", &peer.url(), lines).start();
    let tiny = TestProxy::builder()
        .settings("server: tiny_http")
        .provider("P", "openai", &peer.url(), "auth_value: a")
        .start();
    for (proxy, setting) in [(&off, "websocket: false"), (&tiny, "tiny_http")] {
        for target in ["/v1/responses", "/to/p/v1/responses"] {
            let answer = proxy.ask(handshake(target, ""));
            assert_eq!((answer.status, answer.code()), (426, "websocket_off"), "{answer:?}");
            assert_eq!(answer.json()["error"]["code"], "websocket_off");
            assert!(answer.body.contains(setting), "{}", answer.body);
            assert_eq!(answer.field("upgrade"), Some("HTTP/1.1"), "RFC 9110 asks for it");
            assert!(answer.field("connection").unwrap().ends_with("upgrade"), "{answer:?}");
        }
    }
    let old = off.ask(handshake("/", "").replace("Version: 13", "Version: 8"));
    assert_eq!((old.status, old.code()), (426, "websocket_version"));
    assert_eq!(old.field("sec-websocket-version"), Some("13"));
    assert_eq!(peer.seen().len(), 0);
}

/// `tiny_http` takes all that follows such a request for its body, so that it was never answered.
#[test]
fn an_upgrade_does_not_hang_with_tiny_http() {
    let peer = Peer::answering(|_| answer(200, "fine"));
    let proxy = TestProxy::builder()
        .settings("server: tiny_http")
        .provider("P", "openai", &peer.url(), "auth_value: a")
        .start();
    let post = "POST /v1/x HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n";
    assert_eq!(proxy.ask(format!("{post}Content-Length: 2\r\n\r\n{{}}")).body, "fine");
    assert_eq!(peer.seen()[0].body, b"{}");
    assert_eq!(proxy.ask(format!("{post}\r\n")).body, "fine");
    let chunks = proxy.ask(format!("{post}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"));
    assert_eq!(chunks.code(), "bad_request");
}

#[test]
fn an_upgrade_to_something_else_is_dropped_as_before() {
    let peer = Peer::answering(|_| answer(200, "fine"));
    let lines = "auth_value: a\nwebsocket: false";
    let proxy = TestProxy::builder().provider("P", "openai", &peer.url(), lines).start();
    let request = "GET /v1/models/x HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
    assert_eq!(proxy.ask(request).body, "fine");
    assert_eq!((peer.seen()[0].field("upgrade"), peer.seen()[0].field("connection")), (None, None));
}

#[test]
fn a_stop_says_1001_to_both_sides_between_two_frames() {
    let (tell, told) = bounded(1);
    let peer = accepting(move |talk| {
        talk.send(&HELLO[..3]);
        tell.send(talk.rest()).unwrap();
        talk.send([&HELLO[3..], b"\x81\x04late"].concat());
    });
    let proxy = TestProxy::builder()
        .settings("shutdown_grace: 0")
        .provider("P", "openai", &peer.url(), "auth_value: a")
        .start();
    let mut client = open(&proxy, "/");
    assert_eq!(client.bytes(3), HELLO[..3]);
    let stopped = stop(proxy);
    assert_eq!(client.bytes(4), HELLO[3..], "the frame that had begun is completed");
    assert_eq!(farewell(&mut client), "evertoken is stopping");
    assert!(client.is_closed());
    assert_eq!(farewell_in(&told.recv().unwrap()), "evertoken is stopping");
    assert_eq!(stopped.recv().unwrap(), 0, "it was not cut off");
}

#[test]
fn a_stop_lets_a_websocket_go_on_for_the_grace_and_does_not_hang_on_one_that_is_stuck() {
    let peer = echoing();
    let proxy = TestProxy::before(&peer.url());
    let mut client = open(&proxy, "/");
    let mut idle = Client::connect(proxy.address);
    idle.send(get("/-/healthy"));
    idle.answer();
    let stopped = stop(proxy);
    assert!(idle.is_closed(), "the stop has begun");
    echoes(&mut client, HELLO);
    drop(client);
    assert_eq!(stopped.recv().unwrap(), 0);

    // Half a frame from the provider, which never goes on, and a client that takes no leave.
    let peer = accepting(|talk| {
        talk.send(&HELLO[..3]);
        let _ = talk.rest();
    });
    let proxy = TestProxy::builder()
        .settings("shutdown_grace: 0")
        .provider("P", "openai", &peer.url(), "auth_value: a")
        .start();
    let mut client = open(&proxy, "/");
    assert_eq!(client.bytes(3), HELLO[..3]);
    let stopped = stop(proxy);
    assert!(stopped.recv().is_ok());
    assert!(client.is_closed());
}

#[test]
fn silence_on_both_sides_ends_a_websocket_with_1001() {
    let (tell, told) = bounded(1);
    let peer = accepting(move |talk| tell.send(talk.rest()).unwrap());
    let proxy = TestProxy::builder()
        .settings("timeouts: {idle: 1}")
        .provider("P", "openai", &peer.url(), "auth_value: a")
        .start();
    let mut client = open(&proxy, "/");
    assert!(farewell(&mut client).contains("timeouts.idle"));
    assert!(farewell_in(&told.recv().unwrap()).contains("timeouts.idle"));
    assert!(client.is_closed());
}

#[test]
fn a_token_that_ends_leaves_open_websockets_open() {
    let hours = Arc::new(AtomicI64::new(0));
    let hand = hours.clone();
    let clock = Clock::from_fn(move || {
        let steady_ms = hand.load(Ordering::SeqCst) * 3_600_000;
        Moment {
            wall: Timestamp::from_secs(1_800_000_000).plus_millis(steady_ms),
            steady_ms: u64::try_from(steady_ms).unwrap(),
        }
    });
    let first = AtomicI64::new(0);
    let issuer = Peer::answering(move |_| match first.fetch_add(1, Ordering::SeqCst) {
        0 => answer(200, r#"{"access_token":"t","expires_in":3600}"#),
        _ => answer(400, r#"{"error":"invalid_grant"}"#),
    });
    let peer = echoing();
    let proxy =
        TestProxy::builder().clock(clock).refreshed("P", &peer.url(), &issuer.url(), "").start();
    let mut client = open(&proxy, "/v1/responses");
    hours.store(2, Ordering::SeqCst);
    eventually("no new WebSocket is opened without a token", || {
        proxy.ask(handshake("/v1/responses", "")).status == 403
    });
    echoes(&mut client, HELLO);
}

#[test]
fn a_reload_leaves_open_websockets_open() {
    let peer = echoing();
    let described = TestProxy::builder().provider("P", "openai", &peer.url(), "auth_value: a");
    let proxy = described.start();
    let mut client = open(&proxy, "/");
    let other = TestProxy::builder().provider("Q", "openai", "http://127.0.0.1:9", "auth_value: b");
    assert_eq!(proxy.reload(&other).status, 200);
    echoes(&mut client, HELLO);
}

#[test]
fn a_websocket_counts_as_a_request_in_flight_while_it_is_open() {
    let peer = echoing();
    let lines = "auth_value: a\nmax_in_flight: 1";
    let proxy = TestProxy::builder().provider("P", "openai", &peer.url(), lines).start();
    let mut client = open(&proxy, "/");
    echoes(&mut client, HELLO);
    let answer = proxy.ask(handshake("/", ""));
    assert_eq!((answer.status, answer.code()), (503, "overloaded"));
    let tunnels = || proxy.ask(get("/-/status")).json()["providers"][0]["tunnels"].clone();
    eventually("the bytes are counted", || tunnels()["sent_bytes"] == 7);
    let expected = serde_json::json!({"open": 1, "total": 1, "received_bytes": 7, "sent_bytes": 7});
    assert_eq!(tunnels(), expected);
    let metrics = proxy.ask(get("/-/metrics")).body;
    for line in [
        "evertoken_websockets{provider=\"P\"} 1",
        "evertoken_websocket_bytes_total{direction=\"received\",provider=\"P\"} 7",
        "evertoken_requests_in_flight 1",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    // A reload that takes its provider out, and one that brings it back with counts of its own.
    let other = TestProxy::builder().provider("Q", "openai", &peer.url(), "auth_value: a");
    assert_eq!(proxy.reload(&other).status, 200);
    let in_flight = || proxy.ask(get("/-/status")).json()["in_flight"].clone();
    assert_eq!(in_flight(), 1);
    let again = TestProxy::builder().provider("P", "openai", &peer.url(), lines);
    assert_eq!(proxy.reload(&again).status, 200);
    assert_eq!((in_flight(), &tunnels()["open"]), (1.into(), &0.into()));
    drop(client);
    eventually("it ends", || in_flight() == 0);
    // Its time is no answer's.
    eventually("it is counted", || {
        let metrics = proxy.ask(get("/-/metrics")).body;
        metrics.contains("evertoken_websocket_duration_seconds_count{provider=\"P\"} 1\n")
            && metrics.contains("evertoken_request_duration_seconds_count{provider=\"P\"} 0\n")
            && metrics.contains("evertoken_time_to_first_byte_seconds_count{provider=\"P\"} 0\n")
    });
    open(&proxy, "/");
}

/// A provider of WebSockets that stay open, and of answers to other requests.
fn both_kinds() -> Peer {
    Peer::start(|mut talk| {
        while let Some(seen) = talk.request() {
            if seen.field("upgrade").is_some() {
                talk.send(ACCEPTED);
                return talk.wait_for_close();
            }
            talk.answer(200, "fine");
        }
    })
}

/// Idle WebSockets took every place of their provider, and of evertoken.
#[test]
fn websockets_leave_room_for_other_requests() {
    let peer = both_kinds();
    let lines = "auth_value: a\nmax_in_flight: 4";
    let proxy = TestProxy::builder().provider("P", "openai", &peer.url(), lines).start();
    let refused = |target: &str| {
        let answer = proxy.ask(handshake(target, ""));
        assert_eq!((answer.status, answer.code()), (503, "overloaded"), "{answer:?}");
        assert_eq!(answer.field("retry-after"), Some("1"));
        answer.body
    };
    let mut all: Vec<_> = (0..3).map(|_| open(&proxy, "/")).collect();
    assert!(refused("/").contains("max_in_flight"));
    assert_eq!(proxy.ask(get("/x")).body, "fine");
    all.pop();
    eventually("its place is free", || proxy.ask(handshake("/", "")).status == 101);

    let proxy = TestProxy::builder()
        .settings("max_connections: 8")
        .provider("P", "openai", &peer.url(), "auth_value: a\nmax_in_flight: 4")
        .provider("Q", "openai", &peer.url(), "auth_value: b\nmax_in_flight: 4")
        .start();
    let targets = ["/to/p/", "/to/q/", "/to/p/", "/to/q/", "/to/p/", "/to/q/"];
    let all = targets.map(|target| open(&proxy, target));
    let answer = proxy.ask(handshake("/to/p/", ""));
    assert_eq!((answer.status, answer.code()), (503, "overloaded"), "{answer:?}");
    assert!(answer.body.contains("settings.max_connections"), "{}", answer.body);
    assert_eq!(proxy.ask(get("/to/q/x")).body, "fine");
    drop(all);
}

/// Some proxies let handshakes hang. The provider was passed over for plain requests too.
#[test]
fn a_handshake_without_an_answer_moves_on_and_says_nothing_of_other_requests() {
    let hanging = Peer::start(|mut talk| {
        while let Some(seen) = talk.request() {
            if seen.field("upgrade").is_some() {
                return talk.wait_for_close();
            }
            talk.answer(200, "first");
        }
    });
    let peer = both_kinds();
    let proxy = TestProxy::builder()
        .settings("timeouts: {response: 1}")
        .provider("Hanging", "openai", &hanging.url(), "auth_value: a")
        .provider("Fine", "openai", &peer.url(), "auth_value: b")
        .start();
    for _ in 0..2 {
        open(&proxy, "/v1/responses");
    }
    assert_eq!(hanging.seen().len(), 1, "it is asked last for the second one");
    assert_eq!(proxy.ask(get("/v1/responses/r1")).body, "first");
    let status = proxy.ask(get("/-/status")).json();
    assert_eq!(status["providers"][0]["state"], "ready");
    assert_eq!(status["providers"][0]["requests"]["errors"], 1);

    let alone = TestProxy::builder()
        .settings("timeouts: {response: 1}")
        .provider("Hanging", "openai", &hanging.url(), "auth_value: a")
        .start();
    let answer = alone.ask(handshake("/v1/responses", ""));
    assert_eq!((answer.status, answer.code()), (504, "upstream_timeout"));
    assert!(answer.body.contains("handshake of a WebSocket came within 1 s"), "{}", answer.body);
}

#[test]
fn a_key_among_the_subprotocols_lets_in_and_stays_here() {
    let peer = echoing();
    let proxy = TestProxy::builder()
        .settings("auth: {enabled: true, api_key: the-inbound-key-1234}")
        .provider("P", "openai", &peer.url(), "auth_value: a")
        .start();
    let offering = |key: &str| {
        let fields = format!("Sec-WebSocket-Protocol: realtime, openai-insecure-api-key.{key}\r\n");
        handshake("/v1/realtime", &fields)
    };
    assert_eq!(proxy.ask(offering("another-key")).status, 401);
    assert_eq!(proxy.ask(handshake("/v1/realtime", "")).status, 401);
    assert_eq!(proxy.ask(offering("the-inbound-key-1234")).status, 101);
    let seen = peer.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].field("sec-websocket-protocol"), Some("realtime"));

    // A client's own key stays here as well.
    let proxy = TestProxy::builder().provider("P", "openai", &peer.url(), "auth_value: a").start();
    assert_eq!(proxy.ask(offering("sk-own")).status, 101);
    assert_eq!(peer.seen()[1].field("sec-websocket-protocol"), Some("realtime"));
    let lines = "auth_value: passthrough";
    let proxy = TestProxy::builder().provider("P", "openai", &peer.url(), lines).start();
    assert_eq!(proxy.ask(offering("sk-own")).status, 101);
    let both = "realtime, openai-insecure-api-key.sk-own";
    assert_eq!(peer.seen()[2].field("sec-websocket-protocol"), Some(both));
}

#[test]
fn keys_whose_limits_can_not_be_kept_in_a_websocket_open_none() {
    let peer = echoing();
    let proxy = TestProxy::builder()
        .settings(
            "auth: {enabled: true, keys: [{name: models, key_env: A, models: ['gpt-*']}, \
             {name: day, key_env: B, tokens_per_day: 9}, {name: minute, key_env: C, requests_per_minute: 1}]}",
        )
        .variable("A", "key-a")
        .variable("B", "key-b")
        .variable("C", "key-c")
        .provider("P", "openai", &peer.url(), "auth_value: a")
        .start();
    let ask = |key: &str| {
        proxy.ask(handshake("/v1/realtime?model=gpt-5", &format!("x-api-key: {key}\r\n")))
    };
    for key in ["key-a", "key-b"] {
        let answer = ask(key);
        assert_eq!((answer.status, answer.code()), (403, "not_allowed"), "{key}");
        assert!(answer.body.contains("WebSocket"), "{}", answer.body);
    }
    assert_eq!(ask("key-c").status, 101);
    assert_eq!(ask("key-c").code(), "key_limit");
}

#[test]
fn a_web_page_of_another_site_opens_no_websocket() {
    let peer = echoing();
    let proxy = TestProxy::builder()
        .settings("allowed_origins: ['https://app.example']")
        .provider("P", "openai", &peer.url(), "auth_value: a")
        .start();
    let from =
        |origin: &str| proxy.ask(handshake("/v1/realtime", &format!("Origin: {origin}\r\n")));
    for origin in ["https://evil.example", "null", "http://localhost.evil.example"] {
        let answer = from(origin);
        assert_eq!((answer.status, answer.code()), (403, "forbidden_origin"), "{origin}");
    }
    assert_eq!(from("https://app.example").status, 101);
    assert_eq!(from("http://localhost").status, 101, "its own pages may");
    let foreign = handshake("/", "").replace("Host: localhost", "Host: evil.example");
    assert_eq!(proxy.ask(foreign).code(), "forbidden_host");
}

#[test]
fn a_websocket_over_a_unix_socket() {
    let peer = echoing();
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("e.sock");
    let _proxy = TestProxy::builder()
        .settings(&format!("listen: [\"unix:{}\"]", socket.display()))
        .provider("P", "openai", &peer.url(), "auth_value: a")
        .start();
    let mut client = Client::connect_unix(&socket);
    client.send(handshake("/", ""));
    assert_eq!(client.head().status, 101);
    echoes(&mut client, HELLO);
    client.half_close();
    assert!(client.is_closed());
}

/// Each kept the stack of its worker, 20 KB, for as long as it was open.
#[test]
fn an_open_websocket_keeps_no_thread() {
    let peer = echoing();
    let folder = tempfile::tempdir().unwrap();
    let url = peer.url();
    let config = format!(
        "settings: {{port: 0, state_dir: state}}\nproviders: [{{name: P, type: openai, base_url: '{url}', auth_value: a}}]\n"
    );
    std::fs::write(folder.path().join("providers.yaml"), config).unwrap();
    let program = Binary::start(folder.path(), &["run"], &[]);
    let threads =
        || std::fs::read_dir(format!("/proc/{}/task", program.id())).expect("it runs").count();
    let address = program.address();
    let mut all = Vec::new();
    for _ in 0..40 {
        let mut client = Client::connect(address);
        client.send(handshake("/", ""));
        assert_eq!(client.head().status, 101);
        echoes(&mut client, HELLO);
        all.push(client);
    }
    let most = threads();
    assert!(most < 20, "{most} threads");
    for client in &mut all {
        echoes(client, HELLO);
    }
}
