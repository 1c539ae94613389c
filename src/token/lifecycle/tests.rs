//! Tables of the machine's decisions, rule by rule.

use super::*;
use crate::clock::Timestamp;
use crate::record::Marker;
use crate::shortage::Shortage;
use crate::token::backoff::{REJECTION_WAIT_FIRST_MS, REJECTION_WAIT_MAX_MS, WANTED_DELAY_MAX_MS};
use crate::token::grant::Reached;

mod records;
mod rejection;
mod timing;

mod seeds;

const START: Moment = Moment { wall: Timestamp::from_secs(1_800_000_000), steady_ms: 1_000_000 };
const HOUR_MS: u64 = 3_600_000;

fn policy(seed: Option<&str>) -> Policy {
    Policy {
        refresh_before_ms: 300_000,
        retry_interval_ms: HOUR_MS,
        seed: seed.map(Secret::new),
        without_refresh_token: false,
        scope: None,
        client_hash: "client".into(),
    }
}

fn later(now: Moment, millis: u64) -> Moment {
    let due = Due::after(now, millis);
    Moment { wall: due.wall, steady_ms: due.steady_ms }
}

fn grant(access: &str, refresh: Option<&str>, lifetime_ms: i64) -> Grant {
    Grant {
        access_token: Secret::new(access),
        refresh_token: refresh.map(Secret::new),
        lifetime_ms,
        refresh_in_ms: None,
        earliest_refresh_in_ms: None,
        has_ended: false,
        scope: None,
        refresh_token_lifetime_ms: None,
        odd_refresh_end: None,
        warning: None,
    }
}

fn failure(class: Class) -> Failure {
    let what = What::Status(400, None);
    Failure { class, reached: Reached::No, retry_after_ms: None, next_refresh_token: None, what }
}

fn rng() -> Rng {
    Rng::with_seed(3)
}

fn presented(machine: &Lifecycle) -> String {
    match machine.presented() {
        Presented::Token(token) => token.expose().to_owned(),
        other => format!("{other:?}"),
    }
}

/// Refreshes at `now`, and returns the record to write.
fn succeed(machine: &mut Lifecycle, granted: &Grant, now: Moment) -> Saved {
    assert_eq!(machine.next(now), Instruction::Refresh);
    let presented = machine.presented();
    machine.begin(&presented, now);
    machine.granted(&presented, granted, now, now, &mut rng())
}

fn fail(machine: &mut Lifecycle, failed: &Failure, now: Moment) -> (AfterFailure, Option<Saved>) {
    let presented = machine.presented();
    machine.begin(&presented, now);
    machine.failed(&presented, failed, now, &mut rng())
}

fn wait(machine: &Lifecycle, now: Moment) -> u64 {
    match machine.next(now) {
        Instruction::Wait(millis) | Instruction::WaitForClock(millis) => millis,
        Instruction::Refresh => 0,
    }
}

/// A machine that got a token of an hour at `START`.
fn fresh() -> Lifecycle {
    let mut machine = Lifecycle::new(policy(Some("s")), None, START);
    succeed(&mut machine, &grant("a", Some("r"), 3_600_000), START);
    machine
}

fn generation(machine: &Lifecycle) -> Generation {
    machine.token().unwrap().generation
}

fn refuse(machine: &mut Lifecycle, now: Moment) -> OnRejection {
    let generation = generation(machine);
    machine.rejected(generation, now)
}

#[test]
fn the_refresh_point() {
    // Lifetime, least and most wait from when the request was sent, in seconds.
    const TEN_YEARS: i64 = 315_360_000;
    let cases = [
        (TEN_YEARS, 315_359_670, 315_359_700),
        (3600, 3270, 3300),
        (600, 270, 300),
        (400, 180, 200),
        (30, 13, 15),
        (4, 1, 2),
        (1, 0, 1),
    ];
    for (lifetime, least, most) in cases {
        for seed in 0..50 {
            let mut machine = Lifecycle::new(policy(Some("s")), None, START);
            let presented = machine.presented();
            machine.begin(&presented, START);
            let granted = grant("a", None, lifetime * 1000);
            let mut rng = Rng::with_seed(seed);
            machine.granted(&presented, &granted, START, START, &mut rng);
            let waited = wait(&machine, START);
            assert!((least * 1000..=most * 1000).contains(&waited), "{lifetime}: {waited}");
        }
    }
}

