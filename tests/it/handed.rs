//! Sockets that a service manager hands over (`sd_listen_fds(3)`), and restarts with them.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use evertoken::testing::spawn;
use rustix::process::Signal;

use crate::support::binary::Binary;
use crate::support::client::{Client, ask, get, post};
use crate::support::issuer::StrictIssuer;
use crate::support::own_tls::{self, Pair};
use crate::support::peer::{Peer, answer};

const VARIABLES: [(&str, &str); 3] = [("KEY", "k"), ("ID", "c"), ("SEED", "the-seed")];

/// A folder with a configuration that names a port which is not to be used.
fn configured(settings: &str, url: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "settings: {{port: 1, state_dir: state{settings}}}\nproviders: [{{name: P, type: anthropic, base_url: \
         \"{url}\", auth_value_env: KEY}}]\n"
    );
    fs::write(folder.path().join("providers.yaml"), text).unwrap();
    folder
}

/// Starts evertoken with copies of these sockets.
fn start(folder: &Path, first: impl Into<OwnedFd>, second: Option<OwnedFd>) -> Binary {
    let count = 1 + usize::from(second.is_some());
    let script = format!(
        "exec 3<&0 4>&1 </dev/null >/dev/null; export LISTEN_PID=$$ LISTEN_FDS={count}; exec {} run",
        env!("CARGO_BIN_EXE_evertoken")
    );
    Binary::start_shell_with(folder, &script, &VARIABLES, first.into(), second)
}

#[test]
fn sockets_of_the_service_manager_take_the_place_of_configured_ones_and_outlive_evertoken() {
    let peer = Peer::telling_the_credential();
    let folder = configured("", &peer.url());
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let path = folder.path().join("handed.sock");
    let unix = UnixListener::bind(&path).unwrap();
    let address = tcp.local_addr().unwrap();
    let mut running =
        start(folder.path(), tcp.try_clone().unwrap(), Some(unix.try_clone().unwrap().into()));
    running.wait_for(&format!("Listening on http://{address}"));
    running.wait_for(&format!("Listening on unix:{}", path.display()));
    assert_eq!(ask(address, post("/v1/messages", "{}")).status, 200);
    let mut client = Client::connect_unix(&path);
    client.send(get("/-/healthy"));
    assert_eq!(client.answer().status, 200);
    let listeners = &ask(address, get("/-/status")).json()["listeners"];
    for (index, shown) in
        [format!("http://{address}"), format!("unix:{}", path.display())].iter().enumerate()
    {
        let listener = &listeners[index];
        assert_eq!(listener["address"], **shown);
        assert_eq!(listener["handed_over"], true);
        assert_eq!(listener["configured"], serde_json::Value::Null);
    }

    running.signal(Signal::TERM);
    assert_eq!(running.code(), Some(0));
    assert!(path.exists(), "the file is the service manager's");
    // Nobody accepts it yet.
    let mut waiting = Client::connect(address);
    waiting.send(post("/v1/messages", "{}"));
    let next = start(folder.path(), tcp.try_clone().unwrap(), None);
    assert_eq!(waiting.answer().status, 200);
    assert!(!next.lines().iter().any(|line| line.contains("unix:")));
}

/// `--listen` was left out without a word, and `status` asked an address at which nobody listened.
#[test]
fn what_handed_sockets_leave_out_is_told() {
    let folder = configured("", "http://127.0.0.1:9");
    let begin = |more: &str| {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let script = format!(
            "exec 3<&0 </dev/null; export LISTEN_PID=$$ LISTEN_FDS=1; exec {} run {more}",
            env!("CARGO_BIN_EXE_evertoken")
        );
        let running =
            Binary::start_shell_with(folder.path(), &script, &VARIABLES, socket.into(), None);
        running.wait_for(&format!("Listening on http://{address}"));
        (running, address)
    };
    let (running, address) = begin("--listen 127.0.0.1:2");
    let line = running.wait_for("--listen 127.0.0.1:2 is left out");
    assert!(line.contains("WARN") && line.contains(&format!("handed over {address}")), "{line}");
    let line = running.wait_for("which the file does not name");
    assert!(line.contains("WARN") && line.contains("`evertoken status`"), "{line}");
    // A file that names it.
    drop(running);
    let configuration = folder.path().join("providers.yaml");
    let text = fs::read_to_string(&configuration).unwrap();
    fs::write(&configuration, text.replace("port: 1", &format!("port: {}", address.port())))
        .unwrap();
    let socket = TcpListener::bind(address).unwrap();
    let running = start(folder.path(), socket, None);
    running.wait_for("Listening on ");
    assert!(
        !running.lines().iter().any(|line| line.contains("LISTEN_FDS")),
        "{:?}",
        running.lines()
    );
}

#[test]
fn a_handed_socket_that_others_reach_without_tls_is_told() {
    let folder = configured(", auth: {enabled: true, api_key_env: KEY}", "http://127.0.0.1:9");
    let socket = TcpListener::bind("0.0.0.0:0").unwrap();
    let address = socket.local_addr().unwrap();
    let running = start(folder.path(), socket, None);
    let line = running.wait_for(&format!("other machines reach {address} without TLS"));
    assert!(line.contains("[WARN] LISTEN_FDS (a socket of the service manager): "), "{line}");
}

