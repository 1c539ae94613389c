//! TLS within TLS: providers and issuers behind a proxy that is itself reached over TLS.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use crossbeam_channel::bounded;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::json;

use crate::support::client::{Client, get, post};
use crate::support::peer::answer;
use crate::support::proxy::{Builder, TestProxy};
use crate::support::{PATIENCE, eventually};
use crate::tls::{Authority, talking, url};

/// The filling of an answer: the record that holds it is longer than rustls reads at once (4096 bytes), and short enough
/// for one record of the proxy's.
const FILLING_BYTES: usize = 6000;

/// TLS with a destination, within TLS with the proxy. Each write is one record of both.
type Inner = StreamOwned<ServerConnection, StreamOwned<ServerConnection, TcpStream>>;

fn over<S: Read + Write>(
    config: &Arc<ServerConfig>,
    lower: S,
) -> io::Result<StreamOwned<ServerConnection, S>> {
    let session = ServerConnection::new(config.clone()).map_err(io::Error::other)?;
    Ok(StreamOwned::new(session, lower))
}

/// Reads a head; an error at the end of the connection.
fn head(from: &mut impl Read) -> io::Result<String> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        from.read_exact(&mut byte)?;
        head.extend(byte);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

fn send(to: &mut impl Write, text: &str) -> io::Result<()> {
    to.write_all(text.as_bytes())?;
    to.flush()
}

/// A proxy over TLS, `localhost`, and in the same thread every destination, `far.invalid`, which does what `act` says.
fn gateway(
    authority: &Authority,
    act: impl Fn(Inner) -> io::Result<()> + Clone + Send + 'static,
) -> SocketAddr {
    let [near, far] = ["localhost", "far.invalid"].map(|name| authority.server(name, 2120));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let run = move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (near, far, act) = (near.clone(), far.clone(), act.clone());
            let talk = move || -> io::Result<()> {
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_nodelay(true)?;
                let mut outer = over(&near, stream)?;
                let connect = head(&mut outer)?;
                assert!(connect.starts_with("CONNECT far.invalid:443 "), "{connect}");
                send(&mut outer, "HTTP/1.1 200 X\r\n\r\n")?;
                act(over(&far, outer)?)
            };
            evertoken::testing::spawn("far", 512 * 1024, || drop(talk())).unwrap().detach();
        }
    };
    evertoken::testing::spawn("gateway", 256 * 1024, run).unwrap().detach();
    address
}

/// The lines of a provider that trusts `authority`, and is reached through `gateway` if there is one.
fn lines(folder: &tempfile::TempDir, authority: &Authority, gateway: Option<SocketAddr>) -> String {
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, &authority.pem).unwrap();
    let proxy = gateway.map_or_else(String::new, |at| format!("\nproxy: \"{}\"", url(at)));
    format!("ca_file: \"{}\"{proxy}", file.display())
}

fn builder(settings: &str, lines: &str) -> Builder {
    let builder = TestProxy::builder().settings(settings);
    builder.provider("Far", "anthropic", "https://far.invalid", lines)
}

/// The refresh waited for the socket until its time was over, though its answer was there, and a refresh token that can
/// be used once was used up.
#[test]
fn a_token_whose_rest_the_outer_tls_held_was_not_read() {
    let authority = Authority::new();
    let gateway = gateway(&authority, |mut inner| {
        head(&mut inner)?;
        let token = json!({"access_token": "x".repeat(FILLING_BYTES), "expires_in": 3600});
        send(&mut inner, &answer(200, &token.to_string()))?;
        // It stays open.
        io::copy(&mut inner, &mut io::sink()).map(drop)
    });
    let folder = tempfile::tempdir().unwrap();
    let lines = lines(&folder, &authority, Some(gateway))
        + "\nauto_refresh_config:\n  token_url: \"https://far.invalid/token\"\n  client_auth: none\n  \
           client_id_env: CLIENT_ID\n  refresh_token_env: REFRESH_TOKEN";
    let proxy = builder("shutdown_grace: 0", &lines).start();
    let status = || proxy.ask(get("/-/status")).json();
    let refresh = || status()["providers"][0]["refresh"].clone();
    eventually("the issuer's answer is read", || refresh()["successes"] == 1);
    assert_eq!(refresh()["failures"], 0);
}

#[test]
fn a_list_of_models_whose_rest_the_outer_tls_held_was_left_out() {
    let authority = Authority::new();
    let page = |id: &str, has_more: bool| {
        let model = json!({"type": "model", "id": id, "about": "x".repeat(FILLING_BYTES)});
        let page = json!({"data": [model], "has_more": has_more, "last_id": id});
        answer(200, &page.to_string())
    };
    // One client is watched for one provider at a time: for this one, which holds half of its record back until the other
    // has brought both of its pages.
    let (half, half_is_out) = bounded::<()>(1);
    let (both, are_both_out) = bounded::<()>(1);
    let whole = page("near", false);
    let near = talking(authority.server("localhost", 2120), move |mut session, mut stream| {
        let mut record = Vec::new();
        session.writer().write_all(whole.as_bytes())?;
        while session.wants_write() {
            session.write_tls(&mut record)?;
        }
        let (first, last) = record.split_at(record.len() / 2);
        stream.write_all(first)?;
        let _ = half.try_send(());
        let _ = are_both_out.recv_timeout(PATIENCE);
        stream.write_all(last)?;
        io::copy(&mut stream, &mut io::sink()).map(drop)
    });
    let gateway = gateway(&authority, move |mut inner| {
        loop {
            if head(&mut inner)?.contains("after_id=first") {
                send(&mut inner, &page("second", false))?;
                let _ = both.try_send(());
            } else {
                let _ = half_is_out.recv_timeout(PATIENCE);
                send(&mut inner, &page("first", true))?;
            }
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let direct = lines(&folder, &authority, None) + "\nauth_type: none";
    let far = lines(&folder, &authority, Some(gateway)) + "\nauth_type: none";
    let proxy = builder("", &far).provider("Near", "anthropic", &url(near), &direct).start();
    let merged = proxy
        .ask("GET /v1/models HTTP/1.1\r\nHost: localhost\r\nanthropic-version: 2023-06-01\r\n\r\n");
    assert_eq!((merged.status, merged.field("x-evertoken-left-out")), (200, None));
    let ids: Vec<_> =
        merged.json()["data"].as_array().unwrap().iter().map(|one| one["id"].clone()).collect();
    assert_eq!(ids, ["first", "second", "near"]);
}

#[test]
fn an_early_answer_whose_rest_the_outer_tls_held_was_not_seen() {
    let authority = Authority::new();
    let (open, closing) = bounded::<()>(0);
    let gateway = gateway(&authority, move |mut inner| {
        head(&mut inner)?;
        send(&mut inner, &answer(413, &"x".repeat(FILLING_BYTES)))?;
        // It reads no further.
        let _ = closing.recv_timeout(PATIENCE);
        Ok(())
    });
    let folder = tempfile::tempdir().unwrap();
    let lines = lines(&folder, &authority, Some(gateway)) + "\nauth_type: none";
    for replay in [1_000, 16_000_000] {
        let settings = format!("replay_body_bytes: {replay}, timeouts: {{idle: 3}}");
        let proxy = builder(&settings, &lines).start();
        let mut client = Client::connect(proxy.address);
        client.send(post("/", &"x".repeat(8_000_000)));
        let answered = client.answer();
        assert_eq!((answered.status, answered.body.len()), (413, FILLING_BYTES), "{replay}");
        assert!(answered.whole);
    }
    drop(open);
}