#[test]
fn a_lifetime_runs_from_when_the_request_was_sent() {
    let mut machine = Lifecycle::new(policy(Some("s")), None, START);
    let presented = machine.presented();
    machine.begin(&presented, START);
    let answered = later(START, 20_000);
    machine.granted(&presented, &grant("a", None, 60_000), START, answered, &mut rng());
    let expires = machine.token().unwrap().expires;
    assert!(!expires.reached(later(START, 59_999)));
    assert!(expires.reached(later(START, 60_000)));
}

#[test]
fn either_clock_ends_a_token() {
    let mut machine = Lifecycle::new(policy(Some("s")), None, START);
    succeed(&mut machine, &grant("a", None, 600_000), START);
    let expires = machine.token().unwrap().expires;
    // Suspended: the steady clock stood still.
    assert!(expires.reached(Moment { steady_ms: START.steady_ms, ..later(START, 600_000) }));
    // Stepped back by an hour: the wall clock says there is time.
    let stepped = Moment { wall: START.wall.plus_millis(-3_600_000), ..later(START, 600_000) };
    assert!(expires.reached(stepped));
    assert_eq!(machine.next(stepped), Instruction::Refresh);
    // Stepped forward by a day.
    assert!(expires.reached(Moment { wall: START.wall.plus_millis(86_400_000), ..START }));
}

#[test]
fn transient_failures_back_off_and_the_old_token_serves() {
    let mut machine = Lifecycle::new(policy(Some("s")), None, START);
    succeed(&mut machine, &grant("a", None, 600_000), START);
    let due = later(START, 300_000);
    let mut now = due;
    for _ in 0..3 {
        assert_eq!(machine.next(now), Instruction::Refresh);
        let (after, saved) = fail(&mut machine, &failure(Class::Transient), now);
        assert!(saved.is_some_and(|saved| saved.failure.is_none()));
        now = later(now, after.next_attempt.left_ms(now));
        assert!(!machine.token().unwrap().expires.reached(now));
    }
    assert_eq!(machine.consecutive_failures(), 3);
    let asked = Failure { retry_after_ms: Some(90_000), ..failure(Class::Transient) };
    let (after, _) = fail(&mut machine, &asked, now);
    assert_eq!(after.next_attempt.left_ms(now), 90_000);
    let now = later(now, 90_000);
    succeed(&mut machine, &grant("b", None, 600_000), now);
    assert_eq!((machine.consecutive_failures(), machine.next_attempt_at()), (0, None));
}

#[test]
fn permanent_failures_wait_and_are_remembered() {
    for class in [Class::Permanent, Class::TokenDead] {
        let mut machine = Lifecycle::new(policy(Some("s")), None, START);
        let (after, saved) = fail(&mut machine, &failure(class), START);
        assert_eq!(after.next_attempt.left_ms(START), HOUR_MS);
        assert_eq!(wait(&machine, START), HOUR_MS);
        let saved = saved.unwrap();
        assert!(saved.pending.is_none());
        let restart = |seed: &str, client: &str| {
            let policy = Policy { client_hash: client.into(), ..policy(Some(seed)) };
            Lifecycle::new(policy, Some(saved.clone()), later(START, 1000))
        };
        let same = restart("s", "client");
        assert_eq!(wait(&same, later(START, 1000)), HOUR_MS - 1000);
        assert_eq!(same.applicable_failure().unwrap().what, "400 Bad Request");
        assert_eq!(wait(&restart("new", "client"), later(START, 1000)), 0);
        assert_eq!(wait(&restart("s", "changed"), later(START, 1000)), 0);
        // A forced refresh tries at once.
        let mut forced = restart("s", "client");
        forced.order(later(START, 1000));
        assert_eq!(wait(&forced, later(START, 1000)), 0);
    }
}

#[test]
fn a_seed_that_is_missing_is_not_remembered() {
    let mut machine = Lifecycle::new(policy(None), None, START);
    assert_eq!(machine.presented(), Presented::Missing);
    let (after, saved) = fail(&mut machine, &failure(Class::Permanent), START);
    assert_eq!((after.next_attempt.left_ms(START), saved), (HOUR_MS, None));
}

