//! What is left of quotas: read from answers, used before a provider refuses, kept over restarts and reloads, and shown.

use std::fmt::Write;
use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use evertoken::testing::{Clock, Moment, RELEASED_AT};

use crate::support::client::{Client, get, post};
use crate::support::eventually;
use crate::support::peer::{Peer, answer};
use crate::support::proxy::{Builder, TestProxy};

const MESSAGE: &str = r#"{ "model" : "claude-opus-4-5" , "messages" : [] }"#;
const HOUR_MS: u64 = 3_600_000;

/// A clock that stands still unless it is moved.
#[derive(Clone, Default)]
struct Hand(Arc<AtomicU64>);

impl Hand {
    fn clock(&self) -> Clock {
        let hand = self.clone();
        Clock::from_fn(move || hand.now())
    }

    fn now(&self) -> Moment {
        let ms = self.0.load(Ordering::SeqCst);
        let ahead = i64::try_from(ms + HOUR_MS).unwrap();
        Moment { wall: RELEASED_AT.plus_millis(ahead), steady_ms: ms }
    }

    fn forward(&self, ms: u64) {
        self.0.fetch_add(ms, Ordering::SeqCst);
    }

    /// The time in so many seconds, in seconds since 1970.
    fn epoch(&self, in_s: i64) -> i64 {
        self.now().wall.as_millis() / 1000 + in_s
    }
}

/// A provider that answers 200 with these header fields, or whatever it is told.
struct Provider {
    peer: Peer,
    says: Arc<Mutex<(String, String)>>,
}

impl Provider {
    fn start(fields: &str) -> Self {
        let says = Arc::new(Mutex::new(("200 OK".to_owned(), fields.to_owned())));
        let said = says.clone();
        let peer = Peer::answering(move |_| {
            let (status, fields) = said.lock().unwrap().clone();
            format!("HTTP/1.1 {status}\r\n{fields}content-length: 2\r\n\r\n{{}}")
        });
        Self { peer, says }
    }

    fn now_says(&self, status: &str, fields: &str) {
        *self.says.lock().unwrap() = (status.to_owned(), fields.to_owned());
    }

    fn asked(&self) -> usize {
        self.peer.seen().len()
    }
}

/// Two providers, the first of which states `fields`.
struct Two {
    hand: Hand,
    a: Provider,
    b: Provider,
}

impl Two {
    fn new(fields: &str) -> Self {
        Self { hand: Hand::default(), a: Provider::start(fields), b: Provider::start("") }
    }

    fn described(&self) -> Builder {
        self.named("A", "key-a")
    }

    fn named(&self, name: &str, key: &str) -> Builder {
        TestProxy::builder()
            .provider(name, "anthropic", &self.a.peer.url(), &format!("auth_value: {key}"))
            .provider("B", "anthropic", &self.b.peer.url(), "auth_value: key-b")
            .clock(self.hand.clock())
    }

    fn asked(&self) -> (usize, usize) {
        (self.a.asked(), self.b.asked())
    }
}

#[track_caller]
fn ask(proxy: &TestProxy) {
    assert_eq!(proxy.ask(post("/v1/messages", MESSAGE)).status, 200);
}

fn status(proxy: &TestProxy, index: usize) -> serde_json::Value {
    proxy.ask(get("/-/status")).json()["providers"][index].clone()
}

/// The fields of an answer after which nothing is left for a minute.
fn nothing_left(hand: &Hand) -> Vec<String> {
    let at = hand.epoch(60);
    let text = hand.now().wall.plus_millis(60_000).to_string();
    vec![
        "x-ratelimit-limit-tokens: 9000\r\nx-ratelimit-remaining-tokens: 0\r\nx-ratelimit-reset-tokens: 1m0s\r\n".into(),
        format!("anthropic-ratelimit-input-tokens-remaining: 0\r\nanthropic-ratelimit-input-tokens-reset: {text}\r\n"),
        format!(
            "anthropic-ratelimit-unified-status: allowed\r\nanthropic-ratelimit-unified-5h-utilization: 1.0\r\n\
             anthropic-ratelimit-unified-5h-reset: {at}\r\n"
        ),
        format!("anthropic-ratelimit-unified-7d-status: rejected\r\nanthropic-ratelimit-unified-7d-reset: {at}\r\n"),
        "x-codex-primary-used-percent: 100\r\nx-codex-primary-reset-after-seconds: 60\r\n".into(),
        format!("x-ratelimit-remaining: 0\r\nx-ratelimit-reset: {at}\r\nx-ratelimit-resource: core\r\n"),
        "RateLimit: \"default\";r=0;t=60\r\n".into(),
    ]
}

