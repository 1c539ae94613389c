//! The files of days: `<state_dir>/usage/2026-11-29.json`, of which each holds the counts of one day.
//!
//! A file has the counts of each run of the program, which only grow. So nothing is counted twice, whoever writes, and how
//! often: two processes on one folder write under a lock, and each keeps what it finds of the other. The counts of
//! hosts with the same token store are runs as well. A program that is started again and again has its earliest runs added
//! up, so that a file does not grow without end.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use log::warn;
use serde::{Deserialize, Serialize};

use crate::clock::{RELEASED_AT, Timestamp};
use crate::json;
use crate::regular_file;
use crate::token::state_file::write_whole;
use crate::usage::day::Day;
use crate::usage::run_name::{RunName, covers};
use crate::usage::table::Table;

/// The days for which counts are kept.
pub(crate) const KEPT_DAYS: i64 = 400;
/// The number of newer files that must be there before an old one is deleted. A wrong clock makes a few files of a time
/// to come, and must not cause the others to be deleted.
const NEWER_MIN: usize = 7;
/// The folder within the state folder.
const FOLDER: &str = "usage";
/// The largest file that is read.
const FILE_MAX_BYTES: usize = 16 * 1024 * 1024;
const VERSION: u64 = 1;
/// The most runs of one host on a day that are kept apart, and the number of the newest ones that still are once there are
/// more. Other hosts may know more of those than the host itself.
const RUNS_MAX: usize = 64;
const RUNS_KEPT: usize = 16;
/// The beginning of the names of hosts' files.
const HOST_START: &str = ".host-";
const SUFFIX: &str = ".json";

/// The content of a file.
#[derive(Debug, Serialize, Deserialize)]
struct Content {
    version: u64,
    day: String,
    runs: Vec<RunRows>,
}

/// The counts of one run of the program, which only grow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunRows {
    /// Its name, see [`RunName`].
    pub run: String,
    pub rows: Table,
}

/// The counts of a day.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DayRows {
    pub runs: Vec<RunRows>,
}

impl DayRows {
    /// The sum of all.
    pub(crate) fn all(&self) -> Table {
        let mut all = Table::default();
        self.runs.iter().for_each(|run| all.merge(&run.rows));
        all
    }

    /// Takes over the counts of a run, unless more of them are known. True if they are new.
    pub(crate) fn take(&mut self, newer: &RunRows) -> bool {
        if self.runs.iter().any(|known| covers(&known.run, &newer.run)) {
            return false;
        }
        self.runs.retain(|known| !covers(&newer.run, &known.run));
        let Some(known) = self.runs.iter_mut().find(|known| known.run == newer.run) else {
            self.runs.push(newer.clone());
            return true;
        };
        let is_new = newer.rows.requests() > known.rows.requests();
        if is_new {
            known.rows.clone_from(&newer.rows);
        }
        is_new
    }
}

impl DayRows {
    /// Adds up the oldest runs of `host`, all of which have ended, if there are more than [`RUNS_MAX`].
    pub(crate) fn add_up_runs_of(&mut self, host: &str) {
        let start = |run: &RunRows| {
            RunName::of(&run.run).filter(|name| name.host == host).map(|name| name.start_ms)
        };
        let mut starts: Vec<u64> = self.runs.iter().filter_map(start).collect();
        if starts.len() <= RUNS_MAX {
            return;
        }
        starts.sort_unstable();
        let last = starts[starts.len() - 1 - RUNS_KEPT];
        let mut rows = Table::default();
        let earlier = self.runs.iter().filter(|run| start(run).is_some_and(|at| at <= last));
        earlier.for_each(|run| rows.merge(&run.rows));
        self.take(&RunRows { run: RunName::of_sum(host, last), rows });
    }
}

/// The files of one state folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Files(PathBuf);

