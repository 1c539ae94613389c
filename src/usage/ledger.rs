//! The counts of this process, and those that were saved before: by day, and added to from all workers.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use log::warn;

use crate::bookkeeper::{Registrar, Reminder};
use crate::clock::{Clock, Timestamp};
use crate::json;
use crate::shared::engine::Tally;
use crate::shared::tallies::{HostTally, SharedCounts};
use crate::usage::day::Day;
use crate::usage::file::{DayRows, Files, Host, RunRows};
use crate::usage::observer::{Inflating, Observed, reports_tokens};
use crate::usage::run_name::RunName;
use crate::usage::scan::Finding;
use crate::usage::table::{Counts, OTHER, Table, UNKNOWN};

/// The days that are held in memory, for the page: today and the six before.
pub(crate) const SHOWN_DAYS: i64 = 7;
/// The beginning of the names under which days are shared, and the time for which a day is.
const SUBJECT: &str = "usage:";
const SHARED_MS: u64 = 9 * 24 * 60 * 60 * 1000;
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

    /// The counts of the answer and the model that it names, if it is to be counted.
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

/// True if the provider has the model that the request names, as far as the answer shows. Only then may the model get
/// a row of its own: a client could invent any number of names.
fn is_served(observed: &Observed) -> bool {
    match observed {
        Observed::Nothing => false,
        Observed::Read(Finding { tokens, model }) => tokens.is_some() || model.is_some(),
        Observed::Unread => true,
    }
}

/// The counts of one day.
#[derive(Debug, Default)]
struct DayCounts {
    /// Those of other runs, before this one, beside it, and on other hosts.
    others: DayRows,
    own: Table,
    /// Something is not yet in the file.
    is_changed: bool,
    /// The sum of the own ones that are in the file.
    saved: Counts,
}

impl DayCounts {
    /// True if `model` of `provider` has counts of its own, on whichever host.
    fn knows(&self, provider: &str, model: &str) -> bool {
        let mut tables = self.others.runs.iter().map(|run| &run.rows).chain([&self.own]);
        tables.any(|table| table.knows(provider, model))
    }

    fn all(&self) -> Table {
        let mut all = self.others.all();
        all.merge(&self.own);
        all
    }
}

#[derive(Debug)]
struct State {
    files: Files,
    days: BTreeMap<Day, DayCounts>,
    /// The tokens of each key on one day, so that a limit need not be summed up for each request.
    of_keys: (Option<Day>, Vec<(String, u64)>),
}

/// The counts; see the module's documentation.
#[derive(Debug)]
pub struct Ledger {
    state: Mutex<State>,
    /// The name of this run among all, on this host and others.
    run: String,
    /// The host that this process is.
    host: Mutex<Host>,
    /// Set once the bookkeeper knows of it.
    reminder: OnceLock<Reminder>,
    /// Counts the answers that are inflated.
    pub(crate) inflating: Inflating,
    clock: Clock,
}

impl Ledger {
    /// A ledger that continues the files in `state_dir`, for a run with a `random` name.
    pub(crate) fn open(state_dir: &Path, clock: Clock, random: &str) -> Self {
        let files = Files::of(state_dir);
        let host = files.host(random);
        let state = State { files, days: BTreeMap::new(), of_keys: (None, Vec::new()) };
        let (state, inflating) = (Mutex::new(state), Inflating::default());
        let run = String::new();
        let (reminder, host) = (OnceLock::new(), Mutex::new(host));
        let mut ledger = Self { state, run, host, reminder, inflating, clock };
        ledger.load();
        ledger.run = ledger.name_of_run(random);
        ledger
    }

    /// The name of this run. It begins after all runs of this host that are known, whatever the clock shows.
    fn name_of_run(&self, random: &str) -> String {
        let host = self.host();
        let state = self.state();
        let runs = state.days.values().flat_map(|day| &day.others.runs);
        let names = runs.filter_map(|run| RunName::of(&run.run));
        let known = names.filter(|name| name.host == host.name).map(|name| name.start_ms).max();
        let now = u64::try_from(self.clock.wall().as_millis()).unwrap_or(0);
        let start = known.map_or(now, |known| now.max(known.saturating_add(1)));
        format!("{}-{start}-{random}", host.name)
    }

