//! The scope in refreshes after a login (RFC 6749 §5.1, §6): never more than was granted. And tokens that are asked for
//! anew each time, if something else is asked for.

use std::io::Write;
use std::path::Path;
use std::sync::Mutex;

use rustix::process::Signal;

use crate::support::binary::{Binary, run, text};
use crate::support::client::get;
use crate::support::peer::{Peer, Seen, answer};
use crate::support::proxy::TestProxy;

const VARIABLES: [(&str, &str); 3] = [("HOME", "/nonexistent"), ("ID", "id"), ("SEED", "seed-1")];
const REFRESH: [&str; 3] = ["refresh", "--provider", "p"];

/// A configuration that logs in at `issuer` and asks for `scope`.
fn configure(folder: &Path, issuer: &Peer, scope: &str) {
    let config = format!(
        "settings: {{port: 0, state_dir: state}}
providers:
  - name: P
    type: generic
    base_url: http://127.0.0.1:9
    auto_refresh_config:
      token_url: {}/token
      client_id_env: ID
      authorization_url: http://127.0.0.1:9/authorize
      {scope}
",
        issuer.url()
    );
    std::fs::write(folder.join("providers.yaml"), config).unwrap();
}

/// An issuer that grants `scope` (a member of its answer, or nothing) at each request.
fn granting(scope: &'static str) -> Peer {
    let asked = Mutex::new(0);
    Peer::answering(move |_| {
        let mut asked = asked.lock().unwrap();
        *asked += 1;
        let number = *asked;
        answer(
            200,
            &format!(
                r#"{{"access_token":"a{number}","refresh_token":"r{number}","expires_in":3600{scope}}}"#
            ),
        )
    })
}

/// Logs in by pasting; what was said.
#[track_caller]
fn log_in(folder: &Path) -> Vec<String> {
    let arguments = ["login", "--provider", "p", "--paste", "--no-browser"];
    let (mut login, mut stdin) = Binary::start_talking(folder, &arguments, &VARIABLES);
    let address = login.wait_for("  http");
    let state = address.split("state=").nth(1).unwrap().split('&').next().unwrap();
    writeln!(stdin, "the-code#{state}").unwrap();
    assert_eq!(login.code(), Some(0), "{:#?}", login.lines());
    login.lines()
}

/// The `scope` of a token request.
fn scope_of(seen: &Seen) -> Option<String> {
    let body = std::str::from_utf8(&seen.body).unwrap();
    let scope = body.split('&').find_map(|pair| pair.strip_prefix("scope="));
    scope.map(|scope| scope.replace('+', " "))
}

/// Logs in with `asked` at an issuer that says `granted`, and refreshes once with `later` configured: the
/// scope that the refresh asked for, and what the login said.
#[track_caller]
fn refreshed(asked: &str, granted: &'static str, later: &str) -> (Option<String>, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let issuer = granting(granted);
    configure(folder.path(), &issuer, asked);
    let told = log_in(folder.path());
    configure(folder.path(), &issuer, later);
    let output = run(folder.path(), &REFRESH, &VARIABLES);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    (scope_of(&issuer.seen()[1]), told)
}

const ASKED: &str = "scope: openid offline_access models";
const ALL: Option<&str> = Some("openid offline_access models");

#[test]
fn a_refresh_asked_for_more_than_the_login_was_granted() {
    let narrower = r#","scope":"openid offline_access""#;
    let (scope, told) = refreshed(ASKED, narrower, ASKED);
    assert_eq!(scope, None, "what was not granted can't be asked for (RFC 6749 §6)");
    let said = "The issuer granted the scope 'openid offline_access' and not all of 'openid offline_access models'";
    assert!(told.iter().any(|line| line.contains(said)), "{told:#?}");
}

