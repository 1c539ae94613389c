//! `token_request` from outside: endpoints that are no OAuth, and the token of one provider in another one's requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::binary::{run, text};
use crate::support::client::{get, post};
use crate::support::eventually;
use crate::support::peer::{Peer, answer};
use crate::support::proxy::{Builder, TestProxy};

/// A provider whose token comes from `endpoint` by a request with these keys.
fn described(builder: Builder, url: &str, endpoint: &str, request: &str) -> Builder {
    let lines =
        format!("auto_refresh_config:\n  token_url: '{endpoint}'\n  token_request: {request}\n");
    builder.provider("P", "generic", url, &lines)
}

/// GitHub Copilot's exchange, as its clients make it.
#[test]
fn a_get_with_a_token_of_another_scheme_brings_one_with_an_end_and_a_time_to_refresh() {
    let provider = Peer::telling_the_credential();
    let endpoint = Peer::answering(|_| {
        answer(
            200,
            r#"{"annotations_enabled":true,"endpoints":{"api":"https://api.individual.githubcopilot.com"},
            "expires_at":4000000000,"refresh_in":1500,"sku":"copilot_individual","token":"tid=1;exp=2:sig"}"#,
        )
    });
    let builder = TestProxy::builder().variable("GITHUB", "gho_abc");
    let url = format!("{}/copilot_internal/v2/token", endpoint.url());
    let request = "{bearer_env: GITHUB, auth_prefix: 'token ', headers: {editor-version: vscode/1.96.0, user-agent: GithubCopilot/1.155.0}}";
    let proxy = described(builder, &provider.url(), &url, request).start();
    assert_eq!(proxy.ask(get("/x")).body, "Bearer tid=1;exp=2:sig");
    let seen = &endpoint.seen()[0];
    assert_eq!(seen.line, "GET /copilot_internal/v2/token HTTP/1.1");
    for (name, value) in [
        ("authorization", "token gho_abc"),
        ("editor-version", "vscode/1.96.0"),
        ("user-agent", "GithubCopilot/1.155.0"),
    ] {
        assert_eq!(seen.field(name), Some(value));
    }
    assert!(seen.body.is_empty() && seen.field("content-type").is_none());
    let token = &proxy.ask(get("/-/status")).json()["providers"][0]["token"];
    let at = |key: &str| evertoken::testing::Timestamp::parse_rfc3339(token[key].as_str().unwrap());
    let due_in_ms = at("refresh_due_at").unwrap().millis_since(at("obtained_at").unwrap());
    assert_eq!(due_in_ms, 1_500_000);
}

