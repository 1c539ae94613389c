//! The files of days: `<state_dir>/usage/2026-11-29.json`, of which each holds the counts of one day.
//!
//! Two processes may use one folder. Each adds what it counted since its last save, under a lock, so that neither loses
//! the other's counts.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use log::{debug, warn};
use serde::{Deserialize, Serialize};

use crate::clock::{RELEASED_AT, Timestamp};
use crate::regular_file;
use crate::token::state_file::write_without_sync_of_folder;
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
/// The file with this folder's name among the hosts.
const HOST_FILE: &str = "host";
const VERSION: u64 = 1;
const SUFFIX: &str = ".json";

/// The content of a file.
#[derive(Debug, Serialize, Deserialize)]
struct Content {
    version: u64,
    day: String,
    rows: Table,
    /// The counts of other hosts with the same token store.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    hosts: Vec<HostRows>,
}

/// The counts of one host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HostRows {
    pub host: String,
    pub rows: Table,
}

/// The counts of a day: those of this state folder, and those of other hosts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DayRows {
    pub own: Table,
    pub hosts: Vec<HostRows>,
}

impl DayRows {
    /// The sum of all.
    pub(crate) fn all(&self) -> Table {
        let mut all = self.own.clone();
        self.hosts.iter().for_each(|host| all.merge(&host.rows));
        all
    }

    /// Takes over the counts of a host, which only grow. True if they are new.
    pub(crate) fn take(&mut self, newer: &HostRows) -> bool {
        let requests = |rows: &Table| rows.sum(|_| true).requests;
        match self.hosts.iter_mut().find(|known| known.host == newer.host) {
            Some(known) if requests(&known.rows) >= requests(&newer.rows) => return false,
            Some(known) => known.rows.clone_from(&newer.rows),
            None => self.hosts.push(newer.clone()),
        }
        true
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
        let content: Content = serde_json::from_slice(&bytes).map_err(|why| {
            io::Error::new(ErrorKind::InvalidData, format!("{shown} holds no counts: {why}"))
        })?;
        if content.version != VERSION {
            let version = content.version;
            let message = format!("{shown} has the format {version} of another evertoken");
            return Err(io::Error::other(message));
        }
        Ok(DayRows { own: content.rows, hosts: content.hosts })
    }

    /// Adds `counts`, and the counts of other hosts, to the file of `day`; returns its new content.
    pub(crate) fn add(
        &self,
        day: Day,
        counts: &Table,
        hosts: &[HostRows],
        now: Timestamp,
    ) -> io::Result<DayRows> {
        self.make_folder()?;
        let _lock = self.lock()?;
        let mut rows = match self.read(day) {
            Err(error) if error.kind() == ErrorKind::InvalidData => {
                let path = self.path(day);
                let aside = self.0.join(format!("{day}{SUFFIX}.corrupt-{now}"));
                fs::rename(&path, &aside)?;
                warn!("{error}; it was moved to {}, and the day begins anew", aside.display());
                DayRows::default()
            }
            read => read?,
        };
        rows.own.merge(counts);
        for host in hosts {
            rows.take(host);
        }
        let content =
            Content { version: VERSION, day: day.to_string(), rows: rows.own, hosts: rows.hosts };
        let bytes = serde_json::to_vec(&content)?;
        // What follows must not fail: the counts are in the file, and must not be added again.
        write_without_sync_of_folder(&self.path(day), &bytes)?;
        if let Err(error) = File::open(&self.0).and_then(|folder| folder.sync_all()) {
            debug!("{} can't be synchronised: {error}", self.0.display());
        }
        Ok(DayRows { own: content.rows, hosts: content.hosts })
    }

    /// The name of this folder among the hosts that share counts; `new` the first time. Processes on one folder have one
    /// name, because their counts are one.
    pub(crate) fn host(&self, new: &str) -> io::Result<String> {
        self.make_folder()?;
        let _lock = self.lock()?;
        let path = self.0.join(HOST_FILE);
        match regular_file::read_to_string(&path) {
            Ok(name) if is_host(&name) => return Ok(name),
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        write_without_sync_of_folder(&path, new.as_bytes())?;
        Ok(new.to_owned())
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

/// True for a random name, as `random_name` makes it.
fn is_host(name: &str) -> bool {
    name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::usage::table::Counts;

    fn counts(requests: u64) -> Table {
        let mut table = Table::default();
        table.add("A", "m", "k", &Counts { requests, input: 5, ..Counts::default() });
        table
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
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..5 {
                        files.add(day, &counts(1), &[], now).unwrap();
                    }
                });
            }
        });
        assert_eq!(files.read(day).unwrap().own.sum(|_| true).requests, 20);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&files.0), mode(&files.path(day))), (0o700, 0o600));
        assert_eq!(files.days().unwrap(), [day]);
    }

    #[test]
    fn a_file_that_makes_no_sense_is_set_aside_and_one_of_a_newer_version_stays() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::of(folder.path());
        let (now, day) = (RELEASED_AT, Day::of(RELEASED_AT));
        files.add(day, &counts(1), &[], now).unwrap();
        fs::write(files.path(day), "{\"version\":1,").unwrap();
        assert!(files.read(day).unwrap_err().to_string().contains("holds no counts"));
        assert_eq!(files.add(day, &counts(2), &[], now).unwrap().own, counts(2));
        let names = fs::read_dir(&files.0).unwrap();
        let names: Vec<_> =
            names.map(|one| one.unwrap().file_name().into_string().unwrap()).collect();
        assert!(names.iter().any(|name| name.contains(".json.corrupt-2026")), "{names:?}");
        assert_eq!(files.days().unwrap(), [day]);
        let newer = r#"{"version":2,"day":"2026-11-24","rows":[]}"#;
        fs::write(files.path(day), newer).unwrap();
        assert!(files.add(day, &counts(2), &[], now).unwrap_err().to_string().contains("format 2"));
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
            files.add(today.earlier(earlier), &counts(1), &[], RELEASED_AT).unwrap();
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

    #[test]
    fn the_counts_of_a_host_only_grow_and_a_folder_keeps_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::of(folder.path());
        let (now, day) = (RELEASED_AT, Day::of(RELEASED_AT));
        let host =
            |name: &str, requests| HostRows { host: name.to_owned(), rows: counts(requests) };
        files.add(day, &counts(1), &[host("b", 5), host("c", 2)], now).unwrap();
        let rows = files.add(day, &counts(1), &[host("b", 4), host("c", 3)], now).unwrap();
        assert_eq!((rows.own.sum(|_| true).requests, rows.hosts.len()), (2, 2));
        assert_eq!(files.read(day).unwrap().all().sum(|_| true).requests, 2 + 5 + 3);
        let (one, other) = ("1".repeat(32), "2".repeat(32));
        assert_eq!(files.host(&one).unwrap(), one);
        assert_eq!(files.host(&other).unwrap(), one);
        fs::write(files.0.join(HOST_FILE), "nonsense").unwrap();
        assert_eq!(files.host(&other).unwrap(), other);
        assert_eq!(files.days().unwrap(), [day]);
    }
}
