//! TLS to providers and issuers: own roots, what is refused, and the same behaviour as without it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use crossbeam_channel::Receiver;
use rcgen::{CertificateParams, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::support::PATIENCE;
use crate::support::client::{Client, get, post};
use crate::support::peer::{Peer, answer};
use crate::support::proxy::TestProxy;
use crate::websocket::{ACCEPTED, handshake};

/// An authority of our own, as PEM, and certificates signed by it.
pub(crate) struct Authority {
    pub(crate) pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    pub(crate) fn server(&self, name: &str, expires_in_year: i32) -> Arc<ServerConfig> {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(expires_in_year, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        serving(certificate.der().to_vec(), &key)
    }
}

/// A server whose certificate nobody else signed, perhaps that of an authority, and the certificate as PEM.
fn signed_by_itself(is_authority: bool) -> (Arc<ServerConfig>, String) {
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    if is_authority {
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    }
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    (serving(certificate.der().to_vec(), &key), certificate.pem())
}

fn serving(certificate: Vec<u8>, key: &KeyPair) -> Arc<ServerConfig> {
    let chain = vec![CertificateDer::from(certificate)];
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    Arc::new(config)
}

/// Ends TLS in front of `peer`; a connection that fails its handshake is closed.
fn front(config: Arc<ServerConfig>, peer: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let run = move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let config = config.clone();
            let serve = move || drop(pipe(stream, config, peer));
            evertoken::testing::spawn("tls", 512 * 1024, serve).unwrap().detach();
        }
    };
    evertoken::testing::spawn("front", 256 * 1024, run).unwrap().detach();
    address
}

/// Passes requests and answers on in turn, which is all that a script needs.
fn pipe(
    stream: std::net::TcpStream,
    config: Arc<ServerConfig>,
    peer: SocketAddr,
) -> std::io::Result<()> {
    let mut plain = std::net::TcpStream::connect(peer)?;
    stream.set_nodelay(true)?;
    plain.set_nodelay(true)?;
    let poll = std::time::Duration::from_millis(5);
    let connection = ServerConnection::new(config).map_err(std::io::Error::other)?;
    let mut tls = StreamOwned::new(connection, stream);
    while tls.conn.is_handshaking() {
        tls.conn.complete_io(&mut tls.sock)?;
    }
    tls.sock.set_read_timeout(Some(poll))?;
    plain.set_read_timeout(Some(poll))?;
    let mut buffer = [0; 4096];
    let is_quiet = |error: &std::io::Error| {
        matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
    };
    loop {
        match tls.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => plain.write_all(&buffer[..count])?,
            Err(error) if is_quiet(&error) => {}
            Err(error) => return Err(error),
        }
        match plain.read(&mut buffer) {
            Ok(0) => {
                tls.conn.send_close_notify();
                tls.flush()?;
                return Ok(());
            }
            Ok(count) => {
                tls.write_all(&buffer[..count])?;
                tls.flush()?;
            }
            Err(error) if is_quiet(&error) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Shakes hands, reads a head, answers with `status` and leaves the body unread; closes once `closing` is
/// disconnected.
fn answering_early(config: Arc<ServerConfig>, status: u16, closing: Receiver<()>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let talk = move |stream: std::net::TcpStream| -> std::io::Result<()> {
        stream.set_read_timeout(Some(PATIENCE))?;
        // Else the answer would wait for the session tickets to be acknowledged, and be lost by the close.
        stream.set_nodelay(true)?;
        let connection = ServerConnection::new(config.clone()).map_err(std::io::Error::other)?;
        let mut tls = StreamOwned::new(connection, stream);
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            tls.read_exact(&mut byte)?;
            head.extend(byte);
        }
        tls.write_all(answer(status, "early").as_bytes())?;
        tls.flush()?;
        let _ = closing.recv_timeout(PATIENCE);
        Ok(())
    };
    let run =
        move || listener.incoming().map_while(Result::ok).for_each(|stream| drop(talk(stream)));
    evertoken::testing::spawn("early", 512 * 1024, run).unwrap().detach();
    address
}

pub(crate) fn url(address: SocketAddr) -> String {
    format!("https://localhost:{}", address.port())
}

/// A proxy before `url` that trusts `pem` beside the public roots.
fn proxy_before(url: &str, pem: &str) -> (TestProxy, tempfile::TempDir) {
    proxy_with("", url, pem)
}

/// The same with these settings.
fn proxy_with(settings: &str, url: &str, pem: &str) -> (TestProxy, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, pem).unwrap();
    let lines = format!("auth_value: fixed\nca_file: \"{}\"", file.display());
    let builder = TestProxy::builder().settings(settings);
    (builder.provider("P", "anthropic", url, &lines).start(), folder)
}

