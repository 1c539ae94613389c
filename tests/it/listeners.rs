//! The listeners in the status, on the page, in the metrics and in `evertoken status`.

use std::net::TcpStream;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::binary::{Binary, run, text};
use crate::support::client::{Client, get};
use crate::support::eventually;
use crate::support::own_tls::{self, Pair};
use crate::support::peer::{Peer, answer};
use crate::support::proxy::{Builder, TestProxy};
use crate::websocket::{ACCEPTED, handshake, masked};

const CLOSING: &str = "POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc";
/// Seconds between 1970 and the beginnings of 2020 and 2120.
const IN_2020: u64 = 1_577_836_800;
const IN_2120: u64 = 4_733_510_400;

/// A proxy before `peer` that listens at a port and at a unix socket, and the path of that.
fn listening(peer: &Peer, more: &str) -> (Builder, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let at = path.display();
    let builder = TestProxy::builder()
        .settings(&format!("listen: ['localhost:0', 'unix:{at}?mode=0660'], {more}"))
        .provider("P", "anthropic", &peer.url(), "auth_value: fixed")
        .folder(folder);
    (builder, path)
}

fn listeners(proxy: &TestProxy) -> Value {
    proxy.ask(get("/-/status")).json()["listeners"].clone()
}

/// Sends `request` to the unix socket at `path`, and reads to the end of the connection: the number of bytes.
fn ask_unix(path: &Path, request: &str) -> usize {
    let mut client = Client::connect_unix(path);
    client.send(request);
    let mut came = Vec::new();
    client.rest(&mut came);
    came.len()
}

/// Reads a head that begins with the line `status`: its length.
fn head_bytes(client: &mut Client, status: &str) -> usize {
    assert_eq!(client.line().as_deref(), Some(status));
    let mut length = status.len() + 4;
    while let Some(field) = client.line().filter(|field| !field.is_empty()) {
        length += field.len() + 2;
    }
    length
}

#[test]
fn each_listener_has_its_own_connections_and_bytes() {
    let peer = Peer::answering(|asked| answer(200, &asked.body.len().to_string()));
    let (builder, path) = listening(&peer, "");
    let proxy = builder.start();
    let mut sent = ask_unix(&path, CLOSING) + ask_unix(&path, CLOSING);
    let expected = json!({
        "address": format!("unix:{}", path.display()),
        "configured": format!("unix:{}", path.display()),
        "kind": "unix",
        "tls": false,
        "handed_over": false,
        "connections": {
            "open": 0,
            "total": 2,
            "received_bytes": 2 * CLOSING.len(),
            "sent_bytes": sent,
            "failed_handshakes": 0,
        },
        "certificate": null,
    });
    eventually("both connections have ended", || listeners(&proxy)[1] == expected);
    let tcp = &listeners(&proxy)[0];
    assert_eq!(tcp["address"], format!("http://{}", proxy.address));
    assert_eq!((&tcp["configured"], &tcp["kind"]), (&json!("localhost:0"), &json!("tcp")));
    assert!(tcp["connections"]["open"].as_u64() >= Some(1), "the one that asks: {tcp}");
    eventually("earlier answers are counted", || {
        listeners(&proxy)[0]["connections"]["sent_bytes"].as_u64() > Some(500)
    });

    // A kept connection counts while it is open.
    let mut kept = Client::connect_unix(&path);
    let request = CLOSING.replace("close", "keep-alive");
    for turn in 1..=2 {
        kept.send(&request);
        sent += head_bytes(&mut kept, "HTTP/1.1 200 OK") + kept.bytes(1).len();
        let received = 2 * CLOSING.len() + turn * request.len();
        let counts = &listeners(&proxy)[1]["connections"];
        assert_eq!((&counts["open"], &counts["received_bytes"]), (&json!(1), &json!(received)));
    }
    // A reload keeps the counts.
    eventually("both answers are counted", || {
        listeners(&proxy)[1]["connections"]["sent_bytes"] == sent
    });
    let before = listeners(&proxy)[1].clone();
    let other = TestProxy::builder().provider("Q", "openai", &peer.url(), "auth_value: other");
    assert_eq!(proxy.reload(&other).status, 200);
    assert_eq!(listeners(&proxy)[1], before);

    let page = proxy.ask(get("/-/")).body;
    let row = format!(
        "<th scope=\"row\">http://{}<br><small>configured as localhost:0</small></th>",
        proxy.address
    );
    assert!(page.contains(&row), "{page}");
    let metrics = proxy.ask(get("/-/metrics")).body;
    let of_unix = format!("listener=\"unix:{}\"", path.display());
    for line in [
        format!("evertoken_listener_connections{{{of_unix}}} 1"),
        format!("evertoken_listener_accepted_total{{{of_unix}}} 3"),
        format!(
            "evertoken_listener_bytes_total{{direction=\"received\",{of_unix}}} {}",
            2 * CLOSING.len() + 2 * request.len()
        ),
    ] {
        assert!(metrics.lines().any(|own| own == line), "{line}\n{metrics}");
    }
    assert!(!metrics.contains("evertoken_certificate_expiry_timestamp_seconds{"), "{metrics}");
}

