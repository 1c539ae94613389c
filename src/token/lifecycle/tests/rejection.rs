//! Tables of the consequences of a token's refusals, and tokens that the issuer repeats.

use super::*;

/// A token that was refused within ten seconds of its arrival was not refreshed.
#[test]
fn a_refused_token_is_refreshed_at_once_whatever_its_age() {
    for age_ms in [0, 1, 9_999, 10_000, 60_000] {
        let (mut machine, now) = (fresh(), later(START, age_ms));
        assert_eq!(machine.rejected(0, now), OnRejection::Nothing, "it was replaced since");
        assert_eq!(refuse(&mut machine, now), OnRejection::Refresh, "{age_ms}");
        assert_eq!(refuse(&mut machine, now), OnRejection::Join, "one refresh for all");
        assert_eq!(machine.next(now), Instruction::Refresh);
        succeed(&mut machine, &grant("b", None, 3_600_000), now);
        assert_eq!(machine.rejected(1, now), OnRejection::Nothing);
        assert!(matches!(machine.next(now), Instruction::Wait(_)));
    }
}

/// Each host of a lost chain spent one more try for the first 401 that it saw.
#[test]
fn a_refused_token_whose_refresh_token_was_refused_on_another_host_is_not_refreshed() {
    let host = || Lifecycle::new(policy(None), Some(fresh().saved().clone()), START);
    let (mut one, mut other) = (host(), host());
    let now = later(START, 1_000);
    one.order(now);
    let (_, refused) = fail(&mut one, &failure(Class::TokenDead), now);
    other.take_up(TOKEN_STORE, refused.unwrap(), now);
    assert_eq!(refuse(&mut other, now), OnRejection::Nothing);
    assert!(matches!(other.next(now), Instruction::Wait(_)), "the plan stays");
    other.order(now);
    assert_eq!(other.next(now), Instruction::Refresh, "an order is followed");
}

#[test]
fn tokens_that_are_refused_in_turn_wait_ten_seconds_and_twice_as_long_each_time() {
    let (mut machine, mut now) = (fresh(), START);
    assert_eq!(refuse(&mut machine, now), OnRejection::Refresh);
    for waited_ms in [10_000, 20_000, 40_000, 80_000, 160_000, 300_000, 300_000] {
        succeed(&mut machine, &grant(&format!("{now:?}"), None, 36_000_000), now);
        let soon = later(now, 1_000);
        assert_eq!(refuse(&mut machine, soon), OnRejection::Later(waited_ms - 1_000));
        assert_eq!(refuse(&mut machine, soon), OnRejection::Nothing, "and nobody waits for it");
        assert_eq!(wait(&machine, soon), waited_ms - 1_000);
        now = later(now, waited_ms);
        assert_eq!(machine.next(now), Instruction::Refresh);
        assert_eq!(refuse(&mut machine, now), OnRejection::Join);
    }
}

#[test]
fn one_that_is_refused_after_its_wait_is_refreshed_at_once_and_the_doubling_goes_on() {
    let mut machine = fresh();
    refuse(&mut machine, START);
    succeed(&mut machine, &grant("b", None, 36_000_000), START);
    let now = later(START, REJECTION_WAIT_FIRST_MS);
    assert_eq!(refuse(&mut machine, now), OnRejection::Refresh);
    succeed(&mut machine, &grant("c", None, 36_000_000), now);
    assert_eq!(refuse(&mut machine, now), OnRejection::Later(2 * REJECTION_WAIT_FIRST_MS));
}

