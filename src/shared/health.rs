//! The usability of the token store, as the keeper and all refreshers of a process find it: one voice for all of
//! them, so that the log has one line, not one for each provider and try.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use log::{error, info, warn};
use serde::{Deserialize, Serialize};

use crate::clock::Moment;
use crate::config::{Fallback, SharedStore};
use crate::shared::clocks::Offset;
use crate::shared::engine::StoreError;

/// The time after which the log repeats that the store can't be used.
pub(crate) const REPEAT_MS: u64 = 60_000;
/// The most reasons within that time: a server's words may contain a number that differs each time.
const REASONS_MAX: usize = 4;
/// The time without trouble before the log says that it is over.
pub(crate) const WELL_FOR_MS: u64 = 2_000;

/// The status of the token store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreReport {
    /// Its address, without user and password.
    pub place: String,
    /// Its clock minus this machine's, in milliseconds; None if unknown.
    pub clock_offset_ms: Option<i64>,
    /// The reason why it can't be used.
    pub problem: Option<String>,
    /// A warning that the clocks are too far apart.
    pub warning: Option<String>,
}

/// The finder of a problem with the store.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Finder {
    /// The keeper, whose words take precedence.
    Keeper,
    /// The refresher of the provider with this slug.
    Refresher(String),
}

/// The kind of use of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// A read, which a replica and a full server answer.
    Reading,
    /// A write, which works only if reading does too.
    Writing,
}

/// The message for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Said {
    /// The store can't be used, for this reason, and for this long.
    Away(String, u64),
    /// The store can be used again, after this long.
    Back(u64),
}

/// The known troubles, and the log's lines about them. Pure.
#[derive(Debug, Default)]
struct Condition {
    troubles: BTreeMap<Finder, (String, Use)>,
    away_since: Option<Moment>,
    well_since: Option<Moment>,
    clocks: Option<Offset>,
    /// The log said that the clocks are too far apart.
    is_far_said: bool,
    /// Each reason, and the time of its last line.
    said: Vec<(String, Moment)>,
}

fn millis(from: Moment, to: Moment) -> u64 {
    to.steady_ms.saturating_sub(from.steady_ms)
}

impl Condition {
    /// The message about a trouble: the keeper's reason if the keeper has one.
    fn found(&mut self, finder: Finder, trouble: &str, of: Use, now: Moment) -> Option<Said> {
        self.troubles.insert(finder, (trouble.to_owned(), of));
        self.well_since = None;
        let since = *self.away_since.get_or_insert(now);
        let keepers = self.troubles.get(&Finder::Keeper);
        let reason = keepers.map_or(trouble, |(words, _)| words).to_owned();
        self.said.retain(|(_, at)| millis(*at, now) < REPEAT_MS);
        if self.said.len() == REASONS_MAX || self.said.iter().any(|(said, _)| *said == reason) {
            return None;
        }
        self.said.push((reason.clone(), now));
        Some(Said::Away(reason, millis(since, now)))
    }

    fn worked(&mut self, finder: &Finder, of: Use, now: Moment) {
        if self.troubles.get(finder).is_some_and(|(_, failed)| of == Use::Writing || *failed == of)
        {
            self.troubles.remove(finder);
        }
        self.note_well(now);
    }

    /// The keeper wrote something, so others could write now, too.
    fn can_write(&mut self, now: Moment) {
        let stays = |finder: &Finder, of: Use| *finder != Finder::Keeper && of == Use::Reading;
        self.troubles.retain(|finder, (_, of)| stays(finder, *of));
        self.note_well(now);
    }

    fn note_well(&mut self, now: Moment) {
        if self.troubles.is_empty() && self.away_since.is_some() {
            self.well_since.get_or_insert(now);
        }
    }

    /// Records a measurement of the clocks; returns true if it must be reported.
    fn measured(&mut self, offset: Offset) -> bool {
        self.clocks = Some(offset);
        let is_news = offset.is_too_far() != self.is_far_said;
        self.is_far_said = offset.is_too_far();
        is_news
    }

