//! What is left, over time, restarts and accounts.

use super::*;

const NOW: Moment = Moment { wall: Timestamp::from_secs(1_800_000_000), steady_ms: 50 };
const OWN: AccountId = AccountId { base: 7, origin: 1 };

fn later(ms: u64) -> Moment {
    let due = Due::after(NOW, ms);
    Moment { wall: due.wall, steady_ms: due.steady_ms }
}

/// A window with this share left, and a reset in so many seconds.
fn reading(name: &str, ratio: f64, reset_s: i64) -> Reading<'_> {
    reading_at(name, ratio, reset_s, NOW)
}

fn reading_at(name: &str, ratio: f64, reset_s: i64, now: Moment) -> Reading<'_> {
    let reset_at = Some(now.wall.plus_millis(reset_s * 1000));
    Reading {
        name: name.as_bytes(),
        scope: if name.contains('_') { Scope::Family } else { Scope::Account },
        remaining_ratio: Some(ratio),
        reset_at,
        used_up_until: reset_at.filter(|_| ratio <= 0.0),
    }
}

fn of(readings: &[Reading<'_>]) -> Windows {
    let mut windows = Windows::default();
    windows.note(OWN, readings, &|| None, (u64::MAX, NOW));
    windows
}

/// A window of one model, whichever was asked for.
fn of_model(name: &str, ratio: f64, reset_s: i64) -> Reading<'_> {
    Reading { scope: Scope::Model, ..reading(name, ratio, reset_s) }
}