#[test]
fn seed_and_chain() {
    let chain = |began_with: Option<&str>| Saved {
        revision: 1,
        saved_at: START.wall,
        seed_hash: began_with.map(|seed| Secret::new(seed).hash()),
        refresh_token: Some(Secret::new("chain")),
        ..Saved::default()
    };
    let cases = [
        (Some("s"), None, "s"),
        (Some("s"), Some(chain(Some("s"))), "chain"),
        (Some("new"), Some(chain(Some("s"))), "new"),
        // A file without the chain's beginning: the chain's own token is newer than any seed.
        (Some("s"), Some(chain(None)), "chain"),
        (None, Some(chain(Some("s"))), "chain"),
        (None, None, "Missing"),
    ];
    for (seed, saved, expected) in cases {
        let machine = Lifecycle::new(policy(seed), saved.clone(), START);
        assert_eq!(presented(&machine), expected, "{seed:?} {saved:?}");
    }
    let client = Policy { without_refresh_token: true, ..policy(None) };
    assert_eq!(presented(&Lifecycle::new(client, None, START)), "Nothing");
}

#[test]
fn a_new_chain_takes_the_old_ones_place_only_once_it_works() {
    let mut machine = Lifecycle::new(policy(Some("s")), None, START);
    let saved = succeed(&mut machine, &grant("a", Some("r1"), 3_600_000), START);
    let now = later(START, 60_000);
    let mut other = Lifecycle::new(policy(Some("new")), Some(saved), now);
    assert!(other.token().is_none(), "the old account's token is not used");
    let (_, failed) = fail(&mut other, &failure(Class::TokenDead), now);
    let kept = failed.unwrap();
    assert_eq!(kept.refresh_token, Some(Secret::new("r1")));
    let back = Lifecycle::new(policy(Some("s")), Some(kept.clone()), now);
    assert_eq!(presented(&back), "r1");
    assert_eq!(back.token().map(|token| token.source), Some("state_file"));
    let mut other = Lifecycle::new(policy(Some("newer")), Some(kept), now);
    let saved = succeed(&mut other, &grant("b", Some("n1"), 3_600_000), now);
    assert_eq!(saved.seed_hash, Some(Secret::new("newer").hash()));
    assert_eq!(saved.refresh_token, Some(Secret::new("n1")));
}

#[test]
fn a_refused_chain_falls_back_to_a_differing_seed_once() {
    let mut machine = Lifecycle::new(policy(Some("s")), None, START);
    succeed(&mut machine, &grant("a", Some("r1"), 3_600_000), START);
    let now = later(START, HOUR_MS);
    let (after, _) = fail(&mut machine, &failure(Class::TokenDead), now);
    assert!(after.falls_back_to_seed);
    assert_eq!((wait(&machine, now), presented(&machine).as_str()), (0, "s"));
    let (after, saved) = fail(&mut machine, &failure(Class::TokenDead), now);
    assert!(!after.falls_back_to_seed);
    assert_eq!(wait(&machine, now), HOUR_MS);
    // A restart does not try either of them again.
    let restarted = Lifecycle::new(policy(Some("s")), saved, now);
    assert_eq!(wait(&restarted, now), HOUR_MS);
    // A seed that is the chain's own token is no fallback.
    let mut machine = Lifecycle::new(policy(Some("s")), None, START);
    succeed(&mut machine, &grant("a", None, 3_600_000), START);
    let (after, _) = fail(&mut machine, &failure(Class::TokenDead), now);
    assert!(!after.falls_back_to_seed);
}

#[test]
fn without_a_new_refresh_token_the_old_one_stays() {
    let mut machine = Lifecycle::new(policy(Some("s")), None, START);
    let saved = succeed(&mut machine, &grant("a", None, 3_600_000), START);
    assert_eq!(saved.refresh_token, Some(Secret::new("s")));
    let now = later(START, HOUR_MS);
    let saved = succeed(&mut machine, &grant("b", Some("r1"), 3_600_000), now);
    assert_eq!(saved.refresh_token, Some(Secret::new("r1")));
    assert_eq!(saved.seed_hash, Some(Secret::new("s").hash()));
}

#[test]
fn a_marker_leads_to_another_try_with_the_old_token_at_once() {
    let mut machine = Lifecycle::new(policy(Some("s")), None, START);
    succeed(&mut machine, &grant("a", Some("r1"), 3_600_000), START);
    let now = later(START, HOUR_MS - 100_000);
    let marked = machine.begin(&machine.presented(), now).unwrap();
    assert_eq!(marked.pending.as_ref().unwrap().refresh_token_hash, Secret::new("r1").hash());
    // Killed here. The stored token is still good, and is used.
    let mut restarted = Lifecycle::new(policy(Some("s")), Some(marked), now);
    assert!(restarted.token().is_some());
    assert_eq!((restarted.next(now), presented(&restarted).as_str()), (Instruction::Refresh, "r1"));
    // An answer that says nothing about the token leaves the question open.
    let (after, _) = fail(&mut restarted, &failure(Class::Transient), now);
    assert!(!after.answer_lost);
    let (after, _) = fail(&mut restarted, &failure(Class::TokenDead), now);
    assert!(after.answer_lost);
}

