//! A provider's place on disk: how its state file is read, replaced and locked, and who else could read it.
//!
//! One JSON file a provider, `<state_dir>/<slug>.json`, mode 0600 in a folder of mode 0700; it is
//! replaced as a whole: temporary file, fsync, rename, fsync of the folder.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::Access;

use crate::clock::Timestamp;
use crate::config::slug::{self, STATE_FILE_SUFFIX};
use crate::record::Saved;
use crate::secret::Secret;

mod lock;
mod read;

pub use lock::{Locking, StateLock};
pub use read::Found;

/// A temporary file is `.<slug>-`, so many random characters, and this.
const TEMPORARY_RANDOM_CHARS: usize = 6;
const TEMPORARY_SUFFIX: &str = ".tmp";

/// How the name of what is stored beside a state file of a newer format ends.
const OLDER_SUFFIX: &str = ".format-1.json";

/// One provider's place in the state folder.
#[derive(Clone, Debug)]
pub struct StateFile {
    folder: PathBuf,
    slug: String,
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

    /// Where tokens are stored while the file itself is of a newer format, and so is left as it is.
    pub fn older_path(&self) -> PathBuf {
        self.folder.join(format!("{}{OLDER_SUFFIX}", self.slug))
    }

    /// Replaces the file by `saved`. One that can't be read, or is of a newer format, is not replaced.
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
        let mut file = tempfile::Builder::new()
            .prefix(&self.temporary_prefix())
            .rand_bytes(TEMPORARY_RANDOM_CHARS)
            .suffix(TEMPORARY_SUFFIX)
            .tempfile_in(&self.folder)?;
        give_to_owner(file.as_file(), &self.folder);
        file.write_all(text.expose().as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(target).map_err(|error| error.error)?;
        if beside.is_none() {
            remove_if_there(&self.older_path())?;
        }
        File::open(&self.folder)?.sync_all()
    }

    fn temporary_prefix(&self) -> String {
        format!(".{}-", self.slug)
    }

    /// Removes temporary files that a kill in the middle of a write left; they hold tokens.
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

    /// Moves a file that can't be understood out of the way and says where to.
    pub fn set_aside(&self, now: Timestamp) -> io::Result<PathBuf> {
        let aside = self.folder.join(format!("{}.json.corrupt-{now}", self.slug));
        fs::rename(self.path(), &aside)?;
        Ok(aside)
    }

    /// Moves the file out of the way, with what is stored beside one of a newer format, for there is a newer
    /// one of its chain. Says where to.
    pub fn set_aside_as_superseded(&self, now: Timestamp) -> io::Result<PathBuf> {
        let aside = Self::new(&self.folder, format!("{}.superseded-{now}", self.slug));
        self.rename_to(&aside)?;
        Ok(aside.path())
    }

    /// Renames the file to that of `other`, which must be in the same folder and is replaced.
    pub fn rename_to(&self, other: &Self) -> io::Result<()> {
        let has_older = rename_if_there(&self.older_path(), &other.older_path())?;
        if !has_older {
            // What stood beside the one that is replaced is no part of this.
            remove_if_there(&other.older_path())?;
        }
        if !rename_if_there(&self.path(), &other.path())? && !has_older {
            return Err(io::ErrorKind::NotFound.into());
        }
        File::open(&self.folder)?.sync_all()
    }

    /// All state files of a folder; none where there is no folder.
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

    /// Removes the file.
    pub fn remove(&self) -> io::Result<()> {
        fs::remove_file(self.path())?;
        remove_if_there(&self.older_path())?;
        File::open(&self.folder)?.sync_all()
    }

    /// Tries for the lock without waiting.
    pub fn try_lock(&self) -> io::Result<Locking> {
        make_folder(&self.folder)?;
        lock::try_lock(&self.lock_path(), &self.folder)
    }

    /// The file that is locked.
    pub fn lock_path(&self) -> PathBuf {
        self.folder.join(format!("{}.lock", self.slug))
    }

    /// Removes the file that is locked. Only where nobody needs the lock any more: who has the file open already
    /// could hold it beside another who makes it anew.
    pub fn remove_lock(&self) -> io::Result<()> {
        remove_if_there(&self.lock_path())
    }

    /// Which process holds the lock, where the system tells.
    pub fn lock_holder(&self) -> Option<String> {
        lock::holder(&self.lock_path())
    }
}

/// Whether there was something to rename.
fn rename_if_there(from: &Path, to: &Path) -> io::Result<bool> {
    match fs::rename(from, to) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Makes the state folder, mode 0700, where it is not there yet.
fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Gives a file that root made in somebody's state folder to that somebody: a login by root for a
/// service that runs as another user must leave files which that user can read.
fn give_to_owner(file: &File, folder: &Path) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    // Where root may not give files away, a file of root's is better than none.
    if let Ok(owner) = fs::metadata(folder) {
        let _ = fchown(file, Some(owner.uid()), Some(owner.gid()));
    }
}

/// Whether files can be made in `folder`; it is made where it is not there yet.
pub fn check_writable(folder: &Path) -> io::Result<()> {
    make_folder(folder)?;
    tempfile::Builder::new().prefix(".check-").tempfile_in(folder).map(drop)
}

