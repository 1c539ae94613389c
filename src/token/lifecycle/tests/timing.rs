//! Tables of the times of refreshes: orders, refusals, schedules, delays and clocks.

use super::*;
use crate::config::Missing;
use crate::token::lifecycle::access::REFRESH_IN_MIN_MS;
use crate::token::lifecycle::schedule::WRONG_CLOCK_WAIT_MS;

fn missing() -> Failure {
    Failure::missing(Missing::Variable("X".into()))
}

/// 218,547 tries in three seconds were seen: nothing ended the order of a try that never began.
#[test]
fn an_order_is_tried_once_though_a_secret_is_missing_and_nothing_is_written() {
    for seed in [None, Some("s")] {
        let mut machine = Lifecycle::new(policy(seed), None, START);
        for at_ms in [0, 1, 2] {
            let now = later(START, at_ms);
            machine.order(now);
            assert_eq!(machine.next(now), Instruction::Refresh);
            let (_, saved) = machine.failed(&machine.presented(), &missing(), now, &mut rng());
            assert_eq!(saved, None);
            assert_eq!(wait(&machine, now), HOUR_MS - at_ms, "{seed:?}");
        }
    }
}

#[test]
fn a_missing_secret_is_looked_for_at_each_start() {
    let mut machine = Lifecycle::new(policy(Some("s")), None, START);
    machine.failed(&machine.presented(), &missing(), START, &mut rng());
    // Older versions did store it.
    let stored = Saved {
        failure: Some(SavedFailure {
            refresh_token_hash: Secret::new("s").hash(),
            client_hash: "client".into(),
            what: "Missing environment variable: 'X'".into(),
            status: None,
            code: None,
            retry_at: later(START, HOUR_MS).wall,
            answer_lost: false,
            seed_is_next: false,
            chain_hash: None,
        }),
        ..Saved::default()
    };
    for saved in [machine.saved().clone(), stored] {
        let restarted = Lifecycle::new(policy(Some("s")), Some(saved), START);
        assert_eq!(
            (restarted.next(START), restarted.applicable_failure()),
            (Instruction::Refresh, None)
        );
    }
    // Once the secret is there, the wait is over.
    machine.set_policy(Policy { client_hash: "complete".into(), ..policy(Some("s")) });
    assert_eq!(machine.next(START), Instruction::Refresh);
}

#[test]
fn a_lost_answer_is_remembered_though_a_secret_is_missing_meanwhile() {
    let mut machine = fresh();
    let marked = machine.begin(&machine.presented(), START).unwrap();
    let mut machine = Lifecycle::new(policy(Some("s")), Some(marked), START);
    machine.failed(&machine.presented(), &missing(), START, &mut rng());
    assert!(machine.saved().pending.is_some());
    let (after, _) = fail(&mut machine, &failure(Class::TokenDead), START);
    assert!(after.answer_lost);
}

#[test]
fn an_order_is_followed_at_once_whatever_was_before() {
    let asked = Failure { retry_after_ms: Some(90_000), ..failure(Class::Transient) };
    let before =
        [None, Some(failure(Class::Transient)), Some(asked), Some(failure(Class::TokenDead))];
    for failed in before {
        for lifetime_ms in [9_000, 10_000, 3_600_000] {
            let mut machine = Lifecycle::new(policy(Some("s")), None, START);
            succeed(&mut machine, &grant("a", None, lifetime_ms), START);
            if let Some(failed) = &failed {
                machine.order(START);
                fail(&mut machine, failed, START);
            }
            machine.order(START);
            succeed(&mut machine, &grant("b", None, lifetime_ms), START);
            assert!(wait(&machine, START) > 0, "once: {failed:?} {lifetime_ms}");
        }
    }
}

#[test]
fn an_order_outlives_a_refresh_of_another_process_that_was_over_before_it() {
    let mut other = fresh();
    let stored = other.saved().clone();
    let ordered = later(START, 1);
    let mut machine = Lifecycle::new(policy(Some("s")), None, START);
    machine.order(ordered);
    assert!(machine.take_up(STATE_FILE, stored, ordered));
    assert_eq!(machine.next(ordered), Instruction::Refresh);
    // A refresh that ends after the order was running when the order came.
    other.order(ordered);
    let stored = succeed(&mut other, &grant("b", None, 3_600_000), ordered);
    assert!(machine.take_up(STATE_FILE, stored, ordered));
    assert!(matches!(machine.next(ordered), Instruction::Wait(_)));
}

