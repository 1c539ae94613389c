//! Tokens that must not meet: those of another issuer or client under the same name, of refresh tokens in files that
//! change while evertoken runs, and those that one process has in memory alone while another looks at the disk.
//!
//! The judge is an issuer that revokes a family of refresh tokens when one of them comes twice.

use std::os::unix::fs::symlink;
use std::path::Path;

use crate::support::client::{Client, get, post};
use crate::support::issuer::StrictIssuer;
use crate::support::proxy::TestProxy;
use crate::support::world::{LIFETIME_SECS, World, of_env, order, sent};
use crate::support::{eventually, unwritable};

fn token(of: &str, number: usize) -> String {
    format!("Bearer access-{of}-{number}")
}

#[track_caller]
fn is_ready(proxy: &TestProxy) {
    eventually("the first token", || proxy.ask(get("/-/ready")).status == 200);
}

/// Makes a chain of `file` that of a login.
fn log_in(file: &Path) {
    let mut saved = saved_in(file);
    let hash = saved.remove("seed_hash").unwrap();
    saved.remove("configured_seed");
    saved.insert("login_hash".to_owned(), hash);
    save(file, saved);
}

/// As [`log_in`], where the refresh token that was configured then still is.
fn log_in_and_supersede(file: &Path) {
    let mut saved = saved_in(file);
    let hash = saved.remove("seed_hash").unwrap();
    saved["superseded_seeds"].as_array_mut().unwrap().push(hash.clone());
    saved.insert("login_hash".to_owned(), hash);
    save(file, saved);
}

fn saved_in(file: &Path) -> serde_json::Map<String, serde_json::Value> {
    serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
}

fn save(file: &Path, saved: serde_json::Map<String, serde_json::Value>) {
    std::fs::write(file, serde_json::Value::Object(saved).to_string()).unwrap();
}

#[test]
fn tokens_of_an_issuer_go_to_no_other_that_takes_its_providers_name() {
    let cases = ["refresh_token_env: REFRESH_TOKEN", "authorization_url: \"http://127.0.0.1:9/a\""];
    for (begins, restarts) in cases.into_iter().flat_map(|one| [(one, true), (one, false)]) {
        let what = format!("{begins}, restarts: {restarts}");
        let world = World::new();
        let other = StrictIssuer::start(LIFETIME_SECS);
        let first = of_env(&world.issuer.url());
        let of_first = first.replace("refresh_token_env: REFRESH_TOKEN", begins);
        let of_other = of_env(&other.url()).replace("CLIENT_ID", "OTHER_ID");
        let of_other = of_other.replace("refresh_token_env: REFRESH_TOKEN", begins);
        let of_other = of_other.replace("REFRESH_TOKEN", "MISSING");
        let proxy = world.with(&[("A", &first)]).start();
        is_ready(&proxy);
        drop(proxy);
        if begins.starts_with("auth") {
            log_in(&world.state().join("a.json"));
        }
        let mut proxy = world.with(&[("A", &of_first)]).start();
        assert_eq!(sent(&proxy, "a"), token("the-seed", 1), "{what}");
        if restarts {
            drop(proxy);
            proxy = world.with(&[("A", &of_other)]).start();
        } else {
            assert_eq!(proxy.reload(&world.with(&[("A", &of_other)])).status, 200);
            eventually("the change is made", || proxy.ask(get("/-/ready")).status == 503);
        }
        let shown = world.was_shown();
        assert_ne!(order(&proxy, "a"), 200, "{what}");
        assert_eq!(proxy.ask(get("/to/a/x")).status, 403, "{what}");
        assert_eq!((world.was_shown(), other.presented()), (shown, vec![]), "{what}");
        // It was a mistake, and nothing is lost.
        if restarts {
            drop(proxy);
            proxy = world.with(&[("A", &of_first)]).start();
        } else {
            assert_eq!(proxy.reload(&world.with(&[("A", &of_first)])).status, 200);
        }
        eventually("its own again", || sent(&proxy, "a").contains("access-the-seed"));
        assert_eq!(order(&proxy, "a"), 200, "{what}");
        world.nothing_came_twice();
    }
}