fn is_of_model(fields: &str) -> bool {
    fields.contains("-tokens") || fields.contains("-requests")
}

#[test]
fn a_provider_that_says_it_has_nothing_left_is_passed_over_before_it_refuses() {
    for fields in nothing_left(&Hand::default()) {
        let two = Two::new(&fields);
        let proxy = two.described().start();
        ask(&proxy);
        assert_eq!(two.asked(), (1, 0), "{fields}");
        ask(&proxy);
        assert_eq!(two.asked(), (1, 1), "{fields}");
        two.hand.forward(59_999);
        ask(&proxy);
        assert_eq!(two.asked(), (1, 2), "{fields}");
        let shown = status(&proxy, 0);
        // The limits of an API are those of one model, and others go on.
        let state = if is_of_model(&fields) { "ready" } else { "cooling_down" };
        assert_eq!(
            (&shown["state"], &shown["quota"][0]["remaining_ratio"]),
            (&state.into(), &0.0.into()),
            "{fields}"
        );
        assert!(shown["quota"][0]["used_up_until"].is_string(), "{fields}");
        two.hand.forward(1);
        ask(&proxy);
        assert_eq!(two.asked(), (2, 2), "{fields}: its reset has come");
    }
}

#[test]
fn alone_it_is_still_asked() {
    for fields in nothing_left(&Hand::default()) {
        let two = Two::new(&fields);
        let alone = TestProxy::before(&two.a.peer.url());
        ask(&alone);
        ask(&alone);
        assert_eq!(two.asked(), (2, 0), "{fields}");
        // And if every other one has nothing left or fails.
        two.b.now_says("500 X", "");
        let proxy = two.described().start();
        ask(&proxy);
        ask(&proxy);
        assert_eq!(two.asked(), (4, 1), "{fields}");
    }
}

#[test]
fn what_is_no_end_of_a_quota_does_not_pass_a_provider_over() {
    let past = "x-ratelimit-remaining-tokens: 0\r\nx-ratelimit-reset-tokens: 1700000000\r\n";
    for (line, fields) in [
        ("200 OK", past),
        ("200 OK", "x-ratelimit-remaining-tokens: 1\r\nx-ratelimit-reset-tokens: 1m0s\r\n"),
        ("200 OK", "x-ratelimit-remaining-tokens: -1\r\nx-ratelimit-reset-tokens: 1m0s\r\n"),
        ("200 OK", "x-ratelimit-limit-tokens: 0\r\nx-ratelimit-remaining-tokens: 0\r\n"),
        (
            "200 OK",
            "x-ratelimit-remaining: 0\r\nx-ratelimit-reset: 60\r\nx-ratelimit-resource: search\r\n",
        ),
        ("200 OK", "anthropic-ratelimit-unified-overage-status: rejected\r\n"),
        ("200 OK", "anthropic-ratelimit-unified-5h-utilization: 27\r\n"),
        ("200 OK", "anthropic-ratelimit-unified-7d_sonnet-status: rejected\r\n"),
        ("403 X", "x-ratelimit-remaining-tokens: 7\r\n"),
        ("400 X", "content-type: application/json\r\n"),
    ] {
        let two = Two::new("");
        two.a.now_says(line, fields);
        let proxy = two.described().start();
        for _ in 0..2 {
            assert_eq!(
                proxy.ask(post("/v1/messages", MESSAGE)).status.to_string(),
                line[..3],
                "{fields}"
            );
        }
        assert_eq!(two.asked(), (2, 0), "{line} {fields}");
        assert_eq!(status(&proxy, 0)["state"], "ready", "{fields}");
    }
}

