//! The provider for a request depends on the request's API, not on the order of the file.

use crate::support::client::{Answer, Client, get, post};
use crate::support::peer::{Peer, answer};
use crate::support::proxy::{Builder, TestProxy};

/// A provider that answers with its name and the request line that arrived.
fn echo(name: &'static str) -> Peer {
    Peer::answering(move |seen| answer(200, &format!("{name}: {}", seen.line)))
}

/// A proxy for an Anthropic and an `OpenAI` provider, in this order.
fn two(anthropic: &Peer, openai: &Peer) -> Builder {
    TestProxy::builder().provider("A", "anthropic", &anthropic.url(), "auth_value: key-a").provider(
        "O",
        "openai",
        &openai.url(),
        "auth_value: key-o",
    )
}

fn request(method: &str, target: &str, fields: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n{fields}Content-Length: 0\r\n\r\n")
}

#[track_caller]
fn is_refused(answer: &Answer, code: &str) {
    assert_eq!((answer.status, answer.code()), (404, code), "{}", answer.body);
}

#[test]
fn a_file_upload_for_openai_was_stored_at_the_first_provider_of_the_file() {
    let (anthropic, openai) = (echo("A"), echo("O"));
    let proxy = two(&anthropic, &openai).settings("replay_body_bytes: 1000").start();
    let upload = "x".repeat(100_000);
    assert_eq!(proxy.ask(post("/v1/files", &upload)).body, "O: POST /v1/files HTTP/1.1");
    assert_eq!(openai.seen()[0].body, upload.as_bytes());
    for path in ["/v1/uploads/u1/parts", "/v1/batches", "/v1/audio/speech", "/v1/images/edits"] {
        assert!(proxy.ask(post(path, "{}")).body.starts_with("O: "), "{path}");
    }
    assert!(anthropic.seen().is_empty(), "{:?}", anthropic.seen());
}

#[test]
fn headers_tell_the_api_where_both_have_the_path() {
    let (anthropic, openai) = (echo("A"), echo("O"));
    let proxy = TestProxy::builder()
        .provider("O", "openai", &openai.url(), "auth_type: none")
        .provider("A", "anthropic", &anthropic.url(), "auth_type: none")
        .start();
    let with = |target: &str, fields: &str| proxy.ask(request("GET", target, fields)).body;
    for field in ["anthropic-version: 2023-06-01\r\n", "Anthropic-Beta: files-api-2025-04-14\r\n"] {
        assert_eq!(with("/v1/models", field), "A: GET /v1/models HTTP/1.1");
        assert_eq!(with("/v1/files/f1?a=b", field), "A: GET /v1/files/f1?a=b HTTP/1.1");
    }
    assert_eq!(with("/v1/models/gpt-5", ""), "O: GET /v1/models/gpt-5 HTTP/1.1");
    assert_eq!(with("/v1/messages/batches/b1", ""), "A: GET /v1/messages/batches/b1 HTTP/1.1");
    for method in ["HEAD", "OPTIONS", "DELETE"] {
        let mut client = Client::connect(proxy.address);
        client.send(request(method, "/v1/files/f2", ""));
        assert_eq!(client.head().status, 200, "{method}");
    }
    assert_eq!(openai.seen().len(), 4, "whatever the method");
}