#[test]
fn a_lost_answer_is_said_after_the_seed_was_refused_too() {
    let mut machine = Lifecycle::new(policy(Some("s")), None, START);
    succeed(&mut machine, &grant("a", Some("r1"), 3_600_000), START);
    let now = later(START, HOUR_MS);
    let silent = Failure { reached: Reached::Perhaps, ..failure(Class::Transient) };
    fail(&mut machine, &silent, now);
    let (after, _) = fail(&mut machine, &failure(Class::TokenDead), now);
    assert!(after.falls_back_to_seed);
    let (after, _) = fail(&mut machine, &failure(Class::TokenDead), now);
    assert!(after.answer_lost && !after.falls_back_to_seed);
}

#[test]
fn no_answer_leaves_the_marker_and_an_answer_takes_it_away() {
    for (reached, stays) in [(Reached::Perhaps, true), (Reached::No, false)] {
        let mut machine = Lifecycle::new(policy(Some("s")), None, START);
        let failed = Failure { reached, ..failure(Class::Transient) };
        let (_, saved) = fail(&mut machine, &failed, START);
        assert_eq!(saved.unwrap().pending.is_some(), stays);
        let (after, _) = fail(&mut machine, &failure(Class::TokenDead), START);
        assert_eq!(after.answer_lost, stays);
    }
}

/// A refresh with the next token brings an answer that is no grant, and has this refresh token.
fn continues_with(machine: &mut Lifecycle, next: &str, now: Moment) -> Saved {
    let presented = machine.presented();
    machine.begin(&presented, now);
    machine.continue_chain(&presented, &Secret::new(next), now.wall);
    let failed = failure(Class::Transient);
    machine.failed(&presented, &failed, now, &mut rng()).1.unwrap()
}

#[test]
fn a_refresh_token_that_came_without_a_grant_is_the_next_one() {
    let mut machine = fresh();
    let now = later(START, HOUR_MS - 60_000);
    let silent = Failure { reached: Reached::Perhaps, ..failure(Class::Transient) };
    fail(&mut machine, &silent, now);
    let saved = continues_with(&mut machine, "r2", now);
    assert_eq!((presented(&machine).as_str(), saved.pending), ("r2", None));
    assert!(!machine.token().unwrap().expires.reached(now), "the old token serves on");
    let (after, _) = fail(&mut machine, &failure(Class::TokenDead), now);
    assert!(after.falls_back_to_seed && !after.answer_lost, "no answer was lost");
    // The seed, which is tried in the chain's place, is used up too.
    continues_with(&mut machine, "r3", now);
    assert_eq!(presented(&machine), "r3");
    let saved = continues_with(&mut machine, "r4", now);
    let restarted = Lifecycle::new(policy(Some("s")), Some(saved), now);
    assert_eq!(presented(&restarted), "r4");
}

#[test]
fn a_login_ends_the_marker_of_a_refresh_before_it() {
    let mut machine = Lifecycle::new(policy(Some("s")), None, START);
    // The second one finds the first one's marker.
    machine.begin(&machine.presented(), START);
    machine.begin(&machine.presented(), START);
    let refresh_token = Secret::new("r");
    machine.logged_in(&grant("a", None, 3_600_000), &refresh_token, START, START, &mut rng());
    machine.failed(&Presented::Nothing, &failure(Class::Transient), START, &mut rng());
    assert_eq!(machine.saved().pending, None);
}

#[test]
fn what_we_ran_out_of_ourselves_makes_no_wait_longer() {
    let mut machine = Lifecycle::new(policy(Some("s")), None, START);
    let mut now = START;
    for _ in 0..20 {
        let (after, _) = fail(&mut machine, &Failure::short(Shortage::Descriptors), now);
        assert_eq!((after.next_attempt.left_ms(now), machine.consecutive_failures()), (1_000, 0));
        now = later(now, 1_000);
    }
    // The issuer's first failure is the first.
    fail(&mut machine, &failure(Class::Transient), now);
    assert!(wait(&machine, now) <= 1_000 && machine.consecutive_failures() == 1);
}

