//! Signed assertions and exchanged tokens end to end: what an issuer gets, and files that change or are no good.

use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::support::binary::{Binary, run, text};
use crate::support::client::{Answer, ask, get};
use crate::support::eventually;
use crate::support::peer::{Peer, Seen, answer};
use crate::support::proxy::TestProxy;

const ORDER: &str = "POST /-/refresh/p HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n";

fn key(name: &str) -> String {
    std::fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/keys").join(name),
    )
    .unwrap()
}

/// The value of `name` in the form that was sent.
fn param(seen: &Seen, name: &str) -> Option<String> {
    form_urlencoded::parse(&seen.body)
        .find(|(own, _)| own == name)
        .map(|(_, value)| value.into_owned())
}

/// The part of a JWT with this index.
fn part(token: &str, index: usize) -> Value {
    let part = token.split('.').nth(index).unwrap();
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

fn granting() -> Peer {
    let count = std::sync::atomic::AtomicU64::new(0);
    Peer::answering(move |_| {
        let number = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1;
        answer(200, &format!(r#"{{"access_token":"access-{number}","expires_in":3600}}"#))
    })
}

/// A proxy before a provider with these lines in its `auto_refresh_config`.
fn proxy(provider: &Peer, lines: &str) -> TestProxy {
    let lines: String = lines.lines().map(|line| format!("  {line}\n")).collect();
    let lines = format!("auto_refresh_config:\n{lines}");
    TestProxy::builder().provider("P", "anthropic", &provider.url(), &lines).start()
}

fn order(proxy: &TestProxy) -> Answer {
    proxy.ask(ORDER)
}

#[test]
fn each_request_has_a_new_assertion_of_the_key_that_is_in_the_file_then() {
    let (issuer, provider) = (granting(), Peer::telling_the_credential());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key.pem");
    std::fs::write(&file, key("p256-sec1.pem")).unwrap();
    let proxy = proxy(
        &provider,
        &format!(
            "token_url: '{}/t'\nclient_id_env: CLIENT_ID\ngrant_type: client_credentials\n\
             client_assertion: {{key_file: '{}', key_id: k1}}",
            issuer.url(),
            file.display()
        ),
    );
    assert_eq!(proxy.ask(get("/x")).body, "Bearer access-1");
    assert_eq!(order(&proxy).status, 200);
    std::fs::write(&file, key("rsa-pkcs1.pem")).unwrap();
    assert_eq!(order(&proxy).status, 200);
    let seen = issuer.seen();
    let tokens: Vec<_> = seen.iter().map(|seen| param(seen, "client_assertion").unwrap()).collect();
    let header = |index: usize| part(&tokens[index], 0);
    assert_eq!((&header(0)["alg"], &header(0)["kid"]), (&"ES256".into(), &"k1".into()));
    assert_eq!(header(2)["alg"], "RS256");
    let claims = part(&tokens[0], 1);
    assert_eq!(
        (&claims["sub"], &claims["aud"]),
        (&"abc12-client".into(), &format!("{}/t", issuer.url()).into())
    );
    assert_ne!(claims["jti"], part(&tokens[1], 1)["jti"]);
    assert_eq!(
        param(&seen[0], "client_assertion_type").as_deref(),
        Some("urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
    );
    assert_eq!(param(&seen[0], "client_secret"), None);
    // A key that is gone: the token in hand serves, and the key is named.
    std::fs::write(&file, key("public.pem")).unwrap();
    let refused = order(&proxy);
    assert_eq!(refused.status, 502, "{}", refused.body);
    assert!(refused.body.contains("it holds a public key"), "{}", refused.body);
    assert_eq!(proxy.ask(get("/x")).body, "Bearer access-3");
    assert_eq!(issuer.seen().len(), 3, "nothing is sent without a key");
    std::fs::write(&file, key("ed25519.pem")).unwrap();
    assert_eq!(order(&proxy).status, 200);
}

#[test]
fn an_installation_token_comes_from_a_post_whose_credential_is_the_assertion() {
    let issuer = Peer::answering(|_| {
        answer(201, r#"{"token":"ghs_1","expires_at":"2126-01-01T00:00:00Z","permissions":{}}"#)
    });
    let provider = Peer::telling_the_credential();
    let proxy = proxy(
        &provider,
        &format!(
            "token_url: '{}/app/installations/7/access_tokens'\ngrant_type: jwt_bearer\nclient_id_env: CLIENT_ID\n\
             headers: {{accept: application/vnd.github+json}}\n\
             token_fields: {{access_token: token, expires_at: expires_at}}\n\
             assertion: {{key_file: '{}/tests/data/keys/rsa-pkcs1.pem', as: bearer}}",
            issuer.url(),
            env!("CARGO_MANIFEST_DIR")
        ),
    );
    assert_eq!(proxy.ask(get("/x")).body, "Bearer ghs_1");
    let seen = &issuer.seen()[0];
    assert_eq!(seen.line, "POST /app/installations/7/access_tokens HTTP/1.1");
    assert_eq!((seen.body.len(), seen.field("content-type")), (0, None));
    assert_eq!(seen.field("accept"), Some("application/vnd.github+json"));
    let token = seen.field("authorization").unwrap().strip_prefix("Bearer ").unwrap();
    assert_eq!(part(token, 0)["alg"], "RS256");
    let claims = part(token, 1);
    assert_eq!((&claims["iss"], claims.get("aud")), (&"abc12-client".into(), None));
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 300);
}

#[test]
fn a_subject_token_is_read_at_each_use() {
    let (issuer, provider) = (granting(), Peer::telling_the_credential());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "subject-1\n").unwrap();
    let proxy = proxy(
        &provider,
        &format!(
            "token_url: '{}'\ngrant_type: token_exchange\nsubject_token_file: '{}'\naudience: //pool\nscope: s",
            issuer.url(),
            file.display()
        ),
    );
    assert_eq!(proxy.ask(get("/x")).body, "Bearer access-1");
    // As Kubernetes renews it: another file takes its place.
    std::fs::write(folder.path().join("new"), "subject-2\n").unwrap();
    std::fs::rename(folder.path().join("new"), &file).unwrap();
    assert_eq!(order(&proxy).status, 200);
    let sent: Vec<_> =
        issuer.seen().iter().map(|seen| param(seen, "subject_token").unwrap()).collect();
    assert_eq!(sent, ["subject-1", "subject-2"]);
    let first = &issuer.seen()[0];
    assert_eq!(
        param(first, "grant_type").as_deref(),
        Some("urn:ietf:params:oauth:grant-type:token-exchange")
    );
    assert_eq!(
        (param(first, "audience").as_deref(), param(first, "scope").as_deref()),
        (Some("//pool"), Some("s"))
    );
    assert_eq!(param(first, "client_id"), None);
}

#[test]
fn a_service_account_that_is_written_later_is_taken_up_with_its_token_endpoint() {
    let (issuer, provider) = (granting(), Peer::telling_the_credential());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("credentials.json");
    let proxy = proxy(
        &provider,
        &format!("grant_type: jwt_bearer\nscope: s\nassertion: {{key_file: '{}'}}", file.display()),
    );
    let refused = proxy.ask(get("/x"));
    assert!(refused.body.contains("Missing secret file"), "{}", refused.body);
    let account = serde_json::json!({
        "type": "service_account", "client_email": "robot@p.test", "private_key_id": "k7",
        "private_key": key("rsa.pem"), "token_uri": format!("{}/google", issuer.url()),
    });
    std::fs::write(&file, account.to_string()).unwrap();
    assert_eq!(order(&proxy).status, 200);
    assert_eq!(proxy.ask(get("/x")).body, "Bearer access-1");
    let seen = &issuer.seen()[0];
    assert_eq!(seen.line, "POST /google HTTP/1.1");
    assert_eq!((param(seen, "scope"), param(seen, "client_id")), (None, None));
    let token = param(seen, "assertion").unwrap();
    assert_eq!(
        (part(&token, 0)["kid"].as_str(), part(&token, 1)["scope"].as_str()),
        (Some("k7"), Some("s"))
    );
    assert_eq!(part(&token, 1)["iss"], "robot@p.test");
}

#[test]
fn a_clock_that_is_off_is_in_the_log_and_on_the_page_with_the_difference() {
    let issuer = Peer::answering(|_| {
        let now = evertoken::testing::Clock::system().wall();
        let date = httpdate::fmt_http_date(now.plus_millis(-3_600_000).to_system_time());
        let body = r#"{"error":"invalid_grant","error_description":"iat is in the future"}"#;
        format!("HTTP/1.1 400 X\r\ndate: {date}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    });
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("key.pem"), key("p256.pem")).unwrap();
    let config = format!(
        "settings: {{port: 0, state_dir: state}}\nproviders:\n  - {{name: P, type: generic, base_url: 'http://127.0.0.1:9', \
         auto_refresh_config: {{token_url: '{}', grant_type: jwt_bearer, assertion: {{key_file: key.pem, claims: {{iss: me}}}}}}}}\n",
        issuer.url()
    );
    std::fs::write(folder.path().join("providers.yaml"), config).unwrap();
    let binary = Binary::start(folder.path(), &["run"], &[]);
    let line = binary.wait_for("Failed to refresh token: 400 Bad Request (invalid_grant)");
    let (_, said) = line.split_once("; this machine's clock is ").expect(&line);
    let (seconds, rest) = said.split_once(" s ahead of the issuer's").expect(&line);
    assert!((3599..=3601).contains(&seconds.parse::<u64>().unwrap()), "{line}");
    assert!(rest.contains("set the clock"), "{line}");
    // The log has the line a moment before the status.
    let mut page = Value::Null;
    eventually("the status tells it", || {
        page = ask(binary.address(), get("/-/status")).json();
        page["providers"][0]["refresh"]["trouble"] == "clock_off"
    });
    assert!(page["providers"][0]["advice"].as_str().unwrap().contains("clock"), "{page}");
}

#[test]
fn check_says_which_key_signs_and_which_can_t() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, key(name)).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o640);
        std::fs::set_permissions(&path, mode).unwrap();
        path.display().to_string()
    };
    let check = |lines: &str| {
        let config = format!(
            "settings: {{state_dir: state}}\nproviders:\n  - name: P\n    type: generic\n    base_url: https://p.test\n    \
             auto_refresh_config:\n      token_url: https://i.test/t\n      client_id_env: ID\n{lines}"
        );
        std::fs::write(folder.path().join("providers.yaml"), config).unwrap();
        let output = run(folder.path(), &["check"], &[("ID", "abc")]);
        (output.status.code(), format!("{}{}", text(&output.stdout), text(&output.stderr)))
    };
    let lines = |file: &str| {
        format!(
            "      grant_type: client_credentials\n      client_assertion: {{key_file: '{file}'}}\n"
        )
    };
    let good = write("p256.pem");
    let (code, said) = check(&lines(&good));
    assert_eq!(code, Some(0), "{said}");
    let line = format!(
        "P: the client's own id and an assertion signed with the key in {good} (ES256) (client_credentials)"
    );
    assert!(said.contains(&line), "{said}");
    assert!(said.contains("has mode 640, so group or others can read it; chmod 600 it"), "{said}");
    let (code, said) = check(&lines(&write("encrypted.pem")));
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains("providers.yaml:10:36: '"), "{said}");
    assert!(said.contains("its key is encrypted with a passphrase"), "{said}");
    let (code, said) = check(&lines(&folder.path().join("none.pem").display().to_string()));
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains("P: Missing secret file: '"), "{said}");
    assert!(said.contains("none.pem (client_credentials)"), "{said}");
    let der = folder.path().join("key.der");
    std::fs::write(&der, b"\x30\x82\x04\xbe\x02\x01\x00\x30\x0d\x06").unwrap();
    let (code, said) = check(&lines(&der.display().to_string()));
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains("'openssl pkey -inform DER' converts a key"), "{said}");
}

