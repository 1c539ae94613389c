//! Web pages that may call (`settings.allowed_origins`): preflights without a key, and answers that they can read.

use crate::support::client::Answer;
use crate::support::peer::{Peer, answer};
use crate::support::proxy::{Builder, TestProxy};

const PAGE: &str = "http://localhost:3000";

fn listing(settings: &str, url: &str) -> Builder {
    TestProxy::builder()
        .settings(&format!("allowed_origins: [\"{PAGE}\", \"https://app.example\"]{settings}"))
        .provider("P", "anthropic", url, "auth_value: fixed")
}

fn preflight(proxy: &TestProxy, origin: &str, more: &str) -> Answer {
    proxy.ask(format!(
        "OPTIONS /to/p/v1/messages HTTP/1.1\r\nHost: localhost\r\nOrigin: {origin}\r\nSec-Fetch-Site: cross-site\r\n\
         Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: content-type,x-api-key\r\n{more}\r\n"
    ))
}

fn from(proxy: &TestProxy, origin: &str, target: &str, more: &str) -> Answer {
    proxy.ask(format!(
        "POST {target} HTTP/1.1\r\nHost: localhost\r\nOrigin: {origin}\r\nSec-Fetch-Site: cross-site\r\n{more}\
         Content-Length: 0\r\n\r\n"
    ))
}

#[track_caller]
fn is_shared(answer: &Answer, origin: &str) {
    let allowed: Vec<_> =
        answer.fields.iter().filter(|(name, _)| name == "access-control-allow-origin").collect();
    assert_eq!(allowed.len(), 1, "{:?}", answer.fields);
    assert_eq!(allowed[0].1, origin);
    let varies =
        answer.fields.iter().any(|(name, value)| name == "vary" && value.contains("Origin"));
    assert!(varies, "{:?}", answer.fields);
}

#[test]
fn a_listed_page_gets_its_preflight_without_a_key_and_others_do_not() {
    let peer = Peer::answering(|_| answer(200, "fine"));
    for auth in ["", ", auth: {enabled: true, api_key: k}"] {
        let proxy = listing(auth, &peer.url()).start();
        let fine = preflight(&proxy, PAGE, "Access-Control-Request-Private-Network: true\r\n");
        assert_eq!((fine.status, fine.body.as_str()), (204, ""));
        is_shared(&fine, PAGE);
        assert_eq!(fine.field("access-control-allow-methods"), Some("POST"));
        assert_eq!(fine.field("access-control-allow-headers"), Some("content-type,x-api-key"));
        assert_eq!(fine.field("access-control-allow-private-network"), Some("true"));
        assert_eq!(
            (fine.field("content-length"), fine.field("access-control-allow-credentials")),
            (None, None)
        );
        for other in
            ["http://localhost:3001", "null", "http://localhost:3000/", "https://x.app.example"]
        {
            let refused = preflight(&proxy, other, "");
            let expected = if auth.is_empty() { "forbidden_origin" } else { "unauthorized" };
            assert_eq!(refused.code(), expected, "{other}");
            assert_eq!(refused.field("access-control-allow-origin"), None);
        }
        // A name that was made to resolve to us is refused all the same.
        let rebound = "OPTIONS / HTTP/1.1\r\nHost: evil.example\r\nOrigin: http://localhost:3000\r\n\
                       Access-Control-Request-Method: POST\r\n\r\n";
        assert_eq!(proxy.ask(rebound).status, if auth.is_empty() { 403 } else { 204 });
    }
    assert!(peer.seen().is_empty());
}

#[test]
fn a_listed_page_reads_answers_and_our_own_errors() {
    let peer = Peer::answering(|_| {
        "HTTP/1.1 200 X\r\ncontent-length: 4\r\nrequest-id: r1\r\naccess-control-allow-origin: *\r\n\
         access-control-allow-credentials: true\r\n\r\nfine"
            .to_owned()
    });
    let proxy = listing("", &peer.url()).start();
    let fine = from(&proxy, "https://app.example", "/to/p/v1/messages", "");
    assert_eq!((fine.status, fine.body.as_str()), (200, "fine"));
    is_shared(&fine, "https://app.example");
    assert_eq!(fine.field("access-control-allow-credentials"), None);
    assert!(fine.field("access-control-expose-headers").unwrap().contains("request-id"));
    let unknown = from(&proxy, PAGE, "/to/none/v1", "");
    assert_eq!(unknown.code(), "unknown_provider");
    is_shared(&unknown, PAGE);
    assert!(unknown.field("access-control-expose-headers").unwrap().contains("x-evertoken-error"));
    let refused = from(&proxy, "http://evil.example", "/to/p/v1/messages", "");
    assert_eq!(
        (refused.code(), refused.field("access-control-allow-origin")),
        ("forbidden_origin", None)
    );
    // A page that says of itself where it is from, and a request that does not.
    let no_origin =
        proxy.ask("GET /to/p/x HTTP/1.1\r\nHost: localhost\r\nSec-Fetch-Site: cross-site\r\n\r\n");
    assert_eq!(no_origin.code(), "forbidden_origin");

    let with_key = listing(", auth: {enabled: true, api_key: k}", &peer.url()).start();
    let wrong = from(&with_key, PAGE, "/to/p/v1/messages", "");
    assert_eq!(wrong.status, 401);
    is_shared(&wrong, PAGE);
    is_shared(&from(&with_key, PAGE, "/to/p/v1/messages", "x-api-key: k\r\n"), PAGE);
}

#[test]
fn without_a_list_the_providers_own_word_passes_unchanged() {
    let peer = Peer::answering(|_| {
        "HTTP/1.1 200 X\r\ncontent-length: 0\r\naccess-control-allow-origin: *\r\n\r\n".to_owned()
    });
    let proxy = TestProxy::builder()
        .settings("auth: {enabled: true, api_key: k}")
        .provider("P", "anthropic", &peer.url(), "auth_value: fixed")
        .start();
    let fine = from(&proxy, PAGE, "/x", "x-api-key: k\r\n");
    assert_eq!((fine.status, fine.field("access-control-allow-origin")), (200, Some("*")));
    assert_eq!(fine.field("vary"), None);
}