#[test]
fn a_try_that_never_reached_the_issuer_ends_only_its_own_marker() {
    let lost = Failure { reached: Reached::Perhaps, ..failure(Class::Transient) };
    let refused = failure(Class::Transient);
    let client = failure(Class::Permanent);
    let rows: [(&[&Failure], bool); 8] = [
        (&[&lost, &refused], true),
        (&[&lost, &refused, &refused], true),
        (&[&refused, &lost, &refused], true),
        (&[&lost, &lost, &refused], true),
        (&[&lost, &client], true),
        (&[&lost, &refused, &client, &refused], true),
        (&[&refused], false),
        (&[&refused, &client, &refused], false),
    ];
    for (number, (failures, is_lost)) in rows.into_iter().enumerate() {
        for restarts in [false, true] {
            let mut machine = Lifecycle::new(policy(None), None, START);
            machine.set_policy(policy(Some("s")));
            let mut now = START;
            for failed in failures {
                now = later(now, HOUR_MS);
                let (after, saved) = fail(&mut machine, failed, now);
                assert!(!after.answer_lost);
                if restarts {
                    machine = Lifecycle::new(policy(Some("s")), saved, now);
                }
            }
            now = later(now, HOUR_MS);
            let (after, saved) = fail(&mut machine, &failure(Class::TokenDead), now);
            assert_eq!(after.answer_lost, is_lost, "row {number}, restarts: {restarts}");
            assert_eq!(saved.unwrap().pending, None);
        }
    }
}

#[test]
fn the_marker_of_another_process_outlives_a_try_that_reached_nobody() {
    let mut theirs = Lifecycle::new(policy(Some("s")), None, START);
    let marked = theirs.begin(&theirs.presented(), START).unwrap();
    let mut ours = Lifecycle::new(policy(Some("s")), None, START);
    ours.take_up(STATE_FILE, marked.clone(), START);
    let (_, saved) = fail(&mut ours, &failure(Class::Transient), later(START, 1_000));
    assert_eq!(saved.unwrap().pending, marked.pending);
    let (after, _) = fail(&mut ours, &failure(Class::TokenDead), later(START, 2_000));
    assert!(after.answer_lost);
}

#[test]
fn a_stored_refusal_of_the_client_is_not_tried_again_for_a_marker_before_it() {
    let mut machine = Lifecycle::new(policy(Some("s")), None, START);
    let lost = Failure { reached: Reached::Perhaps, ..failure(Class::Transient) };
    fail(&mut machine, &lost, START);
    let (_, saved) = fail(&mut machine, &failure(Class::Permanent), START);
    let restarted = Lifecycle::new(policy(Some("s")), saved.clone(), START);
    assert_eq!(wait(&restarted, START), HOUR_MS);
    // The client is corrected, and then the refresh token turns out to be dead.
    let mended = Policy { client_hash: "other".into(), ..policy(Some("s")) };
    let mut restarted = Lifecycle::new(mended, saved, START);
    assert_eq!(restarted.next(START), Instruction::Refresh);
    let (after, _) = fail(&mut restarted, &failure(Class::TokenDead), START);
    assert!(after.answer_lost);
}

#[test]
fn a_restart_uses_what_is_stored_while_it_is_valid() {
    let mut machine = Lifecycle::new(policy(Some("s")), None, START);
    let saved = succeed(&mut machine, &grant("a", Some("r1"), 3_600_000), START);
    let soon = later(START, 1_000_000);
    let restarted = Lifecycle::new(policy(Some("s")), Some(saved.clone()), soon);
    assert_eq!(restarted.token().unwrap().secret, Secret::new("a"));
    assert!(wait(&restarted, soon) > 2_000_000);
    let late = later(START, HOUR_MS);
    let restarted = Lifecycle::new(policy(Some("s")), Some(saved), late);
    assert!(restarted.token().is_none());
    assert_eq!(
        (restarted.next(late), presented(&restarted).as_str()),
        (Instruction::Refresh, "r1")
    );
}