    fn host(&self) -> MutexGuard<'_, Host> {
        self.host.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change leaves it complete.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Saves with `registrar` from now on; `itself` is this ledger.
    pub(crate) fn save_by(itself: &Arc<Self>, registrar: &Registrar) {
        let (ledger, other) = (Arc::downgrade(itself), Arc::downgrade(itself));
        let save = move || ledger.upgrade().map_or(Ok(()), |ledger| ledger.save());
        let unsaved = move || other.upgrade()?.unsaved();
        let reminder = registrar.add_counted(RECORD, save, unsaved);
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
            day.others = DayRows::default();
            day.is_changed = !day.own.is_empty();
            day.saved = Counts::default();
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
                Ok(rows) => self.learn(day, &rows.runs, false),
                Err(why) => warn!("The usage of {day} is not shown: {why}"),
            }
        }
        self.state().sum_up_keys(today);
    }

    /// Takes the counts of other runs; `is_news` if they may not be in the file.
    fn learn(&self, day: Day, runs: &[RunRows], is_news: bool) {
        let mut state = self.state();
        let mut is_new = false;
        for run in runs.iter().filter(|run| run.run != self.run) {
            is_new |= state.days.entry(day).or_default().others.take(run);
        }
        if is_new {
            state.days.entry(day).or_default().is_changed |= is_news;
            state.sum_up_keys(Day::of(self.clock.wall()));
        }
        drop(state);
        if is_new && is_news {
            self.remind();
        }
    }

    /// Counts an answer that was observed.
    // Not inlined: keeps worker stacks small.
    #[inline(never)]
    pub(crate) fn count(&self, observed: Observed, answered: Answered<'_>) {
        let is_served = is_served(&observed);
        let Some((counts, model)) = answered.counts(observed) else { return };
        let model = model.as_deref().or(answered.asked_model).unwrap_or(UNKNOWN);
        let key = answered.key.unwrap_or_default();
        self.add(self.clock.wall(), (answered.provider, model, key), is_served, &counts);
    }

    fn add(
        &self,
        now: Timestamp,
        (provider, model, key): (&str, &str, &str),
        is_served: bool,
        counts: &Counts,
    ) {
        let today = Day::of(now);
        let mut state = self.state();
        let day = state.days.entry(today).or_default();
        let is_known = is_served || model == UNKNOWN || day.knows(provider, model);
        day.own.add(provider, if is_known { model } else { OTHER }, key, counts);
        day.is_changed = true;
        state.add_to_key(today, key, counts.tokens());
        drop(state);
        self.remind();
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
        let mut run = Table::default();
        for day in state.days.values() {
            run.merge(&day.own);
        }
        run
    }

    /// The counts of this run for other hosts: of the days that may have changed, or of `all` that are shown.
    fn shared(&self, all: bool) -> Vec<HostTally> {
        let today = Day::of(self.clock.wall());
        let state = self.state();
        // Yesterday's last answers end today.
        let days = (0..if all { SHOWN_DAYS } else { 2 }).map(|days| today.earlier(days));
        let none = Table::default();
        let own = |day| state.days.get(&day).map_or(&none, |counts| &counts.own);
        days.map(|day| (self.run.clone(), tally(day, own(day)))).collect()
    }

    /// Takes the counts of all hosts; returns those that the token store lacks, because it lost them, or because the
    /// host that counted them was killed before it could tell.
    fn take(&self, name: &str, texts: Vec<(String, String)>) -> Vec<HostTally> {
        let Some(day) = name.strip_prefix(SUBJECT).and_then(Day::parse) else { return Vec::new() };
        let runs = texts.into_iter().filter_map(|(run, text)| {
            let rows = json::read(text.as_bytes()).ok()?;
            Some(RunRows { run, rows })
        });
        let told: Vec<_> = runs.collect();
        self.learn(day, &told, true);
        let state = self.state();
        let known = state.days.get(&day).map_or(&[][..], |counts| &counts.others.runs);
        let is_lacking = |known: &&RunRows| {
            let told = told.iter().find(|told| told.run == known.run);
            told.is_none_or(|told| told.rows.requests() < known.rows.requests())
        };
        known
            .iter()
            .filter(is_lacking)
            .map(|run| (run.run.clone(), tally(day, &run.rows)))
            .collect()
    }

    /// The counts for hosts with a common token store.
    pub(crate) fn shared_counts(itself: &Arc<Self>) -> SharedCounts {
        let (own, taker) = (itself.clone(), itself.clone());
        SharedCounts {
            own: Box::new(move |all| own.shared(all)),
            take: Box::new(move |subject, texts| taker.take(subject, texts)),
        }
    }

    /// How much a stop would lose now: `3 answers with 120 tokens`.
    fn unsaved(&self) -> Option<String> {
        let (mut answers, mut tokens) = (0_u64, 0_u64);
        for day in self.state().days.values() {
            let own = day.own.sum(|_| true);
            answers += own.requests.saturating_sub(day.saved.requests);
            tokens = tokens.saturating_add(own.tokens().saturating_sub(day.saved.tokens()));
        }
        let unit = if answers == 1 { "answer" } else { "answers" };
        (answers > 0).then(|| format!("{answers} {unit} with {tokens} tokens"))
    }

    fn remind(&self) {
        if let Some(reminder) = self.reminder.get() {
            reminder.changed();
        }
    }

    /// The name of this host, unless another process may run for it.
    fn host_to_add_up(&self) -> Option<String> {
        let files = self.state().files.clone();
        let mut host = self.host();
        files.settle(&mut host);
        host.is_ours().then(|| host.name.clone())
    }

    /// Writes what was counted since the last save. Only the bookkeeper calls it.
    fn save(&self) -> io::Result<()> {
        let now = self.clock.wall();
        let host = self.host_to_add_up();
        let (files, days) = {
            let mut state = self.state();
            let changed = state.days.iter_mut().filter(|(_, counts)| counts.is_changed);
            let days: Vec<(Day, Vec<RunRows>, Counts)> = changed
                .map(|(day, counts)| {
                    counts.is_changed = false;
                    if let Some(host) = &host {
                        counts.others.add_up_runs_of(host);
                    }
                    let mut runs = counts.others.runs.clone();
                    if !counts.own.is_empty() {
                        let (run, rows) = (self.run.clone(), counts.own.clone());
                        runs.push(RunRows { run, rows });
                    }
                    (*day, runs, counts.own.sum(|_| true))
                })
                .collect();
            (state.files.clone(), days)
        };
        let mut outcome = Ok(());
        for (day, runs, saved) in days {
            match files.merge(day, &runs, now) {
                Ok(known) if self.state().files == files => {
                    self.state().days.entry(day).or_default().saved = saved;
                    self.learn(day, &known.runs, false);
                }
                Ok(_) => {}
                Err(error) => {
                    self.state().days.entry(day).or_default().is_changed = true;
                    outcome = Err(error);
                }
            }
        }
        self.state().forget_past(Day::of(now));
        outcome.and_then(|()| files.delete_old(now))
    }
}

/// The counts of a run on `day`.
fn tally(day: Day, rows: &Table) -> Tally {
    Tally {
        name: format!("{SUBJECT}{day}"),
        version: rows.requests(),
        text: serde_json::to_string(rows).unwrap_or_default(),
        kept_ms: SHARED_MS,
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

    /// Forgets days that are saved, no longer shown, and without counts of this run, which must not begin anew.
    fn forget_past(&mut self, today: Day) {
        let first = today.earlier(SHOWN_DAYS);
        self.days
            .retain(|day, counts| *day >= first || counts.is_changed || !counts.own.is_empty());
    }
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
