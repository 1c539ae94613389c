//! Networks that fail: dead addresses, silent name servers, packets that get lost, an address that goes.

use std::net::TcpStream;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, after, unbounded};

use super::lan::{Lan, Names, PORT, Say, ip, listen, lose_all, say};
use crate::support::client::{Client, ask, get, post};
use crate::support::peer::{Conversation, Peer, answer};
use crate::support::{PATIENCE, eventually};

const LIVE: &str = "10.77.0.1";
const DEAD: &str = "10.77.0.66";
/// One that libc does not put behind [`LIVE`], since both are this machine's.
const DEAF: &str = "10.77.0.2";
const LIVE_V6: &str = "2001:db8:77::1";
const DEAD_V6: &str = "2001:db8:77::66";
/// Longer than any test waits.
const FOR_EVER: &str = "timeouts: {connect: 3600, response: 3600, idle: 3600}";
/// Longer than TCP takes to give a connection up: 20 s with data under way, 40 s without.
const GIVEN_UP: Duration = Duration::from_secs(90);
/// How long a connection is idle before the local address is looked at, and more than the second answer of a name
/// server is waited for.
const IDLE: Duration = Duration::from_millis(1_100);

fn url() -> String {
    format!("http://api.test:{PORT}")
}

fn answering(address: &str) -> Peer {
    Peer::on(
        listen(address),
        |mut talk| {
            while talk.request().is_some() && talk.send(answer(200, "fine")) {}
        },
    )
}

#[track_caller]
fn works(lan: &Lan) {
    assert_eq!(ask(lan.address, get("/x")).body, "fine");
}

#[test]
fn a_dead_address_does_not_hold_up_the_others() {
    let lan = Lan::start("", FOR_EVER, &url());
    let _peer = answering(LIVE);
    let deaf = listen(DEAF);
    lose_all(&deaf);
    let _names = Names::start(say(&[DEAF, LIVE]), say(&[]));
    works(&lan);
}

#[test]
fn a_family_without_a_way_does_not_hold_up_the_other() {
    for (v4, v6, live) in [(LIVE, DEAD_V6, LIVE), (DEAD, LIVE_V6, LIVE_V6)] {
        let lan = Lan::start("", FOR_EVER, &url());
        let _peer = answering(live);
        let _names = Names::start(say(&[v4]), say(&[v6]));
        works(&lan);
    }
}

#[test]
fn a_name_server_that_drops_questions_for_one_family_costs_nothing() {
    for (v4, v6, live) in
        [(say(&[LIVE]), Say::Nothing, LIVE), (Say::Nothing, say(&[LIVE_V6]), LIVE_V6)]
    {
        let lan = Lan::start("", FOR_EVER, &url());
        let _peer = answering(live);
        let _names = Names::start(v4, v6);
        works(&lan);
    }
}

#[test]
fn an_answer_of_the_name_server_that_comes_late_serves_the_next_request() {
    let lan = Lan::start("", "timeouts: {connect: 1}", &url());
    let peer = answering(LIVE);
    let names = Names::start(Say::Later(vec![LIVE.parse().unwrap()]), Say::Later(Vec::new()));
    let late = ask(lan.address, get("/x"));
    assert_eq!((late.status, late.code()), (502, "upstream_unreachable"), "{late:?}");
    assert!(late.body.contains("the host name was not resolved in time"), "{late:?}");
    names.release();
    eventually("the late answer serves", || ask(lan.address, get("/x")).status == 200);
    assert_eq!((names.questions(), peer.seen().len()), (2, 1), "one question for each family");
}

#[test]
fn an_answer_that_comes_while_the_old_address_is_dead_is_used_at_once() {
    let lan = Lan::start("", FOR_EVER, &url());
    let _peer = answering(LIVE);
    let names = Names::start(say(&[DEAD]), Say::Later(vec![LIVE_V6.parse().unwrap()]));
    let _peer_v6 = answering(LIVE_V6);
    let mut client = Client::connect(lan.address);
    client.send(get("/x"));
    eventually("both are asked for", || names.questions() == 2);
    // By now nobody waits for the second answer any more.
    let _ = after(IDLE).recv();
    names.release();
    assert_eq!(client.answer().body, "fine");
}