#[test]
fn two_processes_with_a_provider_of_one_name_at_two_issuers_keep_to_their_own() {
    let world = World::new();
    let other = StrictIssuer::start(LIFETIME_SECS);
    other.knows("other-seed");
    let one = || world.with(&[("A", &of_env(&world.issuer.url()))]);
    let two =
        || world.with(&[("A", &of_env(&other.url()))]).variable("REFRESH_TOKEN", "other-seed");
    let (mut first, mut second) = (one().start(), two().start());
    let mut number = 1;
    for restarts in [0, 1, 2, 0] {
        is_ready(&first);
        is_ready(&second);
        number += 1;
        assert_eq!((order(&first, "a"), order(&second, "a")), (200, 200), "{restarts}");
        assert_eq!(sent(&first, "a"), token("the-seed", number), "{restarts}");
        assert_eq!(sent(&second, "a"), token("other-seed", number), "{restarts}");
        match restarts {
            1 => {
                drop(first);
                first = one().start();
            }
            2 => {
                drop(second);
                second = two().start();
                // The first has to see that its place was taken, at the latest when it refreshes.
                assert_eq!(order(&first, "a"), 200, "{:?}", world.issuer.presented());
                assert_eq!(order(&second, "a"), 200);
                number += 1;
                drop(first);
                first = one().start();
            }
            _ => {}
        }
    }
    world.nothing_came_twice();
    assert_eq!(other.revoked(), [""; 0], "{:?}", other.presented());
}

#[test]
fn one_of_two_providers_with_one_refresh_token_is_given_another_in_its_file() {
    for changed in ["a", "b"] {
        let world = World::new();
        world.issuer.knows("other-seed");
        world.write("a", "the-seed");
        world.write("b", "the-seed");
        let (of_a, of_b) = (world.of_file("a"), world.of_file("b"));
        let with = || world.with(&[("A", &of_a), ("B", &of_b)]);
        let proxy = with().start();
        is_ready(&proxy);
        world.write(changed, "other-seed");
        // Nothing parts them before a reload.
        assert_eq!(order(&proxy, "a"), 200);
        for slug in ["a", "b"] {
            assert_eq!(sent(&proxy, slug), token("the-seed", 2), "{changed}");
        }
        assert_eq!(proxy.reload(&with()).status, 200);
        let stays = if changed == "a" { "b" } else { "a" };
        eventually("the other one begins", || sent(&proxy, changed).contains("other-seed"));
        assert_eq!((order(&proxy, "a"), order(&proxy, "b")), (200, 200), "{changed}");
        assert_eq!(sent(&proxy, stays), token("the-seed", 3), "{changed}");
        assert_eq!(sent(&proxy, changed), token("other-seed", 2), "{changed}");
        world.nothing_came_twice();
    }
}

#[test]
fn a_reload_leaves_a_provider_the_chain_that_its_changed_file_began() {
    let world = World::new();
    for seed in ["other-seed", "third-seed"] {
        world.issuer.knows(seed);
    }
    world.write("a", "the-seed");
    let of_a = world.of_file("a");
    let proxy = world.with(&[("A", &of_a)]).start();
    is_ready(&proxy);
    world.write("a", "other-seed");
    assert_eq!(order(&proxy, "a"), 200);
    assert_eq!(sent(&proxy, "a"), token("other-seed", 1));
    // Another provider has the refresh token that this one began with, before a change of its name and after it.
    let third = of_env(&world.issuer.url());
    for name in ["A", "C"] {
        assert_eq!(proxy.reload(&world.with(&[("B", &third), (name, &of_a)])).status, 200);
        let slug = name.to_lowercase();
        eventually("it serves", || sent(&proxy, &slug).contains("access-other-seed"));
        assert_eq!(order(&proxy, &slug), 200, "{:?}", world.issuer.presented());
    }
    let revoked = world.issuer.revoked();
    assert!(!revoked.contains(&"other-seed".to_owned()), "{:?}", world.issuer.presented());
}

#[test]
fn a_chain_is_left_to_the_provider_that_has_it_by_one_whose_refresh_token_it_superseded() {
    for (restarts, logs_in) in [(false, false), (true, false), (false, true), (true, true)] {
        let what = format!("restarts: {restarts}, logs in: {logs_in}");
        let world = World::new();
        world.issuer.knows("other-seed");
        world.write("a", "the-seed");
        let (of_a, third) = (world.of_file("a"), of_env(&world.issuer.url()));
        let with = |name| world.with(&[("B", &third), (name, &of_a)]);
        let mut proxy = world.with(&[("A", &of_a)]).start();
        is_ready(&proxy);
        world.write("a", "other-seed");
        assert_eq!(order(&proxy, "a"), 200);
        if logs_in {
            drop(proxy);
            log_in_and_supersede(&world.state().join("a.json"));
            proxy = world.with(&[("A", &of_a)]).start();
        }
        if restarts {
            drop(proxy);
            proxy = with("C").start();
        } else {
            assert_eq!(proxy.reload(&with("A")).status, 200);
            let failures = || {
                proxy.ask(get("/-/status")).json()["providers"][0]["refresh"]["failures"].as_u64()
            };
            eventually("it is refused", || failures() == Some(1));
            // The file keeps its name for as long as a refresh is under way.
            let held = world.issuer.hold_next();
            let mut client = Client::connect(proxy.address);
            client.send(post("/-/refresh/a", ""));
            eventually("it is held", || {
                world.issuer.presented().last().is_some_and(|one| one == "refresh-other-seed-1")
            });
            assert_eq!(proxy.reload(&with("C")).status, 200);
            eventually("a reload has it try again", || failures() == Some(2));
            drop(held);
        }
        eventually("it serves", || sent(&proxy, "c").contains("access-other-seed"));
        for _ in 0..2 {
            assert_ne!(order(&proxy, "b"), 200, "{what}: {:?}", world.issuer.presented());
            assert_eq!(order(&proxy, "c"), 200, "{what}: {:?}", world.issuer.presented());
        }
        assert_eq!(world.issuer.revoked(), ["the-seed"], "{what}: {:?}", world.issuer.presented());
    }
}

