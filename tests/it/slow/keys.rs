//! Limits of keys that several hosts share through a real token store.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::support::client::{Client, ask};
use crate::support::eventually;
use crate::support::peer::{Peer, answer};
use crate::support::proxy::TestProxy;

use super::engine::Server;

const HOSTS: usize = 5;
const MOST: u64 = 100;

fn host(server: &Server, provider: &Peer) -> TestProxy {
    let keys = format!(
        "auth: {{enabled: true, api_key: plain, keys: [{{name: ci, key_env: CI, requests_per_minute: {MOST}}}]}}, \
         token_store: \"{}\"",
        server.url()
    );
    TestProxy::builder()
        .settings(&keys)
        .variable("CI", "key-of-ci")
        .provider("A", "anthropic", &provider.url(), "auth_type: none")
        .start()
}

const REQUEST: &str = "POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nx-api-key: key-of-ci\r\nContent-Length: 2\r\n\r\n{}";

/// Sends `each` requests to each host, all at once; how many passed.
fn passed(hosts: &[TestProxy], each: usize) -> u64 {
    let passed = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for host in hosts {
            let passed = &passed;
            scope.spawn(move || {
                let mut client = Client::connect(host.address);
                for _ in 0..each {
                    client.send(REQUEST);
                    let status = client.answer().status;
                    assert!(matches!(status, 200 | 429), "{status}");
                    passed.fetch_add(u64::from(status == 200), Ordering::SeqCst);
                }
            });
        }
    });
    passed.into_inner()
}

#[test]
fn five_hosts_let_five_times_the_limit_of_a_key_pass() {
    let (server, provider) =
        (Server::start(&["--port", "0"]), Peer::answering(|_| answer(200, "fine")));
    let hosts: Vec<_> = (0..HOSTS).map(|_| host(&server, &provider)).collect();
    // A refusal of evertoken's own is given back on all hosts.
    for host in &hosts {
        let refused = host.ask(REQUEST.replace("/v1/messages", "/to/none/x"));
        assert_eq!(refused.status, 404);
    }
    assert_eq!(passed(&hosts, 40), MOST);
    let refused = ask(hosts[0].address, REQUEST);
    let wait: u64 = refused.field("retry-after").unwrap().parse().unwrap();
    assert_eq!(refused.code(), "key_limit");
    assert!((1..=60).contains(&wait), "{wait}");
    // A host that starts later knows what the others let pass.
    let late = host(&server, &provider);
    assert_eq!(ask(late.address, REQUEST).status, 429);
}

#[test]
fn each_host_holds_the_limit_alone_while_the_store_is_away() {
    let (server, provider) =
        (Server::start(&["--port", "0"]), Peer::answering(|_| answer(200, "fine")));
    let hosts: Vec<_> = (0..2).map(|_| host(&server, &provider)).collect();
    assert_eq!(passed(&hosts, 10), 20);
    drop(server);
    eventually("the first request without the store passes", || {
        ask(hosts[0].address, REQUEST).status == 200
    });
    let before = provider.seen().len() as u64;
    let more = passed(&hosts, 150);
    assert!(before + more <= 2 * MOST && before + more > MOST, "{before} {more}");
}
