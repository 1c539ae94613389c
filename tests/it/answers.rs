//! Issuers' answers to a refresh, and their meaning: the cases in `tests/data/cases`, and more kinds of them.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};

use evertoken::testing::{Clock, Timestamp};
use serde_json::{Value, json};

use crate::support::client::{Client, get, post};
use crate::support::eventually;
use crate::support::peer::{Conversation, Peer, answer};
use crate::support::proxy::TestProxy;

/// The lines of a file in `tests/data/cases`.
pub(crate) fn cases(name: &str) -> Vec<Value> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/cases").join(name);
    let text = std::fs::read_to_string(path).unwrap();
    let cases: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(cases.len() >= 20, "{name} has {} cases", cases.len());
    cases
}

/// A whole HTTP answer.
pub(crate) fn raw(status: u64, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        write!(head, "{name}: {value}\r\n").unwrap();
    }
    [head.as_bytes(), b"\r\n", body].concat()
}

/// The answer that a case describes.
fn answer_of(case: &Value) -> Vec<u8> {
    let headers: Vec<(&str, &str)> = case["headers"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str().unwrap()))
        .collect();
    raw(case["status"].as_u64().unwrap(), &headers, case["body"].as_str().unwrap().as_bytes())
}

/// A proxy whose issuer gave one answer to its first refresh.
struct Refreshed {
    proxy: TestProxy,
    _provider: Peer,
    issuer: Peer,
}

impl Refreshed {
    /// Starts a proxy whose issuer gives `answer` to every refresh, and waits for the outcome of the first.
    fn by(answer: Vec<u8>, more: &str) -> Self {
        Self::by_peer(Peer::answering_bytes(move |_| answer.clone()), more)
    }

    /// The same with an issuer that follows a script.
    fn by_peer(issuer: Peer, more: &str) -> Self {
        let provider = Peer::telling_the_credential();
        let builder = TestProxy::builder().refreshed("P", &provider.url(), &issuer.url(), more);
        let refreshed = Self { proxy: builder.start(), _provider: provider, issuer };
        eventually("the first refresh ended", || {
            let refresh = refreshed.status()["refresh"].clone();
            refresh["successes"].as_u64().unwrap() + refresh["failures"].as_u64().unwrap() > 0
        });
        refreshed
    }

    /// The provider in `/-/status`.
    fn status(&self) -> Value {
        self.proxy.ask(get("/-/status")).json()["providers"][0].clone()
    }

    /// The state file.
    fn stored(&self) -> Value {
        let file = std::fs::read_to_string(self.proxy.folder().join("p.json")).unwrap();
        serde_json::from_str(&file).unwrap()
    }

    /// The outcome of the refresh, in the form of a case.
    fn outcome(&self) -> Value {
        let status = self.status();
        if status["refresh"]["successes"] == 1 {
            return self.grant(&status);
        }
        let outcome = match wait_until_next_try(&status) {
            0..=300 => "transient",
            3_600..3_630 => "permanent",
            wait => panic!("the next try is after {wait} s"),
        };
        let mut observed = json!({ "outcome": outcome });
        let error = status["refresh"]["last_error"].as_str().unwrap();
        let advised = status["advice"].as_str().unwrap().contains("Log in again");
        assert_eq!(
            advised,
            error.contains("log in again"),
            "log and status say the same: {status}"
        );
        if advised {
            observed["advice"] = "log in again".into();
        }
        observed
    }

    fn grant(&self, status: &Value) -> Value {
        let credential = self.proxy.ask(get("/")).body;
        let stored = self.stored()["refresh_token"].as_str().unwrap().to_owned();
        let left = status["token"]["expires_in_seconds"].as_i64().unwrap();
        json!({
            "outcome": "grant",
            "access_token": credential.strip_prefix("Bearer ").unwrap(),
            "refresh_token": if stored == "the-seed" { "kept" } else { &stored },
            // A test takes some seconds at most.
            "expires_in": (left + 59) / 60 * 60,
        })
    }
}