#[test]
fn discovery_and_registration_of_an_mcp_client_went_to_a_provider_with_its_token() {
    let (anthropic, openai) = (echo("A"), echo("O"));
    let proxy = two(&anthropic, &openai).start();
    // Requests of MCP's Python and TypeScript clients and of Claude Code after a 401.
    for (method, target) in [
        ("GET", "/.well-known/oauth-protected-resource"),
        ("GET", "/.well-known/oauth-protected-resource/to/a/mcp"),
        ("GET", "/.well-known/oauth-authorization-server"),
        ("GET", "/.well-known/openid-configuration"),
        ("GET", "/to/.well-known/openid-configuration"),
        ("POST", "/register"),
        ("GET", "/authorize?response_type=code"),
        ("POST", "/token"),
        ("GET", "/favicon.ico"),
        ("GET", "/robots.txt"),
        ("GET", "/"),
        ("GET", "/?x=/v1/messages"),
        ("GET", "/v1/modelsx"),
        ("GET", "/v1/unknown"),
        ("GET", "/v1"),
        ("OPTIONS", "/"),
    ] {
        let refused = proxy.ask(request(method, target, "Accept: */*\r\n"));
        let expected = if target.starts_with("/to/") { "unknown_provider" } else { "no_provider" };
        is_refused(&refused, expected);
    }
    assert!(anthropic.seen().is_empty() && openai.seen().is_empty());
    let told = proxy.ask(get("/register")).body;
    assert!(told.contains("/to/<slug>/") && told.contains("anthropic: a; openai: o"), "{told}");
    // The base URL of an OpenAI client lacks its end: the usual reason.
    let told = proxy.ask(post("/chat/completions", "{}")).body;
    assert!(told.contains("/v1/chat/completions"), "{told}");
}

