//! The counts of this process, and those that were saved before: by day, and added to from all workers.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use log::warn;

use crate::bookkeeper::{Registrar, Reminder};
use crate::clock::{Clock, Timestamp};
use crate::usage::day::Day;
use crate::usage::file::Files;
use crate::usage::observer::{Inflating, Observed, reports_tokens};
use crate::usage::scan::Finding;
use crate::usage::table::{Counts, Table};

/// The days that are held in memory, for the page: today and the six before.
pub(crate) const SHOWN_DAYS: i64 = 7;
/// The name in the bookkeeper's log lines.
const RECORD: &str = "usage";

/// One finished answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answered<'a> {
    /// The provider's name.
    pub provider: &'a str,
    /// The name of the client's key, if it has one.
    pub key: Option<&'a str>,
    /// The model that the answer is for, if the answer does not name it.
    pub asked_model: Option<&'a str>,
    /// The method and the path of the request.
    pub method: &'a str,
    pub path: &'a str,
    /// The body came to its end.
    pub is_whole: bool,
}

impl Answered<'_> {
    /// The answer should report tokens.
    fn is_expected(&self) -> bool {
        self.method == "POST" && reports_tokens(self.path)
    }

    /// The counts of the answer and its model, if it is to be counted.
    fn counts(&self, observed: Observed) -> Option<(Counts, Option<String>)> {
        let unknown = Counts { unknown: 1, ..Counts::default() };
        let (counts, model) = match observed {
            Observed::Read(Finding { tokens: Some(tokens), model }) => (Counts::of(tokens), model),
            _ if !self.is_expected() => return None,
            Observed::Read(Finding { tokens: None, model }) => (unknown, model),
            Observed::Unread => (unknown, None),
            // An error, which uses no tokens.
            Observed::Nothing => (Counts::default(), None),
        };
        Some((Counts { requests: 1, cut: u64::from(!self.is_whole), ..counts }, model))
    }
}

/// The model in paths such as `/v1beta/models/gemini-pro:generateContent` and `/deployments/gpt/chat/completions`.
fn model_in_path(path: &str) -> Option<&str> {
    let after = |part| path.rsplit_once(part).map(|(_, rest)| rest);
    let rest = after("/models/").or_else(|| after("/deployments/"))?;
    rest.split([':', '/']).next().filter(|model| !model.is_empty())
}

/// The counts of one day.
#[derive(Debug, Default)]
struct DayCounts {
    /// The content of the file at the last look.
    saved: Table,
    /// What is being written, and what came since.
    saving: Table,
    unsaved: Table,
    /// The counts of other hosts.
    others: Table,
}

impl DayCounts {
    fn all(&self) -> Table {
        let mut all = self.saved.clone();
        for part in [&self.saving, &self.unsaved, &self.others] {
            all.merge(part);
        }
        all
    }
}

#[derive(Debug)]
struct State {
    files: Files,
    days: BTreeMap<Day, DayCounts>,
    /// What this process counted and saved.
    of_run: Table,
    /// The tokens of each key on one day, so that a limit need not be summed up for each request.
    of_keys: (Option<Day>, Vec<(String, u64)>),
}

/// The counts; see the module's documentation.
#[derive(Debug)]
pub struct Ledger {
    state: Mutex<State>,
    /// Set once the bookkeeper knows of it.
    reminder: OnceLock<Reminder>,
    /// Counts the answers that are inflated.
    pub(crate) inflating: Inflating,
    clock: Clock,
}