/// The time from the last refresh to the next try, in seconds.
fn wait_until_next_try(status: &Value) -> i64 {
    let at = |value: &Value| Timestamp::parse_rfc3339(value.as_str().unwrap()).unwrap();
    let last = status["refresh"]["history"].as_array().unwrap().last().unwrap();
    at(&status["refresh"]["next_attempt_at"]).millis_since(at(&last["at"])) / 1000
}

#[test]
fn each_answer_of_a_token_endpoint_is_what_the_case_says() {
    let mut wrong = Vec::new();
    for case in cases("token-answers.jsonl") {
        let observed = Refreshed::by(answer_of(&case), "").outcome();
        if observed != case["expect"] {
            wrong.push(format!("{}: {observed}, not {}", case["name"], case["expect"]));
        }
    }
    assert!(wrong.is_empty(), "{} cases are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// A gzip file without a checksum, as its reader takes it.
pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let data = miniz_oxide::deflate::compress_to_vec(bytes, 6);
    [b"\x1f\x8b\x08\0\0\0\0\0\0\x03".as_slice(), &data, &[0; 8]].concat()
}

/// A request: name, body, headers.
type Case<'a> = (&'a str, &'a [u8], &'a [(&'a str, &'a str)]);

const PLAIN: &str = r#"{"access_token":"at-1","refresh_token":"rt-1","expires_in":3600}"#;

#[test]
fn a_compressed_token_answer_counts_whatever_its_headers_say() {
    let deflate = miniz_oxide::deflate::compress_to_vec_zlib(PLAIN.as_bytes(), 6);
    let marked = gzip(format!("\u{feff}{PLAIN}").as_bytes());
    let form = gzip(b"access_token=at-1&refresh_token=rt-1&expires_in=3600");
    let json = ("Content-Type", "application/json");
    let expected = json!({
        "outcome": "grant", "access_token": "at-1", "refresh_token": "rt-1", "expires_in": 3600,
    });
    let cases: [Case<'_>; 6] = [
        ("the proxy dropped the header", &gzip(PLAIN.as_bytes()), &[json]),
        ("gzip, as it says", &gzip(PLAIN.as_bytes()), &[json, ("Content-Encoding", "gzip")]),
        ("deflate, as it says", &deflate, &[json, ("Content-Encoding", "deflate")]),
        ("inflated on the way, the header left", PLAIN.as_bytes(), &[("Content-Encoding", "gzip")]),
        ("a byte order mark within", &marked, &[]),
        ("a form within", &form, &[json]),
    ];
    for (name, body, headers) in cases {
        assert_eq!(Refreshed::by(raw(200, headers, body), "").outcome(), expected, "{name}");
    }
}

#[test]
fn a_token_answer_that_inflates_to_more_than_1_mib_is_refused() {
    let bomb = gzip(&vec![b' '; 64 << 20]);
    assert!(bomb.len() < 1 << 17);
    let refreshed = Refreshed::by(raw(200, &[("Content-Encoding", "gzip")], &bomb), "");
    assert_eq!(refreshed.outcome(), json!({"outcome": "transient"}));
    let error = refreshed.status()["refresh"]["last_error"].to_string();
    assert!(error.contains("over 1 MiB once inflated"), "{error}");
}

#[test]
fn a_whole_json_answer_counts_though_its_connection_breaks_off() {
    let expected = json!({
        "outcome": "grant", "access_token": "at-1", "refresh_token": "rt-1", "expires_in": 3600,
    });
    let cases = [
        ("without a length", format!("HTTP/1.1 200 OK\r\n\r\n{PLAIN}"), true),
        (
            "short of its length",
            format!("HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{PLAIN}"),
            true,
        ),
        (
            "without the last chunk",
            format!(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{PLAIN}\r\n",
                PLAIN.len()
            ),
            true,
        ),
        (
            "half of it",
            format!("HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{}", &PLAIN[..40]),
            false,
        ),
        (
            "a form that may go on",
            "HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\naccess_token=at-1&expires_in=36"
                .to_owned(),
            false,
        ),
    ];
    for (name, answer, counts) in cases {
        let issuer = Peer::start(move |mut talk: Conversation| {
            talk.request();
            talk.send(&answer);
        });
        let outcome = Refreshed::by_peer(issuer, "").outcome();
        let wanted = if counts { expected.clone() } else { json!({"outcome": "transient"}) };
        assert_eq!(outcome, wanted, "{name}");
    }
}

