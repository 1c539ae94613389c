//! A credential in a file that somebody else keeps: read again whenever the file changes, never written, never refreshed.
//!
//! What is in the file is told by `content`, when a token ends by `expiry`.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use log::{error, info, warn};

use crate::clock::{Due, Moment, Timestamp};
use crate::config::secret_file::text_of;
use crate::config::{Form, WatchedFile};
use crate::regular_file;
use crate::secret::Secret;
use crate::token::places;
use crate::token::store::{Generation, PostingKey, TokenStore};

mod content;
mod mount;

use content::Content;

/// The largest file that is read.
pub const WATCHED_FILE_MAX_BYTES: u64 = 1024 * 1024;
/// How long the last credential serves where its file is gone or can't be read.
pub const GONE_FILE_GRACE_MS: u64 = 60_000;
/// A file may be written twice within what its times can tell apart (2 s on FAT, 1 s on some network disks). So long it is
/// read again though it looks the same.
const TIMES_SETTLE_MS: i64 = 2_000;

/// A credential as the file has it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// What is sent.
    pub secret: Secret,
    /// When it must not be sent any more.
    pub expires_at: Option<Timestamp>,
    /// Rises with each change of the file.
    pub generation: Generation,
}

/// A watched file.
#[derive(Debug)]
pub struct Watched {
    /// Where the configuration says that it is.
    own: PathBuf,
    form: Form,
    unsaved: Option<Unsaved>,
    last: Mutex<Last>,
}

/// Where a refresher publishes the token that it could not store, of a provider that is not refreshed any more.
#[derive(Debug)]
pub struct Unsaved {
    /// All that refreshers publish.
    pub store: Arc<TokenStore>,
    /// That of the refresher.
    pub key: PostingKey,
}

impl Unsaved {
    /// The token, as long as the file lacks it.
    fn content(&self) -> Option<Content> {
        let posting = self.store.read(self.key);
        let token = posting.token.as_ref().filter(|_| posting.disk_error.is_some())?;
        let (secret, expires_at) = (token.secret.clone(), Some(token.expires.wall));
        Some(Content { secret, expires_at, doubt: None })
    }
}

/// What is known of the file.
#[derive(Debug, Default)]
struct Last {
    /// Where the file is; a stored token may be in the file of another provider that shares its chain.
    path: PathBuf,
    /// The state of the file that was read last.
    seen: Option<Seen>,
    kept: Option<Kept>,
    generation: Generation,
    /// What is odd about its content.
    doubt: Option<String>,
    /// The file was replaced where that can't be seen from here.
    is_detached: bool,
    failing: Option<Failing>,
}

#[derive(Debug)]
struct Seen {
    stamp: Stamp,
    first_at: Timestamp,
    read_at: Timestamp,
}

/// The file can't be read, and something was read before.
#[derive(Debug)]
struct Failing {
    why: String,
    /// Up to when that serves.
    until: Due,
    is_over: bool,
}

/// What tells one state of the file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    links: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            links: metadata.nlink(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// When the file was last written, by its own times.
    fn written_at(&self) -> Timestamp {
        Timestamp::from_secs(self.modified.0.max(self.changed.0).saturating_add(1))
    }
}

impl Seen {
    /// Whether a file that looks as it did then is the same: so long after its times that a later write would have others.
    fn is_settled(&self) -> bool {
        let since = |earlier: Timestamp| self.read_at.millis_since(earlier);
        since(self.first_at) >= TIMES_SETTLE_MS && since(self.stamp.written_at()) >= TIMES_SETTLE_MS
    }
}

impl Watched {
    /// Watches `path`.
    pub fn new(path: impl Into<PathBuf>, form: Form) -> Self {
        let own = path.into();
        let last = Last { path: own.clone(), ..Last::default() };
        Self { own, form, unsaved: None, last: Mutex::new(last) }
    }

    /// Watches the file of a provider's credential. A stored token is looked for where its chain is.
    pub fn of(file: &WatchedFile, unsaved: Option<Unsaved>) -> Self {
        let watched = Self { unsaved, ..Self::new(&file.path, file.form.clone()) };
        watched.find_again(&mut watched.last());
        watched
    }

