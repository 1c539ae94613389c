//! A credential in a file that another program keeps: read again whenever the file changes, never written, never
//! refreshed.
//!
//! A look at the file may hang with its disk, so one thread at a time looks, and no other one waits for it longer than for
//! a first token: it uses what is known. `look` looks, `content` parses the file, and `expiry` the end of the token.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use log::{error, info, warn};

use crate::clock::{Clock, Due, Moment, Timestamp};
use crate::config::{FIRST_TOKEN_WAIT, FileFormat, WatchedFile};
use crate::regular_file::stamp::Seen;
use crate::secret::Secret;
use crate::token::places;
use crate::token::store::{Generation, PostingKey, TokenStore};
use crate::token::waiting::SAID_AFTER_MS;

mod content;
mod fault;
mod look;
mod mount;

use content::Content;
pub(crate) use fault::Unavailable;
use fault::{FileFault, Why, detached};

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
    /// Tells of the end of a look.
    looked: Condvar,
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
    path: Arc<PathBuf>,
    /// The stamp of the file that was read last.
    seen: Option<Seen>,
    kept: Option<Kept>,
    generation: Generation,
    /// The oddity of its content, if there is one.
    doubt: Option<String>,
    /// True if the file was replaced and its mount does not show that here.
    is_detached: bool,
    failing: Option<Failing>,
    /// True while a thread looks at the file.
    is_looking: bool,
    /// The beginning of the last look.
    begun: Option<Moment>,
    /// Counts the looks that have ended.
    looks: u64,
    /// The threads that wait for the end of a look.
    waiting: usize,
}

impl Last {
    /// The beginning of the look under way.
    fn looks_since(&self) -> Option<Moment> {
        self.begun.filter(|_| self.is_looking)
    }
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
        let last = Last { path: Arc::new(own.clone()), ..Last::default() };
        Self { own, form, unsaved: None, last: Mutex::new(last), looked: Condvar::new() }
    }

    /// Watches the file of a provider's credential. A stored token is looked for in its chain's file.
    pub fn of(file: &WatchedFile, unsaved: Option<Unsaved>) -> Self {
        let watched = Self { unsaved, ..Self::new(&file.path, file.form.clone()) };
        if let Some(path) = watched.moved_from(&file.path) {
            watched.last().path = Arc::new(path);
        }
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
        self.last().path.to_path_buf()
    }

    /// The current file of a stored token, if it is not at `path` any more: its chain moves to another file if a provider
    /// is renamed, or not refreshed any more.
    fn moved_from(&self, path: &Path) -> Option<PathBuf> {
        let FileFormat::Stored { seed, client } = &self.form else { return None };
        let current = places::of_stored(&self.own, seed.as_ref(), client.as_deref());
        (current != path).then_some(current)
    }

    fn last(&self) -> MutexGuard<'_, Last> {
        // Each change under the lock is complete in itself, so a poisoned lock can be taken over.
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The credential at `now`, after a look at the file unless another thread looks. While a file is being written, or is
    /// gone, the earlier content serves for a while.
    pub fn read(&self, now: Moment) -> Result<Kept, Unavailable> {
        self.look(now);
        self.known(now)
    }

    /// As [`Watched::read`], even if the credential has expired.
    pub fn newest(&self, now: Moment) -> Result<Kept, Unavailable> {
        self.look(now);
        self.newest_known(now)
    }

    /// As [`Watched::read`], for a request. If another thread looks, and the known credential is not enough, it waits for
    /// that look as for a first token.
    pub fn wait(
        &self,
        clock: &Clock,
        is_enough: impl Fn(&Kept) -> bool,
    ) -> Result<Kept, Unavailable> {
        let now = clock.now();
        if !self.look(now) {
            let known = self.known(now);
            if known.as_ref().is_ok_and(&is_enough) {
                return known;
            }
            self.wait_for_look(FIRST_TOKEN_WAIT, now);
            // The other thread may have looked before the file changed.
            let known = self.known(clock.now());
            if !known.as_ref().is_ok_and(&is_enough) {
                self.look(clock.now());
            }
        }
        // The look may have taken long.
        self.known(clock.now())
    }

    /// The credential at `now`, without a look at the file.
    pub fn known(&self, now: Moment) -> Result<Kept, Unavailable> {
        let kept = self.newest_known(now)?;
        match kept.expires_at {
            Some(at) if at <= now.wall => {
                let last = self.last();
                let is_detached = last.is_detached;
                Err(self.unavailable(&last, Why::Expired { at, is_detached }))
            }
            _ => Ok(kept),
        }
    }

    fn newest_known(&self, now: Moment) -> Result<Kept, Unavailable> {
        let mut last = self.last();
        if let Some(content) = self.unsaved_content() {
            // Once the token is stored, the file is read anew.
            last.seen = None;
            Self::take(&mut last, content);
            Self::note(&mut last, None, now);
        } else {
            let since = last.looks_since();
            if let Some(since) = since.filter(|since| ms_since(*since, now) >= SAID_AFTER_MS) {
                Self::note(&mut last, Some(FileFault::Silent), since);
            }
            Self::end_grace(&mut last, now);
            if let Some(failing) = last.failing.as_ref().filter(|failing| failing.is_over) {
                return Err(self.unavailable(&last, Why::Unusable(failing.fault.clone())));
            }
        }
        let kept = last.kept.clone();
        kept.ok_or_else(|| self.unavailable(&last, Why::Unusable(FileFault::NotRead)))
    }

    fn unsaved_content(&self) -> Option<Content> {
        self.unsaved.as_ref().and_then(Unsaved::content)
    }

    fn unavailable(&self, last: &Last, why: Why) -> Unavailable {
        let is_stored = matches!(self.form, FileFormat::Stored { .. });
        Unavailable { path: last.path.to_path_buf(), is_stored, why }
    }

    /// A fault that somebody should mend though there is a credential to send; as of the last [`Watched::known`].
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

    /// Notes whether the file could be read at `since`, and logs a change of that.
    fn note(last: &mut Last, fault: Option<FileFault>, since: Moment) {
        let path = last.path.display();
        let Some(fault) = fault else {
            if last.failing.take().is_some() {
                info!("{path} can be read again");
            }
            return;
        };
        let until = Due::after(since, if last.kept.is_some() { GONE_FILE_GRACE_MS } else { 0 });
        let is_new = last.failing.is_none();
        let begun = Failing { fault: fault.clone(), until, is_over: false };
        let failing = last.failing.get_or_insert(begun);
        failing.fault = fault;
        if is_new && last.kept.is_some() {
            let seconds = GONE_FILE_GRACE_MS / 1000;
            warn!("{path} {}; its last credential serves {seconds} s longer", failing.fault);
        }
    }

    /// Notes, and logs, that the earlier content has served for long enough.
    fn end_grace(last: &mut Last, now: Moment) {
        let Some(failing) = last.failing.as_mut().filter(|failing| !failing.is_over) else {
            return;
        };
        failing.is_over = failing.until.reached(now);
        if failing.is_over && last.kept.is_some() {
            let path = last.path.display();
            error!("{path} {}; its last credential is not sent any more", failing.fault);
        }
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

fn ms_since(earlier: Moment, now: Moment) -> u64 {
    now.steady_ms.saturating_sub(earlier.steady_ms)
}

#[cfg(test)]
mod tests;
