//! `GET /v1/models` of several providers: one list, whoever fails.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::support::client::{Answer, Client, get};
use crate::support::peer::{Peer, answer};
use crate::support::proxy::{Builder, TestProxy};
use crate::support::{PATIENCE, eventually};

/// A provider that lists these models in the shape of `OpenAI`'s API.
fn listing(ids: &'static [&'static str]) -> Peer {
    Peer::answering(move |_| answer(200, &list(ids)))
}

fn list(ids: &[&str]) -> String {
    let data: Vec<_> = ids.iter().map(|id| json!({"id": id, "object": "model"})).collect();
    json!({"object": "list", "data": data}).to_string()
}

fn proxy(kind: &str, peers: &[(&str, &Peer)]) -> Builder {
    peers.iter().fold(TestProxy::builder(), |builder, (name, peer)| {
        builder.provider(name, kind, &peer.url(), "auth_value: key")
    })
}

fn models(method: &str, target: &str, kind: &str) -> String {
    let version = if kind == "anthropic" { "anthropic-version: 2023-06-01\r\n" } else { "" };
    format!(
        "{method} {target} HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip, br\r\n{version}\r\n"
    )
}

fn ask(proxy: &TestProxy, kind: &str) -> Answer {
    proxy.ask(models("GET", "/v1/models", kind))
}

#[track_caller]
fn ids(answer: &Answer) -> Vec<String> {
    assert_eq!(answer.status, 200, "{}", answer.body);
    let body = answer.json();
    let data = body["data"].as_array().expect("a list");
    data.iter().map(|model| model["id"].as_str().expect("an id").to_owned()).collect()
}

#[test]
fn the_list_was_that_of_the_first_provider_alone() {
    let (one, two, other) = (listing(&["a", "b"]), listing(&["b", "c"]), listing(&["gpt"]));
    let routes = "model_routes:
  \"alias\": [{provider: Two, model: c}]
  \"b\": [{provider: Two}]
  \"wild*\": [{provider: Two}]
  \"wild-shadowed\": [{provider: Two}]
  \"of-another\": [{provider: O}]
";
    let proxy = proxy("anthropic", &[("One", &one), ("Two", &two)])
        .provider("O", "openai", &other.url(), "auth_type: none")
        .provider("G", "generic", &other.url(), "auth_type: none")
        .provider("Off", "anthropic", &other.url(), "auth_type: none\nenabled: false")
        .routes(routes)
        .start();
    let merged = ask(&proxy, "anthropic");
    assert_eq!(ids(&merged), ["a", "b", "c", "alias", "wild-shadowed"]);
    let body = merged.json();
    assert_eq!(body["has_more"], false);
    assert_eq!((&body["first_id"], &body["last_id"]), (&json!("a"), &json!("wild-shadowed")));
    assert_eq!(merged.field("content-type"), Some("application/json"));
    assert_eq!(merged.field("x-evertoken-left-out"), None);
    assert!(other.seen().is_empty(), "nobody of another type, and nobody who is disabled");
    let asked = &one.seen()[0];
    assert_eq!(asked.line, "GET /v1/models?limit=1000 HTTP/1.1");
    assert_eq!(asked.field("accept-encoding"), Some("identity"));
    assert_eq!(asked.field("authorization"), Some("Bearer key"));
    // The other API's list is that of its one provider, and of the route's name.
    let other = ask(&proxy, "openai");
    assert_eq!(ids(&other), ["gpt", "of-another"]);
    assert_eq!(other.json()["object"], "list");
    let named = proxy.ask(models("GET", "/to/two/v1/models", "anthropic"));
    assert_eq!(ids(&named), ["b", "c"], "by its name a provider answers for itself");
}

#[test]
fn one_provider_without_names_of_routes_answers_for_itself() {
    let body = "{ \"data\" : [ {\"id\":\"a\"} ] , \"own\" : 1 }";
    let peer = Peer::answering(move |_| answer(200, body));
    let other = listing(&["gpt"]);
    let proxy = proxy("anthropic", &[("One", &peer)])
        .provider("O", "openai", &other.url(), "auth_type: none")
        .routes("model_routes: {\"gpt*\": [{provider: O}], \"x\": [{provider: O}]}\n")
        .start();
    assert_eq!(ask(&proxy, "anthropic").body, body);
    assert_eq!(peer.seen()[0].field("accept-encoding"), Some("gzip, br"));
}

