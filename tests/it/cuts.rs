//! Providers and issuers that fail at every byte of what they send: close, reset and stall.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::client::{Answer, Client, get, post};
use crate::support::peer::{Conversation, Peer};
use crate::support::proxy::TestProxy;

const SIZED: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 12\r\n\r\nhello, world";
const CHUNKED: &str =
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n7\r\n, world\r\n0\r\n\r\n";
const CLOSED: &str = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhello, world";

/// The early end of an answer.
#[derive(Clone, Copy, Debug)]
enum End {
    Close,
    Reset,
    Stall,
}

/// A peer that reads a request for `/<count>` and sends so many bytes of `answer`.
fn cutting(answer: &'static str, end: End) -> Peer {
    Peer::start(move |mut talk: Conversation| {
        let Some(seen) = talk.request() else { return };
        let count = seen.line.split(['/', ' ']).nth(2).and_then(|count| count.parse().ok());
        let count: usize = count.unwrap_or(answer.len());
        talk.send(&answer.as_bytes()[..count]);
        match end {
            End::Close => {}
            End::Reset => talk.reset(),
            End::Stall => talk.wait_for_close(),
        }
    })
}

/// The client's view of a cut answer: a refusal, or a connection that ends early. Never an answer that looks
/// complete.
#[track_caller]
fn is_seen_as_cut(came: &Answer, what: &str) {
    match came.status {
        200 => assert!(!came.whole && "hello, world".starts_with(&came.body), "{what}: {came:?}"),
        502 => assert!(
            matches!(came.code(), "upstream_broken" | "upstream_unreachable"),
            "{what}: {came:?}"
        ),
        504 => assert_eq!(came.code(), "upstream_timeout", "{what}"),
        _ => panic!("{what}: {came:?}"),
    }
}

fn every_cut(answer: &'static str, end: End) {
    let peer = cutting(answer, end);
    let proxy = TestProxy::builder()
        .settings("timeouts: {response: 1, idle: 1}")
        .provider("P", "generic", &peer.url(), "auth_type: none")
        .start();
    // All at once: a stall is waited out for a second each.
    let mut clients = Vec::new();
    // Once its last chunk has come, a chunked answer has all that it says: only trailers could follow.
    let cuts = if answer == CHUNKED { answer.len() - "\r\n".len() } else { answer.len() };
    for count in 0..cuts {
        let mut client = Client::connect(proxy.address);
        client.send(get(&format!("/{count}")));
        clients.push((count, client));
    }
    let mut refused = 0;
    for (count, client) in &mut clients {
        let came = client.answer();
        is_seen_as_cut(&came, &format!("{end:?} after {count} of {answer:?}"));
        refused += usize::from(came.status != 200);
        if came.status == 200 {
            assert!(client.is_closed());
        }
    }
    assert!(refused > 0 && refused < clients.len());
    drop(clients);
    // A complete answer is complete.
    if !matches!(end, End::Stall) {
        let came = proxy.ask(get("/all"));
        assert!(
            matches!(end, End::Reset) || (came.whole && came.body == "hello, world"),
            "{came:?}"
        );
    }
}

#[test]
fn sized_answers_cut_at_every_byte() {
    every_cut(SIZED, End::Close);
    every_cut(SIZED, End::Reset);
    every_cut(SIZED, End::Stall);
}

#[test]
fn chunked_answers_cut_at_every_byte() {
    every_cut(CHUNKED, End::Close);
    every_cut(CHUNKED, End::Reset);
    every_cut(CHUNKED, End::Stall);
}

#[test]
fn answers_that_end_by_closing_reset_and_stalled_at_every_byte() {
    every_cut(CLOSED, End::Reset);
    every_cut(CLOSED, End::Stall);
}

#[test]
fn answers_that_drip_byte_by_byte_are_whole() {
    for drips in [SIZED, CHUNKED, CLOSED] {
        let peer = Peer::start(move |mut talk| {
            let Some(_) = talk.request() else { return };
            for byte in drips.as_bytes() {
                talk.send([*byte]);
                std::thread::yield_now();
            }
        });
        let proxy = TestProxy::before(&peer.url());
        let came = proxy.ask(get("/"));
        assert_eq!(
            (came.status, came.body.as_str(), came.whole),
            (200, "hello, world", true),
            "{drips}"
        );
    }
}

#[test]
fn token_responses_cut_at_every_byte_cost_one_try_each_and_harm_nobody() {
    const GRANT: &str = "HTTP/1.1 200 OK\r\ncontent-length: 56\r\n\r\n\
                         {\"access_token\":\"a\",\"refresh_token\":\"b\",\"expires_in\":60}";
    let tries = AtomicUsize::new(0);
    let issuer = Peer::start(move |mut talk| {
        while talk.request().is_some() {
            let count = tries.fetch_add(1, Ordering::SeqCst);
            talk.send(GRANT.get(..count).unwrap_or(GRANT));
            if count < GRANT.len() {
                return;
            }
        }
    });
    let other = Peer::answering(|_| crate::support::peer::answer(200, "fine"));
    let proxy = TestProxy::builder()
        .refreshed("P", &other.url(), &issuer.url(), "")
        .provider("Other", "openai", &other.url(), "auth_value: fixed")
        .start();
    for _ in 0..=GRANT.len() {
        // The next try comes at once, rather than after the backoff.
        proxy.ask(post("/-/refresh/p", ""));
        assert_eq!(proxy.ask(get("/v1/models")).body, "fine");
    }
    crate::support::eventually("it has its token", || proxy.ask(get("/-/ready")).status == 200);
    assert_eq!(proxy.ask(get("/v1/messages")).body, "fine");
    let bodies: Vec<_> =
        issuer.seen().into_iter().map(|seen| String::from_utf8(seen.body).unwrap()).collect();
    // The start makes the first try and each request another. The first answer that has both tokens counts, whatever is
    // missing behind them: the seed is used up with it.
    let both = GRANT.find(",\"expires_in").unwrap();
    let (with_seed, after) = bodies.split_at(both + 1);
    assert!(with_seed.iter().all(|body| body.contains("refresh_token=the-seed")));
    assert!(after.iter().all(|body| body.contains("refresh_token=b&")), "{after:?}");
}

#[test]
fn a_header_of_a_hundred_megabytes_is_not_taken() {
    let peer = Peer::start(|mut talk| {
        let Some(_) = talk.request() else { return };
        talk.send("HTTP/1.1 200 OK\r\nx: ");
        let piece = "x".repeat(1_000_000);
        for _ in 0..100 {
            if !talk.send(&piece) {
                return;
            }
        }
    });
    let proxy = TestProxy::before(&peer.url());
    assert_eq!(proxy.ask(get("/")).code(), "upstream_broken");
}

#[test]
fn a_name_that_resolves_to_nothing_is_502() {
    let proxy = TestProxy::before("http://nowhere.invalid");
    let refused = proxy.ask(get("/"));
    assert_eq!((refused.status, refused.code()), (502, "upstream_unreachable"));
}
