//! The connections that give way to others, the share of an address, and a stop.

use std::io::{Read, Write};
use std::net::TcpListener;

use super::*;

/// A connection that entered `live` from `address`, and its client's end.
fn enter(live: &Arc<Live>, address: &str) -> (LiveConnection, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let stream = Arc::new(listener.accept().unwrap().0);
    let from = Some(address.parse().unwrap());
    let tally = Arc::<ListenerTally>::default().accept();
    let entry = live.enter(stream.clone(), stream, from, tally);
    assert!(entry.begin_wait(false));
    (entry, client)
}

#[test]
fn the_bytes_of_a_listener_are_those_of_open_and_of_ended_connections() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let client = Arc::new(client);
    let (live, one, other) = (Arc::<Live>::default(), Arc::default(), Arc::default());
    let enter = |tally: &Arc<ListenerTally>| {
        live.enter(client.clone(), client.clone(), None, tally.accept())
    };
    let (first, second, third) = (enter(&one), enter(&one), enter(&other));
    for (entry, bytes) in [(&first, 1), (&second, 20), (&third, 300)] {
        entry.bytes().add_received(bytes);
        entry.byte_counter().counts().add_sent(2 * bytes);
    }
    let bytes = || {
        let counts = live.counts(&[&one, &other]).into_iter();
        counts.map(|one| (one.received_bytes, one.sent_bytes, one.open)).collect::<Vec<_>>()
    };
    assert_eq!(bytes(), [(21, 42, 2), (300, 600, 1)]);
    drop(first);
    assert_eq!(bytes(), [(21, 42, 1), (300, 600, 1)]);
    drop((second, third));
    assert_eq!(bytes(), [(21, 42, 0), (300, 600, 0)]);
}

#[test]
fn the_longest_wait_gives_way_and_who_is_served_does_not() {
    let live = Arc::default();
    let (first, _c) = enter(&live, "127.0.0.1");
    let (second, _d) = enter(&live, "127.0.0.1");
    let (third, _e) = enter(&live, "127.0.0.1");
    assert!(first.end_wait());
    assert!(live.give_way());
    assert!(second.gave_way() && !second.end_wait());
    assert_eq!((&*second.open.stream).read(&mut [0]).unwrap(), 0, "its worker wakes up");
    assert!(first.begin_wait(false), "it waits again, now for a shorter time than the third");
    assert!(second.begin_wait(false) && second.gave_way(), "it gave way for good");
    assert!(live.give_way());
    assert!(third.gave_way() && !first.gave_way());
    assert!(first.end_wait());
    assert!(!live.give_way(), "nobody waits");
}

#[test]
fn a_connection_whose_request_is_about_to_be_read_does_not_give_way() {
    let live = Arc::default();
    let (entry, mut client) = enter(&live, "127.0.0.1");
    client.write_all(b"GET").unwrap();
    assert_eq!(entry.open.stream.peek(&mut [0]).unwrap(), 1, "it has come");
    assert!(!live.give_way());
}

/// A stop closed it with what its client had not yet sent, and a reset destroyed the answer.
#[test]
fn one_whose_client_is_to_read_its_answer_gives_way_but_is_not_idle() {
    let live = Arc::default();
    let (lingering, _c) = enter(&live, "127.0.0.1");
    assert!(lingering.open.is_idle() && lingering.end_wait());
    lingering.begin_linger();
    assert!(!lingering.open.is_idle());
    assert!(live.give_way() && lingering.gave_way());
    lingering.begin_linger();
    assert!(lingering.gave_way(), "for good");
}

#[test]
fn an_address_has_its_share_and_its_own_waits_make_room() {
    let live = Arc::default();
    let (one, _a) = enter(&live, "10.0.0.1");
    let (two, _b) = enter(&live, "::ffff:10.0.0.1");
    assert!(two.has_share(2));
    let (three, _c) = enter(&live, "10.0.0.1");
    assert!(three.has_share(2), "one that waited gave way");
    assert!(one.gave_way());
    assert!(two.end_wait());
    assert!(!three.has_share(2), "the others are served, and it does not end itself");
    let (other, _d) = enter(&live, "10.0.0.2");
    assert!(other.has_share(1));
    drop(one);
    assert!(three.has_share(2));
    drop((two, three, other));
    assert!(live.state().by_origin.is_empty() && live.state().open.is_empty());
}

#[test]
fn an_ipv6_network_is_one_address_and_loopback_none() {
    let live = Arc::default();
    let (one, _a) = enter(&live, "2001:db8::1");
    let (two, _b) = enter(&live, "2001:db8::ffff");
    assert!(one.end_wait() && !two.has_share(1));
    let (other, _c) = enter(&live, "2001:db8:0:1::1");
    assert!(other.has_share(1));
    for own in ["127.0.0.1", "::1"] {
        let (first, _d) = enter(&live, own);
        let (second, _e) = enter(&live, own);
        assert!(first.end_wait() && second.has_share(1), "{own}");
    }
}

#[test]
fn a_stop_cuts_off_what_is_left_after_the_grace() {
    let live: Arc<Live> = Arc::default();
    let (idle, mut client) = enter(&live, "127.0.0.1");
    assert!(idle.is_first() && !idle.is_first());
    let (in_head, _c) = enter(&live, "127.0.0.1");
    in_head.head_begins();
    let (serving, _d) = enter(&live, "127.0.0.1");
    assert!(serving.end_wait());
    drop(idle);
    assert_eq!(live.drain(Duration::ZERO), 2);
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    assert!(serving.begin_wait(false), "its first request may still come");
    assert!(serving.is_first());
    assert!(serving.begin_wait(true) && !serving.begin_wait(false), "it is to end");
    assert!(in_head.end_wait(), "it may still be told");
}