/// The ways in which the token after a refused one came, and the consequence of its own refusal.
#[test]
fn what_ends_the_doubling() {
    let refused = || {
        let mut machine = fresh();
        refuse(&mut machine, START);
        succeed(&mut machine, &grant("b", None, 3_600_000), START);
        machine
    };
    let waits = OnRejection::Later(REJECTION_WAIT_FIRST_MS);
    let mut machine = refused();
    assert_eq!(refuse(&mut machine, START), waits);
    // An order.
    machine.order(START);
    succeed(&mut machine, &grant("c", None, 3_600_000), START);
    assert_eq!(refuse(&mut machine, START), OnRejection::Refresh);
    // The schedule.
    let mut machine = refused();
    let due = later(START, 3_400_000);
    succeed(&mut machine, &grant("c", None, 3_600_000), due);
    assert_eq!(refuse(&mut machine, due), OnRejection::Refresh);
    // A token that was not refused for long.
    for (after_ms, in_a_row) in [(REJECTION_WAIT_MAX_MS - 1, 2), (REJECTION_WAIT_MAX_MS, 1)] {
        let (mut machine, now) = (refused(), later(START, after_ms));
        assert_eq!(refuse(&mut machine, now), OnRejection::Refresh);
        let saved = succeed(&mut machine, &grant("c", None, 3_600_000), now);
        assert_eq!(saved.access.unwrap().rejections, in_a_row);
    }
    // Neither a restart nor a failed try.
    let mut restarted = Lifecycle::new(policy(Some("s")), Some(refused().saved().clone()), START);
    assert_eq!(refuse(&mut restarted, START), waits);
    let mut machine = fresh();
    refuse(&mut machine, START);
    let (after, _) = fail(&mut machine, &failure(Class::Transient), START);
    let now = later(START, after.next_attempt.left_ms(START));
    succeed(&mut machine, &grant("b", None, 3_600_000), now);
    assert_eq!(refuse(&mut machine, now), waits);
}

#[test]
fn a_refused_token_whose_refresh_fails_is_tried_for_by_the_backoff_alone() {
    let mut machine = fresh();
    refuse(&mut machine, START);
    let mut now = START;
    for _ in 0..40 {
        let (after, _) = fail(&mut machine, &failure(Class::Transient), now);
        let wait_ms = after.next_attempt.left_ms(now);
        assert!((1..=WANTED_DELAY_MAX_MS).contains(&wait_ms), "{wait_ms}");
        assert_eq!(refuse(&mut machine, now), OnRejection::Nothing);
        assert_eq!(wait(&machine, now), wait_ms);
        now = later(now, wait_ms);
    }
    // An issuer that asked for more time gets it.
    let asked = Failure { retry_after_ms: Some(90_000), ..failure(Class::Transient) };
    fail(&mut machine, &asked, now);
    refuse(&mut machine, now);
    assert_eq!(wait(&machine, now), 90_000);
}

#[test]
fn a_refusal_after_a_permanent_failure_is_tried_once() {
    let mut machine = fresh();
    let due = later(START, 3_400_000);
    fail(&mut machine, &failure(Class::Permanent), due);
    assert_eq!(refuse(&mut machine, due), OnRejection::Refresh);
    fail(&mut machine, &failure(Class::Permanent), due);
    assert_eq!(refuse(&mut machine, due), OnRejection::Nothing);
    assert_eq!(wait(&machine, due), HOUR_MS);
}

/// 89 of 182 requests were refused: each answer gave the token in hand another hour.
#[test]
fn a_token_that_is_repeated_lives_no_longer_and_the_next_try_is_a_second_after_its_end() {
    let ended = Grant { has_ended: true, ..grant("a", Some("r2"), 3_600_000) };
    for repeated in [grant("a", Some("r2"), 3_600_000), grant("a", Some("r2"), 300_000), ended] {
        let first = fresh();
        let restarted = Lifecycle::new(policy(Some("s")), Some(first.saved().clone()), START);
        for mut machine in [first, restarted] {
            let due = later(START, 3_300_000);
            let saved = succeed(&mut machine, &repeated, due);
            let token = machine.token().unwrap();
            assert_eq!((token.generation, token.expires.left_ms(due)), (1, 300_000));
            assert_eq!(wait(&machine, due), 301_000);
            assert_eq!(saved.refresh_token, Some(Secret::new("r2")), "the chain goes on");
            assert_eq!(saved.access.unwrap().expires_at, later(START, HOUR_MS).wall);
            // Another start sees the same.
            let again = Lifecycle::new(policy(Some("s")), Some(machine.saved().clone()), due);
            assert_eq!(wait(&again, due), 301_000);
            // The next token is used like any other.
            let after = later(due, 301_000);
            succeed(&mut machine, &grant("b", None, 3_600_000), after);
            assert_eq!(generation(&machine), 2);
        }
    }
}