/// A host: a state folder, and one process after another on it. The lock on its file shows that its process runs.
#[derive(Debug)]
pub(crate) struct Host {
    /// Its random name.
    pub name: String,
    /// Its locked file. None before there is one, and in a file system without locks.
    file: Option<File>,
}

impl Host {
    /// True if no other process can run for this host.
    pub(crate) fn is_ours(&self) -> bool {
        self.file.is_some()
    }
}

impl Files {
    /// Those in `state_dir`.
    pub(crate) fn of(state_dir: &Path) -> Self {
        Self(state_dir.join(FOLDER))
    }

    fn path(&self, day: Day) -> PathBuf {
        self.0.join(format!("{day}{SUFFIX}"))
    }

    /// The days that have a file, the oldest first; none if there is no folder.
    pub(crate) fn days(&self) -> io::Result<Vec<Day>> {
        let entries = match fs::read_dir(&self.0) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut days = Vec::new();
        for entry in entries {
            let name = entry?.file_name();
            let day = name.to_str().and_then(|name| Day::parse(name.strip_suffix(SUFFIX)?));
            days.extend(day);
        }
        days.sort_unstable();
        Ok(days)
    }

    /// The counts of `day`; none if there is no file.
    pub(crate) fn read(&self, day: Day) -> io::Result<DayRows> {
        let path = self.path(day);
        let shown = path.display();
        let length = match fs::metadata(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(DayRows::default()),
            metadata => metadata?.len(),
        };
        if length > FILE_MAX_BYTES as u64 {
            return Err(io::Error::other(format!("{shown} is larger than {FILE_MAX_BYTES} bytes")));
        }
        let bytes = regular_file::read(&path)?;
        let content: Content = json::read(&bytes).map_err(|why| {
            io::Error::new(ErrorKind::InvalidData, format!("{shown} holds no counts: {why}"))
        })?;
        if content.version != VERSION {
            let version = content.version;
            let message = format!("{shown} has the format {version} of another evertoken");
            return Err(io::Error::other(message));
        }
        Ok(DayRows { runs: content.runs })
    }

    /// Takes `runs` over into the file of `day`; returns its new content.
    pub(crate) fn merge(&self, day: Day, runs: &[RunRows], now: Timestamp) -> io::Result<DayRows> {
        self.make_folder()?;
        let _lock = self.lock()?;
        let mut known = match self.read(day) {
            Err(error) if error.kind() == ErrorKind::InvalidData => {
                let path = self.path(day);
                let aside = self.0.join(format!("{day}{SUFFIX}.corrupt-{now}"));
                fs::rename(&path, &aside)?;
                warn!("{error}; it was moved to {}, and the day begins anew", aside.display());
                DayRows::default()
            }
            read => read?,
        };
        for run in runs {
            known.take(run);
        }
        let content = Content { version: VERSION, day: day.to_string(), runs: known.runs };
        write_whole(&self.path(day), &serde_json::to_vec(&content)?)?;
        Ok(DayRows { runs: content.runs })
    }

