//! Passes the outcome of a reload from the running evertoken to `evertoken reload`, in a file in the state folder.
//!
//! A signal has no answer, and a request would need a key, which may be what has changed.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// No slug begins with a dot.
const FILE_NAME: &str = ".last-reload";
/// The largest file to read.
const FILE_MAX_BYTES: u64 = 256 * 1024;

/// The outcome of a reload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReloadOutcome {
    /// The process that read the configuration again.
    pub process: u32,
    /// The number of its reloads.
    pub count: u64,
    /// True if the new configuration is in use.
    pub is_in_use: bool,
    /// Its warnings, or every mistake.
    pub lines: Vec<String>,
    /// The file that it read, unless an older version left that out.
    #[serde(default)]
    pub configuration: PathBuf,
}

impl ReloadOutcome {
    /// True if the process is known to read another file than `configuration`, whatever paths lead to the two.
    pub(crate) fn is_of_another_than(&self, configuration: &Path) -> bool {
        let plain = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        self.configuration != Path::new("") && plain(&self.configuration) != plain(configuration)
    }
}

fn path(state_dir: &Path) -> PathBuf {
    state_dir.join(FILE_NAME)
}

/// Writes the outcome atomically.
pub(crate) fn write_outcome(state_dir: &Path, outcome: &ReloadOutcome) -> io::Result<()> {
    let mut file = tempfile::Builder::new().prefix(FILE_NAME).tempfile_in(state_dir)?;
    file.write_all(&serde_json::to_vec(outcome)?)?;
    file.persist(path(state_dir)).map_err(|error| error.error)?;
    Ok(())
}

/// The last outcome; None if there is none that makes sense.
pub(crate) fn read_outcome(state_dir: &Path) -> Option<ReloadOutcome> {
    let path = path(state_dir);
    let metadata = fs::symlink_metadata(&path).ok()?;
    if !metadata.is_file() || metadata.len() > FILE_MAX_BYTES {
        return None;
    }
    crate::json::read(&fs::read(path).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_read_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read_outcome(folder.path()), None);
        let outcome = |count| ReloadOutcome {
            process: 1,
            count,
            is_in_use: false,
            lines: vec!["x:1: y".into()],
            configuration: "/etc/x.yaml".into(),
        };
        for count in [1, 2] {
            write_outcome(folder.path(), &outcome(count)).unwrap();
            assert_eq!(read_outcome(folder.path()), Some(outcome(count)));
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        fs::write(path(folder.path()), "{").unwrap();
        assert_eq!(read_outcome(folder.path()), None);
        assert!(write_outcome(&folder.path().join("none"), &outcome(1)).is_err());
    }

    #[test]
    fn a_file_over_the_limit_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let (lines, configuration) = (Vec::new(), PathBuf::new());
        let outcome = ReloadOutcome { process: 1, count: 1, is_in_use: true, lines, configuration };
        for (length, is_read) in [(FILE_MAX_BYTES, true), (FILE_MAX_BYTES + 1, false)] {
            let mut text = serde_json::to_string(&outcome).unwrap();
            let length = usize::try_from(length).unwrap();
            text.push_str(&" ".repeat(length - text.len()));
            fs::write(path(folder.path()), text).unwrap();
            assert_eq!(read_outcome(folder.path()).is_some(), is_read);
        }
    }
}