#[test]
fn what_is_withdrawn_stays_due_and_what_could_not_be_tried_is_over() {
    let mut machine = fresh();
    machine.order(START);
    let before = machine.saved().clone();
    machine.begin(&machine.presented(), START);
    machine.undo_begin(before.clone());
    assert_eq!((machine.next(START), machine.saved()), (Instruction::Refresh, &before));
    machine.withdrawn();
    assert!(matches!(machine.next(START), Instruction::Wait(_)));
    // A refusal that could not be followed is followed at the next.
    assert_eq!(refuse(&mut machine, START), OnRejection::Refresh);
    machine.withdrawn();
    assert!(matches!(machine.next(START), Instruction::Wait(_)));
    assert_eq!(refuse(&mut machine, START), OnRejection::Refresh);
}

/// Lifetimes of 10 to 20 seconds were refreshed at their end only.
#[test]
fn a_scheduled_refresh_waits_for_nothing_else() {
    for lifetime_ms in [2_000, 9_000, 10_000, 12_000, 20_000] {
        let mut machine = Lifecycle::new(policy(Some("s")), None, START);
        succeed(&mut machine, &grant("a", None, lifetime_ms), START);
        let half = u64::try_from(lifetime_ms).unwrap() / 2;
        assert!(wait(&machine, START) <= half, "{lifetime_ms}");
        // Nor for a refresh that is delayed because tokens are refused in turn.
        refuse(&mut machine, START);
        succeed(&mut machine, &grant("b", None, lifetime_ms), START);
        refuse(&mut machine, START);
        assert!(wait(&machine, START) <= half.min(REJECTION_WAIT_FIRST_MS), "{lifetime_ms}");
    }
}

#[test]
fn a_try_that_was_ordered_and_fails_delays_no_scheduled_one() {
    for class in [Class::Transient, Class::Permanent, Class::TokenDead] {
        let mut machine = fresh();
        let now = later(START, 3_200_000);
        let due_ms = wait(&machine, now);
        machine.order(now);
        let (after, _) = fail(&mut machine, &failure(class), now);
        assert!(after.next_attempt.left_ms(now) <= due_ms, "{class:?}");
        // Nor the try after a permanent failure.
        let mut machine = Lifecycle::new(policy(Some("s")), None, START);
        fail(&mut machine, &failure(Class::Permanent), START);
        let now = later(START, HOUR_MS - 5_000);
        machine.order(now);
        let (after, _) = fail(&mut machine, &failure(class), now);
        assert!(after.next_attempt.left_ms(now) <= 5_000, "{class:?}");
    }
    // If nothing but a person can help, no backoff goes on.
    let mut machine = Lifecycle::new(policy(Some("s")), None, START);
    fail(&mut machine, &failure(Class::Transient), START);
    machine.order(START);
    let (after, _) = fail(&mut machine, &failure(Class::Permanent), START);
    assert_eq!(after.next_attempt.left_ms(START), HOUR_MS);
}

/// `refresh_in`, `earliest_refresh_at` after so many seconds, and when the refresh of a token of 1,000 seconds
/// is due then at the least and at the most, in milliseconds. The lead of 300 seconds is up to a tenth more.
#[test]
fn the_issuers_wish_moves_the_refresh_and_its_bound_only_holds_it_back() {
    let cases: [(Option<i64>, Option<i64>, u64, u64); 9] = [
        (None, None, 670_000, 700_000),
        (Some(2), None, 2_000, 2_000),
        (Some(400), None, 400_000, 400_000),
        (Some(999), None, 670_000, 700_000),
        (None, Some(10), 670_000, 700_000),
        (None, Some(900), 900_000, 900_000),
        (Some(400), Some(500), 500_000, 500_000),
        (Some(400), Some(300), 400_000, 400_000),
        (Some(999), Some(800), 800_000, 800_000),
    ];
    for (wish, earliest, least, most) in cases {
        let mut machine = Lifecycle::new(policy(Some("s")), None, START);
        let granted = Grant {
            refresh_in_ms: wish.map(|secs| secs * 1000),
            earliest_refresh_in_ms: earliest.map(|secs| secs * 1000),
            ..grant("a", None, 1_000_000)
        };
        succeed(&mut machine, &granted, START);
        let due = wait(&machine, START);
        assert!((least..=most).contains(&due), "{wish:?} {earliest:?}: {due}");
    }
}

