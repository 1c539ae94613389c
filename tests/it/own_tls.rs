//! TLS for clients (`settings.tls`).

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::time::Duration;

use evertoken::testing::{Stage, Supervisor};
use rustls::HandshakeKind;
use rustls::version::{TLS12, TLS13};

use crate::support::binary::{Binary, run, text};
use crate::support::cases;
use crate::support::client::Client;
use crate::support::own_tls::{Pair, Secure, ask, connect, connect_with_window};
use crate::support::peer::{Peer, answer};
use crate::support::proxy::{Builder, TestProxy};
use crate::support::{PATIENCE, eventually};
use crate::websocket::{ACCEPTED, handshake, masked};

const GET: &str = "GET /x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// A description of a proxy before `peer` that shows `pair`.
fn described(pair: &Pair, peer: &Peer) -> Builder {
    let folder = tempfile::tempdir().unwrap();
    pair.write(folder.path());
    let at = folder.path().display().to_string();
    TestProxy::builder()
        .settings(&format!("tls: {{cert_file: '{at}/cert.pem', key_file: '{at}/key.pem'}}"))
        .provider("P", "anthropic", &peer.url(), "auth_value: fixed")
        .folder(folder)
}

fn serving(pair: &Pair, peer: &Peer) -> TestProxy {
    described(pair, peer).start()
}

fn post(length: usize, more: &str) -> String {
    format!("POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n{more}\r\n")
}

/// Reads up to the end of an answer's head.
fn read_head(stream: &mut impl Read) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

#[test]
fn requests_come_over_both_versions_of_tls_as_without() {
    let (pair, peer) = (
        Pair::new(),
        Peer::answering(|asked| answer(200, &String::from_utf8(asked.body.clone()).unwrap())),
    );
    let proxy = serving(&pair, &peer);
    for (version, protocols) in
        [(&TLS12, &["http/1.1"][..]), (&TLS13, &[]), (&TLS13, &["h2", "http/1.1"])]
    {
        let mut secure = connect(proxy.address, &pair.client(&[version], protocols));
        // Kept alive, and larger than all buffers on the way.
        for size in [0, 1, 5000, 3_000_000] {
            let body = "x".repeat(size);
            secure.write_all(post(size, "").as_bytes()).unwrap();
            secure.write_all(body.as_bytes()).unwrap();
            let head = read_head(&mut secure);
            assert!(head.starts_with("HTTP/1.1 200"), "{head}");
            let mut came = vec![0; size];
            secure.read_exact(&mut came).unwrap();
            assert!(came == body.as_bytes(), "{size}");
        }
        assert_eq!(secure.conn.protocol_version(), Some(version.version));
        let chosen =
            secure.conn.alpn_protocol().map(|one| String::from_utf8_lossy(one).into_owned());
        assert_eq!(chosen.as_deref(), (!protocols.is_empty()).then_some("http/1.1"));
        // A client that says that it ends is told the same.
        secure.conn.send_close_notify();
        secure.flush().unwrap();
        assert_eq!(secure.read(&mut [0]).unwrap(), 0);
    }
}

#[test]
fn a_session_is_resumed_by_its_ticket() {
    let (pair, peer) = (Pair::new(), Peer::answering(|_| answer(200, "ok")));
    let proxy = serving(&pair, &peer);
    for version in [&TLS12, &TLS13] {
        let config = pair.client(&[version], &[]);
        for expected in [HandshakeKind::Full, HandshakeKind::Resumed, HandshakeKind::Resumed] {
            let mut secure = connect(proxy.address, &config);
            secure.write_all(GET.as_bytes()).unwrap();
            let mut came = String::new();
            secure.read_to_string(&mut came).unwrap();
            assert!(came.ends_with("ok"));
            assert_eq!(secure.conn.handshake_kind(), Some(expected), "{version:?}");
        }
    }
}

#[test]
fn a_client_of_http_2_alone_is_told_that_no_protocol_fits() {
    let (pair, peer) = (Pair::new(), Peer::answering(|_| answer(200, "ok")));
    let proxy = serving(&pair, &peer);
    let refused = ask(proxy.address, &pair.client(rustls::ALL_VERSIONS, &["h2"]), GET).unwrap_err();
    assert!(refused.to_string().contains("NoApplicationProtocol"), "{refused}");
}

