//! Hosts whose configurations name different seeds, as during a rolling change.

use super::*;

/// A host with `seed` that knows the record `stored`.
fn host(seed: &str, stored: &Saved, now: Moment) -> Lifecycle {
    let mut host = Lifecycle::new(policy(Some(seed)), None, now);
    host.record_configured_seed();
    host.take_up(TOKEN_STORE, stored.clone(), now);
    host
}

/// A restart with another seed; the state file names the seed that was configured before.
fn restart(before: &Lifecycle, seed: &str, now: Moment) -> Lifecycle {
    let mut again = Lifecycle::new(policy(Some(seed)), Some(before.saved().clone()), now);
    again.record_configured_seed();
    again
}

/// The record of a chain that began with `seed`, its token good for an hour.
fn chain_of(seed: &str) -> Saved {
    let mut machine = Lifecycle::new(policy(Some(seed)), None, START);
    succeed(&mut machine, &grant("a-old", Some("r-old"), 3_600_000), START)
}

/// Seen with two hosts: they refreshed against each other every 5 s.
#[test]
fn a_host_with_the_old_seed_uses_the_chain_of_the_new_one() {
    let old = chain_of("s1");
    let now = later(START, 60_000);
    let (mut one, mut other) = (host("s1", &old, now), host("s2", &old, now));
    assert_eq!((one.superseded_seed(), presented(&one).as_str()), (None, "r-old"));
    assert_eq!((other.next(now), presented(&other).as_str()), (Instruction::Refresh, "s2"));
    let marked = other.begin(&other.presented(), now).unwrap();
    one.take_up(TOKEN_STORE, marked, now);
    assert!(one.token().is_some(), "its token is good until it is replaced");
    let begun = succeed(&mut other, &grant("a-new", Some("r-new"), 3_600_000), now);
    assert!(one.take_up(TOKEN_STORE, begun.clone(), now));
    assert_eq!(one.token().unwrap().secret, Secret::new("a-new"));
    assert_eq!(one.superseded_seed(), Some(Secret::new("s1").hash()));
    assert_eq!(presented(&one), "r-new");
    assert!(wait(&one, now) > 3_000_000, "nothing is refreshed against it");
    // It refreshes the new chain when that is due, and the chain's beginning stays.
    let due = later(now, HOUR_MS);
    let next = succeed(&mut one, &grant("a-3", Some("r-3"), 3_600_000), due);
    assert_eq!(next.seed_hash, Some(Secret::new("s2").hash()));
    other.take_up(TOKEN_STORE, next.clone(), due);
    assert_eq!((other.superseded_seed(), presented(&other).as_str()), (None, "r-3"));
    // A host that is started with the old seed, and an empty state folder, too.
    let late = host("s1", &next, due);
    assert_eq!(late.token().unwrap().secret, Secret::new("a-3"));
    // And one whose state file is of last week.
    let mut lagging = Lifecycle::new(policy(Some("s1")), Some(old), due);
    assert!(lagging.take_up(TOKEN_STORE, next, due));
    assert_eq!(presented(&lagging), "r-3");
}

/// Seen in the simulation: a host whose seed was no good from the start stayed without a token.
#[test]
fn a_seed_that_was_refused_or_whose_answer_was_lost_is_superseded_too() {
    let silent = Failure { reached: Reached::Perhaps, ..failure(Class::Transient) };
    for failed in [failure(Class::TokenDead), silent] {
        let mut old = Lifecycle::new(policy(Some("s1")), None, START);
        let (_, record) = fail(&mut old, &failed, START);
        let now = later(START, 60_000);
        let mut newer = host("s2", &record.unwrap(), now);
        let begun = succeed(&mut newer, &grant("a-2", Some("r-2"), 3_600_000), now);
        assert!(old.take_up(TOKEN_STORE, begun, now));
        assert_eq!(presented(&old), "r-2");
        assert!(wait(&old, now) > 3_000_000);
    }
}

#[test]
fn a_seed_that_brings_no_access_token_begins_a_chain_without_that_of_another() {
    let now = later(START, 60_000);
    let mut newer = host("s2", &chain_of("s1"), now);
    let saved = continues_with(&mut newer, "r-2", now);
    assert_eq!(saved.access, None, "it may be another account's");
    let again = Lifecycle::new(policy(Some("s2")), Some(saved), now);
    assert_eq!((presented(&again).as_str(), again.token().is_some()), ("r-2", false));
}

