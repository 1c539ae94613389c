//! A whole exchange at trace level: no secret in any output, page or error.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;

use crate::support::binary::{Binary, run, text};
use crate::support::client::{ask, get, post};
use crate::support::eventually;
use crate::support::peer::{Peer, answer};

const SECRETS: [&str; 11] = [
    "client-secret-0f3a9c",
    "seed-refresh-token-51bd",
    "access-token-one-77e2",
    "rotated-refresh-token-c0de",
    "static-credential-9a9a",
    "inbound-key-4b4b",
    "clients-own-key-e1e1",
    "query-secret-8d8d",
    "header-secret-6f6f",
    "listed-key-of-ci-2c2c",
    "named-key-of-a-friend-3d3d",
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
        "settings:
  port: 0
  state_dir: state
  token_endpoint: true
  auth:
    enabled: true
    api_key_env: KEYS
    keys: [{{name: ci, key_env: CI, providers: [static]}}]
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
    let variables = [
        ("RUST_LOG", "trace"),
        ("ID", "abcdefgh"),
        ("SECRET", SECRETS[0]),
        ("SEED", SECRETS[1]),
        ("KEYS", "inbound-key-4b4b\nfriend: named-key-of-a-friend-3d3d"),
        ("CI", "listed-key-of-ci-2c2c"),
    ];
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
    pages.extend(refusals_of_named_keys(address));
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

/// The answers to two keys with names, of which one is limited to another provider.
fn refusals_of_named_keys(address: SocketAddr) -> Vec<String> {
    let targets = [
        ("/to/refreshed/v1?x", "listed-key-of-ci-2c2c"),
        ("/-/status", "listed-key-of-ci-2c2c"),
        ("/-/token/refreshed", "listed-key-of-ci-2c2c"),
        ("/-/token/static", "listed-key-of-ci-2c2c"),
        ("/listed-key-of-ci-2c2c/x", "listed-key-of-ci-2c2c"),
        ("/-/token/refreshed", "named-key-of-a-friend-3d3d"),
        ("/named-key-of-a-friend-3d3d/x", "named-key-of-a-friend-3d3d"),
    ];
    let answers = targets.map(|(target, key)| {
        let field = format!("api-key: {key}\r\nHost:");
        let refused = ask(address, get(target).replace("Host:", &field));
        assert!(matches!(refused.status, 400 | 403), "{target}: {}", refused.body);
        format!("{:?}{}", refused.fields, refused.body)
    });
    answers.to_vec()
}

/// From a discovery, with the secret of a registered client, to a logout that an issuer answers with what it was sent.
#[test]
fn no_output_of_a_discovery_or_a_logout_holds_a_secret() {
    const HIDDEN: [&str; 4] =
        ["registered-secret-1d1d", "code-2e2e", "first-access-3f3f", "first-refresh-4a4a"];
    let issuer = Peer::answering(|seen| {
        let own = format!("http://{}", seen.field("host").unwrap());
        let fill = |status, body: &str| answer(status, &body.replace("URL", &own));
        match seen.line.split([' ', '?']).nth(1).unwrap() {
            "/.well-known/oauth-protected-resource/mcp" => {
                fill(200, r#"{"resource":"URL/mcp","authorization_servers":["URL"]}"#)
            }
            "/.well-known/oauth-authorization-server" => fill(
                200,
                r#"{"issuer":"URL","authorization_endpoint":"URL/a","token_endpoint":"URL/t","revocation_endpoint":"URL/r",
                "registration_endpoint":"URL/n"}"#,
            ),
            "/n" => {
                fill(201, r#"{"client_id":"abcdefgh","client_secret":"registered-secret-1d1d"}"#)
            }
            "/t" => fill(
                200,
                r#"{"access_token":"first-access-3f3f","refresh_token":"first-refresh-4a4a","expires_in":3600}"#,
            ),
            "/r" => fill(
                400,
                r#"{"error":"first-refresh-4a4a","error_description":"first-access-3f3f"}"#,
            ),
            _ => fill(401, ""),
        }
    });
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("providers.yaml"), "settings: {state_dir: ./state}\n")
        .unwrap();
    let variables = [("RUST_LOG", "trace"), ("HOME", "/nonexistent")];
    let url = format!("{}/mcp", issuer.url());
    let discover =
        ["login", "--discover", &url, "--name", "p", "--write", "providers.yaml", "--no-browser"];
    let (mut login, _stdin) = Binary::start_talking(folder.path(), &discover, &variables);
    let address = login.wait_for("  http").trim().to_owned();
    let value = |name: &str| {
        let query = address.split_once('?').unwrap().1.as_bytes();
        let mut pairs = form_urlencoded::parse(query);
        pairs.find(|(own, _)| own == name).unwrap().1.into_owned()
    };
    let (redirect_uri, state) = (value("redirect_uri"), value("state"));
    let (authority, path) = redirect_uri.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let target = format!("/{path}?code=code-2e2e&state={state}");
    let page = ask(authority.parse().unwrap(), get(&target));
    assert_eq!(page.status, 200, "{}", page.body);
    assert_eq!(login.code(), Some(0), "{:#?}", login.lines());
    let mut outputs = login.lines();
    outputs.extend([
        page.body,
        std::fs::read_to_string(folder.path().join("providers.yaml")).unwrap(),
    ]);
    for command in [&["check", "--online"][..], &["logout", "--provider", "p"]] {
        let output = run(folder.path(), command, &variables);
        outputs.extend([text(&output.stdout), text(&output.stderr)]);
    }
    assert!(outputs.iter().any(|output| output.contains("The refresh token was not revoked")));
    for output in &outputs {
        for secret in HIDDEN {
            assert!(!output.contains(secret), "{secret} in {output}");
        }
    }
    // Only files of the state folder hold them, for their owner alone.
    let secret = folder.path().join("state/p.client-secret");
    assert_eq!(std::fs::read_to_string(&secret).unwrap(), "registered-secret-1d1d\n");
    let mode = std::fs::metadata(&secret).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

/// An issuer whose error code is the client's secret, or the refresh token.
fn quoting_issuer() -> Peer {
    Peer::answering(|seen| {
        let is_first = String::from_utf8_lossy(&seen.body).contains("seed-1");
        let quoted = if is_first { "client-secret-1f1f" } else { "seed-refresh-2f2f" };
        answer(400, &format!(r#"{{"error":"{quoted}"}}"#))
    })
}

/// A command that says its secrets aloud, once with a token and once without, and an endpoint that quotes its credential.
#[test]
fn no_output_holds_a_secret_of_a_command_or_of_an_endpoint_that_is_no_oauth() {
    const SECRETS: [&str; 7] = [
        "command-token-3c3c", "command-password-aa11", "command-literal-bb22",
        "bearer-credential-2d2d", "endpoint-token-5e5e", "client-secret-1f1f", "seed-refresh-2f2f",
    ];
    let endpoint = Peer::answering(|seen| match seen.field("authorization") {
        Some("Bearer bearer-credential-2d2d") if seen.line.contains("first") => {
            answer(200, r#"{"token":"endpoint-token-5e5e","expires_in":3600}"#)
        }
        _ => answer(
            401,
            r#"{"error":"bearer-credential-2d2d","error_description":"bearer-credential-2d2d"}"#,
        ),
    });
    let quoting = quoting_issuer();
    let provider = Peer::answering(|_| answer(200, "fine"));
    let folder = tempfile::tempdir().unwrap();
    let leaky = "echo \"$PASSWORD and $LITERAL: got command-token-3c3c, token=command-token-3c3c\" >&2; echo command-token-3c3c; test ! -e again";
    let config = format!(
        "settings: {{port: 0, state_dir: state}}
providers:
  - name: Commanded
    type: anthropic
    base_url: {0}
    auto_refresh_config:
      token_command: [sh, -c, '{leaky}']
      token_command_env: {{PASSWORD: null, LITERAL: command-literal-bb22}}
  - name: Requested
    type: openai
    base_url: {0}
    auto_refresh_config: {{token_url: '{1}/first?key=1', token_request: {{bearer_env: BEARER}}}}
  - name: Refused
    type: openai
    base_url: {0}
    auto_refresh_config: {{token_url: '{1}/second', token_request: {{bearer_env: BEARER}}}}
  - name: Carrying
    type: openai
    base_url: {0}
    auto_refresh_config: {{token_url: '{1}/second', token_request: {{bearer_provider: Fixed}}}}
  - {{name: Fixed, type: openai, base_url: '{0}', auth_value: bearer-credential-2d2d}}
  - name: One
    type: openai
    base_url: {0}
    auto_refresh_config: {{token_url: '{2}', client_id_env: RUST_LOG, client_secret_env: SECRET, refresh_token_env: SEED_1}}
  - name: Two
    type: openai
    base_url: {0}
    auto_refresh_config: {{token_url: '{2}', client_id_env: RUST_LOG, client_secret_env: SECRET, refresh_token_env: SEED_2}}
",
        provider.url(),
        endpoint.url(),
        quoting.url()
    );
    std::fs::write(folder.path().join("providers.yaml"), config).unwrap();
    let variables = [
        ("RUST_LOG", "trace"),
        ("SECRET", SECRETS[5]),
        ("SEED_1", "seed-1"),
        ("SEED_2", SECRETS[6]),
        ("PATH", "/usr/bin:/bin"),
        ("PASSWORD", SECRETS[1]),
        ("BEARER", SECRETS[3]),
    ];
    let mut binary = Binary::start(folder.path(), &["run"], &variables);
    let address = binary.address();
    binary.wait_for("The token_command of provider Commanded says: *** and ***: got ***, ");
    for name in ["Refused", "Carrying", "One", "Two"] {
        binary.wait_for(&format!("(provider: {name}; next try in"));
    }
    let used = ["commanded", "requested"].map(|slug| ask(address, get(&format!("/to/{slug}/x"))));
    assert!(used.iter().all(|answer| answer.status == 200));
    let sent: Vec<_> = provider
        .seen()
        .iter()
        .map(|seen| seen.field("authorization").unwrap().to_owned())
        .collect();
    assert_eq!(sent, ["Bearer command-token-3c3c", "Bearer endpoint-token-5e5e"]);
    std::fs::write(folder.path().join("again"), "").unwrap();
    let mut pages = Vec::new();
    for request in [
        post("/-/refresh/commanded", ""),
        post("/-/refresh/refused", ""),
        get("/to/refused/x"),
        get("/-/"),
        get("/-/status"),
        get("/-/ready"),
        get("/-/metrics"),
    ] {
        let answered = ask(address, request);
        pages.push(format!("{:?}{}", answered.fields, answered.body));
    }
    assert!(pages[0].contains("ended with exit code 1: *** and ***"), "{}", pages[0]);
    binary.signal(rustix::process::Signal::TERM);
    assert_eq!(binary.code(), Some(0));
    for output in binary.lines().iter().chain(&pages) {
        for secret in SECRETS {
            assert!(!output.contains(secret), "{secret} in {output}");
        }
    }
}
