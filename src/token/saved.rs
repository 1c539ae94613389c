//! What a provider's token life leaves on disk, and how it is read and replaced.
//!
//! One JSON file a provider, `<state_dir>/<slug>.json`, mode 0600 in a folder of mode 0700; it is
//! replaced as a whole: temporary file, fsync, rename, fsync of the folder.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, fchown};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::secret::Secret;
use crate::shared::lease::Mark;

/// The largest state file that is read.
const STATE_FILE_MAX_BYTES: u64 = 1024 * 1024;
/// A temporary file is `.<slug>-`, so many random characters, and this.
const TEMPORARY_RANDOM_CHARS: usize = 6;
const TEMPORARY_SUFFIX: &str = ".tmp";
/// The version of the format.
const FORMAT: u32 = 1;
/// The most seeds that are remembered as superseded by a login.
const SUPERSEDED_MAX_SEEDS: usize = 8;

/// What is kept of a provider's tokens between runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// Counts the writes, so that a reader sees whether the file is newer than what it knows.
    pub revision: u64,
    /// The fencing number of the lease it was written under; 0 where no other host has a part in it.
    pub fence: u64,
    /// When it was written.
    pub saved_at: Timestamp,
    /// Hash of the seed that the chain began with, where it began with one.
    pub seed_hash: Option<String>,
    /// Hash of the refresh token that a login brought, where the chain began with that.
    pub login_hash: Option<String>,
    /// Hashes of the seeds that were known when the login was made: they begin no chain any more.
    pub superseded_seeds: Vec<String>,
    /// The refresh token to use next.
    pub refresh_token: Option<Secret>,
    /// The last access token.
    pub access: Option<SavedAccess>,
    /// A refresh that was begun and whose outcome is not known.
    pub pending: Option<Marker>,
    /// A permanent failure.
    pub failure: Option<SavedFailure>,
}

/// The last access token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedAccess {
    /// The token.
    pub token: Secret,
    /// When the request that got it was sent.
    pub obtained_at: Timestamp,
    /// When it expires.
    pub expires_at: Timestamp,
    /// When to refresh it.
    pub refresh_at: Timestamp,
}

/// Written before a refresh and taken away by its outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// Hash of the refresh token that is being used up.
    pub refresh_token_hash: String,
    /// When, in RFC 3339.
    pub at: Timestamp,
}

/// A permanent failure and what it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedFailure {
    /// Hash of the refresh token that was refused.
    pub refresh_token_hash: String,
    /// Hash of the rest of the request: a changed client ends the failure.
    pub client_hash: String,
    /// What happened, as in the log.
    pub what: String,
    /// When to try again.
    pub retry_at: Timestamp,
    /// The answer to the refresh before had gone missing.
    #[serde(default, skip_serializing_if = "is_false")]
    pub answer_lost: bool,
    /// The chain's refresh token was refused, and the seed is tried in its place.
    #[serde(default, skip_serializing_if = "is_false")]
    pub seed_is_next: bool,
}

/// The file's JSON. Secrets are plain text here and nowhere else.
#[derive(Serialize, Deserialize)]
struct Image {
    format: u32,
    revision: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    fence: u64,
    saved_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seed_hash: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    login_hash: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    superseded_seeds: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refresh_token: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    access: Option<ImageAccess>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pending: Option<Marker>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failure: Option<SavedFailure>,
}