#[test]
fn pages_are_followed_and_the_clients_own_are_cut_from_the_merged_list() {
    let paged = Peer::answering(|seen| {
        let is_second = seen.line.contains("after_id=a2");
        let data = if is_second { ["a3"].as_slice() } else { &["a1", "a2"] };
        let data: Vec<_> = data.iter().map(|id| json!({"type": "model", "id": id})).collect();
        let page =
            json!({"data": data, "has_more": !is_second, "last_id": data.last().unwrap()["id"]});
        answer(200, &page.to_string())
    });
    let second = listing(&["b1"]);
    let proxy = proxy("anthropic", &[("One", &paged), ("Two", &second)]).start();
    let page = |query: &str| proxy.ask(models("GET", &format!("/v1/models{query}"), "anthropic"));
    assert_eq!(ids(&page("")), ["a1", "a2", "a3", "b1"]);
    let mut walked = Vec::new();
    let mut query = "?limit=3&beta=true".to_owned();
    loop {
        let came = page(&query);
        walked.push(ids(&came));
        if came.json()["has_more"] == false {
            break;
        }
        query = format!("?limit=3&after_id={}", came.json()["last_id"].as_str().unwrap());
    }
    assert_eq!(walked, [vec!["a1", "a2", "a3"], vec!["b1"]]);
    assert_eq!(second.seen()[1].line, "GET /v1/models?beta=true&limit=1000 HTTP/1.1");
    let lost = page("?after_id=gone");
    assert_eq!((lost.status, lost.code()), (400, "bad_request"));
    assert_eq!(lost.json()["type"], "error");
}

#[test]
fn pages_without_end_come_to_one() {
    let count = AtomicUsize::new(0);
    let endless = Peer::answering(move |_| {
        let id = format!("m{}", count.fetch_add(1, Ordering::SeqCst));
        answer(200, &json!({"data": [{"id": id}], "has_more": true, "last_id": id}).to_string())
    });
    let second = listing(&["b"]);
    let proxy = proxy("anthropic", &[("One", &endless), ("Two", &second)]).start();
    assert_eq!(ids(&ask(&proxy, "anthropic")).len(), 50 + 1);
}