#[test]
fn a_renewed_certificate_is_shown_without_a_restart_and_a_wrong_pair_is_kept_out() {
    let (old, new, peer) = (Pair::new(), Pair::new(), Peer::answering(|_| answer(200, "ok")));
    let proxy = serving(&old, &peer);
    let mut kept = connect(proxy.address, &old.usual());
    kept.write_all(post(0, "").as_bytes()).unwrap();
    read_head(&mut kept);
    new.write(proxy.folder());
    eventually("the new certificate is shown", || {
        ask(proxy.address, &new.usual(), GET).is_ok_and(|came| came.ends_with("ok"))
    });
    assert!(ask(proxy.address, &old.usual(), GET).is_err());
    // Connections that are there go on.
    let mut body = [0; 2];
    kept.read_exact(&mut body).unwrap();
    kept.write_all(post(0, "").as_bytes()).unwrap();
    assert!(read_head(&mut kept).starts_with("HTTP/1.1 200"));
    // A certificate of another key.
    std::fs::write(proxy.folder().join("cert.pem"), &old.certificate).unwrap();
    std::fs::remove_file(proxy.folder().join("key.pem")).unwrap();
    std::thread::yield_now();
    let third = Pair::new();
    for _ in 0..3 {
        assert!(ask(proxy.address, &new.usual(), GET).is_ok());
    }
    third.write(proxy.folder());
    eventually("the third certificate is shown", || {
        ask(proxy.address, &third.usual(), GET).is_ok()
    });
}

/// The answer to bytes without TLS, in the words of the cases.
fn word(came: &[u8]) -> String {
    const PLAIN: &str = "The plain HTTP request was sent to HTTPS port";
    match came {
        [] => "none".to_owned(),
        // A record with an alert: fatal, and its number.
        [0x15, 3, _, 0, 2, 2, number] => format!("alert {number}"),
        _ => {
            let text = String::from_utf8_lossy(came);
            let is_whole = text.split_once("\r\n\r\n").is_some_and(|(head, body)| {
                head.starts_with("HTTP/1.1 400 ")
                    && head.contains(&format!("Content-Length: {}\r\n", body.len()))
                    && body.starts_with(PLAIN)
            });
            if is_whole { "400 plain".to_owned() } else { format!("{came:?}") }
        }
    }
}

