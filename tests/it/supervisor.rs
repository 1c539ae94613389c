//! Messages to systemd: their order around a start, a reload and a stop, and on the real binary's socket.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use crossbeam_channel::{Receiver, unbounded};
use evertoken::testing::{Stage, Supervisor};
use rustix::process::Signal;

use crate::support::binary::Binary;
use crate::support::client::{Client, get, post};
use crate::support::eventually;
use crate::support::peer::{Peer, answer};
use crate::support::proxy::TestProxy;

const PATIENCE: Duration = Duration::from_secs(30);

/// A supervisor, and what it was told.
fn listening(watchdog: Option<Duration>) -> (Supervisor, Receiver<Stage>) {
    let (told, stages) = unbounded();
    let tell = move |stage: &Stage| {
        // Nobody listens once a test is over.
        let _ = told.send(stage.clone());
    };
    (Supervisor::from_fn(tell, watchdog), stages)
}

fn next(stages: &Receiver<Stage>) -> Stage {
    stages.recv_timeout(PATIENCE).unwrap()
}

#[test]
fn start_reload_and_stop() {
    let peer = Peer::answering(|_| answer(200, ""));
    let (supervisor, stages) = listening(None);
    let mut proxy = TestProxy::builder()
        .provider("P", "anthropic", &peer.url(), "auth_type: none")
        .provider("Q", "anthropic", &peer.url(), "auth_value_env: NOT_THERE")
        .supervisor(supervisor)
        .start();
    let ready = Stage::Ready(format!(
        "Listening on http://{}; 1 of 2 providers have a credential to send",
        proxy.address
    ));
    assert_eq!(next(&stages), ready);
    // There is no file to read, so nothing changes; that the reload is over is said all the same.
    assert_eq!(proxy.ask(post("/-/reload", "")).status, 422);
    assert_eq!((next(&stages), next(&stages)), (Stage::Reloading, ready));
    proxy.stop();
    assert_eq!(next(&stages), Stage::Stopping);
    assert!(stages.is_empty());
}

#[test]
fn the_watchdog_hears_from_us_while_the_port_answers_and_while_draining() {
    let (release, released) = crossbeam_channel::bounded::<()>(0);
    let peer = Peer::start(move |mut talk| {
        talk.request();
        let _ = released.recv();
        talk.answer(200, "finished");
    });
    let (supervisor, stages) = listening(Some(Duration::from_secs(4)));
    let mut proxy = TestProxy::builder()
        .settings("max_connections: 1")
        .provider("P", "anthropic", &peer.url(), "auth_type: none")
        .supervisor(supervisor)
        .start();
    assert!(matches!(next(&stages), Stage::Ready(_)));
    assert!(matches!(next(&stages), Stage::Alive(status) if status.contains("1 of 1")));
    // Every slot is taken: the port answers that it is so, which is an answer.
    let mut busy = loop {
        let mut client = Client::connect(proxy.address);
        client.send(get("/"));
        eventually("it is upstream or refused", || !peer.seen().is_empty() || client.has_word());
        // The connection that asked whether we are alive may still have had the slot.
        if !peer.seen().is_empty() {
            break client;
        }
    };
    while stages.try_recv().is_ok() {}
    assert!(matches!(next(&stages), Stage::Alive(_)));
    let (done, ended) = crossbeam_channel::bounded(1);
    let stop = move || done.send(proxy.stop()).unwrap();
    evertoken::testing::spawn("stop", 256 * 1024, stop).unwrap().detach();
    while next(&stages) != Stage::Stopping {}
    assert!(matches!(next(&stages), Stage::Alive(_)));
    release.send(()).unwrap();
    assert_eq!(busy.answer().body, "finished");
    assert_eq!(ended.recv_timeout(PATIENCE), Ok(0));
}

/// The next message of a socket.
fn message(socket: &UnixDatagram) -> String {
    let mut buffer = [0; 4096];
    let count = socket.recv(&mut buffer).unwrap();
    String::from_utf8(buffer[..count].to_vec()).unwrap()
}

#[test]
fn the_binary_speaks_the_protocol() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    std::fs::write(
        folder.path().join("providers.yaml"),
        "settings: {port: 0, state_dir: state}\nproviders: [{name: P, type: anthropic, base_url: 'http://127.0.0.1:9', auth_type: none}]\n",
    )
    .unwrap();
    let variables = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "1000000")];
    let mut binary = Binary::start(folder.path(), &[], &variables);
    let ready = message(&socket);
    let status = format!(
        "STATUS=Listening on http://{}; 1 of 1 providers have a credential to send",
        binary.address()
    );
    assert_eq!(ready.trim_end(), format!("READY=1\n{status}"));
    assert_eq!(message(&socket).trim_end(), format!("WATCHDOG=1\n{status}"));
    binary.signal(Signal::HUP);
    let without_beats = || loop {
        let message = message(&socket);
        if !message.starts_with("WATCHDOG=1") {
            return message;
        }
    };
    let reloading = without_beats();
    let since = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
    assert!(since.lines().next().unwrap().parse::<u64>().is_ok(), "{reloading}");
    assert!(without_beats().starts_with("READY=1\n"));
    binary.signal(Signal::TERM);
    assert!(without_beats().starts_with("STOPPING=1\n"));
    assert_eq!(binary.code(), Some(0));
}
