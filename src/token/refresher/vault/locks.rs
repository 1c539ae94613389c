//! The locks of state files that a refresher holds.

use std::io;
use std::path::{Path, PathBuf};

use crate::token::refresher::desk::Desk;
use crate::token::state_file::{Locking, StateFile, StateLock};

#[derive(Default)]
pub(crate) struct Locks {
    /// Held while the files lack an unwritten record: a process that read one meanwhile would find a used refresh
    /// token.
    kept: Vec<(PathBuf, StateLock)>,
    is_warned: bool,
}

/// The reason why a lock can't be had for now.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoLock {
    /// Another process holds it.
    Busy,
    /// It is unknown whether another process holds it.
    Unknown,
}

impl Locks {
    /// Takes the lock of `state`, unless it is held already.
    pub(super) fn take(&self, state: &StateFile, desk: &mut Desk) -> io::Result<Locking> {
        let path = state.lock_path();
        match self.kept.iter().find(|(kept, _)| *kept == path) {
            Some((_, lock)) => Ok(Locking::Ours(lock.clone())),
            None => desk.on_disk(state, StateFile::try_lock),
        }
    }

    /// Keeps `lock` on the file at `path`.
    pub(super) fn keep(&mut self, lock: Option<StateLock>, path: PathBuf) {
        let is_kept = self.kept.iter().any(|(kept, _)| *kept == path);
        if let Some(lock) = lock.filter(|_| !is_kept) {
            self.kept.push((path, lock));
        }
    }

    /// Gives all locks back.
    pub(super) fn clear(&mut self) {
        self.kept.clear();
    }

    /// Logs once that the folder of the file at `path` can't hold locks.
    pub(super) fn warn_of_no_lock(&mut self, path: &Path, error: &io::Error, desk: &Desk) {
        if !self.is_warned {
            self.is_warned = true;
            desk.warn(format_args!(
                "The state folder can't hold a lock for {} ({error}); another process could \
                 refresh provider {} at the same time",
                path.display(),
                desk.name
            ));
        }
    }
}