#[test]
fn requests_streams_and_kept_connections_over_tls() {
    let authority = Authority::new();
    let (step, steps) = crossbeam_channel::bounded::<()>(0);
    let peer = Peer::start(move |mut talk| {
        while let Some(seen) = talk.request() {
            if seen.line.starts_with("POST") {
                talk.answer(200, &String::from_utf8(seen.body).unwrap());
                continue;
            }
            talk.send("HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n");
            for index in 0..3 {
                steps.recv_timeout(PATIENCE).unwrap();
                talk.send(format!("1\r\n{index}\r\n"));
            }
            talk.send("0\r\n\r\n");
        }
    });
    let front = front(authority.server("localhost", 2120), peer.address);
    let (proxy, _folder) = proxy_before(&url(front), &authority.pem);
    // Over one connection, so that the first exchange has ended before the second begins.
    let mut client = Client::connect(proxy.address);
    for body in ["small".to_owned(), "x".repeat(300_000)] {
        client.send(post("/", &body));
        assert_eq!(client.answer().body, body);
    }
    assert_eq!(peer.seen().iter().map(|seen| seen.connection).max(), Some(0), "it was kept");
    let mut client = Client::connect(proxy.address);
    client.send(get("/stream"));
    assert_eq!(client.head().status, 200);
    for index in 0..3 {
        step.send_timeout((), PATIENCE).unwrap();
        assert_eq!(client.chunk(), Some(index.to_string()));
    }
    assert_eq!(client.chunk(), None);
}

#[test]
fn a_client_that_leaves_ends_the_exchange_over_tls() {
    let authority = Authority::new();
    let (gone, ended) = crossbeam_channel::bounded(1);
    let peer = Peer::start(move |mut talk| {
        talk.request();
        talk.wait_for_close();
        let _ = gone.send(());
    });
    let front = front(authority.server("localhost", 2120), peer.address);
    let (proxy, _folder) = proxy_before(&url(front), &authority.pem);
    let mut client = Client::connect(proxy.address);
    client.send(get("/"));
    crate::support::eventually("the request is upstream", || peer.seen().len() == 1);
    drop(client);
    ended.recv_timeout(PATIENCE).expect("the upstream exchange ends");
}

#[test]
fn certificates_that_do_not_fit_are_refused() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let peer = Peer::answering(|_| answer(200, "fine"));
    let (by_itself, by_itself_pem) = signed_by_itself(false);
    let (of_authority, of_authority_pem) = signed_by_itself(true);
    let cases = [
        (authority.server("localhost", 2120), &authority.pem, 200, "fine"),
        (by_itself.clone(), &by_itself_pem, 200, "fine"),
        (authority.server("other.example", 2120), &authority.pem, 502, "not valid for name"),
        (
            authority.server("localhost", 2021),
            &authority.pem,
            502,
            "has expired, or this machine's clock is wrong",
        ),
        (
            authority.server("localhost", 2120),
            &stranger.pem,
            502,
            "name the signer's PEM file as ca_file",
        ),
        (by_itself, &stranger.pem, 502, "name the signer's PEM file as ca_file"),
        (of_authority, &of_authority_pem, 502, "basicConstraints=CA:FALSE"),
    ];
    for (index, (config, pem, status, words)) in cases.into_iter().enumerate() {
        let (proxy, _folder) = proxy_before(&url(front(config, peer.address)), pem);
        let answered = proxy.ask(get("/"));
        assert_eq!(answered.status, status, "case {index}");
        assert!(answered.body.contains(words), "case {index}: {}", answered.body);
        if status == 502 {
            assert_eq!(answered.code(), "upstream_unreachable");
            assert!(answered.body.contains("certificate"), "case {index}: {}", answered.body);
        }
    }
    assert_eq!(peer.seen().len(), 2);
}