#[test]
fn what_another_process_stored_is_taken_up() {
    let mut first = Lifecycle::new(policy(Some("s")), None, START);
    let mut second = Lifecycle::new(policy(Some("s")), None, START);
    let saved = succeed(&mut first, &grant("a", Some("r1"), 3_600_000), START);
    fail(&mut second, &failure(Class::Transient), START);
    assert!(second.take_up(STATE_FILE, Saved { revision: 9, ..saved.clone() }, START));
    assert_eq!((second.consecutive_failures(), presented(&second).as_str()), (0, "r1"));
    assert!(wait(&second, START) > 3_000_000);
    // An older record does not replace the known one.
    assert!(!second.take_up(STATE_FILE, Saved { revision: 8, ..saved.clone() }, START));
    assert!(
        !second.take_up(STATE_FILE, Saved { revision: 10, ..saved }, START),
        "the same token is not news"
    );
}

/// Seen with five hosts: each host that tried the seed made another one try the chain's token once more, and nobody
/// reported the lost answer.
#[test]
fn a_chain_that_was_lost_is_tried_once_by_all_hosts_together_and_its_seed_once() {
    let mut gone = Lifecycle::new(policy(Some("s")), None, START);
    let saved = succeed(&mut gone, &grant("a", Some("r1"), 3_600_000), START);
    let now = later(START, HOUR_MS);
    let host = || Lifecycle::new(policy(Some("s")), Some(saved.clone()), now);
    let (mut one, mut other) = (host(), host());
    let marked = gone.begin(&gone.presented(), now).unwrap();
    for host in [&mut one, &mut other] {
        host.take_up(TOKEN_STORE, marked.clone(), now);
        assert_eq!((host.next(now), presented(host).as_str()), (Instruction::Refresh, "r1"));
    }
    let marked = one.begin(&one.presented(), now).unwrap();
    other.take_up(TOKEN_STORE, marked, now);
    let (after, refused) = fail(&mut one, &failure(Class::TokenDead), now);
    assert!(after.falls_back_to_seed);
    other.take_up(TOKEN_STORE, refused.unwrap(), now);
    for host in [&one, &other] {
        assert_eq!((host.next(now), presented(host).as_str()), (Instruction::Refresh, "s"));
    }
    let marked = other.begin(&other.presented(), now).unwrap();
    one.take_up(TOKEN_STORE, marked, now);
    let (after, refused) = fail(&mut other, &failure(Class::TokenDead), now);
    assert!(after.answer_lost && !after.falls_back_to_seed, "it is said, whoever tried the chain");
    let refused = refused.unwrap();
    one.take_up(TOKEN_STORE, refused.clone(), now);
    assert_eq!((wait(&one, now), wait(&other, now)), (HOUR_MS, HOUR_MS));
    let restarted = Lifecycle::new(policy(Some("s")), Some(refused), now);
    assert_eq!(wait(&restarted, now), HOUR_MS);
}

/// Seen with two hosts: the second one, asked after the first had been refused, reported a lost answer.
#[test]
fn a_marker_of_another_host_that_got_its_answer_tells_of_no_lost_one() {
    let mut gone = Lifecycle::new(policy(None), None, START);
    let saved = Saved { refresh_token: Some(Secret::new("r")), ..gone.chain.stamped(START.wall) };
    let host = || Lifecycle::new(policy(None), Some(saved.clone()), START);
    let (mut one, mut other) = (host(), host());
    let marked = one.begin(&one.presented(), START).unwrap();
    other.take_up(TOKEN_STORE, marked, START);
    let failed = failure(Class::TokenDead);
    let (_, refused) = one.failed(&one.presented(), &failed, START, &mut rng());
    other.take_up(TOKEN_STORE, refused.unwrap(), START);
    other.order(START);
    let (after, refused) = fail(&mut other, &failed, START);
    assert!(!after.answer_lost && !refused.unwrap().failure.unwrap().answer_lost);
}

#[test]
fn a_failure_that_is_not_about_the_chain_leads_to_no_seed() {
    let mut machine = Lifecycle::new(policy(Some("s")), None, START);
    succeed(&mut machine, &grant("a", Some("r1"), 3_600_000), START);
    let now = later(START, HOUR_MS);
    let (_, failed) = fail(&mut machine, &failure(Class::Permanent), now);
    let restarted = Lifecycle::new(policy(Some("s")), failed, now);
    assert_eq!((wait(&restarted, now), presented(&restarted).as_str()), (HOUR_MS, "r1"));
}