/// The metadata servers of Azure and Google; a loopback address stands for theirs.
#[test]
fn a_metadata_server_is_asked_by_its_query_and_header() {
    let provider = Peer::telling_the_credential();
    let endpoint = Peer::answering(|seen| match seen.field("metadata") {
        Some("true") => answer(
            200,
            r#"{"access_token":"of-azure","refresh_token":"","expires_in":"3599","expires_on":"4000000000","token_type":"Bearer"}"#,
        ),
        _ => answer(400, r#"{"error":"invalid_request"}"#),
    });
    let url = format!("{}/metadata/identity/oauth2/token?api-version=2018-02-01", endpoint.url());
    let request = "{headers: {metadata: 'true'}}\n  extra_params: {resource: 'https://m/'}";
    let proxy = described(TestProxy::builder(), &provider.url(), &url, request).start();
    assert_eq!(proxy.ask(get("/x")).body, "Bearer of-azure");
    assert_eq!(
        endpoint.seen()[0].line,
        "GET /metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fm%2F HTTP/1.1"
    );
}

#[test]
fn its_token_is_stored_and_used_after_a_restart_unless_the_credential_has_changed() {
    let provider = Peer::telling_the_credential();
    let endpoint = Peer::answering(|seen| {
        let who = seen.field("authorization").unwrap().replace("Bearer ", "for-");
        answer(200, &format!(r#"{{"token":"{who}","expires_in":3600}}"#))
    });
    let with = |credential: &str| {
        let builder = TestProxy::builder().variable("CREDENTIAL", credential);
        described(
            builder,
            &provider.url(),
            &endpoint.url(),
            "{method: POST, bearer_env: CREDENTIAL}",
        )
    };
    let proxy = with("one").start();
    assert_eq!(proxy.ask(get("/x")).body, "Bearer for-one");
    let proxy = with("one").folder(proxy.into_folder()).start();
    assert_eq!(proxy.ask(get("/x")).body, "Bearer for-one");
    assert_eq!(endpoint.seen().len(), 1, "the stored token is used");
    let proxy = with("two").folder(proxy.into_folder()).start();
    assert_eq!(proxy.ask(get("/x")).body, "Bearer for-two", "another account's is not");
}

#[test]
fn a_credential_in_a_file_is_read_at_each_use() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("credential");
    std::fs::write(&file, "one\n").unwrap();
    let provider = Peer::telling_the_credential();
    let endpoint = Peer::answering(|seen| {
        let who = seen.field("x-vault-token").unwrap();
        answer(200, &format!(r#"{{"access_token":"for-{who}","expires_in":3600}}"#))
    });
    let request = format!("{{bearer_file: '{}', auth_header: X-Vault-Token}}", file.display());
    let proxy = described(TestProxy::builder(), &provider.url(), &endpoint.url(), &request).start();
    assert_eq!(proxy.ask(get("/x")).body, "Bearer for-one");
    std::fs::write(&file, "two\n").unwrap();
    assert_eq!(proxy.ask(post("/-/refresh/p", "")).status, 200);
    assert_eq!(proxy.ask(get("/x")).body, "Bearer for-two");
}

/// An endpoint that gives a token for a token.
fn exchanging() -> Peer {
    Peer::answering(|seen| match seen.field("authorization") {
        Some(credential) => {
            let who = credential.replace("Bearer ", "for-");
            answer(200, &format!(r#"{{"token":"{who}","expires_in":3600}}"#))
        }
        None => answer(401, "{}"),
    })
}

#[test]
fn the_token_of_another_provider_is_waited_for_and_followed() {
    let (release, released) = crossbeam_channel::bounded::<()>(0);
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let issuer = Peer::answering(move |_| {
        // Until the other end is dropped.
        let _ = released.recv();
        let number = counted.fetch_add(1, Ordering::SeqCst) + 1;
        answer(
            200,
            &format!(
                r#"{{"access_token":"a{number}","expires_in":3600,"refresh_token":"r{number}"}}"#
            ),
        )
    });
    let (provider, endpoint) = (Peer::telling_the_credential(), exchanging());
    let both = |more: &str| {
        let first = described(
            TestProxy::builder(),
            &provider.url(),
            &endpoint.url(),
            "{bearer_provider: source}",
        );
        first.refreshed("Source", &provider.url(), &issuer.url(), more)
    };
    let proxy = both("").start();
    eventually("the first token is asked for", || issuer.seen().len() == 1);
    assert_eq!(endpoint.seen().len(), 0, "there is nothing to ask with yet");
    drop(release);
    assert_eq!(proxy.ask(get("/to/p/x")).body, "Bearer for-a1");
    assert_eq!(proxy.ask(post("/-/refresh/source", "")).status, 200);
    assert_eq!(proxy.ask(post("/-/refresh/p", "")).status, 200);
    assert_eq!(proxy.ask(get("/to/p/x")).body, "Bearer for-a2");
    // A reload that changes the other one changes the place where its token is looked for.
    assert_eq!(proxy.reload(&both("scope: more")).status, 200);
    eventually("the new token is there", || proxy.ask(get("/to/source/x")).body == "Bearer a3");
    assert_eq!(proxy.ask(post("/-/refresh/p", "")).status, 200);
    assert_eq!(proxy.ask(get("/to/p/x")).body, "Bearer for-a3");
    // So does one that gives it another kind of credential.
    let fixed = described(
        TestProxy::builder(),
        &provider.url(),
        &endpoint.url(),
        "{bearer_provider: source}",
    );
    let fixed = fixed.provider("Source", "anthropic", &provider.url(), "auth_value: fixed");
    assert_eq!(proxy.reload(&fixed).status, 200);
    assert_eq!(proxy.ask(post("/-/refresh/p", "")).status, 200);
    assert_eq!(proxy.ask(get("/to/p/x")).body, "Bearer for-fixed");
}

#[test]
fn without_the_token_of_the_other_provider_nothing_is_sent_and_the_reason_is_its() {
    let issuer = Peer::answering(|_| answer(400, r#"{"error":"invalid_grant"}"#));
    let (provider, endpoint) = (Peer::telling_the_credential(), exchanging());
    let first = described(
        TestProxy::builder(),
        &provider.url(),
        &endpoint.url(),
        "{bearer_provider: Source}",
    );
    let proxy = first.refreshed("Source", &provider.url(), &issuer.url(), "").start();
    let told = "provider Source, whose token the request needs, has none: Failed to refresh token: 400 Bad Request (invalid_grant)";
    eventually("it says why", || proxy.ask(get("/-/ready")).body.contains(told));
    assert_eq!(endpoint.seen().len(), 0);
    let trouble = &proxy.ask(get("/-/status")).json()["providers"][0]["refresh"]["trouble"];
    assert_eq!(trouble, "no_bearer");
}

#[test]
fn a_refresh_by_hand_gets_the_other_providers_token_first() {
    let endpoint = exchanging();
    let folder = tempfile::tempdir().unwrap();
    let config = format!(
        "settings: {{state_dir: state}}\nproviders:\n  - {{name: P, type: generic, base_url: 'http://127.0.0.1:9', auto_refresh_config: \
         {{token_url: '{}', token_request: {{bearer_provider: tool}}}}}}\n  - {{name: Tool, type: generic, base_url: 'http://127.0.0.1:9', \
         auto_refresh_config: {{token_command: [printf, t0ken]}}}}\n",
        endpoint.url()
    );
    std::fs::write(folder.path().join("providers.yaml"), config).unwrap();
    let path = [("PATH", "/usr/bin:/bin")];
    let checked = run(folder.path(), &["check"], &path);
    let told = text(&checked.stdout) + &text(&checked.stderr);
    assert_eq!(checked.status.code(), Some(0), "{told}");
    assert!(
        told.contains("P: a request with the token of provider tool (token_request)"),
        "{told}"
    );
    assert_eq!(endpoint.seen().len(), 0);
    let refreshed = run(folder.path(), &["refresh", "--provider", "p"], &path);
    let told = text(&refreshed.stderr);
    assert_eq!(refreshed.status.code(), Some(0), "{told}");
    assert!(told.contains("using token_request: http://127.0.0.1:"), "{told}");
    assert_eq!(endpoint.seen()[0].field("authorization"), Some("Bearer t0ken"));
    let token = run(folder.path(), &["token", "--provider", "p"], &path);
    assert_eq!(text(&token.stdout).trim_end(), "for-t0ken", "{}", text(&token.stderr));
    assert_eq!(endpoint.seen().len(), 1, "the stored one is good");
}

/// The three endpoints of the sandbox, with the keys that docs/tokens.md has for the real ones.
#[test]
fn the_endpoints_of_the_page_are_asked_as_they_want_and_their_tokens_are_accepted() {
    let sandbox = sandbox::Sandbox::start(sandbox::Options::default()).unwrap();
    let page = include_str!("../../docs/tokens.md");
    let blocks = page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let entries = blocks.flat_map(|block| block.split("  - name: ").skip(1));
    let mut count = 0;
    for entry in entries.filter(|entry| entry.contains("token_request:")) {
        let lines = entry.lines().skip_while(|line| !line.contains("auto_refresh_config:"));
        let lines: Vec<&str> =
            lines.map(|line| line.strip_prefix("    ").unwrap_or(line)).collect();
        let url = lines.iter().find_map(|line| line.trim().strip_prefix("token_url: ")).unwrap();
        let url = url.trim_matches('"');
        let path = url.split_once("://").unwrap().1.split_once('/').unwrap().1;
        let lines = lines.join("\n").replace(url, &format!("{}/{path}", sandbox.url()));
        let lines =
            lines.replace("bearer_file: \"/etc/evertoken/github_token\"", "bearer_env: GITHUB");
        let proxy = TestProxy::builder()
            .variable("GITHUB", &sandbox.login())
            .provider("P", "anthropic", &sandbox.url(), &lines)
            .start();
        let answered = proxy.ask(post(
            "/v1/messages",
            r#"{"model":"m","messages":[{"role":"user","content":"a"}]}"#,
        ));
        assert_eq!(answered.status, 200, "{lines}\n{}", answered.body);
        count += 1;
    }
    assert_eq!(count, 3);
    assert_eq!((sandbox.counts().granted, sandbox.counts().refused), (3, 0));
}