/// The same page was asked for fifty times.
#[test]
fn an_openai_list_that_says_it_has_more_is_asked_for_once() {
    let first = Peer::answering(|_| {
        answer(200, r#"{"object":"list","data":[{"id":"a"}],"has_more":true,"last_id":"a"}"#)
    });
    let second = listing(&["b"]);
    let proxy = proxy("openai", &[("One", &first), ("Two", &second)]).start();
    assert_eq!(ids(&ask(&proxy, "openai")), ["a", "b"]);
    assert_eq!(first.seen().len(), 1);
}

#[test]
fn a_list_spread_over_many_pages_may_be_no_longer_than_one() {
    let count = AtomicUsize::new(0);
    // Each page is well below the limit of 4 MiB.
    let endless = Peer::answering(move |_| {
        let id = format!("m{}", count.fetch_add(1, Ordering::SeqCst));
        let model = json!({"id": id, "description": "x".repeat(1_500_000)});
        answer(200, &json!({"data": [model], "has_more": true, "last_id": id}).to_string())
    });
    let second = listing(&["b"]);
    let proxy = proxy("anthropic", &[("One", &endless), ("Two", &second)]).start();
    let merged = ask(&proxy, "anthropic");
    assert_eq!(ids(&merged), ["b"]);
    assert_eq!(merged.field("x-evertoken-left-out"), Some("one"));
    assert_eq!(endless.seen().len(), 3, "and no more of it is asked for");
}

#[test]
fn that_one_of_them_needs_a_login_is_not_said_where_another_may_serve_soon() {
    let issuer = Peer::answering(|_| answer(400, r#"{"error":"invalid_grant"}"#));
    let proxy = TestProxy::builder()
        .provider("Q", "anthropic", "http://127.0.0.1:1", "auth_type: none")
        .refreshed("P", "http://127.0.0.1:1", &issuer.url(), "")
        .start();
    let refused = ask(&proxy, "anthropic");
    assert_eq!((refused.status, refused.code()), (502, "upstream_unreachable"), "{}", refused.body);
}

#[test]
fn whoever_fails_is_left_out_and_named() {
    let bad = [
        Peer::answering(|_| answer(500, "{}")),
        Peer::answering(|_| answer(200, "<html>")),
        Peer::answering(|_| answer(200, &format!("[{}]", " ".repeat(4 * 1024 * 1024)))),
        Peer::answering(|_| {
            answer(200, &format!("{}{}", "[".repeat(100_000), "]".repeat(100_000)))
        }),
        Peer::start(|mut talk| {
            let _ = talk.request();
            talk.send("HTTP/1.1 200 X\r\ncontent-length: 99\r\n\r\n{\"data\":[");
        }),
        Peer::start(|mut talk| {
            let _ = talk.request();
            talk.wait_for_close();
        }),
    ];
    let good = listing(&["a"]);
    // As deep as JSON is read: it took more of the stack than a worker has.
    let deep = Peer::answering(|_| {
        let (begin, end) = ("[".repeat(120), "]".repeat(120));
        answer(200, &format!(r#"{{"data":[{{"id":"deep","x":{begin}{end}}}]}}"#))
    });
    let mut builder = TestProxy::builder().settings("timeouts: {response: 1}");
    for (index, peer) in bad.iter().enumerate() {
        builder =
            builder.provider(&format!("Bad {index}"), "openai", &peer.url(), "auth_type: none");
    }
    let proxy = builder
        .provider("官方", "openai", "http://127.0.0.1:1", "auth_type: none")
        .provider("Good", "openai", &good.url(), "auth_type: none")
        .provider("Deep", "openai", &deep.url(), "auth_type: none")
        .start();
    let merged = ask(&proxy, "openai");
    assert_eq!(ids(&merged), ["a", "deep"]);
    assert_eq!(
        merged.field("x-evertoken-left-out"),
        Some("bad-0, bad-1, bad-2, bad-3, bad-4, bad-5, %E5%AE%98%E6%96%B9")
    );
    let status = proxy.ask(get("/-/status")).json();
    for provider in status["providers"].as_array().unwrap() {
        assert_eq!(provider["state"], "ready", "nobody cools down for it: {provider}");
        assert_eq!(provider["requests"]["in_flight"], 0);
    }
}

#[test]
fn where_all_fail_the_last_answer_is_passed_on() {
    let first = Peer::answering(|_| answer(500, "first"));
    let second = Peer::answering(|_| {
        "HTTP/1.1 403 X\r\nx-own: yes\r\ncontent-length: 6\r\n\r\nsecond".to_owned()
    });
    let proxy = proxy("openai", &[("One", &first), ("Two", &second)])
        .provider("Gone", "openai", "http://127.0.0.1:1", "auth_type: none")
        .routes("model_routes: {\"alias\": [{provider: One}]}\n")
        .start();
    let came = ask(&proxy, "openai");
    assert_eq!(
        (came.status, came.body.as_str(), came.field("x-own")),
        (403, "second", Some("yes"))
    );
    let nobody = TestProxy::builder()
        .provider("Gone", "anthropic", "http://127.0.0.1:1", "auth_type: none")
        .provider("Too", "anthropic", "http://127.0.0.1:1", "auth_type: none")
        .start();
    let refused = ask(&nobody, "anthropic");
    assert_eq!((refused.status, refused.code()), (502, "upstream_unreachable"));
    assert_eq!(refused.json()["type"], "error");
}

/// It was looked at and lost: the client got its head with an empty body.
#[test]
fn an_error_in_the_shape_of_an_event_is_passed_on_with_its_words() {
    const ERROR: &str = "data: {\"error\":{\"message\":\"slow down\"}}\n\n";
    let refusing = Peer::answering(|_| {
        format!(
            "HTTP/1.1 429 X\r\ncontent-type: text/event-stream\r\ncontent-length: {}\r\n\r\n{ERROR}",
            ERROR.len()
        )
    });
    let proxy = proxy("openai", &[("One", &refusing), ("Two", &refusing)]).start();
    let came = ask(&proxy, "openai");
    assert_eq!((came.status, came.body.as_str()), (429, ERROR));
}

#[test]
fn a_refused_token_is_refreshed_once() {
    let grants = AtomicUsize::new(0);
    let issuer = Peer::answering(move |_| {
        let number = grants.fetch_add(1, Ordering::SeqCst);
        answer(200, &format!(r#"{{"access_token":"t{number}","expires_in":9}}"#))
    });
    let provider = Peer::answering(|seen| match seen.field("authorization") {
        Some("Bearer t0") => answer(401, "stale"),
        _ => answer(200, &list(&["mine"])),
    });
    let other = listing(&["b"]);
    let proxy = TestProxy::builder()
        .refreshed("P", &provider.url(), &issuer.url(), "")
        .provider("Q", "anthropic", &other.url(), "auth_type: none")
        .start();
    assert_eq!(ids(&ask(&proxy, "anthropic")), ["mine", "b"]);
    assert_eq!(issuer.seen().len(), 2);
}

#[test]
fn compressed_lists_and_a_head_alone() {
    let packed = |body: &str| {
        let data = miniz_oxide::deflate::compress_to_vec(body.as_bytes(), 6);
        [b"\x1f\x8b\x08\0\0\0\0\0\0\x03".as_slice(), &data, &[0; 8]].concat()
    };
    // A provider that compresses whatever it is asked for.
    let stubborn = Peer::answering_bytes(move |_| {
        let body = packed(&list(&["a"]));
        let head = format!(
            "HTTP/1.1 200 X\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        [head.as_bytes(), &body].concat()
    });
    let plain = listing(&["b"]);
    let proxy = proxy("openai", &[("One", &stubborn), ("Two", &plain)]).start();
    let merged = ask(&proxy, "openai");
    assert_eq!(ids(&merged), ["a", "b"]);
    assert_eq!(merged.field("content-encoding"), None);
    let mut client = Client::connect(proxy.address);
    client.send(models("HEAD", "/v1/models/", "openai"));
    let head = client.head();
    assert_eq!(
        (head.status, head.field("content-length").map(str::to_owned)),
        (200, Some(merged.body.len().to_string()))
    );
    client.send(models("GET", "/v1/models", "openai"));
    assert_eq!(ids(&client.answer()), ["a", "b"], "the connection goes on");
    assert!(plain.seen().iter().all(|seen| seen.line.starts_with("GET /v1/models ")));
}

#[test]
fn a_client_that_leaves_ends_it() {
    let (told, ended) = crossbeam_channel::bounded(1);
    let silent = Peer::start(move |mut talk| {
        let _ = talk.request();
        talk.wait_for_close();
        let _ = told.try_send(());
    });
    let second = listing(&["b"]);
    let proxy = proxy("openai", &[("One", &silent), ("Two", &second)]).start();
    let mut client = Client::connect(proxy.address);
    client.send(models("GET", "/v1/models", "openai"));
    eventually("both are asked", || silent.seen().len() == 1 && second.seen().len() == 1);
    drop(client);
    ended.recv_timeout(PATIENCE).expect("its request ends");
    eventually("nothing is under way", || proxy.ask(get("/-/status")).json()["in_flight"] == 0);
}

#[test]
fn a_provider_that_hangs_does_not_keep_the_others_from_being_asked() {
    const MOST: usize = 4; // providers that are asked at once
    let (asked, all) = crossbeam_channel::bounded(MOST + 1);
    let (release, released) = crossbeam_channel::bounded::<()>(MOST + 1);
    let peers: Vec<_> = (0..=MOST)
        .map(|index| {
            let (asked, released) = (asked.clone(), released.clone());
            Peer::answering(move |_| {
                asked.send(index).unwrap();
                released.recv_timeout(PATIENCE).unwrap();
                answer(200, &list(&[&format!("m{index}")]))
            })
        })
        .collect();
    let names: Vec<_> = (0..=MOST).map(|index| format!("P{index}")).collect();
    let all_peers: Vec<_> = names.iter().map(String::as_str).zip(&peers).collect();
    let proxy = proxy("openai", &all_peers).start();
    let mut client = Client::connect(proxy.address);
    client.send(models("GET", "/v1/models", "openai"));
    let mut first: Vec<usize> = (0..MOST).map(|_| all.recv_timeout(PATIENCE).unwrap()).collect();
    first.sort_unstable();
    assert_eq!(first, [0, 1, 2, 3], "all of them, before one answers");
    assert!(peers[MOST].seen().is_empty(), "one more than are asked at once");
    for _ in 0..=MOST {
        release.send(()).unwrap();
    }
    assert_eq!(ids(&client.answer()), ["m0", "m1", "m2", "m3", "m4"]);
    assert_eq!(all.recv_timeout(PATIENCE), Ok(MOST));
}

#[test]
fn one_model_is_asked_of_the_first_provider_of_its_api() {
    let (one, two) = (listing(&["a"]), listing(&["b"]));
    let proxy = proxy("openai", &[("One", &one), ("Two", &two)]).start();
    proxy.ask(get("/v1/models/b"));
    proxy.ask("DELETE /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let lines: Vec<_> = one.seen().iter().map(|seen| seen.line.clone()).collect();
    assert_eq!(lines, ["GET /v1/models/b HTTP/1.1", "DELETE /v1/models HTTP/1.1"]);
    assert!(two.seen().is_empty());
    let empty = Value::Null;
    assert_eq!(proxy.ask(get("/v1/models")).json()["has_more"], empty, "that is the other API's");
}
