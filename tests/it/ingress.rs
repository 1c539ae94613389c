//! The server under a service of our own: what a panic costs, and what a slow reader meets.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use evertoken::testing::Bound;
use evertoken::testing::Limits;
use evertoken::testing::ListenAddress;
use evertoken::testing::Refusal;
use evertoken::testing::Reply;
use evertoken::testing::ServerKind;
use evertoken::testing::{After, Request, Server, Service, bind_listener};
use evertoken::testing::{AnswerLength, Headers, RequestHead, ResponseHead};

use crate::support::client::{Client, ask, get};

/// Panics for `/panic`, answers everything else with its target.
struct Panicky;

impl Service for Panicky {
    fn serve(&self, request: Request<'_>, out: &mut dyn Write) -> After {
        assert!(request.head.target.as_str() != "/panic", "on purpose");
        let mut reply = Reply::new(out, Some(request.head), request.may_keep_alive);
        let body = request.head.target.as_bytes();
        let head = ResponseHead { status: 200, headers: Headers::new() };
        reply.begin(&head, AnswerLength::Sized(body.len() as u64));
        reply.piece(body).unwrap();
        reply.finish()
    }

    fn refuse(&self, refusal: &Refusal, head: Option<&RequestHead>, out: &mut dyn Write) {
        let (answer, _) = refusal.render(evertoken::testing::ProviderKind::Generic);
        let mut reply = Reply::new(out, head, false);
        reply.begin(&answer, AnswerLength::Sized(0));
        reply.flush().unwrap();
    }
}

fn limits(max_connections: usize) -> Limits {
    Limits {
        max_connections,
        max_connections_per_address: max_connections,
        max_body_bytes: 1000,
        replay_body_bytes: 1000,
        connect: Duration::from_secs(5),
        response: Duration::from_secs(5),
        idle: Duration::from_secs(5),
        // No test of this file waits for it, and a busy machine takes its time.
        client_head: Duration::from_mins(1),
        client_idle: Duration::from_secs(5),
    }
}

fn start(max_connections: usize, service: impl Service) -> (Server, SocketAddr) {
    let anywhere = ListenAddress::Tcp { host: "localhost".into(), port: 0 };
    let listener = bind_listener(&anywhere, &[]).unwrap();
    let Bound::Tcp(address) = *listener.bound() else { panic!("{}", listener.bound()) };
    let limits = limits(max_connections);
    let server = Server::start(
        ServerKind::Builtin,
        vec![listener],
        Arc::default(),
        limits,
        Arc::new(service),
    );
    (server.unwrap(), address)
}

#[test]
fn a_panic_costs_one_connection_and_its_slot_comes_back() {
    let (_server, address) = start(1, Panicky);
    for _ in 0..3 {
        // With one slot, a connection may come while the last one's worker is still ending.
        crate::support::eventually("a panic ends its connection without an answer", || {
            let mut client = Client::connect(address);
            client.send(get("/panic"));
            client.is_closed()
        });
        crate::support::eventually("the slot comes back", || {
            ask(address, get("/fine")).status == 200
        });
    }
}

#[test]
fn a_panic_in_an_answer_to_http_1_0_did_not_show_that_it_was_cut() {
    /// Panics in the middle of an answer.
    struct Breaks;
    impl Service for Breaks {
        fn serve(&self, request: Request<'_>, out: &mut dyn Write) -> After {
            let mut reply = Reply::new(out, Some(request.head), false);
            let head = ResponseHead { status: 200, headers: Headers::new() };
            reply.begin(&head, AnswerLength::Unknown);
            reply.piece(b"half").unwrap();
            panic!("on purpose");
        }

        fn refuse(&self, _: &Refusal, _: Option<&RequestHead>, _: &mut dyn Write) {}
    }
    let (_server, address) = start(1, Breaks);
    let answer = ask(address, "GET / HTTP/1.0\r\n\r\n");
    assert_eq!((answer.body.as_str(), answer.whole), ("half", false));
}

#[test]
fn a_full_pool_ends_the_connection_that_waits_longest() {
    let (server, address) = start(3, Panicky);
    let mut held: Vec<_> = (0..2).map(|_| Client::connect(address)).collect();
    for client in &mut held {
        client.send(get("/held"));
        assert_eq!(client.answer().body, "/held");
    }
    let mut in_head = Client::connect(address);
    in_head.send("GET /slow HTTP/1.1\r\nHost: localhost\r\n");
    // Of the idle connections and those in their head the oldest gives way to each new one.
    let mut newer = Vec::new();
    for _ in 0..20 {
        // One whose answer was just read may not be waiting yet.
        crate::support::eventually("a new one is served", || {
            let mut client = Client::connect(address);
            client.send(get("/new"));
            let fine = client.answer().status == 200;
            newer.push(client);
            fine
        });
    }
    // On a busy machine its worker may begin to wait after all those.
    crate::support::eventually("the one in its head gives way", || {
        let mut client = Client::connect(address);
        client.send(get("/new"));
        client.answer();
        newer.push(client);
        in_head.has_word()
    });
    assert!(held.iter_mut().all(Client::is_closed));
    let told = in_head.answer();
    assert_eq!((told.status, told.code()), (503, "overloaded"));
    assert!(in_head.is_closed());
    drop(newer);
    assert_eq!(server.stop(Duration::from_secs(5)), 0);
}

#[test]
fn a_rest_of_a_body_that_nobody_read_is_drained_or_the_connection_closes() {
    let (_server, address) = start(4, Panicky);
    let with_body = |length: usize| {
        let body = "x".repeat(length);
        format!("POST /a HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}")
    };
    let mut client = Client::connect(address);
    client.send(with_body(900));
    assert_eq!(client.answer().body, "/a");
    client.send(get("/next"));
    assert_eq!(client.answer().body, "/next", "the small rest was drained");
    // A body that was announced and is waiting for a word that never comes: nobody can tell where
    // the next request starts.
    client.send(
        "POST /b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
    );
    assert_eq!(client.answer().body, "/b");
    assert!(client.is_closed());
}