#[derive(Serialize, Deserialize)]
struct ImageAccess {
    token: String,
    obtained_at: Timestamp,
    expires_at: Timestamp,
    refresh_at: Timestamp,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_false(it: &bool) -> bool {
    !it
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Saved {
    /// Where it stands in the row of what was written.
    pub fn mark(&self) -> Mark {
        Mark { fence: self.fence, generation: self.revision }
    }

    /// Reads the file's text. The error says where and what, and holds none of the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let image: Image = serde_json::from_str(text).map_err(|error| {
            // The error's own words may quote the text, which holds tokens.
            format!(
                "line {}, column {}: {:?} error",
                error.line(),
                error.column(),
                error.classify()
            )
        })?;
        if image.format != FORMAT {
            return Err(format!("format {} is not known to this version", image.format));
        }
        let filled = |text: Option<String>| text.filter(|text| !text.is_empty()).map(Secret::new);
        Ok(Self {
            revision: image.revision,
            fence: image.fence,
            saved_at: image.saved_at,
            seed_hash: image.seed_hash,
            login_hash: image.login_hash,
            superseded_seeds: image.superseded_seeds,
            refresh_token: filled(image.refresh_token),
            access: image.access.map(|access| SavedAccess {
                token: Secret::new(access.token),
                obtained_at: access.obtained_at,
                expires_at: access.expires_at,
                refresh_at: access.refresh_at,
            }),
            pending: image.pending,
            failure: image.failure,
        })
    }

    /// The file's text.
    pub fn to_json(&self) -> Secret {
        let image = Image {
            format: FORMAT,
            revision: self.revision,
            fence: self.fence,
            saved_at: self.saved_at,
            seed_hash: self.seed_hash.clone(),
            login_hash: self.login_hash.clone(),
            superseded_seeds: self.superseded_seeds.clone(),
            refresh_token: self.refresh_token.as_ref().map(|token| token.expose().to_owned()),
            access: self.access.as_ref().map(|access| ImageAccess {
                token: access.token.expose().to_owned(),
                obtained_at: access.obtained_at,
                expires_at: access.expires_at,
                refresh_at: access.refresh_at,
            }),
            pending: self.pending.clone(),
            failure: self.failure.clone(),
        };
        let json =
            serde_json::to_string_pretty(&image).expect("texts and numbers always serialize");
        Secret::new(json)
    }

    /// Notes that the chain begins with `seed`.
    pub fn begin_with_seed(&mut self, seed: &Secret) {
        self.seed_hash = Some(seed.hash());
        self.login_hash = None;
        self.superseded_seeds.clear();
    }

    /// Notes that a login took the place of the seed with this hash.
    pub fn supersede_seed(&mut self, hash: String) {
        if !self.superseded_seeds.contains(&hash) {
            self.superseded_seeds.push(hash);
        }
        if self.superseded_seeds.len() > SUPERSEDED_MAX_SEEDS {
            self.superseded_seeds.remove(0);
        }
    }

    /// Whether the seed with this hash began the chain, or was superseded by the login that did.
    pub fn knows_seed(&self, hash: &str) -> bool {
        self.seed_hash.as_deref() == Some(hash)
            || self.superseded_seeds.iter().any(|one| one == hash)
    }
}

/// One provider's place in the state folder.
#[derive(Clone, Debug)]
pub struct StateFile {
    folder: PathBuf,
    slug: String,
}

