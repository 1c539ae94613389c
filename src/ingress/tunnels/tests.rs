//! Tunnels whose turns are scripted.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_channel::bounded;

use super::*;

const PATIENCE: Duration = Duration::from_secs(10);

/// A call of a tunnel.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Turn([bool; 2]),
    TakeLeave,
    End,
    Dropped,
}

/// A tunnel whose turns are given by `turns`.
struct Fake<F> {
    sockets: [Arc<TcpStream>; 2],
    turns: F,
    said: Sender<Said>,
}

impl<F: FnMut(usize) -> Turn + Send> Tunnel for Fake<(usize, F)> {
    fn sockets(&self) -> [Arc<TcpStream>; 2] {
        self.sockets.clone()
    }

    fn turn(&mut self, now: [Readiness; 2]) -> Turn {
        self.said.send(Said::Turn(now.map(|one| one.read))).unwrap();
        self.turns.0 += 1;
        (self.turns.1)(self.turns.0)
    }

    fn take_leave(&mut self) {
        self.said.send(Said::TakeLeave).unwrap();
    }

    fn end(self: Box<Self>) {
        self.said.send(Said::End).unwrap();
    }
}

/// Tells when it is dropped.
struct TellsDrop(Sender<Said>);

impl Drop for TellsDrop {
    fn drop(&mut self) {
        // The test may have ended.
        let _ = self.0.send(Said::Dropped);
    }
}

fn pair() -> (Arc<TcpStream>, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (Arc::new(listener.accept().unwrap().0), peer)
}

/// Has `tunnels` carry one whose turns are given by `turns`; returns what it is told, and its peers.
fn carry(
    tunnels: &Tunnels,
    turns: impl FnMut(usize) -> Turn + Send + 'static,
) -> (Receiver<Said>, [TcpStream; 2]) {
    let ((client, client_peer), (provider, provider_peer)) = (pair(), pair());
    let (said, hears) = unbounded();
    let place = Box::new(TellsDrop(said.clone()));
    tunnels.start().unwrap();
    let sockets = [client, provider];
    tunnels.carry(Box::new(Fake { sockets, turns: (0, turns), said }), place);
    (hears, [client_peer, provider_peer])
}

fn next(hears: &Receiver<Said>) -> Said {
    hears.recv_timeout(PATIENCE).unwrap()
}

fn waits(interests: [Interest; 2]) -> Turn {
    Turn::Waits(interests, Deadline::after(Duration::from_hours(1)))
}

const BOTH_READ: [Interest; 2] = [Interest::Read; 2];

#[test]
fn a_tunnel_has_a_turn_for_each_event_it_waits_for_and_is_dropped_at_its_end() {
    let tunnels = Tunnels::default();
    let (hears, [mut client, mut provider]) = carry(&tunnels, |turn| match turn {
        1 => waits([Interest::Read, Interest::End]),
        2 => waits([Interest::End, Interest::Read]),
        _ => Turn::Over,
    });
    assert_eq!(next(&hears), Said::Turn([true, true]), "early bytes need no event");
    client.write_all(b"x").unwrap();
    assert_eq!(next(&hears), Said::Turn([true, false]));
    // The client's byte is still there, and is not asked for.
    provider.write_all(b"x").unwrap();
    assert_eq!(next(&hears), Said::Turn([false, true]));
    assert_eq!((next(&hears), next(&hears)), (Said::End, Said::Dropped));
    assert_eq!(client.read(&mut [0]).unwrap_or(0), 0, "nobody keeps its sockets");
}

#[test]
fn a_tunnel_with_more_to_do_does_not_keep_others_waiting() {
    let tunnels = Tunnels::default();
    let (other_ended, ends) = bounded(1);
    let (busy, _peers) =
        carry(&tunnels, move |_| if ends.try_recv().is_ok() { Turn::Over } else { Turn::HasMore });
    let (other, _other_peers) = carry(&tunnels, |_| Turn::Over);
    assert_eq!(next(&other), Said::Turn([true, true]));
    assert_eq!(next(&other), Said::End);
    other_ended.send(()).unwrap();
    while next(&busy) != Said::End {}
}

