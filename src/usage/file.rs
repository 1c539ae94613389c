//! The files of days: `<state_dir>/usage/2026-11-29.json`, of which each holds the counts of one day.
//!
//! A file has the counts of each run of the program, which only grow. So nothing is counted twice, whoever writes, and how
//! often: two processes on one folder write under a lock, and each keeps what it finds of the other. The counts of
//! hosts with the same token store are runs as well.

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
    /// Its random name.
    pub run: String,
    /// It used this state folder. The others are those of hosts with the same token store.
    #[serde(default)]
    pub is_local: bool,
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
        let Some(known) = self.runs.iter_mut().find(|known| known.run == newer.run) else {
            self.runs.push(newer.clone());
            return true;
        };
        known.is_local |= newer.is_local;
        let is_new = newer.rows.requests() > known.rows.requests();
        if is_new {
            known.rows.clone_from(&newer.rows);
        }
        is_new
    }
}

/// The files of one state folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Files(PathBuf);

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
        RunRows { run: name.to_owned(), is_local: false, rows }
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
        let local = RunRows { is_local: true, ..run("c", 1) };
        files.merge(day, &[run("b", 5), run("c", 2)], now).unwrap();
        let rows = files.merge(day, &[run("b", 4), local], now).unwrap();
        assert_eq!(rows.all().requests(), 7);
        assert!(rows.runs.iter().all(|run| run.is_local == (run.run == "c")));
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
