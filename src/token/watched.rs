//! A credential in a file that another program keeps: read again whenever the file changes, never written, never
//! refreshed.
//!
//! `content` parses the file, and `expiry` the end of the token.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use log::{error, info, warn};

use crate::clock::{Due, Moment, Timestamp};
use crate::config::secret_file::text_of;
use crate::config::{FileFormat, WatchedFile};
use crate::regular_file;
use crate::regular_file::stamp::{Seen, Stamp};
use crate::secret::Secret;
use crate::token::places;
use crate::token::store::{Generation, PostingKey, TokenStore};

mod content;
mod fault;
mod mount;

use content::Content;
use fault::{FileFault, Why, detached};
pub(crate) use fault::{Unavailable, WATCHED_FILE_MAX_BYTES};

/// The time for which the last credential serves after its file is gone or unreadable.
pub(crate) const GONE_FILE_GRACE_MS: u64 = 60_000;

/// The current credential of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The credential itself.
    pub secret: Secret,
    /// The time from which it must not be sent.
    pub expires_at: Option<Timestamp>,
    /// Grows with each change of the file.
    pub generation: Generation,
    /// Names the account: by the claims of a JWT; else by the credential itself, which may be of another account after
    /// each change.
    pub origin: u64,
}

/// A watched file.
#[derive(Debug)]
pub struct Watched {
    /// The configured path.
    own: PathBuf,
    form: FileFormat,
    unsaved: Option<Unsaved>,
    last: Mutex<Last>,
}

/// The posting of a refresher that could not store its token, for a provider that is not refreshed any more.
#[derive(Debug)]
pub struct Unsaved {
    /// The postings of all refreshers.
    pub store: Arc<TokenStore>,
    /// The key of that refresher.
    pub key: PostingKey,
}

impl Unsaved {
    /// The token, until the file holds it.
    fn content(&self) -> Option<Content> {
        let posting = self.store.read(self.key);
        let token = posting.token.as_ref().filter(|_| posting.disk_error.is_some())?;
        let (secret, expires_at) = (token.secret.clone(), Some(token.expires.wall));
        Some(Content { secret, expires_at, doubt: None })
    }
}

/// The last state of the file.
#[derive(Debug, Default)]
struct Last {
    /// The path of the file; a stored token may be in the file of another provider that shares its chain.
    path: PathBuf,
    /// The stamp of the file that was read last.
    seen: Option<Seen>,
    kept: Option<Kept>,
    generation: Generation,
    /// The oddity of its content, if there is one.
    doubt: Option<String>,
    /// True if the file was replaced and its mount does not show that here.
    is_detached: bool,
    failing: Option<Failing>,
}

/// A failure to read the file after an earlier success.
#[derive(Debug)]
struct Failing {
    fault: FileFault,
    /// The time until which the earlier content serves.
    until: Due,
    is_over: bool,
}

impl Watched {
    /// Watches `path`.
    pub fn new(path: impl Into<PathBuf>, form: FileFormat) -> Self {
        let own = path.into();
        let last = Last { path: own.clone(), ..Last::default() };
        Self { own, form, unsaved: None, last: Mutex::new(last) }
    }

    /// Watches the file of a provider's credential. A stored token is looked for in its chain's file.
    pub fn of(file: &WatchedFile, unsaved: Option<Unsaved>) -> Self {
        let watched = Self { unsaved, ..Self::new(&file.path, file.form.clone()) };
        watched.find_again(&mut watched.last());
        watched
    }

    /// True if it watches `file`.
    pub fn is_of(&self, file: &WatchedFile) -> bool {
        (&self.own, &self.form) == (&file.path, &file.form)
    }

    /// True if the file has the credential alone, which has no known end.
    pub fn is_plain(&self) -> bool {
        self.form == FileFormat::Text
    }

    /// The path of the file.
    pub fn path(&self) -> PathBuf {
        self.last().path.clone()
    }

    /// Looks for the current file of a stored token: its chain moves to another file if a provider is renamed, or not
    /// refreshed any more. Returns true if the file has changed.
    fn find_again(&self, last: &mut Last) -> bool {
        let FileFormat::Stored { seed, client } = &self.form else { return false };
        let path = places::of_stored(&self.own, seed.as_ref(), client.as_deref());
        let is_elsewhere = path != last.path;
        last.path = path;
        is_elsewhere
    }

