//! The end of a refresh token, if its issuer states it, and the time to warn about it. Pure.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;

/// The lead of the warning about a refresh token's end.
const WEEK_MS: i64 = 7 * DAY_MS;
const DAY_MS: i64 = 24 * 3_600_000;
/// Ends that are closer together count as one: lifetimes are in whole seconds, from a moment that is not known
/// exactly.
const SAME_END_MS: i64 = 60_000;

/// The end of the refresh token in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefreshEnd {
    /// The time of the end.
    pub at: Timestamp,
    /// The time since when it is known.
    pub known_since: Timestamp,
    /// True if a refresh has moved it, so that the next one will, too.
    pub moves: bool,
}

/// The nearness of the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Nearness {
    /// At most 7 days.
    Week,
    /// At most 1 day.
    Day,
}

impl RefreshEnd {
    /// The end after a grant that was requested at `sent` and whose refresh token lasts `lifetime_ms`. `before` is
    /// the end of the presented refresh token; `is_kept` says that this token stays in use.
    pub fn after(
        before: Option<Self>,
        lifetime_ms: Option<i64>,
        is_kept: bool,
        sent: Timestamp,
    ) -> Option<Self> {
        let Some(lifetime_ms) = lifetime_ms else {
            return before.filter(|_| is_kept);
        };
        let at = sent.plus_millis(lifetime_ms);
        match before {
            Some(before) if at.millis_since(before.at).abs() < SAME_END_MS => Some(before),
            Some(before) => {
                Some(Self { at, known_since: sent, moves: before.moves || at > before.at })
            }
            None => Some(Self { at, known_since: sent, moves: false }),
        }
    }

    /// The nearness of the end at `now`, if it needs a warning. If refreshes move the end, it comes near only after
    /// refreshes stopped for a while: a token that lives half an hour is always near its end.
    pub fn nearness(&self, now: Timestamp) -> Option<Nearness> {
        let left_ms = self.at.millis_since(now);
        let lifetime_ms = self.at.millis_since(self.known_since);
        let is_within = |limit_ms| left_ms <= limit_ms && (!self.moves || lifetime_ms > limit_ms);
        if is_within(DAY_MS) {
            Some(Nearness::Day)
        } else {
            is_within(WEEK_MS).then_some(Nearness::Week)
        }
    }

    /// The warning at `now`, without advice; None if there is no need for one.
    pub fn warning(&self, name: &str, now: Timestamp) -> Option<String> {
        self.nearness(now)?;
        let left_s = u64::try_from(self.at.millis_since(now) / 1000).unwrap_or(0);
        let left = match left_s {
            0 => return Some(format!("The refresh token of {name} ended at {}", self.at)),
            1..=5_399 => format!("{} minutes", left_s.div_ceil(60)),
            5_400..=172_799 => format!("{} hours", left_s.div_ceil(3600)),
            _ => format!("{} days", left_s.div_ceil(86_400)),
        };
        let moved = if self.moves { "" } else { ", unless a refresh moves that" };
        Some(format!("The refresh token of {name} ends at {}, in {left}{moved}", self.at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn begun(lifetime_ms: i64) -> RefreshEnd {
        RefreshEnd::after(None, Some(lifetime_ms), false, START).unwrap()
    }

    #[test]
    fn a_rotated_token_without_an_end_has_none_and_a_kept_one_keeps_its_own() {
        let before = begun(10 * DAY_MS);
        assert_eq!(RefreshEnd::after(Some(before), None, true, START), Some(before));
        assert_eq!(RefreshEnd::after(Some(before), None, false, START), None);
        assert_eq!(RefreshEnd::after(None, None, true, START), None);
    }

    #[test]
    fn an_end_that_stays_and_one_that_moves() {
        let before = begun(10 * DAY_MS);
        let after = |left_ms: i64| {
            let later = START.plus_millis(DAY_MS);
            RefreshEnd::after(Some(before), Some(left_ms), false, later).unwrap()
        };
        assert_eq!(after(9 * DAY_MS), before);
        assert_eq!(after(9 * DAY_MS + SAME_END_MS - 1), before);
        assert_eq!(after(9 * DAY_MS - SAME_END_MS + 1), before);
        assert!(after(9 * DAY_MS + SAME_END_MS).moves);
        assert!(!after(9 * DAY_MS - SAME_END_MS).moves);
        assert_eq!(after(10 * DAY_MS).known_since, START.plus_millis(DAY_MS));
    }

    #[test]
    fn both_sides_of_a_week_and_of_a_day() {
        let end = begun(30 * DAY_MS);
        let with_left = |left_ms: i64| end.nearness(end.at.plus_millis(-left_ms));
        assert_eq!(with_left(WEEK_MS + 1), None);
        assert_eq!(with_left(WEEK_MS), Some(Nearness::Week));
        assert_eq!(with_left(DAY_MS + 1), Some(Nearness::Week));
        assert_eq!(with_left(DAY_MS), Some(Nearness::Day));
        assert_eq!(with_left(-1), Some(Nearness::Day));
        assert_eq!(begun(DAY_MS).nearness(START), Some(Nearness::Day), "a session of a day");
    }

    #[test]
    fn an_end_that_refreshes_move_is_warned_about_once_they_fail_to() {
        let moved = |lifetime_ms: i64| RefreshEnd { moves: true, ..begun(lifetime_ms) };
        // Keycloak's half hour, and GitHub's half year.
        let short = moved(1_800_000);
        assert_eq!(short.nearness(START), None);
        assert_eq!(short.nearness(short.at), None);
        let long = moved(184 * DAY_MS);
        assert_eq!(long.nearness(START), None);
        assert_eq!(long.nearness(long.at.plus_millis(-DAY_MS)), Some(Nearness::Day));
        let days = moved(3 * DAY_MS);
        assert_eq!(days.nearness(START), None, "it never was further away than a week");
        assert_eq!(days.nearness(days.at.plus_millis(-DAY_MS)), Some(Nearness::Day));
    }

    #[test]
    fn words_for_days_hours_and_minutes() {
        let end = begun(30 * DAY_MS);
        let with_left = |left_s: i64| end.warning("P", end.at.plus_millis(-left_s * 1000));
        assert_eq!(with_left(7 * 86_400 + 1), None);
        let told = with_left(7 * 86_400).unwrap();
        assert_eq!(
            told,
            "The refresh token of P ends at 2027-02-14T08:00:00.000Z, in 7 days, unless a refresh moves that"
        );
        assert!(with_left(86_400).unwrap().contains("in 24 hours"));
        assert!(with_left(61).unwrap().contains("in 2 minutes"));
        assert!(with_left(0).unwrap().contains("ended at 2027-02-14T08:00:00.000Z"));
    }
}
