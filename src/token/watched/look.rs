//! Looks at the file: one at a time, here or on a thread of its own, with no lock held meanwhile.

use std::fs;
use std::mem;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use log::warn;

use crate::clock::{Moment, Timestamp};
use crate::config::secret_file::text_of;
use crate::regular_file;
use crate::regular_file::stamp::{Seen, Stamp};
use crate::thread::{self, Thread};
use crate::token::watched::content::{self, Content};
use crate::token::watched::fault::{FileFault, WATCHED_FILE_MAX_BYTES, detached};
use crate::token::watched::{Last, Watched, mount, ms_since};

/// The stack of a thread that looks at a file.
const STACK_BYTES: usize = 128 * 1024;

/// A look at the file, whose end is noted whatever comes of it.
pub(super) struct Look<W: Deref<Target = Watched>> {
    of: W,
    path: Arc<PathBuf>,
    seen: Option<Seen>,
    has_ended: bool,
}

impl<W: Deref<Target = Watched>> Drop for Look<W> {
    fn drop(&mut self) {
        if !self.has_ended {
            self.of.end_look(&mut self.of.last());
        }
    }
}

/// The outcome of a look.
enum Found {
    /// The file is as it was read last.
    Unchanged,
    /// Its new content.
    Read { seen: Seen, content: Content, is_detached: bool },
}

impl Watched {
    /// Looks at the file, unless another thread does so; false then.
    pub(super) fn look(&self, now: Moment) -> bool {
        if self.unsaved_content().is_some() {
            return true;
        }
        let look = Self::begin(self, now);
        let is_ours = look.is_some();
        if let Some(look) = look {
            look.make(now);
        }
        is_ours
    }

    /// Has another thread look at the file if the last look began `age_ms` ago or longer, because this one must not hang
    /// with its disk. True if it does.
    pub fn look_aside(self: &Arc<Self>, age_ms: u64, now: Moment) -> bool {
        let begun = self.last().begun;
        let is_recent = begun.is_some_and(|begun| ms_since(begun, now) < age_ms);
        if is_recent || self.unsaved_content().is_some() {
            return false;
        }
        let Some(look) = Self::begin(self.clone(), now) else { return false };
        // Without a thread left for it, the next request looks.
        let thread = thread::spawn("file", STACK_BYTES, move || look.make(now));
        thread.map(Thread::detach).is_ok()
    }

    /// Waits for the end of the look under way, unless that began longer than `most` ago.
    pub fn wait_for_look(&self, most: Duration, now: Moment) {
        let mut last = self.last();
        let Some(since) = last.looks_since() else { return };
        let left = most.saturating_sub(Duration::from_millis(ms_since(since, now)));
        let looks = last.looks;
        last.waiting += 1;
        let waited = self.looked.wait_timeout_while(last, left, |last| last.looks == looks);
        let (mut last, _) = waited.unwrap_or_else(PoisonError::into_inner);
        last.waiting -= 1;
    }

    /// Begins a look, unless one is under way.
    pub(super) fn begin<W: Deref<Target = Self>>(of: W, now: Moment) -> Option<Look<W>> {
        let mut last = of.last();
        if mem::replace(&mut last.is_looking, true) {
            return None;
        }
        last.begun = Some(now);
        let (path, seen) = (last.path.clone(), last.seen);
        drop(last);
        Some(Look { of, path, seen, has_ended: false })
    }

    /// Notes the end of a look.
    fn end_look(&self, last: &mut Last) {
        last.is_looking = false;
        last.looks += 1;
        if last.waiting > 0 {
            self.looked.notify_all();
        }
    }

    /// Reads the file at `path` if it may differ from the one that was read last, which was `seen`. No lock is held.
    fn find(&self, path: &Path, seen: Option<Seen>, now: Timestamp) -> Result<Found, FileFault> {
        let metadata = fs::metadata(path).map_err(FileFault::unreadable)?;
        let stamp = Stamp::of(&metadata);
        let before = seen.filter(|seen| seen.stamp == stamp);
        if before.is_some_and(|seen| seen.is_settled()) {
            return Ok(Found::Unchanged);
        }
        if !metadata.is_file() || metadata.len() > WATCHED_FILE_MAX_BYTES {
            return Err(FileFault::NoSmallFile);
        }
        let bytes = regular_file::read(path).map_err(FileFault::unreadable)?;
        let text = text_of(bytes).map_err(FileFault::unreadable)?;
        let content = content::parse(&text, &self.form)?;
        let first_at = before.map_or(now, |before| before.first_at);
        let seen = Seen { stamp, first_at, read_at: now };
        let is_detached = stamp.links == 0 && mount::is_mount_point(path);
        Ok(Found::Read { seen, content, is_detached })
    }
}

impl<W: Deref<Target = Watched>> Look<W> {
    /// Makes the look, and notes its outcome.
    pub(super) fn make(mut self, now: Moment) {
        let watched: &Watched = &self.of;
        let mut found = watched.find(&self.path, self.seen, now.wall);
        let moved = found.is_err().then(|| watched.moved_from(&self.path)).flatten();
        if let Some(path) = &moved {
            found = watched.find(path, None, now.wall);
        }
        let mut last = watched.last();
        if let Some(path) = moved {
            last.path = Arc::new(path);
        }
        let fault = match found {
            Ok(Found::Unchanged) => None,
            Ok(Found::Read { seen, content, is_detached }) => {
                last.seen = Some(seen);
                Watched::take(&mut last, content);
                let was_detached = mem::replace(&mut last.is_detached, is_detached);
                if is_detached && !was_detached {
                    warn!("{}", detached(&last.path));
                }
                None
            }
            Err(fault) => {
                last.seen = None;
                Some(fault)
            }
        };
        Watched::note(&mut last, fault, now);
        // Under the same lock, so that nobody takes the look for one that hangs.
        watched.end_look(&mut last);
        drop(last);
        self.has_ended = true;
    }
}
