//! Records of other hosts, other processes and earlier starts, and their effect on the next try.

use super::*;

/// The record of a chain `r1` that began with the seed `s`, and its token good for an hour.
fn chain() -> Saved {
    let mut machine = Lifecycle::new(policy(Some("s")), None, START);
    succeed(&mut machine, &grant("a", Some("r1"), 3_600_000), START)
}

fn host(stored: &Saved) -> Lifecycle {
    Lifecycle::new(policy(Some("s")), Some(stored.clone()), START)
}

/// The record after another host was told that `r1` is no good.
fn refused(stored: &Saved) -> Saved {
    let mut other = host(stored);
    let (after, saved) = fail(&mut other, &failure(Class::TokenDead), START);
    assert!(after.falls_back_to_seed);
    saved.unwrap()
}

#[test]
fn a_refusal_of_the_chain_has_the_seed_tried_at_once_and_only_once() {
    let stored = chain();
    let mut machine = host(&stored);
    let record = refused(&stored);
    machine.take_up(STATE_FILE, record.clone(), START);
    assert_eq!(machine.next(START), Instruction::Refresh, "though the token is good for an hour");
    assert_eq!(presented(&machine), "s");
    let asked = Failure { retry_after_ms: Some(90_000), ..failure(Class::Transient) };
    fail(&mut machine, &asked, START);
    let again = Saved { revision: machine.saved().revision + 1, ..record };
    machine.take_up(STATE_FILE, again, START);
    assert_eq!(wait(&machine, START), 90_000, "the same refusal is no news");
}

#[test]
fn a_refusal_of_the_chain_does_not_end_the_wait_after_one_of_the_seed() {
    let stored = chain();
    let record = refused(&stored);
    let mut machine = host(&stored);
    fail(&mut machine, &failure(Class::TokenDead), START);
    fail(&mut machine, &failure(Class::TokenDead), START);
    machine.order(START);
    machine.withdrawn();
    machine.take_up(STATE_FILE, Saved { revision: machine.saved().revision + 1, ..record }, START);
    assert_eq!((wait(&machine, START), presented(&machine).as_str()), (HOUR_MS, "s"));
}

#[test]
fn an_order_has_a_refused_chain_tried_again() {
    let mut machine = host(&refused(&chain()));
    assert_eq!(presented(&machine), "s");
    machine.order(START);
    assert_eq!(presented(&machine), "r1");
}

#[test]
fn the_next_refresh_token_of_a_refused_chain_is_presented() {
    let stored = chain();
    let mut machine = host(&refused(&stored));
    let mut other = host(&stored);
    other.order(START);
    succeed(&mut other, &grant("b", Some("r2"), 3_600_000), START);
    let marked = other.begin(&other.presented(), START).unwrap();
    machine.take_up(STATE_FILE, Saved { revision: 99, ..marked }, START);
    assert_eq!(presented(&machine), "r2");
}

#[test]
fn a_lost_answer_is_told_after_a_restart_too() {
    let mut machine = host(&chain());
    let silent = Failure { reached: Reached::Perhaps, ..failure(Class::Transient) };
    fail(&mut machine, &silent, START);
    fail(&mut machine, &failure(Class::TokenDead), START);
    let (_, saved) = fail(&mut machine, &failure(Class::TokenDead), START);
    let mut restarted = host(&saved.unwrap());
    assert_eq!((wait(&restarted, START), restarted.consecutive_failures()), (HOUR_MS, 1));
    restarted.order(START);
    let (after, _) = fail(&mut restarted, &failure(Class::TokenDead), START);
    assert!(after.answer_lost);
}

#[test]
fn a_marker_has_a_refresh_begin_at_once_though_the_token_is_good_for_an_hour() {
    let mut other = host(&chain());
    let marked = other.begin(&other.presented(), START).unwrap();
    assert_eq!(host(&marked).next(START), Instruction::Refresh);
    // It is of another refresh token than the one to present.
    let other_seed = Lifecycle::new(policy(None), Some(chain()), START);
    let mut marked = other_seed.saved().clone();
    marked.pending = Some(Marker { refresh_token_hash: Secret::new("x").hash(), at: START.wall });
    assert!(wait(&host(&marked), START) > 3_000_000);
}