#[test]
fn a_name_server_that_failed_is_asked_again_while_no_address_answers() {
    let lan = Lan::start("", FOR_EVER, &url());
    let _peer = answering(LIVE);
    let names = Names::start(Say::Failure, say(&[DEAD_V6]));
    let mut client = Client::connect(lan.address);
    client.send(get("/x"));
    // More than once for IPv4, since it fails.
    eventually("both are asked for", || names.questions() > 2);
    // By now that look-up is over, and only the dead address is known.
    let _ = after(IDLE).recv();
    names.change(say(&[LIVE]), say(&[DEAD_V6]));
    assert_eq!(client.answer().body, "fine");
}

#[test]
fn a_name_server_that_is_not_there_is_told_from_a_name_that_is_not() {
    let lan = Lan::start("", FOR_EVER, &url());
    let refused = ask(lan.address, get("/x"));
    assert_eq!((refused.status, refused.code()), (502, "upstream_unreachable"), "{refused:?}");
    assert!(refused.body.contains("no name server answers for the host name"), "{refused:?}");
    let _names = Names::start(say(&[]), say(&[]));
    let refused = ask(lan.address, get("/x"));
    assert!(refused.body.contains("the host name is not known"), "{refused:?}");
}

#[test]
fn a_name_in_the_hosts_file_is_asked_of_no_name_server_in_either_family() {
    for (written, live) in [(LIVE, LIVE), (LIVE_V6, LIVE_V6)] {
        let setup =
            format!("echo '{written} other api.test' > hosts; mount --bind hosts /etc/hosts;");
        let lan = Lan::start(&setup, FOR_EVER, &url());
        let _peer = answering(live);
        let names = Names::start(say(&[DEAD]), say(&[DEAD_V6]));
        works(&lan);
        assert_eq!(names.questions(), 0);
    }
}

#[test]
fn a_token_request_takes_the_same_way() {
    let issuer = format!(
        "{{name: P, type: generic, base_url: \"http://{LIVE}:{PORT}\", auto_refresh_config: {{enabled: true, \
         token_url: \"https://api.test:{PORT}/token\", client_id_env: V, refresh_token_env: V}}}}"
    );
    let lan = Lan::start_with("", FOR_EVER, &issuer, &[("V", "v")]);
    let (met, meets): (Sender<Vec<u8>>, Receiver<_>) = unbounded();
    let _peer = Peer::on(listen(LIVE), move |mut talk| {
        let _ = met.send(talk.bytes(1));
    });
    let _names = Names::start(say(&[LIVE]), say(&[DEAD_V6]));
    lan.binary.signal(rustix::process::Signal::USR1);
    // The handshake of TLS begins with this byte.
    assert_eq!(meets.recv_timeout(PATIENCE), Ok(vec![22]));
}

/// A provider whose connections are handed to the test after each answer, over one that is reached from 10.77.0.9.
fn handing_over() -> (Peer, Receiver<TcpStream>) {
    let (give, given) = unbounded();
    let peer = Peer::on(listen(LIVE), move |mut talk: Conversation| {
        while let Some(seen) = talk.request() {
            if seen.line.contains("/stream") {
                let head = "HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n4\r\nfine\r\n";
                talk.send(head);
            } else {
                talk.send(answer(200, "fine"));
            }
            let _ = give.send(talk.stream().try_clone().unwrap());
        }
    });
    (peer, given)
}

/// The source address of packets to the provider.
fn come_from(address: &str) {
    ip(&format!("route change local {LIVE} dev lo table local src {address}"));
}

fn direct() -> String {
    format!("http://{LIVE}:{PORT}")
}

