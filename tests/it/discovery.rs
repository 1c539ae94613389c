//! Endpoints that an issuer's metadata names: fetched, kept, shown by `check`, and used by refreshes and logins.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use evertoken::testing::StateFile;
use sandbox::issuer::CLIENT_ID;
use sandbox::manners::{ClientAuth, Manners};
use sandbox::{Options, Sandbox};
use tempfile::TempDir;

use crate::support::binary::{Binary, folder_with_the_p, run, text};
use crate::support::client::{ask, get};
use crate::support::eventually;
use crate::support::peer::{Peer, Seen, answer};

/// The copy of the metadata in the state folder.
fn kept(folder: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder.join("state")).ok()?;
    let mut paths = entries.map(|entry| entry.unwrap().path());
    paths.find(|path| path.file_name().unwrap().to_str().unwrap().starts_with(".issuer-"))
}

/// An issuer with this answer to every request for metadata, in which `URL` is its own address; the answers to a token
/// request are good.
fn issuer(metadata: impl Fn(&Seen) -> String + Send + Sync + 'static) -> Peer {
    Peer::answering(move |seen| {
        let own = format!("http://{}", seen.field("host").unwrap());
        if seen.line.starts_with("GET /.well-known/") {
            return metadata(seen).replace("URL", &own);
        }
        answer(200, r#"{"access_token":"a1","refresh_token":"r2","expires_in":3600}"#)
    })
}

/// An answer whose length counts the issuer's address in place of `URL`.
fn document(seen: &Seen, body: &str) -> String {
    let own = format!("http://{}", seen.field("host").unwrap());
    answer(200, &body.replace("URL", &own))
}

const METADATA: &str = r#"{"issuer":"URL","token_endpoint":"URL/token"}"#;
const VARIABLES: [(&str, &str); 3] = [("HOME", "/nonexistent"), ("ID", "id"), ("SEED", "r1")];

fn seeded(issuer: &Peer) -> TempDir {
    let keys = format!("issuer: {}\nrefresh_token_env: SEED", issuer.url());
    folder_with_the_p("http://127.0.0.1:9", &keys)
}

fn refresh(folder: &TempDir) -> Output {
    run(folder.path(), &["refresh"], &VARIABLES)
}

#[test]
fn a_refresh_and_a_login_need_no_endpoint_but_the_issuer() {
    let sandbox = Sandbox::start(Options::default()).unwrap();
    let provider = Peer::telling_the_credential();
    let keys = format!("client_secret_env: SECRET\nissuer: {}", sandbox.url());
    let folder = folder_with_the_p(&provider.url(), &keys);
    let secret = sandbox.client_secret();
    let variables = [("HOME", "/nonexistent"), ("ID", CLIENT_ID), ("SECRET", &secret)];
    let check = |arguments: &[&str]| run(folder.path(), arguments, &variables);
    let line =
        |kept: &str| format!("The P: endpoints come from {}'s metadata ({kept}", sandbox.url());
    let told = text(&check(&["check"]).stdout);
    assert!(!told.contains("endpoints come from") || told.contains("not fetched yet"), "{told}");

    let login = ["login", "--provider", "the-p", "--no-browser"];
    let (mut login, _stdin) = Binary::start_talking(folder.path(), &login, &variables);
    let address = login.wait_for("  http").trim().to_owned();
    assert!(address.starts_with(&format!("{}/oauth/authorize?", sandbox.url())), "{address}");
    let visit = |url: &str| {
        let (authority, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
        ask(authority.parse().unwrap(), get(&format!("/{path}")))
    };
    let back = visit(&address).field("location").unwrap().to_owned();
    assert_eq!(visit(&back).status, 200);
    assert_eq!(login.code(), Some(0), "{:#?}", login.lines());

    let path = kept(folder.path()).expect("a copy is kept");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let told = check(&["check"]);
    assert_eq!(told.status.code(), Some(0), "{}", text(&told.stderr));
    assert!(text(&told.stdout).contains(&line("kept copy of 20")), "{}", text(&told.stdout));
    let online = text(&check(&["check", "--online"]).stdout);
    for part in [
        "The P: issuer URL: its metadata names authorization_endpoint, device_authorization_endpoint, ",
        "The P: token_url URL/oauth/token: ",
        "The P: authorization_url URL/oauth/authorize: ",
        "The P: device_authorization_url URL/oauth/device: ",
        "The P: revocation_url URL/oauth/revoke: ",
    ] {
        assert!(online.contains(&part.replace("URL", &sandbox.url())), "{part}: {online}");
    }

    let running = Binary::start(folder.path(), &["run"], &variables);
    assert!(ask(running.address(), get("/")).body.starts_with("Bearer sandbox-at-"));
    assert_eq!(sandbox.counts().granted, 1, "the login's token serves");
    let forced = "POST /-/refresh/the-p HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(ask(running.address(), forced).status, 200);
    assert_eq!(sandbox.counts().granted, 2);
}

#[test]
fn a_start_without_the_issuers_metadata_uses_the_kept_copy() {
    let fails = Arc::new(AtomicBool::new(false));
    let of_peer = fails.clone();
    let issuer = issuer(move |seen| {
        if of_peer.load(Ordering::SeqCst) { answer(503, "") } else { document(seen, METADATA) }
    });
    let folder = seeded(&issuer);
    assert_eq!(refresh(&folder).status.code(), Some(0));
    let path = kept(folder.path()).unwrap();
    fails.store(true, Ordering::SeqCst);
    let asked = || issuer.seen().iter().filter(|seen| seen.line.starts_with("GET")).count();
    let before = asked();
    // A copy of today is not asked for again.
    assert_eq!(refresh(&folder).status.code(), Some(0));
    assert_eq!(asked(), before);
    // An older one serves while the issuer does not answer, with a warning.
    let old = std::fs::read_to_string(&path).unwrap();
    let at = old.find("\"fetched_at\":\"").unwrap() + "\"fetched_at\":\"".len();
    let old = format!("{}2026-01-01{}", &old[..at], &old[at + "2026-01-01".len()..]);
    std::fs::write(&path, &old).unwrap();
    let output = refresh(&folder);
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert!(
        told.contains("503 Service Unavailable; ")
            && told.contains("; the kept copy goes on serving (provider: The P)"),
        "{told}"
    );
    // Without any copy, nothing is sent.
    std::fs::remove_file(&path).unwrap();
    let posts = || issuer.seen().iter().filter(|seen| seen.line.starts_with("POST")).count();
    let before = posts();
    let output = refresh(&folder);
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("[ERROR] Failed to refresh token: The issuer http://"), "{told}");
    assert_eq!(posts(), before);
}

#[test]
fn metadata_that_can_not_be_used_is_told_and_nothing_is_sent() {
    let large = format!(r#"{{"issuer":"URL","x":"{}"}}"#, "x".repeat(256 * 1024));
    let large: &'static str = Box::leak(large.into_boxed_str());
    for (status, body, part) in [
        (
            200,
            r#"{"issuer":"https://other.example","token_endpoint":"https://other.example/t"}"#,
            "is of the issuer \"https://other.example\", and not of \"http://127.0.0.1:",
        ),
        (200, large, "is over 256 KiB"),
        (200, "<html>", "is no JSON object"),
        (302, "", "302 Found, a redirect, which is not followed"),
        (404, "", "has no metadata: "),
        (
            200,
            r#"{"issuer":"URL","token_endpoint":"http://issuer.example/t"}"#,
            "names \"http://issuer.example/t\" as its 'token_endpoint', which must be https",
        ),
        (200, r#"{"issuer":"URL"}"#, "names no 'token_endpoint'; write 'token_url' into"),
    ] {
        let issuer = issuer(move |seen| match status {
            200 => document(seen, body),
            302 => "HTTP/1.1 302 X\r\nlocation: http://127.0.0.1:9/\r\ncontent-length: 0\r\n\r\n"
                .to_owned(),
            _ => answer(status, body),
        });
        let folder = seeded(&issuer);
        let output = refresh(&folder);
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(
            told.contains("Failed to refresh token: The ") && told.contains(part),
            "{part}: {told}"
        );
        let online = run(folder.path(), &["check", "--online"], &VARIABLES);
        let told = text(&online.stderr);
        assert_eq!(online.status.code(), Some(78), "{told}");
        assert!(
            told.contains("The P: issuer http://127.0.0.1:") && told.contains(part),
            "{part}: {told}"
        );
        let login = ["login", "--provider", "the-p", "--device"];
        let output = run(folder.path(), &login, &VARIABLES);
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).contains(part), "{part}: {}", text(&output.stderr));
        assert!(issuer.seen().iter().all(|seen| !seen.line.starts_with("POST")), "{part}");
    }
}

#[test]
fn a_running_evertoken_without_metadata_tries_again_and_says_so() {
    let is_up = Arc::new(AtomicBool::new(false));
    let of_peer = is_up.clone();
    let issuer = issuer(move |seen| {
        if of_peer.load(Ordering::SeqCst) { document(seen, METADATA) } else { answer(404, "") }
    });
    let folder = seeded(&issuer);
    let running = Binary::start(folder.path(), &["run"], &VARIABLES);
    running.wait_for("[ERROR] Failed to refresh token: The issuer http://127.0.0.1:");
    // The log line comes a moment before the status.
    eventually("the status has it", || {
        let status = ask(running.address(), get("/-/status")).json();
        status["providers"][0]["refresh"]["trouble"] == "no_metadata"
    });
    is_up.store(true, Ordering::SeqCst);
    running.wait_for("Successfully refreshed token");
}

/// With all endpoints written, `issuer` is compared with the callback's `iss`, and nothing is asked for.
#[test]
fn an_issuer_beside_written_endpoints_is_not_asked() {
    let issuer = issuer(|_| answer(500, ""));
    let keys = format!(
        "issuer: any-text\nauthorization_url: {url}/authorize\ntoken_url: {url}/token\nrefresh_token_env: SEED",
        url = issuer.url()
    );
    let folder = folder_with_the_p("http://127.0.0.1:9", &keys);
    assert_eq!(refresh(&folder).status.code(), Some(0));
    assert!(issuer.seen().iter().all(|seen| seen.line.starts_with("POST /token")));
    let online = run(folder.path(), &["check", "--online"], &VARIABLES);
    assert!(!text(&online.stdout).contains("metadata"), "{}", text(&online.stdout));
}

/// The chain of an issuer stays the same when its metadata names another token endpoint.
#[test]
fn a_token_endpoint_that_moves_keeps_the_chain() {
    let moved = Arc::new(AtomicBool::new(false));
    let of_peer = moved.clone();
    let issuer = issuer(move |seen| {
        let to = of_peer.load(Ordering::SeqCst);
        document(seen, &METADATA.replace("/token", if to { "/moved" } else { "/token" }))
    });
    let folder = seeded(&issuer);
    assert_eq!(refresh(&folder).status.code(), Some(0));
    moved.store(true, Ordering::SeqCst);
    std::fs::remove_file(kept(folder.path()).unwrap()).unwrap();
    assert_eq!(refresh(&folder).status.code(), Some(0));
    let last = issuer.seen().pop().unwrap();
    assert!(last.line.starts_with("POST /moved "), "{}", last.line);
    assert!(text(&last.body).contains("refresh_token=r2"), "{}", text(&last.body));
    let state = StateFile::new(folder.path().join("state"), "the-p");
    assert!(state.load().unwrap().unwrap().refresh_token.is_some());
}

/// The way to send the secret is the issuer's, if none is written.
#[test]
fn the_secret_is_sent_as_the_issuer_takes_it() {
    for taken in [ClientAuth::ClientSecretPost, ClientAuth::ClientSecretBasic] {
        let mut manners = Manners::own();
        manners.request.client_auth = vec![taken];
        let options = Options { manners: Some(manners), ..Options::default() };
        let sandbox = Sandbox::start(options).unwrap();
        let keys = format!(
            "client_secret_env: SECRET\nissuer: {}\nrefresh_token_env: SEED",
            sandbox.url()
        );
        let folder = folder_with_the_p("http://127.0.0.1:9", &keys);
        let (secret, seed) = (sandbox.client_secret(), sandbox.login());
        let variables =
            [("HOME", "/nonexistent"), ("ID", CLIENT_ID), ("SECRET", &secret), ("SEED", &seed)];
        let output = run(folder.path(), &["refresh"], &variables);
        assert_eq!(output.status.code(), Some(0), "{taken:?}: {}", text(&output.stderr));
        let output = run(folder.path(), &["logout", "--provider", "the-p"], &variables);
        assert_eq!(output.status.code(), Some(0), "{taken:?}: {}", text(&output.stdout));
        assert_eq!(sandbox.counts().revoked, 2);
    }
}