#[test]
fn files_of_two_providers_that_get_one_refresh_token_lead_to_one_chain() {
    for (to_a, to_b) in [("third-seed", "third-seed"), ("the-seed", "the-seed")] {
        let world = World::new();
        for seed in ["other-seed", "third-seed"] {
            world.issuer.knows(seed);
        }
        world.write("a", "the-seed");
        world.write("b", "other-seed");
        let (of_a, of_b) = (world.of_file("a"), world.of_file("b"));
        let with = || world.with(&[("A", &of_a), ("B", &of_b)]);
        let mut proxy = with().start();
        is_ready(&proxy);
        world.write("a", to_a);
        world.write("b", to_b);
        proxy.refresh_all();
        eventually("both have it", || {
            sent(&proxy, "a").contains(to_a) && sent(&proxy, "b").contains(to_b)
        });
        for round in 0..3 {
            assert_eq!((order(&proxy, "b"), order(&proxy, "a")), (200, 200), "{to_a}, {round}");
            for slug in ["a", "b"] {
                assert!(sent(&proxy, slug).contains(to_a), "{to_a}, {round}: {slug}");
            }
            world.nothing_came_twice();
            if round == 0 {
                assert_eq!(proxy.reload(&with()).status, 200);
            } else {
                drop(proxy);
                proxy = with().start();
            }
        }
    }
}

#[test]
fn a_refresh_token_that_moves_to_another_providers_file_takes_its_chain_along() {
    for first in ["a", "b"] {
        let world = World::new();
        for seed in ["other-seed", "third-seed"] {
            world.issuer.knows(seed);
        }
        world.write("a", "the-seed");
        world.write("b", "other-seed");
        let (of_a, of_b) = (world.of_file("a"), world.of_file("b"));
        let with = || world.with(&[("A", &of_a), ("B", &of_b)]);
        let mut proxy = with().start();
        is_ready(&proxy);
        assert_eq!((order(&proxy, "a"), order(&proxy, "b")), (200, 200));
        world.write("a", "third-seed");
        world.write("b", "the-seed");
        for slug in [first, "a", "b"] {
            assert_eq!(order(&proxy, slug), 200, "{first}: {:?}", world.issuer.presented());
        }
        for restarts in [false, true] {
            if restarts {
                drop(proxy);
                proxy = with().start();
            }
            assert_eq!((order(&proxy, "b"), order(&proxy, "a")), (200, 200), "{first}");
            assert!(sent(&proxy, "a").contains("third-seed"), "{first}");
            assert!(sent(&proxy, "b").contains("the-seed"), "{first}");
        }
        world.nothing_came_twice();
    }
}

#[test]
fn a_token_that_could_not_be_stored_is_waited_for_by_other_processes() {
    let world = World::new();
    let with = || world.with(&[("A", &of_env(&world.issuer.url()))]);
    let first = with().start();
    is_ready(&first);
    let held = world.issuer.hold_next();
    first.refresh_all();
    eventually("a refresh is under way", || world.issuer.presented().len() == 2);
    std::fs::remove_file(world.state()).unwrap();
    unwritable(&world.state());
    drop(held);
    eventually("it is in memory", || sent(&first, "a") == token("the-seed", 2));
    // The disk is well again, and still has the one before.
    std::fs::remove_file(world.state()).unwrap();
    symlink(world.base.path().join("disk"), world.state()).unwrap();
    let second = with().start();
    assert_eq!(sent(&second, "a"), token("the-seed", 1), "that has not ended");
    second.refresh_all();
    let state = |proxy: &TestProxy| {
        proxy.ask(get("/-/status")).json()["providers"][0]["state"].as_str().unwrap().to_owned()
    };
    eventually("the second one tries", || state(&second) != "ready");
    assert_eq!(order(&first, "a"), 200, "{:?}", world.issuer.presented());
    eventually("the second one sees it", || sent(&second, "a") != token("the-seed", 1));
    assert_eq!((order(&second, "a"), order(&first, "a")), (200, 200));
    world.nothing_came_twice();
}