#[test]
fn a_refresh_asks_for_the_configured_scope_only_where_it_was_granted() {
    for (asked, granted, later, sent) in [
        // Without a word from the issuer, what was asked for was granted (RFC 6749 §5.1).
        (ASKED, "", ASKED, ALL),
        (ASKED, r#","scope":"""#, ASKED, ALL),
        (ASKED, r#","scope":null"#, ASKED, ALL),
        // The order has no meaning (RFC 6749 §3.3).
        (ASKED, r#","scope":"models  offline_access openid""#, ASKED, ALL),
        (ASKED, r#","scope":["models","offline_access","openid"]"#, ASKED, ALL),
        (ASKED, r#","scope":"openid offline_access models more""#, ASKED, None),
        (ASKED, r#","scope":"openid""#, "scope: openid", Some("openid")),
        // The configuration was changed after the login.
        (ASKED, "", "scope: openid", None),
        (ASKED, "", "", None),
        ("", "", ASKED, None),
        ("", r#","scope":"openid offline_access models""#, ASKED, ALL),
    ] {
        let (scope, told) = refreshed(asked, granted, later);
        assert_eq!(scope.as_deref(), sent, "{asked} {granted} {later}");
        let is_told = told.iter().any(|line| line.contains("The issuer granted the scope"));
        assert!(!is_told || granted.contains(r#""openid""#), "{granted}: {told:#?}");
    }
}

#[test]
fn a_running_evertoken_and_a_restarted_one_go_by_the_granted_scope() {
    let folder = tempfile::tempdir().unwrap();
    let issuer = granting(r#","scope":"openid offline_access""#);
    configure(folder.path(), &issuer, ASKED);
    let mut running = Binary::start(folder.path(), &["run"], &VARIABLES);
    running.wait_for("There is no refresh token yet");
    log_in(folder.path());
    running.wait_for("Using the login that was stored");
    for asked in [2, 3] {
        running.signal(Signal::USR1);
        crate::support::eventually("a refresh", || issuer.seen().len() == asked);
        assert_eq!(scope_of(&issuer.seen()[asked - 1]), None);
        running.signal(Signal::TERM);
        assert_eq!(running.code(), Some(0));
        running = Binary::start(folder.path(), &["run"], &VARIABLES);
        running.wait_for("Using the stored token");
    }
}

/// A refresh reads the state file too, and may find the login before the look that is for it.
#[test]
fn a_login_that_a_refresh_finds_is_said_as_one() {
    let folder = tempfile::tempdir().unwrap();
    let issuer = granting(r#","scope":"openid offline_access""#);
    configure(folder.path(), &issuer, ASKED);
    let running = Binary::start(folder.path(), &["run"], &VARIABLES);
    running.wait_for("There is no refresh token yet");
    log_in(folder.path());
    running.signal(Signal::USR1);
    running.wait_for("Using the login that was stored");
}

#[test]
fn a_seed_asks_for_the_configured_scope() {
    let folder = tempfile::tempdir().unwrap();
    let issuer = granting(r#","scope":"openid""#);
    let scope = format!("{ASKED}\n      refresh_token_env: SEED");
    configure(folder.path(), &issuer, &scope);
    for _ in 0..2 {
        let output = run(folder.path(), &REFRESH, &VARIABLES);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    }
    let scopes: Vec<_> = issuer.seen().iter().map(scope_of).collect();
    assert_eq!(scopes, [ALL.map(str::to_owned), ALL.map(str::to_owned)]);
}

/// The token for the old audience served until it ended.
#[test]
fn a_restart_went_on_with_a_token_for_another_scope_or_audience() {
    let provider = Peer::telling_the_credential();
    let issuer = Peer::answering(|seen| {
        let asked = form_urlencoded::parse(&seen.body);
        let named = asked.filter(|(name, _)| name == "scope" || name == "audience");
        let named: Vec<_> = named.map(|(_, value)| value.into_owned()).collect();
        let body = format!(r#"{{"access_token":"{}","expires_in":3600}}"#, named.join("-"));
        answer(200, &body)
    });
    for way in [
        "client_id_env: CLIENT_ID\n  client_secret_env: CLIENT_SECRET\n  grant_type: client_credentials",
        "grant_type: token_exchange\n  subject_token_env: CLIENT_SECRET",
        "token_request: {method: POST}",
    ] {
        let with = |scope: &str, audience: &str| {
            let lines = format!(
                "auto_refresh_config:\n  token_url: '{}'\n  {way}\n  scope: {scope}\n  extra_params: {{audience: {audience}}}\n",
                issuer.url()
            );
            TestProxy::builder().provider("P", "anthropic", &provider.url(), &lines)
        };
        let mut proxy = with("one", "a").start();
        assert_eq!(proxy.ask(get("/x")).body, "Bearer one-a", "{way}");
        let count = issuer.seen().len();
        proxy = with("one", "a").folder(proxy.into_folder()).start();
        assert_eq!(proxy.ask(get("/x")).body, "Bearer one-a", "{way}");
        assert_eq!(issuer.seen().len(), count, "the stored token is used");
        for (scope, audience) in [("two", "a"), ("two", "b")] {
            proxy = with(scope, audience).folder(proxy.into_folder()).start();
            let expected = format!("Bearer {scope}-{audience}");
            assert_eq!(proxy.ask(get("/x")).body, expected, "{way}");
        }
        assert_eq!(proxy.reload(&with("three", "b")).status, 200);
        assert_eq!(proxy.ask(get("/x")).body, "Bearer three-b", "{way}");
    }
}

/// The file of its tokens was taken for another one's, so each start asked for another token and wrote the next file,
/// until there was no number left.
#[test]
fn client_credentials_after_a_refresh_token_of_the_same_client_took_a_new_file_at_each_start() {
    let provider = Peer::telling_the_credential();
    let issuer = Peer::answering(|seen| {
        let is_refresh = seen.body.windows(13).any(|part| part == b"refresh_token");
        let next = if is_refresh { r#","refresh_token":"next""# } else { "" };
        answer(200, &format!(r#"{{"access_token":"token","expires_in":3600{next}}}"#))
    });
    let with = |way: &str| {
        let lines = format!(
            "auto_refresh_config:\n  token_url: '{}'\n  client_id_env: CLIENT_ID\n  client_secret_env: CLIENT_SECRET\n  {way}\n",
            issuer.url()
        );
        TestProxy::builder().provider("P", "anthropic", &provider.url(), &lines)
    };
    let mut proxy = with("refresh_token_env: TOKEN").variable("TOKEN", "seed").start();
    assert_eq!(proxy.ask(get("/x")).body, "Bearer token");
    for _ in 0..3 {
        proxy = with("grant_type: client_credentials\n  scope: one")
            .folder(proxy.into_folder())
            .start();
        assert_eq!(proxy.ask(get("/x")).body, "Bearer token");
    }
    assert_eq!(issuer.seen().len(), 2, "the stored token is used");
}