#[test]
fn however_short_a_life_or_a_wish_is_refreshes_keep_a_distance() {
    let hasty = Grant { refresh_in_ms: Some(1), ..grant("a", None, 3_600_000) };
    for (granted, least) in [(grant("a", None, 1), REFRESH_GAP_MIN_MS), (hasty, REFRESH_IN_MIN_MS)]
    {
        let mut machine = Lifecycle::new(policy(Some("s")), None, START);
        succeed(&mut machine, &granted, START);
        assert_eq!(wait(&machine, START), least);
    }
}

/// Out for 83 seconds after an outage of 4.6 was seen.
#[test]
fn while_requests_come_and_there_is_no_token_tries_are_ten_seconds_apart() {
    let mut machine = Lifecycle::new(policy(Some("s")), None, START);
    let mut now = START;
    for _ in 0..30 {
        machine.wanted(now);
        let (after, _) = fail(&mut machine, &failure(Class::Transient), now);
        let wait_ms = after.next_attempt.left_ms(now);
        assert!(wait_ms <= WANTED_DELAY_MAX_MS, "{wait_ms}");
        now = later(now, wait_ms);
    }
}

/// Tries come close together towards the end of a token; that made the first waits after it long.
#[test]
fn the_doubling_begins_anew_when_requests_begin_to_wait() {
    let (mut machine, mut now) = (fresh(), later(START, 3_400_000));
    while !machine.token().unwrap().expires.reached(now) {
        let (after, _) = fail(&mut machine, &failure(Class::Transient), now);
        now = later(now, after.next_attempt.left_ms(now));
    }
    assert!(machine.consecutive_failures() > 5);
    for most_ms in [1_000, 2_000, 4_000, 8_000, 10_000, 10_000] {
        machine.wanted(now);
        let (after, _) = fail(&mut machine, &failure(Class::Transient), now);
        assert!(after.next_attempt.left_ms(now) <= most_ms, "{most_ms}");
        now = later(now, after.next_attempt.left_ms(now));
    }
}

#[test]
fn the_doubling_begins_anew_when_requests_come_back() {
    let (mut machine, mut now) = (Lifecycle::new(policy(Some("s")), None, START), START);
    let mut last_wait_ms = 0;
    for is_wanted in [true, true, true, true, true, true, true, true, false, true] {
        if is_wanted {
            machine.wanted(now);
        }
        let (after, _) = fail(&mut machine, &failure(Class::Transient), now);
        last_wait_ms = after.next_attempt.left_ms(now);
        now = later(now, last_wait_ms);
    }
    assert!(last_wait_ms <= 1_000, "{last_wait_ms}");
}

#[test]
fn a_request_in_the_middle_of_a_long_wait_cuts_it_short() {
    // A machine in the middle of a wait of a minute or more, and when that began.
    let long = || {
        let (mut machine, mut now) = (Lifecycle::new(policy(Some("s")), None, START), START);
        for _ in 0..200 {
            let (after, _) = fail(&mut machine, &failure(Class::Transient), now);
            if after.next_attempt.left_ms(now) > 60_000 {
                return (machine, now);
            }
            now = later(now, after.next_attempt.left_ms(now));
        }
        panic!("no wait is long")
    };
    // Milliseconds after the failure at which the request comes, and how long it is to the next try then.
    for (at_ms, left_ms) in [(0, 10_000), (9_999, 1), (10_000, 0), (50_000, 0)] {
        let (mut machine, began) = long();
        let now = later(began, at_ms);
        assert!(machine.wanted(now), "it is brought forward");
        assert_eq!(wait(&machine, now), left_ms, "{at_ms}");
        assert!(!machine.wanted(now), "once");
    }
    // Not before the issuer wants it, not for what only a person can help, not while there is a token.
    let mut machine = Lifecycle::new(policy(Some("s")), None, START);
    let asked = Failure { retry_after_ms: Some(90_000), ..failure(Class::Transient) };
    fail(&mut machine, &asked, START);
    machine.wanted(START);
    assert_eq!(wait(&machine, START), 90_000);
    let mut machine = Lifecycle::new(policy(Some("s")), None, START);
    fail(&mut machine, &failure(Class::Permanent), START);
    assert!(!machine.wanted(START));
    assert_eq!(wait(&machine, START), HOUR_MS);
    let mut machine = fresh();
    fail(&mut machine, &failure(Class::Transient), later(START, 3_400_000));
    assert!(!machine.wanted(later(START, 3_400_000)));
}