#[test]
fn a_request_on_a_connection_whose_packets_get_lost_ends_and_goes_on_where_it_may() {
    let lan = Lan::start("", FOR_EVER, &direct());
    let (peer, given) = handing_over();
    let address = lan.address;
    let mut clients: Vec<_> = (0..2).map(|_| Client::connect_within(address, GIVEN_UP)).collect();
    // Two at once, so that there are two connections.
    for client in &mut clients {
        client.send(get("/stream"));
        assert_eq!(client.head().status, 200);
        assert_eq!(client.chunk().as_deref(), Some("fine"));
    }
    let mut streams: Vec<_> = (0..2).map(|_| given.recv_timeout(PATIENCE).unwrap()).collect();
    for stream in &mut streams {
        std::io::Write::write_all(stream, b"0\r\n\r\n").unwrap();
    }
    for client in &mut clients {
        assert_eq!(client.chunk(), None);
    }
    for stream in &streams {
        lose_all(stream);
    }
    clients[0].send(get("/x"));
    clients[1].send(post("/x", "pay once"));
    assert_eq!(clients[0].answer().body, "fine");
    let refused = clients[1].answer();
    assert_eq!((refused.status, refused.code()), (502, "upstream_broken"), "{refused:?}");
    assert_eq!(peer.seen().len(), 3, "the streams, and the request that may go out twice");
}

#[test]
fn after_a_change_of_the_local_address_no_request_goes_to_a_dead_connection() {
    let lan = Lan::start("", FOR_EVER, &direct());
    come_from("10.77.0.9");
    let (peer, given) = handing_over();
    works(&lan);
    lose_all(&given.recv_timeout(PATIENCE).unwrap());
    ip("addr add 10.77.0.10/32 dev card");
    come_from("10.77.0.10");
    let _ = after(IDLE).recv();
    let answer = ask(lan.address, post("/x", "pay once"));
    assert_eq!((answer.status, answer.body.as_str()), (200, "fine"));
    let connections: Vec<_> = peer.seen().iter().map(|seen| seen.connection).collect();
    assert_eq!(connections, [0, 1]);
}

#[test]
fn a_stream_whose_local_address_goes_is_cut_and_not_waited_for() {
    let lan = Lan::start("", FOR_EVER, &direct());
    come_from("10.77.0.9");
    let (_peer, given) = handing_over();
    let mut client = Client::connect_within(lan.address, GIVEN_UP);
    client.send(get("/stream"));
    assert_eq!(client.head().status, 200);
    assert_eq!(client.chunk().as_deref(), Some("fine"));
    ip("addr add 10.77.0.10/32 dev card");
    come_from("10.77.0.10");
    ip("addr del 10.77.0.9/24 dev card");
    lose_all(&given.recv_timeout(PATIENCE).unwrap());
    works(&lan);
    assert!(client.is_closed(), "without the closing chunk");
}

#[test]
fn a_client_whose_packets_get_lost_ends_its_request() {
    let settings =
        format!("host: 10.77.0.9, auth: {{enabled: true, api_key_env: KEY}}, {FOR_EVER}");
    let provider =
        format!("{{name: P, type: generic, base_url: \"{}\", auth_type: none}}", direct());
    let lan = Lan::start_with("", &settings, &provider, &[("KEY", "key")]);
    let (ended, ends) = unbounded();
    let _peer = Peer::on(listen(LIVE), move |mut talk| {
        talk.stream().set_read_timeout(Some(GIVEN_UP)).unwrap();
        talk.request();
        talk.send("HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n4\r\nfine\r\n");
        talk.wait_for_close();
        let _ = ended.send(());
    });
    let stream = TcpStream::connect(lan.address).unwrap();
    let own = stream.try_clone().unwrap();
    let mut client = Client::over(stream);
    client.send("GET /x HTTP/1.1\r\nHost: a\r\nx-api-key: key\r\n\r\n");
    assert_eq!(client.head().status, 200);
    lose_all(&own);
    assert_eq!(ends.recv_timeout(GIVEN_UP), Ok(()));
}
