//! The search for a chain's state file: two processes on one state folder that name the provider differently, one
//! refresh token at two issuers, and unreadable files, folders and locks.
//!
//! The judge is an issuer that revokes a family of refresh tokens when one of them comes twice.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use crate::support::client::get;
use crate::support::issuer::StrictIssuer;
use crate::support::proxy::{Builder, TestProxy};
use crate::support::world::{LIFETIME_SECS, World, of_env, order, sent};
use crate::support::{eventually, unwritable};

fn token(number: usize) -> String {
    format!("Bearer access-the-seed-{number}")
}

/// The obstacle that the refresher of the provider at `index` waits for, "" for none.
fn waits(proxy: &TestProxy, index: usize) -> String {
    let status = proxy.ask(get("/-/status")).json();
    status["providers"][index]["waiting"]["for"].as_str().unwrap_or_default().to_owned()
}

#[track_caller]
fn is_ready(proxy: &TestProxy) {
    eventually("the first token", || proxy.ask(get("/-/ready")).status == 200);
}

#[test]
fn one_refresh_token_at_two_issuers_is_two_chains_whatever_becomes_of_one() {
    let cases = ["taken out", "disabled", "not refreshed any more"];
    for (what, is_client) in cases.into_iter().flat_map(|what| [(what, false), (what, true)]) {
        let world = World::new();
        let other = StrictIssuer::start(LIFETIME_SECS);
        let of_b = of_env(&other.url());
        let of_b = if is_client { of_b.replace("CLIENT_ID", "OTHER_ID") } else { of_b };
        let (url, of_a) = (world.provider.url(), of_env(&world.issuer.url()));
        let start = || world.described().variable("OTHER_ID", "another-client");
        let with = |of_a: &str| {
            start().provider("A", "anthropic", &url, of_a).provider("B", "anthropic", &url, &of_b)
        };
        let proxy = with(&of_a).start();
        is_ready(&proxy);
        assert_eq!((order(&proxy, "b"), order(&proxy, "a"), order(&proxy, "a")), (200, 200, 200));
        drop(proxy);
        let after = match what {
            "taken out" => start().provider("B", "anthropic", &url, &of_b),
            "disabled" => with(&format!("enabled: false\n{of_a}")),
            _ => with(&of_a.replace("enabled: true", "enabled: false")),
        };
        let proxy = after.start();
        assert_eq!(sent(&proxy, "b"), token(2), "{what}: its own, not that of A");
        assert_eq!(order(&proxy, "b"), 200, "{what}");
        if what.starts_with("not") {
            assert_eq!(sent(&proxy, "a"), token(3), "{what}");
        }
        drop(proxy);
        let proxy = with(&of_a).start();
        assert_eq!((order(&proxy, "a"), order(&proxy, "b")), (200, 200), "{what}");
        assert_eq!((sent(&proxy, "a"), sent(&proxy, "b")), (token(4), token(4)), "{what}");
        assert_eq!(world.files(".json"), ["a.json", "b.json"], "{what}");
        world.nothing_came_twice();
        assert_eq!(other.revoked(), [""; 0], "{what}");
    }
}

#[test]
fn a_provider_whose_token_url_or_client_was_corrected_keeps_its_chain() {
    let world = World::new();
    let url = world.provider.url();
    let right = of_env(&world.issuer.url());
    let changes = [
        right.replace("\"\n  client", "/v2\"\n  client"),
        right.replace("CLIENT_ID", "OTHER_ID"),
        right.clone(),
    ];
    let described = |lines: &str| {
        let start = world.described().variable("OTHER_ID", "another-client");
        start.provider("A", "anthropic", &url, lines)
    };
    let mut proxy = described(&right).start();
    is_ready(&proxy);
    for (number, lines) in (1..).zip(&changes) {
        for restarts in [true, false] {
            let number = 2 * number - usize::from(restarts);
            if restarts {
                drop(proxy);
                proxy = described(lines).start();
            } else {
                assert_eq!(proxy.reload(&described(lines)).status, 200);
            }
            eventually("it serves", || proxy.ask(get("/to/a/x")).status == 200);
            assert_eq!(order(&proxy, "a"), 200, "{number}: {lines}");
            world.nothing_came_twice();
        }
    }
    assert_eq!(world.files(".json"), ["a.json"]);
}

#[test]
fn a_state_file_of_an_older_version_is_its_names_or_that_of_a_provider_that_was_renamed() {
    for name in ["A", "Renamed"] {
        let world = World::new();
        let proxy = world.called(&["A"]).start();
        is_ready(&proxy);
        drop(proxy);
        let text = std::fs::read_to_string(world.file("a.json")).unwrap();
        let mut older: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert!(older.as_object_mut().unwrap().remove("client").is_some());
        std::fs::write(world.file("a.json"), older.to_string()).unwrap();
        let proxy = world.called(&[name]).start();
        assert_eq!(sent(&proxy, &name.to_lowercase()), token(1));
        assert_eq!(order(&proxy, &name.to_lowercase()), 200);
        world.nothing_came_twice();
    }
}

