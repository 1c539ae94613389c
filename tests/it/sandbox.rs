//! Against the sandbox, an issuer with rotation and reuse detection, and its scripted faults.

use std::time::Duration;

use sandbox::faults::Fault;
use sandbox::{Options, Sandbox};

use crate::support::client::{Client, ask, get, post};
use crate::support::eventually;
use crate::support::proxy::{Builder, TestProxy};

const MESSAGE: &str = r#"{"model":"m","stream":true,"messages":[{"role":"user","content":"a b"}]}"#;

fn sandbox(lifetime: u64) -> Sandbox {
    let options = Options {
        lifetime: Duration::from_secs(lifetime),
        event_delay: Duration::ZERO,
        ..Options::default()
    };
    Sandbox::start(options).unwrap()
}

fn before(sandbox: &Sandbox) -> Builder {
    TestProxy::builder()
        .variable("CLIENT_ID", sandbox::issuer::CLIENT_ID)
        .variable("CLIENT_SECRET", &sandbox.client_secret())
        .variable("REFRESH_TOKEN", &sandbox.login())
        .refreshed("P", &sandbox.url(), &format!("{}/oauth/token", sandbox.url()), "")
}

fn status(status: u16, body: &str) -> Fault {
    Fault { status: Some(status), body: Some(body.into()), ..Fault::default() }
}

#[test]
fn both_apis_stream_and_no_refresh_token_is_used_twice() {
    let sandbox = sandbox(2);
    let proxy = before(&sandbox).start();
    eventually("six tokens were granted", || {
        let streamed = proxy.ask(post("/v1/messages", MESSAGE));
        assert_eq!((streamed.status, streamed.whole), (200, true));
        assert!(streamed.body.contains("event: message_stop"));
        assert!(proxy.ask(post("/v1/chat/completions", MESSAGE)).body.ends_with("[DONE]\n\n"));
        sandbox.counts().granted >= 6
    });
    assert_eq!((sandbox.counts().reused, sandbox.requests().1), (0, 0));
}

/// A browser that a person sent to the printed address got 401.
/// Codex asks for one first, and waited until the time limit of its answer.
#[test]
fn a_websocket_is_refused_at_once() {
    let sandbox = sandbox(3600);
    let proxy = before(&sandbox).start();
    let handshake = "GET /v1/responses HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    assert_eq!(proxy.ask(handshake).status, 426);
}

#[test]
fn the_page_for_device_codes_has_a_form_that_ends_the_login() {
    let sandbox = sandbox(60);
    let address = sandbox.address();
    let client = format!(
        "client_id={}&client_secret={}",
        sandbox::issuer::CLIENT_ID,
        sandbox.client_secret()
    );
    let form = |path: &str, body: &str| {
        let kind = "Content-Type: application/x-www-form-urlencoded";
        let length = body.len();
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\n{kind}\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        ask(address, &request)
    };
    let device = form("/oauth/device", &client).json();
    let code = device["user_code"].as_str().unwrap();
    let page = ask(address, get("/device"));
    assert_eq!(page.status, 200, "{}", page.body);
    assert!(page.field("content-type").unwrap().starts_with("text/html"));
    assert!(page.body.contains("<form method=\"post\" action=\"/device\">"), "{}", page.body);
    let filled = ask(address, get(&format!("/device?user_code={code}")));
    assert!(filled.body.contains(&format!("value=\"{code}\"")), "{}", filled.body);
    let unknown = form("/device", "user_code=NOBODY&decision=agree");
    assert!(unknown.status == 404 && unknown.body.contains("Nobody waits"), "{}", unknown.body);
    let typed = format!("user_code={}-{}&decision=agree", code[..4].to_lowercase(), &code[4..]);
    let agreed = form("/device", &typed);
    assert!(agreed.status == 200 && agreed.body.contains("Logged in"), "{}", agreed.body);
    let grant = format!(
        "grant_type=urn:ietf:params:oauth:grant-type:device_code&device_code={}&{client}",
        device["device_code"].as_str().unwrap()
    );
    let granted = form("/oauth/token", &grant);
    assert_eq!(granted.status, 200, "{}", granted.body);
}

