//! More connections than there are slots, and clients that speak another protocol.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use crossbeam_channel::Sender;

use crate::support::binary::Binary;
use crate::support::client::{Client, get, post};
use crate::support::peer::Peer;
use crate::support::{PATIENCE, eventually};

const MESSAGE: &str = r#"{"model":"m","messages":[]}"#;

/// The real binary, whose two slots are taken by requests that the provider does not answer yet.
struct Full {
    binary: Binary,
    address: SocketAddr,
    /// Makes the provider answer.
    release: Sender<()>,
    held: Vec<Client>,
    _peer: Peer,
    _folder: tempfile::TempDir,
}

fn start(folder: &std::path::Path, provider: &str, settings: &str) -> Binary {
    let config = format!(
        "settings: {{port: 0, state_dir: state{settings}}}\nproviders: [{{name: P, type: anthropic, base_url: \
         '{provider}', auth_type: none, max_in_flight: 2}}]\n"
    );
    std::fs::write(folder.join("providers.yaml"), config).unwrap();
    Binary::start(folder, &["run"], &[])
}

impl Full {
    fn start() -> Self {
        let (release, released) = crossbeam_channel::bounded::<()>(0);
        let peer = Peer::start(move |mut talk| {
            while talk.request().is_some() {
                let _ = released.recv();
                talk.answer(200, "late");
            }
        });
        let folder = tempfile::tempdir().unwrap();
        let binary = start(folder.path(), &peer.url(), ", max_connections: 2");
        let address = binary.address();
        let mut held: Vec<_> = (0..2).map(|_| Client::connect(address)).collect();
        for client in &mut held {
            client.send(post("/v1/messages", MESSAGE));
        }
        eventually("both are under way", || peer.seen().len() == 2);
        Self { binary, address, release, held, _peer: peer, _folder: folder }
    }

    /// The requests that hold the slots are unharmed, and newcomers are served after them.
    fn recovers(mut self) {
        for _ in &self.held {
            self.release.send(()).unwrap();
        }
        for client in &mut self.held {
            assert_eq!(client.answer().body, "late");
        }
        drop(self.release);
        // The workers of these may not wait for their next request yet.
        eventually("a newcomer is served", || {
            crate::support::client::ask(self.address, get("/v1/messages")).body == "late"
        });
        self.binary.signal(rustix::process::Signal::TERM);
        assert_eq!(self.binary.code(), Some(0));
    }
}

#[track_caller]
fn is_told(client: &mut Client, who: usize) {
    let told = client.answer();
    assert_eq!(
        (told.status, told.code(), told.whole),
        (503, "overloaded", true),
        "{who}: {told:?}"
    );
    assert_eq!(told.field("retry-after"), Some("1"), "{who}");
    // In the shape of the API that the request belongs to.
    assert_eq!(told.json()["error"]["type"], "overloaded_error", "{who}: {told:?}");
}

#[test]
fn of_600_newcomers_with_a_request_each_is_told_503_whole() {
    let full = Full::start();
    let mut newcomers: Vec<_> = (0..600)
        .map(|_| {
            let mut client = Client::connect(full.address);
            client.send(post("/v1/messages", MESSAGE));
            client
        })
        .collect();
    for (who, client) in newcomers.iter_mut().enumerate() {
        is_told(client, who);
        assert!(client.is_closed(), "{who}");
    }
    full.recovers();
}

#[test]
fn a_newcomer_with_a_large_body_reads_its_503_after_it_sent_all_of_it() {
    let full = Full::start();
    let large = post("/v1/messages", &"x".repeat(3 * 1024 * 1024));
    let mut newcomers = Vec::new();
    for who in 0..5 {
        let mut client = Client::connect(full.address);
        client.send(&large);
        is_told(&mut client, who);
        newcomers.push(client);
    }
    full.recovers();
}

#[test]
fn newcomers_that_send_nothing_or_a_part_do_not_hold_up_the_others() {
    let full = Full::start();
    let silent: Vec<_> = (0..300)
        .map(|index| {
            let mut stream = TcpStream::connect(full.address).unwrap();
            if index % 2 == 0 {
                stream.write_all(b"POST /v1/messages HTTP/1.1\r\nHost: localho").unwrap();
            }
            stream
        })
        .collect();
    for who in 0..3 {
        let mut client = Client::connect(full.address);
        client.send(post("/v1/messages", MESSAGE));
        is_told(&mut client, who);
    }
    // Even they are told, since a client may be slow for good reasons.
    for stream in silent {
        let mut client = Client::over(stream);
        assert_eq!(client.answer().status, 503);
    }
    full.recovers();
}

#[test]
fn pages_that_say_how_it_is_doing_need_no_slot() {
    let full = Full::start();
    let ask = |target: &str| crate::support::client::ask(full.address, get(target));
    assert_eq!((ask("/-/healthy").status, ask("/-/healthy").body), (200, "ok\n".to_owned()));
    assert_eq!(ask("/-/ready").json()["ready"], true);
    assert_eq!(ask("/-/status").json()["in_flight"], 2);
    assert!(ask("/-/metrics").body.contains("evertoken_requests_in_flight 2"));
    let refused = crate::support::client::ask(full.address, post("/-/refresh/p", ""));
    assert_eq!((refused.status, refused.code()), (503, "overloaded"), "an order needs a slot");
    let bad = crate::support::client::ask(full.address, "GET /\r\n\r\n");
    assert_eq!((bad.status, bad.code()), (400, "bad_request"));
    full.recovers();
}

#[test]
fn a_new_connection_without_a_request_that_gives_way_is_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let peer = Peer::answering(|_| crate::support::peer::answer(200, "fine"));
    let binary = start(folder.path(), &peer.url(), ", max_connections: 2");
    let mut silent = Client::connect(binary.address());
    // Each of these keeps its connection, so that the one that waits longest gives way in the end.
    let mut others = Vec::new();
    eventually("it gave way", || {
        let mut other = Client::connect(binary.address());
        other.send(get("/v1/messages"));
        other.answer();
        others.push(other);
        silent.has_word()
    });
    let told = silent.answer();
    assert_eq!((told.status, told.code(), told.whole), (503, "overloaded", true));
}

/// The first bytes of a TLS client, and of an HTTP/2 client.
const OTHERS: [(&[u8], &str); 2] = [
    (b"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03 and so on", "it speaks TLS"),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", "it speaks HTTP/2"),
];

/// True if the connection ends cleanly, without an answer.
fn ends_without_a_word(address: SocketAddr, bytes: &[u8]) -> bool {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(bytes).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut came = Vec::new();
    stream.read_to_end(&mut came).is_ok() && came.is_empty()
}

#[test]
fn a_client_that_speaks_tls_or_http2_is_closed_and_the_log_says_so_once() {
    let folder = tempfile::tempdir().unwrap();
    let binary = start(folder.path(), "http://127.0.0.1:9", "");
    for (bytes, said) in OTHERS {
        for _ in 0..3 {
            assert!(ends_without_a_word(binary.address(), bytes), "{said}");
        }
        let line = binary.wait_for(said);
        assert!(line.contains("[INFO] Closed a connection from 127.0.0.1: "), "{line}");
        let count = binary.lines().iter().filter(|line| line.contains(said)).count();
        assert_eq!(count, 1, "{:#?}", binary.lines());
    }
}

#[test]
fn without_a_slot_too_another_protocol_is_closed_and_said() {
    let full = Full::start();
    for (bytes, said) in OTHERS {
        assert!(ends_without_a_word(full.address, bytes), "{said}");
        full.binary.wait_for(said);
    }
    full.recovers();
}
