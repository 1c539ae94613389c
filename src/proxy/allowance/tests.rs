//! Quotas as they are noted, kept, and told to other hosts.

use super::*;
use crate::clock::Timestamp;

const NOW: Moment = Moment { wall: Timestamp::from_secs(1_800_000_000), steady_ms: 9_000 };
const USED_UP: &[(&str, &str)] = &[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "100")];

fn later(ms: u64) -> Moment {
    let due = Due::after(NOW, ms);
    Moment { wall: due.wall, steady_ms: due.steady_ms }
}

fn headers(fields: &[(&str, &str)]) -> Headers {
    let mut headers = Headers::new();
    for (name, value) in fields {
        headers.push(*name, *value);
    }
    headers
}

fn of(state: &Arc<AllowanceState>) -> Allowance {
    Allowance::new(Some(1), state.clone(), Arc::default(), None)
}

fn note(
    allowance: &Allowance,
    fields: &[(&str, &str)],
    origin: u64,
    now: Moment,
) -> Option<UsedUp> {
    let headers = &headers(fields);
    let stated = Stated {
        headers,
        origin,
        begun: None,
        is_of_one_model: false,
        sent: u64::MAX,
        model: &|| None,
    };
    allowance.note(&stated, &Clock::from_fn(move || now))
}

fn left_ms(allowance: &Allowance, origin: u64, now: Moment) -> Option<u64> {
    let until = allowance.used_up_until(origin, &|| None, now);
    until.map(|until| until.left_ms(now))
}

#[test]
fn an_answer_without_such_fields_asks_not_even_the_clock() {
    let allowance = of(&Arc::default());
    let plain = headers(&[("content-type", "a"), ("retry-after", "5"), ("x-request-id", "1")]);
    let clock = Clock::from_fn(|| panic!("nobody asks"));
    let stated = Stated {
        headers: &plain,
        origin: 1,
        begun: None,
        is_of_one_model: false,
        sent: u64::MAX,
        model: &|| None,
    };
    assert_eq!(allowance.note(&stated, &clock), None);
    assert!(!allowance.is_to_be_asked());
}

/// Reading every answer cost a thousand instructions a request and more.
#[test]
fn while_something_is_left_one_answer_a_second_is_read() {
    let state = Arc::<AllowanceState>::default();
    let allowance = of(&state);
    let start = Stopwatch::start();
    let at = |seconds| Some(start.later(Duration::from_secs(seconds)));
    let ratio = |left: &str, begun| {
        let headers = &headers(&[("x-ratelimit-remaining", left), ("x-ratelimit-limit", "10")]);
        let stated = Stated {
            headers,
            origin: 1,
            begun,
            is_of_one_model: false,
            sent: u64::MAX,
            model: &|| None,
        };
        allowance.note(&stated, &Clock::from_fn(|| NOW));
        allowance.windows(1, NOW)[0].remaining_ratio
    };
    assert_eq!(ratio("9", at(5)), Some(0.9));
    assert_eq!(ratio("8", at(5)), Some(0.9));
    assert_eq!(ratio("7", at(6)), Some(0.7));
    assert_eq!(ratio("0", at(6)), Some(0.0), "it is used up");
    assert_eq!(ratio("6", at(6)), Some(0.6), "it was used up");
    assert_eq!(ratio("5", at(6)), Some(0.6));
    assert_eq!(ratio("4", None), Some(0.4));
}

#[test]
fn it_is_told_once_that_nothing_is_left() {
    let allowance = of(&Arc::default());
    let told = note(&allowance, USED_UP, 1, NOW);
    assert_eq!(told, Some(UsedUp { windows: "default".into(), seconds: 100 }));
    assert_eq!(note(&allowance, USED_UP, 1, NOW), None);
    assert!(allowance.is_to_be_asked());
    assert_eq!((left_ms(&allowance, 1, NOW), left_ms(&allowance, 2, NOW)), (Some(100_000), None));
    assert_eq!(left_ms(&allowance, 1, later(100_000)), None);
    assert!(!allowance.is_to_be_asked(), "once that is over, requests read one flag again");
}

/// The end of a cooldown was not saved while another host's message waited to be read.
#[test]
fn a_message_of_another_host_keeps_nothing_from_being_saved() {
    let state = AllowanceState::default();
    let told = state.stored(&Cooldown::default(), NOW).unwrap();
    state.hear(told);
    assert!(state.stored(&Cooldown::default(), NOW).is_some());
}

#[test]
fn what_an_earlier_run_saved_counts_for_its_account_alone() {
    let first = Arc::<AllowanceState>::default();
    note(&of(&first), USED_UP, 1, NOW);
    let cooldown = Cooldown::default();
    cooldown.begin(NOW, Duration::from_secs(50), Proof::Quota, Begun::Here);
    let saved = first.stored(&cooldown, NOW).unwrap();
    for (origin, left, cools) in [(1, Some(90_000), true), (2, None, false)] {
        let state = Arc::new(AllowanceState::new(vec![saved.clone()]));
        let allowance = of(&state);
        assert_eq!(state.stored(&cooldown, NOW), None, "the file stays until the account is known");
        assert_eq!(left_ms(&allowance, origin, later(10_000)), left);
        assert_eq!(allowance.cooldown.until(later(10_000)).is_some(), cools);
        assert!(state.stored(&cooldown, NOW).is_some());
    }
}

#[test]
fn hosts_hear_at_once_that_nothing_is_left_and_other_news_every_five_seconds() {
    let (state, other) = (Arc::<AllowanceState>::default(), Arc::<AllowanceState>::default());
    let allowance = of(&state);
    assert_eq!(state.to_tell(NOW), None);
    let half =
        [("x-ratelimit-remaining", "5"), ("x-ratelimit-limit", "10"), ("x-ratelimit-reset", "99")];
    let less = [("x-ratelimit-remaining", "4"), half[1], half[2]];
    note(&allowance, &half, 1, NOW);
    assert!(state.to_tell(NOW).is_some());
    note(&allowance, &less, 1, NOW);
    assert_eq!(state.to_tell(later(TELL_EVERY_MS - 1)), None);
    assert!(state.to_tell(later(TELL_EVERY_MS)).is_some());
    note(&allowance, USED_UP, 1, later(TELL_EVERY_MS));
    let told = state.to_tell(later(TELL_EVERY_MS)).unwrap();
    assert_eq!(state.to_tell(later(9 * TELL_EVERY_MS)), None);
    other.hear(told.clone());
    other.hear(told);
    assert_eq!(other.earlier().len(), 1, "the newest of an account");
    assert_eq!(left_ms(&of(&other), 1, later(TELL_EVERY_MS)), Some(100_000));
    let unknown = Arc::<AllowanceState>::default();
    unknown.is_unknown();
    assert_eq!(unknown.to_tell(NOW), None, "there is nothing to tell");
}

#[test]
fn messages_about_countless_accounts_are_limited() {
    let state = AllowanceState::default();
    for origin in 0..50 {
        let one = Arc::<AllowanceState>::default();
        note(&of(&one), USED_UP, origin, NOW);
        state.hear(one.to_tell(NOW).unwrap());
    }
    assert_eq!(state.earlier().len(), EARLIER_MAX);
}
