//! Credentials on their way: the provider's goes where it is configured, the client's stays here, with claims of the
//! token and configured parameters beside them.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use crate::support::binary::{Binary, run, text};
use crate::support::client::{ask, get};
use crate::support::peer::{Peer, Seen, answer};
use crate::support::proxy::TestProxy;

fn fine() -> Peer {
    Peer::answering(|_| answer(200, "fine"))
}

/// Everything that a request holds, as text.
fn whole(seen: &Seen) -> String {
    format!("{}\n{:?}\n{}", seen.line, seen.fields, String::from_utf8_lossy(&seen.body))
}

fn jwt(claims: &str) -> String {
    format!("e30.{}.sig", BASE64_URL_SAFE_NO_PAD.encode(claims))
}

#[test]
fn an_inbound_key_went_upstream_from_where_gemini_and_azure_clients_put_it() {
    const KEY: &str = "inbound-key-4b4b";
    let peer = fine();
    let proxy = TestProxy::builder()
        .settings("auth: {enabled: true, api_key: inbound-key-4b4b}")
        .provider("Token", "generic", &peer.url(), "auth_value: tok")
        .provider("Own", "generic", &peer.url(), "auth_value: passthrough")
        .provider("None", "generic", &peer.url(), "auth_type: none")
        .start();
    let basic = base64::prelude::BASE64_STANDARD.encode(format!("u:{KEY}"));
    let requests = [
        ("/x".to_owned(), format!("x-goog-api-key: {KEY}")),
        ("/x".to_owned(), format!("api-key: {KEY}")),
        ("/x".to_owned(), format!("X-Api-Key: {KEY}")),
        ("/x".to_owned(), format!("Authorization: bearer {KEY}")),
        (format!("/x?key={KEY}"), "X-A: 1".to_owned()),
        (format!("/x?a=b&key={KEY}&c"), "X-A: 1".to_owned()),
        ("/x?key=inbound%2Dkey-4b4b".to_owned(), "X-A: 1".to_owned()),
        // One that lets it in, and the same in other places.
        ("/x".to_owned(), format!("x-api-key: {KEY}\r\nCookie: a=1; k={KEY}\r\nCookie: b={KEY}")),
        ("/x".to_owned(), format!("x-api-key: {KEY}\r\nAuthorization: Basic {basic}")),
        ("/x".to_owned(), format!("x-api-key: {KEY}\r\nProxy-Authorization: Bearer {KEY}")),
        ("/x".to_owned(), format!("x-api-key: {KEY}\r\nX-Token: token {KEY}")),
        ("/x".to_owned(), format!("x-api-key: {KEY}\r\nReferer: http://h/?key={KEY}")),
        (format!("/x?a=Bearer%20{KEY}&%69nbound-key-4b4b"), format!("x-api-key: {KEY}")),
    ];
    for (target, fields) in &requests {
        for slug in ["token", "own", "none"] {
            let request =
                format!("GET /to/{slug}{target} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n\r\n");
            assert_eq!(proxy.ask(&request).status, 200, "{request}");
        }
    }
    let seen = peer.seen();
    assert_eq!(seen.len(), requests.len() * 3);
    for request in &seen {
        let whole = whole(request);
        assert!(!whole.contains("4b4b") && !whole.contains(&basic), "{whole}");
    }
    // Requests without the key are forwarded.
    assert_eq!(seen[15].line, "GET /x?a=b&c HTTP/1.1");
    assert_eq!(seen[21].field("cookie"), Some("a=1"));
    for wrong in ["/to/token/x", "/to/token/x?key=inbound-key", "/to/token/x?k=inbound-key-4b4b"] {
        assert_eq!(proxy.ask(get(wrong)).code(), "unauthorized", "{wrong}");
    }
}

#[test]
fn the_clients_own_credentials_stay_here_whatever_the_field() {
    let peer = fine();
    let proxy = TestProxy::builder()
        .provider("Gemini", "generic", &peer.url(), "auth_value: tok\nauth_header: x-goog-api-key")
        .provider("Bearer", "generic", &peer.url(), "auth_value: tok")
        .provider("Own", "generic", &peer.url(), "auth_value: passthrough")
        .start();
    let ask = |slug: &str| {
        let fields = "x-goog-api-key: none\r\nAuthorization: Bearer mine\r\napi-key: mine\r\nx-api-key: mine";
        proxy.ask(format!(
            "POST /to/{slug}/v1beta/models/m:streamGenerateContent?alt=sse&key=mine HTTP/1.1\r\n\
             Host: localhost\r\n{fields}\r\nContent-Length: 0\r\n\r\n"
        ));
        peer.seen().pop().unwrap()
    };
    let gemini = ask("gemini");
    assert_eq!(gemini.line, "POST /v1beta/models/m:streamGenerateContent?alt=sse HTTP/1.1");
    assert_eq!(gemini.field("x-goog-api-key"), Some("tok"));
    assert!(!whole(&gemini).contains("mine"), "{}", whole(&gemini));
    let bearer = ask("bearer");
    assert_eq!(bearer.field("authorization"), Some("Bearer tok"));
    assert_eq!((bearer.field("x-goog-api-key"), bearer.field("api-key")), (None, None));
    let own = ask("own");
    assert!(own.line.contains("key=mine"), "{}", own.line);
    let fields = ["x-goog-api-key", "authorization", "api-key", "x-api-key"];
    assert_eq!(
        fields.map(|name| own.field(name)),
        [Some("none"), Some("Bearer mine"), Some("mine"), Some("mine")]
    );
}

