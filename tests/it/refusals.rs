//! Refusals of providers: when the next one is tried, and for how long the provider, or one model of it, is passed
//! over.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel::bounded;
use evertoken::testing::{Clock, Moment, Timestamp};
use serde_json::Value;

use crate::answers::{cases, gzip, numbering_issuer, raw};
use crate::support::client::{Answer, Client, get, post};
use crate::support::peer::{Peer, answer};
use crate::support::proxy::{Builder, TestProxy};
use crate::support::{PATIENCE, eventually};

const NOW: i64 = 1_800_000_000;
const QUESTION: &str = r#"{"model":"m-1","messages":[]}"#;

fn standing_clock() -> Clock {
    Clock::from_fn(|| Moment { wall: Timestamp::from_secs(NOW), steady_ms: 1000 })
}

fn fine() -> Peer {
    Peer::answering(|_| answer(200, "fine"))
}

/// A peer that always gives this answer.
fn giving(bytes: impl Into<Vec<u8>>) -> Peer {
    let bytes = bytes.into();
    Peer::answering_bytes(move |_| bytes.clone())
}

fn two(first: &Peer, second: &Peer) -> Builder {
    TestProxy::builder()
        .clock(standing_clock())
        .provider("A", "anthropic", &first.url(), "auth_value: key-a")
        .provider("B", "anthropic", &second.url(), "auth_value: key-b")
}

fn ask(proxy: &TestProxy, model: &str) -> Answer {
    proxy.ask(post("/v1/messages", &QUESTION.replace("m-1", model)))
}

fn provider(proxy: &TestProxy, index: usize) -> Value {
    proxy.ask(get("/-/status")).json()["providers"][index].clone()
}

/// The seconds until `time`.
fn seconds_until(time: &Value) -> Option<i64> {
    let at = Timestamp::parse_rfc3339(time.as_str()?).unwrap();
    Some(at.millis_since(Timestamp::from_secs(NOW)) / 1000)
}

fn cooldown(proxy: &TestProxy) -> Option<i64> {
    seconds_until(&provider(proxy, 0)["cooldown_until"])
}

