//! A whole exchange at trace level: no secret in any output, page or error.

use crate::support::binary::Binary;
use crate::support::client::{ask, get, post};
use crate::support::eventually;
use crate::support::peer::{Peer, answer};

const SECRETS: [&str; 9] = [
    "client-secret-0f3a9c",
    "seed-refresh-token-51bd",
    "access-token-one-77e2",
    "rotated-refresh-token-c0de",
    "static-credential-9a9a",
    "inbound-key-4b4b",
    "clients-own-key-e1e1",
    "query-secret-8d8d",
    "header-secret-6f6f",
];

#[test]
fn no_output_holds_a_secret_at_trace_level() {
    search(&["run"], "[DEBUG]");
}

#[test]
fn no_output_holds_a_secret_at_trace_level_in_json() {
    search(&["run", "--log-format", "json"], "\"DEBUG\"");
}

/// Runs a whole exchange with `arguments`; `debug` shows that its lines are of every level.
fn search(arguments: &[&str], debug: &str) {
    let grants = std::sync::atomic::AtomicUsize::new(0);
    let issuer = Peer::answering(move |_| {
        if grants.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 1 {
            // An answer that quotes what it was sent.
            return answer(
                400,
                r#"{"error":"rotated-refresh-token-c0de is no good","error_description":"rotated-refresh-token-c0de"}"#,
            );
        }
        answer(
            200,
            r#"{"access_token":"access-token-one-77e2","expires_in":3600,"refresh_token":"rotated-refresh-token-c0de"}"#,
        )
    });
    let provider = Peer::answering(|_| answer(200, "fine"));
    let folder = tempfile::tempdir().unwrap();
    let config = format!(
        "settings: {{port: 0, state_dir: state, auth: {{enabled: true, api_key: inbound-key-4b4b}}}}
providers:
  - name: Refreshed
    type: anthropic
    base_url: {0}
    headers: {{x-more: header-secret-6f6f}}
    auto_refresh_config: {{token_url: '{1}', client_id_env: ID, client_secret_env: SECRET, refresh_token_env: SEED, client_auth: client_secret_basic}}
  - name: Static
    type: openai
    base_url: {0}
    auth_value: static-credential-9a9a
",
        provider.url(),
        issuer.url()
    );
    std::fs::write(folder.path().join("providers.yaml"), config).unwrap();
    let variables =
        [("RUST_LOG", "trace"), ("ID", "abcdefgh"), ("SECRET", SECRETS[0]), ("SEED", SECRETS[1])];
    let mut binary = Binary::start(folder.path(), arguments, &variables);
    let address = binary.address();
    binary.wait_for("Successfully refreshed");
    // The line comes a moment before the token does, and until then the other provider would serve.
    eventually("the token is there", || ask(address, get("/-/ready")).status == 200);
    let with_key = |request: String| {
        request.replace(
            "Host: localhost\r\n",
            "Host: localhost\r\nx-api-key: inbound-key-4b4b\r\nAuthorization: Bearer clients-own-key-e1e1\r\n",
        )
    };
    let mut pages = Vec::new();
    for request in [
        post("/v1/messages?key=query-secret-8d8d", "{}"),
        get("/to/static/v1/models?key=query-secret-8d8d"),
        get("/-/"),
        get("/-/status"),
        get("/-/ready"),
        get("/-/metrics"),
        post("/-/refresh/refreshed", ""),
        get("/to/none/?key=query-secret-8d8d"),
    ] {
        let answered = ask(address, with_key(request));
        pages.push(format!("{:?}{}", answered.fields, answered.body));
    }
    pages.push(ask(address, get("/-/status?key=query-secret-8d8d")).body);
    for target in ["/to/static/v1/models", "/to/none/v1", "/-/none"] {
        pages.push(ask(address, get(&format!("{target}?key=inbound-key-4b4b"))).body);
    }
    ask(address, "GET /?key=inbound-key-4b4b HTTP/1.1\r\nHost: a\0\r\n\r\n");
    eventually("both providers were asked", || provider.seen().len() == 3);
    let seen = provider.seen();
    assert_eq!(seen[0].field("authorization"), Some("Bearer access-token-one-77e2"));
    assert_eq!(seen[1].field("authorization"), Some("Bearer static-credential-9a9a"));
    binary.signal(rustix::process::Signal::TERM);
    assert_eq!(binary.code(), Some(0));
    let lines = binary.lines();
    assert!(lines.iter().any(|line| line.contains(debug)), "RUST_LOG is heard");
    for output in lines.iter().chain(&pages) {
        for secret in SECRETS {
            assert!(!output.contains(secret), "{secret} in {output}");
        }
        assert!(
            !output.contains("abcdefgh"),
            "more than five characters of the client id: {output}"
        );
    }
}