#[test]
fn nobody_gets_a_request_of_another_api_and_the_404_says_which_types_there_are() {
    let (one, two) = (echo("1"), echo("2"));
    let proxy = TestProxy::builder()
        .provider("One", "anthropic", &one.url(), "auth_type: none")
        .provider("Two", "anthropic", &two.url(), "auth_type: none")
        .provider("Off", "openai", &two.url(), "auth_type: none\nenabled: false")
        .start();
    let refused = proxy.ask(post("/v1/chat/completions", r#"{"model":"m"}"#));
    is_refused(&refused, "no_provider");
    let told = refused.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(told.contains("type openai or generic"), "{told}");
    assert!(told.contains("anthropic: one, two"), "{told}");
    assert_eq!(refused.json()["error"]["code"], "no_provider", "the shape of the path's API");
    is_refused(&proxy.ask(get("/v1beta/models")), "no_provider");
    assert!(one.seen().is_empty() && two.seen().is_empty());
}

#[test]
fn a_provider_of_another_api_is_not_tried_after_one_that_fails() {
    let (busy, openai) = (Peer::answering(|_| answer(529, "busy")), echo("O"));
    let proxy = two(&busy, &openai).start();
    let came = proxy.ask(post("/v1/messages", "{}"));
    assert_eq!((came.status, came.body.as_str()), (529, "busy"));
    assert!(openai.seen().is_empty());
}

#[test]
fn generic_providers_serve_every_api_after_those_of_its_type() {
    let (generic, openai) = (echo("G"), echo("O"));
    let proxy = TestProxy::builder()
        .provider("G", "generic", &generic.url(), "auth_type: none")
        .provider("O", "openai", &openai.url(), "auth_type: none")
        .start();
    let served = |target: &str| proxy.ask(post(target, "{}")).body[..1].to_owned();
    for target in ["/v1/responses", "/v1/moderations", "/v1/fine_tuning/jobs", "/v1/realtime/x"] {
        assert_eq!(served(target), "O", "{target}");
    }
    for target in [
        "/v1/messages",
        "/v1beta/models/gemini-pro:streamGenerateContent?alt=sse",
        "/v1/models/gemini-pro:generateContent",
        "/v1beta/models",
    ] {
        assert_eq!(served(target), "G", "{target}");
    }
}

#[test]
fn one_enabled_provider_gets_everything() {
    let (openai, off) = (echo("O"), echo("off"));
    let proxy = TestProxy::builder()
        .provider("Off", "anthropic", &off.url(), "auth_type: none\nenabled: false")
        .provider("O", "openai", &openai.url(), "auth_type: none")
        .start();
    for target in ["/", "/register", "/.well-known/x", "/v1/messages", "/v1beta/x", "/v1/models"] {
        assert_eq!(proxy.ask(get(target)).body, format!("O: GET {target} HTTP/1.1"));
    }
    assert!(off.seen().is_empty());
}

#[test]
fn a_route_for_the_model_wins_over_the_api() {
    let (anthropic, openai) = (echo("A"), echo("O"));
    let routes = "model_routes: {\"gpt*\": [{provider: A}]}\n";
    let proxy = two(&anthropic, &openai).routes(routes).start();
    let served = |target: &str, model: &str| {
        proxy.ask(post(target, &format!("{{\"model\":\"{model}\"}}"))).body[..1].to_owned()
    };
    assert_eq!(served("/v1/chat/completions", "gpt-5"), "A");
    assert_eq!(served("/v1/chat/completions", "other"), "O");
    assert_eq!(served("/own/path", "gpt-5"), "A");
    is_refused(&proxy.ask(post("/own/path", r#"{"model":"other"}"#)), "no_provider");
}

#[test]
fn encoded_doubled_and_dotted_paths_belong_to_the_api_that_their_server_will_read() {
    let (anthropic, openai) = (echo("A"), echo("O"));
    let proxy = two(&anthropic, &openai).start();
    for (target, who) in [
        ("/v1/%6Dessages", "A"),
        ("/v1//messages", "A"),
        ("//v1/messages/", "A"),
        ("/v1%2Fmessages", "A"),
        ("/v1/./messages", "A"),
        ("/v1/messages/../files", "O"),
        ("/v1/files/", "O"),
        ("/v1/files?x=/v1/messages", "O"),
    ] {
        // The bytes go on as they came.
        assert_eq!(proxy.ask(get(target)).body, format!("{who}: GET {target} HTTP/1.1"));
    }
}

#[test]
fn a_v1_at_the_end_of_the_base_url_and_one_at_the_start_of_the_path_are_one() {
    let peer = echo("P");
    for (base, target, expected) in [
        ("/v1", "/v1/chat/completions?a=b", "/v1/chat/completions?a=b"),
        ("/v1/", "/v1/messages", "/v1/messages"),
        ("/api/v1", "/v1", "/api/v1"),
        ("/v1", "/v1?x", "/v1?x"),
        ("/v1", "/v1/", "/v1/"),
        ("/v1", "/v1//v1/x", "/v1//v1/x"),
        ("/v1", "/v1/v1/x", "/v1/v1/x"),
        ("/v1", "/v1beta/x", "/v1/v1beta/x"),
        ("/v1", "/v11/x", "/v1/v11/x"),
        ("/v11", "/v1/x", "/v11/v1/x"),
        ("/av1", "/v1/x", "/av1/v1/x"),
        ("/v1/x", "/v1/x", "/v1/x/v1/x"),
        ("", "/v1/v1/x", "/v1/v1/x"),
    ] {
        let url = format!("{}{base}", peer.url());
        let proxy = TestProxy::builder().provider("P", "openai", &url, "auth_type: none").start();
        let expected = format!("P: GET {expected} HTTP/1.1");
        assert_eq!(proxy.ask(get(target)).body, expected, "{base} {target}");
        assert_eq!(proxy.ask(get(&format!("/to/p{target}"))).body, expected, "{base} {target}");
    }
}

#[test]
fn a_browser_that_opens_the_address_is_sent_to_the_page() {
    let (anthropic, openai) = (echo("A"), echo("O"));
    let accept = "Accept: text/html,application/xhtml+xml,*/*;q=0.8\r\n";
    let several = two(&anthropic, &openai).start();
    let alone = TestProxy::builder().provider("O", "openai", &openai.url(), "auth_type: none");
    for proxy in [several, alone.start()] {
        let sent = proxy.ask(request("GET", "/", accept));
        assert_eq!((sent.status, sent.field("location")), (302, Some("/-/")), "{}", sent.body);
        // A page of another origin can lead nobody here.
        let foreign = format!("{accept}Sec-Fetch-Site: cross-site\r\n");
        assert_eq!(proxy.ask(request("GET", "/", &foreign)).code(), "forbidden_origin");
        let status = |method: &str, target: &str, fields: &str| {
            proxy.ask(request(method, target, fields)).status
        };
        for other in [
            status("POST", "/", accept),
            status("GET", "/x", accept),
            status("GET", "/", "Accept: */*\r\n"),
        ] {
            assert_ne!(other, 302);
        }
    }
    let with_key = two(&anthropic, &openai).settings("auth: {enabled: true, api_key: k}").start();
    let asked = with_key.ask(request("GET", "/", accept));
    assert_eq!(asked.status, 401);
    assert!(asked.field("www-authenticate").unwrap().starts_with("Basic"), "a person is asked");
}

#[test]
fn a_redirect_to_the_root_of_a_web_site_led_a_browser_to_the_page_of_the_proxy() {
    let site = Peer::answering(|seen| match seen.line.split(' ').nth(1) {
        Some("/login") => "HTTP/1.1 303 X\r\nlocation: /\r\ncontent-length: 0\r\n\r\n".to_owned(),
        _ => answer(200, "the site"),
    });
    let proxy =
        TestProxy::builder().provider("Site", "generic", &site.url(), "auth_type: none").start();
    let accept = "Accept: text/html\r\n";
    let sent = proxy.ask(request("POST", "/login", accept));
    let location = sent.field("location").expect("a redirect").to_owned();
    assert_eq!(proxy.ask(request("GET", &location, accept)).body, "the site");
}

#[test]
fn refusals_for_disabled_and_unknown_providers_have_the_shape_of_their_api() {
    let peer = echo("P");
    let proxy = TestProxy::builder()
        .provider("One", "generic", &peer.url(), "auth_type: none")
        .provider("Off A", "anthropic", &peer.url(), "auth_type: none\nenabled: false")
        .provider("Off O", "openai", &peer.url(), "auth_type: none\nenabled: false")
        .start();
    let is_anthropic = |target: &str, fields: &str| {
        let refused = proxy.ask(request("POST", target, fields));
        is_refused(&refused, "unknown_provider");
        let body = refused.json();
        assert!(body["error"]["message"].is_string());
        assert_eq!(body["type"] == "error", body["error"]["code"].is_null(), "{body}");
        body["type"] == "error"
    };
    let version = "anthropic-version: 2023-06-01\r\n";
    assert!(is_anthropic("/to/off-a/v1/chat/completions", ""));
    assert!(!is_anthropic("/to/off-o/v1/messages", version));
    assert!(is_anthropic("/to/none/v1/messages?x", ""));
    assert!(is_anthropic("/to/none/x", version));
    assert!(!is_anthropic("/to/none/v1/chat/completions", ""));
    assert!(!is_anthropic("/to/none", ""));
    let told = proxy.ask(get("/to/off-a/x")).body;
    assert!(told.contains("Off A is disabled"), "{told}");
    let told = proxy.ask(get("/to/none/x")).body;
    assert!(told.contains("there are: one"), "{told}");
}

#[test]
fn a_doubled_v1_says_where_the_second_one_comes_from() {
    let (anthropic, openai) = (echo("A"), echo("O"));
    let proxy = two(&anthropic, &openai).start();
    for (target, meant) in [
        ("/v1/v1/messages?beta=true", "/v1/messages"),
        ("/v1/v1/chat/completions", "/v1/chat/completions"),
        ("/v1/v1beta/files/f1", "/v1beta/files/f1"),
    ] {
        let refused = proxy.ask(post(target, "{}"));
        is_refused(&refused, "no_provider");
        let hint = format!(
            "Is {meant} meant? The base URL of the client ends with /v1; leave it out there"
        );
        assert!(refused.body.contains(&hint), "{}", refused.body);
    }
    let other = proxy.ask(post("/v1/v1/x", "{}"));
    assert!(!other.body.contains("meant?"), "{}", other.body);
}