/// Seen with five hosts, each with a header of its own: 75 token requests a second, for ever.
#[test]
fn hosts_that_are_configured_otherwise_do_not_have_each_other_try_for_ever() {
    let mut one = Lifecycle::new(policy(None), None, START);
    one.set_policy(policy(Some("s")));
    let other_client = Policy { client_hash: "other".into(), ..policy(Some("s")) };
    let mut other = Lifecycle::new(other_client, None, START);
    for _ in 0..2 {
        let marked = one.begin(&one.presented(), START).unwrap();
        other.take_up(TOKEN_STORE, marked, START);
        let (_, refused) = fail(&mut one, &failure(Class::TokenDead), START);
        other.take_up(TOKEN_STORE, refused.unwrap(), START);
        std::mem::swap(&mut one, &mut other);
    }
    assert_eq!((wait(&one, START), wait(&other, START)), (HOUR_MS, HOUR_MS));
}

#[test]
fn generations_rise() {
    let mut machine = Lifecycle::new(policy(Some("s")), None, START);
    let mut now = START;
    for expected in 1..5 {
        succeed(&mut machine, &grant(&format!("a{expected}"), None, 3_600_000), now);
        assert_eq!(machine.token().unwrap().generation, expected);
        now = later(now, HOUR_MS);
    }
}

/// The record after a login that saw `policy` and found `stored`.
fn login(policy: Policy, stored: Option<Saved>, refresh: &str) -> Saved {
    let granted = grant("login-access", Some(refresh), 3_600_000);
    let mut machine = Lifecycle::new(policy, stored, START);
    machine.logged_in(&granted, &Secret::new(refresh), START, START, &mut rng())
}

#[test]
fn after_a_login_seeds_that_were_known_begin_no_chain_and_a_new_one_does() {
    let begun = {
        let mut machine = Lifecycle::new(policy(Some("seed")), None, START);
        succeed(&mut machine, &grant("a1", Some("r1"), 3_600_000), START)
    };
    // An issuer that does not rotate: the chain's token is the seed itself.
    let kept = {
        let mut machine = Lifecycle::new(policy(Some("seed")), None, START);
        succeed(&mut machine, &grant("a1", None, 3_600_000), START)
    };
    let kept_and_refused = {
        let mut machine = Lifecycle::new(policy(Some("seed")), Some(kept.clone()), START);
        fail(&mut machine, &failure(Class::TokenDead), later(START, 3_600_000)).1
    };
    let refused = {
        let mut machine = Lifecycle::new(policy(Some("seed")), None, START);
        fail(&mut machine, &failure(Class::TokenDead), START).1
    };
    let unsure = {
        let mut machine = Lifecycle::new(policy(Some("seed")), None, START);
        let presented = machine.presented();
        machine.begin(&presented, START)
    };
    // The login's knowledge of the seed: from its environment, from the state file, or from both.
    let cases = [
        (Some("seed"), None),
        (Some("seed"), Some(begun.clone())),
        (None, Some(begun)),
        (Some("seed"), Some(kept.clone())),
        (None, Some(kept)),
        (Some("seed"), kept_and_refused.clone()),
        (None, kept_and_refused),
        (None, refused),
        (None, unsure),
    ];
    for (seen, stored) in cases {
        let revision = stored.as_ref().map_or(0, |stored| stored.revision);
        let saved = login(policy(seen), stored, "lr");
        assert_eq!(saved.revision, revision + 1);
        assert_eq!((&saved.pending, &saved.failure, &saved.seed_hash), (&None, &None, &None));
        let old = Lifecycle::new(policy(Some("seed")), Some(saved.clone()), START);
        assert_eq!(presented(&old), "lr", "{seen:?}");
        assert_eq!(old.token().unwrap().secret, Secret::new("login-access"));
        let without = Lifecycle::new(policy(None), Some(saved.clone()), START);
        assert_eq!(presented(&without), "lr");
        let new = Lifecycle::new(policy(Some("other-seed")), Some(saved), START);
        assert_eq!(presented(&new), "other-seed", "{seen:?}");
        assert!(new.token().is_none());
    }
}

#[test]
fn the_chain_of_a_login_rotates_and_ends_like_any_other() {
    let saved = login(policy(Some("seed")), None, "lr");
    let mut machine = Lifecycle::new(policy(Some("seed")), Some(saved), START);
    let due = later(START, 3_600_000);
    let rotated = succeed(&mut machine, &grant("a2", Some("lr2"), 3_600_000), due);
    assert_eq!(rotated.login_hash, Some(Secret::new("lr").hash()));
    assert!(rotated.knows_seed(&Secret::new("seed").hash()));
    // A refused chain falls back to the seed once; if the seed is granted, the login is over.
    let later_still = later(due, 3_600_000);
    let (after, _) = fail(&mut machine, &failure(Class::TokenDead), later_still);
    assert!(after.falls_back_to_seed);
    let saved = succeed(&mut machine, &grant("a3", Some("r3"), 3_600_000), later_still);
    assert_eq!((saved.login_hash, saved.superseded_seeds.len()), (None, 0));
    assert_eq!(saved.seed_hash, Some(Secret::new("seed").hash()));
}