#[test]
fn an_order_outlives_a_token_whose_next_refresh_is_under_way() {
    let stored = chain();
    for (begins_another, is_over) in [(true, false), (false, true)] {
        let mut machine = host(&stored);
        machine.order(START);
        let mut other = host(&stored);
        other.order(START);
        let mut record = succeed(&mut other, &grant("b", Some("r2"), 3_600_000), START);
        if begins_another {
            record = other.begin(&Presented::Token(Secret::new("x")), START).unwrap();
        }
        assert!(machine.take_up(STATE_FILE, record, START));
        assert_eq!(machine.next(START) != Instruction::Refresh, is_over);
    }
}

#[test]
fn a_host_keeps_its_own_client_when_it_takes_up_a_record() {
    let mut machine = Lifecycle::new(policy(Some("s")), None, START);
    machine.record_client(Some("ours".into()));
    machine.take_up(STATE_FILE, Saved { client: Some("theirs".into()), ..chain() }, START);
    assert_eq!(machine.saved().client.as_deref(), Some("ours"));
    let mut machine = Lifecycle::new(policy(Some("s")), None, START);
    machine.take_up(STATE_FILE, Saved { client: Some("theirs".into()), ..chain() }, START);
    assert_eq!(machine.saved().client.as_deref(), Some("theirs"));
}

#[test]
fn a_reload_after_a_failure_tries_once_and_a_good_token_is_kept() {
    let mut machine = host(&chain());
    machine.reconfigure(policy(Some("s")), START);
    assert!(wait(&machine, START) > 3_000_000);
    fail(&mut machine, &failure(Class::Permanent), START);
    machine.reconfigure(policy(Some("s")), START);
    assert_eq!(machine.next(START), Instruction::Refresh);
    assert!(machine.token().is_some());
}

#[test]
fn the_refresh_token_of_a_login_asks_for_no_other_scope_than_was_granted() {
    let login = Presented::Token(Secret::new("lr"));
    let other = Presented::Token(Secret::new("seed"));
    for (configured, granted, asked) in [
        (Some("a b"), Some("a"), None),
        (Some("b a"), Some("a b"), Some("b a")),
        (Some("a"), None, Some("a")),
        (None, Some("a"), None),
    ] {
        let policy = Policy { scope: configured.map(str::to_owned), ..policy(None) };
        let mut machine = Lifecycle::new(policy, None, START);
        let scope = granted.map(str::to_owned);
        let granted = Grant { scope, ..grant("a", Some("lr"), 3_600_000) };
        machine.logged_in(&granted, &Secret::new("lr"), START, START, &mut rng());
        assert_eq!((machine.scope(&login), machine.scope(&other)), (asked, configured));
    }
}

/// A logout took the tokens out of the state file, and a running refresher went on with those in its memory.
#[test]
fn a_logout_ends_the_chain_and_its_token_for_every_refresher() {
    let now = later(START, 60_000);
    let ended = fresh().logged_out("mark".into(), now);
    assert!(ended.is_logged_out() && ended.refresh_token.is_none() && ended.access.is_none());
    let mut running = fresh();
    assert!(!running.take_up(STATE_FILE, ended.clone(), now));
    let again = Lifecycle::new(policy(Some("s")), Some(ended.clone()), now);
    for machine in [&running, &again] {
        assert_eq!((machine.token().is_none(), presented(machine).as_str()), (true, "Missing"));
        assert_eq!(machine.superseded_seed(), None, "no other seed's chain is used");
    }
    // A host with another seed, which the logout did not know, does not begin with it either way around.
    let mut elsewhere = Lifecycle::new(policy(Some("t")), None, START);
    succeed(&mut elsewhere, &grant("a-t", Some("r-t"), 3_600_000), START);
    elsewhere.take_up(TOKEN_STORE, ended.clone(), now);
    assert_eq!((elsewhere.token().is_none(), presented(&elsewhere).as_str()), (true, "Missing"));
    // A new seed begins a chain, and so does a login.
    let mut new = Lifecycle::new(policy(Some("new")), Some(ended.clone()), now);
    assert_eq!(presented(&new), "new");
    let begun = succeed(&mut new, &grant("a-2", Some("r-2"), 3_600_000), now);
    assert_eq!((begun.is_logged_out(), begun.login_hash), (false, None));
    let mut login = Lifecycle::new(policy(Some("s")), Some(ended), now);
    let granted = grant("a-3", Some("r-3"), 3_600_000);
    let begun = login.logged_in(&granted, &Secret::new("r-3"), now, now, &mut rng());
    assert!(!begun.is_logged_out());
    assert!(running.take_up(STATE_FILE, begun, now));
    assert_eq!(presented(&running), "r-3");
}

