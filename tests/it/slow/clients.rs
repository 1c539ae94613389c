//! Clients that are slow, silent, deaf or leave, by the hundred.

use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use socket2::SockRef;

use super::subject::Subject;
use crate::support::client::get;
use crate::support::eventually;

const POST: &str =
    "POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello";

fn connect(subject: &Subject) -> TcpStream {
    TcpStream::connect(subject.address).expect("a connection")
}

fn send(mut stream: &TcpStream, bytes: &[u8]) {
    // One that was ended already does not take it.
    let _ = std::io::Write::write_all(&mut stream, bytes);
}

/// Opens `count` connections that send `start`, then a byte each again and again while normal requests
/// go on.
fn slowloris(subject: &Subject, count: usize, start: &[u8]) {
    let slow: Vec<_> = (0..count).map(|_| connect(subject)).collect();
    for piece in [start, b"a", b"a", b"a", b"a", b"a"] {
        for stream in &slow {
            send(stream, piece);
        }
        subject.served();
    }
}

#[test]
fn five_hundred_slow_heads() {
    let subject = Subject::start("");
    slowloris(&subject, 500, b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ");
    subject.is_unharmed();
}

#[test]
fn six_hundred_slow_heads_are_more_than_there_are_connections() {
    let subject = Subject::start("");
    slowloris(&subject, 600, b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ");
    subject.is_unharmed();
}

#[test]
fn five_hundred_slow_bodies() {
    let subject = Subject::start("");
    slowloris(&subject, 500, b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n");
    subject.is_unharmed();
}

#[test]
fn five_hundred_readers_that_do_not_read() {
    let body = "x".repeat(256 * 1024);
    let large =
        crate::support::peer::Peer::answering(move |_| crate::support::peer::answer(200, &body));
    let subject = Subject::start_with_more(
        "",
        &format!(
            "  - {{name: Large, type: generic, base_url: \"{}\", auth_type: none}}\n",
            large.url()
        ),
    );
    let deaf: Vec<_> = (0..500).map(|_| connect(&subject)).collect();
    for stream in &deaf {
        SockRef::from(stream).set_recv_buffer_size(4096).expect("an option");
        send(stream, get("/to/large/x").as_bytes());
    }
    for _ in 0..5 {
        subject.served();
    }
    drop(deaf);
    subject.is_unharmed();
}

#[test]
fn five_thousand_connections_that_say_nothing() {
    let subject = Subject::start("");
    let mut silent = Vec::new();
    for _ in 0..10 {
        silent.extend((0..500).map(|_| connect(&subject)));
        subject.served();
    }
    drop(silent);
    subject.is_unharmed();
}

#[test]
fn clients_that_leave_or_reset_at_every_stage() {
    let subject = Subject::start("");
    for end in 0..=POST.len() {
        for reset in [false, true] {
            let stream = connect(&subject);
            send(&stream, &POST.as_bytes()[..end]);
            if reset {
                SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("an option");
            } else {
                // Where the proxy has ended it already that is fine too.
                let _ = stream.shutdown(Shutdown::Write);
            }
        }
    }
    subject.is_unharmed();
}

#[test]
fn without_descriptors_it_recovers_by_itself() {
    let subject = Subject::start_by("ulimit -n 64;", "");
    let silent: Vec<_> = (0..200).map(|_| connect(&subject)).collect();
    subject.binary.wait_for("No connection can be accepted");
    // Who says nothing gives way, although nobody leaves.
    eventually("a normal request is served", || {
        crate::support::client::Client::try_ask(subject.address, &get("/normal")) == Some(200)
    });
    drop(silent);
    subject.is_unharmed();
}