#[test]
fn each_seed_of_a_row_is_remembered() {
    let mut record = chain_of("s1");
    let mut now = START;
    for seed in ["s2", "s3", "s4"] {
        now = later(now, 60_000);
        let mut newer = host(seed, &record, now);
        let refresh_token = format!("r-{seed}");
        record = succeed(&mut newer, &grant(seed, Some(&refresh_token), 3_600_000), now);
    }
    for seed in ["s1", "s2", "s3", "s4"] {
        let host = host(seed, &record, now);
        assert_eq!(presented(&host), "r-s4", "{seed}");
        assert_eq!(host.superseded_seed().is_some(), seed != "s4");
    }
}

#[test]
fn a_configuration_that_goes_back_to_a_superseded_seed_is_obeyed() {
    let now = later(START, 60_000);
    let mut own = host("s2", &chain_of("s1"), now);
    succeed(&mut own, &grant("a-2", Some("r-2"), 3_600_000), now);
    // A restart with the same seed is not a change.
    assert_eq!(presented(&restart(&own, "s2", now)), "r-2");
    let mut back = restart(&own, "s1", now);
    assert_eq!((back.next(now), presented(&back).as_str()), (Instruction::Refresh, "s1"));
    assert!(back.token().is_none());
    let saved = succeed(&mut back, &grant("a-1", Some("r-1"), 3_600_000), now);
    assert_eq!(presented(&back), "r-1");
    // From now on, the other seed is superseded.
    assert_eq!(presented(&host("s2", &saved, now)), "r-1");
    // While it runs, a file with the secret may change too.
    back.set_policy(policy(Some("s2")));
    assert_eq!(presented(&back), "s2");
}

/// Seen in the simulation: the change of long ago was taken for one to a superseded seed.
#[test]
fn a_seed_that_is_superseded_after_the_configuration_changed_to_it_is_not_gone_back_to() {
    let mut late = restart(&host("s1", &chain_of("s1"), START), "s2", START);
    let now = later(START, 60_000);
    let mut first = host("s2", &chain_of("s1"), now);
    let begun = succeed(&mut first, &grant("a-2", Some("r-2"), 3_600_000), now);
    late.take_up(TOKEN_STORE, begun.clone(), now);
    assert_eq!(presented(&late), "r-2");
    let mut newer = host("s3", &begun, now);
    let begun = succeed(&mut newer, &grant("a-3", Some("r-3"), 3_600_000), now);
    late.take_up(TOKEN_STORE, begun, now);
    assert_eq!(presented(&late), "r-3");
    assert!(late.superseded_seed().is_some());
}

#[test]
fn where_the_superseded_seed_is_refused_the_chain_goes_on() {
    let now = later(START, 60_000);
    let mut own = host("s2", &chain_of("s1"), now);
    succeed(&mut own, &grant("a-2", Some("r-2"), 3_600_000), now);
    let mut back = restart(&own, "s1", now);
    let (after, saved) = fail(&mut back, &failure(Class::TokenDead), now);
    assert!(after.returns_to_newer_chain && !after.falls_back_to_seed);
    assert_eq!(back.token().unwrap().secret, Secret::new("a-2"));
    assert_eq!(presented(&back), "r-2");
    assert!(wait(&back, now) > 3_000_000);
    let saved = saved.unwrap();
    assert_eq!((saved.failure.clone(), saved.pending.clone()), (None, None));
    assert_eq!(presented(&restart(&back, "s1", now)), "r-2", "and it is tried once");
    // A failing issuer says nothing about the seed.
    let mut away = restart(&own, "s1", now);
    let (after, _) = fail(&mut away, &failure(Class::Transient), now);
    assert!(!after.returns_to_newer_chain);
    assert_eq!(presented(&away), "s1");
}

#[test]
fn a_variable_that_is_missing_for_a_while_is_no_change() {
    let now = later(START, 60_000);
    let begun =
        succeed(&mut host("s2", &chain_of("s1"), now), &grant("a-2", Some("r-2"), 3_600_000), now);
    let one = host("s1", &begun, now);
    let mut without = Lifecycle::new(policy(None), Some(one.saved().clone()), now);
    without.record_configured_seed();
    assert_eq!(presented(&without), "r-2");
    assert_eq!(presented(&restart(&without, "s1", now)), "r-2");
}

