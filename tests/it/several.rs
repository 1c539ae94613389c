//! Several providers: failover, cooldown, routes, shares, and credentials that others keep.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::support::client::{Client, get, post};
use crate::support::eventually;
use crate::support::peer::{Peer, answer};
use crate::support::proxy::{Builder, TestProxy};

const MESSAGE: &str = r#"{ "model" : "m" , "messages" : [] }"#;

fn fine() -> Peer {
    Peer::answering(|_| answer(200, "fine"))
}

/// A peer that always gives this answer.
fn saying(head: &'static str, body: &'static str) -> Peer {
    Peer::answering(move |_| {
        format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    })
}

fn closed() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

fn two(first: &str, second: &str) -> Builder {
    TestProxy::builder()
        .provider("A", "anthropic", first, "auth_value: key-a")
        .provider("B", "anthropic", second, "auth_value: key-b")
}

fn ask(proxy: &TestProxy) -> crate::support::client::Answer {
    proxy.ask(post("/v1/messages", MESSAGE))
}

fn status(proxy: &TestProxy, index: usize) -> serde_json::Value {
    proxy.ask(get("/-/status")).json()["providers"][index].clone()
}

#[test]
fn every_failing_status_moves_on_and_cools_down() {
    for head in ["402 X", "429 X", "500 X", "502 X", "503 X", "504 X", "529 X"] {
        let (bad, good) = (saying(head, "{}"), fine());
        let proxy = two(&bad.url(), &good.url()).start();
        for _ in 0..3 {
            let came = ask(&proxy);
            assert_eq!((came.status, came.body.as_str()), (200, "fine"), "{head}");
        }
        assert_eq!(
            (bad.seen().len(), good.seen().len()),
            (1, 3),
            "{head}: passed over from then on"
        );
        assert_eq!(bad.seen()[0].body, MESSAGE.as_bytes());
        assert_eq!(good.seen()[0].body, MESSAGE.as_bytes());
        assert_eq!(good.seen()[0].field("authorization"), Some("Bearer key-b"));
        let shown = status(&proxy, 0);
        assert_eq!(shown["state"], "cooling_down");
        assert!(shown["cooldown_until"].is_string());
        // By its own name it is asked all the same.
        assert_eq!(proxy.ask(get("/to/a/x")).status.to_string(), head[..3]);
    }
}

#[test]
fn other_statuses_are_passed_on() {
    for head in ["200 X", "301 X", "400 X", "401 X", "403 X", "404 X", "413 X", "422 X", "501 X"] {
        let (first, second) = (saying(head, "body"), fine());
        let proxy = two(&first.url(), &second.url()).start();
        let came = ask(&proxy);
        assert_eq!((came.status.to_string().as_str(), came.body.as_str()), (&head[..3], "body"));
        assert!(second.seen().is_empty(), "{head}");
        assert_eq!(status(&proxy, 0)["state"], "ready", "{head}");
    }
}

#[test]
fn a_provider_without_an_answer_is_passed_over() {
    let resetting = Peer::start(|mut talk| {
        let _ = talk.request();
        talk.reset();
    });
    let silent = Peer::start(|mut talk| {
        let _ = talk.request();
        talk.wait_for_close();
    });
    for bad in [closed(), "http://nowhere.invalid".to_owned(), resetting.url(), silent.url()] {
        let good = fine();
        let proxy = two(&bad, &good.url()).settings("timeouts: {response: 1}").start();
        assert_eq!(ask(&proxy).body, "fine", "{bad}");
        assert_eq!(status(&proxy, 0)["state"], "cooling_down", "{bad}");
        assert_eq!(status(&proxy, 0)["requests"]["errors"], 1, "{bad}");
    }
}