#[test]
fn other_bytes_than_a_handshake_are_refused_and_nothing_of_them_is_served() {
    let (pair, peer) = (Pair::new(), Peer::answering(|_| answer(200, "ok")));
    let proxy = serving(&pair, &peer);
    let cases = cases::of_handshakes();
    assert!(cases.len() >= 15);
    let mut wrong = Vec::new();
    for case in cases {
        // Whole, and byte by byte at the start.
        for cut in [0, 1, 2, 5, 6, case.input.len()] {
            let (first, rest) = case.input.split_at(cut.min(case.input.len()));
            let mut client = Client::connect(proxy.address);
            client.send(first);
            client.send(rest);
            if case.ends {
                client.half_close();
            }
            let mut came = Vec::new();
            client.rest(&mut came);
            if [word(&came)] != *case.expected {
                wrong.push(format!("{} at {cut}: {}", case.name, word(&came)));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(peer.seen().is_empty());
    assert!(ask(proxy.address, &pair.usual(), GET).unwrap().ends_with("ok"));
}

#[test]
fn a_body_that_breaks_off_without_a_close_notify_is_no_whole_request() {
    let pair = Pair::new();
    let peer = Peer::answering(|_| answer(200, "ok"));
    let proxy = serving(&pair, &peer);
    for start in
        [post(10, ""), post(0, "").replace("Content-Length: 0", "Transfer-Encoding: chunked")]
    {
        let mut secure = connect(proxy.address, &pair.usual());
        secure.write_all(start.as_bytes()).unwrap();
        secure.write_all(b"5\r\nab").unwrap();
        secure.sock.shutdown(Shutdown::Both).unwrap();
    }
    assert!(ask(proxy.address, &pair.usual(), GET).unwrap().ends_with("ok"));
    assert_eq!(peer.seen().len(), 1);
}

/// An answer that ends with its connection says by a `close_notify` alone that it is whole.
#[test]
fn a_cut_answer_ends_without_a_close_notify_where_its_end_is_that_of_the_connection() {
    let pair = Pair::new();
    let peer = Peer::start(|mut talk| {
        let Some(asked) = talk.request() else { return };
        talk.send("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n");
        if asked.line.contains("whole") {
            talk.send("0\r\n\r\n");
        }
    });
    let proxy = serving(&pair, &peer);
    let of =
        |path: &str| ask(proxy.address, &pair.usual(), &format!("GET {path} HTTP/1.0\r\n\r\n"));
    assert!(of("/whole").unwrap().ends_with("hello"));
    let cut = of("/cut").unwrap_err();
    let kinds = [std::io::ErrorKind::UnexpectedEof, std::io::ErrorKind::ConnectionReset];
    assert!(kinds.contains(&cut.kind()), "{cut}");
}

#[test]
fn slow_handshakes_keep_nobody_out() {
    const SLOW: usize = 500;
    let (pair, peer) = (Pair::new(), Peer::answering(|_| answer(200, "ok")));
    let proxy = described(&pair, &peer).settings("max_connections: 16").start();
    let config = pair.usual();
    let mut slow = Vec::new();
    for number in 0..SLOW {
        let mut client = TcpStream::connect(proxy.address).unwrap();
        if number % 2 == 0 {
            client.write_all(&[0x16, 3, 1]).unwrap();
        }
        slow.push(client);
        if number % 50 == 49 {
            let came = ask(proxy.address, &config, GET);
            assert!(came.as_ref().is_ok_and(|came| came.ends_with("ok")), "{number}: {came:?}");
        }
    }
}

#[test]
fn a_handshake_that_does_not_come_ends_with_the_time_of_a_head() {
    let (pair, peer) = (Pair::new(), Peer::answering(|_| answer(200, "ok")));
    let proxy = described(&pair, &peer).settings("timeouts: {client_head: 1}").start();
    for start in [&[][..], &[0x16, 3, 1]] {
        let mut client = Client::connect(proxy.address);
        client.send(start);
        assert!(client.is_closed());
    }
}

#[test]
fn a_client_that_leaves_ends_its_exchange() {
    let pair = Pair::new();
    let (gone, has_gone) = crossbeam_channel::unbounded();
    let (begun, has_begun) = crossbeam_channel::unbounded();
    let peer = Peer::start(move |mut talk| {
        talk.request();
        begun.send(()).unwrap();
        talk.wait_for_close();
        let _ = gone.send(());
    });
    let proxy = serving(&pair, &peer);
    for says_so in [true, false] {
        let mut secure = connect(proxy.address, &pair.usual());
        secure.write_all(GET.as_bytes()).unwrap();
        has_begun.recv_timeout(PATIENCE).unwrap();
        if says_so {
            secure.conn.send_close_notify();
            secure.flush().unwrap();
            has_gone.recv_timeout(PATIENCE).unwrap();
        } else {
            drop(secure);
            has_gone.recv_timeout(PATIENCE).unwrap();
        }
    }
}

#[test]
fn a_stop_lets_a_stream_end_and_cuts_off_what_goes_on() {
    let pair = Pair::new();
    let (go_on, may_go_on) = crossbeam_channel::unbounded::<()>();
    let peer = Peer::start(move |mut talk| {
        let Some(asked) = talk.request() else { return };
        talk.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n");
        if asked.line.contains("ends") {
            let _ = may_go_on.recv_timeout(PATIENCE);
            talk.send("3\r\nend\r\n0\r\n\r\n");
        }
        talk.wait_for_close();
    });
    let mut proxy = described(&pair, &peer).settings("shutdown_grace: 2").start();
    let open = |path: &str| {
        let mut secure = connect(proxy.address, &pair.usual());
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        secure.write_all(request.as_bytes()).unwrap();
        read_head(&mut secure);
        let mut piece = [0; 10];
        secure.read_exact(&mut piece).unwrap();
        assert_eq!(&piece, b"5\r\nhello\r\n");
        secure
    };
    let (mut ending, mut endless, mut idle) =
        (open("/ends"), open("/goes-on"), connect(proxy.address, &pair.usual()));
    idle.write_all(b"GET /-/healthy HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    read_head(&mut idle);
    go_on.send(()).unwrap();
    assert_eq!(proxy.stop(), 1);
    let mut rest = String::new();
    ending.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "3\r\nend\r\n0\r\n\r\n");
    let mut rest = String::new();
    let cut = endless.read_to_string(&mut rest);
    assert!(cut.is_err() && !rest.contains("0\r\n\r\n"), "{cut:?} {rest}");
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).unwrap();
}

/// A proxy before a peer with a large answer, and a client that has read so much of it that the rest is no
/// longer in the server's hands, but on its way through TLS.
fn with_answer_on_its_way(peer: &Peer, pair: &Pair, settings: &str) -> (TestProxy, Secure, usize) {
    // Less than the socket pair holds, so that some of it is still there at the end.
    const WINDOW_BYTES: usize = 256 * 1024;
    // More than the system holds for a connection.
    const BUFFERED_BYTES: usize = 8_000_000;
    const PIECE_BYTES: usize = 16 * 1024;
    let proxy = described(pair, peer).settings(settings).start();
    let mut reading = connect_with_window(proxy.address, &pair.usual(), WINDOW_BYTES);
    reading.write_all(GET.as_bytes()).unwrap();
    read_head(&mut reading);
    let mut asking = connect(proxy.address, &pair.usual());
    let mut piece = vec![0; LARGE_BYTES - BUFFERED_BYTES];
    reading.read_exact(&mut piece).unwrap();
    let mut read = piece.len();
    piece.truncate(PIECE_BYTES);
    while in_flight(&mut asking) > 0 {
        reading.read_exact(&mut piece).unwrap();
        read += piece.len();
    }
    (proxy, reading, read)
}

/// The number of requests that the server works on.
fn in_flight(asking: &mut Secure) -> u64 {
    asking.write_all(b"GET /-/status HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let head = read_head(asking).to_ascii_lowercase();
    let (_, length) = head.split_once("content-length: ").unwrap();
    let mut page = vec![0; length.lines().next().unwrap().parse().unwrap()];
    asking.read_exact(&mut page).unwrap();
    let page: serde_json::Value = serde_json::from_slice(&page).unwrap();
    page["in_flight"].as_u64().unwrap()
}

/// More than fits into all buffers on the way.
const LARGE_BYTES: usize = 12_000_000;

fn large_peer(bytes: usize) -> Peer {
    Peer::answering(move |_| answer(200, &"x".repeat(bytes)))
}

fn read_rest(reading: &mut Secure) -> usize {
    let mut rest = Vec::new();
    reading.read_to_end(&mut rest).expect("TLS says that it is whole");
    rest.len()
}

/// It lost what a client had not taken half a second after the stop.
#[test]
fn a_stop_waits_for_a_client_that_still_reads() {
    // The system takes bytes from the thread in large portions, so of some of these sizes a part is left in its hands when
    // the server is done.
    const PORTION_BYTES: usize = 1_500_000;
    const SIZES: usize = 8;
    let pair = Pair::new();
    for number in 0..SIZES {
        let size = LARGE_BYTES + number * PORTION_BYTES / SIZES;
        let peer = large_peer(size);
        let (mut proxy, mut reading, read) =
            with_answer_on_its_way(&peer, &pair, "shutdown_grace: 20");
        let (done, stopped) = crossbeam_channel::bounded(1);
        let stop = move || done.send(proxy.stop()).unwrap();
        let stopping = evertoken::testing::spawn("stop", 256 * 1024, stop).unwrap();
        // Longer than it waited. An earlier end says that nothing was left, or that it is lost.
        let _ = stopped.recv_timeout(Duration::from_secs(1));
        assert_eq!(read + read_rest(&mut reading), size);
        drop(stopping);
    }
}

const GET_HEALTHY: &str = "GET /-/healthy HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// A binary with so many slots and descriptors, before a peer that holds each request until the sender is dropped.
fn with_descriptors(
    pair: &Pair,
    connections: usize,
    descriptors: u64,
) -> (Binary, tempfile::TempDir, Peer, crossbeam_channel::Sender<()>) {
    let (release, released) = crossbeam_channel::bounded::<()>(0);
    let peer = Peer::start(move |mut talk| {
        while talk.request().is_some() {
            talk.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n");
            let _ = released.recv();
            talk.send("ok");
        }
    });
    let folder = tempfile::tempdir().unwrap();
    pair.write(folder.path());
    let config = format!(
        "settings: {{tls: {{cert_file: cert.pem, key_file: key.pem}}, port: 0, state_dir: state, max_connections: \
         {connections}}}\nproviders: [{{name: P, type: generic, base_url: '{}', auth_value_env: KEY, \
         max_in_flight: {connections}}}]\n",
        peer.url()
    );
    std::fs::write(folder.path().join("providers.yaml"), config).unwrap();
    let script = format!("ulimit -n {descriptors}; exec {} run", env!("CARGO_BIN_EXE_evertoken"));
    let running = Binary::start_shell(folder.path(), &script, &KEY);
    running.wait_for("Listening on https://");
    (running, folder, peer, release)
}

/// Every slot can be used, each with a request at a provider, and the door still answers those without one.
#[test]
fn with_enough_descriptors_all_slots_are_served_over_tls_and_the_next_client_is_told() {
    const CONNECTIONS: usize = 24;
    let pair = Pair::new();
    // Sixteen at the door, and as many that shake hands.
    let enough = 4 * CONNECTIONS as u64 + 64 + 3 * 16 + 16;
    let (running, _folder, _peer, release) = with_descriptors(&pair, CONNECTIONS, enough);
    let address = running.address();
    let config = pair.usual();
    let mut busy: Vec<_> = (0..CONNECTIONS).map(|_| connect(address, &config)).collect();
    for (number, one) in busy.iter_mut().enumerate() {
        one.write_all(GET.as_bytes()).unwrap();
        let head = read_head(one);
        if !head.starts_with("HTTP/1.1 200") {
            let mut body = String::new();
            let _ = one.read_to_string(&mut body);
            panic!("{number}: {head}{body}");
        }
    }
    let slow: Vec<_> = (0..40).map(|_| TcpStream::connect(address).unwrap()).collect();
    let refused = ask(address, &config, GET).unwrap();
    assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
    drop((slow, release));
    for one in &mut busy {
        let mut body = String::new();
        one.read_to_string(&mut body).unwrap();
        assert_eq!(body, "ok");
    }
    let lines = running.lines();
    assert!(
        !lines.iter().any(|line| line.contains("descriptors") || line.contains("No connection")),
        "{lines:?}"
    );
}

/// A connection whose handshake was done was closed without a word.
#[test]
fn without_descriptors_clients_over_tls_wait_and_are_served() {
    let pair = Pair::new();
    let (running, _folder, _peer, release) = with_descriptors(&pair, 64, 64);
    running.wait_for(
        "64 descriptors are allowed (ulimit -n), but settings.max_connections (64) may need 320",
    );
    let address = running.address();
    let config = pair.usual();
    // Kept alive, so all descriptors are in the hands of connections that wait.
    let mut kept = Vec::new();
    for number in 0..40 {
        let mut one = connect(address, &config);
        one.write_all(GET_HEALTHY.replace("Connection: close", "X: y").as_bytes()).unwrap();
        let head = read_head(&mut one);
        assert!(head.starts_with("HTTP/1.1 200"), "{number}: {head}");
        kept.push(one);
    }
    drop((kept, release));
    eventually("a request is served", || {
        ask(address, &config, GET).is_ok_and(|came| came.ends_with("ok"))
    });
}

#[test]
fn a_websocket_passes_over_tls_and_a_stop_takes_leave_of_it() {
    const MESSAGE_BYTES: usize = 20_000;
    let peer = Peer::start(|mut talk| {
        if talk.request().is_some() && talk.send(ACCEPTED) {
            while talk.byte().is_some_and(|byte| talk.send([byte])) {}
        }
    });
    let pair = Pair::new();
    let mut proxy = described(&pair, &peer).settings("shutdown_grace: 0").start();
    let mut secure = connect(proxy.address, &pair.usual());
    secure.write_all(handshake("/x", "").as_bytes()).unwrap();
    let head = read_head(&mut secure);
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    let message = masked(MESSAGE_BYTES);
    secure.write_all(&message).unwrap();
    let mut came = vec![0; message.len()];
    secure.read_exact(&mut came).unwrap();
    assert!(came == message);
    proxy.stop();
    let mut rest = Vec::new();
    secure.read_to_end(&mut rest).unwrap();
    // A close frame with the code 1001.
    assert_eq!((rest[0], &rest[2..4]), (0x88, &[3, 0xe9][..]), "{rest:?}");
}

/// The socket pair behind TLS is a unix socket too, but its client comes from anywhere.
#[test]
fn a_client_over_tls_is_not_taken_for_one_over_a_unix_socket() {
    let (pair, peer) = (Pair::new(), Peer::answering(|_| answer(200, "ok")));
    let proxy = described(&pair, &peer).settings("token_endpoint: true").start();
    let with = |path: &str, more: &str| {
        let request = format!("GET {path} HTTP/1.1\r\n{more}\r\nConnection: close\r\n\r\n");
        ask(proxy.address, &pair.usual(), &request).unwrap()
    };
    let foreign = with("/x", "Host: evil.example");
    assert!(foreign.starts_with("HTTP/1.1 403"), "{foreign}");
    let token = with("/-/token/p", "Host: localhost");
    assert!(!token.starts_with("HTTP/1.1 200"), "{token}");
    let own = "Host: localhost:1\r\nOrigin: https://localhost:1\r\nSec-Fetch-Site: same-origin";
    assert!(with("/x", own).starts_with("HTTP/1.1 200"));
}

#[test]
fn the_watchdog_asks_over_tls() {
    let (told, stages) = crossbeam_channel::unbounded();
    let tell = move |stage: &Stage| drop(told.send(stage.clone()));
    let (pair, peer) = (Pair::new(), Peer::answering(|_| answer(200, "ok")));
    let supervisor = Supervisor::from_fn(tell, Some(Duration::from_millis(400)));
    let proxy = described(&pair, &peer).supervisor(supervisor).start();
    let ready = stages.recv_timeout(PATIENCE).unwrap();
    let Stage::Ready(line) = ready else { panic!("{ready:?}") };
    assert!(line.starts_with(&format!("Listening on https://{}; ", proxy.address)), "{line}");
    let next = stages.recv_timeout(PATIENCE).unwrap();
    assert!(matches!(next, Stage::Alive(_)), "{next:?}");
}

/// A folder with a configuration and `pair`, which listens on `port`.
fn configured(pair: &Pair, port: u16) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    pair.write(folder.path());
    write_config(folder.path(), port, "{cert_file: cert.pem, key_file: key.pem}");
    folder
}

fn write_config(folder: &Path, port: u16, tls: &str) {
    let state = folder.join("state");
    let text = format!(
        "settings: {{tls: {tls}, port: {port}, state_dir: '{}'}}\nproviders: [{{name: P, type: generic, base_url: \
         \"http://127.0.0.1:9\", auth_value_env: KEY}}]\n",
        state.display()
    );
    std::fs::write(folder.join("providers.yaml"), text).unwrap();
}

const KEY: [(&str, &str); 1] = [("KEY", "k")];

#[test]
fn status_and_reload_reach_an_evertoken_that_speaks_tls() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let folder = configured(&Pair::new(), port);
    let running = Binary::start(folder.path(), &["run"], &KEY);
    running.wait_for(&format!("Listening on https://127.0.0.1:{port}"));
    let status = run(folder.path(), &["status"], &KEY);
    let (out, err) = (text(&status.stdout), text(&status.stderr));
    assert_eq!(status.status.code(), Some(0), "{out}{err}");
    assert!(out.contains(&format!("https://127.0.0.1:{port}")), "{out}");
    // The key of another one would get no word from us.
    let other = configured(&Pair::new(), port);
    let status = run(other.path(), &["status"], &KEY);
    let told = text(&status.stderr);
    assert!(told.contains("another certificate than the one in settings.tls"), "{told}");
    assert!(!told.contains("is it running?") && !told.contains("can't be reached"), "{told}");
    write_config(folder.path(), port, "null");
    let id = running.id().to_string();
    // Some systems do not tell who listens, so the process has to be named.
    let named: &[&str] = if cfg!(feature = "portable") { &["--pid", &id] } else { &[] };
    let reload = run(folder.path(), &[&["reload"], named].concat(), &KEY);
    let (out, err) = (text(&reload.stdout), text(&reload.stderr));
    assert!(err.contains("settings.tls takes effect at the next start"), "{out}{err}");
}

#[test]
fn a_check_finds_what_is_wrong_with_a_certificate() {
    let pair = Pair::new();
    let folder = configured(&pair, 0);
    let told = |tls: &str| {
        write_config(folder.path(), 0, tls);
        let output = run(folder.path(), &["check"], &KEY);
        (output.status.code(), text(&output.stderr))
    };
    let fine = told("{cert_file: cert.pem, key_file: key.pem}");
    assert_eq!(fine, (Some(0), String::new()));
    let write = |name: &str, content: &str| {
        std::fs::write(folder.path().join(name), content).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(folder.path().join(name), mode).unwrap();
    };
    write("both.pem", &format!("{}{}", pair.key, pair.certificate));
    assert_eq!(told("{cert_file: both.pem}"), fine);
    let (early, late) = (Pair::valid(2100, 2120), Pair::valid(2020, 2021));
    write("early.pem", &format!("{}{}", early.key, early.certificate));
    write("late.pem", &format!("{}{}", late.key, late.certificate));
    write("other.pem", &Pair::new().key);
    write("empty.pem", "");
    for (tls, message) in [
        ("{}", "1:17: 'tls' needs a 'cert_file'"),
        ("{cert_file: none.pem}", "1:29: Missing secret file: 'none.pem' (No such file"),
        (
            "{cert_file: cert.pem, key_file: none.pem}",
            "1:49: Missing secret file: 'none.pem' (No such file",
        ),
        (
            "{cert_file: cert.pem}",
            "1:29: 'cert.pem' can't be used: it holds a certificate and no private key",
        ),
        (
            "{cert_file: key.pem}",
            "1:29: 'key.pem' can't be used: there is no PEM certificate in it",
        ),
        ("{cert_file: empty.pem}", "1:29: Missing secret file: 'empty.pem' (it is empty"),
        (
            "{cert_file: cert.pem, key_file: other.pem}",
            "1:29: the certificate in 'cert.pem' belongs to another key",
        ),
        ("{cert_file: early.pem}", "1:29: the certificate is not valid before 2100-01-01"),
        ("{cert_file: late.pem}", "1:29: the certificate expired at 2021-01-01"),
        ("{cert_file: cert.pem, key: x}", "unknown key 'key' in tls"),
        ("cert.pem", "1:17: tls must hold keys and values"),
    ] {
        let (code, lines) = told(tls);
        assert_eq!(code, Some(78), "{tls}: {lines}");
        assert!(lines.contains(message), "{tls}: {lines}");
    }
    // A start with a wrong clock must not fail for it, and `check --start` refused what starts.
    write_config(folder.path(), 0, "{cert_file: early.pem}");
    let check = run(folder.path(), &["check", "--start"], &KEY);
    assert_eq!((check.status.code(), text(&check.stderr)), (Some(0), String::new()));
    let running = Binary::start(folder.path(), &["run"], &KEY);
    running.wait_for("WARN");
    running.wait_for("Listening on https://");
}