/// Notes an answer about `model`.
fn note_of(windows: &mut Windows, readings: &[Reading<'_>], model: &str, now: Moment) -> Change {
    windows.note(OWN, readings, &|| Some(model.to_owned()), (u64::MAX, now))
}

fn left_ms(windows: &Windows, model: Option<&str>, now: Moment) -> Option<u64> {
    let model = model.map(str::to_owned);
    windows.used_up_until(OWN, &|| model.clone(), now).map(|until| until.left_ms(now))
}

#[test]
fn an_account_has_nothing_left_until_the_last_reset_of_its_used_up_windows() {
    let windows =
        of(&[reading("5h", 0.0, 100), reading("7d", 0.0, 500), reading("tokens", 0.5, 900)]);
    assert_eq!(left_ms(&windows, None, NOW), Some(500_000));
    assert_eq!(left_ms(&windows, None, later(499_999)), Some(1));
    assert_eq!(left_ms(&windows, None, later(500_000)), None);
    assert_eq!(left_ms(&of(&[reading("5h", 0.001, 100)]), None, NOW), None);
}

#[test]
fn a_window_of_a_family_counts_for_its_models_alone() {
    let windows = of(&[reading("7d_Opus", 0.0, 100), reading("5h_", 0.0, 100)]);
    for (model, expected) in [
        (Some("claude-opus-4-5"), Some(100_000)),
        (Some("Claude-OPUS"), Some(100_000)),
        (Some("claude-sonnet-4-5"), None),
        (None, None),
    ] {
        assert_eq!(left_ms(&windows, model, NOW), expected, "{model:?}");
    }
    assert!(windows.has_used_up(NOW));
}

#[test]
fn a_window_about_unknown_requests_is_shown_and_decides_nothing() {
    let windows = of(&[Reading { scope: Scope::Unknown, ..reading("search", 0.0, 100) }]);
    assert_eq!((left_ms(&windows, None, NOW), windows.has_used_up(NOW)), (None, false));
    assert_eq!(windows.current(OWN, NOW).count(), 1);
}

#[test]
fn a_later_answer_ends_it() {
    let mut windows = of(&[reading("tokens", 0.0, 100)]);
    assert_eq!(
        windows.note(OWN, &[reading("TOKENS", 0.2, 100)], &|| None, (u64::MAX, later(5))),
        Change::UsedUp
    );
    assert_eq!((left_ms(&windows, None, later(5)), windows.list.len()), (None, 1));
}

#[test]
fn nobody_is_passed_over_for_more_than_a_week() {
    let windows = of(&[reading("month", 0.0, 30 * 24 * 3600)]);
    assert_eq!(left_ms(&windows, None, NOW), Some(PASSED_OVER_MAX_MS));
    assert_eq!(left_ms(&windows, None, later(PASSED_OVER_MAX_MS)), None);
    let shown: Vec<_> = windows.current(OWN, later(PASSED_OVER_MAX_MS)).collect();
    assert_eq!(shown.len(), 1, "its reset is still shown");
}

/// Seen with a wall clock that was set back by a day: the account rested a day longer.
#[test]
fn a_clock_that_is_stepped_makes_no_pause_longer() {
    let windows = of(&[reading("5h", 0.0, 100)]);
    let back =
        Moment { wall: NOW.wall.plus_millis(-86_400_000), steady_ms: NOW.steady_ms + 60_000 };
    assert_eq!(left_ms(&windows, None, back), Some(40_000));
    let ahead = Moment { wall: NOW.wall.plus_millis(86_400_000), ..NOW };
    assert_eq!(left_ms(&windows, None, ahead), None);
}

#[test]
fn a_window_is_shown_until_its_reset_or_for_a_while() {
    let unknown = Reading { reset_at: None, ..reading("tokens", 0.5, 0) };
    let windows = of(&[reading("5h", 0.5, 100), unknown]);
    let names = |now| {
        let names = windows.current(OWN, now).map(|one| one.name.clone());
        names.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(names(later(99_999)), "5h tokens");
    assert_eq!(names(later(100_000)), "tokens");
    assert_eq!(names(later(SHOWN_WITHOUT_RESET_MS - 1)), "tokens");
    assert_eq!(names(later(SHOWN_WITHOUT_RESET_MS)), "");
}

/// A login of another account, another key or another `base_url`.
#[test]
fn another_account_does_not_get_the_windows_of_the_one_before() {
    let other = AccountId { base: 7, origin: 2 };
    let mut windows = of(&[reading("5h", 0.0, 100)]);
    assert_eq!(windows.used_up_until(other, &|| None, NOW), None);
    assert_eq!(windows.current(other, NOW).count(), 0);
    let saved = windows.saved(NOW);
    assert_eq!(
        windows.note(other, &[reading("7d", 0.5, 100)], &|| None, (u64::MAX, NOW)),
        Change::UsedUp
    );
    assert_eq!((windows.list.len(), windows.account()), (1, other));
    assert_eq!(saved.len(), 1);
}

#[test]
fn small_changes_are_no_news_until_they_add_up() {
    let mut windows = of(&[reading("5h", 0.5, 100)]);
    let mut next = |ratio, reset_s| {
        windows.note(OWN, &[reading("5h", ratio, reset_s)], &|| None, (u64::MAX, NOW))
    };
    assert_eq!(next(0.4955, 101), Change::None);
    assert_eq!(next(0.491, 101), Change::None);
    assert_eq!(next(0.4899, 101), Change::Level);
    assert_eq!(next(0.4899, 104), Change::Level, "its reset has moved");
    assert_eq!(next(0.0, 104), Change::UsedUp);
    assert_eq!(next(0.0, 104), Change::None);
    assert_eq!(next(0.9, 104), Change::UsedUp);
    assert_eq!(next(0.1, 9), Change::None, "such a short window is not worth it");
}

#[test]
fn the_number_of_windows_is_limited_and_a_used_up_one_finds_a_place() {
    let names: Vec<String> = (0..WINDOWS_MAX).map(|index| format!("w{index}")).collect();
    let all: Vec<_> = names.iter().map(|name| reading(name, 0.5, 100)).collect();
    let mut windows = of(&all);
    assert_eq!(
        windows.note(OWN, &[reading("more", 0.5, 100)], &|| None, (u64::MAX, NOW)),
        Change::None
    );
    assert_eq!(
        windows.note(OWN, &[reading("gone", 0.0, 100)], &|| None, (u64::MAX, NOW)),
        Change::UsedUp
    );
    assert_eq!((windows.list.len(), left_ms(&windows, None, NOW)), (WINDOWS_MAX, Some(100_000)));
    let much_later = later(200_000);
    windows.note(
        OWN,
        &[reading_at("fresh", 0.5, 100, much_later)],
        &|| None,
        (u64::MAX, much_later),
    );
    assert_eq!(windows.list.len(), WINDOWS_MAX);
    assert_eq!(windows.current(OWN, much_later).count(), 1);
}

#[test]
fn what_is_saved_comes_back_after_a_restart() {
    let short = reading("tokens", 0.0, 9);
    let windows = of(&[reading("5h", 0.0, 100), reading("7d_opus", 0.25, 500), short]);
    let saved = windows.saved(NOW);
    assert_eq!(saved.len(), 2, "a window of seconds is not worth it");
    let text = serde_json::to_string(&saved).unwrap();
    let read: Vec<SavedWindow> = serde_json::from_str(&text).unwrap();
    assert_eq!(read, saved);
    let restarted = Moment { wall: NOW.wall.plus_millis(40_000), steady_ms: 1 };
    let mut restored = Windows::default();
    restored.restore(OWN, &read, restarted);
    assert_eq!(left_ms(&restored, None, restarted), Some(60_000));
    assert_eq!(restored.current(OWN, restarted).count(), 2);
    let much_later = Moment { wall: NOW.wall.plus_millis(1_000_000), steady_ms: 1 };
    let mut restored = Windows::default();
    restored.restore(OWN, &read, much_later);
    assert_eq!(restored.current(OWN, much_later).count(), 0);
}

#[test]
fn newer_knowledge_stays() {
    let saved = of(&[reading("5h", 0.0, 100)]).saved(NOW);
    let mut windows = Windows::default();
    windows.note(OWN, &[reading("5h", 0.5, 100)], &|| None, (u64::MAX, later(1)));
    windows.restore(OWN, &saved, later(2));
    assert_eq!(left_ms(&windows, None, later(2)), None);
    let mut older = Windows::default();
    let before = Moment { wall: NOW.wall.plus_millis(-1), steady_ms: 49 };
    older.note(OWN, &[reading("5h", 0.5, 100)], &|| None, (u64::MAX, before));
    older.restore(OWN, &saved, later(2));
    assert!(left_ms(&older, None, later(2)).is_some());
}

#[test]
fn a_saved_window_that_can_not_be_right_is_ignored() {
    let good = of(&[reading("5h", 0.0, 100)]).saved(NOW).remove(0);
    let far = NOW.wall.plus_millis(i64::try_from(RESET_MAX.as_millis()).unwrap() + 1);
    let with = |change: &dyn Fn(&mut SavedWindow)| {
        let mut saved = good.clone();
        change(&mut saved);
        let mut windows = Windows::default();
        windows.restore(OWN, &[saved], NOW);
        windows.list.pop()
    };
    assert!(with(&|_| ()).is_some());
    assert!(with(&|one| one.name = "a\"b".into()).is_none());
    assert!(with(&|one| one.name = "w".repeat(33)).is_none());
    assert!(with(&|one| (one.reset_at, one.used_up_until) = (Some(far), Some(far))).is_none());
    assert!(with(&|one| (one.reset_at, one.used_up_until) = (None, None)).is_none());
    assert_eq!(with(&|one| one.remaining_ratio = Some(7.0)).unwrap().remaining_ratio, None);
    let ahead = with(&|one| one.stated_at = far).unwrap();
    assert_eq!(ahead.stated_at, NOW.wall, "a clock that was ahead does not win for ever");
}

/// The limits of an API are those of the model that was asked for: a 200 that said 0 of all tokens passed the provider
/// over for every model.
#[test]
fn a_window_of_one_model_counts_for_that_model_alone() {
    let mut windows = Windows::default();
    let used_up = [of_model("tokens", 0.0, 100)];
    assert_eq!(note_of(&mut windows, &used_up, "a", NOW), Change::UsedUp);
    for (model, expected) in [(Some("a"), Some(100_000)), (Some("b"), None), (None, None)] {
        assert_eq!(left_ms(&windows, model, NOW), expected, "{model:?}");
    }
    // An answer about another model says nothing about this one.
    note_of(&mut windows, &[of_model("tokens", 0.9, 100)], "b", later(1));
    assert!(left_ms(&windows, Some("a"), later(1)).is_some());
    assert_eq!(
        note_of(&mut windows, &[of_model("tokens", 0.1, 100)], "a", later(2)),
        Change::UsedUp
    );
    assert_eq!(left_ms(&windows, Some("a"), later(2)), None);
    // Requests without a model are limited by what was said of such requests.
    windows.note(OWN, &used_up, &|| None, (u64::MAX, later(3)));
    assert_eq!(left_ms(&windows, None, later(3)), Some(99_997));
    assert_eq!(left_ms(&windows, Some(""), later(3)), Some(99_997));
    assert_eq!(left_ms(&windows, Some("a"), later(3)), None);
}

#[test]
fn of_the_models_that_have_something_left_the_last_one_is_shown() {
    let mut windows = Windows::default();
    note_of(&mut windows, &[of_model("tokens", 0.0, 100)], "used-up", NOW);
    for (model, at) in [("a", 1), ("b", 2), ("c", 2)] {
        note_of(&mut windows, &[of_model("tokens", 0.5, 100)], model, later(at));
    }
    let shown = windows.shown(OWN, later(3));
    let labels: Vec<_> = shown.iter().map(Window::label).collect();
    assert_eq!(labels, ["tokens of \"used-up\"", "tokens of \"c\""]);
}

#[test]
fn windows_of_models_come_back_after_a_restart() {
    let mut windows = of(&[reading("5h", 0.5, 100)]);
    note_of(&mut windows, &[of_model("tokens", 0.0, 100)], "a", NOW);
    note_of(&mut windows, &[of_model("tokens", 0.5, 200)], "b", NOW);
    let text = serde_json::to_string(&windows.saved(NOW)).unwrap();
    let read: Vec<SavedWindow> = serde_json::from_str(&text).unwrap();
    let mut restored = Windows::default();
    restored.restore(OWN, &read, NOW);
    assert_eq!(restored, windows);
    // Windows of an earlier evertoken have no models, and count for all until something newer is known.
    let text = text.replace(",\"model\":\"a\"", "").replace(",\"model\":\"b\"", "");
    let read: Vec<SavedWindow> =
        serde_json::from_str(&text.replace("\"scope\":\"model\"", "\"scope\":\"account\""))
            .unwrap();
    let mut earlier = Windows::default();
    earlier.restore(OWN, &read[..2], NOW);
    assert!(left_ms(&earlier, Some("b"), NOW).is_some());
    note_of(&mut earlier, &[of_model("tokens", 0.5, 100)], "b", later(1));
    assert_eq!(left_ms(&earlier, Some("a"), later(1)), None);
}

#[test]
fn the_number_of_windows_of_models_is_limited_and_the_newest_find_a_place() {
    let mut windows = of(&[reading("5h", 0.0, 100)]);
    for index in 0..MODEL_WINDOWS_MAX {
        let reset_s = if index == 3 { 50 } else { 100 };
        note_of(&mut windows, &[of_model("tokens", 0.0, reset_s)], &format!("m-{index}"), NOW);
    }
    assert_eq!(windows.list.len(), 1 + MODEL_WINDOWS_MAX);
    assert_eq!(
        note_of(&mut windows, &[of_model("tokens", 0.9, 100)], "good", NOW),
        Change::None,
        "it decides nothing"
    );
    assert_eq!(note_of(&mut windows, &[of_model("tokens", 0.0, 100)], "new", NOW), Change::UsedUp);
    assert_eq!(windows.list.len(), 1 + MODEL_WINDOWS_MAX);
    assert_eq!(left_ms(&windows, Some("m-4"), NOW), Some(100_000));
    assert!(windows.list.iter().all(|one| one.model.as_deref() != Some("m-3")), "it ended soonest");
    // A window with something left gives way to a newer one.
    note_of(&mut windows, &[of_model("tokens", 0.5, 100)], "m-4", NOW);
    note_of(&mut windows, &[of_model("tokens", 0.5, 100)], "good", NOW);
    assert!(windows.list.iter().all(|one| one.model.as_deref() != Some("m-4")));
}

#[test]
fn the_length_of_a_models_name_on_both_sides_of_its_limit() {
    for (length, expected) in [(MODEL_NAME_MAX_BYTES, 1), (MODEL_NAME_MAX_BYTES + 1, 0)] {
        let (mut windows, name) = (Windows::default(), "m".repeat(length));
        note_of(&mut windows, &[of_model("tokens", 0.0, 100)], &name, NOW);
        assert_eq!(windows.list.len(), expected);
        let mut saved = of(&[of_model("tokens", 0.0, 100)]).saved(NOW);
        saved[0].model = Some(name);
        let mut restored = Windows::default();
        restored.restore(OWN, &saved, NOW);
        assert_eq!(restored.list.len(), expected);
    }
}

/// Anthropic's summary rejected the account, and later allowed it: `unified` stayed used up.
#[test]
fn a_window_of_which_only_that_something_is_left_is_said_ends_and_begins_nothing() {
    let bare = Reading { reset_at: None, remaining_ratio: None, ..reading("unified", 0.5, 0) };
    let mut windows = of(&[bare]);
    assert_eq!(windows.list.len(), 0);
    windows.note(OWN, &[reading("unified", 0.0, 100)], &|| None, (u64::MAX, NOW));
    let mut other = Windows::default();
    other.restore(OWN, &windows.saved(NOW), NOW);
    assert_eq!(windows.note(OWN, &[bare], &|| None, (u64::MAX, later(1))), Change::UsedUp);
    assert_eq!(left_ms(&windows, None, later(1)), None);
    // The other hosts hear of it.
    assert!(left_ms(&other, None, later(1)).is_some());
    other.restore(OWN, &windows.saved(later(1)), later(1));
    assert_eq!(left_ms(&other, None, later(1)), None);
}

/// An answer to an older request that came late said that something was left, after the account had used it up.
#[test]
fn a_late_answer_to_an_older_request_ends_nothing_that_is_used_up() {
    let mut windows = Windows::default();
    let (used_up, left) = (reading("5h", 0.0, 100), reading("5h", 0.1, 100));
    let before = windows.mark();
    windows.note(OWN, &[used_up], &|| None, (before, NOW));
    assert_eq!(windows.note(OWN, &[left], &|| None, (before, later(1))), Change::None);
    assert_eq!(left_ms(&windows, None, later(1)), Some(99_999));
    let after = windows.mark();
    windows.note(OWN, &[used_up], &|| None, (after, later(2)));
    windows.note(OWN, &[left], &|| None, (after, later(3)));
    assert!(left_ms(&windows, None, later(3)).is_some(), "a later answer repeated it");
    // Other windows are not concerned.
    windows.note(OWN, &[reading("7d", 0.3, 100)], &|| None, (before, later(3)));
    assert_eq!(windows.list.len(), 2);
    let sent = windows.mark();
    assert_eq!(windows.note(OWN, &[left], &|| None, (sent, later(4))), Change::UsedUp);
    assert_eq!(left_ms(&windows, None, later(4)), None);
    // Once it is over, any answer counts.
    windows.note(OWN, &[used_up], &|| None, (sent, later(5)));
    windows.note(OWN, &[left], &|| None, (before, later(100_000)));
    assert_eq!(windows.list[0].remaining_ratio, Some(0.1));
    // Another host's word counts like an answer.
    let mut other = Windows::default();
    let sent = other.mark();
    other.restore(OWN, &of(&[used_up]).saved(NOW), later(1));
    other.note(OWN, &[left], &|| None, (sent, later(2)));
    assert!(left_ms(&other, None, later(2)).is_some());
}

/// A used-up limit of requests without a model showed the whole provider as passed over.
#[test]
fn a_limit_of_requests_without_a_model_is_not_that_of_the_account() {
    let of_none = Reading { scope: Scope::Model, ..reading("requests", 0.0, 100) };
    let mut windows = of(&[of_none]);
    assert!(left_ms(&windows, None, NOW).is_some());
    assert_eq!(windows.nothing_left_until(OWN, NOW), None);
    windows.note(OWN, &[reading("5h", 0.0, 50)], &|| None, (u64::MAX, NOW));
    let until = windows.nothing_left_until(OWN, NOW);
    assert_eq!(until.map(|until| until.left_ms(NOW)), Some(50_000));
}
