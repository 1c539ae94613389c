//! Several providers with one refresh token share its chain; and a chain is found under another name.
//!
//! The judge is an issuer that revokes a family of refresh tokens when one of them comes twice.

use std::sync::Arc;

use evertoken::testing::Clock;
use evertoken::testing::Headers;
use evertoken::testing::Secret;
use evertoken::testing::Supervisor;
use evertoken::testing::TokenFields;
use evertoken::testing::TokenStore;
use evertoken::testing::groups;
use evertoken::testing::read_grant;
use evertoken::testing::store_login;
use evertoken::testing::{Environment, place_of, refresher_setup};

use crate::support::binary::{run, text};
use crate::support::client::{get, post};
use crate::support::eventually;
use crate::support::issuer::StrictIssuer;
use crate::support::peer::{Peer, answer};
use crate::support::proxy::{Builder, TestProxy};

/// A provider of these tests: name, variable of the refresh token, more lines.
type Entry<'a> = (&'a str, &'a str, &'a str);

const NO_MORE: &str = "";
const LIFETIME_SECS: u64 = 3600;

/// Providers that tell the credential they were shown, of the issuer's tokens.
fn described(provider: &Peer, issuer: &StrictIssuer, entries: &[Entry<'_>]) -> Builder {
    let start = TestProxy::builder().variable("SEED", "the-seed").variable("OTHER", "other-seed");
    entries.iter().fold(start, |builder, (name, variable, more)| {
        let seed = match *variable {
            "" => "authorization_url: \"https://login.example/\"".to_owned(),
            variable => format!("refresh_token_env: {variable}"),
        };
        let lines = format!(
            "{more}\nauto_refresh_config:\n  token_url: \"{}\"\n  client_id_env: CLIENT_ID\n  {seed}",
            issuer.url()
        );
        builder.provider(name, "anthropic", &provider.url(), &lines)
    })
}

/// The two usual ones.
fn both(provider: &Peer, issuer: &StrictIssuer) -> Builder {
    described(provider, issuer, &[("A", "SEED", NO_MORE), ("B", "SEED", NO_MORE)])
}

fn refresh(proxy: &TestProxy, slug: &str) -> u16 {
    proxy.ask(post(&format!("/-/refresh/{slug}"), "")).status
}

fn sent_by(proxy: &TestProxy, slug: &str) -> String {
    proxy.ask(get(&format!("/to/{slug}/x"))).body
}

/// The names in a state folder that end so.
fn files(folder: &std::path::Path, end: &str) -> Vec<String> {
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
    names.retain(|name| name.ends_with(end));
    names.sort();
    names
}

#[test]
fn two_providers_with_one_refresh_token_share_one_refresh_and_have_a_row_each() {
    let (provider, issuer) = (Peer::telling_the_credential(), StrictIssuer::start(LIFETIME_SECS));
    let proxy = both(&provider, &issuer).start();
    assert_eq!(sent_by(&proxy, "a"), "Bearer access-the-seed-1");
    assert_eq!(sent_by(&proxy, "b"), "Bearer access-the-seed-1");
    assert_eq!(refresh(&proxy, "b"), 200);
    assert_eq!(sent_by(&proxy, "a"), "Bearer access-the-seed-2");
    assert_eq!(refresh(&proxy, "a"), 200);
    assert_eq!(sent_by(&proxy, "b"), "Bearer access-the-seed-3");
    proxy.refresh_all();
    eventually("one refresh for both", || sent_by(&proxy, "b") == "Bearer access-the-seed-4");
    assert_eq!(issuer.presented().len(), 4);
    let status = proxy.ask(get("/-/status")).json();
    for (index, name) in ["A", "B"].into_iter().enumerate() {
        let row = &status["providers"][index];
        assert_eq!((row["name"].as_str(), row["state"].as_str()), (Some(name), Some("ready")));
        assert_eq!(row["token"]["generation"], 4);
    }
    let metrics = proxy.ask(get("/-/metrics")).body;
    for name in ["A", "B"] {
        assert!(metrics.contains(&format!("evertoken_provider_ready{{provider=\"{name}\"}} 1")));
    }
    assert_eq!(files(proxy.folder(), ".json"), ["a.json"]);
    assert_eq!(issuer.revoked(), [""; 0]);
}

#[test]
fn a_token_that_either_provider_refuses_is_refreshed_once_and_their_cooldowns_are_apart() {
    let issuer = StrictIssuer::start(LIFETIME_SECS);
    let provider = Peer::answering(|seen| {
        let old = seen.field("authorization") == Some("Bearer access-the-seed-1");
        let is_busy = seen.line.contains("/busy");
        answer(
            if is_busy {
                529
            } else if old {
                401
            } else {
                200
            },
            "fine",
        )
    });
    let proxy = both(&provider, &issuer).start();
    eventually("the token is there", || proxy.ask(get("/-/ready")).status == 200);
    assert_eq!(sent_by(&proxy, "b"), "fine");
    assert_eq!(sent_by(&proxy, "a"), "fine");
    assert_eq!(issuer.presented().len(), 2);
    assert_eq!(proxy.ask(get("/to/a/busy")).status, 529);
    let status = proxy.ask(get("/-/status")).json();
    assert_eq!(status["providers"][0]["state"], "cooling_down");
    assert_eq!(status["providers"][1]["state"], "ready");
}

#[test]
fn a_chain_survives_what_becomes_of_its_providers_with_a_restart_and_with_a_reload() {
    let (a, b, seed) = ("A", "B", "SEED");
    let cases: [(&str, &[Entry<'_>]); 11] = [
        ("as they were", &[(a, seed, ""), (b, seed, "")]),
        ("the other way round", &[(b, seed, ""), (a, seed, "")]),
        ("the first taken out", &[(b, seed, "")]),
        ("the second taken out", &[(a, seed, "")]),
        ("the first disabled", &[(a, seed, "enabled: false"), (b, seed, "")]),
        ("the second disabled", &[(a, seed, ""), (b, seed, "enabled: false")]),
        ("the first renamed", &[("Z", seed, ""), (b, seed, "")]),
        ("both renamed", &[("Y", seed, ""), ("Z", seed, "")]),
        ("another joins before them", &[("0", seed, ""), (a, seed, ""), (b, seed, "")]),
        ("the first on another chain", &[(a, "OTHER", ""), (b, seed, "")]),
        ("the first waits for a login", &[(a, "", ""), (b, seed, "")]),
    ];
    for (what, entries) in cases {
        for restarts in [false, true] {
            let provider = Peer::telling_the_credential();
            let issuer = StrictIssuer::start(LIFETIME_SECS);
            issuer.knows("other-seed");
            let mut proxy = both(&provider, &issuer).start();
            eventually("the first token", || proxy.ask(get("/-/ready")).status == 200);
            assert_eq!(refresh(&proxy, "a"), 200);
            // There and back again.
            for (expected, entries) in [(3, entries), (4, &[(a, seed, ""), (b, seed, "")])] {
                let after = described(&provider, &issuer, entries);
                if restarts {
                    proxy = after.folder(proxy.into_folder()).start();
                } else {
                    assert_eq!(proxy.reload(&after).status, 200);
                }
                let on_chain =
                    |(_, variable, more): &&Entry<'_>| *variable == seed && more.is_empty();
                let one = entries.iter().find(on_chain).unwrap().0.to_lowercase();
                let token = format!("Bearer access-the-seed-{}", expected - 1);
                assert_eq!(sent_by(&proxy, &one), token, "{what}, restarts: {restarts}");
                assert_eq!(refresh(&proxy, &one), 200, "{what}, restarts: {restarts}");
                for (name, ..) in entries.iter().filter(on_chain) {
                    let token = format!("Bearer access-the-seed-{expected}");
                    let sent = sent_by(&proxy, &name.to_lowercase());
                    assert_eq!(sent, token, "{what}, restarts: {restarts}");
                }
                assert_eq!(issuer.revoked(), [""; 0], "{what}, restarts: {restarts}");
            }
        }
    }
}

#[test]
fn providers_that_kept_a_file_each_go_on_with_the_newest() {
    let (provider, issuer) = (Peer::telling_the_credential(), StrictIssuer::start(LIFETIME_SECS));
    let alone = |name| described(&provider, &issuer, &[(name, "SEED", NO_MORE)]);
    // Before they shared a chain, one of the two was logged out at the first refresh of the other.
    let mut proxy = alone("B").start();
    eventually("the first token", || proxy.ask(get("/-/ready")).status == 200);
    std::fs::copy(proxy.folder().join("b.json"), proxy.folder().join("a.json")).unwrap();
    assert_eq!(refresh(&proxy, "b"), 200);
    proxy = both(&provider, &issuer).folder(proxy.into_folder()).start();
    assert_eq!(sent_by(&proxy, "a"), "Bearer access-the-seed-2");
    assert_eq!(refresh(&proxy, "a"), 200);
    assert_eq!(issuer.revoked(), [""; 0]);
    assert!(!proxy.folder().join("a.json").exists(), "the older one is moved aside");
    let aside = std::fs::read_dir(proxy.folder()).unwrap();
    let aside = aside.filter(|entry| {
        let name = entry.as_ref().unwrap().file_name().into_string().unwrap();
        name.starts_with("a.superseded-2")
    });
    assert_eq!(aside.count(), 1);
}

#[test]
fn a_refresh_token_that_is_missing_for_two_providers_is_still_that_of_one_chain() {
    let (provider, issuer) = (Peer::telling_the_credential(), StrictIssuer::start(LIFETIME_SECS));
    let proxy = both(&provider, &issuer).start();
    eventually("the first token", || proxy.ask(get("/-/ready")).status == 200);
    let unset = both(&provider, &issuer).variable("SEED", "");
    let proxy = unset.folder(proxy.into_folder()).start();
    assert_eq!(sent_by(&proxy, "b"), "Bearer access-the-seed-1");
    assert_eq!(refresh(&proxy, "b"), 200);
    assert_eq!(sent_by(&proxy, "a"), "Bearer access-the-seed-2");
}

#[test]
fn a_provider_that_was_renamed_while_nothing_ran_keeps_its_chain() {
    let (provider, issuer) = (Peer::telling_the_credential(), StrictIssuer::start(LIFETIME_SECS));
    let called = |name| described(&provider, &issuer, &[(name, "SEED", NO_MORE)]);
    let proxy = called("Old").start();
    eventually("the first token", || proxy.ask(get("/-/ready")).status == 200);
    let proxy = called("New").folder(proxy.into_folder()).start();
    assert_eq!(sent_by(&proxy, "new"), "Bearer access-the-seed-1");
    assert_eq!(refresh(&proxy, "new"), 200);
    assert_eq!(issuer.revoked(), [""; 0]);
    assert_eq!(files(proxy.folder(), ".json"), ["new.json"]);
}

#[test]
fn other_refresh_tokens_other_clients_and_client_credentials_are_chains_of_their_own() {
    let (provider, issuer) = (Peer::telling_the_credential(), StrictIssuer::start(LIFETIME_SECS));
    issuer.knows("other-seed");
    let proxy =
        described(&provider, &issuer, &[("A", "SEED", NO_MORE), ("B", "OTHER", NO_MORE)]).start();
    assert_eq!(sent_by(&proxy, "a"), "Bearer access-the-seed-1");
    assert_eq!(sent_by(&proxy, "b"), "Bearer access-other-seed-1");
    assert_eq!(files(proxy.folder(), ".json"), ["a.json", "b.json"]);
}

/// Runs the real binary on this configuration and the state folder of `proxy`.
fn command(described: &Builder, proxy: &TestProxy, arguments: &[&str]) -> std::process::Output {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("providers.yaml"), described.text(proxy.folder())).unwrap();
    let variables = [
        ("HOME", "/nonexistent"),
        ("CLIENT_ID", "abc12-client"),
        ("SEED", "the-seed"),
        ("OTHER", "other-seed"),
    ];
    run(folder.path(), arguments, &variables)
}

#[test]
fn the_command_refreshes_the_chain_of_either_provider_where_it_is() {
    let (provider, issuer) = (Peer::telling_the_credential(), StrictIssuer::start(LIFETIME_SECS));
    let proxy = both(&provider, &issuer).start();
    assert_eq!(sent_by(&proxy, "a"), "Bearer access-the-seed-1");
    let same = both(&provider, &issuer);
    // Renamed in the file, and not yet in what runs.
    let renamed = described(&provider, &issuer, &[("C", "SEED", NO_MORE), ("D", "SEED", NO_MORE)]);
    for (described, name) in [(&same, "B"), (&same, "a"), (&renamed, "D"), (&renamed, "c")] {
        let done = command(described, &proxy, &["refresh", "--provider", name]);
        assert_eq!(done.status.code(), Some(0), "{name}: {}", text(&done.stderr));
    }
    assert_eq!(refresh(&proxy, "b"), 200);
    // The last command's token is used, or refreshed once more.
    assert!(issuer.presented().len() >= 5, "{:?}", issuer.presented());
    assert_eq!(issuer.revoked(), [""; 0]);
    assert_eq!(files(proxy.folder(), ".json"), ["a.json"]);
}

#[test]
fn a_login_to_either_provider_is_one_to_both() {
    let (provider, issuer) = (Peer::telling_the_credential(), StrictIssuer::start(LIFETIME_SECS));
    let proxy = both(&provider, &issuer).start();
    assert_eq!(sent_by(&proxy, "a"), "Bearer access-the-seed-1");
    let config = both(&provider, &issuer).config(proxy.folder());
    let mut environment = Environment {
        clock: Clock::system(),
        rng: fastrand::Rng::with_seed(u64::MAX),
        timer: crossbeam_channel::after,
        supervisor: Supervisor::nobody(),
    };
    let groups = groups(&config.providers);
    let of_b = groups.iter().find(|group| group.members.contains(&1)).unwrap();
    let (store, now) = (Arc::new(TokenStore::default()), environment.clock.now());
    let place = place_of(of_b, &config);
    let setup =
        refresher_setup(0, of_b, &place, &config, &store, &mut environment, &|_| 0).unwrap();
    let brought = r#"{"access_token":"by-login","expires_in":3600}"#;
    let fields = TokenFields::default();
    let grant = read_grant(200, &Headers::new(), brought.as_bytes(), &fields, now.wall).unwrap();
    store_login(&setup, &grant, &Secret::new("by-login"), now).unwrap();
    assert_eq!(refresh(&proxy, "a"), 200);
    for slug in ["a", "b"] {
        assert_eq!(sent_by(&proxy, slug), "Bearer by-login");
    }
    assert_eq!(issuer.presented().len(), 1);
}

#[test]
fn check_says_who_shares_a_chain_and_what_stands_against_it() {
    let (provider, issuer) = (Peer::telling_the_credential(), StrictIssuer::start(LIFETIME_SECS));
    let proxy = both(&provider, &issuer).start();
    let checked = command(&both(&provider, &issuer), &proxy, &["check"]);
    assert_eq!(checked.status.code(), Some(0), "{}", text(&checked.stderr));
    let said = text(&checked.stdout);
    let words =
        "A, B have the same refresh token, and so share one chain: one refresh serves all of them";
    assert!(said.contains(words), "{said}");
    // In the words of one of them alone.
    let text_of = both(&provider, &issuer).text(proxy.folder());
    let last = text_of.trim_end().to_owned() + "\n      scope: more\n";
    let elsewhere = tempfile::tempdir().unwrap();
    let check = |config: &str| {
        std::fs::write(elsewhere.path().join("providers.yaml"), config).unwrap();
        let variables =
            [("HOME", "/nonexistent"), ("CLIENT_ID", "one"), ("ID_2", "two"), ("SEED", "the-seed")];
        run(elsewhere.path(), &["check"], &variables)
    };
    let differing = check(&last);
    assert_eq!(differing.status.code(), Some(0), "{}", text(&differing.stderr));
    let said = text(&differing.stdout);
    assert!(said.contains("B differs from A, whose values are used for both: 'scope'"), "{said}");
    let at = text_of.rfind("client_id_env: CLIENT_ID").unwrap();
    let colliding = format!("{}client_id_env: ID_2{}", &text_of[..at], &text_of[at + 24..]);
    let colliding = check(&colliding);
    assert_eq!(colliding.status.code(), Some(0), "{}", text(&colliding.stdout));
    let said = text(&colliding.stderr);
    let words = "A and B have the same refresh token but not the same client_id";
    assert!(said.contains(words), "{said}");
}

#[test]
fn two_providers_that_change_accounts_keep_both_chains() {
    for restarts in [[false, false], [false, true], [true, false], [true, true]] {
        let (provider, issuer) =
            (Peer::telling_the_credential(), StrictIssuer::start(LIFETIME_SECS));
        issuer.knows("other-seed");
        let with = |of_a, of_b| {
            described(&provider, &issuer, &[("A", of_a, NO_MORE), ("B", of_b, NO_MORE)])
        };
        let mut proxy = with("SEED", "OTHER").start();
        eventually("the first tokens", || proxy.ask(get("/-/ready")).status == 200);
        let turns = [("OTHER", "SEED"), ("SEED", "OTHER"), ("OTHER", "SEED")];
        for (number, (of_a, of_b)) in (1..).zip(turns) {
            let after = with(of_a, of_b);
            if restarts[number % 2] {
                proxy = after.folder(proxy.into_folder()).start();
            } else {
                assert_eq!(proxy.reload(&after).status, 200);
            }
            for (slug, variable) in [("a", of_a), ("b", of_b)] {
                let seed = if variable == "SEED" { "the-seed" } else { "other-seed" };
                let token = |number| format!("Bearer access-{seed}-{number}");
                assert_eq!(sent_by(&proxy, slug), token(number), "{restarts:?}");
                assert_eq!(refresh(&proxy, slug), 200);
                assert_eq!(sent_by(&proxy, slug), token(number + 1), "{restarts:?}");
            }
            assert_eq!(issuer.revoked(), [""; 0], "{restarts:?}");
        }
        let proxy = with("OTHER", "SEED").folder(proxy.into_folder()).start();
        assert_eq!(sent_by(&proxy, "a"), "Bearer access-other-seed-4");
        for slug in ["a", "b"] {
            assert!(proxy.folder().join(format!("{slug}.json")).exists(), "{restarts:?}");
        }
    }
}