    fn make_folder(&self) -> io::Result<()> {
        if self.0.is_dir() {
            return Ok(());
        }
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.0)
    }

    /// A host of this folder whose process has ended, or else a new one called `name`.
    pub(crate) fn host(&self, name: &str) -> Host {
        let entries = fs::read_dir(&self.0).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let mut hosts = names.filter_map(|own| own.strip_prefix(HOST_START).map(str::to_owned));
        let ended = hosts.find_map(|name| {
            let file = self.locked(&name, false)?;
            Some(Host { name, file: Some(file) })
        });
        ended.unwrap_or_else(|| Host { name: name.to_owned(), file: None })
    }

    /// Makes the file of a new host, if the folder exists by now.
    pub(crate) fn settle(&self, host: &mut Host) {
        if host.file.is_none() && self.0.is_dir() {
            host.file = self.locked(&host.name, true);
        }
    }

    /// The locked file of the host called `name`; None if another process has the lock.
    fn locked(&self, name: &str, is_new: bool) -> Option<File> {
        let mut options = File::options();
        options.write(true).create(is_new).truncate(false).mode(0o600);
        let path = self.0.join(format!("{HOST_START}{name}"));
        let file = regular_file::open_with(&mut options, &path).ok()?;
        file.try_lock().is_ok().then_some(file)
    }

    /// Waits for the lock, which ends with the returned value. None if this file system has no locks.
    fn lock(&self) -> io::Result<Option<File>> {
        let mut options = File::options();
        options.create(true).write(true).truncate(false).mode(0o600);
        let file = regular_file::open_with(&mut options, &self.0.join(".lock"))?;
        Ok(file.lock().is_ok().then_some(file))
    }

    /// Deletes the files of days that are more than [`KEPT_DAYS`] past.
    pub(crate) fn delete_old(&self, now: Timestamp) -> io::Result<()> {
        if now < RELEASED_AT {
            return Ok(());
        }
        let oldest = Day::of(now).earlier(KEPT_DAYS);
        let days = self.days()?;
        let is_old = |day: &&Day| **day < oldest;
        if days.iter().filter(|day| !is_old(day)).count() < NEWER_MIN {
            return Ok(());
        }
        for day in days.iter().filter(is_old) {
            fs::remove_file(self.path(*day))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::usage::table::Counts;

    fn run(name: &str, requests: u64) -> RunRows {
        let mut rows = Table::default();
        rows.add("A", "m", "k", &Counts { requests, input: 5, ..Counts::default() });
        RunRows { run: name.to_owned(), rows }
    }

    fn at(text: &str) -> Timestamp {
        Timestamp::parse_rfc3339(text).unwrap()
    }

    #[test]
    fn what_two_processes_count_is_added() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::of(folder.path());
        let (now, day) = (RELEASED_AT, Day::of(RELEASED_AT));
        assert_eq!((files.read(day).unwrap(), files.days().unwrap()), (DayRows::default(), vec![]));
        std::thread::scope(|scope| {
            for name in ["a", "b", "c", "d"] {
                let files = &files;
                scope.spawn(move || {
                    for requests in 1..=5 {
                        files.merge(day, &[run(name, requests)], now).unwrap();
                    }
                });
            }
        });
        assert_eq!(files.read(day).unwrap().all().requests(), 20);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&files.0), mode(&files.path(day))), (0o700, 0o600));
        assert_eq!(files.days().unwrap(), [day]);
    }

    #[test]
    fn the_counts_of_a_run_only_grow() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::of(folder.path());
        let (now, day) = (RELEASED_AT, Day::of(RELEASED_AT));
        files.merge(day, &[run("b", 5), run("c", 2)], now).unwrap();
        let rows = files.merge(day, &[run("b", 4), run("c", 1)], now).unwrap();
        assert_eq!(rows.all().requests(), 7);
    }

    #[test]
    fn a_file_grew_with_every_start() {
        let name = |start: usize| format!("h-{start}-x");
        let mut day = DayRows::default();
        let mut late = DayRows::default();
        for start in 0..RUNS_MAX {
            day.take(&run(&name(start), 2));
        }
        day.take(&run("other-0-x", 1));
        day.take(&run("of-an-earlier-version", 1));
        day.add_up_runs_of("h");
        assert_eq!(day.runs.len(), RUNS_MAX + 2, "so many are kept apart");
        day.take(&run(&name(RUNS_MAX), 2));
        let before = day.clone();
        let apart = day.runs.clone();
        day.add_up_runs_of("h");
        assert_eq!(day.runs.len(), RUNS_KEPT + 1 + 2);
        assert_eq!(day.all(), before.all());
        // Others take the sum in the place of its runs, in whichever order they hear of both.
        for run in apart.iter().chain(&day.runs) {
            late.take(run);
        }
        assert_eq!((late.all(), late.runs.len()), (day.all(), day.runs.len()));
        let mut late = DayRows::default();
        for run in day.runs.iter().chain(&apart) {
            late.take(run);
        }
        assert_eq!((late.all(), late.runs.len()), (day.all(), day.runs.len()));
        // And so on, for as long as it is started again and again.
        for start in 1..10 * RUNS_MAX {
            day.take(&run(&name(RUNS_MAX + start), 1));
            day.add_up_runs_of("h");
            assert!(day.runs.len() <= RUNS_MAX + 2);
        }
        assert_eq!(day.all().requests(), before.all().requests() + 10 * RUNS_MAX as u64 - 1);
    }

    #[test]
    fn a_host_is_taken_over_once_its_process_has_ended() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::of(folder.path());
        let mut host = files.host("a");
        files.settle(&mut host);
        assert!(!host.is_ours() && !files.0.exists(), "nothing is written before the first save");
        files.make_folder().unwrap();
        files.settle(&mut host);
        assert!(host.is_ours());
        let mut beside = files.host("b");
        files.settle(&mut beside);
        assert!(beside.is_ours() && beside.name == "b", "the other process runs");
        drop(host);
        assert_eq!(files.host("c").name, "a");
        assert_eq!(files.days().unwrap(), []);
    }

    #[test]
    fn a_file_that_makes_no_sense_is_set_aside_and_one_of_a_newer_version_stays() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::of(folder.path());
        let (now, day) = (RELEASED_AT, Day::of(RELEASED_AT));
        files.merge(day, &[run("a", 1)], now).unwrap();
        fs::write(files.path(day), "{\"version\":1,").unwrap();
        assert!(files.read(day).unwrap_err().to_string().contains("holds no counts"));
        assert_eq!(files.merge(day, &[run("a", 2)], now).unwrap().all().requests(), 2);
        let names = fs::read_dir(&files.0).unwrap();
        let names: Vec<_> =
            names.map(|one| one.unwrap().file_name().into_string().unwrap()).collect();
        assert!(names.iter().any(|name| name.contains(".json.corrupt-2026")), "{names:?}");
        assert_eq!(files.days().unwrap(), [day]);
        let newer = r#"{"version":2,"day":"2026-11-24","runs":[]}"#;
        fs::write(files.path(day), newer).unwrap();
        assert!(
            files.merge(day, &[run("a", 2)], now).unwrap_err().to_string().contains("format 2")
        );
        assert_eq!(fs::read_to_string(files.path(day)).unwrap(), newer);
        fs::write(files.path(day), vec![b' '; FILE_MAX_BYTES]).unwrap();
        assert!(files.read(day).unwrap_err().to_string().contains("holds no counts"));
        fs::write(files.path(day), vec![b' '; FILE_MAX_BYTES + 1]).unwrap();
        assert!(files.read(day).unwrap_err().to_string().contains("larger than"));
    }

    #[test]
    fn old_files_are_deleted_but_not_by_a_wrong_clock() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::of(folder.path());
        let today = Day::parse("2028-06-15").unwrap();
        let add = |earlier| {
            files.merge(today.earlier(earlier), &[run("a", 1)], RELEASED_AT).unwrap();
        };
        for earlier in [KEPT_DAYS + 1, KEPT_DAYS, 5, 4, 3, 2, 1] {
            add(earlier);
        }
        let now = at("2028-06-15T12:00:00Z");
        files.delete_old(now).unwrap();
        assert_eq!(files.days().unwrap().len(), 7, "only six are newer");
        add(0);
        for wrong in ["1970-01-01T00:00:00Z", "2026-12-01T00:00:00Z", "2099-01-01T00:00:00Z"] {
            files.delete_old(at(wrong)).unwrap();
            assert_eq!(files.days().unwrap().len(), 8, "{wrong}");
        }
        files.delete_old(now).unwrap();
        assert_eq!(files.days().unwrap().first(), Some(&today.earlier(KEPT_DAYS)));
    }
}