/// A login may be made without the service's environment.
#[test]
fn a_login_says_nothing_of_what_the_service_is_configured_with() {
    let mut service = host("s1", &chain_of("s1"), START);
    let mut login = Lifecycle::new(policy(Some("other")), Some(service.saved().clone()), START);
    let came = grant("a-l", None, 3_600_000);
    let saved = login.logged_in(&came, &Secret::new("r-l"), START, START, &mut rng());
    service.take_up(STATE_FILE, saved.clone(), START);
    assert_eq!(presented(&restart(&service, "s1", START)), "r-l");
    let mut started = Lifecycle::new(policy(Some("s1")), Some(saved), START);
    started.record_configured_seed();
    assert_eq!((presented(&started).as_str(), started.superseded_seed()), ("r-l", None));
}

/// Only the host with the newest seed can try it in the place of a lost chain.
#[test]
fn a_lost_chain_is_tried_with_its_own_seed_and_with_no_superseded_one() {
    let now = later(START, 60_000);
    let mut newer = host("s2", &chain_of("s1"), now);
    let begun = succeed(&mut newer, &grant("a-2", Some("r-2"), 3_600_000), now);
    let due = later(now, HOUR_MS);
    for old_seed in [Some("s1"), None] {
        let [mut old, mut newer] = [old_seed, Some("s2")].map(|seed| {
            let mut host = Lifecycle::new(policy(seed), None, due);
            host.take_up(TOKEN_STORE, begun.clone(), due);
            host
        });
        let (after, refused) = fail(&mut old, &failure(Class::TokenDead), due);
        assert!(!after.falls_back_to_seed, "{old_seed:?}");
        assert_eq!(wait(&old, due), HOUR_MS);
        let refused = refused.unwrap();
        newer.take_up(TOKEN_STORE, refused, due);
        assert_eq!((newer.next(due), presented(&newer).as_str()), (Instruction::Refresh, "s2"));
        let (_, refused) = fail(&mut newer, &failure(Class::TokenDead), due);
        let refused = refused.unwrap();
        old.take_up(TOKEN_STORE, refused.clone(), due);
        assert_eq!((wait(&old, due), wait(&newer, due)), (HOUR_MS, HOUR_MS));
        // Nor do hosts that are started later try either of them again.
        for seed in [old_seed, Some("s2")] {
            let mut late = Lifecycle::new(policy(seed), None, due);
            late.take_up(TOKEN_STORE, refused.clone(), due);
            assert_eq!(wait(&late, due), HOUR_MS, "{seed:?}");
            assert!(late.applicable_failure().is_some());
        }
    }
}

/// The refreshes of the others with the chain before it say nothing about a seed that is no good.
#[test]
fn a_new_seed_that_was_refused_is_not_tried_again_at_each_refresh_of_the_others() {
    let mut record = chain_of("s1");
    let mut one = host("s1", &record, START);
    let mut wrong = host("wrong", &record, START);
    let (_, refused) = fail(&mut wrong, &failure(Class::TokenDead), START);
    one.take_up(TOKEN_STORE, refused.unwrap(), START);
    assert_eq!(presented(&one), "r-old");
    assert!(one.token().is_some() && wait(&one, START) > 3_000_000);
    one.order(later(START, 20_000));
    record = succeed(&mut one, &grant("a-2", Some("r-2"), 3_600_000), later(START, 20_000));
    wrong.take_up(TOKEN_STORE, record, later(START, 20_000));
    assert_eq!(wait(&wrong, later(START, 20_000)), HOUR_MS - 20_000);
}

/// Seen in the simulation: a seed that was refused took away the marker of a refresh that another host had begun on
/// the chain.
#[test]
fn a_refused_seed_says_nothing_of_a_refresh_that_another_began_on_the_chain() {
    let mut other = host("s1", &chain_of("s1"), START);
    let marked = other.begin(&other.presented(), START).unwrap();
    let mut own = host("wrong", &marked, START);
    let (_, refused) = fail(&mut own, &failure(Class::TokenDead), START);
    assert_eq!(refused.unwrap().pending, marked.pending);
}
