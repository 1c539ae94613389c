//! Draining: what is in flight is finished, what is idle is closed, what is late is told.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crossbeam_channel::{bounded, unbounded};
use rustix::process::Signal;

use crate::support::binary::Binary;
use crate::support::client::{Client, get, post};
use crate::support::peer::{Peer, answer};
use crate::support::proxy::TestProxy;
use crate::support::{PATIENCE, eventually};

fn held() -> (Peer, crossbeam_channel::Sender<()>) {
    let (release, released) = bounded::<()>(0);
    let peer = Peer::start(move |mut talk| {
        while talk.request().is_some() {
            let _ = released.recv();
            talk.answer(200, "finished");
        }
    });
    (peer, release)
}

/// A client whose request is the first that `peer` gets, and is held there.
fn busy(address: SocketAddr, peer: &Peer) -> Client {
    let mut client = Client::connect(address);
    client.send(get("/"));
    eventually("the request is upstream", || peer.seen().len() == 1);
    client
}

/// A client on a kept connection, after an answer.
fn idle(address: SocketAddr) -> Client {
    let mut client = Client::connect(address);
    client.send(get("/-/healthy"));
    client.answer();
    client
}

/// Stops `proxy` on a thread of its own.
fn stop(mut proxy: TestProxy) -> crossbeam_channel::Receiver<usize> {
    let (done, cut_off) = bounded(1);
    let run = move || done.send(proxy.stop()).expect("somebody waits for it");
    evertoken::testing::spawn("stop", 256 * 1024, run).unwrap().detach();
    cut_off
}

