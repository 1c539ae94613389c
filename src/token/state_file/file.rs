//! The place of a provider in the state folder: the names of its files.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::config::slug::{self, STATE_FILE_SUFFIX};

/// The end of the file name for tokens that are stored next to a state file of a newer format.
const OLDER_SUFFIX: &str = ".format-1.json";

/// One provider's place in the state folder.
#[derive(Clone, Debug)]
pub struct StateFile {
    pub(super) folder: PathBuf,
    pub(super) slug: String,
}

impl StateFile {
    /// The place of the provider called `slug`.
    pub fn new(folder: impl Into<PathBuf>, slug: impl Into<String>) -> Self {
        Self { folder: folder.into(), slug: slug.into() }
    }

    /// The place called `slug` in the same folder.
    pub fn beside(&self, slug: impl Into<String>) -> Self {
        Self::new(&self.folder, slug)
    }

    /// The state folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The provider's slug.
    pub fn slug(&self) -> &str {
        &self.slug
    }

    /// The file itself.
    pub fn path(&self) -> PathBuf {
        slug::state_file(&self.folder, &self.slug)
    }

    /// The file for tokens while the state file is of a newer format, and so stays unchanged.
    pub fn older_path(&self) -> PathBuf {
        self.folder.join(format!("{}{OLDER_SUFFIX}", self.slug))
    }

    /// All state files of a folder; none if there is no folder.
    pub fn all_in(folder: &Path) -> io::Result<Vec<Self>> {
        let slug = |entry: fs::DirEntry| {
            let name = entry.file_name();
            let name = name.to_str()?;
            let slug =
                name.strip_suffix(OLDER_SUFFIX).or_else(|| name.strip_suffix(STATE_FILE_SUFFIX))?;
            // No slug holds a dot.
            Some(slug).filter(|slug| !slug.contains('.')).map(str::to_owned)
        };
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries.collect::<io::Result<Vec<_>>>()?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let slugs: BTreeSet<String> = entries.into_iter().filter_map(slug).collect();
        Ok(slugs.into_iter().map(|slug| Self::new(folder, slug)).collect())
    }

    /// The lock file.
    pub fn lock_path(&self) -> PathBuf {
        self.folder.join(format!("{}.lock", self.slug))
    }
}