#[test]
fn a_grant_without_a_refresh_token_goes_on_after_a_logout() {
    let client = Policy { without_refresh_token: true, ..policy(None) };
    let mut machine = Lifecycle::new(client, None, START);
    succeed(&mut machine, &grant("a", None, 3_600_000), START);
    let now = later(START, 60_000);
    machine.logged_out("mark".into(), now);
    assert_eq!((machine.token().is_none(), machine.next(now)), (true, Instruction::Refresh));
    let record = succeed(&mut machine, &grant("a-2", None, 3_600_000), now);
    assert!(!record.is_logged_out());
    let again = Lifecycle::new(
        Policy { without_refresh_token: true, ..policy(None) },
        Some(record),
        later(now, 1000),
    );
    assert_eq!(again.token().unwrap().secret, Secret::new("a-2"));
}

/// The tries of `count` hosts, whose token has just ended, in `time_ms`: each fails with `failed`, and the others hear of it at once.
fn tries(count: usize, failed: &Failure, time_ms: u64) -> Vec<usize> {
    const STEP_MS: u64 = 250;
    let known = fresh().saved().clone();
    let ended = later(START, HOUR_MS);
    let mut hosts: Vec<_> =
        (0..count).map(|_| Lifecycle::new(policy(None), Some(known.clone()), ended)).collect();
    let mut tries = vec![0; count];
    let tell = |hosts: &mut Vec<Lifecycle>, from: usize, record: &Saved, now| {
        for (_, other) in hosts.iter_mut().enumerate().filter(|(number, _)| *number != from) {
            other.take_up(TOKEN_STORE, record.clone(), now);
        }
    };
    for now in (0..time_ms / STEP_MS).map(|step| later(ended, step * STEP_MS)) {
        for one in 0..count {
            if hosts[one].next(now) != Instruction::Refresh {
                continue;
            }
            tries[one] += 1;
            let presented = hosts[one].presented();
            let marker = hosts[one].begin(&presented, now).unwrap();
            tell(&mut hosts, one, &marker, now);
            let (_, record) = hosts[one].failed(&presented, failed, now, &mut rng());
            tell(&mut hosts, one, &record.unwrap(), now);
        }
    }
    tries
}

/// A failure that is not stored counted as a success at the other host, which tried at once; its marker made the first one
/// try again, in spite of an hour that the issuer had asked for: four tries a second.
#[test]
fn the_tries_of_several_hosts_do_not_call_forth_each_other() {
    let asked = Failure { retry_after_ms: Some(HOUR_MS), ..failure(Class::Transient) };
    assert_eq!(tries(1, &asked, HOUR_MS), [1]);
    assert_eq!(tries(2, &asked, HOUR_MS), [1, 1]);
    assert_eq!(tries(5, &asked, HOUR_MS), [1; 5]);
    let unavailable = failure(Class::Transient);
    let alone = tries(1, &unavailable, HOUR_MS)[0];
    for count in [2, 5] {
        let each = tries(count, &unavailable, HOUR_MS);
        assert!(each.iter().all(|tries| *tries <= alone + 1), "{alone} alone, {each:?}");
    }
    // Nothing is known of an answer: the first one repeats its own try by its own backoff.
    let lost = Failure { reached: Reached::Perhaps, ..unavailable };
    let alone = tries(1, &lost, HOUR_MS)[0];
    let each = tries(3, &lost, HOUR_MS);
    assert!(each.iter().all(|tries| *tries <= alone + 1), "{alone} alone, {each:?}");
}