#[test]
fn every_transient_failure_of_the_token_endpoint_is_survived() {
    let sandbox = sandbox(3600);
    let after = ("Retry-After".to_owned(), "1".to_owned());
    let faults = [
        status(500, ""),
        Fault { headers: vec![after], ..status(429, r#"{"error":"rate_limit_error"}"#) },
        status(400, r#"{"error":"temporarily_unavailable"}"#),
        status(200, "<html>a captive portal</html>"),
        status(302, ""),
    ];
    let count = faults.len();
    for fault in faults {
        sandbox.faults().at_token(fault);
    }
    let proxy = before(&sandbox).start();
    for _ in 0..count {
        // The next try comes at once, rather than after the backoff.
        ask(proxy.address, post("/-/refresh/p", ""));
    }
    eventually("it recovers", || proxy.ask(get("/-/ready")).status == 200);
    assert_eq!(proxy.ask(post("/v1/messages", MESSAGE)).status, 200);
    assert_eq!(sandbox.counts().reused, 0);
}

#[test]
fn an_answer_that_was_lost_behind_a_gateway_is_said() {
    let sandbox = sandbox(3600);
    // The issuer rotates, and a gateway answers in its place with something that is no token.
    sandbox.faults().at_token(Fault { after_processing: true, ..status(200, "gateway") });
    let proxy = before(&sandbox).start();
    ask(proxy.address, post("/-/refresh/p", ""));
    let words = "the answer to the last refresh was probably lost; log in again";
    eventually("it is said", || proxy.ask(get("/-/ready")).body.contains(words));
    assert_eq!(sandbox.counts().reused, 1);
}

#[test]
fn a_revoked_token_is_noticed_by_its_401_and_the_client_sees_none() {
    let sandbox = sandbox(3600);
    let proxy = before(&sandbox).start();
    assert_eq!(proxy.ask(post("/v1/messages", MESSAGE)).status, 200);
    // A restart forgets when the last refresh was, as hours would.
    let folder = proxy.into_folder();
    sandbox.revoke_access_tokens();
    let proxy = before(&sandbox).folder(folder).variable("REFRESH_TOKEN", "").start();
    let streamed = proxy.ask(post("/v1/messages", MESSAGE));
    assert_eq!((streamed.status, streamed.whole), (200, true));
    assert_eq!(sandbox.requests(), (3, 1), "refused once, and sent again");
}

#[test]
fn a_stream_that_stops_in_the_middle_is_cut() {
    let sandbox = sandbox(3600);
    let proxy = before(&sandbox).settings("timeouts: {idle: 1}").start();
    sandbox.faults().at_provider(Fault { stop_after_events: Some(2), ..Fault::default() });
    let cut = proxy.ask(post("/v1/messages", MESSAGE));
    assert!(!cut.whole);
    assert!(cut.body.contains("message_start") && !cut.body.contains("message_stop"));
}

#[test]
fn what_a_kind_answers_is_queued_by_its_name() {
    let manners = sandbox::manners::Manners::find("gateway").unwrap();
    let pages = manners.answers.pages.clone();
    let sandbox = Sandbox::start(Options { manners: Some(manners), ..Options::default() }).unwrap();
    let queue = |name: &str| {
        let body = format!("{{\"name\":\"{name}\"}}");
        ask(sandbox.address(), post("/control/answer", &body)).json()["queued"].clone()
    };
    assert_eq!(queue("nothing"), 0);
    assert_eq!(queue("pages"), pages.len());
    for page in pages {
        let mut client = Client::connect(sandbox.address());
        client.send(post("/oauth/token", ""));
        assert_eq!(client.head().status, page.status);
    }
    let mut client = Client::connect(sandbox.address());
    client.send(post("/oauth/token", ""));
    assert_eq!(client.head().status, 403, "without a User-Agent");
    for what in ["revoke-access-tokens", "revoke-logins"] {
        assert_eq!(ask(sandbox.address(), post(&format!("/control/{what}"), "")).status, 200);
    }
}

/// A sandbox that knows the public halves of the keys in `tests/data/keys`.
fn knowing_keys() -> Sandbox {
    let public_keys = ["public", "p256-public", "ed25519-public"].map(data_key);
    let options = Options {
        event_delay: Duration::ZERO,
        public_keys: public_keys.into(),
        ..Options::default()
    };
    Sandbox::start(options).unwrap()
}

fn data_key(name: &str) -> String {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/keys");
    std::fs::read_to_string(folder.join(format!("{name}.pem"))).unwrap()
}

/// A provider whose `auto_refresh_config` has these lines.
fn with_config(sandbox: &Sandbox, lines: &str) -> Builder {
    let lines: String = lines.lines().map(|line| format!("  {line}\n")).collect();
    let lines =
        format!("auto_refresh_config:\n  token_url: {}/oauth/token\n{lines}", sandbox.url());
    TestProxy::builder()
        .variable("CLIENT_ID", sandbox::issuer::CLIENT_ID)
        .variable("CLIENT_SECRET", &sandbox.client_secret())
        .provider("P", "anthropic", &sandbox.url(), &lines)
}

#[test]
fn an_issuer_that_knows_the_key_believes_each_assertion_once() {
    let sandbox = knowing_keys();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/keys");
    let machine = "client_id_env: CLIENT_ID\ngrant_type: client_credentials\n";
    let key = |file: &str, more: &str| {
        format!("{machine}client_assertion: {{key_file: '{folder}/{file}.pem'{more}}}")
    };
    for lines in [
        key("rsa", ""),
        key("rsa-pkcs1", ", algorithm: PS256"),
        key("p256-sec1", ""),
        key("ed25519", ", lifetime: 3600"),
        format!("{machine}client_secret_env: CLIENT_SECRET\nclient_auth: client_secret_jwt"),
        format!(
            "grant_type: jwt_bearer\nassertion: {{key_file: '{folder}/p256.pem', claims: {{iss: robot}}}}"
        ),
    ] {
        let proxy = with_config(&sandbox, &lines).start();
        assert_eq!(proxy.ask(post("/v1/messages", MESSAGE)).status, 200, "{lines}");
        let again =
            proxy.ask("POST /-/refresh/p HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(again.status, 200, "{lines}: {}", again.body);
    }
    for (lines, part) in [
        (key("p384-sec1", ""), "401 Unauthorized (invalid_client)"),
        (key("rsa", ", claims: {aud: 'https://other.test'}"), "401 Unauthorized (invalid_client)"),
        (key("rsa", ", claims: {sub: other}"), "401 Unauthorized (invalid_client)"),
        (key("rsa", ", lifetime: 3601"), "401 Unauthorized (invalid_client)"),
        (
            format!(
                "grant_type: jwt_bearer\nassertion: {{key_file: '{folder}/p384-sec1.pem', claims: {{iss: robot}}}}"
            ),
            "400 Bad Request (invalid_grant); the issuer refuses the assertion: compare its key",
        ),
    ] {
        let refused = with_config(&sandbox, &lines).start().ask(post("/v1/messages", MESSAGE));
        assert!(
            refused.status == 403 && refused.body.replace('\\', "").contains(part),
            "{lines}: {}",
            refused.body
        );
    }
}

#[test]
fn an_assertion_of_a_clock_that_is_off_is_refused_and_the_difference_is_said() {
    let sandbox = knowing_keys();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/keys");
    let lines = format!(
        "client_id_env: CLIENT_ID\ngrant_type: client_credentials\nclient_assertion: {{key_file: '{folder}/p256.pem'}}"
    );
    for (ahead_ms, side) in
        [(7_200_000, "s ahead of the issuer's"), (-7_200_000, "s behind the issuer's")]
    {
        let system = evertoken::testing::Clock::system();
        let clock = evertoken::testing::Clock::from_fn(move || {
            let now = system.now();
            evertoken::testing::Moment { wall: now.wall.plus_millis(ahead_ms), ..now }
        });
        let proxy = with_config(&sandbox, &lines).clock(clock).start();
        let refused = proxy.ask(post("/v1/messages", MESSAGE));
        assert_eq!(refused.status, 503, "tried again soon: {}", refused.body);
        let said = refused.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(said.contains("this machine's clock is 7") && said.contains(side), "{said}");
    }
}