#[test]
fn a_quota_that_is_used_up_outlives_a_restart() {
    for (name, state) in [("", "cooling_down"), ("-requests", "ready")] {
        let two =
            Two::new(&format!("x-ratelimit-remaining{name}: 0\r\nx-ratelimit-reset{name}: 1h\r\n"));
        let proxy = two.described().start();
        ask(&proxy);
        let folder = proxy.into_folder();
        two.hand.forward(60_000);
        let proxy = two.described().folder(folder).start();
        let shown = status(&proxy, 0);
        assert_eq!(shown["state"], state, "before any request");
        let quota = &shown["quota"][0];
        let window = if name.is_empty() { "default" } else { "requests" };
        assert_eq!((&quota["window"], quota["used_up_until"].is_string()), (&window.into(), true));
        ask(&proxy);
        assert_eq!(two.asked(), (1, 1));
        two.hand.forward(HOUR_MS);
        ask(&proxy);
        assert_eq!(two.asked(), (2, 1));
    }
}

#[test]
fn a_cooldown_that_a_provider_asked_for_outlives_a_restart() {
    let two = Two::new("");
    two.a.now_says("429 X", "retry-after: 3600\r\n");
    let proxy = two.described().start();
    ask(&proxy);
    let folder = proxy.into_folder();
    let proxy = two.described().folder(folder).start();
    ask(&proxy);
    assert_eq!(two.asked(), (1, 2));
    assert_eq!(status(&proxy, 0)["state"], "cooling_down");
    two.a.now_says("200 OK", "");
    two.hand.forward(HOUR_MS);
    ask(&proxy);
    assert_eq!(two.asked(), (2, 2));
}

/// The file kept the old time, so that a restart passed a working provider over for an hour.
#[test]
fn a_cooldown_that_a_success_ended_does_not_come_back_after_a_restart() {
    let two = Two::new("");
    two.a.now_says("429 X", "retry-after: 3600\r\n");
    let proxy = two.described().start();
    ask(&proxy);
    let file = proxy.folder().join("quota/a.json");
    let saved = || fs::read_to_string(&file).unwrap_or_default();
    eventually("the cooldown is saved", || saved().contains("cooldown_until"));
    two.a.now_says("200 OK", "");
    proxy.ask(post("/to/a/v1/messages", MESSAGE));
    assert_eq!(status(&proxy, 0)["state"], "ready");
    let proxy = two.described().folder(proxy.into_folder()).start();
    assert_eq!(status(&proxy, 0)["state"], "ready", "{}", saved());
    ask(&proxy);
    assert_eq!(two.asked(), (3, 1));
}

/// The same of a model.
#[test]
fn a_models_rest_that_a_success_ended_does_not_come_back_after_a_restart() {
    let two = Two::new("");
    two.a.now_says("429 X", "x-ratelimit-remaining-requests: 0\r\nretry-after: 3600\r\n");
    let proxy = two.described().start();
    ask(&proxy);
    let file = proxy.folder().join("quota/a.json");
    let saved = || fs::read_to_string(&file).unwrap_or_default();
    eventually("the rest is saved", || saved().contains("resting_models"));
    // The window, which has no reset, is no longer used up, but the model rests.
    two.hand.forward(61_000);
    two.a.now_says("200 OK", "");
    proxy.ask(post("/to/a/v1/messages", MESSAGE));
    let proxy = two.described().folder(proxy.into_folder()).start();
    ask(&proxy);
    assert_eq!((two.asked(), saved().contains("resting_models")), ((3, 1), false));
}

/// A limit of requests without a model, such as `GET /v1/files`, showed the provider as cooling down.
#[test]
fn a_used_up_limit_of_requests_without_a_model_leaves_the_provider_ready() {
    let two = Two::new("x-ratelimit-remaining-requests: 0\r\nx-ratelimit-reset-requests: 600\r\n");
    let proxy = two.described().start();
    proxy.ask(get("/to/a/v1/files"));
    let shown = status(&proxy, 0);
    assert_eq!((&shown["state"], shown["cooldown_until"].is_null()), (&"ready".into(), true));
    assert!(shown["quota"][0]["used_up_until"].is_string(), "{shown}");
    ask(&proxy);
    assert_eq!(two.asked(), (2, 0));
}