#[test]
fn two_processes_that_call_a_provider_differently_have_one_file_and_one_lock() {
    let cases: [(&[&str], &[&str]); 4] = [
        (&["Old"], &["New"]),
        (&["New"], &["Old"]),
        (&["Claude", "Claude API"], &["Claude API"]),
        (&["Claude API"], &["Claude", "Claude API"]),
    ];
    for (names, of_second) in cases {
        let slug = |names: &[&str]| names[names.len() - 1].to_lowercase().replace(' ', "-");
        let world = World::new();
        let first = world.called(names).start();
        is_ready(&first);
        let second = world.called(of_second).start();
        is_ready(&second);
        assert_eq!(sent(&second, &slug(of_second)), token(1), "{names:?}");
        for _ in 0..2 {
            assert_eq!(order(&second, &slug(of_second)), 200);
            assert_eq!(order(&first, &slug(names)), 200);
            assert_eq!(order(&first, &slug(names)), 200);
            world.nothing_came_twice();
            assert_eq!(world.files(".json").len(), 1, "{names:?}: {:?}", world.files(".json"));
        }
        // The first is reloaded, as it is and with a change, and so is the second.
        for (proxy, own) in [(&first, names), (&second, of_second)] {
            for header in ["", "headers: { x-own: \"1\" }\n"] {
                let url = world.provider.url();
                let lines =
                    format!("{header}{}\n  retry_interval: 60", of_env(&world.issuer.url()));
                let one = |builder: Builder, name: &&str| {
                    builder.provider(name, "anthropic", &url, &lines)
                };
                assert_eq!(proxy.reload(&own.iter().fold(world.described(), one)).status, 200);
                assert_eq!(order(&second, &slug(of_second)), 200);
                assert_eq!(order(&first, &slug(names)), 200);
                world.nothing_came_twice();
            }
        }
        assert_eq!(world.files(".json").len(), 1, "{names:?}: {:?}", world.files(".json"));
        // The second goes on alone.
        drop(first);
        assert_eq!(order(&second, &slug(of_second)), 200);
        drop(second);
        let again = world.called(of_second).start();
        assert_eq!(sent(&again, &slug(of_second)), token(world.presented()));
        world.nothing_came_twice();
    }
}

#[test]
fn a_process_that_starts_while_another_refreshes_under_another_name_waits_for_its_outcome() {
    let world = World::new();
    let first = world.called(&["Old"]).start();
    is_ready(&first);
    let held = world.issuer.hold_next();
    eventually("a refresh is under way", || {
        // The first one may be about to end, and an order joins it.
        first.refresh_all();
        world.presented() == 2
    });
    let second = world.called(&["New"]).start();
    // The stored token is valid.
    assert_eq!(sent(&second, "new"), token(1));
    second.refresh_all();
    drop(held);
    eventually("the first has its token", || sent(&first, "old") != token(1));
    eventually("the second has one too", || sent(&second, "new") != token(1));
    assert_eq!((order(&second, "new"), order(&first, "old")), (200, 200));
    assert_eq!(world.files(".json").len(), 1);
    world.nothing_came_twice();
}

#[test]
fn a_chain_is_begun_by_one_process_alone_whatever_each_calls_it() {
    for is_refused in [false, true] {
        let world = World::new();
        let held = if is_refused {
            world.issuer.hold_and_refuse_next(502, "")
        } else {
            world.issuer.hold_next()
        };
        let first = world.called(&["Old"]).start();
        eventually("the first refresh is under way", || world.presented() == 1);
        let second = world.called(&["New"]).start();
        second.refresh_all();
        first.refresh_all();
        drop(held);
        is_ready(&first);
        is_ready(&second);
        for _ in 0..2 {
            assert_eq!((order(&second, "new"), order(&first, "old")), (200, 200));
        }
        assert_eq!(world.files(".json").len(), 1, "{:?}", world.files(".json"));
        assert_eq!(world.files(".lock").len(), 2, "{:?}", world.files(".lock"));
        world.nothing_came_twice();
    }
}

#[test]
fn a_provider_that_was_renamed_waits_for_its_old_file_to_be_readable() {
    let world = World::new();
    let proxy = world.called(&["Old"]).start();
    is_ready(&proxy);
    drop(proxy);
    let aside = world.base.path().join("aside");
    std::fs::rename(world.file("old.json"), &aside).unwrap();
    symlink("old.json", world.file("old.json")).unwrap();
    let proxy = world.called(&["New"]).start();
    eventually("it says what it waits for", || {
        let waits = waits(&proxy, 0);
        waits.contains("old.json, which can't be read") && waits.contains("change of its name")
    });
    assert_ne!(order(&proxy, "new"), 200);
    assert_eq!(world.presented(), 1, "the seed is not spent");
    std::fs::rename(&aside, world.file("old.json")).unwrap();
    eventually("it goes on", || order(&proxy, "new") == 200);
    assert_eq!(sent(&proxy, "new"), token(2));
    assert_eq!(waits(&proxy, 0), "");
    world.nothing_came_twice();
}