#[test]
fn a_token_that_ended_and_is_given_out_again_lives_as_its_issuer_says() {
    let mut machine = fresh();
    let now = later(START, HOUR_MS);
    let over = Grant { has_ended: true, ..grant("a", None, 3_600_000) };
    assert!(machine.repeats_an_ended_token(&over, now));
    assert!(!machine.repeats_an_ended_token(&over, later(START, HOUR_MS - 1)), "still in hand");
    let restarted = Lifecycle::new(policy(Some("s")), Some(machine.saved().clone()), now);
    assert!(restarted.repeats_an_ended_token(&over, now));
    let new = Grant { has_ended: true, ..grant("b", None, 3_600_000) };
    assert!(!machine.repeats_an_ended_token(&new, now), "nobody had it before");
    let alive = grant("a", None, 3_600_000);
    assert!(!machine.repeats_an_ended_token(&alive, now));
    succeed(&mut machine, &alive, now);
    assert!(machine.token().unwrap().expires.left_ms(now) == HOUR_MS && generation(&machine) == 2);
}

#[test]
fn a_refused_token_that_the_issuer_repeats_is_asked_for_ever_more_rarely() {
    let (mut machine, mut now) = (fresh(), START);
    assert_eq!(refuse(&mut machine, now), OnRejection::Refresh);
    for waited_ms in [10_000, 20_000, 40_000, 80_000] {
        succeed(&mut machine, &grant("a", None, 3_600_000), now);
        assert_eq!(generation(&machine), 1);
        assert_eq!(refuse(&mut machine, now), OnRejection::Later(waited_ms));
        now = later(now, waited_ms);
    }
}

#[test]
fn several_hosts_refresh_a_refused_token_once_and_obey_orders_at_once() {
    let mut one = fresh();
    let mut other = Lifecycle::new(policy(Some("s")), None, START);
    assert!(other.take_up(TOKEN_STORE, one.saved().clone(), START));
    assert_eq!(other.token().unwrap().source, "token_store");
    assert_eq!(refuse(&mut one, START), OnRejection::Refresh);
    assert_eq!(refuse(&mut other, START), OnRejection::Refresh);
    let brought = succeed(&mut one, &grant("b", None, 3_600_000), START);
    assert!(other.take_up(TOKEN_STORE, brought, START));
    assert!(matches!(other.next(START), Instruction::Wait(_)), "it is refreshed already");
    // Refused in its turn, on both.
    let waits = OnRejection::Later(REJECTION_WAIT_FIRST_MS);
    assert_eq!((refuse(&mut one, START), refuse(&mut other, START)), (waits, waits));
    let now = later(START, REJECTION_WAIT_FIRST_MS);
    let brought = succeed(&mut other, &grant("c", None, 3_600_000), now);
    assert!(one.take_up(TOKEN_STORE, brought, now));
    let waits = OnRejection::Later(2 * REJECTION_WAIT_FIRST_MS);
    assert_eq!((refuse(&mut one, now), refuse(&mut other, now)), (waits, waits));
    one.order(now);
    assert_eq!(one.next(now), Instruction::Refresh);
    // The issuer repeats the token, which is the outcome for the other host too.
    refuse(&mut other, now);
    let due = later(now, 2 * REJECTION_WAIT_FIRST_MS);
    let repeated = succeed(&mut one, &grant("c", None, 3_600_000), due);
    assert!(!other.take_up(TOKEN_STORE, repeated, due));
}