#[test]
fn a_websocket_and_a_refused_connection_count_too() {
    let peer = Peer::start(|mut talk| {
        talk.request();
        talk.send(ACCEPTED);
        let message = talk.bytes(masked(100_000).len());
        talk.send(&message[..50_000]);
        talk.wait_for_close();
    });
    let (builder, path) = listening(&peer, "max_body_bytes: 10");
    let proxy = builder.start();
    let mut client = Client::connect_unix(&path);
    client.send(handshake("/to/p/", ""));
    let mut sent = head_bytes(&mut client, "HTTP/1.1 101 Switching Protocols");
    client.send(masked(100_000));
    sent += client.bytes(50_000).len();
    let of_unix = || listeners(&proxy)[1]["connections"].clone();
    let received = handshake("/to/p/", "").len() + masked(100_000).len();
    eventually("all bytes are counted", || {
        let counts = of_unix();
        counts["received_bytes"] == received && counts["sent_bytes"] == sent
    });
    assert_eq!(of_unix()["open"], 1);
    let refused = ask_unix(&path, "nonsense\r\n\r\n");
    eventually("the refusal is counted", || of_unix()["sent_bytes"] == sent + refused);
    assert_eq!(of_unix()["received_bytes"], received + 12);
}

#[test]
fn a_listener_with_tls_counts_handshakes_that_fail_and_says_when_its_certificate_ends() {
    let pair = Pair::new();
    let folder = tempfile::tempdir().unwrap();
    pair.write(folder.path());
    let at = folder.path().display().to_string();
    let peer = Peer::answering(|_| answer(200, "fine"));
    let tls_settings = format!(
        "tls: {{cert_file: '{at}/cert.pem', key_file: '{at}/key.pem'}}, timeouts: {{client_head: 1}}"
    );
    let (builder, path) = listening(&peer, &tls_settings);
    let proxy = builder.start();
    let status = || {
        let mut client = Client::connect_unix(&path);
        client.send(get("/-/status"));
        client.answer().json()["listeners"].clone()
    };
    own_tls::ask(proxy.address, &pair.usual(), &CLOSING.replace("/v1", "/x")).unwrap();
    // A probe of the port that says nothing is no handshake; the others are: rubbish, no TLS, nothing until the time is over.
    drop(TcpStream::connect(proxy.address).unwrap());
    for request in ["\x16\x03\x01\x00\x05rubbish", "GET / HTTP/1.1\r\n\r\n", ""] {
        let mut client = Client::connect(proxy.address);
        client.send(request);
        client.rest(&mut Vec::new());
    }
    eventually("all have ended", || status()[0]["connections"]["open"] == 0);
    let tls = &status()[0];
    assert_eq!(tls["address"], format!("https://{}", proxy.address));
    assert_eq!((&tls["tls"], &status()[1]["tls"]), (&json!(true), &json!(false)));
    assert_eq!(tls["connections"]["total"], 5);
    assert_eq!(tls["connections"]["failed_handshakes"], 3);
    // The bytes within TLS are counted, and those of TLS itself are not.
    assert_eq!(tls["connections"]["received_bytes"], CLOSING.len() - 1);
    assert_eq!(tls["certificate"]["begins_at"], "2020-01-01T00:00:00.000Z");
    assert_eq!(tls["certificate"]["expires_at"], "2120-01-01T00:00:00.000Z");
    assert_eq!(tls["certificate"]["problem"], Value::Null);
    assert_eq!(status()[1]["certificate"], Value::Null);
    let mut client = Client::connect_unix(&path);
    client.send(get("/-/metrics"));
    let metrics = client.answer().body;
    let label = format!("{{listener=\"https://{}\"}}", proxy.address);
    for line in [
        format!("evertoken_certificate_begin_timestamp_seconds{label} {IN_2020}"),
        format!("evertoken_certificate_expiry_timestamp_seconds{label} {IN_2120}"),
        format!("evertoken_listener_failed_handshakes_total{label} 3"),
    ] {
        assert!(metrics.lines().any(|own| own == line), "{line}\n{metrics}");
    }

    // One that has ended is a problem; only a start shows it.
    drop(proxy);
    Pair::valid(2020, 2021).write(folder.path());
    let (builder, path) = listening(&peer, &tls_settings);
    let _proxy = builder.start();
    let status = || {
        let mut client = Client::connect_unix(&path);
        client.send(get("/-/status"));
        client.answer().json()["listeners"].clone()
    };
    let problem =
        "The certificate of settings.tls expired at 2021-01-01T00:00:00.000Z; clients refuse it";
    assert_eq!(status()[0]["certificate"]["problem"], problem);
    for page in ["/-/", "/-/ready"] {
        let mut client = Client::connect_unix(&path);
        client.send(get(page));
        let told = client.answer().body;
        assert!(told.contains(problem), "{page}: {told}");
    }
}