    fn last(&self) -> MutexGuard<'_, Last> {
        // Each change under the lock is complete in itself, so a poisoned lock can be taken over.
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The credential at `now`. While a file is being written, or is gone, the earlier content serves for a while.
    pub fn read(&self, now: Moment) -> Result<Kept, Unavailable> {
        let kept = self.newest(now)?;
        match kept.expires_at {
            Some(at) if at <= now.wall => {
                let last = self.last();
                let is_detached = last.is_detached;
                Err(self.unavailable(&last, Why::Expired { at, is_detached }))
            }
            _ => Ok(kept),
        }
    }

    /// As [`Watched::read`], even if the credential has expired.
    pub fn newest(&self, now: Moment) -> Result<Kept, Unavailable> {
        let mut last = self.last();
        if let Some(content) = self.unsaved.as_ref().and_then(Unsaved::content) {
            // Once the token is stored, the file is read anew.
            last.seen = None;
            Self::take(&mut last, content);
            Self::note(&mut last, None, now);
        } else {
            let mut outcome = self.look(&mut last, now.wall);
            if outcome.is_err() && self.find_again(&mut last) {
                outcome = self.look(&mut last, now.wall);
            }
            Self::note(&mut last, outcome.err(), now);
            if let Some(failing) = last.failing.as_ref().filter(|failing| failing.is_over) {
                return Err(self.unavailable(&last, Why::Unusable(failing.fault.clone())));
            }
        }
        let kept = last.kept.clone();
        kept.ok_or_else(|| self.unavailable(&last, Why::Unusable(FileFault::NoCredential)))
    }

    fn unavailable(&self, last: &Last, why: Why) -> Unavailable {
        let is_stored = matches!(self.form, FileFormat::Stored { .. });
        Unavailable { path: last.path.clone(), is_stored, why }
    }

    /// A fault that somebody should mend though there is a credential to send; as of the last [`Watched::read`].
    pub fn warning(&self) -> Option<String> {
        let last = self.last();
        let path = last.path.display();
        let failing = last.failing.as_ref().map(|failing| {
            format!(
                "{path} {}; its last credential serves until {}",
                failing.fault, failing.until.wall
            )
        });
        let detached = last.is_detached.then(|| detached(&last.path));
        let doubt = last.doubt.as_ref().map(|doubt| format!("{path} {doubt}"));
        failing.or(detached).or(doubt)
    }

    /// Notes whether the file could be read, and logs a change of that.
    fn note(last: &mut Last, fault: Option<FileFault>, now: Moment) {
        let path = last.path.display();
        let Some(fault) = fault else {
            if last.failing.take().is_some() {
                info!("{path} can be read again");
            }
            return;
        };
        let until = Due::after(now, if last.kept.is_some() { GONE_FILE_GRACE_MS } else { 0 });
        let is_new = last.failing.is_none();
        let begun = Failing { fault: fault.clone(), until, is_over: false };
        let failing = last.failing.get_or_insert(begun);
        failing.fault = fault;
        if is_new && last.kept.is_some() {
            let seconds = GONE_FILE_GRACE_MS / 1000;
            warn!("{path} {}; its last credential serves {seconds} s longer", failing.fault);
        }
        if !failing.is_over && failing.until.reached(now) {
            failing.is_over = true;
            if last.kept.is_some() {
                error!("{path} {}; its last credential is not sent any more", failing.fault);
            }
        }
    }

    /// Reads the file if it may differ from the one that was read last.
    fn look(&self, last: &mut Last, now: Timestamp) -> Result<(), FileFault> {
        let metadata = fs::metadata(&last.path).map_err(FileFault::unreadable)?;
        let stamp = Stamp::of(&metadata);
        let before = last.seen.take_if(|seen| seen.stamp != stamp || !seen.is_settled());
        if last.seen.is_some() {
            return Ok(());
        }
        if !metadata.is_file() || metadata.len() > WATCHED_FILE_MAX_BYTES {
            return Err(FileFault::NoSmallFile);
        }
        let bytes = regular_file::read(&last.path).map_err(FileFault::unreadable)?;
        let text = text_of(bytes).map_err(FileFault::unreadable)?;
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
            let (origin, generation) = (content::origin(&secret), last.generation);
            last.kept = Some(Kept { secret, expires_at, generation, origin });
        }
    }
}

#[cfg(test)]
mod tests;