#[test]
fn check_said_nothing_of_a_token_that_no_issuer_takes() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    let check = |content: &str, lines: &str| {
        std::fs::write(&file, content).unwrap();
        let file = file.display();
        let config = format!(
            "settings: {{state_dir: state}}\nproviders:\n  - name: P\n    type: generic\n    base_url: https://p.test\n    \
             auto_refresh_config:\n      token_url: https://i.test/t\n{}",
            lines.replace("FILE", &format!("'{file}'"))
        );
        std::fs::write(folder.path().join("providers.yaml"), config).unwrap();
        let output = run(folder.path(), &["check"], &[("ID", "abc")]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        text(&output.stderr)
    };
    let exchange = "      grant_type: token_exchange\n      subject_token_file: FILE\n";
    let client = "      grant_type: client_credentials\n      client_id_env: ID\n      client_assertion: {token_file: FILE}\n";
    let jwt = |end: u64| {
        let claims = BASE64_URL_SAFE_NO_PAD.encode(json!({"exp": end}).to_string());
        format!("eyJhbGciOiJub25lIn0.{claims}.c2ln")
    };
    let (ended, good) = (jwt(1_000_000_000), jwt(9_000_000_000));
    for (lines, place) in [(exchange, "9:27"), (client, "10:38")] {
        let told = check(&ended, lines);
        assert!(told.contains(&format!("{place}: warning: '")), "{told}");
        assert!(told.contains("holds a token that ended at 2001-09-09T01:46:40"), "{told}");
        for more in [
            format!("{good}\n{good}\n"),
            format!("Bearer {good}"),
            json!({"value": good}).to_string(),
            format!("'{good}'"),
        ] {
            let told = check(&more, lines);
            assert!(told.contains("holds more than a token alone"), "{more}: {told}");
            assert!(!told.contains(&good), "{told}");
        }
        let told = check(&format!("{good}\n"), lines);
        assert!(!told.contains("holds a token") && !told.contains("more than a token"), "{told}");
    }
}