/// The used refresh token was presented again, and its successor had been in the part that came.
#[test]
fn an_answer_that_breaks_off_behind_its_refresh_token_loses_none() {
    let grant = json!({
        "outcome": "grant", "access_token": "at-1", "refresh_token": "rt-1", "expires_in": 3600,
    });
    let transient = json!({"outcome": "transient"});
    let cases = [
        (
            r#"{"access_token":"at-1","expires_in":3600,"refresh_token":"rt-1","id_token":"eyJ"#,
            &grant,
            Some("rt-1"),
        ),
        (
            r#"{"refresh_token":"rt-1","expires_in":3600,"access_token":"at-"#,
            &transient,
            Some("rt-1"),
        ),
        (r#"{"access_token":"at-1","expires_in":3600,"refresh_token":"rt-1"#, &transient, None),
    ];
    for (body, expected, stored) in cases {
        for resets in [false, true] {
            let issuer = Peer::start(move |mut talk: Conversation| {
                talk.request();
                talk.send(format!("HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{body}"));
                if resets {
                    talk.reset();
                }
            });
            let refreshed = Refreshed::by_peer(issuer, "");
            assert_eq!(refreshed.outcome(), *expected, "{body}, reset: {resets}");
            assert_eq!(refreshed.stored()["refresh_token"].as_str(), stored, "{body}");
        }
    }
}

/// A sentence about a refresh token was taken for its end, and the spent seed was presented in its place.
#[test]
fn a_sentence_beside_a_status_that_passes_ends_no_chain() {
    for (status, message, trouble) in [
        (503, "Unknown error while loading refresh token", "issuer_fails"),
        (429, "Refresh token request already in progress", "throttled"),
        (409, "Refresh token request already in progress", "no_reason"),
    ] {
        let asked = AtomicUsize::new(0);
        let issuer = Peer::answering_bytes(move |_| match asked.fetch_add(1, Ordering::SeqCst) {
            1 => raw(status, &[], json!({ "message": message }).to_string().as_bytes()),
            _ => raw(200, &[], PLAIN.as_bytes()),
        });
        let refreshed = Refreshed::by_peer(issuer, "");
        refreshed.proxy.ask(post("/-/refresh/p", ""));
        eventually("the next try", || refreshed.issuer.seen().len() == 3);
        let second = refreshed.status()["refresh"]["history"][1].clone();
        assert_eq!(second["trouble"], trouble, "{status}");
        let seen = refreshed.issuer.seen();
        let tokens = seen.iter().map(|seen| form_urlencoded::parse(&seen.body).nth(1).unwrap().1);
        assert_eq!(tokens.collect::<Vec<_>>(), ["the-seed", "rt-1", "rt-1"], "{status}");
    }
}

#[test]
fn an_issuer_like_github_that_answers_with_forms_and_errors_in_a_200() {
    let form = |body: &str| {
        raw(
            200,
            &[("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")],
            body.as_bytes(),
        )
    };
    let issuer = Peer::answering_bytes(move |seen| {
        let asked = String::from_utf8_lossy(&seen.body).into_owned();
        if asked.contains("refresh_token=the-seed&") {
            form(
                "access_token=ghu_1&expires_in=28800&refresh_token=ghr_1&refresh_token_expires_in=15897600&scope=&token_type=bearer",
            )
        } else {
            form(
                "error=bad_refresh_token&error_description=The+refresh+token+passed+is+incorrect+or+expired.&error_uri=https%3A%2F%2Fdocs",
            )
        }
    });
    let provider = Peer::telling_the_credential();
    let builder = || TestProxy::builder().refreshed("P", &provider.url(), &issuer.url(), "");
    let proxy = builder().start();
    assert_eq!(proxy.ask(get("/")).body, "Bearer ghu_1");
    let folder = proxy.into_folder();
    let file = std::fs::read_to_string(folder.path().join("p.json")).unwrap();
    assert!(file.contains("ghr_1"), "{file}");
    // The next refresh finds the rotated token revoked: the seed is tried in its place.
    let proxy = builder().folder(folder).start();
    proxy.ask("POST /-/refresh/p HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
    eventually("the seed is tried", || issuer.seen().len() == 3);
    let seen = issuer.seen();
    let tokens = seen.iter().map(|seen| form_urlencoded::parse(&seen.body).nth(1).unwrap().1);
    assert_eq!(tokens.collect::<Vec<_>>(), ["the-seed", "ghr_1", "the-seed"]);
}

#[test]
fn an_error_in_a_200_is_not_asked_for_again_each_second() {
    for code in ["bad_refresh_token", "invalid_code", "invalid_refresh_token", "token_expired"] {
        let body = json!({"ok": false, "error": code}).to_string();
        let refreshed = Refreshed::by(raw(200, &[], body.as_bytes()), "");
        let status = refreshed.status();
        assert_eq!(status["state"], "unavailable");
        assert_eq!(status["refresh"]["trouble"], "token_dead", "{code}");
        assert!((3_600..3_630).contains(&wait_until_next_try(&status)), "{code}: {status}");
        let refused = refreshed.proxy.ask(get("/"));
        assert!(refused.body.contains(&format!("200 OK ({code})")), "{}", refused.body);
        assert_eq!(refreshed.issuer.seen().len(), 1, "{code}");
    }
}

#[test]
fn a_firewalls_page_is_asked_past_until_the_issuer_is_there_again() {
    let asked = AtomicUsize::new(0);
    let issuer = Peer::answering_bytes(move |_| match asked.fetch_add(1, Ordering::SeqCst) {
        0 => raw(403, &[("Content-Type", "text/html")], b"<html><h1>Blocked</h1></html>"),
        _ => raw(200, &[], PLAIN.as_bytes()),
    });
    let refreshed = Refreshed::by_peer(issuer, "");
    assert_eq!(refreshed.status()["refresh"]["trouble"], "no_reason");
    assert_eq!(
        refreshed.proxy.ask(get("/")).body,
        "Bearer at-1",
        "the request waits for the next try"
    );
}

#[test]
fn values_below_the_top_level_are_found_by_token_fields() {
    let slack = json!({
        "ok": true, "access_token": "xoxb-bot", "refresh_token": "bot-refresh",
        "authed_user": {"id": "U1", "access_token": "at-1", "refresh_token": "rt-1", "expires_in": 3600},
    });
    let fields = "token_fields: {access_token: authed_user.access_token}";
    let expected = json!({
        "outcome": "grant", "access_token": "at-1", "refresh_token": "rt-1", "expires_in": 3600,
    });
    assert_eq!(
        Refreshed::by(raw(200, &[], slack.to_string().as_bytes()), fields).outcome(),
        expected
    );
    let refreshed = Refreshed::by(raw(200, &[], PLAIN.as_bytes()), fields);
    assert_eq!(
        refreshed.outcome(),
        json!({"outcome": "transient"}),
        "another's token is not taken"
    );
    let error = refreshed.status()["refresh"]["last_error"].to_string();
    assert!(error.contains("'authed_user.access_token'"), "{error}");
    // The answer to a refresh says whose tokens it has, at the top level.
    let flat = PLAIN.replace('{', r#"{"ok":true,"token_type":"user","#);
    assert_eq!(Refreshed::by(raw(200, &[], flat.as_bytes()), fields).outcome(), expected);
    let nested = r#"{"data":{"problem":{"code":"invalid_grant"}}}"#;
    let fields = "token_fields: {error: data.problem.code}";
    let refreshed = Refreshed::by(raw(200, &[], nested.as_bytes()), fields);
    assert_eq!(refreshed.outcome(), json!({"outcome": "permanent", "advice": "log in again"}));
}

#[test]
fn a_token_request_says_which_program_sends_it() {
    let own = concat!("evertoken/", env!("CARGO_PKG_VERSION"));
    for (more, agent) in [("", own), ("headers: {User-Agent: \"other/1\"}", "other/1")] {
        let refreshed = Refreshed::by(raw(200, &[], PLAIN.as_bytes()), more);
        let seen = &refreshed.issuer.seen()[0];
        let agents: Vec<_> = seen.fields.iter().filter(|(name, _)| name == "user-agent").collect();
        assert_eq!(agents.len(), 1);
        assert_eq!(agents[0].1, agent);
    }
}

/// An issuer whose tokens are called `t0`, `t1`, … and live 9 s, so that one may be refreshed at once.
pub(crate) fn numbering_issuer() -> Peer {
    let grants = AtomicUsize::new(0);
    Peer::answering(move |_| {
        let number = grants.fetch_add(1, Ordering::SeqCst);
        answer(200, &format!(r#"{{"access_token":"t{number}","expires_in":9}}"#))
    })
}

/// A provider that answers with `refusal` to the token `t0`, and well to any other.
fn refusing(refusal: Vec<u8>) -> Peer {
    Peer::answering_bytes(move |seen| match seen.field("authorization") {
        Some("Bearer t0") => refusal.clone(),
        _ => answer(200, "from the first").into_bytes(),
    })
}

/// The outcome of a request whose first provider answered with the refusal of a case.
fn action_after(case: &Value) -> String {
    let (issuer, refusing) = (numbering_issuer(), refusing(answer_of(case)));
    let second = Peer::answering(|_| answer(200, "from the second"));
    let proxy = TestProxy::builder()
        .refreshed("P", &refusing.url(), &issuer.url(), "")
        .provider("Second", "anthropic", &second.url(), "auth_value: b")
        .start();
    eventually("the first token is there", || proxy.ask(get("/-/ready")).status == 200);
    let answered = proxy.ask(post("/v1/messages", "{}"));
    match answered.body.as_str() {
        "from the first" => {
            assert_eq!((refusing.seen().len(), issuer.seen().len()), (2, 2), "{case}");
            "refresh and replay once".to_owned()
        }
        "from the second" => "next provider".to_owned(),
        body => {
            assert_eq!(answered.status, u16::try_from(case["status"].as_u64().unwrap()).unwrap());
            assert_eq!(body, case["body"].as_str().unwrap());
            assert_eq!((refusing.seen().len(), issuer.seen().len()), (1, 1), "{case}");
            "pass on".to_owned()
        }
    }
}

#[test]
fn each_refusal_of_a_provider_is_passed_on_or_leads_to_one_refresh_and_replay() {
    let mut wrong = Vec::new();
    let of_the_token = |case: &Value| case["expect"]["action"] != "next provider";
    let cases: Vec<Value> = cases("api-refusals.jsonl").into_iter().filter(of_the_token).collect();
    assert!(cases.len() >= 8);
    for case in cases {
        let observed = action_after(&case);
        if observed != case["expect"]["action"] {
            wrong.push(format!("{}: {observed}", case["name"]));
        }
    }
    assert!(wrong.is_empty(), "{} cases are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn a_compressed_403_is_looked_into_and_its_client_gets_the_same_bytes() {
    let dead = gzip(br#"{"error":"invalid_token"}"#);
    let other = gzip(br#"{"error":{"type":"permission_error","message":"Request not allowed"}}"#);
    for headers in [vec![("Content-Encoding", "gzip")], vec![]] {
        let (issuer, provider) = (numbering_issuer(), refusing(raw(403, &headers, &dead)));
        let proxy = TestProxy::builder().refreshed("P", &provider.url(), &issuer.url(), "").start();
        assert_eq!(proxy.ask(post("/", "{}")).body, "from the first");
        assert_eq!(issuer.seen().len(), 2);

        let (issuer, provider) = (numbering_issuer(), refusing(raw(403, &headers, &other)));
        let proxy = TestProxy::builder().refreshed("P", &provider.url(), &issuer.url(), "").start();
        let mut client = Client::connect(proxy.address);
        client.send(post("/", "{}"));
        let head = client.head();
        assert_eq!(head.status, 403);
        assert_eq!(head.field("content-encoding"), headers.first().map(|(_, value)| *value));
        assert_eq!(head.field("content-length"), Some(other.len().to_string().as_str()));
        assert_eq!(client.bytes(other.len()), other);
        assert_eq!(issuer.seen().len(), 1);
    }
}

#[test]
fn a_403_that_is_a_stream_is_not_held_back() {
    let (go_on, gone_on) = crossbeam_channel::bounded::<()>(0);
    let provider = Peer::start(move |mut talk: Conversation| {
        talk.request();
        talk.send("HTTP/1.1 403 X\r\ncontent-type: text/event-stream\r\n\r\ndata: one\n\n");
        let _ = gone_on.recv();
        talk.send("data: two\n\n");
    });
    let issuer = numbering_issuer();
    let proxy = TestProxy::builder().refreshed("P", &provider.url(), &issuer.url(), "").start();
    let mut client = Client::connect(proxy.address);
    client.send(post("/", "{}"));
    assert_eq!(client.head().status, 403);
    assert_eq!(client.chunk().as_deref(), Some("data: one\n\n"));
    go_on.send(()).unwrap();
    assert_eq!(client.chunk().as_deref(), Some("data: two\n\n"));
}

/// A grant whose refresh token is called `refresh` and lives so many seconds.
fn with_refresh_end(refresh: &str, member: &str, lifetime: i64) -> Vec<u8> {
    let body = json!({
        "access_token": "at-1", "expires_in": 3600, "refresh_token": refresh, member: lifetime,
    });
    raw(200, &[], body.to_string().as_bytes())
}

#[test]
fn a_refresh_token_that_ends_soon_is_warned_about_in_status_page_metric_and_table() {
    let metric = "evertoken_refresh_token_expiry_timestamp_seconds{provider=\"P\"} ";
    // Under any name; the second of 7 days passes on the way.
    let cases = [
        ("refresh_token_expires_in", 7 * 86_400, Some("in 7 days")),
        ("refresh_expires_in", 86_400, Some("in 24 hours")),
        ("x_refresh_token_expires_in", 8 * 86_400, None),
    ];
    for (member, lifetime, warning) in cases {
        let refreshed = Refreshed::by(with_refresh_end("rt-1", member, lifetime), "");
        let status = refreshed.status();
        let end = status["refresh_token"]["expires_at"].as_str().unwrap();
        let end = Timestamp::parse_rfc3339(end).unwrap();
        let told = status["refresh_token"]["warning"].as_str();
        assert_eq!(told.is_some(), warning.is_some(), "{member}: {status}");
        let scraped = refreshed.proxy.ask(get("/-/metrics")).body;
        let line = scraped.lines().find_map(|line| line.strip_prefix(metric)).unwrap();
        let whole_seconds: i64 = line.split('.').next().unwrap().parse().unwrap();
        assert_eq!(whole_seconds, end.as_millis() / 1000, "{line}");
        let page = refreshed.proxy.ask(get("/-/")).body;
        assert!(page.contains("Refresh token: "), "{page}");
        if let (Some(told), Some(part)) = (told, warning) {
            assert!(told.contains(part) && told.contains("Log in again"), "{told}");
            assert!(page.contains(part), "{page}");
            assert!(page.contains("The provider needs attention"), "{page}");
        }
    }
    for senseless in [0, -5, 100 * 366 * 86_400] {
        let refreshed =
            Refreshed::by(with_refresh_end("rt-1", "refresh_expires_in", senseless), "");
        assert_eq!(refreshed.status()["refresh_token"], Value::Null, "{senseless}");
        assert!(!refreshed.proxy.ask(get("/-/metrics")).body.contains(metric));
    }
}

#[test]
fn the_end_of_a_refresh_token_is_stored_kept_and_forgotten_with_it() {
    let plain = |refresh: Value| {
        let body = json!({"access_token": "at-1", "expires_in": 9, "refresh_token": refresh});
        raw(200, &[], body.to_string().as_bytes())
    };
    let asked = AtomicUsize::new(0);
    let issuer = Peer::answering_bytes(move |_| match asked.fetch_add(1, Ordering::SeqCst) {
        0 => with_refresh_end("rt-1", "refresh_token_expires_in", 86_400),
        1 => plain(Value::Null),
        2 => plain(json!("rt-1")),
        _ => plain(json!("rt-2")),
    });
    let provider = Peer::telling_the_credential();
    let builder = || TestProxy::builder().refreshed("P", &provider.url(), &issuer.url(), "");
    let end = |proxy: &TestProxy| {
        proxy.ask(get("/-/status")).json()["providers"][0]["refresh_token"]["expires_at"].clone()
    };
    let proxy = builder().start();
    eventually("the first token is there", || proxy.ask(get("/-/ready")).status == 200);
    let first = end(&proxy);
    assert!(first.is_string());
    let proxy = builder().folder(proxy.into_folder()).start();
    assert_eq!(end(&proxy), first, "it is read again at a start");
    for (number, expected) in [(2, &first), (3, &first), (4, &Value::Null)] {
        // An order that comes while a refresh runs joins it.
        eventually("a refresh", || {
            proxy.ask("POST /-/refresh/p HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
            issuer.seen().len() >= number
        });
        eventually("its outcome", || end(&proxy) == *expected);
    }
}

/// An answer of 403 as a case describes it.
fn forbidden(case: &Value) -> Vec<u8> {
    let headers = case["headers"].as_object().unwrap();
    let headers: Vec<_> =
        headers.iter().map(|(name, value)| (name.as_str(), value.as_str().unwrap())).collect();
    raw(403, &headers, case["body"].as_str().unwrap().as_bytes())
}

#[test]
fn each_403_leads_to_a_refresh_where_it_names_a_dead_token_and_is_passed_on_else() {
    let mut wrong = Vec::new();
    // A path for each: the provider refuses the token `t0` there.
    for case in cases("forbidden-answers.jsonl") {
        let (issuer, provider) = (numbering_issuer(), refusing(forbidden(&case)));
        let proxy = TestProxy::builder().refreshed("P", &provider.url(), &issuer.url(), "").start();
        let answered = proxy.ask(post("/", "{}"));
        let rejects = case["rejects_token"] == true;
        let (status, asked) = if rejects { (200, 2) } else { (403, 1) };
        let observed = (answered.status, issuer.seen().len(), provider.seen().len());
        if observed != (status, asked, asked) {
            wrong.push(format!("{}: {observed:?}", case["name"]));
        }
    }
    assert!(wrong.is_empty(), "{} cases are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// A JSON Web Token with these claims, whose payload is in base64 of one kind or another.
fn jwt(claims: &Value, encode: impl Fn(&[u8]) -> String) -> String {
    format!("aa.{}.cc", encode(claims.to_string().as_bytes()))
}

#[test]
fn the_end_of_an_access_token_is_understood_in_each_form() {
    use base64::Engine as _;
    use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE};
    let end = Clock::system().wall().as_millis() / 1000 + 1200;
    let utc = Timestamp::from_secs(end).to_string();
    let (date, time) = (&utc[..10], &utc[11..19]);
    let http = httpdate::fmt_http_date(Timestamp::from_secs(end).to_system_time());
    let mut tokens: Vec<Value> = [
        json!(format!("{date}T{time}+0000")),
        json!(format!("{date} {time}")),
        json!(format!("{date} {time} +0000 UTC")),
        json!(http),
        json!(end * 1_000_000),
    ]
    .into_iter()
    .map(|end| json!({"access_token": "at-1", "expires_at": end}))
    .collect();
    // Claims whose base64 ends with padding, and holds both characters that the two alphabets write apart.
    let claims = json!({"exp": end, "n": "ÿþ?>?>~~"});
    let standard = jwt(&claims, |bytes| BASE64_STANDARD.encode(bytes));
    assert!(standard.contains(['+', '/']) && standard.contains("=."), "{standard}");
    tokens.extend([
        json!({ "access_token": standard }),
        json!({"access_token": jwt(&claims, |bytes| BASE64_URL_SAFE.encode(bytes))}),
        json!({"access_token": jwt(&json!({"exp": end.to_string()}), |bytes| BASE64_URL_SAFE.encode(bytes))}),
        json!({"access_token": jwt(&json!({"exp": end * 1000}), |bytes| BASE64_URL_SAFE.encode(bytes))}),
    ]);
    for body in tokens {
        let refreshed = Refreshed::by(raw(200, &[], body.to_string().as_bytes()), "");
        let left = refreshed.status()["token"]["expires_in_seconds"].as_i64().unwrap();
        assert!((1100..=1200).contains(&left), "{body}: {left}");
    }
}

#[test]
fn what_is_not_named_in_token_fields_is_looked_for_beside_the_access_token() {
    let fields = r#"token_fields: {access_token: "data.access_token"}"#;
    let with = |more: Value| {
        let mut data = json!({"access_token": "at-1", "refresh_token": "rt-1", "expires_in": 3600});
        data.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let body = json!({"code": 0, "data": data}).to_string();
        Refreshed::by(raw(200, &[], body.as_bytes()), fields)
    };
    let at = |value: &Value| Timestamp::parse_rfc3339(value.as_str().unwrap()).unwrap();
    let due = |refreshed: &Refreshed| {
        let token = refreshed.status()["token"].clone();
        at(&token["refresh_due_at"]).millis_since(at(&token["obtained_at"])) / 1000
    };
    assert!((1700..=1800).contains(&due(&with(json!({"refresh_in": 1800})))));
    let now = Clock::system().wall().as_millis() / 1000;
    let earliest = json!({"earliest_refresh_at": now + 3500});
    assert!((3400..=3600).contains(&due(&with(earliest))));
    let ended = with(json!({"refresh_token_expires_in": 86_400})).status();
    assert!(ended["refresh_token"]["expires_at"].is_string(), "{ended}");
}

#[test]
fn a_refused_form_of_the_request_sent_people_to_log_in_again() {
    let form =
        br#"{"error":"invalid_request","error_description":"client_id must be sent as JSON"}"#;
    let refreshed = Refreshed::by(raw(400, &[], form), "");
    assert_eq!(refreshed.outcome(), json!({"outcome": "permanent"}));
    let status = refreshed.status();
    let (error, advice) =
        (status["refresh"]["last_error"].to_string(), status["advice"].to_string());
    for told in [error, advice] {
        for key in ["request_format", "grant_type", "client_auth", "scope", "extra_params"] {
            assert!(told.contains(key), "{key}: {told}");
        }
        assert!(!told.contains("og in again"), "{told}");
    }
    let asked = refreshed.proxy.ask(get("/"));
    assert_eq!((asked.status, asked.code()), (403, "login_needed"), "{}", asked.body);
    assert!(asked.body.contains("request_format") && !asked.body.contains("evertoken login"));
}