#[test]
fn a_file_that_can_not_be_read_holds_up_nobody_but_its_own_provider() {
    let world = World::new();
    symlink("old.json", world.file("old.json")).unwrap();
    let url = world.provider.url();
    let fixed = world.called(&["New"]).provider("Old", "anthropic", &url, "auth_value: \"key\"");
    let proxy = fixed.start();
    assert_eq!(sent(&proxy, "new"), token(1));
}

#[test]
fn what_stands_in_the_place_of_the_lock_is_waited_for_and_a_lock_that_nobody_can_hold_is_not() {
    let makes: [fn(&Path); 3] = [
        |path| std::fs::create_dir(path).unwrap(),
        |path| assert!(Command::new("mkfifo").arg(path).status().unwrap().success()),
        |path| symlink(path, path).unwrap(),
    ];
    for make in makes {
        let world = World::new();
        let proxy = world.called(&["A"]).start();
        is_ready(&proxy);
        drop(proxy);
        let path = world.file("a.lock");
        std::fs::remove_file(&path).unwrap();
        make(&path);
        let proxy = world.called(&["A"]).start();
        assert_eq!(sent(&proxy, "a"), token(1), "what is stored serves");
        proxy.refresh_all();
        eventually("it says what it waits for", || {
            waits(&proxy, 0).contains("a.lock, which can't be used")
        });
        assert_eq!(world.presented(), 1, "another process could be refreshing");
        std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir(&path)).unwrap();
        eventually("it goes on", || sent(&proxy, "a") == token(2));
        world.nothing_came_twice();
    }
    let world = World::new();
    std::fs::remove_file(world.state()).unwrap();
    unwritable(&world.state());
    let proxy = world.called(&["A"]).start();
    assert_eq!(sent(&proxy, "a"), token(1), "a folder that can't be written");
    assert_eq!(waits(&proxy, 0), "");
}

#[test]
fn a_token_that_could_not_be_stored_serves_on_where_refreshing_is_turned_off() {
    let world = World::new();
    let proxy = world.called(&["A"]).start();
    is_ready(&proxy);
    // The folder is there and can't be written: what it holds is a token behind.
    std::fs::remove_file(world.state()).unwrap();
    unwritable(&world.state());
    assert_eq!(order(&proxy, "a"), 200);
    let off = of_env(&world.issuer.url()).replace("enabled: true", "enabled: false");
    for header in ["1", "2"] {
        let lines = format!("headers: {{ x-own: \"{header}\" }}\n{off}");
        let after = world.described().provider("A", "anthropic", &world.provider.url(), &lines);
        assert_eq!(proxy.reload(&after).status, 200);
        assert_eq!(sent(&proxy, "a"), token(2), "the newest is in memory");
    }
    assert_eq!(proxy.reload(&world.called(&["A"])).status, 200);
    assert_eq!(order(&proxy, "a"), 200);
    assert_eq!(sent(&proxy, "a"), token(3));
    world.nothing_came_twice();
}

#[test]
fn two_processes_in_which_two_providers_changed_accounts_each_find_their_chains() {
    let world = World::new();
    world.issuer.knows("other-seed");
    let other = of_env(&world.issuer.url()).replace("REFRESH_TOKEN", "OTHER");
    let own = of_env(&world.issuer.url());
    let with = |of_a: &str, of_b: &str| {
        let url = world.provider.url();
        let start = world.described().variable("OTHER", "other-seed").variable("NEXT", "next-seed");
        start.provider("A", "anthropic", &url, of_a).provider("B", "anthropic", &url, of_b)
    };
    let first = with(&own, &other).start();
    is_ready(&first);
    let second = with(&other, &own).start();
    is_ready(&second);
    for _ in 0..2 {
        for proxy in [&first, &second, &first] {
            assert_eq!((order(proxy, "a"), order(proxy, "b")), (200, 200));
            world.nothing_came_twice();
        }
        assert!(sent(&first, "a").contains("the-seed"), "{}", sent(&first, "a"));
        assert!(sent(&second, "a").contains("other-seed"), "{}", sent(&second, "a"));
    }
    // Both are given another refresh token, which begins a chain.
    world.issuer.knows("next-seed");
    let held = world.issuer.hold_next();
    let next = other.replace("OTHER", "NEXT");
    assert_eq!(first.reload(&with(&own, &next)).status, 200);
    eventually("it is tried", || world.issuer.presented().contains(&"next-seed".to_owned()));
    assert_eq!(second.reload(&with(&next, &own)).status, 200);
    drop(held);
    for (proxy, slug) in [(&first, "b"), (&second, "a")] {
        eventually("the new chain", || sent(proxy, slug).contains("next-seed"));
        assert_eq!(order(proxy, slug), 200);
    }
    world.nothing_came_twice();
}