#[test]
fn no_output_holds_a_key_an_assertion_or_a_subject_token_at_trace_level() {
    let issuer = Peer::answering(|seen| {
        // An answer that quotes what it was sent.
        let quoted = param(seen, "assertion").or_else(|| param(seen, "subject_token")).unwrap();
        answer(400, &serde_json::json!({"error": format!("{quoted} is no good"), "error_description": quoted}).to_string())
    });
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("key.pem"), key("rsa.pem")).unwrap();
    std::fs::write(folder.path().join("chain.pem"), key("rsa-cert.pem")).unwrap();
    std::fs::write(folder.path().join("ready"), "ready-assertion-5e5e").unwrap();
    let config = format!(
        "settings: {{port: 0, state_dir: state}}
providers:
  - {{name: A, type: generic, base_url: 'http://127.0.0.1:9', auto_refresh_config: {{token_url: '{0}', \
         grant_type: jwt_bearer, assertion: {{key_file: key.pem, claims: {{iss: me}}}}}}}}
  - {{name: B, type: generic, base_url: 'http://127.0.0.1:9', auto_refresh_config: {{token_url: '{0}', \
         grant_type: jwt_bearer, assertion: {{token_file: ready}}}}}}
  - {{name: C, type: generic, base_url: 'http://127.0.0.1:9', auto_refresh_config: {{token_url: '{0}', \
         grant_type: token_exchange, subject_token_env: SUBJECT}}}}
  - {{name: D, type: generic, base_url: 'http://127.0.0.1:9', client_cert: true, auto_refresh_config: {{token_url: '{0}', \
         grant_type: token_exchange, subject_token_env: SUBJECT, client_id_env: SUBJECT, client_cert_file: chain.pem, \
         client_key_file: key.pem}}}}
",
        issuer.url()
    );
    std::fs::write(folder.path().join("providers.yaml"), config).unwrap();
    let variables = [("RUST_LOG", "trace"), ("SUBJECT", "subject-token-7c7c")];
    let mut binary = Binary::start(folder.path(), &["run"], &variables);
    let address = binary.address();
    eventually("all were refused", || {
        let refused =
            binary.lines().iter().filter(|line| line.contains("Failed to refresh")).count();
        refused >= 4
    });
    let pages =
        ["/-/", "/-/status", "/-/metrics", "/to/a/x"].map(|page| ask(address, get(page)).body);
    binary.signal(rustix::process::Signal::TERM);
    assert_eq!(binary.code(), Some(0));
    let sent =
        issuer.seen().iter().find_map(|seen| param(seen, "assertion").filter(|jwt| jwt.len() > 99));
    let pem = key("rsa.pem");
    let signature = sent.unwrap().rsplit_once('.').unwrap().1.to_owned();
    let secrets = [
        signature.as_str(),
        "ready-assertion-5e5e",
        "subject-token-7c7c",
        pem.lines().nth(2).unwrap(),
    ];
    for output in binary.lines().iter().chain(&pages) {
        for secret in secrets {
            assert!(!output.contains(secret), "{secret} in {output}");
        }
    }
}