/// A form's model was not read: the limit of one model rested the whole account.
#[test]
fn a_refusal_of_the_model_in_a_form_rests_that_model() {
    let two = Two::new("");
    two.a.now_says("429 X", "retry-after: 600\r\nx-ratelimit-remaining-requests: 0\r\n");
    let proxy = two.described().start();
    let form =
        "--b\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\nwhisper-1\r\n--b--\r\n";
    proxy.ask(post("/v1/messages", form));
    let shown = status(&proxy, 0);
    assert_eq!(
        (&shown["state"], &shown["resting_models"][0]["model"]),
        (&"ready".into(), &"whisper-1".into())
    );
    proxy.ask(post("/v1/messages", form));
    assert_eq!(two.asked(), (1, 2));
    ask(&proxy);
    assert_eq!(two.asked(), (2, 3));
}

#[test]
fn another_account_does_not_get_the_quota_of_the_one_before() {
    let used_up = "x-ratelimit-remaining-requests: 0\r\nx-ratelimit-reset-requests: 1h\r\n";
    let two = Two::new(used_up);
    let proxy = two.described().start();
    ask(&proxy);
    // A restart with another key.
    let folder = proxy.into_folder();
    let proxy = two.named("A", "key-c").folder(folder).start();
    assert_eq!(status(&proxy, 0)["quota"], serde_json::json!([]));
    ask(&proxy);
    assert_eq!(two.asked(), (2, 0));
    // A reload with a third one.
    two.a.now_says("200 OK", "");
    assert_eq!(proxy.reload(&two.named("A", "key-d")).status, 200);
    ask(&proxy);
    assert_eq!(two.asked(), (3, 0));
    // Another base_url.
    let elsewhere = Provider::start("");
    let folder = proxy.into_folder();
    let moved = TestProxy::builder()
        .provider("A", "anthropic", &elsewhere.peer.url(), "auth_value: key-a")
        .provider("B", "anthropic", &two.b.peer.url(), "auth_value: key-b")
        .clock(two.hand.clock());
    ask(&moved.folder(folder).start());
    assert_eq!((elsewhere.asked(), two.asked()), (1, (3, 0)));
}