/// The same as far as it can be told without making `folder`: where it is not there yet, whether it could be made. A
/// check by root must not leave a folder of root's to a service that runs as another user.
pub fn would_be_writable(folder: &Path) -> io::Result<()> {
    match fs::metadata(folder) {
        Ok(_) => check_writable(folder),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if fs::symlink_metadata(folder).is_ok() {
                return Err(io::Error::other("it is a link that leads nowhere"));
            }
            let parent = folder.parent().filter(|parent| *parent != Path::new(""));
            could_hold(parent.unwrap_or(Path::new(".")))
        }
        Err(error) => Err(error),
    }
}

/// Whether a folder could be made in `folder`, or in the nearest one above that is there.
fn could_hold(folder: &Path) -> io::Result<()> {
    match fs::metadata(folder) {
        Ok(metadata) if metadata.is_dir() => {
            rustix::fs::access(folder, Access::WRITE_OK | Access::EXEC_OK).map_err(Into::into)
        }
        Ok(_) => Err(io::ErrorKind::NotADirectory.into()),
        Err(error) => match folder.parent() {
            Some(parent) if error.kind() == io::ErrorKind::NotFound => {
                could_hold(if parent == Path::new("") { Path::new(".") } else { parent })
            }
            _ => Err(error),
        },
    }
}

/// Who beside us could read the tokens in `folder`, or put others in their place: one line each.
pub fn exposures(folder: &Path) -> Vec<String> {
    let mut exposures = Vec::new();
    exposures.extend(exposure(folder, 0o022, "700"));
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            exposures.extend(exposure(&path, 0o077, "600"));
        }
    }
    exposures
}

fn exposure(path: &Path, others: u32, wanted: &str) -> Option<String> {
    // What a symbolic link leads to counts; links have no rights of their own.
    let metadata = fs::metadata(path).ok()?;
    let (mode, owner) = (metadata.mode() & 0o7777, metadata.uid());
    let own = rustix::process::geteuid().as_raw();
    if owner != own && owner != 0 {
        return Some(format!("{} belongs to user {owner}, not to {own}", path.display()));
    }
    let shown = path.display();
    (mode & others != 0).then(|| format!("{shown} has mode {mode:o}; chmod {wanted} it"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::record::full;

    #[test]
    fn what_is_written_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let file = StateFile::new(dir.path().join("deep/state"), "one");
        assert_eq!(file.load().unwrap(), None);
        for saved in [Saved::default(), full()] {
            file.replace(&saved).unwrap();
            assert_eq!(file.load().unwrap(), Some(saved));
        }
        let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(file.path()), 0o600);
        assert_eq!(mode(dir.path().join("deep/state")), 0o700);
        let names: Vec<_> = fs::read_dir(dir.path().join("deep/state")).unwrap().collect();
        assert_eq!(names.len(), 1, "no temporary file is left: {names:?}");
    }

    #[test]
    fn what_root_makes_belongs_to_who_owns_the_folder() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::chown(dir.path(), Some(12_345), Some(12_346)).unwrap();
        let file = StateFile::new(dir.path(), "one");
        drop(file.try_lock().unwrap());
        file.replace(&full()).unwrap();
        for name in ["one.json", "one.lock"] {
            let metadata = fs::metadata(dir.path().join(name)).unwrap();
            assert_eq!((metadata.uid(), metadata.gid()), (12_345, 12_346), "{name}");
        }
    }

    #[test]
    fn a_file_that_makes_no_sense_is_kept_aside() {
        let dir = tempfile::tempdir().unwrap();
        let file = StateFile::new(dir.path(), "one");
        fs::write(file.path(), "{").unwrap();
        assert_eq!(file.load().unwrap_err().kind(), io::ErrorKind::InvalidData);
        let aside = file.set_aside(Timestamp::from_secs(0)).unwrap();
        assert!(aside.ends_with("one.json.corrupt-1970-01-01T00:00:00.000Z"));
        assert_eq!(fs::read_to_string(aside).unwrap(), "{");
        assert_eq!(file.load().unwrap(), None);
    }

    #[test]
    fn leftovers_of_a_kill_are_removed_and_nobody_elses() {
        let dir = tempfile::tempdir().unwrap();
        let file = StateFile::new(dir.path(), "one");
        file.replace(&full()).unwrap();
        for name in [".one-AbC123.tmp", ".one-two-AbC123.tmp", ".two-AbC123.tmp", "one.lock"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        file.remove_leftovers().unwrap();
        let mut names: Vec<_> =
            fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, [".one-two-AbC123.tmp", ".two-AbC123.tmp", "one.json", "one.lock"]);
    }

    #[test]
    fn what_others_could_read_or_replace_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let file = StateFile::new(dir.path(), "one");
        file.replace(&full()).unwrap();
        let set = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        set(dir.path(), 0o755);
        assert_eq!(exposures(dir.path()), Vec::<String>::new(), "files in it are private");
        set(dir.path(), 0o775);
        set(&file.path(), 0o640);
        let found = exposures(dir.path());
        assert!(found[0].ends_with("has mode 775; chmod 700 it"), "{found:?}");
        assert!(found[1].ends_with("one.json has mode 640; chmod 600 it"), "{found:?}");
        set(dir.path(), 0o700);
        set(&file.path(), 0o600);
        let beside = tempfile::tempdir().unwrap();
        let link = beside.path().join("link");
        std::os::unix::fs::symlink(dir.path(), &link).unwrap();
        assert_eq!(exposures(&link), Vec::<String>::new(), "a link has no rights of its own");
    }
}