#[test]
fn tiny_http_counts_no_connections() {
    let peer = Peer::answering(|_| answer(200, "fine"));
    let proxy = TestProxy::builder()
        .settings("server: tiny_http")
        .provider("P", "anthropic", &peer.url(), "auth_value: fixed")
        .start();
    let listener = &listeners(&proxy)[0];
    assert_eq!(listener["address"], format!("http://{}", proxy.address));
    assert_eq!(listener["connections"], Value::Null);
    let metrics = proxy.ask(get("/-/metrics")).body;
    assert!(!metrics.contains("evertoken_listener_accepted_total{"), "{metrics}");
}

#[test]
fn the_status_command_shows_listeners() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let listen = format!("'127.0.0.1:0', 'unix:{}'", path.display());
    let text_of_file = format!(
        "settings: {{listen: [{listen}], state_dir: state}}\nproviders: [{{name: P, type: generic, base_url: \
         \"http://127.0.0.1:9\", auth_value: fixed}}]\n"
    );
    std::fs::write(folder.path().join("providers.yaml"), text_of_file).unwrap();
    let running = Binary::start(folder.path(), &["run"], &[]);
    let address = running.address();
    let url = format!("unix:{}", path.display());
    let shown = run(folder.path(), &["status", "--url", &url], &[]);
    let shown = text(&shown.stdout);
    let (_, below) = shown.split_once("\nLISTENING ON\n").unwrap();
    let joined = below.replace('\n', " ");
    let tcp = format!(
        "http://{address}: 0 open of 0 connections; 0 B in, 0 B out; configured as 127.0.0.1:0"
    );
    assert!(joined.contains(&tcp), "{joined}");
    assert!(joined.contains(&format!("{url}: 1 open of 1 connections;")), "{joined}");
}