#[test]
fn a_repeated_token_is_repeated_for_all_hosts() {
    let host = || Lifecycle::new(policy(None), Some(fresh().saved().clone()), START);
    let (mut one, mut other) = (host(), host());
    let due = later(START, 3_300_000);
    let repeated = succeed(&mut one, &grant("a", None, 3_600_000), due);
    other.take_up(TOKEN_STORE, repeated, due);
    assert_eq!((wait(&one, due), wait(&other, due)), (301_000, 301_000));
    for host in [&mut one, &mut other] {
        assert_eq!(refuse(host, due), OnRejection::Refresh);
    }
    let due = later(due, 1);
    let repeated = succeed(&mut one, &grant("a", None, 3_600_000), due);
    other.take_up(TOKEN_STORE, repeated, due);
    assert!(matches!(other.next(due), Instruction::Wait(_)), "the refusal was followed");
    assert_eq!(refuse(&mut other, due), OnRejection::Later(REJECTION_WAIT_FIRST_MS));
}

/// The other host kept the end that it knew. It had no valid token then, and none was due: each request waited ten seconds in
/// vain, for up to an hour.
#[test]
fn a_token_that_ended_and_is_given_out_again_lives_for_all_hosts() {
    let host = || Lifecycle::new(policy(None), Some(fresh().saved().clone()), START);
    let end = later(START, HOUR_MS);
    let (due, long) = (later(end, 1_000), grant("a", None, 3_600_000));
    // The other's clock may be some seconds behind.
    for other_now in [due, later(START, HOUR_MS - 1)] {
        let (mut one, mut other) = (host(), host());
        let repeated = succeed(&mut one, &long, due);
        let brought = other.take_up(TOKEN_STORE, repeated, other_now);
        assert_eq!(brought, other_now == due, "it had no valid token before");
        let left_ms = |machine: &Lifecycle| machine.token().unwrap().expires.left_ms(due);
        assert_eq!(left_ms(&one), HOUR_MS);
        assert!((HOUR_MS - 1_001..=HOUR_MS).contains(&left_ms(&other)), "{}", left_ms(&other));
        assert!(wait(&one, due).abs_diff(wait(&other, due)) <= 1_001);
    }
    // A record from before does not bring an ended token back.
    let (mut other, behind) = (host(), Moment { wall: START.wall, steady_ms: due.steady_ms });
    let old = Saved { revision: 99, ..fresh().saved().clone() };
    assert!(!other.take_up(TOKEN_STORE, old, behind));
    assert_eq!(other.token().unwrap().expires.left_ms(due), 0);
}

#[test]
fn a_refused_token_is_refreshed_no_sooner_than_the_issuer_asked() {
    let mut machine = fresh();
    machine.order(START);
    let asked = Failure { retry_after_ms: Some(90_000), ..failure(Class::Transient) };
    fail(&mut machine, &asked, START);
    assert_eq!(refuse(&mut machine, START), OnRejection::Later(90_000));
    assert_eq!(wait(&machine, START), 90_000);
}

#[test]
fn a_refused_token_that_the_schedule_refreshes_first_ends_the_doubling() {
    let mut machine = fresh();
    refuse(&mut machine, START);
    // It lives twelve seconds, so that its refresh is due before the ten seconds of its refusal are over.
    succeed(&mut machine, &grant("b", None, 12_000), START);
    assert_eq!(refuse(&mut machine, START), OnRejection::Later(REJECTION_WAIT_FIRST_MS));
    let due = later(START, 6_000);
    succeed(&mut machine, &grant("c", None, 3_600_000), due);
    assert_eq!(refuse(&mut machine, due), OnRejection::Refresh);
}

#[test]
fn while_the_token_in_hand_is_refused_tries_are_ten_seconds_apart() {
    let (mut machine, mut now) = (fresh(), START);
    refuse(&mut machine, now);
    for _ in 0..30 {
        let (after, _) = fail(&mut machine, &failure(Class::Transient), now);
        let wait_ms = after.next_attempt.left_ms(now);
        assert!(wait_ms <= WANTED_DELAY_MAX_MS, "{wait_ms}");
        now = later(now, wait_ms);
    }
}