#[test]
fn an_answer_that_comes_before_the_body_was_sent_is_not_lost_over_tls() {
    let authority = Authority::new();
    for (status, replay, closes) in
        [(413, 1_000, true), (413, 16_000_000, true), (401, 1_000, false), (401, 16_000_000, false)]
    {
        let (open, closing) = crossbeam_channel::bounded(0);
        // Dropped at once, it closes at once.
        let open = (!closes).then_some(open);
        let server = answering_early(authority.server("localhost", 2120), status, closing);
        let settings = format!("replay_body_bytes: {replay}");
        let (proxy, _folder) = proxy_with(&settings, &url(server), &authority.pem);
        let mut client = Client::connect(proxy.address);
        client.send(post("/", &"x".repeat(8_000_000)));
        let answered = client.answer();
        let seen = (answered.status, answered.body.as_str(), answered.whole);
        assert_eq!(seen, (status, "early", true), "{replay} {closes}");
        drop(open);
    }
}

/// Shakes hands, reads a head, and hands the session and its socket to `act`.
pub(crate) fn talking(
    config: Arc<ServerConfig>,
    act: impl Fn(ServerConnection, std::net::TcpStream) -> std::io::Result<()> + Send + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let talk = move |stream: std::net::TcpStream| -> std::io::Result<()> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        let session = ServerConnection::new(config.clone()).map_err(std::io::Error::other)?;
        let mut tls = StreamOwned::new(session, stream);
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            tls.read_exact(&mut byte)?;
            head.extend(byte);
        }
        act(tls.conn, tls.sock)
    };
    let run =
        move || listener.incoming().map_while(Result::ok).for_each(|stream| drop(talk(stream)));
    evertoken::testing::spawn("talking", 512 * 1024, run).unwrap().detach();
    address
}

#[test]
fn a_body_that_ends_with_its_connection_is_cut_where_tls_did_not_say_that_it_ends() {
    let authority = Authority::new();
    for says_so in [true, false] {
        let server =
            talking(authority.server("localhost", 2120), move |mut session, mut stream| {
                session.writer().write_all(b"HTTP/1.1 200 X\r\n\r\nhalf of it")?;
                if says_so {
                    session.send_close_notify();
                }
                while session.wants_write() {
                    session.write_tls(&mut stream)?;
                }
                // Ours first, so that nothing is left unread and the end is no reset.
                stream.shutdown(std::net::Shutdown::Write)?;
                std::io::copy(&mut stream, &mut std::io::sink()).map(drop)
            });
        let (proxy, _folder) = proxy_before(&url(server), &authority.pem);
        let answered = proxy.ask(get("/"));
        assert_eq!((answered.status, answered.body.as_str()), (200, "half of it"));
        assert_eq!(answered.whole, says_so);
    }
}

