//! Replaces, renames and removes state files, each in one step.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::clock::Timestamp;
use crate::record::Saved;
use crate::secret::Secret;
use crate::token::state_file::file::StateFile;
use crate::token::state_file::whole;

/// The name of a temporary file is `.<slug>-`, this many random characters, and the suffix.
const TEMPORARY_RANDOM_CHARS: usize = 6;
const TEMPORARY_SUFFIX: &str = ".tmp";

impl StateFile {
    /// Replaces the file by `saved`. Fails if the file can't be read; a file of a newer format stays, and `saved` goes
    /// next to it.
    pub fn replace(&self, saved: &Saved) -> io::Result<()> {
        let beside = self.of_newer_format()?;
        let target = if beside.is_some() { self.older_path() } else { self.path() };
        let text = match &beside {
            Some(hash) => {
                let member = format!("{{\n  \"beside\": \"{hash}\",");
                Secret::new(saved.to_json().expose().replacen('{', &member, 1))
            }
            None => saved.to_json(),
        };
        let prefix = self.temporary_prefix();
        let mut temporary = tempfile::Builder::new();
        temporary.prefix(&prefix).rand_bytes(TEMPORARY_RANDOM_CHARS).suffix(TEMPORARY_SUFFIX);
        whole::replace(&target, &self.folder, &mut temporary, text.expose().as_bytes())?;
        if beside.is_none() {
            remove_if_there(&self.older_path())?;
        }
        whole::sync_folder(&self.folder)
    }

    fn temporary_prefix(&self) -> String {
        format!(".{}-", self.slug)
    }

    /// Removes temporary files, which hold tokens, that a kill in the middle of a write left.
    pub fn remove_leftovers(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let rest = name.to_str().and_then(|name| name.strip_prefix(&self.temporary_prefix()));
            let random = rest.and_then(|rest| rest.strip_suffix(TEMPORARY_SUFFIX));
            // The length tells this slug from a longer one.
            if random.is_some_and(|random| random.len() == TEMPORARY_RANDOM_CHARS) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// Moves an incomprehensible file out of the way, and returns its new path.
    pub fn set_aside(&self, now: Timestamp) -> io::Result<PathBuf> {
        let aside = self.folder.join(format!("{}.json.corrupt-{now}", self.slug));
        fs::rename(self.path(), &aside)?;
        Ok(aside)
    }

    /// Moves the file out of the way, with the record next to a file of a newer format, because there is a newer file
    /// of its chain. Returns its new path.
    pub fn set_aside_as_superseded(&self, now: Timestamp) -> io::Result<PathBuf> {
        let aside = Self::new(&self.folder, format!("{}.superseded-{now}", self.slug));
        self.rename_to(&aside)?;
        Ok(aside.path())
    }

    /// Renames the file to `other`, which must be in the same folder and is replaced.
    pub fn rename_to(&self, other: &Self) -> io::Result<()> {
        let has_older = rename_if_there(&self.older_path(), &other.older_path())?;
        if !has_older {
            // The record next to the replaced file has nothing to do with this one.
            remove_if_there(&other.older_path())?;
        }
        if !rename_if_there(&self.path(), &other.path())? && !has_older {
            return Err(io::ErrorKind::NotFound.into());
        }
        whole::sync_folder(&self.folder)
    }

    pub fn remove(&self) -> io::Result<()> {
        fs::remove_file(self.path())?;
        remove_if_there(&self.older_path())?;
        whole::sync_folder(&self.folder)
    }
}

/// Returns true if there was something to rename.
fn rename_if_there(from: &Path, to: &Path) -> io::Result<bool> {
    match fs::rename(from, to) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

pub(super) fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