    /// Whether it watches `file`.
    pub fn is_of(&self, file: &WatchedFile) -> bool {
        (&self.own, &self.form) == (&file.path, &file.form)
    }

    /// Which file it is.
    pub fn path(&self) -> PathBuf {
        self.last().path.clone()
    }

    /// Looks where a stored token is now: its chain moves to another file where a provider is renamed, or refreshed no more.
    /// Whether that is elsewhere than before.
    fn find_again(&self, last: &mut Last) -> bool {
        let Form::Stored { seed, client } = &self.form else { return false };
        let path = places::of_stored(&self.own, seed.as_ref(), client.as_deref());
        let is_elsewhere = path != last.path;
        last.path = path;
        is_elsewhere
    }

    fn last(&self) -> MutexGuard<'_, Last> {
        // Every change of it is complete in itself.
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The credential at `now`; the error says why there is none, and holds nothing of the file. A file that is just being
    /// written, or is gone, leaves what was read before for a while.
    pub fn read(&self, now: Moment) -> Result<Kept, String> {
        let kept = self.newest(now)?;
        match kept.expires_at {
            Some(at) if at <= now.wall => Err(self.expired(at)),
            _ => Ok(kept),
        }
    }

    /// What [`Watched::read`] gives, whether or not it has expired.
    pub fn newest(&self, now: Moment) -> Result<Kept, String> {
        let mut last = self.last();
        if let Some(content) = self.unsaved.as_ref().and_then(Unsaved::content) {
            // Once it is stored, the file is read anew.
            last.seen = None;
            Self::take(&mut last, content);
            Self::note(&mut last, None, now);
            return last
                .kept
                .clone()
                .ok_or_else(|| self.unusable(&last.path, "holds no credential"));
        }
        let mut outcome = self.look(&mut last, now.wall);
        if outcome.is_err() && self.find_again(&mut last) {
            outcome = self.look(&mut last, now.wall);
        }
        Self::note(&mut last, outcome.err(), now);
        if let Some(failing) = last.failing.as_ref().filter(|failing| failing.is_over) {
            return Err(self.unusable(&last.path, &failing.why));
        }
        last.kept.clone().ok_or_else(|| self.unusable(&last.path, "holds no credential"))
    }

    /// What somebody should see to though there is a credential to send; as of the last [`Watched::read`].
    pub fn warning(&self) -> Option<String> {
        let last = self.last();
        let path = last.path.display();
        let failing = last.failing.as_ref().map(|failing| {
            format!(
                "{path} {}; what it held before serves until {}",
                failing.why, failing.until.wall
            )
        });
        let detached = last.is_detached.then(|| detached(&last.path));
        let doubt = last.doubt.as_ref().map(|doubt| format!("{path} {doubt}"));
        failing.or(detached).or(doubt)
    }

    /// Notes whether the file could be read, and says when that changes.
    fn note(last: &mut Last, failure: Option<String>, now: Moment) {
        let path = last.path.display();
        let Some(why) = failure else {
            if last.failing.take().is_some() {
                info!("{path} can be read again");
            }
            return;
        };
        let until = Due::after(now, if last.kept.is_some() { GONE_FILE_GRACE_MS } else { 0 });
        let is_new = last.failing.is_none();
        let failing =
            last.failing.get_or_insert(Failing { why: String::new(), until, is_over: false });
        failing.why = why;
        if is_new && last.kept.is_some() {
            let seconds = GONE_FILE_GRACE_MS / 1000;
            warn!("{path} {}; what it held before serves {seconds} s longer", failing.why);
        }
        if !failing.is_over && failing.until.reached(now) {
            failing.is_over = true;
            if last.kept.is_some() {
                error!("{path} {}; what it held before is not sent any more", failing.why);
            }
        }
    }