    fn settle(&mut self, now: Moment) -> Option<Said> {
        let (since, well) = (self.away_since?, self.well_since?);
        if millis(well, now) < WELL_FOR_MS {
            return None;
        }
        (self.away_since, self.well_since) = (None, None);
        self.said.clear();
        Some(Said::Back(millis(since, well)))
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Health {
    place: String,
    fallback: Fallback,
    record: Mutex<Condition>,
}

impl Health {
    /// For `store`, about which nothing is known yet.
    pub fn new(store: &SharedStore) -> Self {
        Self { place: store.place.to_string(), fallback: store.fallback, record: Mutex::default() }
    }

    fn record(&self) -> MutexGuard<'_, Condition> {
        // Each change is complete in itself.
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `finder` could not use the store. Logs it if it is new, or was last logged a minute ago.
    pub fn found(&self, finder: Finder, trouble: &StoreError, of: Use, now: Moment) {
        let said = self.record().found(finder, &trouble.to_string(), of, now);
        self.say(said);
    }

    /// The use by `finder` worked.
    pub fn worked(&self, finder: &Finder, of: Use, now: Moment) {
        self.record().worked(finder, of, now);
    }

    /// The keeper could write.
    pub fn can_write(&self, now: Moment) {
        self.record().can_write(now);
    }

    /// Logs that the trouble is over, once it has been over for a moment.
    pub fn settle(&self, now: Moment) {
        let said = self.record().settle(now);
        self.say(said);
    }

    /// The clocks were compared. Logs it if they are too far apart, and once when they no longer are.
    pub fn measured(&self, offset: Offset) {
        let place = &self.place;
        match (self.record().measured(offset), offset.is_too_far()) {
            (false, _) => {}
            (true, true) => warn!("{}", far_apart(place, offset)),
            (true, false) => {
                info!("The clocks of this machine and of the token store {place} agree again");
            }
        }
    }

    /// The difference of the clocks, if the measurement is recent enough.
    pub fn offset(&self, now: Moment) -> Option<Offset> {
        self.record().clocks.filter(|offset| offset.holds(now))
    }

    /// The store's status, for the status page.
    pub fn report(&self) -> StoreReport {
        let record = self.record();
        let far = record.clocks.filter(|_| record.is_far_said);
        let keepers = record.troubles.get(&Finder::Keeper).or(record.troubles.values().next());
        StoreReport {
            place: self.place.clone(),
            clock_offset_ms: record.clocks.map(|offset| offset.ms),
            problem: keepers
                .map(|(why, _)| format!("The token store {} can't be used: {why}", self.place)),
            warning: far.map(|offset| far_apart(&self.place, offset)),
        }
    }

    /// True if anybody found it in trouble.
    pub fn is_in_trouble(&self) -> bool {
        !self.record().troubles.is_empty()
    }

    fn say(&self, said: Option<Said>) {
        let place = &self.place;
        // The server's own words may be a sentence.
        let plain = |why: &str| why.trim_end_matches('.').to_owned();
        match (said, self.fallback) {
            (None, _) => {}
            (Some(Said::Away(why, ms)), Fallback::Wait) => error!(
                "The token store {place} can't be used{}: {}. Tokens in hand serve until they expire; \
                 nothing is refreshed until it is back (token_store_fallback: wait)",
                lasting(ms),
                plain(&why)
            ),
            (Some(Said::Away(why, ms)), Fallback::Local) => warn!(
                "The token store {place} can't be used{}: {}. Until it is back each host refreshes for \
                 itself (token_store_fallback: local); an issuer with single-use refresh tokens may take \
                 that for theft",
                lasting(ms),
                plain(&why)
            ),
            (Some(Said::Back(ms)), _) => {
                info!("The token store {place} can be used again, after {} s", ms / 1000);
            }
        }
    }
}

/// The message about clocks that are too far apart.
pub(crate) fn far_apart(place: &str, offset: Offset) -> String {
    format!(
        "The clock of this machine is {} that of the token store {place}. Hosts that share tokens time them by \
         their own clocks: set both, by NTP",
        offset.words()
    )
}

/// ` for 61 s`, or nothing if it has just begun.
fn lasting(ms: u64) -> String {
    if ms < 1000 { String::new() } else { format!(" for {} s", ms / 1000) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    fn at(ms: u64) -> Moment {
        let wall = Timestamp::from_secs(1_800_000_000);
        Moment { wall: wall.plus_millis(i64::try_from(ms).unwrap()), steady_ms: ms }
    }

    fn of(slug: &str) -> Finder {
        Finder::Refresher(slug.to_owned())
    }

    fn away(why: &str, ms: u64) -> Said {
        Said::Away(why.to_owned(), ms)
    }

    fn found(record: &mut Condition, finder: Finder, why: &str, now: Moment) -> Option<Said> {
        record.found(finder, why, Use::Writing, now)
    }

    /// Seen with a read-only replica: 2 to 17 lines a second.
    #[test]
    fn one_line_a_minute_for_all_providers_together() {
        let mut record = Condition::default();
        assert_eq!(found(&mut record, of("a"), "READONLY", at(0)), Some(away("READONLY", 0)));
        for ms in (0..REPEAT_MS).step_by(500) {
            for finder in [of("a"), of("b"), Finder::Keeper] {
                assert_eq!(found(&mut record, finder, "READONLY", at(ms)), None, "{ms}");
            }
        }
        assert_eq!(found(&mut record, of("b"), "READONLY", at(REPEAT_MS - 1)), None);
        assert_eq!(
            found(&mut record, of("b"), "READONLY", at(REPEAT_MS)),
            Some(away("READONLY", REPEAT_MS))
        );
    }

    #[test]
    fn another_reason_is_said_at_once_but_two_in_turn_are_not_repeated() {
        let mut record = Condition::default();
        assert_eq!(found(&mut record, Finder::Keeper, "LOADING", at(0)), Some(away("LOADING", 0)));
        assert_eq!(
            found(&mut record, Finder::Keeper, "READONLY", at(5_000)),
            Some(away("READONLY", 5_000))
        );
        assert_eq!(found(&mut record, Finder::Keeper, "LOADING", at(6_000)), None);
        assert_eq!(found(&mut record, Finder::Keeper, "READONLY", at(7_000)), None);
    }

    #[test]
    fn words_that_differ_each_time_are_few_lines_too() {
        let mut record = Condition::default();
        let lines = (0..100).filter(|number| {
            found(&mut record, of("a"), &format!("MOVED {number}"), at(*number)).is_some()
        });
        assert_eq!(lines.count(), REASONS_MAX);
    }

    #[test]
    fn the_end_is_said_once_and_only_where_nobody_is_in_trouble() {
        let mut record = Condition::default();
        found(&mut record, of("a"), "OOM", at(0));
        found(&mut record, Finder::Keeper, "OOM", at(10));
        record.worked(&Finder::Keeper, Use::Writing, at(100));
        assert_eq!(record.settle(at(9_000)), None, "a is still in trouble");
        record.worked(&of("a"), Use::Writing, at(10_000));
        assert_eq!(record.settle(at(10_000 + WELL_FOR_MS - 1)), None);
        assert_eq!(record.settle(at(10_000 + WELL_FOR_MS)), Some(Said::Back(10_000)));
        assert_eq!(record.settle(at(60_000)), None);
        assert_eq!(
            found(&mut record, of("a"), "OOM", at(60_001)),
            Some(away("OOM", 0)),
            "a new one"
        );
    }

    /// A replica answers reads: between two refused writes that is no end of the trouble.
    #[test]
    fn what_can_be_read_says_nothing_of_what_can_be_written() {
        let mut record = Condition::default();
        found(&mut record, of("a"), "READONLY", at(0));
        record.found(of("b"), "NOPERM", Use::Reading, at(0));
        record.worked(&of("a"), Use::Reading, at(1));
        assert_eq!(record.troubles.len(), 2);
        record.can_write(at(2));
        assert_eq!(record.troubles.keys().collect::<Vec<_>>(), [&of("b")]);
        record.worked(&of("b"), Use::Reading, at(3));
        assert_eq!(record.settle(at(3 + WELL_FOR_MS)), Some(Said::Back(3)));
    }

    #[test]
    fn clocks_that_are_too_far_apart_are_said_once_and_their_end_once() {
        let mut record = Condition::default();
        let mut said = |ms: i64| {
            record.measured(Offset::measured(at(0), at(0).wall.plus_millis(ms), at(0)).unwrap())
        };
        let cases = [(0, false), (5_000, false), (5_001, true), (9_000, false), (-5_001, false)];
        for (ms, is_said) in cases.into_iter().chain([(-5_000, true), (0, false), (-5_001, true)]) {
            assert_eq!(said(ms), is_said, "{ms}");
        }
    }

    #[test]
    fn trouble_that_comes_back_within_a_moment_was_never_over() {
        let mut record = Condition::default();
        found(&mut record, of("a"), "MISCONF", at(0));
        for ms in (0..30_000).step_by(1_000) {
            record.worked(&of("a"), Use::Writing, at(ms));
            assert_eq!(record.settle(at(ms + 500)), None);
            assert_eq!(found(&mut record, of("a"), "MISCONF", at(ms + 600)), None);
        }
    }
}