#[test]
fn the_query_and_the_header_of_azure_are_put_in() {
    let peer = fine();
    let proxy = TestProxy::builder()
        .provider(
            "Azure",
            "openai",
            &format!("{}/openai", peer.url()),
            "auth_value: tok\nauth_type: api_key\nauth_header: api-key\nquery: {api-version: '2024-10-21'}\n\
             headers: {user-agent: ~, x-more: a}",
        )
        .start();
    let target = "/to/azure/deployments/gpt/chat/completions";
    for query in ["", "?api-version=2023-05-15", "?api-version=2024-10-21"] {
        let request = format!(
            "POST {target}{query} HTTP/1.1\r\nHost: localhost\r\napi-key: client\r\nUser-Agent: me\r\n\
             Content-Length: 0\r\n\r\n"
        );
        assert_eq!(proxy.ask(request).status, 200);
    }
    for seen in peer.seen() {
        let target = "/openai/deployments/gpt/chat/completions?api-version=2024-10-21";
        assert_eq!(seen.line, format!("POST {target} HTTP/1.1"));
        assert_eq!((seen.field("api-key"), seen.field("authorization")), (Some("tok"), None));
        assert_eq!((seen.field("user-agent"), seen.field("x-more")), (None, Some("a")));
    }
}

/// A Codex account whose token has the claims of a real one.
fn codex(provider: &str, issuer: &str) -> String {
    format!(
        "settings: {{port: 0, state_dir: state}}
providers:
  - name: Codex
    type: openai
    base_url: '{provider}'
    headers:
      ChatGPT-Account-ID: '{{token.claims.https://api.openai.com/auth.chatgpt_account_id}}'
      X-Plan: 'plan {{token.claims.plan}}'
    auto_refresh_config: {{token_url: '{issuer}', client_id_env: ID, refresh_token_env: SEED}}
"
    )
}

#[test]
fn claims_of_the_token_go_into_headers_and_a_missing_one_is_said_once() {
    let provider = fine();
    let token =
        jwt(r#"{"https://api.openai.com/auth":{"chatgpt_account_id":"acc-1"},"exp":4000000000}"#);
    let granted = format!(r#"{{"access_token":"{token}","expires_in":3600,"refresh_token":"r"}}"#);
    let issuer = Peer::answering(move |_| answer(200, &granted));
    let folder = tempfile::tempdir().unwrap();
    let config = codex(&provider.url(), &issuer.url());
    std::fs::write(folder.path().join("providers.yaml"), config).unwrap();
    let variables = [("ID", "client"), ("SEED", "seed")];
    let mut binary = Binary::start(folder.path(), &[], &variables);
    let address = binary.address();
    binary.wait_for("Successfully refreshed");
    for _ in 0..2 {
        let request = "GET /v1/x HTTP/1.1\r\nHost: localhost\r\nChatGPT-Account-Id: other\r\nX-Plan: free\r\n\r\n";
        assert_eq!(ask(address, request).status, 200);
    }
    for seen in provider.seen() {
        assert_eq!(seen.fields.iter().filter(|(name, _)| name == "chatgpt-account-id").count(), 1);
        assert_eq!((seen.field("chatgpt-account-id"), seen.field("x-plan")), (Some("acc-1"), None));
    }
    binary.signal(rustix::process::Signal::TERM);
    assert_eq!(binary.code(), Some(0));
    let why = "Codex: the header 'X-Plan' is left out: the access token has no claim 'plan'";
    let lines = binary.lines();
    let said: Vec<_> = lines.iter().filter(|line| line.contains("left out")).collect();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains(why), "{said:?}");
    let check = run(folder.path(), &["check"], &variables);
    let said = text(&check.stderr) + &text(&check.stdout);
    assert!(said.contains(why) && !said.contains("acc-1"), "{said}");
    assert_eq!(check.status.code(), Some(0), "{said}");
}