    /// Reads the file if it may be another than the one that was read last.
    fn look(&self, last: &mut Last, now: Timestamp) -> Result<(), String> {
        let metadata =
            fs::metadata(&last.path).map_err(|error| format!("can't be read: {error}"))?;
        let stamp = Stamp::of(&metadata);
        let before = last.seen.take_if(|seen| seen.stamp != stamp || !seen.is_settled());
        if last.seen.is_some() {
            return Ok(());
        }
        if !metadata.is_file() || metadata.len() > WATCHED_FILE_MAX_BYTES {
            return Err(format!("is no file of at most {WATCHED_FILE_MAX_BYTES} bytes"));
        }
        let bytes =
            regular_file::read(&last.path).map_err(|error| format!("can't be read: {error}"))?;
        let text = text_of(bytes).map_err(|error| format!("can't be read: {error}"))?;
        let content = content::parse(&text, &self.form)?;
        let first_at = match before {
            Some(before) if before.stamp == stamp => before.first_at,
            _ => now,
        };
        last.seen = Some(Seen { stamp, first_at, read_at: now });
        Self::take(last, content);
        let was_detached = std::mem::replace(
            &mut last.is_detached,
            stamp.links == 0 && mount::is_mount_point(&last.path),
        );
        if last.is_detached && !was_detached {
            warn!("{}", detached(&last.path));
        }
        Ok(())
    }

    fn take(last: &mut Last, content: Content) {
        let Content { secret, expires_at, doubt } = content;
        if doubt.is_some() && doubt != last.doubt {
            warn!("{} {}", last.path.display(), doubt.as_deref().unwrap_or_default());
        }
        last.doubt = doubt;
        let is_known = |kept: &Kept| kept.secret == secret && kept.expires_at == expires_at;
        if !last.kept.as_ref().is_some_and(is_known) {
            last.generation += 1;
            last.kept = Some(Kept { secret, expires_at, generation: last.generation });
        }
    }

    fn unusable(&self, path: &Path, why: &str) -> String {
        let path = path.display();
        match self.form {
            Form::Text | Form::Json(_) => format!("{path} {why}"),
            Form::Stored { .. } => format!(
                "auto_refresh_config.enabled is false, and no stored token can be used: {path} {why}"
            ),
        }
    }

    fn expired(&self, at: Timestamp) -> String {
        let last = self.last();
        let path = last.path.display();
        match self.form {
            Form::Stored { .. } => format!(
                "the stored token expired at {at}, and auto_refresh_config.enabled is false, so it is not refreshed"
            ),
            _ if last.is_detached => {
                format!("the token in {path} expired at {at}; {}", detached(&last.path))
            }
            _ => format!(
                "the token in {path} expired at {at}; the program that keeps this file has to refresh it"
            ),
        }
    }
}

