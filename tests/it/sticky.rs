//! `selection_strategy: sticky`: conversations stay at their account, from outside.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use evertoken::testing::{Clock, Moment, Timestamp};
use sandbox::faults::Fault;
use sandbox::{Options, Sandbox};
use serde_json::{Value, json};

use crate::support::client::{Client, get, post};
use crate::support::eventually;
use crate::support::peer::Peer;
use crate::support::proxy::{Builder, TestProxy};

const NAMES: [&str; 3] = ["A", "B", "C"];

/// Peers that answer with their names.
fn peers() -> [Peer; 3] {
    NAMES.map(|name| Peer::answering(move |_| crate::support::peer::answer(200, name)))
}

fn before(peers: &[Peer], strategy: &str, lines: &[&str]) -> Builder {
    let mut builder = TestProxy::builder().settings(&format!("selection_strategy: {strategy}"));
    for ((name, peer), lines) in NAMES.into_iter().zip(peers).zip(lines.iter().chain([&""; 3])) {
        let lines = format!("auth_type: none\n{lines}");
        builder = builder.provider(name, "anthropic", &peer.url(), &lines);
    }
    builder
}

fn message(conversation: usize) -> String {
    format!(r#"{{"model":"m","messages":[{{"role":"user","content":"question {conversation}"}}]}}"#)
}

/// The providers that serve the conversations.
fn serving(proxy: &TestProxy, conversations: usize) -> Vec<String> {
    let mut client = Client::connect(proxy.address);
    (0..conversations)
        .map(|number| {
            client.send(post("/v1/messages", &message(number)));
            client.answer().body
        })
        .collect()
}

#[test]
fn a_conversation_stays_at_one_provider_on_every_host() {
    let peers = peers();
    let (one, other) =
        (before(&peers, "sticky", &[]).start(), before(&peers, "sticky", &[]).start());
    let served = serving(&one, 60);
    assert_eq!(served, serving(&one, 60));
    assert_eq!(served, serving(&other, 60), "another host chooses the same");
    for name in NAMES {
        let count = served.iter().filter(|own| *own == name).count();
        assert!(count > 8, "{name}: {served:?}");
    }
    // By its path a request goes where it says, and one without a conversation goes in file order.
    assert_eq!(one.ask(post("/to/c/v1/messages", &message(0))).body, "C");
    for target in ["/v1/messages/batches", "/v1/messages/batches/7/results"] {
        for _ in 0..3 {
            assert_eq!(one.ask(get(target)).body, "A", "{target}");
        }
    }
    assert_eq!(one.ask(post("/v1/messages/batches", r#"{"requests":[]}"#)).body, "A");
}

/// Each form of a conversation's id, in requests that differ in all else.
#[test]
fn an_id_of_the_client_keeps_its_requests_together() {
    let peers = peers();
    let proxy = before(&peers, "sticky", &[]).settings("replay_body_bytes: 65536").start();
    let ask = |fields: &str, body: &[u8]| {
        let head = format!(
            "POST /v1/messages HTTP/1.1\r\nHost: localhost\r\n{fields}Content-Length: {}\r\n\r\n",
            body.len()
        );
        proxy.ask([head.as_bytes(), body].concat()).body
    };
    let chunked = |fields: &str, body: &str| {
        let framed = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
        proxy.ask(format!(
            "POST /v1/messages HTTP/1.1\r\nHost: localhost\r\n{fields}Transfer-Encoding: chunked\r\n\r\n{framed}"
        ))
    };
    let (large, zipped) = ("x".repeat(100_000), "Content-Encoding: gzip\r\n");
    let mut spread = HashMap::<String, usize>::new();
    for number in 0..12 {
        let body = |text: &str, member: &str| {
            format!(r#"{{"messages":[{{"role":"user","content":"{text}"}}],{member}}}"#)
        };
        let id = format!("id-{number}");
        let in_metadata = body("a", &format!(r#""metadata":{{"user_id":"{id}"}}"#));
        let in_cache_key = body("b", &format!(r#""session_id":"x","prompt_cache_key":"{id}""#));
        let session = format!("session_id: {id}\r\n");
        let first = ask("", in_metadata.as_bytes());
        let others = [
            ask("", in_cache_key.as_bytes()),
            ask("session_id: x\r\n", in_cache_key.as_bytes()),
            ask("", body("c", &format!(r#""session_id":"{id}""#)).as_bytes()),
            ask(&session, body("d", r#""metadata":{"user_id":"x"}"#).as_bytes()),
            ask(&format!("X-Claude-Code-Session-Id: {id}\r\n"), body("e", r#""x":1"#).as_bytes()),
            // Neither compressed nor large nor in pieces hides it; nor does a file, if the header has it.
            ask(zipped, &gzip(in_cache_key.as_bytes())),
            ask(&session, body(&large, r#""x":1"#).as_bytes()),
            ask("", format!(r#"{{"prompt_cache_key":"{id}","x":"{large}"}}"#).as_bytes()),
            chunked("", &in_metadata).body,
            chunked(&session, &body(&large, r#""x":1"#)).body,
            ask(&session, large.as_bytes()),
            proxy
                .ask(format!("GET /v1/messages/x HTTP/1.1\r\nHost: localhost\r\n{session}\r\n"))
                .body,
        ];
        for (index, other) in others.iter().enumerate() {
            assert_eq!(*other, first, "{id}, {index}");
        }
        *spread.entry(first).or_default() += 1;
    }
    assert_eq!(spread.len(), 3, "{spread:?}");
}

/// A gzip member with one stored block (RFC 1951 §3.2.4).
fn gzip(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap();
    let mut out = b"\x1f\x8b\x08\0\0\0\0\0\0\x03\x01".to_vec();
    out.extend(length.to_le_bytes());
    out.extend((!length).to_le_bytes());
    out.extend(bytes);
    out.extend([0; 8]);
    out
}

#[test]
fn a_stream_of_a_large_body_reaches_the_conversations_provider_whole() {
    let peers = peers();
    let proxy = before(&peers, "sticky", &[]).settings("replay_body_bytes: 65536").start();
    let first = serving(&proxy, 8);
    for (number, name) in first.iter().enumerate() {
        let more = format!(r#"}},{{"role":"assistant","content":"{}"}}]}}"#, "y".repeat(200_000));
        let body = message(number).replace("}]}", &more);
        assert_eq!(proxy.ask(post("/v1/messages", &body)).body, *name);
        let index = NAMES.iter().position(|own| own == name).unwrap();
        assert_eq!(peers[index].seen().last().unwrap().body, body.as_bytes());
    }
}

#[test]
fn routes_keep_conversations_within_their_priority() {
    let peers = peers();
    let routes = "model_routes:
  'many*': [{provider: A, priority: 1, model: x}, {provider: B, priority: 1}, {provider: C, priority: 2}]
  'one*': [{provider: C, priority: 1}, {provider: B, priority: 2}]
";
    let proxy = before(&peers, "sticky", &[]).routes(routes).start();
    let ask = |model: &str, number: usize| {
        let body = message(number).replace("\"m\"", &format!("\"{model}\""));
        proxy.ask(post("/v1/messages", &body)).body
    };
    let many: Vec<_> = (0..40).map(|number| ask("many-1", number)).collect();
    assert!(["A", "B"].iter().all(|name| many.iter().filter(|own| own == name).count() > 8));
    assert!(!many.contains(&"C".to_owned()));
    let renamed = peers[0].seen();
    assert!(
        renamed.iter().all(|seen| String::from_utf8_lossy(&seen.body).contains(r#""model":"x""#))
    );
    assert!((0..10).all(|number| ask("one-1", number) == "C"));
    // The same conversation under another name of the model stays where it is.
    assert_eq!(many, (0..40).map(|number| ask("many-2", number)).collect::<Vec<_>>());
}

#[test]
fn weights_are_shares_and_a_reload_changes_them() {
    let peers = peers();
    let count =
        |served: &[String]| NAMES.map(|name| served.iter().filter(|own| *own == name).count());
    let proxy = before(&peers, "round_robin", &["weight: 3", "weight: 1", "weight: 2"]).start();
    assert_eq!(count(&serving(&proxy, 12)), [6, 2, 4]);
    let proxy = before(&peers, "sticky", &[]).start();
    let equal = serving(&proxy, 200);
    let heavier = before(&peers, "sticky", &["weight: 8"]);
    assert_eq!(proxy.reload(&heavier).status, 200);
    let heavy = serving(&proxy, 200);
    let shares = count(&heavy);
    assert!(shares[0].abs_diff(160) < 24, "{shares:?}");
    for (before, after) in equal.iter().zip(&heavy) {
        assert!(before == after || after == "A", "only A gains: {before} {after}");
    }
}

#[test]
fn a_reload_that_changes_a_weight_forgets_no_cooldown() {
    let failing = Peer::answering(|_| crate::support::peer::answer(503, "no"));
    let [_, b, c] = peers();
    let peers = [failing, b, c];
    let proxy = before(&peers, "sticky", &[]).start();
    serving(&proxy, 20);
    assert_eq!(peers[0].seen().len(), 1, "it cools down after its first answer");
    assert_eq!(proxy.reload(&before(&peers, "sticky", &["weight: 1000"])).status, 200);
    serving(&proxy, 20);
    assert_eq!(peers[0].seen().len(), 1, "it still does");
}

/// A clock that the test moves, in seconds.
fn moving_clock() -> (Clock, Arc<AtomicU64>) {
    let seconds = Arc::new(AtomicU64::new(0));
    let source = seconds.clone();
    let clock = Clock::from_fn(move || {
        let steady_ms = source.load(Ordering::Relaxed) * 1000;
        let wall =
            Timestamp::from_secs(1_800_000_000).plus_millis(i64::try_from(steady_ms).unwrap());
        Moment { wall, steady_ms }
    });
    (clock, seconds)
}

/// The usage of an agent's requests.
#[derive(Debug, Default)]
struct CacheUse {
    requests: u64,
    /// Requests after the first of a conversation.
    later: u64,
    /// Those that found all of the conversation before them in the cache.
    hits: u64,
    read_tokens: u64,
    written_tokens: u64,
}

impl CacheUse {
    fn percent(part: u64, whole: u64) -> u64 {
        (100 * part + whole / 2) / whole.max(1)
    }

    fn hit_percent(&self) -> u64 {
        Self::percent(self.hits, self.later)
    }

    fn read_percent(&self) -> u64 {
        Self::percent(self.read_tokens, self.read_tokens + self.written_tokens)
    }
}

const CONVERSATIONS: usize = 200;
const TURNS: usize = 8;

/// 200 conversations of 8 requests, in turns, over three accounts, each with its own prompt cache. One account has its limit
/// reached from the fourth turn to the sixth.
fn conversations(strategy: &str) -> CacheUse {
    let options = || Options { event_delay: Duration::ZERO, ..Options::default() };
    let accounts = NAMES.map(|_| Sandbox::start(options()).unwrap());
    let (clock, seconds) = moving_clock();
    let mut builder =
        TestProxy::builder().settings(&format!("selection_strategy: {strategy}")).clock(clock);
    for (name, account) in NAMES.into_iter().zip(&accounts) {
        builder = builder.account(name, account, "");
    }
    let proxy = builder.start();
    eventually("all accounts have a token", || proxy.ask(get("/-/ready")).status == 200);
    let mut client = Client::connect(proxy.address);
    let mut used = CacheUse::default();
    let mut talks: Vec<Vec<Value>> = vec![Vec::new(); CONVERSATIONS];
    for turn in 0..TURNS {
        if turn == 3 {
            let limit = Fault {
                status: Some(429),
                body: Some(b"{}".to_vec()),
                headers: vec![("retry-after".to_owned(), "600".to_owned())],
                ..Fault::default()
            };
            accounts[0].faults().at_provider(limit);
        }
        if turn == 6 {
            seconds.fetch_add(601, Ordering::Relaxed);
        }
        for (number, talk) in talks.iter_mut().enumerate() {
            let text = format!("{} {number} {turn}", "word ".repeat(50).trim_end());
            let text =
                json!({"type": "text", "text": text, "cache_control": {"type": "ephemeral"}});
            talk.push(json!({"role": "user", "content": [text]}));
            let request = json!({"model": "m", "system": "word ".repeat(100), "messages": talk,
                                 "metadata": {"user_id": format!("user_1_session_{number}")}});
            client.send(post("/v1/messages", &request.to_string()));
            let answer = client.answer();
            assert_eq!(answer.status, 200, "{answer:?}");
            let answer = answer.json();
            talk[2 * turn]["content"][0]["cache_control"].take();
            talk.push(json!({"role": "assistant", "content": "fine"}));
            let of = |name: &str| answer["usage"][name].as_u64().unwrap();
            let (read, written) =
                (of("cache_read_input_tokens"), of("cache_creation_input_tokens"));
            used.requests += 1;
            used.later += u64::from(turn > 0);
            // The last answer, and the new question.
            used.hits += u64::from(turn > 0 && written <= 54);
            used.read_tokens += read;
            used.written_tokens += written;
        }
    }
    used
}

/// The figures of docs/several-accounts.md.
#[test]
fn sticky_conversations_find_their_prompt_cache() {
    let (sticky, robin) = (conversations("sticky"), conversations("round_robin"));
    let figures = |used: &CacheUse| (used.hit_percent(), used.read_percent());
    assert_eq!((figures(&sticky), figures(&robin)), ((91, 81), (38, 63)));
}