#[test]
fn a_wall_clock_before_the_release_is_waited_out_and_an_order_ends_the_wait() {
    let wrong = Moment { wall: Timestamp::from_secs(1_000), steady_ms: 5 };
    let mut machine = Lifecycle::new(policy(Some("s")), None, wrong);
    assert!(matches!(machine.next(wrong), Instruction::WaitForClock(WRONG_CLOCK_WAIT_MS)));
    assert_eq!(machine.next(Moment { steady_ms: 6, ..START }), Instruction::Refresh);
    let patient = Moment { steady_ms: 5 + WRONG_CLOCK_WAIT_MS, ..wrong };
    assert_eq!(machine.next(patient), Instruction::Refresh, "not for ever");
    machine.order(wrong);
    assert_eq!(machine.next(wrong), Instruction::Refresh);
    let (after, _) = fail(&mut machine, &failure(Class::Transient), wrong);
    let now = later(wrong, after.next_attempt.left_ms(wrong));
    assert_eq!(machine.next(now), Instruction::Refresh, "the wait does not begin again");
}

/// Seen with a clock that was ahead by 90 seconds when the state file was written: 503 for 91 seconds.
#[test]
fn a_stored_token_serves_though_the_clock_was_set_back_and_lives_no_longer_for_it() {
    for back_ms in [1_000, 90_000, 3_600_000, 86_400_000] {
        let machine = fresh();
        let behind = Moment { wall: START.wall.plus_millis(-back_ms), steady_ms: 7 };
        let mut restarted =
            Lifecycle::new(policy(Some("s")), Some(machine.saved().clone()), behind);
        assert_eq!(restarted.token().unwrap().expires.left_ms(behind), HOUR_MS);
        assert!(matches!(restarted.next(behind), Instruction::Wait(3_270_000..=3_300_000)));
        // A refusal is no reason to wait for the clock.
        assert_eq!(refuse(&mut restarted, behind), OnRejection::Refresh);
        assert_eq!(restarted.next(behind), Instruction::Refresh);
        // Set right, it ends when it was said to.
        let right = later(START, 10_000);
        let right = Moment { steady_ms: 9, ..right };
        assert_eq!(restarted.token().unwrap().expires.left_ms(right), HOUR_MS - 10_000);
    }
}

#[test]
fn a_token_that_was_stored_late_in_its_life_has_no_more_left_than_then() {
    let mut machine = fresh();
    let saved = machine.begin(&machine.presented(), later(START, 3_000_000)).unwrap();
    let behind = Moment { wall: START.wall.plus_millis(-90_000), steady_ms: 7 };
    let restarted = Lifecycle::new(policy(Some("s")), Some(saved), behind);
    assert_eq!(restarted.token().unwrap().expires.left_ms(behind), 600_000);
}

#[test]
fn a_refresh_that_is_due_waits_for_the_clock_and_goes_on_when_it_is_set() {
    let mut machine = Lifecycle::new(policy(Some("s")), None, START);
    let saved = succeed(&mut machine, &grant("a", Some("r1"), 60_000), START);
    let behind = Moment { wall: START.wall.plus_millis(-90_000), steady_ms: 7 };
    let restarted = Lifecycle::new(policy(Some("s")), Some(saved), behind);
    assert_eq!(restarted.clock_wait_left_ms(behind), Some(90_000));
    let due = later(behind, 40_000);
    assert_eq!(restarted.next(due), Instruction::WaitForClock(50_000));
    assert_eq!(restarted.next(later(behind, 90_000)), Instruction::Refresh);
}