impl Ledger {
    /// A ledger that continues the files in `state_dir`.
    pub(crate) fn open(state_dir: &Path, clock: Clock) -> Self {
        let files = Files::of(state_dir);
        let state = State {
            files,
            days: BTreeMap::new(),
            of_run: Table::default(),
            of_keys: (None, Vec::new()),
        };
        let (state, inflating) = (Mutex::new(state), Inflating::default());
        let ledger = Self { state, reminder: OnceLock::new(), inflating, clock };
        ledger.load();
        ledger
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change leaves it complete.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Saves with `registrar` from now on; `itself` is this ledger.
    pub(crate) fn save_by(itself: &Arc<Self>, registrar: &Registrar) {
        let ledger = Arc::downgrade(itself);
        let reminder = registrar.add(RECORD, move || match ledger.upgrade() {
            Some(ledger) => ledger.save(),
            None => Ok(()),
        });
        let _ = itself.reminder.set(reminder);
    }

    /// Goes on in `state_dir`, after a reload.
    pub(crate) fn move_to(&self, state_dir: &Path) {
        let files = Files::of(state_dir);
        let mut state = self.state();
        if state.files == files {
            return;
        }
        state.files = files;
        for day in state.days.values_mut() {
            day.saved = Table::default();
        }
        drop(state);
        self.load();
    }

    /// Reads the files of the days that are shown.
    fn load(&self) {
        let files = self.state().files.clone();
        let now = self.clock.wall();
        let today = Day::of(now);
        for day in (0..SHOWN_DAYS).map(|days| today.earlier(days)) {
            match files.read(day) {
                Ok(table) if table.is_empty() => {}
                Ok(table) => self.state().days.entry(day).or_default().saved = table,
                Err(why) => warn!("The usage of {day} is not shown: {why}"),
            }
        }
        self.state().sum_up_keys(today);
    }

    /// Counts an answer that was observed.
    // Not inlined: keeps worker stacks small.
    #[inline(never)]
    pub(crate) fn count(&self, observed: Observed, answered: Answered<'_>) {
        let Some((counts, model)) = answered.counts(observed) else { return };
        let asked = || answered.asked_model.or_else(|| model_in_path(answered.path));
        let model = model.as_deref().or_else(asked).unwrap_or_default();
        let key = answered.key.unwrap_or_default();
        self.add(self.clock.wall(), answered.provider, model, key, &counts);
    }

    fn add(&self, now: Timestamp, provider: &str, model: &str, key: &str, counts: &Counts) {
        let today = Day::of(now);
        let mut state = self.state();
        let day = state.days.entry(today).or_default();
        day.unsaved.add(provider, model, key, counts);
        state.add_to_key(today, key, counts.tokens());
        drop(state);
        if let Some(reminder) = self.reminder.get() {
            reminder.changed();
        }
    }

    /// All tokens that the key called `name` used today, on all hosts; `""` for requests without a key.
    pub(crate) fn tokens_today(&self, name: &str) -> u64 {
        let today = Day::of(self.clock.wall());
        let state = self.state();
        let (day, keys) = &state.of_keys;
        let key = keys.iter().filter(|_| *day == Some(today)).find(|(key, _)| key == name);
        key.map_or(0, |(_, tokens)| *tokens)
    }

    /// The counts of today and the six days before, all hosts included: the newest first.
    pub(crate) fn shown_days(&self) -> Vec<(Day, Table)> {
        let today = Day::of(self.clock.wall());
        let state = self.state();
        let shown = (0..SHOWN_DAYS).map(|days| today.earlier(days));
        let all = |day| state.days.get(&day).map_or_else(Table::default, DayCounts::all);
        shown.map(|day| (day, all(day))).collect()
    }

    /// What this process has counted since it started.
    pub(crate) fn of_run(&self) -> Table {
        let state = self.state();
        let mut run = state.of_run.clone();
        for day in state.days.values() {
            run.merge(&day.saving);
            run.merge(&day.unsaved);
        }
        run
    }

    /// Writes what was counted since the last save. Only the bookkeeper calls it.
    fn save(&self) -> io::Result<()> {
        let now = self.clock.wall();
        let (files, days) = {
            let mut state = self.state();
            let mut days = Vec::new();
            for (day, counts) in &mut state.days {
                if !counts.unsaved.is_empty() {
                    counts.saving = std::mem::take(&mut counts.unsaved);
                    days.push((*day, counts.saving.clone()));
                }
            }
            (state.files.clone(), days)
        };
        let mut outcome = Ok(());
        for (day, counts) in days {
            let written = files.add(day, &counts, now);
            let mut state = self.state();
            let is_same_folder = state.files == files;
            let own = state.days.entry(day).or_default();
            own.saving = Table::default();
            match written {
                Ok(saved) => {
                    if is_same_folder {
                        own.saved = saved;
                    }
                    state.of_run.merge(&counts);
                }
                Err(error) => {
                    own.unsaved.merge(&counts);
                    outcome = Err(error);
                }
            }
            state.sum_up_keys(Day::of(now));
        }
        self.state().forget_past(Day::of(now));
        outcome.and_then(|()| files.delete_old(now))
    }
}

impl State {
    fn add_to_key(&mut self, today: Day, key: &str, tokens: u64) {
        if self.of_keys.0 != Some(today) {
            return self.sum_up_keys(today);
        }
        match self.of_keys.1.iter_mut().find(|(name, _)| name == key) {
            Some((_, sum)) => *sum = sum.saturating_add(tokens),
            None => self.of_keys.1.push((key.to_owned(), tokens)),
        }
    }