/// Seen: an order on one host that failed had all others refresh too, with most of the token's life left.
#[test]
fn a_failed_order_elsewhere_leaves_the_plan_as_it_was() {
    let known = fresh().saved().clone();
    let host = || Lifecycle::new(policy(None), Some(known.clone()), START);
    let (mut one, mut other) = (host(), host());
    let planned = wait(&other, START);
    one.order(START);
    let presented = one.presented();
    other.take_up(TOKEN_STORE, one.begin(&presented, START).unwrap(), START);
    assert_eq!(other.next(START), Instruction::Refresh, "its host may have been killed");
    let (_, record) = one.failed(&presented, &failure(Class::Transient), START, &mut rng());
    other.take_up(TOKEN_STORE, record.unwrap(), START);
    assert_eq!(wait(&other, START), planned);
}

/// After an outage the others waited out their own failures, up to five minutes, while the refresh token of a killed host's try
/// was good for half a minute more.
#[test]
fn a_try_elsewhere_without_an_outcome_is_repeated_soon_in_spite_of_own_failures() {
    for asked_ms in [None, Some(60_000)] {
        let mut other = Lifecycle::new(policy(None), Some(fresh().saved().clone()), START);
        let mut one = Lifecycle::new(policy(None), Some(fresh().saved().clone()), START);
        let now = later(START, HOUR_MS);
        let failed = Failure { retry_after_ms: asked_ms, ..failure(Class::Transient) };
        for _ in 0..9 {
            fail(&mut other, &failed, now);
        }
        let record = other.saved().clone();
        one.take_up(TOKEN_STORE, record, now);
        let presented = one.presented();
        other.take_up(TOKEN_STORE, one.begin(&presented, now).unwrap(), now);
        assert_eq!(wait(&other, now), asked_ms.unwrap_or(0));
    }
}

/// `record` as another host wrote it again, whose clock measured itself to be `ms` further ahead.
fn moved(record: &Saved, ms: i64) -> Saved {
    let mut moved = Saved { revision: record.revision + 1, ..record.clone() };
    moved.shift(ms);
    moved
}

/// Four hosts asked an issuer that answers 503 three times a second: each record of a failed try had the times of the token a
/// few milliseconds off, counted as a success, and ended the waits of all others.
#[test]
fn a_record_with_times_of_another_clock_is_no_success() {
    for ms in [-700, -1, 0, 1, 700] {
        let (mut host, now) = (fresh(), later(START, HOUR_MS - 60_000));
        for _ in 0..5 {
            fail(&mut host, &failure(Class::Transient), now);
        }
        let (planned, known) = (wait(&host, now), host.saved().clone());
        assert!(planned > 0);
        assert!(!host.take_up(TOKEN_STORE, moved(&known, ms), now));
        assert_eq!((wait(&host, now), host.consecutive_failures()), (planned, 5), "{ms}");
        assert_eq!(host.saved().access, known.access, "and the token's times do not drift");
    }
}

/// The refused token counted as good again, and its next refusal as news.
#[test]
fn a_refusal_outlives_a_record_with_times_of_another_clock() {
    let (mut host, due) = (fresh(), later(START, 3_400_000));
    assert_eq!(refuse(&mut host, due), OnRejection::Join);
    fail(&mut host, &failure(Class::Transient), due);
    host.take_up(TOKEN_STORE, moved(&host.saved().clone(), 1), due);
    assert_eq!(refuse(&mut host, due), OnRejection::Nothing);
}

#[test]
fn an_own_failure_with_times_of_another_clock_is_still_ones_own() {
    let (mut host, due) = (fresh(), later(START, 3_400_000));
    fail(&mut host, &failure(Class::Permanent), due);
    host.take_up(TOKEN_STORE, moved(&host.saved().clone(), 1), due);
    assert_eq!(refuse(&mut host, due), OnRejection::Refresh);
}