#[test]
fn a_failure_that_was_stored_by_a_clock_ahead_is_no_longer_than_the_retry_interval() {
    let mut machine = Lifecycle::new(policy(Some("s")), None, START);
    let (_, saved) = fail(&mut machine, &failure(Class::Permanent), START);
    let behind = Moment { wall: START.wall.plus_millis(-3_600_000), steady_ms: 7 };
    let restarted = Lifecycle::new(policy(Some("s")), saved, behind);
    assert_eq!(wait(&restarted, behind), HOUR_MS);
}

#[test]
fn a_token_that_had_ended_by_the_clock_that_stored_it_serves_by_the_present_one() {
    let mut machine = Lifecycle::new(policy(Some("s")), None, START);
    let saved = succeed(&mut machine, &grant("a", Some("r1"), 3_600_000), START);
    for (ahead_ms, left_ms) in
        [(3_599_000, Some(1_000)), (3_600_000, Some(3_540_000)), (86_400_000, Some(3_540_000))]
    {
        // Something was stored while the clock was ahead.
        let saved = Saved { saved_at: START.wall.plus_millis(ahead_ms), ..saved.clone() };
        let now = later(START, 60_000);
        let machine = Lifecycle::new(policy(Some("s")), Some(saved), now);
        let token = machine.token();
        assert_eq!(token.map(|token| token.expires.left_ms(now)), left_ms, "{ahead_ms}");
    }
}

/// Keycloak, with tokens of an hour in a session that ends after half an hour without a refresh: each login was lost after an
/// hour, because the refresh came after the refresh token's end.
#[test]
fn a_refresh_token_that_ends_before_its_access_token_is_used_in_time() {
    const OF_TOKEN: (u64, u64) = (3_270_000, 3_300_000);
    let waits = |refresh_lifetime_ms, without_refresh_token| {
        let policy = Policy { without_refresh_token, ..policy(Some("s")) };
        let mut machine = Lifecycle::new(policy, None, START);
        let granted = Grant {
            refresh_token_lifetime_ms: refresh_lifetime_ms,
            ..grant("a", Some("r"), 3_600_000)
        };
        let record = succeed(&mut machine, &granted, START);
        let restarted =
            Lifecycle::new(Policy { seed: None, ..self::policy(None) }, Some(record), START);
        if !without_refresh_token {
            assert_eq!(wait(&restarted, START), wait(&machine, START), "it is stored");
        }
        wait(&machine, START)
    };
    for (refresh_lifetime_ms, (least, most)) in [
        (None, OF_TOKEN),
        (Some(1_800_000), (1_470_000, 1_500_000)),
        (Some(600_000), (270_000, 300_000)),
        // A number of days, or too late anyway.
        (Some(599_999), OF_TOKEN),
        (Some(90_000), OF_TOKEN),
        (Some(3_599_999), (3_269_999, 3_299_999)),
        (Some(3_600_000), OF_TOKEN),
        (Some(86_400_000), OF_TOKEN),
    ] {
        let waited = waits(refresh_lifetime_ms, false);
        assert!((least..=most).contains(&waited), "{refresh_lifetime_ms:?}: {waited}");
    }
    let waited = waits(Some(1_800_000), true);
    assert!((OF_TOKEN.0..=OF_TOKEN.1).contains(&waited), "client_credentials: {waited}");
}

/// The same token with a new refresh token: the next try came after the access token's end, and so after the refresh token's.
#[test]
fn a_repeated_token_does_not_outlast_its_refresh_token() {
    let granted = |refresh: &str| Grant {
        refresh_token_lifetime_ms: Some(1_800_000),
        ..grant("a", Some(refresh), 3_600_000)
    };
    let mut machine = Lifecycle::new(policy(Some("s")), None, START);
    succeed(&mut machine, &granted("r1"), START);
    let due = later(START, 1_500_000);
    succeed(&mut machine, &granted("r2"), due);
    assert!((1_470_000..=1_500_000).contains(&wait(&machine, due)), "{}", wait(&machine, due));
    assert_eq!(machine.token().unwrap().expires.left_ms(due), 2_100_000, "its end stays");
    let due = later(due, 1_500_000);
    succeed(&mut machine, &granted("r3"), due);
    assert_eq!(wait(&machine, due), 601_000, "its end comes first");
}
