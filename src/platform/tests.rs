//! The calls that every system has, whichever file serves them.

use std::io::Write;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, Timespec, poll};
use socket2::Socket;

use super::*;

/// The time after which a wait that should have ended is a failure.
const LIMIT: Duration = Duration::from_secs(10);
const STACK_BYTES: usize = 64 * 1024;

fn pair() -> (Arc<TcpStream>, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (Arc::new(listener.accept().unwrap().0), peer)
}

/// The events that are there now.
fn now(poller: &Poller) -> Vec<(u64, Readiness)> {
    within(poller, Duration::ZERO)
}

fn within(poller: &Poller, limit: Duration) -> Vec<(u64, Readiness)> {
    let mut events = Events::with_capacity(8);
    poller.wait(&mut events, Some(limit)).unwrap();
    events.iter().collect()
}

const fn ready(read: bool, write: bool) -> Readiness {
    Readiness { read, write, has_ended: false }
}

#[test]
fn a_wake_ends_waits_until_it_is_cleared() {
    let poller = Poller::new().unwrap();
    let wake = Arc::new(Wake::new().unwrap());
    poller.add(&wake, 7, Interest::Read).unwrap();
    assert_eq!(now(&poller), []);
    for rings in [1, 2, 1000] {
        for _ in 0..rings {
            wake.ring();
        }
        assert_eq!(within(&poller, LIMIT), [(7, ready(true, false))]);
        assert_eq!(now(&poller), [(7, ready(true, false))], "it says so again");
        wake.clear();
        assert_eq!(now(&poller), []);
    }
}

#[test]
fn what_can_be_done_is_told_again_and_something_else_after_a_change() {
    let poller = Poller::new().unwrap();
    let (socket, mut peer) = pair();
    assert!(poller.change(&socket, 1, Interest::Read).is_err(), "it is not there yet");
    poller.add(&socket, 1, Interest::Read).unwrap();
    assert!(poller.add(&socket, 2, Interest::Read).is_err(), "it is there already");
    assert_eq!(now(&poller), []);
    peer.write_all(b"x").unwrap();
    for _ in 0..2 {
        assert_eq!(within(&poller, LIMIT), [(1, ready(true, false))]);
    }
    poller.change(&socket, 3, Interest::Write).unwrap();
    assert_eq!(within(&poller, LIMIT), [(3, ready(false, true))]);
    poller.remove(&socket);
    assert_eq!(now(&poller), []);
    poller.add(&socket, 4, Interest::Read).unwrap();
    drop(socket);
    assert_eq!(now(&poller), [], "its owner has closed it");
}

#[test]
fn changes_are_told_once_until_a_call_would_wait() {
    let poller = Poller::new().unwrap();
    let (socket, mut peer) = pair();
    poller.add(&socket, 1, Interest::Changes).unwrap();
    assert!(within(&poller, LIMIT).contains(&(1, ready(false, true))));
    assert_eq!(now(&poller), []);
    let mut read = |bytes: &[u8]| {
        peer.write_all(bytes).unwrap();
        assert!(within(&poller, LIMIT)[0].1.read);
        assert_eq!(now(&poller), [], "nobody has read it, and it was told");
        let mut buffer = [0; 8];
        let count = std::io::Read::read(&mut &*socket, &mut buffer).unwrap();
        assert_eq!(&buffer[..count], bytes);
        poller.would_wait(1, true, false);
        assert_eq!(now(&poller), []);
    };
    poller.would_wait(1, true, false);
    read(b"one");
    read(b"two");
    drop(peer);
    assert!(within(&poller, LIMIT)[0].1.read, "the end");
    socket.shutdown(Shutdown::Both).unwrap();
    assert!(within(&poller, LIMIT)[0].1.has_ended);
    assert_eq!(now(&poller), []);
}

#[test]
fn a_departure_is_told_once_and_bytes_are_none() {
    let poller = Poller::new().unwrap();
    let (socket, mut peer) = pair();
    poller.add(&socket, 1, Interest::Departure).unwrap();
    assert_eq!(now(&poller), []);
    peer.write_all(b"x").unwrap();
    assert_eq!(within(&poller, Duration::from_millis(1)), []);
    let (other, other_peer) = pair();
    poller.add(&other, 2, Interest::Departure).unwrap();
    drop(other_peer);
    assert_eq!(within(&poller, LIMIT).iter().map(|(id, _)| *id).collect::<Vec<_>>(), [2]);
    assert_eq!(now(&poller), []);
}

#[test]
fn sockets_that_other_threads_add_are_waited_for_at_once() {
    let poller = Arc::new(Poller::new().unwrap());
    let (first, _first_peer) = pair();
    poller.add(&first, 1, Interest::Read).unwrap();
    let (second, mut peer) = pair();
    peer.write_all(b"x").unwrap();
    let adding = poller.clone();
    let kept = second.clone();
    let thread = crate::thread::spawn("t", STACK_BYTES, move || {
        adding.add(&kept, 2, Interest::Read).unwrap();
    });
    // Signals and changes of the sockets end waits too.
    let told = (0..100).map(|_| within(&poller, LIMIT)).find(|told| !told.is_empty());
    assert_eq!(told, Some(vec![(2, ready(true, false))]));
    drop(thread);
}

#[test]
fn a_client_that_leaves_is_told_from_one_that_sends() {
    let polled = |socket: &TcpStream| {
        let mut fds = [PollFd::new(socket, DEPARTURE)];
        poll(&mut fds, Some(&Timespec::default())).unwrap();
        has_left(socket, fds[0].revents())
    };
    let (socket, mut peer) = pair();
    assert!(!polled(&socket));
    peer.write_all(b"x").unwrap();
    assert!(!polled(&socket));
    let (socket, peer) = pair();
    peer.shutdown(Shutdown::Write).unwrap();
    assert!(polled(&socket));
}

#[test]
fn a_connection_is_accepted_and_its_reads_wait() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let socket = Socket::from(listener);
    prepare_to_accept(&socket).unwrap();
    assert!(is_listener(&socket).unwrap());
    let _peer = TcpStream::connect(address).unwrap();
    let (stream, from) = accept(&socket).unwrap();
    assert!(from.as_socket().is_some() && !stream.nonblocking().unwrap());
}