#[test]
fn a_login_is_taken_up_whatever_its_revision_and_whatever_is_in_use() {
    // A seed that the login could not see, in use and never written.
    let mut machine = Lifecycle::new(policy(Some("seed")), None, START);
    let mut own = succeed(&mut machine, &grant("a1", Some("r1"), 3_600_000), START);
    for _ in 0..5 {
        own = machine.begin(&machine.presented(), START).unwrap();
    }
    let saved = login(policy(None), None, "lr");
    assert!(saved.revision < own.revision);
    assert!(machine.is_other_login(&saved));
    machine.order(START);
    assert!(machine.take_up(STATE_FILE, saved.clone(), START));
    assert_eq!(presented(&machine), "lr");
    assert_eq!(machine.token().unwrap().secret, Secret::new("login-access"));
    assert!(matches!(machine.next(START), Instruction::Wait(_)), "nothing is refreshed for it");
    assert!(!machine.is_other_login(&saved));
    // Once written by us, the seed stays superseded for the next start.
    let written = machine.begin(&machine.presented(), START).unwrap();
    assert!(written.knows_seed(&Secret::new("seed").hash()));
    // The same login again is no news, and another one is.
    assert!(!machine.take_up(STATE_FILE, saved.clone(), START));
    let another = login(policy(None), Some(saved), "lr2");
    assert!(machine.is_other_login(&another));
    machine.take_up(STATE_FILE, another, START);
    assert_eq!(presented(&machine), "lr2");
}

/// The disk failed at the first refresh with a new seed: what that replaced, and was still in the state file, was taken
/// for a new login, and the new chain was given up.
#[test]
fn a_login_or_logout_that_a_new_seed_replaced_is_not_taken_for_a_new_one() {
    let logged_in = login(policy(Some("seed")), None, "lr");
    let logged_out = Lifecycle::new(policy(Some("seed")), Some(logged_in.clone()), START)
        .logged_out("mark".into(), START);
    for replaced in [logged_in, logged_out] {
        let mut machine = Lifecycle::new(policy(Some("new")), Some(replaced.clone()), START);
        let presented_seed = machine.presented();
        let marked = machine.begin(&presented_seed, START).unwrap();
        let came = grant("a2", Some("r2"), 3_600_000);
        let begun = machine.granted(&presented_seed, &came, START, START, &mut rng());
        // A host that shares the token store, and whose state file is still the old one.
        let mut other = Lifecycle::new(policy(Some("seed")), Some(replaced.clone()), START);
        other.take_up(TOKEN_STORE, begun.clone(), START);
        // The marker was written, or not even that.
        let looks = [(true, &marked), (true, &replaced), (false, &replaced)];
        for (is_own, stored) in looks {
            let machine = if is_own { &mut machine } else { &mut other };
            assert!(!machine.is_other_login(stored));
            assert!(!machine.take_up(STATE_FILE, stored.clone(), START));
            assert_eq!((&machine.saved().login_hash, presented(machine).as_str()), (&None, "r2"));
        }
        // A login that comes later, whatever it finds, and even if it brings the same refresh token as before.
        for (stored, brought) in
            [(&replaced, "lr2"), (&marked, "lr2"), (&begun, "lr2"), (&begun, "lr")]
        {
            let newer = login(policy(None), Some(stored.clone()), brought);
            assert!(machine.is_other_login(&newer), "{brought}");
        }
        machine.take_up(STATE_FILE, login(policy(None), Some(begun), "lr"), START);
        assert_eq!(presented(&machine), "lr");
    }
}

#[test]
fn a_login_ends_a_failure() {
    let mut machine = Lifecycle::new(policy(None), None, START);
    let missing = Failure::missing(crate::config::Missing::Login("p".into()));
    fail(&mut machine, &missing, START);
    assert!(matches!(machine.next(START), Instruction::Wait(HOUR_MS)));
    assert!(machine.take_up(STATE_FILE, login(policy(None), None, "lr"), START));
    assert_eq!((machine.consecutive_failures(), machine.next_attempt_at()), (0, None));
}