/// Ends the clients when it is dropped, also by a failure.
struct Over(Arc<AtomicBool>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The way of clients to evertoken.
type Ask = Arc<dyn Fn(&str) -> Result<u16, String> + Send + Sync>;

/// Asks with new connections until `is_over`; counts the answers, and keeps what else came.
fn ask_until(ask: &Ask, is_over: &AtomicBool, answers: &AtomicUsize, wrong: &Mutex<Vec<String>>) {
    let request = "POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}";
    while !is_over.load(Ordering::Relaxed) {
        match ask(request) {
            Ok(200) => _ = answers.fetch_add(1, Ordering::Relaxed),
            other => wrong.lock().unwrap().push(format!("{other:?}")),
        }
    }
}

#[test]
fn restarts_under_load_refuse_nobody_cut_no_stream_and_refresh_nothing_twice() {
    const CLIENTS: usize = 64;
    let ask = |address| -> Ask {
        Arc::new(move |request| {
            Client::try_ask(address, request).ok_or_else(|| "cut off".to_owned())
        })
    };
    restart_under_load(CLIENTS, None, ask);
}

#[test]
fn restarts_under_load_refuse_nobody_over_tls() {
    const CLIENTS: usize = 16;
    let pair = Pair::new();
    let config = pair.usual();
    let ask = |address| -> Ask {
        Arc::new(move |request| {
            let came = own_tls::ask(address, &config, request).map_err(|why| why.to_string())?;
            let status = came.split(' ').nth(1).and_then(|status| status.parse().ok());
            status.ok_or(came)
        })
    };
    restart_under_load(CLIENTS, Some(&pair), ask);
}

/// Restarts evertoken, perhaps with TLS, under as many clients.
fn restart_under_load(
    clients: usize,
    pair: Option<&Pair>,
    ask: impl FnOnce(std::net::SocketAddr) -> Ask,
) {
    const RESTARTS: usize = 3;
    let issuer = StrictIssuer::start(3600);
    let end = Arc::new(Mutex::new(None));
    let of_peer = end.clone();
    let peer = Peer::start(move |mut talk| {
        while let Some(seen) = talk.request() {
            if !seen.line.contains("/v1/stream") {
                talk.send(answer(200, "{}"));
                continue;
            }
            talk.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n");
            let (sender, receiver) = crossbeam_channel::bounded::<()>(0);
            *of_peer.lock().unwrap() = Some(sender);
            let _ = receiver.recv();
            talk.send("3\r\ntwo\r\n0\r\n\r\n");
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let tls = pair.map_or("", |pair| {
        pair.write(folder.path());
        ", tls: {cert_file: cert.pem, key_file: key.pem}"
    });
    let text = format!(
        "settings: {{state_dir: state{tls}}}\nproviders: [{{name: P, type: anthropic, base_url: \"{}\", \
         auto_refresh_config: {{token_url: \"{}\", client_id_env: ID, refresh_token_env: SEED}}}}]\n",
        peer.url(),
        issuer.url()
    );
    fs::write(folder.path().join("providers.yaml"), text).unwrap();
    issuer.knows("the-seed");
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let begin = || start(folder.path(), socket.try_clone().unwrap(), None);
    let (is_over, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let wrong = Arc::new(Mutex::new(Vec::new()));
    let mut running = begin();
    let ask = ask(address);
    let asking: Vec<_> = (0..clients)
        .map(|_| {
            let (is_over, answers, wrong) = (is_over.clone(), answers.clone(), wrong.clone());
            let ask = ask.clone();
            spawn("client", 256 * 1024, move || ask_until(&ask, &is_over, &answers, &wrong))
                .unwrap()
        })
        .collect();
    // Dropped before the clients, which are waited for.
    let over = Over(is_over);
    let more = |count: usize| {
        let before = answers.load(Ordering::Relaxed);
        let what = format!("more than {before} answers: {:?}", wrong.lock().unwrap().first());
        crate::support::eventually(&what, || answers.load(Ordering::Relaxed) >= before + count);
    };
    for _ in 0..RESTARTS {
        more(clients);
        let mut stream: Box<dyn ReadWrite> = match pair {
            Some(pair) => Box::new(own_tls::connect(address, &pair.usual())),
            None => Box::new(TcpStream::connect(address).unwrap()),
        };
        stream.write_all(post("/v1/stream", "{}").as_bytes()).unwrap();
        read_up_to(&mut *stream, "\r\none\r\n");
        running.signal(Signal::TERM);
        running.wait_for("Stopping");
        // The stream ends within the grace, and new clients wait in the queue of the socket.
        *end.lock().unwrap() = None;
        read_up_to(&mut *stream, "\r\ntwo\r\n0\r\n\r\n");
        assert_eq!(running.code(), Some(0));
        running = begin();
    }
    more(clients);
    drop(over);
    drop(asking);
    assert_eq!(*wrong.lock().unwrap(), Vec::<String>::new());
    assert_eq!(issuer.presented().len(), 1, "{:?}", issuer.presented());
}

trait ReadWrite: Read + Write {}

impl<T: Read + Write> ReadWrite for T {}

/// Reads up to `end`, which is the last that comes for now.
#[track_caller]
fn read_up_to(stream: &mut dyn Read, end: &str) {
    let mut came = Vec::new();
    while !came.ends_with(end.as_bytes()) {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect(end);
        came.push(byte[0]);
    }
}

/// Clients over a port that was handed over speak TLS, and those over a unix socket do not.
#[test]
fn tls_over_sockets_of_the_service_manager() {
    let peer = Peer::telling_the_credential();
    let folder = configured(", tls: {cert_file: cert.pem, key_file: key.pem}", &peer.url());
    let pair = Pair::new();
    pair.write(folder.path());
    let tcp = TcpListener::bind("[::1]:0").unwrap();
    let path = folder.path().join("handed.sock");
    let unix = UnixListener::bind(&path).unwrap();
    let address = tcp.local_addr().unwrap();
    let running = start(folder.path(), tcp, Some(unix.into()));
    running.wait_for(&format!("Listening on https://{address}"));
    let request = "GET /-/healthy HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let came = own_tls::ask(address, &pair.usual(), request).unwrap();
    assert!(came.starts_with("HTTP/1.1 200"), "{came}");
    let mut client = Client::connect_unix(&path);
    client.send(get("/-/healthy"));
    assert_eq!(client.answer().status, 200);
}

/// The one that came too late to accept waited for the next client, and a stop did not end that.
#[test]
fn two_processes_with_one_socket_both_stop() {
    let peer = Peer::telling_the_credential();
    let (one, other) = (configured("", &peer.url()), configured("", &peer.url()));
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let begin = |folder: &Path| {
        let running = start(folder, socket.try_clone().unwrap(), None);
        running.wait_for("Listening on ");
        running
    };
    let mut both = [begin(one.path()), begin(other.path())];
    let flags = rustix::fs::fcntl_getfl(&socket).unwrap();
    assert!(
        flags.contains(rustix::fs::OFlags::NONBLOCK),
        "an accept that comes too late would wait"
    );
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let asking = move || {
                for _ in 0..50 {
                    assert_eq!(ask(address, get("/-/healthy")).status, 200);
                }
            };
            spawn("client", 256 * 1024, asking).unwrap()
        })
        .collect();
    drop(clients);
    for running in &mut both {
        running.signal(Signal::TERM);
        assert_eq!(running.code(), Some(0), "{:?}", running.lines());
        assert!(
            !running.lines().iter().any(|line| line.contains("No connection")),
            "{:?}",
            running.lines()
        );
    }
}

/// So many have a thread each.
#[test]
fn there_is_a_limit_of_handed_sockets() {
    let folder = configured("", "http://127.0.0.1:9");
    for count in ["17", "4000000000", "x"] {
        let script = format!(
            "export LISTEN_PID=$$ LISTEN_FDS={count}; exec {} run",
            env!("CARGO_BIN_EXE_evertoken")
        );
        let mut running = Binary::start_shell(folder.path(), &script, &VARIABLES);
        assert_eq!(running.code(), Some(69), "{count}: {:?}", running.lines());
        running.wait_for("LISTEN_FDS");
    }
}

#[test]
fn what_is_no_listening_socket_or_may_not_be_listened_on_is_refused() {
    let folder = configured("", "http://127.0.0.1:9");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let connected = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let everywhere = TcpListener::bind("0.0.0.0:0").unwrap();
    let file = fs::File::open(folder.path().join("providers.yaml")).unwrap();
    let no_socket =
        "descriptor 3, which the service manager handed over (LISTEN_FDS), can't be used: ";
    let cases: [(OwnedFd, i32, &str); 4] = [
        (
            connected.into(),
            69,
            "it is no socket that listens; a .socket unit needs ListenStream= and Accept=no",
        ),
        (UdpSocket::bind("127.0.0.1:0").unwrap().into(), 69, "it is no socket that listens"),
        (file.into(), 69, no_socket),
        (everywhere.into(), 78, "an address that is not loopback needs settings.auth.enabled"),
    ];
    for (descriptor, code, part) in cases {
        let mut running = start(folder.path(), descriptor, None);
        assert_eq!(running.code(), Some(code), "{:?}", running.lines());
        running.wait_for(part);
    }
}

/// They were for a shell that started this process.
#[test]
fn sockets_for_another_process_are_left_alone() {
    let folder = configured("", "http://127.0.0.1:9");
    let configuration = folder.path().join("providers.yaml");
    let text = fs::read_to_string(&configuration).unwrap().replace("port: 1", "port: 0");
    fs::write(&configuration, text).unwrap();
    let running = Binary::start(
        folder.path(),
        &["run"],
        &[VARIABLES[0], ("LISTEN_PID", "1"), ("LISTEN_FDS", "1")],
    );
    assert_eq!(ask(running.address(), get("/-/healthy")).status, 200);
}
