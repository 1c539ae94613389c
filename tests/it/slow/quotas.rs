//! Quotas on several hosts with one token store, and of the real binary that is killed.

use std::fs;
use std::sync::{Arc, Mutex};

use rustix::process::Signal;

use super::engine::Server;
use crate::support::binary::Binary;
use crate::support::client::{ask, get, post};
use crate::support::eventually;
use crate::support::peer::Peer;
use crate::support::proxy::TestProxy;

const USED_UP: &str = "x-ratelimit-remaining-requests: 0\r\nx-ratelimit-reset-requests: 1h\r\n";
const ONE_LEFT: &str = "x-ratelimit-remaining-requests: 1\r\nx-ratelimit-reset-requests: 1h\r\n";

/// A provider that states these fields.
fn stating(fields: &Arc<Mutex<String>>) -> Peer {
    let fields = fields.clone();
    Peer::answering(move |_| {
        format!("HTTP/1.1 200 OK\r\n{}content-length: 2\r\n\r\n{{}}", fields.lock().unwrap())
    })
}

/// True if the host knows that the first provider has nothing left; false if it knows that something is left.
fn is_used_up(proxy: &TestProxy) -> Option<bool> {
    let window = proxy.ask(get("/-/status")).json()["providers"][0]["quota"].get(0)?.clone();
    Some(window["used_up_until"].is_string())
}

#[test]
fn what_one_host_was_told_is_known_to_the_others_and_to_those_that_come_later() {
    let server = Server::start(&["--port", "0"]);
    let says = Arc::new(Mutex::new(USED_UP.to_owned()));
    let (first, second) = (stating(&says), stating(&Arc::default()));
    let host = |key: &str| {
        TestProxy::builder()
            .settings(&format!("token_store: \"{}\"", server.url()))
            .provider("A", "anthropic", &first.url(), &format!("auth_value: {key}"))
            .provider("B", "anthropic", &second.url(), "auth_value: key-b")
            .start()
    };
    let asked = |proxy: &TestProxy| {
        assert_eq!(proxy.ask(post("/v1/messages", "{}")).status, 200);
        (first.seen().len(), second.seen().len())
    };
    let (one, two, other) = (host("key-a"), host("key-a"), host("key-c"));
    assert_eq!(asked(&one), (1, 0));
    eventually("the other host knows", || is_used_up(&two) == Some(true));
    assert_eq!(asked(&two), (1, 1));
    let late = host("key-a");
    eventually("a host that comes later knows", || is_used_up(&late) == Some(true));
    assert_eq!(asked(&late), (1, 2));
    ONE_LEFT.clone_into(&mut says.lock().unwrap());
    assert_eq!(asked(&other), (2, 2), "the same provider with another account");
    assert_eq!(one.ask(get("/to/a/x")).status, 200);
    eventually("the others know that something is left", || {
        [&two, &late].map(is_used_up) == [Some(false), Some(false)]
    });
    assert_eq!(asked(&two), (4, 2));
    drop(server);
    assert_eq!(asked(&late), (5, 2), "without the server every host goes on");
}

/// The limits of an API are those of one model, on all hosts.
#[test]
fn what_one_host_was_told_of_one_model_is_known_to_the_others_and_leaves_its_other_models() {
    let server = Server::start(&["--port", "0"]);
    let says = Arc::new(Mutex::new(USED_UP.to_owned()));
    let (first, second) = (stating(&says), stating(&Arc::default()));
    let host = || {
        TestProxy::builder()
            .settings(&format!("token_store: \"{}\"", server.url()))
            .provider("A", "anthropic", &first.url(), "auth_value: key-a")
            .provider("B", "anthropic", &second.url(), "auth_value: key-b")
            .start()
    };
    let asked = |proxy: &TestProxy, model: &str| {
        let body = format!("{{\"model\":\"{model}\"}}");
        assert_eq!(proxy.ask(post("/v1/messages", &body)).status, 200);
        (first.seen().len(), second.seen().len())
    };
    let (one, two) = (host(), host());
    assert_eq!(asked(&one, "m"), (1, 0));
    eventually("the other host knows", || is_used_up(&two) == Some(true));
    ONE_LEFT.clone_into(&mut says.lock().unwrap());
    assert_eq!(asked(&two, "m"), (1, 1));
    assert_eq!(asked(&two, "other"), (2, 1));
    assert_eq!(asked(&two, "m"), (2, 2), "what another model has left says nothing of it");
}

#[test]
fn a_quota_that_is_used_up_outlives_a_kill_and_a_broken_file_is_told() {
    let used_up = Arc::new(Mutex::new(USED_UP.to_owned()));
    let (first, second) = (stating(&used_up), stating(&Arc::default()));
    let folder = tempfile::tempdir().unwrap();
    let config = format!(
        "settings: {{port: 0, state_dir: \"{}\"}}\nproviders:\n  - {{name: A, type: anthropic, base_url: \"{}\", \
         auth_type: none}}\n  - {{name: B, type: anthropic, base_url: \"{}\", auth_type: none}}\n",
        folder.path().join("state").display(),
        first.url(),
        second.url()
    );
    fs::write(folder.path().join("providers.yaml"), config).unwrap();
    let start = || Binary::start(folder.path(), &["run"], &[]);
    let asked = |binary: &Binary| {
        assert_eq!(ask(binary.address(), post("/v1/messages", "{}")).status, 200);
        (first.seen().len(), second.seen().len())
    };
    let file = folder.path().join("state/quota/a.json");
    let mut binary = start();
    assert_eq!(asked(&binary), (1, 0));
    binary.wait_for("Provider A says that it has nothing left (requests)");
    eventually("it is saved", || {
        fs::read_to_string(&file).is_ok_and(|text| text.contains("used_up"))
    });
    binary.signal(Signal::KILL);
    binary.code();
    let mut binary = start();
    assert_eq!(asked(&binary), (1, 1));
    binary.signal(Signal::KILL);
    binary.code();
    fs::write(&file, "{").unwrap();
    let binary = start();
    binary.wait_for("quota/a.json is ignored: it is no quota file of evertoken");
    assert_eq!(asked(&binary), (2, 1));
    eventually("it is replaced", || {
        fs::read_to_string(&file).is_ok_and(|text| text.contains("used_up"))
    });
}