#[test]
fn the_last_upstream_answer_is_passed_on_as_it_was() {
    let busy = saying("529 X\r\nx-own: yes\r\nretry-after: 7", r#"{"type":"overloaded_error"}"#);
    let broken = saying("500 X", "second");
    let proxy = two(&busy.url(), &broken.url()).start();
    let came = ask(&proxy);
    assert_eq!((came.status, came.body.as_str()), (500, "second"));
    let proxy = two(&busy.url(), &closed()).start();
    let came = ask(&proxy);
    assert_eq!((came.status, came.body.as_str()), (529, r#"{"type":"overloaded_error"}"#));
    assert_eq!((came.field("x-own"), came.field("retry-after")), (Some("yes"), Some("7")));
    let proxy = two(&closed(), &closed()).start();
    assert_eq!(ask(&proxy).code(), "upstream_unreachable");
}

#[test]
fn nothing_moves_once_a_byte_has_gone_to_the_client() {
    let cutting = Peer::start(|mut talk| {
        if talk.request().is_some() {
            talk.send("HTTP/1.1 200 X\r\ncontent-length: 9\r\n\r\nhal");
        }
    });
    let good = fine();
    let proxy = two(&cutting.url(), &good.url()).start();
    let came = ask(&proxy);
    assert_eq!((came.status, came.body.as_str(), came.whole), (200, "hal", false));
    assert!(good.seen().is_empty());
}

#[test]
fn a_body_that_is_not_held_moves_on_only_where_nothing_was_sent() {
    let large = format!(r#"{{"model":"m","x":"{}"}}"#, "x".repeat(5000));
    let (bad, good) = (saying("500 X", "bad"), fine());
    let proxy = two(&bad.url(), &good.url()).settings("replay_body_bytes: 1000").start();
    assert_eq!(proxy.ask(post("/v1/messages", &large)).body, "bad");
    assert!(good.seen().is_empty());
    let proxy = two(&closed(), &good.url()).settings("replay_body_bytes: 1000").start();
    assert_eq!(proxy.ask(post("/v1/messages", &large)).body, "fine");
    assert_eq!(good.seen()[0].body, large.as_bytes());
}

#[test]
fn with_every_candidate_cooling_the_one_that_ends_soonest_is_tried_and_a_success_ends_it() {
    let mended = std::sync::Arc::new(AtomicBool::new(false));
    let flag = mended.clone();
    let long = saying("429 X\r\nretry-after: 900", "long");
    let short = Peer::answering(move |_| {
        if flag.load(Ordering::SeqCst) {
            answer(200, "mended")
        } else {
            "HTTP/1.1 429 X\r\nretry-after: 60\r\ncontent-length: 5\r\n\r\nshort".to_owned()
        }
    });
    let proxy = two(&long.url(), &short.url()).start();
    assert_eq!(ask(&proxy).body, "short");
    // Now B, whose cooldown is shorter, is tried first; A only because B fails again.
    assert_eq!(ask(&proxy).body, "long");
    mended.store(true, Ordering::SeqCst);
    assert_eq!(ask(&proxy).body, "mended");
    assert_eq!(status(&proxy, 1)["state"], "ready");
    assert_eq!((long.seen().len(), short.seen().len()), (2, 3));
}

#[test]
fn a_cooldown_of_zero_passes_nobody_over() {
    let (bad, good) = (saying("500 X", "bad"), fine());
    let proxy = two(&bad.url(), &good.url()).settings("failure_cooldown: 0").start();
    for _ in 0..3 {
        assert_eq!(ask(&proxy).body, "fine");
    }
    assert_eq!(bad.seen().len(), 3);
}

#[test]
fn a_route_chooses_by_model_and_renames_it_and_nothing_else() {
    let (a, b) = (saying("503 X", "bad"), fine());
    let routes = "model_routes:\n  \"*haiku*\":\n    - { provider: B, model: \"other \\\"name\\\"\" }\n  \"m*\":\n    \
                  - { provider: A, priority: 1, model: passthrough }\n    - { provider: B, priority: 2, model: renamed }\n";
    let proxy = two(&a.url(), &b.url()).routes(routes).settings("replay_body_bytes: 2000").start();
    assert_eq!(ask(&proxy).body, "fine");
    assert_eq!(a.seen()[0].body, MESSAGE.as_bytes(), "passthrough");
    assert_eq!(b.seen()[0].body, MESSAGE.replace("\"m\"", "\"renamed\"").as_bytes());
    let odd = "{\"x\":[1,{\"model\":\"no\"}],\r\n\t\"model\" :\"a-haiku-1\",\"y\":\"\\u00e4\"}";
    let chunked = format!(
        "POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{odd}\r\n0\r\n\r\n",
        odd.len()
    );
    assert_eq!(proxy.ask(chunked).body, "fine");
    let expected = odd.replace("\"a-haiku-1\"", r#""other \"name\"""#);
    assert_eq!(b.seen()[1].body, expected.as_bytes());
    // A body too large to be held: the model stands within the first bytes.
    let large = format!(r#"{{"model":"haiku","x":"{}"}}"#, "x".repeat(9000));
    assert_eq!(proxy.ask(post("/v1/messages", &large)).body, "fine");
    assert_eq!(b.seen()[2].body, large.replace("\"haiku\"", r#""other \"name\"""#).as_bytes());
    assert_eq!(
        b.seen()[2].field("content-length"),
        Some(b.seen()[2].body.len().to_string().as_str())
    );
    // By its name a provider gets the body as it is.
    proxy.ask(post("/to/b/v1/messages", odd));
    assert_eq!(b.seen()[3].body, odd.as_bytes());
}

#[test]
fn strategies_share_the_requests() {
    let peers = [fine(), fine(), fine()];
    let builder = |strategy: &str| {
        let mut builder = TestProxy::builder().settings(&format!("selection_strategy: {strategy}"));
        for (name, peer) in ["A", "B", "C"].into_iter().zip(&peers) {
            builder = builder.provider(name, "anthropic", &peer.url(), "auth_type: none");
        }
        builder.start()
    };
    let counts = || peers.each_ref().map(|peer| peer.seen().len());
    let proxy = builder("round_robin");
    (0..9).for_each(|_| drop(ask(&proxy)));
    assert_eq!(counts(), [3, 3, 3]);
    let proxy = builder("priority");
    (0..9).for_each(|_| drop(ask(&proxy)));
    assert_eq!(counts(), [12, 3, 3]);
    let proxy = builder("random");
    eventually("each has its share", || {
        ask(&proxy);
        counts().iter().zip([12, 3, 3]).all(|(count, before)| *count > before)
    });
}

#[test]
fn a_provider_at_its_max_in_flight_leaves_workers_to_the_others() {
    let (release, released) = crossbeam_channel::bounded::<()>(0);
    let slow = Peer::start(move |mut talk| {
        while talk.request().is_some() {
            let _ = released.recv();
            talk.answer(200, "slow");
        }
    });
    let good = fine();
    let proxy = TestProxy::builder()
        .provider("A", "anthropic", &slow.url(), "auth_type: none\nmax_in_flight: 2")
        .provider("B", "anthropic", &good.url(), "auth_type: none")
        .start();
    let held: Vec<_> = (0..2)
        .map(|_| {
            let mut client = Client::connect(proxy.address);
            client.send(get("/v1/messages"));
            client
        })
        .collect();
    eventually("both are upstream", || slow.seen().len() == 2);
    assert_eq!(ask(&proxy).body, "fine", "another provider serves");
    let refused = proxy.ask(get("/to/a/x"));
    assert_eq!((refused.status, refused.code()), (503, "overloaded"));
    assert_eq!(status(&proxy, 0)["state"], "ready", "busy is not failing");
    for _ in &held {
        release.send(()).unwrap();
    }
    for mut client in held {
        assert_eq!(client.answer().body, "slow");
    }
}

#[test]
fn a_provider_whose_token_is_not_there_is_passed_over() {
    let (issuer, good) = (saying("400 X", r#"{"error":"invalid_grant"}"#), fine());
    let proxy = TestProxy::builder()
        .refreshed("A", &good.url(), &issuer.url(), "")
        .provider("B", "anthropic", &good.url(), "auth_value: key-b")
        .start();
    assert_eq!(ask(&proxy).body, "fine");
    assert_eq!(good.seen()[0].field("authorization"), Some("Bearer key-b"));
}

/// An issuer that counts its grants, and a provider that refuses the first token with `head` and `body`.
fn refusing(head: &'static str, body: &'static str) -> (Peer, Peer) {
    let grants = AtomicUsize::new(0);
    let issuer = Peer::answering(move |_| {
        let number = grants.fetch_add(1, Ordering::SeqCst);
        answer(200, &format!(r#"{{"access_token":"t{number}","expires_in":9}}"#))
    });
    let provider = Peer::answering(move |seen| {
        if seen.field("authorization") == Some("Bearer t0") {
            format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
        } else {
            answer(200, "fine")
        }
    });
    (issuer, provider)
}

#[test]
fn a_403_about_the_token_is_replayed_and_another_is_passed_on_whole() {
    let revoked = r#"{"error":{"message":"OAuth token has been revoked"}}"#;
    let (issuer, provider) = refusing("403 X", revoked);
    let proxy = TestProxy::builder().refreshed("P", &provider.url(), &issuer.url(), "").start();
    assert_eq!(ask(&proxy).body, "fine");
    assert_eq!(issuer.seen().len(), 2);
    let (issuer, provider) = refusing("403 X", "not your model");
    let proxy = TestProxy::builder().refreshed("P", &provider.url(), &issuer.url(), "").start();
    let came = ask(&proxy);
    assert_eq!((came.status, came.body.as_str()), (403, "not your model"));
    assert_eq!(issuer.seen().len(), 1);
}

#[test]
fn an_upstream_that_always_says_401_causes_no_storm() {
    let issuer = Peer::answering(|_| answer(200, r#"{"access_token":"t","expires_in":9}"#));
    let provider = saying("401 X", "no");
    let proxy = TestProxy::builder().refreshed("P", &provider.url(), &issuer.url(), "").start();
    for _ in 0..50 {
        assert_eq!(ask(&proxy).status, 401);
    }
    assert_eq!(issuer.seen().len(), 2, "the first token, and one forced refresh in 30 s");
}

#[test]
fn a_key_in_a_file_is_read_again_when_it_changes() {
    let provider = fine();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    std::fs::write(&path, "first\n").unwrap();
    let line = format!("auth_type: api_key\nauth_value_file: \"{}\"", path.display());
    let proxy = TestProxy::builder().provider("P", "anthropic", &provider.url(), &line).start();
    ask(&proxy);
    std::fs::write(&path, "second one is longer".replace(' ', "-")).unwrap();
    ask(&proxy);
    let keys: Vec<_> =
        provider.seen().iter().map(|seen| seen.field("x-api-key").unwrap().to_owned()).collect();
    assert_eq!(keys, ["first", "second-one-is-longer"]);
}

#[test]
fn a_file_that_another_program_keeps_is_never_refreshed_here() {
    let refused = std::sync::Arc::new(Mutex::new(String::new()));
    let (file, told) = (refused.clone(), refused.clone());
    // The provider has a token refused just as its owner writes the next one.
    let provider = Peer::answering(move |seen| {
        if seen.field("authorization") == Some("Bearer stale") {
            std::fs::write(
                file.lock().unwrap().as_str(),
                credentials("fresher", 4_000_000_000_000),
            )
            .unwrap();
            return answer(401, "stale");
        }
        answer(200, seen.field("authorization").unwrap())
    });
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(".credentials.json");
    told.lock().unwrap().push_str(path.to_str().unwrap());
    std::fs::write(&path, credentials("one", 4_000_000_000_000)).unwrap();
    let line = format!("auto_refresh_config: {{credentials_file: \"{}\"}}", path.display());
    let proxy = TestProxy::builder().provider("P", "anthropic", &provider.url(), &line).start();
    assert_eq!(ask(&proxy).body, "Bearer one");
    assert_eq!(status(&proxy, 0)["token"]["source"], "file");
    // Expired: not sent, and said.
    std::fs::write(&path, credentials("expired", 1_000_000_000_000)).unwrap();
    let refused = ask(&proxy);
    assert_eq!((refused.status, refused.code()), (503, "token_unavailable"));
    assert!(refused.body.contains("the program that keeps this file has to refresh it"));
    assert_eq!(proxy.ask(get("/-/ready")).status, 503);
    std::fs::write(&path, credentials("stale", 4_000_000_000_000)).unwrap();
    assert_eq!(ask(&proxy).body, "Bearer fresher", "sent once more with the newer one");
    assert!(
        std::fs::read_dir(proxy.folder()).unwrap().next().is_none(),
        "nothing is stored for it"
    );
}

fn credentials(token: &str, expires_at_ms: u64) -> String {
    format!(
        r#"{{"claudeAiOauth":{{"accessToken":"{token}","refreshToken":"r","expiresAt":{expires_at_ms}}}}}"#
    )
}

#[test]
fn a_new_refresh_token_in_its_file_ends_a_permanent_failure() {
    let issuer = Peer::answering(|seen| {
        if String::from_utf8_lossy(&seen.body).contains("refresh_token=good") {
            answer(200, r#"{"access_token":"t","expires_in":3600}"#)
        } else {
            answer(400, r#"{"error":"invalid_grant"}"#)
        }
    });
    let provider = fine();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    std::fs::write(&path, "bad\n").unwrap();
    let lines = format!(
        "auto_refresh_config:\n  token_url: \"{}\"\n  client_id_env: CLIENT_ID\n  refresh_token_file: \"{}\"",
        issuer.url(),
        path.display()
    );
    let proxy = TestProxy::builder().provider("P", "anthropic", &provider.url(), &lines).start();
    eventually("it is refused", || status(&proxy, 0)["refresh"]["failures"] == 1);
    std::fs::write(&path, "good\n").unwrap();
    assert_eq!(proxy.ask(post("/-/refresh/p", "")).status, 200);
    assert_eq!(ask(&proxy).body, "fine");
}

/// The present behaviour of a peer in the simulation.
const MODES: [&str; 7] = ["fine", "429", "500", "529", "reset", "close", "cut"];

#[test]
fn no_request_is_lost_that_a_candidate_could_have_served_and_none_is_sent_twice_after_a_byte() {
    for seed in 0..24 {
        simulate(seed);
    }
}

fn simulate(seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let modes: [std::sync::Arc<AtomicUsize>; 3] =
        std::array::from_fn(|_| std::sync::Arc::default());
    let peers = modes.clone().map(|mode| {
        Peer::start(move |mut talk| {
            while let Some(_seen) = talk.request() {
                let taken = match MODES[mode.load(Ordering::SeqCst)] {
                    "fine" => talk.answer(200, "whole"),
                    "reset" => return talk.reset(),
                    "close" => return,
                    "cut" => {
                        talk.send("HTTP/1.1 200 X\r\ncontent-length: 5\r\n\r\nwh");
                        return;
                    }
                    status => {
                        talk.send(format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n"))
                    }
                };
                if !taken {
                    return;
                }
            }
        })
    });
    let strategy = ["priority", "round_robin", "random"][rng.usize(..3)];
    let mut builder = TestProxy::builder().settings(&format!("selection_strategy: {strategy}"));
    for (name, peer) in ["A", "B", "C"].into_iter().zip(&peers) {
        builder = builder.provider(name, "anthropic", &peer.url(), "auth_type: none");
    }
    let proxy = builder.start();
    for number in 0..30 {
        for mode in &modes {
            if rng.f64() < 0.4 {
                mode.store(rng.usize(..MODES.len()), Ordering::SeqCst);
            }
        }
        let now = modes.each_ref().map(|mode| MODES[mode.load(Ordering::SeqCst)]);
        let body = format!("{{\"number\":{number}}}");
        let came = proxy.ask(post("/v1/messages", &body));
        let asked: Vec<usize> = (0..3)
            .filter(|index| peers[*index].seen().iter().any(|seen| seen.body == body.as_bytes()))
            .collect();
        let what = format!(
            "seed {seed}, {strategy}, request {number}: {now:?}, asked {asked:?}, {came:?}"
        );
        let first_byte = asked.iter().any(|index| now[*index] == "cut");
        if came.status == 200 && came.whole {
            assert!(asked.iter().any(|index| now[*index] == "fine"), "{what}");
        } else if first_byte {
            assert!(came.status == 200 && !came.whole, "a cut is seen: {what}");
        } else {
            assert!(
                !now.contains(&"fine") && !now.contains(&"cut"),
                "it could have been served: {what}"
            );
            assert_eq!(asked.len(), 3, "{what}");
        }
        // The provider that sent a byte of a response is the last one that was asked.
        let sent_bytes =
            asked.iter().filter(|index| matches!(now[**index], "fine" | "cut")).count();
        assert!(sent_bytes <= 1, "{what}");
        for index in asked {
            let times =
                peers[index].seen().iter().filter(|seen| seen.body == body.as_bytes()).count();
            // A kept connection that was just closed is tried once more on a new one.
            let most = if matches!(now[index], "reset" | "close") { 2 } else { 1 };
            assert!(times <= most, "{times} times: {what}");
        }
    }
}