    fn sum_up_keys(&mut self, today: Day) {
        let mut keys: Vec<(String, u64)> = Vec::new();
        for row in self.days.get(&today).map(DayCounts::all).unwrap_or_default().rows() {
            let tokens = row.counts.tokens();
            match keys.iter_mut().find(|(key, _)| *key == row.key) {
                Some((_, sum)) => *sum = sum.saturating_add(tokens),
                None => keys.push((row.key.clone(), tokens)),
            }
        }
        self.of_keys = (Some(today), keys);
    }

    /// Forgets days that are saved and no longer shown.
    fn forget_past(&mut self, today: Day) {
        let first = today.earlier(SHOWN_DAYS);
        self.days.retain(|day, counts| {
            *day >= first || !counts.unsaved.is_empty() || !counts.saving.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;
    use crate::clock::Moment;
    use crate::usage::tokens::Tokens;

    /// A ledger in `folder` whose clock shows `now`.
    fn ledger(folder: &Path, now: &Arc<AtomicI64>) -> Arc<Ledger> {
        let now = now.clone();
        let clock = Clock::from_fn(move || Moment {
            wall: Timestamp::from_millis(now.load(Ordering::SeqCst)),
            steady_ms: 0,
        });
        Arc::new(Ledger::open(folder, clock))
    }

    fn at(text: &str) -> Arc<AtomicI64> {
        let time = Timestamp::parse_rfc3339(text).unwrap();
        Arc::new(AtomicI64::new(time.as_millis()))
    }

    fn read(input: u64) -> Observed {
        let tokens = Some(Tokens { input, output: 1, ..Tokens::default() });
        Observed::Read(Finding { tokens, model: Some("m".to_owned()) })
    }

    fn answered<'a>(key: Option<&'a str>, path: &'a str) -> Answered<'a> {
        Answered { provider: "P", key, asked_model: None, method: "POST", path, is_whole: true }
    }

    const PATH: &str = "/v1/messages";
    const DAY_MS: i64 = 24 * 60 * 60 * 1000;

    #[test]
    fn the_tokens_of_a_key_begin_anew_each_day_and_survive_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let now = at("2026-12-01T12:00:00Z");
        let one = ledger(folder.path(), &now);
        one.count(read(9), answered(Some("ci"), PATH));
        one.count(read(4), answered(Some("ci"), PATH));
        one.count(read(4), answered(None, PATH));
        assert_eq!((one.tokens_today("ci"), one.tokens_today("")), (15, 5));
        assert_eq!(one.tokens_today("other"), 0);
        one.save().unwrap();
        assert_eq!(one.tokens_today("ci"), 15, "a save changes nothing");
        one.count(read(1), answered(Some("ci"), PATH));
        let again = ledger(folder.path(), &now);
        assert_eq!((one.tokens_today("ci"), again.tokens_today("ci")), (17, 15));
        now.fetch_add(DAY_MS, Ordering::SeqCst);
        assert_eq!((one.tokens_today("ci"), again.tokens_today("ci")), (0, 0));
        one.count(read(1), answered(Some("ci"), PATH));
        assert_eq!(one.tokens_today("ci"), 2);
        let days = one.shown_days();
        assert_eq!(days.len(), 7);
        let sums: Vec<_> = days.iter().map(|(_, table)| table.sum(|_| true).tokens()).collect();
        assert_eq!(sums, [2, 22, 0, 0, 0, 0, 0]);
        assert_eq!(one.of_run().sum(|_| true).tokens(), 24);
        assert_eq!(again.of_run().sum(|_| true).tokens(), 0);
    }

    #[test]
    fn what_can_t_be_saved_is_neither_lost_nor_counted_twice() {
        let folder = tempfile::tempdir().unwrap();
        let one = ledger(folder.path(), &at("2026-12-01T12:00:00Z"));
        std::fs::write(folder.path().join("usage"), "in the way").unwrap();
        for _ in 0..3 {
            one.count(read(9), answered(None, PATH));
            assert!(one.save().is_err());
        }
        assert_eq!(one.tokens_today(""), 30);
        std::fs::remove_file(folder.path().join("usage")).unwrap();
        one.save().unwrap();
        one.save().unwrap();
        let again = ledger(folder.path(), &at("2026-12-01T12:00:00Z"));
        assert_eq!((one.tokens_today(""), again.tokens_today("")), (30, 30));
        assert_eq!(one.of_run().sum(|_| true).requests, 3);
    }

    #[test]
    fn a_reload_may_move_the_folder() {
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let now = at("2026-12-01T12:00:00Z");
        let before = ledger(other.path(), &now);
        before.count(read(99), answered(None, PATH));
        before.save().unwrap();
        let one = ledger(folder.path(), &now);
        one.count(read(9), answered(None, PATH));
        one.move_to(other.path());
        assert_eq!(one.tokens_today(""), 110, "what was not saved moves along");
        one.save().unwrap();
        assert_eq!(ledger(other.path(), &now).tokens_today(""), 110);
    }

    #[test]
    fn answers_that_are_counted_and_their_models() {
        let nothing = || Observed::Read(Finding { tokens: None, model: None });
        let asked = Answered { asked_model: Some("asked"), ..answered(None, PATH) };
        let get = Answered { method: "GET", ..answered(None, PATH) };
        let gemini = "/v1beta/models/gemini-pro:generateContent";
        let azure = "/openai/deployments/gpt/chat/completions";
        let other = "/v1/messages/count_tokens";
        let cut = Answered { is_whole: false, ..asked };
        // Requests, tokens, unknown and cut answers, and the model.
        let cases = [
            (read(9), asked, Some((1, 10, 0, 0, "m"))),
            (read(9), answered(None, other), Some((1, 10, 0, 0, "m"))),
            (read(9), cut, Some((1, 10, 0, 1, "m"))),
            (nothing(), asked, Some((1, 0, 1, 0, "asked"))),
            (nothing(), answered(None, gemini), Some((1, 0, 1, 0, "gemini-pro"))),
            (nothing(), answered(None, azure), Some((1, 0, 1, 0, "gpt"))),
            (nothing(), answered(None, other), None),
            (nothing(), get, None),
            (Observed::Unread, asked, Some((1, 0, 1, 0, "asked"))),
            (Observed::Unread, answered(None, other), None),
            (Observed::Nothing, asked, Some((1, 0, 0, 0, "asked"))),
            (Observed::Nothing, get, None),
        ];
        for (number, (observed, answered, expected)) in cases.into_iter().enumerate() {
            let folder = tempfile::tempdir().unwrap();
            let one = ledger(folder.path(), &at("2026-12-01T12:00:00Z"));
            one.count(observed, answered);
            let table = one.of_run();
            let seen = table.rows().first().map(|row| {
                let counts = &row.counts;
                let tokens = counts.tokens();
                (counts.requests, tokens, counts.unknown, counts.cut, row.model.as_str())
            });
            assert_eq!(seen, expected, "{number}");
        }
    }
}