#[test]
fn requests_in_flight_are_finished_and_idle_connections_closed() {
    let (peer, release) = held();
    let proxy = TestProxy::before(&peer.url());
    let address = proxy.address;
    let mut idle = idle(address);
    let mut busy = busy(address, &peer);
    let mut late = Client::connect(address);
    // In one piece, so that the start of the second head is there once the first is answered.
    late.send(format!("{}GET /late HTTP/1.1\r\n", get("/-/healthy")));
    late.answer();
    let cut_off = stop(proxy);
    assert!(idle.is_closed());
    // Its head was on the way when the stop came: it is told.
    late.send("Host: localhost\r\n\r\n");
    let told = late.answer();
    assert_eq!((told.status, told.code()), (503, "shutting_down"));
    assert!(told.field("retry-after").is_some());
    release.send(()).unwrap();
    let finished = busy.answer();
    assert_eq!(finished.body, "finished");
    assert!(busy.is_closed());
    assert_eq!(cut_off.recv().unwrap(), 0);
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn a_first_request_that_comes_after_the_stop_is_served() {
    let (peer, release) = held();
    let proxy = TestProxy::before(&peer.url());
    let mut busy = busy(proxy.address, &peer);
    let mut idle = idle(proxy.address);
    let (mut late, mut silent) = (Client::connect(proxy.address), Client::connect(proxy.address));
    let cut_off = stop(proxy);
    assert!(idle.is_closed(), "the stop has begun");
    late.send(get("/-/healthy"));
    assert_eq!(late.answer().status, 200);
    assert!(late.is_closed(), "and it was the last");
    assert!(silent.is_closed(), "who asks nothing is not waited for to the end of the grace");
    release.send(()).unwrap();
    assert_eq!(busy.answer().body, "finished");
    assert_eq!(cut_off.recv().unwrap(), 0);
}

/// The outcome of a new connection with one request.
fn asks(address: SocketAddr) -> Option<std::io::Result<String>> {
    // A connection that begins while nobody is let in any more is not answered at all.
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_millis(500)).ok()?;
    let mut answer = String::new();
    let asked = stream
        .write_all(b"GET /-/healthy HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    Some(asked.and_then(|()| stream.read_to_string(&mut answer)).map(|_| answer))
}

#[test]
fn who_could_connect_is_served_whenever_the_stop_comes() {
    for _ in 0..12 {
        let proxy = TestProxy::before("http://127.0.0.1:9");
        let address = proxy.address;
        let (say, said) = unbounded();
        for _ in 0..8 {
            let say = say.clone();
            let run = move || {
                while let Some(answer) = asks(address) {
                    let _ = say.send(answer);
                }
            };
            evertoken::testing::spawn("client", 256 * 1024, run).unwrap().detach();
        }
        drop(say);
        // All are at it.
        let before: Vec<_> = said.iter().take(50).collect();
        let cut_off = stop(proxy);
        for answer in before.into_iter().chain(said) {
            assert!(answer.as_ref().is_ok_and(|it| it.starts_with("HTTP/1.1 200")), "{answer:?}");
        }
        assert_eq!(cut_off.recv().unwrap(), 0);
    }
}

#[test]
fn after_the_grace_the_rest_is_cut_off() {
    let (peer, _release) = held();
    let proxy = TestProxy::builder()
        .settings("shutdown_grace: 0")
        .provider("P", "anthropic", &peer.url(), "auth_type: none")
        .start();
    let mut busy = busy(proxy.address, &peer);
    assert_eq!(stop(proxy).recv().unwrap(), 1);
    assert!(busy.is_closed());
}

/// A provider whose answer has no end but that of its connection, which does not come.
fn endless() -> Peer {
    Peer::start(|mut talk| {
        talk.request();
        talk.send("HTTP/1.1 200 X\r\n\r\nab");
        talk.wait_for_close();
    })
}

/// A client of HTTP/1.0 that has read the start of the answer.
fn old_client(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let (mut read, mut byte) = (Vec::new(), [0]);
    while !read.ends_with(b"ab") {
        stream.read_exact(&mut byte).unwrap();
        read.extend(byte);
    }
    stream
}

/// The end of the connection is the end of the answer then: the cut one looked whole.
#[test]
fn a_stop_cuts_an_answer_to_http_1_0_off_with_a_reset() {
    let peer = endless();
    let proxy = TestProxy::builder()
        .settings("shutdown_grace: 0")
        .provider("P", "anthropic", &peer.url(), "auth_type: none")
        .start();
    let mut old = old_client(proxy.address);
    assert_eq!(stop(proxy).recv().unwrap(), 1);
    let end = old.read(&mut [0]).map_err(|error| error.kind());
    assert_eq!(end, Err(std::io::ErrorKind::ConnectionReset));
}

#[test]
fn an_end_of_the_process_cuts_an_answer_to_http_1_0_off_with_a_reset_too() {
    let peer = endless();
    for signals in [&[Signal::KILL][..], &[Signal::TERM, Signal::TERM]] {
        let folder = tempfile::tempdir().unwrap();
        let config = format!(
            "settings: {{port: 0, state_dir: state}}\nproviders: [{{name: P, type: anthropic, base_url: '{}', \
             auth_type: none}}]\n",
            peer.url()
        );
        std::fs::write(folder.path().join("providers.yaml"), config).unwrap();
        let mut binary = Binary::start(folder.path(), &["run"], &[]);
        let mut old = old_client(binary.address());
        for signal in signals {
            binary.signal(*signal);
            if *signal == Signal::TERM {
                binary.wait_for("Stopping; requests in flight are finished first");
            }
        }
        let end = old.read(&mut [0]).map_err(|error| error.kind());
        assert_eq!(end, Err(std::io::ErrorKind::ConnectionReset), "{signals:?}");
        binary.code();
    }
}

/// It was closed while its client still sent, with a reset that could overtake the answer.
#[test]
fn a_stop_waits_for_a_client_that_has_its_answer_and_still_sends() {
    for is_answered_before in [false, true] {
        let (answered, is_answered) = bounded(1);
        let peer = Peer::start(move |mut talk| {
            if talk.head().is_some() {
                talk.bytes(64 * 1024);
                talk.send(answer(413, "too large"));
                let _ = answered.send(());
                talk.wait_for_close();
            }
        });
        let proxy = TestProxy::builder()
            .settings("replay_body_bytes: 1000")
            .provider("P", "anthropic", &peer.url(), "auth_type: none")
            .start();
        let mut idle = Client::connect(proxy.address);
        idle.send(get("/-/healthy"));
        idle.answer();
        let mut sending = TcpStream::connect(proxy.address).unwrap();
        sending.set_read_timeout(Some(PATIENCE)).unwrap();
        sending.set_write_timeout(Some(PATIENCE)).unwrap();
        let head = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20000000\r\n\r\n";
        let piece = vec![b'x'; 100_000];
        sending.write_all(head).unwrap();
        sending.write_all(&piece).unwrap();
        is_answered.recv_timeout(PATIENCE).unwrap();
        if is_answered_before {
            sending.write_all(&piece).unwrap();
            sending.peek(&mut [0]).unwrap();
        }
        let cut_off = stop(proxy);
        assert!(idle.is_closed(), "the stop has begun");
        for _ in if is_answered_before { 2 } else { 1 }..200 {
            sending.write_all(&piece).expect("all of it is taken");
        }
        let mut answer = String::new();
        sending.read_to_string(&mut answer).expect("no reset");
        assert!(answer.starts_with("HTTP/1.1 413 ") && answer.ends_with("too large"), "{answer}");
        drop(sending);
        assert_eq!(cut_off.recv().unwrap(), 0);
    }
}

/// An empty line after a body, which some clients send (RFC 9112 §2.2), counted as the start of the next head.
#[test]
fn a_client_that_sent_an_empty_line_after_its_body_is_as_idle_as_any() {
    let (peer, release) = held();
    let proxy = TestProxy::before(&peer.url());
    let mut busy = busy(proxy.address, &peer);
    let mut idle = Client::connect(proxy.address);
    idle.send(post("/-/healthy", "{}") + "\r\n");
    idle.answer();
    let cut_off = stop(proxy);
    assert!(idle.is_closed());
    release.send(()).unwrap();
    assert_eq!(busy.answer().body, "finished");
    drop(busy);
    assert_eq!(cut_off.recv().unwrap(), 0);
}

#[test]
fn the_tiny_http_server_stops_too() {
    let (peer, _release) = held();
    let mut proxy = TestProxy::builder()
        .settings("server: tiny_http, shutdown_grace: 1")
        .provider("P", "anthropic", &peer.url(), "auth_type: none")
        .start();
    assert_eq!(proxy.ask(get("/-/healthy")).status, 200);
    assert_eq!(proxy.stop(), 0);
}

/// The stop took 30 s with a `shutdown_grace` of 2.
#[test]
fn an_issuer_that_never_answers_holds_up_a_stop_no_longer_than_the_grace() {
    let (issuer, _release) = held();
    let provider = Peer::start(|mut talk| while talk.request().is_some() {});
    let proxy = TestProxy::builder()
        .refreshed("P", &provider.url(), &issuer.url(), "")
        .settings("shutdown_grace: 0")
        .start();
    eventually("the issuer is asked", || issuer.seen().len() == 1);
    let stopped = stop(proxy);
    assert_eq!(stopped.recv_timeout(Duration::from_secs(20)), Ok(0));
}