/// A form can't show that it is whole: half a token was sent to the provider.
#[test]
fn a_token_answer_that_tls_cuts_counts_only_where_it_is_json_with_whole_tokens() {
    let authority = Authority::new();
    for (kind, body, is_taken, stored) in [
        ("application/x-www-form-urlencoded", "expires_in=3600&access_token=hal", false, None),
        ("application/json", r#"{"expires_in":3600,"access_token":"hal"#, false, None),
        (
            "application/json",
            r#"{"expires_in":3600,"access_token":"whole"}"#,
            true,
            Some("the-seed"),
        ),
        (
            "application/json",
            r#"{"expires_in":3600,"access_token":"whole","refresh_token":"hal"#,
            false,
            None,
        ),
        // The next refresh token would be lost with the rest.
        (
            "application/json",
            r#"{"expires_in":3600,"access_token":"whole","refresh_token":"next","id_token":"hal"#,
            true,
            Some("next"),
        ),
    ] {
        let issuer =
            talking(authority.server("localhost", 2120), move |mut session, mut stream| {
                let answer = format!("HTTP/1.1 200 X\r\ncontent-type: {kind}\r\n\r\n{body}");
                session.writer().write_all(answer.as_bytes())?;
                while session.wants_write() {
                    session.write_tls(&mut stream)?;
                }
                stream.shutdown(std::net::Shutdown::Write)?;
                std::io::copy(&mut stream, &mut std::io::sink()).map(drop)
            });
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        std::fs::write(&file, &authority.pem).unwrap();
        let lines = format!(
            "ca_file: \"{}\"\nauto_refresh_config:\n  token_url: \"{}/token\"\n  client_auth: none\n  \
             client_id_env: CLIENT_ID\n  refresh_token_env: REFRESH_TOKEN",
            file.display(),
            url(issuer)
        );
        let builder = TestProxy::builder().settings("shutdown_grace: 0");
        let proxy = builder.provider("P", "anthropic", "http://127.0.0.1:9", &lines).start();
        let refresh = || proxy.ask(get("/-/status")).json()["providers"][0]["refresh"].clone();
        crate::support::eventually("the issuer has answered", || {
            refresh()["successes"] != 0 || refresh()["failures"] != 0
        });
        assert_eq!(refresh()["successes"] == 1, is_taken, "{body}: {}", refresh());
        let record = std::fs::read_to_string(proxy.folder().join("p.json")).unwrap();
        let record: serde_json::Value = serde_json::from_str(&record).unwrap();
        assert_eq!(record["refresh_token"].as_str(), stored, "{body}");
    }
}

#[test]
fn a_tls_record_that_trickles_in_does_not_extend_the_time_for_an_answer() {
    let authority = Authority::new();
    for (head, status, whole) in
        [("", 504, true), ("HTTP/1.1 200 X\r\ncontent-length: 99\r\n\r\n", 200, false)]
    {
        let server =
            talking(authority.server("localhost", 2120), move |mut session, mut stream| {
                let mut records = Vec::new();
                session.writer().write_all(head.as_bytes())?;
                while session.wants_write() {
                    session.write_tls(&mut stream)?;
                }
                session.writer().write_all(&[b'x'; 99])?;
                while session.wants_write() {
                    session.write_tls(&mut records)?;
                }
                for byte in records {
                    stream.write_all(&[byte])?;
                    let _ = crossbeam_channel::never::<()>()
                        .recv_timeout(std::time::Duration::from_millis(90));
                }
                Ok(())
            });
        let (proxy, _folder) =
            proxy_with("timeouts: {response: 1, idle: 1}", &url(server), &authority.pem);
        let answered = proxy.ask(get("/"));
        assert_eq!((answered.status, answered.whole), (status, whole), "{}", answered.body);
    }
}

/// The end after an answer, in the same write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// Nothing.
    Open,
    /// TLS's own end (`close_notify`).
    Said,
    /// The first half of the record that says so.
    HalfSaid,
    /// A record that nobody can decrypt.
    Broken,
}

/// A server that sends session tickets, its answer and its ending in one write, and goes on reading; `answer` is None for
/// a request that is not whole. Tells each request: on which connection it came, and what stood in it.
fn in_one_write(
    config: Arc<ServerConfig>,
    answer: impl Fn(&[u8]) -> Option<(Vec<u8>, Ending)> + Clone + Send + 'static,
) -> (SocketAddr, Receiver<(usize, Vec<u8>)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, told) = crossbeam_channel::unbounded();
    let talk = move |index: usize, mut stream: std::net::TcpStream| -> std::io::Result<()> {
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut session = ServerConnection::new(config.clone()).map_err(std::io::Error::other)?;
        let mut request = Vec::new();
        loop {
            // The tickets, which follow the handshake, wait for the answer.
            while session.is_handshaking() && session.wants_write() {
                session.write_tls(&mut stream)?;
            }
            if session.read_tls(&mut stream)? == 0 {
                return Ok(());
            }
            session.process_new_packets().map_err(std::io::Error::other)?;
            let _ = session.reader().read_to_end(&mut request);
            let Some((answer, ending)) = answer(&request) else { continue };
            let _ = tell.send((index, std::mem::take(&mut request)));
            let mut records = Vec::new();
            session.writer().write_all(&answer)?;
            session.write_tls(&mut records)?;
            while session.wants_write() {
                session.write_tls(&mut records)?;
            }
            let answer_bytes = records.len();
            if ending == Ending::Broken {
                records.extend([0x17, 3, 3, 0, 32]);
                records.extend([7; 32]);
            } else if ending != Ending::Open {
                session.send_close_notify();
                session.write_tls(&mut records)?;
            }
            if ending == Ending::HalfSaid {
                records.truncate(answer_bytes.midpoint(records.len()));
            }
            stream.write_all(&records)?;
        }
    };
    let run = move || {
        for (index, stream) in listener.incoming().map_while(Result::ok).enumerate() {
            let talk = talk.clone();
            let serve = move || drop(talk(index, stream));
            evertoken::testing::spawn("one", 512 * 1024, serve).unwrap().detach();
        }
    };
    evertoken::testing::spawn("ones", 256 * 1024, run).unwrap().detach();
    (address, told)
}