/// What is said of a file that was replaced where its mount does not show it.
fn detached(path: &Path) -> String {
    format!(
        "{} was replaced behind a mount of this one file, so that what is new in it can't be seen; mount the folder that \
         holds it",
        path.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Fields;

    const START: Timestamp = Timestamp::from_secs(1_800_000_000);

    /// So many milliseconds after the start, by both clocks.
    fn at(millis: u64) -> Moment {
        let wall = START.plus_millis(i64::try_from(millis).unwrap());
        Moment { wall, steady_ms: millis }
    }

    fn claude() -> Form {
        let path = |last: &str| vec!["claudeAiOauth".to_owned(), last.to_owned()];
        Form::Json(Fields {
            access_token: path("accessToken"),
            expires_at: path("expiresAt"),
            expires_at_is_written: false,
            zone: None,
        })
    }

    fn claude_file(token: &str, expires_at: &str) -> String {
        format!(
            r#"{{"claudeAiOauth":{{"accessToken":"{token}","refreshToken":"r","expiresAt":{expires_at},"scopes":["a"]}}}}"#
        )
    }

    #[track_caller]
    fn sent(watched: &Watched, millis: u64) -> String {
        watched.read(at(millis)).unwrap().secret.expose().to_owned()
    }

    #[test]
    fn a_text_is_read_again_when_it_changes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let watched = Watched::new(&path, Form::Text);
        assert!(watched.read(at(0)).unwrap_err().contains("can't be read"));
        fs::write(&path, "one\n").unwrap();
        let first = watched.read(at(0)).unwrap();
        assert_eq!((first.secret.expose(), first.generation), ("one", 1));
        assert_eq!(watched.read(at(0)).unwrap(), first);
        fs::write(&path, "\u{feff}another\r\n").unwrap();
        let second = watched.read(at(0)).unwrap();
        assert_eq!((second.secret.expose(), second.generation), ("another", 2));
    }

    #[test]
    fn a_credential_whose_file_is_gone_serves_a_minute_longer_and_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let utf_16: &[u8] = b"\xff\xfeo\0n\0e\0";
        let breaks: [(&str, &dyn Fn(), &str); 5] = [
            ("removed", &|| fs::remove_file(&path).unwrap(), "can't be read: No such file"),
            ("emptied", &|| fs::write(&path, "").unwrap(), "credential that is empty"),
            ("blank", &|| fs::write(&path, "a b").unwrap(), "no header may hold"),
            ("UTF-16", &|| fs::write(&path, utf_16).unwrap(), "UTF-16"),
            (
                "a folder",
                &|| {
                    fs::remove_file(&path).unwrap();
                    fs::create_dir(&path).unwrap();
                },
                "is no file",
            ),
        ];
        for (what, break_it, part) in breaks {
            let watched = Watched::new(&path, Form::Text);
            fs::write(&path, "one").unwrap();
            assert_eq!((sent(&watched, 0).as_str(), watched.warning()), ("one", None));
            break_it();
            assert_eq!(sent(&watched, 1_000), "one", "{what}");
            assert!(watched.warning().unwrap().contains(part), "{what}: {:?}", watched.warning());
            assert_eq!(sent(&watched, 1_000 + GONE_FILE_GRACE_MS - 1), "one", "{what}");
            let why = watched.read(at(1_000 + GONE_FILE_GRACE_MS)).unwrap_err();
            assert!(why.contains(part), "{what}: {why}");
            // The wall clock alone, stepped back, brings nothing back.
            let stepped = Moment { wall: START, ..at(2_000 + GONE_FILE_GRACE_MS) };
            assert!(watched.read(stepped).is_err(), "{what}");
            // It is there again.
            let _ = fs::remove_dir(&path);
            fs::write(&path, "two").unwrap();
            assert_eq!(sent(&watched, 3_000 + GONE_FILE_GRACE_MS), "two", "{what}");
            assert_eq!(watched.warning(), None, "{what}");
        }
    }

    #[test]
    fn a_file_that_is_back_within_the_minute_begins_no_shorter_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let watched = Watched::new(&path, Form::Text);
        for round in 0..3 {
            fs::write(&path, "one").unwrap();
            assert_eq!(sent(&watched, round * 50_000), "one");
            fs::remove_file(&path).unwrap();
            assert_eq!(sent(&watched, round * 50_000 + 40_000), "one");
        }
    }

    #[test]
    fn a_file_that_is_written_twice_within_its_times_is_read_twice() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let watched = Watched::new(&path, Form::Text);
        // The same inode and length, on a disk whose times show both writes as one.
        let write = |text: &str| {
            fs::write(&path, text).unwrap();
            let stamp = Stamp::of(&fs::metadata(&path).unwrap());
            if let Some(seen) = watched.last().seen.as_mut() {
                seen.stamp = stamp;
            }
        };
        write("one");
        assert_eq!(sent(&watched, 0), "one");
        write("two");
        assert_eq!(sent(&watched, 900), "two");
        assert_eq!(sent(&watched, 2_000), "two");
        // It was looked at for longer than such writes take.
        write("six");
        assert_eq!(sent(&watched, 2_001), "two");
    }

    #[test]
    fn a_file_that_has_settled_is_not_read_again() {
        let stamp = |modified: i64| Stamp {
            device: 1,
            inode: 1,
            links: 1,
            length: 3,
            modified: (modified, 0),
            changed: (modified, 0),
        };
        let start = START.as_millis() / 1000;
        let seen = |modified: i64, first: u64, read: u64| Seen {
            stamp: stamp(modified),
            first_at: at(first).wall,
            read_at: at(read).wall,
        };
        // Old, and looked at for two seconds.
        assert!(!seen(start - 100, 0, 1_999).is_settled());
        assert!(seen(start - 100, 0, 2_000).is_settled());
        // Written at the start: its times may say the same for a write up to a second later.
        assert!(!seen(start, 0, 2_999).is_settled());
        assert!(seen(start, 0, 3_000).is_settled());
        // A server whose clock is ahead.
        assert!(!seen(start + 10, 0, 12_000).is_settled());
    }

    #[test]
    fn claude_codes_file_until_it_expires() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".credentials.json");
        let watched = Watched::new(&path, claude());
        fs::write(&path, claude_file("a", "1800000000001")).unwrap();
        assert_eq!(sent(&watched, 0), "a");
        let why = watched.read(at(1)).unwrap_err();
        assert!(why.contains("expired at 2027-01-15T08:00:00.001Z"), "{why}");
        // Its owner refreshes it; half of the write is not taken for all of it.
        let whole = claude_file("bb", "\"2027-01-15T09:00:00Z\"");
        fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        assert_eq!(sent(&watched, 0), "a");
        fs::write(&path, whole).unwrap();
        let renewed = watched.read(at(1)).unwrap();
        assert_eq!((renewed.secret.expose(), renewed.generation), ("bb", 2));
        fs::write(&path, r#"{"other":1}"#).unwrap();
        let fresh = Watched::new(&path, claude());
        assert!(
            fresh.read(at(0)).unwrap_err().ends_with("has no text at 'claudeAiOauth.accessToken'")
        );
    }

    #[test]
    fn an_expiry_that_nobody_understands_is_a_warning() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".credentials.json");
        let watched = Watched::new(&path, claude());
        fs::write(&path, claude_file("a", "\"soon\"")).unwrap();
        assert_eq!(sent(&watched, 0), "a");
        let warning = watched.warning().unwrap();
        assert!(warning.contains("holds no time that is known here"), "{warning}");
        assert!(!warning.contains("soon"), "nothing of the file is said: {warning}");
        fs::write(&path, claude_file("a", "1900000000")).unwrap();
        assert_eq!((sent(&watched, 0).as_str(), watched.warning()), ("a", None));
    }

    #[test]
    fn a_stored_token_serves_until_it_ends() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p.json");
        let mut saved = crate::record::full();
        saved.begin_with_seed(&Secret::new("seed"));
        saved.access.as_mut().unwrap().expires_at = at(10).wall;
        fs::write(&path, saved.to_json().expose()).unwrap();
        let access = saved.access.unwrap().token;
        let stored = |seed: Option<&str>| {
            let seed = seed.map(Secret::new);
            Watched::new(&path, Form::Stored { seed, client: None })
        };
        for seed in [None, Some("seed")] {
            assert_eq!(stored(seed).read(at(9)).unwrap().secret, access);
            let why = stored(seed).read(at(10)).unwrap_err();
            assert!(why.contains("enabled is false, so it is not refreshed"), "{why}");
        }
        let why = stored(Some("another")).read(at(9)).unwrap_err();
        assert!(why.contains("began with another refresh token"), "{why}");
        fs::remove_file(&path).unwrap();
        let why = stored(None).read(at(9)).unwrap_err();
        assert!(why.contains("no stored token can be used"), "{why}");
    }

    #[test]
    fn a_stored_token_is_followed_to_the_file_that_its_chain_moved_to() {
        let folder = tempfile::tempdir().unwrap();
        let (own, other) = (folder.path().join("p.json"), folder.path().join("q.json"));
        let mut saved = crate::record::full();
        saved.begin_with_seed(&Secret::new("seed"));
        saved.access.as_mut().unwrap().expires_at = at(200_000).wall;
        fs::write(&own, saved.to_json().expose()).unwrap();
        let form = Form::Stored { seed: Some(Secret::new("seed")), client: None };
        let watched = Watched::of(&WatchedFile { path: own.clone(), form, missing: None }, None);
        watched.read(at(0)).unwrap();
        fs::rename(&own, &other).unwrap();
        watched.read(at(1)).unwrap();
        // Long after what was read before would have served.
        watched.read(at(2 * GONE_FILE_GRACE_MS)).unwrap();
        assert_eq!(watched.path(), other);
        fs::rename(&other, &own).unwrap();
        watched.read(at(2 * GONE_FILE_GRACE_MS + 1)).unwrap();
        assert_eq!(watched.path(), own);
    }

    #[test]
    fn a_file_over_the_limit_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let at_limit = "k".repeat(usize::try_from(WATCHED_FILE_MAX_BYTES).unwrap());
        fs::write(&path, &at_limit).unwrap();
        assert!(Watched::new(&path, Form::Text).read(at(0)).is_ok());
        fs::write(&path, at_limit + "k").unwrap();
        assert!(Watched::new(&path, Form::Text).read(at(0)).is_err());
    }
}
