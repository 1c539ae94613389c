//! Clients that are slow, silent, deaf or leave, by the hundred.

use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};

use super::subject::Subject;
use crate::support::binary::Binary;
use crate::support::client::{Client, get};
use crate::support::eventually;
use crate::support::peer::Peer;

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
fn a_large_body_is_not_held_for_as_long_as_its_answer_streams() {
    const STREAMS: usize = 40;
    let provider = Peer::start(|mut talk| {
        if talk.request().is_some() {
            talk.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n");
            talk.wait_for_close();
        }
    });
    let url = provider.url();
    let more = format!("  - {{name: Q, type: generic, base_url: \"{url}\", auth_type: none}}\n");
    let subject = Subject::start_with_more("", &more);
    let request = crate::support::client::post("/to/q/", &"x".repeat(2 * 1024 * 1024));
    // Together they are more than it may ever have had.
    let streams: Vec<_> = (0..STREAMS)
        .map(|_| {
            let mut client = Client::connect(subject.address);
            client.send(&request);
            assert_eq!(client.head().status, 200);
            client
        })
        .collect();
    drop(streams);
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
                // If the proxy has already ended it, that is fine too.
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
    // A silent connection gives way, although nobody leaves.
    eventually("a normal request is served", || {
        Client::try_ask(subject.address, &get("/normal")) == Some(200)
    });
    drop(silent);
    subject.is_unharmed();
}

#[test]
fn one_address_has_half_of_the_connections_and_another_is_still_served() {
    const ADDRESSES: &str =
        "ip link set lo up; ip addr add 10.77.0.1/32 dev lo; ip addr add 10.77.0.2/32 dev lo;";
    let peer = crate::support::peer::Peer::answering(|_| crate::support::peer::answer(200, "fine"));
    let folder = tempfile::tempdir().unwrap();
    let config = format!(
        "settings: {{host: 10.77.0.1, port: 0, max_connections: 8, state_dir: \"{}\", auth: {{enabled: \
         true, api_key_env: KEY}}}}\nproviders: [{{name: P, type: generic, base_url: \"{}\", auth_type: \
         none}}]\n",
        folder.path().display(),
        peer.url()
    );
    std::fs::write(folder.path().join("providers.yaml"), config).unwrap();
    // A network of its own, where addresses that are not loopback can be had.
    let run =
        format!("exec unshare -n sh -c '{ADDRESSES} exec {} run'", env!("CARGO_BIN_EXE_evertoken"));
    let variables = [("KEY", "key"), ("PATH", "/usr/bin:/bin:/usr/sbin:/sbin")];
    let binary = Binary::start_shell(folder.path(), &run, &variables);
    let address = binary.address();
    enter_network_of(&binary);
    // Requests whose bodies do not come hold their connections, and can't be asked to give way once
    // their body is asked for.
    let hold = || {
        let mut client = Client::over(connect_from("10.77.0.1", address));
        client.send(
            "POST / HTTP/1.1\r\nHost: a\r\nx-api-key: key\r\nExpect: 100-continue\r\n\
             Content-Length: 9\r\n\r\n",
        );
        assert_eq!(client.head().status, 100);
        client
    };
    let _held: Vec<_> = (0..4).map(|_| hold()).collect();
    let ask = |from: &str| {
        let mut client = Client::over(connect_from(from, address));
        client.send("GET /-/ HTTP/1.1\r\nHost: a\r\nx-api-key: key\r\nConnection: close\r\n\r\n");
        client.answer().status
    };
    assert_eq!(ask("10.77.0.1"), 503, "the share is used up");
    assert_eq!(ask("10.77.0.2"), 200, "another address has its own share");
}

/// This thread uses the network of `binary` from now on.
fn enter_network_of(binary: &Binary) {
    use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
    let network = std::fs::File::open(format!("/proc/{}/ns/net", binary.id())).unwrap();
    move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
}

fn connect_from(from: &str, to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let from = SocketAddr::new(from.parse().unwrap(), 0);
    socket.bind(&from.into()).unwrap();
    socket.connect(&to.into()).unwrap();
    socket.into()
}