#[test]
fn no_second_request_goes_out_on_a_connection_whose_end_came_together_with_its_answer() {
    let authority = Authority::new();
    // An answer before a broken record was lost.
    for (ending, connections) in [
        (Ending::HalfSaid, [0, 1, 2]),
        (Ending::Said, [0, 1, 2]),
        (Ending::Broken, [0, 1, 2]),
        (Ending::Open, [0, 0, 0]),
    ] {
        let answer = move |request: &[u8]| {
            request.ends_with(b"\r\n\r\nbill").then(|| (answer(200, "ok").into_bytes(), ending))
        };
        let (server, told) = in_one_write(authority.server("localhost", 2120), answer);
        let (proxy, _folder) = proxy_with("timeouts: {response: 2}", &url(server), &authority.pem);
        let mut client = Client::connect(proxy.address);
        for _ in connections {
            client.send(post("/", "bill"));
            let answered = client.answer();
            assert_eq!((answered.status, answered.body.as_str()), (200, "ok"), "{ending:?}");
        }
        // Every record came before its answer.
        let seen: Vec<_> = told.try_iter().map(|(connection, _)| connection).collect();
        assert_eq!(seen, connections, "{ending:?}");
    }
}

#[test]
fn the_systems_roots_take_the_place_of_those_that_are_built_in() {
    let (ours, others) = (Authority::new(), Authority::new());
    let peer = Peer::answering(|_| answer(200, "fine"));
    let url = url(front(ours.server("localhost", 2120), peer.address));
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, pem: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, pem).unwrap();
        path.display().to_string()
    };
    let (ours, others) = (file("ours.pem", &ours.pem), file("others.pem", &others.pem));
    let ask = |system: &str, lines: &str| {
        let builder = TestProxy::builder().settings("tls_roots: system");
        let builder = builder.variable("SSL_CERT_FILE", system);
        let lines = format!("auth_value: fixed\n{lines}");
        builder.provider("P", "anthropic", &url, &lines).start().ask(get("/x"))
    };
    assert_eq!(ask(&ours, "").body, "fine");
    let refused = ask(&others, "");
    assert_eq!((refused.status, refused.code()), (502, "upstream_unreachable"), "{refused:?}");
    assert!(refused.body.contains("TLS: "), "{refused:?}");
    assert_eq!(ask(&others, &format!("ca_file: \"{ours}\"")).body, "fine");
}

#[test]
fn a_websocket_over_tls_passes_every_byte_and_the_end() {
    let authority = Authority::new();
    let peer = Peer::start(|mut talk| {
        talk.request();
        talk.send([ACCEPTED.as_bytes(), b"\x81\x05hello"].concat());
        let message = talk.bytes(200_000);
        talk.send(message);
        talk.byte();
        // The front says that TLS ends.
    });
    let address = front(authority.server("localhost", 2035), peer.address);
    let (proxy, _folder) = proxy_before(&url(address), &authority.pem);
    let mut client = Client::connect(proxy.address);
    client.send(handshake("/", ""));
    assert_eq!(client.head().status, 101);
    assert_eq!(client.bytes(7), b"\x81\x05hello");
    let message: Vec<u8> = (0..200_000_u32).map(|index| (index % 251) as u8).collect();
    client.send(&message);
    assert!(client.bytes(200_000) == message);
    client.send("x");
    assert!(client.is_closed());
}

#[test]
fn the_end_of_a_websocket_over_tls_is_passed_on_though_it_came_together_with_the_last_frame() {
    const CLOSE: &[u8] = b"\x88\x02\x03\xe8";
    let authority = Authority::new();
    let answer = |request: &[u8]| {
        let handshake = request.ends_with(b"\r\n\r\n");
        let handshake = handshake.then(|| (ACCEPTED.as_bytes().to_vec(), Ending::Open));
        handshake.or_else(|| request.ends_with(b"bye").then(|| (CLOSE.to_vec(), Ending::Said)))
    };
    let (server, _told) = in_one_write(authority.server("localhost", 2035), answer);
    let (proxy, _folder) = proxy_before(&url(server), &authority.pem);
    let mut client = Client::connect(proxy.address);
    client.send(handshake("/", ""));
    assert_eq!(client.head().status, 101);
    client.send("bye");
    assert_eq!(client.bytes(CLOSE.len()), CLOSE);
    // The server keeps its connection until evertoken ends it.
    assert!(client.is_closed());
}
