//! `evertoken logout` with the real binary: what is revoked, what stays, and a running evertoken that drops its tokens.

use std::process::Output;

use evertoken::testing::{Saved, Secret, StateFile, Timestamp};
use sandbox::issuer::CLIENT_ID;
use sandbox::{Options, Sandbox};
use tempfile::TempDir;

use crate::support::binary::{Binary, folder_with_the_p, run, text};
use crate::support::client::{ask, get};
use crate::support::eventually;
use crate::support::peer::{Peer, Seen, answer};

const FORCED: &str =
    "POST /-/refresh/the-p HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n";
const LOGOUT: [&str; 3] = ["logout", "--provider", "the-p"];

fn state(folder: &TempDir) -> StateFile {
    StateFile::new(folder.path().join("state"), "the-p")
}

/// An issuer whose revocation endpoint, at `/revoke`, gives this answer.
fn issuer(revoke: impl Fn(&Seen) -> String + Send + Sync + 'static) -> Peer {
    Peer::answering(move |seen| match seen.line.split(' ').nth(1) {
        Some("/revoke") => revoke(seen),
        Some("/token") => {
            answer(200, r#"{"access_token":"a1","refresh_token":"r2","expires_in":3600}"#)
        }
        _ => answer(404, ""),
    })
}

/// A folder with a chain, whose provider has these keys too, in which `URL` is the issuer.
fn logged_in(issuer: &Peer, keys: &str) -> TempDir {
    let keys = format!("token_url: URL/token\nrefresh_token_env: SEED\n{keys}");
    let folder = folder_with_the_p("http://127.0.0.1:9", &keys.replace("URL", &issuer.url()));
    let refreshed = run(folder.path(), &["refresh"], &VARIABLES);
    assert_eq!(refreshed.status.code(), Some(0), "{}", text(&refreshed.stderr));
    folder
}

const VARIABLES: [(&str, &str); 3] = [("HOME", "/nonexistent"), ("ID", "id"), ("SEED", "r1")];

fn log_out(folder: &TempDir) -> Output {
    run(folder.path(), &LOGOUT, &VARIABLES)
}

/// The bodies of the revocations.
fn revoked(issuer: &Peer) -> Vec<String> {
    let seen = issuer.seen();
    let asked = seen.iter().filter(|seen| seen.line.starts_with("POST /revoke"));
    asked.map(|seen| text(&seen.body)).collect()
}

#[test]
fn a_logout_revokes_and_the_running_evertoken_stops_serving_until_a_new_login() {
    let sandbox = Sandbox::start(Options::default()).unwrap();
    let provider = Peer::telling_the_credential();
    let keys =
        format!("client_secret_env: SECRET\nissuer: {}\nrefresh_token_env: SEED", sandbox.url());
    let folder = folder_with_the_p(&provider.url(), &keys);
    let (secret, seed) = (sandbox.client_secret(), sandbox.login());
    let with_seed = |seed| {
        [("HOME", "/nonexistent"), ("ID", CLIENT_ID), ("SECRET", secret.as_str()), ("SEED", seed)]
    };
    let running = Binary::start(folder.path(), &["run"], &with_seed(&seed));
    let address = running.address();
    eventually("it serves", || ask(address, get("/")).body.starts_with("Bearer sandbox-at-"));

    let output = run(folder.path(), &LOGOUT, &with_seed(&seed));
    let told = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{told}{}", text(&output.stderr));
    for part in [
        "Logging out of provider: The P\n",
        "Revoked the refresh token.\nRevoked the access token.\nLogged out of provider: The P. ",
        "/state/the-p.json holds no token any more",
        "The configured refresh token (refresh_token_env) is still set. evertoken does not begin with it again",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert_eq!(sandbox.counts().revoked, 2);
    let stored = std::fs::read_to_string(state(&folder).path()).unwrap();
    assert!(!stored.contains("sandbox-"), "{stored}");

    assert_eq!(ask(address, FORCED).status, 502, "an order to refresh makes it look");
    running.wait_for("Provider The P was logged out at 20");
    let refused = ask(address, get("/"));
    assert_eq!((refused.status, refused.code()), (403, "login_needed"), "{}", refused.body);
    let before = sandbox.counts();
    drop(running);
    // The seed is not tried again.
    let check = run(folder.path(), &["check"], &with_seed(&seed));
    assert_eq!(check.status.code(), Some(78));
    let told = text(&check.stderr);
    assert!(
        told.contains("The P: logged out at 20") && told.contains("; run: evertoken login"),
        "{told}"
    );
    let running = Binary::start(folder.path(), &["run"], &with_seed(&seed));
    running.wait_for("There is no refresh token yet; run: evertoken login --provider the-p");
    assert_eq!(sandbox.counts(), before);
    drop(running);
    // Another one is.
    let running = Binary::start(folder.path(), &["run"], &with_seed(&sandbox.login()));
    let address = running.address();
    eventually("it serves", || ask(address, get("/")).body.starts_with("Bearer sandbox-at-"));
}

#[test]
fn tokens_are_revoked_as_the_client_that_got_them() {
    let issuer = issuer(|_| answer(200, ""));
    let keys = "revocation_url: URL/revoke\nextra_params: {audience: a}\nclient_secret_env: SECRET\n\
                client_auth: client_secret_basic";
    let keys = keys.replace("URL", &issuer.url());
    let folder = folder_with_the_p(
        "http://127.0.0.1:9",
        &format!("token_url: {}/token\nrefresh_token_env: SEED\n{keys}", issuer.url()),
    );
    let variables = [&VARIABLES[..], &[("SECRET", "s")]].concat();
    assert_eq!(run(folder.path(), &["refresh"], &variables).status.code(), Some(0));
    // Without the client nothing is revoked, and nothing is deleted.
    let output = log_out(&folder);
    assert_eq!(output.status.code(), Some(78));
    assert!(text(&output.stderr).contains("Missing environment variable: 'SECRET'"));
    assert!(state(&folder).load().unwrap().unwrap().refresh_token.is_some());
    let output = run(folder.path(), &LOGOUT, &variables);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(
        revoked(&issuer),
        ["token=r2&token_type_hint=refresh_token", "token=a1&token_type_hint=access_token"]
    );
    let last = issuer.seen().pop().unwrap();
    assert_eq!(last.field("authorization"), Some("Basic aWQ6cw=="));
    // A second logout finds nothing.
    let again = run(folder.path(), &LOGOUT, &variables);
    assert_eq!(again.status.code(), Some(0));
    assert!(text(&again.stdout).contains("was not logged in"), "{}", text(&again.stdout));
    assert_eq!(revoked(&issuer).len(), 2);
}

type Case = (Peer, &'static str, i32, Vec<String>);

/// A logout failed at Keycloak and Google, where the access token ends with its refresh token; and with an issuer that is no
/// address.
fn ended_already() -> [Case; 3] {
    let keycloak = r#"{"error":"invalid_token","error_description":"Invalid token"}"#;
    let then = |status, body: &'static str| {
        issuer(move |seen| {
            let is_refresh = text(&seen.body).contains("token=r2");
            if is_refresh { answer(200, "") } else { answer(status, body) }
        })
    };
    let told =
        || vec!["Revoked the refresh token.\nThe access token had ended already.\n".to_owned()];
    let no_address = "issuer: accounts.example\nauthorization_url: 'https://a.example/authorize'";
    let none = "The refresh token was not revoked: the issuer has no known revocation endpoint.";
    [
        (then(200, keycloak), "revocation_url: URL/revoke", 0, told()),
        (then(400, r#"{"error":"invalid_token"}"#), "revocation_url: URL/revoke", 0, told()),
        (issuer(|_| answer(200, "")), no_address, 0, vec![none.to_owned()]),
    ]
}

#[test]
fn what_could_not_be_revoked_is_told_and_the_chain_is_deleted() {
    let end = "End the session in the account's settings at the issuer.";
    let refused = |status: u16, body: &'static str| issuer(move |_| answer(status, body));
    let cases = [
        (refused(200, ""), "", 0, vec![
            format!("The refresh token was not revoked: the issuer has no known revocation endpoint. {end}"),
            "The access token was not revoked: the issuer has no known revocation endpoint. Who has it can use it until 20".to_owned(),
        ]),
        (refused(401, r#"{"error":"invalid_client"}"#), "revocation_url: URL/revoke", 1, vec![
            format!("The refresh token was not revoked: URL/revoke answers 401 Unauthorized (invalid_client). {end}"),
        ]),
        (refused(200, r#"{"error":"invalid_request"}"#), "revocation_url: URL/revoke", 1, vec![
            "The refresh token was not revoked: URL/revoke answers 200 OK (invalid_request).".to_owned(),
        ]),
        (refused(302, ""), "revocation_url: URL/revoke", 1, vec![
            "The refresh token was not revoked: URL/revoke answers 302 Found.".to_owned(),
        ]),
        (refused(200, ""), "revocation_url: http://127.0.0.1:1/revoke", 1, vec![
            "The refresh token was not revoked: http://127.0.0.1:1/revoke: no connection: ".to_owned(),
        ]),
        (refused(200, ""), "issuer: URL", 1, vec![
            "The refresh token was not revoked: The issuer URL has no metadata: ".to_owned(),
        ]),
        (issuer(|seen| {
            let is_refresh = text(&seen.body).contains("token=r2");
            if is_refresh { answer(200, "") } else { answer(400, r#"{"error":"unsupported_token_type"}"#) }
        }), "revocation_url: URL/revoke", 0, vec![
            "Revoked the refresh token.\n".to_owned(),
            "The access token was not revoked: the issuer revokes no tokens of this kind. Most issuers end it \
             together with its refresh token.\n".to_owned(),
        ]),
    ];
    for (issuer, keys, code, parts) in cases.into_iter().chain(ended_already()) {
        let folder = logged_in(&issuer, keys);
        let output = log_out(&folder);
        let told = text(&output.stdout);
        assert_eq!(output.status.code(), Some(code), "{keys}: {told}{}", text(&output.stderr));
        for part in parts {
            assert!(told.contains(&part.replace("URL", &issuer.url())), "{part}: {told}");
        }
        assert!(told.contains("Logged out of provider: The P. "), "{told}");
        let stored = state(&folder).load().unwrap().unwrap();
        assert!(stored.is_logged_out() && stored.access.is_none(), "{keys}");
        let refresh = run(folder.path(), &["refresh"], &VARIABLES);
        assert!(text(&refresh.stderr).contains("There is no refresh token yet"), "{keys}");
        let posts =
            issuer.seen().iter().filter(|seen| seen.line.starts_with("POST /token")).count();
        assert_eq!(posts, 1, "the seed is not used again");
    }
}

#[test]
fn a_configured_refresh_token_that_was_never_used_is_revoked_too() {
    let issuer = issuer(|_| answer(200, ""));
    let keys = format!(
        "token_url: {url}/token\nrefresh_token_env: SEED\nrevocation_url: {url}/revoke",
        url = issuer.url()
    );
    let folder = folder_with_the_p("http://127.0.0.1:9", &keys);
    let output = log_out(&folder);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(revoked(&issuer), ["token=r1&token_type_hint=refresh_token&client_id=id"]);
    assert!(state(&folder).load().unwrap().unwrap().is_logged_out());
    // A service may have a variable that is not set here.
    let output = run(folder.path(), &LOGOUT, &VARIABLES[..2]);
    assert_eq!(output.status.code(), Some(0));
    let told = text(&output.stdout);
    assert!(
        told.contains("There was no token to revoke.\nProvider The P was not logged in"),
        "{told}"
    );
    assert!(told.contains("Missing environment variable: 'SEED'. If the service has it"), "{told}");
}

#[test]
fn a_provider_without_a_chain_has_no_login_to_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    std::fs::write(path.join("token.json"), r#"{"claudeAiOauth":{"accessToken":"x"}}"#).unwrap();
    let config = "settings: {port: 0, state_dir: state}\nproviders:\n  \
                  - {name: Fixed, type: generic, base_url: 'https://x', auth_value: k}\n  \
                  - {name: Kept, type: generic, base_url: 'https://x', auto_refresh_config: {credentials_file: ./token.json}}\n  \
                  - {name: Printed, type: generic, base_url: 'https://x', auto_refresh_config: {token_command: [echo, t]}}\n";
    std::fs::write(path.join("providers.yaml"), config).unwrap();
    for (name, part) in [
        ("fixed", "Provider Fixed is not refreshed: it has no auto_refresh_config"),
        (
            "kept",
            "its credential is in a file that another program keeps, so there is no login to end",
        ),
        ("printed", "Provider Printed has no login to end: its token_command brings its tokens"),
        ("none", "There is no provider 'none'; there are: fixed, kept, printed"),
    ] {
        let output = run(path, &["logout", "--provider", name], &VARIABLES);
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.contains(part), "{told}");
    }
    assert_eq!(run(path, &["logout"], &VARIABLES).status.code(), Some(2), "a provider is required");
}

#[test]
fn a_grant_without_a_login_says_that_it_brings_new_tokens() {
    let issuer = issuer(|_| answer(200, ""));
    let keys = format!(
        "token_url: {url}/token\nrevocation_url: {url}/revoke\ngrant_type: client_credentials\n\
         client_secret_env: SECRET",
        url = issuer.url()
    );
    let folder = folder_with_the_p("http://127.0.0.1:9", &keys);
    let variables = [("HOME", "/nonexistent"), ("ID", "id"), ("SECRET", "s")];
    let running = Binary::start(folder.path(), &["run"], &variables);
    running.wait_for("Successfully refreshed");
    eventually("it is stored", || state(&folder).load().unwrap().is_some());
    let output = run(folder.path(), &LOGOUT, &variables);
    let told = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert!(told.contains("Revoked the access token.\nIts grant needs no login: "), "{told}");
    let tokens =
        || issuer.seen().iter().filter(|seen| seen.line.starts_with("POST /token")).count();
    assert_eq!(tokens(), 1);
    assert_eq!(ask(running.address(), FORCED).status, 200);
    eventually("a new one is asked for", || tokens() == 2);
}

/// The state file cannot be locked while another process refreshes; one that can't be read is left as it is.
#[test]
fn a_state_file_that_can_not_be_read_stays_as_it_is() {
    let issuer = issuer(|_| answer(200, ""));
    let folder = logged_in(&issuer, "revocation_url: URL/revoke");
    let path = state(&folder).path();
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    let output = log_out(&folder);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
    assert!(text(&output.stderr).contains("so it is left as it is"), "{}", text(&output.stderr));
    assert_eq!(revoked(&issuer), [""; 0]);
}

/// A record of a chain whose access token has ended.
#[test]
fn an_access_token_that_has_ended_is_not_revoked() {
    let issuer = issuer(|_| answer(200, ""));
    let folder = logged_in(&issuer, "revocation_url: URL/revoke");
    let mut saved: Saved = state(&folder).load().unwrap().unwrap();
    let access = saved.access.as_mut().unwrap();
    access.expires_at = Timestamp::from_secs(1_700_000_000);
    assert_eq!(access.token, Secret::new("a1"));
    state(&folder).replace(&saved).unwrap();
    assert_eq!(log_out(&folder).status.code(), Some(0));
    assert_eq!(revoked(&issuer), ["token=r2&token_type_hint=refresh_token&client_id=id"]);
}
