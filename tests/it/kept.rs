//! Our own sockets, which a service manager keeps while evertoken restarts (`sd_pid_notify_with_fds(3)`).

use std::fs;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::Signal;

use crate::support::binary::Binary;
use crate::support::client::{Client, ask, get, post};
use crate::support::peer::Peer;

const PATIENCE: Duration = Duration::from_secs(30);

/// Writes a configuration that listens on these addresses.
fn configure(folder: &Path, listen: &[&str], url: &str) {
    let text = format!(
        "settings: {{listen: {listen:?}, state_dir: state}}\nproviders: [{{name: P, type: anthropic, base_url: \"{url}\", \
         auth_value_env: KEY}}]\n"
    );
    fs::write(folder.join("providers.yaml"), text).unwrap();
}

/// Starts evertoken with the socket that was kept, if there is one.
fn start(folder: &Path, kept: Option<OwnedFd>, more: &[(&str, &str)]) -> Binary {
    let variables = [&[("KEY", "k")], more].concat();
    let Some(kept) = kept else { return Binary::start(folder, &[], &variables) };
    let script = format!(
        "exec 3<&0 </dev/null; export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=kept; exec {} run",
        env!("CARGO_BIN_EXE_evertoken")
    );
    Binary::start_shell_with(folder, &script, &variables, kept, None)
}

/// The next message to the service manager, and the descriptor with it.
fn message(socket: &UnixDatagram) -> (String, Option<OwnedFd>) {
    let mut bytes = [0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let came =
        recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::empty());
    let count = came.unwrap().bytes;
    let descriptor = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    (String::from_utf8(bytes[..count].to_vec()).unwrap(), descriptor)
}

/// A service manager's socket for messages in `folder`, and its path.
fn manager(folder: &Path) -> (UnixDatagram, String) {
    let path = folder.join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    (socket, path.to_str().unwrap().to_owned())
}

fn stop(mut running: Binary) {
    running.signal(Signal::TERM);
    assert_eq!(running.code(), Some(0), "{:?}", running.lines());
}

#[test]
fn a_restart_refuses_nobody_and_a_changed_address_counts() {
    let peer = Peer::telling_the_credential();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (socket, path) = manager(folder);
    configure(folder, &["127.0.0.1:0"], &peer.url());
    let store = [("NOTIFY_SOCKET", &*path), ("FDSTORE", "16")];
    let first = start(folder, None, &store);
    let (text, kept) = message(&socket);
    assert_eq!(text.trim_end(), "FDSTORE=1\nFDNAME=kept");
    let kept = TcpListener::from(kept.expect("a descriptor came"));
    let address: SocketAddr = kept.local_addr().unwrap();
    assert_eq!(address, first.address());
    assert!(message(&socket).0.starts_with("READY=1"), "and no other socket");
    stop(first);

    // Nobody accepts it yet.
    let mut waiting = Client::connect(address);
    waiting.send(post("/v1/messages", "{}"));
    let configured = address.to_string();
    configure(folder, &[&configured], &peer.url());
    let copy = || Some(kept.try_clone().unwrap().into());
    let second = start(folder, copy(), &store);
    assert_eq!(waiting.answer().status, 200);
    let listener = &ask(address, get("/-/status")).json()["listeners"][0];
    assert_eq!(listener["configured"], *configured);
    assert_eq!(listener["handed_over"], false);
    while !message(&socket).0.starts_with("READY=1") {}
    stop(second);
    TcpStream::connect(address).expect("it is kept again");

    configure(folder, &["127.0.0.1:0"], &peer.url());
    let third = start(folder, copy(), &store);
    assert_ne!(third.address(), address);
    TcpStream::connect(address).expect_err("it is closed for all who have it");
    stop(third);
    // Closed ones come again if the process starts anew by itself.
    configure(folder, &[&configured], &peer.url());
    let fourth = start(folder, copy(), &store);
    assert_eq!(fourth.address(), address);
    assert_eq!(ask(address, get("/-/healthy")).status, 200);
    stop(fourth);
}

/// The same port at all addresses, or for both families, is another socket.
#[test]
fn a_port_at_other_addresses_is_bound_anew() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for (kept, then) in [("[::1]", "127.0.0.1"), ("127.0.0.1", "127.0.0.2")] {
        let kept = TcpListener::bind(format!("{kept}:0")).unwrap();
        let address = kept.local_addr().unwrap();
        let wanted = format!("{then}:{}", address.port());
        configure(folder, &[&wanted], "http://127.0.0.1:9");
        let running = start(folder, Some(kept.into()), &[]);
        assert_eq!(running.address().to_string(), wanted);
        assert!(TcpStream::connect(address).is_err());
        stop(running);
    }
}

#[test]
fn a_service_manager_without_room_is_given_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (socket, path) = manager(folder.path());
    configure(folder.path(), &["127.0.0.1:0"], "http://127.0.0.1:9");
    for room in ["0", "", "many"] {
        let running = start(folder.path(), None, &[("NOTIFY_SOCKET", &*path), ("FDSTORE", room)]);
        assert!(message(&socket).0.starts_with("READY=1"), "{room}");
        stop(running);
        assert!(message(&socket).0.starts_with("STOPPING"));
    }
}