#[test]
fn each_refusal_of_the_cases_is_passed_on_or_moves_on_and_cools_the_provider_for_so_long() {
    let mut wrong = Vec::new();
    let is_played = |case: &Value| case["expect"]["action"] != "refresh and replay once";
    for case in cases("api-refusals.jsonl").into_iter().filter(is_played) {
        let body = case["body"].as_str().unwrap();
        let body = body.replace("\"now+3600\"", "1800003600").replace("\"now-60\"", "1799999940");
        let fields = case["headers"].as_object().unwrap().iter();
        let fields: Vec<_> =
            fields.map(|(name, value)| (name.as_str(), value.as_str().unwrap())).collect();
        let refusing = giving(raw(case["status"].as_u64().unwrap(), &fields, body.as_bytes()));
        let good = fine();
        let proxy = two(&refusing, &good).settings("failure_cooldown: 77").start();
        let came = ask(&proxy, "m-1").body;
        let expected = match &case["expect"]["cooldown_seconds"] {
            Value::String(_) => Some(77),
            seconds => seconds.as_i64(),
        };
        let expected_body = if expected.is_some() { "fine" } else { body.as_str() };
        if cooldown(&proxy) != expected || came != expected_body {
            wrong.push(format!("{}: {:?}, {came}", case["name"], cooldown(&proxy)));
        }
    }
    assert!(wrong.is_empty(), "{} cases are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// One client could make the provider of all others rest for a week, and move them to another account.
#[test]
fn a_refusal_of_one_client_s_own_account_rests_nobody_else_s() {
    for status in [402, 429] {
        let first = Peer::answering_bytes(move |_| raw(status, &[("Retry-After", "600")], b"{}"));
        let second = fine();
        let proxy = TestProxy::builder()
            .clock(standing_clock())
            .provider("A", "anthropic", &first.url(), "auth_value: passthrough")
            .provider("B", "anthropic", &second.url(), "auth_value: key-b")
            .start();
        assert_eq!(ask(&proxy, "m").body, "fine", "it moves on");
        assert_eq!(cooldown(&proxy), None, "{status}");
        ask(&proxy, "m");
        assert_eq!(first.seen().len(), 2, "the next client is asked for its own account");
    }
}

#[test]
fn a_401_for_used_up_credit_is_no_reason_for_a_refresh() {
    let body =
        r#"{"type":"error","error":{"type":"CreditsError","message":"Insufficient balance"}}"#;
    let (issuer, refusing, good) =
        (numbering_issuer(), giving(raw(401, &[], body.as_bytes())), fine());
    let proxy = TestProxy::builder()
        .refreshed("P", &refusing.url(), &issuer.url(), "")
        .provider("Second", "anthropic", &good.url(), "auth_value: b")
        .start();
    eventually("the first token is there", || proxy.ask(get("/-/ready")).status == 200);
    assert_eq!(ask(&proxy, "m-1").body, "fine");
    assert_eq!((refusing.seen().len(), issuer.seen().len()), (1, 1));
    assert_eq!(provider(&proxy, 0)["state"], "cooling_down");
}

const CREDIT: &str = r#"{"error":{"message":"Your credit balance is too low to access the API."}}"#;

/// A 400 with `body` in chunks of 7 bytes.
fn chunked(fields: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes =
        format!("HTTP/1.1 400 X\r\n{fields}transfer-encoding: chunked\r\n\r\n").into_bytes();
    for chunk in body.chunks(7) {
        bytes.extend(format!("{:x}\r\n", chunk.len()).bytes());
        bytes.extend(chunk);
        bytes.extend(b"\r\n");
    }
    bytes.extend(b"0\r\n\r\n");
    bytes
}

#[test]
fn a_body_that_was_looked_at_goes_to_the_client_as_it_was_and_its_connection_is_used_again() {
    let plain = CREDIT.as_bytes().to_vec();
    let zlib = miniz_oxide::deflate::compress_to_vec_zlib(&plain, 6);
    let bare = miniz_oxide::deflate::compress_to_vec(&plain, 6);
    for (coding, body) in
        [("", plain.clone()), ("gzip", gzip(&plain)), ("deflate", zlib), ("deflate", bare)]
    {
        let fields = if coding.is_empty() {
            String::new()
        } else {
            format!("content-encoding: {coding}\r\n")
        };
        let refusing = giving(chunked(&fields, &body));
        let proxy = TestProxy::builder()
            .provider("A", "anthropic", &refusing.url(), "auth_value: key-a")
            .start();
        let mut client = Client::connect(proxy.address);
        for _ in 0..2 {
            client.send(post("/v1/messages", QUESTION));
            let head = client.head();
            assert_eq!((head.status, head.field("transfer-encoding")), (400, Some("chunked")));
            assert_eq!(head.field("content-encoding"), Some(coding).filter(|one| !one.is_empty()));
            let mut came = Vec::new();
            loop {
                let size = usize::from_str_radix(&client.line().unwrap(), 16).unwrap();
                came.extend(client.bytes(size));
                client.bytes(2);
                if size == 0 {
                    break;
                }
            }
            assert_eq!(came, body, "{coding}");
        }
        assert_eq!(provider(&proxy, 0)["state"], "cooling_down", "{coding}: it was understood");
        let connections: Vec<_> = refusing.seen().iter().map(|seen| seen.connection).collect();
        assert_eq!(connections, [0, 0], "{coding}");
    }
}

#[test]
fn a_large_refusal_is_judged_by_its_status_and_passed_on_whole() {
    let large = "x".repeat(1 << 20);
    for framing in
        [format!("content-length: {}\r\n", large.len()), "connection: close\r\n".to_owned()]
    {
        let bytes = format!("HTTP/1.1 429 X\r\nretry-after: 60\r\n{framing}\r\n{large}");
        let refusing = Peer::start(move |mut talk| {
            while talk.request().is_some() {
                talk.send(&bytes);
                if bytes.contains("connection: close") {
                    return;
                }
            }
        });
        let good = fine();
        let proxy = two(&refusing, &good).start();
        assert_eq!(ask(&proxy, "m-1").body, "fine");
        assert_eq!(cooldown(&proxy), Some(60));
        // Nobody else is left, whether there never was another or it can't be reached.
        let gone = TestProxy::builder()
            .provider("A", "anthropic", &refusing.url(), "auth_value: a")
            .provider("B", "anthropic", "http://127.0.0.1:1", "auth_value: b")
            .start();
        for came in [ask(&gone, "m-1"), proxy.ask(post("/to/a/v1/messages", QUESTION))] {
            assert_eq!((came.status, came.body.len(), came.whole), (429, large.len(), true));
        }
    }
    let credit = format!(
        "{{\"error\":{{\"message\":\"Insufficient balance\"}},\"x\":\"{}\"}}",
        "x".repeat(70_000)
    );
    let (refusing, good) = (giving(raw(400, &[], credit.as_bytes())), fine());
    let proxy = two(&refusing, &good).start();
    assert_eq!(ask(&proxy, "m-1").body, credit, "too large to be looked at");
    assert!(good.seen().is_empty());
}

#[test]
fn a_refusal_without_a_body_is_judged_by_its_head() {
    let refusing = Peer::start(|mut talk| {
        while talk.request().is_some() {
            talk.send("HTTP/1.1 429 X\r\nretry-after: 9\r\ncontent-length: 500\r\n\r\n");
        }
    });
    let good = Peer::answering(|_| "HTTP/1.1 200 X\r\ncontent-length: 5\r\n\r\n".to_owned());
    let proxy = two(&refusing, &good).start();
    let mut client = Client::connect(proxy.address);
    client.send("HEAD /v1/messages HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(client.head().status, 200);
    assert_eq!(cooldown(&proxy), Some(9));
}

#[test]
fn a_request_whose_body_is_not_held_stays_and_its_provider_cools_down_all_the_same() {
    let (refusing, good) = (giving(raw(400, &[], CREDIT.as_bytes())), fine());
    let proxy = two(&refusing, &good).settings("replay_body_bytes: 10").start();
    assert_eq!(ask(&proxy, "m-1").body, CREDIT);
    assert_eq!(cooldown(&proxy), Some(1800));
    assert_eq!(ask(&proxy, "m-1").body, "fine");
}

#[test]
fn an_http_1_0_client_gets_a_refusal_that_was_looked_at() {
    let refusing = giving(chunked("", CREDIT.as_bytes()));
    let proxy =
        TestProxy::builder().provider("A", "anthropic", &refusing.url(), "auth_value: a").start();
    let request = format!(
        "POST /v1/messages HTTP/1.0\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{QUESTION}",
        QUESTION.len()
    );
    let came = proxy.ask(request);
    assert_eq!((came.status, came.body.as_str()), (400, CREDIT));
    assert_eq!(came.field("transfer-encoding"), None);
}

const STREAM: &str = "HTTP/1.1 200 X\r\ncontent-type: text/event-stream; charset=utf-8\r\n";
const OVERLOADED: &str = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}\n\n";

/// A whole event stream.
fn stream(fields: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("{STREAM}{fields}content-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

#[test]
fn a_stream_that_begins_with_an_error_moves_on() {
    let limited = "data: {\"error\":{\"type\":\"rate_limit_error\",\"resets_in_seconds\":600}}\n\n";
    let later = format!(": hello\n\nevent: ping\ndata: {{\"type\": \"ping\"}}\n\n{OVERLOADED}");
    let cases = [
        (stream("", OVERLOADED.as_bytes()), 180),
        (stream("retry-after: 9\r\n", OVERLOADED.as_bytes()), 9),
        (stream("content-encoding: gzip\r\n", &gzip(OVERLOADED.as_bytes())), 180),
        (stream("", limited.as_bytes()), 600),
        (stream("", later.as_bytes()), 180),
    ];
    for (bytes, seconds) in cases {
        let (refusing, good) = (giving(bytes), fine());
        let proxy = two(&refusing, &good).start();
        assert_eq!(ask(&proxy, "m-1").body, "fine");
        assert_eq!(cooldown(&proxy), Some(seconds));
        assert_eq!(provider(&proxy, 0)["requests"]["errors"], u64::from(seconds != 600));
    }
}

#[test]
fn a_stream_that_begins_with_another_error_is_passed_on() {
    let invalid = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"invalid_request_error\",\"message\":\"x\"}}\n\n";
    let late = format!("event: message_start\ndata: {{}}\n\n{OVERLOADED}");
    for body in [invalid, late.as_str()] {
        let (first, good) = (giving(stream("", body.as_bytes())), fine());
        let proxy = two(&first, &good).start();
        assert_eq!(ask(&proxy, "m-1").body, body);
        assert!(good.seen().is_empty());
        assert_eq!(cooldown(&proxy), None);
    }
}

#[test]
fn the_last_stream_that_begins_with_an_error_is_passed_on_as_it_was() {
    let gzipped = gzip(OVERLOADED.as_bytes());
    let refusing = giving(stream("content-encoding: gzip\r\nx-own: 1\r\n", &gzipped));
    for broken in [giving(raw(500, &[], b"no")), giving(stream("", OVERLOADED.as_bytes()))] {
        let proxy = two(&broken, &refusing).start();
        let mut client = Client::connect(proxy.address);
        client.send(post("/v1/messages", QUESTION));
        let head = client.head();
        assert_eq!((head.status, head.field("x-own")), (200, Some("1")));
        assert_eq!(client.bytes(gzipped.len()), gzipped);
        assert_eq!(provider(&proxy, 1)["state"], "cooling_down", "it is noticed in passing");
    }
    // The first one's stream is the last answer, because nobody else gave one.
    let first = giving(stream("", OVERLOADED.as_bytes()));
    let proxy = TestProxy::builder()
        .provider("A", "anthropic", &first.url(), "auth_value: a")
        .provider("B", "anthropic", "http://127.0.0.1:1", "auth_value: b")
        .start();
    let came = ask(&proxy, "m-1");
    assert_eq!((came.status, came.body.as_str()), (200, OVERLOADED));
}

/// A comment, or half an event, counted as an answer: the cooldown of a provider ended, and the error after it was not seen.
#[test]
fn an_error_after_a_comment_is_noticed_in_passing() {
    let broken = giving(raw(500, &[], b"no"));
    let (refusing, step) = stepping(&[": PROCESSING\n\n", OVERLOADED]);
    let proxy = two(&broken, &refusing).start();
    let mut client = Client::connect(proxy.address);
    client.send(post("/v1/messages", QUESTION));
    step.send_timeout((), PATIENCE).unwrap();
    assert_eq!(client.head().status, 200);
    assert_eq!(client.chunk().as_deref(), Some(": PROCESSING\n\n"), "it does not wait");
    step.send_timeout((), PATIENCE).unwrap();
    assert_eq!(client.chunk().as_deref(), Some(OVERLOADED));
    assert_eq!(provider(&proxy, 1)["state"], "cooling_down");
}

/// The connection of the refused stream, whose end never came, stayed open for as long as the next provider's stream took.
#[test]
fn a_stream_that_moved_on_keeps_no_connection_while_the_next_one_streams() {
    let (closed, ends) = bounded(1);
    let refusing = Peer::start(move |mut talk| {
        if talk.request().is_some() {
            talk.send(format!("{STREAM}transfer-encoding: chunked\r\n\r\n"));
            talk.send(format!("{:x}\r\n{OVERLOADED}\r\n", OVERLOADED.len()));
            talk.wait_for_close();
            closed.send(()).unwrap();
        }
    });
    let (good, step) = stepping(&["data: {}\n\n", "data: {}\n\n"]);
    let proxy = two(&refusing, &good).start();
    let mut client = Client::connect(proxy.address);
    client.send(post("/v1/messages", QUESTION));
    step.send_timeout((), PATIENCE).unwrap();
    assert_eq!(client.head().status, 200);
    assert_eq!(client.chunk().as_deref(), Some("data: {}\n\n"));
    ends.recv_timeout(PATIENCE).expect("the first connection is closed");
    step.send_timeout((), PATIENCE).unwrap();
    assert_eq!(client.chunk().as_deref(), Some("data: {}\n\n"));
}

/// A peer that sends each of `pieces` as a chunk, once it is told to.
fn stepping(pieces: &'static [&'static str]) -> (Peer, crossbeam_channel::Sender<()>) {
    let (step, steps) = bounded(0);
    let peer = Peer::start(move |mut talk| {
        while talk.request().is_some() {
            talk.send(format!("{STREAM}transfer-encoding: chunked\r\n\r\n"));
            for piece in pieces {
                if steps.recv_timeout(PATIENCE).is_err() {
                    return;
                }
                talk.send(format!("{:x}\r\n{piece}\r\n", piece.len()));
            }
            talk.send("0\r\n\r\n");
        }
    });
    (peer, step)
}

#[test]
fn a_good_stream_waits_for_no_more_than_its_first_event() {
    let (peer, step) = stepping(&["data: {\"a\"", ":1}\n\n", "data: {\"b\":2}\n\n"]);
    let other = fine();
    let proxy = two(&peer, &other).start();
    let mut client = Client::connect(proxy.address);
    client.send(post("/v1/messages", QUESTION));
    step.send_timeout((), PATIENCE).unwrap();
    step.send_timeout((), PATIENCE).unwrap();
    assert_eq!(client.head().status, 200);
    assert_eq!(client.chunk().as_deref(), Some("data: {\"a\":1}\n\n"));
    step.send_timeout((), PATIENCE).unwrap();
    assert_eq!(client.chunk().as_deref(), Some("data: {\"b\":2}\n\n"));
    assert_eq!(client.chunk(), None);
}

#[test]
fn an_event_whose_name_is_that_of_no_error_waits_for_nothing() {
    let (peer, step) = stepping(&["event: message_start\nda", "ta: {}\n\n"]);
    let other = fine();
    let proxy = two(&peer, &other).start();
    let mut client = Client::connect(proxy.address);
    client.send(post("/v1/messages", QUESTION));
    step.send_timeout((), PATIENCE).unwrap();
    assert_eq!(client.head().status, 200);
    assert_eq!(client.chunk().as_deref(), Some("event: message_start\nda"));
    step.send_timeout((), PATIENCE).unwrap();
    assert_eq!(client.chunk().as_deref(), Some("ta: {}\n\n"));
}

#[test]
fn a_stream_that_is_asked_for_by_get_or_has_no_other_provider_is_not_held_back() {
    for (request, count) in [(get("/v1/messages"), 2), (post("/v1/messages", QUESTION), 1)] {
        let (peer, step) = stepping(&["event: ping\ndata: {}\n\n", "data: {}\n\n"]);
        let other = fine();
        let mut builder =
            TestProxy::builder().provider("A", "anthropic", &peer.url(), "auth_value: a");
        if count == 2 {
            builder = builder.provider("B", "anthropic", &other.url(), "auth_value: b");
        }
        let proxy = builder.start();
        let mut client = Client::connect(proxy.address);
        client.send(request);
        assert_eq!(client.head().status, 200, "before the first event is sent");
        step.send_timeout((), PATIENCE).unwrap();
        assert_eq!(client.chunk().as_deref(), Some("event: ping\ndata: {}\n\n"));
        step.send_timeout((), PATIENCE).unwrap();
        assert_eq!(client.chunk().as_deref(), Some("data: {}\n\n"));
    }
}

#[test]
fn a_stream_that_breaks_off_before_its_first_event_is_seen_to_be_cut() {
    let cutting = Peer::start(|mut talk| {
        if talk.request().is_some() {
            talk.send(format!("{STREAM}transfer-encoding: chunked\r\n\r\n7\r\ndata: {{\r\n"));
        }
    });
    for other in [fine(), giving(raw(500, &[], b"no"))] {
        let proxy = two(&cutting, &other).start();
        let came = ask(&proxy, "m-1");
        assert_eq!((came.status, came.body.as_str(), came.whole), (200, "data: {", false));
    }
}

/// A peer that refuses the model `m-1`, as Google does, until the count is 0.
fn refusing_one_model(refusals: usize) -> Peer {
    let left = Arc::new(AtomicUsize::new(refusals));
    Peer::answering(move |seen| {
        let is_of_model =
            String::from_utf8_lossy(&seen.body).contains("m-1") || seen.line.contains("m-1");
        let counted = |left: usize| left.checked_sub(1);
        if !is_of_model || left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, counted).is_err() {
            return answer(200, "from A");
        }
        let body = r#"{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","details":[{"violations":[{"quotaId":"RequestsPerDayPerProjectPerModel"}]},{"retryDelay":"45.8s"}]}}"#;
        answer(429, body)
    })
}

#[test]
fn a_refusal_that_concerns_one_model_lets_the_others_go_on() {
    let (refusing, good) = (refusing_one_model(1), fine());
    let proxy = two(&refusing, &good).start();
    assert_eq!(ask(&proxy, "m-1").body, "fine");
    assert_eq!(ask(&proxy, "m-2").body, "from A");
    assert_eq!(ask(&proxy, "m-1").body, "fine");
    assert_eq!(refusing.seen().len(), 2);
    let shown = provider(&proxy, 0);
    assert_eq!((shown["state"].as_str(), shown["cooldown_until"].is_null()), (Some("ready"), true));
    assert_eq!(shown["resting_models"][0]["model"], "m-1");
    assert_eq!(seconds_until(&shown["resting_models"][0]["until"]), Some(46));
    let page = proxy.ask(get("/-/")).body;
    assert!(page.contains("Passed over for <code>m-1</code> for"), "{page}");
    // A success, which its own name brings about, ends the rest of the model.
    assert_eq!(proxy.ask(post("/to/a/v1/messages", QUESTION)).body, "from A");
    assert_eq!(ask(&proxy, "m-1").body, "from A");
    assert_eq!(provider(&proxy, 0)["resting_models"].as_array().map(Vec::len), Some(0));
}

#[test]
fn the_rest_of_a_model_outlives_a_restart() {
    let (refusing, good) = (refusing_one_model(1), fine());
    let proxy = two(&refusing, &good).start();
    assert_eq!(ask(&proxy, "m-1").body, "fine");
    let proxy = two(&refusing, &good).folder(proxy.into_folder()).start();
    assert_eq!(ask(&proxy, "m-1").body, "fine");
    assert_eq!(refusing.seen().len(), 1, "it was not asked again");
    let shown = provider(&proxy, 0);
    assert_eq!(shown["resting_models"][0]["model"], "m-1");
    assert_eq!(seconds_until(&shown["resting_models"][0]["until"]), Some(46));
    assert_eq!(ask(&proxy, "m-2").body, "from A");
}

#[test]
fn a_model_in_the_path_or_in_a_compressed_body_rests_too() {
    let (refusing, good) = (refusing_one_model(1), fine());
    let proxy = TestProxy::builder()
        .provider("A", "generic", &refusing.url(), "auth_value: key-a")
        .provider("B", "generic", &good.url(), "auth_value: key-b")
        .start();
    let of = |model: &str| post(&format!("/v1beta/models/{model}:generateContent"), "{}");
    assert_eq!(proxy.ask(of("m-1")).body, "fine");
    assert_eq!(proxy.ask(of("m-2")).body, "from A");
    assert_eq!(proxy.ask(of("m-1")).body, "fine");
    assert_eq!(provider(&proxy, 0)["resting_models"][0]["model"], "m-1");
    let packed = gzip(QUESTION.as_bytes());
    let head = format!(
        "POST /v1beta/x HTTP/1.1\r\nHost: localhost\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
        packed.len()
    );
    assert_eq!(proxy.ask([head.as_bytes(), &packed].concat()).body, "fine");
}

#[test]
fn of_two_routes_to_one_provider_the_one_whose_model_rests_is_passed_over() {
    let refusing = refusing_one_model(9);
    let routes = "model_routes:\n  \"any*\":\n    - { provider: A, priority: 1, model: m-1 }\n    - { provider: A, priority: 2, model: m-2 }\n";
    let proxy = TestProxy::builder()
        .provider("A", "anthropic", &refusing.url(), "auth_value: key-a")
        .routes(routes)
        .start();
    for _ in 0..3 {
        assert_eq!(ask(&proxy, "any").body, "from A");
    }
    let asked: Vec<bool> = refusing
        .seen()
        .iter()
        .map(|seen| String::from_utf8_lossy(&seen.body).contains("m-1"))
        .collect();
    assert_eq!(asked, [true, false, false, false]);
    assert_eq!(provider(&proxy, 0)["resting_models"][0]["model"], "m-1");
}

/// A client that left while comments kept coming was noticed after the whole wait for the first event, 10 s.
#[test]
fn a_client_that_leaves_while_comments_come_ends_the_stream_upstream() {
    let (said, began) = bounded(0);
    let (gone, ended) = bounded(1);
    let (_keep, pace) = bounded::<()>(0);
    let commenting = Peer::start(move |mut talk| {
        if talk.request().is_none() {
            return;
        }
        talk.send(format!("{STREAM}transfer-encoding: chunked\r\n\r\n"));
        while talk.send("4\r\n: k\n\r\n") {
            let _ = said.try_send(());
            let _ = pace.recv_timeout(Duration::from_millis(5));
        }
        let _ = gone.send(());
    });
    let other = fine();
    let proxy = two(&commenting, &other).start();
    let mut client = Client::connect(proxy.address);
    client.send(post("/v1/messages", QUESTION));
    for _ in 0..5 {
        began.recv_timeout(PATIENCE).unwrap();
    }
    drop(client);
    let noticed = ended.recv_timeout(Duration::from_secs(5));
    assert!(noticed.is_ok(), "well before the wait for the first event ends");
    assert!(other.seen().is_empty(), "nobody waits for another answer");
    assert_eq!(cooldown(&proxy), None);
}

#[test]
fn a_provider_that_could_not_be_asked_is_well_once_it_answers_anything() {
    let count = AtomicUsize::new(0);
    let first = Peer::start(move |mut talk| {
        if talk.request().is_some() && count.fetch_add(1, Ordering::SeqCst) > 0 {
            talk.answer(404, "no");
        }
    });
    let good = fine();
    let proxy = two(&first, &good).start();
    assert_eq!(ask(&proxy, "m-1").body, "fine");
    assert_eq!(provider(&proxy, 0)["state"], "cooling_down");
    assert_eq!(proxy.ask(post("/to/a/x", "{}")).status, 404);
    assert_eq!(provider(&proxy, 0)["state"], "ready");
}

const TOO_LARGE: &str = r#"{"error":{"message":"Request too large for m-1 in organization o on tokens per min (TPM): Limit 30000, Requested 40000.","type":"tokens","code":"rate_limit_exceeded"}}"#;

/// A request that never fits rested each provider in turn, for those that fit too.
#[test]
fn a_request_that_is_too_large_moves_on_once_and_rests_nobody() {
    let first = giving(raw(429, &[("retry-after", "60")], TOO_LARGE.as_bytes()));
    let second = giving(raw(429, &[("x-own", "2")], TOO_LARGE.as_bytes()));
    let third = fine();
    let proxy = TestProxy::builder()
        .clock(standing_clock())
        .provider("A", "anthropic", &first.url(), "auth_value: key-a")
        .provider("B", "anthropic", &second.url(), "auth_value: key-b")
        .provider("C", "anthropic", &third.url(), "auth_value: key-c")
        .start();
    let came = ask(&proxy, "m-1");
    assert_eq!((came.status, came.field("x-own"), came.body.as_str()), (429, Some("2"), TOO_LARGE));
    assert_eq!((first.seen().len(), second.seen().len(), third.seen().len()), (1, 1, 0));
    for index in 0..2 {
        let shown = provider(&proxy, index);
        assert_eq!(
            (&shown["state"], &shown["resting_models"]),
            (&"ready".into(), &Value::Array(vec![]))
        );
    }
    let (larger, other) = (giving(raw(429, &[], TOO_LARGE.as_bytes())), fine());
    assert_eq!(ask(&two(&larger, &other).start(), "m-1").body, "fine", "another may be larger");
}

/// A 200 whose stream begins with an error ended the rest that the account had been given before.
#[test]
fn a_stream_that_begins_with_an_error_ends_no_cooldown() {
    let limited = "data: {\"error\":{\"type\":\"rate_limit_error\"}}\n\n";
    let count = AtomicUsize::new(0);
    let refusing = Peer::answering_bytes(move |_| match count.fetch_add(1, Ordering::SeqCst) {
        0 => raw(429, &[("retry-after", "9000")], b"{}"),
        _ => stream("", limited.as_bytes()),
    });
    let other = giving(raw(503, &[], b"no"));
    let proxy = two(&refusing, &other).start();
    ask(&proxy, "m-1");
    assert_eq!(cooldown(&proxy), Some(9000));
    ask(&proxy, "m-1");
    assert_eq!((refusing.seen().len(), cooldown(&proxy)), (2, Some(9000)));
    // Nor one that was asked for by its name.
    assert_eq!(proxy.ask(post("/to/a/v1/messages", QUESTION)).body, limited);
    assert_eq!((refusing.seen().len(), cooldown(&proxy)), (3, Some(9000)));
}

/// What `/-/status` says of A after it refused `m-1`: the model that rests, and the seconds that are left.
fn rest_of(proxy: &TestProxy) -> (bool, Option<i64>) {
    let report = proxy.ask(get("/-/status")).json();
    let now = Timestamp::parse_rfc3339(report["now"].as_str().unwrap()).unwrap();
    let seconds = |time: &Value| {
        let at = Timestamp::parse_rfc3339(time.as_str()?).unwrap();
        Some((at.millis_since(now) + 999) / 1000)
    };
    let shown = &report["providers"][0];
    match &shown["resting_models"][0]["until"] {
        Value::Null => (false, seconds(&shown["cooldown_until"])),
        until => (true, seconds(until)),
    }
}

#[test]
fn each_refusal_that_the_sandbox_knows_moves_on_and_rests_as_long_as_it_says() {
    let sandbox = sandbox::Sandbox::start(sandbox::Options::default()).unwrap();
    let all = sandbox::refusals::Refusals::all();
    let mut wrong = Vec::new();
    for name in all.names() {
        let good = fine();
        let proxy = TestProxy::builder()
            .provider("A", "anthropic", &sandbox.url(), "auth_value: a")
            .provider("B", "anthropic", &good.url(), "auth_value: b")
            .start();
        assert!(sandbox.refuse(name, "m-1"));
        let came = ask(&proxy, "m-1").body;
        let refusal = all.get(name).unwrap();
        let expected = i64::try_from(refusal.seconds.unwrap_or(180)).unwrap();
        let (is_of_model, seconds) = rest_of(&proxy);
        // A test takes some seconds at most.
        let is_near = seconds.is_some_and(|left| (expected - 20..=expected + 1).contains(&left));
        if came != "fine" || is_of_model != refusal.model || !is_near {
            wrong.push(format!("{name}: {came}, {is_of_model}, {seconds:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