/// The seed is another one, as after a login with another account.
#[test]
fn another_chain_does_not_get_the_quota_of_the_one_before() {
    let used_up = "x-ratelimit-remaining-requests: 0\r\nx-ratelimit-reset-requests: 1h\r\n";
    let two = Two::new(used_up);
    let issuer = Peer::answering(|_| answer(200, r#"{"access_token":"t","expires_in":90000}"#));
    let with_seed = |seed: &str| {
        TestProxy::builder()
            .refreshed("A", &two.a.peer.url(), &issuer.url(), "")
            .variable("REFRESH_TOKEN", seed)
            .provider("B", "anthropic", &two.b.peer.url(), "auth_value: key-b")
            .clock(two.hand.clock())
    };
    let ready = |proxy: &TestProxy| {
        eventually("there is a token", || proxy.ask(get("/-/ready")).status == 200);
    };
    let proxy = with_seed("one").start();
    ready(&proxy);
    ask(&proxy);
    ask(&proxy);
    assert_eq!(two.asked(), (1, 1));
    let proxy = with_seed("one").folder(proxy.into_folder()).start();
    ready(&proxy);
    ask(&proxy);
    assert_eq!(two.asked(), (1, 2), "the same chain after a restart");
    let proxy = with_seed("other").folder(proxy.into_folder()).start();
    ready(&proxy);
    ask(&proxy);
    assert_eq!(two.asked(), (2, 2));
}

#[test]
fn a_provider_that_is_renamed_keeps_its_quota() {
    let two = Two::new("x-ratelimit-remaining-requests: 0\r\nx-ratelimit-reset-requests: 1h\r\n");
    let proxy = two.described().start();
    ask(&proxy);
    assert_eq!(proxy.reload(&two.named("New name", "key-a")).status, 200);
    ask(&proxy);
    assert_eq!(two.asked(), (1, 1), "by a reload");
    assert_eq!(status(&proxy, 0)["quota"][0]["window"], "requests");
    let proxy = two.named("Third", "key-a").folder(proxy.into_folder()).start();
    ask(&proxy);
    assert_eq!(two.asked(), (1, 2), "while evertoken was stopped");
}

#[test]
fn a_quota_file_that_is_broken_or_of_a_later_version_is_no_obstacle() {
    let used_up = "x-ratelimit-remaining-requests: 0\r\nx-ratelimit-reset-requests: 1h\r\n";
    let deep = format!("{{\"version\":1,\"x\":{}{}}}", "[".repeat(100), "]".repeat(100));
    for wrong in [
        "",
        "{",
        "[]",
        "{\"version\":99,\"other\":1}",
        "{\"version\":1,\"windows\":7}",
        "\0\0\0",
        &deep,
    ] {
        let two = Two::new(used_up);
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("quota")).unwrap();
        let file = folder.path().join("quota/a.json");
        fs::write(&file, wrong).unwrap();
        let proxy = two.described().folder(folder).start();
        assert_eq!(
            fs::read_to_string(&file).unwrap(),
            wrong,
            "it stays until there is something to save"
        );
        ask(&proxy);
        ask(&proxy);
        assert_eq!(two.asked(), (1, 1));
        let folder = proxy.into_folder();
        let saved = fs::read_to_string(folder.path().join("quota/a.json")).unwrap();
        assert!(saved.contains("\"version\":1") && !saved.contains("key-a"), "{saved}");
    }
}

/// Each client has an account of its own.
#[test]
fn the_quota_of_a_clients_own_account_is_no_providers() {
    let two = Two::new("x-ratelimit-remaining-requests: 0\r\nx-ratelimit-reset-requests: 1h\r\n");
    let proxy = two.named("A", "passthrough").start();
    ask(&proxy);
    ask(&proxy);
    assert_eq!(two.asked(), (2, 0));
    assert_eq!(status(&proxy, 0)["quota"], serde_json::json!([]));
}

/// As many fields as a head may have, each with a window of its own.
#[test]
fn a_provider_that_states_countless_windows_makes_no_more_than_a_dozen_labels() {
    for round in 0..3 {
        let mut fields = String::new();
        for index in 0..90 {
            let _ = write!(fields, "x-ratelimit-remaining-w{round}-{index}: 5\r\n");
        }
        let two = Two::new(&fields);
        let proxy = two.described().start();
        ask(&proxy);
        let mut more = String::new();
        for index in 0..90 {
            let _ = write!(more, "x-ratelimit-remaining-v{index}: 0\r\n");
        }
        two.a.now_says("200 OK", &more);
        proxy.ask(get("/to/a/x"));
        let scraped = proxy.ask(get("/-/metrics")).body;
        let labels =
            scraped.lines().filter(|line| line.starts_with("evertoken_quota_remaining_ratio{"));
        assert!(labels.count() <= 12, "{scraped}");
        assert!(status(&proxy, 0)["quota"].as_array().unwrap().len() <= 12);
    }
}

#[test]
fn what_is_left_is_shown() {
    let hand = Hand::default();
    let fields = format!(
        "anthropic-ratelimit-unified-5h-utilization: 0.27\r\nanthropic-ratelimit-unified-5h-reset: {}\r\n\
         anthropic-ratelimit-unified-7d-utilization: 1\r\nanthropic-ratelimit-unified-7d-reset: {}\r\n",
        hand.epoch(3600),
        hand.epoch(86_400)
    );
    let two = Two::new(&fields);
    let proxy = two.described().start();
    ask(&proxy);
    let quota = status(&proxy, 0)["quota"].clone();
    assert_eq!((&quota[0]["window"], &quota[0]["remaining_ratio"]), (&"5h".into(), &0.73.into()));
    assert!(quota[0]["used_up_until"].is_null(), "{quota}");
    assert_eq!(
        (&quota[1]["window"], &quota[1]["used_up_until"]),
        (&"7d".into(), &quota[1]["reset_at"])
    );
    let page = proxy.ask(get("/-/")).body;
    assert!(page.contains("5h: <b>73 %</b> left") && page.contains("7d: <b>used up</b>"), "{page}");
    let scraped = proxy.ask(get("/-/metrics")).body;
    for line in [
        "evertoken_quota_remaining_ratio{provider=\"A\",window=\"5h\"} 0.73".to_owned(),
        "evertoken_quota_remaining_ratio{provider=\"A\",window=\"7d\"} 0".to_owned(),
        format!(
            "evertoken_quota_reset_timestamp_seconds{{provider=\"A\",window=\"5h\"}} {}",
            hand.epoch(3600)
        ),
    ] {
        assert!(scraped.lines().any(|own| own == line), "{line}: {scraped}");
    }
    two.hand.forward(3_600_000);
    let scraped = proxy.ask(get("/-/metrics")).body;
    assert!(!scraped.contains("window=\"5h\""), "after its reset nothing is known: {scraped}");
    let quota = status(&proxy, 0)["quota"].clone();
    assert_eq!(quota.as_array().unwrap().len(), 1);
}

#[test]
fn a_window_of_one_family_of_models_passes_the_provider_over_for_those_alone() {
    let hand = Hand::default();
    let two = Two::new(&format!(
        "anthropic-ratelimit-unified-7d_opus-utilization: 1.0\r\nanthropic-ratelimit-unified-7d_opus-reset: {}\r\n",
        hand.epoch(3600)
    ));
    let proxy = two.described().start();
    let ask_for = |model: &str| {
        let body = format!("{{\"messages\":[],\"model\":\"{model}\"}}");
        assert_eq!(proxy.ask(post("/v1/messages", &body)).status, 200);
        two.asked()
    };
    assert_eq!(ask_for("claude-opus-4-5"), (1, 0));
    assert_eq!(ask_for("claude-opus-4-5"), (1, 1));
    assert_eq!(ask_for("claude-sonnet-4-5"), (2, 1));
    assert_eq!(status(&proxy, 0)["state"], "ready");
}

/// The limits of an API are those of the model that was asked for: its refusal said 0 of all tokens, and the provider
/// was passed over for every model.
#[test]
fn a_refusal_of_one_model_leaves_the_quota_of_the_others() {
    let two = Two::new("");
    let body = r#"{"error":{"message":"Rate limit reached for gpt-x in organization o on tokens per min (TPM): Limit 9, Used 9.","type":"tokens","code":"rate_limit_exceeded"}}"#;
    let a = Peer::answering(move |seen| {
        if String::from_utf8_lossy(&seen.body).contains("gpt-x") {
            format!(
                "HTTP/1.1 429 X\r\ncontent-type: application/json\r\nx-ratelimit-limit-tokens: 9\r\n\
                 x-ratelimit-remaining-tokens: 0\r\nx-ratelimit-reset-tokens: 1h\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            )
        } else {
            answer(200, "fine")
        }
    });
    let proxy = TestProxy::builder()
        .provider("A", "openai", &a.url(), "auth_value: key-a")
        .provider("B", "openai", &two.b.peer.url(), "auth_value: key-b")
        .clock(two.hand.clock())
        .start();
    let ask_for = |model: &str| {
        let body = format!("{{\"messages\":[],\"model\":\"{model}\"}}");
        assert_eq!(proxy.ask(post("/v1/chat/completions", &body)).status, 200);
        (a.seen().len(), two.b.asked())
    };
    assert_eq!(ask_for("gpt-x"), (1, 1));
    assert_eq!(status(&proxy, 0)["resting_models"][0]["model"], "gpt-x");
    assert_eq!(ask_for("gpt-y"), (2, 1));
    assert_eq!(ask_for("gpt-x"), (2, 2));
}

fn ask_of(proxy: &TestProxy, model: &str) {
    let body = format!("{{\"messages\":[],\"model\":\"{model}\"}}");
    assert_eq!(proxy.ask(post("/v1/messages", &body)).status, 200);
}

/// A 200 that said that nothing was left passed the provider over for all its models.
#[test]
fn a_provider_that_has_nothing_left_of_one_model_still_serves_the_others() {
    let all = nothing_left(&Hand::default());
    for fields in all.iter().filter(|fields| is_of_model(fields)) {
        let two = Two::new(fields);
        let proxy = two.described().start();
        ask_of(&proxy, "one");
        let left = fields.replace("-remaining-tokens: 0", "-remaining-tokens: 4500");
        two.a.now_says("200 OK", &left.replace("-tokens-remaining: 0", "-tokens-remaining: 7"));
        ask_of(&proxy, "two");
        assert_eq!(two.asked(), (2, 0), "{fields}");
        ask_of(&proxy, "one");
        assert_eq!(two.asked(), (2, 1), "{fields}: what another one has left is not its own");
        let quota = status(&proxy, 0)["quota"].clone();
        assert_eq!((&quota[0]["model"], &quota[1]["model"]), (&"one".into(), &"two".into()));
        let page = proxy.ask(get("/-/")).body;
        assert!(page.contains("tokens of <code>one</code>: <b>used up</b>"), "{page}");
        let scraped = proxy.ask(get("/-/metrics")).body;
        let labels = scraped.lines().filter(|line| {
            line.starts_with("evertoken_quota_remaining_ratio{") && line.contains("tokens\"}")
        });
        let labels: Vec<_> = labels.collect();
        assert!(labels.len() == 1 && labels[0].ends_with(" 0"), "the least of both: {labels:?}");
        // A restart, after which the other one is asked for nothing.
        let proxy = two.described().folder(proxy.into_folder()).start();
        ask_of(&proxy, "one");
        ask_of(&proxy, "two");
        assert_eq!(two.asked(), (3, 2), "{fields}: after a restart");
        // An answer about itself ends it.
        proxy.ask(post("/to/a/v1/messages", "{\"model\":\"one\"}"));
        ask_of(&proxy, "one");
        assert_eq!(two.asked(), (5, 2), "{fields}");
    }
}

#[test]
fn a_provider_that_fails_is_not_said_to_have_used_up_its_quota_because_one_model_has() {
    let two = Two::new("x-ratelimit-remaining-tokens: 0\r\nx-ratelimit-reset-tokens: 1h\r\n");
    let proxy = two.described().start();
    ask_of(&proxy, "one");
    two.a.now_says("503 X", "");
    ask_of(&proxy, "two");
    let shown = status(&proxy, 0);
    assert_eq!(shown["state"], "cooling_down");
    let advice = shown["advice"].as_str().unwrap();
    assert!(advice.starts_with("The provider failed or asked to wait"), "{advice}");
}

/// Names of models are the clients' own, and JSON writes a control character in six bytes: the file was over its limit,
/// and the next start ignored it.
#[test]
fn a_quota_file_with_the_longest_names_of_models_is_read_back() {
    let two = Two::new("x-ratelimit-remaining-tokens: 0\r\nx-ratelimit-reset-tokens: 1h\r\n");
    let proxy = two.described().start();
    let ask_odd = |index: usize| {
        let body = format!("{{\"model\":\"{index:06}{}\"}}", "\\u0001".repeat(250));
        proxy.ask(post("/to/a/v1/messages", &body)).status
    };
    assert!((0..30).all(|index| ask_odd(index) == 200));
    let busy =
        "retry-after: 3600\r\nx-ratelimit-remaining-tokens: 0\r\nx-ratelimit-reset-tokens: 1h\r\n";
    two.a.now_says("429 X", busy);
    assert!((0..40).all(|index| ask_odd(index) == 429));
    let folder = proxy.into_folder();
    let length = fs::metadata(folder.path().join("quota/a.json")).unwrap().len();
    assert!((64 * 1024..128 * 1024).contains(&length), "{length}");
    let shown = status(&two.described().folder(folder).start(), 0);
    let count = |name: &str| shown[name].as_array().unwrap().len();
    assert_eq!((count("quota"), count("resting_models")), (24, 32));
}

/// The status `unified` stayed used up, because a later one named the window it was about.
#[test]
fn a_subscription_that_is_allowed_again_is_asked_again() {
    let hand = Hand::default();
    let rejected = format!(
        "anthropic-ratelimit-unified-status: rejected\r\nanthropic-ratelimit-unified-reset: {}\r\n",
        hand.epoch(300_000)
    );
    let two = Two::new(&rejected);
    let proxy = two.described().start();
    ask(&proxy);
    ask(&proxy);
    assert_eq!(two.asked(), (1, 1));
    let allowed = format!(
        "anthropic-ratelimit-unified-status: allowed\r\nanthropic-ratelimit-unified-representative-claim: five_hour\r\n\
         anthropic-ratelimit-unified-5h-utilization: 0.2\r\nanthropic-ratelimit-unified-5h-reset: {}\r\n",
        hand.epoch(9_000)
    );
    two.a.now_says("200 OK", &allowed);
    proxy.ask(post("/to/a/v1/messages", MESSAGE));
    ask(&proxy);
    assert_eq!(two.asked(), (3, 1));
}

/// Codex at 100 % goes on while there are credits.
#[test]
fn a_subscription_with_credits_is_not_used_up() {
    for (credits, expected) in [("true", (2, 0)), ("false", (1, 1))] {
        let two = Two::new(&format!(
            "x-codex-primary-used-percent: 100\r\nx-codex-primary-reset-after-seconds: 60\r\n\
             x-codex-credits-has-credits: {credits}\r\n"
        ));
        let proxy = two.described().start();
        ask(&proxy);
        ask(&proxy);
        assert_eq!(two.asked(), expected, "{credits}");
    }
}

/// The quota of a stream was known only after its first event.
#[test]
fn the_quota_of_a_stream_is_known_before_its_first_event() {
    let (go_on, gone_on) = crossbeam_channel::bounded::<()>(0);
    let streaming = Peer::start(move |mut talk| {
        if talk.request().is_some() {
            talk.send(
                "HTTP/1.1 200 X\r\ncontent-type: text/event-stream\r\nx-ratelimit-remaining: 0\r\n\
                 x-ratelimit-reset: 60\r\nconnection: close\r\n\r\n",
            );
            let _ = gone_on.recv();
        }
    });
    let other = Provider::start("");
    let proxy = TestProxy::builder()
        .provider("A", "anthropic", &streaming.url(), "auth_value: key-a")
        .provider("B", "anthropic", &other.peer.url(), "auth_value: key-b")
        .start();
    let mut client = Client::connect(proxy.address);
    client.send(post("/v1/messages", MESSAGE));
    eventually("the quota is known", || status(&proxy, 0)["quota"][0]["used_up_until"].is_string());
    assert!(!client.has_word(), "its head waits for the first event");
    drop(go_on);
}

/// A 404 ended the rest of an account that had used up its week.
#[test]
fn only_an_answer_that_shows_a_working_account_ends_its_cooldown() {
    let two = Two::new("");
    two.a.now_says("429 X", "retry-after: 90000\r\n");
    let proxy = two.described().start();
    ask(&proxy);
    let state = || status(&proxy, 0)["state"].clone();
    let count = "/to/a/v1/messages/count_tokens";
    for (line, request) in [
        ("404 X", post("/to/a/v1/messages", MESSAGE)),
        ("400 X", post("/to/a/v1/messages", MESSAGE)),
        ("413 X", post("/to/a/v1/messages", MESSAGE)),
        ("401 X", post("/to/a/v1/messages", MESSAGE)),
        ("200 OK", get("/to/a/v1/models")),
        ("200 OK", post(count, MESSAGE)),
    ] {
        two.a.now_says(line, "");
        proxy.ask(request.as_str());
        assert_eq!(state(), "cooling_down", "{line} {request}");
    }
    proxy.ask(post("/to/a/v1/messages", MESSAGE));
    assert_eq!(state(), "ready");
    // One that refused a free request is well once it serves one.
    two.a.now_says("503 X", "");
    proxy.ask(get("/to/a/v1/models"));
    assert_eq!(state(), "cooling_down");
    two.a.now_says("200 OK", "");
    proxy.ask(get("/to/a/v1/models"));
    assert_eq!(state(), "ready");
}

/// Two entries with the same key: what is left is the account's, a cooldown is the entry's.
#[test]
fn after_a_restart_a_cooldown_is_that_of_its_provider_alone() {
    let two = Two::new("");
    two.a.now_says("429 X", "retry-after: 3600\r\n");
    let entry = |builder: Builder, name: &str| {
        builder.provider(name, "anthropic", &two.a.peer.url(), "auth_value: key-a")
    };
    let described = || entry(entry(TestProxy::builder(), "A"), "Again").clock(two.hand.clock());
    let proxy = described().start();
    assert_eq!(proxy.ask(get("/to/a/x")).status, 429);
    let proxy = described().folder(proxy.into_folder()).start();
    assert_eq!(
        (&status(&proxy, 0)["state"], &status(&proxy, 1)["state"]),
        (&"cooling_down".into(), &"ready".into())
    );
}