/// Held while a refresh runs, so that two processes never refresh one provider at once. Released
/// when dropped, or by the system when the process ends.
#[derive(Debug)]
pub struct StateLock(#[expect(dead_code, reason = "held for its lock")] File);

/// What a try for the lock came to.
#[derive(Debug)]
pub enum Locking {
    /// It is ours.
    Ours(StateLock),
    /// Another process is refreshing.
    Theirs,
}

impl StateFile {
    /// The place of the provider called `slug`.
    pub fn new(folder: impl Into<PathBuf>, slug: impl Into<String>) -> Self {
        Self { folder: folder.into(), slug: slug.into() }
    }

    /// The provider's slug.
    pub fn slug(&self) -> &str {
        &self.slug
    }

    /// The file itself.
    pub fn path(&self) -> PathBuf {
        self.folder.join(format!("{}.json", self.slug))
    }

    /// Reads the file; None where there is none. A file that can't be understood is an
    /// `InvalidData` error.
    pub fn load(&self) -> io::Result<Option<Saved>> {
        let path = self.path();
        let metadata = match fs::metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
        if !metadata.is_file() {
            // Reading a pipe would wait for ever.
            return Err(invalid("it is not a regular file".to_owned()));
        }
        let length = metadata.len();
        if length > STATE_FILE_MAX_BYTES {
            return Err(invalid(format!("{length} bytes are no state file")));
        }
        Saved::parse(&fs::read_to_string(path)?).map(Some).map_err(invalid)
    }

    /// Replaces the file by `saved`.
    pub fn replace(&self, saved: &Saved) -> io::Result<()> {
        make_folder(&self.folder)?;
        let mut file = tempfile::Builder::new()
            .prefix(&self.temporary_prefix())
            .rand_bytes(TEMPORARY_RANDOM_CHARS)
            .suffix(TEMPORARY_SUFFIX)
            .tempfile_in(&self.folder)?;
        give_to_owner(file.as_file(), &self.folder);
        file.write_all(saved.to_json().expose().as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(self.path()).map_err(|error| error.error)?;
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

    /// Tries for the lock without waiting.
    pub fn try_lock(&self) -> io::Result<Locking> {
        make_folder(&self.folder)?;
        let path = self.folder.join(format!("{}.lock", self.slug));
        let file = File::options().create(true).write(true).truncate(false).open(path)?;
        give_to_owner(&file, &self.folder);
        match file.try_lock() {
            Ok(()) => Ok(Locking::Ours(StateLock(file))),
            Err(TryLockError::WouldBlock) => Ok(Locking::Theirs),
            Err(TryLockError::Error(error)) => Err(error),
        }
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
    let metadata = fs::symlink_metadata(path).ok()?;
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

    fn full() -> Saved {
        let at = Timestamp::from_millis(1_800_000_000_123);
        Saved {
            revision: 3,
            fence: 2,
            saved_at: at,
            seed_hash: Some("h".into()),
            login_hash: Some("l".into()),
            superseded_seeds: vec!["s".into()],
            refresh_token: Some(Secret::new("rt")),
            access: Some(SavedAccess {
                token: Secret::new("at"),
                obtained_at: at,
                expires_at: at.plus_millis(60_000),
                refresh_at: at.plus_millis(30_000),
            }),
            pending: Some(Marker { refresh_token_hash: "p".into(), at }),
            failure: Some(SavedFailure {
                refresh_token_hash: "f".into(),
                client_hash: "c".into(),
                answer_lost: true,
                seed_is_next: true,
                what: "400 Bad Request (invalid_grant)".into(),
                retry_at: at,
            }),
        }
    }

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
    fn superseded_seeds_on_both_sides_of_their_limit() {
        let mut saved = Saved::default();
        for number in 0..=SUPERSEDED_MAX_SEEDS {
            saved.supersede_seed(number.to_string());
            saved.supersede_seed(number.to_string());
        }
        assert_eq!(saved.superseded_seeds.len(), SUPERSEDED_MAX_SEEDS);
        assert!(!saved.knows_seed("0") && saved.knows_seed("1") && saved.knows_seed("8"));
        saved.begin_with_seed(&Secret::new("seed"));
        assert!(saved.knows_seed(&Secret::new("seed").hash()) && !saved.knows_seed("8"));
        assert_eq!(saved.login_hash, None);
    }

    #[test]
    fn every_truncation_is_refused_and_quotes_nothing() {
        let text = full().to_json();
        let text = text.expose();
        for end in 0..text.len() - 1 {
            let error = Saved::parse(&text[..end]).unwrap_err();
            assert!(!error.contains("rt"), "{error}");
        }
        let error = Saved::parse(&text.replace("\"rt\"", "[\"rt\"]")).unwrap_err();
        assert!(!error.contains("rt"), "{error}");
        assert!(Saved::parse(&text.replace("\"format\": 1", "\"format\": 2")).is_err());
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
    fn what_is_not_a_regular_file_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let file = StateFile::new(dir.path(), "one");
        fs::create_dir(file.path()).unwrap();
        assert_eq!(file.load().unwrap_err().kind(), io::ErrorKind::InvalidData);
        file.set_aside(Timestamp::from_secs(0)).unwrap();
        file.replace(&full()).unwrap();
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
    }

    #[test]
    fn a_file_over_the_limit_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let file = StateFile::new(dir.path(), "one");
        let text = full().to_json();
        let padded = |length: u64| {
            let mut padded = text.expose().to_owned();
            padded.push_str(&" ".repeat(usize::try_from(length).unwrap() - padded.len()));
            fs::write(file.path(), padded).unwrap();
        };
        padded(STATE_FILE_MAX_BYTES);
        assert!(file.load().is_ok());
        padded(STATE_FILE_MAX_BYTES + 1);
        assert!(file.load().is_err());
    }

    #[test]
    fn the_lock_is_exclusive_until_it_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let file = StateFile::new(dir.path(), "one");
        let held = file.try_lock().unwrap();
        assert!(matches!(held, Locking::Ours(_)));
        assert!(matches!(file.try_lock().unwrap(), Locking::Theirs));
        drop(held);
        assert!(matches!(file.try_lock().unwrap(), Locking::Ours(_)));
    }
}