#[test]
fn a_tunnel_with_more_to_do_of_which_more_comes_has_no_more_turns_than_others() {
    let tunnels = Tunnels::default();
    let turns = Arc::new(AtomicUsize::new(0));
    let counted = turns.clone();
    let (quiet, _quiet_peers) = carry(&tunnels, move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        Turn::HasMore
    });
    assert_eq!(next(&quiet), Said::Turn([true, true]));
    let (tell, told) = bounded(1);
    let mut at_start = 0;
    let (_busy, [mut client, _provider]) = carry(&tunnels, move |turn| {
        let others = turns.load(Ordering::SeqCst);
        match turn {
            1 => return waits(BOTH_READ),
            2 => at_start = others,
            100 => tell.send(others - at_start).unwrap(),
            _ => {}
        }
        Turn::HasMore
    });
    // It stays there to be read.
    client.write_all(b"x").unwrap();
    let others = told.recv_timeout(PATIENCE).unwrap();
    // One for what it had left to do, and one for what came.
    assert!(others >= 49, "{others} turns beside 100");
}

#[test]
fn a_tunnel_has_a_turn_when_it_has_waited_for_long_enough() {
    let tunnels = Tunnels::default();
    let (patient, _patient_peers) = carry(&tunnels, |_| waits(BOTH_READ));
    assert_eq!(next(&patient), Said::Turn([true, true]));
    let (hears, _peers) = carry(&tunnels, |turn| match turn {
        1 => Turn::Waits(BOTH_READ, Deadline::after(Duration::from_millis(1))),
        _ => Turn::Over,
    });
    assert_eq!(next(&hears), Said::Turn([true, true]));
    assert_eq!(next(&hears), Said::Turn([false, false]));
    assert_eq!(next(&hears), Said::End);
    assert!(patient.is_empty());
}

#[test]
fn a_panic_costs_its_tunnel_alone() {
    let tunnels = Tunnels::default();
    let (fine, [mut client, _provider]) = carry(&tunnels, |turn| match turn {
        1 => waits(BOTH_READ),
        _ => Turn::Over,
    });
    assert_eq!(next(&fine), Said::Turn([true, true]));
    let (hears, _peers) = carry(&tunnels, |_| panic!("on purpose"));
    assert_eq!(next(&hears), Said::Turn([true, true]));
    assert_eq!(next(&hears), Said::Dropped);
    client.write_all(b"x").unwrap();
    assert_eq!(next(&fine), Said::Turn([true, false]));
    assert_eq!(next(&fine), Said::End);
}

#[test]
fn all_take_leave_and_so_does_one_that_comes_later() {
    let tunnels = Tunnels::default();
    let turns = |turn| if turn == 1 { waits(BOTH_READ) } else { Turn::Over };
    let (first, _first_peers) = carry(&tunnels, turns);
    assert_eq!(next(&first), Said::Turn([true, true]));
    tunnels.take_leave();
    assert_eq!(next(&first), Said::TakeLeave);
    assert_eq!((next(&first), next(&first)), (Said::Turn([false, false]), Said::End));
    let (late, _late_peers) = carry(&tunnels, turns);
    assert_eq!((next(&late), next(&late)), (Said::TakeLeave, Said::Turn([true, true])));

    let never_started = Tunnels::default();
    never_started.take_leave();
    let (late, _late_peers) = carry(&never_started, turns);
    assert_eq!((next(&late), next(&late)), (Said::TakeLeave, Said::Turn([true, true])));
}

#[test]
fn the_thread_goes_on_for_the_tunnels_that_are_left_and_ends_then() {
    let tunnels = Tunnels::default();
    let (hears, [mut client, _provider]) = carry(&tunnels, |turn| match turn {
        1 => waits(BOTH_READ),
        _ => Turn::Over,
    });
    assert_eq!(next(&hears), Said::Turn([true, true]));
    drop(tunnels);
    client.write_all(b"x").unwrap();
    assert_eq!(next(&hears), Said::Turn([true, false]));
    assert_eq!((next(&hears), next(&hears)), (Said::End, Said::Dropped));
}
